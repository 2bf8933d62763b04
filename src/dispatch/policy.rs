//! When telemetry is sent: a pure function of the time, the pending work and the invocations seen.
//! Times are the core's own, which neither a freeze nor a wall clock that is set back can stop.

use std::time::Duration;

/// When telemetry is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushMode {
    /// `End` while invocations are rare, else `Next` when something is due.
    Adaptive,
    /// At the end of each invocation, before the sandbox can freeze.
    End,
    /// At the start of the next invocation.
    Next,
}

impl FlushMode {
    /// As it is set.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FlushMode::Adaptive => "adaptive",
            FlushMode::End => "end",
            FlushMode::Next => "next",
        }
    }
}

/// Below this many invocations, `adaptive` flushes at the end of each: most sandboxes never get
/// further.
const WARM_UP_INVOCATIONS: u64 = 20;

/// What waits to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Bytes in memory.
    pub bytes: usize,
    /// When the oldest event was taken from Lambda; `None` if nothing waits.
    pub oldest: Option<Duration>,
    /// The queue's bound.
    pub bound: usize,
    /// What one request takes.
    pub request: usize,
    /// Memory could not hold all: what came later waits on disk, or was read from there and not sent
    /// yet, and its age is not known.
    pub on_disk: bool,
}

impl Pending {
    fn is_old(&self, max_age: Duration, now: Duration) -> bool {
        self.oldest.is_some_and(|oldest| now.saturating_sub(oldest) >= max_age)
    }
}

/// What to do when an invocation begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnInvoke {
    /// Wait for the function's end, then send everything.
    AtEnd,
    /// Send what waits, while the function runs.
    Now,
    /// Nothing is due: do not hold the invocation at all.
    Nothing,
}

/// How often this sandbox is invoked.
#[derive(Clone, Debug, Default)]
pub struct Cadence {
    seen: u64,
    last: Duration,
    /// Average gap, weighted towards the last ones.
    gap: Duration,
}

impl Cadence {
    /// An invocation begins at `now`.
    pub fn invoked(&mut self, now: Duration) {
        let gap = now.saturating_sub(self.last);
        self.gap = match self.seen {
            0 => Duration::ZERO,
            1 => gap,
            _ => self.gap - self.gap / 8 + gap / 8,
        };
        self.seen += 1;
        self.last = now;
    }

    /// Too few to tell, or too far apart for an event to leave with the next one in time.
    #[must_use]
    pub fn is_rare(&self, max_age: Duration) -> bool {
        self.seen < WARM_UP_INVOCATIONS || self.gap > max_age
    }
}

/// Whether and when an invocation's telemetry is sent.
#[must_use]
pub fn on_invoke(
    mode: FlushMode,
    cadence: &Cadence,
    pending: &Pending,
    max_age: Duration,
    now: Duration,
) -> OnInvoke {
    match mode {
        FlushMode::End => OnInvoke::AtEnd,
        FlushMode::Adaptive if cadence.is_rare(max_age) => OnInvoke::AtEnd,
        FlushMode::Adaptive
            if !pending.is_old(max_age, now)
                && pending.bytes < pending.bound / 4
                && !pending.on_disk =>
        {
            OnInvoke::Nothing
        }
        FlushMode::Next if pending.oldest.is_none() && !pending.on_disk => OnInvoke::Nothing,
        FlushMode::Adaptive | FlushMode::Next => OnInvoke::Now,
    }
}

/// For how long no invocation that begins will have anything to send, whatever their number, unless
/// a quarter of the queue is full before: `adaptive` while they are frequent. `None`: it may have,
/// at once.
#[must_use]
pub fn idle_for(
    mode: FlushMode,
    cadence: &Cadence,
    pending: &Pending,
    max_age: Duration,
    now: Duration,
) -> Option<Duration> {
    if mode != FlushMode::Adaptive || cadence.is_rare(max_age) || pending.on_disk {
        return None;
    }
    // No gap up to then is larger than the largest average that is not rare; so no average will be.
    let until = pending.oldest.unwrap_or(now).min(cadence.last) + max_age;
    until.checked_sub(now).filter(|time| !time.is_zero())
}

/// Whether to send inside a long invocation, or on Managed Instances at any time.
#[must_use]
pub fn in_between(pending: &Pending, max_age: Duration, now: Duration) -> bool {
    pending.bytes >= pending.request || pending.is_old(max_age, now)
}

