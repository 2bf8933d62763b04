//! The spool: what memory cannot hold, or a reset would lose, under `/tmp`.
//!
//! One file is one segment ([`super::spool_file`]), and is read as one request. What memory has no
//! room for is appended to the newest file; what is kept apart has files of its own. Before a
//! segment is sent its file gets a name that says so, and the old one again if nothing of it was
//! stored: a process that finds it then counts its events as possible duplicates. `/tmp` outlives a
//! reset: the process that starts next in this sandbox finds the files and sends them, but for a
//! batch that was never written to its end.
//!
//! Other processes of the sandbox have the same rights and can put anything there. No link is
//! followed, nothing is opened that can block, no size or count of a file is believed before it was
//! checked, and a file of this process counts only with the hash that it was written with. A file
//! that is refused is removed.
//!
//! Used by the listener's threads (what memory has no room for) and the dispatcher's; the index's
//! lock is never held while a file is written or read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::backlog::SegmentId;
use super::printer::Printer;
use super::spool_file::{self, Content, MAGIC, batch, new_file};
use super::spool_index::{Entry, Hash, Index, MAX_SEGMENTS, Purpose, Slot};
use super::step::{Unread, View};
use crate::kinesis::endpoint::Stream;
use crate::kinesis::record::{Limits, MAX_RECORDS};
use crate::kinesis::request::{INTRODUCED_BYTES, Request};
use crate::ledger::Ledger;
use crate::log;

const SUFFIX: &str = "spool";
const DOUBT_SUFFIX: &str = "doubt.spool";
/// Small pieces of a batch are written together.
const WRITE_BYTES: usize = 16 * 1024;

/// See the module's page.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    bound: u64,
    /// Segments of another stream are not touched.
    stream: Stream,
    /// Of this process; part of each file's name.
    owner: String,
    limits: Limits,
    ledger: Arc<Ledger>,
    /// `FALLBACK=log`
    prints: Option<Arc<Printer>>,
    index: Mutex<Index>,
    /// The file that is appended to.
    open: Mutex<Option<(SegmentId, File)>>,
}

/// What a segment held.
#[derive(Debug)]
pub struct Segment {
    /// As it was written.
    pub request: Request,
    /// Kinesis may have stored it already.
    pub ambiguous: bool,
}

impl Spool {
    /// Touches nothing yet. `bound` is `SPOOL_BYTES`; 0 switches it off.
    #[must_use]
    pub fn new(
        folder: PathBuf,
        bound: u64,
        stream: Stream,
        owner: &str,
        limits: Limits,
        prints: Option<Arc<Printer>>,
        ledger: Arc<Ledger>,
    ) -> Spool {
        Spool {
            folder,
            bound,
            stream,
            owner: owner.to_owned(),
            limits,
            ledger,
            prints,
            index: Mutex::new(Index::new(bound, limits.request_bytes)),
            open: Mutex::default(),
        }
    }

