//! Lambda's envelope `{"time":…,"type":…,"record":…}`: found in one pass, whatever the order and
//! spelling of its keys; then put into Lambda's own order where it stands, or behind the body if it
//! gets longer by that. Pure.

use std::ops::Range;

use super::appendix::{Appendix, on_one_line};
use super::header::skip_blanks;
use super::json::{Json, is_key};
use crate::clock::{self, EpochMs};

/// What each event has, and what the extension itself adds.
const TAKEN_KEYS: [&str; 17] = [
    "time",
    "type",
    "record",
    "requestId",
    "eventId",
    "traceId",
    "tenantId",
    "executionArn",
    "functionName",
    "functionVersion",
    "functionArn",
    "accountId",
    "region",
    "logStream",
    "coldStart",
    "tags",
    "truncatedBytes",
];

/// Lambda may add keys to its envelope. An object with more of them is none of Lambda's: each key
/// takes memory while the event is read.
const MAX_OTHER_KEYS: usize = 64;

/// The keys as Lambda writes them, but for the byte before: a brace or a comma. They are compared
/// as numbers; of the last, its end is missing.
const TIME: u64 = u64::from_le_bytes(*b"\0\"time\":");
const TYPE: u64 = u64::from_le_bytes(*b"\0\"type\":");
const RECORD: u64 = u64::from_le_bytes(*b"\0\"record");
const RECORD_END: [u8; 2] = *b"\":";

/// Where the parts of an event lie in the bytes that it was read from, or now. What is not there is
/// empty. It serves for one event after the other.
#[derive(Debug, Default)]
pub(super) struct Envelope {
    /// Braces included.
    object: Range<usize>,
    time: Range<usize>,
    /// A string, quotes included.
    kind: Range<usize>,
    record: Range<usize>,
    log: Option<Log>,
    /// There are escapes in it.
    has_escapes: bool,
    /// It stands in the body just as it is to be shipped, but for line ends.
    is_in_place: bool,
    /// At most [`MAX_OTHER_KEYS`].
    others: Vec<Other>,
}

/// What else an envelope has.
#[derive(Debug)]
struct Other {
    /// Between its quotes.
    key: Range<usize>,
    /// It is there already, or the extension adds it itself: Lambda's value gets another name.
    is_taken: bool,
    value: Range<usize>,
}

/// Whose log an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Log {
    Function,
    Extension,
}

impl Log {
    const FUNCTION: &[u8; 10] = b"\"function\"";
    const EXTENSION: &[u8; 11] = b"\"extension\"";

    /// The one that the type at `at` says.
    #[inline(always)]
    fn at(bytes: &[u8], at: usize) -> Option<Log> {
        // Of a known length, so that they are compared in place: the C library that is linked in
        // compares byte by byte.
        let rest = bytes.get(at..)?;
        if rest.first_chunk() == Some(Log::FUNCTION) {
            return Some(Log::Function);
        }
        (rest.first_chunk() == Some(Log::EXTENSION)).then_some(Log::Extension)
    }

    /// Of that type, quotes included.
    fn length(self) -> usize {
        if self == Log::Function { Log::FUNCTION.len() } else { Log::EXTENSION.len() }
    }
}

impl Envelope {
    /// Reads the object that begins at `start`, and returns the index behind it. `None` for one
    /// that has no type, or more keys than an event, and where the JSON is broken.
    pub(super) fn read(&mut self, mut json: Json<'_>, start: usize) -> Option<usize> {
        let bytes = json.bytes();
        if bytes.get(start) != Some(&b'{') {
            return None;
        }
        (self.time, self.kind, self.record) = (0..0, 0..0, 0..0);
        self.others.clear();
        // The brace, or the comma before a key; then the end of a value.
        let mut at = start;
        loop {
            let rest = bytes.get(at..)?;
            let word = rest.first_chunk().map_or(0, |word| u64::from_le_bytes(*word)) & !0xff;
            at = match word {
                TIME if self.time.is_empty() => {
                    self.time = json.value(at + 8)?;
                    self.time.end
                }
                TYPE if self.kind.is_empty() => {
                    self.kind = match Log::at(bytes, at + 8) {
                        Some(log) => at + 8..at + 8 + log.length(),
                        None => json.value(at + 8)?,
                    };
                    self.kind.end
                }
                RECORD
                    if self.record.is_empty()
                        && rest.get(8..)?.first_chunk() == Some(&RECORD_END) =>
                {
                    self.record = json.value(at + 10)?;
                    self.record.end
                }
                _ => self.add_any(&mut json, at)?,
            };
            match bytes.get(at)? {
                b',' => continue,
                b'}' => break,
                _ => at = skip_blanks(bytes, at),
            }
            match bytes.get(at)? {
                b',' => {}
                b'}' => break,
                _ => return None,
            }
        }
        self.object = start..at + 1;
        self.log = Log::at(bytes, self.kind.start);
        self.has_escapes = json.has_escapes;
        self.is_in_place = self.is_in_order();
        let has_type = bytes.get(self.kind.clone())?.first() == Some(&b'"');
        has_type.then_some(at + 1)
    }

