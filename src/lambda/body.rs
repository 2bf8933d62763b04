//! A POST's body -> events. Pure: no thread, socket, clock or log.
//!
//! Of each event only its time, its type and what flushing and the envelope need are read; the record is carried as raw JSON. A body is
//! parsed in one pass and its events stay ranges into it. Bodies that do not parse go through [`super::repair`], element by element.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::filter::Filter;
use super::{repair, scan};
use crate::clock::{self, EpochMs};
use crate::event::{Batch, Event, Span};

/// What the rest of the extension must know of a body, beside its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// `platform.initStart`: the log stream's name.
    LogStream(String),
    /// `platform.start`, with the ARN where Lambda says it.
    Start {
        /// As in JSON, between the quotes.
        request_id: Arc<str>,
        /// The invoked ARN.
        arn: Option<String>,
    },
    /// `platform.runtimeDone`: the function's own work is over. Found even in a body that does not parse.
    RuntimeDone {
        /// As in JSON, between the quotes.
        request_id: Arc<str>,
        /// The event's own time.
        at: Option<EpochMs>,
    },
    /// `platform.report`: the last event of an invocation.
    Report {
        /// As in JSON, between the quotes.
        request_id: Arc<str>,
    },
    /// `platform.initReport`: the last event of the init.
    InitReport,
    /// `platform.logsDropped`: Lambda lost records, perhaps the `runtimeDone` too.
    LogsDropped {
        /// How many.
        records: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// `platform.restoreStart`: what comes now comes from a sandbox that was restored from a snapshot.
    Restored,
    /// A part of the body was past repair.
    Damaged,
}

/// What a body gave.
#[derive(Debug, Default)]
pub struct Taken {
    /// The events to be shipped, numbered.
    pub batch: Batch,
    /// In the order of the body.
    pub signals: Vec<Signal>,
    /// Events that are shipped as text because their JSON is broken; they are in `batch` too.
    pub unparsed: u64,
    /// Events that `EXCLUDE` or `MIN_LEVEL` leave out; they are nowhere else.
    pub excluded: u64,
}

/// The stream of telemetry as this process has seen it so far: which invocation is in progress, and the last event number.
#[derive(Debug)]
pub struct Intake {
    filter: Filter,
    /// Invocations overlap on Managed Instances, so none is "in progress".
    overlapping: bool,
    first: Option<Arc<str>>,
    current: Option<Arc<str>>,
    /// Whose invocation that is; as in JSON, between the quotes.
    tenant: Option<Box<str>>,
    number: u64,
    restores: u16,
    held: Option<repair::Held>,
}

impl Intake {
    /// `filter` says what to ship; other events are read for their signals only.
    #[must_use]
    pub fn new(filter: impl Into<Filter>, overlapping: bool) -> Intake {
        Intake { filter: filter.into(), overlapping, first: None, current: None, tenant: None, number: 0, restores: 0, held: None }
    }

    /// Reads one body. `now` stamps what has no time of its own.
    pub fn take(&mut self, bytes: Vec<u8>, now: EpochMs) -> Taken {
        self.take_with(bytes, Vec::new(), now)
    }

    /// As [`Intake::take`]; the events go into a used buffer, whose pages need not be fetched again.
    pub fn take_with(&mut self, mut bytes: Vec<u8>, mut events: Vec<Event>, now: EpochMs) -> Taken {
        events.clear();
        let side = Side::new(bytes.len());
        let mut page = Page { intake: self, now, events, signals: Vec::new(), side, progress: None, unparsed: 0, excluded: 0 };
        page.read(&bytes);
        let Page { events, signals, side, unparsed, excluded, .. } = page;
        if !side.bytes.is_empty() {
            bytes.extend_from_slice(&side.bytes);
        }
        Taken { batch: Batch::new(bytes, events), signals, unparsed, excluded }
    }

    /// What is held back for the next body to continue and never was. To be called when no further body comes.
    pub fn finish(&mut self, now: EpochMs) -> Taken {
        if self.held.is_none() { Taken::default() } else { self.take(Vec::new(), now) }
    }
}

/// Bytes that are not in the body as they are needed: rebuilt, repaired or cut events. They end up behind the body.
struct Side {
    base: usize,
    bytes: Vec<u8>,
}

