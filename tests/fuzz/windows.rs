//! Bodies that are read window by window, held to what they are as a whole. The windows are those
//! of the listener, which are smaller here.

use fastrand::Rng;
use kinesis_telemetry_extension::lambda::intake::Intake;
use kinesis_telemetry_extension::lambda::windows::{Sizes, Windows};

use crate::{ALL, events, lines, marker, mutate, rounds};

/// What a body gives.
struct Given {
    lines: Vec<String>,
    unparsed: u64,
}

impl Given {
    /// As a whole.
    fn by(intake: &mut Intake, body: &[u8]) -> Given {
        let taken = intake.take(body.to_vec(), 0);
        Given { lines: lines(&taken.batch), unparsed: taken.unparsed }
    }

    /// But for the half of each event's id that is the process's own, and its number.
    fn texts(&self) -> Vec<&str> {
        self.lines.iter().filter_map(|line| line.split("\"eventId\"").next()).collect()
    }
}

/// In windows that begin with so many bytes. `has_room` says whether one may grow to so many.
fn in_windows(
    intake: &mut Intake,
    body: &[u8],
    window: usize,
    mut has_room: impl FnMut(usize) -> bool,
) -> Given {
    // One byte more than the body has is no body that is too large.
    let sizes = Sizes { window, whole: 2 * window, body: body.len() + 1 };
    let mut windows = Windows::new(sizes, None);
    let mut given = Given { lines: Vec::new(), unparsed: 0 };
    let (mut bytes, mut at) = (Vec::new(), 0);
    loop {
        let more = body.len().min(at + windows.size() - windows.have());
        bytes.extend_from_slice(&body[at..more]);
        at = more;
        let part = windows.part(bytes.len(), at == body.len());
        let (taken, rest) = intake.take_part(bytes, Vec::new(), 0, part);
        given.lines.extend(lines(&taken.batch));
        given.unparsed += taken.unparsed;
        if rest.bytes.is_empty() && at == body.len() {
            return given;
        }
        windows.go_on(&rest, &mut has_room);
        bytes = rest.bytes;
    }
}

fn finish(intake: &mut Intake) -> Vec<String> {
    let mut found = Vec::new();
    while intake.held_bytes() > 0 {
        found.extend(lines(&intake.finish(0).batch));
    }
    found
}

#[test]
fn windows_change_nothing() {
    rounds(3000, |rng| {
        let events = events(rng);
        let mut body = format!("[{}]", events.join(",")).into_bytes();
        let is_broken = rng.bool();
        if is_broken {
            mutate(rng, &mut body);
        }
        let overlapping = rng.bool();
        let (mut whole, mut parts) = (Intake::new(ALL, overlapping), Intake::new(ALL, overlapping));
        let window = rng.usize(1..2 * body.len() + 300);
        let found = in_windows(&mut parts, &body, window, |_| true);
        let expected = Given::by(&mut whole, &body);
        let story = || format!("in windows of {window}: {}", String::from_utf8_lossy(&body));
        let rest = [finish(&mut parts).len(), finish(&mut whole).len()];
        assert_eq!(rest[0], rest[1], "{}", story());
        if !is_broken {
            assert_eq!(found.texts(), expected.texts(), "{}", story());
            assert_eq!(found.unparsed, expected.unparsed, "{}", story());
            return;
        }
        // Behind damage a window begins anew, with the strict reader: it may tell more apart.
        let found = found.texts();
        for line in expected.texts().iter().filter(|line| is_event(line)) {
            assert!(found.contains(line), "no {line:?} {}", story());
        }
    });
}

