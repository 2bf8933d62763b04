//! Kinesis fails in every way; no event is lost where it could be delivered, and each is counted where it could not.

use sandbox::{Fault, Invocation, Kinesis, Lambda, Which, ms};

use crate::{extension, ledger};

/// Three invocations with ten lines each; their request ids.
fn some_invocations(lambda: &Lambda) {
    for round in 0..3 {
        let report = lambda
            .invoke(Invocation::new().lines((0..10).map(|n| format!("round {round} line {n}"))))
            .unwrap();
        assert!(!report.deadline_exceeded);
    }
}

#[test]
fn only_the_records_that_were_throttled_go_again() {
    let kinesis = Kinesis::builder().shards(4).start();
    let lambda =
        extension(&kinesis).setting("RECORD", "event").setting("PARTITION_KEY", "random").start();
    lambda.init().unwrap();
    kinesis.fault(Fault::throttle(Which::Fraction(0.3)).times(2));
    let report = lambda
        .invoke(Invocation::new().lines((0..200).map(|n| format!("line {n}"))).timeout(ms(10_000)))
        .unwrap();
    assert_eq!(report.in_flight_at_next, 0);
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    let puts = kinesis.puts();
    let (first, second) = (&puts[0], &puts[1]);
    assert!(first.failed() > 20, "{}", first.failed());
    assert_eq!(second.records, first.failed(), "only what failed goes again");
    let ledger = ledger(&kinesis);
    assert_eq!(ledger["possibleDuplicates"], 0);
    assert_eq!(ledger["retried"].as_u64().unwrap() as usize, first.failed() + second.failed());
    assert!(
        ledger["requestErrors"]["ProvisionedThroughputExceededException"].as_u64().unwrap() >= 2
    );
}

#[test]
fn all_records_throttled_for_a_while_are_delivered_then() {
    for whole in [false, true] {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).start();
        lambda.init().unwrap();
        let code = "ProvisionedThroughputExceededException";
        kinesis.fault(if whole {
            Fault::error(400, code).times(3)
        } else {
            Fault::throttle(Which::All).times(3)
        });
        lambda.invoke(Invocation::new().lines(["one", "two"]).timeout(ms(10_000))).unwrap();
        assert!(lambda.shutdown("spindown").is_clean());
        kinesis.account().compare(&lambda.sent()).assert_clean();
        assert_eq!(ledger(&kinesis)["possibleDuplicates"], 0);
    }
}

#[test]
fn requests_that_fail_for_a_while_lose_nothing() {
    let faults = [
        Fault::error(500, "InternalFailure"),
        Fault::error(503, "ServiceUnavailable"),
        Fault::error(400, "KMSThrottlingException"),
        Fault::error(400, "LimitExceededException"),
        Fault::html(502),
        Fault::html(503),
        Fault::empty(500),
        Fault::empty(429),
        Fault::reset_before_answer(),
    ];
    for fault in faults {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).start();
        lambda.init().unwrap();
        kinesis.fault(fault.clone().times(2));
        some_invocations(&lambda);
        assert!(lambda.shutdown("spindown").is_clean());
        let comparison = kinesis.account().compare(&lambda.sent());
        assert!(comparison.is_clean(), "{fault:?}: {comparison}");
        assert!(ledger(&kinesis)["retried"].as_u64().unwrap() > 0);
    }
}

#[test]
fn what_only_a_person_can_mend_leaves_the_function_alone_and_says_what_to_mend() {
    let faults = [
        (Fault::error(400, "AccessDeniedException"), "kinesis:PutRecords"),
        (Fault::error(400, "ResourceNotFoundException"), "KINESIS_TELEMETRY_STREAM"),
        (Fault::error(400, "ExpiredTokenException"), "credentials"),
        (Fault::empty(403), "Http403"),
        (Fault::error(400, "KMSDisabledException"), "KMSDisabledException"),
    ];
    for (fault, said) in faults {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).start();
        lambda.init().unwrap();
        kinesis.fault(fault);
        for _ in 0..10 {
            let report = lambda.invoke(Invocation::new().text("hello")).unwrap();
            assert!(!report.deadline_exceeded);
        }
        assert!(lambda.shutdown("spindown").is_clean());
        let lines = lambda.stderr();
        assert!(lines.iter().any(|line| line.contains(said)), "{lines:?}");
        assert!(lines.len() <= 3, "few lines, not one an invocation: {lines:?}");
        assert!(lines.iter().any(|line| line.contains("events are lost")), "{lines:?}");
    }
}

#[test]
fn permission_that_comes_later_delivers_what_waited() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::error(400, "AccessDeniedException"));
    some_invocations(&lambda);
    kinesis.clear_faults();
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
}

