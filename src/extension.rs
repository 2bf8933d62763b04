//! The extension at work: its start, and what `main` asks of it. Runs on the main thread.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::clock::{EpochMs, epoch_ms};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::dispatch::admission::Awaited;
use crate::dispatch::doorbell::Doorbell;
use crate::dispatch::message::{Message, Now, Reply, Ticket};
use crate::dispatch::printer::Printer;
use crate::dispatch::watchdog::{Question, Watchdog};
use crate::kinesis::client::InterruptHandle;
use crate::kinesis::provider::CredentialsSource;
use crate::lambda::api::{Api, Invoke, Registered, Subscription};
use crate::lambda::filter::{NOTHING_TO_SHIP, Types};
use crate::lambda::listener::Listener;
use crate::ledger::Ledger;
use crate::log;
use crate::mailbox::Mailbox;
use crate::panic;
use crate::sandbox::Sandbox;
use crate::wiring::Shared;

/// How long the other threads wait at the start, so that `main` calls `/next` first. Lambda holds
/// the first batch back for 25 ms.
const HEAD_START: Duration = Duration::from_millis(2);
/// How long SHUTDOWN waits for the last report.
const LAST_REPORT: Duration = Duration::from_millis(300);
/// How long the end may take where no SHUTDOWN says it.
const ABANDON_MS: EpochMs = 2000;
/// `main` waits for an answer of the dispatcher for so long after the deadline that it gave, and
/// then goes on without it.
const GRACE: Duration = Duration::from_millis(50);

/// Why the extension could not start. One clause, for a person.
#[derive(Debug)]
pub struct StartError {
    not_here: bool,
    why: String,
}

/// The kind of error where there is no Telemetry API, as in local emulators. No setting is wrong
/// then.
pub const NOT_HERE: &str = "Extension.NotHere";

impl StartError {
    /// The error type for `init/error`.
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

fn warn_of_risks(config: &Config) {
    for endpoint in config.kinesis.readable_by_others() {
        log::warn!(
            "plain-http",
            "{endpoint} is called over plain http: others on the network can read telemetry \
             and the session token"
        );
    }
    if !config.lambda.ships_any() {
        log::warn!("nothing", "no telemetry is sent: {NOTHING_TO_SHIP}");
    }
}

fn subscribe(
    config: &Config,
    api: &Api,
    registered: &Registered,
    uri: &str,
) -> Result<(), StartError> {
    let types = subscribed(config.lambda.types);
    let subscription = api.subscribe(&registered.id, uri, &types, config.lambda.buffering);
    match subscription.map_err(|error| start_error(error.to_string()))? {
        Subscription::Active => Ok(()),
        Subscription::NotHere(status) => {
            let why =
                format!("there is no Telemetry API here (HTTP {status}), as in local emulators");
            Err(StartError { not_here: true, why })
        }
    }
}

/// The wired rooms. See the module's page.
#[derive(Debug)]
pub struct Extension {
    messages: Sender<Message>,
    doorbell: Arc<Doorbell>,
    /// From the dispatcher. There is one mailbox for all questions: each answer has its question's
    /// ticket.
    replies: Arc<Mailbox<Reply>>,
    /// The invocation that `main` holds, for the listener's threads.
    awaited: Arc<Awaited>,
    /// The last question that the dispatcher has seen.
    seen: Arc<AtomicU64>,
    interrupts: InterruptHandle,
    ticket: Cell<Ticket>,
    printer: Arc<Printer>,
    listener: Arc<Listener>,
    sandbox: Arc<Sandbox>,
    ledger: Arc<Ledger>,
}

impl Extension {
    /// Binds the listener, subscribes, and starts the threads. Calls nothing but Lambda.
    ///
    /// # Errors
    /// If the port is taken, Lambda refuses the subscription, or there is no Telemetry API here.
    pub fn start(
        config: &Config,
        api: &Api,
        registered: &Registered,
    ) -> Result<Extension, StartError> {
        warn_of_risks(config);
        let continuous = !registered.invokes;
        let shared = Shared::new(config, &registered.function);
        let (messages, inbox) = mpsc::channel();
        let replies = Arc::clone(&shared.replies);
        panic::on_panic(move || replies.put(Reply::Panicked));
        let listener = Arc::new(Listener::new(
            &config.lambda,
            continuous,
            shared.admission(config, messages.clone()),
            Arc::clone(&shared.sandbox),
            Arc::clone(&shared.ledger),
        ));
        let port = config.lambda.port;
        let socket = Listener::bind(port).map_err(|error| {
            start_error(format!("KINESIS_TELEMETRY_PORT={port}: cannot listen there: {error}"))
        })?;
        subscribe(config, api, registered, &listener.uri())?;
        let closing = Arc::clone(&listener);
        let close_intake = Box::new(move |until| closing.close(until));
        // In a box, because it is large, and is handed on several times.
        let mut dispatcher = Box::new(shared.dispatcher(config, continuous, inbox, close_intake));
        let interrupts = dispatcher.client.interrupt_handle();
        let thread = thread::Builder::new().name(panic::DISPATCHER.to_owned());
        let serving = Arc::clone(&listener);
        let work = move || {
            // `main` is to be in `/next` before any other thread takes the CPU. Meanwhile
            // connections wait in the kernel.
            thread::sleep(HEAD_START);
            if let Err(error) = serving.start(socket) {
                log::error!("listener", "the telemetry listener cannot start: {error}");
            }
            dispatcher.run();
        };
        thread
            .spawn(work)
            .map_err(|error| start_error(format!("cannot start the dispatcher: {error}")))?;
        if log::enabled(log::Level::Info) {
            log::info!("started", "{}", recognised(config, continuous));
        }
        let Shared { doorbell, replies, awaited, seen, printer, sandbox, ledger, .. } = shared;
        let ticket = Cell::new(0);
        Ok(Extension {
            messages,
            doorbell,
            replies,
            awaited,
            seen,
            interrupts,
            ticket,
            printer,
            listener,
            sandbox,
            ledger,
        })
    }

