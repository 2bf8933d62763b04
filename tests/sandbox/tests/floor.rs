//! The simulator against the floor program: a whole life, end to end.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "test code"
)]

use sandbox::{Expected, Fault, Invocation, Kinesis, Lambda, LambdaBuilder, ms, wait_until};

fn floor(kinesis: &Kinesis) -> LambdaBuilder {
    Lambda::builder(env!("CARGO_BIN_EXE_floor")).kinesis(kinesis)
}

/// The floor neither signs nor adds `requestId`, so what it forwards is held against what was sent without that.
fn assert_all_there(lambda: &Lambda, kinesis: &Kinesis) {
    let mut sent = lambda.sent();
    sent.iter_mut().for_each(|event| event.request_id = Expected::Any);
    kinesis.account().compare(&sent).assert_clean();
}

#[test]
fn a_whole_life() {
    let kinesis = Kinesis::builder().unsigned().start();
    let lambda = floor(&kinesis).runtime_init(ms(10), &["loading"]).start();
    let init = lambda.init().unwrap();
    let calls: Vec<String> = init.calls.iter().map(sandbox::ApiCall::line).collect();
    assert_eq!(
        calls,
        [
            "POST /2020-01-01/extension/register",
            "PUT /2022-07-01/telemetry",
            "GET /2020-01-01/extension/event/next"
        ]
    );
    for number in 0..3 {
        let report =
            lambda.invoke(Invocation::new().text(&format!("line {number}")).work(ms(40))).unwrap();
        assert!(!report.deadline_exceeded && lambda.is_frozen());
    }
    let end = lambda.shutdown("spindown");
    assert!(end.is_clean(), "{end:?}");
    assert!(end.stats.peak_kib > 500);
    let kinds: Vec<String> = lambda.sent().into_iter().map(|event| event.kind).collect();
    assert_eq!(
        kinds[..8],
        [
            "platform.initStart",
            "platform.telemetrySubscription",
            "function",
            "platform.initRuntimeDone",
            "platform.extension",
            "platform.initReport",
            "platform.start",
            "function"
        ]
    );
    assert!(lambda.sent().iter().all(|event| event.handed == 1), "{:?}", lambda.posts());
    assert_all_there(&lambda, &kinesis);
}

#[test]
fn a_report_is_handed_over_after_the_thaw() {
    let kinesis = Kinesis::builder().unsigned().start();
    let lambda = floor(&kinesis).start();
    let first = lambda.invoke(Invocation::new().work(ms(60))).unwrap();
    std::thread::sleep(ms(60));
    let report = |lambda: &Lambda| {
        let sent = lambda.sent();
        sent.into_iter().find(|event| event.kind == "platform.report").unwrap()
    };
    assert_eq!(report(&lambda).handed, 0, "nothing moves while frozen");
    assert!(String::from_utf8_lossy(&report(&lambda).record).contains(&first.request_id));
    lambda.invoke(Invocation::new().work(ms(60))).unwrap();
    assert_eq!(report(&lambda).handed, 1);
}

#[test]
fn a_time_out_resets_and_the_next_invocation_starts_another_process() {
    let kinesis = Kinesis::builder().unsigned().start();
    let lambda = floor(&kinesis).start();
    let report =
        lambda.invoke(Invocation::new().text("slow").timeout(ms(100)).times_out()).unwrap();
    assert!(report.reset.unwrap().is_clean());
    let report = lambda.invoke(Invocation::new().text("again").work(ms(40))).unwrap();
    assert_eq!(report.init.unwrap().phase, "invoke");
    assert!(lambda.shutdown("spindown").is_clean());
    let states: Vec<_> = lambda
        .sent()
        .into_iter()
        .filter(|event| event.kind == "platform.telemetrySubscription")
        .map(|event| String::from_utf8(event.record).unwrap())
        .collect();
    assert!(
        states[0].contains(r#""state":"Subscribed""#) && states[1].contains("Already subscribed")
    );
    assert_all_there(&lambda, &kinesis);
}

#[test]
fn faults_are_seen_in_the_account() {
    let kinesis = Kinesis::builder().unsigned().start();
    let lambda = floor(&kinesis).start();
    lambda.init().unwrap();
    lambda.drain(ms(1000));
    let before = kinesis.puts().len();
    kinesis.fault(Fault::error(500, "InternalFailure").times(1));
    lambda.invoke(Invocation::new().text("lost").work(ms(60))).unwrap();
    lambda.shutdown("spindown");
    // A request of the init may still come behind the look at what there was before.
    let puts = kinesis.puts();
    let errors: Vec<_> = puts[before..].iter().filter_map(|put| put.error.as_deref()).collect();
    assert_eq!(errors, ["InternalFailure"]);
    let mut sent = lambda.sent();
    sent.iter_mut().for_each(|event| event.request_id = Expected::Any);
    let comparison = kinesis.account().compare(&sent);
    assert!(!comparison.lost.is_empty() && comparison.changed.is_empty(), "{comparison}");
}

#[test]
fn unsigned_requests_are_refused_unless_asked_for() {
    let kinesis = Kinesis::start();
    let lambda = floor(&kinesis).start();
    lambda.init().unwrap();
    lambda.shutdown("spindown");
    assert!(
        kinesis
            .puts()
            .iter()
            .all(|put| put.error.as_deref() == Some("IncompleteSignatureException"))
    );
    assert!(kinesis.records().is_empty());
}

#[test]
fn what_a_test_posts_itself_can_be_accounted_for() {
    let kinesis = Kinesis::builder().unsigned().start();
    let lambda = floor(&kinesis).start();
    lambda.init().unwrap();
    assert_eq!(
        lambda.post_raw(br#"[{"time":"t","type":"function","record":"by hand"}]"#).unwrap(),
        200
    );
    lambda.expect("t", "function", r#""by hand""#, Expected::Absent);
    assert!(lambda.shutdown("spindown").is_clean());
    assert_all_there(&lambda, &kinesis);
}

#[test]
fn a_flood_is_counted() {
    let kinesis = Kinesis::builder().count_only().start();
    let lambda = floor(&kinesis).without_freeze().start();
    lambda.init().unwrap();
    assert!(lambda.drain(ms(1000)));
    let report = lambda.flood(20, 1000, 300).unwrap();
    assert_eq!((report.events, report.refused), (20_000, 0));
    wait_until(ms(20_000), "the whole flood", || kinesis.counted().events >= 20_000);
    assert!(lambda.shutdown("spindown").is_clean());
    assert_eq!(
        kinesis.counted().events as usize,
        20_000 + lambda.sent().iter().filter(|event| event.handed > 0).count()
    );
}
