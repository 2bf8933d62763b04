//! A Kinesis with faults: what becomes of a request, by time, key and content.

use std::sync::Arc;

use kinesis_telemetry_extension::dispatch::step::Sent;
use kinesis_telemetry_extension::kinesis::error::{Error, ErrorKind, classify_record};
use kinesis_telemetry_extension::kinesis::line::PartitionKey;
use kinesis_telemetry_extension::kinesis::request::Request;
use kinesis_telemetry_extension::kinesis::response::RecordOutcome;
use kinesis_telemetry_extension::kinesis::wire::Wire;

use crate::plan::Mode;
use crate::world::{MS, SandboxId, Us, World, introduced_in, numbers};

/// What becomes of a request.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) takes: Us,
    pub(crate) sent: Sent,
    /// The events of each record.
    pub(crate) events: Vec<Vec<u32>>,
    /// The sandbox events at the head of each record.
    pub(crate) introduced: Vec<Vec<SandboxId>>,
    /// Which records are stored.
    pub(crate) stored: Vec<bool>,
    /// Nothing of it has left the machine so far: an interrupt is not ambiguous.
    pub(crate) connecting: bool,
}

impl World {
    /// `left`: until the deadline, when every call is over.
    pub(crate) fn kinesis(&mut self, request: &mut Request, left: Us, is_ledger: bool) -> Verdict {
        let sandbox = Arc::clone(&self.process.sandbox);
        if self.plan.wire() == Wire::Json || sandbox.refuses_cbor() {
            request.convert(Wire::Json);
        }
        let _ = request.finish(&self.stream);
        let refused = request.wire() == Wire::Cbor && self.plan.refuses_cbor();
        let (events, introduced): (Vec<Vec<u32>>, Vec<Vec<SandboxId>>) =
            request.data().map(|lines| (numbers(&lines), introduced_in(&lines))).unzip();
        let records = events.len();
        let usual = self.between(2 * MS, 15 * MS);
        let all = |outcome: RecordOutcome| Ok(vec![outcome; records]);
        let failed = |code: &str| RecordOutcome::Failed {
            code: code.to_owned(),
            kind: classify_record(code),
        };
        let error = |code: &str, ambiguous: bool| {
            Err((
                Error { ambiguous, ..Error::new(code, "simulated") },
                "see the simulation".to_owned(),
            ))
        };
        let mut stored = vec![false; records];
        let mut connecting = false;
        let mode = self.mode();
        let stale = self.plan.stale;
        let (takes, sent): (Us, Sent) = if !self.healed && self.chance(stale) {
            let mut sent = Error::new("ConnectionReset", "simulated");
            (sent.stale, sent.ambiguous) = (true, self.rng.bool());
            (100, Err((sent, String::new())))
        } else {
            match mode {
                // As the client does: by an error, or by an answer that nobody can read, to what
                // was stored.
                Mode::Ok | Mode::Slow(_) if refused => {
                    sandbox.cbor_refused();
                    let kept = self.plan.seed % 16 == 7;
                    stored.fill(kept);
                    let code = if kept { "UnreadableResponse" } else { "InternalFailure" };
                    let error = Error::new(code, "simulated");
                    (
                        usual,
                        Err((Error { ambiguous: kept, retry_now: true, ..error }, String::new())),
                    )
                }
                Mode::Ok => (usual, all(RecordOutcome::Taken)),
                Mode::Slow(ms) => (usual + self.between(0, ms * MS), all(RecordOutcome::Taken)),
                Mode::Refuses => (300, error("ConnectionFailed", false)),
                Mode::ConnectTimeout => {
                    connecting = true;
                    (400 * MS, error("ConnectTimeout", false))
                }
                Mode::Hangs => {
                    let kept = self.rng.bool();
                    stored.fill(kept);
                    (3600 * 1000 * MS, error("Timeout", true))
                }
                Mode::Cuts => {
                    let kept = self.rng.bool();
                    stored.fill(kept);
                    (usual, error("ConnectionReset", true))
                }
                Mode::Garbles => {
                    stored.fill(true);
                    (usual, error("UnreadableResponse", true))
                }
                Mode::Configuration(code) | Mode::RefusesAll(code) => (usual, error(code, false)),
                Mode::Throttles => (usual, error("ThrottlingException", false)),
                Mode::ThrottlesRecords => {
                    (usual, all(failed("ProvisionedThroughputExceededException")))
                }
                Mode::Shard(shard) => {
                    let keys = keys(request.body());
                    // A fresh key each record is not the seed's.
                    let fresh = self.plan.setup.key == PartitionKey::Random;
                    let first = |n: usize| {
                        events
                            .get(n)
                            .and_then(|record| record.first())
                            .map_or(0, |event| u64::from(*event) / 5)
                    };
                    let throttled = |n: usize| {
                        if fresh {
                            first(n) % 4 == shard
                        } else {
                            keys.get(n).is_some_and(|key| {
                                key.bytes().fold(0, |sum, byte| sum + u64::from(byte)) % 4 == shard
                            })
                        }
                    };
                    let outcome = |n| {
                        if throttled(n) {
                            failed("ProvisionedThroughputExceededException")
                        } else {
                            RecordOutcome::Taken
                        }
                    };
                    (usual, Ok((0..records).map(outcome).collect()))
                }
                Mode::Flaky(one_in, code) => {
                    let mut outcome = || match (self.chance(one_in), self.chance(4)) {
                        (true, true) => failed("ProvisionedThroughputExceededException"),
                        (true, false) => failed(code),
                        (false, _) => RecordOutcome::Taken,
                    };
                    let outcomes = (0..records).map(|_| outcome()).collect();
                    (usual, Ok(outcomes))
                }
            }
        };
        let mut sent = sent;
        if let (Ok(outcomes), Some(poison), false) = (&mut sent, self.plan.poison, is_ledger) {
            let poisoned: Vec<bool> = events
                .iter()
                .map(|record| record.iter().any(|event| self.is_poison(*event)))
                .collect();
            if poison.whole && poisoned.contains(&true) {
                sent = error(poison.code, false);
            } else if !poison.whole {
                outcomes
                    .iter_mut()
                    .zip(&poisoned)
                    .filter(|(_, poisoned)| **poisoned)
                    .for_each(|(outcome, _)| *outcome = failed(poison.code));
            }
        }
        if let Ok(outcomes) = &sent {
            stored = outcomes.iter().map(|outcome| *outcome == RecordOutcome::Taken).collect();
        }
        if self.timeline.is_some() && !is_ledger {
            let is_ledger = |lines: &[u8]| {
                lines.windows(24).any(|window| window == b"kinesis-telemetry.ledger")
            };
            self.ledger_events += u32::try_from(
                request
                    .data()
                    .zip(&stored)
                    .filter(|(lines, stored)| **stored && is_ledger(lines))
                    .count(),
            )
            .unwrap();
        }
        if takes > left {
            // Over at the deadline, whether Kinesis has stored it or not.
            if !connecting && !stored.contains(&true) || self.rng.bool() {
                stored.fill(false);
            }
            let sent = error(if connecting { "ConnectTimeout" } else { "Timeout" }, !connecting);
            let late = self.between(0, 2 * MS);
            let takes = left + late;
            return Verdict { takes, sent, events, introduced, stored, connecting };
        }
        Verdict { takes, sent, events, introduced, stored, connecting }
    }
}

/// Ends a call from another thread.
pub(crate) fn interrupted(ambiguous: bool) -> Sent {
    let error = Error { ambiguous, ..Error::new("Interrupted", "simulated") };
    assert_eq!(error.kind, ErrorKind::Interrupted);
    Err((error, String::new()))
}

/// The partition key of each record in a body.
fn keys(body: &[u8]) -> Vec<String> {
    if Wire::of(body) == Wire::Cbor {
        let member = |value: &ciborium::Value, name: &str| -> Option<ciborium::Value> {
            let mut members = value.as_map()?.iter();
            members.find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value.clone())
        };
        let whole: ciborium::Value = ciborium::from_reader(body).unwrap();
        let records = member(&whole, "Records").unwrap().into_array().unwrap();
        let key = |record| member(record, "PartitionKey").unwrap().into_text().unwrap();
        return records.iter().map(key).collect();
    }
    let body = String::from_utf8_lossy(body);
    body.split("\"PartitionKey\":\"")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))
        .collect()
}
