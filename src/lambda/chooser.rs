//! The events that wait until `KEEP` has chosen. Pure: no thread, clock or log.
//!
//! The events of an invocation wait here until it ends. Then `keep` says whether they are shipped
//! or thinned out. Batches leave in the order in which they came, so one waits until all its events
//! are decided. What is shipped gets its number when it leaves: what was thinned out leaves no gap.
//! What is known of the invocations is in `candidates`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::candidates::{Candidate, Candidates, Verdict};
use super::keep::{Reason, Settings};
use super::observed::{Milestone, MilestoneKind, Observed, Run, Step};
use crate::clock::EpochMs;
use crate::event::Batch;

/// Neighbours in a batch, and the verdict that they wait for; none where they are shipped.
type Owner = (Option<Arc<Verdict>>, u32);

/// What an owner takes in memory, with the verdict that it may be the last to hold.
const OWNER_BYTES: usize = size_of::<Owner>() + size_of::<Verdict>() + 2 * size_of::<usize>();

/// The two clocks of a choice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// The time of a summary.
    pub wall: EpochMs,
    /// For how long the sandbox has run: a freeze does not count.
    pub awake: Duration,
}

/// A batch that waits.
#[derive(Debug)]
struct Held<C> {
    batch: Batch,
    owners: Vec<Owner>,
    /// Of the owners, those that were found decided: these stay so.
    decided: usize,
    bytes: usize,
    companion: C,
}

/// What is looked at behind the events of a body.
enum Later {
    Milestone(u64, Box<Milestone>),
    /// The ends of the invocations up to this one may be lost.
    Gap(u64),
}

/// See the module's page. `C` comes with a batch and goes with it.
#[derive(Debug)]
pub struct Chooser<C> {
    settings: Settings,
    candidates: Candidates,
    /// Reported, but its start was not seen: the report may be of a try before, in another process.
    unconfirmed: Option<u64>,
    held: VecDeque<Held<C>>,
    held_bytes: usize,
    awake: Duration,
    /// The last event number, and after which restore.
    number: u64,
    restores: u16,
    /// After how many restores a summary is written.
    last_restores: u16,
    thinned: u64,
}

impl<C: Default> Chooser<C> {
    /// Nothing waits yet. `overlapping`: invocations run side by side (Managed Instances).
    #[must_use]
    pub fn new(settings: Settings, overlapping: bool) -> Chooser<C> {
        Chooser {
            settings,
            candidates: Candidates::new(overlapping),
            unconfirmed: None,
            held: VecDeque::new(),
            held_bytes: 0,
            awake: Duration::ZERO,
            number: 0,
            restores: 0,
            last_restores: 0,
            thinned: 0,
        }
    }

    /// Takes what a body brought.
    pub fn take(&mut self, batch: Batch, observed: Observed, now: Now, companion: C) {
        self.awake = now.awake;
        self.last_restores = self.last_restores.max(observed.restores);
        let (owners, later) = self.attribute(&batch, observed.steps, now.wall);
        self.hold(batch, owners, companion);
        // Before its end is looked at: what one body held must not decide.
        self.make_room();
        for step in later {
            match step {
                Later::Milestone(serial, milestone) => self.pass(serial, *milestone, now.wall),
                Later::Gap(last) => self.candidates.lose_ends(last),
            }
        }
        // Summaries wait, too.
        self.make_room();
    }

    /// The end of what is in progress may never come: nothing waits for it any more.
    pub fn lose_ends(&mut self) {
        self.candidates.lose_ends(self.candidates.last());
        if !self.candidates.overlapping {
            self.candidates.doubt();
        }
    }

    /// So much time has passed while the sandbox ran: an invocation that has run for longer than
    /// `MAX_AGE_MS` is kept.
    pub fn tick(&mut self, awake: Duration) {
        self.awake = awake;
        for candidate in self.candidates.iter_mut() {
            candidate.tick(awake, self.settings.max_age);
        }
    }

