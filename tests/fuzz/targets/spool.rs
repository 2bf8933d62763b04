//! A file in the spool's folder that an earlier process may have left, or somebody else.
//!
//! The first byte says whether its hashes are made right; otherwise no input would ever get past
//! them. With `FUZZ_BODIES` and `FUZZ_SEGMENTS`, two folders, the program writes the spool's
//! segments of those bodies and ends: they are the seeds.
#![no_main]

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fuzz_targets::{ALL, SEPARATOR, lines, request, settings};
use kinesis_telemetry_extension::dispatch::spool::Spool;
use kinesis_telemetry_extension::dispatch::spool_file::{MAGIC, beginning};
use kinesis_telemetry_extension::dispatch::step::Oldest;
use kinesis_telemetry_extension::kinesis::endpoint::Stream;
use kinesis_telemetry_extension::kinesis::record::Limits;
use kinesis_telemetry_extension::lambda::intake::Intake;
use kinesis_telemetry_extension::ledger::Ledger;
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Bytes of the length of a batch, and of its hash.
const LENGTH: usize = 4;
const HASH: usize = 32;
const BOUND: u64 = 1 << 24;

fuzz_target!(init: write_seeds(), |data: &[u8]| {
    let Some((options, file)) = data.split_first() else { return };
    let mut file = file.to_vec();
    if options & 1 == 0 {
        make_right(&mut file);
    }
    let folder = folder();
    std::fs::write(folder.join("1-00000001.spool"), &file).expect("a file");
    let ledger = Arc::new(Ledger::default());
    let spool = spool(folder, &ledger);
    spool.recover();
    while let Oldest::Ready(id) = spool.view().apart {
        if let Ok(segment) = spool.read(id, Vec::with_capacity) {
            let events = segment.request.events();
            assert!(events <= file.len() as u64, "{events} events in {} bytes", file.len());
            // For FALLBACK=log: inflated, so its size is held by the limit of memory alone.
            segment.request.data().for_each(drop);
            if let Ok((left, right)) = segment.request.halve() {
                assert_eq!(left.events() + right.events(), events);
            }
        }
        spool.remove(id);
    }
    spool.discard(Instant::now() + Duration::from_secs(60));
    let left = std::fs::read_dir(folder).expect("a folder").flatten();
    left.for_each(|entry| drop(std::fs::remove_file(entry.path())));
});

fn limits() -> Limits {
    static LIMITS: OnceLock<Limits> = OnceLock::new();
    *LIMITS.get_or_init(|| fuzz_targets::limits(&settings(&[])))
}

fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| TempDir::new().expect("a folder")).path()
}

fn spool(folder: &Path, ledger: &Arc<Ledger>) -> Spool {
    Spool::new(folder.to_owned(), BOUND, stream(), "owner", limits(), None, Arc::clone(ledger))
}

fn stream() -> Stream {
    Stream::Name("stream".to_owned())
}

/// Puts the right hashes behind all batches that are as long as they say.
fn make_right(file: &mut [u8]) {
    let (mut at, mut hash) = (MAGIC.len(), beginning(&stream()));
    while let Some(length) = file.get(at..).and_then(|rest| rest.first_chunk::<LENGTH>()) {
        let end = at + LENGTH + u32::from_le_bytes(*length) as usize;
        let Some(batch) = file.get(at..end) else { return };
        hash = Sha256::new_with_prefix(hash).chain_update(batch).finalize().into();
        let Some(place) = file.get_mut(end..end + HASH) else { return };
        place.copy_from_slice(&hash);
        at = end + HASH;
    }
}

/// See the module's page.
fn write_seeds() {
    let variable = |name: &str| std::env::var_os(name).map(std::path::PathBuf::from);
    let (Some(from), Some(to)) = (variable("FUZZ_BODIES"), variable("FUZZ_SEGMENTS")) else {
        return;
    };
    for (number, body) in std::fs::read_dir(from).expect("a folder").flatten().enumerate() {
        let bytes = std::fs::read(body.path()).expect("a seed");
        let mut intake = Intake::new(ALL, false);
        let mut all = Vec::new();
        for body in bytes.get(1..).unwrap_or_default().split(|byte| *byte == SEPARATOR) {
            all.extend(lines(&intake.take(body.to_vec(), 0).batch));
        }
        if all.is_empty() {
            continue;
        }
        let place = TempDir::new().expect("a folder");
        let mut request = request(limits(), all.iter().map(Vec::as_slice));
        request.seal();
        let spool = spool(place.path(), &Arc::default());
        // Of one batch, and of two.
        for _ in 0..1 + number % 2 {
            spool.append(&request, None, || None).expect("a segment");
        }
        let written = std::fs::read_dir(place.path()).expect("a folder").flatten().next();
        let segment = std::fs::read(written.expect("a file").path()).expect("a segment");
        let mut again = segment.clone();
        make_right(&mut again);
        assert!(again == segment, "the form of a segment has changed: make_right() has to follow");
        std::fs::write(to.join(format!("segment-{number}")), [b"\0", &*segment].concat())
            .expect("a seed");
    }
    std::process::exit(0);
}
