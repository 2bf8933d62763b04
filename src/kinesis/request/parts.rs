//! What becomes of a request after it was packed: the records that failed are kept, or it is
//! divided, put into another form, or made again of what a spool has of it. No record is packed
//! anew, unless its lines are taken apart or put together. Pure.

use std::borrow::Cow;

use sha2::Digest;

use super::{Added, ROOM_BEHIND, Request};
use crate::kinesis::record::{self, Compression, Limits, MAX_RECORDS, Record, RecordFormat};
use crate::kinesis::wire::{self, Wire};

/// What a record has beside its data and key, in either form.
const FRAME: usize = 32;
/// No event is shorter: it has a type and an id.
const SHORTEST_LINE: usize = 16;

impl Request {
    /// Keeps the records that `wanted` says, in their order; the body is then to be finished again.
    pub fn keep(&mut self, mut wanted: impl FnMut(usize) -> bool) {
        let old = std::mem::take(&mut self.records);
        let (head, separator) = (self.limits.wire.head().len(), self.limits.wire.separator());
        let mut end = head;
        for (index, mut record) in old.into_iter().enumerate() {
            if !wanted(index) {
                self.payload -= record.bytes;
                continue;
            }
            if end > head {
                if let Some(place) = self.body.get_mut(end..end + separator.len()) {
                    place.copy_from_slice(separator);
                }
                end += separator.len();
            }
            let length = record.range.len();
            self.body.copy_within(record.range.clone(), end);
            record.range = end..end + length;
            end += length;
            self.records.push(record);
        }
        self.body.truncate(end);
        self.hasher.reset();
        self.hashed = 0;
        self.finished = None;
    }

