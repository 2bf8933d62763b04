//! The extension at work: the three rooms wired together, and what `main` asks of them. Runs on the main thread.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::clock::{EpochMs, epoch_ms};
use crate::config::{Config, Types};
use crate::deadline::Deadline;
use crate::dispatch::dispatcher::Dispatcher;
use crate::dispatch::pack::{Packer, REQUEST_BYTES};
use crate::dispatch::queue::{Bounds, Command, Queue, Rest};
use crate::dispatch::sender::Sender;
use crate::dispatch::spool::Spool;
use crate::lambda::api::{Api, Function, Invoke, Registered, Subscription};
use crate::lambda::listener::Listener;
use crate::ledger::Ledger;
use crate::log;
use crate::panic;
use crate::sandbox::Sandbox;

/// Less than the 25 ms that Lambda holds the first batch back.
const HEAD_START: Duration = Duration::from_millis(2);
/// How long SHUTDOWN waits for the last report.
const LAST_REPORT: Duration = Duration::from_millis(300);
/// How long an answer of the dispatcher may come after its own deadline before `main` goes on without it.
const GRACE: Duration = Duration::from_millis(50);

/// Why telemetry will not come. One clause, for a person.
#[derive(Debug)]
pub struct StartError {
    not_here: bool,
    why: String,
}

/// The kind of a start in a place without a Telemetry API, which is no fault.
pub const NOT_HERE: &str = "Extension.NotHere";

impl StartError {
    /// As `init/error` wants it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        if self.not_here { NOT_HERE } else { "Extension.StartFailed" }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for StartError {}

fn start_error(why: String) -> StartError {
    StartError { not_here: false, why }
}

/// The wired rooms. See the module's page.
#[derive(Debug)]
pub struct Extension {
    queue: Arc<Queue>,
    listener: Arc<Listener>,
    sandbox: Arc<Sandbox>,
}

impl Extension {
    /// Binds the listener, subscribes, and starts the threads. Calls nothing but Lambda.
    ///
    /// # Errors
    /// If the port is taken, Lambda refuses the subscription, or there is no Telemetry API here.
    pub fn start(config: &Config, api: &Api, registered: &Registered) -> Result<Extension, StartError> {
        let ledger = Arc::new(Ledger::default());
        let sandbox = Arc::new(Sandbox::default());
        sandbox.learn(|facts| {
            let Function { account_id, function_name, function_version } = &registered.function;
            let known = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
            facts.account_id = known(account_id);
            facts.function_name = known(function_name);
            facts.function_version = known(function_version);
            facts.region = Some(config.endpoint.region().to_owned());
            facts.tags.clone_from(&config.tags);
        });
        let bounds = Bounds { bytes: config.queue_bytes, request: REQUEST_BYTES.min(config.queue_bytes / 4) };
        let folder = config.spool_folder.clone();
        let spool = Arc::new(Spool::new(folder, config.spool_bytes, config.stream.clone(), sandbox.id(), Arc::clone(&ledger)));
        let packer = || Packer::new(config, Arc::clone(&sandbox), Arc::clone(&ledger));
        let queue = Arc::new(Queue::new(bounds, packer(), Arc::clone(&spool), Arc::clone(&ledger)));
        let continuous = !registered.invokes;
        let parts = (Arc::clone(&queue), Arc::clone(&sandbox), Arc::clone(&ledger));
        let listener = Arc::new(Listener::new(config.port, config.filter.clone(), continuous, parts.0, parts.1, parts.2));

        let socket = Listener::bind(config.port)
            .map_err(|error| start_error(format!("KINESIS_TELEMETRY_PORT={}: cannot listen there: {error}", config.port)))?;
        let subscription = api.subscribe(&registered.id, &listener.uri(), &subscribed(config.types), config.buffering);
        match subscription.map_err(|error| start_error(error.to_string()))? {
            Subscription::Active => {}
            Subscription::NotHere(status) => {
                let why = format!("there is no Telemetry API here (HTTP {status}), as in local emulators");
                return Err(StartError { not_here: true, why });
            }
        }
        let sender = Sender::new(config, Arc::clone(&sandbox), packer(), spool, Arc::clone(&queue), Arc::clone(&ledger));
        let dispatcher = Dispatcher::new(config, continuous, sender, Arc::clone(&queue), ledger);
        let thread = thread::Builder::new().name(panic::DISPATCHER.to_owned());
        let serving = Arc::clone(&listener);
        let work = move || {
            // `main` is to be in `/next` before any other thread takes the CPU; connections wait in the kernel so long.
            thread::sleep(HEAD_START);
            if let Err(error) = serving.start(socket) {
                log::error!("listener", "the telemetry listener cannot start: {error}");
            }
            dispatcher.run();
        };
        thread.spawn(work).map_err(|error| start_error(format!("cannot start the dispatcher: {error}")))?;
        Ok(Extension { queue, listener, sandbox })
    }

