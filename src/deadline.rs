//! One value for "until when", handed everywhere that waits or calls. Pure: the clock is passed in.

use std::fmt;
use std::time::{Duration, Instant};

use crate::clock::EpochMs;

/// How much before the end of an invocation a flush stops: the time Lambda needs to take `/next`.
pub const INVOCATION_MARGIN: Duration = Duration::from_millis(200);
/// How much before the end of the SHUTDOWN window everything is over.
pub const SHUTDOWN_MARGIN: Duration = Duration::from_millis(250);

/// A `deadlineMs` below this is no date (it would be one in 1973) but the time left, as in a sample
/// of AWS's documentation.
const RELATIVE_BELOW: EpochMs = 100_000_000_000;
/// The longest time-out that a function can have, and some.
const MAX_TIMEOUT: Duration = Duration::from_secs(15 * 60 + 10);
/// A function's time-out unless somebody sets it. Assumed where `deadlineMs` cannot be right,
/// because the clock of the sandbox is wrong.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);
/// The SHUTDOWN window of a sandbox with an extension.
const SHUTDOWN_WINDOW: Duration = Duration::from_millis(2000);
/// By so much Lambda's figure may be rounded.
const ROUNDING: Duration = Duration::from_millis(50);
/// What is left of the window when the runtime has used its share, 30 %. Assumed where `deadlineMs`
/// cannot be right.
const SHUTDOWN_SHARE: Duration = Duration::from_millis(1400);
/// With less than this nothing can be sent, as [`SHUTDOWN_MARGIN`], 50 ms for a busy machine and 100
/// ms for the ledger are kept back: either the clock is wrong, or there is nothing to lose by
/// trying.
const MIN_SHUTDOWN: Duration = Duration::from_millis(400);

/// The limit behind a [`Deadline`], named in the error of whatever ran into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `KINESIS_TELEMETRY_FLUSH_TIMEOUT_MS`.
    FlushTimeout,
    /// The invocation's own deadline, less [`INVOCATION_MARGIN`].
    Invocation,
    /// The SHUTDOWN deadline, less [`SHUTDOWN_MARGIN`].
    Shutdown,
    /// What a function that failed may be held for.
    FailedFunction,
    /// One try after a Kinesis that did not answer, so that a dead endpoint is not waited for again
    /// and again.
    Probe,
    /// What one call for credentials may take.
    Credentials,
    /// What `--check` may take.
    Check,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::FlushTimeout => "KINESIS_TELEMETRY_FLUSH_TIMEOUT_MS",
            Limit::Invocation => "the invocation's deadline",
            Limit::Shutdown => "the shutdown deadline",
            Limit::FailedFunction => "500 ms after a function that failed",
            Limit::Probe => "the probe time-out",
            Limit::Credentials => "2 seconds",
            Limit::Check => "10 seconds",
        })
    }
}

/// The instant at which an activity ends, and the limit that set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    at: Instant,
    limit: Limit,
}

impl Deadline {
    /// `after` from `now`.
    #[must_use]
    pub fn after(now: Instant, after: Duration, limit: Limit) -> Self {
        // An `Instant` cannot be that far away; a day stands for "far".
        let at = now.checked_add(after).unwrap_or_else(|| now + Duration::from_secs(86_400));
        Deadline { at, limit }
    }

    /// From an INVOKE's `deadlineMs`, less [`INVOCATION_MARGIN`]; and whether that could be
    /// believed. The wall clock is read once, for this; from then on the monotonic one counts.
    #[must_use]
    pub fn of_invocation(deadline_ms: EpochMs, now: Instant, wall_now: EpochMs) -> (Self, bool) {
        let left = time_left(deadline_ms, wall_now);
        let plausible = !left.is_zero() && left <= MAX_TIMEOUT;
        let left = if plausible { left } else { DEFAULT_TIMEOUT };
        (Deadline::after(now, left.saturating_sub(INVOCATION_MARGIN), Limit::Invocation), plausible)
    }

    /// From a SHUTDOWN's `deadlineMs`, less [`SHUTDOWN_MARGIN`]; and whether that could be
    /// believed.
    #[must_use]
    pub fn of_shutdown(deadline_ms: EpochMs, now: Instant, wall_now: EpochMs) -> (Self, bool) {
        let left = time_left(deadline_ms, wall_now);
        let plausible = (MIN_SHUTDOWN..=SHUTDOWN_WINDOW + ROUNDING).contains(&left);
        let left = if plausible { left.min(SHUTDOWN_WINDOW) } else { SHUTDOWN_SHARE };
        (Deadline::after(now, left.saturating_sub(SHUTDOWN_MARGIN), Limit::Shutdown), plausible)
    }

