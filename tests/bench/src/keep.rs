//! What `KEEP` and `SUMMARY` add to each event of a flood, in instructions.
//!
//! The flood is of one invocation that is kept, which costs most: its events wait, and are sent.

use std::path::Path;

use sandbox::FloodShape;

use crate::Result;
use crate::callgrind;
use crate::counts::valgrind;

/// Batches of the short and of the long flood.
const BATCHES: (usize, usize) = (5, 20);

/// Of which the cheapest counts.
const RUNS: usize = 2;

/// As nobody's and as Node.js's runtime writes them.
const LINES: [(&str, FloodShape); 2] =
    [("without a level", FloodShape::Plain), ("of Node.js", FloodShape::NodeJs)];

/// Settings, and by how much they may cost more than the defaults.
const ROWS: [(&[(&str, &str)], f64); 4] = [
    (&[("KEEP", "100%")], 1.05),
    (&[("KEEP", "100%"), ("SUMMARY", "invocation")], 1.05),
    (&[("KEEP", "1%")], 1.15),
    (&[("KEEP", "1%"), ("SUMMARY", "invocation")], 1.15),
];

/// Prints a table; whether all bounds hold. `quick`: one line of it, and without `SUMMARY`, in
/// seconds.
pub(crate) fn run(binary: &Path, quick: bool) -> Result<bool> {
    let valgrind = valgrind()?;
    let rows: Vec<_> =
        ROWS.into_iter().filter(|(settings, _)| !quick || settings.len() == 1).collect();
    let heads = rows.iter().map(|(settings, _)| match settings {
        [(name, value)] => format!(" `{name}={value}` |"),
        _ => " with `SUMMARY` |".to_owned(),
    });
    println!("| `ENVELOPE`, lines | defaults |{}", heads.collect::<String>());
    println!("|---|---|{}", "---|".repeat(rows.len()));
    let mut good = true;
    for envelope in ["slim", "full"] {
        for (name, shape) in LINES {
            let count = |settings: &[(&str, &str)]| {
                let settings = [&[("ENVELOPE", envelope)], settings].concat();
                callgrind::event_with(shape, RUNS, binary, &valgrind, &settings, BATCHES)
            };
            let defaults = count(&[])?;
            let mut row = format!("| `{envelope}`, {name} | {defaults:.0} |");
            for (settings, most) in &rows {
                let ratio = count(settings)? / defaults;
                good &= ratio <= *most;
                let verdict = if ratio <= *most { "" } else { ", over its bound" };
                row.push_str(&format!(" {:+.1} %{verdict} |", (ratio - 1.0) * 100.0));
            }
            println!("{row}");
            if quick {
                return Ok(good);
            }
        }
    }
    Ok(good)
}
