//! Wall-clock time as the wire formats want it. Owns no clock: callers pass the time in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, as Lambda's `deadlineMs` counts.
pub type EpochMs = u64;

/// The wall clock's time in milliseconds since the Unix epoch; 0 for a clock set before 1970.
#[must_use]
pub fn epoch_ms(time: SystemTime) -> EpochMs {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `2026-11-23T09:15:45.012Z`: the format of the `time` key in telemetry.
#[must_use]
pub fn iso8601(ms: EpochMs) -> String {
    let (days, in_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, milli) = (in_day / 1000 % 60, in_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Reads the `time` of a telemetry event (`2026-11-23T09:15:45.012Z`; fraction optional, up to
/// nanoseconds). `None` for anything else.
#[must_use]
pub fn parse_iso8601(text: &str) -> Option<EpochMs> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let separators = [(4, '-'), (7, '-'), (10, 'T'), (13, ':'), (16, ':')];
    if !text.is_ascii()
        || !separators.iter().all(|&(at, c)| text.get(at..).is_some_and(|rest| rest.starts_with(c)))
    {
        return None;
    }
    let fraction = text.get(19..)?.strip_suffix('Z')?;
    let milli = match fraction.strip_prefix('.') {
        None if fraction.is_empty() => 0,
        Some(digits) if (1..=9).contains(&digits.len()) => {
            let padded: String = digits.chars().chain("00".chars()).take(3).collect();
            padded.parse::<u64>().ok()?
        }
        _ => return None,
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let seconds = number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    Some((days_from_civil(year, month, day) * 86_400 + seconds) * 1000 + milli)
}

/// Days since 1970-01-01 to (year, month, day), proleptic Gregorian. Howard Hinnant's
/// `civil_from_days`, for dates from 1970 on.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

/// The inverse of [`civil_from_days`].
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let y = year - u64::from(month <= 2);
    let (era, yoe) = (y / 400, y % 400);
    let doy = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_and_parses_the_same_instant() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_826_089_007, "2000-02-29T12:08:09.007Z"),
            (1_795_425_345_012, "2026-11-23T09:15:45.012Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
        ] {
            assert_eq!(iso8601(ms), text);
            assert_eq!(parse_iso8601(text), Some(ms));
        }
    }

    #[test]
    fn reads_other_fractions_and_refuses_the_rest() {
        assert_eq!(parse_iso8601("2026-11-23T09:15:45Z"), Some(1_795_425_345_000));
        assert_eq!(parse_iso8601("2026-11-23T09:15:45.1Z"), Some(1_795_425_345_100));
        assert_eq!(parse_iso8601("2026-11-23T09:15:45.123456789Z"), Some(1_795_425_345_123));
        for bad in [
            "",
            "Z",
            "2026-11-23",
            "2026-13-23T09:15:45.012Z",
            "2026-11-23 09:15:45.012Z",
            "2026-11-23T09:15:45.Z",
            "éééééééééééé",
        ] {
            assert_eq!(parse_iso8601(bad), None, "{bad}");
        }
    }
}
