//! Finds the events in a part of a body. Pure.
//!
//! A body is parsed in one pass and its events stay ranges into it. `envelope` reads them, and
//! `repair` reads on where a body does not parse.

use std::borrow::Cow;
use std::ops::Range;

use super::envelope::Envelope;
use super::event_builder::EventBuilder;
use super::header::skip_blanks;
use super::json::{Json, has_control, plain_length};
use super::repair::{self, Element, Repair};
use super::windows::{Begins, Behind, Part};

/// An event with broken UTF-8 is written anew, and is there three times meanwhile. What would be
/// longer then is shipped as text: each broken byte takes three.
const MAX_BROKEN_BYTES: usize = 512 * 1024;

/// A part of a body being read.
pub(super) struct BodyReader<'s, 'h> {
    builder: EventBuilder<'s>,
    /// The pieces of a record that the next body is to continue.
    held: &'h mut Option<Vec<u8>>,
    min_cut_bytes: usize,
    /// A stretch of the body that is no event; the next element may be a part of it.
    damaged: Option<Range<usize>>,
    /// Bytes that were read by repair.
    reads: usize,
    /// The event at hand.
    envelope: Envelope,
    /// For events that are put in order.
    buffer: Vec<u8>,
}

impl<'s, 'h> BodyReader<'s, 'h> {
    /// Hands the events to `builder`.
    pub(super) fn new(
        builder: EventBuilder<'s>,
        held: &'h mut Option<Vec<u8>>,
        min_cut_bytes: usize,
    ) -> BodyReader<'s, 'h> {
        BodyReader {
            builder,
            held,
            min_cut_bytes,
            damaged: None,
            reads: 0,
            envelope: Envelope::default(),
            buffer: Vec::new(),
        }
    }

    /// Reads that part of a body, and puts cut records together in place. Returns the index where
    /// the rest begins, and how it begins.
    pub(super) fn read(&mut self, body: &mut [u8], part: Part) -> (usize, Begins) {
        let end = match part.begins {
            Begins::Body => self.read_array(body, true),
            Begins::Element => self.read_array(body, false),
            Begins::Cut | Begins::Damage => 0,
        };
        // The next event may be whole once more bytes are there.
        let waits = part.behind == Behind::RestOfBody && end > 0;
        if end == body.len() || waits || self.builder.is_full() {
            return (end, Begins::Element);
        }
        self.repair(body, end, part)
    }

    /// How many bytes were read where the body does not parse.
    pub(super) fn reads(&self) -> usize {
        self.reads
    }

