//! Bodies of telemetry, one after the other: cut, torn, repeated. Whatever comes in, each event
//! becomes one line of JSON, and at the end nothing is held back.
#![no_main]

use fuzz_targets::{ALL, SEPARATOR, lines};
use kinesis_telemetry_extension::lambda::intake::{Behind, Intake, Part};
use libfuzzer_sys::fuzz_target;

/// The length from which a piece counts as one of Lambda's; inputs are short.
const MIN_CUT_BYTES: usize = 48;

fuzz_target!(|data: &[u8]| {
    let Some((options, bodies)) = data.split_first() else { return };
    let mut intake = Intake::new(ALL, options & 1 == 1);
    if options & 2 == 0 {
        intake = intake.with_min_cut_bytes(MIN_CUT_BYTES);
    }
    for body in bodies.split(|byte| *byte == SEPARATOR) {
        if options & 4 == 0 {
            let _ = lines(&intake.take(body.to_vec(), 0).batch);
            continue;
        }
        // In two windows, without room for more.
        let (window, behind) = body.split_at(body.len() / 2);
        let mut part = Part { is_first: true, behind: Behind::NoRoom };
        let (taken, rest) = intake.take_part(window.to_vec(), Vec::new(), 0, part);
        let _ = lines(&taken.batch);
        let rest = [rest.bytes.as_slice(), behind].concat();
        part = Part { is_first: false, behind: Behind::NextBody };
        let _ = lines(&intake.take_part(rest, Vec::new(), 0, part).0.batch);
    }
    let _ = lines(&intake.finish(0).batch);
    assert_eq!(intake.held_bytes(), 0);
});
