//! One life under a virtual clock: Lambda, main with its watchdog, the listener, the dispatcher,
//! Kinesis and a disk, in one thread. A heap of wake-ups says who runs next; the seed decides all
//! durations and who comes first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kinesis_telemetry_extension::dispatch;
use kinesis_telemetry_extension::dispatch::attention::Announced;
use kinesis_telemetry_extension::dispatch::backlog::{Parcel, SegmentId};
use kinesis_telemetry_extension::dispatch::charge::Gauge;
use kinesis_telemetry_extension::dispatch::core::{Core, Settings};
use kinesis_telemetry_extension::dispatch::message::{Message, Now, Signal, Ticket};
use kinesis_telemetry_extension::dispatch::packer::Packer;
use kinesis_telemetry_extension::dispatch::signal_room::SignalRoom;
use kinesis_telemetry_extension::dispatch::spares::Spares;
use kinesis_telemetry_extension::dispatch::spool_index::{Entry as IndexEntry, Hash, Index, Slot};
use kinesis_telemetry_extension::dispatch::step::View;
use kinesis_telemetry_extension::dispatch::watchdog::{Question, Watchdog, hold_ends_at};
use kinesis_telemetry_extension::event::{Batch, Event, Span};
use kinesis_telemetry_extension::kinesis::RecordSettings;
use kinesis_telemetry_extension::kinesis::endpoint::Stream;
use kinesis_telemetry_extension::kinesis::record::Limits;
use kinesis_telemetry_extension::kinesis::request::Request;
use kinesis_telemetry_extension::ledger::Ledger;
use kinesis_telemetry_extension::sandbox::Sandbox;

use crate::keep::{Choice, Keeping};
use crate::kinesis::Verdict;
use crate::plan::{Act, Disk, Done, End, Invocation, Mode, Plan, Post};

/// Microseconds of the monotonic clock.
pub(crate) type Us = u64;

pub(crate) const MS: Us = 1000;
const WALL: u64 = 1_795_425_345_000;
const HOUR: Us = 3_600_000_000;
/// As `extension::GRACE`.
const GRACE: Us = 50 * MS;
/// Where the SHUTDOWN window seems to be shorter, its deadline is not believed, and not kept.
const SHORT_WINDOW: Us = 400 * MS;

/// What is known of one event. Its place in the list is its number.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fate {
    /// The process whose ledger counts it as received.
    pub(crate) process: u16,
    /// The sandbox that its id begins with.
    pub(crate) sandbox: SandboxId,
    pub(crate) received: bool,
    /// When it came.
    pub(crate) came: Us,
    /// The same by the wall clock, which goes on in a freeze, if nobody sets it.
    pub(crate) came_wall: u64,
    /// Lambda got a 200 for it.
    pub(crate) answered: bool,
    /// How often it is on the stream.
    pub(crate) stored: u16,
    /// How often it was sent and counted as a possible duplicate.
    pub(crate) counted_twice: u16,
    /// It was in a request, or in a file of which a part was in one, that may have been stored.
    pub(crate) in_doubt: bool,
    /// The core was told that it is taken.
    pub(crate) acknowledged: bool,
    /// It was sent before, or left its place in the order.
    pub(crate) out_of_order: bool,
    /// How often it was refused for what it may hold while it stood alone, by this process.
    pub(crate) refused: u16,
    /// How often it was refused for what it may hold, alone or not, while Kinesis took others: each
    /// counts once between two requests that delivered something. And how many those were then.
    pub(crate) refusals: u16,
    pub(crate) refused_at: Option<u32>,
    /// How many requests of this process had delivered something when it was sent first.
    pub(crate) tried_at: Option<u32>,
    /// It failed, and others were delivered since it was sent first.
    pub(crate) left_behind: bool,
    /// It was refused in a way that passes, and says nothing of what it holds.
    pub(crate) passing: bool,
    /// A segment with it had to give way to another one.
    pub(crate) evicted: bool,
    /// It was in the memory of a process that was killed without a word, or in a file that was
    /// damaged.
    pub(crate) excused: bool,
    /// With `KEEP`: what was chosen.
    pub(crate) choice: Choice,
}

/// Names a process, and how often its sandbox had been restored: each time the ids of its events
/// begin otherwise.
pub(crate) type SandboxId = (u16, u16);

/// What is known of the event that says what a sandbox is, for `ENVELOPE=slim`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Introduction {
    /// It was sent, whatever became of it.
    pub(crate) sent: bool,
    /// It is on the stream.
    pub(crate) stored: bool,
    /// How often it was refused for what it may hold while it stood alone.
    pub(crate) refused: u16,
    /// Kinesis refused it as long as its process lived, and that could not keep it; or its file is
    /// gone.
    pub(crate) excused: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) detail: String,
}

/// A file of the spool. Outlives a reset.
#[derive(Clone, Debug)]
pub(crate) struct SpoolFile {
    pub(crate) process: u16,
    pub(crate) bytes: Vec<u8>,
    pub(crate) doubt: bool,
    pub(crate) damaged: bool,
    pub(crate) events: Vec<u32>,
    pub(crate) introduced: Vec<SandboxId>,
}

/// What is being written to a file of the spool.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) slot: Slot,
    pub(crate) hash: Hash,
    pub(crate) bytes: Vec<u8>,
    pub(crate) events: Vec<u32>,
    pub(crate) introduced: Vec<SandboxId>,
}

/// Whoever runs next. What belongs to a process is void when that is gone.
#[derive(Clone, Debug)]
pub(crate) enum Wake {
    NextAct,
    Invoke,
    FunctionEnd,
    Post(Body),
    Kill(u16),
    StartProcess(u16),
    Shutdown(u16),
    MainNext(u16),
    MainGivesUp(u16, Ticket),
    Watch(u16, Ticket),
    PostRead(u16, u64),
    Listener(u16),
    Drain(u16, u64),
    WaitOver(u16, u64),
    StepDone(u16, u64),
    Tick(u16),
    HandOver(u16),
}

/// A POST on its way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub(crate) events: u32,
    pub(crate) text: usize,
    pub(crate) weight: usize,
    pub(crate) request_id: Option<Arc<str>>,
    pub(crate) signals: Vec<Signal>,
    /// `platform.restoreStart` is among it.
    pub(crate) restored: bool,
    pub(crate) tries: u32,
}

