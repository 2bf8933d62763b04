//! Neighbours in the sandbox and answers from the wire that mean harm: nothing may end the
//! extension, bloat it, hold the function, or put foreign text into its words.
//!
//! | threat | held by |
//! |---|---|
//! | files planted in the spool's folder | `files_planted_in_the_spool_cost_nothing`, `a_folder_that_is_a_link_is_not_used`, `a_segment_that_was_exchanged_is_not_sent` |

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use sandbox::{Fault, Invocation, Kinesis, Lambda, ms, wait_until};
use sha2::{Digest, Sha256};

use crate::{extension, ledger};

/// What guarantee 3 allows beside the queue, and the queue's default.
const MEMORY_KIB: u64 = 12 * 1024 + 8 * 1024;

#[track_caller]
fn assert_memory(lambda: &Lambda) {
    let peak = lambda.stats().peak_kib;
    assert!(peak < MEMORY_KIB, "{peak} KiB at the peak");
}

fn spool_folder(lambda: &Lambda) -> PathBuf {
    lambda.tmp().join("kinesis-telemetry-extension")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path()).collect();
    files.sort();
    files
}

/// A segment taken apart, to be forged: every hash is made anew, so that all of it seems right.
#[derive(Clone)]
struct Segment {
    index: Vec<u64>,
    stream: Vec<u8>,
    body: Vec<u8>,
}

const MAGIC: &[u8] = b"kinesis-telemetry-extension spool 2\n";

impl Segment {
    fn read(path: &Path) -> Segment {
        let bytes = std::fs::read(path).unwrap();
        let rest = bytes.strip_prefix(MAGIC).unwrap();
        let number = |at: usize| u64::from_le_bytes(rest[8 * at..8 * at + 8].try_into().unwrap());
        let (stream, records) = (number(0) as usize, number(2) as usize);
        let index = (3..3 + 4 * records).map(number).collect();
        let stream_at = 8 * (3 + 4 * records);
        Segment {
            index,
            stream: rest[stream_at..stream_at + stream].to_vec(),
            body: rest[stream_at + stream + 64 + 32..].to_vec(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let numbers = [self.stream.len() as u64, 0, self.index.len() as u64 / 4];
        for number in numbers.iter().chain(&self.index) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.stream);
        let hash = Sha256::digest(&self.body);
        bytes.extend(hash.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()));
        let hash = Sha256::digest(&bytes);
        bytes.extend_from_slice(&hash);
        bytes.extend_from_slice(&self.body);
        bytes
    }

    fn forged(&self, change: impl FnOnce(&mut Segment)) -> Vec<u8> {
        let mut forged = self.clone();
        change(&mut forged);
        forged.bytes()
    }
}

/// In place, with as many bytes.
fn replace(bytes: &mut [u8], from: &str, to: &str) {
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
}

