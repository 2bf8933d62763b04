//! The demo: a sample function's life in the simulator, and what arrives on the stream while it lives it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program whose output is its purpose"
)]

mod life;
mod page;
mod screen;
mod story;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::Receiver;

use sandbox::{Kinesis, Lambda, SETTING_PREFIX, StoredRecord, ms};
use serde_json::json;

use life::{Origin, look};
use page::Page;
use screen::Screen;
use story::Step;
use verdict::{Numbers, Verdict, remarks};

const HELP: &str = "\
Runs a sample function in a simulated Lambda, with the extension beside it, and shows what arrives on the stream.

usage: demo --binary PATH [--json] [--html FILE] [--plain]

  --binary PATH   the extension
  --json          one JSON object a line: every event, then a summary
  --html FILE     writes the same as one HTML page, with a timeline
  --plain         the stream's endpoint speaks HTTP instead of HTTPS, and takes unsigned requests
  --help          this text

KINESIS_TELEMETRY_... variables are handed to the extension. Exit code 0 when every event arrived once, as it was.";

struct Arguments {
    binary: PathBuf,
    json: bool,
    html: Option<PathBuf>,
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
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("scripts/demo: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let (mut binary, mut html, mut json, mut plain) = (None, None, false, false);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--json" => json = true,
            "--plain" => plain = true,
            "--binary" => binary = given.next().map(PathBuf::from),
            "--html" => html = Some(given.next().map(PathBuf::from).ok_or("--html needs a file")?),
            other => return Err(format!("unknown argument {other}")),
        }
    }
    let binary = binary.ok_or("--binary is missing")?;
    Ok(Some(Arguments { binary, json, html, plain }))
}

/// The whole run; what is wrong, when something is.
fn run(arguments: &Arguments) -> Result<(), String> {
    if let Some(folder) = arguments.html.as_deref().and_then(Path::parent)
        && !(folder.as_os_str().is_empty() || folder.is_dir())
    {
        return Err(format!("there is no folder {}", folder.display()));
    }
    let kinesis =
        if arguments.plain { Kinesis::builder().unsigned() } else { Kinesis::builder().tls() };
    let kinesis = kinesis.stream("orders-telemetry").keep_bodies().start();
    let settings = settings();
    let mut lambda = Lambda::builder(&arguments.binary)
        .kinesis(&kinesis)
        .function("orders", "$LATEST")
        .runtime_init(ms(170), &["loading the price list"])
        .timeout(ms(1000))
        // Apart from what another sandbox has left on this machine.
        .tmp_in("TMPDIR");
    for (name, value) in &settings {
        lambda = lambda.env(name, value);
    }
    let lambda = lambda.start();
    let records = kinesis.watch();
    let mut run = Run {
        arguments,
        settings: &settings,
        kinesis: &kinesis,
        lambda: &lambda,
        origin: Origin::now(),
        records,
        screen: Screen::new(),
    };
    if !arguments.json {
        run.screen.columns();
    }
    let steps = story::tell(&lambda, &kinesis, |steps| run.show(steps));
    run.conclude(&steps.map_err(|error| error.to_string())?)
}

/// A run in progress, and what is shown of it.
struct Run<'a> {
    arguments: &'a Arguments,
    settings: &'a [(String, String)],
    kinesis: &'a Kinesis,
    lambda: &'a Lambda,
    origin: Origin,
    /// What was stored and is not shown yet, where every event is shown as it comes.
    records: Receiver<StoredRecord>,
    screen: Screen,
}

impl Run<'_> {
    /// Shows what is new after a step.
    fn show(&mut self, steps: &[Step]) {
        if self.arguments.json {
            self.records.try_iter().for_each(|record| screen::json_lines(self.origin, &record));
        } else {
            self.screen.blocks(&look(self.origin, steps, self.kinesis), false);
        }
    }

    /// Shows the rest and the verdict.
    fn conclude(mut self, steps: &[Step]) -> Result<(), String> {
        self.show(steps);
        let blocks = look(self.origin, steps, self.kinesis);
        let account = self.kinesis.account();
        let comparison = account.compare(&self.lambda.sent());
        let verdict = Verdict::of(&comparison, &account, self.types());
        let numbers = Numbers::of(steps, self.kinesis);
        let remarks = remarks(&blocks, &numbers, self.lambda);
        let next = next_steps(self.arguments, &verdict);
        if self.arguments.json {
            let summary = screen::json_summary(&verdict, &numbers, &blocks, self.lambda);
            println!("{}", json!({ "summary": summary }));
        } else {
            self.screen.blocks(&blocks, true);
            self.screen.verdict(&verdict, &remarks, &self.lambda.stderr());
            self.screen.next(&next);
        }
        if let Some(file) = &self.arguments.html {
            let page = Page {
                origin: self.origin,
                blocks: &blocks,
                verdict: &verdict,
                numbers: &numbers,
                comparison: &comparison,
            };
            // The first of the next steps is this page.
            let page = page.html(&remarks, next.get(1..).unwrap_or_default(), self.settings);
            std::fs::write(file, page).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        if verdict.is_good() {
            return Ok(());
        }
        Err(format!("{}\n{comparison}", verdict.sentence()))
    }

    /// The types of telemetry that are sent, where the caller says so.
    fn types(&self) -> Option<&str> {
        let is_types = |name: &str| name.strip_prefix(SETTING_PREFIX) == Some("TYPES");
        let (_, types) = self.settings.iter().find(|(name, _)| is_types(name))?;
        Some(types.as_str()).filter(|types| !types.trim().is_empty())
    }
}

/// The extension's settings that the caller gave.
fn settings() -> Vec<(String, String)> {
    let mut settings: Vec<_> =
        std::env::vars().filter(|(name, _)| name.starts_with(SETTING_PREFIX)).collect();
    settings.sort();
    settings
}

/// What a reader may want to do now: a command, and what it is good for.
fn next_steps(arguments: &Arguments, verdict: &Verdict) -> Vec<(String, &'static str)> {
    let page = match &arguments.html {
        Some(file) => (file.display().to_string(), "is the same as a page: open it in a browser"),
        None => ("scripts/demo --html demo.html".to_owned(), "the same as a page, with a timeline"),
    };
    let command = |setting: &str| format!("{SETTING_PREFIX}{setting} scripts/demo");
    if !verdict.is_good() {
        let debug = command("LOG_LEVEL=debug");
        return vec![
            page,
            (debug, "the same, and the extension says what becomes of each request"),
        ];
    }
    vec![
        page,
        (
            command("FLUSH=next"),
            "the same, but no invocation is held: events leave with the next one",
        ),
        ("scripts/deploy --help".to_owned(), "a stream, layers and a function in your AWS account"),
    ]
}
