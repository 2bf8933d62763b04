//! The core's second part: what is sent next, and what becomes of it. Pure, like [`super::core`].
//!
//! - What was never sent is sent in order: memory first, then what memory could not hold and is on
//!   disk.
//! - What failed is set aside until it is due again, and nothing waits behind it. Kinesis may
//!   refuse a request or a record for what it holds: once it took others meanwhile, that request is
//!   halved until the refused events stand alone, and only those are given up.
//! - While nothing is delivered, requests become rare ([`super::retry`]).

use std::sync::Arc;
use std::time::Duration;

use super::backlog::{Item, OpenSegment, Parcel, Refusal, SegmentId};
use super::core::{Core, MIN_TIME_LEFT, PROBE, Tick};
use super::invocations::{Held, Phase};
use super::message::Load;
use super::packer::Packer;
use super::policy;
use super::step::{Oldest, Sent, Step, View};
use crate::deadline::{Deadline, Limit};
use crate::kinesis::error::{Error, ErrorKind};
use crate::kinesis::line::LEDGER_EVENT;
use crate::kinesis::request::Request;
use crate::kinesis::response::RecordOutcome;
use crate::log::Level;

/// What one request may take inside an invocation.
const IN_BETWEEN: Duration = Duration::from_secs(1);
/// So often a ledger event is sent with a flush.
const LEDGER_EVERY: Duration = Duration::from_secs(300);
/// Tries without a pause for a dead connection.
const TRIES_AT_ONCE: u32 = 2;
/// A request that fails so often in a row makes way for another one: it may fail for what it holds.
pub(super) const TRIES_ALONE: u32 = 4;
/// An event that stands alone is given up when it was refused so often, and others were taken
/// since.
const REFUSALS: u32 = 3;

/// Said of an event of the extension's own, once.
pub(super) const TOO_SMALL: &str = "KINESIS_TELEMETRY_RECORD_BYTES is too small for one of the \
    extension's own events; it is not sent";

/// What may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// What the flush waits for.
    Flush,
    /// In between: what is set aside and due again, and what is on disk.
    Aside,
    /// Everything that is due.
    All,
}

/// Where a request is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Kinesis,
    Disk,
}

/// Of a request that holds no event of Lambda's: the sandbox events in it that Kinesis has not
/// taken yet.
fn introductions(packer: &mut Packer, request: &Request) -> Vec<u16> {
    if request.events() > 0 || !packer.is_introducing() {
        return Vec::new();
    }
    request.data().flat_map(|lines| packer.introduced_in(&lines)).collect()
}

impl Core {
    /// The next request inside an invocation, at its end, or on Managed Instances at any time.
    pub(super) fn send_step(&mut self, tick: &Tick, view: View) -> Option<Step> {
        let window = self.window(tick, view);
        let step = window.and_then(|(until, scope)| self.next_step(tick, view, until, scope));
        if step.is_none() {
            self.carries = false;
        }
        step.or_else(|| self.relief(tick))
    }

    fn window(&self, tick: &Tick, view: View) -> Option<(Deadline, Scope)> {
        match self.held.as_ref().map(|held| held.phase) {
            Some(Phase::Flush(until)) => return Some((until, Scope::Flush)),
            Some(Phase::Probe { until, .. }) => {
                let left = until.saturating_duration_since(tick.mono);
                let until = Deadline::after(tick.mono, left, Limit::Probe);
                return (!self.held.as_ref()?.tried).then_some((until, Scope::All));
            }
            Some(Phase::AwaitEnd) | None => {}
        }
        if !self.is_awake(tick) || !self.may_probe(tick) {
            return None;
        }
        let until = self.in_between_deadline(tick);
        if policy::in_between(&self.pending(view), self.max_age(), tick.age) {
            return Some((until, Scope::All));
        }
        let aside =
            self.backlog.aside().iter().any(|parcel| self.opens_window_at(parcel) <= tick.age);
        let apart = view.apart != Oldest::Empty
            && self.may_read_apart()
            && (!self.retry.is_open() || self.backlog.is_empty());
        // All was tried that is read: others come to their turn.
        let crowded = view.apart != Oldest::Empty && self.is_crowded();
        (aside || apart || crowded).then_some((until, Scope::Aside))
    }

