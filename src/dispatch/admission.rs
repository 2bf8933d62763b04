//! The sending end of the channel, on the listener's threads: decides whether what a POST brought
//! waits in memory, packed or not, or on disk.
//!
//! It never waits for room and takes nothing back: what does not fit goes to disk as it comes, and
//! as long as something of this process waits there, what comes later follows it; so the order
//! stays. What has no room there either is dropped, and counted. Signals pass in any case. Callers
//! hold the intake's lock, so that one POST after the other passes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::attention::News;
use super::charge::{Charge, Gauge, Share};
use super::doorbell::Doorbell;
use super::message::{Load, Message, Now, Reply, Signal};
use super::packer::Packer;
use super::printer::Printer;
use super::sending::TOO_SMALL;
use super::signal_room::{SignalRoom, weight};
use super::spares::Spares;
use super::spool::Spool;
use super::step::Oldest;
use super::watchdog::hold_ends_at;
use crate::clock::EpochMs;
use crate::event::{Batch, Event};
use crate::kinesis::record::Limits;
use crate::kinesis::request::Request;
use crate::kinesis::wire::Wire;
use crate::ledger::Ledger;
use crate::log;
use crate::mailbox::Mailbox;
use crate::panic;

/// Two pieces of a record that Lambda cut: they are put together when memory is full, too.
const HELD_ANYWAY: usize = 512 * 1024;
/// A batch of so many bytes is worth a request of its own.
const PACK_BYTES: usize = 256 * 1024;

/// Room in memory that is taken for a batch, until it is dropped; nothing where there was none.
pub type Reservation = Option<Charge>;
/// Room in memory that is left free for what waits elsewhere.
pub type Reserved = Share;

/// Where a batch goes; see the module's page. Pure, so that the simulation decides alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// As it is.
    Memory,
    /// Packed here, while the dispatcher packs and sends.
    Packed,
    /// Behind what waits there already, or because memory is full.
    Disk,
}

/// What [`place`] looks at.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// What the batch weighs.
    pub cost: usize,
    /// What it weighs once it is packed.
    pub packed: usize,
    /// What waits in memory, and its bound.
    pub held: usize,
    /// See `held`.
    pub bound: usize,
    /// What one request takes.
    pub request: usize,
    /// The dispatcher is awake, packs and sends: it will not come to what is put in now for a while.
    pub sending: bool,
    /// Something waits on disk in order.
    pub overflow: bool,
}

/// Where a batch goes.
#[must_use]
pub fn place(now: &Circumstances) -> Place {
    if now.overflow || now.held.saturating_add(now.cost) > now.bound {
        return Place::Disk;
    }
    // Not where there is no room for what packing makes of it, which can be several times as much,
    // and is there beside the batch; and the dispatcher may be packing another one meanwhile.
    let packing = now.cost.saturating_add(now.packed);
    let room = now.held.saturating_add(packing) <= now.bound;
    if now.sending && now.cost >= PACK_BYTES && now.held >= now.request && room {
        Place::Packed
    } else {
        Place::Memory
    }
}

/// The request id of the invocation that `main` waits for, if it does, and when that began. `main`
/// gets a reply at that function's end, and at no other: nobody would read it. On Managed Instances
/// it never waits.
#[derive(Debug, Default)]
pub struct Awaited(Mutex<Option<(Arc<str>, Instant)>>);

impl Awaited {
    /// `main` waits for that one from now on.
    pub fn set(&self, invocation: Option<(Arc<str>, Instant)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = invocation;
    }

    /// When that one began, if it is waited for.
    fn since(&self, request_id: &str) -> Option<Instant> {
        let awaited = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        awaited.as_ref().filter(|(id, _)| **id == *request_id).map(|(_, since)| *since)
    }
}

