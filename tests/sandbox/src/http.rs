//! Blocking HTTP/1.1 over any stream: reads a request or an answer, and nothing more.
//!
//! Sockets are driven by hand so that a test can cut, delay or dribble bytes at any point. Bounded: 64 KiB of head,
//! and as much body as the caller allows.

use std::io::{self, Read, Write};
use std::time::Instant;

const HEAD_LIMIT: usize = 64 * 1024;

/// A request as it came off the wire.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// Names as sent, values as text, in order.
    pub headers: Vec<(String, String)>,
    /// The body, freed of its framing.
    pub body: Vec<u8>,
    /// When its first byte was read.
    pub started: Instant,
}

impl Request {
    /// The first header of that name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

/// An answer as it came off the wire.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
}

impl Response {
    pub(crate) fn keep_alive(&self) -> bool {
        !find(&self.headers, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Why nothing could be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The peer hung up between two messages.
    Closed,
    /// The stream failed, or ended inside a message.
    Io(io::Error),
    /// What came is no HTTP/1.1.
    Malformed(String),
    /// The body is larger than the caller takes.
    TooLarge,
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A stream and the bytes read too far.
pub(crate) struct Wire<S> {
    pub(crate) stream: S,
    ahead: Vec<u8>,
}

impl<S: Read + Write> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    /// The next request; `begun` runs when its first byte is there.
    pub(crate) fn request(
        &mut self,
        limit: usize,
        begun: impl FnOnce(),
    ) -> Result<Request, ReadError> {
        if self.ahead.is_empty() && self.fill()? == 0 {
            return Err(ReadError::Closed);
        }
        let started = Instant::now();
        begun();
        let (method, target, headers, length) = loop {
            let mut slots = [httparse::EMPTY_HEADER; 64];
            let mut head = httparse::Request::new(&mut slots);
            match head.parse(&self.ahead) {
                Ok(httparse::Status::Complete(length)) => {
                    let method = head.method.unwrap_or_default().to_owned();
                    let target = head.path.unwrap_or_default().to_owned();
                    break (method, target, owned(head.headers), length);
                }
                Ok(httparse::Status::Partial) => self.more_head()?,
                Err(error) => return Err(ReadError::Malformed(error.to_string())),
            }
        };
        self.ahead.drain(..length);
        if find(&headers, "expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
        {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            self.stream.flush()?;
        }
        let body = self.body(&headers, limit)?;
        Ok(Request { method, target, headers, body, started })
    }

    /// The next answer. Interim answers (100 Continue) are returned like any other, without a body.
    pub(crate) fn response(&mut self, limit: usize) -> Result<Response, ReadError> {
        let (status, headers, length) = loop {
            let mut slots = [httparse::EMPTY_HEADER; 64];
            let mut head = httparse::Response::new(&mut slots);
            match head.parse(&self.ahead) {
                Ok(httparse::Status::Complete(length)) => {
                    break (head.code.unwrap_or_default(), owned(head.headers), length);
                }
                Ok(httparse::Status::Partial) => self.more_head()?,
                Err(error) => return Err(ReadError::Malformed(error.to_string())),
            }
        };
        self.ahead.drain(..length);
        if status >= 200 {
            self.body(&headers, limit)?;
        }
        Ok(Response { status, headers })
    }

    fn body(&mut self, headers: &[(String, String)], limit: usize) -> Result<Vec<u8>, ReadError> {
        if find(headers, "transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
        {
            return self.chunked(limit);
        }
        let length = find(headers, "content-length").map_or(Ok(0), str::parse::<usize>);
        let length = length.map_err(|_| ReadError::Malformed("content-length".to_owned()))?;
        if length > limit {
            return Err(ReadError::TooLarge);
        }
        self.exactly(length)
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>, ReadError> {
        let mut body = if self.ahead.len() <= length {
            std::mem::take(&mut self.ahead)
        } else {
            self.ahead.drain(..length).collect()
        };
        let have = body.len();
        body.resize(length, 0);
        self.stream.read_exact(&mut body[have..])?;
        Ok(body)
    }

    fn chunked(&mut self, limit: usize) -> Result<Vec<u8>, ReadError> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
            let size = std::str::from_utf8(size)
                .ok()
                .and_then(|text| usize::from_str_radix(text.trim(), 16).ok());
            let size = size.ok_or_else(|| ReadError::Malformed("chunk size".to_owned()))?;
            if body.len() + size > limit {
                return Err(ReadError::TooLarge);
            }
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(size)?);
            self.line()?;
        }
    }

    fn line(&mut self) -> Result<Vec<u8>, ReadError> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.ahead, b"\r\n") {
                let line = self.ahead.drain(..end + 2).take(end).collect();
                return Ok(line);
            }
            self.more_head()?;
        }
    }

    fn more_head(&mut self) -> Result<(), ReadError> {
        if self.ahead.len() > HEAD_LIMIT {
            return Err(ReadError::TooLarge);
        }
        if self.fill()? == 0 {
            return Err(ReadError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<usize, ReadError> {
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(count) => {
                    self.ahead.extend_from_slice(&chunk[..count]);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn owned(headers: &[httparse::Header<'_>]) -> Vec<(String, String)> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect()
}

/// An answer's bytes, with `Content-Length`.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status} {}\r\n", reason(status)).into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        413 => "Request Entity Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Script(io::Cursor<Vec<u8>>, Vec<u8>);
    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let few = buffer.len().min(7);
            self.0.read(&mut buffer[..few])
        }
    }
    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    fn wire(text: &str) -> Wire<Script> {
        Wire::new(Script(io::Cursor::new(text.into()), Vec::new()))
    }

    #[test]
    fn two_requests_on_one_connection() {
        let mut wire = wire(
            "POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: x\r\n\r\n",
        );
        let first = wire.request(10, || ()).unwrap();
        assert_eq!((first.target.as_str(), first.body.as_slice()), ("/a", &b"abc"[..]));
        let second = wire.request(10, || ()).unwrap();
        assert_eq!((second.target.as_str(), second.header("HOST")), ("/b", Some("x")));
        assert!(matches!(wire.request(10, || ()), Err(ReadError::Closed)));
    }

    #[test]
    fn chunks_and_expectations() {
        let mut wire = wire(
            "POST / HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
        );
        assert_eq!(wire.request(10, || ()).unwrap().body, b"abcde");
        assert!(wire.stream.1.starts_with(b"HTTP/1.1 100"));
    }

    #[test]
    fn a_body_over_the_limit_is_refused() {
        assert!(matches!(
            wire("POST / HTTP/1.1\r\nContent-Length: 11\r\n\r\n").request(10, || ()),
            Err(ReadError::TooLarge)
        ));
    }
}
