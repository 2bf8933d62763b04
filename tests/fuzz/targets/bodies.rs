//! Bodies of telemetry, one after the other: cut, torn, repeated. Whatever comes in, each event
//! becomes one line of JSON, and at the end nothing is held back.
#![no_main]

use fuzz_targets::{ALL, SEPARATOR, lines};
use kinesis_telemetry_extension::lambda::intake::Intake;
use kinesis_telemetry_extension::lambda::windows::{Sizes, Windows};
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
        // In windows that may grow while there is room.
        let window = 1 + body.len() / (2 + usize::from(options >> 4));
        let sizes = Sizes { window, small: window, whole: 2 * window, body: body.len() };
        let (mut windows, mut begun, mut at) = (Windows::new(sizes, None), Vec::new(), 0);
        loop {
            let more = body.len().min(at + windows.size() - windows.have());
            begun.extend_from_slice(&body[at..more]);
            at = more;
            let part = windows.part(begun.len(), at == body.len());
            let (taken, rest) = intake.take_part(begun, Vec::new(), 0, part);
            let _ = lines(&taken.batch);
            if rest.bytes.is_empty() && at == body.len() {
                break;
            }
            windows.go_on(&rest, |_| options & 8 == 0);
            begun = rest.bytes;
        }
    }
    // What was held back may be given up in parts.
    while intake.held_bytes() > 0 {
        let _ = lines(&intake.finish(0).batch);
    }
});
