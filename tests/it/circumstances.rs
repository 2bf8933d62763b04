//! Circumstances in which a promise was once broken, each driven from outside and named after its cause.
//!
//! | number | cause | held by |
//! |---|---|---|
//! | 1 | a refusal of the whole request that is about the stream or the endpoint | `a_refusal_of_whole_requests_*` |
//! | 2 | one throttled key, one record with a code that never goes away | `one_*_record_keeps_no_other_waiting` |
//! | 3 | records that fail by themselves, without a pause | `records_that_fail_by_themselves_are_no_storm` |
//! | 4 | the last ledger, without a pause | `the_last_ledger_is_no_storm` |
//! | 5 | odd error bodies | `kinesis::error`: `an_odd_error_body_never_loses_its_code`, `the_code_may_stand_in_a_header` |
//! | 6 | an expired signature; 408; a proxy that closes | `wire`: `an_expired_signature_*`, `a_request_time_out_*`, `a_proxy_that_closes_*` |
//! | 7 | failed handshakes; calls repeated with renewed keys | `wire`: `a_handshake_that_hangs_*`, `a_call_with_renewed_credentials_*` |
//! | 8 | ARNs of nowhere; roles that were not assumed | `kinesis::endpoint`: `an_arn_names_*`; `check`: `a_role_is_only_reported_*` |
//! | 9 | a crash while Kinesis hangs | `a_crash_while_kinesis_hangs_loses_nothing` |
//! | 10 | a reset with a large queue | `a_reset_with_a_large_queue_loses_nothing_uncounted` |
//! | 11 | a stall around SHUTDOWN | `a_stall_around_shutdown_loses_no_order` |
//! | 12 | POSTs during the last ledger | `what_is_answered_during_the_last_ledger_is_sent` |
//! | 13 | a reset with a full disk | `a_reset_with_a_full_disk_*` |
//! | 14 | a kill with a segment on its way | `a_kill_with_a_segment_on_its_way_counts_the_repeats` |
//! | 15 | a large spool is taken over | `taking_over_a_large_spool_holds_no_invocation` |
//! | 16 | a flush that ended at its limit with a full request queued | `a_loud_invocation_is_sent_for_as_long_as_it_lasts` |
//! | 17 | an older `runtimeDone` behind the awaited one | `an_older_end_behind_the_awaited_one_changes_nothing` |
//! | 18 | `logsDropped` of another invocation | `logs_dropped_end_the_wait_of_their_own_invocation_only` |
//! | 19 | a flush with no time left | `a_flush_without_time_is_no_failure_of_kinesis` |
//! | 20 | INVOKE during a send of the invocation before | `a_send_of_the_invocation_before_adds_nothing_to_the_hold` |
//! | 21 | a hold whose end comes during the flush | `every_held_millisecond_is_in_the_ledger` |
//! | 22 | the periodic ledger in a busy sandbox | `a_busy_sandbox_sends_its_periodic_ledger` |
//! | 23 | a clock set back; signals after a panic; an API that is gone | `a_clock_that_is_set_back_*`, `an_api_that_is_gone_*`, `dispatch::admission` |
//! | 24 | what large logs weigh | `large_logs_keep_to_the_bound_of_memory`; of 8 MB: `bodies.rs`: `a_long_event_*` |
//! | 25 | a stdout that nobody drains | `a_stdout_that_nobody_drains_holds_nothing` |
//! | later | a spool of an earlier process, and Kinesis still down at the end | `every_event_on_disk_that_nobody_will_send_is_counted` |

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use kinesis_telemetry_extension::config::Config;
use kinesis_telemetry_extension::deadline::{Deadline, Limit};
use kinesis_telemetry_extension::dispatch::admission::Admission;
use kinesis_telemetry_extension::dispatch::charge::Gauge;
use kinesis_telemetry_extension::dispatch::core::{Core, Settings};
use kinesis_telemetry_extension::dispatch::message::{Load, Message, Now, Reply, Signal};
use kinesis_telemetry_extension::dispatch::packer::Packer;
use kinesis_telemetry_extension::dispatch::policy::FlushMode;
use kinesis_telemetry_extension::dispatch::spares::Spares;
use kinesis_telemetry_extension::dispatch::spool::Spool;
use kinesis_telemetry_extension::dispatch::step::{Outcome, Step, View};
use kinesis_telemetry_extension::event::{Batch, Event, Span};
use kinesis_telemetry_extension::kinesis::response::RecordOutcome;
use kinesis_telemetry_extension::ledger::Ledger;
use kinesis_telemetry_extension::mailbox::Mailbox;
use sandbox::{
    Fault, Invocation, InvokeReport, Kinesis, Lambda, LambdaBuilder, Which, ms, wait_until,
};
use serde_json::Value;

use crate::{extension, ledger};

/// What guarantee 3 allows beside the queue.
const SLACK_KIB: u64 = 12 * 1024;
/// What guarantee 12 allows: requests that deliver nothing, in any second.
const FRUITLESS: usize = 10;

fn lines(name: &str, count: usize) -> Invocation {
    Invocation::new().lines((0..count).map(|n| format!("{name} {n}")))
}

fn invoke(lambda: &Lambda, invocation: Invocation) -> InvokeReport {
    let report = lambda.invoke(invocation).unwrap();
    assert!(!report.deadline_exceeded, "held past the invocation's deadline");
    report
}

/// Ends the sandbox well.
#[track_caller]
fn end(lambda: &Lambda) {
    let report = lambda.shutdown("spindown");
    assert!(report.is_clean(), "{report:?} {:?}", lambda.stderr());
}

