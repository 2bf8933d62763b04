//! What data teams ask of the stream: filters, enrichment, and every form that records come in.

use sandbox::{Cut, CutForm, Delivery, Invocation, Kinesis};
use serde_json::json;

use crate::{extension, ledger};

#[test]
fn excluded_events_leave_no_gap_and_are_counted() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis)
        .setting("EXCLUDE", "platform.start, platform.runtime*,platform.extension")
        .start();
    lambda.init().unwrap();
    let mut held = Vec::new();
    for n in 0..5 {
        held.push(lambda.invoke(Invocation::new().text(&format!("line {n}"))).unwrap());
    }
    assert!(lambda.shutdown("spindown").is_clean());
    // The signals work although their events are not shipped: nobody waited for the deadline.
    assert!(
        held.iter().all(|report| !report.deadline_exceeded && report.held.as_millis() < 1500),
        "{held:?}"
    );
    let account = kinesis.account();
    for kind in ["platform.start", "platform.runtimeDone", "platform.extension"] {
        assert_eq!(account.of_type(kind).len(), 0, "{kind}");
    }
    assert_eq!(account.of_type("platform.report").len(), 5);
    let process = account.by_process().into_values().next().unwrap();
    assert_eq!((process.gaps.len(), process.repeats.len()), (0, 0));
    let left_out = ["platform.start", "platform.runtimeDone", "platform.extension"];
    let expected = lambda
        .sent()
        .iter()
        .filter(|event| event.handed > 0 && left_out.contains(&event.kind.as_str()))
        .count();
    let ledger = ledger(&kinesis);
    assert!(expected >= 10 && ledger["excluded"] == expected, "{expected} of {ledger}");
    assert_eq!(ledger["received"], process.stored);
    // What is shipped knows its invocation all the same.
    for (n, report) in held.iter().enumerate() {
        assert_eq!(
            account.containing(&format!("line {n}"))[0].request_id.as_deref(),
            Some(report.request_id.as_str())
        );
    }
}

#[test]
fn log_lines_below_the_level_stay_and_those_without_one_go() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).setting("MIN_LEVEL", "WARN").start();
    lambda.init().unwrap();
    let level = |level: &str| json!({"level": level, "message": format!("json {level}")});
    let invocation = [
        "TRACE",
        "debug",
        "INFO",
        "Information",
        "FINE",
        "WARN-1",
        "WARN",
        "Warning",
        "ERROR",
        "CRITICAL",
        "chatty",
    ]
    .iter()
    .fold(Invocation::new(), |invocation, name| invocation.json(&level(name)))
    .json(&json!({"level": 10, "message": "json number"}))
    .json(&json!({"message": "json without"}))
    .text("INFO text");
    lambda.invoke(invocation).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    let mut shipped: Vec<String> = account
        .of_type("function")
        .iter()
        .map(|event| String::from_utf8_lossy(&event.record).into_owned())
        .collect();
    shipped.retain(|record| record.contains("json") || record.contains("text"));
    assert_eq!(shipped.len(), 8, "{shipped:?}");
    assert!(
        shipped.iter().all(|record| ![
            "TRACE",
            "debug",
            "json INFO",
            "Information",
            "FINE",
            "WARN-1"
        ]
        .iter()
        .any(|low| record.contains(low))),
        "{shipped:?}"
    );
    assert_eq!(ledger(&kinesis)["excluded"], 6);
}

#[test]
fn a_bad_filter_is_told() {
    let kinesis = Kinesis::start();
    let lambda =
        extension(&kinesis).setting("EXCLUDE", "plat*form").setting("MIN_LEVEL", "LOUD").start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("hello")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let lines = lambda.stderr();
    assert!(
        lines.len() == 1
            && lines[0].contains("EXCLUDE=\"plat*form\"")
            && lines[0].contains("MIN_LEVEL=\"LOUD\""),
        "{lines:?}"
    );
}

