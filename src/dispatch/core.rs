//! The core of the dispatcher: every decision, and no I/O. Messages and outcomes come in, steps go
//! out; time is a value.
//!
//! Its driver ([`super::dispatcher`], or the simulation) looks at the spool, hands in all messages
//! ([`Core::on`]), asks for a step ([`Core::poll`]), carries it out, and hands in its outcome
//! ([`Core::done`]). A step asks for one blocking request at the most, so that between two requests
//! a crash, a SHUTDOWN or an INVOKE is acted on. When and what is sent is in [`super::sending`];
//! the end is in [`super::stopping`], and what makes room in memory in [`super::room`].
//!
//! Runs on the dispatcher's thread, or on none at all.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attention::{Attention, Passes};
use super::backlog::{Backlog, History, Item, OpenSegment, Parcel, SegmentId};
use super::charge::Gauge;
use super::end::Stopping;
use super::invocations::{End, Held, Invocations, Phase};
use super::message::{FREEZE, Message, Now, Ticket};
use super::metrics::Metrics;
use super::packer::Packer;
use super::policy::{self, Cadence, FlushMode, OnInvoke, Pending};
use super::preparing::Preparation;
use super::retry::Retry;
use super::spares::Spares;
use super::step::{Oldest, Outcome, Step, Unread, View};
use crate::clock::EpochMs;
use crate::deadline::{Deadline, Limit};
use crate::ledger::Ledger;
use crate::log::Level;

/// No request starts with less time left than this.
pub(super) const MIN_TIME_LEFT: Duration = Duration::from_millis(10);
/// After a function that failed, the 2 s of the SHUTDOWN window may be running already.
const FAILED_HOLD: Duration = Duration::from_millis(500);
/// What one try may take while Kinesis does not answer.
pub(super) const PROBE: Duration = Duration::from_millis(500);
/// While an invocation is held, no event waits longer in memory: the function may crash, and the
/// sandbox with it, before Lambda says so.
pub(super) const HELD_AGE: Duration = Duration::from_secs(1);

/// What the core must know of the settings.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// `FLUSH`
    pub mode: FlushMode,
    /// Managed Instances: there is no INVOKE and no freeze, so events are sent by age and size
    /// alone.
    pub continuous: bool,
    /// `MAX_AGE_MS`
    pub max_age: Duration,
    /// `FLUSH_TIMEOUT_MS`
    pub flush_timeout: Duration,
    /// Whether there is a spool at all.
    pub spool: bool,
    /// `METRICS=emf`
    pub metrics: bool,
    /// Decides all jitter.
    pub seed: u64,
}

/// A moment as the core sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tick {
    pub(super) mono: Instant,
    /// The core's own time since it began: the monotonic clock's, and what the wall clock went
    /// ahead of it. Never goes back.
    pub(super) age: Duration,
    pub(super) wall: EpochMs,
}

/// See the module's page.
#[derive(Debug)]
pub struct Core {
    pub(super) settings: Settings,
    pub(super) ledger: Arc<Ledger>,
    pub(super) gauge: Arc<Gauge>,
    pub(super) spares: Arc<Spares>,
    pub(super) packer: Packer,
    pub(super) backlog: Backlog,
    pub(super) retry: Retry,
    pub(super) invocations: Invocations,
    pub(super) held: Option<Held>,
    pub(super) stopping: Option<Stopping>,
    /// Steps that are decided already.
    pub(super) out: VecDeque<Step>,
    /// Segments that were read.
    pub(super) open_segments: Vec<OpenSegment>,
    /// Of segments on disk, how often they failed: what is refused for what it holds must not start
    /// anew each time it is read.
    pub(super) histories: Vec<(SegmentId, History)>,
    /// Requests that delivered something so far.
    pub(super) deliveries: u64,
    /// Tries without a pause since something was delivered.
    pub(super) tries_at_once: u32,
    /// The last flush had something to send, so the next one is expected to have too. So is the
    /// first.
    expects_flush: bool,
    /// Something was delivered since the dispatcher was last at rest: what is set aside may be sent
    /// along with it.
    pub(super) carries: bool,
    /// See [`Core::has_turn`].
    pub(super) others_failed: bool,
    /// A segment could not be written: from this age on it is tried again.
    pub(super) spool_again: Option<Duration>,
    /// See [`Core::rotate`].
    pub(super) rotated: bool,
    /// The segment being read is one of those apart.
    pub(super) reads_apart: bool,
    /// No copy of what stays in memory is written before this age.
    pub(super) copy_again: Duration,
    pub(super) ledger_at: Duration,
    pub(super) ledgers: u32,
    pub(super) metrics: Option<Metrics>,
    mode: FlushMode,
    cadence: Cadence,
    recovered: bool,
    clock: Option<(Now, Duration)>,
    /// What is on disk, as it was seen last.
    view: View,
}

