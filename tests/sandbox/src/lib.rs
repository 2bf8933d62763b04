//! A small, faithful Lambda sandbox and Kinesis endpoint, for the integration tests and the demo.
//!
//! [`Lambda`] runs the built extension as AWS Lambda does: minimal environment, Extensions API with its states and
//! refusals, Telemetry API with batching and retries, freeze by SIGSTOP, resets, SHUTDOWN with a deadline. [`Kinesis`]
//! takes `PutRecords` within the service's limits, checks signatures by itself, and fails in every way on demand. Both
//! keep an account of every event, and [`Account::compare`] holds one against the other.
//!
//! ```no_run
//! use sandbox::{Fault, Invocation, Kinesis, Lambda, Which, ms};
//!
//! let kinesis = Kinesis::start();
//! let lambda = Lambda::builder("target/debug/kinesis-telemetry-extension")
//!     .kinesis(&kinesis)
//!     .setting("FLUSH", "end")
//!     .start();
//! let init = lambda.init().unwrap();
//! assert!(init.first_next < ms(100));
//!
//! kinesis.fault(Fault::throttle(Which::Fraction(0.3)).times(1));
//! let report = lambda.invoke(Invocation::new().text("hello").work(ms(5))).unwrap();
//! assert_eq!(report.in_flight_at_next, 0);
//!
//! assert!(lambda.shutdown("spindown").is_clean());
//! kinesis.account().compare(&lambda.sent()).assert_clean();
//! ```
//!
//! Everything is blocking and bound to 127.0.0.1 on ports of its own, so that many tests run side by side; everything
//! ends when the values are dropped.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "test code: a broken assumption should stop the test where it happens"
)]

mod clock;
mod http;
mod identity;
mod kinesis;
mod lambda;
mod proxy;
mod server;
mod silent;
mod wait;

pub use clock::{amz_date, iso_millis, parse_amz_date, parse_iso_millis, unix_millis};
pub use http::Request;
pub use identity::Identity;
pub use kinesis::{
    Account, Answered, Cbor, Change, Comparison, Counted, Credentials, Fault, Kinesis,
    KinesisBuilder, MAX_KEY_CHARS, MAX_RECORDS, ProcessAccount, Put, RecordOutcome, StoredEvent,
    StoredRecord, Which,
};
pub use lambda::{
    ApiCall, Cut, CutForm, Delivery, Exit, Expected, Failure, FloodReport, FloodShape, InitReport,
    Invocation, InvokeReport, Lambda, LambdaBuilder, LambdaError, NextCall, OutputLine, Post,
    SETTING_PREFIX, SentEvent, ShutdownReport, Stats, Subscription,
};
pub use proxy::{Proxy, ProxyFault};
pub use silent::SilentPort;
pub use wait::{ms, wait_until};
