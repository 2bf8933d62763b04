//! Scripted lives, each named after what once went wrong. All invariants hold in them too.

use kinesis_telemetry_extension::dispatch::policy::FlushMode;
use kinesis_telemetry_extension::kinesis::line::PartitionKey;
use kinesis_telemetry_extension::kinesis::record::RecordFormat;

use crate::plan::{Act, Disk, Done, End, Invocation, Mode, Ms, Plan, Poison, Post};
use crate::world::{Life, MS, Us, World, sandbox_id};

const DONE: Done = Done { delay: 5, lost: false, has_time: true, again: None, gap: None };

fn invocation(runs: Ms, posts: Vec<Post>) -> Invocation {
    Invocation {
        runs,
        limit: 30_000,
        posts,
        end: End::Success,
        done: DONE,
        report_delay: 5,
        window: 2000,
    }
}

fn post(after: Ms, events: u32) -> Post {
    Post { after, events, text: 40, weight: 0 }
}

/// A POST of a full request, and some.
fn loud(after: Ms) -> Post {
    Post { after, events: 30, text: 200, weight: 0 }
}

fn freeze(wall: Ms) -> Act {
    Act::Freeze { wall, mono: wall }
}

fn live(plan: &Plan) -> Life {
    let life = World::new(plan, true).live();
    assert!(life.violation.is_none(), "{:?}\n{}", life.violation, life.timeline.join("\n"));
    life
}

fn stored(life: &Life) -> usize {
    life.events.iter().filter(|event| event.stored > 0).count()
}

/// Everything that came is on the stream.
fn all_delivered(life: &Life) {
    let missing: Vec<usize> = life
        .events
        .iter()
        .enumerate()
        .filter(|(_, event)| event.stored == 0)
        .map(|(event, _)| event)
        .collect();
    assert!(missing.is_empty(), "{missing:?}\n{}", life.timeline.join("\n"));
}

fn held(life: &Life) -> Vec<Us> {
    life.holds.iter().flatten().copied().collect()
}

#[test]
fn a_request_refused_for_a_while_loses_no_event() {
    for code in
        ["InvalidArgumentException", "ValidationException", "SerializationException", "Http413"]
    {
        for record in [RecordFormat::Lines, RecordFormat::Event, RecordFormat::Kpl] {
            let mut plan = Plan::quiet(vec![
                Act::Invoke(invocation(500, vec![loud(1), loud(2)])),
                freeze(60_000),
            ]);
            plan.acts
                .extend((0..4).flat_map(|_| {
                    [Act::Invoke(invocation(100, vec![post(1, 2)])), freeze(60_000)]
                }));
            plan.acts.push(Act::Stop { window: 2000 });
            plan.setup.record = record;
            plan.kinesis = vec![(0, Mode::RefusesAll(code)), (9000, Mode::Ok)];
            all_delivered(&live(&plan));
        }
    }
}

#[test]
fn a_throttled_shard_blocks_no_other_one() {
    let mut acts: Vec<Act> =
        (0..8).map(|_| Act::Invoke(invocation(50, vec![post(1, 3)]))).collect();
    acts.push(Act::Stop { window: 2000 });
    let mut plan = Plan::quiet(acts);
    plan.setup.key = PartitionKey::Request;
    plan.kinesis = vec![(0, Mode::Shard(0))];
    let life = live(&plan);
    // Of the keys r1 to r8, r2 and r6 fall on that shard: six events each, with the last report
    // that comes in the invocation after that.
    assert_eq!(stored(&life), life.events.len() - 12);
    assert!(
        held(&life).iter().filter(|hold| **hold > 50 * MS).count() <= 4,
        "no flush that holds none of them: {:?}",
        life.holds
    );
}

