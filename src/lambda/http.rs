//! The requests of one connection, one after the other, within bounds. Pure but for the stream that
//! it is given.
//!
//! Anybody in the sandbox can connect, and nothing that is sent may take more memory than
//! [`MAX_HEAD`], keep a thread busy, or be taken for what it is not: tiny_http's own server reads
//! heads and chunk sizes of any length, and reserves as much as a body declares. `httparse` reads
//! heads and chunk sizes; framing that is ambiguous is refused, and a body that ends too early is an
//! error.

use std::io::{Error, ErrorKind, Read, Result as IoResult, Write};

use memchr::memmem;

/// Request line and headers.
pub(super) const MAX_HEAD: usize = 16 * 1024;
/// Lambda sends some five.
const MAX_HEADERS: usize = 64;
/// Carriage returns and line feeds before a request line.
const MAX_BLANKS: usize = 16;
/// All lines behind the last chunk.
const MAX_TRAILERS: usize = 1024;
/// The line before a chunk: sixteen digits, and extensions that nobody uses.
const MAX_CHUNK_LINE: usize = 256;

/// What an HTTP status of a refusal says.
const BAD_REQUEST: u16 = 400;
const HEAD_TOO_LARGE: u16 = 431;
const NOT_IMPLEMENTED: u16 = 501;

