//! Heads and bodies of HTTP/1, as they come over one connection, within bounds: for the listener's
//! requests and for the answers of Lambda's API. Pure but for the stream that is handed in.
//!
//! Nothing that comes may take more memory than [`MAX_HEAD`], or be taken for what it is not.
//! `httparse` reads heads and chunk sizes; framing that is ambiguous is an error, and so is a body
//! that ends too early.

use std::io::{ErrorKind, Read, Result as IoResult};

/// First line and headers.
pub(super) const MAX_HEAD: usize = 16 * 1024;
/// Lambda sends some five.
pub(super) const MAX_HEADERS: usize = 64;
/// Carriage returns and line feeds before a first line.
const MAX_BLANKS: usize = 16;
/// All lines behind the last chunk.
const MAX_TRAILERS: usize = 1024;
/// The line before a chunk: sixteen digits, and extensions that nobody uses.
pub(super) const MAX_CHUNK_LINE: usize = 256;

/// What has come over a connection and was not used yet: `buffer[used..filled]`.
#[derive(Debug)]
pub(super) struct Incoming {
    buffer: Vec<u8>,
    used: usize,
    filled: usize,
}

/// Where in its body a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
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
    /// Its end is that of the connection.
    ToClose,
    /// Behind all of it.
    End,
}

/// Why there is no head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoHead {
    /// The stream has ended, or failed.
    Ended,
    /// It is longer than [`MAX_HEAD`].
    TooLong,
    /// More than a few empty lines.
    Blank,
}

/// Why a head cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadFraming {
    /// Two lengths that differ, or a length beside chunks: that is how one message is smuggled
    /// behind another.
    Ambiguous,
    /// An encoding that nobody uses here.
    Unknown,
}

impl Incoming {
    /// With room for so many bytes at first, and [`MAX_HEAD`] where a head needs it.
    pub(super) fn new(room: usize) -> Incoming {
        Incoming { buffer: vec![0; room.min(MAX_HEAD)], used: 0, filled: 0 }
    }

    /// What has come and was not used yet.
    pub(super) fn unused(&self) -> &[u8] {
        self.buffer.get(self.used..self.filled).unwrap_or_default()
    }

    /// Takes so many bytes for used.
    pub(super) fn advance(&mut self, count: usize) {
        self.used = self.filled.min(self.used + count);
    }