#[test]
fn tenant_trace_and_cold_start_stand_where_they_are_known_and_nowhere_else() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).runtime_init(sandbox::ms(2), &["in init"]).start();
    lambda.init().unwrap();
    let tracing = "Root=1-62e900b2-710d76f009d6e7785905449a;Parent=0efbd19962d95b05;Sampled=1";
    let first = Invocation::new()
        .text("text one")
        .json(&json!({"message": "json one", "tenantId": "own \"tenant\""}));
    let first = lambda.invoke(first.tenant("blue").tracing(tracing)).unwrap();
    lambda.emit("function", r#""late""#);
    let second = lambda.invoke(Invocation::new().text("text two")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    let compared = account.compare(&lambda.sent());
    // The simulator itself knows of no invocation for what it prints between two.
    assert!(
        compared.wrong_request_id.len() == 1
            && compared.lost.is_empty()
            && compared.changed.is_empty(),
        "{compared}"
    );
    let of = |text: &str| account.containing(text)[0].json();
    assert_eq!(of("in init").get("tenantId"), None);
    assert_eq!(of("in init")["coldStart"], true);
    assert_eq!(of("in init").get("requestId"), None);
    for event in [
        of("text one"),
        account.of_type("platform.start")[0].json(),
        account.of_type("platform.report")[0].json(),
    ] {
        assert_eq!(
            (&event["tenantId"], &event["requestId"]),
            (&json!("blue"), &json!(first.request_id)),
            "{event}"
        );
        assert_eq!(event["coldStart"], true, "{event}");
    }
    // What a log says of itself does not count against the platform.
    assert_eq!(of("json one")["tenantId"], "blue");
    // Printed after the first invocation's end and before the second's start: it belongs to the first.
    assert_eq!(
        (&of("late")["requestId"], &of("late")["tenantId"]),
        (&json!(first.request_id), &json!("blue"))
    );
    let two = of("text two");
    assert_eq!(two["requestId"], json!(second.request_id));
    assert!(
        two.get("tenantId").is_none()
            && two.get("coldStart").is_none()
            && two.get("traceId").is_none(),
        "{two}"
    );
    // In the order that the manual shows.
    let start = account.of_type("platform.start")[0].text();
    let places: Vec<usize> = [
        "\"eventId\":",
        "\"traceId\":\"1-62e900b2-710d76f009d6e7785905449a\"",
        "\"tenantId\":\"blue\",\"functionName\"",
    ]
    .iter()
    .map(|key| start.rfind(key).unwrap())
    .collect();
    assert!(places.is_sorted(), "{start}");
}

#[test]
fn what_a_json_log_says_of_itself_is_lifted() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).json_logs().start();
    lambda.init().unwrap();
    let arn = "arn:aws:lambda:us-east-1:123456789012:function:orders:7/durable-execution/x/y";
    let first = Invocation::new()
        .json(&json!({"message": "durable", "executionArn": arn, "trace_id": "1-62e900b2-710d76f009d6e7785905449a"}))
        .json(&json!({"message": "forged", "requestId": "79b4f56e-95b1-4643-9700-2807f4e68189"}));
    let first = lambda.invoke(first).unwrap();
    lambda
        .invoke(
            Invocation::new().json(&json!({"message": "java", "AWSRequestId": first.request_id})),
        )
        .unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    let of = |text: &str| account.containing(text)[0].json();
    assert_eq!(
        (&of("durable")["executionArn"], &of("durable")["traceId"]),
        (&json!(arn), &json!("1-62e900b2-710d76f009d6e7785905449a"))
    );
    // No invocation of that id was ever here; of the other there was.
    assert_eq!(of("forged")["requestId"], json!(first.request_id));
    assert_eq!(
        (&of("java")["requestId"], &of("java")["coldStart"]),
        (&json!(first.request_id), &json!(true))
    );
}