    /// Whether there is one at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.bound > 0
    }

    /// What can be read now.
    #[must_use]
    pub fn view(&self) -> View {
        self.lock().view()
    }

    /// Writes a request behind what waits in order. `introduces`: the sandbox events that each
    /// segment begins with for now, and `introduction` makes them. Says whether the dispatcher may
    /// wait for it. Where the room is used up the oldest segments go, counted as dropped. One batch
    /// after the other: the caller holds the intake's lock.
    ///
    /// # Errors
    /// If it cannot be written; its events are still the caller's then.
    pub fn append(
        &self,
        request: &Request,
        introduces: Option<u16>,
        introduction: impl FnOnce() -> Option<Request>,
    ) -> io::Result<bool> {
        self.leave_deleted();
        let appended = self.lock().append(&batch(&[request]), introduces);
        if let Some(slot) = appended {
            return self.write_batches(&slot, &[request]);
        }
        let introduction = introduces.and_then(|_| introduction());
        let requests: Vec<&Request> = introduction.iter().chain([request]).collect();
        // All of a segment is one request.
        let all = batch(&requests);
        let fits = all.payload <= INTRODUCED_BYTES && all.records <= MAX_RECORDS;
        let mut wakes = false;
        for part in requests.chunks(if fits { requests.len() } else { 1 }) {
            let slot = self.lock().begin(&new_file(part), Purpose::Overflow { introduces });
            wakes |= self.write_batches(&slot.ok_or_else(no_room)?, part)?;
        }
        Ok(wakes)
    }

    /// Writes a request apart from what waits in order. If it was a part of another segment, that
    /// may have been sent from now on: the part can be delivered from its new file while others
    /// keep the old one. The rest as [`Spool::append`].
    ///
    /// # Errors
    /// See there.
    pub fn write(
        &self,
        request: &mut Request,
        purpose: Purpose,
        part_of: Option<SegmentId>,
    ) -> io::Result<SegmentId> {
        request.seal();
        let slot = self.lock().begin(&new_file(&[request]), purpose).ok_or_else(no_room)?;
        let marked = part_of.filter(|segment| self.mark(*segment));
        let written = self.write_batches(&slot, &[request]);
        if let Some(segment) = marked.filter(|_| written.is_err()) {
            self.unmark(segment);
        }
        written.map(|_| slot.id)
    }

    fn write_batches(&self, slot: &Slot, requests: &[&Request]) -> io::Result<bool> {
        for entry in &slot.evicted {
            self.drop_entry(entry, &self.ledger.dropped_queue);
        }
        let events = events(requests);
        let written = self.write_to_file(slot, requests);
        let mut index = self.lock();
        match written {
            Ok(hash) => {
                self.ledger.spooled.add(events);
                Ok(index.commit(slot.id, hash))
            }
            Err(error) if slot.at > 0 => {
                index.undo(slot.id, events);
                Err(error)
            }
            Err(error) => {
                let entry = index.remove(slot.id);
                drop(index);
                entry.iter().for_each(|entry| self.delete(entry));
                Err(error)
            }
        }
    }

    fn write_to_file(&self, slot: &Slot, requests: &[&Request]) -> io::Result<Hash> {
        if !matches!(slot.purpose, Purpose::Overflow { .. }) {
            return self.write_to(&self.create(slot)?, slot, requests);
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match open.take().filter(|(id, _)| *id == slot.id) {
            Some((_, file)) => file,
            None => self.create(slot)?,
        };
        let hash = self.write_to(&file, slot, requests)?;
        *open = Some((slot.id, file));
        Ok(hash)
    }

    fn write_to(&self, file: &File, slot: &Slot, requests: &[&Request]) -> io::Result<Hash> {
        let mut out = BufWriter::with_capacity(WRITE_BYTES, file);
        let mut hash = slot.before.unwrap_or_else(|| spool_file::beginning(&self.stream));
        let mut written = if slot.at == 0 { out.write_all(MAGIC) } else { Ok(()) };
        for request in requests {
            written = written
                .and_then(|()| spool_file::append(&mut out, request, &hash))
                .map(|next| hash = next);
        }
        if let Err(error) = written.and_then(|()| out.flush()) {
            // What was written of it is not written once more when this goes out of scope.
            drop(out.into_parts());
            // A process that finds this file is to find whole batches alone.
            let _ = file.set_len(slot.at);
            return Err(error);
        }
        Ok(hash)
    }

    /// Functions clear `/tmp`: what would be appended to a file that is gone would be lost with it.
    fn leave_deleted(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let is_gone = |file: &File| file.metadata().is_ok_and(|about| about.nlink() == 0);
        if open.take_if(|(_, file)| is_gone(file)).is_some() {
            drop(open);
            self.lock().close();
        }
    }

    fn create(&self, slot: &Slot) -> io::Result<File> {
        if slot.at > 0 {
            // Only the file that this process has open is known to be its own.
            return Err(ErrorKind::NotFound.into());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        self.owner_of_folder()?;
        let path = self.path(slot.id, slot.purpose.is_in_doubt());
        // Only a file that did not exist: no other is opened, so no link is followed.
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        create().or_else(|error| {
            if error.kind() != ErrorKind::AlreadyExists {
                return Err(error);
            }
            fs::remove_file(&path)?;
            create()
        })
    }

    /// The folder itself, and no link to another.
    fn owner_of_folder(&self) -> io::Result<u32> {
        let about = fs::symlink_metadata(&self.folder)?;
        if about.is_dir() { Ok(about.uid()) } else { Err(ErrorKind::NotADirectory.into()) }
    }

    /// Finds what an earlier process has left. Reads none of it. Says whether there is anything.
    pub fn recover(&self) -> bool {
        if self.owner_of_folder().is_err() {
            return false;
        }
        let Ok(entries) = fs::read_dir(&self.folder) else { return false };
        let mut paths: Vec<PathBuf> =
            entries.take(MAX_SEGMENTS).filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        let largest = self.bound.min(spool_file::largest(self.limits));
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // What this process itself has written meanwhile is known already.
            if name.starts_with(&self.owner) {
                continue;
            }
            match fs::symlink_metadata(&path) {
                Ok(about)
                    if about.is_file() && name.ends_with(SUFFIX) && about.len() <= largest =>
                {
                    self.lock().left_behind(path.into(), about.len());
                }
                _ => self.refuse(&path),
            }
        }
        self.view().uncounted > 0
    }

    /// Its name is not logged: it can be anything.
    fn refuse(&self, path: &Path) {
        self.ledger.spool_skipped.add(1);
        log::warn!(
            "spool-skipped",
            "a file in the spool's folder is no whole spool file of this stream; it is removed"
        );
        // A folder with something in it stays.
        let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
    }

    /// The process before was killed while it wrote, or the disk was full then.
    fn note_torn(&self) {
        self.ledger.spool_skipped.add(1);
        log::warn!(
            "spool-torn",
            "the last batch of a spool file was never written to its end; it is left out"
        );
    }

    /// Reads a segment; `buffer` gives one for so many bytes. Its file stays until
    /// [`Spool::remove`].
    ///
    /// # Errors
    /// If it is not there any more, or being written, or damaged.
    pub fn read(
        &self,
        id: SegmentId,
        buffer: impl Fn(usize) -> Vec<u8>,
    ) -> Result<Segment, Unread> {
        let entry = self.lock().take(id);
        let Some(entry) = entry else { return Err(Unread::NotNow) };
        let request = self.load_counted(&entry, buffer)?;
        Ok(Segment { request, ambiguous: is_in_doubt(&self.path_of(&entry)) })
    }

    /// Reads one segment of an earlier process that nobody has read so far, so that its events are
    /// counted; it stays where it is. Says what it holds.
    pub fn count(&self, buffer: impl Fn(usize) -> Vec<u8>) -> Option<Request> {
        let entry = self.lock().take_uncounted()?;
        let request = self.load_counted(&entry, buffer).ok()?;
        self.lock().put_counted_back(entry.id);
        Some(request)
    }

    /// Of one that is taken.
    fn load_counted(
        &self,
        entry: &Entry,
        buffer: impl Fn(usize) -> Vec<u8>,
    ) -> Result<Request, Unread> {
        match self.load(entry, buffer) {
            Ok(Content { request, hash, is_whole }) => {
                if entry.is_unknown() {
                    self.count_recovered(request.events());
                    self.lock().count(entry.id, request.events(), hash);
                    if !is_whole {
                        self.note_torn();
                    }
                }
                Ok(request)
            }
            Err(_) if entry.is_unknown() => {
                // Not ours, or not whole: it was never in the ledger.
                self.lock().remove(entry.id);
                self.refuse(&self.path_of(entry));
                Err(Unread::Damaged(0))
            }
            Err(_) => Err(Unread::Damaged(entry.events)),
        }
    }

    fn load(&self, entry: &Entry, buffer: impl Fn(usize) -> Vec<u8>) -> io::Result<Content> {
        let owner = self.owner_of_folder()?;
        let file = spool_file::open(&self.path_of(entry), owner, self.limits)?;
        let content = spool_file::read(file, entry.length, &self.stream, self.limits, buffer)?;
        match entry.hash {
            Some(hash) if hash != content.hash => Err(ErrorKind::InvalidData.into()),
            _ => Ok(content),
        }
    }

    /// Events of an earlier process: not in the ledger so far.
    fn count_recovered(&self, events: u64) {
        self.ledger.received.add(events);
        self.ledger.adopted.add(events);
    }

    /// A segment is about to be sent: from now on its events may be stored. Says whether they could
    /// not be before.
    pub fn mark(&self, id: SegmentId) -> bool {
        self.rename(id, true)
    }

    /// The mark was set for a request that has stored nothing: it would be counted by the process
    /// that takes the file over.
    pub fn unmark(&self, id: SegmentId) {
        self.rename(id, false);
    }

    fn rename(&self, id: SegmentId, in_doubt: bool) -> bool {
        let Some(mut entry) = self.lock().entry(id) else { return false };
        let before = self.path_of(&entry);
        entry.in_doubt = in_doubt;
        let after = self.path_of(&entry);
        // One that an earlier process has marked has no other name.
        let renamed = before != after
            && is_in_doubt(&before) != in_doubt
            && fs::rename(&before, &after).is_ok();
        if renamed {
            self.lock().mark(id, in_doubt);
        }
        renamed
    }

    /// All of a segment is settled.
    pub fn remove(&self, id: SegmentId) {
        let entry = self.lock().remove(id);
        if let Some(entry) = entry {
            self.delete(&entry);
        }
    }

    /// The disk's room comes back when nobody has the file open.
    fn delete(&self, entry: &Entry) {
        let _ = fs::remove_file(self.path_of(entry));
        // Where it is locked another one is being written, which takes its place.
        if let Ok(mut open) = self.open.try_lock() {
            open.take_if(|(id, _)| *id == entry.id);
        }
    }

    /// A segment that was read waits apart again.
    pub fn put_back(&self, id: SegmentId) {
        self.lock().put_back(id);
    }

    /// The sandbox ends for good: nobody will read the files. Their events are counted, but from
    /// `until` on those of files that nobody has read so far: that takes time.
    pub fn discard(&self, until: Instant) {
        let (entries, mut unread) = (self.lock().drain(), 0);
        for entry in entries {
            if Instant::now() < until {
                self.drop_entry(&entry, &self.ledger.dropped_undelivered);
            } else {
                self.ledger.dropped_undelivered.add(entry.events);
                unread += u64::from(entry.is_unknown());
            }
        }
        if unread > 0 {
            self.ledger.spool_skipped.add(unread);
            log::error!(
                "spool-unread",
                "no time is left to read {unread} spool files of an earlier process; their events \
                 are lost"
            );
        }
    }

    fn drop_entry(&self, entry: &Entry, counter: &crate::ledger::Counter) {
        let mut events = entry.events;
        let unknown = entry.is_unknown();
        if unknown || self.prints.is_some() {
            let content = self.load(entry, Vec::with_capacity);
            if unknown {
                // Not ours, or not whole.
                let Ok(content) = &content else { return self.refuse(&self.path_of(entry)) };
                events = content.request.events();
                self.count_recovered(events);
            }
            if let (Some(printer), Ok(content)) = (&self.prints, content) {
                printer.print(content.request.data().flatten().collect());
            }
        }
        counter.add(events);
        self.delete(entry);
    }

    /// Where it lies now.
    fn path_of(&self, entry: &Entry) -> PathBuf {
        match &entry.left_behind {
            Some(path) if entry.in_doubt => path.with_extension(DOUBT_SUFFIX),
            Some(path) => path.to_path_buf(),
            None => self.path(entry.id, entry.in_doubt),
        }
    }

    fn path(&self, id: SegmentId, in_doubt: bool) -> PathBuf {
        let suffix = if in_doubt { DOUBT_SUFFIX } else { SUFFIX };
        self.folder.join(format!("{}-{id:08}.{suffix}", self.owner))
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn events(requests: &[&Request]) -> u64 {
    requests.iter().map(|request| request.events()).sum()
}

fn no_room() -> io::Error {
    io::Error::other("there is no room within KINESIS_TELEMETRY_SPOOL_BYTES")
}

/// Whether a file's name says that its events may be stored already.
fn is_in_doubt(path: &Path) -> bool {
    path.to_str().is_some_and(|name| name.ends_with(DOUBT_SUFFIX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::dispatch::step::Oldest;
    use crate::kinesis::record::{Compression, RecordFormat};
    use crate::kinesis::wire::Wire;

    const APART: Purpose = Purpose::Apart { in_doubt: false, refused: true };
    const LIMITS: Limits = Limits {
        record_bytes: 1 << 20,
        request_bytes: 1 << 20,
        record: RecordFormat::Event,
        compression: Compression::None,
        wire: Wire::Json,
    };

    fn spool(folder: &Path, owner: &str) -> Spool {
        let stream = Stream::Name("telemetry".to_owned());
        let (folder, ledger) = (folder.to_owned(), Arc::default());
        Spool::new(folder, 1 << 24, stream, owner, LIMITS, None, ledger)
    }

    /// Of so many records of one event each.
    fn request(records: usize) -> Request {
        let mut request = Request::new(LIMITS);
        for n in 0..records {
            request.add(Some("key"), 1, |out| {
                out.extend_from_slice(format!("a line of a log: {n}\n").as_bytes());
            });
        }
        request.seal();
        request
    }

    /// Reads all that waits in order, and says how many events each segment has.
    fn read_all(spool: &Spool) -> Vec<Result<u64, Unread>> {
        let next = || match spool.view().overflow {
            Oldest::Ready(id) => Some(id),
            Oldest::Empty | Oldest::Writing => None,
        };
        std::iter::from_fn(|| {
            let id = next()?;
            let read = spool.read(id, Vec::with_capacity);
            spool.remove(id);
            Some(read.map(|segment| segment.request.events()))
        })
        .collect()
    }

    /// With the sandbox event they were one record more than a request may have, and none was read.
    #[test]
    fn a_full_request_of_single_events_is_read_with_the_sandbox_event_before_it() {
        let folder = TempDir::new().unwrap();
        let spool = spool(folder.path(), "a");
        let introduction = || {
            let mut request = Request::new(LIMITS);
            request.add(Some("key"), 0, |out| out.extend_from_slice(b"what the sandbox is\n"));
            request.seal();
            Some(request)
        };
        for _ in 0..2 {
            spool.append(&request(MAX_RECORDS), Some(0), introduction).unwrap();
        }
        spool.append(&request(MAX_RECORDS - 1), Some(0), introduction).unwrap();
        assert_eq!(read_all(&spool), [0, 500, 0, 500, 499].map(Ok));
    }

    /// Its events were in the ledger, and in no place any more.
    #[test]
    fn what_was_taken_over_and_put_back_is_not_lost_uncounted() {
        for changed in [None, Some(request(7))] {
            let folder = TempDir::new().unwrap();
            spool(folder.path(), "a").write(&mut request(3), APART, None).unwrap();
            let successor = spool(folder.path(), "b");
            successor.recover();
            assert_eq!(successor.read(1, Vec::with_capacity).unwrap().request.events(), 3);
            successor.put_back(1);
            let path = folder.path().join("a-00000001.spool");
            fs::remove_file(&path).unwrap();
            if let Some(mut changed) = changed {
                spool(folder.path(), "a").write(&mut changed, APART, None).unwrap();
            }
            assert_eq!(successor.read(1, Vec::with_capacity).unwrap_err(), Unread::Damaged(3));
            successor.remove(1);
            assert_eq!((successor.ledger.received.get(), path.exists()), (3, false));
        }
    }

    /// A part was written to a file of its own, and was delivered from there; then the process was
    /// killed. The next one sent it again from the first file, which kept the other part, and did
    /// not count it as a possible duplicate.
    #[test]
    fn a_segment_of_which_a_part_is_in_another_file_may_have_been_sent() {
        let folder = TempDir::new().unwrap();
        let read_by = |owner: &str| {
            let spool = spool(folder.path(), owner);
            spool.recover();
            let ambiguous = spool.read(1, Vec::with_capacity).unwrap().ambiguous;
            (spool, ambiguous)
        };
        spool(folder.path(), "a").write(&mut request(3), APART, None).unwrap();
        let (full, ambiguous) = read_by("b");
        assert!(!ambiguous);
        // A folder stands where the part is to be written.
        let there = folder.path().join("b-00000002.spool");
        fs::create_dir_all(there.join("x")).unwrap();
        full.write(&mut request(1), APART, Some(1)).unwrap_err();
        assert!(!read_by("c").1, "nothing was written");
        fs::remove_dir_all(there).unwrap();
        let (spool, _) = read_by("d");
        let part = spool.write(&mut request(1), APART, Some(1)).unwrap();
        spool.read(part, Vec::with_capacity).unwrap();
        spool.remove(part);
        assert!(read_by("e").1);
    }

    /// What was sent from a file in an outage was counted as a possible duplicate by the next
    /// process.
    #[test]
    fn the_mark_of_a_request_that_stored_nothing_is_taken_back() {
        let folder = TempDir::new().unwrap();
        let read_by = |owner: &str| {
            let spool = spool(folder.path(), owner);
            spool.recover();
            let segment = spool.read(1, Vec::with_capacity).unwrap();
            (spool, segment.ambiguous)
        };
        let writer = spool(folder.path(), "a");
        let id = writer.write(&mut request(3), APART, None).unwrap();
        writer.read(id, Vec::with_capacity).unwrap();
        assert_eq!((writer.mark(id), writer.mark(id)), (true, false));
        writer.unmark(id);
        let (sender, ambiguous) = read_by("b");
        assert!(!ambiguous && sender.mark(1));
        // An earlier process has set this one.
        let (successor, ambiguous) = read_by("c");
        assert!(ambiguous && !successor.mark(1));
        successor.remove(1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_copy_of_what_stays_in_memory_is_there_for_the_next_process_alone() {
        let folder = TempDir::new().unwrap();
        let writer = spool(folder.path(), "a");
        let id = writer.write(&mut request(3), Purpose::Copy { in_doubt: false }, None).unwrap();
        assert_eq!(writer.view(), View::default(), "it is in memory");
        assert!(writer.mark(id), "it is being sent");
        let successor = spool(folder.path(), "b");
        successor.recover();
        let found = successor.read(1, Vec::with_capacity).unwrap();
        assert_eq!((found.request.events(), found.ambiguous), (3, true));
        writer.unmark(id);
        writer.remove(id);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_comes_after_somebody_has_cleared_the_folder_is_kept() {
        let folder = TempDir::new().unwrap();
        let spool = spool(&folder.path().join("spool"), "a");
        let append = || spool.append(&request(2), None, || None).unwrap();
        append();
        fs::remove_dir_all(&spool.folder).unwrap();
        append();
        append();
        assert_eq!(read_all(&spool), [Err(Unread::Damaged(2)), Ok(4)]);
    }

    #[test]
    fn a_foreign_file_that_has_to_give_way_is_counted_too() {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("a.spool"), "kinesis-telemetry-extension spool 2\n").unwrap();
        let spool = spool(folder.path(), "b");
        spool.recover();
        spool.discard(Instant::now() + Duration::from_secs(60));
        assert_eq!(spool.ledger.spool_skipped.get(), 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// To read and hash them took all the time that the ledger needed.
    #[test]
    fn files_that_there_is_no_time_to_read_are_counted_as_such() {
        let folder = TempDir::new().unwrap();
        spool(folder.path(), "a").write(&mut request(3), APART, None).unwrap();
        let spool = spool(folder.path(), "b");
        spool.recover();
        spool.append(&request(2), None, || None).unwrap();
        spool.discard(Instant::now());
        let ledger = &spool.ledger;
        assert_eq!((ledger.dropped_undelivered.get(), ledger.spool_skipped.get()), (2, 1));
    }
}
