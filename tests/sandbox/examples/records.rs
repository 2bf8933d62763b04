//! Writes what the extension puts on a stream, one file a form, as `aws kinesis get-records` prints it.
//!
//! `records BINARY FOLDER INVOCATIONS`: FOLDER/RECORD-COMPRESSION.json for each form; on stdout one JSON line each: its
//! events, and the CPU time that the extension took for them, in steps of 10 ms.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for tests and measurements: what is not as expected should stop it"
)]

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox::{Invocation, Kinesis, Lambda, SETTING_PREFIX};
use serde_json::{Value, json};

const SHARDS: usize = 4;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("usage: records BINARY FOLDER INVOCATIONS");
    let (binary, folder, invocations) =
        (PathBuf::from(next()), PathBuf::from(next()), next().parse().unwrap());
    std::fs::create_dir_all(&folder).unwrap();
    for record in ["event", "lines", "kpl"] {
        for compression in ["none", "gzip"] {
            let kinesis = Kinesis::builder().shards(SHARDS).start();
            let mut builder =
                Lambda::builder(&binary).kinesis(&kinesis).without_freeze().json_logs();
            for (name, value) in
                std::env::vars().filter(|(name, _)| name.starts_with(SETTING_PREFIX))
            {
                builder = builder.env(&name, &value);
            }
            let lambda = builder
                .setting("FLUSH", "end")
                .setting("RECORD", record)
                .setting("COMPRESSION", compression)
                .start();
            lambda.init().unwrap();
            let begun = lambda.stats();
            for number in 0..invocations {
                lambda.invoke(order(number)).unwrap();
            }
            let cpu = lambda.stats();
            assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
            let account = kinesis.account();
            account.compare(&lambda.sent()).assert_clean();
            let records: Vec<Value> = kinesis.records().iter().map(stored).collect();
            let file = folder.join(format!("{record}-{compression}.json"));
            std::fs::write(file, json!({ "Shards": SHARDS, "Records": records }).to_string())
                .unwrap();
            let cpu_ms =
                u64::try_from(cpu.cpu.saturating_sub(begun.cpu).as_millis()).unwrap_or_default();
            println!(
                "{}",
                json!({ "record": record, "compression": compression, "events": account.events.len(), "cpuMs": cpu_ms })
            );
        }
    }
}

fn stored(record: &sandbox::StoredRecord) -> Value {
    json!({
        "Data": STANDARD.encode(&record.data),
        "PartitionKey": record.partition_key,
        "SequenceNumber": record.sequence_number,
        "ShardId": format!("shardId-{:012}", record.shard),
    })
}

/// Ten log lines, as a web shop's function may write them: five of text, five of JSON, 100 to 500 bytes.
fn order(number: usize) -> Invocation {
    let noise =
        |n: usize| format!("{:016x}", (number * 10 + n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (0..5).fold(Invocation::new(), |invocation, n| {
        let id = noise(n);
        let basket: Vec<Value> = (0..n).map(|item| json!({"sku": noise(item + 5), "quantity": item + 1, "price": 4.95 * f64::from(item as u32 + 1)})).collect();
        invocation
            .text(&format!("order {id} step {n}: customer {} from 192.0.2.{} read {} rows in {} ms", noise(7), number % 256, number * 7 % 997, number * 13 % 89))
            .json(&json!({"timestamp": "2026-11-23T09:15:45.012Z", "level": "INFO", "logger": "orders.pricing", "message": "priced", "order": id, "basket": basket}))
    })
}
