//! A loopback server of plain threads: one that accepts, and one per connection.
//!
//! Its port is held by a socket that is bound but never listens, so that the server can stop listening (connections
//! are refused) and come back, and so that no parallel test is given the same port. Dropping it shuts every
//! connection and joins every thread.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use crate::wait::{Stop, lock};

/// More connections than this at once are closed on arrival.
const CONNECTION_LIMIT: usize = 512;

/// A port of 127.0.0.1 that nobody else is given while this value lives, and on which nobody listens.
pub(crate) struct Port {
    _holder: Socket,
    pub(crate) number: u16,
}

impl Port {
    pub(crate) fn reserve() -> io::Result<Self> {
        let holder = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // With this on both sockets, Linux lets a listener bind the port that the holder keeps.
        holder.set_reuse_address(true)?;
        holder.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let number = holder.local_addr()?.as_socket().map_or(0, |address| address.port());
        Ok(Self { _holder: holder, number })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

/// What is done with each connection, on a thread of its own.
pub(crate) trait Serve: Send + Sync + 'static {
    fn serve(&self, connection: u64, stream: TcpStream);
}

struct Shared {
    stop: Stop,
    next: AtomicU64,
    open: Mutex<HashMap<u64, TcpStream>>,
    /// Connections whose thread has not ended.
    live: Mutex<HashSet<u64>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

pub(crate) struct Server {
    port: Port,
    service: Arc<dyn Serve>,
    shared: Arc<Shared>,
    accepting: Mutex<Option<(Stop, JoinHandle<()>)>>,
}

impl Server {
    pub(crate) fn start(service: Arc<dyn Serve>) -> io::Result<Self> {
        let server = Self {
            port: Port::reserve()?,
            service,
            shared: Arc::new(Shared {
                stop: Stop::default(),
                next: AtomicU64::new(1),
                open: Mutex::default(),
                live: Mutex::default(),
                threads: Mutex::default(),
            }),
            accepting: Mutex::new(None),
        };
        server.listen()?;
        Ok(server)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Listens, unless it does already.
    pub(crate) fn listen(&self) -> io::Result<()> {
        let mut accepting = lock(&self.accepting);
        if accepting.is_some() {
            return Ok(());
        }
        let listener = TcpListener::bind(self.address())?;
        let stop = Stop::default();
        let (shared, service, halt) =
            (Arc::clone(&self.shared), Arc::clone(&self.service), stop.clone());
        let thread = std::thread::Builder::new()
            .name("sandbox-accept".to_owned())
            .spawn(move || accept(&listener, &shared, &service, &halt))?;
        *accepting = Some((stop, thread));
        Ok(())
    }

    /// From now on connections are refused; those that are open stay.
    pub(crate) fn stop_listening(&self) {
        if let Some((stop, thread)) = lock(&self.accepting).take() {
            stop.set();
            // `accept` has no time-out: one connection wakes it up.
            let _ = TcpStream::connect_timeout(&self.address(), Duration::from_secs(1));
            let _ = thread.join();
        }
    }

    /// Resets open connections for which `chosen` holds, and returns when RST has gone out. Says how many.
    pub(crate) fn reset(&self, chosen: impl Fn(u64) -> bool) -> usize {
        let ids: Vec<u64> = {
            let mut open = lock(&self.shared.open);
            let ids: Vec<u64> = open.keys().copied().filter(|id| chosen(*id)).collect();
            for stream in ids.iter().filter_map(|id| open.remove(id)).collect::<Vec<_>>() {
                reset(&stream);
            }
            ids
        };
        let end = Instant::now() + Duration::from_millis(500);
        while Instant::now() < end && ids.iter().any(|id| lock(&self.shared.live).contains(id)) {
            std::thread::sleep(Duration::from_micros(200));
        }
        ids.len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.set();
        self.stop_listening();
        for (_, stream) in lock(&self.shared.open).drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let threads = std::mem::take(&mut *lock(&self.shared.threads));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, service: &Arc<dyn Serve>, halt: &Stop) {
    loop {
        let Ok((stream, _)) = listener.accept() else {
            if halt.sleep(Duration::from_millis(5)) {
                return;
            }
            continue;
        };
        if halt.is_set() || shared.stop.is_set() {
            return;
        }
        let _ = stream.set_nodelay(true);
        let Ok(copy) = stream.try_clone() else { continue };
        let id = shared.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut open = lock(&shared.open);
            if open.len() >= CONNECTION_LIMIT {
                continue;
            }
            open.insert(id, copy);
            lock(&shared.live).insert(id);
        }
        let (service, registry) = (Arc::clone(service), Arc::clone(shared));
        let thread =
            std::thread::Builder::new().name(format!("sandbox-connection-{id}")).spawn(move || {
                service.serve(id, stream);
                lock(&registry.open).remove(&id);
                lock(&registry.live).remove(&id);
            });
        let mut threads = lock(&shared.threads);
        threads.retain(|thread| !thread.is_finished());
        threads.extend(thread);
    }
}

/// Makes the close of this socket a reset, and wakes whoever reads from it. RST goes out when the last copy is dropped.
pub(crate) fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    // Reading ends; a shutdown of the writing half would send FIN first, and the peer would see a clean end.
    let _ = stream.shutdown(Shutdown::Read);
}
