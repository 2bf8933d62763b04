//! The invariants. The cheap ones are looked at after every step, the audit of every event now and
//! then and at each end.

use std::sync::Arc;
use std::time::Duration;

use kinesis_telemetry_extension::dispatch::backlog::{Parcel, SegmentId};
use kinesis_telemetry_extension::dispatch::message::{Load, Message, Signal};
use kinesis_telemetry_extension::dispatch::policy::FlushMode;
use kinesis_telemetry_extension::dispatch::spool_file;
use kinesis_telemetry_extension::dispatch::step::{Step, View};
use kinesis_telemetry_extension::kinesis::error::ErrorKind;
use kinesis_telemetry_extension::kinesis::gzip;
use kinesis_telemetry_extension::kinesis::line::Envelope;
use kinesis_telemetry_extension::kinesis::record::Compression;
use kinesis_telemetry_extension::kinesis::request::Request;
use kinesis_telemetry_extension::kinesis::response::RecordOutcome;

use crate::keep::Choice;
use crate::kinesis::Verdict;
use crate::plan::{Done, End, Mode};
use crate::world::{
    Ask, Asking, Busy, MS, SandboxId, SpoolFile, Taking, Us, World, introduced_in, numbers,
};

/// What the scheduler may add to a promise.
const SLACK: Us = 70 * MS;
/// While an invocation is held, what has waited for longer than this is on disk.
const KEPT_AFTER: Us = 3500 * MS;
/// No more segments than this are read in vain between two requests.
const PUT_BACK: u32 = 20;
/// What reading a file takes at the most, on a disk that is not slow.
const READ: Us = 800;
/// No event is refused more often, while others are taken.
const MOST_REFUSALS: u16 = 10;

impl World {
    /// After every wake-up.
    pub(crate) fn cheap_checks(&mut self) {
        if !self.process.alive {
            return;
        }
        let gauge = &self.process.gauge;
        // What is on its way: a request being sent or built, one read or divided, a batch on its
        // way in.
        let in_flight = 6 * self.limits.body_bytes() + self.limits.body_bytes().max(64 * 1024);
        let gzip = if self.plan.setup.compression == Compression::Gzip {
            2 * gzip::STATE_BYTES
        } else {
            0
        };
        if gauge.held() > gauge.bound() + in_flight + gzip {
            let (held, bound) = (gauge.held(), gauge.bound());
            self.fail("bounded memory", format!("{held} bytes are held, the bound is {bound}"));
        }
        self.check_sleep();
    }

    /// The dispatcher goes to sleep.
    pub(crate) fn check_wait(&mut self, until: Option<Us>, view: View) {
        if until.is_some_and(|until| until <= self.now) {
            self.fail(
                "no busy loop",
                format!("a wait until {} that has passed", until.unwrap_or_default()),
            );
        }
        self.say(|world| {
            let backlog = world.process.core.backlog();
            let (aside, bytes) = (backlog.aside(), backlog.aside_bytes());
            let suspects = aside.iter().filter(|parcel| parcel.suspect).count();
            let until = until.map(|until| until / MS);
            let (all, view) = (aside.len(), format!("{:?}, {:?}", view.overflow, view.apart));
            format!("core: waits until {until:?} ms, {all} aside ({suspects} suspect, {bytes} bytes), on disk {view}")
        });
        let process = &self.process;
        let awake = self.plan.setup.continuous
            || process.asking.as_ref().is_some_and(|asking| asking.handed_in)
            || process.is_running;
        let full = process.core.backlog().fresh_bytes() >= process.packer.request_bytes();
        let healthy = process.healthy_since.is_some_and(|since| since < self.now);
        // At the end the last 100 ms are the ledger's.
        let kept_back = |ask: &Ask| if matches!(ask, Ask::Stop) { 130 * MS } else { 30 * MS };
        let has_time = |asking: &Asking| asking.deadline > self.now + kept_back(&asking.ask);
        let time = process.asking.as_ref().is_none_or(has_time);
        if awake && full && healthy && time && self.mode() == Mode::Ok {
            let detail = format!(
                "{} bytes wait, Kinesis took the last request, and nothing is sent",
                process.core.backlog().fresh_bytes()
            );
            self.fail("a full request is sent", detail);
        }
        self.check_old_is_sent(until, awake && healthy && time);
    }

    /// The dispatcher does not sleep past the age of what was never sent, while Kinesis takes
    /// requests and the sandbox cannot be frozen.
    fn check_old_is_sent(&mut self, until: Option<Us>, may_send: bool) {
        let process = &self.process;
        let item = process.core.backlog().fresh().next();
        let Some(event) = item.and_then(|item| load_numbers(&item.load).first().copied()) else {
            return;
        };
        let came = self.events[event as usize].came;
        let due = came + self.plan.setup.max_age * MS;
        let sleeps = until.is_none_or(|until| until > due.max(self.now) + 30 * MS);
        if may_send && sleeps && self.ending.is_none() && self.mode() == Mode::Ok {
            let detail = format!("event {event} came at {came}, wait until {until:?}");
            self.fail("what is old is sent", detail);
        }
    }

