//! Which segments of the spool exist, and what they hold. Pure: what is written, read and deleted
//! is the caller's.
//!
//! What memory could not hold is appended to the newest segment until that is as large as a request
//! or is read: so small batches do not take a file each. Room is counted as the disk counts it, in
//! whole blocks. The number of segments is bounded, and with it what this index takes in memory.

use std::collections::VecDeque;
use std::path::Path;

use super::backlog::{Parcel, Refusal, SegmentId};
use super::step::{Oldest, View};
use crate::kinesis::record::MAX_RECORDS;

/// A file takes whole blocks of the disk.
pub const BLOCK: u64 = 4096;
/// There are no more segments: each takes some hundred bytes of memory.
pub const MAX_SEGMENTS: usize = 10_000;
/// A segment takes no larger part of the room: the oldest gives way as a whole.
const PART: u64 = 8;
/// Bytes of a hash.
pub const HASH: usize = 32;

/// SHA-256 of a segment's batches, or what stands for it before the first.
pub type Hash = [u8; HASH];

/// One segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its name in this process.
    pub id: SegmentId,
    /// Bytes in its file.
    pub length: u64,
    /// In it. Not known of what an earlier process left, until it is read.
    pub events: u64,
    /// The file that an earlier process left.
    pub left_behind: Option<Box<Path>>,
    /// Of its last batch, where this process has written it or read it.
    pub hash: Option<Hash>,
    /// Its file has the name of one that may have been sent.
    pub in_doubt: bool,
    /// Its events are in this process's ledger, although an earlier one left them.
    pub counted: bool,
    /// Bytes of its file, with what is being written.
    reserved: u64,
    ready: bool,
}

impl Entry {
    /// An earlier process left it, and what it holds is not in this process's ledger.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.left_behind.is_some() && !self.counted
    }
}

/// What is to be written at once.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// On disk.
    pub bytes: u64,
    /// In it.
    pub events: u64,
    /// Bytes and records that it adds to the request that its segment is read into.
    pub payload: usize,
    /// See `payload`.
    pub records: usize,
}

/// What a new segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It waits in order, and more is appended to it.
    Overflow {
        /// It begins with the sandbox events up to that one.
        introduces: Option<u16>,
    },
    /// It waits apart, as it is.
    Apart {
        /// It may have been sent.
        in_doubt: bool,
        /// Kinesis has refused it.
        refused: bool,
    },
    /// It stays in memory, as what was read from there.
    Copy {
        /// It may have been sent.
        in_doubt: bool,
    },
}

impl Purpose {
    /// Of what waited in memory.
    #[must_use]
    pub fn apart(parcel: &Parcel) -> Purpose {
        let (in_doubt, refused) = (parcel.ambiguous, parcel.refusal != Refusal::None);
        if parcel.stays { Purpose::Copy { in_doubt } } else { Purpose::Apart { in_doubt, refused } }
    }

    /// See [`Entry::in_doubt`].
    #[must_use]
    pub fn is_in_doubt(self) -> bool {
        matches!(self, Purpose::Apart { in_doubt: true, .. } | Purpose::Copy { in_doubt: true })
    }
}

/// Where it is to be written. Those that had to give way are in the index no more.
#[derive(Debug)]
pub struct Slot {
    /// The segment.
    pub id: SegmentId,
    /// Where in its file; 0: there is no file yet.
    pub at: u64,
    /// Of the batch before it. `None`: there is none.
    pub before: Option<Hash>,
    /// Of the segment.
    pub purpose: Purpose,
    /// Oldest first.
    pub evicted: Vec<Entry>,
}

/// The segment that is appended to.
#[derive(Debug)]
struct Open {
    id: SegmentId,
    payload: usize,
    records: usize,
    /// It begins with the sandbox events up to that one.
    introduces: Option<u16>,
}

