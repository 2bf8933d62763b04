//! Wall-clock texts: ISO 8601 with milliseconds as Lambda writes it, `X-Amz-Date` as signatures carry it.
//!
//! Pure conversions, no thread and no state.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `time` as Lambda writes it: `2026-11-23T09:15:45.012Z`.
#[must_use]
pub fn iso_millis(time: SystemTime) -> String {
    let millis = unix_millis(time);
    let (year, month, day, hour, minute, second) = civil(millis.div_euclid(1000));
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        millis.rem_euclid(1000)
    )
}

/// `time` as a signature carries it: `20261123T091545Z`.
#[must_use]
pub fn amz_date(time: SystemTime) -> String {
    let (year, month, day, hour, minute, second) = civil(unix_millis(time).div_euclid(1000));
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Reads `20261123T091545Z`; `None` when it is anything else.
#[must_use]
pub fn parse_amz_date(text: &str) -> Option<SystemTime> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let days = days_from_civil(number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let seconds = days * 86_400 + number(9, 11)? * 3600 + number(11, 13)? * 60 + number(13, 15)?;
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// Reads what [`iso_millis`] writes; `None` when it is anything else.
#[must_use]
pub fn parse_iso_millis(text: &str) -> Option<SystemTime> {
    let (second, millis) = text.strip_suffix('Z')?.split_once('.')?;
    let millis = millis.parse().ok().filter(|_| millis.len() == 3)?;
    let date: String = second.chars().filter(|sign| !matches!(sign, '-' | ':')).collect();
    Some(parse_amz_date(&(date + "Z"))? + Duration::from_millis(millis))
}

/// Milliseconds since the epoch, as `deadlineMs` is given.
#[must_use]
pub fn unix_millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `time` moved by `offset_ms`, which may be negative.
pub(crate) fn shifted(time: SystemTime, offset_ms: i64) -> SystemTime {
    let by = Duration::from_millis(offset_ms.unsigned_abs());
    if offset_ms < 0 { time - by } else { time + by }
}

/// Days since the epoch to a civil date, after Howard Hinnant's algorithm.
fn civil(unix_seconds: i64) -> (i64, i64, i64, i64, i64, i64) {
    let days = unix_seconds.div_euclid(86_400);
    let rest = unix_seconds.rem_euclid(86_400);
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (year, month, doy - (153 * mp + 2) / 5 + 1, rest / 3600, rest / 60 % 60, rest % 60)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let yoe = year.rem_euclid(400);
    let mp = (month + 9) % 12;
    let doy = (153 * mp + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_reads_the_same_moment() {
        let moment = UNIX_EPOCH + Duration::from_millis(1_440_938_160_012);
        assert_eq!(iso_millis(moment), "2015-08-30T12:36:00.012Z");
        assert_eq!(parse_iso_millis("2015-08-30T12:36:00.012Z"), Some(moment));
        assert_eq!(parse_iso_millis("2015-08-30T12:36:00Z"), None);
        assert_eq!(amz_date(moment), "20150830T123600Z");
        let back = parse_amz_date("20150830T123600Z").unwrap();
        assert_eq!(unix_millis(back), 1_440_938_160_000);
        assert_eq!(parse_amz_date("2015-08-30"), None);
    }

    #[test]
    fn leap_days_and_year_ends() {
        for text in ["20240229T235959Z", "20231231T000000Z", "20000301T120000Z", "21000228T010203Z"]
        {
            assert_eq!(amz_date(parse_amz_date(text).unwrap()), text);
        }
    }
}
