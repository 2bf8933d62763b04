//! Posts batches to the extension's listener: one thread, in order, again until each is answered 2xx.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bodies::{Body, Envelope, bodies};
use super::world::Shared;
use super::{Delivery, Post, SentEvent};
use crate::http::{ReadError, Wire};
use crate::kinesis::hung_up;

/// The pause after the first failure; it doubles up to the last.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Until the simulator stops.
pub(crate) fn run(shared: &Arc<Shared>) {
    let mut client = Client::new(Arc::clone(shared));
    while let Some(batch) = shared.batch() {
        let (delivery, events) = {
            let world = shared.look();
            let events: Vec<SentEvent> =
                batch.iter().map(|index| world.telemetry.events[*index].clone()).collect();
            (world.delivery.clone(), events)
        };
        let kept =
            |event: &&SentEvent| delivery.lost_type.as_ref().is_none_or(|lost| *lost != event.kind);
        let envelopes: Vec<Envelope<'_>> = events.iter().filter(kept).map(envelope).collect();
        if envelopes.is_empty() {
            shared.change(|world| world.telemetry.posting = false);
            continue;
        }
        for body in bodies(&envelopes, delivery.cut) {
            if !deliver(shared, &mut client, &body) {
                return;
            }
        }
        shared.change(|world| world.telemetry.posting = false);
    }
}

fn envelope(event: &SentEvent) -> Envelope<'_> {
    Envelope { index: event.number, time: &event.time, kind: &event.kind, record: &event.record }
}

/// Posts one body until it is taken; false when the simulator stops first.
fn deliver(shared: &Shared, client: &mut Client, body: &Body) -> bool {
    let mut pause = BACK_OFF.0;
    let mut again = false;
    loop {
        // Nothing moves while the sandbox is frozen, or there is no process.
        if shared.wait(None, |world| (world.alive && !world.frozen).then_some(())).is_none() {
            return false;
        }
        let (delivery, target, generation) = {
            let world = shared.look();
            let target =
                world.telemetry.subscription.as_ref().map(|taken| (taken.port, taken.path.clone()));
            (world.delivery.clone(), target, world.generation)
        };
        let Some((port, path)) = target else { return false };
        shared.change(|world| {
            body.completes.iter().for_each(|index| world.telemetry.events[*index].offered += 1)
        });
        let path = delivery.path.clone().unwrap_or(path);
        let taken = matches!(
            client.post(port, &path, &body.bytes, body.completes.len(), &delivery),
            Ok(200..=299)
        );
        if taken {
            let now = Instant::now();
            shared.change(|world| {
                for index in &body.completes {
                    let event = &mut world.telemetry.events[*index];
                    event.handed += 1;
                    event.handed_at.get_or_insert(now);
                }
            });
            if !delivery.duplicate || again {
                return true;
            }
            again = true;
            continue;
        }
        if shared.setup.leeway.poster_without_retry {
            shared.change(|world| world.telemetry.drop_batch(&body.completes));
            return true;
        }
        // A new process, or a new subscription, is tried at once.
        let until = Instant::now() + pause;
        shared.wait(Some(until), |world| (world.generation != generation).then_some(()));
        if shared.look().stopped {
            return false;
        }
        pause = (pause * 2).min(BACK_OFF.1);
    }
}

/// Keep-alive connections to one listener.
pub(crate) struct Client {
    shared: Arc<Shared>,
    connections: Vec<Option<Wire<Patient>>>,
    turn: usize,
    port: u16,
}

