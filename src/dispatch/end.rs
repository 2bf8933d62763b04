//! How far the end of the sandbox has come. Plain data; what is done about it is in
//! [`super::stopping`].

use std::time::{Duration, Instant};

use super::message::Ticket;
use crate::deadline::Deadline;
use crate::kinesis::request::Request;

/// Kept back of the SHUTDOWN window for the ledger.
const LEDGER_TIME: Duration = Duration::from_millis(100);

/// This part of the time for sending is kept back for what an earlier process left, to count it.
const COUNT_PART: u32 = 3;

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
    /// From then on it is counted what an earlier process left, before anything is sent.
    pub(super) count_at: Deadline,
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
        let count_at = send_until.sooner(send_until.left(now) / COUNT_PART);
        Stopping {
            ticket,
            deadline,
            report_until,
            count_at,
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
}
