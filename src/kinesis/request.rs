//! The body of one PutRecords request: lines go into records, records into the body, within the
//! limits. Pure.
//!
//! Each line goes straight into the body, in JSON as base64, and such a body is hashed while it
//! grows: one pass over the data. A record's place in the body is remembered, so that those that
//! failed are sent again without being packed again.

mod parts;

use sha2::{Digest, Sha256};

use super::endpoint::Stream;
use super::gzip::{self, Gzip};
use super::kpl::{self, Aggregate};
use super::record::{Compression, Limits, MAX_RECORDS, Record, RecordFormat};
use super::wire::Wire;
use crate::event::is_same;
use crate::random;

/// Lines are gathered before they are encoded, and what was encoded is hashed while it is in the
/// CPU's first cache.
const ENCODE_STEP: usize = 6 * 1024;
/// A text of so many bytes is not gathered first.
const LONG_TEXT: usize = 64 * 1024;
/// Every endpoint takes so much in any request; more only where one record needs it.
pub const INTRODUCED_BYTES: usize = 4 * 1024 * 1024;
/// Room in the body behind a long text: for the end of its record and of the request.
const ROOM_BEHIND: usize = 4096;

/// A PutRecords request: being built, or on its way.
#[derive(Debug)]
pub struct Request {
    limits: Limits,
    body: Vec<u8>,
    records: Vec<Record>,
    open: Option<Open>,
    /// Bytes of the open record that are still to be encoded, then the line being added.
    tail: Vec<u8>,
    gzip: Option<Gzip>,
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
    aggregate: Option<Aggregate>,
    events: u64,
    /// Data and key; before compression where the whole record is compressed.
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

impl Request {
    /// An empty request.
    #[must_use]
    pub fn new(limits: Limits) -> Request {
        Request::with_buffer(limits, Vec::new())
    }

    /// An empty request whose body is written into a buffer that may have been used, so that its
    /// pages need not be fetched again.
    #[must_use]
    pub fn with_buffer(limits: Limits, mut buffer: Vec<u8>) -> Request {
        buffer.clear();
        buffer.extend_from_slice(limits.wire.head());
        Request {
            limits,
            body: buffer,
            records: Vec::new(),
            open: None,
            tail: Vec::new(),
            gzip: None,
            payload: 0,
            hasher: Sha256::new(),
            hashed: 0,
            finished: None,
        }
    }

