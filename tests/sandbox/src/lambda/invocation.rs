//! What one invocation of the simulated function does.

use std::time::Duration;

use serde_json::Value;

use super::Lambda;

/// One invocation: what the function prints, how long it works, how it ends.
///
/// ```
/// # use sandbox::{Invocation, ms};
/// let invocation = Invocation::new()
///     .text("START of something")
///     .pause(ms(2))
///     .json(&serde_json::json!({"level": "INFO", "message": "halfway"}))
///     .work(ms(5));
/// ```
pub struct Invocation {
    pub(crate) steps: Vec<Step>,
    pub(crate) pace: Duration,
    pub(crate) outcome: Outcome,
    pub(crate) timeout: Option<Duration>,
    pub(crate) request_id: String,
    pub(crate) tracing: Option<String>,
    pub(crate) tenant: Option<String>,
}

pub(crate) enum Step {
    /// Type and record.
    Event(String, Record),
    Pause(Duration),
    Run(Box<dyn FnOnce(&Lambda) + Send>),
}

pub(crate) enum Record {
    /// A line of text, wrapped when the function's log format is JSON.
    Text(String),
    /// Raw bytes of the record, as they are.
    Raw(Vec<u8>),
}

/// How the function ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    HandledError,
    Timeout,
    Crash,
    OutOfMemory,
}

impl Default for Invocation {
    fn default() -> Self {
        Self::new()
    }
}

impl Invocation {
    /// One that prints nothing, works for a millisecond and succeeds.
    #[must_use]
    pub fn new() -> Self {
        Self {
            steps: Vec::new(),
            pace: Duration::ZERO,
            outcome: Outcome::Success,
            timeout: None,
            request_id: uuid::Uuid::new_v4().to_string(),
            tracing: None,
            tenant: None,
        }
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// The function prints a line. With JSON logs it arrives wrapped in an object.
    #[must_use]
    pub fn text(self, line: &str) -> Self {
        self.step(Step::Event("function".to_owned(), Record::Text(line.to_owned())))
    }

    /// The function prints these lines.
    #[must_use]
    pub fn lines<S: AsRef<str>>(self, lines: impl IntoIterator<Item = S>) -> Self {
        lines.into_iter().fold(self, |this, line| this.text(line.as_ref()))
    }

    /// The function logs this, and it arrives as JSON (as a string in the oldest schema version).
    #[must_use]
    pub fn json(self, value: &Value) -> Self {
        self.raw(value.to_string())
    }

    /// The function's record is exactly these bytes, JSON or not.
    #[must_use]
    pub fn raw(self, record: impl Into<Vec<u8>>) -> Self {
        self.event("function", record)
    }

    /// Another extension prints a line.
    #[must_use]
    pub fn extension_text(self, line: &str) -> Self {
        self.step(Step::Event("extension".to_owned(), Record::Text(line.to_owned())))
    }

    /// An event of any type, its record exactly these bytes.
    #[must_use]
    pub fn event(self, kind: &str, record: impl Into<Vec<u8>>) -> Self {
        self.step(Step::Event(kind.to_owned(), Record::Raw(record.into())))
    }

    /// Something that happens in the middle of the function's work.
    #[must_use]
    pub fn run(self, action: impl FnOnce(&Lambda) + Send + 'static) -> Self {
        self.step(Step::Run(Box::new(action)))
    }

    /// The function logs a flood, as [`Lambda::flood`] does. None of the bodies may be refused.
    #[must_use]
    pub fn floods(self, batches: usize, events: usize, event_bytes: usize) -> Self {
        self.run(move |lambda| {
            let flood = lambda.flood(batches, events, event_bytes).expect("a listener");
            assert_eq!(flood.refused, 0, "refused of {batches} POSTs");
        })
    }

    /// The function works for that long.
    #[must_use]
    pub fn pause(self, duration: Duration) -> Self {
        self.step(Step::Pause(duration))
    }

    /// The same as [`Invocation::pause`], at the end of a list of lines.
    #[must_use]
    pub fn work(self, duration: Duration) -> Self {
        self.pause(duration)
    }

    /// The pause before each line.
    #[must_use]
    pub fn pace(mut self, pause: Duration) -> Self {
        self.pace = pause;
        self
    }

    /// The handler throws: the runtime reports it and goes on.
    #[must_use]
    pub fn handled_error(mut self) -> Self {
        self.outcome = Outcome::HandledError;
        self
    }

    /// The function does not come back before its time-out: reset.
    #[must_use]
    pub fn times_out(mut self) -> Self {
        self.outcome = Outcome::Timeout;
        self
    }

    /// The runtime's process exits: reset.
    #[must_use]
    pub fn crashes(mut self) -> Self {
        self.outcome = Outcome::Crash;
        self
    }

    /// The kernel kills everything, the extension too; there is no SHUTDOWN.
    #[must_use]
    pub fn runs_out_of_memory(mut self) -> Self {
        self.outcome = Outcome::OutOfMemory;
        self
    }

    /// The time-out of this invocation alone.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Its id; a random one unless set.
    #[must_use]
    pub fn request_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.request_id);
        self
    }

    /// It is traced, with this `X-Amzn-Trace-Id`.
    #[must_use]
    pub fn tracing(mut self, value: &str) -> Self {
        self.tracing = Some(value.to_owned());
        self
    }

    /// It is a tenant's.
    #[must_use]
    pub fn tenant(mut self, id: &str) -> Self {
        self.tenant = Some(id.to_owned());
        self
    }
}
