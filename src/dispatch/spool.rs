//! The spool: requests that memory cannot hold, or that a reset would lose, under `/tmp`.
//!
//! One file is one packed request, written under another name and then renamed, so a torn one is never seen under its own; it holds the
//! SHA-256 of its head and of its body. `/tmp` outlives a reset: the process that starts next in this sandbox finds the files and sends them. Used
//! by the listener's thread (what the queue has no room for) and the dispatcher's; no lock is held while a file is written or read.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use super::pack::Packer;
use crate::clock::EpochMs;
use crate::kinesis::batch::{self, Limits, Request};
use crate::kinesis::endpoint::Stream;
use crate::ledger::Ledger;
use crate::log;

const MAGIC: &[u8] = b"kinesis-telemetry-extension spool 1\n";
const SUFFIX: &str = ".spool";
const HASH: usize = 32;
/// Bytes of a number, lowest first.
const NUMBER: usize = 8;

/// One file.
#[derive(Debug)]
pub struct Segment {
    path: PathBuf,
    bytes: u64,
    events: u64,
    since: EpochMs,
    /// This process has written it: there is no need to hash it again before it is sent, and Kinesis checks its signature.
    own: bool,
}

/// What a segment holds.
#[derive(Debug)]
pub struct Spooled {
    /// To be given back with [`Spool::done`] when all of it is settled.
    pub segment: Segment,
    /// Ready to be sent.
    pub request: Request,
    /// Kinesis may have taken it already.
    pub ambiguous: bool,
    /// When its oldest event was taken from Lambda.
    pub since: EpochMs,
}

/// See the module's page.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    bound: u64,
    /// Segments of another stream are not touched.
    stream: Stream,
    /// Of this process; part of each file's name.
    owner: String,
    ledger: Arc<Ledger>,
    inner: Mutex<Inner>,
    /// Events on the way in, or in files that nobody has taken.
    waiting: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    segments: VecDeque<Segment>,
    bytes: u64,
    written: u64,
}

impl Spool {
    /// Touches nothing yet. `bound` is `SPOOL_BYTES`; 0 switches it off.
    #[must_use]
    pub fn new(folder: PathBuf, bound: u64, stream: Stream, owner: &str, ledger: Arc<Ledger>) -> Spool {
        Spool { folder, bound, stream, owner: owner.to_owned(), ledger, inner: Mutex::default(), waiting: AtomicU64::new(0) }
    }

