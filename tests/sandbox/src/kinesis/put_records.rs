//! One `PutRecords` call: what Kinesis takes, where each record goes, and the answer. Pure.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

use base64::Engine as _;
use ciborium::Value;
use md5::{Digest, Md5};
use serde::Deserialize;

use super::faults::{Plan, hits};

/// The most records that a request holds.
pub const MAX_RECORDS: usize = 500;

/// The most characters of a partition key.
pub const MAX_KEY_CHARS: usize = 256;

/// What the stream takes; see [`KinesisBuilder`](super::KinesisBuilder).
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) request_bytes: usize,
    pub(crate) record_bytes: usize,
}

/// What a body says, in whatever form.
struct Call {
    records: Vec<Entry>,
    stream_name: Option<String>,
    stream_arn: Option<String>,
}

struct Entry {
    data: Vec<u8>,
    partition_key: Option<String>,
    explicit_hash_key: Option<String>,
}

impl Call {
    fn from_json(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Body<'a> {
            #[serde(borrow)]
            records: Option<Vec<Record<'a>>>,
            stream_name: Option<String>,
            #[serde(rename = "StreamARN")]
            stream_arn: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Record<'a> {
            #[serde(borrow)]
            data: Cow<'a, str>,
            partition_key: Option<String>,
            explicit_hash_key: Option<String>,
        }
        let Body { records, stream_name, stream_arn } = serde_json::from_slice(body).ok()?;
        let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).ok();
        let entry = |record: Record<'_>| {
            let Record { data, partition_key, explicit_hash_key } = record;
            Some(Entry { data: decode(&data)?, partition_key, explicit_hash_key })
        };
        let records = records.unwrap_or_default().into_iter().map(entry).collect::<Option<_>>()?;
        Some(Self { records, stream_name, stream_arn })
    }

    /// Data are byte strings there; a text or a list of numbers is refused.
    fn from_cbor(body: &[u8]) -> Option<Self> {
        let mut rest = body;
        let whole: Value = ciborium::from_reader(&mut rest).ok()?;
        let mut whole = members(whole).filter(|_| rest.is_empty())?;
        let entry = |record: Value| {
            let mut record = members(record)?;
            Some(Entry {
                data: record.remove("Data")?.into_bytes().ok()?,
                partition_key: text(&mut record, "PartitionKey")?,
                explicit_hash_key: text(&mut record, "ExplicitHashKey")?,
            })
        };
        let records = match whole.remove("Records") {
            Some(list) => list.into_array().ok()?.into_iter().map(entry).collect::<Option<_>>()?,
            None => Vec::new(),
        };
        let (stream_name, stream_arn) =
            (text(&mut whole, "StreamName")?, text(&mut whole, "StreamARN")?);
        Some(Self { records, stream_name, stream_arn })
    }
}

type Members = HashMap<String, Value>;

fn members(value: Value) -> Option<Members> {
    let member = |(name, value): (Value, Value)| Some((name.into_text().ok()?, value));
    value.into_map().ok()?.into_iter().map(member).collect()
}

/// `Some(None)` where there is none.
fn text(members: &mut Members, name: &str) -> Option<Option<String>> {
    members.remove(name).map(|value| value.into_text()).transpose().ok()
}

/// A record of a request, decoded.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) data: Vec<u8>,
    pub(crate) key: String,
    pub(crate) shard: usize,
}

impl Record {
    /// As Kinesis counts it: decoded data and key.
    pub(crate) fn size(&self) -> usize {
        self.data.len() + self.key.len()
    }
}

/// A refusal of the whole request: the error's name and its text.
pub(crate) type Refusal = (&'static str, String);

/// Which stream this is.
pub(crate) struct Stream<'a> {
    pub(crate) name: &'a str,
    pub(crate) arn: &'a str,
    pub(crate) account: &'a str,
    pub(crate) shards: usize,
}

