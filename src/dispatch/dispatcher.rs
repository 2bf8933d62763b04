//! The dispatcher: decides when the [`Sender`] sends, and answers `main`. One thread, which alone talks to Kinesis.
//!
//! It sends only when it may: at an invocation's end, at its beginning, inside a long one, or at any time on Managed Instances. Whoever
//! asked gets an answer when it is at rest, so that no request is in flight when the sandbox freezes.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::flush::{self, Cadence, OnInvoke};
use super::queue::{Command, Mark, Queue, Rest};
use super::sender::{Flushed, Sender};
use crate::clock::{EpochMs, epoch_ms};
use crate::config::{Config, FlushMode};
use crate::deadline::{Deadline, Limit};
use crate::ledger::Ledger;
use crate::log;

/// What one try may take while Kinesis does not answer.
const PROBE: Duration = Duration::from_millis(500);
/// What one request may take inside an invocation: a SHUTDOWN must not find the dispatcher busy for longer.
const IN_BETWEEN: Duration = Duration::from_secs(1);
/// What is kept back of the SHUTDOWN window for the spool and the ledger.
const SPOOL_TIME: Duration = Duration::from_millis(100);
/// What is kept back of that for a last line on stderr.
const LAST_WORDS: Duration = Duration::from_millis(40);
/// The time between probes, in milliseconds: the first, and the longest.
const PROBE_EVERY_MS: (u64, u64) = (1000, 30_000);

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
    sender: Sender,
    mode: FlushMode,
    /// Managed Instances: no INVOKE, no freeze; by age and size alone.
    continuous: bool,
    max_age: Duration,
    flush_timeout: Duration,
    cadence: Cadence,
    breaker: Breaker,
    held: Option<Held>,
    started: Option<Arc<str>>,
    done: Option<(Arc<str>, Option<EpochMs>)>,
    unreported: Unreported,
    gap: bool,
    /// The invocation whose end did not come by its deadline, and how many have begun since.
    missed: Option<(String, u32)>,
    stopped: bool,
}

impl Dispatcher {
    /// `continuous` on Managed Instances. Opens no connection.
    #[must_use]
    pub fn new(config: &Config, continuous: bool, sender: Sender, queue: Arc<Queue>, ledger: Arc<Ledger>) -> Dispatcher {
        Dispatcher {
            sender,
            queue,
            ledger,
            mode: config.flush,
            continuous,
            max_age: config.max_age,
            flush_timeout: config.flush_timeout,
            cadence: Cadence::default(),
            breaker: Breaker::default(),
            held: None,
            started: None,
            done: None,
            unreported: Unreported::Init,
            gap: false,
            missed: None,
            stopped: false,
        }
    }

    /// The thread's whole life: until `Stop`.
    pub fn run(mut self) {
        let mut adopted = false;
        while !self.stopped {
            let found = self.queue.wait(self.next_look());
            // Not before there is something to do: `main` is to be in `/next` first.
            if !std::mem::replace(&mut adopted, true) {
                self.sender.adopt();
            }
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
                // In Lambda's order the end of one invocation comes before the start of the next.
                if self.missed.as_ref().is_some_and(|(missed, _)| **missed != *request_id) {
                    self.stop_waiting_for_ends();
                }
                self.unreported = Unreported::Invocation(request_id.clone());
                self.started = Some(request_id);
                self.gap = false;
            }
            Mark::Done { request_id, at } => {
                self.missed = self.missed.take().filter(|(missed, _)| **missed != *request_id);
                self.done = Some((request_id, at));
            }
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
        if let Some((_, since)) = &mut self.missed {
            *since += 1;
            // Late or lost: until that shows, nothing is held for it.
            plan = if plan == OnInvoke::AtEnd { OnInvoke::Now } else { plan };
            if *since > 1 {
                self.stop_waiting_for_ends();
            }
        }
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
            self.missed = Some((held.request_id.clone(), 0));
            self.answer(held);
        } else {
            self.held = Some(held);
        }
    }

    /// An end that never came must not cost a wait each time.
    fn stop_waiting_for_ends(&mut self) {
        self.missed = None;
        self.mode = FlushMode::Next;
        log::warn!("no-runtime-done", "platform.runtimeDone did not come by the deadline; from now on telemetry is sent with the next invocation");
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

    fn flush(&mut self, deadline: &Deadline) -> Flushed {
        let flushed = self.sender.flush(deadline);
        self.breaker.note(flushed, epoch_ms(SystemTime::now()));
        flushed
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
        // `/tmp` outlives a reset, and only that.
        let reset = matches!(reason, "timeout" | "failure");
        self.sender.renew_idle_connection();
        self.flush(&deadline.sooner(SPOOL_TIME));
        if reset {
            self.sender.keep_for_the_next();
        }
        self.sender.lose_the_rest(reset);
        // A line about what is lost must be said before `main` stops waiting.
        let told = self.sender.send_ledger(&deadline.sooner(LAST_WORDS), reason);
        let lost = self.ledger.dropped();
        if lost > 0 {
            log::error!("lost", "{lost} events are lost: {}", self.ledger.json(self.queue.waiting(), Some(reason)));
        } else if !told {
            log::warn!("ledger", "the ledger could not be sent: {}", self.ledger.json(self.queue.waiting(), Some(reason)));
        }
    }
}

/// How long ago `at` was by the wall clock. Zero where that is not known, or cannot be: a clock that jumped in a freeze must not cost time.
fn since_epoch(at: Option<EpochMs>) -> Duration {
    let ms = at.map_or(0, |at| epoch_ms(SystemTime::now()).saturating_sub(at));
    Duration::from_millis(if ms > 60_000 { 0 } else { ms })
}
