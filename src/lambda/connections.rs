//! The connections to the listener: which there are, and which one gives way when there are too
//! many. Shared by the listener's threads.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Lambda has one or two. Each has a thread.
const MAX_CONNECTIONS: usize = 64;

/// What a connection is read from and written to.
pub(super) type Stream<'c> = &'c TcpStream;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    socket: TcpStream,
    known: AtomicBool,
}

impl Connection {
    /// To be read from and written to.
    #[must_use]
    pub(super) fn stream(&self) -> Stream<'_> {
        &self.socket
    }

    /// Whoever is at its other end knows the path.
    pub(super) fn is_known(&self) {
        self.known.store(true, Ordering::Release);
    }

    /// A read fails when nothing comes for so long.
    pub(super) fn limit_stalls(&self, limit: Option<Duration>) {
        let _ = self.socket.set_read_timeout(limit);
    }

    /// Ends it, also for the thread that reads from it.
    pub(super) fn cut(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// All of them, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<Vec<Arc<Connection>>>);

impl Connections {
    /// A new one. Where there are too many, an older one is cut for it.
    pub(super) fn enter(&self, socket: TcpStream) -> Arc<Connection> {
        let connection = Arc::new(Connection { socket, known: AtomicBool::new(false) });
        let mut all = self.lock();
        if all.len() >= MAX_CONNECTIONS {
            cut_oldest(&mut all);
        }
        all.push(Arc::clone(&connection));
        connection
    }

    /// It has ended.
    pub(super) fn leave(&self, connection: &Arc<Connection>) {
        self.lock().retain(|other| !Arc::ptr_eq(other, connection));
    }

    /// Makes room, if there is one at all: first by a connection that never asked for the right
    /// path.
    pub(super) fn cut_oldest(&self) {
        cut_oldest(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cut_oldest(all: &mut Vec<Arc<Connection>>) {
    let stranger = all.iter().position(|connection| !connection.known.load(Ordering::Acquire));
    if !all.is_empty() {
        all.remove(stranger.unwrap_or(0)).cut();
    }
}
