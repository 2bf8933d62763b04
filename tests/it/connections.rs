//! Many connections to the listener at once, of neighbours that know the path and of such that do
//! not: threads and memory stay bounded, Lambda's own POSTs are taken meanwhile, and SHUTDOWN is in
//! time.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sandbox::{Fault, Invocation, Kinesis, Lambda, ms, wait_until};

use crate::neighbour::{Client, MEMORY_KIB, connect, of_tests, post_head, status, with_length};
use crate::{end, extension};

/// What a process has: 40 threads at connections, those that wait for the next one, and its own.
const MAX_THREADS: u64 = 40 + 10;
/// Connections that one neighbour holds open at the same time.
const HELD: usize = 150;

/// The most threads and the largest peak of memory that were seen.
#[derive(Default)]
struct Most {
    threads: AtomicU64,
    kib: AtomicU64,
}

impl Most {
    fn look(&self, lambda: &Lambda) {
        let stats = lambda.stats();
        self.threads.fetch_max(stats.threads, Ordering::AcqRel);
        self.kib.fetch_max(stats.peak_kib, Ordering::AcqRel);
    }

    #[track_caller]
    fn assert_bounded(&self, what: &str) {
        let (threads, kib) =
            (self.threads.load(Ordering::Acquire), self.kib.load(Ordering::Acquire));
        assert!(threads <= MAX_THREADS, "{what}: {threads} threads");
        assert!(kib < MEMORY_KIB + of_tests(), "{what}: {kib} KiB at the peak");
    }
}

/// Ends what runs beside a test, also when the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Neighbours that open connections one after the other until they are told to stop.
#[derive(Default)]
struct Neighbours {
    stops: AtomicBool,
    /// Connections so far.
    opened: AtomicU64,
}

impl Neighbours {
    /// One of them: begins on each connection with `bytes`, and lets the last ones stay open.
    fn open(&self, port: u16, bytes: &[u8], pause: Duration) {
        let mut held = VecDeque::new();
        while !self.stops.load(Ordering::Acquire) {
            if let Ok(mut stream) = connect(port) {
                // It may be cut at once.
                let _ = stream.write_all(bytes);
                held.push_back(stream);
                self.opened.fetch_add(1, Ordering::AcqRel);
            }
            if held.len() > HELD {
                held.pop_front();
            }
            std::thread::sleep(pause);
        }
    }

    fn wait_for(&self, connections: u64) {
        wait_until(ms(20_000), "enough connections", || {
            self.opened.load(Ordering::Acquire) >= connections
        });
    }
}

/// What neighbours begin with and then leave as it is.
fn beginnings(path: &str) -> Vec<(&'static str, Vec<u8>)> {
    let begun = |length: usize, sent: usize| {
        let mut bytes = post_head(path, length).into_bytes();
        bytes.extend_from_slice(b"[{\"time\":\"t\",\"type\":\"function\",\"record\":\"");
        bytes.resize(bytes.len() + sent, b'x');
        bytes
    };
    vec![
        ("nothing", Vec::new()),
        ("half a head", b"POST / HT".to_vec()),
        ("a head for another path", post_head("/", 5000).into_bytes()),
        ("the head of a large body", post_head(path, 1_000_000).into_bytes()),
        ("the head of a larger body", post_head(path, 8_000_000).into_bytes()),
        ("most of a small body", begun(16_000, 15_000)),
        ("a part of a large body", begun(1_000_000, 100_000)),
        ("a long event", begun(8_000_000, 100_000)),
        (
            "a body in chunks",
            format!("POST {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n").into(),
        ),
    ]
}

/// Threads that waited for room to read a large body did not count any more once their connection
/// was cut, and more and more of them were there: over a thousand.
#[test]
fn threads_and_memory_are_bounded_whatever_connections_begin_with() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().timeout(ms(20_000)).start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("before")).unwrap();
    let (pid, port) = (lambda.pid(), lambda.listener_port());
    for (what, bytes) in beginnings(&lambda.subscription().unwrap().path) {
        let (most, neighbours) = (Most::default(), Neighbours::default());
        std::thread::scope(|scope| {
            let _ends = Ends(&neighbours.stops);
            for _ in 0..3 {
                scope.spawn(|| neighbours.open(port, &bytes, ms(2)));
            }
            for n in 0..3 {
                let text = format!("beside {what} {n}");
                let report = lambda.invoke(Invocation::new().text(&text).work(ms(100))).unwrap();
                assert!(!report.deadline_exceeded, "{what}: {:?}", report.held);
                neighbours.wait_for(100 * (n + 1));
                most.look(&lambda);
            }
        });
        most.assert_bounded(what);
    }
    wait_until(ms(20_000), "the connections to be gone", || lambda.stats().threads < 20);
    assert_eq!(lambda.pid(), pid, "the same process");
    end(&kinesis, &lambda);
    kinesis.account().compare(&lambda.sent()).assert_lossless();
}

