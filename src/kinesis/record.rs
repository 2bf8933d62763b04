//! One Kinesis record: its form, its limits, and how it stands in the body of a request. Pure.

use std::ops::Range;

use base64_simd::STANDARD;

use super::gzip;
use super::kpl;

/// AWS's limit of records in a request.
pub const MAX_RECORDS: usize = 500;
/// Kinesis's limit of a partition key, in characters.
const MAX_KEY: usize = 256;
/// What a body has beside base64, with some hundred records.
const FRAME_BYTES: usize = 32 * 1024;
/// A record in a body is this, its data, and what follows.
pub(super) const DATA: &[u8] = b"{\"Data\":\"";
/// Between a record's data and its partition key.
pub(super) const KEY: &[u8] = b"\",\"PartitionKey\":\"";
/// Behind the key.
pub(super) const END: &[u8] = b"\"}";

/// How events are packed into Kinesis records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFormat {
    /// Many events a record, one a line.
    Lines,
    /// One event a record.
    Event,
    /// Many events a record, in the KPL aggregated format.
    Kpl,
}

/// What is done to a record's data; in an aggregate, to each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Nothing.
    None,
    /// One gzip member.
    Gzip,
}

/// The sizes to keep to, and the form. All sizes count decoded data and key, in bytes, as Kinesis counts them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of a record: `RECORD_BYTES`. What is compressed is bounded by it before: a consumer never unpacks more than that.
    pub record_bytes: usize,
    /// Of a request, unless one record needs more.
    pub request_bytes: usize,
    /// How lines become records.
    pub record: RecordFormat,
    /// Of a record's data; in an aggregate, of each event.
    pub compression: Compression,
}

impl Limits {
    /// How many bytes a request's body may have, unless one record needs more.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.request_bytes.div_ceil(3) * 4 + FRAME_BYTES
    }

    /// How many bytes any request's body may have: one record of the largest size, or a full request of compressed ones.
    #[must_use]
    pub fn largest_body(&self) -> usize {
        (self.request_bytes + self.request_bytes / 2).max(self.record_bytes + 1024).div_ceil(3) * 4
            + MAX_RECORDS * 512
    }

    /// Whether a whole record is compressed while it is filled, so that its size shows only when it is closed.
    pub(super) fn compresses_records(&self) -> bool {
        self.compression == Compression::Gzip && self.record == RecordFormat::Lines
    }

    /// What a record takes beside its lines.
    pub(super) fn opening(&self, key_length: usize) -> usize {
        key_length + if self.record == RecordFormat::Kpl { kpl::overhead(key_length) } else { 0 }
    }

    /// The most bytes that a record of `length` can become by being compressed.
    pub(super) fn at_worst(&self, length: usize) -> usize {
        length + if self.compression == Compression::Gzip { gzip::overhead(length) } else { 0 }
    }

    /// The longest line that fits into a record of its own.
    pub(super) fn longest_line(&self, key_length: usize) -> usize {
        let frame = if self.record == RecordFormat::Kpl { kpl::MOST_FRAME } else { 0 };
        let packing = self.at_worst(self.record_bytes) - self.record_bytes;
        self.record_bytes.saturating_sub(self.opening(key_length) + frame + packing)
    }
}

/// One record in a body: where it stands, and what it holds.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) range: Range<usize>,
    pub(super) events: u64,
    pub(super) bytes: usize,
}

/// Appends bytes to a body. `encode_append` by itself grows the body by just what it adds: a copy of the whole each time.
pub(super) fn append_base64(bytes: &[u8], body: &mut Vec<u8>) {
    body.reserve(bytes.len().div_ceil(3) * 4);
    STANDARD.encode_append(bytes, body);
}

/// The lines of a record as it stands in a body, however they were packed; `most` bytes of what was compressed.
pub(super) fn lines(record: &[u8], most: usize) -> Option<Vec<u8>> {
    let (data, _) = data_and_key(record)?;
    Some(unpacked(&STANDARD.decode_to_vec(data).ok()?, most))
}

/// The data, in base64, and the partition key of a record as it stands in a body.
pub(super) fn data_and_key(record: &[u8]) -> Option<(&[u8], &str)> {
    let rest = record.strip_prefix(DATA)?;
    let (data, rest) = rest.split_at_checked(memchr::memchr(b'"', rest)?)?;
    let key = std::str::from_utf8(rest.strip_prefix(KEY)?.strip_suffix(END)?).ok()?;
    let plain = key.chars().all(|c| !c.is_control() && c != '"' && c != '\\');
    (plain && (1..=MAX_KEY).contains(&key.chars().count())).then_some((data, key))
}

/// Whether a line is the ledger or the sandbox event, which count as no event. Lambda's types never begin so.
pub(super) fn is_internal(line: &[u8]) -> bool {
    const TYPES: [&[u8]; 2] =
        [b"\"type\":\"kinesis-telemetry.ledger\"", b"\"type\":\"kinesis-telemetry.sandbox\""];
    let head = line.get(..line.len().min(96)).unwrap_or_default();
    TYPES.iter().any(|kind| memchr::memmem::find(head, kind).is_some())
}

/// The lines in a record's data, however they were packed.
pub(super) fn unpacked(data: &[u8], most: usize) -> Vec<u8> {
    let undo = |data: &[u8]| gzip::undo(data, most).unwrap_or_else(|| data.to_vec());
    match kpl::records(data) {
        Some(records) => records.into_iter().flat_map(undo).collect(),
        None => undo(data),
    }
}
