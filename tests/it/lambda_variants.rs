//! What AWS leaves open, decided in the harder way: the same life of a sandbox under every switch,
//! and every event accounted for.

use std::time::Duration;

use sandbox::{Delivery, Fault, Invocation, Kinesis, KinesisBuilder, LambdaBuilder, ms};

use crate::{extension, ledger};

type Switch<T> = fn(T) -> T;

/// What a variant decides, for the sandbox and for Kinesis.
struct Variant {
    lambda: Switch<LambdaBuilder>,
    kinesis: Switch<KinesisBuilder>,
    /// Lambda posts again what was refused, but only while the sandbox is not frozen.
    refuses: bool,
    /// Nobody sees SHUTDOWN who waits for an end that is not reported.
    killed_in_a_crash: bool,
    out_of_memory: bool,
}

const USUAL: Variant = Variant {
    lambda: |lambda| lambda,
    kinesis: |kinesis| kinesis,
    refuses: false,
    killed_in_a_crash: false,
    out_of_memory: false,
};

/// A cold start, warm invocations with pauses, a reset, invocations after it, and the end; in each
/// mode.
fn lives(variant: &Variant) {
    for mode in ["end", "next", "adaptive"] {
        let kinesis = (variant.kinesis)(Kinesis::builder()).start();
        let lambda =
            (variant.lambda)(extension(&kinesis).setting("FLUSH", mode).timeout(ms(1500))).start();
        lambda.init().unwrap();
        let warm = |n: usize| {
            let report = lambda
                .invoke(Invocation::new().text(&format!("{mode} line {n}.")).work(ms(20)))
                .unwrap();
            assert!(
                !report.deadline_exceeded && report.in_flight_at_next == 0,
                "{mode}: {report:?}"
            );
            if variant.refuses && mode != "next" {
                lambda.drain(ms(3000));
            }
            std::thread::sleep(ms(60));
        };
        (0..3).for_each(warm);
        let last = Invocation::new().text(&format!("{mode} line 3.")).work(ms(20));
        let reset = lambda
            .invoke(if variant.out_of_memory { last.runs_out_of_memory() } else { last.crashes() })
            .unwrap()
            .reset
            .unwrap();
        assert!(reset.is_clean() || variant.killed_in_a_crash, "{mode}: {reset:?}");
        (4..6).for_each(warm);
        let shutdown = lambda.shutdown("spindown");
        assert!(shutdown.is_clean() && shutdown.took < ms(1900), "{mode}: {shutdown:?}");

        let (account, sent) = (kinesis.account(), lambda.sent());
        let comparison = account.compare(&sent);
        assert!(comparison.is_clean(), "{mode}: {comparison} {:?}", lambda.stderr());
        // Where nothing is held, it takes some invocations to find out that Lambda does not know
        // the path.
        if !(variant.refuses && mode == "next") {
            let missing: Vec<_> =
                sent.iter().filter(|event| event.handed == 0).map(ToString::to_string).collect();
            let arrived = (0..6)
                .filter(|n| account.containing(&format!("{mode} line {n}.")).len() == 1)
                .count();
            assert_eq!(arrived, 6, "{mode}: {:?}, never handed over: {missing:?}", lambda.stderr());
            ledger(&kinesis);
        }
        assert!(lambda.stderr().len() <= 4, "{mode}: {:?}", lambda.stderr());
    }
}

#[test]
fn a_life_with_nothing_unusual() {
    lives(&USUAL);
}

#[test]
fn a_life_in_which_the_first_subscription_stays_in_force() {
    lives(&Variant { lambda: LambdaBuilder::keep_first_subscription, ..USUAL });
}

#[test]
fn a_life_without_the_path() {
    lives(&Variant {
        lambda: |lambda| lambda.drop_path().without_freeze(),
        refuses: true,
        ..USUAL
    });
}

#[test]
fn a_life_with_a_poster_that_does_not_try_again() {
    lives(&Variant { lambda: LambdaBuilder::poster_without_retry, ..USUAL });
}