#[derive(Debug)]
struct Entry(Us, u32, u64, Wake);

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.0, self.1, self.2) == (other.0, other.1, other.2)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.0, self.1, self.2).cmp(&(other.0, other.1, other.2))
    }
}

/// A function at work.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) id: Arc<str>,
    pub(crate) what: Invocation,
    pub(crate) began: Us,
    pub(crate) ended: Option<Us>,
    pub(crate) wall_ended: u64,
    pub(crate) next_called: bool,
    /// When its end reached the listener, and how many events there were by then.
    pub(crate) heard: Option<Us>,
    pub(crate) known: Option<usize>,
}

/// What main waits for.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Invocation(Arc<str>),
    Stop,
}

#[derive(Clone, Debug)]
pub(crate) struct Asking {
    pub(crate) ticket: Ticket,
    pub(crate) ask: Ask,
    pub(crate) at: Us,
    /// The deadline, margin taken off.
    pub(crate) deadline: Us,
    /// The core has seen it.
    pub(crate) handed_in: bool,
    pub(crate) watchdog: Watchdog,
}

/// What the dispatcher is busy with.
#[derive(Debug)]
pub(crate) enum Busy {
    Nothing,
    Send {
        parcel: Box<Parcel>,
        verdict: Verdict,
        began: Us,
    },
    Ledger {
        request: Box<Request>,
        verdict: Verdict,
        began: Us,
    },
    Read(SegmentId),
    Count,
    Spool {
        parcel: Box<Parcel>,
        /// `None`: there is no room.
        writing: Option<Writing>,
    },
    /// A connection is being made ready.
    Prepare,
    Close(Closing),
    Recover(bool),
}

/// How far the intake is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// A listener's thread has its lock.
    WaitsForIntake { until: Us },
    /// The same, and no POST is answered 200 any more.
    WaitsForChoice,
    /// The dispatcher has the lock.
    HandsOver,
}

/// What the listener's thread is busy with that holds the intake's lock.
#[derive(Debug)]
pub(crate) enum Taking {
    Nothing,
    /// Writes a request, and what comes behind it.
    Writing {
        writing: Option<Box<Writing>>,
        events: Vec<u32>,
        rest: VecDeque<Request>,
        all: Vec<u32>,
        signals: Vec<Signal>,
        /// The dispatcher may wait for what was written before.
        wakes: bool,
    },
    Answering(Vec<u32>),
}

/// One process of the extension.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) number: u16,
    pub(crate) alive: bool,
    pub(crate) core: Core,
    pub(crate) gauge: Arc<Gauge>,
    pub(crate) spares: Arc<Spares>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) sandbox: Arc<Sandbox>,
    /// Of the listener.
    pub(crate) packer: Packer,
    pub(crate) channel: VecDeque<Message>,
    /// What the dispatcher sleeps for.
    pub(crate) announced: Announced,
    pub(crate) index: Index,
    pub(crate) files: HashMap<SegmentId, u64>,
    pub(crate) busy: Busy,
    pub(crate) waits: bool,
    /// Names the dispatcher's last wait or step.
    pub(crate) token: u64,
    pub(crate) taking: Taking,
    /// What other threads of the listener are reading, and what they have read and wait for the
    /// lock with.
    pub(crate) reading_posts: BTreeMap<u64, Body>,
    pub(crate) posts: Vec<Body>,
    pub(crate) closed: bool,
    /// None where nobody chooses.
    pub(crate) keeping: Option<Keeping>,
    pub(crate) asking: Option<Asking>,
    pub(crate) in_next: bool,
    pub(crate) tickets: Ticket,
    pub(crate) answered: Vec<Ticket>,
    pub(crate) signal_room: SignalRoom,
    pub(crate) is_running: bool,
    /// The last invocation that was let go at its deadline.
    pub(crate) missed: Option<Arc<str>>,
    /// The last INVOKE that the core has seen, and when it came.
    pub(crate) invoked: Option<(Arc<str>, Us)>,
    pub(crate) fruitless: Vec<Us>,
    /// Something was given up for want of room.
    pub(crate) gave_up_at: Option<Us>,
    /// It has found what an earlier one left.
    pub(crate) takes_over: bool,
    /// Requests that delivered something.
    pub(crate) fruitful: u32,
    /// Memory was within its bound when the last step was asked for.
    pub(crate) had_room: bool,
    /// Segments that were read and put back since the last request.
    pub(crate) put_back: u32,
    /// The request in progress has marked its segment as one that may have been sent.
    pub(crate) marked: bool,
    pub(crate) ledgers: u32,
    pub(crate) last_sent: Option<u32>,
    pub(crate) damaged: u64,
    pub(crate) restores: u16,
    /// Events that were printed as lost, and those that were lost and cannot be read any more.
    pub(crate) printed: u64,
    pub(crate) unprintable: u64,
    /// The sums of what was printed for CloudWatch.
    pub(crate) metrics: BTreeMap<String, u64>,
    /// A segment could not be written.
    pub(crate) write_failed: bool,
    /// A request failed since the order to stop.
    pub(crate) stop_failed: bool,
    /// As it was seen before the messages are handed in.
    pub(crate) view: Option<View>,
    pub(crate) ended: Vec<Arc<str>>,
    /// For how long each invocation was held past its function's end, and whether that says its time.
    pub(crate) holds: Vec<(Arc<str>, Us, bool)>,
    pub(crate) reading: Option<IndexEntry>,
    /// Segments of an earlier process that were read.
    pub(crate) read: Vec<SegmentId>,
    pub(crate) polls: (Us, u32),
    /// Names the last call that made a connection ready, and the looks for the invocation in
    /// progress.
    pub(crate) prepares: u64,
    pub(crate) looks: u32,
    /// When the order to stop came, and how many events there were by then.
    pub(crate) stop_asked: Option<(Us, usize)>,
    pub(crate) short_window: bool,
    pub(crate) healthy_since: Option<Us>,
    /// When something failed last, of a request or all of it.
    pub(crate) failed_at: Option<Us>,
    /// For how long steps have taken so far, when the last one began, and how long they had taken when
    /// the last end of a function was heard, and the order to stop came.
    pub(crate) busy_for: Us,
    pub(crate) busy_since: Us,
    pub(crate) busy_at_end: Us,
    pub(crate) busy_at_stop: Us,
    /// From when on Kinesis does well.
    pub(crate) healed: Option<Healed>,
}

