//! The end of the sandbox: as [`super::steps`].

use kinesis_telemetry_extension::dispatch::message::Signal;
use kinesis_telemetry_extension::dispatch::policy::FlushMode;
use kinesis_telemetry_extension::dispatch::step::{Oldest, Outcome, Step};
use kinesis_telemetry_extension::kinesis::error::Error;
use kinesis_telemetry_extension::kinesis::line::Envelope;
use kinesis_telemetry_extension::kinesis::response::RecordOutcome;
use kinesis_telemetry_extension::log::Level;

use crate::desk::{
    Desk, desk, events, finish, held_to_the_end, in_records, kind, next_without_disk,
    probing_with_empty_memory, refused, written_in_the_last_moments,
};

/// The last report has come, and no POST does any more.
fn closed(mut desk: Desk, reason: &str) -> Desk {
    desk.stop(reason, 9, 2000);
    desk.signal(Signal::InitReported);
    assert!(matches!(desk.step(), Step::CloseIntake(_)));
    desk
}

fn last_words(desk: &Desk) -> (Level, &'static str) {
    let (level, topic, _) = desk.said.last().unwrap();
    (*level, *topic)
}

#[test]
fn at_the_end_the_last_report_is_waited_for_unless_a_request_is_full() {
    let mut desk = held_to_the_end();
    desk.post(1, 40);
    desk.stop("spindown", 1, 2000);
    assert_eq!(desk.wait_ms(), Some(300));
    desk.pass(300);
    assert!(matches!(desk.step(), Step::CloseIntake(_)));
    desk.send();
    let mut desk = held_to_the_end();
    desk.post(1, 40);
    desk.stop("spindown", 1, 2000);
    desk.wait();
    desk.signal(Signal::InitReported);
    assert!(matches!(desk.step(), Step::CloseIntake(_)), "it has come");
    let mut desk = held_to_the_end();
    desk.post(30, 200);
    desk.stop("spindown", 1, 2000);
    desk.send();
    let mut desk = held_to_the_end();
    desk.on_disk(Oldest::Ready(7), Oldest::Empty);
    desk.stop("spindown", 1, 2000);
    assert!(matches!(desk.step(), Step::Read(7)));
}

/// With memory full, each waited for the pause of a single refused record.
#[test]
fn at_the_end_no_event_waits_for_what_little_is_refused_however_full_memory_is() {
    // How many requests are refused but for a record, and whether others are sent beside that.
    for (requests, sends) in [(1, true), (4, true), (30, false)] {
        let mut desk = desk(|plan| {
            in_records(plan);
            plan.setup.mode = FlushMode::Next;
            plan.setup.spool_bytes = 0;
        });
        desk = closed(desk, "spindown");
        for _ in 0..requests {
            desk.post(12, 200);
            let (parcel, _) = desk.send();
            let throttled = refused("ProvisionedThroughputExceededException");
            let mut outcomes = vec![throttled; parcel.request.len()];
            outcomes[0] = RecordOutcome::Taken;
            desk.sent(parcel, Ok(outcomes));
        }
        let (bytes, request) = (desk.core().backlog().aside_bytes(), desk.largest_request());
        assert_eq!(bytes <= request, sends, "{requests}: {bytes} of {request}");
        let _all = desk.fill();
        desk.post(1, 40);
        let step = desk.step();
        assert_eq!(matches!(step, Step::Send { .. }), sends, "{requests}: {}", kind(&step));
    }
}

/// All the time went to requests that failed, and files were counted instead of events.
#[test]
fn what_an_earlier_process_has_left_is_counted_before_the_end_for_good() {
    let mut desk = closed(held_to_the_end(), "spindown");
    desk.post(1, 40);
    desk.uncounted(1 << 30);
    // A third of the time is kept back at the most.
    let (parcel, deadline) = desk.send();
    assert_eq!(deadline.left_ms(desk.now().mono), 1900 - 1900 / 3 - 1);
    desk.failed(parcel, "InternalFailure");
    // In the pause, and where there is none once that third has begun.
    assert!(matches!(desk.step(), Step::Count));
    desk.pass(1900 - 1900 / 3);
    desk.done(Outcome::Done);
    assert!(matches!(desk.step(), Step::Count));
    desk.uncounted(0);
    desk.done(Outcome::Done);
    let (parcel, deadline) = desk.send();
    assert_eq!(deadline.left_ms(desk.now().mono), 1900 / 3);
    desk.uncounted(1 << 30);
    desk.pass(1900 / 3 - 10);
    desk.failed(parcel, "InternalFailure");
    assert!(matches!(desk.step(), Step::Discard(_)), "no time is left");
    // The next process finds it after a reset.
    let mut desk = closed(held_to_the_end(), "failure");
    desk.uncounted(1 << 30);
    desk.on_disk(Oldest::Empty, Oldest::Ready(1));
    assert!(!matches!(desk.step(), Step::Count));
}