    /// The dispatcher sleeps on although messages have come: none of them is due.
    fn check_sleep(&mut self) {
        let process = &self.process;
        let healthy = process.healthy_since.is_some_and(|since| since < self.now);
        let runs = |since: Us| since + 100 * MS < self.now;
        let running = self.running.as_ref().is_some_and(|running| {
            running.ended.is_none() && runs(running.began) && self.ending.is_none()
        });
        // Telemetry says that a function runs: what is due before is not known to be.
        let told = process.is_running
            || process.channel.iter().any(|message| {
                matches!(message, Message::Telemetry { signals, .. }
                    if signals.iter().any(|signal| matches!(signal, Signal::Started(_))))
            });
        let since =
            |time: Us| self.running.as_ref().is_some_and(|running| running.began + time < self.now);
        if !process.waits
            || process.channel.is_empty()
            || !(self.plan.setup.continuous || running && (told || since(400 * MS)))
            || !healthy
            || process.asking.as_ref().is_some_and(|asking| asking.deadline <= self.now + 30 * MS)
            || self.mode() != Mode::Ok
        {
            return;
        }
        let (bytes, oldest) = self.waiting();
        // Where a start is lost, it is looked for now and then.
        let is_known = told || self.plan.setup.continuous;
        let (looks, slack) = if is_known { (1, 100) } else { (2, 400) };
        let most = Duration::from_millis(looks * self.plan.setup.max_age + slack);
        if bytes >= process.packer.request_bytes() || oldest > most {
            let detail = format!("{bytes} bytes wait, the oldest for {oldest:?}");
            self.fail("the dispatcher is woken in time", detail);
        }
    }

    /// Bytes that wait in memory, and the age of the oldest event that the core has not seen.
    fn waiting(&self) -> (usize, Duration) {
        let now = self.clock();
        let unseen = self.process.channel.iter().filter_map(|message| match message {
            Message::Telemetry { at, charge: Some(charge), load, .. } if load.events() > 0 => {
                Some((charge.bytes(), now.since(at)))
            }
            _ => None,
        });
        let fresh = self.process.core.backlog().fresh_bytes();
        unseen.fold((fresh, Duration::ZERO), |(bytes, oldest), (more, age)| {
            (bytes + more, oldest.max(age))
        })
    }

    /// An invocation is not held, and the dispatcher is not asked.
    pub(crate) fn check_pass(&mut self) {
        let process = &self.process;
        let bound = process.gauge.bound();
        let (bytes, oldest) = self.waiting();
        let busy = !matches!(process.busy, Busy::Nothing);
        let most = Duration::from_millis(self.plan.setup.max_age);
        if busy || bytes >= bound / 4 || oldest > most {
            let detail = format!("{bytes} of {bound} bytes wait, the oldest for {oldest:?}");
            self.fail("nothing is due in an invocation that passes", detail);
        }
        if let Some(running) = &self.running {
            self.holds_seen.push(running.ended.map(|ended| self.now - ended));
        }
    }

    /// A request is sent.
    pub(crate) fn check_send(&mut self, parcel: &Parcel, verdict: &Verdict) {
        let process = &self.process;
        let reset = self.ending.is_some_and(|(reason, ..)| reason != "spindown");
        let spools =
            self.plan.setup.spool_bytes > 0 && !process.write_failed && self.plan.disk.is_empty();
        if process.stop_failed
            && reset
            && spools
            && !(parcel.segment.is_some() && process.core.backlog().is_fresh_empty())
        {
            let detail = "before a reset a request was sent after one had failed, with events that are in memory alone".to_owned();
            return self.fail("the disk comes first", detail);
        }
        let aside = process.core.backlog();
        // At the end all of the memory is for what is left; and without a disk what is new is tried
        // in an outage as long as memory has room.
        let has_disk = self.plan.setup.spool_bytes > 0 && !process.write_failed;
        let room = process.had_room;
        let too_much = process.stop_asked.is_none()
            && aside.aside().len() > 1
            && aside.aside_bytes() > process.gauge.bound() / 4;
        if !parcel.sent_before
            && parcel.segment.is_none()
            && too_much
            && (has_disk || !room)
            && aside.aside().iter().any(|parcel| parcel.tries > 0)
        {
            let detail =
                format!("{} bytes are set aside while new events are sent", aside.aside_bytes());
            return self.fail("what is set aside is bounded", detail);
        }
        let invoked = process
            .invoked
            .as_ref()
            .is_some_and(|(id, at)| !process.ended.contains(id) && at + 200 * MS <= self.now);
        let awake = self.plan.setup.continuous
            || process.asking.as_ref().is_some_and(|asking| asking.handed_in)
            || process.is_running
            || invoked;
        if !awake {
            self.fail(
                "no request across a freeze",
                "a request is sent although no function runs and nobody waits".to_owned(),
            );
        }
        self.check_introductions(verdict);
        self.note_largest(verdict);
        let counted = verdict.events.iter().flatten().filter(|_| parcel.ambiguous);
        let sure: Vec<&u32> =
            counted.filter(|event| !self.events[**event as usize].in_doubt).collect();
        if !sure.is_empty() {
            let detail = format!("{sure:?} were in no request that may have been stored");
            return self.fail("only what may be a repeat is counted as one", detail);
        }
        let again = verdict
            .events
            .iter()
            .flatten()
            .find(|event| self.events[**event as usize].acknowledged);
        if let Some(event) = again {
            let detail = format!("event {event} is sent again, and was taken");
            return self.fail("only what failed is sent again", detail);
        }
        for event in verdict.events.iter().flatten() {
            let fate = &mut self.events[*event as usize];
            fate.tried_at.get_or_insert(self.process.fruitful);
            fate.counted_twice += u16::from(parcel.ambiguous);
            let in_order = self.process.last_sent.is_none_or(|last| last < *event);
            if !fate.out_of_order && !in_order {
                let last = self.process.last_sent;
                self.fail(
                    "order",
                    format!("event {event} is sent for the first time after {last:?}"),
                );
                return;
            }
            if !fate.out_of_order {
                fate.out_of_order = true;
                self.process.last_sent = Some(*event);
            }
        }
    }

