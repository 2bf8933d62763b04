//! Settings: bad ones are reported all at once and leave the function unharmed; the documented ones are the real ones.

use std::net::TcpListener;
use std::process::Output;

use kinesis_telemetry_extension::config;
use sandbox::{Failure, Invocation, Kinesis};

use crate::{docs, extension, runner_command};

fn run(arguments: &[&str]) -> Output {
    runner_command().args(arguments).env_clear().output().unwrap()
}

#[test]
fn all_bad_settings_are_reported_in_one_line_and_the_function_is_unharmed() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis)
        .setting("FLUSH", "banana")
        .setting("PORT", "9001")
        .setting("STREAM", "")
        .setting("METRICS", "statsd")
        .start();
    lambda.init().unwrap();
    for _ in 0..3 {
        let report = lambda.invoke(Invocation::new().text("hello")).unwrap();
        assert!(!report.deadline_exceeded);
        assert_eq!(report.in_flight_at_next, 0);
    }
    assert!(lambda.shutdown("spindown").is_clean());
    let lines = lambda.stderr();
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in [
        "KINESIS_TELEMETRY_FLUSH=\"banana\"",
        "adaptive, end, next",
        "KINESIS_TELEMETRY_PORT=\"9001\"",
        "KINESIS_TELEMETRY_STREAM",
        "METRICS",
    ] {
        assert!(lines[0].contains(part), "{part} missing in {}", lines[0]);
    }
    assert_eq!(kinesis.puts().len(), 0);
}

#[test]
fn a_missing_region_or_missing_credentials_leave_the_function_alone() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).without_credentials().start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("hello")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    assert!(
        lambda.stderr().iter().any(|line| line.contains("AWS_ACCESS_KEY_ID")),
        "{:?}",
        lambda.stderr()
    );

    let lambda = extension(&kinesis).env("AWS_REGION", "").env("AWS_DEFAULT_REGION", "").start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("hello")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    assert!(lambda.stderr()[0].contains("AWS_REGION"), "{:?}", lambda.stderr());
}

#[test]
fn on_error_fail_fails_the_init() {
    let kinesis = Kinesis::start();
    let lambda =
        extension(&kinesis).setting("RECORD", "banana").setting("ON_ERROR", "fail").start();
    let error = lambda.init().unwrap_err();
    assert!(
        matches!(&error.kind, Failure::Reported("Extension.InitError", reason, _) if reason == "Extension.BadSettings"),
        "{error}"
    );
}

#[test]
fn a_port_that_is_taken_is_one_line_and_no_harm() {
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).setting("PORT", &port).start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("hello")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    assert!(
        lambda.stderr()[0].contains(&format!("KINESIS_TELEMETRY_PORT={port}")),
        "{:?}",
        lambda.stderr()
    );
}

#[test]
fn a_misspelt_setting_is_reported_and_telemetry_is_sent() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).setting("PARTITIONKEY", "random").start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("hello")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    assert_eq!(lambda.stderr().len(), 1);
    assert!(lambda.stderr()[0].contains("KINESIS_TELEMETRY_PARTITIONKEY"));
    kinesis.account().compare(&lambda.sent()).assert_clean();
}

#[test]
fn the_extensions_own_lines_follow_the_log_format() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).json_logs().setting("FLUSH", "banana").start();
    lambda.init().unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let line: serde_json::Value = serde_json::from_str(&lambda.stderr()[0]).unwrap();
    assert_eq!(line["level"], "ERROR");
    assert!(line["message"].as_str().unwrap().contains("banana"));
}

#[test]
fn help_shows_every_setting_and_version_the_version() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    for setting in config::SETTINGS {
        assert!(help.contains(&format!("{}{}", config::PREFIX, setting.name)), "{}", setting.name);
        assert!(help.contains(&setting.allowed.to_string()), "{}", setting.name);
    }
    let version = run(&["--version"]);
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        format!("kinesis-telemetry-extension {}\n", env!("CARGO_PKG_VERSION"))
    );
    for arguments in [&["--banana"][..], &["--check", "--banana"], &["--help", "--banana"]] {
        let unknown = run(arguments);
        assert_eq!((unknown.status.code(), unknown.stdout.len()), (Some(2), 0), "{arguments:?}");
        assert!(String::from_utf8(unknown.stderr).unwrap().contains("--banana"));
    }
}

#[test]
fn a_start_outside_lambda_says_so() {
    let started = run(&[]);
    assert_eq!(started.status.code(), Some(1));
    let said = String::from_utf8(started.stderr).unwrap();
    assert!(
        said.contains("AWS_LAMBDA_RUNTIME_API is not set") && said.contains("--check"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1);
}

#[test]
fn settings_that_leave_nothing_to_send_are_reported() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).setting("EXCLUDE", "*").start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("hello")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let lines = lambda.stderr();
    assert!(lines.len() == 1 && lines[0].contains("KINESIS_TELEMETRY_EXCLUDE"), "{lines:?}");
}

/// It was said that nothing is sent.
#[test]
fn summaries_alone_are_something_to_send() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).setting("EXCLUDE", "*").setting("SUMMARY", "invocation");
    let lambda = lambda.start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("hello")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    assert_eq!(lambda.stderr(), Vec::<String>::new());
    assert_eq!(kinesis.account().of_type("kinesis-telemetry.invocation").len(), 1);
}

#[test]
fn the_readme_shows_the_same_table() {
    docs::assert_table("README.md", "settings", &config::markdown(), "the_same_table");
}
