//! The demo: a sample function's life in the simulator, and what arrives on the stream while it lives it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program whose output is its purpose"
)]

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, SystemTime};

use sandbox::{
    Comparison, Fault, Invocation, InvokeReport, Kinesis, Lambda, LambdaError, SETTING_PREFIX,
    ShutdownReport, Stats, StoredEvent, StoredRecord, Which, ms, unix_millis,
};
use serde_json::{Value, json};

const HELP: &str = "\
Runs a sample function in a simulated Lambda, with the extension beside it, and shows what arrives on the stream.

usage: demo --binary PATH [--json] [--plain]

  --binary PATH   the extension
  --json          one JSON object a line: every event, then a summary
  --plain         the stream's endpoint speaks HTTP instead of HTTPS, and takes unsigned requests
  --help          this text

KINESIS_TELEMETRY_... variables are handed to the extension. Exit code 0 when no event was lost.";

/// How long the stream may take to be drawn once everything is over.
const DRAW_LIMIT: Duration = Duration::from_secs(5);

struct Arguments {
    binary: PathBuf,
    json: bool,
    plain: bool,
}

fn main() -> ExitCode {
    let arguments = match arguments(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("demo: {problem}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let (mut binary, mut json, mut plain) = (None, false, false);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--json" => json = true,
            "--plain" => plain = true,
            "--binary" => binary = given.next().map(PathBuf::from),
            other => return Err(format!("unknown argument {other}")),
        }
    }
    let binary = binary.ok_or("--binary is missing")?;
    Ok(Some(Arguments { binary, json, plain }))
}

/// The whole story; whether nothing was lost.
fn run(arguments: &Arguments) -> Result<bool, LambdaError> {
    let kinesis =
        if arguments.plain { Kinesis::builder().unsigned() } else { Kinesis::builder().tls() };
    let kinesis = kinesis.stream("orders-telemetry").start();
    let mut lambda = Lambda::builder(&arguments.binary)
        .kinesis(&kinesis)
        .function("orders", "$LATEST")
        .runtime_init(ms(170), &["loading the price list"])
        .timeout(ms(1000));
    for (name, value) in std::env::vars().filter(|(name, _)| name.starts_with(SETTING_PREFIX)) {
        lambda = lambda.env(&name, &value);
    }
    let lambda = lambda.start();
    let screen = Screen::new(arguments.json);
    let drawn = Arc::new(AtomicUsize::new(0));
    let (records, counter) = (kinesis.watch(), Arc::clone(&drawn));
    std::thread::spawn(move || draw(&screen, &records, &counter));

    screen.columns();
    let story = tell(&screen, &lambda, &kinesis);
    let (init, held, end) = match story {
        Ok(told) => told,
        Err(error) => {
            lambda.stderr().iter().for_each(|line| eprintln!("  | {line}"));
            return Err(error);
        }
    };
    let until = std::time::Instant::now() + DRAW_LIMIT;
    while drawn.load(Ordering::Acquire) < kinesis.records().len()
        && std::time::Instant::now() < until
    {
        std::thread::sleep(ms(5));
    }
    let comparison = kinesis.account().compare(&lambda.sent());
    let summary = Summary { comparison, init, held, end, kinesis: &kinesis, lambda: &lambda };
    screen.summary(&summary);
    Ok(summary.is_good())
}

type Told = (Vec<(&'static str, Duration)>, Vec<(&'static str, InvokeReport)>, ShutdownReport);

/// Cold start, warm invocations, an error, a time-out with its reset, the end.
fn tell(screen: &Screen, lambda: &Lambda, kinesis: &Kinesis) -> Result<Told, LambdaError> {
    let mut held = Vec::new();
    let mut inits = Vec::new();
    screen.chapter("cold start: the process starts, and the first invocation follows at once");
    inits.push(("cold start", lambda.init()?.first_next));
    let mut invoke = |name: &'static str, invocation: Invocation| -> Result<(), LambdaError> {
        let report = lambda.invoke(invocation.tracing(TRACE))?;
        inits.extend(report.init.as_ref().map(|init| ("after the reset", init.first_next)));
        held.push((name, report));
        std::thread::sleep(ms(80));
        Ok(())
    };
    let order = Invocation::new()
        .text("order 4711 received")
        .pause(ms(15))
        .text("order 4711 stored")
        .work(ms(20));
    invoke("cold", order)?;
    screen.chapter("warm invocations: text and JSON logs; frozen in between");
    for number in 4712..4715 {
        let stored = json!({"level": "INFO", "message": "stored", "order": number, "total": 49.90});
        let order = Invocation::new()
            .text(&format!("order {number} received"))
            .pause(ms(15))
            .json(&stored)
            .work(ms(20));
        invoke("warm", order)?;
    }
    screen.chapter("the stream throttles everything in one request; what failed is sent again");
    kinesis.fault(Fault::throttle(Which::All).times(1));
    let lines = (1..=5).map(|item| format!("item {item} priced"));
    invoke("throttled", Invocation::new().lines(lines).work(ms(30)))?;
    screen.chapter("a handled error");
    invoke("error", Invocation::new().text("order 4715 received").work(ms(10)).handled_error())?;
    screen.chapter("a time-out after 1 s: Lambda resets the sandbox");
    invoke("time-out", Invocation::new().text("waiting for the warehouse").times_out())?;
    screen.chapter("the next invocation: a new process in the same sandbox");
    invoke("after reset", Invocation::new().text("order 4716 received").work(ms(20)))?;
    screen.chapter("shutdown");
    Ok((inits, held, lambda.shutdown("spindown")))
}

