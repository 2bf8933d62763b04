//! When the request on its way is cut short, because something else needs the dispatcher's thread
//! more: a pure schedule. `main` follows it while it waits for an answer; the request is
//! interrupted from there.
//!
//! A request that is cut short is sent again, and Kinesis may have taken it: all of its events come
//! twice. So an INVOKE cuts nothing short before the hold of its invocation has to end. It would
//! gain nothing: nobody is held while the function runs, what is to be sent for it would wait
//! behind the same events, and a Kinesis that takes longer to answer would be asked for them with
//! each invocation again.

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
/// A request that is interrupted is over within this time, and the answer on its way.
const ANSWER: Duration = Duration::from_millis(100);
/// After a function that failed an invocation is held for 500 ms at most; the rest of that is for
/// the disk.
const FAILED_FUNCTION: Duration = Duration::from_millis(400);
/// A request that was sent since the end is known has its own deadline, and is over by then.
const LATE: Duration = Duration::from_millis(20);

/// When the request that is on its way at a function's end is to be cut short at the latest.
#[must_use]
pub fn hold_ends_at(end: Instant, failed: bool, flush_timeout: Duration) -> Option<Instant> {
    let time = if failed { FAILED_FUNCTION.min(flush_timeout) } else { flush_timeout + LATE };
    end.checked_add(time)
}

/// After the function's end, the flush waits so long for a connection that is being made ready:
/// most likely it is ready soon.
const PREPARING: Duration = Duration::from_millis(100);

/// See the module's page.
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    /// The core has not seen the question by then.
    unseen: Option<Instant>,
    /// The invocation is held no longer.
    hold_ends: Option<Instant>,
    /// The function has ended, and the call of that generation makes a connection ready.
    preparing: Option<(Instant, u64)>,
}

impl Watchdog {
    /// A question was asked, and is to be answered until then.
    #[must_use]
    pub fn new(question: Question, now: Instant, until: Instant) -> Watchdog {
        let left = until.saturating_duration_since(now);
        let allowed = match question {
            // Where little time is left most of it is for the answer.
            Question::Stop => STOP_SEEN.min(left / 8),
            Question::Invoked => left.saturating_sub(ANSWER),
        };
        Watchdog { unseen: now.checked_add(allowed), hold_ends: None, preparing: None }
    }

    /// The invocation is to be held no longer than until then. May be said again: the earliest
    /// counts.
    pub fn hold_ends(&mut self, at: Instant) {
        self.hold_ends = Some(self.hold_ends.map_or(at, |before| before.min(at)));
    }

    /// The function has ended while the call of that generation makes a connection ready.
    pub fn ended_while_preparing(&mut self, now: Instant, generation: u64) {
        self.preparing = now.checked_add(PREPARING).map(|at| (at, generation));
    }

    /// The call that makes a connection ready and is to be interrupted now.
    pub fn interrupts_preparing(&mut self, now: Instant) -> Option<u64> {
        let (_, generation) = self.preparing.take_if(|(at, _)| *at <= now)?;
        Some(generation)
    }

    /// When to look next. `None`: there is no need to.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        let preparing = self.preparing.map(|(at, _)| at);
        self.unseen.into_iter().chain(self.hold_ends).chain(preparing).min()
    }

    /// Whether to interrupt now. `seen`: the core has seen the question.
    pub fn interrupts(&mut self, now: Instant, seen: bool) -> bool {
        if seen {
            self.unseen = None;
        }
        if self.hold_ends.is_some_and(|at| at <= now) {
            self.hold_ends = None;
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
        for (question, allowed) in [(Question::Stop, STOP_SEEN), (Question::Invoked, ms(1900))] {
            let start = Instant::now();
            let mut watchdog = Watchdog::new(question, start, start + ms(2000));
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
    fn a_connection_that_is_never_ready_is_given_up_after_the_functions_end() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(Question::Invoked, start, start + ms(2000));
        assert!(!watchdog.interrupts(start, true));
        watchdog.ended_while_preparing(start + ms(50), 7);
        assert_eq!(watchdog.next(), Some(start + ms(150)));
        assert_eq!(watchdog.interrupts_preparing(start + ms(149)), None);
        assert!(!watchdog.interrupts(start + ms(150), true), "no other call is interrupted for it");
        assert_eq!(watchdog.interrupts_preparing(start + ms(150)), Some(7));
        assert_eq!(watchdog.interrupts_preparing(start + ms(500)), None);
    }

    #[test]
    fn a_question_that_comes_late_interrupts_earlier() {
        let start = Instant::now();
        let watchdog = Watchdog::new(Question::Stop, start, start + ms(80));
        assert_eq!(watchdog.next(), Some(start + ms(10)));
        let watchdog = Watchdog::new(Question::Invoked, start, start + ms(80));
        assert_eq!(watchdog.next(), Some(start), "it is to be answered now");
    }

    #[test]
    fn the_end_of_a_hold_interrupts_once() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(Question::Invoked, start, start + ms(2000));
        assert!(!watchdog.interrupts(start, true));
        watchdog.hold_ends(start + ms(1400));
        watchdog.hold_ends(start + ms(1600));
        assert_eq!(watchdog.next(), Some(start + ms(1400)));
        assert!(!watchdog.interrupts(start + ms(1399), true));
        assert!(watchdog.interrupts(start + ms(1400), true));
        assert!(!watchdog.interrupts(start + ms(9000), true));
        for (failed, timeout, expected) in
            [(false, 3000, 3020), (true, 3000, 400), (true, 50, 50), (false, 50, 70)]
        {
            assert_eq!(hold_ends_at(start, failed, ms(timeout)), Some(start + ms(expected)));
        }
    }
}
