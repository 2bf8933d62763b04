//! The telemetry listener: takes Lambda's POSTs, hands the events on, and then answers 200.
//!
//! Each connection has a thread, which reads its requests one after the other. What a neighbour in
//! the sandbox can take is bounded: connections and their threads (`connections`), the head of a
//! request (`http`), the bytes of the bodies that are being read (`reading`, `reading_room`), and
//! what is read of a body that is not wanted.
//!
//! - Reading has no time-out, for Lambda keeps a connection between invocations: a client that
//!   stalls costs its thread, and its connection gives way when others come.
//! - `tiny_http` writes the answers. Its server cannot be bounded from outside: see `Cargo.toml`.
//!
//! Runs on threads named `listener`.

use std::io::{ErrorKind, Read, Result as IoResult, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tiny_http::{HTTPVersion, Header, Response};

use super::Settings;
use super::connections::{Connection, Connections, MAX_THREADS, Stream};
use super::destination::Destination;
use super::handover::Handover;
use super::http::{NoRequest, Request, RequestReader};
use super::reading::{MAX_BODY, NotTaken, read_and_take};
use super::reading_room::Room;
use crate::dispatch::admission::Admission;
use crate::ledger::Ledger;
use crate::log;
use crate::random;
use crate::sandbox::Sandbox;

/// At most so much is read of a body that is not taken, so that the client sees the answer. Lambda
/// posts nothing that is larger.
const MAX_UNREAD: usize = 64 * 1024 * 1024;
/// Names the boot of the machine, which is the sandbox: the same for each of its processes.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The listener closes a connection when it has refused so many of its requests: each costs more
/// here than where it comes from, and Lambda makes none.
const MAX_REFUSED: u32 = 16;
/// The pause after a connection could not be accepted, or no thread could be started.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// So many threads may wait for the next connection, so that not each one starts a thread. Others
/// end.
const MAX_IDLE: usize = 3;

/// What the listener's threads share.
#[derive(Debug)]
pub struct Listener {
    port: u16,
    destination: Destination,
    handover: Handover,
    ledger: Arc<Ledger>,
    connections: Connections,
    room: Room,
}

/// The bound socket, how many threads there are for it, and how many of them wait for a connection.
struct Port {
    socket: TcpListener,
    threads: AtomicUsize,
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
        let random = || format!("{}{}", random::hex16(), random::hex16());
        let destination =
            Destination::new(boot_id.as_deref(), &function, random, managed_instances);
        let handover =
            Handover::new(settings, managed_instances, admission, sandbox, Arc::clone(&ledger));
        Listener {
            port: settings.port,
            destination,
            handover,
            ledger,
            connections: Connections::default(),
            room: Room::default(),
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

    /// An invocation was held for a `platform.runtimeDone` that did not come by its deadline. Waits
    /// for nothing.
    pub fn waited_in_vain(&self) {
        if self.destination.waited_in_vain() {
            log::warn!(
                "any-path",
                "platform.runtimeDone did not come, and POSTs to another path than Lambda \
                 was given were refused; from now on any path is taken"
            );
        }
        self.handover.give_up_ends();
    }

    /// The sandbox may end at any moment: what waits for a choice is handed over now. Waits for
    /// nothing.
    pub fn hand_over_undecided(&self) {
        self.handover.give_up_ends();
    }

    /// From now on no POST is answered 200. When this returns, the events of those that were are in
    /// the channel, or counted as lost.
    pub fn close(&self, until: Instant) {
        self.handover.close(until);
    }

    /// Serves the bound socket from now on.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(self: &Arc<Self>, socket: TcpListener) -> IoResult<()> {
        if self.handover.has_ages() {
            let listener = Arc::clone(self);
            spawn(move || listener.handover.watch_ages())?;
        }
        let (threads, idle) = Default::default();
        self.start_thread(&Arc::new(Port { socket, threads, idle }))
    }

    /// Starts another thread, unless there are as many as there may be: then one of them is free
    /// soon.
    fn start_thread(self: &Arc<Self>, port: &Arc<Port>) -> IoResult<()> {
        let more = |threads: usize| (threads < MAX_THREADS).then_some(threads + 1);
        if port.threads.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
            return Ok(());
        }
        // It counts as idle from now on, for those that are free meanwhile.
        port.idle.fetch_add(1, Ordering::AcqRel);
        let (listener, serving) = (Arc::clone(self), Arc::clone(port));
        let started = spawn(move || listener.serve(&serving));
        if started.is_err() {
            port.idle.fetch_sub(1, Ordering::AcqRel);
            port.threads.fetch_sub(1, Ordering::AcqRel);
        }
        started
    }

    /// One thread's life: wait for a connection, see to it that another thread waits for the next,
    /// then serve it.
    fn serve(self: &Arc<Self>, port: &Arc<Port>) {
        loop {
            let accepted = port.socket.accept();
            let was_idle = port.idle.fetch_sub(1, Ordering::AcqRel);
            let mut is_needed = true;
            match accepted {
                Ok((socket, _)) => {
                    let connection = self.connections.enter(socket, &|| self.room.wake());
                    if was_idle == 1 && self.start_thread(port).is_err() {
                        self.free_a_thread(port, &connection);
                    }
                    self.serve_connection(&connection);
                    self.connections.leave(&connection);
                    // A connection that was cut gave way to another one, which needs a thread.
                    is_needed = connection.is_cut();
                }
                Err(_) => {
                    log::warn!(
                        "accept",
                        "the telemetry listener could not accept a connection \
                         (too many open files?) and tries again"
                    );
                    self.connections.cut_one(&|| self.room.wake());
                    thread::sleep(ACCEPT_RETRY);
                }
            }
            // A thread that ends never counts as idle, or others might leave the next to it.
            let more = |idle: usize| (is_needed || idle < MAX_IDLE).then_some(idle + 1);
            if port.idle.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
                port.threads.fetch_sub(1, Ordering::AcqRel);
                break;
            }
        }
    }

    /// No thread can be started: another connection is cut, and its thread waits for the next one.
    /// If there is no other, this one is not served at all.
    fn free_a_thread(&self, port: &Port, connection: &Arc<Connection>) {
        // Perhaps a thread is free by then.
        thread::sleep(ACCEPT_RETRY);
        if port.idle.load(Ordering::Acquire) == 0
            && !self.connections.cut_other(connection, &|| self.room.wake())
        {
            let _ = connection.cut();
        }
    }

    /// The requests of one connection, until it ends, or would have to be read on for too long.
    fn serve_connection(&self, connection: &Connection) {
        let mut reader = RequestReader::new(connection.stream());
        let mut refused = 0;
        while !connection.is_cut() {
            let goes_on = match reader.next() {
                Ok(request) if self.is_from_lambda(&request) => {
                    let goes_on = self.handle(connection, request);
                    self.connections.is_answered(connection, &|| self.room.wake());
                    goes_on
                }
                Ok(request) => {
                    refused += 1;
                    discard(request, 0, 404, refused < MAX_REFUSED)
                }
                Err(NoRequest::Ended) => false,
                Err(NoRequest::Refused(status)) => {
                    self.ledger.refused_posts.add(1);
                    write_answer(connection.stream(), status, false)
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Whether it is a POST to the right path. Others are counted.
    fn is_from_lambda(&self, request: &Request<'_, Stream<'_>>) -> bool {
        let is_from_lambda = request.is_post && self.destination.admits(&request.target);
        if !is_from_lambda {
            self.ledger.refused_posts.add(1);
            log::warn!(
                "refused",
                "a request that is no POST to the path that Lambda was given is refused (HTTP 404)"
            );
        }
        is_from_lambda
    }

    /// Takes a POST of Lambda's and answers it. Returns whether the connection can go on.
    fn handle(&self, connection: &Connection, mut request: Request<'_, Stream<'_>>) -> bool {
        self.connections.is_known(connection);
        // A length that no number holds is too large as well.
        let length = request.body_length().map(|all| usize::try_from(all).unwrap_or(usize::MAX));
        if length.is_some_and(|length| length > MAX_BODY) {
            return self.too_large(request, 0);
        }
        match read_and_take(&self.handover, &self.room, &mut request, length, connection) {
            Ok(()) => {
                let goes_on = request.keeps_alive;
                answer(&mut request, 200, goes_on)
            }
            Err(NotTaken::TooLarge(have_read)) => self.too_large(request, have_read),
            Err(NotTaken::Closed) => {
                let goes_on = request.is_read() && request.keeps_alive;
                answer(&mut request, 503, goes_on)
            }
            // Lambda got no 200 and sends it again.
            Err(NotTaken::CutOff) => answer(&mut request, 400, false),
        }
    }

    /// Lambda might post a batch that was refused again and again, and nothing behind it: so it
    /// gets 200, and the loss is counted.
    fn too_large(&self, request: Request<'_, Stream<'_>>, have_read: usize) -> bool {
        self.ledger.refused_posts.add(1);
        let from = if have_read > 0 { " from there on" } else { "" };
        log::error!("body", "a telemetry POST of more than {MAX_BODY} bytes is dropped{from}");
        self.handover.gap();
        discard(request, have_read, if self.handover.is_closed() { 503 } else { 200 }, true)
    }
}

/// Answers a request whose body is not wanted, of which `have_read` bytes were read. Returns
/// whether the connection can go on, if it may.
fn discard(
    mut request: Request<'_, Stream<'_>>,
    have_read: usize,
    status: u16,
    may_go_on: bool,
) -> bool {
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
    let goes_on = may_go_on && request.is_read() && request.keeps_alive;
    answer(&mut request, status, goes_on)
}

fn answer(request: &mut Request<'_, Stream<'_>>, status: u16, goes_on: bool) -> bool {
    write_answer(request.stream(), status, goes_on)
}

/// Writes an answer in one piece. Returns whether the connection goes on: not if the client has
/// gone, or does not read.
fn write_answer(mut stream: Stream<'_>, status: u16, goes_on: bool) -> bool {
    let mut response = Response::empty(status);
    if !goes_on && let Ok(header) = Header::from_bytes("Connection", "close") {
        response.add_header(header);
    }
    let mut bytes = Vec::with_capacity(256);
    let written = response.raw_print(&mut bytes, HTTPVersion(1, 1), &[], false, None);
    written.and_then(|()| stream.write_all(&bytes)).is_ok() && goes_on
}

/// A thread of the listener.
fn spawn(work: impl FnOnce() + Send + 'static) -> IoResult<()> {
    thread::Builder::new().name("listener".to_owned()).spawn(work).map(drop)
}
