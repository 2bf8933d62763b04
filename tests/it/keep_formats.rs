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

/// Drivers of databases and sockets throw exceptions that say a number behind their type. Each of
/// these invocations was a success in its summary.
#[test]
fn an_exception_of_dotnet_may_say_a_number_behind_its_type() {
    let end = "\n   at Amazon.Lambda.RuntimeSupport.LambdaBootstrap.InvokeOnceAsync()\n";
    let fail = |said: &str| text(&format!("2026-05-11T08:30:00.002Z\t{ID}\tfail\t{said}"));
    let types = [
        ("Microsoft.Data.SqlClient.SqlException", " (0x80131904): Timeout expired."),
        ("Npgsql.PostgresException", " (0x80004005): 42P01: relation \"orders\" does not exist"),
        ("System.Net.Sockets.SocketException", " (111): Connection refused"),
        ("System.Runtime.InteropServices.ExternalException", " (0x80004005)"),
    ];
    let mut lines: Vec<_> =
        types.iter().map(|(name, behind)| fail(&format!("{name}{behind}{end}"))).collect();
    // A message of the function's own is no type.
    lines.push(fail(&format!("we are (here): no{end}")));
    let said = said_of("none", lines);
    let mut expected: Vec<[Value; 4]> = types
        .iter()
        .map(|(name, _)| ["error".into(), (*name).into(), "failed".into(), json!({"ERROR": 1})])
        .collect();
    expected.push(["success".into(), Value::Null, "share".into(), json!({"ERROR": 1})]);
    assert_eq!(said, expected);
}

/// The logger that comes with Go's runtime writes other keys than `log/slog` itself, and what that
/// runtime prints of an error where it is the default. Each of these failures was a success in its
/// summary.
#[test]
fn an_error_of_go_is_known_with_the_keys_of_the_runtimes_logger() {
    let go = json!({"errorMessage": "no \"go\"", "errorType": "errorString"}).to_string();
    let quoted = serde_json::to_string(&go).unwrap();
    let object = |message: &str| json!({"timestamp": "2026-05-11T08:30:00.1Z", "level": "INFO", "message": message});
    let failures = [
        text(&format!("timestamp=2026-05-11T08:30:00.1Z level=INFO message={quoted}\n")),
        text(&format!(
            r#"{{"timestamp":"2026-05-11T08:30:00.1Z","level":"INFO","message":{quoted}}}"#
        )),
        Invocation::new().json(&object(&go)),
    ];
    let caught = [
        text(&format!("timestamp=2026-05-11T08:30:00.1Z level=INFO message=no error={quoted}\n")),
        Invocation::new().json(&object("no go")),
    ];
    let counted = |status: &str, name: Value, reason: &str| {
        [status.into(), name, reason.into(), json!({"INFO": 1})]
    };
    let mut expected = vec![counted("error", "errorString".into(), "failed"); failures.len()];
    expected.resize(failures.len() + caught.len(), counted("success", Value::Null, "share"));
    assert_eq!(said_of("none", failures.into_iter().chain(caught).collect()), expected);
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

/// Where the log format is JSON, Node.js's and .NET's consoles put what they print into an object of
/// their own, and so does Lambda with lines of Ruby and Go. Each of these errors was an INFO.
#[test]
fn a_level_is_known_of_what_stands_as_text_in_an_object() {
    let own = json!({"level": "error", "message": "no such order"}).to_string();
    let node = |message: &str| json!({"timestamp": "2026-05-11T08:30:00.002Z", "level": "INFO", "requestId": ID, "message": message});
    let mut dotnet = node(&own);
    dotnet["level"] = "Information".into();
    dotnet["traceId"] = "1-62e9".into();
    let lambdas = |level: &str, message: &str| json!({"timestamp": "2026-05-11T08:30:00.002Z", "level": level, "message": message});
    let mut python = node(&own);
    python["logger"] = "root".into();
    let mut louder = node(&json!({"level": "info"}).to_string());
    louder["level"] = "ERROR".into();
    let lines = [
        (node(&own), "ERROR"),
        (dotnet, "ERROR"),
        (louder, "ERROR"),
        (lambdas("INFO", "E, [2026-05-11T08:30:00.001234 #8] ERROR -- : no"), "ERROR"),
        (lambdas("UNDEFINED", "time=2026-05-11T08:30:00.1Z level=ERROR msg=no"), "ERROR"),
        (node("[ERROR] of another, which was caught"), "INFO"),
        (node(&format!("told that {own}")), "INFO"),
        // A logger has written it, and knows what it has called it.
        (python, "INFO"),
    ];
    let (lines, levels): (Vec<_>, Vec<_>) =
        lines.iter().map(|(line, level)| (Invocation::new().json(line), *level)).unzip();
    let expected: Vec<_> = levels
        .into_iter()
        .map(|level| {
            let reason = if level == "ERROR" { "level" } else { "share" };
            ["success".into(), Value::Null, reason.into(), json!({level: 1})]
        })
        .collect();
    assert_eq!(said_of("ERROR", lines), expected);
}