/// A process at the moment from which Kinesis does well.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Healed {
    /// Events that were given up.
    pub(crate) given_up: u64,
    pub(crate) requests: u64,
    pub(crate) received: u64,
    /// Events that wait and are refused for what they hold.
    pub(crate) poisoned: u64,
    /// What waits, in requests, and the events of the largest.
    pub(crate) requests_waiting: u64,
    pub(crate) largest: u64,
    /// Rounds since in which all requests failed.
    pub(crate) barren: u64,
    /// When the last round began: the requests of the process that had delivered something, and all.
    pub(crate) at_round: Option<(u32, u64)>,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    pub(crate) stream: Stream,
    pub(crate) rng: fastrand::Rng,
    base: Instant,
    pub(crate) now: Us,
    /// What the wall clock went ahead in freezes, and what it was set by.
    wall_ahead: u64,
    pub(crate) jump: i64,
    pub(crate) jumped_at: Option<Us>,
    heap: BinaryHeap<Reverse<Entry>>,
    seq: u64,
    acts: VecDeque<Act>,
    pub(crate) running: Option<Running>,
    invocations: u32,
    /// Reason, moment of the kill, and whether the process was told.
    pub(crate) ending: Option<(&'static str, Us, bool)>,
    pub(crate) healed: bool,
    /// No event from here on is refused for what it holds.
    pub(crate) clean_from: u32,
    over: bool,
    pub(crate) process: Process,
    pub(crate) processes: u16,
    /// When the process before this one sent requests that delivered nothing.
    pub(crate) fruitless_before: Vec<Us>,
    pub(crate) files: BTreeMap<u64, SpoolFile>,
    pub(crate) next_file: u64,
    pub(crate) events: Vec<Fate>,
    pub(crate) introductions: BTreeMap<SandboxId, Introduction>,
    pub(crate) violation: Option<Violation>,
    pub(crate) timeline: Option<Vec<String>>,
    pub(crate) steps: u64,
    pub(crate) sends: u64,
    pub(crate) digest: u64,
    pub(crate) holds_seen: Vec<Option<Us>>,
    pub(crate) last_ledgers: u32,
    pub(crate) ledger_events: u32,
    /// An end did not come, or not in order.
    pub(crate) ends_lost: bool,
    /// The last invocation that was let go with all that was known of it on the stream.
    pub(crate) flushed: Option<Arc<str>>,
    /// The last invocation whose end was known when it was let go.
    pub(crate) held_to_end: Option<Arc<str>>,
}

/// What a life came to.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) violation: Option<Violation>,
    pub(crate) steps: u64,
    pub(crate) sends: u64,
    pub(crate) digest: u64,
    pub(crate) events: Vec<Fate>,
    pub(crate) introductions: BTreeMap<SandboxId, Introduction>,
    pub(crate) timeline: Vec<String>,
    /// The ledger of the last process.
    pub(crate) ledger: Arc<Ledger>,
    /// Of each invocation, how long it was held; `None`: it was let go before its end.
    pub(crate) holds: Vec<Option<Us>>,
    /// Requests for the last ledger, of all processes.
    pub(crate) last_ledgers: u32,
    /// Periodic ledger events on the stream. Counted only with a timeline.
    pub(crate) ledger_events: u32,
}

thread_local! {
    static BASE: Instant = Instant::now();
}

impl World {
    pub(crate) fn new(plan: &Plan, timeline: bool) -> World {
        let config = configuration(plan);
        let rng = fastrand::Rng::with_seed(plan.seed);
        let process = Process::new(plan, &config, 1);
        let limits = process.packer.limits();
        World {
            acts: plan.acts.iter().cloned().collect(),
            plan: plan.clone(),
            limits,
            stream: Stream::Name("telemetry".to_owned()),
            config,
            rng,
            base: BASE.with(|base| *base) + Duration::from_micros(HOUR),
            now: 0,
            wall_ahead: 0,
            jump: 0,
            jumped_at: None,
            heap: BinaryHeap::new(),
            seq: 0,
            running: None,
            invocations: 0,
            ending: None,
            healed: false,
            clean_from: u32::MAX,
            over: false,
            process,
            processes: 1,
            fruitless_before: Vec::new(),
            files: BTreeMap::new(),
            next_file: 1,
            events: Vec::new(),
            introductions: BTreeMap::new(),
            violation: None,
            timeline: timeline.then(Vec::new),
            steps: 0,
            sends: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            holds_seen: Vec::new(),
            last_ledgers: 0,
            ledger_events: 0,
            ends_lost: false,
            flushed: None,
            held_to_end: None,
        }
    }

    /// The whole life.
    pub(crate) fn live(mut self) -> Life {
        self.start_process();
        self.after(150 * MS, Wake::NextAct);
        while !self.over && self.violation.is_none() {
            let Some(Reverse(Entry(at, _, _, wake))) = self.heap.pop() else {
                self.fail("liveness", "nobody can run any more".to_owned());
                break;
            };
            self.now = self.now.max(at);
            self.wake(wake);
            self.cheap_checks();
        }
        Life {
            violation: self.violation,
            steps: self.steps,
            sends: self.sends,
            digest: self.digest,
            events: self.events,
            introductions: self.introductions,
            timeline: self.timeline.unwrap_or_default(),
            ledger: self.process.ledger,
            holds: self.holds_seen,
            last_ledgers: self.last_ledgers,
            ledger_events: self.ledger_events,
        }
    }

    // --- time and luck ---------------------------------------------------------------------------

    pub(crate) fn instant(&self, at: Us) -> Instant {
        self.base + Duration::from_micros(at)
    }

    pub(crate) fn micros(&self, at: Instant) -> Us {
        u64::try_from(at.saturating_duration_since(self.base).as_micros()).unwrap_or(u64::MAX)
    }

    /// As the sandbox sees it.
    pub(crate) fn clock(&self) -> Now {
        Now {
            mono: self.instant(self.now),
            wall: self.true_wall().saturating_add_signed(self.jump),
        }
    }

