//! The requests of one connection, one after the other, within bounds. Pure but for the stream that
//! it is given.
//!
//! Anybody in the sandbox can connect, and nothing that is sent may take more memory than
//! [`MAX_HEAD`], keep a thread busy, or be taken for what it is not: tiny_http's own server reads
//! heads and chunk sizes of any length, and reserves as much as a body declares. Framing that is
//! ambiguous is refused.

use std::io::{Read, Result as IoResult, Write};

use super::framing::{
    BadFraming, Framing, Incoming, MAX_HEAD, MAX_HEADERS, NoHead, framing, has, keeps_alive,
};

/// What an HTTP status of a refusal says.
const BAD_REQUEST: u16 = 400;
const HEAD_TOO_LARGE: u16 = 431;
const NOT_IMPLEMENTED: u16 = 501;

/// Reads a connection's requests.
#[derive(Debug)]
pub(super) struct RequestReader<S> {
    stream: S,
    incoming: Incoming,
}

/// One request. Its body is read through it; what of it is left unread is in the way of the next.
#[derive(Debug)]
pub(super) struct Request<'r, S> {
    pub(super) is_post: bool,
    /// As in the request line.
    pub(super) target: String,
    /// Whether the client may send another one behind it.
    pub(super) keeps_alive: bool,
    framing: Framing,
    expects_continue: bool,
    reader: &'r mut RequestReader<S>,
}

/// Why there is no further request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoRequest {
    /// The client has gone, or stalls.
    Ended,
    /// To be answered with this status; what comes behind cannot be understood.
    Refused(u16),
}

impl<S: Read + Write> RequestReader<S> {
    pub(super) fn new(stream: S) -> RequestReader<S> {
        RequestReader { stream, incoming: Incoming::new(MAX_HEAD) }
    }

    /// Waits for the next request's head.
    pub(super) fn next(&mut self) -> Result<Request<'_, S>, NoRequest> {
        let length = self.incoming.read_head(&mut self.stream).map_err(|none| match none {
            NoHead::Ended => NoRequest::Ended,
            NoHead::TooLong => NoRequest::Refused(HEAD_TOO_LARGE),
            NoHead::Blank => NoRequest::Refused(BAD_REQUEST),
        })?;
        let head = self.incoming.unused().get(..length).unwrap_or_default();
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Err(httparse::Error::TooManyHeaders) => return Err(NoRequest::Refused(HEAD_TOO_LARGE)),
            Ok(httparse::Status::Partial) | Err(_) => return Err(NoRequest::Refused(BAD_REQUEST)),
        }
        let is_post = parsed.method == Some("POST");
        let target = parsed.path.unwrap_or_default().to_owned();
        let keeps_alive = keeps_alive(parsed.headers, parsed.version);
        let expects_continue = has(parsed.headers, "Expect", "100-continue");
        let framing = framing(parsed.headers, Framing::End).map_err(|bad| match bad {
            BadFraming::Ambiguous => NoRequest::Refused(BAD_REQUEST),
            BadFraming::Unknown => NoRequest::Refused(NOT_IMPLEMENTED),
        })?;
        self.incoming.advance(length);
        Ok(Request { is_post, target, keeps_alive, framing, expects_continue, reader: self })
    }
}

impl<S: Read + Write> Request<'_, S> {
    /// How long its body is, where it says so.
    pub(super) fn body_length(&self) -> Option<u64> {
        match self.framing {
            Framing::Length { all, .. } => Some(all),
            _ => None,
        }
    }

    /// Whether its body was read to its end.
    pub(super) fn is_read(&self) -> bool {
        matches!(self.framing, Framing::End | Framing::Length { left: 0, .. })
    }

    /// To answer through.
    pub(super) fn stream(&mut self) -> &mut S {
        &mut self.reader.stream
    }
}

