//! Lines -> Kinesis records -> the body of one PutRecords request, within the limits. Pure.
//!
//! Each line goes straight into the body as base64, and the body is hashed while it grows: one pass over the data. A record's place in the
//! body is remembered, so that those that failed are sent again without being packed again.

use std::ops::Range;

use base64_simd::STANDARD;
use sha2::{Digest, Sha256};

use super::endpoint::Stream;
use crate::random;

/// AWS's limit of records in a request.
pub const MAX_RECORDS: usize = 500;
/// Data and keys in a request of several records. AWS's limit is 10 MiB since 2025; older endpoints refuse more than 5 MiB, some already
/// a few bytes below it. With base64 that is 6.7 MiB of body: see `Limits::request_bytes` for the memory's sake.
pub const MAX_REQUEST_BYTES: usize = 5 * 1024 * 1024 - 1024;
/// Hash in pieces that are still in the CPU's first cache.
const HASH_STEP: usize = 8 * 1024;

/// The sizes to keep to. All count decoded data and key, in bytes, as Kinesis counts them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of a record: `RECORD_BYTES`.
    pub record_bytes: usize,
    /// Of a request, unless one record needs more.
    pub request_bytes: usize,
    /// Whether a record takes more than one event.
    pub many_events: bool,
}

/// One record in a body: where it stands, and what it holds.
#[derive(Clone, Debug)]
struct Record {
    range: Range<usize>,
    events: u64,
    bytes: usize,
}

/// A PutRecords request: being built, or on its way.
#[derive(Debug)]
pub struct Request {
    limits: Limits,
    body: Vec<u8>,
    records: Vec<Record>,
    open: Option<Open>,
    /// Bytes of the open record that are still to be encoded (fewer than three), then the line being added.
    tail: Vec<u8>,
    payload: usize,
    hasher: Sha256,
    hashed: usize,
    /// The hash of the whole body, once it has its end.
    finished: Option<String>,
}

/// The record being filled.
#[derive(Debug)]
struct Open {
    start: usize,
    key: String,
    /// Whether lines of any key may join: a fresh key each record.
    any_key: bool,
    events: u64,
    bytes: usize,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is in.
    Yes,
    /// The request is full; the line belongs into the next one.
    Full,
    /// It is larger than a record may be: this is how many bytes a line may have.
    TooLong(usize),
}

const HEAD: &[u8] = b"{\"Records\":[";

impl Request {
    /// An empty request.
    #[must_use]
    pub fn new(limits: Limits) -> Request {
        Request::with_buffer(limits, Vec::new())
    }

    /// An empty request whose body grows in a used buffer, whose pages need not be fetched again.
    #[must_use]
    pub fn with_buffer(limits: Limits, mut buffer: Vec<u8>) -> Request {
        buffer.clear();
        let mut request = Request {
            limits,
            body: buffer,
            records: Vec::new(),
            open: None,
            tail: Vec::new(),
            payload: 0,
            hasher: Sha256::new(),
            hashed: 0,
            finished: None,
        };
        request.body.extend_from_slice(HEAD);
        request
    }

    /// Adds the line that `write` appends to the buffer it is given; `key` is its partition key, or `None` for a fresh one each record.
    pub fn add(&mut self, key: Option<&str>, events: u64, write: impl FnOnce(&mut Vec<u8>)) -> Added {
        let carried = self.tail.len();
        write(&mut self.tail);
        let length = self.tail.len() - carried;
        let added = self.place(key, length, carried);
        match added {
            Added::Yes => {
                if let Some(open) = &mut self.open {
                    open.events += events;
                    open.bytes += length;
                }
                self.payload += length;
                self.encode();
            }
            Added::Full | Added::TooLong(_) => self.tail.truncate(carried),
        }
        added
    }

