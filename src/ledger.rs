//! Every event accounted for: counters that all rooms write, and one JSON object that reads them.
//!
//! `received = delivered + dropped + still waiting`, always.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// One number that any thread may raise.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Raises it by `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Raises it to `n` if it is lower.
    pub fn at_least(&self, n: u64) {
        self.0.fetch_max(n, Relaxed);
    }

    /// As it stands.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counters of one process. Events unless said otherwise.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Taken from Lambda, to be shipped.
    pub received: Counter,
    /// That Kinesis has given a sequence number for.
    pub delivered: Counter,
    /// Sent once more, because Kinesis refused them or the request failed.
    pub retried: Counter,
    /// Sent once more although the request before may have arrived.
    pub possible_duplicates: Counter,
    /// Left out by `EXCLUDE` or `MIN_LEVEL`; not among the received ones.
    pub excluded: Counter,
    /// Of invocations that `KEEP` leaves out; beside the balance, as those.
    pub thinned: Counter,
    /// Lost because the queue and the spool had no room, or the disk could not be written.
    pub dropped_queue: Counter,
    /// Lost because Kinesis refuses them for what they hold, `RECORD_BYTES` has no room for what is
    /// added to them, or somebody changed their file in the spool.
    pub dropped_rejected: Counter,
    /// Lost because the sandbox ended before they could be sent.
    pub dropped_undelivered: Counter,
    /// Shipped with the record cut to `RECORD_BYTES`.
    pub truncated: Counter,
    /// Shipped as text because their JSON is broken.
    pub unparsed: Counter,
    /// Records that Lambda itself dropped, by its own `platform.logsDropped`.
    pub platform_dropped_records: Counter,
    /// Bytes of those.
    pub platform_dropped_bytes: Counter,
    /// PutRecords requests sent.
    pub requests: Counter,
    /// Bytes of data and keys that Kinesis took.
    pub sent_bytes: Counter,
    /// Written to the spool because there was no room or no time.
    pub spooled: Counter,
    /// Taken over from the process before, out of its spool. They count as received too.
    pub adopted: Counter,
    /// Files in the spool that were not whole, not ours, or not read in time at the end.
    pub spool_skipped: Counter,
    /// The most bytes that ever waited in memory.
    pub max_queued_bytes: Counter,
    /// The longest that one invocation was held, in milliseconds.
    pub hold_ms_max: Counter,
    /// All invocations together.
    pub hold_ms_total: Counter,
    /// POSTs that were not Lambda's: wrong path, wrong method, too large.
    pub refused_posts: Counter,
    request_errors: Mutex<BTreeMap<String, u64>>,
}

impl Ledger {
    /// Counts a failed request under its error code, or a short name for what happened.
    pub fn request_error(&self, code: &str) {
        let mut errors = self.request_errors.lock().unwrap_or_else(PoisonError::into_inner);
        // The code comes from outside: a peer that makes one up each time must not fill the memory.
        let code = if errors.len() < 32 || errors.contains_key(code) { code } else { "other" };
        *errors.entry(code.to_owned()).or_default() += 1;
    }

    /// Failed requests, and those that Kinesis took only a part of.
    #[must_use]
    pub fn request_errors(&self) -> u64 {
        self.request_errors.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// Notes how long an invocation was held after the function's own work.
    pub fn held(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.hold_ms_max.at_least(ms);
        self.hold_ms_total.add(ms);
    }

    /// Events lost for good, for whatever reason.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped_queue.get() + self.dropped_rejected.get() + self.dropped_undelivered.get()
    }

    /// Events that are neither delivered nor dropped yet.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        // In this order: what is received meanwhile is no event too few.
        let settled = self.delivered.get() + self.dropped();
        self.received.get().saturating_sub(settled)
    }

    /// The record of a `kinesis-telemetry.ledger` event.
    #[must_use]
    pub fn json(&self, shutdown_reason: Option<&str>) -> String {
        let errors = self.request_errors.lock().unwrap_or_else(PoisonError::into_inner);
        let errors = serde_json::to_string(&*errors).unwrap_or_else(|_| "{}".to_owned());
        // Each read once, so that the sum is right whatever is counted meanwhile.
        let (delivered, queue) = (self.delivered.get(), self.dropped_queue.get());
        let (rejected, undelivered, received) =
            (self.dropped_rejected.get(), self.dropped_undelivered.get(), self.received.get());
        let mut json = format!(
            concat!(
                r#"{{"received":{},"delivered":{},"waiting":{},"retried":{},"possibleDuplicates":{},"#,
                r#""dropped":{{"queue":{},"rejected":{},"undelivered":{}}},"truncated":{},"unparsed":{},"excluded":{},"thinned":{},"#,
                r#""platformDropped":{{"records":{},"bytes":{}}},"requests":{},"requestErrors":{},"sentBytes":{},"#,
                r#""spooled":{},"adopted":{},"spoolSkipped":{},"maxQueuedBytes":{},"holdMs":{{"max":{},"total":{}}},"refusedPosts":{}"#
            ),
            received,
            delivered,
            received.saturating_sub(delivered + queue + rejected + undelivered),
            self.retried.get(),
            self.possible_duplicates.get(),
            queue,
            rejected,
            undelivered,
            self.truncated.get(),
            self.unparsed.get(),
            self.excluded.get(),
            self.thinned.get(),
            self.platform_dropped_records.get(),
            self.platform_dropped_bytes.get(),
            self.requests.get(),
            errors,
            self.sent_bytes.get(),
            self.spooled.get(),
            self.adopted.get(),
            self.spool_skipped.get(),
            self.max_queued_bytes.get(),
            self.hold_ms_max.get(),
            self.hold_ms_total.get(),
            self.refused_posts.get(),
        );
        if let Some(reason) = shutdown_reason {
            let reason = serde_json::to_string(reason).unwrap_or_else(|_| "\"\"".to_owned());
            let _ = write!(json, r#","shutdownReason":{reason}"#);
        }
        json.push('}');
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_json_with_the_documented_keys() {
        let ledger = Ledger::default();
        ledger.received.add(7);
        ledger.request_error("ThrottlingException");
        ledger.request_error("ThrottlingException");
        ledger.held(Duration::from_millis(12));
        ledger.held(Duration::from_millis(5));
        let value: serde_json::Value =
            serde_json::from_str(&ledger.json(Some("spindown"))).unwrap();
        assert_eq!(value["received"], 7);
        assert_eq!(value["requestErrors"]["ThrottlingException"], 2);
        assert_eq!(value["holdMs"], serde_json::json!({"max": 12, "total": 17}));
        assert_eq!(value["shutdownReason"], "spindown");
        assert_eq!(
            value["dropped"],
            serde_json::json!({"queue": 0, "rejected": 0, "undelivered": 0})
        );
    }

    #[test]
    fn made_up_error_codes_do_not_fill_the_memory() {
        let ledger = Ledger::default();
        for n in 0..1000 {
            ledger.request_error(&format!("code{n}"));
        }
        let value: serde_json::Value = serde_json::from_str(&ledger.json(None)).unwrap();
        assert_eq!(value["requestErrors"].as_object().unwrap().len(), 33);
        assert!(value.get("shutdownReason").is_none());
    }
}