impl Side {
    fn new(base: usize) -> Side {
        Side { base, bytes: Vec::new() }
    }

    fn put(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.base + self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..start + bytes.len()
    }

    /// As `put`, with line ends replaced by spaces: an event stays one line. In JSON they stand between tokens only.
    fn put_on_one_line(&mut self, bytes: &[u8]) -> Range<usize> {
        let range = self.put(bytes);
        for byte in self.bytes.iter_mut().skip(range.start - self.base) {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        range
    }
}

/// One body being read.
struct Page<'i> {
    intake: &'i mut Intake,
    now: EpochMs,
    events: Vec<Event>,
    signals: Vec<Signal>,
    side: Side,
    /// Known once it was needed.
    progress: Option<Progress>,
    unparsed: u64,
    excluded: u64,
}

/// What an event without a request id of its own has from the invocation in progress. The spans are empty where there is none.
#[derive(Clone, Copy)]
struct Progress {
    request_id: Span,
    tenant_id: Span,
    cold_start: bool,
}

impl Page<'_> {
    fn read(&mut self, bytes: &[u8]) {
        // Lambda's events have some 300 bytes; a too small guess costs one more allocation.
        self.events.reserve(bytes.len() / 300);
        // A record that the body before left unfinished must be looked for first.
        let understood = if self.intake.held.is_some() { 0 } else { self.read_array(bytes) };
        match bytes.get(understood..) {
            Some(rest) if !rest.is_empty() || self.intake.held.is_some() => self.repair(rest),
            _ => {}
        }
    }

    /// The ordinary case: a whole JSON array. Comes back with the index behind the last byte that was understood.
    fn read_array(&mut self, bytes: &[u8]) -> usize {
        // Once for all: what is behind a broken character is repair's.
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => bytes.get(..error.valid_up_to()).and_then(|good| std::str::from_utf8(good).ok()).unwrap_or_default(),
        };
        let plain = !scan::has_control(bytes);
        let mut understood = 0;
        let mut at = skip_blanks(bytes, 0);
        if bytes.get(at) != Some(&b'[') {
            return 0;
        }
        at = skip_blanks(bytes, at + 1);
        let mut closed = bytes.get(at) == Some(&b']');
        while !closed {
            let log = if plain { scan::text_log(text.as_bytes(), at) } else { None };
            let end = match log {
                Some(log) => self.text_log(&log),
                None => self.read_element(text, at, !plain),
            };
            let Some(end) = end else { return understood };
            understood = end;
            at = skip_blanks(bytes, end);
            closed = bytes.get(at) == Some(&b']');
            if !closed && bytes.get(at) != Some(&b',') {
                return understood;
            }
            at = if closed { at } else { skip_blanks(bytes, at + 1) };
        }
        if skip_blanks(bytes, at + 1) == bytes.len() { bytes.len() } else { understood }
    }

    /// One element of any form. Comes back with the index behind it; `None` if it does not parse.
    fn read_element(&mut self, text: &str, at: usize, multi_line: bool) -> Option<usize> {
        let mut elements = serde_json::Deserializer::from_str(text.get(at..)?).into_iter::<Envelope<'_>>();
        let envelope = elements.next()?.ok()?;
        self.event(&envelope, text.as_bytes(), multi_line);
        Some(at + elements.byte_offset())
    }

    /// A text log that stands as it is to be shipped. Comes back with the index behind it.
    fn text_log(&mut self, log: &scan::TextLog) -> Option<usize> {
        let end = log.object.end;
        if !self.intake.filter.ships(log.kind) {
            return Some(end);
        }
        if self.intake.filter.excludes(log.kind, None) {
            self.excluded += 1;
            return Some(end);
        }
        let Progress { request_id, tenant_id, cold_start } = self.progress();
        let text = log.object.start..end - 1;
        let (text, record) = (Span::new(&text), Span::new(&log.record));
        self.push(Event { text, record, request_id, trace_id: Span::default(), tenant_id, number: 0, cold_start, restores: 0 });
        Some(end)
    }

    /// What does not parse as a whole: element by element, with Lambda's cut records put together again.
    fn repair(&mut self, rest: &[u8]) {
        let held = self.intake.held.take();
        let outcome = repair::elements(rest, held);
        self.intake.held = outcome.held;
        for element in outcome.elements {
            match element {
                repair::Element::Whole(bytes) => match serde_json::from_slice::<Envelope<'_>>(&bytes) {
                    Ok(envelope) => self.event(&envelope, &[], true),
                    Err(_) => self.damaged(&bytes),
                },
                repair::Element::Damaged(bytes) => self.damaged(&bytes),
            }
        }
    }

    /// `bytes` is the body that the envelope points into, or empty where it points elsewhere.
    fn event(&mut self, envelope: &Envelope<'_>, bytes: &[u8], multi_line: bool) {
        let Some(kind) = envelope.kind() else {
            return self.damaged(&envelope.rebuilt());
        };
        let in_place = envelope
            .in_place(bytes)
            .filter(|(text, _)| !multi_line || !bytes.get(text.clone()).unwrap_or_default().iter().any(|b| matches!(b, b'\n' | b'\r')));
        let facts = Facts::of(kind, envelope.record);
        self.signal(kind, &facts, envelope);
        if !self.intake.filter.ships(kind) {
            return;
        }
        if self.intake.filter.excludes(kind, facts.level) {
            self.excluded += 1;
            return;
        }
        let (text, record) = in_place.unwrap_or_else(|| self.rebuild(envelope));
        // Ranges of the record's own strings: where the record lies now, plus where they lie in it.
        let within = |part: Option<&str>| {
            let offset = part?.as_ptr() as usize - envelope.record?.get().as_ptr() as usize;
            let start = record.start + offset;
            Some(Span::new(&(start..start + part?.len())))
        };
        let (own, trace_id, own_tenant) = (within(facts.request_id), within(facts.trace_id), within(facts.tenant_id));
        let progress = self.progress();
        let (request_id, cold_start) = match (facts.request_id, &self.intake.first) {
            (Some(id), Some(first)) => (own.unwrap_or_default(), *id == **first),
            (Some(_), None) => (own.unwrap_or_default(), true),
            (None, _) => (if is_log(kind) { progress.request_id } else { Span::default() }, progress.cold_start),
        };
        let in_progress = facts.request_id.is_none_or(|own| self.intake.current.as_deref() == Some(own)) && !request_id.is_empty();
        let tenant_id = own_tenant.or(in_progress.then_some(progress.tenant_id)).unwrap_or_default();
        let (text, record) = (Span::new(&text), Span::new(&record));
        self.push(Event { text, record, request_id, trace_id: trace_id.unwrap_or_default(), tenant_id, number: 0, cold_start, restores: 0 });
    }

    fn push(&mut self, event: Event) {
        self.intake.number += 1;
        self.events.push(Event { number: self.intake.number, restores: self.intake.restores, ..event });
    }

    /// What the invocation in progress says of records that do not say it themselves.
    fn progress(&mut self) -> Progress {
        if let Some(known) = self.progress {
            return known;
        }
        let Intake { first, current, tenant, overlapping, .. } = &*self.intake;
        let mut put = |text: Option<&str>| text.map(|text| Span::new(&self.side.put(text.as_bytes()))).unwrap_or_default();
        let request_id = put(current.as_deref().filter(|_| !overlapping));
        let tenant_id = put(tenant.as_deref());
        let cold_start = first.is_none() || (!overlapping && current == first);
        *self.progress.insert(Progress { request_id, tenant_id, cold_start })
    }

    /// The canonical object behind the body: for events whose keys are in another order, with unknown keys, or on several lines.
    fn rebuild(&mut self, envelope: &Envelope<'_>) -> (Range<usize>, Range<usize>) {
        let start = self.side.put(b"{").start;
        if let Some(time) = envelope.time {
            self.side.put(b"\"time\":");
            self.side.put_on_one_line(time.get().as_bytes());
            self.side.put(b",");
        }
        self.side.put(b"\"type\":");
        let mut end = self.side.put(envelope.kind.map_or("null", RawValue::get).as_bytes()).end;
        let mut record = end..end;
        if let Some(raw) = envelope.record {
            self.side.put(b",\"record\":");
            record = self.side.put_on_one_line(raw.get().as_bytes());
            end = record.end;
        }
        for (key, value) in &envelope.others {
            // A key that the extension adds itself keeps Lambda's value under another name.
            let prefix = if ADDED_KEYS.contains(&key.as_ref()) { "lambda." } else { "" };
            let key = serde_json::to_string(&format!("{prefix}{key}")).unwrap_or_default();
            self.side.put(b",");
            self.side.put(key.as_bytes());
            self.side.put(b":");
            end = self.side.put_on_one_line(value.get().as_bytes()).end;
        }
        (start..end, record)
    }

    /// Ships what is no event as it is: its bytes, as a string.
    fn damaged(&mut self, bytes: &[u8]) {
        self.signals.push(Signal::Damaged);
        if let Some(request_id) = repair::find_runtime_done(bytes) {
            self.signals.push(Signal::RuntimeDone { request_id: request_id.into(), at: None });
        }
        if self.intake.filter.excludes("unparsed", None) {
            self.excluded += 1;
            return;
        }
        let text = serde_json::to_string(&String::from_utf8_lossy(bytes)).unwrap_or_else(|_| "\"\"".to_owned());
        let head = format!("{{\"time\":\"{}\",\"type\":\"unparsed\",\"record\":", clock::iso8601(self.now));
        let start = self.side.put(head.as_bytes()).start;
        let record = self.side.put(text.as_bytes());
        self.unparsed += 1;
        let Progress { request_id, tenant_id, cold_start } = self.progress();
        let (text, record) = (Span::new(&(start..record.end)), Span::new(&record));
        self.push(Event { text, record, request_id, trace_id: Span::default(), tenant_id, number: 0, cold_start, restores: 0 });
    }

    fn signal(&mut self, kind: &str, facts: &Facts<'_>, envelope: &Envelope<'_>) {
        let request_id = || facts.request_id.map(Arc::<str>::from);
        match kind {
            "platform.start" => {
                let Some(request_id) = request_id() else { return };
                self.intake.first.get_or_insert_with(|| request_id.clone());
                self.intake.current = Some(request_id.clone());
                self.intake.tenant = facts.tenant_id.filter(|_| !self.intake.overlapping).map(Box::from);
                self.progress = None;
                self.signals.push(Signal::Start { request_id, arn: facts.arn.clone() });
            }
            "platform.runtimeDone" => {
                let at = envelope.time.and_then(|time| clock::parse_iso8601(time.get().trim_matches('"')));
                // One without an id ends the wait as well: nothing better will come.
                let signal = request_id().map_or(Signal::Damaged, |request_id| Signal::RuntimeDone { request_id, at });
                self.signals.push(signal);
            }
            "platform.report" => self.signals.extend(request_id().map(|request_id| Signal::Report { request_id })),
            "platform.initReport" => self.signals.push(Signal::InitReport),
            "platform.initStart" => self.signals.extend(facts.log_stream.clone().map(Signal::LogStream)),
            "platform.restoreStart" => {
                // Two sandboxes may come out of one snapshot: from here on they must not give the same ids to different events.
                self.intake.number = 0;
                self.intake.restores = self.intake.restores.saturating_add(1);
                self.signals.push(Signal::Restored);
            }
            "platform.logsDropped" => {
                self.signals.push(Signal::LogsDropped { records: facts.dropped_records, bytes: facts.dropped_bytes });
            }
            _ => {}
        }
    }
}

