//! `KEEP` and `SUMMARY`: which invocations reach the stream whole, and that each is summed up once.

use std::collections::HashSet;
use std::sync::Arc;

use sandbox::{Account, Invocation, InvokeReport, Kinesis, Lambda, LambdaBuilder, ms};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{extension, ledger};

/// Sums up each invocation, and leaves out the ordinary ones.
pub(crate) fn thinning(kinesis: &Kinesis) -> LambdaBuilder {
    extension(kinesis).setting("KEEP", "0%").setting("SUMMARY", "invocation")
}

/// The records of all summaries, by request id.
pub(crate) fn summaries(account: &Account) -> Vec<Value> {
    let summaries = account.of_type("kinesis-telemetry.invocation");
    summaries.into_iter().map(sandbox::StoredEvent::record_json).collect()
}

#[track_caller]
pub(crate) fn summary(account: &Account, report: &InvokeReport) -> Value {
    let of_it: Vec<Value> = summaries(account)
        .into_iter()
        .filter(|summary| summary["requestId"] == report.request_id.as_str())
        .collect();
    assert_eq!(of_it.len(), 1, "{of_it:?}");
    of_it[0].clone()
}

/// All that Lambda handed over is on the stream, or counted as thinned; nothing leaves a gap.
#[track_caller]
pub(crate) fn assert_balance(kinesis: &Kinesis, lambda: &Lambda) {
    let account = kinesis.account();
    let comparison = account.compare(&lambda.sent());
    let ledgers = account.ledgers();
    let thinned: u64 = ledgers.iter().map(|ledger| ledger["thinned"].as_u64().unwrap()).sum();
    assert_eq!(comparison.lost.len() as u64, thinned, "{ledgers:?}");
    assert_eq!(
        (comparison.repeated.len(), comparison.changed.len(), comparison.wrong_request_id.len()),
        (0, 0, 0)
    );
    for (process, events) in account.by_process() {
        assert_eq!((events.gaps, events.repeats), (vec![], vec![]), "{process}");
    }
}

#[test]
fn ordinary_invocations_are_thinned_out_and_the_others_are_whole() {
    for mode in ["end", "next", "adaptive"] {
        let kinesis = Kinesis::start();
        let lambda =
            thinning(&kinesis).setting("FLUSH", mode).setting("KEEP_SLOW_MS", "200").start();
        lambda.init().unwrap();
        let invoke = |name: &str, invocation: Invocation| {
            let lines = (0..3).map(|n| format!("{name} line {n}"));
            lambda
                .invoke(lines.fold(invocation, |invocation, line| invocation.text(&line)))
                .unwrap()
        };
        let first = invoke("first", Invocation::new());
        let dull = invoke("dull", Invocation::new().text("[INFO] nothing of note"));
        let slow = invoke("slow", Invocation::new().work(ms(300)));
        let loud = invoke("loud", Invocation::new().text("[ERROR] no such order"));
        let json = invoke("json", Invocation::new().json(&serde_json::json!({"level": "ERROR"})));
        (0..5).for_each(|_| drop(invoke("dull", Invocation::new())));
        assert!(lambda.shutdown("spindown").is_clean());

        let account = kinesis.account();
        for (name, lines) in [("first", 3), ("dull", 0), ("slow", 3), ("loud", 3), ("json", 3)] {
            assert_eq!(account.containing(&format!("{name} line")).len(), lines, "{mode} {name}");
        }
        for (report, kept, reason) in [
            (&first, true, "first"),
            (&dull, false, "share"),
            (&slow, true, "slow"),
            (&loud, true, "level"),
            (&json, true, "level"),
        ] {
            let summary = summary(&account, report);
            assert_eq!(
                (&summary["kept"], &summary["reason"], &summary["status"]),
                (&kept.into(), &reason.into(), &"success".into()),
                "{mode}"
            );
            let events: u64 = if kept { account.events.iter() } else { [].iter() }
                .filter(|event| event.request_id.as_deref() == Some(report.request_id.as_str()))
                .count() as u64;
            assert!(!kept || summary["events"].as_u64().unwrap() + 1 == events, "{summary}");
        }
        assert_eq!(summaries(&account).len(), 10, "{mode}");
        assert_eq!(summary(&account, &loud)["levels"], serde_json::json!({"ERROR": 1}));
        assert_balance(&kinesis, &lambda);
        ledger(&kinesis);
        assert_eq!(lambda.stderr(), Vec::<String>::new());
    }
}

