//! The difference between AWS's clock and the local one, learnt from an answer that says the
//! signature's time is wrong.

//!
//! A `Date` is only believed within reason: whatever answers could otherwise move signatures to a
//! time that cannot be written down, or past the end of credentials that are good.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;

/// The signature is good for five minutes; from four on, the local clock is taken to be wrong. As
/// the AWS SDK for Rust does.
const MAX_SKEW: Duration = Duration::from_secs(4 * 60);
/// No clock is corrected by more.
const MAX_CORRECTION: Duration = Duration::from_secs(24 * 3600);
/// From 2020 to 2100, in seconds since 1970: what a `Date` can be.
const PLAUSIBLE: std::ops::Range<u64> = 1_577_836_800..4_102_444_800;

/// How far AWS's clock is from ours, where it matters.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockSkew {
    ahead: Duration,
    behind: Duration,
}

impl ClockSkew {
    /// AWS's time, as far as it is known.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.apply(SystemTime::now())
    }

    fn apply(&self, time: SystemTime) -> SystemTime {
        time.checked_add(self.ahead).and_then(|t| t.checked_sub(self.behind)).unwrap_or(time)
    }

    /// Seconds that AWS's clock is ahead of the local one (negative: behind it); 0 while nothing
    /// was learnt.
    #[must_use]
    pub fn seconds(&self) -> i64 {
        let whole = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        whole(self.ahead).saturating_sub(whole(self.behind))
    }

    /// Keeps the difference to the `Date` header for the signatures to come, if it is large and can
    /// be true. Says whether it was.
    pub(super) fn learn(&mut self, headers: &HeaderMap) -> bool {
        self.learn_at(headers, SystemTime::now())
    }

    fn learn_at(&mut self, headers: &HeaderMap, ours: SystemTime) -> bool {
        let date = headers
            .get("date")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| httpdate::parse_http_date(value).ok());
        let Some(theirs) = date.filter(|date| {
            date.duration_since(UNIX_EPOCH).is_ok_and(|since| PLAUSIBLE.contains(&since.as_secs()))
        }) else {
            return false;
        };
        let known = self.apply(ours);
        let off = theirs
            .duration_since(known)
            .or_else(|_| known.duration_since(theirs))
            .unwrap_or_default();
        let (ahead, behind) = (
            theirs.duration_since(ours).unwrap_or_default(),
            ours.duration_since(theirs).unwrap_or_default(),
        );
        let believed = off >= MAX_SKEW && ahead.max(behind) <= MAX_CORRECTION;
        if believed {
            *self = ClockSkew { ahead, behind };
        }
        believed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::header::DATE, text.parse().unwrap())])
    }

    #[test]
    fn a_date_is_believed_within_a_day_and_a_century() {
        // 2026-11-25T12:00:00Z
        let ours = UNIX_EPOCH + Duration::from_secs(1_795_608_000);
        for (text, seconds) in [
            ("Wed, 25 Nov 2026 12:30:00 GMT", Some(1800)),
            ("Wed, 25 Nov 2026 11:30:00 GMT", Some(-1800)),
            ("Thu, 26 Nov 2026 12:00:00 GMT", Some(86_400)),
            ("Wed, 25 Nov 2026 12:03:00 GMT", None),
            ("Thu, 26 Nov 2026 12:00:01 GMT", None),
            ("Tue, 24 Nov 2026 11:59:59 GMT", None),
            ("Fri, 31 Dec 9999 23:59:59 GMT", None),
            ("Thu, 01 Jan 1970 00:00:00 GMT", None),
            ("not a date", None),
        ] {
            let mut skew = ClockSkew::default();
            assert_eq!(skew.learn_at(&date(text), ours), seconds.is_some(), "{text}");
            assert_eq!(skew.seconds(), seconds.unwrap_or(0), "{text}");
        }
        for (year, good) in [
            ("2019-12-31", false),
            ("2020-01-01", true),
            ("2099-12-31", true),
            ("2100-01-01", false),
        ] {
            let near = crate::clock::parse_iso8601(&format!("{year}T12:00:00Z")).unwrap();
            let theirs = UNIX_EPOCH + Duration::from_millis(near);
            let learnt = ClockSkew::default().learn_at(
                &date(&httpdate::fmt_http_date(theirs)),
                theirs + Duration::from_secs(3600),
            );
            assert_eq!(learnt, good, "{year}");
        }
    }

    #[test]
    fn a_correction_is_corrected_again_and_no_header_changes_nothing() {
        let ours = UNIX_EPOCH + Duration::from_secs(1_795_608_000);
        let mut skew = ClockSkew::default();
        assert!(skew.learn_at(&date("Wed, 25 Nov 2026 13:00:00 GMT"), ours));
        assert!(
            !skew.learn_at(&date("Wed, 25 Nov 2026 13:01:00 GMT"), ours),
            "near enough to what is known"
        );
        assert!(!skew.learn_at(&HeaderMap::new(), ours));
        assert!(skew.learn_at(&date("Wed, 25 Nov 2026 12:00:00 GMT"), ours));
        assert_eq!(skew.seconds(), 0);
    }
}
