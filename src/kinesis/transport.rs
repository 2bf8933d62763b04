//! One connection to one host: opened, read and written with an absolute deadline, and given up at
//! once when another thread interrupts.
//!
//! ureq's own time-outs do not hold what a deadline promises: the one for connecting starts anew
//! with each read of a proxy's answer to CONNECT, so a proxy that sends a byte now and then holds a
//! call for ever; and the host's name is looked up for each request, pooled connection or not. So
//! ureq's are off, and every wait of this file ends after [`SLICE`] to look at the clock and at the
//! interrupt.
//!
//! An answer that is there wins over a time that has passed: the request was taken, and would be
//! sent again. In a freeze, or where others have the CPU, the clock runs on and nobody reads.
//!
//! Owns sockets and tunnels, and puts TLS over them; knows nothing of requests, and pools nothing
//! but one connection that was made ready ahead of its use. Runs on the dispatcher's thread; only
//! looking up a name and connecting, which no time-out of the system covers as a whole, run on a
//! thread of their own, which ends by itself when nobody waits for it any more.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, Either, NextTimeout, Transport,
};

use super::buffers::SmallBuffers;
use super::interrupt::InterruptHandle;
use super::tls::Tls;
use crate::mailbox::Mailbox;

/// No wait is longer without a look at the clock and at the interrupt.
const SLICE: Duration = Duration::from_millis(50);
/// When time is up, what has come by then is read. Right after a freeze the system itself has only
/// begun to take it. Not behind a wait that has just ended: that has looked, and an invocation may be
/// held for this one, whose time-out the system may let pass 8 ms too late.
const LAST_LOOK: Duration = Duration::from_millis(5);
/// So many looks are an answer for 500 records, and some.
const LAST_LOOKS: usize = 10;
/// A connection that was not used for so long is closed rather than used: a load balancer or a NAT
/// may have forgotten it unnoticed. Counted by the clock that counts more, since a frozen
/// sandbox may have only one that runs on.
const MAX_IDLE: Duration = Duration::from_secs(20);
/// A name's lookup needs little more than the packets' size.
const OPENING_STACK: usize = 256 * 1024;

/// Why this file ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Time is up, and the name was not found yet.
    Resolving,
    /// Time is up, and there is no connection yet.
    Connecting,
    /// Time is up.
    Deadline,
    /// Another thread wanted it.
    Interrupted,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Cut {}

impl From<Cut> for ureq::Error {
    fn from(cut: Cut) -> ureq::Error {
        ureq::Error::Other(Box::new(cut))
    }
}

/// Makes connections to one host, directly or through a proxy. A clone is a second handle to the
/// same.
#[derive(Clone, Debug)]
pub(super) struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    proxied: bool,
    tunnel: ConnectProxyConnector,
    tls: Tls,
    interrupts: InterruptHandle,
    state: Mutex<State>,
}

/// What is known of the exchange in progress, and of the connection.
#[derive(Debug)]
struct State {
    /// Counts exchanges, so that a connection knows whether it was made for this one.
    exchange: u64,
    /// Of the exchange in progress.
    deadline: Instant,
    /// A connection from before the exchange is given up when nothing has moved over it for so
    /// long, unless an answer has begun to come.
    patience: Duration,
    /// When something of the request was last taken.
    moved: Instant,
    /// An answer has begun to come.
    answered: bool,
    /// How often more of it is still read after time is up.
    last_looks: usize,
    /// The other side hung up before it had the whole request.
    cut_short: bool,
    /// The exchange for which a connection was last asked for.
    opened: u64,
    /// Connections from before that exchange are not used any more.
    usable_from: u64,
    last_use: (Instant, SystemTime),
    socket: Weak<TcpStream>,
    /// A connection that was made ready ahead of its use.
    ready: Option<Box<dyn Transport>>,
    /// What has come over a connection is kept for TLS, instead of being taken for a sign that
    /// something is wrong.
    keeps_input: bool,
}

impl Connections {
    /// Opens nothing yet. `proxied`: the agent has a proxy.
    pub(super) fn new(proxied: bool, tls: Tls, interrupts: InterruptHandle) -> Connections {
        let now = Instant::now();
        let state = State {
            exchange: 0,
            deadline: now,
            patience: Duration::ZERO,
            moved: now,
            answered: false,
            last_looks: 0,
            cut_short: false,
            opened: 0,
            usable_from: 0,
            last_use: (now, SystemTime::now()),
            socket: Weak::new(),
            ready: None,
            keeps_input: false,
        };
        Connections(Arc::new(Shared {
            proxied,
            tunnel: ConnectProxyConnector::default(),
            tls,
            interrupts,
            state: Mutex::new(state),
        }))
    }

