//! Drives the built binary from outside, against the simulator: one file per concern.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "test code: a broken assumption should stop the test where it happens"
)]

mod answers;
mod architecture;
mod bodies;
mod cbor;
mod check;
mod circumstances;
mod connections;
mod delivery;
mod deployed;
mod docs;
mod freeze;
mod golden;
mod hostile;
mod keep;
mod keep_faults;
mod keep_formats;
mod lambda_variants;
mod lifecycle;
mod limits;
mod listener;
mod loss;
mod matrix;
mod neighbour;
mod panics;
mod platforms;
mod ready;
mod records;
mod scale;
mod secrets;
mod settings;
mod shutdown;
mod wire;

use std::path::PathBuf;

use sandbox::{Kinesis, Lambda, LambdaBuilder};

/// The binary under test: the one that cargo built for these tests, or another one (a static build, another architecture).
pub fn binary() -> PathBuf {
    std::env::var_os("KTE_BINARY").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_kinesis-telemetry-extension")),
        PathBuf::from,
    )
}

/// A sandbox with the extension in it, writing to `kinesis` at the end of each invocation.
pub fn extension(kinesis: &Kinesis) -> LambdaBuilder {
    runner(Lambda::builder(binary()).kinesis(kinesis).tmp_in("TMPDIR").setting("FLUSH", "end"))
}

/// One whose memory is soon full, and that gives up a flush soon.
pub fn overflowing(kinesis: &Kinesis) -> LambdaBuilder {
    extension(kinesis)
        .setting("QUEUE_BYTES", "1048576")
        .setting("FLUSH_TIMEOUT_MS", "500")
        .timeout(sandbox::ms(60_000))
}

/// A binary of another architecture needs an emulator in front.
fn runner(builder: LambdaBuilder) -> LambdaBuilder {
    match std::env::var("KTE_RUNNER") {
        Ok(command) => builder.runner(&command.split(' ').collect::<Vec<_>>()),
        Err(_) => builder,
    }
}

/// The binary as a command of its own, for what people call it with.
pub fn runner_command() -> std::process::Command {
    let runner = std::env::var("KTE_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    let Some(first) = words.next() else { return std::process::Command::new(binary()) };
    let mut command = std::process::Command::new(first);
    command.args(words).arg(binary());
    command
}

/// Ends the sandbox, in time and with exit status 0, and gives the last ledger, whose balance is
/// right.
#[track_caller]
pub fn end(kinesis: &Kinesis, lambda: &Lambda) -> serde_json::Value {
    let end = lambda.shutdown("spindown");
    assert!(end.is_clean(), "{end:?} {:?}", lambda.stderr());
    ledger(kinesis)
}

/// Checks the balance of the last ledger against itself, and gives it.
#[track_caller]
pub fn ledger(kinesis: &Kinesis) -> serde_json::Value {
    let ledger = kinesis.account().ledgers().pop().expect("a ledger on the stream");
    let dropped: u64 = ["queue", "rejected", "undelivered"]
        .iter()
        .map(|why| ledger["dropped"][why].as_u64().unwrap())
        .sum();
    let number = |key: &str| ledger[key].as_u64().unwrap();
    assert_eq!(number("received"), number("delivered") + dropped + number("waiting"), "{ledger}");
    ledger
}
