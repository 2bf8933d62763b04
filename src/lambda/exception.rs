//! What a runtime prints of an exception that nobody caught. Pure; reads a JSON string, between its
//! quotes.
//!
//! To the platform such an invocation is a success: the runtime has told the caller of the
//! exception in good order. So only what a function does not print by itself counts here. .NET's
//! report, and Node.js's in the JSON format, look as any error that is logged.
//!
//! Sources: the runtimes' own clients. `UserFault.reportableError` of Java's, `run_user_code` of
//! Ruby's, `reportFailure` of Go's, `log_error` of Python's, `logError` of Node.js's.

use memchr::{memchr, memchr2};

use super::header::find;

/// Before an object that Go's runtime prints, there is no more of its logger's own.
const HEAD_BYTES: usize = 160;
/// A longer type is none: it would stand in another event, and cannot be cut.
const MAX_TYPE_BYTES: usize = 256;

/// The type of the exception that a line with the level `ERROR` reports; empty where it names none.
pub(super) fn in_error_line(text: &[u8]) -> Option<&str> {
    pythons(text).or_else(|| nodes(text))
}

/// The same of a line that says no level.
pub(super) fn in_bare_line(text: &[u8]) -> Option<&str> {
    rubys(text).or_else(|| gos(text)).or_else(|| javas(text))
}

/// Whether a line that says no level is such a report, or has the stack that Java's loggers print.
pub(super) fn is_in_bare_line(text: &[u8]) -> bool {
    // Most have one line, and are not looked at further.
    let has_lines = first_line(text).is_some_and(|(_, behind)| !behind.is_empty());
    let is_javas = || javas(text).is_some() || find(text, 0, br"\n\tat ").is_some();
    // By their first byte most are told apart.
    let is_at_beginning = match text {
        [b'E' | b'C', ..] => rubys(text).is_some(),
        [b'{' | b'0'..=b'9', ..] => gos(text).is_some(),
        _ => false,
    };
    is_at_beginning || has_lines && is_javas()
}

/// The same of a line without escapes.
pub(super) fn is_in_plain_line(text: &[u8]) -> bool {
    matches!(text, [b'E' | b'C', ..]) && rubys(text).is_some()
}

/// `[ERROR] ValueError: no such order\nTraceback (most recent call last):\n  File …`: the lines of
/// the stack begin with no-break spaces, as no logger's do.
fn pythons(text: &[u8]) -> Option<&str> {
    const TRACE: &[u8] = b"Traceback (most recent call last):";
    let rest = text.strip_prefix(b"[ERROR] ")?;
    let behind = rest.get(find(rest, 0, TRACE)? + TRACE.len()..)?;
    // The line ends are of two kinds.
    let line = behind.get(2..).unwrap_or_default();
    let name = rest.get(..memchr2(b':', b'\\', rest)?)?;
    (line.is_empty() || line.starts_with("\u{a0}".as_bytes())).then(|| type_of(name))
}

/// `2026-…Z\t6d68ca91-…\tERROR\tInvoke Error \t{"errorType":"Error","errorMessage":…`
fn nodes(text: &[u8]) -> Option<&str> {
    const WORDS: &[u8] = br"\tERROR\tInvoke Error \t{";
    let head = text.get(..HEAD_BYTES).unwrap_or(text);
    let object = text.get(find(head, 0, WORDS)? + WORDS.len() - 1..)?;
    Some(named_in(object).unwrap_or_default())
}

/// `Error raised from handler method`, and then, in a record of its own, an object as Go's in
/// several lines.
fn rubys(text: &[u8]) -> Option<&str> {
    let is_report = text.starts_with(b"Error raised from handler method")
        || text.starts_with(b"Critical exception from handler");
    is_report.then_some("")
}

