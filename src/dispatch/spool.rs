//! The spool: requests that memory cannot hold, or that a reset would lose, under `/tmp`.
//!
//! One file is one packed request ([`super::spool_file`]), written under another name and then
//! renamed, so that a torn one is never seen under its own. Before it is sent it gets a name that
//! says so: a process that finds it then counts its events as possible duplicates. `/tmp` outlives
//! a reset: the process that starts next in this sandbox finds the files and sends them.
//!
//! Other processes of the sandbox have the same rights and can put anything there. No link is
//! followed, nothing is opened that can block, no size or count of a file is believed before it was
//! checked, and a file of this process counts only with the hash that it was written with. A file
//! that is refused is removed.
//!
//! Used by the listener's threads (what memory has no room for) and the dispatcher's; the index's
//! lock is never held while a file is written or read.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::backlog::SegmentId;
use super::core::View;
use super::printer::Printer;
use super::spool_file::{self, Head};
use super::spool_index::{Entry, Index};
use crate::kinesis::endpoint::Stream;
use crate::kinesis::record::Limits;
use crate::kinesis::request::Request;
use crate::ledger::Ledger;
use crate::log;

const SUFFIX: &str = "spool";
const DOUBT_SUFFIX: &str = "doubt.spool";
/// The most entries of the folder that are looked at: many more than a spool ever has.
const MAX_ENTRIES: usize = 10_000;

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
            index: Mutex::new(Index::new(bound)),
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

    /// Writes a request. Where the room is used up the oldest segments go, counted as dropped.
    ///
    /// # Errors
    /// If it cannot be written; its events are still the caller's then.
    pub fn write(
        &self,
        request: &mut Request,
        ambiguous: bool,
        apart: bool,
    ) -> io::Result<SegmentId> {
        let head = spool_file::head(request, &self.stream, ambiguous);
        let bytes = (head.len() + request.body().len()) as u64;
        let reserved = self.lock().reserve(bytes, request.events(), apart);
        let Some((id, evicted)) = reserved else {
            return Err(io::Error::other("larger than KINESIS_TELEMETRY_SPOOL_BYTES"));
        };
        for entry in &evicted {
            self.drop_entry(entry, &self.ledger.dropped_queue);
        }
        let hash = request.finish(&self.stream);
        let written = self.write_file(&self.path(id), &[&head, request.body()]);
        let mut index = self.lock();
        match &written {
            Ok(()) => {
                index.commit_with(id, hash);
                self.ledger.spooled.add(request.events());
            }
            Err(_) => drop(index.remove(id)),
        }
        written.map(|()| id)
    }

    fn write_file(&self, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        self.owner_of_folder()?;
        let part = path.with_extension("part");
        let written = (|| {
            // Only a file that did not exist: no other is opened, so no link is followed.
            let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
            let mut file = create().or_else(|error| {
                if error.kind() != ErrorKind::AlreadyExists {
                    return Err(error);
                }
                fs::remove_file(&part)?;
                create()
            })?;
            parts.iter().try_for_each(|bytes| file.write_all(bytes))?;
            fs::rename(&part, path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&part);
        }
        written
    }

    /// The folder itself, and no link to another.
    fn owner_of_folder(&self) -> io::Result<u32> {
        let about = fs::symlink_metadata(&self.folder)?;
        if about.is_dir() { Ok(about.uid()) } else { Err(ErrorKind::NotADirectory.into()) }
    }

    /// Finds what an earlier process has left. Reads none of it. A file that was never completed is
    /// deleted: its events are in that process's ledger, or it was killed in the middle.
    pub fn recover(&self) {
        if self.owner_of_folder().is_err() {
            return;
        }
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut paths: Vec<PathBuf> =
            entries.take(MAX_ENTRIES).filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        let largest = self.bound.min(spool_file::largest(self.limits));
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // What this process itself has written meanwhile is known already.
            if name.starts_with(&self.owner) {
                continue;
            }
            match fs::symlink_metadata(&path) {
                Ok(about) if about.is_file() && name.ends_with(".part") => {
                    drop(fs::remove_file(&path));
                }
                Ok(about)
                    if about.is_file() && name.ends_with(SUFFIX) && about.len() <= largest =>
                {
                    self.lock().left_behind(path, about.len());
                }
                _ => self.refuse(&path),
            }
        }
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

    /// Reads a segment; `buffer` gives one for so many bytes. Its file stays until
    /// [`Spool::remove`]. `Err`: it is damaged, and so many events are lost.
    ///
    /// # Errors
    /// See above.
    pub fn read(&self, id: SegmentId, buffer: impl Fn(usize) -> Vec<u8>) -> Result<Segment, u64> {
        let Some(entry) = self.lock().take(id) else { return Err(0) };
        match (self.load(&entry, buffer), &entry.left_behind) {
            (Ok(segment), None) => Ok(segment),
            (Ok(segment), Some(_)) => {
                if !entry.counted {
                    self.count_recovered(segment.request.events());
                    self.lock().count(id, segment.request.events());
                }
                Ok(segment)
            }
            (Err(_), None) => Err(entry.events),
            (Err(_), Some(_)) => {
                // Not ours, or not whole: it was never in the ledger.
                self.lock().remove(id);
                self.refuse(&self.path_of(&entry));
                Err(0)
            }
        }
    }

    fn load(&self, entry: &Entry, buffer: impl Fn(usize) -> Vec<u8>) -> io::Result<Segment> {
        let path = self.path_of(entry);
        let owner = self.owner_of_folder()?;
        let (head, file) = Head::open(&path, owner, &self.stream, self.limits)?;
        if entry.hash.as_deref().is_some_and(|hash| hash != head.hash()) {
            return Err(ErrorKind::InvalidData.into());
        }
        let ambiguous = head.ambiguous || is_in_doubt(&path);
        Ok(Segment { request: head.body(file, self.limits, &self.stream, buffer)?, ambiguous })
    }

    /// Events of an earlier process: not in the ledger so far.
    fn count_recovered(&self, events: u64) {
        self.ledger.received.add(events);
        self.ledger.adopted.add(events);
    }

    /// A segment is about to be sent: from now on its events may be stored.
    pub fn mark(&self, id: SegmentId) {
        let Some(entry) = self.lock().entry(id) else { return };
        let path = self.path_of(&entry);
        if !is_in_doubt(&path) && fs::rename(&path, path.with_extension(DOUBT_SUFFIX)).is_ok() {
            self.lock().mark(id);
        }
    }

    /// All of a segment is settled.
    pub fn remove(&self, id: SegmentId) {
        let entry = self.lock().remove(id);
        if let Some(entry) = entry {
            let _ = fs::remove_file(self.path_of(&entry));
        }
    }

    /// A segment that was read waits apart again.
    pub fn put_back(&self, id: SegmentId) {
        self.lock().put_back(id);
    }

    /// The sandbox ends for good: nobody will read the files. Says how many events were in them.
    pub fn discard(&self) {
        let entries = self.lock().drain();
        for entry in entries {
            self.drop_entry(&entry, &self.ledger.dropped_undelivered);
        }
    }

    fn drop_entry(&self, entry: &Entry, counter: &crate::ledger::Counter) {
        let mut events = entry.events;
        let unknown = entry.left_behind.is_some() && !entry.counted;
        if unknown || self.prints.is_some() {
            let segment = self.load(entry, Vec::with_capacity);
            if unknown {
                events = segment.as_ref().map_or(0, |segment| segment.request.events());
                self.count_recovered(events);
            }
            if let (Some(printer), Ok(segment)) = (&self.prints, segment) {
                printer.print(segment.request.data().flatten().collect());
            }
        }
        counter.add(events);
        let _ = fs::remove_file(self.path_of(entry));
    }

    /// Where it lies now.
    fn path_of(&self, entry: &Entry) -> PathBuf {
        let path = entry.left_behind.clone().unwrap_or_else(|| self.path(entry.id));
        if entry.in_doubt { path.with_extension(DOUBT_SUFFIX) } else { path }
    }

    fn path(&self, id: SegmentId) -> PathBuf {
        self.folder.join(format!("{}-{id:08}.{SUFFIX}", self.owner))
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a file's name says that its events may be stored already.
fn is_in_doubt(path: &Path) -> bool {
    path.to_str().is_some_and(|name| name.ends_with(DOUBT_SUFFIX))
}
