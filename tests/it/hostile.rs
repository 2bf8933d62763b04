//! Neighbours in the sandbox and answers from the wire that mean harm: nothing may end the
//! extension, bloat it, hold the function, or put foreign text into its words.
//!
//! | | threat | held by |
//! |---|---|---|
//! | 1 | a request that announces, or sends, more than there is | `lengths_that_lie_reserve_nothing_and_leave_nothing_behind`, `endless_bodies_are_read_only_so_far` |
//! | 2 | endless heads | `endless_heads_end_their_connection` |
//! | | many connections, many large bodies | `neighbours_that_hold_connections_keep_lambda_out_of_none`, `large_bodies_at_the_same_time_are_read_one_after_the_other`, `a_large_body_that_stalls_keeps_no_other_waiting`; `connections.rs` |
//! | | a body that becomes much more than it is | `no_body_costs_more_memory_than_there_is`, `no_body_costs_more_memory_on_its_way_to_the_disk`; `bodies.rs`: `a_long_event_costs_no_more_than_the_room_that_it_takes` |
//! | 3 | a CONNECT proxy that drips | `wire.rs`: `a_proxy_that_drips_holds_no_longer_than_the_setting` |
//! | 4, 5 | a `Date` that makes no sense, another one in each answer | `dates_that_make_no_sense_are_no_panic_and_no_storm`; `wire.rs`: `a_clock_that_makes_no_sense_is_not_followed_for_ever` |
//! | 6 | codes and texts of answers | `codes_of_a_megabyte_cost_nothing`; `wire.rs`: `codes_of_any_size_and_kind_stay_short_and_clean`; `check.rs`: `an_answer_cannot_move_the_cursor` |
//! | | an answer that becomes much larger when it is read | `answers_that_are_larger_than_any_answer_take_no_memory` |
//! | | endpoints that give no credentials, or refuse before they have read | `answers.rs` |
//! | 7 | files planted in the spool's folder | `files_planted_in_the_spool_cost_nothing`, `a_folder_that_is_a_link_is_not_used`, `a_segment_that_was_exchanged_is_not_sent` |
//! | 8 | secrets in settings, written well or not, and in answers that repeat them | `secrets.rs` |
//! | 9 | ids that a log claims | `ids_that_logs_claim_are_neither_theirs_nor_records`; `records.rs`: `what_a_json_log_says_of_itself_is_lifted` |
//! | 10 | POSTs to another path on Managed Instances | `lambda_variants.rs`: `on_managed_instances_any_path_is_taken_only_until_the_right_one_is_seen` |
//! | 11 | plain http to another machine | `plain_http_to_another_machine_is_reported_once`; `check.rs`: `plain_http_to_another_machine_is_noted` |
//! | 12 | bodies that are costly to repair | `no_body_costs_more_memory_than_there_is`; `lambda/repair.rs`: `reading_is_linear_whatever_comes`; `tests/fuzz/windows.rs`: `a_body_takes_time_for_its_length_however_many_parts_it_has`; `tests/fuzz` |

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sandbox::{Fault, Invocation, Kinesis, Lambda, ms, wait_until};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::neighbour::{Client, MEMORY_KIB, assert_peak, costly_bodies};
use crate::{end, extension, ledger, overflowing};

#[track_caller]
fn assert_memory(lambda: &Lambda) {
    let peak = lambda.stats().peak_kib;
    assert!(peak < MEMORY_KIB, "{peak} KiB at the peak");
}

fn spool_folder(lambda: &Lambda) -> PathBuf {
    lambda.tmp().join("kinesis-telemetry-extension")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path()).collect();
    files.sort();
    files
}

/// A segment taken apart, to be forged: every hash is made anew, so that all of it seems right.
#[derive(Clone)]
struct Segment {
    stream: String,
    /// The records of each batch.
    batches: Vec<Vec<Record>>,
}

#[derive(Clone)]
struct Record {
    /// The length of the key, the events, the length of the data, as they are said.
    head: [u32; 3],
    key: Vec<u8>,
    data: Vec<u8>,
}

const MAGIC: &[u8] = b"kinesis-telemetry-extension spool 3\n";

