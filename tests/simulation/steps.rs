//! What the core decides, step by step: promises that every life keeps or breaks unseen, since all
//! events arrive either way. Here: invocations, the connection, what wakes the dispatcher, clocks.
//! Requests are in [`super::requests`], those that fail in [`super::failures`], the end in
//! [`super::ending`]; whole lives in [`super::scenarios`].

use std::time::Duration;

use kinesis_telemetry_extension::dispatch::message::{Load, Message, Signal};
use kinesis_telemetry_extension::dispatch::policy::FlushMode;
use kinesis_telemetry_extension::dispatch::preparing::Effort;
use kinesis_telemetry_extension::dispatch::step::{Oldest, Outcome, Step, Unread};
use kinesis_telemetry_extension::log::Level;

use crate::desk::{
    Desk, desk, events, held_to_the_end, in_records, next, probing, probing_with_empty_memory,
};

// --- invocations ---------------------------------------------------------------------------------

#[test]
fn an_invocation_is_let_go_once_all_of_it_is_sent_in_the_time_of_a_flush() {
    let mut desk = held_to_the_end();
    desk.invoke("r1", 1, 30_000);
    desk.started("r1");
    desk.post(2, 40);
    desk.wait();
    assert!(desk.replies.is_empty());
    desk.pass(20);
    desk.ended("r1", false);
    desk.pass(30);
    let end = desk.later(2970);
    let (parcel, deadline) = desk.send();
    assert_eq!((events(&parcel), deadline.at()), (vec![0, 1], end), "it counts from the end");
    desk.taken(parcel);
    desk.wait();
    assert_eq!((&desk.replies[..], desk.ledger().delivered.get()), (&[1][..], 2));
}

#[test]
fn what_comes_while_an_invocation_is_held_waits_for_a_second_and_else_for_its_age() {
    let mut desk = held_to_the_end();
    desk.invoke("r1", 1, 30_000);
    desk.started("r1");
    desk.wait();
    desk.post(1, 40);
    assert_eq!(desk.wait_ms(), Some(1000));
    desk.pass(999);
    assert_eq!(desk.wait_ms(), Some(1));
    desk.pass(1);
    desk.send();

    let mut desk = next();
    desk.invoke("r1", 1, 30_000);
    desk.started("r1");
    desk.wait();
    assert_eq!(desk.replies, [1], "nothing is due");
    desk.post(1, 40);
    assert_eq!(desk.wait_ms(), Some(10_000));
    desk.pass(9999);
    desk.wait();
    desk.pass(1);
    desk.send();
}

#[test]
fn no_request_begins_with_less_than_10_ms_left() {
    for (left, begins) in [(10, true), (9, false)] {
        // Of a flush.
        let mut desk = held_to_the_end();
        desk.invoke("r1", 1, 30_000);
        desk.post(1, 40);
        desk.ended("r1", false);
        desk.pass(3000 - left);
        assert_eq!(matches!(desk.step(), Step::Send { .. }), begins, "{left}");
        assert_eq!(desk.replies.is_empty(), begins);
        // Of the invocation itself.
        let mut desk = held_to_the_end();
        desk.invoke("r1", 1, 1000);
        desk.wait();
        desk.pass(1000 - left);
        desk.post(30, 200);
        assert_eq!(matches!(desk.step(), Step::Send { .. }), begins, "{left}");
    }
}

#[test]
fn a_flush_waits_for_a_pause_unless_that_outlasts_it() {
    let mut desk = desk(|plan| plan.setup.flush_timeout = 1000);
    desk.invoke("r1", 1, 30_000);
    desk.post(1, 40);
    desk.ended("r1", false);
    let end = desk.later(1000);
    let (mut tries, mut waits) = (0, 0);
    while desk.replies.is_empty() {
        match desk.step() {
            Step::Send { parcel, .. } => {
                desk.failed(parcel, "ThrottlingException");
                tries += 1;
            }
            Step::Wait(Some(until)) if desk.replies.is_empty() => {
                assert!(until < end, "it goes on within the flush");
                waits += 1;
                desk.pass(u64::try_from((until - desk.now().mono).as_millis()).unwrap() + 1);
            }
            _ => {}
        }
    }
    assert!(waits > 0 && tries > 1 && desk.now().mono < end, "nobody waits in vain");
}