    /// An exchange begins, which is over at `deadline`; a connection from before it is given up
    /// when nothing has moved over it for so long.
    pub(super) fn begin(&self, deadline: Instant, patience: Duration) {
        let mut state = self.state();
        state.exchange += 1;
        state.deadline = deadline;
        state.patience = patience;
        state.moved = Instant::now();
        state.answered = false;
        state.last_looks = LAST_LOOKS;
        state.cut_short = false;
    }

    /// The exchange is over, and its connection may be used again.
    pub(super) fn end(&self) {
        self.state().last_use = (Instant::now(), SystemTime::now());
    }

    /// Whether the exchange has used a connection that was there before, and no byte of an answer
    /// has come over it.
    pub(super) fn reused_in_vain(&self) -> bool {
        let state = self.state();
        state.opened < state.exchange && !state.answered
    }

    /// Whether the other side hung up before it had the whole request: it can have stored nothing
    /// of it.
    pub(super) fn is_cut_short(&self) -> bool {
        self.state().cut_short
    }

    /// Lets go of the connection, without a word to the other side.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.usable_from = state.exchange + 1;
        state.ready = None;
    }

    /// The same, if it was idle for longer than that.
    pub(super) fn close_idle(&self, idle: Duration) {
        if self.state().idle(Instant::now(), SystemTime::now()) >= idle {
            self.close();
        }
    }

    /// Whether there is a connection that is alive, made ready or used before.
    pub(super) fn is_ready(&self) -> bool {
        if let Some(ready) = self.take_ready() {
            self.state().ready = Some(ready);
            return true;
        }
        let state = self.state();
        state.is_usable(state.opened)
            && state.socket.upgrade().is_some_and(|socket| is_alive(&socket))
    }

    /// Opens a connection ahead of its use, unless there is one that is alive.
    pub(super) fn prepare(
        &self,
        agent: &ureq::Agent,
        url: &Uri,
        deadline: Instant,
    ) -> Result<(), ureq::Error> {
        if self.is_ready() {
            return Ok(());
        }
        // An old one that was idle for too long would look as if it had been used just now.
        self.close();
        self.begin(deadline, Duration::MAX);
        let (now, myself) = (ureq::unversioned::transport::time::Instant::now(), self.clone());
        let details = ConnectionDetails {
            uri: url,
            addrs: NoLookup.empty(),
            config: agent.config(),
            request_level: false,
            resolver: &NoLookup,
            now,
            timeout: NextTimeout::default(),
            current_time: Arc::new(ureq::unversioned::transport::time::Instant::now),
            run_connector: Arc::new(move |details| {
                myself.connect(details, None)?.ok_or(ureq::Error::ConnectionFailed)
            }),
            register_shutdown: Arc::new(|_| Ok(())),
        };
        let ready = self.connect(&details, None)?;
        self.state().ready = ready;
        self.end();
        Ok(())
    }

    /// The connection that was made ready, if there is one and it is alive.
    fn take_ready(&self) -> Option<Box<dyn Transport>> {
        let mut ready = self.state().ready.take()?;
        // With TLS 1.3 the server's tickets come after the handshake, and nobody has read them yet.
        self.state().keeps_input = ready.is_tls();
        let alive = ready.is_open();
        self.state().keeps_input = false;
        alive.then_some(ready)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long to wait now: a slice, or what is left.
    fn slice(&self, opened: u64, late: Cut) -> Result<Duration, Cut> {
        if self.0.interrupts.is_interrupted() {
            return Err(Cut::Interrupted);
        }
        let left = self.state().left(opened, Instant::now());
        // Zero would mean "for ever" to a socket.
        if left < Duration::from_millis(1) { Err(late) } else { Ok(left.min(SLICE)) }
    }

    /// A TCP connection to the host of `uri`, which is the proxy's where there is one.
    fn open(&self, uri: &Uri) -> Result<Socket, ureq::Error> {
        let port =
            uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let host =
            uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let (exchange, deadline) = {
            let mut state = self.state();
            state.opened = state.exchange;
            (state.exchange, state.deadline)
        };
        let found = Arc::new(AtomicBool::new(false));
        let opened = Arc::new(Mailbox::default());
        let work = {
            let (found, opened) = (Arc::clone(&found), Arc::clone(&opened));
            move || opened.put(connect(&host, port, deadline, &found))
        };
        thread::Builder::new().name("connect".to_owned()).stack_size(OPENING_STACK).spawn(work)?;
        let stream = loop {
            let late = if found.load(Ordering::Acquire) { Cut::Connecting } else { Cut::Resolving };
            if let Some(result) = opened.take(Instant::now() + self.slice(exchange, late)?) {
                break result?;
            }
        };
        stream.set_nodelay(true)?;
        let stream = Arc::new(stream);
        self.state().socket = Arc::downgrade(&stream);
        Ok(self.socket(stream, exchange))
    }

    fn socket(&self, stream: Arc<TcpStream>, opened: u64) -> Socket {
        Socket {
            connections: self.clone(),
            stream,
            opened,
            buffers: SmallBuffers::new(),
            time_outs: [Duration::ZERO; 2],
            hung_up: None,
        }
    }
}

