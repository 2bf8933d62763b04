//! Writes what the extension puts on a stream, one file a run, as `aws kinesis get-records` prints it.
//!
//! `records BINARY FOLDER INVOCATIONS RUNS...`: FOLDER/NAME.json for each run, with the bodies that brought it; on stdout one JSON line each. The runs:
//! - `forms`: each form of records, RECORD-COMPRESSION
//! - `keep`: `KEEP=5%` with a summary of each invocation, keep-COMPRESSION
//! - `flush`: each `FLUSH` with a Kinesis that takes 20 ms, FLUSH
//! - `dashboard`: three functions with `KEEP=5%` and summaries, some of whose invocations fail
//!
//! A line says the run's settings, its events, for how long an invocation was held after its end (the median), and the CPU time
//! that the extension took for all of them, in steps of 10 ms.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for tests and measurements: what is not as expected should stop it"
)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox::{Fault, Invocation, Kinesis, Lambda, LambdaBuilder, SETTING_PREFIX, ms};
use serde_json::{Value, json};

const SHARDS: usize = 4;
/// So many invocations `adaptive` waits for, before it takes them for steady traffic.
const WARM_UP: usize = 20;
const KEEP: [(&str, &str); 2] = [("KEEP", "5%"), ("SUMMARY", "invocation")];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("usage: records BINARY FOLDER INVOCATIONS RUNS...");
    let (binary, folder, invocations) =
        (PathBuf::from(next()), PathBuf::from(next()), next().parse().unwrap());
    std::fs::create_dir_all(&folder).unwrap();
    let run = |name: &str, delay, settings: &[(&str, &str)]| {
        measure(&binary, &folder.join(name), invocations, delay, settings);
    };
    for kind in arguments {
        match kind.as_str() {
            "forms" => {
                for record in ["event", "lines", "kpl"] {
                    for compression in ["none", "gzip"] {
                        let form = [("RECORD", record), ("COMPRESSION", compression)];
                        run(&format!("{record}-{compression}"), None, &form);
                    }
                }
            }
            "keep" => {
                for compression in ["none", "gzip"] {
                    let [share, summary] = KEEP;
                    let settings = [("COMPRESSION", compression), share, summary];
                    run(&format!("keep-{compression}"), None, &settings);
                }
            }
            "flush" => {
                for flush in ["end", "next", "adaptive"] {
                    run(flush, Some(ms(20)), &[("FLUSH", flush)]);
                }
            }
            other => {
                assert_eq!(other, "dashboard", "there is no such run");
                dashboard(&binary, &folder.join(other), invocations);
            }
        }
    }
}

/// A sandbox with the settings that the tool itself was given, and these.
fn sandbox(binary: &Path, kinesis: &Kinesis, settings: &[(&str, &str)]) -> LambdaBuilder {
    // Apart from what another sandbox has left on this machine.
    let builder = Lambda::builder(binary).kinesis(kinesis).tmp_in("TMPDIR");
    let builder = builder.without_freeze().json_logs();
    let given = std::env::vars().filter(|(name, _)| name.starts_with(SETTING_PREFIX));
    let builder = given.fold(builder, |builder, (name, value)| builder.env(&name, &value));
    let settings = [("FLUSH", "end")].iter().chain(settings);
    settings.fold(builder, |builder, (name, value)| builder.setting(name, value))
}

