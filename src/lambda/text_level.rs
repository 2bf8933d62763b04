//! The level that a line in a runtime's own text format says of itself. Pure; reads a JSON string,
//! between its quotes: its first bytes, and all of it only where those say no level.
//!
//! Sources: Lambda's documentation of each runtime's log format, and `tests/golden/*_text.json`.

use memchr::{memchr, memchr2};

use super::exception;
use super::filter::{Level, is_level_key};
use super::header::find;

/// No format has its level further behind.
const HEAD_BYTES: usize = 160;
/// So much of a line of JSON is looked at. Many loggers write the message first.
const JSON_BYTES: usize = 16 * 1024;
/// The longest name of a level.
const NAME_BYTES: usize = 11;
/// The length of a request id.
const ID_BYTES: usize = 36;
/// A date, a time, an id, a thread, a logger, and what separates them.
const MAX_COLUMNS: usize = 10;
/// What Node.js's runtime writes in place of a request id that it does not have.
const NO_ID: &[u8] = b"undefined";
/// The length of `2026-11-23T09:15:45.012Z` and the tab behind it.
const TIME_BYTES: usize = 26;

/// The level of a text log; `None` for a line that says none.
pub(super) fn text_level(text: &[u8]) -> Option<Level> {
    match formatted(text) {
        None => exception::is_in_bare_line(text).then_some(Level::Error),
        // So may begin what an exception says.
        level if text.first().is_some_and(u8::is_ascii_alphabetic) => {
            level.max(exception::in_bare_line(text).map(|_| Level::Error))
        }
        level => level,
    }
}

/// The same of one without escapes, which most are: nearly all reports have lines or quotes in them.
pub(super) fn plain_text_level(text: &[u8]) -> Option<Level> {
    formatted(text).or_else(|| exception::is_in_plain_line(text).then_some(Level::Error))
}

/// Whether it is worth a look for an exception: of most lines it is not.
#[inline]
pub(super) fn may_report(text: &[u8], level: Option<Level>) -> bool {
    level >= Some(Level::Error) || exception::may_be_slogs(text)
}

/// The exception that nobody caught, where a line of that level is the runtime's report of one: its
/// type, empty where that is not named.
#[inline(never)]
pub(super) fn text_exception(text: &[u8], level: Option<Level>) -> Option<&str> {
    let loud = level.filter(|level| *level >= Level::Error);
    loud.and_then(|_| exception::in_error_line(text).or_else(|| exception::in_bare_line(text)))
        .or_else(|| exception::in_slog(text))
}

/// The level of a line in one of the formats.
pub(super) fn formatted(text: &[u8]) -> Option<Level> {
    match text {
        [b'[', rest @ ..] => pythons(rest).or_else(|| behind_columns(text)),
        [b'0'..=b'9', ..] => in_fixed_columns(text).or_else(|| behind_columns(text)),
        [b'{', ..] => printed_json(text),
        [b'A'..=b'Z', b',', b' ', b'[', rest @ ..] => ruby(rest),
        [b'p', b'a', b'n', b'i', b'c', b':', b' ', ..] => Some(Level::Error),
        [b't', b'i', b'm', b'e', b'=' | b's', ..] => in_pairs(text),
        [b' ' | b'D' | b'E' | b'T', _, _, _, _, b' ', ..] => rusts(text),
        _ if may_have_colon(text) => dotnets(text).or_else(|| worded(text, true)),
        _ => None,
    }
}

/// Whether a colon may be behind a name: of most lines it is not. All bytes are looked at at once.
#[inline(always)]
fn may_have_colon(text: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // The shortest name that counts has three letters, the longest has ten.
    let [_, _, _, a, b, c, d, e, f, g, h, ..] = *text else { return true };
    let word = u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ (ONES * u64::from(b':'));
    word.wrapping_sub(ONES) & !word & (ONES << 7) != 0
}

