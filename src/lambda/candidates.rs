//! The invocations between which `KEEP` chooses: what is known of each, until it is forgotten.
//! Pure.
//!
//! Those whose events wait share a verdict with them. So nobody looks for the events when an
//! invocation ends or is forgotten.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::invocations::is_later;
use super::keep::{Choice, Facts, Reason, Settings, choose, kept};
use super::observed::{LEVELS, Milestone, MilestoneKind, PlatformResult, Run};
use super::summary::Summary;
use crate::clock::EpochMs;
use crate::event::Batch;

/// Invocations that are over and remembered, because late events follow the choice of theirs.
const MAX_OVER: usize = 64;
/// The same where they run side by side (Managed Instances), and so end at nearly the same time.
const MAX_OVER_OVERLAPPING: usize = 512;
/// All that are remembered.
const MAX_INVOCATIONS: usize = 1024;
/// Of those, the ids that only logs have named. They may be of something else, and must not push
/// out invocations that run.
const MAX_NAMED: usize = MAX_INVOCATIONS / 2;

/// Whether the events of an invocation are shipped, once that is decided.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) serial: u64,
    is_kept: OnceLock<bool>,
}

impl Verdict {
    pub(super) fn is_kept(&self) -> Option<bool> {
        self.is_kept.get().copied()
    }
}

/// See the module's page. They are numbered in the order in which they were seen first.
#[derive(Debug)]
pub(super) struct Candidates {
    /// Invocations run side by side, so that the end of one says nothing of others.
    pub(super) overlapping: bool,
    /// In the order of their serials.
    all: VecDeque<Box<Candidate>>,
    /// The last one of each request id, in the order of ids.
    by_id: Vec<(Arc<str>, u64)>,
    /// Those that are over, in the order of their ends.
    over: VecDeque<u64>,
    /// Those that a log named first, in their order. The platform may have named them since.
    named: VecDeque<u64>,
    last_serial: u64,
    /// Telemetry was lost since the last start.
    is_doubtful: bool,
}

impl Candidates {
    pub(super) fn new(overlapping: bool) -> Candidates {
        Candidates {
            overlapping,
            all: VecDeque::new(),
            by_id: Vec::new(),
            over: VecDeque::new(),
            named: VecDeque::new(),
            last_serial: 0,
            is_doubtful: false,
        }
    }

    /// The last one with that request id.
    pub(super) fn find(&self, request_id: &str) -> Option<u64> {
        let at = self.place_of(request_id).ok()?;
        self.by_id.get(at).map(|(_, serial)| *serial)
    }

    /// Where that request id stands, or should stand.
    fn place_of(&self, request_id: &str) -> Result<usize, usize> {
        self.by_id.binary_search_by(|(id, _)| (**id).cmp(request_id))
    }

    fn at(&self, serial: u64) -> Option<usize> {
        self.all.binary_search_by_key(&serial, |one| one.serial).ok()
    }

    fn get(&self, serial: u64) -> Option<&Candidate> {
        self.at(serial).and_then(|at| self.all.get(at)).map(|one| &**one)
    }

