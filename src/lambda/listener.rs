//! The telemetry listener: takes Lambda's POSTs, hands the events on, and then answers 200. Owns every tiny_http hazard.
//!
//! - An answer to a pipelined request waits until the one before it is answered: nothing is answered while the intake's lock is held.
//! - A request that is dropped with its body unread reads the rest first, into a buffer of the size that the client declared: the rest is
//!   read here, or the request is never dropped.
//! - A chunked body that ends inside a chunk looks like one that ends as it should: see `is_whole`.
//! - Reading a body has no time-out, so a client that stalls costs its thread: another takes over before a body is read (leader and followers).
//! - Its accept thread ends with the first failed `accept`, and panics where the socket cannot be duplicated (no file descriptor left): the
//!   bound socket is kept here as well, so that another server can go on with it, while the first still serves its connections.
//! - It asks for the rest of an unread body without a time-out: that costs a follower, not the listener.
//!
//! Runs on threads named `listener`. It never waits for room in the queue.

use std::io::{ErrorKind, Read, Result as IoResult};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tiny_http::{Method, Request, Response, Server};

use super::Settings;
use super::destination::Destination;
use super::intake::{Intake, ParsedBody, Signal};
use super::keep::Chooser;
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
/// So much of a body that is not taken is read, so that the client gets to see its answer. Lambda posts nothing that is larger.
const MAX_UNREAD: usize = 64 * 1024 * 1024;
/// Room behind a body for the ids that its events share, so that it need not be moved for them.
const SIDE_ROOM: usize = 256;
/// How long SHUTDOWN waits for a body that is being parsed, before it does without what is held back.
const PARSING_TIME: Duration = Duration::from_millis(100);
/// Names the boot of the machine, which is the sandbox: the same for each of its processes.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Threads that may be stuck in stalled bodies before the listener itself reads on the last one.
const MAX_THREADS: usize = 64;

/// A bound port, and what its threads share.
#[derive(Debug)]
pub struct Listener {
    port: u16,
    destination: Destination,
    intake: Mutex<Intake>,
    /// Where invocations are chosen. Locked behind the intake.
    chooser: Option<Mutex<Chooser<Reservation>>>,
    /// How often the ages of what waits there are looked at.
    tick: Option<Duration>,
    admission: Admission,
    sandbox: Arc<Sandbox>,
    ledger: Arc<Ledger>,
    threads: AtomicUsize,
    /// Nobody looks into the queue any more: no POST is answered 200.
    closed: AtomicBool,
}

/// One bound socket and its idle threads. There is a second one after an `accept` has failed: the first still has its connections.
struct Port {
    server: Server,
    spare: TcpListener,
    idle: AtomicUsize,
}

impl Listener {
    /// Binds `port` on all interfaces: Lambda calls `sandbox.localdomain`, which need not be loopback. Connections wait in the kernel until
    /// [`Listener::start`].
    ///
    /// # Errors
    /// If the port is taken.
    pub fn bind(port: u16) -> IoResult<TcpListener> {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
    }