    /// As Lambda sees it.
    pub(crate) fn true_wall(&self) -> u64 {
        WALL + self.now / MS + self.wall_ahead
    }

    pub(crate) fn at(&mut self, at: Us, wake: Wake) {
        self.seq += 1;
        let luck = self.rng.u32(..);
        self.heap.push(Reverse(Entry(at.max(self.now), luck, self.seq, wake)));
    }

    pub(crate) fn after(&mut self, time: Us, wake: Wake) {
        self.at(self.now + time, wake);
    }

    pub(crate) fn chance(&mut self, one_in: u32) -> bool {
        one_in > 0 && self.rng.u32(0..one_in) == 0
    }

    pub(crate) fn between(&mut self, least: Us, most: Us) -> Us {
        self.rng.u64(least..=most.max(least))
    }

    pub(crate) fn say(&mut self, line: impl FnOnce(&World) -> String) {
        if self.timeline.is_some() {
            let line = format!(
                "{:>12.3} ms  p{}  {}",
                self.now as f64 / 1000.0,
                self.process.number,
                line(self)
            );
            if let Some(lines) = &mut self.timeline {
                lines.push(line);
            }
        }
    }

    pub(crate) fn fail(&mut self, invariant: &'static str, detail: String) {
        if self.violation.is_none() {
            self.say(|_| format!("VIOLATION of {invariant}: {detail}"));
            self.violation = Some(Violation { invariant, detail });
        }
    }

    pub(crate) fn is_poison(&self, event: u32) -> bool {
        event < self.clean_from && self.plan.poison.is_some_and(|poison| poison.is(event))
    }

    pub(crate) fn mode(&self) -> Mode {
        if self.healed {
            return Mode::Ok;
        }
        self.plan
            .kinesis
            .iter()
            .rev()
            .find(|(at, _)| at * MS <= self.now)
            .map_or(Mode::Ok, |(_, mode)| *mode)
    }

    pub(crate) fn disk(&self) -> Disk {
        if self.healed {
            return Disk::Ok;
        }
        self.plan
            .disk
            .iter()
            .rev()
            .find(|(at, _)| at * MS <= self.now)
            .map_or(Disk::Ok, |(_, disk)| *disk)
    }

    /// How long one operation of the disk takes, and the most that any takes in this life.
    pub(crate) fn disk_time(&mut self) -> Us {
        match self.disk() {
            Disk::Slow(ms) => self.between(MS / 2, ms * MS),
            _ => self.between(30, 800),
        }
    }

    pub(crate) fn slowest_disk(&self) -> Us {
        self.plan
            .disk
            .iter()
            .map(|(_, disk)| if let Disk::Slow(ms) = disk { ms * MS } else { 0 })
            .max()
            .unwrap_or(0)
    }

    // --- who runs --------------------------------------------------------------------------------

    fn wake(&mut self, wake: Wake) {
        let current = self.process.number;
        let alive = |number: u16, process: &Process| number == current && process.alive;
        match wake {
            Wake::NextAct => self.next_act(),
            Wake::Invoke => self.invoke(),
            Wake::FunctionEnd => self.function_end(),
            Wake::Post(body) => self.post(body),
            Wake::StartProcess(number) if number == self.processes + 1 => self.reset(),
            Wake::Kill(number) if alive(number, &self.process) => self.killed(),
            Wake::Shutdown(number) if alive(number, &self.process) => self.shutdown(),
            Wake::MainNext(number) if alive(number, &self.process) => self.main_next(),
            Wake::MainGivesUp(number, ticket) if alive(number, &self.process) => {
                self.main_gives_up(ticket)
            }
            Wake::Watch(number, ticket) if alive(number, &self.process) => self.watch(ticket),
            Wake::PostRead(number, id) if alive(number, &self.process) => self.post_read(id),
            Wake::Tick(number) if alive(number, &self.process) => self.tick(),
            Wake::HandOver(number) if alive(number, &self.process) => self.hand_over_undecided(),
            Wake::Listener(number) if alive(number, &self.process) => self.listener(),
            Wake::Drain(number, token)
                if alive(number, &self.process) && token == self.process.token =>
            {
                self.turn()
            }
            Wake::WaitOver(number, token)
                if alive(number, &self.process)
                    && token == self.process.token
                    && self.process.waits =>
            {
                self.look()
            }
            Wake::StepDone(number, token)
                if alive(number, &self.process) && token == self.process.token =>
            {
                self.step_done()
            }
            _ => {}
        }
    }

    // --- Lambda ----------------------------------------------------------------------------------

    fn start_process(&mut self) {
        self.say(|_| "process starts".to_owned());
        self.process.in_next = true;
        let number = self.process.number;
        if self.process.keeping.is_some() {
            self.after(self.plan.setup.max_age * MS / 4, Wake::Tick(number));
        }
        let (first, second) = (self.between(5 * MS, 60 * MS), self.between(60 * MS, 140 * MS));
        let delay = self.between(1, 3 * MS);
        self.look_after(delay);
        let body = Body { events: 1, text: 20, weight: 300, ..Body::default() };
        self.after(first, Wake::Post(body.clone()));
        self.after(second, Wake::Post(Body { signals: vec![Signal::InitReported], ..body }));
    }