/// The body. Its end is where its framing says so; the stream's end before that is an error.
impl<S: Read + Write> Read for Request<'_, S> {
    fn read(&mut self, out: &mut [u8]) -> IoResult<usize> {
        let RequestReader { stream, incoming } = &mut *self.reader;
        if std::mem::take(&mut self.expects_continue) && incoming.unused().is_empty() {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        incoming.read_body(stream, &mut self.framing, out)
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;
    use crate::lambda::framing::MAX_CHUNK_LINE;

    /// Gives out a text in pieces, and keeps what is written.
    #[derive(Debug)]
    struct Wire {
        text: Vec<u8>,
        at: usize,
        piece: usize,
        interrupted: bool,
        written: Vec<u8>,
    }

    impl Read for Wire {
        /// Interrupted each other time, as a process that is stopped and goes on.
        fn read(&mut self, out: &mut [u8]) -> IoResult<usize> {
            self.interrupted = !self.interrupted;
            if self.interrupted {
                return Err(ErrorKind::Interrupted.into());
            }
            let count = out.len().min(self.piece).min(self.text.len() - self.at);
            out[..count].copy_from_slice(&self.text[self.at..self.at + count]);
            self.at += count;
            Ok(count)
        }
    }

    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> IoResult<usize> {
            self.written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> IoResult<()> {
            Ok(())
        }
    }

    fn reader(text: &str, piece: usize) -> RequestReader<Wire> {
        let text = text.as_bytes().to_vec();
        RequestReader::new(Wire { text, at: 0, piece, interrupted: false, written: Vec::new() })
    }

    fn body(request: &mut Request<'_, Wire>) -> IoResult<String> {
        let mut body = String::new();
        request.read_to_string(&mut body)?;
        Ok(body)
    }

    #[test]
    fn requests_come_one_after_the_other_however_they_are_cut() {
        let text = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n[1,2]\r\n\
                    GET /b?c HTTP/1.1\r\n\r\n\
                    POST /d HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n\
                    3;x=y\r\n[1,\r\n2\r\n2]\r\n0\r\nTrailer: x\r\n\r\n\
                    POST /e HTTP/1.0\nContent-Length: 2\nContent-Length: 2\n\n[]";
        for piece in [1, 2, 3, 7, 1000] {
            let mut reader = reader(text, piece);
            for (is_post, target, expected, length, keeps_alive) in [
                (true, "/a", "[1,2]", Some(5), true),
                (false, "/b?c", "", None, true),
                (true, "/d", "[1,2]", None, true),
                (true, "/e", "[]", Some(2), false),
            ] {
                let mut request = reader.next().unwrap();
                let read = (request.is_post, request.body_length(), request.keeps_alive);
                assert_eq!(read, (is_post, length, keeps_alive), "{piece} {target}");
                assert_eq!(request.target, target);
                assert_eq!(body(&mut request).unwrap(), expected, "{piece} {target}");
                assert!(request.is_read());
            }
            assert_eq!(reader.next().unwrap_err(), NoRequest::Ended);
        }
    }

    #[test]
    fn heads_that_are_refused() {
        let long = "x".repeat(MAX_HEAD);
        let many = "A: b\r\n".repeat(MAX_HEADERS + 1);
        for (head, status) in [
            ("\0\0\0\0\r\n\r\n", 400),
            (&"\r\n".repeat(9), 400),
            ("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
            (&format!("POST /{long} HTTP/1.1\r\n\r\n"), 431),
            (&format!("POST / HTTP/1.1\r\n{many}\r\n"), 431),
        ] {
            for piece in [1, 1000] {
                let refused = reader(head, piece).next().unwrap_err();
                assert_eq!(refused, NoRequest::Refused(status), "{head:.60}");
            }
        }
    }

    #[test]
    fn a_length_that_no_number_holds_is_a_length() {
        let text = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", "9".repeat(40));
        assert_eq!(reader(&text, 9).next().unwrap().body_length(), Some(u64::MAX));
    }

    #[test]
    fn a_body_that_ends_too_early_or_is_framed_wrongly_is_an_error() {
        let long = "1".repeat(MAX_CHUNK_LINE);
        for text in [
            "Content-Length: 5\r\n\r\n[1,2",
            "Transfer-Encoding: chunked\r\n\r\n3\r\n[1",
            "Transfer-Encoding: chunked\r\n\r\n3\r\n[1]",
            "Transfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n",
            "Transfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n",
            "Transfer-Encoding: chunked\r\n\r\n3\r\n[1]xx0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\nx\r\n[1]\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n[1]\r\n0\r\n\r\n",
            &format!("Transfer-Encoding: chunked\r\n\r\n{long}\r\n[1]"),
            &format!("Transfer-Encoding: chunked\r\n\r\n1;{long}\r\n[1]"),
            &format!("Transfer-Encoding: chunked\r\n\r\n0\r\n{}\r\n\r\n", long.repeat(4)),
            &format!("Transfer-Encoding: chunked\r\n\r\n0\r\n{}\r\n", "A: b\r\n".repeat(200)),
        ] {
            for piece in [1, 1000] {
                let mut reader = reader(&format!("POST / HTTP/1.1\r\n{text}"), piece);
                let mut request = reader.next().unwrap();
                assert!(body(&mut request).is_err() && !request.is_read(), "{text:.60}");
            }
        }
    }

    #[test]
    fn a_client_that_waits_for_it_is_told_to_go_on() {
        let head = "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        let mut reader = reader(&format!("{head}[]"), head.len());
        let mut request = reader.next().unwrap();
        assert_eq!(body(&mut request).unwrap(), "[]");
        assert_eq!(request.stream().written, b"HTTP/1.1 100 Continue\r\n\r\n");
    }
}
