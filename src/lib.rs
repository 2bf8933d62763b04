//! An AWS Lambda extension that puts a function's telemetry on an Amazon Kinesis data stream.
//!
//! One static binary in a layer, beside a function in any language. Data walks through three rooms,
//! in this order:
//!
//! ```text
//! Lambda --POST--> lambda::listener --> dispatch::admission --> dispatch::dispatcher --PutRecords--> Kinesis
//!    ^                                                          ^  one channel     (packed and sent by kinesis::*)
//!    +---- main: /next, INVOKE, SHUTDOWN ------------------------+  (asks, waits for the answer)
//! ```
//!
//! - [`lambda`]: upstream, what Lambda says: Extensions API, Telemetry API, bodies.
//! - [`dispatch`]: in the middle, what is kept, and when it is sent.
//! - [`kinesis`]: downstream, what Kinesis takes: records, requests, signatures, answers.
//! - [`config`]: the settings: from variables to what each room gets.
//! - [`extension`]: the three rooms put together, and what `main` asks of them.
//! - [`check`]: the three rooms' settings, tried by a person.
//! - [`event`], [`ledger`], [`sandbox`], [`deadline`], [`log`], [`clock`], [`random`], [`json`],
//!   [`mailbox`], `panic`: small things that every room uses.
//!
//! Everything is synchronous: threads and blocking sockets, no async runtime.

#![forbid(unsafe_code)]

pub mod check;
pub mod clock;
pub mod config;
pub mod deadline;
pub mod dispatch;
pub mod event;
pub mod extension;
pub mod json;
pub mod kinesis;
pub mod lambda;
pub mod ledger;
pub mod log;
pub mod mailbox;
pub mod panic;
pub mod random;
pub mod sandbox;
mod wiring;
