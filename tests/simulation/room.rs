//! What is set aside and takes much of the memory: as [`super::steps`].

use std::time::Duration;

use kinesis_telemetry_extension::dispatch::backlog::Parcel;
use kinesis_telemetry_extension::dispatch::message::Signal;
use kinesis_telemetry_extension::dispatch::step::{Oldest, Outcome, Step, stored_nothing};
use kinesis_telemetry_extension::kinesis::error::Error;
use kinesis_telemetry_extension::kinesis::response::RecordOutcome;

use crate::desk::{
    Desk, SHARD_THROTTLED, desk, events, finish, first, held_to_the_end, in_records, kind, managed,
    probing, refused,
};
use crate::plan::Plan;

const THROTTLED: &str = "ThrottlingException";
const BY_CONTENT: &str = "ValidationException";

/// More is set aside than may be, and each of it may fail for what it holds.
fn crowded(change: impl FnOnce(&mut Plan)) -> Desk {
    let mut desk = managed(change);
    while desk.core().backlog().aside_bytes() <= 64 * 1024 {
        desk.post(12, 200);
        let (parcel, _) = desk.send_soon();
        desk.failed(parcel, BY_CONTENT);
    }
    desk
}

/// Due or not: others were taken since, so it may be taken now, and nothing else can be sent.
#[test]
fn where_nothing_makes_room_what_others_were_taken_since_is_tried_at_once() {
    let mut shown = 0;
    for seed in 1..200 {
        let mut desk = managed(|plan| plan.seed = seed);
        let mut parcel = first(&mut desk);
        for _ in 0..5 {
            desk.failed(parcel, THROTTLED);
            (parcel, _) = desk.send_soon();
        }
        desk.failed(parcel, THROTTLED);
        desk.post(2, 40);
        let (parcel, _) = desk.send_soon();
        if events(&parcel) != [1, 2] {
            continue;
        }
        desk.taken(parcel);
        desk.post(2, 40);
        let (parcel, waited) = desk.send_soon();
        if events(&parcel) != [3, 4] {
            continue;
        }
        let age = parcel.since + Duration::from_millis(waited);
        desk.failed(parcel, THROTTLED);
        let due = desk.core().backlog().aside().iter().map(|parcel| parcel.due).min().unwrap();
        let _over = desk.overfill();
        desk.post(30, 200);
        let (parcel, waited) = desk.send_soon();
        if age + Duration::from_millis(waited) < due {
            assert_eq!(events(&parcel), [0], "{seed}");
            shown += 1;
        }
    }
    assert!(shown > 0);
}

#[test]
fn what_may_fail_for_what_it_holds_lets_new_events_go_while_memory_has_room() {
    for (is_full, new_ones_go) in [(false, true), (true, false)] {
        let mut desk = crowded(|_| ());
        let last = desk.core().backlog().aside().iter().flat_map(events).max().unwrap();
        desk.post(12, 200);
        let _over = is_full.then(|| desk.overfill());
        let (parcel, _) = desk.send_soon();
        assert_eq!(events(&parcel)[0] > last, new_ones_go, "full: {is_full}");
    }
}

#[test]
fn of_what_fails_for_what_it_holds_one_makes_room_for_what_is_on_disk() {
    for (apart, makes_room) in [(Oldest::Empty, false), (Oldest::Ready(7), true)] {
        let mut desk = crowded(|plan| plan.setup.spool_bytes = 256 * 1024);
        // All of it is due.
        desk.pass(60_000);
        desk.on_disk(Oldest::Empty, apart);
        let step = desk.step();
        assert_eq!(matches!(step, Step::Spool(_)), makes_room, "{apart:?}: {}", kind(&step));
        assert_eq!(matches!(step, Step::Send { .. }), !makes_room, "{apart:?}: {}", kind(&step));
    }
}

/// With memory over its bound, how many are set aside, whether the sandbox ends, and whether
/// another one is read.
#[test]
fn beside_a_single_one_a_segment_is_read_however_full_memory_is_but_not_at_the_end() {
    for (aside, at_end, reads) in
        [(0, false, true), (1, false, true), (0, true, true), (1, true, false)]
    {
        let mut desk = desk(in_records);
        desk.passes("r1");
        desk.started("r1");
        if at_end {
            desk.stop("spindown", 1, 2000);
            desk.signal(Signal::Reported("r1".into()));
            assert!(matches!(desk.step(), Step::CloseIntake(_)));
        }
        for _ in 0..aside {
            desk.post(12, 200);
            let (parcel, _) = desk.send();
            desk.all_but_one_throttled(parcel);
        }
        assert_eq!(desk.core().backlog().aside().len(), aside);
        let _over = desk.overfill();
        desk.on_disk(Oldest::Empty, Oldest::Ready(7));
        let step = desk.step();
        assert_eq!(matches!(step, Step::Read(7)), reads, "{aside} {at_end}: {}", kind(&step));
    }
}

