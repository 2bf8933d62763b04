//! The dispatcher's thread: carries out what the core decides. It alone talks to Kinesis, and one
//! request at a time.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime};

use super::attention::Attention;
use super::charge::Gauge;
use super::core::Core;
use super::doorbell::Doorbell;
use super::message::{Message, Now, Reply};
use super::preparing::Effort;
use super::printer::Printer;
use super::spares::Spares;
use super::spool::Spool;
use super::spool_index::Purpose;
use super::step::{Outcome, Sent, Step, View, stored_nothing};
use crate::clock::epoch_ms;
use crate::deadline::Deadline;
use crate::kinesis::client::Client;
use crate::kinesis::request::Request;
use crate::log;
use crate::mailbox::Mailbox;
use crate::panic;

/// At SHUTDOWN no connection is used again that has been idle for longer.
const IDLE_AT_STOP: Duration = Duration::from_secs(1);

/// Says how many threads of the machine run, which is the sandbox.
const LOAD: &str = "/proc/loadavg";

/// What stops the intake: waits for what is being taken in, until then at the most.
pub type CloseIntake = Box<dyn Fn(Instant) + Send>;

/// See the module's page.
pub struct Dispatcher {
    /// Decides.
    pub core: Core,
    /// Everything that reaches it.
    pub messages: Receiver<Message>,
    /// Wakes this thread.
    pub doorbell: Arc<Doorbell>,
    /// To `main`.
    pub replies: Arc<Mailbox<Reply>>,
    /// The last question that the core has seen.
    pub seen: Arc<AtomicU64>,
    /// For what the core asks of Kinesis.
    pub client: Client,
    /// For what the core asks of the disk.
    pub spool: Arc<Spool>,
    /// For lines to stdout.
    pub printer: Arc<Printer>,
    /// Used buffers.
    pub spares: Arc<Spares>,
    /// Counts what waits.
    pub gauge: Arc<Gauge>,
    /// Whether this thread packs and sends, as it does while it does not wait: then the listener
    /// packs, too.
    pub sending: Arc<AtomicBool>,
    /// The generation of the call that makes a connection ready, while there is one; else 0.
    pub preparing: Arc<AtomicU64>,
    /// See [`CloseIntake`].
    pub close_intake: CloseIntake,
}

impl Dispatcher {
    /// The thread's whole life.
    pub fn run(&mut self) {
        self.doorbell.belongs_here();
        self.sending.store(true, Ordering::Release);
        loop {
            // What is on disk is newer than all that was sent before it was written: first look
            // there, then hand in the messages.
            let view = self.spool.view();
            self.core.look(view);
            while let Ok(message) = self.messages.try_recv() {
                self.hand_in(message);
            }
            let step = self.core.poll(now(), view);
            let outcome = match step {
                Step::Exit => return,
                Step::Wait(until) => {
                    self.wait(until, view);
                    continue;
                }
                step => self.carry_out(step),
            };
            self.core.done(now(), outcome);
        }
    }

    fn hand_in(&mut self, message: Message) {
        if let Message::Invoked { ticket: Some(ticket), .. } | Message::Stop { ticket, .. } =
            &message
        {
            self.seen.store(*ticket, Ordering::Release);
        }
        if matches!(message, Message::Stop { .. }) {
            // There is no time to find out that a connection has died.
            self.client.disconnect(IDLE_AT_STOP);
            self.client.try_anew();
        }
        self.core.on(now(), message);
    }

    /// Sleeps until something comes that is waited for. What comes after the announcement rings,
    /// what came before it, over the channel or to the disk, is found here.
    fn wait(&mut self, until: Option<Instant>, view: View) {
        self.sending.store(false, Ordering::Release);
        self.doorbell.announce(self.core.attention(now()), until);
        match self.messages.try_recv() {
            Ok(message) => self.hand_in(message),
            Err(_) if self.spool.view() == view => self.doorbell.sleep(until),
            Err(_) => {}
        }
        self.doorbell.announce(Attention::default(), None);
        // Before anything is sent: what is packed for a request keeps this thread busy, too, and
        // the listener would pour in unpacked events meanwhile, faster than they are packed here.
        self.sending.store(true, Ordering::Release);
    }