    /// With `ENVELOPE=slim`, what a sandbox is was sent before any event of it.
    fn check_introductions(&mut self, verdict: &Verdict) {
        if self.plan.setup.envelope != Envelope::Slim {
            return;
        }
        for (events, introduced) in verdict.events.iter().zip(&verdict.introduced) {
            for sandbox in introduced {
                self.introductions.entry(*sandbox).or_default().sent = true;
            }
            for event in events {
                let sandbox = self.events[*event as usize].sandbox;
                if !self.introductions.get(&sandbox).is_some_and(|about| about.sent) {
                    let detail = format!("event {event} of {sandbox:?} is sent before it");
                    return self.fail("the sandbox event first", detail);
                }
            }
        }
    }

    /// What a request did on the stream.
    pub(crate) fn store_introductions(&mut self, verdict: &Verdict) {
        for (sandboxes, stored) in verdict.introduced.iter().zip(&verdict.stored) {
            for sandbox in sandboxes.iter().filter(|_| *stored) {
                self.introductions.entry(*sandbox).or_default().stored = true;
            }
        }
    }

    pub(crate) fn refuse_introductions(&mut self, sandboxes: &[SandboxId]) {
        for sandbox in sandboxes {
            self.introductions.entry(*sandbox).or_default().refused += 1;
        }
    }

    pub(crate) fn excuse_introductions(&mut self, sandboxes: &[SandboxId]) {
        for sandbox in sandboxes {
            self.introductions.entry(*sandbox).or_default().excused = true;
        }
    }

    /// A process is gone. What Kinesis had refused until then is kept, where that is possible.
    pub(crate) fn keep_introductions(&mut self, could_keep: bool) {
        let number = self.process.number;
        let files = &self.files;
        // Of those before, it may have taken some over.
        for (sandbox, about) in self.introductions.iter_mut().filter(|((by, _), _)| *by <= number) {
            let kept = files.values().any(|file| file.introduced.contains(sandbox));
            about.excused |= !about.stored && !could_keep && !kept;
        }
    }

    /// With a Kinesis that does well, whoever delivers anything says what it is.
    fn check_introduced(&mut self) {
        if let Some((event, sandbox)) = self.unintroduced() {
            let detail = format!("event {event} is on the stream, that of {sandbox:?} is not");
            self.fail("a sandbox event for all that is delivered", detail);
        }
    }

    /// An event that is on the stream, and whose sandbox event is not.
    pub(crate) fn unintroduced(&self) -> Option<(usize, SandboxId)> {
        if self.plan.setup.envelope != Envelope::Slim {
            return None;
        }
        let unknown = self.events.iter().enumerate().find(|(_, fate)| {
            fate.stored > 0
                && !self
                    .introductions
                    .get(&fate.sandbox)
                    .is_some_and(|about| about.stored || about.excused || about.refused > 2)
        });
        unknown.map(|(event, fate)| (event, fate.sandbox))
    }

    /// A connection is made ready: for an invocation that is held to its function's end, which
    /// nobody knows of yet, and for nothing else.
    pub(crate) fn check_prepare(&mut self, left: Us) {
        let invariant = "a connection is made ready in held invocations";
        self.process.looks += 1;
        let looks = self.process.looks;
        let known = |id: &Arc<str>| self.process.ended.contains(id);
        let asking = self.process.asking.as_ref().filter(|asking| asking.handed_in);
        let held = matches!(asking, Some(Asking { ask: Ask::Invocation(id), .. }) if !known(id));
        if !held || self.process.in_next {
            self.fail(invariant, "nobody is held, or the function's end is known".to_owned());
        } else if left > 1000 * MS {
            self.fail(invariant, format!("it may take {} ms", left / MS));
        } else if looks > 10 {
            self.fail(invariant, format!("{looks} tries for one invocation"));
        }
    }

    /// An event is on the stream.
    pub(crate) fn store(&mut self, event: u32) {
        let fate = &mut self.events[event as usize];
        fate.stored += 1;
        if fate.stored > fate.counted_twice + 1 {
            let (stored, counted) = (fate.stored, fate.counted_twice);
            self.fail(
                "repeats are counted",
                format!(
                    "event {event} is on the stream {stored} times, and was counted {counted} times"
                ),
            );
        }
    }

    /// They were in a request that may have stored some of them. What is beside them in a file is
    /// in doubt as well: that has one mark.
    pub(crate) fn note_doubt(&mut self, segment: Option<SegmentId>, events: &[Vec<u32>]) {
        let beside = self.file_of(segment).map(|file| file.events.clone()).unwrap_or_default();
        for event in events.iter().flatten().chain(&beside) {
            self.events[*event as usize].in_doubt = true;
        }
    }

    /// A request is over.
    pub(crate) fn count_request(&mut self, began: Us, delivered: bool) {
        if delivered {
            self.process.healthy_since = Some(self.now);
            self.process.fruitful += 1;
            return;
        }
        self.process.healthy_since = None;
        self.process.fruitless.push(began);
        let takes_over = self.process.takes_over;
        let before = self.fruitless_before.iter().filter(|_| takes_over);
        let all = before.chain(&self.process.fruitless);
        let in_window = all.filter(|at| began - **at < 1_000_000).count();
        if in_window > 10 {
            self.fail(
                "no storm",
                "more than 10 requests within a second delivered nothing".to_owned(),
            );
        }
    }

