//! `KEEP` and `SUMMARY`: what the libraries print that stand between a function and its runtime.

use sandbox::{Invocation, Kinesis};
use serde_json::{Value, json};

use crate::keep::{assert_balance, summaries, summary, thinning};
use crate::ledger;

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

/// What the summary says of an invocation with one line of that level, with `KEEP_LEVEL=ERROR`.
fn of_level(level: &str) -> [Value; 4] {
    let reason = if matches!(level, "ERROR" | "FATAL") { "level" } else { "share" };
    ["success".into(), Value::Null, reason.into(), json!({level: 1})]
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
        // Log4j's JsonLayout, unless it is asked for one line.
        (
            text(
                "{\n  \"thread\" : \"main\",\n  \"level\" : \"ERROR\",\n  \"message\" : \"no\"\n}\n",
            ),
            "ERROR",
        ),
        (console("INFO", r#"{"level":"error","message":"no such order"}"#), "ERROR"),
        (console("INFO", r#"{"message":"level: \"ERROR\"","level":"warn"}"#), "WARN"),
        (console("info", r#"{"level":"Error","message":"no"}"#), "ERROR"),
        // The function has called it an error, whatever it prints.
        (console("ERROR", r#"{"level":"info","message":"no such order"}"#), "ERROR"),
        (console("INFO", r#"{"user":{"level":"ERROR"}}"#), "INFO"),
        (console("INFO", r#"told that {"level":"ERROR"}"#), "INFO"),
    ];
    let (lines, levels): (Vec<_>, Vec<_>) = lines.into_iter().unzip();
    let expected: Vec<_> = levels.into_iter().map(of_level).collect();
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
    let expected: Vec<_> = levels.into_iter().map(of_level).collect();
    assert_eq!(said_of("ERROR", lines), expected);
}

/// .NET's runtime writes `trce` before a line that was given to it without a level. So did
/// `Amazon.Lambda.Logging.AspNetCore` up to 3.1.1 with each line of `ILogger`, which says its level
/// itself. Each of these errors was a TRACE, and `MIN_LEVEL` left it out.
#[test]
fn a_level_is_known_of_dotnets_logger_that_says_it_in_the_line() {
    let trace = |said: &str| text(&format!("2026-05-11T08:30:00.002Z\t{ID}\ttrce\t{said}\n"));
    let older = |said: &str| text(&format!("2026-05-11T08:30:00.002Z\t{ID}\t{said}\n"));
    let object = |said: &str| {
        Invocation::new().json(&json!({"timestamp": "2026-05-11T08:30:00.002Z", "level": "Trace", "requestId": ID, "traceId": "1-62e9", "message": said}))
    };
    let lines = vec![
        trace("[Error] Orders.Function: no such order"),
        trace("[Critical] Orders.Function: no such order"),
        trace("[Information] Orders.Function: hello"),
        trace("[17] orders"),
        older("[Error] Orders.Function: no such order"),
        older("[Information] Orders.Function: Error count: 3"),
        object("[Error] Orders.Function: no such order"),
        object("[Information] Orders.Function: hello"),
        object("orders"),
    ];
    let levels = ["ERROR", "FATAL", "INFO", "TRACE", "ERROR", "INFO", "ERROR", "INFO", "TRACE"];
    assert_eq!(said_of("ERROR", lines), levels.map(of_level));
}

/// `Console.Write` has no prefix in .NET, and so the logger that a web application of ASP.NET Core
/// has if nobody chooses one. Each of these errors said no level.
#[test]
fn a_level_is_known_of_the_console_logger_of_dotnet() {
    let lambdas = |said: &str| {
        Invocation::new().json(
            &json!({"timestamp": "2026-05-11T08:30:00.002Z", "level": "INFO", "message": said}),
        )
    };
    let lines = vec![
        text("fail: Orders.Function[0]\n      no such order\n"),
        text("crit: Orders.Function[17]\n      no such order\n"),
        text("info: Orders.Function[0]\n      hello\n"),
        text("fail: to find it\n"),
        lambdas("fail: Orders.Function[0]\n      no such order\n"),
    ];
    let mut expected = ["ERROR", "FATAL", "INFO", "", "ERROR"].map(of_level);
    expected[3][3] = json!({});
    assert_eq!(said_of("ERROR", lines), expected);
}

/// Node.js's console leaves an object an object, where the log format is JSON. This error was an
/// INFO.
#[test]
fn a_level_is_known_of_an_object_in_nodes_object() {
    let node = |said: Value| {
        Invocation::new().json(&json!({"timestamp": "2026-05-11T08:30:00.002Z", "level": "INFO", "requestId": ID, "message": said}))
    };
    let lines = vec![
        node(json!({"level": "error", "text": "no such order"})),
        node(json!({"order": {"level": "error"}})),
    ];
    let said = said_of("ERROR", lines);
    assert_eq!(said[0], ["success".into(), Value::Null, "level".into(), json!({"ERROR": 1})]);
    assert_eq!(said[1], ["success".into(), Value::Null, "share".into(), json!({"INFO": 1})]);
}

/// `MIN_LEVEL` read only what a runtime's console or Lambda had called a line. So the invocation was
/// sent because of an error, and the error was not.
#[test]
fn min_level_leaves_out_no_line_that_keep_takes_for_an_error() {
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis).setting("MIN_LEVEL", "ERROR").start();
    lambda.init().unwrap();
    let own = json!({"level": "Error", "message": "no such order"}).to_string();
    let object = |level: &str, id: Option<&str>, said: &str| {
        let mut object =
            json!({"timestamp": "2026-05-11T08:30:00.002Z", "level": level, "message": said});
        if let Some(id) = id {
            object["requestId"] = id.into();
        }
        object
    };
    let errors = [
        object("INFO", Some(ID), &own),
        object("Information", Some(ID), &own),
        object("INFO", None, "E, [2026-05-11T08:30:00.001234 #8] ERROR -- : no such order"),
        object("INFO", None, r#"2026/05/11 08:30:00 {"errorMessage":"no","errorType":"x"}"#),
    ];
    lambda.invoke(Invocation::new()).unwrap();
    for error in &errors {
        let quiet = object("INFO", Some(ID), "hello");
        lambda.invoke(Invocation::new().json(&quiet).json(error)).unwrap();
    }
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    let logged = account.of_type("function");
    let logged: Vec<_> = logged.into_iter().map(sandbox::StoredEvent::record_json).collect();
    assert_eq!(logged, errors);
}

/// Where a line begins with such a word in a sentence it was counted as an error; where it says one
/// before a colon, behind a thread or a logger, it was not.
#[test]
fn a_sentence_is_no_level_and_what_stands_before_a_colon_is_one() {
    let lines = [
        ("2026/05/11 08:30:00 Alert sent to 3 users\n", ""),
        ("2026/05/11 08:30:00 Fatal errors: 0\n", ""),
        ("2026/05/11 08:30:00 Error handling installed\n", ""),
        ("[alert] queue nearly full", ""),
        ("2026/05/11 08:30:00 error: cannot connect\n", "ERROR"),
        ("2026/05/11 08:30:00 Error reading a.txt: EOF\n", "ERROR"),
        ("2026/05/11 08:30:00 ERROR cannot connect\n", "ERROR"),
        ("2026/05/11 08:30:00 [ERROR] cannot connect\n", "ERROR"),
        ("2026-05-11 08:30:00.123 [main] ERROR a.Handler - no such order\n", "ERROR"),
        ("2026-05-11 08:30:00,123 - orders - CRITICAL - no such order\n", "FATAL"),
        ("2026-05-11 08:30:00.123 | ERROR    | app:find:12 - no such order\n", "ERROR"),
        ("[main] ERROR a.Handler - no such order\n", "ERROR"),
        ("[08:30:00 ERR] no such order\n", "ERROR"),
        ("2026-05-11 08:30:00.123 +00:00 [ERR] no such order\n", "ERROR"),
        ("2026-05-11 08:30:00 [error    ] no such order   order=17\n", "ERROR"),
        ("[ERROR   ] no such order\n", "ERROR"),
        ("[INFO ] Error count: 3\n", "INFO"),
        ("2026/05/11 08:30:00 self-test error: 0 failures\n", ""),
        ("ERROR:root:no such order\n", "ERROR"),
        ("Error: cannot connect\n", "ERROR"),
    ];
    let expected: Vec<_> = lines
        .iter()
        .map(|(_, level)| {
            let mut said = of_level(level);
            if level.is_empty() {
                said[3] = json!({});
            }
            said
        })
        .collect();
    assert_eq!(said_of("ERROR", lines.iter().map(|(line, _)| text(line)).collect()), expected);
}

/// It was taken for what Lambda writes around a line that is no JSON, and its message searched.
#[test]
fn an_object_of_a_logger_is_none_that_lambda_wrote() {
    let object = |value: Value| Invocation::new().json(&value);
    let lines = vec![
        object(json!({"level": "info", "message": "[ERROR] of a part, which was mended"})),
        object(json!({"level": "info", "message": {"level": "error"}})),
        object(json!({"level": "info", "message": "[ERROR] x", "timestamp": "t", "label": "x"})),
        object(json!({"timestamp": "t", "level": "INFO", "message": "[ERROR] no such order"})),
    ];
    assert_eq!(said_of("ERROR", lines), ["INFO", "INFO", "INFO", "ERROR"].map(of_level));
}

/// None of these said a level.
#[test]
fn a_level_is_known_under_every_key_that_loggers_use() {
    let objects = [
        (json!({"level": 50, "time": 1_778_488_200_003_u64, "msg": "no"}), "ERROR"),
        (json!({"level": 30, "time": 1_778_488_200_003_u64, "msg": "hello"}), "INFO"),
        (json!({"severity": "CRITICAL", "message": "no"}), "FATAL"),
        (json!({"asctime": "t", "levelname": "ERROR", "message": "no"}), "ERROR"),
        (json!({"@timestamp": "t", "log.level": "error", "message": "no"}), "ERROR"),
        (json!({"@t": "t", "@l": "Error", "@mt": "no"}), "ERROR"),
        (json!({"EventId": 17, "LogLevel": "Error", "Message": "no"}), "ERROR"),
        (json!({"Timestamp": "t", "Level": "Fatal", "MessageTemplate": "no"}), "FATAL"),
        (json!({"severity": "critical", "level": "info", "message": "of an alarm"}), "INFO"),
    ];
    let printed = |(object, _): &(Value, _)| text(&format!("{object}\n"));
    let lines = objects.iter().map(|(object, _)| Invocation::new().json(object));
    let lines = lines.chain(objects.iter().map(printed)).collect();
    let levels = objects.iter().chain(&objects).map(|(_, level)| of_level(level));
    assert_eq!(said_of("ERROR", lines), levels.collect::<Vec<_>>());
}

/// They belonged to no invocation: an error in them kept none, and all of them were sent.
#[test]
fn logs_that_say_the_request_id_as_powertools_does_are_of_their_invocation() {
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis).managed_instances().start();
    lambda.init().unwrap();
    let id = |n| format!("5b0c7e52-91f4-4c3e-9d27-{n:012}");
    let line = |key: &str, n, level: &str| json!({"level": level, "message": format!("line {n}"), key: id(n)});
    lambda.invoke(Invocation::new()).unwrap();
    for (n, key) in (0..).zip(["function_request_id", "awsRequestId", "aws_request_id"]) {
        let dull = Invocation::new().request_id(&id(n)).json(&line(key, n, "INFO"));
        lambda.invoke(dull).unwrap();
        let loud = Invocation::new().request_id(&id(n + 10)).json(&line(key, n + 10, "ERROR"));
        lambda.invoke(loud).unwrap();
    }
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    let reasons: Vec<_> = summaries(&account)
        .into_iter()
        .skip(1)
        .map(|one| (one["reason"].clone(), one["levels"].clone()))
        .collect();
    let pair = [("share".into(), json!({"INFO": 1})), ("level".into(), json!({"ERROR": 1}))];
    assert_eq!(reasons, [pair.clone(), pair.clone(), pair].concat());
    let lines: Vec<_> = account
        .containing("line ")
        .iter()
        .map(|event| event.record_json()["message"].clone())
        .collect();
    assert_eq!(lines, ["line 10", "line 11", "line 12"]);
    // A start, a line and a report of each dull one.
    assert_eq!(ledger(&kinesis)["thinned"], 9);
}

/// `MIN_LEVEL` leaves out only what names a level in `level`, as ever.
#[test]
fn min_level_leaves_out_no_number_and_no_other_key() {
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis).setting("KEEP", "100%").setting("MIN_LEVEL", "WARN").start();
    lambda.init().unwrap();
    let sent = [
        json!({"level": 30, "msg": "line"}),
        json!({"severity": "INFO", "message": "line"}),
        json!({"@l": "Debug", "@mt": "line"}),
    ];
    let invocation = sent.iter().fold(Invocation::new(), |one, line| one.json(line));
    let report = lambda.invoke(invocation.json(&json!({"level": "info", "msg": "line"}))).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    assert_eq!(account.of_type("function").len(), sent.len());
    assert_eq!(summary(&account, &report)["levels"], json!({"DEBUG": 1, "INFO": 3}));
}
