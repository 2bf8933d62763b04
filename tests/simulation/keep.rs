//! Lives with `KEEP`: events wait in the listener for the end of their invocation, count for the bound meanwhile, and are then admitted or
//! thinned out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kinesis_telemetry_extension::dispatch::charge::{Gauge, Share};
use kinesis_telemetry_extension::dispatch::message::Signal;
use kinesis_telemetry_extension::event::Batch;
use kinesis_telemetry_extension::lambda::chooser::{Chooser, Now};
use kinesis_telemetry_extension::lambda::keep::Settings;
use kinesis_telemetry_extension::lambda::observed::{
    Milestone, MilestoneKind, Observed, PlatformResult, Run, Step,
};

use crate::plan::Plan;
use crate::threads::batch_numbers;
use crate::world::{Body, Fate, MS, Taking, Us, Wake, World, numbers};

/// The listener's part that chooses.
#[derive(Debug)]
pub(crate) struct Keeping {
    /// With each batch, its events.
    chooser: Chooser<Vec<u32>>,
    /// For all that waits in it.
    room: Share,
    awake: Duration,
    /// Decided, and not admitted yet: behind each other, as one may have to be written to disk.
    pub(crate) decided: Vec<Batch>,
    /// Of the POST that is being taken.
    pub(crate) signals: Vec<Signal>,
    number: u64,
    restores: u16,
    first: Option<Arc<str>>,
    /// The invocations of events.
    owners: HashMap<u32, Arc<str>>,
    /// Those that were seen before a gap: later events that seem to be theirs are sent in any case.
    doubtful: HashSet<Arc<str>>,
}

/// What has become of an event that a choice is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Nobody chooses, or it was decided to ship it.
    #[default]
    Kept,
    /// Its invocation goes on.
    Waits,
    /// It is to be on no stream.
    Thinned,
}

impl Plan {
    /// Out of the seed itself, as [`Plan::wire`].
    pub(crate) fn keeping(&self, gauge: &Arc<Gauge>) -> Option<Keeping> {
        // Scenarios made by hand have small seeds, and say by themselves what is lost.
        let threshold = match self.seed.max(10) % 10 {
            1 => 0,
            5 => 1 << 31,
            8 => 1 << 30,
            _ => return None,
        };
        let settings = Settings {
            threshold,
            slow: None,
            level: None,
            summary: false,
            max_age: Duration::from_millis(self.setup.max_age),
            max_bytes: self.setup.bound / 4,
        };
        Some(Keeping {
            chooser: Chooser::new(settings, self.setup.continuous),
            room: gauge.share(settings.max_bytes),
            awake: Duration::ZERO,
            decided: Vec::new(),
            signals: Vec::new(),
            number: 0,
            restores: 0,
            first: None,
            owners: HashMap::new(),
            doubtful: HashSet::new(),
        })
    }
}

impl Keeping {
    fn doubt(&mut self, overlapping: bool) {
        if !overlapping {
            self.doubtful.extend(self.owners.values().cloned());
        }
    }

    fn observe(&mut self, batch: &Batch, signals: &[Signal], overlapping: bool) -> Observed {
        let mut observed = Observed::default();
        if let Some(event) = batch.remaining().first() {
            let events = u32::try_from(batch.remaining().len()).unwrap();
            let run = Run { request_id: event.request_id, events, ..Run::default() };
            observed.steps.push(Step::Run(run));
        }
        for signal in signals {
            let (request_id, kind, failed) = match signal {
                Signal::Started(id) => (id, MilestoneKind::Started, false),
                Signal::Done { request_id, failed, .. } => {
                    (request_id, MilestoneKind::Done, *failed)
                }
                Signal::Reported(id) => (id, MilestoneKind::Reported, false),
                Signal::Gap => {
                    observed.steps.push(Step::Gap);
                    self.doubt(overlapping);
                    continue;
                }
                Signal::InitReported => continue,
            };
            if kind == MilestoneKind::Started && !overlapping {
                self.first.get_or_insert_with(|| Arc::clone(request_id));
            }
            let status = Some(if failed { "error" } else { "success" }.into())
                .filter(|_| kind == MilestoneKind::Done);
            observed.steps.push(Step::Milestone(Box::new(Milestone {
                request_id: Arc::clone(request_id),
                time: None,
                is_ours: kind == MilestoneKind::Started,
                trace_id: None,
                tenant_id: None,
                // Before the first start, as in the intake, it is that of an invocation that was announced.
                is_first: self.first.as_ref().is_none_or(|first| first == request_id),
                kind,
                result: PlatformResult { status, ..PlatformResult::default() },
            })));
        }
        observed
    }
}

