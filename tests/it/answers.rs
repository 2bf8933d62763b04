//! Peers that answer what nobody should: whatever they do, no record counts as delivered that Kinesis did not take, none is given up, and an
//! error says what it was.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use kinesis_telemetry_extension::kinesis::error::ErrorKind;
use kinesis_telemetry_extension::kinesis::response::RecordOutcome;
use sandbox::{Fault, Kinesis, ms};

use crate::wire::{Bare, read_request};

const LONG: Duration = Duration::from_secs(10);

/// What a client makes of `answer`, sent `times` times to the first request and then closed.
fn answered(answer: &[u8], times: usize) -> Result<Vec<RecordOutcome>, (ErrorKind, String, bool)> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = answer.to_vec();
    let serving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        read_request(&mut stream);
        // The client hangs up when it has had enough.
        let _ = (0..times).try_for_each(|_| stream.write_all(&answer));
    });
    let result = Bare::of(&url, &[]).put(LONG);
    serving.join().unwrap();
    result.map_err(|error| (error.kind, error.code, error.ambiguous))
}

/// Reads a request without a body, whole: what is left unread at the end resets the connection, and the answer with it.
fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
}

fn with_body(head: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn taken() -> Vec<u8> {
    with_body("200 OK", br#"{"Records":[{"SequenceNumber":"1"}]}"#)
}

#[test]
fn an_answer_is_read_however_it_is_framed() {
    let whole = String::from_utf8(taken()).unwrap();
    let body = whole.split_once("\r\n\r\n").unwrap().1;
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    for answer in [
        whole.clone(),
        chunked,
        format!("HTTP/1.0 200 OK\r\n\r\n{body}"),
        format!("{}{whole}", "HTTP/1.1 100 Continue\r\n\r\n".repeat(10)),
        format!("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{whole}"),
    ] {
        assert_eq!(answered(answer.as_bytes(), 1), Ok(vec![RecordOutcome::Taken]), "{answer}");
    }
}

/// None of them fills the memory: the heads are bounded, and so are the bodies.
#[test]
fn what_is_no_answer_is_an_error_and_may_have_been_stored() {
    let deep = format!("{{\"Records\":{}", "[".repeat(500_000));
    for (answer, times, code) in [
        (b"a".repeat(1000), 100_000, "Http"),
        (b"x-a: b\r\n".to_vec(), 1_000_000, "Http"),
        ([b"HTTP/1.1 200 OK\r\n".to_vec(), b"x-a: b\r\n".repeat(5000)].concat(), 1, "Http"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;xxxxxxxx".to_vec(),
            100_000,
            "Http",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFFF\r\n"
                .to_vec(),
            1,
            "Http",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef".to_vec(),
            1,
            "Http",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n{}".to_vec(),
            1,
            "ConnectionReset",
        ),
        (b"\x15\x03\x03\x00\x02\x02\x28".to_vec(), 1, "Http"),
        (with_body("200 OK", &b"x".repeat(2_000_000)), 1, "Http"),
        (with_body("200 OK", deep.as_bytes()), 1, "UnreadableResponse"),
        (with_body("200 OK", b""), 1, "UnreadableResponse"),
    ] {
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(80)]).into_owned();
        let expected = Err((ErrorKind::Transient, code.to_owned(), true));
        assert_eq!(answered(&answer, times), expected, "{shown}");
    }
}

/// A gateway that says no more than a status may have passed the request on; a 200 of another kind too. A refusal was not passed on.
#[test]
fn a_bare_status_says_what_it_can() {
    use ErrorKind::{Configuration, Throttled, Transient};
    let large = b"<html>".repeat(500_000);
    for (answer, kind, code, ambiguous) in [
        (with_body("202 Accepted", b""), Configuration, "Http202", true),
        (b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), Configuration, "Http204", true),
        (with_body("307 X\r\nLocation: http://127.0.0.1:9/", b""), Configuration, "Http307", false),
        (with_body("403 Forbidden", &large), Configuration, "Http403", false),
        (with_body("407 X", b""), Configuration, "Http407", false),
        (with_body("429 X", &large), Throttled, "Http429", false),
        (with_body("500 X", b""), Transient, "Http500", true),
        (
            with_body("500 X", br#"{"__type":"InternalFailure"}"#),
            Transient,
            "InternalFailure",
            false,
        ),
        (with_body("502 X", &large), Transient, "Http502", true),
        (with_body("503 X", &large), Transient, "Http503", false),
        (with_body("599 X", b""), Transient, "Http599", true),
    ] {
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(80)]).into_owned();
        assert_eq!(answered(&answer, 1), Err((kind, code.to_owned(), ambiguous)), "{shown}");
    }
}