#[test]
fn a_refused_event_takes_no_other_with_it() {
    for record in [RecordFormat::Lines, RecordFormat::Event, RecordFormat::Kpl] {
        for whole in [false, true] {
            let mut plan = Plan::quiet(vec![Act::Invoke(invocation(500, vec![post(1, 20)]))]);
            plan.acts
                .extend((0..8).flat_map(|_| {
                    [freeze(40_000), Act::Invoke(invocation(500, vec![post(1, 2)]))]
                }));
            plan.acts.push(Act::Stop { window: 2000 });
            plan.setup.record = record;
            plan.poison =
                Some(Poison { every: 1000, rest: 10, code: "InvalidArgumentException", whole });
            let life = live(&plan);
            let missing: Vec<usize> = life
                .events
                .iter()
                .enumerate()
                .filter(|(_, event)| event.stored == 0)
                .map(|(event, _)| event)
                .collect();
            assert_eq!(missing, [10], "{record:?} {whole}");
            assert_eq!(life.ledger.dropped_rejected.get(), 1);
        }
    }
}

#[test]
fn a_code_that_never_goes_away_is_no_storm() {
    for code in ["InternalFailure", "SomethingNew"] {
        let mut plan = Plan::quiet(vec![
            Act::Invoke(invocation(50, vec![post(1, 5)])),
            Act::Stop { window: 2000 },
        ]);
        plan.kinesis = vec![(0, Mode::Flaky(1, code))];
        let life = live(&plan);
        assert!((2..30).contains(&life.sends), "{} requests", life.sends);
        assert!((1..=5).contains(&life.last_ledgers), "{} for the ledger", life.last_ledgers);
    }
}

/// They stayed in memory as long as the last report was waited for, which in a short window is all
/// the time there is.
#[test]
fn before_a_reset_records_that_fail_go_to_disk() {
    for mode in [Mode::ThrottlesRecords, Mode::Flaky(1, "InternalFailure")] {
        let crash = Invocation {
            end: End::SilentCrash,
            window: 500,
            ..invocation(50, vec![post(1, 5), post(10, 5)])
        };
        let mut plan = Plan::quiet(vec![
            Act::Invoke(crash),
            freeze(60_000),
            Act::Invoke(invocation(500, vec![post(1, 2)])),
            freeze(60_000),
            Act::Invoke(invocation(500, vec![post(1, 2)])),
            Act::Stop { window: 2000 },
        ]);
        plan.setup.mode = FlushMode::Next;
        plan.kinesis = vec![(180, mode), (9000, Mode::Ok)];
        all_delivered(&live(&plan));
    }
}

#[test]
fn the_last_ledger_is_tried_a_few_times() {
    let mut plan = Plan::quiet(vec![
        Act::Invoke(invocation(50, vec![post(1, 5)])),
        freeze(20_000),
        Act::Stop { window: 2000 },
    ]);
    plan.kinesis = vec![(15_000, Mode::Throttles)];
    assert!((1..=5).contains(&live(&plan).last_ledgers));
}

#[test]
fn a_crash_while_kinesis_hangs_costs_no_event() {
    for (mode, window) in [
        (FlushMode::End, 2000),
        (FlushMode::Adaptive, 2000),
        (FlushMode::Next, 2000),
        (FlushMode::End, 1400),
    ] {
        let crash =
            Invocation { end: End::Crash, window, ..invocation(700, vec![post(1, 5), loud(600)]) };
        let acts =
            vec![Act::Invoke(invocation(50, vec![post(1, 5)])), Act::Invoke(crash), Act::Heal];
        let mut plan = Plan::quiet(acts);
        plan.acts.extend((0..3).map(|_| Act::Invoke(invocation(300, vec![post(1, 1)]))));
        plan.acts.push(Act::Stop { window: 2000 });
        plan.setup.mode = mode;
        plan.kinesis = vec![(200, Mode::Hangs)];
        let life = live(&plan);
        assert!(life.events.iter().all(|event| !event.excused), "killed: {mode:?}");
        all_delivered(&life);
    }
}