    pub(super) fn get_mut(&mut self, serial: u64) -> Option<&mut Candidate> {
        self.at(serial).and_then(|at| self.all.get_mut(at)).map(|one| &mut **one)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Candidate> {
        self.all.iter_mut().map(|one| &mut **one)
    }

    /// The serial of the one that was seen last.
    pub(super) fn last(&self) -> u64 {
        self.last_serial
    }

    /// One that only a log has named so far, from now on.
    pub(super) fn add_named(&mut self, request_id: &str, now: Duration) -> u64 {
        let serial = self.add(request_id, now);
        self.named.push_back(serial);
        serial
    }

    /// One that was not seen before, from now on.
    pub(super) fn add(&mut self, request_id: &str, now: Duration) -> u64 {
        self.last_serial += 1;
        let serial = self.last_serial;
        let id: Arc<str> = request_id.into();
        let before = match self.place_of(request_id) {
            Ok(at) => self.by_id.get_mut(at).map(|(_, last)| std::mem::replace(last, serial)),
            Err(at) => {
                self.by_id.insert(at, (Arc::clone(&id), serial));
                None
            }
        };
        if let Some(before) = before.and_then(|serial| self.get_mut(serial)) {
            // It was announced, but that was this one: the other is of a process before.
            before.is_ours &= before.has_begun;
        }
        let mut candidate = Candidate::new(serial, id, before, now);
        if self.is_doubtful {
            // Its start was lost, and so may be lines of it.
            candidate.doubt();
            candidate.decide_early(Reason::Unfinished);
        }
        self.all.push_back(Box::new(candidate));
        serial
    }

    /// Takes out one for which there is no room beside another.
    pub(super) fn forget_one(&mut self) -> Option<Box<Candidate>> {
        let most = if self.overlapping { MAX_OVER_OVERLAPPING } else { MAX_OVER };
        while self.over.len() > most {
            let forgotten = self.over.pop_front().and_then(|serial| self.remove(serial));
            if forgotten.is_some() {
                return forgotten;
            }
        }
        while self.named.len() >= MAX_NAMED || self.all.len() >= MAX_INVOCATIONS {
            let Some(serial) = self.named.pop_front() else { break };
            if self.get(serial).is_some_and(|one| !one.is_platforms) {
                return self.remove(serial);
            }
        }
        let oldest = self.all.front().filter(|_| self.all.len() >= MAX_INVOCATIONS)?.serial;
        self.remove(oldest)
    }

    fn remove(&mut self, serial: u64) -> Option<Box<Candidate>> {
        let mut removed = self.at(serial).and_then(|at| self.all.remove(at))?;
        if self.find(&removed.request_id) == Some(serial)
            && let Ok(at) = self.place_of(&removed.request_id)
        {
            self.by_id.remove(at);
        }
        removed.decide_early(Reason::Unfinished);
        Some(removed)
    }

    /// Which one a milestone is of, if any that is known, where several have its request id.
    pub(super) fn of(&self, milestone: &Milestone) -> Option<u64> {
        let last = self.get(self.find(&milestone.request_id)?)?;
        match milestone.kind {
            // Lambda tries again under the same id. Of a try before, only the end may be known: it
            // was another process's, or its start was lost.
            MilestoneKind::Started if is_later(milestone.time, last.began.or(last.ended)) => None,
            // The clock was set back. A start that is posted twice has the same time.
            MilestoneKind::Started
                if last.is_done && last.began > milestone.time.or(last.began) =>
            {
                None
            }
            // Its report comes late, often behind the next start.
            MilestoneKind::Reported if !last.is_done => {
                let before = last.before.and_then(|serial| self.get(serial));
                before.filter(|before| !before.is_over).or(Some(last)).map(|one| one.serial)
            }
            _ => Some(last.serial),
        }
    }

    /// An invocation is over: of those only the last ones are remembered.
    pub(super) fn over(&mut self, serial: u64) {
        if let Some(candidate) = self.get_mut(serial).filter(|one| !one.is_over) {
            candidate.is_over = true;
            self.over.push_back(serial);
        }
    }

    /// The ends of these may never come: nothing waits for them any more.
    pub(super) fn lose_ends(&mut self, up_to: u64) {
        let them = self.iter_mut().take_while(|one| one.serial <= up_to);
        them.for_each(|one| one.decide_early(Reason::Unfinished));
    }

    /// Telemetry was lost: events that seem to be of these may be of a later one.
    pub(super) fn doubt(&mut self) {
        self.is_doubtful = true;
        self.iter_mut().for_each(Candidate::doubt);
    }

    /// An invocation begins: what comes from now on is known to be of it, or of one before.
    pub(super) fn begin(&mut self) {
        self.is_doubtful = false;
    }
}

/// One invocation, from its first event until it is forgotten.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) serial: u64,
    request_id: Arc<str>,
    /// The one with the same request id before.
    before: Option<u64>,
    trace_id: Option<Box<str>>,
    tenant_id: Option<Box<str>>,
    facts: Facts,
    /// When it was seen first, in the time in which the sandbox ran.
    since: Duration,
    /// When it began, by the platform's clock.
    began: Option<EpochMs>,
    /// The same of its end.
    ended: Option<EpochMs>,
    choice: Option<Choice>,
    verdict: Arc<Verdict>,
    result: PlatformResult,
    /// The type of the exception that its runtime has reported.
    exception: Option<Box<str>>,
    /// Seen from its start on: only then its summary is this process's.
    pub(super) is_ours: bool,
    /// Its start has come. An end alone may be that of a try before, in another process.
    pub(super) has_begun: bool,
    /// The platform has named it.
    is_platforms: bool,
    /// Its end was seen, though perhaps not looked at yet.
    is_done: bool,
    is_over: bool,
    is_doubtful: bool,
    is_summed_up: bool,
    events: u64,
    bytes: u64,
    levels: [u64; LEVELS.len()],
}

