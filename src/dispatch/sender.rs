//! The sender: packs what the queue gives, sends it, retries what failed. Runs on the dispatcher's thread; knows deadlines, not invocations.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::metrics::Metrics;
use super::pack::{self, Packer};
use super::queue::{Queue, Waiting};
use super::spool::{Segment, Spool, Spooled};
use crate::clock::{EpochMs, epoch_ms};
use crate::config::{self, Config};
use crate::deadline::Deadline;
use crate::kinesis::batch::Request;
use crate::kinesis::client::{Client, MIN_TIME_LEFT};
use crate::kinesis::error::{Error, ErrorKind};
use crate::kinesis::record::LEDGER_EVENT;
use crate::kinesis::response::RecordOutcome;
use crate::ledger::Ledger;
use crate::log;
use crate::panic;
use crate::random;
use crate::sandbox::Sandbox;

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
    /// The file it came from, if any; the halves of a split one share it.
    segment: Option<Arc<Segment>>,
}

/// See the module's page.
#[derive(Debug)]
pub struct Sender {
    queue: Arc<Queue>,
    ledger: Arc<Ledger>,
    client: Client,
    packer: Packer,
    spool: Arc<Spool>,
    sandbox: Arc<Sandbox>,
    /// For how many of the sandbox's ids a sandbox event was shipped, before any other (`ENVELOPE=slim`). One, and one more for each restore.
    introduced: u16,
    slim: bool,
    /// The request on its way; kept over flushes until all of its records are taken or lost.
    outbox: Option<Outgoing>,
    /// Halves of a refused request, to be sent before anything new.
    aside: Vec<Outgoing>,
    /// `METRICS=emf`
    metrics: Option<Metrics>,
    ledger_sent: Instant,
    ledgers: u32,
}

impl Sender {
    /// Opens no connection.
    #[must_use]
    pub fn new(config: &Config, sandbox: Arc<Sandbox>, packer: Packer, spool: Arc<Spool>, queue: Arc<Queue>, ledger: Arc<Ledger>) -> Sender {
        Sender {
            queue,
            ledger,
            client: Client::new(&config.kinesis, Arc::clone(&sandbox)),
            slim: config.envelope == config::Envelope::Slim,
            sandbox,
            packer,
            spool,
            introduced: 0,
            outbox: None,
            aside: Vec::new(),
            metrics: config.emf.then(Metrics::default),
            ledger_sent: Instant::now(),
            ledgers: 0,
        }
    }

    /// Before SHUTDOWN, which has no time to find out that a connection has died without a word.
    pub fn renew_idle_connection(&mut self) {
        self.client.disconnect(Duration::from_secs(1));
    }