#[test]
fn failed_invocations_are_whole_whatever_ends_them() {
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis).timeout(ms(700)).start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new()).unwrap();
    let failures = [
        ("crash", Invocation::new().text("crash line").crashes()),
        ("timeout", Invocation::new().text("timeout line").times_out()),
    ];
    let mut ids = HashSet::new();
    for (name, invocation) in failures {
        let report = lambda.invoke(invocation).unwrap();
        assert!(report.reset.clone().unwrap().is_clean(), "{name}");
        ids.insert(report.request_id.clone());
        // The first one of each process is kept as well.
        lambda.invoke(Invocation::new()).unwrap();
        lambda.invoke(Invocation::new().text("dull line")).unwrap();
    }
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    for text in ["crash line", "timeout line"] {
        assert_eq!(account.containing(text).len(), 1, "{text}");
    }
    assert!(account.containing("dull line").is_empty());
    let failed: Vec<Value> = summaries(&account)
        .into_iter()
        .filter(|summary| ids.contains(summary["requestId"].as_str().unwrap()))
        .collect();
    assert_eq!(failed.len(), 2, "{failed:?}");
    for summary in failed {
        assert_eq!((&summary["kept"], &summary["reason"]), (&true.into(), &"failed".into()));
    }
    let lost = account.compare(&lambda.sent()).lost;
    assert!(lost.iter().all(|event| !ids.iter().any(|id| format!("{event:?}").contains(id))));
}

/// To the platform it is a success. As the clients of these runtimes print it, in their sources.
#[test]
fn an_exception_that_the_runtime_reported_is_a_failure() {
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis).setting("KEEP_LEVEL", "none").start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new()).unwrap();
    let class = "com.example.NoOrder";
    let java = format!("no java: {class}\n{class}: no java\n\tat {class}.of(NoOrder.java:7)\n\n");
    let javas = serde_json::json!({"level": "ERROR", "message": java, "AWSRequestId": "?"});
    let python =
        "[ERROR] ValueError: no\nTraceback (most recent call last):\n\u{a0}\u{a0}File \"a.py\"";
    let pythons = serde_json::json!({
        "timestamp": "2026-05-11T08:30:00Z", "log_level": "ERROR", "errorMessage": "no",
        "errorType": "KeyError", "requestId": "?", "stackTrace": []
    });
    let node = "2026-05-11T08:30:00.002Z\t5b0c7e52-91f4-4c3e-9d27-0a6f1e8b4c01\tERROR\tInvoke Error \t\
                {\"errorType\":\"TypeError\",\"errorMessage\":\"no\",\"stack\":[]}\n";
    let go = r#"2026/05/11 08:30:00 {"errorMessage":"no go","errorType":"errorString"}"#;
    let ruby = serde_json::json!({"errorMessage": "no ruby", "errorType": "Function<IOError>"});
    let rubys = serde_json::to_string_pretty(&ruby).unwrap();
    let reports = [
        (Invocation::new().text(&java), Some(class)),
        (Invocation::new().json(&javas), Some(class)),
        (Invocation::new().text(python), Some("ValueError")),
        (Invocation::new().json(&pythons), Some("KeyError")),
        (Invocation::new().text(node), Some("TypeError")),
        (Invocation::new().text(go), Some("errorString")),
        (Invocation::new().text("Error raised from handler method"), None),
        (
            Invocation::new().text("Error raised from handler method").text(&rubys),
            Some("Function<IOError>"),
        ),
        (Invocation::new().json(&ruby), Some("Function<IOError>")),
    ];
    let reports = reports.map(|(one, name)| (lambda.invoke(one).unwrap(), name));
    let caught = [
        Invocation::new().text("[ERROR] an error that was caught"),
        Invocation::new()
            .text("it was caught: java.io.IOException\njava.io.IOException: no\n\tat a.B"),
        Invocation::new().json(&serde_json::json!({
            "level": "ERROR", "msg": "it was caught", "errorMessage": "no", "errorType": "X",
            "requestId": "?"
        })),
    ];
    let caught = caught.map(|one| lambda.invoke(one).unwrap());
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    for report in &caught {
        assert_eq!(summary(&account, report)["status"], "success");
    }
    for (report, name) in &reports {
        let summary = summary(&account, report);
        let said = (&summary["status"], &summary["kept"], &summary["reason"]);
        assert_eq!(said, (&"error".into(), &true.into(), &"failed".into()), "{summary}");
        assert_eq!(summary["errorType"].as_str(), *name, "{summary}");
        assert!(summary["levels"]["ERROR"].is_u64(), "{summary}");
        // The platform's own word is left as it is.
        let own =
            account.of_type("platform.report").into_iter().map(sandbox::StoredEvent::record_json);
        let own = own.filter(|own| own["requestId"] == report.request_id.as_str());
        assert_eq!(own.map(|own| own["status"].clone()).collect::<Vec<_>>(), ["success"]);
    }
    assert!(account.containing("was caught").is_empty());
    assert_balance(&kinesis, &lambda);
}

