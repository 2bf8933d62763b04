//! The difference between AWS's clock and the local one, learnt from an answer that says the signature's time is wrong.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

/// The signature is good for five minutes; from four on, the local clock is taken to be wrong. As the AWS SDK for Rust does.
const FAR: Duration = Duration::from_secs(4 * 60);

/// How far AWS's clock is from ours, where it matters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Skew {
    ahead: Duration,
    behind: Duration,
}

impl Skew {
    /// AWS's time, as far as it is known.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.apply(SystemTime::now())
    }

    fn apply(&self, time: SystemTime) -> SystemTime {
        time.checked_add(self.ahead).and_then(|t| t.checked_sub(self.behind)).unwrap_or(time)
    }

    /// Seconds that AWS's clock is ahead of the local one (negative: behind it); 0 while nothing was learnt.
    #[must_use]
    pub fn seconds(&self) -> i64 {
        let whole = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        whole(self.ahead).saturating_sub(whole(self.behind))
    }

    /// Keeps the difference to the `Date` header for the signatures to come, if it is large. Says whether it was.
    pub(super) fn learn(&mut self, headers: &HeaderMap) -> bool {
        let date = headers.get("date").and_then(|value| value.to_str().ok()).and_then(|value| httpdate::parse_http_date(value).ok());
        let Some(theirs) = date else { return false };
        let ours = SystemTime::now();
        let known = self.apply(ours);
        let off = theirs.duration_since(known).or_else(|_| known.duration_since(theirs)).unwrap_or_default();
        if off < FAR {
            return false;
        }
        *self = Skew { ahead: theirs.duration_since(ours).unwrap_or_default(), behind: ours.duration_since(theirs).unwrap_or_default() };
        true
    }
}
