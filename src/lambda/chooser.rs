//! The invocations between which `KEEP` chooses, and their events. Pure: no thread, clock or log.
//!
//! The events of an invocation wait here until it ends. Then `keep` says whether they are shipped or thinned out. Batches leave in the order
//! in which they came, so one waits until all its events are decided. What is shipped gets its number when it leaves: what was thinned out
//! leaves no gap.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::keep::{Choice, Facts, Reason, Settings, choose, kept};
use super::observed::{LEVELS, Milestone, MilestoneKind, Observed, PlatformResult, Run};
use super::summary::Summary;
use crate::clock::EpochMs;
use crate::event::Batch;

/// Invocations that are over and remembered: late events follow the choice of theirs.
const MAX_OVER: usize = 64;
/// All that are remembered. On Managed Instances many run at the same time.
const MAX_INVOCATIONS: usize = 1024;
/// The owner of an event that belongs to no invocation, or to a forgotten one that is kept.
const NOBODY: u64 = 0;
/// The owner of an event of a forgotten invocation that is thinned out.
const THINNED: u64 = u64::MAX;

/// A batch that waits.
#[derive(Debug)]
struct Held<C> {
    batch: Batch,
    /// The serials of the invocations to which its events belong, and how many do.
    owners: Vec<(u64, u32)>,
    charge: C,
}

/// The events that wait for their invocation's end, and what is known of the invocations. `C` comes
/// with a batch and goes with it.
#[derive(Debug)]
pub struct Chooser<C> {
    settings: Settings,
    /// Invocations run side by side, so that the end of one says nothing of others.
    overlapping: bool,
    /// By serial.
    invocations: VecDeque<Invocation>,
    /// The serials of those that are over, in the order of their ends.
    over: VecDeque<u64>,
    held: VecDeque<Held<C>>,
    held_bytes: usize,
    last_serial: u64,
    /// The last event number, and after which restore.
    number: u64,
    restores: u16,
    thinned: u64,
}

impl<C: Default> Chooser<C> {
    /// Nothing waits yet. `overlapping`: invocations run side by side (Managed Instances).
    #[must_use]
    pub fn new(settings: Settings, overlapping: bool) -> Chooser<C> {
        Chooser {
            settings,
            overlapping,
            invocations: VecDeque::new(),
            over: VecDeque::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            last_serial: 0,
            number: 0,
            restores: 0,
            thinned: 0,
        }
    }

    /// Takes what a body brought. `now` is the time of a summary.
    pub fn take(&mut self, batch: Batch, observed: Observed, now: EpochMs, charge: C) {
        let owners = self.count(&batch, &observed.runs, now);
        self.hold(batch, owners, charge);
        // Before its end is looked at: what one body held must not decide.
        while self.held_bytes > self.settings.max_bytes && self.decide_oldest() {}
        for milestone in observed.milestones {
            self.pass(milestone, now);
        }
        if observed.is_gap && !self.overlapping {
            self.lose_ends();
        }
    }

    /// The end of what is in progress may never come: nothing waits for it any more.
    pub fn lose_ends(&mut self) {
        self.undecided().for_each(|invocation| invocation.choice = Some(kept(Reason::Unfinished)));
    }

    /// The sandbox ran for so long: an invocation that has run longer than `MAX_AGE_MS` is kept.
    pub fn tick(&mut self, elapsed: Duration) {
        let max_age = self.settings.max_age;
        for invocation in self.undecided() {
            invocation.age += elapsed;
            if invocation.age > max_age {
                invocation.choice = Some(kept(Reason::Long));
            }
        }
    }

    /// Keeps whatever is not decided yet, because there is no room for it.
    pub fn keep_all(&mut self) {
        if self.settings.chooses() {
            self.undecided().for_each(|invocation| invocation.choice = Some(kept(Reason::Large)));
        }
    }

