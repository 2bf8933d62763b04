//! Turns the elements of a body into events, signals and counts. Events that do not name their
//! invocation belong to the one in progress. Pure.

use std::ops::Range;
use std::sync::Arc;

use super::appendix::Appendix;
use super::envelope::{Envelope, Log};
use super::fields::{RecordFields, is_log, runtime_done_in};
use super::filter::{Filter, Level};
use super::invocations::Invocations;
use super::observed::{Milestone, MilestoneKind, Observed, PlatformResult};
use super::parsed_body::{ParsedBody, Signal};
use super::text_level::{may_report, plain_text_level, text_exception, text_level};
use crate::clock::{self, EpochMs};
use crate::event::{Batch, Event, Span};

/// Text for what is damaged in one part of a body: control characters take six times their room,
/// and one of the pieces that Lambda cuts has 256 KiB.
pub(super) const MAX_TEXT_BYTES: usize = 512 * 1024;

/// Bounds of what one part of a body gives; the rest is left for another part. Lambda posts 10,000
/// events at the most, and an event that is written anew is in memory twice.
pub(super) const MAX_EVENTS: usize = 10 * 1024;
pub(super) const MAX_SIGNALS: usize = 2 * 1024;
/// What is observed takes room even of lines that are not shipped. A body of Lambda's has no more
/// than one of these for each event and each end, and should be looked at as a whole.
pub(super) const MAX_STEPS: usize = 12 * 1024;
const MAX_APPENDIX: usize = 256 * 1024;
/// Room for further events, in bytes, that stays with a batch, so that its buffers serve again.
const MAX_UNUSED: usize = 64 * 1024;

/// How often numbers may begin anew. A process is restored once.
pub(super) const MAX_RESTORES: u16 = 64;

/// The state of the stream of telemetry, as far as this process has read it.
#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) filter: Filter,
    pub(super) invocations: Invocations,
    /// The number of the last event.
    pub(super) number: u64,
    pub(super) restores: u16,
    /// Invocations are chosen, or summed up.
    pub(super) observes: bool,
}

/// Collects the events, signals and counts of one part of a body.
pub(super) struct EventBuilder<'s> {
    state: &'s mut StreamState,
    now: EpochMs,
    events: Vec<Event>,
    signals: Vec<Signal>,
    appendix: Appendix,
    /// Made when it is first needed.
    progress: Option<Progress>,
    observed: Observed,
    text_room: usize,
    max_events: usize,
    unparsed: u64,
    excluded: u64,
}

/// What an event without a request id of its own takes from the invocation in progress. The spans
/// are empty where there is none.
#[derive(Clone, Copy)]
struct Progress {
    request_id: Span,
    tenant_id: Span,
    cold_start: bool,
}

/// Strings of a record, where they lie now.
struct Lifted {
    request_id: Option<Span>,
    tenant_id: Option<Span>,
    trace_id: Span,
    execution_arn: Span,
}

/// The invocation that an event belongs to.
struct Attribution {
    request_id: Span,
    tenant_id: Span,
    cold_start: bool,
    /// The invocation that it is chosen with; empty where it belongs to none.
    owner: Span,
}

