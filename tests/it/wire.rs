//! Between the extension and AWS: answers that drip, hang, lie or never come, connections that die, and calls that are interrupted.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use kinesis_telemetry_extension::config;
use kinesis_telemetry_extension::deadline::{Deadline, Limit};
use kinesis_telemetry_extension::dispatch::packer::Packer;
use kinesis_telemetry_extension::kinesis::client::Client;
use kinesis_telemetry_extension::kinesis::error::{Error, ErrorKind};
use kinesis_telemetry_extension::kinesis::request::Request;
use kinesis_telemetry_extension::kinesis::response::RecordOutcome;
use kinesis_telemetry_extension::ledger::Ledger;
use kinesis_telemetry_extension::sandbox::Sandbox;
use sandbox::{
    Credentials, Fault, Identity, Invocation, Kinesis, Proxy, ProxyFault, SilentPort, Which, ms,
    wait_until,
};

use crate::{extension, ledger};

/// Long enough that nothing ends by it.
const LONG: Duration = Duration::from_secs(60);

/// A client without the rest of the extension, and requests for it.
pub(crate) struct Bare {
    client: Client,
    packer: Packer,
}

impl Bare {
    pub(crate) fn of(url: &str, variables: &[(&str, &str)]) -> Bare {
        let keys = Credentials::default();
        let base = [
            ("KINESIS_TELEMETRY_STREAM", "telemetry"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL_KINESIS", url),
            ("AWS_ACCESS_KEY_ID", &keys.access_key_id),
            ("AWS_SECRET_ACCESS_KEY", &keys.secret_access_key),
            ("AWS_SESSION_TOKEN", keys.session_token.as_deref().unwrap_or_default()),
        ];
        let environment = variables.iter().chain(&base).copied().collect();
        let config = config::read(&environment).1.unwrap();
        let sandbox = Arc::new(Sandbox::default());
        let packer = Packer::new(
            &config.dispatch,
            &config.kinesis.records,
            Arc::clone(&sandbox),
            Arc::new(Ledger::default()),
        );
        Bare { client: Client::new(&config.kinesis, sandbox), packer }
    }

    fn to(kinesis: &Kinesis) -> Bare {
        match kinesis.ca_bundle() {
            Some(bundle) => {
                Bare::of(&kinesis.url(), &[("AWS_CA_BUNDLE", bundle.to_str().unwrap())])
            }
            None => Bare::of(&kinesis.url(), &[]),
        }
    }

    pub(crate) fn with(kinesis: &Kinesis, variables: &[(&str, &str)]) -> Bare {
        let bundle = kinesis.ca_bundle();
        let bundle = bundle.as_ref().map(|bundle| ("AWS_CA_BUNDLE", bundle.to_str().unwrap()));
        let variables: Vec<_> = variables.iter().copied().chain(bundle).collect();
        Bare::of(&kinesis.url(), &variables)
    }

    /// So many records in one request.
    pub(crate) fn put_records(
        &mut self,
        count: usize,
        within: Duration,
    ) -> Result<Vec<RecordOutcome>, Error> {
        self.put_large(count, 0, within)
    }

    /// The same, each with so many bytes and some.
    pub(crate) fn put_large(
        &mut self,
        count: usize,
        bytes: usize,
        within: Duration,
    ) -> Result<Vec<RecordOutcome>, Error> {
        let mut request = Request::new(self.packer.limits());
        let record = format!("\"{}\"", "x".repeat(bytes));
        for _ in 0..count {
            self.packer.internal_event(&mut request, "test", &record, "key", 1_795_425_345_000);
        }
        self.client.put(&mut request, &deadline(within))
    }

    fn request(&mut self) -> Request {
        let mut request = Request::new(self.packer.limits());
        self.packer.internal_event(&mut request, "test", "{}", "key", 1_795_425_345_000);
        request
    }

    pub(crate) fn put(&mut self, within: Duration) -> Result<Vec<RecordOutcome>, Error> {
        let mut request = self.request();
        self.client.put(&mut request, &deadline(within))
    }

    #[track_caller]
    fn put_well(&mut self) {
        assert_eq!(self.put(LONG).unwrap(), [RecordOutcome::Taken]);
    }
}

fn deadline(within: Duration) -> Deadline {
    Deadline::after(Instant::now(), within, Limit::FlushTimeout)
}

/// A server of one's own: `serve` gets each connection in turn, `connections` of them, and then it ends.
fn server(
    connections: usize,
    serve: impl Fn(usize, TcpStream) + Send + 'static,
) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = thread::spawn(move || {
        for n in 0..connections {
            serve(n, listener.accept().unwrap().0);
        }
    });
    (address.to_string(), serving)
}

