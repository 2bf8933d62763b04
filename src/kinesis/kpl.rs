//! The KPL aggregated format: many events in one Kinesis record, as Amazon's producer library packs
//! them. Pure.
//!
//! `F3 89 9A C2`, a protobuf message of a key table and records, and the MD5 of that message.
//! Nothing in it needs a length that is not known yet, so it grows event by event. One partition
//! key stands inside and outside, and no explicit hash keys: consumers throw a whole aggregate away
//! if one inner key belongs to another shard than the one it went to (`AggregatorUtil.deaggregate`
//! of Amazon's client library).

use md5::{Digest, Md5};

/// What an aggregate begins with.
pub const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
const HASH: usize = 16;
/// Field 1 of the message: an entry of the partition key table.
const KEY: u8 = 0x0a;
/// Field 3 of the message: a record.
const RECORD: u8 = 0x1a;
/// Field 1 of a record: the index of its key, which is 0.
const INDEX: [u8; 2] = [0x08, 0x00];
/// Field 3 of a record: its data.
const DATA: u8 = 0x1a;
/// The most that stands before a record's data: two tags, two lengths of at most five bytes, and
/// the index.
pub const MOST_FRAME: usize = 14;

/// An aggregate being filled: the hash of its message so far.
#[derive(Clone, Debug)]
pub struct Aggregate(Md5);

impl Aggregate {
    /// Appends the beginning of an aggregate to `out`.
    #[must_use]
    pub fn open(key: &str, out: &mut Vec<u8>) -> Aggregate {
        out.extend_from_slice(&MAGIC);
        let start = out.len();
        out.push(KEY);
        put_varint(key.len(), out);
        out.extend_from_slice(key.as_bytes());
        let mut aggregate = Aggregate(Md5::new());
        aggregate.add(out.get(start..).unwrap_or_default());
        aggregate
    }

    /// Notes framed records that were appended.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Appends the end of the aggregate.
    pub fn close(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.finalize());
    }
}

/// The bytes of an aggregate with a key of that length, beside its framed records.
#[must_use]
pub fn overhead(key_length: usize) -> usize {
    MAGIC.len() + 1 + varint_length(key_length) + key_length + HASH
}

/// Puts before the data that stands in `out` from `start` on what makes it a record of an
/// aggregate.
pub fn frame(out: &mut Vec<u8>, start: usize) {
    let length = out.len().saturating_sub(start);
    let mut head = Vec::with_capacity(MOST_FRAME);
    head.push(RECORD);
    put_varint(INDEX.len() + 1 + varint_length(length) + length, &mut head);
    head.extend_from_slice(&INDEX);
    head.push(DATA);
    put_varint(length, &mut head);
    out.splice(start..start, head);
}

/// The data of each record of an aggregate that was made here; `None` for anything else.
#[must_use]
pub fn records(data: &[u8]) -> Option<Vec<&[u8]>> {
    let message = data.strip_prefix(&MAGIC)?;
    let mut rest = message.get(..message.len().checked_sub(HASH)?)?;
    let mut records = Vec::new();
    while let Some((tag, after)) = rest.split_first() {
        let (length, after) = take_varint(after)?;
        let (field, after) = after.split_at_checked(length)?;
        rest = after;
        if *tag == RECORD {
            let (_, data) = take_varint(field.strip_prefix(&INDEX)?.strip_prefix(&[DATA])?)?;
            records.push(data);
        }
    }
    Some(records)
}

fn varint_length(number: usize) -> usize {
    let bits = (usize::BITS - number.leading_zeros()).max(1);
    bits.div_ceil(7) as usize
}

fn put_varint(mut number: usize, out: &mut Vec<u8>) {
    while number > 0x7f {
        let [low, ..] = number.to_le_bytes();
        out.push(0x80 | low);
        number >>= 7;
    }
    let [last, ..] = number.to_le_bytes();
    out.push(last);
}

fn take_varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut number = 0;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        number |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(at + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aggregate(key: &str, records: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut aggregate = Aggregate::open(key, &mut out);
        for record in records {
            let start = out.len();
            out.extend_from_slice(record);
            frame(&mut out, start);
            aggregate.add(&out[start..]);
        }
        aggregate.close(&mut out);
        out
    }

    /// Byte for byte what `aws-kinesis-agg` 1.2.3 makes of one key "k" and the records "hi" and
    /// "yo".
    #[test]
    fn the_bytes_are_those_of_the_format() {
        let message = b"\x0a\x01k\x1a\x06\x08\x00\x1a\x02hi\x1a\x06\x08\x00\x1a\x02yo";
        let expected = [&MAGIC[..], message, Md5::digest(message).as_slice()].concat();
        assert_eq!(aggregate("k", &[b"hi".to_vec(), b"yo".to_vec()]), expected);
    }

    #[test]
    fn sizes_are_exact_at_every_change_of_a_lengths_length() {
        let lengths = [
            0, 1, 122, 123, 124, 127, 128, 16_376, 16_379, 16_383, 16_384, 2_097_151, 2_097_152,
            3_145_728,
        ];
        for key_length in [1, 16, 127, 128, 256] {
            let key = "k".repeat(key_length);
            for length in lengths {
                let mut framed = vec![b'x'; length];
                frame(&mut framed, 0);
                assert!(framed.len() - length <= MOST_FRAME);
                let whole = aggregate(&key, &[vec![b'x'; length]]);
                assert_eq!(
                    whole.len(),
                    overhead(key_length) + framed.len(),
                    "{key_length} {length}"
                );
                assert_eq!(records(&whole).unwrap(), [vec![b'x'; length].as_slice()]);
            }
        }
    }

    #[test]
    fn what_is_no_aggregate_is_told() {
        let whole = aggregate("k", &[b"hi".to_vec()]);
        for data in [&b""[..], b"{}", &MAGIC, &whole[..whole.len() - 1], &whole[1..]] {
            assert!(records(data).is_none_or(|records| records != [b"hi"]), "{data:?}");
        }
        assert_eq!(records(&aggregate("k", &[])).unwrap(), Vec::<&[u8]>::new());
    }
}