    /// Takes over what the process before has left in the spool.
    pub fn adopt(&mut self) {
        if self.spool.is_on() {
            let events = self.spool.adopt(self.packer.limits());
            self.ledger.received.add(events);
            self.ledger.adopted.add(events);
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
                self.outbox = self.aside.pop().or_else(|| self.unspool()).or_else(|| self.pack_with_ledger());
            }
            if self.outbox.is_none() {
                return Flushed::All;
            }
            if deadline.left(Instant::now()) < MIN_TIME_LEFT || !self.send(attempt, deadline) {
                return if settled(&self.ledger) > before { Flushed::Some } else { Flushed::Nothing };
            }
            attempt += 1;
        }
    }

    /// What is in the spool is older than what is in memory.
    fn unspool(&mut self) -> Option<Outgoing> {
        let Spooled { segment, request, ambiguous, .. } = self.queue.take_spooled(self.packer.limits())?;
        Some(Outgoing { request, sent_before: false, ambiguous, segment: Some(Arc::new(segment)) })
    }

    fn pack_with_ledger(&mut self) -> Option<Outgoing> {
        let mut request = self.pack()?;
        if self.ledger_sent.elapsed() >= LEDGER_EVERY {
            self.ledger_sent = Instant::now();
            self.ledgers += 1;
            let record = self.ledger.json(self.queue.waiting(), None);
            let name = format!("ledger-{}", self.ledgers);
            self.packer.own_event(&mut request, LEDGER_EVENT, &record, &name, epoch_ms(SystemTime::now()));
            self.print_metrics();
        }
        Some(Outgoing { request, sent_before: false, ambiguous: false, segment: None })
    }

    /// Sends the outbox once. Says whether it makes sense to go on now; what is not settled stays in the outbox.
    fn send(&mut self, attempt: u32, deadline: &Deadline) -> bool {
        let Some(mut outgoing) = self.outbox.take() else { return true };
        panic::switch("dispatcher");
        let mut answer = self.put(&mut outgoing, deadline);
        while let Err(error) = &answer
            && (error.stale || error.retry_now)
            && deadline.left(Instant::now()) >= MIN_TIME_LEFT
        {
            // A pooled connection that had died in a freeze is no error. The client sees to it that none of this goes on for ever.
            if !error.stale {
                self.ledger.request_error(&error.code);
            }
            answer = self.put(&mut outgoing, deadline);
        }
        match answer {
            Ok(outcomes) => self.settle_records(outgoing, &outcomes, deadline),
            Err(failure) => self.settle_failure(outgoing, &failure, attempt, deadline),
        }
    }

    fn put(&mut self, outgoing: &mut Outgoing, deadline: &Deadline) -> Result<Vec<RecordOutcome>, Error> {
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
                RecordOutcome::Failed { code: why, kind } => code = code.or(Some((why, *kind))),
            }
        }
        let Some((code, kind)) = code else {
            self.settled(outgoing);
            return true;
        };
        self.ledger.request_error(code);
        log::info!("records", "Kinesis took only a part of a request ({code}); the rest is sent again");
        outgoing.request.keep(|index| outcomes.get(index) != Some(&RecordOutcome::Taken));
        outgoing.ambiguous = false;
        self.outbox = Some(outgoing);
        self.pause(if kind == ErrorKind::Throttled { THROTTLED_MS } else { (0, BASE_MS) }, deadline)
    }

    fn settle_failure(&mut self, outgoing: Outgoing, failure: &Error, attempt: u32, deadline: &Deadline) -> bool {
        self.ledger.request_error(&failure.code);
        if failure.kind == ErrorKind::InvalidRequest {
            self.split(outgoing, failure);
            return true;
        }
        if failure.kind == ErrorKind::Configuration && outgoing.segment.is_some() && !outgoing.request.is_whole() {
            // No signature will ever fit it.
            self.lose(outgoing, "a file of the spool was changed by somebody");
            return true;
        }
        self.outbox = Some(outgoing);
        match failure.kind {
            ErrorKind::Interrupted => {}
            ErrorKind::Throttled | ErrorKind::Transient => log::warn!("transient", "PutRecords failed and is tried again: {failure}"),
            _ => log::error!("person", "PutRecords failed: {failure}; to fix it, {}", self.client.advice(failure)),
        }
        match failure.kind {
            ErrorKind::Throttled => self.pause(THROTTLED_MS, deadline),
            ErrorKind::Transient | ErrorKind::ClockSkew => self.pause((0, BASE_MS << attempt.min(6)), deadline),
            _ => false,
        }
    }

    /// One record that Kinesis refuses must not block the others: halve until it stands alone, then count it as lost.
    fn split(&mut self, outgoing: Outgoing, failure: &Error) {
        if outgoing.request.len() > 1 {
            let Outgoing { request, sent_before, ambiguous, segment } = outgoing;
            let (first, second) = request.split();
            self.aside.push(Outgoing { request: second, sent_before, ambiguous, segment: segment.clone() });
            self.outbox = Some(Outgoing { request: first, sent_before, ambiguous, segment });
        } else {
            self.lose(outgoing, &format!("Kinesis refuses a record: {failure}"));
        }
    }

    fn lose(&mut self, outgoing: Outgoing, why: &str) {
        let events = outgoing.request.events();
        self.ledger.dropped_rejected.add(events);
        self.queue.settled(events);
        self.packer.lose_request(&outgoing.request);
        self.settled(outgoing);
        log::error!("rejected", "{why}; {events} events are dropped");
    }

    /// All of a request is delivered, lost, or kept elsewhere: its file can go, once no other half needs it.
    fn settled(&mut self, outgoing: Outgoing) {
        self.queue.recycle_body(outgoing.request.into_buffer());
        if let Some(segment) = outgoing.segment.and_then(Arc::into_inner) {
            self.spool.done(&segment);
        }
    }

    /// The sandbox is reset: what could not be sent goes to the spool, for the process that starts next in this sandbox.
    pub fn keep_for_the_next(&mut self) {
        if !self.spool.is_on() {
            return;
        }
        let now = epoch_ms(SystemTime::now());
        let unsent: Vec<Outgoing> = self.outbox.take().into_iter().chain(self.aside.drain(..)).collect();
        for outgoing in unsent {
            if !self.keep(outgoing, now) {
                return;
            }
        }
        // Not through the spool's own files: they stay where they are.
        while let Some(outgoing) = self.pack().map(|request| Outgoing { request, sent_before: false, ambiguous: false, segment: None }) {
            if !self.keep(outgoing, now) {
                return;
            }
        }
    }

    fn keep(&mut self, mut outgoing: Outgoing, since: EpochMs) -> bool {
        let events = outgoing.request.events();
        self.spool.expect(events);
        if let Err(error) = self.spool.write(&mut outgoing.request, outgoing.ambiguous, since, &self.packer) {
            log::error!("spool", "events cannot be kept under /tmp ({error})");
            self.spool.give_up(events);
            self.outbox = Some(outgoing);
            return false;
        }
        self.queue.settled(events);
        self.settled(outgoing);
        true
    }

    /// Nobody will send what waits: it is lost, and counted. In a reset what the spool holds is not lost.
    pub fn lose_the_rest(&mut self, reset: bool) {
        let mut lost = 0;
        while let Some(outgoing) = self.outbox.take().or_else(|| self.aside.pop()) {
            lost += outgoing.request.events();
            self.packer.lose_request(&outgoing.request);
            self.settled(outgoing);
        }
        while let Some((_, waiting)) = self.queue.take(|_| true) {
            match waiting {
                Waiting::Events(batch) => {
                    lost += batch.remaining().len() as u64;
                    self.packer.lose(&batch);
                }
                Waiting::Packed(request) => {
                    lost += request.events();
                    self.packer.lose_request(&request);
                }
            }
        }
        self.queue.settled(lost);
        if !reset {
            if self.packer.prints_lost() {
                while let Some(outgoing) = self.unspool() {
                    let events = outgoing.request.events();
                    lost += events;
                    self.queue.settled(events);
                    self.packer.lose_request(&outgoing.request);
                    self.settled(outgoing);
                }
            }
            lost += self.spool.discard();
        }
        self.ledger.dropped_undelivered.add(lost);
    }

    /// Waits for a random part of the range before a retry, if the time allows it; else there is no retry in this flush.
    fn pause(&self, (least, most): (u64, u64), deadline: &Deadline) -> bool {
        let pause = Duration::from_millis(least + random::up_to(most - least));
        if deadline.left(Instant::now()) < pause + MIN_TIME_LEFT {
            return false;
        }
        thread::sleep(pause);
        true
    }

    /// The ledger goes in a request of its own, so that it can speak of all others. Says whether it arrived.
    pub fn send_ledger(&mut self, deadline: &Deadline, reason: &str) -> bool {
        self.print_metrics();
        let mut request = Request::new(self.packer.limits());
        let record = self.ledger.json(self.queue.waiting(), Some(reason));
        self.packer.own_event(&mut request, LEDGER_EVENT, &record, "ledger", epoch_ms(SystemTime::now()));
        while deadline.left(Instant::now()) > MIN_TIME_LEFT {
            match self.client.put(&mut request, deadline) {
                Ok(outcomes) if outcomes.iter().all(|outcome| *outcome == RecordOutcome::Taken) => return true,
                Err(failure) if matches!(failure.kind, ErrorKind::Configuration | ErrorKind::Credentials) => break,
                Ok(_) => self.pause(THROTTLED_MS, deadline),
                Err(_) => self.pause((0, BASE_MS), deadline),
            };
        }
        false
    }

    fn print_metrics(&mut self) {
        if let Some(metrics) = &mut self.metrics {
            let name = self.packer.sandbox().facts().function_name.unwrap_or_default();
            pack::print(metrics.line(&self.ledger, &name, epoch_ms(SystemTime::now())).as_bytes());
        }
    }

    /// A request of what waits in memory, oldest first; `None` if nothing does.
    fn pack(&mut self) -> Option<Request> {
        let mut request = Request::with_buffer(self.packer.limits(), self.queue.body(self.packer.limits().body_bytes()));
        let restores = self.sandbox.restores();
        if self.slim && self.introduced <= restores && !self.queue.is_empty() {
            self.packer.introduce(&mut request, self.introduced, restores, epoch_ms(SystemTime::now()));
            self.introduced = restores.saturating_add(1);
        }
        loop {
            let unused = request.is_empty();
            match self.queue.take(|waiting| unused || matches!(waiting, Waiting::Events(_))) {
                Some((_, Waiting::Packed(packed))) => {
                    self.queue.recycle_body(request.into_buffer());
                    return Some(*packed);
                }
                Some((since, Waiting::Events(mut batch))) => {
                    let unfit = self.packer.pack(&mut request, &mut batch);
                    self.ledger.dropped_rejected.add(unfit);
                    self.queue.settled(unfit);
                    if !batch.remaining().is_empty() {
                        self.queue.give_back(since, batch);
                        return Some(request);
                    }
                    self.queue.recycle(batch);
                }
                None if unused => {
                    self.queue.recycle_body(request.into_buffer());
                    return None;
                }
                None => return Some(request),
            }
        }
    }
}
