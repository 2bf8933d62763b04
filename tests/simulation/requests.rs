//! What is sent, and in which order: as [`super::steps`].

use kinesis_telemetry_extension::dispatch::message::Signal;
use kinesis_telemetry_extension::dispatch::step::{Oldest, Step};
use kinesis_telemetry_extension::kinesis::error::Error;
use kinesis_telemetry_extension::kinesis::line::Envelope;
use kinesis_telemetry_extension::kinesis::response::RecordOutcome;
use kinesis_telemetry_extension::log::Level;

use crate::desk::{
    Desk, desk, events, finish, first, held_to_the_end, in_records, kind, managed, refused,
};
use crate::plan::Plan;
use crate::world::numbers;

/// One that was throttled through a flush of 300 ms, while Kinesis took another: event 1.
fn set_aside(desk: &mut Desk, id: &str, ticket: u64) {
    desk.invoke(id, ticket, 30_000);
    desk.post(2, 40);
    desk.ended(id, false);
    let (parcel, _) = desk.send();
    let mut outcomes = vec![RecordOutcome::Taken; parcel.request.len()];
    *outcomes.last_mut().unwrap() = refused("ProvisionedThroughputExceededException");
    desk.sent(parcel, Ok(outcomes));
    desk.pass(300);
    desk.wait();
}

fn flushes_of_300_ms(plan: &mut Plan) {
    plan.setup.flush_timeout = 300;
    in_records(plan);
}

/// Kinesis has said nothing of it. It was left out of later flushes like what is refused, and kept
/// the buffer of a full request, which nothing could take from it.
#[test]
fn a_request_that_was_cut_is_sent_in_the_next_flush_before_anything_new() {
    let stale = Error { stale: true, ..Error::new("ConnectionReset", "simulated") };
    for error in [Error::new("Interrupted", "simulated"), stale] {
        let mut desk = desk(|plan| plan.setup.flush_timeout = 300);
        desk.invoke("r1", 1, 30_000);
        desk.post(30, 200);
        desk.ended("r1", false);
        let (parcel, _) = desk.send();
        desk.taken(parcel);
        let (parcel, _) = desk.send();
        let cut = events(&parcel);
        desk.pass(295);
        desk.sent(parcel, Err((error, String::new())));
        desk.wait();
        assert_eq!(desk.replies, [1], "its time is over");
        desk.invoke("r2", 2, 30_000);
        desk.post(1, 40);
        desk.ended("r2", false);
        let (parcel, _) = desk.send();
        assert_eq!(events(&parcel), cut);
        desk.taken(parcel);
        let others: Vec<u32> = (cut.last().unwrap() + 1..=30).collect();
        assert_eq!((desk.taken_all().concat(), &desk.replies[..]), (others, &[1, 2][..]));
    }
}

#[test]
fn what_is_set_aside_goes_along_with_others_and_else_waits_for_its_age() {
    for along in ["nothing", "new events", "what stands apart"] {
        let mut desk = desk(flushes_of_300_ms);
        set_aside(&mut desk, "r1", 1);
        desk.runs("r2");
        desk.pass(1950);
        assert_eq!(desk.wait_ms(), Some(10_000 - 2300));
        match along {
            "new events" => desk.post(30, 200),
            "what stands apart" => desk.on_disk(Oldest::Empty, Oldest::Ready(7)),
            _ => desk.pass(10_000 - 2300),
        }
        let mut sent = Vec::new();
        while let Step::Send { mut parcel, .. } = desk.step() {
            finish(&mut parcel.request);
            sent.extend(events(&parcel));
            desk.taken(parcel);
        }
        assert!(sent.contains(&1), "{along}: {sent:?}");
    }
    // While Kinesis fails, what stands apart is no reason.
    let mut desk = desk(|plan| plan.setup.flush_timeout = 300);
    desk.invoke("r1", 1, 30_000);
    desk.post(1, 40);
    desk.ended("r1", false);
    let (parcel, _) = desk.send();
    desk.failed(parcel, "ThrottlingException");
    desk.pass(300);
    desk.wait();
    desk.runs("r2");
    desk.pass(1950);
    for apart in [Oldest::Empty, Oldest::Ready(7)] {
        desk.on_disk(Oldest::Empty, apart);
        assert_eq!(desk.wait_ms(), Some(10_000 - 2300), "{apart:?}");
    }
}

