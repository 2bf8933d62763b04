//! The queue between the listener, `main` and the dispatcher: many producers, one consumer, bounded by bytes and by count.
//!
//! A `Mutex` and a `Condvar` rather than `std::sync::mpsc`: a full queue must give up its oldest events, which the sending end of a channel
//! cannot take back, and telemetry, signals and commands must be seen in one order. No producer ever waits for room, and nothing inside the
//! lock can panic.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::flush::Pending;
use super::pack::Packer;
use super::spool::{Spool, Spooled};
use crate::clock::EpochMs;
use crate::deadline::Deadline;
use crate::event::{Batch, Event};
use crate::kinesis::batch::{Limits, Request};
use crate::ledger::Ledger;
use crate::log;

/// What the dispatcher must know of the telemetry that it finds in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The function has begun to work on this request.
    Started(Arc<str>),
    /// The function's own work on this request is over, since `at` if the event said so.
    Done {
        /// As in the event.
        request_id: Arc<str>,
        /// The event's own time.
        at: Option<EpochMs>,
    },
    /// The last event of this request.
    Reported(Arc<str>),
    /// The last event of the init.
    InitReported,
    /// Telemetry was lost upstream: a `Done` that is waited for may be among it.
    Gap,
}

/// The answer to a [`Command`]: the dispatcher is at rest. Nothing in it; that it came is what counts.
pub type Rest = Sender<()>;

/// What `main` asks of the dispatcher.
#[derive(Debug)]
pub enum Command {
    /// An invocation has begun. Answered when `/next` may be called.
    Invoked {
        /// As in the INVOKE event.
        request_id: String,
        /// Of the invocation, margin taken off.
        deadline: Deadline,
        /// To answer on.
        rest: Rest,
    },
    /// The sandbox ends. Answered when the last events of the last invocation have come, or at `until`.
    Settle {
        /// The latest moment for it.
        until: Instant,
        /// To answer on.
        rest: Rest,
    },
    /// Send all there is, write the ledger, and end. Answered when that is done, or at the deadline.
    Stop {
        /// Of the SHUTDOWN window, margin taken off.
        deadline: Deadline,
        /// As Lambda says it.
        reason: String,
        /// To answer on.
        rest: Rest,
    },
}

/// What the dispatcher finds when it looks.
#[derive(Debug, Default)]
pub struct Found {
    /// In the order in which they came.
    pub marks: Vec<Mark>,
    /// In the order in which they came.
    pub commands: Vec<Command>,
}

/// What waits to be sent.
#[derive(Debug)]
pub enum Waiting {
    /// As they came.
    Events(Batch),
    /// Packed by the listener already, because the dispatcher had enough to do.
    Packed(Box<Request>),
}

impl Waiting {
    fn cost(&self) -> usize {
        match self {
            Waiting::Events(batch) => batch.cost(),
            Waiting::Packed(request) => request.cost(),
        }
    }

    fn events(&self) -> usize {
        match self {
            Waiting::Events(batch) => batch.remaining().len(),
            Waiting::Packed(request) => usize::try_from(request.events()).unwrap_or(usize::MAX),
        }
    }
}

/// How many buffers of each kind are kept, and how large they may be.
const SPARES: usize = 3;
const SPARE_BYTES: usize = 1024 * 1024;
const SPARE_BODY_BYTES: usize = 2 * 1024 * 1024;
/// A batch of so many bytes is worth a request of its own.
const PACK_BYTES: usize = 256 * 1024;

/// Bounds of the queue.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// `QUEUE_BYTES`.
    pub bytes: usize,
    /// What one request takes: the dispatcher wakes when so much waits.
    pub request: usize,
}

/// See the module's page.
#[derive(Debug)]
pub struct Queue {
    bounds: Bounds,
    ledger: Arc<Ledger>,
    spool: Arc<Spool>,
    /// For the listener's threads.
    packer: Mutex<Packer>,
    inner: Mutex<Inner>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<(EpochMs, Waiting)>,
    bytes: usize,
    events: usize,
    found: Found,
    /// Events that the dispatcher has taken and neither delivered nor given back.
    in_hand: u64,
    /// When the oldest of those was taken from Lambda.
    in_hand_since: Option<EpochMs>,
    /// Buffers of batches that are done with: their pages need not be fetched again.
    spare: Vec<(Vec<u8>, Vec<Event>)>,
    /// The same of requests' bodies.
    spare_bodies: Vec<Vec<u8>>,
    /// There is something to look at since the dispatcher last looked.
    news: bool,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(bounds: Bounds, packer: Packer, spool: Arc<Spool>, ledger: Arc<Ledger>) -> Queue {
        Queue { bounds, ledger, spool, packer: Mutex::new(packer), inner: Mutex::default(), wake: Condvar::new() }
    }