/// Node.js's and .NET's `2026-…Z\t6d68ca91-…\tINFO\t…`: most of all lines look so. Single bytes
/// are compared, because that is much less work than what finds or compares many.
fn in_fixed_columns(text: &[u8]) -> Option<Level> {
    let (time, rest) = text.split_first_chunk::<TIME_BYTES>()?;
    let (id, rest) = rest.split_first_chunk::<ID_BYTES>()?;
    let is_time = time[10] == b'T' && time[23] == b'Z' && time[24] == b'\\' && time[25] == b't';
    let is_id = id[8] == b'-' && id[13] == b'-' && id[18] == b'-' && id[23] == b'-';
    match rest {
        [b'\\', b't', name @ ..] if is_time && is_id => {
            usual(name, b'\\').or_else(|| named(up_to(name, b'\\')?)).max(in_console(name))
        }
        _ => None,
    }
}

/// The level of an object that a logger of the function's own prints by the console:
/// `…\tINFO\t{"level":…`. Before a line without a level .NET's runtime writes `trce`, or, if it is
/// older, nothing, and a logger of its own may say one in the line.
fn in_console(name: &[u8]) -> Option<Level> {
    // All names have four letters or five.
    match name {
        [b't', b'r', b'c', b'e', b'\\', b't', b'[', rest @ ..] | [b'[', rest @ ..] => {
            bracketed(rest)
        }
        [_, _, _, _, b'\\', b't', object @ ..] | [_, _, _, _, _, b'\\', b't', object @ ..] => {
            printed_json(object)
        }
        _ => None,
    }
}

/// A name that the runtimes write in most lines, if `end` is behind it.
fn usual(name: &[u8], end: u8) -> Option<Level> {
    let (level, behind) = match name {
        [b'I', b'N', b'F', b'O', behind, ..] | [b'i', b'n', b'f', b'o', behind, ..] => {
            (Level::Info, behind)
        }
        [b'D', b'E', b'B', b'U', b'G', behind, ..] => (Level::Debug, behind),
        [b'E', b'R', b'R', b'O', b'R', behind, ..] => (Level::Error, behind),
        _ => return None,
    };
    (*behind == end).then_some(level)
}

/// What stands before `end`, where that comes within a name's length.
fn up_to(text: &[u8], end: u8) -> Option<&[u8]> {
    text.get(..memchr(end, text.get(..NAME_BYTES + 1).unwrap_or(text))?)
}

/// Python's `[INFO]\t2026-…`, and what Java's `LambdaLogger` puts before a line. `rest` is what
/// stands behind the bracket.
fn pythons(rest: &[u8]) -> Option<Level> {
    usual(rest, b']').or_else(|| {
        let name = up_to(rest, b']')?;
        let behind = rest.get(name.len()..)?;
        behind.starts_with(br"]\t").then(|| named(name))?
    })
}

/// `[Error] Orders.Function: …`, as no function writes it by chance. `rest` is what stands behind
/// the bracket.
pub(super) fn bracketed(rest: &[u8]) -> Option<Level> {
    named(up_to(rest, b']')?)
}

/// As [`in_fixed_columns`], where the columns are others: Java's `2026-11-23 09:15:45 6d68ca91-…
/// INFO  …` and `09:15:45.012 [main] INFO  …`, Go's `2026/11/23 09:15:45 INFO …`, Python's
/// `2026-11-23 09:15:45,012 - orders - INFO - …`.
fn behind_columns(text: &[u8]) -> Option<Level> {
    let mut words = Words(text.get(..HEAD_BYTES).unwrap_or(text));
    for _ in 0..MAX_COLUMNS {
        let own = words.skip_blanks();
        if let Some(level) = worded(own, false) {
            return Some(level);
        }
        if !is_column(words.next()?, words.0) {
            return own.starts_with(b"Task timed out after ").then_some(Level::Error);
        }
    }
    None
}

