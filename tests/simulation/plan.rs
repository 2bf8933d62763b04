//! What happens in a life: settings, what Lambda does, how Kinesis and the disk behave. Plain data,
//! made by hand or from a seed.

use kinesis_telemetry_extension::dispatch::policy::FlushMode;
use kinesis_telemetry_extension::kinesis::line::{Envelope, PartitionKey};
use kinesis_telemetry_extension::kinesis::record::{Compression, RecordFormat};
use kinesis_telemetry_extension::kinesis::wire::Wire;

/// Milliseconds.
pub(crate) type Ms = u64;

#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) mode: FlushMode,
    pub(crate) continuous: bool,
    pub(crate) max_age: Ms,
    pub(crate) flush_timeout: Ms,
    /// 0: no spool.
    pub(crate) spool_bytes: u64,
    pub(crate) envelope: Envelope,
    pub(crate) record: RecordFormat,
    pub(crate) key: PartitionKey,
    pub(crate) compression: Compression,
    pub(crate) record_bytes: usize,
    pub(crate) request_bytes: usize,
    /// Of the gauge. A request's buffer alone has some 33 KiB.
    pub(crate) bound: usize,
}

/// The events of one POST.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Post {
    /// After the invocation's begin.
    pub(crate) after: Ms,
    pub(crate) events: u32,
    /// Bytes of text in each.
    pub(crate) text: usize,
    /// Capacity of the POST's buffer: loud POSTs weigh much and cost no time to make.
    pub(crate) weight: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Success,
    /// A handled error: the sandbox lives on.
    Error,
    /// The runtime is gone: the sandbox is reset.
    Crash,
    /// The same, and Lambda does not report it.
    SilentCrash,
    /// The function's time is over: the sandbox is reset.
    TimeOut,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) delay: Ms,
    pub(crate) lost: bool,
    pub(crate) has_time: bool,
    /// Comes once more after so long.
    pub(crate) again: Option<Ms>,
    /// `platform.logsDropped`, or a damaged body, so long after the begin.
    pub(crate) gap: Option<Ms>,
}

#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    pub(crate) runs: Ms,
    pub(crate) limit: Ms,
    pub(crate) posts: Vec<Post>,
    pub(crate) end: End,
    pub(crate) done: Done,
    pub(crate) report_delay: Ms,
    /// From the end of the function to the kill.
    pub(crate) window: Ms,
}