/// The forms in which reports were not known: each of these invocations was a success in its summary,
/// and thinned out.
#[test]
fn an_exception_is_known_in_every_form_in_which_it_comes() {
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis).setting("KEEP_LEVEL", "none").start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new()).unwrap();
    // As Lambda writes `<` and `>`, which no JSON needs.
    let raw = |text: &str| {
        let record = serde_json::to_string(text).unwrap();
        let record = record.replace('<', "\\u003c").replace('>', "\\u003e");
        Invocation::new().event("function", record.as_str())
    };
    let go = r#"{"errorMessage":"no \"go\"","errorType":"errorString"}"#;
    let quoted = serde_json::to_string(go).unwrap();
    // Go's own logger may hand on to `log/slog`, and Lambda wraps what is no JSON in the JSON format.
    let slog = |key: &str, text: &str| {
        let record =
            serde_json::json!({"time": "2026-05-11T08:30:00.1Z", "level": "INFO", key: text});
        Invocation::new().json(&record)
    };
    let frames = [
        "System.Exception: no",
        "at Orders.Function.Find()",
        "at Amazon.Lambda.RuntimeSupport.LambdaBootstrap.<>c__DisplayClass2.<<InvokeOnceAsync>b__0>d.MoveNext()",
    ];
    let dotnet = format!(
        "2026-05-11T08:30:00.002Z\t5b0c7e52-91f4-4c3e-9d27-0a6f1e8b4c01\tfail\t{}\n",
        frames.join("\n   ")
    );
    let dotnets = serde_json::json!({
        "timestamp": "2026-05-11T08:30:00.002Z", "level": "Error", "requestId": "?", "traceId": "1-62e9",
        "message": "", "errorType": "System.Exception", "errorMessage": "no", "stackTrace": frames
    });
    let ruby = serde_json::json!({"errorMessage": "no", "errorType": "Function<IOError>", "stackTrace": []});
    let reports = [
        // A message that is a traceback itself.
        (
            raw(
                "[ERROR] Exception: Traceback (most recent call last):\n  File \"a.py\", line 4\nKeyError: 'x'\n\nTraceback (most recent call last):\n\u{a0}\u{a0}File \"a.py\", line 5",
            ),
            Some("Exception"),
        ),
        (raw(&serde_json::to_string_pretty(&ruby).unwrap()), Some("Function<IOError>")),
        (raw(&format!("2026/05/11 08:30:00.123456 {go}\n")), Some("errorString")),
        (raw(&format!("08:30:00 {go}\n")), Some("errorString")),
        (raw(&format!("orders: 2026/05/11 08:30:00 {go}\n")), Some("errorString")),
        (slog("msg", go), Some("errorString")),
        (slog("message", &format!("2026/05/11 08:30:00 {go}")), Some("errorString")),
        (slog("message", "Error raised from handler method"), None),
        (
            raw(&format!(r#"{{"time":"2026-05-11T08:30:00.1Z","level":"INFO","msg":{quoted}}}"#)),
            Some("errorString"),
        ),
        (raw(&format!("time=2026-05-11T08:30:00.1Z level=INFO msg={quoted}")), Some("errorString")),
        // With another level for those lines, and with the place in the source.
        (
            raw(&format!(r#"{{"time":"2026-05-11T08:30:00.1Z","level":"ERROR","msg":{quoted}}}"#)),
            Some("errorString"),
        ),
        (
            raw(&format!(
                "time=2026-05-11T08:30:00.1Z level=INFO source={}/invoke_loop.go:97 msg={quoted}",
                "/build/go/pkg/mod/github.com/aws/aws-lambda-go@v1.47.0/lambda/".repeat(2)
            )),
            Some("errorString"),
        ),
        (raw(&dotnet), Some("System.Exception")),
        (Invocation::new().json(&dotnets), Some("System.Exception")),
        (
            raw(
                "no such order: NoOrder\nNoOrder: no such order\n\tat Orders.find(Orders.java:8)\n\n",
            ),
            Some("NoOrder"),
        ),
        (
            raw(
                "Content is not allowed in prolog.: org.xml.sax.SAXParseException\norg.xml.sax.SAXParseException; lineNumber: 1; columnNumber: 1; Content is not allowed in prolog.\n\tat a.B.c(B.java:8)\n\n",
            ),
            Some("org.xml.sax.SAXParseException"),
        ),
    ];
    let reports = reports.map(|(one, name)| (lambda.invoke(one).unwrap(), name));
    // What a function has caught and logged has no frames of .NET's runtime.
    let caught = dotnet.split("\n   at Amazon").next().unwrap();
    // What such a function has returned has them, in a line of the caller's own logger.
    let mut told = dotnets.clone();
    told["service"] = "orders".into();
    let caught = [
        raw(caught),
        slog("msg", "told that {\"errorMessage\":\"no\",\"errorType\":\"x\"}"),
        raw(
            "[ERROR] caught: Traceback (most recent call last):\n  File \"a.py\", line 4\nKeyError: 'x'\n",
        ),
        raw("key: value\nvalue: key\n"),
        // `print(f"[ERROR] {format_exc()}")`: Lambda makes a record of each line.
        raw("[ERROR] Traceback (most recent call last):\n"),
        raw(&format!("told by 10.0.0.1:8080 {go}\n")),
        raw("db: a.example\na.example: db, b.example\n"),
        Invocation::new().json(&told),
    ];
    let caught = caught.map(|one| lambda.invoke(one).unwrap());
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    for report in &caught {
        assert_eq!(summary(&account, report)["status"], "success");
    }
    let said: Vec<_> = reports.iter().map(|(report, _)| summary(&account, report)).collect();
    let said: Vec<_> = said
        .iter()
        .map(|one| (one["reason"].as_str(), one["status"].as_str(), one["errorType"].as_str()))
        .collect();
    let expected: Vec<_> =
        reports.iter().map(|(_, name)| (Some("failed"), Some("error"), *name)).collect();
    assert_eq!(said, expected);
    assert_balance(&kinesis, &lambda);
}

/// Each of these lines says its level, and was taken for one that says none, or another.
#[test]
fn a_level_is_read_wherever_a_line_says_it() {
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis).start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new()).unwrap();
    let long = "a long message, with \"quotes\", {brackets}\nand lines ".repeat(20);
    let ordered = |first: &str, value: &str| {
        let value = serde_json::to_string(value).unwrap();
        format!(r#"{{"{first}":{value},"level":"ERROR"}}"#)
    };
    let loud = [
        // As logstash's encoder of Java, and what sorts its keys.
        ordered("message", &long),
        ordered("error", &long),
        r#"{"user":{"level":"gold"},"more":["level",{"level":"INFO"}],"level":"ERROR"}"#.to_owned(),
        // Rust's runtime, in its own format.
        r#"ERROR Lambda runtime invoke{requestId="5b0c7e52-91f4-4c3e-9d27-0a6f1e8b4c01"}: no such order"#.to_owned(),
    ];
    let dull = [
        r#"{"user":{"level":"ERROR"},"level":"INFO"}"#,
        r#"{"message":"\"level\":\"ERROR\""}"#,
        "404 http error",
        "3 jobs fail",
        r#" INFO Lambda runtime invoke{requestId="5b0c7e52-91f4-4c3e-9d27-0a6f1e8b4c01"}: no such ERROR"#,
    ];
    let loud = loud.map(|line| lambda.invoke(Invocation::new().text(&line)).unwrap());
    let dull = dull.map(|line| lambda.invoke(Invocation::new().text(line)).unwrap());
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    let reasons = |of: &[InvokeReport]| -> Vec<Value> {
        of.iter().map(|report| summary(&account, report)["reason"].clone()).collect()
    };
    assert_eq!(
        (reasons(&loud), reasons(&dull)),
        (vec!["level".into(); 4], vec!["share".into(); 5])
    );
    assert_balance(&kinesis, &lambda);
}

/// As a failure that the platform knows of, it is one whether its lines are sent or not.
#[test]
fn an_exception_in_lines_that_are_left_out_is_a_failure_too() {
    for (name, value) in [("MIN_LEVEL", "FATAL"), ("EXCLUDE", "function")] {
        let kinesis = Kinesis::start();
        let lambda = thinning(&kinesis).setting(name, value).start();
        lambda.init().unwrap();
        lambda.invoke(Invocation::new()).unwrap();
        let python = serde_json::json!({
            "level": "ERROR", "errorMessage": "no", "errorType": "KeyError", "requestId": "?", "stackTrace": []
        });
        let failed = lambda.invoke(Invocation::new().json(&python)).unwrap();
        assert!(lambda.shutdown("spindown").is_clean());
        let summary = summary(&kinesis.account(), &failed);
        let said =
            (&summary["status"], &summary["errorType"], &summary["reason"], &summary["events"]);
        assert_eq!(
            said,
            (&"error".into(), &"KeyError".into(), &"failed".into(), &3.into()),
            "{name}"
        );
    }
}

#[test]
fn a_long_invocation_is_sent_while_it_runs() {
    let kinesis = Arc::new(Kinesis::start());
    let lambda = extension(&kinesis).setting("KEEP", "0%").setting("MAX_AGE_MS", "200").start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new()).unwrap();
    let stream = Arc::clone(&kinesis);
    let seen_inside = move |_: &Lambda| {
        sandbox::wait_until(ms(20_000), "the line to be sent", || {
            !stream.account().containing("long line").is_empty()
        });
    };
    lambda.invoke(Invocation::new().text("long line").run(seen_inside)).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    assert_balance(&kinesis, &lambda);
}

#[test]
fn an_invocation_that_outgrows_its_part_of_the_queue_is_kept() {
    let kinesis = Kinesis::start();
    let lambda =
        extension(&kinesis).setting("KEEP", "0%").setting("QUEUE_BYTES", "1048576").start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new()).unwrap();
    let line = format!("large {}", "x".repeat(10_000));
    lambda.invoke((0..60).fold(Invocation::new(), |one, _| one.text(&line))).unwrap();
    lambda.invoke(Invocation::new().text("dull line")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    assert_eq!(kinesis.account().containing("large xxx").len(), 60);
    assert!(kinesis.account().containing("dull line").is_empty());
    assert_balance(&kinesis, &lambda);
}

#[test]
fn managed_instances_ship_logs_that_say_no_request_id() {
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis).managed_instances().start();
    lambda.init().unwrap();
    for n in 0..10 {
        let id = format!("5b0c7e52-91f4-4c3e-9d27-{n:012}");
        let own = serde_json::json!({"level": "INFO", "requestId": id, "message": "own line"});
        let invocation = Invocation::new().request_id(&id).json(&own).text("line of nobody");
        lambda.invoke(invocation).unwrap();
    }
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    assert_eq!(account.containing("line of nobody").len(), 10);
    assert_eq!(summaries(&account).len(), 10);
    let kept: Vec<Value> =
        summaries(&account).into_iter().filter(|one| one["kept"] == true).collect();
    assert_eq!(account.containing("own line").len(), kept.len(), "{kept:?}");
    assert!(kept.iter().all(|one| one["reason"] == "first"), "{kept:?}");
    assert_balance(&kinesis, &lambda);
}

