//! The form of a segment on disk: one packed request with its index, so that it can be sent without
//! being packed again. Nothing in a file is believed before its hash is right, and no hash makes
//! right what does not fit together: anybody in the sandbox can write a file with a right one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::kinesis::endpoint::Stream;
use crate::kinesis::record::{Limits, MAX_RECORDS};
use crate::kinesis::request::{self, Request};

const MAGIC: &[u8] = b"kinesis-telemetry-extension spool 2\n";
const HASH: usize = 32;
/// Bytes of a number, lowest first.
const NUMBER: usize = 8;
/// Numbers for each record: its start, its length, its events and its decoded bytes.
const PER_RECORD: usize = 4;
/// The longest stream ARN, and some.
const LONGEST_STREAM: usize = 2048;
/// Not through a link, and without waiting for the other end of a pipe.
const OPEN_FLAGS: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

/// How many bytes a file may have.
#[must_use]
pub fn largest(limits: Limits) -> u64 {
    let head = MAGIC.len() + (3 + MAX_RECORDS * PER_RECORD) * NUMBER + LONGEST_STREAM + 3 * HASH;
    (limits.largest_body() + head) as u64
}

/// What stands before the body. Finishes the request.
#[must_use]
pub fn head(request: &mut Request, stream: &Stream, ambiguous: bool) -> Vec<u8> {
    let hash = request.finish(stream);
    let index = request.index();
    let stream = stream.member().1.as_bytes();
    let mut head = MAGIC.to_vec();
    let mut number = |n: u64| head.extend_from_slice(&n.to_le_bytes());
    number(stream.len() as u64);
    number(u64::from(ambiguous));
    number(index.len() as u64);
    index.iter().flatten().for_each(|n| number(*n));
    head.extend_from_slice(stream);
    // The body's hash is known, as it has to be signed; the head's takes it in.
    head.extend_from_slice(hash.as_bytes());
    let head_hash = Sha256::digest(&head);
    head.extend_from_slice(&head_hash);
    head
}

/// A file's head, whose hash is right.
#[derive(Debug)]
pub struct Head {
    /// Kinesis may have stored the request when the file was written.
    pub ambiguous: bool,
    index: Vec<[u64; PER_RECORD]>,
    hash: String,
}

impl Head {
    /// SHA-256 of the body, in hex.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Opens a file, if it is one, of that owner and no larger than a segment, and reads its head.
    ///
    /// # Errors
    /// If it is anything else, or not whole, or of another stream.
    pub fn open(
        path: &Path,
        owner: u32,
        stream: &Stream,
        limits: Limits,
    ) -> io::Result<(Head, File)> {
        let mut file = OpenOptions::new().read(true).custom_flags(OPEN_FLAGS).open(path)?;
        let about = file.metadata()?;
        if !about.is_file() || about.uid() != owner || about.len() > largest(limits) {
            return Err(damaged());
        }
        Ok((Head::read(&mut file, stream)?, file))
    }

    /// Reads it, and leaves the file at its body.
    fn read(file: &mut File, stream: &Stream) -> io::Result<Head> {
        let mut head = vec![0; MAGIC.len() + 3 * NUMBER];
        file.read_exact(&mut head)?;
        let numbers_at = MAGIC.len();
        let [stream_length, ambiguous, count] =
            *numbers(head.get(numbers_at..).unwrap_or_default())
                .first_chunk()
                .ok_or_else(damaged)?;
        let (stream_length, count) = (
            usize::try_from(stream_length).unwrap_or(usize::MAX),
            usize::try_from(count).unwrap_or(usize::MAX),
        );
        if !head.starts_with(MAGIC) || stream_length > LONGEST_STREAM || count > MAX_RECORDS {
            return Err(damaged());
        }
        let index_at = head.len();
        let stream_at = index_at + count * PER_RECORD * NUMBER;
        let hash_at = stream_at + stream_length;
        let end = hash_at + 2 * HASH;
        head.resize(end + HASH, 0);
        file.read_exact(head.get_mut(index_at..).unwrap_or_default())?;
        let part = |range: std::ops::Range<usize>| head.get(range).unwrap_or_default();
        if Sha256::digest(part(0..end)).as_slice() != part(end..end + HASH)
            || part(stream_at..hash_at) != stream.member().1.as_bytes()
        {
            return Err(damaged());
        }
        let index = numbers(part(index_at..stream_at)).as_chunks().0.to_vec();
        let hash = String::from_utf8(part(hash_at..end).to_vec()).map_err(|_| damaged())?;
        Ok(Head { ambiguous: ambiguous != 0, index, hash })
    }

    /// Reads the body that follows, into the buffer that `buffer` gives for so many bytes.
    ///
    /// # Errors
    /// If it is not whole, or larger than a request can be.
    pub fn body(
        self,
        file: File,
        limits: Limits,
        stream: &Stream,
        buffer: impl Fn(usize) -> Vec<u8>,
    ) -> io::Result<Request> {
        // It was looked at when it was opened; it may have grown meanwhile.
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let mut body = buffer(length.min(limits.largest_body()));
        body.clear();
        file.take(limits.largest_body() as u64 + 1).read_to_end(&mut body)?;
        if body.len() > limits.largest_body() || request::hash(&body) != self.hash {
            return Err(damaged());
        }
        Request::restore(limits, body, &self.index, &self.hash, stream).ok_or_else(damaged)
    }
}

fn damaged() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

fn numbers(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks::<NUMBER>().0.iter().map(|number| u64::from_le_bytes(*number)).collect()
}