impl Segment {
    fn read(path: &Path, stream: &str) -> Segment {
        let bytes = std::fs::read(path).unwrap();
        let mut at = MAGIC.len();
        assert_eq!(bytes[..at], *MAGIC);
        let mut take = |count: usize| {
            at += count;
            bytes[at - count..at].to_vec()
        };
        let mut batches = Vec::new();
        let mut whole = MAGIC.len();
        while whole < bytes.len() {
            let length = u32::from_le_bytes(take(4).try_into().unwrap()) as usize;
            let (mut left, mut records) = (length, Vec::new());
            while left > 0 {
                let head = [0; 3].map(|_: u32| u32::from_le_bytes(take(4).try_into().unwrap()));
                let (key, data) = (take(head[0] as usize), take(head[2] as usize));
                left -= 12 + key.len() + data.len();
                records.push(Record { head, key, data });
            }
            batches.push(records);
            take(32);
            whole += 4 + length + 32;
        }
        Segment { stream: stream.to_owned(), batches }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let mut hash = Sha256::new_with_prefix(MAGIC)
            .chain_update("StreamName")
            .chain_update(&self.stream)
            .finalize();
        for batch in &self.batches {
            let mut records = Vec::new();
            for Record { head, key, data } in batch {
                records.extend(head.iter().flat_map(|number| number.to_le_bytes()));
                records.extend_from_slice(key);
                records.extend_from_slice(data);
            }
            let length = (records.len() as u32).to_le_bytes();
            hash = Sha256::new()
                .chain_update(hash)
                .chain_update(length)
                .chain_update(&records)
                .finalize();
            bytes.extend(length.iter().chain(&records).chain(hash.iter()));
        }
        bytes
    }

    fn forged(&self, change: impl FnOnce(&mut Segment)) -> Vec<u8> {
        let mut forged = self.clone();
        change(&mut forged);
        forged.bytes()
    }

    /// With its first record changed.
    fn with_record(&self, change: impl FnOnce(&mut Record)) -> Vec<u8> {
        self.forged(|segment| change(&mut segment.batches[0][0]))
    }
}

#[test]
fn files_planted_in_the_spool_cost_nothing() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).timeout(ms(20_000)).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::error(500, "InternalFailure"));
    let reset = lambda.invoke(Invocation::new().text("spooled").crashes()).unwrap().reset.unwrap();
    assert!(reset.is_clean(), "{:?}", lambda.stderr());
    let folder = spool_folder(&lambda);
    let own = Segment::read(&files(&folder)[0], kinesis.stream_name());
    assert_eq!(std::fs::read(&files(&folder)[0]).unwrap(), own.bytes(), "as the format is");

    let mut large = own.bytes();
    large.resize(64 << 20, b' ');
    let too_many: Vec<Record> = (0..501)
        .map(|n| {
            let Record { head, data, .. } = own.batches[0][0].clone();
            let key = format!("another key {n}").into_bytes();
            Record { head: [key.len() as u32, head[1], head[2]], key, data }
        })
        .collect();
    let mut endless = MAGIC.to_vec();
    endless.resize(1 << 20, 0xff);
    let mut cut_off = own.bytes();
    cut_off.truncate(100);
    let mut changed = own.bytes();
    changed[60] ^= 1;
    let planted = [
        own.with_record(|record| record.head[1] = 1 << 31),
        own.with_record(|record| record.head[1] = u32::MAX),
        own.with_record(|record| record.head[1] = 100_000),
        own.with_record(|record| record.head[0] = u32::MAX),
        own.with_record(|record| record.head[2] = u32::MAX),
        own.with_record(|record| record.head[0] += 1),
        own.with_record(|record| record.head[2] -= 1),
        own.with_record(|record| record.key[0] = b'"'),
        own.with_record(|record| record.key[0] = b'\n'),
        own.with_record(|record| record.key[0] = 0xff),
        own.forged(|segment| segment.batches.clear()),
        own.forged(|segment| segment.batches = vec![Vec::new(); 1000]),
        own.forged(|segment| segment.batches = vec![too_many.clone()]),
        own.forged(|segment| segment.stream.push('x')),
        changed,
        cut_off,
        endless,
        large,
        MAGIC.to_vec(),
        Vec::new(),
    ];
    for (n, bytes) in planted.iter().enumerate() {
        std::fs::write(folder.join(format!("planted-{n:02}.spool")), bytes).unwrap();
    }
    let outside = lambda.tmp().join("outside");
    std::fs::write(&outside, own.bytes()).unwrap();
    symlink(&outside, folder.join("link.spool")).unwrap();
    symlink("/dev/zero", folder.join("zero.spool")).unwrap();
    symlink(&outside, folder.join("link.part")).unwrap();
    let pipe = folder.join("pipe.spool");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::fs::create_dir(folder.join("folder.spool")).unwrap();
    std::fs::write(folder.join("a name\nWARN forged.spool"), b"x").unwrap();

    kinesis.clear_faults();
    let report = lambda.invoke(Invocation::new().text("after").work(ms(500))).unwrap();
    assert!(!report.deadline_exceeded && report.held < ms(1500), "{:?}", report.held);
    wait_until(ms(30_000), "the folder to be empty", || {
        lambda.invoke(Invocation::new().work(ms(100))).unwrap();
        files(&folder).is_empty()
    });
    assert_memory(&lambda);
    let ledger = end(&kinesis, &lambda);
    kinesis.account().compare(&lambda.sent()).assert_lossless();
    assert_eq!(std::fs::read(outside).unwrap(), own.bytes(), "not followed");
    assert_eq!(ledger["spoolSkipped"], planted.len() + 6, "{ledger}");
    assert!(ledger["received"].as_u64().unwrap() < 1000, "{ledger}");
    let lines = lambda.stderr();
    assert!(lines.iter().all(|line| !line.contains("forged")), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.contains("it is removed")).count(), 1, "{lines:?}");
}