#[test]
fn an_answer_that_is_lost_may_repeat_events_and_says_so() {
    for fault in [
        Fault::cut_after_store(),
        Fault::partial_answer(40),
        Fault::garbage("{\"Records\":[]}"),
        Fault::wrong_length(1),
    ] {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).start();
        lambda.init().unwrap();
        kinesis.fault(fault.clone().times(1));
        lambda.invoke(Invocation::new().lines(["one", "two"])).unwrap();
        assert!(lambda.shutdown("spindown").is_clean());
        let account = kinesis.account();
        account.compare(&lambda.sent()).assert_lossless();
        let process = account.by_process().into_values().next().unwrap();
        let repeated: usize = process.repeats.iter().map(|(_, count)| count - 1).sum();
        assert!(repeated > 0 && process.gaps.is_empty(), "{fault:?}");
        assert_eq!(
            ledger(&kinesis)["possibleDuplicates"].as_u64().unwrap() as usize,
            repeated,
            "{fault:?}"
        );
    }
}

#[test]
fn odd_but_good_answers_are_believed() {
    for fault in [
        Fault::lying_count(7),
        Fault::null_error_codes(),
        Fault::dribble(3, ms(1)),
        Fault::close_after_answer(),
    ] {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).start();
        lambda.init().unwrap();
        kinesis.fault(fault);
        some_invocations(&lambda);
        assert!(lambda.shutdown("spindown").is_clean());
        kinesis.account().compare(&lambda.sent()).assert_clean();
        assert_eq!(ledger(&kinesis)["retried"], 0);
    }
}

#[test]
fn one_poisonous_record_does_not_block_the_others() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).setting("RECORD", "event").start();
    lambda.init().unwrap();
    kinesis.fault(Fault::poison("poison"));
    lambda
        .invoke(Invocation::new().lines(
            (0..50).map(|n| if n == 17 { "poison".to_owned() } else { format!("fine {n}") }),
        ))
        .unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let comparison = kinesis.account().compare(&lambda.sent());
    assert_eq!(comparison.lost.len(), 1, "{comparison}");
    assert!(comparison.repeated.is_empty(), "{comparison}");
    assert_eq!(ledger(&kinesis)["dropped"]["rejected"], 1);
    assert!(
        lambda.stderr().iter().any(|line| line.contains("refuses a record")),
        "{:?}",
        lambda.stderr()
    );
}

#[test]
fn a_skewed_clock_is_learnt_from_the_answer() {
    for seconds in [-3600, 3600] {
        let kinesis = Kinesis::start();
        kinesis.move_clock(seconds);
        let lambda = extension(&kinesis).start();
        lambda.init().unwrap();
        some_invocations(&lambda);
        assert!(lambda.shutdown("spindown").is_clean());
        kinesis.account().compare(&lambda.sent()).assert_clean();
        assert_eq!(
            kinesis.puts().iter().filter(|put| put.status != Some(200)).count(),
            1,
            "one refusal, then it is known"
        );
    }
}

#[test]
fn a_kinesis_that_hangs_costs_one_time_out_and_not_one_an_invocation() {
    let kinesis = Kinesis::start();
    let lambda =
        extension(&kinesis).setting("FLUSH_TIMEOUT_MS", "1500").timeout(ms(20_000)).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::hang());
    let held: Vec<_> = (0..20)
        .map(|n| lambda.invoke(Invocation::new().text(&format!("line {n}"))).unwrap().held)
        .collect();
    // The time-out is paid once, with room for a slow machine; after that there are only probes.
    assert!(held.iter().filter(|held| **held >= ms(1400)).count() <= 1, "{held:?}");
    assert!(held.iter().all(|held| *held < ms(5000)), "{held:?}");
    kinesis.clear_faults();
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_lossless();
    ledger(&kinesis);
}

#[test]
fn a_refused_connection_is_tried_again_when_kinesis_is_back() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).setting("FLUSH_TIMEOUT_MS", "200").start();
    lambda.init().unwrap();
    kinesis.refuse_connections();
    some_invocations(&lambda);
    kinesis.accept_connections();
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    assert_eq!(ledger(&kinesis)["possibleDuplicates"], 0);
}

#[test]
fn a_post_on_a_wrong_path_is_refused_and_counted() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).start();
    lambda.init().unwrap();
    let forged = br#"[{"time":"2026-11-23T09:15:45.012Z","type":"function","record":"forged"}]"#;
    for path in ["/", "/telemetry", "/0000000000000000"] {
        assert_eq!(lambda.post_to(path, forged).unwrap(), 404);
    }
    lambda.invoke(Invocation::new().text("genuine")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    assert!(account.containing("forged").is_empty());
    account.compare(&lambda.sent()).assert_clean();
    assert_eq!(ledger(&kinesis)["refusedPosts"], 3);
    assert_eq!(lambda.stderr().len(), 1, "{:?}", lambda.stderr());
    assert!(
        lambda.stderr()[0].contains("404") && !lambda.stderr()[0].contains("0000"),
        "{:?}",
        lambda.stderr()
    );
}