/// A third of the time was kept back for one small file, and a request to a Kinesis that takes a
/// second to answer was cut short for it.
#[test]
fn no_more_time_is_kept_back_than_it_takes_to_count_what_is_left() {
    for (bytes, time) in [(0, 0), (4096, 31), (40_960, 40), (4_096_000, 1900 / 3)] {
        let mut desk = closed(held_to_the_end(), "spindown");
        desk.post(1, 40);
        desk.uncounted(bytes);
        let left = desk.send().1.left_ms(desk.now().mono);
        assert!((1899 - time..=1900 - time).contains(&left), "{bytes}: {left}");
    }
}

#[test]
fn the_end_waits_for_what_can_still_be_sent_and_for_nothing_else() {
    let mut desk = closed(next_without_disk(), "spindown");
    desk.send_ledger();
    for (overflow, apart) in [(Oldest::Writing, Oldest::Empty), (Oldest::Empty, Oldest::Writing)] {
        let mut desk = closed(held_to_the_end(), "spindown");
        desk.on_disk(overflow, apart);
        assert_eq!(desk.wait_ms(), Some(1890));
        desk.pass(1889);
        desk.wait();
        desk.pass(1);
        assert!(matches!(desk.step(), Step::Discard(_)), "no time is left");
    }
    // Nor for what the next process finds, once Kinesis is known to fail.
    let mut desk = closed(held_to_the_end(), "failure");
    desk.post(1, 40);
    let (parcel, _) = desk.send();
    desk.failed(parcel, "InternalFailure");
    let Step::Spool(parcel) = desk.step() else { panic!("the disk comes first") };
    desk.done(Outcome::Spooled(parcel, Some(1)));
    desk.on_disk(Oldest::Empty, Oldest::Ready(1));
    assert!(!matches!(desk.step(), Step::Wait(Some(until)) if until > desk.later(500)));
    // What failed waits for its pause.
    let mut desk = closed(held_to_the_end(), "spindown");
    desk.post(1, 40);
    let (parcel, _) = desk.send();
    desk.failed(parcel, "ThrottlingException");
    let (parcel, waited) = desk.send_soon();
    assert!(events(&parcel) == [0] && waited <= 400, "{waited}");
    desk.taken(parcel);
    desk.step();
    assert_eq!(desk.ledger().dropped(), 0);
}

#[test]
fn before_a_reset_the_disk_comes_first_where_there_is_more_than_a_request_or_kinesis_is_known() {
    for (bytes, spools) in [(4095, false), (4096, false), (4097, true)] {
        let mut desk = held_to_the_end();
        desk.post_of(bytes);
        desk.stop("failure", 1, 2000);
        assert_eq!(matches!(desk.step(), Step::Spool(_)), spools, "{bytes}");
    }
    let mut desk = probing_with_empty_memory(|_| ());
    desk.post(1, 40);
    desk.stop("failure", 2, 2000);
    assert!(matches!(desk.step(), Step::Spool(_)), "Kinesis is only probed");
    // A third of the time is left for the disk.
    let mut desk = held_to_the_end();
    desk.post(1, 40);
    desk.stop("failure", 1, 2000);
    let (_, deadline) = desk.send();
    assert_eq!((deadline.at() - desk.now().mono).as_millis(), 1900 - 1900 / 3 - 1);
}