/// See the module's page.
#[derive(Debug)]
pub struct Index {
    bound: u64,
    /// Of the payload of a segment that is appended to.
    segment_bytes: usize,
    /// Of all, in whole blocks.
    bytes: u64,
    last: SegmentId,
    /// What memory could not hold, in the order in which it came.
    overflow: VecDeque<Entry>,
    /// What was written to make room in memory, and Kinesis never refused: nothing of the next list
    /// holds it back.
    own: VecDeque<Entry>,
    /// What an earlier process left and nobody has read, before all of the next list.
    uncounted: VecDeque<Entry>,
    /// What an earlier process left, and what Kinesis refused for long.
    apart: VecDeque<Entry>,
    /// What was read and is not settled.
    taken: VecDeque<Entry>,
    open: Option<Open>,
}

/// What a file of so many bytes takes.
fn on_disk(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK).saturating_mul(BLOCK)
}

impl Index {
    /// Empty. `bound` is `SPOOL_BYTES`, `request_bytes` what one request takes.
    #[must_use]
    pub fn new(bound: u64, request_bytes: usize) -> Index {
        let part = usize::try_from(bound / PART).unwrap_or(usize::MAX);
        Index {
            bound,
            segment_bytes: request_bytes.min(part),
            bytes: 0,
            last: 0,
            overflow: VecDeque::new(),
            own: VecDeque::new(),
            uncounted: VecDeque::new(),
            apart: VecDeque::new(),
            taken: VecDeque::new(),
            open: None,
        }
    }

    /// A place for a batch in the segment that is appended to, which is being written from now on.
    /// `None` where there is none, or it begins with other sandbox events, or has no room.
    pub fn append(&mut self, batch: &Batch, introduces: Option<u16>) -> Option<Slot> {
        let open = self.open.take()?;
        let fits = open.introduces == introduces
            && open.payload + batch.payload <= self.segment_bytes
            && open.records + batch.records <= MAX_RECORDS;
        // Who reads it takes it out of the list.
        let entry = self.overflow.back_mut().filter(|entry| fits && entry.id == open.id)?;
        let (id, at, before) = (entry.id, entry.length, entry.hash);
        entry.ready = false;
        let growth = on_disk(at + batch.bytes) - on_disk(at);
        let evicted = self.make_room(growth, 0);
        let entry = self.overflow.back_mut()?;
        let Some(evicted) = evicted else {
            entry.ready = true;
            return None;
        };
        entry.reserved = at + batch.bytes;
        entry.events += batch.events;
        self.bytes += growth;
        let (payload, records) = (open.payload + batch.payload, open.records + batch.records);
        self.open = Some(Open { payload, records, ..open });
        Some(Slot { id, at, before, purpose: Purpose::Overflow { introduces }, evicted })
    }

    /// A place for a segment, which is being written from now on. `None` where it can never fit, or
    /// what is there is being read or written.
    pub fn begin(&mut self, batch: &Batch, purpose: Purpose) -> Option<Slot> {
        // Nothing is to give way for a copy, nor to find no room behind it.
        let is_copy = matches!(purpose, Purpose::Copy { .. });
        let much = self.bytes + on_disk(batch.bytes) > self.bound / 2 || self.len() == MAX_SEGMENTS;
        if is_copy && much {
            return None;
        }
        let evicted = self.make_room(on_disk(batch.bytes), 1)?;
        self.last += 1;
        self.bytes += on_disk(batch.bytes);
        let (id, events) = (self.last, batch.events);
        let in_doubt = purpose.is_in_doubt();
        let entry = Entry { id, events, in_doubt, reserved: batch.bytes, ..Entry::default() };
        match purpose {
            Purpose::Apart { refused: false, .. } => self.own.push_back(entry),
            Purpose::Apart { refused: true, .. } => self.apart.push_back(entry),
            Purpose::Copy { .. } => self.taken.push_back(entry),
            Purpose::Overflow { introduces } => {
                self.overflow.push_back(entry);
                let Batch { payload, records, .. } = *batch;
                self.open = Some(Open { id, payload, records, introduces });
            }
        }
        Some(Slot { id, at: 0, before: None, purpose, evicted })
    }

