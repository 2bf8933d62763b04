//! Instructions, as callgrind counts them. They hardly depend on what else the machine does, unlike times.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use sandbox::{FloodShape, Invocation, Kinesis, LambdaBuilder, ms};

use crate::Result;
use crate::contestant::sandbox;
use crate::process;

/// Valgrind's virtual CPU has no SHA instructions, so the hash is counted in its portable form: some 2,900 instructions for
/// a block of 64 bytes, 15 times what a real CPU needs. It is found by that, as the one function that costs so much, and
/// left out.
const HASH_BLOCK: std::ops::Range<f64> = 1000.0..6000.0;

/// How long a process is given to come to rest, slow as it is now.
const REST: Duration = Duration::from_millis(500);

/// How long a flood is given to arrive, on a machine that does much else.
const ARRIVAL: Duration = Duration::from_secs(240);

/// What a run cost.
struct Cost {
    all: u64,
    /// Of the function that cost most.
    most: u64,
}

/// From the start until all threads rest, the first `/next` being out.
pub(crate) fn start(binary: &Path, valgrind: &Path) -> Result<f64> {
    let kinesis = Kinesis::builder().count_only().start();
    let (cost, _) = counted(
        binary,
        valgrind,
        &kinesis,
        |builder| builder,
        |lambda| {
            std::thread::sleep(REST);
            process::terminate(lambda)?;
            let until = Instant::now() + Duration::from_secs(20);
            while lambda.exit().is_none() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        },
    )?;
    Ok(cost.all as f64)
}

/// Of each event of a flood, the hash left out: the difference between a long and a short one, so that nothing else counts.
pub(crate) fn event(
    binary: &Path,
    valgrind: &Path,
    settings: &[(&str, &str)],
    batches: (usize, usize),
) -> Result<f64> {
    event_with(FloodShape::Plain, 1, binary, valgrind, settings, batches)
}

/// As [`event`], of lines of that shape; of so many runs the cheapest, as how threads meet only ever adds.
pub(crate) fn event_with(
    shape: FloodShape,
    runs: usize,
    binary: &Path,
    valgrind: &Path,
    settings: &[(&str, &str)],
    batches: (usize, usize),
) -> Result<f64> {
    let cheapest = |batches| -> Result<f64> {
        let mut least = f64::INFINITY;
        for _ in 0..runs {
            least = least.min(flood(shape, binary, valgrind, settings, batches)?);
        }
        Ok(least)
    };
    let (short, long) = (cheapest(batches.0)?, cheapest(batches.1)?);
    Ok((long - short) / ((batches.1 - batches.0) * 1000) as f64)
}

fn flood(
    shape: FloodShape,
    binary: &Path,
    valgrind: &Path,
    settings: &[(&str, &str)],
    batches: usize,
) -> Result<f64> {
    let kinesis = Kinesis::builder().count_only().start();
    // Room for all of it: what would be spooled depends on how fast the stream is, and that on the machine.
    let setup = |builder: LambdaBuilder| {
        let builder = builder.setting("FLUSH", "end").setting("QUEUE_BYTES", "268435456");
        settings.iter().fold(builder, |builder, (name, value)| builder.setting(name, value))
    };
    let (cost, bytes) = counted(binary, valgrind, &kinesis, setup, |lambda| {
        let (tell, told) = std::sync::mpsc::channel();
        lambda.invoke(Invocation::new().run(move |lambda| {
            let _ = tell.send(lambda.flood_of(shape, batches, 1000, 300));
        }))?;
        told.recv()??;
        let until = Instant::now() + ARRIVAL;
        while kinesis.counted().events < batches as u64 * 1000 {
            if Instant::now() > until {
                return Err("the flood did not arrive".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        lambda.shutdown("spindown");
        Ok(())
    })?;
    let blocks = bytes as f64 / 64.0;
    let block = cost.most as f64 / blocks;
    if !HASH_BLOCK.contains(&block) {
        return Err(format!("the costliest function takes {block:.0} instructions for each 64 bytes of body: that is no SHA-256").into());
    }
    Ok((cost.all - cost.most) as f64)
}

/// Runs it under callgrind; gives the cost, and the bytes of the bodies that it sent.
fn counted(
    binary: &Path,
    valgrind: &Path,
    kinesis: &Kinesis,
    setup: impl FnOnce(LambdaBuilder) -> LambdaBuilder,
    run: impl FnOnce(&sandbox::Lambda) -> Result<()>,
) -> Result<(Cost, u64)> {
    let folder = tempfile::tempdir()?;
    let output = folder.path().join("callgrind.out");
    let option = format!("--callgrind-out-file={}", output.display());
    let valgrind = valgrind.to_string_lossy();
    let runner = [valgrind.as_ref(), "--tool=callgrind", option.as_str(), "--quiet"];
    let lambda = setup(sandbox(binary, kinesis).runner(&runner).without_freeze())
        .timeout(ms(300_000))
        .start();
    lambda.init()?;
    lambda.drain(ms(5000));
    run(&lambda)?;
    let bytes = kinesis.counted().bytes;
    let text = std::fs::read_to_string(&output)
        .map_err(|error| format!("callgrind wrote nothing: {error}"))?;
    Ok((cost(&text), bytes))
}

/// Reads callgrind's own format: `fn=(id) name`, then lines of a position and a cost; the line behind `calls=` is somebody else's cost.
fn cost(text: &str) -> Cost {
    let mut functions: HashMap<&str, u64> = HashMap::new();
    let (mut function, mut foreign) = ("", false);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            function = name.split_once(')').map_or(name, |(id, _)| id);
        } else if line.starts_with("calls=") {
            foreign = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let own =
                line.split(' ').nth(1).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
            if !std::mem::take(&mut foreign) {
                *functions.entry(function).or_default() += own;
            }
        }
    }
    Cost { all: functions.values().sum(), most: functions.values().copied().max().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrinds_format_is_read() {
        let text = "events: Ir\n\nob=(1) /x\nfl=(1) ???\nfn=(1) main\n0 10\ncfn=(2) hash\ncalls=3 0\n0 900\n+4 5\n\nfn=(2)\n0 900\n\ntotals: 915\n";
        let cost = cost(text);
        assert_eq!((cost.all, cost.most), (915, 900));
    }
}
