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
    /// The former.
    pub(super) is_functions: bool,
    /// There is an escape in the record.
    pub(super) is_escaped: bool,
}

/// Whether there is a control character: line ends and tabs between tokens, or something that no
/// JSON string may hold.
#[must_use]
pub(super) fn has_control(bytes: &[u8]) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = bytes.as_chunks::<8>();
    let (fours, words) = words.as_chunks::<4>();
    // Four words at a time: every byte of a body comes by here.
    let found =
        fours.iter().fold(0, |found, [a, b, c, d]| found | low(a) | low(b) | low(c) | low(d));
    let found = words.iter().fold(found, |found, word| found | low(word));
    found & HIGH != 0 || rest.iter().any(|byte| *byte < b' ')
}

/// Sets the high bit of a byte that is under 0x20, if there is one. In place, or it is called for
/// every word in a program that is built for size.
#[inline(always)]
fn low(word: &[u8; 8]) -> u64 {
    const LOW: u64 = 0x2020_2020_2020_2020;
    let word = u64::from_le_bytes(*word);
    word.wrapping_sub(LOW) & !word
}

/// The text log that begins at `start`, in a body without control characters.
#[must_use]
pub(super) fn text_log(bytes: &[u8], start: usize) -> Option<TextLog> {
    let time = start + expect(bytes, start, b"{\"time\":\"")?;
    // A time has no escapes.
    let time_end = time + memchr2(b'"', b'\\', bytes.get(time..)?)?;
    let kind = time_end + expect(bytes, time_end, b"\",\"type\":\"")?;
    let (kind, name_end, is_functions) = match expect(bytes, kind, b"function") {
        Some(length) => ("function", kind + length, true),
        None => ("extension", kind + expect(bytes, kind, b"extension")?, false),
    };
    let record = name_end + expect(bytes, name_end, b"\",\"record\":")?;
    let (record_end, is_escaped) = string_end(bytes, record + expect(bytes, record, b"\"")?)?;
    let end = record_end + expect(bytes, record_end, b"}")?;
    let (object, record) = (start..end, record..record_end);
    Some(TextLog { object, record, kind, is_functions, is_escaped })
}

/// The length of `word`, if it stands at `at`. Of a known length, so that it is compared in place:
/// the C library that is linked in compares byte by byte.
#[inline(always)]
fn expect<const LENGTH: usize>(bytes: &[u8], at: usize, word: &[u8; LENGTH]) -> Option<usize> {
    (bytes.get(at..)?.first_chunk() == Some(word)).then_some(LENGTH)
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
                assert_eq!(found.is_functions, kind == "function");
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
        for length in 0..75 {
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