    /// Adds the line that `write` appends to the buffer it is given; `key` is its partition key, or
    /// `None` for a fresh one each record.
    pub fn add(
        &mut self,
        key: Option<&str>,
        events: u64,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Added {
        let carried = self.tail.len();
        write(&mut self.tail);
        let longest = self.limits.longest_line(key.map_or(16, str::len));
        if self.tail.len() - carried > longest {
            self.tail.truncate(carried);
            return Added::TooLong(longest);
        }
        self.wrap(carried);
        let length = self.tail.len() - carried;
        if !self.place(key, carried) {
            return Added::Full;
        }
        if let Some(open) = &mut self.open {
            open.events += events;
            open.bytes += length;
            if let Some(aggregate) = &mut open.aggregate {
                aggregate.add(self.tail.get(self.tail.len() - length..).unwrap_or_default());
            }
        }
        self.payload += length;
        if self.limits.compresses_records() {
            let line = self.tail.split_off(self.tail.len() - length);
            self.gzip.get_or_insert_default().write(&line, &mut self.tail);
        }
        self.encode();
        Added::Yes
    }

    /// Makes of the line in the tail, from `start` on, what stands for it in a record.
    fn wrap(&mut self, start: usize) {
        if self.limits.compression == Compression::Gzip && !self.limits.compresses_records() {
            let line = self.tail.split_off(start);
            let gzip = self.gzip.get_or_insert_default();
            gzip.open(&mut self.tail);
            gzip.write(&line, &mut self.tail);
            gzip.close(&mut self.tail);
        }
        if self.limits.record == RecordFormat::Kpl {
            kpl::frame(&mut self.tail, start);
        }
    }

    /// As [`Request::add`], for the line that is `text` and what `rest` appends. A long text goes
    /// straight into the body: memory holds it once.
    pub fn add_text(
        &mut self,
        key: Option<&str>,
        events: u64,
        text: &[u8],
        rest: impl FnOnce(&mut Vec<u8>),
    ) -> Added {
        let as_it_is =
            self.limits.compression == Compression::None && self.limits.record != RecordFormat::Kpl;
        if text.len() < LONG_TEXT || !as_it_is {
            return self.add(key, events, |out| {
                out.extend_from_slice(text);
                rest(out);
            });
        }
        let mut end = Vec::new();
        rest(&mut end);
        let length = text.len() + end.len();
        let longest = self.limits.longest_line(key.map_or(16, str::len));
        if length > longest {
            return Added::TooLong(longest);
        }
        if !self.fits(key, length) && !self.next_record(key, length) {
            return Added::Full;
        }
        if let Some(open) = &mut self.open {
            open.events += events;
            open.bytes += length;
        }
        self.payload += length;
        let wire = self.limits.wire;
        self.body.reserve_exact(wire.encoded(length) + ROOM_BEHIND);
        // Base64 goes by three bytes: the tail is filled up to that.
        let group = wire.group();
        let missing = (group - self.tail.len() % group) % group;
        let (first, text) = text.split_at(missing.min(text.len()));
        self.tail.extend_from_slice(first);
        wire.append(&self.tail, &mut self.body);
        self.tail.clear();
        let whole = text.len() / group * group;
        let (text, last) = text.split_at(whole);
        for piece in text.chunks(ENCODE_STEP) {
            wire.append(piece, &mut self.body);
            self.hash_open();
        }
        self.tail.extend_from_slice(last);
        self.tail.extend_from_slice(&end);
        Added::Yes
    }

    /// Finds a record for the line that stands in the tail behind `carried` bytes of the open
    /// record. Without room it takes the line away.
    fn place(&mut self, key: Option<&str>, carried: usize) -> bool {
        let length = self.tail.len() - carried;
        if self.fits(key, length) {
            return true;
        }
        // The line, which may have megabytes, is moved and not copied; what it is put behind has
        // some bytes.
        let open_tail: Vec<u8> = self.tail.drain(..carried).collect();
        let mut line = std::mem::replace(&mut self.tail, open_tail);
        if !self.next_record(key, length) {
            return false;
        }
        line.splice(0..0, self.tail.drain(..));
        self.tail = line;
        true
    }

    /// Whether the open record takes a line of that key and length.
    fn fits(&self, key: Option<&str>, length: usize) -> bool {
        let Some(open) = &self.open else { return false };
        let same = self.limits.record != RecordFormat::Event
            && key.map_or(open.any_key, |key| is_same(open.key.as_bytes(), key.as_bytes()));
        let grown = open.bytes + length;
        let fits = if self.limits.compresses_records() {
            let (most, others) = (self.limits.at_worst(grown), self.payload - open.bytes);
            most <= self.limits.record_bytes
                && grown <= self.limits.request_bytes
                && (self.records.is_empty() || others + most <= self.limits.request_bytes)
        } else {
            grown <= self.limits.record_bytes && self.payload + length <= self.limits.request_bytes
        };
        same && fits
    }

    /// Opens a record for a line of that key and length, if the request has room for one.
    fn next_record(&mut self, key: Option<&str>, length: usize) -> bool {
        if !self.takes_another_record(self.limits.opening(key.map_or(16, str::len)) + length) {
            return false;
        }
        self.close();
        self.open_record(key.map_or_else(random::hex16, str::to_owned), key.is_none());
        true
    }

    /// Whether there is room for one more record, of `bytes` at first.
    fn takes_another_record(&mut self, mut bytes: usize) -> bool {
        let most = self.limits.request_bytes;
        if self.limits.compresses_records() {
            // Only now its size shows. Another one is worth beginning while it can grow by the half
            // of a request.
            self.close();
            if self.payload > most / 2 && self.events() > 0 {
                return false;
            }
            bytes = self.limits.at_worst(bytes);
        }
        let records = self.len();
        records == 0
            || (records < MAX_RECORDS && (self.payload + bytes <= most || self.introduces(bytes)))
    }

    /// Whether there is room for so many bytes behind the extension's own events, while there is
    /// nothing else: what they speak of goes with them wherever it can, so that they cannot get
    /// lost alone.
    fn introduces(&self, bytes: usize) -> bool {
        self.events() == 0 && self.payload + bytes <= INTRODUCED_BYTES
    }

    fn open_record(&mut self, key: String, any_key: bool) {
        let start = self.begin_record();
        let bytes = self.limits.opening(key.len());
        self.payload += bytes;
        let aggregate = (self.limits.record == RecordFormat::Kpl)
            .then(|| Aggregate::open(&key, &mut self.tail));
        if self.limits.compresses_records() {
            self.gzip.get_or_insert_default().open(&mut self.tail);
        }
        self.open = Some(Open { start, bytes, key, any_key, aggregate, events: 0 });
    }

    /// Begins another record in the body, and says where.
    fn begin_record(&mut self) -> usize {
        let wire = self.limits.wire;
        if !self.records.is_empty() {
            self.body.extend_from_slice(wire.separator());
        }
        let start = self.body.len();
        wire.open(&mut self.body);
        start
    }

    /// Encodes whole groups of bytes of the tail, once it is worth it.
    fn encode(&mut self) {
        if self.tail.len() < ENCODE_STEP {
            return;
        }
        let group = self.limits.wire.group();
        let whole = self.tail.len() / group * group;
        self.limits.wire.append(self.tail.get(..whole).unwrap_or_default(), &mut self.body);
        self.tail.drain(..whole);
        self.hash_open();
    }

    /// Hashes what is new while a record is open. In CBOR that waits for the end: the length of the
    /// record's data is still to come.
    fn hash_open(&mut self) {
        if self.limits.wire == Wire::Json {
            self.hash();
        }
    }

    fn hash(&mut self) {
        self.hasher.update(self.body.get(self.hashed..).unwrap_or_default());
        self.hashed = self.body.len();
    }

    fn close(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        if let Some(aggregate) = open.aggregate {
            aggregate.close(&mut self.tail);
        }
        if let Some(gzip) = self.gzip.as_mut().filter(|_| self.limits.compresses_records()) {
            gzip.close(&mut self.tail);
            let encoded = self.limits.wire.data_length(open.start, &self.body);
            let bytes = encoded + self.tail.len() + open.key.len();
            self.payload = self.payload - open.bytes + bytes;
            open.bytes = bytes;
        }
        let wire = self.limits.wire;
        wire.append(&self.tail, &mut self.body);
        self.tail.clear();
        wire.close(open.start, &open.key, &mut self.body);
        self.records.push(Record {
            range: open.start..self.body.len(),
            events: open.events,
            bytes: open.bytes,
        });
    }

    /// Ends the body and gives its SHA-256 in hex. No line can be added after that;
    /// [`Request::keep`] opens it again for another end.
    pub fn finish(&mut self, stream: &Stream) -> String {
        if let Some(hash) = &self.finished {
            return hash.clone();
        }
        self.close();
        self.gzip = None;
        self.body.extend_from_slice(&self.limits.wire.ending(stream));
        self.hash();
        let hash = hex(&self.hasher.finalize_reset());
        self.finished = Some(hash.clone());
        hash
    }

    /// The form that it has.
    #[must_use]
    pub fn wire(&self) -> Wire {
        self.limits.wire
    }

    /// Closes the open record and lets the buffers go that filling it took: for a request that
    /// waits.
    pub fn seal(&mut self) {
        self.close();
        self.gzip = None;
        self.tail = Vec::new();
    }

    /// Hashes all of a sealed request but its end: the thread that fills requests does it, so that
    /// the one that sends them has less to do.
    pub fn hash_ahead(&mut self) {
        self.hash();
    }

    /// What it costs in memory, in bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        let open = self.open.as_ref().map_or(0, |open| {
            open.key.len() + open.aggregate.as_ref().map_or(0, |_| size_of::<Aggregate>())
        });
        let gzip = self.gzip.as_ref().map_or(0, |_| gzip::STATE_BYTES);
        self.body.capacity()
            + self.tail.capacity()
            + self.records.capacity() * size_of::<Record>()
            + open
            + gzip
    }

    /// Gives back what its buffer has beyond its body: it may wait for long.
    pub fn shrink(&mut self) {
        // With room for the end of the body, which is written anew when records were taken out.
        self.body.shrink_to(self.body.len() + 1024);
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

    /// Bytes of data and keys.
    #[must_use]
    pub fn payload(&self) -> usize {
        self.payload
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
        self.records.iter().map(|r| r.events).sum::<u64>()
            + self.open.as_ref().map_or(0, |o| o.events)
    }

    /// Events and decoded bytes of one record.
    #[must_use]
    pub fn record(&self, index: usize) -> (u64, u64) {
        self.records.get(index).map_or((0, 0), |r| (r.events, r.bytes as u64))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |hex, byte| hex + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use base64_simd::STANDARD;

    use super::*;

    pub(super) const LIMITS: Limits = Limits {
        record_bytes: 1000,
        request_bytes: 10_000,
        record: RecordFormat::Lines,
        compression: Compression::None,
        wire: Wire::Json,
    };

    pub(super) fn stream() -> Stream {
        Stream::Name("telemetry".to_owned())
    }

    /// Partition key and data of each record of a finished body, parsed and decoded by other means
    /// than the ones that made it.
    fn records(request: &Request) -> Vec<(String, Vec<u8>)> {
        if request.wire() == Wire::Cbor {
            return records_of_cbor(request.body());
        }
        let value: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
        assert_eq!(value["StreamName"], "telemetry");
        let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
        let records = value["Records"].as_array().unwrap().iter();
        records
            .map(|r| (text(&r["PartitionKey"]), STANDARD.decode_to_vec(text(&r["Data"])).unwrap()))
            .collect()
    }

    fn records_of_cbor(body: &[u8]) -> Vec<(String, Vec<u8>)> {
        let members = |value: ciborium::Value, names: [&str; 2]| {
            let members: Vec<_> = value.into_map().unwrap();
            assert_eq!(
                members.iter().map(|(name, _)| name.as_text().unwrap()).collect::<Vec<_>>(),
                names
            );
            let [first, second]: [_; 2] = members.try_into().unwrap();
            (first.1, second.1)
        };
        let whole = ciborium::from_reader(body).unwrap();
        let (list, name) = members(whole, ["Records", "StreamName"]);
        assert_eq!(name.as_text(), Some("telemetry"));
        let records = list.into_array().unwrap().into_iter();
        records
            .map(|record| {
                let (data, key) = members(record, ["Data", "PartitionKey"]);
                (key.into_text().unwrap(), data.into_bytes().unwrap())
            })
            .collect()
    }

    pub(super) fn read(request: &Request) -> Vec<(String, String)> {
        let text = |(key, data)| (key, String::from_utf8(data).unwrap());
        records(request).into_iter().map(text).collect()
    }

    pub(super) fn add(request: &mut Request, key: Option<&str>, line: &str) -> Added {
        request.add(key, 1, |out| out.extend_from_slice(line.as_bytes()))
    }

    pub(super) fn sha256(bytes: &[u8]) -> String {
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
        assert_eq!(
            records.iter().map(|(_, data)| data.lines().count()).collect::<Vec<_>>(),
            [8, 8, 4]
        );
        assert_eq!(
            records.iter().map(|(_, data)| data.as_str()).collect::<String>(),
            lines.concat()
        );
        assert_eq!(request.events(), 20);
    }

    #[test]
    fn a_full_request_keeps_what_it_has() {
        let mut request = Request::new(Limits { request_bytes: 2000, ..LIMITS });
        let line = format!("{}\n", "x".repeat(499));
        let taken =
            (0..10).take_while(|_| add(&mut request, Some("k"), &line) == Added::Yes).count();
        // A record of 1000 holds one line of 500 and a key of 1; three of those fit into 2000.
        assert_eq!(taken, 3);
        request.finish(&stream());
        assert_eq!(read(&request).len(), 3);
    }

    #[test]
    fn no_more_than_500_records() {
        let mut request = Request::new(Limits { record: RecordFormat::Event, ..LIMITS });
        let taken =
            (0..600).take_while(|_| add(&mut request, Some("k"), "x\n") == Added::Yes).count();
        assert_eq!(taken, MAX_RECORDS);
    }

    #[test]
    fn one_record_may_need_more_than_the_request_limit() {
        let mut request = Request::new(Limits { record_bytes: 50_000, ..LIMITS });
        assert_eq!(add(&mut request, Some("k"), &"x".repeat(40_000)), Added::Yes);
        assert_eq!(add(&mut request, Some("k"), "x"), Added::Full);
        assert_eq!(
            add(&mut Request::new(LIMITS), Some("key"), &"x".repeat(998)),
            Added::TooLong(997)
        );
    }

    #[test]
    fn another_key_is_another_record_and_random_keys_differ() {
        let mut request = Request::new(LIMITS);
        for key in ["a", "a", "b", "a"] {
            add(&mut request, Some(key), "line\n");
        }
        request.finish(&stream());
        let records = read(&request);
        assert_eq!(
            records.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(),
            ["a", "b", "a"]
        );
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

    /// Every form, with lines of every size around every limit: sizes as counted, limits held,
    /// lines as they went in.
    #[test]
    fn every_form_keeps_to_its_limits_and_comes_back() {
        use {Compression::Gzip, RecordFormat::Event, RecordFormat::Kpl, RecordFormat::Lines};
        let forms = [Lines, Event, Kpl]
            .into_iter()
            .flat_map(|record| [Compression::None, Gzip].map(|compression| (record, compression)))
            .flat_map(|form| [Wire::Json, Wire::Cbor].map(|wire| (form, wire)));
        for (((record, compression), wire), record_bytes) in
            forms.flat_map(|form| [1024, 5000, 300_000].map(|bytes| (form, bytes)))
        {
            let limits = Limits { record_bytes, request_bytes: 100_000, record, compression, wire };
            let longest = limits.longest_line(3);
            let mut noise = 7_u64;
            let mut line = |length: usize| -> Vec<u8> {
                let next = || {
                    noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    noise.to_le_bytes()[5]
                };
                std::iter::repeat_with(next).take(length).collect()
            };
            let sizes = (0..600).map(|n| n * 3).chain([0, longest - 1, longest]);
            let (mut sent, mut received, mut request) =
                (Vec::new(), Vec::new(), Request::new(limits));
            let mut finish = |request: &mut Request| {
                let hash = request.finish(&stream());
                assert_eq!(hash, sha256(request.body()));
                assert_eq!(Wire::of(request.body()), wire);
                let mut total = 0;
                for (index, (_, data)) in records(request).into_iter().enumerate() {
                    assert_eq!(
                        request.record(index).1,
                        data.len() as u64 + 3,
                        "{record:?} {compression:?}"
                    );
                    assert!(
                        data.len() + 3 <= record_bytes,
                        "{record:?} {compression:?}: {}",
                        data.len()
                    );
                    total += data.len() + 3;
                }
                assert_eq!(request.payload, total);
                assert!(
                    total <= 100_000 || request.len() == 1,
                    "{record:?} {compression:?}: {total}"
                );
                received.extend(request.data().flatten());
            };
            for size in sizes {
                let line = line(size.min(longest));
                let add = |request: &mut Request| {
                    request.add(Some("key"), 1, |out| out.extend_from_slice(&line))
                };
                let mut added = add(&mut request);
                if added == Added::Full {
                    finish(&mut request);
                    request = Request::new(limits);
                    added = add(&mut request);
                }
                assert_eq!(added, Added::Yes, "{record:?} {compression:?} {size}");
                sent.extend_from_slice(&line);
            }
            assert_eq!(
                request.add(Some("key"), 1, |out| out.resize(out.len() + longest + 1, b'x')),
                Added::TooLong(longest)
            );
            finish(&mut request);
            assert!(sent == received, "{record:?} {compression:?} {record_bytes}");
        }
    }

    #[test]
    fn what_shrinks_fills_a_request_with_more() {
        let limits = Limits {
            request_bytes: 100_000,
            record_bytes: 100_000,
            compression: Compression::Gzip,
            ..LIMITS
        };
        let mut request = Request::new(limits);
        let line = format!("{}\n", "telemetry ".repeat(100));
        let lines = (0..100_000)
            .take_while(|_| add(&mut request, Some("key"), &line) == Added::Yes)
            .count();
        assert!(lines > 5000, "{lines}");
        request.finish(&stream());
        assert!(
            request.payload <= 100_000 && request.len() < 200,
            "{} in {}",
            request.payload,
            request.len()
        );
    }

    /// With large records a request had up to half as much again as it may have.
    #[test]
    fn what_does_not_shrink_keeps_to_the_limit_of_a_request() {
        let limits = Limits {
            request_bytes: 100_000,
            record_bytes: 200_000,
            compression: Compression::Gzip,
            ..LIMITS
        };
        let mut noise = 7_u64;
        let mut line = |length: usize| -> Vec<u8> {
            let next = || {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                noise.to_le_bytes()[5]
            };
            std::iter::repeat_with(next).take(length).collect()
        };
        for lines in [
            &[("a", 45_000), ("b", 90_000)][..],
            &[("a", 45_000), ("b", 40_000), ("b", 40_000), ("b", 40_000)],
            &[("a", 150_000)],
        ] {
            let mut request = Request::new(limits);
            for (key, length) in lines {
                let line = line(*length);
                while request.add(Some(key), 1, |out| out.extend_from_slice(&line)) == Added::Full {
                    request.finish(&stream());
                    assert!(request.payload <= 100_000 || request.len() == 1, "{lines:?}");
                    request = Request::new(limits);
                }
            }
            request.finish(&stream());
            assert!(request.payload <= 100_000 || request.len() == 1, "{lines:?}");
        }
    }

    #[test]
    fn a_long_text_gives_the_same_body_and_is_held_once() {
        for (record, record_bytes, wire) in [
            (RecordFormat::Lines, 1 << 20, Wire::Json),
            (RecordFormat::Event, 1 << 20, Wire::Json),
            (RecordFormat::Lines, 10 << 20, Wire::Json),
            (RecordFormat::Lines, 1 << 20, Wire::Cbor),
            (RecordFormat::Event, 10 << 20, Wire::Cbor),
        ] {
            let limits = Limits {
                record_bytes,
                request_bytes: 1 << 20,
                record,
                compression: Compression::None,
                wire,
            };
            let texts: Vec<Vec<u8>> =
                [5, LONG_TEXT - 1, LONG_TEXT, LONG_TEXT + 1, 7, 200_001, 200_002, 3]
                    .map(|length| vec![b'x'; length])
                    .into();
            let (mut by_parts, mut whole) = (Request::new(limits), Request::new(limits));
            for text in &texts {
                assert_eq!(
                    by_parts.add_text(Some("k"), 1, text, |out| out.extend_from_slice(b"end\n")),
                    Added::Yes
                );
                whole.add(Some("k"), 1, |out| {
                    out.extend_from_slice(text);
                    out.extend_from_slice(b"end\n");
                });
            }
            assert_eq!(by_parts.finish(&stream()), whole.finish(&stream()));
            assert_eq!(by_parts.body(), whole.body());
            assert_eq!(by_parts.events(), 8);
            assert_eq!(
                by_parts.add_text(Some("k"), 1, &vec![b'x'; record_bytes], |_| ()),
                Added::TooLong(record_bytes - 1)
            );
        }
        let mut request = Request::new(Limits {
            record_bytes: 10 << 20,
            request_bytes: 1 << 20,
            record: RecordFormat::Lines,
            compression: Compression::None,
            wire: Wire::Json,
        });
        let text = vec![b'x'; 8 << 20];
        request.add_text(Some("k"), 1, &text, |out| out.push(b'\n'));
        request.seal();
        assert!(request.cost() < text.len() / 3 * 4 + 64 * 1024, "{}", request.cost());
        assert_eq!(request.add_text(Some("k"), 1, &text, |_| ()), Added::Full);
    }
}