/// Kinesis may answer nothing just then, and there may be no time to see that.
#[test]
fn before_a_reset_what_failed_before_goes_to_disk_at_once() {
    for (reason, throttled, spools) in
        [("failure", true, true), ("failure", false, false), ("spindown", true, false)]
    {
        let mut desk = desk(in_records);
        desk.invoke("r1", 1, 30_000);
        desk.post(2, 40);
        desk.ended("r1", false);
        let (parcel, _) = desk.send();
        let code = "ProvisionedThroughputExceededException";
        let mut outcomes = vec![RecordOutcome::Taken; parcel.request.len()];
        if throttled {
            *outcomes.last_mut().unwrap() = refused(code);
        }
        desk.sent(parcel, Ok(outcomes));
        desk.stop(reason, 2, 2000);
        desk.post(1, 40);
        let step = desk.step();
        assert_eq!(matches!(step, Step::Spool(_)), spools, "{reason} {throttled}: {}", kind(&step));
    }
}

/// The time of the end went by with events that Kinesis had refused alone, again and again, and two
/// were lost that only had one such beside them.
#[test]
fn at_the_end_what_is_refused_alone_comes_last() {
    let mut desk = desk(|plan| {
        in_records(plan);
        plan.setup.envelope = Envelope::Full;
    });
    let code = "InvalidArgumentException";
    desk.invoke("r1", 1, 30_000);
    desk.post(1, 40);
    desk.ended("r1", false);
    let (parcel, _) = desk.send();
    desk.refused(parcel, code);
    desk.post(2, 40);
    let (parcel, _) = desk.send_soon();
    desk.failed(parcel, code);
    desk.stop("spindown", 2, 2000);
    desk.signal(Signal::Reported("r1".into()));
    assert!(matches!(desk.step(), Step::CloseIntake(_)));
    let (parcel, _) = desk.send_soon();
    assert_eq!(events(&parcel), [1, 2]);
}

/// The same of what fails alone with a code that says nothing of what it holds.
#[test]
fn at_the_end_what_fails_alone_comes_behind_what_may_be_good() {
    let mut desk = closed(held_to_the_end(), "spindown");
    for (segment, events, code) in [(7, 1, "InternalFailure"), (8, 2, "ValidationException")] {
        desk.on_disk(Oldest::Empty, Oldest::Ready(segment));
        desk.pass(50);
        assert!(matches!(desk.step(), Step::Read(read) if read == segment));
        desk.on_disk(Oldest::Empty, Oldest::Empty);
        desk.read(segment, events);
        let (parcel, _) = desk.send();
        desk.failed(parcel, code);
    }
    desk.pass(200);
    let (parcel, _) = desk.send();
    assert_eq!(events(&parcel), [1, 2]);
}

/// Segments that were refused one after the other, each with a pause for all, took the time of the
/// end, and good events that waited beside refused ones were lost.
#[test]
fn at_the_end_what_makes_way_has_its_turn_behind_each_other_one_that_is_refused() {
    let mut desk = desk(|plan| {
        in_records(plan);
        plan.setup.envelope = Envelope::Full;
    });
    let code = "InvalidArgumentException";
    desk.invoke("r1", 1, 30_000);
    desk.post(4, 40);
    desk.ended("r1", false);
    let (parcel, _) = desk.send();
    desk.failed(parcel, code);
    desk.stop("spindown", 2, 2000);
    desk.signal(Signal::Reported("r1".into()));
    assert!(matches!(desk.step(), Step::CloseIntake(_)));
    // Of the events 0 to 3, Kinesis refuses 1; of those on disk, each.
    let (mut sent, mut segment) = (Vec::new(), 7);
    while sent.len() < 8 {
        desk.on_disk(Oldest::Empty, Oldest::Ready(segment));
        let mut parcel = match desk.step() {
            Step::Send { parcel, .. } => parcel,
            Step::Read(read) => {
                desk.on_disk(Oldest::Empty, Oldest::Empty);
                desk.read(read, 1);
                segment += 1;
                continue;
            }
            Step::Wait(_) => {
                desk.pass(5);
                continue;
            }
            Step::Remove(_) => {
                desk.done(Outcome::Done);
                continue;
            }
            step => panic!("{}", kind(&step)),
        };
        finish(&mut parcel.request);
        let of_it = events(&parcel);
        match of_it.iter().any(|event| *event == 1 || *event > 3) {
            true => desk.refused(parcel, code),
            false => desk.taken(parcel),
        }
        sent.push(of_it);
    }
    assert!(sent.contains(&vec![2, 3]) && sent.contains(&vec![0]), "{sent:?}");
    let is_of_file = |events: &Vec<u32>| events[0] > 3;
    assert!(sent.windows(2).all(|two| two.iter().any(is_of_file)), "nor those after: {sent:?}");
}