#[test]
fn what_waits_for_an_end_that_lambda_lost_is_sent_at_once() {
    let kinesis = Arc::new(Kinesis::start());
    let lambda = thinning(&kinesis).setting("MAX_AGE_MS", "900000").start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new()).unwrap();
    lambda.deliver(|way| way.lost_type = Some("platform.runtimeDone".to_owned()));
    let stream = Arc::clone(&kinesis);
    let seen_inside = move |_: &Lambda| {
        sandbox::wait_until(ms(20_000), "the line to be sent", || {
            !stream.account().containing("held line").is_empty()
        });
    };
    let gap = r#"{"droppedBytes":12345,"droppedRecords":123,"reason":"slow"}"#;
    let cut = lambda
        .invoke(
            Invocation::new()
                .text("held line")
                .event("platform.logsDropped", gap)
                .run(seen_inside)
                .text("[ERROR] no such order"),
        )
        .unwrap();
    lambda.deliver(|way| way.lost_type = None);
    lambda.invoke(Invocation::new().text("dull line")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    assert!(account.containing("dull line").is_empty());
    // The report knew better than the gap why it is kept.
    assert_eq!(summary(&account, &cut)["reason"], "level");
}

#[test]
fn logs_of_extensions_belong_to_no_invocation() {
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis).setting("TYPES", "platform,function,extension").start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new()).unwrap();
    let dull = Invocation::new().text("dull line").extension_text("[ERROR] of an extension");
    let dull = lambda.invoke(dull).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    assert_eq!(account.containing("of an extension").len(), 1);
    assert!(account.containing("dull line").is_empty());
    let summary = summary(&account, &dull);
    assert_eq!((&summary["levels"], &summary["kept"]), (&serde_json::json!({}), &false.into()));
    assert_balance(&kinesis, &lambda);
}