    /// The sandbox ends: what is not decided is kept, and summaries go without the reports that did
    /// not come.
    pub fn finish(&mut self, now: EpochMs) {
        self.lose_ends();
        (0..self.invocations.len()).for_each(|at| self.sum_up(at, now));
    }

    /// The next batch whose events are all decided, without those that are thinned out; it may be
    /// empty.
    pub fn next_ready(&mut self) -> Option<(Batch, C)> {
        let is_open = |(owner, _): &(u64, u32)| self.is_kept(*owner).is_none();
        if self.held.front()?.owners.iter().any(is_open) {
            return None;
        }
        let Held { mut batch, owners, charge } = self.held.pop_front()?;
        self.held_bytes = self.held_bytes.saturating_sub(batch.cost());
        if owners.iter().any(|(owner, _)| self.is_kept(*owner) == Some(false)) {
            let mut runs = owners.into_iter();
            let (mut left, mut is_kept) = (0, true);
            batch.retain(|_| {
                if left == 0 {
                    let (owner, count) = runs.next().unwrap_or((NOBODY, u32::MAX));
                    (left, is_kept) = (count, self.is_kept(owner).unwrap_or(true));
                }
                left -= 1;
                self.thinned += u64::from(!is_kept);
                is_kept
            });
        }
        for event in batch.remaining_mut() {
            if event.restores != self.restores {
                (self.restores, self.number) = (event.restores, 0);
            }
            self.number += 1;
            event.number = self.number;
        }
        Some((batch, charge))
    }

    /// Events thinned out since it was asked last.
    pub fn take_thinned(&mut self) -> u64 {
        std::mem::take(&mut self.thinned)
    }

    /// Whether something waits for a choice.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether the events of an invocation are shipped; `None` while that is not decided.
    fn is_kept(&self, owner: u64) -> Option<bool> {
        match owner {
            _ if !self.settings.chooses() => return Some(true),
            NOBODY => return Some(true),
            THINNED => return Some(false),
            _ => {}
        }
        let Some(invocation) = self.at(owner).and_then(|at| self.invocations.get(at)) else {
            return Some(true);
        };
        invocation.choice.map(|choice| choice.kept)
    }

    /// The index of the invocation with that serial.
    fn at(&self, serial: u64) -> Option<usize> {
        self.invocations.binary_search_by_key(&serial, |invocation| invocation.serial).ok()
    }

    fn undecided(&mut self) -> impl Iterator<Item = &mut Invocation> {
        self.invocations.iter_mut().filter(|invocation| invocation.choice.is_none())
    }

    /// Counts a batch's events for their invocations, and says whose they are.
    fn count(&mut self, batch: &Batch, runs: &[Run], now: EpochMs) -> Vec<(u64, u32)> {
        let mut owners = Vec::with_capacity(runs.len());
        for run in runs {
            let id = std::str::from_utf8(run.request_id.of(batch.bytes())).unwrap_or_default();
            let mut owner = NOBODY;
            if !id.is_empty() {
                let at = self.find_or_add(id, now);
                if let Some(invocation) = self.invocations.get_mut(at) {
                    invocation.observe(run);
                    owner = invocation.serial;
                }
            }
            if run.events > 0 {
                owners.push((owner, run.events));
            }
        }
        owners
    }

    fn hold(&mut self, batch: Batch, owners: Vec<(u64, u32)>, charge: C) {
        if !batch.remaining().is_empty() {
            self.held_bytes += batch.cost();
            self.held.push_back(Held { batch, owners, charge });
        }
    }

    /// The index of an invocation.
    fn find_or_add(&mut self, request_id: &str, now: EpochMs) -> usize {
        let found = self.invocations.iter().rposition(|one| *one.request_id == *request_id);
        found.unwrap_or_else(|| {
            if self.over.len() > MAX_OVER
                && let Some(at) = self.over.pop_front().and_then(|serial| self.at(serial))
            {
                self.forget(at, now);
            }
            if self.invocations.len() >= MAX_INVOCATIONS {
                self.forget(0, now);
            }
            self.last_serial += 1;
            self.invocations.push_back(Invocation::new(self.last_serial, request_id));
            self.invocations.len() - 1
        })
    }

