//! The form of a segment on disk: batches of packed records, one appended behind the other, each
//! with a hash that takes in all before it. What is behind the last whole batch is one that was
//! never written to its end; only that is lost.
//!
//! A record is kept as Kinesis would decode it, with its key, so that those of several batches can
//! become one, in any form of a request. Nothing in a file is believed before its hash is right,
//! and no hash makes right what does not fit together: anybody in the sandbox can write a file with
//! a right one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::spool_index::{Batch, HASH, Hash};
use crate::kinesis::endpoint::Stream;
use crate::kinesis::record::{Limits, MAX_RECORDS};
use crate::kinesis::request::Request;

/// What a file begins with.
pub const MAGIC: &[u8] = b"kinesis-telemetry-extension spool 3\n";
/// Bytes of a number, lowest first.
const NUMBER: usize = 4;
/// Before a record: how long its key is, how many events it holds, how long its data is.
const RECORD_HEAD: usize = 3 * NUMBER;
/// Not through a link, and without waiting for the other end of a pipe.
const OPEN_FLAGS: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

/// How many bytes a file may have.
#[must_use]
pub fn largest(limits: Limits) -> u64 {
    // Each record may be a batch of its own.
    let frames = MAX_RECORDS * (RECORD_HEAD + NUMBER + HASH);
    (MAGIC.len() + limits.largest_body() + frames) as u64
}

/// What sealed requests take that are written behind what is there.
#[must_use]
pub fn batch(requests: &[&Request]) -> Batch {
    let mut batch = Batch { bytes: 0, events: 0, payload: 0, records: 0 };
    for request in requests {
        batch.bytes += (NUMBER + records_bytes(request) + HASH) as u64;
        batch.events += request.events();
        batch.payload += request.payload();
        batch.records += request.len();
    }
    batch
}

/// The same in a file of their own.
#[must_use]
pub fn new_file(requests: &[&Request]) -> Batch {
    let batch = batch(requests);
    Batch { bytes: MAGIC.len() as u64 + batch.bytes, ..batch }
}

fn records_bytes(request: &Request) -> usize {
    request.len() * RECORD_HEAD + request.payload()
}

/// What stands for a hash before the first batch: segments of another stream do not fit.
#[must_use]
pub fn beginning(stream: &Stream) -> Hash {
    let (member, name) = stream.member();
    Sha256::new_with_prefix(MAGIC).chain_update(member).chain_update(name).finalize().into()
}

/// Appends a sealed request behind the batch that has the hash `before`. Says which hash it has.
///
/// # Errors
/// If it cannot be written; a part of it may be.
pub fn append(out: &mut impl Write, request: &Request, before: &Hash) -> io::Result<Hash> {
    let length = records_bytes(request);
    let (mut hasher, mut written) = (Sha256::new_with_prefix(before), 0);
    let mut put = |bytes: &[u8]| {
        hasher.update(bytes);
        written += bytes.len();
        out.write_all(bytes)
    };
    put(&number(length as u64))?;
    for (key, events, data) in request.contents() {
        for n in [key.len() as u64, events, data.len() as u64] {
            put(&number(n))?;
        }
        put(key.as_bytes())?;
        put(&data)?;
    }
    if written != NUMBER + length {
        return Err(damaged());
    }
    let hash: Hash = hasher.finalize().into();
    out.write_all(&hash)?;
    Ok(hash)
}

/// Opens a file, if it is one, of that owner and no larger than a segment.
///
/// # Errors
/// If it is anything else.
pub fn open(path: &Path, owner: u32, limits: Limits) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OPEN_FLAGS).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() || about.uid() != owner || about.len() > largest(limits) {
        return Err(damaged());
    }
    Ok(file)
}

/// What is in a file.
#[derive(Debug)]
pub struct Content {
    /// The records of all whole batches.
    pub request: Request,
    /// Of the last of them.
    pub hash: Hash,
    /// There is nothing behind that.
    pub is_whole: bool,
}

/// Reads so many bytes of a file, or all it has. The request's body is in the buffer that `buffer`
/// gives for so many bytes.
///
/// # Errors
/// If there is no whole batch, or one is none that could have been written here.
pub fn read(
    file: impl Read,
    length: u64,
    stream: &Stream,
    limits: Limits,
    buffer: impl FnOnce(usize) -> Vec<u8>,
) -> io::Result<Content> {
    let length = length.min(largest(limits));
    let mut file = file.take(length);
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(damaged());
    }
    let body = limits.body_of(usize::try_from(length).unwrap_or(0));
    let mut request = Request::with_buffer(limits, buffer(body));
    let (mut hash, mut batch) = (beginning(stream), Vec::new());
    let is_whole = loop {
        match next_batch(&mut file, &hash, &mut batch)? {
            Next::End => break true,
            Next::Torn => break false,
            Next::Batch(next) => hash = next,
        }
        let records = batch.get(NUMBER..).unwrap_or_default();
        add_records(&mut request, records).ok_or_else(damaged)?;
    };
    if request.is_empty() {
        return Err(damaged());
    }
    request.seal();
    Ok(Content { request, hash, is_whole })
}

