//! What all rooms pass on: telemetry events as they wait to be sent.
//!
//! A [`Batch`] keeps the bytes of one POST and a small [`Event`] for each event in it: ranges into
//! those bytes, no copy. The bytes of an event are its JSON object without the closing brace, on
//! one line, so that whoever sends it appends what the extension adds.

use std::ops::Range;

/// A range of a batch's bytes. 32 bits: a body has 8 MiB at the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

impl Span {
    /// From a range of indices.
    #[must_use]
    pub fn new(range: &Range<usize>) -> Span {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span { start: narrow(range.start), len: narrow(range.len()) }
    }

    /// The last `count` bytes before `from`, none of them its own, are no longer there.
    pub fn shift_back(&mut self, from: usize, count: usize) {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        if self.start >= narrow(from) {
            self.start = self.start.saturating_sub(narrow(count));
        }
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The bytes themselves; empty where the span does not lie within `bytes`.
    #[must_use]
    pub fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let start = self.start as usize;
        bytes.get(start..start + self.len as usize).unwrap_or_default()
    }
}

/// Whether two texts are the same. For those that are compared for each event: the C library that is
/// linked in compares byte by byte.
#[must_use]
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    let ((words, rest), (others, other_rest)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let others = others.iter().map(|word| u64::from_le_bytes(*word));
    one.len() == other.len() && words.eq(others) && rest.iter().eq(other_rest)
}

/// One telemetry event, as ranges into its batch's bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Event {
    /// The canonical object `{"time":…,"type":…,"record":…` without its closing brace.
    pub text: Span,
    /// The record's value within the batch's bytes.
    pub record: Span,
    /// The invocation it belongs to, as in JSON between the quotes, so that it needs no escaping:
    /// the record's own, or for a log the one in progress. Empty where it is not known.
    pub request_id: Span,
    /// The root of the record's own trace context, or empty.
    pub trace_id: Span,
    /// Whose invocation it belongs to, where functions are isolated by tenant, or empty.
    pub tenant_id: Span,
    /// The durable execution that a log says it belongs to, or empty.
    pub execution_arn: Span,
    /// The second half of its event id: 1 for the first event taken from Lambda.
    pub number: u64,
    /// Of the init or the first invocation.
    pub cold_start: bool,
    /// How often the sandbox had been restored from its snapshot when it came: each time numbers
    /// begin anew, under a new id.
    pub restores: u16,
}

impl Event {
    /// The last `count` of its batch's bytes before `from`, none of them its own, are no longer
    /// there.
    pub fn shift_back(&mut self, from: usize, count: usize) {
        for span in [
            &mut self.text,
            &mut self.record,
            &mut self.request_id,
            &mut self.trace_id,
            &mut self.tenant_id,
            &mut self.execution_arn,
        ] {
            span.shift_back(from, count);
        }
    }
}

/// The events of one POST, or what is left of them.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    events: Vec<Event>,
    /// Events before this one have been taken.
    next: usize,
}

impl Batch {
    /// `events` are ranges into `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>, events: Vec<Event>) -> Batch {
        Batch { bytes, events, next: 0 }
    }

    /// Events that have not been taken yet.
    #[must_use]
    pub fn remaining(&self) -> &[Event] {
        self.events.get(self.next..).unwrap_or_default()
    }

    /// The bytes that the events' spans point into.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// As [`Batch::remaining`].
    pub fn remaining_mut(&mut self) -> &mut [Event] {
        self.events.get_mut(self.next..).unwrap_or_default()
    }

    /// Leaves out the remaining events for which `wanted` says no.
    pub fn retain(&mut self, wanted: impl FnMut(&Event) -> bool) {
        self.events.drain(..self.next.min(self.events.len()));
        self.next = 0;
        self.events.retain(wanted);
    }

    /// Marks the first `count` remaining events as taken.
    pub fn advance(&mut self, count: usize) {
        self.next = (self.next + count).min(self.events.len());
    }

    /// Its buffers, for the next body.
    #[must_use]
    pub fn into_buffers(self) -> (Vec<u8>, Vec<Event>) {
        (self.bytes, self.events)
    }

    /// What it costs in memory, in bytes: the body and the bookkeeping, whether or not some events
    /// have been taken.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.bytes.capacity() + self.events.capacity() * size_of::<Event>()
    }
}
