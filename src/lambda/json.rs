//! Where the values in a JSON text end. As strict as serde, but for UTF-8, which it does not look at.
//! Pure.

use std::ops::Range;

use memchr::memchr2;

use super::header::skip_blanks;

/// A text, or the part of it that is there so far.
pub(super) struct Json<'b> {
    bytes: &'b [u8],
    /// There may be control characters, of which a string must have none.
    has_control: bool,
    /// There were escapes in a string so far.
    pub(super) has_escapes: bool,
}

impl<'b> Json<'b> {
    /// `has_control`: see [`has_control`].
    pub(super) fn new(bytes: &'b [u8], has_control: bool) -> Json<'b> {
        Json { bytes, has_control, has_escapes: false }
    }

    /// All bytes.
    pub(super) fn bytes(&self) -> &'b [u8] {
        self.bytes
    }

    /// The end of the string that begins at `at`.
    pub(super) fn string_end(&mut self, at: usize) -> Option<usize> {
        if self.bytes.get(at) == Some(&b'"') { self.text_end(at + 1) } else { None }
    }

    /// The value that begins at `at`, or behind the blanks there.
    #[inline(always)]
    pub(super) fn value(&mut self, at: usize) -> Option<Range<usize>> {
        if self.bytes.get(at) == Some(&b'"') {
            return Some(at..self.text_end(at + 1)?);
        }
        let at = skip_blanks(self.bytes, at);
        Some(at..self.other_end(at)?)
    }

    /// The end of the string whose text begins at `at`.
    #[inline(always)]
    fn text_end(&mut self, at: usize) -> Option<usize> {
        let end = at + memchr2(b'"', b'\\', self.bytes.get(at..)?)?;
        let is_plain = self.bytes.get(end) == Some(&b'"') && !self.has_control;
        if is_plain { Some(end + 1) } else { self.escaped_end(at, end) }
    }

    /// The same of one that may have an escape at `end`, or control characters.
    #[inline(never)]
    fn escaped_end(&mut self, at: usize, mut end: usize) -> Option<usize> {
        while self.bytes.get(end) != Some(&b'"') {
            self.has_escapes = true;
            end += escape_length(self.bytes.get(end + 1..)?)?;
            end += memchr2(b'"', b'\\', self.bytes.get(end..)?)?;
        }
        let is_good = !self.has_control || !has_control(self.bytes.get(at..end)?);
        is_good.then_some(end + 1)
    }

    /// The end of any value.
    fn other_end(&mut self, mut at: usize) -> Option<usize> {
        let mut open = Open::default();
        loop {
            at = match self.bytes.get(at)? {
                b'"' => self.text_end(at + 1)?,
                b'-' | b'0'..=b'9' => number_end(self.bytes, at)?,
                b't' => self.word_end(at, b"true")?,
                b'f' => self.word_end(at, b"false")?,
                b'n' => self.word_end(at, b"null")?,
                first @ (b'{' | b'[') => {
                    let is_object = *first == b'{';
                    open.push(is_object);
                    at = skip_blanks(self.bytes, at + 1);
                    match (is_object, self.bytes.get(at)?) {
                        // It closes what was opened, below.
                        (true, b'}') | (false, b']') => at,
                        (true, _) => {
                            at = skip_blanks(self.bytes, self.key(at)?.1);
                            continue;
                        }
                        (false, _) => continue,
                    }
                }
                _ => return None,
            };
            while let Some(is_object) = open.innermost() {
                at = skip_blanks(self.bytes, at);
                match (is_object, self.bytes.get(at)?) {
                    (true, b'}') | (false, b']') => {
                        open.pop();
                        at += 1;
                    }
                    (_, b',') => {
                        at = skip_blanks(self.bytes, at + 1);
                        if is_object {
                            at = skip_blanks(self.bytes, self.key(at)?.1);
                        }
                        break;
                    }
                    _ => return None,
                }
            }
            if open.innermost().is_none() {
                return Some(at);
            }
        }
    }

    /// The key that begins at `at`, between its quotes, and where its value begins, or blanks before
    /// it.
    pub(super) fn key(&mut self, at: usize) -> Option<(Range<usize>, usize)> {
        let end = self.string_end(at)?;
        let colon = skip_blanks(self.bytes, end);
        let is_colon = self.bytes.get(colon) == Some(&b':');
        is_colon.then_some((at + 1..end - 1, colon + 1))
    }