    /// An invocation has begun. Returns when `/next` may be called.
    pub fn invoked(&self, invoke: Invoke) {
        self.sandbox.invoked(&invoke.request_id, &invoke.invoked_function_arn);
        let now = Now { mono: Instant::now(), wall: epoch_ms(SystemTime::now()) };
        let (deadline, plausible) = Deadline::of_invocation(invoke.deadline_ms, now.mono, now.wall);
        if !plausible {
            log::warn!(
                "invoke-deadline",
                "by this clock Lambda's deadline of an invocation cannot be right; \
                 {} ms are assumed",
                deadline.left_ms(now.mono)
            );
        }
        self.listener.invoked();
        panic::inject("main");
        // After a panic anywhere no invocation is held any more: what it waits for may never come.
        let request_id: Arc<str> = invoke.request_id.as_str().into();
        if self.doorbell.passes(now) {
            // The dispatcher sleeps, and would answer at once.
            let invoked = Message::Invoked { at: now, ticket: None, request_id, deadline };
            let _ = self.messages.send(invoked);
            return;
        }
        self.awaited.set(Some((Arc::clone(&request_id), now.mono)));
        self.ask(Question::Invoked, deadline.at() + GRACE, panic::happened, |ticket| {
            Message::Invoked { at: now, ticket: Some(ticket), request_id, deadline }
        });
        self.awaited.set(None);
        if deadline.left(Instant::now()).is_zero() {
            self.listener.waited_in_vain();
        }
    }

    /// The sandbox ends. Returns when all is sent, or at the deadline.
    pub fn stop(&self, deadline_ms: EpochMs, reason: String) {
        let (now, wall) = (Instant::now(), epoch_ms(SystemTime::now()));
        let (deadline, plausible) = Deadline::of_shutdown(deadline_ms, now, wall);
        if !plausible {
            log::warn!(
                "shutdown-deadline",
                "by this clock Lambda's SHUTDOWN deadline cannot be right; {} ms are assumed",
                deadline.left_ms(now)
            );
            // Nor is there time to wait until the intake is closed.
            self.listener.hand_over_undecided();
        }
        let report_until = deadline.at().min(now + LAST_REPORT);
        let until = deadline.at() + GRACE;
        // A busy machine may be late to answer.
        let deadline = deadline.sooner(GRACE);
        let ended = self.ask(Question::Stop, until, panic::in_dispatcher, |ticket| Message::Stop {
            ticket,
            deadline,
            report_until,
            reason: reason.as_str().into(),
            short: !plausible,
        });
        if !ended && !panic::in_dispatcher() {
            log::error!(
                "stop",
                "no time is left to send {} events and the ledger: {}",
                self.ledger.waiting(),
                self.ledger.json(Some(&reason))
            );
        }
        self.printer.finish(until);
    }

