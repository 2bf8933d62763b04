//! The two forms of a PutRecords request: JSON, with the data in base64, or CBOR, with the data as
//! it is. Pure.
//!
//! CBOR is what AWS's SDK for Java speaks to Kinesis (`application/x-amz-cbor-1.1`): the same
//! members under the same names. A record's data is one byte string. Its length stands before it
//! and is filled in when the record is closed, so it always takes four bytes.

use std::borrow::Cow;

use base64_simd::STANDARD;

use super::cbor;
use super::endpoint::Stream;

/// Kinesis's limit of a partition key, in characters.
const MAX_KEY: usize = 256;
/// Bytes of the length of a record's data in CBOR.
const LENGTH: usize = 4;

/// Whether it can be a partition key that was made here: it has no character that JSON escapes.
pub(super) fn is_key(key: &str) -> bool {
    let is_plain = key.chars().all(|c| !c.is_control() && c != '"' && c != '\\');
    is_plain && (1..=MAX_KEY).contains(&key.chars().count())
}

/// `WIRE`: the form of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// `application/x-amz-json-1.1`
    Json,
    /// `application/x-amz-cbor-1.1`
    Cbor,
}

impl Wire {
    /// The form of a body that was made here.
    #[must_use]
    pub fn of(body: &[u8]) -> Wire {
        if cbor::is_map(body) { Wire::Cbor } else { Wire::Json }
    }

    /// For the header of that name.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Wire::Json => "application/x-amz-json-1.1",
            Wire::Cbor => "application/x-amz-cbor-1.1",
        }
    }

    /// What a body begins with.
    pub(super) fn head(self) -> &'static [u8] {
        match self {
            Wire::Json => b"{\"Records\":[",
            Wire::Cbor => b"\xa2\x67Records\x9f",
        }
    }

    /// What stands between two records.
    pub(super) fn separator(self) -> &'static [u8] {
        match self {
            Wire::Json => b",",
            Wire::Cbor => b"",
        }
    }

    /// What a record begins with: this, its data, and what [`Wire::close`] appends. In CBOR without
    /// the data's length.
    fn record(self) -> &'static [u8] {
        match self {
            Wire::Json => b"{\"Data\":\"",
            Wire::Cbor => b"\xa2\x64Data\x5a",
        }
    }

    /// Between a record's data and its partition key.
    fn key(self) -> &'static [u8] {
        match self {
            Wire::Json => b"\",\"PartitionKey\":\"",
            Wire::Cbor => b"\x6cPartitionKey",
        }
    }

    /// How many bytes of data are encoded together.
    pub(super) fn group(self) -> usize {
        match self {
            Wire::Json => 3,
            Wire::Cbor => 1,
        }
    }

    /// How many bytes so much data takes in a body.
    pub(super) fn encoded(self, length: usize) -> usize {
        match self {
            Wire::Json => length.div_ceil(3) * 4,
            Wire::Cbor => length,
        }
    }

    /// Begins a record.
    pub(super) fn open(self, body: &mut Vec<u8>) {
        body.extend_from_slice(self.record());
        if self == Wire::Cbor {
            body.extend_from_slice(&[0; LENGTH]);
        }
    }

    /// Adds to its data: whole groups, but for the last ones.
    pub(super) fn append(self, bytes: &[u8], body: &mut Vec<u8>) {
        match self {
            Wire::Json => {
                // `encode_append` by itself grows the body by just what it adds: a copy of the
                // whole each time.
                body.reserve(bytes.len().div_ceil(3) * 4);
                STANDARD.encode_append(bytes, body);
            }
            Wire::Cbor => body.extend_from_slice(bytes),
        }
    }

    /// How many bytes of data the record holds that begins at `start` and is open; whole groups of
    /// them.
    pub(super) fn data_length(self, start: usize, body: &[u8]) -> usize {
        let written = body.len().saturating_sub(start + self.record().len());
        match self {
            Wire::Json => written / 4 * 3,
            Wire::Cbor => written.saturating_sub(LENGTH),
        }
    }

    /// Ends the record that begins at `start`. A key has no character that JSON escapes.
    pub(super) fn close(self, start: usize, key: &str, body: &mut Vec<u8>) {
        let length = cbor::number_of(self.data_length(start, body));
        body.extend_from_slice(self.key());
        match self {
            Wire::Json => {
                body.extend_from_slice(key.as_bytes());
                body.extend_from_slice(b"\"}");
            }
            Wire::Cbor => {
                cbor::text(key, body);
                let at = start + self.record().len();
                if let Some(place) = body.get_mut(at..at + LENGTH) {
                    place.copy_from_slice(&length.to_be_bytes());
                }
            }
        }
    }

    /// What stands behind the records.
    pub(super) fn ending(self, stream: &Stream) -> Vec<u8> {
        let (member, name) = stream.member();
        match self {
            // Checked at start: neither a name nor an ARN has a character that JSON escapes.
            Wire::Json => format!("],\"{member}\":\"{name}\"}}").into_bytes(),
            Wire::Cbor => {
                let mut ending = vec![cbor::BREAK];
                cbor::text(member, &mut ending);
                cbor::text(name, &mut ending);
                ending
            }
        }
    }

    /// The data, as it stands there, and the partition key of a record in a body; `None` if it is
    /// none that was made here.
    pub(super) fn data_and_key(self, record: &[u8]) -> Option<(&[u8], &str)> {
        let rest = record.strip_prefix(self.record())?;
        let (data, rest) = match self {
            Wire::Json => rest.split_at_checked(memchr::memchr(b'"', rest)?)?,
            Wire::Cbor => {
                let (length, rest) = rest.split_first_chunk::<LENGTH>()?;
                rest.split_at_checked(u32::from_be_bytes(*length) as usize)?
            }
        };
        let rest = rest.strip_prefix(self.key())?;
        let key = match self {
            Wire::Json => rest.strip_suffix(b"\"}")?,
            Wire::Cbor => cbor::only_text(rest)?,
        };
        let key = std::str::from_utf8(key).ok()?;
        is_key(key).then_some((data, key))
    }

    /// The data itself.
    pub(super) fn decode(self, data: &[u8]) -> Option<Cow<'_, [u8]>> {
        match self {
            Wire::Json => STANDARD.decode_to_vec(data).ok().map(Cow::Owned),
            Wire::Cbor => Some(Cow::Borrowed(data)),
        }
    }
}
