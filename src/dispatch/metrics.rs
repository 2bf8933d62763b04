//! `METRICS=emf`: what the ledger counts, as a line that CloudWatch makes metrics of. Pure but for
//! the ledger it reads.
//!
//! The embedded metric format is one JSON object on stdout, which Lambda puts into the function's
//! log group. CloudWatch adds up what the lines say, so each line says what has come since the one
//! before.

use crate::clock::EpochMs;
use crate::ledger::Ledger;

const NAMESPACE: &str = "KinesisTelemetryExtension";
const COUNT: usize = 13;

/// Name, unit, and where it is counted. `HoldMs` is all invocations together: divided by
/// `Invocations` of the function, the cost of each.
type Metric = (&'static str, &'static str, fn(&Ledger) -> u64);

const METRICS: [Metric; COUNT] = [
    ("Received", "Count", |ledger| ledger.received.get()),
    ("Delivered", "Count", |ledger| ledger.delivered.get()),
    ("Dropped", "Count", Ledger::dropped),
    ("Retried", "Count", |ledger| ledger.retried.get()),
    ("PossibleDuplicates", "Count", |ledger| ledger.possible_duplicates.get()),
    ("Thinned", "Count", |ledger| ledger.thinned.get()),
    ("Excluded", "Count", |ledger| ledger.excluded.get()),
    ("Truncated", "Count", |ledger| ledger.truncated.get()),
    ("PlatformDropped", "Count", |ledger| ledger.platform_dropped_records.get()),
    ("Requests", "Count", |ledger| ledger.requests.get()),
    ("RequestErrors", "Count", Ledger::request_errors),
    ("SentBytes", "Bytes", |ledger| ledger.sent_bytes.get()),
    ("HoldMs", "Milliseconds", |ledger| ledger.hold_ms_total.get()),
];

/// See the module's page.
#[derive(Debug, Default)]
pub struct Metrics {
    /// The counters as the last line left them.
    reported: [u64; COUNT],
}

impl Metrics {
    /// What has come since the last line, as one line for CloudWatch.
    pub fn line(&mut self, ledger: &Ledger, function_name: &str, now: EpochMs) -> String {
        let (mut definitions, mut values) = (Vec::new(), String::new());
        for ((name, unit, count), reported) in METRICS.iter().zip(&mut self.reported) {
            let total = count(ledger);
            values += &format!(r#","{name}":{}"#, total.saturating_sub(*reported));
            *reported = total;
            definitions.push(format!(r#"{{"Name":"{name}","Unit":"{unit}"}}"#));
        }
        let function_name =
            serde_json::to_string(function_name).unwrap_or_else(|_| "\"\"".to_owned());
        let definitions = definitions.join(",");
        format!(
            concat!(
                r#"{{"_aws":{{"Timestamp":{},"CloudWatchMetrics":[{{"Namespace":"{}","Dimensions":[["FunctionName"]],"Metrics":[{}]}}]}},"#,
                r#""FunctionName":{}{}}}"#,
                "\n"
            ),
            now, NAMESPACE, definitions, function_name, values
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_says_what_is_new_and_names_what_it_says() {
        let (ledger, mut metrics) = (Ledger::default(), Metrics::default());
        let mut line = |ledger: &Ledger| -> serde_json::Value {
            let line = metrics.line(ledger, "orders \"7\"", 1_795_425_345_012);
            assert_eq!(line.matches('\n').count(), 1);
            serde_json::from_str(&line).unwrap()
        };
        ledger.received.add(7);
        ledger.dropped_queue.add(2);
        ledger.dropped_rejected.add(1);
        ledger.request_error("ThrottlingException");
        ledger.request_error("InternalFailure");
        let first = line(&ledger);
        assert_eq!(
            (&first["Received"], &first["Dropped"], &first["RequestErrors"]),
            (&7.into(), &3.into(), &2.into())
        );
        ledger.received.add(5);
        let second = line(&ledger);
        assert_eq!((&second["Received"], &second["Dropped"]), (&5.into(), &0.into()));
        // By the embedded metric format's own rules: each metric named is a number beside `_aws`,
        // each dimension a string.
        let directive = &second["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(
            (&directive["Namespace"], &second["_aws"]["Timestamp"]),
            (&NAMESPACE.into(), &1_795_425_345_012_u64.into())
        );
        assert_eq!(directive["Dimensions"], serde_json::json!([["FunctionName"]]));
        assert_eq!(second["FunctionName"], "orders \"7\"");
        for metric in directive["Metrics"].as_array().unwrap() {
            assert!(second[metric["Name"].as_str().unwrap()].is_u64(), "{metric}");
            assert!(["Count", "Bytes", "Milliseconds"].contains(&metric["Unit"].as_str().unwrap()));
        }
    }
}
