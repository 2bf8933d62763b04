//! The core alone, without a life around it: messages in, steps out, and whoever holds the desk says
//! how each step ends. For what every life survives, and a user or a reader of the log sees.

use std::time::{Duration, Instant};

use kinesis_telemetry_extension::deadline::{Deadline, Limit};
use kinesis_telemetry_extension::dispatch::backlog::{Parcel, SegmentId};
use kinesis_telemetry_extension::dispatch::charge::Charge;
use kinesis_telemetry_extension::dispatch::core::Core;
use kinesis_telemetry_extension::dispatch::message::{Load, Message, Now, Signal, Ticket};
use kinesis_telemetry_extension::dispatch::policy::FlushMode;
use kinesis_telemetry_extension::dispatch::preparing::Effort;
use kinesis_telemetry_extension::dispatch::step::{Oldest, Outcome, Sent, Step, View};
use kinesis_telemetry_extension::kinesis::error::{Error, classify_record};
use kinesis_telemetry_extension::kinesis::record::RecordFormat;
use kinesis_telemetry_extension::kinesis::request::Request;
use kinesis_telemetry_extension::kinesis::response::RecordOutcome;
use kinesis_telemetry_extension::ledger::Ledger;
use kinesis_telemetry_extension::log::Level;

use crate::plan::Plan;
use crate::world::{Body, Process, batch_of, configuration, numbers};

const WALL: u64 = 1_795_425_345_000;

/// A core, its clocks, and what it has said so far.
pub(crate) struct Desk {
    process: Process,
    now: Now,
    /// What is on disk.
    pub(crate) view: View,
    events: u32,
    /// Lines for stderr: their level and topic, and the text.
    pub(crate) said: Vec<(Level, &'static str, String)>,
    pub(crate) printed: Vec<Vec<u8>>,
    pub(crate) replies: Vec<Ticket>,
    /// How often, and until when, a connection was to be made ready. It always is, at once.
    pub(crate) prepared: Vec<(Effort, Deadline)>,
}

impl Desk {
    /// Nothing of an earlier process is there, and the plan's acts are nobody's.
    pub(crate) fn new(plan: &Plan) -> Desk {
        let process = Process::new(plan, &configuration(plan), 1);
        let now = Now { mono: Instant::now() + Duration::from_secs(3600), wall: WALL };
        let (view, said) = (View::default(), Vec::new());
        let mut desk = Desk {
            process,
            now,
            view,
            events: 0,
            said,
            printed: Vec::new(),
            replies: Vec::new(),
            prepared: Vec::new(),
        };
        if plan.setup.spool_bytes > 0 {
            assert!(matches!(desk.process.core.poll(now, view), Step::Recover));
            desk.done(Outcome::Recovered(false));
        }
        desk
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.process.ledger
    }

    /// All of the memory is taken while the charge lives.
    pub(crate) fn fill(&self) -> Charge {
        let gauge = &self.process.gauge;
        gauge.charge(gauge.bound().saturating_sub(gauge.held()))
    }

    /// The same, and a little more.
    pub(crate) fn overfill(&self) -> Charge {
        let gauge = &self.process.gauge;
        gauge.charge((gauge.bound() + 1).saturating_sub(gauge.held()))
    }

    /// Bytes of the largest body of a request.
    pub(crate) fn largest_request(&self) -> usize {
        self.process.packer.limits().body_bytes()
    }

    pub(crate) fn core(&mut self) -> &mut Core {
        &mut self.process.core
    }

    pub(crate) fn now(&self) -> Now {
        self.now
    }

    /// Both clocks go on.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now.mono += Duration::from_millis(ms);
        self.now.wall += ms;
    }

    /// A freeze in which the monotonic clock stands still, or a clock that is set.
    pub(crate) fn wall(&mut self, ms: i64) {
        self.now.wall = self.now.wall.saturating_add_signed(ms);
    }

    /// So long from now.
    pub(crate) fn later(&self, ms: u64) -> Instant {
        self.now.mono + Duration::from_millis(ms)
    }

    pub(crate) fn on(&mut self, message: Message) {
        self.process.core.look(self.view);
        self.process.core.on(self.now, message);
    }

    /// A POST with so many events of that many bytes.
    pub(crate) fn post(&mut self, events: u32, text: usize) {
        let body = Body { events, text, weight: 300, ..Body::default() };
        let batch = batch_of(self.events, &body, 0);
        self.events += events;
        self.process.ledger.received.add(u64::from(events));
        let charge = self.process.gauge.charge(batch.cost());
        let load = Load::Events(batch);
        self.on(Message::Telemetry {
            at: self.now,
            signals: Vec::new(),
            load,
            charge: Some(charge),
        });
    }

