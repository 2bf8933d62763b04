//! Random lives through the choice of invocations: bodies split anywhere, doubled signals, long and large invocations, ends that do not come,
//! second tries under the same id, gaps. Each event is shipped or thinned out, once; order and numbers hold; an invocation is shipped whole or
//! not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use kinesis_telemetry_extension::lambda::chooser::{Chooser, Now};
use kinesis_telemetry_extension::lambda::filter::{Filter, Level};
use kinesis_telemetry_extension::lambda::intake::Intake;
use kinesis_telemetry_extension::lambda::keep::Settings;
use kinesis_telemetry_extension::lambda::observed::Step;

use crate::{ALL, rounds};

/// What is known of the events of one invocation, by their marks. Lambda may try again under the same id.
#[derive(Default)]
struct Expected {
    marks: BTreeSet<String>,
    must_ship: bool,
}

struct Life {
    intake: Intake,
    chooser: Chooser<u8>,
    /// By the invocation's number.
    expected: BTreeMap<usize, Expected>,
    /// Marks of events without an invocation.
    nobodys: BTreeSet<String>,
    shipped: Vec<String>,
    summaries: usize,
    thinned: u64,
    number: u64,
    count: usize,
    /// The last request id.
    id: String,
    awake: Duration,
}

impl Life {
    fn new(settings: Settings, overlapping: bool) -> Life {
        Life {
            intake: Intake::new(Filter::from(ALL), overlapping).observing(true),
            chooser: Chooser::new(settings, overlapping),
            expected: BTreeMap::new(),
            nobodys: BTreeSet::new(),
            shipped: Vec::new(),
            summaries: 0,
            thinned: 0,
            number: 0,
            count: 0,
            id: String::new(),
            awake: Duration::ZERO,
        }
    }

