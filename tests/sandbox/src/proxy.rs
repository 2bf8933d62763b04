//! A forward proxy that sends every tunnel to one place: the real host name, without DNS and without root.
//!
//! Given as `HTTPS_PROXY`, it lets the extension call `kinesis.us-east-1.amazonaws.com:443` and reach a TLS
//! [`Kinesis`] on loopback: endpoint building, server name, certificate, `Host` and signature are as in production.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::kinesis::Kinesis;
use crate::server::{Serve, Server};
use crate::wait::lock;

/// A running proxy; ends with this value.
pub struct Proxy {
    // Dropped first: its threads use the rest.
    server: Server,
    tunnels: Arc<Tunnels>,
}

struct Tunnels {
    target: SocketAddr,
    requests: Mutex<Vec<String>>,
    faults: Mutex<(u32, Option<ProxyFault>)>,
}

/// What a proxy does instead of opening a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyFault {
    /// Sends an answer without end, a byte after each pause.
    Drip(Duration),
    /// Closes the connection without an answer.
    Close,
    /// Says that the tunnel is open, and closes it.
    CutTunnel,
}

impl Proxy {
    /// Every tunnel ends at this endpoint, whatever it was asked for.
    ///
    /// # Panics
    /// When the machine has no port or no thread left.
    #[must_use]
    pub fn to(kinesis: &Kinesis) -> Self {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, kinesis.port()));
        let tunnels =
            Arc::new(Tunnels { target, requests: Mutex::default(), faults: Mutex::default() });
        let server = Server::start(Arc::clone(&tunnels) as _).expect("a port of 127.0.0.1 is free");
        Self { server, tunnels }
    }

    /// For `HTTPS_PROXY`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// The next `times` tunnels end like this.
    pub fn fault(&self, fault: ProxyFault, times: u32) {
        *lock(&self.tunnels.faults) = (times, Some(fault));
    }

    /// The first line of every request so far: `CONNECT host:port HTTP/1.1`.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        lock(&self.tunnels.requests).clone()
    }
}

impl Serve for Tunnels {
    fn serve(&self, _: u64, stream: TcpStream) {
        let _ = self.tunnel(stream);
    }
}

const HEAD_LIMIT: usize = 8192;

impl Tunnels {
    fn fault(&self) -> Option<ProxyFault> {
        let mut faults = lock(&self.faults);
        faults.0 = faults.0.checked_sub(1)?;
        faults.1
    }

    fn tunnel(&self, mut client: TcpStream) -> io::Result<()> {
        let mut head = Vec::new();
        let mut byte = [0];
        // Byte by byte, so that nothing of what follows the head is taken.
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() > HEAD_LIMIT || client.read(&mut byte)? == 0 {
                return Ok(());
            }
            head.extend_from_slice(&byte);
        }
        let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
        let connect = line.starts_with("CONNECT ");
        lock(&self.requests).push(line);
        if !connect {
            return client
                .write_all(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n");
        }
        if let Some(fault) = self.fault() {
            let pause = match fault {
                ProxyFault::Close => return Ok(()),
                ProxyFault::CutTunnel => {
                    return client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
                }
                ProxyFault::Drip(pause) => pause,
            };
            client.write_all(b"HTTP/1.1 200 ")?;
            // Ends with the client, or at the latest when its head would be too large for anybody.
            for _ in 0..HEAD_LIMIT {
                std::thread::sleep(pause);
                client.write_all(b"a")?;
            }
            return Ok(());
        }
        let server = TcpStream::connect_timeout(&self.target, Duration::from_secs(1))?;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        let (up, down) = ((client.try_clone()?, server.try_clone()?), (server, client));
        let upwards = std::thread::spawn(move || pump(up.0, up.1));
        pump(down.0, down.1);
        let _ = upwards.join();
        Ok(())
    }
}

/// Copies until the end, and passes the end on in both directions.
fn pump(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
