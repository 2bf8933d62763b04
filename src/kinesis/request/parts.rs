//! What becomes of a request after it was sent: the records that failed are kept, or it is divided, put into another form, or restored from
//! what a spool has of it. No record is packed anew, unless its lines are taken apart. Pure.

use sha2::Digest;

use super::{Added, ROOM_BEHIND, Request};
use crate::kinesis::endpoint::Stream;
use crate::kinesis::record::{self, Compression, Limits, MAX_RECORDS, Record};
use crate::kinesis::wire::Wire;

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

    /// Where the records stand in a finished body, for keeping it elsewhere: of each its start, its length, its events and its decoded bytes.
    #[must_use]
    pub fn index(&self) -> Vec<[u64; 4]> {
        self.records
            .iter()
            .map(|r| [r.range.start as u64, r.range.len() as u64, r.events, r.bytes as u64])
            .collect()
    }

    /// A finished request again, from its body, its hash and its [`Request::index`]; `None` if they
    /// do not fit together, or the body is none that could have been made here for that stream.
    #[must_use]
    pub fn restore(
        limits: Limits,
        body: Vec<u8>,
        index: &[[u64; 4]],
        hash: &str,
        stream: &Stream,
    ) -> Option<Request> {
        // Whatever is packed by now: an earlier process, or this one, may have done it otherwise.
        let wire = Wire::of(&body);
        let limits = Limits { wire, ..limits };
        let mut request = Request::new(limits);
        let mut end = wire.head().len();
        for [start, length, events, bytes] in index {
            let start = usize::try_from(*start).ok()?;
            let range = start..start.checked_add(usize::try_from(*length).ok()?)?;
            let record = body.get(range.clone())?;
            let first = request.records.is_empty();
            let joined =
                if first { start == end } else { body.get(end..start)? == wire.separator() };
            let (data, key) = wire.data_and_key(record)?;
            let size = wire.decoded_length(data)? + key.len();
            // An event is a line of its own, unless what was compressed holds more.
            let most =
                if limits.compression == Compression::Gzip { limits.record_bytes } else { size };
            if !joined
                || request.records.len() == MAX_RECORDS
                || usize::try_from(*bytes) != Ok(size)
                || *events > (most / SHORTEST_LINE) as u64
            {
                return None;
            }
            end = range.end;
            request.payload += size;
            request.records.push(Record { range, events: *events, bytes: size });
        }
        if !body.starts_with(wire.head())
            || request.records.is_empty()
            || body.get(end..)? != wire.ending(stream)
        {
            return None;
        }
        request.body = body;
        request.hashed = request.body.len();
        request.finished = Some(hash.to_owned());
        Some(request)
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
        // What was packed here or restored is always readable; if it were not, it would rather stay as it is than be lost.
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

    /// Takes the records that are not `wanted` out, into a request of their own; both are to be finished again.
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

    /// Splits a request in two: by its records, or where it has only one, by the lines of that. Both are to be finished again.
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
        let index = request.index();
        let restored = |index: &[[u64; 4]]| {
            Request::restore(LIMITS, request.body().to_vec(), index, &hash, &stream())
        };
        let mut restored_whole = restored(&index).unwrap();
        assert!(
            restored(&[[1, 5, 1, 1]]).is_none()
                && restored(&[]).is_none()
                && restored(&[index[1], index[0]]).is_none()
        );
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

    /// What waited when the endpoint refused CBOR, and what an earlier process has left.
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
                // While its last record is open, finished, and restored from a file.
                for state in 0..3 {
                    let (mut request, mut other) = (fill(from), fill(to));
                    if state > 0 {
                        request.finish(&stream());
                    }
                    if state > 1 {
                        let (hash, index) = (request.finish(&stream()), request.index());
                        let body = request.body().to_vec();
                        // Restored by a process that packs otherwise.
                        let limits = Limits { wire: to, ..limits };
                        request = Request::restore(limits, body, &index, &hash, &stream()).unwrap();
                        assert_eq!(request.wire(), from);
                    }
                    request.convert(to);
                    let hash = request.finish(&stream());
                    assert_eq!((request.wire(), &hash), (to, &other.finish(&stream())));
                    assert_eq!(hash, sha256(request.body()));
                    assert_eq!((request.index(), request.payload), (other.index(), other.payload));
                    assert!(request.body().len() + 4 * ROOM_BEHIND > request.cost() - 4096);
                    request.convert(to);
                    assert!(request.finished.is_some());
                }
            }
        }
    }

    /// A function logs what it reads of the stream: its log was taken for the extension's own event, so that a record that was refused could
    /// not be taken apart, and all of its events were given up with one.
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

    #[test]
    fn what_could_not_have_been_made_here_is_not_restored() {
        for wire in [Wire::Json, Wire::Cbor] {
            what_could_not_have_been_made_here_in(wire);
        }
    }

    fn what_could_not_have_been_made_here_in(wire: Wire) {
        let line = "a line of a log, with its end\n";
        for (record, compression) in [
            (RecordFormat::Lines, Compression::None),
            (RecordFormat::Event, Compression::None),
            (RecordFormat::Kpl, Compression::None),
            (RecordFormat::Lines, Compression::Gzip),
            (RecordFormat::Event, Compression::Gzip),
            (RecordFormat::Kpl, Compression::Gzip),
        ] {
            let limits = Limits { record, compression, wire, ..LIMITS };
            let mut request = Request::new(limits);
            for key in ["k", "k", "another"] {
                add(&mut request, Some(key), line);
            }
            let hash = request.finish(&stream());
            let (body, index) = (request.body().to_vec(), request.index());
            let restore = |body: &[u8], index: &[[u64; 4]], stream: &Stream| {
                Request::restore(limits, body.to_vec(), index, &hash, stream)
            };
            let restored = restore(&body, &index, &stream()).unwrap();
            assert_eq!((restored.events(), restored.index()), (3, index.clone()), "{limits:?}");
            assert_eq!(restored.data().flatten().collect::<Vec<_>>(), line.repeat(3).as_bytes());

            assert!(restore(&body, &index, &Stream::Name("other".to_owned())).is_none());
            assert!(restore(&body, &index[..1], &stream()).is_none());
            assert!(restore(&body, &index[1..], &stream()).is_none());
            for (field, value) in
                [(0, 13), (1, 20), (1, u64::MAX), (2, 1 << 63), (2, 1000), (3, 1), (3, u64::MAX)]
            {
                let mut forged = index.clone();
                forged[0][field] = value;
                assert!(restore(&body, &forged, &stream()).is_none(), "{field} {value}");
            }
            let with = |from: &[u8], to: &[u8]| {
                let at = memchr::memmem::find(&body, from).unwrap();
                [&body[..at], to, &body[at + from.len()..]].concat()
            };
            let forgeries: &[(&[u8], &[u8])] = match wire {
                Wire::Json => &[
                    (b"\"telemetry\"", b"\"another\""),
                    (b"},{", b"} {"),
                    (b"{\"Data\":\"", b"{\"data\":\""),
                    (b"\"PartitionKey\":\"k\"", b"\"PartitionKey\":\"\\\""),
                ],
                Wire::Cbor => &[
                    (b"\x69telemetry", b"\x69telemetrz"),
                    (b"\x9f", b"\x82"),
                    (b"\xa2\x64Data\x5a", b"\xa2\x64Data\x7a"),
                    (b"\x64Data\x5a\x00", b"\x64Data\x5a\x01"),
                    (b"PartitionKey\x61k", b"PartitionKey\x61\""),
                    (b"PartitionKey\x61k", b"PartitionKey\x60k"),
                    (b"PartitionKey\x61k", b"PartitionKey\x41k"),
                ],
            };
            let extended = [[&body[..], b" "].concat(), [b" ", &body[..]].concat()];
            for forged in forgeries.iter().map(|(from, to)| with(from, to)).chain(extended) {
                assert!(restore(&forged, &index, &stream()).is_none(), "{forged:x?}");
            }
        }
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
