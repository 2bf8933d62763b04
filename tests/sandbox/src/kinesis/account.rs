//! The account: which events are on the stream, by `eventId` and against what Lambda handed over. Pure.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::store::StoredRecord;
pub use super::unpack::StoredEvent;
use super::unpack::unpack;
use crate::lambda::{Expected, SentEvent};

/// Text that marks a line of [`Lambda::flood`](crate::Lambda::flood); the account counts these by themselves.
pub(crate) const FLOOD_MARK: &str = "sandbox-flood-";

/// Every event on the stream.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// In the order of arrival.
    pub events: Vec<StoredEvent>,
    /// Lines that are no event.
    pub broken: Vec<Vec<u8>>,
}

/// What one process of the extension put on the stream, by the numbers of its `eventId`s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessAccount {
    /// How many events, repeats included.
    pub stored: usize,
    /// The highest number.
    pub highest: u64,
    /// Numbers from 1 to the highest that are not there.
    pub gaps: Vec<u64>,
    /// Numbers that are there more than once, and how often.
    pub repeats: Vec<(u64, usize)>,
}

/// An event that is on the stream with another `record` than it was sent with.
#[derive(Clone, Debug)]
pub struct Change {
    /// As Lambda posted it, when an event of that time and type is missing otherwise.
    pub sent: Option<SentEvent>,
    /// As it is on the stream.
    pub stored: StoredEvent,
}

/// What became of the events that Lambda handed over.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Events that the extension answered 200 for.
    pub handed: usize,
    /// Those of them that are on the stream.
    pub delivered: usize,
    /// Those that are not.
    pub lost: Vec<SentEvent>,
    /// Stored more often than they were posted.
    pub repeated: Vec<StoredEvent>,
    /// On the stream, but never sent like that.
    pub changed: Vec<Change>,
    /// With another `requestId` than that of the invocation, or without one.
    pub wrong_request_id: Vec<StoredEvent>,
    /// Without the three keys of Lambda in front.
    pub misshapen: Vec<StoredEvent>,
    /// Cut, with `truncatedBytes`.
    pub truncated: Vec<StoredEvent>,
    /// Shipped as `unparsed`.
    pub unparsed: Vec<StoredEvent>,
    /// Lines that are no event.
    pub broken: Vec<Vec<u8>>,
}

impl Account {
    pub(crate) fn of(records: &[StoredRecord]) -> Self {
        let (events, broken) = unpack(records);
        Self { events, broken }
    }

    /// Events of that type.
    #[must_use]
    pub fn of_type(&self, kind: &str) -> Vec<&StoredEvent> {
        self.events.iter().filter(|event| event.kind == kind).collect()
    }

    /// Events whose line contains `text`.
    #[must_use]
    pub fn containing(&self, text: &str) -> Vec<&StoredEvent> {
        let holds =
            |event: &&StoredEvent| memchr::memmem::find(&event.line, text.as_bytes()).is_some();
        self.events.iter().filter(holds).collect()
    }

    /// The records of all ledgers, in the order of arrival.
    #[must_use]
    pub fn ledgers(&self) -> Vec<serde_json::Value> {
        self.of_type("kinesis-telemetry.ledger").into_iter().map(StoredEvent::record_json).collect()
    }

    /// How many distinct lines of [`Lambda::flood`](crate::Lambda::flood) are there.
    #[must_use]
    pub fn flooded(&self) -> usize {
        let marks = self.events.iter().filter_map(|event| flood_number(&event.record));
        marks.collect::<std::collections::HashSet<_>>().len()
    }

    /// By process: the first half of `eventId`.
    #[must_use]
    pub fn by_process(&self) -> BTreeMap<String, ProcessAccount> {
        let mut numbers: BTreeMap<String, BTreeMap<u64, usize>> = BTreeMap::new();
        for (process, number) in self.events.iter().filter_map(StoredEvent::id) {
            *numbers.entry(process.to_owned()).or_default().entry(number).or_default() += 1;
        }
        let process = |numbers: BTreeMap<u64, usize>| {
            let highest = numbers.keys().next_back().copied().unwrap_or(0);
            ProcessAccount {
                stored: numbers.values().sum(),
                highest,
                gaps: (1..=highest).filter(|number| !numbers.contains_key(number)).collect(),
                repeats: numbers.into_iter().filter(|(_, count)| *count > 1).collect(),
            }
        };
        numbers.into_iter().map(|(name, numbers)| (name, process(numbers))).collect()
    }