    /// An event with a mark, which says whose it is.
    fn event(&mut self, of: Option<usize>, kind: &str, fields: &str) -> String {
        self.count += 1;
        let mark = format!("mark{:06}x", self.count);
        let marks = match of {
            Some(of) => &mut self.expected.entry(of).or_default().marks,
            None => &mut self.nobodys,
        };
        marks.insert(mark.clone());
        let (kind, is_text) = if kind == "json" { ("function", false) } else { (kind, true) };
        let record = match kind {
            "function" if is_text => format!("\"{fields}{mark}\""),
            _ => format!("{{{fields}\"mark\":\"{mark}\"}}"),
        };
        let (minutes, ms) = (self.count / 60_000, self.count % 60_000);
        let time = format!("2026-11-23T09:{minutes:02}:{:02}.{:03}Z", ms / 1000, ms % 1000);
        format!(r#"{{"time":"{time}","type":"{kind}","record":{record}}}"#)
    }

    fn post(&mut self, events: &[String]) {
        let body = format!("[{}]", events.join(","));
        let taken = self.intake.take(body.into_bytes(), 0);
        let counts = taken.observed.steps.iter().map(|step| match step {
            Step::Run(run) => run.events,
            Step::Milestone(_) | Step::Exception { .. } | Step::Gap => 0,
        });
        assert_eq!(counts.sum::<u32>() as usize, taken.batch.remaining().len());
        let now = Now { wall: 0, awake: self.awake };
        self.chooser.take(taken.batch, taken.observed, now, 1);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some((batch, _)) = self.chooser.next_ready() {
            for event in batch.remaining() {
                self.number += 1;
                assert_eq!(event.number, self.number, "a gap");
                let text = String::from_utf8_lossy(event.text.of(batch.bytes())).into_owned();
                let value: serde_json::Value = serde_json::from_str(&format!("{text}}}")).unwrap();
                if value["type"] == "kinesis-telemetry.invocation" {
                    self.summaries += 1;
                } else {
                    let at = text.find("mark0").unwrap();
                    self.shipped.push(text[at..at + 11].to_owned());
                }
            }
        }
        self.thinned += self.chooser.take_thinned();
    }
}

fn settings(rng: &mut Rng) -> Settings {
    Settings {
        threshold: [0, 1 << 31, 1 << 32][rng.usize(..3)],
        slow: rng.bool().then(|| Duration::from_millis(500)),
        level: rng.bool().then_some(Level::Error),
        summary: rng.bool(),
        max_age: Duration::from_secs(10),
        max_bytes: [2_000, 1 << 20][rng.usize(..2)],
    }
}

/// Now and then, Lambda says that it lost something.
fn gap(rng: &mut Rng, life: &mut Life) -> Vec<String> {
    let is_lost = rng.u8(..20) == 0;
    is_lost.then(|| life.event(None, "platform.logsDropped", "")).into_iter().collect()
}

/// The events of one invocation, in Lambda's order.
fn invocation(rng: &mut Rng, life: &mut Life, settings: &Settings, n: usize) -> Vec<String> {
    // Now and then a second or a third try.
    if n == 0 || rng.u8(..6) > 0 {
        life.id = format!("request-{n}");
    }
    let own = format!("\"requestId\":\"{}\",", life.id);
    let (failed, loud, slow) = (rng.u8(..6) == 0, rng.u8(..6) == 0, rng.u8(..6) == 0);
    let mut events = vec![life.event(Some(n), "platform.start", &own)];
    for _ in 0..rng.usize(..6) {
        let level = if loud { "[ERROR] " } else { "[INFO] " };
        events.push(life.event(Some(n), "function", level));
        if rng.u8(..8) == 0 {
            events.push(life.event(None, "platform.extension", "\"name\":\"x\","));
        }
    }
    let has_logs = events.len() > 1 && loud;
    let gap_inside = gap(rng, life);
    let is_cut = !gap_inside.is_empty();
    events.extend(gap_inside);
    let end_is_lost = rng.u8(..20) == 0;
    let status = if failed { "error" } else { "success" };
    let ms = if slow { "900.25" } else { "7.5" };
    let end = format!("{own}\"status\":\"{status}\",\"metrics\":{{\"durationMs\":{ms}}},");
    let expected = life.expected.get_mut(&n).unwrap();
    expected.must_ship = failed
        || end_is_lost
        || is_cut
        || n == 0
        || slow && settings.slow.is_some()
        || has_logs && settings.level.is_some()
        || settings.threshold == 1 << 32;
    if end_is_lost {
        return events;
    }
    events.push(life.event(Some(n), "platform.runtimeDone", &end));
    if rng.u8(..10) == 0 {
        events.push(life.event(Some(n), "platform.runtimeDone", &end));
    }
    if rng.u8(..10) > 0 {
        events.push(life.event(Some(n), "platform.report", &end));
    }
    events.extend(gap(rng, life));
    events
}

#[test]
fn invocations_are_shipped_whole_or_thinned_out_whole() {
    rounds(500, |rng| {
        let settings = settings(rng);
        let mut life = Life::new(settings, false);
        let count = rng.usize(1..100);
        let mut waiting: Vec<String> = Vec::new();
        for n in 0..count {
            let events = invocation(rng, &mut life, &settings, n);
            waiting.extend(events);
            // Posts end anywhere; some hold several invocations.
            while waiting.len() > rng.usize(..30) {
                let post: Vec<String> = waiting.drain(..rng.usize(1..=waiting.len())).collect();
                life.post(&post);
                if rng.u8(..20) == 0 {
                    life.awake += Duration::from_secs(rng.u64(..8));
                    life.chooser.tick(life.awake);
                    life.drain();
                }
            }
        }
        life.post(&waiting);
        life.chooser.finish(0);
        life.drain();
        check(&life, &settings, count);
    });
}

/// The events of one invocation among others: its logs say whose they are.
fn own_events(
    rng: &mut Rng,
    life: &mut Life,
    settings: &Settings,
    n: usize,
    id: &str,
) -> Vec<String> {
    let own = format!("\"requestId\":\"{id}\",");
    let (failed, loud) = (rng.u8(..6) == 0, rng.u8(..6) == 0);
    let mut events = vec![life.event(Some(n), "platform.start", &own)];
    let logs = rng.usize(..6);
    for _ in 0..logs {
        let level = if loud { "ERROR" } else { "INFO" };
        let message = "x".repeat([1, 1, 1, 3_000][rng.usize(..4)]);
        let fields = format!("{own}\"level\":\"{level}\",\"message\":\"{message}\",");
        events.push(life.event(Some(n), "json", &fields));
    }
    let status = if failed { "error" } else { "success" };
    let end = format!("{own}\"status\":\"{status}\",\"metrics\":{{\"durationMs\":7.5}},");
    let is_loud = loud && logs > 0 && settings.level.is_some();
    let must_ship = failed || is_loud || settings.threshold == 1 << 32;
    life.expected.get_mut(&n).unwrap().must_ship = must_ship;
    events.push(life.event(Some(n), "platform.runtimeDone", &end));
    events.push(life.event(Some(n), "platform.report", &end));
    events
}

#[test]
fn invocations_side_by_side_are_whole_or_thinned_out_within_the_bound() {
    rounds(300, |rng| {
        let settings = settings(rng);
        let mut life = Life::new(settings, true);
        let (count, most) = (rng.usize(1..200), rng.usize(1..40));
        let mut running: Vec<(String, std::vec::IntoIter<String>)> = Vec::new();
        let mut over: Vec<String> = Vec::new();
        let (mut begun, mut post) = (0, Vec::new());
        while begun < count || !running.is_empty() {
            if begun < count && running.len() < most && rng.bool() {
                // Now and then one is tried again, while others run.
                let again = over.pop().filter(|_| rng.u8(..6) == 0);
                let id = again.unwrap_or_else(|| format!("request-{begun}"));
                let events = own_events(rng, &mut life, &settings, begun, &id);
                running.push((id, events.into_iter()));
                begun += 1;
            } else if !running.is_empty() {
                let at = rng.usize(..running.len());
                match running[at].1.next() {
                    Some(event) => post.push(event),
                    None => over.push(running.swap_remove(at).0),
                }
            }
            if rng.u8(..4) == 0 {
                life.post(&std::mem::take(&mut post));
                assert!(life.chooser.held_bytes() <= settings.max_bytes, "beyond the bound");
                life.awake += Duration::from_millis(rng.u64(..1000));
                life.chooser.tick(life.awake);
                life.drain();
            }
        }
        life.post(&post);
        life.chooser.finish(0);
        life.drain();
        life.shipped.sort();
        check(&life, &settings, count);
    });
}

fn check(life: &Life, settings: &Settings, count: usize) {
    assert!(!life.chooser.is_waiting());
    assert_eq!(life.shipped.len() + usize::try_from(life.thinned).unwrap(), life.count);
    assert!(life.shipped.is_sorted(), "the order of the marks is that of the events");
    let shipped: BTreeSet<&String> = life.shipped.iter().collect();
    assert_eq!(shipped.len(), life.shipped.len(), "nothing twice");
    assert!(life.nobodys.iter().all(|mark| shipped.contains(mark)));
    for (n, expected) in &life.expected {
        let there = expected.marks.iter().filter(|mark| shipped.contains(mark)).count();
        let whole = there == expected.marks.len();
        assert!(whole || there == 0, "{n}: {there} of {}", expected.marks.len());
        assert!(whole || !expected.must_ship, "{n} is thinned out");
    }
    assert_eq!(life.summaries, if settings.summary { count } else { 0 }, "one summary each");
}
