//! The listener over a socket, in a whole extension beside a Lambda that says the least: each part
//! of the input is one connection. After them a POST of Lambda's is answered 200 all the same.
#![no_main]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use fuzz_targets::{PATIENCE, SEPARATOR, read_request, settings};
use kinesis_telemetry_extension::extension::Extension;
use kinesis_telemetry_extension::lambda::api::Api;
use libfuzzer_sys::fuzz_target;

/// Stands in an input for the path that Lambda was given.
const PATH: &[u8] = b"/PATH";
const BODY: &str = r#"[{"time":"2026-11-23T09:15:45.012Z","type":"function","record":"x"}]"#;

struct Target {
    port: u16,
    path: String,
}

fuzz_target!(init: { target(); }, |data: &[u8]| {
    let target = target();
    for part in data.split(|byte| *byte == SEPARATOR) {
        let bytes = with_path(part, target.path.as_bytes());
        let Ok(mut connection) = TcpStream::connect(("127.0.0.1", target.port)) else {
            panic!("the listener is gone");
        };
        let _ = connection.set_read_timeout(Some(PATIENCE));
        let _ = connection.set_write_timeout(Some(PATIENCE));
        let _ = connection.write_all(&bytes);
        let _ = connection.shutdown(Shutdown::Write);
        let _ = connection.read(&mut [0; 1024]);
    }
    let answer = post(target).expect("an answer to Lambda");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
});

fn post(target: &Target) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", target.port))?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: sandbox\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        target.path,
        BODY.len()
    );
    connection.write_all([head.as_str(), BODY].concat().as_bytes())?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

fn with_path(part: &[u8], path: &[u8]) -> Vec<u8> {
    let Some(at) = part.windows(PATH.len()).position(|window| window == PATH) else {
        return part.to_vec();
    };
    [&part[..at], path, &part[at + PATH.len()..]].concat()
}

fn target() -> &'static Target {
    static TARGET: OnceLock<Target> = OnceLock::new();
    TARGET.get_or_init(start)
}

fn start() -> Target {
    let (sender, paths) = channel();
    let lambda = TcpListener::bind("127.0.0.1:0").expect("a port");
    let api = format!("127.0.0.1:{}", lambda.local_addr().expect("an address").port());
    std::thread::spawn(move || {
        for connection in lambda.incoming().flatten() {
            serve(connection, &sender);
        }
    });
    let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let port = free.expect("a port").port();
    let config = settings(&[
        ("KINESIS_TELEMETRY_PORT", &port.to_string()),
        ("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:1"),
        ("KINESIS_TELEMETRY_QUEUE_BYTES", "1048576"),
        ("KINESIS_TELEMETRY_SPOOL_BYTES", "0"),
    ]);
    let api = Api::new(&api);
    let registered = api.register("fuzz", true).expect("registered");
    let extension = Extension::start(&config, &api, &registered).expect("an extension");
    // It lives as long as the process.
    std::mem::forget(extension);
    Target { port, path: paths.recv().expect("a subscription") }
}

/// Lambda's API, as far as a start needs it. Sends the path that it is to post to.
fn serve(mut connection: TcpStream, sender: &Sender<String>) {
    while let Some((head, body)) = read_request(&mut connection) {
        let body = String::from_utf8_lossy(&body);
        let uri = body.split("\"URI\":\"").nth(1).and_then(|rest| rest.split('"').next());
        if let Some(path) = uri.and_then(|uri| uri.splitn(4, '/').nth(3)) {
            let _ = sender.send(format!("/{path}"));
        }
        let text = if head.starts_with("post") { "{}" } else { "OK" };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: fuzz\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        if connection.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
