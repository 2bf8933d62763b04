//! Takes KPL aggregated records apart, as a consumer would. Pure.

use md5::{Digest, Md5};

const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
const HASH: usize = 16;

/// An aggregated record's keys and data; `None` when it is none, or broken, and so to be taken as it is.
pub(super) fn disaggregate(data: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let rest = data.strip_prefix(&MAGIC)?;
    let (message, hash) = rest.split_at_checked(rest.len().checked_sub(HASH)?)?;
    if Md5::digest(message).as_slice() != hash {
        return None;
    }
    let mut keys = Vec::new();
    let mut records = Vec::new();
    for (field, value) in fields(message)? {
        match (field, value) {
            (1, Value::Bytes(key)) => keys.push(String::from_utf8(key.to_vec()).ok()?),
            (3, Value::Bytes(record)) => records.push(record),
            _ => {}
        }
    }
    let inner = |record: &[u8]| {
        let (mut key, mut data) = (None, None);
        for (field, value) in fields(record)? {
            match (field, value) {
                (1, Value::Number(index)) => key = keys.get(usize::try_from(index).ok()?).cloned(),
                (3, Value::Bytes(bytes)) => data = Some(bytes.to_vec()),
                _ => {}
            }
        }
        key.zip(data)
    };
    records.into_iter().map(inner).collect()
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message; those of other wire types than these two do not occur.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Value::Bytes(value)
            }
            _ => return None,
        };
        fields.push((tag >> 3, value));
    }
    Some(fields)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aggregate_comes_apart_and_a_broken_one_does_not() {
        let message =
            [b"\x0a\x01k".as_slice(), b"\x1a\x06\x08\x00\x1a\x02hi", b"\x1a\x06\x08\x00\x1a\x02yo"]
                .concat();
        let mut data = [&MAGIC[..], &message, Md5::digest(&message).as_slice()].concat();
        let expected = [("k".to_owned(), b"hi".to_vec()), ("k".to_owned(), b"yo".to_vec())];
        assert_eq!(disaggregate(&data).unwrap(), expected);
        data[6] = b'x';
        assert_eq!(disaggregate(&data), None);
        assert_eq!(disaggregate(b"{}"), None);
    }
}