const TRACE: &str = "Root=1-62e900b2-710d76f009d6e7785905449a;Parent=0efbd19962d95b05;Sampled=1";

/// Draws what is stored, until the endpoint is gone.
fn draw(screen: &Screen, records: &Receiver<StoredRecord>, drawn: &AtomicUsize) {
    for record in records {
        record.events().iter().for_each(|event| screen.event(event, &record));
        drawn.fetch_add(1, Ordering::Release);
    }
}

struct Summary<'a> {
    comparison: Comparison,
    init: Vec<(&'static str, Duration)>,
    held: Vec<(&'static str, InvokeReport)>,
    end: ShutdownReport,
    kinesis: &'a Kinesis,
    lambda: &'a Lambda,
}

impl Summary<'_> {
    fn is_good(&self) -> bool {
        self.comparison.lost.is_empty() && self.comparison.handed > 0
    }

    fn peak(&self) -> Stats {
        let seen = self.held.iter().map(|(_, report)| report.stats).chain([self.end.stats]);
        seen.max_by_key(|stats| stats.peak_kib).unwrap_or_default()
    }

    fn json(&self) -> Value {
        let comparison = &self.comparison;
        let held: Vec<Value> =
            self.held.iter().map(|(name, report)| json!({ "name": name, "requestId": report.request_id, "heldMs": millis(report.held) })).collect();
        let init: BTreeMap<_, _> =
            self.init.iter().map(|(name, time)| (*name, millis(*time))).collect();
        let puts = self.kinesis.puts();
        json!({
            "sent": comparison.handed,
            "delivered": comparison.delivered,
            "lost": comparison.lost.len(),
            "repeated": comparison.repeated.len(),
            "changed": comparison.changed.len(),
            "wrongRequestId": comparison.wrong_request_id.len(),
            "firstNextMs": init,
            "invocations": held,
            "peakKiB": self.peak().peak_kib,
            "requests": puts.len(),
            "records": self.kinesis.records().len(),
            "recordsThrottled": puts.iter().map(sandbox::Put::failed).sum::<usize>(),
            "shutdownMs": millis(self.end.took),
            "exitCode": self.end.exit.code,
            "stderr": self.lambda.stderr(),
        })
    }
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

/// Where everything is written, for people or for machines.
#[derive(Clone, Copy)]
struct Screen {
    json: bool,
    colour: bool,
    width: usize,
}

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";
const GREY: &str = "90";
const BOLD: &str = "1";

impl Screen {
    fn new(json: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let colour = terminal
            && !set("NO_COLOR")
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let width =
            std::env::var("COLUMNS").ok().and_then(|width| width.parse().ok()).unwrap_or(160);
        Self { json, colour, width }
    }

    fn paint(self, colour: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn columns(self) {
        if !self.json {
            let head = format!(
                "{:12}  {:8}  {:30}  {}",
                "time", "request", "type", "what arrived on the stream"
            );
            println!("{}", self.paint(BOLD, &head));
        }
    }

    fn chapter(self, title: &str) {
        if !self.json {
            println!("\n{}", self.paint(BOLD, &format!("-- {title}")));
        }
    }

    fn event(self, event: &StoredEvent, record: &StoredRecord) {
        if self.json {
            // The line as it is on the stream, with its keys in their order.
            println!(
                r#"{{"shard":{},"request":{},"arrivedMs":{},"event":{}}}"#,
                record.shard,
                record.put,
                unix_millis(SystemTime::now() - record.at.elapsed()),
                event.text()
            );
            return;
        }
        let time = event.time.get(11..23).unwrap_or(&event.time);
        let request = event.request_id.as_deref().and_then(|id| id.get(..8)).unwrap_or("-");
        let colour = match event.kind.as_str() {
            "function" => GREEN,
            kind if kind.starts_with("kinesis-telemetry.") => YELLOW,
            _ => CYAN,
        };
        let room = self.width.saturating_sub(12 + 8 + 30 + 6).max(20);
        let text = clip(&gist(event), room);
        let failed = text.contains("ERROR") || text.contains("timeout");
        let text = if failed { self.paint(RED, &text) } else { text };
        println!(
            "{}  {}  {}  {text}",
            self.paint(GREY, &format!("{time:12}")),
            self.paint(BOLD, &format!("{request:8}")),
            self.paint(colour, &format!("{:30}", event.kind))
        );
    }

    fn summary(self, summary: &Summary<'_>) {
        if self.json {
            println!("{}", json!({ "summary": summary.json() }));
            return;
        }
        let comparison = &summary.comparison;
        self.chapter("summary");
        let line = |name: &str, value: String| println!("{name:24}{value}");
        let judged =
            |count: usize| self.paint(if count == 0 { GREEN } else { RED }, &count.to_string());
        line("events sent", comparison.handed.to_string());
        line("events delivered", comparison.delivered.to_string());
        line("events lost", judged(comparison.lost.len()));
        line("events repeated", judged(comparison.repeated.len()));
        line("records changed", judged(comparison.changed.len()));
        line("wrong requestId", judged(comparison.wrong_request_id.len()));
        for (name, time) in &summary.init {
            line("first /next", format!("{:.1} ms ({name})", millis(*time)));
        }
        for (name, report) in &summary.held {
            let note = if report.reset.is_some() { ", ended in a reset" } else { "" };
            let id = report.request_id.get(..8).unwrap_or_default();
            line(
                "held after the function",
                format!("{:.1} ms ({name}, {id}{note})", millis(report.held)),
            );
        }
        let puts = summary.kinesis.puts();
        let failed: usize = puts.iter().map(sandbox::Put::failed).sum();
        let records = summary.kinesis.records().len();
        line(
            "requests to Kinesis",
            format!("{}, {records} records stored, {failed} throttled", puts.len()),
        );
        line(
            "memory at most",
            format!(
                "{:.1} MiB",
                f64::from(u32::try_from(summary.peak().peak_kib).unwrap_or(u32::MAX)) / 1024.0
            ),
        );
        line("shutdown", format!("{:.1} ms, {}", millis(summary.end.took), summary.end.exit));
        let printed = summary.lambda.stderr();
        if !printed.is_empty() {
            println!("\nthe extension said:");
            printed.iter().take(20).for_each(|text| println!("  | {text}"));
        }
        if !summary.is_good() || !comparison.is_lossless() {
            println!("\n{}", self.paint(RED, &comparison.to_string()));
        }
        if comparison.handed == 0 {
            println!("{}", self.paint(RED, "the extension took no telemetry"));
        }
    }
}

/// What an event says, in one line.
fn gist(event: &StoredEvent) -> String {
    let record = event.record_json();
    if let Some(text) = record.as_str() {
        // A managed runtime's line begins with time and request id, which stand in columns of their own.
        let parts: Vec<&str> = text.trim_end().splitn(3, '\t').collect();
        let rest = if parts.len() == 3 && parts.get(1).is_some_and(|id| id.len() == 36) {
            parts.last()
        } else {
            None
        };
        return rest.copied().unwrap_or(text.trim_end()).replace(['\n', '\t'], " ");
    }
    if let (true, Some(ledger)) = (event.is_own(), record.as_object()) {
        let numbers =
            ledger.iter().filter(|(_, value)| value.as_u64().is_some_and(|number| number > 0));
        return numbers
            .map(|(name, value)| format!("{name} {value}"))
            .collect::<Vec<_>>()
            .join(", ");
    }
    if !event.kind.starts_with("platform.") {
        return String::from_utf8_lossy(&event.record).into_owned();
    }
    let field = |pointer: &str| {
        record.pointer(pointer).map(|value| value.as_str().map_or(value.to_string(), str::to_owned))
    };
    let parts = [
        field("/status"),
        field("/errorType"),
        field("/state"),
        field("/phase").map(|phase| format!("phase {phase}")),
        field("/metrics/durationMs").map(|time| format!("{time} ms")),
        field("/metrics/billedDurationMs").map(|time| format!("billed {time} ms")),
        field("/metrics/initDurationMs").map(|time| format!("init {time} ms")),
        field("/name"),
        field("/version").map(|version| format!("version {version}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn clip(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room.saturating_sub(1)).chain(['…']).collect()
}
