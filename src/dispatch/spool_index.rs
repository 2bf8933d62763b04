//! Which segments of the spool exist, and what they hold. Pure: what is written, read and deleted
//! is the caller's.

use std::collections::VecDeque;
use std::path::PathBuf;

use super::backlog::SegmentId;
use super::core::{Oldest, View};

/// One segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its name in this process.
    pub id: SegmentId,
    /// On disk.
    pub bytes: u64,
    /// In it. Not known of what an earlier process left, until it is read.
    pub events: u64,
    /// The file that an earlier process left.
    pub left_behind: Option<PathBuf>,
    /// SHA-256 of its body, where this process has written it.
    pub hash: Option<Box<str>>,
    /// Its file was renamed, because it is about to be sent.
    pub in_doubt: bool,
    /// Its events are in this process's ledger, although an earlier one left them.
    pub counted: bool,
    ready: bool,
}

/// See the module's page.
#[derive(Debug)]
pub struct Index {
    bound: u64,
    bytes: u64,
    last: SegmentId,
    /// What memory could not hold, in the order in which it came.
    overflow: VecDeque<Entry>,
    /// What an earlier process left, and what Kinesis refused for long.
    apart: VecDeque<Entry>,
    /// What was read and is not settled.
    taken: Vec<Entry>,
}

impl Index {
    /// Empty. `bound` is `SPOOL_BYTES`.
    #[must_use]
    pub fn new(bound: u64) -> Index {
        Index {
            bound,
            bytes: 0,
            last: 0,
            overflow: VecDeque::new(),
            apart: VecDeque::new(),
            taken: Vec::new(),
        }
    }

    /// A place for a segment of that size, which is being written from now on; and those that have
    /// to give way for it, oldest first: they are in the index no more. `None` where it can never
    /// fit.
    pub fn reserve(
        &mut self,
        bytes: u64,
        events: u64,
        apart: bool,
    ) -> Option<(SegmentId, Vec<Entry>)> {
        if bytes > self.bound {
            return None;
        }
        let mut evicted = Vec::new();
        while self.bytes + bytes > self.bound {
            let list = if self.apart.front().is_some_and(|entry| entry.ready) {
                &mut self.apart
            } else {
                &mut self.overflow
            };
            if !list.front().is_some_and(|entry| entry.ready) {
                break;
            }
            let Some(entry) = list.pop_front() else { break };
            self.bytes -= entry.bytes;
            evicted.push(entry);
        }
        self.last += 1;
        self.bytes += bytes;
        let entry = Entry { id: self.last, bytes, events, ..Entry::default() };
        if apart {
            self.apart.push_back(entry)
        } else {
            self.overflow.push_back(entry)
        }
        Some((self.last, evicted))
    }

    /// It is written.
    pub fn commit(&mut self, id: SegmentId) {
        if let Some(entry) =
            self.overflow.iter_mut().chain(&mut self.apart).find(|entry| entry.id == id)
        {
            entry.ready = true;
        }
    }

    /// As [`Index::commit`], with the hash that its body has.
    pub fn commit_with(&mut self, id: SegmentId, hash: String) {
        if let Some(entry) =
            self.overflow.iter_mut().chain(&mut self.apart).find(|entry| entry.id == id)
        {
            entry.hash = Some(hash.into());
        }
        self.commit(id);
    }

    /// Its file was renamed before it is sent.
    pub fn mark(&mut self, id: SegmentId) {
        if let Some(entry) = self.taken.iter_mut().find(|entry| entry.id == id) {
            entry.in_doubt = true;
        }
    }

    /// An earlier process left it, and now it is known what it holds.
    pub fn count(&mut self, id: SegmentId, events: u64) {
        if let Some(entry) = self.taken.iter_mut().find(|entry| entry.id == id) {
            (entry.events, entry.counted) = (events, true);
        }
    }

    /// It was read, and is as it was: it waits apart.
    pub fn put_back(&mut self, id: SegmentId) {
        if let Some(at) = self.taken.iter().position(|entry| entry.id == id) {
            self.apart.push_back(self.taken.swap_remove(at));
        }
    }

    /// It could not be written, or is settled.
    pub fn remove(&mut self, id: SegmentId) -> Option<Entry> {
        let taken =
            self.taken.iter().position(|entry| entry.id == id).map(|at| self.taken.swap_remove(at));
        let entry = taken.or_else(|| {
            [&mut self.overflow, &mut self.apart].into_iter().find_map(|list| {
                let at = list.iter().position(|entry| entry.id == id)?;
                list.remove(at)
            })
        })?;
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        Some(entry)
    }

    /// An earlier process left it.
    pub fn left_behind(&mut self, path: PathBuf, bytes: u64) -> SegmentId {
        self.last += 1;
        self.bytes += bytes;
        self.apart.push_back(Entry {
            id: self.last,
            bytes,
            left_behind: Some(path),
            ready: true,
            ..Entry::default()
        });
        self.last
    }