/// The most requests that delivered nothing, in any second. The time is taken here, so a little less than a second is looked at.
fn fruitless_in_a_second(kinesis: &Kinesis) -> usize {
    let times: Vec<Instant> =
        kinesis.puts().iter().filter(|put| put.stored() == 0).map(|put| put.at).collect();
    times
        .iter()
        .map(|first| times.iter().filter(|at| **at >= *first && **at - *first < ms(950)).count())
        .max()
        .unwrap_or(0)
}

/// The ledgers in the last lines that were printed, oldest first.
fn printed_ledgers(lambda: &Lambda) -> Vec<Value> {
    let ledger = |line: String| serde_json::from_str(&line[line.find("{\"received")?..]).ok();
    lambda.stderr().into_iter().filter_map(ledger).collect()
}

fn dropped(ledger: &Value) -> u64 {
    ["queue", "rejected", "undelivered"]
        .iter()
        .map(|why| ledger["dropped"][why].as_u64().unwrap())
        .sum()
}

fn spool_folder(lambda: &Lambda) -> PathBuf {
    lambda.tmp().join("kinesis-telemetry-extension")
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).map(|entries| {
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    });
    entries.unwrap_or_default()
}

fn signal(pid: i32, name: &str) -> bool {
    Command::new("kill")
        .args([name, &pid.to_string()])
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}

// --- after Kinesis says no -------------------------------------------------------------------------------------------------------------

#[test]
fn a_refusal_of_whole_requests_that_passes_drops_nothing() {
    let refusals = [
        Fault::error(400, "InvalidArgumentException"),
        Fault::error(400, "ValidationException"),
        Fault::error(400, "SerializationException"),
        Fault::empty(413),
    ];
    for refusal in refusals {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).timeout(ms(20_000)).start();
        lambda.init().unwrap();
        kinesis.fault(refusal.clone().times(1));
        invoke(&lambda, lines("momentary", 1000));
        end(&lambda);
        kinesis.account().compare(&lambda.sent()).assert_clean();
        assert_eq!(dropped(&ledger(&kinesis)), 0, "{refusal:?}");
    }
}

#[test]
fn a_refusal_of_whole_requests_that_stays_is_an_outage_and_drops_nothing() {
    for record in ["lines", "event"] {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis)
            .setting("RECORD", record)
            .setting("FLUSH_TIMEOUT_MS", "1500")
            .timeout(ms(30_000))
            .start();
        lambda.init().unwrap();
        kinesis.fault(Fault::error(400, "InvalidArgumentException"));
        let reports: Vec<InvokeReport> = (0..4)
            .map(|round| invoke(&lambda, lines(&format!("round {round} line"), 100)))
            .collect();
        // One flush, and then probes at the most.
        assert!(
            reports.iter().filter(|report| report.held > ms(1400)).count() <= 1,
            "{:?}",
            reports.iter().map(|r| r.held).collect::<Vec<_>>()
        );
        assert!(kinesis.puts().len() <= 30, "{record}: {} requests", kinesis.puts().len());
        assert!(
            fruitless_in_a_second(&kinesis) <= FRUITLESS,
            "{record}: {}",
            fruitless_in_a_second(&kinesis)
        );
        kinesis.clear_faults();
        end(&lambda);
        kinesis.account().compare(&lambda.sent()).assert_clean();
        assert_eq!(dropped(&ledger(&kinesis)), 0, "{record}");
    }
}

/// Sends 24 lines, one of which fails for good; then it is let through.
fn one_bad_record(code: &str) {
    let kinesis = Kinesis::builder().shards(4).start();
    let lambda = extension(&kinesis)
        .setting("RECORD", "event")
        .setting("PARTITION_KEY", "random")
        .setting("FLUSH_TIMEOUT_MS", "1500")
        .start();
    lambda.init().unwrap();
    kinesis.fault(Fault::records(Which::Containing(b"bad apple".to_vec()), code));
    invoke(
        &lambda,
        lines("before", 12)
            .text("bad apple")
            .lines((0..12).map(|n| format!("after {n}")))
            .timeout(ms(20_000)),
    );
    let account = kinesis.account();
    assert_eq!(
        (account.containing("before").len(), account.containing("after").len()),
        (12, 12),
        "{code}"
    );
    let report = invoke(&lambda, lines("later", 3).timeout(ms(20_000)));
    // What failed through a whole flush holds no later one.
    assert!(report.held < ms(1400), "{code}: {:?}", report.held);
    assert_eq!(kinesis.account().containing("later").len(), 3, "{code}");
    kinesis.clear_faults();
    end(&lambda);
    kinesis.account().compare(&lambda.sent()).assert_clean();
    assert_eq!(ledger(&kinesis)["possibleDuplicates"], 0);
}

#[test]
fn one_throttled_record_keeps_no_other_waiting() {
    one_bad_record("ProvisionedThroughputExceededException");
}

#[test]
fn one_failing_record_keeps_no_other_waiting() {
    one_bad_record("InternalFailure");
}

#[test]
fn records_that_fail_by_themselves_are_no_storm() {
    for code in ["InternalFailure", "SomethingNew"] {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).timeout(ms(20_000)).start();
        lambda.init().unwrap();
        kinesis.fault(Fault::records(Which::All, code));
        invoke(&lambda, lines("line", 10));
        let requests = kinesis.puts().len();
        assert!((2..=30).contains(&requests), "{code}: {requests} requests in one flush of 3 s");
        assert!(
            fruitless_in_a_second(&kinesis) <= FRUITLESS,
            "{code}: {}",
            fruitless_in_a_second(&kinesis)
        );
        kinesis.clear_faults();
        end(&lambda);
        kinesis.account().compare(&lambda.sent()).assert_clean();
    }
}