#[test]
fn a_folder_that_is_a_link_is_not_used() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).timeout(ms(1000)).start();
    let elsewhere = lambda.tmp().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("somebody's.spool"), b"not ours").unwrap();
    symlink(&elsewhere, spool_folder(&lambda)).unwrap();
    lambda.init().unwrap();
    kinesis.fault(Fault::error(500, "InternalFailure"));
    lambda.invoke(Invocation::new().text("unsent").crashes()).unwrap();
    assert_eq!(files(&elsewhere), [elsewhere.join("somebody's.spool")]);
    kinesis.clear_faults();
    lambda.invoke(Invocation::new().text("after")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    assert_eq!(files(&elsewhere), [elsewhere.join("somebody's.spool")]);
    assert_eq!(kinesis.account().containing("after").len(), 1);
}

/// A segment of this very process, exchanged for another whose every hash is right.
#[test]
fn a_segment_that_was_exchanged_is_not_sent() {
    let kinesis = Kinesis::start();
    let lambda = overflowing(&kinesis).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::hang());
    lambda.invoke(Invocation::new().floods(20, 1000, 300)).unwrap();
    let written = files(&spool_folder(&lambda));
    let last = std::fs::read(written.last().unwrap()).unwrap();
    std::fs::write(&written[1], &last).unwrap();
    // As if it was about to be sent.
    std::fs::write(written[2].with_extension("doubt.spool"), &last).unwrap();
    kinesis.clear_faults();
    wait_until(ms(60_000), "all but one segment to be delivered", || {
        lambda.invoke(Invocation::new()).unwrap();
        files(&spool_folder(&lambda)).len() <= 1
    });
    let ledger = end(&kinesis, &lambda);
    let lost = ledger["dropped"]["rejected"].as_u64().unwrap();
    assert!(lost > 0, "{ledger}");
    assert_eq!(kinesis.account().flooded() as u64 + lost, 20_000, "{ledger}");
}

/// After whatever was done: the same process serves the function, and is as small as promised.
#[track_caller]
fn assert_unharmed(kinesis: &Kinesis, lambda: &Lambda, pid: Option<i32>) {
    let report = lambda.invoke(Invocation::new().text("unharmed.")).unwrap();
    assert!(!report.deadline_exceeded && report.held < ms(1500), "{:?}", report.held);
    assert_eq!(lambda.pid(), pid, "the same process");
    assert_memory(lambda);
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    kinesis.account().compare(&lambda.sent()).assert_lossless();
    assert_eq!(kinesis.account().containing("unharmed.").len(), 1);
    ledger(kinesis);
}