    /// It is read, and stays until [`Index::remove`].
    pub fn take(&mut self, id: SegmentId) -> Option<Entry> {
        let entry = [&mut self.overflow, &mut self.apart]
            .into_iter()
            .find_map(|list| list.pop_front_if(|entry| entry.id == id && entry.ready))?;
        self.taken.push(entry.clone());
        Some(entry)
    }

    /// As it was taken.
    #[must_use]
    pub fn entry(&self, id: SegmentId) -> Option<Entry> {
        self.taken.iter().find(|entry| entry.id == id).cloned()
    }

    /// The oldest of both lists.
    #[must_use]
    pub fn view(&self) -> View {
        let oldest = |list: &VecDeque<Entry>| match list.front() {
            None => Oldest::Empty,
            Some(entry) if entry.ready => Oldest::Ready(entry.id),
            Some(_) => Oldest::Writing,
        };
        View { overflow: oldest(&self.overflow), apart: oldest(&self.apart) }
    }

    /// Everything, for whoever deletes it.
    pub fn drain(&mut self) -> Vec<Entry> {
        self.bytes = 0;
        self.taken.drain(..).chain(self.apart.drain(..)).chain(self.overflow.drain(..)).collect()
    }

    /// On disk, or being written.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(index: &mut Index, bytes: u64, apart: bool) -> (SegmentId, Vec<SegmentId>) {
        let (id, evicted) = index.reserve(bytes, 1, apart).unwrap();
        index.commit(id);
        (id, evicted.iter().map(|entry| entry.id).collect())
    }

    #[test]
    fn in_order_and_nothing_that_is_still_being_written() {
        let mut index = Index::new(1000);
        let (first, _) = index.reserve(10, 3, false).unwrap();
        let (second, _) = put(&mut index, 10, false);
        assert_eq!(index.view(), View { overflow: Oldest::Writing, apart: Oldest::Empty });
        assert_eq!(index.take(second), None, "not before the first");
        assert_eq!(index.take(first), None, "it is being written");
        index.commit(first);
        assert_eq!(index.view().overflow, Oldest::Ready(first));
        assert_eq!(index.take(first).unwrap().events, 3);
        assert_eq!(index.view().overflow, Oldest::Ready(second));
        assert_eq!(index.bytes(), 20, "what is taken is still on disk");
        index.remove(first);
        index.remove(second);
        assert_eq!((index.bytes(), index.view().overflow), (0, Oldest::Empty));
        assert_eq!(index.remove(first), None);
    }

    #[test]
    fn the_oldest_give_way_and_those_apart_first() {
        let mut index = Index::new(100);
        assert!(index.reserve(101, 1, false).is_none());
        let (first, _) = put(&mut index, 40, false);
        let (apart, _) = put(&mut index, 40, true);
        let (third, evicted) = put(&mut index, 40, false);
        assert_eq!(evicted, [apart]);
        let (_, evicted) = put(&mut index, 100, false);
        assert_eq!(evicted, [first, third]);
        assert_eq!(index.bytes(), 100);
    }

    #[test]
    fn what_is_being_written_or_read_does_not_give_way() {
        let mut index = Index::new(100);
        let (first, _) = put(&mut index, 60, false);
        index.take(first);
        let (_, evicted) = index.reserve(60, 1, false).unwrap();
        assert!(evicted.is_empty());
        let (_, evicted) = index.reserve(60, 1, false).unwrap();
        assert!(evicted.is_empty());
    }

    #[test]
    fn what_was_read_and_is_put_back_stands_apart_behind_the_others() {
        let mut index = Index::new(100);
        let (first, _) = put(&mut index, 10, false);
        index.left_behind(PathBuf::from("a"), 10);
        let left = index.take(2).unwrap();
        assert!(!left.counted);
        index.count(2, 7);
        index.take(first).unwrap();
        index.put_back(first);
        index.put_back(2);
        index.put_back(9);
        assert_eq!(index.view(), View { overflow: Oldest::Empty, apart: Oldest::Ready(first) });
        assert_eq!((index.bytes(), index.entry(first)), (20, None));
        index.take(first).unwrap();
        let left = index.take(2).unwrap();
        assert_eq!((left.counted, left.events), (true, 7));
    }

    #[test]
    fn what_was_left_behind_stands_apart() {
        let mut index = Index::new(100);
        index.left_behind(PathBuf::from("a"), 10);
        assert_eq!(index.view(), View { overflow: Oldest::Empty, apart: Oldest::Ready(1) });
        assert_eq!(index.drain().len(), 1);
        assert_eq!(index.bytes(), 0);
    }
}
