//! `KEEP`: whether an invocation is shipped whole. Pure: no thread, clock or log, and no state; who
//! waits for the choice is `chooser`'s.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::filter::Level;

/// The threshold that no hash reaches.
const ALL_KEPT: u64 = 1 << 32;

/// What the settings say; see the module's page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// An ordinary invocation is kept if the hash of its id is below it: 0 for none, 2^32 for all.
    pub threshold: u64,
    /// An invocation that ran longer is not ordinary.
    pub slow: Option<Duration>,
    /// An invocation with a log line from this level up is not ordinary.
    pub level: Option<Level>,
    /// Whether each invocation gets a summary event.
    pub summary: bool,
    /// An invocation that runs longer is kept: `MAX_AGE_MS`.
    pub max_age: Duration,
    /// Bytes that may wait here; beyond that the oldest invocation is kept.
    pub max_bytes: usize,
}

impl Settings {
    /// The threshold of a share like `5%` or `0.5%`; `None` where it is no share from 0% to 100%.
    #[must_use]
    pub fn threshold_of(share: &str) -> Option<u64> {
        let millionths = decimal(share.trim().strip_suffix('%')?.trim_end(), 6)?;
        (millionths <= 100_000_000).then_some((millionths << 32) / 100_000_000)
    }

    /// Whether there is anything to choose or to sum up.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.chooses() || self.summary
    }

    /// Whether events wait for a choice at all.
    #[must_use]
    pub fn chooses(&self) -> bool {
        self.threshold < ALL_KEPT
    }
}

/// What the choice looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Facts {
    /// The function failed or timed out, or its end was not seen.
    pub failed: bool,
    /// It was the sandbox's first.
    pub first: bool,
    /// How long the function ran, where the platform said so.
    pub duration: Option<Duration>,
    /// The highest level of its log lines.
    pub level: Option<Level>,
}

/// Why an invocation is shipped or thinned out. The words stand in the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `failed`
    Failed,
    /// `first`
    First,
    /// `slow`
    Slow,
    /// `level`
    Level,
    /// `long`: it ran longer than `MAX_AGE_MS`.
    Long,
    /// `large`: it outgrew its part of the queue.
    Large,
    /// `unfinished`: its end did not come.
    Unfinished,
    /// `share`: it was ordinary, and the hash of its id decided.
    Share,
}

impl Reason {
    pub(super) fn word(self) -> &'static str {
        match self {
            Reason::Failed => "failed",
            Reason::First => "first",
            Reason::Slow => "slow",
            Reason::Level => "level",
            Reason::Long => "long",
            Reason::Large => "large",
            Reason::Unfinished => "unfinished",
            Reason::Share => "share",
        }
    }
}

/// What became of an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its events are shipped.
    pub kept: bool,
    /// Why, or why not.
    pub reason: Reason,
}

impl Choice {
    /// It was made before the end was known.
    pub(super) fn is_early(self) -> bool {
        matches!(self.reason, Reason::Long | Reason::Large | Reason::Unfinished)
    }
}

pub(super) fn kept(reason: Reason) -> Choice {
    Choice { kept: true, reason }
}

/// Whether an invocation is shipped whole. `id`: the root of its trace, or its request id where it
/// has none. All functions of a trace choose alike, and so does a consumer: the first 32 bits of
/// the id's SHA-256 are compared with the share of 2^32.
#[must_use]
pub fn choose(settings: &Settings, facts: &Facts, id: &str) -> Choice {
    let longer = |limit: Duration| facts.duration.is_some_and(|duration| duration > limit);
    let loud = settings.level.is_some_and(|from| facts.level.is_some_and(|level| level >= from));
    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(id.as_bytes()).into();
    let hash = u64::from(u32::from_be_bytes([a, b, c, d]));
    match () {
        () if facts.failed => kept(Reason::Failed),
        () if facts.first => kept(Reason::First),
        () if settings.slow.is_some_and(longer) => kept(Reason::Slow),
        () if loud => kept(Reason::Level),
        () if longer(settings.max_age) => kept(Reason::Long),
        () => Choice { kept: hash < settings.threshold, reason: Reason::Share },
    }
}

/// A decimal number without a sign, times 10 to the power of `places`. Further digits do not count.
pub(super) fn decimal(text: &str, places: usize) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction = fraction.bytes().chain(std::iter::repeat(b'0')).take(places);
    let mut all = whole.bytes().chain(fraction);
    all.try_fold(0u64, |sum, digit| {
        sum.checked_mul(10)?.checked_add(u64::from(digit.wrapping_sub(b'0')))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// All of them, and summaries of none.
    pub(in crate::lambda) fn settings() -> Settings {
        Settings {
            threshold: 0,
            slow: Some(Duration::from_millis(500)),
            level: Some(Level::Error),
            summary: false,
            max_age: Duration::from_secs(10),
            max_bytes: 1 << 20,
        }
    }

    #[test]
    fn the_table_of_choices() {
        let ordinary = Facts { duration: Some(Duration::from_millis(500)), ..Facts::default() };
        let none = settings();
        let all = Settings { threshold: 1 << 32, ..none };
        for (settings, facts, kept, reason) in [
            (none, ordinary, false, Reason::Share),
            (all, ordinary, true, Reason::Share),
            (none, Facts { failed: true, first: true, ..ordinary }, true, Reason::Failed),
            (none, Facts { first: true, ..ordinary }, true, Reason::First),
            (
                none,
                Facts { duration: Some(Duration::from_micros(500_001)), ..ordinary },
                true,
                Reason::Slow,
            ),
            (none, Facts { level: Some(Level::Error), ..ordinary }, true, Reason::Level),
            (none, Facts { level: Some(Level::Warn), ..ordinary }, false, Reason::Share),
            (
                Settings { level: None, ..none },
                Facts { level: Some(Level::Fatal), ..ordinary },
                false,
                Reason::Share,
            ),
            (
                Settings { slow: None, ..none },
                Facts { duration: Some(Duration::from_millis(10_001)), ..ordinary },
                true,
                Reason::Long,
            ),
            (none, Facts { duration: None, ..ordinary }, false, Reason::Share),
        ] {
            let choice = choose(&settings, &facts, "1-5f35ae12-8d2b4ce2e7a15ff4d2b1a1b3");
            assert_eq!((choice.kept, choice.reason), (kept, reason), "{settings:?} {facts:?}");
        }
    }

    /// So a consumer computes it, in any language that has SHA-256.
    #[test]
    fn the_hash_is_that_of_the_manual() {
        // printf 1-5f35ae12-8d2b4ce2e7a15ff4d2b1a1b3 | sha256sum
        let id = "1-5f35ae12-8d2b4ce2e7a15ff4d2b1a1b3";
        let at =
            |threshold| choose(&Settings { threshold, ..settings() }, &Facts::default(), id).kept;
        assert!(!at(2_858_265_407) && at(2_858_265_407 + 1));
    }

    #[test]
    fn shares_are_read_exactly() {
        for (text, threshold) in [
            ("100%", Some(1 << 32)),
            ("0%", Some(0)),
            ("50 %", Some(1 << 31)),
            ("0.5%", Some(21_474_836)),
            (" 5% ", Some(214_748_364)),
            ("100.0%", Some(1 << 32)),
            ("100.000001%", None),
            ("-1%", None),
            ("5", None),
            ("%", None),
            (".5%", None),
            ("5.%", None),
            ("1e1%", None),
            ("99999999999999999999%", None),
        ] {
            assert_eq!(Settings::threshold_of(text), threshold, "{text}");
        }
    }
}