fn skip_blanks(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
}

/// What the extension itself adds to an event.
const ADDED_KEYS: [&str; 13] = [
    "requestId",
    "eventId",
    "traceId",
    "tenantId",
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

fn is_log(kind: &str) -> bool {
    matches!(kind, "function" | "extension")
}

/// Lambda's envelope: three keys, and whatever else it may learn to say.
#[derive(Debug, Default)]
struct Envelope<'a> {
    time: Option<&'a RawValue>,
    kind: Option<&'a RawValue>,
    record: Option<&'a RawValue>,
    others: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Envelope<'a> {
    /// The type between its quotes; `None` if it is no plain string.
    fn kind(&self) -> Option<&'a str> {
        self.kind?.get().strip_prefix('"')?.strip_suffix('"')
    }

    /// The object in `bytes` without its closing brace, and the record, if it stands there just as it would be written.
    fn in_place(&self, bytes: &[u8]) -> Option<(Range<usize>, Range<usize>)> {
        let (time, kind, record) = (self.time?.get(), self.kind?.get(), self.record?.get());
        if !self.others.is_empty() {
            return None;
        }
        let [time_at, kind_at, record_at] = [time, kind, record].map(|part| (part.as_ptr() as usize).checked_sub(bytes.as_ptr() as usize));
        let (time_at, kind_at, record_at) = (time_at?, kind_at?, record_at?);
        let start = time_at.checked_sub(8)?;
        let end = record_at + record.len();
        let fits = bytes.get(start..time_at)? == b"{\"time\":"
            && bytes.get(time_at + time.len()..kind_at)? == b",\"type\":"
            && bytes.get(kind_at + kind.len()..record_at)? == b",\"record\":"
            && bytes.get(end) == Some(&b'}');
        fits.then_some((start..end, record_at..end))
    }

    fn rebuilt(&self) -> Vec<u8> {
        let pairs = [("time", self.time), ("type", self.kind), ("record", self.record)];
        let known = pairs.into_iter().filter_map(|(key, value)| value.map(|v| (Cow::Borrowed(key), v)));
        let all: Vec<String> = known
            .chain(self.others.iter().cloned())
            .map(|(key, value)| format!("{}:{}", serde_json::to_string(&key).unwrap_or_default(), value.get()))
            .collect();
        format!("{{{}}}", all.join(",")).into_bytes()
    }
}