/// See the module's page.
#[derive(Debug)]
pub struct Admission {
    /// To the dispatcher.
    pub sender: Sender<Message>,
    /// Wakes the dispatcher where it waits for what is sent.
    pub doorbell: Arc<Doorbell>,
    /// To `main`.
    pub replies: Arc<Mailbox<Reply>>,
    /// What it waits for.
    pub awaited: Arc<Awaited>,
    /// Counts what waits in memory.
    pub gauge: Arc<Gauge>,
    /// Used buffers.
    pub spares: Arc<Spares>,
    /// For what memory has no room for.
    pub spool: Arc<Spool>,
    /// `FALLBACK=log`
    pub printer: Arc<Printer>,
    /// Counts everything.
    pub ledger: Arc<Ledger>,
    /// For the spool, and while the dispatcher packs and sends.
    pub packer: Mutex<Packer>,
    /// Set by the dispatcher while it does not wait: it packs, sends, or is at the disk.
    pub sending: Arc<AtomicBool>,
    /// For the piece of a cut record that waits for its continuation. None at first.
    pub held_piece: Mutex<Option<Charge>>,
    /// For signals without events.
    pub signal_room: SignalRoom,
    /// `FLUSH_TIMEOUT_MS`
    pub flush_timeout: Duration,
    /// The generation of the call in which the dispatcher makes a connection ready; 0: it does not.
    pub preparing: Arc<AtomicU64>,
}

impl Admission {
    /// Takes what a POST brought.
    pub fn admit(&self, batch: Batch, signals: Vec<Signal>, now: Now) {
        // The first one of those of each kind: whoever waits is held to the earliest.
        let earliest = |with: bool| {
            let of = |signal: &Signal| match signal {
                Signal::Done { request_id, at, failed } if *failed == with => {
                    let since = self.awaited.since(request_id)?;
                    Some(now.instant_of_end(since, *at))
                }
                _ => None,
            };
            signals.iter().filter_map(of).min().map(|end| (end, with))
        };
        let ends = [earliest(false), earliest(true)];
        self.take(batch, signals, now);
        if ends == [None, None] {
            return;
        }
        // After the message itself: the dispatcher says that it prepares before it looks for
        // messages once more.
        let preparing = self.preparing.load(Ordering::SeqCst);
        if preparing > 0 {
            self.replies.put(Reply::EndedWhilePreparing(preparing));
        }
        for (end, failed) in ends.into_iter().flatten() {
            // Past the dispatcher, which may be busy: whoever waits for it has it interrupted. A
            // request that begins from here on has the right deadline.
            if (failed || preparing > 0 || self.sending.load(Ordering::Acquire))
                && let Some(at) = hold_ends_at(end, failed, self.flush_timeout)
            {
                self.replies.put(Reply::HoldEnds(at));
            }
        }
    }

    fn take(&self, batch: Batch, signals: Vec<Signal>, now: Now) {
        let (at, wall) = (now, now.wall);
        let events = batch.remaining().len() as u64;
        self.ledger.received.add(events);
        if panic::in_dispatcher() {
            // Nobody reads the channel any more: neither events nor signals may pile up in it.
            self.ledger.dropped_undelivered.add(events);
            return self.print_lost(&mut self.lock(), &batch);
        }
        if events == 0 {
            self.spares.keep_batch(batch);
            return self.send_signals(at, signals);
        }
        let cost = batch.cost() + weight(&signals);
        if cost > self.gauge.limit().saturating_sub(self.gauge.held()) {
            self.spares.clear();
        }
        let mut packer = self.lock();
        let now = Circumstances {
            cost,
            packed: packer.packed_bytes(&batch),
            held: self.gauge.held(),
            bound: self.gauge.limit(),
            request: packer.request_bytes(),
            sending: self.sending.load(Ordering::Acquire),
            overflow: self.spool.view().overflow != Oldest::Empty,
        };
        let charge = if place(&now) == Place::Disk { None } else { self.gauge.try_charge(cost) };
        match charge {
            None => {
                let wakes = self.spill(&mut packer, batch, wall);
                drop(packer);
                self.send_signals(at, signals);
                if wakes {
                    self.doorbell.ring();
                }
            }
            Some(charge) if place(&now) == Place::Packed => {
                let requests = self.pack(&mut packer, batch, wall);
                drop((packer, charge));
                for request in requests {
                    let charge = self.gauge.charge(request.cost());
                    self.send(at, Vec::new(), Load::Packed(Box::new(request)), Some(charge));
                }
                self.send_signals(at, signals);
            }
            Some(charge) => {
                drop(packer);
                self.send(at, signals, Load::Events(batch), Some(charge));
            }
        }
    }

    /// A share of the memory, for what waits elsewhere.
    #[must_use]
    pub fn share(&self, bytes: usize) -> Reserved {
        self.gauge.share(bytes)
    }

