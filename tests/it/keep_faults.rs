//! `KEEP` and `SUMMARY` in every form of records, and where something is out of the ordinary: second tries, gaps, damage, restores, a full queue.

use std::collections::HashSet;

use sandbox::{Invocation, Kinesis, LambdaBuilder, ms};
use serde_json::Value;

use crate::extension;
use crate::keep::{assert_balance, summaries, summary, thinning};

fn with(lambda: LambdaBuilder, settings: &[(&str, &str)]) -> LambdaBuilder {
    settings.iter().fold(lambda, |lambda, (name, value)| lambda.setting(name, value))
}

#[test]
fn every_form_of_records_is_thinned_out_alike() {
    let forms: [&[(&str, &str)]; 6] = [
        &[("RECORD", "event"), ("PARTITION_KEY", "request")],
        &[("RECORD", "kpl"), ("COMPRESSION", "gzip"), ("PARTITION_KEY", "random")],
        &[("COMPRESSION", "gzip"), ("ENVELOPE", "slim"), ("FLUSH", "next")],
        &[("WIRE", "cbor"), ("FLUSH", "adaptive"), ("PARTITION_KEY", "function")],
        &[("QUEUE_BYTES", "1073741824"), ("SPOOL_BYTES", "0")],
        &[("QUEUE_BYTES", "1048576"), ("SPOOL_BYTES", "0"), ("MAX_AGE_MS", "900000")],
    ];
    for form in forms {
        let kinesis = Kinesis::start();
        let lambda = with(thinning(&kinesis), form).start();
        lambda.init().unwrap();
        lambda.invoke(Invocation::new()).unwrap();
        let lines = |name: &str| (0..3).map(|n| format!("{name} line {n}")).collect::<Vec<_>>();
        let dull = lambda.invoke(Invocation::new().lines(lines("dull"))).unwrap();
        let loud = Invocation::new().lines(lines("loud")).text("[ERROR] no such order");
        let loud = lambda.invoke(loud).unwrap();
        lambda.invoke(Invocation::new().lines(lines("dull"))).unwrap();
        assert!(lambda.shutdown("spindown").is_clean(), "{form:?}");
        let account = kinesis.account();
        assert!(account.containing("dull line").is_empty(), "{form:?}");
        assert_eq!(account.containing("loud line").len(), 3, "{form:?}");
        assert_eq!(summaries(&account).len(), 4, "{form:?}");
        assert_eq!(summary(&account, &dull)["kept"], false, "{form:?}");
        assert_eq!(summary(&account, &loud)["reason"], "level", "{form:?}");
        assert_balance(&kinesis, &lambda);
    }
}

#[test]
fn a_second_try_under_the_same_id_is_chosen_and_summed_up_anew() {
    for mode in ["end", "next", "adaptive"] {
        let kinesis = Kinesis::start();
        let lambda = thinning(&kinesis).setting("FLUSH", mode).start();
        lambda.init().unwrap();
        lambda.invoke(Invocation::new()).unwrap();
        let dull = lambda.invoke(Invocation::new().text("dull line")).unwrap();
        let again = || Invocation::new().request_id(&dull.request_id);
        lambda.invoke(again().text("[ERROR] loud line").work(ms(50))).unwrap();
        if mode == "end" {
            // Before the sandbox can freeze: its end is not that of the try before.
            assert_eq!(kinesis.account().containing("loud line").len(), 1);
        }
        lambda.invoke(again().text("dull line")).unwrap();
        assert!(lambda.shutdown("spindown").is_clean());
        let account = kinesis.account();
        assert_eq!(account.containing("loud line").len(), 1, "{mode}");
        assert!(account.containing("dull line").is_empty(), "{mode}");
        let of_it = summaries(&account).into_iter();
        let of_it = of_it.filter(|one| one["requestId"] == dull.request_id.as_str());
        let reasons: Vec<Value> = of_it.map(|one| one["reason"].clone()).collect();
        assert_eq!(reasons, ["share", "level", "share"], "{mode}");
        assert_balance(&kinesis, &lambda);
    }
}

