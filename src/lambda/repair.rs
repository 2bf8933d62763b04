//! Bodies that are not valid JSON: finds the events in them, and puts together what Lambda cut.
//! Pure; nothing is copied, ranges are handed on.
//!
//! Lambda cuts a log record over about 256 KiB in the middle of its JSON value. Each piece becomes
//! an event of its own, envelope and closing brace around raw bytes, so the body does not parse
//! (first described in DataDog/datadog-lambda-extension#1357). Two forms:
//!
//! ```text
//! within a POST:
//!     …"record":{"message":"AAAA},{"time":"…","type":"function","record":BBBB"}},{…}]
//! across POSTs:
//!     …"record":{"message":"AAAA}]
//!     [{"time":"…","type":"function","record":BBBB"}},{…}]
//! ```
//!
//! Between two pieces stands a **seam**: `},{"time":"…","type":"…","record":`, of the same type and
//! time. The same bytes may be a function's own data, or the place where the next event begins.
//! Which of them it is follows from the state of the JSON before the seam:
//!
//! - If the seam cannot be JSON there (inside a string, say) and what follows continues the value,
//!   it is a seam.
//! - If it can be JSON and what follows cannot continue the value, it is data, or the end of a
//!   piece whose continuation is lost. It is read as data; if that comes to no end, the event ends
//!   there.
//! - Both can be true only where a number is cut between two digits. Then the length of the piece
//!   decides: Lambda's are long.
//! - If neither is true the event is damaged up to there.
//!
//! Pieces that do not fit together are damaged, and reading continues with the event behind their
//! first seam: a lost continuation takes no whole event with it.

use std::ops::Range;

use super::header::{
    Header, SEAM, START, end_of_last_element, find, is_separated, skip_blanks, skip_separators,
};
use super::json_reader::JsonReader;
use super::windows::{Begins, Behind, Part};

/// The most that is held for a continuation. Lambda's pieces have 256 KiB; a record of more than 16
/// of them is given up.
const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;
/// The most pieces of one record.
const MAX_PIECES: usize = 1024;
/// More than a header has, and the separators before it: an element that was read up to so many
/// bytes before the end may be another one when more comes behind it.
const LOOKAHEAD: usize = 256;
/// A piece that Lambda cut is longer than this.
pub(super) const MIN_CUT_BYTES: usize = 200 * 1024;

/// A part of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// One whole JSON object; its UTF-8 may be broken.
    Whole(Range<usize>),
    /// The pieces of one whole JSON object, without what stands between them.
    Cut(Vec<Range<usize>>),
    /// No event; past repair.
    Damaged(Range<usize>),
    /// The pieces of a record that the next body is to continue. Always the last.
    Unfinished(Range<usize>),
}

/// Walks over a body, an array or the rest of one, element by element.
#[derive(Debug)]
pub(super) struct Repair {
    at: usize,
    /// Where the array's last element ends.
    end: usize,
    /// The element at hand is not looked for from there on: `end`, or the next event's beginning
    /// once too much was read.
    limit: usize,
    /// Where the next event begins, as far as that was looked for.
    boundary: Option<usize>,
    min_cut_bytes: usize,
    behind: Behind,
    /// The element at hand was given up before, or is: where it ends is not known.
    is_given_up: bool,
    /// Bytes read so far, and how many may be: see [`Part::reads`].
    reads: usize,
    max_reads: usize,
    /// The first byte that was not looked at yet.
    furthest: usize,
}

/// Where reading continues behind a place that is no JSON.
enum Failed {
    /// At the next event: behind the `}` at this index.
    At(usize),
    /// Not known.
    Anywhere,
}

