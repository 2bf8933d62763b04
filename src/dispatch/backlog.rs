//! What the core holds in memory, oldest first: batches and requests that were never sent, and
//! those that Kinesis refused, each set aside until it is due again. Plain data, no lock. What is
//! on disk is the spool's.

use std::collections::VecDeque;
use std::time::Duration;

use super::charge::Charge;
use super::message::Load;
use crate::kinesis::request::Request;

/// Names a segment of the spool.
pub type SegmentId = u64;

/// Why a request or its records were refused last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not at all, so far.
    None,
    /// In a way that passes, and says nothing about what it holds: throttled, or an internal
    /// failure of single records.
    Passing,
    /// As a whole, in a way that passes; if that goes on while others are taken, it is for what it
    /// holds.
    Whole,
    /// Perhaps for what it holds.
    Content,
}

/// A request that is ready to be sent, and what is known of the times it was sent before.
#[derive(Debug)]
pub struct Parcel {
    /// Closed; finished when it is sent.
    pub request: Request,
    /// What it weighs.
    pub charge: Charge,
    /// The segment that it was read from, if any: several parts of one may exist.
    pub segment: Option<SegmentId>,
    /// It is just what its segment holds: nothing of it was delivered or taken apart since.
    pub intact: bool,
    /// It stays in memory while it is written to disk.
    pub stays: bool,
    /// When its oldest event came, in the core's own time.
    pub since: Duration,
    /// Whether it was sent before.
    pub sent_before: bool,
    /// Kinesis may have stored it already.
    pub ambiguous: bool,
    /// How often it failed.
    pub tries: u32,
    /// Why it failed last.
    pub refusal: Refusal,
    /// How often it was refused for its content, and how many requests had delivered something when
    /// that happened first.
    pub refused: u32,
    /// See `refused`. Of one that did not fail yet: how many there were when it was sent.
    pub refused_at: u64,
    /// Kinesis took others between its first try and its last.
    pub left_behind: bool,
    /// It may fail for what it holds, or a request that it is a part of did: others are sent first.
    pub suspect: bool,
    /// When it may be sent again, in the core's own time.
    pub due: Duration,
    /// Whether a flush waits for it.
    pub holds: bool,
}

impl Parcel {
    /// One that was never sent.
    #[must_use]
    pub fn new(request: Request, charge: Charge, since: Duration) -> Parcel {
        Parcel {
            request,
            charge,
            segment: None,
            intact: false,
            stays: false,
            since,
            sent_before: false,
            ambiguous: false,
            tries: 0,
            refusal: Refusal::None,
            refused: 0,
            refused_at: 0,
            left_behind: false,
            suspect: false,
            due: Duration::ZERO,
            holds: true,
        }
    }

    /// Whether it holds a single event, or a single event of the extension's own.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.request.len() == 1 && self.request.events() <= 1
    }

    /// Whether it fails so often, or for what it may hold, that others are sent first.
    #[must_use]
    pub fn makes_way(&self, tries: u32) -> bool {
        self.suspect || self.tries >= tries
    }

    /// Whether it holds an event that was not refused alone, in a way that may be for what it is.
    #[must_use]
    pub fn may_be_good(&self) -> bool {
        let refused = matches!(self.refusal, Refusal::Whole | Refusal::Content);
        !(refused && self.tries > 0 && self.is_alone())
    }

    /// What is to be remembered of it while it is on disk.
    #[must_use]
    pub fn history(&self) -> History {
        History {
            since: self.since,
            tries: self.tries,
            refusal: self.refusal,
            refused: self.refused,
            refused_at: self.refused_at,
            left_behind: self.left_behind,
            suspect: self.suspect,
            ambiguous: self.ambiguous,
        }
    }

    /// It was on disk.
    pub fn remember(&mut self, history: History) {
        let History { since, tries, refusal, refused, .. } = history;
        let History { refused_at, left_behind, suspect, ambiguous, .. } = history;
        (self.since, self.tries, self.refusal) = (since, tries, refusal);
        self.left_behind = left_behind;
        // Its file says so from the first time that it was sent.
        self.ambiguous = ambiguous;
        (self.refused, self.refused_at, self.suspect) = (refused, refused_at, suspect);
        // Only of such is anything remembered.
        self.sent_before = true;
    }

    /// What is known of another part of the same segment is known of it, too: they are one again,
    /// and one that was refused is not tried as a whole once more.
    pub fn absorb(&mut self, other: &Parcel) {
        self.ambiguous |= other.ambiguous;
        self.suspect |= other.suspect;
        self.left_behind |= other.left_behind;
        if other.refused > self.refused {
            (self.refused, self.refused_at) = (other.refused, other.refused_at);
            self.refusal = other.refusal;
        }
    }

    /// Another part of the same parcel, with the same history.
    #[must_use]
    pub fn part(&self, request: Request, charge: Charge) -> Parcel {
        Parcel { request, charge, ..*self }
    }
}

/// A segment that was read, and is not settled.
#[derive(Clone, Copy, Debug)]
pub struct OpenSegment {
    /// Its name.
    pub id: SegmentId,
    /// In how many parcels it is.
    pub parts: usize,
    /// Nothing of it was delivered, given up or kept elsewhere so far.
    pub is_whole: bool,
}

/// How often a parcel failed, and why: see [`Parcel`].
#[derive(Clone, Copy, Debug)]
pub struct History {
    since: Duration,
    tries: u32,
    refusal: Refusal,
    refused: u32,
    refused_at: u64,
    left_behind: bool,
    suspect: bool,
    ambiguous: bool,
}

