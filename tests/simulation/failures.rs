//! What becomes of what failed: as [`super::steps`].

use kinesis_telemetry_extension::dispatch::step::{Oldest, Outcome, Step};
use kinesis_telemetry_extension::kinesis::error::Error;
use kinesis_telemetry_extension::kinesis::response::RecordOutcome;

use crate::desk::{
    Desk, desk, events, finish, first, held_to_the_end, in_records, kind, managed,
    probing_with_empty_memory, refused, written_in_the_last_moments,
};
use crate::world::numbers;

/// Whether each of what is set aside is suspected to fail for what it holds.
fn suspects(desk: &mut Desk) -> Vec<(Vec<u32>, bool)> {
    let aside = desk.core().backlog().aside().iter();
    aside.map(|parcel| (events(parcel), parcel.suspect)).collect()
}

/// The probe was over, and Kinesis still taken to be down until the next invocation.
#[test]
fn a_dead_connection_does_not_cost_the_probe() {
    let mut desk = probing_with_empty_memory(|_| ());
    desk.pass(31_000);
    desk.post(1, 40);
    desk.invoke("r2", 2, 30_000);
    let (parcel, _) = desk.send();
    let error = Error { stale: true, ..Error::new("ConnectionReset", "simulated") };
    desk.sent(parcel, Err((error, String::new())));
    let (parcel, _) = desk.send();
    assert_eq!(desk.replies, [1], "r2 is held");
    desk.taken(parcel);
    desk.ended("r2", false);
    desk.wait();
    desk.invoke("r3", 3, 30_000);
    desk.wait();
    assert_eq!(desk.replies, [1, 2], "r3 is held to its end again");
}

#[test]
fn a_dead_connection_costs_two_tries_at_once_and_no_error() {
    let dead = |stale, retry_now| {
        let error = Error { stale, retry_now, ..Error::new("ConnectionReset", "simulated") };
        Err((error, String::new()))
    };
    let errors = |desk: &Desk, count: u32| {
        desk.ledger().json(None).contains(&format!("\"ConnectionReset\":{count}"))
    };
    let mut desk = managed(|_| ());
    let mut parcel = first(&mut desk);
    for delivers in [true, false] {
        for _ in 0..2 {
            desk.sent(parcel, dead(true, false));
            (parcel, _) = desk.send();
        }
        if delivers {
            desk.taken(parcel);
            parcel = first(&mut desk);
        }
    }
    assert!(desk.said.is_empty() && !desk.ledger().json(None).contains("ConnectionReset"));
    desk.sent(parcel, dead(true, false));
    assert_eq!(desk.core().backlog().aside()[0].tries, 1, "now it is a failure");
    desk.wait();
    assert!(errors(&desk, 1));
    // What the client has removed the cause of is an error, and no failure.
    let mut desk = managed(|_| ());
    let mut parcel = first(&mut desk);
    for _ in 0..3 {
        desk.sent(parcel, dead(false, true));
        (parcel, _) = desk.send();
    }
    assert!(desk.said.is_empty() && errors(&desk, 3) && parcel.tries == 0);
}

#[test]
fn the_longest_pause_is_longer_for_what_is_throttled() {
    let passing = "ProvisionedThroughputExceededException";
    for (whole, code, is_long) in [
        (true, "ThrottlingException", true),
        (true, "InternalFailure", false),
        (false, passing, true),
        (false, "InvalidArgumentException", false),
    ] {
        let (mut own, mut all) = (0, 0);
        for seed in 1..100 {
            let mut desk = managed(|plan| {
                plan.seed = seed;
                in_records(plan);
            });
            desk.post(2, 40);
            desk.pass(1000);
            let (parcel, _) = desk.send();
            if whole {
                desk.failed(parcel, code);
            } else {
                let mut outcomes = vec![RecordOutcome::Taken; parcel.request.len()];
                *outcomes.last_mut().unwrap() = refused(code);
                desk.sent(parcel, Ok(outcomes));
            }
            let due = desk.core().backlog().aside()[0].due.as_millis();
            own = own.max(due - 1000);
            let (_, waited) = desk.send_soon();
            // Beyond its own pause it waits for that of Kinesis.
            if due - 1000 < 40 {
                all = all.max(waited);
            }
        }
        assert_eq!(own > 60, is_long, "{code}: {own} ms");
        assert!(own <= 200);
        assert_eq!(all > 60, is_long && whole, "{code}: {all} ms");
    }
}

