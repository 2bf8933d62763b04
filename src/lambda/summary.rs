//! `SUMMARY`: one event that says what became of an invocation. Pure.

use std::fmt::Write as _;

use super::keep::Choice;
use super::observed::{LEVELS, METRICS, PlatformResult};
use crate::clock::{self, EpochMs};
use crate::event::{Batch, Event, Span};

/// The type of the event.
pub(super) const SUMMARY_EVENT: &str = "kinesis-telemetry.invocation";

/// What it says. Strings are as in JSON, between the quotes; empty where they are not known.
pub(super) struct Summary<'a> {
    pub(super) request_id: &'a str,
    pub(super) trace_id: &'a str,
    pub(super) tenant_id: &'a str,
    pub(super) result: &'a PlatformResult,
    pub(super) is_first: bool,
    pub(super) events: u64,
    pub(super) bytes: u64,
    pub(super) levels: &'a [u64; LEVELS.len()],
    pub(super) choice: Choice,
}

impl Summary<'_> {
    /// `{"time":…,"type":"kinesis-telemetry.invocation","record":{…}` as a batch of its own.
    pub(super) fn batch(&self, now: EpochMs, restores: u16) -> Batch {
        let mut text =
            format!(r#"{{"time":"{}","type":"{SUMMARY_EVENT}","record":"#, clock::iso8601(now));
        let record = text.len();
        let _ = write!(text, r#"{{"requestId":"{}""#, self.request_id);
        let request_id = text.len() - 1 - self.request_id.len();
        let PlatformResult { status, error_type, metrics } = self.result;
        for (name, value) in [("status", status), ("errorType", error_type)] {
            let _ = value.as_ref().map(|value| write!(text, r#","{name}":"{value}""#));
        }
        for (name, value) in METRICS.iter().zip(metrics) {
            let _ = value.as_ref().map(|value| write!(text, r#","{name}":{value}"#));
        }
        if self.is_first {
            text.push_str(r#","coldStart":true"#);
        }
        let _ = write!(text, r#","events":{},"bytes":{},"levels":{{"#, self.events, self.bytes);
        let counted = LEVELS.iter().zip(self.levels).filter(|(_, count)| **count > 0);
        for (n, ((_, name), count)) in counted.enumerate() {
            let _ = write!(text, r#"{}"{name}":{count}"#, if n > 0 { "," } else { "" });
        }
        let choice = self.choice;
        let _ = write!(text, r#"}},"kept":{},"reason":"{}"}}"#, choice.kept, choice.reason.word());
        let end = text.len();
        // Behind the event's own bytes.
        let mut put = |id: &str| {
            let start = text.len();
            text.push_str(id);
            Span::new(&(start..text.len()))
        };
        let (trace_id, tenant_id) = (put(self.trace_id), put(self.tenant_id));
        let event = Event {
            text: Span::new(&(0..end)),
            record: Span::new(&(record..end)),
            request_id: Span::new(&(request_id..request_id + self.request_id.len())),
            trace_id,
            tenant_id,
            cold_start: self.is_first,
            restores,
            ..Event::default()
        };
        Batch::new(text.into_bytes(), vec![event])
    }
}
