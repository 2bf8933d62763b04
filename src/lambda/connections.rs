//! The connections to the listener: which there are, and which one gives way when there are too
//! many. Shared by the listener's threads.
//!
//! A connection that was cut counts no more, but its thread does until it has left it: threads are
//! what is bounded. For the next connection to be accepted soon, a thread whose connection was cut
//! waits for nothing more: not for the client, nor for room to read a body. It may wait for the
//! intake's lock, which nobody has for long.
//!
//! A request that was read whole is answered, whatever comes: its connection gives way to none until
//! then, or Lambda would post again what was taken.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Lambda has one or two.
const MAX_OPEN: usize = 32;
/// Threads that serve them, or wait for one: some may not have left yet when their connection was
/// cut. While all of them have one nothing is accepted.
pub(super) const MAX_THREADS: usize = MAX_OPEN + 8;
/// Of as many as there may be, so many of the newest do not give way for having asked for nothing
/// yet: they may be about to. Where fewer have to do, there is a pause before one gives way.
const NEW: usize = 8;
/// How long an answer may wait for a client that does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// What may become of a connection: it is cut, or what it has asked is answered.
const OPEN: u8 = 0;
const ANSWERED: u8 = 1;
const CUT: u8 = 2;

/// What a connection is read from and written to.
pub(super) type Stream<'c> = &'c TcpStream;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    socket: TcpStream,
    /// The number of its last request for the right path; 0: there was none.
    last_request: AtomicU64,
    /// One of the above.
    state: AtomicU8,
}

impl Connection {
    fn new(socket: TcpStream) -> Connection {
        let _ = socket.set_write_timeout(Some(WRITE_TIMEOUT));
        Connection { socket, last_request: AtomicU64::new(0), state: AtomicU8::new(OPEN) }
    }

    /// To be read from and written to.
    #[must_use]
    pub(super) fn stream(&self) -> Stream<'_> {
        &self.socket
    }

    /// A read fails when nothing comes for so long.
    pub(super) fn limit_stalls(&self, limit: Option<Duration>) {
        let _ = self.socket.set_read_timeout(limit);
    }

    /// Ends it, also for the thread that reads from it or writes to it. Says whether it did: not
    /// while it is answered.
    pub(super) fn cut(&self) -> bool {
        let is_cut = self.turn(OPEN, CUT);
        if is_cut {
            let _ = self.socket.shutdown(Shutdown::Both);
        }
        is_cut
    }

    /// Whoever serves it is to leave it, and to wait for nothing more.
    #[must_use]
    pub(super) fn is_cut(&self) -> bool {
        self.is_in(CUT)
    }

    fn is_in(&self, state: u8) -> bool {
        self.state.load(Ordering::Acquire) == state
    }

    /// A request was read whole. Says whether it is to be answered: then the connection is not cut
    /// until [`Connections::is_answered`].
    #[must_use]
    pub(super) fn is_read(&self) -> bool {
        self.turn(OPEN, ANSWERED) || !self.is_cut()
    }

    /// Says whether it was in the first state, and is in the other one now.
    fn turn(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// Those that were not cut, the oldest first.
    open: Mutex<Vec<Arc<Connection>>>,
    /// For the right path, on all of them.
    requests: AtomicU64,
}

impl Connections {
    /// A new one. Where there are too many, another one is cut for it; `wake` then wakes the
    /// threads that wait for something else than their connection.
    pub(super) fn enter(&self, socket: TcpStream, wake: &dyn Fn()) -> Arc<Connection> {
        let connection = Arc::new(Connection::new(socket));
        self.lock().push(Arc::clone(&connection));
        self.bound(MAX_OPEN, Some(&connection), wake);
        connection
    }

    /// Its thread has left it.
    pub(super) fn leave(&self, connection: &Arc<Connection>) {
        self.lock().retain(|other| !Arc::ptr_eq(other, connection));
    }

    /// It has asked for the right path.
    pub(super) fn is_known(&self, connection: &Connection) {
        let number = self.requests.fetch_add(1, Ordering::AcqRel) + 1;
        connection.last_request.store(number, Ordering::Release);
    }

    /// It may be cut again. While none could be, more may have come than there may be: then one
    /// gives way now, or no thread might ever be free for the next connection.
    pub(super) fn is_answered(&self, connection: &Connection, wake: &dyn Fn()) {
        connection.turn(ANSWERED, OPEN);
        self.bound(MAX_OPEN, None, wake);
    }

    /// Cuts one, if there is one at all: there is no file descriptor for another.
    pub(super) fn cut_one(&self, wake: &dyn Fn()) {
        self.bound(0, None, wake);
    }

    /// Cuts another one than this. Says whether there is one: then its thread is free soon.
    pub(super) fn cut_other(&self, than: &Arc<Connection>, wake: &dyn Fn()) -> bool {
        self.bound(0, Some(than), wake)
    }