fn is_event(line: &str) -> bool {
    !line.contains(r#""type":"unparsed""#)
}

/// Events for which there is no room are given up, and no other ones beside them.
#[test]
fn windows_without_room_give_up_what_does_not_fit_and_nothing_else() {
    let (mut given_up, mut arrived) = (0_u64, 0_u64);
    rounds(3000, |rng| {
        let window = rng.usize(600..2000);
        let (mut all, mut short) = (Vec::new(), Vec::new());
        for n in 0..rng.usize(1..20) {
            match rng.u8(0..4) {
                0 => all.push(without_room(rng, n, 2 * window)),
                _ => {
                    let text = "é\\\"日 ".repeat(rng.usize(0..window / 30));
                    let record = format!(r#""{}{text}""#, marker(n));
                    all.push(event(&record));
                    short.push(event(&record));
                }
            }
        }
        let body = format!("[{}]", all.join(",")).into_bytes();
        let mut intake = Intake::new(ALL, true);
        let mut found = in_windows(&mut intake, &body, window, |_| rng.u8(0..8) == 0);
        found.lines.extend(finish(&mut intake));
        let story = || format!("in windows of {window}: {}", String::from_utf8_lossy(&body));
        let mut rest = found.lines.iter();
        for event in &short {
            let text = event.strip_suffix('}').unwrap();
            assert!(rest.any(|line| line.starts_with(text)), "no {text} {}", story());
        }
        // The others are there as they came, whole or as text.
        let text: String = found.lines.iter().map(|line| record_of(line)).collect();
        for n in 0..all.len() {
            assert!(text.contains(&marker(n)), "no {} {}", marker(n), story());
        }
        for line in &found.lines {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            let is_made_up = event["time"] == "made up" || event["type"] == "made up";
            assert!(!is_made_up, "{line} {}", story());
        }
        given_up += found.unparsed;
        arrived += short.len() as u64;
    });
    println!("{given_up} given up, {arrived} beside them arrived");
    assert!(given_up > 0);
}

fn event(record: &str) -> String {
    format!(r#"{{"time":"2026-11-23T09:15:45.012Z","type":"function","record":{record}}}"#)
}

/// An event that is longer than any window may be, and some of which are broken.
fn without_room(rng: &mut Rng, n: usize, least: usize) -> String {
    let length = least + rng.usize(1..3 * least);
    let text = |part: &str| part.repeat(length / part.len());
    let mark = marker(n);
    match rng.u8(0..6) {
        0 => event(&format!(r#""{mark}{}""#, text("long "))),
        1 => event(&format!(r#"["{mark}",{}1]"#, text(r#"{"type":"made up","record":[1]},"#))),
        2 => event(&format!(r#"["{mark}",{}1]"#, text(r#"{"time":"made up","type":"x"},"#))),
        3 => event(&format!(r#"{{"m":"{mark}{}"#, text("lost "))),
        4 => event(&format!(r#"{{"m":{mark}{}"#, text("broken]"))),
        _ => event(&format!(r#"["{mark}{}"#, text(r#"","made up",""#))),
    }
}

/// What stands in the record of an event, if it is a text.
fn record_of(line: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    value["record"].as_str().map_or_else(|| value["record"].to_string(), str::to_owned)
}

#[test]
fn a_body_in_parts_gives_what_it_gives_as_a_whole() {
    let head = r#"{"time":"2026-11-23T09:15:45.012Z","type":"function","record":"#;
    let all = [
        event(r#"{"requestId":"r1"}"#).replace("function", "platform.start"),
        event(&format!(r#""{}""#, "long 'é' ]},".repeat(60))),
        format!("{head}{{\"m\":\"AAAA}}"),
        format!("{head}BBBB\"}}}}"),
        event(r#"[1,[2,{"a":"]"}]]"#),
        r#"{ "record" : [1,
            2], "type":"function","time":"t" }"#
            .to_owned(),
        "#".to_owned(),
        event(r#"{"requestId":"r1"}"#),
        format!("{head}\"cut and lost}}"),
        event(r#"{"requestId":"r1"}"#).replace("function", "platform.report"),
    ];
    let body = |all: &[String]| format!("[{}]", all.join(",")).into_bytes();
    let all: Vec<String> = all.iter().cycle().take(60).cloned().collect();
    for body in [body(&all), body(&all[..2]), b"[ ]".to_vec(), b"".to_vec()] {
        let expected = Given::by(&mut Intake::new(ALL, false), &body);
        for window in [300, 700, 1000, 1999, 5000, 100_000] {
            let mut intake = Intake::new(ALL, false);
            let mut found = in_windows(&mut intake, &body, window, |_| true);
            found.lines.extend(finish(&mut intake));
            assert_eq!(found.texts(), expected.texts(), "in windows of {window}");
        }
    }
}

#[test]
fn a_record_that_is_held_back_goes_on_in_a_body_of_many_parts() {
    let head = r#"{"time":"2026-11-23T09:15:45.012Z","type":"function","record":"#;
    let (begun, more) = ("A".repeat(5000), "B".repeat(5000));
    let first = format!("[{head}{{\"m\":\"{begun}}}]");
    let next = event(r#""next""#);
    let second = format!("[{head}{more}\"}}}},{}]", vec![next.clone(); 50].join(","));
    for window in [300, 1000, 4000, 6000, 20_000] {
        let mut intake = Intake::new(ALL, false);
        let found = in_windows(&mut intake, first.as_bytes(), window, |_| true);
        assert!(found.lines.is_empty());
        let found = in_windows(&mut intake, second.as_bytes(), window, |_| true);
        assert_eq!((found.lines.len(), intake.held_bytes()), (51, 0), "in windows of {window}");
        assert!(found.lines[0].starts_with(&format!("{head}{{\"m\":\"{begun}{more}\"}}")));
        assert!(found.lines[50].starts_with(next.strip_suffix('}').unwrap()));
    }
}