/// With 20 ms left when the pause was over, the thread woke a moment later, found a little less and
/// sent nothing: the invocation was held for nothing.
#[test]
fn a_request_that_a_flush_waited_for_is_sent_if_the_thread_wakes_late() {
    for seed in 1..300 {
        let mut desk = desk(|plan| (plan.seed, plan.setup.flush_timeout) = (seed, 1000));
        desk.invoke("r1", 1, 30_000);
        desk.post(1, 40);
        desk.ended("r1", false);
        let mut waited = false;
        while desk.replies.is_empty() {
            match desk.step() {
                Step::Send { parcel, .. } => {
                    desk.failed(parcel, "ThrottlingException");
                    waited = false;
                }
                Step::Wait(Some(until)) if desk.replies.is_empty() => {
                    desk.pass(u64::try_from((until - desk.now().mono).as_millis()).unwrap() + 5);
                    waited = true;
                }
                _ => {}
            }
        }
        assert!(!waited, "{seed}");
    }
}

/// It was held to the end of the flush, without another request in it.
#[test]
fn a_flush_is_over_when_nothing_of_it_is_due_in_its_time() {
    for seed in 1..50 {
        let mut desk = desk(|plan| {
            in_records(plan);
            plan.seed = seed;
            plan.setup.flush_timeout = 1000;
        });
        desk.invoke("r1", 1, 30_000);
        desk.post(20, 40);
        desk.ended("r1", false);
        let end = desk.later(990);
        while desk.replies.is_empty() {
            match desk.step() {
                Step::Send { parcel, .. } => {
                    // One shard is throttled, and another one is not.
                    desk.all_but_one_throttled(parcel);
                }
                Step::Wait(Some(until)) if desk.replies.is_empty() => {
                    assert!(until < end, "{seed}: nobody waits for the end of the flush");
                    desk.pass(u64::try_from((until - desk.now().mono).as_millis()).unwrap() + 1);
                }
                _ => {}
            }
        }
    }
}

/// What was left of an earlier flush was due, and none of this one: nobody woke for what was of it,
/// and the invocation was held to the end of the flush.
#[test]
fn a_flush_goes_on_when_its_own_is_due_whatever_else_is() {
    for seed in 1..50 {
        let mut desk = desk(|plan| {
            in_records(plan);
            plan.seed = seed;
            plan.setup.flush_timeout = 1000;
        });
        let mut tries = 0;
        for (ticket, id) in [(1, "r1"), (2, "r2")] {
            desk.invoke(id, ticket, 30_000);
            desk.post(20, 40);
            desk.ended(id, false);
            let end = desk.later(1000);
            tries = 0;
            while !desk.replies.contains(&ticket) {
                match desk.step() {
                    Step::Send { parcel, .. } => {
                        tries += u32::from(events(&parcel).iter().any(|event| *event >= 20));
                        desk.all_but_one_throttled(parcel);
                    }
                    Step::Wait(Some(until)) if !desk.replies.contains(&ticket) => {
                        assert!(until + Duration::from_millis(10) < end, "{seed}: {id}");
                        desk.pass(
                            u64::try_from((until - desk.now().mono).as_millis()).unwrap() + 1,
                        );
                    }
                    _ => {}
                }
            }
            desk.pass(20_000);
        }
        assert!(tries > 1, "{seed}: its own is tried again in the flush");
    }
}