    fn next_act(&mut self) {
        let Some(act) = self.acts.pop_front() else {
            self.over = true;
            return;
        };
        match act {
            Act::Invoke(what) => {
                self.invocations += 1;
                let id: Arc<str> = format!("r{}", self.invocations).into();
                self.say(|_| format!("Lambda: invocation {id} begins: {what:?}"));
                let began = self.now;
                self.running = Some(Running {
                    id,
                    what,
                    began,
                    ended: None,
                    wall_ended: 0,
                    next_called: false,
                    heard: None,
                    known: None,
                });
                let delay = self.between(100, 2 * MS);
                self.after(delay, Wake::Invoke);
            }
            Act::Freeze { wall, mono } => {
                self.say(|_| {
                    format!("Lambda: frozen for {wall} ms, the monotonic clock for {mono}")
                });
                self.now += mono * MS;
                self.wall_ahead += wall - mono;
                let delay = self.between(10, 500);
                self.after(delay, Wake::NextAct);
            }
            Act::Jump(by) => {
                self.say(|_| format!("the wall clock is set by {by} ms"));
                self.jump += by;
                self.jumped_at = Some(self.now);
                self.after(0, Wake::NextAct);
            }
            Act::Traffic { lasts, posts } => {
                for post in posts {
                    self.deliver(post, None, Vec::new(), post.after * MS);
                }
                self.after(lasts * MS, Wake::NextAct);
            }
            Act::Restore => {
                self.say(|_| "Lambda: restored from the snapshot".to_owned());
                let body = Body { events: 1, text: 30, weight: 300, ..Body::default() };
                let body = Body { restored: true, ..body };
                let delay = self.between(5 * MS, 30 * MS);
                self.after(delay, Wake::Post(body));
                let delay = self.between(0, 60 * MS);
                self.after(delay, Wake::NextAct);
            }
            Act::Heal => {
                self.say(|_| "Kinesis and the disk do well from now on".to_owned());
                self.healed = true;
                self.clean_from = u32::try_from(self.events.len()).unwrap();
                self.note_healed();
                self.after(0, Wake::NextAct);
            }
            Act::UntilDelivered { rounds } => self.another_round(rounds),
            Act::Stop { window } => self.end("spindown", self.now + window * MS),
            Act::Reset { window } => self.end("failure", self.now + window * MS),
        }
    }

    /// A quiet invocation or some traffic, if there still is something to deliver.
    fn another_round(&mut self, rounds: u32) {
        const QUIET: Post = Post { after: 1, events: 1, text: 20, weight: 300 };
        self.note_round(rounds);
        // A sandbox event may wait for longer: in one record with an event that is refused.
        if rounds >= 3 && self.deliverable().is_empty() && self.unintroduced().is_none() {
            return self.after(0, Wake::NextAct);
        }
        if rounds >= self.most_rounds() {
            let (left, most) = (self.deliverable(), self.most_rounds());
            let detail = format!("{left:?} still wait after {most} rounds");
            return self.fail("everything deliverable is delivered", detail);
        }
        self.acts.push_front(Act::UntilDelivered { rounds: rounds + 1 });
        // A round is longer than the longest time between two probes.
        if self.plan.setup.continuous {
            self.acts.push_front(Act::Traffic { lasts: 40_000, posts: vec![QUIET] });
        } else {
            let done = Done { delay: 5, lost: false, has_time: true, again: None, gap: None };
            let runs = self.between(300, 1500);
            // Of those that are thinned out nothing would be delivered.
            let end = if self.process.keeping.is_some() { End::Error } else { End::Success };
            self.acts.push_front(Act::Invoke(Invocation {
                runs,
                limit: 30_000,
                posts: vec![QUIET],
                end,
                done,
                report_delay: 5,
                window: 2000,
            }));
            let mono = if self.rng.bool() { 40_000 } else { 0 };
            self.acts.push_front(Act::Freeze { wall: 40_000, mono });
        }
        self.after(0, Wake::NextAct);
    }

    fn deliver(
        &mut self,
        post: Post,
        request_id: Option<Arc<str>>,
        signals: Vec<Signal>,
        after: Us,
    ) {
        let body = Body {
            events: post.events,
            text: post.text,
            weight: post.weight,
            request_id,
            signals,
            ..Body::default()
        };
        self.after(after, Wake::Post(body));
    }

    fn invoke(&mut self) {
        let Some(running) = self.running.clone() else { return };
        let what = &running.what;
        // `platform.start` and the logs, each held back for a while.
        let hold_back = self.between(5 * MS, 30 * MS);
        let start = Body {
            events: 1,
            text: 30,
            weight: 300,
            request_id: Some(Arc::clone(&running.id)),
            ..Body::default()
        };
        let start_at = running.began + hold_back;
        let lost = self.plan.loses_starts() && self.chance(4);
        let started = Signal::Started(Arc::clone(&running.id));
        let comes = !lost && !self.plan.joins(what);
        let signals: Vec<Signal> = Some(started).filter(|_| comes).into_iter().collect();
        if comes && self.plan.repeats_starts() && self.chance(3) {
            let late = if self.rng.bool() { 60 * MS } else { 4000 * MS };
            let again = start_at + self.between(0, late);
            self.at(again, Wake::Post(Body { signals: Vec::clone(&signals), ..start.clone() }));
        }
        self.at(start_at, Wake::Post(Body { signals, ..start }));
        for post in &what.posts {
            let time = (running.began + post.after * MS + hold_back)
                .max(start_at)
                .saturating_sub(self.now);
            self.deliver(*post, Some(Arc::clone(&running.id)), Vec::new(), time);
        }
        if let Some(gap) = what.done.gap {
            self.at(
                running.began + gap * MS,
                Wake::Post(Body { signals: vec![Signal::Gap], ..Body::default() }),
            );
        }
        self.at(running.began + what.runs * MS, Wake::FunctionEnd);
        self.process.in_next = false;
        let deadline = (running.began + what.limit * MS).saturating_sub(200 * MS).max(self.now);
        self.ask(Ask::Invocation(Arc::clone(&running.id)), deadline);
    }

    fn function_end(&mut self) {
        let wall = self.true_wall();
        let Some(running) = &mut self.running else { return };
        running.ended = Some(self.now);
        running.wall_ended = wall;
        let running = running.clone();
        let (what, id) = (&running.what, Arc::clone(&running.id));
        self.say(|_| format!("Lambda: function {id} ends: {:?}", what.end));
        self.ends_lost |= what.done.lost;
        if !what.done.lost && what.end != End::SilentCrash {
            let failed = what.end != End::Success;
            let at = what.done.has_time.then_some(wall);
            let started = Some(Signal::Started(Arc::clone(&id)));
            let started = started.filter(|_| self.plan.joins(what));
            let done = Signal::Done { request_id: Arc::clone(&id), at, failed };
            let body = Body {
                events: 1,
                text: 30,
                weight: 300,
                request_id: Some(id),
                signals: started.into_iter().chain([done]).collect(),
                ..Body::default()
            };
            self.after(what.done.delay * MS, Wake::Post(body.clone()));
            if let Some(again) = what.done.again {
                self.after((what.done.delay + again) * MS, Wake::Post(body));
            }
        }
        match what.end {
            End::Success | End::Error => self.maybe_over(),
            End::Crash | End::SilentCrash => self.end("failure", self.now + what.window * MS),
            End::TimeOut => self.end("timeout", self.now + what.window * MS),
        }
    }

