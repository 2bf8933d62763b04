//! What the choice between invocations must know of a body, beside its events: whose they are, how
//! loud, and what began or ended. Pure.

use std::sync::Arc;
use std::time::Duration;

use super::filter::Level;
use super::keep::decimal;
use crate::clock::EpochMs;
use crate::event::{Event, Span};

/// As they are named in a summary.
pub const LEVELS: [(Level, &str); 6] = [
    (Level::Trace, "TRACE"),
    (Level::Debug, "DEBUG"),
    (Level::Info, "INFO"),
    (Level::Warn, "WARN"),
    (Level::Error, "ERROR"),
    (Level::Fatal, "FATAL"),
];

/// What the choice must know of a body, beside its events.
#[derive(Debug, Default)]
pub struct Observed {
    /// In the order of the body.
    pub steps: Vec<Step>,
    /// How often the sandbox had been restored from its snapshot at the end of the body.
    pub restores: u16,
    last: Run,
}

/// What a body says. One request id can stand for several invocations, because Lambda tries again
/// under the same id: so the order of events and milestones counts.
#[derive(Debug)]
pub enum Step {
    /// Events of the batch. All runs together are all of its events, in their order.
    Run(Run),
    /// Something begins or ends. Its own event is behind it.
    Milestone(Box<Milestone>),
    /// The runtime has reported an exception that nobody caught, between the milestone before and
    /// the one behind. Strings are as in JSON, between the quotes.
    Exception {
        /// Of which invocation.
        request_id: Box<str>,
        /// Its type; empty where that is not named.
        name: Box<str>,
    },
    /// Telemetry was lost. The end of the invocation in progress may be among it, and the start of
    /// the next one.
    Gap,
}

/// Neighbours in a batch that belong to one invocation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// The invocation; empty for events that belong to none.
    pub request_id: Span,
    /// It is the platform's report, alone, and of the invocation that the milestone before names:
    /// Lambda may have begun another try under the same id.
    pub is_report: bool,
    /// How many.
    pub events: u32,
    /// Their size as Lambda wrote them.
    pub bytes: u64,
    /// The invocation is the sandbox's first.
    pub is_first: bool,
    /// Log lines of each level, also those that are not shipped.
    pub levels: [u32; LEVELS.len()],
}

impl Observed {
    /// An event of the batch. `request_id` is empty where it belongs to no invocation.
    pub(super) fn event(
        &mut self,
        request_id: Span,
        is_report: bool,
        event: &Event,
        level: Option<Level>,
    ) {
        let run = self.run_of(request_id, is_report);
        run.events += 1;
        run.bytes += u64::from(event.text.len) + 1;
        run.is_first |= event.cold_start;
        if let Some(level) = level {
            run.log(level);
        }
    }

    /// A log line that is not shipped.
    pub(super) fn excluded(&mut self, request_id: Span, level: Level) {
        self.run_of(request_id, false).log(level);
    }

    fn run_of(&mut self, request_id: Span, is_report: bool) -> &mut Run {
        if self.last.request_id != request_id || self.last.is_report || is_report {
            self.close();
            (self.last.request_id, self.last.is_report) = (request_id, is_report);
        }
        &mut self.last
    }

    /// Something begins or ends before the next event.
    pub(super) fn milestone(&mut self, milestone: Milestone) {
        self.close();
        self.steps.push(Step::Milestone(Box::new(milestone)));
    }

    /// The runtime reports an exception in the next event. Many in a row are one step, and end no
    /// run: their number is a function's own choice.
    pub(super) fn exception(&mut self, request_id: &str, name: &str) {
        let (request_id, name): (Box<str>, Box<str>) = (request_id.into(), name.into());
        match self.steps.last_mut() {
            Some(Step::Exception { request_id: known, name: last }) if *known == request_id => {
                if !name.is_empty() {
                    *last = name;
                }
            }
            _ => self.steps.push(Step::Exception { request_id, name }),
        }
    }