#[test]
fn files_planted_in_the_spool_cost_nothing() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).timeout(ms(20_000)).start();
    lambda.init().unwrap();
    kinesis.fault(Fault::error(500, "InternalFailure"));
    let reset = lambda.invoke(Invocation::new().text("spooled").crashes()).unwrap().reset.unwrap();
    assert!(reset.is_clean(), "{:?}", lambda.stderr());
    let folder = spool_folder(&lambda);
    let own = Segment::read(&files(&folder)[0]);
    assert_eq!(std::fs::read(&files(&folder)[0]).unwrap(), own.bytes(), "as the format is");

    let name = kinesis.stream_name().to_owned();
    let other = "x".repeat(name.len());
    let mut large = own.bytes();
    large.resize(64 << 20, b' ');
    let planted = [
        own.forged(|segment| segment.index[2] = 1 << 63),
        own.forged(|segment| segment.index[2] = u64::MAX),
        own.forged(|segment| segment.index[2] = 100_000),
        own.forged(|segment| segment.index[3] = 1 << 62),
        own.forged(|segment| segment.index[1] = u64::MAX),
        own.forged(|segment| segment.index[0] += 1),
        own.forged(|segment| segment.index.clear()),
        own.forged(|segment| segment.index = vec![0; 4 * 501]),
        own.forged(|segment| replace(&mut segment.body, &name, &other)),
        own.forged(|segment| replace(&mut segment.stream, &name, &other)),
        own.forged(|segment| segment.body.extend_from_slice(b" ")),
        own.forged(|segment| segment.body.truncate(100)),
        large,
        Vec::new(),
    ];
    for (n, bytes) in planted.iter().enumerate() {
        std::fs::write(folder.join(format!("planted-{n:02}.spool")), bytes).unwrap();
    }
    let outside = lambda.tmp().join("outside");
    std::fs::write(&outside, own.bytes()).unwrap();
    symlink(&outside, folder.join("link.spool")).unwrap();
    symlink("/dev/zero", folder.join("zero.spool")).unwrap();
    symlink(&outside, folder.join("link.part")).unwrap();
    let pipe = folder.join("pipe.spool");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::fs::create_dir(folder.join("folder.spool")).unwrap();
    std::fs::write(folder.join("a name\nWARN forged.spool"), b"x").unwrap();

    kinesis.clear_faults();
    let report = lambda.invoke(Invocation::new().text("after").work(ms(500))).unwrap();
    assert!(!report.deadline_exceeded && report.held < ms(1500), "{:?}", report.held);
    wait_until(ms(30_000), "the folder to be empty", || {
        lambda.invoke(Invocation::new().work(ms(100))).unwrap();
        files(&folder).is_empty()
    });
    assert_memory(&lambda);
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    kinesis.account().compare(&lambda.sent()).assert_lossless();
    assert_eq!(std::fs::read(outside).unwrap(), own.bytes(), "not followed");
    let ledger = ledger(&kinesis);
    assert_eq!(ledger["spoolSkipped"], planted.len() + 6, "{ledger}");
    assert!(ledger["received"].as_u64().unwrap() < 1000, "{ledger}");
    let lines = lambda.stderr();
    assert!(lines.iter().all(|line| !line.contains("forged")), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.contains("it is removed")).count(), 1, "{lines:?}");
}

#[test]
fn a_folder_that_is_a_link_is_not_used() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis).timeout(ms(1000)).start();
    let elsewhere = lambda.tmp().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("somebody's.spool"), b"not ours").unwrap();
    symlink(&elsewhere, spool_folder(&lambda)).unwrap();
    lambda.init().unwrap();
    kinesis.fault(Fault::error(500, "InternalFailure"));
    lambda.invoke(Invocation::new().text("unsent").crashes()).unwrap();
    assert_eq!(files(&elsewhere), [elsewhere.join("somebody's.spool")]);
    kinesis.clear_faults();
    lambda.invoke(Invocation::new().text("after")).unwrap();
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    assert_eq!(files(&elsewhere), [elsewhere.join("somebody's.spool")]);
    assert_eq!(kinesis.account().containing("after").len(), 1);
}

/// A segment of this very process, exchanged for another whose every hash is right.
#[test]
fn a_segment_that_was_exchanged_is_not_sent() {
    let kinesis = Kinesis::start();
    let lambda = extension(&kinesis)
        .setting("QUEUE_BYTES", "1048576")
        .setting("FLUSH_TIMEOUT_MS", "500")
        .timeout(ms(60_000))
        .start();
    lambda.init().unwrap();
    kinesis.fault(Fault::hang());
    lambda
        .invoke(
            Invocation::new()
                .run(|lambda| assert_eq!(lambda.flood(20, 1000, 300).unwrap().refused, 0)),
        )
        .unwrap();
    let written = files(&spool_folder(&lambda));
    let last = Segment::read(written.last().unwrap());
    std::fs::write(&written[1], last.bytes()).unwrap();
    // As if it was about to be sent.
    std::fs::write(written[2].with_extension("doubt.spool"), last.bytes()).unwrap();
    kinesis.clear_faults();
    wait_until(ms(60_000), "all but one segment to be delivered", || {
        lambda.invoke(Invocation::new()).unwrap();
        files(&spool_folder(&lambda)).len() <= 1
    });
    assert!(lambda.shutdown("spindown").is_clean(), "{:?}", lambda.stderr());
    let ledger = ledger(&kinesis);
    let lost = ledger["dropped"]["rejected"].as_u64().unwrap();
    assert!(lost > 0, "{ledger}");
    assert_eq!(kinesis.account().flooded() as u64 + lost, 20_000, "{ledger}");
}