impl Candidate {
    fn new(serial: u64, request_id: Arc<str>, before: Option<u64>, since: Duration) -> Candidate {
        Candidate {
            serial,
            request_id,
            before,
            trace_id: None,
            tenant_id: None,
            facts: Facts::default(),
            since,
            began: None,
            ended: None,
            choice: None,
            verdict: Arc::new(Verdict { serial, is_kept: OnceLock::new() }),
            result: PlatformResult::default(),
            exception: None,
            is_ours: false,
            has_begun: false,
            is_platforms: false,
            is_done: false,
            is_over: false,
            is_doubtful: false,
            is_summed_up: false,
            events: 0,
            bytes: 0,
            levels: [0; LEVELS.len()],
        }
    }

    fn doubt(&mut self) {
        self.is_doubtful = true;
    }

    /// Counts events of it.
    pub(super) fn observe(&mut self, run: &Run) {
        self.events += u64::from(run.events);
        self.bytes += run.bytes;
        self.facts.first |= run.is_first;
        for ((count, more), (level, _)) in self.levels.iter_mut().zip(run.levels).zip(LEVELS) {
            *count += u64::from(more);
            if more > 0 {
                self.facts.level = self.facts.level.max(Some(level));
            }
        }
    }

    /// Its runtime has reported an exception. The last one counts, because others may be of calls
    /// that the function has made. One report may be several records, of which one names the type.
    pub(super) fn threw(&mut self, name: Box<str>) {
        if self.exception.is_none() || !name.is_empty() {
            self.exception = Some(name);
        }
    }

    /// What the events that come now wait for; nothing where they are shipped whatever comes.
    pub(super) fn verdict(&self) -> Option<Arc<Verdict>> {
        (!self.is_doubtful).then(|| Arc::clone(&self.verdict))
    }

    /// A milestone of it is in the body that is being read. It is looked at behind all of that
    /// body's events.
    pub(super) fn note(&mut self, milestone: &Milestone) {
        self.is_platforms = true;
        self.is_ours |= milestone.is_ours;
        self.has_begun |= milestone.kind == MilestoneKind::Started;
        if milestone.kind == MilestoneKind::Started {
            self.began = self.began.or(milestone.time);
        } else {
            self.is_done = true;
            self.ended = self.ended.or(milestone.time);
        }
    }

    /// A milestone of it has come.
    pub(super) fn pass(&mut self, settings: &Settings, milestone: Milestone) {
        let Milestone { trace_id, tenant_id, is_first, kind, result, .. } = milestone;
        self.trace_id = self.trace_id.take().or(trace_id);
        self.tenant_id = self.tenant_id.take().or(tenant_id);
        self.facts.first |= is_first;
        self.result.update(result);
        if kind != MilestoneKind::Started {
            self.end(settings, kind);
        }
    }

    /// Its end has come. Where it was kept before, the end may know better why.
    fn end(&mut self, settings: &Settings, kind: MilestoneKind) {
        self.facts.failed = self.result.failed() || self.exception.is_some();
        self.facts.duration = self.result.duration();
        let id = self.trace_id.as_deref().unwrap_or(&self.request_id);
        let chosen = choose(settings, &self.facts, id);
        match self.choice {
            // How it ended and how long it ran is not known.
            None if kind == MilestoneKind::DamagedDone && !chosen.kept => {
                self.decide_early(Reason::Unfinished);
            }
            None => self.decide(chosen),
            Some(early) if early.is_early() && chosen.kept => self.choice = Some(chosen),
            Some(_) => {}
        }
    }

    /// Keeps it, unless that is decided.
    pub(super) fn decide_early(&mut self, reason: Reason) {
        if self.choice.is_none() {
            self.decide(kept(reason));
        }
    }

    fn decide(&mut self, choice: Choice) {
        self.choice = Some(choice);
        let _ = self.verdict.is_kept.set(choice.kept);
    }

    /// Keeps it if it has run for longer than that.
    pub(super) fn tick(&mut self, now: Duration, max_age: Duration) {
        if now.saturating_sub(self.since) > max_age {
            self.decide_early(Reason::Long);
        }
    }

    /// Its summary, once, if it is this process's.
    pub(super) fn sum_up(
        &mut self,
        settings: &Settings,
        now: EpochMs,
        restores: u16,
    ) -> Option<Batch> {
        if !settings.summary || !self.is_ours || std::mem::replace(&mut self.is_summed_up, true) {
            return None;
        }
        if let Some(name) = self.exception.take() {
            self.result.add_exception(name);
        }
        let summary = Summary {
            request_id: &self.request_id,
            trace_id: self.trace_id.as_deref().unwrap_or_default(),
            tenant_id: self.tenant_id.as_deref().unwrap_or_default(),
            result: &self.result,
            is_first: self.facts.first,
            events: self.events,
            bytes: self.bytes,
            levels: &self.levels,
            choice: self.choice.unwrap_or(kept(Reason::Unfinished)),
        };
        Some(summary.batch(now, restores))
    }
}