impl<'s> EventBuilder<'s> {
    /// For a part of `length` bytes. `events` is a used buffer, whose pages need not be fetched
    /// again. `now` is the time of events that have none.
    pub(super) fn new(
        state: &'s mut StreamState,
        now: EpochMs,
        mut events: Vec<Event>,
        length: usize,
        max_events: usize,
    ) -> EventBuilder<'s> {
        events.clear();
        // Lambda's events have some 300 bytes; a too small guess costs one more allocation.
        events.reserve((length / 300).min(max_events));
        EventBuilder {
            state,
            now,
            events,
            signals: Vec::new(),
            appendix: Appendix::new(length),
            progress: None,
            observed: Observed::default(),
            text_room: MAX_TEXT_BYTES,
            max_events,
            unparsed: 0,
            excluded: 0,
        }
    }

    /// Whether it has given enough for one part of a body.
    pub(super) fn is_full(&self) -> bool {
        let is_bounded = self.max_events < usize::MAX;
        self.events.len() >= self.max_events
            || (is_bounded && self.signals.len() >= MAX_SIGNALS)
            || (is_bounded && self.observed.steps.len() >= MAX_STEPS)
            || (is_bounded && self.appendix.len() >= MAX_APPENDIX)
    }

    /// The result. It keeps the first `end` bytes of `body` if any event lies in them.
    pub(super) fn finish(mut self, mut body: Vec<u8>, end: usize) -> ParsedBody {
        self.observed.close();
        self.observed.restores = self.state.restores;
        let length = self.appendix.base();
        // If all events were written anew, the body is not needed.
        let is_needed = self.events.iter().any(|event| (event.text.start as usize) < length);
        let needed = if is_needed { end } else { 0 };
        if needed < length {
            self.events.iter_mut().for_each(|event| event.shift_back(length, length - needed));
            self.observed.shift_back(length, length - needed);
        }
        if is_needed {
            body.truncate(needed);
            self.appendix.append_to(&mut body);
            if body.capacity() > 2 * body.len() {
                body.shrink_to_fit();
            }
        } else {
            body = self.appendix.into_bytes();
        }
        let unused = (self.events.capacity() - self.events.len()) * size_of::<Event>();
        if unused > MAX_UNUSED.max(body.len() / 2) {
            // The part ended early: there were other things in it than events.
            self.events.shrink_to_fit();
        }
        ParsedBody {
            batch: Batch::new(body, self.events),
            signals: self.signals,
            unparsed: self.unparsed,
            excluded: self.excluded,
            observed: self.observed,
        }
    }

    /// `bytes`: those that the envelope was read from.
    pub(super) fn event(&mut self, envelope: &Envelope, bytes: &[u8]) {
        match envelope.text_log(bytes) {
            Some(log) => self.text_log(log, envelope, bytes),
            None => self.other(envelope, bytes),
        }
    }

    fn text_log(&mut self, log: Log, envelope: &Envelope, bytes: &[u8]) {
        let is_functions = log == Log::Function;
        if !self.state.filter.ships_log(is_functions) {
            return;
        }
        let Progress { request_id, tenant_id, cold_start } = self.progress();
        let level = if self.state.observes && is_functions {
            let line = envelope.line(bytes);
            let level =
                if envelope.has_escapes() { text_level(line) } else { plain_text_level(line) };
            self.note_text(line, level)
        } else {
            None
        };
        let kind = if is_functions { "function" } else { "extension" };
        if self.state.filter.excludes(kind, || None) {
            return self.exclude(request_id, level);
        }
        let (text, record) = self.place(envelope, bytes);
        let (text, record) = (Span::new(&text), Span::new(&record));
        // A log of an extension is none of the function's.
        let owner = if is_functions { request_id } else { Span::default() };
        let event = Event { text, record, request_id, tenant_id, cold_start, ..Event::default() };
        self.push(event, owner, false, level);
    }

    /// Any other event.
    fn other(&mut self, envelope: &Envelope, bytes: &[u8]) {
        let kind = envelope.kind(bytes);
        let json = envelope.record(bytes);
        let fields = RecordFields::of(kind, json);
        self.signal(kind, &fields, envelope, bytes);
        if !self.state.filter.ships(kind) {
            return;
        }
        let level = self.level(kind, &fields);
        if self.state.filter.excludes(kind, || fields.level_to_filter()) {
            let owner = level.map_or(Span::default(), |_| self.owner_of_excluded(&fields));
            return self.exclude(owner, level);
        }
        let (text, record) = self.place(envelope, bytes);
        let lifted = Lifted::of(&fields, json, record.start);
        // Without an id it has no milestone.
        let is_report = kind == "platform.report" && fields.request_id.is_some();
        let Attribution { request_id, tenant_id, cold_start, owner } =
            self.attribute(kind, &fields, &lifted);
        let event = Event {
            text: Span::new(&text),
            record: Span::new(&record),
            request_id,
            trace_id: lifted.trace_id,
            tenant_id,
            execution_arn: lifted.execution_arn,
            cold_start,
            ..Event::default()
        };
        self.push(event, owner, is_report, level);
    }

    /// Where an event to be shipped lies, and its record.
    fn place(&mut self, envelope: &Envelope, bytes: &[u8]) -> (Range<usize>, Range<usize>) {
        match envelope.in_place() {
            Some(place) => place,
            None => envelope.rebuild(bytes, &mut self.appendix),
        }
    }

    /// Finds the invocation that an event belongs to. A log may name one, unless the platform names
    /// another.
    fn attribute(&mut self, kind: &str, fields: &RecordFields<'_>, lifted: &Lifted) -> Attribution {
        let progress = self.progress();
        let invocations = &self.state.invocations;
        let seen = fields.request_id.and_then(|id| invocations.find(id));
        let own = fields
            .request_id
            .filter(|_| seen.is_some() || invocations.overlapping || !is_log(kind));
        let (request_id, cold_start, of_invocation) = match own {
            Some(id) => {
                let tenant = seen
                    .and_then(|seen| seen.tenant_id.as_deref())
                    .filter(|tenant| fields.tenant_id != Some(*tenant));
                let current = invocations.is_current(id) && !progress.tenant_id.is_empty();
                let span = if current { Some(progress.tenant_id) } else { None };
                let appendix = &mut self.appendix;
                let tenant = tenant.map(|tenant| {
                    span.unwrap_or_else(|| Span::new(&appendix.put(tenant.as_bytes())))
                });
                (lifted.request_id.unwrap_or_default(), invocations.is_cold_start(id), tenant)
            }
            None if is_log(kind) => (
                progress.request_id,
                progress.cold_start,
                Some(progress.tenant_id).filter(|span| !span.is_empty()),
            ),
            None => (Span::default(), progress.cold_start, None),
        };
        let tenant_id = if is_log(kind) {
            of_invocation.or(lifted.tenant_id)
        } else {
            lifted.tenant_id.or(of_invocation)
        };
        let owner = match own {
            _ if kind == "extension" => Span::default(),
            // Neighbours of one invocation share one span.
            Some(id) if invocations.is_current(id) => progress.request_id,
            _ => request_id,
        };
        Attribution { request_id, tenant_id: tenant_id.unwrap_or_default(), cold_start, owner }
    }

    /// The level of a log that is no text, if invocations are chosen by it.
    fn level(&mut self, kind: &str, fields: &RecordFields<'_>) -> Option<Level> {
        if !self.state.observes || kind != "function" {
            return None;
        }
        self.note_exception(fields.request_id, fields.exception());
        fields.log_level()
    }

    /// The level of a text, behind what is to be noted of it.
    fn note_text(&mut self, text: &[u8], level: Option<Level>) -> Option<Level> {
        if may_report(text, level) {
            self.note_exception(None, text_exception(text, level));
        }
        level
    }

    /// `request_id`: what the log says.
    fn note_exception(&mut self, request_id: Option<&str>, name: Option<&str>) {
        let invocations = &self.state.invocations;
        let is_known = |id: &&str| invocations.overlapping || invocations.find(id).is_some();
        let current = invocations.current.as_ref().map(|current| &*current.request_id);
        if let Some(name) = name
            && let Some(id) = request_id.filter(is_known).or(current)
        {
            self.observed.exception(id, name);
        }
    }

    /// The invocation of a log that is not shipped.
    fn owner_of_excluded(&mut self, fields: &RecordFields<'_>) -> Span {
        let progress = self.progress();
        let invocations = &self.state.invocations;
        let is_known = |id: &&str| invocations.overlapping || invocations.find(id).is_some();
        match fields.request_id.filter(is_known) {
            Some(id) if !invocations.is_current(id) => Span::new(&self.appendix.put(id.as_bytes())),
            _ => progress.request_id,
        }
    }

    fn exclude(&mut self, owner: Span, level: Option<Level>) {
        self.excluded += 1;
        if let Some(level) = level {
            self.observed.excluded(owner, level);
        }
    }

    /// `owner` is empty for an event that belongs to no invocation.
    fn push(&mut self, mut event: Event, owner: Span, is_report: bool, level: Option<Level>) {
        if self.state.observes {
            self.observed.event(owner, is_report, &event, level);
        }
        self.state.number += 1;
        if self.events.len() == self.events.capacity() {
            self.make_room(event.text);
        }
        (event.number, event.restores) = (self.state.number, self.state.restores);
        self.events.push(event);
    }

    /// Takes room for as many events as there will be, if the others are like those up to `last`: a
    /// buffer that grows is there twice while it moves.
    fn make_room(&mut self, last: Span) {
        let (have, length) = (self.events.len(), self.appendix.base());
        let read = ((last.start + last.len) as usize).clamp(1, length.max(1));
        let expected = have * length / read;
        let most = self.max_events.max(have + 1);
        let room = (expected + expected / 8).max(have + have / 2 + 4).min(most);
        self.events.reserve_exact(room - have);
    }

    /// The values of the invocation in progress.
    #[inline(always)]
    fn progress(&mut self) -> Progress {
        match self.progress {
            Some(known) => known,
            None => self.find_progress(),
        }
    }

    fn find_progress(&mut self) -> Progress {
        let invocations = &self.state.invocations;
        let current = invocations.current.as_ref();
        let mut put = |text: Option<&str>| {
            text.map(|text| Span::new(&self.appendix.put(text.as_bytes()))).unwrap_or_default()
        };
        let request_id = put(current.map(|current| &*current.request_id));
        let tenant_id = put(current.and_then(|current| current.tenant_id.as_deref()));
        let cold_start = match &invocations.first {
            None => true,
            Some(first) => current.is_some_and(|current| current.request_id == *first),
        };
        *self.progress.insert(Progress { request_id, tenant_id, cold_start })
    }

    /// Ships a damaged stretch: its bytes, as a string.
    pub(super) fn damaged(&mut self, bytes: &[u8]) {
        self.signals.push(Signal::Damaged);
        if self.state.observes {
            self.observed.gap();
        }
        self.ends_in(bytes);
        if self.state.filter.excludes("unparsed", || None) {
            self.excluded += 1;
            return;
        }
        self.unparsed += 1;
        let Progress { request_id, tenant_id, cold_start } = self.progress();
        let time = clock::iso8601(self.now);
        let head = format!("{{\"time\":\"{time}\",\"type\":\"unparsed\",\"record\":");
        let start = self.appendix.put(head.as_bytes()).start;
        let (record, taken) = self.appendix.put_as_text(bytes, self.text_room);
        self.text_room = self.text_room.saturating_sub(record.len());
        let mut end = record.end;
        if taken < bytes.len() {
            let cut = format!(",\"truncatedBytes\":{}", bytes.len() - taken);
            end = self.appendix.put(cut.as_bytes()).end;
        }
        let (text, record) = (Span::new(&(start..end)), Span::new(&record));
        let event = Event { text, record, request_id, tenant_id, cold_start, ..Event::default() };
        self.push(event, request_id, false, None);
    }

    /// Reports the ends of invocations that are found in a damaged stretch.
    fn ends_in(&mut self, bytes: &[u8]) {
        let invocations = &self.state.invocations;
        let current = invocations.current.as_ref().map(|current| &*current.request_id);
        for found in runtime_done_in(bytes, current) {
            let request_id: Arc<str> = found.request_id.into();
            if self.state.observes {
                let status = found.status.map(Box::from);
                self.observed.milestone(Milestone {
                    result: PlatformResult { status, ..PlatformResult::default() },
                    ..invocations.milestone(&request_id, MilestoneKind::DamagedDone)
                });
            }
            self.signals.push(Signal::RuntimeDone { request_id, at: None, failed: found.failed() });
        }
    }

    fn signal(&mut self, kind: &str, fields: &RecordFields<'_>, envelope: &Envelope, bytes: &[u8]) {
        let said = Signal::of(kind, fields, envelope, bytes);
        match (&said, kind) {
            (Some(Signal::Start { request_id, .. }), _) => {
                let time = envelope.epoch_ms(bytes);
                self.state.invocations.start(request_id, fields.tenant_id, time);
                self.progress = None;
            }
            (Some(Signal::RuntimeDone { request_id, .. } | Signal::Report { request_id }), _) => {
                self.state.invocations.ended(request_id);
            }
            (Some(Signal::LogsDropped { .. }), _) if self.state.observes => self.observed.gap(),
            // Two sandboxes may come out of one snapshot: from here on they must not give the same
            // ids to different events.
            (_, "platform.restoreStart") if self.state.restores < MAX_RESTORES => {
                self.state.number = 0;
                self.state.restores += 1;
                self.signals.push(Signal::Restored);
            }
            _ => {}
        }
        self.signals.extend(said);
        if self.state.observes
            && let Some(of) = MilestoneKind::of(kind)
            && let Some(request_id) = fields.request_id.map(Arc::<str>::from)
        {
            self.observed.milestone(Milestone {
                time: envelope.epoch_ms(bytes),
                trace_id: fields.trace_id.map(Box::from),
                tenant_id: fields.tenant_id.map(Box::from),
                result: fields.result(),
                ..self.state.invocations.milestone(&request_id, of)
            });
        }
    }
}

impl Lifted {
    /// `json` is the record that the fields were read from, and `record` where it lies now.
    fn of(fields: &RecordFields<'_>, json: &str, record: usize) -> Lifted {
        let within = |part: Option<&str>| {
            let offset = part?.as_ptr() as usize - json.as_ptr() as usize;
            let range: Range<usize> = record + offset..record + offset + part?.len();
            Some(Span::new(&range))
        };
        Lifted {
            request_id: within(fields.request_id),
            tenant_id: within(fields.tenant_id),
            trace_id: within(fields.trace_id).unwrap_or_default(),
            execution_arn: within(fields.execution_arn).unwrap_or_default(),
        }
    }
}
