use std::io::{Error, ErrorKind, Read, Result};

/// The most bytes that are read one by one.
const MAX_SINGLE_BYTES: usize = 64 * 1024;

/// What a decoder of chunks reads from. It reads the sizes of chunks, which can be endless, byte by
/// byte, and gathers them; their data it reads in pieces.
pub struct BoundedSizes<R> {
    reader: R,
    left: usize,
}

impl<R: Read> BoundedSizes<R> {
    pub fn new(reader: R) -> Self {
        BoundedSizes { reader, left: MAX_SINGLE_BYTES }
    }
}

impl<R: Read> Read for BoundedSizes<R> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        if buf.len() > 1 {
            self.left = MAX_SINGLE_BYTES;
        } else {
            self.left =
                self.left.checked_sub(1).ok_or_else(|| Error::from(ErrorKind::InvalidData))?;
        }
        self.reader.read(buf)
    }
}
