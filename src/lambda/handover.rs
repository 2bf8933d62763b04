//! From a body to the queue: parses it, lets its events wait for the choice between invocations
//! where there is one, and hands them on. One POST after the other, under the intake's lock.
//!
//! Runs on the listener's threads. The dispatcher closes it at SHUTDOWN and waits for the lock only
//! until a given time; `main` never waits for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant, SystemTime};

use super::Settings;
use super::choosing::{self, Choosing};
use super::intake::{Intake, ParsedBody, Signal};
use super::reading_room::{COST_OF_LONG, MAX_WHOLE};
use super::unsettled::Unsettled;
use super::windows::{Part, Rest};
use crate::clock::{EpochMs, epoch_ms};
use crate::dispatch::admission::{Admission, Reservation};
use crate::dispatch::message;
use crate::event::{Batch, Event};
use crate::ledger::Ledger;
use crate::log;
use crate::panic;
use crate::sandbox::Sandbox;

/// How long SHUTDOWN waits for a body that is being parsed, before it does without what that keeps
/// back: this part of the time that is left, and this much where that is more.
const PARSING_PART: u32 = 4;
const PARSING_TIME: Duration = Duration::from_millis(100);

/// See the module's page.
#[derive(Debug)]
pub(super) struct Handover {
    intake: Mutex<Intake>,
    /// Where invocations are chosen. Locked behind the intake.
    choosing: Option<Mutex<Choosing>>,
    /// How often the ages of what waits there are looked at, and by which thread.
    tick: Option<Duration>,
    watch: OnceLock<Thread>,
    pub(super) admission: Admission,
    sandbox: Arc<Sandbox>,
    ledger: Arc<Ledger>,
    unsettled: Arc<Unsettled>,
    /// SHUTDOWN waits for the body that is being parsed, and for no other.
    closes: AtomicBool,
    /// See [`Handover::give_up_ends`]. For the next that has the intake's lock.
    ends_lost: AtomicBool,
}

impl Handover {
    /// To `admission`. On Managed Instances invocations overlap.
    pub(super) fn new(
        settings: &Settings,
        managed_instances: bool,
        admission: Admission,
        sandbox: Arc<Sandbox>,
        ledger: Arc<Ledger>,
    ) -> Handover {
        let keep = settings.keep;
        let unsettled = Arc::<Unsettled>::default();
        Handover {
            intake: Mutex::new(
                Intake::new(settings.filter.clone(), managed_instances).observing(keep.is_on()),
            ),
            choosing: keep.is_on().then(|| {
                let (now, unsettled) = (Instant::now(), Arc::clone(&unsettled));
                Mutex::new(Choosing::new(keep, managed_instances, now, &admission, unsettled))
            }),
            tick: keep.chooses().then(|| choosing::pause(&keep)),
            watch: OnceLock::new(),
            admission,
            sandbox,
            ledger,
            unsettled,
            closes: AtomicBool::new(false),
            ends_lost: AtomicBool::new(false),
        }
    }

    /// Whether somebody is to call [`Handover::watch_ages`].
    pub(super) fn has_ages(&self) -> bool {
        self.tick.is_some()
    }

    /// Lets the events of an invocation that runs for long pass. A thread's whole life.
    pub(super) fn watch_ages(&self) {
        let Some(pause) = self.tick else { return };
        self.watch.get_or_init(thread::current);
        while !self.unsettled.is_closed() {
            thread::park_timeout(pause);
            let _intake = self.lock();
            self.lose_ends_noted();
            if let Some(mut choosing) = self.choosing() {
                choosing.tick(now(), &self.admission);
            }
        }
    }

    /// Ends may never come, or too late: what waits for them is handed over by whoever has the
    /// intake's lock next. `main` may not wait, so this is only noted.
    pub(super) fn give_up_ends(&self) {
        if self.choosing.is_some() {
            self.ends_lost.store(true, Ordering::Release);
            if let Some(watch) = self.watch.get() {
                watch.unpark();
            }
        }
    }

