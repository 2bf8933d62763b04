//! Lambda's envelope `{"time":…,"type":…,"record":…}`: parsed, kept where it stands, or written
//! anew behind the body. Pure.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::clock::{self, EpochMs};

/// What the extension itself adds to an event.
const ADDED_KEYS: [&str; 14] = [
    "requestId",
    "eventId",
    "traceId",
    "tenantId",
    "executionArn",
    "functionName",
    "functionVersion",
    "functionArn",
    "accountId",
    "region",
    "logStream",
    "coldStart",
    "tags",
    "truncatedBytes",
];

/// An appendix that is longer grows by little more than it needs.
const LONG: usize = 64 * 1024;

/// Lambda's envelope: three keys, and whatever else it may learn to say.
#[derive(Debug, Default)]
pub(super) struct Envelope<'a> {
    pub(super) time: Option<&'a RawValue>,
    kind: Option<&'a RawValue>,
    pub(super) record: Option<&'a RawValue>,
    others: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Envelope<'a> {
    /// The time, as far as it is one.
    pub(super) fn epoch_ms(&self) -> Option<EpochMs> {
        clock::parse_iso8601(self.time?.get().trim_matches('"'))
    }

    /// The type between its quotes; `None` if it is no plain string.
    pub(super) fn kind(&self) -> Option<&'a str> {
        self.kind?.get().strip_prefix('"')?.strip_suffix('"')
    }

    /// The object in `bytes` without its closing brace, and the record, if it stands there just as
    /// it would be written.
    pub(super) fn in_place(&self, bytes: &[u8]) -> Option<(Range<usize>, Range<usize>)> {
        let (time, kind, record) = (self.time?.get(), self.kind?.get(), self.record?.get());
        if !self.others.is_empty() {
            return None;
        }
        let [time_at, kind_at, record_at] = [time, kind, record]
            .map(|part| (part.as_ptr() as usize).checked_sub(bytes.as_ptr() as usize));
        let (time_at, kind_at, record_at) = (time_at?, kind_at?, record_at?);
        let start = time_at.checked_sub(8)?;
        let end = record_at + record.len();
        let fits = bytes.get(start..time_at)? == b"{\"time\":"
            && bytes.get(time_at + time.len()..kind_at)? == b",\"type\":"
            && bytes.get(kind_at + kind.len()..record_at)? == b",\"record\":"
            && bytes.get(end) == Some(&b'}');
        fits.then_some((start..end, record_at..end))
    }

    /// Writes the canonical object without its closing brace, and says where it and its record are:
    /// for events whose keys are in another order, with unknown keys, or on several lines.
    pub(super) fn rebuild(&self, out: &mut Appendix) -> (Range<usize>, Range<usize>) {
        let start = out.put(b"{").start;
        if let Some(time) = self.time {
            out.put(b"\"time\":");
            out.put_on_one_line(time.get().as_bytes());
            out.put(b",");
        }
        out.put(b"\"type\":");
        let mut end = out.put(self.kind.map_or("null", RawValue::get).as_bytes()).end;
        let mut record = end..end;
        if let Some(raw) = self.record {
            out.put(b",\"record\":");
            record = out.put_on_one_line(raw.get().as_bytes());
            end = record.end;
        }
        for (key, value) in &self.others {
            // A key that is there already, or that the extension adds itself, keeps Lambda's value
            // under another name.
            let is_taken = ADDED_KEYS.contains(&key.as_ref())
                || matches!(key.as_ref(), "time" | "type" | "record");
            let prefix = if is_taken { "lambda." } else { "" };
            let key = serde_json::to_string(&format!("{prefix}{key}")).unwrap_or_default();
            out.put(b",");
            out.put(key.as_bytes());
            out.put(b":");
            end = out.put_on_one_line(value.get().as_bytes()).end;
        }
        (start..end, record)
    }
}

/// A key of an object, borrowed where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Key<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Envelope<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Envelope<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a telemetry event")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
                let mut envelope = Envelope::default();
                while let Some(Key(key)) = map.next_key()? {
                    let value = map.next_value()?;
                    match key.as_ref() {
                        "time" if envelope.time.is_none() => envelope.time = Some(value),
                        "type" if envelope.kind.is_none() => envelope.kind = Some(value),
                        "record" if envelope.record.is_none() => envelope.record = Some(value),
                        _ => envelope.others.push((key, value)),
                    }
                }
                Ok(envelope)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// Bytes that are not in the body as they are needed: rebuilt events, and ids. They end up behind
