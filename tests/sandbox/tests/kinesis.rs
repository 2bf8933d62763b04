//! The Kinesis endpoint against a bare client: limits, faults, connections, TLS.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sandbox::{Answered, Fault, Kinesis, KinesisBuilder, Proxy, Which, ms, wait_until};
use serde_json::{Value, json};

fn unsigned() -> KinesisBuilder {
    Kinesis::builder().unsigned()
}

/// A request with one record for each text.
fn request(records: &[&str]) -> Vec<u8> {
    let encode = |text: &&str| json!({ "PartitionKey": "k", "Data": base64::engine::general_purpose::STANDARD.encode(text) });
    let body = json!({ "StreamName": "telemetry", "Records": records.iter().map(encode).collect::<Vec<_>>() }).to_string();
    format!(
        "POST / HTTP/1.1\r\nHost: kinesis\r\nContent-Type: application/x-amz-json-1.1\r\n\
         X-Amz-Target: Kinesis_20131202.PutRecords\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn connect(kinesis: &Kinesis) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", kinesis.port())).unwrap();
    stream.set_read_timeout(Some(ms(300))).unwrap();
    stream
}

/// Head and body of the next answer.
fn read(stream: &mut impl Read) -> io::Result<(String, String)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        if body.len() >= length.parse().unwrap() {
            return Ok((head.to_owned(), body.to_owned()));
        }
    }
}

fn put(stream: &mut (impl Read + Write), records: &[&str]) -> io::Result<(String, Value)> {
    stream.write_all(&request(records))?;
    let (head, body) = read(stream)?;
    Ok((head, serde_json::from_str(&body).unwrap_or(Value::String(body))))
}

fn stored(kinesis: &Kinesis) -> Vec<String> {
    kinesis.records().into_iter().map(|record| String::from_utf8(record.data).unwrap()).collect()
}

#[test]
fn one_connection_carries_many_requests() {
    let kinesis = unsigned().shards(4).start();
    let mut stream = connect(&kinesis);
    let (head, answer) = put(&mut stream, &["a", "b"]).unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200")
            && head.contains("x-amzn-RequestId: ")
            && head.contains("Date: ")
    );
    let numbers: Vec<&str> = answer["Records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["SequenceNumber"].as_str().unwrap())
        .collect();
    assert!(numbers[0].len() == 56 && numbers[0] < numbers[1]);
    put(&mut stream, &["c"]).unwrap();
    assert_eq!(stored(&kinesis), ["a", "b", "c"]);
    let puts = kinesis.puts();
    assert_eq!(
        (puts[0].connection, puts[0].records, puts[0].decoded_bytes),
        (puts[1].connection, 2, 4)
    );
    assert_eq!(kinesis.in_flight(), 0);
}

#[test]
fn only_the_records_that_are_hit_fail() {
    let kinesis = unsigned().start();
    kinesis.fault(Fault::throttle(Which::Indices(vec![1])).times(1));
    kinesis.fault(Fault::records(Which::Containing(b"bad".to_vec()), "InternalFailure"));
    let mut stream = connect(&kinesis);
    let (_, answer) = put(&mut stream, &["a", "b", "bad"]).unwrap();
    assert_eq!(answer["FailedRecordCount"], 2);
    assert_eq!(answer["Records"][1]["ErrorCode"], "ProvisionedThroughputExceededException");
    assert_eq!(answer["Records"][2]["ErrorCode"], "InternalFailure");
    put(&mut stream, &["b"]).unwrap();
    assert_eq!(stored(&kinesis), ["a", "b"]);
}

#[test]
fn whole_requests_are_refused_in_every_form() {
    let kinesis = unsigned().start();
    let mut stream = connect(&kinesis);
    let mut refused = |fault: Fault| {
        kinesis.fault(fault.times(1));
        let (head, body) = put(&mut stream, &["x"]).unwrap();
        (head[9..12].to_owned(), body)
    };
    let (status, body) = refused(Fault::error(400, "ExpiredTokenException"));
    assert_eq!((status.as_str(), &body["__type"]), ("400", &json!("ExpiredTokenException")));
    assert!(refused(Fault::error(400, "AccessDeniedException")).1["Message"].is_string());
    assert_eq!(refused(Fault::empty(503)), ("503".to_owned(), json!("")));
    assert!(refused(Fault::html(500)).1.as_str().unwrap().starts_with("<html>"));
    assert_eq!(refused(Fault::poison("x")).1["__type"], "InvalidArgumentException");
    assert!(stored(&kinesis).is_empty());
    put(&mut stream, &["x"]).unwrap();
    assert_eq!(stored(&kinesis).len(), 1);
}