/// Whether a word is a date, a time, an id, a thread a logger or a place: none of the line's own.
fn is_column(word: &[u8], behind: &[u8]) -> bool {
    let is_between = |text: &[u8]| matches!(text, [b' ', b'-' | b'|', b' ', ..]);
    is_date(word)
        // .NET's init has no request id.
        || word.len() == ID_BYTES
        || matches!(word, NO_ID | b"-" | b"|" | [b'[', ..] | [.., b']' | b':'])
        || is_between(behind)
}

/// A level that stands where a line's own words may begin: in capitals, before a tab or a colon, or
/// in brackets. A sentence may begin with `Error`, but with no error: `Error count: 0`. `is_bare`:
/// nothing stands in front of it.
fn worded(text: &[u8], is_bare: bool) -> Option<Level> {
    let (is_open, text) = match text {
        [b'[', text @ ..] => (true, text),
        _ => (false, text),
    };
    if !text.first()?.is_ascii_alphabetic() {
        return None;
    }
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-');
    let end = text.iter().take(NAME_BYTES + 1).position(|byte| !is_name(byte));
    let (word, behind) = text.split_at_checked(end.unwrap_or(text.len()))?;
    // Many loggers fill it up: `[ERROR   ]`.
    let behind = if is_open { behind.trim_ascii_start() } else { behind };
    let is_loud = !word.iter().any(u8::is_ascii_lowercase);
    let name = || std::str::from_utf8(word).ok();
    let usual = || Level::of_word(name()?);
    match behind {
        [b':', ..] => {
            usual().or_else(|| Level::of_line(name()?).filter(|level| *level >= Level::Error))
        }
        [b']', ..] if is_loud => named(word),
        [b']', ..] => usual(),
        _ if is_bare || is_open => None,
        [b'\\', b't', ..] => named(word),
        [] | [b' ' | b'\\', ..] if is_loud => named(word),
        [b' ', ..] if says_more(behind) => usual(),
        _ => None,
    }
}

/// Whether there is something behind a colon that is no count of 0.
fn says_more(words: &[u8]) -> bool {
    let head = words.get(..HEAD_BYTES).unwrap_or(words);
    let said = find(head, 0, b": ").and_then(|at| head.get(at + 2..));
    said.is_some_and(|said| !matches!(said, [b'0'] | [b'0', b'\\' | b'.' | b',' | b'%', ..]))
}

/// Whether it begins as `2026-11-23`, `2026/11/23`, `09:15:45`, `+01:00` or `+0100`.
fn is_date(word: &[u8]) -> bool {
    let ([b'[', date @ ..] | date) = word;
    match date {
        [b'0'..=b'9', date @ ..] => {
            matches!(date, [_, _, _, b'-' | b'/', _, _, _, ..] | [_, b':', _, _, b':', _, _, ..])
        }
        [b'+' | b'-', zone @ ..] => matches!(zone, [_, _, b':' | b'0'..=b'9', b'0'..=b'9', ..]),
        _ => false,
    }
}

/// `E, [2026-11-23T09:15:45.001234 #8] ERROR 6d68ca91-… -- : …`. `rest` is what stands behind the
/// bracket.
fn ruby(rest: &[u8]) -> Option<Level> {
    let head = rest.get(..HEAD_BYTES).unwrap_or(rest);
    Words(head.get(memchr(b']', head)? + 1..)?).next().and_then(named)
}

/// `time=2026-… level=INFO msg=…` of Go's `log/slog` and others, `timestamp=2026-…` of the logger
/// that comes with its runtime.
fn in_pairs(text: &[u8]) -> Option<Level> {
    named(text.split(|byte| *byte == b' ').nth(1)?.strip_prefix(b"level=")?)
}

/// ` INFO Lambda runtime invoke{requestId="6d68ca91-…"}: …`
fn rusts(text: &[u8]) -> Option<Level> {
    let (level, rest) = text.split_at_checked(5)?;
    rest.starts_with(b" Lambda runtime invoke{").then(|| named(level.trim_ascii_start()))?
}

