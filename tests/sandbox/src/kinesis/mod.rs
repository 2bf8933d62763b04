//! A small Kinesis: `PutRecords` with its limits, its signature check and its errors, and every fault on demand.

mod account;
mod faults;
mod kpl;
mod put_records;
mod service;
mod shard_limit;
mod sigv4;
mod store;
mod tls;
mod unpack;

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use account::{Account, Change, Comparison, ProcessAccount, StoredEvent};
pub(crate) use account::{FLOOD_MARK, short};
pub use faults::{Fault, Which};
pub use put_records::{MAX_KEY_CHARS, MAX_RECORDS, RecordOutcome};
pub use service::Cbor;
pub(crate) use service::hung_up;
pub use sigv4::Credentials;
pub(crate) use sigv4::Verifier;
pub use store::{Answered, Counted, Put, StoredRecord};

use crate::server::Server;
use crate::wait::{Stop, lock, wait_until};
use put_records::Limits;
use service::{Service, Setup};
use shard_limit::ShardLimit;
use store::Store;
use tls::Authority;

/// How the endpoint is to be; [`Kinesis::builder`] makes one.
#[derive(Clone, Debug)]
pub struct KinesisBuilder {
    stream: String,
    account: String,
    region: String,
    shards: usize,
    limits: Limits,
    credentials: Credentials,
    check_signature: bool,
    count_only: bool,
    cbor: Cbor,
    keep_bodies: bool,
    tls: bool,
    black_hole: Option<Duration>,
    idle_close: Option<Duration>,
    round_trip: Duration,
    shard_limit: bool,
}

impl KinesisBuilder {
    /// The stream's name; `telemetry` unless set.
    #[must_use]
    pub fn stream(mut self, name: &str) -> Self {
        name.clone_into(&mut self.stream);
        self
    }

    /// Account and region; `123456789012` and `us-east-1` unless set.
    #[must_use]
    pub fn owned_by(mut self, account: &str, region: &str) -> Self {
        account.clone_into(&mut self.account);
        region.clone_into(&mut self.region);
        self
    }

    /// How many shards share the hash range; 2 unless set.
    #[must_use]
    pub fn shards(mut self, count: usize) -> Self {
        self.shards = count.max(1);
        self
    }

    /// The stream's `MaxRecordSizeInKiB` in bytes; 1 MiB unless set.
    #[must_use]
    pub fn record_bytes(mut self, limit: usize) -> Self {
        self.limits.record_bytes = limit;
        self
    }

    /// The most that a request holds, decoded data and keys; 5 MiB unless set.
    #[must_use]
    pub fn request_bytes(mut self, limit: usize) -> Self {
        self.limits.request_bytes = limit;
        self
    }

    /// The keys that requests must be signed with.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Takes unsigned requests too.
    #[must_use]
    pub fn unsigned(mut self) -> Self {
        self.check_signature = false;
        self
    }

    /// For benches: counts and forgets, and checks nothing; see [`Kinesis::counted`]. Faults of whole requests apply, those
    /// of records do not.
    #[must_use]
    pub fn count_only(mut self) -> Self {
        self.count_only = true;
        self
    }

    /// What becomes of requests in CBOR; [`Cbor::Speaks`] unless set.
    #[must_use]
    pub fn cbor(mut self, cbor: Cbor) -> Self {
        self.cbor = cbor;
        self
    }

    /// Each [`Put`] has its body and its records, stored or not.
    #[must_use]
    pub fn keep_bodies(mut self) -> Self {
        self.keep_bodies = true;
        self
    }

    /// Listens with TLS, under a certificate authority of its own; see [`Kinesis::ca_bundle`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// A connection that was idle for so long is dead: what comes on it then is neither stored nor answered, and there is no RST.
    #[must_use]
    pub fn black_hole_old_connections(mut self, idle: Duration) -> Self {
        self.black_hole = Some(idle);
        self
    }

    /// A connection that was idle for so long is closed.
    #[must_use]
    pub fn idle_close(mut self, idle: Duration) -> Self {
        self.idle_close = Some(idle);
        self
    }

