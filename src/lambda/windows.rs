//! How much of a body is read before the events in it are handed on. This bounds the memory that a
//! body takes, whatever it holds. Pure.
//!
//! A window begins with the bytes that the one before has left. It grows if a single event is
//! longer: first up to a size that any body may have, and then as long as the queue has room.

/// Bytes that are read anew behind damage, for each byte of a body: see [`Part::reads`]. A record
/// that Lambda cut needs two or three.
pub const READS_PER_BYTE: usize = 8;

/// Beside these, in each body: what ends near the end of a window is read again in the next one,
/// however short both are.
pub const READS_BESIDE: usize = 1024 * 1024;

/// How a part of a body begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// As the body itself.
    Body,
    /// At an element, or at the comma before it.
    Element,
    /// With the pieces of a cut record.
    Cut,
    /// In an element that was given up: it is damaged up to the next event in Lambda's own
    /// spelling.
    Damage,
}

/// What follows the bytes at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// The rest of their body: an event that is not whole yet is left for it.
    RestOfBody,
    /// The rest of their body, for which there is no room before half of them has been read: an
    /// event that is not whole there is given up.
    NoRoom,
    /// The next body, which may continue a cut record.
    NextBody,
    /// Nothing.
    Nothing,
}

impl Behind {
    /// More of the same body.
    pub(super) fn is_same_body(self) -> bool {
        matches!(self, Behind::RestOfBody | Behind::NoRoom)
    }
}

/// Which part of a body the bytes at hand are.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// See there.
    pub begins: Begins,
    /// See there.
    pub behind: Behind,
    /// So many bytes may be read anew behind damage, before an event is no longer looked for behind
    /// the next event's beginning: then no byte is read twice. All parts of a body share what that
    /// has, so that its time is bounded by its length, however many parts there are.
    pub reads: usize,
}

impl Part {
    /// One of so many bytes that is all there is.
    #[must_use]
    pub fn alone(begins: Begins, behind: Behind, bytes: usize) -> Part {
        Part { begins, behind, reads: bytes.saturating_mul(READS_PER_BYTE) }
    }
}

/// The bytes that a part leaves. The next part begins with them.
#[derive(Debug)]
pub struct Rest {
    /// Empty if all of it was read.
    pub bytes: Vec<u8>,
    /// How the next part begins.
    pub begins: Begins,
    /// Nothing was read: the next part needs more bytes, or [`Behind::NoRoom`].
    pub is_stuck: bool,
    /// So many bytes were read behind damage.
    pub reads: usize,
}

/// The bounds, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Of an ordinary window.
    pub window: usize,
    /// Of a window without a place in the reading room.
    pub small: usize,
    /// Of a body that is read as a whole, and of a window that needs no room in the queue.
    pub whole: usize,
    /// Of a body that is taken.
    pub body: usize,
}

/// One body being read, window by window.
#[derive(Debug)]
pub struct Windows {
    sizes: Sizes,
    /// Of a window that no event is longer than.
    window: usize,
    /// Of the body, or more than it may have.
    length: usize,
    /// Of the window at hand.
    size: usize,
    /// Bytes at hand.
    have: usize,
    /// Bytes of the body that were read so far.
    read: usize,
    begins: Begins,
    has_room: bool,
    /// Bytes that were read behind damage so far.
    reads: usize,
}

impl Windows {
    /// Of a body of that length, where that is known.
    #[must_use]
    pub fn new(sizes: Sizes, length: Option<usize>) -> Windows {
        Windows {
            sizes,
            window: sizes.window,
            // One byte more than is allowed tells that there are more.
            length: length.unwrap_or(sizes.body + 1),
            size: length.filter(|length| *length <= sizes.whole).unwrap_or(sizes.window),
            have: 0,
            read: 0,
            begins: Begins::Body,
            has_room: true,
            reads: 0,
        }
    }

    /// There is no place in the reading room for it: until there is, its windows are small.
    #[must_use]
    pub fn without_place(mut self) -> Windows {
        self.window = self.sizes.small;
        self.size = self.size.min(self.window);
        self
    }

    /// There is a place for it now.
    pub fn placed(&mut self) {
        self.window = self.sizes.window;
    }

    /// Bytes to have before the next part is taken, unless the body ends before.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many of them the part before has left.
    #[must_use]
    pub fn have(&self) -> usize {
        self.have
    }

    /// Bytes of the body that were read so far.
    #[must_use]
    pub fn read(&self) -> usize {
        self.read
    }