    /// The builder, with all events.
    pub(super) fn into_builder(self) -> EventBuilder<'s> {
        self.builder
    }

    /// The ordinary case: a JSON array of events, or the rest of one. Returns the index behind the
    /// last byte that was understood.
    fn read_array(&mut self, bytes: &mut [u8], is_first: bool) -> usize {
        // Checked once for all events. Repair reads what is behind a broken character.
        let plain = plain_length(bytes);
        let rest = bytes.get(plain..).unwrap_or_default();
        let has_lines = has_control(rest);
        let valid = plain
            + match std::str::from_utf8(rest) {
                Ok(text) => text.len(),
                Err(error) => error.valid_up_to(),
            };
        let mut understood = 0;
        let mut at = skip_blanks(bytes, 0);
        match (is_first, bytes.get(at)) {
            (true, Some(b'[')) | (false, Some(b',')) => at = skip_blanks(bytes, at + 1),
            (true, _) => return 0,
            (false, _) => {}
        }
        let mut closed = bytes.get(at) == Some(&b']');
        while !closed && !self.builder.is_full() {
            let json = Json::new(bytes.get(..valid).unwrap_or_default(), has_lines);
            let Some(end) = self.envelope.read(json, at) else { return understood };
            let object = self.envelope.object();
            if self.envelope.is_log() && repair::is_doubtful(bytes, object, self.min_cut_bytes) {
                return understood;
            }
            self.hand_on(bytes, has_lines);
            understood = end;
            at = skip_blanks(bytes, end);
            closed = bytes.get(at) == Some(&b']');
            if !closed && bytes.get(at) != Some(&b',') {
                return understood;
            }
            at = if closed { at } else { skip_blanks(bytes, at + 1) };
        }
        if closed && skip_blanks(bytes, at + 1) == bytes.len() { bytes.len() } else { understood }
    }

    /// The event at hand, of the body.
    #[inline(always)]
    fn hand_on(&mut self, body: &mut [u8], has_lines: bool) {
        self.envelope.put_in_order(body, has_lines, &mut self.buffer);
        self.builder.event(&self.envelope, body);
    }

    /// Reads on from index `from`, where the body does not parse: element by element, and puts the
    /// records together that Lambda cut. Returns what [`BodyReader::read`] does.
    fn repair(&mut self, body: &mut [u8], from: usize, part: Part) -> (usize, Begins) {
        let mut repair = Repair::new(body, from, self.min_cut_bytes, part);
        let read = self.elements(&mut repair, body, from, part.behind);
        self.reads = repair.reads();
        read
    }

    fn elements(
        &mut self,
        repair: &mut Repair,
        body: &mut [u8],
        from: usize,
        behind: Behind,
    ) -> (usize, Begins) {
        let length = body.len();
        let (mut end, mut begins) = (from, Begins::Element);
        while let Some(element) = repair.next(body) {
            // With more bytes it may be another one.
            let waits = match behind {
                Behind::RestOfBody => !repair.is_decided(),
                // Half of them at the least is done with, so that time is bounded, too.
                Behind::NoRoom => !repair.is_decided() && end > from.midpoint(length),
                Behind::NextBody | Behind::Nothing => false,
            };
            if waits {
                // A stretch of damage may go on behind these bytes.
                let stretch = self.damaged.take_if(|_| behind == Behind::RestOfBody);
                self.ship_damaged(body);
                return stretch.map_or((end, begins), |stretch| (stretch.start, Begins::Element));
            }
            self.handle(element, body);
            end = repair.at();
            begins = if repair.is_given_up() { Begins::Damage } else { Begins::Element };
            if self.damaged.is_none() && self.builder.is_full() {
                return (end, begins);
            }
        }
        self.ship_damaged(body);
        // The comma before the next event may be left.
        if behind.is_same_body() && begins == Begins::Damage {
            return (end, begins);
        }
        (length, Begins::Element)
    }

    fn handle(&mut self, element: Element, body: &mut [u8]) {
        match element {
            Element::Whole(range) => self.repaired(body, range),
            Element::Cut(pieces) => {
                let range = join(body, &pieces);
                self.repaired(body, range);
            }
            Element::Damaged(range) => self.damage(range),
            // Another body was read between the parts of this one, and its record waits.
            Element::Unfinished(range) if self.held.is_some() => self.damage(range),
            Element::Unfinished(range) => *self.held = body.get(range).map(<[u8]>::to_vec),
        }
    }

    /// One JSON object of a body that does not parse.
    fn repaired(&mut self, body: &mut [u8], range: Range<usize>) {
        let has_lines = true;
        let object = body.get(range.clone()).unwrap_or_default();
        match as_text(object) {
            Some(Cow::Borrowed(_)) => {
                let json = Json::new(body.get(..range.end).unwrap_or_default(), has_lines);
                if self.envelope.read(json, range.start) != Some(range.end) {
                    return self.damage(range);
                }
                self.ship_damaged(body);
                self.hand_on(body, has_lines);
            }
            Some(Cow::Owned(copy)) => {
                let json = Json::new(copy.as_bytes(), has_lines);
                if self.envelope.read(json, 0) != Some(copy.len()) {
                    return self.damage(range);
                }
                self.ship_damaged(body);
                self.envelope.mark_as_copy();
                self.builder.event(&self.envelope, copy.as_bytes());
            }
            None => self.damage(range),
        }
    }

    /// Neighbours are one stretch: only separators stand between two elements.
    fn damage(&mut self, range: Range<usize>) {
        self.damaged =
            Some(self.damaged.take().map_or(range.start, |before| before.start)..range.end);
    }

    fn ship_damaged(&mut self, body: &[u8]) {
        if let Some(range) = self.damaged.take() {
            self.builder.damaged(body.get(range).unwrap_or_default());
        }
    }
}