    fn pass(&mut self, milestone: Milestone, now: EpochMs) {
        let Milestone { request_id, trace_id, tenant_id, is_first, kind, result } = milestone;
        let at = self.find_or_add(&request_id, now);
        let Some(invocation) = self.invocations.get_mut(at) else { return };
        invocation.trace_id = invocation.trace_id.take().or(trace_id);
        invocation.tenant_id = invocation.tenant_id.take().or(tenant_id);
        invocation.facts.first |= is_first;
        invocation.result.update(*result);
        if kind == MilestoneKind::Started {
            invocation.is_ours = true;
            return;
        }
        invocation.end(&self.settings);
        let (serial, is_ours) = (invocation.serial, invocation.is_ours);
        if is_ours && !self.overlapping {
            // The ends of those before it were lost.
            for before in self.undecided().filter(|one| one.serial < serial) {
                before.choice = Some(kept(Reason::Unfinished));
            }
        }
        if kind == MilestoneKind::Reported {
            self.sum_up(at, now);
            self.remember(at);
        }
    }

    /// An invocation is over: of those only the last ones are remembered.
    fn remember(&mut self, at: usize) {
        let Some(invocation) = self.invocations.get_mut(at).filter(|one| !one.is_over) else {
            return;
        };
        invocation.is_over = true;
        self.over.push_back(invocation.serial);
    }

    /// Keeps the invocation for which the oldest batch waits. Says whether there is one.
    fn decide_oldest(&mut self) -> bool {
        let owners = self.held.front().map(|held| held.owners.as_slice()).unwrap_or_default();
        let mut owners = owners.iter().map(|(owner, _)| *owner);
        let Some(owner) = owners.find(|owner| self.is_kept(*owner).is_none()) else {
            return false;
        };
        for invocation in self.undecided().filter(|invocation| invocation.serial == owner) {
            invocation.choice = Some(kept(Reason::Large));
        }
        true
    }

    /// Its events may still wait for those before them.
    fn forget(&mut self, at: usize, now: EpochMs) {
        if let Some(invocation) = self.invocations.get_mut(at) {
            invocation.choice.get_or_insert(kept(Reason::Unfinished));
        }
        self.sum_up(at, now);
        let Some(forgotten) = self.invocations.remove(at) else { return };
        let is_kept = forgotten.choice.is_none_or(|choice| choice.kept);
        let left = if is_kept { NOBODY } else { THINNED };
        for (owner, _) in self.held.iter_mut().flat_map(|held| &mut held.owners) {
            if *owner == forgotten.serial {
                *owner = left;
            }
        }
    }

    /// Puts an invocation's summary behind what waits.
    fn sum_up(&mut self, at: usize, now: EpochMs) {
        let restores =
            self.held.back().and_then(|held| Some(held.batch.remaining().last()?.restores));
        let Some(invocation) = self.invocations.get_mut(at) else { return };
        if !self.settings.summary || !invocation.is_ours || invocation.is_summed_up {
            return;
        }
        invocation.is_summed_up = true;
        let batch = invocation.summary(now, restores.unwrap_or(self.restores));
        self.hold(batch, vec![(NOBODY, 1)], C::default());
    }
}

/// One invocation, from its first event until it is forgotten.
#[derive(Debug)]
struct Invocation {
    serial: u64,
    request_id: Arc<str>,
    trace_id: Option<Box<str>>,
    tenant_id: Option<Box<str>>,
    facts: Facts,
    /// How long its events have waited while the sandbox ran.
    age: Duration,
    choice: Option<Choice>,
    result: PlatformResult,
    /// Seen from its start on: only then its summary is this process's.
    is_ours: bool,
    is_over: bool,
    is_summed_up: bool,
    events: u64,
    bytes: u64,
    levels: [u64; LEVELS.len()],
}

