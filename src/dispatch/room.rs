//! The core's fourth part: what has no room in memory, or waits there for too long, is kept on disk
//! while it can be. Pure, like [`super::core`].

use std::time::Duration;

use super::backlog::{OpenSegment, Parcel, Refusal, SegmentId};
use super::core::{Core, Tick};
use super::invocations::Phase;
use super::sending::{Destination, TRIES_ALONE};
use super::step::{Oldest, Step, View};
use crate::log::Level;

/// While an invocation is held and Kinesis takes nothing, what is older is written to disk.
const RELIEF_AGE: Duration = Duration::from_secs(1);
/// After a segment that could not be written, none is for so long: the function may have filled the
/// disk for a while.
const SPOOL_RETRY: Duration = Duration::from_secs(10);
/// Segments of which it is remembered how often they failed.
const HISTORIES: usize = 256;

/// Kinesis has refused it, or a request that it is a part of. What was only interrupted, or met a
/// dead connection, is sent before anything new.
fn was_refused(parcel: &Parcel) -> bool {
    parcel.refusal != Refusal::None && parcel.request.events() > 0
}

/// What may make room for others: on disk, or because Kinesis refused it while it took others.
fn gives_way(spool_works: bool) -> impl Fn(&Parcel) -> bool {
    move |parcel| was_refused(parcel) && (spool_works || parcel.left_behind || parcel.intact)
}

impl Core {
    /// What is set aside has a quarter of the memory. Beyond that the one that failed most is
    /// written to disk, apart from what waits in order: it must not keep others out. Where there is
    /// no disk, one is dropped that Kinesis refused while it took others; up to half of the memory
    /// none that is still to be divided, as it holds events that may be good.
    pub(super) fn make_room_aside(&mut self, tick: &Tick) -> Option<Step> {
        if !self.is_crowded() {
            return None;
        }
        let spool_works = self.spool_works(tick);
        let all =
            spool_works || self.is_over() || self.backlog.aside_bytes() > self.gauge.bound() / 2;
        let mut parcel = self.backlog.take_most_tried(|parcel| {
            let is_settled = parcel.refusal == Refusal::Passing || !parcel.may_be_good();
            gives_way(spool_works)(parcel) && (all || parcel.intact || is_settled)
        })?;
        // Its file may still be all that there is of it, where nothing can be written.
        let is_whole = |segment| self.whole_segments().contains(&segment);
        if let Some(segment) = parcel.segment
            && (parcel.intact || (!spool_works && is_whole(segment)))
        {
            let of_it = |other: &Parcel| other.segment == Some(segment);
            while let Some(other) = self.backlog.take_aside(of_it) {
                // The file is sent as a whole.
                parcel.absorb(&other);
            }
            return Some(self.put_back(segment, parcel));
        }
        if spool_works {
            return Some(Step::Spool(Box::new(parcel)));
        }
        let events = parcel.request.events();
        self.ledger.dropped_queue.add(events);
        self.print_lost(&parcel);
        self.acknowledge(parcel);
        let line = format!(
            "Kinesis refuses records for long, and there is no room for more of them; {events} \
             events are dropped"
        );
        self.out.push_back(Step::Log(Level::Error, "no-room", line));
        self.out.pop_front()
    }

    /// Whether nothing may make room: there is no disk, and Kinesis refused none of it while it
    /// took others.
    pub(super) fn is_stuck(&self, tick: &Tick) -> bool {
        let any = |wanted: &dyn Fn(&Parcel) -> bool| self.backlog.aside().iter().any(wanted);
        self.is_crowded() && any(&was_refused) && !any(&gives_way(self.spool_works(tick)))
    }

    /// In an outage nothing is given up: once much of the memory is set aside, Kinesis is only
    /// probed.
    pub(super) fn probe_when_stuck(&mut self, tick: &Tick) {
        let overtaken =
            |parcel: &Parcel| was_refused(parcel) && self.deliveries > parcel.refused_at;
        if !self.retry.is_open()
            && self.is_stuck(tick)
            && !self.backlog.aside().iter().any(overtaken)
        {
            self.retry.open(tick.age);
        }
    }

    /// Then one of them is tried again, due or not; and others only where each was tried often, and
    /// memory has room for more. So it is until Kinesis was asked for each once more.
    pub(super) fn take_stuck(&mut self) -> Option<Parcel> {
        let (probes, deliveries) = (self.retry.is_open(), self.deliveries);
        self.backlog.take_aside(|parcel| probes || deliveries > parcel.refused_at)
    }

    /// See [`Core::take_stuck`].
    pub(super) fn has_room_for_more(&self) -> bool {
        self.backlog.aside().iter().all(|parcel| parcel.makes_way(TRIES_ALONE)) && !self.is_over()
    }

    /// What is suspected to fail for what it holds, or fails so often, must not keep others
    /// waiting. At the end there is no time to find out, and between two probes much of it passes.
    pub(super) fn most_tries(&self) -> u32 {
        if self.stopping.is_some() || self.retry.is_open() { 1 } else { TRIES_ALONE }
    }

    /// Those others may be refused as well, one after the other, and each time all pauses: behind
    /// one that delivered nothing, what has made way for it is sent, where it holds events that may
    /// be good. Not between two probes: what was never refused shows best that an outage is over.
    pub(super) fn has_turn(&self) -> impl Fn(&Parcel) -> bool + use<> {
        let probes = self.retry.is_open() && self.stopping.is_none();
        let others_failed = self.others_failed && !probes;
        move |parcel| others_failed && (!parcel.is_alone() || parcel.tries == 0)
    }

