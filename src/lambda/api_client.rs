//! One call to Lambda's API inside the sandbox: HTTP/1.1 over one connection that is kept. A shell.
//!
//! No time-out: the process may be frozen for hours inside a call. No proxy and no TLS: nothing
//! leaves the sandbox. ureq could do all this, but its three calls were a third of what a start
//! cost, and each invocation makes one more.
//!
//! Lambda may close the connection between two calls (idle, or a reset). If nothing of an answer
//! has come over a connection that was used before, the call is made once more over a new one. If
//! an answer has begun it is not: what to do then is the caller's business.

use std::fmt;
use std::io::{Error, ErrorKind, Result as IoResult, Write};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::framing::{Framing, Incoming, MAX_HEAD, MAX_HEADERS, NoHead};
use super::framing::{framing, header, keeps_alive};

/// The subscription is the longest, with less than 512 bytes.
const USUAL_REQUEST: usize = 512;
/// Lambda's answers have less than 1 KiB, head and body.
const USUAL_ANSWER: usize = 2 * 1024;
/// An event is a few hundred bytes long.
const MAX_BODY: usize = 1024 * 1024;
/// Of `100 Continue` and its like before the answer.
const MAX_INTERIM: usize = 16;

/// What is called. Its headers hold the identifier: no `Debug`.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    /// JSON.
    pub(super) body: Option<&'a str>,
}

/// What was answered.
pub(super) struct Answer {
    pub(super) status: u16,
    /// The header `Lambda-Extension-Identifier`. A secret: no `Debug`.
    pub(super) identifier: Option<String>,
    pub(super) body: Vec<u8>,
}

/// Makes calls, one after the other.
pub(super) struct ApiClient {
    /// `host:port` or `host`.
    authority: String,
    /// What stands before each path; empty in Lambda.
    base: String,
    /// Taken out while it is used: a panic inside a call leaves no lock behind.
    idle: Mutex<Option<Connection>>,
}

impl fmt::Debug for ApiClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiClient({})", self.authority)
    }
}

struct Connection {
    socket: TcpStream,
    incoming: Incoming,
}

/// The head of an answer.
struct Head {
    status: u16,
    identifier: Option<String>,
    framing: Framing,
    keeps_alive: bool,
}

/// Why a connection gave no answer.
enum Fault {
    /// Nothing of one has come.
    Unanswered(Error),
    /// It had begun.
    Broken(Error),
}

impl ApiClient {
    /// `runtime_api` is `host:port`; a URL is taken too, as some emulators set one. Opens nothing.
    pub(super) fn new(runtime_api: &str) -> ApiClient {
        let url = runtime_api.strip_prefix("http://").unwrap_or(runtime_api).trim_end_matches('/');
        let (authority, base) = url.split_at(url.find('/').unwrap_or(url.len()));
        ApiClient { authority: authority.to_owned(), base: base.to_owned(), idle: Mutex::default() }
    }

