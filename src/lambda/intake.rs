//! One body -> numbered events and signals, in the light of the invocation in progress. Pure: no
//! thread, socket, clock or log.
//!
//! A body is parsed in one pass and its events stay ranges into it. Text logs take `text_log`'s
//! short way, others `envelope`'s; a body that does not parse goes through `repair`. What is read
//! of a record is `fields`'s.

use std::ops::Range;
use std::sync::Arc;

use super::envelope::{Appendix, Envelope};
use super::fields::{RecordFields, is_log, runtime_done_in};
use super::filter::{Filter, Level};
use super::invocations::Invocations;
use super::observed::{Milestone, MilestoneKind, Observed, PlatformResult};
pub use super::parsed_body::{Behind, ParsedBody, Part, Rest, Signal};
use super::repair::{self, Element, Repair};
use super::text_level::text_level;
use super::text_log;
use crate::clock::{self, EpochMs};
use crate::event::{Batch, Event, Span};

/// Text for what is damaged in one part of a body: control characters take six times their room, and
/// one of the pieces that Lambda cuts has 256 KiB.
const MAX_TEXT_BYTES: usize = 512 * 1024;

/// What one part of a body may give, before what is behind it is left for another part: Lambda posts
/// 10,000 events at the most, and events that must be written anew are there twice.
const MAX_EVENTS: usize = 10 * 1024;
const MAX_SIGNALS: usize = 2 * 1024;
const MAX_APPENDIX: usize = 256 * 1024;

/// An event with broken UTF-8 that is longer is shipped as text: written anew it can take three
/// times its room.
const MAX_BROKEN_BYTES: usize = 512 * 1024;

/// How often numbers may begin anew. A process is restored once.
const MAX_RESTORES: u16 = 64;

/// The stream of telemetry as this process has seen it so far: which invocation is in progress, and
/// the last event number.
#[derive(Debug)]
pub struct Intake {
    filter: Filter,
    invocations: Invocations,
    number: u64,
    restores: u16,
    /// The pieces so far of a cut record that the next body is to continue, as they came.
    held: Option<Vec<u8>>,
    min_cut_bytes: usize,
    /// Whether somebody chooses between invocations.
    observes: bool,
}

impl Intake {
    /// `filter` says what to ship; other events are read for their signals only. `overlapping`:
    /// invocations run side by side (Managed Instances), so that none is "in progress".
    #[must_use]
    pub fn new(filter: impl Into<Filter>, overlapping: bool) -> Intake {
        let invocations = Invocations::new(overlapping);
        Intake {
            filter: filter.into(),
            invocations,
            number: 0,
            restores: 0,
            held: None,
            min_cut_bytes: repair::MIN_CUT_BYTES,
            observes: false,
        }
    }

    /// Says of each body what a choice between invocations must know.
    #[must_use]
    pub fn observing(self, observes: bool) -> Intake {
        Intake { observes, ..self }
    }

    /// Takes pieces from this length on for ones that Lambda cut, where nothing else tells: for
    /// tests, whose records are shorter than Lambda's.
    #[must_use]
    pub fn with_min_cut_bytes(self, min_cut_bytes: usize) -> Intake {
        Intake { min_cut_bytes, ..self }
    }

    /// Lambda has announced an invocation, perhaps before its `platform.start` has come.
    pub fn invoked(&mut self, request_id: &str) {
        if self.invocations.find(request_id).is_some() {
            return;
        }
        // Ids are kept as in JSON, between the quotes.
        let json = serde_json::to_string(request_id).unwrap_or_default();
        self.invocations.add(&json.trim_matches('"').into(), None);
    }

