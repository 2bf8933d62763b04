//! HTTP/1.1 over one blocking socket, as server and as client: a head, then `Content-Length` bytes. Buffers are kept.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// After so long without a byte the peer is taken to hang.
const SILENCE: Duration = Duration::from_secs(60);

pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were read, and of these the last message's.
    filled: usize,
    used: usize,
    out: Vec<u8>,
}

/// Where head and body of the last message are in the buffer.
pub(crate) struct Message {
    head: usize,
    end: usize,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        Ok(Connection { stream, buffer: vec![0; 16 * 1024], filled: 0, used: 0, out: Vec::new() })
    }

    /// The next message; `None` when the peer hung up before it.
    pub(crate) fn read(&mut self) -> io::Result<Option<Message>> {
        self.buffer.copy_within(self.used..self.filled, 0);
        self.filled -= self.used;
        self.used = 0;
        let head = loop {
            if let Some(end) = memchr::memmem::find(&self.buffer[..self.filled], b"\r\n\r\n") {
                break end + 4;
            }
            if self.fill()? == 0 {
                return if self.filled == 0 {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        };
        let length = header(&self.buffer[..head], "content-length")
            .and_then(|length| length.parse().ok())
            .unwrap_or(0);
        let end = head + length;
        while self.filled < end {
            if self.buffer.len() < end {
                self.buffer.resize(end, 0);
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.used = end;
        Ok(Some(Message { head, end }))
    }

    fn fill(&mut self) -> io::Result<usize> {
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.filled * 2, 0);
        }
        let count = self.stream.read(&mut self.buffer[self.filled..])?;
        self.filled += count;
        Ok(count)
    }

    pub(crate) fn head(&self, message: &Message) -> &[u8] {
        &self.buffer[..message.head]
    }

    pub(crate) fn body(&self, message: &Message) -> &[u8] {
        &self.buffer[message.head..message.end]
    }

    /// Writes a first line, headers (each with its line end) and a body in one piece.
    pub(crate) fn write(&mut self, line: &str, headers: &str, body: &[u8]) -> io::Result<()> {
        self.out.clear();
        write!(self.out, "{line}\r\n{headers}Content-Length: {}\r\n\r\n", body.len())?;
        self.out.extend_from_slice(body);
        self.stream.write_all(&self.out)
    }
}

/// A header's value. Its name in lower case.
fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let mut lines = std::str::from_utf8(head).ok()?.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}
