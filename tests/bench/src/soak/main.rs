//! Drives the extension through many small invocations at full speed and holds its memory to bounds; `scripts/soak` builds this and calls it.
//!
//! A test of minutes does not show what grows for hours. This one makes an invocation cost little more than the extension's own work, so that
//! days of traffic fit into minutes. Every event is accounted for at the end.

mod chart;
mod kinesis;
mod lambda;
mod memory;
mod wire;

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lambda::{Length, Life, Load};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Of the static program, in small invocations.
const PEAK_KIB: u64 = 7 * 1024;
/// Of the peak, in the second half, in per cent.
const GROWTH: u64 = 5;
/// Invocations a second on a Managed Instance: the queue fills for a second, and what is in it is resident too.
const MANAGED_RATE: u32 = 500;

const HELP: &str = "\
usage: scripts/soak [OPTION...] [[NAME=]PROGRAM...]

Drives each program through 200,000 invocations with five logs of 200 bytes each, at full speed and with default settings, once for each
FLUSH mode. Prints a table of memory and CPU. Fails when more than 7 MiB were resident, when the peak grew by more than 5 % in the second
half, or when an event was lost, repeated or miscounted. Without a PROGRAM it takes KTE_BINARY, and else the layer's one for this machine.

  --invocations N    instead of 200000; or --minutes N for so long
  --flush MODES      some of end,next,adaptive
  --managed          a Managed Instance instead, 500 invocations a second
  --rate N           invocations a second; 0 for as many as possible
  --logs N           of each invocation; --log-bytes N long
  --bounds WHICH     all, growth, or none
  --runner COMMAND   starts the program: an emulator of another architecture
  --within START-END counts only what is resident at these addresses (hexadecimal): the program's, and not the emulator's
  --together         all lives at once, where the machine has the cores
  --svg FILE         writes the curves as a picture";