#[test]
fn what_failed_through_a_flush_holds_no_later_one() {
    let mut desk = desk(|plan| plan.setup.flush_timeout = 300);
    desk.invoke("r1", 1, 30_000);
    desk.post(1, 40);
    desk.ended("r1", false);
    let (parcel, _) = desk.send();
    desk.failed(parcel, "ThrottlingException");
    desk.pass(300);
    desk.wait();
    assert_eq!(desk.replies, [1]);
    desk.pass(60_000);
    desk.invoke("r2", 2, 30_000);
    desk.wait();
    assert_eq!(desk.replies, [1, 2]);
    desk.started("r2");
    desk.pass(50);
    desk.send();
}

#[test]
fn taking_over_what_an_earlier_process_left_holds_nobody() {
    let mut desk = held_to_the_end();
    desk.on_disk(Oldest::Empty, Oldest::Ready(7));
    desk.invoke("r1", 1, 30_000);
    desk.started("r1");
    assert!(matches!(desk.step(), Step::Read(7)));
    desk.on_disk(Oldest::Empty, Oldest::Empty);
    desk.ended("r1", false);
    desk.read(7, 3);
    desk.wait();
    assert_eq!(desk.replies, [1]);
    // It is sent as soon as a function runs.
    desk.runs("r2");
    let (parcel, _) = desk.send();
    assert_eq!(parcel.segment, Some(7));
    desk.taken(parcel);
    assert!(matches!(desk.step(), Step::Remove(7)));
}

#[test]
fn what_memory_could_not_hold_is_of_the_flush() {
    let mut desk = held_to_the_end();
    desk.invoke("r1", 1, 30_000);
    desk.ended("r1", false);
    desk.on_disk(Oldest::Ready(7), Oldest::Empty);
    assert!(matches!(desk.step(), Step::Read(7)));
    desk.on_disk(Oldest::Empty, Oldest::Empty);
    desk.read(7, 3);
    let (parcel, _) = desk.send();
    desk.taken(parcel);
    assert!(matches!(desk.step(), Step::Remove(7)));
    desk.wait();
    assert_eq!(desk.replies, [1]);
}

/// The start of an invocation that had long been over was taken for the next one's, behind which the
/// end that is late would never come: the sandbox went on as `next` for the rest of its life.
#[test]
fn a_late_start_of_another_invocation_does_not_say_that_ends_never_come() {
    let mut desk = held_to_the_end();
    desk.invoke("r1", 1, 3000);
    desk.started("r1");
    desk.ended("r1", false);
    desk.wait();
    desk.invoke("r2", 2, 3000);
    desk.pass(3000);
    desk.wait();
    assert_eq!(desk.replies, [1, 2], "its end is late");
    desk.started("r1");
    desk.ended("r2", false);
    desk.wait();
    assert!(desk.said.is_empty(), "{:?}", desk.said);
    desk.invoke("r3", 3, 3000);
    desk.wait();
    assert_eq!(desk.replies, [1, 2], "it is held to its end");
}

/// It was held up to its deadline: the same start once more hid that its end may be lost.
#[test]
fn a_start_that_is_posted_twice_hides_no_gap() {
    let mut desk = held_to_the_end();
    desk.invoke("r1", 1, 30_000);
    desk.started("r1");
    desk.signal(Signal::Gap);
    desk.started("r1");
    desk.wait();
    assert_eq!(desk.replies, [1]);
}

#[test]
fn an_end_that_never_comes_is_said_once_and_waited_for_once() {
    let mut desk = held_to_the_end();
    desk.invoke("r1", 1, 1000);
    desk.started("r1");
    desk.wait();
    desk.pass(1000);
    desk.wait();
    assert!(desk.replies == [1] && desk.said.is_empty());
    desk.invoke("r2", 2, 30_000);
    desk.wait();
    assert_eq!(desk.replies, [1, 2], "no other end is waited for meanwhile");
    desk.started("r2");
    desk.wait();
    let said: Vec<_> = desk.said.iter().map(|(level, topic, _)| (*level, *topic)).collect();
    assert_eq!(said, [(Level::Warn, "no-runtime-done")]);
    for n in 3..6 {
        desk.invoke(&format!("r{n}"), n, 1000);
        desk.started(&format!("r{n}"));
        desk.wait();
        desk.pass(2000);
    }
    assert_eq!((&desk.replies[..], desk.said.len()), (&[1, 2, 3, 4, 5][..], 1));
}