#[test]
fn the_last_ledger_is_no_storm() {
    for code in ["InternalFailure", "ProvisionedThroughputExceededException", "SomethingNew"] {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).start();
        lambda.init().unwrap();
        invoke(&lambda, lines("line", 10));
        kinesis
            .fault(Fault::records(Which::Containing(b"kinesis-telemetry.ledger".to_vec()), code));
        end(&lambda);
        let tries = kinesis.puts().iter().filter(|put| put.failed() > 0).count();
        assert!((2..=5).contains(&tries), "{code}: {tries} requests for the last ledger");
        kinesis.account().compare(&lambda.sent()).assert_clean();
        assert!(
            lambda
                .stderr()
                .iter()
                .any(|line| line.contains(&format!("the ledger could not be sent: {code}; {{"))),
            "{:?}",
            lambda.stderr()
        );
    }
}

// --- the end of things -----------------------------------------------------------------------------------------------------------------

#[test]
fn a_crash_while_kinesis_hangs_loses_nothing() {
    for mode in ["end", "adaptive", "next"] {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).setting("FLUSH", mode).timeout(ms(20_000)).start();
        lambda.init().unwrap();
        if mode == "next" {
            // So that something is queued when the next invocation begins.
            invoke(&lambda, lines("queued", 10));
        }
        kinesis.fault(Fault::hang());
        let report = lambda.invoke(lines("crashing", 10).crashes()).unwrap();
        let reset = report.reset.unwrap();
        assert!(reset.is_clean(), "{mode}: {reset:?} {:?}", lambda.stderr());
        kinesis.clear_faults();
        invoke(&lambda, lines("after", 10).work(ms(200)));
        end(&lambda);
        let comparison = kinesis.account().compare(&lambda.sent());
        comparison.assert_lossless();
        assert_eq!(kinesis.account().by_process().len(), 2, "{mode}");
        assert!(ledger(&kinesis)["adopted"].as_u64().unwrap() > 0, "{mode}");
        assert_eq!(files(&spool_folder(&lambda)), Vec::<String>::new(), "{mode}");
    }
}

#[test]
fn a_reset_with_a_large_queue_loses_nothing_uncounted() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis)
        .setting("QUEUE_BYTES", "67108864")
        .setting("MAX_AGE_MS", "900000")
        .timeout(ms(60_000))
        .start();
    lambda.init().unwrap();
    kinesis.fault(Fault::hang());
    let crashing = Invocation::new().floods(20, 1000, 300).crashes();
    let reset = lambda.invoke(crashing).unwrap().reset.unwrap();
    assert!(reset.is_clean(), "{reset:?} {:?}", lambda.stderr());
    let left = files(&spool_folder(&lambda));
    assert!(left.iter().all(|name| !name.ends_with(".part")), "{left:?}");
    kinesis.clear_faults();
    let lost: u64 = printed_ledgers(&lambda).iter().map(dropped).sum();
    wait_until(ms(60_000), "all that was kept to be delivered", || {
        invoke(&lambda, Invocation::new().work(ms(200)));
        kinesis.account().flooded() as u64 + lost >= 20_000
    });
    end(&lambda);
    assert_eq!(files(&spool_folder(&lambda)), Vec::<String>::new());
    assert!(lost == 0, "{lost} of 20,000 events had neither disk nor time: {:?}", lambda.stderr());
}

/// What an earlier process had left, and could not be read in the last moments, was counted as files.
#[test]
fn every_event_on_disk_that_nobody_will_send_is_counted() {
    for (state, fault) in
        [("hanging", Fault::hang()), ("failing", Fault::error(500, "InternalFailure"))]
    {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).setting("QUEUE_BYTES", "67108864").start();
        lambda.init().unwrap();
        kinesis.fault(fault);
        let crashing = Invocation::new().floods(60, 1000, 300).crashes();
        let reset = lambda.invoke(crashing).unwrap().reset.unwrap();
        assert!(reset.is_clean(), "{state}: {reset:?} {:?}", lambda.stderr());
        lambda.init().unwrap();
        assert!(lambda.shutdown("spindown").is_clean());
        // The first process's, and the second's.
        let ledgers: Vec<Value> = lambda
            .stderr()
            .iter()
            .filter_map(|line| serde_json::from_str(&line[line.find('{')?..]).ok())
            .collect();
        let [first, second] = ledgers.as_slice() else { panic!("{state}: {:?}", lambda.stderr()) };
        assert_eq!(second["spoolSkipped"], 0, "{state}: {second}");
        assert_eq!(second["adopted"], first["spooled"], "{state}: {first} {second}");
        assert_eq!(second["dropped"]["undelivered"], second["received"], "{state}: {second}");
    }
}

#[test]
fn a_stall_around_shutdown_loses_no_order() {
    let kinesis = Kinesis::start();
    // Without a freeze in between: the thaw would end the stall.
    let lambda = extension(&kinesis).setting("FLUSH", "next").without_freeze().start();
    // So that there is something to stall in.
    kinesis.fault(Fault::delay(ms(20)));
    let stalls = AtomicUsize::new(0);
    for n in 0..8_u64 {
        lambda.init().unwrap();
        invoke(&lambda, lines(&format!("round {n} line"), 5).work(ms(30)));
        let pid = lambda.pid().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(ms(n * 6));
                if lambda.exit().is_none() && signal(pid, "-STOP") {
                    thread::sleep(ms(150 + n * 30));
                    stalls.fetch_add(usize::from(signal(pid, "-CONT")), Ordering::AcqRel);
                }
            });
            let report = lambda.reset("spindown");
            assert!(report.is_clean(), "{n}: {report:?} {:?}", lambda.stderr());
        });
    }
    let account = kinesis.account();
    account.compare(&lambda.sent()).assert_lossless();
    assert_eq!(account.ledgers().len(), 8);
    assert!(stalls.into_inner() >= 4);
    ledger(&kinesis);
}