    /// Of what is done inside an invocation: the function may end meanwhile, and the time of the
    /// flush begin.
    pub(super) fn in_between_deadline(&self, tick: &Tick) -> Deadline {
        let most = if self.retry.is_open() { PROBE } else { IN_BETWEEN };
        let time = most.min(self.settings.flush_timeout);
        let until = Deadline::after(tick.mono, time, Limit::FlushTimeout);
        self.held.as_ref().map_or(until, |held| until.earlier(held.deadline))
    }

    /// From when on what is set aside is sent again in between, although nothing else is.
    pub(super) fn opens_window_at(&self, parcel: &Parcel) -> Duration {
        let goes_when_due =
            parcel.holds || parcel.tries == 0 || self.carries || self.sends_aside_alone();
        if goes_when_due { parcel.due } else { parcel.due.max(parcel.since + self.max_age()) }
    }

    /// On Managed Instances no flush ever comes that what is set aside could go with, and at the
    /// end nothing comes.
    fn sends_aside_alone(&self) -> bool {
        self.settings.continuous || self.stopping.is_some()
    }

    /// Whether a flush has something to send: now, or as soon as a pause is over.
    pub(super) fn has_due(&self, view: View) -> bool {
        !self.backlog.is_fresh_empty()
            || view.overflow != Oldest::Empty
            || self.backlog.aside().iter().any(|parcel| parcel.holds)
    }

    /// The next request or the step that leads to it, if anything may be sent now.
    pub(super) fn next_step(
        &mut self,
        tick: &Tick,
        view: View,
        until: Deadline,
        scope: Scope,
    ) -> Option<Step> {
        if until.left(tick.mono) < MIN_TIME_LEFT
            || self.retry.wait_until(tick.mono, tick.age).is_some()
        {
            return None;
        }
        if let Some(step) = self.rotate(tick, view) {
            return Some(step);
        }
        let fresh_goes =
            scope != Scope::Aside && !self.backlog.is_fresh_empty() && self.has_room_to_fail();
        let segment = self.next_segment(view);
        let mut parcel = self.take_due(tick, scope, fresh_goes || segment.is_some());
        let mut is_stuck = false;
        if parcel.is_none() {
            if let Some(step) = self.make_room_aside(tick) {
                return Some(step);
            }
            is_stuck = self.is_stuck(tick) && !self.has_room_for_more();
            if is_stuck {
                parcel = Some(self.take_stuck()?);
            }
        }
        if let Some(parcel) = parcel {
            return match self.divided(tick, parcel, is_stuck) {
                Some(parcel) => Some(self.send(tick, parcel, until)),
                // It was given up; there may be another one.
                None => self.out.pop_front().or_else(|| self.next_step(tick, view, until, scope)),
            };
        }
        if fresh_goes {
            // Where nothing of it fits into a request, there is something to say about that.
            let parcel = self.pack(tick, Destination::Kinesis);
            return parcel
                .map(|parcel| self.send(tick, parcel, until))
                .or_else(|| self.out.pop_front());
        }
        let (segment, apart) = segment?;
        self.reads_apart = apart;
        Some(Step::Read(segment))
    }

    /// What is set aside, due, and to be sent before the `others`.
    fn take_due(&mut self, tick: &Tick, scope: Scope, others: bool) -> Option<Parcel> {
        let (most, has_turn) = (self.most_tries(), self.has_turn());
        let takes_along = self.held.as_ref().is_some_and(|held| self.takes_along(tick, held));
        let is_old = self.is_old(tick);
        self.backlog.take_aside(|parcel| {
            // What failed through a whole flush holds no later one.
            parcel.due <= tick.age
                && (parcel.holds || scope != Scope::Flush || (takes_along && is_old(parcel)))
                && !(others && parcel.makes_way(most) && !has_turn(parcel))
        })
    }