    /// Waits for the answer as long as it takes.
    ///
    /// # Errors
    /// If there is none, or none that can be understood. Its status is the caller's business.
    pub(super) fn call(&self, call: &Call<'_>) -> IoResult<Answer> {
        let request = self.render(call)?;
        let idle = self.idle().take();
        if let Some(connection) = idle {
            match self.exchange(connection, &request) {
                Err(Fault::Unanswered(_)) => {}
                Err(Fault::Broken(error)) => return Err(error),
                Ok(answer) => return Ok(answer),
            }
        }
        match self.exchange(self.connect()?, &request) {
            Err(Fault::Unanswered(error) | Fault::Broken(error)) => Err(error),
            Ok(answer) => Ok(answer),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Option<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self) -> IoResult<Connection> {
        let connect = || {
            let (host, port) = address(&self.authority).ok_or(ErrorKind::InvalidInput)?;
            let socket = TcpStream::connect((host, port))?;
            socket.set_nodelay(true)?;
            Ok(Connection { socket, incoming: Incoming::new(USUAL_ANSWER) })
        };
        connect().map_err(|error: Error| {
            Error::new(error.kind(), format!("cannot connect to {}: {error}", self.authority))
        })
    }

    /// All of it in one piece, so that it is written at once.
    fn render(&self, call: &Call<'_>) -> IoResult<Vec<u8>> {
        let mut text = String::with_capacity(USUAL_REQUEST);
        text.extend([call.method, " ", &self.base, call.path, " HTTP/1.1\r\nHost: "]);
        text.extend([&self.authority, "\r\n"]);
        for (name, value) in call.headers {
            if value.bytes().any(|byte| byte.is_ascii_control()) {
                return Err(invalid("a header with a control character"));
            }
            text.extend([name, ": ", value, "\r\n"]);
        }
        match call.body {
            Some(body) => {
                text.push_str("Content-Type: application/json\r\nContent-Length: ");
                text.extend([&body.len().to_string(), "\r\n\r\n", body]);
            }
            None if call.method == "GET" => text.push_str("\r\n"),
            None => text.push_str("Content-Length: 0\r\n\r\n"),
        }
        Ok(text.into_bytes())
    }

    /// Over that connection, which is kept if it can be used again.
    fn exchange(&self, mut connection: Connection, request: &[u8]) -> Result<Answer, Fault> {
        connection.ask(request).map_err(Fault::Unanswered)?;
        let head = connection.read_final_head().map_err(Fault::Broken)?;
        let body = connection.read_body(head.framing).map_err(Fault::Broken)?;
        if head.keeps_alive && connection.incoming.unused().is_empty() {
            *self.idle() = Some(connection);
        }
        Ok(Answer { status: head.status, identifier: head.identifier, body })
    }
}

impl Connection {
    /// Sends the request, and waits until something of its answer is there.
    fn ask(&mut self, request: &[u8]) -> IoResult<()> {
        self.socket.write_all(request)?;
        if self.incoming.fill(&mut self.socket)? == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "the connection was closed"));
        }
        Ok(())
    }

    /// That of the answer, behind those that only say that it will come.
    fn read_final_head(&mut self) -> IoResult<Head> {
        for _ in 0..=MAX_INTERIM {
            let head = self.read_head()?;
            if head.status >= 200 {
                return Ok(head);
            }
        }
        Err(invalid("no answer behind many interim ones"))
    }

    fn read_head(&mut self) -> IoResult<Head> {
        let length = self.incoming.read_head(&mut self.socket).map_err(|none| match none {
            NoHead::Ended => cut_short(),
            NoHead::TooLong => invalid(format!("the answer's head has over {MAX_HEAD} bytes")),
            NoHead::Blank => no_http(),
        })?;
        let head = self.incoming.unused().get(..length).unwrap_or_default();
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Response::new(&mut headers);
        let status = match parsed.parse(head) {
            Ok(httparse::Status::Complete(_)) => parsed.code.unwrap_or_default(),
            _ => return Err(no_http()),
        };
        let framing = match status {
            // By definition these have no body.
            0..200 | 204 | 304 => Framing::End,
            _ => framing(parsed.headers, Framing::ToClose).map_err(|_| no_http())?,
        };
        let identifier = header(parsed.headers, "Lambda-Extension-Identifier").next();
        let identifier = identifier.map(str::to_owned);
        let keeps_alive =
            framing != Framing::ToClose && keeps_alive(parsed.headers, parsed.version);
        self.incoming.advance(length);
        Ok(Head { status, identifier, framing, keeps_alive })
    }

    fn read_body(&mut self, mut framing: Framing) -> IoResult<Vec<u8>> {
        let mut body = Vec::new();
        let mut piece = [0; 1024];
        loop {
            let read = self.incoming.read_body(&mut self.socket, &mut framing, &mut piece);
            let count = read.map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => cut_short(),
                ErrorKind::InvalidData => no_http(),
                _ => error,
            })?;
            body.extend_from_slice(piece.get(..count).unwrap_or_default());
            if body.len() > MAX_BODY {
                return Err(invalid(format!("the answer's body has over {MAX_BODY} bytes")));
            }
            if count == 0 {
                return Ok(body);
            }
        }
    }
}

/// A name or an address, and a port.
fn address(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, 80),
    };
    let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    Some((inside.unwrap_or(host), port)).filter(|(host, _)| !host.is_empty())
}

fn invalid(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, why.into())
}

fn no_http() -> Error {
    invalid("the answer is no HTTP")
}