/// Reads a whole request, whose body has no other end than its `Content-Length`.
pub(crate) fn read_request(stream: &mut TcpStream) {
    let (mut seen, mut buffer) = (Vec::new(), [0; 65536]);
    loop {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the client hung up inside its request");
        seen.extend_from_slice(&buffer[..count]);
        let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&seen[..end]).to_ascii_lowercase();
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap()
            .parse()
            .unwrap();
        if seen.len() >= end + 4 + length {
            return;
        }
    }
}

// --- deadlines -------------------------------------------------------------------------------------------------------------------------

/// ureq's time-out started anew with each byte: an invocation was held for 19.85 s.
#[test]
fn a_proxy_that_drips_holds_no_longer_than_the_setting() {
    let kinesis = Kinesis::builder().tls().start();
    let proxy = Proxy::to(&kinesis);
    proxy.fault(ProxyFault::Drip(ms(100)), u32::MAX);
    let lambda = extension(&kinesis)
        .without_env("AWS_ENDPOINT_URL_KINESIS")
        .env("HTTPS_PROXY", &proxy.url());
    let lambda = lambda.setting("FLUSH_TIMEOUT_MS", "500").timeout(ms(20_000)).start();
    lambda.init().unwrap();
    let report = lambda.invoke(Invocation::new().text("hello")).unwrap();
    assert!(report.held < ms(5000), "{:?}", report.held);
    proxy.fault(ProxyFault::Close, 0);
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    assert_eq!(ledger(&kinesis)["possibleDuplicates"], 0, "nothing had reached Kinesis");
}

#[test]
fn an_answer_that_drips_is_cut_at_the_deadline() {
    let kinesis = Kinesis::start();
    let mut bare = Bare::to(&kinesis);
    kinesis.fault(Fault::dribble(1, ms(40)));
    let error = bare.put(ms(300)).unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.kind, error.ambiguous, error.stale),
        ("Timeout", ErrorKind::Transient, true, false),
        "{error}"
    );
    assert!(error.message.contains("KINESIS_TELEMETRY_FLUSH_TIMEOUT_MS"), "{error}");
}

#[test]
fn a_handshake_that_hangs_is_cut_at_the_deadline_and_nothing_was_stored() {
    let (address, serving) = server(1, |_, mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut bare = Bare::of(&format!("https://{address}"), &[]);
    let error = bare.put(ms(300)).unwrap_err();
    assert_eq!((error.code.as_str(), error.ambiguous), ("Timeout", false), "{error}");
    serving.join().unwrap();
}

#[test]
fn a_request_that_nobody_reads_is_cut_at_the_deadline() {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let (address, serving) = server(1, move |_, stream| {
        let _ = wait.recv();
        drop(stream);
    });
    let mut bare =
        Bare::of(&format!("http://{address}"), &[("KINESIS_TELEMETRY_RECORD_BYTES", "10485760")]);
    let mut request = Request::new(bare.packer.limits());
    let huge = format!("{{\"x\":\"{}\"}}", "y".repeat(9_000_000));
    bare.packer.internal_event(&mut request, "test", &huge, "key", 1_795_425_345_000);
    let error = bare.client.put(&mut request, &deadline(ms(500))).unwrap_err();
    // The system's buffers are smaller than the request, so its end was never sent.
    assert_eq!((error.code.as_str(), error.ambiguous), ("Timeout", false), "{error}");
    drop(done);
    serving.join().unwrap();
}

#[test]
fn a_connection_that_never_comes_is_cut_at_the_deadline_or_by_an_interrupt() {
    let silent = SilentPort::start();
    let mut bare = Bare::of(&format!("http://{}", silent.address()), &[]);
    let error = bare.put(ms(300)).unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.kind, error.ambiguous, error.stale),
        ("ConnectTimeout", ErrorKind::Transient, false, false),
        "{error}"
    );
    let (handle, next) = (bare.client.interrupt_handle(), bare.client.generation() + 1);
    thread::scope(|scope| {
        scope.spawn(move || {
            wait_until(LONG, "the call", || handle.generation() == next);
            handle.interrupt(next);
        });
        let error = bare.put(LONG).unwrap_err();
        assert_eq!((error.kind, error.ambiguous), (ErrorKind::Interrupted, false), "{error}");
    });
}