impl Client {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, connections: Vec::new(), turn: 0, port: 0 }
    }

    /// One POST and its status.
    pub(crate) fn post(
        &mut self,
        port: u16,
        path: &str,
        body: &[u8],
        events: usize,
        delivery: &Delivery,
    ) -> io::Result<u16> {
        let at = Instant::now();
        if port != self.port {
            self.connections.clear();
            self.port = port;
        }
        self.connections.resize_with(delivery.connections.max(1), || None);
        self.turn = (self.turn + 1) % self.connections.len();
        let kept = self.connections[self.turn].take();
        let result = self.attempt(kept, path, body, delivery);
        let took = at.elapsed();
        let outcome = result.as_ref().map(|status| *status).map_err(ToString::to_string);
        self.shared.change(|world| {
            world.posts.push(Post { at, took, bytes: body.len(), events, result: outcome })
        });
        result
    }

    fn attempt(
        &mut self,
        kept: Option<Wire<Patient>>,
        path: &str,
        body: &[u8],
        delivery: &Delivery,
    ) -> io::Result<u16> {
        // A connection that the listener has closed meanwhile is not tried.
        let mut wire = match kept.filter(|wire| !hung_up(&wire.stream.socket, Duration::ZERO)) {
            Some(wire) => wire,
            None => self.connect()?,
        };
        wire.stream.limit = self.shared.setup.post_limit;
        let framing = match delivery.chunked {
            Some(_) => "Transfer-Encoding: chunked".to_owned(),
            None => format!("Content-Length: {}", body.len()),
        };
        let expect = if delivery.expect_continue { "Expect: 100-continue\r\n" } else { "" };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: sandbox.localdomain:{}\r\nUser-Agent: Go-http-client/1.1\r\n{framing}\r\n\
             Content-Type: application/json\r\n{expect}Accept-Encoding: gzip\r\n\r\n",
            self.port
        );
        send(&mut wire, head.as_bytes(), delivery)?;
        if let Some(pause) = delivery.pause_after_head {
            std::thread::sleep(pause);
        }
        if delivery.expect_continue {
            wire.stream.limit = Duration::from_millis(100);
            match wire.response(1 << 20) {
                Ok(early) if early.status >= 200 => return Ok(early.status),
                Ok(_) => {}
                Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(error) => return Err(failed(error)),
            }
            wire.stream.limit = self.shared.setup.post_limit;
        }
        match delivery.chunked {
            None => send(&mut wire, body, delivery)?,
            Some(size) => {
                for chunk in body.chunks(size.max(1)) {
                    let framed =
                        [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
                    send(&mut wire, &framed, delivery)?;
                }
                send(&mut wire, b"0\r\n\r\n", delivery)?;
            }
        }
        let mut response = wire.response(1 << 20).map_err(failed)?;
        while response.status < 200 {
            response = wire.response(1 << 20).map_err(failed)?;
        }
        if response.keep_alive() && !delivery.close {
            self.connections[self.turn] = Some(wire);
        }
        Ok(response.status)
    }

    fn connect(&self) -> io::Result<Wire<Patient>> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let socket = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        socket.set_write_timeout(Some(Duration::from_millis(50)))?;
        let shared = Arc::clone(&self.shared);
        Ok(Wire::new(Patient { socket, shared, limit: Duration::from_secs(10) }))
    }
}

fn failed(error: ReadError) -> io::Error {
    match error {
        ReadError::Io(error) => error,
        ReadError::Closed => io::ErrorKind::UnexpectedEof.into(),
        ReadError::Malformed(text) => io::Error::other(text),
        ReadError::TooLarge => io::Error::other("answer too large"),
    }
}

fn send(wire: &mut Wire<Patient>, bytes: &[u8], delivery: &Delivery) -> io::Result<()> {
    let Some((size, pause)) = delivery.tiny_writes else { return wire.stream.write_all(bytes) };
    for piece in bytes.chunks(size.max(1)) {
        wire.stream.write_all(piece)?;
        std::thread::sleep(pause);
    }
    Ok(())
}

/// A socket whose time-out stands still while the sandbox is frozen, and which gives up when the simulator stops.
pub(crate) struct Patient {
    socket: TcpStream,
    shared: Arc<Shared>,
    limit: Duration,
}

impl Patient {
    fn retry(&self, mut attempt: impl FnMut(&TcpStream) -> io::Result<usize>) -> io::Result<usize> {
        let mut left = self.limit;
        loop {
            let begun = Instant::now();
            match attempt(&self.socket) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    let (frozen, stopped) = {
                        let world = self.shared.look();
                        (world.frozen, world.stopped)
                    };
                    if !frozen {
                        left = left.saturating_sub(begun.elapsed());
                    }
                    if stopped || left.is_zero() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                other => return other,
            }
        }
    }
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.retry(|mut socket| socket.read(buffer))
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.retry(|mut socket| socket.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
