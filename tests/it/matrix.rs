//! The fault matrix: what Lambda and the stream see of each fault. The manual shows the same table; this test holds it to its rows, and
//! `UPDATE_DOCS=1` writes it with what was measured.

use std::fmt::Write as _;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sandbox::{
    Cut, CutForm, Delivery, Fault, Invocation, Kinesis, Lambda, LambdaBuilder, Which, ms,
    wait_until,
};
use serde_json::Value;

use crate::{docs, extension};

/// The page of the manual that shows the table.
const PAGE: &str = ".github/docs/faults.md";

/// What a run of a row came to.
#[derive(Default)]
struct Seen {
    held: Duration,
    peak_kib: u64,
    lost: usize,
    repeated: usize,
    /// What the ledgers and the last lines of the processes say.
    counted: u64,
}

/// What a row promises.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// Each event once.
    Once,
    /// Each event at least once; those that came twice are `possibleDuplicates`.
    AtLeastOnce,
    /// Delivery is not possible: each event is counted as dropped.
    Counted,
    /// What cannot be delivered is counted as dropped, and nothing else is lost.
    CountedInPart,
}

struct Row {
    name: &'static str,
    promise: Promise,
    run: fn() -> Seen,
}

static ROWS: [Row; 27] = [
    Row {
        name: "30 % of the records throttled",
        promise: Promise::Once,
        run: || {
            faulty(Fault::throttle(Which::Fraction(0.3)).times(5), |b| b.setting("RECORD", "event"))
        },
    },
    Row { name: "one hot shard: a key throttled for 5 s", promise: Promise::Once, run: hot_shard },
    Row {
        name: "one poison record, `RECORD=lines`",
        promise: Promise::CountedInPart,
        run: || poisoned("lines"),
    },
    Row {
        name: "one poison record, `RECORD=event`",
        promise: Promise::CountedInPart,
        run: || poisoned("event"),
    },
    Row {
        name: "one poison record, `RECORD=kpl`",
        promise: Promise::CountedInPart,
        run: || poisoned("kpl"),
    },
    Row {
        name: "every request refused as invalid for 5 s",
        promise: Promise::Once,
        run: || faulty(Fault::error(400, "InvalidArgumentException").lasting(ms(5000)), plain),
    },
    Row {
        name: "all records throttled for 5 s",
        promise: Promise::Once,
        run: || faulty(Fault::throttle(Which::All).lasting(ms(5000)), plain),
    },
    Row {
        name: "every request answered 500 for 5 s",
        promise: Promise::Once,
        run: || faulty(Fault::error(500, "InternalFailure").lasting(ms(5000)), plain),
    },
    Row {
        name: "every request answered 500 for 9 s, 5,000 lines queued, no spool",
        promise: Promise::Once,
        run: outage_without_a_disk,
    },
    Row {
        name: "connection cut before the answer, nothing stored",
        promise: Promise::AtLeastOnce,
        run: || faulty(Fault::reset_before_answer().times(3), plain),
    },
    Row {
        name: "connection cut after storing",
        promise: Promise::AtLeastOnce,
        run: || faulty(Fault::cut_after_store().times(2), plain),
    },
    Row {
        name: "no answer for 5 s",
        promise: Promise::AtLeastOnce,
        run: || faulty(Fault::hang().lasting(ms(5000)), plain),
    },
    Row {
        name: "no answer, for good",
        promise: Promise::Counted,
        run: || lasting(|kinesis| kinesis.fault(Fault::hang()), plain),
    },
    Row { name: "connection refused for a while", promise: Promise::Once, run: refused },
    Row {
        name: "the host name does not resolve",
        promise: Promise::Counted,
        run: || {
            lasting(
                |_| {},
                |builder| builder.env("AWS_ENDPOINT_URL_KINESIS", "http://kinesis.invalid:1"),
            )
        },
    },
    Row {
        name: "expired token for a while",
        promise: Promise::Once,
        run: || faulty(Fault::error(400, "ExpiredTokenException").lasting(ms(2000)), plain),
    },
    Row {
        name: "clock an hour off",
        promise: Promise::Once,
        run: || lasting(|kinesis| kinesis.move_clock(-3600), plain),
    },
    Row {
        name: "clock set back by an hour while Kinesis fails",
        promise: Promise::Once,
        run: set_back,
    },
    Row {
        name: "frozen in the middle of a request",
        promise: Promise::AtLeastOnce,
        run: frozen_in_a_request,
    },
    Row {
        name: "thawed with a dead connection, each time",
        promise: Promise::Once,
        run: dead_connections,
    },
    Row { name: "reset by a time-out while Kinesis fails", promise: Promise::Once, run: reset },
    Row {
        name: "crash of the function while Kinesis hangs",
        promise: Promise::AtLeastOnce,
        run: crash_while_hanging,
    },
    Row {
        name: "reset with 20,000 lines queued",
        promise: Promise::AtLeastOnce,
        run: reset_with_a_large_queue,
    },
    Row {
        name: "reset with a full disk while Kinesis fails",
        promise: Promise::CountedInPart,
        run: reset_with_a_full_disk,
    },
    Row { name: "killed between invocations (out of memory)", promise: Promise::Once, run: killed },
    Row { name: "40,000 lines in one invocation", promise: Promise::Once, run: flood },
    Row { name: "records cut by Lambda", promise: Promise::Once, run: cut },
];

