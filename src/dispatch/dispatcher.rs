//! The dispatcher: drains the queue, packs, sends, retries, and answers `main`. One thread, which alone talks to Kinesis.
//!
//! It sends only when it may: at an invocation's end, at its beginning, inside a long one, or at any time on Managed Instances. Whoever
//! asked gets an answer when it is at rest, so that no request is in flight when the sandbox freezes.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::flush::{self, Cadence, OnInvoke};
use super::queue::{Command, Mark, Queue, Rest};
use crate::clock::{EpochMs, epoch_ms};
use crate::config::{self, Config, FlushMode};
use crate::deadline::{Deadline, Limit};
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
/// What one try may take while Kinesis does not answer.
const PROBE: Duration = Duration::from_millis(500);
/// What one request may take inside an invocation: a SHUTDOWN must not find the dispatcher busy for longer.
const IN_BETWEEN: Duration = Duration::from_secs(1);
/// Pauses before a retry, in milliseconds: the base that doubles, and the bounds when throttled.
const BASE_MS: u64 = 50;
const THROTTLED_MS: (u64, u64) = (100, 500);
/// The time between probes, in milliseconds: the first, and the longest.
const PROBE_EVERY_MS: (u64, u64) = (1000, 30_000);

/// How a flush ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flushed {
    /// Nothing waits any more.
    All,
    /// Out of time, but Kinesis takes records.
    Some,
    /// Nothing was taken.
    Nothing,
}

/// Whether Kinesis answers. While it does not, invocations are not held for it: it is probed now and then.
#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    next_probe: EpochMs,
}

impl Breaker {
    fn note(&mut self, flushed: Flushed, now: EpochMs) {
        if flushed != Flushed::Nothing {
            *self = Breaker::default();
            return;
        }
        let (first, longest) = PROBE_EVERY_MS;
        self.next_probe = now + (first << self.failures.min(8)).min(longest);
        self.failures += 1;
    }

    fn is_open(&self) -> bool {
        self.failures > 0
    }

    /// By the wall clock: the monotonic one may stand still in a freeze. One that was set back must not silence the probes.
    fn may_probe(&self, now: EpochMs) -> bool {
        now >= self.next_probe || self.next_probe - now > PROBE_EVERY_MS.1
    }
}

/// A request, and what is known of the times it was sent before.
#[derive(Debug)]
struct Outgoing {
    request: Request,
    sent_before: bool,
    /// Kinesis may have taken it already.
    ambiguous: bool,
}

/// The last event that is still to come.
#[derive(Debug, PartialEq, Eq)]
enum Unreported {
    Nothing,
    Init,
    Invocation(Arc<str>),
}

/// An invocation that `main` waits for.
#[derive(Debug)]
struct Held {
    request_id: String,
    deadline: Deadline,
    rest: Rest,
}

/// See the module's page.
#[derive(Debug)]
pub struct Dispatcher {
    queue: Arc<Queue>,
    ledger: Arc<Ledger>,
    client: Client,
    envelope: Envelope,
    limits: Limits,
    partition_key: config::PartitionKey,
    slim: bool,
    mode: FlushMode,
    /// Managed Instances: no INVOKE, no freeze; by age and size alone.
    continuous: bool,
    max_age: Duration,
    flush_timeout: Duration,
    cadence: Cadence,
    breaker: Breaker,
    /// The request on its way; kept over flushes until all of its records are taken or lost.
    outbox: Option<Outgoing>,
    /// Halves of a refused request, to be sent before anything new.
    aside: Vec<Outgoing>,
    held: Option<Held>,
    started: Option<Arc<str>>,
    done: Option<(Arc<str>, Option<EpochMs>)>,
    unreported: Unreported,
    gap: bool,
    introduced: bool,
    ledger_sent: Instant,
    ledgers: u32,
    stopped: bool,
}

impl Dispatcher {
    /// `continuous` on Managed Instances. Opens no connection.
    #[must_use]
    pub fn new(config: &Config, continuous: bool, sandbox: Arc<Sandbox>, queue: Arc<Queue>, ledger: Arc<Ledger>) -> Dispatcher {
        Dispatcher {
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
            slim: config.envelope == config::Envelope::Slim,
            mode: config.flush,
            continuous,
            max_age: config.max_age,
            flush_timeout: config.flush_timeout,
            cadence: Cadence::default(),
            breaker: Breaker::default(),
            outbox: None,
            aside: Vec::new(),
            held: None,
            started: None,
            done: None,
            unreported: Unreported::Init,
            gap: false,
            introduced: false,
            ledger_sent: Instant::now(),
            ledgers: 0,
            stopped: false,
        }
    }