/// Between two invocations each connection to Kinesis dies, and nobody says so.
#[test]
fn a_life_in_which_old_connections_are_black_holes() {
    lives(&Variant { kinesis: |kinesis| kinesis.black_hole_old_connections(ms(50)), ..USUAL });
}

#[test]
fn a_life_with_a_fast_clock() {
    lives(&Variant { lambda: |lambda| lambda.deadline_offset(-3_600_000), ..USUAL });
}

#[test]
fn a_life_with_a_slow_clock() {
    lives(&Variant { lambda: |lambda| lambda.deadline_offset(3_600_000), ..USUAL });
}

#[test]
fn a_life_with_a_clock_that_is_fast_by_the_shutdown_window() {
    lives(&Variant { lambda: |lambda| lambda.deadline_offset(-1950), ..USUAL });
}

#[test]
fn a_life_with_relative_deadlines() {
    lives(&Variant { lambda: LambdaBuilder::relative_deadlines, ..USUAL });
}

#[test]
fn a_life_with_a_crash_that_is_not_reported() {
    lives(&Variant {
        lambda: LambdaBuilder::crash_without_runtime_done,
        killed_in_a_crash: true,
        ..USUAL
    });
}

#[test]
fn a_life_with_a_crash_that_is_reported_late() {
    lives(&Variant {
        lambda: |lambda| lambda.crash_with_late_runtime_done(ms(1200)),
        killed_in_a_crash: true,
        ..USUAL
    });
}

#[test]
fn a_life_with_a_runtime_that_takes_its_share_of_the_end() {
    lives(&Variant { lambda: |lambda| lambda.runtime_share_of_shutdown(ms(600)), ..USUAL });
}

#[test]
fn a_life_in_which_only_the_runtime_runs_out_of_memory() {
    lives(&Variant { lambda: LambdaBuilder::oom_of_runtime, out_of_memory: true, ..USUAL });
}

#[test]
fn a_life_in_which_the_init_after_a_reset_counts() {
    lives(&Variant { lambda: LambdaBuilder::suppressed_init_counts, ..USUAL });
}

#[test]
fn a_life_with_a_poster_in_two_segments() {
    lives(&Variant {
        lambda: |lambda| {
            lambda.delivery(Delivery { pause_after_head: Some(ms(3)), ..Delivery::default() })
        },
        ..USUAL
    });
}

#[test]
fn a_life_with_a_kinesis_that_closes_idle_connections() {
    lives(&Variant { kinesis: |kinesis| kinesis.idle_close(ms(50)), ..USUAL });
}

#[test]
fn a_life_with_a_kinesis_that_limits_each_shard() {
    lives(&Variant { kinesis: |kinesis| kinesis.shard_limit().shards(1), ..USUAL });
}

#[test]
fn a_life_with_all_of_it() {
    let all = |lambda: LambdaBuilder| {
        let lambda = lambda
            .keep_first_subscription()
            .deadline_offset(-3_600_000)
            .crash_without_runtime_done();
        lambda.runtime_share_of_shutdown(ms(600)).poster_without_retry().suppressed_init_counts()
    };
    lives(&Variant {
        lambda: all,
        kinesis: |kinesis| kinesis.shard_limit().idle_close(ms(50)),
        killed_in_a_crash: true,
        ..USUAL
    });
}

// --- the subscription
// ------------------------------------------------------------------------------------------------------------------

#[test]
fn every_process_of_a_sandbox_subscribes_the_same_path() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().crashes()).unwrap();
    lambda.invoke(Invocation::new()).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let paths: Vec<String> = lambda
        .calls()
        .into_iter()
        .filter(|call| call.path.ends_with("/telemetry"))
        .map(|call| call.body)
        .collect();
    assert!(paths.len() == 2 && paths[0] == paths[1], "{paths:?}");
    // Not to be guessed, and not the same for another function in a copy of this machine.
    let other = extension(&kinesis).function("invoices", "7").start();
    other.init().unwrap();
    let (here, there) = (lambda.subscription().unwrap().path, other.subscription().unwrap().path);
    assert!(here.len() == 33 && here != there, "{here} {there}");
    assert!(
        !here.contains(std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim())
    );
}