#[test]
fn invocations_are_as_far_apart_as_they_came_however_late_they_are_heard_of() {
    for (gap, is_held) in [(5000, false), (13_000, true)] {
        let mut desk = desk(|plan| plan.setup.mode = FlushMode::Adaptive);
        // The dispatcher is busy meanwhile.
        let mut came = desk.now();
        let mut messages = Vec::new();
        for n in 0..30 {
            came.mono += Duration::from_millis(gap);
            came.wall += gap;
            messages.push((came, format!("r{n}")));
        }
        desk.pass(30 * gap);
        for (at, id) in messages {
            desk.passes_at(&id, at);
        }
        desk.invoke("last", 1, 30_000);
        desk.wait();
        assert_eq!(desk.replies.is_empty(), is_held, "{gap}");
    }
}

// --- a Kinesis that is only probed ---------------------------------------------------------------

#[test]
fn with_nothing_to_ask_kinesis_for_nobody_is_held() {
    let mut desk = probing_with_empty_memory(|_| ());
    desk.pass(31_000);
    desk.invoke("r2", 2, 30_000);
    desk.wait();
    assert_eq!(desk.replies, [1, 2]);
}

#[test]
fn one_request_asks_whether_kinesis_does_well_again() {
    for what in ["new", "on disk"] {
        let prepare = || {
            let mut desk = probing_with_empty_memory(|_| ());
            match what {
                "new" => desk.post(1, 40),
                _ => desk.on_disk(Oldest::Ready(4), Oldest::Empty),
            }
            desk
        };
        let mut desk = prepare();
        desk.invoke("early", 2, 30_000);
        desk.wait();
        assert_eq!(desk.replies, [1, 2], "{what}: not before its time");
        desk.ended("early", false);
        for taken in [false, true] {
            let mut desk = prepare();
            desk.pass(31_000);
            desk.invoke("r2", 2, 30_000);
            desk.started("r2");
            let until = desk.later(500);
            if what == "on disk" {
                assert!(matches!(desk.step(), Step::Read(4)));
                desk.on_disk(Oldest::Empty, Oldest::Empty);
                desk.read(4, 2);
            }
            let (parcel, deadline) = desk.send();
            assert_eq!((deadline.at(), &desk.replies[..]), (until, &[1][..]), "{what}");
            if taken {
                desk.taken(parcel);
                while !matches!(desk.step(), Step::Wait(_)) {
                    desk.done(Outcome::Done);
                }
                assert_eq!(desk.replies, [1], "{what}: now it is held to its end");
                desk.ended("r2", false);
            } else {
                desk.failed(parcel, "AccessDeniedException");
            }
            desk.wait();
            assert_eq!(desk.replies, [1, 2], "{what}, taken: {taken}");
        }
    }
}

#[test]
fn after_a_probe_that_delivered_next_sends_what_waits_and_lets_go() {
    let mut desk = probing(|plan| plan.setup.mode = FlushMode::Adaptive);
    desk.ended("r1", false);
    desk.wait();
    for n in 0..40 {
        desk.passes(&format!("p{n}"));
        desk.ended(&format!("p{n}"), false);
        desk.pass(1000);
    }
    desk.post(1, 40);
    desk.invoke("r2", 2, 30_000);
    let requests = desk.taken_all().len();
    assert!(requests > 1 && desk.replies == [1, 2], "{requests}: {:?}", desk.replies);
}

/// `/next` and the probe were on their way at the same time.
#[test]
fn no_probe_begins_in_a_short_invocation_that_was_let_go() {
    for early in [0, 20, 70] {
        let mut desk = probing_with_empty_memory(|plan| plan.setup.mode = FlushMode::End);
        desk.passes("r2");
        desk.started("r2");
        desk.post(30, 200);
        let until_probe = u64::try_from(desk.wait_ms().unwrap()).unwrap() + 1;
        desk.ended("r2", false);
        desk.pass(until_probe - early - 1);
        desk.passes("r3");
        desk.started("r3");
        let (_, waited) = desk.send_soon();
        assert!((early.max(50)..early.max(50) + 3).contains(&waited), "{early}: {waited}");
    }
}

