//! The telemetry listener: takes Lambda's POSTs, answers 200 at once, puts the events into the queue. Owns every tiny_http hazard.
//!
//! - Reading a body has no time-out, so a client that stalls costs its thread: another takes over before a body is read (leader and followers).
//! - Its accept thread ends with the first failed `accept`, and panics where the socket cannot be duplicated (no file descriptor left): the
//!   bound socket is kept here as well, so that another server can go on with it, while the first still serves its connections.
//! - `Request::respond` on a body that was not read blocks until the client hangs up: it costs a follower, not the listener.
//!
//! Runs on threads named `listener`. It never waits for room in the queue.

use std::io::{ErrorKind, Read, Result as IoResult};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use tiny_http::{Method, Request, Response, Server};

use super::filter::Filter;
use super::intake::{Intake, ParsedBody, Signal};
use crate::clock::epoch_ms;
use crate::dispatch::queue::{Mark, Queue};
use crate::ledger::Ledger;
use crate::log;
use crate::panic;
use crate::random;
use crate::sandbox::Sandbox;

/// Lambda's bodies have 2 x `maxBytes` and some; one larger than this is refused.
pub const MAX_BODY: usize = 8 * 1024 * 1024;
/// Room behind a body for the ids that its events share, so that it need not be moved for them.
const SIDE_ROOM: usize = 256;
/// Threads that may be stuck in stalled bodies before the listener itself reads on the last one.
const MAX_THREADS: usize = 64;

/// A bound port, and what its threads share.
#[derive(Debug)]
pub struct Listener {
    port: u16,
    path: String,
    /// Managed Instances: AWS's emulator drops the path.
    any_path: bool,
    intake: Mutex<Intake>,
    queue: Arc<Queue>,
    sandbox: Arc<Sandbox>,
    ledger: Arc<Ledger>,
    threads: AtomicUsize,
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

    /// A listener that hands what it takes to `queue`. `any_path` and overlapping invocations are Managed Instances' ways.
    #[must_use]
    pub fn new(port: u16, filter: Filter, managed_instances: bool, queue: Arc<Queue>, sandbox: Arc<Sandbox>, ledger: Arc<Ledger>) -> Listener {
        Listener {
            port,
            path: format!("/{}{}", random::hex16(), random::hex16()),
            any_path: managed_instances,
            intake: Mutex::new(Intake::new(filter, managed_instances)),
            queue,
            sandbox,
            ledger,
            threads: AtomicUsize::new(0),
        }
    }

    /// Where Lambda is to post. The path is a secret: nobody else in the sandbox can put events in.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("http://sandbox.localdomain:{}{}", self.port, self.path)
    }

    /// Serves the bound socket from now on.
    ///
    /// # Errors
    /// If no thread can be started or the socket cannot be duplicated.
    pub fn start(self: &Arc<Self>, socket: TcpListener) -> IoResult<()> {
        let spare = socket.try_clone()?;
        let listener = Arc::clone(self);
        panic::rescue_accept(move || listener.accept_again(&spare));
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
        log::warn!("accept", "the telemetry listener could not accept a connection (too many open files?) and tries again");
        loop {
            // As many as a new server and its first connections need, before it is started.
            let enough: IoResult<Vec<TcpListener>> = (0..8).map(|_| socket.try_clone()).collect();
            let started = enough.and_then(|_| self.serve_on(socket.try_clone()?, socket.try_clone()?));
            if started.is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ships what was held back for a continuation that never came. To be called when no further POST is expected.
    pub fn finish(&self) {
        // Not if a thread that panicked has the lock: it never gives it back, and SHUTDOWN does not wait.
        let mut intake = match self.intake.try_lock() {
            Ok(intake) => intake,
            Err(_) if panic::happened() => return,
            Err(_) => self.lock(),
        };
        let taken = intake.finish(epoch_ms(SystemTime::now()));
        self.hand_over(taken);
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
        if *request.method() != Method::Post || !(self.any_path || request.url() == self.path) {
            self.ledger.refused_posts.add(1);
            return answer(request, 404);
        }
        let declared = request.body_length().unwrap_or(0);
        if declared > MAX_BODY {
            self.ledger.refused_posts.add(1);
            log::error!("body", "a telemetry POST of {declared} bytes is refused; at most {MAX_BODY} are taken");
            return answer(request, 413);
        }
        let (mut body, events) = self.queue.buffers(declared + SIDE_ROOM);
        let read = read_body(request.as_reader(), declared, &mut body);
        if body.len() > MAX_BODY {
            self.ledger.refused_posts.add(1);
            log::error!("body", "a telemetry POST of more than {MAX_BODY} bytes is refused");
            return answer(request, 413);
        }
        if read.is_err() || (declared > 0 && body.len() < declared) {
            // Cut off on the way: Lambda was not told 200 and sends it again.
            return answer(request, 400);
        }
        // The lock is taken before the answer: the next POST, which comes after the answer, cannot overtake this one.
        let mut intake = self.lock();
        answer(request, 200);
        panic::switch("listener");
        // Main may know of an invocation before its `platform.start` has come.
        self.sandbox.each_invocation(|request_id| intake.invoked(request_id));
        let taken = intake.take_with(body, events, epoch_ms(SystemTime::now()));
        self.hand_over(taken);
    }

    fn hand_over(&self, taken: ParsedBody) {
        self.ledger.unparsed.add(taken.unparsed);
        self.ledger.excluded.add(taken.excluded);
        let marks = taken.signals.into_iter().filter_map(|signal| self.mark(signal)).collect();
        self.queue.push(taken.batch, marks, epoch_ms(SystemTime::now()));
    }

    fn mark(&self, signal: Signal) -> Option<Mark> {
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
                Some(Mark::Started(request_id))
            }
            Signal::RuntimeDone { request_id, at, .. } => Some(Mark::Done { request_id, at }),
            Signal::Report { request_id } => Some(Mark::Reported(request_id)),
            Signal::InitReport => Some(Mark::InitReported),
            Signal::LogsDropped { records, bytes } => {
                self.ledger.platform_dropped_records.add(records);
                self.ledger.platform_dropped_bytes.add(bytes);
                log::warn!("logs-dropped", "Lambda dropped {records} log records ({bytes} bytes) before they reached the extension");
                Some(Mark::Gap)
            }
            Signal::Damaged => Some(Mark::Gap),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

/// A client that hung up is nobody's problem here.
fn answer(request: Request, status: u16) {
    let _ = request.respond(Response::empty(status));
}

fn named(work: impl FnOnce() + Send + 'static) -> IoResult<()> {
    thread::Builder::new().name("listener".to_owned()).spawn(work).map(drop)
}
