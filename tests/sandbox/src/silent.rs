//! A port that answers nobody: connecting to it neither succeeds nor fails, as where a firewall drops packets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Ends with this value.
pub struct SilentPort {
    _listener: Socket,
    _waiting: Vec<TcpStream>,
    address: SocketAddr,
}

impl SilentPort {
    /// Fills the queue of a listener that accepts nobody: Linux drops whoever comes after that.
    ///
    /// # Panics
    /// When the machine has no port left, or its queues are not as they are known to be.
    #[must_use]
    pub fn start() -> Self {
        let listener = listener().expect("a port of 127.0.0.1 is free");
        let address = listener
            .local_addr()
            .ok()
            .and_then(|address| address.as_socket())
            .expect("it is bound");
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            waiting.push(stream);
            assert!(waiting.len() < 64, "the queue of a listener is bounded");
        }
        Self { _listener: listener, _waiting: waiting, address }
    }

    /// `127.0.0.1:port`
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn listener() -> io::Result<Socket> {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    listener.listen(0)?;
    Ok(listener)
}
