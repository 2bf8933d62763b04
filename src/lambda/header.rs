//! How events begin in Lambda's own spelling, and what stands between them. Pure.

use crate::clock;

/// The pieces of a record are written at once: their times do not differ by more than this.
const MAX_PIECE_GAP_MS: u64 = 2000;
/// Events may be out of order by this much. What looks like an older event is a function's own
/// data.
const MAX_DISORDER_MS: u64 = 10_000;
/// A time and a type are shorter, in bytes.
const MAX_WORD: usize = 64;

/// How an event begins, in Lambda's own spelling.
pub(super) const START: &[u8] = b"{\"time\":\"";
const TYPE: &[u8] = b"\",\"type\":\"";
const RECORD: &[u8] = b"\",\"record\":";
/// What a seam begins with: see `repair`.
pub(super) const SEAM: &[u8] = b"},{\"time\":\"";

/// `{"time":"…","type":"…","record":`
pub(super) struct Header<'a> {
    /// Its length in bytes.
    pub(super) len: usize,
    time: &'a [u8],
    /// The type.
    pub(super) kind: &'a [u8],
}

impl<'a> Header<'a> {
    /// The one that begins at `start`.
    pub(super) fn at(body: &'a [u8], start: usize) -> Option<Header<'a>> {
        let all = body.get(start..)?;
        let (time, rest) = word(all.strip_prefix(START)?)?;
        let (kind, rest) = word(rest.strip_prefix(TYPE)?)?;
        let rest = rest.strip_prefix(RECORD)?;
        Some(Header { len: all.len() - rest.len(), time, kind })
    }

    /// Whether one may begin at `start`, and the bytes end within it.
    pub(super) fn may_begin(body: &[u8], start: usize) -> bool {
        let mut rest = body.get(start..).unwrap_or_default();
        for part in [START, TYPE] {
            let Some(behind) = rest.strip_prefix(part) else { return part.starts_with(rest) };
            let Some((_, behind)) = word(behind) else {
                return behind.len() < MAX_WORD;
            };
            rest = behind;
        }
        rest.len() < RECORD.len() && RECORD.starts_with(rest)
    }

    /// Whether `next` may begin another piece of the record that this begins a piece of.
    pub(super) fn may_go_on(&self, next: &Header<'_>) -> bool {
        next.kind == self.kind
            && match (milliseconds(self.time), milliseconds(next.time)) {
                (Some(one), Some(other)) => one.abs_diff(other) <= MAX_PIECE_GAP_MS,
                (None, None) => true,
                _ => false,
            }
    }

    /// Whether this may begin an event that follows the one that `other` begins.
    pub(super) fn may_follow(&self, other: &Header<'_>) -> bool {
        match (milliseconds(self.time), milliseconds(other.time)) {
            (Some(one), Some(other)) => one + MAX_DISORDER_MS >= other,
            (None, None) => true,
            _ => false,
        }
    }
}

/// What stands before the next quote, and the bytes from there on. A time and a type are short,
/// and have no escapes.
fn word(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_end = |byte: &u8| matches!(byte, b'"' | b'\\');
    bytes.split_at_checked(bytes.iter().take(MAX_WORD).position(is_end)?)
}

fn milliseconds(time: &[u8]) -> Option<clock::EpochMs> {
    std::str::from_utf8(time).ok().and_then(clock::parse_iso8601)
}

/// The index of the first byte from `at` on that is no blank.
#[inline(always)]
pub(super) fn skip_blanks(bytes: &[u8], at: usize) -> usize {
    // Lambda writes none.
    if bytes.get(at).is_some_and(|byte| *byte > b' ') { at } else { skip_many_blanks(bytes, at) }
}

fn skip_many_blanks(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
}

/// The same, where brackets and commas stand between elements, too.
pub(super) fn skip_separators(body: &[u8], at: usize) -> usize {
    let rest = body.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| byte.is_ascii_whitespace() || b"[],".contains(byte)).count()
}

/// Whether an element may end at `at`.
pub(super) fn is_separated(body: &[u8], at: usize) -> bool {
    let rest = body.get(at..).unwrap_or_default();
    matches!(rest.iter().find(|byte| !byte.is_ascii_whitespace()), None | Some(b',' | b']'))
}

/// The end without the array's closing bracket.
pub(super) fn end_of_last_element(body: &[u8]) -> usize {
    let trimmed = body.trim_ascii_end();
    let trimmed = trimmed.strip_suffix(b"]").unwrap_or(trimmed).trim_ascii_end();
    trimmed.strip_suffix(b",").unwrap_or(trimmed).trim_ascii_end().len()
}

/// The first place of `needle` from `from` on.
pub(super) fn find(bytes: &[u8], from: usize, needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut at = from;
    loop {
        at += memchr::memchr(first, bytes.get(at..)?)?;
        if bytes.get(at..)?.starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = br#"{"time":"2026-11-23T09:15:45.012Z","type":"function","record":"#;

    #[test]
    fn any_beginning_of_a_header_may_become_one() {
        for end in 0..HEAD.len() {
            assert!(Header::may_begin(&HEAD[..end], 0), "{end}");
            // And none with another byte at its end.
            for other in [b'\\', b'}', b' '] {
                let bytes = [&HEAD[..end], &[other]].concat();
                let in_word = (9..=33).contains(&end) || (43..=51).contains(&end);
                let may_begin = in_word && other != b'\\';
                assert_eq!(Header::may_begin(&bytes, 0), may_begin, "{end} {other}");
            }
        }
        assert!(!Header::may_begin(HEAD, 0), "it is whole");
        let header = Header::at(HEAD, 0).unwrap();
        assert_eq!((header.len, header.kind), (HEAD.len(), &b"function"[..]));
        let long = [START, &[b'x'; MAX_WORD]].concat();
        assert!(!Header::may_begin(&long, 0), "no word is so long");
        assert!(Header::may_begin(&long[..long.len() - 1], 0));
    }
}