#[test]
fn without_the_path_one_wait_is_paid_and_said_and_then_all_arrives() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).drop_path().without_freeze().timeout(ms(1500)).start();
    lambda.init().unwrap();
    let held: Vec<Duration> = (0..4)
        .map(|n| {
            let report =
                lambda.invoke(Invocation::new().text(&format!("line {n}")).work(ms(20))).unwrap();
            assert!(!report.deadline_exceeded);
            assert!(lambda.drain(ms(10_000)), "what was refused is posted again");
            report.held
        })
        .collect();
    assert!(held[1..].iter().all(|later| *later * 2 < held[0]), "{held:?}");
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    assert_eq!(kinesis.account().containing("line ").len(), 4);
    assert!(ledger(&kinesis)["refusedPosts"].as_u64().unwrap() > 0);
    let lines = lambda.stderr();
    assert_eq!(lines.len(), 2, "the first refused POST, and that any path is taken: {lines:?}");
    assert!(lines[0].contains("404") && lines[1].contains("any path is taken"), "{lines:?}");
}

#[test]
fn without_the_path_a_sandbox_that_holds_nothing_finds_out_too() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).setting("FLUSH", "next").drop_path().without_freeze().start();
    lambda.init().unwrap();
    for n in 0..8 {
        lambda.invoke(Invocation::new().text(&format!("line {n}")).work(ms(60))).unwrap();
    }
    assert!(lambda.drain(ms(5000)));
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    assert_eq!(kinesis.account().containing("line ").len(), 8);
    assert!(
        lambda.stderr().iter().any(|line| line.contains("any path is taken")),
        "{:?}",
        lambda.stderr()
    );
}

#[test]
fn on_managed_instances_any_path_is_taken_only_until_the_right_one_is_seen() {
    let body = |text: &str| {
        format!(r#"[{{"time":"2026-11-23T09:15:45.012Z","type":"function","record":{{"message":"{text}"}}}}]"#).into_bytes()
    };
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).managed_instances().drop_path().start();
    lambda.init().unwrap();
    assert!(lambda.drain(ms(5000)));
    assert_eq!(lambda.post_to("/elsewhere", &body("before")).unwrap(), 200);
    assert_eq!(lambda.post_raw(&body("right")).unwrap(), 200);
    assert_eq!(lambda.post_to("/elsewhere", &body("after")).unwrap(), 404);
    lambda.deliver(|delivery| delivery.path = None);
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    assert_eq!(["before", "right", "after"].map(|text| account.containing(text).len()), [1, 1, 0]);
    assert_eq!(ledger(&kinesis)["refusedPosts"], 1);
}

// --- deadlines
// -------------------------------------------------------------------------------------------------------------------------

#[test]
fn shutdown_sends_what_waits_whatever_the_clock_says() {
    for (offset, relative) in [
        (-3_600_000, false),
        (-1_999, false),
        (-1_750, false),
        (10_000, false),
        (3_600_000, false),
        (0, true),
    ] {
        let kinesis = Kinesis::start();
        let builder = extension(&kinesis).setting("FLUSH", "next").deadline_offset(offset);
        let lambda = if relative { builder.relative_deadlines() } else { builder }.start();
        lambda.init().unwrap();
        lambda
            .invoke(Invocation::new().lines((0..20).map(|n| format!("line {n}"))).work(ms(50)))
            .unwrap();
        kinesis.fault(Fault::delay(ms(200)));
        let report = lambda.shutdown("spindown");
        assert!(report.is_clean(), "{offset}: {report:?} {:?}", lambda.stderr());
        kinesis.account().compare(&lambda.sent()).assert_clean();
        ledger(&kinesis);
    }
}

