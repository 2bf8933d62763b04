//! Answers of Kinesis, byte for byte: the head, the framing and the body are the input's.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz_targets::put(data, &[]));
