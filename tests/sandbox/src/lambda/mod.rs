//! A small Lambda: runs the extension's process as Lambda does, and plays the Extensions API, the Telemetry API and a
//! function.

mod api;
mod bodies;
mod buffer;
mod delivery;
mod drive;
mod events;
mod flood;
mod invocation;
mod output;
mod process;
mod registry;
mod setup;
mod subscription;
mod types;
mod world;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub use bodies::{Cut, CutForm};
pub use flood::{FloodReport, FloodShape};
pub use invocation::Invocation;
pub use process::Stats;
pub use setup::{LambdaBuilder, SETTING_PREFIX};
pub use subscription::Subscription;
pub use types::{
    ApiCall, Delivery, Exit, Expected, Failure, InitReport, InvokeReport, LambdaError, NextCall,
    OutputLine, Post, SentEvent, ShutdownReport,
};

use crate::server::{Port, Server};
use crate::wait::lock;
use api::Api;
use delivery::Client;
use drive::{Driver, expected};
use setup::Setup;
use world::Shared;

/// A sandbox. Dropping it kills the extension, whatever state it is in, and ends every thread.
pub struct Lambda {
    shared: Arc<Shared>,
    driver: Mutex<Driver>,
    /// One invocation at a time.
    turn: Mutex<()>,
    server: Option<Server>,
    delivery: Option<JoinHandle<()>>,
    directory: TempDir,
    listener: Port,
}

impl Lambda {
    /// A sandbox around that binary, with Lambda's defaults and the minimal environment that it gives an extension.
    #[must_use]
    pub fn builder(binary: impl AsRef<Path>) -> LambdaBuilder {
        LambdaBuilder::new(binary.as_ref())
    }

    fn from_setup(setup: Setup) -> Self {
        let shared = Shared::new(setup);
        let server =
            Server::start(Arc::new(Api(Arc::clone(&shared)))).expect("a port of 127.0.0.1 is free");
        let directory = TempDir::new().expect("a temporary directory can be made");
        std::fs::create_dir(directory.path().join("tmp")).expect("a fresh directory is empty");
        let telemetry = Arc::clone(&shared);
        let delivery = std::thread::Builder::new()
            .name("sandbox-delivery".to_owned())
            .spawn(move || delivery::run(&telemetry))
            .expect("a thread can be started");
        Self {
            shared,
            driver: Mutex::new(Driver::new()),
            turn: Mutex::new(()),
            server: Some(server),
            delivery: Some(delivery),
            directory,
            listener: Port::reserve().expect("a port of 127.0.0.1 is free"),
        }
    }

    /// Variables that depend on what the machine had free; what the caller set wins.
    fn extra_environment(&self) -> Vec<(String, String)> {
        let api =
            self.server.as_ref().map(|server| server.address().to_string()).unwrap_or_default();
        let port = format!("{SETTING_PREFIX}PORT");
        let known = |name: &str| self.shared.setup.environment.iter().any(|(key, _)| key == name);
        let tmp = self
            .shared
            .setup
            .tmp_variable
            .clone()
            .map(|name| (name, self.tmp().to_string_lossy().into_owned()));
        let all =
            [("AWS_LAMBDA_RUNTIME_API".to_owned(), api), (port, self.listener.number.to_string())]
                .into_iter()
                .chain(tmp);
        all.filter(|(name, _)| !known(name)).collect()
    }

    /// Ends the sandbox: SHUTDOWN with this reason, SIGKILL at the deadline.
    ///
    /// Without a process (before init, or after a reset) there is nothing to end, and the answer says exit code 0.
    pub fn shutdown(&self, reason: &str) -> ShutdownReport {
        let _turn = lock(&self.turn);
        let running = {
            let mut driver = lock(&self.driver);
            driver.ended = true;
            driver.process.is_some()
        };
        if !running {
            let exit = Exit { at: Instant::now(), code: Some(0), signal: None };
            return ShutdownReport {
                exit,
                took: Duration::ZERO,
                deadline_met: true,
                stats: Stats::default(),
            };
        }
        if self.shared.setup.identity.managed {
            // There, what is buffered goes out before the extensions are told.
            self.shared.change(|world| world.telemetry.flush());
            let until = Instant::now() + Duration::from_secs(1);
            self.shared.wait(Some(until), |world| {
                (world.telemetry.idle() || world.exit.is_some()).then_some(())
            });
        }
        self.end_process(reason, Vec::new())
    }

    /// Ends the extension's process as a reset does: SHUTDOWN with this reason, SIGKILL at the deadline. [`Lambda::init`], or the next
    /// invocation, starts another one in the same sandbox.
    pub fn reset(&self, reason: &str) -> ShutdownReport {
        let _turn = lock(&self.turn);
        self.end_process(reason, Vec::new())
    }

    /// Kills the extension at once, as the kernel does when memory runs out. The next invocation starts another.
    pub fn kill(&self) {
        if let Some(process) = &lock(&self.driver).process {
            process.kill();
        }
    }