#[test]
fn what_is_answered_during_the_last_ledger_is_sent() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).start();
    lambda.init().unwrap();
    invoke(&lambda, lines("line", 5));
    // The last report is waited for, and never comes.
    lambda.deliver(|way| way.lost_type = Some("platform.report".to_owned()));
    invoke(&lambda, lines("line", 5));
    kinesis.fault(Fault::delay(ms(300)));
    let (answered, over) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if over.load(Ordering::Acquire) > 0 {
                    break;
                }
                let body = format!(r#"[{{"time":"2026-11-23T09:15:45.012Z","type":"function","record":"until the end {n:06}"}}]"#);
                if lambda.post_raw(body.as_bytes()).is_ok_and(|status| status == 200) {
                    answered.fetch_add(1, Ordering::AcqRel);
                }
                // Not more than a request takes, however fast the machine is: each takes 300 ms.
                thread::sleep(ms(1));
            }
        });
        let report = lambda.shutdown("spindown");
        over.store(1, Ordering::Release);
        assert!(report.is_clean(), "{report:?} {:?}", lambda.stderr());
    });
    let stored = kinesis.account().containing("until the end").len();
    let last = printed_ledgers(&lambda).pop();
    let lost = last.as_ref().map_or(0, dropped);
    // A request whose answer did not come in time is sent again: what is in it may be there twice, and
    // counts as lost if the second answer does not come either.
    let unknown = last.map_or(0, |ledger| ledger["possibleDuplicates"].as_u64().unwrap()) as usize;
    let answered = answered.into_inner();
    assert!(answered > 0);
    // One may be taken whose answer the end of the process cuts off.
    assert!(
        (answered..=answered + 1 + 2 * unknown).contains(&(stored + lost as usize)),
        "{answered} were answered 200, {stored} stored, {lost} counted as lost, {unknown} unknown"
    );
    assert!(
        ledger(&kinesis)["received"].as_u64().unwrap() as usize >= answered,
        "the ledger speaks of them"
    );
}

/// From its second process on no file that the extension writes can grow, as on a disk that is full, once the file `full` is there.
fn with_a_disk_that_fills_up(builder: LambdaBuilder) -> LambdaBuilder {
    builder.runner(&[
        "sh",
        "-c",
        "if [ -e full ]; then trap '' XFSZ; ulimit -f 0; fi; exec \"$0\" \"$@\"",
    ])
}

#[test]
fn a_reset_with_a_full_disk_keeps_what_is_there_and_counts_the_rest() {
    let kinesis = Kinesis::start();
    let lambda = with_a_disk_that_fills_up(extension(&kinesis)).timeout(ms(20_000)).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::error(500, "InternalFailure"));
    let reset = lambda.invoke(lines("kept on disk", 20).crashes()).unwrap().reset.unwrap();
    assert!(reset.is_clean(), "{reset:?}");
    let kept = files(&spool_folder(&lambda));
    assert!(!kept.is_empty());
    std::fs::write(lambda.directory().join("full"), "").unwrap();
    // The second process takes it over, cannot send it, and ends with a disk that takes nothing.
    let reset =
        lambda.invoke(lines("nowhere to go", 20).work(ms(500)).crashes()).unwrap().reset.unwrap();
    assert!(reset.is_clean(), "{reset:?}");
    assert!(
        files(&spool_folder(&lambda)).len() >= kept.len(),
        "{kept:?} {:?}",
        files(&spool_folder(&lambda))
    );
    let lost = printed_ledgers(&lambda).last().map_or(0, dropped) as usize;
    assert!(lost >= 20, "{:?}", lambda.stderr());
    kinesis.clear_faults();
    invoke(&lambda, lines("after", 5).work(ms(500)));
    end(&lambda);
    let account = kinesis.account();
    assert_eq!(account.containing("kept on disk").len(), 20, "{:?}", lambda.stderr());
    let comparison = account.compare(&lambda.sent());
    assert_eq!(comparison.lost.len(), lost, "{comparison}");
    assert!(files(&spool_folder(&lambda)).is_empty(), "{:?}", files(&spool_folder(&lambda)));
}

#[test]
fn a_reset_with_a_full_disk_forgets_no_part_of_what_is_in_memory() {
    let kinesis = Kinesis::start();
    let lambda = with_a_disk_that_fills_up(extension(&kinesis))
        .setting("QUEUE_BYTES", "33554432")
        .timeout(ms(30_000))
        .start();
    std::fs::write(lambda.directory().join("full"), "").unwrap();
    lambda.init().unwrap();
    kinesis.fault(Fault::error(400, "InvalidArgumentException"));
    let crashing = Invocation::new().floods(10, 1000, 300).work(ms(1000)).crashes();
    let reset = lambda.invoke(crashing).unwrap().reset.unwrap();
    assert!(reset.is_clean(), "{reset:?}");
    let ledgers = printed_ledgers(&lambda);
    let ledger = ledgers.last().unwrap();
    assert!(dropped(ledger) >= 10_000, "{ledger}");
    assert_eq!(
        ledger["received"].as_u64().unwrap(),
        dropped(ledger) + ledger["delivered"].as_u64().unwrap(),
        "{ledger}"
    );
    assert_eq!(ledger["waiting"], 0, "{ledger}");
}

/// The second process sent them from their file in vain, and the third counted them as repeats.
#[test]
fn what_a_process_takes_over_is_no_repeat_where_nothing_of_it_was_stored() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).timeout(ms(20_000)).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::error(400, "ProvisionedThroughputExceededException"));
    let tries = || kinesis.puts().iter().filter(|put| put.lines >= 100).count();
    let reset = lambda.invoke(lines("throttled", 100).crashes()).unwrap().reset.unwrap();
    assert!(reset.is_clean(), "{reset:?}");
    let before = tries();
    let reset = lambda.invoke(lines("few", 5).work(ms(500)).crashes()).unwrap().reset.unwrap();
    assert!(reset.is_clean() && tries() > before, "{reset:?}");
    kinesis.clear_faults();
    invoke(&lambda, lines("after", 5).work(ms(500)));
    end(&lambda);
    assert_eq!(kinesis.account().containing("throttled ").len(), 100);
    assert_eq!(ledger(&kinesis)["possibleDuplicates"], 0);
    assert!(files(&spool_folder(&lambda)).is_empty());
}

