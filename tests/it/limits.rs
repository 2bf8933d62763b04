//! Memory, floods, and the limits of the listener.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;

use sandbox::{Fault, Invocation, Kinesis, ms, wait_until};

use crate::neighbour::{SLACK_KIB, connect};
use crate::{extension, ledger, overflowing};

#[test]
fn memory_is_bounded_while_kinesis_hangs_and_a_million_events_arrive() {
    let kinesis = Kinesis::builder().count_only().start();
    let lambda = extension(&kinesis)
        .setting("SPOOL_BYTES", "16777216")
        .setting("QUEUE_BYTES", "8388608")
        .timeout(ms(60_000))
        .start();
    lambda.init().unwrap();
    kinesis.fault(Fault::hang());
    let invocation = Invocation::new().run(|lambda| {
        let flood = lambda.flood(1000, 1000, 300).unwrap();
        assert_eq!((flood.events, flood.refused), (1_000_000, 0));
        assert!(lambda.stats().peak_kib < 8192 + SLACK_KIB, "{} KiB", lambda.stats().peak_kib);
    });
    lambda.invoke(invocation).unwrap();
    kinesis.clear_faults();
    assert!(lambda.shutdown("spindown").is_clean());
    let stats = lambda.stats();
    assert!(stats.peak_kib < 8192 + SLACK_KIB, "{} KiB", stats.peak_kib);
    let lines = lambda.stderr();
    assert!(lines.iter().any(|line| line.contains("events are lost")), "{lines:?}");
    assert!(lines.len() <= 4, "{lines:?}");
    let record = lines
        .iter()
        .find_map(|line| {
            serde_json::from_str::<serde_json::Value>(&line[line.find("{\"received")?..]).ok()
        })
        .unwrap();
    let dropped: u64 = ["queue", "rejected", "undelivered"]
        .iter()
        .map(|why| record["dropped"][why].as_u64().unwrap())
        .sum();
    assert_eq!(
        record["received"].as_u64().unwrap(),
        record["delivered"].as_u64().unwrap() + dropped + record["waiting"].as_u64().unwrap(),
        "{record}"
    );
    assert!(record["received"].as_u64().unwrap() >= 1_000_000);
}

#[test]
fn a_flood_is_delivered_whole_when_kinesis_keeps_up() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).timeout(ms(60_000)).setting("QUEUE_BYTES", "67108864").start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().floods(20, 1000, 300)).unwrap();
    lambda.invoke(Invocation::new()).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    assert_eq!(kinesis.account().flooded(), 20_000);
    assert_eq!(ledger(&kinesis)["dropped"]["queue"], 0);
}

#[test]
fn what_memory_cannot_hold_is_delivered_from_the_spool() {
    let kinesis = Kinesis::start();
    let lambda = overflowing(&kinesis).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::hang());
    lambda.invoke(Invocation::new().floods(30, 1000, 300)).unwrap();
    kinesis.clear_faults();
    wait_until(ms(60_000), "the spool to be empty", || {
        lambda.invoke(Invocation::new()).unwrap();
        kinesis.account().flooded() == 30_000
    });
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    let ledger = ledger(&kinesis);
    assert!(ledger["spooled"].as_u64().unwrap() > 10_000, "{ledger}");
    assert_eq!(kinesis.account().flooded(), 30_000, "{ledger}");
    assert_eq!(
        std::fs::read_dir(lambda.tmp().join("kinesis-telemetry-extension")).unwrap().count(),
        0
    );
}

/// Once a quarter of the memory was set aside, each further request that failed was dropped: 868 of these lines, or 2015 where nothing was
/// answered.
#[test]
fn without_a_disk_an_outage_loses_nothing_that_memory_holds() {
    for fault in [Fault::error(500, "InternalFailure"), Fault::hang()] {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).setting("SPOOL_BYTES", "0").timeout(ms(120_000)).start();
        lambda.init().unwrap();
        kinesis.fault(fault.lasting(ms(9000)));
        lambda.invoke(Invocation::new().floods(50, 100, 700).pause(ms(9000))).unwrap();
        wait_until(ms(60_000), "all to be delivered", || {
            lambda.invoke(Invocation::new().work(ms(100))).unwrap();
            kinesis.account().flooded() == 5000
        });
        assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
        let ledger = ledger(&kinesis);
        assert_eq!(ledger["received"], ledger["delivered"], "{ledger}");
        assert!(ledger["retried"].as_u64().unwrap() > 1000, "{ledger}");
        // Some 100 requests would deliver nothing if each were sent again at once.
        assert!(ledger["requests"].as_u64().unwrap() < 60, "{ledger}");
    }
}