    /// Holds the stream against what Lambda handed over. An event that was posted but never answered may be there or not.
    #[must_use]
    pub fn compare(&self, sent: &[SentEvent]) -> Comparison {
        let mut ledger = Ledger::of(sent);
        let mut result = Comparison { broken: self.broken.clone(), ..Comparison::default() };
        let mut strangers = Vec::new();
        for event in self
            .events
            .iter()
            .filter(|event| !event.is_own() && flood_number(&event.record).is_none())
        {
            if !event.well_formed {
                result.misshapen.push(event.clone());
            }
            if let Some(why) = ledger.take(event) {
                match why {
                    Taken::Once => {}
                    Taken::Again => result.repeated.push(event.clone()),
                    Taken::WrongId => result.wrong_request_id.push(event.clone()),
                }
            } else if event.truncated.is_some() {
                ledger.take_cut(event);
                result.truncated.push(event.clone());
            } else if event.kind == "unparsed" {
                result.unparsed.push(event.clone());
            } else {
                strangers.push(event.clone());
            }
        }
        result.handed = sent.iter().filter(|event| event.handed > 0).count();
        result.lost = ledger.missing();
        result.delivered = result.handed - result.lost.len();
        result.changed = strangers.into_iter().map(|stored| pair(&result.lost, stored)).collect();
        result
    }
}

fn pair(lost: &[SentEvent], stored: StoredEvent) -> Change {
    let twin = lost.iter().find(|event| event.time == stored.time && event.kind == stored.kind);
    Change { sent: twin.cloned(), stored }
}

/// The number in a flood line.
fn flood_number(record: &[u8]) -> Option<u64> {
    let start = memchr::memmem::find(&record[..record.len().min(64)], FLOOD_MARK.as_bytes())?
        + FLOOD_MARK.len();
    let digits = record[start..].split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

type Key = (String, String, Vec<u8>);

/// The sent events, to be ticked off. Equal ones (same time, type and record) are counted, not told apart.
struct Ledger<'a> {
    slots: HashMap<Key, Slot<'a>>,
}

#[derive(Default)]
struct Slot<'a> {
    sent: Vec<&'a SentEvent>,
    stored: usize,
}

enum Taken {
    Once,
    Again,
    WrongId,
}

impl<'a> Ledger<'a> {
    fn of(sent: &'a [SentEvent]) -> Self {
        let mut slots: HashMap<Key, Slot<'a>> = HashMap::new();
        for event in sent {
            let key = (event.time.clone(), event.kind.clone(), one_line(&event.record));
            slots.entry(key).or_default().sent.push(event);
        }
        Self { slots }
    }

    fn take(&mut self, event: &StoredEvent) -> Option<Taken> {
        let key = (event.time.clone(), event.kind.clone(), event.record.clone());
        let slot = self.slots.get_mut(&key)?;
        slot.stored += 1;
        let posted: usize = slot.sent.iter().map(|sent| sent.offered as usize).sum();
        if slot.stored > posted.max(slot.sent.len()) {
            return Some(Taken::Again);
        }
        let right =
            slot.sent.iter().any(|sent| sent.request_id.allows(event.request_id.as_deref()));
        Some(if right { Taken::Once } else { Taken::WrongId })
    }

    /// An event whose record was cut: its text is the beginning of one that was sent.
    fn take_cut(&mut self, event: &StoredEvent) {
        let Ok(text) = serde_json::from_slice::<String>(&event.record) else { return };
        let fits = |(key, slot): &(&Key, &mut Slot<'_>)| {
            key.0 == event.time && key.1 == event.kind && slot.stored == 0 && begins(&key.2, &text)
        };
        if let Some((_, slot)) = self.slots.iter_mut().find(fits) {
            slot.stored += 1;
        }
    }