/// With memory not over its bound, but each beyond the quarter for what is set aside: how many are
/// set aside, whether the sandbox ends, and whether another one is read.
#[test]
fn beside_a_single_large_one_a_segment_is_read_and_beside_two_only_with_room_for_it() {
    let set_aside = |desk: &mut Desk| {
        desk.post(12, 200);
        let (parcel, _) = desk.send();
        desk.all_but_one_throttled(parcel);
        desk.core().backlog().aside_bytes()
    };
    let bytes = set_aside(&mut managed(in_records));
    for (aside, at_end, reads) in [(1, false, true), (1, true, true), (2, true, false)] {
        let mut desk = desk(|plan| {
            in_records(plan);
            plan.setup.bound = 4 * bytes - 1;
        });
        desk.passes("r1");
        desk.started("r1");
        if at_end {
            desk.stop("spindown", 1, 2000);
            desk.signal(Signal::Reported("r1".into()));
            assert!(matches!(desk.step(), Step::CloseIntake(_)));
        }
        for _ in 0..aside {
            set_aside(&mut desk);
        }
        assert_eq!(desk.core().backlog().aside().len(), aside);
        let _full = desk.fill();
        desk.on_disk(Oldest::Empty, Oldest::Ready(7));
        let step = desk.step();
        assert_eq!(matches!(step, Step::Read(7)), reads, "{aside} {at_end}: {}", kind(&step));
    }
}

/// Else the next process counts them as possible duplicates.
#[test]
fn of_what_is_refused_or_known_not_to_have_come_nothing_is_in_doubt() {
    let failed = |ambiguous| {
        let error = Error { ambiguous, ..Error::new("InternalFailure", "simulated") };
        Err((error, String::new()))
    };
    assert!(stored_nothing(&failed(false)));
    assert!(!stored_nothing(&failed(true)));
    assert!(stored_nothing(&Ok(vec![refused(THROTTLED), refused(BY_CONTENT)])));
    assert!(!stored_nothing(&Ok(vec![refused(THROTTLED), RecordOutcome::Taken])));
}

/// What failed is on disk by then, and nothing of it in memory.
#[test]
fn before_a_reset_the_disk_comes_first_also_where_what_failed_is_written_already() {
    let mut desk = held_to_the_end();
    desk.invoke("r1", 1, 30_000);
    desk.started("r1");
    desk.post(30, 200);
    let (parcel, _) = desk.send();
    desk.failed(parcel, "InternalFailure");
    let mut segment = 90;
    while !desk.core().backlog().is_empty() {
        match desk.step() {
            Step::Wait(_) => desk.pass(500),
            Step::Send { parcel, .. } => desk.failed(parcel, "InternalFailure"),
            Step::Spool(parcel) => {
                segment += 1;
                desk.done(Outcome::Spooled(parcel, Some(segment)));
            }
            step => panic!("{}", kind(&step)),
        }
    }
    desk.pass(60_000);
    desk.post(1, 40);
    desk.stop("failure", 2, 2000);
    let step = desk.step();
    assert!(matches!(step, Step::Spool(_)), "{}", kind(&step));
}

/// Kinesis has not refused it, and may take it: from its disk nobody sends it before the next life.
#[test]
fn before_a_reset_what_was_cut_is_tried_once_before_it_is_written() {
    let mut desk = held_to_the_end();
    desk.invoke("r1", 1, 30_000);
    desk.post(1, 40);
    desk.ended("r1", false);
    let (parcel, _) = desk.send();
    desk.sent(parcel, Err((Error::new("Interrupted", "simulated"), String::new())));
    desk.stop("failure", 2, 2000);
    let (parcel, _) = desk.send();
    assert_eq!(events(&parcel), [0]);
}