#[test]
fn a_reset_with_a_large_queue_costs_no_event() {
    let many = (0..30).map(loud).collect();
    let crash = Invocation { end: End::Crash, ..invocation(100, many) };
    let mut plan = Plan::quiet(vec![Act::Invoke(crash), Act::Heal]);
    plan.acts.extend((0..3).map(|_| Act::Invoke(invocation(1500, vec![post(1, 1)]))));
    plan.acts.push(Act::Stop { window: 2000 });
    plan.setup.bound = 2 * 1024 * 1024;
    plan.setup.spool_bytes = 4 * 1024 * 1024;
    plan.kinesis = vec![(0, Mode::Refuses)];
    let life = live(&plan);
    all_delivered(&life);
    assert_eq!(life.ledger.dropped(), 0);
}

#[test]
fn an_order_to_stop_is_not_lost_while_kinesis_hangs() {
    for wait in [0, 100, 400, 900] {
        let mut plan = Plan::quiet(vec![
            Act::Invoke(invocation(300, vec![loud(1), loud(100)])),
            freeze(wait),
            Act::Stop { window: 2000 },
        ]);
        plan.setup.mode = FlushMode::Next;
        plan.kinesis = vec![(0, Mode::Hangs)];
        let life = live(&plan);
        assert_eq!(life.ledger.waiting(), 0, "all is counted");
    }
}

#[test]
fn a_reset_with_a_full_disk_counts_what_is_lost_and_keeps_what_is_there() {
    let crash = |posts| Act::Invoke(Invocation { end: End::Crash, ..invocation(100, posts) });
    // The first process leaves segments; the second cannot write.
    let mut plan = Plan::quiet(vec![crash(vec![post(1, 7)]), crash(vec![post(1, 9)]), Act::Heal]);
    plan.acts.extend((0..3).map(|_| Act::Invoke(invocation(500, vec![post(1, 1)]))));
    plan.acts.push(Act::Stop { window: 2000 });
    plan.kinesis = vec![(0, Mode::Hangs)];
    plan.disk = vec![(2500, Disk::Full)];
    let life = live(&plan);
    assert!(
        life.events
            .iter()
            .filter(|event| event.process == 3 || event.process == 1)
            .all(|event| event.stored > 0)
    );
    assert!(life.events.iter().all(|event| !event.excused));
}

#[test]
fn a_kill_with_a_segment_on_its_way_counts_the_repeats() {
    let crash = |end| Act::Invoke(Invocation { end, ..invocation(400, vec![post(1, 7)]) });
    let mut repeats = 0;
    for seed in 1..30 {
        let mut plan = Plan::quiet(vec![crash(End::Crash), crash(End::SilentCrash), Act::Heal]);
        plan.acts.extend((0..3).map(|_| Act::Invoke(invocation(500, vec![post(1, 1)]))));
        plan.acts.push(Act::Stop { window: 2000 });
        plan.seed = seed;
        plan.kinesis = vec![(0, Mode::Refuses), (2500, Mode::Cuts)];
        let life = live(&plan);
        let twice = life.events.iter().filter(|event| event.stored > 1).count() as u64;
        repeats += twice;
    }
    assert!(repeats > 0, "there is something to count");
}

#[test]
fn a_long_loud_invocation_is_sent_while_it_runs() {
    // The first flush ends at its limit with full requests still queued.
    let posts = (0..200).map(|n| loud(n * 50)).collect();
    let mut plan = Plan::quiet(vec![
        Act::Invoke(invocation(20, vec![loud(1), loud(2)])),
        Act::Invoke(invocation(10_500, posts)),
    ]);
    plan.acts.push(Act::Stop { window: 2000 });
    plan.setup.mode = FlushMode::Next;
    plan.setup.flush_timeout = 100;
    plan.setup.bound = 4 * 1024 * 1024;
    // The first flush takes longer than it may, and what comes is a little less than what Kinesis
    // takes.
    plan.kinesis = vec![(0, Mode::Slow(200)), (1000, Mode::Ok)];
    let life = live(&plan);
    all_delivered(&life);
    assert_eq!(life.ledger.spooled.get(), 0, "it keeps up");
}

