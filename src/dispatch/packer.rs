//! The packer: events -> lines -> a request. The core has one, and so has the way in. Pure but for
//! the sandbox's facts and the ledger's counts.
//!
//! With `ENVELOPE=slim`, each request that is begun before Kinesis has taken the sandbox event
//! begins with that event. So it comes first, whichever request is sent first: some may go to disk,
//! be evicted there, or be found by another process. Kinesis may get it more than once. While
//! Kinesis refuses that event and nothing else, it waits alone, and what is sent meanwhile begins
//! without it.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::Settings;
use crate::clock::EpochMs;
use crate::event::Batch;
use crate::kinesis::RecordSettings;
use crate::kinesis::line::{Envelope, LineWriter, PartitionKey};
use crate::kinesis::record::Limits;
use crate::kinesis::request::{Added, Request};
use crate::kinesis::wire::Wire;
use crate::ledger::Ledger;
use crate::sandbox::Sandbox;

/// Data in a request, for the memory's sake: with base64 its body takes a third more, beside the
/// events that wait. AWS takes 10 MiB since 2025; older endpoints refuse more than 5 MiB, some
/// already a few bytes below it.
const REQUEST_BYTES: usize = 1024 * 1024;

/// See the module's page.
#[derive(Debug)]
pub struct Packer {
    writer: LineWriter,
    sandbox: Arc<Sandbox>,
    limits: Limits,
    partition_key: PartitionKey,
    ledger: Arc<Ledger>,
    /// `FALLBACK=log`
    prints_lost: bool,
    /// `ENVELOPE=slim`
    is_slim: bool,
    /// The last request had room for the sandbox event alone: the next one follows it, and begins
    /// without.
    follows_introduction: bool,
    /// The key of the event being packed; kept to save an allocation each.
    key: String,
    /// `FALLBACK=log`: the lines of events that no request can hold.
    oversized: Vec<u8>,
}

impl Packer {
    /// As the settings say.
    #[must_use]
    pub fn new(
        settings: &Settings,
        records: &RecordSettings,
        sandbox: Arc<Sandbox>,
        ledger: Arc<Ledger>,
    ) -> Packer {
        Packer {
            writer: LineWriter::new(records.envelope, Arc::clone(&sandbox)),
            sandbox,
            limits: Limits {
                record_bytes: records.max_bytes,
                request_bytes: REQUEST_BYTES.min(settings.queue_bytes / 4),
                record: records.format,
                compression: records.compression,
                wire: records.wire,
            },
            partition_key: records.partition_key,
            ledger,
            prints_lost: settings.print_lost,
            is_slim: records.envelope == Envelope::Slim,
            follows_introduction: false,
            key: String::new(),
            oversized: Vec::new(),
        }
    }

