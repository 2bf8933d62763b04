//! What the tests of the listener share: a neighbour in the sandbox that speaks to it over a raw
//! socket, the bodies that cost it most, and what it may take.

use std::io::{Read, Write};
use std::net::TcpStream;

use sandbox::{Lambda, ms};

/// What guarantee 3 allows beside the queue, and with the queue's default.
pub(crate) const SLACK_KIB: u64 = 12 * 1024;
pub(crate) const MEMORY_KIB: u64 = SLACK_KIB + 8 * 1024;

/// What programs have beside the static one of the layer, for which the promise is made: another
/// libc, and the one that is built for these tests alone is not optimised.
pub(crate) fn of_tests() -> u64 {
    match std::env::var("KTE_BINARY") {
        Ok(path) if path.contains("/layer/") => 0,
        Ok(_) => 3 * 1024,
        Err(_) => 6 * 1024,
    }
}

/// Whatever was done, memory is within what guarantee 3 allows for such a queue.
#[track_caller]
pub(crate) fn assert_peak(lambda: &Lambda, queue_bytes: usize, what: &str) {
    let peak = lambda.stats().peak_kib;
    let most = (queue_bytes as u64 >> 10) + SLACK_KIB + of_tests();
    assert!(peak < most, "{what}: {peak} KiB at the peak");
}

/// To the listener.
pub(crate) fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(ms(20_000)))?;
    stream.set_write_timeout(Some(ms(20_000)))?;
    Ok(stream)
}

/// The head of a POST of so many bytes.
pub(crate) fn post_head(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n")
}

/// The status of the next answer; 0 if the listener hangs up without one.
pub(crate) fn status(stream: &mut TcpStream) -> u16 {
    let mut head = [0; 12];
    match stream.read_exact(&mut head) {
        Ok(()) => String::from_utf8_lossy(&head[9..]).parse().unwrap(),
        Err(_) => 0,
    }
}

/// What stands behind a request's first line, with the body.
pub(crate) fn with_length(body: &str) -> String {
    format!("Content-Length: {}\r\n\r\n{body}", body.len())
}

