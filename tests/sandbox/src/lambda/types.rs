//! What tests are told: events, calls, reports, errors.

use std::fmt;
use std::time::{Duration, Instant};

use super::bodies::Cut;
use super::process::Stats;
use crate::kinesis::short;

/// The `requestId` that an event must be shipped with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// This one.
    Is(String),
    /// None.
    Absent,
    /// It cannot be known from outside.
    Any,
}

/// An event that was generated for the subscriber.
#[derive(Clone, Debug)]
pub struct SentEvent {
    /// Its place in the order of generation, from 0.
    pub number: usize,
    /// As in its envelope.
    pub time: String,
    /// As in its envelope.
    pub kind: String,
    /// The raw bytes of its `record`.
    pub record: Vec<u8>,
    /// What it must be shipped with.
    pub request_id: Expected,
    /// How often it was posted.
    pub offered: u32,
    /// How often a POST of it was answered 2xx.
    pub handed: u32,
    /// When it first was.
    pub handed_at: Option<Instant>,
}

impl SentEvent {
    pub(crate) fn new(kind: String, record: Vec<u8>, request_id: Expected, time: String) -> Self {
        Self { number: 0, time, kind, record, request_id, offered: 0, handed: 0, handed_at: None }
    }
}

impl fmt::Display for SentEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {} {} {}", self.number, self.time, self.kind, short(&self.record))
    }
}

/// How batches are posted.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// `Transfer-Encoding: chunked`, in chunks of that many bytes, instead of `Content-Length`.
    pub chunked: Option<usize>,
    /// Every write to the socket is that small, with that pause after it.
    pub tiny_writes: Option<(usize, Duration)>,
    /// How many connections take turns.
    pub connections: usize,
    /// A new connection for every POST.
    pub close: bool,
    /// `Expect: 100-continue`, and the body after that answer, or after 100 ms without it.
    pub expect_continue: bool,
    /// Every batch is posted twice, though the first was answered 200.
    pub duplicate: bool,
    /// Posted to this path instead of the subscribed one, as AWS's emulator does with `/`.
    pub path: Option<String>,
    /// Long records are cut.
    pub cut: Option<Cut>,
    /// The pause between a request's head and its body, which go in segments of their own.
    pub pause_after_head: Option<Duration>,
    /// Events of this type are lost by Lambda: they are never posted.
    pub lost_type: Option<String>,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            chunked: None,
            tiny_writes: None,
            connections: 1,
            close: false,
            expect_continue: false,
            duplicate: false,
            path: None,
            cut: None,
            pause_after_head: None,
            lost_type: None,
        }
    }
}

/// One POST to the listener.
#[derive(Clone, Debug)]
pub struct Post {
    /// When it began.
    pub at: Instant,
    /// How long until its answer, or its failure.
    pub took: Duration,
    /// Of the body.
    pub bytes: usize,
    /// Events that end in it.
    pub events: usize,
    /// The answer, or the error's text.
    pub result: Result<u16, String>,
}

/// One call of the Extensions API or the Telemetry API.
#[derive(Clone, Debug)]
pub struct ApiCall {
    /// Since the process was started.
    pub at: Duration,
    /// Which process of the extension, from 1.
    pub generation: u32,
    /// `POST`, …
    pub method: String,
    /// As sent.
    pub path: String,
    /// As sent.
    pub headers: Vec<(String, String)>,
    /// As sent.
    pub body: String,
    /// What it was answered with; 0 while `next` is parked.
    pub status: u16,
}

impl ApiCall {
    /// Method and path in one.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The first header of that name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// One call of `next` that was taken.
#[derive(Clone, Copy, Debug)]
pub struct NextCall {
    /// When it came.
    pub at: Instant,
    /// Which process of the extension, from 1.
    pub generation: u32,
    /// Requests to Kinesis that were under way at that moment; 0 when the builder was given no Kinesis.
    pub in_flight: usize,
}

/// One line that the extension printed.
#[derive(Clone, Debug)]
pub struct OutputLine {
    /// When it was read.
    pub at: Instant,
    /// Which process of the extension, from 1.
    pub generation: u32,
    /// stderr, not stdout.
    pub stderr: bool,
    /// Without its line end.
    pub text: String,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// When that was noticed.
    pub at: Instant,
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "signal {signal}"),
            (None, None) => write!(f, "unknown end"),
        }
    }
}

/// What an init was like.
#[derive(Clone, Debug)]
pub struct InitReport {
    /// From just before exec to the first `next`.
    pub first_next: Duration,
    /// From just before exec to `register`.
    pub registered: Duration,
    /// Calls up to the first `next`, in order.
    pub calls: Vec<ApiCall>,
    /// Memory and CPU at the first `next`.
    pub stats: Stats,
    /// `init`, or `invoke` after a reset.
    pub phase: &'static str,
}

/// What an invocation was like.
#[derive(Clone, Debug)]
pub struct InvokeReport {
    /// Its id.
    pub request_id: String,
    /// When INVOKE was handed out.
    pub started: Instant,
    /// When the function's own work was over, and `platform.runtimeDone` generated.
    pub done: Instant,
    /// When the extension called `next`; `None` when it did not in time, or is not asked to.
    pub next: Option<Instant>,
    /// From `done` to `next`, zero when it came before.
    pub held: Duration,
    /// The extension did not call `next` before the invocation's deadline.
    pub deadline_exceeded: bool,
    /// Requests to Kinesis under way when it called `next`.
    pub in_flight_at_next: usize,
    /// The init that this invocation had to wait for.
    pub init: Option<InitReport>,
    /// The reset that this invocation ended in.
    pub reset: Option<ShutdownReport>,
    /// Memory and CPU at the end.
    pub stats: Stats,
}

/// What a shutdown was like.
#[derive(Clone, Debug)]
pub struct ShutdownReport {
    /// How the process ended.
    pub exit: Exit,
    /// From SHUTDOWN to its end.
    pub took: Duration,
    /// It ended by itself before the deadline.
    pub deadline_met: bool,
    /// Memory and CPU, as last seen.
    pub stats: Stats,
}

impl ShutdownReport {
    /// Ended by itself, in time, with code 0.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.deadline_met && self.exit.code == Some(0)
    }
}

/// Why Lambda would have failed the customer's function.
pub struct LambdaError {
    /// What happened.
    pub kind: Failure,
    /// The last lines that the extension printed.
    pub output: Vec<String>,
}

/// What made the function fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The binary could not be started.
    Launch(String),
    /// Init took longer than its limit; the calls that were made in it.
    InitTimeout(Vec<String>),
    /// The extension exited outside SHUTDOWN, with any code.
    Crash(Exit),
    /// The extension reported `Extension.InitError` or `Extension.ExitError`, with its own type, and how it ended.
    Reported(&'static str, String, Option<Exit>),
    /// The sandbox was shut down before.
    Ended,
}

impl fmt::Display for LambdaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Failure::Launch(why) => write!(f, "Extension.LaunchError: {why}")?,
            Failure::InitTimeout(calls) => write!(f, "init timed out after {calls:?}")?,
            Failure::Crash(exit) => write!(f, "Extension.Crash: {exit}")?,
            Failure::Reported(kind, reason, exit) => {
                write!(f, "{kind}: {reason}")?;
                if let Some(exit) = exit {
                    write!(f, " ({exit})")?;
                }
            }
            Failure::Ended => write!(f, "the sandbox was shut down")?,
        }
        self.output.iter().try_for_each(|line| write!(f, "\n  | {line}"))
    }
}

impl fmt::Debug for LambdaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for LambdaError {}
