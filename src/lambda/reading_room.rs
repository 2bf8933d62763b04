//! Bounds what the listener's threads hold of the bodies that they read at the same time. Blocks
//! them, but none whose connection was cut.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Result as IoResult};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
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
/// How often a read looks whether somebody waits.
const STALL: Duration = Duration::from_millis(250);
/// For a larger body that somebody waits for who cannot do without: Lambda sends from next door.
const URGENT: Limits = Limits { stalls: 1, reading: Duration::from_secs(1) };
/// For one that others had to do without, and could: Lambda's own may be sent on a busy machine, and
/// would be cut for nobody.
const LENIENT: Limits = Limits { stalls: 8, reading: Duration::from_secs(10) };

/// How long the client of a larger body may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    /// So many times [`STALL`] without a byte.
    stalls: u32,
    /// In all.
    reading: Duration,
}

/// How long somebody waits for room.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// And does without it then.
    Optional(Duration),
    /// And cannot do without it: who has the room has less time.
    Needed(Duration),
}

/// Reads what others may wait for: it fails when nothing comes then, or it takes too long.
pub(super) struct InTime<'r, 't> {
    pub(super) reader: &'r mut dyn Read,
    pub(super) taken: Option<&'t Taken<'t>>,
}

impl Read for InTime<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        let Some(taken) = self.taken else { return self.reader.read(buffer) };
        loop {
            if taken.limits().is_some_and(|limits| taken.reading.get() > limits.reading) {
                return Err(ErrorKind::TimedOut.into());
            }
            let begun = Instant::now();
            let read = self.reader.read(buffer);
            taken.reading.set(taken.reading.get() + begun.elapsed());
            match read {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let stalls = taken.stalls.get().saturating_add(1);
                    taken.stalls.set(stalls);
                    if taken.limits().is_some_and(|limits| stalls >= limits.stalls) {
                        return Err(error);
                    }
                }
                read => {
                    taken.stalls.set(0);
                    return read;
                }
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
    /// Those that wait now and cannot do without.
    needed: AtomicUsize,
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
    /// Reads since the last byte that have waited for [`STALL`].
    stalls: Cell<u32>,
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
        patience: Patience,
    ) -> Option<Taken<'r>> {
        let mut state = self.lock();
        if !state.line.is_empty() || !state.fits(bytes) {
            let (longest, needed) = match patience {
                Patience::Optional(longest) => (longest, 0),
                Patience::Needed(longest) => (longest, 1),
            };
            let until = Instant::now() + longest;
            let number = self.waits.fetch_add(1, Ordering::AcqRel) + 1;
            self.needed.fetch_add(needed, Ordering::AcqRel);
            state.line.push_back(number);
            while state.line.front() != Some(&number) || !state.fits(bytes) {
                let left = until.saturating_duration_since(Instant::now());
                if connection.is_cut() || left.is_zero() {
                    state.line.retain(|other| *other != number);
                    self.needed.fetch_sub(needed, Ordering::AcqRel);
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
            self.needed.fetch_sub(needed, Ordering::AcqRel);
        }
        state.taken += bytes;
        let mut waits = Some(self.waits.load(Ordering::Acquire));
        if !state.line.is_empty() {
            waits = None;
            drop(state);
            self.wake();
        }
        connection.limit_stalls(Some(STALL));
        let (reading, stalls) = Default::default();
        Some(Taken { room: self, bytes, connection, reading, stalls, waits })
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
    /// For the client, for the sake of others; `None` where nobody has had to wait since it was
    /// taken.
    fn limits(&self) -> Option<Limits> {
        if self.room.needed.load(Ordering::Acquire) > 0 {
            return Some(URGENT);
        }
        let is_waited_for = self.waits != Some(self.room.waits.load(Ordering::Acquire));
        is_waited_for.then_some(LENIENT)
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
    const NEEDED: Patience = Patience::Needed(LONG);

    #[test]
    fn who_waits_gets_room_in_turn_and_leaves_when_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (connections, room) = (Connections::default(), Room::default());
        let served: Vec<_> = (0..4).map(|_| connections.enter(connect(), &|| {})).collect();
        let take = |one: usize, patience| room.take(MAX_WHOLE, &served[one], patience);
        let first = take(0, NEEDED).unwrap();
        let second = room.take(READ_AT_ONCE - MAX_WHOLE, &served[1], NEEDED).unwrap();
        let limits = |both: [&Taken<'_>; 2]| both.map(Taken::limits);
        assert_eq!(limits([&first, &second]), [None; 2]);
        for patience in [Patience::Optional, Patience::Needed] {
            assert!(take(2, patience(Duration::ZERO)).is_none(), "no room, and no patience");
            assert_eq!(limits([&first, &second]), [Some(LENIENT); 2]);
        }
        let waiting = |count: usize| {
            while room.lock().line.len() != count {
                thread::yield_now();
            }
        };
        thread::scope(|scope| {
            let third = scope.spawn(|| take(2, Patience::Optional(LONG)).is_some());
            waiting(1);
            assert_eq!(limits([&first, &second]), [Some(LENIENT); 2]);
            let fourth = scope.spawn(|| take(3, NEEDED).is_some());
            waiting(2);
            assert_eq!(limits([&first, &second]), [Some(URGENT); 2]);
            // The one in front leaves, and is in nobody's way.
            served[2].cut();
            room.wake();
            assert!(!third.join().unwrap());
            drop(first);
            assert!(fourth.join().unwrap());
        });
        assert_eq!(second.limits(), Some(LENIENT), "nobody waits any more");
        drop(second);
        let state = room.lock();
        assert_eq!((state.taken, state.line.len()), (0, 0));
    }
}