    /// What Kinesis refuses while it takes others is tried a bounded number of times: beside others
    /// until it stands alone, and then.
    pub(crate) fn count_refusals(&mut self, verdict: &Verdict) {
        let fruitful = self.process.fruitful;
        let content = |kind: ErrorKind| {
            !matches!(kind, ErrorKind::Throttled | ErrorKind::Transient | ErrorKind::Interrupted)
        };
        let refused: Vec<u32> = match &verdict.sent {
            Ok(outcomes) => {
                let failed = |outcome: &RecordOutcome| matches!(outcome, RecordOutcome::Failed { kind, .. } if content(*kind));
                let records = verdict.events.iter().zip(outcomes);
                records
                    .filter(|(_, outcome)| failed(outcome))
                    .flat_map(|(events, _)| events.clone())
                    .collect()
            }
            Err((error, _)) if error.kind == ErrorKind::InvalidRequest => verdict.events.concat(),
            Err(_) => Vec::new(),
        };
        let mut most = None;
        for event in refused {
            let fate = &mut self.events[event as usize];
            if fate.refused_at.is_none_or(|at| at < fruitful) {
                fate.refused_at = Some(fruitful);
                fate.refusals += 1;
                most = most.max(Some((fate.refusals, event)));
            }
        }
        if let Some((times, event)) = most.filter(|(times, _)| *times > MOST_REFUSALS) {
            let detail = format!("event {event} was refused {times} times while others were taken");
            self.fail("a refused event is sent a bounded number of times", detail);
        }
    }

    /// A segment was read in vain. Files that are read and put back in turn, with no request
    /// between them, keep the dispatcher busy for as long as a function runs.
    pub(crate) fn check_put_back(&mut self) {
        self.process.put_back += 1;
        if self.process.put_back > PUT_BACK {
            let detail = format!("{PUT_BACK} segments were read and put back without a request");
            self.fail("no busy loop", detail);
        }
    }

    /// What nobody has read so far is read now, to be counted: there must be time for it.
    pub(crate) fn check_counted(&mut self, files: u64, until: Us) {
        let left = until.saturating_sub(self.now);
        if files * READ > left && self.slowest_disk() == 0 {
            let detail = format!("{files} files are unread, and {left} us are left for them");
            self.fail("what an earlier process has left is counted", detail);
        }
    }

    /// After what a request did is counted.
    pub(crate) fn note_left_behind(&mut self, verdict: &Verdict) {
        let fruitful = self.process.fruitful;
        for event in verdict.events.iter().flatten() {
            let fate = &mut self.events[*event as usize];
            fate.left_behind |=
                !fate.acknowledged && fate.tried_at.is_some_and(|tried| tried < fruitful);
        }
    }

    /// What is set aside, if there is so much of it that one may be given up.
    pub(crate) fn crowded_aside(&self) -> Vec<u32> {
        let (backlog, bound) = (self.process.core.backlog(), self.process.gauge.bound());
        let crowded = backlog.aside().len() > 1 && backlog.aside_bytes() > bound / 4;
        let aside = backlog.aside().iter().filter(|_| crowded);
        aside.flat_map(|parcel| request_numbers(&parcel.request)).collect()
    }

    /// The core has given up a part of what was set `aside`, for want of room: only what Kinesis
    /// refused while it took others. In an outage all of it waits.
    pub(crate) fn check_given_up(&mut self, aside: &[u32], much: bool, step: &Step) {
        let mut left: Vec<u32> = self
            .process
            .core
            .backlog()
            .aside()
            .iter()
            .flat_map(|parcel| request_numbers(&parcel.request))
            .collect();
        if let Step::Send { parcel, .. } | Step::Spool(parcel) = step {
            left.extend(request_numbers(&parcel.request));
        }
        let fate = |event: &u32| &self.events[*event as usize];
        let given_up: Vec<u32> =
            aside.iter().copied().filter(|event| !left.contains(event)).collect();
        let is_good = |event: &&u32| !fate(event).passing && fate(event).refused == 0;
        let good: Vec<&u32> = given_up.iter().filter(is_good).collect();
        if !much && !good.is_empty() {
            let detail = format!("{good:?} are given up, and were never refused alone");
            return self.fail("only what is refused is given up", detail);
        }
        let fate = |event: &u32| &self.events[*event as usize];
        let wrong: Vec<&u32> = given_up.iter().filter(|event| !fate(event).left_behind).collect();
        if !wrong.is_empty() {
            let detail =
                format!("{wrong:?} are given up, and Kinesis took nothing since they failed");
            self.fail("in an outage nothing is given up", detail);
        }
    }

    /// An invocation is let go.
    pub(crate) fn check_hold(&mut self, asking: &Asking, id: &Arc<str>) {
        let Some(running) = self.running.clone().filter(|running| running.id == *id) else {
            return;
        };
        let slack = SLACK + self.slowest_disk();
        let limit = asking.deadline + slack;
        if self.now > limit {
            return self.fail(
                "hold",
                format!("{} ms past the invocation's deadline", (self.now - asking.deadline) / MS),
            );
        }
        self.check_sent_in_time(asking);
        self.holds_seen.push(running.ended.map(|ended| self.now - ended));
        if self.process.ended.contains(id) {
            self.held_to_end = Some(Arc::clone(id));
        }
        let Some(ended) = running.ended else { return };
        self.process.holds.push((Arc::clone(id), self.now - ended, running.what.done.has_time));
        let Some(heard) = running.heard else { return };
        let failed = running.what.end != End::Success;
        let promised = if failed {
            self.plan.setup.flush_timeout.min(500)
        } else {
            self.plan.setup.flush_timeout
        } * MS;
        // Where the clock was set, or the event says no time, the end is taken for one of when it
        // came.
        let exact = running.what.done.has_time && self.jumped_at.is_none();
        let from = if exact { ended } else { ended.max(heard) };
        self.check_held_in_vain(running.heard.unwrap_or(0).max(ended));
        // Nobody can let it go before its end is known.
        let limit = (from + promised).max(heard) + slack;
        if self.now > limit {
            let held = (self.now - ended) / MS;
            self.fail(
                "hold",
                format!(
                    "{id} is held for {held} ms after its end ({:?}), promised are {} ms",
                    running.what.end,
                    promised / MS
                ),
            );
        }
    }