#[test]
fn what_is_apart_on_disk_is_probed_with_while_a_function_runs() {
    let mut desk = probing_with_empty_memory(|plan| plan.setup.mode = FlushMode::End);
    desk.passes("r2");
    desk.started("r2");
    assert_eq!(desk.wait(), None, "there is nothing to ask with");
    desk.on_disk(Oldest::Empty, Oldest::Ready(91));
    let wait = u64::try_from(desk.wait_ms().unwrap()).unwrap();
    assert!((100..30_000).contains(&wait), "{wait}");
    desk.pass(wait + 1);
    assert!(matches!(desk.step(), Step::Read(91)));
}

// --- the connection ------------------------------------------------------------------------------

#[test]
fn the_connection_is_made_ready_where_a_flush_is_to_be_expected() {
    let mut desk = held_to_the_end();
    desk.invoke("r1", 1, 30_000);
    desk.wait();
    assert_eq!(desk.prepared, [(Effort::Look, desk.prepared[0].1)], "the first one");
    assert_eq!(desk.prepared[0].1.at(), desk.later(1000));
    desk.ended("r1", false);
    desk.wait();
    desk.invoke("r2", 2, 30_000);
    desk.wait();
    assert_eq!(desk.prepared.len(), 1, "the flush before had nothing to send");
    desk.post(1, 40);
    desk.wait();
    assert_eq!(desk.prepared.len(), 2, "now there is something");
    desk.ended("r2", false);
    let (parcel, _) = desk.send();
    desk.taken(parcel);
    desk.wait();
    desk.invoke("r3", 3, 500);
    desk.wait();
    assert_eq!(desk.prepared.len(), 3, "as before");
    assert_eq!(desk.prepared[2].1.at(), desk.later(500), "and no longer than the invocation");
    desk.post(30, 200);
    let (parcel, _) = desk.send();
    desk.failed(parcel, "Timeout");
    desk.wait();
    desk.invoke("r4", 4, 30_000);
    desk.wait();
    assert_eq!(desk.prepared.len(), 3, "a failing Kinesis is not prepared for");
}

#[test]
fn a_connection_that_is_not_ready_is_tried_again_soon() {
    let mut desk = held_to_the_end();
    desk.invoke("r1", 1, 30_000);
    let (now, view) = (desk.now(), desk.view);
    assert!(matches!(desk.core().poll(now, view), Step::Prepare { effort: Effort::Look, .. }));
    desk.done(Outcome::Prepared(false));
    assert_eq!(desk.wait_ms(), Some(3));
    desk.pass(3);
    desk.wait();
    assert_eq!(desk.prepared.len(), 1);
}

#[test]
fn no_connection_is_made_ready_at_the_end() {
    let mut desk = held_to_the_end();
    desk.invoke("r1", 1, 30_000);
    desk.stop("spindown", 2, 2000);
    desk.step();
    assert!(desk.prepared.is_empty() && desk.replies == [1]);
}

// --- what wakes the dispatcher -------------------------------------------------------------------