#[test]
fn what_is_set_aside_may_have_just_a_quarter_of_the_memory() {
    let with_bound = |bound: usize| {
        let mut desk = managed(|plan| {
            in_records(plan);
            plan.setup.spool_bytes = 256 * 1024;
            plan.setup.bound = bound;
        });
        for _ in 0..2 {
            desk.post(12, 200);
            let (parcel, _) = desk.send();
            desk.all_but_one_throttled(parcel);
        }
        let bytes = desk.core().backlog().aside_bytes();
        // Now something may be sent at any time.
        desk.post(30, 200);
        (bytes, matches!(desk.step(), Step::Spool(_)))
    };
    let (bytes, _) = with_bound(256 * 1024);
    assert_eq!(with_bound(4 * bytes), (bytes, false));
    assert_eq!(with_bound(4 * bytes - 1), (bytes, true));
}

/// The next step, after all requests that are due now have failed.
fn after_what_fails(desk: &mut Desk) -> Step {
    loop {
        match desk.step() {
            Step::Send { parcel, .. } => desk.failed(parcel, "AccessDeniedException"),
            step => return step,
        }
    }
}

#[test]
fn while_kinesis_fails_what_a_held_invocation_has_is_written_after_just_a_second() {
    let mut desk = probing(|_| ());
    desk.pass(999);
    assert!(matches!(after_what_fails(&mut desk), Step::Wait(_)));
    desk.pass(1);
    assert!(matches!(after_what_fails(&mut desk), Step::Spool(_)));
}

#[test]
fn while_kinesis_fails_what_is_on_disk_already_is_not_written_once_more() {
    let mut desk = held_to_the_end();
    desk.invoke("r1", 1, 30_000);
    desk.started("r1");
    desk.on_disk(Oldest::Empty, Oldest::Ready(7));
    assert!(matches!(desk.step(), Step::Read(7)));
    desk.on_disk(Oldest::Empty, Oldest::Empty);
    desk.read(7, 3);
    assert!(matches!(after_what_fails(&mut desk), Step::Wait(_)));
    desk.post(1, 40);
    desk.pass(1000);
    let Step::Spool(parcel) = after_what_fails(&mut desk) else { panic!("what came since") };
    assert_eq!((parcel.segment, parcel.request.events()), (None, 1));
    desk.done(Outcome::Spooled(parcel, Some(50)));
    assert!(matches!(after_what_fails(&mut desk), Step::Wait(_)));
}

#[test]
fn what_was_never_sent_and_is_read_again_does_not_count_as_sent_again() {
    let mut desk = probing(|_| ());
    let (mut segment, mut unsent) = (90, None);
    while !desk.core().backlog().is_empty() {
        match after_what_fails(&mut desk) {
            Step::Wait(_) => desk.pass(500),
            Step::Spool(parcel) => {
                segment += 1;
                if !parcel.sent_before {
                    unsent = Some((segment, parcel.request.events()));
                }
                desk.done(Outcome::Spooled(parcel, Some(segment)));
            }
            step => panic!("{}", kind(&step)),
        }
    }
    let (segment, count) = unsent.unwrap();
    desk.ended("r1", false);
    desk.wait();
    desk.on_disk(Oldest::Empty, Oldest::Ready(segment));
    desk.passes("r2");
    desk.started("r2");
    desk.pass(31_000);
    let step = desk.step();
    assert!(matches!(step, Step::Read(id) if id == segment), "{}", kind(&step));
    desk.on_disk(Oldest::Empty, Oldest::Empty);
    let before = desk.ledger().retried.get();
    desk.read(segment, u32::try_from(count).unwrap());
    desk.send();
    assert_eq!(desk.ledger().retried.get(), before);
}

/// One refused event took the others of its request with it as soon as a quarter of the memory was
/// set aside.
#[test]
fn without_a_disk_what_may_be_good_beside_a_refused_event_is_kept_until_half_is_set_aside() {
    let mut desk = managed(|_| ());
    let (quarter, mut drops) = (64 * 1024, 0);
    for _ in 0..400 {
        if desk.core().backlog().is_fresh_empty() {
            desk.post(12, 200);
        }
        for _ in 0..20 {
            let aside = desk.core().backlog().aside_bytes();
            let step = desk.step();
            let no_room = desk.said.drain(..).filter(|(_, topic, _)| *topic == "no-room");
            for (_, _, line) in no_room {
                let alone = line.contains("; 1 events");
                assert!(alone || aside > 2 * quarter, "{line}, at {aside} of {quarter} bytes");
                drops += 1;
            }
            let Step::Send { mut parcel, .. } = step else { break };
            finish(&mut parcel.request);
            if events(&parcel).iter().any(|event| event % 24 == 5) {
                desk.failed(parcel, BY_CONTENT);
            } else {
                desk.taken(parcel);
            }
        }
        desk.pass(100);
    }
    assert!(drops > 0);
}