    /// Lambda's API is gone: what waits is kept for the process that starts next in this sandbox,
    /// if there is one.
    pub fn abandon(&self) {
        self.stop(epoch_ms(SystemTime::now()) + ABANDON_MS, "failure".to_owned());
    }

    /// Asks the dispatcher a question, and waits for its answer until `until`, or until it is
    /// `hopeless`. Returns whether it came. A request on its way that keeps the dispatcher from
    /// more urgent things is interrupted.
    fn ask(
        &self,
        question: Question,
        until: Instant,
        hopeless: impl Fn() -> bool,
        message: impl FnOnce(Ticket) -> Message,
    ) -> bool {
        // Answers to earlier questions.
        self.replies.clear();
        let ticket = self.ticket.get() + 1;
        self.ticket.set(ticket);
        let mut watchdog = Watchdog::new(question, Instant::now(), until);
        if self.messages.send(message(ticket)).is_err() {
            return false;
        }
        self.doorbell.ring();
        while !hopeless() {
            let now = Instant::now();
            if watchdog.interrupts(now, self.seen.load(Ordering::Acquire) >= ticket) {
                self.interrupts.interrupt(self.interrupts.generation());
            }
            if let Some(generation) = watchdog.interrupts_preparing(now) {
                self.interrupts.interrupt(generation);
            }
            let next = watchdog.next().map_or(until, |at| at.min(until));
            // What is there is taken, however late it is.
            match self.replies.take(next) {
                Some(Reply::AtRest(answered)) if answered == ticket => return true,
                Some(Reply::HoldEnds(at)) => watchdog.hold_ends(at),
                Some(Reply::EndedWhilePreparing(generation)) => {
                    watchdog.ended_while_preparing(Instant::now(), generation);
                }
                Some(Reply::AtRest(_) | Reply::Panicked) => {}
                None if now >= until => break,
                None => {}
            }
        }
        false
    }
}

/// The types to subscribe to. `platform` is always one: its events say when an invocation begins
/// and ends. Where `TYPES` does not name it, they are read and not sent.
fn subscribed(types: Types) -> Vec<&'static str> {
    shipped(Types { platform: true, ..types })
}

fn shipped(types: Types) -> Vec<&'static str> {
    let words = [
        (types.platform, "platform"),
        (types.function, "function"),
        (types.extension, "extension"),
    ];
    words.into_iter().filter_map(|(is_shipped, word)| is_shipped.then_some(word)).collect()
}

/// What was recognised of the settings and of where this runs, for a person.
fn recognised(config: &Config, continuous: bool) -> String {
    let place = config.kinesis.place();
    let credentials = match &config.kinesis.credentials {
        CredentialsSource::Environment(_) => "the environment",
        CredentialsSource::Container(_) => "the container endpoint",
        CredentialsSource::Missing(_) => "nowhere",
    };
    let mut text = format!(
        "version {} sends {} events to {} in {} ({}); flush mode {}; \
         credentials from {credentials}",
        env!("CARGO_PKG_VERSION"),
        shipped(config.lambda.types).join(" and "),
        place.stream,
        place.region,
        place.endpoint,
        if continuous { "continuous (Managed Instances)" } else { config.dispatch.flush.name() },
    );
    let proxy = place.proxies.into_iter().flatten().next();
    for (what, value) in [("; role ", place.role), ("; proxy of ", proxy)] {
        text.extend(value.map(|value| [what, value]).into_iter().flatten());
    }
    if config.kinesis.snap_start {
        text.push_str("; SnapStart");
    }
    text
}