impl Core {
    /// Nothing waits and nothing is known.
    #[must_use]
    pub fn new(
        settings: Settings,
        packer: Packer,
        gauge: Arc<Gauge>,
        spares: Arc<Spares>,
        ledger: Arc<Ledger>,
    ) -> Core {
        Core {
            settings,
            ledger,
            gauge,
            spares,
            packer,
            backlog: Backlog::default(),
            retry: Retry::new(settings.seed),
            invocations: Invocations::default(),
            held: None,
            stopping: None,
            out: VecDeque::new(),
            open_segments: Vec::new(),
            histories: Vec::new(),
            deliveries: 0,
            tries_at_once: 0,
            expects_flush: true,
            carries: false,
            others_failed: false,
            spool_again: None,
            rotated: false,
            reads_apart: false,
            copy_again: Duration::ZERO,
            ledger_at: Duration::ZERO,
            ledgers: 0,
            metrics: settings.metrics.then(Metrics::default),
            mode: settings.mode,
            cadence: Cadence::default(),
            recovered: !settings.spool,
            clock: None,
            view: View::default(),
        }
    }

    /// Notes what is on disk, as it was seen before the next messages are taken.
    pub fn look(&mut self, view: View) {
        self.view = view;
    }

    /// Takes a message.
    pub fn on(&mut self, now: Now, message: Message) {
        if let Message::Telemetry { at, .. } | Message::Invoked { at, .. } = &message {
            // The clocks as they were then: the wall clock may have been set since, and a freeze
            // have come after that.
            self.note_time(*at);
        }
        let tick = self.tick(now);
        match message {
            Message::Telemetry { at, signals, load, charge } => {
                // As of when it came: the message may have waited, behind a request or because
                // nobody waited for it.
                for signal in &signals {
                    let observed = self.invocations.observe(signal, at);
                    self.ledger.held(observed.held);
                    if observed.ends_never_come {
                        self.stop_waiting_for_ends();
                    }
                }
                if !load.is_empty() {
                    let since = tick.age.saturating_sub(now.since(&at));
                    self.backlog.push(Item { since, load, charge });
                }
            }
            Message::Invoked { at, ticket, request_id, deadline } => {
                let age = tick.age.saturating_sub(now.since(&at));
                self.invoked(&Tick { age, ..tick }, at, ticket, request_id, deadline);
            }
            Message::Stop { ticket, deadline, report_until, reason, short } => {
                // `main` waits for nothing but this now.
                if let Some(held) = self.held.take() {
                    self.answer(&tick, &held);
                }
                let failing = self.retry.failures() > 0
                    || self.backlog.aside().iter().any(|parcel| parcel.tries > 0);
                self.backlog.renew(tick.age);
                self.retry.renew();
                let stopping = self.stopping.get_or_insert_with(|| {
                    Stopping::new(tick.mono, ticket, deadline, report_until, reason)
                });
                stopping.failed |= (short || failing) && stopping.is_reset();
                stopping.short |= short && stopping.is_reset();
            }
        }
    }

    /// The next step. `view` was seen before the last message was handed in.
    pub fn poll(&mut self, now: Now, view: View) -> Step {
        self.look(view);
        let tick = self.tick(now);
        if !std::mem::replace(&mut self.recovered, true) {
            return Step::Recover;
        }
        self.probe_when_stuck(&tick);
        self.decide_hold(&tick, view);
        if let Some(step) = self.out.pop_front() {
            return step;
        }
        if let Some(step) = self.stop_step(&tick, view) {
            return step;
        }
        if let Some(step) = self.send_step(&tick, view) {
            return step;
        }
        if let Some(step) = self.prepare_step(&tick, view) {
            return step;
        }
        // Deciding may have left something to say.
        self.out.pop_front().unwrap_or_else(|| Step::Wait(self.wake_at(&tick, view)))
    }