    /// Puts in what a POST brought, and its marks. What there is no room for, oldest first, goes to the spool; what has no room there either is
    /// dropped and counted. Never waits for room.
    pub fn push(&self, batch: Batch, marks: Vec<Mark>, now: EpochMs) {
        let count = batch.remaining().len();
        let items = if batch.cost() >= PACK_BYTES && self.packs_ahead(&batch) { self.pack(batch) } else { vec![Waiting::Events(batch)] };
        let mut inner = self.lock();
        self.ledger.received.add(count as u64);
        let was_empty = inner.waiting.is_empty();
        let before = inner.bytes;
        for item in items.into_iter().filter(|item| item.events() > 0) {
            inner.remember(&item);
            inner.waiting.push_back((now, item));
        }
        let overflow = self.make_room(&mut inner);
        self.ledger.max_queued_bytes.at_least(inner.bytes as u64);
        // The dispatcher is woken for what it acts on, not for each POST.
        let filled = before < self.bounds.request && inner.bytes >= self.bounds.request;
        let call = !marks.is_empty() || (was_empty && count > 0) || filled;
        inner.found.marks.extend(marks);
        inner.news |= call;
        drop(inner);
        if call {
            self.wake.notify_one();
        }
        for (since, item) in overflow {
            self.spill(since, item);
        }
    }

    /// Whether the dispatcher is sending, and has its next request waiting as well: it will not come to what is put in now for a while. Not
    /// where there is no room for what packing makes of the batch, which can be several times as much: memory is bounded before all else.
    fn packs_ahead(&self, batch: &Batch) -> bool {
        let packed = self.packer.lock().unwrap_or_else(PoisonError::into_inner).packed_bytes(batch);
        let inner = self.lock();
        inner.in_hand > 0 && inner.bytes >= self.bounds.request && inner.bytes + packed <= self.bounds.bytes
    }

    /// Does the dispatcher's packing for it, while the bytes are in this CPU's cache. It sends meanwhile, and keeps up: a flood that is
    /// packed by one thread and sent by another rarely needs the spool.
    fn pack(&self, mut batch: Batch) -> Vec<Waiting> {
        let mut packer = self.packer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut packed = Vec::new();
        while !batch.remaining().is_empty() {
            let mut request = Request::with_buffer(packer.limits(), self.body(packer.body_bytes(&batch)));
            let unfit = packer.pack(&mut request, &mut batch);
            self.ledger.dropped_rejected.add(unfit);
            if !request.is_empty() {
                packed.push(Waiting::Packed(Box::new(request)));
            }
        }
        drop(packer);
        self.recycle(batch);
        packed
    }

    /// An event with its bookkeeping takes at least as much as this, so the bound of bytes is one of count too.
    const LEAST_EVENT: usize = size_of::<Event>();

    /// Takes out what is too much. It waits in the spool from now on, or is dropped there.
    fn make_room(&self, inner: &mut Inner) -> Vec<(EpochMs, Waiting)> {
        let most_events = self.bounds.bytes / Self::LEAST_EVENT;
        let mut overflow = Vec::new();
        while inner.bytes > self.bounds.bytes || inner.events > most_events {
            let Some((since, item)) = inner.waiting.pop_front() else { break };
            inner.forget(&item);
            self.spool.expect(item.events() as u64);
            overflow.push((since, item));
        }
        overflow
    }

