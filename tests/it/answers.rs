//! Peers that answer what nobody should: whatever they do, no record counts as delivered that Kinesis did not take, none is given up, and an
//! error says what it was.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use kinesis_telemetry_extension::kinesis::error::ErrorKind;
use kinesis_telemetry_extension::kinesis::response::RecordOutcome;
use sandbox::{Fault, Invocation, Kinesis, ms};

use crate::extension;
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
    assert!(head_of(stream).is_some(), "the client hung up inside its request");
}

/// A server that answers each request by its head.
struct Peer {
    url: String,
    asked: Arc<Mutex<Vec<Instant>>>,
}

/// How much of a request a [`Peer`] reads before it answers; after a part of it, it hangs up.
#[derive(Clone, Copy, PartialEq)]
enum Reads {
    TheHead,
    All,
}

impl Peer {
    /// Serves until the test process ends.
    fn start(answer: impl Fn(&str) -> (Vec<u8>, Reads) + Send + Sync + 'static) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (answer, asked) = (Arc::new(answer), Arc::<Mutex<Vec<Instant>>>::default());
        let counts = Arc::clone(&asked);
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
                thread::spawn(move || {
                    while let Some(head) = head_of(&mut stream) {
                        asked.lock().unwrap().push(Instant::now());
                        let (bytes, reads) = answer(&head);
                        if reads == Reads::All {
                            read_body(&mut stream, &head);
                        }
                        if stream.write_all(&bytes).is_err() || reads == Reads::TheHead {
                            return;
                        }
                    }
                });
            }
        });
        Peer { url, asked: counts }
    }

    /// When it was asked.
    fn times(&self) -> Vec<Instant> {
        self.asked.lock().unwrap().clone()
    }
}

/// The address of one that gives every request this answer.
pub(crate) fn always(body: &[u8]) -> String {
    let answer = with_body("200 OK", body);
    Peer::start(move |_| (answer.clone(), Reads::All)).url
}

/// The most of these times that lie within `window`.
fn peak(times: &[Instant], window: Duration) -> usize {
    let within =
        |from: Instant| times.iter().filter(move |time| (from..from + window).contains(*time));
    times.iter().map(|from| within(*from).count()).max().unwrap_or_default()
}

/// `None` where the client has hung up.
fn head_of(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn read_body(stream: &mut TcpStream, head: &str) {
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
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

/// Whoever refuses a request by the length that it announces may hang up before all of it has come. That was a connection that had died: the
/// request was never divided, and sent again for ever.
#[test]
fn a_refusal_that_does_not_wait_for_the_whole_request_is_a_refusal() {
    let peer = Peer::start(|_| (with_body("413 X\r\nConnection: close", b""), Reads::TheHead));
    for bytes in [1, 100, 500, 2000, 10_000] {
        let mut bare = Bare::of(&peer.url, &[("KINESIS_TELEMETRY_RECORD", "event")]);
        let error = bare.put_large(500, bytes, LONG).unwrap_err();
        assert_eq!(
            (error.kind, error.code.as_str(), error.ambiguous),
            (ErrorKind::InvalidRequest, "Http413", false),
            "{bytes}"
        );
    }
}

/// What is taken to have been stored was asked for to the end. The request is larger than all buffers between the two.
#[test]
fn a_success_that_does_not_wait_for_the_whole_request_is_none() {
    let peer = Peer::start(|_| (taken(), Reads::TheHead));
    let large = [("KINESIS_TELEMETRY_RECORD_BYTES", "10485760")];
    let error = Bare::of(&peer.url, &large).put_large(1, 10_400_000, LONG).unwrap_err();
    assert_eq!(
        (error.kind, error.code.as_str(), error.ambiguous),
        (ErrorKind::Transient, "ConnectionReset", false)
    );
}

/// STS and the container endpoint were asked anew with each try to send, up to three times for each: 24 requests in one second.
#[test]
fn who_gives_no_credentials_is_not_asked_without_end() {
    const CONTAINER: &str = r#"{"AccessKeyId":"a","SecretAccessKey":"s","Token":"t"}"#;
    let kinesis = Kinesis::start();
    for refusal in [
        "403 X\r\nDate: Wed, 25 Nov 2026 01:00:00 GMT\r\nx-amzn-errortype: RequestTimeTooSkewed",
        "403 X\r\nx-amzn-errortype: ExpiredToken",
        "403 X\r\nx-amzn-errortype: AccessDenied",
        "503 X",
        "200 OK",
    ] {
        let peer = Peer::start(move |head| {
            let is_container = head.starts_with("GET ");
            let keys = is_container.then(|| with_body("200 OK", CONTAINER.as_bytes()));
            (keys.unwrap_or_else(|| with_body(refusal, b"")), Reads::All)
        });
        let lambda = extension(&kinesis)
            .without_credentials()
            .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &peer.url)
            .env("AWS_ENDPOINT_URL_STS", &peer.url)
            .setting("ROLE_ARN", "arn:aws:iam::210987654321:role/writer")
            .timeout(ms(10_000))
            .start();
        lambda.init().unwrap();
        for _ in 0..3 {
            lambda.invoke(Invocation::new().text("hello")).unwrap();
        }
        assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
        let times = peer.times();
        let most = peak(&times, Duration::from_secs(1));
        assert!((1..=10).contains(&most), "{refusal}: {most} of {} in a second", times.len());
    }
}

/// An end in the past was believed, and new ones were fetched for every request.
#[test]
fn credentials_that_have_expired_when_they_come_are_used_as_long_as_kinesis_takes_them() {
    let kinesis = Kinesis::start();
    let keys = kinesis.credentials();
    let body = serde_json::json!({
        "AccessKeyId": keys.access_key_id,
        "SecretAccessKey": keys.secret_access_key,
        "Token": keys.session_token,
        "Expiration": "2001-01-01T00:00:00Z",
    });
    let peer = Peer::start(move |_| (with_body("200 OK", body.to_string().as_bytes()), Reads::All));
    let container = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", peer.url.as_str()),
    ];
    let mut bare = Bare::with(&kinesis, &container);
    for _ in 0..5 {
        assert_eq!(bare.put(LONG), Ok(vec![RecordOutcome::Taken]));
    }
    assert_eq!(peer.times().len(), 1);
    kinesis.fault(Fault::error(400, "ExpiredTokenException").times(1));
    assert!(bare.put(LONG).is_err_and(|error| error.retry_now));
    assert_eq!(bare.put(LONG), Ok(vec![RecordOutcome::Taken]));
    assert_eq!(peer.times().len(), 2);
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
    let answers = [
        answer("two\nlines"),
        answer(&"x".repeat(17_000)),
        answer(keys.session_token.as_deref().unwrap()),
    ];
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
    for _ in 0..2 {
        let error = bare.put(LONG).unwrap_err();
        assert_eq!(error.code, "ContainerCredentials.UnreadableResponse");
    }
    // No third try within a second.
    thread::sleep(ms(1000));
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