    /// Takes the outcome of the last step.
    pub fn done(&mut self, now: Now, outcome: Outcome) {
        let tick = self.tick(now);
        match outcome {
            Outcome::Sent(parcel, sent) => self.sent(&tick, *parcel, sent),
            Outcome::Ledger(request, sent) => self.ledger_sent(&tick, request, sent),
            Outcome::Read(segment, Ok((request, charge, ambiguous))) => {
                self.open_segments.push(OpenSegment { id: segment, parts: 1, is_whole: true });
                let holds = !std::mem::take(&mut self.reads_apart);
                let parcel = Parcel {
                    segment: Some(segment),
                    intact: true,
                    ambiguous,
                    due: tick.age,
                    holds,
                    ..Parcel::new(*request, charge, tick.age)
                };
                self.read(parcel);
            }
            Outcome::Read(_, Err(Unread::NotNow)) => self.reads_apart = false,
            Outcome::Read(segment, Err(Unread::Damaged(events))) => {
                self.reads_apart = false;
                self.out.push_back(Step::Remove(segment));
                if events > 0 {
                    self.ledger.dropped_rejected.add(events);
                    self.ledger.spool_skipped.add(1);
                    let line = format!(
                        "a spool file was changed by somebody; its {events} events are lost"
                    );
                    self.out.push_back(Step::Log(Level::Error, "spool-damaged", line));
                }
            }
            Outcome::Recovered(true) => self.retry.takes_over(tick.mono),
            Outcome::Spooled(parcel, written) => self.spooled(&tick, *parcel, written),
            Outcome::Prepared(ready) => {
                if let Some(held) = &mut self.held {
                    held.preparation.tried(ready, tick.mono);
                }
            }
            Outcome::Recovered(false) | Outcome::Done => {}
        }
    }

    /// What waits in memory, for whoever compares it with the ledger.
    #[must_use]
    pub fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// Bytes and age of what waits, for the flush policy. What is on disk is at least a request.
    pub(super) fn pending(&self, view: View) -> Pending {
        let is_read = |parcel: &Parcel| parcel.holds && !parcel.sent_before;
        let on_disk = view.overflow != Oldest::Empty || self.backlog.aside().iter().any(is_read);
        let request = self.packer.request_bytes();
        let bytes = self.backlog.fresh_bytes() + if on_disk { request } else { 0 };
        let (oldest, bound) = (self.backlog.oldest(), self.gauge.bound());
        Pending { bytes, oldest, bound, request, on_disk }
    }

    /// How old an event may get in memory: less while an invocation is held.
    pub(super) fn max_age(&self) -> Duration {
        let held = self.held.as_ref().is_some_and(|held| held.phase == Phase::AwaitEnd);
        if held { self.settings.max_age.min(HELD_AGE) } else { self.settings.max_age }
    }

    /// Whether the sandbox cannot be frozen: a function runs, or an invocation is held, or there is
    /// no freeze at all. While Kinesis is only probed, many are let go at once: `/next` of a short one
    /// and a probe would be on their way at the same time.
    pub(super) fn is_awake(&self, tick: &Tick) -> bool {
        self.awake_from(tick).is_some_and(|at| at <= tick.mono)
    }

    /// From when on that is so: now, or later if nothing comes.
    fn awake_from(&self, tick: &Tick) -> Option<Instant> {
        if self.settings.continuous || self.held.is_some() {
            return Some(tick.mono);
        }
        let from = self.invocations.runs_from(tick.mono)?;
        let settled = self.invocations.settled_at().filter(|_| self.retry.is_open());
        Some(settled.map_or(from, |settled| from.max(settled)))
    }

    // --- invocations -----------------------------------------------------------------------------