    /// Moves events that [`Spool::expect`] has announced to the spool.
    fn spill(&self, since: EpochMs, item: Waiting) {
        match item {
            Waiting::Packed(request) => {
                self.write(since, *request);
            }
            Waiting::Events(mut batch) => {
                while self.spool.is_on() && !batch.remaining().is_empty() {
                    let mut packer = self.packer.lock().unwrap_or_else(PoisonError::into_inner);
                    let mut request = Request::with_buffer(packer.limits(), self.body(packer.body_bytes(&batch)));
                    let unfit = packer.pack(&mut request, &mut batch);
                    drop(packer);
                    self.spool.give_up(unfit);
                    self.ledger.dropped_rejected.add(unfit);
                    if !request.is_empty() && !self.write(since, request) {
                        break;
                    }
                }
                let lost = batch.remaining().len() as u64;
                if lost > 0 {
                    self.packer.lock().unwrap_or_else(PoisonError::into_inner).lose(&batch);
                    self.spool.give_up(lost);
                    self.ledger.dropped_queue.add(lost);
                }
                self.recycle(batch);
            }
        }
    }

    /// Writes a request into the spool, or loses it. Says whether there is any sense in another one.
    fn write(&self, since: EpochMs, mut request: Request) -> bool {
        let packer = self.packer.lock().unwrap_or_else(PoisonError::into_inner);
        let written = if self.spool.is_on() { self.spool.write(&mut request, false, since, &packer) } else { Err(io::ErrorKind::StorageFull.into()) };
        if let Err(error) = &written {
            if self.spool.is_on() {
                log::error!("spool", "events cannot be kept under /tmp ({error}); what memory cannot hold is lost");
            }
            packer.lose_request(&request);
            self.spool.give_up(request.events());
            self.ledger.dropped_queue.add(request.events());
        }
        drop(packer);
        self.recycle_body(request.into_buffer());
        written.is_ok()
    }

    /// The oldest segment of the spool. Its events count as in hand, like those of [`Queue::take`].
    pub fn take_spooled(&self, limits: Limits) -> Option<Spooled> {
        self.spool.oldest()?;
        let spooled = self.spool.take(limits, |bytes| self.body(bytes))?;
        let mut inner = self.lock();
        inner.in_hand += spooled.request.events();
        inner.in_hand_since.get_or_insert(spooled.since);
        Some(spooled)
    }

    /// Asks something of the dispatcher.
    pub fn command(&self, command: Command) {
        let mut inner = self.lock();
        inner.found.commands.push(command);
        inner.news = true;
        drop(inner);
        self.wake.notify_one();
    }