/// Reads a body and holds it against every limit.
pub(crate) fn parse(
    body: &[u8],
    is_cbor: bool,
    stream: &Stream<'_>,
    limits: &Limits,
) -> Result<Vec<Record>, Refusal> {
    let call = if is_cbor { Call::from_cbor(body) } else { Call::from_json(body) };
    let call = call.ok_or_else(|| ("SerializationException", String::new()))?;
    let entries = call.records;
    addressed(call.stream_name.as_deref(), call.stream_arn.as_deref(), stream)?;
    if entries.is_empty() || entries.len() > MAX_RECORDS {
        let bound = if entries.is_empty() {
            "greater than or equal to 1"
        } else {
            "less than or equal to 500"
        };
        return Err(validation("records", &format!("Member must have length {bound}")));
    }
    let mut records = Vec::with_capacity(entries.len());
    for (index, entry) in entries.into_iter().enumerate() {
        records.push(record(index, entry, stream.shards, limits)?);
    }
    if records.iter().map(Record::size).sum::<usize>() > limits.request_bytes {
        let limit = limits.request_bytes / 1_048_576;
        return Err(("InvalidArgumentException", format!("Records size exceeds {limit} MB limit")));
    }
    Ok(records)
}

fn validation(member: &str, constraint: &str) -> Refusal {
    let text = format!(
        "1 validation error detected: Value at '{member}' failed to satisfy constraint: {constraint}"
    );
    ("ValidationException", text)
}

fn addressed(name: Option<&str>, arn: Option<&str>, stream: &Stream<'_>) -> Result<(), Refusal> {
    if name.is_none() && arn.is_none() {
        return Err((
            "InvalidArgumentException",
            "Either StreamName or StreamARN must be provided".to_owned(),
        ));
    }
    if name.is_some_and(|name| name != stream.name) || arn.is_some_and(|arn| arn != stream.arn) {
        let sought = name.or(arn).unwrap_or_default();
        let text = format!("Stream {sought} under account {} not found.", stream.account);
        return Err(("ResourceNotFoundException", text));
    }
    Ok(())
}

fn record(index: usize, entry: Entry, shards: usize, limits: &Limits) -> Result<Record, Refusal> {
    let member = |name: &str| format!("records.{}.member.{name}", index + 1);
    let data = entry.data;
    let Some(key) = entry.partition_key else {
        return Err(validation(&member("partitionKey"), "Member must not be null"));
    };
    let characters = key.chars().count();
    if characters == 0 || characters > MAX_KEY_CHARS {
        let bound = if characters == 0 {
            "greater than or equal to 1"
        } else {
            "less than or equal to 256"
        };
        return Err(validation(
            &member("partitionKey"),
            &format!("Member must have length {bound}"),
        ));
    }
    if data.len() + key.len() > limits.record_bytes {
        let bound =
            format!("Member must have length less than or equal to {}", limits.record_bytes);
        return Err(validation(&member("data"), &bound));
    }
    let hash = match &entry.explicit_hash_key {
        Some(explicit) => explicit.parse::<u128>().map_err(|_| {
            let text = format!("Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was {explicit}");
            ("InvalidArgumentException", text)
        })?,
        None => u128::from_be_bytes(Md5::digest(key.as_bytes()).into()),
    };
    Ok(Record { data, key, shard: shard(hash, shards) })
}

/// The shard whose even share of the hash range holds `hash`.
fn shard(hash: u128, shards: usize) -> usize {
    if shards == 1 {
        return 0;
    }
    let shares = shards as u128;
    // 2^128 / shards, which a u128 cannot say in one step.
    let width = u128::MAX / shares + u128::from(u128::MAX % shares == shares - 1);
    usize::try_from(hash / width).unwrap_or(usize::MAX).min(shards - 1)
}

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordOutcome {
    /// Stored under this sequence number.
    Stored(String),
    /// Failed with this code, inside a 200.
    Failed(String),
}

/// What a shard says that has taken enough.
const THROTTLED: &str = "ProvisionedThroughputExceededException";

