//! What arrives on the stream: every event, byte for byte, with its envelope, within Kinesis's limits.

use std::collections::HashSet;

use sandbox::{Cut, CutForm, Delivery, Invocation, Kinesis, Lambda, ms};
use serde_json::json;

use crate::{extension, ledger};

/// Records of every JSON type, and what customers make of them.
const RECORDS: [&str; 15] = [
    r#""plain text""#,
    r#""with \"quotes\", \\ backslash, \n newline, \u00e9 and é and 日本語 and 🎉""#,
    r#""lone surrogate \ud800 and \udfff""#,
    r#""""#,
    r#"{"timestamp":"2026-11-23T09:15:45.012Z","level":"INFO","message":"an object"}"#,
    r#"{"level":"INFO","requestId":"own-request-id","message":"an id of its own"}"#,
    r#"{"requestId":42,"message":"an id that is no string"}"#,
    r#"{"a":1,"a":2,"requestId":"x","requestId":"last-id"}"#,
    r#"{ "spaced" : [ 1 , 2.50 , -0 , 1e400 ] }"#,
    "{}",
    "[1,[2,[3]]]",
    "12345678901234567890.123456789",
    "true",
    "null",
    r#"{"time":"x","type":"platform.runtimeDone","record":{"requestId":"fake"}}"#,
];

fn one_invocation(lambda: &Lambda, invocation: Invocation) -> String {
    lambda.init().unwrap();
    let report = lambda.invoke(invocation).unwrap();
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    report.request_id
}

#[test]
fn every_record_arrives_byte_for_byte_with_its_request_id() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).start();
    let invocation =
        RECORDS.iter().fold(Invocation::new(), |invocation, record| invocation.raw(*record));
    one_invocation(&lambda, invocation);
    kinesis.account().compare(&lambda.sent()).assert_clean();
    assert_eq!(lambda.stderr(), Vec::<String>::new());
}

#[test]
fn text_and_json_logs_of_several_invocations_have_the_right_request_id() {
    for json in [false, true] {
        let kinesis = Kinesis::start();
        let mut builder = extension(&kinesis).runtime_init(ms(5), &["in init"]);
        if json {
            builder = builder.json_logs();
        }
        let lambda = builder.start();
        lambda.init().unwrap();
        let mut ids = Vec::new();
        for n in 0..4 {
            let report = lambda
                .invoke(Invocation::new().text(&format!("line of {n}")).json(&json!({"n": n})))
                .unwrap();
            ids.push(report.request_id);
        }
        assert!(lambda.shutdown("spindown").is_clean());
        let account = kinesis.account();
        account.compare(&lambda.sent()).assert_clean();
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(
                account.containing(&format!("line of {n}"))[0].request_id.as_deref(),
                Some(id.as_str())
            );
        }
        assert_eq!(account.containing("in init")[0].request_id, None);
    }
}

#[test]
fn the_full_envelope_says_everything_that_is_known() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis)
        .function("orders", "7")
        .account("210987654321")
        .setting("TAGS", "team=payments,stage=a \"b\"")
        .start();
    let tracing = "Root=1-62e900b2-710d76f009d6e7785905449a;Parent=0efbd19962d95b05;Sampled=1";
    lambda.init().unwrap();
    let cold = lambda.invoke(Invocation::new().text("cold").tracing(tracing)).unwrap();
    lambda.invoke(Invocation::new().text("warm")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    let event = account.containing("cold\"")[0].json();
    let log_stream = account.of_type("platform.initStart")[0].record_json()["instanceId"].clone();
    let process = account.by_process().into_keys().next().unwrap();
    let number = event["eventId"].as_str().unwrap().split_once('-').unwrap().1;
    assert_eq!(
        event,
        json!({
            "time": event["time"], "type": "function", "record": "cold", "requestId": cold.request_id, "eventId": format!("{process}-{number}"),
            "functionName": "orders", "functionVersion": "7", "functionArn": "arn:aws:lambda:us-east-1:210987654321:function:orders:live",
            "accountId": "210987654321", "region": "us-east-1", "logStream": log_stream, "coldStart": true,
            "tags": {"team": "payments", "stage": "a \"b\""},
        })
    );
    let warm = account.containing("warm\"")[0].json();
    assert!(warm.get("coldStart").is_none());
    let start = account.of_type("platform.start")[0].json();
    assert_eq!(start["traceId"], "1-62e900b2-710d76f009d6e7785905449a");
    // Lambda's three keys come first, in its order; a key that is not known is left out.
    for event in &account.events {
        assert!(event.line.starts_with(b"{\"time\":\""));
        assert!(!event.text().contains(":null") || event.text().contains("\"record\":null"));
    }
    assert!(account.of_type("platform.initStart")[0].json().get("requestId").is_none());
}

