//! Bounds what the listener's threads hold of the bodies that they read at the same time. Blocks
//! them.

use std::io::{ErrorKind, Read, Result as IoResult};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::connections::Connection;

/// A body up to this size is read whole, and so is the longest event that needs no room in the
/// queue meanwhile: more than a record of Kinesis has where nobody asked for larger ones.
pub(super) const MAX_WHOLE: usize = 1024 * 1024 + 64 * 1024;
/// Bytes of larger bodies that are read at the same time: two bodies, so that no single client that
/// stalls keeps the others waiting.
const READ_AT_ONCE: usize = 2 * MAX_WHOLE;
/// How long a larger body may stall, and how long it may take, when another one waits for it:
/// Lambda sends from next door.
const MAX_STALL: Duration = Duration::from_secs(2);
const MAX_READING: Duration = Duration::from_secs(10);

/// Reads a body. While others wait for its room, it fails if nothing comes, or if it takes too long.
pub(super) struct InTime<'r, 'p> {
    pub(super) reader: &'r mut dyn Read,
    pub(super) permit: Option<&'p Permit<'p>>,
}

impl Read for InTime<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        let Some(permit) = self.permit else { return self.reader.read(buffer) };
        loop {
            let waited_for = permit.room.waiting.load(Ordering::Acquire) > 0;
            if waited_for && permit.since.elapsed() > MAX_READING {
                return Err(ErrorKind::TimedOut.into());
            }
            match self.reader.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && !waited_for => {}
                read => return read,
            }
        }
    }
}

/// Bytes of large bodies that are being read or parsed: two of the largest at a time, or several
/// that are smaller. Guarantee 3 allows no more.
#[derive(Debug, Default)]
pub(super) struct ReadingRoom {
    taken: Mutex<usize>,
    freed: Condvar,
    waiting: AtomicUsize,
}

/// Some bytes of a [`ReadingRoom`], until it is dropped.
pub(super) struct Permit<'r> {
    room: &'r ReadingRoom,
    bytes: usize,
    connection: &'r Connection,
    since: Instant,
}

impl ReadingRoom {
    /// Waits for bodies that are being read, none of which then takes longer than [`MAX_READING`].
    pub(super) fn enter<'r>(&'r self, bytes: usize, connection: &'r Connection) -> Permit<'r> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let mut taken = self
            .freed
            .wait_while(taken, |taken| *taken > 0 && *taken + bytes > READ_AT_ONCE)
            .unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        *taken += bytes;
        connection.limit_stalls(Some(MAX_STALL));
        Permit { room: self, bytes, connection, since: Instant::now() }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.connection.limit_stalls(None);
        *self.room.taken.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.room.freed.notify_all();
    }
}