/// One outcome per record; `sequence` makes the number of a record that is stored, unless its shard has taken enough.
pub(crate) fn outcomes(
    records: &[Record],
    plan: &Plan,
    request: u64,
    mut sequence: impl FnMut(&Record) -> Option<String>,
) -> Vec<RecordOutcome> {
    let failure = |index: usize, record: &Record| {
        plan.records.iter().find(|(which, ..)| hits(which, request, index, &record.data))
    };
    let outcome = |(index, record): (usize, &Record)| match failure(index, record) {
        Some((_, code, _)) => RecordOutcome::Failed(code.clone()),
        None => sequence(record)
            .map_or_else(|| RecordOutcome::Failed(THROTTLED.to_owned()), RecordOutcome::Stored),
    };
    records.iter().enumerate().map(outcome).collect()
}

/// The body of the 200, with whatever lies the plan wants in it.
pub(crate) fn answer(records: &[Record], outcomes: &[RecordOutcome], plan: &Plan) -> Vec<u8> {
    if let Some(body) = &plan.replace {
        return body.clone();
    }
    let failed =
        outcomes.iter().filter(|outcome| matches!(outcome, RecordOutcome::Failed(_))).count()
            as u64;
    let mut body =
        format!(r#"{{"FailedRecordCount":{},"Records":["#, plan.count_lie.unwrap_or(failed));
    let count = outcomes.len().saturating_add_signed(plan.lengthen);
    for index in 0..count {
        if index > 0 {
            body.push(',');
        }
        // An answer that is too long repeats its last entry.
        let index = index.min(outcomes.len() - 1);
        entry(&mut body, &records[index], &outcomes[index], plan);
    }
    body.push_str("]}");
    body.into_bytes()
}

fn entry(body: &mut String, record: &Record, outcome: &RecordOutcome, plan: &Plan) {
    let _ = match outcome {
        RecordOutcome::Stored(number) => {
            let nulls =
                if plan.null_errors { r#","ErrorCode":null,"ErrorMessage":null"# } else { "" };
            write!(
                body,
                r#"{{"SequenceNumber":"{number}","ShardId":"shardId-{:012}"{nulls}}}"#,
                record.shard
            )
        }
        RecordOutcome::Failed(code) => {
            let scripted = plan
                .records
                .iter()
                .find(|(_, name, _)| name == code)
                .map(|(.., text)| text.clone());
            let message = scripted.unwrap_or_else(|| {
                format!(
                    "Rate exceeded for shard shardId-{:012} in stream under account.",
                    record.shard
                )
            });
            write!(body, r#"{{"ErrorCode":"{code}","ErrorMessage":"{message}"}}"#)
        }
    };
}

#[cfg(test)]
mod tests {
    use super::super::faults::{Fault, Faults, Which};
    use super::*;

    const STREAM: Stream<'_> = Stream {
        name: "telemetry",
        arn: "arn:aws:kinesis:us-east-1:123456789012:stream/telemetry",
        account: "123456789012",
        shards: 4,
    };
    const LIMITS: Limits = Limits { request_bytes: 5 * 1_048_576, record_bytes: 1_048_576 };

    fn body(records: &[(usize, &str)]) -> Vec<u8> {
        let entry = |(size, key): &(usize, &str)| {
            let data = base64::engine::general_purpose::STANDARD.encode(vec![b'x'; *size]);
            serde_json::json!({ "Data": data, "PartitionKey": key })
        };
        let records: Vec<_> = records.iter().map(entry).collect();
        serde_json::json!({ "StreamName": "telemetry", "Records": records })
            .to_string()
            .into_bytes()
    }

    fn refusal(records: &[(usize, &str)]) -> &'static str {
        parse(&body(records), false, &STREAM, &LIMITS).map(|_| "").unwrap_or_else(|(code, _)| code)
    }

    #[test]
    fn limits_count_decoded_data_and_key() {
        assert_eq!(refusal(&[(1_048_575, "k")]), "");
        assert_eq!(refusal(&[(1_048_576, "k")]), "ValidationException");
        assert_eq!(refusal(&[(1_048_575, "k"); 5]), "");
        assert_eq!(refusal(&[(1_000_000, "k"); 6]), "InvalidArgumentException");
        assert_eq!(refusal(&[(1, "k"); 500]), "");
        assert_eq!(refusal(&[(1, "k"); 501]), "ValidationException");
        assert_eq!(refusal(&[]), "ValidationException");
        assert_eq!(refusal(&[(1, "")]), "ValidationException");
        assert_eq!(refusal(&[(1, &"é".repeat(256))]), "");
        assert_eq!(refusal(&[(1, &"é".repeat(257))]), "ValidationException");
    }

    #[test]
    fn a_stream_is_found_by_name_and_by_arn() {
        let put = |head: &str| {
            let body = format!(r#"{{{head}"Records":[{{"Data":"eA==","PartitionKey":"k"}}]}}"#);
            parse(body.as_bytes(), false, &STREAM, &LIMITS)
                .map(|_| "")
                .unwrap_or_else(|(code, _)| code)
        };
        assert_eq!(put(r#""StreamName":"telemetry","#), "");
        assert_eq!(
            put(r#""StreamARN":"arn:aws:kinesis:us-east-1:123456789012:stream/telemetry","#),
            ""
        );
        assert_eq!(put(r#""StreamName":"other","#), "ResourceNotFoundException");
        assert_eq!(put(""), "InvalidArgumentException");
    }

    #[test]
    fn keys_go_to_their_shards() {
        assert_eq!(shard(0, 4), 0);
        assert_eq!(shard(u128::MAX, 4), 3);
        assert_eq!((shard((1 << 127) - 1, 4), shard(1 << 127, 4)), (1, 2));
        assert_eq!(shard(u128::MAX, 1), 0);
        // MD5("a") = 0cc1…, MD5("b") = 92eb…
        let keys = parse(&body(&[(1, "a"), (1, "b")]), false, &STREAM, &LIMITS).unwrap();
        assert_eq!((keys[0].shard, keys[1].shard), (0, 2));
    }

    #[test]
    fn the_answer_names_each_record_in_order() {
        let records =
            parse(&body(&[(1, "a"), (1, "b"), (1, "c")]), false, &STREAM, &LIMITS).unwrap();
        let now = std::time::Instant::now();
        let mut faults = Faults::default();
        faults.set(Fault::throttle(Which::Indices(vec![1])), now);
        let plan = faults.plan(now, |_| false);
        let outcomes = outcomes(&records, &plan, 1, |record| Some(format!("49{}", record.shard)));
        let answer: serde_json::Value =
            serde_json::from_slice(&answer(&records, &outcomes, &plan)).unwrap();
        assert_eq!(answer["FailedRecordCount"], 1);
        assert_eq!(answer["Records"][1]["ErrorCode"], "ProvisionedThroughputExceededException");
        assert_eq!(answer["Records"][0]["SequenceNumber"], "490");
        assert_eq!(answer["Records"][0]["ShardId"], "shardId-000000000000");
    }

    #[test]
    fn cbor_says_the_same_and_its_data_are_bytes() {
        let put = |data: Value| {
            let text = |text: &str| Value::Text(text.to_owned());
            let record = vec![(text("Data"), data), (text("PartitionKey"), text("k"))];
            let whole = Value::Map(vec![
                (text("Records"), Value::Array(vec![Value::Map(record)])),
                (text("StreamName"), text("telemetry")),
            ]);
            let mut body = Vec::new();
            ciborium::into_writer(&whole, &mut body).unwrap();
            parse(&body, true, &STREAM, &LIMITS).map(|records| records[0].data.clone())
        };
        assert_eq!(put(Value::Bytes(vec![0, 0xff])).unwrap(), [0, 0xff]);
        assert_eq!(put(Value::Text("eA==".to_owned())).unwrap_err().0, "SerializationException");
        for (body, is_cbor) in [(body(&[(1, "k")]), true), (b"\xa0".to_vec(), false)] {
            let refusal = parse(&body, is_cbor, &STREAM, &LIMITS).unwrap_err();
            assert_eq!(refusal.0, "SerializationException");
        }
    }
}