/// The second answer was taken for that to the next request: its events counted as delivered and were lost.
#[test]
fn an_answer_that_comes_twice_is_no_answer_to_the_next_request() {
    for kinesis in [Kinesis::start(), Kinesis::builder().tls().start()] {
        // Of several sizes, so that the second one is left over in each of the buffers on its way.
        for records in [1, 20, 60, 100, 200, 400] {
            let mut bare = Bare::with(&kinesis, &[("KINESIS_TELEMETRY_RECORD", "event")]);
            kinesis.fault(Fault::answer_twice().times(1));
            let first = bare.put_records(records, LONG);
            assert_eq!(first, Ok(vec![RecordOutcome::Taken; records]));
            // Until the second one is there: one that comes while the next request is sent cannot be told from its answer.
            thread::sleep(ms(50));
            kinesis.fault(Fault::hang().times(1));
            let second = bare.put_records(records, ms(200));
            assert_eq!(second.map_err(|error| error.code), Err("Timeout".to_owned()), "{records}");
        }
    }
}

/// They were kept for the hour that they said they were good, and nothing could be signed with them.
#[test]
fn credentials_that_no_header_can_hold_are_asked_for_again() {
    let kinesis = Kinesis::start();
    let keys = kinesis.credentials();
    let answer = |token: &str| {
        let body = serde_json::json!({
            "AccessKeyId": keys.access_key_id,
            "SecretAccessKey": keys.secret_access_key,
            "Token": token,
            "Expiration": "2099-01-01T00:00:00Z",
        });
        with_body("200 OK", body.to_string().as_bytes())
    };
    let answers = [answer("two\nlines"), answer(keys.session_token.as_deref().unwrap())];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/credentials", listener.local_addr().unwrap());
    let serving = thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            read_head(&mut stream);
            stream.write_all(&answer).unwrap();
        }
    });
    let variables = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
    ];
    let mut bare = Bare::with(&kinesis, &variables);
    let error = bare.put(LONG).unwrap_err();
    assert_eq!(error.code, "ContainerCredentials.UnreadableResponse");
    assert_eq!(bare.put(LONG), Ok(vec![RecordOutcome::Taken]));
    serving.join().unwrap();
}

/// Nothing has reached Kinesis, and a proxy cannot hold a call, fill the memory, or say what an error is called.
#[test]
fn a_proxy_that_answers_what_nobody_should_is_an_error() {
    use ErrorKind::{Configuration, Transient};
    let tunnel = |answer: &[u8]| [b"HTTP/1.1 200 OK\r\n\r\n", answer].concat();
    let large = b"<html>".repeat(500_000);
    for (answer, times, kind, code) in [
        (b"a".repeat(1000), 100_000, Transient, "Http"),
        (b"x-a: b\r\n".to_vec(), 1_000_000, Transient, "Http"),
        (b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), 100_000, Configuration, "ProxyRefused"),
        (
            with_body("302 X\r\nLocation: http://127.0.0.1:9/", b""),
            1,
            Configuration,
            "ProxyRefused",
        ),
        (with_body("407 X", &large), 1, Configuration, "ProxyRefused"),
        (with_body("503 X", &large), 1, Transient, "ProxyFailed"),
        (tunnel(b"garbage"), 1, Configuration, "Tls"),
        (tunnel(&[0x15, 3, 3, 0, 2, 1, 90].repeat(1000)), 1, Configuration, "Tls"),
    ] {
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(80)]).into_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = format!("http://{}", listener.local_addr().unwrap());
        let serving = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            read_head(&mut stream);
            // The client hangs up when it has had enough.
            let _ = (0..times).try_for_each(|_| stream.write_all(&answer));
        });
        let url = "https://kinesis.us-east-1.amazonaws.com";
        let error = Bare::of(url, &[("HTTPS_PROXY", &proxy)]).put(LONG).unwrap_err();
        serving.join().unwrap();
        assert_eq!(
            (error.kind, error.code.as_str(), error.ambiguous),
            (kind, code, false),
            "{shown}"
        );
    }
}
