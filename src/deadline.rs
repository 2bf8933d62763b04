//! One value for "until when", handed everywhere that waits or calls. Pure: the clock is passed in.

use std::fmt;
use std::time::{Duration, Instant};

use crate::clock::EpochMs;

/// How much before the end of an invocation a flush stops: the time Lambda needs to take `/next`.
pub const INVOCATION_MARGIN: Duration = Duration::from_millis(200);
/// How much before the end of the SHUTDOWN window everything is over.
pub const SHUTDOWN_MARGIN: Duration = Duration::from_millis(250);

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
    /// One try after a Kinesis that did not answer, so that a dead endpoint is not waited for again and again.
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

    /// From Lambda's `deadlineMs` less `margin`. The wall clock is read once, here; from then on the monotonic one counts.
    #[must_use]
    pub fn from_epoch(deadline_ms: EpochMs, margin: Duration, limit: Limit, now: Instant, wall_now: EpochMs) -> Self {
        let left = Duration::from_millis(deadline_ms.saturating_sub(wall_now));
        Deadline::after(now, left.saturating_sub(margin), limit)
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

    /// Time left; zero once it has passed.
    #[must_use]
    pub fn left(&self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lambdas_deadline_less_the_margin() {
        let now = Instant::now();
        let deadline = Deadline::from_epoch(10_000, INVOCATION_MARGIN, Limit::Invocation, now, 9_000);
        assert_eq!(deadline.left(now), Duration::from_millis(800));
        assert_eq!(deadline.left(now + Duration::from_secs(2)), Duration::ZERO);
    }

    #[test]
    fn a_deadline_in_the_past_or_inside_the_margin_leaves_nothing() {
        let now = Instant::now();
        for wall in [9_900, 10_000, 99_000] {
            let deadline = Deadline::from_epoch(10_000, INVOCATION_MARGIN, Limit::Invocation, now, wall);
            assert_eq!(deadline.left(now), Duration::ZERO);
        }
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
        let far = Deadline::from_epoch(u64::MAX, Duration::ZERO, Limit::Invocation, now, 0);
        assert!(far.left(now) >= Duration::from_secs(86_400));
    }
}