    /// The sandbox ends: what is not decided is kept, and summaries go without the reports that did
    /// not come.
    pub fn finish(&mut self, now: EpochMs) {
        self.candidates.lose_ends(self.candidates.last());
        let (settings, restores) = (self.settings, self.last_restores);
        let sum_up = |candidate: &mut Candidate| candidate.sum_up(&settings, now, restores);
        let summaries: Vec<Batch> = self.candidates.iter_mut().filter_map(sum_up).collect();
        summaries.into_iter().for_each(|summary| self.hold_summary(Some(summary)));
    }

    /// The next batch whose events are all decided, without those that are thinned out; it may be
    /// empty.
    pub fn next_ready(&mut self) -> Option<(Batch, C)> {
        let held = self.held.front_mut()?;
        let open = held.owners.iter().skip(held.decided).position(is_open);
        held.decided = open.map_or(held.owners.len(), |open| held.decided + open);
        if open.is_some() {
            return None;
        }
        let Held { mut batch, owners, bytes, companion, .. } = self.held.pop_front()?;
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
        let is_kept =
            |owner: &Owner| owner.0.as_ref().and_then(|one| one.is_kept()).unwrap_or(true);
        if !owners.iter().all(is_kept) {
            let mut fates = owners.iter().flat_map(|owner| {
                std::iter::repeat_n(is_kept(owner), owner.1.try_into().unwrap_or(usize::MAX))
            });
            let before = batch.remaining().len();
            batch.retain(|_| fates.next().unwrap_or(true));
            self.thinned += (before - batch.remaining().len()) as u64;
        }
        for event in batch.remaining_mut() {
            if event.restores != self.restores {
                (self.restores, self.number) = (event.restores, 0);
            }
            self.number += 1;
            event.number = self.number;
        }
        Some((batch, companion))
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

    /// What waits takes so many bytes of memory.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whose the events of a batch are, and what is to be looked at behind them.
    fn attribute(
        &mut self,
        batch: &Batch,
        steps: Vec<Step>,
        now: EpochMs,
    ) -> (Vec<Owner>, Vec<Later>) {
        let (mut owners, mut later) = (Vec::with_capacity(steps.len()), Vec::new());
        let mut last_milestone = 0;
        for step in steps {
            match step {
                Step::Run(run) => {
                    let reported = run.is_report.then_some(last_milestone);
                    let verdict = self.count(batch, &run, reported, now);
                    if run.events > 0 {
                        owners.push((verdict, run.events));
                    }
                }
                Step::Milestone(milestone) => {
                    if milestone.kind == MilestoneKind::Started {
                        self.candidates.begin();
                    }
                    let known = self.candidates.of(&milestone);
                    let serial = known.unwrap_or_else(|| self.add(&milestone.request_id, now));
                    if let Some(candidate) = self.candidates.get_mut(serial) {
                        candidate.note(&milestone);
                    }
                    last_milestone = serial;
                    later.push(Later::Milestone(serial, milestone));
                }
                Step::Exception { request_id, name } => {
                    if let Some(candidate) = self.logged(&request_id, now) {
                        candidate.threw(name);
                    }
                }
                Step::Gap if self.candidates.overlapping => {}
                Step::Gap => {
                    self.candidates.doubt();
                    later.push(Later::Gap(self.candidates.last()));
                }
            }
        }
        (owners, later)
    }

    /// Counts events for their invocation: the one that is reported, or the last one of their id.
    /// Comes back with what they wait for.
    fn count(
        &mut self,
        batch: &Batch,
        run: &Run,
        reported: Option<u64>,
        now: EpochMs,
    ) -> Option<Arc<Verdict>> {
        let chooses = self.settings.chooses();
        let id = std::str::from_utf8(run.request_id.of(batch.bytes())).unwrap_or_default();
        let candidate = match reported {
            Some(serial) => self.candidates.get_mut(serial)?,
            None => self.logged(id, now)?,
        };
        candidate.observe(run);
        if chooses { candidate.verdict() } else { None }
    }

    /// The invocation that a log names; none where it names none.
    fn logged(&mut self, id: &str, now: EpochMs) -> Option<&mut Candidate> {
        if id.is_empty() {
            return None;
        }
        let serial = self.candidates.find(id).unwrap_or_else(|| {
            self.forget(now);
            self.candidates.add_named(id, self.awake)
        });
        self.candidates.get_mut(serial)
    }

    fn add(&mut self, request_id: &str, now: EpochMs) -> u64 {
        self.forget(now);
        self.candidates.add(request_id, self.awake)
    }

    /// Those for which there is no room beside another one are summed up.
    fn forget(&mut self, now: EpochMs) {
        while let Some(mut forgotten) = self.candidates.forget_one() {
            self.hold_summary(forgotten.sum_up(&self.settings, now, self.last_restores));
        }
    }

    fn hold(&mut self, batch: Batch, owners: Vec<Owner>, companion: C) {
        if !batch.remaining().is_empty() {
            let bytes = batch.cost() + owners.capacity() * OWNER_BYTES;
            self.held_bytes += bytes;
            self.held.push_back(Held { batch, owners, decided: 0, bytes, companion });
        }
    }

    /// Puts an invocation's summary behind what waits.
    fn hold_summary(&mut self, summary: Option<Batch>) {
        if let Some(batch) = summary {
            self.hold(batch, Vec::new(), C::default());
        }
    }

    fn pass(&mut self, serial: u64, milestone: Milestone, now: EpochMs) {
        let Some(candidate) = self.candidates.get_mut(serial) else { return };
        let kind = milestone.kind;
        candidate.pass(&self.settings, milestone);
        let (is_ours, has_begun) = (candidate.is_ours, candidate.has_begun);
        if kind == MilestoneKind::Started {
            // A start of the same id has shown by now that the report was of a try before.
            let confirmed = self.unconfirmed.take();
            return self.sum_up(confirmed, now);
        }
        if is_ours && !self.candidates.overlapping {
            // The ends of those before it were lost.
            self.candidates.lose_ends(serial - 1);
        }
        if kind == MilestoneKind::Reported {
            self.candidates.over(serial);
            if has_begun {
                self.sum_up(Some(serial), now);
            } else if is_ours {
                self.unconfirmed = Some(serial);
            }
        }
    }

    fn sum_up(&mut self, serial: Option<u64>, now: EpochMs) {
        let candidate = serial.and_then(|serial| self.candidates.get_mut(serial));
        let summary = candidate.and_then(|one| one.sum_up(&self.settings, now, self.last_restores));
        self.hold_summary(summary);
    }

    /// Keeps the invocations for which the oldest batches wait, until what is behind those has
    /// room.
    fn make_room(&mut self) {
        let mut bytes = self.held_bytes;
        for held in &self.held {
            if bytes <= self.settings.max_bytes {
                break;
            }
            for (verdict, _) in held.owners.iter().filter(|owner| is_open(owner)) {
                let serial = verdict.as_ref().map_or(0, |verdict| verdict.serial);
                if let Some(candidate) = self.candidates.get_mut(serial) {
                    candidate.decide_early(Reason::Large);
                }
            }
            bytes = bytes.saturating_sub(held.bytes);
        }
    }
}

fn is_open(owner: &Owner) -> bool {
    owner.0.as_ref().is_some_and(|verdict| verdict.is_kept().is_none())
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
        awake: Duration,
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
                awake: Duration::ZERO,
            }
        }

        fn post(&mut self, events: &[String]) {
            self.posted += events.iter().map(|event| event.len() as u64).sum::<u64>();
            self.post_raw(&format!("[{}]", events.join(",")));
        }

        fn post_raw(&mut self, body: &str) {
            let taken = self.intake.take(body.as_bytes().to_vec(), 0);
            assert_counted(&taken);
            let now = Now { wall: 0, awake: self.awake };
            self.chooser.take(taken.batch, taken.observed, now, ());
            self.drain();
        }

        /// The sandbox runs on.
        fn tick(&mut self, time: Duration) {
            self.awake += time;
            self.chooser.tick(self.awake);
            self.drain();
        }

        fn summaries(&self) -> Vec<&serde_json::Value> {
            let all = self.shipped.iter().filter(|(_, event)| event["type"] == SUMMARY_EVENT);
            all.map(|(_, event)| &event["record"]).collect()
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
        let counts = taken.observed.steps.iter().map(|step| match step {
            Step::Run(run) => run.events,
            _ => 0,
        });
        let events: u32 = counts.sum();
        assert_eq!(events as usize, taken.batch.remaining().len());
    }

    fn event(kind: &str, record: &str) -> String {
        format!(r#"{{"time":"2026-05-11T08:30:00.000Z","type":"{kind}","record":{record}}}"#)
    }

    fn start(id: &str) -> String {
        event("platform.start", &format!(r#"{{"requestId":"{id}","version":"1"}}"#))
    }

    /// The events of an invocation that Lambda tries again `minutes` later.
    fn again(events: &[String], minutes: u32) -> Vec<String> {
        let later = |event: &String| event.replace("T08:30:", &format!("T08:{:02}:", 30 + minutes));
        events.iter().map(later).collect()
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
        let reasons: Vec<_> = life.summaries().into_iter().map(|one| &one["reason"]).collect();
        assert_eq!(reasons, ["first", "failed", "share"]);
    }

    /// The platform says `success`. Java's, Ruby's and Go's invocations that failed were thinned
    /// out, and summed up as a success.
    #[test]
    fn an_exception_that_nobody_caught_is_a_failure_though_the_runtime_ended_well() {
        let java = "no such order: com.example.NoOrder\ncom.example.NoOrder: no such order\n\tat \
                    com.example.Handler.handleRequest(Handler.java:19)\n\n";
        let go =
            r#"2026/05/11 08:30:00 {"errorMessage":"no such order","errorType":"errorString"}"#;
        let ruby = r#"{"errorMessage":"no such order","errorType":"Function<ArgumentError>"}"#;
        for said in
            [log(java), log(go), log("Error raised from handler method"), event("function", ruby)]
        {
            let mut life = Life::new(Settings { level: None, summary: true, ..settings() });
            life.invoke("first", &[], "success", "1");
            let done = done("failed", "success", "1");
            life.post(&[start("failed"), said.clone(), done, report("failed", "success", "1")]);
            let summary = life.summaries()[1];
            let said_so = (&summary["status"], &summary["reason"], life.thinned);
            assert_eq!(said_so, (&"error".into(), &"failed".into(), 0), "{said}");
        }
    }

    #[test]
    fn the_type_of_an_exception_is_that_of_its_report() {
        let ruby = [
            log("Error raised from handler method"),
            log("{\n  \"errorMessage\": \"no\",\n  \"errorType\": \"Function<IOError>\"\n}"),
        ];
        let of_another = log(r#"{"errorMessage":"no","errorType":"of another"}"#);
        let own = log(r#"{"errorMessage":"no","errorType":"own"}"#);
        for (logs, status, said, name) in [
            (&ruby[..], "success", "error", "Function<IOError>".into()),
            (&ruby[..1], "success", "error", serde_json::Value::Null),
            (&[of_another, log("x"), own][..], "success", "error", "own".into()),
            // Of these the platform knows better.
            (&ruby[..], "timeout", "timeout", serde_json::Value::Null),
        ] {
            let mut life = Life::new(Settings { summary: true, ..settings() });
            let done = [done("failed", status, "1"), report("failed", status, "1")];
            life.post(&[&[start("failed")], logs, &done].concat());
            let summary = life.summaries()[0];
            assert_eq!((&summary["status"], &summary["errorType"]), (&said.into(), &name));
        }
        // Not even the platform's word has come.
        let mut life = Life::new(Settings { summary: true, ..settings() });
        life.post(&[start("failed"), ruby[1].clone()]);
        life.chooser.finish(0);
        life.drain();
        assert_eq!(life.summaries()[0]["status"], "error");
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
        life.tick(Duration::from_secs(10));
        assert_eq!(life.shipped.len(), before);
        life.tick(Duration::from_millis(1));
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
        let summaries = life.summaries();
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
        let reports = life.types().iter().filter(|kind| **kind == "platform.report").count();
        assert_eq!(reports, 2, "that of a failed one is shipped");
    }

    #[test]
    fn forgotten_invocations_leave_their_choice_behind() {
        let mut life = Life::new(settings());
        life.invoke("first", &[], "success", "1");
        let before = life.shipped.len();
        // In front of all that comes, so that it waits.
        life.post(&[start("open")]);
        // More than are remembered.
        for n in 0..128 {
            life.invoke(&format!("dull-{n}"), &["x"], "success", "1");
        }
        life.chooser.finish(0);
        life.drain();
        assert_eq!(life.shipped.len(), before + 1);
        assert_eq!(life.thinned, 4 * 128);
    }

    #[test]
    fn a_second_try_under_the_same_id_is_an_invocation_of_its_own() {
        let mut life = Life::new(Settings { summary: true, ..settings() });
        life.invoke("first", &[], "success", "1");
        life.invoke("again", &["dull line"], "success", "1");
        let before = life.shipped.len();
        let second = [start("again"), log("failed line"), done("again", "error", "1")];
        life.post(&again(&second, 1));
        assert_eq!(life.types().split_at(before).1.len(), 3, "it failed: it is shipped whole");
        life.post(&again(&[report("again", "error", "1")], 1));
        // All in one body, with the third one's start.
        let mut third = again(&[start("again"), log("x"), done("again", "success", "1")], 2);
        third.extend(again(&[report("again", "success", "1"), start("again")], 2));
        third.extend(again(&[start("again"), log("fourth"), done("again", "timeout", "1")], 3));
        life.post(&third);
        life.chooser.finish(0);
        life.drain();
        let said = |one: &serde_json::Value| (one["reason"].clone(), one["events"].clone());
        let said: Vec<_> = life.summaries().into_iter().map(said).collect();
        let expected = [("first", 3), ("share", 4), ("failed", 4), ("share", 5), ("failed", 3)];
        assert_eq!(said, expected.map(|(reason, events)| (reason.into(), events.into())));
        assert!(format!("{:?}", life.shipped).contains("fourth"));
        assert!(!format!("{:?}", life.shipped).contains("dull line"));
    }

    #[test]
    fn a_second_try_after_the_clock_was_set_back_is_another_one_too() {
        let mut life = Life::new(Settings { summary: true, ..settings() });
        life.invoke("first", &[], "success", "1");
        life.post(&again(&[start("again"), log("dull line"), done("again", "success", "1")], 9));
        life.post(&again(&[report("again", "success", "1")], 9));
        // Posted twice.
        life.post(&again(&[start("again"), done("again", "success", "1")], 9));
        life.invoke("again", &["failed line"], "error", "1");
        let said: Vec<_> = life.summaries().into_iter().map(|one| &one["reason"]).collect();
        assert_eq!(said, ["first", "share", "failed"]);
        assert!(format!("{:?}", life.shipped).contains("failed line"));
        assert!(!format!("{:?}", life.shipped).contains("dull line"));
    }

    #[test]
    fn a_late_report_is_that_of_the_try_before() {
        let mut life = Life::new(Settings { summary: true, ..settings() });
        life.invoke("first", &[], "success", "1");
        life.post(&[start("again"), done("again", "error", "1")]);
        life.post(&again(&[start("again"), log("dull line")], 1));
        life.post(&[report("again", "error", "1")]);
        assert!(!format!("{:?}", life.shipped).contains("dull line"), "it goes on");
        life.post(&again(&[done("again", "success", "1"), report("again", "success", "1")], 1));
        let said = |one: &serde_json::Value| (one["status"].clone(), one["events"].clone());
        let said: Vec<_> = life.summaries().into_iter().map(said).collect();
        let expected = [("success", 3), ("error", 3), ("success", 4)];
        assert_eq!(said, expected.map(|(status, events)| (status.into(), events.into())));
        assert!(!format!("{:?}", life.shipped).contains("dull line"));
        let reports = life.types().into_iter().filter(|kind| *kind == "platform.report").count();
        assert_eq!(reports, 2, "the failed one is whole");
    }

    #[test]
    fn what_comes_behind_a_gap_follows_no_choice_before_it() {
        let gap = || event("platform.logsDropped", r#"{"droppedRecords":1,"droppedBytes":9}"#);
        // Alone, and in one body with the end of the invocation before.
        for splits in [true, false] {
            let mut life = Life::new(Settings { summary: true, ..settings() });
            life.invoke("first", &[], "success", "1");
            let mut events = vec![start("dull"), log("dull line"), done("dull", "success", "1")];
            events.push(report("dull", "success", "1"));
            let behind = [gap(), log("of one whose start was lost"), done("lost", "error", "1")];
            if splits {
                events.into_iter().chain(behind).for_each(|one| life.post(&[one]));
            } else {
                life.post(&[events, behind.to_vec()].concat());
            }
            life.post(&[start("next"), log("next line"), done("next", "success", "1")]);
            let shipped = format!("{:?}", life.shipped);
            assert!(shipped.contains("of one whose start was lost"), "splits: {splits}");
            assert!(!shipped.contains("dull line") && !shipped.contains("next line"));
        }
    }

    /// Only what named no invocation was sent. Its end, alone, said nothing of lines that were lost.
    #[test]
    fn an_invocation_whose_start_was_lost_in_a_gap_is_kept() {
        let gap = event("platform.logsDropped", r#"{"droppedRecords":1,"droppedBytes":9}"#);
        for splits in [true, false] {
            let mut life = Life::new(Settings { summary: true, ..settings() });
            life.invoke("first", &[], "success", "1");
            life.intake.invoked("lost");
            let mut events = vec![gap.clone(), log("a line"), done("lost", "success", "1")];
            events.push(report("lost", "success", "1"));
            if splits {
                events.into_iter().for_each(|one| life.post(&[one]));
            } else {
                life.post(&events);
            }
            life.invoke("dull", &["dull line"], "success", "1");
            let said: Vec<_> = life.summaries().into_iter().map(|one| &one["reason"]).collect();
            assert_eq!(said, ["first", "unfinished", "share"], "splits: {splits}");
            assert_eq!(life.thinned, 4, "splits: {splits}");
        }
    }

    #[test]
    fn an_end_in_damaged_bytes_thins_out_nothing() {
        for (status, reason) in
            [("success", "unfinished"), ("err", "failed"), ("timeout", "failed")]
        {
            let mut life = Life::new(Settings { summary: true, ..settings() });
            life.invoke("first", &[], "success", "1");
            life.post(&[start("cut"), log("cut line")]);
            let done = done("cut", status, "900000");
            life.post_raw(&format!("[{}", done.split_at(done.find(r#","metrics"#).unwrap()).0));
            assert!(format!("{:?}", life.shipped).contains("cut line"), "{status}");
            life.chooser.finish(0);
            life.drain();
            let summary = *life.summaries().last().unwrap();
            assert_eq!(summary["reason"], reason, "{status}");
            // Only what the platform writes is repeated.
            let repeated = if status == "err" { "failure" } else { status };
            assert_eq!(summary["status"], repeated);
        }
    }

    #[test]
    fn an_invocation_is_not_long_before_its_time() {
        let mut life = Life::new(Settings { slow: None, ..settings() });
        life.invoke("first", &[], "success", "1");
        life.tick(Duration::from_secs(9));
        let before = life.shipped.len();
        // Ages count from an invocation's own start, not from the last look at them.
        life.awake += Duration::from_secs(2);
        life.post(&[start("dull"), log("dull line")]);
        life.tick(Duration::from_secs(9));
        assert!(life.chooser.is_waiting());
        life.post(&[done("dull", "success", "9000"), report("dull", "success", "9000")]);
        assert_eq!((life.shipped.len(), life.thinned), (before, 4));
    }

    #[test]
    fn a_summary_has_an_id_of_its_own_restore() {
        let types = Types { platform: false, function: true, extension: false };
        let mut life = Life::new(Settings { summary: true, ..settings() });
        life.intake = Intake::new(Filter::from(types), false).observing(true);
        life.post(&[log("of the init")]);
        life.post(&[event("platform.restoreStart", "{}")]);
        let body = format!("[{},{}]", start("a"), report("a", "success", "1"));
        let taken = life.intake.take(body.into_bytes(), 0);
        life.chooser.take(taken.batch, taken.observed, Now::default(), ());
        let (batch, ()) = life.chooser.next_ready().unwrap();
        let [summary] = batch.remaining() else { panic!("a summary alone") };
        assert_eq!((summary.restores, summary.number), (1, 1));
    }

    #[test]
    fn an_announced_invocation_is_summed_up_though_its_start_was_lost() {
        let mut life = Life::new(Settings { summary: true, ..settings() });
        life.invoke("first", &[], "success", "1");
        life.intake.invoked("lost");
        life.post(&[done("lost", "error", "1"), report("lost", "error", "1")]);
        life.post(&[report("of the process before", "timeout", "3000")]);
        // Only the next start shows that its own was lost.
        life.invoke("next", &[], "success", "1");
        assert_eq!(life.summaries().len(), 3);
        assert_eq!(life.summaries()[1]["reason"], "failed");
    }

    #[test]
    fn a_gap_is_no_reason_for_what_the_hash_keeps_anyway() {
        let mut life = Life::new(Settings { threshold: 1 << 32, summary: true, ..settings() });
        life.invoke("first", &[], "success", "1");
        life.post(&[start("a"), event("platform.logsDropped", "{}")]);
        life.post(&[done("a", "success", "1"), report("a", "success", "1")]);
        assert_eq!(life.summaries()[1]["reason"], "share");
    }

    #[test]
    fn all_that_waits_is_counted() {
        let mut life = Life::new(Settings { summary: true, ..settings() });
        life.chooser = Chooser::new(Settings { summary: true, ..settings() }, true);
        life.intake = Intake::new(Filter::from(ALL), true).observing(true);
        life.post(&[start("open")]);
        let before = life.chooser.held_bytes();
        let own = |n| event("function", &format!(r#"{{"requestId":"r{n}"}}"#));
        let body = format!("[{}]", (0..100).map(own).collect::<Vec<_>>().join(","));
        let taken = life.intake.take(body.into_bytes(), 0);
        let cost = taken.batch.cost();
        life.chooser.take(taken.batch, taken.observed, Now::default(), ());
        // Each event waits for an invocation of its own.
        assert!(life.chooser.held_bytes() >= before + cost + 100 * size_of::<Owner>());
        let before = life.chooser.held_bytes();
        life.post(&[start("a"), report("a", "success", "1")]);
        assert!(life.chooser.held_bytes() > before + 300, "and so do the summaries");
        life.chooser.finish(0);
        life.drain();
        assert_eq!(life.chooser.held_bytes(), 0);
    }

    /// On Managed Instances: invocations run side by side.
    fn side_by_side(settings: Settings) -> Life {
        let mut life = Life::new(settings);
        life.chooser = Chooser::new(settings, true);
        life.intake = Intake::new(Filter::from(ALL), true).observing(true);
        life
    }

    fn own_log(id: &str, text: &str) -> String {
        event("function", &format!(r#"{{"requestId":"{id}","message":"{text}"}}"#))
    }

    #[test]
    fn small_batches_in_front_hold_back_no_large_ones_beyond_the_bound() {
        let mut life = side_by_side(settings());
        for n in 0..500 {
            life.post(&[own_log(&format!("small-{n}"), "x")]);
        }
        let text = "x".repeat(300_000);
        for n in 0..50 {
            life.post(&[own_log(&format!("large-{n}"), &text)]);
            let held = life.chooser.held_bytes();
            assert!(held <= settings().max_bytes, "{held} bytes wait after {n}");
        }
    }

    #[test]
    fn ids_that_are_no_invocations_push_none_out() {
        let settings = Settings { summary: true, max_bytes: 16 << 20, ..settings() };
        let mut life = side_by_side(settings);
        life.invoke("first", &[], "success", "1");
        life.post(&[start("running")]);
        for n in 0..3000 {
            life.post(&[own_log(&format!("of-somebody-else-{n}"), "x")]);
        }
        life.post(&[done("running", "success", "1"), report("running", "success", "1")]);
        life.chooser.finish(0);
        life.drain();
        let of_it: Vec<_> =
            life.summaries().into_iter().filter(|one| one["requestId"] == "running").collect();
        assert_eq!(of_it.len(), 1, "{of_it:?}");
        assert_eq!((&of_it[0]["reason"], &of_it[0]["events"]), (&"share".into(), &3.into()));
    }

    #[test]
    fn an_end_that_comes_when_the_next_try_is_announced_is_not_summed_up_twice() {
        for splits in [true, false] {
            let mut life = Life::new(Settings { summary: true, ..settings() });
            life.intake.invoked("again");
            let mut events =
                vec![done("again", "timeout", "3000"), report("again", "timeout", "3000")];
            events.extend(again(&[start("again"), done("again", "success", "1")], 1));
            events.extend(again(&[report("again", "success", "1")], 1));
            if splits {
                events.into_iter().for_each(|one| life.post(&[one]));
            } else {
                life.post(&events);
            }
            life.chooser.finish(0);
            life.drain();
            let said = life.summaries();
            assert_eq!(said.len(), 1, "splits: {splits} {said:?}");
            assert_eq!(
                (&said[0]["reason"], &said[0]["status"]),
                (&"first".into(), &"success".into())
            );
        }
    }

    #[test]
    fn an_invocation_of_which_only_the_report_came_is_summed_up_before_the_next() {
        let mut life = Life::new(Settings { summary: true, ..settings() });
        life.invoke("first", &[], "success", "1");
        life.intake.invoked("lost");
        life.post(&[event("platform.logsDropped", "{}"), report("lost", "error", "1")]);
        life.invoke("next", &[], "success", "1");
        let said: Vec<_> = life.summaries().into_iter().map(|one| &one["requestId"]).collect();
        assert_eq!(said, ["first", "lost", "next"]);
    }

    #[test]
    fn a_log_in_front_of_its_start_does_no_harm() {
        let mut life = side_by_side(Settings { summary: true, ..settings() });
        life.invoke("first", &[], "success", "1");
        life.post(&[own_log("dull-0", "x")]);
        for n in 0..2000 {
            let id = format!("dull-{n}");
            life.post(&[own_log(&format!("dull-{}", n + 1), "x")]);
            life.post(&[start(&id), done(&id, "success", "1"), report(&id, "success", "1")]);
        }
        life.chooser.finish(0);
        life.drain();
        let mut summaries = life.summaries().into_iter().skip(1);
        assert!(summaries.all(|one| one["reason"] == "share" && one["events"] == 4));
        assert_eq!((life.summaries().len(), life.thinned), (2001, 2000 * 4));
    }

    #[test]
    fn what_comes_late_of_a_try_before_this_process_decides_nothing_about_the_next() {
        let mut life = Life::new(Settings { summary: true, ..settings() });
        life.post(&[report("again", "timeout", "3000")]);
        life.invoke("first", &[], "success", "1");
        let second = [start("again"), log("dull line"), done("again", "success", "1")];
        life.post(&again(&second, 1));
        life.post(&again(&[report("again", "success", "1")], 1));
        let said = life.summaries();
        assert_eq!(said.len(), 2, "{said:?}");
        assert_eq!((&said[1]["reason"], &said[1]["events"]), (&"share".into(), &4.into()));
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