    /// A POST was not read whole. The end of an invocation that is held may have been in it.
    pub(super) fn gap(&self) {
        let _intake = self.lock();
        self.lose_ends(vec![message::Signal::Gap]);
    }

    /// Puts a part's events into the queue before its answer: the next POST, which comes after the
    /// answer, cannot overtake them. Returns what is left of it for the next part; `None` if nobody
    /// will look at them, so that Lambda must get no 200. `charge` is that of used buffers, or of
    /// an event that is longer than a window.
    pub(super) fn take(
        &self,
        body: Vec<u8>,
        events: Vec<Event>,
        part: Part,
        charge: &mut Reservation,
    ) -> Option<Rest> {
        let mut intake = self.lock();
        if self.is_closed() {
            return None;
        }
        panic::inject("listener");
        self.lose_ends_noted();
        // Main may know of an invocation before its `platform.start` has come.
        self.sandbox.each_invocation(|request_id| intake.invoked(request_id));
        let now = epoch_ms(SystemTime::now());
        let (taken, rest) = intake.take_part(body, events, now, part);
        if !self.unsettled.parsed(intake.held_bytes() > 0) {
            // SHUTDOWN did not wait for so long a body.
            return None;
        }
        if !rest.is_stuck {
            // What is handed over takes room by itself.
            let left = rest.bytes.len();
            match charge {
                Some(long) if left > MAX_WHOLE => long.resize(COST_OF_LONG * left),
                _ => *charge = None,
            }
        }
        let has_room = self.admission.hold(intake.held_bytes());
        self.hand_over(taken);
        if !has_room {
            self.give_up_held(&mut intake, now);
        }
        (!self.unsettled.is_closed()).then_some(rest)
    }

    /// No continuation comes, or there is no room to wait for it.
    fn give_up_held(&self, intake: &mut Intake, now: EpochMs) {
        while intake.held_bytes() > 0 {
            let taken = intake.finish(now);
            let _ = self.admission.hold(intake.held_bytes());
            if self.unsettled.parsed(intake.held_bytes() > 0) {
                self.hand_over(taken);
            }
        }
    }

    /// From now on no POST is answered 200: what was taken in already is in the channel when this
    /// comes back, and so is what was held back for a continuation that never came. A body that is
    /// still being parsed is waited for, but not for long; what it keeps back then is counted as
    /// lost.
    pub(super) fn close(&self, until: Instant) {
        self.closes.store(true, Ordering::Release);
        let begun = Instant::now();
        let part = until.saturating_duration_since(begun) / PARSING_PART;
        let intake = lock_until(&self.intake, until.min(begun + part.max(PARSING_TIME)));
        let now = now();
        if let Some(mut intake) = intake {
            self.give_up_held(&mut intake, now.wall);
            if let Some(mut choosing) = self.choosing() {
                choosing.finish(now, &self.admission);
            }
            self.unsettled.close();
            return;
        }
        self.unsettled.close();
        // What waits for a choice was answered 200; the other POST will not be. It may be just
        // about to wait as well.
        let until = until.min(Instant::now() + PARSING_TIME);
        let choosing = self.choosing.as_ref();
        if let Some(mut choosing) = choosing.and_then(|one| lock_until(one, until)) {
            choosing.finish(now, &self.admission);
        }
        let lost = self.unsettled.give_up();
        self.ledger.received.add(lost);
        self.ledger.dropped_undelivered.add(lost);
        log::warn!(
            "close",
            "a telemetry POST is still being read at SHUTDOWN; {lost} events that were taken \
             before it and not sent yet are lost"
        );
    }