impl Repair {
    /// Begins at index `at` of `body`, which is that part of a whole one.
    pub(super) fn new(body: &[u8], at: usize, min_cut_bytes: usize, part: Part) -> Repair {
        // Brackets at the end of a window may belong to an element that continues.
        let end = if part.behind.is_same_body() { body.len() } else { end_of_last_element(body) };
        Repair {
            at,
            end,
            limit: end,
            boundary: None,
            min_cut_bytes,
            behind: part.behind,
            is_given_up: part.begins == Begins::Damage,
            reads: 0,
            max_reads: part.reads,
            furthest: at,
        }
    }

    /// Where the next element is looked for.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Bytes that were read so far.
    pub(super) fn reads(&self) -> usize {
        self.reads
    }

    /// Whether the elements so far would be the same if more bytes came behind these.
    pub(super) fn is_decided(&self) -> bool {
        self.furthest.saturating_add(LOOKAHEAD) <= self.end
    }

    /// Whether the element that was found last is damaged, and may go on behind these bytes.
    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up
    }

    /// The next element. `body` is the one that this began with, up to what was handed out before.
    pub(super) fn next(&mut self, body: &[u8]) -> Option<Element> {
        if std::mem::take(&mut self.is_given_up)
            && let Some(range) = self.rest_of_damage(body)
        {
            self.at = range.end;
            return Some(Element::Damaged(range));
        }
        self.at = skip_separators(body, self.at);
        if self.at >= self.end {
            return None;
        }
        self.limit = if self.reads < self.max_reads { self.end } else { self.boundary(body) };
        let element = match Header::at(body, self.at) {
            Some(header) => Reading::new(self, body, header).element(),
            None => self.other(body),
        };
        self.at = match &element {
            Element::Whole(range) | Element::Damaged(range) | Element::Unfinished(range) => {
                range.end
            }
            Element::Cut(pieces) => pieces.last().map_or(self.end, |piece| piece.end),
        };
        Some(element)
    }

    /// Reads an element that does not begin as Lambda's events do: an object in another spelling,
    /// or something else.
    fn other(&mut self, body: &[u8]) -> Element {
        let mut json = JsonReader::default();
        let mut at = self.at;
        while let Some(&byte) = body.get(at).filter(|_| at < self.limit) {
            let plain = json.plain_text(body.get(at..self.limit).unwrap_or_default());
            if plain > 0 {
                at += plain;
                self.reads += plain;
                continue;
            }
            if json.is_whole() && !json.accepts(byte) {
                break;
            }
            if !json.read(byte) {
                self.furthest = self.furthest.max(at);
                return Element::Damaged(self.at..self.next_header(body));
            }
            at += 1;
            self.reads += 1;
            if json.is_closed() {
                break;
            }
        }
        self.furthest = self.furthest.max(at);
        let range = self.at..at;
        let is_object = json.is_closed() && body.get(self.at) == Some(&b'{');
        match is_object || (json.is_whole() && is_separated(body, at)) {
            true if is_object => Element::Whole(range),
            true => Element::Damaged(range),
            false => Element::Damaged(self.at..self.next_header(body)),
        }
    }

    /// The rest of an element that was given up: all bytes before the next event.
    fn rest_of_damage(&mut self, body: &[u8]) -> Option<Range<usize>> {
        let end = self.separator(body, self.at, |_| true);
        let range = self.at..end.unwrap_or_else(|| self.last_separator(body, self.at));
        let is_blank = body.get(range.clone()).unwrap_or_default().trim_ascii().is_empty();
        self.is_given_up = end.is_none() && !is_blank;
        self.furthest = if end.is_none() { self.end } else { self.furthest.max(range.end) };
        (!is_blank).then_some(range)
    }

    /// Where the next event begins, whatever its time: looked for once for all elements before it.
    fn boundary(&mut self, body: &[u8]) -> usize {
        match self.boundary.filter(|boundary| *boundary > self.at) {
            Some(boundary) => boundary,
            None => {
                let from = self.at + 1;
                let found = self.separator(body, from, |_| true);
                let boundary = found.unwrap_or_else(|| self.last_separator(body, from)).max(from);
                *self.boundary.insert(boundary)
            }
        }
    }

    /// Where the next event begins behind the one at hand, without the comma between them, or the
    /// end.
    fn next_header(&mut self, body: &[u8]) -> usize {
        let (this, from) = (Header::at(body, self.at), self.at + 1);
        let found = self
            .separator(body, from, |next| this.as_ref().is_none_or(|this| next.may_follow(this)));
        if found.is_none() {
            (self.is_given_up, self.furthest) = (true, self.end);
        }
        let end = found.unwrap_or_else(|| self.last_separator(body, from)).max(from);
        self.furthest = self.furthest.max(end);
        end
    }

    /// The first comma from `from` on, or the blanks before it, behind which an event begins, of
    /// which `is_event` says that it is one.
    fn separator(
        &mut self,
        body: &[u8],
        from: usize,
        is_event: impl Fn(&Header<'_>) -> bool,
    ) -> Option<usize> {
        let mut at = from;
        while let Some(found) = find(body, at, START) {
            let before = body.get(..found).unwrap_or_default().trim_ascii_end();
            if before.last() == Some(&b',')
                && before.len() > from
                && Header::at(body, found).is_some_and(|next| is_event(&next))
            {
                self.reads += found - self.at;
                return Some(before.len() - 1);
            }
            at = found + 1;
        }
        self.reads += self.end.saturating_sub(self.at);
        None
    }

    /// The same, where the bytes end within the beginning of an event. The end where they do not.
    fn last_separator(&self, body: &[u8], from: usize) -> usize {
        let last = from.max(body.len().saturating_sub(LOOKAHEAD));
        let commas = memchr::memchr_iter(b',', body.get(last..).unwrap_or_default());
        self.behind
            .is_same_body()
            .then(|| commas.map(|at| last + at).find(|comma| may_be_separator(body, *comma)))
            .flatten()
            .unwrap_or(self.end)
    }
}

