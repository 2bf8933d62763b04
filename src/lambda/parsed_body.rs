//! The result of reading a body: events and signals. Plain data.

use std::sync::Arc;

use super::envelope::Envelope;
use super::fields::RecordFields;
use super::observed::Observed;
use crate::clock::EpochMs;
use crate::event::Batch;

/// A fact of a body that the rest of the extension needs, beside the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// `platform.initStart`: the log stream's name.
    LogStream(String),
    /// `platform.start`, with the ARN where Lambda says it.
    Start {
        /// As in JSON, between the quotes.
        request_id: Arc<str>,
        /// The invoked ARN.
        arn: Option<String>,
    },
    /// `platform.runtimeDone`: the function's own work is over. Found even in a body that does not
    /// parse.
    RuntimeDone {
        /// As in JSON, between the quotes.
        request_id: Arc<str>,
        /// The event's own time.
        at: Option<EpochMs>,
        /// It has a status other than `success`.
        failed: bool,
    },
    /// `platform.report`: the last event of an invocation.
    Report {
        /// As in JSON, between the quotes.
        request_id: Arc<str>,
    },
    /// `platform.initReport`: the last event of the init.
    InitReport,
    /// `platform.logsDropped`: Lambda lost records, perhaps the `runtimeDone` too.
    LogsDropped {
        /// How many.
        records: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// `platform.restoreStart`: what comes now comes from a sandbox that was restored from a
    /// snapshot.
    Restored,
    /// A part of the body was past repair.
    Damaged,
}

impl Signal {
    /// The signal in an event of that type, if there is one. `bytes`: those that it was read from.
    pub(super) fn of(
        kind: &str,
        fields: &RecordFields<'_>,
        envelope: &Envelope,
        bytes: &[u8],
    ) -> Option<Signal> {
        let request_id = fields.request_id.map(Arc::<str>::from);
        match kind {
            "platform.start" => {
                Some(Signal::Start { request_id: request_id?, arn: fields.arn.clone() })
            }
            "platform.runtimeDone" => {
                let (at, failed) = (envelope.epoch_ms(bytes), fields.failed());
                // One without an id ends the wait as well: nothing better will come.
                Some(match request_id {
                    Some(request_id) => Signal::RuntimeDone { request_id, at, failed },
                    None => Signal::Damaged,
                })
            }
            "platform.report" => Some(Signal::Report { request_id: request_id? }),
            "platform.initReport" => Some(Signal::InitReport),
            // Each sandbox out of a snapshot has a log stream of its own.
            "platform.initStart" | "platform.restoreStart" => {
                fields.log_stream.clone().map(Signal::LogStream)
            }
            "platform.logsDropped" => {
                let (records, bytes) = (fields.dropped_records, fields.dropped_bytes);
                Some(Signal::LogsDropped { records, bytes })
            }
            _ => None,
        }
    }
}

/// The result of reading a body, or a part of it.
#[derive(Debug, Default)]
pub struct ParsedBody {
    /// The events to be shipped, numbered.
    pub batch: Batch,
    /// In the order of the body.
    pub signals: Vec<Signal>,
    /// Damaged stretches of the body that are shipped as text; they are in `batch` too.
    pub unparsed: u64,
    /// Events that `EXCLUDE` or `MIN_LEVEL` leave out; they are nowhere else.
    pub excluded: u64,
    /// For the choice of invocations; empty unless it is observed.
    pub observed: Observed,
}