    /// Whether no POST is answered 200 any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closes.load(Ordering::Acquire)
    }

    /// With the intake's lock held, as all that leads to [`Admission::admit`].
    fn hand_over(&self, taken: ParsedBody) {
        self.ledger.unparsed.add(taken.unparsed);
        self.ledger.excluded.add(taken.excluded);
        let signals = taken.signals.into_iter().filter_map(|signal| self.signal(signal)).collect();
        let now = now();
        match self.choosing() {
            Some(mut choosing) => {
                choosing.take(taken.batch, taken.observed, signals, now, &self.admission);
            }
            None => self.admission.admit(taken.batch, signals, now),
        }
    }

    /// An end may never come: what waits for it is handed over, before the signals. With the
    /// intake's lock held.
    fn lose_ends(&self, signals: Vec<message::Signal>) {
        match self.choosing() {
            Some(mut choosing) => choosing.lose_ends(signals, now(), &self.admission),
            None if signals.is_empty() => {}
            None => self.admission.admit(Batch::default(), signals, now()),
        }
    }

    fn lose_ends_noted(&self) {
        if self.ends_lost.swap(false, Ordering::AcqRel) {
            self.lose_ends(Vec::new());
        }
    }

    fn signal(&self, signal: Signal) -> Option<message::Signal> {
        match signal {
            Signal::LogStream(name) => {
                self.sandbox.learn(|facts| facts.log_stream = Some(name));
                None
            }
            Signal::Restored => {
                self.sandbox.restored();
                None
            }
            Signal::Start { request_id, arn } => {
                if let Some(arn) = arn {
                    self.sandbox.invoked(&request_id, &arn);
                }
                Some(message::Signal::Started(request_id))
            }
            Signal::RuntimeDone { request_id, at, failed } => {
                Some(message::Signal::Done { request_id, at, failed })
            }
            Signal::Report { request_id } => Some(message::Signal::Reported(request_id)),
            Signal::InitReport => Some(message::Signal::InitReported),
            Signal::LogsDropped { records, bytes } => {
                self.ledger.platform_dropped_records.add(records);
                self.ledger.platform_dropped_bytes.add(bytes);
                log::warn!(
                    "logs-dropped",
                    "Lambda dropped {records} log records ({bytes} bytes) \
                     before they reached the extension"
                );
                Some(message::Signal::Gap)
            }
            Signal::Damaged => Some(message::Signal::Gap),
        }
    }

    fn choosing(&self) -> Option<MutexGuard<'_, Choosing>> {
        let choosing = self.choosing.as_ref()?;
        Some(choosing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For others than the listener's threads; `None` where one of those needs it for so long.
fn lock_until<T>(mutex: &Mutex<T>, until: Instant) -> Option<MutexGuard<'_, T>> {
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            // A thread that panicked with the lock never gives it back.
            Err(TryLockError::WouldBlock) if panic::happened() || Instant::now() >= until => {
                return None;
            }
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn now() -> message::Now {
    message::Now { mono: Instant::now(), wall: epoch_ms(SystemTime::now()) }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::super::api::Function;
    use super::super::windows::{Begins, Behind};
    use super::*;
    use crate::config;
    use crate::dispatch::message::Message;
    use crate::wiring::Shared;

    /// Two events of an invocation that has not ended.
    const BEGUN: &str = concat!(
        r#"[{"time":"t","type":"platform.start","record":{"requestId":"a","version":"1"}},"#,
        r#"{"time":"t","type":"function","record":"waits"}]"#
    );
    /// The first piece of a record that Lambda cut.
    const PIECE: &str = r#"[{"time":"t","type":"function","record":{"message":"AAAA}]"#;

    /// Says whether it is to be answered 200.
    fn post(handover: &Handover, body: &str) -> bool {
        let part = Part::alone(Begins::Body, Behind::NextBody, body.len());
        handover.take(body.into(), Vec::new(), part, &mut None).is_some()
    }

    struct Fixture {
        handover: Handover,
        ledger: Arc<Ledger>,
        messages: Receiver<Message>,
    }

    impl Fixture {
        fn new() -> Fixture {
            let variables = [
                ("KINESIS_TELEMETRY_STREAM", "stream"),
                ("KINESIS_TELEMETRY_KEEP", "0%"),
                ("AWS_REGION", "eu-west-1"),
                ("AWS_ACCESS_KEY_ID", "x"),
                ("AWS_SECRET_ACCESS_KEY", "x"),
            ];
            let config = config::read(&variables.into_iter().collect()).1.unwrap();
            let shared = Shared::new(&config, &Function::default());
            let (sender, messages) = channel();
            let admission = shared.admission(&config, sender);
            let (sandbox, ledger) = (Arc::clone(&shared.sandbox), Arc::clone(&shared.ledger));
            let handover = Handover::new(&config.lambda, false, admission, sandbox, shared.ledger);
            Fixture { handover, ledger, messages }
        }

        fn post(&self, body: &str) -> bool {
            post(&self.handover, body)
        }

        /// That reached the channel.
        fn events(&self) -> u64 {
            let events = |message| match message {
                Message::Telemetry { load, .. } => load.events(),
                _ => 0,
            };
            self.messages.try_iter().map(events).sum()
        }

        fn counted(&self) -> (u64, u64) {
            (self.ledger.received.get(), self.ledger.dropped_undelivered.get())
        }
    }

    #[test]
    fn what_is_held_back_is_handed_on_at_shutdown() {
        let fixture = Fixture::new();
        assert!(fixture.post(BEGUN) && fixture.post(PIECE));
        assert_eq!((fixture.events(), fixture.counted()), (0, (0, 0)));
        fixture.handover.close(Instant::now());
        assert_eq!((fixture.events(), fixture.counted()), (3, (3, 0)));
        assert!(!fixture.post(BEGUN));
        assert_eq!((fixture.events(), fixture.counted()), (0, (3, 0)));
    }

    /// They were neither sent nor counted.
    #[test]
    fn what_a_stalled_post_keeps_back_at_shutdown_is_counted_as_lost() {
        let fixture = Fixture::new();
        assert!(fixture.post(BEGUN) && fixture.post(PIECE));
        let (intake, choosing) = (fixture.handover.lock(), fixture.handover.choosing());
        fixture.handover.close(Instant::now());
        assert_eq!((fixture.events(), fixture.counted()), (0, (3, 3)));
        // Whoever had them goes on: they are not counted, or sent, once more.
        choosing.unwrap().finish(now(), &fixture.handover.admission);
        drop(intake);
        assert!(!fixture.post(PIECE));
        assert_eq!((fixture.events(), fixture.counted()), (0, (3, 3)));
    }

    #[test]
    fn only_what_cannot_be_reached_at_shutdown_is_lost() {
        let fixture = Fixture::new();
        assert!(fixture.post(BEGUN) && fixture.post(PIECE));
        let intake = fixture.handover.lock();
        fixture.handover.close(Instant::now());
        assert_eq!((fixture.events(), fixture.counted()), (2, (3, 1)));
        drop(intake);
    }

    #[test]
    fn a_post_that_shutdown_did_not_wait_for_stays_lambdas() {
        let fixture = Fixture::new();
        assert!(fixture.post(BEGUN));
        let handover = &fixture.handover;
        let choosing = handover.choosing();
        // The ledger shows when this has been parsed. Before, the POST would still give way.
        let gap = r#"{"time":"t","type":"platform.logsDropped","record":{"droppedRecords":1}}"#;
        let body = format!("{},{gap}]", BEGUN.trim_end_matches(']'));
        thread::scope(|scope| {
            let stalled = scope.spawn(|| post(handover, &body));
            while handover.ledger.platform_dropped_records.get() == 0 {
                thread::yield_now();
            }
            handover.close(Instant::now());
            drop(choosing);
            assert!(!stalled.join().unwrap());
        });
        assert_eq!((fixture.events(), fixture.counted()), (0, (2, 2)));
    }

    /// `main` waited for the lock, up to 100 ms longer than it may hold an invocation, and then
    /// went without.
    #[test]
    fn an_end_that_is_lost_is_noted_while_a_post_is_parsed() {
        let fixture = Fixture::new();
        assert!(fixture.post(BEGUN));
        let intake = fixture.handover.lock();
        fixture.handover.give_up_ends();
        drop(intake);
        assert_eq!(fixture.events(), 0);
        assert!(fixture.post("[]"));
        assert_eq!(fixture.events(), 2);
    }
}