impl State {
    fn left(&self, opened: u64, now: Instant) -> Duration {
        let left = self.deadline.saturating_duration_since(now);
        if opened == self.exchange || self.answered {
            return left;
        }
        left.min(self.patience.saturating_sub(now.saturating_duration_since(self.moved)))
    }

    /// Whether a connection of that exchange was used lately enough, by both clocks.
    fn is_usable(&self, opened: u64) -> bool {
        self.is_usable_at(opened, Instant::now(), SystemTime::now())
    }

    fn is_usable_at(&self, opened: u64, now: Instant, wall: SystemTime) -> bool {
        opened >= self.usable_from && self.idle(now, wall) < MAX_IDLE
    }

    /// By the clock that counts more.
    fn idle(&self, now: Instant, wall: SystemTime) -> Duration {
        let by_the_wall =
            wall.duration_since(self.last_use.1).unwrap_or_else(|backwards| backwards.duration());
        now.saturating_duration_since(self.last_use.0).max(by_the_wall)
    }
}

/// Tries the host's addresses in turn; each gets its share of the time left.
fn connect(
    host: &str,
    port: u16,
    deadline: Instant,
    found: &AtomicBool,
) -> Result<TcpStream, ureq::Error> {
    let addresses: Vec<_> =
        (host, port).to_socket_addrs().map_err(|_| ureq::Error::HostNotFound)?.collect();
    found.store(true, Ordering::Release);
    let mut last = ureq::Error::HostNotFound;
    for (index, address) in addresses.iter().enumerate() {
        let shares = u32::try_from(addresses.len() - index).unwrap_or(1);
        let share = deadline.saturating_duration_since(Instant::now()) / shares;
        match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::TimedOut => last = Cut::Connecting.into(),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// Whether the other side has neither closed the connection nor sent anything that nobody asked
/// for.
fn is_alive(stream: &TcpStream) -> bool {
    let looked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    let quiet = matches!(&looked, Err(error) if error.kind() == ErrorKind::WouldBlock);
    quiet && stream.set_nonblocking(false).is_ok()
}

impl Connector for Connections {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Box<dyn Transport>>, ureq::Error> {
        // Opening a tunnel comes back here for the proxy itself, with a configuration that has no
        // proxy.
        let is_target = !self.0.proxied || details.config.proxy().is_some();
        if is_target && let Some(ready) = self.take_ready() {
            return Ok(Some(ready));
        }
        let transport: Box<dyn Transport> = match self.0.tunnel.connect(details, None::<()>)? {
            Some(Either::B(tunnel)) => tunnel,
            _ => Box::new(self.open(details.uri)?),
        };
        if details.needs_tls() {
            return Ok(Some(Box::new(self.0.tls.connect(details, transport)?)));
        }
        Ok(Some(transport))
    }
}

/// Looks nothing up: names are looked up when a connection is opened.
#[derive(Debug)]
pub(super) struct NoLookup;

impl Resolver for NoLookup {
    fn resolve(
        &self,
        _: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}

struct Socket {
    connections: Connections,
    stream: Arc<TcpStream>,
    /// The exchange for which it was opened.
    opened: u64,
    buffers: SmallBuffers,
    /// Those of reading and of writing that the socket has now, so that they are only set when they
    /// change.
    time_outs: [Duration; 2],
    /// What writing has failed with, once the other side hung up.
    hung_up: Option<io::Error>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Socket")
    }
}

/// The time-out of a socket has passed, or a signal came: look at the clock, and go on.
fn is_only_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// The other side takes no more.
fn is_hang_up(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let mut written = 0;
        // Who refuses a request may say so and hang up before all of it has come. The rest of it is
        // not sent then, and the answer is read.
        while written < amount && self.hung_up.is_none() {
            let slice = self.connections.slice(self.opened, Cut::Deadline)?;
            let [_, time_out] = &mut self.time_outs;
            if std::mem::replace(time_out, slice) != slice {
                self.stream.set_write_timeout(Some(slice))?;
            }
            let output = self.buffers.output().get(written..amount).unwrap_or_default();
            match (&*self.stream).write(output) {
                Ok(0) => return Err(io::Error::from(ErrorKind::WriteZero).into()),
                Ok(more) => {
                    written += more;
                    self.connections.state().moved = Instant::now();
                }
                Err(error) if is_only_late(&error) => {}
                Err(error) if is_hang_up(&error) => {
                    self.connections.state().cut_short = true;
                    self.hung_up = Some(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.buffers.written(amount);
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let mut looked_since: Option<Instant> = None;
        loop {
            let slice = self.connections.slice(self.opened, Cut::Deadline);
            let wait = match slice {
                // In a freeze it is longer ago.
                Err(cut)
                    if self.connections.state().last_looks == 0
                        || looked_since.is_some_and(|begun| begun.elapsed() < 2 * SLICE) =>
                {
                    return Err(cut.into());
                }
                Err(_) => LAST_LOOK,
                Ok(slice) => slice,
            };
            let [time_out, _] = &mut self.time_outs;
            if std::mem::replace(time_out, wait) != wait {
                self.stream.set_read_timeout(Some(wait))?;
            }
            let free = self.buffers.input_append_buf();
            let (room, begun) = (free.len(), Instant::now());
            match (&*self.stream).read(free) {
                Ok(amount @ 1..) => {
                    self.buffers.input_appended(amount);
                    let mut state = self.connections.state();
                    if std::mem::replace(&mut state.answered, true) && slice.is_err() {
                        // Where there was room for more, that was all, and more comes too late.
                        let more = amount == room;
                        state.last_looks = if more { state.last_looks - 1 } else { 0 };
                    }
                    return Ok(true);
                }
                Err(error) if is_only_late(&error) => {
                    slice?;
                    looked_since = Some(begun);
                }
                end => {
                    let end = self.hung_up.take().map_or(end, Err);
                    return Ok(end.map(|_| false)?);
                }
            }
        }
    }

    fn is_open(&mut self) -> bool {
        let (usable, keeps_input) = {
            let state = self.connections.state();
            (state.is_usable(self.opened), state.keeps_input)
        };
        usable && if keeps_input { self.keep_input() } else { is_alive(&self.stream) }
    }
}

impl Socket {
    /// Reads what is there. Says whether the other side has not closed the connection.
    fn keep_input(&mut self) -> bool {
        if self.stream.set_nonblocking(true).is_err() {
            return false;
        }
        // What comes while this reads is no sign of a fault either, so nothing looks once more.
        let alive = loop {
            let free = self.buffers.input_append_buf();
            if free.is_empty() {
                break true;
            }
            match (&*self.stream).read(free) {
                Ok(amount @ 1..) => self.buffers.input_appended(amount),
                end => break end.is_err_and(|error| is_only_late(&error)),
            }
        };
        alive && self.stream.set_nonblocking(false).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_too_old_by_either_clock() {
        let connections = Connections::new(false, Tls::new(None), InterruptHandle::default());
        connections.end();
        let state = connections.state();
        let (now, wall) = state.last_use;
        let (short, long) = (MAX_IDLE / 2, MAX_IDLE);
        assert!(state.is_usable_at(0, now + short, wall + short));
        assert!(!state.is_usable_at(0, now + long, wall + short));
        assert!(!state.is_usable_at(0, now + short, wall + long));
        assert!(!state.is_usable_at(0, now + short, wall - long), "set back");
        drop(state);
        connections.close();
        assert!(!connections.state().is_usable_at(0, now, wall));
    }

    /// A server's session tickets came in two pieces, the second behind the first look: the
    /// connection that had just been made ready was opened once more.
    #[test]
    fn tickets_that_come_while_they_are_read_end_no_connection() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let (mut server, _) = listener.accept().unwrap();
        let mut socket = Connections::new(false, Tls::new(None), InterruptHandle::default())
            .socket(Arc::clone(&stream), 0);
        socket.connections.state().keeps_input = true;
        let writer = thread::spawn(move || {
            (0..1000).for_each(|_| server.write_all(&[0; 8]).unwrap());
            server
        });
        while socket.buffers.input().len() < 8000 {
            assert!(socket.is_open());
        }
        drop(writer.join().unwrap());
        assert!(!socket.is_open(), "closed");
    }

    /// What the other side has sent is here.
    fn send(server: &mut TcpStream, client: &TcpStream, amount: usize) {
        server.write_all(&vec![b'x'; amount]).unwrap();
        let mut buffer = vec![0; amount];
        while client.peek(&mut buffer).unwrap() < amount {}
    }

    /// The clock was looked at before the socket: an answer that was there was given up, and the
    /// request sent again.
    #[test]
    fn what_is_there_when_time_is_up_is_read_and_what_comes_later_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let now = Instant::now();
        for (deadline, late) in [(now, Cut::Deadline), (now + MAX_IDLE, Cut::Interrupted)] {
            let stream = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            let (mut server, _) = listener.accept().unwrap();
            let interrupts = InterruptHandle::default();
            interrupts.begin();
            if late == Cut::Interrupted {
                interrupts.interrupt(interrupts.generation());
            }
            let connections = Connections::new(false, Tls::new(None), interrupts);
            let mut socket = connections.socket(Arc::clone(&stream), 0);
            let room = socket.buffers.input_append_buf().len();
            let mut read = || match socket.await_input(NextTimeout::default()) {
                Ok(true) => {
                    let amount = socket.buffers.input().len();
                    socket.buffers.input_consume(amount);
                    Ok(amount)
                }
                Err(ureq::Error::Other(cut)) => Err(*cut.downcast::<Cut>().unwrap()),
                other => panic!("{other:?}"),
            };
            connections.begin(deadline, Duration::MAX);
            assert_eq!(read(), Err(late), "nothing is there");
            send(&mut server, &stream, room + 10);
            assert_eq!([read(), read()], [Ok(room), Ok(10)], "it is all read");
            send(&mut server, &stream, 10);
            assert_eq!(read(), Err(late));
            connections.begin(deadline, Duration::MAX);
            assert_eq!(read(), Ok(10), "it is for the next exchange");
            // Who never stops is not listened to for ever.
            connections.begin(deadline, Duration::MAX);
            let writer = thread::spawn(move || while server.write_all(&[0; 1000]).is_ok() {});
            let all = std::iter::repeat_with(read).take_while(Result::is_ok);
            assert!((2..=1 + LAST_LOOKS).contains(&all.count()));
            drop((socket, stream));
            writer.join().unwrap();
        }
    }

    /// Whoever was held for a Kinesis that did not answer was held for one more look.
    #[test]
    fn who_has_just_looked_does_not_look_again_when_time_is_up() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let connections = Connections::new(false, Tls::new(None), InterruptHandle::default());
        connections.0.interrupts.begin();
        let mut socket = connections.socket(stream, 0);
        // A busy machine may be late, which is as if there had been a freeze.
        let mut waits = std::iter::repeat_with(|| {
            connections.begin(Instant::now() + SLICE / 2, Duration::MAX);
            assert!(socket.await_input(NextTimeout::default()).is_err());
            socket.time_outs[0]
        });
        assert!(waits.by_ref().take(100).any(|wait| wait != LAST_LOOK));
    }

    #[test]
    fn a_reused_connection_has_less_time_until_it_answers() {
        let connections = Connections::new(false, Tls::new(None), InterruptHandle::default());
        let now = Instant::now();
        connections.begin(now + Duration::from_secs(3), Duration::from_secs(1));
        let mut state = connections.state();
        state.moved = now;
        assert_eq!(state.left(0, now), Duration::from_secs(1));
        assert_eq!(state.left(1, now), Duration::from_secs(3), "opened for this exchange");
        let now = now + Duration::from_millis(2500);
        assert_eq!(state.left(0, now), Duration::ZERO);
        state.moved = now;
        assert_eq!(state.left(0, now), Duration::from_millis(500), "it takes the request");
        let now = now + Duration::from_millis(100);
        state.moved = now - Duration::from_secs(1);
        assert_eq!(state.left(0, now), Duration::ZERO);
        state.answered = true;
        assert_eq!(state.left(0, now), Duration::from_millis(400));
    }
}