impl Invocation {
    fn new(serial: u64, request_id: &str) -> Invocation {
        Invocation {
            serial,
            request_id: request_id.into(),
            trace_id: None,
            tenant_id: None,
            facts: Facts::default(),
            age: Duration::ZERO,
            choice: None,
            result: PlatformResult::default(),
            is_ours: false,
            is_over: false,
            is_summed_up: false,
            events: 0,
            bytes: 0,
            levels: [0; LEVELS.len()],
        }
    }

    fn observe(&mut self, run: &Run) {
        self.events += u64::from(run.events);
        self.bytes += run.bytes;
        self.facts.first |= run.is_first;
        for ((count, more), (level, _)) in self.levels.iter_mut().zip(run.levels).zip(LEVELS) {
            *count += u64::from(more);
            if more > 0 {
                self.facts.level = self.facts.level.max(Some(level));
            }
        }
    }

    /// Its end has come. Where it had to be kept before, the end may know better why.
    fn end(&mut self, settings: &Settings) {
        self.facts.failed = self.result.failed();
        self.facts.duration = self.result.duration();
        let id = self.trace_id.as_deref().unwrap_or(&self.request_id);
        let is_early = |choice: Choice| {
            matches!(choice.reason, Reason::Long | Reason::Large | Reason::Unfinished)
        };
        let chosen = || choose(settings, &self.facts, id);
        self.choice = Some(match self.choice {
            None => chosen(),
            Some(early) if is_early(early) => {
                Some(chosen()).filter(|choice| choice.reason != Reason::Share).unwrap_or(early)
            }
            Some(choice) => choice,
        });
    }

    fn summary(&self, now: EpochMs, restores: u16) -> Batch {
        let summary = Summary {
            request_id: &self.request_id,
            trace_id: self.trace_id.as_deref().unwrap_or_default(),
            tenant_id: self.tenant_id.as_deref().unwrap_or_default(),
            result: &self.result,
            is_first: self.facts.first,
            events: self.events,
            bytes: self.bytes,
            levels: &self.levels,
            choice: self.choice.unwrap_or(kept(Reason::Unfinished)),
        };
        summary.batch(now, restores)
    }
}

#[cfg(test)]
mod tests {
    use super::super::filter::{Filter, Types};
    use super::super::intake::Intake;
    use super::super::keep::tests::settings;
    use super::super::summary::SUMMARY_EVENT;
    use super::*;

    const ALL: Types = Types { platform: true, function: true, extension: true };

    /// A life: bodies go in, ids of events and what they hold come out.
    struct Life {
        intake: Intake,
        chooser: Chooser<()>,
        shipped: Vec<(u64, serde_json::Value)>,
        thinned: u64,
        posted: u64,
    }

    impl Life {
        fn new(settings: Settings) -> Life {
            let intake = Intake::new(Filter::from(ALL), false).observing(true);
            Life {
                intake,
                chooser: Chooser::new(settings, false),
                shipped: Vec::new(),
                thinned: 0,
                posted: 0,
            }
        }

        fn post(&mut self, events: &[String]) {
            self.posted += events.iter().map(|event| event.len() as u64).sum::<u64>();
            let body = format!("[{}]", events.join(","));
            let taken = self.intake.take(body.into_bytes(), 0);
            assert_counted(&taken);
            self.chooser.take(taken.batch, taken.observed, 0, ());
            self.drain();
        }

        fn drain(&mut self) {
            while let Some((batch, ())) = self.chooser.next_ready() {
                for event in batch.remaining() {
                    let text =
                        format!("{}}}", String::from_utf8_lossy(event.text.of(batch.bytes())));
                    self.shipped.push((event.number, serde_json::from_str(&text).unwrap()));
                }
            }
            self.thinned += self.chooser.take_thinned();
        }