#[derive(Clone, Debug)]
pub(crate) enum Act {
    Invoke(Invocation),
    /// The sandbox is frozen: so long by the wall clock, and so long by the monotonic one.
    Freeze {
        wall: Ms,
        mono: Ms,
    },
    /// The wall clock is set.
    Jump(i64),
    /// Managed Instances: POSTs for so long.
    Traffic {
        lasts: Ms,
        posts: Vec<Post>,
    },
    /// SnapStart: the sandbox goes on where its snapshot was taken, under another id.
    Restore,
    /// From now on Kinesis and the disk do well, but for what is refused for its content.
    Heal,
    /// Quiet invocations, or traffic, until all is delivered that can be.
    UntilDelivered {
        /// That there were so far.
        rounds: u32,
    },
    /// SHUTDOWN with the given window.
    Stop {
        window: Ms,
    },
    /// SHUTDOWN before a reset, between two invocations.
    Reset {
        window: Ms,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    Ok,
    Slow(Ms),
    /// Refuses connections.
    Refuses,
    /// Connections hang for 400 ms.
    ConnectTimeout,
    /// Answers nothing.
    Hangs,
    /// The connection is cut, after the records were stored or before.
    Cuts,
    /// An answer that nobody can read.
    Garbles,
    /// A person has to fix it.
    Configuration(&'static str),
    /// Refuses each request whatever it holds.
    RefusesAll(&'static str),
    /// Throttles each request.
    Throttles,
    /// Throttles each record.
    ThrottlesRecords,
    /// Throttles one of four shards.
    Shard(u64),
    /// Fails one record of so many with a code.
    Flaky(u32, &'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    Ok,
    /// One operation takes so many milliseconds.
    Slow(Ms),
    /// Nothing can be written.
    Full,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Poison {
    /// Each event whose number gives this rest when divided by that.
    pub(crate) every: u32,
    pub(crate) rest: u32,
    pub(crate) code: &'static str,
    /// It is the whole request that is refused, not the record.
    pub(crate) whole: bool,
}

impl Poison {
    pub(crate) fn is(&self, event: u32) -> bool {
        event % self.every == self.rest
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) setup: Setup,
    pub(crate) acts: Vec<Act>,
    /// From when on, in the order of time.
    pub(crate) kinesis: Vec<(Ms, Mode)>,
    pub(crate) disk: Vec<(Ms, Disk)>,
    pub(crate) poison: Option<Poison>,
    /// A pooled connection turns out to be dead once in so many requests; 0: never.
    pub(crate) stale: u32,
    /// A file is damaged once in so many; 0: never.
    pub(crate) damage: u32,
}

const RECORD_CODES: [&str; 4] = [
    "InternalFailure",
    "SomethingNew",
    "KMSThrottlingException",
    "ProvisionedThroughputExceededException",
];
const POISON_CODES: [&str; 4] =
    ["InvalidArgumentException", "ValidationException", "SerializationException", "Http413"];

impl Plan {
    /// Out of the seed itself, so that what else it decides stays as it was.
    pub(crate) fn wire(&self) -> Wire {
        if self.seed % 4 == 3 { Wire::Cbor } else { Wire::Json }
    }

    /// `FALLBACK=log`
    pub(crate) fn prints_lost(&self) -> bool {
        self.seed % 3 == 1
    }

    /// `METRICS=emf`
    pub(crate) fn prints_metrics(&self) -> bool {
        self.seed % 5 == 2
    }

    /// A `platform.start` is lost now and then.
    pub(crate) fn loses_starts(&self) -> bool {
        self.seed % 7 == 3
    }

    /// A `platform.start` is posted twice now and then, the second time late.
    pub(crate) fn repeats_starts(&self) -> bool {
        self.seed % 9 == 4
    }

    /// Start and end of a short function come in one POST, as Lambda holds telemetry back for 25 ms.
    pub(crate) fn joins(&self, what: &Invocation) -> bool {
        self.seed % 13 == 6 && what.runs < 25
    }

    /// Few signals may wait without an event.
    pub(crate) fn signal_bytes(&self) -> usize {
        if self.seed % 11 == 3 { 600 } else { 256 * 1024 }
    }

    /// Kinesis takes no CBOR.
    pub(crate) fn refuses_cbor(&self) -> bool {
        self.seed % 8 == 7
    }

    /// A quiet one, to be changed by hand.
    pub(crate) fn quiet(acts: Vec<Act>) -> Plan {
        Plan {
            seed: 1,
            setup: Setup {
                mode: FlushMode::End,
                continuous: false,
                max_age: 10_000,
                flush_timeout: 3000,
                spool_bytes: 256 * 1024,
                envelope: Envelope::Slim,
                record: RecordFormat::Lines,
                key: PartitionKey::Sandbox,
                compression: Compression::None,
                record_bytes: 4096,
                request_bytes: 4096,
                bound: 256 * 1024,
            },
            acts,
            kinesis: Vec::new(),
            disk: Vec::new(),
            poison: None,
            stale: 0,
            damage: 0,
        }
    }

    pub(crate) fn random(seed: u64) -> Plan {
        let rng = &mut fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed);
        let setup = setup(rng);
        let loud = rng.u32(0..4) == 0;
        let acts =
            if setup.continuous { managed_instances(rng, loud) } else { ordinary(rng, loud) };
        let acts = if seed % 6 == 4 && !setup.continuous { snap_started(acts) } else { acts };
        let poison = (rng.u32(0..4) == 0).then(|| {
            let every = pick(rng, &[7, 20, 50, 200]);
            let whole = rng.u32(0..3) == 0;
            let code = if whole && rng.u32(0..4) == 0 {
                "InternalFailure"
            } else if whole || rng.bool() {
                pick(rng, &POISON_CODES)
            } else {
                pick(rng, &["SomethingNew", "MessageTooLarge"])
            };
            Poison { every, rest: rng.u32(0..every), code, whole }
        });
        let mut plan = Plan {
            seed,
            setup,
            acts,
            kinesis: kinesis(rng),
            disk: disk(rng),
            poison,
            stale: pick(rng, &[0, 0, 5, 30]),
            damage: pick(rng, &[0, 0, 0, 10]),
        };
        if plan.setup.mode == FlushMode::Adaptive && !plan.setup.continuous && rng.bool() {
            plan.acts = frequent(rng).into_iter().chain(plan.acts).collect();
        }
        plan
    }
}

pub(crate) fn pick<T: Copy>(rng: &mut fastrand::Rng, from: &[T]) -> T {
    from[rng.usize(0..from.len())]
}

fn setup(rng: &mut fastrand::Rng) -> Setup {
    let continuous = rng.u32(0..10) == 0;
    let record = pick(
        rng,
        &[RecordFormat::Lines, RecordFormat::Lines, RecordFormat::Event, RecordFormat::Kpl],
    );
    Setup {
        mode: pick(rng, &[FlushMode::Adaptive, FlushMode::End, FlushMode::End, FlushMode::Next]),
        continuous,
        max_age: if continuous { 1000 } else { pick(rng, &[200, 1000, 10_000, 10_000]) },
        flush_timeout: pick(rng, &[50, 300, 1000, 3000, 3000]),
        spool_bytes: pick(rng, &[0, 16 * 1024, 64 * 1024, 256 * 1024, 256 * 1024]),
        envelope: pick(rng, &[Envelope::Slim, Envelope::Slim, Envelope::Full]),
        record,
        key: pick(
            rng,
            &[
                PartitionKey::Sandbox,
                PartitionKey::Random,
                PartitionKey::Request,
                PartitionKey::Request,
                PartitionKey::Function,
            ],
        ),
        compression: if rng.u32(0..20) == 0 { Compression::Gzip } else { Compression::None },
        record_bytes: pick(rng, &[1024, 2048, 4096]),
        request_bytes: pick(rng, &[2048, 4096, 8192]),
        bound: pick(rng, &[128 * 1024, 256 * 1024, 512 * 1024]),
    }
}

fn post(rng: &mut fastrand::Rng, after: Ms, loud: bool) -> Post {
    let events = if loud { rng.u32(1..12) } else { rng.u32(1..4) };
    let weight = if loud { rng.usize(1000..60_000) } else { rng.usize(200..3000) };
    let text = if rng.u32(0..30) == 0 { rng.usize(500..3000) } else { rng.usize(10..120) };
    Post { after, events, text, weight }
}

fn posts(rng: &mut fastrand::Rng, lasts: Ms, loud: bool) -> Vec<Post> {
    let count = if loud { rng.usize(1..14) } else { rng.usize(0..3) };
    let mut times: Vec<Ms> = (0..count).map(|_| rng.u64(0..=lasts)).collect();
    times.sort_unstable();
    times.into_iter().map(|after| post(rng, after, loud)).collect()
}

fn invocation(rng: &mut fastrand::Rng, loud: bool) -> Invocation {
    let limit = pick(rng, &[3000, 6000, 30_000]);
    let runs = match rng.u32(0..10) {
        0..=6 => rng.u64(1..200),
        7..=8 => rng.u64(200..3000),
        _ => rng.u64(1000..20_000),
    };
    let end = match rng.u32(0..40) {
        0 => End::Crash,
        1 => End::SilentCrash,
        2 => End::TimeOut,
        3..=4 => End::Error,
        _ => End::Success,
    };
    let end = if runs >= limit { End::TimeOut } else { end };
    let runs = if end == End::TimeOut { limit } else { runs };
    let odd = rng.u32(0..12) == 0;
    let done = Done {
        delay: if odd { rng.u64(0..2000) } else { rng.u64(1..40) },
        lost: odd && rng.bool(),
        has_time: rng.u32(0..20) > 0,
        again: (rng.u32(0..20) == 0).then(|| rng.u64(0..300)),
        gap: (rng.u32(0..20) == 0).then(|| rng.u64(0..=runs)),
    };
    let window = pick(rng, &[1400, 2000, 2000]);
    Invocation {
        runs,
        limit,
        posts: posts(rng, runs, loud),
        end,
        done,
        report_delay: rng.u64(0..60),
        window,
    }
}

fn ordinary(rng: &mut fastrand::Rng, loud: bool) -> Vec<Act> {
    let mut acts = Vec::new();
    let gap = pick(rng, &[0, 0, 500, 20_000]);
    for _ in 0..rng.usize(1..32) {
        let loud = loud && rng.bool();
        acts.push(Act::Invoke(invocation(rng, loud)));
        if gap > 0 || rng.u32(0..5) == 0 {
            let wall = if rng.u32(0..8) == 0 { rng.u64(0..600_000) } else { rng.u64(0..=gap) };
            let mono = pick(rng, &[0, wall, wall / 2]);
            acts.push(Act::Freeze { wall, mono });
        }
        if rng.u32(0..40) == 0 {
            acts.push(Act::Jump(pick(rng, &[-3_600_000, -5000, -300, 700, 5000, 86_400_000])));
        }
        if rng.u32(0..60) == 0 {
            acts.push(Act::Reset { window: pick(rng, &[1400, 2000]) });
        }
    }
    if rng.u32(0..3) == 0 {
        acts.push(Act::Stop { window: pick(rng, &[1400, 2000, 2000]) });
        return acts;
    }
    acts.push(Act::Heal);
    acts.push(Act::UntilDelivered { rounds: 0 });
    acts.push(Act::Stop { window: 2000 });
    acts
}

/// A busy sandbox, in which `adaptive` no longer holds each invocation.
fn frequent(rng: &mut fastrand::Rng) -> Vec<Act> {
    let quick = |rng: &mut fastrand::Rng| Invocation {
        runs: rng.u64(1..60),
        limit: 3000,
        posts: posts(rng, 1, false),
        end: End::Success,
        done: Done { delay: rng.u64(1..40), lost: false, has_time: true, again: None, gap: None },
        report_delay: rng.u64(0..60),
        window: 2000,
    };
    (0..rng.usize(20..50)).map(|_| Act::Invoke(quick(rng))).collect()
}

/// Restored once as a rule; the second time shows that nothing is taken for settled by the first.
fn snap_started(mut acts: Vec<Act>) -> Vec<Act> {
    let middle = acts.len() / 2;
    for at in [middle, 0] {
        acts.insert(at, Act::Restore);
        acts.insert(at, Act::Freeze { wall: 3_600_000, mono: 0 });
    }
    acts
}

fn managed_instances(rng: &mut fastrand::Rng, loud: bool) -> Vec<Act> {
    let traffic = |rng: &mut fastrand::Rng, loud| {
        let lasts = rng.u64(100..20_000);
        let mut posts: Vec<Post> = (0..3).flat_map(|_| posts(rng, lasts, loud)).collect();
        posts.sort_unstable_by_key(|post| post.after);
        Act::Traffic { lasts, posts }
    };
    let mut acts: Vec<Act> = (0..rng.usize(1..8)).map(|_| traffic(rng, loud)).collect();
    if rng.bool() {
        acts.push(Act::Heal);
        acts.push(Act::UntilDelivered { rounds: 0 });
    }
    acts.push(Act::Stop { window: 2000 });
    acts
}

fn kinesis(rng: &mut fastrand::Rng) -> Vec<(Ms, Mode)> {
    let mut at = 0;
    let mut phases = Vec::new();
    for _ in 0..pick(rng, &[0, 1, 2, 4, 8]) {
        at += rng.u64(0..8000);
        phases.push((at, mode(rng)));
        at += pick(rng, &[100, 1000, 5000, 40_000]);
        phases.push((at, if rng.u32(0..3) == 0 { mode(rng) } else { Mode::Ok }));
    }
    phases
}

fn mode(rng: &mut fastrand::Rng) -> Mode {
    match rng.u32(0..14) {
        0 => Mode::Slow(rng.u64(50..1500)),
        1 => Mode::Refuses,
        2 => Mode::ConnectTimeout,
        3 | 4 => Mode::Hangs,
        5 => Mode::Cuts,
        6 => Mode::Garbles,
        7 => Mode::Configuration(pick(
            rng,
            &[
                "AccessDeniedException",
                "ResourceNotFoundException",
                "ExpiredTokenException",
                "NeverSeen",
            ],
        )),
        8 => Mode::RefusesAll(pick(rng, &POISON_CODES)),
        9 => Mode::Throttles,
        10 => Mode::ThrottlesRecords,
        11 => Mode::Shard(rng.u64(0..4)),
        _ => Mode::Flaky(rng.u32(1..5), pick(rng, &RECORD_CODES)),
    }
}

fn disk(rng: &mut fastrand::Rng) -> Vec<(Ms, Disk)> {
    match rng.u32(0..6) {
        0 => vec![(rng.u64(0..20_000), Disk::Full)],
        1 => vec![(0, Disk::Slow(rng.u64(2..60)))],
        2 => vec![(rng.u64(0..10_000), Disk::Full), (rng.u64(10_000..30_000), Disk::Ok)],
        _ => Vec::new(),
    }
}