#[test]
fn more_than_a_quarter_that_is_set_aside_goes_where_something_on_disk_needs_the_room() {
    let mut desk = desk(|plan| {
        flushes_of_300_ms(plan);
        plan.setup.bound = 16 * 1024;
    });
    for n in 0..2 {
        desk.invoke(&format!("r{n}"), n, 30_000);
        desk.post(12, 200);
        desk.ended(&format!("r{n}"), false);
        let (parcel, _) = desk.send();
        desk.all_but_one_throttled(parcel);
        desk.pass(300);
        desk.wait();
    }
    let aside = desk.core().backlog().aside_bytes();
    assert!(aside > 4096 && desk.core().backlog().aside().len() == 2, "{aside}");
    desk.runs("r2");
    desk.wait();
    desk.on_disk(Oldest::Empty, Oldest::Ready(7));
    desk.send();
}

#[test]
fn what_is_set_aside_is_tried_again_beside_what_stands_apart_while_kinesis_takes_others() {
    let mut desk = desk(in_records);
    desk.runs("r1");
    desk.post(30, 200);
    let (parcel, _) = desk.send();
    let records = parcel.request.len();
    let mut outcomes = vec![RecordOutcome::Taken; records];
    outcomes[records - 1] = refused("ProvisionedThroughputExceededException");
    desk.sent(parcel, Ok(outcomes));
    desk.on_disk(Oldest::Empty, Oldest::Ready(7));
    let mut read = false;
    for _ in 0..20 {
        match desk.step() {
            Step::Send { parcel, .. } => {
                let mut parcel = parcel;
                finish(&mut parcel.request);
                desk.taken(parcel);
            }
            Step::Read(7) => {
                read = true;
                break;
            }
            Step::Wait(_) => break,
            step => panic!("{}", kind(&step)),
        }
    }
    assert!(read && desk.core().backlog().aside().len() == 1, "it need not wait for the pause");
}

#[test]
fn a_refused_event_of_a_held_invocation_is_tried_again_as_soon_as_it_is_due() {
    let mut desk = held_to_the_end();
    desk.invoke("r1", 1, 30_000);
    desk.started("r1");
    desk.post(30, 200);
    let (parcel, _) = desk.send();
    desk.failed(parcel, "InternalFailure");
    let (_, waited) = desk.send_soon();
    assert!(waited <= 100, "{waited}");
    // On Managed Instances, where no flush comes, as well.
    let mut desk = managed(|_| ());
    desk.post_of(5000);
    let (parcel, _) = desk.send();
    assert_eq!(events(&parcel), [0]);
    desk.refused(parcel, "InvalidArgumentException");
    let (_, waited) = desk.send_soon();
    assert!(waited <= 100, "{waited}");
}

#[test]
fn a_flush_that_delivered_takes_one_along_of_what_is_set_aside_for_long() {
    let mut desk = desk(flushes_of_300_ms);
    set_aside(&mut desk, "a0", 0);
    set_aside(&mut desk, "a1", 1);
    assert_eq!((desk.core().backlog().aside().len(), &desk.replies[..]), (2, &[0, 1][..]));
    desk.pass(20_000);
    desk.invoke("b", 7, 30_000);
    desk.post(1, 40);
    desk.ended("b", false);
    assert_eq!(desk.taken_all(), [[4], [1]], "its own first");
    assert_eq!(desk.replies, [0, 1, 7]);
}

#[test]
fn a_flush_that_delivered_nothing_opens_the_breaker_and_one_that_did_does_not() {
    // What is delivered while the function runs counts, if it holds an event of Lambda's.
    for (delivers, held) in [(None, false), (Some(2), true), (Some(0), false)] {
        let mut desk = desk(|plan| plan.setup.flush_timeout = 300);
        desk.invoke("r1", 1, 30_000);
        desk.started("r1");
        if let Some(events) = delivers {
            desk.post_packed(events);
            desk.wait();
            desk.pass(1000);
            let (parcel, _) = desk.send();
            desk.taken(parcel);
            desk.wait();
        }
        desk.post(1, 40);
        desk.ended("r1", false);
        let (parcel, _) = desk.send();
        desk.failed(parcel, "ThrottlingException");
        desk.pass(300);
        desk.wait();
        assert_eq!(desk.replies, [1]);
        desk.invoke("r2", 2, 30_000);
        desk.wait();
        assert_eq!(desk.replies.len() == 1, held, "{delivers:?}");
    }
}

