//! Freeze and thaw, for real: SIGSTOP and SIGCONT to the process group. When telemetry leaves, and that nothing is in flight meanwhile.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sandbox::{Fault, Invocation, Kinesis, Lambda, ms, wait_until};

use crate::{extension, ledger};

/// Far more than it takes, on any machine.
const PLENTY: Duration = Duration::from_secs(30);

#[test]
fn two_hundred_cycles_lose_and_repeat_nothing() {
    for mode in ["end", "adaptive"] {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).setting("FLUSH", mode).start();
        lambda.init().unwrap();
        for n in 0..200 {
            let report = lambda.invoke(Invocation::new().text(&format!("line {n}"))).unwrap();
            assert_eq!(report.in_flight_at_next, 0, "{mode} {n}");
        }
        assert!(lambda.shutdown("spindown").is_clean());
        kinesis.account().compare(&lambda.sent()).assert_clean();
        assert_eq!(lambda.stderr(), Vec::<String>::new());
        let ledger = ledger(&kinesis);
        assert_eq!(
            (&ledger["retried"], &ledger["possibleDuplicates"], &ledger["requestErrors"]),
            (&0.into(), &0.into(), &serde_json::json!({}))
        );
    }
}

#[test]
fn a_connection_that_died_in_the_freeze_costs_one_retry_and_no_line() {
    for tls in [false, true] {
        let kinesis = if tls { Kinesis::builder().tls().start() } else { Kinesis::start() };
        let lambda = extension(&kinesis).start();
        lambda.init().unwrap();
        for n in 0..20 {
            lambda.invoke(Invocation::new().text(&format!("line {n}"))).unwrap();
            assert!(kinesis.reset_idle_connections() > 0);
        }
        assert!(lambda.shutdown("spindown").is_clean());
        kinesis.account().compare(&lambda.sent()).assert_clean();
        assert_eq!(lambda.stderr(), Vec::<String>::new());
    }
}

#[test]
fn end_puts_each_invocation_on_the_stream_before_the_freeze() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).start();
    lambda.init().unwrap();
    for n in 0..5 {
        let text = format!("line {n}");
        let report = lambda.invoke(Invocation::new().text(&text)).unwrap();
        assert!(lambda.is_frozen());
        let account = kinesis.account();
        assert_eq!(account.containing(&text).len(), 1, "{text}");
        let done = account.of_type("platform.runtimeDone");
        assert_eq!(done.last().unwrap().request_id.as_deref(), Some(report.request_id.as_str()));
    }
    assert!(lambda.shutdown("spindown").is_clean());
}

#[test]
fn next_sends_with_the_next_invocation() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).setting("FLUSH", "next").start();
    lambda.init().unwrap();
    for n in 0..5 {
        let report =
            lambda.invoke(Invocation::new().text(&format!("line {n}")).work(ms(30))).unwrap();
        assert_eq!(report.in_flight_at_next, 0);
        assert!(report.next.unwrap() < report.done, "not held beyond the function's own work");
    }
    assert!(kinesis.account().containing("line 0").len() == 1);
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
}

#[test]
fn adaptive_in_steady_traffic_holds_nothing_until_something_is_due() {
    let kinesis = Kinesis::start();
    let lambda =
        extension(&kinesis).setting("FLUSH", "adaptive").setting("MAX_AGE_MS", "1000").start();
    lambda.init().unwrap();
    let mut not_held = 0;
    for n in 0..100 {
        let report =
            lambda.invoke(Invocation::new().text(&format!("line {n}")).work(ms(20))).unwrap();
        assert_eq!(report.in_flight_at_next, 0);
        if n >= 20 && report.next.unwrap() <= report.done {
            not_held += 1;
        }
    }
    assert!(not_held >= 72, "of 80 invocations {not_held} were not held at all");
    let puts = kinesis.puts().len();
    assert!(
        (19..=40).contains(&puts),
        "one for each of the first nineteen, then one a second, but {puts}"
    );
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
}