/// A request takes several times the room of small events. Those that failed were set aside beside a memory that was full already: with a
/// large queue a quarter of it more than it may be, and at the end whatever the tries came to.
#[test]
fn requests_that_fail_take_no_room_beside_a_full_memory() {
    const QUEUE: u64 = 32 << 20;
    for stops_early in [true, false] {
        let kinesis = Kinesis::builder().count_only().start();
        let lambda = extension(&kinesis)
            .setting("SPOOL_BYTES", "0")
            .setting("QUEUE_BYTES", &QUEUE.to_string())
            .timeout(ms(60_000))
            .start();
        lambda.init().unwrap();
        kinesis.fault(Fault::error(500, "InternalFailure"));
        let flood = Invocation::new().floods(400, 1000, 60);
        // Time for as many requests as a quarter of the memory holds.
        lambda.invoke(if stops_early { flood } else { flood.pause(ms(15_000)) }).unwrap();
        assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
        let lines = lambda.stderr();
        let last = lines.last().and_then(|line| line.split_once("\"maxQueuedBytes\":"));
        let most = last.and_then(|(_, rest)| rest.split_once(',')).expect("a ledger").0;
        let most: u64 = most.parse().unwrap();
        // One request on its way, and one that is packed.
        assert!((QUEUE / 10 * 9..QUEUE + (4 << 20)).contains(&most), "{most} bytes {lines:?}");
    }
}

/// The last line said that no time was left for it.
#[test]
fn a_ledger_that_fits_into_no_record_is_told_as_that() {
    let kinesis = Kinesis::start();
    let (name, value) = ("a".repeat(100), "b".repeat(200));
    let lambda = extension(&kinesis)
        .setting("RECORD_BYTES", "1024")
        .setting("TAGS", &format!("{name}={value}"))
        .start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("hello")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    assert!(kinesis.account().ledgers().is_empty());
    assert_eq!(kinesis.account().containing("hello").len(), 1);
    let lines = lambda.stderr();
    let last = lines.last().unwrap();
    assert!(
        last.contains("the ledger could not be sent: KINESIS_TELEMETRY_RECORD_BYTES"),
        "{last}"
    );
}

/// With the sandbox event before them they were one record more than a request may have: all of them were lost.
#[test]
fn full_requests_of_single_events_come_back_from_the_spool() {
    for envelope in ["slim", "full"] {
        let kinesis = Kinesis::start();
        let lambda = overflowing(&kinesis)
            .setting("RECORD", "event")
            .setting("ENVELOPE", envelope)
            .timeout(ms(120_000))
            .start();
        kinesis.fault(Fault::hang());
        lambda.init().unwrap();
        lambda.invoke(Invocation::new().floods(20, 1000, 60)).unwrap();
        kinesis.clear_faults();
        wait_until(ms(60_000), "the spool to be empty", || {
            lambda.invoke(Invocation::new()).unwrap();
            on_disk(&lambda).1 == 0
        });
        assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
        let ledger = ledger(&kinesis);
        assert!(ledger["spooled"].as_u64().unwrap() > 5000, "{ledger}");
        assert_eq!(kinesis.account().flooded(), 20_000, "{ledger} {:?}", lambda.stderr());
    }
}

/// A file takes a part of a batch and no more: that batch is lost and counted, and no other one.
#[test]
fn a_disk_that_is_full_in_the_middle_of_a_batch_costs_that_batch() {
    let kinesis = Kinesis::start();
    let lambda = overflowing(&kinesis)
        .runner(&["bash", "-c", "trap '' XFSZ; ulimit -f 50; exec \"$0\" \"$@\""])
        .timeout(ms(120_000))
        .start();
    lambda.init().unwrap();
    kinesis.fault(Fault::hang());
    lambda.invoke(Invocation::new().floods(4000, 2, 300)).unwrap();
    kinesis.clear_faults();
    wait_until(ms(60_000), "the spool to be empty", || {
        lambda.invoke(Invocation::new()).unwrap();
        on_disk(&lambda).1 == 0
    });
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    let ledger = ledger(&kinesis);
    let lost = ledger["dropped"]["queue"].as_u64().unwrap();
    assert!((20..1500).contains(&lost) && ledger["dropped"]["rejected"] == 0, "{ledger}");
    let delivered = ledger["delivered"].as_u64().unwrap();
    assert_eq!(ledger["received"].as_u64().unwrap(), delivered + lost, "{ledger}");
    // Some of those that were lost are the platform's.
    let missing = 8000 - kinesis.account().flooded() as u64;
    assert!((1..=lost).contains(&missing), "{missing} are missing: {ledger}");
}

