//! The fields of a record that the extension reads: ids, the level, and facts for flushing. Pure;
//! the strings are as in JSON, between the quotes.

use std::borrow::Cow;
use std::fmt;

use memchr::memmem;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::exception;
use super::filter::{Level, is_level_key};
use super::header::find;
use super::observed::{METRICS, PlatformResult};
use super::text_level::{bracketed, formatted, printed_json};

/// A longer id is none: it would stand in the event twice, and cannot be cut.
const MAX_ID_BYTES: usize = 256;
/// The same of an ARN.
const MAX_ARN_BYTES: usize = 1024;
/// The same of a log stream's name: CloudWatch allows no longer one.
const MAX_NAME_BYTES: usize = 512;
/// A key with escapes is unescaped up to this length: no key that is looked for is longer, not
/// even with each letter escaped.
const MAX_ESCAPED_KEY: usize = 256;
/// A longer number is none that the platform writes.
const MAX_NUMBER_BYTES: usize = 32;

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct RecordFields<'a> {
    pub(super) request_id: Option<&'a str>,
    pub(super) trace_id: Option<&'a str>,
    pub(super) tenant_id: Option<&'a str>,
    /// Of a durable function's log.
    pub(super) execution_arn: Option<&'a str>,
    /// Of a log: what its `level` says.
    level: Option<&'a RawValue>,
    /// The same: what another key says.
    other_level: Option<Level>,
    /// Of a log: its keys are those that Lambda writes around a line that is no JSON.
    is_wrapped: bool,
    /// Of a log: it describes an exception.
    has_exception: bool,
    /// The same: what loggers write beside all else.
    message: Option<&'a RawValue>,
    /// The same: where the exception came from.
    stack: Option<&'a RawValue>,
    /// The same: the level as Python's runtime names it, and no logger.
    has_log_level: bool,
    /// The same: it says more than a runtime does of an exception.
    has_more: bool,
    pub(super) arn: Option<String>,
    pub(super) log_stream: Option<String>,
    /// `success`, or how it failed.
    pub(super) status: Option<&'a str>,
    pub(super) error_type: Option<&'a str>,
    pub(super) metrics: Option<&'a RawValue>,
    pub(super) dropped_records: u64,
    pub(super) dropped_bytes: u64,
}

/// Whether events of this type are what somebody wrote.
pub(super) fn is_log(kind: &str) -> bool {
    matches!(kind, "function" | "extension")
}

impl<'a> RecordFields<'a> {
    /// There is a status, and it is not `success`.
    pub(super) fn failed(&self) -> bool {
        self.status.is_some_and(|status| status != "success")
    }

    /// The level of a log that is an object.
    pub(super) fn log_level(&self) -> Option<Level> {
        let is_error = || self.has_exception || self.exception().is_some();
        self.level().or_else(|| is_error().then_some(Level::Error)).max(self.printed_level())
    }

    /// The level that a log says of itself.
    fn level(&self) -> Option<Level> {
        let value = self.level.map(RawValue::get).filter(|value| value.len() <= MAX_ID_BYTES);
        value.and_then(Level::of_value).or(self.other_level)
    }

    /// The level of a line that a runtime's console, or Lambda itself, has put into an object with
    /// a level of its own.
    fn printed_level(&self) -> Option<Level> {
        let message = self.message.filter(|_| !self.has_more)?;
        let Some(text) = self.text() else {
            // Node.js's leaves an object an object.
            let is_nodes = self.request_id.is_some() || self.is_wrapped;
            return is_nodes.then(|| RecordFields::of("function", message.get()).level())?;
        };
        match self.request_id {
            // Lambda says no id. It does so with what is no JSON, such as lines of Ruby's and Go's.
            None if self.is_wrapped => formatted(text),
            None => None,
            // .NET's runtime says so of a line without a level.
            Some(_) if self.level.is_some_and(|level| level.get() == r#""Trace""#) => {
                text.strip_prefix(b"[").map_or_else(|| printed_json(text), bracketed)
            }
            Some(_) => printed_json(text),
        }
    }

