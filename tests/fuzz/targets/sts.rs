//! Answers of STS to AssumeRole, byte for byte; behind the separator what Kinesis then answers.
#![no_main]

use libfuzzer_sys::fuzz_target;

const ROLE: (&str, &str) = ("KINESIS_TELEMETRY_ROLE_ARN", "arn:aws:iam::123456789012:role/writer");

fuzz_target!(|data: &[u8]| fuzz_targets::put(data, &[ROLE]));