/// What the command line asks for.
struct Plan {
    lives: Vec<(String, Load)>,
    bounds: Bounds,
    together: bool,
    svg: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bounds {
    All,
    Growth,
    None,
}

/// A life that went well.
struct Soaked {
    program: String,
    mode: &'static str,
    life: Life,
}

fn main() -> ExitCode {
    let plan = match read(std::env::args().skip(1)) {
        Ok(Some(plan)) => plan,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("soak: {problem}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(&plan) {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            problems.iter().for_each(|problem| eprintln!("soak: {problem}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

type Parsed<T> = std::result::Result<T, String>;

fn read(mut arguments: impl Iterator<Item = String>) -> Parsed<Option<Plan>> {
    let mut load = Load {
        program: PathBuf::new(),
        runner: Vec::new(),
        within: None,
        flush: None,
        length: Length::Invocations(200_000),
        rate: 0,
        logs: 5,
        log_bytes: 200,
    };
    let (mut modes, mut rate, mut programs) =
        (vec![Some("end"), Some("next"), Some("adaptive")], None, Vec::new());
    let (mut bounds, mut together, mut svg) = (Bounds::All, false, None);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--invocations" => load.length = Length::Invocations(number(&value()?)?),
            "--minutes" => {
                load.length = Length::Time(Duration::from_secs(60 * number::<u64>(&value()?)?))
            }
            "--flush" => modes = value()?.split(',').map(flush).collect::<Parsed<_>>()?,
            "--managed" => modes = vec![None],
            "--rate" => rate = Some(number(&value()?)?),
            "--logs" => load.logs = number(&value()?)?,
            "--log-bytes" => load.log_bytes = number(&value()?)?,
            "--bounds" => bounds = Bounds::named(&value()?)?,
            "--runner" => load.runner = value()?.split_whitespace().map(str::to_owned).collect(),
            "--within" => load.within = Some(addresses(&value()?)?),
            "--together" => together = true,
            "--svg" => svg = Some(value()?.into()),
            option if option.starts_with('-') => return Err(format!("{option}: no such option")),
            program => programs.push(named(program)?),
        }
    }
    if programs.is_empty() {
        programs.push(named(&std::env::var("KTE_BINARY").map_err(|_| "no program".to_owned())?)?);
    }
    load.rate = rate.unwrap_or(if modes == [None] { MANAGED_RATE } else { 0 });
    let lives = programs.iter().flat_map(|(name, program)| {
        let load = &load;
        modes.iter().map(move |flush| {
            (name.clone(), Load { program: program.clone(), flush: *flush, ..load.clone() })
        })
    });
    Ok(Some(Plan { lives: lives.collect(), bounds, together, svg }))
}

impl Bounds {
    fn named(name: &str) -> Parsed<Bounds> {
        match name {
            "all" => Ok(Bounds::All),
            "growth" => Ok(Bounds::Growth),
            "none" => Ok(Bounds::None),
            other => Err(format!("{other}: no such bounds")),
        }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Parsed<T> {
    text.parse().map_err(|_| format!("{text}: not a number"))
}

/// Hexadecimal, as in `/proc/PID/maps`.
fn addresses(text: &str) -> Parsed<Range<u64>> {
    let (start, end) = text.split_once('-').ok_or_else(|| format!("{text}: not START-END"))?;
    let address =
        |text| u64::from_str_radix(text, 16).map_err(|_| format!("{text}: not an address"));
    Ok(address(start)?..address(end)?)
}

fn flush(mode: &str) -> Parsed<Option<&'static str>> {
    ["end", "next", "adaptive"]
        .into_iter()
        .find(|known| *known == mode)
        .map(Some)
        .ok_or_else(|| format!("{mode}: no such mode"))
}

/// A program, perhaps with a name of its own in the table.
fn named(text: &str) -> Parsed<(String, PathBuf)> {
    let (name, file) = text.split_once('=').unwrap_or(("extension", text));
    // Lambda starts it by its whole path.
    let file = std::fs::canonicalize(file).map_err(|error| format!("{file}: {error}"))?;
    Ok((name.to_owned(), file))
}

/// Everything that is over a bound.
fn run(plan: &Plan) -> Result<Vec<String>> {
    println!(
        "| program | mode | invocations | events | idle, MiB | peak at half | peak | growth | CPU an invocation | in all |\n|---|---|---|---|---|---|---|---|---|---|"
    );
    let soaked: Vec<Soaked> = if plan.together {
        std::thread::scope(|scope| {
            let lives: Vec<_> =
                plan.lives.iter().map(|(name, load)| scope.spawn(|| soak(name, load))).collect();
            lives
                .into_iter()
                .map(|life| life.join().map_err(|_| "a thread panicked")?)
                .collect::<Result<_>>()
        })?
    } else {
        plan.lives.iter().map(|(name, load)| soak(name, load)).collect::<Result<_>>()?
    };
    if let Some(file) = &plan.svg {
        std::fs::write(file, chart::draw(&soaked, PEAK_KIB))?;
    }
    Ok(soaked.iter().flat_map(|each| over(each, plan.bounds)).collect())
}

/// One life, and its line of the table.
fn soak(name: &str, load: &Load) -> Result<Soaked> {
    let mode = load.flush.unwrap_or("managed");
    let life = lambda::live(load).map_err(|error| format!("{name}, {mode}: {error}"))?;
    let mib = |kib: u64| kib as f64 / 1024.0;
    println!(
        "| {name} | {mode} | {} | {} | {:.1} | {:.2} | {:.2} | {:.1} % | {:.0} us | {:.0} s |",
        life.invocations,
        life.events,
        mib(life.curve.idle_kib),
        mib(life.curve.half_kib),
        mib(life.curve.peak_kib),
        life.curve.growth() * 100.0,
        life.cpu.as_secs_f64() * 1e6 / life.invocations.max(1) as f64,
        life.took.as_secs_f64(),
    );
    Ok(Soaked { program: name.to_owned(), mode, life })
}

fn over(soaked: &Soaked, bounds: Bounds) -> Vec<String> {
    let Soaked { program, mode, life } = soaked;
    let mut problems = Vec::new();
    if bounds == Bounds::All && life.curve.peak_kib > PEAK_KIB {
        problems.push(format!(
            "{program}, {mode}: {} KiB resident at the most, the bound is {PEAK_KIB}",
            life.curve.peak_kib
        ));
    }
    if bounds != Bounds::None && life.curve.peak_kib * 100 > life.curve.half_kib * (100 + GROWTH) {
        let Life { curve, .. } = life;
        problems.push(format!(
            "{program}, {mode}: {} KiB at half of the way, {} at the end: it grows",
            curve.half_kib, curve.peak_kib
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Curve;

    fn soaked(half_kib: u64, peak_kib: u64) -> Soaked {
        let curve = Curve { half_kib, peak_kib, ..Curve::new(1000) };
        let life =
            Life { curve, invocations: 2, events: 2, cpu: Duration::ZERO, took: Duration::ZERO };
        Soaked { program: "p".to_owned(), mode: "end", life }
    }

    #[test]
    fn both_bounds_are_held() {
        assert_eq!(over(&soaked(2000, 2100), Bounds::All).len(), 0);
        assert_eq!(over(&soaked(2000, 2101), Bounds::All).len(), 1);
        assert_eq!(over(&soaked(7100, 7200), Bounds::All).len(), 1);
        assert_eq!(over(&soaked(7100, 7200), Bounds::Growth).len(), 0);
        assert_eq!(over(&soaked(2000, 9000), Bounds::All).len(), 2);
        assert_eq!(over(&soaked(2000, 9000), Bounds::None).len(), 0);
    }

    #[test]
    fn the_curve_of_each_life_is_in_the_picture() {
        let svg = chart::draw(&[soaked(2000, 2048), soaked(2000, 3072)], PEAK_KIB);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(
            svg.contains("p end (2.0)") && svg.contains("p end (3.0)") && svg.ends_with("</svg>\n")
        );
    }
}
