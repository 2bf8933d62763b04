//! The connections to the listener: which there are, and which one gives way when there are too
//! many. Shared by the listener's threads.
//!
//! A connection that was cut counts no more, but its thread does until it has left it: threads are
//! what is bounded. For the next connection to be accepted soon, a thread whose connection was cut
//! waits for nothing more: not for the client, nor for room to read a body. It may wait for the
//! intake's lock, which nobody has for long.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Lambda has one or two.
const MAX_OPEN: usize = 32;
/// Threads that serve them, or wait for one: some may not have left yet when their connection was
/// cut. While all of them have one nothing is accepted.
pub(super) const MAX_THREADS: usize = MAX_OPEN + 8;

/// What a connection is read from and written to.
pub(super) type Stream<'c> = &'c TcpStream;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    socket: TcpStream,
    /// The number of its last request for the right path; 0: there was none.
    last_request: AtomicU64,
    is_cut: AtomicBool,
}

impl Connection {
    fn new(socket: TcpStream) -> Connection {
        Connection { socket, last_request: AtomicU64::new(0), is_cut: AtomicBool::new(false) }
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

    /// Ends it, also for the thread that reads from it or writes to it.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Whoever serves it is to leave it, and to wait for nothing more.
    #[must_use]
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
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
    pub(super) fn enter(&self, socket: TcpStream, wake: impl Fn()) -> Arc<Connection> {
        let connection = Arc::new(Connection::new(socket));
        let mut open = self.lock();
        let gives_way = if open.len() >= MAX_OPEN { remove_one(&mut open) } else { None };
        open.push(Arc::clone(&connection));
        drop(open);
        cut(gives_way, wake);
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

    /// Cuts one, if there is one at all: there is no file descriptor for another.
    pub(super) fn cut_one(&self, wake: impl Fn()) {
        let gives_way = remove_one(&mut self.lock());
        cut(gives_way, wake);
    }

    /// Cuts another one than this. Says whether there is one: then its thread is free soon.
    pub(super) fn cut_other(&self, than: &Arc<Connection>, wake: impl Fn()) -> bool {
        let mut open = self.lock();
        open.retain(|one| !Arc::ptr_eq(one, than));
        let gives_way = remove_one(&mut open);
        open.push(Arc::clone(than));
        drop(open);
        let is_there = gives_way.is_some();
        cut(gives_way, wake);
        is_there
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one to give way: the oldest that never asked for the right path, else the one whose last
/// request is the longest ago.
fn remove_one(open: &mut Vec<Arc<Connection>>) -> Option<Arc<Connection>> {
    let last_request =
        |(_, one): &(usize, &Arc<Connection>)| one.last_request.load(Ordering::Acquire);
    let (at, _) = open.iter().enumerate().min_by_key(last_request)?;
    Some(open.remove(at))
}

fn cut(connection: Option<Arc<Connection>>, wake: impl Fn()) {
    if let Some(connection) = connection {
        connection.cut();
        wake();
    }
}