#[test]
fn a_repeated_older_end_holds_no_invocation() {
    let again = Done { again: Some(60), ..DONE };
    let acts = vec![
        Act::Invoke(Invocation { done: again, ..invocation(20, vec![post(1, 1)]) }),
        Act::Invoke(Invocation {
            done: Done { delay: 1, ..DONE },
            ..invocation(30, vec![post(1, 1)])
        }),
        Act::Invoke(invocation(30, vec![post(1, 1)])),
        Act::Stop { window: 2000 },
    ];
    for seed in 1..20 {
        let life = live(&Plan { seed, ..Plan::quiet(acts.clone()) });
        assert!(held(&life).iter().all(|hold| *hold < 200 * MS), "{:?}", life.holds);
    }
}

#[test]
fn lost_logs_end_the_wait_of_their_own_invocation_only() {
    let gap = Done { gap: Some(80), lost: true, ..DONE };
    let acts = vec![
        Act::Invoke(Invocation { done: gap, ..invocation(100, vec![post(1, 1)]) }),
        freeze(1000),
        Act::Invoke(invocation(200, vec![post(1, 1)])),
        Act::Invoke(invocation(200, vec![post(1, 1)])),
        Act::Stop { window: 2000 },
    ];
    let life = live(&Plan::quiet(acts));
    assert!(life.holds[0].is_none_or(|hold| hold < 200 * MS), "{:?}", life.holds);
    assert!(
        life.holds[1].is_some() && life.holds[2].is_some(),
        "the others wait for their own end: {:?}",
        life.holds
    );
}

#[test]
fn a_flush_without_time_is_no_failure_of_kinesis() {
    let late = Done { delay: 80, ..DONE };
    let mut acts: Vec<Act> = (0..6)
        .map(|_| Act::Invoke(Invocation { done: late, ..invocation(30, vec![post(1, 1)]) }))
        .collect();
    acts.push(Act::Invoke(invocation(30, vec![post(1, 1)])));
    acts.push(Act::Stop { window: 2000 });
    let mut plan = Plan::quiet(acts);
    plan.setup.flush_timeout = 50;
    let life = live(&plan);
    assert!(life.holds.iter().all(Option::is_some), "the breaker never opened: {:?}", life.holds);
    all_delivered(&life);
}

#[test]
fn an_invoke_during_a_request_gets_no_fresh_time_out() {
    for seed in 1..20 {
        let acts = vec![
            Act::Invoke(invocation(600, vec![loud(1), loud(2), loud(3), loud(4)])),
            Act::Invoke(invocation(20, vec![post(1, 1)])),
            Act::Stop { window: 2000 },
        ];
        let mut plan = Plan { seed, ..Plan::quiet(acts) };
        plan.setup.mode = FlushMode::Next;
        plan.setup.flush_timeout = 1000;
        plan.kinesis = vec![(0, Mode::Hangs)];
        let life = live(&plan);
        assert!(held(&life).iter().all(|hold| *hold <= 1010 * MS), "{:?}", life.holds);
    }
}

#[test]
fn a_hold_is_counted_whole_whenever_its_end_is_known() {
    for (mode, delay) in [(FlushMode::Next, 5), (FlushMode::Next, 150), (FlushMode::End, 60)] {
        let done = Done { delay, ..DONE };
        let posts = vec![loud(1), loud(2)];
        let acts = vec![
            Act::Invoke(Invocation { done, ..invocation(20, posts.clone()) }),
            Act::Invoke(Invocation { done, ..invocation(20, posts.clone()) }),
            Act::Invoke(Invocation { done, ..invocation(20, posts) }),
            Act::Stop { window: 2000 },
        ];
        let mut plan = Plan::quiet(acts);
        plan.setup.mode = mode;
        plan.kinesis = vec![(0, Mode::Slow(300))];
        let life = live(&plan);
        let (seen, counted) =
            (held(&life).iter().sum::<Us>() / MS, life.ledger.hold_ms_total.get());
        assert!(
            seen > 50 && counted.abs_diff(seen) <= 10,
            "{mode:?} {delay}: held for {seen} ms, counted are {counted}"
        );
    }
}

