//! What the targets share: settings, the lines of a batch, and servers on loopback that answer with
//! the bytes of the input.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use kinesis_telemetry_extension::config::{self, Config};
use kinesis_telemetry_extension::deadline::{Deadline, Limit};
use kinesis_telemetry_extension::dispatch::packer::Packer;
use kinesis_telemetry_extension::event::Batch;
use kinesis_telemetry_extension::kinesis::client::Client;
use kinesis_telemetry_extension::kinesis::error::Error;
use kinesis_telemetry_extension::kinesis::line::{Envelope, LineWriter};
use kinesis_telemetry_extension::kinesis::record::Limits;
use kinesis_telemetry_extension::kinesis::request::Request;
use kinesis_telemetry_extension::kinesis::response::RecordOutcome;
use kinesis_telemetry_extension::lambda::filter::Types;
use kinesis_telemetry_extension::sandbox::Sandbox;

/// All types of telemetry.
pub const ALL: Types = Types { platform: true, function: true, extension: true };
/// Separates the parts of an input: no part of UTF-8.
pub const SEPARATOR: u8 = 0xff;
/// No socket of a target waits longer.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// What one call may take.
const CALL: Duration = Duration::from_millis(500);

/// Settings as the environment would give them.
///
/// # Panics
/// If they are not legal.
#[must_use]
pub fn settings(variables: &[(&str, &str)]) -> Config {
    let usual = [
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("KINESIS_TELEMETRY_STREAM", "stream"),
    ];
    let environment = variables.iter().chain(&usual).copied().collect();
    config::read(&environment).1.expect("legal settings")
}

/// The lines that a batch becomes, each of them held to be one line of JSON.
///
/// # Panics
/// If one is not.
#[must_use]
pub fn lines(batch: &Batch) -> Vec<Vec<u8>> {
    let mut writer = LineWriter::new(Envelope::Full, Arc::new(Sandbox::default()));
    let line = |event| {
        let mut out = Vec::new();
        writer.line(event, batch.bytes(), &mut out);
        let text = std::str::from_utf8(&out).expect("UTF-8");
        assert!(text.ends_with("}\n") && text.matches('\n').count() == 1, "{text:?}");
        serde_json::from_str::<&serde_json::value::RawValue>(text).expect("JSON");
        out
    };
    batch.remaining().iter().map(line).collect()
}

/// What a request of these settings may hold.
#[must_use]
pub fn limits(config: &Config) -> Limits {
    let sandbox = Arc::new(Sandbox::default());
    Packer::new(&config.dispatch, &config.kinesis.records, sandbox, Arc::default()).limits()
}

/// A request with these lines.
#[must_use]
pub fn request<'a>(limits: Limits, lines: impl Iterator<Item = &'a [u8]>) -> Request {
    let mut request = Request::new(limits);
    for line in lines {
        request.add(None, 1, |out| out.extend_from_slice(line));
    }
    request
}

/// A server on loopback that answers its next connections with what it is given.
#[derive(Debug)]
pub struct Answers {
    port: u16,
    sender: Sender<Vec<Vec<u8>>>,
}

impl Answers {
    /// The one of this process.
    pub fn of_this_process() -> &'static Answers {
        static ANSWERS: OnceLock<Answers> = OnceLock::new();
        ANSWERS.get_or_init(Answers::start)
    }

    fn start() -> Answers {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (sender, inbox) = channel::<Vec<Vec<u8>>>();
        std::thread::spawn(move || {
            let mut next = Vec::new().into_iter();
            for connection in listener.incoming().flatten() {
                // The newest answers are those of the input that runs now.
                if let Some(answers) = inbox.try_iter().last() {
                    next = answers.into_iter();
                }
                answer(connection, &next.next().unwrap_or_default());
            }
        });
        Answers { port, sender }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// One answer for each of the next connections.
    pub fn give(&self, answers: Vec<Vec<u8>>) {
        let _ = self.sender.send(answers);
    }
}

fn answer(mut connection: TcpStream, bytes: &[u8]) {
    let _ = connection.set_read_timeout(Some(PATIENCE));
    let _ = connection.set_write_timeout(Some(PATIENCE));
    // What was sent and not read would reset the connection, and the answer with it.
    let _ = read_request(&mut connection);
    let _ = connection.write_all(bytes);
    let _ = connection.shutdown(Shutdown::Write);
    let _ = connection.read(&mut [0]);
}

/// The head of a request, and its body by `Content-Length`.
pub fn read_request(connection: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(bytes.get(..end)?).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(Some(0), |text| text.trim().parse().ok())?;
            if bytes.len() >= end + 4 + length {
                return Some((head, bytes.split_off(end + 4)));
            }
        }
        let count = connection.read(&mut buffer).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(buffer.get(..count)?);
    }
}

/// Two records are sent, and the input answers: one part of it for each connection.
///
/// # Panics
/// If what the client makes of it is not fit for a log.
pub fn put(data: &[u8], variables: &[(&str, &str)]) {
    let answers = Answers::of_this_process();
    answers.give(data.split(|byte| *byte == SEPARATOR).map(<[u8]>::to_vec).collect());
    let url = answers.url();
    let endpoints = ["AWS_ENDPOINT_URL_KINESIS", "AWS_ENDPOINT_URL_STS"].map(|name| (name, &*url));
    let variables = [&endpoints, variables].concat();
    let config = settings(
        &[("KINESIS_TELEMETRY_RECORD", "event")].into_iter().chain(variables).collect::<Vec<_>>(),
    );
    let limits = limits(&config);
    let mut client = Client::new(&config.kinesis, Arc::new(Sandbox::default()));
    let mut request = request(limits, [b"{}\n".as_slice(), b"[]\n"].into_iter());
    // A cause that was removed is worth one more try, as the dispatcher has it; then no more.
    for round in 0.. {
        match client.put(&mut request, &Deadline::after(Instant::now(), CALL, Limit::Check)) {
            Ok(outcomes) => {
                assert_eq!(outcomes.len(), 2);
                outcomes.iter().for_each(check_outcome);
                break;
            }
            Err(error) => {
                check_error(&client, &error);
                if !error.retry_now {
                    break;
                }
            }
        }
        assert!(round < 4, "tried again and again, at once");
    }
}

fn check_outcome(outcome: &RecordOutcome) {
    if let RecordOutcome::Failed { code, .. } = outcome {
        check_code(code);
    }
}

fn check_error(client: &Client, error: &Error) {
    check_code(&error.code);
    for text in [error.to_string(), client.advice(error)] {
        assert!(text.len() < 4096, "{} bytes for a log", text.len());
        assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
    }
}

fn check_code(code: &str) {
    // What comes from an answer; the call's name in front of it is the program's own.
    let code = code.strip_prefix("AssumeRole.").unwrap_or(code);
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    assert!((1..=64).contains(&code.len()) && code.chars().all(legal), "{code:?}");
}