    /// Whether there is one at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.bound > 0
    }

    /// Events in it, or on the way in.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Acquire)
    }

    /// When the oldest of them was taken from Lambda.
    #[must_use]
    pub fn oldest(&self) -> Option<EpochMs> {
        self.lock().segments.front().map(|segment| segment.since)
    }

    /// Events are on their way in: they wait here from now on.
    pub fn expect(&self, events: u64) {
        self.waiting.fetch_add(events, Ordering::AcqRel);
    }

    /// Events that were on their way in did not get there, and are settled elsewhere.
    pub fn give_up(&self, events: u64) {
        self.waiting.fetch_sub(events, Ordering::AcqRel);
    }

    /// Writes a request whose events were announced with [`Spool::expect`]. Where the room is used up the oldest segments go, counted as dropped.
    ///
    /// # Errors
    /// If it cannot be written; its events are still the caller's then.
    pub fn write(&self, request: &mut Request, ambiguous: bool, since: EpochMs, packer: &Packer) -> io::Result<()> {
        let events = request.events();
        let number = {
            let mut inner = self.lock();
            inner.written += 1;
            inner.written
        };
        let path = self.folder.join(format!("{}-{number:08}{SUFFIX}", self.owner));
        let bytes = self.write_file(&path, request, ambiguous, since)?;
        self.ledger.spooled.add(events);
        let mut inner = self.lock();
        inner.bytes += bytes;
        inner.segments.push_back(Segment { path, bytes, events, since, own: true });
        while inner.bytes > self.bound {
            let Some(oldest) = inner.segments.pop_front() else { break };
            inner.bytes -= oldest.bytes;
            if packer.prints_lost()
                && let Some((request, _, _)) = self.read_file(&oldest.path, false, packer.limits(), &Vec::with_capacity)
            {
                packer.lose_request(&request);
            }
            self.forget(&oldest);
            self.ledger.dropped_queue.add(oldest.events);
        }
        Ok(())
    }

    fn write_file(&self, path: &Path, request: &mut Request, ambiguous: bool, since: EpochMs) -> io::Result<u64> {
        let hash = request.finish(&self.stream);
        let index = request.index();
        let stream = self.stream.member().1.as_bytes();
        let mut head = MAGIC.to_vec();
        let mut number = |n: u64| head.extend_from_slice(&n.to_le_bytes());
        number(stream.len() as u64);
        number(u64::from(ambiguous));
        number(since);
        number(index.len() as u64);
        index.iter().flatten().for_each(|n| number(*n));
        head.extend_from_slice(stream);
        // The body's hash is known, as it has to be signed; the head's takes it in.
        head.extend_from_slice(hash.as_bytes());
        let head_hash = Sha256::digest(&head);
        let size = (head.len() + HASH + request.body().len()) as u64;
        if size > self.bound {
            return Err(io::Error::other("larger than KINESIS_TELEMETRY_SPOOL_BYTES"));
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let part = path.with_extension("part");
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
            [head.as_slice(), head_hash.as_slice(), request.body()].iter().try_for_each(|bytes| file.write_all(bytes))?;
            fs::rename(&part, path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&part);
        }
        written.map(|()| size)
    }

    /// Takes over what the process before has left. Says how many events that are. A file that is not whole, or not of this stream, is
    /// skipped and counted.
    pub fn adopt(&self, limits: Limits) -> u64 {
        let Ok(entries) = fs::read_dir(&self.folder) else { return 0 };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        let mut adopted = 0;
        for path in paths {
            // What this process itself has written meanwhile is known already.
            if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&self.owner)) {
                continue;
            }
            let found = self.read_file(&path, false, limits, &Vec::with_capacity);
            let Some((request, _, since)) = found else {
                self.ledger.spool_skipped.add(1);
                log::warn!("spool-skipped", "{} is no whole spool file of this stream; it is left alone", path.display());
                continue;
            };
            let bytes = path.metadata().map_or(0, |about| about.len());
            let events = request.events();
            adopted += events;
            self.expect(events);
            let mut inner = self.lock();
            inner.bytes += bytes;
            inner.segments.push_back(Segment { path, bytes, events, since, own: false });
        }
        self.lock().segments.make_contiguous().sort_by_key(|segment| segment.since);
        adopted
    }

    /// The oldest segment; `buffer` gives one for so many bytes. Its file stays until [`Spool::done`].
    pub fn take(&self, limits: Limits, buffer: impl Fn(usize) -> Vec<u8>) -> Option<Spooled> {
        loop {
            let segment = {
                let mut inner = self.lock();
                let segment = inner.segments.pop_front()?;
                inner.bytes -= segment.bytes;
                segment
            };
            self.give_up(segment.events);
            let found = self.read_file(&segment.path, segment.own, limits, &buffer);
            if let Some((request, ambiguous, since)) = found.filter(|(request, _, _)| request.events() == segment.events) {
                return Some(Spooled { segment, request, ambiguous, since });
            }
            self.ledger.dropped_queue.add(segment.events);
            self.ledger.spool_skipped.add(1);
            log::error!("spool-damaged", "{} was changed by somebody; its {} events are lost", segment.path.display(), segment.events);
        }
    }

    /// All of the segment is settled.
    pub fn done(&self, segment: &Segment) {
        let _ = fs::remove_file(&segment.path);
    }

    /// The sandbox ends for good: nobody will read the files. Gives the number of events in them.
    pub fn discard(&self) -> u64 {
        let segments = std::mem::take(&mut *self.lock()).segments;
        segments.iter().for_each(|segment| self.forget(segment));
        segments.iter().map(|segment| segment.events).sum()
    }

    fn forget(&self, segment: &Segment) {
        self.give_up(segment.events);
        let _ = fs::remove_file(&segment.path);
    }

    /// Reads a file. Unless it is trusted, nothing in it is believed before its hash is right.
    fn read_file(&self, path: &Path, trusted: bool, limits: Limits, buffer: &dyn Fn(usize) -> Vec<u8>) -> Option<(Request, bool, EpochMs)> {
        let regular = fs::symlink_metadata(path).ok().filter(|about| about.is_file() && about.len() <= self.bound)?;
        let mut left = usize::try_from(regular.len()).ok()?;
        let mut file = File::open(path).ok()?;
        let mut head = Vec::new();
        // The next so many bytes, which become part of the head.
        let mut more = |head: &mut Vec<u8>, count: usize| {
            left = left.checked_sub(count)?;
            let start = head.len();
            head.resize(start + count, 0);
            file.read_exact(head.get_mut(start..)?).ok()
        };
        more(&mut head, MAGIC.len() + 4 * NUMBER)?;
        let [stream_length, ambiguous, since, count] = *numbers(head.strip_prefix(MAGIC)?).first_chunk()?;
        let index_bytes = usize::try_from(count).ok()?.checked_mul(4 * NUMBER)?;
        let stream_length = usize::try_from(stream_length).ok()?;
        let index_at = head.len();
        more(&mut head, index_bytes)?;
        let stream_at = head.len();
        more(&mut head, stream_length)?;
        let hash_at = head.len();
        more(&mut head, 2 * HASH)?;
        let end = head.len();
        more(&mut head, HASH)?;
        let mut body = buffer(left);
        body.clear();
        file.take(left as u64).read_to_end(&mut body).ok()?;
        let index: Vec<[u64; 4]> = numbers(head.get(index_at..stream_at)?).as_chunks().0.to_vec();
        let hash = std::str::from_utf8(head.get(hash_at..end)?).ok()?;
        let whole = || {
            head.get(..end).is_some_and(|text| Sha256::digest(text).as_slice() == head.get(end..).unwrap_or_default()) && batch::hash(&body) == hash
        };
        if body.len() != left || head.get(stream_at..hash_at)? != self.stream.member().1.as_bytes() || !(trusted || whole()) {
            return None;
        }
        Some((Request::restore(limits, body, &index, hash)?, ambiguous != 0, since))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn numbers(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks::<NUMBER>().0.iter().map(|number| u64::from_le_bytes(*number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Compression, RecordFormat};

    const LIMITS: Limits = Limits { record_bytes: 1000, request_bytes: 10_000, record: RecordFormat::Lines, compression: Compression::None };

    fn request(lines: u64) -> Request {
        let mut request = Request::new(LIMITS);
        for n in 0..lines {
            request.add(Some("key"), 1, |out| out.extend_from_slice(format!("line {n}\n").as_bytes()));
        }
        request
    }

    fn spool(folder: &Path, bound: u64, owner: &str) -> (Spool, Arc<Ledger>) {
        let ledger = Arc::new(Ledger::default());
        (Spool::new(folder.join("spool"), bound, Stream::Name("stream".to_owned()), owner, ledger.clone()), ledger)
    }

    fn packer() -> Packer {
        let variable = |name: &str| match name {
            "AWS_REGION" => Some("eu-west-1".to_owned()),
            "KINESIS_TELEMETRY_STREAM" => Some("s".to_owned()),
            _ => None,
        };
        Packer::new(&crate::config::read(variable).1.unwrap(), Arc::default(), Arc::default())
    }

    fn put(spool: &Spool, lines: u64, since: EpochMs) {
        let mut request = request(lines);
        spool.expect(lines);
        spool.write(&mut request, since % 2 == 1, since, &packer()).unwrap();
    }

    #[test]
    fn what_goes_in_comes_out_oldest_first_also_in_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let (first, _) = spool(folder.path(), 100_000, "a");
        put(&first, 3, 1);
        put(&first, 5, 2);
        assert_eq!((first.waiting(), first.oldest()), (8, Some(1)));
        drop(first);

        let (next, _) = spool(folder.path(), 100_000, "b");
        assert_eq!(next.adopt(LIMITS), 8);
        let spooled = next.take(LIMITS, Vec::with_capacity).unwrap();
        assert_eq!((spooled.request.events(), spooled.ambiguous, spooled.since), (3, true, 1));
        next.done(&spooled.segment);
        assert_eq!(next.waiting(), 5);
        let data: Vec<u8> = next.take(LIMITS, Vec::with_capacity).unwrap().request.data().flatten().collect();
        assert_eq!(data, b"line 0\nline 1\nline 2\nline 3\nline 4\n");
        // Not done: it is still there for the next one.
        assert_eq!(spool(folder.path(), 100_000, "c").0.adopt(LIMITS), 5);
    }

    #[test]
    fn the_oldest_go_where_there_is_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, ledger) = spool(folder.path(), 1000, "a");
        for since in 0..10 {
            put(&spool, 10, since);
        }
        assert!(spool.lock().bytes <= 1000);
        assert_eq!(ledger.dropped_queue.get() + spool.waiting(), 100);
        assert!(spool.oldest().unwrap() > 5);
        let files = fs::read_dir(folder.path().join("spool")).unwrap().count();
        assert_eq!(files, spool.lock().segments.len());
    }

    #[test]
    fn torn_foreign_and_forged_files_are_skipped_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (first, _) = spool(folder.path(), 100_000, "a");
        put(&first, 3, 1);
        let path = folder.path().join("spool/a-00000001.spool");
        let whole = fs::read(&path).unwrap();
        for (name, bytes) in [
            ("torn.spool", whole[..whole.len() - 1].to_vec()),
            ("flipped.spool", whole.iter().enumerate().map(|(n, b)| if n == 60 { b ^ 1 } else { *b }).collect()),
            ("empty.spool", Vec::new()),
            ("notes.txt", b"somebody else's".to_vec()),
        ] {
            fs::write(folder.path().join("spool").join(name), bytes).unwrap();
        }
        fs::create_dir(folder.path().join("spool/folder.spool")).unwrap();
        std::os::unix::fs::symlink(&path, folder.path().join("spool/link.spool")).unwrap();
        let (next, ledger) = spool(folder.path(), 100_000, "b");
        assert_eq!(next.adopt(LIMITS), 3);
        assert_eq!(ledger.spool_skipped.get(), 6);
        let other = Spool::new(folder.path().join("spool"), 100_000, Stream::Name("another".to_owned()), "c", ledger.clone());
        assert_eq!(other.adopt(LIMITS), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_not_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("spool"), "a file in the way").unwrap();
        let (spool, _) = spool(folder.path(), 100_000, "a");
        spool.expect(3);
        assert!(spool.write(&mut request(3), false, 0, &packer()).is_err());
        spool.give_up(3);
        assert_eq!((spool.waiting(), spool.adopt(LIMITS)), (0, 0));
    }
}