    /// Makes it room for so many bytes that a POST needs while it is read. Says whether there is
    /// room for them; else it stays as it is.
    ///
    /// It asks no spare buffers to go: what the allocator has of them does not serve for one that
    /// is longer, so that both would be resident.
    #[must_use]
    pub fn grow(&self, room: &mut Reservation, bytes: usize) -> bool {
        if let Some(charge) = room {
            return charge.try_grow(bytes);
        }
        *room = self.gauge.try_charge(bytes);
        room.is_some()
    }

    /// So many bytes are held back for the next POST to continue: they take room like all that
    /// waits. A few may in any case. Says whether there is room for them.
    #[must_use]
    pub fn hold(&self, bytes: usize) -> bool {
        let mut held = self.held_piece.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().map_or(0, Charge::bytes) != bytes {
            // The old one gives its room back first.
            *held = None;
            match bytes {
                0 => {}
                1..=HELD_ANYWAY => *held = Some(self.gauge.charge(bytes)),
                _ => return self.grow(&mut held, bytes),
            }
        }
        held.is_some() || bytes == 0
    }

    /// Buffers for a POST of so many bytes, and what they are charged with until it is handed on.
    #[must_use]
    pub fn buffers(&self, bytes: usize) -> (Vec<u8>, Vec<Event>, Reservation) {
        self.spares.batch(bytes)
    }

    /// Signals without events, or behind them.
    fn send_signals(&self, at: Now, signals: Vec<Signal>) {
        if !signals.is_empty()
            && let Some((signals, charge)) =
                self.signal_room.take(signals, |id| self.awaited.since(id).is_some())
        {
            self.send(at, signals, Load::Nothing, Some(charge));
        }
    }

    fn send(&self, at: Now, signals: Vec<Signal>, load: Load, charge: Option<Charge>) {
        let bytes = charge.as_ref().filter(|_| load.events() > 0).map_or(0, Charge::bytes);
        let news = News::new(&signals, bytes);
        // The receiver lives as long as the process.
        let _ = self.sender.send(Message::Telemetry { at, signals, load, charge });
        self.doorbell.ring_for(news);
    }

    /// Does the dispatcher's packing for it, while the bytes are in this CPU's cache. It sends
    /// meanwhile, or packs what came before, and keeps up: a flood that is packed by one thread and
    /// sent by another rarely needs the spool.
    fn pack(&self, packer: &mut Packer, mut batch: Batch, now: EpochMs) -> Vec<Request> {
        let mut packed = Vec::new();
        let begin = |packer: &mut Packer, buffer: Vec<u8>| {
            let mut request = Request::with_buffer(packer.limits(), buffer);
            introduce(packer, &mut request, now);
            request
        };
        while let Some(mut request) = self.pack_one(packer, &mut batch, begin) {
            request.hash_ahead();
            packed.push(request);
        }
        self.spares.keep_batch(batch);
        packed
    }

    fn pack_one(
        &self,
        packer: &mut Packer,
        batch: &mut Batch,
        begin: impl Fn(&mut Packer, Vec<u8>) -> Request,
    ) -> Option<Request> {
        while !batch.remaining().is_empty() {
            let buffer = self.spares.body(packer.body_bytes(batch));
            let mut request = begin(packer, buffer);
            let oversized = packer.pack(&mut request, batch);
            if oversized > 0 {
                self.ledger.dropped_rejected.add(oversized);
                self.print(packer.take_oversized());
                log::error!(
                    "envelope",
                    "KINESIS_TELEMETRY_RECORD_BYTES is too small for what the extension adds to an \
                     event; such events are dropped"
                );
            }
            if !request.is_empty() {
                request.seal();
                return Some(request);
            }
        }
        None
    }

