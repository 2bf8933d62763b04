//! What the contestants go through. One call is one turn of one contestant.

use std::io::IsTerminal;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use sandbox::{Fault, FloodReport, FloodShape, Invocation, Kinesis, Lambda, ms};

use crate::Result;
use crate::arguments::Plan;
use crate::contestant::{Contestant, Kind};
use crate::measure::Results;
use crate::{futex, process, slow};

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Rounds in full and with `--quick`.
    rounds: (usize, usize),
    turn: fn(&Contestant, &Plan, &mut Results) -> Result<()>,
}

pub(crate) const ALL: [Scenario; 12] = [
    Scenario { name: "start", rounds: (41, 11), turn: start },
    Scenario { name: "cold", rounds: (9, 2), turn: cold },
    Scenario { name: "flood", rounds: (7, 3), turn: flood },
    Scenario { name: "growth", rounds: (1, 1), turn: growth },
    Scenario { name: "invocations", rounds: (2, 1), turn: invocations },
    Scenario { name: "busy", rounds: (2, 1), turn: busy },
    Scenario { name: "futex", rounds: (1, 1), turn: futex },
    Scenario { name: "forms", rounds: (5, 1), turn: forms },
    Scenario { name: "tls", rounds: (3, 1), turn: tls },
    Scenario { name: "ready", rounds: (9, 2), turn: ready },
    Scenario { name: "slow", rounds: (9, 1), turn: slow },
    Scenario { name: "timeline", rounds: (9, 2), turn: timeline },
];

/// Batches of 1000 events of 300 bytes.
const FLOOD: usize = 200;
const EVENTS: usize = 1000;
const EVENT_BYTES: usize = 300;
/// Of events that are so long the floor sends as many bytes as the extension does of those, by the envelope.
const AS_LONG_AS: [(&str, &str, usize); 2] =
    [("slim", "flood-cpu-as-slim", 377), ("full", "flood-cpu-as-full", 645)];

/// Pairs of invocations in a sandbox of 128 MB.
const SLOW_ROUNDS: u32 = 40;
/// How long an idle process is given to come to rest.
const REST: Duration = Duration::from_millis(150);
/// How long nothing may arrive before a flood is taken to be over.
const SILENCE: Duration = Duration::from_secs(5);

/// All rounds; contestants take turns in each.
pub(crate) fn run(scenario: &Scenario, plan: &Plan, results: &mut Results) -> Result<()> {
    let rounds = if plan.quick { scenario.rounds.1 } else { scenario.rounds.0 };
    for round in 1..=rounds {
        let contestants = plan.contestants.iter();
        for contestant in contestants.filter(|contestant| contestant.takes_part_in(scenario.name)) {
            progress(&format!(
                "{}: round {round} of {rounds}, {}",
                scenario.name, contestant.title
            ));
            (scenario.turn)(contestant, plan, results)
                .map_err(|error| format!("{}, {}: {error}", scenario.name, contestant.title))?;
        }
    }
    progress("");
    Ok(())
}

/// What is going on, on one line, for a person who waits.
pub(crate) fn progress(line: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{line}");
    }
}

/// Process start to the first `/next`, and what it holds when nothing happens.
fn start(contestant: &Contestant, _: &Plan, results: &mut Results) -> Result<()> {
    let kinesis = Kinesis::builder().count_only().start();
    let lambda = contestant.sandbox(&kinesis).start();
    let init = lambda.init()?;
    let cpu = process::cpu(&lambda)?;
    let faults = process::page_faults(&lambda)?;
    thread::sleep(REST);
    let stats = lambda.stats();
    results.add("start", contestant, init.first_next.as_secs_f64() * 1e3);
    results.add("start-cpu", contestant, cpu.as_secs_f64() * 1e3);
    results.add("start-faults", contestant, faults as f64);
    results.add("idle", contestant, stats.resident_kib as f64);
    results.add("idle-anonymous", contestant, stats.anonymous_kib as f64);
    results.add("threads", contestant, stats.threads as f64);
    lambda.kill();
    Ok(())
}

