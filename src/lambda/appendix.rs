//! Bytes that an event needs and that are not in its body as they are needed. Pure.

use std::ops::Range;

use memchr::memchr2;

/// An appendix that is longer grows by little more than it needs.
const LONG: usize = 64 * 1024;

/// Events that were written anew, and ids. They end up behind the body.
pub(super) struct Appendix {
    base: usize,
    bytes: Vec<u8>,
}

impl Appendix {
    /// Behind a body of so many bytes.
    pub(super) fn new(base: usize) -> Appendix {
        Appendix { base, bytes: Vec::new() }
    }

    /// The length of that body.
    pub(super) fn base(&self) -> usize {
        self.base
    }

    /// How many bytes there are so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A long one does not double when it grows: it would be there three times while it moves.
    fn make_room(&mut self, more: usize) {
        let needed = self.bytes.len() + more;
        if needed > self.bytes.capacity() && needed > LONG {
            self.bytes.reserve_exact(more + needed / 8);
        }
    }

    /// Returns where the bytes will be.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Range<usize> {
        self.make_room(bytes.len());
        let start = self.base + self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..start + bytes.len()
    }

    /// Room for so many bytes, and where it will be.
    pub(super) fn room(&mut self, length: usize) -> (Range<usize>, &mut [u8]) {
        self.make_room(length);
        let start = self.bytes.len();
        self.bytes.resize(start + length, 0);
        let range = self.base + start..self.base + start + length;
        (range, self.bytes.get_mut(start..).unwrap_or_default())
    }

    /// Writes bytes as a JSON string of at most `max_bytes`. Returns where the string is, and how
    /// many of the bytes it holds.
    pub(super) fn put_as_text(&mut self, bytes: &[u8], max_bytes: usize) -> (Range<usize>, usize) {
        let mut length = 2;
        escape(bytes, max_bytes, |part| length += part.len());
        self.make_room(length);
        let start = self.put(b"\"").start;
        let taken = escape(bytes, max_bytes, |part| self.bytes.extend_from_slice(part));
        (start..self.put(b"\"").end, taken)
    }

    /// Moves what is there behind the body.
    pub(super) fn append_to(self, body: &mut Vec<u8>) {
        if !self.bytes.is_empty() {
            body.reserve_exact(self.bytes.len());
            body.extend_from_slice(&self.bytes);
        }
    }

    /// The bytes alone.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Replaces line ends by spaces: an event stays one line. In JSON they stand between tokens only.
pub(super) fn on_one_line(bytes: &mut [u8]) {
    let mut rest = bytes;
    while let Some(at) = memchr2(b'\n', b'\r', rest) {
        let (_, behind) = rest.split_at_mut(at);
        let Some((end, behind)) = behind.split_first_mut() else { return };
        *end = b' ';
        rest = behind;
    }
}

/// Hands on `bytes` as they stand inside a JSON string, part by part, with U+FFFD where they are no
/// UTF-8. Returns how many of them fit into `max_bytes` of text.
fn escape(bytes: &[u8], max_bytes: usize, mut emit: impl FnMut(&[u8])) -> usize {
    let digit = |n: u8| if n < 10 { b'0' + n } else { b'a' + n - 10 };
    let (mut room, mut taken) = (max_bytes, 0);
    // A part of the text, for so many bytes; `false` if it does not fit.
    let mut put = |part: &[u8], count: usize| {
        let fits = part.len() <= room;
        if fits {
            emit(part);
            (room, taken) = (room - part.len(), taken + count);
        } else if part.len() == count {
            // Plain text ends anywhere between two characters.
            let is_begin = |at: &usize| part.get(*at).is_some_and(|byte| byte & 0xc0 != 0x80);
            let end = (0..=room).rev().find(is_begin).unwrap_or(0);
            emit(part.get(..end).unwrap_or_default());
            (room, taken) = (room - end, taken + end);
        }
        fits
    };
    'text: for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20)) {
            let (plain, special) = rest.split_at(at);
            let (Some(&byte), Some(behind)) = (special.as_bytes().first(), special.get(1..)) else {
                break;
            };
            let short = match byte {
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                other => other,
            };
            let long = [b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)];
            let is_put = put(plain.as_bytes(), at)
                && if short < b' ' { put(&long, 1) } else { put(&[b'\\', short], 1) };
            if !is_put {
                break 'text;
            }
            rest = behind;
        }
        if !put(rest.as_bytes(), rest.len())
            || (!chunk.invalid().is_empty() && !put("\u{fffd}".as_bytes(), chunk.invalid().len()))
        {
            break;
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_holds_any_bytes_and_keeps_to_its_bound() {
        let source =
            b"plain \"quoted\" \\ \n\r\t\x00\x1f\x7f \xc3\xa9 \xff\xfe \xf0\x9f\x8e\x89 end";
        let expected = String::from_utf8_lossy(source);
        for max_bytes in 0..100 {
            let mut appendix = Appendix::new(1000);
            appendix.put(b"head");
            let (range, taken) = appendix.put_as_text(source, max_bytes);
            assert_eq!((range.start, range.end), (1004, 1000 + appendix.len()));
            let text: String = serde_json::from_slice(&appendix.into_bytes()[4..]).unwrap();
            assert!(range.len() <= max_bytes + 2 && expected.starts_with(&text), "{text:?}");
            assert_eq!(String::from_utf8_lossy(&source[..taken]), text);
            assert!(max_bytes < 80 || taken == source.len());
            // As much as fits: the longest that one character takes has six bytes.
            assert!(taken == source.len() || range.len() + 4 > max_bytes, "{max_bytes}: {text:?}");
        }
    }
}
