//! The sender: packs what the queue gives, sends it, retries what failed. Runs on the dispatcher's thread; knows deadlines, not invocations.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::queue::Queue;
use crate::clock::epoch_ms;
use crate::config::{self, Config};
use crate::deadline::Deadline;
use crate::event::Batch;
use crate::kinesis::batch::{Added, Limits, Request};
use crate::kinesis::put_records::{Client, Failure, LEAST_TIME, RecordOutcome, Remedy};
use crate::kinesis::record::{Envelope, LEDGER_EVENT, SANDBOX_EVENT};
use crate::ledger::Ledger;
use crate::log;
use crate::panic;
use crate::random;
use crate::sandbox::Sandbox;

/// Data in a request, for the memory's sake: with base64 its body takes a third more, beside the events that wait.
pub const REQUEST_BYTES: usize = 2 * 1024 * 1024;
/// A ledger event goes with a flush this often.
const LEDGER_EVERY: Duration = Duration::from_secs(300);
/// Pauses before a retry, in milliseconds: the base that doubles, and the bounds when throttled.
const BASE_MS: u64 = 50;
const THROTTLED_MS: (u64, u64) = (100, 500);

/// How a flush ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing waits any more.
    All,
    /// Out of time, but Kinesis takes records.
    Some,
    /// Nothing was taken.
    Nothing,
}

/// A request, and what is known of the times it was sent before.
#[derive(Debug)]
struct Outgoing {
    request: Request,
    sent_before: bool,
    /// Kinesis may have taken it already.
    ambiguous: bool,
}

/// See the module's page.
#[derive(Debug)]
pub struct Sender {
    queue: Arc<Queue>,
    ledger: Arc<Ledger>,
    client: Client,
    envelope: Envelope,
    limits: Limits,
    partition_key: config::PartitionKey,
    /// The sandbox event is still to be shipped, before any other.
    to_introduce: bool,
    /// The request on its way; kept over flushes until all of its records are taken or lost.
    outbox: Option<Outgoing>,
    /// Halves of a refused request, to be sent before anything new.
    aside: Vec<Outgoing>,
    ledger_sent: Instant,
    ledgers: u32,
}

impl Sender {
    /// Opens no connection.
    #[must_use]
    pub fn new(config: &Config, sandbox: Arc<Sandbox>, queue: Arc<Queue>, ledger: Arc<Ledger>) -> Sender {
        Sender {
            queue,
            ledger,
            client: Client::new(config.endpoint.clone(), config.stream.clone(), config.keys.clone(), config.ca_bundle.clone()),
            envelope: Envelope::new(config.envelope, sandbox),
            limits: Limits {
                record_bytes: config.record_bytes,
                request_bytes: REQUEST_BYTES,
                many_events: config.record == config::RecordFormat::Lines,
            },
            partition_key: config.partition_key,
            to_introduce: config.envelope == config::Envelope::Slim,
            outbox: None,
            aside: Vec::new(),
            ledger_sent: Instant::now(),
            ledgers: 0,
        }
    }

    /// Sends what waits until nothing does or the time is up.
    pub fn flush(&mut self, deadline: &Deadline) -> Flushed {
        let settled = |ledger: &Ledger| ledger.delivered.get() + ledger.dropped_rejected.get();
        let before = settled(&self.ledger);
        let mut attempt = 0;
        loop {
            if self.outbox.is_none() {
                attempt = 0;
                self.outbox = self.aside.pop().or_else(|| self.pack_with_ledger());
            }
            if self.outbox.is_none() {
                return Flushed::All;
            }
            if deadline.left(Instant::now()) < LEAST_TIME || !self.send(attempt, deadline) {
                return if settled(&self.ledger) > before { Flushed::Some } else { Flushed::Nothing };
            }
            attempt += 1;
        }
    }

    fn pack_with_ledger(&mut self) -> Option<Outgoing> {
        let mut request = self.pack()?;
        if self.ledger_sent.elapsed() >= LEDGER_EVERY {
            self.ledger_sent = Instant::now();
            self.ledgers += 1;
            let record = self.ledger.json(None);
            self.own_event(&mut request, LEDGER_EVENT, &record, &format!("ledger-{}", self.ledgers));
        }
        Some(Outgoing { request, sent_before: false, ambiguous: false })
    }