#[test]
fn a_busy_sandbox_sends_its_periodic_ledger() {
    let mut acts: Vec<Act> = Vec::new();
    for _ in 0..12 {
        acts.push(Act::Invoke(invocation(3000, (0..10).map(|n| loud(n * 300)).collect())));
        acts.push(freeze(60_000));
    }
    acts.push(Act::Stop { window: 2000 });
    let life = live(&Plan::quiet(acts));
    assert_eq!(life.ledger_events, 2, "one in five minutes");
}

#[test]
fn a_clock_that_is_set_back_stops_no_age() {
    let mut acts = vec![Act::Invoke(invocation(20, vec![post(1, 1)])), Act::Jump(-3_600_000)];
    acts.push(Act::Invoke(invocation(9000, vec![post(10, 2)])));
    acts.push(Act::Stop { window: 2000 });
    let mut plan = Plan::quiet(acts);
    plan.setup.mode = FlushMode::Next;
    plan.setup.max_age = 1000;
    // What is not sent by its age while the function runs is lost in the outage after that.
    plan.kinesis = vec![(5000, Mode::Refuses)];
    let life = live(&plan);
    // The end and the last report come in the outage.
    assert!(
        life.events.iter().rev().skip(2).all(|event| event.stored > 0),
        "{}",
        life.timeline.join("\n")
    );
}

/// A segment was read just when the flush ended, and then what had come after it was sent before
/// it.
#[test]
fn a_segment_that_was_read_too_late_keeps_its_place() {
    live(&Plan::random(38_888));
}