    /// Cuts one where there are more than so many, but not that one. Says whether it did.
    fn bound(&self, most: usize, spared: Option<&Arc<Connection>>, wake: &dyn Fn()) -> bool {
        let mut open = self.lock();
        let was_cut = open.len() > most && cut_one(&mut open, spared);
        drop(open);
        if was_cut {
            wake();
        }
        was_cut
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cuts the one that is to give way: the oldest that never asked for the right path, but for the
/// newest; else the one whose last request is the longest ago. Says whether there was one.
fn cut_one(open: &mut Vec<Arc<Connection>>, spared: Option<&Arc<Connection>>) -> bool {
    let newest = open.len().max(MAX_OPEN) - NEW;
    let order = |(at, one): (usize, &Arc<Connection>)| {
        let is_spared = spared.is_some_and(|spared| Arc::ptr_eq(one, spared));
        let last_request = match one.last_request.load(Ordering::Acquire) {
            0 if at >= newest => u64::MAX,
            last_request => last_request,
        };
        (!is_spared && one.is_in(OPEN)).then_some((last_request, at))
    };
    while let Some((_, at)) = open.iter().enumerate().filter_map(order).min() {
        // It may be answered from now on, and is none of those then.
        if open.get(at).is_some_and(|one| one.cut()) {
            open.remove(at);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// As many as there may be, the first `known` of which have asked for the right path.
    fn all_open(known: usize) -> (Connections, Vec<Arc<Connection>>, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connections = Connections::default();
        let entered: Vec<_> = (0..MAX_OPEN).map(|_| enter(&connections, &listener)).collect();
        for connection in entered.iter().take(known) {
            connections.is_known(connection);
        }
        (connections, entered, listener)
    }

    fn enter(connections: &Connections, listener: &TcpListener) -> Arc<Connection> {
        connections.enter(TcpStream::connect(listener.local_addr().unwrap()).unwrap(), &|| {})
    }

    fn cut(entered: &[Arc<Connection>]) -> Vec<usize> {
        (0..entered.len()).filter(|at| entered[*at].is_cut()).collect()
    }

    #[test]
    fn who_never_asked_gives_way_and_then_who_asked_the_longest_ago() {
        let (connections, entered, listener) = all_open(2);
        connections.is_known(&entered[0]);
        let newer: Vec<_> = (0..MAX_OPEN).map(|_| enter(&connections, &listener)).collect();
        assert_eq!(cut(&entered), (2..MAX_OPEN).collect::<Vec<_>>());
        assert_eq!(cut(&newer), [0, 1]);
        for connection in &newer[2..] {
            connections.is_known(connection);
        }
        let _newest = enter(&connections, &listener);
        assert_eq!(cut(&entered), (1..MAX_OPEN).collect::<Vec<_>>());
    }

    /// Lambda's, whose request had not been read yet, was the only one that had asked for nothing.
    #[test]
    fn the_newest_do_not_give_way_before_they_could_ask() {
        let (connections, entered, listener) = all_open(MAX_OPEN);
        let newer: Vec<_> = (0..NEW).map(|_| enter(&connections, &listener)).collect();
        assert_eq!(cut(&entered), (0..NEW).collect::<Vec<_>>());
        assert!(cut(&newer).is_empty());
    }

    /// Lambda posted again what had been taken: its events were there twice.
    #[test]
    fn who_is_answered_does_not_give_way() {
        let (connections, entered, listener) = all_open(0);
        assert!(entered[0].is_read());
        let _newer = enter(&connections, &listener);
        assert_eq!(cut(&entered), [1]);
        assert!(!entered[1].is_read(), "what is cut is not taken");
        for connection in &entered[2..] {
            assert!(connection.is_read());
        }
        connections.cut_one(&|| {});
        connections.cut_one(&|| panic!("there is none to be cut"));
        connections.is_answered(&entered[0], &|| panic!("there are not too many"));
        connections.cut_one(&|| {});
        assert_eq!(cut(&entered), [0, 1]);
    }

    /// No connection was accepted any more, as long as they all stayed open.
    #[test]
    fn connections_beyond_as_many_as_there_may_be_give_way_once_others_are_answered() {
        let (connections, entered, listener) = all_open(MAX_OPEN);
        assert!(entered.iter().all(|connection| connection.is_read()));
        let mut newer = Vec::new();
        for _ in 0..NEW {
            newer.push(enter(&connections, &listener));
            assert!(newer.iter().all(|connection| connection.is_read()));
        }
        for connection in &entered {
            connections.is_answered(connection, &|| {});
        }
        assert_eq!(cut(&entered).len() + cut(&newer).len(), NEW);
    }

    /// Lambda's gave way to neighbours where there were no threads, or no files, for more than a
    /// few.
    #[test]
    fn where_fewer_have_to_do_who_never_asked_gives_way_as_well() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connections = Connections::default();
        let entered: Vec<_> = (0..NEW).map(|_| enter(&connections, &listener)).collect();
        connections.is_known(&entered[0]);
        connections.cut_one(&|| {});
        assert!(connections.cut_other(&entered[2], &|| {}));
        assert_eq!(cut(&entered), [1, 3]);
    }
}