    /// The level by which a log may be left out; `None` where its `level` names none.
    pub(super) fn level_to_filter(&self) -> Option<Level> {
        let own = Level::of_line(in_quotes(self.level?, MAX_ID_BYTES)?)?;
        let reported = self.exception().map(|_| Level::Error);
        Some(own).max(self.printed_level()).max(reported)
    }

    /// What a logger was given to write, where that is a text.
    fn text(&self) -> Option<&'a [u8]> {
        Some(self.message?.get().strip_prefix('"')?.strip_suffix('"')?.as_bytes())
    }

    /// The type of the exception, if a log that is an object is the runtime's report of one that
    /// nobody caught.
    pub(super) fn exception(&self) -> Option<&'a str> {
        let is_error = matches!(self.level(), None | Some(Level::Error));
        let described = self.error_type.filter(|_| self.has_exception && is_error);
        if described.is_some()
            && !self.has_more
            && self.stack.is_some_and(|stack| exception::is_dotnets(stack.get().as_bytes()))
        {
            return described;
        }
        if self.message.is_none() {
            // Python's has an id and a level; Ruby's has neither, nor has Go's.
            let has_level = self.has_log_level || self.level.is_some();
            let is_runtimes = has_level == self.request_id.is_some() && !self.has_more;
            return described.filter(|_| is_runtimes);
        }
        let text = self.text()?;
        let javas = || is_error.then(|| exception::javas(text))?;
        // The loggers of other runtimes say an id: what those write is a function's own.
        let others = exception::in_message(text).filter(|_| self.request_id.is_none());
        others.or_else(javas)
    }

    /// The result that the platform reports at an invocation's end.
    pub(super) fn result(&self) -> PlatformResult {
        let metrics = self.metrics.map(RawValue::get).map(metrics);
        PlatformResult {
            status: self.status.map(Box::from),
            error_type: self.error_type.map(Box::from),
            metrics: metrics.unwrap_or_default(),
        }
    }

    /// Reads a record once. Only an object has fields.
    pub(super) fn of(kind: &str, record: &'a str) -> RecordFields<'a> {
        if !record.starts_with('{') {
            return RecordFields::default();
        }
        let mut keys = Keys { logs: is_log(kind), ..Keys::default() };
        // A record that a customer wrote may be anything; what of it is not as expected is left
        // unread.
        let mut reader = serde_json::Deserializer::from_str(record);
        let _ = reader.deserialize_map(&mut keys);
        let Keys { mut fields, log_request_id, log_trace_id, has_error_message, .. } = keys;
        fields.is_wrapped = (keys.count, keys.wrapping) == (3, 3);
        fields.has_exception = has_error_message && fields.error_type.is_some();
        fields.request_id = fields.request_id.or(log_request_id);
        fields.trace_id = fields.trace_id.or(log_trace_id);
        fields
    }
}

/// A key of an object, as it stands there. It is not copied, for it may be as long as its body.
#[derive(Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] &'a RawValue);

impl<'a> Key<'a> {
    /// Without escapes. A long key with escapes is none that is looked for, and stays as it is.
    fn name(&self) -> Cow<'a, str> {
        let quoted = self.0.get();
        let text = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let text = text.unwrap_or(quoted);
        if text.len() > MAX_ESCAPED_KEY || !text.contains('\\') {
            return Cow::Borrowed(text);
        }
        serde_json::from_str(quoted).map_or(Cow::Borrowed(text), Cow::Owned)
    }
}

#[derive(Default)]
struct Keys<'a> {
    fields: RecordFields<'a>,
    logs: bool,
    log_request_id: Option<&'a str>,
    log_trace_id: Option<&'a str>,
    has_error_message: bool,
    /// How many there are, and how many of them Lambda writes around a line that is no JSON.
    count: usize,
    wrapping: usize,
}

impl<'a> Keys<'a> {
    /// The level in a key that no runtime writes, but for one of Python's.
    fn note_level(&mut self, key: &str, value: &'a RawValue) {
        let level = || Level::of_value(value.get());
        self.fields.other_level = self.fields.other_level.or_else(level);
        let is_runtimes = key == "log_level" && value.get() == r#""ERROR""#;
        self.fields.has_log_level |= is_runtimes;
        self.fields.has_more |= !is_runtimes;
    }
}