#[test]
fn a_failure_that_passes_does_not_open_the_breaker_at_once() {
    for (code, is_held) in [
        ("InternalFailure", true),
        ("ThrottlingException", true),
        ("ValidationException", true),
        ("AccessDeniedException", false),
    ] {
        let mut desk = held_to_the_end();
        desk.invoke("r1", 1, 30_000);
        desk.started("r1");
        desk.post(30, 200);
        let (parcel, _) = desk.send();
        desk.failed(parcel, code);
        desk.wait();
        desk.invoke("r2", 2, 30_000);
        desk.wait();
        assert_eq!(desk.replies == [1], is_held, "{code}: {:?}", desk.replies);
    }
}

#[test]
fn nothing_apart_is_read_inside_a_flush() {
    let mut desk = desk(in_records);
    desk.on_disk(Oldest::Empty, Oldest::Ready(7));
    desk.invoke("r1", 1, 30_000);
    desk.post(2, 40);
    desk.ended("r1", false);
    let (parcel, _) = desk.send();
    let mut outcomes = vec![RecordOutcome::Taken; parcel.request.len()];
    *outcomes.last_mut().unwrap() = refused("ProvisionedThroughputExceededException");
    desk.sent(parcel, Ok(outcomes));
    desk.wait();
    assert!(desk.replies.is_empty(), "it waits for the refused one alone");
}

#[test]
fn while_kinesis_fails_what_stands_apart_stays_there_unless_it_fails_for_what_it_holds() {
    // Failures, and whether a segment is read then.
    for (code, times, reads) in [("InternalFailure", 4, false), ("ValidationException", 1, true)] {
        let mut desk = managed(|_| ());
        desk.post(1, 40);
        for _ in 0..times {
            let (parcel, _) = desk.send_soon();
            desk.failed(parcel, code);
        }
        desk.pass(20_000);
        desk.on_disk(Oldest::Empty, Oldest::Ready(7));
        assert_eq!(matches!(desk.step(), Step::Read(7)), reads, "{code}");
    }
}

#[test]
fn what_may_fail_for_what_it_holds_makes_way() {
    // In a sandbox that lives on, and at its end, where there is no time to find out.
    for (code, at_end) in [
        ("ValidationException", false),
        ("ValidationException", true),
        ("ThrottlingException", true),
    ] {
        let mut desk = managed(|_| ());
        let parcel = first(&mut desk);
        desk.failed(parcel, code);
        if at_end {
            desk.stop("spindown", 1, 2000);
            desk.signal(Signal::InitReported);
            assert!(matches!(desk.step(), Step::CloseIntake(_)));
        }
        desk.post(30, 200);
        desk.pass(250);
        let (parcel, _) = desk.send();
        assert_eq!(events(&parcel)[0], 1, "{code} {at_end}");
    }
    let mut desk = managed(|_| ());
    let parcel = first(&mut desk);
    desk.failed(parcel, "ThrottlingException");
    desk.post(30, 200);
    desk.pass(250);
    let (parcel, _) = desk.send();
    assert_eq!(events(&parcel), [0], "but not what is only throttled");
}

#[test]
fn at_the_end_segments_are_read_as_long_as_memory_has_room() {
    for (requests, is_full, reads) in
        [(1, true, true), (2, true, false), (7, true, false), (7, false, true)]
    {
        let mut desk = desk(|plan| {
            plan.setup.bound = if requests == 2 { 24 } else { 120 } * 1024;
            in_records(plan);
        });
        desk.stop("spindown", 1, 2000);
        desk.signal(Signal::InitReported);
        assert!(matches!(desk.step(), Step::CloseIntake(_)));
        for _ in 0..requests {
            desk.post(12, 200);
            let (parcel, _) = desk.send();
            desk.all_but_one_throttled(parcel);
        }
        assert_eq!(desk.core().backlog().aside().len(), requests);
        let bytes = desk.core().backlog().aside_bytes();
        assert!(
            requests == 1 || bytes > if requests == 2 { 6 } else { 30 } * 1024,
            "{bytes} are more than a quarter"
        );
        let _all = is_full.then(|| desk.fill());
        desk.on_disk(Oldest::Ready(7), Oldest::Empty);
        assert_eq!(matches!(desk.step(), Step::Read(7)), reads, "{requests} {is_full}");
    }
}