    /// Sends the outbox once. Says whether it makes sense to go on now; what is not settled stays in the outbox.
    fn send(&mut self, attempt: u32, deadline: &Deadline) -> bool {
        let Some(mut outgoing) = self.outbox.take() else { return true };
        panic::switch("dispatcher");
        let mut answer = self.put(&mut outgoing, deadline);
        if matches!(&answer, Err(failure) if failure.stale) {
            // The pooled connection had died in a freeze: no error, no pause, a fresh one at once.
            answer = self.put(&mut outgoing, deadline);
        }
        match answer {
            Ok(outcomes) => self.settle_records(outgoing, &outcomes, deadline),
            Err(failure) => self.settle_failure(outgoing, &failure, attempt, deadline),
        }
    }

    fn put(&mut self, outgoing: &mut Outgoing, deadline: &Deadline) -> Result<Vec<RecordOutcome>, Failure> {
        let events = outgoing.request.events();
        self.ledger.requests.add(1);
        if outgoing.sent_before {
            self.ledger.retried.add(events);
        }
        if outgoing.ambiguous {
            self.ledger.possible_duplicates.add(events);
        }
        let answer = self.client.put(&mut outgoing.request, deadline);
        outgoing.sent_before = true;
        // Once a record may have been taken, only an answer about it tells otherwise.
        outgoing.ambiguous |= matches!(&answer, Err(failure) if failure.ambiguous);
        answer
    }

    fn settle_records(&mut self, mut outgoing: Outgoing, outcomes: &[RecordOutcome], deadline: &Deadline) -> bool {
        let mut code = None;
        for (index, outcome) in outcomes.iter().enumerate() {
            let (events, bytes) = outgoing.request.record(index);
            match outcome {
                RecordOutcome::Taken => {
                    self.ledger.delivered.add(events);
                    self.ledger.sent_bytes.add(bytes);
                    self.queue.settled(events);
                }
                RecordOutcome::Failed(why) => code = code.or(Some(why)),
            }
        }
        let Some(code) = code else { return true };
        self.ledger.request_error(code);
        log::info!("records", "Kinesis took only a part of a request ({code}); the rest is sent again");
        outgoing.request.keep(|index| outcomes.get(index) != Some(&RecordOutcome::Taken));
        outgoing.ambiguous = false;
        self.outbox = Some(outgoing);
        let throttled = code == "ProvisionedThroughputExceededException";
        self.pause(if throttled { THROTTLED_MS } else { (0, BASE_MS) }, deadline)
    }

    fn settle_failure(&mut self, outgoing: Outgoing, failure: &Failure, attempt: u32, deadline: &Deadline) -> bool {
        self.ledger.request_error(&failure.code);
        if failure.remedy == Remedy::Split {
            self.split(outgoing, failure);
            return true;
        }
        self.outbox = Some(outgoing);
        match failure.remedy {
            Remedy::Person => log::error!("person", "PutRecords failed: {failure}{}", hint(failure)),
            _ => log::warn!("transient", "PutRecords failed and is tried again: {failure}"),
        }
        match failure.remedy {
            Remedy::Throttled => self.pause(THROTTLED_MS, deadline),
            Remedy::Transient => self.pause((0, BASE_MS << attempt.min(6)), deadline),
            Remedy::ClockCorrected => true,
            Remedy::Person | Remedy::Split => false,
        }
    }

    /// One record that Kinesis refuses must not block the others: halve until it stands alone, then count it as lost.
    fn split(&mut self, outgoing: Outgoing, failure: &Failure) {
        if outgoing.request.len() > 1 {
            let (first, second) = outgoing.request.split();
            self.aside.push(Outgoing { request: second, ..outgoing });
            self.outbox = Some(Outgoing { request: first, ..outgoing });
        } else {
            let events = outgoing.request.events();
            self.ledger.dropped_rejected.add(events);
            self.queue.settled(events);
            log::error!("rejected", "Kinesis refuses a record; its {events} events are dropped: {failure}");
        }
    }

