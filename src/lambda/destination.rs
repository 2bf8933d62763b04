//! Where Lambda posts: the secret path of the destination, and which POSTs are taken. Owns no
//! socket, thread, clock or log.
//!
//! Lambda may keep the subscription of the process before a reset (its Logs API calls subscribing
//! idempotent), so every process of a sandbox has the same path. Lambda may also drop the path (its
//! Managed Instances emulator does): then any path is taken, until the right one is seen.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Invocations in a row without any POST on the right path, while POSTs elsewhere were refused:
/// Lambda does not know the path.
const SILENT_INVOCATIONS: u32 = 3;

/// See the module's page. Shared by the listener's threads and `main`.
#[derive(Debug)]
pub struct Destination {
    path: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Any path is taken.
    any: bool,
    /// The right one was seen: Lambda knows it, and whoever posts elsewhere is not Lambda.
    seen: bool,
    /// A POST was refused that may be Lambda's, and none was taken since.
    refused: bool,
    /// Invocations that began in that state.
    silent: u32,
}

impl Destination {
    /// `any` where Lambda is known to drop the path. Without a `boot_id` the path is `random`, and
    /// a process after a reset has another one.
    #[must_use]
    pub fn new(
        boot_id: Option<&str>,
        function: &[&str],
        random: impl FnOnce() -> String,
        any: bool,
    ) -> Destination {
        let path = boot_id.map_or_else(random, |boot_id| derived(boot_id, function));
        Destination {
            path: format!("/{path}"),
            state: Mutex::new(State { any, seen: false, refused: false, silent: 0 }),
        }
    }

    /// With its leading slash. A secret.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether a POST to `path` is taken.
    pub fn admits(&self, path: &str) -> bool {
        let mut state = self.lock();
        let right = path == self.path;
        state.any &= !right;
        state.seen |= right;
        let taken = right || state.any;
        state.refused = !taken && !state.seen;
        if taken {
            state.silent = 0;
        }
        taken
    }

    /// An invocation begins. Says whether any path is taken from now on, because the invocations
    /// before it were silent.
    pub fn invoked(&self) -> bool {
        let mut state = self.lock();
        if !state.refused {
            return false;
        }
        state.silent += 1;
        state.silent > SILENT_INVOCATIONS && state.open()
    }

    /// An invocation was held for a `platform.runtimeDone` that did not come by its deadline. Says
    /// whether any path is taken from now on.
    pub fn waited_in_vain(&self) -> bool {
        let mut state = self.lock();
        state.refused && state.open()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn open(&mut self) -> bool {
        (self.refused, self.silent) = (false, 0);
        !std::mem::replace(&mut self.any, true)
    }
}

/// The kernel's boot id is the same for all processes of a sandbox, also after a reset, and is seen
/// nowhere outside of it. Code inside the sandbox can read it: nothing that the next process knows
/// could be kept from the function, which has the same rights. What registration says of the
/// function keeps sandboxes apart that were started from one image of a running machine and so
/// share a boot id. Sandboxes restored from one SnapStart snapshot share the path in any case: it
/// was chosen before the snapshot.
///
/// Nobody can guess the path who does not know the boot id, whatever it is mixed with. A
/// cryptographic hash would ask the CPU what it can do, and in a virtual machine each such question
/// is answered by the hypervisor: three of them cost more than the whole path does.
fn derived(boot_id: &str, function: &[&str]) -> String {
    let half = |number: u8| {
        let mut hasher = DefaultHasher::new();
        ("kinesis-telemetry-extension destination", number, boot_id, function).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    };
    half(0) + &half(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: &str = "3c1f3c9e-0b0f-4d4c-9d1c-2f3e0a1b2c3d";

    fn destination(any: bool) -> Destination {
        Destination::new(Some(BOOT), &["orders", "7"], || unreachable!("there is a boot id"), any)
    }

    #[test]
    fn every_process_of_a_sandbox_has_the_same_path_and_no_other_has_it() {
        let path = |boot: &str, function: &[&str]| {
            Destination::new(Some(boot), function, String::new, false).path
        };
        let here = path(BOOT, &["orders", "7"]);
        assert_eq!(here, destination(false).path);
        assert!(here.len() == 33 && here.starts_with('/') && !here.contains(BOOT), "{here}");
        let others = [
            path("another", &["orders", "7"]),
            path(BOOT, &["orders", "8"]),
            path(BOOT, &["orders7", ""]),
            path(BOOT, &["orders7"]),
        ];
        assert!(others.iter().all(|other| *other != here));
        assert_ne!(others[2], others[3]);
        assert_eq!(
            Destination::new(None, &["orders"], || "random".to_owned(), false).path,
            "/random"
        );
    }

    #[test]
    fn only_the_right_path_is_taken() {
        let destination = destination(false);
        assert!(!destination.admits("/"));
        assert!(destination.admits(destination.path()));
        assert!(!destination.admits(&format!("{}/", destination.path())));
    }

    #[test]
    fn where_lambda_drops_the_path_any_is_taken_until_the_right_one_is_seen() {
        let destination = destination(true);
        assert!(destination.admits("/") && destination.admits("/x"));
        assert!(destination.admits(destination.path()));
        assert!(!destination.admits("/"));
    }

    #[test]
    fn a_wait_in_vain_opens_it_only_if_posts_were_refused() {
        let destination = destination(false);
        assert!(!destination.waited_in_vain() && !destination.admits("/"));
        assert!(destination.waited_in_vain());
        assert!(destination.admits("/") && destination.admits("/other"));
        // Already open: nothing new to say.
        assert!(!destination.waited_in_vain());
        assert!(destination.admits(destination.path()));
        assert!(!destination.admits("/"));
        assert!(destination.admits(destination.path()));
        assert!(!destination.waited_in_vain(), "the POST that was refused was not Lambda's");
        assert!(!destination.admits("/"));
    }

    #[test]
    fn once_the_right_one_was_seen_nothing_opens_it() {
        let destination = destination(false);
        assert!(destination.admits(destination.path()));
        for _ in 0..10 {
            assert!(!destination.admits("/"));
            assert!(!destination.waited_in_vain() && !destination.invoked());
        }
        assert!(!destination.admits("/"));
    }

    #[test]
    fn without_a_wait_some_silent_invocations_open_it() {
        let destination = destination(false);
        assert!((0..10).all(|_| !destination.invoked()), "nothing was refused");
        let opened: Vec<bool> = (0..5)
            .map(|_| {
                destination.admits("/");
                destination.invoked()
            })
            .collect();
        assert_eq!(opened, [false, false, false, true, false]);
    }
}