    /// No more of the body is read: the bytes at hand are the last ones.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        self.read > self.sizes.body
    }

    /// The part that `have` bytes are. `is_last`: the body ends with them.
    pub fn part(&mut self, have: usize, is_last: bool) -> Part {
        self.read += have - self.have;
        self.have = have;
        let behind = if self.is_too_large() {
            Behind::Nothing
        } else if is_last {
            Behind::NextBody
        } else if self.has_room {
            Behind::RestOfBody
        } else {
            Behind::NoRoom
        };
        let most = self.read.saturating_mul(READS_PER_BYTE).saturating_add(READS_BESIDE);
        let reads = most.saturating_sub(self.reads);
        Part { begins: self.begins, behind, reads }
    }

    /// The part was read, but for `rest`. `has_room` says whether the queue has room for a window
    /// of so many bytes, and is called only if one is needed.
    pub fn go_on(&mut self, rest: &Rest, has_room: impl FnOnce(usize) -> bool) {
        self.have = rest.bytes.len();
        self.begins = rest.begins;
        self.reads = self.reads.saturating_add(rest.reads);
        self.has_room = true;
        if self.is_too_large() {
            self.size = self.have;
            return;
        }
        if !rest.is_stuck {
            self.size = self.window.max(self.have);
            return;
        }
        let wanted = if self.have < self.sizes.whole { self.sizes.whole } else { 2 * self.have };
        let unread = self.length.saturating_sub(self.read);
        let size = wanted.min(self.have + unread);
        self.has_room = size <= self.sizes.whole || has_room(size);
        self.size = if self.has_room { size } else { self.have };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { window: 100, small: 50, whole: 400, body: 3000 };

    fn rest(length: usize, is_stuck: bool) -> Rest {
        Rest { bytes: vec![0; length], begins: Begins::Element, is_stuck, reads: 1000 }
    }

    #[test]
    fn a_window_grows_for_an_event_that_is_longer_and_shrinks_behind_it() {
        let mut windows = Windows::new(SIZES, None);
        assert_eq!((windows.size(), windows.have()), (100, 0));
        let part = windows.part(100, false);
        assert_eq!((part.begins, part.behind), (Begins::Body, Behind::RestOfBody));
        windows.go_on(&rest(100, true), |_| false);
        assert_eq!(windows.size(), 400, "needs no room");
        windows.part(400, false);
        windows.go_on(&rest(400, true), |size| size == 800);
        assert_eq!(windows.size(), 800);
        windows.part(800, false);
        windows.go_on(&rest(800, true), |size| size != 1600);
        assert_eq!(windows.size(), 800);
        let part = windows.part(800, false);
        assert_eq!((part.begins, part.behind), (Begins::Element, Behind::NoRoom));
        windows.go_on(&rest(70, false), |_| false);
        assert_eq!((windows.size(), windows.have(), windows.read()), (100, 70, 800));
        assert_eq!(windows.part(90, true).behind, Behind::NextBody);
    }

    #[test]
    fn the_parts_of_a_body_share_what_may_be_read_anew() {
        let mut windows = Windows::new(SIZES, None);
        let most = |read: usize| read * READS_PER_BYTE + READS_BESIDE;
        assert_eq!(windows.part(100, false).reads, most(100));
        windows.go_on(&rest(100, true), |_| false);
        assert_eq!(windows.part(400, false).reads, most(400) - 1000);
        for _ in 0..READS_BESIDE / 1000 + 4 {
            windows.go_on(&rest(400, true), |_| false);
        }
        assert_eq!(windows.part(400, false).reads, 0);
    }

    #[test]
    fn a_window_is_no_longer_than_its_body() {
        let mut windows = Windows::new(SIZES, Some(950));
        for size in [100, 400, 800, 950] {
            assert_eq!(windows.size(), size);
            windows.part(size, size == 950);
            windows.go_on(&rest(size, true), |room| room <= 950);
        }
    }

    #[test]
    fn windows_are_small_until_there_is_a_place() {
        let mut windows = Windows::new(SIZES, Some(400)).without_place();
        assert_eq!(windows.size(), 50, "though the body is read as a whole elsewhere");
        windows.part(50, false);
        windows.go_on(&rest(10, false), |_| false);
        assert_eq!(windows.size(), 50);
        windows.part(50, false);
        windows.placed();
        windows.go_on(&rest(50, true), |_| false);
        assert_eq!(windows.size(), 360, "the rest of the body");
        windows.part(90, false);
        windows.go_on(&rest(10, false), |_| false);
        assert_eq!(windows.size(), 100);
    }

    #[test]
    fn a_body_is_read_as_a_whole_or_up_to_its_bound() {
        assert_eq!(Windows::new(SIZES, Some(400)).size(), 400);
        assert_eq!(Windows::new(SIZES, Some(401)).size(), 100);
        let mut windows = Windows::new(SIZES, None);
        for size in [100, 400, 800, 1600, 3001] {
            assert_eq!(windows.size(), size);
            let part = windows.part(size, false);
            let is_too_large = size > SIZES.body;
            assert_eq!(part.behind == Behind::Nothing, is_too_large, "{size}");
            windows.go_on(&rest(size, !is_too_large), |_| true);
        }
    }
}