/// Reads a connection's requests.
#[derive(Debug)]
pub(super) struct RequestReader<S> {
    stream: S,
    /// What was read and not used yet is `buffer[used..filled]`.
    buffer: Box<[u8]>,
    used: usize,
    filled: usize,
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

/// Where in its body a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// So many bytes are left, of all.
    Length { left: u64, all: u64 },
    /// Before a chunk's size.
    ChunkSize,
    /// So many bytes of a chunk are left.
    Chunk(u64),
    /// Before the line end behind a chunk.
    ChunkEnd,
    /// Behind the last chunk; so many bytes may still come.
    Trailers(usize),
    /// Behind all of it.
    End,
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
        RequestReader { stream, buffer: vec![0; MAX_HEAD].into(), used: 0, filled: 0 }
    }

    /// Waits for the next request's head.
    pub(super) fn next(&mut self) -> Result<Request<'_, S>, NoRequest> {
        let length = self.read_head()?;
        let head = self.buffer.get(self.used..self.used + length).unwrap_or_default();
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Err(httparse::Error::TooManyHeaders) => return Err(NoRequest::Refused(HEAD_TOO_LARGE)),
            Ok(httparse::Status::Partial) | Err(_) => return Err(NoRequest::Refused(BAD_REQUEST)),
        }
        let is_post = parsed.method == Some("POST");
        let target = parsed.path.unwrap_or_default().to_owned();
        let is_old = parsed.version == Some(0);
        let has = |name: &str, value: &str| {
            header(parsed.headers, name).any(|text| text.trim().eq_ignore_ascii_case(value))
        };
        let keeps_alive =
            if is_old { has("Connection", "keep-alive") } else { !has("Connection", "close") };
        let expects_continue = has("Expect", "100-continue");
        let framing = framing(parsed.headers).map_err(NoRequest::Refused)?;
        self.used += length;
        Ok(Request { is_post, target, keeps_alive, framing, expects_continue, reader: self })
    }

    /// The length of the head that begins with the first unused byte.
    fn read_head(&mut self) -> Result<usize, NoRequest> {
        let (mut looked_at, mut blanks) = (0, 0);
        loop {
            // A few line ends between requests mean nothing.
            while looked_at == 0 && matches!(self.unused().first(), Some(b'\r' | b'\n')) {
                self.used += 1;
                blanks += 1;
                if blanks > MAX_BLANKS {
                    return Err(NoRequest::Refused(BAD_REQUEST));
                }
            }
            let unused = self.unused();
            // The end may have begun with what was there before.
            let from = looked_at.min(unused.len()).saturating_sub(3);
            if let Some(end) = head_end(unused.get(from..).unwrap_or_default()) {
                return Ok(from + end);
            }
            looked_at = unused.len();
            if looked_at >= MAX_HEAD {
                return Err(NoRequest::Refused(HEAD_TOO_LARGE));
            }
            match self.fill() {
                Ok(0) | Err(_) => return Err(NoRequest::Ended),
                Ok(_) => {}
            }
        }
    }

    fn unused(&self) -> &[u8] {
        self.buffer.get(self.used..self.filled).unwrap_or_default()
    }

    /// Reads more behind what is unused. There is room if less than [`MAX_HEAD`] bytes are.
    fn fill(&mut self) -> IoResult<usize> {
        self.buffer.copy_within(self.used..self.filled, 0);
        (self.used, self.filled) = (0, self.filled - self.used);
        loop {
            match self.stream.read(self.buffer.get_mut(self.filled..).unwrap_or_default()) {
                // A process that was stopped and goes on sees this.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => {
                    let count = read?;
                    self.filled += count;
                    return Ok(count);
                }
            }
        }
    }

    /// Bytes of a body: those that are here already, else from the stream.
    fn read_bytes(&mut self, out: &mut [u8]) -> IoResult<usize> {
        let here = self.unused();
        if here.is_empty() {
            return self.stream.read(out);
        }
        let count = here.len().min(out.len());
        for (place, byte) in out.iter_mut().zip(here) {
            *place = *byte;
        }
        self.used += count;
        Ok(count)
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

    /// The line before a chunk.
    fn read_chunk_size(&mut self) -> IoResult<Framing> {
        match httparse::parse_chunk_size(self.reader.unused()) {
            Ok(httparse::Status::Complete((length, size))) if length <= MAX_CHUNK_LINE => {
                self.reader.used += length;
                Ok(if size == 0 { Framing::Trailers(MAX_TRAILERS) } else { Framing::Chunk(size) })
            }
            Ok(httparse::Status::Partial) if self.reader.unused().len() < MAX_CHUNK_LINE => {
                self.fill()?;
                Ok(Framing::ChunkSize)
            }
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }

    /// One line behind a body's chunks; the empty one is its end.
    fn read_trailer(&mut self, room: usize) -> IoResult<Framing> {
        let unused = self.reader.unused();
        match memchr::memchr(b'\n', unused) {
            Some(end) if end < room => {
                let is_empty = matches!(unused.get(..end), Some(b"" | b"\r"));
                self.reader.used += end + 1;
                Ok(if is_empty { Framing::End } else { Framing::Trailers(room - end - 1) })
            }
            None if unused.len() < room => {
                self.fill()?;
                Ok(Framing::Trailers(room))
            }
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }

    fn read_chunk_end(&mut self) -> IoResult<Framing> {
        match self.reader.unused() {
            [b'\r', b'\n', ..] => {
                self.reader.used += 2;
                Ok(Framing::ChunkSize)
            }
            [] | [b'\r'] => {
                self.fill()?;
                Ok(Framing::ChunkEnd)
            }
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }

    fn fill(&mut self) -> IoResult<()> {
        if self.reader.fill()? == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn read_some(&mut self, out: &mut [u8], left: u64) -> IoResult<u64> {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
        let count = self.reader.read_bytes(out.get_mut(..most).unwrap_or_default())?;
        if count == 0 {
            return Err(Error::from(ErrorKind::UnexpectedEof));
        }
        Ok(count as u64)
    }
}

/// The body. Its end is where its framing says so; the stream's end before that is an error.
impl<S: Read + Write> Read for Request<'_, S> {
    fn read(&mut self, out: &mut [u8]) -> IoResult<usize> {
        if std::mem::take(&mut self.expects_continue) && self.reader.unused().is_empty() {
            self.stream().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        loop {
            let (count, next) = match self.framing {
                Framing::End | Framing::Length { left: 0, .. } => return Ok(0),
                _ if out.is_empty() => return Ok(0),
                Framing::Length { left, all } => {
                    let count = self.read_some(out, left)?;
                    (count, Framing::Length { left: left.saturating_sub(count), all })
                }
                Framing::Chunk(left) => {
                    let count = self.read_some(out, left)?;
                    let left = left.saturating_sub(count);
                    (count, if left == 0 { Framing::ChunkEnd } else { Framing::Chunk(left) })
                }
                Framing::ChunkSize => (0, self.read_chunk_size()?),
                Framing::ChunkEnd => (0, self.read_chunk_end()?),
                Framing::Trailers(room) => (0, self.read_trailer(room)?),
            };
            self.framing = next;
            if count > 0 {
                return Ok(usize::try_from(count).unwrap_or(out.len()));
            }
        }
    }
}

/// The index behind the empty line that ends a head.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let ends: [&[u8]; 2] = [b"\n\r\n", b"\n\n"];
    ends.iter().filter_map(|end| Some(memmem::find(bytes, end)? + end.len())).min()
}

fn header<'h>(headers: &'h [httparse::Header<'h>], name: &'h str) -> impl Iterator<Item = &'h str> {
    let named = headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    // What is no text is no value that anybody knows.
    named.map(|header| std::str::from_utf8(header.value).unwrap_or("?"))
}

/// How the body is framed, or the status to refuse it with: two lengths that differ, or a length
/// beside chunks, are how one request is smuggled behind another.
fn framing(headers: &[httparse::Header<'_>]) -> Result<Framing, u16> {
    let digits = |text: &str| {
        let text = text.trim();
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // A length that no number holds is longer than anything that is taken.
        plain.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let mut lengths = header(headers, "Content-Length").map(digits);
    let length = lengths.next();
    let same = lengths.all(|other| Some(other) == length);
    let mut encodings = header(headers, "Transfer-Encoding");
    match (length, encodings.next()) {
        (None, None) => Ok(Framing::End),
        (Some(Some(all)), None) if same => Ok(Framing::Length { left: all, all }),
        (None, Some(one)) if encodings.next().is_none() => {
            let is_chunked = one.trim().eq_ignore_ascii_case("chunked");
            if is_chunked { Ok(Framing::ChunkSize) } else { Err(NOT_IMPLEMENTED) }
        }
        _ => Err(BAD_REQUEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out a text in pieces, and keeps what is written.
    #[derive(Debug)]
    struct Wire {
        text: Vec<u8>,
        at: usize,
        piece: usize,
        written: Vec<u8>,
    }

    impl Read for Wire {
        fn read(&mut self, out: &mut [u8]) -> IoResult<usize> {
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
        RequestReader::new(Wire { text, at: 0, piece, written: Vec::new() })
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
