//! The core's third part: the end of the sandbox. Pure, like [`super::core`].
//!
//! In this order: wait for the last report, close the intake and look once more, send everything,
//! keep on disk what a reset would lose, count what nobody will send, send the last ledger, end.
//! Before a reset the disk comes first: as soon as one try has failed, Kinesis is known to be down,
//! or more waits than one request takes, everything is written there, and is then sent from there
//! with the time that remains. Before the end for good, what an earlier process has left is read
//! once nothing can be sent, and in the last part of the time in any case: so that it is counted.

use std::time::{Duration, Instant};

use super::backlog::Parcel;
use super::core::{Core, MIN_TIME_LEFT, Tick};
use super::end::{Phase, Stopping};
use super::message::Load;
use super::sending::{Destination, Scope, TOO_SMALL};
use super::step::{Oldest, Sent, Step, View};
use crate::kinesis::error::ErrorKind;
use crate::kinesis::line::LEDGER_EVENT;
use crate::kinesis::request::Request;
use crate::kinesis::response::RecordOutcome;
use crate::log::Level;

/// Kept back of that for a last line on stderr.
const LAST_LINE_TIME: Duration = Duration::from_millis(40);
/// Kept back of that for the ledger and its line, when files are still to be read to be counted.
const DISCARD_TIME: Duration = Duration::from_millis(70);
/// Requests for the last ledger.
const LEDGER_TRIES: u32 = 5;
/// Before a reset, this part of the time that is left is kept back from a first request: for the
/// disk. The request has the rest, of which a connection that was used before may take a third.
const DISK_PART: u32 = 3;

impl Core {
    /// The next step of the end, once it has begun; else `None`.
    pub(super) fn stop_step(&mut self, tick: &Tick, view: View) -> Option<Step> {
        loop {
            let phase = self.stopping.as_ref()?.phase;
            // Each of them gives a step, or goes on to the next phase.
            let step = match phase {
                Phase::AwaitLastReport => self.await_last_report(tick, view),
                Phase::Send => self.send_everything(tick, view),
                Phase::Keep => self.keep_unsent(tick),
                Phase::Drop => self.drop_unsent(),
                Phase::Ledger => self.last_ledger(tick),
                Phase::Exit => Some(Step::Exit),
            };
            if let Some(step) = step.or_else(|| self.out.pop_front()) {
                return Some(step);
            }
        }
    }

    fn enter(&mut self, phase: Phase) {
        if let Some(stopping) = &mut self.stopping {
            stopping.phase = phase;
        }
    }

    fn await_last_report(&mut self, tick: &Tick, view: View) -> Option<Step> {
        let stopping = self.stopping.as_ref()?;
        let (reset, closed_by) = (stopping.is_reset(), stopping.send_until().at());
        // In a short window the disk and the ledger need the rest.
        let until = stopping.report_until.min(closed_by);
        if self.invocations.all_reported() || tick.mono >= until {
            // From here on the rest has an end.
            self.enter(Phase::Send);
            return Some(Step::CloseIntake(closed_by));
        }
        // Before a reset the report often never comes, and there may be little time; and a full
        // request need not wait for it.
        let full = self.backlog.fresh_bytes() >= self.packer.request_bytes()
            || view.overflow != Oldest::Empty;
        let step = if reset || full { self.send_or_keep(tick, view) } else { None };
        step.or_else(|| Some(Step::Wait(Some(self.pause_until(tick, until)))))
    }

    fn send_everything(&mut self, tick: &Tick, view: View) -> Option<Step> {
        if let Some(step) = self.send_or_keep(tick, view) {
            return Some(step);
        }
        let stopping = self.stopping.as_mut()?;
        let until = stopping.send_until();
        let waits = !self.backlog.is_empty()
            || view.overflow != Oldest::Empty
            || (view.apart != Oldest::Empty && !stopping.failed);
        if waits && until.left(tick.mono) > MIN_TIME_LEFT {
            return Some(Step::Wait(Some(
                self.pause_until(tick, until.sooner(MIN_TIME_LEFT).at()),
            )));
        }
        stopping.phase = Phase::Keep;
        self.spool_again = None;
        None
    }

