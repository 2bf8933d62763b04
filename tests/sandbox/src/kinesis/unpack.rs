//! Undoes what the extension did to events: gzip, lines, one event per record, KPL aggregates. Pure.

use std::io::Read;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::kpl::disaggregate;
use super::store::StoredRecord;

/// The keys of a line that the account needs; the rest stays in [`StoredEvent::line`].
#[derive(Deserialize)]
struct Line<'a> {
    time: String,
    r#type: String,
    #[serde(borrow)]
    record: &'a RawValue,
    #[serde(rename = "requestId")]
    request_id: Option<String>,
    #[serde(rename = "eventId")]
    event_id: Option<String>,
    #[serde(rename = "truncatedBytes")]
    truncated: Option<u64>,
}

/// One event on the stream.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// Which stored record it was in, from 0.
    pub record_index: usize,
    /// The request that brought it.
    pub put: u64,
    /// When it was stored.
    pub at: std::time::Instant,
    /// Of its Kinesis record.
    pub partition_key: String,
    /// The whole line as stored, without its line end.
    pub line: Vec<u8>,
    /// The event's own `time`.
    pub time: String,
    /// The event's own `type`.
    pub kind: String,
    /// The raw bytes of its `record`.
    pub record: Vec<u8>,
    /// `requestId` beside the record.
    pub request_id: Option<String>,
    /// `eventId` beside the record.
    pub event_id: Option<String>,
    /// `truncatedBytes` beside the record.
    pub truncated: Option<u64>,
    /// Whether the line begins with exactly `{"time":…,"type":…,"record":…`.
    pub well_formed: bool,
}

impl StoredEvent {
    fn parse(line: &[u8]) -> Option<Self> {
        let parsed: Line<'_> = serde_json::from_slice(line).ok()?;
        let head = format!(
            r#"{{"time":"{}","type":"{}","record":{}"#,
            parsed.time, parsed.r#type, parsed.record
        );
        Some(Self {
            record_index: 0,
            put: 0,
            at: std::time::Instant::now(),
            partition_key: String::new(),
            line: line.to_vec(),
            well_formed: line.starts_with(head.as_bytes()),
            record: parsed.record.get().as_bytes().to_vec(),
            time: parsed.time,
            kind: parsed.r#type,
            request_id: parsed.request_id,
            event_id: parsed.event_id,
            truncated: parsed.truncated,
        })
    }

    /// Whether it is the extension's own (`kinesis-telemetry.…`).
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.kind.starts_with("kinesis-telemetry.")
    }

    /// The line as JSON; null when serde_json cannot read it (lone surrogates).
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.line).unwrap_or_default()
    }

    /// The record as JSON; null when serde_json cannot read it.
    #[must_use]
    pub fn record_json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.record).unwrap_or_default()
    }

    /// The line as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.line).into_owned()
    }

    /// Both halves of `eventId`: the process and the number.
    #[must_use]
    pub fn id(&self) -> Option<(&str, u64)> {
        let (process, number) = self.event_id.as_deref()?.split_once('-')?;
        let hex = process.len() == 16 && process.bytes().all(|byte| byte.is_ascii_hexdigit());
        hex.then_some(())?;
        Some((process, number.parse().ok()?))
    }
}

/// Every event of the records, and what could not be read as one.
pub(super) fn unpack(records: &[StoredRecord]) -> (Vec<StoredEvent>, Vec<Vec<u8>>) {
    let mut events = Vec::new();
    let mut broken = Vec::new();
    for (index, record) in records.iter().enumerate() {
        // Consumers throw an aggregate away whose inner keys belong elsewhere: it counts as broken.
        if disaggregate(&record.data)
            .is_some_and(|inner| inner.iter().any(|(key, _)| *key != record.partition_key))
        {
            broken.push(record.data.clone());
            continue;
        }
        let inner = text(&record.data);
        for line in lines(&inner) {
            match StoredEvent::parse(line) {
                Some(event) => events.push(StoredEvent {
                    record_index: index,
                    put: record.put,
                    at: record.at,
                    partition_key: record.partition_key.clone(),
                    ..event
                }),
                None => broken.push(line.to_vec()),
            }
        }
    }
    (events, broken)
}

/// What is in a record's data, out of an aggregate and out of gzip.
pub(super) fn text(data: &[u8]) -> Vec<u8> {
    match disaggregate(data) {
        Some(inner) => inner.into_iter().flat_map(|(_, data)| inflate(&data)).collect(),
        None => inflate(data),
    }
}

/// Undoes gzip, where there is any; several members one after the other are one text.
fn inflate(data: &[u8]) -> Vec<u8> {
    if !data.starts_with(&[0x1f, 0x8b]) {
        return data.to_vec();
    }
    let mut text = Vec::new();
    match flate2::read::MultiGzDecoder::new(data).read_to_end(&mut text) {
        Ok(_) => text,
        Err(_) => data.to_vec(),
    }
}

/// The lines of a record; or the elements of an array, as a program that forwards bodies as they came stores them.
fn lines(data: &[u8]) -> Vec<&[u8]> {
    if data.first() == Some(&b'[')
        && let Ok(elements) = serde_json::from_slice::<Vec<&RawValue>>(data)
    {
        return elements.into_iter().map(|element| element.get().as_bytes()).collect();
    }
    data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn record(data: &[u8]) -> StoredRecord {
        StoredRecord {
            put: 1,
            at: std::time::Instant::now(),
            shard: 0,
            partition_key: "k".to_owned(),
            sequence_number: "49".to_owned(),
            data: data.to_vec(),
        }
    }

    const LINE: &str =
        r#"{"time":"t","type":"function","record":{"a": 1.50},"eventId":"00000000000000aa-7"}"#;

    #[test]
    fn lines_gzip_and_arrays() {
        let lines = format!("{LINE}\n{LINE}\n");
        assert_eq!(unpack(&[record(lines.as_bytes())]).0.len(), 2);
        let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zipped.write_all(lines.as_bytes()).unwrap();
        assert_eq!(unpack(&[record(&zipped.finish().unwrap())]).0.len(), 2);
        assert_eq!(unpack(&[record(format!("[{LINE},{LINE}]").as_bytes())]).0.len(), 2);
        assert_eq!(unpack(&[record(b"{\"time\":1}\nnonsense\n")]).1.len(), 2);
    }

    #[test]
    fn raw_bytes_and_ids_are_kept() {
        let events = unpack(&[record(LINE.as_bytes())]).0;
        assert_eq!(events[0].record, br#"{"a": 1.50}"#);
        assert_eq!(events[0].id(), Some(("00000000000000aa", 7)));
        assert!(events[0].well_formed);
        let turned = br#"{"type":"function","time":"t","record":1}"#;
        assert!(!unpack(&[record(turned)]).0[0].well_formed);
    }
}