fn plain(builder: LambdaBuilder) -> LambdaBuilder {
    builder
}

fn invocation(n: usize) -> Invocation {
    Invocation::new()
        .lines((0..20).map(|line| format!("invocation {n} line {line}")))
        .timeout(ms(20_000))
}

/// A sandbox after its init, its stream, and what was seen of both.
struct Life {
    kinesis: Kinesis,
    lambda: Lambda,
    seen: Seen,
}

impl Life {
    fn begin(kinesis: Kinesis, change: impl FnOnce(LambdaBuilder) -> LambdaBuilder) -> Self {
        let lambda = change(extension(&kinesis)).start();
        lambda.init().unwrap();
        Self { kinesis, lambda, seen: Seen::default() }
    }

    fn plain() -> Self {
        Self::begin(Kinesis::start(), plain)
    }

    /// Invokes the function as [`invocation`] does.
    fn observe(&mut self, n: usize) {
        self.observe_one(invocation(n));
    }

    fn observe_all(&mut self, numbers: std::ops::Range<usize>) {
        numbers.for_each(|n| self.observe(n));
    }

    fn observe_one(&mut self, invocation: Invocation) {
        let report = self.lambda.invoke(invocation).unwrap();
        assert!(!report.deadline_exceeded);
        assert_eq!(report.in_flight_at_next, 0);
        self.seen.held = self.seen.held.max(report.held);
        self.seen.peak_kib = self.seen.peak_kib.max(report.stats.peak_kib);
    }

    /// All that Lambda handed over is on the stream.
    fn is_all_there(&self) -> bool {
        self.kinesis.account().compare(&self.lambda.sent()).lost.is_empty()
    }

    /// Invokes the function until so many lines of a flood are delivered.
    fn wait_for_lines(&mut self, lines: usize) {
        wait_until(ms(60_000), "all to be delivered", || {
            self.observe(1);
            self.kinesis.account().flooded() == lines
        });
    }

    /// Invokes the function until all is delivered.
    fn wait_for_all(&mut self, n: usize) {
        wait_until(ms(60_000), "all to be delivered", || {
            self.observe(n);
            self.is_all_there()
        });
    }

    /// Shuts down and draws up the account.
    fn settle(self) -> Seen {
        let Self { kinesis, lambda, mut seen } = self;
        let report = lambda.shutdown("spindown");
        assert!(report.is_clean(), "{report:?} {:?}", lambda.stderr());
        seen.peak_kib = seen.peak_kib.max(report.stats.peak_kib);
        let account = kinesis.account();
        let comparison = account.compare(&lambda.sent());
        assert!(
            comparison.changed.is_empty()
                && comparison.wrong_request_id.is_empty()
                && comparison.broken.is_empty(),
            "{comparison}"
        );
        seen.lost = comparison.lost.len();
        seen.repeated = comparison.repeated.len();
        seen.counted = counted(&account.ledgers(), &lambda.stderr(), comparison.repeated.len());
        seen
    }
}

