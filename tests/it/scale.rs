//! Scale on paper: how evenly each `PARTITION_KEY` loads the shards of a large stream. No process is started.

use md5::{Digest, Md5};

use crate::docs;

const SANDBOXES: u64 = 10_000;
const SHARDS: usize = 64;
/// Records of each sandbox in the second that is looked at, all of one size.
const RECORDS: u64 = 10;

/// The shard of equal ones that Kinesis puts a key on: by the MD5 of the key, as a number.
fn shard(key: &str) -> usize {
    let hash = Md5::digest(key.as_bytes());
    let top = u64::from_be_bytes(hash[..8].try_into().unwrap());
    usize::try_from((u128::from(top) * SHARDS as u128) >> 64).unwrap()
}

/// 16 hex digits as the extension makes them; always the same ones, so that the table stays.
fn hex16(number: u64) -> String {
    // SplitMix64: good enough to stand for the kernel's random numbers.
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    format!("{:016x}", z ^ (z >> 31))
}

/// Each shard's load, as a multiple of the average.
fn loads(partition_key: &str) -> Vec<f64> {
    let mut counts = [0_u64; SHARDS];
    for sandbox in 0..SANDBOXES {
        for record in 0..RECORDS {
            let key = match partition_key {
                "sandbox" => hex16(sandbox + 1),
                "function" => "orders".to_owned(),
                // One request a record: as with FLUSH=end.
                _ => hex16(1_000_000 + sandbox * RECORDS + record),
            };
            counts[shard(&key)] += 1;
        }
    }
    let average = (SANDBOXES * RECORDS) as f64 / SHARDS as f64;
    counts.iter().map(|count| *count as f64 / average).collect()
}

/// The share of shards that get more than they take, in per cent, when the stream as a whole is used at `use_of_limit`.
fn over(loads: &[f64], use_of_limit: f64) -> f64 {
    loads.iter().filter(|load| **load * use_of_limit > 1.0).count() as f64 * 100.0
        / loads.len() as f64
}

#[test]
fn the_manual_shows_how_each_partition_key_spreads() {
    let mut table = "| `PARTITION_KEY` | busiest shard, of the average | over their limit at 50 % use | at 70 % | at 80 % | at 90 % |\n|---|---|---|---|---|---|\n".to_owned();
    for key in ["sandbox", "random", "function", "request"] {
        let loads = loads(key);
        let busiest = loads.iter().copied().fold(0.0, f64::max);
        let shares = [0.5, 0.7, 0.8, 0.9]
            .map(|use_of_limit| format!("{:.0} %", over(&loads, use_of_limit)))
            .join(" | ");
        table += &format!("| `{key}` | {busiest:.2} times | {shares} |\n");
        match key {
            "function" => assert!(busiest > 63.9),
            // The manual's rule.
            _ => assert!(busiest * 0.7 < 1.0, "{key}: {busiest}"),
        }
    }
    docs::assert_table(".github/docs/records.md", "scale", &table, "partition_key");
}