    /// Nobody is held for nothing: without a step since the end was known. A pause before the next
    /// request is waited for only if that can be sent then.
    fn check_held_in_vain(&mut self, since: Us) {
        let process = &self.process;
        let idle = self.now.saturating_sub(since);
        // Where nothing can be written, that may turn out not to be: what is given up for want of
        // room leaves a Kinesis that is only probed.
        let gave_up = process.gave_up_at.is_some_and(|at| at >= since);
        let is_plain = process.busy_for == process.busy_at_end && !process.write_failed && !gave_up;
        if is_plain && idle > SLACK + self.slowest_disk() {
            let detail = format!("{} ms without a step after its end", idle / MS);
            self.fail("nobody is held in vain", detail);
        }
    }

    /// In `next`, what was queued when the invocation began is on the stream when it is let go; in
    /// `adaptive`, if it was older than `MAX_AGE_MS`.
    fn check_sent_in_time(&mut self, asking: &Asking) {
        let well = |(at, mode): &(u64, Mode)| *mode == Mode::Ok || *at * MS > self.now;
        let plan = &self.plan;
        let is_well = self.process.fruitless.is_empty()
            && plan.kinesis.iter().all(well)
            && (plan.poison.is_none(), plan.stale, plan.disk.is_empty()) == (true, 0, true);
        // A freeze of less than a second is not seen.
        let age = match plan.setup.mode {
            FlushMode::End => return,
            FlushMode::Next => 0,
            FlushMode::Adaptive => plan.setup.max_age + 1200,
        };
        let asked_wall = self.true_wall() - (self.now - asking.at) / MS;
        let until = asking.deadline.min(asking.at + plan.setup.flush_timeout.min(500) * MS);
        if !is_well || self.jumped_at.is_some() || self.now + 30 * MS > until {
            return;
        }
        let number = self.process.number;
        let mut missing = self.waiting_anywhere();
        missing.retain(|event| {
            let fate = &self.events[*event as usize];
            let is_due = fate.came_wall + age + 50 < asked_wall;
            is_due && fate.process == number && fate.received
        });
        if !missing.is_empty() {
            let detail = format!("{missing:?} are not delivered");
            self.fail("what was queued is on the stream", detail);
        }
    }

    /// In `end`, an invocation that was held to its end is let go: all that was known of it then is
    /// on the stream, where Kinesis was well as long as this process lives.
    pub(crate) fn check_flushed(&mut self, asking: &Asking, id: &Arc<str>) {
        let well = |(at, mode): &(u64, Mode)| *mode == Mode::Ok || *at * MS > self.now;
        let plan = &self.plan;
        let is_well = self.process.fruitless.is_empty()
            && plan.kinesis.iter().all(well)
            && (plan.poison.is_none(), plan.stale, plan.disk.is_empty()) == (true, 0, true);
        let Some(running) = self.running.as_ref().filter(|running| running.id == *id) else {
            return;
        };
        let Some((ended, known)) = running.ended.zip(running.known) else {
            return;
        };
        // A lost end changes the mode, and a gap ends the wait.
        let Done { lost, gap, .. } = running.what.done;
        let is_plain = plan.setup.mode == FlushMode::End && !self.ends_lost && !lost;
        let until = asking.deadline.min(ended + plan.setup.flush_timeout.min(500) * MS);
        // Where it ran for longer than the clock was set forward, its end may be taken for earlier.
        let set_forward = u64::try_from(self.jump).unwrap_or(0);
        let is_set = set_forward > 0 && running.what.runs + 550 > set_forward;
        if !is_well || !is_plain || is_set || gap.is_some() || self.now + 30 * MS > until {
            return;
        }
        let number = self.process.number;
        let mut missing = self.waiting_anywhere();
        // What had no room is lost, and counted.
        missing.retain(|event| {
            let fate = &self.events[*event as usize];
            (*event as usize) < known && fate.process == number && fate.received
        });
        if !missing.is_empty() {
            let detail = format!("{id} is let go, and {missing:?} are not delivered");
            return self.fail("a held invocation is on the stream", detail);
        }
        self.flushed = Some(Arc::clone(id));
    }

    /// Function and extension have called `/next`: the sandbox may be frozen now.
    pub(crate) fn check_freeze(&mut self, id: &Arc<str>) {
        let is_held = self.flushed.as_ref() == Some(id) || self.held_to_end.as_ref() == Some(id);
        if is_held && matches!(self.process.busy, Busy::Send { .. }) {
            let detail = format!("{id} is over, and a request is on its way");
            self.fail("no request across a freeze", detail);
        }
    }

    /// main leaves after SHUTDOWN.
    pub(crate) fn check_stop(&mut self, asking: &Asking) {
        let late = self.now.saturating_sub((asking.deadline + 50 * MS).max(asking.at + 200 * MS));
        if late > self.slowest_disk() {
            self.fail("exit in time", format!("{} ms too late", late / MS));
        }
        self.check_quick_stop(asking);
        self.audit(true);
        self.check_holds_counted();
        self.check_printed();
        let has_disk = self.plan.setup.spool_bytes > 0 && self.plan.disk.is_empty();
        self.keep_introductions(has_disk && !self.process.write_failed);
        let number = self.process.number;
        let unanswered = self
            .events
            .iter()
            .filter(|fate| fate.process == number && fate.received && !fate.answered)
            .count() as u64;
        let waiting = self.process.ledger.waiting();
        if self.ending.is_some_and(|(reason, ..)| reason == "spindown") && waiting > unanswered {
            self.fail(
                "the ledger balances",
                format!("{waiting} events wait at the end, {unanswered} were not answered 200"),
            );
        }
        self.check_healed();
    }