// --- interrupts ------------------------------------------------------------------------------------------------------------------------

#[test]
fn an_interrupt_ends_the_call_in_progress_and_no_later_one() {
    for tls in [false, true] {
        let kinesis = if tls { Kinesis::builder().tls().start() } else { Kinesis::start() };
        let mut bare = Bare::to(&kinesis);
        kinesis.fault(Fault::hang().times(1));
        let handle = bare.client.interrupt_handle();
        thread::scope(|scope| {
            let hanging = &kinesis;
            scope.spawn(move || {
                wait_until(LONG, "the request", || hanging.puts().len() == 1);
                handle.interrupt(handle.generation());
            });
            let error = bare.put(LONG).unwrap_err();
            assert_eq!(
                (error.code.as_str(), error.kind, error.ambiguous),
                ("Interrupted", ErrorKind::Interrupted, true),
                "{error}"
            );
            assert!(!error.stale && !error.retry_now);
        });
        // A late one.
        bare.client.interrupt_handle().interrupt(bare.client.generation());
        bare.put_well();
        // One that names the call to come ends that.
        bare.client.interrupt_handle().interrupt(bare.client.generation() + 1);
        let error = bare.put(LONG).unwrap_err();
        assert_eq!((error.kind, error.ambiguous), (ErrorKind::Interrupted, false));
        bare.put_well();
        assert_eq!(kinesis.records().len(), 2);
    }
}