    /// A flush that has delivered something takes one along of what was set aside for long: where
    /// functions are short there is never another time for that.
    pub(super) fn takes_along(&self, tick: &Tick, held: &Held) -> bool {
        let is_old = self.is_old(tick);
        held.delivered
            && !held.carried
            && matches!(held.phase, Phase::Flush(_))
            && self.retry.wait_until(tick.mono, tick.age).is_none()
            && self.backlog.aside().iter().any(|parcel| parcel.due <= tick.age && is_old(parcel))
    }

    fn is_old(&self, tick: &Tick) -> impl Fn(&Parcel) -> bool + use<> {
        let (age, max_age) = (tick.age, self.settings.max_age);
        move |parcel| parcel.since + max_age <= age
    }

    pub(super) fn in_flush(&self) -> bool {
        self.held.as_ref().is_some_and(|held| matches!(held.phase, Phase::Flush(_)))
    }

    /// The segment that is read next, if there is room for one, and whether it is one of those
    /// apart.
    fn next_segment(&self, view: View) -> Option<(SegmentId, bool)> {
        let stopping = self.stopping.is_some();
        match (view.overflow, view.apart) {
            // At the end nothing is put on disk to make room: what is read stays in memory until it
            // is sent.
            _ if stopping && !self.has_room_aside() => None,
            (Oldest::Ready(segment), _) => Some((segment, false)),
            // Never inside a flush: nobody is held for it.
            (Oldest::Empty, Oldest::Ready(segment))
                if stopping || (!self.in_flush() && self.may_read_apart()) =>
            {
                Some((segment, true))
            }
            _ => None,
        }
    }

    /// Whether a segment of those apart may be read: while Kinesis takes requests, or all that it
    /// does not take may fail for what they hold.
    fn may_read_apart(&self) -> bool {
        let by_content = !self.backlog.aside().is_empty()
            && self.backlog.aside().iter().all(|parcel| parcel.suspect);
        // And where nothing else waits, nothing else shows whether Kinesis takes requests again.
        self.has_room_aside()
            && (self.retry.failures() == 0 || by_content || self.backlog.is_empty())
    }

    /// Whether one more segment may be read: within the quarter of the memory for what is set
    /// aside, and one beside a single one in any case. At the end that memory is needed for nothing
    /// else. With memory full, what is read beyond that would have to make room again; and at the
    /// end what waits in memory is older.
    fn has_room_aside(&self) -> bool {
        if self.is_over() {
            let aside = self.backlog.aside().len();
            return aside == 0 || (aside == 1 && self.stopping.is_none());
        }
        self.backlog.aside().len() < 2
            || self.backlog.aside_bytes() <= self.gauge.bound() / 4
            || (self.stopping.is_some()
                && self.gauge.held() + self.packer.limits().body_bytes() <= self.gauge.bound())
    }

    fn send(&mut self, tick: &Tick, mut parcel: Parcel, until: Deadline) -> Step {
        let events = parcel.request.events();
        self.ledger.requests.add(1);
        if parcel.sent_before {
            self.ledger.retried.add(events);
        } else {
            parcel.refused_at = self.deliveries;
        }
        if parcel.ambiguous {
            self.ledger.possible_duplicates.add(events);
        }
        self.retry.sending(tick.mono);
        // Until it has delivered something.
        self.others_failed = !parcel.makes_way(self.most_tries());
        if let Some(held) = &mut self.held {
            held.tried |= held.phase != Phase::AwaitEnd;
            held.carried |= !parcel.holds;
        }
        // Whatever the flush may take: the function can end, and its time begin, while the request
        // is on its way.
        let deadline = until.earlier(Deadline::after(
            tick.mono,
            self.settings.flush_timeout,
            Limit::FlushTimeout,
        ));
        let deadline = if self.stopping.is_some() { until } else { deadline };
        Step::Send { parcel: Box::new(parcel), deadline }
    }

    // --- packing ---------------------------------------------------------------------------------

