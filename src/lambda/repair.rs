//! Bodies that are not valid JSON, element by element. Pure.
//!
//! Lambda cuts a log record over about 256 KiB in the middle of its JSON value. Each piece becomes an event of its own, envelope and
//! closing brace around raw bytes, so the body does not parse (first described in DataDog/datadog-lambda-extension#1357). Two forms:
//!
//! ```text
//! within a POST:  …"record":{"message":"AAAA},{"time":"…","type":"function","record":BBBB"}},{…}]
//! across POSTs:   …"record":{"message":"AAAA}]   then   [{"time":"…","type":"function","record":BBBB"}},{…}]
//! ```
//!
//! A piece is held until the next one completes it. What cannot be completed comes back as it is: damaged, but not lost.

use serde_json::value::RawValue;

/// The most that is held for a continuation. Lambda's pieces have 256 KiB; a record of more than 16 of them is given up.
const HELD_BYTES: usize = 4 * 1024 * 1024;

/// How an event begins, in Lambda's own spelling.
const START: &[u8] = b"{\"time\":\"";

/// The beginning of a cut record: its envelope and its bytes so far, without the closing brace that Lambda put behind them.
#[derive(Debug, Default)]
pub(super) struct Held(Vec<u8>);

/// A piece of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// One whole JSON value.
    Whole(Vec<u8>),
    /// No JSON; past repair.
    Damaged(Vec<u8>),
}

/// What came of a body.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) elements: Vec<Element>,
    /// A cut record at the very end, to be continued by the next body.
    pub(super) held: Option<Held>,
}

/// Splits `body`, an array or the rest of one, into its elements. `held` is what the body before left over; an empty body ends the wait for it.
pub(super) fn elements(body: &[u8], held: Option<Held>) -> Outcome {
    let mut outcome = Outcome { elements: Vec::new(), held };
    let mut rest = skip_separators(body);
    while !rest.is_empty() {
        let used = if let Some(length) = outcome.continued(rest) {
            length
        } else if let Some(length) = whole(rest) {
            outcome.give_up();
            outcome.elements.push(Element::Whole(rest.get(..length).unwrap_or_default().to_vec()));
            length
        } else {
            let piece = until_next_event(rest);
            outcome.piece(piece);
            piece.len()
        };
        rest = skip_separators(rest.get(used.max(1)..).unwrap_or_default());
    }
    if body.is_empty() {
        outcome.give_up();
    }
    outcome
}

impl Outcome {
    /// If a cut record is held and the next piece continues it: takes the piece, and gives its length. It continues the record if together they
    /// are whole, or are the beginning of something whole. What cannot be a continuation is an event of its own.
    fn continued(&mut self, rest: &[u8]) -> Option<usize> {
        let held = self.held.as_ref()?;
        let piece = until_next_event(rest);
        let more = piece.get(log_header(piece)?..)?;
        let mut joined = [held.0.as_slice(), more].concat();
        if let Some(mended) = mended(&joined) {
            self.elements.push(Element::Whole(mended));
            self.held = None;
        } else if joined.pop() == Some(b'}') && is_unfinished(&joined) && joined.len() <= HELD_BYTES {
            self.held = Some(Held(joined));
        } else {
            return None;
        }
        Some(piece.len())
    }

    /// Takes a piece that is no JSON by itself and continues nothing.
    fn piece(&mut self, piece: &[u8]) {
        self.give_up();
        if let Some(mended) = mended(piece) {
            return self.elements.push(Element::Whole(mended));
        }
        match piece.strip_suffix(b"}") {
            Some(start) if log_header(piece).is_some() && start.len() <= HELD_BYTES => self.held = Some(Held(start.to_vec())),
            _ => self.elements.push(Element::Damaged(piece.to_vec())),
        }
    }

    /// What was held is not going to be continued.
    fn give_up(&mut self) {
        if let Some(Held(mut bytes)) = self.held.take() {
            bytes.push(b'}');
            self.elements.push(Element::Damaged(bytes));
        }
    }
}

/// The length of the JSON value at the start, if one stands there and a separator or the end follows it.
fn whole(bytes: &[u8]) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<&RawValue>();
    values.next()?.ok()?;
    let length = values.byte_offset();
    let follows = bytes.get(length..)?.iter().find(|b| !b.is_ascii_whitespace());
    matches!(follows, None | Some(b',' | b']')).then_some(length)
}

/// The bytes, if they are one JSON value; with U+FFFD where only their UTF-8 is broken.
fn mended(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(bytes);
    (whole(text.as_bytes()) == Some(text.len())).then(|| text.into_owned().into_bytes())
}

/// Whether something whole can begin like that.
fn is_unfinished(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    serde_json::from_str::<&RawValue>(&text).is_err_and(|error| error.is_eof())
}

/// Up to where the next event begins, or to the end without the array's closing bracket.
fn until_next_event(rest: &[u8]) -> &[u8] {
    let seam = find(rest.get(1..).unwrap_or_default(), &[b",", START].concat());
    let piece = seam.and_then(|at| rest.get(..=at));
    piece.unwrap_or_else(|| {
        let trimmed = rest.trim_ascii_end();
        trimmed.strip_suffix(b"]").unwrap_or(trimmed).trim_ascii_end()
    })
}