    /// Adds the key in any spelling behind the brace or comma at `at`, with blanks around it and
    /// escapes in it, and its value. Returns the index behind them. Of those that come twice the
    /// first one counts. `None` if there are too many.
    #[inline(never)]
    fn add_any(&mut self, json: &mut Json<'_>, at: usize) -> Option<usize> {
        let bytes = json.bytes();
        let (key, at) = json.key(skip_blanks(bytes, at + 1))?;
        let value = json.value(at)?;
        let end = value.end;
        let name = bytes.get(key.clone())?;
        if self.time.is_empty() && is_key(name, "time") {
            self.time = value;
        } else if self.kind.is_empty() && is_key(name, "type") {
            self.kind = value;
        } else if self.record.is_empty() && is_key(name, "record") {
            self.record = value;
        } else if self.others.len() < MAX_OTHER_KEYS {
            let is_taken = TAKEN_KEYS.iter().any(|taken| is_key(name, taken));
            self.others.push(Other { key, is_taken, value });
        } else {
            return None;
        }
        Some(end)
    }

    /// The time, as far as it is one.
    pub(super) fn epoch_ms(&self, bytes: &[u8]) -> Option<EpochMs> {
        clock::parse_iso8601(text(bytes, &self.time).trim_matches('"'))
    }