    /// Waits until there is a mark or a command, enough for a request, or telemetry in what was an empty queue; at the latest until `until`.
    pub fn wait(&self, until: Option<Instant>) -> Found {
        let mut inner = self.lock();
        if !inner.news {
            inner = match until {
                None => self.wake.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    self.wake.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        inner.news = false;
        std::mem::take(&mut inner.found)
    }

    /// The oldest of what waits, if it is `wanted`. Its events count as in hand until [`Queue::settled`], or until they are given back.
    pub fn take(&self, wanted: impl FnOnce(&Waiting) -> bool) -> Option<(EpochMs, Waiting)> {
        let mut inner = self.lock();
        if !wanted(&inner.waiting.front()?.1) {
            return None;
        }
        let (since, item) = inner.waiting.pop_front()?;
        inner.forget(&item);
        inner.in_hand += item.events() as u64;
        inner.in_hand_since.get_or_insert(since);
        Some((since, item))
    }

    /// Gives back what is left of a batch; it is the oldest again.
    pub fn give_back(&self, since: EpochMs, batch: Batch) {
        let item = Waiting::Events(batch);
        let mut inner = self.lock();
        inner.in_hand = inner.in_hand.saturating_sub(item.events() as u64);
        inner.remember(&item);
        inner.waiting.push_front((since, item));
        let overflow = self.make_room(&mut inner);
        drop(inner);
        for (since, item) in overflow {
            self.spill(since, item);
        }
    }

    /// A used buffer for the body of a request of so many bytes, or a new one. A body that grows is moved, and its pages are fetched anew
    /// each time; pages that stay unused cost nothing.
    #[must_use]
    pub fn body(&self, bytes: usize) -> Vec<u8> {
        let spare = &mut self.lock().spare_bodies;
        // Not a much too large one: it counts as a whole while it is in the queue.
        let found = spare.iter().position(|body| (bytes..=bytes * 2).contains(&body.capacity()));
        found.map(|found| spare.swap_remove(found)).unwrap_or_else(|| Vec::with_capacity(bytes))
    }

    /// A request is done with: its buffer serves another one.
    pub fn recycle_body(&self, body: Vec<u8>) {
        let mut inner = self.lock();
        if body.capacity() > SPARE_BODY_BYTES {
            return;
        }
        if inner.spare_bodies.len() == SPARES {
            inner.spare_bodies.remove(0);
        }
        inner.spare_bodies.push(body);
    }

    /// Used buffers for a body of so many bytes and its events, or new ones. What is in them does not matter any more.
    #[must_use]
    pub fn buffers(&self, bytes: usize) -> (Vec<u8>, Vec<Event>) {
        let spare = &mut self.lock().spare;
        // Not a much too large one: it counts as a whole while it is in the queue.
        let fits = |(body, _): &(Vec<u8>, Vec<Event>)| (bytes..=bytes * 4).contains(&body.capacity());
        spare.iter().position(fits).map(|found| spare.swap_remove(found)).unwrap_or_default()
    }

    /// A batch is done with: its buffers serve the next body.
    pub fn recycle(&self, batch: Batch) {
        if batch.cost() > SPARE_BYTES {
            return;
        }
        let mut inner = self.lock();
        if inner.spare.len() == SPARES {
            // Perhaps they are of no use to the bodies that come now.
            inner.spare.remove(0);
        }
        inner.spare.push(batch.into_buffers());
    }

    /// `count` of the events in hand are delivered, or lost and counted.
    pub fn settled(&self, count: u64) {
        let mut inner = self.lock();
        inner.in_hand = inner.in_hand.saturating_sub(count);
        if inner.in_hand == 0 {
            inner.in_hand_since = None;
        }
    }

    /// Whether nothing waits in memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// What waits, for the flush policy. What the dispatcher has in hand counts with its age.
    #[must_use]
    pub fn pending(&self) -> Pending {
        let inner = self.lock();
        let oldest = inner.in_hand_since.or_else(|| self.spool.oldest()).or_else(|| inner.waiting.front().map(|(since, _)| *since));
        Pending { bytes: inner.bytes, oldest, bound: self.bounds.bytes, request: self.bounds.request }
    }

    /// Events that are neither delivered nor dropped yet.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        let inner = self.lock();
        inner.in_hand + inner.events as u64 + self.spool.waiting()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn remember(&mut self, item: &Waiting) {
        self.bytes += item.cost();
        self.events += item.events();
    }

    fn forget(&mut self, item: &Waiting) {
        self.bytes = self.bytes.saturating_sub(item.cost());
        self.events = self.events.saturating_sub(item.events());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Compression, RecordFormat};

    fn batch(events: usize, bytes: usize) -> Batch {
        let event = |n: usize| Event { number: n as u64, ..Event::default() };
        Batch::new(vec![0; bytes], (0..events).map(event).collect())
    }

    /// A queue whose spool has room for so much.
    fn queue_and_spool(bytes: usize, folder: &std::path::Path, room: u64) -> (Queue, Arc<Ledger>) {
        let ledger = Arc::new(Ledger::default());
        let variable = |name: &str| match name {
            "AWS_REGION" => Some("eu-west-1".to_owned()),
            "KINESIS_TELEMETRY_STREAM" => Some("s".to_owned()),
            _ => None,
        };
        let config = crate::config::read(variable).1.unwrap();
        let packer = Packer::new(&config, Arc::default(), ledger.clone());
        let spool = Arc::new(Spool::new(folder.join("spool"), room, config.stream.clone(), "owner", ledger.clone()));
        (Queue::new(Bounds { bytes, request: 1000 }, packer, spool, ledger.clone()), ledger)
    }

    fn queue(bytes: usize) -> (Queue, Arc<Ledger>) {
        queue_and_spool(bytes, std::path::Path::new("/nowhere"), 0)
    }

    fn take(queue: &Queue) -> (EpochMs, Batch) {
        match queue.take(|_| true).unwrap() {
            (since, Waiting::Events(batch)) => (since, batch),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_memory_cannot_hold_goes_to_the_spool() {
        let folder = tempfile::tempdir().unwrap();
        let cost = batch(10, 10_000).cost();
        let (queue, ledger) = queue_and_spool(cost * 3, folder.path(), 1_000_000);
        for n in 0..5 {
            queue.push(batch(10, 10_000), Vec::new(), n);
        }
        assert_eq!((queue.waiting(), ledger.dropped(), ledger.spooled.get()), (50, 0, 20));
        let limits = Limits { record_bytes: 1_048_576, request_bytes: 1_048_576, record: RecordFormat::Lines, compression: Compression::None };
        assert_eq!(queue.pending().oldest, Some(0));
        let spooled = queue.take_spooled(limits).unwrap();
        assert_eq!((spooled.request.events(), spooled.since, queue.waiting()), (10, 0, 50));
        queue.settled(10);
        assert_eq!(queue.waiting(), 40);
    }

    #[test]
    fn large_batches_are_packed_ahead_while_the_dispatcher_has_enough_to_do() {
        let (queue, ledger) = queue(8_388_608);
        let kinds = |queue: &Queue| queue.lock().waiting.iter().map(|(_, item)| matches!(item, Waiting::Packed(_))).collect::<Vec<_>>();
        queue.push(batch(1, 100), Vec::new(), 0);
        queue.push(batch(10, PACK_BYTES), Vec::new(), 0);
        queue.push(batch(10, PACK_BYTES), Vec::new(), 0);
        // The bound of a request is 1000 bytes here, so there was enough for one; but nobody was sending.
        assert!(queue.take(|_| true).is_some());
        assert_eq!(kinds(&queue), [false, false]);
        assert!(queue.take(|_| true).is_some());
        for bytes in [PACK_BYTES, 100, PACK_BYTES] {
            queue.push(batch(10, bytes), Vec::new(), 0);
        }
        assert_eq!(kinds(&queue), [false, true, false, true]);
        queue.settled(11);
        assert_eq!((queue.waiting(), ledger.received.get(), ledger.dropped()), (40, 51, 0));
        assert!(queue.take(|item| matches!(item, Waiting::Packed(_))).is_none());
        assert!(queue.take(|_| true).is_some());
        let Some((_, Waiting::Packed(request))) = queue.take(|_| true) else { panic!("the second is packed") };
        assert_eq!((request.events(), queue.waiting()), (10, 40));
        queue.settled(20);
        assert_eq!((queue.waiting(), kinds(&queue)), (20, vec![false, true]));
        // Of 100,000 tiny events packing would make much more than there is room for.
        queue.push(batch(100_000, PACK_BYTES), Vec::new(), 0);
        assert_eq!(kinds(&queue), [false, true, false]);
    }

    #[test]
    fn the_oldest_go_first_when_there_is_no_room_and_all_are_counted() {
        let cost = batch(10, 10_000).cost();
        let (queue, ledger) = queue(cost * 3);
        for n in 0..5 {
            queue.push(batch(10, 10_000), Vec::new(), n);
        }
        assert_eq!(ledger.received.get(), 50);
        assert_eq!(ledger.dropped_queue.get(), 20);
        assert_eq!(queue.waiting(), 30);
        assert_eq!(queue.take(|_| true).unwrap().0, 2);
        assert_eq!(queue.waiting(), 30);
        assert!(ledger.max_queued_bytes.get() <= (cost * 3) as u64);
    }

    #[test]
    fn what_is_given_back_is_the_oldest_again() {
        let (queue, ledger) = queue(1_000_000);
        queue.push(batch(10, 100), Vec::new(), 1);
        queue.push(batch(10, 100), Vec::new(), 2);
        let (since, mut first) = take(&queue);
        first.advance(4);
        queue.settled(4);
        queue.give_back(since, first);
        assert_eq!(queue.waiting(), 16);
        let (since, first) = take(&queue);
        assert_eq!((since, first.remaining().len()), (1, 6));
        assert_eq!(first.remaining()[0].number, 4);
        assert_eq!(queue.pending().oldest, Some(1));
        queue.settled(6);
        assert_eq!(queue.pending().oldest, Some(2));
        assert_eq!(ledger.dropped(), 0);
    }

    #[test]
    fn many_tiny_events_are_bounded_too() {
        let (queue, ledger) = queue(1_048_576);
        for n in 0..200 {
            queue.push(batch(1000, 1), Vec::new(), n);
        }
        assert_eq!(ledger.received.get(), 200_000);
        assert_eq!(queue.waiting() + ledger.dropped(), 200_000);
        assert!(queue.pending().bytes <= 1_048_576);
    }
}
