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
use super::reading_room::{COST_OF_LONG, InTime, MAX_WHOLE, Patience, Room};
use super::windows::{Behind, Sizes, Windows};

/// Lambda's bodies have 2 x `maxBytes` and some; one larger than this is not taken.
pub(super) const MAX_BODY: usize = 8 * 1024 * 1024;
/// A body, or a window, up to this size needs no place in the room: of these there is one for each
/// connection.
const SMALL: usize = 16 * 1024;
/// How much of a body is read before the events in it are handed on.
const SIZES: Sizes = Sizes { window: 256 * 1024, small: SMALL, whole: MAX_WHOLE, body: MAX_BODY };
/// Room behind a body for the ids that its events share, so that it need not be moved for them.
const SIDE_ROOM: usize = 256;
/// How long a body waits for room before it does with small windows, and how long an event that is
/// longer than those waits before its body is given up.
const BODY_PATIENCE: Patience = Patience::Optional(Duration::from_millis(50));
const EVENT_PATIENCE: Patience = Patience::Needed(Duration::from_secs(30));

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
    let mut windows = Windows::new(SIZES, length);
    if taken.is_none() && most > SMALL {
        windows = windows.without_place();
    }
    let admission = &handover.admission;
    let first = length.map_or(0, |_| windows.size());
    // The charge is that of used buffers at first, and then grows for an event that is longer.
    let (mut body, mut events, mut charge) = admission.buffers(first + SIDE_ROOM);
    loop {
        let mut reader = InTime { reader: &mut *request, taken: taken.as_ref() };
        let have = read_window(&mut reader, &mut body, windows.have(), windows.size())
            .map_err(|_| NotTaken::CutOff)?;
        let is_last = request.is_read();
        if is_last && have < windows.size() / 2 {
            body.shrink_to(have + SIDE_ROOM);
        } else if !is_last && have < windows.size() {
            return Err(NotTaken::CutOff);
        }
        if is_last && !connection.is_read() {
            return Err(NotTaken::CutOff);
        }
        let part = windows.part(have, is_last);
        let rest = handover.take(body, events, part, &mut charge).ok_or(NotTaken::Closed)?;
        if rest.bytes.is_empty() && windows.is_too_large() {
            return Err(NotTaken::TooLarge(windows.read()));
        }
        if rest.bytes.is_empty() && is_last {
            return Ok(());
        }
        if rest.is_stuck && part.behind == Behind::RestOfBody && taken.is_none() {
            let whole = room.take(MAX_WHOLE, connection, EVENT_PATIENCE);
            taken = Some(whole.ok_or(NotTaken::CutOff)?);
            windows.placed();
        }
        windows.go_on(&rest, |size| admission.grow(&mut charge, COST_OF_LONG * size));
        (body, events) = (rest.bytes, Vec::new());
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