#[test]
fn records_over_lambdas_limit_come_back_whatever_they_hold() {
    for form in [CutForm::Within, CutForm::Across] {
        let kinesis = Kinesis::start();
        let delivery = Delivery { cut: Some(Cut { over: 262_144, form }), ..Delivery::default() };
        let lambda = extension(&kinesis).delivery(delivery).json_logs().start();
        lambda.init().unwrap();
        let objects =
            |text: &str| format!("[{}]", vec![text; 700_000 / text.len()].join(",")).into_bytes();
        let invocation = Invocation::new()
            .raw(objects(r#"{"a":1234567890123456789012345678901234567890,"b":-1.5E+10}"#))
            .raw(objects(r#"{"time":"2026-11-01T00:00:00.000Z","level":1.25e-3}"#))
            .raw(objects(
                r#"{"time":"2026-11-01T00:00:00.000Z","type":"function","record":12345678}"#,
            ));
        lambda.invoke(invocation).unwrap();
        assert!(lambda.shutdown("spindown").is_clean());
        kinesis.account().compare(&lambda.sent()).assert_clean();
        assert_eq!(ledger(&kinesis)["unparsed"], 0);
    }
}

#[test]
fn slim_events_carry_no_tenant_and_managed_instances_guess_none() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).setting("ENVELOPE", "slim").start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("slim one").tenant("blue")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    assert_eq!(kinesis.account().containing("slim one")[0].json().get("tenantId"), None);

    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).managed_instances().start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().raw(r#""whose?""#).tenant("blue")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    let event = account.containing("whose?")[0].json();
    assert!(event.get("tenantId").is_none() && event.get("requestId").is_none(), "{event}");
    assert_eq!(account.of_type("platform.start")[0].json()["tenantId"], "blue");
}

#[test]
fn lines_come_back_byte_for_byte() {
    comes_back("lines");
}

#[test]
fn single_events_come_back_byte_for_byte() {
    comes_back("event");
}

#[test]
fn aggregates_come_back_byte_for_byte() {
    comes_back("kpl");
}

/// 50,000 events of 0 bytes to 3 MiB, plain and compressed.
#[track_caller]
fn comes_back(record: &str) {
    for compression in ["none", "gzip"] {
        // A big event's record must fit: ten times the default.
        let kinesis = Kinesis::builder()
            .shards(4)
            .record_bytes(RECORD_BYTES)
            .request_bytes(RECORD_BYTES)
            .start();
        let lambda = extension(&kinesis)
            .setting("RECORD", record)
            .setting("COMPRESSION", compression)
            .setting("RECORD_BYTES", &RECORD_BYTES.to_string())
            .setting("PARTITION_KEY", "request")
            .setting("ENVELOPE", "slim")
            .setting("QUEUE_BYTES", "67108864")
            .setting("FLUSH_TIMEOUT_MS", "20000")
            .telemetry_room(256 * 1_048_576)
            .timeout(sandbox::ms(60_000))
            .start();
        lambda.init().unwrap();
        for round in 0..10 {
            let invocation = (0..5000)
                .fold(Invocation::new(), |invocation, n| invocation.raw(mixed(round * 5000 + n)));
            lambda.invoke(invocation).unwrap();
        }
        let end = lambda.shutdown("spindown");
        let account = kinesis.account();
        let compared = account.compare(&lambda.sent());
        let form = format!("{record} {compression}");
        assert!(
            end.is_clean() && compared.is_lossless() && compared.truncated.is_empty(),
            "{form}: {compared} {:?}",
            lambda.stderr()
        );
        let ledger = ledger(&kinesis);
        let records = kinesis.records();
        let bytes: usize =
            records.iter().map(|record| record.data.len() + record.partition_key.len()).sum();
        // A simulator without optimisation may take more than the second that a request has inside an invocation.
        if ledger["possibleDuplicates"] == 0 {
            assert!(compared.is_clean(), "{form}: {compared}");
            assert_eq!(account.of_type("function").len(), 50_000, "{form}");
            // The ledger's own record is not in its count.
            let last = records.last().unwrap();
            assert_eq!(
                ledger["sentBytes"],
                bytes - last.data.len() - last.partition_key.len(),
                "{form}"
            );
        }
        assert_eq!(
            record == "event",
            records.len() == account.events.len(),
            "{form}: {}",
            records.len()
        );
    }
}

const RECORD_BYTES: usize = 10_485_760;

/// A record of one of many sizes, of one of many kinds.
fn mixed(n: usize) -> Vec<u8> {
    let size = if n % 20_000 == 9_999 {
        3 * 1_048_576 - n
    } else {
        [0, 1, 2, 3, 50, 100, 119, 120, 121, 300, 700][n % 11]
    };
    let text = "the quick brown fox \u{e9}\u{65e5} jumps; "
        .chars()
        .cycle()
        .skip(n % 37)
        .take(size)
        .collect::<String>();
    match n % 4 {
        0 => json!(format!("{n} {text}")).to_string().into_bytes(),
        1 => json!({"level": "INFO", "n": n, "message": text}).to_string().into_bytes(),
        2 => format!("[{n}, \"{text}\", 1.50, {{\"a\" :\ttrue}}]").into_bytes(),
        _ => format!(
            "\"{}\"",
            text.chars().map(|c| if c == 'x' { '\u{1f389}' } else { c }).collect::<String>()
        )
        .into_bytes(),
    }
}

#[test]
fn metrics_are_one_line_that_cloudwatch_understands() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).setting("METRICS", "emf").start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("counted")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let lines = lambda.stdout();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    let ledger = ledger(&kinesis);
    for (name, key) in [
        ("Received", "received"),
        ("Delivered", "delivered"),
        ("Requests", "requests"),
        ("SentBytes", "sentBytes"),
    ] {
        assert_eq!(line[name], ledger[key], "{name}");
    }
    assert!(
        line["Received"].as_u64().unwrap() > 5
            && line["Dropped"] == 0
            && line["FunctionName"] == "orders",
        "{line}"
    );
    assert_eq!(line["_aws"]["CloudWatchMetrics"][0]["Namespace"], "KinesisTelemetryExtension");
}