#[test]
fn the_first_invocation_is_known_whatever_is_left_out() {
    for (name, value) in [("TYPES", "function"), ("EXCLUDE", "platform.*")] {
        let kinesis = Kinesis::start();
        let lambda = thinning(&kinesis).setting(name, value).start();
        lambda.init().unwrap();
        let first = lambda.invoke(Invocation::new()).unwrap();
        let second = lambda.invoke(Invocation::new().text("dull line")).unwrap();
        assert!(lambda.shutdown("spindown").is_clean());
        let account = kinesis.account();
        let (first, second) = (summary(&account, &first), summary(&account, &second));
        assert_eq!((&first["coldStart"], &first["reason"]), (&true.into(), &"first".into()));
        assert_eq!((&second["coldStart"], &second["reason"]), (&Value::Null, &"share".into()));
        assert_eq!((&first["events"], &second["events"]), (&0.into(), &1.into()));
    }
}

#[test]
fn lines_that_are_left_out_count_for_the_choice() {
    for (name, value) in [("MIN_LEVEL", "FATAL"), ("EXCLUDE", "function")] {
        let kinesis = Kinesis::start();
        let lambda = thinning(&kinesis).setting(name, value).start();
        lambda.init().unwrap();
        lambda.invoke(Invocation::new()).unwrap();
        let json = |level| serde_json::json!({"level": level, "message": "left out"});
        let loud = Invocation::new().json(&json("INFO")).json(&json("ERROR"));
        let loud = lambda.invoke(loud).unwrap();
        let dull = lambda.invoke(Invocation::new().json(&json("WARN"))).unwrap();
        assert!(lambda.shutdown("spindown").is_clean());
        let account = kinesis.account();
        assert!(account.containing("left out").is_empty());
        let (loud, dull) = (summary(&account, &loud), summary(&account, &dull));
        assert_eq!(loud["levels"], serde_json::json!({"INFO": 1, "ERROR": 1}), "{name}");
        assert_eq!((&loud["kept"], &loud["reason"]), (&true.into(), &"level".into()));
        assert_eq!((&dull["kept"], &dull["reason"]), (&false.into(), &"share".into()));
        assert_eq!(loud["events"], 3, "start, runtimeDone and report");
    }
}