    /// The sizes to keep to.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let wire = if self.sandbox.refuses_cbor() { Wire::Json } else { self.limits.wire };
        Limits { wire, ..self.limits }
    }

    /// What one request takes: the dispatcher sends as soon as so much waits.
    #[must_use]
    pub fn request_bytes(&self) -> usize {
        self.limits.request_bytes
    }

    /// About as many bytes as this batch will have once it is packed.
    #[must_use]
    pub fn packed_bytes(&self, batch: &Batch) -> usize {
        let lines = batch.bytes().len() + batch.remaining().len() * self.writer.added_bytes();
        Limits { request_bytes: lines, ..self.limits() }.body_bytes()
    }

    /// The same of its first request.
    #[must_use]
    pub fn body_bytes(&self, batch: &Batch) -> usize {
        self.packed_bytes(batch).min(self.limits().body_bytes())
    }

    /// What is known of the sandbox.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// `FALLBACK=log`
    #[must_use]
    pub fn prints_lost(&self) -> bool {
        self.prints_lost
    }

    /// Adds the sandbox events that Kinesis has not taken yet, if there are any: what every request
    /// begins with. Those of the ids that are `waiting` come by themselves. `false`: there is no
    /// room for one; all are given up.
    pub fn introduce(&mut self, request: &mut Request, waiting: &[u16], now: EpochMs) -> bool {
        if std::mem::take(&mut self.follows_introduction) || !self.is_introducing() {
            return true;
        }
        let key = self.writer.own_partition_key().to_owned();
        let ids = self.missing_ids();
        let writer = &mut self.writer;
        let fits = ids.clone().filter(|id| !waiting.contains(id)).all(|id| {
            request.add(Some(&key), 0, |out| writer.sandbox_line(id, now, out)) == Added::Yes
        });
        if !fits {
            self.sandbox.introduce(ids.end().saturating_add(1));
        }
        fits
    }

    /// The last of the sandbox events that each request begins with for now, if any.
    #[must_use]
    pub fn introduces(&self) -> Option<u16> {
        self.is_introducing().then(|| self.sandbox.restores())
    }

    /// Whether Kinesis is still to take a sandbox event.
    #[must_use]
    pub fn is_introducing(&self) -> bool {
        self.is_slim && !self.missing_ids().is_empty()
    }

    /// The ids of the sandbox, by the number of restores before each, that Kinesis has no sandbox
    /// event of.
    fn missing_ids(&self) -> RangeInclusive<u16> {
        self.sandbox.introduced()..=self.sandbox.restores()
    }

    /// Those of them whose sandbox event is among these lines.
    pub fn introduced_in(&mut self, lines: &[u8]) -> Vec<u16> {
        let ids = self.missing_ids();
        ids.filter(|id| self.is_slim && self.writer.has_sandbox_line(*id, lines)).collect()
    }

    /// Kinesis has taken a record of these lines, or never will.
    pub fn settle_introductions(&mut self, lines: &[u8]) {
        for id in self.introduced_in(lines) {
            if id == self.sandbox.introduced() {
                self.sandbox.introduce(id.saturating_add(1));
            }
        }
    }

    /// Packs as many of the batch's events as fit, and takes them off the batch. Says how many of
    /// them no request can hold because `RECORD_BYTES` is too small for what the extension adds:
    /// they are lost.
    pub fn pack(&mut self, request: &mut Request, batch: &mut Batch) -> u64 {
        let mut oversized = 0;
        let mut taken = 0;
        self.writer.update();
        let bytes = batch.bytes();
        for event in batch.remaining() {
            self.key.clear();
            let key = self.writer.partition_key(self.partition_key, event, bytes);
            self.key.push_str(key.unwrap_or_default());
            let key = key.is_some().then_some(self.key.as_str());
            let writer = &mut self.writer;
            let mut added = request
                .add_text(key, 1, event.text.of(bytes), |out| writer.line_end(event, bytes, out));
            if let Added::TooLong(limit) = added {
                added = request.add(key, 1, |out| writer.cut_line(event, bytes, limit, out));
                self.ledger.truncated.add(u64::from(added == Added::Yes));
            }
            match added {
                Added::Yes => {}
                Added::Full => break,
                Added::TooLong(_) => {
                    oversized += 1;
                    if self.prints_lost {
                        self.writer.line(event, bytes, &mut self.oversized);
                    }
                }
            }
            taken += 1;
        }
        batch.advance(taken);
        self.follows_introduction = taken == 0 && request.events() == 0 && !request.is_empty();
        oversized
    }

    /// The lines of those that were lost so since this was asked last, for `FALLBACK=log`.
    pub fn take_oversized(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.oversized)
    }

    /// One of the extension's own events. It counts as no event: the ledger is about Lambda's. Says
    /// whether it fits.
    pub fn internal_event(
        &mut self,
        request: &mut Request,
        kind: &str,
        record: &str,
        name: &str,
        now: EpochMs,
    ) -> bool {
        let key = self.writer.own_partition_key().to_owned();
        let writer = &mut self.writer;
        request.add(Some(&key), 0, |out| writer.own_line(kind, record, name, now, out))
            == Added::Yes
    }

    /// The lines of a batch's events, for `FALLBACK=log`.
    #[must_use]
    pub fn lines(&mut self, batch: &Batch) -> Vec<u8> {
        let mut lines = Vec::new();
        self.writer.update();
        for event in batch.remaining() {
            self.writer.line(event, batch.bytes(), &mut lines);
        }
        lines
    }
}