    /// What is in each record, for keeping it elsewhere: its key, how many events, and the data as
    /// Kinesis decodes it. Of a sealed request.
    pub fn contents(&self) -> impl Iterator<Item = (&str, u64, Cow<'_, [u8]>)> + '_ {
        self.records.iter().filter_map(|record| {
            let (data, key) = self.data_and_key(record)?;
            Some((key, record.events, self.limits.wire.decode(data)?))
        })
    }

    /// Adds a record that was packed before and kept elsewhere, as it is, or to the one before
    /// where both may be one. Says whether it can have been made here. It may be one more than the
    /// limit of bytes allows: whoever keeps records has an eye on that.
    #[must_use]
    pub fn add_packed(&mut self, key: &str, events: u64, data: &[u8]) -> bool {
        // An event is a line of its own, unless what was compressed holds more.
        let is_plain = self.limits.compression == Compression::None;
        let most = if is_plain { data.len() } else { self.limits.record_bytes };
        if !wire::is_key(key) || events > (most / SHORTEST_LINE) as u64 {
            return false;
        }
        if is_plain
            && self.limits.record == RecordFormat::Lines
            && self.add_text(Some(key), events, data, |_| ()) == Added::Yes
        {
            return true;
        }
        if self.len() == MAX_RECORDS {
            return false;
        }
        self.close();
        let (start, bytes) = (self.begin_record(), data.len() + key.len());
        self.limits.wire.append(data, &mut self.body);
        self.limits.wire.close(start, key, &mut self.body);
        self.payload += bytes;
        self.records.push(Record { range: start..self.body.len(), events, bytes });
        true
    }

    /// The lines of each record, decoded and unpacked, for those who have to read them again.
    pub fn data(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.records.iter().filter_map(|record| {
            let body = self.body.get(record.range.clone())?;
            record::lines(self.limits.wire, body, self.limits.record_bytes)
        })
    }

    fn data_and_key(&self, record: &Record) -> Option<(&[u8], &str)> {
        self.limits.wire.data_and_key(self.body.get(record.range.clone())?)
    }

    /// Gives it that form, if it has another one: the same records, to be finished again.
    pub fn convert(&mut self, wire: Wire) {
        if self.limits.wire == wire {
            return;
        }
        self.close();
        // What was packed here or restored is always readable; if it were not, it would rather stay
        // as it is than be lost.
        if let Some(converted) = self.converted(wire) {
            *self = converted;
        }
    }

    fn converted(&self, wire: Wire) -> Option<Request> {
        let limits = Limits { wire, ..self.limits };
        let frames = self.records.len() * FRAME + ROOM_BEHIND;
        let buffer = Vec::with_capacity(wire.encoded(self.payload) + frames);
        let mut other = Request::with_buffer(limits, buffer);
        for record in &self.records {
            let (data, key) = self.data_and_key(record)?;
            let start = other.begin_record();
            wire.append(&self.limits.wire.decode(data)?, &mut other.body);
            wire.close(start, key, &mut other.body);
            other.payload += record.bytes;
            other.records.push(Record { range: start..other.body.len(), ..record.clone() });
        }
        Some(other)
    }

    /// Takes the records that are not `wanted` out, into a request of their own; both are to be
    /// finished again.
    #[must_use]
    pub fn divide(&mut self, wanted: impl Fn(usize) -> bool) -> Request {
        self.close();
        let mut others = Request::new(self.limits);
        for record in self
            .records
            .iter()
            .enumerate()
            .filter(|(index, _)| !wanted(*index))
            .map(|(_, record)| record)
        {
            if !others.records.is_empty() {
                others.body.extend_from_slice(self.limits.wire.separator());
            }
            let start = others.body.len();
            others.body.extend_from_slice(self.body.get(record.range.clone()).unwrap_or_default());
            others.payload += record.bytes;
            others.records.push(Record { range: start..others.body.len(), ..record.clone() });
        }
        self.keep(wanted);
        others
    }

    /// Splits a request in two: by its records, or where it has only one, by the lines of that.
    /// Both are to be finished again.
    ///
    /// # Errors
    /// Gives a request of one line back as it is.
    pub fn halve(mut self) -> Result<(Request, Request), Box<Request>> {
        self.close();
        if self.len() > 1 {
            let middle = self.len() / 2;
            let second = self.divide(|index| index < middle);
            return Ok((self, second));
        }
        let data: Vec<u8> = self.data().flatten().collect();
        let lines: Vec<&[u8]> = data.split_inclusive(|byte| *byte == b'\n').collect();
        let middle = lines.len() / 2;
        let key = self
            .records
            .first()
            .and_then(|record| self.data_and_key(record))
            .map(|(_, key)| key.to_owned());
        let parts = (middle > 0).then(|| {
            [lines.get(..middle), lines.get(middle..)]
                .map(|lines| self.repacked(lines.unwrap_or_default(), key.as_deref()))
        });
        match parts {
            Some([Some(first), Some(second)])
                if first.events() + second.events() == self.events() =>
            {
                Ok((first, second))
            }
            _ => Err(Box::new(self)),
        }
    }

    /// These lines in a request of the same form.
    fn repacked(&self, lines: &[&[u8]], key: Option<&str>) -> Option<Request> {
        let mut request = Request::new(self.limits);
        for line in lines {
            let added = request
                .add(key, u64::from(!record::is_internal(line)), |out| out.extend_from_slice(line));
            (added == Added::Yes).then_some(())?;
        }
        request.seal();
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LIMITS, add, read, sha256, stream};
    use super::*;
    use crate::kinesis::kpl::{self, Aggregate};
    use crate::kinesis::record::RecordFormat;

    #[test]
    fn only_the_wanted_records_stay() {
        for wire in [Wire::Json, Wire::Cbor] {
            only_the_wanted_records_stay_in(Limits { record: RecordFormat::Event, wire, ..LIMITS });
        }
    }

    fn only_the_wanted_records_stay_in(limits: Limits) {
        let mut request = Request::new(limits);
        for n in 0..7 {
            add(&mut request, Some("k"), &"x".repeat(SHORTEST_LINE + n));
        }
        request.finish(&stream());
        request.keep(|index| [0, 3, 6].contains(&index));
        let hash = request.finish(&stream());
        assert_eq!(hash, sha256(request.body()));
        assert_eq!(
            read(&request).iter().map(|(_, data)| data.len()).collect::<Vec<_>>(),
            [16, 19, 22]
        );
        assert_eq!(request.record(1), (1, 20));
        let mut restored_whole = kept(&request, limits);
        assert_eq!(restored_whole.finish(&stream()), hash);
        assert_eq!(restored_whole.body(), request.body());
        assert_eq!(restored_whole.data().map(|data| data.len()).collect::<Vec<_>>(), [16, 19, 22]);
        restored_whole.keep(|index| index == 1);
        restored_whole.finish(&stream());
        assert_eq!(read(&restored_whole)[0].1.len(), 19);
        let (mut first, mut second) = request.halve().unwrap();
        let hashes = [first.finish(&stream()), second.finish(&stream())];
        assert_eq!(hashes, [sha256(first.body()), sha256(second.body())]);
        assert_eq!(read(&first).len() + read(&second).len(), 3);
        assert_eq!(first.events() + second.events(), 3);
    }

    /// The listener hashes what it packs; what becomes of that until it is signed is the
    /// dispatcher's.
    #[test]
    fn what_was_hashed_ahead_is_signed_for_what_it_has_become() {
        type Change = fn(Request) -> Vec<Request>;
        let changes: [(&str, Change); 8] = [
            ("as it is", |request| vec![request]),
            ("sent again", |mut request| {
                request.finish(&stream());
                vec![request]
            }),
            ("a part of it sent again", |mut request| {
                request.finish(&stream());
                request.keep(|index| index % 2 == 1);
                request.hash_ahead();
                vec![request]
            }),
            ("before it was sent", |mut request| {
                request.keep(|index| index > 0);
                vec![request]
            }),
            ("divided", |mut request| {
                let others = request.divide(|index| index % 2 == 0);
                vec![request, others]
            }),
            ("halved, twice", |request| {
                let (first, second) = request.halve().unwrap();
                let (second, third) = second.halve().unwrap();
                vec![first, second, third]
            }),
            ("in the other form", |mut request| {
                request.convert(if request.wire() == Wire::Cbor { Wire::Json } else { Wire::Cbor });
                vec![request]
            }),
            ("with one more record", |mut request| {
                assert!(request.add_packed("k", 1, &[b'y'; SHORTEST_LINE]));
                request.seal();
                request.hash_ahead();
                vec![request]
            }),
        ];
        for wire in [Wire::Json, Wire::Cbor] {
            for (what, change) in changes {
                let mut request =
                    Request::new(Limits { record: RecordFormat::Event, wire, ..LIMITS });
                for n in 0..7 {
                    add(&mut request, Some("k"), &"x".repeat(SHORTEST_LINE + n));
                }
                request.seal();
                request.hash_ahead();
                for mut part in change(request) {
                    let hash = part.finish(&stream());
                    assert_eq!(hash, sha256(part.body()), "{what} {wire:?}");
                    assert!(!read(&part).is_empty());
                }
            }
        }
    }

    /// What waited when the endpoint refused CBOR, and what an earlier process has left; see
    /// [`Request::add_packed`].
    #[test]
    fn either_form_becomes_the_other_with_the_same_records() {
        use {Compression::Gzip, RecordFormat::Event, RecordFormat::Kpl, RecordFormat::Lines};
        for (record, compression) in
            [(Lines, Compression::None), (Event, Gzip), (Kpl, Compression::None), (Lines, Gzip)]
        {
            for (from, to) in [(Wire::Json, Wire::Cbor), (Wire::Cbor, Wire::Json)] {
                let limits = Limits { record, compression, wire: from, ..LIMITS };
                let fill = |wire: Wire| {
                    let mut request = Request::new(Limits { wire, ..limits });
                    for n in 0..40 {
                        let line = format!("{}\n", "x".repeat(n * 7));
                        let key = ["a", "another key"][n / 20];
                        assert_eq!(add(&mut request, Some(key), &line), Added::Yes);
                    }
                    request
                };
                // While its last record is open, finished, and made again of its records.
                for state in 0..3 {
                    let (mut request, mut other) = (fill(from), fill(to));
                    if state > 0 {
                        request.finish(&stream());
                    }
                    if state > 1 {
                        // By a process that packs otherwise.
                        request = kept(&request, Limits { wire: to, ..limits });
                        assert_eq!(request.wire(), to);
                    }
                    request.convert(to);
                    let hash = request.finish(&stream());
                    assert_eq!((request.wire(), &hash), (to, &other.finish(&stream())));
                    assert_eq!(hash, sha256(request.body()));
                    let places = |request: &Request| {
                        let records = request.records.iter();
                        records.map(|r| (r.range.clone(), r.events, r.bytes)).collect::<Vec<_>>()
                    };
                    assert_eq!(
                        (places(&request), request.payload),
                        (places(&other), other.payload)
                    );
                    assert!(request.cost() < request.body().len() + 4 * ROOM_BEHIND + 4096);
                    request.convert(to);
                    assert!(request.finished.is_some());
                }
            }
        }
    }

    /// A function logs what it reads of the stream: its log was taken for the extension's own
    /// event, so that a record that was refused could not be taken apart, and all of its events
    /// were given up with one.
    #[test]
    fn a_log_that_speaks_of_the_ledger_is_an_event() {
        let line = |record: &str| {
            format!(
                "{{\"time\":\"2026-11-23T09:15:45.012Z\",\"type\":\"function\",\"record\":{record}}}\n"
            )
        };
        let mut request = Request::new(LIMITS);
        add(&mut request, Some("k"), &line("1"));
        add(&mut request, Some("k"), &line(r#"{"type":"kinesis-telemetry.ledger"}"#));
        add(&mut request, Some("k"), &line(r#"{"type":"kinesis-telemetry.sandbox"}"#));
        let own = line("{}").replace("function", "kinesis-telemetry.ledger");
        request.add(Some("k"), 0, |out| out.extend_from_slice(own.as_bytes()));
        let (first, second) = request.halve().unwrap();
        assert_eq!((first.events(), second.events()), (2, 1));
        let (own, _) = (second.halve().unwrap().1, first);
        assert_eq!((own.len(), own.events()), (1, 0));
    }

    /// A part of it is sent again, in two parts, before the form changes.
    #[test]
    fn parts_of_a_request_change_their_form_too() {
        let limits = Limits { record: RecordFormat::Event, wire: Wire::Cbor, ..LIMITS };
        let mut request = Request::new(limits);
        for n in 0..9 {
            add(&mut request, Some("k"), &"x".repeat(SHORTEST_LINE + n));
        }
        request.finish(&stream());
        request.keep(|index| index % 2 == 0);
        let (first, second) = request.halve().unwrap();
        let sizes: Vec<usize> = [first, second]
            .into_iter()
            .flat_map(|mut part| {
                part.convert(Wire::Json);
                part.finish(&stream());
                read(&part).into_iter().map(|(_, data)| data.len())
            })
            .collect();
        assert_eq!(sizes, [16, 18, 20, 22, 24]);
    }

    /// What a spool has of it, in a request again.
    fn kept(request: &Request, limits: Limits) -> Request {
        let mut again = Request::new(limits);
        for (key, events, data) in request.contents() {
            assert!(again.add_packed(key, events, &data));
        }
        again.seal();
        again
    }

    #[test]
    fn records_that_were_kept_elsewhere_join_where_they_may() {
        use {Compression::Gzip, RecordFormat::Event, RecordFormat::Kpl, RecordFormat::Lines};
        let line = |n: usize| format!("{n:0>99}\n");
        for (record, compression, records) in [
            // Nine lines of 100 bytes and a key fit into 1000; each key has ten.
            (Lines, Compression::None, 4),
            (Lines, Gzip, 20),
            (Event, Compression::None, 20),
            (Kpl, Compression::None, 20),
        ] {
            for wire in [Wire::Json, Wire::Cbor] {
                let limits = Limits { record, compression, wire, ..LIMITS };
                let mut all = Request::new(limits);
                for n in 0..20 {
                    let mut one = Request::new(Limits { wire: Wire::Cbor, ..limits });
                    add(&mut one, Some(["a", "b"][n / 10]), &line(n));
                    one.seal();
                    let contents: Vec<_> = one.contents().collect();
                    assert!(
                        contents
                            .iter()
                            .all(|(key, events, data)| { all.add_packed(key, *events, data) })
                    );
                }
                let hash = all.finish(&stream());
                assert_eq!(hash, sha256(all.body()));
                assert_eq!((all.len(), all.events()), (records, 20), "{record:?} {compression:?}");
                let lines: Vec<u8> = all.data().flatten().collect();
                assert_eq!(lines, (0..20).map(line).collect::<String>().as_bytes());
            }
        }
    }

    #[test]
    fn what_could_not_have_been_made_here_is_not_added() {
        let line = b"a line of a log, with its end\n";
        for record in [RecordFormat::Lines, RecordFormat::Event, RecordFormat::Kpl] {
            let limits = Limits { record, ..LIMITS };
            let mut request = Request::new(limits);
            for (key, events) in [
                ("", 1),
                ("\"", 1),
                ("a\nb", 1),
                (&*"k".repeat(257), 1),
                ("k", 2),
                ("k", u64::MAX),
                ("k", 1 << 63),
            ] {
                assert!(!request.add_packed(key, events, line), "{key} {events}");
            }
            assert!(request.is_empty());
            for n in 0..MAX_RECORDS {
                assert!(request.add_packed(&format!("k{n}"), 1, line));
            }
            assert!(!request.add_packed("one more", 1, line));
            assert_eq!(request.len(), MAX_RECORDS);
        }
        // What was compressed may hold more than it has bytes.
        let limits = Limits { compression: Compression::Gzip, ..LIMITS };
        assert!(Request::new(limits).add_packed("k", 1000 / SHORTEST_LINE as u64, line));
        assert!(!Request::new(limits).add_packed("k", 1000 / SHORTEST_LINE as u64 + 1, line));
    }

    #[test]
    fn an_aggregate_in_an_aggregate_is_unpacked_once() {
        let mut data = b"the innermost".to_vec();
        for _ in 0..3 {
            let mut out = Vec::new();
            let mut aggregate = Aggregate::open("k", &mut out);
            kpl::frame(&mut data, 0);
            out.extend_from_slice(&data);
            aggregate.add(&data);
            aggregate.close(&mut out);
            data = out;
        }
        assert!(kpl::records(&record::unpacked(&data, 1000)).is_some());
    }
}