/// What was never sent.
#[derive(Debug)]
pub struct Item {
    /// When it came, in the core's own time.
    pub since: Duration,
    /// Its events.
    pub load: Load,
    /// What it weighs.
    pub charge: Option<Charge>,
}

impl Item {
    fn bytes(&self) -> usize {
        self.charge.as_ref().map_or(0, Charge::bytes)
    }
}

/// See the module's page.
#[derive(Debug, Default)]
pub struct Backlog {
    fresh: VecDeque<Item>,
    fresh_bytes: usize,
    aside: Vec<Parcel>,
}

impl Backlog {
    /// The newest.
    pub fn push(&mut self, item: Item) {
        self.fresh_bytes += item.bytes();
        self.fresh.push_back(item);
    }

    /// The oldest again, or what is left of it.
    pub fn push_front(&mut self, item: Item) {
        self.fresh_bytes += item.bytes();
        self.fresh.push_front(item);
    }

    /// The oldest that was never sent, if it is `wanted`.
    pub fn pop(&mut self, wanted: impl FnOnce(&Load) -> bool) -> Option<Item> {
        if !wanted(&self.fresh.front()?.load) {
            return None;
        }
        let item = self.fresh.pop_front()?;
        self.fresh_bytes = self.fresh_bytes.saturating_sub(item.bytes());
        Some(item)
    }

    /// Whether nothing waits at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.aside.is_empty()
    }

    /// All that is set aside is due, as if it had failed once at the most.
    pub fn renew(&mut self, now: Duration) {
        for parcel in &mut self.aside {
            (parcel.due, parcel.tries) = (parcel.due.min(now), parcel.tries.min(1));
        }
    }

    /// Whether nothing waits that was never sent.
    #[must_use]
    pub fn is_fresh_empty(&self) -> bool {
        self.fresh.is_empty()
    }

    /// What was never sent, oldest first.
    pub fn fresh(&self) -> impl Iterator<Item = &Item> {
        self.fresh.iter()
    }

    /// Bytes that were never sent.
    #[must_use]
    pub fn fresh_bytes(&self) -> usize {
        self.fresh_bytes
    }

    /// When the oldest of that came.
    #[must_use]
    pub fn oldest(&self) -> Option<Duration> {
        self.fresh.front().map(|item| item.since)
    }

    /// Sets aside until it is due.
    pub fn set_aside(&mut self, parcel: Parcel) {
        self.aside.push(parcel);
    }

    /// What is set aside.
    #[must_use]
    pub fn aside(&self) -> &[Parcel] {
        &self.aside
    }

    /// Bytes that are set aside.
    #[must_use]
    pub fn aside_bytes(&self) -> usize {
        self.aside.iter().map(|parcel| parcel.charge.bytes()).sum()
    }

    /// Of what is set aside and `wanted`, none that Kinesis refused alone if there is one with
    /// events that may be good, and no suspect if there is another one; of those the one that
    /// failed least, and the oldest.
    pub fn take_aside(&mut self, wanted: impl Fn(&Parcel) -> bool) -> Option<Parcel> {
        let candidates = self.aside.iter().enumerate().filter(|(_, parcel)| wanted(parcel));
        let (index, _) = candidates.min_by_key(|(_, parcel)| {
            (!parcel.may_be_good(), parcel.suspect, parcel.tries, parcel.due, parcel.since)
        })?;
        Some(self.aside.remove(index))
    }

    /// Of what is set aside and `wanted`, the one that failed most.
    pub fn take_most_tried(&mut self, wanted: impl Fn(&Parcel) -> bool) -> Option<Parcel> {
        let candidates = self.aside.iter().enumerate().filter(|(_, parcel)| wanted(parcel));
        let (index, _) = candidates.max_by_key(|(_, parcel)| parcel.tries)?;
        Some(self.aside.remove(index))
    }

    /// What is set aside because Kinesis refused it holds no flush from now on. All else keeps its
    /// place in the order, before what is new: a segment that was only read so far, and a request
    /// that was interrupted or met a dead connection, and weighs as much as a full one.
    pub fn release(&mut self) {
        self.aside.iter_mut().for_each(|parcel| parcel.holds &= parcel.refusal == Refusal::None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinesis::record::{Compression, Limits, RecordFormat};
    use crate::kinesis::wire::Wire;

    const LIMITS: Limits = Limits {
        record_bytes: 1000,
        request_bytes: 1000,
        record: RecordFormat::Event,
        compression: Compression::None,
        wire: Wire::Json,
    };

    #[test]
    fn what_is_known_of_one_part_is_known_of_all() {
        let gauge = crate::dispatch::charge::Gauge::new(1000);
        let part = |refused: u32, known: bool| Parcel {
            refusal: if refused > 0 { Refusal::Content } else { Refusal::Passing },
            refused_at: 10 + u64::from(refused),
            refused,
            ambiguous: known,
            suspect: known,
            left_behind: known,
            ..Parcel::new(Request::new(LIMITS), gauge.charge(0), Duration::ZERO)
        };
        for (own, others, known) in [
            ((0, false), (2, true), (2, true)),
            ((2, true), (0, false), (2, true)),
            ((1, false), (2, false), (2, false)),
            ((0, true), (0, true), (0, true)),
        ] {
            let mut parcel = part(own.0, own.1);
            parcel.absorb(&part(others.0, others.1));
            let expected = part(known.0, known.1).history();
            assert_eq!(format!("{:?}", parcel.history()), format!("{expected:?}"));
        }
        // Of two that were refused as often it stays its own.
        let mut parcel = Parcel { refused_at: 3, ..part(1, false) };
        parcel.absorb(&part(1, false));
        assert_eq!(parcel.refused_at, 3);
    }
}