    /// Where all that is set aside may fail for what it holds, and leaves no room for what is still
    /// on disk: after each request one makes way for that, so that none is kept out for good. Not
    /// in a flush, which reads nothing of it.
    pub(super) fn rotate(&mut self, tick: &Tick, view: View) -> Option<Step> {
        let waits = view.apart != Oldest::Empty && self.is_crowded() && self.spool_works(tick);
        if self.rotated
            || self.in_flush()
            || !waits
            || !self.backlog.aside().iter().all(|parcel| parcel.suspect)
        {
            return None;
        }
        self.rotated = true;
        self.make_room_aside(tick)
    }

    /// Whether more is set aside than may be. At the end all of the memory is for that.
    pub(super) fn is_crowded(&self) -> bool {
        self.stopping.is_none()
            && self.backlog.aside().len() > 1
            && (self.backlog.aside_bytes() > self.gauge.bound() / 4 || self.is_over())
    }

    /// Whether memory is full beyond its bound: what is packed takes more of it than before.
    pub(super) fn is_over(&self) -> bool {
        self.gauge.held() > self.gauge.bound()
    }

    /// Whether there is room for what is packed and fails. At the end nothing makes room: beyond a
    /// full memory no more is set aside than a request takes, as in life, where a single one may
    /// be. So what little Kinesis refuses keeps nothing else waiting.
    pub(super) fn has_room_to_fail(&self) -> bool {
        self.stopping.is_none()
            || !self.is_over()
            || self.backlog.aside_bytes() <= self.packer.limits().body_bytes()
    }

    /// While an invocation is held and Kinesis takes nothing, what has waited for long is written
    /// to disk: the function may have crashed, and then the sandbox ends, before Lambda says so. Of
    /// what Kinesis refuses for long while it takes others, a copy is written.
    pub(super) fn relief(&mut self, tick: &Tick) -> Option<Step> {
        if self.relief_at()? > tick.age {
            return None;
        }
        let age = self.relief_age();
        let is_old = |parcel: &Parcel| parcel.since + age <= tick.age;
        let mut parcel = match self.backlog.take_aside(|parcel| !parcel.intact && is_old(parcel)) {
            Some(parcel) => parcel,
            None => self.pack(tick, Destination::Disk)?,
        };
        parcel.stays = !self.is_failing();
        Some(Step::Spool(Box::new(parcel)))
    }

    fn relief_age(&self) -> Duration {
        if self.is_failing() { RELIEF_AGE } else { 2 * RELIEF_AGE }
    }

    fn is_failing(&self) -> bool {
        self.retry.failures() > 0 || self.retry.is_open()
    }

    /// From when on [`Core::relief`] has something to do.
    pub(super) fn relief_at(&self) -> Option<Duration> {
        let held = self.held.as_ref().is_some_and(|held| held.phase == Phase::AwaitEnd);
        let is_failing = self.is_failing();
        if !held || !self.settings.spool {
            return None;
        }
        // What is intact is on disk as well.
        let aside = self.backlog.aside().iter().filter(|parcel| !parcel.intact);
        let age = self.relief_age();
        let aside = aside.map(|parcel| parcel.since + age);
        // What was never tried may go as soon as the pause of others is over.
        let fresh_age = if self.retry.is_open() { RELIEF_AGE } else { 2 * RELIEF_AGE };
        let fresh = self.backlog.oldest().filter(|_| is_failing).map(|since| since + fresh_age);
        let at = aside.chain(fresh).min()?;
        let again = self.spool_again.unwrap_or_default();
        Some(at.max(if is_failing { again } else { again.max(self.copy_again) }))
    }

    /// A parcel was to be written to disk.
    pub(super) fn spooled(&mut self, tick: &Tick, mut parcel: Parcel, written: Option<SegmentId>) {
        let stays = std::mem::take(&mut parcel.stays);
        let Some(segment) = written else {
            let again = tick.age + SPOOL_RETRY;
            if stays {
                self.copy_again = again;
            } else {
                self.spool_again = Some(again);
                // Behind what was read before.
                parcel.due = parcel.due.max(tick.age);
            }
            return self.backlog.set_aside(parcel);
        };
        if stays {
            self.leave_segment(&parcel);
            (parcel.segment, parcel.intact) = (Some(segment), true);
            self.open_segments.push(OpenSegment { id: segment, parts: 1, is_whole: true });
            return self.backlog.set_aside(parcel);
        }
        self.remember(segment, &parcel);
        self.acknowledge(parcel);
    }

    fn remember(&mut self, segment: SegmentId, parcel: &Parcel) {
        if parcel.tries > 0 || parcel.suspect {
            if self.histories.len() == HISTORIES {
                self.histories.remove(0);
            }
            self.histories.push((segment, parcel.history()));
        }
    }

    /// What is on disk already is not written once more: that may fail, and the good file be
    /// deleted.
    fn put_back(&mut self, segment: SegmentId, parcel: Parcel) -> Step {
        self.remember(segment, &parcel);
        self.open_segments.retain(|open| open.id != segment);
        self.spares.keep_body(parcel.request.into_buffer());
        Step::PutBack(segment)
    }

    /// Whether there is a spool, and it could be written to.
    pub(super) fn spool_works(&self, tick: &Tick) -> bool {
        self.settings.spool && self.spool_again.is_none_or(|at| at <= tick.age)
    }

    /// A segment was read: what is known of it is not forgotten.
    pub(super) fn read(&mut self, mut parcel: Parcel) {
        let known = self.histories.iter().position(|(segment, _)| parcel.segment == Some(*segment));
        if let Some(index) = known {
            parcel.remember(self.histories.remove(index).1);
        }
        self.backlog.set_aside(parcel);
    }
}