/// the body.
pub(super) struct Appendix {
    base: usize,
    bytes: Vec<u8>,
}

impl Appendix {
    /// Behind a body of so many bytes.
    pub(super) fn new(base: usize) -> Appendix {
        Appendix { base, bytes: Vec::new() }
    }

    /// The length of that body.
    pub(super) fn base(&self) -> usize {
        self.base
    }

    /// How many they are so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A long one does not double when it grows: it would be there three times while it moves.
    fn make_room(&mut self, more: usize) {
        let needed = self.bytes.len() + more;
        if needed > self.bytes.capacity() && needed > LONG {
            self.bytes.reserve_exact(more + needed / 8);
        }
    }

    /// Comes back with where the bytes will be.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Range<usize> {
        self.make_room(bytes.len());
        let start = self.base + self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..start + bytes.len()
    }

    /// As `put`, with line ends replaced by spaces: an event stays one line. In JSON they stand
    /// between tokens only.
    fn put_on_one_line(&mut self, bytes: &[u8]) -> Range<usize> {
        let range = self.put(bytes);
        for byte in self.bytes.iter_mut().skip(range.start - self.base) {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        range
    }

    /// Writes bytes as a JSON string of at most so many. Comes back with where the string is, and
    /// how many of the bytes it holds.
    pub(super) fn put_as_text(&mut self, bytes: &[u8], max_bytes: usize) -> (Range<usize>, usize) {
        let mut length = 2;
        escape(bytes, max_bytes, |part| length += part.len());
        self.make_room(length);
        let start = self.put(b"\"").start;
        let taken = escape(bytes, max_bytes, |part| self.bytes.extend_from_slice(part));
        (start..self.put(b"\"").end, taken)
    }

    /// Moves what is there behind the body.
    pub(super) fn append_to(self, body: &mut Vec<u8>) {
        if !self.bytes.is_empty() {
            body.reserve_exact(self.bytes.len());
            body.extend_from_slice(&self.bytes);
        }
    }

    /// The bytes alone.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Hands on `bytes` as they stand inside a JSON string, part by part, with U+FFFD where they are no
/// UTF-8. Comes back with how many of them were handed on before `max_bytes` of text were reached.
fn escape(bytes: &[u8], max_bytes: usize, mut emit: impl FnMut(&[u8])) -> usize {
    let digit = |n: u8| if n < 10 { b'0' + n } else { b'a' + n - 10 };
    let (mut room, mut taken) = (max_bytes, 0);
    // A part of the text, for so many bytes; `false` if it does not fit.
    let mut put = |part: &[u8], count: usize| {
        let fits = part.len() <= room;
        if fits {
            emit(part);
            (room, taken) = (room - part.len(), taken + count);
        }
        fits
    };
    'text: for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20)) {
            let (plain, special) = rest.split_at(at);
            let (Some(&byte), Some(behind)) = (special.as_bytes().first(), special.get(1..)) else {
                break;
            };
            let short = match byte {
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                other => other,
            };
            let long = [b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)];
            let is_put = put(plain.as_bytes(), at)
                && if short < b' ' { put(&long, 1) } else { put(&[b'\\', short], 1) };
            if !is_put {
                break 'text;
            }
            rest = behind;
        }
        if !put(rest.as_bytes(), rest.len())
            || (!chunk.invalid().is_empty() && !put("\u{fffd}".as_bytes(), chunk.invalid().len()))
        {
            break;
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_holds_any_bytes_and_keeps_to_its_bound() {
        let source =
            b"plain \"quoted\" \\ \n\r\t\x00\x1f\x7f \xc3\xa9 \xff\xfe \xf0\x9f\x8e\x89 end";
        let expected = String::from_utf8_lossy(source);
        for max_bytes in 0..100 {
            let mut appendix = Appendix::new(1000);
            appendix.put(b"head");
            let (range, taken) = appendix.put_as_text(source, max_bytes);
            assert_eq!((range.start, range.end), (1004, 1000 + appendix.len()));
            let text: String = serde_json::from_slice(&appendix.into_bytes()[4..]).unwrap();
            assert!(range.len() <= max_bytes + 2 && expected.starts_with(&text), "{text:?}");
            assert_eq!(String::from_utf8_lossy(&source[..taken]), text);
            assert!(max_bytes < 80 || taken == source.len());
        }
    }
}
