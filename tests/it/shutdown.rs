//! SHUTDOWN for every reason, with Kinesis in every state; resets, and the spool that outlives them.

use sandbox::{Fault, Invocation, Kinesis, ms};

use crate::{extension, ledger};

#[test]
fn shutdown_is_in_time_whatever_kinesis_does() {
    for reason in ["spindown", "timeout", "failure", "SomethingNew"] {
        let states: [(&str, Option<Fault>); 4] = [
            ("healthy", None),
            ("slow", Some(Fault::delay(ms(300)))),
            ("hanging", Some(Fault::hang())),
            ("failing", Some(Fault::error(500, "InternalFailure"))),
        ];
        for (state, fault) in states {
            let kinesis = Kinesis::start();
            let lambda = extension(&kinesis).setting("FLUSH", "next").start();
            lambda.init().unwrap();
            lambda.invoke(Invocation::new().text("hello").work(ms(40))).unwrap();
            let delivers = matches!(state, "healthy" | "slow");
            if let Some(fault) = fault {
                kinesis.fault(fault);
            }
            let report = lambda.shutdown(reason);
            assert!(report.is_clean(), "{reason} {state}: {report:?}");
            if delivers {
                kinesis.account().compare(&lambda.sent()).assert_clean();
                assert_eq!(ledger(&kinesis)["shutdownReason"], reason.to_lowercase());
            } else {
                assert!(lambda.stderr().len() <= 3, "{reason} {state}: {:?}", lambda.stderr());
            }
        }
    }
}

#[test]
fn shutdown_with_a_refused_connection_counts_what_is_lost() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).start();
    lambda.init().unwrap();
    kinesis.refuse_connections();
    lambda.invoke(Invocation::new().text("hello")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let lines = lambda.stderr();
    let lost = lines.iter().find(|line| line.contains("events are lost")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&lost[lost.find('{').unwrap()..]).unwrap();
    assert_eq!(
        record["received"].as_u64().unwrap() as usize,
        lambda.sent().iter().filter(|event| event.handed > 0).count()
    );
    assert_eq!(record["dropped"]["undelivered"], record["received"]);
}

#[test]
fn a_time_out_resets_the_sandbox_and_the_next_process_goes_on() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).start();
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("fine")).unwrap();
    let timed_out =
        lambda.invoke(Invocation::new().text("stuck").times_out().timeout(ms(1000))).unwrap();
    assert!(timed_out.reset.unwrap().is_clean());
    let after = lambda.invoke(Invocation::new().text("after")).unwrap();
    assert_eq!(after.init.unwrap().phase, "invoke");
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    account.compare(&lambda.sent()).assert_clean();
    assert_eq!(account.by_process().len(), 2);
    assert!(account.containing("Already subscribed").len() == 1);
    // A function that used up its time is no reason to change how telemetry is sent.
    assert_eq!(lambda.stderr(), Vec::<String>::new());
}

#[test]
fn what_a_reset_would_lose_is_sent_by_the_next_process() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).timeout(ms(1000)).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::error(500, "InternalFailure"));
    lambda.invoke(Invocation::new().text("unsent one")).unwrap();
    lambda.invoke(Invocation::new().text("unsent two").crashes()).unwrap();
    assert_eq!(kinesis.account().events.len(), 0);
    kinesis.clear_faults();
    lambda.invoke(Invocation::new().text("after")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let account = kinesis.account();
    account.compare(&lambda.sent()).assert_clean();
    let processes = account.by_process();
    assert_eq!(processes.len(), 2);
    assert!(
        processes.values().all(|process| process.gaps.is_empty() && process.repeats.is_empty()),
        "{processes:?}"
    );
    let ledger = ledger(&kinesis);
    assert!(ledger["adopted"].as_u64().unwrap() > 5, "{ledger}");
    // Delivered, so deleted.
    let left = std::fs::read_dir(lambda.tmp().join("kinesis-telemetry-extension"))
        .map_or(0, Iterator::count);
    assert_eq!(left, 0);
}

#[test]
fn without_a_spool_a_reset_counts_its_losses() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).setting("SPOOL_BYTES", "0").timeout(ms(1000)).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::error(500, "InternalFailure"));
    lambda.invoke(Invocation::new().text("unsent").crashes()).unwrap();
    assert!(
        lambda.stderr().iter().any(|line| line.contains("events are lost")),
        "{:?}",
        lambda.stderr()
    );
    assert!(!lambda.tmp().join("kinesis-telemetry-extension").exists());
}

#[test]
fn foreign_files_in_the_spool_are_removed_and_counted() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).start();
    let folder = lambda.tmp().join("kinesis-telemetry-extension");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, bytes) in [
        ("a.spool", b"not ours".as_slice()),
        ("b.spool", b""),
        ("c.spool", b"kinesis-telemetry-extension spool 1\nand nothing more, but long enough to have a hash at its end"),
    ] {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    lambda.init().unwrap();
    lambda.invoke(Invocation::new().text("hello")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    assert_eq!(ledger(&kinesis)["spoolSkipped"], 3);
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0, "removed");
}

#[test]
fn a_tmp_that_cannot_be_written_is_one_line_and_no_harm() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).timeout(ms(1000)).start();
    std::fs::write(lambda.tmp().join("kinesis-telemetry-extension"), "a file in the way").unwrap();
    lambda.init().unwrap();
    kinesis.fault(Fault::error(500, "InternalFailure"));
    lambda.invoke(Invocation::new().text("unsent").crashes()).unwrap();
    assert_eq!(
        lambda.stderr().iter().filter(|line| line.contains("/tmp")).count(),
        1,
        "{:?}",
        lambda.stderr()
    );
    kinesis.clear_faults();
    lambda.invoke(Invocation::new().text("after")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    assert_eq!(kinesis.account().containing("after").len(), 1);
}

#[test]
fn events_lost_for_good_are_printed_if_asked_for() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).setting("FALLBACK", "log").start();
    lambda.init().unwrap();
    kinesis.fault(Fault::error(400, "AccessDeniedException"));
    lambda.invoke(Invocation::new().lines(["lost one", "lost two"])).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    let lines = lambda.stdout();
    let events: Vec<serde_json::Value> =
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), lambda.sent().iter().filter(|event| event.handed > 0).count());
    assert!(
        events
            .iter()
            .any(|event| event["record"] == "lost one" && event["functionName"] == "orders")
    );
}
