//! What waits, wherever it is, and how long it takes to deliver that once Kinesis does well.

use kinesis_telemetry_extension::dispatch::backlog::SegmentId;
use kinesis_telemetry_extension::dispatch::message::Message;

use crate::checks::{load_numbers, request_numbers};
use crate::keep::Choice;
use crate::kinesis::Verdict;
use crate::world::{Busy, Fate, Healed, SpoolFile, Taking, World};

impl World {
    /// From now on Kinesis takes what it ever takes.
    pub(crate) fn note_healed(&mut self) {
        let poisoned = self.waiting_anywhere().into_iter().filter(|event| self.is_poison(*event));
        let poisoned = poisoned.count() as u64;
        let (requests_waiting, largest) = self.requests_waiting();
        let ledger = &self.process.ledger;
        self.process.healed = Some(Healed {
            // What had no room is no matter of Kinesis.
            given_up: ledger.dropped() - ledger.dropped_queue.get(),
            requests: ledger.requests.get(),
            received: ledger.received.get(),
            poisoned,
            requests_waiting,
            largest,
            barren: 0,
            at_round: None,
        });
    }

    /// The events from before Kinesis did well that wait in memory or on disk, and are not refused
    /// for what they hold, and what was sent with one that is.
    pub(crate) fn deliverable(&self) -> Vec<u32> {
        let mut waiting = self.waiting_anywhere();
        let sending = match &self.process.busy {
            Busy::Send { parcel, .. } => request_numbers(&parcel.request),
            _ => Vec::new(),
        };
        waiting.retain(|event| {
            let fate = &self.events[*event as usize];
            // Another process does not know how often one before it was refused.
            let refused = if fate.process == self.process.number { fate.refused } else { 0 };
            // What comes later is on its way, unless it failed with one of those.
            let has_failed = fate.tried_at.is_some() && !sending.contains(event);
            let is_due = *event < self.clean_from || has_failed;
            is_due && !self.is_poison(*event) && refused < 3 && !fate.excused
        });
        waiting
    }

    /// How many requests what waits makes at most, and the events of the largest.
    fn requests_waiting(&self) -> (u64, u64) {
        let process = &self.process;
        let backlog = process.core.backlog();
        let in_channel = process.channel.iter().filter_map(|message| match message {
            Message::Telemetry { load, .. } => Some(load.events()),
            _ => None,
        });
        let fresh = backlog.fresh().map(|item| item.load.events());
        let aside = backlog.aside().iter().map(|parcel| parcel.request.events());
        let busy = match &process.busy {
            Busy::Send { parcel, .. } | Busy::Spool { parcel, .. } => parcel.request.events(),
            _ => 0,
        };
        let on_disk = self.files_waiting().map(|file| file.events.len() as u64);
        // An event that is not packed yet may need a request of its own.
        let mut unpacked = self.waiting_in_listener().len() as u64;
        let (mut requests, mut largest) = (0, 0);
        for events in in_channel.chain(fresh) {
            unpacked += events;
        }
        for events in aside.chain([busy]).chain(on_disk) {
            requests += 1;
            largest = events.max(largest);
        }
        (requests + unpacked, largest.max(unpacked))
    }

    /// The files whose events wait on disk. Of a segment that was read, what waits is in memory:
    /// its file holds what was delivered, given up or written elsewhere as well.
    fn files_waiting(&self) -> impl Iterator<Item = &SpoolFile> {
        let process = &self.process;
        let reading = process.reading.as_ref().map(|entry| entry.id);
        let was_read =
            move |id: &SegmentId| process.index.entry(*id).is_some() && reading != Some(*id);
        let read: Vec<u64> =
            process.files.iter().filter(|(id, _)| was_read(id)).map(|(_, file)| *file).collect();
        self.files.iter().filter(move |(file, _)| !read.contains(file)).map(|(_, file)| file)
    }

    /// The events that the listener has taken, and that wait for a choice, or to be written.
    fn waiting_in_listener(&self) -> Vec<u32> {
        let number = self.process.number;
        let undecided = |(event, fate): (usize, &Fate)| {
            let waits = fate.choice == Choice::Waits && fate.process == number && !fate.excused;
            waits.then_some(u32::try_from(event).unwrap())
        };
        let mut waiting: Vec<u32> = self.events.iter().enumerate().filter_map(undecided).collect();
        if let Taking::Writing { events, rest, .. } = &self.process.taking {
            waiting.extend(events);
            waiting.extend(rest.iter().flat_map(request_numbers));
        }
        waiting
    }

