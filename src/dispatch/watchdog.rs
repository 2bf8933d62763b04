//! When the request on its way is cut short, because something else needs the dispatcher's thread more: a pure schedule. `main` follows it
//! while it waits for an answer; the request is interrupted from there.

use std::time::{Duration, Instant};

/// What `main` asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// An invocation has begun.
    Invoked,
    /// The sandbox ends.
    Stop,
}

/// A SHUTDOWN must be seen by the core within this time.
const STOP_SEEN: Duration = Duration::from_millis(100);
/// An INVOKE must be seen by the core within this time.
const INVOKE_SEEN: Duration = Duration::from_millis(200);
/// After a function that failed an invocation is held for 500 ms at most; the rest of that is for the disk.
const FAILED_FUNCTION: Duration = Duration::from_millis(400);

/// See the module's page.
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    /// The core has not seen the question by then.
    unseen: Option<Instant>,
    /// The function failed so long ago.
    failed: Option<Instant>,
}

impl Watchdog {
    /// A question was asked.
    #[must_use]
    pub fn new(question: Question, now: Instant) -> Watchdog {
        let allowed = if question == Question::Stop { STOP_SEEN } else { INVOKE_SEEN };
        Watchdog { unseen: now.checked_add(allowed), failed: None }
    }

    /// The function whose invocation is held has failed. May be said again: the earliest counts.
    pub fn function_failed(&mut self, at: Instant) {
        self.failed = self.failed.into_iter().chain(at.checked_add(FAILED_FUNCTION)).min();
    }

    /// When to look next. `None`: there is no need to.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.unseen.into_iter().chain(self.failed).min()
    }

    /// Whether to interrupt now. `seen`: the core has seen the question.
    pub fn interrupts(&mut self, now: Instant, seen: bool) -> bool {
        if seen {
            self.unseen = None;
        }
        if self.failed.is_some_and(|at| at <= now) {
            self.failed = None;
            return true;
        }
        if self.unseen.is_some_and(|at| at <= now) {
            // Another request may have begun meanwhile.
            self.unseen = now.checked_add(STOP_SEEN);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_is_not_seen_in_time_interrupts_until_it_is() {
        for (question, allowed) in [(Question::Stop, STOP_SEEN), (Question::Invoked, INVOKE_SEEN)] {
            let start = Instant::now();
            let mut watchdog = Watchdog::new(question, start);
            assert_eq!(watchdog.next(), Some(start + allowed));
            assert!(!watchdog.interrupts(start + allowed - ms(1), false));
            assert!(watchdog.interrupts(start + allowed, false));
            assert!(!watchdog.interrupts(start + allowed + ms(99), false));
            assert!(watchdog.interrupts(start + allowed + ms(100), false));
            assert!(!watchdog.interrupts(start + allowed + ms(500), true));
            assert_eq!(watchdog.next(), None);
        }
    }

    #[test]
    fn a_function_that_failed_interrupts_once() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(Question::Invoked, start);
        assert!(!watchdog.interrupts(start, true));
        watchdog.function_failed(start + ms(1000));
        watchdog.function_failed(start + ms(1200));
        assert_eq!(watchdog.next(), Some(start + ms(1400)));
        assert!(!watchdog.interrupts(start + ms(1399), true));
        assert!(watchdog.interrupts(start + ms(1400), true));
        assert!(!watchdog.interrupts(start + ms(9000), true));
    }
}