    fn word_end(&self, at: usize, word: &[u8]) -> Option<usize> {
        self.bytes.get(at..)?.starts_with(word).then_some(at + word.len())
    }
}

/// Open arrays and objects: a bit each, 1 for an object; the last is the innermost.
#[derive(Default)]
struct Open {
    bits: u64,
    depth: usize,
    /// Of those further out, 64 each.
    outer: Vec<u64>,
}

impl Open {
    fn push(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.bits);
        }
        self.bits = self.bits << 1 | u64::from(is_object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.bits >>= 1;
        self.depth -= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.bits = self.outer.pop().unwrap_or_default();
        }
    }

    /// Whether it is an object; `None` where nothing is open.
    fn innermost(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.bits & 1 == 1)
    }
}

/// The end of the number that begins at `at`.
fn number_end(bytes: &[u8], at: usize) -> Option<usize> {
    let digits = |at: usize| {
        let rest = bytes.get(at..).unwrap_or_default();
        at + rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    let some_digits = |at: usize| Some(digits(at)).filter(|end| *end > at);
    let is = |at: usize, any: &[u8]| bytes.get(at).is_some_and(|byte| any.contains(byte));
    let at = if is(at, b"-") { at + 1 } else { at };
    // No digit stands behind a zero at the beginning.
    let mut end = if is(at, b"0") { at + 1 } else { some_digits(at)? };
    if is(end, b".") {
        end = some_digits(end + 1)?;
    }
    if is(end, b"eE") {
        let sign = usize::from(is(end + 1, b"+-"));
        end = some_digits(end + 1 + sign)?;
    }
    Some(end)
}

/// The length of an escape, of which `rest` is what stands behind the backslash; `None` for one
/// that JSON does not know.
fn escape_length(rest: &[u8]) -> Option<usize> {
    match rest.first()? {
        b'n' | b'"' | b'\\' | b'/' | b't' | b'r' | b'b' | b'f' => Some(2),
        b'u' => rest.get(1..5)?.iter().all(u8::is_ascii_hexdigit).then_some(6),
        _ => None,
    }
}

/// How many bytes at the beginning are known to be printable ASCII: all of most bodies, but for the
/// last few.
#[must_use]
pub(super) fn plain_length(bytes: &[u8]) -> usize {
    let (words, _) = bytes.as_chunks::<8>();
    let (eights, _) = words.as_chunks::<8>();
    // Many words at a time, here and below: every byte of a body comes by here.
    let is_plain = |[a, b, c, d, e, f, g, h]: &&[[u8; 8]; 8]| {
        let found = odd(a) | odd(b) | odd(c) | odd(d) | odd(e) | odd(f) | odd(g) | odd(h);
        found & HIGH == 0
    };
    eights.iter().take_while(is_plain).count() * 64
}

/// Whether there is a control character: line ends and tabs between tokens, or something that no
/// JSON string may hold.
#[must_use]
pub(super) fn has_control(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let (fours, words) = words.as_chunks::<4>();
    let found =
        fours.iter().fold(0, |found, [a, b, c, d]| found | low(a) | low(b) | low(c) | low(d));
    let found = words.iter().fold(found, |found, word| found | low(word));
    found & HIGH != 0 || rest.iter().any(|byte| *byte < b' ')
}

const HIGH: u64 = 0x8080_8080_8080_8080;
const BLANKS: u64 = 0x2020_2020_2020_2020;

/// Sets the high bit of a byte that is no printable ASCII, if there is one. In place, as below: or
/// it is called for every word in a program that is built for size.
#[inline(always)]
fn odd(word: &[u8; 8]) -> u64 {
    let word = u64::from_le_bytes(*word);
    word.wrapping_sub(BLANKS) | word
}

/// Sets the high bit of a byte that is under 0x20, if there is one.
#[inline(always)]
fn low(word: &[u8; 8]) -> u64 {
    let word = u64::from_le_bytes(*word);
    word.wrapping_sub(BLANKS) & !word
}

/// Whether a key, of which `text` stands between the quotes, is `name`, with whatever escapes.
/// `name` has letters only, of ASCII.
pub(super) fn is_key(text: &[u8], name: &str) -> bool {
    let mut rest = text;
    for letter in name.bytes() {
        rest = match rest {
            [first, behind @ ..] if *first == letter => behind,
            [b'\\', b'u', b'0', b'0', high, low, behind @ ..]
                if digit(*high) * 16 + digit(*low) == u32::from(letter) =>
            {
                behind
            }
            _ => return false,
        };
    }
    rest.is_empty()
}

fn digit(byte: u8) -> u32 {
    char::from(byte).to_digit(16).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether both take all of the text for one value, or both do not.
    fn agree(text: &str) {
        let behind = format!("{text},");
        let mut json = Json::new(behind.as_bytes(), has_control(text.as_bytes()));
        let is_value = json.value(0) == Some(0..text.len());
        let by_serde = serde_json::from_str::<&serde_json::value::RawValue>(text);
        assert_eq!(is_value, by_serde.is_ok_and(|raw| raw.get() == text), "{text:?}");
    }

    #[test]
    fn a_value_ends_where_it_ends_for_serde() {
        let samples = [
            r#"{"a":[1,-0,2.5,1e5,1E+5,1.5e-5,0],"b":{},"c":[],"d":[[{}]],"e":"x"}"#,
            r#"{"é":"\"\\\/\b\f\n\r\t\u00e9日","\u0061":"\ud800"}"#,
            "[ true ,\tfalse\n,\r\n null , { \"x\" : \"\" } , [ ] , { } ]",
            "\"a \u{7f} text\"",
            "-12.50e-07",
            "0",
            "true",
            "[\"\t\"]",
        ];
        let others = [
            "0", "1", "-", "+", ".", "e", "\"", "\\", "{", "}", "[", "]", ",", ":", " ", "\n",
            "\u{1}", "u", "t",
        ];
        for sample in samples {
            agree(sample);
            // And each of them with one byte less or another.
            for at in 0..sample.len() {
                let (Some(before), Some(behind)) = (sample.get(..at), sample.get(at + 1..)) else {
                    continue;
                };
                agree(&format!("{before}{behind}"));
                for other in others {
                    agree(&format!("{before}{other}{behind}"));
                }
            }
        }
        for depth in [1, 2, 31, 32, 33, 63, 64, 65, 100, 1000] {
            for (open, close) in
                [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]"), ("[[{\"a\":[", "]}]]")]
            {
                let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                agree(&text);
                agree(&text.replacen('}', "]", 1));
                agree(text.strip_suffix(['}', ']']).unwrap());
            }
        }
    }

    #[test]
    fn control_characters_are_seen_wherever_they_stand() {
        for length in 0..75 {
            let mut bytes = vec![0xff; length];
            bytes.iter_mut().step_by(2).for_each(|byte| *byte = b' ');
            assert!(!has_control(&bytes));
            for at in 0..length {
                for control in 0..0x20 {
                    let kept = std::mem::replace(&mut bytes[at], control);
                    assert!(has_control(&bytes), "{control} at {at} of {length}");
                    bytes[at] = kept;
                }
            }
        }
    }

    #[test]
    fn nothing_else_than_printable_ascii_is_plain() {
        for length in 0..200 {
            let mut bytes: Vec<u8> = (b' '..=0x7f).cycle().take(length).collect();
            assert_eq!(plain_length(&bytes), length / 64 * 64);
            for at in 0..length {
                for odd in [0, b'\n', 0x1f, 0x80, 0xc3, 0xff] {
                    let kept = std::mem::replace(&mut bytes[at], odd);
                    assert_eq!(plain_length(&bytes), at.min(length / 64 * 64) / 64 * 64);
                    bytes[at] = kept;
                }
            }
        }
    }

    #[test]
    fn a_key_is_known_in_any_spelling() {
        for (text, is) in [
            ("type", true),
            (r"\u0074ype", true),
            (r"\u0074\u0079\u0070\u0065", true),
            (r"typ\u0065", true),
            ("typ", false),
            ("types", false),
            ("Type", false),
            ("", false),
            (r"typ\u0045", false),
            (r"typ\u0165", false),
            (r"typ\u1065", false),
            (r"typ\u006", false),
            (r"typ\u00", false),
            (r"typ\e", false),
            (r"\ud800type", false),
        ] {
            assert_eq!(is_key(text.as_bytes(), "type"), is, "{text}");
        }
        assert!(is_key(br"tim\u0065", "time") && is_key(br"\u006Ftime", "otime"));
    }
}
