//! What was seen of a sandbox's life: for each step its events and requests in the order of time, and what it cost.
//!
//! Everything here was measured in the run, or is what the simulator recorded in it.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use sandbox::{
    Answered, Kinesis, Put, RecordOutcome, StoredEvent, iso_millis, parse_iso_millis, unix_millis,
};
use serde_json::Value;

use super::story::Step;

/// One moment by both clocks, from which the run is counted.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    at: Instant,
    time: SystemTime,
}

impl Origin {
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), time: SystemTime::now() }
    }

    /// Milliseconds since the origin; zero before it.
    pub(crate) fn since(self, at: Instant) -> f64 {
        millis(at.saturating_duration_since(self.at))
    }

    fn wall(self, at: Instant) -> SystemTime {
        self.time + at.saturating_duration_since(self.at)
    }

    /// The same for an event's `time`, which has no fraction of a millisecond.
    fn since_time(self, time: &str) -> Option<f64> {
        let time = parse_iso_millis(time)?;
        Some(match time.duration_since(self.time) {
            Ok(after) => millis(after),
            Err(before) => -millis(before.duration()),
        })
    }

    /// `09:15:45.012`
    fn clock(self, at: Instant) -> String {
        iso_millis(self.wall(at)).get(11..23).unwrap_or_default().to_owned()
    }

    pub(crate) fn unix_millis(self, at: Instant) -> i64 {
        unix_millis(self.wall(at))
    }

    pub(crate) fn date(self) -> String {
        iso_millis(self.time).get(..19).unwrap_or_default().replace('T', " ")
    }
}

pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

/// What was seen of one step.
pub(crate) struct Block<'a> {
    pub(crate) step: &'a Step,
    /// In the order of time.
    pub(crate) rows: Vec<Row>,
    pub(crate) bill: Option<Bill>,
}

pub(crate) enum Row {
    Event(Box<EventRow>),
    Request(RequestRow),
}

/// An event as it is on the stream.
pub(crate) struct EventRow {
    /// Milliseconds since the origin.
    pub(crate) at: f64,
    pub(crate) clock: String,
    pub(crate) event: StoredEvent,
    /// How long after its `time` it was on the stream, in milliseconds.
    pub(crate) arrived_after: f64,
}

/// A request to Kinesis.
#[derive(Clone)]
pub(crate) struct RequestRow {
    /// Milliseconds since the origin.
    pub(crate) at: f64,
    pub(crate) clock: String,
    pub(crate) number: u64,
    pub(crate) events: usize,
    pub(crate) records: usize,
    pub(crate) stored: usize,
    /// Why not all of it was stored.
    pub(crate) failure: Option<String>,
    pub(crate) again: Option<Again>,
}

/// What of a request was sent before, in a request that failed.
#[derive(Clone)]
pub(crate) struct Again {
    pub(crate) events: usize,
    pub(crate) number: u64,
    /// Milliseconds since that request.
    pub(crate) after: f64,
}

/// What an invocation cost, in milliseconds.
pub(crate) struct Bill {
    /// As the function's `platform.report` says, where it is on the stream.
    pub(crate) billed: Option<f64>,
    pub(crate) init: Option<f64>,
    /// INVOKE to the end of the function.
    pub(crate) function: f64,
    /// From there to the extension's `/next`.
    pub(crate) added: f64,
}

impl Row {
    pub(crate) fn at(&self) -> f64 {
        match self {
            // The last event of an invocation. Its time has lost its fraction of a millisecond, in which the last request was made.
            Self::Event(row) if row.event.kind == "platform.report" => row.at + 0.999,
            Self::Event(row) => row.at,
            Self::Request(row) => row.at,
        }
    }
}

impl Block<'_> {
    pub(crate) fn request_id(&self) -> Option<&str> {
        self.step.invocation.as_ref().map(|report| report.request_id.as_str())
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = &EventRow> {
        self.rows.iter().filter_map(|row| match row {
            Row::Event(row) => Some(&**row),
            Row::Request(_) => None,
        })
    }

    pub(crate) fn requests(&self) -> impl Iterator<Item = &RequestRow> {
        self.rows.iter().filter_map(|row| match row {
            Row::Request(row) => Some(row),
            Row::Event(_) => None,
        })
    }

    /// Whether the last that will be seen of it was seen.
    pub(crate) fn is_complete(&self) -> bool {
        self.bill.as_ref().is_none_or(|bill| bill.billed.is_some())
    }
}

/// What is on the stream of these steps, and how it came there.
pub(crate) fn look<'a>(origin: Origin, steps: &'a [Step], kinesis: &Kinesis) -> Vec<Block<'a>> {
    let mut blocks: Vec<Block<'_>> =
        steps.iter().map(|step| Block { step, rows: Vec::new(), bill: None }).collect();
    for event in kinesis.account().events {
        let arrived = origin.since(event.at);
        let at = origin.since_time(&event.time).unwrap_or(arrived);
        let home = steps
            .iter()
            .position(|step| is_of(step, &event))
            // The event's time has lost up to a millisecond.
            .or_else(|| steps.iter().rposition(|step| origin.since(step.began) <= at + 1.0));
        let clock = event.time.get(11..23).unwrap_or(&event.time).to_owned();
        let row = EventRow { at, clock, arrived_after: (arrived - at).max(0.0), event };
        if let Some(block) = blocks.get_mut(home.unwrap_or(0)) {
            block.rows.push(Row::Event(Box::new(row)));
        }
    }
    for (put, row) in requests(origin, kinesis) {
        let home = steps.iter().rposition(|step| step.began <= put.at).unwrap_or(0);
        if let Some(block) = blocks.get_mut(home) {
            block.rows.push(Row::Request(row));
        }
    }
    for block in &mut blocks {
        block.rows.sort_by(|one, other| one.at().total_cmp(&other.at()));
        block.bill = bill(block);
    }
    blocks
}