#[test]
fn slim_says_what_a_sandbox_is_only_once() {
    let kinesis = Kinesis::start();
    let lambda =
        extension(&kinesis).setting("ENVELOPE", "slim").setting("TAGS", "team=payments").start();
    one_invocation(&lambda, Invocation::new().text("hello"));
    let account = kinesis.account();
    account.compare(&lambda.sent()).assert_clean();
    let first = account.events[0].json();
    assert_eq!(first["type"], "kinesis-telemetry.sandbox");
    assert_eq!(first["functionName"], "orders");
    assert_eq!(first["tags"]["team"], "payments");
    let process = account.by_process().into_keys().next().unwrap();
    assert!(first["eventId"].as_str().unwrap().starts_with(&process));
    let line = account.containing("hello")[0];
    let keys: Vec<String> = line.json().as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        keys.iter().map(String::as_str).collect::<HashSet<_>>(),
        HashSet::from(["time", "type", "record", "requestId", "eventId"])
    );
}

#[test]
fn ten_thousand_events_of_mixed_sizes_in_several_requests() {
    let kinesis = Kinesis::builder().shards(4).start();
    let lambda = extension(&kinesis).setting("PARTITION_KEY", "random").start();
    lambda.init().unwrap();
    let size = |n: usize| [0, 1, 10, 100, 300, 1000, 4000][n % 7];
    for round in 0..10 {
        let lines = (0..1000).map(|n| format!("{round}-{n}:{}", "x".repeat(size(n))));
        let report = lambda.invoke(Invocation::new().lines(lines).work(ms(20))).unwrap();
        assert_eq!(report.in_flight_at_next, 0);
    }
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    account.compare(&lambda.sent()).assert_clean();
    assert_eq!(account.of_type("function").len(), 10_000);
    assert!(kinesis.puts().len() > 8);
    // Packing pays: far fewer records than events.
    assert!(kinesis.records().len() < 100, "{}", kinesis.records().len());
    assert_eq!(ledger(&kinesis)["retried"], 0);
}

#[test]
fn one_event_a_record_keeps_to_500_records_a_request() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).setting("RECORD", "event").start();
    one_invocation(&lambda, Invocation::new().lines((0..1200).map(|n| format!("line {n}"))));
    let account = kinesis.account();
    account.compare(&lambda.sent()).assert_clean();
    assert_eq!(kinesis.records().len(), account.events.len());
    assert!(kinesis.records().iter().all(|record| record.data.ends_with(b"}\n")));
    assert_eq!(kinesis.puts().iter().map(|put| put.records).max(), Some(500));
}

#[test]
fn no_record_is_larger_than_the_setting() {
    let kinesis = Kinesis::builder().record_bytes(5000).start();
    let lambda = extension(&kinesis).setting("RECORD_BYTES", "5000").start();
    one_invocation(
        &lambda,
        Invocation::new().lines((0..300).map(|n| format!("{n} {}", "y".repeat(n * 10)))),
    );
    kinesis.account().compare(&lambda.sent()).assert_clean();
    assert!(kinesis.puts().iter().map(|put| put.largest_record).max().unwrap() <= 5000);
}