/// Seeds that once broke a promise, each with its cause.
#[test]
fn seeds_that_once_went_wrong() {
    for (seed, cause) in [
        (3_177_270, "an event that fails whole requests was sent again before each segment"),
        (3_264_585, "the same, and a single refused event left no room to read a segment"),
        (3_319_343, "the same"),
        (33, "what was set aside was never sent again in a sandbox that only flushes at the end"),
        (225, "a throttled event waited for the end of the sandbox although Kinesis did well"),
        (459, "an event was given up after two refusals of its own and one of its neighbours"),
        (2241, "a refused event was written to disk and read again, and each time it began anew"),
        (3497, "with the breaker open each probe was the same refused request"),
        (5541, "events behind many refused segments had no time at the end"),
        (13_662, "at the end fresh events waited for the pause of a refused one"),
        (7904, "a request that began before an end was heard held the invocation"),
        (23_133, "an order to stop with little time left waited for a request"),
        (271_533, "fresh events were written to disk because a single event was refused"),
        (39_962, "fresh events were written to disk in the pause of a refused one"),
        (20, "the sandbox event was on disk, and what came later was sent without it"),
        (40, "the sandbox event was lost with the request that it was packed into"),
        (
            102,
            "at the end there was no time for the last ledger, and no line for CloudWatch either",
        ),
        (
            10_104,
            "a whole segment that was read was dropped, and its file deleted, as the disk was full",
        ),
        (26_514, "the same"),
        (23_221, "after an outage, what was on disk waited for other events, and none came"),
        (6488, "the same"),
        (340, "the sandbox event of a restore waited for the one before, and events did not"),
        (26_703, "after a freeze an invocation passed, and a timer from before it went on"),
        (33_748, "the same"),
        (33_749, "the same"),
        (39_491, "the same"),
        (
            50_012_203,
            "the sandbox event filled a request alone, and that was evicted before the others",
        ),
        (69, "a segment was deleted unread, as something was being appended to it"),
        (50_002_230, "the end that was waited for was one of many signals, which became a gap"),
        (50_008_297, "invocations passed while a full request waited, and a start was lost"),
        (50_020_081, "refused events left no room to read what was still on disk"),
        (60_014_608, "events that could not be written to disk were sent before older ones"),
        (50_043_853, "of a segment in parts each was dropped, though its file was whole"),
        (320, "in an outage without a disk events were dropped though memory had room"),
        (869, "the same"),
        (11_070, "before a reset files were written when there was no time left for them"),
        (880_001_164, "with memory full, files were read and put back, and nothing was sent"),
        (880_010_852, "at the end files were sent before what waited in memory for room"),
        (90_082_933, "a full request that met a dead connection was left out of later flushes"),
        (90_431_052, "at the end a full memory waited for the pause of a refused record"),
        (90_140_433, "the model: a part of a segment that had to give way waited in its file"),
        (90_340_565, "the model: a refused event that waited for its choice was not foreseen"),
        (90_718_931, "the same"),
        (91_129_281, "the model: at the end nobody counted what waited for its choice"),
        (
            90_280_788,
            "the model gave up what the dispatcher itself hands over as it closes the intake",
        ),
        (
            90_312_630,
            "the model gave an order to stop that came late no time, the program assumes it",
        ),
        (90_464_304, "the same"),
        (
            92_205_456,
            "what had to give way on disk was waited for, as its first file was still there",
        ),
        (93_122_842, "the life ended with a sandbox event still beside an event that was refused"),
        (
            93_135_302,
            "a POST that was not waited for, nor answered 200, was dropped after the metrics",
        ),
        (
            92_008_972,
            "a part was delivered from a file of its own, and the old file was sent whole",
        ),
        (
            93_177_272,
            "at the end refused files were read while good events waited beside refused ones",
        ),
        (95_032_342, "the same"),
        (95_576_031, "the same"),
        (95_692_496, "the same"),
        (95_846_731, "the same"),
        (95_848_977, "the same"),
        (97_000_357, "the same, and single refused events were sent again before those"),
        (
            95_406_124,
            "what was written to disk in a pause waited behind refused files of an earlier process",
        ),
        (95_696_133, "the same"),
        (
            95_154_891,
            "in a short window requests went from disk before what waited for its choice was there",
        ),
        (95_157_895, "the same"),
        (95_301_528, "the same"),
        (95_479_141, "the same"),
        (95_717_048, "the same"),
        (95_755_395, "the same"),
        (95_763_351, "the same"),
        (110_118_977, "without a disk good events were dropped with a refused one beside them"),
        (110_119_460, "the same"),
        (
            110_104_407,
            "what Kinesis refused while it took others was in memory alone, and the process killed",
        ),
        (110_133_583, "the same"),
        (110_154_212, "the same"),
        (110_439_415, "the model: a full request was to be sent in the time of the last ledger"),
        (95_049_964, "the model: on Managed Instances there were three rounds between two probes"),
        (96_960_404, "the model took an end that came behind the next start for one in order"),
        (6_138_108, "a flush waited for a pause, woke a moment late, and sent nothing"),
        (6_313_837, "what was put back was tried as a whole again, though a part was refused"),
        (5_000_498, "what was just read from disk was not due at an invocation's start"),
        (120_640_730, "one whose end came late ran for the core, with the next one over"),
        (
            800_000_140,
            "the start of one that ended long ago came late, and that one ran for the core",
        ),
        (800_003_794, "the same, of one that a process before this one had seen"),
    ] {
        let life = World::new(&Plan::random(seed), false).live();
        assert!(life.violation.is_none(), "{seed}: {cause}: {:?}", life.violation);
    }
}

/// The event that says what a sandbox is was packed once, with the first request: that went to
/// disk, and others were sent before it.
#[test]
fn what_a_sandbox_is_comes_first_whatever_becomes_of_its_first_request() {
    let crash = |posts| Act::Invoke(Invocation { end: End::Crash, ..invocation(1500, posts) });
    let quiet = || Act::Invoke(invocation(500, vec![post(1, 1)]));
    // Held and refused for so long that what waits goes to disk, then a reset; and so again.
    for mode in [Mode::Refuses, Mode::Hangs, Mode::Throttles, Mode::Cuts] {
        let mut acts = vec![crash(vec![post(1, 3)]), crash(vec![post(1, 3), post(1400, 2)])];
        acts.extend([quiet(), Act::Heal, quiet(), quiet(), quiet()]);
        acts.push(Act::Stop { window: 2000 });
        let mut plan = Plan::quiet(acts);
        plan.kinesis = vec![(0, mode)];
        let life = live(&plan);
        all_delivered(&life);
        assert!(life.introductions.values().all(|about| about.stored), "{:?}", life.introductions);
        assert_eq!(life.introductions.len(), 3, "each process has one");
    }
}