    /// An invocation has begun. Comes back when `/next` may be called.
    pub fn invoked(&self, invoke: Invoke) {
        self.sandbox.invoked(&invoke.request_id, &invoke.invoked_function_arn);
        let (now, wall) = (Instant::now(), epoch_ms(SystemTime::now()));
        let (deadline, plausible) = Deadline::of_invocation(invoke.deadline_ms, now, wall);
        if !plausible {
            log::warn!("invoke-deadline", "by this clock Lambda's deadline of an invocation cannot be right; {:?} are assumed", deadline.left(now));
        }
        self.listener.invoked();
        panic::switch("main");
        // After a panic anywhere no invocation is held any more: what it waits for may never come.
        self.ask(deadline.at() + GRACE, panic::happened, |rest| Command::Invoked { request_id: invoke.request_id, deadline, rest });
        if deadline.left(Instant::now()).is_zero() {
            self.listener.waited_in_vain();
        }
    }

    /// The sandbox ends. Comes back when all is sent, or at the deadline.
    pub fn stop(&self, deadline_ms: EpochMs, reason: String) {
        let (now, wall) = (Instant::now(), epoch_ms(SystemTime::now()));
        let (deadline, plausible) = Deadline::of_shutdown(deadline_ms, now, wall);
        if !plausible {
            log::warn!("shutdown-deadline", "by this clock Lambda's SHUTDOWN deadline cannot be right; {:?} are assumed", deadline.left(now));
        }
        let until = deadline.at().min(now + LAST_REPORT);
        self.ask(until + GRACE, panic::happened, |rest| Command::Settle { until, rest });
        self.listener.finish();
        let ended = self.ask(deadline.at(), panic::in_dispatcher, |rest| Command::Stop { deadline, reason, rest });
        if !ended && !panic::in_dispatcher() {
            log::error!("stop", "no time is left to send {} events and the ledger", self.queue.waiting());
        }
    }

    /// Asks the dispatcher for something, and waits for its answer until `until`, or until `hopeless`. Says whether it came.
    fn ask(&self, until: Instant, hopeless: impl Fn() -> bool, command: impl FnOnce(Rest) -> Command) -> bool {
        const LOOK: Duration = Duration::from_millis(50);
        let (rest, at_rest) = mpsc::channel();
        self.queue.command(command(rest));
        while !hopeless() {
            let left = until.saturating_duration_since(Instant::now());
            match at_rest.recv_timeout(left.min(LOOK)) {
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
                answer => return answer.is_ok(),
            }
        }
        false
    }
}

/// `platform` is always asked for: its events say when an invocation begins and ends. What is not to be shipped stays here.
fn subscribed(types: Types) -> Vec<&'static str> {
    let mut words = vec!["platform"];
    words.extend(types.function.then_some("function"));
    words.extend(types.extension.then_some("extension"));
    words
}
