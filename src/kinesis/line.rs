//! Events -> lines: what the extension adds to an event, and the events that are its own. Pure.

use std::io::Write as _;
use std::sync::Arc;

use super::record;
use crate::clock::{self, EpochMs};
use crate::event::{Event, is_same};
use crate::sandbox::{Facts, Sandbox};

/// The type of the event that says what a sandbox is, for `ENVELOPE=slim`.
pub const SANDBOX_EVENT: &str = "kinesis-telemetry.sandbox";
/// The type of the event that accounts for all others.
pub const LEDGER_EVENT: &str = "kinesis-telemetry.ledger";

/// What the id of the sandbox event ends with.
const SANDBOX_NAME: &str = "sandbox";

/// Digits of the largest number.
const LONGEST_NUMBER: usize = 20;
/// Bytes of `,"truncatedBytes":18446744073709551615` and of the quotes around a cut record.
const CUT_OVERHEAD: usize = 40;
/// What an event begins with whose own beginning is too long.
const UNPARSED_HEAD: &[u8] = b"{\"type\":\"unparsed\",\"record\":";

/// What spreads records over shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionKey {
    /// One key a process: order is kept within a sandbox.
    Sandbox,
    /// A fresh key each record.
    Random,
    /// The function's name.
    Function,
    /// The request id; events without one go by the sandbox.
    Request,
}

/// What each event carries beside Lambda's three keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// Everything that is known.
    Full,
    /// `requestId`, `eventId` and `traceId`; the rest stands once in a sandbox event.
    Slim,
}

/// Writes events as lines, each ending in `\n`.
#[derive(Debug)]
pub struct LineWriter {
    kind: Envelope,
    sandbox: Arc<Sandbox>,
    facts: Facts,
    generation: u64,
    /// Request id and number of restores of the event before: most events have the same as that.
    fitted: Option<(Vec<u8>, u16)>,
    /// `,"requestId":"…","eventId":"…-`
    head: Vec<u8>,
    /// The ARN that `identity` was made with.
    arn: Option<String>,
    /// `,"functionName":…,…,"logStream":…`
    identity: Vec<u8>,
    /// `,"tags":{…}`
    tags: Vec<u8>,
    /// What ends an event that has no ids of its own, from the quote behind its number on: an
    /// ordinary one, and one of a cold start.
    tails: [Vec<u8>; 2],
}

impl LineWriter {
    /// Nothing is read of the sandbox until the first event.
    #[must_use]
    pub fn new(kind: Envelope, sandbox: Arc<Sandbox>) -> LineWriter {
        let (head, identity, tags) = (Vec::new(), Vec::new(), Vec::new());
        let (facts, tails) = (Facts::default(), Default::default());
        let mut envelope = LineWriter {
            kind,
            sandbox,
            facts,
            generation: 0,
            fitted: None,
            head,
            arn: None,
            identity,
            tags,
            tails,
        };
        envelope.make_tails();
        envelope
    }

    /// Looks whether facts of the sandbox have changed. To be called before a run of events.
    pub fn update(&mut self) {
        let generation = self.sandbox.generation();
        if generation != self.generation {
            self.facts = self.sandbox.facts();
            self.generation = generation;
            self.fitted = None;
            self.arn = self.facts.arn_of(None).map(str::to_owned);
            self.tags = tags(&self.facts.tags);
            self.make_identity();
        }
    }