/// `fail: Orders.Function[0]\n      no such order` of .NET's console logger.
fn dotnets(text: &[u8]) -> Option<Level> {
    let (level, rest) = text.split_first_chunk::<4>()?;
    let rest = rest.strip_prefix(b": ")?;
    let (category, rest) = rest.split_at(memchr2(b'[', b' ', rest)?);
    let number = rest.strip_prefix(b"[")?;
    let (number, behind) = number.split_at(memchr(b']', number)?);
    let is_head = !category.is_empty() && number.iter().all(u8::is_ascii_digit);
    let is_line = is_head && (behind.starts_with(br"]\n") || behind.starts_with(b"] "));
    is_line.then(|| named(level))?
}

/// `{"level":"ERROR",…}` of a logger that prints JSON where the function's log format is text. A
/// level further inside is of something else.
pub(super) fn printed_json(text: &[u8]) -> Option<Level> {
    let mut other = None;
    let head = text.get(..JSON_BYTES).unwrap_or(text).strip_prefix(b"{")?;
    own_level(head, &mut other).or(other)
}

/// The value of `level`. `other`: that of another such key before it.
fn own_level(head: &[u8], other: &mut Option<Level>) -> Option<Level> {
    let (mut at, mut depth) = (0, 1_usize);
    loop {
        match (head.get(at)?, head.get(at + 1)) {
            (b'{' | b'[', _) => depth += 1,
            (b'}' | b']', _) => depth = depth.checked_sub(1).filter(|depth| *depth > 0)?,
            (b'\\', Some(b'"')) => {
                let string = head.get(at + 2..)?;
                let length = length_of_string(string)?;
                if depth == 1
                    && let Some(value) = string.get(length..)?.trim_ascii_start().strip_prefix(b":")
                {
                    match string.get(..length - 2)? {
                        b"level" => {
                            if let Some(level) = printed_level(value) {
                                return Some(level);
                            }
                        }
                        key if is_level_key(key) => {
                            *other = other.or_else(|| printed_level(value));
                        }
                        _ => {}
                    }
                }
                at += 1 + length;
            }
            _ => {}
        }
        at += 1;
    }
}

/// The level that such an object has next: a name or a number.
fn printed_level(value: &[u8]) -> Option<Level> {
    let value = value.trim_ascii_start();
    if value.starts_with(b"\\") {
        return named(exception::printed_string(value)?);
    }
    let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b' ' | b'\\');
    let end = value.iter().take(NAME_BYTES).position(is_end)?;
    Level::of_value(std::str::from_utf8(value.get(..end)?).ok()?)
}

/// Of a string in such an object, with its closing quote.
fn length_of_string(string: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr(b'\\', string.get(at..)?)?;
        at += match (string.get(at + 1)?, string.get(at + 2)) {
            (b'"', _) => return Some(at + 2),
            // An escape of its own: each of its two characters may have one.
            (b'\\', Some(b'\\')) => 4,
            _ => 2,
        };
    }
}

/// The runtimes' own spellings first: .NET's has four letters.
fn named(word: &[u8]) -> Option<Level> {
    Some(match word {
        b"INFO" | b"info" => Level::Info,
        b"DEBUG" | b"dbug" => Level::Debug,
        b"WARN" | b"WARNING" | b"warn" => Level::Warn,
        b"ERROR" | b"fail" => Level::Error,
        b"TRACE" | b"trce" => Level::Trace,
        b"FATAL" | b"CRITICAL" | b"crit" => Level::Fatal,
        _ if word.first()?.is_ascii_alphabetic() && word.len() <= NAME_BYTES => {
            return Level::of_line(std::str::from_utf8(word).ok()?);
        }
        _ => return None,
    })
}

