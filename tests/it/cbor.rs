//! `WIRE=cbor`: the same records in fewer bytes, and JSON where the endpoint takes no CBOR.

use std::fs;
use std::path::PathBuf;

use sandbox::{Cbor, Fault, Invocation, Kinesis, Lambda, Put, Which, ms, wait_until};

use crate::{extension, ledger};

const JSON: &str = "application/x-amz-json-1.1";
const CBOR: &str = "application/x-amz-cbor-1.1";

fn types(puts: &[Put]) -> Vec<&str> {
    puts.iter().map(|put| put.header("content-type").unwrap()).collect()
}

fn noise(n: usize) -> String {
    format!("line {n} {:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[test]
fn every_form_of_records_arrives_in_fewer_bytes() {
    for (record, compression) in
        [("lines", "none"), ("event", "none"), ("kpl", "none"), ("lines", "gzip"), ("kpl", "gzip")]
    {
        let [json, cbor] = ["json", "cbor"].map(|wire| {
            let kinesis = Kinesis::start();
            let lambda = extension(&kinesis)
                .setting("WIRE", wire)
                .setting("RECORD", record)
                .setting("COMPRESSION", compression)
                .start();
            lambda.init().unwrap();
            for _ in 0..3 {
                lambda.invoke(Invocation::new().lines((0..200).map(noise))).unwrap();
            }
            assert!(lambda.shutdown("spindown").is_clean());
            kinesis.account().compare(&lambda.sent()).assert_clean();
            assert_eq!(lambda.stderr(), Vec::<String>::new());
            assert_eq!(ledger(&kinesis)["requestErrors"], serde_json::json!({}));
            let puts = kinesis.puts();
            let expected = if wire == "cbor" { CBOR } else { JSON };
            assert!(types(&puts).iter().all(|kind| *kind == expected), "{:?}", types(&puts));
            let [sent, decoded] = [|put: &Put| put.body_bytes, |put: &Put| put.decoded_bytes]
                .map(|bytes| puts.iter().map(bytes).sum::<usize>());
            sent as f64 / decoded as f64
        });
        assert!(json > 1.3 && cbor < json - 0.3, "{record} {compression}: {json} and {cbor}");
    }
}

/// Each of them is asked once, whatever it says, and nothing is lost. What it has stored all the same may come twice, and is counted so.
#[test]
fn an_endpoint_that_takes_no_cbor_gets_json_from_then_on() {
    for (refusal, status, code) in [
        (Cbor::Unsupported, Some(415), Some("Http415")),
        (Cbor::UnknownOperation, Some(404), Some("Http404")),
        (Cbor::Serialization, Some(400), Some("SerializationException")),
        (Cbor::Fails, Some(500), Some("InternalFailure")),
        (Cbor::AnswersNothing, Some(200), Some("UnreadableResponse")),
        (Cbor::AnswersInJson, Some(200), None),
    ] {
        let kinesis = Kinesis::builder().cbor(refusal).start();
        let lambda = extension(&kinesis).setting("WIRE", "cbor").start();
        lambda.init().unwrap();
        for n in 0..4 {
            let report = lambda.invoke(Invocation::new().text(&noise(n))).unwrap();
            let held = report.next.unwrap().saturating_duration_since(report.done);
            assert!(held < ms(1000), "{refusal:?}: no pause before it is sent again");
            assert_eq!(kinesis.account().containing(&noise(n)).len().min(1), 1, "{refusal:?}");
        }
        assert!(lambda.shutdown("spindown").is_clean());
        let puts = kinesis.puts();
        assert_eq!(puts[0].status, status, "{refusal:?}");
        assert_eq!(types(&puts)[0], CBOR);
        assert!(types(&puts)[1..].iter().all(|kind| *kind == JSON), "{:?}", types(&puts));
        let (ledger, lines) = (ledger(&kinesis), lambda.stderr());
        let number = |key: &str| ledger[key].as_u64().unwrap();
        let errors =
            code.map_or_else(|| serde_json::json!({}), |code| serde_json::json!({code: 1}));
        assert_eq!(ledger["requestErrors"], errors, "{refusal:?}");
        assert_eq!(number("retried") > 0, code.is_some(), "{refusal:?}");
        let repeats = refusal == Cbor::AnswersNothing;
        assert_eq!(number("possibleDuplicates") > 0, repeats, "{refusal:?}");
        let comparison = kinesis.account().compare(&lambda.sent());
        assert!(comparison.lost.is_empty(), "{refusal:?}");
        assert_eq!(!comparison.repeated.is_empty(), repeats, "{refusal:?}");
        assert_eq!(lines.len(), 1, "{refusal:?}: {lines:?}");
        assert!(lines[0].contains("does not take CBOR (HTTP "), "{lines:?}");
    }
}

/// Errors and refused records are read in CBOR too, and none of them is a refusal of CBOR.
#[test]
fn errors_in_cbor_are_what_they_are_in_json() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).setting("WIRE", "cbor").setting("RECORD", "event").start();
    lambda.init().unwrap();
    for (n, fault) in [
        Fault::throttle(Which::Indices(vec![1])),
        Fault::error(400, "ProvisionedThroughputExceededException"),
        Fault::error(500, "InternalFailure"),
        Fault::null_error_codes(),
        Fault::lying_count(7),
        Fault::empty(503),
        Fault::html(502),
    ]
    .into_iter()
    .enumerate()
    {
        kinesis.fault(fault.times(1));
        lambda.invoke(Invocation::new().lines([noise(n), noise(n + 100)])).unwrap();
    }
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    assert!(types(&kinesis.puts()).iter().all(|kind| *kind == CBOR));
    let errors = ledger(&kinesis)["requestErrors"].clone();
    let expected = serde_json::json!({
        "ProvisionedThroughputExceededException": 2, "InternalFailure": 1, "Http503": 1, "Http502": 1
    });
    assert_eq!(errors, expected);
}

