//! What the endpoint keeps: every request, every stored record, and counts alone for the benches.

use std::borrow::Cow;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Instant, SystemTime};

use super::faults::Plan;
use super::put_records::{self, Record, RecordOutcome};
use super::shard_limit::ShardLimit;
use super::unpack::{StoredEvent, unpack};
use crate::http::Request;

/// One request as the endpoint saw it.
#[derive(Clone, Debug)]
pub struct Put {
    /// Rises by one, from 1.
    pub number: u64,
    /// When its first byte came.
    pub at: Instant,
    /// The same by the wall clock (the true one, not the moved one).
    pub time: SystemTime,
    /// Which connection it came on; two requests with the same number shared one.
    pub connection: u64,
    /// Whether it came over TLS.
    pub tls: bool,
    /// As sent.
    pub headers: Vec<(String, String)>,
    /// Bytes of the body, base64 and all.
    pub body_bytes: usize,
    /// The body itself, where [`KinesisBuilder::keep_bodies`](super::KinesisBuilder::keep_bodies) asks for it.
    pub body: Option<Vec<u8>>,
    /// Its records, stored or not, where `keep_bodies` asks for them.
    pub sent: Vec<StoredRecord>,
    /// Records in it; 0 when the body could not be read.
    pub records: usize,
    /// Line ends in the data of all of them: the events, when they are packed as lines and not compressed.
    pub lines: usize,
    /// Decoded data and keys, as Kinesis counts them.
    pub decoded_bytes: usize,
    /// The largest of its records, counted likewise.
    pub largest_record: usize,
    /// The answer's status; `None` when none was sent.
    pub status: Option<u16>,
    /// The error's name, when the whole request was refused.
    pub error: Option<String>,
    /// One for each record, when the request was taken.
    pub outcomes: Vec<RecordOutcome>,
    /// How much of the answer the client got to see.
    pub answered: Answered,
}

/// How much of an answer reached the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// All of it.
    Whole,
    /// All of it, but not what it should be.
    Garbled,
    /// Some bytes.
    Partial,
    /// None: closed after storing.
    Cut,
    /// None: reset before storing.
    Reset,
    /// None: left hanging.
    Never,
}

impl Put {
    pub(crate) fn of(request: &Request, connection: u64, tls: bool, records: &[Record]) -> Self {
        Self {
            number: 0,
            at: request.started,
            time: SystemTime::now(),
            connection,
            tls,
            headers: request.headers.clone(),
            body_bytes: request.body.len(),
            body: None,
            sent: Vec::new(),
            records: records.len(),
            lines: records
                .iter()
                .map(|record| memchr::memchr_iter(b'\n', &record.data).count())
                .sum(),
            decoded_bytes: records.iter().map(Record::size).sum(),
            largest_record: records.iter().map(Record::size).max().unwrap_or(0),
            status: None,
            error: None,
            outcomes: Vec::new(),
            answered: Answered::Whole,
        }
    }

    /// Keeps what came: the body, and the records in it.
    pub(crate) fn keep(&mut self, request: &Request, records: &[Record]) {
        self.body = Some(request.body.clone());
        let sent = |record: &Record| StoredRecord {
            put: self.number,
            at: self.at,
            shard: record.shard,
            partition_key: record.key.clone(),
            sequence_number: String::new(),
            data: record.data.clone(),
        };
        self.sent = records.iter().map(sent).collect();
    }

    /// The events in it, stored or not, where `keep_bodies` asks for them.
    #[must_use]
    pub fn events(&self) -> Vec<StoredEvent> {
        unpack(&self.sent).0
    }

    /// How many of its records were stored.
    #[must_use]
    pub fn stored(&self) -> usize {
        self.outcomes.iter().filter(|outcome| matches!(outcome, RecordOutcome::Stored(_))).count()
    }

    /// How many of its records failed inside a 200.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.outcomes.len() - self.stored()
    }

    /// The first header of that name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// One record on the stream.
#[derive(Clone, Debug)]
pub struct StoredRecord {
    /// The [`Put::number`] of the request that brought it.
    pub put: u64,
    /// When it was stored.
    pub at: Instant,
    /// Which shard its key belongs to.
    pub shard: usize,
    /// As sent.
    pub partition_key: String,
    /// As answered.
    pub sequence_number: String,
    /// Decoded.
    pub data: Vec<u8>,
}

impl StoredRecord {
    /// The events in it, unpacked.
    #[must_use]
    pub fn events(&self) -> Vec<StoredEvent> {
        unpack(std::slice::from_ref(self)).0
    }
}