    /// Bytes that are held back for the next body to continue.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, Vec::capacity)
    }

    /// Reads one body, however many events it has. `now` stamps what has no time of its own.
    pub fn take(&mut self, bytes: Vec<u8>, now: EpochMs) -> ParsedBody {
        let part = Part { is_first: true, behind: Behind::NextBody };
        self.read(bytes, Vec::new(), now, part, usize::MAX).0
    }

    /// Reads a part of a body. Comes back with what is left of it for the next part, which is to
    /// begin with that: only where more comes behind it, or where this has given enough.
    ///
    /// The events go into a used buffer, whose pages need not be fetched again.
    pub fn take_part(
        &mut self,
        bytes: Vec<u8>,
        events: Vec<Event>,
        now: EpochMs,
        part: Part,
    ) -> (ParsedBody, Rest) {
        self.read(bytes, events, now, part, MAX_EVENTS)
    }

    /// What is held back for the next body to continue and never was. To be called when no further
    /// body comes, or there is no room to wait for one.
    pub fn finish(&mut self, now: EpochMs) -> ParsedBody {
        if self.held.is_none() {
            return ParsedBody::default();
        }
        let part = Part { is_first: true, behind: Behind::Nothing };
        self.read(Vec::new(), Vec::new(), now, part, usize::MAX).0
    }

    fn read(
        &mut self,
        mut body: Vec<u8>,
        mut events: Vec<Event>,
        now: EpochMs,
        part: Part,
        max_events: usize,
    ) -> (ParsedBody, Rest) {
        events.clear();
        let held = if part.is_first { self.held.take() } else { None };
        let is_continued = held.is_some();
        if let Some(held) = held {
            body = put_behind(held, &body);
        }
        let length = body.len();
        let mut reader = BodyReader::new(self, now, events, length, max_events);
        let mut end = if is_continued { 0 } else { reader.read_array(&body, part.is_first) };
        // What follows a good beginning may be whole once more of it is there.
        let waits = part.behind == Behind::RestOfBody && end > 0;
        if end < length && !waits && !reader.is_full() {
            end = reader.repair(&mut body, end, part.behind);
        }
        let BodyReader { mut events, signals, appendix, unparsed, excluded, mut observed, .. } =
            reader;
        observed.close();
        observed.restores = self.restores;
        let is_stuck = end == 0 && length > 0;
        let bytes = match part.behind {
            _ if is_stuck => std::mem::take(&mut body),
            // More of the body is read behind it.
            Behind::RestOfBody if end < length => Vec::with_capacity(body.capacity()),
            _ => Vec::with_capacity(length - end),
        };
        let mut rest = Rest { bytes, is_stuck };
        rest.bytes.extend_from_slice(body.get(end..).unwrap_or_default());
        // What is needed of the body, if anything: the rest was written anew.
        let is_needed = events.iter().any(|event| (event.text.start as usize) < length);
        let needed = if is_needed { end } else { 0 };
        events.iter_mut().for_each(|event| event.shift_back(length, length - needed));
        observed.shift_back(length, length - needed);
        if is_needed {
            body.truncate(needed);
            appendix.append_to(&mut body);
            if body.capacity() > 2 * body.len() {
                body.shrink_to_fit();
            }
        } else {
            body = appendix.into_bytes();
        }
        let batch = Batch::new(body, events);
        (ParsedBody { batch, signals, unparsed, excluded, observed }, rest)
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

/// One body being read.
struct BodyReader<'i> {
    intake: &'i mut Intake,
    now: EpochMs,
    events: Vec<Event>,
    signals: Vec<Signal>,
    appendix: Appendix,
    /// Known once it was needed.
    progress: Option<Progress>,
    /// A stretch of the body that is no event; the next element may be a part of it.
    damaged: Option<Range<usize>>,
    text_room: usize,
    max_events: usize,
    unparsed: u64,
    excluded: u64,
    observed: Observed,
}

/// What an event without a request id of its own has from the invocation in progress. The spans are
/// empty where there is none.
#[derive(Clone, Copy)]
struct Progress {
    request_id: Span,
    tenant_id: Span,
    cold_start: bool,
}

