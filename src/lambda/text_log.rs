//! The shortest way through a body: a text log as Lambda writes it is recognised by its fixed words
//! and the end of its string. Pure.
//!
//! Most of all telemetry looks so. What is the least bit different (other keys, other order,
//! blanks, a JSON record, broken JSON) is not recognised here, and read by serde.

use std::ops::Range;

use memchr::memchr2;

/// Where a text log lies in a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TextLog {
    /// The object, braces included.
    pub(super) object: Range<usize>,
    /// The record: a string, quotes included.
    pub(super) record: Range<usize>,
    /// `function` or `extension`.
    pub(super) kind: &'static str,
    /// There is an escape in the record.
    pub(super) is_escaped: bool,
}

/// Whether there is a control character: line ends and tabs between tokens, or something that no
/// JSON string may hold.
#[must_use]
pub(super) fn has_control(bytes: &[u8]) -> bool {
    const LOW: u64 = 0x2020_2020_2020_2020;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = bytes.as_chunks::<8>();
    // Eight bytes at a time: the high bit of each byte that is under 0x20.
    let found = words.iter().fold(0, |found, word| {
        let word = u64::from_le_bytes(*word);
        found | (word.wrapping_sub(LOW) & !word & HIGH)
    });
    found != 0 || rest.iter().any(|byte| *byte < b' ')
}

/// The text log that begins at `start`, in a body without control characters.
#[must_use]
pub(super) fn text_log(bytes: &[u8], start: usize) -> Option<TextLog> {
    let time = start + expect(bytes, start, b"{\"time\":\"")?;
    // A time has no escapes.
    let time_end = time + memchr2(b'"', b'\\', bytes.get(time..)?)?;
    let kind = time_end + expect(bytes, time_end, b"\",\"type\":\"")?;
    let (kind, record) = ["function", "extension"].into_iter().find_map(|name| {
        let after = kind + expect(bytes, kind, name.as_bytes())?;
        Some((name, after + expect(bytes, after, b"\",\"record\":")?))
    })?;
    let (record_end, is_escaped) = string_end(bytes, record + expect(bytes, record, b"\"")?)?;
    let end = record_end + expect(bytes, record_end, b"}")?;
    Some(TextLog { object: start..end, record: record..record_end, kind, is_escaped })
}

/// The length of `word`, if it stands at `at`.
fn expect(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    bytes.get(at..)?.starts_with(word).then_some(word.len())
}

/// The index behind the closing quote of a string whose inside begins at `at`, and whether there
/// are escapes in it; `None` for one that is not whole or has an escape that JSON does not know.
fn string_end(bytes: &[u8], mut at: usize) -> Option<(usize, bool)> {
    let mut is_escaped = false;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes.get(at) == Some(&b'"') {
            return Some((at + 1, is_escaped));
        }
        is_escaped = true;
        at += match bytes.get(at + 1)? {
            b'n' | b'"' | b'\\' | b'/' | b't' | b'r' | b'b' | b'f' => 2,
            b'u' => bytes.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit).then_some(6)?,
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(&str, &str, &'static str)> {
        let found = text_log(text.as_bytes(), 1)?;
        Some((text.get(found.object)?, text.get(found.record)?, found.kind))
    }

    #[test]
    fn text_logs_as_lambda_writes_them() {
        for record in [
            r#""""#,
            r#""hello\n""#,
            r#""a \"b\" \\ \/ \b\f\n\r\t é日🎉""#,
            r#""\u00e9\ud83c\udf89""#,
        ] {
            for kind in ["function", "extension"] {
                let log = format!(
                    r#"{{"time":"2026-11-23T09:15:45.012Z","type":"{kind}","record":{record}}}"#
                );
                assert_eq!(read(&format!("[{log},")), Some((log.as_str(), record, kind)));
                let found = text_log(log.as_bytes(), 0).unwrap();
                assert_eq!(found.is_escaped, record.contains('\\'), "{record}");
            }
        }
    }

    #[test]
    fn anything_else_is_left_to_serde() {
        for other in [
            r#"{"time":"t","type":"function","record":"cut"#,
            r#"{"time":"t","type":"function","record":"cut\"#,
            r#"{"time":"t","type":"function","record":"cut\u12"#,
            r#"{"time":"t","type":"function","record":"\u12g4"}"#,
            r#"{"time":"t","type":"function","record":"\x"}"#,
            r#"{"time":"t","type":"function","record":"one","more":1}"#,
            r#"{"time":"t","type":"function","record":"blank" }"#,
            r#"{"time":"t","type":"function","record":{"message":"x"}}"#,
            r#"{"time":"t","type":"function","record": "x"}"#,
            r#"{"time":"t\"","type":"function","record":"x"}"#,
            r#"{"time":1,"type":"function","record":"x"}"#,
            r#"{"time":"t","type":"functional","record":"x"}"#,
            r#"{"time":"t","type":"platform.start","record":"x"}"#,
            r#"{"type":"function","time":"t","record":"x"}"#,
            "",
        ] {
            assert_eq!(read(&format!("[{other}")), None, "{other}");
        }
    }

    #[test]
    fn control_characters_are_seen_wherever_they_stand() {
        for length in 0..40 {
            let mut bytes = vec![0xff; length];
            bytes.iter_mut().step_by(2).for_each(|byte| *byte = b' ');
            assert!(!has_control(&bytes));
            for at in 0..length {
                for control in 0..0x20 {
                    let kept = std::mem::replace(&mut bytes[at], control);
                    assert!(has_control(&bytes), "{control} at {at} of {length}");
                    bytes[at] = kept;
                }
            }
        }
    }
}
