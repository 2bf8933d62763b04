//! Bodies that are not valid JSON: finds the events in them, and puts together what Lambda cut.
//! Pure; nothing is copied, ranges are handed on.
//!
//! Lambda cuts a log record over about 256 KiB in the middle of its JSON value. Each piece becomes
//! an event of its own, envelope and closing brace around raw bytes, so the body does not parse
//! (first described in DataDog/datadog-lambda-extension#1357). Two forms:
//!
//! ```text
//! within a POST:  …"record":{"message":"AAAA},{"time":"…","type":"function","record":BBBB"}},{…}]
//! across POSTs:   …"record":{"message":"AAAA}]   then   [{"time":"…","type":"function","record":BBBB"}},{…}]
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
//! What cannot be put together comes back as damaged, and reading goes on with the event behind its
//! first seam: a lost continuation takes no whole event with it.

use std::ops::Range;

use crate::clock;

/// The most that is held for a continuation. Lambda's pieces have 256 KiB; a record of more than 16
/// of them is given up.
const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;
/// The most pieces of one record.
const MAX_PIECES: usize = 1024;
/// The pieces of a record are written at once: their times do not differ by more than this.
const MAX_PIECE_GAP_MS: u64 = 2000;
/// Events may be out of order by this much. What looks like an older event is a function's own
/// data.
const MAX_DISORDER_MS: u64 = 10_000;
/// Bytes that are read for each byte of a body at the most, before an event is no longer looked for
/// behind the next event's beginning: from then on no byte is read twice.
const MAX_READS: usize = 8;
/// More than a header has, and the separators before it: an element that was read up to so many
/// bytes before the end may be another one when more comes behind it.
const LOOKAHEAD: usize = 256;
/// A piece that Lambda cut is longer than this.
pub(super) const MIN_CUT_BYTES: usize = 200 * 1024;

/// How an event begins, in Lambda's own spelling.
const START: &[u8] = b"{\"time\":\"";
const TYPE: &[u8] = b"\",\"type\":\"";
const RECORD: &[u8] = b"\",\"record\":";
/// What a seam begins with.
const SEAM: &[u8] = b"},{\"time\":\"";

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
    /// No further body comes: nothing is unfinished.
    last: bool,
    /// Bytes read so far, and how many may be.
    reads: usize,
    max_reads: usize,
    /// The first byte that was not looked at yet.
    furthest: usize,
}

/// Where reading goes on behind a place that is no JSON.
enum Failed {
    /// At the next event: behind the `}` at this index.
    At(usize),
    /// Not known.
    Anywhere,
}

impl Repair {
    /// Begins at index `at` of `body`.
    pub(super) fn new(body: &[u8], at: usize, min_cut_bytes: usize, last: bool) -> Repair {
        let end = end_of_last_element(body);
        let max_reads = body.len().saturating_sub(at).saturating_mul(MAX_READS);
        Repair {
            at,
            end,
            limit: end,
            boundary: None,
            min_cut_bytes,
            last,
            reads: 0,
            max_reads,
            furthest: at,
        }
    }

    /// Where the next element is looked for.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Whether the elements so far would be the same if more bytes came behind these.
    pub(super) fn is_decided(&self) -> bool {
        self.furthest.saturating_add(LOOKAHEAD) <= self.end
    }

