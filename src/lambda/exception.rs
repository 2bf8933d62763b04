//! What a runtime prints of an exception that nobody caught. Pure; reads a JSON string, between its
//! quotes.
//!
//! To the platform such an invocation is a success: the runtime has told the caller of the
//! exception in good order. So only what a function does not print by itself counts here. Node.js's
//! report in the JSON format looks as any error that is logged.
//!
//! Sources: the runtimes' own clients. `UserFault.reportableError` of Java's, `run_user_code` of
//! Ruby's, `reportFailure` of Go's, `log_error` of Python's, `logError` of Node.js's,
//! `WriteUnhandledExceptionToLog` of .NET's.

use memchr::{memchr, memchr2, memmem};

use super::header::find;

/// Before an object that Go's runtime prints, there is no more of its logger's own.
const HEAD_BYTES: usize = 160;
/// The same where `log/slog` writes it: it may say its place in the source.
const SLOG_HEAD_BYTES: usize = 512;
/// So many messages of a text are compared with what stands behind them: each may be half the text.
const MAX_COMPARED: usize = 8;
/// A longer type is none: it would stand in another event, and cannot be cut.
const MAX_TYPE_BYTES: usize = 256;

/// The type of the exception that a line with the level `ERROR` reports; empty where it names none.
pub(super) fn in_error_line(text: &[u8]) -> Option<&str> {
    pythons(text).or_else(|| nodes(text)).or_else(|| dotnets(text))
}

/// The same of a line that says no level.
pub(super) fn in_bare_line(text: &[u8]) -> Option<&str> {
    rubys(text).or_else(|| gos(text)).or_else(|| javas(text))
}

/// The same of what stands in an object beside a level, whatever level that is: in the JSON format
/// Lambda puts there what it does not know.
pub(super) fn in_message(text: &[u8]) -> Option<&str> {
    rubys(text).or_else(|| gos(text))
}

/// Whether a line that says no level is such a report, or has the stack that Java's loggers print.
pub(super) fn is_in_bare_line(text: &[u8]) -> bool {
    // Most have one line, and are not looked at further.
    let has_lines = first_line(text).is_some_and(|(_, behind)| !behind.is_empty());
    let is_javas = || javas(text).is_some() || find(text, 0, br"\n\tat ").is_some();
    // By their ends most are told apart.
    is_in_plain_line(text) || gos(text).is_some() || has_lines && is_javas()
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
    let is_line_end = |two: &[u8]| matches!(two, br"\n" | br"\r");
    // In a line of its own: a message often is a traceback, too.
    let is_runtimes = |at: usize| {
        let before = rest.get(..at).and_then(<[u8]>::last_chunk::<2>);
        let behind = rest.get(at + TRACE.len()..).unwrap_or_default();
        let stack = behind.split_at_checked(2).filter(|(end, _)| is_line_end(end));
        before.is_some_and(|end| is_line_end(end))
            && stack.map_or(behind.is_empty(), |(_, line)| {
                line.is_empty() || line.starts_with("\u{a0}".as_bytes())
            })
    };
    let name = rest.get(..memchr2(b':', b'\\', rest)?)?;
    memmem::find_iter(rest, TRACE).any(is_runtimes).then(|| type_of(name))
}

/// `2026-…Z\t6d68ca91-…\tfail\tSystem.Exception: no such order\n   at …`. Those of databases and
/// sockets say a number behind the type: `Npgsql.PostgresException (0x80004005): …`.
fn dotnets(text: &[u8]) -> Option<&str> {
    const LEVEL: &[u8] = br"\tfail\t";
    let head = text.get(..HEAD_BYTES).unwrap_or(text);
    let exception = text.get(find(head, 0, LEVEL)? + LEVEL.len()..)?;
    let name = exception.get(..memchr2(b':', b'\\', exception)?)?;
    let name = name.get(..find(name, 0, b" (").unwrap_or(name.len()))?;
    (memchr(b' ', name).is_none() && is_dotnets(exception)).then(|| type_of(name))
}

/// Whether it was .NET's runtime that caught an exception: its stack ends where that was.
pub(super) fn is_dotnets(stack: &[u8]) -> bool {
    memmem::find(stack, b"at Amazon.Lambda.RuntimeSupport.LambdaBootstrap.").is_some()
}

