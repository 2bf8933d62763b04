//! Fuzz targets for what comes from outside: telemetry bodies, their keys, Lambda's cut records,
//! Kinesis's answers; and properties of packing.
//!
//! Each target is a loop over mutated samples with a seed that is printed, so that a failure can be
//! run again: `FUZZ_SEED=… cargo test --test fuzz`. `FUZZ_ROUNDS` sets how many rounds; the default
//! takes a few seconds.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "test code: a broken assumption should stop the test where it happens"
)]

mod cuts;
mod keep;
mod keys;
mod packing;
mod windows;

use std::sync::Arc;

use fastrand::Rng;
use http::HeaderMap;
use kinesis_telemetry_extension::event::{Batch, Event};
use kinesis_telemetry_extension::kinesis::error::read_error;
use kinesis_telemetry_extension::kinesis::line::{Envelope, LineWriter};
use kinesis_telemetry_extension::kinesis::response::read_outcomes;
use kinesis_telemetry_extension::lambda::filter::Types;
use kinesis_telemetry_extension::lambda::intake::Intake;
use kinesis_telemetry_extension::sandbox::Sandbox;

const ALL: Types = Types { platform: true, function: true, extension: true };

/// Runs `target` with generators that differ from round to round.
fn rounds(default: u64, mut target: impl FnMut(&mut Rng)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("FUZZ_SEED={seed}");
    let mut seeds = Rng::with_seed(seed);
    for _ in 0..number("FUZZ_ROUNDS").unwrap_or(default) {
        target(&mut seeds.fork());
    }
}

/// A text that is found again wherever it ends up, and that mutations leave alone.
fn marker(n: usize) -> String {
    format!("marker{n:06}x")
}