    /// A listener that hands what it takes to `admission`. On Managed Instances invocations overlap, and AWS's emulator drops the path.
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
            chooser: keep.is_on().then(|| Mutex::new(Chooser::new(keep))),
            tick: keep.is_on().then(|| keep.max_age / 4),
            admission,
            sandbox,
            ledger,
            threads: AtomicUsize::new(0),
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
                "for some invocations all POSTs were to another path than Lambda was given; from now on any path is taken"
            );
        }
    }

    /// An invocation was held for a `platform.runtimeDone` that did not come by its deadline.
    pub fn waited_in_vain(&self) {
        if self.destination.waited_in_vain() {
            log::warn!(
                "any-path",
                "platform.runtimeDone did not come, and POSTs to another path than Lambda was given were refused; from now on any path is taken"
            );
        }
    }

    /// Serves the bound socket from now on.
    ///
    /// # Errors
    /// If no thread can be started or the socket cannot be duplicated.
    pub fn start(self: &Arc<Self>, socket: TcpListener) -> IoResult<()> {
        let spare = socket.try_clone()?;
        let listener = Arc::clone(self);
        panic::rescue_accept(move || listener.accept_again(&spare));
        if let Some(pause) = self.tick {
            let listener = Arc::clone(self);
            named(move || listener.watch_ages(pause))?;
        }
        let spare = socket.try_clone()?;
        self.serve_on(socket, spare)
    }

    fn serve_on(self: &Arc<Self>, socket: TcpListener, spare: TcpListener) -> IoResult<()> {
        let listener = Arc::clone(self);
        named(move || listener.serve_from(socket, spare))
    }

    fn serve_from(self: &Arc<Self>, socket: TcpListener, spare: TcpListener) {
        match Server::from_listener(socket, None) {
            Ok(server) => self.serve(&Arc::new(Port { server, spare, idle: AtomicUsize::new(0) })),
            Err(error) => log::error!("listener", "the telemetry listener cannot start: {error}"),
        }
    }

    /// The accept thread of a server has ended. Starts another one on the same socket, once there are file descriptors again.
    fn accept_again(self: &Arc<Self>, socket: &TcpListener) {
        log::warn!(
            "accept",
            "the telemetry listener could not accept a connection (too many open files?) and tries again"
        );
        loop {
            // As many as a new server and its first connections need, before it is started.
            let enough: IoResult<Vec<TcpListener>> = (0..8).map(|_| socket.try_clone()).collect();
            let started =
                enough.and_then(|_| self.serve_on(socket.try_clone()?, socket.try_clone()?));
            if started.is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// From now on no POST is answered 200: what is taken in already is in the channel when this comes back, and so is what was held back for
    /// a continuation that never came. A body that is still being parsed is waited for, but not for long.
    pub fn close(&self, until: Instant) {
        let until = until.min(Instant::now() + PARSING_TIME);
        let intake = loop {
            match self.intake.try_lock() {
                Ok(intake) => break Some(intake),
                Err(TryLockError::Poisoned(poisoned)) => break Some(poisoned.into_inner()),
                // A thread that panicked with the lock never gives it back.
                Err(TryLockError::WouldBlock) if panic::happened() || Instant::now() >= until => {
                    break None;
                }
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
            }
        };
        self.closed.store(true, Ordering::Release);
        match intake {
            Some(mut intake) => {
                let now = now();
                self.hand_over(intake.finish(now.wall));
                if let Some(mut chooser) = self.chooser() {
                    chooser.finish(now.wall);
                    self.hand_over_decided(&mut chooser, Vec::new(), now);
                }
            }
            None => log::warn!(
                "close",
                "a telemetry POST is still being read at SHUTDOWN; a cut record before it may be lost"
            ),
        }
    }

    /// One thread's life: wait for a request, see to it that another thread waits for the next, then handle it.
    fn serve(self: &Arc<Self>, port: &Arc<Port>) {
        self.threads.fetch_add(1, Ordering::AcqRel);
        port.idle.fetch_add(1, Ordering::AcqRel);
        loop {
            let received = port.server.recv();
            let was_idle = port.idle.fetch_sub(1, Ordering::AcqRel);
            match received {
                Ok(request) => {
                    if was_idle == 1 && self.threads.load(Ordering::Acquire) < MAX_THREADS {
                        let (listener, port) = (Arc::clone(self), Arc::clone(port));
                        let _ = named(move || listener.serve(&port));
                    }
                    self.handle(request);
                }
                Err(_) => self.accept_again(&port.spare),
            }
            // Lambda posts the next body while the last one is read: with three that wait, none is started anew. More have done their work.
            if port.idle.fetch_add(1, Ordering::AcqRel) >= 3 {
                port.idle.fetch_sub(1, Ordering::AcqRel);
                break;
            }
        }
        self.threads.fetch_sub(1, Ordering::AcqRel);
    }

    fn handle(&self, mut request: Request) {
        if *request.method() != Method::Post || !self.destination.admits(request.url()) {
            self.ledger.refused_posts.add(1);
            log::warn!(
                "refused",
                "a request that is no POST to the path that Lambda was given is refused (HTTP 404)"
            );
            return discard(request, 0, 404);
        }
        let declared = request.body_length().unwrap_or(0);
        if declared > MAX_BODY {
            return self.too_large(request, 0);
        }
        let (mut body, events) = self.admission.buffers(declared + SIDE_ROOM);
        let read = read_body(request.as_reader(), declared, &mut body);
        if body.len() > MAX_BODY {
            return self.too_large(request, body.len());
        }
        if read.is_err() || !is_whole(&body, request.body_length()) {
            // Cut off on the way: Lambda was not told 200 and sends it again.
            return answer(request, 400);
        }
        let taken = self.take(body, events);
        answer(request, if taken { 200 } else { 503 });
    }

    /// Puts a body's events into the queue before its answer: the next POST, which comes after the answer, cannot overtake them. Says whether they
    /// will be looked at.
    fn take(&self, body: Vec<u8>, events: Vec<Event>) -> bool {
        let mut intake = self.lock();
        if self.closed.load(Ordering::Acquire) {
            return false;
        }
        panic::inject("listener");
        // Main may know of an invocation before its `platform.start` has come.
        self.sandbox.each_invocation(|request_id| intake.invoked(request_id));
        let taken = intake.take_with(body, events, epoch_ms(SystemTime::now()));
        self.hand_over(taken);
        // SHUTDOWN did not wait for so long a body.
        !self.closed.load(Ordering::Acquire)
    }

    /// Lambda might post a batch that was refused again and again, and nothing behind it: it is told 200, and the loss is counted.
    fn too_large(&self, request: Request, have_read: usize) {
        self.ledger.refused_posts.add(1);
        log::error!("body", "a telemetry POST of more than {MAX_BODY} bytes is dropped");
        // The end of an invocation that is held may have been in it.
        self.admission.admit(Batch::default(), vec![message::Signal::Gap], now());
        discard(request, have_read, 200);
    }

    /// With the intake's lock held, as all that leads to [`Admission::admit`].
    fn hand_over(&self, taken: ParsedBody) {
        self.ledger.unparsed.add(taken.unparsed);
        self.ledger.excluded.add(taken.excluded);
        let signals = taken.signals.into_iter().filter_map(|signal| self.signal(signal)).collect();
        let now = now();
        let Some(mut chooser) = self.chooser() else {
            return self.admission.admit(taken.batch, signals, now);
        };
        let charge = self.admission.reserve(&taken.batch);
        let is_full = charge.is_none() && !taken.batch.remaining().is_empty();
        chooser.take(taken.batch, taken.observed, now.wall, charge);
        if is_full {
            chooser.keep_all();
        }
        self.hand_over_decided(&mut chooser, signals, now);
    }

    /// Puts into the queue what is no longer to wait for a choice, and the signals behind it.
    fn hand_over_decided(
        &self,
        chooser: &mut Chooser<Reservation>,
        signals: Vec<message::Signal>,
        now: message::Now,
    ) {
        let mut ready = std::iter::from_fn(|| chooser.next_ready().map(|(batch, _)| batch));
        let mut last = ready.next().unwrap_or_default();
        for batch in ready {
            self.admission.admit(std::mem::replace(&mut last, batch), Vec::new(), now);
        }
        self.ledger.thinned.add(chooser.take_thinned());
        self.admission.admit(last, signals, now);
    }

    /// Lets the events of an invocation that runs for long pass. Ends with the process.
    fn watch_ages(&self, pause: Duration) {
        let mut before = Instant::now();
        while !self.closed.load(Ordering::Acquire) {
            thread::sleep(pause);
            // Time in which the sandbox was frozen does not count.
            let elapsed = before.elapsed().min(2 * pause);
            before = Instant::now();
            let _intake = self.lock();
            if let Some(mut chooser) = self.chooser().filter(|chooser| chooser.is_waiting()) {
                chooser.tick(elapsed);
                self.hand_over_decided(&mut chooser, Vec::new(), now());
            }
        }
    }

    fn chooser(&self) -> Option<MutexGuard<'_, Chooser<Reservation>>> {
        let chooser = self.chooser.as_ref()?;
        Some(chooser.lock().unwrap_or_else(PoisonError::into_inner))
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
                    "Lambda dropped {records} log records ({bytes} bytes) before they reached the extension"
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

fn now() -> message::Now {
    message::Now { mono: Instant::now(), wall: epoch_ms(SystemTime::now()) }
}

/// Reads a body into a buffer that may be used already. One that says its length is read up to that, any other up to its end or the bound.
fn read_body(reader: &mut dyn Read, declared: usize, body: &mut Vec<u8>) -> IoResult<()> {
    if declared == 0 {
        body.clear();
        return reader.take(MAX_BODY as u64 + 1).read_to_end(body).map(drop);
    }
    if body.capacity() < declared {
        // The system gives it filled with zeros, and its pages only as they are used: a client may declare more than it sends.
        *body = vec![0; declared + SIDE_ROOM];
    }
    body.resize(declared, 0);
    let mut have = 0;
    while let Some(rest) = body.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    body.truncate(have);
    Ok(())
}

/// Whether a body came to its end. A chunked one does not say how long it is, and tiny_http reports the end of the connection inside a chunk as
/// its end. But Lambda posts arrays of objects, also where it cuts a record, and what was cut off elsewhere does not end like one.
fn is_whole(body: &[u8], declared: Option<usize>) -> bool {
    match declared {
        Some(declared) => body.len() == declared,
        None => {
            let mut end = body.iter().rev().filter(|byte| !byte.is_ascii_whitespace());
            matches!((end.next(), end.next()), (Some(b']'), Some(b'}' | b'[')) | (None, _))
        }
    }
}

/// Answers a request whose body is not wanted, of which `have_read` bytes were read.
fn discard(mut request: Request, have_read: usize, status: u16) {
    if request.body_length().is_some_and(|declared| declared > MAX_UNREAD) {
        // It cannot be dropped: that would reserve as much memory as the client declared. Its connection stays as it is.
        return std::mem::forget(request);
    }
    let mut buffer = [0; 16 * 1024];
    let mut left = MAX_UNREAD.saturating_sub(have_read);
    while left > 0 {
        match request.as_reader().read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => left = left.saturating_sub(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    answer(request, status);
}

/// A client that hung up is nobody's problem here.
fn answer(request: Request, status: u16) {
    let _ = request.respond(Response::empty(status));
}

fn named(work: impl FnOnce() + Send + 'static) -> IoResult<()> {
    thread::Builder::new().name("listener".to_owned()).spawn(work).map(drop)
}