#[test]
fn an_interrupt_in_a_handshake_has_stored_nothing() {
    let (seen, saw) = std::sync::mpsc::channel();
    let (address, serving) = server(1, move |_, mut stream| {
        seen.send(()).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut bare = Bare::of(&format!("https://{address}"), &[]);
    let handle = bare.client.interrupt_handle();
    thread::scope(|scope| {
        scope.spawn(move || {
            saw.recv().unwrap();
            handle.interrupt(handle.generation());
        });
        let error = bare.put(LONG).unwrap_err();
        assert_eq!((error.kind, error.ambiguous), (ErrorKind::Interrupted, false), "{error}");
    });
    serving.join().unwrap();
}

// --- connections -----------------------------------------------------------------------------------------------------------------------

/// A NAT that has forgotten a connection says nothing: SHUTDOWN took 1.7 s and lost 2 of 7 events.
#[test]
fn a_pooled_connection_that_is_silent_leaves_time_for_a_fresh_one() {
    for tls in [false, true] {
        let kinesis = if tls { Kinesis::builder().tls().start() } else { Kinesis::start() };
        let mut bare = Bare::to(&kinesis);
        bare.put_well();
        kinesis.fault(Fault::hang().times(1));
        let within = deadline(ms(3000));
        let mut request = bare.request();
        let error = bare.client.put(&mut request, &within).unwrap_err();
        assert!(error.stale && error.ambiguous && error.code == "Timeout", "{error}");
        assert_eq!(
            bare.client.put(&mut request, &within).unwrap(),
            [RecordOutcome::Taken],
            "in the time that is left"
        );
        let connections: Vec<u64> = kinesis.puts().iter().map(|put| put.connection).collect();
        assert!(
            connections[0] == connections[1] && connections[1] != connections[2],
            "{connections:?}"
        );
    }
}

/// A fresh connection has all of the time, and its silence is Kinesis's own.
#[test]
fn a_fresh_connection_that_is_silent_is_not_stale() {
    let kinesis = Kinesis::start();
    let mut bare = Bare::to(&kinesis);
    kinesis.fault(Fault::hang());
    let error = bare.put(ms(200)).unwrap_err();
    assert!(!error.stale && error.ambiguous, "{error}");
    kinesis.clear_faults();
    // Nor does a slow answer count as a dead connection, once it is known to be slow.
    kinesis.fault(Fault::delay(ms(400)));
    bare.put_well();
    assert_eq!(
        bare.put(ms(1100)).unwrap(),
        [RecordOutcome::Taken],
        "a third of the time would be too little"
    );
    // It was given up after two thirds, and all was sent again, each time.
    kinesis.clear_faults();
    kinesis.fault(Fault::delay(ms(1400)));
    bare.put_well();
    assert_eq!(bare.put(ms(2000)).unwrap(), [RecordOutcome::Taken], "and so would two thirds");
}

#[test]
fn a_connection_is_made_ready_without_a_request_and_let_go_on_demand() {
    for tls in [false, true] {
        let kinesis = if tls { Kinesis::builder().tls().start() } else { Kinesis::start() };
        let mut bare = Bare::to(&kinesis);
        bare.client.prepare(&deadline(LONG)).unwrap();
        bare.client.prepare(&deadline(LONG)).unwrap();
        assert!(kinesis.puts().is_empty());
        bare.put_well();
        bare.client.prepare(&deadline(LONG)).unwrap();
        bare.put_well();
        bare.client.disconnect(LONG);
        bare.put_well();
        bare.client.disconnect(Duration::ZERO);
        bare.put_well();
        assert!(kinesis.reset_idle_connections() > 0);
        bare.client.prepare(&deadline(LONG)).unwrap();
        bare.put_well();
        let connections: Vec<u64> = kinesis.puts().iter().map(|put| put.connection).collect();
        assert_eq!(
            connections,
            [1, 1, 1, 2, 3],
            "no connection was opened twice, and none before it was needed"
        );
        kinesis.refuse_connections();
        let error = bare.client.prepare(&deadline(LONG)).unwrap_err();
        assert_eq!((error.code.as_str(), error.ambiguous), ("ConnectionFailed", false));
    }
}

#[test]
fn a_connection_is_made_ready_through_a_proxy() {
    let kinesis = Kinesis::builder().tls().start();
    let proxy = Proxy::to(&kinesis);
    let (bundle, url) = (kinesis.ca_bundle().unwrap(), proxy.url());
    let mut bare =
        Bare::of("", &[("AWS_CA_BUNDLE", bundle.to_str().unwrap()), ("HTTPS_PROXY", &url)]);
    bare.client.prepare(&deadline(LONG)).unwrap();
    bare.put_well();
    bare.put_well();
    assert_eq!(proxy.requests(), ["CONNECT kinesis.us-east-1.amazonaws.com:443 HTTP/1.1"]);
}

#[test]
fn a_proxy_that_closes_without_an_answer_is_retried() {
    for fault in [ProxyFault::Close, ProxyFault::CutTunnel] {
        let kinesis = Kinesis::builder().tls().start();
        let proxy = Proxy::to(&kinesis);
        proxy.fault(fault, 3);
        let lambda = extension(&kinesis)
            .without_env("AWS_ENDPOINT_URL_KINESIS")
            .env("HTTPS_PROXY", &proxy.url())
            .timeout(ms(20_000))
            .start();
        lambda.init().unwrap();
        lambda.invoke(Invocation::new().text("hello")).unwrap();
        assert_eq!(
            kinesis.account().containing("hello").len(),
            1,
            "{fault:?} {:?}",
            lambda.stderr()
        );
        assert!(lambda.shutdown("spindown").is_clean());
        kinesis.account().compare(&lambda.sent()).assert_clean();
        // A handshake that failed has stored nothing: 3 events counted as 39 possible duplicates.
        let ledger = ledger(&kinesis);
        assert_eq!(ledger["possibleDuplicates"], 0, "{fault:?} {ledger}");
        // Two that are taken and three that are not, of which one may have been the try to make the connection ready.
        let requests = ledger["requests"].as_u64().unwrap();
        assert!((4..=5).contains(&requests), "{fault:?} {ledger}");
    }
}

#[test]
fn the_names_in_a_certificate_are_not_quoted() {
    let kinesis = Kinesis::builder().tls().start();
    let proxy = Proxy::to(&kinesis);
    let (bundle, url) = (kinesis.ca_bundle().unwrap(), proxy.url());
    let mut bare = Bare::of(
        "https://other.example/",
        &[("AWS_CA_BUNDLE", bundle.to_str().unwrap()), ("HTTPS_PROXY", &url)],
    );
    let error = bare.put(LONG).unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.kind, error.ambiguous),
        ("Tls", ErrorKind::Configuration, false),
        "{error}"
    );
    assert!(
        !error.message.contains("amazonaws") && !error.message.contains("localhost"),
        "{error}"
    );
}

