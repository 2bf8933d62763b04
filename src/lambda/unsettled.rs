//! The events that Lambda was answered 200 for and that are not in the queue yet: those of
//! invocations that are not chosen, and a piece of a cut record that waits for the next one. They
//! are counted apart from the locks that guard them, so that SHUTDOWN can count them as lost where
//! it cannot wait for who has those. Never held for longer than it takes to count.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Unsettled(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    is_closed: bool,
    /// That wait for a choice.
    events: u64,
    /// A piece waits.
    has_piece: bool,
}

impl Unsettled {
    /// A part of a body was parsed, and took in the piece that waited. Says whether its events are
    /// to be handed on: once it is closed Lambda keeps them, and the piece is counted already.
    #[must_use]
    pub(super) fn parsed(&self, has_piece: bool) -> bool {
        let mut state = self.lock();
        if !state.is_closed {
            state.has_piece = has_piece;
        }
        !state.is_closed
    }

    /// So many events wait for a choice, if it is not closed.
    #[must_use]
    pub(super) fn wait(&self, events: u64) -> bool {
        let mut state = self.lock();
        if !state.is_closed {
            state.events += events;
        }
        !state.is_closed
    }

    /// So many of those are chosen. Says whether they are to be handed on, or were counted as lost
    /// meanwhile.
    #[must_use]
    pub(super) fn claim(&self, events: u64) -> bool {
        let mut state = self.lock();
        let left = state.events.checked_sub(events);
        state.events = left.unwrap_or(state.events);
        left.is_some()
    }

    /// Nothing comes in from now on.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
    }

    /// Whether nothing comes in any more.
    #[must_use]
    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Gives up all that is left, and says how much that was.
    #[must_use]
    pub(super) fn give_up(&self) -> u64 {
        let mut state = self.lock();
        std::mem::take(&mut state.events) + u64::from(std::mem::take(&mut state.has_piece))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_handed_on_or_given_up_and_never_both() {
        let unsettled = Unsettled::default();
        assert!(unsettled.parsed(true) && unsettled.wait(3) && unsettled.wait(4));
        assert!(unsettled.claim(3));
        unsettled.close();
        assert!(unsettled.is_closed() && !unsettled.wait(5) && !unsettled.parsed(false));
        // What waited before may still be handed on, until it is given up.
        assert!(unsettled.claim(1));
        assert_eq!(unsettled.give_up(), 4);
        assert!(!unsettled.claim(3));
        assert_eq!(unsettled.give_up(), 0);
    }
}
