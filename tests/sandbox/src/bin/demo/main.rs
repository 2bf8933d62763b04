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

use sandbox::{Kinesis, Lambda, SETTING_PREFIX, ms};
use serde_json::json;

use life::{Origin, look};
use page::Page;
use screen::Screen;
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
        .tmp_in("TMPDIR");
    for (name, value) in &settings {
        lambda = lambda.env(name, value);
    }
    let lambda = lambda.start();
    let (origin, records, mut screen) = (Origin::now(), kinesis.watch(), Screen::new());
    if !arguments.json {
        screen.columns();
    }
    let steps = story::tell(&lambda, &kinesis, |steps| {
        if arguments.json {
            records.try_iter().for_each(|record| screen::json_lines(origin, &record));
        } else {
            screen.blocks(&look(origin, steps, &kinesis), false);
        }
    });
    let steps = steps.map_err(|error| error.to_string())?;

    let blocks = look(origin, &steps, &kinesis);
    let account = kinesis.account();
    let comparison = account.compare(&lambda.sent());
    let types =
        settings.iter().find(|(name, _)| name.strip_prefix(SETTING_PREFIX) == Some("TYPES"));
    let types = types.map(|(_, value)| value.as_str()).filter(|types| !types.trim().is_empty());
    let verdict = Verdict::of(&comparison, &account, types);
    let numbers = Numbers::of(&steps, &kinesis);
    let remarks = remarks(&blocks, &numbers, &lambda);
    let next = next_steps(arguments);
    if arguments.json {
        records.try_iter().for_each(|record| screen::json_lines(origin, &record));
        let summary = screen::json_summary(&verdict, &numbers, &blocks, &lambda);
        println!("{}", json!({ "summary": summary }));
    } else {
        screen.blocks(&blocks, true);
        screen.verdict(&verdict, &remarks, &lambda.stderr());
        screen.next(&next);
    }
    if let Some(file) = &arguments.html {
        let page = Page {
            origin,
            blocks: &blocks,
            verdict: &verdict,
            numbers: &numbers,
            comparison: &comparison,
        };
        // The first of the next steps is this page.
        let page = page.html(&remarks, next.get(1..).unwrap_or_default(), &settings);
        std::fs::write(file, page).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    if verdict.is_good() { Ok(()) } else { Err(format!("{}\n{comparison}", verdict.sentence())) }
}

/// The extension's settings that the caller gave.
fn settings() -> Vec<(String, String)> {
    let mut settings: Vec<_> =
        std::env::vars().filter(|(name, _)| name.starts_with(SETTING_PREFIX)).collect();
    settings.sort();
    settings
}

/// What a reader may want to do now: a command, and what it is good for.
fn next_steps(arguments: &Arguments) -> Vec<(String, &'static str)> {
    let page = match &arguments.html {
        Some(file) => (file.display().to_string(), "is the same as a page: open it in a browser"),
        None => ("scripts/demo --html demo.html".to_owned(), "the same as a page, with a timeline"),
    };
    let flush = "KINESIS_TELEMETRY_FLUSH=next scripts/demo".to_owned();
    vec![
        page,
        (flush, "the same, but no invocation is held: events leave with the next one"),
        ("scripts/deploy --help".to_owned(), "a stream, layers and a function in your AWS account"),
    ]
}