    fn invoked(
        &mut self,
        tick: &Tick,
        at: Now,
        ticket: Option<Ticket>,
        request_id: Arc<str>,
        deadline: Deadline,
    ) {
        if let Some(before) = self.held.take() {
            // `main` no longer waits for that one.
            self.answer(tick, &before);
        }
        self.cadence.invoked(tick.age);
        if self.invocations.invoked(&request_id, at.mono) {
            self.stop_waiting_for_ends();
        }
        let Some(ticket) = ticket else {
            let held = self.invocations.let_go(&request_id, at);
            return self.ledger.held(held);
        };
        let pending = self.pending(self.view);
        let mut plan =
            policy::on_invoke(self.mode, &self.cadence, &pending, self.settings.max_age, tick.age);
        if self.invocations.is_end_late() && plan == OnInvoke::AtEnd {
            plan = OnInvoke::Now;
        }
        let after =
            |time: Duration, limit: Limit| Deadline::after(at.mono, time, limit).earlier(deadline);
        let nothing_waits =
            pending.oldest.is_none() && !pending.on_disk && self.backlog.aside().is_empty();
        let phase = match plan {
            _ if self.retry.is_open() && (nothing_waits || !self.may_probe(tick)) => None,
            _ if self.retry.is_open() => {
                let until = after(PROBE.min(self.settings.flush_timeout), Limit::Probe).at();
                Some(Phase::Probe { until, then_await_end: plan == OnInvoke::AtEnd })
            }
            OnInvoke::AtEnd => Some(Phase::AwaitEnd),
            OnInvoke::Now => {
                Some(Phase::Flush(after(self.settings.flush_timeout, Limit::FlushTimeout)))
            }
            OnInvoke::Nothing => None,
        };
        let held = Held {
            ticket,
            request_id,
            deadline,
            phase: phase.unwrap_or(Phase::AwaitEnd),
            tried: false,
            delivered: false,
            carried: false,
            preparation: Preparation::new(tick.mono),
        };
        match phase {
            Some(_) => self.held = Some(held),
            None => self.answer(tick, &held),
        }
    }

    pub(super) fn may_probe(&self, tick: &Tick) -> bool {
        self.retry.probe_at().is_none_or(|at| tick.age >= at)
    }

    /// Decides what is done next for the held invocation, and lets it go when its flush is over.
    fn decide_hold(&mut self, tick: &Tick, view: View) {
        let Some(mut held) = self.held.take() else { return };
        let end = self.invocations.end_of(&held.request_id).cloned();
        if held.phase == Phase::AwaitEnd {
            let gap = self.invocations.take_gap();
            let ended = end.as_ref().map(|end| end.at).or(gap.then_some(tick.mono));
            if let Some(at) = ended {
                let until = Deadline::after(at, self.settings.flush_timeout, Limit::FlushTimeout);
                held.phase = Phase::Flush(until.earlier(held.deadline));
            } else if held.deadline.left(tick.mono).is_zero() {
                self.invocations.missed(&held.request_id);
                return self.let_go(tick, &held);
            }
        }
        if let Some(end) = end {
            held.phase = self.limited_by(&end, held.phase);
        }
        let over = match held.phase {
            Phase::AwaitEnd => false,
            Phase::Probe { until, then_await_end } if held.delivered => {
                let until = Deadline::after(
                    until,
                    self.settings.flush_timeout.saturating_sub(PROBE),
                    Limit::FlushTimeout,
                );
                held.phase = if then_await_end {
                    Phase::AwaitEnd
                } else {
                    Phase::Flush(until.earlier(held.deadline))
                };
                self.held = Some(held);
                return self.decide_hold(tick, view);
            }
            Phase::Probe { until, .. } => {
                held.tried || !self.goes_on(tick, view, until) || until <= tick.mono
            }
            // Not for a Kinesis that is only probed.
            Phase::Flush(until) => {
                let goes_on = self.goes_on(tick, view, until.at()) || self.takes_along(tick, &held);
                self.retry.is_open() || !goes_on || until.left(tick.mono) < MIN_TIME_LEFT
            }
        };
        if over { self.let_go(tick, &held) } else { self.held = Some(held) }
    }