    /// Where Kinesis and the disk do well, the end takes as long as the last report, and requests.
    fn check_quick_stop(&mut self, asking: &Asking) {
        let process = &self.process;
        let well = process.fruitless.is_empty() && process.failed_at.is_none();
        let all = self.now - asking.at;
        let busy = process.busy_for - process.busy_at_stop;
        if well && self.plan.disk.is_empty() && all.saturating_sub(busy) > 300 * MS + SLACK {
            let detail = format!("{} ms, {} of them busy", all / MS, busy / MS);
            self.fail("a quick end", detail);
        }
    }

    /// The ledger has each hold whose end the core has heard of, and nothing else.
    fn check_holds_counted(&mut self) {
        if self.jumped_at.is_some() {
            return;
        }
        let process = &self.process;
        let known = process
            .holds
            .iter()
            .filter(|(id, _, has_time)| *has_time && process.ended.contains(id));
        let least: u64 = known.map(|(_, held, _)| held / MS).sum();
        let most: u64 = process.holds.iter().map(|(_, held, _)| held / MS).sum();
        let counted = process.ledger.hold_ms_total.get();
        // By clocks that count milliseconds.
        let slack = 3 * process.holds.len() as u64;
        if counted + slack < least || counted > most + slack {
            let detail = format!(
                "{least} to {most} ms are held, the ledger says {counted}; {:?}",
                process.holds
            );
            return self.fail("holds are counted", detail);
        }
        let longest = |known: bool| {
            let holds = process.holds.iter();
            let holds =
                holds.filter(|(id, _, has_time)| !known || *has_time && process.ended.contains(id));
            holds.map(|(_, held, _)| held / MS).max().unwrap_or(0)
        };
        let (least, most, counted) =
            (longest(true), longest(false), process.ledger.hold_ms_max.get());
        if counted + 3 < least || counted > most + 3 {
            let detail = format!("the longest is {least} to {most} ms, the ledger says {counted}");
            self.fail("holds are counted", detail);
        }
    }

    /// A segment is deleted. One that is whole, and not refused for what it holds, is not given up:
    /// it is on disk, and costs no memory.
    pub(crate) fn check_removal(&mut self, segment: SegmentId) {
        let file = self.process.files.get(&segment).and_then(|file| self.files.remove_entry(file));
        let Some((number, file)) = file else { return };
        let given_up = |event: &u32| {
            let fate = &self.events[*event as usize];
            !fate.acknowledged && !fate.evicted && !fate.excused && fate.refused < 3
        };
        // At the end there is no later.
        if !file.damaged && self.process.stop_asked.is_none() && file.events.iter().all(given_up) {
            let elsewhere = self.waiting_anywhere();
            // Where a part was kept elsewhere, the whole would send that twice.
            let is_elsewhere = |event: &u32| elsewhere.contains(event);
            if !file.events.is_empty() && !file.events.iter().any(is_elsewhere) {
                let detail = format!("segment {segment} is deleted with {:?}", file.events);
                self.fail("what is whole on disk is kept", detail);
            }
        }
        self.files.insert(number, file);
    }

    fn check_healed(&mut self) {
        let Some(healed) = self.process.healed else { return };
        if self.ending.is_none_or(|(reason, ..)| reason != "spindown") {
            return;
        }
        self.check_introduced();
        let ledger = &self.process.ledger;
        let refused = self.events.iter().enumerate().filter(|(number, fate)| {
            let poison = self.is_poison(u32::try_from(*number).unwrap_or(0));
            // What a process before has delivered of a segment that it left is on the stream.
            let is_there = fate.stored > 0 && !fate.acknowledged;
            (poison || fate.refused > 2 || is_there) && fate.process == self.process.number
        });
        let refused = refused.count() as u64;
        let lost = ledger.dropped() - ledger.dropped_queue.get() - healed.given_up;
        if lost > refused + self.process.damaged {
            let json = ledger.json(None);
            self.fail(
                "everything deliverable is delivered",
                format!("{lost} events are lost, {refused} may be: {json}"),
            );
            return;
        }
        let sent = ledger.requests.get() - healed.requests;
        let most = 60
            + 25 * healed.poisoned
            + 2 * (ledger.received.get() - healed.received)
            + 3 * self.events.len() as u64;
        if sent > most {
            self.fail(
                "a bounded number of sends",
                format!("{sent} requests after Kinesis did well again, {most} are plenty"),
            );
        }
    }

    /// The process is killed in a SHUTDOWN window that was nearly over when it heard of it. Before a
    /// reset, what was answered 200 by then is on disk as soon as the order can have been seen (100
    /// ms) and a request that was on its way is interrupted (40 ms).
    pub(crate) fn check_kept(&mut self, asked: Us, known: usize) {
        let process = &self.process;
        let spools =
            self.plan.setup.spool_bytes > 0 && !process.write_failed && self.plan.disk.is_empty();
        let reset = self.ending.is_some_and(|(reason, ..)| reason != "spindown");
        let had_time = self.now - asked > 150 * MS && !matches!(process.busy, Busy::Spool { .. });
        if !spools || !reset || !had_time {
            return;
        }
        let on_disk: std::collections::HashSet<u32> =
            self.files.values().flat_map(|file| file.events.iter().copied()).collect();
        let mut lost = self.waiting_anywhere();
        lost.retain(|event| {
            let fate = &self.events[*event as usize];
            fate.answered && (*event as usize) < known && !on_disk.contains(event)
        });
        if !lost.is_empty() {
            let detail = format!("{lost:?} are only in memory when the process is killed");
            self.fail("the disk comes first", detail);
        }
    }