fn is_of(step: &Step, event: &StoredEvent) -> bool {
    let id = step.invocation.as_ref().map(|report| report.request_id.as_str());
    id.is_some() && id == event.request_id.as_deref()
}

/// Every request so far, in the order in which they began.
fn requests(origin: Origin, kinesis: &Kinesis) -> Vec<(Put, RequestRow)> {
    let mut puts = kinesis.puts();
    puts.sort_by_key(|put| put.at);
    // The last request in which an event was, if not all of that request was stored.
    let mut failed: HashMap<String, (u64, Instant)> = HashMap::new();
    let mut rows = Vec::with_capacity(puts.len());
    for put in puts {
        let events = put.events();
        let ids: Vec<&String> = events.iter().filter_map(|event| event.event_id.as_ref()).collect();
        let before: Vec<_> = ids.iter().filter_map(|id| failed.get(*id)).copied().collect();
        let again = before.last().map(|(number, at)| Again {
            events: before.len(),
            number: *number,
            after: millis(put.at.saturating_duration_since(*at)),
        });
        let failure = failure(&put);
        for id in ids {
            failed.remove(id);
            if failure.is_some() {
                failed.insert(id.clone(), (put.number, put.at));
            }
        }
        let row = RequestRow {
            at: origin.since(put.at),
            clock: origin.clock(put.at),
            number: put.number,
            events: events.len(),
            records: put.records,
            stored: put.stored(),
            failure,
            again,
        };
        rows.push((put, row));
    }
    rows
}

/// Why not all of a request was stored, or nobody knows whether it was.
fn failure(put: &Put) -> Option<String> {
    match put.answered {
        Answered::Whole => {}
        Answered::Garbled => return Some("the answer made no sense".to_owned()),
        Answered::Partial | Answered::Cut => return Some("the answer was cut off".to_owned()),
        Answered::Reset => return Some("the connection was reset".to_owned()),
        Answered::Never => return Some("no answer".to_owned()),
    }
    let code = put.outcomes.iter().find_map(|outcome| match outcome {
        RecordOutcome::Failed(code) => Some(code),
        RecordOutcome::Stored(_) => None,
    });
    put.error.as_ref().or(code).map(|code| match code.as_str() {
        "ProvisionedThroughputExceededException" => format!("throttled ({code})"),
        _ => format!("refused ({code})"),
    })
}

fn bill(block: &Block<'_>) -> Option<Bill> {
    let invocation = block.step.invocation.as_ref()?;
    let report = block.events().find(|row| row.event.kind == "platform.report");
    let report = report.map(|row| row.event.record_json()).unwrap_or_default();
    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64);
    Some(Bill {
        billed: number("/metrics/billedDurationMs"),
        init: number("/metrics/initDurationMs"),
        function: millis(invocation.done.saturating_duration_since(invocation.started)),
        added: millis(invocation.held),
    })
}

impl RequestRow {
    /// What became of it, in one line.
    pub(crate) fn gist(&self) -> String {
        let events = counted(self.events, "event");
        let whole = match &self.failure {
            None => format!("{events}, stored"),
            // Refused before it was read.
            Some(why) if self.records == 0 => why.clone(),
            Some(why) if self.stored == 0 => format!("{events}, none stored: {why}"),
            Some(why) => {
                format!("{events}, {} of {} records stored: {why}", self.stored, self.records)
            }
        };
        match &self.again {
            Some(Again { events, number, after }) if *events == self.events => {
                format!("{whole}; all again, {after:.0} ms after #{number}")
            }
            Some(Again { events, number, after }) => {
                format!("{whole}; {events} of them again, {after:.0} ms after #{number}")
            }
            None => whole,
        }
    }
}

/// `1 event`, `2 events`
pub(crate) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// What an event says, in one line.
pub(crate) fn gist(event: &StoredEvent) -> String {
    let record = event.record_json();
    if let Some(text) = record.as_str() {
        // A managed runtime's line begins with time and request id, which stand in columns of their own.
        let parts: Vec<&str> = text.trim_end().splitn(3, '\t').collect();
        let rest = if parts.len() == 3 && parts.get(1).is_some_and(|id| id.len() == 36) {
            parts.last()
        } else {
            None
        };
        return rest.copied().unwrap_or(text.trim_end()).replace(['\n', '\t'], " ");
    }
    if let (true, Some(ledger)) = (event.is_own(), record.as_object()) {
        let numbers =
            ledger.iter().filter(|(_, value)| value.as_u64().is_some_and(|number| number > 0));
        return numbers
            .map(|(name, value)| format!("{name} {value}"))
            .collect::<Vec<_>>()
            .join(", ");
    }
    if !event.kind.starts_with("platform.") {
        return String::from_utf8_lossy(&event.record).into_owned();
    }
    let field = |pointer: &str| {
        record.pointer(pointer).map(|value| value.as_str().map_or(value.to_string(), str::to_owned))
    };
    let parts = [
        field("/status"),
        field("/errorType"),
        field("/state"),
        field("/phase").map(|phase| format!("phase {phase}")),
        field("/metrics/durationMs").map(|time| format!("{time} ms")),
        field("/metrics/billedDurationMs").map(|time| format!("billed {time} ms")),
        field("/metrics/initDurationMs").map(|time| format!("init {time} ms")),
        field("/name"),
        field("/version").map(|version| format!("version {version}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Whether an event tells of a failure of the function.
pub(crate) fn is_failure(event: &StoredEvent) -> bool {
    let text = gist(event);
    text.contains("ERROR") || text.contains("timeout")
}