    /// Function and extension have both called `/next`.
    fn maybe_over(&mut self) {
        let Some(running) = self.running.clone() else { return };
        if running.ended.is_none() || !running.next_called || self.ending.is_some() {
            return;
        }
        self.running = None;
        self.say(|_| format!("Lambda: invocation {} is over", running.id));
        self.check_freeze(&running.id);
        let report = Body {
            events: 1,
            text: 40,
            weight: 400,
            request_id: Some(Arc::clone(&running.id)),
            signals: vec![Signal::Reported(Arc::clone(&running.id))],
            ..Body::default()
        };
        self.after(running.what.report_delay * MS, Wake::Post(report));
        let delay = self.between(50, 3 * MS);
        self.after(delay, Wake::NextAct);
    }

    /// SHUTDOWN, as soon as main is in `/next`; the kill at `deadline` in any case.
    fn end(&mut self, reason: &'static str, deadline: Us) {
        if self.ending.is_some() {
            return;
        }
        self.say(|_| format!("Lambda: the sandbox ends: {reason}, deadline {} ms", deadline / MS));
        self.ending = Some((reason, deadline, false));
        let number = self.process.number;
        self.at(deadline, Wake::Kill(number));
        if self.process.in_next {
            let delay = self.between(100, 2 * MS);
            self.after(delay, Wake::Shutdown(number));
        }
    }

    fn killed(&mut self) {
        let told = self.process.stop_asked;
        self.say(|_| "Lambda: kills the process".to_owned());
        match told {
            Some((at, _)) if self.now.saturating_sub(at) > SHORT_WINDOW => {
                self.fail("exit in time", "killed although the order to stop came early".to_owned())
            }
            Some((at, events)) => self.check_kept(at, events),
            None if self.loses_what_is_old() => {}
            None if self.slowest_disk() == 0
                && self
                    .running
                    .as_ref()
                    .and_then(|running| running.heard)
                    .is_some_and(|heard| self.now - heard > 900 * MS) =>
            {
                self.fail(
                    "hold",
                    "killed in a hold although the function's end was known".to_owned(),
                );
            }
            _ => {}
        }
        self.abrupt_end();
        self.process_gone();
    }

    /// The process is gone; what comes next is a reset, or nothing.
    pub(crate) fn process_gone(&mut self) {
        self.process.alive = false;
        match self.ending.take() {
            Some(("spindown", ..)) | None => self.over = true,
            Some(_) => {
                self.running = None;
                let delay = self.between(20 * MS, 300 * MS);
                let number = self.processes + 1;
                self.after(delay, Wake::StartProcess(number));
            }
        }
    }

    fn reset(&mut self) {
        self.processes += 1;
        self.fruitless_before = std::mem::take(&mut self.process.fruitless);
        self.process = Process::new(&self.plan, &self.config, self.processes);
        self.start_process();
        if self.healed {
            self.note_healed();
        }
        let delay = self.between(60 * MS, 200 * MS);
        self.after(delay, Wake::NextAct);
    }

    // --- main ------------------------------------------------------------------------------------

    fn ask(&mut self, ask: Ask, deadline: Us) {
        use kinesis_telemetry_extension::deadline::{Deadline, Limit};
        if let Ask::Invocation(request_id) = &ask
            && self.process.announced.passes(self.clock())
        {
            return self.pass(Arc::clone(request_id), deadline);
        }
        self.process.tickets += 1;
        let (ticket, number) = (self.process.tickets, self.process.number);
        let at = self.instant(deadline);
        let message = match &ask {
            Ask::Invocation(request_id) => {
                let deadline = Deadline::after(
                    self.instant(self.now),
                    at.saturating_duration_since(self.instant(self.now)),
                    Limit::Invocation,
                );
                Message::Invoked {
                    at: self.clock(),
                    ticket: Some(ticket),
                    request_id: Arc::clone(request_id),
                    deadline,
                }
            }
            Ask::Stop => {
                let now = self.instant(self.now);
                let deadline =
                    Deadline::after(now, at.saturating_duration_since(now), Limit::Shutdown);
                let report_until = at + Duration::from_micros(GRACE);
                let reason = self.ending.map_or("spindown", |(reason, ..)| reason).into();
                Message::Stop {
                    ticket,
                    deadline,
                    report_until: report_until.min(now + Duration::from_millis(300)),
                    reason,
                    short: self.process.short_window,
                }
            }
        };
        let question = if matches!(ask, Ask::Stop) { Question::Stop } else { Question::Invoked };
        let until = deadline + if question == Question::Stop { 2 * GRACE } else { GRACE };
        let watchdog = Watchdog::new(question, self.instant(self.now), self.instant(until));
        self.say(|_| format!("main: asks {ask:?}, ticket {ticket}, deadline {} ms", deadline / MS));
        self.process.asking =
            Some(Asking { ticket, ask, at: self.now, deadline, handed_in: false, watchdog });
        self.process.channel.push_back(message);
        let grace = self.between(0, 2 * MS);
        self.at(until + grace, Wake::MainGivesUp(number, ticket));
        self.watch_next();
        self.notify();
    }

    /// Nothing is due: the dispatcher hears of it later.
    fn pass(&mut self, request_id: Arc<str>, deadline: Us) {
        use kinesis_telemetry_extension::deadline::{Deadline, Limit};
        self.say(|_| format!("main: invocation {request_id} passes"));
        let (at, left) = (self.clock(), Duration::from_micros(deadline.saturating_sub(self.now)));
        let deadline = Deadline::after(at.mono, left, Limit::Invocation);
        let message = Message::Invoked { at, ticket: None, request_id, deadline };
        self.process.channel.push_back(message);
        self.check_pass();
        let (delay, number) = (self.between(20, 300), self.process.number);
        self.after(delay, Wake::MainNext(number));
    }