/// The same with nothing of the program in memory, as in a sandbox's first start on a machine. Needs root.
fn cold(contestant: &Contestant, _: &Plan, results: &mut Results) -> Result<()> {
    // What is not written yet would stay.
    nix::unistd::sync();
    if std::fs::write("/proc/sys/vm/drop_caches", "3").is_err() {
        results.remark("cold page cache: SKIPPED, only root can empty it");
        return Ok(());
    }
    let kinesis = Kinesis::builder().count_only().start();
    let lambda = contestant.sandbox(&kinesis).start();
    results.add("start-cold", contestant, lambda.init()?.first_next.as_secs_f64() * 1e3);
    lambda.kill();
    Ok(())
}

/// What a flood cost.
struct Flooded {
    cpu_us: f64,
    delivered: f64,
    taken: f64,
    peak_kib: f64,
    requests: f64,
    bytes: f64,
}

/// As many events as the simulator can post, inside one invocation, until the last of them is on the stream. No freeze.
fn pour(
    contestant: &Contestant,
    batches: usize,
    envelope: &str,
    results: &mut Results,
) -> Result<Flooded> {
    let form = (FloodShape::Plain, EVENT_BYTES);
    pour_with(contestant, batches, form, &[("ENVELOPE", envelope)], results)
}

fn pour_with(
    contestant: &Contestant,
    batches: usize,
    (shape, event_bytes): (FloodShape, usize),
    settings: &[(&str, &str)],
    results: &mut Results,
) -> Result<Flooded> {
    let kinesis = Kinesis::builder().count_only().start();
    let builder = settings
        .iter()
        .fold(contestant.sandbox(&kinesis), |builder, (name, value)| builder.setting(name, value));
    let lambda = builder.setting("FLUSH", "end").without_freeze().start();
    lambda.init()?;
    lambda.drain(ms(2000));
    let before = process::cpu(&lambda)?;
    let wanted = (batches * EVENTS) as u64;
    let (tell, told) = mpsc::channel::<std::io::Result<(Instant, FloodReport)>>();
    let invocation = Invocation::new().run(move |lambda| {
        let begun = Instant::now();
        let flooded = lambda.flood_of(shape, batches, EVENTS, event_bytes);
        let _ = tell.send(flooded.map(|report| (begun, report)));
    });
    let (invoked, last) = thread::scope(|scope| {
        let arrival = scope.spawn(|| last_arrival(&kinesis, wanted));
        (lambda.invoke(invocation), arrival.join())
    });
    invoked?;
    let (begun, report) = told.recv()??;
    let last = last.map_err(|_| "the thread that watches the stream panicked")?;
    let cpu = process::cpu(&lambda)?.saturating_sub(before);
    let counted = kinesis.counted();
    let shutdown = lambda.shutdown("spindown");
    if counted.events < wanted {
        results.remarks.push(format!(
            "{}: {} of {wanted} events arrived in a flood",
            contestant.title, counted.events
        ));
    }
    Ok(Flooded {
        cpu_us: cpu.as_secs_f64() * 1e6 / counted.events.max(1) as f64,
        delivered: counted.events as f64 / last.saturating_duration_since(begun).as_secs_f64(),
        taken: report.events as f64 / report.took.as_secs_f64(),
        peak_kib: shutdown.stats.peak_kib as f64,
        requests: counted.requests as f64,
        bytes: counted.bytes as f64 / counted.events.max(1) as f64,
    })
}

