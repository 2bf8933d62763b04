//! Long bodies of telemetry and long events: what they cost, and that nothing of them is lost
//! uncounted.

use std::io::Write;
use std::net::Shutdown;

use sandbox::{Fault, Invocation, Kinesis, ms, wait_until};

use crate::neighbour::{Client, assert_peak, chunked, costly_bodies, with_length};
use crate::{end, extension, ledger};

const HEAD: &str = r#"{"time":"2026-11-23T09:15:45.012Z","type":"function","record":"#;

/// What is held back of a record is longer than a window, and the body that goes on with it has
/// several.
#[test]
fn a_long_record_in_two_posts_arrives_whole() {
    let kinesis = Kinesis::builder().record_bytes(10 << 20).start();
    let lambda = extension(&kinesis)
        .without_freeze()
        .timeout(ms(60_000))
        .setting("QUEUE_BYTES", "67108864")
        .setting("RECORD_BYTES", "10485760")
        .start();
    lambda.init().unwrap();
    // What Lambda posts itself would end what is held back.
    lambda.invoke(Invocation::new()).unwrap();
    assert!(lambda.drain(ms(20_000)));
    let part = "long ".repeat(270_000);
    let first = format!(r#"[{HEAD}{{"m":"{part}}}]"#);
    let next = format!(r#"{HEAD}"next {}"}}"#, "x".repeat(1000));
    let second = format!(r#"[{HEAD}{part}"}}}},{}]"#, vec![next; 1000].join(","));
    assert_eq!(lambda.post_raw(first.as_bytes()).unwrap(), 200);
    assert_eq!(lambda.post_raw(second.as_bytes()).unwrap(), 200);
    lambda.invoke(Invocation::new()).unwrap();
    let ledger = end(&kinesis, &lambda);
    let account = kinesis.account();
    assert_eq!(account.containing("next xxx").len(), 1000);
    assert_eq!(account.containing(&format!(r#""record":{{"m":"{part}{part}"}},"#)).len(), 1);
    assert_eq!(ledger["unparsed"], 0);
}

/// A body of many windows, all of whose events are Lambda's: each of them arrives, once.
#[test]
fn a_body_of_many_windows_arrives_whole() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis)
        .without_freeze()
        .timeout(ms(60_000))
        .setting("QUEUE_BYTES", "67108864")
        .start();
    lambda.init().unwrap();
    let log = |n: usize| match n % 50 {
        // One that Lambda cut, and one that is longer than a window.
        7 => format!(r#"{HEAD}{{"m":"mark {n:05}. {}}},{HEAD}cut"}}}}"#, "x".repeat(3000)),
        9 if n == 1009 => format!(r#"{HEAD}"mark {n:05}. {}"}}"#, "long ".repeat(600_000)),
        _ => format!(r#"{HEAD}"mark {n:05}. {}"}}"#, "y".repeat(n % 2000)),
    };
    let body = format!("[{}]", (0..4000).map(log).collect::<Vec<_>>().join(","));
    assert!(body.len() > 6 << 20 && body.len() < 8 << 20, "{}", body.len());
    for framing in [with_length(&body), chunked(&body)] {
        assert_eq!(Client::post(&lambda, &framing), 200);
    }
    lambda.invoke(Invocation::new()).unwrap();
    let ledger = end(&kinesis, &lambda);
    let account = kinesis.account();
    let mut found: Vec<String> = account
        .of_type("function")
        .iter()
        .filter_map(|event| {
            let text = event.text();
            Some(text.get(text.find("mark ")?..)?.get(..10)?.to_owned())
        })
        .collect();
    found.sort();
    let mut expected: Vec<String> =
        (0..8000).map(|n| format!("mark {:05}", n / 2)).map(|mark| mark[..10].to_owned()).collect();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(ledger["unparsed"], 0);
}

/// Lines that are not sent are read for what they say of their invocation. Each that reports an
/// exception was remembered by itself, without a bound: one body took six megabytes more.
#[test]
fn lines_that_are_not_sent_take_no_memory_whatever_they_report() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis)
        .without_freeze()
        .setting("SUMMARY", "invocation")
        .setting("EXCLUDE", "function")
        .start();
    lambda.init().unwrap();
    let peak_with = |request_id: &str, text: &str| {
        let start =
            format!(r#"{{"type":"platform.start","record":{{"requestId":"{request_id}"}}}}"#);
        let line = format!(r#"{{"type":"function","record":"{text}"}}"#);
        let lines = vec![line.as_str(); 1_000_000 / (line.len() + 1)];
        let body = format!("[{start},{}]", lines.join(","));
        assert_eq!(lambda.post_raw(body.as_bytes()).unwrap(), 200);
        lambda.stats().peak_kib
    };
    let before = peak_with("good", r"x: a.b\nx.b: x");
    // As the runtime prints an exception without a stack.
    let peak = peak_with("bad", r"a: a.b\na.b: a\n");
    assert!(peak < before + 3 * 1024, "{before} KiB, and then {peak} KiB");
    end(&kinesis, &lambda);
    let account = kinesis.account();
    let summaries = account.of_type("kinesis-telemetry.invocation");
    let failed: Vec<bool> =
        summaries.iter().map(|event| event.text().contains(r#""errorType":"a.b""#)).collect();
    assert_eq!(failed, [false, true]);
}

/// In a queue that has just the room that an event of 8 MB needs. One of keys that no event has
/// took 148 MiB.
#[test]
fn a_long_event_costs_no_more_than_the_room_that_it_takes() {
    const QUEUE: usize = 32 << 20;
    let kinesis = Kinesis::builder().count_only().start();
    let lambda = extension(&kinesis)
        .without_freeze()
        .timeout(ms(120_000))
        .setting("SPOOL_BYTES", "0")
        .setting("QUEUE_BYTES", &QUEUE.to_string())
        .start();
    lambda.init().unwrap();
    for (name, body) in costly_bodies(8_000_000) {
        kinesis.fault(Fault::hang());
        assert_eq!(lambda.flood(40, 1000, 300).unwrap().refused, 0);
        assert_eq!(lambda.post_raw(&body).unwrap(), 200, "{name}");
        assert_peak(&lambda, QUEUE, name);
        kinesis.clear_faults();
        lambda.invoke(Invocation::new().timeout(ms(60_000))).unwrap();
    }
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
}

/// The room that it took while it was read was still taken when it was put into the queue, which
/// had room for what it took then and not for it once more.
#[test]
fn a_long_event_takes_its_room_once() {
    let kinesis = Kinesis::builder().record_bytes(10 << 20).start();
    let lambda = extension(&kinesis)
        .without_freeze()
        .timeout(ms(60_000))
        .setting("SPOOL_BYTES", "0")
        .setting("QUEUE_BYTES", &(10 << 20).to_string())
        .setting("RECORD_BYTES", "10485760")
        .start();
    lambda.init().unwrap();
    kinesis.fault(Fault::hang());
    // Some 3 MiB. While it is read, it takes 6 MiB.
    assert_eq!(lambda.flood(7, 1000, 300).unwrap().refused, 0);
    let long = format!(r#"{HEAD}"a long one. {}"}}"#, "long ".repeat(420_000));
    assert_eq!(Client::post(&lambda, &with_length(&format!("[{long}]"))), 200);
    kinesis.clear_faults();
    lambda.invoke(Invocation::new()).unwrap();
    let ledger = end(&kinesis, &lambda);
    assert_eq!(kinesis.account().containing("a long one.").len(), 1);
    assert_eq!((&ledger["dropped"]["queue"], &ledger["unparsed"]), (&0.into(), &0.into()));
}

/// It was given up in an empty queue, for the window was to double, beyond the body's end: to 4 MiB,
/// of which each takes three.
#[test]
fn a_long_event_arrives_if_the_queue_has_room_for_it() {
    let kinesis = Kinesis::builder().record_bytes(10 << 20).start();
    let lambda = extension(&kinesis)
        .without_freeze()
        .timeout(ms(60_000))
        .setting("QUEUE_BYTES", &(11 << 20).to_string())
        .setting("RECORD_BYTES", "10485760")
        .start();
    lambda.init().unwrap();
    let long = format!(r#"{HEAD}"a long one. {}"}}"#, "long ".repeat(700_000));
    assert_eq!(Client::post(&lambda, &with_length(&format!("[{long}]"))), 200);
    lambda.invoke(Invocation::new()).unwrap();
    let ledger = end(&kinesis, &lambda);
    assert_eq!(kinesis.account().containing(long.strip_suffix('}').unwrap()).len(), 1);
    assert_eq!(ledger["unparsed"], 0);
}

/// What was read of it and not handed on yet was lost, and nothing said so.
#[test]
fn of_a_body_that_is_too_large_all_that_was_read_arrives() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis)
        .without_freeze()
        .timeout(ms(60_000))
        .setting("QUEUE_BYTES", "67108864")
        .start();
    lambda.init().unwrap();
    let log = |n: usize| format!(r#"{HEAD}"mark {n:05}. {}"}}"#, "y".repeat(1900));
    let logs: Vec<String> = (0..5000).map(log).collect();
    let body = format!("[{}]", logs.join(","));
    // The bound is 8 MiB.
    let whole = (8 << 20) / (logs[0].len() + 1);
    assert_eq!(Client::post(&lambda, &chunked(&body)), 200);
    lambda.invoke(Invocation::new().text("after")).unwrap();
    let ledger = end(&kinesis, &lambda);
    let account = kinesis.account();
    let mut arrived = Vec::new();
    for event in
        account.containing("mark ").iter().filter(|event| !event.text().contains("unparsed"))
    {
        let text = event.text();
        let number = text.split("mark ").nth(1).and_then(|rest| rest.get(..5));
        arrived.push(number.unwrap().parse::<usize>().unwrap());
    }
    arrived.sort_unstable();
    assert!(arrived.len() >= whole - 1, "{} of {whole}", arrived.len());
    assert_eq!(arrived, (0..arrived.len()).collect::<Vec<_>>());
    assert_eq!(account.of_type("unparsed").len(), 1, "the one that is cut");
    assert_eq!((&ledger["refusedPosts"], &ledger["unparsed"]), (&1.into(), &1.into()));
}

/// The piece of a cut record was in the hands of the connection that went on with it, and was
/// lost with it. Nothing counted it.
#[test]
fn a_piece_arrives_though_the_body_that_goes_on_with_it_is_not_read_whole() {
    for is_cut_off in [true, false] {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).without_freeze().timeout(ms(60_000)).start();
        lambda.init().unwrap();
        lambda.invoke(Invocation::new()).unwrap();
        assert!(lambda.drain(ms(20_000)));
        let piece = format!(r#"[{HEAD}{{"m":"held back. }}]"#);
        assert_eq!(lambda.post_raw(piece.as_bytes()).unwrap(), 200);
        // More than a window, and less than the body has.
        let body = format!("[{HEAD}{}", "goes on ".repeat(50_000));
        let mut client = Client::connect(&lambda);
        let path = lambda.subscription().unwrap().path;
        let head = format!("POST {path} HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n");
        client.0.write_all((head + &body).as_bytes()).unwrap();
        std::thread::sleep(ms(500));
        if is_cut_off {
            client.0.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.status(), 400);
        }
        let ledger = end(&kinesis, &lambda);
        let arrived = kinesis.account().containing("held back.").len();
        assert_eq!((arrived, &ledger["unparsed"]), (1, &1.into()), "{ledger}");
    }
}

/// It was answered 200, though nobody would look at it, or count it, any more.
#[test]
fn behind_the_last_look_no_body_is_answered_200_not_even_one_that_is_too_large() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().timeout(ms(60_000)).start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new()).unwrap();
    assert!(lambda.drain(ms(20_000)));
    kinesis.fault(Fault::hang());
    assert_eq!(lambda.post_raw(format!("[{HEAD}1}}]").as_bytes()).unwrap(), 200);
    let too_large = with_length(&" ".repeat(9 << 20));
    let statuses = std::thread::scope(|scope| {
        let posts = scope.spawn(|| {
            wait_until(ms(20_000), "the last look", || {
                Client::post(&lambda, &with_length("[]")) == 503
            });
            [
                Client::post(&lambda, &too_large),
                Client::post(&lambda, &chunked(&" ".repeat(9 << 20))),
            ]
        });
        lambda.shutdown("spindown");
        posts.join().unwrap()
    });
    assert_eq!(statuses, [503, 503]);
}

/// A body that takes long to read kept SHUTDOWN from what was held back, and nothing counted it.
#[test]
fn a_cut_record_is_counted_when_shutdown_finds_the_listener_busy() {
    // Some parts of them take long to read, at least where the program is not optimised. What is
    // held back is not looked at for those.
    let nested = format!("{HEAD}[1,").repeat(110_000);
    let costly = with_length(&format!(r#"[{HEAD}"first"}},{nested}]"#));
    let cut = with_length(&format!(r#"[{HEAD}{{"m":"held back. }}]"#));
    // The listener may be between two parts just then.
    for _ in 0..5 {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).without_freeze().timeout(ms(60_000)).start();
        lambda.init().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| Client::post(&lambda, &costly));
            scope.spawn(|| Client::post(&lambda, &costly));
            std::thread::sleep(ms(100));
            assert_eq!(Client::post(&lambda, &cut), 200);
            let shutdown = lambda.shutdown("spindown");
            assert!(shutdown.is_clean(), "{shutdown:?} {:?}", lambda.stderr());
        });
        let delivered = kinesis.account().containing("held back.").len();
        let ledger = ledger(&kinesis);
        let lost = ledger["dropped"]["undelivered"].as_u64().unwrap();
        assert!(delivered == 1 || lost == 1, "{ledger} {:?}", lambda.stderr());
    }
}