#[test]
fn endless_heads_end_their_connection() {
    const TOTAL: usize = 50 << 20;
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().timeout(ms(20_000)).start();
    lambda.init().unwrap();
    let pid = lambda.pid();
    let path = lambda.subscription().unwrap().path;
    for (before, piece) in [
        (String::new(), "x"),
        (String::new(), "\r"),
        (String::new(), "GET "),
        ("GET /".to_owned(), "x"),
        (format!("POST {path}?"), "x"),
        (format!("POST {path} HTTP/1.1\r\nX: "), "x"),
        (format!("POST {path} HTTP/1.1\r\n"), "A: b\r\n"),
        (format!("POST {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;"), "x"),
        (format!("POST {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), "1"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), "1"),
    ] {
        let mut client = Client::connect(&lambda);
        client.0.write_all(before.as_bytes()).unwrap();
        let sent = client.pour(piece.as_bytes(), TOTAL);
        assert!(sent < TOTAL, "all of it was read: {before}{piece}");
        assert_memory(&lambda);
    }
    // One that is not too long is read, and the next on the connection may be as long.
    let mut client = Client::connect(&lambda);
    let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(16_000));
    for _ in 0..3 {
        client.0.write_all(head.as_bytes()).unwrap();
        assert_eq!(client.status(), 404);
        let mut rest = [0; 4096];
        let _ = client.0.read(&mut rest).unwrap();
    }
    assert_unharmed(&kinesis, &lambda, pid);
}

#[test]
fn lengths_that_lie_reserve_nothing_and_leave_nothing_behind() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().timeout(ms(20_000)).start();
    lambda.init().unwrap();
    let (pid, threads) = (lambda.pid(), lambda.stats().threads);
    let path = lambda.subscription().unwrap().path;
    let mut framings: Vec<String> = [
        "100000000000000",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "-1",
        "+5",
        "0x10",
        "",
        "8388609",
        "67108865",
        "1025",
    ]
    .iter()
    .map(|length| format!("Content-Length: {length}"))
    .collect();
    framings.push("Content-Length: 5\r\nContent-Length: 100000000000000".to_owned());
    framings.push("Content-Length: 100000000000000\r\nContent-Length: 5".to_owned());
    framings.push("Content-Length: 7\r\nTransfer-Encoding: chunked".to_owned());
    framings.push("Transfer-Encoding: gzip".to_owned());
    framings.push("Content-Length: 100000000000000\r\nExpect: 100-continue".to_owned());
    framings.push("Content-Length: 100000000000000\r\nExpect: everything".to_owned());
    framings.push("Content-Length: 100000000000000\r\nConnection: upgrade".to_owned());
    for round in 0..5 {
        for method in ["GET", "POST", "HEAD", "OPTIONS", "MADE-UP"] {
            for target in ["/", path.as_str()] {
                for framing in &framings {
                    let mut client = Client::connect(&lambda);
                    let request = format!(
                        "{method} {target} HTTP/1.{}\r\nHost: x\r\n{framing}\r\n\r\nffffffffffffffff\r\n[",
                        round % 2
                    );
                    // It may have hung up already.
                    let _ = client.0.write_all(request.as_bytes());
                    if round > 2 {
                        let _ = client.0.shutdown(Shutdown::Write);
                        client.status();
                    }
                }
            }
        }
    }
    wait_until(ms(10_000), "the connections to be gone", || lambda.stats().threads <= threads + 4);
    assert_unharmed(&kinesis, &lambda, pid);
}