#[test]
fn the_first_one_tried_again_is_no_cold_start() {
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis).start();
    lambda.init().unwrap();
    let first = lambda.invoke(Invocation::new().handled_error()).unwrap();
    let again = Invocation::new().request_id(&first.request_id).text("dull line");
    lambda.invoke(again).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    let cold: Vec<Value> =
        summaries(&account).into_iter().map(|one| one["coldStart"].clone()).collect();
    assert_eq!(cold, [Value::Bool(true), Value::Null]);
    assert!(account.containing("dull line").is_empty());
}

#[test]
fn what_lambda_posts_twice_is_summed_up_once() {
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis).start();
    lambda.init().unwrap();
    lambda.deliver(|way| way.duplicate = true);
    for _ in 0..5 {
        lambda.invoke(Invocation::new().text("dull line")).unwrap();
    }
    assert!(lambda.shutdown("spindown").is_clean());
    let summaries = summaries(&kinesis.account());
    let ids: HashSet<&str> =
        summaries.iter().map(|one| one["requestId"].as_str().unwrap()).collect();
    assert_eq!((summaries.len(), ids.len()), (5, 5), "{summaries:?}");
}

#[test]
fn a_failed_invocation_whose_start_was_lost_is_sent() {
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis).start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new()).unwrap();
    lambda.invoke(Invocation::new().text("dull line")).unwrap();
    lambda.deliver(|way| way.lost_type = Some("platform.start".to_owned()));
    let gap = r#"{"droppedBytes":12345,"droppedRecords":123,"reason":"slow"}"#;
    let failed = Invocation::new().event("platform.logsDropped", gap).text("last words").crashes();
    let failed = lambda.invoke(failed).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    assert_eq!(account.containing("last words").len(), 1);
    assert!(account.containing("dull line").is_empty());
    assert_eq!(summary(&account, &failed)["reason"], "failed");
}

/// Its end came, and it was thinned out, whatever it had logged in what was lost.
#[test]
fn an_invocation_whose_start_was_lost_is_sent() {
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis).start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new()).unwrap();
    lambda.deliver(|way| way.lost_type = Some("platform.start".to_owned()));
    let gap = r#"{"droppedBytes":12345,"droppedRecords":123,"reason":"slow"}"#;
    let cut = Invocation::new().event("platform.logsDropped", gap).text("a line behind the gap");
    let cut = lambda.invoke(cut).unwrap();
    lambda.deliver(|way| way.lost_type = None);
    lambda.invoke(Invocation::new().text("dull line")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    let ends = account.of_type("platform.runtimeDone").into_iter();
    let ends = ends.filter(|end| end.request_id.as_deref() == Some(cut.request_id.as_str()));
    assert_eq!((ends.count(), account.containing("a line behind the gap").len()), (1, 1));
    assert!(account.containing("dull line").is_empty());
    let summary = summary(&account, &cut);
    assert_eq!((&summary["kept"], &summary["reason"]), (&true.into(), &"unfinished".into()));
}

#[test]
fn an_end_in_bytes_that_do_not_parse_thins_out_nothing() {
    const ID: &str = "5b0c7e52-91f4-4c3e-9d27-0a6f1e8b4c01";
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis).setting("KEEP_SLOW_MS", "100").start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new()).unwrap();
    lambda.deliver(|way| way.lost_type = Some("platform.runtimeDone".to_owned()));
    let damaged = format!(
        r#"[{{"time":"2026-11-23T09:15:45.019Z","type":"platform.runtimeDone","record":{{"requestId":"{ID}","status":"success","metrics":{{"durationMs":900"#
    );
    let post = move |lambda: &sandbox::Lambda| {
        assert_eq!(lambda.post_raw(damaged.as_bytes()).unwrap(), 200);
    };
    let slow = lambda.invoke(Invocation::new().request_id(ID).text("slow line").run(post)).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    assert_eq!(account.containing("slow line").len(), 1);
    let summary = summary(&account, &slow);
    assert_eq!((&summary["kept"], &summary["reason"]), (&true.into(), &"unfinished".into()));
}