/// When the last event that was waited for arrived.
fn last_arrival(kinesis: &Kinesis, wanted: u64) -> Instant {
    let (mut last, mut seen) = (Instant::now(), 0);
    loop {
        let events = kinesis.counted().events;
        if events > seen {
            (last, seen) = (Instant::now(), events);
        }
        if seen >= wanted || (seen > 0 && last.elapsed() > SILENCE) || last.elapsed() > SILENCE * 12
        {
            return last;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn flood(contestant: &Contestant, _: &Plan, results: &mut Results) -> Result<()> {
    let flooded = pour(contestant, FLOOD, "slim", results)?;
    results.add("flood-cpu", contestant, flooded.cpu_us);
    results.add("flood-rate", contestant, flooded.delivered);
    results.add("flood-taken", contestant, flooded.taken);
    results.add("flood-peak", contestant, flooded.peak_kib);
    results.add("flood-requests", contestant, flooded.requests);
    if contestant.kind == Kind::Floor {
        for (_, row, event_bytes) in AS_LONG_AS {
            let flooded =
                pour_with(contestant, FLOOD, (FloodShape::Plain, event_bytes), &[], results)?;
            results.add(row, contestant, flooded.cpu_us);
        }
    }
    if contestant.kind != Kind::Extension {
        return Ok(());
    }
    results.add("flood-cpu-glibc", contestant, flooded.cpu_us);
    compare_with_floor(contestant, "slim", &flooded, results);
    let flooded = pour(contestant, FLOOD, "full", results)?;
    compare_with_floor(contestant, "full", &flooded, results);
    results.add("flood-cpu-full", contestant, flooded.cpu_us);
    results.add("flood-cpu-full-glibc", contestant, flooded.cpu_us);
    results.add("flood-rate-full", contestant, flooded.delivered);
    for (row, shape, envelope, wire) in [
        ("cbor-cpu", FloodShape::Plain, "slim", "cbor"),
        ("cbor-cpu-full", FloodShape::Plain, "full", "cbor"),
        ("flood-order", FloodShape::OtherOrder, "slim", "json"),
        ("flood-escapes", FloodShape::Escapes, "slim", "json"),
    ] {
        let settings = [("ENVELOPE", envelope), ("WIRE", wire)];
        let flooded = pour_with(contestant, FLOOD, (shape, EVENT_BYTES), &settings, results)?;
        results.add(row, contestant, flooded.cpu_us);
    }
    Ok(())
}

/// With the floor that sends as many bytes.
fn compare_with_floor(
    contestant: &Contestant,
    envelope: &str,
    flooded: &Flooded,
    results: &mut Results,
) {
    for (_, row, event_bytes) in AS_LONG_AS.into_iter().filter(|(name, ..)| *name == envelope) {
        results.add(row, contestant, flooded.cpu_us);
        let floors = event_bytes as f64 * 4.0 / 3.0;
        if (flooded.bytes / floors - 1.0).abs() > 0.03 {
            results.remark(&format!(
                "{envelope}: {:.0} bytes are sent for each event, and the floor it is compared with sends {floors:.0}",
                flooded.bytes
            ));
        }
    }
}

/// Ten times the flood: cost must grow with it, memory must not.
fn growth(contestant: &Contestant, plan: &Plan, results: &mut Results) -> Result<()> {
    // The floor has no bound on its memory, and the peers take as long as they take.
    if plan.quick || contestant.kind != Kind::Extension {
        return Ok(());
    }
    let flooded = pour(contestant, FLOOD * 10, "slim", results)?;
    results.add("growth-cpu", contestant, flooded.cpu_us);
    results.add("growth-peak", contestant, flooded.peak_kib);
    Ok(())
}

/// A flood in each form of records.
fn forms(contestant: &Contestant, _: &Plan, results: &mut Results) -> Result<()> {
    if contestant.kind != Kind::Extension {
        return Ok(());
    }
    let forms = [
        ("form-lines", "lines", "none"),
        ("form-lines-gzip", "lines", "gzip"),
        ("form-kpl", "kpl", "none"),
        ("form-kpl-gzip", "kpl", "gzip"),
    ];
    for (row, record, compression) in forms {
        let flooded = pour_with(
            contestant,
            FLOOD / 4,
            (FloodShape::Plain, EVENT_BYTES),
            &[("RECORD", record), ("COMPRESSION", compression)],
            results,
        )?;
        results.add(row, contestant, flooded.cpu_us);
    }
    Ok(())
}

/// Many invocations of a millisecond with one line each, the sandbox frozen in between; and some with `FLUSH=end`.
fn invocations(contestant: &Contestant, plan: &Plan, results: &mut Results) -> Result<()> {
    const LATENCIES: [(u64, &str, &str, &str); 3] = [
        (0, "invocations-cpu-0", "invocations-added-0", "end-added-0"),
        (5, "invocations-cpu-5", "invocations-added-5", "end-added-5"),
        (20, "invocations-cpu-20", "invocations-added-20", "end-added-20"),
    ];
    let (many, some) = if plan.quick { (500, 50) } else { (5000, 150) };
    for (latency, cpu_row, added_row, end_row) in LATENCIES {
        let (cpu, added) = invoke_many(contestant, latency, many, "adaptive")?;
        results.add(cpu_row, contestant, cpu);
        results.add(added_row, contestant, added);
        if contestant.kind == Kind::Extension {
            let (_, added) = invoke_many(contestant, latency, some, "end")?;
            results.add(end_row, contestant, added);
        }
    }
    Ok(())
}

/// What an invocation costs after few and after many of them, and what a busy sandbox holds in memory.
fn busy(contestant: &Contestant, plan: &Plan, results: &mut Results) -> Result<()> {
    if !contestant.is_native() {
        return Ok(());
    }
    let counts =
        [("invocations-200", 200), ("invocations-2000", 2000), ("invocations-20000", 20_000)];
    let counts = if plan.quick { &counts[..2] } else { &counts[..] };
    for (row, count) in counts {
        let (cpu, _, resident) = invoke_often(contestant, 0, *count, "adaptive")?;
        results.add(row, contestant, cpu);
        if *count == 20_000 {
            results.add("busy", contestant, resident);
        }
    }
    Ok(())
}

/// How often threads wake each other for an invocation.
fn futex(contestant: &Contestant, _: &Plan, results: &mut Results) -> Result<()> {
    if contestant.kind != Kind::Extension {
        return Ok(());
    }
    let Some(strace) = futex::strace() else {
        results.remark("futex calls: SKIPPED, strace is not here");
        return Ok(());
    };
    for (row, flush) in [("futex", "adaptive"), ("futex-end", "end"), ("futex-next", "next")] {
        let calls = futex::calls(contestant, &strace, flush)?;
        results.add(row, contestant, calls);
    }
    Ok(())
}

/// What it costs a function that needs all of a small sandbox's CPU if a connection is made while it runs. Needs root.
fn slow(contestant: &Contestant, _: &Plan, results: &mut Results) -> Result<()> {
    if contestant.kind != Kind::Extension {
        return Ok(());
    }
    let Some(share) = slow::Share::of_128_mb() else {
        results.remark("128 MB: SKIPPED, no control group can be made here");
        return Ok(());
    };
    let kinesis = Kinesis::builder().count_only().tls().round_trip(ms(2)).start();
    let lambda = contestant.sandbox(&kinesis).setting("FLUSH", "end").start();
    lambda.init()?;
    share.add(lambda.pid().ok_or("the process has ended")?)?;
    slow::function(&lambda, &share, slow::Share::work(0, 1))?;
    for round in 0..SLOW_ROUNDS {
        let work = slow::Share::work(round, SLOW_ROUNDS);
        let mut run = |row, row_beside| -> Result<()> {
            let ran = slow::function(&lambda, &share, work)?;
            results.add(row, contestant, ran.ms);
            results.add(row_beside, contestant, ran.beside_us);
            Ok(())
        };
        run("slow-live", "slow-live-cpu")?;
        kinesis.reset_idle_connections();
        run("slow-dead", "slow-dead-cpu")?;
    }
    lambda.kill();
    Ok(())
}

/// CPU in us and time added in ms, both on average: what is billed is the sum.
fn invoke_many(
    contestant: &Contestant,
    latency: u64,
    count: usize,
    flush: &str,
) -> Result<(f64, f64)> {
    invoke_often(contestant, latency, count, flush).map(|(cpu, added, _)| (cpu, added))
}

/// The same, and what is resident after it, in KiB.
fn invoke_often(
    contestant: &Contestant,
    latency: u64,
    count: usize,
    flush: &str,
) -> Result<(f64, f64, f64)> {
    let kinesis = Kinesis::builder().count_only().start();
    if latency > 0 {
        kinesis.fault(Fault::delay(ms(latency)));
    }
    let lambda = contestant.sandbox(&kinesis).setting("FLUSH", flush).start();
    lambda.init()?;
    let before = process::cpu(&lambda)?;
    let mut added = Duration::ZERO;
    for number in 0..count {
        let report = lambda.invoke(Invocation::new().text(&format!("order {number} taken")))?;
        added += report.held;
    }
    let cpu = process::cpu(&lambda)?.saturating_sub(before);
    let resident = lambda.stats().resident_kib as f64;
    lambda.shutdown("spindown");
    let (cpu, added) = (cpu.as_secs_f64() * 1e6, added.as_secs_f64() * 1e3);
    Ok((cpu / count as f64, added / count as f64, resident))
}

/// A flush with each invocation, without TLS and with it.
fn tls(contestant: &Contestant, plan: &Plan, results: &mut Results) -> Result<()> {
    // The floor speaks plain HTTP only.
    if contestant.kind == Kind::Floor {
        return Ok(());
    }
    let count = if plan.quick { 20 } else { 80 };
    for (secure, first_row, each_row) in
        [(false, "plain-first", "plain-each"), (true, "tls-first", "tls-each")]
    {
        let kinesis = Kinesis::builder().count_only();
        let kinesis = if secure { kinesis.tls().start() } else { kinesis.start() };
        let lambda = contestant.sandbox(&kinesis).setting("FLUSH", "end").start();
        lambda.init()?;
        // No rest: the peers send what the init brought as soon as it comes.
        let start = process::cpu(&lambda)?;
        flush_once(&lambda, &kinesis)?;
        let first = process::cpu(&lambda)?;
        for _ in 1..count {
            flush_once(&lambda, &kinesis)?;
        }
        let end = process::cpu(&lambda)?;
        results.add(first_row, contestant, first.saturating_sub(start).as_secs_f64() * 1e6);
        results.add(
            each_row,
            contestant,
            end.saturating_sub(first).as_secs_f64() * 1e6 / (count - 1) as f64,
        );
        if secure {
            let mut connections: Vec<u64> =
                kinesis.puts().iter().map(|put| put.connection).collect();
            connections.sort_unstable();
            connections.dedup();
            results.add("tls-connections", contestant, connections.len() as f64);
            results.add("tls-requests", contestant, kinesis.counted().requests as f64);
            results.add("tls-peak", contestant, lambda.stats().peak_kib as f64);
        }
        lambda.shutdown("spindown");
    }
    Ok(())
}

/// How long invocations are held with TLS and a round trip of 2 ms: the first one, then in turns one with a live connection and one
/// whose connection died before it.
fn ready(contestant: &Contestant, _: &Plan, results: &mut Results) -> Result<()> {
    if contestant.kind != Kind::Extension {
        return Ok(());
    }
    let kinesis = Kinesis::builder().count_only().tls().round_trip(ms(2)).start();
    let lambda = contestant.sandbox(&kinesis).setting("FLUSH", "end").start();
    lambda.init()?;
    let held = || -> Result<f64> {
        let report = lambda.invoke(Invocation::new().text("order taken").work(ms(60)))?;
        Ok(report.held.as_secs_f64() * 1e3)
    };
    results.add("ready-first", contestant, held()?);
    for _ in 0..5 {
        results.add("ready-live", contestant, held()?);
        kinesis.reset_idle_connections();
        results.add("ready-dead", contestant, held()?);
    }
    lambda.shutdown("spindown");
    Ok(())
}

/// When what happens in a cold start, and in a warm invocation that is held to its function's end.
fn timeline(contestant: &Contestant, _: &Plan, results: &mut Results) -> Result<()> {
    if contestant.kind != Kind::Extension {
        return Ok(());
    }
    let kinesis = Kinesis::builder().count_only().tls().start();
    kinesis.fault(Fault::delay(ms(5)));
    let lambda = contestant.sandbox(&kinesis).start();
    let init = lambda.init()?;
    let subscribed = init.calls.iter().find(|call| call.path.contains("telemetry"));
    let subscribed = subscribed.ok_or("the extension has not subscribed")?;
    for (row, at) in [
        ("timeline-register", init.registered),
        ("timeline-subscribe", subscribed.at),
        ("timeline-next", init.first_next),
    ] {
        results.add(row, contestant, at.as_secs_f64() * 1e3);
    }
    let work = || Invocation::new().text("order taken").work(ms(40));
    lambda.invoke(work())?;
    let report = lambda.invoke(work())?;
    let posted = lambda.posts().into_iter().map(|post| post.at).find(|at| *at >= report.done);
    let put = kinesis.puts().into_iter().map(|put| put.at).find(|at| *at >= report.done);
    for (row, at) in [
        ("timeline-done", Some(report.done)),
        ("timeline-post", posted),
        ("timeline-put", put),
        ("timeline-over", report.next),
    ] {
        let at = at.ok_or_else(|| format!("{row}: that has not happened"))?;
        let after = at.saturating_duration_since(report.started);
        results.add(row, contestant, after.as_secs_f64() * 1e3);
    }
    lambda.shutdown("spindown");
    Ok(())
}

/// An invocation that is long enough for a batch to be posted and sent within it.
fn flush_once(lambda: &Lambda, kinesis: &Kinesis) -> Result<()> {
    let before = kinesis.counted().requests;
    lambda.invoke(Invocation::new().text("order taken").work(ms(35)))?;
    if kinesis.counted().requests == before {
        // A peer that takes its time: it is thawed by the next invocation.
        lambda.invoke(Invocation::new().work(ms(60)))?;
    }
    Ok(())
}