    /// The thread's whole life: until `Stop`.
    pub fn run(mut self) {
        while !self.stopped {
            let found = self.queue.wait(self.next_look());
            for mark in found.marks {
                self.note(mark);
            }
            for command in found.commands {
                self.obey(command);
            }
            self.release();
            self.send_in_between();
        }
    }

    /// When to look again although nothing comes.
    fn next_look(&self) -> Option<Instant> {
        let now = Instant::now();
        let held_until = self.held.as_ref().map(|held| held.deadline.at());
        let due = self.may_send_in_between().then(|| {
            let wall = epoch_ms(SystemTime::now());
            let due = flush::due_in(&self.queue.pending(), self.max_age, wall)?;
            let probe = Duration::from_millis(if self.breaker.is_open() { self.breaker.next_probe.saturating_sub(wall) } else { 0 });
            now.checked_add(due.max(probe))
        });
        [held_until, due.flatten()].into_iter().flatten().min()
    }

    fn note(&mut self, mark: Mark) {
        match mark {
            Mark::Started(request_id) => {
                self.unreported = Unreported::Invocation(request_id.clone());
                self.started = Some(request_id);
                self.gap = false;
            }
            Mark::Done { request_id, at } => self.done = Some((request_id, at)),
            Mark::Reported(request_id) => {
                if self.unreported == Unreported::Invocation(request_id) {
                    self.unreported = Unreported::Nothing;
                }
            }
            Mark::InitReported => {
                if self.unreported == Unreported::Init {
                    self.unreported = Unreported::Nothing;
                }
            }
            Mark::Gap => self.gap = true,
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Invoked { request_id, deadline, rest } => self.invoked(Held { request_id, deadline, rest }),
            Command::Settle { until, rest } => {
                self.settle(until);
                let _ = rest.send(());
            }
            Command::Stop { deadline, reason, rest } => {
                self.stop(&deadline, &reason);
                let _ = rest.send(());
            }
        }
    }

    // --- invocations -------------------------------------------------------------------------------------------------------------------

    fn invoked(&mut self, held: Held) {
        let now = epoch_ms(SystemTime::now());
        self.cadence.invoked(now);
        self.unreported = Unreported::Invocation(held.request_id.as_str().into());
        let mut plan = flush::on_invoke(self.mode, &self.cadence, &self.queue.pending(), self.max_age, now);
        if self.breaker.is_open() {
            if !self.breaker.may_probe(now) || self.queue.waiting() == 0 {
                return self.answer(held);
            }
            // One try while the function runs. Only if Kinesis answers is the invocation held as usual.
            let probe = Deadline::after(Instant::now(), PROBE.min(self.flush_timeout), Limit::Probe).earlier(held.deadline);
            if self.flush(&probe) == Flushed::Nothing {
                plan = OnInvoke::Nothing;
            }
        }
        match plan {
            OnInvoke::AtEnd => self.held = Some(held),
            OnInvoke::Now => {
                let deadline = Deadline::after(Instant::now(), self.flush_timeout, Limit::FlushTimeout).earlier(held.deadline);
                self.flush(&deadline);
                self.answer(held);
            }
            OnInvoke::Nothing => self.answer(held),
        }
    }

    /// Lets a held invocation go if the function's own work is over, or if waiting for that makes no sense any more.
    fn release(&mut self) {
        let Some(held) = self.held.take() else { return };
        let done = self.done.as_ref().filter(|(request_id, _)| **request_id == *held.request_id);
        if done.is_some() || self.gap {
            let since = done.and_then(|(_, at)| *at);
            let deadline = Deadline::after(Instant::now(), self.flush_timeout.saturating_sub(since_epoch(since)), Limit::FlushTimeout);
            self.flush(&deadline.earlier(held.deadline));
            self.answer(held);
        } else if held.deadline.left(Instant::now()).is_zero() {
            self.mode = FlushMode::Next;
            log::warn!(
                "no-runtime-done",
                "platform.runtimeDone did not come before the deadline; from now on telemetry is sent with the next invocation"
            );
            self.answer(held);
        } else {
            self.held = Some(held);
        }
    }

    /// The dispatcher is at rest: `/next` may be called.
    fn answer(&self, held: Held) {
        if let Some((_, at)) = self.done.as_ref().filter(|(request_id, _)| **request_id == *held.request_id) {
            self.ledger.held(since_epoch(*at));
        }
        // `main` may have given up waiting; that is its right.
        let _ = held.rest.send(());
    }

    /// Between a function's start and its end the sandbox does not freeze. On Managed Instances it never does.
    fn may_send_in_between(&self) -> bool {
        let running = self.started.is_some() && self.started.as_ref() != self.done.as_ref().map(|(request_id, _)| request_id);
        self.continuous || self.held.is_some() || running
    }