    fn missing(self) -> Vec<SentEvent> {
        let mut missing: Vec<SentEvent> = Vec::new();
        for slot in self.slots.into_values() {
            let handed = slot.sent.iter().filter(|sent| sent.handed > 0);
            let lacking = handed.clone().count().saturating_sub(slot.stored);
            missing.extend(handed.take(lacking).map(|sent| (*sent).clone()));
        }
        missing.sort_by_key(|sent| sent.number);
        missing
    }
}

/// Whether the raw record, or the string that it is, begins with `text`.
fn begins(record: &[u8], text: &str) -> bool {
    let text = text.as_bytes();
    let whole = serde_json::from_slice::<String>(record);
    record.starts_with(text) || whole.is_ok_and(|whole| whole.as_bytes().starts_with(text))
}

/// Line ends between the tokens become spaces; inside strings raw JSON has none.
fn one_line(record: &[u8]) -> Vec<u8> {
    record.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

impl Comparison {
    /// Whether each event is there once, unchanged, with the right `requestId`.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.is_lossless()
            && self.repeated.is_empty()
            && self.truncated.is_empty()
            && self.unparsed.is_empty()
    }

    /// Whether each event is there at least once, unchanged, with the right `requestId`.
    #[must_use]
    pub fn is_lossless(&self) -> bool {
        self.lost.is_empty()
            && self.changed.is_empty()
            && self.wrong_request_id.is_empty()
            && self.misshapen.is_empty()
            && self.broken.is_empty()
    }

    /// # Panics
    /// Unless [`Comparison::is_clean`]; the message says what is wrong.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.is_clean(), "{self}");
    }

    /// # Panics
    /// Unless [`Comparison::is_lossless`]; the message says what is wrong.
    #[track_caller]
    pub fn assert_lossless(&self) {
        assert!(self.is_lossless(), "{self}");
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "handed {}, delivered {}, lost {}, repeated {}, changed {}, wrong request id {}, misshapen {}, truncated {}, unparsed {}, broken {}",
            self.handed,
            self.delivered,
            self.lost.len(),
            self.repeated.len(),
            self.changed.len(),
            self.wrong_request_id.len(),
            self.misshapen.len(),
            self.truncated.len(),
            self.unparsed.len(),
            self.broken.len()
        )?;
        for sent in self.lost.iter().take(5) {
            writeln!(f, "  lost: {sent}")?;
        }
        let lists = [
            ("repeated", &self.repeated),
            ("wrong request id", &self.wrong_request_id),
            ("misshapen", &self.misshapen),
            ("truncated", &self.truncated),
            ("unparsed", &self.unparsed),
        ];
        for (what, events) in lists {
            for event in events.iter().take(5) {
                writeln!(f, "  {what}: {}", short(&event.line))?;
            }
        }
        for change in self.changed.iter().take(5) {
            writeln!(f, "  changed: {}", short(&change.stored.line))?;
            if let Some(sent) = &change.sent {
                writeln!(f, "     sent: {sent}")?;
            }
        }
        for line in self.broken.iter().take(5) {
            writeln!(f, "  broken: {}", short(line))?;
        }
        Ok(())
    }
}

/// The beginning of `bytes` as text.
pub(crate) fn short(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]);
    if bytes.len() > 300 { format!("{text}… ({} bytes)", bytes.len()) } else { text.into_owned() }
}