pub(crate) fn chunked(body: &str) -> String {
    format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

/// A client that sends whatever it wants and never minds what becomes of it.
pub(crate) struct Client(pub(crate) TcpStream);

impl Client {
    pub(crate) fn connect(lambda: &Lambda) -> Client {
        Client(connect(lambda.listener_port()).unwrap())
    }

    /// One that is at the listener with a POST that has so many bytes, and has sent those. It has
    /// much time: other bodies may take long.
    pub(crate) fn begin(lambda: &Lambda, length: usize, bytes: &[u8]) -> Client {
        let mut client = Client::connect(lambda);
        client.0.set_read_timeout(Some(ms(120_000))).unwrap();
        client.0.set_write_timeout(Some(ms(120_000))).unwrap();
        let head = post_head(&lambda.subscription().unwrap().path, length);
        client.0.write_all(head.as_bytes()).unwrap();
        client.0.write_all(bytes).unwrap();
        client
    }

    /// Sends the piece again and again, until so many bytes were sent or the listener hangs up.
    pub(crate) fn pour(&mut self, piece: &[u8], total: usize) -> usize {
        let block = piece.repeat((1 << 20) / piece.len());
        let mut sent = 0;
        while sent < total && self.0.write_all(&block).is_ok() {
            sent += block.len();
        }
        sent
    }

    /// Posts a body to the path that Lambda was given, and waits for the answer.
    pub(crate) fn post(lambda: &Lambda, framing_and_body: &str) -> u16 {
        let mut client = Client::connect(lambda);
        client.0.set_read_timeout(Some(ms(120_000))).unwrap();
        client.0.set_write_timeout(Some(ms(120_000))).unwrap();
        let path = lambda.subscription().unwrap().path;
        // The listener may have hung up.
        let request = format!("POST {path} HTTP/1.1\r\n{framing_and_body}");
        let _ = client.0.write_all(request.as_bytes());
        client.status()
    }

    /// The status of the next answer; 0 if the listener hangs up without one.
    pub(crate) fn status(&mut self) -> u16 {
        status(&mut self.0)
    }
}

/// Bodies of that size that become as much as any can while they are read: by name.
pub(crate) fn costly_bodies(size: usize) -> Vec<(&'static str, Vec<u8>)> {
    const TIME: &str = "2026-11-23T09:15:45.012Z";
    let array = |element: &str, separator: &str| {
        let count = size / (element.len() + separator.len());
        format!("[{}]", vec![element; count].join(separator)).into_bytes()
    };
    let log = |record: &str| format!(r#"{{"time":"{TIME}","type":"function","record":{record}}}"#);
    let head = format!(r#"{{"time":"{TIME}","type":"function","record":"#);
    let record_of = |byte: u8| [head.as_bytes(), b"\"", &vec![byte; size], b"\"}"].concat();
    let in_array = |element: Vec<u8>| [b"[", element.as_slice(), b"]"].concat();
    vec![
        ("ordinary logs", array(&log(&format!(r#""{}""#, "x".repeat(1000))), ",")),
        ("the shortest logs", array(r#"{"time":"","type":"function","record":""}"#, ",")),
        ("other order of keys", array(r#"{"record":"","type":"function","time":""}"#, ",")),
        ("starts", array(r#"{"time":"","type":"platform.start","record":{"requestId":"a"}}"#, ",")),
        (
            "ends",
            array(r#"{"time":"","type":"platform.runtimeDone","record":{"requestId":"a"}}"#, ","),
        ),
        ("restores", array(r#"{"time":"","type":"platform.restoreStart","record":{}}"#, ",")),
        ("damaged and whole in turns", array(&format!("#,{}", log("1")), ",")),
        ("ends in what is damaged", array(r#""platform.runtimeDone""#, "")),
        ("elements that are none", array("1", ",")),
        ("never closed and whole in turns", array(&format!(r#"{{"a":[0,{}"#, log("1")), ",")),
        ("nested and never closed", array(&format!("{head}[1"), ",")),
        ("one long log", in_array(record_of(b'x'))),
        ("one long log with escapes", {
            let text = r#"\""#.repeat(size / 2);
            format!("[{}]", log(&format!(r#""{text}""#))).into_bytes()
        }),
        ("one long log of control characters", in_array(record_of(1))),
        ("one long log of no UTF-8", in_array(record_of(0xff))),
        ("logs of no UTF-8", {
            let log = [head.as_bytes(), b"\"", &vec![0xff; 500_000], b"\"}"].concat();
            let logs = vec![log; (size / 500_100).max(1)];
            [b"[", logs.join(&b","[..]).as_slice(), b"]"].concat()
        }),
        ("one long log on many lines", {
            let lines = "1,\n".repeat(size / 3);
            format!("[{}]", log(&format!("[{lines}1]"))).into_bytes()
        }),
        ("deep nesting", {
            let deep = [vec![b'['; size / 2], vec![b']'; size / 2]].concat();
            in_array([head.as_bytes(), &deep, b"}"].concat())
        }),
        ("deep nesting on many lines", {
            let deep = [vec![b'['; size / 2], b"\n".to_vec(), vec![b']'; size / 2]].concat();
            in_array([head.as_bytes(), &deep, b"}"].concat())
        }),
        ("keys that no event has", {
            let keys = r#","":0"#.repeat(size / 5);
            format!(r#"[{{"time":"{TIME}","type":"function","record":1{keys}}}]"#).into_bytes()
        }),
        ("keys that no event has, in many events", {
            let keys = r#","time":0"#.repeat(60);
            array(&format!(r#"{{"time":"{TIME}","type":"function","record":1{keys}}}"#), ",")
        }),
        ("a long key with an escape", {
            let key = format!(r"\n{}", "k".repeat(size));
            format!(r#"[{{"{key}":1,"time":"{TIME}","type":"function","record":1}}]"#).into_bytes()
        }),
        ("a record with a long key with an escape", {
            let key = format!(r"\n{}", "k".repeat(size));
            format!("[{}]", log(&format!(r#"{{"{key}":1}}"#))).into_bytes()
        }),
    ]
}