#[test]
fn shutdown_ends_within_its_window_whatever_the_clock_says() {
    for offset in [-3_600_000, -1_999, 0, 10_000, 3_600_000] {
        for share in [ms(0), ms(600)] {
            let kinesis = Kinesis::start();
            let lambda = extension(&kinesis)
                .deadline_offset(offset)
                .runtime_share_of_shutdown(share)
                .start();
            lambda.init().unwrap();
            kinesis.fault(Fault::hang());
            let report = lambda.shutdown("spindown");
            assert!(report.is_clean(), "{offset} {share:?}: {report:?} {:?}", lambda.stderr());
            let lines = lambda.stderr();
            assert!(
                lines.iter().any(|line| line.contains("events are lost")),
                "{offset} {share:?}: {lines:?}"
            );
            assert_eq!(
                lines.iter().any(|line| line.contains("cannot be right")),
                offset != 0,
                "{offset} {share:?}: {lines:?}"
            );
        }
    }
}

#[test]
fn a_reset_of_which_the_runtime_took_its_share_leaves_all_on_disk() {
    for offset in [0, -3_600_000] {
        let kinesis = Kinesis::start();
        let builder = extension(&kinesis)
            .setting("FLUSH", "next")
            .deadline_offset(offset)
            .runtime_share_of_shutdown(ms(600));
        let lambda = builder.start();
        lambda.init().unwrap();
        kinesis.fault(Fault::hang());
        let reset = lambda
            .invoke(
                Invocation::new()
                    .lines((0..20).map(|n| format!("last words {n}.")))
                    .work(ms(60))
                    .crashes(),
            )
            .unwrap()
            .reset;
        assert!(reset.unwrap().is_clean(), "{offset}: {:?}", lambda.stderr());
        kinesis.clear_faults();
        lambda.invoke(Invocation::new().text("after").work(ms(300))).unwrap();
        assert!(lambda.shutdown("spindown").is_clean());
        let account = kinesis.account();
        account.compare(&lambda.sent()).assert_lossless();
        assert_eq!(account.containing("last words").len(), 20, "{offset}");
    }
}

#[test]
fn an_invocation_whose_deadline_cannot_be_right_is_held_as_usual() {
    for offset in [-3_600_000, 3_600_000] {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).deadline_offset(offset).start();
        lambda.init().unwrap();
        for n in 0..3 {
            let report =
                lambda.invoke(Invocation::new().text(&format!("line {n}")).work(ms(30))).unwrap();
            assert!(
                !report.deadline_exceeded && report.next.unwrap() >= report.done,
                "held to the function's own end: {report:?}"
            );
            assert_eq!(
                kinesis.account().containing(&format!("line {n}")).len(),
                1,
                "{:?}",
                lambda.stderr()
            );
        }
        assert!(lambda.shutdown("spindown").is_clean());
        kinesis.account().compare(&lambda.sent()).assert_clean();
        assert!(
            !lambda.stderr().iter().any(|line| line.contains("did not come")),
            "{:?}",
            lambda.stderr()
        );
    }
}

// --- crashes
// ---------------------------------------------------------------------------------------------------------------------------

#[test]
fn a_crash_that_nobody_reports_loses_nothing() {
    for mode in ["end", "adaptive"] {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis)
            .setting("FLUSH", mode)
            .crash_without_runtime_done()
            .timeout(ms(20_000))
            .start();
        lambda.init().unwrap();
        let lines = (0..20).map(|n| format!("last words {n}"));
        let reset = lambda
            .invoke(Invocation::new().lines(lines).work(ms(30)).crashes())
            .unwrap()
            .reset
            .unwrap();
        assert!(!reset.deadline_met, "it waited for the end of the invocation: {reset:?}");
        kinesis.account().compare(&lambda.sent()).assert_clean();
        assert_eq!(
            kinesis.account().containing("last words").len(),
            20,
            "on the stream before the process was killed"
        );
        lambda.invoke(Invocation::new().text("after")).unwrap();
        assert!(lambda.shutdown("spindown").is_clean());
        kinesis.account().compare(&lambda.sent()).assert_clean();
    }
}