impl<'de> Visitor<'de> for &mut Keys<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Key<'_>>()? {
            let fields = &mut self.fields;
            self.count += 1;
            match (key.name().as_ref(), self.logs) {
                ("requestId", _) => fields.request_id = id(map.next_value()?),
                ("tenantId", _) => {
                    fields.tenant_id = id(map.next_value()?);
                    self.count -= 1;
                }
                ("tracing", _) => fields.trace_id = tracing_root(map.next_value()?),
                // Java's runtime names it so.
                ("AWSRequestId", true) => self.log_request_id = id(map.next_value()?),
                ("message", true) => {
                    fields.message = Some(map.next_value()?);
                    self.wrapping += 1;
                }
                ("msg", true) => fields.message = Some(map.next_value()?),
                ("level", true) => {
                    fields.level = Some(map.next_value()?);
                    self.wrapping += 1;
                    // In other loggers it is a number.
                    let name = fields.level.and_then(|level| in_quotes(level, MAX_ID_BYTES));
                    fields.has_more |= name.is_none();
                }
                ("timestamp", true) => {
                    map.next_value::<IgnoredAny>()?;
                    self.wrapping += 1;
                }
                ("stackTrace", true) => fields.stack = Some(map.next_value()?),
                ("executionArn", true) => {
                    fields.execution_arn = in_quotes(map.next_value()?, MAX_ARN_BYTES)
                }
                ("traceId" | "trace_id" | "xray_trace_id", true) => {
                    let trace_id = id(map.next_value()?).map(|text| root(text).unwrap_or(text));
                    self.log_trace_id = self.log_trace_id.or(trace_id);
                }
                ("functionArn", false) => fields.arn = plain(map.next_value()?, MAX_ARN_BYTES),
                ("instanceId", false) => {
                    fields.log_stream = plain(map.next_value()?, MAX_NAME_BYTES)
                }
                ("status", false) => fields.status = in_quotes(map.next_value()?, MAX_ID_BYTES),
                ("errorType", _) => fields.error_type = id(map.next_value()?),
                ("errorMessage", true) => {
                    self.has_error_message = map.next_value::<&RawValue>()?.get().starts_with('"')
                }
                ("metrics", false) => fields.metrics = Some(map.next_value()?),
                ("droppedRecords", false) => fields.dropped_records = whole(map.next_value()?),
                ("droppedBytes", false) => fields.dropped_bytes = whole(map.next_value()?),
                (name, true) if is_level_key(name.as_bytes()) => {
                    self.note_level(name, map.next_value()?);
                }
                (name, true) if is_id_key(name) => {
                    self.log_request_id = id(map.next_value()?);
                    fields.has_more = true;
                }
                _ => {
                    fields.has_more = true;
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Those of [`METRICS`] that are numbers, as they are written.
fn metrics(object: &str) -> [Option<Box<str>>; METRICS.len()] {
    struct Numbers([Option<Box<str>>; METRICS.len()]);

    impl<'de> Visitor<'de> for &mut Numbers {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("metrics")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<Key<'_>>()? {
                let value: &RawValue = map.next_value()?;
                let number = Some(value.get()).filter(|text| text.len() <= MAX_NUMBER_BYTES);
                let number = number.filter(|text| text.starts_with(|c: char| c.is_ascii_digit()));
                let known = METRICS.iter().position(|name| *name == key.name());
                if let Some(place) = known.and_then(|at| self.0.get_mut(at)) {
                    *place = number.map(Box::from);
                }
            }
            Ok(())
        }
    }

    let mut numbers = Numbers(Default::default());
    let _ = serde_json::Deserializer::from_str(object).deserialize_map(&mut numbers);
    numbers.0
}

/// A string's bytes as they stand in JSON; `None` for an empty one, a longer one, and for any other
/// type.
fn in_quotes(raw: &RawValue, max_bytes: usize) -> Option<&str> {
    raw.get()
        .strip_prefix('"')?
        .strip_suffix('"')
        .filter(|text| (1..=max_bytes).contains(&text.len()))
}

/// Whether a logger writes the request id in that key: Powertools, pino-lambda, and those that
/// write all of Python's own records.
fn is_id_key(key: &str) -> bool {
    matches!(key, "function_request_id" | "awsRequestId" | "aws_request_id")
}