/// What Kinesis refuses alone holds nobody and is sent by itself, not with each request anew.
#[test]
fn a_throttled_sandbox_event_holds_no_other() {
    let mut acts: Vec<Act> =
        (0..20).map(|_| Act::Invoke(invocation(50, vec![post(1, 2)]))).collect();
    acts.extend([Act::Heal, Act::Invoke(invocation(500, vec![]))]);
    acts.push(Act::Stop { window: 2000 });
    let mut plan = Plan::quiet(acts);
    plan.setup.record = RecordFormat::Event;
    // A key for each invocation, and only the sandbox's own is throttled.
    plan.setup.key = PartitionKey::Request;
    let shard = |key: &str| key.bytes().map(u64::from).sum::<u64>() % 4;
    let own = shard(&sandbox_id(&plan, (1, 0)));
    plan.kinesis = vec![(0, Mode::Shard(own))];
    let life = live(&plan);
    let on_that_shard = (1..=20).filter(|n| shard(&format!("r{n}")) == own).count();
    let long = held(&life).iter().filter(|hold| **hold > 50 * MS).count();
    assert!(long <= 2 * on_that_shard + 2, "{long} of 20 are held: {:?}", life.holds);
    all_delivered(&life);
    assert!(life.introductions[&(1, 0)].stored);
}

/// Each probe of an outage was a second after the one before, and held an invocation.
#[test]
fn in_an_outage_probes_become_rarer() {
    for mode in [Mode::Hangs, Mode::Throttles, Mode::Configuration("AccessDeniedException")] {
        let mut acts = Vec::new();
        for _ in 0..60 {
            acts.push(Act::Invoke(invocation(20, vec![post(1, 1)])));
            acts.push(freeze(2000));
        }
        acts.push(Act::Stop { window: 2000 });
        let mut plan = Plan::quiet(acts);
        plan.kinesis = vec![(0, mode)];
        let life = live(&plan);
        let held = held(&life).iter().filter(|hold| **hold > 50 * MS).count();
        // 1, 2, 4, 8, 16, 30, 30 and 30 seconds, half of that at least, in two minutes.
        assert!(held <= 12, "{mode:?}: {held} invocations of 60 are held: {:?}", life.holds);
        assert!(life.sends < 60, "{mode:?}: {} requests", life.sends);
    }
}

/// Kinesis fails the whole request for what one event holds, with a code that says nothing of the
/// kind: others are to go first, and then it is divided.
#[test]
fn a_request_that_always_fails_makes_way_and_is_divided() {
    for record in [RecordFormat::Lines, RecordFormat::Event, RecordFormat::Kpl] {
        let mut plan = Plan::quiet(vec![Act::Invoke(invocation(500, vec![post(1, 20)]))]);
        plan.acts.extend(
            (0..20).flat_map(|_| [freeze(40_000), Act::Invoke(invocation(1000, vec![post(1, 2)]))]),
        );
        plan.acts.push(Act::Stop { window: 2000 });
        plan.setup.record = record;
        plan.poison = Some(Poison { every: 1000, rest: 10, code: "InternalFailure", whole: true });
        let life = live(&plan);
        let missing: Vec<usize> = life
            .events
            .iter()
            .enumerate()
            .filter(|(_, event)| event.stored == 0)
            .map(|(event, _)| event)
            .collect();
        assert_eq!(missing, [10], "{record:?}\n{}", life.timeline.join("\n"));
        assert_eq!(
            (life.ledger.dropped_rejected.get(), life.ledger.dropped_undelivered.get()),
            (0, 1),
            "it may pass, so it is never given up"
        );
    }
}

