//! One body -> numbered events and signals. Logs that name no request get that of the invocation in
//! progress. Pure: no thread, socket, clock or log.
//!
//! `body_reader` finds the events, and `event_builder` makes them. This file keeps the state that
//! lasts from one body to the next.

use super::body_reader::BodyReader;
use super::event_builder::{EventBuilder, MAX_EVENTS, StreamState};
use super::filter::Filter;
use super::header::skip_blanks;
use super::invocations::Invocations;
pub use super::parsed_body::{ParsedBody, Signal};
use super::repair::MIN_CUT_BYTES;
use super::windows::{Begins, Behind, Part, READS_PER_BYTE, Rest};
use crate::clock::EpochMs;
use crate::event::Event;

/// Some programs write it in front of a text in UTF-8. It is no part of the JSON behind it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The stream of telemetry as this process has seen it so far: which invocation is in progress, and
/// the last event number.
#[derive(Debug)]
pub struct Intake {
    state: StreamState,
    /// The pieces of a cut record that the next body is to continue, as they came.
    held: Option<Vec<u8>>,
    min_cut_bytes: usize,
}

impl Intake {
    /// `filter` says what to ship; other events are read for their signals only. `overlapping`:
    /// invocations run side by side (Managed Instances), so that none is "in progress".
    #[must_use]
    pub fn new(filter: impl Into<Filter>, overlapping: bool) -> Intake {
        let state = StreamState {
            filter: filter.into(),
            invocations: Invocations::new(overlapping),
            number: 0,
            restores: 0,
            observes: false,
        };
        Intake { state, held: None, min_cut_bytes: MIN_CUT_BYTES }
    }

    /// `observes`: also notes for each body what the choice between invocations needs.
    #[must_use]
    pub fn observing(self, observes: bool) -> Intake {
        Intake { state: StreamState { observes, ..self.state }, ..self }
    }

    /// Pieces of this length or more count as cut by Lambda where nothing else decides. For tests,
    /// whose records are shorter than Lambda's.
    #[must_use]
    pub fn with_min_cut_bytes(self, min_cut_bytes: usize) -> Intake {
        Intake { min_cut_bytes, ..self }
    }

    /// Lambda has announced an invocation, perhaps before its `platform.start` has come.
    pub fn invoked(&mut self, request_id: &str) {
        let invocations = &mut self.state.invocations;
        if invocations.find(request_id).is_some() {
            return;
        }
        // Ids are kept as in JSON, between the quotes.
        let json = serde_json::to_string(request_id).unwrap_or_default();
        invocations.add(&json.trim_matches('"').into(), None);
    }