#[test]
fn an_event_larger_than_a_record_is_cut_and_counted() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).setting("RECORD_BYTES", "2000").start();
    let text = "é".repeat(5000);
    let big = json!({"message": "z\"".repeat(5000)});
    one_invocation(&lambda, Invocation::new().text(&text).json(&big).text("small"));
    let comparison = kinesis.account().compare(&lambda.sent());
    assert_eq!((comparison.truncated.len(), comparison.changed.len()), (2, 0), "{comparison}");
    let account = kinesis.account();
    let event = account.events.iter().find(|event| event.truncated.is_some()).unwrap().json();
    let kept = event["record"].as_str().unwrap();
    assert!(text.starts_with(kept) && kept.len() > 1000);
    // Of the raw record's bytes, quotes included.
    assert_eq!(event["truncatedBytes"].as_u64().unwrap() as usize + kept.len() + 2, text.len() + 2);
    assert_eq!(ledger(&kinesis)["truncated"], 2);
}

#[test]
fn partition_keys_spread_or_hold_together() {
    for (setting, shards) in [("sandbox", 1), ("function", 1), ("random", 4), ("request", 4)] {
        let kinesis = Kinesis::builder().shards(4).start();
        let lambda = extension(&kinesis)
            .setting("PARTITION_KEY", setting)
            .setting("RECORD", "event")
            .start();
        lambda.init().unwrap();
        let mut ids = Vec::new();
        for _ in 0..40 {
            ids.push(lambda.invoke(Invocation::new().lines(["one", "two"])).unwrap().request_id);
        }
        assert!(lambda.shutdown("spindown").is_clean());
        kinesis.account().compare(&lambda.sent()).assert_clean();
        let records = kinesis.records();
        // The extension's own events go by the sandbox.
        let telemetry: Vec<_> = records
            .iter()
            .filter(|record| !record.data.windows(18).any(|w| w == b"kinesis-telemetry."))
            .collect();
        let used: HashSet<_> = telemetry.iter().map(|record| record.shard).collect();
        assert_eq!(used.len(), shards, "{setting}");
        match setting {
            "function" => assert!(telemetry.iter().all(|record| record.partition_key == "orders")),
            "request" => assert!(ids.iter().all(|id| {
                telemetry.iter().filter(|record| record.partition_key == *id).count() >= 4
            })),
            _ => {}
        }
    }
}