/// What a count-only endpoint knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Requests.
    pub requests: u64,
    /// Records in them.
    pub records: u64,
    /// Events in those: places where `{"time":"` stands.
    pub events: u64,
    /// Bytes of the bodies, base64 and all.
    pub bytes: u64,
}

pub(crate) struct Store {
    pub(crate) puts: Vec<Put>,
    pub(crate) records: Vec<StoredRecord>,
    pub(crate) counted: Counted,
    watchers: Vec<Sender<StoredRecord>>,
    started: u64,
    sequence: u64,
    shard_limit: Option<ShardLimit>,
}

impl Store {
    pub(crate) fn new(shard_limit: Option<ShardLimit>) -> Self {
        let (puts, records, watchers) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            puts,
            records,
            counted: Counted::default(),
            watchers,
            started: 0,
            sequence: 0,
            shard_limit,
        }
    }

    /// Whoever holds the receiver sees every record that is stored from now on.
    pub(crate) fn watch(&mut self) -> Receiver<StoredRecord> {
        let (sender, receiver) = mpsc::channel();
        self.watchers.push(sender);
        receiver
    }

    /// Stores what the plan lets through, and returns the body of the answer.
    pub(crate) fn put(&mut self, records: &[Record], plan: &Plan, put: &mut Put) -> Vec<u8> {
        self.started += 1;
        put.number = self.started;
        let at = Instant::now();
        let (sequence, limit) = (&mut self.sequence, &mut self.shard_limit);
        let outcomes = put_records::outcomes(records, plan, put.number, |record| {
            let shard = record.shard;
            if limit.as_mut().is_some_and(|limit| !limit.takes(shard, record.size(), at)) {
                return None;
            }
            *sequence += 1;
            // 56 digits that rise within a shard, as the service's do.
            Some(format!("4965{shard:08}{:026}{:018}", 3_000_000_000_000_000_000_u64, *sequence))
        });
        for (record, outcome) in records.iter().zip(&outcomes) {
            let RecordOutcome::Stored(number) = outcome else { continue };
            let stored = StoredRecord {
                put: put.number,
                at,
                shard: record.shard,
                partition_key: record.key.clone(),
                sequence_number: number.clone(),
                data: record.data.clone(),
            };
            self.watchers.retain(|watcher| watcher.send(stored.clone()).is_ok());
            self.records.push(stored);
        }
        let body = put_records::answer(records, &outcomes, plan);
        put.outcomes = outcomes;
        body
    }

    pub(crate) fn log(&mut self, mut put: Put) {
        if put.number == 0 {
            self.started += 1;
            put.number = self.started;
        }
        self.puts.push(put);
    }

    /// Counts a body without keeping it, and returns a good answer for as many records as it holds.
    pub(crate) fn count(&mut self, body: &[u8]) -> Vec<u8> {
        let mut records = 0_u64;
        let (mut rest, is_cbor) = (body, body.first() != Some(&b'{'));
        while let Some((data, behind)) = next_data(rest, is_cbor) {
            rest = behind;
            records += 1;
            // Gzip and aggregates are unpacked; what is text is counted as it is, as this is on the clock of the benches.
            let data = match data.first() {
                Some(0x1f | 0xf3) => Cow::Owned(super::unpack::text(&data)),
                _ => data,
            };
            self.counted.events += memchr::memmem::find_iter(&data, br#"{"time":""#).count() as u64;
        }
        self.counted.requests += 1;
        self.counted.records += records;
        self.counted.bytes += body.len() as u64;
        let entry = r#"{"SequenceNumber":"49650000000000000000000000000000000000000000000000000001","ShardId":"shardId-000000000000"}"#;
        let entries = vec![entry; usize::try_from(records).unwrap_or(0)].join(",");
        format!(r#"{{"FailedRecordCount":0,"Records":[{entries}]}}"#).into_bytes()
    }
}

/// The data of the next record in a body, and what follows.
fn next_data(body: &[u8], is_cbor: bool) -> Option<(Cow<'_, [u8]>, &[u8])> {
    if is_cbor {
        const DATA: &[u8] = b"\x64Data\x5a";
        let start = memchr::memmem::find(body, DATA)? + DATA.len();
        let (length, rest) = body[start..].split_first_chunk()?;
        let (data, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        return Some((Cow::Borrowed(data), rest));
    }
    // Python's JSON has a blank behind a colon.
    let colon = memchr::memmem::find(body, br#""Data":"#)? + 7;
    let start = colon + memchr::memchr(b'"', &body[colon..])? + 1;
    let end = start + memchr::memchr(b'"', &body[start..])?;
    Some((Cow::Owned(base64_simd::STANDARD.decode_to_vec(&body[start..end]).ok()?), &body[end..]))
}