/// Blocks that the spool's files take, in bytes, and how many files there are.
fn on_disk(lambda: &sandbox::Lambda) -> (u64, usize) {
    let folder = std::fs::read_dir(lambda.tmp().join("kinesis-telemetry-extension"));
    // One may be sent and removed meanwhile.
    let blocks = folder.into_iter().flatten().flatten().map(|file| file.metadata());
    let blocks: Vec<u64> = blocks.flatten().map(|about| about.blocks() * 512).collect();
    (blocks.iter().sum(), blocks.len())
}

/// Each took a file, and so a block of the disk and a piece of the index: six times `SPOOL_BYTES`, and memory that nobody counted.
#[test]
fn small_posts_in_an_outage_share_files() {
    const SPOOL: u64 = 16 << 20;
    for envelope in ["full", "slim"] {
        let kinesis = Kinesis::start();
        let lambda = overflowing(&kinesis)
            .setting("SPOOL_BYTES", &SPOOL.to_string())
            .setting("ENVELOPE", envelope)
            .timeout(ms(120_000))
            .start();
        lambda.init().unwrap();
        kinesis.fault(Fault::hang());
        lambda
            .invoke(Invocation::new().run(|lambda| {
                let flood = lambda.flood(12_000, 1, 300).unwrap();
                assert_eq!((flood.events, flood.refused), (12_000, 0));
            }))
            .unwrap();
        let (bytes, files) = on_disk(&lambda);
        assert!(bytes > 1 << 20 && bytes <= SPOOL, "{bytes} bytes in {files} files");
        // A segment has 500 batches at the most, or a quarter of the queue.
        assert!(files <= 12_000 / 400 + 3, "{files} files");
        kinesis.clear_faults();
        wait_until(ms(60_000), "the spool to be empty", || {
            lambda.invoke(Invocation::new()).unwrap();
            on_disk(&lambda).1 == 0
        });
        let peak = lambda.stats().peak_kib;
        assert!(peak < 1024 + SLACK_KIB, "{peak} KiB");
        assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
        let ledger = ledger(&kinesis);
        assert_eq!(kinesis.account().flooded(), 12_000, "{ledger}");
        assert!(ledger["spooled"].as_u64().unwrap() > 5000, "{ledger}");
        assert_eq!(ledger["dropped"]["queue"], 0, "{ledger} {:?}", lambda.stderr());
        // Lines of several POSTs are one record, and the sandbox event comes once for each file.
        let introductions = kinesis.account().containing("kinesis-telemetry.sandbox").len();
        assert!(introductions <= files + 20, "{introductions} sandbox events, {files} files");
        assert!(ledger["requests"].as_u64().unwrap() < 200, "{ledger}");
    }
}

/// Whatever is evicted is counted, and the disk has never more than it may.
#[test]
fn small_posts_that_fill_the_spool_evict_the_oldest() {
    const SPOOL: u64 = 1 << 20;
    let kinesis = Kinesis::start();
    let lambda = overflowing(&kinesis)
        .setting("SPOOL_BYTES", &SPOOL.to_string())
        .timeout(ms(120_000))
        .start();
    lambda.init().unwrap();
    kinesis.fault(Fault::hang());
    lambda
        .invoke(Invocation::new().run(|lambda| {
            for _ in 0..20 {
                assert_eq!(lambda.flood(500, 1, 300).unwrap().refused, 0);
                let (bytes, files) = on_disk(lambda);
                assert!(bytes <= SPOOL, "{bytes} bytes in {files} files");
            }
        }))
        .unwrap();
    kinesis.clear_faults();
    wait_until(ms(60_000), "the spool to be empty", || {
        lambda.invoke(Invocation::new()).unwrap();
        on_disk(&lambda).1 == 0
    });
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    let ledger = ledger(&kinesis);
    let count = |name: &str| ledger[name].as_u64().unwrap();
    let lost = ledger["dropped"]["queue"].as_u64().unwrap();
    assert!(lost > 1000, "{ledger}");
    assert_eq!(count("received"), count("delivered") + lost, "{ledger}");
    // A few of those that were lost are the platform's.
    let missing = 10_000 - kinesis.account().flooded() as u64;
    assert!((lost - 20..=lost).contains(&missing), "{missing} are missing: {ledger}");
}