#[test]
fn endless_bodies_are_read_only_so_far() {
    const TOTAL: usize = 100 << 20;
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().timeout(ms(20_000)).start();
    lambda.init().unwrap();
    let pid = lambda.pid();
    let path = lambda.subscription().unwrap().path;
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for (target, framing, piece) in [
        ("/", "Transfer-Encoding: chunked", chunk.as_str()),
        (&path, "Transfer-Encoding: chunked", &chunk),
        ("/", "Content-Length: 9223372036854775807", "x"),
        (&path, "Content-Length: 9223372036854775807", "x"),
        ("/", "Connection: upgrade", "x"),
        (&path, "Connection: upgrade", "x"),
    ] {
        let mut client = Client::connect(&lambda);
        let head = format!("POST {target} HTTP/1.1\r\n{framing}\r\n\r\n");
        client.0.write_all(head.as_bytes()).unwrap();
        let sent = client.pour(piece.as_bytes(), TOTAL);
        assert!(sent < TOTAL, "all of it was read: {target} {framing}");
        assert_memory(&lambda);
    }
    assert_unharmed(&kinesis, &lambda, pid);
}

/// Some of them stop in the middle, and would keep the others waiting.
#[test]
fn large_bodies_at_the_same_time_are_read_one_after_the_other() {
    let kinesis = Kinesis::builder().count_only().start();
    let lambda = extension(&kinesis)
        .without_freeze()
        .timeout(ms(60_000))
        .setting("SPOOL_BYTES", "0")
        .start();
    lambda.init().unwrap();
    let path = lambda.subscription().unwrap().path;
    let event = format!(r#"{{"time":"t","type":"function","record":"{}"}}"#, "x".repeat(1000));
    let body = format!("[{}]", vec![event; 2300].join(","));
    // Twice what Lambda is asked to send at the most, and some.
    assert!(body.len() > 2 << 20);
    let head = format!("POST {path} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
    let stalled: Vec<Client> = (0..3)
        .map(|_| {
            let mut client = Client::connect(&lambda);
            client.0.write_all(head.as_bytes()).unwrap();
            client
        })
        .collect();
    std::thread::scope(|scope| {
        for mut client in stalled {
            let body = &body;
            scope.spawn(move || {
                let _ = client.0.write_all(&body.as_bytes()[..body.len() - 1]);
                assert!([0, 400].contains(&client.status()));
            });
        }
        for _ in 0..12 {
            scope.spawn(|| {
                let mut client = Client::connect(&lambda);
                client.0.set_read_timeout(Some(ms(60_000))).unwrap();
                client.0.set_write_timeout(Some(ms(60_000))).unwrap();
                client.0.write_all(head.as_bytes()).unwrap();
                client.0.write_all(body.as_bytes()).unwrap();
                assert_eq!(client.status(), 200);
            });
        }
    });
    assert_memory(&lambda);
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
}

/// One body that is on its way for long, and never so slow that it is given up.
#[test]
fn a_large_body_that_stalls_keeps_no_other_waiting() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().timeout(ms(20_000)).start();
    lambda.init().unwrap();
    let pid = lambda.pid();
    let path = lambda.subscription().unwrap().path;
    let log = format!(r#"{{"time":"t","type":"function","record":"{}"}}"#, "x".repeat(1000));
    let body = format!("[{}]", vec![log; 2300].join(","));
    let head = format!("POST {path} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
    let (begun, behind) = body.split_at(500_000);
    let mut slow = Client::connect(&lambda);
    slow.0.write_all(format!("{head}{begun}").as_bytes()).unwrap();
    for _ in 0..3 {
        let mut client = Client::connect(&lambda);
        client.0.write_all(format!("{head}{body}").as_bytes()).unwrap();
        assert_eq!(client.status(), 200);
    }
    // If one of them had needed its room, it would have been given up.
    slow.0.write_all(behind.as_bytes()).unwrap();
    assert_eq!(slow.status(), 200);
    lambda.invoke(Invocation::new()).unwrap();
    assert_eq!(lambda.pid(), pid, "the same process");
    end(&kinesis, &lambda);
    assert_eq!(kinesis.account().of_type("function").len(), 4 * 2300);
}

/// With a queue that is full and no spool, so that there is nothing to spare.
#[test]
fn no_body_costs_more_memory_than_there_is() {
    costs_no_more_than_there_is(8 << 20, &[("SPOOL_BYTES", "0")]);
}

/// It is there several times meanwhile.
#[test]
fn no_body_costs_more_memory_on_its_way_to_the_disk() {
    costs_no_more_than_there_is(8 << 20, &[]);
}

/// While Kinesis hangs and most connections have a small body that is almost there. The bound is
/// the promise; which body went over it is said.
fn costs_no_more_than_there_is(queue: usize, settings: &[(&str, &str)]) {
    let kinesis = Kinesis::builder().count_only().start();
    let mut builder = extension(&kinesis).without_freeze().timeout(ms(300_000));
    for (name, value) in settings {
        builder = builder.setting(name, value);
    }
    let lambda = builder.setting("QUEUE_BYTES", &queue.to_string()).start();
    lambda.init().unwrap();
    let pid = lambda.pid();
    kinesis.fault(Fault::hang());
    assert_eq!(lambda.flood(40, 1000, 300).unwrap().refused, 0);
    let post = |body: &[u8]| Client::begin(&lambda, body.len(), body).status();
    let almost = |length: usize| Client::begin(&lambda, length, &vec![b' '; length - 1]);
    let held: Vec<Client> = (0..24).map(|n| almost([16_000, 64_000][n % 2])).collect();
    // The largest that are read whole, and the largest of all.
    for (name, body) in [1_100_000, 8_000_000].into_iter().flat_map(costly_bodies) {
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| assert_eq!(post(&body), 200, "{name}"));
            }
        });
        assert_peak(&lambda, queue, name);
    }
    // A record in pieces that never ends: what is held back takes room as well.
    let piece = |record: &str| {
        let time = "2026-11-23T09:15:45.012Z";
        format!(r#"[{{"time":"{time}","type":"function","record":{record}}}]"#).into_bytes()
    };
    let filler = "A".repeat(1_200_000);
    assert_eq!(post(&piece(&format!(r#"{{"m":"{filler}"#))), 200);
    for _ in 0..6 {
        assert_eq!(post(&piece(&filler)), 200);
    }
    drop(held);
    kinesis.clear_faults();
    lambda.invoke(Invocation::new().text("unharmed.").timeout(ms(60_000))).unwrap();
    assert_eq!(lambda.pid(), pid, "the same process");
    assert_peak(&lambda, queue, "a record in pieces");
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
}

#[test]
fn neighbours_that_hold_connections_keep_lambda_out_of_none() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().timeout(ms(20_000)).start();
    lambda.init().unwrap();
    let pid = lambda.pid();
    lambda.invoke(Invocation::new().text("before")).unwrap();
    let mut held = Vec::new();
    for n in 0..600 {
        let mut client = Client::connect(&lambda);
        // It may be cut at once.
        let _ = client.0.write_all(&b"POST / HTTP/1.1\r\nContent-Length: 5000\r\n\r\nx"[..n % 40]);
        held.push(client);
    }
    lambda.invoke(Invocation::new().text("meanwhile")).unwrap();
    wait_until(ms(60_000), "those over the bound to end", || lambda.stats().threads < 64 + 16);
    assert_memory(&lambda);
    drop(held);
    assert_unharmed(&kinesis, &lambda, pid);
}

/// Encodings may have weights that are no numbers. A server that sorts by them panics, for there is
/// no order, and after a panic nothing more is sent.
#[test]
fn weights_that_have_no_order_are_no_panic() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().timeout(ms(20_000)).start();
    lambda.init().unwrap();
    let pid = lambda.pid();
    let weights = "NaN NaN NaN NaN 53 NaN 46 6 21 25 NaN NaN 30 11 NaN 4 42 41 NaN NaN 43";
    let weights: Vec<String> = weights.split(' ').map(|weight| format!("a;q={weight}")).collect();
    let request = format!("GET / HTTP/1.1\r\nTE: {}\r\n\r\n", weights.join(","));
    for _ in 0..3 {
        let mut client = Client::connect(&lambda);
        client.0.write_all(request.as_bytes()).unwrap();
        assert_eq!(client.status(), 404);
    }
    assert!(lambda.stderr().iter().all(|line| !line.contains("panicked")), "{:?}", lambda.stderr());
    assert_unharmed(&kinesis, &lambda, pid);
}

/// One text of CBOR that takes six times as many bytes in JSON took 18 MiB, and keys of a megabyte each several copies of themselves.
#[test]
fn answers_that_are_larger_than_any_answer_take_no_memory() {
    let large = 1_000_000_u32;
    let text =
        [&b"\xa1\x67Records\x7a"[..], &large.to_be_bytes(), &vec![0; large as usize]].concat();
    let escapes =
        format!(r#"{{"Records":[{{"SequenceNumber":"{}"}}]}}"#, "\\u0000".repeat(170_000));
    let keys = format!(
        r#"{{"AccessKeyId":"a","SecretAccessKey":"s","Token":"{}"}}"#,
        "x".repeat(large as usize)
    );
    for (what, answer) in [("text", text), ("escapes", escapes.into()), ("keys", keys.into())] {
        let kinesis = Kinesis::start();
        let peer = crate::answers::always(&answer);
        let builder = extension(&kinesis).setting("QUEUE_BYTES", "1048576");
        let lambda = match what {
            "keys" => {
                builder.without_credentials().env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &peer)
            }
            _ => builder.env("AWS_ENDPOINT_URL_KINESIS", &peer),
        }
        .start();
        lambda.init().unwrap();
        for _ in 0..2 {
            lambda.invoke(Invocation::new().text("hello")).unwrap();
        }
        let peak = lambda.stats().peak_kib;
        assert!(peak < 13 * 1024, "{what}: {peak} KiB at the peak");
        assert!(lambda.shutdown("spindown").is_clean(), "{what}: {:?}", lambda.stderr());
    }
}

// --- answers, settings and logs that mean harm

/// A Kinesis that refuses every request for the sender's clock, with another date each time, until
/// it is told to take them.
struct WrongClock {
    address: String,
    refused: Arc<AtomicUsize>,
    takes: Arc<AtomicBool>,
}

impl WrongClock {
    const DATES: [&str; 4] = [
        "Wed, 25 Nov 2026 01:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "x",
    ];

    fn start() -> WrongClock {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (refused, takes) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let shared = (Arc::clone(&refused), Arc::clone(&takes));
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = (Arc::clone(&shared.0), Arc::clone(&shared.1));
                std::thread::spawn(move || WrongClock::serve(stream, &shared.0, &shared.1));
            }
        });
        WrongClock { address, refused, takes }
    }

    fn serve(mut stream: TcpStream, refused: &AtomicUsize, takes: &AtomicBool) {
        stream.set_read_timeout(Some(ms(60_000))).unwrap();
        while let Some(body) = WrongClock::request(&mut stream) {
            let answer = if takes.load(Ordering::Acquire) {
                let records = body.matches("\"PartitionKey\"").count();
                let taken = vec![r#"{"SequenceNumber":"1","ShardId":"s"}"#; records].join(",");
                let text = format!(r#"{{"FailedRecordCount":0,"Records":[{taken}]}}"#);
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
            } else {
                let date = WrongClock::DATES[refused.fetch_add(1, Ordering::AcqRel) % 4];
                format!(
                    "HTTP/1.1 403 Forbidden\r\nDate: {date}\r\nContent-Length: 0\r\n\
                     x-amzn-errortype: RequestTimeTooSkewed\r\n\r\n"
                )
            };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    /// The next request's body; none when the client has gone.
    fn request(stream: &mut TcpStream) -> Option<String> {
        let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            let text = String::from_utf8_lossy(&bytes);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_ascii_lowercase();
                let length = head.split("content-length: ").nth(1).unwrap_or("0");
                let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
                if body.len() >= length {
                    return Some(body.to_owned());
                }
            }
            let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
            bytes.extend_from_slice(&chunk[..count]);
        }
    }
}

/// Each correction of the clock was followed by a try at once: 7,118 requests in a hold of 3 s. The
/// year 9999 made the signer panic, and the dispatcher stood still from then on.
#[test]
fn dates_that_make_no_sense_are_no_panic_and_no_storm() {
    const HOLDS: usize = 3;
    let kinesis = Kinesis::start();
    let server = WrongClock::start();
    let lambda = extension(&kinesis)
        .env("AWS_ENDPOINT_URL_KINESIS", &format!("http://{}", server.address))
        .setting("FLUSH_TIMEOUT_MS", "1000")
        .timeout(ms(20_000))
        .start();
    lambda.init().unwrap();
    let pid = lambda.pid();
    for _ in 0..HOLDS {
        let report = lambda.invoke(Invocation::new().text("hello")).unwrap();
        assert!(!report.deadline_exceeded && report.held < ms(5000), "{:?}", report.held);
    }
    // At most ten that deliver nothing in any second, and each hold is one second and some.
    let refused = server.refused.load(Ordering::Acquire);
    assert!((1..=HOLDS * 20).contains(&refused), "{refused} requests");
    server.takes.store(true, Ordering::Release);
    lambda.invoke(Invocation::new().text("taken").work(ms(100))).unwrap();
    assert_eq!(lambda.pid(), pid, "the same process");
    assert_memory(&lambda);
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    let lines = lambda.stderr();
    assert!(lines.iter().all(|line| !line.contains("panicked")), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains("events are lost")), "{lines:?}");
    assert!(lines.len() <= 3, "{lines:?}");
}