/// What passes is the same from event to event, so none of it is spared; what is refused for what it
/// may hold is divided first, as long as there is room for that.
#[test]
fn without_a_disk_what_may_be_good_is_dropped_beyond_half_of_the_memory_and_else_from_a_quarter() {
    let with_bound = |bound: usize, code: &str, over: bool| {
        let mut desk = managed(|plan| {
            in_records(plan);
            plan.setup.bound = bound;
        });
        for _ in 0..2 {
            desk.post(12, 200);
            desk.post(1, 40);
        }
        // So a last one, old enough to be sent at any time, is left.
        desk.pass(1000);
        for _ in 0..2 {
            let (parcel, _) = desk.send();
            let mut outcomes = vec![refused(code); parcel.request.len()];
            outcomes[0] = RecordOutcome::Taken;
            desk.sent(parcel, Ok(outcomes));
        }
        let bytes = desk.core().backlog().aside_bytes();
        assert_eq!(
            (desk.core().backlog().aside().len(), desk.core().backlog().fresh().count()),
            (2, 1)
        );
        let _over = over.then(|| desk.overfill());
        let _ = desk.step();
        (bytes, desk.ledger().dropped() > 0)
    };
    for (code, from) in [(BY_CONTENT, 2), (SHARD_THROTTLED, 4)] {
        let (bytes, _) = with_bound(256 * 1024, code, false);
        assert_eq!(with_bound(from * bytes, code, false), (bytes, false), "{code}");
        assert_eq!(with_bound(from * bytes - 1, code, false), (bytes, true), "{code}");
        assert_eq!(with_bound(from * bytes, code, true), (bytes, true), "{code}");
    }
}

/// While r1 is held, Kinesis takes what the sandbox is, and throttles twelve events for 2 s.
fn throttled_for_two_seconds() -> Desk {
    let mut desk = desk(in_records);
    desk.invoke("r1", 1, 30_000);
    desk.started("r1");
    desk.post(12, 40);
    let began = desk.now().mono;
    while desk.now().mono < began + Duration::from_secs(2) {
        match desk.step() {
            Step::Send { parcel, .. } if parcel.tries == 0 => desk.all_but_one_throttled(parcel),
            Step::Send { parcel, .. } => desk.refused(parcel, SHARD_THROTTLED),
            Step::Wait(until) => {
                let left = until.unwrap() - desk.now().mono;
                desk.pass(u64::try_from(left.as_micros().div_ceil(1000)).unwrap());
            }
            step => panic!("{}", kind(&step)),
        }
    }
    desk
}

/// What is written beside a request that may be due as well.
fn copied(desk: &mut Desk) -> Box<Parcel> {
    loop {
        match desk.step() {
            Step::Spool(parcel) if parcel.stays => return parcel,
            Step::Send { parcel, .. } => desk.refused(parcel, SHARD_THROTTLED),
            step => panic!("{}", kind(&step)),
        }
    }
}

/// The function can crash, and the sandbox be killed, without a word of Lambda: what one shard had
/// throttled all the while, beside others that took everything, was lost uncounted.
#[test]
fn of_what_is_throttled_for_long_in_a_held_invocation_a_copy_is_on_disk_until_it_is_taken() {
    let mut desk = throttled_for_two_seconds();
    let parcel = copied(&mut desk);
    let due = parcel.due;
    assert_eq!((parcel.segment, parcel.request.events()), (None, 12));
    desk.done(Outcome::Spooled(parcel, Some(70)));
    let [aside] = desk.core().backlog().aside() else { panic!() };
    assert_eq!((aside.segment, aside.intact, aside.holds, aside.due), (Some(70), true, true, due));
    // Once is enough, as long as it is as it was.
    let (parcel, _) = desk.send_soon();
    desk.refused(parcel, SHARD_THROTTLED);
    let (parcel, _) = desk.send_soon();
    desk.all_but_one_throttled(parcel);
    let parcel = copied(&mut desk);
    assert_eq!((parcel.segment, parcel.request.events()), (Some(70), 11));
    desk.done(Outcome::Spooled(parcel, Some(71)));
    assert!(matches!(desk.step(), Step::Remove(70)));
    desk.done(Outcome::Done);
    let (parcel, _) = desk.send_soon();
    desk.taken(parcel);
    assert!(matches!(desk.step(), Step::Remove(71)));
    desk.done(Outcome::Done);
    assert_eq!((desk.ledger().delivered.get(), desk.ledger().dropped()), (12, 0));
}