    /// The type, as it stands between its quotes.
    pub(super) fn kind<'b>(&self, bytes: &'b [u8]) -> &'b str {
        text(bytes, &(self.kind.start + 1..self.kind.end.saturating_sub(1)))
    }

    /// The record's JSON; empty if there is none.
    pub(super) fn record<'b>(&self, bytes: &'b [u8]) -> &'b str {
        text(bytes, &self.record)
    }

    /// All of it.
    pub(super) fn object(&self) -> Range<usize> {
        self.object.clone()
    }

    /// Whether it is what somebody wrote.
    pub(super) fn is_log(&self) -> bool {
        self.log.is_some()
    }

    /// Whose log it is, if it is one of text.
    pub(super) fn text_log(&self, bytes: &[u8]) -> Option<Log> {
        let is_text = !self.record.is_empty() && bytes.get(self.record.start) == Some(&b'"');
        self.log.filter(|_| is_text)
    }

    /// Whether there are escapes in it.
    pub(super) fn has_escapes(&self) -> bool {
        self.has_escapes
    }

    /// The text of such a log, between its quotes.
    pub(super) fn line<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        bytes.get(self.record.start + 1..self.record.end.saturating_sub(1)).unwrap_or_default()
    }

    /// The object without its closing brace, and the record, if it stands in the body just as it is
    /// to be shipped.
    #[inline(always)]
    pub(super) fn in_place(&self) -> Option<(Range<usize>, Range<usize>)> {
        self.is_in_place.then(|| (self.object.start..self.object.end - 1, self.record.clone()))
    }

    /// Notes that it was read from a copy of the body's bytes.
    pub(super) fn mark_as_copy(&mut self) {
        self.is_in_place = false;
    }

    /// Writes it as Lambda would, on one line, where it stands in the body, if there is room: there
    /// is, unless keys get other names. `has_lines`: there may be line ends in it. `buffer` takes
    /// what stands around the record, and serves again.
    pub(super) fn put_in_order(&mut self, body: &mut [u8], has_lines: bool, buffer: &mut Vec<u8>) {
        if !self.is_in_place {
            self.move_parts(body, buffer);
        }
        if has_lines && self.is_in_place {
            on_one_line(body.get_mut(self.object.clone()).unwrap_or_default());
        }
    }

    #[inline(never)]
    fn move_parts(&mut self, body: &mut [u8], buffer: &mut Vec<u8>) {
        let (head, tail) = self.lengths();
        let start = self.object.start + head;
        let record = start..start + self.record.len();
        if record.end + tail >= self.object.end {
            return;
        }
        // What comes around the record is written elsewhere first: the record moves over it.
        buffer.resize(buffer.len().max(head + tail), 0);
        let Some((before, rest)) = buffer.split_at_mut_checked(head) else { return };
        let Some(behind) = rest.get_mut(..tail) else { return };
        self.write_head(body, before);
        self.write_tail(body, behind);
        body.copy_within(self.record.clone(), record.start);
        Out::new(body.get_mut(self.object.start..).unwrap_or_default()).put(before);
        Out::new(body.get_mut(record.end..).unwrap_or_default()).put(behind);
        // As `write_head` wrote them.
        let kind = record.start - if self.record.is_empty() { 0 } else { BEFORE_RECORD.len() };
        self.kind = kind - self.kind.len()..kind;
        let time = self.object.start + BEFORE_TIME.len();
        self.time = if self.time.is_empty() { 0..0 } else { time..time + self.time.len() };
        (self.object.end, self.record, self.is_in_place) = (record.end + tail + 1, record, true);
    }

    /// Whether it stands as Lambda writes it, but for line ends in its values: with nothing
    /// between those and the keys, of which none is longer.
    fn is_in_order(&self) -> bool {
        self.time.start == self.object.start + BEFORE_TIME.len()
            && self.kind.start == self.time.end + BEFORE_TYPE.len()
            && self.record.start == self.kind.end + BEFORE_RECORD.len()
            && self.object.end == self.record.end + 1
    }

    /// Writes it as Lambda would, on one line, without its closing brace, and says where it and its
    /// record are.
    pub(super) fn rebuild(
        &self,
        bytes: &[u8],
        appendix: &mut Appendix,
    ) -> (Range<usize>, Range<usize>) {
        let (head, tail) = self.lengths();
        let (range, place) = appendix.room(head + self.record.len() + tail);
        let record = range.start + head..range.end - tail;
        self.write_head(bytes, place);
        let mut out = Out { place, at: head };
        out.put(bytes.get(self.record.clone()).unwrap_or_default());
        self.write_tail(bytes, place.get_mut(head + record.len()..).unwrap_or_default());
        on_one_line(place);
        (range, record)
    }

    /// Of what comes before the record, and behind it.
    fn lengths(&self) -> (usize, usize) {
        let mut head = BEFORE_TYPE.len() + self.kind.len();
        if !self.time.is_empty() {
            head += BEFORE_TIME.len() + self.time.len();
        }
        if !self.record.is_empty() {
            head += BEFORE_RECORD.len();
        }
        let of = |other: &Other| {
            let before = if other.is_taken { BEFORE_TAKEN.len() } else { BEFORE_KEY.len() };
            before + other.key.len() + BEHIND_KEY.len() + other.value.len()
        };
        (head, self.others.iter().map(of).sum())
    }

    fn write_head(&self, bytes: &[u8], place: &mut [u8]) {
        let mut out = Out::new(place);
        if !self.time.is_empty() {
            out.word(BEFORE_TIME);
            out.put(bytes.get(self.time.clone()).unwrap_or_default());
        }
        out.word(if self.time.is_empty() { BEFORE_FIRST_TYPE } else { BEFORE_TYPE });
        out.put(bytes.get(self.kind.clone()).unwrap_or_default());
        if !self.record.is_empty() {
            out.word(BEFORE_RECORD);
        }
    }

    fn write_tail(&self, bytes: &[u8], place: &mut [u8]) {
        let mut out = Out::new(place);
        for Other { key, is_taken, value } in &self.others {
            out.put(if *is_taken { BEFORE_TAKEN } else { BEFORE_KEY });
            out.put(bytes.get(key.clone()).unwrap_or_default());
            out.put(BEHIND_KEY);
            out.put(bytes.get(value.clone()).unwrap_or_default());
        }
    }
}

const BEFORE_TIME: &[u8; 8] = b"{\"time\":";
const BEFORE_TYPE: &[u8; 8] = b",\"type\":";
const BEFORE_FIRST_TYPE: &[u8; 8] = b"{\"type\":";
const BEFORE_RECORD: &[u8; 10] = b",\"record\":";
const BEFORE_KEY: &[u8] = b",\"";
const BEFORE_TAKEN: &[u8] = b",\"lambda.";
const BEHIND_KEY: &[u8] = b"\":";

/// Where something is written, of the right length.
struct Out<'p> {
    place: &'p mut [u8],
    at: usize,
}

