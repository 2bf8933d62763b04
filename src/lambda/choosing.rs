//! The choice of invocations at work: what waits for it takes room in memory, and is admitted when
//! it is decided. Runs on the listener's threads, behind the intake's lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chooser::{Chooser, Now as Clocks};
use super::keep::Settings;
use super::observed::Observed;
use super::unsettled::Unsettled;
use crate::dispatch::admission::{Admission, Reserved};
use crate::dispatch::message::{Now, Signal};
use crate::event::Batch;

/// What comes with a batch that waits. The extension's own have none of it.
#[derive(Debug, Default)]
struct Waiting {
    /// When it came: its age counts from then on.
    since: Option<Now>,
    /// How many events were in it.
    events: u64,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Choosing {
    chooser: Chooser<Waiting>,
    /// For all that waits in it.
    room: Reserved,
    /// For how long the sandbox has run, and when that was counted.
    awake: Duration,
    counted: Instant,
    /// While the sandbox runs, time is counted at least so often.
    longest: Duration,
    /// It was not counted for longer, as after a freeze.
    has_slept: bool,
    /// Ages were not looked at because of that.
    has_waited: bool,
    /// Counts all that waits.
    unsettled: Arc<Unsettled>,
}

impl Choosing {
    /// Nothing waits yet. `overlapping`: invocations run side by side (Managed Instances).
    pub(super) fn new(
        settings: Settings,
        overlapping: bool,
        now: Instant,
        admission: &Admission,
        unsettled: Arc<Unsettled>,
    ) -> Choosing {
        // Where all are kept nothing waits.
        let room = admission.share(if settings.chooses() { settings.max_bytes } else { 0 });
        Choosing {
            chooser: Chooser::new(settings, overlapping),
            room,
            awake: Duration::ZERO,
            counted: now,
            longest: 2 * pause(&settings),
            has_slept: false,
            has_waited: false,
            unsettled,
        }
    }

    /// Takes what a body brought, and admits what is no longer to wait, with the signals behind it.
    pub(super) fn take(
        &mut self,
        batch: Batch,
        observed: Observed,
        signals: Vec<Signal>,
        now: Now,
        admission: &Admission,
    ) {
        let events = batch.remaining().len() as u64;
        if !self.unsettled.wait(events) {
            // The sandbox has ended, and Lambda gets no 200.
            return;
        }
        let clocks = Clocks { wall: now.wall, awake: self.count(now.mono) };
        self.chooser.take(batch, observed, clocks, Waiting { since: Some(now), events });
        self.room.hold(self.chooser.held_bytes());
        self.admit(signals, now, admission);
    }

    /// Ends may never come: what waits for them is admitted, before the signals.
    pub(super) fn lose_ends(&mut self, signals: Vec<Signal>, now: Now, admission: &Admission) {
        self.chooser.lose_ends();
        self.admit(signals, now, admission);
    }

    /// The sandbox ends.
    pub(super) fn finish(&mut self, now: Now, admission: &Admission) {
        self.chooser.finish(now.wall);
        self.admit(Vec::new(), now, admission);
    }

    /// Admits the events of an invocation that runs for long. Behind a freeze an end may be on its
    /// way, and is waited for until the next look.
    pub(super) fn tick(&mut self, now: Now, admission: &Admission) {
        let awake = self.count(now.mono);
        self.has_waited = std::mem::take(&mut self.has_slept) && !self.has_waited;
        if self.chooser.is_waiting() && !self.has_waited {
            self.chooser.tick(awake);
            self.admit(Vec::new(), now, admission);
        }
    }

    /// For how long the sandbox has run. Time in which it was frozen does not count.
    fn count(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.counted);
        self.has_slept |= passed > self.longest;
        self.awake += passed.min(self.longest);
        self.counted = now;
        self.awake
    }

    fn admit(&mut self, signals: Vec<Signal>, now: Now, admission: &Admission) {
        // What was given up at SHUTDOWN is not handed on.
        let claimed = |batch: Batch, events| {
            if self.unsettled.claim(events) { batch } else { Batch::default() }
        };
        let mut last = (Batch::default(), 0, now);
        while let Some((batch, Waiting { since, events })) = self.chooser.next_ready() {
            self.room.hold(self.chooser.held_bytes());
            let next = (batch, events, since.unwrap_or(last.2));
            let (before, events, at) = std::mem::replace(&mut last, next);
            admission.admit(claimed(before, events), Vec::new(), at);
        }
        admission.ledger.thinned.add(self.chooser.take_thinned());
        let (batch, events, at) = last;
        let batch = claimed(batch, events);
        if at.mono == now.mono || batch.remaining().is_empty() {
            admission.admit(batch, signals, now);
        } else {
            // The age of events counts from when they came; that of signals, from now on.
            admission.admit(batch, Vec::new(), at);
            admission.admit(Batch::default(), signals, now);
        }
    }
}

/// How often the ages of what waits are looked at.
pub(super) fn pause(settings: &Settings) -> Duration {
    settings.max_age / 4
}
