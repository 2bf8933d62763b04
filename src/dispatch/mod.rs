//! In the middle: what is kept, and when it goes.
//!
//! One `std::sync::mpsc` channel leads to the dispatcher's thread, and everything reaches it over that, in one order. Before the channel
//! stands [`admission`], on the listener's threads; behind it the core: [`core`], [`sending`] and [`stopping`] decide, [`dispatcher`] carries
//! out.

pub mod admission;
pub mod backlog;
pub mod charge;
pub mod core;
pub mod dispatcher;
pub mod invocations;
pub mod message;
pub mod metrics;
pub mod packer;
pub mod policy;
pub mod printer;
pub mod retry;
pub mod sending;
pub mod spares;
pub mod spool;
pub mod spool_file;
pub mod spool_index;
pub mod stopping;
pub mod watchdog;
