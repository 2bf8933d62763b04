//! How far the end of the sandbox has come. Plain data; what is done about it is in
//! [`super::stopping`].

use std::time::{Duration, Instant};

use super::message::Ticket;
use crate::deadline::Deadline;
use crate::kinesis::request::Request;

/// Kept back of the SHUTDOWN window for the ledger.
const LEDGER_TIME: Duration = Duration::from_millis(100);

/// No more than this part of the time for sending is kept back for what an earlier process left, to
/// count it.
const COUNT_PART: u32 = 3;
/// Kept back for that in any case: a request that is cut short ends so late.
const COUNT_LEAST: Duration = Duration::from_millis(30);
/// To read so many bytes takes no longer than a millisecond, with little CPU.
const COUNTED_IN_A_MS: u64 = 4096;

/// What is done next, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    AwaitLastReport,
    Send,
    Keep,
    Drop,
    Ledger,
    Exit,
}

/// How far the end has come.
#[derive(Debug)]
pub struct Stopping {
    pub(super) ticket: Ticket,
    pub(super) deadline: Deadline,
    pub(super) report_until: Instant,
    /// The most that is kept back to count what an earlier process left.
    count_time: Duration,
    pub(super) reason: Box<str>,
    pub(super) phase: Phase,
    /// A request failed since. Before a reset also: what failed before still waits, or there may
    /// be no time to see whether one does.
    pub(super) failed: bool,
    /// Before a reset: the window may be nearly over.
    pub(super) short: bool,
    /// `METRICS=emf`: the last line is printed.
    pub(super) accounted: bool,
    pub(super) ledger: Option<Box<Request>>,
    pub(super) ledger_tries: u32,
    pub(super) ledger_at: Instant,
    pub(super) ledger_delivered: bool,
    /// Why the last try to send the ledger failed.
    pub(super) ledger_error: Option<Box<str>>,
}

impl Stopping {
    /// The order has come, `now`.
    #[must_use]
    pub fn new(
        now: Instant,
        ticket: Ticket,
        deadline: Deadline,
        report_until: Instant,
        reason: Box<str>,
    ) -> Stopping {
        let (phase, ledger_at) = (Phase::AwaitLastReport, report_until);
        let (failed, ledger, ledger_tries, ledger_delivered) = (false, None, 0, false);
        let send_until = deadline.sooner(LEDGER_TIME);
        let count_time = send_until.left(now) / COUNT_PART;
        Stopping {
            ticket,
            deadline,
            report_until,
            count_time,
            reason,
            phase,
            failed,
            short: false,
            accounted: false,
            ledger,
            ledger_tries,
            ledger_at,
            ledger_delivered,
            ledger_error: None,
        }
    }

    /// `/tmp` outlives a reset, and only that.
    pub(super) fn is_reset(&self) -> bool {
        matches!(&*self.reason, "timeout" | "failure")
    }

    pub(super) fn send_until(&self) -> Deadline {
        self.deadline.sooner(LEDGER_TIME)
    }

    /// From then on it is counted what an earlier process left, so many bytes, before anything is
    /// sent.
    pub(super) fn count_at(&self, bytes: u64) -> Deadline {
        let time = COUNT_LEAST.saturating_add(Duration::from_millis(bytes / COUNTED_IN_A_MS));
        self.send_until().sooner(time.min(self.count_time))
    }
}