/// They stayed in the ledger: 38 MB.
#[test]
fn codes_of_a_megabyte_cost_nothing() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().timeout(ms(20_000)).start();
    lambda.init().unwrap();
    let pid = lambda.pid();
    for n in 0..20 {
        let code = format!("Code{n}{}", "x".repeat(1_000_000));
        kinesis.fault(Fault::error(400, &code));
        kinesis.fault(Fault::records(sandbox::Which::All, &code));
        lambda.invoke(Invocation::new().text("hello").timeout(ms(3000))).unwrap();
    }
    kinesis.clear_faults();
    assert_unharmed(&kinesis, &lambda, pid);
    assert!(ledger(&kinesis).to_string().len() < 10_000);
}

/// A function that logs what its users say lets one write as another, and with `request` for a key
/// each claimed id would be a record of its own.
#[test]
fn ids_that_logs_claim_are_neither_theirs_nor_records() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis)
        .json_logs()
        .setting("PARTITION_KEY", "request")
        .timeout(ms(20_000))
        .start();
    lambda.init().unwrap();
    let pid = lambda.pid();
    let logs = (0..3000).fold(Invocation::new().tenant("blue"), |invocation, n| {
        let claimed = format!("00000000-0000-4000-8000-{n:012}");
        invocation.json(&json!({"message": "claim", "requestId": claimed, "tenantId": "red"}))
    });
    let report = lambda.invoke(logs).unwrap();
    let account = kinesis.account();
    let claims = account.containing("claim");
    assert_eq!(claims.len(), 3000);
    for claim in claims {
        let event = claim.json();
        assert_eq!(
            (&event["requestId"], &event["tenantId"]),
            (&json!(report.request_id), &json!("blue"))
        );
    }
    let records = kinesis.records().len();
    assert!(records < 20, "{records} records");
    assert_unharmed(&kinesis, &lambda, pid);
}

#[test]
fn plain_http_to_another_machine_is_reported_once() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis)
        .env("AWS_ENDPOINT_URL_KINESIS", "http://no-such-host.invalid")
        .setting("FLUSH_TIMEOUT_MS", "500")
        .start();
    lambda.init().unwrap();
    for _ in 0..2 {
        let report = lambda.invoke(Invocation::new().text("hello")).unwrap();
        assert!(!report.deadline_exceeded, "{:?}", report.held);
    }
    assert_memory(&lambda);
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    let lines = lambda.stderr();
    let warned = lines.iter().filter(|line| line.contains("plain http")).count();
    assert_eq!(warned, 1, "{lines:?}");
    // To STS it is no question of a warning: its answer is keys.
    let lambda = extension(&kinesis)
        .setting("ROLE_ARN", "arn:aws:iam::123456789012:role/writer")
        .env("AWS_ENDPOINT_URL_STS", "http://no-such-host.invalid")
        .start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("hello")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    let lines = lambda.stderr();
    assert!(lines.iter().any(|line| line.contains("http to loopback")), "{lines:?}");
    assert_eq!(kinesis.puts().len(), 0, "nothing is sent");
}
