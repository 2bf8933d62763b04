//! The packer: events -> lines -> a request. The sender has one, and so has the way into the spool.

use std::io::Write as _;
use std::sync::Arc;

use crate::clock::EpochMs;
use crate::config::{self, Config};
use crate::event::Batch;
use crate::kinesis::batch::{Added, Limits, Request};
use crate::kinesis::record::Envelope;
use crate::ledger::Ledger;
use crate::log;
use crate::sandbox::Sandbox;

/// Data in a request, for the memory's sake: with base64 its body takes a third more, beside the events that wait.
pub const REQUEST_BYTES: usize = 1024 * 1024;

/// See the module's page.
#[derive(Debug)]
pub struct Packer {
    envelope: Envelope,
    sandbox: Arc<Sandbox>,
    limits: Limits,
    partition_key: config::PartitionKey,
    ledger: Arc<Ledger>,
    /// `FALLBACK=log`
    print_lost: bool,
    /// The key of the event being packed; kept to save an allocation each.
    key: String,
}

impl Packer {
    /// As the settings say.
    #[must_use]
    pub fn new(config: &Config, sandbox: Arc<Sandbox>, ledger: Arc<Ledger>) -> Packer {
        Packer {
            envelope: Envelope::new(config.envelope, Arc::clone(&sandbox)),
            sandbox,
            limits: Limits {
                record_bytes: config.record_bytes,
                request_bytes: REQUEST_BYTES,
                record: config.record,
                compression: config.compression,
            },
            partition_key: config.partition_key,
            ledger,
            print_lost: config.fallback == config::Fallback::Log,
            key: String::new(),
        }
    }

    /// The sizes to keep to.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// About as many bytes as this batch will have once it is packed.
    #[must_use]
    pub fn packed_bytes(&self, batch: &Batch) -> usize {
        let lines = batch.bytes().len() + batch.remaining().len() * self.envelope.added_bytes();
        Limits { request_bytes: lines, ..self.limits }.body_bytes()
    }

    /// The same of its first request.
    #[must_use]
    pub fn body_bytes(&self, batch: &Batch) -> usize {
        self.packed_bytes(batch).min(self.limits.body_bytes())
    }

    /// What is known of the sandbox.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// `FALLBACK=log`
    #[must_use]
    pub fn prints_lost(&self) -> bool {
        self.print_lost
    }

    /// Packs as many of the batch's events as fit, and takes them off the batch. Says how many of them no request can hold: they are lost.
    pub fn pack(&mut self, request: &mut Request, batch: &mut Batch) -> u64 {
        let mut unfit = 0;
        let mut taken = 0;
        self.envelope.update();
        let bytes = batch.bytes();
        for event in batch.remaining() {
            self.key.clear();
            let key = self.envelope.partition_key(self.partition_key, event, bytes);
            self.key.push_str(key.unwrap_or_default());
            let key = key.is_some().then_some(self.key.as_str());
            let envelope = &mut self.envelope;
            let mut added = request.add(key, 1, |out| envelope.line(event, bytes, out));
            if let Added::TooLong(limit) = added {
                added = request.add(key, 1, |out| envelope.cut_line(event, bytes, limit, out));
                self.ledger.truncated.add(u64::from(added == Added::Yes));
            }
            match added {
                Added::Yes => {}
                Added::Full => break,
                Added::TooLong(_) => {
                    unfit += 1;
                    log::error!("envelope", "KINESIS_TELEMETRY_RECORD_BYTES is too small for an event's envelope; such events are dropped");
                }
            }
            taken += 1;
        }
        batch.advance(taken);
        unfit
    }

    /// One of the extension's own events. It counts as no event: the ledger is about Lambda's.
    pub fn own_event(&mut self, request: &mut Request, kind: &str, record: &str, name: &str, now: EpochMs) {
        let key = self.envelope.own_partition_key().to_owned();
        let envelope = &mut self.envelope;
        let added = request.add(Some(&key), 0, |out| envelope.own_line(kind, record, name, now, out));
        if matches!(added, Added::TooLong(_)) {
            log::error!("own-event", "KINESIS_TELEMETRY_RECORD_BYTES is too small for a {kind} event; it is not sent");
        }
    }

    /// The events that say what the sandbox is, one for each of its ids that has none yet: `introduced` of them have.
    pub fn introduce(&mut self, request: &mut Request, introduced: u16, restores: u16, now: EpochMs) {
        let key = self.envelope.own_partition_key().to_owned();
        for id in introduced..=restores {
            let envelope = &mut self.envelope;
            if matches!(request.add(Some(&key), 0, |out| envelope.sandbox_line(id, now, out)), Added::TooLong(_)) {
                log::error!("own-event", "KINESIS_TELEMETRY_RECORD_BYTES is too small for a sandbox event; it is not sent");
            }
        }
    }

    /// The events of a batch are lost for good: `FALLBACK=log` prints them.
    pub fn lose(&mut self, batch: &Batch) {
        if !self.print_lost {
            return;
        }
        let mut lines = Vec::new();
        self.envelope.update();
        for event in batch.remaining() {
            self.envelope.line(event, batch.bytes(), &mut lines);
        }
        print(&lines);
    }

    /// As [`Packer::lose`], for events that are packed already.
    pub fn lose_request(&self, request: &Request) {
        if self.print_lost {
            request.data().for_each(|lines| print(&lines));
        }
    }
}

/// One JSON line each, so that they end in CloudWatch Logs. A closed stdout is nobody's problem.
pub fn print(lines: &[u8]) {
    let _ = std::io::stdout().write_all(lines);
}
