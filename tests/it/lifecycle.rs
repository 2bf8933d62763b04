//! Registration, subscription, `/next`, SHUTDOWN; and what Lambda may answer instead.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Child, Stdio};

use sandbox::{Failure, Invocation, Kinesis, ms};

use crate::{extension, ledger, runner_command};

#[test]
fn a_cold_start_calls_lambda_in_order_and_nobody_else() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).start();
    let init = lambda.init().unwrap();

    let calls: Vec<String> = init.calls.iter().map(|call| call.line()).collect();
    assert_eq!(
        calls,
        [
            "POST /2020-01-01/extension/register",
            "PUT /2022-07-01/telemetry",
            "GET /2020-01-01/extension/event/next"
        ]
    );
    assert_eq!(init.calls[0].header("Lambda-Extension-Name"), Some("kinesis-telemetry-extension"));
    assert_eq!(kinesis.puts().len(), 0, "no call to AWS before the first /next");
    assert!(lambda.shutdown("spindown").is_clean());
}

#[test]
fn the_subscription_asks_for_what_the_settings_say() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis)
        .setting("TYPES", "function,extension")
        .setting("BUFFER_TIMEOUT_MS", "100")
        .setting("BUFFER_MAX_BYTES", "262144")
        .setting("BUFFER_MAX_ITEMS", "1000")
        .start();
    let init = lambda.init().unwrap();
    let body: serde_json::Value = serde_json::from_str(&init.calls[1].body).unwrap();
    assert_eq!(body["schemaVersion"], "2025-01-29");
    // `platform` is asked for although it is not shipped: it tells when an invocation ends.
    assert_eq!(body["types"], serde_json::json!(["platform", "function", "extension"]));
    assert_eq!(
        body["buffering"],
        serde_json::json!({"maxItems": 1000, "maxBytes": 262_144, "timeoutMs": 100})
    );
    lambda.invoke(Invocation::new().text("only this")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    assert!(account.events.iter().all(|event| !event.kind.starts_with("platform.")));
    assert_eq!(account.of_type("function").len(), 1);
}

#[test]
fn an_older_schema_is_asked_for_where_the_newest_is_refused() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).refuse_schema("2025-01-29").start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("hello")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    assert_eq!(lambda.subscription().unwrap().schema, "2022-12-13");
    kinesis.account().compare(&lambda.sent()).assert_clean();
}

#[test]
fn no_telemetry_api_means_idle_with_one_line() {
    for status in [202, 404, 400, 403, 500] {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).subscribe_answers(status).start();
        lambda.init().unwrap();
        for _ in 0..3 {
            let report = lambda.invoke(Invocation::new().text("hello")).unwrap();
            assert!(!report.deadline_exceeded);
        }
        assert!(lambda.shutdown("spindown").is_clean());
        assert_eq!(lambda.stderr().len(), 1, "{status}: {:?}", lambda.stderr());
        assert!(lambda.stderr()[0].contains(&status.to_string()), "{:?}", lambda.stderr());
        assert_eq!(kinesis.puts().len(), 0);
    }
}

#[test]
fn a_refused_registration_ends_the_extension_with_one_line() {
    for status in [403, 500] {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).register_answers(status).start();
        let error = lambda.init().unwrap_err();
        assert!(matches!(error.kind, Failure::Crash(exit) if exit.code == Some(1)), "{error}");
        assert_eq!(lambda.stderr().len(), 1);
        assert!(lambda.stderr()[0].contains(&status.to_string()), "{:?}", lambda.stderr());
    }
}

#[test]
fn a_next_that_fails_now_and_then_is_tried_again() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).next_answers(2, 500).next_answers(3, 403).start();
    lambda.init().unwrap();
    for _ in 0..3 {
        lambda.invoke(Invocation::new().text("hello")).unwrap();
    }
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
}

#[test]
fn a_sandbox_that_is_never_invoked_ships_its_init() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).runtime_init(ms(20), &["loading"]).start();
    lambda.init().unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    let account = kinesis.account();
    assert_eq!(account.of_type("platform.initStart").len(), 1);
    assert_eq!(account.containing("loading")[0].json()["coldStart"], true);
}

#[test]
fn the_ledger_is_the_last_event_and_agrees_with_the_stream() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).start();
    lambda.init().unwrap();
    for n in 0..5 {
        lambda.invoke(Invocation::new().text(&format!("line {n}"))).unwrap();
    }
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    account.compare(&lambda.sent()).assert_clean();
    assert_eq!(account.events.last().unwrap().kind, "kinesis-telemetry.ledger");
    let ledger = ledger(&kinesis);
    assert_eq!(ledger["received"].as_u64().unwrap() as usize, lambda.sent().len());
    assert_eq!(ledger["shutdownReason"], "spindown");
    assert_eq!(ledger["retried"], 0);
    let processes = account.by_process();
    assert_eq!(processes.len(), 1);
    let process = processes.values().next().unwrap();
    assert!(process.gaps.is_empty() && process.repeats.is_empty());
    assert_eq!(process.highest as usize, lambda.sent().len());
}