    /// A request of what was never sent and is in memory, oldest first.
    pub(super) fn pack(&mut self, tick: &Tick, goes_to: Destination) -> Option<Parcel> {
        let since = self.backlog.oldest()?;
        let ledger_due = goes_to == Destination::Kinesis
            && tick.age.saturating_sub(self.ledger_at) >= LEDGER_EVERY;
        if !ledger_due && let Some(parcel) = self.take_packed() {
            return Some(parcel);
        }
        let (limits, spares) = (self.packer.limits(), Arc::clone(&self.spares));
        let mut request = Request::with_buffer(limits, spares.body(limits.body_bytes()));
        let waiting = match goes_to {
            Destination::Kinesis => self.waiting_introductions(),
            Destination::Disk => Vec::new(),
        };
        let introduced = self.packer.introduce(&mut request, &waiting, tick.wall);
        let accounted = !ledger_due || self.add_ledger(tick, &mut request);
        if !(introduced && accounted) {
            self.out.push_back(Step::Log(Level::Error, "own-event", TOO_SMALL.to_owned()));
        }
        while let Some(item) = self.backlog.pop(|load| matches!(load, Load::Events(_))) {
            let Load::Events(mut batch) = item.load else { continue };
            let oversized = self.packer.pack(&mut request, &mut batch);
            self.count_oversized(oversized);
            if !batch.remaining().is_empty() {
                self.backlog.push_front(Item { load: Load::Events(batch), ..item });
                break;
            }
            drop(item.charge);
            spares.keep_batch(batch);
        }
        if request.is_empty() {
            spares.keep_body(request.into_buffer());
            return None;
        }
        let charge = self.gauge.charge(request.cost());
        Some(Parcel::new(request, charge, since))
    }

    /// The sandbox events that wait alone, because Kinesis refused them alone.
    fn waiting_introductions(&mut self) -> Vec<u16> {
        let Core { backlog, packer, .. } = self;
        let aside = backlog.aside().iter();
        aside.flat_map(|parcel| introductions(packer, &parcel.request)).collect()
    }

    /// What the listener has packed, if that is the oldest.
    fn take_packed(&mut self) -> Option<Parcel> {
        let item = self.backlog.pop(|load| matches!(load, Load::Packed(_)))?;
        let Load::Packed(request) = item.load else { return None };
        let charge = item.charge.unwrap_or_else(|| self.gauge.charge(request.cost()));
        Some(Parcel::new(*request, charge, item.since))
    }

    /// The ledger as it stands. Says whether it fits.
    fn add_ledger(&mut self, tick: &Tick, request: &mut Request) -> bool {
        self.ledger_at = tick.age;
        self.ledgers += 1;
        self.ledger.max_queued_bytes.at_least(self.gauge.most() as u64);
        let (record, name) = (self.ledger.json(None), format!("ledger-{}", self.ledgers));
        let fits = self.packer.internal_event(request, LEDGER_EVENT, &record, &name, tick.wall);
        self.print_metrics(tick);
        fits
    }

    fn count_oversized(&mut self, events: u64) {
        if events > 0 {
            self.ledger.dropped_rejected.add(events);
            let line = format!(
                "KINESIS_TELEMETRY_RECORD_BYTES is too small for what the extension adds to an \
                 event; {events} events are dropped"
            );
            self.out.push_back(Step::Log(Level::Error, "envelope", line));
            let lines = self.packer.take_oversized();
            if !lines.is_empty() {
                self.out.push_back(Step::Print(lines));
            }
        }
    }

    pub(super) fn print_metrics(&mut self, tick: &Tick) {
        if let Some(metrics) = &mut self.metrics {
            let name = self.packer.sandbox().facts().function_name.unwrap_or_default();
            self.out
                .push_back(Step::Print(metrics.line(&self.ledger, &name, tick.wall).into_bytes()));
        }
    }

    // --- what became of it -----------------------------------------------------------------------