enum Next {
    /// In the buffer, with that hash.
    Batch(Hash),
    End,
    Torn,
}

/// Reads a batch into a buffer, its length and its records.
fn next_batch<R: Read>(
    file: &mut io::Take<R>,
    before: &Hash,
    batch: &mut Vec<u8>,
) -> io::Result<Next> {
    batch.clear();
    // Never more than there is, whatever it says: all is bounded by the file's length.
    if file.by_ref().take(NUMBER as u64).read_to_end(batch)? == 0 {
        return Ok(Next::End);
    }
    let Some(length) = batch.first_chunk::<NUMBER>() else { return Ok(Next::Torn) };
    let length = u64::from(u32::from_le_bytes(*length));
    if length + HASH as u64 > file.limit() {
        return Ok(Next::Torn);
    }
    file.by_ref().take(length).read_to_end(batch)?;
    let mut hash = [0; HASH];
    let hash_is_whole = file.read_exact(&mut hash);
    let expected: Hash = Sha256::new_with_prefix(before).chain_update(&batch).finalize().into();
    // A hash that is cut off is none.
    let is_right = hash_is_whole.is_ok() && hash == expected;
    Ok(if is_right { Next::Batch(hash) } else { Next::Torn })
}

fn add_records(request: &mut Request, mut records: &[u8]) -> Option<()> {
    while !records.is_empty() {
        let (head, rest) = records.split_first_chunk::<RECORD_HEAD>()?;
        let [key, events, data] = *head.as_chunks::<NUMBER>().0.first_chunk()?;
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(key) as usize)?;
        let (data, rest) = rest.split_at_checked(u32::from_le_bytes(data) as usize)?;
        let key = std::str::from_utf8(key).ok()?;
        request.add_packed(key, u64::from(u32::from_le_bytes(events)), data).then_some(())?;
        records = rest;
    }
    Some(())
}

fn number(n: u64) -> [u8; NUMBER] {
    u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes()
}

fn damaged() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinesis::record::{Compression, RecordFormat};
    use crate::kinesis::wire::Wire;

    const LIMITS: Limits = Limits {
        record_bytes: 1000,
        request_bytes: 10_000,
        record: RecordFormat::Lines,
        compression: Compression::None,
        wire: Wire::Json,
    };

    fn stream() -> Stream {
        Stream::Name("telemetry".to_owned())
    }

    fn line(n: usize) -> String {
        format!("a line of a log: {n}\n")
    }

    /// A file of batches of one line each, and where each of them ends.
    fn file(batches: usize) -> (Vec<u8>, Vec<usize>, Hash) {
        let (mut file, mut ends, mut hash) = (MAGIC.to_vec(), Vec::new(), beginning(&stream()));
        for n in 0..batches {
            let mut request = Request::new(LIMITS);
            request.add(Some("key"), 1, |out| out.extend_from_slice(line(n).as_bytes()));
            request.seal();
            let before = file.len() as u64;
            hash = append(&mut file, &request, &hash).unwrap();
            assert_eq!(file.len() as u64 - before, batch(&[&request]).bytes);
            ends.push(file.len());
        }
        (file, ends, hash)
    }

    fn read_all(file: &[u8]) -> io::Result<Content> {
        read(file, u64::MAX, &stream(), LIMITS, Vec::with_capacity)
    }

    #[test]
    fn batches_come_back_as_one_request() {
        let (file, _, hash) = file(20);
        let content = read_all(&file).unwrap();
        assert_eq!((content.hash, content.is_whole), (hash, true));
        assert_eq!((content.request.events(), content.request.len()), (20, 1));
        let lines: Vec<u8> = content.request.data().flatten().collect();
        assert_eq!(lines, (0..20).map(line).collect::<String>().as_bytes());
    }

    #[test]
    fn a_torn_tail_costs_one_batch() {
        let (file, ends, _) = file(3);
        for length in 0..file.len() {
            let whole = ends.iter().filter(|end| **end <= length).count();
            match read_all(&file[..length]) {
                Ok(content) => {
                    assert_eq!(content.request.events(), whole as u64, "{length}");
                    assert_eq!(content.is_whole, ends.contains(&length), "{length}");
                }
                Err(_) => assert_eq!(whole, 0, "{length}"),
            }
        }
    }

    #[test]
    fn what_was_changed_does_not_come_back() {
        let (file, ends, _) = file(2);
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            let whole = read_all(&changed).map_or(0, |content| content.request.events());
            assert_eq!(whole, u64::from(at >= ends[0]), "{at}");
        }
        let other = Stream::Name("another".to_owned());
        assert!(read(&file[..], u64::MAX, &other, LIMITS, Vec::with_capacity).is_err());
        // In another order.
        let (magic, rest) = file.split_at(MAGIC.len());
        let (first, second) = rest.split_at(ends[0] - MAGIC.len());
        assert!(read_all(&[magic, second, first].concat()).is_err());
        // As far as this process has written it.
        let length = ends[0] as u64;
        let content = read(&file[..], length, &stream(), LIMITS, Vec::with_capacity).unwrap();
        assert_eq!((content.request.events(), content.is_whole), (1, true));
    }
}
