//! The answer to a PutRecords that Kinesis accepted: one outcome for each record. Pure.

use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::cbor;
use super::error::{Error, ErrorKind, classify_record};
use super::error_body::clean;
use super::record::MAX_RECORDS;

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordOutcome {
    /// It has a sequence number.
    Taken,
    /// To be sent again.
    Failed {
        /// Why, in AWS's word.
        code: String,
        /// What that means: throttled, transient, or anything else.
        kind: ErrorKind,
    },
}

impl RecordOutcome {
    fn failed(code: &str) -> RecordOutcome {
        let code = Some(clean(code))
            .filter(|code| !code.is_empty())
            .unwrap_or_else(|| "NoSequenceNumber".to_owned());
        RecordOutcome::Failed { kind: classify_record(&code), code }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Response {
    records: Entries,
}

/// No more of them are kept than a request can have, however many come: an answer of 1 MiB would
/// become some 20 MiB.
#[derive(Default)]
struct Entries {
    kept: Vec<Entry>,
    count: usize,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries, D::Error> {
        struct Bounded;
        impl<'de> Visitor<'de> for Bounded {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of records")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries, A::Error> {
                let mut entries = Entries::default();
                while entries.count < MAX_RECORDS
                    && let Some(entry) = list.next_element()?
                {
                    entries.kept.push(entry);
                    entries.count += 1;
                }
                while list.next_element::<IgnoredAny>()?.is_some() {
                    entries.count += 1;
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_seq(Bounded)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    sequence_number: Option<String>,
    error_code: Option<String>,
}

/// One outcome for each of the `sent` records, in their order.
///
/// `FailedRecordCount` is not read: emulators are known to send it wrong. A record is taken if it
/// has a sequence number and no error code.
///
/// # Errors
/// If the body is no such answer, or is about another number of records: then nothing is known
/// about any of them.
pub fn read_outcomes(body: &[u8], sent: usize) -> Result<Vec<RecordOutcome>, Error> {
    let unreadable =
        |message: String| Error { ambiguous: true, ..Error::new("UnreadableResponse", message) };
    let json = cbor::is_map(body).then(|| cbor::to_json(body).unwrap_or_default());
    let body = json.as_deref().unwrap_or(body);
    let response: Response = crate::json::read(body).map_err(|error| {
        unreadable(format!("a 200 that is no answer to PutRecords ({:?})", error.classify()))
    })?;
    if response.records.count != sent {
        return Err(unreadable(format!(
            "an answer about {} records to a request of {sent}",
            response.records.count
        )));
    }
    let outcome = |entry: Entry| match (
        entry.error_code.filter(|code| !code.is_empty()),
        entry.sequence_number,
    ) {
        (None, Some(number)) if !number.is_empty() => RecordOutcome::Taken,
        (code, _) => RecordOutcome::failed(code.as_deref().unwrap_or_default()),
    };
    Ok(response.records.kept.into_iter().map(outcome).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_is_a_sequence_number_and_no_error_code() {
        let body = br#"{"FailedRecordCount":0,"Records":[
            {"SequenceNumber":"1","ShardId":"s"},{"SequenceNumber":"2","ErrorCode":null,"ErrorMessage":null},
            {"ErrorCode":"InternalFailure","ErrorMessage":"x"},{"SequenceNumber":"","ShardId":"s"},{},
            {"SequenceNumber":"3","ErrorCode":"ProvisionedThroughputExceededException"}]}"#;
        let failed = |code: &str, kind| RecordOutcome::Failed { code: code.to_owned(), kind };
        assert_eq!(
            read_outcomes(body, 6).unwrap(),
            [
                RecordOutcome::Taken,
                RecordOutcome::Taken,
                failed("InternalFailure", ErrorKind::Transient),
                failed("NoSequenceNumber", ErrorKind::InvalidRequest),
                failed("NoSequenceNumber", ErrorKind::InvalidRequest),
                failed("ProvisionedThroughputExceededException", ErrorKind::Throttled),
            ]
        );
    }

    #[test]
    fn an_answer_that_cannot_be_trusted_is_ambiguous() {
        for body in [
            b"".as_slice(),
            b"<html>",
            b"{}",
            br#"{"Records":[]}"#,
            br#"{"Records":[{"SequenceNumber":"1"}]}"#,
        ] {
            let error = read_outcomes(body, 2).unwrap_err();
            assert!(error.ambiguous && error.kind == ErrorKind::Transient);
        }
    }

    #[test]
    fn an_answer_about_more_records_than_there_can_be_is_counted_and_not_kept() {
        let body = |count: usize| {
            format!(r#"{{"Records":[{}]}}"#, vec![r#"{"SequenceNumber":"1"}"#; count].join(","))
        };
        assert_eq!(
            read_outcomes(body(MAX_RECORDS).as_bytes(), MAX_RECORDS).unwrap().len(),
            MAX_RECORDS
        );
        let error = read_outcomes(body(40_000).as_bytes(), MAX_RECORDS).unwrap_err();
        assert!(error.message.contains("40000 records to a request of 500"), "{error}");
        let kept = serde_json::from_str::<Response>(&body(40_000)).unwrap().records.kept;
        assert_eq!(kept.len(), MAX_RECORDS);
        assert!(kept.capacity() < 2 * MAX_RECORDS);
    }

    /// A code of 1 MB became a log line of 1 MB and stayed in the ledger.
    #[test]
    fn a_records_error_code_is_cleaned() {
        let body = format!(
            r#"{{"Records":[{{"ErrorCode":"{}"}},{{"ErrorCode":"\u001b[0m Bad\n"}},{{"ErrorCode":"\u0007"}}]}}"#,
            "x".repeat(1_000_000)
        );
        let codes: Vec<String> = read_outcomes(body.as_bytes(), 3)
            .unwrap()
            .into_iter()
            .map(|outcome| match outcome {
                RecordOutcome::Failed { code, .. } => code,
                RecordOutcome::Taken => panic!("a record with an error code is not taken"),
            })
            .collect();
        assert_eq!(codes, ["x".repeat(64).as_str(), "0mBad", "NoSequenceNumber"]);
    }
}
