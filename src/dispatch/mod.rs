//! In the middle: what is kept, and when it is sent.
//!
//! One `std::sync::mpsc` channel leads to the dispatcher's thread, and everything reaches it over
//! that, in one order. Before the channel stands [`admission`], on the listener's threads; behind
//! it the core: [`core`], [`sending`] and [`stopping`] decide, [`dispatcher`] carries out.

pub mod admission;
pub mod attention;
pub mod backlog;
pub mod charge;
pub mod core;
pub mod dispatcher;
pub mod doorbell;
pub mod end;
pub mod invocations;
pub mod message;
pub mod metrics;
pub mod packer;
pub mod policy;
pub mod preparing;
pub mod printer;
pub mod retry;
pub mod room;
pub mod sending;
pub mod signal_room;
pub mod spares;
pub mod spool;
pub mod spool_file;
pub mod spool_index;
pub mod step;
pub mod stopping;
pub mod watchdog;

use std::path::PathBuf;
use std::time::Duration;

use self::policy::FlushMode;

/// What this room needs to know. Made when the environment is read.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `FLUSH`: when telemetry is sent.
    pub flush: FlushMode,
    /// `MAX_AGE_MS`: how old an event may get while invocations keep coming.
    pub max_age: Duration,
    /// `FLUSH_TIMEOUT_MS`: the most that one flush may hold an invocation.
    pub flush_timeout: Duration,
    /// `QUEUE_BYTES`: memory for events waiting to be sent.
    pub queue_bytes: usize,
    /// `SPOOL_BYTES`: room in [`Settings::spool_folder`]; 0 for no spool.
    pub spool_bytes: u64,
    /// Under `/tmp`, or `TMPDIR` where that is set.
    pub spool_folder: PathBuf,
    /// `FALLBACK=log`: events that are lost for good are printed to stdout.
    pub print_lost: bool,
    /// `METRICS=emf`: the ledger's counts are printed for CloudWatch.
    pub emf: bool,
}