/// Each of them is at the end of a body that needs no room, and of those that need some there are
/// as many as there is room for; and the queue is full.
#[test]
fn memory_is_bounded_with_a_body_at_each_connection_and_no_room_left() {
    let kinesis = Kinesis::builder().count_only().start();
    let lambda = extension(&kinesis)
        .without_freeze()
        .timeout(ms(60_000))
        .setting("SPOOL_BYTES", "0")
        .start();
    lambda.init().unwrap();
    let (port, path) = (lambda.listener_port(), lambda.subscription().unwrap().path);
    kinesis.fault(Fault::hang());
    assert_eq!(lambda.flood(40, 1000, 300).unwrap().refused, 0);
    let open = |length: usize, sent: usize| {
        let mut stream = connect(port).unwrap();
        stream.write_all(post_head(&path, length).as_bytes()).unwrap();
        stream.write_all(&vec![b' '; sent]).unwrap();
        stream
    };
    let mut held: Vec<TcpStream> = (0..2).map(|_| open(1_100_000, 1_099_999)).collect();
    held.extend((0..2).map(|_| open(8_000_000, 1_000_000)));
    held.extend((0..30).map(|_| open(16_000, 15_999)));
    let most = Most::default();
    for _ in 0..20 {
        assert_eq!(lambda.flood(1, 1000, 300).unwrap().refused, 0);
        most.look(&lambda);
    }
    most.assert_bounded("bodies that are almost there");
    drop(held);
    kinesis.clear_faults();
    lambda.invoke(Invocation::new().timeout(ms(60_000))).unwrap();
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
}

/// Each body that was begun took used buffers, which were counted no more: a client that sent
/// nothing but heads had most of a megabyte for each.
#[test]
fn used_buffers_are_counted_while_a_body_is_read_into_them() {
    let kinesis = Kinesis::builder().count_only().start();
    let lambda = extension(&kinesis)
        .without_freeze()
        .timeout(ms(60_000))
        .setting("SPOOL_BYTES", "0")
        .setting("MAX_AGE_MS", "100")
        .setting("ENVELOPE", "slim")
        .start();
    lambda.init().unwrap();
    let (port, path) = (lambda.listener_port(), lambda.subscription().unwrap().path);
    // As many events as fit into it.
    let log = r#"{"time":"","type":"function","record":1}"#;
    let body = format!("[{}]", vec![log; 258_000 / (log.len() + 1)].join(","));
    let begun = move |lambda: &Lambda| {
        let mut held = Vec::new();
        for _ in 0..9 {
            for _ in 0..3 {
                assert_eq!(lambda.post_raw(body.as_bytes()).unwrap(), 200);
            }
            // They are sent, and their buffers serve again.
            std::thread::sleep(ms(400));
            for _ in 0..3 {
                let mut stream = connect(port).unwrap();
                stream.write_all(post_head(&path, 16_000).as_bytes()).unwrap();
                held.push(stream);
            }
            std::thread::sleep(ms(50));
        }
        kinesis.fault(Fault::hang());
        assert_eq!(lambda.flood(40, 1000, 300).unwrap().refused, 0);
        let most = Most::default();
        most.look(lambda);
        most.assert_bounded("bodies that are begun");
        kinesis.clear_faults();
    };
    lambda.invoke(Invocation::new().timeout(ms(60_000)).run(begun)).unwrap();
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
}

/// Two clients that had the room for large bodies and sent a byte now and then kept all others
/// waiting, for ten seconds at a time.
#[test]
fn who_holds_the_room_for_large_bodies_keeps_no_body_waiting() {
    const LOGS: usize = 500;
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().timeout(ms(20_000)).start();
    lambda.init().unwrap();
    let (port, path) = (lambda.listener_port(), lambda.subscription().unwrap().path);
    let stops = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = Ends(&stops);
        for _ in 0..6 {
            scope.spawn(|| {
                while !stops.load(Ordering::Acquire) {
                    let mut stream = connect(port).unwrap();
                    let mut sent = stream.write_all(post_head(&path, 1_000_000).as_bytes());
                    while sent.is_ok() && !stops.load(Ordering::Acquire) {
                        std::thread::sleep(ms(10));
                        sent = stream.write_all(b" ");
                    }
                }
            });
        }
        std::thread::sleep(ms(200));
        let log = format!(r#"{{"time":"t","type":"function","record":"{}"}}"#, "x".repeat(1000));
        // One that needs no room, and one that cannot do without.
        let bodies = [
            format!("[{}]", vec![log; LOGS].join(",")),
            format!(
                r#"[{{"time":"t","type":"function","record":"long {}"}}]"#,
                "y".repeat(300_000)
            ),
        ];
        for body in &bodies {
            let mut stream = connect(port).unwrap();
            stream.write_all(post_head(&path, body.len()).as_bytes()).unwrap();
            stream.write_all(body.as_bytes()).unwrap();
            assert_eq!(status(&mut stream), 200);
        }
    });
    lambda.invoke(Invocation::new()).unwrap();
    let ledger = end(&kinesis, &lambda);
    let account = kinesis.account();
    assert_eq!(account.of_type("function").len(), LOGS + 1);
    assert_eq!(account.containing("long yyy").len(), 1);
    assert_eq!(ledger["unparsed"], 0);
}