#[test]
fn a_kill_with_a_segment_on_its_way_counts_the_repeats() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).timeout(ms(20_000)).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::error(400, "ProvisionedThroughputExceededException"));
    let reset = lambda.invoke(lines("on its way", 100).crashes()).unwrap().reset.unwrap();
    assert!(reset.is_clean(), "{reset:?}");
    kinesis.clear_faults();
    // Stored at once, and answered so slowly that the answer is still coming in when the process is killed.
    kinesis.fault(Fault::dribble(40, ms(50)));
    let kinesis = Arc::new(kinesis);
    let seen = Arc::clone(&kinesis);
    let killed = Invocation::new().run(move |lambda| {
        wait_until(ms(10_000), "the segment to be on its way", || {
            seen.account().containing("on its way").len() == 100
        });
        lambda.kill();
    });
    assert!(lambda.invoke(killed.work(ms(1000))).is_err());
    kinesis.clear_faults();
    invoke(&lambda, lines("after", 5).work(ms(500)));
    end(&lambda);
    assert_eq!(kinesis.account().containing("on its way").len(), 200);
    let ledger = ledger(&kinesis);
    assert!(ledger["possibleDuplicates"].as_u64().unwrap() >= 100, "{ledger}");
    assert!(files(&spool_folder(&lambda)).is_empty());
}

#[test]
fn taking_over_a_large_spool_holds_no_invocation() {
    let kinesis = Kinesis::builder().count_only().start();
    let lambda = extension(&kinesis)
        .setting("QUEUE_BYTES", "1048576")
        .setting("FLUSH_TIMEOUT_MS", "1000")
        .timeout(ms(120_000))
        .start();
    lambda.init().unwrap();
    kinesis.fault(Fault::hang());
    let filling = Invocation::new().floods(90, 1000, 300);
    invoke(&lambda, filling);
    lambda.kill();
    assert!(lambda.invoke(Invocation::new()).is_err());
    let segments = files(&spool_folder(&lambda)).len();
    assert!(segments > 30, "{segments} segments");
    kinesis.clear_faults();
    kinesis.fault(Fault::delay(ms(50)));
    let before = kinesis.counted().requests;
    let report = invoke(&lambda, lines("first", 5));
    // Its own events, and what was on its way when the function ended.
    let requests = kinesis.counted().requests - before;
    assert!(requests <= 4, "{requests} requests before the first invocation was let go");
    assert!(report.held < ms(1500), "{:?}", report.held);
    wait_until(ms(120_000), "the spool to be empty", || {
        invoke(&lambda, Invocation::new().work(ms(1000)));
        files(&spool_folder(&lambda)).is_empty()
    });
    end(&lambda);
}

// --- holding and not holding -----------------------------------------------------------------------------------------------------------

#[test]
fn a_loud_invocation_is_sent_for_as_long_as_it_lasts() {
    for mode in ["next", "end"] {
        let kinesis = Kinesis::builder().count_only().start();
        let builder = extension(&kinesis)
            .setting("FLUSH", mode)
            .setting("FLUSH_TIMEOUT_MS", "500")
            .setting("MAX_AGE_MS", "900000");
        let lambda = builder.setting("QUEUE_BYTES", "67108864").timeout(ms(120_000)).start();
        lambda.init().unwrap();
        kinesis.fault(Fault::delay(ms(200)));
        // Ends at its limit, with full requests still queued.
        invoke(&lambda, Invocation::new().floods(15, 1000, 300));
        let kinesis = Arc::new(kinesis);
        let seen = Arc::clone(&kinesis);
        let loud = Invocation::new().run(move |lambda| {
            assert_eq!(lambda.flood(5, 1000, 300).unwrap().refused, 0);
            // Less than one request may wait for its age.
            wait_until(ms(60_000), "what is queued to be sent inside the invocation", || {
                seen.counted().events >= 20_000 - 4000
            });
        });
        invoke(&lambda, loud);
        end(&lambda);
        assert!(kinesis.counted().events >= 20_000, "{mode}");
    }
}

fn runtime_done(request_id: &str) -> String {
    format!(
        r#"{{"time":"2026-11-23T09:15:45.012Z","type":"platform.runtimeDone","record":{{"requestId":"{request_id}","status":"success"}}}}"#
    )
}

#[test]
fn an_older_end_behind_the_awaited_one_changes_nothing() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).timeout(ms(20_000)).start();
    lambda.init().unwrap();
    let older = invoke(&lambda, lines("older", 3)).request_id;
    // Lambda's own one is lost on the way; these are in one body.
    lambda.deliver(|way| way.lost_type = Some("platform.runtimeDone".to_owned()));
    for n in 0..3 {
        let id = format!("0d68ca91-49c9-448d-89b8-7ca3e6dc66a{n}");
        let body = format!("[{},{}]", runtime_done(&id), runtime_done(&older));
        let awaited = lines("awaited", 3)
            .request_id(&id)
            .run(move |lambda| assert_eq!(lambda.post_raw(body.as_bytes()).unwrap(), 200));
        let report = invoke(&lambda, awaited);
        assert!(report.held < ms(10_000), "{:?}", report.held);
    }
    end(&lambda);
    assert_eq!(lambda.stderr(), Vec::<String>::new());
}