    /// Writes a batch to disk, or drops it. Says whether the dispatcher may wait for that.
    fn spill(&self, packer: &mut Packer, mut batch: Batch, now: EpochMs) -> bool {
        let mut wakes = false;
        while self.spool.is_on()
            && let Some(request) = self.pack_one(packer, &mut batch, for_disk)
        {
            let introduces = packer.introduces();
            let introduction = || {
                let mut introduction = for_disk(packer, Vec::new());
                introduce(packer, &mut introduction, now);
                introduction.seal();
                Some(introduction).filter(|introduction| !introduction.is_empty())
            };
            match self.spool.append(&request, introduces, introduction) {
                Ok(waited_for) => wakes |= waited_for,
                Err(error) => {
                    log::error!(
                        "spool",
                        "events cannot be kept under /tmp ({error}); what memory cannot hold is \
                         lost"
                    );
                    self.ledger.dropped_queue.add(request.events());
                    if packer.prints_lost() {
                        self.print(request.data().flatten().collect());
                    }
                    // What stood there before can be read again.
                    wakes = true;
                    break;
                }
            }
            self.spares.keep_body(request.into_buffer());
        }
        self.ledger.dropped_queue.add(batch.remaining().len() as u64);
        self.print_lost(packer, &batch);
        self.spares.keep_batch(batch);
        wakes
    }

    fn print_lost(&self, packer: &mut Packer, batch: &Batch) {
        if packer.prints_lost() {
            self.print(packer.lines(batch));
        }
    }