/// `2026/05/11 08:30:00 {"errorMessage":"no such order","errorType":"errorString"}`, behind what
/// the logger writes in front of all lines; and Ruby's, in several lines.
fn gos(text: &[u8]) -> Option<&str> {
    let head = text.get(..HEAD_BYTES).unwrap_or(text);
    let (before, object) = text.split_at(memchr(b'{', head)?);
    // Nothing, a time, one with microseconds, or a place in the source.
    let is_loggers =
        matches!(before.len(), 0 | 20 | 27) || find(before, 0, b"invoke_loop.go:").is_some();
    // With a blank behind the colon it is what Python's runtime has returned to this function.
    let is_report = object.starts_with(br#"{\"errorMessage\":\""#)
        || object.starts_with(br#"{\n  \"errorMessage\": \""#);
    (is_loggers && is_report).then(|| named_in(object))?
}

fn named_in(object: &[u8]) -> Option<&str> {
    printed(object, br#"\"errorType\":"#).map(type_of)
}

/// A string in an object that is printed as text: behind its key, without escapes. Quotes in other
/// strings are escaped twice.
pub(super) fn printed<'a>(object: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let value = object.get(find(object, 0, key)? + key.len()..)?.trim_ascii_start();
    let string = value.strip_prefix(br#"\""#)?;
    let (string, end) = string.split_at(memchr(b'\\', string)?);
    end.starts_with(br#"\""#).then_some(string)
}

/// `no such order: com.example.NoOrder\ncom.example.NoOrder: no such order\n\tat …`: the message
/// comes first, of any length and with any characters. Not every exception has a stack.
pub(super) fn javas(text: &[u8]) -> Option<&str> {
    let mut rest = text;
    while let Some((line, behind)) = first_line(rest) {
        let start = text.len() - rest.len();
        // The last word, behind a colon.
        let class = start + line.iter().rposition(|byte| *byte == b' ').map_or(0, |at| at + 1);
        let (before, class) = text.get(..start + line.len())?.split_at(class);
        if let Some(message) = before.strip_suffix(b": ")
            && memchr(b'.', class).is_some()
            && let Some(said) = behind.strip_prefix(class)
            && is_javas(message, class, said)
        {
            return Some(type_of(class));
        }
        rest = behind;
    }
    None
}

/// Whether the stack says what stands before it. Behind a message of its own a function often logs
/// the class of an exception that it has caught, and then its stack. `said`: behind the class.
fn is_javas(message: &[u8], class: &[u8], said: &[u8]) -> bool {
    match said.strip_prefix(b": ") {
        // The words are the runtime's, where it does not find the handler.
        Some(said) => said.starts_with(message) || message.starts_with(b"Class not found: "),
        // There is no message, and the class takes its place.
        None => said.starts_with(br"\n") && (message == class || message == b"null"),
    }
}

/// What stands before and behind the first line end.
fn first_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut from = 0;
    loop {
        let at = from + memchr(b'\\', text.get(from..)?)?;
        // An escape has two bytes at the least.
        from = at + 2;
        if text.get(at + 1) == Some(&b'n') {
            return Some((text.get(..at)?, text.get(from..)?));
        }
    }
}

fn type_of(name: &[u8]) -> &str {
    let name = if name.len() > MAX_TYPE_BYTES { b"" } else { name };
    std::str::from_utf8(name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::filter::Level;
    use super::super::text_level::{text_exception, text_level};

    fn exception(line: &str) -> Option<&str> {
        let exception = text_exception(line.as_bytes());
        let level = text_level(line.as_bytes());
        assert!(exception.is_none() || level == Some(Level::Error), "{line}");
        exception
    }

    #[test]
    fn the_table_of_reports() {
        for (line, name) in [
            // Python
            (
                "[ERROR] ValueError: no: such \\\"order\\\"\\nTraceback (most recent call last):\\n\u{a0}\u{a0}File",
                Some("ValueError"),
            ),
            (r"[ERROR] KeyError\rTraceback (most recent call last):\r", Some("KeyError")),
            (r"[ERROR] Runtime.Bad: x\nTraceback (most recent call last):", Some("Runtime.Bad")),
            (r"[ERROR] no such order\nTraceback (most recent call last):\n  File", None),
            (r"[ERROR]\t2026-05-11T08:30:00.001Z\tID\tx\nTraceback (most recent call last):", None),
            (r"[ERROR] ValueError: no such order", None),
            // Node.js
            (
                r#"2026-05-11T08:30:00.002Z\tID\tERROR\tInvoke Error \t{\"errorType\":\"TypeError\",\"errorMessage\":\"no\"}\n"#,
                Some("TypeError"),
            ),
            (
                r#"2026-05-11T08:30:00.002Z\tID\tERROR\tInvoke Error \t{\"errorMessage\":\"\\\"errorType\\\":\\\"x\\\"\"}"#,
                Some(""),
            ),
            (r"2026-05-11T08:30:00.002Z\tID\tERROR\tError: no such order\n    at find", None),
            (r"2026-05-11T08:30:00.002Z\tID\tERROR\tInvoke Error of mine", None),
            // Java
            (
                r"no such order: com.example.NoOrder\ncom.example.NoOrder: no such order\n\tat com.example.Handler.find(Handler.java:31)\n\n",
                Some("com.example.NoOrder"),
            ),
            (
                r"java.lang.NullPointerException: java.lang.NullPointerException\njava.lang.NullPointerException\n\n",
                Some("java.lang.NullPointerException"),
            ),
            (r#"[17] \"x\": {}: a.B$C_d\na.B$C_d: [17] \"x\": {}\n\n"#, Some("a.B$C_d")),
            (r"two\nlines: a.B\na.B: two\nlines\n\tat a.B.c(B.java:1)\n\n", Some("a.B")),
            (r"java.lang.IllegalStateException: x\n\tat com.example.Handler.find", None),
            (
                r"2026-05-11 08:30:00 ID ERROR Handler:24 - failed: a.B\na.B\n\tat a.B.c(B.java:1)",
                None,
            ),
            (
                r"Class not found: a.B: java.lang.ClassNotFoundException\njava.lang.ClassNotFoundException: a.B. Current classpath: /var/task/",
                Some("java.lang.ClassNotFoundException"),
            ),
            (r"null: a.B\na.B\n\n", Some("a.B")),
            (
                r"[main] ERROR a.Handler - failed: a.B\na.B: no such order\n\tat a.B.c(B.java:1)",
                None,
            ),
            (r"failed: a.B\na.B\n\tat a.B.c(B.java:1)", None),
            (r"written to a.txt\na.txt: no\n", None),
            (r"see a.txt: \n\nno\n", None),
            // Ruby
            (r"Error raised from handler method", Some("")),
            (r"Critical exception from handler\n", Some("")),
            (
                r#"{\n  \"errorMessage\": \"no\",\n  \"errorType\": \"Function<ArgumentError>\",\n  \"stackTrace\": []\n}"#,
                Some("Function<ArgumentError>"),
            ),
            (
                r"E, [2026-05-11T08:30:00.002345 #8] ERROR ID -- : Error raised from handler method",
                None,
            ),
            // Go
            (
                r#"2026/05/11 08:30:00 {\"errorMessage\":\"\\\",\\\"errorType\\\":\\\"x\\\"\",\"errorType\":\"errorString\"}\n"#,
                Some("errorString"),
            ),
            (
                r#"2026/05/11 08:30:00 invoke_loop.go:97: {\"errorMessage\":\"no\",\"errorType\":\"x\"}"#,
                Some("x"),
            ),
            (r#"{\"errorMessage\":\"no\",\"errorType\":\"x\"}"#, Some("x")),
            (
                r#"2026/05/11 08:30:00 told that: {\"errorMessage\":\"no\",\"errorType\":\"x\"}"#,
                None,
            ),
            (
                r#"{\"errorMessage\": \"no\", \"errorType\": \"ValueError\", \"requestId\": \"\"}"#,
                None,
            ),
            (r#"{\"errorMessage\":\"no\"}"#, None),
            (r#"{\"level\":\"ERROR\",\"errorMessage\":\"no\",\"errorType\":\"x\"}"#, None),
            // .NET
            (
                r"2026-05-11T08:30:00.001Z\tID\tfail\tSystem.Exception: no\n   at Orders.Function",
                None,
            ),
            ("", None),
            ("{", None),
            ("[ERROR] ", None),
        ] {
            let line = line.replace("ID", "5b0c7e52-91f4-4c3e-9d27-0a6f1e8b4c01");
            assert_eq!(exception(&line), name, "{line}");
        }
    }

    #[test]
    fn a_type_is_short_and_can_stand_in_a_string() {
        for (name, known) in [("x".repeat(256), true), ("x".repeat(257), false)] {
            let go = format!(r#"{{\"errorMessage\":\"no\",\"errorType\":\"{name}\"}}"#);
            assert_eq!(exception(&go), Some(if known { name.as_str() } else { "" }));
        }
        let escaped = r#"{\"errorMessage\":\"no\",\"errorType\":\"a\\\"b\"}"#;
        assert_eq!(exception(escaped), None);
    }

    /// It was looked for in the first 512 bytes, behind a class, and behind nothing else.
    #[test]
    fn a_report_is_one_however_long_its_message_is() {
        let (message, class) = ("no such order, ".repeat(1000), "com.example.NoOrder");
        let report = format!(r"{message}: {class}\n{class}: {message}\n\tat a.B.c(B.java:1)\n\n");
        assert_eq!(exception(&report), Some(class));
        assert_eq!(exception(&message), None);
    }
}