    /// How far away it is: what opens a connection, each half of a handshake and each request arrive so much later.
    #[must_use]
    pub fn round_trip(mut self, time: Duration) -> Self {
        self.round_trip = time;
        self
    }

    /// Each shard takes 1 MiB and 1000 records a second; what comes beyond that is throttled, record by record.
    #[must_use]
    pub fn shard_limit(mut self) -> Self {
        self.shard_limit = true;
        self
    }

    /// Starts listening on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When the machine has no port, no thread or no temporary directory left.
    #[must_use]
    pub fn start(self) -> Kinesis {
        let authority = self
            .tls
            .then(|| Authority::create(&self.region).expect("a certificate authority is made"));
        let setup = Setup {
            arn: format!("arn:aws:kinesis:{}:{}:stream/{}", self.region, self.account, self.stream),
            stream: self.stream,
            account: self.account,
            region: self.region,
            shards: self.shards,
            limits: self.limits,
            credentials: self.credentials,
            check_signature: self.check_signature,
            count_only: self.count_only,
            cbor: self.cbor,
            keep_bodies: self.keep_bodies,
            black_hole: self.black_hole,
            idle_close: self.idle_close,
            round_trip: self.round_trip,
            tls: authority.as_ref().map(|authority| Arc::clone(&authority.server)),
        };
        let service = Arc::new(Service {
            setup,
            faults: Default::default(),
            store: Mutex::new(Store::new(self.shard_limit.then(ShardLimit::default))),
            rotated: Default::default(),
            clock_ms: AtomicI64::new(0),
            stop: Stop::default(),
            in_flight: Default::default(),
            handshakes: AtomicU64::new(0),
        });
        let server = Server::start(Arc::clone(&service) as _).expect("a port of 127.0.0.1 is free");
        Kinesis { server, service, authority }
    }
}

/// A running endpoint; ends with this value.
pub struct Kinesis {
    // Dropped first: its threads use the rest.
    server: Server,
    service: Arc<Service>,
    authority: Option<Authority>,
}

impl Kinesis {
    /// An endpoint with Kinesis' defaults: one stream of two shards, 1 MiB records, 5 MiB requests, signatures checked.
    #[must_use]
    pub fn builder() -> KinesisBuilder {
        KinesisBuilder {
            stream: "telemetry".to_owned(),
            account: "123456789012".to_owned(),
            region: "us-east-1".to_owned(),
            shards: 2,
            limits: Limits { request_bytes: 5 * 1_048_576, record_bytes: 1_048_576 },
            credentials: Credentials::default(),
            check_signature: true,
            count_only: false,
            cbor: Cbor::Speaks,
            keep_bodies: false,
            tls: false,
            black_hole: None,
            idle_close: None,
            round_trip: Duration::ZERO,
            shard_limit: false,
        }
    }

    /// [`Kinesis::builder`], started as it is.
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// For `AWS_ENDPOINT_URL_KINESIS`.
    #[must_use]
    pub fn url(&self) -> String {
        let port = self.port();
        if self.authority.is_some() {
            format!("https://localhost:{port}")
        } else {
            format!("http://127.0.0.1:{port}")
        }
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.address().port()
    }

    /// The authority's PEM file, for `AWS_CA_BUNDLE`; `None` without TLS.
    #[must_use]
    pub fn ca_bundle(&self) -> Option<PathBuf> {
        self.authority.as_ref().map(Authority::bundle)
    }

    /// The stream's name.
    #[must_use]
    pub fn stream_name(&self) -> &str {
        &self.service.setup.stream
    }

    /// The stream's ARN.
    #[must_use]
    pub fn stream_arn(&self) -> &str {
        &self.service.setup.arn
    }