    /// Takes the oldest out that are ready until there is room for so much more.
    fn make_room(&mut self, bytes: u64, segments: usize) -> Option<Vec<Entry>> {
        let mut too_much = (self.bytes + bytes).saturating_sub(self.bound);
        let mut too_many = (self.len() + segments).saturating_sub(MAX_SEGMENTS);
        let mut counts = [0; 4];
        for (list, count) in self.lists().into_iter().zip(&mut counts) {
            for entry in list.iter().take_while(|entry| entry.ready) {
                if too_much == 0 && too_many == 0 {
                    break;
                }
                too_much = too_much.saturating_sub(on_disk(entry.reserved));
                too_many = too_many.saturating_sub(1);
                *count += 1;
            }
        }
        if too_much > 0 || too_many > 0 {
            return None;
        }
        let lists = self.lists().into_iter().zip(counts);
        let evicted: Vec<Entry> = lists.flat_map(|(list, count)| list.drain(..count)).collect();
        self.bytes -= evicted.iter().map(|entry| on_disk(entry.reserved)).sum::<u64>();
        Some(evicted)
    }

    /// In the order in which they give way; what is in memory as well never does.
    fn lists(&mut self) -> [&mut VecDeque<Entry>; 5] {
        let Index { uncounted, apart, own, overflow, taken, .. } = self;
        [uncounted, apart, own, overflow, taken]
    }

    fn len(&self) -> usize {
        let lists = [&self.uncounted, &self.apart, &self.own, &self.overflow, &self.taken];
        lists.iter().map(|list| list.len()).sum()
    }

    /// What was to be written is, up to that hash. Says whether it is the oldest of its list: who
    /// waits for one did not see it.
    pub fn commit(&mut self, id: SegmentId, hash: Hash) -> bool {
        // Of each list one is written at a time, and it is the newest.
        for list in self.lists() {
            if let Some(entry) = list.back_mut().filter(|entry| entry.id == id) {
                (entry.ready, entry.length, entry.hash) = (true, entry.reserved, Some(hash));
                return list.len() == 1;
            }
        }
        false
    }

    /// What was to be appended could not be: the segment is as it was before, without these events,
    /// and nothing more is appended to it.
    pub fn undo(&mut self, id: SegmentId, events: u64) {
        self.open = None;
        if let Some(entry) = self.overflow.back_mut().filter(|entry| entry.id == id) {
            self.bytes -= on_disk(entry.reserved) - on_disk(entry.length);
            (entry.ready, entry.reserved) = (true, entry.length);
            entry.events -= events;
        }
    }

    /// Nothing more is appended to the newest.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Its file has the name of one that may have been sent, or has it no more.
    pub fn mark(&mut self, id: SegmentId, in_doubt: bool) {
        if let Some(entry) = self.taken.iter_mut().find(|entry| entry.id == id) {
            entry.in_doubt = in_doubt;
        }
    }

    /// An earlier process left it, and now it is known what it holds, up to that hash.
    pub fn count(&mut self, id: SegmentId, events: u64, hash: Hash) {
        if let Some(entry) = self.taken.iter_mut().find(|entry| entry.id == id) {
            (entry.events, entry.counted, entry.hash) = (events, true, Some(hash));
        }
    }

    /// It was read, and is as it was: it waits apart.
    pub fn put_back(&mut self, id: SegmentId) {
        let entry = self.untake(id);
        self.apart.extend(entry);
    }

    fn untake(&mut self, id: SegmentId) -> Option<Entry> {
        let at = self.taken.iter().position(|entry| entry.id == id)?;
        self.taken.remove(at)
    }

    /// It could not be written, or is settled.
    pub fn remove(&mut self, id: SegmentId) -> Option<Entry> {
        self.open = self.open.take().filter(|open| open.id != id);
        let entry = self.lists().into_iter().find_map(|list| {
            let at = list.iter().rposition(|entry| entry.id == id)?;
            list.remove(at)
        })?;
        self.bytes = self.bytes.saturating_sub(on_disk(entry.reserved));
        Some(entry)
    }

    /// An earlier process left it.
    pub fn left_behind(&mut self, path: Box<Path>, bytes: u64) -> SegmentId {
        self.last += 1;
        self.bytes += on_disk(bytes);
        self.uncounted.push_back(Entry {
            id: self.last,
            length: bytes,
            reserved: bytes,
            left_behind: Some(path),
            ready: true,
            ..Entry::default()
        });
        self.last
    }