        fn invoke(&mut self, id: &str, logs: &[&str], status: &str, ms: &str) {
            let mut events = vec![start(id)];
            events.extend(logs.iter().map(|text| log(text)));
            events.push(done(id, status, ms));
            self.post(&events);
            self.post(&[report(id, status, ms)]);
        }

        fn types(&self) -> Vec<&str> {
            self.shipped.iter().map(|(_, event)| event["type"].as_str().unwrap()).collect()
        }
    }

    fn assert_counted(taken: &super::super::intake::ParsedBody) {
        let events: u32 = taken.observed.runs.iter().map(|run| run.events).sum();
        assert_eq!(events as usize, taken.batch.remaining().len());
    }

    fn event(kind: &str, record: &str) -> String {
        format!(r#"{{"time":"2026-05-11T08:30:00.000Z","type":"{kind}","record":{record}}}"#)
    }

    fn start(id: &str) -> String {
        event("platform.start", &format!(r#"{{"requestId":"{id}","version":"1"}}"#))
    }

    fn log(text: &str) -> String {
        event("function", &serde_json::to_string(text).unwrap())
    }

    fn done(id: &str, status: &str, ms: &str) -> String {
        let record = format!(
            r#"{{"requestId":"{id}","status":"{status}","metrics":{{"durationMs":{ms}}}}}"#
        );
        event("platform.runtimeDone", &record)
    }

    fn report(id: &str, status: &str, ms: &str) -> String {
        let record = format!(
            r#"{{"requestId":"{id}","status":"{status}","metrics":{{"durationMs":{ms},"billedDurationMs":8,"memorySizeMB":128,"maxMemoryUsedMB":67}}}}"#
        );
        event("platform.report", &record)
    }

    #[test]
    fn what_is_thinned_out_leaves_no_gap() {
        let mut life = Life::new(settings());
        life.invoke("first", &["a"], "success", "7.25");
        life.invoke("dull", &["b", "c"], "success", "7.25");
        life.invoke("failed", &["d"], "error", "7.25");
        life.invoke("loud", &["e", "[ERROR] ValueError: f"], "success", "7.25");
        life.invoke("slow", &[], "success", "500.001");
        life.post(&[log("late, of the slow one")]);
        let numbers: Vec<u64> = life.shipped.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (1..=life.shipped.len() as u64).collect::<Vec<_>>());
        assert_eq!((life.shipped.len(), life.thinned), (4 + 4 + 5 + 3 + 1, 5));
        assert!(!format!("{:?}", life.shipped).contains("dull"));
    }

    #[test]
    fn where_all_are_kept_nothing_waits_and_summaries_say_why() {
        let mut life = Life::new(Settings { threshold: 1 << 32, summary: true, ..settings() });
        life.invoke("first", &[], "success", "1");
        let before = life.shipped.len();
        life.post(&[start("a"), log("one")]);
        assert_eq!(life.shipped.len(), before + 2);
        life.post(&[done("a", "error", "1"), report("a", "error", "1")]);
        life.invoke("b", &[], "success", "1");
        let summaries = life.shipped.iter().filter(|(_, event)| event["type"] == SUMMARY_EVENT);
        let reasons: Vec<_> = summaries.map(|(_, event)| &event["record"]["reason"]).collect();
        assert_eq!(reasons, ["first", "failed", "share"]);
    }

    #[test]
    fn late_events_follow_the_choice_of_their_invocation() {
        let mut life = Life::new(settings());
        life.invoke("first", &[], "success", "1");
        life.invoke("dull", &[], "success", "1");
        let before = life.shipped.len();
        life.post(&[log("[ERROR] too late to count")]);
        assert_eq!(life.shipped.len(), before);
    }

    #[test]
    fn nothing_leaves_before_the_choice_and_order_is_kept() {
        let mut life = Life::new(settings());
        life.invoke("first", &[], "success", "1");
        let before = life.shipped.len();
        life.post(&[start("a"), log("one")]);
        life.post(&[event("platform.extension", r#"{"name":"x","state":"Ready"}"#), log("two")]);
        assert_eq!(life.shipped.len(), before);
        assert!(life.chooser.is_waiting());
        life.post(&[done("a", "timeout", "3000")]);
        assert_eq!(
            life.types().split_at(before).1,
            [
                "platform.start",
                "function",
                "platform.extension",
                "function",
                "platform.runtimeDone"
            ]
        );
        assert!(!life.chooser.is_waiting());
    }

    #[test]
    fn long_and_large_invocations_are_kept() {
        let mut life = Life::new(Settings { max_bytes: 20_000, ..settings() });
        life.invoke("first", &[], "success", "1");
        let before = life.shipped.len();
        life.post(&[start("long"), log("one")]);
        life.chooser.tick(Duration::from_secs(10));
        life.drain();
        assert_eq!(life.shipped.len(), before);
        life.chooser.tick(Duration::from_millis(1));
        life.drain();
        assert_eq!(life.shipped.len(), before + 2);
        life.post(&[done("long", "success", "1"), start("large")]);
        for _ in 0..20 {
            life.post(&[log(&"x".repeat(2000))]);
        }
        assert!(life.shipped.len() >= before + 3 + 1 + 20, "{}", life.shipped.len() - before);
    }

    #[test]
    fn an_end_that_was_lost_holds_back_no_later_invocation() {
        let mut life = Life::new(Settings { summary: true, ..settings() });
        life.invoke("first", &[], "success", "1");
        let before = life.shipped.len();
        life.post(&[start("lost"), log("of the lost one")]);
        life.post(&[start("dull"), log("dull"), done("dull", "success", "1")]);
        assert_eq!(life.shipped.len(), before + 2);
        assert!(!life.chooser.is_waiting());
        // The end knows better why it was kept.
        life.post(&[done("lost", "error", "1"), report("lost", "error", "1")]);
        let (_, summary) = life.shipped.last().unwrap();
        assert_eq!((&summary["record"]["reason"], life.thinned), (&"failed".into(), 3));
    }

    #[test]
    fn a_gap_lets_the_invocation_in_progress_pass() {
        let mut life = Life::new(settings());
        life.invoke("first", &[], "success", "1");
        let before = life.shipped.len();
        life.post(&[start("open"), log("one")]);
        assert_eq!(life.shipped.len(), before);
        life.post(&[event("platform.logsDropped", r#"{"droppedRecords":1,"droppedBytes":9}"#)]);
        assert_eq!(life.shipped.len(), before + 3);
    }

    #[test]
    fn the_end_of_the_sandbox_keeps_what_is_open() {
        let mut life = Life::new(Settings { summary: true, ..settings() });
        life.invoke("first", &[], "success", "1");
        life.post(&[start("open"), log("last words")]);
        life.chooser.finish(0);
        life.drain();
        let (_, summary) = life.shipped.last().unwrap();
        assert_eq!(
            summary["record"],
            serde_json::json!({
                "requestId": "open", "events": 2, "bytes": summary["record"]["bytes"], "levels": {},
                "kept": true, "reason": "unfinished"
            })
        );
        assert!(life.types().ends_with(&["platform.start", "function", SUMMARY_EVENT]));
    }

    #[test]
    fn a_summary_is_complete_and_there_once() {
        let mut life = Life::new(Settings { summary: true, ..settings() });
        life.invoke("first", &["[INFO]\tone"], "success", "1");
        let logs = ["[INFO] one", "[WARN] two", "[INFO] three", "four"];
        life.invoke("dull", &logs, "success", "7.25");
        life.post(&[report("dull", "success", "7.25")]);
        life.post(&[report("of the process before", "timeout", "3000")]);
        life.chooser.finish(0);
        life.drain();
        let of_type = |kind| life.shipped.iter().filter(move |(_, event)| event["type"] == kind);
        let summaries: Vec<_> = of_type(SUMMARY_EVENT).map(|(_, event)| &event["record"]).collect();
        assert_eq!(summaries.len(), 2);
        assert_eq!(summaries[0]["reason"], "first");
        assert_eq!(summaries[0]["coldStart"], true);
        assert_eq!(
            *summaries[1],
            serde_json::json!({
                "requestId": "dull", "status": "success", "durationMs": 7.25, "billedDurationMs": 8,
                "memorySizeMB": 128, "maxMemoryUsedMB": 67, "events": 7,
                "bytes": summaries[1]["bytes"], "levels": {"INFO": 2, "WARN": 1},
                "kept": false, "reason": "share"
            })
        );
        assert_eq!(of_type("platform.report").count(), 2, "that of a failed one is shipped");
    }

    #[test]
    fn forgotten_invocations_leave_their_choice_behind() {
        let mut life = Life::new(settings());
        life.invoke("first", &[], "success", "1");
        let before = life.shipped.len();
        // In front of all that comes, so that it waits.
        life.post(&[start("open")]);
        for n in 0..2 * MAX_OVER {
            life.invoke(&format!("dull-{n}"), &["x"], "success", "1");
        }
        life.chooser.finish(0);
        life.drain();
        assert_eq!(life.shipped.len(), before + 1);
        assert_eq!(life.thinned, 8 * MAX_OVER as u64);
    }

    /// `scripts/simulate --invocations 1000000` is the long run.
    #[test]
    #[expect(clippy::print_stdout, reason = "the long run says what it saw")]
    fn the_share_that_is_kept_is_the_one_that_was_asked_for() {
        let count: u32 =
            std::env::var("KTE_INVOCATIONS").map_or(20_000, |count| count.parse().unwrap());
        let threshold = Settings::threshold_of("5%").unwrap();
        let mut life = Life::new(Settings { threshold, summary: true, ..settings() });
        life.invoke("first", &[], "success", "1");
        assert_eq!(life.types().len(), 4, "the cold one is whole");
        let (mut ordinary, mut kept, mut summaries, mut bytes) = (0u32, 0, 0, 0);
        for n in 1..=count {
            life.shipped.clear();
            let id = format!("5b0c7e52-91f4-4c3e-9d27-{n:012}");
            let (logs, status, ms): (&[&str], _, _) = match n % 100 {
                0 => (&["[ERROR] no such order"], "success", "9.5"),
                1 => (&["a", "b"], "error", "9.5"),
                2 => (&["a", "b"], "success", "900.5"),
                _ => (&["a", "b"], "success", "9.5"),
            };
            life.invoke(&id, logs, status, ms);
            let whole = life.types().len() == logs.len() + 4;
            let summary = life.types().iter().filter(|kind| **kind == SUMMARY_EVENT).count();
            assert!(whole || life.types() == [SUMMARY_EVENT], "{:?}", life.types());
            assert!(whole || n % 100 > 2, "{id} is shipped whole");
            summaries += summary;
            (ordinary, kept) = if n % 100 > 2 {
                (ordinary + 1, kept + u32::from(whole))
            } else {
                (ordinary, kept)
            };
            let size = |event: &serde_json::Value| event.to_string().len() as u64;
            bytes += life.shipped.iter().map(|(_, event)| size(event)).sum::<u64>();
        }
        assert_eq!(summaries, count as usize);
        // Five standard deviations of the binomial distribution.
        let (n, share) = (f64::from(ordinary), 0.05);
        let deviation = (f64::from(kept) - n * share).abs() / (n * share * (1.0 - share)).sqrt();
        assert!(deviation < 5.0, "{kept} of {ordinary}");
        println!(
            "{kept} of {ordinary} ordinary invocations kept, {deviation:.2} standard deviations off; \
             {bytes} of {} bytes shipped",
            life.posted
        );
    }
}