    /// The function has crashed while it was held, and nobody was told: the process is killed. What
    /// had waited for long is on disk, as far as that takes it.
    pub(crate) fn loses_what_is_old(&mut self) -> bool {
        let process = &self.process;
        // No copy is written once much of the spool is used.
        let bound = self.plan.setup.spool_bytes;
        let spools = !process.write_failed
            && self.plan.disk.is_empty()
            && process.index.bytes() + spool_file::largest(self.limits) <= bound / 2;
        let held = process.asking.as_ref().filter(|asking| asking.handed_in);
        let held = held.is_some_and(|asking| {
            matches!(&asking.ask, Ask::Invocation(id) if !process.ended.contains(id))
                && asking.at + KEPT_AFTER < self.now
        });
        if !spools || !held {
            return false;
        }
        let on_disk: std::collections::HashSet<u32> =
            self.files.values().flat_map(|file| file.events.iter().copied()).collect();
        let mut lost = self.waiting_anywhere();
        lost.retain(|event| {
            let fate = &self.events[*event as usize];
            // What waits for a choice is the listener's.
            let is_old = fate.choice == Choice::Kept && fate.came + KEPT_AFTER < self.now;
            fate.answered && is_old && !on_disk.contains(event)
        });
        if !lost.is_empty() {
            let detail = format!("{lost:?} are only in memory when the process is killed");
            self.fail("what waits for long is on disk", detail);
        }
        !lost.is_empty()
    }

    /// The process is gone without a word: what it had in memory is lost, and nobody can count it.
    pub(crate) fn abrupt_end(&mut self) {
        self.audit(false);
        self.tear();
        if let Busy::Send { parcel, verdict, .. } =
            std::mem::replace(&mut self.process.busy, Busy::Nothing)
        {
            self.note_doubt(parcel.segment, &verdict.events);
            // The request in progress may arrive.
            if self.rng.bool() {
                let records = verdict.events.iter().zip(&verdict.stored);
                let stored = records.filter(|(_, stored)| **stored);
                stored.flat_map(|(events, _)| events).for_each(|event| self.store(*event));
                self.store_introductions(&verdict);
            }
        }
        self.keep_introductions(false);
        let number = self.process.number;
        // A part of a segment may have been written once more, before the others were settled: the
        // next process sends such events twice, and counts them so. Its ledger counts them as
        // received twice too, which this model of one fate for each event has no word for.
        let mut seen = std::collections::HashSet::new();
        self.files.retain(|_, file| file.events.iter().all(|event| seen.insert(*event)));
        for (event, fate) in self.events.iter_mut().enumerate() {
            let on_disk = u32::try_from(event).is_ok_and(|event| seen.contains(&event));
            fate.excused |= fate.process == number && !fate.acknowledged && !on_disk;
        }
    }

    /// Lines go to stdout: lost events, or counts.
    pub(crate) fn print(&mut self, lines: &[u8]) {
        if !lines.starts_with(b"{\"_aws\"") {
            return self.print_events(numbers(lines).len() as u64);
        }
        if !self.plan.prints_metrics() {
            self.fail("prints what is wanted", "a line for CloudWatch".to_owned());
        }
        let line: serde_json::Value = serde_json::from_slice(lines).unwrap();
        for (name, count) in line.as_object().unwrap() {
            if let Some(count) = count.as_u64() {
                *self.process.metrics.entry(name.clone()).or_default() += count;
            }
        }
    }

    /// Lost events are printed, if that is wanted.
    pub(crate) fn print_events(&mut self, events: u64) {
        if self.plan.prints_lost() {
            self.process.printed += events;
        }
    }

    /// `FALLBACK=log` prints each event that is counted as lost, once; `METRICS=emf` has said all
    /// that is counted.
    fn check_printed(&mut self) {
        let process = &self.process;
        let (ledger, printed) = (&process.ledger, process.printed);
        let lost = ledger.dropped() - process.damaged - process.unprintable;
        let wanted = if self.plan.prints_lost() { lost } else { 0 };
        if printed != wanted {
            let detail = format!("{printed} events are printed, {lost} are lost");
            return self.fail("lost events are printed", detail);
        }
        if !self.plan.prints_metrics() {
            return;
        }
        let counts = [
            ("Received", ledger.received.get()),
            ("Delivered", ledger.delivered.get()),
            ("Dropped", ledger.dropped()),
            ("Retried", ledger.retried.get()),
            ("PossibleDuplicates", ledger.possible_duplicates.get()),
            ("Requests", ledger.requests.get()),
        ];
        for (name, count) in counts {
            let said = self.process.metrics.get(name).copied().unwrap_or_default();
            // A POST that closing did not wait for, and that is not answered 200, may be counted later.
            let number = self.process.number;
            let late = self.events.iter().filter(|fate| {
                fate.process == number && fate.received && !fate.answered && !fate.acknowledged
            });
            if said > count || count - said > late.count() as u64 {
                let detail = format!("{name} is {count}, CloudWatch hears of {said}");
                return self.fail("metrics say all", detail);
            }
        }
    }

    /// What is being written may be there in part: whole batches of it are not lost.
    fn tear(&mut self) {
        let spooling = match &mut self.process.busy {
            Busy::Spool { writing, .. } => writing.take(),
            _ => None,
        };
        let spilling = match &mut self.process.taking {
            Taking::Writing { writing, .. } => writing.take().map(|writing| *writing),
            _ => None,
        };
        for writing in [spooling, spilling].into_iter().flatten() {
            let known = self.process.files.get(&writing.slot.id).copied();
            let old = known.and_then(|file| self.files.remove(&file));
            let number = known.unwrap_or(self.next_file);
            let mut file = old.unwrap_or_else(|| SpoolFile {
                process: self.process.number,
                bytes: Vec::new(),
                doubt: writing.slot.purpose.is_in_doubt(),
                damaged: false,
                events: Vec::new(),
                introduced: Vec::new(),
            });
            file.bytes.truncate(usize::try_from(writing.slot.at).unwrap());
            let part = self.rng.usize(0..=writing.bytes.len());
            file.bytes.extend_from_slice(&writing.bytes[..part]);
            let content = self.content(&file.bytes, u64::MAX);
            let lines: Vec<Vec<u8>> = content.iter().flat_map(|all| all.request.data()).collect();
            file.damaged |= content.is_none();
            file.events = lines.iter().flat_map(|lines| numbers(lines)).collect();
            file.introduced = lines.iter().flat_map(|lines| introduced_in(lines)).collect();
            self.say(|_| format!("disk: a file is torn, what is left: {:?}", file.events));
            self.next_file += u64::from(known.is_none());
            self.files.insert(number, file);
        }
    }