    /// It is read, and stays until [`Index::remove`].
    pub fn take(&mut self, id: SegmentId) -> Option<Entry> {
        let take =
            |list: &mut VecDeque<Entry>| list.pop_front_if(|entry| entry.id == id && entry.ready);
        let entry = self.lists().into_iter().take(4).find_map(take)?;
        self.taken.push_back(entry.clone());
        Some(entry)
    }

    /// The last of those that nobody has read is read to be counted, and taken meanwhile.
    pub fn take_uncounted(&mut self) -> Option<Entry> {
        let entry = self.uncounted.pop_back()?;
        self.taken.push_back(entry.clone());
        Some(entry)
    }

    /// It is counted, and waits where it did: behind those that are not.
    pub fn put_counted_back(&mut self, id: SegmentId) {
        if let Some(entry) = self.untake(id) {
            self.apart.push_front(entry);
        }
    }

    /// As it was taken.
    #[must_use]
    pub fn entry(&self, id: SegmentId) -> Option<Entry> {
        self.taken.iter().find(|entry| entry.id == id).cloned()
    }

    /// The oldest of what waits in order, and of what waits apart.
    #[must_use]
    pub fn view(&self) -> View {
        let oldest = |list: &VecDeque<Entry>| match list.front() {
            None => Oldest::Empty,
            Some(entry) if entry.ready => Oldest::Ready(entry.id),
            Some(_) => Oldest::Writing,
        };
        let mut apart = [&self.own, &self.uncounted, &self.apart].into_iter();
        let apart = apart.find(|list| !list.is_empty()).map(oldest).unwrap_or_default();
        // All that is on disk is at least as much, and known without a look at each.
        let uncounted = if self.uncounted.is_empty() { 0 } else { self.bytes.max(1) };
        View { overflow: oldest(&self.overflow), apart, uncounted }
    }

    /// Everything, for whoever deletes it.
    pub fn drain(&mut self) -> Vec<Entry> {
        (self.bytes, self.open) = (0, None);
        let mut all = Vec::new();
        self.lists().into_iter().for_each(|list| all.extend(list.drain(..)));
        all
    }

    /// On disk, or being written, in whole blocks.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASHED: Hash = [7; HASH];
    const IN_ORDER: Purpose = Purpose::Overflow { introduces: None };
    const INTRODUCING: Purpose = Purpose::Overflow { introduces: Some(0) };
    const APART: Purpose = Purpose::Apart { in_doubt: false, refused: true };
    const OWN: Purpose = Purpose::Apart { in_doubt: false, refused: false };

    fn batch(bytes: u64) -> Batch {
        Batch { bytes, events: 1, payload: usize::try_from(bytes).unwrap(), records: 1 }
    }

    fn index(blocks: u64) -> Index {
        Index::new(blocks * BLOCK, 1000)
    }

    fn put(index: &mut Index, blocks: u64, apart: bool) -> (SegmentId, Vec<SegmentId>) {
        let purpose = if apart { APART } else { IN_ORDER };
        let slot = index.begin(&batch(blocks * BLOCK), purpose).unwrap();
        index.commit(slot.id, HASHED);
        (slot.id, slot.evicted.iter().map(|entry| entry.id).collect())
    }

    /// It is in memory: another one that gave way for it would be lost for nothing.
    #[test]
    fn a_copy_is_like_what_was_read_and_nothing_gives_way_for_it() {
        let mut index = index(4);
        let copy = Purpose::Copy { in_doubt: true };
        let id = index.begin(&batch(10), copy).unwrap().id;
        index.commit(id, HASHED);
        let entry = index.entry(id).unwrap();
        assert_eq!((entry.hash, entry.length, entry.in_doubt), (Some(HASHED), 10, true));
        assert_eq!((index.view(), index.bytes()), (View::default(), BLOCK));
        let second = index.begin(&batch(BLOCK), copy).unwrap().id;
        assert!(index.begin(&batch(1), copy).is_none(), "half of the room is used");
        put(&mut index, 2, false);
        assert!(index.begin(&batch(1), IN_ORDER).unwrap().evicted.len() == 1, "no copy");
        index.put_back(id);
        assert_eq!(index.view().apart, Oldest::Ready(id));
        assert!(index.remove(second).is_some() && index.entry(second).is_none());
    }