/// Whether an event may begin behind the comma, one of the last bytes.
fn may_be_separator(body: &[u8], comma: usize) -> bool {
    Header::may_begin(body, skip_blanks(body, comma + 1))
}

/// One event in Lambda's spelling being read, across its seams.
struct Reading<'r, 'b> {
    repair: &'r mut Repair,
    body: &'b [u8],
    start: usize,
    /// Of the piece being read.
    header: Header<'b>,
    is_log: bool,
    json: JsonReader,
    at: usize,
    pieces: Vec<Range<usize>>,
    /// Of the piece being read: where it begins, where its part of the record begins.
    piece: usize,
    record: usize,
    /// In keys that follow the record. Only a record is cut.
    is_behind_record: bool,
    /// Indices of closing braces that may end the event, the first of each kind: of a seam that was
    /// taken; of one that was read as data and may be the end of a piece whose continuation is
    /// lost; of any that was read as data.
    taken: Option<usize>,
    doubtful: Option<usize>,
    data: Option<usize>,
}

impl<'r, 'b> Reading<'r, 'b> {
    fn new(repair: &'r mut Repair, body: &'b [u8], header: Header<'b>) -> Reading<'r, 'b> {
        let (start, record) = (repair.at, repair.at + header.len);
        Reading {
            repair,
            body,
            start,
            is_log: matches!(header.kind, b"function" | b"extension"),
            header,
            json: JsonReader::default(),
            at: start,
            pieces: Vec::new(),
            piece: start,
            record,
            is_behind_record: false,
            taken: None,
            doubtful: None,
            data: None,
        }
    }

    fn element(mut self) -> Element {
        let read = self.read();
        self.repair.furthest = self.repair.furthest.max(self.at);
        match read {
            Ok(element) => element,
            Err(failed) => {
                let boundary = if let Failed::At(brace) = failed { Some(brace) } else { None };
                let likely = [self.taken, self.doubtful, boundary].into_iter().flatten().min();
                let end = likely
                    .or(self.data)
                    .map_or_else(|| self.repair.next_header(self.body), |brace| brace + 1);
                Element::Damaged(self.start..end)
            }
        }
    }

