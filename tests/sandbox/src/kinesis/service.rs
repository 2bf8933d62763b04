//! The Kinesis endpoint's connections: reads each request, settles its fate, stores, and answers, or does not.
//!
//! One thread per connection. What is wanted of it is in [`super::faults`] and [`super::put_records`].

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::faults::{Faults, Plan};
use super::put_records::{self, Limits, Record, Stream};
use super::sigv4::{Credentials, Verifier};
use super::store::{Answered, Put, Store};
use crate::clock::shifted;
use crate::http::{ReadError, Request, Wire, answer};
use crate::server::{Serve, reset};
use crate::wait::{Stop, lock};

/// As much body as any front end has been seen to take.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
const CBOR: &str = "application/x-amz-cbor-1.1";

/// What the endpoint does with requests in CBOR; nothing is stored but where it is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cbor {
    /// Stores and answers them like those in JSON.
    Speaks,
    /// 415 without a body.
    Unsupported,
    /// 404 with `<UnknownOperationException/>`, as for any type of content that it does not know.
    UnknownOperation,
    /// 400, `SerializationException`: reads them as JSON.
    Serialization,
    /// 500, `InternalFailure`: fails over them.
    Fails,
    /// Stores them, and answers in JSON.
    AnswersInJson,
    /// Stores them, and answers 200 without a body.
    AnswersNothing,
}

/// How the endpoint is set up; fixed when it starts.
pub(crate) struct Setup {
    pub(crate) stream: String,
    pub(crate) arn: String,
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) shards: usize,
    pub(crate) limits: Limits,
    pub(crate) credentials: Credentials,
    pub(crate) check_signature: bool,
    pub(crate) count_only: bool,
    pub(crate) cbor: Cbor,
    pub(crate) keep_bodies: bool,
    /// After so long an idle connection is dead.
    pub(crate) black_hole: Option<Duration>,
    /// After so long an idle connection is closed.
    pub(crate) idle_close: Option<Duration>,
    pub(crate) round_trip: Duration,
    pub(crate) tls: Option<Arc<ServerConfig>>,
}

/// What the connections share with each other and with [`super::Kinesis`].
pub(crate) struct Service {
    pub(crate) setup: Setup,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) store: Mutex<Store>,
    /// The keys that are taken instead of those of the setup.
    pub(crate) rotated: Mutex<Option<Credentials>>,
    pub(crate) clock_ms: AtomicI64,
    pub(crate) stop: Stop,
    /// Connections on which a request has begun and whose answer is not out yet.
    pub(crate) in_flight: Mutex<HashMap<u64, Arc<TcpStream>>>,
    pub(crate) handshakes: AtomicU64,
}

impl Serve for Service {
    fn serve(&self, connection: u64, stream: TcpStream) {
        let Ok(socket) = stream.try_clone().map(Arc::new) else { return };
        let mut stream = Far { stream, round_trip: self.setup.round_trip, turned: true };
        std::thread::sleep(stream.round_trip);
        let stream = match &self.setup.tls {
            None => Socket::Plain(stream),
            Some(config) => {
                let Ok(mut session) = ServerConnection::new(Arc::clone(config)) else { return };
                if session.complete_io(&mut stream).is_err() {
                    return;
                }
                self.handshakes.fetch_add(1, Ordering::SeqCst);
                // The first request travels with the client's end of the handshake.
                stream.turned = false;
                Socket::Tls(Box::new(StreamOwned::new(session, stream)))
            }
        };
        let mut wire = Wire::new(stream);
        let mut here = Connection { id: connection, socket, service: self };
        while !self.stop.is_set() && here.exchange(&mut wire) {}
        lock(&self.in_flight).remove(&connection);
    }
}

/// The connection, encrypted or not.
enum Socket {
    Plain(Far),
    Tls(Box<StreamOwned<ServerConnection, Far>>),
}

/// A socket whose other end is some way off: what comes after something was written comes later.
struct Far {
    stream: TcpStream,
    round_trip: Duration,
    turned: bool,
}

impl Read for Far {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        if std::mem::take(&mut self.turned) && count > 0 {
            std::thread::sleep(self.round_trip);
        }
        Ok(count)
    }
}

impl Write for Far {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.turned = true;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

struct Connection<'a> {
    id: u64,
    socket: Arc<TcpStream>,
    service: &'a Service,
}

/// An answer that is decided on.
struct Reply {
    status: u16,
    content_type: &'static str,
    code: Option<String>,
    body: Vec<u8>,
}

