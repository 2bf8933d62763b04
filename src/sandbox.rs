//! What is known of this sandbox: what the envelope says of every event. Shared by all threads;
//! each fact is learnt once or rarely.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::random;

/// Invocations whose ARN is remembered: those that telemetry may still arrive for.
const INVOCATIONS: usize = 16;

/// Facts of the sandbox, and the id of this process.
#[derive(Debug)]
pub struct Sandbox {
    id: String,
    facts: Mutex<Facts>,
    /// Rises whenever a fact changes, so that what was made of the facts can be kept until then.
    generation: AtomicU64,
    /// Kinesis, as it can be reached from here, takes no CBOR.
    refuses_cbor: AtomicBool,
    /// How many of its ids have an event on the stream that says what it is.
    introduced: AtomicU16,
}

/// What Lambda has said so far. Strings are plain text, not JSON.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// From registration.
    pub function_name: Option<String>,
    /// From registration.
    pub function_version: Option<String>,
    /// From registration, or else out of an ARN.
    pub account_id: Option<String>,
    /// From the environment.
    pub region: Option<String>,
    /// `instanceId` of `platform.initStart`: the log stream's name in real sandboxes.
    pub log_stream: Option<String>,
    /// The id after each restore from a snapshot.
    restored: Vec<String>,
    /// From the setting.
    pub tags: Vec<(String, String)>,
    /// Request id and invoked ARN, oldest first.
    invocations: VecDeque<(String, String)>,
}

impl Facts {
    /// The ARN that `request_id` was invoked by; for events outside any invocation, that of the
    /// earliest invocation known.
    #[must_use]
    pub fn arn_of(&self, request_id: Option<&str>) -> Option<&str> {
        let found = match request_id {
            Some(id) => self.invocations.iter().find(|(known, _)| known == id),
            None => self.invocations.front(),
        };
        found.map(|(_, arn)| arn.as_str())
    }
}

impl Facts {
    /// The id that the sandbox had after so many restores from its snapshot; `None` for the one
    /// that it began with.
    #[must_use]
    pub fn id_after(&self, restores: u16) -> Option<&str> {
        let last = self.restored.len().min(usize::from(restores));
        self.restored.get(last.checked_sub(1)?).map(String::as_str)
    }

    /// How often the sandbox has been restored.
    #[must_use]
    pub fn restores(&self) -> u16 {
        u16::try_from(self.restored.len()).unwrap_or(u16::MAX)
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Sandbox {
            id: random::hex16(),
            facts: Mutex::default(),
            generation: AtomicU64::new(1),
            refuses_cbor: AtomicBool::new(false),
            introduced: AtomicU16::new(0),
        }
    }
}

impl Sandbox {
    /// One with that id, where nothing may be left to chance.
    #[must_use]
    pub fn with_id(id: String) -> Sandbox {
        Sandbox { id, ..Sandbox::default() }
    }

    /// The first half of every event id until the sandbox is restored from a snapshot: 16 hex
    /// digits, new for each process.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Kinesis has refused CBOR: for the rest of this sandbox's life it gets none.
    pub fn cbor_refused(&self) {
        self.refuses_cbor.store(true, Ordering::Release);
    }

    /// Whether it has refused CBOR so far.
    #[must_use]
    pub fn refuses_cbor(&self) -> bool {
        self.refuses_cbor.load(Ordering::Acquire)
    }

    /// It was restored from a snapshot, from which others may come too: from now on its id is
    /// another one.
    pub fn restored(&self) {
        self.restored_as(random::hex16());
    }

    /// The same, with that id, where nothing may be left to chance.
    pub fn restored_as(&self, id: String) {
        self.learn(|facts| facts.restored.push(id));
    }

    /// Of so many of its ids, in their order, the sandbox event is on the stream or was given up.
    pub fn introduce(&self, ids: u16) {
        self.introduced.fetch_max(ids, Ordering::AcqRel);
    }

    /// See [`Sandbox::introduce`].
    #[must_use]
    pub fn introduced(&self) -> u16 {
        self.introduced.load(Ordering::Acquire)
    }

    /// How often it has been restored.
    #[must_use]
    pub fn restores(&self) -> u16 {
        self.lock().restores()
    }

    /// Changes whenever a fact does.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The facts as they stand.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.lock().clone()
    }

    /// Notes facts; see [`Facts`].
    pub fn learn(&self, learn: impl FnOnce(&mut Facts)) {
        learn(&mut self.lock());
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes an invocation and the ARN it was invoked by; also fills the account id where
    /// registration did not give it.
    pub fn invoked(&self, request_id: &str, arn: &str) {
        if self.lock().arn_of(Some(request_id)).is_some() {
            return;
        }
        self.learn(|facts| {
            if facts.account_id.is_none() {
                let account = arn.split(':').nth(4).filter(|a| !a.is_empty());
                facts.account_id = account.map(str::to_owned);
            }
            if facts.invocations.len() == INVOCATIONS {
                facts.invocations.pop_front();
            }
            facts.invocations.push_back((request_id.to_owned(), arn.to_owned()));
        });
    }

    /// Hands over the request ids of the invocations that are known, oldest first.
    pub fn each_invocation(&self, mut see: impl FnMut(&str)) {
        self.lock().invocations.iter().for_each(|(request_id, _)| see(request_id));
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_arn_of_its_own_invocation() {
        let sandbox = Sandbox::default();
        sandbox.invoked("r1", "arn:aws:lambda:eu-west-1:123456789012:function:f:blue");
        sandbox.invoked("r2", "arn:aws:lambda:eu-west-1:123456789012:function:f:green");
        let facts = sandbox.facts();
        assert_eq!(
            facts.arn_of(Some("r2")),
            Some("arn:aws:lambda:eu-west-1:123456789012:function:f:green")
        );
        assert_eq!(
            facts.arn_of(None),
            Some("arn:aws:lambda:eu-west-1:123456789012:function:f:blue")
        );
        assert_eq!(facts.arn_of(Some("r3")), None);
        assert_eq!(facts.account_id.as_deref(), Some("123456789012"));
    }

    #[test]
    fn each_restore_has_an_id_of_its_own() {
        let sandbox = Sandbox::default();
        assert_eq!(sandbox.facts().id_after(0), None);
        sandbox.restored();
        let facts = sandbox.facts();
        assert_eq!((facts.id_after(0), facts.restores()), (None, 1));
        assert!(facts.id_after(1).is_some_and(|id| id.len() == 16 && id != sandbox.id()));
        assert_eq!(facts.id_after(2), facts.id_after(1));
    }

    #[test]
    fn old_invocations_are_forgotten_and_the_generation_rises() {
        let sandbox = Sandbox::default();
        let before = sandbox.generation();
        for n in 0..100 {
            sandbox.invoked(&format!("r{n}"), "arn");
        }
        assert_eq!(sandbox.facts().invocations.len(), INVOCATIONS);
        assert_eq!(sandbox.generation(), before + 100);
        let mut ids = Vec::new();
        sandbox.each_invocation(|id| ids.push(id.to_owned()));
        assert_eq!((ids.len(), ids.last().map(String::as_str)), (INVOCATIONS, Some("r99")));
    }
}