    /// Telemetry was lost before the next event.
    pub(super) fn gap(&mut self) {
        self.close();
        self.steps.push(Step::Gap);
    }

    /// All events so far were counted.
    pub(super) fn close(&mut self) {
        let run = std::mem::take(&mut self.last);
        if run.events > 0 || run.levels.iter().any(|count| *count > 0) {
            self.steps.push(Step::Run(run));
        }
    }

    /// As [`Event::shift_back`].
    pub(super) fn shift_back(&mut self, from: usize, count: usize) {
        for step in &mut self.steps {
            if let Step::Run(run) = step {
                run.request_id.shift_back(from, count);
            }
        }
    }
}

impl Run {
    fn log(&mut self, level: Level) {
        if let Some(count) = self.levels.get_mut(level as usize) {
            *count += 1;
        }
    }
}

/// A beginning or an end of an invocation. Strings are as in JSON, between the quotes.
#[derive(Debug)]
pub struct Milestone {
    /// Whose.
    pub request_id: Arc<str>,
    /// When, by the platform's clock, where it says so.
    pub time: Option<EpochMs>,
    /// This process knows of the invocation's beginning: the invocation is not that of a process
    /// before.
    pub is_ours: bool,
    /// The root of its trace, where it has one.
    pub trace_id: Option<Box<str>>,
    /// Whose invocation it is, where functions are isolated by tenant.
    pub tenant_id: Option<Box<str>>,
    /// It is the sandbox's first.
    pub is_first: bool,
    /// Which.
    pub kind: MilestoneKind,
    /// What the platform said with it.
    pub result: PlatformResult,
}

/// See [`Milestone`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MilestoneKind {
    /// `platform.start`
    Started,
    /// `platform.runtimeDone`
    Done,
    /// The same, in bytes that do not parse: what it says may be cut.
    DamagedDone,
    /// `platform.report`
    Reported,
}

impl MilestoneKind {
    /// Which one an event of this type is.
    pub(super) fn of(kind: &str) -> Option<MilestoneKind> {
        match kind {
            "platform.start" => Some(MilestoneKind::Started),
            "platform.runtimeDone" => Some(MilestoneKind::Done),
            "platform.report" => Some(MilestoneKind::Reported),
            _ => None,
        }
    }
}

/// What `platform.runtimeDone` and `platform.report` say, as it stands in their JSON. Empty where
/// they do not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlatformResult {
    /// `success`, `error`, `failure`, `timeout`, between the quotes.
    pub status: Option<Box<str>>,
    /// Between the quotes.
    pub error_type: Option<Box<str>>,
    /// The numbers of `metrics`, in the order of [`METRICS`].
    pub metrics: [Option<Box<str>>; METRICS.len()],
}

/// The metrics that a summary repeats.
pub const METRICS: [&str; 5] =
    ["durationMs", "billedDurationMs", "memorySizeMB", "maxMemoryUsedMB", "initDurationMs"];

impl PlatformResult {
    pub(super) fn duration(&self) -> Option<Duration> {
        decimal(self.metrics.first()?.as_deref()?, 6).map(Duration::from_nanos)
    }

    pub(super) fn failed(&self) -> bool {
        self.status.as_deref().is_some_and(|status| status != "success")
    }

    /// The runtime has reported an exception. To the platform that is a success; of any other end
    /// it knows better.
    pub(super) fn add_exception(&mut self, name: Box<str>) {
        if !self.failed() {
            self.status = Some("error".into());
            self.error_type = Some(name).filter(|name| !name.is_empty());
        }
    }

    /// A later event knows better, where it says something.
    pub(super) fn update(&mut self, later: PlatformResult) {
        let PlatformResult { status, error_type, metrics } = later;
        self.status = status.or(self.status.take());
        self.error_type = error_type.or(self.error_type.take());
        for (old, new) in self.metrics.iter_mut().zip(metrics) {
            *old = new.or(old.take());
        }
    }
}