    /// A POST of one event that takes just so many bytes in memory.
    pub(crate) fn post_of(&mut self, bytes: usize) {
        let of = |weight| batch_of(0, &Body { events: 1, text: 40, weight, ..Body::default() }, 0);
        let beside = of(1000).cost() - 1000;
        let batch = of(bytes - beside);
        assert_eq!(batch.cost(), bytes);
        self.events = self.events.max(1);
        self.process.ledger.received.add(1);
        let charge = Some(self.process.gauge.charge(bytes));
        let (at, load) = (self.now, Load::Events(batch));
        self.on(Message::Telemetry { at, signals: Vec::new(), load, charge });
    }

    /// The same, packed by the listener. Without events it is what the sandbox is.
    pub(crate) fn post_packed(&mut self, events: u32) {
        let wall = self.now.wall;
        let body = Body { events, text: 40, weight: 300, ..Body::default() };
        let mut batch = batch_of(self.events, &body, 0);
        self.events += events;
        self.process.ledger.received.add(u64::from(events));
        let mut request = Request::new(self.process.packer.limits());
        self.process.packer.introduce(&mut request, &[], wall);
        self.process.packer.pack(&mut request, &mut batch);
        request.seal();
        let charge = Some(self.process.gauge.charge(request.cost()));
        let load = Load::Packed(Box::new(request));
        self.on(Message::Telemetry { at: self.now, signals: Vec::new(), load, charge });
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        let (at, signals) = (self.now, vec![signal]);
        self.on(Message::Telemetry { at, signals, load: Load::Nothing, charge: None });
    }

    pub(crate) fn started(&mut self, id: &str) {
        self.signal(Signal::Started(id.into()));
    }

    pub(crate) fn ended(&mut self, id: &str, failed: bool) {
        let at = Some(self.now.wall);
        self.signal(Signal::Done { request_id: id.into(), at, failed });
    }

    /// An invocation begins that main waits for.
    pub(crate) fn invoke(&mut self, id: &str, ticket: Ticket, lasts: u64) {
        let lasts = Duration::from_millis(lasts);
        let deadline = Deadline::after(self.now.mono, lasts, Limit::Invocation);
        let (at, request_id, ticket) = (self.now, id.into(), Some(ticket));
        self.on(Message::Invoked { at, ticket, request_id, deadline });
    }

    /// An invocation begins in which nothing is due.
    pub(crate) fn passes(&mut self, id: &str) {
        let deadline = Deadline::after(self.now.mono, Duration::from_secs(30), Limit::Invocation);
        let (at, request_id) = (self.now, id.into());
        self.on(Message::Invoked { at, ticket: None, request_id, deadline });
    }

    /// The same, and its function runs for so long that it is no short one.
    pub(crate) fn runs(&mut self, id: &str) {
        self.passes(id);
        self.started(id);
        self.pass(50);
    }

    /// An invocation began in which nothing is due, some time ago.
    pub(crate) fn passes_at(&mut self, id: &str, at: Now) {
        let deadline = Deadline::after(at.mono, Duration::from_secs(30), Limit::Invocation);
        self.on(Message::Invoked { at, ticket: None, request_id: id.into(), deadline });
    }

    /// The order to stop, with so much time until the deadline, 300 ms of it for the last report.
    pub(crate) fn stop(&mut self, reason: &str, ticket: Ticket, window: u64) {
        self.stop_within(reason, ticket, window, false);
    }

    /// The same; `short`: Lambda's deadline seems to be so near that it is not believed.
    pub(crate) fn stop_within(&mut self, reason: &str, ticket: Ticket, window: u64, short: bool) {
        let deadline =
            Deadline::after(self.now.mono, Duration::from_millis(window), Limit::Shutdown);
        let report_until = self.later(300.min(window));
        let reason = reason.into();
        self.on(Message::Stop { ticket, deadline, report_until, reason, short });
    }

    pub(crate) fn done(&mut self, outcome: Outcome) {
        self.process.core.done(self.now, outcome);
    }

    /// The next step that is more than something to say.
    pub(crate) fn step(&mut self) -> Step {
        loop {
            match self.process.core.poll(self.now, self.view) {
                Step::Log(level, topic, line) => self.said.push((level, topic, line)),
                Step::Print(lines) => self.printed.push(lines),
                Step::Reply(ticket) => self.replies.push(ticket),
                Step::Prepare { effort, deadline } => {
                    self.prepared.push((effort, deadline));
                    self.done(Outcome::Prepared(true));
                    continue;
                }
                step => return step,
            }
            self.done(Outcome::Done);
        }
    }