#[test]
fn a_summary_belongs_to_the_sandbox_that_was_restored() {
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis)
        .setting("TYPES", "function")
        .runtime_init(ms(10), &["line of the init"])
        .start();
    lambda.init().unwrap();
    sandbox::wait_until(ms(20_000), "the init to be read", || lambda.drain(ms(100)));
    lambda.emit("platform.restoreStart", r#"{"functionVersion":"7"}"#);
    lambda.invoke(Invocation::new()).unwrap();
    lambda.invoke(Invocation::new()).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    let process = |event: &sandbox::StoredEvent| event.id().unwrap().0.to_owned();
    let before = process(account.containing("line of the init")[0]);
    let summaries = account.of_type("kinesis-telemetry.invocation");
    let after: HashSet<String> = summaries.into_iter().map(process).collect();
    assert!(after.len() == 1 && !after.contains(&before), "{before} {after:?}");
    for (process, events) in account.by_process() {
        assert_eq!((events.gaps, events.repeats), (vec![], vec![]), "{process}");
    }
}

#[test]
fn resets_in_every_form_of_records_lose_nothing() {
    for form in ["event", "kpl"] {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis)
            .setting("KEEP", "0%")
            .setting("SUMMARY", "invocation")
            .setting("RECORD", form)
            .timeout(ms(1000))
            .start();
        lambda.init().unwrap();
        lambda.invoke(Invocation::new()).unwrap();
        kinesis.refuse_connections();
        let failed = lambda.invoke(Invocation::new().text("held line").times_out()).unwrap();
        kinesis.accept_connections();
        lambda.invoke(Invocation::new()).unwrap();
        lambda.invoke(Invocation::new().text("dull line")).unwrap();
        assert!(lambda.shutdown("spindown").is_clean());
        let account = kinesis.account();
        assert_eq!(account.containing("held line").len(), 1, "{form}");
        assert_eq!(summary(&account, &failed)["status"], "timeout", "{form}");
        assert!(account.containing("dull line").is_empty(), "{form}");
    }
}

#[test]
fn an_outage_does_not_end_the_thinning_out() {
    for spool in ["0", "67108864"] {
        let kinesis = Kinesis::start();
        let lambda = thinning(&kinesis)
            .setting("QUEUE_BYTES", "2097152")
            .setting("SPOOL_BYTES", spool)
            .setting("FLUSH_TIMEOUT_MS", "100")
            .start();
        lambda.init().unwrap();
        lambda.invoke(Invocation::new()).unwrap();
        kinesis.refuse_connections();
        // Until no room is left, neither for long nor for short ones.
        for (count, length) in [(120, 20_000), (60, 3000)] {
            let loud = format!("[ERROR] {}", "x".repeat(length));
            (0..count).for_each(|_| drop(lambda.invoke(Invocation::new().text(&loud)).unwrap()));
        }
        let line = format!("dull line {}", "x".repeat(5000));
        for _ in 0..20 {
            lambda.invoke(Invocation::new().text(&line).text(&line)).unwrap();
        }
        kinesis.accept_connections();
        lambda.invoke(Invocation::new().text("dull line")).unwrap();
        assert!(lambda.shutdown("spindown").is_clean());
        let account = kinesis.account();
        assert_eq!(account.containing("dull line").len(), 0, "spool: {spool}");
        let ledgers = account.ledgers();
        let thinned: u64 = ledgers.iter().map(|one| one["thinned"].as_u64().unwrap()).sum();
        assert_eq!(thinned, 20 * 5 + 4, "spool: {spool} {:?}", summaries(&account));
    }
}