#[test]
fn a_crash_that_nobody_reports_while_kinesis_fails_leaves_all_on_disk() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).crash_without_runtime_done().timeout(ms(20_000)).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::error(500, "InternalFailure"));
    let lines = (0..20).map(|n| format!("last words {n}"));
    let reset = lambda
        .invoke(Invocation::new().lines(lines).work(ms(30)).crashes())
        .unwrap()
        .reset
        .unwrap();
    assert!(!reset.deadline_met, "{reset:?}");
    kinesis.clear_faults();
    lambda.invoke(Invocation::new().text("after")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    account.compare(&lambda.sent()).assert_clean();
    assert_eq!(account.containing("last words").len(), 20);
    assert!(ledger(&kinesis)["adopted"].as_u64().unwrap() >= 20);
}

#[test]
fn what_waits_on_disk_in_a_long_invocation_is_sent_when_kinesis_is_back() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).timeout(ms(20_000)).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::error(500, "InternalFailure"));
    let folder = lambda.tmp().join("kinesis-telemetry-extension");
    let invocation = Invocation::new().text("early").run(move |_| {
        sandbox::wait_until(ms(10_000), "a file", || {
            std::fs::read_dir(&folder).is_ok_and(|files| files.count() > 0)
        });
    });
    let invocation = invocation.text("late");
    let kinesis = std::sync::Arc::new(kinesis);
    let clears = kinesis.clone();
    lambda.invoke(invocation.run(move |_| clears.clear_faults())).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    account.compare(&lambda.sent()).assert_clean();
    assert_eq!((account.containing("early").len(), account.containing("late").len()), (1, 1));
    assert!(ledger(&kinesis)["spooled"].as_u64().unwrap() > 0);
}

#[test]
fn a_batch_that_lambda_does_not_post_again_is_reported_by_it_and_ends_the_wait() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).poster_without_retry().timeout(ms(20_000)).start();
    lambda.init().unwrap();
    assert!(lambda.drain(ms(5000)));
    let invocation = Invocation::new()
        .run(|lambda| {
            assert!(lambda.drain(ms(5000)));
            lambda.deliver(|delivery| delivery.path = Some("/wrong".to_owned()));
            lambda.emit("function", "\"lost\"");
            assert!(lambda.drain(ms(5000)));
            lambda.deliver(|delivery| delivery.path = None);
        })
        .work(ms(30));
    let report = lambda.invoke(invocation.text("kept")).unwrap();
    assert!(!report.deadline_exceeded && report.held < ms(5000), "{report:?}");
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    account.compare(&lambda.sent()).assert_clean();
    assert!(lambda.dropped() > 0);
    assert_eq!((account.containing("\"lost\"").len(), account.containing("kept").len()), (0, 1));
}

// --- Kinesis
// ---------------------------------------------------------------------------------------------------------------------------

#[test]
fn a_shard_that_is_full_delays_and_loses_nothing() {
    let kinesis = Kinesis::builder().shard_limit().shards(1).start();
    let lambda =
        extension(&kinesis).timeout(ms(60_000)).setting("FLUSH_TIMEOUT_MS", "20000").start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().floods(10, 1000, 300)).unwrap();
    sandbox::wait_until(ms(60_000), "all of the flood", || {
        lambda.invoke(Invocation::new()).unwrap();
        kinesis.account().flooded() == 10_000
    });
    assert!(lambda.shutdown("spindown").is_clean());
    let ledger = ledger(&kinesis);
    assert!(
        ledger["requestErrors"]["ProvisionedThroughputExceededException"].as_u64().unwrap() > 0,
        "{ledger}"
    );
}
