//! The telemetry listener: takes Lambda's POSTs, hands the events on, and then answers 200.
//!
//! Each connection has a thread, which reads its requests one after the other. What a neighbour in
//! the sandbox can take is bounded: connections (`connections`), the head of
//! a request (`http`), the bytes of the bodies that are being read (`reading_room`), and
//! what is read of a body that is not wanted.
//!
//! - Reading has no time-out, for Lambda keeps a connection between invocations: a client that
//!   stalls costs its thread, and its connection gives way when others come.
//! - `tiny_http` writes the answers. Its server cannot be bounded from outside: see `Cargo.toml`.
//!
//! Runs on threads named `listener`. It never waits for room in the queue.

use std::io::{ErrorKind, Read, Result as IoResult, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tiny_http::{HTTPVersion, Header, Response};

use super::Settings;
use super::choosing::{self, Choosing};
use super::connections::{Connection, Connections, Stream};
use super::destination::Destination;
use super::http::{NoRequest, Request, RequestReader};
use super::intake::{Behind, Intake, ParsedBody, Part, Rest, Signal};
use super::reading_room::{InTime, MAX_WHOLE, Room};
use crate::clock::epoch_ms;
use crate::dispatch::admission::{Admission, Reservation};
use crate::dispatch::message;
use crate::event::{Batch, Event};
use crate::ledger::Ledger;
use crate::log;
use crate::panic;
use crate::random;
use crate::sandbox::Sandbox;

/// Lambda's bodies have 2 x `maxBytes` and some; one larger than this is not taken.
pub const MAX_BODY: usize = 8 * 1024 * 1024;
/// So much of a larger body is read before the events in it are handed on: what it takes is bounded
/// by this, whatever it holds.
const WINDOW: usize = 256 * 1024;
/// Room that a longer event takes while it is read, in its bytes: it may have to be written anew.
const COST_OF_LONG: usize = 2;
/// So much of a body that is not taken is read, so that the client gets to see its answer. Lambda
/// posts nothing that is larger.
const MAX_UNREAD: usize = 64 * 1024 * 1024;
/// Room behind a body for the ids that its events share, so that it need not be moved for them.
const SIDE_ROOM: usize = 256;
/// How long SHUTDOWN waits for a body that is being parsed, before it does without what is held
/// back.
const PARSING_TIME: Duration = Duration::from_millis(100);
/// Names the boot of the machine, which is the sandbox: the same for each of its processes.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// A body up to this size needs no room of its own: of these there is one for each connection.
const SMALL_BODY: usize = 64 * 1024;
/// The pause after a connection could not be accepted.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// Threads that wait for the next connection: with so many none is started for each.
const MAX_IDLE: usize = 3;

/// A bound port, and what its threads share.
#[derive(Debug)]
pub struct Listener {
    port: u16,
    destination: Destination,
    intake: Mutex<Intake>,
    /// Where invocations are chosen. Locked behind the intake.
    choosing: Option<Mutex<Choosing>>,
    /// How often the ages of what waits there are looked at.
    tick: Option<Duration>,
    admission: Admission,
    sandbox: Arc<Sandbox>,
    ledger: Arc<Ledger>,
    connections: Connections,
    room: Room,
    /// Nobody looks into the queue any more: no POST is answered 200.
    closed: AtomicBool,
}

/// The bound socket, and how many threads wait for a connection.
struct Port {
    socket: TcpListener,
    idle: AtomicUsize,
}

impl Listener {
    /// Binds `port` on all interfaces: Lambda calls `sandbox.localdomain`, which need not be
    /// loopback. Connections wait in the kernel until [`Listener::start`].
    ///
    /// # Errors
    /// If the port is taken.
    pub fn bind(port: u16) -> IoResult<TcpListener> {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
    }

    /// A listener that hands what it takes to `admission`. On Managed Instances invocations
    /// overlap, and AWS's emulator drops the path.
    #[must_use]
    pub fn new(
        settings: &Settings,
        managed_instances: bool,
        admission: Admission,
        sandbox: Arc<Sandbox>,
        ledger: Arc<Ledger>,
    ) -> Listener {
        let boot_id = std::fs::read_to_string(BOOT_ID)
            .ok()
            .map(|id| id.trim().to_owned())
            .filter(|id| !id.is_empty());
        let facts = sandbox.facts();
        let function = [&facts.account_id, &facts.function_name, &facts.function_version]
            .map(|fact| fact.as_deref().unwrap_or_default());
        let keep = settings.keep;
        let random = || format!("{}{}", random::hex16(), random::hex16());
        Listener {
            port: settings.port,
            destination: Destination::new(boot_id.as_deref(), &function, random, managed_instances),
            intake: Mutex::new(
                Intake::new(settings.filter.clone(), managed_instances).observing(keep.is_on()),
            ),
            choosing: keep.is_on().then(|| {
                let now = Instant::now();
                Mutex::new(Choosing::new(keep, managed_instances, now, &admission))
            }),
            tick: keep.chooses().then(|| choosing::pause(&keep)),
            admission,
            sandbox,
            ledger,
            connections: Connections::default(),
            room: Room::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// Where Lambda is to post.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("http://sandbox.localdomain:{}{}", self.port, self.destination.path())
    }

    /// An invocation begins.
    pub fn invoked(&self) {
        if self.destination.invoked() {
            log::warn!(
                "any-path",
                "for some invocations all POSTs were to another path than Lambda was given; \
                 from now on any path is taken"
            );
        }
    }

    /// An invocation was held for a `platform.runtimeDone` that did not come by its deadline.
    pub fn waited_in_vain(&self) {
        if self.destination.waited_in_vain() {
            log::warn!(
                "any-path",
                "platform.runtimeDone did not come, and POSTs to another path than Lambda \
                 was given were refused; from now on any path is taken"
            );
        }
        if self.choosing.is_some()
            && let Some(_intake) = lock_until(&self.intake, Instant::now() + PARSING_TIME)
        {
            self.lose_ends(Vec::new());
        }
    }

    /// Serves the bound socket from now on.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(self: &Arc<Self>, socket: TcpListener) -> IoResult<()> {
        if let Some(pause) = self.tick {
            let listener = Arc::clone(self);
            named(move || listener.watch_ages(pause))?;
        }
        self.start_thread(&Arc::new(Port { socket, idle: AtomicUsize::new(0) }))
    }

    fn start_thread(self: &Arc<Self>, port: &Arc<Port>) -> IoResult<()> {
        // It counts from now on: another that comes back meanwhile is to see it.
        port.idle.fetch_add(1, Ordering::AcqRel);
        let (listener, serving) = (Arc::clone(self), Arc::clone(port));
        let started = named(move || listener.serve(&serving));
        if started.is_err() {
            port.idle.fetch_sub(1, Ordering::AcqRel);
        }
        started
    }

    /// From now on no POST is answered 200: what is taken in already is in the channel when this
    /// comes back, and so is what was held back for a continuation that never came. A body that is
    /// still being parsed is waited for, but not for long.
    pub fn close(&self, until: Instant) {
        let intake = lock_until(&self.intake, until.min(Instant::now() + PARSING_TIME));
        self.closed.store(true, Ordering::Release);
        match intake {
            Some(mut intake) => {
                let now = now();
                let taken = intake.finish(now.wall);
                let _ = self.admission.hold(0);
                self.hand_over(taken);
                if let Some(mut choosing) = self.choosing() {
                    choosing.finish(now, &self.admission);
                }
            }
            None => {
                log::warn!(
                    "close",
                    "a telemetry POST is still being read at SHUTDOWN; \
                     a cut record before it may be lost"
                );
                // What waits for a choice was answered 200; the other POST will not be. It may be
                // just about to wait as well.
                let until = until.min(Instant::now() + PARSING_TIME);
                let choosing = self.choosing.as_ref();
                if let Some(mut choosing) = choosing.and_then(|one| lock_until(one, until)) {
                    choosing.finish(now(), &self.admission);
                }
            }
        }
    }

    /// One thread's life: wait for a connection, see to it that another thread waits for the next,
    /// then serve it.
    fn serve(self: &Arc<Self>, port: &Arc<Port>) {
        loop {
            let accepted = port.socket.accept();
            let was_idle = port.idle.fetch_sub(1, Ordering::AcqRel);
            match accepted {
                Ok((socket, _)) => {
                    let connection = self.connections.enter(socket);
                    if was_idle == 1 && self.start_thread(port).is_err() {
                        // It is served by the thread that should wait for the next one: not at all.
                        connection.cut();
                    } else {
                        self.serve_connection(&connection);
                    }
                    self.connections.leave(&connection);
                }
                Err(_) => {
                    log::warn!(
                        "accept",
                        "the telemetry listener could not accept a connection \
                         (too many open files?) and tries again"
                    );
                    self.connections.cut_oldest();
                    thread::sleep(ACCEPT_RETRY);
                }
            }
            if port.idle.fetch_add(1, Ordering::AcqRel) >= MAX_IDLE {
                port.idle.fetch_sub(1, Ordering::AcqRel);
                break;
            }
        }
    }

    /// The requests of one connection, until it ends, or would have to be read on for too long.
    fn serve_connection(&self, connection: &Connection) {
        let mut reader = RequestReader::new(connection.stream());
        loop {
            let goes_on = match reader.next() {
                Ok(request) => self.handle(connection, request),
                Err(NoRequest::Ended) => false,
                Err(NoRequest::Refused(status)) => {
                    self.ledger.refused_posts.add(1);
                    write_answer(connection.stream(), status, false);
                    false
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Says whether the connection can go on.
    fn handle(&self, connection: &Connection, mut request: Request<'_, Stream<'_>>) -> bool {
        if !request.is_post || !self.destination.admits(&request.target) {
            self.ledger.refused_posts.add(1);
            log::warn!(
                "refused",
                "a request that is no POST to the path that Lambda was given is refused (HTTP 404)"
            );
            return discard(request, 0, 404);
        }
        connection.is_known();
        // A length that no number holds is too large as well.
        let length = request.body_length().map(|all| usize::try_from(all).unwrap_or(usize::MAX));
        if length.is_some_and(|length| length > MAX_BODY) {
            return self.too_large(request, 0);
        }
        match self.read_and_take(&mut request, length, connection) {
            Ok(()) => {
                let goes_on = request.keeps_alive;
                answer(&mut request, 200, goes_on);
                goes_on
            }
            Err(NotTaken::TooLarge(have_read)) => self.too_large(request, have_read),
            Err(NotTaken::Closed) => {
                let goes_on = request.is_read() && request.keeps_alive;
                answer(&mut request, 503, goes_on);
                goes_on
            }
            // Lambda was not told 200 and sends it again.
            Err(NotTaken::CutOff) => {
                answer(&mut request, 400, false);
                false
            }
        }
    }

    /// Reads a body and hands its events on: an ordinary one at once, a larger one window by window.
    /// If that is cut off behind its first window, Lambda's second try brings some events again.
    fn read_and_take(
        &self,
        request: &mut Request<'_, Stream<'_>>,
        length: Option<usize>,
        connection: &Connection,
    ) -> Result<(), NotTaken> {
        let mut size = length.filter(|length| *length <= MAX_WHOLE).unwrap_or(WINDOW);
        // A window may grow to that before it needs room in the queue.
        let most = length.map_or(MAX_WHOLE, |length| length.min(MAX_WHOLE));
        let taken = (most > SMALL_BODY).then(|| self.room.take(most, connection));
        let (mut body, mut events) = self.admission.buffers(length.map_or(0, |_| size) + SIDE_ROOM);
        let (mut have, mut have_read) = (0, 0);
        let mut part = Part { is_first: true, behind: Behind::RestOfBody };
        // For an event that is longer.
        let mut long: Reservation = None;
        loop {
            let begun = have;
            let mut reader = InTime { reader: &mut *request, taken: taken.as_ref() };
            have =
                read_window(&mut reader, &mut body, begun, size).map_err(|_| NotTaken::CutOff)?;
            have_read += have - begun;
            if have_read > MAX_BODY {
                return Err(NotTaken::TooLarge(have_read));
            }
            if request.is_read() {
                part.behind = Behind::NextBody;
                if have < size / 2 {
                    body.shrink_to(have + SIDE_ROOM);
                }
            } else if have < size {
                return Err(NotTaken::CutOff);
            }
            let rest = self.take(body, events, part).ok_or(NotTaken::Closed)?;
            have = rest.bytes.len();
            (body, events) = (rest.bytes, Vec::new());
            if body.is_empty() && request.is_read() {
                return Ok(());
            }
            if !rest.is_stuck {
                part = Part { is_first: false, behind: Behind::RestOfBody };
                size = WINDOW.max(have);
                long = long.filter(|_| size > MAX_WHOLE);
            } else if part.behind == Behind::RestOfBody {
                let most = if have < MAX_WHOLE { MAX_WHOLE } else { 2 * have };
                size = most.min(have + MAX_BODY + 1 - have_read);
                drop(long.take());
                if size > MAX_WHOLE {
                    long = self.admission.reserve_bytes(COST_OF_LONG * size);
                    if long.is_none() {
                        (size, part.behind) = (have, Behind::NoRoom);
                    }
                }
            }
        }
    }

    /// Puts a part's events into the queue before its answer: the next POST, which comes after the
    /// answer, cannot overtake them. Comes back with what is left of it for the next part; `None` if
    /// nobody will look at them.
    fn take(&self, body: Vec<u8>, events: Vec<Event>, part: Part) -> Option<Rest> {
        let mut intake = self.lock();
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        panic::inject("listener");
        // Main may know of an invocation before its `platform.start` has come.
        self.sandbox.each_invocation(|request_id| intake.invoked(request_id));
        let now = epoch_ms(SystemTime::now());
        let (taken, rest) = intake.take_part(body, events, now, part);
        let has_room = self.admission.hold(intake.held_bytes());
        self.hand_over(taken);
        if !has_room {
            let given_up = intake.finish(now);
            self.hand_over(given_up);
        }
        // SHUTDOWN did not wait for so long a body.
        (!self.closed.load(Ordering::Acquire)).then_some(rest)
    }

    /// Lambda might post a batch that was refused again and again, and nothing behind it: it is
    /// told 200, and the loss is counted.
    fn too_large(&self, request: Request<'_, Stream<'_>>, have_read: usize) -> bool {
        self.ledger.refused_posts.add(1);
        log::error!("body", "a telemetry POST of more than {MAX_BODY} bytes is dropped");
        // The end of an invocation that is held may have been in it.
        {
            let _intake = self.lock();
            self.lose_ends(vec![message::Signal::Gap]);
        }
        discard(request, have_read, 200)
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

    /// Lets the events of an invocation that runs for long pass. Ends with the process.
    fn watch_ages(&self, pause: Duration) {
        while !self.closed.load(Ordering::Acquire) {
            thread::sleep(pause);
            let _intake = self.lock();
            if let Some(mut choosing) = self.choosing() {
                choosing.tick(now(), &self.admission);
            }
        }
    }

    fn choosing(&self) -> Option<MutexGuard<'_, Choosing>> {
        let choosing = self.choosing.as_ref()?;
        Some(choosing.lock().unwrap_or_else(PoisonError::into_inner))
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

/// Why a body, or the rest of one, was not taken.
enum NotTaken {
    /// It is over [`MAX_BODY`]; so much of it was read.
    TooLarge(usize),
    /// It ended too early, or stalled while others waited.
    CutOff,
    /// SHUTDOWN has looked into the queue for the last time.
    Closed,
}

/// Reads on behind the first `have` bytes of a buffer that may be used already, up to `size` or the
/// body's end. Comes back with how many bytes there are then.
fn read_window(
    reader: &mut dyn Read,
    body: &mut Vec<u8>,
    mut have: usize,
    size: usize,
) -> IoResult<usize> {
    if body.capacity() < size {
        // The system gives it filled with zeros, and its pages only as they are used: a client may
        // declare more than it sends.
        let begun = std::mem::replace(body, vec![0; size + SIDE_ROOM]);
        for (place, byte) in body.iter_mut().zip(begun.iter().take(have)) {
            *place = *byte;
        }
    }
    body.resize(size, 0);
    while let Some(rest) = body.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    body.truncate(have);
    Ok(have)
}

/// Answers a request whose body is not wanted, of which `have_read` bytes were read. Says whether
/// the connection can go on.
fn discard(mut request: Request<'_, Stream<'_>>, have_read: usize, status: u16) -> bool {
    let mut left = MAX_UNREAD.saturating_sub(have_read);
    if request.body_length().is_none_or(|length| length <= MAX_UNREAD as u64) {
        let mut buffer = [0; 16 * 1024];
        while left > 0 && !request.is_read() {
            match request.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => left = left.saturating_sub(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    }
    let goes_on = request.is_read() && request.keeps_alive;
    answer(&mut request, status, goes_on);
    goes_on
}

fn answer(request: &mut Request<'_, Stream<'_>>, status: u16, goes_on: bool) {
    write_answer(request.stream(), status, goes_on);
}

/// In one piece. A client that hung up is nobody's problem here.
fn write_answer(mut stream: Stream<'_>, status: u16, goes_on: bool) {
    let mut response = Response::empty(status);
    if !goes_on && let Ok(header) = Header::from_bytes("Connection", "close") {
        response.add_header(header);
    }
    let mut bytes = Vec::with_capacity(256);
    let written = response.raw_print(&mut bytes, HTTPVersion(1, 1), &[], false, None);
    let _ = written.and_then(|()| stream.write_all(&bytes));
}

fn named(work: impl FnOnce() + Send + 'static) -> IoResult<()> {
    thread::Builder::new().name("listener".to_owned()).spawn(work).map(drop)
}