#[test]
fn a_time_out_that_lambda_tries_again_after_the_reset_takes_no_summary_from_the_next_try() {
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis).timeout(ms(700)).start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new()).unwrap();
    let failed = lambda.invoke(Invocation::new().text("first try").times_out()).unwrap();
    // Its end comes late: to the next process, which starts with the next invocation.
    let end = format!(r#"{{"requestId":"{}","status":"timeout"}}"#, failed.request_id);
    lambda.emit("platform.runtimeDone", end.as_str());
    lambda.emit("platform.report", end);
    // Lambda waits for a minute at the least. Their times tell the tries apart, to the millisecond.
    std::thread::sleep(ms(5));
    let again = || Invocation::new().request_id(&failed.request_id);
    lambda.invoke(again().text("second try")).unwrap();
    lambda.invoke(again().text("dull line")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    assert!(account.containing("dull line").is_empty());
    let of_it = summaries(&account).into_iter();
    let of_it = of_it.filter(|one| one["requestId"] == failed.request_id.as_str());
    let said: Vec<_> = of_it.map(|one| (one["status"].clone(), one["reason"].clone())).collect();
    let expected = [("timeout", "failed"), ("success", "first"), ("success", "share")];
    assert_eq!(said, expected.map(|(status, reason)| (status.into(), reason.into())));
}

#[test]
fn small_invocations_that_run_let_no_large_ones_wait_beyond_the_bound() {
    const SLACK_KIB: u64 = 12 * 1024;
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis)
        .managed_instances()
        .setting("QUEUE_BYTES", "1048576")
        .setting("MAX_AGE_MS", "900000")
        .start();
    lambda.init().unwrap();
    let post = |id: &str, text: &str| {
        let event = format!(
            r#"[{{"time":"2026-11-23T09:15:45.012Z","type":"function","record":{{"requestId":"{id}","message":"{text}"}}}}]"#
        );
        assert_eq!(lambda.post_raw(event.as_bytes()).unwrap(), 200);
    };
    (0..200).for_each(|n| post(&format!("small-{n}"), "x"));
    let text = "x".repeat(200_000);
    (0..120).for_each(|n| post(&format!("large-{n}"), &text));
    assert!(lambda.stats().peak_kib < 1024 + SLACK_KIB, "{} KiB", lambda.stats().peak_kib);
    assert!(lambda.shutdown("spindown").is_clean());
}

/// Half of `MAX_AGE_MS` was counted for the freeze, and an invocation whose end was still on its way
/// was sent as one that ran for too long.
#[test]
fn a_freeze_makes_no_invocation_long() {
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis)
        .setting("FLUSH", "next")
        .setting("MAX_AGE_MS", "2000")
        .setting("BUFFER_TIMEOUT_MS", "100")
        .start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new()).unwrap();
    let dull = lambda.invoke(Invocation::new().text("dull line").work(ms(1700))).unwrap();
    assert!(lambda.is_frozen());
    std::thread::sleep(ms(2500));
    lambda.invoke(Invocation::new()).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    assert_eq!(summary(&account, &dull)["reason"], "share");
    assert!(account.containing("dull line").is_empty());
    assert_balance(&kinesis, &lambda);
}

/// Its report was counted for the next try under the same id, and thinned out with that.
#[test]
fn a_report_that_comes_in_the_next_try_is_sent_with_its_own() {
    let kinesis = Kinesis::start();
    let lambda = thinning(&kinesis).start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new()).unwrap();
    let loud = lambda.invoke(Invocation::new().text("[ERROR] loud line")).unwrap();
    // Lambda posts it with the next invocation.
    lambda.deliver(|way| way.lost_type = Some("platform.report".to_owned()));
    std::thread::sleep(ms(5));
    let late = format!(
        r#"[{{"time":"2026-11-23T09:15:45.019Z","type":"platform.report","record":{{"requestId":"{}","status":"success"}}}}]"#,
        loud.request_id
    );
    let post = move |lambda: &sandbox::Lambda| {
        // Behind the start.
        std::thread::sleep(ms(200));
        assert_eq!(lambda.post_raw(late.as_bytes()).unwrap(), 200);
        // Its own comes.
        lambda.deliver(|way| way.lost_type = None);
    };
    let again = Invocation::new().request_id(&loud.request_id);
    lambda.invoke(again.text("dull line").run(post)).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    assert!(account.containing("dull line").is_empty());
    let of_it = |record: &Value| record["requestId"] == loud.request_id.as_str();
    let reports = account.of_type("platform.report").into_iter();
    assert_eq!(reports.filter(|one| of_it(&one.record_json())).count(), 1);
    let said: Vec<_> = summaries(&account)
        .into_iter()
        .filter(of_it)
        .map(|one| (one["reason"].clone(), one["events"].clone()))
        .collect();
    let expected = [("level", 4), ("share", 4)];
    assert_eq!(said, expected.map(|(reason, events)| (reason.into(), events.into())));
}
