use std::io::Result as IoResult;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

/// One direction of a connection, which is closed when this is dropped.
pub struct RefinedTcpStream {
    stream: Arc<TcpStream>,
    closes: Shutdown,
}

impl RefinedTcpStream {
    /// The direction to read from, and the one to write to.
    pub(crate) fn new(stream: Arc<TcpStream>) -> (RefinedTcpStream, RefinedTcpStream) {
        let read = RefinedTcpStream { stream: Arc::clone(&stream), closes: Shutdown::Read };
        let write = RefinedTcpStream { stream, closes: Shutdown::Write };
        (read, write)
    }
}

impl Drop for RefinedTcpStream {
    fn drop(&mut self) {
        self.stream.shutdown(self.closes).ok();
    }
}

impl Read for RefinedTcpStream {
    fn read(&mut self, buf: &mut [u8]) -> IoResult<usize> {
        (&*self.stream).read(buf)
    }
}

impl Write for RefinedTcpStream {
    fn write(&mut self, buf: &[u8]) -> IoResult<usize> {
        (&*self.stream).write(buf)
    }

    fn flush(&mut self) -> IoResult<()> {
        (&*self.stream).flush()
    }
}