#[test]
fn the_dispatcher_is_woken_for_what_may_be_due_and_for_nothing_else() {
    let mut desk = held_to_the_end();
    desk.wait();
    let asked = |desk: &mut Desk| {
        let now = desk.now();
        let attention = desk.core().attention(now);
        (attention.all, attention.starts, attention.ends, attention.bytes)
    };
    assert_eq!(asked(&mut desk), (false, true, false, Some(4096)), "nothing runs");
    desk.post(1, 40);
    desk.wait();
    let waits = desk.core().backlog().fresh_bytes();
    assert_eq!(asked(&mut desk), (false, true, false, Some(4096 - waits)));
    desk.invoke("r1", 1, 30_000);
    desk.started("r1");
    desk.wait();
    assert_eq!(asked(&mut desk), (false, false, true, Some(4096 - waits)), "the end");
    desk.ended("r1", false);
    let (parcel, _) = desk.send();
    assert!(asked(&mut desk).0, "a flush goes on with whatever comes");
    desk.failed(parcel, "ThrottlingException");
    desk.wait();
    assert!(asked(&mut desk).0);
    desk.pass(3000);
    desk.wait();
    desk.passes("r2");
    desk.wait();
    assert_eq!(asked(&mut desk), (false, true, false, Some(0)), "the start of r2 may be lost");
    desk.post(30, 200);
    desk.wait();
    assert_eq!(asked(&mut desk), (false, true, false, None), "that has a time of its own");
    desk.stop("spindown", 2, 2000);
    assert!(asked(&mut desk).0);
}

#[test]
fn invocations_pass_while_nothing_can_be_due_in_them() {
    let busy = || {
        let mut desk = desk(|plan| {
            plan.setup.mode = FlushMode::Adaptive;
            // A quarter of it is less than a request.
            plan.setup.bound = 8192;
        });
        for n in 0..30 {
            desk.passes(&format!("r{n}"));
            desk.ended(&format!("r{n}"), false);
            desk.pass(100);
        }
        desk
    };
    let passes = |desk: &mut Desk| {
        let (now, view) = (desk.now(), desk.view);
        desk.core().look(view);
        let passes = desk.core().attention(now).passes;
        passes.map(|passes| (passes.time.as_millis(), passes.bytes))
    };
    let mut desk = busy();
    assert_eq!(desk.wait_ms(), Some(10_000), "it looks now and then, as a start may be lost");
    assert_eq!(passes(&mut desk), Some((9900, 2048)));
    desk.pass(900);
    desk.post(1, 40);
    let waits = desk.core().backlog().fresh_bytes();
    assert_eq!(passes(&mut desk), Some((9000, 2048 - waits)));
    desk.pass(9000);
    assert_eq!(passes(&mut desk), None, "the next one may be rare");
    let mut desk = busy();
    desk.stop("spindown", 2, 2000);
    assert_eq!(passes(&mut desk), None);
    let mut desk = busy();
    desk.on_disk(Oldest::Ready(1), Oldest::Empty);
    assert_eq!(passes(&mut desk), None);
    let mut desk = busy();
    desk.post(30, 200);
    desk.invoke("held", 1, 30_000);
    assert_eq!(passes(&mut desk), None, "one is held");
    let (parcel, _) = desk.send();
    desk.failed(parcel, "AccessDeniedException");
    desk.wait();
    assert_eq!((passes(&mut desk), &desk.replies[..]), (None, &[1][..]), "it is only probed");
}

// --- clocks --------------------------------------------------------------------------------------

/// A function runs that nobody is held for, and an event waits.
fn waiting(max_age: u64) -> Desk {
    let mut desk = desk(|plan| {
        plan.setup.mode = FlushMode::Next;
        plan.setup.max_age = max_age;
    });
    desk.wait();
    desk.runs("r1");
    desk.post(1, 40);
    desk.wait();
    desk
}

#[test]
fn a_freeze_ages_what_waits_by_either_clock() {
    for (stopped, goes_on, is_due) in [
        (60_000, 0, true),
        (0, 60_000, true),
        (900, 0, false),
        (0, 900, true),
        (1000, 0, false),
        (1001, 0, true),
    ] {
        let mut desk = waiting(900);
        desk.wall(stopped);
        desk.pass(goes_on);
        let is_sent = matches!(desk.step(), Step::Send { .. });
        assert_eq!(is_sent, is_due, "{stopped} ms by the wall clock alone, {goes_on} by both");
    }
}

#[test]
fn many_short_freezes_age_what_waits_too() {
    let mut desk = waiting(3000);
    let sent = (0..10).any(|_| {
        desk.wall(500);
        matches!(desk.step(), Step::Send { .. })
    });
    assert!(sent);
}

