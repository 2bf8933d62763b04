//! What reaches the dispatcher's thread, all of it over one `std::sync::mpsc` channel and so in one
//! order: telemetry with its signals, invocations, the order to stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::charge::Charge;
use crate::clock::EpochMs;
use crate::deadline::Deadline;
use crate::event::Batch;
use crate::kinesis::request::Request;

/// A moment by both clocks: the monotonic one may stand still in a freeze, the wall clock may jump.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines and pauses.
    pub mono: Instant,
    /// For timestamps, and for what a freeze took.
    pub wall: EpochMs,
}

/// A time in telemetry that is said to be longer ago is taken for now: the wall clock has jumped.
pub(super) const PLAUSIBLE: Duration = Duration::from_secs(60);

/// INVOKE may be read so long after the function has begun: this process gets little CPU then.
pub(super) const INVOKE_LATE: Duration = Duration::from_millis(500);

/// A wall clock that runs ahead of the monotonic one by more has seen a freeze.
pub(super) const FREEZE: Duration = Duration::from_secs(1);

impl Now {
    /// How long ago that was: a freeze counts, whether or not the monotonic clock stood still in
    /// it.
    #[must_use]
    pub fn since(&self, at: &Now) -> Duration {
        let mono = self.mono.saturating_duration_since(at.mono);
        let wall = Duration::from_millis(self.wall.saturating_sub(at.wall));
        if self.is_thawed_since(at) { wall } else { mono }
    }

    /// Whether there was a freeze between then and now in which the monotonic clock stood still.
    #[must_use]
    pub fn is_thawed_since(&self, at: &Now) -> bool {
        let mono = self.mono.saturating_duration_since(at.mono);
        let wall = Duration::from_millis(self.wall.saturating_sub(at.wall));
        wall.saturating_sub(mono) > FREEZE
    }

    /// The instant of a time in telemetry; now for one that is not known or cannot be.
    #[must_use]
    pub fn instant_of(&self, at: Option<EpochMs>) -> Instant {
        let ago = Duration::from_millis(at.map_or(0, |at| self.wall.saturating_sub(at)));
        let ago = if ago > PLAUSIBLE { Duration::ZERO } else { ago };
        self.mono.checked_sub(ago).unwrap_or(self.mono)
    }

    /// The same for the end of what INVOKE has announced at `invoked`: one that is much earlier is
    /// by another clock than this.
    #[must_use]
    pub fn instant_of_end(&self, invoked: Instant, at: Option<EpochMs>) -> Instant {
        let at = self.instant_of(at);
        let is_plausible = at.checked_add(INVOKE_LATE).is_none_or(|at| at >= invoked);
        if is_plausible { at } else { self.mono }
    }
}

/// Names a question of `main`, so that an answer is not taken for that of another one.
pub type Ticket = u64;

/// What `main` hears, all of it over one channel for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The dispatcher is at rest: the answer to the question of that name.
    AtRest(Ticket),
    /// The function has ended: what is on its way is to be cut short then.
    HoldEnds(Instant),
    /// The function has ended while the connection was made ready for its flush, in the call of
    /// that generation.
    EndedWhilePreparing(u64),
    /// A thread has panicked: what is waited for may never come.
    Panicked,
}

/// What the dispatcher must know of the telemetry that a POST brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The function has begun to work on this request.
    Started(Arc<str>),
    /// The function's own work on this request is over.
    Done {
        /// As in the event.
        request_id: Arc<str>,
        /// The event's own time, where it says one.
        at: Option<EpochMs>,
        /// With a status other than `success`: the sandbox may be reset within 2 s.
        failed: bool,
    },
    /// The last event of this request.
    Reported(Arc<str>),
    /// The last event of the init.
    InitReported,
    /// Telemetry was lost before it reached the extension: a `Done` that is waited for may be among
    /// it.
    Gap,
}

/// The events of a POST, in the form in which they wait.
#[derive(Debug)]
pub enum Load {
    /// None: they are on disk, or there were none.
    Nothing,
    /// As they came.
    Events(Batch),
    /// Packed on the listener's thread, because the dispatcher had enough to do.
    Packed(Box<Request>),
}

impl Load {
    /// How many events.
    #[must_use]
    pub fn events(&self) -> u64 {
        match self {
            Load::Nothing => 0,
            Load::Events(batch) => batch.remaining().len() as u64,
            Load::Packed(request) => request.events(),
        }
    }

    /// Whether there is nothing to send: a request may hold an event of the extension's own, and no
    /// other.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Load::Nothing => true,
            Load::Events(batch) => batch.remaining().is_empty(),
            Load::Packed(request) => request.is_empty(),
        }
    }
}

/// One message; see the module's page.
#[derive(Debug)]
pub enum Message {
    /// What a POST brought.
    Telemetry {
        /// When it came: the message may wait for long.
        at: Now,
        /// In the order of the body.
        signals: Vec<Signal>,
        /// What is to be sent.
        load: Load,
        /// What that weighs.
        charge: Option<Charge>,
    },
    /// An invocation has begun.
    Invoked {
        /// When: the message may wait behind a request.
        at: Now,
        /// To answer with, when `/next` may be called. `None`: nobody waits for an answer.
        ticket: Option<Ticket>,
        /// As in the INVOKE event.
        request_id: Arc<str>,
        /// Of the invocation, margin taken off.
        deadline: Deadline,
    },
    /// The sandbox ends: send all there is, write the ledger, and end. Answered when that is done,
    /// or at the deadline.
    Stop {
        /// To answer with.
        ticket: Ticket,
        /// Of the SHUTDOWN window, margin taken off.
        deadline: Deadline,
        /// The latest moment up to which to wait for the last report.
        report_until: Instant,
        /// As Lambda says it.
        reason: Box<str>,
        /// The window may be nearly over: before a reset, nothing comes before the disk.
        short: bool,
    },
}

/// The standard library allocates a channel's slots in blocks of 31.
const _: () = assert!(
    size_of::<Message>() <= 160,
    "a message is moved and waits in a block of 31: keep it small"
);