impl World {
    /// As `Handover::hand_over`: a POST's events wait, or are admitted.
    pub(crate) fn choose(&mut self, body: Body, batch: Batch, all: Vec<u32>) {
        let Some(mut keeping) = self.process.keeping.take() else {
            return self.admit_batch(batch, all, body.signals);
        };
        for event in &all {
            self.events[*event as usize].choice = Choice::Waits;
            let owner = body.request_id.clone().filter(|id| !keeping.doubtful.contains(id));
            keeping.owners.extend(owner.map(|id| (*event, id)));
        }
        let observed = keeping.observe(&batch, &body.signals, self.plan.setup.continuous);
        let now = Now { wall: 0, awake: keeping.awake };
        keeping.chooser.take(batch, observed, now, all.clone());
        keeping.room.hold(keeping.chooser.held_bytes());
        keeping.signals = body.signals;
        self.process.keeping = Some(keeping);
        self.hand_over(all);
    }

    /// As `Choosing::take`. `all`: the events of the POST, which are to be answered.
    fn hand_over(&mut self, all: Vec<u32>) {
        let Some(keeping) = &mut self.process.keeping else { return };
        while let Some((batch, events)) = keeping.chooser.next_ready() {
            let kept = batch_numbers(&batch);
            for event in events.iter().filter(|event| !kept.contains(event)) {
                self.events[*event as usize].choice = Choice::Thinned;
            }
            for event in batch.remaining() {
                if event.restores != keeping.restores {
                    (keeping.restores, keeping.number) = (event.restores, 0);
                }
                keeping.number += 1;
                if event.number != keeping.number {
                    let detail = format!("{} comes where {} should", event.number, keeping.number);
                    return self.fail("ids have no gaps", detail);
                }
            }
            if !kept.is_empty() {
                keeping.decided.insert(0, batch);
            }
        }
        keeping.room.hold(keeping.chooser.held_bytes());
        self.process.ledger.thinned.add(keeping.chooser.take_thinned());
        self.admit_decided(all);
    }

    /// The next batch that is decided; the signals are behind the last one.
    pub(crate) fn admit_decided(&mut self, all: Vec<u32>) {
        let Some(keeping) = &mut self.process.keeping else { return };
        let batch = keeping.decided.pop().unwrap_or_default();
        let is_last = keeping.decided.is_empty();
        let signals = if is_last { std::mem::take(&mut keeping.signals) } else { Vec::new() };
        self.admit_batch(batch, all, signals);
    }

    /// As `Listener::watch_ages`: again and again while the process lives.
    pub(crate) fn tick(&mut self) {
        let number = self.process.number;
        let pause = self.plan.setup.max_age * MS / 4;
        if self.process.keeping.is_none() || self.process.closed {
            return;
        }
        if !matches!(self.process.taking, Taking::Nothing) {
            // The intake's lock is taken.
            return self.after(200, Wake::Tick(number));
        }
        self.after(pause, Wake::Tick(number));
        // In a freeze nothing runs.
        let is_awake = self.plan.setup.continuous || self.running.is_some();
        if let Some(keeping) = self.process.keeping.as_mut().filter(|_| is_awake) {
            keeping.awake += Duration::from_micros(pause);
            keeping.chooser.tick(keeping.awake);
            self.hand_over(Vec::new());
        }
    }

    /// As `Listener::lose_ends`, where main has waited in vain.
    pub(crate) fn lose_ends(&mut self) {
        let is_free = matches!(self.process.taking, Taking::Nothing);
        if let Some(keeping) = self.process.keeping.as_mut().filter(|_| is_free) {
            keeping.chooser.lose_ends();
            keeping.doubt(self.plan.setup.continuous);
            self.hand_over(Vec::new());
        }
    }

    /// As `Listener::hand_over_undecided`, by whoever has the intake's lock next.
    pub(crate) fn hand_over_undecided(&mut self) {
        if matches!(self.process.taking, Taking::Nothing) {
            return self.lose_ends();
        }
        let number = self.process.number;
        self.after(200, Wake::HandOver(number));
    }