    /// About how many bytes it adds to an event.
    #[must_use]
    pub fn added_bytes(&self) -> usize {
        self.head.len() + LONGEST_NUMBER + self.tails.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Appends `event`, whose spans point into `bytes`, as one line.
    pub fn line(&mut self, event: &Event, bytes: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(event.text.of(bytes));
        self.line_end(event, bytes, out);
    }

    /// Appends what stands in a line behind the event's own text.
    pub fn line_end(&mut self, event: &Event, bytes: &[u8], out: &mut Vec<u8>) {
        self.finish(event, bytes, None, out);
    }

    /// As [`LineWriter::line`], cut so that the line has at most `limit` bytes: the record becomes
    /// a JSON string of the first bytes that fit. Keys that are not known stay if they take less
    /// than half of the room. An event whose time and type alone are too long becomes a string as a
    /// whole, of type `unparsed`.
    pub fn cut_line(&mut self, event: &Event, bytes: &[u8], limit: usize, out: &mut Vec<u8>) {
        let start = out.len();
        self.finish(event, bytes, None, out);
        let room = limit.saturating_sub(out.len() - start + CUT_OVERHEAD);
        out.truncate(start);
        let text = event.text.of(bytes);
        let (head, rest) = text
            .split_at_checked(event.record.start.saturating_sub(event.text.start) as usize)
            .unwrap_or_default();
        let (record, others) = rest.split_at_checked(event.record.len as usize).unwrap_or_default();
        // What was damaged may have been cut before.
        let before = others
            .strip_prefix(b",\"truncatedBytes\":")
            .and_then(|count| std::str::from_utf8(count).ok()?.parse::<usize>().ok());
        let others = if before.is_some() { &[] } else { others };
        let missing = if head.len() > room {
            out.extend_from_slice(UNPARSED_HEAD);
            let taken = push_cut(&[text, b"}"], room.saturating_sub(UNPARSED_HEAD.len()), out);
            text.len() + 1 - taken
        } else {
            out.extend_from_slice(head);
            let kept = if others.len() <= room / 2 && head.len() + others.len() <= room {
                others
            } else {
                &[]
            };
            // An event that has no record gets none.
            let taken = if record.is_empty() {
                0
            } else {
                push_cut(&[record], room - head.len() - kept.len(), out)
            };
            out.extend_from_slice(kept);
            record.len() - taken + others.len() - kept.len()
        };
        self.finish(event, bytes, Some(missing + before.unwrap_or(0)), out);
    }

    /// The partition key of `event`, or `None` for a new one for each record.
    #[must_use]
    pub fn partition_key<'a>(
        &'a self,
        by: PartitionKey,
        event: &'a Event,
        bytes: &'a [u8],
    ) -> Option<&'a str> {
        let sandbox = self.id(event.restores);
        match by {
            PartitionKey::Random => None,
            PartitionKey::Sandbox => Some(sandbox),
            PartitionKey::Function => Some(
                self.facts
                    .function_name
                    .as_deref()
                    .filter(|name| is_plain_key(name))
                    .unwrap_or(sandbox),
            ),
            PartitionKey::Request => {
                let id = std::str::from_utf8(event.request_id.of(bytes)).ok();
                Some(id.filter(|id| is_plain_key(id)).unwrap_or(sandbox))
            }
        }
    }

    /// The partition key of the extension's own events.
    #[must_use]
    pub fn own_partition_key(&self) -> &str {
        self.id(self.facts.restores())
    }

    /// The first half of the event ids after so many restores.
    fn id(&self, restores: u16) -> &str {
        self.facts.id_after(restores).unwrap_or(self.sandbox.id())
    }

    /// One of the extension's own events, as one line. It takes no number: its event id is
    /// `<sandbox>-<name>`.
    pub fn own_line(
        &mut self,
        kind: &str,
        record: &str,
        name: &str,
        now: EpochMs,
        out: &mut Vec<u8>,
    ) {
        self.update();
        let restores = self.facts.restores();
        self.line_of(restores, kind, record, name, now, out);
    }

    /// The event that says what the sandbox is, under the id that it had after so many restores.
    pub fn sandbox_line(&mut self, restores: u16, now: EpochMs, out: &mut Vec<u8>) {
        self.update();
        self.line_of(restores, SANDBOX_EVENT, "{}", SANDBOX_NAME, now, out);
    }

    /// Whether the event that [`LineWriter::sandbox_line`] writes is among these lines.
    #[must_use]
    pub fn has_sandbox_line(&mut self, restores: u16, lines: &[u8]) -> bool {
        self.update();
        let id = format!("\"eventId\":\"{}-{SANDBOX_NAME}\"", self.id(restores));
        lines.split(|byte| *byte == b'\n').any(|line| {
            record::is_internal(line) && memchr::memmem::find(line, id.as_bytes()).is_some()
        })
    }

    fn line_of(
        &mut self,
        restores: u16,
        kind: &str,
        record: &str,
        name: &str,
        now: EpochMs,
        out: &mut Vec<u8>,
    ) {
        self.fit(b"", restores);
        let _ = write!(
            out,
            r#"{{"time":"{}","type":"{kind}","record":{record},"eventId":"{}-{name}""#,
            clock::iso8601(now),
            self.id(restores)
        );
        self.push_identity(false, out);
        out.extend_from_slice(b"}\n");
    }

    fn finish(&mut self, event: &Event, bytes: &[u8], truncated: Option<usize>, out: &mut Vec<u8>) {
        self.fit(event.request_id.of(bytes), event.restores);
        out.extend_from_slice(&self.head);
        push_number(event.number, out);
        let full = self.kind == Envelope::Full;
        if event.trace_id.is_empty()
            && event.tenant_id.is_empty()
            && event.execution_arn.is_empty()
            && truncated.is_none()
        {
            let [ordinary, cold] = &self.tails;
            return out.extend_from_slice(if event.cold_start { cold } else { ordinary });
        }
        out.push(b'"');
        let lifted = [
            ("traceId", event.trace_id, true),
            ("tenantId", event.tenant_id, full),
            ("executionArn", event.execution_arn, full),
        ];
        for (key, value, wanted) in lifted {
            if wanted && !value.is_empty() {
                for part in [b",\"", key.as_bytes(), b"\":\"", value.of(bytes), b"\""] {
                    out.extend_from_slice(part);
                }
            }
        }
        if full {
            self.push_identity(event.cold_start, out);
        }
        if let Some(count) = truncated {
            let _ = write!(out, ",\"truncatedBytes\":{count}");
        }
        out.extend_from_slice(b"}\n");
    }

    fn push_identity(&self, cold_start: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.identity);
        if cold_start {
            out.extend_from_slice(b",\"coldStart\":true");
        }
        out.extend_from_slice(&self.tags);
    }

    /// Makes `head` and `identity` fit the invocation and the restore: two invocations may have
    /// come by two ARNs.
    fn fit(&mut self, request_id: &[u8], restores: u16) {
        if self
            .fitted
            .as_ref()
            .is_some_and(|(id, after)| *after == restores && is_same(id, request_id))
        {
            return;
        }
        let mut head = std::mem::take(&mut self.head);
        head.clear();
        if !request_id.is_empty() {
            [b",\"requestId\":\"", request_id, b"\""]
                .iter()
                .for_each(|part| head.extend_from_slice(part));
        }
        [b",\"eventId\":\"", self.id(restores).as_bytes(), b"-"]
            .iter()
            .for_each(|part| head.extend_from_slice(part));
        self.head = head;
        let arn =
            self.facts.arn_of(std::str::from_utf8(request_id).ok().filter(|id| !id.is_empty()));
        if arn != self.arn.as_deref() {
            self.arn = arn.map(str::to_owned);
            self.make_identity();
        }
        self.fitted = Some((request_id.to_vec(), restores));
    }

    fn make_identity(&mut self) {
        self.identity = identity(&self.facts, self.arn.as_deref());
        self.make_tails();
    }

    fn make_tails(&mut self) {
        self.tails = [false, true].map(|cold_start| {
            let mut tail = vec![b'"'];
            if self.kind == Envelope::Full {
                self.push_identity(cold_start, &mut tail);
            }
            tail.extend_from_slice(b"}\n");
            tail
        });
    }
}