/// Where the batches of a spool file end.
fn batches(bytes: &[u8]) -> Vec<usize> {
    let mut at = "kinesis-telemetry-extension spool 3\n".len();
    let mut ends = Vec::new();
    while let Some(length) = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        at += 4 + u32::from_le_bytes(*length) as usize + 32;
        ends.push(at);
    }
    ends
}

/// A process that is killed while it writes costs the batch that it writes, not the file.
#[test]
fn a_torn_tail_of_a_spool_file_costs_one_batch() {
    let kinesis = Kinesis::start();
    let lambda = overflowing(&kinesis).timeout(ms(120_000)).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::hang());
    let flood = Invocation::new().floods(3000, 1, 300);
    lambda.invoke(flood).unwrap();
    lambda.kill();
    assert!(lambda.invoke(Invocation::new()).is_err());
    let folder = std::fs::read_dir(lambda.tmp().join("kinesis-telemetry-extension")).unwrap();
    let files: Vec<_> = folder.map(|file| file.unwrap().path()).collect();
    let events = |bytes: &[u8]| memchr::memmem::find_iter(bytes, "\"eventId\"").count();
    let whole: usize = files.iter().map(|file| events(&std::fs::read(file).unwrap())).sum();
    // Others were written at once.
    let shared = files.iter().max_by_key(|file| batches(&std::fs::read(file).unwrap()).len());
    let (file, bytes) = shared.map(|file| (file, std::fs::read(file).unwrap())).unwrap();
    let ends = batches(&bytes);
    assert!(whole > 1000 && ends.len() > 100, "{whole} events, {} batches", ends.len());
    let torn = events(&bytes[ends[ends.len() - 2]..]);
    std::fs::write(file, &bytes[..bytes.len() - 10]).unwrap();
    kinesis.clear_faults();
    wait_until(ms(60_000), "the spool to be empty", || {
        lambda.invoke(Invocation::new().work(ms(100))).unwrap();
        on_disk(&lambda).1 == 0
    });
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    let ledger = ledger(&kinesis);
    assert_eq!(ledger["spoolSkipped"], 1, "{ledger}");
    assert_eq!(ledger["adopted"].as_u64().unwrap() as usize, whole - torn, "{ledger}");
    assert_eq!(lambda.stderr().iter().filter(|line| line.contains("never written")).count(), 1);
}

/// What could not be kept on disk was printed, whether that was asked for or not.
#[test]
fn what_is_lost_is_printed_only_if_that_is_asked_for() {
    for (fallback, printed) in [("none", false), ("log", true)] {
        let kinesis = Kinesis::start();
        let lambda = overflowing(&kinesis).setting("FALLBACK", fallback).start();
        std::fs::write(lambda.tmp().join("kinesis-telemetry-extension"), "in the way").unwrap();
        lambda.init().unwrap();
        kinesis.fault(Fault::hang());
        lambda.invoke(Invocation::new().floods(20, 200, 300)).unwrap();
        kinesis.clear_faults();
        assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
        let lost = ledger(&kinesis)["dropped"]["queue"].as_u64().unwrap();
        let lines = lambda.stdout().len() as u64;
        assert!(lost > 0, "memory held all of it");
        assert_eq!(lines, if printed { lost } else { 0 }, "{fallback}");
    }
}