/// It was cut for one that had to wait, had long done without, and was answered: one of two bodies
/// that Lambda posted at the same time was refused where its sender had no CPU for 250 ms.
#[test]
fn a_large_body_that_pauses_is_not_cut_for_one_that_did_without_its_room() {
    const LOGS: usize = 800;
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().timeout(ms(20_000)).start();
    lambda.init().unwrap();
    let [slow, quick] = ["slow", "quick"].map(|name| {
        let text = format!("{name} {}", "x".repeat(1000));
        let log = format!(r#"{{"time":"t","type":"function","record":"{text}"}}"#);
        format!("[{}]", vec![log; LOGS].join(","))
    });
    let (begun, rest) = slow.as_bytes().split_at(400_000);
    let mut client = Client::begin(&lambda, slow.len(), begun);
    std::thread::sleep(ms(100));
    assert_eq!(Client::post(&lambda, &with_length(&quick)), 200);
    std::thread::sleep(ms(300));
    client.0.write_all(rest).unwrap();
    assert_eq!(client.status(), 200);
    lambda.invoke(Invocation::new()).unwrap();
    let ledger = end(&kinesis, &lambda);
    let account = kinesis.account();
    let count = |text| account.containing(text).len();
    assert_eq!((count("slow x"), count("quick x")), (LOGS, LOGS));
    assert_eq!(ledger["unparsed"], 0);
}

/// As fast as they can, on the path that Lambda has and on another one.
#[test]
fn a_storm_of_connections_keeps_lambda_out_of_none_and_shutdown_in_time() {
    for (what, knows_path) in [("strangers", false), ("those that know the path", true)] {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).without_freeze().timeout(ms(20_000)).start();
        lambda.init().unwrap();
        lambda.invoke(Invocation::new().text("before")).unwrap();
        let (pid, port) = (lambda.pid(), lambda.listener_port());
        let path = if knows_path { lambda.subscription().unwrap().path } else { "/".to_owned() };
        let bytes = format!("{}[", post_head(&path, 5000));
        let (most, neighbours) = (Most::default(), Neighbours::default());
        std::thread::scope(|scope| {
            let _ends = Ends(&neighbours.stops);
            for _ in 0..4 {
                scope.spawn(|| neighbours.open(port, bytes.as_bytes(), ms(0)));
            }
            for n in 0..5 {
                // On a new connection each, which nobody knows yet.
                lambda.deliver(|way| way.close = true);
                let text = format!("amid {n}");
                let report = lambda.invoke(Invocation::new().text(&text).work(ms(50))).unwrap();
                assert!(!report.deadline_exceeded, "{what}: {:?}", report.held);
                neighbours.wait_for(100 * (n + 1));
                most.look(&lambda);
            }
            assert!(lambda.drain(ms(20_000)), "{what}");
            assert_eq!(lambda.pid(), pid, "{what}: the same process");
            let end = lambda.shutdown("spindown");
            assert!(end.is_clean(), "{what}: {end:?} {:?}", lambda.stderr());
        });
        most.assert_bounded(what);
        kinesis.account().compare(&lambda.sent()).assert_lossless();
        assert_eq!(kinesis.account().containing("amid ").len(), 5, "{what}");
    }
}

/// Neighbours may leave no threads to be had, or no memory for their stacks. Each new connection was
/// cut then, Lambda's as well, while those that did nothing kept their threads.
#[test]
fn where_no_thread_can_be_started_idle_connections_give_way() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().timeout(ms(20_000)).start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("before")).unwrap();
    let pid = lambda.pid().unwrap();
    // The stack of a thread has 2 MiB.
    limit_memory(pid, &(virtual_kib(pid) * 1024 + 1024 * 1024).to_string());
    let port = lambda.listener_port();
    let held: Vec<TcpStream> = (0..20).map(|_| connect(port).unwrap()).collect();
    let body = br#"[{"time":"2026-11-23T09:15:45.012Z","type":"function","record":"amid them"}]"#;
    for _ in 0..10 {
        assert_eq!(lambda.post_raw(body).unwrap(), 200);
    }
    let threads = lambda.stats().threads;
    assert!(threads < 10, "{threads} threads: there was no limit");
    limit_memory(pid, "unlimited");
    drop(held);
    lambda.invoke(Invocation::new().text("after")).unwrap();
    assert_eq!(lambda.pid(), Some(pid), "the same process");
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    assert_eq!(kinesis.account().compare(&lambda.sent()).lost.len(), 0);
    assert_eq!(kinesis.account().containing("amid them").len(), 10);
}

