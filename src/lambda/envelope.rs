//! Lambda's envelope `{"time":…,"type":…,"record":…}`: parsed, kept where it stands, or written
//! anew behind the body. Pure. What it takes in memory does not depend on the event.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::appendix::Appendix;
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

/// Lambda may add keys to its envelope. An object with more of them is none of Lambda's: each key
/// takes memory while the event is read.
const MAX_OTHER_KEYS: usize = 64;

/// A key with escapes is unescaped up to this length: no key that is looked for is longer, not
/// even with each letter escaped.
const MAX_ESCAPED_KEY: usize = 256;

/// Lambda's envelope: three keys, and whatever else it may learn to say.
#[derive(Debug, Default)]
pub(super) struct Envelope<'a> {
    pub(super) time: Option<&'a RawValue>,
    kind: Option<&'a RawValue>,
    pub(super) record: Option<&'a RawValue>,
    /// At most [`MAX_OTHER_KEYS`].
    others: Vec<(Key<'a>, &'a RawValue)>,
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
    /// it would be written. `has_lines`: `bytes` may have line ends.
    pub(super) fn in_place(
        &self,
        bytes: &[u8],
        has_lines: bool,
    ) -> Option<(Range<usize>, Range<usize>)> {
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
            && bytes.get(end) == Some(&b'}')
            && !(has_lines && memchr::memchr2(b'\n', b'\r', bytes.get(start..end)?).is_some());
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
            let name = key.name();
            let is_taken = ADDED_KEYS.contains(&name.as_ref())
                || matches!(name.as_ref(), "time" | "type" | "record");
            let before: &[u8] = if is_taken { b",\"lambda." } else { b",\"" };
            out.put(before);
            out.put(key.text().as_bytes());
            out.put(b"\":");
            end = out.put_on_one_line(value.get().as_bytes()).end;
        }
        (start..end, record)
    }
}

/// A key of an object, as it stands there. It is not copied, for it may be as long as its body.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Key<'a>(#[serde(borrow)] &'a RawValue);

impl<'a> Key<'a> {
    /// Without escapes. A long key with escapes is none that is looked for, and stays as it is.
    pub(super) fn name(&self) -> Cow<'a, str> {
        let text = self.text();
        if text.len() > MAX_ESCAPED_KEY || !text.contains('\\') {
            return Cow::Borrowed(text);
        }
        serde_json::from_str(self.0.get()).map_or(Cow::Borrowed(text), Cow::Owned)
    }

    /// As it stands between its quotes.
    fn text(&self) -> &'a str {
        let quoted = self.0.get();
        quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(quoted)
    }
}

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
                while let Some(key) = map.next_key::<Key<'_>>()? {
                    let value = map.next_value()?;
                    match key.name().as_ref() {
                        "time" if envelope.time.is_none() => envelope.time = Some(value),
                        "type" if envelope.kind.is_none() => envelope.kind = Some(value),
                        "record" if envelope.record.is_none() => envelope.record = Some(value),
                        _ if envelope.others.len() == MAX_OTHER_KEYS => {
                            return Err(A::Error::custom("more keys than an event has"));
                        }
                        _ => envelope.others.push((key, value)),
                    }
                }
                Ok(envelope)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}