#[test]
fn a_consumer_computes_the_choice_from_summaries() {
    let kinesis = Kinesis::start();
    let lambda =
        extension(&kinesis).setting("KEEP", "40%").setting("SUMMARY", "invocation").start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new()).unwrap();
    for n in 0..40 {
        let root = format!("1-6923d5b1-8d2b4ce2e7a15ff4d2b1a{n:03x}");
        let traced = Invocation::new().tracing(&format!("Root={root};Parent=0e;Sampled=1"));
        lambda.invoke(if n % 2 == 0 { traced } else { Invocation::new() }.tenant("blue")).unwrap();
    }
    assert!(lambda.shutdown("spindown").is_clean());
    let (mut kept, mut traced) = (0, 0);
    for event in kinesis.account().of_type("kinesis-telemetry.invocation") {
        let (record, event) = (event.record_json(), event.json());
        if record["reason"] == "first" {
            continue;
        }
        assert_eq!(event["tenantId"], "blue");
        traced += u32::from(event["traceId"].is_string());
        let id = event["traceId"].as_str().unwrap_or(event["requestId"].as_str().unwrap());
        let hash: [u8; 32] = Sha256::digest(id.as_bytes()).into();
        let hash = u32::from_be_bytes(hash[..4].try_into().unwrap());
        assert_eq!(record["kept"], f64::from(hash) < 0.4 * 4_294_967_296.0, "{event}");
        kept += u32::from(record["kept"] == true);
    }
    assert_eq!(traced, 20);
    assert!((1..40).contains(&kept), "{kept}");
    assert_balance(&kinesis, &lambda);
}