    fn read(&mut self) -> Result<Element, Failed> {
        let limit = self.repair.limit;
        while let Some(&byte) = self.body.get(self.at).filter(|_| self.at < limit) {
            let plain = self.json.plain_text(self.body.get(self.at..limit).unwrap_or_default());
            if plain > 0 {
                self.at += plain;
                self.repair.reads += plain;
                continue;
            }
            if byte == b'}' && !self.json.closes_envelope() {
                if self.at + 1 == self.repair.end {
                    return self.end_of_body();
                }
                let next = self
                    .body
                    .get(self.at..)
                    .filter(|rest| rest.starts_with(SEAM))
                    .and_then(|_| Header::at(self.body, self.at + 2));
                if let Some(next) = next
                    && self.is_seam(&next)?
                {
                    self.take_seam(next);
                    continue;
                }
            }
            if byte == b',' && self.at >= self.record && self.json.closes_envelope() {
                // Behind a record in pieces Lambda writes no further keys: what stands there is of
                // another one.
                if !self.pieces.is_empty() {
                    return Err(Failed::Anywhere);
                }
                self.is_behind_record = true;
            }
            if !self.json.read(byte) {
                return Err(Failed::Anywhere);
            }
            self.at += 1;
            self.repair.reads += 1;
            if self.json.is_closed() {
                return self.whole().ok_or(Failed::Anywhere);
            }
        }
        Err(Failed::Anywhere)
    }

    /// The event has ended, whatever stands behind it. The JSON of one in pieces may also have
    /// ended by chance, in the middle of what is another event: an event in Lambda's spelling must
    /// follow it, or none.
    fn whole(&mut self) -> Option<Element> {
        if self.pieces.is_empty() {
            return Some(Element::Whole(self.start..self.at));
        }
        let next = skip_separators(self.body, self.at);
        let is_separate = next > self.at
            && (Header::at(self.body, next).is_some()
                || (self.repair.behind.is_same_body() && Header::may_begin(self.body, next)));
        if next < self.repair.end && !is_separate {
            return None;
        }
        self.pieces.push(self.piece..self.at);
        Some(Element::Cut(std::mem::take(&mut self.pieces)))
    }

    /// Whether the brace at hand and the header behind it are Lambda's and not the function's. An
    /// error if the event ends here.
    fn is_seam(&mut self, next: &Header<'_>) -> Result<bool, Failed> {
        self.repair.reads += next.len;
        let behind = self.at + 2 + next.len;
        // Behind data that only looks like a header, Lambda's cut may follow at once.
        let is_cut_again = behind + 1 == self.repair.end
            || self.body.get(behind..).is_some_and(|rest| rest.starts_with(SEAM));
        let is_data =
            self.json.closes_object_in_array() && (is_cut_again || begins_value(self.body, behind));
        let is_continuation = self.is_log
            && !self.is_behind_record
            && self.header.may_go_on(next)
            && self.pieces.len() < MAX_PIECES
            && self.body.get(behind).is_some_and(|byte| self.json.accepts(*byte));
        if self.repair.reads > self.repair.max_reads || !(is_data || is_continuation) {
            return Err(Failed::At(self.at));
        }
        let is_long = self.at - self.record >= self.repair.min_cut_bytes;
        if is_continuation && (!is_data || is_long) {
            return Ok(true);
        }
        if next.may_follow(&self.header) {
            self.data.get_or_insert(self.at);
            if is_long {
                self.doubtful.get_or_insert(self.at);
            }
        }
        Ok(false)
    }

    fn take_seam(&mut self, next: Header<'b>) {
        self.taken.get_or_insert(self.at);
        self.pieces.push(self.piece..self.at);
        self.at += 2 + next.len;
        (self.piece, self.record, self.header) = (self.at, self.at, next);
    }