    pub(crate) fn waiting_anywhere(&self) -> Vec<u32> {
        let process = &self.process;
        let mut waiting = self.waiting_in_listener();
        waiting.extend(self.files_waiting().flat_map(|file| file.events.iter().copied()));
        for message in &process.channel {
            if let Message::Telemetry { load, .. } = message {
                waiting.extend(load_numbers(load));
            }
        }
        let backlog = process.core.backlog();
        waiting.extend(backlog.fresh().flat_map(|item| load_numbers(&item.load)));
        let aside = backlog.aside().iter().flat_map(|parcel| request_numbers(&parcel.request));
        waiting.extend(aside);
        if let Busy::Send { parcel, .. } | Busy::Spool { parcel, .. } = &process.busy {
            waiting.extend(request_numbers(&parcel.request));
        }
        waiting.retain(|event| !self.events[*event as usize].acknowledged);
        waiting.sort_unstable();
        waiting.dedup();
        waiting
    }

    /// See [`World::most_rounds`].
    pub(crate) fn note_largest(&mut self, verdict: &Verdict) {
        let events = verdict.events.concat();
        let is_poisoned = events.iter().any(|event| self.is_poison(*event));
        if let Some(healed) = self.process.healed.as_mut().filter(|_| is_poisoned) {
            healed.largest = healed.largest.max(events.len() as u64);
        }
    }

    /// A round of quiet invocations begins.
    pub(crate) fn note_round(&mut self, rounds: u32) {
        let (fruitful, requests) = (self.process.fruitful, self.process.ledger.requests.get());
        if let Some(healed) = &mut self.process.healed {
            let (before, requests_before) =
                healed.at_round.replace((fruitful, requests)).unwrap_or_default();
            let is_barren = fruitful == before && requests > requests_before;
            healed.barren += u64::from(is_barren && rounds > 0);
        }
    }

    /// So many quiet invocations are enough to deliver all that can be. An upper bound by the
    /// core's own rules:
    ///
    /// - With `KEEP`, what waits for its choice is decided in the first round, perhaps behind its
    ///   flush: it is asked for in the next one.
    /// - Between two rounds 40 s pass: longer than the longest pause of what is set aside (10 s),
    ///   the longest time between two probes (30 s) and `MAX_AGE_MS`. So in each round all that
    ///   waits is due, and Kinesis is asked. The first request may be the probe that ends an
    ///   outage, and may be all of its round: one round.
    /// - What is not refused is taken at once, and there is no pause behind a request that
    ///   delivers. A round has 300 ms at least and a request 15 ms at most, with a read of the disk
    ///   before it 1 ms more: 18 of them a round.
    /// - What is refused for what it holds makes way, and then pauses all others for 50, 100, 200
    ///   ms at most, until something is delivered, as in each round the quiet post is: three
    ///   refusals a round have room in 300 ms (at 0, 50 and 150 ms). In a round in which requests
    ///   deliver nothing it is one: once a flush has delivered nothing, Kinesis is only probed. The
    ///   quiet post may come behind the probe, be thinned out, as its report says nothing of a
    ///   failure and may come before its end, or have no room beside the state of gzip, which is
    ///   larger than most bounds here.
    /// - A request with one refused event is refused once more (twice in all, where nothing was
    ///   taken meanwhile), then halved until that event stands alone: log2 of its events. Alone it
    ///   is refused three times. Where the code says nothing of its content, it is divided after
    ///   five refusals at the latest, and alone it is not given up, and keeps nothing waiting. More
    ///   such events in one request share refusals. It may be packed with others that come later.
    /// - What was read from disk, divided, and written there again to make room is read once more:
    ///   within the same numbers, as how often it was refused is remembered; but a read and a write
    ///   take a request's time, so that two rounds are added.
    pub(crate) fn most_rounds(&self) -> u32 {
        const OUTAGE: u64 = 1;
        const DISK: u64 = 2;
        const REQUESTS: u64 = 18;
        const REFUSALS: u64 = 3;
        let Some(healed) = self.process.healed else { return 0 };
        let choice = u64::from(self.process.keeping.is_some());
        let halvings = u64::from(healed.largest.max(1).next_power_of_two().ilog2());
        let refusals = healed.poisoned * (2 + halvings + 3);
        let barren = healed.barren.min(refusals);
        let rounds = OUTAGE
            + DISK
            + choice
            + healed.requests_waiting.div_ceil(REQUESTS)
            + barren
            + (refusals - barren).div_ceil(REFUSALS);
        u32::try_from(rounds).unwrap_or(u32::MAX)
    }
}
