//! `KEEP` and `SUMMARY`: which invocations reach the stream whole, and that each is summed up once.

use std::collections::HashSet;
use std::sync::Arc;

use sandbox::{Account, Invocation, InvokeReport, Kinesis, Lambda, ms};
use serde_json::Value;

use crate::{extension, ledger};

/// The records of all summaries, by request id.
fn summaries(account: &Account) -> Vec<Value> {
    let summaries = account.of_type("kinesis-telemetry.invocation");
    summaries.into_iter().map(sandbox::StoredEvent::record_json).collect()
}

#[track_caller]
fn summary(account: &Account, report: &InvokeReport) -> Value {
    let of_it: Vec<Value> = summaries(account)
        .into_iter()
        .filter(|summary| summary["requestId"] == report.request_id.as_str())
        .collect();
    assert_eq!(of_it.len(), 1, "{of_it:?}");
    of_it[0].clone()
}

/// All that Lambda handed over is on the stream, or counted as thinned; nothing leaves a gap.
#[track_caller]
fn assert_balance(kinesis: &Kinesis, lambda: &Lambda) {
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
        let lambda = extension(&kinesis)
            .setting("FLUSH", mode)
            .setting("KEEP", "0%")
            .setting("KEEP_SLOW_MS", "200")
            .setting("SUMMARY", "invocation")
            .start();
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
    let lambda = extension(&kinesis)
        .setting("KEEP", "0%")
        .setting("SUMMARY", "invocation")
        .timeout(ms(700))
        .start();
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
    let lambda = extension(&kinesis)
        .managed_instances()
        .setting("KEEP", "0%")
        .setting("SUMMARY", "invocation")
        .start();
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