/// In how long something is to be sent [`in_between`], if anything waits.
#[must_use]
pub fn due_in(pending: &Pending, max_age: Duration, now: Duration) -> Option<Duration> {
    let left = max_age.saturating_sub(now.saturating_sub(pending.oldest?));
    Some(if pending.bytes >= pending.request { Duration::ZERO } else { left })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_AGE: Duration = Duration::from_secs(10);

    fn cadence(invocations: u64, gap: u64) -> Cadence {
        let mut cadence = Cadence::default();
        for n in 0..invocations {
            cadence.invoked(Duration::from_millis(1_000_000 + n * gap));
        }
        cadence
    }

    fn pending(bytes: usize, age: Option<u64>) -> Pending {
        Pending {
            bytes,
            oldest: age.map(|age| NOW - Duration::from_millis(age)),
            bound: 8_000_000,
            request: 1_000_000,
            on_disk: false,
        }
    }

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    #[test]
    fn the_table_of_modes() {
        use FlushMode::{Adaptive, End, Next};
        use OnInvoke::{AtEnd, Nothing, Now};
        for (mode, invocations, gap, bytes, age, expected) in [
            (End, 1, 0, 0, None, AtEnd),
            (End, 1000, 50, 10, Some(1), AtEnd),
            (Next, 1, 0, 0, None, Nothing),
            (Next, 1000, 50, 10, Some(1), Now),
            (Adaptive, 1, 0, 10, Some(1), AtEnd),
            (Adaptive, 19, 50, 10, Some(1), AtEnd),
            (Adaptive, 20, 50, 10, Some(1), Nothing),
            (Adaptive, 20, 50, 10, Some(10_000), Now),
            (Adaptive, 20, 50, 2_000_000, Some(1), Now),
            (Adaptive, 20, 50, 0, None, Nothing),
            (Adaptive, 100, 11_000, 10, Some(1), AtEnd),
        ] {
            let got =
                on_invoke(mode, &cadence(invocations, gap), &pending(bytes, age), MAX_AGE, NOW);
            assert_eq!(got, expected, "{mode:?} {invocations} {gap} {bytes} {age:?}");
            // What is on disk did not fit into memory: it is due, whatever is in memory now.
            let on_disk = Pending { on_disk: true, ..pending(bytes, age) };
            let got = on_invoke(mode, &cadence(invocations, gap), &on_disk, MAX_AGE, NOW);
            assert_eq!(got, if expected == AtEnd { AtEnd } else { Now }, "{mode:?}, on disk");
        }
    }

    #[test]
    fn modes_are_named_as_they_are_set() {
        let modes = [FlushMode::Adaptive, FlushMode::End, FlushMode::Next];
        assert_eq!(modes.map(FlushMode::name), ["adaptive", "end", "next"]);
    }

    #[test]
    fn the_average_gap_begins_with_the_first_one_and_moves_by_an_eighth() {
        let mut cadence = Cadence::default();
        for (now, gap) in [(5_000, 0), (13_000, 8_000), (13_000, 7_000), (29_000, 8_125)] {
            cadence.invoked(Duration::from_millis(now));
            assert_eq!(cadence.gap, Duration::from_millis(gap), "at {now}");
        }
    }

    #[test]
    fn invocations_as_far_apart_as_an_event_may_be_old_are_not_rare() {
        assert!(!cadence(20, 10_000).is_rare(MAX_AGE));
        assert!(cadence(20, 10_001).is_rare(MAX_AGE));
    }

    #[test]
    fn a_busy_sandbox_that_calms_down_is_rare_again() {
        let mut cadence = cadence(1000, 50);
        assert!(!cadence.is_rare(MAX_AGE));
        let mut now = 1_000_000 + 999 * 50;
        for _ in 0..20 {
            now += 60_000;
            cadence.invoked(Duration::from_millis(now));
        }
        assert!(cadence.is_rare(MAX_AGE));
    }

    #[test]
    fn in_between_by_size_or_age() {
        assert!(!in_between(&pending(10, Some(9_999)), MAX_AGE, NOW));
        assert!(in_between(&pending(10, Some(10_000)), MAX_AGE, NOW));
        assert!(in_between(&pending(1_000_000, Some(0)), MAX_AGE, NOW));
        assert!(!in_between(&pending(0, None), MAX_AGE, NOW));
        assert_eq!(due_in(&pending(10, Some(9_000)), MAX_AGE, NOW), Some(Duration::from_secs(1)));
        assert_eq!(due_in(&pending(10, Some(90_000)), MAX_AGE, NOW), Some(Duration::ZERO));
        assert_eq!(due_in(&pending(1_000_000, Some(1)), MAX_AGE, NOW), Some(Duration::ZERO));
        assert_eq!(due_in(&pending(0, None), MAX_AGE, NOW), None);
    }

    #[test]
    fn a_busy_sandbox_is_idle_until_something_is_old_or_invocations_are_rare() {
        use FlushMode::{Adaptive, End, Next};
        let last = Duration::from_millis(1_000_000 + 99 * 50);
        let later = |ms: u64| last + Duration::from_millis(ms);
        let age = |since: u64| Pending { oldest: Some(later(since)), ..pending(10, None) };
        for (mode, invocations, pending, now, expected) in [
            (Adaptive, 100, pending(0, None), 100, Some(9_900)),
            (Adaptive, 100, age(20), 100, Some(9_900)),
            (Adaptive, 100, Pending { oldest: Some(last - MAX_AGE), ..age(0) }, 0, None),
            (Adaptive, 100, Pending { oldest: Some(last - MAX_AGE / 2), ..age(0) }, 1, Some(4_999)),
            (Adaptive, 100, age(20), 10_000, None),
            (Adaptive, 19, pending(0, None), 100, None),
            (Adaptive, 100, Pending { on_disk: true, ..pending(0, None) }, 100, None),
            (End, 100, pending(0, None), 100, None),
            (Next, 100, pending(0, None), 100, None),
        ] {
            let left = idle_for(mode, &cadence(invocations, 50), &pending, MAX_AGE, later(now));
            let expected = expected.map(Duration::from_millis);
            assert_eq!(left, expected, "{mode:?} {invocations} {pending:?} {now}");
        }
    }
}