#[test]
fn a_long_invocations_telemetry_leaves_while_it_runs() {
    for mode in ["end", "next", "adaptive"] {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis)
            .setting("FLUSH", mode)
            .setting("MAX_AGE_MS", "200")
            .timeout(ms(20_000))
            .start();
        lambda.init().unwrap();
        let (seen, kinesis_too) =
            (Arc::new(std::sync::atomic::AtomicBool::new(false)), kinesis.watch());
        let noted = seen.clone();
        let invocation = Invocation::new().text("early").run(move |_| {
            // Blocks inside the invocation until a record with the line arrives.
            let mut wait = kinesis_too.iter().take(50);
            noted.store(
                wait.any(|record| record.data.windows(5).any(|w| w == b"early")),
                std::sync::atomic::Ordering::SeqCst,
            );
        });
        lambda.invoke(invocation).unwrap();
        assert!(seen.load(std::sync::atomic::Ordering::SeqCst), "{mode}");
        assert!(lambda.shutdown("spindown").is_clean());
        kinesis.account().compare(&lambda.sent()).assert_clean();
    }
}

#[test]
fn a_runtime_done_that_never_comes_is_waited_for_once() {
    let kinesis = Kinesis::start();
    // Another types' filter cannot take it away; only Lambda can.
    let lambda = extension(&kinesis).timeout(ms(1500)).start();
    lambda.init().unwrap();
    lambda.deliver(|way| way.lost_type = Some("platform.runtimeDone".to_owned()));
    let first = lambda.invoke(Invocation::new().text("one")).unwrap();
    assert!(!first.deadline_exceeded);
    let later: Vec<_> = (0..3)
        .map(|_| lambda.invoke(Invocation::new().text("more").work(ms(20))).unwrap())
        .collect();
    assert!(
        later.iter().all(|report| report.held * 4 < first.held),
        "{:?} then {:?}",
        first.held,
        later.iter().map(|r| r.held).collect::<Vec<_>>()
    );
    assert_eq!(
        lambda.stderr().iter().filter(|line| line.contains("runtimeDone")).count(),
        1,
        "{:?}",
        lambda.stderr()
    );
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_lossless();
}

#[test]
fn logs_that_lambda_dropped_end_the_wait() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).timeout(ms(20_000)).start();
    lambda.init().unwrap();
    let dropped = r#"{"droppedBytes":12345,"droppedRecords":123,"reason":"slow"}"#;
    let report = lambda
        .invoke(Invocation::new().event("platform.logsDropped", dropped).text("after").work(ms(1)))
        .unwrap();
    assert!(!report.deadline_exceeded);
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    assert_eq!(
        ledger(&kinesis)["platformDropped"],
        serde_json::json!({"records": 123, "bytes": 12345})
    );
}

#[test]
fn a_slow_kinesis_holds_no_longer_than_the_setting() {
    let kinesis = Kinesis::start();
    let lambda =
        extension(&kinesis).setting("FLUSH_TIMEOUT_MS", "1000").timeout(ms(30_000)).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::delay(ms(6000)));
    let report = lambda.invoke(Invocation::new().text("slow")).unwrap();
    assert!(report.held < ms(5000), "{:?}", report.held);
    assert_eq!(report.in_flight_at_next, 0);
    kinesis.clear_faults();
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_lossless();
}

#[test]
fn an_invocation_is_let_go_before_its_deadline() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).setting("FLUSH_TIMEOUT_MS", "60000").timeout(ms(1500)).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::hang());
    for _ in 0..3 {
        assert!(!lambda.invoke(Invocation::new().text("hang")).unwrap().deadline_exceeded);
    }
    kinesis.clear_faults();
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_lossless();
}