    fn shutdown(&mut self) {
        use kinesis_telemetry_extension::deadline::Deadline;
        let Some((_, kill, told)) = &mut self.ending else { return };
        if std::mem::replace(told, true) {
            return;
        }
        let left = kill.saturating_sub(self.now) / MS;
        // By a clock that is right.
        let (now, wall) = (self.instant(self.now), self.true_wall());
        let (deadline, plausible) = Deadline::of_shutdown(wall + left, now, wall);
        self.process.short_window = !plausible;
        if !plausible && self.process.keeping.is_some() {
            let (delay, number) = (self.between(20, 300), self.process.number);
            self.after(delay, Wake::HandOver(number));
        }
        self.process.in_next = false;
        self.process.stop_asked = Some((self.now, self.events.len()));
        self.process.busy_at_stop = self.process.busy_for;
        self.ask(Ask::Stop, self.micros(deadline.at()).saturating_sub(GRACE));
    }

    fn main_next(&mut self) {
        self.process.in_next = true;
        if matches!(self.process.busy, Busy::Prepare) {
            let detail = "/next is called while a connection is made ready".to_owned();
            self.fail("no request across a freeze", detail);
        }
        if let Some(running) = &mut self.running {
            running.next_called = true;
        }
        if self.ending.is_some() {
            return self.shutdown();
        }
        self.maybe_over();
    }

    fn main_gives_up(&mut self, ticket: Ticket) {
        let Some(asking) = self.process.asking.clone().filter(|asking| asking.ticket == ticket)
        else {
            return;
        };
        let slow = self.slowest_disk() > 20 * MS;
        match asking.ask {
            Ask::Invocation(_) => {
                if !slow {
                    self.fail("hold", format!("no answer to ticket {ticket} by its deadline"));
                }
                self.process.asking = None;
                self.main_next();
            }
            Ask::Stop => {
                if !slow {
                    self.fail(
                        "exit in time",
                        format!(
                            "no answer to the order to stop by its deadline, asked at {} ms",
                            asking.at / MS
                        ),
                    );
                }
                self.abrupt_end();
                self.process_gone();
            }
        }
    }

    /// The core answers.
    pub(crate) fn reply(&mut self, ticket: Ticket) {
        self.say(|_| format!("core: answers ticket {ticket}"));
        if self.process.answered.contains(&ticket) {
            return self.fail("tickets", format!("ticket {ticket} is answered twice"));
        }
        self.process.answered.push(ticket);
        let Some(asking) = self.process.asking.clone().filter(|asking| asking.ticket == ticket)
        else {
            return;
        };
        self.process.asking = None;
        match &asking.ask {
            Ask::Invocation(id) => {
                self.check_hold(&asking, id);
                self.check_flushed(&asking, id);
                if self.now >= asking.deadline {
                    self.process.missed = Some(Arc::clone(id));
                    self.lose_ends();
                }
                let (delay, number) = (self.between(20, 300), self.process.number);
                self.after(delay, Wake::MainNext(number));
            }
            Ask::Stop => {
                self.check_stop(&asking);
                self.process_gone();
            }
        }
    }

    /// As main does while it waits.
    fn watch(&mut self, ticket: Ticket) {
        let Some(asking) = self.process.asking.as_mut().filter(|asking| asking.ticket == ticket)
        else {
            return;
        };
        let seen = asking.handed_in;
        let now = self.base + Duration::from_micros(self.now);
        let interrupts = asking.watchdog.interrupts(now, seen);
        let preparing = asking.watchdog.interrupts_preparing(now);
        if preparing == Some(self.process.prepares) && matches!(self.process.busy, Busy::Prepare) {
            self.interrupt();
        }
        if interrupts {
            self.interrupt();
        }
        self.watch_next();
    }

    fn watch_next(&mut self) {
        let Some((ticket, Some(next))) =
            self.process.asking.as_ref().map(|asking| (asking.ticket, asking.watchdog.next()))
        else {
            return;
        };
        // Not before: a wake-up that comes a part of a microsecond too early would come again at once.
        let next = self.micros(next + Duration::from_nanos(999));
        let number = self.process.number;
        self.at(next, Wake::Watch(number, ticket));
    }

    /// The listener has read the end of a function.
    pub(crate) fn heard_end(&mut self, id: &Arc<str>) {
        let (now, known) = (self.now, self.events.len());
        if let Some(running) = self.running.as_mut().filter(|running| running.id == *id) {
            if running.heard.is_none() {
                let process = &mut self.process;
                let busy = !matches!(process.busy, Busy::Nothing);
                let begun = if busy { now - process.busy_since } else { 0 };
                process.busy_at_end = process.busy_for + begun;
            }
            running.heard.get_or_insert(now);
            running.known.get_or_insert(known);
        }
    }

    /// The listener has passed it on.
    pub(crate) fn passed_end_on(&mut self, id: &Arc<str>, failed: bool) {
        let now = self.now;
        // As the listener: main hears of the end that it waits for alone.
        let awaited =
            |asking: &Asking| matches!(&asking.ask, Ask::Invocation(asked) if asked == id);
        if !self.process.asking.as_ref().is_some_and(awaited) {
            return;
        }
        let Some(running) = self.running.as_ref().filter(|running| running.id == *id) else {
            return;
        };
        let ended = running.ended.filter(|_| running.what.done.has_time).unwrap_or(now);
        let ended = self.base + Duration::from_micros(ended);
        let flush_timeout = Duration::from_millis(self.plan.setup.flush_timeout);
        let preparing = matches!(self.process.busy, Busy::Prepare);
        let generation = self.process.prepares;
        let at = self.base + Duration::from_micros(now);
        if let Some(asking) = self.process.asking.as_mut().filter(|_| preparing) {
            asking.watchdog.ended_while_preparing(at, generation);
        }
        let cut = failed || preparing || self.process.is_awake();
        if let Some(asking) = self.process.asking.as_mut().filter(|_| cut)
            && let Some(at) = hold_ends_at(ended, failed, flush_timeout)
        {
            asking.watchdog.hold_ends(at);
            self.watch_next();
        }
        self.watch_next();
    }
}

impl Process {
    /// The dispatcher does not sleep: `sending` of the real one. What it does without a pause is
    /// over before anybody else runs here.
    pub(crate) fn is_awake(&self) -> bool {
        !matches!(self.busy, Busy::Nothing) || self.view.is_some()
    }