/// The window may be nearly over: a request that was sent from disk took the rest of it, and what
/// came meanwhile, or waited for a choice, was lost.
#[test]
fn before_a_reset_in_a_short_window_nothing_is_sent_before_the_last_post_is_on_disk() {
    for short in [true, false] {
        let mut desk = held_to_the_end();
        desk.invoke("r1", 1, 30_000);
        desk.on_disk(Oldest::Empty, Oldest::Ready(7));
        desk.stop_within("failure", 2, 1100, short);
        if !short {
            assert!(matches!(desk.step(), Step::Read(7)));
            continue;
        }
        assert_eq!(desk.wait_ms(), Some(300));
        desk.pass(200);
        desk.post(1, 40);
        let Step::Spool(parcel) = desk.step() else { panic!("the disk comes first") };
        desk.done(Outcome::Spooled(parcel, Some(8)));
        assert_eq!(desk.wait_ms(), Some(100));
        desk.pass(100);
        assert!(matches!(desk.step(), Step::CloseIntake(_)));
        assert!(matches!(desk.step(), Step::Read(7)), "with the time that is left");
    }
}

/// The window was nearly over when the order came: the first request took all that was left of it.
#[test]
fn before_a_reset_in_a_short_window_the_disk_comes_first() {
    for (reason, short, spools) in
        [("timeout", true, true), ("timeout", false, false), ("spindown", true, false)]
    {
        let mut desk = held_to_the_end();
        desk.post(1, 40);
        desk.stop_within(reason, 1, 1100, short);
        assert_eq!(matches!(desk.step(), Step::Spool(_)), spools, "{reason} {short}");
    }
}

#[test]
fn before_a_reset_the_last_40_ms_are_not_the_disks() {
    for (left, spools) in [(41, true), (40, false), (39, false)] {
        let mut desk = held_to_the_end();
        desk.post(1, 40);
        desk.stop("failure", 1, 2000);
        desk.pass(2000 - left);
        assert!(matches!(desk.step(), Step::CloseIntake(_)));
        assert_eq!(matches!(desk.step(), Step::Spool(_)), spools, "{left}");
        assert_eq!(desk.ledger().dropped_undelivered.get(), u64::from(!spools));
    }
}

#[test]
fn the_last_ledger_is_tried_five_times_with_pauses_and_what_became_of_it_is_said() {
    let mut desk = closed(next_without_disk(), "spindown");
    let mut pauses = 0;
    for tries in 1..=5 {
        let now = desk.now().mono;
        let request = match desk.step() {
            Step::SendLedger { request, .. } => request,
            Step::Wait(Some(until)) => {
                pauses += 1;
                desk.pass(u64::try_from((until - now).as_millis()).unwrap() + 1);
                desk.send_ledger().0
            }
            step => panic!("{}", kind(&step)),
        };
        let error = Error::new("InternalFailure", "simulated");
        desk.done(Outcome::Ledger(request, Err((error, String::new()))));
        assert!(desk.replies.is_empty(), "{tries}");
    }
    assert!(matches!(desk.step(), Step::Exit) && desk.replies == [9]);
    assert!(pauses >= 3, "{pauses}");
    assert_eq!(last_words(&desk), (Level::Warn, "ledger"));
    assert!(desk.said.last().unwrap().2.contains("InternalFailure"), "{:?}", desk.said);
}