    /// The next step is to send: what, until when. Its wire form is made as the client does.
    pub(crate) fn send(&mut self) -> (Box<Parcel>, Deadline) {
        match self.step() {
            Step::Send { mut parcel, deadline } => {
                finish(&mut parcel.request);
                (parcel, deadline)
            }
            step => panic!("no request, but {}", kind(&step)),
        }
    }

    /// The next request, after how many milliseconds of waiting.
    pub(crate) fn send_soon(&mut self) -> (Box<Parcel>, u64) {
        let mut waited = 0;
        loop {
            match self.step() {
                Step::Send { mut parcel, .. } => {
                    finish(&mut parcel.request);
                    return (parcel, waited);
                }
                Step::Wait(Some(until)) => {
                    let left = (until - self.now.mono).as_micros().div_ceil(1000);
                    let left = u64::try_from(left).unwrap();
                    waited += left;
                    self.pass(left);
                }
                step => panic!("no request, but {}", kind(&step)),
            }
        }
    }

    /// The next step is to wait, until then.
    pub(crate) fn wait(&mut self) -> Option<Instant> {
        match self.step() {
            Step::Wait(until) => until,
            step => panic!("no wait, but {}", kind(&step)),
        }
    }

    /// In how many milliseconds the core wakes.
    pub(crate) fn wait_ms(&mut self) -> Option<u128> {
        let now = self.now.mono;
        self.wait().map(|until| until.duration_since(now).as_millis())
    }

    /// Kinesis takes all of it.
    pub(crate) fn taken(&mut self, parcel: Box<Parcel>) {
        let records = parcel.request.len();
        self.sent(parcel, Ok(vec![RecordOutcome::Taken; records]));
    }

    /// Kinesis takes all requests up to that one, which it has not answered yet.
    pub(crate) fn taken_until(&mut self, wanted: impl Fn(&Parcel) -> bool) -> Box<Parcel> {
        loop {
            let (parcel, _) = self.send_soon();
            if wanted(&parcel) {
                return parcel;
            }
            self.taken(parcel);
        }
    }

    /// Kinesis takes all that is sent now. The events of each request.
    pub(crate) fn taken_all(&mut self) -> Vec<Vec<u32>> {
        let mut sent = Vec::new();
        loop {
            match self.step() {
                Step::Send { mut parcel, .. } => {
                    finish(&mut parcel.request);
                    sent.push(events(&parcel));
                    self.taken(parcel);
                }
                Step::Wait(_) => return sent,
                step => panic!("no wait, but {}", kind(&step)),
            }
        }
    }

    /// Each record is refused with a code.
    pub(crate) fn refused(&mut self, parcel: Box<Parcel>, code: &str) {
        let records = parcel.request.len();
        self.sent(parcel, Ok(vec![refused(code); records]));
    }

    /// Kinesis takes the first record, and throttles the others.
    pub(crate) fn all_but_one_throttled(&mut self, parcel: Box<Parcel>) {
        let mut outcomes = vec![refused(SHARD_THROTTLED); parcel.request.len()];
        outcomes[0] = RecordOutcome::Taken;
        self.sent(parcel, Ok(outcomes));
    }

    /// The whole request fails.
    pub(crate) fn failed(&mut self, parcel: Box<Parcel>, code: &str) {
        self.sent(parcel, Err((Error::new(code, "simulated"), "see the test".to_owned())));
    }

    pub(crate) fn sent(&mut self, parcel: Box<Parcel>, sent: Sent) {
        self.done(Outcome::Sent(parcel, sent));
    }

    /// The last ledger's request.
    pub(crate) fn send_ledger(&mut self) -> (Box<Request>, Deadline) {
        match self.step() {
            Step::SendLedger { mut request, deadline } => {
                finish(&mut request);
                (request, deadline)
            }
            step => panic!("no ledger, but {}", kind(&step)),
        }
    }

    /// A segment with so many events is read.
    pub(crate) fn read(&mut self, segment: SegmentId, events: u32) {
        self.read_segment(segment, events, false);
    }

    /// The same; perhaps it begins with what the sandbox is.
    pub(crate) fn read_segment(&mut self, segment: SegmentId, events: u32, introduced: bool) {
        let wall = self.now.wall;
        let body = Body { events, text: 40, weight: 300, ..Body::default() };
        let mut batch = batch_of(self.events, &body, 0);
        self.events += events;
        self.process.ledger.received.add(u64::from(events));
        let mut request = Request::new(self.process.packer.limits());
        if introduced {
            self.process.packer.introduce(&mut request, &[], wall);
        }
        self.process.packer.pack(&mut request, &mut batch);
        request.seal();
        let charge = self.process.gauge.charge(request.cost());
        self.done(Outcome::Read(segment, Ok((Box::new(request), charge, false))));
    }