#[test]
fn an_event_that_is_refused_while_others_are_taken_pauses_nobody_else() {
    let mut desk = managed(|_| ());
    let parcel = first(&mut desk);
    desk.failed(parcel, "ValidationException");
    // Nothing was taken meanwhile: it may be all of Kinesis.
    let (parcel, _) = desk.send_soon();
    desk.failed(parcel, "ValidationException");
    desk.post(30, 200);
    desk.wait();
    let (parcel, _) = desk.send_soon();
    assert_eq!(events(&parcel)[0], 1);
    desk.taken(parcel);
    let parcel = desk.taken_until(|parcel| events(parcel) == [0]);
    desk.failed(parcel, "ValidationException");
    desk.post(30, 200);
    desk.send();
}

#[test]
fn a_request_that_fails_as_a_whole_is_suspected_after_four_tries_or_once_others_are_taken() {
    let mut desk = managed(|_| ());
    let mut parcel = first(&mut desk);
    for tries in 1..8 {
        desk.failed(parcel, "InternalFailure");
        assert_eq!(suspects(&mut desk), [(vec![0], tries > 4)], "{tries}");
        (parcel, _) = desk.send_soon();
    }
    let mut desk = managed(|_| ());
    let mut parcel = first(&mut desk);
    for _ in 1..8 {
        desk.failed(parcel, "ThrottlingException");
        assert_eq!(suspects(&mut desk), [(vec![0], false)], "throttling passes");
        (parcel, _) = desk.send_soon();
    }
    let mut desk = managed(in_records);
    desk.post(2, 40);
    desk.pass(1000);
    let (parcel, _) = desk.send();
    desk.failed(parcel, "InternalFailure");
    let (parcel, _) = desk.send_soon();
    let mut outcomes = vec![RecordOutcome::Taken; parcel.request.len()];
    *outcomes.last_mut().unwrap() = refused("InternalFailure");
    desk.sent(parcel, Ok(outcomes));
    assert_eq!(suspects(&mut desk), [(vec![1], false)], "of a single record that says nothing");
    let (parcel, _) = desk.send_soon();
    desk.failed(parcel, "InternalFailure");
    desk.post(30, 200);
    let parcel = desk.taken_until(|parcel| events(parcel) == [1]);
    desk.failed(parcel, "InternalFailure");
    assert_eq!(suspects(&mut desk), [(vec![1], true)]);
}

/// What was taken before it failed as a whole for the first time shows nothing: it was throttled
/// until then, as anything may be.
#[test]
fn what_others_were_taken_since_counts_from_the_first_failure_as_a_whole() {
    let mut shown = 0;
    for seed in 1..50 {
        let mut desk = managed(|plan| plan.seed = seed);
        let parcel = first(&mut desk);
        desk.failed(parcel, "ThrottlingException");
        desk.post(30, 200);
        let parcel = desk.taken_until(|parcel| events(parcel) == [0]);
        let others_taken = desk.ledger().delivered.get() > 0;
        desk.failed(parcel, "InternalFailure");
        assert_eq!(suspects(&mut desk), [(vec![0], false)], "{seed}");
        shown += u32::from(others_taken);
    }
    assert!(shown > 0);
}

#[test]
fn of_refused_records_what_is_throttled_is_not_suspected_of_what_it_holds() {
    let mut desk = managed(in_records);
    desk.post(2, 40);
    desk.pass(1000);
    let (parcel, _) = desk.send();
    let taken = parcel.request.len() - 2;
    let mut outcomes = vec![RecordOutcome::Taken; taken];
    outcomes.push(refused("InvalidArgumentException"));
    outcomes.push(refused("ProvisionedThroughputExceededException"));
    desk.sent(parcel, Ok(outcomes));
    let mut aside = suspects(&mut desk);
    aside.sort();
    assert_eq!(aside, [(vec![0], true), (vec![1], false)]);
}

#[test]
fn a_request_is_divided_once_it_was_refused_twice_or_others_are_taken() {
    let mut desk = managed(|_| ());
    desk.post(4, 40);
    desk.pass(1000);
    let (parcel, _) = desk.send();
    desk.refused(parcel, "InvalidArgumentException");
    let (parcel, _) = desk.send_soon();
    assert_eq!(events(&parcel), [0, 1, 2, 3], "it may be all of Kinesis");
    desk.refused(parcel, "InvalidArgumentException");
    let (parcel, _) = desk.send_soon();
    assert!(events(&parcel).len() < 4, "{:?}", events(&parcel));
    // What says nothing of its content is not, as long as nothing is taken.
    let mut desk = managed(|_| ());
    desk.post(4, 40);
    desk.pass(1000);
    let (mut parcel, _) = desk.send();
    for _ in 0..8 {
        desk.failed(parcel, "InternalFailure");
        (parcel, _) = desk.send_soon();
        assert_eq!(events(&parcel), [0, 1, 2, 3]);
    }
}