    #[test]
    fn in_order_and_nothing_that_is_still_being_written() {
        let mut index = index(100);
        let first = index.begin(&Batch { events: 3, ..batch(10) }, IN_ORDER).unwrap().id;
        assert_eq!(index.view(), View { overflow: Oldest::Writing, ..View::default() });
        assert_eq!(index.take(first), None, "it is being written");
        assert!(index.commit(first, HASHED), "who waits for it is to hear");
        let second = index.begin(&batch(10), IN_ORDER).unwrap().id;
        assert!(!index.commit(second, HASHED), "nobody waits for it");
        assert!(!index.commit(9, HASHED), "there is none");
        assert_eq!(index.take(second), None, "not before the first");
        assert_eq!(index.view().overflow, Oldest::Ready(first));
        assert_eq!(index.take(first).unwrap().events, 3);
        assert_eq!(index.view().overflow, Oldest::Ready(second));
        assert_eq!(index.bytes(), 2 * BLOCK, "what is taken is still on disk");
        index.remove(first);
        index.remove(second);
        assert_eq!((index.bytes(), index.view().overflow), (0, Oldest::Empty));
        assert_eq!(index.remove(first), None);
    }

    #[test]
    fn small_batches_share_a_segment_until_it_is_full_or_read() {
        let mut index = index(100);
        let small = Batch { events: 2, ..batch(300) };
        assert!(index.append(&small, None).is_none(), "there is none");
        let first = index.begin(&small, IN_ORDER).unwrap().id;
        assert!(index.commit(first, HASHED));
        for n in 1..3 {
            let slot = index.append(&small, None).unwrap();
            assert_eq!((slot.id, slot.at, slot.before), (first, n * 300, Some(HASHED)));
            assert_eq!(index.view().overflow, Oldest::Writing, "nobody reads it meanwhile");
            assert!(index.commit(first, HASHED));
        }
        assert_eq!(index.bytes(), BLOCK);
        assert!(index.append(&small, None).is_none(), "1000 bytes are a segment");
        let second = index.begin(&small, IN_ORDER).unwrap().id;
        assert!(!index.commit(second, HASHED), "it is not the oldest");
        assert_eq!(index.take(first).unwrap().events, 6);
        index.take(second).unwrap();
        assert!(index.append(&small, None).is_none(), "it was read");
        // Nor to one that begins with other sandbox events, nor beyond the records of a request.
        for (introduces, records) in [(Some(1), 1), (Some(0), MAX_RECORDS)] {
            let id = index.begin(&small, INTRODUCING).unwrap().id;
            index.commit(id, HASHED);
            assert!(index.append(&Batch { records, ..small }, introduces).is_none());
            let id = index.begin(&small, INTRODUCING).unwrap().id;
            index.commit(id, HASHED);
            let fits = Batch { records: MAX_RECORDS - 1, ..small };
            assert!(index.append(&fits, Some(0)).is_some());
            index.commit(id, HASHED);
        }
        let (apart, _) = put(&mut index, 1, true);
        assert_ne!(index.append(&batch(1), Some(0)).map(|slot| slot.id), Some(apart));
    }

    #[test]
    fn a_segment_takes_the_records_of_one_request_in_however_many_batches() {
        let mut index = index(100);
        let of = |records: usize| Batch { records, ..batch(1) };
        let id = index.begin(&of(200), IN_ORDER).unwrap().id;
        index.commit(id, HASHED);
        for records in [200, MAX_RECORDS - 400] {
            assert!(index.append(&of(records), None).is_some(), "{records}");
            index.commit(id, HASHED);
        }
        assert!(index.append(&of(1), None).is_none());
    }

    #[test]
    fn a_segment_stays_open_while_others_are_settled() {
        let mut index = index(100);
        let (first, _) = put(&mut index, 1, false);
        let open = index.begin(&batch(10), IN_ORDER).unwrap().id;
        index.commit(open, HASHED);
        index.take(first).unwrap();
        index.remove(first);
        assert_eq!(index.append(&batch(10), None).map(|slot| slot.id), Some(open));
    }