    /// The next element. `body` is the one that this began with, up to what was handed out before.
    pub(super) fn next(&mut self, body: &[u8]) -> Option<Element> {
        self.at = skip_separators(body, self.at);
        if self.at >= self.end {
            return None;
        }
        self.limit = if self.reads <= self.max_reads { self.end } else { self.boundary(body) };
        let element = match Header::at(body, self.at) {
            Some(header) => Reading::new(self, body, &header).element(),
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

    /// What does not begin as Lambda's events do: an object in another spelling, or none of
    /// Lambda's.
    fn other(&mut self, body: &[u8]) -> Element {
        let mut json = Json::default();
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

    /// Where the next event begins, whatever its time: looked for once for all elements before it.
    fn boundary(&mut self, body: &[u8]) -> usize {
        match self.boundary.filter(|boundary| *boundary > self.at) {
            Some(boundary) => boundary,
            None => {
                let boundary = self.next_start(body, |_| true);
                *self.boundary.insert(boundary)
            }
        }
    }

    /// Where the next event begins behind the one at `at`, without the comma between them, or the
    /// end.
    fn next_header(&mut self, body: &[u8]) -> usize {
        let this = Header::at(body, self.at);
        let end = self.next_start(body, |next| {
            this.as_ref().is_none_or(|this| is_not_before(next.time, this.time))
        });
        self.furthest = self.furthest.max(end);
        end
    }

    /// Where an event begins behind the element at hand, of which `is_event` says that it is one.
    fn next_start(&mut self, body: &[u8], is_event: impl Fn(&Header<'_>) -> bool) -> usize {
        let mut from = self.at + 1;
        while let Some(found) = find(body, from, START) {
            let before = body.get(..found).unwrap_or_default().trim_ascii_end();
            if before.last() == Some(&b',')
                && Header::at(body, found).is_some_and(|next| is_event(&next))
            {
                self.reads += found - self.at;
                return before.len().saturating_sub(1).max(self.at + 1);
            }
            from = found + 1;
        }
        self.reads += self.end.saturating_sub(self.at);
        self.end.max(self.at + 1)
    }
}

/// One event in Lambda's spelling being read, across its seams.
struct Reading<'r, 'b> {
    repair: &'r mut Repair,
    body: &'b [u8],
    start: usize,
    kind: &'b [u8],
    is_log: bool,
    json: Json,
    at: usize,
    pieces: Vec<Range<usize>>,
    /// Of the piece being read: where it begins, where its part of the record begins, when it was
    /// written.
    piece: usize,
    record: usize,
    time: &'b [u8],
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
    fn new(repair: &'r mut Repair, body: &'b [u8], header: &Header<'b>) -> Reading<'r, 'b> {
        let start = repair.at;
        Reading {
            repair,
            body,
            start,
            kind: header.kind,
            is_log: matches!(header.kind, b"function" | b"extension"),
            json: Json::default(),
            at: start,
            pieces: Vec::new(),
            piece: start,
            record: start + header.len,
            time: header.time,
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
                    self.take_seam(&next);
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

    /// The event has ended, whatever stands behind it. One in pieces, whose JSON may also have ended by chance, in the middle
    /// of what is another event, must be followed by one in Lambda's spelling, or by none.
    fn whole(&mut self) -> Option<Element> {
        if self.pieces.is_empty() {
            return Some(Element::Whole(self.start..self.at));
        }
        let next = skip_separators(self.body, self.at);
        if self.at != self.repair.end && (next == self.at || Header::at(self.body, next).is_none())
        {
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
            && next.kind == self.kind
            && times_are_within(self.time, next.time, MAX_PIECE_GAP_MS)
            && self.pieces.len() < MAX_PIECES
            && self.body.get(behind).is_some_and(|byte| self.json.accepts(*byte));
        if self.repair.reads > self.repair.max_reads || !(is_data || is_continuation) {
            return Err(Failed::At(self.at));
        }
        let is_long = self.at - self.record >= self.repair.min_cut_bytes;
        if is_continuation && (!is_data || is_long) {
            return Ok(true);
        }
        if is_not_before(next.time, self.time) {
            self.data.get_or_insert(self.at);
            if is_long {
                self.doubtful.get_or_insert(self.at);
            }
        }
        Ok(false)
    }

    fn take_seam(&mut self, next: &Header<'b>) {
        self.taken.get_or_insert(self.at);
        self.pieces.push(self.piece..self.at);
        self.at += 2 + next.len;
        (self.piece, self.record, self.time) = (self.at, self.at, next.time);
    }

    /// At the last brace of the body, in the middle of the record: the next body may continue it.
    fn end_of_body(&mut self) -> Result<Element, Failed> {
        let is_long = self.at - self.record >= self.repair.min_cut_bytes;
        let length = self.repair.end - self.start;
        let lost =
            self.doubtful.is_some() || (self.taken.is_none() && self.data.is_some() && !is_long);
        if !self.is_log
            || self.is_behind_record
            || self.repair.last
            || lost
            || length > MAX_HELD_BYTES
            || self.pieces.len() >= MAX_PIECES
        {
            return Err(Failed::Anywhere);
        }
        Ok(Element::Unfinished(self.start..self.repair.end))
    }
}

/// `{"time":"…","type":"…","record":`
struct Header<'a> {
    len: usize,
    time: &'a [u8],
    kind: &'a [u8],
}

impl<'a> Header<'a> {
    fn at(body: &'a [u8], start: usize) -> Option<Header<'a>> {
        // A time and a type are short, and have no escapes.
        let word = |from: usize| {
            let rest = body.get(from..)?;
            let end = rest.iter().take(64).position(|byte| matches!(byte, b'"' | b'\\'))?;
            rest.get(..end)
        };
        let rest = body.get(start..)?;
        let time = word(start + rest.strip_prefix(START).map(|_| START.len())?)?;
        let kind_at = START.len() + time.len() + TYPE.len();
        rest.get(START.len() + time.len()..)?.strip_prefix(TYPE)?;
        let kind = word(start + kind_at)?;
        rest.get(kind_at + kind.len()..)?.strip_prefix(RECORD)?;
        Some(Header { len: kind_at + kind.len() + RECORD.len(), time, kind })
    }
}

/// Whether a log that is JSON as it stands may have been cut nevertheless: one that is long, with a
/// seam in it.
pub(super) fn is_doubtful(event: &[u8], min_cut_bytes: usize) -> bool {
    event.len() > min_cut_bytes && find(event, min_cut_bytes, SEAM).is_some()
}

fn milliseconds(time: &[u8]) -> Option<clock::EpochMs> {
    std::str::from_utf8(time).ok().and_then(clock::parse_iso8601)
}

fn times_are_within(one: &[u8], other: &[u8], gap: u64) -> bool {
    match (milliseconds(one), milliseconds(other)) {
        (Some(one), Some(other)) => one.abs_diff(other) <= gap,
        (None, None) => true,
        _ => false,
    }
}

fn is_not_before(one: &[u8], other: &[u8]) -> bool {
    match (milliseconds(one), milliseconds(other)) {
        (Some(one), Some(other)) => one + MAX_DISORDER_MS >= other,
        (None, None) => true,
        _ => false,
    }
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

/// Whether an element may end at `at`.
fn is_separated(body: &[u8], at: usize) -> bool {
    let rest = body.get(at..).unwrap_or_default();
    matches!(rest.iter().find(|byte| !byte.is_ascii_whitespace()), None | Some(b',' | b']'))
}

fn skip_separators(body: &[u8], at: usize) -> usize {
    let rest = body.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| byte.is_ascii_whitespace() || b"[],".contains(byte)).count()
}

/// The end without the array's closing bracket.
fn end_of_last_element(body: &[u8]) -> usize {
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

/// A reader of JSON that can be asked at any byte where it is. As strict as serde, but for UTF-8,
/// which it does not look at.
#[derive(Debug, Default)]
struct Json {
    state: State,
    /// Open arrays and objects: a bit each, 1 for an object; the last is the innermost.
    open: Vec<u64>,
    depth: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Value,
    /// Behind `[`
    FirstValue,
    /// Behind `{`
    FirstKey,
    Key,
    Colon,
    AfterValue,
    Text(Role),
    Escape(Role),
    /// So many hexadecimal digits are missing.
    Hex(Role, u8),
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    ExponentMark,
    ExponentSign,
    Exponent,
    /// What is missing of `true`, `false` or `null`.
    Word(&'static [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Key,
    Value,
}

enum Step {
    To(State),
    Open { object: bool },
    Close,
}

impl Json {
    /// Takes the next byte; `false` if it cannot stand here.
    fn read(&mut self, byte: u8) -> bool {
        match self.step(byte) {
            None => return false,
            Some(Step::To(state)) => self.state = state,
            Some(Step::Open { object }) => {
                if self.depth.is_multiple_of(64) {
                    self.open.push(0);
                }
                if let Some(bits) = self.open.last_mut() {
                    *bits = (*bits << 1) | u64::from(object);
                }
                self.depth += 1;
                self.state = if object { State::FirstKey } else { State::FirstValue };
            }
            Some(Step::Close) => {
                self.depth -= 1;
                if self.depth.is_multiple_of(64) {
                    self.open.pop();
                } else if let Some(bits) = self.open.last_mut() {
                    *bits >>= 1;
                }
                self.state = State::AfterValue;
            }
        }
        true
    }

    fn accepts(&self, byte: u8) -> bool {
        self.step(byte).is_some()
    }

    /// How many of these bytes may be passed over: inside a text, up to what may end it, an escape,
    /// a brace, or a control character, which no text holds. It looks at no byte behind that: what
    /// cannot be passed over would be looked at anew from each byte before it.
    fn plain_text(&self, bytes: &[u8]) -> usize {
        if !matches!(self.state, State::Text(_)) {
            return 0;
        }
        let ends = |byte: &u8| matches!(byte, b'"' | b'\\' | b'}' | ..=0x1f);
        bytes.iter().position(ends).unwrap_or(bytes.len())
    }

    /// Whether the innermost (0) or an outer (1, 2, …) open value is an object; `None` where none
    /// is open.
    fn is_object(&self, outwards: usize) -> Option<bool> {
        let index = self.depth.checked_sub(outwards + 1)?;
        let bits = self.open.get(index / 64)?;
        let last = if index / 64 == (self.depth - 1) / 64 { (self.depth - 1) % 64 } else { 63 };
        Some(bits >> (last - index % 64) & 1 == 1)
    }

    fn is_after_value(&self) -> bool {
        matches!(
            self.state,
            State::AfterValue | State::Zero | State::Digits | State::Fraction | State::Exponent
        )
    }

    /// A whole value, of which only a number could go on.
    fn is_whole(&self) -> bool {
        self.depth == 0 && self.is_after_value()
    }

    /// A whole array, object, text or word.
    fn is_closed(&self) -> bool {
        self.depth == 0 && self.state == State::AfterValue
    }

    /// Whether a closing brace would end the outermost object.
    fn closes_envelope(&self) -> bool {
        self.depth == 1 && self.is_after_value()
    }

    /// Whether a closing brace would end an object after which another one may follow.
    fn closes_object_in_array(&self) -> bool {
        self.is_after_value() && self.is_object(0) == Some(true) && self.is_object(1) == Some(false)
    }

    fn step(&self, byte: u8) -> Option<Step> {
        use State::*;
        let blank = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        let to = |state| Some(Step::To(state));
        match (self.state, byte) {
            (Value | FirstValue | FirstKey | Key | Colon | AfterValue, _) if blank => {
                to(self.state)
            }
            (FirstValue, b']') | (FirstKey, b'}') => Some(Step::Close),
            (Value | FirstValue, _) => match byte {
                b'"' => to(Text(Role::Value)),
                b'{' => Some(Step::Open { object: true }),
                b'[' => Some(Step::Open { object: false }),
                b'-' => to(Minus),
                b'0' => to(Zero),
                b'1'..=b'9' => to(Digits),
                b't' => to(Word(b"rue")),
                b'f' => to(Word(b"alse")),
                b'n' => to(Word(b"ull")),
                _ => None,
            },
            (FirstKey | Key, b'"') => to(Text(Role::Key)),
            (Colon, b':') => to(Value),
            (Text(role), b'"') => to(if role == Role::Key { Colon } else { AfterValue }),
            (Text(role), b'\\') => to(Escape(role)),
            (Text(_), b' '..) => to(self.state),
            (Escape(role), b'u') => to(Hex(role, 4)),
            (Escape(role), b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                to(Text(role))
            }
            (Hex(role, missing), _) if byte.is_ascii_hexdigit() => {
                to(if missing > 1 { Hex(role, missing - 1) } else { Text(role) })
            }
            (Minus, b'0') => to(Zero),
            (Minus, b'1'..=b'9') | (Digits, b'0'..=b'9') => to(Digits),
            (Zero | Digits, b'.') => to(Point),
            (Point | Fraction, b'0'..=b'9') => to(Fraction),
            (Zero | Digits | Fraction, b'e' | b'E') => to(ExponentMark),
            (ExponentMark, b'+' | b'-') => to(ExponentSign),
            (ExponentMark | ExponentSign | Exponent, b'0'..=b'9') => to(Exponent),
            (Word(rest), _) => match rest.split_first() {
                Some((next, [])) if *next == byte => to(AfterValue),
                Some((next, rest)) if *next == byte => to(Word(rest)),
                _ => None,
            },
            (AfterValue | Zero | Digits | Fraction | Exponent, _) => {
                match (self.is_object(0), byte) {
                    (Some(true), b'}') | (Some(false), b']') => Some(Step::Close),
                    (Some(true), b',') => to(Key),
                    (Some(false), b',') => to(Value),
                    (Some(_), _) if blank => to(AfterValue),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// Puts the pieces of a cut record side by side, in the place of the first.
pub(super) fn join(body: &mut [u8], pieces: &[Range<usize>]) -> Range<usize> {
    let start = pieces.first().map_or(0, |first| first.start);
    let mut end = start;
    for piece in pieces {
        body.copy_within(piece.clone(), end);
        end += piece.len();
    }
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = r#"{"time":"2026-11-23T09:15:45.012Z","type":"function","record":"#;

    /// The elements of a body, pieces joined; with marks on what is not whole.
    fn elements(body: &str, min_cut_bytes: usize) -> Vec<String> {
        let mut repair = Repair::new(body.as_bytes(), 0, min_cut_bytes, false);
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
            repair.reads <= (MAX_READS + 5) * body.len() + 100,
            "{} of {}",
            repair.reads,
            body.len()
        );
        all
    }

    #[test]
    fn a_text_is_passed_over_up_to_a_control_character() {
        let mut json = Json::default();
        assert!(json.read(b'"'));
        for (text, expected) in
            [("plain", 5), ("pl\u{1}ain\"", 2), ("\u{1f}", 0), ("a}", 1), ("b\\n", 1), ("", 0)]
        {
            assert_eq!(json.plain_text(text.as_bytes()), expected, "{text:?}");
        }
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

    #[test]
    fn the_reader_of_json_is_as_strict_as_serde() {
        let samples = [
            r#"{"a":[1,-0,2.5,1e5,1E+5,1.5e-5,0],"b":{},"c":[],"d":[[{}]],"é":"\"\\\/\b\f\n\r\t\u00e9日"}"#,
            " [ true , false , null , { \"x\" : \"\" } ] ",
            "[01]",
            "[1.]",
            "[.5]",
            "[-]",
            "[+1]",
            "[1e]",
            "[1e+]",
            "[tru]",
            "[nulll]",
            r#"["\x"]"#,
            r#"["\u12g4"]"#,
            "[\"\t\"]",
            "[1,]",
            "[,1]",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":1,}"#,
            r#"{1:2}"#,
            "[}",
            "{]",
            "[1 2]",
        ];
        let agree = |text: &str| {
            let mut json = Json::default();
            let accepted = text
                .bytes()
                .all(|byte| (json.is_closed() && byte.is_ascii_whitespace()) || json.read(byte))
                && json.is_whole();
            let serde =
                serde_json::from_str::<&serde_json::value::RawValue>(text.trim_ascii_start())
                    .is_ok();
            assert_eq!(accepted, serde, "{text}");
        };
        for sample in samples {
            agree(sample);
            // And each of them with one byte less or another.
            for at in (0..sample.len())
                .filter(|at| sample.is_char_boundary(*at) && sample.is_char_boundary(at + 1))
            {
                agree(&format!("{}{}", &sample[..at], &sample[at + 1..]));
                for other in [
                    "0", "1", "-", ".", "e", "\"", "\\", "{", "}", "[", "]", ",", ":", " ", "u",
                    "t",
                ] {
                    agree(&format!("{}{other}{}", &sample[..at], &sample[at + 1..]));
                }
            }
        }
        let deep = format!("{}{}", "[{\"a\":".repeat(500), "}]".repeat(500));
        agree(&deep.replace("\"a\":}", "\"a\":1}"));
        agree(&deep);
    }
}