impl<'i> BodyReader<'i> {
    fn new(
        intake: &'i mut Intake,
        now: EpochMs,
        mut events: Vec<Event>,
        length: usize,
        max_events: usize,
    ) -> BodyReader<'i> {
        // Lambda's events have some 300 bytes; a too small guess costs one more allocation.
        events.reserve(length / 300);
        let appendix = Appendix::new(length);
        BodyReader {
            intake,
            now,
            events,
            signals: Vec::new(),
            appendix,
            progress: None,
            damaged: None,
            text_room: MAX_TEXT_BYTES,
            max_events,
            unparsed: 0,
            excluded: 0,
            observed: Observed::default(),
        }
    }

    /// Whether it has given enough for one part of a body.
    fn is_full(&self) -> bool {
        let is_bounded = self.max_events < usize::MAX;
        self.events.len() >= self.max_events
            || (is_bounded && self.signals.len() >= MAX_SIGNALS)
            || (is_bounded && self.appendix.len() >= MAX_APPENDIX)
    }

    /// The ordinary case: a JSON array of events, or the rest of one. Comes back with the index
    /// behind the last byte that was understood.
    fn read_array(&mut self, bytes: &[u8], is_first: bool) -> usize {
        // Once for all: what is behind a broken character is repair's.
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => bytes
                .get(..error.valid_up_to())
                .and_then(|good| std::str::from_utf8(good).ok())
                .unwrap_or_default(),
        };
        let plain = !text_log::has_control(bytes);
        let mut understood = 0;
        let mut at = skip_blanks(bytes, 0);
        match (is_first, bytes.get(at)) {
            (true, Some(b'[')) | (false, Some(b',')) => at = skip_blanks(bytes, at + 1),
            (true, _) => return 0,
            (false, _) => {}
        }
        let mut closed = bytes.get(at) == Some(&b']');
        while !closed && !self.is_full() {
            let log = if plain { text_log::text_log(text.as_bytes(), at) } else { None };
            let end = match log {
                Some(log) => self.text_log(&log, bytes),
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
        if closed && skip_blanks(bytes, at + 1) == bytes.len() { bytes.len() } else { understood }
    }

    /// One event of any form. Comes back with the index behind it; `None` if it is not one, or if
    /// it may be none.
    fn read_element(&mut self, text: &str, at: usize, multi_line: bool) -> Option<usize> {
        let mut elements =
            serde_json::Deserializer::from_str(text.get(at..)?).into_iter::<Envelope<'_>>();
        let envelope = elements.next()?.ok()?;
        let end = at + elements.byte_offset();
        let kind = envelope.kind()?;
        if is_log(kind)
            && repair::is_doubtful(text.as_bytes().get(at..end)?, self.intake.min_cut_bytes)
        {
            return None;
        }
        self.event(kind, &envelope, text.as_bytes(), multi_line);
        Some(end)
    }

    /// A text log that stands as it is to be shipped. Comes back with the index behind it.
    fn text_log(&mut self, log: &text_log::TextLog, bytes: &[u8]) -> Option<usize> {
        let end = log.object.end;
        if !self.intake.filter.ships(log.kind) {
            return Some(end);
        }
        let Progress { request_id, tenant_id, cold_start } = self.progress();
        // A log of an extension is none of the function's.
        let is_functions = log.kind == "function";
        let level = if self.intake.observes && is_functions {
            text_level(bytes.get(log.record.start + 1..log.record.end - 1).unwrap_or_default())
        } else {
            None
        };
        if self.intake.filter.excludes(log.kind, None) {
            self.exclude(request_id, level);
            return Some(end);
        }
        let text = log.object.start..end - 1;
        let (text, record) = (Span::new(&text), Span::new(&log.record));
        let owner = if is_functions { request_id } else { Span::default() };
        let event = Event { text, record, request_id, tenant_id, cold_start, ..Event::default() };
        self.push(event, owner, level);
        Some(end)
    }

    /// What does not parse as a whole: element by element, with Lambda's cut records put together
    /// again. Comes back with the index behind the last one.
    fn repair(&mut self, body: &mut [u8], from: usize, behind: Behind) -> usize {
        let length = body.len();
        let last = matches!(behind, Behind::NoRoom | Behind::Nothing);
        let mut repair = Repair::new(body, from, self.intake.min_cut_bytes, last);
        let mut end = from;
        while let Some(element) = repair.next(body) {
            // More bytes could make another one of it.
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
                return stretch.map_or(end, |stretch| stretch.start);
            }
            match element {
                Element::Whole(range) => self.repaired(body, range),
                Element::Cut(pieces) => {
                    let range = repair::join(body, &pieces);
                    self.repaired(body, range);
                }
                Element::Damaged(range) => self.damage(range),
                // Another body was read between the parts of this one, and its record waits.
                Element::Unfinished(range) if self.intake.held.is_some() => self.damage(range),
                Element::Unfinished(range) => {
                    self.intake.held = body.get(range).map(<[u8]>::to_vec)
                }
            }
            end = repair.at();
            if self.damaged.is_none() && self.is_full() {
                return end;
            }
        }
        self.ship_damaged(body);
        length
    }

    /// One JSON object of a body that does not parse.
    fn repaired(&mut self, body: &[u8], range: Range<usize>) {
        let is_event = |text: &str| {
            serde_json::from_str::<Envelope<'_>>(text)
                .is_ok_and(|envelope| envelope.kind().is_some())
        };
        let bytes = body.get(range.clone()).unwrap_or_default();
        if range.len() > MAX_BROKEN_BYTES && std::str::from_utf8(bytes).is_err() {
            return self.damage(range);
        }
        if self.damaged.is_some()
            && is_event(&String::from_utf8_lossy(body.get(range.clone()).unwrap_or_default()))
        {
            self.ship_damaged(body);
        }
        let text = String::from_utf8_lossy(body.get(range.clone()).unwrap_or_default());
        let envelope = serde_json::from_str::<Envelope<'_>>(&text).ok();
        match envelope.as_ref().and_then(|envelope| Some((envelope.kind()?, envelope))) {
            Some((kind, envelope)) => self.event(kind, envelope, body, true),
            None => self.damage(range),
        }
    }

    /// `bytes` is the body that the envelope points into, or from which it was copied.
    fn event(&mut self, kind: &str, envelope: &Envelope<'_>, bytes: &[u8], multi_line: bool) {
        let in_place = envelope.in_place(bytes).filter(|(text, _)| {
            !multi_line
                || !bytes
                    .get(text.clone())
                    .unwrap_or_default()
                    .iter()
                    .any(|b| matches!(b, b'\n' | b'\r'))
        });
        let fields = RecordFields::of(kind, envelope.record);
        self.signal(kind, &fields, envelope);
        if !self.intake.filter.ships(kind) {
            return;
        }
        let level = self.level(kind, &fields, envelope);
        if self.intake.filter.excludes(kind, fields.level) {
            let owner = level.map_or(Span::default(), |_| self.owner_of_excluded(&fields));
            return self.exclude(owner, level);
        }
        let (text, record) = in_place.unwrap_or_else(|| envelope.rebuild(&mut self.appendix));
        // Ranges of the record's own strings: where the record lies now, plus where they lie in it.
        let within = |part: Option<&str>| {
            let offset = part?.as_ptr() as usize - envelope.record?.get().as_ptr() as usize;
            let start = record.start + offset;
            Some(Span::new(&(start..start + part?.len())))
        };
        let (own_id, own_tenant) = (within(fields.request_id), within(fields.tenant_id));
        let (trace_id, execution_arn) = (
            within(fields.trace_id).unwrap_or_default(),
            within(fields.execution_arn).unwrap_or_default(),
        );
        let progress = self.progress();
        let invocations = &self.intake.invocations;
        let seen = fields.request_id.and_then(|id| invocations.find(id));
        // What a log says of itself counts only as far as the platform does not say otherwise.
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
                (own_id.unwrap_or_default(), invocations.is_cold_start(id), tenant)
            }
            None if is_log(kind) => (
                progress.request_id,
                progress.cold_start,
                Some(progress.tenant_id).filter(|span| !span.is_empty()),
            ),
            None => (Span::default(), progress.cold_start, None),
        };
        let tenant_id =
            if is_log(kind) { of_invocation.or(own_tenant) } else { own_tenant.or(of_invocation) }
                .unwrap_or_default();
        let owner = match own {
            _ if kind == "extension" => Span::default(),
            // Neighbours of one invocation share one span.
            Some(id) if invocations.is_current(id) => progress.request_id,
            _ => request_id,
        };
        let (text, record) = (Span::new(&text), Span::new(&record));
        let event = Event {
            text,
            record,
            request_id,
            trace_id,
            tenant_id,
            execution_arn,
            cold_start,
            ..Event::default()
        };
        self.push(event, owner, level);
    }

    /// The level of a line that the function logged, if somebody wants to know.
    fn level(
        &self,
        kind: &str,
        fields: &RecordFields<'_>,
        envelope: &Envelope<'_>,
    ) -> Option<Level> {
        if !self.intake.observes || kind != "function" {
            return None;
        }
        match fields.level {
            Some(level) => Level::of_line(level),
            None => text_level(envelope.record?.get().strip_prefix('"')?.as_bytes()),
        }
    }

    /// The invocation of a log that is left out.
    fn owner_of_excluded(&mut self, fields: &RecordFields<'_>) -> Span {
        let progress = self.progress();
        let invocations = &self.intake.invocations;
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
    fn push(&mut self, event: Event, owner: Span, level: Option<Level>) {
        if self.intake.observes {
            self.observed.event(owner, &event, level);
        }
        self.intake.number += 1;
        if self.events.len() == self.events.capacity() {
            self.make_room(event.text);
        }
        self.events.push(Event {
            number: self.intake.number,
            restores: self.intake.restores,
            ..event
        });
    }

    /// For as many events as there will be, if the others are like those up to `last`: a buffer that
    /// grows is there twice while it moves.
    fn make_room(&mut self, last: Span) {
        let (have, length) = (self.events.len(), self.appendix.base());
        let read = ((last.start + last.len) as usize).clamp(1, length.max(1));
        let expected = have * length / read;
        let most = self.max_events.max(have + 1);
        let room = (expected + expected / 8).max(have + have / 2 + 4).min(most);
        self.events.reserve_exact(room - have);
    }

    /// What the invocation in progress says of records that do not say it themselves.
    fn progress(&mut self) -> Progress {
        if let Some(known) = self.progress {
            return known;
        }
        let invocations = &self.intake.invocations;
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

    /// Neighbours are one stretch: only separators stand between two elements.
    fn damage(&mut self, range: Range<usize>) {
        self.damaged =
            Some(self.damaged.take().map_or(range.start, |before| before.start)..range.end);
    }

    /// Ships what is no event as it is: its bytes, as a string.
    fn ship_damaged(&mut self, body: &[u8]) {
        let Some(range) = self.damaged.take() else { return };
        self.signals.push(Signal::Damaged);
        if self.intake.observes {
            self.observed.gap();
        }
        let invocations = &self.intake.invocations;
        let current = invocations.current.as_ref().map(|current| &*current.request_id);
        for found in runtime_done_in(body.get(range.clone()).unwrap_or_default(), current) {
            let request_id: Arc<str> = found.request_id.into();
            if self.intake.observes {
                let status = found.status.map(Box::from);
                self.observed.milestone(Milestone {
                    result: PlatformResult { status, ..PlatformResult::default() },
                    ..invocations.milestone(&request_id, MilestoneKind::DamagedDone)
                });
            }
            self.signals.push(Signal::RuntimeDone { request_id, at: None, failed: found.failed() });
        }
        if self.intake.filter.excludes("unparsed", None) {
            self.excluded += 1;
            return;
        }
        self.unparsed += 1;
        let Progress { request_id, tenant_id, cold_start } = self.progress();
        let head = format!(
            "{{\"time\":\"{}\",\"type\":\"unparsed\",\"record\":",
            clock::iso8601(self.now)
        );
        let damaged = body.get(range).unwrap_or_default();
        let start = self.appendix.put(head.as_bytes()).start;
        let (record, taken) = self.appendix.put_as_text(damaged, self.text_room);
        self.text_room = self.text_room.saturating_sub(record.len());
        let mut end = record.end;
        if taken < damaged.len() {
            let cut = format!(",\"truncatedBytes\":{}", damaged.len() - taken);
            end = self.appendix.put(cut.as_bytes()).end;
        }
        let (text, record) = (Span::new(&(start..end)), Span::new(&record));
        let event = Event { text, record, request_id, tenant_id, cold_start, ..Event::default() };
        self.push(event, request_id, None);
    }

    fn signal(&mut self, kind: &str, fields: &RecordFields<'_>, envelope: &Envelope<'_>) {
        let said = Signal::of(kind, fields, envelope);
        match (&said, kind) {
            (Some(Signal::Start { request_id, .. }), _) => {
                let time = envelope.epoch_ms();
                self.intake.invocations.start(request_id, fields.tenant_id, time);
                self.progress = None;
            }
            (Some(Signal::RuntimeDone { request_id, .. } | Signal::Report { request_id }), _) => {
                self.intake.invocations.ended(request_id);
            }
            (Some(Signal::LogsDropped { .. }), _) if self.intake.observes => self.observed.gap(),
            // Two sandboxes may come out of one snapshot: from here on they must not give the same
            // ids to different events.
            (_, "platform.restoreStart") if self.intake.restores < MAX_RESTORES => {
                self.intake.number = 0;
                self.intake.restores += 1;
                self.signals.push(Signal::Restored);
            }
            _ => {}
        }
        self.signals.extend(said);
        if self.intake.observes
            && let Some(of) = MilestoneKind::of(kind)
            && let Some(request_id) = fields.request_id.map(Arc::<str>::from)
        {
            self.observed.milestone(Milestone {
                time: envelope.epoch_ms(),
                trace_id: fields.trace_id.map(Box::from),
                tenant_id: fields.tenant_id.map(Box::from),
                result: fields.result(),
                ..self.intake.invocations.milestone(&request_id, of)
            });
        }
    }
}

fn skip_blanks(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
}

#[cfg(test)]
mod tests {
    use super::super::invocations::MAX_INVOCATIONS;
    use super::*;
    use crate::lambda::filter::Types;

    const ALL: Types = Types { platform: true, function: true, extension: true };

    fn intake() -> Intake {
        Intake::new(ALL, false)
    }

    /// The events as they would be written, without what the extension adds.
    fn texts(taken: &ParsedBody) -> Vec<String> {
        let bytes = taken.batch.bytes();
        taken
            .batch
            .remaining()
            .iter()
            .map(|event| String::from_utf8(event.text.of(bytes).to_vec()).unwrap())
            .collect()
    }

    fn ids(taken: &ParsedBody) -> Vec<Option<String>> {
        let bytes = taken.batch.bytes();
        let id = |event: &Event| String::from_utf8(event.request_id.of(bytes).to_vec()).unwrap();
        taken
            .batch
            .remaining()
            .iter()
            .map(|event| Some(id(event)).filter(|id| !id.is_empty()))
            .collect()
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
        let bytes = br#"[{"time":"t","type":"platform.runtimeDone","record":{"requestId":"r1","status":#oops"#;
        let taken = intake().take(bytes.to_vec(), 0);
        assert!(taken.signals.contains(&Signal::RuntimeDone {
            request_id: "r1".into(),
            at: None,
            failed: false
        }));
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

    #[test]
    fn deep_nesting_and_lone_surrogates_pass() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let taken =
            intake().take(body(&[event("function", &deep), event("function", r#""\ud800""#)]), 0);
        assert_eq!((taken.batch.remaining().len(), taken.unparsed), (2, 0));
    }

    /// What of an event stands in these spans.
    fn parts<const N: usize>(
        taken: &ParsedBody,
        n: usize,
        spans: impl Fn(&Event) -> [Span; N],
    ) -> [String; N] {
        spans(&taken.batch.remaining()[n])
            .map(|span| String::from_utf8(span.of(taken.batch.bytes()).to_vec()).unwrap())
    }

    #[test]
    fn every_place_to_cut_is_as_good_as_any() {
        let records = [
            r#"[{"a":12345,"b":-0.5e+10},{"a":6.02E23},{"a":10},{"a":1.5e-7},7]"#,
            r#"{"a":[1,22,[333,{"b":4444}],[]],"c":{"d":{}},"e":true,"f":null,"g":false}"#,
            r#"{"m":"back\\slash \"quoted\" \n \u00e9\ud83c\udf89 é日🎉 }},{[","n":"\\\\"}"#,
            r#"[{"time":"x","n":1},{"time":"2026-11-01T00:00:00.000Z","type":"function","record":5},{"time":7}]"#,
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

    /// The events of a body that is read in windows of so many bytes, as far as that goes.
    fn in_windows(intake: &mut Intake, body: &[u8], window: usize) -> Vec<String> {
        let (mut found, mut begun, mut at, mut size) = (Vec::new(), Vec::new(), 0, window);
        let mut is_first = true;
        loop {
            let more = body.len().min(at + size.saturating_sub(begun.len()));
            begun.extend_from_slice(&body[at..more]);
            at = more;
            let behind = if at == body.len() { Behind::NextBody } else { Behind::RestOfBody };
            let part = Part { is_first, behind };
            let (taken, rest) = intake.take_part(begun, Vec::new(), 0, part);
            found.extend(texts(&taken));
            if rest.is_stuck {
                size = 2 * rest.bytes.len();
            } else {
                (is_first, size) = (false, window.max(rest.bytes.len()));
            }
            if rest.bytes.is_empty() && at == body.len() {
                return found;
            }
            begun = rest.bytes;
        }
    }

    #[test]
    fn a_body_in_parts_gives_what_it_gives_as_a_whole() {
        let head = r#"{"time":"2026-11-23T09:15:45.012Z","type":"function","record":"#;
        let all = [
            event("platform.start", r#"{"requestId":"r1"}"#),
            event("function", &format!(r#""{}""#, "long 'é' ]},".repeat(60))),
            format!("{head}{{\"m\":\"AAAA}}"),
            format!("{head}BBBB\"}}}}"),
            event("function", r#"[1,[2,{"a":"]"}]]"#),
            r#"{ "record" : [1,
                2], "type":"function","time":"t" }"#
                .to_owned(),
            "#".to_owned(),
            event("function", r#"{"requestId":"r1"}"#),
            format!("{head}\"cut and lost}}"),
            event("platform.report", r#"{"requestId":"r1"}"#),
        ];
        let all: Vec<String> = all.iter().cycle().take(60).cloned().collect();
        for body in [body(&all), body(&all[..2]), b"[ ]".to_vec(), b"".to_vec()] {
            let expected = texts(&intake().take(body.clone(), 0));
            for window in [300, 700, 1000, 1999, 5000, 100_000] {
                let mut intake = intake();
                let mut found = in_windows(&mut intake, &body, window);
                found.extend(texts(&intake.finish(0)));
                let differs = found.iter().zip(&expected).find(|(found, whole)| found != whole);
                assert_eq!(differs, None, "in windows of {window}");
                assert_eq!(found.len(), expected.len(), "in windows of {window}");
            }
        }
    }

    #[test]
    fn a_record_that_is_held_back_goes_on_in_a_body_of_many_parts() {
        let head = r#"{"time":"2026-11-23T09:15:45.012Z","type":"function","record":"#;
        let (begun, more) = ("A".repeat(5000), "B".repeat(5000));
        let first = format!("[{head}{{\"m\":\"{begun}}}]");
        let next = event("function", r#""next""#);
        let second = format!("[{head}{more}\"}}}},{}]", vec![next.clone(); 50].join(","));
        for window in [300, 1000, 4000, 6000, 20_000] {
            let mut intake = intake();
            assert!(in_windows(&mut intake, first.as_bytes(), window).is_empty());
            let found = in_windows(&mut intake, second.as_bytes(), window);
            assert_eq!(found.len(), 51, "in windows of {window}");
            assert_eq!(found[0], format!("{head}{{\"m\":\"{begun}{more}\"}}"));
            assert_eq!((&found[50], intake.held_bytes()), (&next[..next.len() - 1].to_owned(), 0));
        }
    }

    #[test]
    fn a_part_gives_a_bounded_number_of_events_and_leaves_the_rest() {
        let all = vec![event("function", "1"); MAX_EVENTS + 5];
        for body in [body(&all), [&body(&all)[..1], b"#,", &body(&all)[1..]].concat()] {
            let mut intake = intake();
            let part = Part { is_first: true, behind: Behind::NextBody };
            let (first, rest) = intake.take_part(body, Vec::new(), 0, part);
            assert_eq!(first.batch.remaining().len(), MAX_EVENTS);
            let part = Part { is_first: false, ..part };
            let (second, rest) = intake.take_part(rest.bytes, Vec::new(), 0, part);
            let numbers: Vec<u64> =
                second.batch.remaining().iter().map(|event| event.number).collect();
            assert!((5..=6).contains(&numbers.len()) && rest.bytes.is_empty(), "{numbers:?}");
            assert_eq!(numbers[0], MAX_EVENTS as u64 + 1);
        }
        let starts = vec![event("platform.start", r#"{"requestId":"r1"}"#); MAX_SIGNALS + 5];
        let part = Part { is_first: true, behind: Behind::NextBody };
        let (first, rest) = intake().take_part(body(&starts), Vec::new(), 0, part);
        assert_eq!((first.signals.len(), rest.is_stuck), (MAX_SIGNALS, false));
        assert!(!rest.bytes.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_given_up_and_takes_nothing_with_it() {
        let (before, after) = (event("function", r#""before""#), event("function", r#""after""#));
        let large = event("function", &format!(r#""{}""#, "x".repeat(5000)));
        let whole = body(&[before.clone(), large, after.clone()]);
        let (window, behind) = whole.split_at(2000);
        let mut intake = intake();
        let mut part = Part { is_first: true, behind: Behind::RestOfBody };
        let (taken, rest) = intake.take_part(window.to_vec(), Vec::new(), 0, part);
        assert_eq!(texts(&taken), [before.trim_end_matches('}')]);
        part = Part { is_first: false, behind: Behind::NoRoom };
        let (taken, rest) = intake.take_part(rest.bytes, Vec::new(), 0, part);
        assert_eq!((taken.unparsed, rest.bytes.len()), (1, 0));
        part.behind = Behind::NextBody;
        let (taken, _) = intake.take_part(behind.to_vec(), Vec::new(), 0, part);
        assert_eq!(texts(&taken).last().unwrap(), after.trim_end_matches('}'));
        assert_eq!((taken.unparsed, intake.held_bytes()), (1, 0));
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

    #[test]
    fn an_envelopes_keys_that_come_twice_are_kept() {
        let odd = r#"[{"time":"t","type":"function","record":"one","record":"two"}]"#;
        assert_eq!(
            texts(&intake().take(odd.into(), 0)),
            [r#"{"time":"t","type":"function","record":"one","lambda.record":"two""#]
        );
    }
}