    /// Now and then, between two steps.
    pub(crate) fn now_and_then(&mut self) {
        if self.timeline.is_some() || self.steps.is_multiple_of(64) {
            self.audit(false);
        }
    }

    /// Every event is in exactly one place, and the ledger says so.
    pub(crate) fn audit(&mut self, at_end: bool) {
        self.check_choices(at_end);
        let number = self.process.number;
        let mut places = vec![0u8; self.events.len()];
        let mut on_disk = vec![false; self.events.len()];
        let mut put =
            |events: Vec<u32>| events.iter().for_each(|event| places[*event as usize] += 1);
        let process = &self.process;
        for message in &process.channel {
            if let Message::Telemetry { load, .. } = message {
                put(load_numbers(load));
            }
        }
        process.core.backlog().fresh().for_each(|item| put(load_numbers(&item.load)));
        // At the end, what is as it is on disk stays there.
        process
            .core
            .backlog()
            .aside()
            .iter()
            .for_each(|parcel| put(request_numbers(&parcel.request)));
        match &process.busy {
            Busy::Send { parcel, .. } | Busy::Spool { parcel, .. } => {
                put(request_numbers(&parcel.request))
            }
            _ => {}
        }
        let reading = process.reading.as_ref().map(|entry| entry.id);
        for (id, file) in &process.files {
            let Some(file) = self.files.get(file) else { continue };
            let untaken = process.index.entry(*id).is_none() || reading == Some(*id);
            // What an earlier process left is in the ledger once it was read.
            if untaken && (file.process == number || process.read.contains(id)) {
                put(file.events.clone());
            }
            file.events.iter().for_each(|event| {
                on_disk[*event as usize] |= file.process == number || process.read.contains(id)
            });
        }
        match &process.taking {
            Taking::Writing { events, rest, .. } => {
                put(events.clone());
                rest.iter().for_each(|request| put(request_numbers(request)));
            }
            Taking::Nothing | Taking::Answering(_) => {}
        }
        let spindown = self.ending.is_none_or(|(reason, ..)| reason == "spindown");
        let (mut lost, mut lost_refused, mut waiting, mut kept, mut wrong) = (0, 0, 0, 0, None);
        for (event, fate) in self
            .events
            .iter()
            .enumerate()
            .filter(|(_, fate)| fate.received && fate.process == number)
        {
            let place = places[event];
            if fate.acknowledged {
                if place > 0 {
                    wrong =
                        Some(format!("event {event} is delivered, and waits in {place} places"));
                }
                continue;
            }
            match place {
                0 => {
                    lost_refused += u64::from(fate.refused >= 3);
                    // Before a reset, what is as it is on disk stays there; other parts of such a
                    // segment may have been given up.
                    let stays = self.process.stop_asked.is_some() && !spindown && on_disk[event];
                    if stays { kept += 1 } else { lost += 1 }
                }
                1 => {
                    waiting += 1;
                    if at_end && fate.answered && (spindown || !on_disk[event]) {
                        wrong = Some(format!(
                            "event {event} was answered 200 and is in memory at the end"
                        ));
                    }
                }
                _ => wrong = Some(format!("event {event} is in {place} places")),
            }
        }
        if let Some(wrong) = wrong {
            return self.fail("each event is in one place", wrong);
        }
        let ledger = &self.process.ledger;
        let (dropped, rejected) = (ledger.dropped(), ledger.dropped_rejected.get());
        let given_up = dropped.saturating_sub(lost);
        if dropped < lost || given_up > kept || waiting + kept - given_up != ledger.waiting() {
            let json = ledger.json(None);
            let missing: Vec<usize> = self
                .events
                .iter()
                .enumerate()
                .filter(|(event, fate)| {
                    fate.received
                        && fate.process == number
                        && !fate.acknowledged
                        && places[*event] == 0
                })
                .map(|(event, _)| event)
                .collect();
            return self.fail(
                "the ledger balances",
                format!("{lost} are in no place ({missing:?}), {waiting} wait: {json}"),
            );
        }
        if rejected > lost_refused + self.process.damaged {
            self.fail(
                "only what is refused is given up",
                format!(
                    "{rejected} rejected, {lost_refused} were refused three times {:?}",
                    self.events
                        .iter()
                        .enumerate()
                        .filter(|(n, f)| f.process == number
                            && f.received
                            && !f.acknowledged
                            && places[*n] == 0)
                        .map(|(n, f)| (n, f.refused))
                        .collect::<Vec<_>>()
                ),
            );
        }
    }
}

pub(crate) fn load_numbers(load: &Load) -> Vec<u32> {
    match load {
        Load::Nothing => Vec::new(),
        Load::Events(batch) => batch
            .remaining()
            .iter()
            .flat_map(|event| numbers(event.text.of(batch.bytes())))
            .collect(),
        Load::Packed(request) => request_numbers(request),
    }
}

pub(crate) fn request_numbers(request: &Request) -> Vec<u32> {
    request.data().flat_map(|lines| numbers(&lines)).collect()
}