impl Connection<'_> {
    /// One request and its answer; whether the connection goes on.
    fn exchange(&mut self, wire: &mut Wire<Socket>) -> bool {
        let setup = &self.service.setup;
        let begun = || {
            let _ = self.socket.set_read_timeout(None);
            lock(&self.service.in_flight).insert(self.id, Arc::clone(&self.socket));
        };
        let _ = self.socket.set_read_timeout(setup.idle_close);
        let idle_since = Instant::now();
        match wire.request(BODY_LIMIT, begun) {
            Ok(request)
                if setup.black_hole.is_some_and(|idle| {
                    request.started.saturating_duration_since(idle_since) >= idle
                }) =>
            {
                let mut put = Put::of(&request, self.id, setup.tls.is_some(), &[]);
                put.answered = Answered::Never;
                lock(&self.service.store).log(put);
                self.hang()
            }
            Ok(request) => self.handle(wire, &request),
            Err(ReadError::TooLarge) => {
                let _ = self.send(wire, &answer(413, &[], b""), &Plan::default());
                false
            }
            Err(_) => false,
        }
    }

    fn handle(&self, wire: &mut Wire<Socket>, request: &Request) -> bool {
        let service = self.service;
        let parsed = if service.setup.count_only { Ok(Vec::new()) } else { service.parse(request) };
        let records: &[Record] = parsed.as_deref().unwrap_or_default();
        let plan = lock(&service.faults).plan(Instant::now(), |bytes| {
            records.iter().any(|record| contains(&record.data, bytes))
        });
        let mut put = Put::of(request, self.id, service.setup.tls.is_some(), records);
        if service.setup.keep_bodies {
            put.keep(request, records);
        }
        if service.stop.sleep(plan.delay) {
            return false;
        }
        if plan.reset_before {
            put.answered = Answered::Reset;
            lock(&service.store).log(put);
            reset(&self.socket);
            return false;
        }
        if plan.hang == Some(false) {
            put.answered = Answered::Never;
            lock(&service.store).log(put);
            return self.hang();
        }
        let mut reply = service.decide(request, &parsed, &plan, &mut put);
        if is_cbor(request) && reply.content_type == CONTENT_TYPE {
            service.setup.cbor.rewrite(&mut reply);
        }
        self.deliver(wire, &plan, put, &reply)
    }

    fn deliver(&self, wire: &mut Wire<Socket>, plan: &Plan, mut put: Put, reply: &Reply) -> bool {
        let stored = reply.status == 200;
        put.answered = match plan {
            _ if plan.hang.is_some() => Answered::Never,
            _ if plan.cut => Answered::Cut,
            _ if plan.partial.is_some() => Answered::Partial,
            _ if plan.replace.is_some() || plan.lengthen != 0 => Answered::Garbled,
            _ => Answered::Whole,
        };
        put.status = Some(reply.status);
        put.error.clone_from(&reply.code);
        lock(&self.service.store).log(put);
        if plan.hang.is_some() {
            return self.hang();
        }
        if plan.cut && stored {
            return self.close();
        }
        let bytes = self.service.encode(reply);
        if let Some(few) = plan.partial {
            let _ = self.send(wire, &bytes[..few.min(bytes.len())], plan);
            return self.close();
        }
        let whole = self.send(wire, &bytes, plan) && !plan.close;
        whole && (!plan.twice || wire.stream.write_all(&bytes).is_ok())
    }

    fn close(&self) -> bool {
        let _ = self.socket.shutdown(Shutdown::Both);
        false
    }

    /// Writes the answer; the request stops being in flight before its last byte is out, so never after the client knows.
    fn send(&self, wire: &mut Wire<Socket>, bytes: &[u8], plan: &Plan) -> bool {
        let (last, pause) = plan.dribble.unwrap_or((bytes.len().max(1), Duration::ZERO));
        let mut pieces = bytes.chunks(last).peekable();
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() {
                lock(&self.service.in_flight).remove(&self.id);
            }
            if wire.stream.write_all(piece).and_then(|()| wire.stream.flush()).is_err() {
                return false;
            }
            if pieces.peek().is_some() && self.service.stop.sleep(pause) {
                return false;
            }
        }
        true
    }

    /// Does nothing until the client hangs up.
    fn hang(&self) -> bool {
        while !hung_up(&self.socket, Duration::from_millis(20)) && !self.service.stop.is_set() {}
        false
    }
}

impl Service {
    fn now(&self) -> SystemTime {
        shifted(SystemTime::now(), self.clock_ms.load(Ordering::Relaxed))
    }

    fn parse(&self, request: &Request) -> Result<Vec<Record>, (&'static str, String)> {
        let setup = &self.setup;
        let stream = Stream {
            name: &setup.stream,
            arn: &setup.arn,
            account: &setup.account,
            shards: setup.shards,
        };
        put_records::parse(&request.body, is_cbor(request), &stream, &setup.limits)
    }