    /// The earlier of the two.
    #[must_use]
    pub fn earlier(self, other: Deadline) -> Deadline {
        if other.at < self.at { other } else { self }
    }

    /// The same limit, so much sooner.
    #[must_use]
    pub fn sooner(self, by: Duration) -> Deadline {
        Deadline { at: self.at.checked_sub(by).unwrap_or(self.at), limit: self.limit }
    }

    /// The instant itself.
    #[must_use]
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Which limit it comes from.
    #[must_use]
    pub fn limit(&self) -> Limit {
        self.limit
    }

    /// Milliseconds left, for a person.
    #[must_use]
    pub fn left_ms(&self, now: Instant) -> u64 {
        u64::try_from(self.left(now).as_millis()).unwrap_or(u64::MAX)
    }

    /// Time left; zero once it has passed.
    #[must_use]
    pub fn left(&self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }
}

fn time_left(deadline_ms: EpochMs, wall_now: EpochMs) -> Duration {
    Duration::from_millis(if deadline_ms < RELATIVE_BELOW {
        deadline_ms
    } else {
        deadline_ms.saturating_sub(wall_now)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: EpochMs = 1_795_425_345_000;

    fn invocation(deadline_ms: EpochMs) -> (u128, bool) {
        let now = Instant::now();
        let (deadline, plausible) = Deadline::of_invocation(deadline_ms, now, WALL);
        assert_eq!(deadline.limit(), Limit::Invocation);
        (deadline.left(now).as_millis(), plausible)
    }

    fn shutdown(deadline_ms: EpochMs) -> (u128, bool) {
        let now = Instant::now();
        let (deadline, plausible) = Deadline::of_shutdown(deadline_ms, now, WALL);
        assert_eq!(deadline.limit(), Limit::Shutdown);
        (deadline.left(now).as_millis(), plausible)
    }

    #[test]
    fn lambdas_deadline_less_the_margin() {
        let now = Instant::now();
        let (deadline, plausible) = Deadline::of_invocation(WALL + 1000, now, WALL);
        assert_eq!((deadline.left(now), plausible), (Duration::from_millis(800), true));
        assert_eq!(deadline.left(now + Duration::from_secs(2)), Duration::ZERO);
        assert_eq!(invocation(WALL + 100), (0, true), "inside the margin");
        assert_eq!(invocation(WALL + 900_000), (899_800, true));
        assert_eq!(shutdown(WALL + 2000), (1750, true));
        assert_eq!(shutdown(WALL + 1400), (1150, true));
        assert_eq!(shutdown(WALL + 400), (150, true));
    }

    #[test]
    fn a_deadline_that_is_no_date_is_the_time_left() {
        assert_eq!(invocation(676_051), (675_851, true));
        assert_eq!(shutdown(2000), (1750, true));
    }

    #[test]
    fn a_deadline_that_cannot_be_right_is_replaced() {
        for wrong in
            [0, WALL, WALL - 1, WALL - 3_600_000, WALL + 1_000_000, WALL + 3_600_000, u64::MAX]
        {
            assert_eq!(invocation(wrong), (2800, false), "{wrong}");
        }
        for wrong in [
            0,
            1,
            WALL,
            WALL + 390,
            WALL - 3_600_000,
            WALL + 2100,
            WALL + 3_600_000,
            676_051,
            u64::MAX,
        ] {
            assert_eq!(shutdown(wrong), (1150, false), "{wrong}");
        }
    }

    #[test]
    fn shutdown_is_over_within_its_window_however_lambda_rounds() {
        assert_eq!(shutdown(WALL + 2040), (1750, true));
    }

    #[test]
    fn the_earlier_one_keeps_its_name() {
        let now = Instant::now();
        let flush = Deadline::after(now, Duration::from_secs(3), Limit::FlushTimeout);
        let invocation = Deadline::after(now, Duration::from_secs(1), Limit::Invocation);
        assert_eq!(flush.earlier(invocation).limit(), Limit::Invocation);
        assert_eq!(invocation.earlier(flush).limit(), Limit::Invocation);
    }

    #[test]
    fn a_deadline_beyond_the_clock_is_far_not_a_panic() {
        let now = Instant::now();
        let far = Deadline::after(now, Duration::MAX, Limit::Invocation);
        assert!(far.left(now) >= Duration::from_secs(86_400));
    }
}