#[test]
fn managed_instances_sum_up_hundreds_of_invocations_at_the_same_time() {
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis).managed_instances().setting("MAX_AGE_MS", "900000").start();
    lambda.init().unwrap();
    let id = |n| format!("5b0c7e52-91f4-4c3e-9d27-{n:012}");
    let post = |kind: &str, more: &str| {
        let event = |n| {
            let id = id(n);
            format!(
                r#"{{"time":"2026-11-23T09:15:45.012Z","type":"{kind}","record":{{"requestId":"{id}"{more}}}}}"#
            )
        };
        let events: Vec<String> = (0..300).map(event).collect();
        assert_eq!(lambda.post_raw(format!("[{}]", events.join(",")).as_bytes()).unwrap(), 200);
    };
    post("platform.start", "");
    post("function", r#","level":"INFO","message":"own line""#);
    post("platform.report", r#","status":"success","metrics":{"durationMs":7.125}"#);
    post("function", r#","level":"INFO","message":"late line""#);
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    let summaries = summaries(&account);
    let ids: HashSet<&str> =
        summaries.iter().map(|one| one["requestId"].as_str().unwrap()).collect();
    assert_eq!((summaries.len(), ids.len()), (300, 300));
    for summary in &summaries[1..] {
        assert_eq!(
            (&summary["reason"], &summary["status"], &summary["events"], &summary["levels"]),
            (&"share".into(), &"success".into(), &3.into(), &serde_json::json!({"INFO": 1}))
        );
    }
    assert_eq!(account.containing("own line").len(), 1, "the first one's");
    assert_eq!(account.containing("late line").len(), 1, "it follows the choice");
    assert_eq!(ledger(&kinesis)["thinned"], 299 * 4);
}

#[test]
fn what_waits_for_an_end_outlives_a_reset_without_kinesis() {
    for crash in [true, false] {
        let kinesis = Kinesis::start();
        let lambda = thinning(&kinesis).timeout(ms(1000)).start();
        lambda.init().unwrap();
        lambda.invoke(Invocation::new()).unwrap();
        kinesis.refuse_connections();
        let held = Invocation::new().text("held line");
        let held = if crash { held.crashes() } else { held.times_out() };
        let held = lambda.invoke(held).unwrap();
        assert!(held.reset.clone().unwrap().is_clean());
        kinesis.accept_connections();
        lambda.invoke(Invocation::new()).unwrap();
        assert!(lambda.shutdown("spindown").is_clean());
        let account = kinesis.account();
        assert_eq!(account.containing("held line").len(), 1, "crash: {crash}");
        assert_eq!(summary(&account, &held)["reason"], "failed", "crash: {crash}");
    }
}