    /// At the last brace of the body, in the middle of the record: the next body may continue it.
    fn end_of_body(&mut self) -> Result<Element, Failed> {
        let is_long = self.at - self.record >= self.repair.min_cut_bytes;
        let length = self.repair.end - self.start;
        let lost =
            self.doubtful.is_some() || (self.taken.is_none() && self.data.is_some() && !is_long);
        if !self.is_log
            || self.is_behind_record
            || matches!(self.repair.behind, Behind::NoRoom | Behind::Nothing)
            || lost
            || length > MAX_HELD_BYTES
            || self.pieces.len() >= MAX_PIECES
        {
            return Err(Failed::Anywhere);
        }
        Ok(Element::Unfinished(self.start..self.repair.end))
    }
}

/// Whether a log that is JSON as it stands may have been cut nevertheless: one that is long, with a
/// seam in it.
#[inline(always)]
pub(super) fn is_doubtful(body: &[u8], event: Range<usize>, min_cut_bytes: usize) -> bool {
    event.len() > min_cut_bytes
        && body.get(event).is_some_and(|event| find(event, min_cut_bytes, SEAM).is_some())
}

/// Whether a JSON value can begin at `at`. A number has no zero before other digits.
fn begins_value(body: &[u8], at: usize) -> bool {
    let rest = body.get(at..).unwrap_or_default().trim_ascii_start();
    match rest.first() {
        Some(b'0') => !rest.get(1).is_some_and(u8::is_ascii_digit),
        Some(byte) => matches!(byte, b'"' | b'{' | b'[' | b'-' | b'1'..=b'9' | b't' | b'f' | b'n'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::windows::READS_PER_BYTE;
    use super::*;

    const HEAD: &str = r#"{"time":"2026-11-23T09:15:45.012Z","type":"function","record":"#;

    /// The elements of a body, pieces joined; with marks on what is not whole.
    fn elements(body: &str, min_cut_bytes: usize) -> Vec<String> {
        let part = Part::alone(Begins::Body, Behind::NextBody, body.len());
        let mut repair = Repair::new(body.as_bytes(), 0, min_cut_bytes, part);
        let text = |range: Range<usize>| body.get(range).unwrap().to_owned();
        let mut all = Vec::new();
        while let Some(element) = repair.next(body.as_bytes()) {
            all.push(match element {
                Element::Whole(range) => text(range),
                Element::Cut(pieces) => pieces.into_iter().map(text).collect(),
                Element::Damaged(range) => format!("damaged:{}", text(range)),
                Element::Unfinished(range) => format!("unfinished:{}", text(range)),
            });
        }
        assert!(
            repair.reads() <= (READS_PER_BYTE + 5) * body.len() + 100,
            "{} of {}",
            repair.reads,
            body.len()
        );
        all
    }

    #[test]
    fn a_record_cut_within_a_post_is_joined() {
        let next = format!(r#"{HEAD}"next"}}"#);
        let body = format!(r#"[{HEAD}{{"message":"AAAA}},{HEAD}BBBB}},{HEAD}CCCC"}}}},{next}]"#);
        assert_eq!(
            elements(&body, MIN_CUT_BYTES),
            [format!(r#"{HEAD}{{"message":"AAAABBBBCCCC"}}}}"#), next]
        );
        let body = format!(r#"[{HEAD}"AAAA}},{HEAD}BBBB"}}]"#);
        assert_eq!(elements(&body, MIN_CUT_BYTES), [format!(r#"{HEAD}"AAAABBBB"}}"#)]);
    }

    #[test]
    fn a_piece_at_the_end_waits_for_the_next_body() {
        let body = format!(r#"[{HEAD}1}},{HEAD}{{"message":"AAAA}},{HEAD}BBBB}}]"#);
        let piece = format!(r#"unfinished:{HEAD}{{"message":"AAAA}},{HEAD}BBBB}}"#);
        assert_eq!(elements(&body, MIN_CUT_BYTES), [format!("{HEAD}1}}"), piece]);
    }

    #[test]
    fn pieces_of_other_types_or_times_are_none() {
        let other = HEAD.replace("function", "extension");
        let late = HEAD.replace(":45.", ":48.");
        for next in [
            format!(r#"{other}BBBB"}}}}"#),
            format!(r#"{late}BBBB"}}}}"#),
            format!(r#"{}"BBBB"}}"#, HEAD.replace("function", "platform.x")),
        ] {
            let body = format!(r#"[{HEAD}{{"message":"AAAA}},{next}]"#);
            let elements = elements(&body, MIN_CUT_BYTES);
            assert_eq!(elements[0], format!(r#"damaged:{HEAD}{{"message":"AAAA}}"#));
            assert_eq!(elements[1].trim_start_matches("damaged:"), next);
        }
    }

    #[test]
    fn a_seam_in_a_number_is_told_from_data_by_the_length_of_the_piece() {
        let body = format!(r#"[{HEAD}[{{"a":123}},{HEAD}45}},{{"b":1}}]}}]"#);
        assert_eq!(elements(&body, 10), [body.get(1..body.len() - 1).unwrap()]);
        assert_eq!(elements(&body, 9), [format!(r#"{HEAD}[{{"a":12345}},{{"b":1}}]}}"#)]);
    }

    #[test]
    fn a_whole_event_is_one_whatever_stands_behind_it() {
        let (event, next) = (format!(r#"{HEAD}"whole"}}"#), format!(r#"{HEAD}"next"}}"#));
        for junk in ["#", "{", "{\"time\":\",", "\"", "\u{1}"] {
            let body = format!("[{event}{junk},{next}]");
            let elements = elements(&body, MIN_CUT_BYTES);
            assert_eq!((&elements[0], elements.last()), (&event, Some(&next)), "{junk}");
            assert_eq!(elements.len(), 3, "{junk}: {elements:?}");
        }
        assert_eq!(elements(&format!("[{event}{next}]"), MIN_CUT_BYTES), [event, next]);
    }

    #[test]
    fn garbage_comes_back_as_it_is() {
        let body = format!(r#"[{{"broken":,{HEAD}"fine"}}]"#);
        assert_eq!(
            elements(&body, MIN_CUT_BYTES),
            [r#"damaged:{"broken":"#.to_owned(), format!(r#"{HEAD}"fine"}}"#)]
        );
        assert_eq!(elements("<html>", MIN_CUT_BYTES), ["damaged:<html>"]);
        assert_eq!(elements("[1, \"a\",{}]", MIN_CUT_BYTES), ["damaged:1", "damaged:\"a\"", "{}"]);
        assert!(elements(" [ ] ", MIN_CUT_BYTES).is_empty());
    }

    #[test]
    fn reading_is_linear_whatever_comes() {
        const START_OF_OTHERS: &str = "{\"time\":\"x\",";
        let unclosed = format!("{HEAD}[{{\"a\":1}},");
        let starts = format!("{HEAD}{{\"message\":\"AAAA}},");
        let many = 1000;
        for element in [
            unclosed.as_str(),
            &starts,
            "{\"time\":\"",
            "{\"a\":[",
            "[",
            "1,",
            "{},",
            "\"",
            &format!("{HEAD}[[[[}},"),
            &format!("{HEAD}\"}},"),
            &format!("{HEAD}[1,"),
            &format!("{HEAD}[{{\"a\":[1,"),
        ] {
            for behind in ["", "{},", "1,", "#,", START_OF_OTHERS] {
                let body = format!("[{}{}]", element.repeat(many), behind.repeat(many));
                for min_cut_bytes in [0, 1000, MIN_CUT_BYTES] {
                    // The bound is asserted inside.
                    let elements = elements(&body, min_cut_bytes);
                    assert!(elements.len() <= 2 * many + 1, "{element}");
                }
            }
        }
    }
}
