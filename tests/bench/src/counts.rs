//! The recorded instruction counts, and the check against them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use sandbox::FloodShape;

use crate::Result;
use crate::arguments::Counting;
use crate::callgrind;
use crate::contestant::{Contestant, Kind};
use crate::measure::Results;
use crate::scenario::progress;

/// By how much a count may grow over the record.
const GROWTH: f64 = 1.25;

/// Batches of the short and of the long flood.
const BATCHES: (usize, usize) = (5, 20);

const SLIM: &[(&str, &str)] = &[("ENVELOPE", "slim")];
const FULL: &[(&str, &str)] = &[("ENVELOPE", "full")];
const CBOR: (&str, &str) = ("WIRE", "cbor");

const HEAD: &str = "\
# Instructions, as callgrind counts them, of the layer's program for x86_64: from its start until all threads rest with the
# first /next out, and for each event of a flood of 300-byte logs, SHA-256 left out (valgrind has no SHA instructions):
# as Lambda sends them; with their keys in another order; with escapes in each line; with an escape in each key; as CBOR.
# tests/bench/check-counts fails when one has grown by more than a quarter; `tests/bench/check-counts --record` writes this file.
";

/// Records the counts, or checks them; whether they hold.
pub(crate) fn run(counting: &Counting) -> Result<bool> {
    let counts = count(&counting.binary)?;
    if !counting.check {
        let mut text = HEAD.to_owned();
        for (name, count) in &counts {
            let _ = writeln!(text, "{name} {count:.0}");
        }
        std::fs::write(&counting.record, &text)?;
        print!("{text}");
        return Ok(true);
    }
    let record = std::fs::read_to_string(&counting.record)?;
    let mut good = true;
    for (name, count) in &counts {
        let known =
            record.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        let known =
            known.ok_or_else(|| format!("{} does not know {name}", counting.record.display()))?;
        let ratio = count / known;
        let verdict = match ratio {
            _ if ratio > GROWTH => "MORE THAN A QUARTER OVER THE RECORD",
            _ if ratio < 1.0 / GROWTH => {
                "less than the record: worth recording anew, so that it stays so"
            }
            _ => "as recorded",
        };
        println!("{name:<13} {count:>9.0} instructions, {ratio:.2} of the record: {verdict}");
        good &= ratio <= GROWTH;
    }
    Ok(good)
}

fn count(binary: &Path) -> Result<Vec<(&'static str, f64)>> {
    let valgrind = valgrind()?;
    let shaped = |shape| callgrind::event_with(shape, 1, binary, &valgrind, SLIM, BATCHES);
    Ok(vec![
        ("start", callgrind::start(binary, &valgrind)?),
        ("event-slim", callgrind::event(binary, &valgrind, SLIM, BATCHES)?),
        ("event-full", callgrind::event(binary, &valgrind, FULL, BATCHES)?),
        ("order-slim", shaped(FloodShape::OtherOrder)?),
        ("escapes-slim", shaped(FloodShape::Escapes)?),
        ("keys-slim", shaped(FloodShape::EscapedKeys)?),
        ("cbor-slim", callgrind::event(binary, &valgrind, &[SLIM[0], CBOR], BATCHES)?),
        ("cbor-full", callgrind::event(binary, &valgrind, &[FULL[0], CBOR], BATCHES)?),
    ])
}

/// Adds the counts of a contestant to its other results.
pub(crate) fn add(
    contestant: &Contestant,
    valgrind: &Path,
    quick: bool,
    results: &mut Results,
) -> Result<()> {
    progress(&format!("instructions, {}", contestant.title));
    let batches = if quick { BATCHES } else { (20, 60) };
    results.add("start-instructions", contestant, callgrind::start(&contestant.file, valgrind)?);
    results.add(
        "flood-instructions",
        contestant,
        callgrind::event(&contestant.file, valgrind, SLIM, batches)?,
    );
    if contestant.kind == Kind::Extension {
        results.add(
            "flood-instructions-full",
            contestant,
            callgrind::event(&contestant.file, valgrind, FULL, batches)?,
        );
    }
    progress("");
    Ok(())
}

/// The one on the PATH.
pub(crate) fn valgrind() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut files = std::env::split_paths(&path).map(|folder| folder.join("valgrind"));
    Ok(files.find(|file| file.is_file()).ok_or("valgrind is not on the PATH")?)
}
