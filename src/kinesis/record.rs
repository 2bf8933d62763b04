//! One Kinesis record: its form, its limits, and how it stands in the body of a request. Pure.

use std::ops::Range;

use super::gzip;
use super::kpl;
use super::wire::Wire;

/// AWS's limit of records in a request.
pub const MAX_RECORDS: usize = 500;
/// What a body has beside its data, with some hundred records.
const FRAME_BYTES: usize = 32 * 1024;
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

/// The sizes to keep to, and the form. All sizes count decoded data and key, in bytes, as Kinesis
/// counts them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of a record: `RECORD_BYTES`. What is compressed is bounded by it before: a consumer never
    /// unpacks more than that.
    pub record_bytes: usize,
    /// Of a request, unless one record needs more.
    pub request_bytes: usize,
    /// How lines become records.
    pub record: RecordFormat,
    /// Of a record's data; in an aggregate, of each event.
    pub compression: Compression,
    /// The form of a request.
    pub wire: Wire,
}

impl Limits {
    /// How many bytes a request's body may have, unless one record needs more.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.wire.encoded(self.request_bytes) + FRAME_BYTES
    }

    /// The buffer for the body of a request that is made of so many bytes of records.
    #[must_use]
    pub fn body_of(&self, bytes: usize) -> usize {
        // What a record has beside its data is a few per cent, and mostly less.
        self.wire.encoded(bytes) + bytes / 8 + 1024
    }

    /// How many bytes any request's body may have, in either form: one record of the largest size,
    /// or a full request of compressed ones.
    #[must_use]
    pub fn largest_body(&self) -> usize {
        let most = (self.request_bytes + self.request_bytes / 2).max(self.record_bytes + 1024);
        Wire::Json.encoded(most) + MAX_RECORDS * 512
    }

    /// Whether a whole record is compressed while it is filled, so that its size shows only when it
    /// is closed.
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

/// The lines of a record as it stands in a body, however they were packed; `most` bytes of what was
/// compressed.
pub(super) fn lines(wire: Wire, record: &[u8], most: usize) -> Option<Vec<u8>> {
    let (data, _) = wire.data_and_key(record)?;
    Some(unpacked(&wire.decode(data)?, most))
}

/// Whether a line is the ledger or the sandbox event, which count as no event. Lambda's types never
/// begin so; what a function logs may hold the same words.
pub(super) fn is_internal(line: &[u8]) -> bool {
    const TYPES: [&[u8]; 2] =
        [b",\"type\":\"kinesis-telemetry.ledger\"", b",\"type\":\"kinesis-telemetry.sandbox\""];
    let time = line.strip_prefix(b"{\"time\":\"").unwrap_or_default();
    let behind_time = memchr::memchr(b'"', time).and_then(|end| time.get(end + 1..));
    behind_time.is_some_and(|rest| TYPES.iter().any(|kind| rest.starts_with(kind)))
}

/// The lines in a record's data, however they were packed.
pub(super) fn unpacked(data: &[u8], most: usize) -> Vec<u8> {
    let undo = |data: &[u8]| gzip::undo(data, most).unwrap_or_else(|| data.to_vec());
    match kpl::records(data) {
        Some(records) => records.into_iter().flat_map(undo).collect(),
        None => undo(data),
    }
}