#[test]
fn answers_that_are_lies() {
    let kinesis = unsigned().start();
    let mut stream = connect(&kinesis);
    let mut answer = |fault: Fault| {
        kinesis.fault(fault.times(1));
        put(&mut stream, &["a", "b"]).unwrap().1
    };
    assert_eq!(answer(Fault::wrong_length(-1))["Records"].as_array().unwrap().len(), 1);
    assert_eq!(answer(Fault::wrong_length(2))["Records"].as_array().unwrap().len(), 4);
    assert_eq!(answer(Fault::lying_count(7))["FailedRecordCount"], 7);
    assert!(answer(Fault::null_error_codes())["Records"][0]["ErrorCode"].is_null());
    assert_eq!(answer(Fault::garbage("{\"Rec")), json!("{\"Rec"));
    assert_eq!(stored(&kinesis).len(), 10);
}

#[test]
fn connections_that_die() {
    let kinesis = unsigned().start();
    kinesis.fault(Fault::reset_before_answer().times(1));
    assert_eq!(
        put(&mut connect(&kinesis), &["lost"]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    kinesis.fault(Fault::cut_after_store().times(1));
    assert_eq!(
        put(&mut connect(&kinesis), &["stored"]).unwrap_err().kind(),
        ErrorKind::UnexpectedEof
    );
    kinesis.fault(Fault::partial_answer(20).times(1));
    assert_eq!(
        put(&mut connect(&kinesis), &["also stored"]).unwrap_err().kind(),
        ErrorKind::UnexpectedEof
    );
    assert_eq!(stored(&kinesis), ["stored", "also stored"]);
    let answered: Vec<Answered> = kinesis.puts().iter().map(|put| put.answered).collect();
    assert_eq!(answered, [Answered::Reset, Answered::Cut, Answered::Partial]);
}

#[test]
fn a_hanging_request_is_in_flight_until_its_client_gives_up() {
    let kinesis = unsigned().start();
    kinesis.fault(Fault::hang());
    let mut stream = connect(&kinesis);
    assert_eq!(put(&mut stream, &["x"]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(kinesis.in_flight(), 1);
    drop(stream);
    wait_until(ms(500), "the end of the request", || kinesis.in_flight() == 0);
    kinesis.clear_faults();
    put(&mut connect(&kinesis), &["y"]).unwrap();
    assert_eq!(stored(&kinesis), ["y"]);
}

#[test]
fn idle_connections_are_reset_and_new_ones_refused() {
    let kinesis = unsigned().start();
    let mut stream = connect(&kinesis);
    put(&mut stream, &["a"]).unwrap();
    assert_eq!(kinesis.reset_idle_connections(), 1);
    assert_eq!(put(&mut stream, &["b"]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    kinesis.refuse_connections();
    let refused = TcpStream::connect(("127.0.0.1", kinesis.port())).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    kinesis.accept_connections();
    put(&mut connect(&kinesis), &["c"]).unwrap();
    assert_eq!(stored(&kinesis), ["a", "c"]);
}

#[test]
fn counting_alone_fails_on_demand_too() {
    let kinesis = Kinesis::builder().count_only().start();
    kinesis.fault(Fault::error(500, "InternalFailure").times(1));
    let mut stream = connect(&kinesis);
    assert!(put(&mut stream, &["x"]).unwrap().0.starts_with("HTTP/1.1 500"));
    let event = r#"{"time":"t","type":"function","record":1}"#;
    assert_eq!(
        put(&mut stream, &[event, event]).unwrap().1["Records"].as_array().unwrap().len(),
        2
    );
    let counted = kinesis.counted();
    assert_eq!((counted.requests, counted.records, counted.events), (1, 2, 2));
    kinesis.fault(Fault::hang());
    assert!(put(&mut stream, &[event]).is_err());
}

#[test]
fn slow_answers() {
    let kinesis = unsigned().start();
    kinesis.fault(Fault::delay(ms(60)).times(1));
    kinesis.fault(Fault::dribble(40, ms(2)).times(1));
    let begun = Instant::now();
    put(&mut connect(&kinesis), &["a"]).unwrap();
    assert!(begun.elapsed() >= ms(60));
}

#[test]
fn a_moved_clock_shows_in_the_date() {
    let kinesis = unsigned().start();
    kinesis.move_clock(-3600);
    let (head, _) = put(&mut connect(&kinesis), &["a"]).unwrap();
    let date = head.lines().find_map(|line| line.strip_prefix("Date: ")).unwrap();
    let behind = std::time::SystemTime::now()
        .duration_since(httpdate::parse_http_date(date).unwrap())
        .unwrap();
    assert!((3590..3610).contains(&behind.as_secs()));
}

#[test]
fn wrong_content_types_and_unsigned_requests_are_refused() {
    let kinesis = Kinesis::start();
    let mut stream = connect(&kinesis);
    assert_eq!(
        put(&mut stream, &["a"]).unwrap().1["__type"],
        "MissingAuthenticationTokenException"
    );
    let plain = String::from_utf8(request(&["a"])).unwrap().replace("x-amz-json-1.1", "json");
    stream.write_all(plain.as_bytes()).unwrap();
    assert!(read(&mut stream).unwrap().0.starts_with("HTTP/1.1 404"));
}

/// A client's settings under the endpoint's own authority.
fn trusting(kinesis: &Kinesis) -> Arc<rustls::ClientConfig> {
    let pem = std::fs::read(kinesis.ca_bundle().unwrap()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    Arc::new(versions.with_root_certificates(roots).with_no_client_auth())
}

fn secure(
    config: &Arc<rustls::ClientConfig>,
    name: &'static str,
    stream: TcpStream,
) -> impl Read + Write {
    let session =
        rustls::ClientConnection::new(Arc::clone(config), name.try_into().unwrap()).unwrap();
    rustls::StreamOwned::new(session, stream)
}

#[test]
fn tls_under_its_own_authority() {
    let kinesis = unsigned().tls().start();
    assert!(kinesis.url().starts_with("https://localhost:"));
    let config = trusting(&kinesis);
    for name in [
        "localhost",
        "127.0.0.1",
        "kinesis.us-east-1.amazonaws.com",
        "123456789012.data-kinesis.us-east-1.amazonaws.com",
    ] {
        put(&mut secure(&config, name, connect(&kinesis)), &[name]).unwrap();
    }
    assert_eq!(stored(&kinesis).len(), 4);
    assert!(kinesis.puts().iter().all(|put| put.tls));
    assert!(put(&mut secure(&config, "example.com", connect(&kinesis)), &["x"]).is_err());
}

#[test]
fn a_tunnel_to_the_real_name() {
    let kinesis = unsigned().tls().start();
    let proxy = Proxy::to(&kinesis);
    let mut stream = TcpStream::connect(proxy.url().strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(b"CONNECT kinesis.us-east-1.amazonaws.com:443 HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = [0; 39];
    stream.read_exact(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    put(
        &mut secure(&trusting(&kinesis), "kinesis.us-east-1.amazonaws.com", stream),
        &["tunnelled"],
    )
    .unwrap();
    assert_eq!(stored(&kinesis), ["tunnelled"]);
    assert_eq!(proxy.requests(), ["CONNECT kinesis.us-east-1.amazonaws.com:443 HTTP/1.1"]);
}

#[test]
fn an_old_connection_becomes_a_black_hole() {
    let kinesis = unsigned().black_hole_old_connections(ms(50)).start();
    let mut stream = connect(&kinesis);
    put(&mut stream, &["young"]).unwrap();
    put(&mut stream, &["still young"]).unwrap();
    std::thread::sleep(ms(60));
    // Neither an answer nor a reset.
    let error = put(&mut stream, &["old"]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    put(&mut connect(&kinesis), &["on a new one"]).unwrap();
    assert_eq!(stored(&kinesis), ["young", "still young", "on a new one"]);
    assert_eq!(kinesis.puts().iter().filter(|put| put.answered == Answered::Never).count(), 1);
    assert_eq!(kinesis.in_flight(), 1, "its client still waits");
    drop(stream);
    wait_until(ms(1000), "the client to be missed", || kinesis.in_flight() == 0);
}

#[test]
fn an_idle_connection_is_closed() {
    for builder in [unsigned().idle_close(ms(50)), unsigned()] {
        let closes = builder.clone().start();
        let mut stream = connect(&closes);
        put(&mut stream, &["x"]).unwrap();
        let read = stream.read(&mut [0]);
        // The client's own time-out is longer.
        assert!(
            matches!(read, Ok(0))
                || matches!(&read, Err(error) if error.kind() == ErrorKind::WouldBlock),
            "{read:?}"
        );
        assert_eq!(
            matches!(read, Ok(0)),
            format!("{builder:?}").contains("idle_close: Some"),
            "{read:?}"
        );
    }
}

#[test]
fn a_shard_takes_so_many_records_a_second() {
    let kinesis = unsigned().shard_limit().shards(1).start();
    let mut stream = connect(&kinesis);
    let many = vec!["x"; 500];
    let failed: Vec<u64> = (0..4)
        .map(|_| put(&mut stream, &many).unwrap().1["FailedRecordCount"].as_u64().unwrap())
        .collect();
    assert_eq!(failed[..2], [0, 0]);
    assert!(failed[3] > 0, "{failed:?}");
    let (_, answer) = put(&mut stream, &many).unwrap();
    let last = answer["Records"].as_array().unwrap().last().unwrap();
    assert_eq!(last["ErrorCode"], "ProvisionedThroughputExceededException");
    assert!(
        last["ErrorMessage"]
            .as_str()
            .unwrap()
            .starts_with("Rate exceeded for shard shardId-000000000000")
    );
    assert_eq!(
        kinesis.records().len() as u64,
        2500 - failed.iter().sum::<u64>() - answer["FailedRecordCount"].as_u64().unwrap()
    );
}