    /// Waits for a whole head. Gives its length; it begins with the first unused byte.
    pub(super) fn read_head(&mut self, stream: &mut dyn Read) -> Result<usize, NoHead> {
        let (mut looked_at, mut blanks) = (0, 0);
        loop {
            // A few line ends between messages mean nothing.
            while looked_at == 0 && matches!(self.unused().first(), Some(b'\r' | b'\n')) {
                self.advance(1);
                blanks += 1;
                if blanks > MAX_BLANKS {
                    return Err(NoHead::Blank);
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
                return Err(NoHead::TooLong);
            }
            match self.fill(stream) {
                Ok(0) | Err(_) => return Err(NoHead::Ended),
                Ok(_) => {}
            }
        }
    }

    /// Waits for more behind what is unused; there is room if that is less than [`MAX_HEAD`] bytes.
    pub(super) fn fill(&mut self, stream: &mut dyn Read) -> IoResult<usize> {
        self.buffer.copy_within(self.used..self.filled, 0);
        (self.used, self.filled) = (0, self.filled - self.used);
        if self.filled == self.buffer.len() {
            self.buffer.resize(MAX_HEAD, 0);
        }
        let count = read(stream, self.buffer.get_mut(self.filled..).unwrap_or_default())?;
        self.filled += count;
        Ok(count)
    }

    /// The next bytes of a body; none behind its end. That of the stream before it is an error.
    pub(super) fn read_body(
        &mut self,
        stream: &mut dyn Read,
        framing: &mut Framing,
        out: &mut [u8],
    ) -> IoResult<usize> {
        loop {
            let (count, next) = match *framing {
                Framing::End | Framing::Length { left: 0, .. } => return Ok(0),
                _ if out.is_empty() => return Ok(0),
                Framing::Length { left, all } => {
                    let count = self.read_some(stream, out, left)?;
                    (count, Framing::Length { left: left.saturating_sub(count), all })
                }
                Framing::Chunk(left) => {
                    let count = self.read_some(stream, out, left)?;
                    let left = left.saturating_sub(count);
                    (count, if left == 0 { Framing::ChunkEnd } else { Framing::Chunk(left) })
                }
                Framing::ToClose => match self.read_bytes(stream, out)? {
                    0 => (0, Framing::End),
                    count => (count as u64, Framing::ToClose),
                },
                Framing::ChunkSize => (0, self.read_chunk_size(stream)?),
                Framing::ChunkEnd => (0, self.read_chunk_end(stream)?),
                Framing::Trailers(room) => (0, self.read_trailer(stream, room)?),
            };
            *framing = next;
            if count > 0 {
                return Ok(usize::try_from(count).unwrap_or(out.len()));
            }
        }
    }

    /// The line before a chunk.
    fn read_chunk_size(&mut self, stream: &mut dyn Read) -> IoResult<Framing> {
        match httparse::parse_chunk_size(self.unused()) {
            Ok(httparse::Status::Complete((length, size))) if length <= MAX_CHUNK_LINE => {
                self.advance(length);
                Ok(if size == 0 { Framing::Trailers(MAX_TRAILERS) } else { Framing::Chunk(size) })
            }
            Ok(httparse::Status::Partial) if self.unused().len() < MAX_CHUNK_LINE => {
                self.fill_more(stream)?;
                Ok(Framing::ChunkSize)
            }
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }

    /// One line behind a body's chunks; the empty one is its end.
    fn read_trailer(&mut self, stream: &mut dyn Read, room: usize) -> IoResult<Framing> {
        let unused = self.unused();
        match unused.iter().position(|byte| *byte == b'\n') {
            Some(end) if end < room => {
                let is_empty = matches!(unused.get(..end), Some(b"" | b"\r"));
                self.advance(end + 1);
                Ok(if is_empty { Framing::End } else { Framing::Trailers(room - end - 1) })
            }
            None if unused.len() < room => {
                self.fill_more(stream)?;
                Ok(Framing::Trailers(room))
            }
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }

    fn read_chunk_end(&mut self, stream: &mut dyn Read) -> IoResult<Framing> {
        match self.unused() {
            [b'\r', b'\n', ..] => {
                self.advance(2);
                Ok(Framing::ChunkSize)
            }
            [] | [b'\r'] => {
                self.fill_more(stream)?;
                Ok(Framing::ChunkEnd)
            }
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }

    fn fill_more(&mut self, stream: &mut dyn Read) -> IoResult<()> {
        if self.fill(stream)? == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn read_some(&mut self, stream: &mut dyn Read, out: &mut [u8], left: u64) -> IoResult<u64> {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
        let count = self.read_bytes(stream, out.get_mut(..most).unwrap_or_default())?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(count as u64)
    }

    /// Bytes of a body: those that are here already, else from the stream.
    fn read_bytes(&mut self, stream: &mut dyn Read, out: &mut [u8]) -> IoResult<usize> {
        let here = self.unused();
        if here.is_empty() {
            return read(stream, out);
        }
        let count = here.len().min(out.len());
        if let (Some(out), Some(here)) = (out.get_mut(..count), here.get(..count)) {
            out.copy_from_slice(here);
        }
        self.advance(count);
        Ok(count)
    }
}

/// A process that was stopped and goes on sees its wait interrupted.
fn read(stream: &mut dyn Read, out: &mut [u8]) -> IoResult<usize> {
    loop {
        match stream.read(out) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// The index behind the empty line that ends a head. Not by `memchr`, which asks the CPU what it can
/// do when it is first used: in a virtual machine the hypervisor answers that, slowly, and the heads
/// of Lambda's answers are read before the first `/next`.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let line_ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    line_ends.map(|(at, _)| at).find_map(|at| match bytes.get(at + 1..)? {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// The values of the headers of that name.
pub(super) fn header<'h>(
    headers: &'h [httparse::Header<'h>],
    name: &'h str,
) -> impl Iterator<Item = &'h str> {
    let named = headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    // What is no text is no value that anybody knows.
    named.map(|header| std::str::from_utf8(header.value).unwrap_or("?"))
}

/// Whether a header of that name has that word in its list.
pub(super) fn has(headers: &[httparse::Header<'_>], name: &str, word: &str) -> bool {
    let mut words = header(headers, name).flat_map(|value| value.split(','));
    words.any(|one| one.trim().eq_ignore_ascii_case(word))
}

/// Whether another message may follow on the connection. `version` as `httparse` has it.
pub(super) fn keeps_alive(headers: &[httparse::Header<'_>], version: Option<u8>) -> bool {
    let is_closed = has(headers, "Connection", "close");
    !is_closed && (version != Some(0) || has(headers, "Connection", "keep-alive"))
}

/// How the body behind a head is framed; `otherwise` where the head says nothing of it.
pub(super) fn framing(
    headers: &[httparse::Header<'_>],
    otherwise: Framing,
) -> Result<Framing, BadFraming> {
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
        (None, None) => Ok(otherwise),
        (Some(Some(all)), None) if same => Ok(Framing::Length { left: all, all }),
        (None, Some(one)) if encodings.next().is_none() => {
            let is_chunked = one.trim().eq_ignore_ascii_case("chunked");
            if is_chunked { Ok(Framing::ChunkSize) } else { Err(BadFraming::Unknown) }
        }
        _ => Err(BadFraming::Ambiguous),
    }
}