// --- errors ----------------------------------------------------------------------------------------------------------------------------

#[test]
fn a_request_time_out_is_retried_and_may_repeat() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::empty(408).times(1));
    lambda.invoke(Invocation::new().text("hello")).unwrap();
    assert_eq!(kinesis.account().containing("hello").len(), 1, "{:?}", lambda.stderr());
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    assert!(ledger(&kinesis)["possibleDuplicates"].as_u64().unwrap() > 0);
}

/// Frozen between signing and sending: the clock is right, and the signature is old.
#[test]
fn an_expired_signature_is_made_anew_at_once_and_only_once() {
    let kinesis = Kinesis::start();
    let text = "Signature expired: 20260101T000000Z is now earlier than 20260101T001000Z (20260101T001500Z - 5 min.)";
    kinesis.fault(Fault::error_text(400, "InvalidSignatureException", text).times(1));
    let mut bare = Bare::to(&kinesis);
    let error = bare.put(LONG).unwrap_err();
    assert!(error.retry_now && error.kind == ErrorKind::ClockSkew && !error.ambiguous, "{error}");
    bare.put_well();
    // It helps no more: like any other failure, until Kinesis takes something again.
    kinesis.fault(Fault::error_text(400, "InvalidSignatureException", text).times(3));
    assert_eq!([(); 3].map(|()| bare.put(LONG).unwrap_err().retry_now), [true, false, false]);
    bare.put_well();
    // An answer of which Kinesis took nothing is no reason to begin anew.
    let expired = || Fault::error_text(400, "InvalidSignatureException", text).times(1);
    let answers = [expired(), Fault::throttle(Which::All).times(1), expired()].map(|fault| {
        kinesis.fault(fault);
        bare.put(LONG).map_err(|error| error.retry_now)
    });
    assert!(matches!(answers, [Err(true), Ok(_), Err(false)]), "{answers:?}");
    bare.put_well();
    assert_eq!(bare.client.skew_seconds(), 0);
}

/// A server whose `Date` alternates got 7,118 requests in one hold of 3 seconds; one with the year 9999 made the signer panic.
#[test]
fn a_clock_that_makes_no_sense_is_not_followed_for_ever() {
    let dates = [
        "Wed, 25 Nov 2026 01:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "x",
    ];
    let (address, serving) = server(6, move |n, mut stream| {
        read_request(&mut stream);
        let head = format!(
            "HTTP/1.1 403 Forbidden\r\nDate: {}\r\nConnection: close\r\nContent-Length: 0\r\n",
            dates[n % dates.len()]
        );
        stream
            .write_all(format!("{head}x-amzn-errortype: RequestTimeTooSkewed\r\n\r\n").as_bytes())
            .unwrap();
    });
    let mut bare = Bare::of(&format!("http://{address}"), &[]);
    let errors = [(); 6].map(|()| bare.put(LONG).unwrap_err());
    assert!(errors.iter().all(|error| error.kind == ErrorKind::ClockSkew), "{errors:?}");
    assert_eq!(errors.map(|error| error.retry_now), [true, false, false, false, false, false]);
    assert!(bare.client.skew_seconds().abs() <= 86_400);
    serving.join().unwrap();
}

#[test]
fn a_call_with_renewed_credentials_counts_as_two_requests_and_says_why() {
    let keys = |name: &str| Credentials {
        access_key_id: format!("ASIA{name}EXAMPLE00001"),
        ..Credentials::default()
    };
    let (first, second) = (keys("FIRST"), keys("SECOND"));
    let kinesis = Kinesis::builder().credentials(first.clone()).start();
    let identity = Identity::start(&first, &first);
    let lambda = extension(&kinesis)
        .without_credentials()
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &identity.container_url())
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", identity.token())
        .start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("one")).unwrap();
    identity.gives(&second, LONG);
    kinesis.rotate(&second);
    lambda.invoke(Invocation::new().text("two")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    let ledger = ledger(&kinesis);
    assert_eq!(ledger["requestErrors"], serde_json::json!({ "ExpiredTokenException": 1 }));
    // The last request is the one that carries the ledger.
    assert_eq!(ledger["requests"].as_u64().unwrap() + 1, kinesis.puts().len() as u64, "{ledger}");
}

