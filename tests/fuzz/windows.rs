//! Bodies that are read window by window, held to what they are as a whole. The windows are those
//! of the listener, which are smaller here.

use fastrand::Rng;
use kinesis_telemetry_extension::lambda::intake::Intake;
use kinesis_telemetry_extension::lambda::windows::{READS_BESIDE, READS_PER_BYTE, Sizes, Windows};

use crate::{ALL, events, lines, marker, mutate, rounds};

/// What a body gives.
pub(crate) struct Given {
    pub(crate) lines: Vec<String>,
    pub(crate) unparsed: u64,
}

impl Given {
    /// As a whole.
    pub(crate) fn by(intake: &mut Intake, body: &[u8]) -> Given {
        let taken = intake.take(body.to_vec(), 0);
        Given { lines: lines(&taken.batch), unparsed: taken.unparsed }
    }

    /// But for the half of each event's id that is the process's own, and its number.
    fn texts(&self) -> Vec<&str> {
        self.lines.iter().filter_map(|line| line.split("\"eventId\"").next()).collect()
    }
}

/// A body that is read in windows that begin with so many bytes.
struct Reading<'b> {
    body: &'b [u8],
    windows: Windows,
    /// Those at hand, and how many were read.
    bytes: Vec<u8>,
    at: usize,
    /// Bytes that were read behind damage so far.
    reads: usize,
    is_over: bool,
}

impl<'b> Reading<'b> {
    fn new(body: &'b [u8], window: usize) -> Reading<'b> {
        // One byte more than the body has is no body that is too large.
        let sizes = Sizes { window, small: window, whole: 2 * window, body: body.len() + 1 };
        let windows = Windows::new(sizes, None);
        Reading { body, windows, bytes: Vec::new(), at: 0, reads: 0, is_over: false }
    }

    /// What the next window gives. `has_room` says whether one may grow to so many bytes.
    fn next(&mut self, intake: &mut Intake, has_room: impl FnOnce(usize) -> bool) -> Given {
        let more = self.body.len().min(self.at + self.windows.size() - self.windows.have());
        self.bytes.extend_from_slice(&self.body[self.at..more]);
        self.at = more;
        let is_last = self.at == self.body.len();
        let part = self.windows.part(self.bytes.len(), is_last);
        let bytes = std::mem::take(&mut self.bytes);
        let (taken, rest) = intake.take_part(bytes, Vec::new(), 0, part);
        self.is_over = rest.bytes.is_empty() && is_last;
        self.reads += rest.reads;
        self.windows.go_on(&rest, has_room);
        self.bytes = rest.bytes;
        Given { lines: lines(&taken.batch), unparsed: taken.unparsed }
    }
}

/// All that a body gives that is read in such windows.
pub(crate) fn in_windows(
    intake: &mut Intake,
    body: &[u8],
    window: usize,
    mut has_room: impl FnMut(usize) -> bool,
) -> Given {
    let mut reading = Reading::new(body, window);
    let mut all = Given { lines: Vec::new(), unparsed: 0 };
    while !reading.is_over {
        let given = reading.next(intake, &mut has_room);
        all.lines.extend(given.lines);
        all.unparsed += given.unparsed;
    }
    all
}

/// Each part of a body could read all of it several times anew: 8 MB took ten seconds, and no other
/// POST was taken meanwhile.
#[test]
fn a_body_takes_time_for_its_length_however_many_parts_it_has() {
    for unclosed in [r#"{"a":[0"#, &event("[1").replace("[1}", "[1"), "[[[#"] {
        let body = format!("[{}]", format!("{unclosed},{},", event("1")).repeat(6000));
        for has_room in [false, true] {
            let mut reading = Reading::new(body.as_bytes(), body.len() / 4);
            let (mut intake, mut parts) = (Intake::new(ALL, false), 0);
            while !reading.is_over {
                reading.next(&mut intake, |_| has_room);
                parts += 1;
            }
            // Where an element ends is looked for once more for each.
            let most = (READS_PER_BYTE + 4) * body.len() + READS_BESIDE;
            assert!(parts > 3 && reading.reads <= most, "{} in {parts} parts", reading.reads);
        }
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
    rounds(1000, |rng| {
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
        let text: String = found.lines.iter().map(|line| as_it_came(line)).collect();
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

/// Lambda posts one body after the other, but a neighbour may post meanwhile. Of a body that is not
/// read whole Lambda keeps what it has; what came before it is not its own.
#[test]
fn bodies_that_are_read_at_the_same_time_lose_nothing() {
    rounds(3000, |rng| {
        let mut bodies = Vec::new();
        for _ in 0..rng.usize(2..4) {
            let mut body = format!("[{}]", events(rng).join(",")).into_bytes();
            if rng.bool() {
                mutate(rng, &mut body);
            }
            if rng.bool() {
                // Cut, as if the next one was to go on with it.
                body.truncate(rng.usize(0..=body.len()));
                body.extend_from_slice(b"}]");
            }
            bodies.push(body);
        }
        let mut intake = Intake::new(ALL, rng.bool());
        let mut readings = Vec::new();
        for body in &bodies {
            readings.push(Reading::new(body, rng.usize(1..body.len() + 300)));
        }
        let (mut found, mut whole) = (Vec::new(), Vec::new());
        while !readings.is_empty() {
            let n = rng.usize(0..readings.len());
            found.extend(readings[n].next(&mut intake, |_| true).lines);
            if readings[n].is_over {
                whole.push(readings.swap_remove(n).body);
            } else if rng.u8(0..20) == 0 {
                // Its connection is cut.
                readings.swap_remove(n);
            }
        }
        found.extend(finish(&mut intake));
        let text: String = found.iter().map(|line| as_it_came(line)).collect();
        let story = || bodies.iter().map(|body| String::from_utf8_lossy(body)).collect::<Vec<_>>();
        for body in whole {
            for at in String::from_utf8_lossy(body).match_indices("marker").map(|(at, _)| at) {
                let mark = &String::from_utf8_lossy(body)[at..];
                let mark = mark.get(..13).unwrap_or(mark);
                // One that was cut itself is the last.
                assert!(!mark.ends_with('x') || text.contains(mark), "no {mark} {:#?}", story());
            }
        }
    });
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

/// An event as it came: that which became a text is what stands in it.
fn as_it_came(line: &str) -> String {
    if is_event(line) {
        return line.to_owned();
    }
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    event["record"].as_str().unwrap().to_owned()
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