    /// The next request, or before a reset perhaps the disk.
    fn send_or_keep(&mut self, tick: &Tick, view: View) -> Option<Step> {
        let stopping = self.stopping.as_ref()?;
        let mut until = stopping.send_until();
        let count_at = stopping.count_at(view.uncounted);
        let counts =
            view.uncounted > 0 && !stopping.is_reset() && until.left(tick.mono) > MIN_TIME_LEFT;
        let disk_alone = stopping.short && stopping.phase == Phase::AwaitLastReport;
        if self.keeps(tick) {
            let much = self.backlog.fresh_bytes() > self.packer.request_bytes();
            if (stopping.failed || self.retry.is_open() || much)
                && let Some(parcel) = self.take_for_disk(tick)
            {
                return Some(Step::Spool(Box::new(parcel)));
            }
            if disk_alone {
                // Nor is anything sent before what Lambda still posts, and what waits for a choice.
                return None;
            }
            until = until.sooner(until.left(tick.mono) / DISK_PART);
        }
        if counts {
            until = until.earlier(count_at);
        }
        let step = self.next_step(tick, view, until, Scope::All);
        step.or_else(|| counts.then_some(Step::Count))
    }

    /// Whether what is unsent is written to disk, and there is time for that.
    fn keeps(&self, tick: &Tick) -> bool {
        self.spool_works(tick)
            && self.stopping.as_ref().is_some_and(|stopping| {
                stopping.is_reset() && stopping.deadline.left(tick.mono) > LAST_LINE_TIME
            })
    }

    /// What is in memory and not on disk as well.
    fn take_for_disk(&mut self, tick: &Tick) -> Option<Parcel> {
        let whole = self.whole_segments();
        self.backlog
            .take_aside(|parcel| parcel.segment.is_none_or(|id| !whole.contains(&id)))
            .or_else(|| self.pack(tick, Destination::Disk))
    }

    /// When it is worth another look, at the latest at `until`.
    fn pause_until(&self, tick: &Tick, until: Instant) -> Instant {
        let due = self
            .backlog
            .aside()
            .iter()
            .map(|parcel| parcel.due)
            .min()
            .and_then(|due| tick.mono.checked_add(due.saturating_sub(tick.age)));
        let next = due.max(self.retry.wait_until(tick.mono, tick.age)).filter(|at| *at > tick.mono);
        next.map_or(until, |at| at.min(until))
    }

    /// The sandbox is reset: what could not be sent is written to disk, for the process that starts
    /// next in this sandbox.
    fn keep_unsent(&mut self, tick: &Tick) -> Option<Step> {
        if self.keeps(tick) {
            // Those are on disk already, and marked where they are in doubt.
            let whole = self.whole_segments();
            let is_there = |parcel: &Parcel| parcel.segment.is_some_and(|id| whole.contains(&id));
            while self.backlog.take_aside(is_there).is_some() {}
            if let Some(parcel) = self.take_for_disk(tick) {
                return Some(Step::Spool(Box::new(parcel)));
            }
        }
        self.enter(Phase::Drop);
        None
    }

    /// Nobody will send what is left: it is counted. Before a reset what is on disk is not lost.
    fn drop_unsent(&mut self) -> Option<Step> {
        let stopping = self.stopping.as_ref()?;
        let (reset, discard_until) =
            (stopping.is_reset(), stopping.deadline.sooner(DISCARD_TIME).at());
        let whole = self.whole_segments();
        while let Some(parcel) = self.backlog.take_aside(|_| true) {
            if reset && parcel.segment.is_some_and(|id| whole.contains(&id)) {
                continue;
            }
            self.ledger.dropped_undelivered.add(parcel.request.events());
            self.print_lost(&parcel);
            self.acknowledge(parcel);
        }
        while let Some(item) = self.backlog.pop(|_| true) {
            self.ledger.dropped_undelivered.add(item.load.events());
            if self.packer.prints_lost() {
                let lines = match &item.load {
                    Load::Nothing => Vec::new(),
                    Load::Events(batch) => self.packer.lines(batch),
                    Load::Packed(request) => request.data().flatten().collect(),
                };
                self.out.push_back(Step::Print(lines));
            }
        }
        self.enter(Phase::Ledger);
        if !reset && self.settings.spool {
            // Behind the removal of what was just counted.
            self.out.push_back(Step::Discard(discard_until));
        }
        None
    }

