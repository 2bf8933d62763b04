//! Bounds what the listener's threads hold of the bodies that they read at the same time. Blocks
//! them, but none whose connection was cut.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Result as IoResult};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::connections::Connection;

/// A body up to this size is read whole, and so is the longest event that needs no room in the
/// queue meanwhile: more than a record of Kinesis has where nobody asked for larger ones.
pub(super) const MAX_WHOLE: usize = 1024 * 1024 + 64 * 1024;
/// Room that a longer event takes while it is read, in its bytes: it may have to be written anew,
/// and its buffer is there half as large once more while it grows.
pub(super) const COST_OF_LONG: usize = 3;
/// Of larger bodies one is read at a time, and beside it some that are not so large. With another
/// one of the largest, what each leaves behind in the heap took several megabytes more. A client
/// that stalls keeps the others waiting no longer than the following says.
const READ_AT_ONCE: usize = MAX_WHOLE + 256 * 1024;
/// How long a larger body may stall, and for how long in all it may be waited for, when another one
/// has waited for it: Lambda sends from next door.
const MAX_STALL: Duration = Duration::from_millis(250);
const MAX_READING: Duration = Duration::from_secs(1);

/// Reads what others may wait for: it fails when nothing comes then, or it takes too long.
pub(super) struct InTime<'r, 't> {
    pub(super) reader: &'r mut dyn Read,
    pub(super) taken: Option<&'t Taken<'t>>,
}

impl Read for InTime<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        let Some(taken) = self.taken else { return self.reader.read(buffer) };
        loop {
            if taken.is_waited_for() && taken.reading.get() > MAX_READING {
                return Err(ErrorKind::TimedOut.into());
            }
            let begun = Instant::now();
            let read = self.reader.read(buffer);
            taken.reading.set(taken.reading.get() + begun.elapsed());
            match read {
                Err(error) if error.kind() == ErrorKind::WouldBlock && !taken.is_waited_for() => {}
                read => return read,
            }
        }
    }
}

/// Bytes of large bodies that are being read or parsed: one of the largest at a time, or several
/// that are smaller. Guarantee 3 allows for no more.
#[derive(Debug, Default)]
pub(super) struct Room {
    state: Mutex<State>,
    /// Some of it is free again, or somebody in the line has to look for another reason.
    changed: Condvar,
    /// Whoever had to wait, ever.
    waits: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    /// Those that wait, by number, in the order in which they came.
    line: VecDeque<u64>,
}

/// A part of a [`Room`], until it is dropped.
pub(super) struct Taken<'r> {
    room: &'r Room,
    bytes: usize,
    connection: &'r Connection,
    /// The time that reading has taken so far.
    reading: Cell<Duration>,
    /// How many had to wait before it was taken; `None` where somebody waited then.
    waits: Option<u64>,
}

impl Room {
    /// A part of it, once those before it have theirs; waits so long at the most. `None` then, and
    /// as soon as the connection is cut.
    pub(super) fn take<'r>(
        &'r self,
        bytes: usize,
        connection: &'r Connection,
        patience: Duration,
    ) -> Option<Taken<'r>> {
        let mut state = self.lock();
        if !state.line.is_empty() || !state.fits(bytes) {
            let until = Instant::now() + patience;
            let number = self.waits.fetch_add(1, Ordering::AcqRel) + 1;
            state.line.push_back(number);
            while state.line.front() != Some(&number) || !state.fits(bytes) {
                let left = until.saturating_duration_since(Instant::now());
                if connection.is_cut() || left.is_zero() {
                    state.line.retain(|other| *other != number);
                    drop(state);
                    self.wake();
                    return None;
                }
                state = self
                    .changed
                    .wait_timeout(state, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
            state.line.pop_front();
        }
        state.taken += bytes;
        let mut waits = Some(self.waits.load(Ordering::Acquire));
        if !state.line.is_empty() {
            waits = None;
            drop(state);
            self.wake();
        }
        connection.limit_stalls(Some(MAX_STALL));
        Some(Taken { room: self, bytes, connection, reading: Cell::default(), waits })
    }

    /// Lets everybody in the line look again.
    pub(super) fn wake(&self) {
        // Not between somebody's look and sleep.
        drop(self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fits(&self, bytes: usize) -> bool {
        self.taken == 0 || self.taken + bytes <= READ_AT_ONCE
    }
}

impl Taken<'_> {
    /// Somebody has had to wait since it was taken.
    fn is_waited_for(&self) -> bool {
        self.waits != Some(self.room.waits.load(Ordering::Acquire))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.connection.limit_stalls(None);
        let mut state = self.room.lock();
        state.taken -= self.bytes;
        let is_waited_for = !state.line.is_empty();
        drop(state);
        if is_waited_for {
            self.room.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::super::connections::Connections;
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn who_waits_gets_room_in_turn_and_leaves_when_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (connections, room) = (Connections::default(), Room::default());
        let served: Vec<_> = (0..4).map(|_| connections.enter(connect(), || {})).collect();
        let take = |one: usize, patience| room.take(MAX_WHOLE, &served[one], patience);
        let first = take(0, LONG).unwrap();
        let second = room.take(READ_AT_ONCE - MAX_WHOLE, &served[1], LONG).unwrap();
        assert!(!first.is_waited_for() && !second.is_waited_for());
        assert!(take(2, Duration::ZERO).is_none(), "there is no room, and no patience");
        assert!(first.is_waited_for() && second.is_waited_for(), "somebody had to wait");
        let waiting = |count: usize| {
            while room.lock().line.len() != count {
                thread::yield_now();
            }
        };
        thread::scope(|scope| {
            let third = scope.spawn(|| take(2, LONG).is_some());
            waiting(1);
            let fourth = scope.spawn(|| take(3, LONG).is_some());
            waiting(2);
            // The one in front leaves, and is in nobody's way.
            served[2].cut();
            room.wake();
            assert!(!third.join().unwrap());
            drop(first);
            assert!(fourth.join().unwrap());
        });
        drop(second);
        let state = room.lock();
        assert_eq!((state.taken, state.line.len()), (0, 0));
    }
}
