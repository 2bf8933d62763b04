//! Reads one body and hands its events on: an ordinary one at once, a larger one window by window,
//! so that what it takes is bounded whatever it holds.
//!
//! Runs on the listener's threads. It never waits for room in the queue. It waits a moment for the
//! room to read a body at once (`reading_room`), and then does with small windows, for which there
//! is room at each connection: no client that holds the room keeps others out.

use std::io::{ErrorKind, Read, Result as IoResult};
use std::time::Duration;

use super::connections::{Connection, Stream};
use super::handover::Handover;
use super::http::Request;
use super::parsed_body::{Behind, Part};
use super::reading_room::{InTime, MAX_WHOLE, Room};
use crate::dispatch::admission::Reservation;

/// Lambda's bodies have 2 x `maxBytes` and some; one larger than this is not taken.
pub(super) const MAX_BODY: usize = 8 * 1024 * 1024;
/// So much of a larger body is read before the events in it are handed on: what it takes is bounded
/// by this, whatever it holds.
const WINDOW: usize = 256 * 1024;
/// A body, or a window, up to this size needs no room: of these there is one for each connection.
const SMALL: usize = 64 * 1024;
/// Room that a longer event takes while it is read, in its bytes: it may have to be written anew.
const COST_OF_LONG: usize = 2;
/// Room behind a body for the ids that its events share, so that it need not be moved for them.
const SIDE_ROOM: usize = 256;
/// How long a body waits for room before it does with small windows, and how long an event that is
/// longer than those waits before its body is given up.
const BODY_PATIENCE: Duration = Duration::from_millis(50);
const EVENT_PATIENCE: Duration = Duration::from_secs(30);

/// Why a body, or the rest of one, was not taken.
pub(super) enum NotTaken {
    /// It is over [`MAX_BODY`]; so much of it was read.
    TooLarge(usize),
    /// It ended too early, or stalled while others waited.
    CutOff,
    /// SHUTDOWN has looked into the queue for the last time.
    Closed,
}

/// Reads a body of that length, if it says one, and hands its events on. If it is cut off behind
/// its first window, Lambda's second try brings some events again.
pub(super) fn read_and_take(
    handover: &Handover,
    room: &Room,
    request: &mut Request<'_, Stream<'_>>,
    length: Option<usize>,
    connection: &Connection,
) -> Result<(), NotTaken> {
    // A window may grow to that before it needs room in the queue.
    let most = length.map_or(MAX_WHOLE, |length| length.min(MAX_WHOLE));
    let mut taken = if most > SMALL { room.take(most, connection, BODY_PATIENCE) } else { None };
    let mut window = if taken.is_some() || most <= SMALL { WINDOW } else { SMALL };
    let is_whole = |length: &usize| *length <= MAX_WHOLE && window == WINDOW;
    let mut size = length.filter(is_whole).unwrap_or(window);
    let admission = &handover.admission;
    let (mut body, mut events) = admission.buffers(length.map_or(0, |_| size) + SIDE_ROOM);
    let (mut have, mut have_read) = (0, 0);
    let mut part = Part { is_first: true, behind: Behind::RestOfBody };
    // For an event that is longer.
    let mut long: Reservation = None;
    loop {
        let begun = have;
        let mut reader = InTime { reader: &mut *request, taken: taken.as_ref() };
        have = read_window(&mut reader, &mut body, begun, size).map_err(|_| NotTaken::CutOff)?;
        have_read += have - begun;
        if have_read > MAX_BODY {
            return Err(NotTaken::TooLarge(have_read));
        }
        if request.is_read() {
            part.behind = Behind::NextBody;
            if have < size / 2 {
                body.shrink_to(have + SIDE_ROOM);
            }
        } else if have < size {
            return Err(NotTaken::CutOff);
        }
        let rest = handover.take(body, events, part).ok_or(NotTaken::Closed)?;
        have = rest.bytes.len();
        (body, events) = (rest.bytes, Vec::new());
        if body.is_empty() && request.is_read() {
            return Ok(());
        }
        if !rest.is_stuck {
            part = Part { is_first: false, behind: Behind::RestOfBody };
            size = window.max(have);
            long = long.filter(|_| size > MAX_WHOLE);
        } else if part.behind == Behind::RestOfBody {
            if taken.is_none() {
                let whole = room.take(MAX_WHOLE, connection, EVENT_PATIENCE);
                taken = Some(whole.ok_or(NotTaken::CutOff)?);
                window = WINDOW;
            }
            let most = if have < MAX_WHOLE { MAX_WHOLE } else { 2 * have };
            size = most.min(have + MAX_BODY + 1 - have_read);
            drop(long.take());
            if size > MAX_WHOLE {
                long = admission.reserve_bytes(COST_OF_LONG * size);
                if long.is_none() {
                    (size, part.behind) = (have, Behind::NoRoom);
                }
            }
        }
    }
}

/// Reads on behind the first `have` bytes of a buffer that may be used already, up to `size` or the
/// body's end. Comes back with how many bytes there are then.
fn read_window(
    reader: &mut dyn Read,
    body: &mut Vec<u8>,
    mut have: usize,
    size: usize,
) -> IoResult<usize> {
    if body.capacity() < size {
        // The system gives it filled with zeros, and its pages only as they are used: a client may
        // declare more than it sends.
        let begun = std::mem::replace(body, vec![0; size + SIDE_ROOM]);
        for (place, byte) in body.iter_mut().zip(begun.iter().take(have)) {
            *place = *byte;
        }
    }
    body.resize(size, 0);
    while let Some(rest) = body.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    body.truncate(have);
    Ok(have)
}