    /// The region that signatures must be scoped to.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.service.setup.region
    }

    /// The keys that requests must be signed with.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.service.setup.credentials
    }

    /// From now on only these keys are taken; those of before have expired.
    pub fn rotate(&self, credentials: &Credentials) {
        *lock(&self.service.rotated) = Some(credentials.clone());
    }

    /// From now on this goes wrong.
    pub fn fault(&self, fault: Fault) {
        lock(&self.service.faults).set(fault, std::time::Instant::now());
    }

    /// From now on nothing goes wrong that has not begun to.
    pub fn clear_faults(&self) {
        lock(&self.service.faults).clear();
    }

    /// Connections are refused from now on, and those that are open are reset.
    pub fn refuse_connections(&self) {
        self.server.stop_listening();
        self.server.reset(|_| true);
    }

    /// Undoes [`Kinesis::refuse_connections`], on the same port.
    ///
    /// # Panics
    /// When the port cannot be listened on again.
    pub fn accept_connections(&self) {
        self.server.listen().expect("the port was held for this");
    }

    /// Resets every connection on which no request is under way, as a front end does whose client was frozen for
    /// long. Says how many.
    pub fn reset_idle_connections(&self) -> usize {
        let busy: Vec<u64> = lock(&self.service.in_flight).keys().copied().collect();
        self.server.reset(|id| !busy.contains(&id))
    }

    /// Moves the endpoint's clock: what it checks signatures against and puts into `Date`.
    pub fn move_clock(&self, seconds: i64) {
        self.service.clock_ms.store(seconds * 1000, Ordering::Relaxed);
    }

    /// Requests that have begun, whose answer is not out, and whose client still waits.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.probe()()
    }

    /// [`Kinesis::in_flight`] for another thread.
    pub(crate) fn probe(&self) -> Arc<dyn Fn() -> usize + Send + Sync> {
        let service = Arc::clone(&self.service);
        Arc::new(move || {
            let sockets: Vec<_> = lock(&service.in_flight).values().cloned().collect();
            sockets.iter().filter(|socket| !hung_up(socket, Duration::ZERO)).count()
        })
    }

    /// How many TLS handshakes are over, for another thread.
    #[must_use]
    pub fn handshakes(&self) -> Arc<dyn Fn() -> u64 + Send + Sync> {
        let service = Arc::clone(&self.service);
        Arc::new(move || service.handshakes.load(Ordering::SeqCst))
    }

    /// Every request so far, in the order in which they were settled.
    #[must_use]
    pub fn puts(&self) -> Vec<Put> {
        lock(&self.service.store).puts.clone()
    }

    /// Every record on the stream, in the order of arrival.
    #[must_use]
    pub fn records(&self) -> Vec<StoredRecord> {
        lock(&self.service.store).records.clone()
    }

    /// Sees every record that is stored from now on.
    #[must_use]
    pub fn watch(&self) -> Receiver<StoredRecord> {
        lock(&self.service.store).watch()
    }

    /// What a [`KinesisBuilder::count_only`] endpoint has seen.
    #[must_use]
    pub fn counted(&self) -> Counted {
        lock(&self.service.store).counted
    }

    /// Every event on the stream, unpacked.
    #[must_use]
    pub fn account(&self) -> Account {
        Account::of(&self.records())
    }

    /// Forgets requests and records; faults stay.
    pub fn forget(&self) {
        let mut store = lock(&self.service.store);
        store.puts.clear();
        store.records.clear();
        store.counted = Counted::default();
    }

    /// Waits until the stream's events satisfy `enough`, and returns them.
    ///
    /// # Panics
    /// When they do not within `limit`.
    #[track_caller]
    pub fn wait_for(
        &self,
        limit: Duration,
        what: &str,
        mut enough: impl FnMut(&Account) -> bool,
    ) -> Account {
        let mut account = self.account();
        let mut seen = self.records().len();
        let mut met = enough(&account);
        wait_until(limit, what, || {
            let now = lock(&self.service.store).records.len();
            if !met && now != seen {
                seen = now;
                account = self.account();
                met = enough(&account);
            }
            met
        });
        account
    }
}

impl Drop for Kinesis {
    fn drop(&mut self) {
        self.service.stop.set();
    }
}
