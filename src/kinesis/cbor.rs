//! As much of CBOR (RFC 8949) as Kinesis speaks: texts of a request, and an answer, which is
//! rewritten as the JSON that says the same, so that what is read of it is read in one place. Pure.

use std::borrow::Cow;

/// What ends a list, map or string of no announced length.
pub(super) const BREAK: u8 = 0xff;
/// Lists and maps inside each other: an answer has four.
const MAX_DEPTH: u32 = 16;

const BYTES: u8 = 2;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

/// Appends a text.
pub(super) fn text(text: &str, out: &mut Vec<u8>) {
    let head = |info: u8| (TEXT << 5) | info;
    match u8::try_from(text.len()) {
        Ok(length @ ..24) => out.push(head(length)),
        Ok(length) => out.extend_from_slice(&[head(24), length]),
        Err(_) => {
            out.push(head(26));
            out.extend_from_slice(&number_of(text.len()).to_be_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

/// A length in the four bytes that it is written in; no text or record here is anywhere near as
/// long as that.
pub(super) fn number_of(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The text that is all there is in `bytes`, in the form that [`text`] has.
pub(super) fn only_text(bytes: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader { rest: bytes, out: Vec::new(), most: 0 };
    let (TEXT, Some(length)) = reader.head()? else { return None };
    reader.take(length).filter(|_| reader.rest.is_empty())
}

/// Whether this is CBOR and not JSON, XML or HTML: it begins with the head of a map, which no text
/// does.
pub(super) fn is_map(body: &[u8]) -> bool {
    matches!(body.first(), Some(0xa0..=0xbb | 0xbf))
}

/// One CBOR item as JSON; `None` if it is none, nested too deeply, or would become much larger.
/// Numbers become 0 and byte strings null: no answer has any that is read.
pub(super) fn to_json(bytes: &[u8]) -> Option<Vec<u8>> {
    let out = Vec::with_capacity(bytes.len());
    let mut reader = Reader { rest: bytes, out, most: 2 * bytes.len() + 64 };
    reader.item(MAX_DEPTH)?;
    reader.rest.is_empty().then_some(reader.out)
}

struct Reader<'a> {
    rest: &'a [u8],
    out: Vec<u8>,
    most: usize,
}

impl<'a> Reader<'a> {
    /// The major type and the number of an item's head; `None` for a length that is not announced.
    fn head(&mut self) -> Option<(u8, Option<u64>)> {
        let [first] = *self.take(1)? else { return None };
        let (major, info) = (first >> 5, first & 31);
        let number = match info {
            0..=23 => Some(u64::from(info)),
            24..=27 => {
                let bytes = self.take(1 << (info - 24))?;
                Some(bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
            }
            31 if matches!(major, BYTES | TEXT | LIST | MAP) => None,
            _ => return None,
        };
        Some((major, number))
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    /// Whether another item follows in a list or map that has had `count` of them.
    fn more(&mut self, length: Option<u64>, count: u64) -> Option<bool> {
        match length {
            Some(length) => Some(count < length),
            None if self.rest.first() == Some(&BREAK) => {
                self.take(1)?;
                Some(false)
            }
            None => Some(true),
        }
    }

    fn item(&mut self, depth: u32) -> Option<()> {
        if depth == 0 || self.out.len() > self.most {
            return None;
        }
        let (major, number) = self.head()?;
        match (major, number) {
            (TEXT, length) => self.string(length)?,
            (BYTES, length) => {
                self.bytes(BYTES, length)?;
                self.out.extend_from_slice(b"null");
            }
            (LIST | MAP, length) => {
                let (open, close) = if major == MAP { (b'{', b'}') } else { (b'[', b']') };
                self.out.push(open);
                let mut count = 0;
                while self.more(length, count)? {
                    if count > 0 {
                        self.out.push(b',');
                    }
                    if major == MAP {
                        let (TEXT, length) = self.head()? else { return None };
                        self.string(length)?;
                        self.out.push(b':');
                    }
                    self.item(depth - 1)?;
                    count += 1;
                }
                self.out.push(close);
            }
            (TAG, _) => self.item(depth - 1)?,
            (SIMPLE, _) => self.out.extend_from_slice(b"null"),
            _ => self.out.push(b'0'),
        }
        Some(())
    }

    fn string(&mut self, length: Option<u64>) -> Option<()> {
        let bytes = self.bytes(TEXT, length)?;
        let text = std::str::from_utf8(&bytes).ok()?;
        // Looked at before it is written: in JSON a control character takes six bytes.
        let length: usize = text.bytes().map(escaped).sum();
        if length > self.most.saturating_sub(self.out.len()) {
            return None;
        }
        serde_json::to_writer(&mut self.out, text).ok()
    }

    /// A string's bytes, which may come in pieces.
    fn bytes(&mut self, major: u8, length: Option<u64>) -> Option<Cow<'a, [u8]>> {
        if let Some(length) = length {
            return self.take(length).map(Into::into);
        }
        let mut whole = Vec::new();
        while self.more(None, 0)? {
            let (_, Some(length)) = self.head().filter(|(piece, _)| *piece == major)? else {
                return None;
            };
            whole.extend_from_slice(self.take(length)?);
        }
        Some(whole.into())
    }
}

/// How many bytes a byte of a text takes in JSON, at most.
fn escaped(byte: u8) -> usize {
    match byte {
        ..b' ' => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_length_come_back() {
        for length in [0, 1, 23, 24, 255, 256, 2048, 70_000] {
            let (mut out, long) = (Vec::new(), "é".repeat(length / 2) + &"k".repeat(length % 2));
            text(&long, &mut out);
            assert_eq!(only_text(&out).unwrap(), long.as_bytes());
            assert_eq!(to_json(&out).unwrap(), format!("\"{long}\"").into_bytes());
            out.push(0);
            assert!(only_text(&out).is_none() && to_json(&out).is_none());
        }
        assert!(only_text(b"\x41a").is_none() && only_text(b"").is_none());
    }

    /// Both ways of saying how long something is, and what no answer has.
    #[test]
    fn items_become_the_json_that_says_the_same() {
        for (bytes, json) in [
            (&b"\xa1\x61a\x61b"[..], r#"{"a":"b"}"#),
            (b"\xbf\x61a\x9f\x61b\xf6\xff\x61c\x80\xff", r#"{"a":["b",null],"c":[]}"#),
            (b"\x7f\x61a\x62\"\\\x61\x00\xff", r#""a\"\\\u0000""#),
            (b"\x84\x00\x19\x01\x00\x3b\xff\xff\xff\xff\xff\xff\xff\xff\x1a\0\0\0\0", "[0,0,0,0]"),
            (
                b"\x86\x43abc\x5f\x41a\x41b\xff\xf5\xf9\x3c\0\xfb\0\0\0\0\0\0\0\0\xc1\x00",
                "[null,null,null,null,null,0]",
            ),
        ] {
            assert_eq!(to_json(bytes).as_deref(), Some(json.as_bytes()));
        }
    }

    #[test]
    fn what_is_no_cbor_or_too_much_of_it_is_nothing() {
        let deep = [vec![0x81; 100], vec![0x00]].concat();
        for bytes in [
            &b""[..],
            b"{\"a\":1}",
            b"\xa1\x61a",
            b"\xa1\x00\x00",
            b"\xff",
            b"\x9f\x00",
            b"\x61\xff",
            b"\x7f\x41a\xff",
            b"\x7f\x7f\xff\xff",
            b"\x1c",
            b"\x1f",
            b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x00",
            b"\x7b\xff\xff\xff\xff\xff\xff\xff\xffa",
            b"\x00\x00",
            &deep,
        ] {
            assert_eq!(to_json(bytes), None, "{bytes:x?}");
        }
        // Six bytes of JSON for each one, and five.
        assert_eq!(to_json(&[&[0x9b, 0, 0, 0, 0, 0, 1, 0, 0][..], &[0xf6; 65_536]].concat()), None);
        assert_eq!(to_json(&[vec![0x9f], [0x61, 7].repeat(60_000), vec![0xff]].concat()), None);
        assert_eq!(to_json(&[&b"\x7a\0\x01\0\0"[..], &[0; 65_536]].concat()), None);
    }

    #[test]
    fn no_text_begins_like_a_map() {
        assert!(is_map(b"\xa0") && is_map(b"\xbf\xff") && is_map(b"\xb9\x00\x00"));
        for body in ["", "{", " {", "<html>", "é", "\u{feff}{", "\u{10ffff}", "null"] {
            assert!(!is_map(body.as_bytes()), "{body}");
        }
    }
}