#[test]
fn logs_dropped_end_the_wait_of_their_own_invocation_only() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).timeout(ms(20_000)).start();
    lambda.init().unwrap();
    let gap = r#"{"droppedBytes":12345,"droppedRecords":123,"reason":"slow"}"#;
    for n in 0..3 {
        // Once while its end is awaited, and once with the end.
        let dropping = Invocation::new()
            .event("platform.logsDropped", gap)
            .work(ms(100))
            .event("platform.logsDropped", gap);
        invoke(&lambda, dropping);
        let text = format!("in the next one {n}");
        let report = invoke(&lambda, Invocation::new().work(ms(300)).text(&text));
        assert!(report.next.unwrap() >= report.done, "its end was awaited");
        let account = kinesis.account();
        assert_eq!(account.containing(&text).len(), 1);
        assert_eq!(
            account.of_type("platform.runtimeDone").last().unwrap().request_id.as_deref(),
            Some(report.request_id.as_str())
        );
    }
    end(&lambda);
    kinesis.account().compare(&lambda.sent()).assert_clean();
}

#[test]
fn a_flush_without_time_is_no_failure_of_kinesis() {
    let kinesis = Kinesis::start();
    // Each end arrives when the time of its flush is over.
    let builder =
        extension(&kinesis).setting("FLUSH_TIMEOUT_MS", "50").setting("BUFFER_TIMEOUT_MS", "600");
    let lambda = builder.timeout(ms(20_000)).start();
    lambda.init().unwrap();
    for n in 0..8 {
        invoke(&lambda, lines(&format!("round {n} line"), 5));
    }
    // Inside a held invocation nothing gets older than a second, as long as Kinesis is not taken for down.
    assert!(!kinesis.puts().is_empty(), "Kinesis was never asked: {:?}", lambda.stderr());
    end(&lambda);
    kinesis.account().compare(&lambda.sent()).assert_clean();
    assert_eq!(lambda.stderr(), Vec::<String>::new());
    assert_eq!(ledger(&kinesis)["requestErrors"], serde_json::json!({}));
}

#[test]
fn a_send_of_the_invocation_before_adds_nothing_to_the_hold() {
    let kinesis = Kinesis::start();
    let builder = extension(&kinesis)
        .setting("FLUSH", "next")
        .setting("MAX_AGE_MS", "100")
        .setting("FLUSH_TIMEOUT_MS", "3000");
    let lambda = builder.timeout(ms(30_000)).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::hang());
    // A send begins inside it, after the extension has called /next.
    invoke(&lambda, lines("before", 5).work(ms(500)).text("queued behind it").work(ms(100)));
    let report = invoke(&lambda, lines("after", 5));
    assert!((ms(2000)..ms(4500)).contains(&report.held), "{:?} of 3 s", report.held);
    kinesis.clear_faults();
    end(&lambda);
    kinesis.account().compare(&lambda.sent()).assert_lossless();
}

#[test]
fn every_held_millisecond_is_in_the_ledger() {
    for mode in ["end", "next"] {
        let kinesis = Kinesis::start();
        let lambda = extension(&kinesis).setting("FLUSH", mode).timeout(ms(20_000)).start();
        lambda.init().unwrap();
        invoke(&lambda, lines("queued", 5));
        kinesis.fault(Fault::delay(ms(1200)));
        // In `next` the function ends while the flush is under way.
        let held: Vec<Duration> = (0..2)
            .map(|n| invoke(&lambda, lines(&format!("round {n}"), 5).work(ms(50))).held)
            .collect();
        kinesis.clear_faults();
        end(&lambda);
        let ledger = ledger(&kinesis);
        let (most, sum) = (
            held.iter().max().unwrap().as_millis() as u64,
            held.iter().sum::<Duration>().as_millis() as u64,
        );
        assert!(most > 900, "{mode}: {held:?}");
        let (max, total) = (
            ledger["holdMs"]["max"].as_u64().unwrap(),
            ledger["holdMs"]["total"].as_u64().unwrap(),
        );
        // The end's own time is a whole millisecond, and a busy machine is late to pass `/next` on.
        assert!(max + 150 >= most && max <= most + 20, "{mode}: held {held:?}, {ledger}");
        assert!(total + 300 >= sum && total <= sum + 300, "{mode}: held {held:?}, {ledger}");
    }
}

#[test]
fn an_api_that_is_gone_leaves_what_was_unsent_on_disk() {
    let kinesis = Kinesis::start();
    // From the second call on: after the first invocation. It is tried for about a minute.
    let builder = extension(&kinesis).setting("FLUSH_TIMEOUT_MS", "500").timeout(ms(300_000));
    let lambda = (2..50).fold(builder, |builder, nth| builder.next_answers(nth, 500)).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::error(500, "InternalFailure"));
    assert!(lambda.invoke(lines("unsent", 20)).is_err());
    assert!(!files(&spool_folder(&lambda)).is_empty(), "{:?}", lambda.stderr());
    kinesis.clear_faults();
}

/// The end of another invocation was taken for that of the one that is held: its request was cut, and sent twice.
#[test]
fn a_late_end_of_another_invocation_cuts_no_request() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).setting("FLUSH", "next").timeout(ms(20_000)).start();
    lambda.init().unwrap();
    invoke(&lambda, lines("before", 5).request_id("6d68ca91-0000-4000-8000-000000000001"));
    // What waits at the third INVOKE is sent then.
    invoke(&lambda, lines("between", 5).work(ms(200)));
    kinesis.fault(Fault::delay(ms(1500)).times(1));
    let late = lines("after", 5).work(ms(100)).run(|lambda| {
        let end = r#"{"requestId":"6d68ca91-0000-4000-8000-000000000001","status":"error"}"#;
        lambda.emit("platform.runtimeDone", end);
    });
    let report = invoke(&lambda, late.work(ms(1800)));
    assert!(report.next.unwrap() > report.started + ms(1000), "held for the request: {report:?}");
    end(&lambda);
    kinesis.account().compare(&lambda.sent()).assert_clean();
    let ledger = ledger(&kinesis);
    assert_eq!((&ledger["retried"], &ledger["possibleDuplicates"]), (&0.into(), &0.into()));
}

