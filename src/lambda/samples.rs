//! Bodies for the tests of this folder, and what they become.

use super::filter::Types;
use super::intake::{Intake, ParsedBody};
use crate::event::{Event, Span};

pub(super) const ALL: Types = Types { platform: true, function: true, extension: true };

pub(super) fn intake() -> Intake {
    Intake::new(ALL, false)
}

/// The events as they would be written, without what the extension adds.
pub(super) fn texts(taken: &ParsedBody) -> Vec<String> {
    let bytes = taken.batch.bytes();
    taken
        .batch
        .remaining()
        .iter()
        .map(|event| String::from_utf8(event.text.of(bytes).to_vec()).unwrap())
        .collect()
}

pub(super) fn ids(taken: &ParsedBody) -> Vec<Option<String>> {
    let bytes = taken.batch.bytes();
    let id = |event: &Event| String::from_utf8(event.request_id.of(bytes).to_vec()).unwrap();
    taken
        .batch
        .remaining()
        .iter()
        .map(|event| Some(id(event)).filter(|id| !id.is_empty()))
        .collect()
}

pub(super) fn event(kind: &str, record: &str) -> String {
    format!(r#"{{"time":"2026-11-23T09:15:45.012Z","type":"{kind}","record":{record}}}"#)
}

pub(super) fn body(events: &[String]) -> Vec<u8> {
    format!("[{}]", events.join(",")).into_bytes()
}

/// What of an event stands in these spans.
pub(super) fn parts<const N: usize>(
    taken: &ParsedBody,
    n: usize,
    spans: impl Fn(&Event) -> [Span; N],
) -> [String; N] {
    spans(&taken.batch.remaining()[n])
        .map(|span| String::from_utf8(span.of(taken.batch.bytes()).to_vec()).unwrap())
}
