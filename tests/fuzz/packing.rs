//! Properties of packing: nothing lost, nothing twice, order kept within a partition key, limits held.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kinesis_telemetry_extension::kinesis::endpoint::Stream;
use kinesis_telemetry_extension::kinesis::record::{
    Compression, Limits, MAX_RECORDS, RecordFormat,
};
use kinesis_telemetry_extension::kinesis::request::{Added, Request};
use kinesis_telemetry_extension::kinesis::wire::Wire;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

/// A request in CBOR.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Whole {
    records: Vec<Stored>,
    stream_name: String,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    #[serde(rename = "Data", deserialize_with = "bytes")]
    data: Vec<u8>,
    #[serde(rename = "PartitionKey")]
    key: String,
}

fn bytes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let value: ciborium::Value = serde::Deserialize::deserialize(deserializer)?;
    value.into_bytes().map_err(|_| serde::de::Error::custom("data that are no bytes"))
}

/// Key and data of each record on the wire.
fn records(request: &mut Request) -> Vec<(String, Vec<u8>)> {
    let hash = request.finish(&Stream::Name("s".to_owned()));
    let expected: String =
        Sha256::digest(request.body()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, expected);
    if request.wire() == Wire::Cbor {
        let whole: Whole = ciborium::from_reader(request.body()).unwrap();
        assert_eq!(whole.stream_name, "s");
        return whole.records.into_iter().map(|record| (record.key, record.data)).collect();
    }
    let value: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
    let text = |record: &serde_json::Value, key: &str| record[key].as_str().unwrap().to_owned();
    let records = value["Records"].as_array().unwrap().iter();
    records
        .map(|record| {
            (text(record, "PartitionKey"), STANDARD.decode(text(record, "Data")).unwrap())
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_line_is_sent_once_in_order_and_within_the_limits(
        lines in prop::collection::vec((0usize..4, 0usize..3000), 0..400),
        record_bytes in 1024usize..8000,
        request_bytes in 2000usize..50_000,
        many_events: bool,
        cbor: bool,
        failing in prop::collection::vec(any::<bool>(), 500),
    ) {
        let record = if many_events { RecordFormat::Lines } else { RecordFormat::Event };
        let wire = if cbor { Wire::Cbor } else { Wire::Json };
        let limits = Limits { record_bytes, request_bytes, record, compression: Compression::None, wire };
        let line = |n: usize, key: usize, length: usize| format!("{n:06} {key} {}\n", "x".repeat(length));
        let mut sent: Vec<(String, Vec<u8>)> = Vec::new();
        let mut too_long = 0;
        let mut waiting: Vec<(usize, (usize, usize))> = lines.iter().copied().enumerate().collect();
        while !waiting.is_empty() {
            let mut request = Request::new(limits);
            let mut taken = 0;
            for (n, (key, length)) in &waiting {
                let text = line(*n, *key, *length);
                let name = format!("key{key}");
                match request.add(Some(&name), 1, |out| out.extend_from_slice(text.as_bytes())) {
                    Added::Yes => {}
                    Added::Full => break,
                    Added::TooLong(limit) => {
                        prop_assert_eq!(limit, record_bytes - 4);
                        prop_assert!(text.len() > limit);
                        too_long += 1;
                    }
                }
                taken += 1;
            }
            prop_assert!(taken > 0, "each request takes something");
            waiting.drain(..taken);
            let events = request.events();
            let mut first = records(&mut request);
            if failing[0] {
                // It turns out that the endpoint takes the other form only.
                request.convert(if cbor { Wire::Json } else { Wire::Cbor });
                prop_assert_eq!(&records(&mut request), &first);
            }
            prop_assert!(first.len() <= MAX_RECORDS);
            let sizes: Vec<usize> = first.iter().map(|(key, data)| key.len() + data.len()).collect();
            prop_assert!(sizes.iter().all(|size| *size <= record_bytes));
            prop_assert!(first.len() <= 1 || sizes.iter().sum::<usize>() <= request_bytes);
            prop_assert_eq!(events, first.iter().map(|(_, data)| data.iter().filter(|b| **b == b'\n').count() as u64).sum::<u64>());
            // Some fail and go again: only those, and unchanged.
            let again: Vec<_> = first.iter().enumerate().filter(|(n, _)| failing[*n]).map(|(_, record)| record.clone()).collect();
            if !again.is_empty() {
                request.keep(|index| failing[index]);
                prop_assert_eq!(&records(&mut request), &again);
                // Halved until each event stands alone: all of them, in their order, each under its own key.
                let events = request.events();
                let (mut parts, mut alone) = (vec![request], Vec::new());
                while let Some(part) = parts.pop() {
                    match part.halve() {
                        Ok((left, right)) => parts.extend([right, left]),
                        Err(part) => alone.push(*part),
                    }
                }
                prop_assert_eq!(alone.iter().map(Request::events).sum::<u64>(), events);
                prop_assert!(alone.iter().all(|part| part.len() == 1 && part.events() == 1));
                let alone: Vec<(String, Vec<u8>)> = alone.iter_mut().flat_map(records).collect();
                let lines = again.iter().flat_map(|(key, data)| data.split_inclusive(|b| *b == b'\n').map(move |line| (key.clone(), line.to_vec())));
                prop_assert_eq!(alone, lines.collect::<Vec<_>>());
            }
            sent.append(&mut first);
        }
        let mut by_key: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (key, data) in sent {
            by_key.entry(key).or_default().extend(data);
        }
        let mut expected: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (n, (key, length)) in lines.iter().enumerate() {
            let text = line(n, *key, *length);
            if text.len() + 4 <= record_bytes {
                expected.entry(format!("key{key}")).or_default().extend(text.bytes());
            }
        }
        prop_assert_eq!(lines.iter().enumerate().filter(|(n, (key, length))| line(*n, *key, *length).len() + 4 > record_bytes).count(), too_long);
        prop_assert!(by_key == expected);
    }
}