/// What nobody reads piled up: on Managed Instances for ever, as `main` never waits for an invocation there.
#[test]
fn the_end_of_what_nobody_waits_for_is_passed_to_nobody() {
    let Bare { gauge, ledger, now, .. } = Bare::start();
    let config = Bare::config();
    let replies: Arc<Mailbox<Reply>> = Arc::default();
    let packer =
        Packer::new(&config.dispatch, &config.kinesis.records, Arc::default(), Arc::clone(&ledger));
    let spool = Spool::new(
        PathBuf::from("nowhere"),
        0,
        config.kinesis.stream.clone(),
        "owner",
        packer.limits(),
        None,
        Arc::clone(&ledger),
    );
    let (sender, messages) = mpsc::channel();
    let admission = Admission {
        sender,
        doorbell: Arc::default(),
        replies: Arc::clone(&replies),
        awaited: Arc::default(),
        gauge: Arc::clone(&gauge),
        spares: Arc::new(Spares::new(gauge)),
        spool: Arc::new(spool),
        printer: Arc::default(),
        ledger,
        packer: packer.into(),
        sending: Arc::new(AtomicBool::new(true)),
        held_piece: Mutex::default(),
        signal_room: Default::default(),
        flush_timeout: config.dispatch.flush_timeout,
        preparing: Arc::default(),
    };
    let done = |id: &str| Signal::Done { request_id: id.into(), at: None, failed: true };
    admission.admit(Batch::default(), vec![done("r1"), done("r2")], now);
    assert_eq!(replies.take(now.mono), None);
    admission.awaited.set(Some(("r2".into(), now.mono)));
    admission.admit(Batch::default(), vec![done("r1"), done("r2"), done("r3")], now);
    assert!(matches!(replies.take(now.mono), Some(Reply::HoldEnds(_))));
    assert_eq!(replies.take(now.mono), None);
    assert_eq!(messages.try_iter().count(), 2, "the core hears of all");
}

/// A core with nothing around it, and the time that it is told.
struct Bare {
    core: Core,
    gauge: Arc<Gauge>,
    ledger: Arc<Ledger>,
    now: Now,
    invoked: u64,
}

impl Bare {
    fn config() -> Config {
        let variables = [("KINESIS_TELEMETRY_STREAM", "telemetry"), ("AWS_REGION", "us-east-1")];
        kinesis_telemetry_extension::config::read(&variables.into_iter().collect()).1.unwrap()
    }

    /// `FLUSH=next` and defaults.
    fn start() -> Bare {
        let config = Bare::config();
        let (gauge, ledger) =
            (Gauge::new(config.dispatch.queue_bytes), Arc::new(Ledger::default()));
        let packer = Packer::new(
            &config.dispatch,
            &config.kinesis.records,
            Arc::default(),
            Arc::clone(&ledger),
        );
        let settings = Settings {
            mode: FlushMode::Next,
            continuous: false,
            max_age: config.dispatch.max_age,
            flush_timeout: config.dispatch.flush_timeout,
            spool: false,
            metrics: false,
            seed: 7,
        };
        let spares = Arc::new(Spares::new(Arc::clone(&gauge)));
        let core = Core::new(settings, packer, Arc::clone(&gauge), spares, Arc::clone(&ledger));
        Bare {
            core,
            gauge,
            ledger,
            now: Now { mono: Instant::now(), wall: 1_795_425_345_000 },
            invoked: 0,
        }
    }

    /// Both clocks go on.
    fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.wall += time.as_millis() as u64;
    }

    fn telemetry(&mut self, signals: Vec<Signal>, text: &str) {
        self.telemetry_of(self.now, signals, text);
    }

    /// It came then, and the core hears of it now.
    fn telemetry_of(&mut self, at: Now, signals: Vec<Signal>, text: &str) {
        let body =
            format!(r#"{{"time":"2026-11-23T09:15:45.012Z","type":"function","record":"{text}""#)
                .into_bytes();
        let (text, record) =
            (Span::new(&(0..body.len())), Span::new(&(body.len() - text.len() - 2..body.len())));
        let event = Event { text, record, number: 1, ..Event::default() };
        self.ledger.received.add(1);
        let batch = Batch::new(body, vec![event]);
        let charge = self.gauge.try_charge(batch.cost());
        self.core
            .on(self.now, Message::Telemetry { at, signals, load: Load::Events(batch), charge });
    }

    fn invoke(&mut self) -> Arc<str> {
        self.invoked += 1;
        let request_id: Arc<str> = format!("r{}", self.invoked).into();
        let deadline = Deadline::after(self.now.mono, ms(60_000), Limit::Invocation);
        let invoked = Message::Invoked {
            at: self.now,
            ticket: Some(self.invoked),
            request_id: Arc::clone(&request_id),
            deadline,
        };
        self.core.on(self.now, invoked);
        request_id
    }

    /// Carries out steps until there is nothing to do, and Kinesis takes all: the data that was sent, and when to look next.
    fn work(&mut self) -> (Vec<u8>, Option<Instant>) {
        let mut sent = Vec::new();
        for _ in 0..1000 {
            let outcome = match self.core.poll(self.now, View::default()) {
                Step::Wait(until) => return (sent, until),
                Step::Send { mut parcel, .. } => {
                    parcel.request.seal();
                    sent.extend(parcel.request.data().flatten());
                    let outcomes =
                        (0..parcel.request.len()).map(|_| RecordOutcome::Taken).collect();
                    Outcome::Sent(parcel, Ok(outcomes))
                }
                _ => Outcome::Done,
            };
            self.core.done(self.now, outcome);
        }
        panic!("the core does not come to rest");
    }
}