    /// Whether a flush has something to send before its end: not behind a pause that outlasts it,
    /// nor where all of it is set aside, and none due by then. A thread that sleeps may miss some
    /// of its last moments.
    fn goes_on(&self, tick: &Tick, view: View, until: Instant) -> bool {
        let all_aside = self.backlog.is_fresh_empty() && view.overflow == Oldest::Empty;
        let aside = self.backlog.aside().iter().filter(|parcel| all_aside && parcel.holds);
        let due = aside.map(|parcel| parcel.due.saturating_sub(tick.age)).min();
        let due = due.and_then(|time| tick.mono.checked_add(time));
        let pause = due.max(self.retry.wait_until(tick.mono, tick.age));
        let at = pause.filter(|at| *at > tick.mono);
        self.has_due(view)
            && at.is_none_or(|at| until.saturating_duration_since(at) >= 2 * MIN_TIME_LEFT)
    }

    /// Whatever is done for an invocation, its time counts from the function's end.
    fn limited_by(&self, end: &End, phase: Phase) -> Phase {
        let (time, limit) = if end.failed {
            (FAILED_HOLD, Limit::FailedFunction)
        } else {
            (Duration::MAX, Limit::FlushTimeout)
        };
        let limit = Deadline::after(end.at, time.min(self.settings.flush_timeout), limit);
        match phase {
            Phase::Flush(until) => Phase::Flush(until.earlier(limit)),
            Phase::Probe { until, then_await_end } => {
                Phase::Probe { until: until.min(limit.at()), then_await_end }
            }
            Phase::AwaitEnd => Phase::AwaitEnd,
        }
    }

    /// The flush of an invocation is over.
    fn let_go(&mut self, tick: &Tick, held: &Held) {
        // What failed through a whole flush holds no later one.
        self.backlog.release();
        self.expects_flush = held.tried;
        if held.tried && !held.delivered && !self.retry.is_open() {
            self.retry.open(tick.age);
        }
        self.answer(tick, held);
    }

    /// The dispatcher is at rest: `/next` may be called.
    fn answer(&mut self, tick: &Tick, held: &Held) {
        let time =
            self.invocations.let_go(&held.request_id, Now { mono: tick.mono, wall: tick.wall });
        self.ledger.held(time);
        self.out.push_back(Step::Reply(held.ticket));
    }

    /// The connection is made ready while the function of a held invocation runs, so that the flush
    /// need not: unless no flush is to be expected, or Kinesis is failing, and the flush is to find
    /// out whether it still does.
    fn prepare_step(&mut self, tick: &Tick, view: View) -> Option<Step> {
        let held = self.preparing(view)?;
        let effort = held.preparation.due(tick.mono)?;
        let deadline = self.in_between_deadline(tick);
        (deadline.left(tick.mono) >= MIN_TIME_LEFT).then_some(Step::Prepare { effort, deadline })
    }

    /// The invocation that a connection is made ready for.
    fn preparing(&self, view: View) -> Option<&Held> {
        let expected = self.expects_flush || self.has_due(view);
        let held = self.held.as_ref().filter(|held| held.phase == Phase::AwaitEnd)?;
        (expected && self.retry.failures() == 0 && self.stopping.is_none()).then_some(held)
    }

    /// An end that never came must not cost a wait each time.
    fn stop_waiting_for_ends(&mut self) {
        if std::mem::replace(&mut self.mode, FlushMode::Next) != FlushMode::Next {
            let line = "platform.runtimeDone did not come by the deadline; \
                        from now on telemetry is sent with the next invocation";
            self.out.push_back(Step::Log(Level::Warn, "no-runtime-done", line.to_owned()));
        }
    }

    /// What is waited for until the next poll, of what may come meanwhile.
    #[must_use]
    pub fn attention(&mut self, now: Now) -> Attention {
        let tick = self.tick(now);
        let flushing = self.held.as_ref().is_some_and(|held| held.phase != Phase::AwaitEnd);
        let pending = self.pending(View::default());
        let awake = self.is_awake(&tick);
        // A function whose start is lost is not known to run.
        let may_run = self.awake_from(&tick).is_some();
        let bytes = match pending.oldest {
            // From the first one on there is a time by which it is due.
            None if may_run => 0,
            _ => pending.request.saturating_sub(pending.bytes),
        };
        // A full request that cannot be sent now is sent at a time that is known.
        let full = pending.bytes >= pending.request;
        Attention {
            all: flushing || self.stopping.is_some(),
            starts: !awake,
            ends: self.held.is_some(),
            bytes: Some(bytes).filter(|_| !full),
            passes: self.passes(now, &tick),
        }
    }