    fn print(&self, lines: Vec<u8>) {
        if !lines.is_empty() {
            self.printer.print(lines);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Packer> {
        self.packer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What Kinesis is to know of the sandbox first.
fn introduce(packer: &mut Packer, request: &mut Request, now: EpochMs) {
    if !packer.introduce(request, &[], now) {
        log::error!("own-event", "{TOO_SMALL}");
    }
}

/// An empty request for the disk, where data is kept as it is. The sandbox events are the
/// segment's.
fn for_disk(packer: &mut Packer, buffer: Vec<u8>) -> Request {
    Request::with_buffer(Limits { wire: Wire::Cbor, ..packer.limits() }, buffer)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::{self, Receiver};

    use tempfile::TempDir;

    use super::*;
    use crate::dispatch::Settings;
    use crate::dispatch::attention::{Attention, Passes};
    use crate::dispatch::policy::FlushMode;
    use crate::event::Span;
    use crate::kinesis::RecordSettings;
    use crate::kinesis::endpoint::Stream;
    use crate::kinesis::line::{Envelope, PartitionKey};
    use crate::kinesis::record::{Compression, RecordFormat};

    #[test]
    fn the_table_of_places() {
        let quiet = Circumstances {
            cost: 300_000,
            packed: 500_000,
            held: 0,
            bound: 8_000_000,
            request: 1_000_000,
            sending: false,
            overflow: false,
        };
        let busy = Circumstances { held: 1_000_000, sending: true, ..quiet };
        for (now, expected) in [
            (quiet, Place::Memory),
            (Circumstances { held: 1_000_000, ..quiet }, Place::Memory),
            (busy, Place::Packed),
            (Circumstances { held: 999_999, ..busy }, Place::Memory),
            (Circumstances { cost: PACK_BYTES - 1, ..busy }, Place::Memory),
            (Circumstances { packed: 6_700_001, ..busy }, Place::Memory),
            (Circumstances { packed: 6_700_000, ..busy }, Place::Packed),
            (Circumstances { held: 7_700_000, ..quiet }, Place::Memory),
            (Circumstances { held: 7_700_001, ..quiet }, Place::Disk),
            (Circumstances { overflow: true, ..quiet }, Place::Disk),
            (Circumstances { overflow: true, ..busy }, Place::Disk),
            (Circumstances { cost: usize::MAX, ..quiet }, Place::Disk),
        ] {
            assert_eq!(place(&now), expected, "{now:?}");
        }
    }

    #[test]
    fn a_batch_of_256_kib_is_worth_a_request() {
        let busy = Circumstances {
            cost: 262_144,
            packed: 0,
            held: 1_000_000,
            bound: 8_000_000,
            request: 1_000_000,
            sending: true,
            overflow: false,
        };
        assert_eq!(place(&busy), Place::Packed);
        assert_eq!(place(&Circumstances { cost: 262_143, ..busy }), Place::Memory);
    }

    #[test]
    fn main_hears_of_the_end_that_it_waits_for_and_of_no_other() {
        let (awaited, now) = (Awaited::default(), Instant::now());
        let later = now + Duration::from_secs(1);
        assert_eq!((awaited.since("r1"), awaited.since("")), (None, None));
        awaited.set(Some(("r1".into(), now)));
        assert_eq!((awaited.since("r1"), awaited.since("r2")), (Some(now), None));
        awaited.set(Some(("r2".into(), later)));
        assert_eq!((awaited.since("r1"), awaited.since("r2")), (None, Some(later)));
        awaited.set(None);
        assert_eq!(awaited.since("r2"), None);
    }

    /// What is admitted, and what comes of it.
    struct Bench {
        admission: Admission,
        channel: Receiver<Message>,
        printed: Arc<Mailbox<Vec<u8>>>,
        now: Now,
    }

    fn bench(
        bound: usize,
        folder: Option<&Path>,
        change: impl FnOnce(&mut Settings, &mut RecordSettings),
    ) -> Bench {
        let mut settings = Settings {
            flush: FlushMode::Next,
            max_age: Duration::from_secs(10),
            flush_timeout: Duration::from_secs(3),
            // A request takes a quarter of it.
            queue_bytes: bound.max(1 << 20),
            spool_bytes: folder.map_or(0, |_| 1 << 24),
            spool_folder: folder.unwrap_or(Path::new("nowhere")).to_owned(),
            print_lost: false,
            emf: false,
        };
        let mut records = RecordSettings {
            format: RecordFormat::Lines,
            compression: Compression::None,
            max_bytes: 1 << 20,
            partition_key: PartitionKey::Sandbox,
            envelope: Envelope::Full,
            wire: Wire::Json,
        };
        change(&mut settings, &mut records);
        let (gauge, ledger) = (Gauge::new(bound), Arc::new(Ledger::default()));
        let packer = Packer::new(&settings, &records, Arc::default(), Arc::clone(&ledger));
        let stream = Stream::Name("telemetry".to_owned());
        let spool = Spool::new(
            settings.spool_folder,
            settings.spool_bytes,
            stream,
            "owner",
            packer.limits(),
            None,
            Arc::clone(&ledger),
        );
        let (sender, channel) = mpsc::channel();
        let (printer, printed) = Printer::unread();
        let admission = Admission {
            sender,
            doorbell: Arc::default(),
            replies: Arc::default(),
            awaited: Arc::default(),
            spares: Arc::new(Spares::new(Arc::clone(&gauge))),
            gauge,
            spool: Arc::new(spool),
            printer: Arc::new(printer),
            ledger,
            packer: packer.into(),
            sending: Arc::default(),
            held_piece: Mutex::default(),
            signal_room: SignalRoom::default(),
            flush_timeout: settings.flush_timeout,
            preparing: Arc::default(),
        };
        Bench { admission, channel, printed, now: Now { mono: Instant::now(), wall: 1_000_000 } }
    }

    fn admission(bound: usize) -> Admission {
        bench(bound, None, |_, _| ()).admission
    }

    impl Bench {
        fn admit(&self, batch: Batch, signals: Vec<Signal>) {
            self.admission.admit(batch, signals, self.now);
        }

        /// All that was sent to the dispatcher since this was asked last.
        fn sent(&self) -> Vec<(Vec<Signal>, Load, Option<Charge>)> {
            let parts = |message| match message {
                Message::Telemetry { signals, load, charge, .. } => (signals, load, charge),
                other => panic!("{other:?}"),
            };
            self.channel.try_iter().map(parts).collect()
        }

        /// All that `main` was told since this was asked last.
        fn replies(&self) -> Vec<Reply> {
            std::iter::from_fn(|| self.admission.replies.take(self.now.mono)).collect()
        }

        /// The dispatcher sleeps, until so many bytes come.
        fn sleep(&self, bytes: usize) {
            let (since, time) = (self.now, Duration::from_secs(9));
            let passes = Some(Passes { since, time, bytes: usize::MAX });
            let attention = Attention { bytes: Some(bytes), passes, ..Attention::default() };
            self.admission.doorbell.announce(attention, None);
        }

        /// Nothing has woken it since.
        fn sleeps(&self) -> bool {
            self.admission.doorbell.passes(self.now)
        }

        /// All that waits for being printed.
        fn printed(&self) -> Vec<u8> {
            // Never empty, so that there is something to take.
            self.printed.put(Vec::new());
            self.printed.take_all().concat()
        }
    }

    /// So many events, each with so many bytes of text, in a buffer that just holds them.
    fn batch(events: usize, text: usize) -> Batch {
        let mut bytes = Vec::new();
        let mut spans = Vec::with_capacity(events);
        for number in 1..=events {
            let start = bytes.len();
            bytes.extend_from_slice(br#"{"time":"t","type":"function","record":""#);
            bytes.resize(bytes.len() + text, b'x');
            bytes.push(b'"');
            let text = Span::new(&(start..bytes.len()));
            spans.push(Event { text, number: number as u64, ..Event::default() });
        }
        bytes.shrink_to_fit();
        Batch::new(bytes, spans)
    }

    fn done(id: &str, at: EpochMs, failed: bool) -> Signal {
        Signal::Done { request_id: id.into(), at: Some(at), failed }
    }

    /// Past the dispatcher, which may be busy, so that what is on its way is cut short in time.
    #[test]
    fn main_hears_when_what_is_on_its_way_must_end() {
        let of = |sending: bool, preparing: u64, signals: Vec<Signal>| {
            let bench = bench(100_000, None, |_, _| ());
            let (admission, mono) = (&bench.admission, bench.now.mono);
            admission.awaited.set(Some(("r1".into(), mono)));
            admission.sending.store(sending, Ordering::Release);
            admission.preparing.store(preparing, Ordering::SeqCst);
            bench.admit(Batch::default(), signals.clone());
            let passed: Vec<Signal> = bench.sent().into_iter().flat_map(|sent| sent.0).collect();
            assert_eq!(passed, signals, "the dispatcher hears of all");
            let replies = bench.replies().into_iter().map(|reply| match reply {
                // 100 ms ago or earlier, by the event's own time.
                Reply::HoldEnds(at) => {
                    u64::try_from((at + Duration::from_secs(1) - mono).as_millis()).unwrap()
                }
                Reply::EndedWhilePreparing(generation) => generation,
                other => panic!("{other:?}"),
            });
            replies.collect::<Vec<u64>>()
        };
        let (ended, failed) = (done("r1", 999_900, false), done("r1", 999_900, true));
        // Of a success the flush's time; 400 ms where the function failed.
        let (success, failure) = (1000 - 100 + 3020, 1000 - 100 + 400);
        let none = Vec::<u64>::new;
        assert_eq!(of(false, 0, vec![ended.clone()]), none(), "the dispatcher hears of it at once");
        assert_eq!(of(true, 0, vec![ended.clone()]), [success]);
        assert_eq!(of(false, 7, vec![ended.clone()]), [7, success]);
        assert_eq!(of(false, 1, vec![ended.clone()]), [1, success]);
        assert_eq!(of(true, 7, vec![ended.clone()]), [7, success]);
        assert_eq!(of(false, 0, vec![failed.clone()]), [failure]);
        assert_eq!(of(true, 7, vec![failed.clone()]), [7, failure]);
        assert_eq!(of(true, 0, vec![failed, ended.clone()]), [success, failure]);
        let twice = vec![done("r1", 999_950, false), ended];
        assert_eq!(of(true, 0, twice), [success], "the earliest one counts");
        assert_eq!(of(true, 7, vec![done("r2", 999_900, true), Signal::Gap]), none());
        assert_eq!(of(true, 7, Vec::new()), none());
    }

    #[test]
    fn what_came_waits_in_memory_with_its_signals_and_all_of_it_is_charged() {
        let bench = bench(100_000, None, |_, _| ());
        let (batch, signals) = (batch(3, 100), vec![Signal::Started("r1".into())]);
        let cost = batch.cost() + weight(&signals);
        bench.sleep(cost);
        bench.admit(batch, signals.clone());
        assert!(!bench.sleeps(), "it waits for so many bytes");
        let sent = bench.sent();
        let [(passed, load @ Load::Events(_), Some(charge))] = &sent[..] else {
            panic!("{sent:?}")
        };
        assert_eq!((passed, load.events(), charge.bytes()), (&signals, 3, cost));
        assert_eq!(
            (bench.admission.gauge.held(), bench.admission.ledger.received.get()),
            (cost, 3)
        );
        drop(sent);
        assert_eq!(bench.admission.gauge.held(), 0);
    }

    #[test]
    fn a_post_without_events_takes_no_room_of_theirs_and_one_with_nothing_is_no_message() {
        let bench = bench(1, None, |_, _| ());
        bench.sleep(1);
        bench.admit(Batch::default(), Vec::new());
        assert!(bench.sent().is_empty());
        bench.admit(Batch::default(), vec![Signal::InitReported]);
        let sent = bench.sent();
        let [(signals, Load::Nothing, Some(_))] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!((&signals[..], bench.admission.gauge.held()), (&[Signal::InitReported][..], 0));
        assert!(bench.sleeps(), "no bytes of an event have come");
    }

    #[test]
    fn used_buffers_serve_the_next_post_and_go_where_events_need_their_room() {
        let bench = bench(20_000, None, |_, _| ());
        let (admission, spare) =
            (&bench.admission, Batch::new(Vec::with_capacity(8000), Vec::new()));
        // With no events in it, it is done with at once.
        bench.admit(spare, Vec::new());
        assert_eq!(admission.gauge.held(), 8000);
        let (body, events, charge) = admission.buffers(4000);
        assert_eq!((body.capacity(), events.len(), charge.is_some()), (8000, 0, true));
        drop((body, charge));
        for (room, held) in [(0, 20_000), (1, 12_001)] {
            admission.spares.clear();
            admission.spares.keep_body(Vec::with_capacity(8000));
            let rest = batch(1, 100);
            let taken = admission.gauge.charge(12_000 - rest.cost() + room);
            bench.admit(rest, Vec::new());
            assert!(matches!(&bench.sent()[..], [(_, Load::Events(_), Some(_))]));
            bench.admit(batch(1, 100), Vec::new());
            let sent = bench.sent();
            assert!(matches!(&sent[..], [(_, Load::Events(_), Some(_))]), "{sent:?}");
            assert_eq!(admission.gauge.held(), held, "{room}");
            drop((sent, taken));
        }
    }

    #[test]
    fn a_large_batch_is_packed_here_while_the_dispatcher_sends() {
        let bench = bench(8_000_000, None, |_, records| records.envelope = Envelope::Slim);
        let admission = &bench.admission;
        admission.sending.store(true, Ordering::Release);
        let waiting = admission.gauge.charge(2_000_000);
        bench.admit(batch(3000, 400), vec![Signal::Gap]);
        let mut sent = bench.sent();
        let (signals, load, _) = sent.pop().unwrap();
        assert!(signals == [Signal::Gap] && load.is_empty(), "behind the events");
        assert!(sent.len() > 1, "several requests");
        let mut weight = 0;
        for (signals, load, charge) in &sent {
            let Load::Packed(request) = load else { panic!("{load:?}") };
            let lines = request.data().flatten().collect::<Vec<u8>>();
            let lines = String::from_utf8(lines).unwrap();
            assert!(signals.is_empty());
            assert!(lines.lines().next().unwrap().contains("kinesis-telemetry.sandbox"));
            assert_eq!(charge.as_ref().unwrap().bytes(), request.cost());
            weight += request.cost();
        }
        assert_eq!(sent.iter().map(|(_, load, _)| load.events()).sum::<u64>(), 3000);
        assert_eq!(log::said("own-event"), 0, "there is room for that");
        assert_eq!(admission.gauge.held(), 2_000_000 + weight, "nothing is charged twice");
        drop((sent, waiting));
    }

    #[test]
    fn what_no_record_can_hold_is_counted_and_printed_and_the_rest_is_packed() {
        let tiny = |settings: &mut Settings, records: &mut RecordSettings| {
            settings.print_lost = true;
            records.envelope = Envelope::Slim;
            records.max_bytes = 300;
        };
        let folder = TempDir::new().unwrap();
        let bench = bench(1000, Some(folder.path()), tiny);
        let long = "i".repeat(400);
        let mut events = batch(2, 10).remaining().to_vec();
        let mut bytes = batch(2, 10).into_buffers().0;
        let at = bytes.len();
        bytes.extend_from_slice(long.as_bytes());
        events[0].request_id = Span::new(&(at..bytes.len()));
        let full = bench.admission.gauge.charge(1000);
        bench.admit(Batch::new(bytes, events), Vec::new());
        let ledger = &bench.admission.ledger;
        let counts = [&ledger.received, &ledger.dropped_rejected, &ledger.spooled].map(|n| n.get());
        assert_eq!(counts, [2, 1, 1]);
        let printed = String::from_utf8(bench.printed()).unwrap();
        assert!(printed.lines().count() == 1 && printed.contains(&long), "{printed}");
        // And said, which what fits is not.
        let said = log::said("envelope");
        assert!(said > 0);
        bench.admit(batch(2, 10), Vec::new());
        assert_eq!((log::said("envelope"), ledger.spooled.get()), (said, 3));
        drop(full);
    }

    #[test]
    fn what_memory_has_no_room_for_waits_on_disk_and_the_dispatcher_hears_of_the_first() {
        let folder = TempDir::new().unwrap();
        let bench =
            bench(1000, Some(folder.path()), |_, records| records.envelope = Envelope::Slim);
        let (admission, spool) = (&bench.admission, &bench.admission.spool);
        let full = admission.gauge.charge(1000);
        bench.sleep(usize::MAX);
        bench.admit(batch(3, 100), vec![Signal::Gap]);
        assert!(!bench.sleeps());
        let sent = bench.sent();
        assert!(matches!(&sent[..], [(signals, Load::Nothing, _)] if *signals == [Signal::Gap]));
        drop(full);
        // Although memory has room again.
        bench.admit(batch(1, 100), Vec::new());
        assert!(bench.sent().is_empty());
        assert_eq!((admission.ledger.spooled.get(), admission.ledger.dropped()), (4, 0));
        let Oldest::Ready(first) = spool.view().overflow else { panic!("{:?}", spool.view()) };
        let read = spool.read(first, Vec::with_capacity).unwrap().request;
        let lines = String::from_utf8(read.data().flatten().collect()).unwrap();
        assert!(lines.lines().next().unwrap().contains("kinesis-telemetry.sandbox"), "{lines}");
        assert_eq!(read.events(), 4);
        spool.remove(first);
        bench.admit(batch(1, 100), Vec::new());
        assert!(matches!(&bench.sent()[..], [(_, Load::Events(_), Some(_))]), "in memory again");
    }

    #[test]
    fn what_has_no_room_anywhere_is_counted_printed_and_wakes_nobody() {
        for (room, prints) in [(None, true), (None, false), (Some(4096), true)] {
            let folder = TempDir::new().unwrap();
            let bench = bench(1000, room.map(|_| folder.path()), |settings, _| {
                settings.print_lost = prints;
                settings.spool_bytes = room.unwrap_or(0);
            });
            let full = bench.admission.gauge.charge(1000);
            bench.sleep(usize::MAX);
            bench.admit(batch(50, 100), vec![Signal::Gap]);
            assert_eq!(bench.sleeps(), room.is_none(), "what stood on disk may be read again");
            let ledger = &bench.admission.ledger;
            assert_eq!((ledger.dropped_queue.get(), ledger.spooled.get()), (50, 0));
            let printed = String::from_utf8(bench.printed()).unwrap();
            assert_eq!(printed.lines().count(), if prints { 50 } else { 0 });
            assert_eq!(bench.sent().len(), 1, "signals pass in any case");
            drop(full);
        }
    }

    #[test]
    fn a_post_grows_within_the_room_that_there_is() {
        let admission = admission(1000);
        let mut room = None;
        assert!(admission.grow(&mut room, 600) && admission.grow(&mut room, 900));
        assert!(!admission.grow(&mut room, 1001));
        assert_eq!(admission.gauge.held(), 900, "it stays as it was");
        assert!(!admission.grow(&mut None, 101));
    }

    #[test]
    fn two_pieces_of_a_cut_record_are_held_where_there_is_no_room() {
        let admission = admission(1000);
        assert!(admission.hold(524_288), "Lambda cuts at 256 KiB");
        assert_eq!(admission.gauge.held(), 524_288);
        assert!(!admission.hold(524_289));
        assert_eq!(admission.gauge.held(), 0, "nor is the one before");
        assert!(admission.hold(10) && admission.hold(10));
        assert_eq!(admission.gauge.held(), 10);
        assert!(admission.hold(0));
        assert_eq!(admission.gauge.held(), 0);
        // For nothing there is always room.
        let _more_than_all = admission.gauge.charge(2000);
        assert!(admission.hold(10) && admission.hold(0));
    }
}
