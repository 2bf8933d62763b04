//! The invocations that the intake has seen, and the one in progress. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use super::observed::{Milestone, MilestoneKind, PlatformResult};
use crate::clock::EpochMs;

/// Invocations whose ids are remembered.
pub(super) const MAX_INVOCATIONS: usize = 64;

/// The invocations that this sandbox has seen, the last ones of them.
#[derive(Debug, Default)]
pub(super) struct Invocations {
    pub(super) overlapping: bool,
    /// The sandbox's first: nobody's id once Lambda has tried that one again under the same id.
    pub(super) first: Option<Arc<str>>,
    /// When it began.
    first_began: Option<EpochMs>,
    /// The one in progress; none where they overlap.
    pub(super) current: Option<Invocation>,
    seen: VecDeque<Invocation>,
}

#[derive(Clone, Debug)]
pub(super) struct Invocation {
    /// As in JSON, between the quotes.
    pub(super) request_id: Arc<str>,
    /// The same, where the platform says one.
    pub(super) tenant_id: Option<Arc<str>>,
}

impl Invocations {
    pub(super) fn new(overlapping: bool) -> Invocations {
        Invocations { overlapping, ..Invocations::default() }
    }

    pub(super) fn find(&self, request_id: &str) -> Option<&Invocation> {
        self.seen.iter().rev().find(|seen| *seen.request_id == *request_id)
    }

    pub(super) fn add(&mut self, request_id: &Arc<str>, tenant_id: Option<&str>) -> Invocation {
        let known = self
            .seen
            .iter()
            .position(|seen| seen.request_id == *request_id)
            .and_then(|at| self.seen.remove(at));
        if self.seen.len() >= MAX_INVOCATIONS {
            self.seen.pop_front();
        }
        let tenant_id = tenant_id.map(Arc::from).or(known.and_then(|known| known.tenant_id));
        let invocation = Invocation { request_id: Arc::clone(request_id), tenant_id };
        self.seen.push_back(invocation.clone());
        invocation
    }

    pub(super) fn start(
        &mut self,
        request_id: &Arc<str>,
        tenant_id: Option<&str>,
        time: Option<EpochMs>,
    ) {
        if self.first.is_none() {
            (self.first, self.first_began) = (Some(Arc::clone(request_id)), time);
        } else if self.first.as_ref() == Some(request_id) {
            if is_later(time, self.first_began) {
                self.first = Some("".into());
            }
            // Perhaps only an end has named it so far.
            self.first_began = self.first_began.or(time);
        }
        let invocation = self.add(request_id, tenant_id);
        self.current = Some(invocation).filter(|_| !self.overlapping);
    }

    /// An invocation is over. Its start may have been lost.
    pub(super) fn ended(&mut self, request_id: &Arc<str>) {
        if self.first.is_none() && self.is_cold_start(request_id) {
            self.first = Some(Arc::clone(request_id));
        }
    }

    /// A milestone as far as it is known from here.
    pub(super) fn milestone(&self, request_id: &Arc<str>, kind: MilestoneKind) -> Milestone {
        Milestone {
            request_id: Arc::clone(request_id),
            time: None,
            is_ours: self.find(request_id).is_some(),
            trace_id: None,
            tenant_id: None,
            is_first: self.is_cold_start(request_id),
            kind,
            result: PlatformResult::default(),
        }
    }

    pub(super) fn is_current(&self, request_id: &str) -> bool {
        self.current.as_ref().is_some_and(|current| *current.request_id == *request_id)
    }

    /// Whether an invocation is the sandbox's first. The report of one before this process is none
    /// of its.
    pub(super) fn is_cold_start(&self, request_id: &str) -> bool {
        match &self.first {
            Some(first) => **first == *request_id,
            None => self.overlapping || self.find(request_id).is_some(),
        }
    }
}

/// Whether the start of an invocation is that of another one than the start before: Lambda tries
/// again under the same request id, and may post the same events twice.
pub(super) fn is_later(start: Option<EpochMs>, before: Option<EpochMs>) -> bool {
    start.zip(before).is_some_and(|(start, before)| start > before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_one_is_told_from_a_second_try_under_its_id() {
        let (first, second): (Arc<str>, Arc<str>) = ("r1".into(), "r2".into());
        let mut invocations = Invocations::default();
        invocations.start(&first, None, Some(1000));
        invocations.start(&first, None, Some(1000));
        assert!(invocations.is_cold_start("r1"), "the same events, posted twice");
        invocations.start(&second, None, Some(2000));
        assert!(invocations.is_cold_start("r1") && !invocations.is_cold_start("r2"));
        invocations.start(&first, None, Some(3000));
        assert!(!invocations.is_cold_start("r1") && !invocations.is_cold_start("r2"));
    }

    #[test]
    fn the_first_one_is_known_by_its_end_where_its_start_was_lost() {
        let (first, second): (Arc<str>, Arc<str>) = ("r1".into(), "r2".into());
        let mut invocations = Invocations::default();
        invocations.ended(&second);
        assert!(!invocations.is_cold_start("r2"), "nobody announced it");
        invocations.add(&first, None);
        invocations.ended(&first);
        invocations.start(&second, None, Some(2000));
        assert!(invocations.is_cold_start("r1") && !invocations.is_cold_start("r2"));
    }
}