    fn last_ledger(&mut self, tick: &Tick) -> Option<Step> {
        let accounted = &mut self.stopping.as_mut()?.accounted;
        if !std::mem::replace(accounted, true) && self.metrics.is_some() {
            // All is counted, and whether Kinesis takes the ledger does not matter for this.
            self.print_metrics(tick);
            return None;
        }
        let stopping = self.stopping.as_ref()?;
        let deadline = stopping.deadline.sooner(LAST_LINE_TIME);
        // The pause of what was refused before is not the ledger's: there is no later time for it.
        let blocked = self
            .retry
            .bound_until(tick.mono)
            .into_iter()
            .chain((stopping.ledger_tries > 0).then_some(stopping.ledger_at))
            .max();
        let at = blocked.unwrap_or(tick.mono).max(tick.mono);
        if stopping.ledger_delivered
            || stopping.ledger_tries == LEDGER_TRIES
            || deadline.at().saturating_duration_since(at) < MIN_TIME_LEFT
        {
            self.last_line();
            return None;
        }
        if at > tick.mono {
            return Some(Step::Wait(Some(at)));
        }
        let reason = stopping.reason.clone();
        let request = match self.stopping.as_mut().and_then(|stopping| stopping.ledger.take()) {
            Some(request) => request,
            None => {
                let mut request = Request::new(self.packer.limits());
                self.ledger.max_queued_bytes.at_least(self.gauge.most() as u64);
                let record = self.ledger.json(Some(&reason));
                if !self.packer.internal_event(
                    &mut request,
                    LEDGER_EVENT,
                    &record,
                    "ledger",
                    tick.wall,
                ) {
                    self.stopping.as_mut()?.ledger_error = Some(TOO_SMALL.into());
                    self.last_line();
                    return None;
                }
                Box::new(request)
            }
        };
        self.stopping.as_mut()?.ledger_tries += 1;
        self.retry.sending(tick.mono);
        Some(Step::SendLedger { request, deadline })
    }

    pub(super) fn ledger_sent(&mut self, tick: &Tick, request: Box<Request>, sent: Sent) {
        let delivered = matches!(
            &sent,
            Ok(outcomes) if outcomes.iter().all(|outcome| *outcome == RecordOutcome::Taken)
        );
        let hopeless = matches!(
            &sent,
            Err((error, _))
                if matches!(error.kind, ErrorKind::Configuration | ErrorKind::Credentials)
        );
        let at_once = matches!(&sent, Err((error, _)) if self.goes_at_once(error));
        if delivered {
            self.retry.delivered();
        }
        let Some(stopping) = &mut self.stopping else { return };
        stopping.ledger = Some(request);
        stopping.ledger_delivered = delivered;
        stopping.ledger_error = match &sent {
            Err((error, _)) => Some(error.to_string().into()),
            Ok(outcomes) => outcomes.iter().find_map(|outcome| match outcome {
                RecordOutcome::Failed { code, .. } => Some(code.as_str().into()),
                RecordOutcome::Taken => None,
            }),
        };
        if hopeless && !at_once {
            stopping.ledger_tries = LEDGER_TRIES;
        }
        let pause =
            if at_once { Duration::ZERO } else { self.retry.pause(stopping.ledger_tries, true) };
        stopping.ledger_at = tick.mono.checked_add(pause).unwrap_or(tick.mono);
    }

    /// A line about what is lost must be said before `main` stops waiting.
    fn last_line(&mut self) {
        let Some(stopping) = &self.stopping else { return };
        let json = || self.ledger.json(Some(&stopping.reason));
        let lost = self.ledger.dropped();
        if lost > 0 {
            self.out.push_back(Step::Log(
                Level::Error,
                "lost",
                format!("{lost} events are lost: {}", json()),
            ));
        } else if !stopping.ledger_delivered {
            let cause = stopping.ledger_error.as_deref().unwrap_or("no time was left");
            self.out.push_back(Step::Log(
                Level::Warn,
                "ledger",
                format!("the ledger could not be sent: {cause}; {}", json()),
            ));
        } else {
            self.out.push_back(Step::Log(Level::Info, "ledger", format!("the end: {}", json())));
        }
        self.out.push_back(Step::Reply(stopping.ticket));
        self.enter(Phase::Exit);
    }

    /// Records failed. Otherwise than before a reset there is no disk for them, and Kinesis may
    /// take others.
    pub(super) fn note_records_failure(&mut self) {
        if self.stopping.as_ref().is_some_and(Stopping::is_reset) {
            self.note_stop_failure();
        }
    }

    /// A request failed: before a reset, the disk comes next.
    pub(super) fn note_stop_failure(&mut self) {
        if let Some(stopping) = &mut self.stopping {
            stopping.failed = true;
        }
    }
}