    /// Finds a record for a line of `length` bytes that stands in the tail behind `carried` bytes of the open record.
    fn place(&mut self, key: Option<&str>, length: usize, carried: usize) -> Added {
        let key_length = key.map_or(16, str::len);
        if length + key_length > self.limits.record_bytes {
            return Added::TooLong(self.limits.record_bytes.saturating_sub(key_length));
        }
        if let Some(open) = &self.open {
            let same = self.limits.many_events && if key.is_none() { open.any_key } else { Some(open.key.as_str()) == key };
            let fits = open.bytes + length <= self.limits.record_bytes && self.payload + length <= self.limits.request_bytes;
            if same && fits {
                return Added::Yes;
            }
        }
        let records = self.records.len() + usize::from(self.open.is_some());
        let first = records == 0;
        if !first && (records >= MAX_RECORDS || self.payload + length + key_length > self.limits.request_bytes) {
            return Added::Full;
        }
        let line = self.tail.split_off(carried);
        self.close();
        self.tail = line;
        self.open_record(key.map_or_else(random::hex16, str::to_owned), key.is_none());
        Added::Yes
    }

    fn open_record(&mut self, key: String, any_key: bool) {
        if !self.records.is_empty() {
            self.body.push(b',');
        }
        let start = self.body.len();
        self.body.extend_from_slice(b"{\"Data\":\"");
        self.payload += key.len();
        self.open = Some(Open { start, bytes: key.len(), key, any_key, events: 0 });
    }

    /// Encodes whole groups of three bytes of the tail.
    fn encode(&mut self) {
        let whole = self.tail.len() / 3 * 3;
        // `encode_append` itself grows the body by just what it adds: a copy of the whole for each line.
        self.body.reserve(whole / 3 * 4);
        STANDARD.encode_append(self.tail.get(..whole).unwrap_or_default(), &mut self.body);
        self.tail.drain(..whole);
        if self.body.len() - self.hashed >= HASH_STEP {
            self.hash();
        }
    }

    fn hash(&mut self) {
        self.hasher.update(self.body.get(self.hashed..).unwrap_or_default());
        self.hashed = self.body.len();
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        STANDARD.encode_append(&self.tail, &mut self.body);
        self.tail.clear();
        self.body.extend_from_slice(b"\",\"PartitionKey\":\"");
        self.body.extend_from_slice(open.key.as_bytes());
        self.body.extend_from_slice(b"\"}");
        self.records.push(Record { range: open.start..self.body.len(), events: open.events, bytes: open.bytes });
    }

    /// Ends the body and gives its SHA-256 in hex. No line can be added after that; [`Request::keep`] opens it again for another end.
    pub fn finish(&mut self, stream: &Stream) -> String {
        if let Some(hash) = &self.finished {
            return hash.clone();
        }
        self.close();
        let (member, name) = stream.member();
        self.body.extend_from_slice(b"],\"");
        self.body.extend_from_slice(member.as_bytes());
        self.body.extend_from_slice(b"\":\"");
        // Checked at start: neither a name nor an ARN has a character that JSON escapes.
        self.body.extend_from_slice(name.as_bytes());
        self.body.extend_from_slice(b"\"}");
        self.hash();
        let hash = hex(&self.hasher.finalize_reset());
        self.finished = Some(hash.clone());
        hash
    }

    /// Keeps the records that `wanted` says, in their order; the body is then to be finished again.
    pub fn keep(&mut self, mut wanted: impl FnMut(usize) -> bool) {
        let old = std::mem::take(&mut self.records);
        let mut end = HEAD.len();
        for (index, mut record) in old.into_iter().enumerate() {
            if !wanted(index) {
                self.payload -= record.bytes;
                continue;
            }
            if end > HEAD.len() {
                if let Some(comma) = self.body.get_mut(end) {
                    *comma = b',';
                }
                end += 1;
            }
            let length = record.range.len();
            self.body.copy_within(record.range.clone(), end);
            record.range = end..end + length;
            end += length;
            self.records.push(record);
        }
        self.body.truncate(end);
        self.hasher.reset();
        self.hashed = 0;
        self.finished = None;
    }

    /// Where the records stand in a finished body, for keeping it elsewhere: of each its start, its length, its events and its decoded bytes.
    #[must_use]
    pub fn index(&self) -> Vec<[u64; 4]> {
        self.records.iter().map(|r| [r.range.start as u64, r.range.len() as u64, r.events, r.bytes as u64]).collect()
    }