    /// The intake closes: what waits for a choice is kept. Says whether something is to be admitted first.
    pub(crate) fn finish_choices(&mut self) -> bool {
        let Some(keeping) = &mut self.process.keeping else { return false };
        keeping.chooser.finish(0);
        let waits = keeping.chooser.is_waiting();
        if waits {
            self.hand_over(Vec::new());
        }
        waits
    }

    /// As `Handover::close`, where who has the intake's lock lets nobody else in by the deadline: what
    /// waits for a choice is counted as lost, also of the POST that is being taken, which Lambda
    /// keeps. Its lines are out of reach.
    pub(crate) fn give_up_choices(&mut self) {
        if self.process.keeping.take().is_none() {
            return;
        }
        let number = self.process.number;
        let waits = |fate: &&mut Fate| fate.choice == Choice::Waits && fate.process == number;
        let mut lost = 0;
        for fate in self.events.iter_mut().filter(waits) {
            (fate.received, fate.choice) = (true, Choice::Kept);
            lost += 1;
        }
        // What is decided is being written for a POST that came later. Where the order to stop leaves
        // less than the ledger's 100 ms, nobody can wait for that: it is counted as waiting, and may
        // be torn on disk.
        let asked = self.process.stop_asked.map_or(self.now, |(at, _)| at);
        let leaves = |until: Us| until < asked + 100 * MS;
        let is_late = self.process.asking.as_ref().is_some_and(|asking| leaves(asking.deadline));
        if let Taking::Writing { events, rest, .. } = &self.process.taking
            && is_late
        {
            let rest = rest
                .iter()
                .flat_map(|request| numbers(&request.data().flatten().collect::<Vec<u8>>()));
            for event in events.iter().copied().chain(rest) {
                self.events[event as usize].answered = false;
            }
        }
        self.say(|_| format!("listener: {lost} events that wait for a choice are out of reach"));
        self.process.ledger.received.add(lost);
        self.process.ledger.dropped_undelivered.add(lost);
        self.process.unprintable += lost;
    }

    /// Invocations are whole or thinned out whole; what is thinned out is on no stream and counted; nothing waits at the end.
    pub(crate) fn check_choices(&mut self, at_end: bool) {
        let number = self.process.number;
        let Some(keeping) = &self.process.keeping else { return };
        let (mut thinned, mut wrong) = (0, None);
        let mut invocations: HashMap<&Arc<str>, bool> = HashMap::new();
        for (event, fate) in self.events.iter().enumerate() {
            if fate.choice == Choice::Thinned && (fate.stored > 0 || fate.received) {
                wrong = Some(format!("event {event} is thinned out, and was sent"));
            }
            if fate.process != number {
                continue;
            }
            let is_thinned = fate.choice == Choice::Thinned;
            thinned += u64::from(is_thinned);
            if at_end && fate.choice == Choice::Waits && fate.answered {
                wrong = Some(format!("event {event} waits for a choice at the end"));
            }
            let owner = u32::try_from(event).ok().and_then(|event| keeping.owners.get(&event));
            let Some(id) = owner.filter(|_| fate.choice != Choice::Waits) else { continue };
            if *invocations.entry(id).or_insert(is_thinned) != is_thinned {
                wrong = Some(format!("{id} is neither whole nor thinned out"));
            }
            if is_thinned && keeping.first.as_ref() == Some(id) {
                wrong = Some(format!("{id} is the first, and thinned out"));
            }
        }
        let counted = self.process.ledger.thinned.get();
        if counted != thinned {
            wrong = Some(format!("{thinned} events are thinned out, {counted} counted"));
        }
        if let Some(wrong) = wrong {
            self.fail("invocations are whole", wrong);
        }
    }
}

#[test]
fn lives_with_keep_thin_out_and_keep() {
    let lives = (1..=50).filter(|seed| matches!(seed % 10, 1 | 5 | 8));
    let fates: Vec<_> = lives.flat_map(|seed| crate::live(seed, false).events).collect();
    let count = |choice| fates.iter().filter(|fate| fate.choice == choice).count();
    assert!(count(Choice::Thinned) > 100, "{} of {}", count(Choice::Thinned), fates.len());
    assert!(fates.iter().any(|fate| fate.choice == Choice::Kept && fate.stored > 0));
}