    #[test]
    fn what_could_not_be_appended_leaves_the_segment_as_it_was() {
        let mut index = index(100);
        let first = index.begin(&Batch { events: 3, ..batch(600) }, IN_ORDER).unwrap().id;
        index.commit(first, HASHED);
        let large = Batch { bytes: 5000, events: 7, ..batch(300) };
        index.append(&large, None).unwrap();
        assert_eq!(index.bytes(), 2 * BLOCK);
        index.undo(first, 7);
        assert_eq!((index.bytes(), index.view().overflow), (BLOCK, Oldest::Ready(first)));
        assert!(index.append(&batch(1), None).is_none(), "its end is not known to be good");
        let entry = index.take(first).unwrap();
        assert_eq!((entry.length, entry.events), (600, 3));
    }

    #[test]
    fn the_oldest_give_way_and_those_apart_first() {
        let mut index = index(10);
        assert!(index.begin(&batch(10 * BLOCK + 1), IN_ORDER).is_none());
        let (first, _) = put(&mut index, 4, false);
        let (apart, _) = put(&mut index, 4, true);
        let (third, evicted) = put(&mut index, 4, false);
        assert_eq!(evicted, [apart]);
        let (_, evicted) = put(&mut index, 10, false);
        assert_eq!(evicted, [first, third]);
        assert_eq!(index.bytes(), 10 * BLOCK);
    }

    #[test]
    fn for_what_is_appended_others_give_way_and_never_its_own_segment() {
        let mut index = Index::new(16 * BLOCK, 1_000_000);
        let (first, _) = put(&mut index, 15, false);
        let open = index.begin(&batch(1000), IN_ORDER).unwrap().id;
        index.commit(open, HASHED);
        let slot = index.append(&Batch { bytes: BLOCK, ..batch(1) }, None).unwrap();
        assert_eq!(slot.evicted.iter().map(|entry| entry.id).collect::<Vec<_>>(), [first]);
        index.commit(open, HASHED);
        assert!(index.append(&Batch { bytes: 15 * BLOCK, ..batch(1) }, None).is_none());
        assert_eq!(index.view().overflow, Oldest::Ready(open), "it can be read all the same");
        // A part of the room is a segment.
        let open = index.begin(&batch(BLOCK), IN_ORDER).unwrap().id;
        index.commit(open, HASHED);
        assert!(index.append(&batch(BLOCK), None).is_some());
        index.commit(open, HASHED);
        assert!(index.append(&batch(1), None).is_none());
    }

    #[test]
    fn what_is_being_written_or_read_does_not_give_way() {
        let mut index = index(10);
        let (first, _) = put(&mut index, 6, false);
        index.take(first);
        assert!(index.begin(&batch(6 * BLOCK), IN_ORDER).is_none());
        let writing = index.begin(&batch(4 * BLOCK), IN_ORDER).unwrap();
        assert!(writing.evicted.is_empty());
        assert!(index.begin(&batch(1), APART).is_none(), "the room is used up");
        index.remove(writing.id);
        assert!(index.begin(&batch(1), APART).is_some());
    }

    #[test]
    fn there_are_only_so_many_segments() {
        let mut index = Index::new(u64::MAX / 2, 0);
        let ids: Vec<_> = (0..MAX_SEGMENTS).map(|_| put(&mut index, 1, false).0).collect();
        let (_, evicted) = put(&mut index, 1, false);
        assert_eq!(evicted, [ids[0]]);
        assert_eq!(index.bytes(), MAX_SEGMENTS as u64 * BLOCK);
        // Those apart and those that are being read are of that number.
        let (apart, evicted) = put(&mut index, 1, true);
        assert_eq!(evicted, [ids[1]]);
        index.take(ids[2]).unwrap();
        let (_, evicted) = put(&mut index, 1, false);
        assert_eq!(evicted, [apart]);
        while let Oldest::Ready(id) = index.view().overflow {
            index.take(id).unwrap();
        }
        assert!(index.begin(&batch(1), IN_ORDER).is_none(), "all are being read");
        assert!(MAX_SEGMENTS * size_of::<Entry>() <= 1 << 20);
    }