    fn decide(
        &self,
        request: &Request,
        parsed: &Result<Vec<Record>, (&'static str, String)>,
        plan: &Plan,
        put: &mut Put,
    ) -> Reply {
        if let Some(refuse) = &plan.refuse {
            let (status, content_type) = (refuse.status, refuse.content_type);
            return Reply {
                status,
                content_type,
                code: refuse.code.clone(),
                body: refuse.body.clone(),
            };
        }
        if self.setup.count_only {
            let body = lock(&self.store).count(&request.body);
            return Reply { status: 200, content_type: CONTENT_TYPE, code: None, body };
        }
        if request.method != "POST"
            || request.target != "/"
            || !(request.header("content-type") == Some(CONTENT_TYPE)
                || is_cbor(request) && self.setup.cbor != Cbor::UnknownOperation)
        {
            let body = b"<UnknownOperationException/>\n".to_vec();
            let code = Some("UnknownOperationException".to_owned());
            return Reply { status: 404, content_type: "application/xml", code, body };
        }
        if request.header("x-amz-target") != Some("Kinesis_20131202.PutRecords") {
            return refused("UnknownOperationException", "");
        }
        if self.setup.check_signature {
            let setup = &self.setup;
            let rotated = lock(&self.rotated).clone();
            let (credentials, region) =
                (rotated.as_ref().unwrap_or(&setup.credentials), setup.region.as_str());
            let verifier = Verifier { credentials, region, service: "kinesis", now: self.now() };
            let former = request
                .header("authorization")
                .is_some_and(|header| header.contains(&setup.credentials.access_key_id));
            if rotated
                .as_ref()
                .is_some_and(|keys| keys.access_key_id != setup.credentials.access_key_id)
                && former
            {
                return refused(
                    "ExpiredTokenException",
                    "The security token included in the request is expired",
                );
            }
            if let Err(refusal) = verifier.check(request) {
                return refused(refusal.code, &refusal.message);
            }
        }
        if let Some(reply) = self.setup.cbor.refusal().filter(|_| is_cbor(request)) {
            return reply;
        }
        let records = match parsed {
            Ok(records) => records,
            Err((code, message)) => return refused(code, message),
        };
        let body = lock(&self.store).put(records, plan, put);
        Reply { status: 200, content_type: CONTENT_TYPE, code: None, body }
    }

    fn encode(&self, reply: &Reply) -> Vec<u8> {
        let date = httpdate::fmt_http_date(self.now());
        let id = uuid::Uuid::new_v4().to_string();
        let second = uuid::Uuid::new_v4().simple().to_string();
        let headers = [
            ("x-amzn-RequestId", id.as_str()),
            ("x-amz-id-2", second.as_str()),
            ("Date", date.as_str()),
            ("Content-Type", reply.content_type),
        ];
        answer(reply.status, &headers, &reply.body)
    }
}

impl Cbor {
    fn refusal(self) -> Option<Reply> {
        let code = match self {
            Self::Unsupported => {
                let (content_type, body) = ("text/plain", Vec::new());
                return Some(Reply { status: 415, content_type, code: None, body });
            }
            Self::Serialization => "SerializationException",
            Self::Fails => "InternalFailure",
            _ => return None,
        };
        let status = if self == Self::Fails { 500 } else { 400 };
        // In JSON: it does not know better.
        Some(Reply { status, content_type: "application/json", ..refused(code, "") })
    }

    /// An answer to a request in CBOR, as this endpoint gives it.
    fn rewrite(self, reply: &mut Reply) {
        if self == Self::AnswersNothing && reply.status == 200 {
            reply.body.clear();
        }
        let json = serde_json::from_slice::<serde_json::Value>(&reply.body);
        if let (Self::Speaks, Ok(json)) = (self, json) {
            reply.content_type = CBOR;
            reply.body.clear();
            ciborium::into_writer(&json, &mut reply.body).expect("memory can be written to");
        }
    }
}

fn is_cbor(request: &Request) -> bool {
    request.header("content-type") == Some(CBOR)
}

fn refused(code: &str, message: &str) -> Reply {
    let body = serde_json::json!({ "__type": code, "message": message }).to_string().into_bytes();
    Reply { status: 400, content_type: CONTENT_TYPE, code: Some(code.to_owned()), body }
}

fn contains(data: &[u8], bytes: &[u8]) -> bool {
    memchr::memmem::find(data, bytes).is_some()
}

/// Whether the peer has closed or reset its side, waiting for that up to `limit`. Unread data does not hide it.
pub(crate) fn hung_up(stream: &TcpStream, limit: Duration) -> bool {
    let look = || {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(stream, EpollEvent::new(EpollFlags::EPOLLRDHUP, 0))?;
        let mut events = [EpollEvent::empty()];
        epoll.wait(&mut events, u16::try_from(limit.as_millis()).unwrap_or(u16::MAX))
    };
    look().is_ok_and(|count| count > 0)
}