/// The length of `{"time":"…","type":"function","record":` at the start of a piece.
fn log_header(piece: &[u8]) -> Option<usize> {
    let after_time = piece.strip_prefix(START)?;
    let time = after_time.iter().take(40).position(|b| *b == b'"')?;
    let kind_at = START.len() + time;
    [b"\",\"type\":\"function\",\"record\":".as_slice(), b"\",\"type\":\"extension\",\"record\":"]
        .iter()
        .find(|middle| piece.get(kind_at..).is_some_and(|rest| rest.starts_with(middle)))
        .map(|middle| kind_at + middle.len())
}

fn skip_separators(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|b| !(b.is_ascii_whitespace() || b"[],".contains(b)));
    start.and_then(|at| bytes.get(at..)).unwrap_or_default()
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

/// The request id of a `platform.runtimeDone` somewhere in bytes that do not parse, as in JSON, between the quotes.
pub(super) fn find_runtime_done(bytes: &[u8]) -> Option<&str> {
    const ID: &[u8] = b"\"requestId\":\"";
    let kind = find(bytes, b"\"platform.runtimeDone\"")?;
    let after = bytes.get(kind..)?;
    let id = after.get(find(after, ID)? + ID.len()..)?;
    let end = id.iter().take(128).position(|b| *b == b'"')?;
    std::str::from_utf8(id.get(..end)?).ok().filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = r#"{"time":"2026-11-23T09:15:45.012Z","type":"function","record":"#;

    fn text(element: &Element) -> String {
        match element {
            Element::Whole(bytes) => String::from_utf8(bytes.clone()).unwrap(),
            Element::Damaged(bytes) => format!("damaged:{}", String::from_utf8_lossy(bytes)),
        }
    }

    fn texts(outcome: &Outcome) -> Vec<String> {
        outcome.elements.iter().map(text).collect()
    }

    #[test]
    fn a_record_cut_within_a_post_is_joined() {
        let next = format!(r#"{HEAD}"next"}}"#);
        let body = format!(r#"[{HEAD}{{"message":"AAAA}},{HEAD}BBBB}},{HEAD}CCCC"}}}},{next}]"#);
        let outcome = elements(body.as_bytes(), None);
        assert_eq!(texts(&outcome), [format!(r#"{HEAD}{{"message":"AAAABBBBCCCC"}}}}"#), next]);
        assert!(outcome.held.is_none());
    }

    #[test]
    fn a_record_cut_across_posts_is_joined_even_inside_a_character() {
        let whole = format!(r#"{HEAD}{{"message":"AAA€BBB"}}}}"#).into_bytes();
        let at = find(&whole, "€".as_bytes()).unwrap() + 1;
        let first = [b"[".as_slice(), &whole[..at], b"}]"].concat();
        let second = [b"[".as_slice(), HEAD.as_bytes(), &whole[at..], b"]"].concat();
        let outcome = elements(&first, None);
        assert!(outcome.elements.is_empty());
        let outcome = elements(&second, outcome.held);
        assert_eq!(outcome.elements, [Element::Whole(whole)]);
    }

    #[test]
    fn a_cut_that_is_never_continued_is_shipped_damaged() {
        let first = format!(r#"[{HEAD}{{"message":"AAAA}}]"#);
        let held = elements(first.as_bytes(), None).held;
        let next = format!(r#"{HEAD}"next"}}"#);
        let outcome = elements(format!("[{next}]").as_bytes(), held);
        assert_eq!(texts(&outcome), [format!(r#"damaged:{HEAD}{{"message":"AAAA}}"#), next]);

        let held = elements(first.as_bytes(), None).held;
        let outcome = elements(b"", held);
        assert_eq!(outcome.elements.len(), 1);
        assert!(outcome.held.is_none());
    }

    #[test]
    fn a_text_log_cut_in_two_is_joined() {
        let body = format!(r#"[{HEAD}"AAAA}},{HEAD}BBBB"}}]"#);
        assert_eq!(texts(&elements(body.as_bytes(), None)), [format!(r#"{HEAD}"AAAABBBB"}}"#)]);
    }

    #[test]
    fn invalid_utf8_is_replaced_not_lost() {
        let body = [b"[".as_slice(), HEAD.as_bytes(), b"\"a\xffb\"}]"].concat();
        assert_eq!(texts(&elements(&body, None)), [format!(r#"{HEAD}"a{}b"}}"#, '\u{fffd}')]);
    }

    #[test]
    fn garbage_comes_back_as_it_is() {
        let body = format!(r#"[{{"broken":,{HEAD}"fine"}}]"#);
        let outcome = elements(body.as_bytes(), None);
        assert_eq!(texts(&outcome), [r#"damaged:{"broken":"#.to_owned(), format!(r#"{HEAD}"fine"}}"#)]);
        assert_eq!(texts(&elements(b"<html>", None)), ["damaged:<html>"]);
        assert!(elements(b" [ ] ", None).elements.is_empty());
    }

    #[test]
    fn the_end_of_an_invocation_is_found_in_what_does_not_parse() {
        let damaged = br#"{"time":"x","type":"platform.runtimeDone","record":{"requestId":"6d68ca91","status":"#;
        assert_eq!(find_runtime_done(damaged), Some("6d68ca91"));
        assert_eq!(find_runtime_done(b"{\"type\":\"platform.runtimeDone\""), None);
    }
}