    pub(crate) fn new(plan: &Plan, config: &Config, number: u16) -> Process {
        let ledger = Arc::new(Ledger::default());
        let sandbox = Arc::new(Sandbox::with_id(sandbox_id(plan, (number, 0))));
        let gauge = Gauge::new(plan.setup.bound);
        let spares = Arc::new(Spares::new(Arc::clone(&gauge)));
        let packer = || {
            Packer::new(
                &config.dispatch,
                &config.records,
                Arc::clone(&sandbox),
                Arc::clone(&ledger),
            )
        };
        let settings = Settings {
            mode: plan.setup.mode,
            continuous: plan.setup.continuous,
            max_age: Duration::from_millis(plan.setup.max_age),
            flush_timeout: Duration::from_millis(plan.setup.flush_timeout),
            spool: plan.setup.spool_bytes > 0,
            metrics: plan.prints_metrics(),
            seed: plan.seed ^ u64::from(number),
        };
        let index = Index::new(plan.setup.spool_bytes, packer().limits().request_bytes);
        Process {
            number,
            alive: true,
            core: Core::new(
                settings,
                packer(),
                Arc::clone(&gauge),
                Arc::clone(&spares),
                Arc::clone(&ledger),
            ),
            packer: packer(),
            keeping: plan.keeping(&gauge),
            gauge,
            spares,
            ledger,
            sandbox,
            channel: VecDeque::new(),
            announced: Announced::default(),
            index,
            files: HashMap::new(),
            busy: Busy::Nothing,
            waits: false,
            token: 0,
            taking: Taking::Nothing,
            reading_posts: BTreeMap::new(),
            posts: Vec::new(),
            restores: 0,
            printed: 0,
            unprintable: 0,
            metrics: BTreeMap::new(),
            closed: false,
            asking: None,
            in_next: false,
            tickets: 0,
            answered: Vec::new(),
            signal_room: SignalRoom::new(plan.signal_bytes()),
            is_running: false,
            missed: None,
            invoked: None,
            fruitless: Vec::new(),
            gave_up_at: None,
            takes_over: false,
            fruitful: 0,
            had_room: true,
            put_back: 0,
            marked: false,
            ledgers: 0,
            last_sent: None,
            damaged: 0,
            write_failed: false,
            stop_failed: false,
            view: None,
            ended: Vec::new(),
            holds: Vec::new(),
            reading: None,
            read: Vec::new(),
            polls: (0, 0),
            prepares: 0,
            looks: 0,
            stop_asked: None,
            short_window: false,
            healthy_since: None,
            failed_at: None,
            busy_for: 0,
            busy_since: 0,
            busy_at_end: 0,
            busy_at_stop: 0,
            healed: None,
        }
    }
}

/// The settings that the packer reads. Some are smaller than a person may set.
#[derive(Clone)]
pub(crate) struct Config {
    dispatch: dispatch::Settings,
    records: RecordSettings,
}

pub(crate) fn configuration(plan: &Plan) -> Config {
    let setup = &plan.setup;
    Config {
        dispatch: dispatch::Settings {
            flush: setup.mode,
            max_age: Duration::from_millis(setup.max_age),
            flush_timeout: Duration::from_millis(setup.flush_timeout),
            queue_bytes: setup.request_bytes * 4,
            spool_bytes: setup.spool_bytes,
            spool_folder: PathBuf::new(),
            print_lost: plan.prints_lost(),
            emf: plan.prints_metrics(),
        },
        records: RecordSettings {
            format: setup.record,
            compression: setup.compression,
            max_bytes: setup.record_bytes,
            partition_key: setup.key,
            envelope: setup.envelope,
            wire: plan.wire(),
        },
    }
}

/// A batch of so many events, which bear their numbers. Made by hand: what the intake makes of
/// bodies is tested elsewhere.
pub(crate) fn batch_of(first: u32, body: &Body, restores: u16) -> Batch {
    const HEAD: &str = r##"{"time":"2026-11-23T09:15:45.012Z","type":"function","record":"##;
    let mut bytes = Vec::with_capacity(body.weight);
    let mut spans = Vec::with_capacity(body.events as usize);
    for number in first..first + body.events {
        let start = bytes.len();
        bytes.extend_from_slice(HEAD.as_bytes());
        let record = bytes.len();
        bytes.extend_from_slice(format!("\"#{number:08}").as_bytes());
        bytes.resize(bytes.len() + body.text, b'x');
        bytes.push(b'"');
        spans.push((start..bytes.len(), record..bytes.len()));
    }
    let id = bytes.len();
    bytes.extend_from_slice(body.request_id.as_deref().unwrap_or_default().as_bytes());
    let request_id = Span::new(&(id..bytes.len()));
    let events = spans.into_iter().enumerate().map(|(n, (text, record))| Event {
        text: Span::new(&text),
        record: Span::new(&record),
        request_id,
        number: u64::from(first) + n as u64,
        restores,
        ..Event::default()
    });
    Batch::new(bytes, events.collect())
}

/// The first half of event ids. Says what it stands for, so that lines can be read.
pub(crate) fn sandbox_id(plan: &Plan, (process, restores): SandboxId) -> String {
    format!("{:08x}{restores:04x}{process:04x}", plan.seed & 0xffff_ffff)
}

/// The sandboxes whose own event stands in some lines, before all that is Lambda's.
pub(crate) fn introduced_in(lines: &[u8]) -> Vec<SandboxId> {
    let kind = b",\"type\":\"kinesis-telemetry.";
    let own = |line: &&[u8]| line.get(34..).is_some_and(|rest| rest.starts_with(kind));
    let id = |line: &[u8]| {
        let line = std::str::from_utf8(line).unwrap();
        let (id, name) = line.split_once("\"eventId\":\"")?.1.split_once('-')?;
        let number = |digits: &str| u16::from_str_radix(digits, 16).unwrap();
        name.starts_with("sandbox\"").then(|| (number(&id[12..]), number(&id[8..12])))
    };
    lines.split(|byte| *byte == b'\n').take_while(own).filter_map(id).collect()
}

/// The numbers of the events in some lines.
pub(crate) fn numbers(lines: &[u8]) -> Vec<u32> {
    let mut found = Vec::new();
    let mut rest = lines;
    while let Some(at) = rest.iter().position(|byte| *byte == b'#') {
        rest = &rest[at + 1..];
        found.push(rest[..8].iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')));
    }
    found
}