#[test]
fn a_busy_sandbox_sends_its_periodic_ledger() {
    let mut bare = Bare::start();
    let mut ledgers = 0;
    // An hour in which full requests are always queued.
    for _ in 0..60 {
        let id = bare.invoke();
        for _ in 0..3 {
            bare.telemetry(vec![Signal::Started(Arc::clone(&id))], &"loud ".repeat(120_000));
        }
        let (sent, _) = bare.work();
        ledgers += String::from_utf8(sent)
            .unwrap()
            .matches(r#""type":"kinesis-telemetry.ledger""#)
            .count();
        bare.pass(ms(60_000));
    }
    assert!((11..=12).contains(&ledgers), "{ledgers} ledgers in an hour");
}

#[test]
fn a_clock_that_is_set_back_delays_nothing() {
    for hours_back in [1, 10_000] {
        let mut bare = Bare::start();
        let id = bare.invoke();
        bare.telemetry(vec![Signal::Started(id)], "first");
        bare.work();
        bare.pass(ms(9000));
        bare.now.wall -= hours_back * 3_600_000;
        let (sent, until) = bare.work();
        assert!(sent.is_empty());
        let until = until.expect("a moment at which it is too old");
        assert!(until <= bare.now.mono + ms(1000), "{:?}", until - bare.now.mono);
        bare.pass(until - bare.now.mono);
        assert!(String::from_utf8(bare.work().0).unwrap().contains("first"));
    }
}

/// The dispatcher slept while the clock was set, and while a POST came after that.
#[test]
fn a_clock_that_is_set_back_hides_no_freeze() {
    let mut bare = Bare::start();
    let id = bare.invoke();
    bare.work();
    bare.pass(ms(10));
    bare.now.wall -= 3_600_000;
    let at = bare.now;
    // The monotonic clock stands still in a freeze of ten minutes.
    bare.now.wall += 600_000;
    bare.telemetry_of(at, vec![Signal::Started(id)], "from before the freeze");
    assert!(String::from_utf8(bare.work().0).unwrap().contains("from before the freeze"));
}

// --- memory ----------------------------------------------------------------------------------------------------------------------------

/// The peak in KiB when POSTs of one log each arrive, of so many bytes, while Kinesis hangs.
fn peak(queue: u64, spool: u64, record_bytes: u64, log: usize, posts: usize, escaped: bool) -> u64 {
    let kinesis = Kinesis::builder().count_only().start();
    let builder = extension(&kinesis)
        .setting("QUEUE_BYTES", &queue.to_string())
        .setting("SPOOL_BYTES", &spool.to_string());
    let lambda =
        builder.setting("RECORD_BYTES", &record_bytes.to_string()).timeout(ms(120_000)).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::hang());
    let word = if escaped { r#"say \"no\" "# } else { "large log " };
    let body = format!(
        r#"[{{"time":"2026-11-23T09:15:45.012Z","type":"function","record":"{}"}}]"#,
        word.repeat(log / word.len())
    );
    let flood = Invocation::new().run(move |lambda| {
        for _ in 0..posts {
            assert_eq!(lambda.post_raw(body.as_bytes()).unwrap(), 200);
        }
    });
    lambda.invoke(flood).unwrap();
    kinesis.clear_faults();
    invoke(&lambda, Invocation::new().work(ms(1000)));
    let peak = lambda.stats().peak_kib;
    end(&lambda);
    peak
}

#[test]
fn large_logs_keep_to_the_bound_of_memory() {
    for (queue, spool, log, posts) in [
        (64 << 20, 0, 255 * 1024, 400),
        (64 << 20, 64 << 20, 255 * 1024, 400),
        (64 << 20, 64 << 20, 1_000_000, 100),
    ] {
        for escaped in [false, true] {
            let peak = peak(queue, spool, 1 << 20, log, posts, escaped);
            assert!(
                peak < (queue >> 10) + SLACK_KIB,
                "{peak} KiB with QUEUE_BYTES={queue}, SPOOL_BYTES={spool} and logs of {log} bytes"
            );
        }
    }
}

#[test]
#[ignore = "not held yet: an event of 8 MB and the request that is packed of it exist side by side, 24 to 35 MiB of 20"]
fn the_largest_events_keep_to_the_bound_of_memory() {
    for (posts, escaped) in [(1, false), (1, true), (4, false), (4, true)] {
        let peak = peak(8 << 20, 64 << 20, 10 << 20, 8_000_000, posts, escaped);
        assert!(peak < (8 << 10) + SLACK_KIB, "{peak} KiB after {posts} events");
    }
}

#[test]
fn a_stdout_that_nobody_drains_holds_nothing() {
    let kinesis = Kinesis::start();
    // A pipe that this shell keeps open, and nobody reads.
    let fifo = "rm -f pipe; mkfifo pipe; exec 9<>pipe; exec \"$0\" \"$@\" >&9";
    let builder = extension(&kinesis)
        .runner(&["sh", "-c", fifo])
        .setting("FALLBACK", "log")
        .setting("SPOOL_BYTES", "0");
    let lambda = builder
        .setting("QUEUE_BYTES", "1048576")
        .setting("FLUSH_TIMEOUT_MS", "500")
        .timeout(ms(60_000))
        .start();
    lambda.init().unwrap();
    kinesis.fault(Fault::error(400, "AccessDeniedException"));
    for _ in 0..3 {
        let report = invoke(&lambda, Invocation::new().floods(10, 1000, 300));
        assert!(report.held < ms(5000), "{:?}", report.held);
    }
    let report = lambda.shutdown("spindown");
    assert!(report.is_clean(), "{report:?} {:?}", lambda.stderr());
    let stats = report.stats.peak_kib;
    assert!(stats < 1024 + SLACK_KIB, "{stats} KiB");
    let ledgers = printed_ledgers(&lambda);
    assert!(dropped(ledgers.last().unwrap()) >= 30_000, "{ledgers:?}");
}