    /// Waits for a random part of the range before a retry, if the time allows it; else there is no retry in this flush.
    fn pause(&self, (least, most): (u64, u64), deadline: &Deadline) -> bool {
        let pause = Duration::from_millis(least + random::up_to(most - least));
        if deadline.left(Instant::now()) < pause + LEAST_TIME {
            return false;
        }
        thread::sleep(pause);
        true
    }

    /// The ledger goes in a request of its own, so that it can speak of all others.
    /// Says whether it arrived.
    pub fn send_ledger(&mut self, deadline: &Deadline, reason: &str) -> bool {
        let mut request = Request::new(self.limits);
        let record = self.ledger.json(Some(reason));
        self.own_event(&mut request, LEDGER_EVENT, &record, "ledger");
        while deadline.left(Instant::now()) > LEAST_TIME {
            match self.client.put(&mut request, deadline) {
                Ok(outcomes) if outcomes.iter().all(|outcome| *outcome == RecordOutcome::Taken) => return true,
                Err(failure) if failure.remedy == Remedy::Person => break,
                Ok(_) => self.pause(THROTTLED_MS, deadline),
                Err(_) => self.pause((0, BASE_MS), deadline),
            };
        }
        false
    }

    /// Fills a request with what waits, oldest first; `None` if nothing does.
    fn pack(&mut self) -> Option<Request> {
        let mut request = Request::new(self.limits);
        while let Some((since, mut batch)) = self.queue.take() {
            if std::mem::take(&mut self.to_introduce) {
                self.own_event(&mut request, SANDBOX_EVENT, "{}", "sandbox");
            }
            let taken = self.pack_batch(&mut request, &batch);
            batch.advance(taken);
            if !batch.remaining().is_empty() {
                self.queue.give_back(since, batch);
                break;
            }
        }
        (!request.is_empty()).then_some(request)
    }

    /// Packs as many of the batch's events as fit, and says how many.
    fn pack_batch(&mut self, request: &mut Request, batch: &Batch) -> usize {
        let bytes = batch.bytes();
        self.envelope.update();
        for (index, event) in batch.remaining().iter().enumerate() {
            let key = self.envelope.partition_key(self.partition_key, event, bytes).map(str::to_owned);
            let envelope = &mut self.envelope;
            let mut added = request.add(key.as_deref(), 1, |out| envelope.line(event, bytes, out));
            if let Added::TooLong(limit) = added {
                added = request.add(key.as_deref(), 1, |out| envelope.cut_line(event, bytes, limit, out));
                match added {
                    Added::Yes => self.ledger.truncated.add(1),
                    Added::Full => {}
                    Added::TooLong(_) => {
                        // What the envelope adds is by itself larger than a record may be.
                        self.ledger.dropped_rejected.add(1);
                        self.queue.settled(1);
                        log::error!("envelope", "KINESIS_TELEMETRY_RECORD_BYTES is too small for an event's envelope; it is dropped");
                        continue;
                    }
                }
            }
            if added == Added::Full {
                return index;
            }
        }
        batch.remaining().len()
    }

    /// One of the extension's own events. It counts as no event: the ledger is about Lambda's.
    fn own_event(&mut self, request: &mut Request, kind: &str, record: &str, name: &str) {
        let key = self.envelope.own_partition_key().to_owned();
        let envelope = &mut self.envelope;
        let now = epoch_ms(SystemTime::now());
        request.add(Some(&key), 0, |out| envelope.own_line(kind, record, name, now, out));
    }
}

/// What a person can mend.
fn hint(failure: &Failure) -> &'static str {
    match failure.code.as_str() {
        "AccessDeniedException" => "; the function's role needs kinesis:PutRecords on the stream (and kms:GenerateDataKey with a key of your own)",
        "ResourceNotFoundException" => "; check KINESIS_TELEMETRY_STREAM, and the account and region it is in",
        "ExpiredTokenException" | "UnrecognizedClientException" | "InvalidClientTokenId" | "InvalidSignatureException" => {
            "; check the function's credentials"
        }
        "NoCredentials" => "; a function has them from its role",
        "Tls" => "; check AWS_CA_BUNDLE if something intercepts TLS",
        _ => "",
    }
}