/// `2026-…Z\t6d68ca91-…\tERROR\tInvoke Error \t{"errorType":"Error","errorMessage":…`
fn nodes(text: &[u8]) -> Option<&str> {
    const WORDS: &[u8] = br"\tERROR\tInvoke Error \t{";
    let head = text.get(..HEAD_BYTES).unwrap_or(text);
    let object = text.get(find(head, 0, WORDS)? + WORDS.len() - 1..)?;
    Some(printed(object, TYPE).map(type_of).unwrap_or_default())
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
    if !(text.ends_with(b"}") || text.ends_with(br"}\n")) {
        return None;
    }
    let head = text.get(..HEAD_BYTES).unwrap_or(text);
    let (before, object) = text.split_at(memchr(b'{', head)?);
    // With a blank behind the colon it is what Python's runtime has returned to this function.
    let is_report = object.starts_with(br#"{\"errorMessage\":\""#)
        || object.starts_with(br#"{\n  \"errorMessage\": \""#);
    (is_report && is_loggers(before)).then(|| printed(object, TYPE).map(type_of))?
}

/// Nothing, a date or a time behind words of one's own, or a place in the source.
fn is_loggers(before: &[u8]) -> bool {
    let Some(line) = before.strip_suffix(b" ") else { return before.is_empty() };
    let word = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    let is_time = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'/' | b':' | b'.');
    // Other numbers are a function's own, such as `10.0.0.1:8080`.
    let is_date =
        matches!(word, [_, _, _, _, b'/', _, _, b'/', _, _] | [_, _, b':', _, _, b':', _, _, ..]);
    is_date && word.iter().all(is_time) || find(line, 0, b"invoke_loop.go:").is_some()
}

/// Whether a line may be of `log/slog`.
#[inline]
pub(super) fn may_be_slogs(text: &[u8]) -> bool {
    matches!(text, [b't', b'i', b'm', b'e', b'=' | b's', ..] | [b'{', b'\\', b'"', b't', ..])
}

/// The same of a line in which `log/slog` writes what Go's logger is given, as text or as an
/// object. It gives it a level of its own. The keys may be those of the logger that comes with the
/// runtime.
pub(super) fn in_slog(text: &[u8]) -> Option<&str> {
    const OBJECT: &[u8] = br#"\"{\\\"errorMessage\\\":\\\""#;
    let head = text.get(..SLOG_HEAD_BYTES).unwrap_or(text);
    let (before, object) = text.split_at(find(head, 0, OBJECT)?);
    const KEYS: [&[u8]; 4] = [b" msg=", b" message=", br#",\"msg\":"#, br#",\"message\":"#];
    let is_message = KEYS.iter().any(|key| before.ends_with(key));
    let key = br#",\\\"errorType\\\":\\\""#;
    let name = object.get(find(object, 0, key).filter(|_| is_message)? + key.len()..)?;
    let (name, end) = name.split_at(memchr(b'\\', name)?);
    Some(if end.starts_with(br#"\\\""#) { type_of(name) } else { "" })
}

/// The key of an exception's type in an object that is printed as text.
const TYPE: &[u8] = br#"\"errorType\":"#;

/// A string in an object that is printed as text: behind its key. Quotes in other strings are
/// escaped twice.
fn printed<'a>(object: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    printed_string(object.get(find(object, 0, key)? + key.len()..)?)
}

/// The string that such an object has next, if it has no escapes of its own.
pub(super) fn printed_string(value: &[u8]) -> Option<&[u8]> {
    let string = value.trim_ascii_start().strip_prefix(br#"\""#)?;
    let mut end = 0;
    loop {
        end += memchr(b'\\', string.get(end..)?)?;
        match string.get(end + 1)? {
            b'"' => return string.get(..end),
            // So Lambda may write `<`.
            b'u' => end += 2,
            _ => return None,
        }
    }
}

/// `no such order: com.example.NoOrder\ncom.example.NoOrder: no such order\n\tat …`: the message
/// comes first, of any length and with any characters. Not every exception has a stack.
pub(super) fn javas(text: &[u8]) -> Option<&str> {
    let (mut rest, mut compared) = (text, 0);
    while let Some((line, behind)) = first_line(rest) {
        let start = text.len() - rest.len();
        // The last word, behind a colon.
        let class = start + line.iter().rposition(|byte| *byte == b' ').map_or(0, |at| at + 1);
        let (before, class) = text.get(..start + line.len())?.split_at(class);
        if let Some(message) = before.strip_suffix(b": ")
            && let Some(said) = behind.strip_prefix(class)
            && is_javas(message, class, said, &mut compared)
        {
            return Some(type_of(class));
        }
        rest = behind;
    }
    None
}

/// Whether the stack says what stands before it. Behind a message of its own a function often logs
/// the class of an exception that it has caught, and then its stack. `said`: behind the class.
fn is_javas(message: &[u8], class: &[u8], said: &[u8], compared: &mut usize) -> bool {
    // Most classes have a package. Another word is one if a stack is behind it.
    let is_end = |behind: &[u8]| match memchr(b'.', class) {
        Some(_) => is_stack(behind),
        None => !class.is_empty() && behind.starts_with(br"\n\tat "),
    };
    match said.strip_prefix(b": ") {
        // The words are the runtime's, where it does not find the handler.
        Some(_) if message.starts_with(b"Class not found: ") => true,
        Some(said) => said.split_at_checked(message.len()).is_some_and(|(again, behind)| {
            let is_possible = is_end(behind);
            *compared += usize::from(is_possible);
            is_possible && *compared <= MAX_COMPARED && again == message
        }),
        // That of a document's exception has the place in between.
        None if said.starts_with(b"; ") => first_line(said).is_some_and(|(line, _)| {
            line.ends_with(message) && said.get(line.len()..).is_some_and(is_end)
        }),
        // There is no message, and the class takes its place.
        None => (message == class || message == b"null") && is_end(said),
    }
}

/// Whether the lines of a stack are here, or the end: not every exception has a stack.
fn is_stack(behind: &[u8]) -> bool {
    behind.strip_prefix(br"\n").is_some_and(|lines| {
        let begins = |start: &[u8]| lines.starts_with(start);
        begins(br"\tat ")
            || begins(b"Caused by: ")
            || begins(br"\tSuppressed: ")
            || matches!(lines, b"" | br"\n")
    })
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
    use super::super::text_level::{text_exception, text_level};
    use super::MAX_COMPARED;

    fn exception(line: &str) -> Option<&str> {
        let level = text_level(line.as_bytes());
        text_exception(line.as_bytes(), level)
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
            (
                "[ERROR] Exception: Traceback (most recent call last):\\n  File\\nKeyError: 'x'\\n\\nTraceback (most recent call last):\\n\u{a0}\u{a0}File",
                Some("Exception"),
            ),
            (r"[ERROR]\t2026-05-11T08:30:00.001Z\tID\tx\nTraceback (most recent call last):", None),
            (r"[ERROR] ValueError: no such order", None),
            // Of a function that logs each line of a traceback as one.
            (r"[ERROR] Traceback (most recent call last):\n", None),
            (r"[ERROR] caught: x\nTraceback (most recent call last):.", None),
            (r"[ERROR] caught: Traceback (most recent call last):", None),
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
            (r"no: B\nB: no\n\tat B.c(B.java:1)\n\n", Some("B")),
            (r"key: value\nvalue: key\n", None),
            (r"at 3: \n: at 3\n\tat B.c(B.java:1)", None),
            (r"no: a.B\na.B; lineNumber: 1; no\n\tat a.B.c(B.java:1)\n\n", Some("a.B")),
            (r"no: a.B\na.B; and no more\n\tat a.B.c(B.java:1)\n\n", None),
            (r"written to a.txt\na.txt: no\n", None),
            (r"db: a.example\na.example: db, 10.0.0.1\n10.0.0.1: a.example\n", None),
            (r"null: 1.5\n1.5\n2.5\n", None),
            (r"no: a.B\na.B: no\nCaused by: a.C\n\tat a.B.c(B.java:1)\n\n", Some("a.B")),
            (r"no: a.B\na.B: no\n\tSuppressed: a.C\n\n", Some("a.B")),
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
            (r#"{\"errorMessage\":\"no\",\"errorType\":\"x\"} and more"#, None),
            (r#"08:30:00.123456 {\"errorMessage\":\"no\",\"errorType\":\"x\"}\n"#, Some("x")),
            (r#"orders: 2026/05/11 {\"errorMessage\":\"no\",\"errorType\":\"x\"}"#, Some("x")),
            (r#"17 {\"errorMessage\":\"no\",\"errorType\":\"x\"}"#, None),
            (r#"told by 10.0.0.1:8080 {\"errorMessage\":\"no\",\"errorType\":\"x\"}"#, None),
            (r#"order 2605110017 {\"errorMessage\":\"no\",\"errorType\":\"x\"}"#, None),
            (
                r#"{\"errorMessage\":\"no\",\"errorType\":\"Function\u003cIOError\u003e\"}"#,
                Some(r"Function\u003cIOError\u003e"),
            ),
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
            (
                r#"{\"time\":\"2026-05-11T08:30:00.1Z\",\"level\":\"INFO\",\"msg\":\"{\\\"errorMessage\\\":\\\"no\\\",\\\"errorType\\\":\\\"x\\\"}\"}"#,
                Some("x"),
            ),
            // With another level for those lines, and with the place in the source.
            (
                r#"{\"time\":\"2026-05-11T08:30:00.1Z\",\"level\":\"ERROR\",\"source\":{\"function\":\"github.com/aws/aws-lambda-go/lambda.reportFailure\",\"file\":\"/build/go/pkg/mod/github.com/aws/aws-lambda-go/lambda/invoke_loop.go\",\"line\":97},\"msg\":\"{\\\"errorMessage\\\":\\\"no\\\",\\\"errorType\\\":\\\"x\\\"}\"}"#,
                Some("x"),
            ),
            (
                r#"time=2026-05-11T08:30:00.1Z level=INFO msg=\"{\\\"errorMessage\\\":\\\"no\\\",\\\"errorType\\\":\\\"x\\\"}\"\n"#,
                Some("x"),
            ),
            (
                r#"time=2026-05-11T08:30:00.1Z level=INFO msg=no error=\"{\\\"errorMessage\\\":\\\"no\\\",\\\"errorType\\\":\\\"x\\\"}\"\n"#,
                None,
            ),
            (
                r#"timestamp=2026-05-11T08:30:00.1Z level=INFO message=\"{\\\"errorMessage\\\":\\\"no\\\",\\\"errorType\\\":\\\"x\\\"}\"\n"#,
                Some("x"),
            ),
            (
                r#"{\"timestamp\":\"t\",\"level\":\"INFO\",\"message\":\"{\\\"errorMessage\\\":\\\"no\\\",\\\"errorType\\\":\\\"x\\\"}\"}"#,
                Some("x"),
            ),
            (
                r#"time=2026-05-11T08:30:00.1Z level=INFO errmsg=\"{\\\"errorMessage\\\":\\\"no\\\",\\\"errorType\\\":\\\"x\\\"}\"\n"#,
                None,
            ),
            // .NET
            (
                r"2026-05-11T08:30:00.001Z\tID\tfail\tSystem.Exception: no\n   at Orders.Function",
                None,
            ),
            (
                r"2026-05-11T08:30:00.001Z\tID\tfail\tSystem.Exception: no\n   at Amazon.Lambda.RuntimeSupport.LambdaBootstrap.InvokeOnceAsync()",
                Some("System.Exception"),
            ),
            (
                r"2026-05-11T08:30:00.001Z\tID\tfail\tNpgsql.PostgresException (0x80004005): 42P01: no\n   at Amazon.Lambda.RuntimeSupport.LambdaBootstrap.InvokeOnceAsync()",
                Some("Npgsql.PostgresException"),
            ),
            (
                r"2026-05-11T08:30:00.001Z\tID\tfail\twe are here:\n   at Amazon.Lambda.RuntimeSupport.LambdaBootstrap.InvokeOnceAsync()",
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

    /// Each beginning was compared with all that is behind it: a text of 4 MiB took
    /// a minute.
    #[test]
    fn few_messages_of_a_text_are_compared() {
        let nested = |count| {
            let mut text = "no".to_owned();
            for _ in 0..count {
                text += &format!(r": a.B\na.B: {}\n\tat a.B", "x".repeat(text.len()));
            }
            format!(r"{text}: a.B\na.B: {text}\n\tat a.B.c(B.java:1)")
        };
        assert_eq!(exception(&nested(MAX_COMPARED - 1)), Some("a.B"));
        assert_eq!(exception(&nested(MAX_COMPARED)), None);
        let hostile = format!(r"a: b\n{}", r"b: a: b\n".repeat(400_000));
        assert_eq!(exception(&hostile), None);
        // The same, and a stack wherever a message may end.
        let stacks = r"\n\tat xxxxxxxx: b".repeat(100_000);
        let lines = &hostile[..1_000_000];
        assert_eq!(exception(&format!("{lines}no message: b c{stacks}")), None);
    }
}
