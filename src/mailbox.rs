//! What one thread puts for another one that may wait for it: a few small things, in their order.
//! For everything that reaches the dispatcher there is its channel; a second kind of channel of the
//! standard library would cost more of the program's size than this.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

#[derive(Debug)]
struct State<T> {
    items: Vec<T>,
    /// Whether somebody waits: else there is nobody to wake, which the kernel would have to be
    /// asked.
    awaited: bool,
}

/// See the module's page.
#[derive(Debug)]
pub struct Mailbox<T> {
    state: Mutex<State<T>>,
    came: Condvar,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        let state = State { items: Vec::new(), awaited: false };
        Mailbox { state: Mutex::new(state), came: Condvar::new() }
    }
}

impl<T> Mailbox<T> {
    /// Puts something in.
    pub fn put(&self, item: T) {
        let mut state = self.lock();
        state.items.push(item);
        if std::mem::take(&mut state.awaited) {
            drop(state);
            self.came.notify_one();
        }
    }

    /// The oldest, waited for until then; `None` then, and as soon as the time has passed.
    pub fn take(&self, until: Instant) -> Option<T> {
        let mut state = self.lock();
        loop {
            if !state.items.is_empty() {
                return Some(state.items.remove(0));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state.awaited = true;
            state = self.came.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Everything, waited for as long as it takes.
    pub fn take_all(&self) -> Vec<T> {
        let mut state = self.lock();
        while state.items.is_empty() {
            state.awaited = true;
            state = self.came.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::take(&mut state.items)
    }

    /// Throws away what is in it.
    pub fn clear(&self) {
        self.lock().items.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_put_comes_in_order_and_wakes_who_waits() {
        let mailbox = Arc::new(Mailbox::default());
        mailbox.put(1);
        mailbox.put(2);
        let now = Instant::now();
        assert_eq!(
            (mailbox.take(now), mailbox.take(now), mailbox.take(now)),
            (Some(1), Some(2), None)
        );
        let sender = Arc::clone(&mailbox);
        let thread = thread::spawn(move || sender.put(3));
        assert_eq!(mailbox.take(now + Duration::from_secs(60)), Some(3));
        thread.join().unwrap();
        mailbox.put(4);
        mailbox.clear();
        mailbox.put(5);
        mailbox.put(6);
        assert_eq!(mailbox.take_all(), [5, 6]);
    }
}