    /// Bytes that are held back for the next body to continue.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, Vec::capacity)
    }

    /// Reads one body, however many events it has. `now` is the time of events that have none.
    pub fn take(&mut self, bytes: Vec<u8>, now: EpochMs) -> ParsedBody {
        let part = Part::alone(Begins::Body, Behind::NextBody, bytes.len());
        self.read(bytes, Vec::new(), now, part, usize::MAX).0
    }

    /// Reads a part of a body. The next part begins with the rest of this one: there is a rest only
    /// if more bytes follow, or if this part has given as many events as a part may.
    ///
    /// `events` is a used buffer, whose memory is resident already, and gets the events.
    pub fn take_part(
        &mut self,
        bytes: Vec<u8>,
        events: Vec<Event>,
        now: EpochMs,
        part: Part,
    ) -> (ParsedBody, Rest) {
        self.read(bytes, events, now, part, MAX_EVENTS)
    }

    /// Gives up the cut record that is held back: as much of it as one part may give. Call it until
    /// nothing is held back, when no further body comes or there is no room to wait for one.
    pub fn finish(&mut self, now: EpochMs) -> ParsedBody {
        let Some(held) = self.held.take() else { return ParsedBody::default() };
        let part = Part::alone(Begins::Cut, Behind::Nothing, held.len());
        let (parsed, rest) = self.read(held, Vec::new(), now, part, MAX_EVENTS);
        self.held = Some(rest.bytes).filter(|bytes| !bytes.is_empty());
        parsed
    }

    fn read(
        &mut self,
        mut body: Vec<u8>,
        events: Vec<Event>,
        now: EpochMs,
        mut part: Part,
        max_events: usize,
    ) -> (ParsedBody, Rest) {
        if part.begins == Begins::Body && body.starts_with(BYTE_ORDER_MARK) {
            body.drain(..BYTE_ORDER_MARK.len());
        }
        let mut before = None;
        if part.begins == Begins::Body
            && let Some(held) = self.held.take()
        {
            before = Some(held.len());
            part = Part { begins: Begins::Cut, ..part };
            part.reads = part.reads.saturating_add(held.len().saturating_mul(READS_PER_BYTE));
            body = put_behind(held, &body);
        }
        let builder = EventBuilder::new(&mut self.state, now, events, body.len(), max_events);
        let mut reader = BodyReader::new(builder, &mut self.held, self.min_cut_bytes);
        let (end, begins) = reader.read(&mut body, part);
        let reads = reader.reads();
        let builder = reader.into_builder();
        let is_stuck = end == 0 && !body.is_empty();
        let mut rest = Rest {
            bytes: rest_of(&mut body, end, part.behind),
            begins: if is_stuck { part.begins } else { begins },
            is_stuck,
            reads,
        };
        let parsed = builder.finish(body, end);
        if let Some(before) = before.filter(|_| is_stuck) {
            // What was held was answered 200, and the rest of this body may never come.
            let (held, body) = take_apart(rest.bytes, before);
            self.held = Some(held);
            (rest.bytes, rest.begins) = (body, Begins::Body);
        }
        (parsed, rest)
    }
}

/// Puts the elements of a body behind what was held back before them.
fn put_behind(mut held: Vec<u8>, body: &[u8]) -> Vec<u8> {
    let from = skip_blanks(body, 0);
    let from = if body.get(from) == Some(&b'[') { from + 1 } else { from };
    let elements = body.get(from..).unwrap_or_default();
    held.reserve_exact(elements.len() + 1);
    held.push(b',');
    held.extend_from_slice(elements);
    held
}

/// What [`put_behind`] has put together: the first `before` bytes, and the body behind them.
fn take_apart(mut held: Vec<u8>, before: usize) -> (Vec<u8>, Vec<u8>) {
    let elements = held.get(before + 1..).unwrap_or_default();
    let mut body = Vec::with_capacity(elements.len() + 1);
    body.push(b'[');
    body.extend_from_slice(elements);
    held.truncate(before);
    // All that it takes is counted while it waits.
    held.shrink_to_fit();
    (held, body)
}

