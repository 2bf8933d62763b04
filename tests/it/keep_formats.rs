//! `KEEP` and `SUMMARY`: what the libraries print that stand between a function and its runtime.

use sandbox::{Invocation, Kinesis};
use serde_json::{Value, json};

use crate::keep::{assert_balance, summary, thinning};

const ID: &str = "5b0c7e52-91f4-4c3e-9d27-0a6f1e8b4c01";

/// What the summaries of invocations say that log one line each: status, type of the exception, why
/// they are sent, and levels.
fn said_of(level: &str, lines: Vec<Invocation>) -> Vec<[Value; 4]> {
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis).setting("KEEP_LEVEL", level).start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new()).unwrap();
    let reports: Vec<_> = lines.into_iter().map(|line| lambda.invoke(line).unwrap()).collect();
    assert!(lambda.shutdown("spindown").is_clean());
    assert_balance(&kinesis, &lambda);
    let account = kinesis.account();
    let said = |summary: Value| {
        ["status", "errorType", "reason", "levels"].map(|key| summary[key].clone())
    };
    reports.iter().map(|report| said(summary(&account, report))).collect()
}

fn text(line: &str) -> Invocation {
    Invocation::new().text(line)
}

/// Each of these lines said no level, or only that of the console.
#[test]
fn a_level_is_known_of_keys_and_values_and_of_json_in_a_console() {
    let console = |level: &str, said: &str| {
        text(&format!("2026-05-11T08:30:00.002Z\t{ID}\t{level}\t{said}\n"))
    };
    let lines = [
        (text("time=2026-05-11T08:30:00.1Z level=ERROR msg=\"no such order\" id=17\n"), "ERROR"),
        (text("timestamp=2026-05-11T08:30:00.1Z level=WARN message=no\n"), "WARN"),
        (text("time=\"2026-05-11T08:30:00Z\" level=error msg=\"no such order\"\n"), "ERROR"),
        (text("time=2026-05-11T08:30:00.1Z level=INFO msg=\"a level=ERROR\"\n"), "INFO"),
        (console("INFO", r#"{"level":"error","message":"no such order"}"#), "ERROR"),
        (console("INFO", r#"{"message":"level: \"ERROR\"","level":"warn"}"#), "WARN"),
        (console("info", r#"{"level":"Error","message":"no"}"#), "ERROR"),
        // The function has called it an error, whatever it prints.
        (console("ERROR", r#"{"level":"info","message":"no such order"}"#), "ERROR"),
        (console("INFO", r#"{"user":{"level":"ERROR"}}"#), "INFO"),
        (console("INFO", r#"told that {"level":"ERROR"}"#), "INFO"),
    ];
    let (lines, levels): (Vec<_>, Vec<_>) = lines.into_iter().unzip();
    let expected: Vec<_> = levels
        .into_iter()
        .map(|level| {
            let reason = if level == "ERROR" { "level" } else { "share" };
            ["success".into(), Value::Null, reason.into(), json!({level: 1})]
        })
        .collect();
    assert_eq!(said_of("ERROR", lines), expected);
}