    fn send_in_between(&mut self) {
        let now = epoch_ms(SystemTime::now());
        let due = flush::in_between(&self.queue.pending(), self.max_age, now);
        if self.stopped || !self.may_send_in_between() || !due || (self.breaker.is_open() && !self.breaker.may_probe(now)) {
            return;
        }
        let mut deadline = Deadline::after(Instant::now(), IN_BETWEEN.min(self.flush_timeout), Limit::FlushTimeout);
        if let Some(held) = &self.held {
            deadline = deadline.earlier(held.deadline);
        }
        self.flush(&deadline);
    }

    // --- the end -----------------------------------------------------------------------------------------------------------------------

    /// Waits for what Lambda still posts: the report of the last invocation, or of the init if there was none.
    fn settle(&mut self, until: Instant) {
        while self.unreported != Unreported::Nothing && Instant::now() < until {
            for mark in self.queue.wait(Some(until)).marks {
                self.note(mark);
            }
        }
    }

    fn stop(&mut self, deadline: &Deadline, reason: &str) {
        self.stopped = true;
        if let Some(held) = self.held.take() {
            self.answer(held);
        }
        self.flush(deadline);
        let left = self.queue.waiting();
        self.ledger.dropped_undelivered.add(left);
        self.send_ledger(deadline, reason);
        let lost = self.ledger.dropped();
        if lost > 0 {
            log::error!("lost", "{lost} events are lost: {}", self.ledger.json(Some(reason)));
        }
    }

    /// The ledger goes in a request of its own, so that it can speak of all others.
    fn send_ledger(&mut self, deadline: &Deadline, reason: &str) {
        let mut request = Request::new(self.limits);
        let record = self.ledger.json(Some(reason));
        self.own_event(&mut request, LEDGER_EVENT, &record, "ledger");
        while deadline.left(Instant::now()) > LEAST_TIME {
            match self.client.put(&mut request, deadline) {
                Ok(outcomes) if outcomes.iter().all(|outcome| *outcome == RecordOutcome::Taken) => return,
                Err(failure) if failure.remedy == Remedy::Person => break,
                Ok(_) => self.pause(THROTTLED_MS, deadline),
                Err(_) => self.pause((0, BASE_MS), deadline),
            };
        }
        log::warn!("ledger", "the ledger could not be sent: {record}");
    }

    // --- packing -----------------------------------------------------------------------------------------------------------------------

    /// Fills a request with what waits, oldest first; `None` if nothing does.
    fn pack(&mut self) -> Option<Request> {
        let mut request = Request::new(self.limits);
        while let Some((since, mut batch)) = self.queue.take() {
            if !self.introduced {
                self.introduced = true;
                if self.slim {
                    self.own_event(&mut request, SANDBOX_EVENT, "{}", "sandbox");
                }
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

    // --- sending -----------------------------------------------------------------------------------------------------------------------

    /// Sends what waits until nothing does or the time is up.
    fn flush(&mut self, deadline: &Deadline) -> Flushed {
        let settled = |ledger: &Ledger| ledger.delivered.get() + ledger.dropped_rejected.get();
        let before = settled(&self.ledger);
        let mut attempt = 0;
        let flushed = loop {
            if self.outbox.is_none() {
                attempt = 0;
                self.outbox = self.aside.pop().or_else(|| self.pack_with_ledger());
            }
            if self.outbox.is_none() {
                break Flushed::All;
            }
            if deadline.left(Instant::now()) < LEAST_TIME || !self.send(attempt, deadline) {
                break if settled(&self.ledger) > before { Flushed::Some } else { Flushed::Nothing };
            }
            attempt += 1;
        };
        self.breaker.note(flushed, epoch_ms(SystemTime::now()));
        flushed
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
}

/// How long ago `at` was by the wall clock. Zero where that is not known, or cannot be: a clock that jumped in a freeze must not cost time.
fn since_epoch(at: Option<EpochMs>) -> Duration {
    let ms = at.map_or(0, |at| epoch_ms(SystemTime::now()).saturating_sub(at));
    Duration::from_millis(if ms > 60_000 { 0 } else { ms })
}

/// What a person can mend.
fn hint(failure: &Failure) -> &'static str {
    match failure.code.as_str() {
        "AccessDeniedException" => "; the function's role needs kinesis:PutRecords on the stream (and kms:GenerateDataKey with a key of your own)",
        "ResourceNotFoundException" => "; check KINESIS_TELEMETRY_STREAM, and the account and region it is in",
        "ExpiredTokenException" | "UnrecognizedClientException" | "InvalidClientTokenId" => "; check the function's credentials",
        "NoCredentials" => "; a function has them from its role",
        "Tls" => "; check AWS_CA_BUNDLE if something intercepts TLS",
        _ => "",
    }
}