    /// For how long nothing is due at an invocation's start.
    fn passes(&self, now: Now, tick: &Tick) -> Option<Passes> {
        let (time, pending) = (self.idle_for(tick)?, self.pending(self.view));
        // A full request is sent while a function runs, whose start may be lost.
        let bytes = pending.request.min(pending.bound / 4).saturating_sub(pending.bytes);
        Some(Passes { since: now, time, bytes })
    }

    fn idle_for(&self, tick: &Tick) -> Option<Duration> {
        if self.held.is_some() || self.stopping.is_some() || self.retry.is_open() {
            return None;
        }
        let pending = self.pending(self.view);
        policy::idle_for(self.mode, &self.cadence, &pending, self.settings.max_age, tick.age)
    }

    // --- time ------------------------------------------------------------------------------------

    /// A moment that was seen elsewhere; earlier than what is known already, it says nothing.
    fn note_time(&mut self, at: Now) {
        if self.clock.is_some_and(|(seen, _)| at.mono > seen.mono) {
            self.tick(at);
        }
    }

    fn tick(&mut self, now: Now) -> Tick {
        let (seen, age) = *self.clock.get_or_insert((now, Duration::ZERO));
        let mono = now.mono.saturating_duration_since(seen.mono);
        let wall = Duration::from_millis(now.wall.saturating_sub(seen.wall));
        let freeze = wall.saturating_sub(mono);
        let age = if freeze > FREEZE { age + mono + freeze } else { age + mono };
        // The wall clock's millisecond is coarse: it is compared over a second at least, unless it
        // jumped.
        if freeze > FREEZE || mono > FREEZE || now.wall < seen.wall {
            self.clock = Some((now, age));
        }
        Tick { mono: now.mono, age, wall: now.wall }
    }

    /// When there may be something to do although nothing comes.
    fn wake_at(&self, tick: &Tick, view: View) -> Option<Instant> {
        let age_to_mono = |age: Duration| tick.mono.checked_add(age.saturating_sub(tick.age));
        let mut times: Vec<Instant> = Vec::new();
        if let Some(held) = &self.held {
            times.push(match held.phase {
                Phase::AwaitEnd => held.deadline.at(),
                Phase::Probe { until, .. } => until,
                Phase::Flush(until) => until.sooner(MIN_TIME_LEFT).at(),
            });
        }
        times.extend(self.preparing(view).and_then(|held| held.preparation.due_at()));
        // Of what runs in an invocation that passes, and whose start is lost, nothing is known.
        let unseen = self.idle_for(tick).and_then(|_| tick.mono.checked_add(self.settings.max_age));
        times.extend(unseen);
        if let Some(from) = self.awake_from(tick) {
            let pause = self.retry.wait_until(tick.mono, tick.age);
            let probe = self.retry.probe_at().unwrap_or_default();
            let due_at = policy::due_in(&self.pending(view), self.max_age(), tick.age)
                .map(|left| tick.age + left);
            // Each of them: one that is due may be none of the flush, and another one of it.
            let aside = self.backlog.aside().iter().map(|parcel| self.opens_window_at(parcel));
            let relief = self.relief_at();
            let apart = view.apart != Oldest::Empty && self.backlog.is_empty();
            let due = [due_at, apart.then_some(probe)]
                .into_iter()
                .flatten()
                .chain(aside)
                .map(|at| at.max(probe))
                .chain(relief)
                .filter_map(age_to_mono);
            times.extend(due.chain(pause).map(|at| at.max(from)));
        }
        // What is due and cannot go now has an entry of its own; never a time that has passed,
        // which would be no wait at all.
        times.into_iter().filter(|at| *at > tick.mono).min()
    }
}