/// In a busy sandbox of short functions nothing was known to run, memory was empty, and so nothing was
/// due: what had been written to disk in an outage stayed there, and all that came followed it.
#[test]
fn what_is_on_disk_is_sent_in_a_busy_sandbox_of_short_functions() {
    let short = || {
        let done = Done { delay: 25, ..DONE };
        [Act::Invoke(Invocation { done, ..invocation(4, vec![post(1, 1)]) }), freeze(100)]
    };
    let mut acts: Vec<Act> = (0..30).flat_map(|_| short()).collect();
    // More than memory holds, while Kinesis is not there.
    acts.push(Act::Invoke(invocation(2000, (0..60).map(|n| loud(n * 10)).collect())));
    acts.extend((0..200).flat_map(|_| short()));
    acts.extend([freeze(300_000), Act::Stop { window: 2000 }]);
    let mut plan = Plan { seed: 6, ..Plan::quiet(acts) };
    plan.setup.mode = FlushMode::Adaptive;
    plan.setup.bound = 128 * 1024;
    plan.setup.spool_bytes = 1024 * 1024;
    plan.kinesis = vec![(3000, Mode::Refuses), (6500, Mode::Ok), (100_000, Mode::Refuses)];
    let life = live(&plan);
    // What came last waits for its age.
    let missing = (0..1900).filter(|event| life.events[*event].stored == 0).count();
    assert!(life.ledger.spooled.get() > 500, "{} on disk", life.ledger.spooled.get());
    assert_eq!(missing, 0, "{}", life.timeline.join("\n"));
}

/// Without a disk and with little memory. In the first, each of three requests was refused for what
/// one of its events holds, memory was full of what had not been sent, and nothing was sent any more.
#[test]
fn without_a_disk_refused_events_keep_no_other_waiting() {
    for seed in [703_106, 701_034, 704_352].into_iter().chain(704_500..704_700) {
        let mut plan = Plan::random(seed);
        plan.setup.spool_bytes = 0;
        (plan.setup.bound, plan.setup.request_bytes) = (128 * 1024, 8192);
        let life = World::new(&plan, false).live();
        assert!(life.violation.is_none(), "{seed}: {:?}", life.violation);
    }
}

/// Dead connections had used up the tries that have no pause, and so the first request that reached
/// Kinesis, which takes no CBOR, failed the probe: until the next one, all waited for up to 30 s more.
#[test]
fn cbor_that_is_refused_after_an_outage_is_sent_again_at_once() {
    for seed in [7, 15] {
        let mut plan = Plan::quiet(vec![Act::Invoke(invocation(50, vec![post(1, 2)]))]);
        plan.acts.extend([Act::Heal, freeze(60_000)]);
        plan.acts.push(Act::Invoke(invocation(500, vec![post(1, 2)])));
        plan.acts.push(Act::Stop { window: 2000 });
        (plan.seed, plan.stale) = (seed, 1);
        let life = live(&plan);
        let before_the_end = life.timeline.iter().take_while(|line| !line.contains("asks Stop"));
        let taken = before_the_end.filter(|line| line.contains("1 of 1 taken")).count();
        assert!(taken > 0, "{}", life.timeline.join("\n"));
    }
}

#[test]
fn an_end_that_never_comes_costs_one_wait() {
    let lost = Done { lost: true, ..DONE };
    let mut acts: Vec<Act> = (0..8)
        .map(|_| {
            Act::Invoke(Invocation { done: lost, limit: 3000, ..invocation(50, vec![post(1, 2)]) })
        })
        .collect();
    acts.push(Act::Stop { window: 2000 });
    let life = live(&Plan::quiet(acts));
    assert_eq!(held(&life).iter().filter(|hold| **hold > 1000 * MS).count(), 1, "{:?}", life.holds);
    all_delivered(&life);
}