#[test]
fn a_copy_that_cannot_be_written_is_tried_again_after_ten_seconds_and_costs_nothing() {
    let mut desk = throttled_for_two_seconds();
    let began = desk.now().mono;
    let parcel = copied(&mut desk);
    desk.done(Outcome::Spooled(parcel, None));
    let mut tries = 0;
    let parcel = loop {
        match desk.step() {
            Step::Spool(parcel) if parcel.stays => break parcel,
            Step::Send { parcel, .. } => {
                tries += 1;
                desk.refused(parcel, SHARD_THROTTLED);
            }
            Step::Wait(until) => {
                let left = until.unwrap() - desk.now().mono;
                desk.pass(u64::try_from(left.as_micros().div_ceil(1000)).unwrap());
            }
            step => panic!("{}", kind(&step)),
        }
    };
    assert!(tries > 0 && desk.now().mono >= began + Duration::from_secs(10));
    assert_eq!((parcel.segment, parcel.request.events(), desk.ledger().dropped()), (None, 12, 0));
}

/// It would wait for good: nothing else shows whether Kinesis takes it now.
#[test]
fn where_nothing_makes_room_kinesis_is_probed() {
    for introduction_refused in [false, true] {
        let mut desk = managed(in_records);
        if introduction_refused {
            // An event of its own makes no room, although others were taken beside it.
            desk.post_of(5000);
            let (parcel, _) = desk.send();
            let mut outcomes = vec![RecordOutcome::Taken; parcel.request.len()];
            outcomes[0] = refused(BY_CONTENT);
            desk.sent(parcel, Ok(outcomes));
            assert_eq!(desk.core().backlog().aside()[0].request.events(), 0);
        }
        for waiting in 1..=2 {
            desk.post_of(5000);
            let ours = |desk: &mut Desk| {
                let aside = desk.core().backlog().aside();
                aside.iter().filter(|parcel| parcel.request.events() > 0).count()
            };
            // What was refused before may be sent before what is new.
            while ours(&mut desk) < waiting {
                let (parcel, _) = desk.send_soon();
                desk.failed(parcel, BY_CONTENT);
            }
        }
        let _over = desk.overfill();
        let (_, waited) = desk.send_soon();
        assert!((500..=1000).contains(&waited), "{introduction_refused}: {waited}");
        let said = desk.said.iter().any(|(_, topic, _)| *topic == "no-room");
        assert!(!said && desk.ledger().dropped() == 0, "{:?}", desk.said);
    }
}

/// The other part of what was just divided may be good: it was refused together with others only.
#[test]
fn what_a_refused_request_was_divided_into_is_sent_before_what_was_refused_again() {
    let mut shown = 0;
    for seed in 1..50 {
        let mut desk = managed(|plan| plan.seed = seed);
        let parcel = first(&mut desk);
        desk.taken(parcel);
        desk.post(2, 40);
        let (parcel, _) = desk.send_soon();
        desk.post(12, 200);
        desk.failed(parcel, BY_CONTENT);
        let (parcel, _) = desk.send_soon();
        if events(&parcel)[0] != 3 {
            // The pause of what was refused was over before that of the others.
            continue;
        }
        desk.post(12, 200);
        desk.failed(parcel, BY_CONTENT);
        let (parcel, _) = desk.send_soon();
        if events(&parcel)[0] != 15 {
            continue;
        }
        // From now on what was refused is divided, since others were taken.
        desk.taken(parcel);
        desk.pass(10_000);
        let (parcel, _) = desk.send();
        if events(&parcel) != [1] {
            continue;
        }
        desk.taken(parcel);
        let (parcel, _) = desk.send();
        assert_eq!(events(&parcel), [2], "{seed}");
        assert_eq!(desk.core().backlog().aside().len(), 1, "the others");
        shown += 1;
    }
    assert!(shown > 0);
}

/// Else new events, each refused, would keep out for good what may be delivered.
#[test]
fn what_was_refused_is_sent_in_turn_with_new_events_that_are_refused_too() {
    let mut desk = managed(|_| ());
    desk.post(2, 40);
    let (parcel, _) = desk.send_soon();
    assert_eq!(events(&parcel), [0, 1]);
    desk.failed(parcel, BY_CONTENT);
    desk.post(12, 200);
    let mut were_sent = Vec::new();
    for _ in 0..4 {
        // All of it is due, and a full request of new ones waits.
        desk.pass(1000);
        desk.post(12, 200);
        let (parcel, _) = desk.send();
        were_sent.push(parcel.sent_before);
        desk.failed(parcel, BY_CONTENT);
    }
    assert_eq!(were_sent, [true, false, true, false]);
}
