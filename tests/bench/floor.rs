//! The floor: the least that any extension of this kind must do, as the yardstick of the benches.
//!
//! Registers, listens, subscribes, polls `next`; answers each POST with 200, takes the SHA-256 and the base64 of each
//! body, and sends a request of that size to `AWS_ENDPOINT_URL_KINESIS`, unsigned. No JSON is parsed, nothing is
//! retried beyond a dead connection. Bare sockets; one thread for Lambda's API, one to send, one a connection.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use sha2::{Digest, Sha256};

fn main() {
    if let Err(error) = run() {
        let _ = writeln!(io::stderr(), "floor: {error}");
        std::process::exit(1);
    }
}

/// The main thread: Lambda's own API.
fn run() -> io::Result<()> {
    let api = variable("AWS_LAMBDA_RUNTIME_API");
    let port = variable("KINESIS_TELEMETRY_PORT");
    let executable = std::env::args().next().unwrap_or_default();
    let name = executable.rsplit('/').next().unwrap_or_default();
    let mut lambda = Connection::open(&api)?;

    let events = r#"{"events":["INVOKE","SHUTDOWN"]}"#;
    let register = format!(
        "POST /2020-01-01/extension/register HTTP/1.1\r\nHost: {api}\r\nLambda-Extension-Name: {name}\r\n\
         Content-Length: {}\r\n\r\n{events}",
        events.len()
    );
    let (head, _) = lambda.exchange(register.as_bytes())?;
    let id = header(&head, "lambda-extension-identifier").unwrap_or_default().to_owned();

    let listener = TcpListener::bind(format!("0.0.0.0:{port}"))?;
    let (bodies, waiting) = mpsc::channel();
    let end = bodies.clone();
    std::thread::spawn(move || listen(&listener, &bodies));
    let sender = std::thread::spawn(move || send_all(&waiting));
    let types = r#"["platform","function"]"#;
    let wanted = format!(
        r#"{{"schemaVersion":"2022-12-13","types":{types},"buffering":{{"maxItems":10000,"maxBytes":1048576,"timeoutMs":25}},"destination":{{"protocol":"HTTP","URI":"http://sandbox.localdomain:{port}/"}}}}"#
    );
    let subscribe = format!(
        "PUT /2022-07-01/telemetry HTTP/1.1\r\nHost: {api}\r\nLambda-Extension-Identifier: {id}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{wanted}",
        wanted.len()
    );
    lambda.exchange(subscribe.as_bytes())?;

    let next = format!(
        "GET /2020-01-01/extension/event/next HTTP/1.1\r\nHost: {api}\r\nLambda-Extension-Identifier: {id}\r\n\r\n"
    );
    loop {
        let (_, event) = lambda.exchange(next.as_bytes())?;
        if find(&event, b"\"SHUTDOWN\"").is_some() {
            // What Lambda still posts comes within a moment; an empty body is the last.
            std::thread::sleep(Duration::from_millis(50));
            let _ = end.send(Vec::new());
            let _ = sender.join();
            return Ok(());
        }
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// Takes every POST and answers it; a thread for each connection.
fn listen(listener: &TcpListener, bodies: &Sender<Vec<u8>>) {
    for stream in listener.incoming().flatten() {
        let bodies = bodies.clone();
        std::thread::spawn(move || {
            let mut lambda = Connection { stream, ahead: Vec::new() };
            while let Ok((_, body)) = lambda.message() {
                if lambda.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err()
                    || bodies.send(body).is_err()
                {
                    break;
                }
            }
        });
    }
}

/// Sends the results to where they go, when that is set.
fn send_all(waiting: &Receiver<Vec<u8>>) {
    let endpoint = variable("AWS_ENDPOINT_URL_KINESIS");
    let host = endpoint.trim_start_matches("http://");
    let mut kinesis = None;
    for body in waiting.iter().take_while(|body| !body.is_empty()) {
        let request = request(host, &body);
        if !host.is_empty() && send(&mut kinesis, host, &request).is_err() {
            let _ = send(&mut kinesis, host, &request);
        }
    }
}

/// A connection that failed is not kept.
fn send(kept: &mut Option<Connection>, host: &str, request: &[u8]) -> io::Result<()> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(host)?,
    };
    connection.exchange(request)?;
    *kept = Some(connection);
    Ok(())
}

/// A body of the size that `PutRecords` would have, and a hash in the place of a signature.
fn request(host: &str, body: &[u8]) -> Vec<u8> {
    let stream = variable("KINESIS_TELEMETRY_STREAM");
    let head = format!(r#"{{"StreamName":"{stream}","Records":[{{"PartitionKey":"floor","Data":""#);
    let mut put = head.into_bytes();
    base64_simd::STANDARD.encode_append(body, &mut put);
    put.extend_from_slice(br#""}]}"#);
    let hash = base64_simd::STANDARD.encode_to_string(Sha256::digest(&put));
    let mut request = format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-amz-json-1.1\r\n\
         X-Amz-Target: Kinesis_20131202.PutRecords\r\nAuthorization: {hash}\r\nContent-Length: {}\r\n\r\n",
        put.len()
    )
    .into_bytes();
    request.append(&mut put);
    request
}

/// A keep-alive connection, as client or as server: a head, then `Content-Length` bytes.
struct Connection {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Connection {
    fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, ahead: Vec::new() })
    }

    fn exchange(&mut self, request: &[u8]) -> io::Result<(String, Vec<u8>)> {
        self.stream.write_all(request)?;
        self.message()
    }

    fn message(&mut self) -> io::Result<(String, Vec<u8>)> {
        let end = loop {
            if let Some(end) = find(&self.ahead, b"\r\n\r\n") {
                break end + 4;
            }
            let mut chunk = [0; 16 * 1024];
            let count = self.stream.read(&mut chunk)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.ahead.extend_from_slice(chunk.get(..count).unwrap_or_default());
        };
        let mut body = self.ahead.split_off(end);
        let head = String::from_utf8_lossy(&std::mem::take(&mut self.ahead)).into_owned();
        let length =
            header(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let have = body.len();
        if have > length {
            self.ahead = body.split_off(length);
        } else {
            body.resize(length, 0);
            self.stream.read_exact(body.get_mut(have..).unwrap_or_default())?;
        }
        Ok((head, body))
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn find(bytes: &[u8], sought: &[u8]) -> Option<usize> {
    bytes.windows(sought.len()).position(|window| window == sought)
}
