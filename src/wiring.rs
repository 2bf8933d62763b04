//! The three rooms wired together: what their threads share, and the two ends of the channel in
//! which they meet.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};

use crate::config::Config;
use crate::dispatch::admission::{Admission, Awaited};
use crate::dispatch::charge::Gauge;
use crate::dispatch::core::{Core, Settings};
use crate::dispatch::dispatcher::{CloseIntake, Dispatcher};
use crate::dispatch::doorbell::Doorbell;
use crate::dispatch::message::{Message, Reply};
use crate::dispatch::packer::Packer;
use crate::dispatch::printer::Printer;
use crate::dispatch::spares::Spares;
use crate::dispatch::spool::Spool;
use crate::kinesis::client::Client;
use crate::lambda::api::Function;
use crate::ledger::Ledger;
use crate::mailbox::Mailbox;
use crate::random;
use crate::sandbox::Sandbox;

/// What the threads share, beside the channel. Each end of it says what it uses this for:
/// [`Admission`] and [`Dispatcher`].
pub(crate) struct Shared {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) gauge: Arc<Gauge>,
    pub(crate) spares: Arc<Spares>,
    pub(crate) printer: Arc<Printer>,
    pub(crate) spool: Arc<Spool>,
    pub(crate) doorbell: Arc<Doorbell>,
    pub(crate) replies: Arc<Mailbox<Reply>>,
    pub(crate) awaited: Arc<Awaited>,
    pub(crate) sending: Arc<AtomicBool>,
    pub(crate) preparing: Arc<AtomicU64>,
    pub(crate) seen: Arc<AtomicU64>,
}

impl Shared {
    /// For one process, which runs beside `function`.
    pub(crate) fn new(config: &Config, function: &Function) -> Shared {
        let ledger = Arc::new(Ledger::default());
        let sandbox = Arc::new(Sandbox::default());
        sandbox.learn(|facts| {
            let Function { account_id, function_name, function_version } = function;
            let known = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
            facts.account_id = known(account_id);
            facts.function_name = known(function_name);
            facts.function_version = known(function_version);
            facts.region = Some(config.kinesis.endpoint.region().to_owned());
            facts.tags.clone_from(&config.tags);
        });
        let gauge = Gauge::new(config.dispatch.queue_bytes);
        let spares = Arc::new(Spares::new(Arc::clone(&gauge)));
        let printer = Arc::new(Printer::default());
        let spool = Arc::new(Spool::new(
            config.dispatch.spool_folder.clone(),
            config.dispatch.spool_bytes,
            config.kinesis.stream.clone(),
            sandbox.id(),
            packer(config, &sandbox, &ledger).limits(),
            config.dispatch.print_lost.then(|| Arc::clone(&printer)),
            Arc::clone(&ledger),
        ));
        let (doorbell, replies, awaited, sending, preparing, seen) = Default::default();
        Shared {
            ledger,
            sandbox,
            gauge,
            spares,
            printer,
            spool,
            doorbell,
            replies,
            awaited,
            sending,
            preparing,
            seen,
        }
    }

    /// The sending end of the channel.
    pub(crate) fn admission(&self, config: &Config, sender: Sender<Message>) -> Admission {
        Admission {
            sender,
            doorbell: Arc::clone(&self.doorbell),
            replies: Arc::clone(&self.replies),
            awaited: Arc::clone(&self.awaited),
            gauge: Arc::clone(&self.gauge),
            spares: Arc::clone(&self.spares),
            spool: Arc::clone(&self.spool),
            printer: Arc::clone(&self.printer),
            ledger: Arc::clone(&self.ledger),
            packer: Mutex::new(packer(config, &self.sandbox, &self.ledger)),
            sending: Arc::clone(&self.sending),
            preparing: Arc::clone(&self.preparing),
            held_piece: Mutex::default(),
            signal_room: Default::default(),
            flush_timeout: config.dispatch.flush_timeout,
        }
    }

    /// The receiving end.
    pub(crate) fn dispatcher(
        &self,
        config: &Config,
        continuous: bool,
        messages: Receiver<Message>,
        close_intake: CloseIntake,
    ) -> Dispatcher {
        let settings = Settings {
            mode: config.dispatch.flush,
            continuous,
            max_age: config.dispatch.max_age,
            flush_timeout: config.dispatch.flush_timeout,
            spool: config.dispatch.spool_bytes > 0,
            metrics: config.dispatch.emf,
            seed: random::bits(),
        };
        let core = Core::new(
            settings,
            packer(config, &self.sandbox, &self.ledger),
            Arc::clone(&self.gauge),
            Arc::clone(&self.spares),
            Arc::clone(&self.ledger),
        );
        Dispatcher {
            core,
            messages,
            doorbell: Arc::clone(&self.doorbell),
            replies: Arc::clone(&self.replies),
            seen: Arc::clone(&self.seen),
            client: Client::new(&config.kinesis, Arc::clone(&self.sandbox)),
            spool: Arc::clone(&self.spool),
            printer: Arc::clone(&self.printer),
            spares: Arc::clone(&self.spares),
            gauge: Arc::clone(&self.gauge),
            sending: Arc::clone(&self.sending),
            preparing: Arc::clone(&self.preparing),
            close_intake,
        }
    }
}

fn packer(config: &Config, sandbox: &Arc<Sandbox>, ledger: &Arc<Ledger>) -> Packer {
    let (sandbox, ledger) = (Arc::clone(sandbox), Arc::clone(ledger));
    Packer::new(&config.dispatch, &config.kinesis.records, sandbox, ledger)
}