#[test]
fn a_spool_file_that_somebody_changed_is_counted_and_stops_nothing() {
    let kinesis = Kinesis::start();
    let lambda = overflowing(&kinesis).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::hang());
    lambda.invoke(Invocation::new().floods(20, 1000, 300)).unwrap();
    let mut files: Vec<_> = std::fs::read_dir(lambda.tmp().join("kinesis-telemetry-extension"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    let mut bytes = std::fs::read(&files[1]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] = if bytes[middle] == b'A' { b'B' } else { b'A' };
    std::fs::write(&files[1], bytes).unwrap();
    kinesis.clear_faults();
    wait_until(ms(60_000), "all but one file to be delivered", || {
        lambda.invoke(Invocation::new()).unwrap();
        std::fs::read_dir(lambda.tmp().join("kinesis-telemetry-extension")).unwrap().count() == 0
    });
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    let ledger = ledger(&kinesis);
    let lost = ledger["dropped"]["rejected"].as_u64().unwrap();
    assert!(lost > 0, "{ledger}");
    assert_eq!(kinesis.account().flooded() as u64 + lost, 20_000, "{ledger}");
    assert!(
        lambda.stderr().iter().any(|line| line.contains("changed by somebody")),
        "{:?}",
        lambda.stderr()
    );
}

/// Opens connections to the listener and leaves them, each after this much of a request.
fn stalled(port: u16, count: usize, request: &str) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = connect(port).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    (0..count).map(open).collect()
}

#[test]
fn clients_that_stall_do_not_stop_the_listener() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).start();
    lambda.init().unwrap();
    let path = lambda.subscription().unwrap().path;
    let half =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n[{{\"time\"");
    let port = lambda.listener_port();
    let open = [
        stalled(port, 5, &half),
        stalled(port, 5, "POST / HT"),
        stalled(port, 5, "POST / HTTP/1.1\r\nContent-Length: 9999\r\n\r\nx"),
        stalled(port, 5, ""),
    ];
    for n in 0..5 {
        lambda.invoke(Invocation::new().text(&format!("line {n}"))).unwrap();
    }
    assert!(lambda.shutdown("spindown").is_clean());
    drop(open);
    kinesis.account().compare(&lambda.sent()).assert_clean();
}

#[test]
fn a_thousand_connections_are_survived() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().start();
    lambda.init().unwrap();
    let mut open = stalled(lambda.listener_port(), 1000, "");
    lambda.invoke(Invocation::new().text("in the crowd")).unwrap();
    let path = lambda.subscription().unwrap().path;
    let body = r#"[{"time":"t","type":"function","record":"from one of them"}]"#;
    let request =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    open[999].write_all(request.as_bytes()).unwrap();
    let mut answer = [0; 12];
    open[999].read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    drop(open);
    lambda.invoke(Invocation::new().text("after")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    assert_eq!(kinesis.account().compare(&lambda.sent()).lost.len(), 0);
    assert_eq!(kinesis.account().containing("from one of them").len(), 1);
}

#[test]
fn running_out_of_file_descriptors_for_a_while_is_survived() {
    let kinesis = Kinesis::start();
    // The limit is set by a shell in front, which then becomes the extension.
    let lambda = extension(&kinesis)
        .runner(&["sh", "-c", "ulimit -n 24; exec \"$0\" \"$@\""])
        .without_freeze()
        .start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("before")).unwrap();
    let port = lambda.listener_port();
    let open = stalled(port, 40, "");
    wait_until(ms(10_000), "the wall", || {
        lambda.stderr().iter().any(|line| line.contains("accept"))
    });
    drop(open);
    for n in 0..3 {
        lambda.invoke(Invocation::new().text(&format!("after {n}"))).unwrap();
    }
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    kinesis.account().compare(&lambda.sent()).assert_lossless();
}

#[test]
fn big_bodies_are_taken() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).setting("QUEUE_BYTES", "33554432").timeout(ms(20_000)).start();
    lambda.init().unwrap();
    let line = |n: usize| {
        format!(
            "{{\"time\":\"t\",\"type\":\"function\",\"record\":\"body {n:02} {}\"}}",
            "big".repeat(100_000)
        )
    };
    let body = format!("[{}]", (0..27).map(line).collect::<Vec<_>>().join(","));
    assert!(body.len() > 8_000_000 && body.len() < 8 * 1024 * 1024);
    lambda
        .invoke(
            Invocation::new()
                .run(move |lambda| assert_eq!(lambda.post_raw(body.as_bytes()).unwrap(), 200)),
        )
        .unwrap();
    wait_until(ms(60_000), "every one to arrive", || {
        lambda.invoke(Invocation::new()).unwrap();
        let account = kinesis.account();
        (0..27).all(|n| !account.containing(&format!("body {n:02} big")).is_empty())
    });
    assert!(lambda.shutdown("spindown").is_clean());
    ledger(&kinesis);
}