/// A key of an object, borrowed where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Envelope<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Envelope<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a telemetry event")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
                let mut envelope = Envelope::default();
                while let Some(Key(key)) = map.next_key()? {
                    match key.as_ref() {
                        "time" => envelope.time = Some(map.next_value()?),
                        "type" => envelope.kind = Some(map.next_value()?),
                        "record" => envelope.record = Some(map.next_value()?),
                        _ => envelope.others.push((key, map.next_value()?)),
                    }
                }
                Ok(envelope)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// What is read of a record. The strings are as in JSON, between the quotes.
#[derive(Debug, Default)]
struct Facts<'a> {
    request_id: Option<&'a str>,
    trace_id: Option<&'a str>,
    tenant_id: Option<&'a str>,
    level: Option<&'a str>,
    arn: Option<String>,
    log_stream: Option<String>,
    dropped_records: u64,
    dropped_bytes: u64,
}

impl<'a> Facts<'a> {
    fn of(kind: &str, record: Option<&'a RawValue>) -> Facts<'a> {
        let mut facts = Facts::default();
        let Some(raw) = record.map(RawValue::get).filter(|raw| raw.starts_with('{')) else { return facts };
        let logs = is_log(kind);
        // A record that a customer wrote may be anything; what of it is not as expected is left unread.
        let mut reader = serde_json::Deserializer::from_str(raw);
        let _ = reader.deserialize_map(RecordKeys { facts: &mut facts, logs });
        facts
    }
}

struct RecordKeys<'f, 'a> {
    facts: &'f mut Facts<'a>,
    logs: bool,
}

impl<'de> Visitor<'de> for RecordKeys<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            match (key.as_ref(), self.logs) {
                ("requestId", _) => self.facts.request_id = in_quotes(map.next_value()?),
                ("level", true) => self.facts.level = in_quotes(map.next_value()?),
                ("tenantId", _) => self.facts.tenant_id = in_quotes(map.next_value()?),
                ("tracing", false) => self.facts.trace_id = trace_root(map.next_value()?),
                ("functionArn", false) => self.facts.arn = plain(map.next_value()?),
                ("instanceId", false) => self.facts.log_stream = plain(map.next_value()?),
                ("droppedRecords", false) => self.facts.dropped_records = whole(map.next_value()?),
                ("droppedBytes", false) => self.facts.dropped_bytes = whole(map.next_value()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// A string's bytes as they stand in JSON; `None` for an empty one and for any other type.
fn in_quotes(raw: &RawValue) -> Option<&str> {
    raw.get().strip_prefix('"')?.strip_suffix('"').filter(|text| !text.is_empty())
}

fn plain(raw: &RawValue) -> Option<String> {
    serde_json::from_str::<String>(raw.get()).ok().filter(|text| !text.is_empty())
}

fn whole(raw: &RawValue) -> u64 {
    raw.get().parse().unwrap_or(0)
}

/// `1-5f35ae12-…` of `{"type":"X-Amzn-Trace-Id","value":"Root=1-5f35ae12-…;Parent=…;Sampled=1"}`.
fn trace_root(tracing: &RawValue) -> Option<&str> {
    #[derive(Deserialize)]
    struct Tracing<'a> {
        #[serde(borrow)]
        value: Option<&'a RawValue>,
    }
    let value = in_quotes(serde_json::from_str::<Tracing<'_>>(tracing.get()).ok()?.value?)?;
    value.split(';').find_map(|part| part.strip_prefix("Root=")).filter(|root| !root.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Types;

    const ALL: Types = Types { platform: true, function: true, extension: true };

    fn intake() -> Intake {
        Intake::new(ALL, false)
    }

    /// The events as they would be written, without what the extension adds.
    fn texts(taken: &Taken) -> Vec<String> {
        let bytes = taken.batch.bytes();
        taken.batch.remaining().iter().map(|event| String::from_utf8(event.text.of(bytes).to_vec()).unwrap()).collect()
    }

    fn ids(taken: &Taken) -> Vec<Option<String>> {
        let bytes = taken.batch.bytes();
        let id = |event: &Event| String::from_utf8(event.request_id.of(bytes).to_vec()).unwrap();
        taken.batch.remaining().iter().map(|event| Some(id(event)).filter(|id| !id.is_empty())).collect()
    }

    fn event(kind: &str, record: &str) -> String {
        format!(r#"{{"time":"2026-11-23T09:15:45.012Z","type":"{kind}","record":{record}}}"#)
    }

    fn body(events: &[String]) -> Vec<u8> {
        format!("[{}]", events.join(",")).into_bytes()
    }

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
    fn numbers_begin_anew_with_a_restore() {
        let mut intake = intake();
        let init = [event("platform.initStart", "{}"), event("function", r#""init""#)];
        let restored = [event("platform.restoreStart", "{}"), event("platform.restoreReport", "{}")];
        let first = intake.take(body(&[&init[..], &restored[..]].concat()), 0);
        let second = intake.take(body(&restored), 0);
        let numbers = |taken: &Taken| taken.batch.remaining().iter().map(|event| (event.restores, event.number)).collect::<Vec<_>>();
        assert_eq!(numbers(&first), [(0, 1), (0, 2), (1, 1), (1, 2)]);
        assert_eq!(numbers(&second), [(2, 1), (2, 2)]);
        assert_eq!(second.signals, [Signal::Restored]);
    }

    #[test]
    fn the_invocation_in_progress_lasts_until_the_next_start() {
        let mut intake = intake();
        let taken = intake.take(
            body(&[
                event("function", r#""init""#),
                event("platform.start", r#"{"requestId":"r1"}"#),
                event("function", r#""one""#),
                event("function", r#"{"requestId":"own"}"#),
                event("platform.runtimeDone", r#"{"requestId":"r1","status":"success"}"#),
                event("function", r#""late""#),
                event("platform.start", r#"{"requestId":"r2"}"#),
                event("platform.report", r#"{"requestId":"r1"}"#),
                event("extension", r#""two""#),
                event("platform.extension", r#"{"name":"x"}"#),
            ]),
            0,
        );
        let some = |id: &str| Some(id.to_owned());
        let expected = [None, some("r1"), some("r1"), some("own"), some("r1"), some("r1"), some("r2"), some("r1"), some("r2"), None];
        assert_eq!(ids(&taken), expected);
        let cold: Vec<bool> = taken.batch.remaining().iter().map(|event| event.cold_start).collect();
        assert_eq!(cold, [true, true, true, false, true, true, false, true, false, false]);
        let at = clock::parse_iso8601("2026-11-23T09:15:45.012Z");
        assert_eq!(
            taken.signals,
            [
                Signal::Start { request_id: "r1".into(), arn: None },
                Signal::RuntimeDone { request_id: "r1".into(), at },
                Signal::Start { request_id: "r2".into(), arn: None },
                Signal::Report { request_id: "r1".into() },
            ]
        );
    }

    #[test]
    fn where_invocations_overlap_no_request_id_is_guessed() {
        let mut intake = Intake::new(ALL, true);
        let events = [event("platform.start", r#"{"requestId":"r1"}"#), event("function", r#""whose?""#), event("function", r#"{"requestId":"r1"}"#)];
        let taken = intake.take(body(&events), 0);
        assert_eq!(ids(&taken), [Some("r1".to_owned()), None, Some("r1".to_owned())]);
    }

    #[test]
    fn types_that_are_not_shipped_still_signal_and_take_no_number() {
        let mut intake = Intake::new(Types { platform: false, ..ALL }, false);
        let taken = intake.take(body(&[event("platform.start", r#"{"requestId":"r1"}"#), event("function", r#""x""#)]), 0);
        assert_eq!(taken.signals.len(), 1);
        assert_eq!(taken.batch.remaining().len(), 1);
        assert_eq!(taken.batch.remaining()[0].number, 1);
        assert_eq!(ids(&taken), [Some("r1".to_owned())]);
    }

    #[test]
    fn facts_of_the_platform() {
        let tracing = r#"{"type":"X-Amzn-Trace-Id","value":"Root=1-62e9;Parent=0e;Sampled=1"}"#;
        let start = format!(r#"{{"requestId":"r1","functionArn":"arn:aws:lambda:x","tracing":{tracing}}}"#);
        let taken = intake().take(
            body(&[
                event("platform.initStart", r#"{"instanceId":"2026/11/23/orders[$LATEST]22be"}"#),
                event("platform.start", &start),
                event("platform.logsDropped", r#"{"droppedBytes":12345,"droppedRecords":123,"reason":"slow"}"#),
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
    fn other_spellings_are_rebuilt_on_one_line() {
        let odd = "[ { \"type\" : \"function\",\n \"record\" : {\n\"a\" : [1,\r\n2]}, \"time\":\"t\", \"new\" : 1, \"region\":\"mars\" } ]";
        let taken = intake().take(odd.as_bytes().to_vec(), 0);
        let text = r#"{"time":"t","type":"function","record":{ "a" : [1,  2]},"new":1,"lambda.region":"mars""#;
        assert_eq!(texts(&taken), [text]);
        let record = taken.batch.remaining()[0].record;
        assert_eq!(record.of(taken.batch.bytes()), br#"{ "a" : [1,  2]}"#);
    }

    #[test]
    fn events_before_and_after_a_fault_are_kept_once() {
        let (a, b) = (event("function", r#""a""#), event("function", r#""b""#));
        let bytes = format!("[{a},{{\"broken\":,{b}]");
        let taken = intake().take(bytes.into_bytes(), 1_795_425_345_012);
        let unparsed = r#"{"time":"2026-11-23T09:15:45.012Z","type":"unparsed","record":"{\"broken\":""#;
        assert_eq!(texts(&taken), [a.trim_end_matches('}'), unparsed, b.trim_end_matches('}')]);
        assert_eq!((taken.unparsed, taken.signals.len()), (1, 1));
        assert_eq!(taken.batch.remaining().iter().map(|event| event.number).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_runtime_done_in_a_broken_body_is_found() {
        let bytes = br#"[{"time":"t","type":"platform.runtimeDone","record":{"requestId":"r1","status":#oops"#;
        let taken = intake().take(bytes.to_vec(), 0);
        assert!(taken.signals.contains(&Signal::RuntimeDone { request_id: "r1".into(), at: None }));
    }

    #[test]
    fn a_cut_record_is_held_for_the_next_body_and_given_up_at_the_end() {
        let mut intake = intake();
        let head = r#"{"time":"t","type":"function","record":"#;
        assert!(intake.take(format!("[{head}{{\"m\":\"AA}}]").into_bytes(), 0).batch.remaining().is_empty());
        let taken = intake.take(format!("[{head}BB\"}}}},{}]", event("function", "1")).into_bytes(), 0);
        assert_eq!(texts(&taken)[0], format!("{head}{{\"m\":\"AABB\"}}"));
        assert_eq!(taken.batch.remaining().len(), 2);
        assert!(intake.take(format!("[{head}{{\"m\":\"AA}}]").into_bytes(), 0).batch.remaining().is_empty());
        assert_eq!(intake.finish(0).unparsed, 1);
        assert_eq!(intake.finish(0).unparsed, 0);
    }

    #[test]
    fn deep_nesting_and_lone_surrogates_pass() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let taken = intake().take(body(&[event("function", &deep), event("function", r#""\ud800""#)]), 0);
        assert_eq!((taken.batch.remaining().len(), taken.unparsed), (2, 0));
    }
}
