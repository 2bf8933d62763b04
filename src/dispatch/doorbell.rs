//! What wakes the dispatcher's thread. Messages wait in the channel until it looks there; waking it
//! for each of them would cost more than most of them do. So before it sleeps it says what it waits
//! for, and whoever sends a message wakes it for that alone.
//!
//! The dispatcher announces before it looks at the channel for the last time, and a sender asks
//! after it has sent: one of them sees the other.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Instant;

use super::attention::{Announced, Attention, News};
use super::message::Now;

/// See the module's page.
#[derive(Debug, Default)]
pub struct Doorbell {
    announced: Mutex<Announced>,
    sleeper: OnceLock<Thread>,
}

impl Doorbell {
    /// Says what the dispatcher waits for from now on, until then at the most.
    pub fn announce(&self, attention: Attention, until: Option<Instant>) {
        *self.lock() = Announced::new(attention, until);
    }

    /// Telemetry was sent: wakes the dispatcher if it waits for that.
    pub fn ring_for(&self, news: News) {
        let wakes = self.lock().wakes(news);
        if wakes {
            self.wake();
        }
    }

    /// Whether an invocation that begins now needs no answer.
    #[must_use]
    pub fn passes(&self, now: Now) -> bool {
        self.lock().passes(now)
    }

    /// Wakes the dispatcher, now or as soon as it falls asleep.
    pub fn ring(&self) {
        self.lock().rings();
        self.wake();
    }

    fn wake(&self) {
        if let Some(sleeper) = self.sleeper.get() {
            sleeper.unpark();
        }
    }

    /// Sleeps until then, or until the bell rings, or for no reason. On the dispatcher's thread
    /// alone.
    pub fn sleep(&self, until: Option<Instant>) {
        match until {
            Some(until) => thread::park_timeout(until.saturating_duration_since(Instant::now())),
            None => thread::park(),
        }
    }

    /// This is the dispatcher's thread.
    pub fn belongs_here(&self) {
        self.sleeper.get_or_init(thread::current);
    }

    fn lock(&self) -> MutexGuard<'_, Announced> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_ring_before_the_sleep_is_not_lost() {
        let bell = Doorbell::default();
        bell.ring();
        bell.belongs_here();
        bell.ring();
        bell.sleep(None);
    }

    #[test]
    fn another_thread_wakes_for_what_is_waited_for() {
        let bell = Arc::new(Doorbell::default());
        bell.belongs_here();
        bell.announce(Attention { bytes: Some(10), ..Attention::default() }, None);
        let sender = Arc::clone(&bell);
        let thread = thread::spawn(move || sender.ring_for(News::new(&[], 10)));
        // It may wake for no reason; the end of the thread shows that it woke at all.
        bell.sleep(None);
        thread.join().unwrap();
    }
}