#[test]
fn a_wall_clock_that_runs_a_little_fast_ages_nothing() {
    let mut desk = waiting(11_000);
    for n in 1..=5 {
        desk.pass(2000);
        desk.wall(400);
        assert_eq!(desk.wait_ms(), Some(11_000 - n * 2000));
    }
}

#[test]
fn a_wall_clock_that_is_set_back_makes_nothing_younger_and_hides_no_freeze() {
    let mut desk = waiting(100_000);
    desk.wall(60_000);
    assert_eq!(desk.wait_ms(), Some(40_000));
    desk.wall(-30_000);
    assert_eq!(desk.wait_ms(), Some(40_000));
    desk.wall(-3_600_000);
    assert_eq!(desk.wait_ms(), Some(40_000));
    desk.wall(10_000);
    assert_eq!(desk.wait_ms(), Some(30_000));
}

#[test]
fn a_message_says_what_the_clocks_were_when_it_came() {
    // The clock was set back before it came, and a freeze came after it.
    let mut desk = waiting(100_000);
    desk.wall(-3_600_000);
    desk.pass(10);
    let came = desk.now();
    desk.wall(60_000);
    desk.on(Message::Telemetry {
        at: came,
        signals: Vec::new(),
        load: Load::Nothing,
        charge: None,
    });
    assert_eq!(desk.wait_ms(), Some(40_000 - 10));
    // One from before what is known already says nothing: no freeze is counted twice.
    let mut desk = waiting(100_000);
    let came = desk.now();
    desk.wall(60_000);
    assert_eq!(desk.wait_ms(), Some(40_000));
    desk.on(Message::Telemetry {
        at: came,
        signals: Vec::new(),
        load: Load::Nothing,
        charge: None,
    });
    assert_eq!(desk.wait_ms(), Some(40_000));
}

// --- what was read -------------------------------------------------------------------------------

#[test]
fn a_file_that_was_changed_is_said_and_counted_where_it_held_something() {
    for lost in [0, 3] {
        let mut desk = held_to_the_end();
        desk.on_disk(Oldest::Ready(7), Oldest::Empty);
        desk.invoke("r1", 1, 30_000);
        desk.ended("r1", false);
        assert!(matches!(desk.step(), Step::Read(7)));
        desk.on_disk(Oldest::Empty, Oldest::Empty);
        desk.done(Outcome::Read(7, Err(Unread::Damaged(lost))));
        assert!(matches!(desk.step(), Step::Remove(7)));
        desk.wait();
        let ledger = desk.ledger();
        let counts = (ledger.dropped_rejected.get(), ledger.spool_skipped.get());
        let said: Vec<_> = desk.said.iter().map(|(_, topic, _)| *topic).collect();
        let (expected, line) =
            if lost > 0 { ((3, 1), vec!["spool-damaged"]) } else { ((0, 0), Vec::new()) };
        assert_eq!((counts, said), (expected, line));
    }
}

/// It had left the disk and was not sent yet, and nobody was held for it.
#[test]
fn what_was_read_just_before_an_invocation_is_sent_at_its_start() {
    let mut desk = next();
    desk.runs("r1");
    desk.on_disk(Oldest::Ready(1), Oldest::Empty);
    assert!(matches!(desk.step(), Step::Read(1)));
    desk.on_disk(Oldest::Empty, Oldest::Empty);
    desk.ended("r1", false);
    desk.read(1, 3);
    desk.wait();
    desk.pass(100);
    desk.invoke("r2", 2, 3000);
    let (parcel, _) = desk.send();
    assert_eq!(events(&parcel).len(), 3);
    assert_ne!(desk.replies.last(), Some(&2));
    desk.taken(parcel);
    assert!(matches!(desk.step(), Step::Remove(1)));
    desk.done(Outcome::Done);
    desk.wait();
    assert_eq!(desk.replies.last(), Some(&2));
}
