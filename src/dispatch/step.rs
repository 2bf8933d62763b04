//! What the core asks for, and how that ended; what it sees of the disk. Plain data.

use std::time::Instant;

use super::backlog::{Parcel, SegmentId};
use super::charge::Charge;
use super::message::Ticket;
use super::preparing::Effort;
use crate::deadline::Deadline;
use crate::kinesis::error::Error;
use crate::kinesis::request::Request;
use crate::kinesis::response::RecordOutcome;
use crate::log::Level;

/// What the core asks for. Each is answered by an [`Outcome`], but for [`Step::Wait`].
#[derive(Debug)]
pub enum Step {
    /// Wait for a message, until then at the most.
    Wait(Option<Instant>),
    /// Send it once. If it came from a segment, that is marked as in doubt before, and no more if
    /// nothing was stored.
    Send {
        /// What to send.
        parcel: Box<Parcel>,
        /// At the latest until then.
        deadline: Deadline,
    },
    /// Send the last ledger once.
    SendLedger {
        /// A request of its own, so that it can speak of all others.
        request: Box<Request>,
        /// At the latest until then.
        deadline: Deadline,
    },
    /// Make the connection ready for the flush of the held invocation: nothing is requested of
    /// Kinesis.
    Prepare {
        /// How much the function is asked to make way.
        effort: Effort,
        /// At the latest until then.
        deadline: Deadline,
    },
    /// Take over what an earlier process has left.
    Recover,
    /// Read a segment.
    Read(SegmentId),
    /// Write a segment, apart from those that wait in order: nothing that comes later waits behind
    /// it. What stays in memory is as if it had been read from there.
    Spool(Box<Parcel>),
    /// All of a segment is settled: delete it.
    Remove(SegmentId),
    /// A segment that was read is as it was, and there is no room for it in memory: it waits apart.
    PutBack(SegmentId),
    /// Read one file of an earlier process that nobody has read so far, to count its events: nobody
    /// may ever send them.
    Count,
    /// The sandbox ends for good: delete all segments, and count their events as undelivered. What
    /// is to be read for that is read until then.
    Discard(Instant),
    /// From now on no POST is answered 200; what is being taken in is waited for until then.
    CloseIntake(Instant),
    /// Print lines to stdout.
    Print(Vec<u8>),
    /// One line on stderr.
    Log(Level, &'static str, String),
    /// Answer `main`.
    Reply(Ticket),
    /// The end of the thread.
    Exit,
}

/// What a request came to: one outcome for each record, or an error of the whole, with advice for a
/// person.
pub type Sent = Result<Vec<RecordOutcome>, (Error, String)>;

/// Whether it is known that Kinesis has stored none of its records.
#[must_use]
pub fn stored_nothing(sent: &Sent) -> bool {
    match sent {
        Ok(outcomes) => !outcomes.contains(&RecordOutcome::Taken),
        Err((error, _)) => !error.ambiguous,
    }
}

/// Why a segment was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Since it was seen, something is being appended to it, or it had to give way.
    NotNow,
    /// Its file is damaged, and so many events are lost.
    Damaged(u64),
}

/// How a step ended. What was lent comes back.
#[derive(Debug)]
pub enum Outcome {
    /// Of [`Step::Send`].
    Sent(Box<Parcel>, Sent),
    /// Of [`Step::SendLedger`].
    Ledger(Box<Request>, Sent),
    /// Of [`Step::Read`]: the request, what it weighs, and whether Kinesis may have stored it.
    Read(SegmentId, Result<(Box<Request>, Charge, bool), Unread>),
    /// Of [`Step::Spool`]: the segment, if it could be written. What had to give way for it is
    /// counted already.
    Spooled(Box<Parcel>, Option<SegmentId>),
    /// Of [`Step::Prepare`]: whether there is nothing more to do for it.
    Prepared(bool),
    /// Of [`Step::Recover`]: whether there was anything.
    Recovered(bool),
    /// Of all others.
    Done,
}

/// The oldest of a list of segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Oldest {
    /// There is none.
    #[default]
    Empty,
    /// It is being written.
    Writing,
    /// It can be read.
    Ready(SegmentId),
}

/// What is on disk, as seen before the messages were handed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// What memory could not hold: it waits in order behind what is in memory.
    pub overflow: Oldest,
    /// What was written to make room in memory, what an earlier process left, and what Kinesis
    /// refused for long: due when nothing else is.
    pub apart: Oldest,
    /// If an earlier process left some of which it is not known yet what they hold: the bytes of all
    /// that is on disk, in whole blocks; else 0.
    pub uncounted: u64,
}