/// The listener packs most of a flood, and hashes it: before it is known what becomes of it.
#[test]
fn a_flood_is_sent_again_in_parts_and_in_json() {
    let (speaks, refuses) = (Cbor::Speaks, Cbor::Serialization);
    for (n, (cbor, fault)) in [
        (speaks, Fault::throttle(Which::Fraction(0.4)).times(3)),
        (speaks, Fault::error(400, "InvalidArgumentException").times(3)),
        (speaks, Fault::reset_before_answer().times(2)),
        (refuses, Fault::throttle(Which::Fraction(0.4)).times(3)),
    ]
    .into_iter()
    .enumerate()
    {
        let kinesis = Kinesis::builder().cbor(cbor).start();
        let lambda = extension(&kinesis)
            .setting("WIRE", "cbor")
            .setting("RECORD_BYTES", "65536")
            .setting("QUEUE_BYTES", "33554432")
            .timeout(ms(60_000))
            .start();
        lambda.init().unwrap();
        // Most of it comes while the first request is on its way.
        kinesis.fault(Fault::delay(ms(500)).times(1));
        kinesis.fault(fault.after(1));
        lambda.invoke(Invocation::new().floods(12, 1000, 300)).unwrap();
        wait_until(ms(60_000), "all to be delivered", || {
            lambda.invoke(Invocation::new().work(ms(100))).unwrap();
            kinesis.account().flooded() == 12_000
        });
        assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
        let ledger = ledger(&kinesis);
        assert_eq!(ledger["received"], ledger["delivered"], "{n}: {ledger}");
        assert!(ledger["retried"].as_u64().unwrap() > 0, "{n}: {ledger}");
        let codes = ledger["requestErrors"].as_object().unwrap();
        assert!(!codes.keys().any(|code| code.contains("Signature")), "{n}: {ledger}");
    }
}

fn spool_files(lambda: &Lambda) -> Vec<PathBuf> {
    let folder = lambda.tmp().join("kinesis-telemetry-extension");
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Data is kept as it is, whatever form it is sent in.
fn is_plain(file: &PathBuf) -> bool {
    let bytes = fs::read(file).unwrap();
    (0..50).any(|n| memchr::memmem::find(&bytes, noise(n).as_bytes()).is_some())
}

#[test]
fn a_spool_written_in_cbor_is_sent_where_nobody_takes_it() {
    let kinesis = Kinesis::builder().cbor(Cbor::Unsupported).start();
    let lambda = extension(&kinesis).setting("WIRE", "cbor").timeout(ms(1000)).start();
    lambda.init().unwrap();
    kinesis.refuse_connections();
    let invocation = Invocation::new().lines((0..50).map(noise)).times_out();
    let _ = lambda.invoke(invocation);
    let files = spool_files(&lambda);
    assert!(!files.is_empty() && files.iter().any(is_plain), "{files:?}");
    kinesis.accept_connections();
    lambda.invoke(Invocation::new().text("after the reset")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean());
    kinesis.account().compare(&lambda.sent()).assert_clean();
    assert_eq!(types(&kinesis.puts()).iter().filter(|kind| **kind == CBOR).count(), 1);
    assert!(spool_files(&lambda).is_empty());
}

#[test]
fn a_spool_written_in_json_is_sent_by_a_process_that_speaks_cbor() {
    let kinesis = Kinesis::start();
    let start = |wire: &str| extension(&kinesis).setting("WIRE", wire).timeout(ms(1000)).start();
    let (first, second) = (start("json"), start("cbor"));
    first.init().unwrap();
    kinesis.refuse_connections();
    let _ = first.invoke(Invocation::new().lines((0..50).map(noise)).times_out());
    let folder = second.tmp().join("kinesis-telemetry-extension");
    fs::create_dir_all(&folder).unwrap();
    let files = spool_files(&first);
    assert!(!files.is_empty() && files.iter().any(is_plain), "{files:?}");
    for file in &files {
        fs::copy(file, folder.join(file.file_name().unwrap())).unwrap();
        fs::remove_file(file).unwrap();
    }
    kinesis.accept_connections();
    second.init().unwrap();
    second.invoke(Invocation::new().text("of the second")).unwrap();
    assert!(second.shutdown("spindown").is_clean());
    let account = kinesis.account();
    (0..50).for_each(|n| assert_eq!(account.containing(&noise(n)).len(), 1, "{n}"));
    let puts = kinesis.puts();
    assert!(types(&puts).iter().all(|kind| *kind == CBOR), "{:?}", types(&puts));
    assert!(ledger(&kinesis)["adopted"].as_u64().unwrap() >= 50);
}