/// Words between spaces and tabs. A tab stands in JSON as two characters.
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    fn skip_blanks(&mut self) -> &'a [u8] {
        while let [b' ', rest @ ..] | [b'\\', b't', rest @ ..] = self.0 {
            self.0 = rest;
        }
        self.0
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let text = self.skip_blanks();
        let (word, rest) = text.split_at(memchr2(b' ', b'\\', text).unwrap_or(text.len()));
        // Another escape than a tab ends the line's head.
        self.0 = if matches!(rest, [b' ', ..] | [b'\\', b't', ..]) { rest } else { b"" };
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
            (r"2026-05-11T08:30:00.002Z\tID\tINFORMATIVE\tx", None),
            (
                r#"2026-05-11T08:30:00.002Z\tID\tINFO\t{\"m\":\"{\",\"level\":\"error\"}\n"#,
                Some(Level::Error),
            ),
            (r#"2026-05-11T08:30:00.002Z\tID\tERROR\t{\"level\":\"info\"}"#, Some(Level::Error)),
            (r#"2026-05-11T08:30:00.002Z\tID\tINFO\tx {\"level\":\"ERROR\"}"#, Some(Level::Info)),
            (r#"2026-05-11T08:30:00.002Z\tID\tINFO\t{\"level\":50}"#, Some(Level::Error)),
            (r#"2026-05-11T08:30:00.002Z\tID\tINFO\t{\"level\":7}"#, Some(Level::Info)),
            (r"2026-05-11T08:30:00.002Z\tID\t", None),
            // Python
            (r"[INFO]\t2026-05-11T08:30:00.001Z\tID\thello\n", Some(Level::Info)),
            (r"[WARNING]\t2026-05-11T08:30:00.001Z\tID\thello\n", Some(Level::Warn)),
            (
                r"[ERROR] ValueError: no such order\nTraceback (most recent call last):",
                Some(Level::Error),
            ),
            (r"[orders] ERROR", Some(Level::Error)),
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
            (
                r"no such order: com.example.NoOrder\ncom.example.NoOrder: no such order\n\tat com.example.Handler.find(Handler.java:31)\n\n",
                Some(Level::Error),
            ),
            (
                r"null: java.lang.NullPointerException\njava.lang.NullPointerException\n\n",
                Some(Level::Error),
            ),
            (r#"[17] \"x\": {}: a.B$C_d\na.B$C_d: [17] \"x\": {}\n\n"#, Some(Level::Error)),
            (
                r"two\nlines: java.lang.RuntimeException\njava.lang.RuntimeException: two\nlines\n\tat a.B.c(B.java:1)\n\n",
                Some(Level::Error),
            ),
            (r"written to a.txt\nb.txt: no\n", None),
            (r"3 lines:\n3 orders\n", None),
            (
                r"2026-05-11 08:30:00 ID WARN  Handler:24 - x\n\tat a.B.c(B.java:1)",
                Some(Level::Warn),
            ),
            (r"Picked up JAVA_TOOL_OPTIONS: -XX:+TieredCompilation\n", None),
            // .NET
            (r"2026-05-11T08:30:00.000Z\t\tinfo\tstarting\n", Some(Level::Info)),
            (r"2026-05-11T08:30:00.001Z\tID\ttrce\tTrace\n", Some(Level::Trace)),
            (r"2026-05-11T08:30:00.001Z\tID\tfail\tfailed\nSystem.Exception", Some(Level::Error)),
            (r"2026-05-11T08:30:00.001Z\tID\tcrit\tstop\n", Some(Level::Fatal)),
            (r"2026-05-11T08:30:00.001Z\tID\t[Error] Orders.Function: no\n", Some(Level::Error)),
            (
                r"2026-05-11T08:30:00.001Z\tID\t[Information] Orders.Function: Error count: 3\n",
                Some(Level::Info),
            ),
            (r"2026-05-11T08:30:00.001Z\tID\t[17] error: no\n", Some(Level::Error)),
            // Ruby
            (r"I, [2026-05-11T08:30:00.001234 #8]  INFO ID -- : hello\n", Some(Level::Info)),
            (r"E, [2026-05-11T08:30:00.002345 #8] ERROR ID -- orders: no", Some(Level::Error)),
            (r"Critical exception from handler", Some(Level::Error)),
            (r"Error raised from handler method", Some(Level::Error)),
            (r"Error raised by nobody", None),
            // Loggers that print JSON
            (r#"{\"level\":\"ERROR\",\"message\":\"no such order\"}\n"#, Some(Level::Error)),
            (r#"{\"time\": 1, \"level\": \"Information\", \"x\": 1}"#, Some(Level::Info)),
            (r#"{\n  \"thread\" : \"main\",\n  \"level\" : \"ERROR\"\n}\n"#, Some(Level::Error)),
            (r#"{ \"level\"  :  50 }"#, Some(Level::Error)),
            (r#"{\"a\":\"level\" , \"b\":50}"#, None),
            (r#"{\"level\":30,\"msg\":\"ERROR\"}\n"#, Some(Level::Info)),
            (r#"{\"level\":30,\"level\":\"ERROR\"}\n"#, Some(Level::Info)),
            (r#"{\"level\": 50}"#, Some(Level::Error)),
            (r#"{\"level\":60,\"time\":1}"#, Some(Level::Fatal)),
            (r#"{\"level\":50.5}"#, None),
            (r#"{\"level\":501}"#, None),
            (r#"{\"level\":5"#, None),
            (r#"{\"severity\":\"CRITICAL\",\"message\":\"no\"}"#, Some(Level::Fatal)),
            (r#"{\"asctime\":\"t\",\"levelname\":\"ERROR\"}"#, Some(Level::Error)),
            (r#"{\"@timestamp\":\"t\",\"log.level\":\"error\"}"#, Some(Level::Error)),
            (r#"{\"@t\":\"t\",\"@l\":\"Error\",\"@m\":{\"a\":"#, Some(Level::Error)),
            (r#"{\"EventId\":17,\"LogLevel\":\"Warning\"}"#, Some(Level::Warn)),
            (r#"{\"Timestamp\":\"t\",\"Level\":\"Fatal\"}"#, Some(Level::Fatal)),
            (r#"{\"severity\":\"critical\",\"level\":\"info\"}"#, Some(Level::Info)),
            (r#"{\"level\":\"gold\",\"severity\":\"ERROR\"}"#, Some(Level::Error)),
            (r#"{\"severity\":\"high\",\"x\":\"severity\"}"#, None),
            (r#"{\"order\":{\"severity\":\"ERROR\"}}"#, None),
            (
                r#"{\"user\":{\"level\":\"INFO\"},\"x\":[{}],\"level\":\"ERROR\"}"#,
                Some(Level::Error),
            ),
            (r#"{\"user\":{\"level\":\"ERROR\"}}"#, None),
            (r#"{\"a\":\"level\",\"b\":[\"level\"],\n\"level\": \"WARN\"}"#, Some(Level::Warn)),
            (
                r#"{\"a\":\"{\\\"level\\\":\\\"FATAL\\\"}\\n\\\\\",\"level\":\"INFO\"}"#,
                Some(Level::Info),
            ),
            (r#"{} {\"level\":\"ERROR\"}"#, None),
            (r#"{\"a\":\"\u003c\\u003c\",\"level\":\"ERROR\"}"#, Some(Level::Error)),
            (r#"{\"levels\":\"ERROR\"}"#, None),
            (r#"{\"level\":\"ERR"#, None),
            (r#"the level is {\"level\":\"ERROR\"}"#, None),
            // Go, Lambda itself, and nobody
            (r"2026/05/11 08:30:00 ERROR no such order\n", Some(Level::Error)),
            (r"2026/05/11 08:30:00 hello\n", None),
            (r#"time=2026-05-11T08:30:00.1Z level=WARN+1 msg=\"no order\"\n"#, Some(Level::Warn)),
            (r"timestamp=2026-05-11T08:30:00.1Z level=ERROR message=no\n", Some(Level::Error)),
            (r#"time=\"2026-05-11T08:30:00Z\" level=fatal msg=no\n"#, Some(Level::Fatal)),
            ("time=17 user=level level=ERROR", None),
            ("time level=ERROR x", None),
            (r"08:30:00.123 [main] ERROR a.Handler - no such order\n", Some(Level::Error)),
            ("404 http error", None),
            ("3 jobs fail", None),
            (r#"ERROR Lambda runtime invoke{requestId=\"ID\"}: no"#, Some(Level::Error)),
            (r#" WARN Lambda runtime invoke{requestId=\"ID\"}: no"#, Some(Level::Warn)),
            (r#"ERROR"#, None),
            (r#"ERROR rate is 0 %"#, None),
            (
                r#"2026/05/11 08:30:00 {\"errorMessage\":\"no such order\",\"errorType\":\"errorString\"}\n"#,
                Some(Level::Error),
            ),
            (
                r#"2026/05/11 08:30:00 invoke_loop.go:97: {\"errorMessage\":\"no\",\"errorType\":\"x\"}"#,
                Some(Level::Error),
            ),
            (
                r#"{\"errorMessage\":\"no such order\",\"errorType\":\"errorString\"}"#,
                Some(Level::Error),
            ),
            (r"panic: runtime error: index out of range [3] with length 3\n", Some(Level::Error)),
            (
                r"2026-05-11T08:30:00.001Z ID Task timed out after 3.00 seconds\n\n",
                Some(Level::Error),
            ),
            // What stands behind a date, a thread or a logger.
            (r"2026/05/11 08:30:00 error: cannot connect\n", Some(Level::Error)),
            (r"2026/05/11 08:30:00 Error: cannot connect\n", Some(Level::Error)),
            (r"2026/05/11 08:30:00 err: EOF\n", Some(Level::Error)),
            (r"2026/05/11 08:30:00 Error reading a.txt: EOF\n", Some(Level::Error)),
            (r"2026/05/11 08:30:00.123456 main.go:17: Error: EOF\n", Some(Level::Error)),
            (r"2026/05/11 08:30:00 [ERROR] cannot connect\n", Some(Level::Error)),
            (r"2026/05/11 08:30:00 [warn] cannot connect\n", Some(Level::Warn)),
            (r"2026/05/11 08:30:00 [orders] ERROR cannot connect\n", Some(Level::Error)),
            (r"2026/05/11 08:30:00 Critical: no disk\n", Some(Level::Fatal)),
            (r"2026/05/11 08:30:00 CRITICAL no disk\n", Some(Level::Fatal)),
            (r"2026-05-11T08:30:00.001Z\terror\tmain.go:17\tno such order", Some(Level::Error)),
            (r"2026-05-11T08:30:00.001Z\tdpanic\tmain.go:17\tno such order", Some(Level::Fatal)),
            (r"2026-05-11T08:30:00.001Z error: no such order", Some(Level::Error)),
            (
                r"2026-05-11 08:30:00.123 [main] ERROR a.Handler - no such order\n",
                Some(Level::Error),
            ),
            (r"2026-05-11 08:30:00.123  WARN 8 --- [main] a.Handler : no\n", Some(Level::Warn)),
            (r"2026-05-11 08:30:00,123 - orders - ERROR - no such order\n", Some(Level::Error)),
            (r"2026-05-11 08:30:00.123 | ERROR    | app:find:12 - no\n", Some(Level::Error)),
            (r"[2026-05-11 08:30:00,123] ERROR in app: no such order\n", Some(Level::Error)),
            (r"[2026-05-11 08:30:00 +0000] [8] [CRITICAL] no such order\n", Some(Level::Fatal)),
            (r"[2026-05-11T08:30:00Z ERROR orders] no such order", Some(Level::Error)),
            (r"[08:30:00 ERR] no such order\n", Some(Level::Error)),
            (r"[08:30:00 FTL] no such order\n", Some(Level::Fatal)),
            (r"2026-05-11 08:30:00.123 +00:00 [ERR] no such order\n", Some(Level::Error)),
            (r"2026-05-11 08:30:00 -0700 ERROR no such order\n", Some(Level::Error)),
            (r"[main] ERROR a.Handler - no such order\n", Some(Level::Error)),
            // Filled up to the length of the longest name.
            (r"[ERROR   ] no such order\n", Some(Level::Error)),
            (r"[INFO ] Error count: 3\n", Some(Level::Info)),
            (r"[WARN ] a.Handler - low\n", Some(Level::Warn)),
            (r"[error    ] no such order", Some(Level::Error)),
            (r"2026-05-11 08:30:00 [error    ] no such order   order=17\n", Some(Level::Error)),
            (r"2026-05-11 08:30:00 [warning  ] low   order=17\n", Some(Level::Warn)),
            (r"2026-05-11 08:30:00.123 [main] [WARN ] a.Handler - low\n", Some(Level::Warn)),
            (r"[error    ", None),
            (r"[Error] no such order", Some(Level::Error)),
            (r"[critical] no disk", Some(Level::Fatal)),
            (r"[err] no disk", Some(Level::Error)),
            (r"2026/05/11 08:30:00 [crit] 8#8: no disk", Some(Level::Fatal)),
            (r"[ALERT] no disk", Some(Level::Fatal)),
            // Before a colon, and nothing else.
            (r"ERROR:root:no such order\n", Some(Level::Error)),
            (r"CRITICAL:orders.stock:no such order\n", Some(Level::Fatal)),
            (r"WARNING:root:low\n", Some(Level::Warn)),
            (r"SEVERE: no such order\n", Some(Level::Error)),
            (r"ERR: no", Some(Level::Error)),
            (r"Error: cannot connect", Some(Level::Error)),
            (r"error: cannot connect\n", Some(Level::Error)),
            // What a message begins with that is none.
            (r"Warning: low: a.B\na.B: Warning: low\n\tat a.B.c(B.java:1)\n\n", Some(Level::Error)),
            // Sentences.
            (r"2026/05/11 08:30:00 Alert sent to 3 users\n", None),
            (r"2026/05/11 08:30:00 Panic button pressed: door 3\n", None),
            (r"2026/05/11 08:30:00 Information about orders: 3\n", None),
            (r"2026/05/11 08:30:00 Error-free run\n", None),
            (r"2026/05/11 08:30:00 Error count: 0\n", None),
            (r"2026/05/11 08:30:00 Fatal errors: 0, warnings: 2\n", None),
            (r"2026/05/11 08:30:00 Fatal errors: 0", None),
            (r"2026/05/11 08:30:00 Error handling installed\n", None),
            (r"2026/05/11 08:30:00 errors=0\n", None),
            (r"2026/05/11 08:30:00 Warning labels printed\n", None),
            (r"2026/05/11 08:30:00 Debug mode off\n", None),
            (r"2026/05/11 08:30:00 http: TLS handshake error from 10.0.0.1:8080: EOF\n", None),
            (r"2026/05/11 08:30:00 [orders] alert sent\n", None),
            (r"2026/05/11 08:30:00 3 orders, ERROR\n", None),
            (r"2026/05/11 08:30:00 self-test error: 0 failures\n", None),
            (r"2026/05/11 08:30:00 auto-scaling ERROR threshold set\n", None),
            (r"2026/05/11 08:30:00 -17 ERROR rows\n", None),
            (r"[alert] queue nearly full", None),
            (r"[alert]\n", None),
            (r"[success] done", None),
            (r"[error handler] installed: yes", None),
            ("Error handling: installed", None),
            ("Errors: 0", None),
            ("fail: to find it", None),
            ("HTTP: 200", None),
            ("error_count: 0", None),
            ("Alert sent: 3", None),
            ("Fatal errors: 0", None),
            ("", None),
            ("[", None),
            ("7", None),
            ("\\", None),
        ] {
            let line = line.replace("ID", ID);
            assert_eq!(text_level(line.as_bytes()), level, "{line}");
            if !line.contains('\\') {
                assert_eq!(plain_text_level(line.as_bytes()), level, "{line}");
            }
        }
    }
}