    pub(super) fn sent(&mut self, tick: &Tick, mut parcel: Parcel, sent: Sent) {
        parcel.sent_before = true;
        self.rotated = false;
        match sent {
            Ok(outcomes) => self.records(tick, parcel, &outcomes),
            Err((error, advice)) => self.request_failed(tick, parcel, &error, &advice),
        }
    }

    fn records(&mut self, tick: &Tick, mut parcel: Parcel, outcomes: &[RecordOutcome]) {
        let is_taken = |index: usize| outcomes.get(index) == Some(&RecordOutcome::Taken);
        let (mut taken, mut events) = (0, 0);
        for index in (0..outcomes.len()).filter(|index| is_taken(*index)) {
            let (in_record, bytes) = parcel.request.record(index);
            self.ledger.delivered.add(in_record);
            self.ledger.sent_bytes.add(bytes);
            events += in_record;
            taken += 1;
        }
        let refused_code = outcomes.iter().find_map(|outcome| match outcome {
            RecordOutcome::Taken => None,
            RecordOutcome::Failed { code, .. } => Some(code),
        });
        if taken > 0 {
            self.note_introduction(&parcel.request, is_taken);
            self.delivered(events);
        }
        let Some(code) = refused_code else { return self.acknowledge(parcel) };
        self.note_records_failure();
        self.ledger.request_error(code);
        let line = format!(
            "Kinesis took only {taken} of {} records ({code}); the others are sent again",
            outcomes.len()
        );
        self.out.push_back(Step::Log(Level::Info, "records", line));
        // Of those that were not taken: whether it is for what they are.
        let is_refused: Vec<bool> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                RecordOutcome::Taken => None,
                RecordOutcome::Failed { kind, .. } => {
                    Some(!matches!(kind, ErrorKind::Throttled | ErrorKind::Transient))
                }
            })
            .collect();
        if taken == 0 {
            // What was refused before has a pause of its own, and nothing else waits for it.
            match is_refused.contains(&false) {
                _ if parcel.tries > 0 => {}
                true => self.retry.failed(tick.age, true),
                false => self.retry.pause_all(tick.age, false),
            }
            self.probe_failed(tick);
        }
        if taken > 0 {
            // A sandbox event may come again.
            if let Some(open) = self.open_segment(&parcel) {
                open.is_whole &= events == 0;
            }
            parcel.request.keep(|index| !is_taken(index));
            (parcel.intact, parcel.refused) = (false, 0);
        }
        // Kinesis has said of each record what became of it.
        parcel.ambiguous = false;
        self.set_records_aside(tick, parcel, &is_refused);
    }

    /// What is left of a request, of which each record failed: for what it is, or in a way that
    /// passes.
    fn set_records_aside(&mut self, tick: &Tick, mut parcel: Parcel, is_refused: &[bool]) {
        if is_refused.contains(&true) && is_refused.contains(&false) {
            let others = parcel.request.divide(|index| is_refused.get(index) == Some(&true));
            (parcel.intact, parcel.refused) = (false, 0);
            let charge = self.gauge.charge(others.cost());
            let passing = parcel.part(others, charge);
            self.opened(&passing);
            self.set_aside(tick, passing, Refusal::Passing, true);
            self.set_aside(tick, parcel, Refusal::Content, false);
        } else {
            let refusal =
                if is_refused.contains(&true) { Refusal::Content } else { Refusal::Passing };
            self.set_aside(tick, parcel, refusal, refusal == Refusal::Passing);
        }
    }

    /// Until Kinesis has taken the sandbox events, each request begins with them.
    fn note_introduction(&mut self, request: &Request, is_taken: impl Fn(usize) -> bool) {
        let mut taken = request.data().enumerate().filter(|(index, _)| is_taken(*index));
        while self.packer.is_introducing()
            && let Some((_, lines)) = taken.next()
        {
            self.packer.settle_introductions(&lines);
        }
    }

    fn delivered(&mut self, events: u64) {
        self.retry.delivered();
        self.deliveries += 1;
        (self.tries_at_once, self.carries, self.others_failed) = (0, true, false);
        if let Some(held) = &mut self.held {
            held.delivered |= events > 0 || held.tried;
        }
    }

    /// Whether a request is sent again without a pause. The client itself sees to it that it
    /// removes each cause only once.
    pub(super) fn goes_at_once(&mut self, error: &Error) -> bool {
        self.tries_at_once += u32::from(error.stale);
        error.retry_now || (error.stale && self.tries_at_once <= TRIES_AT_ONCE)
    }

    fn request_failed(&mut self, tick: &Tick, mut parcel: Parcel, error: &Error, advice: &str) {
        parcel.ambiguous |= error.ambiguous;
        // Somebody has something better to do for this thread.
        let interrupted = error.kind == ErrorKind::Interrupted;
        let at_once = !interrupted && self.goes_at_once(error);
        if !(interrupted || (at_once && error.stale)) {
            // A pooled connection that had died in a freeze is no error.
            self.ledger.request_error(&error.code);
        }
        if interrupted || at_once {
            if let Some(held) = self.held.as_mut().filter(|_| at_once) {
                // Nor has it shown whether Kinesis answers again.
                held.tried &= !matches!(held.phase, Phase::Probe { .. });
            }
            parcel.due = tick.age;
            // The client may have given it another form.
            parcel.charge.resize(parcel.request.cost());
            return self.backlog.set_aside(parcel);
        }
        let passes = matches!(
            error.kind,
            ErrorKind::Throttled | ErrorKind::Transient | ErrorKind::InvalidRequest
        );
        self.out.push_back(if passes {
            Step::Log(
                Level::Warn,
                "transient",
                format!("PutRecords failed and is tried again: {error}"),
            )
        } else {
            Step::Log(
                Level::Error,
                "configuration",
                format!("PutRecords failed: {error}; to fix it, {advice}"),
            )
        });
        // Where others were taken meanwhile it is for what it holds, and nothing else waits for it.
        if !(parcel.suspect && self.deliveries > parcel.refused_at) {
            self.retry.failed(tick.age, error.kind == ErrorKind::Throttled);
        }
        if !passes && self.stopping.is_none() && !self.retry.is_open() {
            // It will not pass within a flush.
            self.retry.open(tick.age);
        } else {
            self.probe_failed(tick);
        }
        let refusal = match error.kind {
            ErrorKind::InvalidRequest => Refusal::Content,
            ErrorKind::Throttled => Refusal::Passing,
            _ => Refusal::Whole,
        };
        self.set_aside(tick, parcel, refusal, error.kind == ErrorKind::Throttled);
        self.note_stop_failure();
    }

    /// While the breaker is open each request is a probe; the next one comes later.
    fn probe_failed(&mut self, tick: &Tick) {
        if self.retry.is_open() && self.stopping.is_none() {
            self.retry.open(tick.age);
        }
    }

    fn set_aside(&mut self, tick: &Tick, mut parcel: Parcel, refusal: Refusal, throttled: bool) {
        let introduced = introductions(&mut self.packer, &parcel.request);
        if !introduced.is_empty() {
            let waiting = self.waiting_introductions();
            if introduced.iter().all(|id| waiting.contains(id)) {
                // One of each is enough.
                return self.acknowledge(parcel);
            }
        }
        parcel.tries += 1;
        parcel.left_behind |= self.deliveries > parcel.refused_at;
        // Of requests that fail as a whole again and again, the first time counts.
        let again = refusal == Refusal::Whole && parcel.refusal == Refusal::Whole;
        if parcel.refused == 0 && !again {
            parcel.refused_at = self.deliveries;
        }
        parcel.refusal = refusal;
        let others_taken = self.deliveries > parcel.refused_at;
        let suspect = refusal == Refusal::Content
            || (refusal == Refusal::Whole && (others_taken || parcel.tries > TRIES_ALONE));
        parcel.refused += u32::from(suspect);
        parcel.suspect |= suspect;
        parcel.due = tick.age + self.retry.pause(parcel.tries, throttled);
        if suspect && parcel.is_alone() {
            // Only what is sent beside it can show whether it is this event or all of Kinesis.
            parcel.holds = false;
        }
        parcel.request.shrink();
        parcel.charge.resize(parcel.request.cost());
        self.backlog.set_aside(parcel);
    }

    /// Before it is sent again: in two parts, if it was refused while others were taken, or twice;
    /// `None` if it stood alone and is given up. `is_stuck`: no others can be sent to see whether
    /// it is for what it holds.
    fn divided(&mut self, tick: &Tick, mut parcel: Parcel, is_stuck: bool) -> Option<Parcel> {
        let others_taken = self.deliveries > parcel.refused_at;
        let by_content = parcel.refusal == Refusal::Content;
        let twice = (by_content || is_stuck) && parcel.refused > 1;
        if parcel.refused == 0 || !(others_taken || twice) {
            return Some(parcel);
        }
        let empty = Request::new(self.packer.limits());
        match std::mem::replace(&mut parcel.request, empty).halve() {
            Ok((first, second)) => {
                (parcel.tries, parcel.due, parcel.intact) = (0, tick.age, false);
                parcel.charge.resize(first.cost());
                parcel.request = first;
                let charge = self.gauge.charge(second.cost());
                let mut second = parcel.part(second, charge);
                for part in [&mut parcel, &mut second] {
                    // A part that is refused is halved at once; but what an event that stands alone
                    // is refused counts anew.
                    part.refused = u32::from(!part.is_alone());
                }
                self.opened(&second);
                self.backlog.set_aside(second);
                Some(parcel)
            }
            Err(alone) => {
                parcel.request = *alone;
                if !(by_content && others_taken && parcel.refused >= REFUSALS) {
                    return Some(parcel);
                }
                let events = parcel.request.events();
                self.ledger.dropped_rejected.add(events);
                self.note_introduction(&parcel.request, |_| true);
                self.print_lost(&parcel);
                self.acknowledge(parcel);
                let line = if events > 0 {
                    format!(
                        "Kinesis refuses a record again and again while it takes others; {events} \
                         events are dropped"
                    )
                } else {
                    "Kinesis refuses one of the extension's own events again and again while it \
                     takes others; it is not sent"
                        .to_owned()
                };
                self.out.push_back(Step::Log(Level::Error, "rejected", line));
                None
            }
        }
    }

    /// Another part of a parcel: its segment is settled when all parts are.
    fn opened(&mut self, part: &Parcel) {
        if let Some(open) = self.open_segment(part) {
            open.parts += 1;
        }
    }

    fn open_segment(&mut self, part: &Parcel) -> Option<&mut OpenSegment> {
        self.open_segments.iter_mut().find(|open| part.segment == Some(open.id))
    }

    /// The segments whose files hold just what waits of them.
    pub(super) fn whole_segments(&self) -> Vec<SegmentId> {
        self.open_segments.iter().filter(|open| open.is_whole).map(|open| open.id).collect()
    }

    /// All of a parcel is delivered, given up, or kept elsewhere.
    pub(super) fn acknowledge(&mut self, parcel: Parcel) {
        self.leave_segment(&parcel);
        self.spares.keep_body(parcel.request.into_buffer());
    }

    /// A parcel is none of its segment's any more.
    pub(super) fn leave_segment(&mut self, parcel: &Parcel) {
        let has_events = parcel.request.events() > 0;
        let of_parcel = |open: &OpenSegment| parcel.segment == Some(open.id);
        let Some(index) = self.open_segments.iter().position(of_parcel) else { return };
        let OpenSegment { id, parts, is_whole } = self.open_segments.swap_remove(index);
        if parts > 1 {
            let is_whole = is_whole && !has_events;
            self.open_segments.push(OpenSegment { id, parts: parts - 1, is_whole });
        } else {
            self.out.push_back(Step::Remove(id));
        }
    }

    /// `FALLBACK=log`
    pub(super) fn print_lost(&mut self, parcel: &Parcel) {
        if self.packer.prints_lost() {
            self.out.push_back(Step::Print(parcel.request.data().flatten().collect()));
        }
    }
}