    /// On disk in order, and apart.
    pub(crate) fn on_disk(&mut self, overflow: Oldest, apart: Oldest) {
        self.view = View { overflow, apart, ..self.view };
    }

    /// Bytes that an earlier process has left and nobody has read.
    pub(crate) fn uncounted(&mut self, bytes: u64) {
        self.view.uncounted = bytes;
    }
}

pub(crate) fn finish(request: &mut Request) {
    let stream = kinesis_telemetry_extension::kinesis::endpoint::Stream::Name("telemetry".into());
    let _ = request.finish(&stream);
}

/// Of a record whose shard takes no more.
pub(crate) const SHARD_THROTTLED: &str = "ProvisionedThroughputExceededException";

/// What becomes of a record that is refused.
pub(crate) fn refused(code: &str) -> RecordOutcome {
    RecordOutcome::Failed { code: code.to_owned(), kind: classify_record(code) }
}

/// The numbers of a parcel's events.
pub(crate) fn events(parcel: &Parcel) -> Vec<u32> {
    parcel.request.data().flat_map(|lines| numbers(&lines)).collect()
}

/// The step's name.
pub(crate) fn kind(step: &Step) -> String {
    let debug = format!("{step:?}");
    let name = debug.chars().take_while(|letter| letter.is_alphanumeric());
    name.collect()
}

// --- where the tests begin ---------------------------------------------------------------------

pub(crate) fn desk(change: impl FnOnce(&mut Plan)) -> Desk {
    let mut plan = Plan::quiet(Vec::new());
    change(&mut plan);
    Desk::new(&plan)
}

pub(crate) fn held_to_the_end() -> Desk {
    desk(|_| ())
}

pub(crate) fn next() -> Desk {
    desk(|plan| plan.setup.mode = FlushMode::Next)
}

/// While invocation r1 is held, Kinesis refuses with an error that a person has to fix: from now on
/// it is only probed.
pub(crate) fn probing(change: impl FnOnce(&mut Plan)) -> Desk {
    let mut desk = desk(change);
    desk.invoke("r1", 1, 30_000);
    desk.started("r1");
    desk.post(30, 200);
    let (parcel, _) = desk.send();
    desk.failed(parcel, "AccessDeniedException");
    desk
}

/// The same, with what was refused on disk, and nothing in memory.
pub(crate) fn probing_with_empty_memory(change: impl FnOnce(&mut Plan)) -> Desk {
    let mut desk = probing(change);
    let mut segment = 90;
    while !desk.core().backlog().is_empty() {
        match desk.step() {
            Step::Wait(_) => desk.pass(500),
            Step::Send { parcel, .. } => desk.failed(parcel, "AccessDeniedException"),
            Step::Spool(parcel) => {
                segment += 1;
                desk.done(Outcome::Spooled(parcel, Some(segment)));
            }
            step => panic!("{}", kind(&step)),
        }
    }
    desk.ended("r1", false);
    desk.wait();
    assert_eq!(desk.replies, [1]);
    desk
}

/// No freeze, no invocation: by age and size alone.
pub(crate) fn managed(change: impl FnOnce(&mut Plan)) -> Desk {
    desk(|plan| {
        plan.setup.continuous = true;
        plan.setup.max_age = 1000;
        plan.setup.spool_bytes = 0;
        change(plan);
    })
}

/// Each event is a record of its own.
pub(crate) fn in_records(plan: &mut Plan) {
    plan.setup.record = RecordFormat::Event;
}

/// The first request's event, after it was sent.
pub(crate) fn first(desk: &mut Desk) -> Box<Parcel> {
    desk.post(1, 40);
    let (parcel, waited) = desk.send_soon();
    assert_eq!(waited, 1000);
    parcel
}

/// Without a spool, and nobody is held.
pub(crate) fn next_without_disk() -> Desk {
    desk(|plan| {
        plan.setup.mode = FlushMode::Next;
        plan.setup.spool_bytes = 0;
    })
}

/// Before a reset, with no time left to send anything: the events that are written to disk.
pub(crate) fn written_in_the_last_moments(desk: &mut Desk) -> Vec<u32> {
    desk.stop("failure", 9, 2000);
    desk.pass(1900);
    assert!(matches!(desk.step(), Step::CloseIntake(_)));
    match desk.step() {
        Step::Spool(parcel) => {
            let written = events(&parcel);
            desk.done(Outcome::Spooled(parcel, Some(99)));
            written
        }
        Step::SendLedger { .. } => Vec::new(),
        step => panic!("{}", kind(&step)),
    }
}