/// What all processes count as dropped. What one has lost is in its last ledger, and is printed as
/// well: it counts once.
fn counted(sent: &[Value], stderr: &[String], repeated: usize) -> u64 {
    let said = stderr
        .iter()
        .filter_map(|line| serde_json::from_str(&line[line.find("{\"received")?..]).ok());
    let same = |a: &Value, b: &Value| {
        ["received", "delivered", "dropped", "shutdownReason"].iter().all(|key| a[key] == b[key])
    };
    let only_said: Vec<Value> =
        said.filter(|said| !sent.iter().any(|sent| same(sent, said))).collect();
    let mut counted = 0;
    for ledger in sent.iter().chain(&only_said) {
        let number = |key: &str| ledger[key].as_u64().unwrap();
        let dropped: u64 = ["queue", "rejected", "undelivered"]
            .iter()
            .map(|why| ledger["dropped"][why].as_u64().unwrap())
            .sum();
        assert_eq!(
            number("received"),
            number("delivered") + dropped + number("waiting"),
            "{ledger}"
        );
        assert!(number("possibleDuplicates") >= repeated as u64, "{ledger}");
        counted += dropped;
    }
    counted
}

/// A healthy start, then the fault, then invocations until it has passed and all is delivered.
fn faulty(fault: Fault, change: fn(LambdaBuilder) -> LambdaBuilder) -> Seen {
    let mut life = Life::begin(Kinesis::start(), change);
    life.observe(0);
    life.kinesis.fault(fault);
    let mut n = 0;
    wait_until(ms(60_000), "all to be delivered", || {
        n += 1;
        life.observe(n);
        n >= 10 && life.is_all_there()
    });
    life.settle()
}

fn outage_without_a_disk() -> Seen {
    let mut life = Life::begin(Kinesis::start(), |builder| builder.setting("SPOOL_BYTES", "0"));
    life.kinesis.fault(Fault::error(500, "InternalFailure").lasting(ms(9000)));
    let queued = invocation(0).floods(50, 100, 700).pause(ms(9000));
    life.lambda.invoke(queued).unwrap();
    wait_until(ms(60_000), "all to be delivered", || {
        // Until the next try, hundreds of invocations without a pause log more than the memory holds.
        life.observe_one(invocation(1).pause(ms(100)));
        life.kinesis.account().flooded() == 5000
    });
    life.settle()
}

/// A fault from the start on, which does not pass.
fn lasting(fault: fn(&Kinesis), change: fn(LambdaBuilder) -> LambdaBuilder) -> Seen {
    let kinesis = Kinesis::start();
    fault(&kinesis);
    let mut life = Life::begin(kinesis, change);
    life.observe_all(0..10);
    life.settle()
}

fn refused() -> Seen {
    let mut life = Life::plain();
    life.observe(0);
    life.kinesis.refuse_connections();
    life.observe_all(1..6);
    life.kinesis.accept_connections();
    life.wait_for_all(7);
    life.settle()
}

fn frozen_in_a_request() -> Seen {
    let mut life = Life::begin(Kinesis::start(), |builder| builder.setting("MAX_AGE_MS", "100"));
    life.observe(0);
    // The answer comes into a frozen process, which thaws when its own time-out is over.
    life.kinesis.fault(Fault::delay(ms(500)).times(1));
    let signal = |pid: i32, name: &str| {
        assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success())
    };
    let freezing = invocation(1).pause(ms(400)).run(move |lambda| {
        let pid = lambda.pid().unwrap();
        signal(pid, "-STOP");
        std::thread::sleep(ms(4000));
        signal(pid, "-CONT");
    });
    let report = life.lambda.invoke(freezing).unwrap();
    assert!(!report.deadline_exceeded);
    life.observe_all(2..6);
    life.settle()
}

fn dead_connections() -> Seen {
    let mut life = Life::plain();
    for n in 0..10 {
        life.observe(n);
        life.kinesis.reset_idle_connections();
    }
    life.settle()
}