/// Telemetry as Lambda posts it, with a marker in each record.
fn events(rng: &mut Rng) -> Vec<String> {
    let count = rng.usize(0..12);
    let event = |n: usize| {
        let mark = marker(n);
        let filler = "é\\\"日 ".repeat(rng.usize(0..40));
        let (kind, record) = match rng.u8(0..9) {
            0 => (
                "platform.start",
                format!(r#"{{"requestId":"{mark}","functionArn":"arn:aws:lambda:x"}}"#),
            ),
            1 => {
                ("platform.runtimeDone", format!(r#"{{"requestId":"{mark}","status":"success"}}"#))
            }
            2 => (
                "platform.report",
                format!(r#"{{"requestId":"{mark}","tracing":{{"value":"Root=1-2;Parent=3"}}}}"#),
            ),
            3 => (
                "function",
                format!(r#"{{"level":"INFO","requestId":"r","message":"{mark}{filler}"}}"#),
            ),
            4 => ("function", format!(r#"[[["{mark}",{filler:?}]],null,1e400]"#)),
            5 => ("extension", format!(r#""{mark} \ud800 {filler}""#)),
            6 => (
                "platform.logsDropped",
                format!(r#"{{"droppedRecords":1,"droppedBytes":2,"reason":"{mark}"}}"#),
            ),
            7 => ("novel", format!(r#"{{"time":"x","type":"y","record":"{mark}"}}"#)),
            _ => ("function", format!(r#""{mark}{filler}""#)),
        };
        format!(r#"{{"time":"2026-11-23T09:15:45.012Z","type":"{kind}","record":{record}}}"#)
    };
    (0..count).map(event).collect()
}

/// Places in `bytes` that are not inside a marker.
fn outside_markers(bytes: &[u8]) -> Vec<usize> {
    let starts = bytes.windows(6).enumerate().filter(|(_, w)| *w == b"marker").map(|(at, _)| at);
    let mut free = vec![true; bytes.len()];
    for start in starts {
        free[start..(start + 13).min(bytes.len())].fill(false);
    }
    (0..bytes.len()).filter(|at| free[*at]).collect()
}

/// Breaks a body in some of the ways in which bodies are broken.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    const TOKENS: [&str; 12] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        "\"",
        "\\",
        "\n",
        "{\"time\":\"",
        "},{\"time\":\"t\",\"type\":\"function\",\"record\":",
        "\u{0}",
        "null",
    ];
    for _ in 0..rng.usize(1..6) {
        let places = outside_markers(bytes);
        let Some(&at) = rng.choice(&places) else { return };
        match rng.u8(0..4) {
            0 => bytes[at] = rng.u8(..),
            1 => drop(bytes.splice(at..at, rng.choice(TOKENS).unwrap().bytes())),
            2 => drop(bytes.remove(at)),
            _ => bytes[at] = b"{}[]\",:\\\xff\xc3"[rng.usize(0..10)],
        }
    }
}

/// The lines that a batch becomes, each checked to be one line of JSON.
fn lines(batch: &Batch) -> Vec<String> {
    let mut writer = LineWriter::new(Envelope::Full, Arc::new(Sandbox::default()));
    let line = |event| {
        let mut out = Vec::new();
        writer.line(event, batch.bytes(), &mut out);
        let line = String::from_utf8(out).unwrap();
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line:?}");
        serde_json::from_str::<&serde_json::value::RawValue>(&line)
            .unwrap_or_else(|error| panic!("{error}: {line:?}"));
        line
    };
    batch.remaining().iter().map(line).collect()
}

#[test]
fn whole_bodies_come_out_whole() {
    rounds(2000, |rng| {
        let events = events(rng);
        let separator = *rng.choice([",", " , ", ",\n"].iter()).unwrap();
        let taken = Intake::new(ALL, rng.bool())
            .take(format!("[{}]", events.join(separator)).into_bytes(), 0);
        let lines = lines(&taken.batch);
        assert_eq!((lines.len(), taken.unparsed), (events.len(), 0));
        for (line, event) in lines.iter().zip(&events) {
            assert!(line.starts_with(event.strip_suffix('}').unwrap()), "{line} is not {event}");
        }
    });
}

#[test]
fn broken_bodies_lose_nothing() {
    rounds(10_000, |rng| {
        let mut intake = Intake::new(ALL, rng.bool());
        let mut expected = 0;
        let mut found = String::new();
        for _ in 0..rng.usize(1..4) {
            let events = events(rng);
            let mut body = format!("[{}]", events.join(",")).into_bytes();
            mutate(rng, &mut body);
            expected += body.windows(6).filter(|w| *w == b"marker").count();
            found += &lines(&intake.take(body, 0).batch).concat();
        }
        found += &lines(&intake.finish(0).batch).concat();
        // A request id stands in the record and once more as the envelope's, and a log names its
        // invocation: at least as often as sent.
        assert!(
            found.matches("marker").count() >= expected,
            "of {expected} {} in {found}",
            found.matches("marker").count()
        );
    });
}

/// A body with a control character between its tokens is looked at more closely.
#[test]
fn a_tab_between_tokens_changes_nothing() {
    rounds(10_000, |rng| {
        let mut body = format!("[{}]", events(rng).join(",")).into_bytes();
        if rng.bool() {
            mutate(rng, &mut body);
        }
        let Some(rest) = body.strip_prefix(b"[") else { return };
        let with_tab = [b"[\t", rest].concat();
        let read = |body: Vec<u8>| {
            let mut intake = Intake::new(ALL, false);
            let taken = intake.take(body, 0);
            let events = taken.batch.remaining().iter();
            let parts = |event: &Event| {
                let [text, id] = [event.text, event.request_id]
                    .map(|span| span.of(taken.batch.bytes()).to_vec());
                (
                    String::from_utf8(text).unwrap(),
                    String::from_utf8(id).unwrap(),
                    event.cold_start,
                    event.number,
                )
            };
            (
                events.map(parts).collect::<Vec<_>>(),
                taken.signals,
                lines(&intake.finish(0).batch).len(),
            )
        };
        assert_eq!(read(body.clone()), read(with_tab), "{}", String::from_utf8_lossy(&body));
    });
}

#[test]
fn answers_of_any_kind_are_read() {
    const SAMPLES: [&str; 6] = [
        r#"{"FailedRecordCount":1,"Records":[{"SequenceNumber":"1","ShardId":"s"},{"ErrorCode":"InternalFailure","ErrorMessage":"m"}]}"#,
        r#"{"Records":[{"SequenceNumber":"1","ErrorCode":null},{"SequenceNumber":"2"}],"EncryptionType":"KMS"}"#,
        r#"{"__type":"com.amazon.coral.service#ExpiredTokenException","message":"m"}"#,
        r#"{"__type":"AccessDeniedException","Message":"User: x"}"#,
        "<html><body>503</body></html>",
        "",
    ];
    rounds(20_000, |rng| {
        let mut body = rng.choice(SAMPLES).unwrap().as_bytes().to_vec();
        for _ in 0..rng.usize(0..5) {
            if !body.is_empty() {
                let at = rng.usize(0..body.len());
                body[at] = rng.u8(..);
            }
        }
        if let Ok(outcomes) = read_outcomes(&body, 2) {
            assert_eq!(outcomes.len(), 2);
        }
        let mut headers = HeaderMap::new();
        let value: Vec<u8> = (0..rng.usize(0..30)).map(|_| rng.u8(32..127)).collect();
        headers.insert("x-amzn-errortype", http::HeaderValue::from_bytes(&value).unwrap());
        let failure = read_error(rng.u16(300..600), &headers, &body);
        assert!(
            !failure.code.is_empty()
                && failure.code.len() <= 64
                && failure.code.chars().all(|c| c.is_ascii_graphic())
        );
    });
}
