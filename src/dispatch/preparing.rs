//! When the connection is made ready for the flush of an invocation that is held to its function's
//! end: a pure schedule, one for each hold.
//!
//! A dead connection is found at once, which costs next to nothing. Opening a new one costs CPU
//! that the function may want, so that waits until nothing else runs in the sandbox. A function
//! mostly waits for others, and this process learns of its end 25 ms later at the earliest, since
//! Lambda holds telemetry back so long: there is a moment in nearly every invocation.

use std::time::{Duration, Instant};

/// Before the first look whether the function waits; each later pause is three times as long.
const FIRST_PAUSE: Duration = Duration::from_millis(3);
/// After so long a connection is opened in any case: its share of the function's time is small by
/// then.
const PATIENCE: Duration = Duration::from_secs(1);

/// How much the function is asked to make way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// See whether there is something to do.
    Look,
    /// Do it if nothing else runs.
    WhenIdle,
    /// Do it.
    Now,
}

/// See the module's page.
#[derive(Debug)]
pub struct Preparation {
    effort: Effort,
    /// `None`: it is over.
    due: Option<Instant>,
    pause: Duration,
    /// From then on nothing waits for an idle moment.
    patient_until: Option<Instant>,
}

impl Preparation {
    /// An invocation is held from `now` on.
    #[must_use]
    pub fn new(now: Instant) -> Preparation {
        Preparation {
            effort: Effort::Look,
            due: Some(now),
            pause: FIRST_PAUSE,
            patient_until: now.checked_add(PATIENCE),
        }
    }

    /// What to do now, if anything.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Effort> {
        self.due.is_some_and(|due| due <= now).then_some(self.effort)
    }

    /// When there will be something to do.
    #[must_use]
    pub fn due_at(&self) -> Option<Instant> {
        self.due
    }

    /// A try is over. `ready`: there is nothing more to do; a try that failed is not repeated
    /// either, as the flush will.
    pub fn tried(&mut self, ready: bool, now: Instant) {
        self.due = now.checked_add(self.pause).filter(|_| !ready);
        let patient = self.due < self.patient_until;
        self.effort = if patient { Effort::WhenIdle } else { Effort::Now };
        self.pause = self.pause.saturating_mul(3);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_for_an_idle_moment_ever_more_rarely_and_not_for_ever() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut preparation = Preparation::new(start);
        assert_eq!(preparation.due(start), Some(Effort::Look));
        let mut now = start;
        for expected in [3, 12, 39, 120, 363] {
            preparation.tried(false, now);
            now = at(expected);
            assert_eq!(preparation.due_at(), Some(now));
            assert_eq!(preparation.due(at(expected - 1)), None);
            assert_eq!(preparation.due(now), Some(Effort::WhenIdle));
        }
        preparation.tried(false, now);
        assert_eq!(preparation.due(at(1092)), Some(Effort::Now));
        preparation.tried(true, at(1092));
        assert_eq!((preparation.due_at(), preparation.due(at(9000))), (None, None));
    }
}