fn reset() -> Seen {
    let mut life = Life::plain();
    life.observe(0);
    life.kinesis.fault(Fault::error(500, "InternalFailure"));
    life.lambda.invoke(invocation(1).times_out().timeout(ms(1000))).unwrap();
    life.kinesis.clear_faults();
    life.observe_all(2..6);
    life.settle()
}

fn hot_shard() -> Seen {
    let mut life = Life::begin(Kinesis::builder().shards(4).start(), |builder| {
        builder.setting("RECORD", "event").setting("PARTITION_KEY", "request")
    });
    life.observe(0);
    // One invocation's events all go to one shard.
    let one = Which::Containing(b"invocation 1 ".to_vec());
    life.kinesis.fault(Fault::throttle(one).lasting(ms(5000)));
    let mut n = 0;
    wait_until(ms(60_000), "all to be delivered", || {
        n += 1;
        life.observe(n);
        let lines = life.kinesis.account().containing(&format!("invocation {n} ")).len();
        // The others do not wait for it.
        assert!(n < 3 || lines == 20, "invocation {n}: {lines} lines");
        n >= 10 && life.is_all_there()
    });
    life.settle()
}

fn poisoned(record: &'static str) -> Seen {
    let mut life = Life::begin(Kinesis::start(), |builder| builder.setting("RECORD", record));
    life.observe(0);
    life.kinesis.fault(Fault::poison("poison"));
    life.lambda.invoke(invocation(1).text("poison")).unwrap();
    life.observe_all(2..12);
    let seen = life.settle();
    assert_eq!(seen.lost, 1, "the poison alone");
    seen
}

/// The simulator's clock is what moves; the extension sees its own fall back.
fn set_back() -> Seen {
    let mut life = Life::plain();
    life.observe(0);
    life.kinesis.fault(Fault::error(500, "InternalFailure"));
    life.observe(1);
    life.kinesis.move_clock(3600);
    life.observe(2);
    life.kinesis.clear_faults();
    life.wait_for_all(3);
    life.settle()
}

fn crash_while_hanging() -> Seen {
    let mut life = Life::plain();
    life.observe(0);
    life.kinesis.fault(Fault::hang());
    let report = life.lambda.invoke(invocation(1).crashes()).unwrap();
    assert!(report.reset.unwrap().is_clean());
    life.kinesis.clear_faults();
    life.observe_all(2..8);
    life.settle()
}

/// What a reset leaves time for is packed and written within the 2 s of Lambda's SHUTDOWN window. An
/// emulator takes ten times as long for it, so it gets a tenth of the lines.
fn lines_queued() -> usize {
    if is_emulated() { 2_000 } else { 20_000 }
}

fn reset_with_a_large_queue() -> Seen {
    let mut life =
        Life::begin(Kinesis::start(), |builder| builder.setting("QUEUE_BYTES", "33554432"));
    life.kinesis.fault(Fault::hang());
    let crashing = invocation(0).floods(lines_queued() / 1000, 1000, 300).crashes();
    assert!(life.lambda.invoke(crashing).unwrap().reset.unwrap().is_clean());
    life.kinesis.clear_faults();
    life.wait_for_lines(lines_queued());
    life.settle()
}