/// The bytes of an event, with U+FFFD where they are no UTF-8; `None` where it would be too long
/// then.
fn as_text(bytes: &[u8]) -> Option<Cow<'_, str>> {
    const REPLACEMENT: &str = "\u{fffd}";
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Some(text.into());
    }
    let replacement = |invalid: &[u8]| if invalid.is_empty() { "" } else { REPLACEMENT };
    let parts = || bytes.utf8_chunks().map(|chunk| [chunk.valid(), replacement(chunk.invalid())]);
    let length = parts().flatten().map(str::len).sum();
    // As long as it is: one that grows is there twice while it moves.
    let mut text = String::with_capacity(Some(length).filter(|most| *most <= MAX_BROKEN_BYTES)?);
    text.extend(parts().flatten());
    Some(text.into())
}

/// Puts the pieces of a cut record side by side, in the place of the first.
fn join(body: &mut [u8], pieces: &[Range<usize>]) -> Range<usize> {
    let start = pieces.first().map_or(0, |first| first.start);
    let mut end = start;
    for piece in pieces {
        body.copy_within(piece.clone(), end);
        end += piece.len();
    }
    start..end
}

#[cfg(test)]
mod tests {
    use super::super::event_builder::{MAX_EVENTS, MAX_SIGNALS, MAX_STEPS, MAX_TEXT_BYTES};
    use super::super::filter::Filter;
    use super::super::intake::{Intake, ParsedBody, Signal};
    use super::super::samples::{ALL, body, event, intake, parts, texts};
    use super::*;