    #[test]
    fn what_was_read_and_is_put_back_stands_apart_behind_the_others() {
        let mut index = index(100);
        let (first, _) = put(&mut index, 1, false);
        index.left_behind(Path::new("a").into(), 10);
        let left = index.take(2).unwrap();
        assert!(!left.counted);
        index.count(2, 7, HASHED);
        index.take(first).unwrap();
        index.mark(first, true);
        index.put_back(first);
        index.put_back(2);
        index.put_back(9);
        assert_eq!(index.view(), View { apart: Oldest::Ready(first), ..View::default() });
        assert_eq!((index.bytes(), index.entry(first)), (2 * BLOCK, None));
        assert!(index.take(first).unwrap().in_doubt);
        let left = index.take(2).unwrap();
        assert_eq!((left.counted, left.events, left.in_doubt), (true, 7, false));
        assert_eq!(left.hash, Some(HASHED), "nobody changes it meanwhile");
    }

    /// Events that were written in the pause of a refused one waited behind all that an earlier
    /// process had left, of which Kinesis refused each.
    #[test]
    fn what_was_never_refused_is_read_before_what_was_left_behind() {
        let mut index = index(10);
        let left = index.left_behind(Path::new("a").into(), 10);
        let refused = put(&mut index, 1, true).0;
        let mut own = || {
            let id = index.begin(&batch(BLOCK), OWN).unwrap().id;
            index.commit(id, HASHED);
            id
        };
        let own = [own(), own()];
        let in_order = put(&mut index, 1, false).0;
        // The oldest give way first all the same.
        let evicted = put(&mut index, 6, false).1;
        assert_eq!(evicted, [left]);
        for id in own.into_iter().chain([refused]) {
            assert_eq!(index.view().apart, Oldest::Ready(id));
            index.take(id).unwrap();
        }
        assert_eq!(index.view().apart, Oldest::Empty);
        index.put_back(own[0]);
        assert_eq!(
            index.view(),
            View { overflow: Oldest::Ready(in_order), apart: Oldest::Ready(own[0]), uncounted: 0 }
        );
        assert_eq!(index.drain().len(), 5);
        let id = index.begin(&batch(BLOCK), OWN).unwrap().id;
        assert_eq!((index.remove(id).is_some(), index.view().apart), (true, Oldest::Empty));
    }

    #[test]
    fn what_may_have_been_sent_is_read_as_such() {
        let mut index = index(100);
        for in_doubt in [true, false] {
            let id = index.begin(&batch(1), Purpose::Apart { in_doubt, refused: true }).unwrap().id;
            index.commit(id, HASHED);
            assert_eq!(index.take(id).unwrap().in_doubt, in_doubt);
        }
    }

    #[test]
    fn the_room_of_what_was_left_behind_is_free_once_that_is_settled() {
        let mut index = index(100);
        let id = index.left_behind(Path::new("a").into(), BLOCK + 1);
        assert_eq!(index.bytes(), 2 * BLOCK);
        index.take(id).unwrap();
        index.remove(id);
        assert_eq!(index.bytes(), 0);
    }

    /// Whichever of them are counted, they are read in their order.
    #[test]
    fn what_was_left_behind_keeps_its_order_when_it_is_counted() {
        let mut index = index(100);
        let left: Vec<_> = (0..4).map(|_| index.left_behind(Path::new("a").into(), 10)).collect();
        let refused = put(&mut index, 1, true).0;
        for id in left.iter().rev().take(2) {
            assert!(index.view().uncounted > 0);
            assert_eq!(index.take_uncounted().unwrap().id, *id);
            index.count(*id, 7, HASHED);
            index.put_counted_back(*id);
        }
        for id in left.iter().copied().chain([refused]) {
            assert_eq!(index.view().apart, Oldest::Ready(id));
            assert_eq!(index.take(id).unwrap().is_unknown(), id <= left[1]);
        }
        assert!(index.view().uncounted == 0 && index.take_uncounted().is_none());
        assert!(index.remove(left[3]).is_some_and(|entry| entry.events == 7));
    }

    #[test]
    fn what_was_left_behind_stands_apart() {
        let mut index = index(100);
        index.left_behind(Path::new("a").into(), 10);
        assert_eq!(
            index.view(),
            View { apart: Oldest::Ready(1), uncounted: BLOCK, ..View::default() }
        );
        assert_eq!(index.drain().len(), 1);
        assert_eq!(index.bytes(), 0);
    }
}