fn reset_with_a_full_disk() -> Seen {
    // No file may grow. A program of another architecture still has its emulator in front.
    let emulator = std::env::var("KTE_RUNNER").unwrap_or_default();
    let limited = ["sh", "-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""]
        .into_iter()
        .chain(emulator.split_whitespace());
    let mut life =
        Life::begin(Kinesis::start(), |builder| builder.runner(&limited.collect::<Vec<_>>()));
    life.observe(0);
    life.kinesis.fault(Fault::error(500, "InternalFailure"));
    assert!(life.lambda.invoke(invocation(1).crashes()).unwrap().reset.unwrap().is_clean());
    life.kinesis.clear_faults();
    life.observe_all(2..6);
    life.settle()
}

fn killed() -> Seen {
    let mut life = Life::plain();
    life.observe_all(0..5);
    life.lambda.kill();
    // Lambda notices with the next invocation, which it cannot save; the one after that has a new process.
    assert!(life.lambda.invoke(invocation(5)).is_err());
    life.observe_all(6..12);
    life.settle()
}

fn flood() -> Seen {
    let mut life = Life::plain();
    let flooding = invocation(0).floods(40, 1000, 300);
    life.seen.held = life.lambda.invoke(flooding).unwrap().held;
    life.wait_for_lines(40_000);
    let processes = life.kinesis.account().by_process();
    let repeats: usize = processes.values().map(|process| process.repeats.len()).sum();
    let seen = life.settle();
    Seen { repeated: seen.repeated + repeats, ..seen }
}

fn cut() -> Seen {
    let cut = |form| Delivery { cut: Some(Cut { over: 262_144, form }), ..Delivery::default() };
    let mut life = Life::begin(Kinesis::start(), |builder| builder.delivery(cut(CutForm::Within)));
    let log = serde_json::json!({"message": "é\"日".repeat(100_000)});
    for n in 0..4 {
        if n == 2 {
            life.lambda.deliver(|way| *way = cut(CutForm::Across));
        }
        life.lambda.invoke(invocation(n).json(&log)).unwrap();
    }
    life.observe(5);
    life.settle()
}

impl Row {
    fn check(&self, seen: &Seen) {
        // Generous, for a busy machine: FLUSH_TIMEOUT_MS is 3000.
        assert!(seen.held < ms(9000), "{}: held {:?}", self.name, seen.held);
        match self.promise {
            Promise::Once => assert_eq!((seen.lost, seen.repeated), (0, 0), "{}", self.name),
            Promise::AtLeastOnce => assert_eq!(seen.lost, 0, "{}", self.name),
            Promise::Counted | Promise::CountedInPart => {
                assert_eq!((seen.lost as u64, seen.repeated), (seen.counted, 0), "{}", self.name)
            }
        }
    }

    fn promised(&self) -> [&'static str; 2] {
        match self.promise {
            Promise::Once => ["0", "0"],
            Promise::AtLeastOnce => ["0", "counted"],
            Promise::Counted => ["all, counted", "0"],
            Promise::CountedInPart => ["that alone, counted", "0"],
        }
    }
}

/// Whether the program runs under an emulator.
fn is_emulated() -> bool {
    std::env::var_os("KTE_RUNNER").is_some()
}

/// Runs all rows, several at once, for most of the time they wait; but not so many that they take
/// each other's time away, and their faults with it: least of all under an emulator.
fn run_all() -> Vec<Seen> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let at_once = if is_emulated() { 2 } else { 4 } * processors;
    let (next, seen) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..at_once.min(ROWS.len()) {
            scope.spawn(|| {
                while let Some((at, row)) = take_row(&next) {
                    let _named = Named(row.name);
                    let result = (row.run)();
                    seen.lock().unwrap().push((at, result));
                }
            });
        }
    });
    let mut seen = seen.into_inner().unwrap();
    seen.sort_by_key(|(at, _)| *at);
    seen.into_iter().map(|(_, seen)| seen).collect()
}

/// Says which row failed.
struct Named(&'static str);

#[expect(clippy::print_stderr, reason = "beside what the panic says")]
impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the row that failed: {}", self.0);
        }
    }
}

fn take_row(next: &AtomicUsize) -> Option<(usize, &'static Row)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    ROWS.get(at).map(|row| (at, row))
}

#[test]
fn every_fault_comes_out_as_the_manual_says() {
    let shown = docs::table(PAGE, "matrix");
    let seen = run_all();
    let mut table =
        "| fault | lost | repeated | held at most | peak memory |\n|---|---|---|---|---|\n"
            .to_owned();
    for (row, seen) in ROWS.iter().zip(&seen) {
        row.check(seen);
        let [lost, repeated] = row.promised();
        let (seconds, mib) = (seen.held.as_secs_f64(), seen.peak_kib as f64 / 1024.0);
        writeln!(table, "| {} | {lost} | {repeated} | {seconds:.1} s | {mib:.0} MiB |", row.name)
            .unwrap();
        let start = format!("| {} | {lost} | {repeated} |", row.name);
        assert!(docs::updates() || shown.contains(&start), "{PAGE} lacks {start}");
    }
    if docs::updates() {
        docs::write_table(PAGE, "matrix", &table);
    }
}