fn measure(
    binary: &Path,
    file: &Path,
    invocations: usize,
    delay: Option<Duration>,
    settings: &[(&str, &str)],
) {
    let kinesis = Kinesis::builder().shards(SHARDS).keep_bodies().start();
    let lambda = sandbox(binary, &kinesis, settings).start();
    lambda.init().unwrap();
    // A function that ends before Kinesis has answered would be held in `next`, too.
    let work = delay.map_or(Duration::ZERO, |delay| delay * 2);
    let mut begun = lambda.stats();
    let mut held = Vec::new();
    if let Some(delay) = delay {
        kinesis.fault(Fault::delay(delay).times(u32::MAX));
        (0..WARM_UP).for_each(|number| drop(lambda.invoke(order(number).work(work)).unwrap()));
        begun = lambda.stats();
    }
    for number in 0..invocations {
        let invocation = order(number).request_id(&request_id(number as u64));
        held.push(lambda.invoke(invocation.work(work)).unwrap().held);
    }
    let cpu = lambda.stats();
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    let thinned: u64 =
        kinesis.account().ledgers().iter().filter_map(|one| one["thinned"].as_u64()).sum();
    let comparison = kinesis.account().compare(&lambda.sent());
    assert_eq!(comparison.lost.len() as u64, thinned, "{comparison:?}");
    let events = write(&kinesis, file);
    held.sort();
    let held = held.get(held.len() / 2).copied().unwrap_or_default();
    let cpu = cpu.cpu.saturating_sub(begun.cpu);
    let settings: HashMap<_, _> = settings.iter().copied().collect();
    let line = json!({
        "name": file.file_name().unwrap().to_str(), "settings": settings, "events": events,
        "heldMs": held.as_secs_f64() * 1000.0, "cpuMs": cpu.as_secs_f64() * 1000.0,
    });
    println!("{line}");
}

/// Writes what is on the stream; gives how many events that is.
fn write(kinesis: &Kinesis, file: &Path) -> usize {
    let times: HashMap<u64, SystemTime> =
        kinesis.puts().iter().map(|put| (put.number, put.time)).collect();
    let records: Vec<Value> = kinesis
        .records()
        .iter()
        .map(|record| stored(record, *times.get(&record.put).unwrap()))
        .collect();
    let bodies: Vec<String> =
        kinesis.puts().iter().filter_map(|put| Some(STANDARD.encode(put.body.as_ref()?))).collect();
    let whole = json!({ "Shards": SHARDS, "Records": records, "Bodies": bodies }).to_string();
    std::fs::write(file.with_extension("json"), whole).unwrap();
    kinesis.account().events.len()
}

/// What a dashboard shows: one function that is well, one that dies now and then, one that is large and dies once.
fn dashboard(binary: &Path, file: &Path, invocations: usize) {
    let kinesis = Kinesis::builder().shards(SHARDS).start();
    for (function, memory) in [("orders", 128), ("billing", 512), ("search", 1024)] {
        let builder = sandbox(binary, &kinesis, &KEEP).function(function, "$LATEST");
        let lambda = builder.memory(memory).start();
        lambda.init().unwrap();
        for number in 0..invocations {
            let invocation = order(number).work(ms(number as u64 * 7 % 13));
            let fails = match function {
                "billing" => number % 5 == 4,
                "search" => number == 3,
                _ => false,
            };
            let invocation = if fails { invocation.crashes() } else { invocation };
            lambda.invoke(invocation).unwrap();
        }
        assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    }
    let events = write(&kinesis, file);
    println!("{}", json!({ "name": "dashboard", "events": events }));
}

fn stored(record: &sandbox::StoredRecord, arrived: SystemTime) -> Value {
    let arrived = arrived.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    json!({
        "ApproximateArrivalTimestamp": arrived.as_millis() as f64 / 1000.0,
        "Data": STANDARD.encode(&record.data),
        "PartitionKey": record.partition_key,
        "SequenceNumber": record.sequence_number,
        "ShardId": format!("shardId-{:012}", record.shard),
    })
}

/// The same in each run, so that `KEEP` keeps the same ones: of 299 behind the first, 5 % are 15.
fn request_id(number: u64) -> String {
    let a = (number + 42).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let b = (a ^ (a >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let (first, second, third) = (a >> 32, a >> 16 & 0xffff, a & 0xfff);
    let (fourth, fifth) = (b >> 52, b & 0xffff_ffff_ffff);
    format!("{first:08x}-{second:04x}-4{third:03x}-9{fourth:03x}-{fifth:012x}")
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