    /// A finished request again, from its body, its hash and its [`Request::index`]; `None` if they do not fit together.
    #[must_use]
    pub fn restore(limits: Limits, body: Vec<u8>, index: &[[u64; 4]], hash: &str) -> Option<Request> {
        let mut request = Request::new(limits);
        let mut end = HEAD.len();
        for [start, length, events, bytes] in index {
            let start = usize::try_from(*start).ok()?;
            let range = start..start.checked_add(usize::try_from(*length).ok()?)?;
            let record = body.get(range.clone())?;
            let whole = record.starts_with(b"{\"Data\":\"") && record.ends_with(b"\"}");
            if !whole || start < end || request.records.len() == MAX_RECORDS {
                return None;
            }
            end = range.end;
            let bytes = usize::try_from(*bytes).ok()?;
            request.payload = request.payload.checked_add(bytes)?;
            request.records.push(Record { range, events: *events, bytes });
        }
        if !body.starts_with(HEAD) || request.records.is_empty() {
            return None;
        }
        request.body = body;
        request.hashed = request.body.len();
        request.finished = Some(hash.to_owned());
        Some(request)
    }

    /// The decoded data of each record, for those who have to read it again.
    pub fn data(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.records.iter().filter_map(|record| {
            let encoded = self.body.get(record.range.clone())?.strip_prefix(b"{\"Data\":\"")?;
            let end = encoded.iter().position(|b| *b == b'"')?;
            STANDARD.decode_to_vec(encoded.get(..end)?).ok()
        })
    }

    /// Splits a request of several records into two halves, both to be finished again.
    #[must_use]
    pub fn split(mut self) -> (Request, Request) {
        let middle = self.records.len() / 2;
        let mut second = Request::new(self.limits);
        second.body.clone_from(&self.body);
        second.records.clone_from(&self.records);
        second.payload = self.payload;
        self.keep(|index| index < middle);
        second.keep(|index| index >= middle);
        (self, second)
    }

    /// The body's buffer, for the next request.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.body
    }

    /// The body as it goes on the wire, once finished.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// How many records it holds, the open one included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len() + usize::from(self.open.is_some())
    }

    /// Whether it holds no record at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many events it holds.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.records.iter().map(|r| r.events).sum::<u64>() + self.open.as_ref().map_or(0, |o| o.events)
    }

    /// Events and decoded bytes of one record.
    #[must_use]
    pub fn record(&self, index: usize) -> (u64, u64) {
        self.records.get(index).map_or((0, 0), |r| (r.events, r.bytes as u64))
    }
}

