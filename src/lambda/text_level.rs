//! The level that a line in a runtime's own text format says of itself. Pure; reads the first bytes
//! of a JSON string, between its quotes.
//!
//! Sources: Lambda's documentation of each runtime's log format, and `tests/golden/*_text.json`.

use super::filter::Level;

/// No format has its level further behind.
const HEAD_BYTES: usize = 160;
/// Where a stack trace shows.
const REPORT_BYTES: usize = 512;

/// .NET's runtime writes levels of four letters, Ruby's logger the first letter of each.
const RUNTIMES_NAMES: [(&[u8], Level); 6] = [
    (b"trce", Level::Trace),
    (b"dbug", Level::Debug),
    (b"info", Level::Info),
    (b"warn", Level::Warn),
    (b"fail", Level::Error),
    (b"crit", Level::Fatal),
];

/// The level of a text log; `None` for a line that says none.
pub(super) fn text_level(text: &[u8]) -> Option<Level> {
    let head = text.get(..HEAD_BYTES).unwrap_or(text);
    match head.first()? {
        b'[' => bracketed(head),
        b'0'..=b'9' => dated(head),
        b'A'..=b'Z' if head.starts_with(b"Critical exception from handler") => Some(Level::Error),
        b'A'..=b'Z' if head.get(1..4) == Some(b", [") => ruby(head),
        _ => None,
    }
    .or_else(|| exception_report(text.get(..REPORT_BYTES).unwrap_or(text)))
}

/// Python's `[INFO]\t2026-…`, and what Java's `LambdaLogger` puts before a line.
fn bracketed(head: &[u8]) -> Option<Level> {
    let rest = head.get(1..)?;
    named(rest.get(..rest.iter().position(|byte| *byte == b']')?)?)
}

/// Node's and .NET's `2026-…Z\t6d68ca91-…\tINFO\t…`, and Java's `2026-11-23 09:15:45 6d68ca91-…
/// INFO  …`.
fn dated(head: &[u8]) -> Option<Level> {
    let mut words = Words(head);
    // A date, and a time where it is a word of its own.
    let mut word = words.next().filter(|word| word.contains(&b'T')).or_else(|| words.next());
    if word.is_some() {
        word = words.next();
    }
    // .NET's init has no request id.
    let is_id = |word: &&[u8]| word.len() == 36 || *word == b"undefined";
    let level = word.and_then(|word| named(if is_id(&word) { words.next()? } else { word }));
    let timed_out = || find(head, b" Task timed out after ").then_some(Level::Error);
    level.or_else(timed_out)
}

/// `E, [2026-11-23T09:15:45.001234 #8] ERROR 6d68ca91-… -- : …`.
fn ruby(head: &[u8]) -> Option<Level> {
    let rest = head.get(head.iter().position(|byte| *byte == b']')? + 1..)?;
    Words(rest).next().and_then(named)
}

/// What a runtime prints of an exception that nobody caught: `java.lang.IllegalStateException:
/// …\n\tat …`, `panic: …`.
fn exception_report(text: &[u8]) -> Option<Level> {
    let is_java = || {
        let class = text.iter().take_while(|byte| is_class_name(**byte)).count();
        let class = text.get(..class)?;
        (class.contains(&b'.') && (class.ends_with(b"Exception") || class.ends_with(b"Error")))
            .then_some(())?;
        find(text, br"\n\tat ").then_some(())
    };
    (text.starts_with(b"panic: ") || is_java().is_some()).then_some(Level::Error)
}

fn is_class_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'$')
}

fn named(word: &[u8]) -> Option<Level> {
    let short = RUNTIMES_NAMES.iter().find(|(name, _)| *name == word).map(|(_, level)| *level);
    short.or_else(|| Level::of_line(std::str::from_utf8(word).ok()?))
}

fn find(text: &[u8], words: &[u8]) -> bool {
    memchr::memmem::find(text, words).is_some()
}

/// Words between spaces and tabs. A tab stands in JSON as two characters.
struct Words<'a>(&'a [u8]);

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while let Some(rest) = self.0.strip_prefix(b" ").or_else(|| self.0.strip_prefix(br"\t")) {
            self.0 = rest;
        }
        let end =
            self.0.iter().position(|byte| matches!(byte, b' ' | b'\\')).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        // Another escape than a tab ends the line's head.
        self.0 = if rest.starts_with(b" ") || rest.starts_with(br"\t") { rest } else { b"" };
        (!word.is_empty()).then_some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_text_formats() {
        const ID: &str = "5b0c7e52-91f4-4c3e-9d27-0a6f1e8b4c01";
        for (line, level) in [
            // Node
            (r"2026-05-11T08:30:00.000Z\tundefined\tINFO\tloading\n", Some(Level::Info)),
            (
                r"2026-05-11T08:30:00.002Z\tID\tERROR\tError: no such order\n    at find",
                Some(Level::Error),
            ),
            (r"2026-05-11T08:30:00.002Z\tID\tERROR\tInvoke Error \t{}", Some(Level::Error)),
            (r"2026-05-11T08:30:00.002Z\tID\thello ERROR", None),
            // Python
            (r"[INFO]\t2026-05-11T08:30:00.001Z\tID\thello\n", Some(Level::Info)),
            (r"[WARNING]\t2026-05-11T08:30:00.001Z\tID\thello\n", Some(Level::Warn)),
            (
                r"[ERROR] ValueError: no such order\nTraceback (most recent call last):",
                Some(Level::Error),
            ),
            (r"[orders] ERROR", None),
            (r"printed without anything around it\n", None),
            // Java
            (r"2026-05-11 08:30:00 ID INFO  Handler:24 - hello\n", Some(Level::Info)),
            (r"2026-05-11 08:30:00 ID FATAL Handler:24 - ERROR\n", Some(Level::Fatal)),
            (
                r"java.lang.IllegalStateException: no such order\n\tat com.example.Handler.find",
                Some(Level::Error),
            ),
            (r"java.lang.OutOfMemoryError\n\tat com.example.Handler.find", Some(Level::Error)),
            (r"java.lang.IllegalStateException is a class", None),
            (r"Picked up JAVA_TOOL_OPTIONS: -XX:+TieredCompilation\n", None),
            // .NET
            (r"2026-05-11T08:30:00.000Z\t\tinfo\tstarting\n", Some(Level::Info)),
            (r"2026-05-11T08:30:00.001Z\tID\ttrce\tTrace\n", Some(Level::Trace)),
            (r"2026-05-11T08:30:00.001Z\tID\tfail\tfailed\nSystem.Exception", Some(Level::Error)),
            (r"2026-05-11T08:30:00.001Z\tID\tcrit\tstop\n", Some(Level::Fatal)),
            // Ruby
            (r"I, [2026-05-11T08:30:00.001234 #8]  INFO ID -- : hello\n", Some(Level::Info)),
            (r"E, [2026-05-11T08:30:00.002345 #8] ERROR ID -- orders: no", Some(Level::Error)),
            (r"Critical exception from handler\n", Some(Level::Error)),
            // Go, Lambda itself, and nobody
            (r"2026/05/11 08:30:00 hello\n", None),
            (r"panic: runtime error: index out of range [3] with length 3\n", Some(Level::Error)),
            (
                r"2026-05-11T08:30:00.001Z ID Task timed out after 3.00 seconds\n\n",
                Some(Level::Error),
            ),
            ("", None),
            ("[", None),
            ("7", None),
            ("\\", None),
        ] {
            let line = line.replace("ID", ID);
            assert_eq!(text_level(line.as_bytes()), level, "{line}");
        }
    }
}