    fn carry_out(&mut self, step: Step) -> Outcome {
        match step {
            Step::Send { mut parcel, deadline } => {
                let marked = parcel.segment.filter(|segment| self.spool.mark(*segment));
                panic::inject("dispatcher");
                let sent = self.put(&mut parcel.request, &deadline);
                if let Some(segment) = marked.filter(|_| stored_nothing(&sent)) {
                    self.spool.unmark(segment);
                }
                return Outcome::Sent(parcel, sent);
            }
            Step::SendLedger { mut request, deadline } => {
                let sent = self.put(&mut request, &deadline);
                return Outcome::Ledger(request, sent);
            }
            Step::Read(segment) => {
                let read = self.spool.read(segment, |bytes| self.spares.body(bytes));
                let read = read.map(|found| {
                    let charge = self.gauge.charge(found.request.cost());
                    (Box::new(found.request), charge, found.ambiguous)
                });
                return Outcome::Read(segment, read);
            }
            Step::Spool(mut parcel) => {
                let (purpose, segment) = (Purpose::apart(&parcel), parcel.segment);
                let written = self.spool.write(&mut parcel.request, purpose, segment);
                // Of a copy nothing is lost.
                if let (Err(error), false) = (&written, parcel.stays) {
                    log::error!("spool", "events cannot be kept under /tmp ({error})");
                }
                return Outcome::Spooled(parcel, written.ok());
            }
            Step::Prepare { effort, deadline } => {
                return Outcome::Prepared(self.prepare(effort, &deadline));
            }
            Step::Recover => return Outcome::Recovered(self.spool.recover()),
            Step::Count => {
                let read = self.spool.count(|bytes| self.spares.body(bytes));
                read.into_iter().for_each(|request| self.spares.keep_body(request.into_buffer()));
            }
            Step::Remove(segment) => self.spool.remove(segment),
            Step::PutBack(segment) => self.spool.put_back(segment),
            Step::Discard(until) => self.spool.discard(until),
            Step::CloseIntake(until) => (self.close_intake)(until),
            Step::Print(lines) => self.printer.print(lines),
            Step::Log(level, topic, line) => log::say(level, topic, format_args!("{line}")),
            // `main` may have given up waiting; that is its right.
            Step::Reply(ticket) => self.replies.put(Reply::AtRest(ticket)),
            Step::Wait(_) | Step::Exit => {}
        }
        Outcome::Done
    }

    /// Says whether there is nothing more to do. What fails here is found by the flush, which
    /// counts it.
    fn prepare(&mut self, effort: Effort, deadline: &Deadline) -> bool {
        if self.client.is_ready() {
            return true;
        }
        if effort == Effort::Look || (effort == Effort::WhenIdle && !is_idle()) {
            return false;
        }
        self.preparing.store(self.client.generation() + 1, Ordering::SeqCst);
        // A message that has come before that may be the end of the function.
        let message = self.messages.try_recv().ok();
        if message.is_none() {
            let _ = self.client.prepare(deadline);
        }
        self.preparing.store(0, Ordering::SeqCst);
        let ready = message.is_none();
        message.into_iter().for_each(|message| self.hand_in(message));
        ready
    }

    fn put(&mut self, request: &mut Request, deadline: &Deadline) -> Sent {
        let answer = self.client.put(request, deadline);
        answer.map_err(|error| {
            let advice = self.client.advice(&error);
            (error, advice)
        })
    }
}

/// Both clocks.
fn now() -> Now {
    Now { mono: Instant::now(), wall: epoch_ms(SystemTime::now()) }
}

/// Whether nothing else runs in the sandbox. Where that cannot be seen, it is taken for idle.
fn is_idle() -> bool {
    let mut text = [0; 64];
    let read = File::open(LOAD).and_then(|mut file| file.read(&mut text));
    let text = read.ok().and_then(|length| text.get(..length)).unwrap_or_default();
    // "0.20 0.18 0.12 1/80 11206": one of 80 threads runs, which is this one.
    let running = text.split(|byte| *byte == b' ').nth(3);
    running.is_none_or(|running| running.starts_with(b"1/"))
}