#[test]
fn before_a_reset_what_is_left_of_a_segment_is_written_anew() {
    let mut desk = desk(in_records);
    desk.on_disk(Oldest::Ready(7), Oldest::Empty);
    desk.runs("r1");
    assert!(matches!(desk.step(), Step::Read(7)));
    desk.on_disk(Oldest::Empty, Oldest::Empty);
    desk.read(7, 3);
    let (parcel, _) = desk.send();
    let mut outcomes = vec![refused("ProvisionedThroughputExceededException"); 3];
    outcomes[0] = RecordOutcome::Taken;
    assert_eq!(parcel.request.len(), 3);
    desk.sent(parcel, Ok(outcomes));
    let written = written_in_the_last_moments(&mut desk);
    assert!(matches!(desk.step(), Step::Remove(7)));
    assert_eq!(written, [1, 2]);
}

#[test]
fn an_event_that_is_refused_alone_while_others_are_taken_is_given_up_and_that_is_said() {
    for (events_of, said) in [(1, "1 events are dropped"), (0, "one of the extension's own events")]
    {
        let mut desk = managed(in_records);
        desk.post(1, 40);
        desk.pass(1000);
        let mut refusals = 0;
        for _ in 0..30 {
            let (parcel, _) = desk.send_soon();
            // Each record holds one: what the sandbox is, or an event of Lambda's.
            let is_bad = |lines: &[u8]| match events_of {
                1 => numbers(lines) == [0],
                _ => numbers(lines).is_empty(),
            };
            let outcome = |lines: Vec<u8>| {
                if is_bad(&lines) {
                    refused("InvalidArgumentException")
                } else {
                    RecordOutcome::Taken
                }
            };
            let outcomes: Vec<_> = parcel.request.data().map(outcome).collect();
            refusals += outcomes.iter().filter(|taken| **taken != RecordOutcome::Taken).count();
            desk.sent(parcel, Ok(outcomes));
            if refusals == 3 {
                break;
            }
            desk.post(1, 40);
            desk.pass(1000);
            let (parcel, _) = desk.send_soon();
            desk.taken(parcel);
        }
        desk.post(1, 40);
        desk.pass(1000);
        desk.taken_all();
        let rejected: Vec<_> =
            desk.said.iter().filter(|(_, topic, _)| *topic == "rejected").collect();
        assert!(rejected.len() == 1 && rejected[0].2.contains(said), "{:?}", desk.said);
        assert_eq!((refusals, desk.ledger().dropped_rejected.get()), (3, events_of));
    }
}

#[test]
fn a_refused_request_of_several_events_holds_its_flush() {
    for count in [1, 2] {
        let mut desk = held_to_the_end();
        desk.post(1, 40);
        desk.invoke("r1", 1, 30_000);
        desk.ended("r1", false);
        let (parcel, _) = desk.send();
        desk.taken(parcel);
        desk.wait();
        desk.invoke("r2", 2, 30_000);
        desk.post(count, 40);
        desk.ended("r2", false);
        let (parcel, _) = desk.send();
        desk.refused(parcel, "InvalidArgumentException");
        desk.wait();
        assert_eq!(desk.replies.contains(&2), count == 1, "alone, others show what it is");
    }
}

#[test]
fn what_is_set_aside_has_a_quarter_of_the_memory_and_the_rest_goes_to_disk() {
    for (bound, is_kept) in [(64 * 1024, true), (16 * 1024, false)] {
        let mut desk = managed(|plan| {
            in_records(plan);
            plan.setup.spool_bytes = 256 * 1024;
            plan.setup.bound = bound;
        });
        for _ in 0..2 {
            desk.post(20, 200);
            let (parcel, _) = desk.send();
            desk.all_but_one_throttled(parcel);
        }
        let aside = desk.core().backlog().aside().len();
        assert_eq!(aside, 2);
        assert_eq!(!matches!(desk.step(), Step::Spool(_)), is_kept, "{bound}");
    }
}

#[test]
fn what_was_refused_and_is_read_again_counts_as_sent_again() {
    let mut desk = probing_with_empty_memory(|_| ());
    let before = desk.ledger().retried.get();
    desk.on_disk(Oldest::Empty, Oldest::Ready(91));
    desk.runs("r2");
    desk.pass(31_000);
    assert!(matches!(desk.step(), Step::Read(91)));
    desk.on_disk(Oldest::Empty, Oldest::Empty);
    desk.read(91, 3);
    desk.send();
    assert_eq!(desk.ledger().retried.get(), before + 3);
}