#[test]
fn unknown_event_types_and_keys_pass() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).start();
    lambda.init().unwrap();
    let strange = r#"[{"time":"2026-11-23T09:15:45.012Z","type":"platform.brandNew","record":{"x":[1,2]}},
        {"type":"function", "time":"2026-11-23T09:15:45.013Z",
         "record":{"multi":
            "line"}, "extra":{"k":1}, "region":"mars"},
        {"type":"novel","record":"no time at all"}]"#;
    let invocation = Invocation::new()
        .event("platform.somethingNew", r#"{"requestId":"r-1","new":true}"#)
        .run(move |lambda| {
            assert_eq!(lambda.post_raw(strange.as_bytes()).unwrap(), 200);
        });
    lambda.invoke(invocation).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    assert_eq!(account.of_type("platform.somethingNew")[0].request_id.as_deref(), Some("r-1"));
    assert_eq!(account.of_type("platform.brandNew")[0].record, br#"{"x":[1,2]}"#);
    let lines: Vec<String> = kinesis
        .records()
        .iter()
        .flat_map(|r| {
            r.data
                .split(|b| *b == b'\n')
                .map(|l| String::from_utf8_lossy(l).into_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    let rebuilt: serde_json::Value =
        serde_json::from_str(lines.iter().find(|line| line.contains("multi")).unwrap()).unwrap();
    assert_eq!(rebuilt["record"], json!({"multi": "line"}));
    assert_eq!(rebuilt["extra"], json!({"k": 1}));
    assert_eq!(
        (&rebuilt["region"], &rebuilt["lambda.region"]),
        (&json!("us-east-1"), &json!("mars"))
    );
    assert!(lines.iter().any(|line| line.contains("no time at all")));
    assert_eq!(ledger(&kinesis)["unparsed"], 0);
}

#[test]
fn what_is_no_event_is_shipped_as_text_and_counted() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).start();
    lambda.init().unwrap();
    let invocation = Invocation::new().text("before").run(|lambda| {
        for body in ["<html>no telemetry</html>", "[1,\"two\"]", "{\"time\":", ""] {
            assert_eq!(lambda.post_raw(body.as_bytes()).unwrap(), 200);
        }
    });
    lambda.invoke(invocation).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    let mut texts: Vec<String> = account
        .of_type("unparsed")
        .iter()
        .map(|e| e.record_json().as_str().unwrap().to_owned())
        .collect();
    texts.sort();
    assert_eq!(texts, ["1,\"two\"", "<html>no telemetry</html>", "{\"time\":"]);
    assert!(account.of_type("unparsed").iter().all(|event| event.id().is_some()));
    assert_eq!(ledger(&kinesis)["unparsed"], 3);
}

#[test]
fn every_way_of_posting_is_taken() {
    let ways = [
        Delivery { chunked: Some(700), ..Delivery::default() },
        Delivery { chunked: Some(1), tiny_writes: Some((3000, ms(0))), ..Delivery::default() },
        Delivery { tiny_writes: Some((1000, ms(1))), ..Delivery::default() },
        Delivery { connections: 5, ..Delivery::default() },
        Delivery { close: true, ..Delivery::default() },
        Delivery { expect_continue: true, ..Delivery::default() },
    ];
    for way in ways {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).delivery(way.clone()).start();
        lambda.init().unwrap();
        for _ in 0..3 {
            lambda
                .invoke(
                    Invocation::new()
                        .lines((0..50).map(|n| format!("line {n} {}", "w".repeat(200)))),
                )
                .unwrap();
        }
        assert!(lambda.shutdown("spindown").is_clean(), "{way:?}");
        let comparison = kinesis.account().compare(&lambda.sent());
        assert!(comparison.is_clean(), "{way:?}: {comparison}");
    }
}

#[test]
fn records_that_lambda_cut_are_put_together_again() {
    for form in [CutForm::Within, CutForm::Across] {
        let kinesis = Kinesis::start();
        let delivery = Delivery { cut: Some(Cut { over: 10_000, form }), ..Delivery::default() };
        let lambda = extension(&kinesis).delivery(delivery).json_logs().start();
        let long = |length: usize| json!({"message": "é\"日".repeat(length / 6), "level": "INFO"});
        one_invocation(
            &lambda,
            Invocation::new()
                .json(&long(15_000))
                .text("between")
                .json(&long(60_000))
                .json(&long(300)),
        );
        kinesis.account().compare(&lambda.sent()).assert_clean();
        assert_eq!(ledger(&kinesis)["unparsed"], 0);
    }
}

#[test]
fn over_tls_with_a_ca_of_ones_own() {
    let kinesis = Kinesis::builder().tls().start();
    let lambda = extension(&kinesis).start();
    lambda.init().unwrap();
    for _ in 0..5 {
        lambda.invoke(Invocation::new().text("sealed")).unwrap();
    }
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    let connections: HashSet<u64> = kinesis.puts().iter().map(|put| put.connection).collect();
    assert_eq!(connections.len(), 1, "one connection, kept over all flushes");
    assert!(kinesis.puts().iter().all(|put| put.tls));
}

#[test]
fn an_unknown_ca_is_one_line_and_no_harm() {
    let kinesis = Kinesis::builder().tls().start();
    let lambda = extension(&kinesis).without_env("AWS_CA_BUNDLE").start();
    lambda.init().unwrap();
    for _ in 0..3 {
        assert!(!lambda.invoke(Invocation::new().text("hello")).unwrap().deadline_exceeded);
    }
    assert!(lambda.shutdown("spindown").is_clean());
    let lines = lambda.stderr();
    assert!(lines.iter().any(|line| line.contains("AWS_CA_BUNDLE")), "{lines:?}");
    assert!(lines.len() <= 3, "{lines:?}");
}

#[test]
fn a_stream_by_arn() {
    let kinesis = Kinesis::builder().owned_by("999988887777", "eu-west-1").start();
    let lambda = extension(&kinesis).setting("STREAM", kinesis.stream_arn()).start();
    one_invocation(&lambda, Invocation::new().text("across accounts"));
    kinesis.account().compare(&lambda.sent()).assert_clean();
}