/// The bytes from `end` on, in a buffer for the next part. `body` keeps those before at the least.
fn rest_of(body: &mut Vec<u8>, end: usize, behind: Behind) -> Vec<u8> {
    if end == 0 {
        return std::mem::take(body);
    }
    if end < body.len() / 2 {
        // The larger part stays where it is. Were it moved, each part's events would wait at the
        // beginning of a place in which nothing so large has room again.
        let before = body.get(..end).unwrap_or_default().to_vec();
        let mut bytes = std::mem::replace(body, before);
        bytes.drain(..end);
        if bytes.capacity() > 2 * bytes.len() {
            bytes.shrink_to_fit();
        }
        return bytes;
    }
    let rest = body.get(end..).unwrap_or_default();
    // More of the body is read behind it.
    let goes_on = behind == Behind::RestOfBody && !rest.is_empty();
    let mut bytes = Vec::with_capacity(if goes_on { body.capacity() } else { rest.len() });
    bytes.extend_from_slice(rest);
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::event_builder::MAX_RESTORES;
    use super::super::filter::Types;
    use super::super::invocations::MAX_INVOCATIONS;
    use super::super::samples::{ALL, body, event, ids, intake, parts, texts};
    use super::*;
    use crate::clock;

    #[test]
    fn numbers_begin_anew_with_a_restore() {
        let mut intake = intake();
        let init = [event("platform.initStart", "{}"), event("function", r#""init""#)];
        let restored =
            [event("platform.restoreStart", "{}"), event("platform.restoreReport", "{}")];
        let first = intake.take(body(&[&init[..], &restored[..]].concat()), 0);
        let second = intake.take(body(&restored), 0);
        let numbers = |taken: &ParsedBody| {
            taken
                .batch
                .remaining()
                .iter()
                .map(|event| (event.restores, event.number))
                .collect::<Vec<_>>()
        };
        assert_eq!(numbers(&first), [(0, 1), (0, 2), (1, 1), (1, 2)]);
        assert_eq!(numbers(&second), [(2, 1), (2, 2)]);
        assert_eq!(second.signals, [Signal::Restored]);
    }

    #[test]
    fn restores_are_few_however_many_are_said() {
        let mut intake = intake();
        let many = vec![event("platform.restoreStart", "{}"); 1000];
        let taken = intake.take(body(&many), 0);
        let restored = taken.signals.iter().filter(|signal| **signal == Signal::Restored).count();
        assert_eq!(restored, usize::from(MAX_RESTORES));
        let mut ids: Vec<(u16, u64)> =
            taken.batch.remaining().iter().map(|event| (event.restores, event.number)).collect();
        ids.dedup();
        assert_eq!(ids.len(), 1000, "no id comes twice");
    }

    #[test]
    fn the_invocation_in_progress_lasts_until_the_next_start() {
        let mut intake = intake();
        let taken = intake.take(
            body(&[
                event("function", r#""init""#),
                event("platform.start", r#"{"requestId":"r1"}"#),
                event("function", r#""one""#),
                event("function", r#"{"requestId":"nobody's"}"#),
                event("platform.runtimeDone", r#"{"requestId":"r1","status":"success"}"#),
                event("function", r#""late""#),
                event("platform.start", r#"{"requestId":"r2"}"#),
                event("platform.report", r#"{"requestId":"r1"}"#),
                event("extension", r#""two""#),
                event("function", r#"{"requestId":"r1","message":"late"}"#),
                event("platform.extension", r#"{"name":"x"}"#),
            ]),
            0,
        );
        let some = |id: &str| Some(id.to_owned());
        let expected = [
            None,
            some("r1"),
            some("r1"),
            some("r1"),
            some("r1"),
            some("r1"),
            some("r2"),
            some("r1"),
            some("r2"),
            some("r1"),
            None,
        ];
        assert_eq!(ids(&taken), expected);
        let cold: Vec<bool> =
            taken.batch.remaining().iter().map(|event| event.cold_start).collect();
        assert_eq!(cold, [true, true, true, true, true, true, false, true, false, true, false]);
        let at = clock::parse_iso8601("2026-11-23T09:15:45.012Z");
        assert_eq!(
            taken.signals,
            [
                Signal::Start { request_id: "r1".into(), arn: None },
                Signal::RuntimeDone { request_id: "r1".into(), at, failed: false },
                Signal::Start { request_id: "r2".into(), arn: None },
                Signal::Report { request_id: "r1".into() },
            ]
        );
    }

    #[test]
    fn where_invocations_overlap_no_request_id_is_guessed() {
        let mut intake = Intake::new(ALL, true);
        let events = [
            event("platform.start", r#"{"requestId":"r1"}"#),
            event("function", r#""whose?""#),
            event("function", r#"{"requestId":"r1"}"#),
        ];
        let taken = intake.take(body(&events), 0);
        assert_eq!(ids(&taken), [Some("r1".to_owned()), None, Some("r1".to_owned())]);
    }

    #[test]
    fn types_that_are_not_shipped_still_signal_and_take_no_number() {
        let mut intake = Intake::new(Types { platform: false, ..ALL }, false);
        let taken = intake.take(
            body(&[event("platform.start", r#"{"requestId":"r1"}"#), event("function", r#""x""#)]),
            0,
        );
        assert_eq!(taken.signals.len(), 1);
        assert_eq!(taken.batch.remaining().len(), 1);
        assert_eq!(taken.batch.remaining()[0].number, 1);
        assert_eq!(ids(&taken), [Some("r1".to_owned())]);
    }

    #[test]
    fn fields_of_the_platform() {
        let tracing = r#"{"type":"X-Amzn-Trace-Id","value":"Root=1-62e9;Parent=0e;Sampled=1"}"#;
        let start =
            format!(r#"{{"requestId":"r1","functionArn":"arn:aws:lambda:x","tracing":{tracing}}}"#);
        let taken = intake().take(
            body(&[
                event("platform.initStart", r#"{"instanceId":"2026/11/23/orders[$LATEST]22be"}"#),
                event("platform.start", &start),
                event(
                    "platform.logsDropped",
                    r#"{"droppedBytes":12345,"droppedRecords":123,"reason":"slow"}"#,
                ),
            ]),
            0,
        );
        assert_eq!(
            taken.signals,
            [
                Signal::LogStream("2026/11/23/orders[$LATEST]22be".to_owned()),
                Signal::Start { request_id: "r1".into(), arn: Some("arn:aws:lambda:x".to_owned()) },
                Signal::LogsDropped { records: 123, bytes: 12_345 },
            ]
        );
        let trace = taken.batch.remaining()[1].trace_id;
        assert_eq!(trace.of(taken.batch.bytes()), b"1-62e9");
    }

    #[test]
    fn a_cut_record_is_held_for_the_next_body_and_given_up_at_the_end() {
        let mut intake = intake();
        let head = r#"{"time":"t","type":"function","record":"#;
        assert!(
            intake
                .take(format!("[{head}{{\"m\":\"AA}}]").into_bytes(), 0)
                .batch
                .remaining()
                .is_empty()
        );
        let taken =
            intake.take(format!("[{head}BB\"}}}},{}]", event("function", "1")).into_bytes(), 0);
        assert_eq!(texts(&taken)[0], format!("{head}{{\"m\":\"AABB\"}}"));
        assert_eq!(taken.batch.remaining().len(), 2);
        assert!(
            intake
                .take(format!("[{head}{{\"m\":\"AA}}]").into_bytes(), 0)
                .batch
                .remaining()
                .is_empty()
        );
        assert_eq!(intake.finish(0).unparsed, 1);
        assert_eq!(intake.finish(0).unparsed, 0);
    }

    /// It was in the hands of a connection from then on: lost, and not counted, if the body ended
    /// too early, and its room was given to others.
    #[test]
    fn what_is_held_stays_until_the_body_that_goes_on_with_it_has_come() {
        let mut intake = intake();
        let head = r#"{"time":"t","type":"function","record":"#;
        intake.take(format!(r#"[{head}{{"m":"AA}}]"#).into_bytes(), 0);
        let (held, window) = (intake.held_bytes(), format!(" [{head}{}", "B".repeat(1000)));
        let mut bytes = window.into_bytes();
        for _ in 0..3 {
            let part = Part::alone(Begins::Body, Behind::RestOfBody, bytes.len());
            let (taken, rest) = intake.take_part(bytes, Vec::new(), 0, part);
            assert!(taken.batch.remaining().is_empty() && rest.is_stuck);
            assert_eq!((rest.begins, intake.held_bytes()), (Begins::Body, held));
            bytes = [rest.bytes, b"B".repeat(1000)].concat();
        }
        let whole = [&bytes, &b"CC\"}}]"[..]].concat();
        let part = Part::alone(Begins::Body, Behind::NextBody, whole.len());
        let (taken, rest) = intake.take_part(whole, Vec::new(), 0, part);
        assert_eq!((rest.bytes.len(), intake.held_bytes()), (0, 0));
        let joined = format!(r#"{head}{{"m":"AA{}CC"}}"#, "B".repeat(4000));
        assert_eq!((&texts(&taken)[0], taken.unparsed), (&joined, 0));
    }

    /// The first event was taken for a part of the damage that the mark was, and so was a piece
    /// that waited for its body.
    #[test]
    fn a_byte_order_mark_costs_no_event() {
        let mut intake = intake();
        let events = [event("function", "1"), event("function", "2")];
        let marked = |body: Vec<u8>| [BYTE_ORDER_MARK, &body].concat();
        let taken = intake.take(marked(body(&events)), 0);
        assert_eq!((texts(&taken).len(), taken.unparsed), (2, 0));
        let head = r#"{"time":"t","type":"function","record":"#;
        intake.take(format!(r#"[{head}"AA}}]"#).into_bytes(), 0);
        let taken = intake.take(marked(format!(r#"[{head}BB"}}]"#).into_bytes()), 0);
        assert_eq!(texts(&taken), [format!(r#"{head}"AABB""#)]);
        assert_eq!(taken.unparsed, 0);
    }

    /// It was copied for each part: 32 MiB of a queue became 64.
    #[test]
    fn a_long_rest_stays_where_it_is() {
        let mut intake = intake();
        let mut bytes = body(&vec![event("platform.start", r#"{"requestId":"r1"}"#); 50_000]);
        let mut part = Part::alone(Begins::Body, Behind::NextBody, bytes.len());
        let (mut parts, mut moves) = (0, 0);
        while !bytes.is_empty() {
            let before = (bytes.as_ptr(), bytes.len());
            let (taken, rest) = intake.take_part(bytes, Vec::new(), 0, part);
            assert!(taken.batch.cost() < 3 * (before.1 - rest.bytes.len()));
            moves += usize::from(rest.bytes.as_ptr() != before.0);
            (bytes, part.begins, parts) = (rest.bytes, rest.begins, parts + 1);
        }
        // It gives room back each time when half of it is done with.
        assert!(parts > 20 && moves < 8, "{moves} in {parts} parts");
    }

    #[test]
    fn what_is_held_is_counted_and_bounded() {
        let mut intake = intake();
        let piece = body(&[event("function", "{\"m\":\"AAAA")]);
        intake.take(piece.clone(), 0);
        assert_eq!(intake.held_bytes(), piece.len() - 2);
        // A body without events continues nothing, and ends nothing.
        assert_eq!(intake.take(b"[]".to_vec(), 0).unparsed, 0);
        let more = body(&[event("function", &"A".repeat(300_000))]);
        let given_up = (0..20).find(|_| intake.take(more.clone(), 0).unparsed > 0);
        assert!(given_up.is_some_and(|n| (10..15).contains(&n)), "{given_up:?}");
        assert!(intake.held_bytes() <= 4 * 1024 * 1024);
        assert_eq!(intake.finish(0).unparsed, 0);
    }

    #[test]
    fn an_id_counts_only_if_the_sandbox_has_seen_its_invocation() {
        let log = |id: &str| event("function", &format!(r#"{{"AWSRequestId":"{id}"}}"#));
        let mut intake = intake();
        intake.invoked("announced");
        let taken = intake.take(body(&[log("announced"), log("forged")]), 0);
        assert_eq!(ids(&taken), [Some("announced".to_owned()), None]);
        assert!(taken.batch.remaining().iter().all(|event| event.cold_start));
        let taken = intake.take(
            body(&[
                event("platform.start", r#"{"requestId":"r1"}"#),
                log("announced"),
                log("forged"),
                log("r1"),
            ]),
            0,
        );
        assert_eq!(ids(&taken), ["r1", "announced", "r1", "r1"].map(|id| Some(id.to_owned())));
        // A bounded number is remembered.
        for n in 0..MAX_INVOCATIONS {
            intake.invoked(&format!("later {n}"));
        }
        assert_eq!(
            ids(&intake.take(body(&[log("announced"), log("later 0")]), 0)),
            ["r1", "later 0"].map(|id| Some(id.to_owned()))
        );
        // Where invocations overlap, what a log says is all that is known.
        let mut overlapping = Intake::new(ALL, true);
        assert_eq!(ids(&overlapping.take(body(&[log("any")]), 0)), [Some("any".to_owned())]);
    }

    #[test]
    fn the_report_of_the_process_before_is_of_no_cold_start() {
        let report = |id: &str| event("platform.report", &format!(r#"{{"requestId":"{id}"}}"#));
        let taken = intake().take(
            body(&[
                event("platform.initStart", "{}"),
                report("before"),
                event("platform.runtimeDone", r#"{"requestId":"before"}"#),
                event("platform.start", r#"{"requestId":"first"}"#),
                report("before"),
                report("first"),
            ]),
            0,
        );
        let cold: Vec<bool> =
            taken.batch.remaining().iter().map(|event| event.cold_start).collect();
        assert_eq!(cold, [true, false, false, true, false, true]);
        assert_eq!(ids(&taken)[1], Some("before".to_owned()));
    }

    #[test]
    fn the_tenant_is_the_platforms_wherever_it_says_one() {
        let start = |id: &str, tenant: &str| {
            event("platform.start", &format!(r#"{{"requestId":"{id}"{tenant}}}"#))
        };
        let log = |id: &str, tenant: &str| {
            event("function", &format!(r#"{{"requestId":"{id}","tenantId":"{tenant}"}}"#))
        };
        let events = [
            start("r1", r#","tenantId":"blue""#),
            event("function", r#""text""#),
            log("r1", "red"),
            log("forged", "red"),
            log("r1", "blue"),
            start("r2", ""),
            log("r2", "own"),
            log("r1", "red"),
            event("platform.report", r#"{"requestId":"r1"}"#),
            event("platform.report", r#"{"requestId":"r0","tenantId":"said"}"#),
        ];
        let tenants = ["blue", "blue", "blue", "blue", "blue", "", "own", "blue", "blue", "said"];
        for overlapping in [false, true] {
            let taken = Intake::new(ALL, overlapping).take(body(&events), 0);
            for (n, expected) in tenants.iter().enumerate() {
                // Where invocations overlap, a text is of none, and a log of one that was not
                // announced is its own.
                let expected = match (overlapping, n) {
                    (true, 1) => "",
                    (true, 3) => "red",
                    _ => expected,
                };
                assert_eq!(
                    parts(&taken, n, |event| [event.tenant_id]),
                    [expected],
                    "{n} {overlapping}"
                );
            }
        }
    }

    #[test]
    fn logs_name_their_trace_and_their_durable_execution() {
        let record = r#"{"trace_id":"1-62e9","executionArn":"arn:x","message":"m"}"#;
        let taken = intake().take(body(&[event("function", record)]), 0);
        assert_eq!(
            parts(&taken, 0, |event| [event.trace_id, event.execution_arn]),
            ["1-62e9", "arn:x"]
        );
        // In pieces, too, and where the body is dropped.
        let piece = |part: &str| event("function", part);
        let taken = intake().take(body(&[piece(&record[..30]), piece(&record[30..])]), 0);
        assert_eq!(
            parts(&taken, 0, |event| [event.trace_id, event.execution_arn]),
            ["1-62e9", "arn:x"]
        );
        let taken = intake().take(
            format!("[#,{}\n]", event("function", &record.replace("\"m\"", "\n\"m\"")))
                .into_bytes(),
            0,
        );
        assert_eq!(
            parts(&taken, 1, |event| [event.trace_id, event.execution_arn]),
            ["1-62e9", "arn:x"]
        );
    }

    /// It gave 62,000 events at once, and as many signals where they were the platform's.
    #[test]
    fn what_was_held_is_given_up_in_parts() {
        let head = event("function", "");
        let head = head.strip_suffix('}').unwrap();
        // Shorter than a piece of Lambda's, so that what looks like events is not taken for them.
        let data = vec![event("function", "1"); 2500].join(",");
        let piece = format!(r#"{head}B",{data},"A}}"#);
        let first = piece.replacen(r#"B","#, "[", 1);
        let all = [vec![first], vec![piece; 6]].concat();
        let mut intake = intake();
        assert_eq!(intake.take(body(&all), 0).batch.remaining().len(), 0);
        let mut given = Vec::new();
        while intake.held_bytes() > 0 {
            given.push(intake.finish(0).batch.remaining().len());
        }
        assert!(given.iter().all(|events| *events <= MAX_EVENTS), "{given:?}");
        assert!(given.iter().sum::<usize>() >= 6 * 2500, "{given:?}");
    }
}