/// A part of a divided request has no failures of its own, and was counted as sent for the first
/// time when it came back from disk.
#[test]
fn what_was_divided_and_kept_on_disk_counts_as_sent_again() {
    let mut desk = held_to_the_end();
    desk.invoke("r1", 1, 30_000);
    desk.started("r1");
    desk.post(4, 40);
    desk.wait();
    desk.pass(1000);
    for _ in 0..2 {
        let (parcel, _) = desk.send_soon();
        desk.refused(parcel, "InvalidArgumentException");
    }
    let (half, _) = desk.send_soon();
    assert!(events(&half).len() < 4);
    desk.failed(half, "InternalFailure");
    let Step::Spool(other) = desk.step() else { panic!("it has waited for long") };
    assert_eq!((other.tries, other.suspect), (0, true));
    let count = events(&other).len();
    desk.done(Outcome::Spooled(other, Some(50)));
    let Step::Spool(half) = desk.step() else { panic!("that too") };
    desk.done(Outcome::Spooled(half, Some(51)));
    desk.ended("r1", false);
    desk.wait();
    desk.on_disk(Oldest::Empty, Oldest::Ready(50));
    desk.runs("r2");
    desk.pass(31_000);
    assert!(matches!(desk.step(), Step::Read(50)));
    desk.on_disk(Oldest::Empty, Oldest::Empty);
    let before = desk.ledger().retried.get();
    desk.read(50, u32::try_from(count).unwrap());
    desk.send();
    assert_eq!(desk.ledger().retried.get() - before, count as u64);
}

/// It is sent as a whole, and of event 0 it was forgotten that Kinesis may have stored it.
#[test]
fn what_is_put_back_is_in_doubt_if_any_part_of_it_is() {
    let throttled = "ProvisionedThroughputExceededException";
    let error =
        |code: &str| Error { ambiguous: code == "Timeout", ..Error::new(code, "simulated") };
    let mut desk = managed(|plan| {
        in_records(plan);
        plan.setup.spool_bytes = 256 * 1024;
    });
    desk.on_disk(Oldest::Ready(7), Oldest::Empty);
    assert!(matches!(desk.step(), Step::Read(7)));
    desk.on_disk(Oldest::Empty, Oldest::Empty);
    desk.read(7, 2);
    let (parcel, _) = desk.send();
    desk.sent(parcel, Ok(["InvalidArgumentException", throttled].map(refused).to_vec()));
    // Event 0 is sent once more. Event 1 is throttled, in the end while others are taken.
    let (mut is_unknown, mut others_taken, mut left_behind) = (false, false, false);
    while !left_behind {
        desk.pass(50);
        let (parcel, _) = desk.send_soon();
        match events(&parcel)[..] {
            [0] if is_unknown => desk.sent(parcel, Err((error("Interrupted"), String::new()))),
            [0] => {
                desk.sent(parcel, Err((error("Timeout"), String::new())));
                desk.post(30, 200);
                is_unknown = true;
            }
            [1] => {
                desk.refused(parcel, throttled);
                left_behind = others_taken;
            }
            _ => {
                desk.taken(parcel);
                others_taken = true;
            }
        }
    }
    // Memory is full, and so is the disk.
    let full = desk.fill();
    desk.post(30, 200);
    loop {
        match desk.step() {
            Step::Send { mut parcel, .. } => {
                finish(&mut parcel.request);
                assert_eq!(events(&parcel), [1]);
                desk.refused(parcel, throttled);
            }
            Step::Spool(parcel) => desk.done(Outcome::Spooled(parcel, None)),
            Step::PutBack(7) => break,
            Step::Wait(Some(_)) => desk.pass(50),
            step => panic!("{}", kind(&step)),
        }
    }
    desk.done(Outcome::Done);
    drop(full);
    desk.on_disk(Oldest::Empty, Oldest::Ready(7));
    let parcel = loop {
        match desk.step() {
            Step::Read(7) => {
                desk.on_disk(Oldest::Empty, Oldest::Empty);
                desk.read(7, 2);
            }
            Step::Send { parcel, .. } if parcel.segment == Some(7) => break parcel,
            Step::Send { mut parcel, .. } => {
                finish(&mut parcel.request);
                desk.taken(parcel);
            }
            Step::Wait(Some(_)) => desk.pass(50),
            step => panic!("{}", kind(&step)),
        }
    };
    assert!(parcel.ambiguous);
    assert_eq!(events(&parcel).len(), 1, "what was refused is not tried as a whole again");
}