#[test]
fn a_runtime_done_inside_a_broken_body_ends_the_wait() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).timeout(ms(20_000)).start();
    lambda.init().unwrap();
    let id = "0d68ca91-49c9-448d-89b8-7ca3e6dc66aa";
    let bodies = [
        format!(
            r#"[{{"time":"t","type":"function","record":{{"cut":"AAA}},{{"time":"t","type":"platform.runtimeDone","record":{{"requestId":"{id}","status":"success"}}}}]"#
        ),
        format!(
            r#"[{{"time":"t","type":"platform.runtimeDone","record":{{"requestId":"{id}","status":"#
        ),
    ];
    for body in bodies {
        // Lambda's own one is lost on the way; only the broken body has it.
        let invocation = Invocation::new().request_id(id).run(move |lambda| {
            assert_eq!(lambda.post_raw(body.as_bytes()).unwrap(), 200);
            lambda.deliver(|way| way.path = Some("/lost".to_owned()));
        });
        let report = lambda.invoke(invocation).unwrap();
        assert!(report.held < ms(10_000), "{:?}", report.held);
        lambda.deliver(|way| way.path = None);
    }
    assert!(lambda.shutdown("spindown").is_clean());
    assert!(
        !lambda.stderr().iter().any(|line| line.contains("did not come")),
        "{:?}",
        lambda.stderr()
    );
}

#[test]
fn invalid_utf8_and_deep_nesting_arrive() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).timeout(ms(20_000)).start();
    lambda.init().unwrap();
    let mut body = br#"[{"time":"t","type":"function","record":"left "#.to_vec();
    body.extend_from_slice(b"\xff\xc3 right\"},{\"time\":\"t\",\"type\":\"function\",\"record\":");
    body.extend_from_slice(
        format!("{}\"deep\"{}}}]", "[".repeat(50_000), "]".repeat(50_000)).as_bytes(),
    );
    lambda
        .invoke(
            Invocation::new().run(move |lambda| assert_eq!(lambda.post_raw(&body).unwrap(), 200)),
        )
        .unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let texts: Vec<String> = kinesis
        .records()
        .iter()
        .map(|record| String::from_utf8(record.data.clone()).unwrap())
        .collect();
    assert!(texts.concat().contains("left \u{fffd}\u{fffd} right"));
    assert!(texts.concat().contains("[[\"deep\"]]"));
    assert_eq!(ledger(&kinesis)["unparsed"], 0);
}

/// A sandbox whose last invocation has ended while the extension sent on its own account; Kinesis answers so much later.
fn ended_while_sending(answers_after: Duration) -> (Arc<Kinesis>, Lambda) {
    for _ in 0..10 {
        let kinesis = Arc::new(Kinesis::start());
        let builder = extension(&kinesis).setting("FLUSH", "next").setting("MAX_AGE_MS", "100");
        let lambda = builder.timeout(PLENTY).start();
        lambda.init().unwrap();
        kinesis.fault(Fault::delay(answers_after).times(1));
        let seen = Arc::clone(&kinesis);
        let under_way = move |_: &Lambda| wait_until(PLENTY, "a request", || seen.in_flight() == 1);
        lambda.invoke(Invocation::new().text("before").run(under_way)).unwrap();
        // A slow machine comes here behind the answer.
        if kinesis.records().is_empty() {
            return (kinesis, lambda);
        }
    }
    panic!("the answer was always there before the invocation was over");
}

#[track_caller]
fn nothing_is_sent_twice(kinesis: &Kinesis, lambda: &Lambda) {
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    let ledger = ledger(kinesis);
    assert_eq!(
        (&ledger["retried"], &ledger["possibleDuplicates"], &ledger["requestErrors"]),
        (&0.into(), &0.into(), &serde_json::json!({}))
    );
    assert_eq!(lambda.stderr(), Vec::<String>::new());
}

/// The time of the request had passed in the freeze, and its answer was there: it was not looked at, and all was sent again.
#[test]
fn an_answer_that_came_in_the_freeze_is_read_however_late_it_is() {
    let (kinesis, lambda) = ended_while_sending(ms(300));
    wait_until(PLENTY, "the answer", || kinesis.in_flight() == 0);
    // More than the request has.
    thread::sleep(ms(1200));
    lambda.invoke(Invocation::new().text("after")).unwrap();
    nothing_is_sent_twice(&kinesis, &lambda);
}

/// INVOKE cut it short after 200 ms, and all was sent again.
#[test]
fn an_invocation_that_begins_while_a_request_is_under_way_sends_nothing_twice() {
    let (kinesis, lambda) = ended_while_sending(ms(700));
    let report = lambda.invoke(Invocation::new().text("after")).unwrap();
    assert_eq!(report.in_flight_at_next, 0);
    nothing_is_sent_twice(&kinesis, &lambda);
}