fn cut_short() -> Error {
    Error::new(ErrorKind::UnexpectedEof, "the connection was closed in the middle of the answer")
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    use super::*;

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const CUT_SHORT: &str = "the connection was closed in the middle of the answer";

    /// Serves so many connections, one after the other: reads a request before each of the answers,
    /// and hangs up behind the last. Gives what it was asked on each.
    fn server(scripts: &[&[&str]]) -> (ApiClient, JoinHandle<Vec<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = ApiClient::new(&listener.local_addr().unwrap().to_string());
        let owned = |script: &&[&str]| script.iter().map(|&answer| answer.to_owned()).collect();
        let scripts: Vec<Vec<String>> = scripts.iter().map(owned).collect();
        let serve = move |script: Vec<String>| {
            let mut stream = listener.accept().unwrap().0;
            let answer = |answer: String| {
                let request = request(&mut stream);
                // The client may hang up in the middle.
                let _ = stream.write_all(answer.as_bytes());
                request
            };
            script.into_iter().map(answer).collect()
        };
        (client, thread::spawn(move || scripts.into_iter().map(serve).collect()))
    }

    /// In one read, as it was sent in one write.
    fn request(stream: &mut TcpStream) -> String {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    fn get(path: &str) -> Call<'_> {
        Call { method: "GET", path, headers: &[], body: None }
    }

    fn body(answer: IoResult<Answer>) -> String {
        answer.map_or_else(
            |error| error.to_string(),
            |answer| format!("{} {}", answer.status, String::from_utf8(answer.body).unwrap()),
        )
    }

    /// The requests on each connection.
    fn counts(asked: &[Vec<String>]) -> Vec<usize> {
        asked.iter().map(Vec::len).collect()
    }

    #[test]
    fn a_request_is_written_in_one_piece_and_the_connection_is_kept() {
        let first =
            OK.replace("Content-Length", "lambda-extension-IDENTIFIER: abc\r\ncontent-length");
        let (client, server) = server(&[&[&first, OK, OK]]);
        let headers = [("Lambda-Extension-Name", "x")];
        let call = Call { method: "POST", path: "/r", headers: &headers, body: Some("{\"a\":1}") };
        let answer = client.call(&call).unwrap();
        assert_eq!((answer.status, answer.identifier.as_deref()), (200, Some("abc")));
        assert_eq!(answer.body, b"ok");
        assert_eq!(body(client.call(&get("/n"))), "200 ok");
        let empty = Call { method: "POST", path: "/e", headers: &[], body: None };
        assert_eq!(body(client.call(&empty)), "200 ok");
        let host = &client.authority;
        let post = format!(
            "POST /r HTTP/1.1\r\nHost: {host}\r\nLambda-Extension-Name: x\r\n\
             Content-Type: application/json\r\nContent-Length: 7\r\n\r\n{{\"a\":1}}"
        );
        let get = format!("GET /n HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let empty = format!("POST /e HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(server.join().unwrap(), [[post, get, empty]]);
    }

    #[test]
    fn a_connection_that_was_closed_while_it_was_idle_is_opened_anew() {
        let (client, server) = server(&[&[OK], &[OK, OK]]);
        for _ in 0..3 {
            assert_eq!(body(client.call(&get("/"))), "200 ok");
        }
        assert_eq!(counts(&server.join().unwrap()), [1, 2]);
    }

    #[test]
    fn a_call_is_repeated_once_and_only_if_nothing_of_its_answer_came() {
        let closed = "the connection was closed";
        let (client, asked) = server(&[&[OK, ""], &[""], &[""]]);
        assert_eq!(body(client.call(&get("/"))), "200 ok");
        assert_eq!(body(client.call(&get("/"))), closed, "twice in all");
        assert_eq!(body(client.call(&get("/"))), closed, "on a new connection once");
        assert_eq!(counts(&asked.join().unwrap()), [2, 1, 1]);

        for begun in ["H", "HTTP/1.1 100 Continue\r\n\r\n", "\r\n"] {
            let (client, asked) = server(&[&[OK, begun]]);
            assert_eq!(body(client.call(&get("/"))), "200 ok");
            assert_eq!(body(client.call(&get("/"))), CUT_SHORT, "{begun:?}");
            assert_eq!(counts(&asked.join().unwrap()), [2], "{begun:?}");
        }
    }

    #[test]
    fn a_connection_is_kept_only_where_the_answer_allows_it() {
        let old = OK.replace("1.1", "1.0");
        let old_and_kept = old.replace("\r\nC", "\r\nconnection: Keep-Alive\r\nC");
        let closed = OK.replace("\r\nC", "\r\nConnection: x, Close\r\nC");
        for (answer, is_kept) in [
            (OK, true),
            (&old, false),
            (&old_and_kept, true),
            (&closed, false),
            ("HTTP/1.1 200 OK\r\n\r\nok", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more", false),
        ] {
            let (client, asked) =
                if is_kept { server(&[&[answer, OK]]) } else { server(&[&[answer], &[OK]]) };
            assert_eq!(body(client.call(&get("/"))), "200 ok", "{answer}");
            assert_eq!(client.idle().is_some(), is_kept, "{answer}");
            assert_eq!(body(client.call(&get("/"))), "200 ok", "{answer}");
            assert_eq!(asked.join().unwrap().len(), if is_kept { 1 } else { 2 }, "{answer}");
        }
    }

    #[test]
    fn answers_in_each_form() {
        let chunked = "HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: chunked\r\n\r\n\
                       1\r\no\r\n1;x=y\r\nk\r\n0\r\nTrailer: x\r\n\r\n";
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
        let interim = [interim, OK].concat();
        // More than is read at once.
        let long = OK.replace("\r\nC", &format!("\r\nX: {}\r\nC", "x".repeat(9000)));
        let nothing = "HTTP/1.1 204 No Content\r\n\r\n";
        let (client, asked) = server(&[&[chunked, &interim, &long, nothing, OK]]);
        for expected in ["200 ok", "200 ok", "200 ok", "204 ", "200 ok"] {
            assert_eq!(body(client.call(&get("/"))), expected);
        }
        assert_eq!(counts(&asked.join().unwrap()), [5]);
    }

    #[test]
    fn answers_that_are_refused() {
        let large = "the answer's body has over 1048576 bytes";
        let no_http = "the answer is no HTTP";
        let text = "x".repeat(MAX_BODY + 1);
        let framed =
            |framing: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{body}");
        for (answer, why) in [
            (
                framed(&format!("X: {}", &text[..MAX_HEAD]), ""),
                "the answer's head has over 16384 bytes",
            ),
            (framed(&format!("Content-Length: {}", text.len()), &text), large),
            (
                framed(
                    "Transfer-Encoding: chunked",
                    &format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len()),
                ),
                large,
            ),
            (framed("X: y", &text), large),
            (framed("Content-Length: 9", "ok"), CUT_SHORT),
            (framed("Content-Length: 1\r\nContent-Length: 2", "ok"), no_http),
            (framed("Content-Length: 2\r\nTransfer-Encoding: chunked", "ok"), no_http),
            (framed("Transfer-Encoding: gzip", "ok"), no_http),
            (framed("Transfer-Encoding: chunked", "x\r\n"), no_http),
            ("SSH-2.0-OpenSSH\r\n\r\n".to_owned(), no_http),
            ("\r\n".repeat(20), no_http),
            ("HTTP/1.1 100 Continue\r\n\r\n".repeat(20), "no answer behind many interim ones"),
        ] {
            let (client, asked) = server(&[&[&answer]]);
            assert_eq!(body(client.call(&get("/"))), why, "{answer:.60}");
            assert!(client.idle().is_none(), "{answer:.60}");
            assert_eq!(counts(&asked.join().unwrap()), [1]);
        }
    }

    #[test]
    fn lambdas_api_is_an_address_or_a_name_with_a_port_or_without() {
        for (runtime_api, expected, base) in [
            ("127.0.0.1:9001", Some(("127.0.0.1", 9001)), ""),
            ("http://127.0.0.1:9001/", Some(("127.0.0.1", 9001)), ""),
            ("http://127.0.0.1", Some(("127.0.0.1", 80)), ""),
            ("host.docker.internal:9001/x/y/", Some(("host.docker.internal", 9001)), "/x/y"),
            ("[::1]:9001", Some(("::1", 9001)), ""),
            ("http://[::1]", Some(("::1", 80)), ""),
            ("http://", None, ""),
            (":9001", None, ""),
            ("host:no", None, ""),
        ] {
            let client = ApiClient::new(runtime_api);
            assert_eq!(address(&client.authority), expected, "{runtime_api}");
            assert_eq!(client.base, base, "{runtime_api}");
        }
        let client = ApiClient::new("host:no");
        let why = "cannot connect to host:no: invalid input parameter";
        assert_eq!(body(client.call(&get("/"))), why);
    }

    #[test]
    fn a_name_is_looked_up_and_ipv6_is_spoken() {
        for (bind, host) in [("127.0.0.1:0", "localhost"), ("[::1]:0", "[::1]")] {
            // A machine may have no IPv6.
            let Ok(listener) = TcpListener::bind(bind) else { continue };
            let port = listener.local_addr().unwrap().port();
            let client = ApiClient::new(&format!("http://{host}:{port}"));
            let server = thread::spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                let asked = request(&mut stream);
                stream.write_all(OK.as_bytes()).unwrap();
                asked
            });
            assert_eq!(body(client.call(&get("/x"))), "200 ok");
            let asked = server.join().unwrap();
            assert_eq!(asked, format!("GET /x HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"));
        }
    }

    #[test]
    fn what_would_be_a_second_header_is_no_value() {
        let client = ApiClient::new("127.0.0.1:1");
        let headers = [("Lambda-Extension-Name", "x\r\nY: z")];
        let call = Call { method: "GET", path: "/", headers: &headers, body: None };
        assert_eq!(body(client.call(&call)), "a header with a control character");
        let refused = body(client.call(&get("/")));
        assert!(refused.starts_with("cannot connect to 127.0.0.1:1: "), "{refused}");
    }
}