#[test]
fn the_last_report_of_the_last_invocation_is_on_the_stream() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).start();
    lambda.init().unwrap();
    let report = lambda.invoke(Invocation::new()).unwrap();
    let shutdown = lambda.shutdown("spindown");
    assert!(shutdown.is_clean());
    let reports: Vec<_> = kinesis
        .account()
        .of_type("platform.report")
        .iter()
        .map(|e| e.json()["requestId"].clone())
        .collect();
    assert_eq!(reports, [serde_json::json!(report.request_id)]);
}

/// `LOG_LEVEL`: nothing by default; `info` says how it starts and how it ends; `debug` says each request as well.
#[test]
fn each_log_level_says_what_it_is_for() {
    for (level, start_and_end, requests) in
        [("error", 0, 0), ("warn", 0, 0), ("info", 2, 0), ("debug", 2, 4)]
    {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).setting("LOG_LEVEL", level).start();
        lambda.init().unwrap();
        for _ in 0..3 {
            lambda.invoke(Invocation::new().text("hello")).unwrap();
        }
        assert!(lambda.shutdown("spindown").is_clean());
        let lines = lambda.stderr();
        let (sent, others): (Vec<_>, Vec<_>) =
            lines.iter().partition(|line| line.contains(" DEBUG PutRecords of "));
        assert_eq!(others.len(), start_and_end, "{level}: {lines:?}");
        assert_eq!(sent.len(), if requests == 0 { 0 } else { kinesis.puts().len() }, "{lines:?}");
        assert!(sent.len() >= requests, "{lines:?}");
        for line in sent {
            assert!(
                line.contains(" bytes, took ") && line.contains("HTTP 200, request id "),
                "{line}"
            );
        }
        if let [first, last] = others.as_slice() {
            for part in [
                &format!("version {}", env!("CARGO_PKG_VERSION")),
                "platform and function events to telemetry in us-east-1",
                "flush mode end",
                "credentials from the environment",
            ] {
                assert!(first.contains(part), "{part} missing in {first}");
            }
            let ledger = last.split_once("the end: ").unwrap().1;
            let ledger: serde_json::Value = serde_json::from_str(ledger).unwrap();
            assert_eq!(ledger["received"], ledger["delivered"], "{ledger}");
            assert_eq!(ledger["shutdownReason"], "spindown");
        }
        kinesis.account().compare(&lambda.sent()).assert_clean();
    }
}

/// The extension with `listener` for Lambda's API.
fn beside(listener: &TcpListener, kinesis: &Kinesis) -> Child {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    runner_command()
        .env_clear()
        .env("AWS_LAMBDA_RUNTIME_API", listener.local_addr().unwrap().to_string())
        .env("AWS_REGION", kinesis.region())
        .env("AWS_ENDPOINT_URL_KINESIS", kinesis.url())
        .env("AWS_ACCESS_KEY_ID", &kinesis.credentials().access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &kinesis.credentials().secret_access_key)
        .env("AWS_SESSION_TOKEN", kinesis.credentials().session_token.clone().unwrap_or_default())
        .env("KINESIS_TELEMETRY_STREAM", kinesis.stream_name())
        .env("KINESIS_TELEMETRY_PORT", port.to_string())
        .env("KINESIS_TELEMETRY_SPOOL_BYTES", "0")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Some emulators do, and what survives a freeze may be such a connection. No call is made twice
/// for it, nothing is waited for, and nothing is said; whatever form the answer has.
#[test]
fn an_api_that_hangs_up_behind_each_answer_gets_each_call_once() {
    let kinesis = Kinesis::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let extension = beside(&listener, &kinesis);
    let shutdown = r#"{"eventType":"SHUTDOWN","deadlineMs":DEADLINE,"shutdownReason":"spindown"}"#;
    let answers = [
        "HTTP/1.1 200 OK\r\nLAMBDA-EXTENSION-IDENTIFIER: id\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\n{}\r\n0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK",
        &format!("HTTP/1.0 200 OK\r\n\r\n{shutdown}"),
    ];
    let mut asked = Vec::new();
    for answer in answers {
        let mut stream = listener.accept().unwrap().0;
        let mut request = [0; 4096];
        let length = stream.read(&mut request).unwrap();
        asked.push(String::from_utf8_lossy(&request[..length]).into_owned());
        let deadline = sandbox::unix_millis(std::time::SystemTime::now()) + 2000;
        let answer = answer.replace("DEADLINE", &deadline.to_string());
        stream.write_all(answer.as_bytes()).unwrap();
    }
    let ended = extension.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    let lines = asked.iter().map(|request| request.lines().next().unwrap()).collect::<Vec<_>>();
    let expected = [
        "POST /2020-01-01/extension/register HTTP/1.1",
        "PUT /2022-07-01/telemetry HTTP/1.1",
        "GET /2020-01-01/extension/event/next HTTP/1.1",
    ];
    assert_eq!(lines, expected);
    assert!(
        asked[1..]
            .iter()
            .all(|request| request.contains("\r\nLambda-Extension-Identifier: id\r\n"))
    );
    assert_eq!(ledger(&kinesis)["shutdownReason"], "spindown");
}