#[test]
fn credentials_that_are_refused_after_renewal_are_not_renewed_at_once_again() {
    let own = Credentials::default();
    let kinesis = Kinesis::start();
    let identity = Identity::start(&own, &own);
    let (url, token) = (identity.container_url(), identity.token());
    let container = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", token),
        ("AWS_ACCESS_KEY_ID", ""),
    ];
    let mut bare = Bare::of(&kinesis.url(), &container);
    kinesis.fault(Fault::error(400, "ExpiredTokenException").times(2));
    let errors = [(); 3].map(|()| bare.put(LONG).unwrap_err());
    assert_eq!(errors.each_ref().map(|error| error.retry_now), [true, false, false]);
    assert!(errors.iter().all(|error| error.code == "ExpiredTokenException"), "{errors:?}");
    assert_eq!(
        (identity.requests().len(), kinesis.puts().len()),
        (2, 2),
        "fetched for a call that follows a refusal, and no third time within a second"
    );
    thread::sleep(ms(1000));
    bare.put_well();
    assert_eq!(identity.requests().len(), 3);
}

/// A code of 1 MB became a log line of 1 MB with text of the body in it, and made the ledger too large to be sent.
#[test]
fn codes_of_any_size_and_kind_stay_short_and_clean() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).start();
    lambda.init().unwrap();
    let huge = format!("\u{1b}[31m\nFORGED line {}", "x".repeat(50_000));
    kinesis.fault(Fault::error(503, &huge).times(2));
    // The simulator puts it into its JSON as it is.
    let escaped = serde_json::to_string(&huge).unwrap();
    kinesis.fault(Fault::records(Which::All, escaped.trim_matches('"')).times(2));
    for _ in 0..4 {
        lambda.invoke(Invocation::new().text("hello").work(ms(50))).unwrap();
    }
    kinesis.clear_faults();
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    let lines = lambda.stderr();
    assert!(
        lines.iter().all(|line| line.len() < 500
            && !line.contains('\u{1b}')
            && !line.contains("FORGED line")),
        "{lines:?}"
    );
    let errors =
        ledger(&kinesis)["requestErrors"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert!(
        !errors.is_empty()
            && errors.iter().all(|code| code.len() <= 64 && code.starts_with("31mFORGEDline")),
        "{errors:?}"
    );
}

/// A full handshake sends the certificate; a resumed one does not. Without a shared TLS configuration each connection paid for a full one.
#[test]
fn a_second_connection_resumes_the_tls_session() {
    let kinesis = Kinesis::builder().tls().start();
    let target = kinesis.port();
    let (count, counted) = std::sync::mpsc::channel();
    let (address, serving) = server(2, move |_, mut client| {
        let mut upstream = TcpStream::connect(("127.0.0.1", target)).unwrap();
        let (mut from_client, mut to_server) =
            (client.try_clone().unwrap(), upstream.try_clone().unwrap());
        let up = thread::spawn(move || {
            let _ = std::io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(std::net::Shutdown::Both);
        });
        count.send(std::io::copy(&mut upstream, &mut client).unwrap()).unwrap();
        up.join().unwrap();
    });
    let port = address.rsplit(':').next().unwrap();
    let bundle = kinesis.ca_bundle().unwrap();
    let mut bare = Bare::of(
        &format!("https://localhost:{port}"),
        &[("AWS_CA_BUNDLE", bundle.to_str().unwrap())],
    );
    bare.put_well();
    bare.client.disconnect(Duration::ZERO);
    bare.put_well();
    drop(bare);
    serving.join().unwrap();
    let (first, second) = (counted.recv().unwrap(), counted.recv().unwrap());
    assert!(second + 300 < first, "{first} bytes, then {second}");
}
