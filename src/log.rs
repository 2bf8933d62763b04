//! The extension's own lines on stderr: few, and never one per batch or per event.
//!
//! Lambda sends them to CloudWatch Logs, and back to us when `extension` telemetry is subscribed
//! to, so a line per batch would feed itself. Each topic therefore speaks once a minute; what it
//! kept back is counted in its next line. Only `debug`, which is for a person who looks for
//! something, is not limited. Not the `log` crate: its consumers (ureq, rustls, tiny_http) would
//! bring their own lines and their format code into the binary.

use std::fmt;
use std::io::Write;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;

/// How important a line is. The order is that of `KINESIS_TELEMETRY_LOG_LEVEL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Telemetry is lost, or the extension does not work.
    Error,
    /// Something that a person should know, once.
    Warn,
    /// What it is about to do, at the start; what Kinesis took only in part; the ledger, at the
    /// end.
    Info,
    /// Each request to Kinesis.
    Debug,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Error => "ERROR",
            Level::Warn => "WARN",
            Level::Info => "INFO",
            Level::Debug => "DEBUG",
        }
    }
}

/// The shape of a line, from `AWS_LAMBDA_LOG_FORMAT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `[kinesis-telemetry-extension] WARN message`
    Text,
    /// `{"timestamp":…,"level":…,"logger":…,"message":…}`
    Json,
}

/// One line a topic in this time.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);

struct Logger {
    level: Level,
    format: Format,
    topics: Mutex<Vec<Topic>>,
}

struct Topic {
    name: &'static str,
    spoke: Instant,
    kept_back: u64,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Sets level and format, once. Lines said before that are text, from `warn` up.
pub fn start(level: Level, format: Format) {
    let _ = LOGGER.set(Logger { level, format, topics: Mutex::default() });
}

/// Whether lines of that level are written at all, for who would have to prepare them.
#[must_use]
pub fn enabled(level: Level) -> bool {
    level <= LOGGER.get().map_or(Level::Warn, |logger| logger.level)
}

/// Says one line at `level`. `topic` names the call site; it speaks once a minute, but for `debug`.
pub fn say(level: Level, topic: &'static str, message: fmt::Arguments<'_>) {
    let logger = LOGGER.get_or_init(|| Logger {
        level: Level::Warn,
        format: Format::Text,
        topics: Mutex::default(),
    });
    if level > logger.level {
        return;
    }
    // Whoever asks for those wants all of them.
    if level == Level::Debug {
        return write(logger.format, level, &message.to_string());
    }
    let mut topics = logger.topics.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let kept_back = match topics.iter_mut().find(|known| known.name == topic) {
        Some(known) if now.saturating_duration_since(known.spoke) < REPEAT_INTERVAL => {
            known.kept_back += 1;
            return;
        }
        Some(known) => {
            known.spoke = now;
            std::mem::take(&mut known.kept_back)
        }
        None => {
            topics.push(Topic { name: topic, spoke: now, kept_back: 0 });
            0
        }
    };
    drop(topics);
    let more =
        if kept_back > 0 { format!(" (and {kept_back} more like it)") } else { String::new() };
    write(logger.format, level, &format!("{message}{more}"));
}

/// One write call, so that lines of several threads do not mix. A closed stderr is nobody's
/// problem.
fn write(format: Format, level: Level, message: &str) {
    let line = render(format, level, message, clock::epoch_ms(std::time::SystemTime::now()));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn render(format: Format, level: Level, message: &str, now: clock::EpochMs) -> String {
    let name = env!("CARGO_PKG_NAME");
    match format {
        Format::Text => {
            format!("[{name}] {} {}\n", level.name(), message.replace(['\n', '\r'], " "))
        }
        Format::Json => {
            let message = serde_json::to_string(message).unwrap_or_else(|_| "\"\"".to_owned());
            format!(
                "{{\"timestamp\":\"{}\",\"level\":\"{}\",\"logger\":\"{name}\",\"message\":{message}}}\n",
                clock::iso8601(now),
                level.name()
            )
        }
    }
}

/// `log::error!("topic", "format", …)`
#[macro_export]
macro_rules! error {
    ($topic:literal, $($message:tt)+) => { $crate::log::say($crate::log::Level::Error, $topic, format_args!($($message)+)) };
}
/// `log::warn!("topic", "format", …)`
#[macro_export]
macro_rules! warn {
    ($topic:literal, $($message:tt)+) => { $crate::log::say($crate::log::Level::Warn, $topic, format_args!($($message)+)) };
}
/// `log::info!("topic", "format", …)`
#[macro_export]
macro_rules! info {
    ($topic:literal, $($message:tt)+) => { $crate::log::say($crate::log::Level::Info, $topic, format_args!($($message)+)) };
}
/// `log::debug!("topic", "format", …)`
#[macro_export]
macro_rules! debug {
    ($topic:literal, $($message:tt)+) => { $crate::log::say($crate::log::Level::Debug, $topic, format_args!($($message)+)) };
}

pub use crate::{debug, error, info, warn};

/// How many lines of a topic there were so far, written or kept back.
#[cfg(test)]
pub fn said(topic: &str) -> u64 {
    let Some(logger) = LOGGER.get() else { return 0 };
    let topics = logger.topics.lock().unwrap_or_else(PoisonError::into_inner);
    topics.iter().find(|known| known.name == topic).map_or(0, |known| 1 + known.kept_back)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_in_both_formats() {
        let text = render(Format::Text, Level::Warn, "two\nlines \"quoted\"", 0);
        assert_eq!(text, "[kinesis-telemetry-extension] WARN two lines \"quoted\"\n");
        let json = render(Format::Json, Level::Error, "two\nlines \"quoted\"", 0);
        assert_eq!(json.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["message"], "two\nlines \"quoted\"");
        assert_eq!(value["timestamp"], "1970-01-01T00:00:00.000Z");
    }
}