#[test]
fn the_last_line_says_what_is_lost_or_that_all_is_well() {
    let mut desk = closed(next_without_disk(), "spindown");
    let (request, _) = desk.send_ledger();
    let taken = vec![RecordOutcome::Taken; request.len()];
    desk.done(Outcome::Ledger(request, Ok(taken)));
    assert!(matches!(desk.step(), Step::Exit));
    assert_eq!((desk.replies.len(), last_words(&desk)), (1, (Level::Info, "ledger")));

    let desk = next_without_disk();
    desk.ledger().dropped_queue.add(1);
    let mut desk = closed(desk, "spindown");
    let (request, _) = desk.send_ledger();
    let taken = vec![RecordOutcome::Taken; request.len()];
    desk.done(Outcome::Ledger(request, Ok(taken)));
    assert!(matches!(desk.step(), Step::Exit));
    assert_eq!(last_words(&desk), (Level::Error, "lost"));
    assert!(desk.said.last().unwrap().2.starts_with("1 events are lost"));
}

#[test]
fn the_ledger_is_sent_while_there_are_10_ms_for_it_and_40_for_the_last_line() {
    for (left, sends) in [(50, true), (49, false)] {
        let mut desk = closed(next_without_disk(), "spindown");
        desk.pass(2000 - left);
        assert_eq!(matches!(desk.step(), Step::SendLedger { .. }), sends, "{left}");
        if !sends {
            assert_eq!(last_words(&desk), (Level::Warn, "ledger"));
            assert!(desk.said.last().unwrap().2.contains("no time was left"));
        }
    }
}

#[test]
fn a_ledger_is_sent_again_at_once_where_that_may_help_and_not_at_all_where_nothing_does() {
    // The error, and how often the ledger is sent without a pause.
    for (code, stale, retry_now, at_once) in [
        ("ConnectionReset", true, false, 3),
        ("ConnectionReset", false, true, 5),
        ("ConnectionReset", false, false, 1),
        ("AccessDeniedException", false, true, 5),
        ("AccessDeniedException", false, false, 1),
    ] {
        let mut desk = closed(next_without_disk(), "spindown");
        let mut sent = 0;
        let last = loop {
            match desk.step() {
                Step::SendLedger { request, .. } => {
                    sent += 1;
                    let error = Error { stale, retry_now, ..Error::new(code, "simulated") };
                    desk.done(Outcome::Ledger(request, Err((error, String::new()))));
                }
                step => break step,
            }
        };
        assert_eq!(sent, at_once, "{code} {stale} {retry_now}");
        let is_over = code == "AccessDeniedException" || sent == 5;
        assert_eq!(matches!(last, Step::Exit), is_over, "{code}: {}", kind(&last));
    }
}

#[test]
fn what_the_sandbox_is_can_be_settled_without_the_rest_of_its_segment() {
    let mut desk = desk(in_records);
    desk.on_disk(Oldest::Ready(7), Oldest::Empty);
    desk.runs("r1");
    assert!(matches!(desk.step(), Step::Read(7)));
    desk.on_disk(Oldest::Empty, Oldest::Empty);
    desk.read_segment(7, 2, true);
    let (parcel, _) = desk.send();
    let throttled = "ProvisionedThroughputExceededException";
    let outcomes = ["InvalidArgumentException", throttled, throttled].map(refused);
    assert_eq!(parcel.request.len(), 3);
    desk.sent(parcel, Ok(outcomes.to_vec()));
    loop {
        let (parcel, _) = desk.send_soon();
        if events(&parcel).is_empty() {
            desk.taken(parcel);
            break;
        }
        desk.refused(parcel, throttled);
    }
    assert!(written_in_the_last_moments(&mut desk).is_empty(), "its file holds the rest");
    assert_eq!(desk.ledger().dropped(), 0);
}

#[test]
fn before_a_reset_what_is_on_disk_as_it_is_is_not_written_once_more() {
    let mut desk = held_to_the_end();
    desk.on_disk(Oldest::Ready(7), Oldest::Empty);
    desk.runs("r1");
    assert!(matches!(desk.step(), Step::Read(7)));
    desk.on_disk(Oldest::Empty, Oldest::Empty);
    desk.read(7, 3);
    let (parcel, _) = desk.send();
    desk.failed(parcel, "InternalFailure");
    desk.stop("failure", 9, 2000);
    let (parcel, _) = desk.send_soon();
    desk.failed(parcel, "InternalFailure");
    desk.wait();
    desk.post(1, 40);
    let Step::Spool(parcel) = desk.step() else { panic!("the disk comes first") };
    assert_eq!((parcel.segment, parcel.request.events()), (None, 1));
}