#[test]
fn what_the_listener_has_packed_is_sent_as_it_is_in_its_turn() {
    let mut desk = managed(|_| ());
    desk.post(1, 40);
    desk.post_packed(2);
    desk.post(1, 40);
    desk.pass(1000);
    for expected in [vec![0], vec![1, 2], vec![3]] {
        let (parcel, _) = desk.send();
        assert_eq!(events(&parcel), expected);
        desk.taken(parcel);
    }
    assert!(desk.said.is_empty(), "{:?}", desk.said);
}

#[test]
fn until_kinesis_has_taken_what_the_sandbox_is_each_request_begins_with_that() {
    let mut desk = managed(|_| ());
    let text = |desk: &mut Desk| {
        let parcel = first(desk);
        let lines = String::from_utf8(parcel.request.data().flatten().collect()).unwrap();
        (lines.contains("kinesis-telemetry.sandbox"), parcel)
    };
    for (begins, taken) in [(true, false), (true, true), (false, true)] {
        let (has_it, parcel) = text(&mut desk);
        assert_eq!(has_it, begins);
        if taken {
            desk.taken(parcel);
        } else {
            // Nothing was sent at all.
            let error = Error { retry_now: true, ..Error::new("InternalFailure", "simulated") };
            desk.sent(parcel, Err((error, String::new())));
            let (parcel, _) = desk.send();
            desk.sent(parcel, Ok(vec![refused("InternalFailure")]));
            let (parcel, _) = desk.send_soon();
            drop(parcel);
        }
    }
}

#[test]
fn each_ledger_has_a_name_of_its_own() {
    let mut desk = managed(|_| ());
    desk.wait();
    for n in 1..4 {
        desk.pass(301_000);
        let parcel = first(&mut desk);
        let lines = String::from_utf8(parcel.request.data().flatten().collect()).unwrap();
        assert!(lines.contains(&format!("-ledger-{n}\"")), "{n}: {lines}");
        desk.taken(parcel);
    }
}

#[test]
fn what_no_record_can_hold_is_said_counted_and_printed() {
    for (seed, prints) in [(1, true), (2, false)] {
        let mut desk = managed(|plan| {
            plan.seed = seed;
            plan.setup.envelope = Envelope::Full;
            plan.setup.record_bytes = 60;
        });
        desk.post(3, 40);
        desk.pass(1000);
        desk.wait();
        let printed: usize = desk.printed.iter().map(|lines| numbers(lines).len()).sum();
        assert_eq!((printed, desk.printed.len()), if prints { (3, 1) } else { (0, 0) });
        let said: Vec<_> = desk.said.iter().map(|(level, topic, _)| (*level, *topic)).collect();
        assert_eq!(said, [(Level::Error, "envelope")]);
        assert_eq!(desk.ledger().dropped_rejected.get(), 3);
        // A record that holds one says nothing.
        let mut desk = managed(|plan| plan.seed = seed);
        let parcel = first(&mut desk);
        desk.taken(parcel);
        desk.wait();
        assert!(desk.said.is_empty() && desk.printed.is_empty());
    }
}

#[test]
fn an_event_of_its_own_that_no_record_can_hold_is_said() {
    let mut desk = managed(|plan| plan.setup.record_bytes = 300);
    desk.wait();
    desk.pass(301_000);
    // The ledger is longer.
    let parcel = first(&mut desk);
    assert_eq!(events(&parcel), [0]);
    desk.taken(parcel);
    desk.wait();
    let said: Vec<_> = desk.said.iter().map(|(level, topic, _)| (*level, *topic)).collect();
    assert_eq!(said, [(Level::Error, "own-event")]);
}