impl Expected {
    /// Whether a line with this `requestId`, or none, is right.
    #[must_use]
    pub fn allows(&self, found: Option<&str>) -> bool {
        match self {
            Self::Is(id) => found == Some(id.as_str()),
            Self::Absent => found.is_none(),
            Self::Any => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(number: usize, record: &str, id: Expected) -> SentEvent {
        let time = format!("2026-11-23T09:15:45.{number:03}Z");
        SentEvent {
            number,
            offered: 1,
            handed: 1,
            ..SentEvent::new("function".to_owned(), record.into(), id, time)
        }
    }

    fn line(event: &SentEvent, record: &str, rest: &str) -> String {
        format!(
            "{{\"time\":\"{}\",\"type\":\"{}\",\"record\":{record}{rest}}}\n",
            event.time, event.kind
        )
    }

    fn account(lines: &[String]) -> Account {
        let data = lines.concat().into_bytes();
        let at = std::time::Instant::now();
        let (partition_key, sequence_number) = (String::new(), String::new());
        Account::of(&[StoredRecord { put: 1, at, shard: 0, partition_key, sequence_number, data }])
    }

    #[test]
    fn whole_and_unchanged() {
        let events = [
            sent(0, r#""a""#, Expected::Is("x".to_owned())),
            sent(1, "{\"b\":\n1.0}", Expected::Absent),
        ];
        let lines = [
            line(&events[0], r#""a""#, r#","requestId":"x""#),
            line(&events[1], r#"{"b": 1.0}"#, ""),
        ];
        let compared = account(&lines).compare(&events);
        compared.assert_clean();
        assert_eq!((compared.handed, compared.delivered), (2, 2));
    }

    #[test]
    fn lost_repeated_changed_and_wrong() {
        let is = |id: &str| Expected::Is(id.to_owned());
        let events = [
            sent(0, r#""lost""#, is("x")),
            sent(1, r#""twice""#, is("x")),
            sent(2, r#"{"a":1.0}"#, Expected::Absent),
            sent(3, r#""id""#, is("x")),
        ];
        let lines = [
            line(&events[1], r#""twice""#, r#","requestId":"x""#),
            line(&events[1], r#""twice""#, r#","requestId":"x""#),
            line(&events[2], r#"{"a":1}"#, ""),
            line(&events[3], r#""id""#, r#","requestId":"y""#),
            "nonsense\n".to_owned(),
        ];
        let compared = account(&lines).compare(&events);
        let lost: Vec<usize> = compared.lost.iter().map(|event| event.number).collect();
        assert_eq!(lost, [0, 2]);
        assert_eq!(
            (compared.repeated.len(), compared.broken.len(), compared.wrong_request_id.len()),
            (1, 1, 1)
        );
        assert_eq!(compared.changed[0].sent.as_ref().unwrap().number, 2);
        assert!(!compared.is_lossless() && compared.to_string().contains("lost: #0"));
    }

    #[test]
    fn what_was_not_answered_may_be_there_or_not() {
        let mut unsure = sent(0, "1", Expected::Any);
        unsure.handed = 0;
        account(&[]).compare(&[unsure.clone()]).assert_clean();
        let lines = [line(&unsure, "1", "")];
        account(&lines).compare(&[unsure.clone()]).assert_clean();
        let mut posted_twice = unsure;
        posted_twice.offered = 2;
        account(&[lines[0].clone(), lines[0].clone()]).compare(&[posted_twice]).assert_clean();
    }

    #[test]
    fn equal_events_are_counted() {
        let events = [sent(0, "1", Expected::Any), sent(0, "1", Expected::Any)];
        assert_eq!(account(&[line(&events[0], "1", "")]).compare(&events).lost.len(), 1);
        account(&[line(&events[0], "1", ""), line(&events[0], "1", "")])
            .compare(&events)
            .assert_clean();
    }

    #[test]
    fn cut_events_are_found_by_their_beginning() {
        let event = sent(0, r#""abcdefgh""#, Expected::Any);
        let compared =
            account(&[line(&event, r#""abcd""#, r#","truncatedBytes":4"#)]).compare(&[event]);
        assert_eq!((compared.lost.len(), compared.truncated.len()), (0, 1));
    }

    #[test]
    fn numbers_have_gaps_and_repeats() {
        let event = sent(0, "1", Expected::Any);
        let numbered =
            |number: u64| line(&event, "1", &format!(r#","eventId":"00000000000000aa-{number}""#));
        let processes = account(&[numbered(1), numbered(3), numbered(3)]).by_process();
        let expected =
            ProcessAccount { stored: 3, highest: 3, gaps: vec![2], repeats: vec![(3, 2)] };
        assert_eq!(processes["00000000000000aa"], expected);
    }

    #[test]
    fn flood_lines_are_counted_apart() {
        let event = sent(0, "1", Expected::Any);
        let flood =
            |number: u64| line(&event, &format!(r#""{FLOOD_MARK}{number:09} the quick""#), "");
        let account = account(&[flood(0), flood(1), flood(1)]);
        assert_eq!(account.flooded(), 2);
        account.compare(&[]).assert_clean();
    }
}