impl<'p> Out<'p> {
    fn new(place: &'p mut [u8]) -> Out<'p> {
        Out { place, at: 0 }
    }

    fn put(&mut self, part: &[u8]) {
        let end = self.at + part.len();
        if let Some(place) = self.place.get_mut(self.at..end) {
            place.copy_from_slice(part);
        }
        self.at = end;
    }

    /// Of a known length, so that it is stored in place.
    #[inline(always)]
    fn word<const LENGTH: usize>(&mut self, word: &[u8; LENGTH]) {
        if let Some(place) = self.place.get_mut(self.at..).and_then(<[u8]>::first_chunk_mut) {
            *place = *word;
        }
        self.at += LENGTH;
    }
}

/// Of bytes that are UTF-8.
fn text<'b>(bytes: &'b [u8], range: &Range<usize>) -> &'b str {
    bytes.get(range.clone()).and_then(|part| std::str::from_utf8(part).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::samples::{body, event, intake, parts, texts};

    /// The keys of an event, one behind the other, in every order.
    fn orders(keys: [&str; 3]) -> [String; 6] {
        [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
            .map(|[a, b, c]| format!("{{{},{},{}}}", keys[a], keys[b], keys[c]))
    }

    #[test]
    fn an_event_is_the_same_in_every_order_and_spelling_of_its_keys() {
        let time = r#""2026-11-23T09:15:45.012Z""#;
        let next = event("extension", r#""next""#);
        for record in [
            r#""a \"text\" é""#,
            r#"{"requestId":"r1","traceId":"1-2","tenantId":"t","n":[{"a":1}]}"#,
            "12",
        ] {
            let usual = event("function", record);
            let expected = [&usual, &next].map(|event| event.strip_suffix('}').unwrap().to_owned());
            for keys in [
                ["\"time\":", "\"type\":", "\"record\":"],
                ["\"t\\u0069me\":", "\"\\u0074ype\":", "\"recor\\u0064\":"],
                [" \"time\"\t:\n", "\"type\" : ", "\n\"record\":\r\n"],
            ] {
                let pairs = [time, "\"function\"", record];
                let pairs = [0, 1, 2].map(|n| format!("{}{}", keys[n], pairs[n]));
                for other in orders([&pairs[0], &pairs[1], &pairs[2]]) {
                    let mut intake = intake();
                    intake.take(body(&[event("platform.start", r#"{"requestId":"r1"}"#)]), 0);
                    let bytes = body(&[other.clone(), next.clone()]);
                    let length = bytes.len();
                    let taken = intake.take(bytes, 0);
                    assert_eq!(texts(&taken), expected, "{other}");
                    let spans = |n| parts(&taken, n, |e| [e.record, e.request_id, e.trace_id]);
                    let trace = if record.starts_with('{') { "1-2" } else { "" };
                    assert_eq!(spans(0), [record, "r1", trace], "{other}");
                    // They stay where they are.
                    let ids = taken.batch.bytes().len() - length;
                    assert!(ids <= "r1".len(), "{ids} for {other}");
                }
            }
        }
    }

    /// It was looked for where the type of an event without one would be: in the first byte.
    #[test]
    fn an_event_without_a_type_is_none() {
        for first in ["\"x\",", "[", ""] {
            let next = event("function", "1");
            let bytes = format!(r#"{first}{{"time":"t","record":"no type"}},{next}]"#);
            let taken = intake().take(bytes.clone().into_bytes(), 0);
            assert_eq!((taken.unparsed, texts(&taken).len()), (1, 2), "{bytes}");
            assert_eq!(texts(&taken)[1], next.strip_suffix('}').unwrap(), "{bytes}");
        }
    }

    /// Only keys that get another name make an event longer: it cannot stay where it is.
    #[test]
    fn what_gets_longer_is_written_behind_the_body() {
        let longer = r#"{"type":"function","tags":1,"record":[1,2],"time":"t"}"#;
        let shorter = r#"{ "type" : "function" , "tags" : 1 , "record" : [1,2] , "time":"t" }"#;
        let text = r#"{"time":"t","type":"function","record":[1,2],"lambda.tags":1"#;
        for (event, is_longer) in [(longer, true), (shorter, false)] {
            let taken = intake().take(body(&[event.to_owned(), "{\"type\":\"x\"}".into()]), 0);
            assert_eq!(texts(&taken), [text, r#"{"type":"x""#]);
            let is_behind = taken.batch.remaining()[0].text.start as usize >= event.len();
            assert_eq!(is_behind, is_longer, "{event}");
        }
    }
}