/// SHA-256 of a whole body, in hex, as [`Request::finish`] gives it.
#[must_use]
pub fn hash(body: &[u8]) -> String {
    hex(&Sha256::digest(body))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |hex, byte| hex + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { record_bytes: 1000, request_bytes: 10_000, many_events: true };

    fn stream() -> Stream {
        Stream::Name("telemetry".to_owned())
    }

    /// Partition key and data of each record of a finished body, parsed and decoded by other means than the ones that made it.
    fn read(request: &Request) -> Vec<(String, String)> {
        let value: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
        assert_eq!(value["StreamName"], "telemetry");
        let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
        let records = value["Records"].as_array().unwrap().iter();
        records.map(|r| (text(&r["PartitionKey"]), String::from_utf8(STANDARD.decode_to_vec(text(&r["Data"])).unwrap()).unwrap())).collect()
    }

    fn add(request: &mut Request, key: Option<&str>, line: &str) -> Added {
        request.add(key, 1, |out| out.extend_from_slice(line.as_bytes()))
    }

    fn sha256(bytes: &[u8]) -> String {
        Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn lines_share_records_and_records_share_a_request() {
        let mut request = Request::new(LIMITS);
        let lines: Vec<String> = (0..20).map(|n| format!("{n:0>120}\n")).collect();
        for line in &lines {
            assert_eq!(add(&mut request, Some("key"), line), Added::Yes);
        }
        let hash = request.finish(&stream());
        assert_eq!(hash, sha256(request.body()));
        let records = read(&request);
        // 8 lines of 121 bytes and a key of 3 fit into 1000.
        assert_eq!(records.iter().map(|(_, data)| data.lines().count()).collect::<Vec<_>>(), [8, 8, 4]);
        assert_eq!(records.iter().map(|(_, data)| data.as_str()).collect::<String>(), lines.concat());
        assert_eq!(request.events(), 20);
    }

    #[test]
    fn a_full_request_keeps_what_it_has() {
        let mut request = Request::new(Limits { request_bytes: 2000, ..LIMITS });
        let line = format!("{}\n", "x".repeat(499));
        let taken = (0..10).take_while(|_| add(&mut request, Some("k"), &line) == Added::Yes).count();
        // A record of 1000 holds one line of 500 and a key of 1; three of those fit into 2000.
        assert_eq!(taken, 3);
        request.finish(&stream());
        assert_eq!(read(&request).len(), 3);
    }

    #[test]
    fn no_more_than_500_records() {
        let mut request = Request::new(Limits { many_events: false, ..LIMITS });
        let taken = (0..600).take_while(|_| add(&mut request, Some("k"), "x\n") == Added::Yes).count();
        assert_eq!(taken, MAX_RECORDS);
    }

    #[test]
    fn one_record_may_need_more_than_the_request_limit() {
        let mut request = Request::new(Limits { record_bytes: 50_000, ..LIMITS });
        assert_eq!(add(&mut request, Some("k"), &"x".repeat(40_000)), Added::Yes);
        assert_eq!(add(&mut request, Some("k"), "x"), Added::Full);
        assert_eq!(add(&mut Request::new(LIMITS), Some("key"), &"x".repeat(998)), Added::TooLong(997));
    }

    #[test]
    fn another_key_is_another_record_and_random_keys_differ() {
        let mut request = Request::new(LIMITS);
        for key in ["a", "a", "b", "a"] {
            add(&mut request, Some(key), "line\n");
        }
        request.finish(&stream());
        let records = read(&request);
        assert_eq!(records.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["a", "b", "a"]);
        assert_eq!(records[0].1, "line\nline\n");

        let mut request = Request::new(LIMITS);
        for _ in 0..20 {
            add(&mut request, None, &"x".repeat(300));
        }
        request.finish(&stream());
        let mut keys: Vec<String> = read(&request).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), 7);
        keys.dedup();
        assert_eq!(keys.len(), 7);
    }

    #[test]
    fn only_the_wanted_records_stay() {
        let mut request = Request::new(Limits { many_events: false, ..LIMITS });
        for n in 0..7 {
            add(&mut request, Some("k"), &"x".repeat(n + 1));
        }
        request.finish(&stream());
        request.keep(|index| [0, 3, 6].contains(&index));
        let hash = request.finish(&stream());
        assert_eq!(hash, sha256(request.body()));
        assert_eq!(read(&request).iter().map(|(_, data)| data.len()).collect::<Vec<_>>(), [1, 4, 7]);
        assert_eq!(request.record(1), (1, 5));
        let index = request.index();
        let restored = |index: &[[u64; 4]]| Request::restore(LIMITS, request.body().to_vec(), index, &hash);
        let mut restored_whole = restored(&index).unwrap();
        assert!(restored(&[[1, 5, 1, 1]]).is_none() && restored(&[]).is_none() && restored(&[index[1], index[0]]).is_none());
        assert_eq!(restored_whole.finish(&stream()), hash);
        assert_eq!(restored_whole.body(), request.body());
        assert_eq!(restored_whole.data().map(|data| data.len()).collect::<Vec<_>>(), [1, 4, 7]);
        restored_whole.keep(|index| index == 1);
        restored_whole.finish(&stream());
        assert_eq!(read(&restored_whole)[0].1.len(), 4);
        let (mut first, mut second) = request.split();
        let hashes = [first.finish(&stream()), second.finish(&stream())];
        assert_eq!(hashes, [sha256(first.body()), sha256(second.body())]);
        assert_eq!(read(&first).len() + read(&second).len(), 3);
        assert_eq!(first.events() + second.events(), 3);
    }
}