    #[test]
    fn an_ordinary_body_is_not_copied() {
        let events = [event("function", r#""a""#), event("function", r#"{"b":1}"#)];
        let bytes = body(&events);
        let length = bytes.len();
        let taken = intake().take(bytes, 0);
        assert_eq!(texts(&taken), events.map(|event| event.strip_suffix('}').unwrap().to_owned()));
        assert_eq!(taken.batch.bytes().len(), length, "nothing behind the body");
    }

    #[test]
    fn other_spellings_are_rebuilt_on_one_line() {
        let odd = "[ { \"type\" : \"function\",\n \"record\" : {\n\"a\" : [1,\r\n2]}, \
                   \"time\":\"t\", \"new\" : 1, \"region\":\"mars\" } ]";
        let taken = intake().take(odd.as_bytes().to_vec(), 0);
        let record = r#"{ "a" : [1,  2]}"#;
        let whole = event("function", &format!(r#"{record},"new":1,"lambda.region":"mars""#));
        let text = whole.replace("2026-11-23T09:15:45.012Z", "t");
        assert_eq!(texts(&taken), [text.strip_suffix('}').unwrap()]);
        assert_eq!(parts(&taken, 0, |event| [event.record]), [record]);
    }

    #[test]
    fn events_before_and_after_a_fault_are_kept_once() {
        let (a, b) = (event("function", r#""a""#), event("function", r#""b""#));
        let bytes = format!("[{a},{{\"broken\":,{b}]");
        let taken = intake().take(bytes.into_bytes(), 1_795_425_345_012);
        let unparsed =
            r#"{"time":"2026-11-23T09:15:45.012Z","type":"unparsed","record":"{\"broken\":""#;
        assert_eq!(texts(&taken), [a.trim_end_matches('}'), unparsed, b.trim_end_matches('}')]);
        assert_eq!((taken.unparsed, taken.signals.len()), (1, 1));
        assert_eq!(
            taken.batch.remaining().iter().map(|event| event.number).collect::<Vec<_>>(),
            [1, 2, 3]
        );
    }

    #[test]
    fn a_runtime_done_in_a_broken_body_is_found() {
        let done = event("platform.runtimeDone", r#"{"requestId":"r1","status":#oops"#);
        let taken = intake().take(format!("[{done}").into_bytes(), 0);
        assert!(taken.signals.contains(&Signal::RuntimeDone {
            request_id: "r1".into(),
            at: None,
            failed: false
        }));
    }

    #[test]
    fn deep_nesting_and_lone_surrogates_pass() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let taken =
            intake().take(body(&[event("function", &deep), event("function", r#""\ud800""#)]), 0);
        assert_eq!((taken.batch.remaining().len(), taken.unparsed), (2, 0));
    }

    #[test]
    fn every_place_to_cut_is_as_good_as_any() {
        let old = event("function", "5").replace("11-23T09", "11-01T00");
        let records = [
            r#"[{"a":12345,"b":-0.5e+10},{"a":6.02E23},{"a":10},{"a":1.5e-7},7]"#,
            r#"{"a":[1,22,[333,{"b":4444}],[]],"c":{"d":{}},"e":true,"f":null,"g":false}"#,
            r#"{"m":"back\\slash \"quoted\" \n \u00e9\ud83c\udf89 é日🎉 }},{[","n":"\\\\"}"#,
            &format!(r#"[{{"time":"x","n":1}},{},{{"time":7}}]"#, old),
            r#"[ { "a" : 1 , "b" : 2 } , { "a" : 3 } , { } ]"#,
            r#""a text, \"quoted\" \\\\ and {\"time\":\"""#,
        ];
        let (before, after) =
            (event("function", r#""before""#), event("platform.report", r#"{"requestId":"r"}"#));
        for record in records {
            let whole = event("function", record);
            let expected: Vec<String> = [&before, &whole, &after]
                .iter()
                .map(|event| event.strip_suffix('}').unwrap().to_owned())
                .collect();
            let head = whole.len() - record.len() - 1;
            let piece = |from: usize, to: usize| {
                [&whole.as_bytes()[..head], &record.as_bytes()[from..to], b"}"].concat()
            };
            for first in 5..record.len() {
                for second in [first, first + 5] {
                    let mut pieces = vec![piece(0, first), piece(first, record.len())];
                    if (first + 1..record.len()).contains(&second) {
                        pieces = vec![
                            piece(0, first),
                            piece(first, second),
                            piece(second, record.len()),
                        ];
                    }
                    for separator in [",", "]["] {
                        let all = [
                            vec![before.clone().into_bytes()],
                            pieces.clone(),
                            vec![after.clone().into_bytes()],
                        ]
                        .concat();
                        let text =
                            [b"[".as_slice(), &all.join(separator.as_bytes()), b"]"].concat();
                        let mut intake = intake().with_min_cut_bytes(5);
                        let bodies: Vec<Vec<u8>> = if separator == "," {
                            vec![text]
                        } else {
                            all.iter().map(|e| [b"[", e.as_slice(), b"]"].concat()).collect()
                        };
                        let taken: Vec<ParsedBody> =
                            bodies.into_iter().map(|body| intake.take(body, 0)).collect();
                        let found: Vec<String> = taken.iter().flat_map(texts).collect();
                        assert_eq!(found, expected, "cut at {first} and {second} of {record}");
                        assert_eq!(
                            (
                                taken.iter().map(|taken| taken.unparsed).sum::<u64>(),
                                intake.held_bytes()
                            ),
                            (0, 0)
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_number_cut_at_lambdas_length_is_no_object_of_lambdas() {
        let objects = r#"{"a":1234567},"#.repeat(30_000);
        let record = format!("[{objects}{{}}]");
        let whole = event("function", &record);
        let head = whole.len() - record.len() - 1;
        // Each place within an object, number included.
        for cut in 262_144..262_158 {
            let body = format!(
                "[{}}},{}]",
                &whole[..head + cut],
                [&whole[..head], &whole[head + cut..]].concat()
            );
            let taken = intake().take(body.into_bytes(), 0);
            assert_eq!(texts(&taken), [whole.strip_suffix('}').unwrap()], "cut at {cut}");
        }
        // What was not cut is as it was, however much it looks like telemetry.
        let like = event("function", r#"{"n":1}"#)
            + ","
            + &event("platform.report", "2")
            + ","
            + &event("function", "\"x\"")
            + ",";
        let record =
            event("function", &format!("[{}{}]", like.repeat(2000), event("function", "1")));
        let taken = intake().take(body(std::slice::from_ref(&record)), 0);
        assert_eq!(texts(&taken), [record.strip_suffix('}').unwrap()]);
    }

    #[test]
    fn a_lost_continuation_takes_nothing_with_it() {
        let record = r#"{"a":[{"b":12,"c":"text"},{"d":[1,2.5e3]}]}"#;
        let whole = event("function", record);
        let head = whole.len() - record.len() - 1;
        let next = [
            event("function", r#""next""#),
            event("function", r#"{"x":[1]}"#),
            event("extension", "7"),
            event("platform.report", "{}"),
        ];
        for cut in 5..record.len() {
            let piece = format!("{}}}", &whole[..head + cut]);
            for first in 0..next.len() {
                let following: Vec<String> =
                    next.iter().cycle().skip(first).take(4).cloned().collect();
                for same_post in [true, false] {
                    let mut intake = intake().with_min_cut_bytes(5);
                    let posts = if same_post {
                        vec![body(&[vec![piece.clone()], following.clone()].concat())]
                    } else {
                        vec![body(std::slice::from_ref(&piece)), body(&following)]
                    };
                    let mut taken: Vec<ParsedBody> =
                        posts.into_iter().map(|post| intake.take(post, 0)).collect();
                    taken.push(intake.finish(0));
                    let found: Vec<String> = taken.iter().flat_map(texts).collect();
                    let unparsed = serde_json::to_string(&piece).unwrap();
                    assert!(
                        found[0].ends_with(&format!(r#""type":"unparsed","record":{unparsed}"#)),
                        "cut at {cut}: {found:#?}"
                    );
                    let whole: Vec<String> = following
                        .iter()
                        .map(|event| event.strip_suffix('}').unwrap().to_owned())
                        .collect();
                    assert_eq!(found[1..], whole, "cut at {cut}");
                    assert_eq!(taken.iter().map(|taken| taken.unparsed).sum::<u64>(), 1);
                }
            }
        }
    }

    #[test]
    fn a_record_does_not_end_by_chance_inside_another() {
        let (piece, next) =
            (event("function", r#"{"a":"cut"#), event("function", r#"["}},{[","b"]"#));
        let taken = intake().take(body(&[piece, next.clone(), event("function", "1")]), 0);
        assert_eq!(
            (texts(&taken)[1].as_str(), taken.unparsed),
            (next.strip_suffix('}').unwrap(), 1)
        );
        // Nor does it go on in what only looks like an envelope's further keys.
        let piece = event("function", r#"3,"b":"#);
        let taken = intake().take(body(&[piece, next.clone(), event("function", "1")]), 0);
        assert_eq!(
            (texts(&taken)[1].as_str(), taken.unparsed),
            (next.strip_suffix('}').unwrap(), 1)
        );
    }

    #[test]
    fn a_damaged_stretch_is_one_event_and_its_body_is_dropped() {
        for stretch in [
            "1,".repeat(200_000),
            "{},".repeat(150_000),
            event("function", "AAAA").replace('A', "#").repeat(3000),
        ] {
            let bytes = format!("[{stretch}0]").into_bytes();
            let length = bytes.len();
            let taken = intake().take(bytes, 0);
            assert_eq!(
                (taken.unparsed, taken.batch.remaining().len(), taken.signals.len()),
                (1, 1, 1)
            );
            let [record] = parts(&taken, 0, |event| [event.record]);
            assert!(serde_json::from_str::<String>(&record).unwrap().len() + 100 > length);
            assert!(
                taken.batch.bytes().len() <= record.len() + 100,
                "{} for {}",
                taken.batch.bytes().len(),
                record.len()
            );
        }
    }

    #[test]
    fn the_text_of_what_is_damaged_is_bounded() {
        let length = 3 * 1024 * 1024;
        let taken = intake().take(vec![1; length], 0);
        assert_eq!(taken.batch.remaining().len(), 1);
        assert!(taken.batch.bytes().len() < MAX_TEXT_BYTES + 200);
        let value: serde_json::Value =
            serde_json::from_str(&(texts(&taken)[0].clone() + "}")).unwrap();
        assert_eq!(
            value["record"].as_str().unwrap().len() as u64
                + value["truncatedBytes"].as_u64().unwrap(),
            length as u64
        );
    }

    #[test]
    fn a_record_in_twenty_thousand_pieces_is_one_damaged_stretch() {
        let piece = event("function", &"A".repeat(100));
        let all = format!("[{},{}]", event("function", r#"{"m":""#), vec![piece; 20_000].join(","));
        let taken = intake().take(all.into_bytes(), 0);
        assert_eq!((taken.unparsed, taken.batch.remaining().len()), (1, 1));
    }

    #[test]
    fn what_is_repaired_stays_where_it_is() {
        let filler = "x".repeat(100_000);
        let pieces: Vec<String> =
            [format!("{{\"m\":\"{filler}"), filler.clone(), format!("{filler}\"}}")]
                .iter()
                .map(|part| event("function", part))
                .collect();
        let whole = event("function", &format!("\"{filler}\""));
        let bytes = body(&[pieces, vec![whole.clone()]].concat());
        let length = bytes.len();
        let taken = intake().take(bytes, 0);
        assert_eq!(texts(&taken)[1], whole.strip_suffix('}').unwrap());
        assert_eq!(
            (taken.batch.remaining().len(), taken.unparsed, taken.batch.bytes().len()),
            (2, 0, length)
        );
        // One bad byte costs one event's copy.
        let mut bytes = body(&[event("function", r#""bad byte: X""#), whole]);
        let bad = bytes.iter().position(|byte| *byte == b'X').unwrap();
        bytes[bad] = 0xff;
        let length = bytes.len();
        let taken = intake().take(bytes, 0);
        assert_eq!(
            texts(&taken)[0],
            event("function", "\"bad byte: \u{fffd}\"").strip_suffix('}').unwrap()
        );
        assert!(
            taken.batch.bytes().len() < length + 100,
            "{} of {length}",
            taken.batch.bytes().len()
        );
    }

    #[test]
    fn a_part_gives_a_bounded_number_of_events_and_leaves_the_rest() {
        let all = vec![event("function", "1"); MAX_EVENTS + 5];
        for body in [body(&all), [&body(&all)[..1], b"#,", &body(&all)[1..]].concat()] {
            let mut intake = intake();
            let part = Part::alone(Begins::Body, Behind::NextBody, body.len());
            let (first, rest) = intake.take_part(body, Vec::new(), 0, part);
            assert_eq!(first.batch.remaining().len(), MAX_EVENTS);
            let part = Part { begins: rest.begins, ..part };
            let (second, rest) = intake.take_part(rest.bytes, Vec::new(), 0, part);
            let numbers: Vec<u64> =
                second.batch.remaining().iter().map(|event| event.number).collect();
            assert!((5..=6).contains(&numbers.len()) && rest.bytes.is_empty(), "{numbers:?}");
            assert_eq!(numbers[0], MAX_EVENTS as u64 + 1);
        }
        let starts = vec![event("platform.start", r#"{"requestId":"r1"}"#); MAX_SIGNALS + 5];
        let part = Part::alone(Begins::Body, Behind::NextBody, body(&starts).len());
        let (first, rest) = intake().take_part(body(&starts), Vec::new(), 0, part);
        assert_eq!((first.signals.len(), rest.is_stuck), (MAX_SIGNALS, false));
        assert!(!rest.bytes.is_empty());
    }

    /// What is not shipped is no event, and each of these lines ends the run of the one before: the
    /// steps of one part took megabytes.
    #[test]
    fn a_part_gives_a_bounded_number_of_steps_though_it_ships_nothing() {
        let filter = Filter::from(ALL).excluding("function").unwrap();
        let mut intake = Intake::new(filter, false).observing(true);
        let ids = ["r1", "r2"].map(|id| format!(r#"{{"requestId":"{id}"}}"#));
        intake.take(body(&ids.clone().map(|id| event("platform.start", &id))), 0);
        let lines = ids.map(|id| event("function", &id.replace('}', r#","level":"ERROR"}"#)));
        let mut bytes =
            body(&lines.iter().cycle().take(2 * MAX_STEPS).cloned().collect::<Vec<_>>());
        let (mut begins, mut excluded, mut steps) = (Begins::Body, 0, Vec::new());
        while !bytes.is_empty() {
            let part = Part::alone(begins, Behind::NextBody, bytes.len());
            let (taken, rest) = intake.take_part(bytes, Vec::new(), 0, part);
            excluded += taken.excluded;
            steps.push(taken.observed.steps.len());
            (bytes, begins) = (rest.bytes, rest.begins);
        }
        assert_eq!(excluded, 2 * MAX_STEPS as u64);
        assert!(steps.iter().all(|steps| *steps < MAX_STEPS + 4), "{steps:?}");
        assert!(steps.iter().sum::<usize>() >= 2 * MAX_STEPS, "{steps:?}");
    }

    /// What two parts of a body give, the first of which has no room to grow.
    fn without_room(whole: &[u8], at: usize) -> [ParsedBody; 2] {
        let mut intake = intake();
        let (window, behind) = whole.split_at(at);
        let part = Part::alone(Begins::Body, Behind::NoRoom, window.len());
        let (first, rest) = intake.take_part(window.to_vec(), Vec::new(), 0, part);
        let bytes = [&rest.bytes, behind].concat();
        let part = Part::alone(rest.begins, Behind::NextBody, bytes.len());
        let (second, rest) = intake.take_part(bytes, Vec::new(), 0, part);
        assert_eq!((rest.bytes.len(), intake.held_bytes()), (0, 0));
        [first, second]
    }

    /// The events of them that are whole.
    fn events(parts: &[ParsedBody]) -> Vec<String> {
        let is_event = |text: &String| !text.contains(r#""type":"unparsed""#);
        parts.iter().flat_map(texts).filter(is_event).collect()
    }

    #[test]
    fn what_does_not_fit_is_given_up_and_takes_nothing_with_it() {
        let (before, after) = (event("function", r#""before""#), event("function", r#""after""#));
        let large = event("function", &format!(r#""{}""#, "x".repeat(5000)));
        let whole = body(&[large, before.clone(), after.clone()]);
        let parts = without_room(&whole, 2000);
        let expected = [before, after].map(|event| event.trim_end_matches('}').to_owned());
        assert_eq!(events(&parts), expected);
        assert_eq!(parts.map(|part| part.unparsed), [1, 1]);
    }

    #[test]
    fn the_next_event_begins_at_the_end_of_a_window_without_room() {
        let lost = event("function", &format!(r#"{{"m":"{}"#, "A".repeat(900)));
        let broken = event("function", &format!(r#"{{"m":#{}"#, "A".repeat(900)));
        let next = event("function", r#""next""#);
        for first in [lost, broken] {
            for separator in [",", " ,\n "] {
                let whole = format!("[{}]", [&*first, &next, &next].join(separator)).into_bytes();
                for at in first.len() + 1..first.len() + next.len() + 5 {
                    let parts = without_room(&whole, at);
                    let expected = next.strip_suffix('}').unwrap();
                    assert_eq!(events(&parts), [expected, expected], "a window of {at}");
                    assert_eq!(parts[0].unparsed + parts[1].unparsed, 1, "a window of {at}");
                }
            }
        }
    }

    #[test]
    fn what_a_record_holds_that_was_given_up_is_no_event() {
        let order = r#"{"type":"platform.runtimeDone","record":{"requestId":"r","n":1}}"#;
        let large = event("function", &format!("[{}]", vec![order; 100].join(",")));
        let next = event("function", r#""next""#);
        let whole = body(&[large, next.clone()]);
        for at in (600..whole.len() - 600).step_by(7) {
            let parts = without_room(&whole, at);
            assert_eq!(events(&parts), [next.strip_suffix('}').unwrap()], "a window of {at}");
            assert_eq!(parts.map(|part| part.unparsed), [1, 1], "a window of {at}");
        }
    }

    #[test]
    fn an_end_that_does_not_parse_is_found_with_its_status() {
        let mut intake = intake();
        intake.take(body(&[event("platform.start", r#"{"requestId":"6d68ca91-49c9"}"#)]), 0);
        for (record, request_id, failed) in [
            (r#"{"requestId":"6d68ca91-49c9","status":"timeout",#"#, "6d68ca91-49c9", true),
            (r#"{"requestId":"other","status":"success",#"#, "other", false),
            (r#"{"requestId":"6d68ca"#, "6d68ca91-49c9", false),
            (r"{", "6d68ca91-49c9", false),
        ] {
            let taken = intake
                .take(body(&[event("platform.runtimeDone", record), event("function", "1")]), 0);
            let done = Signal::RuntimeDone { request_id: request_id.into(), at: None, failed };
            assert_eq!(taken.signals, [Signal::Damaged, done], "{record}");
            assert_eq!(taken.batch.remaining().len(), 2);
        }
    }

    #[test]
    fn an_envelopes_keys_that_come_twice_are_kept() {
        let odd = r#"[{"time":"t","type":"function","record":"one","record":"two"}]"#;
        assert_eq!(
            texts(&intake().take(odd.into(), 0)),
            [r#"{"time":"t","type":"function","record":"one","lambda.record":"two""#]
        );
    }

    #[test]
    fn keys_that_lambda_may_learn_to_say_are_kept_and_bounded() {
        let with = |count: usize| {
            let keys: String = (0..count).map(|n| format!(r#","k{n}":{n}"#)).collect();
            format!(r#"{{"time":"t","type":"function","record":""{keys}}}"#)
        };
        let next = event("function", r#""next""#);
        let taken = intake().take(body(&[with(64), next.clone()]), 0);
        assert_eq!((texts(&taken)[0].clone() + "}", taken.unparsed), (with(64), 0));
        // More of them are none of Lambda's.
        let taken = intake().take(body(&[with(65), next.clone()]), 0);
        let [record] = parts(&taken, 0, |event| [event.record]);
        assert_eq!(serde_json::from_str::<String>(&record).unwrap(), with(65));
        assert_eq!((texts(&taken)[1].clone() + "}", taken.unparsed), (next, 1));
    }

    #[test]
    fn keys_are_known_in_any_spelling_and_stay_as_they_are() {
        let record = r#"{"request\u0049d":"r1"},"\ud800":1"#;
        let odd = format!(
            r#"[{{"t\u0069me":"t","type":"function","record":{record},"t\u0061gs":2,"é":3}}]"#
        );
        let mut intake = intake();
        intake.invoked("r1");
        let taken = intake.take(odd.into(), 0);
        let more = r#""lambda.t\u0061gs":2,"é":3"#;
        let text = format!(r#"{{"time":"t","type":"function","record":{record},{more}"#);
        assert_eq!(texts(&taken), [text]);
        assert_eq!(parts(&taken, 0, |event| [event.request_id]), ["r1"]);
    }
}