fn id(raw: &RawValue) -> Option<&str> {
    in_quotes(raw, MAX_ID_BYTES)
}

/// Such a string without its escapes.
fn plain(raw: &RawValue, max_bytes: usize) -> Option<String> {
    in_quotes(raw, max_bytes).and_then(|_| serde_json::from_str(raw.get()).ok())
}

fn whole(raw: &RawValue) -> u64 {
    raw.get().parse().unwrap_or(0)
}

/// `1-5f35ae12-…` of `{"type":"X-Amzn-Trace-Id","value":"Root=1-5f35ae12-…;Parent=…;Sampled=1"}`.
fn tracing_root(tracing: &RawValue) -> Option<&str> {
    #[derive(Deserialize)]
    struct Tracing<'a> {
        #[serde(borrow)]
        value: Option<&'a RawValue>,
    }
    if tracing.get().len() > MAX_ARN_BYTES {
        return None;
    }
    root(id(serde_json::from_str::<Tracing<'_>>(tracing.get()).ok()?.value?)?)
}

fn root(header: &str) -> Option<&str> {
    header.split(';').find_map(|part| part.strip_prefix("Root=")).filter(|root| !root.is_empty())
}

/// How an event begins.
const EVENT_START: &[u8] = b"{\"time\":\"";
/// Of so many invocations the end is looked for in one stretch: the last ones of a sandbox.
const MAX_FOUND: usize = 64;

/// A `platform.runtimeDone` in bytes that do not parse.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FoundRuntimeDone<'a> {
    pub(super) request_id: &'a str,
    /// One of those that the platform writes; `None` where it is cut.
    pub(super) status: Option<&'static str>,
}

impl FoundRuntimeDone<'_> {
    /// There is a status, and it is not `success`.
    pub(super) fn failed(&self) -> bool {
        self.status.is_some_and(|status| status != "success")
    }
}

/// Those of which the ids differ, in their order. `current` is the invocation in progress: one
/// whose id is cut or missing is taken for its.
pub(super) fn runtime_done_in<'a>(
    bytes: &'a [u8],
    current: Option<&'a str>,
) -> Vec<FoundRuntimeDone<'a>> {
    const KIND: &[u8] = b"\"platform.runtimeDone\"";
    let mut all: Vec<FoundRuntimeDone<'_>> = Vec::new();
    let mut starts = memmem::find_iter(bytes, KIND).map(|at| at + KIND.len()).peekable();
    while let Some(start) = starts.next().filter(|_| all.len() < MAX_FOUND) {
        // Up to the next one at the most, so that no byte is looked at for two of them.
        let end = starts.peek().copied().unwrap_or(bytes.len());
        let event = bytes.get(start..end).unwrap_or_default();
        let event = event.get(..find(event, 0, EVENT_START).unwrap_or(event.len()));
        let event = event.unwrap_or_default();
        let value = |key: &[u8]| {
            let text = event.get(find(event, 0, key)? + key.len()..)?;
            let end = text.iter().take(MAX_ID_BYTES).position(|byte| *byte == b'"');
            Some((std::str::from_utf8(text.get(..end.unwrap_or(text.len()))?).ok()?, end.is_some()))
        };
        let request_id = match value(b"\"requestId\":\"") {
            Some((id, true)) if !id.is_empty() => Some(id),
            // Cut: behind its last character stand the brace of Lambda's envelope and the end of
            // the array.
            Some((start, _)) => {
                current.filter(|id| id.starts_with(start.trim_end_matches([']', '}', ','])))
            }
            None => current,
        };
        let status = match value(b"\"status\":\"") {
            Some((status, true)) => Some(known_status(status)),
            _ => None,
        };
        if let Some(request_id) = request_id {
            let found = FoundRuntimeDone { request_id, status };
            if !all.contains(&found) {
                all.push(found);
            }
        }
    }
    all
}