    /// Waits until all telemetry generated so far has been handed over, or the limit is over; says which.
    pub fn drain(&self, limit: Duration) -> bool {
        self.shared
            .wait(Some(Instant::now() + limit), |world| world.telemetry.idle().then_some(()))
            .is_some()
    }

    /// Every event generated for the subscriber so far. Those with `handed > 0` are the extension's to deliver.
    #[must_use]
    pub fn sent(&self) -> Vec<SentEvent> {
        self.shared.look().telemetry.events.clone()
    }

    /// Events that were dropped because the subscriber was too slow.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.shared.look().telemetry.dropped
    }

    /// The subscription that is in force.
    #[must_use]
    pub fn subscription(&self) -> Option<Subscription> {
        self.shared.look().telemetry.subscription.clone()
    }

    /// Every call of the APIs so far, of all processes.
    #[must_use]
    pub fn calls(&self) -> Vec<ApiCall> {
        self.shared.look().calls.clone()
    }

    /// Every call of `next` so far that was taken, of all processes.
    #[must_use]
    pub fn nexts(&self) -> Vec<NextCall> {
        self.shared.look().nexts.clone()
    }

    /// Every POST to the listener so far.
    #[must_use]
    pub fn posts(&self) -> Vec<Post> {
        self.shared.look().posts.clone()
    }

    /// Every line that the extension has printed, on both streams.
    #[must_use]
    pub fn output(&self) -> Vec<OutputLine> {
        if let Some(process) = &lock(&self.driver).process {
            process.settle_output();
        }
        self.shared.look().output.clone()
    }

    /// Every line that the extension has printed to stderr.
    #[must_use]
    pub fn stderr(&self) -> Vec<String> {
        self.output().into_iter().filter(|line| line.stderr).map(|line| line.text).collect()
    }

    /// Every line that the extension has printed to stdout.
    #[must_use]
    pub fn stdout(&self) -> Vec<String> {
        self.output().into_iter().filter(|line| !line.stderr).map(|line| line.text).collect()
    }

    /// Memory, threads and CPU of the extension now; zeros without a process.
    #[must_use]
    pub fn stats(&self) -> Stats {
        lock(&self.driver).process.as_ref().map(process::Process::stats).unwrap_or_default()
    }

    /// The extension's process, while there is one.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        lock(&self.driver).process.as_ref().map(process::Process::id)
    }

    /// How the extension's process ended, when it has and nothing was started since.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.shared.look().exit
    }

    /// Whether the sandbox is frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.shared.look().frozen
    }

    /// The port that `KINESIS_TELEMETRY_PORT` is set to, unless the test set it.
    #[must_use]
    pub fn listener_port(&self) -> u16 {
        self.listener.number
    }

    /// The sandbox's own directory: working directory of the extension, kept over resets.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The sandbox's own /tmp, for [`LambdaBuilder::tmp_in`]; kept over resets.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.directory.path().join("tmp")
    }

    /// Changes how batches are posted from now on.
    pub fn deliver(&self, change: impl FnOnce(&mut Delivery)) {
        self.shared.change(|world| change(&mut world.delivery));
    }

    /// Generates an event of any type now; its record is exactly these bytes.
    pub fn emit(&self, kind: &str, record: impl Into<Vec<u8>>) {
        let record = record.into();
        let running = self.shared.look().current.clone();
        let expected = expected(kind, &record, running.as_deref());
        self.shared.emit(kind, record, expected);
    }

    /// Posts these bytes to the subscribed destination on a connection of their own, and returns the status. They are
    /// in no account, unless told by [`Lambda::expect`].
    ///
    /// # Errors
    /// When there is no subscription or no answer.
    pub fn post_raw(&self, body: &[u8]) -> io::Result<u16> {
        let path = self.subscription().map(|taken| taken.path);
        self.post_to(&path.ok_or_else(|| io::Error::other("not subscribed"))?, body)
    }

    /// Puts an event into the account that a test posts raw: it is the extension's to deliver, as if Lambda had posted it.
    pub fn expect(&self, time: &str, kind: &str, record: impl Into<Vec<u8>>, request_id: Expected) {
        let event = SentEvent::new(kind.to_owned(), record.into(), request_id, time.to_owned());
        let event = SentEvent { offered: 1, handed: 1, handed_at: Some(Instant::now()), ..event };
        self.shared.change(|world| world.telemetry.note(event));
    }

    /// As [`Lambda::post_raw`], to any path.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn post_to(&self, path: &str, body: &[u8]) -> io::Result<u16> {
        let port = self.subscription().map_or(self.listener.number, |taken| taken.port);
        let delivery = self.shared.look().delivery.clone();
        Client::new(Arc::clone(&self.shared)).post(port, path, body, 0, &delivery)
    }
}

impl Drop for Lambda {
    fn drop(&mut self) {
        self.shared.change(|world| world.stopped = true);
        if let Some(mut process) = lock(&self.driver).process.take() {
            process.reap();
        }
        drop(self.server.take());
        if let Some(delivery) = self.delivery.take() {
            let _ = delivery.join();
        }
    }
}