fn virtual_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Of a process, from now on.
fn limit_memory(pid: i32, bytes: &str) {
    let limit = format!("--as={bytes}:unlimited");
    let limited = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status();
    assert!(limited.unwrap().success());
}

/// Each answer costs more than the request that it answers.
#[test]
fn who_is_refused_again_and_again_is_hung_up_on() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().start();
    lambda.init().unwrap();
    let mut stream = connect(lambda.listener_port()).unwrap();
    // It may hang up in the middle of it.
    let _ = stream.write_all("GET / HTTP/1.1\r\n\r\n".repeat(100).as_bytes());
    let mut answers = Vec::new();
    let _ = stream.read_to_end(&mut answers);
    let text = String::from_utf8_lossy(&answers);
    assert!(text.matches("HTTP/1.1 404").count() <= 16, "{text}");
    lambda.invoke(Invocation::new().text("after")).unwrap();
    let ledger = end(&kinesis, &lambda);
    kinesis.account().compare(&lambda.sent()).assert_lossless();
    assert!(ledger["refusedPosts"].as_u64().unwrap() <= 16);
}

/// Lambda's own POSTs had come on the path that it was given; then an end was lost while somebody
/// posted elsewhere, and what that one posted was taken.
#[test]
fn once_lambda_has_posted_no_other_path_is_taken() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().timeout(ms(1000)).start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("genuine")).unwrap();
    assert!(lambda.drain(ms(5000)));
    let forged = br#"[{"time":"2026-11-23T09:15:45.012Z","type":"function","record":"forged"}]"#;
    let (stops, taken) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _ends = Ends(&stops);
        for _ in 0..3 {
            scope.spawn(|| {
                while !stops.load(Ordering::Acquire) {
                    let is_taken = lambda.post_to("/", forged).is_ok_and(|status| status == 200);
                    taken.fetch_add(u64::from(is_taken), Ordering::AcqRel);
                }
            });
        }
        lambda.deliver(|way| way.lost_type = Some("platform.runtimeDone".to_owned()));
        lambda.invoke(Invocation::new().text("without an end")).unwrap();
        lambda.deliver(|way| way.lost_type = None);
        lambda.invoke(Invocation::new().text("after")).unwrap();
    });
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    assert_eq!(taken.load(Ordering::Acquire), 0, "POSTs to another path were taken");
    assert!(kinesis.account().containing("forged").is_empty());
}

/// There were more than there may be, since none of them could give way while it was answered: no
/// connection was ever accepted again, as long as those stayed open.
#[test]
fn connections_that_are_all_answered_at_once_keep_nobody_out_later() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().timeout(ms(20_000)).start();
    lambda.init().unwrap();
    let (port, path) = (lambda.listener_port(), lambda.subscription().unwrap().path);
    // Each is read whole, and then waits for its turn.
    let body = format!("[{}", "#,".repeat(7000));
    let post = format!("{}{body}", post_head(&path, body.len()));
    let (stops, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut held: Vec<TcpStream> = Vec::new();
    std::thread::scope(|scope| {
        let _ends = Ends(&stops);
        let neighbour = || {
            let mut client = Client::connect(&lambda);
            while !stops.load(Ordering::Acquire) {
                // It may be cut at any moment.
                let _ = client.0.write_all(post.as_bytes());
                if client.status() == 200 {
                    answers.fetch_add(1, Ordering::AcqRel);
                    let _ = client.0.read(&mut [0; 1000]);
                } else if let Ok(stream) = connect(port) {
                    client = Client(stream);
                }
            }
            client.0
        };
        let neighbours: Vec<_> = (0..60).map(|_| scope.spawn(neighbour)).collect();
        wait_until(ms(20_000), "many answers", || answers.load(Ordering::Acquire) > 2000);
        stops.store(true, Ordering::Release);
        held.extend(neighbours.into_iter().map(|one| one.join().unwrap()));
    });
    for n in 0..3 {
        let log = format!(
            r#"[{{"time":"2026-11-23T09:15:45.012Z","type":"function","record":"kept out {n}"}}]"#
        );
        assert_eq!(Client::post(&lambda, &with_length(&log)), 200);
    }
    drop(held);
    lambda.invoke(Invocation::new()).unwrap();
    end(&kinesis, &lambda);
    assert_eq!(kinesis.account().containing("kept out ").len(), 3);
}
