//! How another thread ends the call in progress. The dispatcher's thread makes the calls; whoever
//! has a handle may end one. Pure: a call looks at its handle by itself, between two waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Ends a call that another thread does not want to wait for. Each call has a generation, so that
/// an interrupt that comes late ends no later one.
#[derive(Clone, Debug, Default)]
pub struct InterruptHandle(Arc<Generations>);

#[derive(Debug, Default)]
struct Generations {
    current: AtomicU64,
    interrupted: AtomicU64,
}

impl InterruptHandle {
    /// The generation of the call in progress; between calls that of the last one.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.current.load(Ordering::Acquire)
    }

    /// Ends the call of that generation, if it is still in progress, and refuses those before it.
    pub fn interrupt(&self, generation: u64) {
        self.0.interrupted.fetch_max(generation, Ordering::AcqRel);
    }

    /// A new call begins.
    pub(super) fn begin(&self) {
        self.0.current.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.0.interrupted.load(Ordering::Acquire) >= self.generation()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_ends_its_own_generation_and_no_later_one() {
        let handle = InterruptHandle::default();
        handle.begin();
        assert!(!handle.is_interrupted());
        let first = handle.generation();
        handle.begin();
        handle.interrupt(first);
        assert!(!handle.is_interrupted(), "a late one");
        handle.interrupt(handle.generation());
        assert!(handle.is_interrupted());
        handle.interrupt(first);
        assert!(handle.is_interrupted(), "an older one takes nothing back");
        handle.begin();
        assert!(!handle.is_interrupted());
    }
}
