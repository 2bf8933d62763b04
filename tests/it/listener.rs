//! The listener against clients of every kind: pipelined, cut off, too large, lying.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use sandbox::{Fault, Invocation, Kinesis, Lambda, ms, wait_until};

use crate::{extension, ledger, neighbour};

fn connect(lambda: &Lambda) -> TcpStream {
    neighbour::connect(lambda.listener_port()).unwrap()
}

fn body(text: &str) -> String {
    format!(r#"[{{"time":"2026-11-23T09:15:45.012Z","type":"function","record":"{text}"}}]"#)
}

fn head(lambda: &Lambda, framing: &str) -> String {
    format!("POST {} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n", lambda.subscription().unwrap().path)
}

/// A whole request.
fn post(lambda: &Lambda, body: &str) -> String {
    format!("{}{body}", head(lambda, &format!("Content-Length: {}", body.len())))
}

/// The statuses of the next answers; they have no body.
fn statuses(stream: &mut TcpStream, count: usize) -> Vec<u16> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        let found: Vec<u16> = text
            .match_indices("HTTP/1.1 ")
            .filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok())
            .collect();
        if found.len() >= count {
            return found;
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return found,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
    }
}

#[test]
fn pipelined_posts_are_all_answered_and_all_arrive() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().timeout(ms(60_000)).start();
    lambda.init().unwrap();
    for round in 0..20 {
        let mut stream = connect(&lambda);
        let requests: String = (0..20)
            .map(|n| post(&lambda, &body(&format!("pipelined {round:02}-{n:02}."))))
            .collect();
        stream.write_all(requests.as_bytes()).unwrap();
        assert_eq!(statuses(&mut stream, 20), [200; 20], "round {round}");
    }
    lambda.invoke(Invocation::new().text("after")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    let account = kinesis.account();
    assert_eq!(account.containing("pipelined ").len(), 400);
    assert_eq!(account.compare(&lambda.sent()).lost.len(), 0);
    assert_eq!(lambda.stderr(), Vec::<String>::new());
}

#[test]
fn a_client_that_reads_no_answer_stops_neither_others_nor_shutdown() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().start();
    lambda.init().unwrap();
    // The first request stalls in its body, so those behind it cannot be answered.
    let stalled: Vec<TcpStream> = (0..5)
        .map(|n| {
            let mut stream = connect(&lambda);
            let large = head(&lambda, "Content-Length: 5000");
            stream
                .write_all(
                    format!("{}{large}[{{", post(&lambda, &body(&format!("before {n}"))))
                        .as_bytes(),
                )
                .unwrap();
            assert_eq!(statuses(&mut stream, 1), [200]);
            stream
        })
        .collect();
    let report = lambda.invoke(Invocation::new().text("meanwhile")).unwrap();
    assert!(!report.deadline_exceeded);
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    drop(stalled);
    let account = kinesis.account();
    assert_eq!(
        (account.containing("meanwhile").len(), account.containing("before ").len()),
        (1, 5)
    );
}

#[test]
fn a_post_that_is_answered_200_during_shutdown_is_sent_or_counted() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("before")).unwrap();
    kinesis.fault(Fault::delay(ms(300)));
    let begun = AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        let posts = scope.spawn(|| {
            let post = |n: &usize| {
                std::thread::sleep(ms(3));
                let taken = lambda
                    .post_raw(body(&format!("late {n}.")).as_bytes())
                    .is_ok_and(|status| status == 200);
                begun.fetch_or(taken, Ordering::AcqRel);
                taken
            };
            (0..).take_while(|_| lambda.exit().is_none()).filter(post).collect::<Vec<_>>()
        });
        wait_until(ms(10_000), "the first POST", || begun.load(Ordering::Acquire));
        assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
        posts.join().unwrap()
    });
    let account = kinesis.account();
    let missing: Vec<_> =
        taken.iter().filter(|n| account.containing(&format!("late {n}.")).is_empty()).collect();
    assert!(
        !taken.is_empty() && missing.is_empty(),
        "{} were answered 200, but of these there are none: {missing:?}",
        taken.len()
    );
    ledger(&kinesis);
}

#[test]
fn a_body_that_is_cut_off_is_not_taken() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().start();
    lambda.init().unwrap();
    let long = body(&format!("cut {}", "x".repeat(5000)));
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let chunked = head(&lambda, "Transfer-Encoding: chunked");
    let half = &long[..2000];
    let cases = [
        // In a body that says its length, inside a chunk, behind a chunk, in the size of one, and
        // before the last line end.
        format!("{}{half}", head(&lambda, &format!("Content-Length: {}", long.len()))),
        format!("{chunked}{:x}\r\n{half}", long.len()),
        format!("{chunked}{}", chunk(half)),
        format!("{chunked}{}1", chunk(half)),
        format!("{chunked}{}0\r\n", chunk(&long)),
    ];
    for (n, case) in cases.iter().enumerate() {
        let mut stream = connect(&lambda);
        stream.write_all(case.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(statuses(&mut stream, 1), [400], "case {n}");
    }
    // As Lambda does then: the same once more.
    let mut stream = connect(&lambda);
    stream
        .write_all(format!("{chunked}{}{}0\r\n\r\n", chunk(half), chunk(&long[2000..])).as_bytes())
        .unwrap();
    assert_eq!(statuses(&mut stream, 1), [200]);
    lambda.invoke(Invocation::new().text("after")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    assert_eq!(kinesis.account().containing("cut xxx").len(), 1);
    assert_eq!(ledger(&kinesis)["unparsed"], 0);
}

#[test]
fn a_body_over_the_limit_is_answered_200_counted_and_said_once() {
    const TOO_LARGE: usize = 8 * 1024 * 1024 + 1;
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().timeout(ms(20_000)).start();
    lambda.init().unwrap();
    let large = " ".repeat(TOO_LARGE);
    let mut stream = connect(&lambda);
    for request in [
        post(&lambda, &large),
        format!(
            "{}{TOO_LARGE:x}\r\n{large}\r\n0\r\n\r\n",
            head(&lambda, "Transfer-Encoding: chunked")
        ),
    ] {
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(statuses(&mut stream, 1), [200]);
    }
    // The connection goes on, and so does the invocation whose end may have been in it.
    stream.write_all(post(&lambda, &body("on the same connection")).as_bytes()).unwrap();
    assert_eq!(statuses(&mut stream, 1), [200]);
    lambda.invoke(Invocation::new().text("after")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    assert_eq!(account.compare(&lambda.sent()).lost.len(), 0);
    assert_eq!(account.containing("on the same connection").len(), 1);
    assert_eq!(ledger(&kinesis)["refusedPosts"], 2);
    assert_eq!(lambda.stderr().len(), 1, "{:?}", lambda.stderr());
}

#[test]
fn a_length_that_nobody_could_send_reserves_nothing() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_freeze().start();
    lambda.init().unwrap();
    let before = lambda.stats().resident_kib;
    for path in [lambda.subscription().unwrap().path, "/elsewhere".to_owned()] {
        for length in [1_usize << 30, 1 << 50, usize::MAX >> 1, usize::MAX] {
            let mut stream = connect(&lambda);
            let request =
                format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n[");
            stream.write_all(request.as_bytes()).unwrap();
            drop(stream);
        }
    }
    for n in 0..3 {
        lambda.invoke(Invocation::new().text(&format!("after {n}"))).unwrap();
    }
    assert!(
        lambda.stats().peak_kib < before + 4096,
        "{} KiB, {} before",
        lambda.stats().peak_kib,
        before
    );
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    kinesis.account().compare(&lambda.sent()).assert_clean();
}