/// In decimal; `write!` takes four times as long, for each event.
fn push_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; LONGEST_NUMBER];
    let mut free = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        free -= 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(free..).unwrap_or_default());
}

fn identity(facts: &Facts, arn: Option<&str>) -> Vec<u8> {
    let pairs = [
        ("functionName", facts.function_name.as_deref()),
        ("functionVersion", facts.function_version.as_deref()),
        ("functionArn", arn),
        ("accountId", facts.account_id.as_deref()),
        ("region", facts.region.as_deref()),
        ("logStream", facts.log_stream.as_deref()),
    ];
    let mut out = Vec::new();
    for (key, value) in pairs {
        if let Some(value) = value.and_then(|value| serde_json::to_string(value).ok()) {
            let _ = write!(out, r#","{key}":{value}"#);
        }
    }
    out
}

fn tags(tags: &[(String, String)]) -> Vec<u8> {
    let pair = |(key, value): &(String, String)| {
        Some(format!("{}:{}", serde_json::to_string(key).ok()?, serde_json::to_string(value).ok()?))
    };
    let pairs: Vec<String> = tags.iter().filter_map(pair).collect();
    if pairs.is_empty() {
        Vec::new()
    } else {
        format!(r#","tags":{{{}}}"#, pairs.join(",")).into_bytes()
    }
}

/// Whether `text` can be a partition key and stand between quotes as it is. AWS allows 256
/// characters; whether it counts UTF-8 bytes or UTF-16 units is not written, so only ASCII is
/// taken.
fn is_plain_key(text: &str) -> bool {
    (1..=256).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\')
}

/// Appends the first bytes of a record, which may come in parts, as a JSON string of at most
/// `limit` bytes between its quotes. Comes back with how many of the record's bytes it holds. Of a
/// record that is a string, its text; of any other, its JSON.
fn push_cut(record: &[&[u8]], limit: usize, out: &mut Vec<u8>) -> usize {
    let quoted = match record {
        [one] => {
            std::str::from_utf8(one).ok().and_then(|text| text.strip_prefix('"')?.strip_suffix('"'))
        }
        _ => None,
    };
    out.push(b'"');
    let taken = if let Some(inner) = quoted {
        let end = boundary(inner, limit);
        out.extend_from_slice(inner.get(..end).unwrap_or_default().as_bytes());
        // The quotes of the record count as its bytes too.
        end + 2
    } else {
        let text =
            record.iter().flat_map(|part| std::str::from_utf8(part).unwrap_or_default().chars());
        let first = out.len();
        let mut taken = 0;
        for c in text {
            let before = out.len();
            match c {
                '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
                // Between the tokens of JSON stand no others.
                '\t' => out.extend_from_slice(b"\\t"),
                ..'\u{20}' => out.push(b' '),
                _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
            if out.len() - first > limit {
                out.truncate(before);
                break;
            }
            taken += c.len_utf8();
        }
        taken
    };
    out.push(b'"');
    taken
}

/// The longest prefix of a JSON string's inside, at most `limit` bytes, that ends neither in a
/// character nor in an escape nor in a surrogate pair.
fn boundary(inner: &str, limit: usize) -> usize {
    let mut end = 0;
    let mut rest = inner;
    while let Some(c) = rest.chars().next() {
        let length = match (surrogate(rest), rest.get(6..).and_then(surrogate)) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => 12,
            _ if rest.starts_with("\\u") => 6,
            _ if c == '\\' => 2,
            _ => c.len_utf8(),
        };
        if end + length > limit {
            return end;
        }
        end += length;
        rest = rest.get(length..).unwrap_or_default();
    }
    end
}

/// The number in an escape `\ud83c` at the start, if it is one of UTF-16's surrogates.
fn surrogate(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok().filter(|unit| (0xd800..0xe000).contains(unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Span;

    fn sandbox() -> Arc<Sandbox> {
        let sandbox = Sandbox::default();
        sandbox.learn(|facts| {
            facts.function_name = Some("orders".to_owned());
            facts.function_version = Some("$LATEST".to_owned());
            facts.region = Some("eu-west-1".to_owned());
            facts.tags = vec![("team".to_owned(), "pay\"ments".to_owned())];
        });
        sandbox.invoked("r1", "arn:aws:lambda:eu-west-1:123456789012:function:orders:live");
        Arc::new(sandbox)
    }

    /// The event, and the bytes that it points into.
    fn event(object: &[u8]) -> (Event, Vec<u8>) {
        let text = std::str::from_utf8(object).unwrap();
        let record = text.find("\"record\":").unwrap() + 9..object.len() - 1;
        let bytes = [object, b"r1"].concat();
        let event = Event {
            text: Span::new(&(0..object.len() - 1)),
            record: Span::new(&record),
            request_id: Span::new(&(object.len()..bytes.len())),
            number: 42,
            cold_start: true,
            ..Event::default()
        };
        (event, bytes)
    }

    #[test]
    fn full_says_everything_and_slim_only_what_differs() {
        let (event, bytes) = event(br#"{"time":"t","type":"function","record":"hello"}"#);
        let sandbox = sandbox();
        let mut out = Vec::new();
        let mut full = LineWriter::new(Envelope::Full, sandbox.clone());
        full.update();
        full.line(&event, &bytes, &mut out);
        let id = sandbox.id();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!(
                concat!(
                    r#"{{"time":"t","type":"function","record":"hello","requestId":"r1","eventId":"{id}-42","functionName":"orders","#,
                    r#""functionVersion":"$LATEST","functionArn":"arn:aws:lambda:eu-west-1:123456789012:function:orders:live","#,
                    r#""accountId":"123456789012","region":"eu-west-1","coldStart":true,"tags":{{"team":"pay\"ments"}}}}"#,
                    "\n"
                ),
                id = id
            )
        );
        let mut out = Vec::new();
        LineWriter::new(Envelope::Slim, sandbox.clone()).line(&event, &bytes, &mut out);
        let slim = format!(
            "{{\"time\":\"t\",\"type\":\"function\",\"record\":\"hello\",\"requestId\":\"r1\",\"eventId\":\"{id}-42\"}}\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), slim);
    }

    #[test]
    fn a_cut_line_fits_is_json_and_says_what_is_missing() {
        let records = [
            format!("\"{}\"", "aé€\\n\\u00e9\\\"".repeat(300)),
            format!("{{\"message\":\"{}\"}}", "b\\\"ü".repeat(500)),
            format!("[{}1]", "1,".repeat(2000)),
        ];
        for record in records {
            let (event, bytes) =
                event(format!(r#"{{"time":"t","type":"function","record":{record}}}"#).as_bytes());
            let mut envelope = LineWriter::new(Envelope::Full, sandbox());
            envelope.update();
            for limit in 1000..1040 {
                let mut out = Vec::new();
                envelope.cut_line(&event, &bytes, limit, &mut out);
                assert!(out.len() <= limit && out.len() > limit - 50, "{} of {limit}", out.len());
                let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
                let kept = value["record"].as_str().unwrap();
                let missing = usize::try_from(value["truncatedBytes"].as_u64().unwrap()).unwrap();
                let whole =
                    serde_json::from_str::<String>(&record).unwrap_or_else(|_| record.clone());
                assert!(whole.starts_with(kept));
                assert!(missing > 0 && missing < record.len());
            }
        }
    }

    /// Cut to so many bytes; checked to be one line of JSON of at most that.
    fn cut_to(limit: usize, event: &Event, bytes: &[u8]) -> serde_json::Value {
        let mut out = Vec::new();
        LineWriter::new(Envelope::Slim, Arc::new(Sandbox::default()))
            .cut_line(event, bytes, limit, &mut out);
        assert!(out.len() <= limit && out.ends_with(b"}\n"), "{} of {limit}", out.len());
        // Into a value: that takes no half of a surrogate pair.
        serde_json::from_slice(&out)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)))
    }

    #[test]
    fn a_cut_ends_in_no_surrogate_pair() {
        let record = format!("\"{}\"", "a\\ud83c\\udf89\\u00e9".repeat(60));
        let (event, bytes) =
            event(format!(r#"{{"time":"t","type":"function","record":{record}}}"#).as_bytes());
        for limit in 300..340 {
            let value = cut_to(limit, &event, &bytes);
            let whole = serde_json::from_str::<String>(&record).unwrap();
            assert!(whole.starts_with(value["record"].as_str().unwrap()));
        }
    }

    #[test]
    fn a_cut_leaves_all_characters_as_they_are() {
        let text = "\u{7f}\u{80}\u{9f}\u{85}é".repeat(100);
        let record = format!("{{\t\"message\":\"{text}\"}}");
        let (event, bytes) =
            event(format!(r#"{{"time":"t","type":"function","record":{record}}}"#).as_bytes());
        let value = cut_to(500, &event, &bytes);
        let kept = value["record"].as_str().unwrap();
        assert!(record.starts_with(kept) && kept.len() > 200, "{kept:?}");
        assert_eq!(value["truncatedBytes"], record.len() - kept.len());
    }

    #[test]
    fn a_cut_counts_the_keys_that_it_drops_and_keeps_those_that_fit() {
        let with = |others: &str| {
            let object = format!(
                r#"{{"time":"t","type":"function","record":"{}"{others}}}"#,
                "x".repeat(1000)
            );
            let (mut event, bytes) = event(object.as_bytes());
            let start = event.record.start as usize;
            event.record = Span::new(&(start..start + 1002));
            let value = cut_to(500, &event, &bytes);
            let kept = value["record"].as_str().unwrap().len();
            assert!(kept > 100);
            (value["new"].clone(), value["truncatedBytes"].as_u64().unwrap() - (1000 - kept as u64))
        };
        assert_eq!(with(r#","new":"kept""#), ("kept".into(), 0));
        let long = format!(r#","new":"{}""#, "y".repeat(300));
        assert_eq!(with(&long), (serde_json::Value::Null, long.len() as u64));
    }

    #[test]
    fn a_cut_event_is_json_with_any_part_too_long_or_missing() {
        let long = "z\\\"".repeat(400);
        let no_record = format!(r#"{{"time":"t","type":"novel","other":"{long}"}}"#);
        let (mut event, bytes) = event(&[no_record.as_bytes(), br#""record":}"#].concat());
        event.text = Span::new(&(0..no_record.len() - 1));
        let head = no_record.find(",\"other\"").unwrap();
        event.record = Span::new(&(head..head));
        let value = cut_to(400, &event, &bytes);
        assert_eq!((value.get("record"), value["type"].as_str()), (None, Some("novel")));
        assert_eq!(value["truncatedBytes"], no_record.len() - 1 - head);

        for object in [
            format!(r#"{{"time":"{long}","type":"novel","record":1}}"#),
            format!(r#"{{"time":"t","type":"{long}","record":"{long}"}}"#),
        ] {
            let (event, bytes) = self::event(object.as_bytes());
            let value = cut_to(400, &event, &bytes);
            let kept = value["record"].as_str().unwrap();
            assert!(
                value["type"] == "unparsed" && object.starts_with(kept) && kept.len() > 100,
                "{value}"
            );
            assert_eq!(value["truncatedBytes"], object.len() - kept.len());
        }
    }

    #[test]
    fn what_was_cut_before_is_counted_once() {
        let object = format!(
            r#"{{"time":"t","type":"unparsed","record":"{}","truncatedBytes":7}}"#,
            "x".repeat(1000)
        );
        let (mut event, bytes) = event(object.as_bytes());
        event.record.len = 1002;
        let value = cut_to(500, &event, &bytes);
        assert_eq!(value["truncatedBytes"], 1007 - value["record"].as_str().unwrap().len());
    }

    #[test]
    fn a_durable_execution_is_named_in_full_only() {
        let (mut event, bytes) =
            event(br#"{"time":"t","type":"function","record":{"executionArn":"arn:x"}}"#);
        event.execution_arn = Span { start: 56, len: 5 };
        for (kind, expected) in [(Envelope::Full, true), (Envelope::Slim, false)] {
            let mut out = Vec::new();
            LineWriter::new(kind, sandbox()).line(&event, &bytes, &mut out);
            assert_eq!(
                String::from_utf8(out).unwrap().contains(r#"-42","executionArn":"arn:x""#),
                expected
            );
        }
    }

    #[test]
    fn a_sandbox_event_is_known_again() {
        let sandbox = sandbox();
        sandbox.restored();
        let mut writer = LineWriter::new(Envelope::Slim, sandbox);
        let mut lines = Vec::new();
        writer.own_line(LEDGER_EVENT, "{}", "ledger-1", 0, &mut lines);
        assert!(!writer.has_sandbox_line(0, &lines) && !writer.has_sandbox_line(1, &lines));
        writer.sandbox_line(1, 0, &mut lines);
        assert!(!writer.has_sandbox_line(0, &lines) && writer.has_sandbox_line(1, &lines));
    }

    #[test]
    fn own_events_take_no_number() {
        let sandbox = sandbox();
        let mut out = Vec::new();
        LineWriter::new(Envelope::Slim, sandbox.clone()).own_line(
            SANDBOX_EVENT,
            "{}",
            "sandbox",
            0,
            &mut out,
        );
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["eventId"], format!("{}-sandbox", sandbox.id()));
        assert_eq!(value["functionName"], "orders");
        assert_eq!(value["tags"]["team"], "pay\"ments");
    }
}
