//! The spool: requests that memory cannot hold, or that a reset would lose, under `/tmp`.
//!
//! One file is one packed request ([`super::spool_file`]), written under another name and then renamed, so a torn one is never seen under its
//! own. Before it is sent it gets a name that says so: a process that finds it then counts its events as possible duplicates. `/tmp`
//! outlives a reset: the process that starts next in this sandbox finds the files and sends them. Used by the listener's threads (what memory
//! has no room for) and the dispatcher's; the index's lock is never held while a file is written or read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
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
    pub fn write(&self, request: &mut Request, ambiguous: bool, apart: bool) -> io::Result<()> {
        let head = spool_file::head(request, &self.stream, ambiguous);
        let bytes = (head.len() + request.body().len()) as u64;
        let reserved = self.lock().reserve(bytes, request.events(), apart);
        let Some((id, evicted)) = reserved else {
            return Err(io::Error::other("larger than KINESIS_TELEMETRY_SPOOL_BYTES"));
        };
        for entry in &evicted {
            self.drop_entry(entry, &self.ledger.dropped_queue);
        }
        let written = self.write_file(&self.path(id, SUFFIX), &[&head, request.body()]);
        let mut index = self.lock();
        match &written {
            Ok(()) => {
                index.commit(id);
                self.ledger.spooled.add(request.events());
            }
            Err(_) => drop(index.remove(id)),
        }
        written
    }

    fn write_file(&self, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let part = path.with_extension("part");
        let written = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&part)?;
            parts.iter().try_for_each(|bytes| file.write_all(bytes))?;
            fs::rename(&part, path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&part);
        }
        written
    }

    /// Finds what an earlier process has left. Reads none of it. A file that was never completed is deleted: its events are in that
    /// process's ledger, or it was killed in the middle.
    pub fn recover(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut names: Vec<String> = entries
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect();
        names.sort();
        for name in names {
            let path = self.folder.join(&name);
            // What this process itself has written meanwhile is known already.
            if name.starts_with(&self.owner) {
                continue;
            }
            let about = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file);
            match about {
                Some(_) if name.ends_with(".part") => drop(fs::remove_file(&path)),
                Some(about) if name.ends_with(SUFFIX) && about.len() <= self.bound => {
                    self.lock().left_behind(path, about.len());
                }
                _ => self.skip(&path),
            }
        }
    }

    fn skip(&self, path: &Path) {
        self.ledger.spool_skipped.add(1);
        log::warn!(
            "spool-skipped",
            "{} is no whole spool file of this stream; it is left alone",
            path.display()
        );
    }

    /// Reads a segment; `buffer` gives one for so many bytes. Its file stays until [`Spool::remove`]. `Err`: it is damaged, and so many
    /// events are lost.
    ///
    /// # Errors
    /// See above.
    pub fn read(&self, id: SegmentId, buffer: impl Fn(usize) -> Vec<u8>) -> Result<Segment, u64> {
        let Some(entry) = self.lock().take(id) else { return Err(0) };
        let (path, doubt) = self.find(&entry);
        let found = File::open(&path).and_then(|mut file| {
            let head = Head::read(&mut file, &self.stream)?;
            let ambiguous = head.ambiguous || doubt;
            Ok(Segment { request: head.body(file, self.limits, buffer)?, ambiguous })
        });
        match (found, &entry.left_behind) {
            (Ok(segment), None) => Ok(segment),
            (Ok(segment), Some(_)) => {
                let events = segment.request.events();
                self.ledger.received.add(events);
                self.ledger.adopted.add(events);
                Ok(segment)
            }
            (Err(_), None) => Err(entry.events),
            (Err(_), Some(_)) => {
                // Not ours, or not whole: it was never in the ledger.
                self.lock().remove(id);
                self.skip(&path);
                Err(0)
            }
        }
    }

    /// A segment is about to be sent: from now on its events may be stored.
    pub fn mark(&self, id: SegmentId) {
        let entry = self.lock().entry(id);
        if let Some((path, false)) = entry.map(|entry| self.find(&entry)) {
            let _ = fs::rename(&path, path.with_extension(DOUBT_SUFFIX));
        }
    }

    /// All of a segment is settled.
    pub fn remove(&self, id: SegmentId) {
        let entry = self.lock().remove(id);
        if let Some(entry) = entry {
            let _ = fs::remove_file(self.find(&entry).0);
        }
    }

    /// The sandbox ends for good: nobody will read the files. Says how many events were in them.
    pub fn discard(&self) {
        let entries = self.lock().drain();
        for entry in entries {
            self.drop_entry(&entry, &self.ledger.dropped_undelivered);
        }
    }

    fn drop_entry(&self, entry: &Entry, counter: &crate::ledger::Counter) {
        let (path, _) = self.find(entry);
        let mut events = entry.events;
        if entry.left_behind.is_some() {
            // Not read so far, so not in the ledger.
            events = spool_file::events_in(&path, &self.stream);
            self.ledger.received.add(events);
            self.ledger.adopted.add(events);
        }
        counter.add(events);
        if let Some(printer) = &self.prints {
            let read = File::open(&path).and_then(|mut file| {
                let head = Head::read(&mut file, &self.stream)?;
                head.body(file, self.limits, Vec::with_capacity)
            });
            if let Ok(request) = read {
                printer.print(request.data().flatten().collect());
            }
        }
        let _ = fs::remove_file(&path);
    }

    /// Where it lies now, and whether its name says that it may have been stored.
    fn find(&self, entry: &Entry) -> (PathBuf, bool) {
        let path = entry.left_behind.clone().unwrap_or_else(|| self.path(entry.id, SUFFIX));
        if path.to_str().is_some_and(|name| name.ends_with(DOUBT_SUFFIX)) {
            return (path, true);
        }
        let doubtful = path.with_extension(DOUBT_SUFFIX);
        if doubtful.exists() { (doubtful, true) } else { (path, false) }
    }

    fn path(&self, id: SegmentId, suffix: &str) -> PathBuf {
        self.folder.join(format!("{}-{id:08}.{suffix}", self.owner))
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
