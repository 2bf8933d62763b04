//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use crate::contestant::{self, Contestant};
use crate::scenario;

pub(crate) const HELP: &str = "\
usage: bench run [--quick] [--only SCENARIO,...] [--json FILE] [--svg FILE] [--timeline FILE] [--markdown FILE]
                 [--valgrind FILE] [--version NAME=TEXT]... [--remark TEXT]... [--also FILE=TITLE]... CONTESTANT=FILE...
       bench counts --binary FILE --record FILE [--check]
       bench keep --binary FILE [--quick]

run     measures the contestants in turn and prints one table
counts  counts the extension's instructions under callgrind and writes them to --record; with --check compares them
        with what stands there instead, and fails when one has grown by more than a quarter
keep    counts what KEEP and SUMMARY add to each event of a flood, and fails when that is over its bound

--also  is another build of the extension; with it, --markdown gives a table with a line for each build

contestants: floor-static floor-glibc extension-static extension-glibc peer-sdk peer-node
             producer-agg product-otel product-sentry
scenarios:   start cold flood growth invocations busy futex forms tls ready slow
             timeline";

pub(crate) enum Command {
    Help,
    Run(Plan),
    Counts(Counting),
    /// For itself alone: a function that needs so much CPU time.
    Burn(Duration),
    /// The binary, and whether one line of the table is enough.
    Keep(PathBuf, bool),
}

/// What `run` is to do.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) quick: bool,
    pub(crate) contestants: Vec<Contestant>,
    pub(crate) versions: Vec<(String, String)>,
    pub(crate) remarks: Vec<String>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) svg: Option<PathBuf>,
    pub(crate) timeline: Option<PathBuf>,
    pub(crate) markdown: Option<PathBuf>,
    pub(crate) valgrind: Option<PathBuf>,
    only: Vec<String>,
}

impl Plan {
    pub(crate) fn wants(&self, scenario: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == scenario)
    }
}

/// What `counts` is to do.
pub(crate) struct Counting {
    pub(crate) binary: PathBuf,
    pub(crate) record: PathBuf,
    pub(crate) check: bool,
}

pub(crate) fn read(arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut arguments = arguments.peekable();
    match arguments.next().as_deref() {
        Some("run") => read_run(arguments).map(Command::Run),
        Some("counts") => read_counts(arguments).map(Command::Counts),
        Some("burn") => {
            let work = arguments
                .next()
                .and_then(|work| work.parse().ok())
                .ok_or("burn needs microseconds")?;
            Ok(Command::Burn(Duration::from_micros(work)))
        }
        Some("keep") => match arguments.collect::<Vec<_>>().as_slice() {
            [name, binary] if name == "--binary" => Ok(Command::Keep(binary.into(), false)),
            [name, binary, quick] if name == "--binary" && quick == "--quick" => {
                Ok(Command::Keep(binary.into(), true))
            }
            _ => Err("keep needs --binary FILE, and takes --quick".to_owned()),
        },
        None | Some("--help" | "-h") => Ok(Command::Help),
        Some(other) => Err(format!("{other}: neither run nor counts nor keep")),
    }
}

fn read_run(mut arguments: impl Iterator<Item = String>) -> Result<Plan, String> {
    let mut plan = Plan::default();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--quick" => plan.quick = true,
            "--json" => plan.json = Some(value()?.into()),
            "--svg" => plan.svg = Some(value()?.into()),
            "--timeline" => plan.timeline = Some(value()?.into()),
            "--markdown" => plan.markdown = Some(value()?.into()),
            "--valgrind" => plan.valgrind = Some(value()?.into()),
            "--also" => {
                let (file, title) = pair(&value()?)?;
                plan.contestants.push(contestant::also(
                    &title,
                    file.into(),
                    plan.contestants.len(),
                )?);
            }
            "--version" => plan.versions.push(pair(&value()?)?),
            "--remark" => plan.remarks.push(value()?),
            "--only" => plan.only = value()?.split(',').map(str::to_owned).collect(),
            _ => {
                let (id, file) = pair(&argument)?;
                plan.contestants.push(contestant::of(&id, file.into())?);
            }
        }
    }
    if let Some(unknown) =
        plan.only.iter().find(|name| scenario::ALL.iter().all(|scenario| scenario.name != **name))
    {
        return Err(format!("{unknown}: no such scenario"));
    }
    if plan.contestants.is_empty() {
        return Err("no contestants".to_owned());
    }
    plan.contestants.sort_by_key(|contestant| contestant.place);
    Ok(plan)
}

fn read_counts(mut arguments: impl Iterator<Item = String>) -> Result<Counting, String> {
    let (mut binary, mut record, mut check) = (None, None, false);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--binary" => binary = Some(PathBuf::from(value()?)),
            "--record" => record = Some(PathBuf::from(value()?)),
            "--check" => check = true,
            other => return Err(format!("{other}: no such argument")),
        }
    }
    match (binary, record) {
        (Some(binary), Some(record)) => Ok(Counting { binary, record, check }),
        _ => Err("counts needs --binary and --record".to_owned()),
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text}: no such argument"))?;
    Ok((name.to_owned(), value.to_owned()))
}