/// As the platform writes it. Another word is a failure, and must not stand in another event.
fn known_status(status: &str) -> &'static str {
    let known = ["success", "error", "timeout", "failure"];
    known.into_iter().find(|known| *known == status).unwrap_or("failure")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields<'a>(kind: &str, record: &'a str) -> RecordFields<'a> {
        RecordFields::of(kind, record)
    }

    #[test]
    fn the_ids_of_logs() {
        for (record, request_id, trace_id) in [
            (r#"{"requestId":"r","AWSRequestId":"java"}"#, Some("r"), None),
            (r#"{"AWSRequestId":"java","timestamp":1}"#, Some("java"), None),
            (r#"{"requestId":7,"AWSRequestId":"java"}"#, Some("java"), None),
            (r#"{"requestId":""}"#, None, None),
            (r#"{"level":"INFO","function_request_id":"r"}"#, Some("r"), None),
            (r#"{"awsRequestId":"r","level":30}"#, Some("r"), None),
            (r#"{"aws_request_id":"r","requestId":"own"}"#, Some("own"), None),
            (r#"{"request_id":"of something else"}"#, None, None),
            (r#"{"trace_id":"t"}"#, None, Some("t")),
            (r#"{"traceId":{"a":1},"xray_trace_id":"1-62e9"}"#, None, Some("1-62e9")),
            (r#"{"xray_trace_id":"Root=1-62e9;Parent=0e"}"#, None, Some("1-62e9")),
            (r#"{"trace_id":"t","tracing":{"value":"Root=1-0;Sampled=1"}}"#, None, Some("1-0")),
            (r#"{"tracing":"off","traceId":"t"}"#, None, Some("t")),
            (r#""AWSRequestId""#, None, None),
        ] {
            let read = fields("function", record);
            assert_eq!((read.request_id, read.trace_id), (request_id, trace_id), "{record}");
        }
        let arn = "arn:aws:lambda:eu-west-1:123456789012:function:orders:7/durable-execution/x/y";
        assert_eq!(
            fields("function", &format!(r#"{{"executionArn":"{arn}"}}"#)).execution_arn,
            Some(arn)
        );
        assert_eq!(
            fields("platform.start", r#"{"executionArn":"x","traceId":"t","AWSRequestId":"r"}"#)
                .execution_arn,
            None
        );
        let long =
            format!(r#"{{"requestId":"{}","traceId":"{}"}}"#, "r".repeat(257), "t".repeat(256));
        assert_eq!(
            (
                fields("function", &long).request_id,
                fields("function", &long).trace_id.map(str::len)
            ),
            (None, Some(256))
        );
    }

    #[test]
    fn an_exception_has_a_type_and_a_message() {
        for (kind, record, is_error) in [
            ("function", r#"{"errorMessage":"","errorType":"Function<ArgumentError>"}"#, true),
            ("function", r#"{"errorType":"errorString","errorMessage":"no","x":1}"#, true),
            ("function", r#"{"errorMessage":"no"}"#, false),
            ("function", r#"{"errorMessage":null,"errorType":null}"#, false),
            ("platform.report", r#"{"errorMessage":"no","errorType":"x"}"#, false),
        ] {
            let level = fields(kind, record).log_level();
            assert_eq!(level, is_error.then_some(Level::Error), "{record}");
        }
    }

    #[test]
    fn what_a_runtime_reports_is_told_from_what_is_logged() {
        let java = r"no: a.B\na.B: no\n\tat a.B.c(B.java:1)\n";
        let java =
            |level| format!(r#"{{"message":"{java}","level":"{level}","AWSRequestId":"r"}}"#);
        let go = r#""{\"errorMessage\":\"no\",\"errorType\":\"x\"}""#;
        let dotnet = r#""stackTrace":["at Amazon.Lambda.RuntimeSupport.LambdaBootstrap.X()"]"#;
        const BOTH: &str = r#""errorMessage":"no","errorType":"ValueError""#;
        for (record, name) in [
            (
                format!(r#"{{"timestamp":"t","level":"ERROR",{BOTH},"requestId":"r"}}"#),
                Some("ValueError"),
            ),
            (
                format!(
                    r#"{{"timestamp":"t","log_level":"ERROR",{BOTH},"requestId":"r","stackTrace":[]}}"#
                ),
                Some("ValueError"),
            ),
            (format!(r#"{{{BOTH},"stackTrace":[]}}"#), Some("ValueError")),
            // Of a logger, of another function, and at another level.
            (format!(r#"{{"level":"ERROR","msg":"x",{BOTH},"requestId":"r"}}"#), None),
            (format!(r#"{{"log_level":"ERROR","event":"x",{BOTH},"requestId":"r"}}"#), None),
            (format!(r#"{{"log_level":"INFO",{BOTH},"requestId":"r"}}"#), None),
            (format!(r#"{{"level":50,{BOTH}}}"#), None),
            (format!(r#"{{"level":"ERROR","message":"x",{BOTH},"requestId":"r"}}"#), None),
            (format!(r#"{{"level":"ERROR","message":{{{BOTH}}},"requestId":"r"}}"#), None),
            (format!(r#"{{{BOTH},"requestId":"r","stackTrace":[]}}"#), None),
            (format!(r#"{{"level":"INFO",{BOTH},"requestId":"r"}}"#), None),
            (format!(r#"{{"level":"INFO","message":{go}}}"#), Some("x")),
            (format!(r#"{{"time":"t","level":"INFO","msg":{go}}}"#), Some("x")),
            (format!(r#"{{"level":"INFO","message":{go},"requestId":"r"}}"#), None),
            (format!(r#"{{"level":"INFO","message":{go},"AWSRequestId":"r"}}"#), None),
            (
                format!(r#"{{"level":"Error","requestId":"r","message":"",{BOTH},{dotnet}}}"#),
                Some("ValueError"),
            ),
            (format!(r#"{{"level":"Error","requestId":"r","message":"",{BOTH}}}"#), None),
            (
                format!(r#"{{"level":"Warning","requestId":"r","message":"",{BOTH},{dotnet}}}"#),
                None,
            ),
            // What a .NET function has returned, in another logger's line.
            (
                format!(
                    r#"{{"level":"ERROR","message":"x","service":"s","requestId":"r",{BOTH},{dotnet}}}"#
                ),
                None,
            ),
            (java("ERROR"), Some("a.B")),
            (java("UNDEFINED"), Some("a.B")),
            (java("INFO"), None),
        ] {
            let fields = fields("function", &record);
            assert_eq!(fields.exception(), name, "{record}");
        }
    }

    #[test]
    fn the_levels_of_logs() {
        const T: &str = "2026-05-11T08:30:00.000Z";
        let lambdas = |level: &str, message: &str| {
            format!(r#"{{"timestamp":"{T}","level":"{level}","message":"{message}"}}"#)
        };
        for (record, level) in [
            (lambdas("INFO", "2026/05/11 08:30:00 error: no"), Some(Level::Error)),
            (lambdas("UNDEFINED", "[ERROR] no"), Some(Level::Error)),
            (lambdas("INFO", "[alert] queue nearly full"), Some(Level::Info)),
            (
                lambdas("INFO", "[ERROR] no").replace('}', r#","tenantId":"blue"}"#),
                Some(Level::Error),
            ),
            // What a logger has called it.
            (
                r#"{"level":"info","message":"[ERROR] of a part, and mended"}"#.into(),
                Some(Level::Info),
            ),
            (r#"{"level":"info","message":{"level":"error"}}"#.into(), Some(Level::Info)),
            (lambdas("info", "[ERROR] no").replace("message", "msg"), Some(Level::Info)),
            (lambdas("info", "[ERROR] no").replace('}', r#","label":"x"}"#), Some(Level::Info)),
            (format!(r#"{{"timestamp":"{T}","message":"[ERROR] no","x":1}}"#), None),
            // Of other keys, and of numbers.
            (r#"{"level":50,"time":1778488200003,"msg":"no"}"#.into(), Some(Level::Error)),
            (r#"{"level":30,"time":1778488200003,"msg":"[ERROR]"}"#.into(), Some(Level::Info)),
            (r#"{"level":42,"msg":"no"}"#.into(), None),
            (r#"{"level":"50"}"#.into(), None),
            (r#"{"severity":"CRITICAL","message":"no"}"#.into(), Some(Level::Fatal)),
            (r#"{"asctime":"t","levelname":"WARNING","message":"no"}"#.into(), Some(Level::Warn)),
            (r#"{"@timestamp":"t","log.level":"error","message":"no"}"#.into(), Some(Level::Error)),
            (r#"{"@t":"t","@l":"Error","@mt":"no"}"#.into(), Some(Level::Error)),
            (r#"{"EventId":17,"LogLevel":"Error","Message":"no"}"#.into(), Some(Level::Error)),
            (
                r#"{"Timestamp":"t","Level":"Fatal","MessageTemplate":"no"}"#.into(),
                Some(Level::Fatal),
            ),
            (r#"{"severity":"critical","level":"info","message":"x"}"#.into(), Some(Level::Info)),
            (
                r#"{"level":"gold","severity":"high","levelname":"ERROR"}"#.into(),
                Some(Level::Error),
            ),
            (r#"{"order":{"severity":"ERROR"}}"#.into(), None),
        ] {
            let fields = fields("function", &record);
            assert_eq!(fields.log_level(), level, "{record}");
            // A line is left out by the name in its `level` alone.
            let filtered = fields.level_to_filter();
            let is_named = fields.level.is_some() && filtered.is_some();
            assert_eq!(filtered, level.filter(|_| is_named), "{record}");
        }
    }

    #[test]
    fn the_status_of_an_invocation() {
        for (record, failed) in [
            (r#"{"status":"success"}"#, false),
            (r#"{}"#, false),
            (r#"{"status":null}"#, false),
            (r#"{"status":"error","errorType":"Runtime.ExitError"}"#, true),
            (r#"{"status":"timeout"}"#, true),
        ] {
            assert_eq!(fields("platform.runtimeDone", record).failed(), failed, "{record}");
        }
    }

    #[test]
    fn what_is_kept_of_a_record_is_short() {
        let long = format!(
            r#"{{"functionArn":"{}","instanceId":"{}"}}"#,
            "a".repeat(MAX_ARN_BYTES + 1),
            "l".repeat(MAX_NAME_BYTES + 1)
        );
        let read = fields("platform.start", &long);
        assert_eq!((read.arn, read.log_stream), (None, None));
        let read = fields("platform.start", r#"{"functionArn":"a\u0062","instanceId":"l/[$1]"}"#);
        assert_eq!((read.arn.as_deref(), read.log_stream.as_deref()), (Some("ab"), Some("l/[$1]")));
    }

    #[test]
    fn the_ends_that_are_found_are_few_however_many_there_are() {
        let same = r#""platform.runtimeDone""#.repeat(100_000);
        assert_eq!(runtime_done_in(same.as_bytes(), Some("r")).len(), 1);
        let many: String = (0..1000)
            .map(|n| format!(r#""platform.runtimeDone","record":{{"requestId":"{n}","#))
            .collect();
        assert_eq!(runtime_done_in(many.as_bytes(), Some("r")).len(), MAX_FOUND);
    }

    #[test]
    fn the_end_of_an_invocation_is_found_in_what_does_not_parse() {
        let found = |text: &str| {
            let all = runtime_done_in(text.as_bytes(), Some("r-current"));
            all.iter()
                .map(|found| (found.request_id.to_owned(), found.failed()))
                .collect::<Vec<_>>()
        };
        let event = r#"{"time":"x","type":"platform.runtimeDone","record":{"requestId":"#;
        assert_eq!(found(&format!(r#"{event}"r1","status":"#)), [("r1".to_owned(), false)]);
        assert_eq!(
            found(&format!(r#"{event}"r1","status":"timeout","#)),
            [("r1".to_owned(), true)]
        );
        assert_eq!(found(&format!(r#"{event}"r1"#)), []);
        for cut in ["", "\"", "\"r-c", "\"r-c}]", "\"}", "\"r-current"] {
            assert_eq!(found(&format!("{event}{cut}")), [("r-current".to_owned(), false)], "{cut}");
        }
        assert_eq!(found(r#"{"type":"platform.runtimeDone""#), [("r-current".to_owned(), false)]);
        let two =
            found(&format!(r#"{event}"r1","status":"error",{event}"r2","status":"success"}}"#));
        assert_eq!(two, [("r1".to_owned(), true), ("r2".to_owned(), false)]);
        // Quoted in a text it is only that.
        assert_eq!(
            found(r#"{"time":"x","type":"function","record":"\"platform.runtimeDone\""#),
            []
        );
        assert!(runtime_done_in(br#""platform.runtimeDone""#, None).is_empty());
    }
}
