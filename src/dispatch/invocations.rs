//! The invocations of this sandbox, as the dispatcher knows them: which one runs, which have ended,
//! which one `main` waits for. Pure.
//!
//! An end is known by the request's id, whenever it comes: late, repeated and reordered ones of
//! other requests change nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::message::{INVOKE_LATE, Now, PLAUSIBLE, Signal, Ticket};
use super::preparing::Preparation;
use crate::clock::EpochMs;
use crate::deadline::Deadline;

/// Ends that are remembered: those for which the INVOKE may still come, or a hold is still to be
/// counted.
const ENDS: usize = 16;

/// An invocation whose `platform.start` has not come so long after its INVOKE runs all the same: it
/// may be lost, or be held back for long. Before that it may be over already, and the sandbox about
/// to be frozen.
const START_LATE: Duration = Duration::from_millis(200);

/// So long after an invocation was let go, `/next` has been called, and a function that still runs is
/// no short one: a probe that begins earlier would often be on its way when the sandbox is frozen.
const SETTLES: Duration = Duration::from_millis(50);

/// What is done for an invocation that `main` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Wait for the function's own end.
    AwaitEnd,
    /// See whether Kinesis answers again, while the function runs; then, or else, as it says.
    Probe {
        /// At the latest.
        until: Instant,
        /// Whether the function's end is waited for after a probe that delivered.
        then_await_end: bool,
    },
    /// Send everything that is due, until then.
    Flush(Deadline),
}

/// An invocation that `main` waits for.
#[derive(Debug)]
pub struct Held {
    /// To answer with.
    pub ticket: Ticket,
    /// As in the INVOKE event.
    pub request_id: Arc<str>,
    /// Of the invocation.
    pub deadline: Deadline,
    /// What is being done.
    pub phase: Phase,
    /// Whether Kinesis was asked for it.
    pub tried: bool,
    /// Whether Kinesis took anything then.
    pub delivered: bool,
    /// Its flush has taken something along that had been set aside.
    pub carried: bool,
    /// Makes the connection ready while the function runs.
    pub preparation: Preparation,
}

/// Two readings of one time by the wall clock, in milliseconds, differ by less.
const CLOCK_STEP: Duration = Duration::from_millis(2);

/// A function's own end.
#[derive(Clone, Debug)]
pub struct End {
    request_id: Arc<str>,
    /// When.
    pub at: Instant,
    /// Whether the function failed.
    pub failed: bool,
    /// Its INVOKE has come and gone: another one of that id is Lambda's next try.
    is_past: bool,
}

/// The last event that is still to come.
#[derive(Debug, PartialEq, Eq)]
enum Unreported {
    Nothing,
    Init,
    /// Of so many tries under that id.
    Invocation(Arc<str>, u32),
}

/// See the module's page.
#[derive(Debug)]
pub struct Invocations {
    /// Whose `platform.start` came last. Only the one that INVOKE announced can run, so that a start
    /// that comes late, however late, changes nothing.
    started: Option<Arc<str>>,
    /// By INVOKE, and when that came.
    invoked: Option<(Arc<str>, Instant)>,
    ends: VecDeque<End>,
    /// Telemetry was lost since this start.
    gap: bool,
    unreported: Unreported,
    /// INVOKE says which invocation is the last one.
    announced: bool,
    /// The invocation whose end did not come by its deadline, and how many have begun since.
    missed: Option<(Arc<str>, u32)>,
    /// Invocations that were let go before their end was known, when by the wall clock, and how long
    /// they can have been held: how long they were shows when the end is known. A freeze may have
    /// come by then, but none between the end and that.
    let_go: VecDeque<(Arc<str>, EpochMs, Duration)>,
    /// When the last one was let go.
    gone_at: Option<Instant>,
}

/// What an observation changes beyond this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Ends do not come in this sandbox: it makes no sense to wait for them.
    pub ends_never_come: bool,
    /// An invocation was held for so long, as shows now.
    pub held: Duration,
}

impl Default for Invocations {
    fn default() -> Self {
        let (ends, let_go) = (VecDeque::new(), VecDeque::new());
        Invocations {
            started: None,
            invoked: None,
            ends,
            gap: false,
            unreported: Unreported::Init,
            announced: false,
            missed: None,
            let_go,
            gone_at: None,
        }
    }
}

impl Invocations {
    /// Notes what a POST says.
    pub fn observe(&mut self, signal: &Signal, now: Now) -> Observed {
        let mut observed = Observed::default();
        match signal {
            Signal::Started(request_id) => {
                // Another one's is late, or ahead of its INVOKE.
                let is_announced =
                    self.invoked.as_ref().is_none_or(|(announced, _)| announced == request_id);
                // In Lambda's order the end of one invocation comes before the start of the next.
                if is_announced && self.missed.as_ref().is_some_and(|(id, _)| id != request_id) {
                    self.missed = None;
                    observed.ends_never_come = true;
                }
                // Where INVOKE says which invocation is the last one, this may still be the start
                // of one before it.
                if !self.announced {
                    self.unreported = Unreported::Invocation(Arc::clone(request_id), 1);
                }
                if is_announced || !self.is_started() {
                    let before = self.started.replace(Arc::clone(request_id));
                    // Posted twice, it hides nothing that was lost since.
                    self.gap &= before.as_ref() == Some(request_id);
                }
            }
            Signal::Done { request_id, at, failed } => {
                self.missed = self.missed.take().filter(|(missed, _)| missed != request_id);
                // Not before it began, where that is known.
                let invoked = self.invoked.as_ref().filter(|(id, _)| id == request_id);
                let end = match invoked {
                    Some((_, since)) => now.instant_of_end(*since, *at),
                    None => now.instant_of(*at),
                };
                // Behind one that is past it may be that of the next try, ahead of its INVOKE. To
                // take one that was posted twice for it costs a hold; the other way it would be a
                // hold up to the deadline.
                let is_next =
                    |known: &End| known.is_past && (at.is_none() || end > known.at + CLOCK_STEP);
                if self.end_of(request_id).is_none_or(is_next) {
                    observed.held = self.ended(Arc::clone(request_id), end, *at, *failed);
                }
            }
            Signal::Reported(request_id) => {
                if let Unreported::Invocation(awaited, tries) = &mut self.unreported
                    && awaited == request_id
                {
                    *tries -= 1;
                    if *tries == 0 {
                        self.unreported = Unreported::Nothing;
                    }
                }
            }
            Signal::InitReported => {
                if self.unreported == Unreported::Init {
                    self.unreported = Unreported::Nothing;
                }
            }
            Signal::Gap => self.gap = true,
        }
        observed
    }

    fn ended(
        &mut self,
        request_id: Arc<str>,
        at: Instant,
        said: Option<EpochMs>,
        failed: bool,
    ) -> Duration {
        let let_go = self
            .let_go
            .iter()
            .position(|(known, ..)| *known == request_id)
            .and_then(|index| self.let_go.remove(index));
        if self.ends.len() == ENDS {
            self.ends.pop_front();
        }
        self.ends.push_back(End { request_id, at, failed, is_past: let_go.is_some() });
        let held = let_go.zip(said).map(|((_, gone, most), said)| {
            let held = Duration::from_millis(gone.saturating_sub(said));
            if held > most { Duration::ZERO } else { held }
        });
        held.unwrap_or_default()
    }

    /// The function's own end of that request, if it has come.
    #[must_use]
    pub fn end_of(&self, request_id: &str) -> Option<&End> {
        self.ends.iter().rev().find(|end| *end.request_id == *request_id)
    }

    /// An invocation has begun. Says whether ends have turned out never to come.
    pub fn invoked(&mut self, request_id: &Arc<str>, at: Instant) -> bool {
        self.invoked = Some((Arc::clone(request_id), at));
        // The report of a try before is under the same id, and comes first.
        let tries = match &self.unreported {
            Unreported::Invocation(awaited, tries) if self.announced && awaited == request_id => {
                tries + 1
            }
            _ => 1,
        };
        self.unreported = Unreported::Invocation(Arc::clone(request_id), tries);
        self.announced = true;
        let ends = self.ends.len();
        self.ends.retain(|end| !end.is_past || end.request_id != *request_id);
        let has_ended = self.ends.len() < ends;
        if has_ended || self.let_go.iter().any(|(known, ..)| known == request_id) {
            // Lambda's next try: it was the one before that has started.
            self.started = None;
        }
        // What was lost before belongs to an earlier one.
        self.gap &= self.started.as_ref() == Some(request_id);
        let Some((_, since)) = &mut self.missed else { return false };
        *since += 1;
        let never = *since > 1;
        if never {
            self.missed = None;
        }
        never
    }

    /// Whether an end is late: until it shows whether it is lost, no other one is waited for.
    #[must_use]
    pub fn is_end_late(&self) -> bool {
        self.missed.is_some()
    }

    /// The end of that request did not come by the deadline.
    pub fn missed(&mut self, request_id: &Arc<str>) {
        self.missed = Some((Arc::clone(request_id), 0));
    }

    /// Whether telemetry of the invocation in progress was lost.
    pub fn take_gap(&mut self) -> bool {
        std::mem::take(&mut self.gap)
    }

    /// An invocation is let go. Says how long it was held, as far as that is known already.
    pub fn let_go(&mut self, request_id: &Arc<str>, now: Now) -> Duration {
        self.gone_at = Some(now.mono);
        if let Some(end) = self.ends.iter_mut().rev().find(|end| end.request_id == *request_id) {
            end.is_past = true;
            return now.mono.saturating_duration_since(end.at);
        }
        if self.let_go.len() == ENDS {
            self.let_go.pop_front();
        }
        let invoked = self.invoked.as_ref().filter(|(id, _)| id == request_id);
        let since = invoked.and_then(|(_, since)| since.checked_sub(INVOKE_LATE));
        let most = since.map_or(PLAUSIBLE, |since| now.mono.saturating_duration_since(since));
        self.let_go.push_back((Arc::clone(request_id), now.wall, most));
        Duration::ZERO
    }

    /// From when on a function is taken to run, so that the sandbox cannot be frozen: now, or later if
    /// nothing else comes.
    #[must_use]
    pub fn runs_from(&self, now: Instant) -> Option<Instant> {
        if self.is_started() { Some(now) } else { self.counts_as_started_at() }
    }

    fn is_started(&self) -> bool {
        let announced = self.invoked.as_ref().map(|(id, _)| id);
        let started = self.started.as_ref().filter(|id| announced == Some(*id));
        started.is_some_and(|id| self.end_of(id).is_none())
    }

    /// From when on an invocation that was let go is no short one.
    #[must_use]
    pub fn settled_at(&self) -> Option<Instant> {
        self.gone_at.and_then(|at| at.checked_add(SETTLES))
    }

    /// From when on an invocation runs of which INVOKE alone is known.
    fn counts_as_started_at(&self) -> Option<Instant> {
        let (id, at) = self.invoked.as_ref()?;
        at.checked_add(START_LATE).filter(|_| self.end_of(id).is_none())
    }

    /// Whether the last report that can be expected has come.
    #[must_use]
    pub fn all_reported(&self) -> bool {
        self.unreported == Unreported::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Now {
        Now { mono: Instant::now(), wall: 1_000_000 }
    }

    fn is_running(invocations: &Invocations, now: Instant) -> bool {
        invocations.runs_from(now).is_some_and(|at| at <= now)
    }

    fn done(id: &str, at: u64) -> Signal {
        Signal::Done { request_id: id.into(), at: Some(at), failed: false }
    }

    #[test]
    fn a_repeated_end_of_another_request_changes_nothing() {
        let mut invocations = Invocations::default();
        let now = now();
        for signal in [done("r1", 999_000), done("r2", 999_500), done("r1", 999_900)] {
            invocations.observe(&signal, now);
        }
        assert_eq!(invocations.end_of("r2").unwrap().at, now.mono - Duration::from_millis(500));
        assert_eq!(invocations.end_of("r1").unwrap().at, now.mono - Duration::from_secs(1));
        assert!(invocations.end_of("r3").is_none());
        for n in 0..100 {
            invocations.observe(&done(&format!("x{n}"), 0), now);
        }
        assert_eq!(invocations.ends.len(), ENDS);
    }

    #[test]
    fn a_gap_ends_the_wait_of_its_own_invocation_only() {
        let mut invocations = Invocations::default();
        invocations.observe(&Signal::Started("r1".into()), now());
        invocations.observe(&Signal::Gap, now());
        invocations.invoked(&"r1".into(), now().mono);
        assert!(invocations.take_gap());
        assert!(!invocations.take_gap(), "one wait, no other");
        invocations.observe(&Signal::Gap, now());
        invocations.invoked(&"r2".into(), now().mono);
        assert!(!invocations.take_gap(), "it was of r1");
    }

    #[test]
    fn a_hold_is_counted_even_if_its_end_shows_later() {
        let mut invocations = Invocations::default();
        let now = now();
        assert_eq!(invocations.let_go(&"r1".into(), now), Duration::ZERO);
        let later = Now { mono: now.mono + Duration::from_millis(20), wall: now.wall + 20 };
        let observed = invocations.observe(&done("r1", now.wall - 300), later);
        assert_eq!(observed.held, Duration::from_millis(300));
        assert_eq!(invocations.let_go(&"r1".into(), later), Duration::from_millis(320));
        // Of several, and of no more than can still be of interest.
        for n in 0..20 {
            invocations.let_go(&format!("x{n}").into(), now);
        }
        for n in 0..20 {
            let observed = invocations.observe(&done(&format!("x{n}"), now.wall - 300), later);
            let known = if n < 20 - ENDS { 0 } else { 300 };
            assert_eq!(observed.held, Duration::from_millis(known), "x{n}");
        }
        // Its end came after it was let go: it was not held.
        invocations.let_go(&"r2".into(), now);
        assert_eq!(invocations.observe(&done("r2", now.wall + 10), later).held, Duration::ZERO);
    }

    /// It was counted as no hold, or as one that was longer by the freeze.
    #[test]
    fn a_hold_is_counted_even_if_its_end_shows_after_a_freeze() {
        let now = now();
        let later = |mono: u64, wall: u64| Now {
            mono: now.mono + Duration::from_millis(mono),
            wall: now.wall + wall,
        };
        // The monotonic clock may stand still in it.
        for thawed in [later(500, 3_600_400), later(3_600_400, 3_600_400), later(500, 30_400)] {
            for (ended, known) in [(now.wall + 100, 300), (now.wall + 400, 0), (now.wall + 500, 0)]
            {
                let mut invocations = Invocations::default();
                invocations.invoked(&"r1".into(), now.mono);
                invocations.let_go(&"r1".into(), later(400, 400));
                let held = invocations.observe(&done("r1", ended), thawed).held;
                assert_eq!(held, Duration::from_millis(known), "{thawed:?}");
            }
        }
        // One that is longer than the invocation was there is by another clock.
        for (ended, known) in [(now.wall - 500, 900), (now.wall - 501, 0)] {
            let mut invocations = Invocations::default();
            invocations.invoked(&"r1".into(), now.mono);
            invocations.let_go(&"r1".into(), later(400, 400));
            let held = invocations.observe(&done("r1", ended), later(401, 401)).held;
            assert_eq!(held, Duration::from_millis(known));
        }
    }

    /// It was taken for a repeat of the end before, and the invocation was held to its deadline.
    #[test]
    fn the_end_of_the_next_try_may_come_ahead_of_its_invoke() {
        let (id, now): (Arc<str>, Now) = ("r1".into(), now());
        let later = Now { mono: now.mono + Duration::from_millis(50), wall: now.wall + 50 };
        let unread = Signal::Done { request_id: Arc::clone(&id), at: None, failed: false };
        for (end, is_next) in [
            (done("r1", now.wall), false),
            (done("r1", now.wall + 2), false),
            (done("r1", now.wall + 3), true),
            (done("r1", later.wall), true),
            (unread, true),
        ] {
            let mut invocations = Invocations::default();
            invocations.invoked(&id, now.mono);
            invocations.observe(&done("r1", now.wall), now);
            invocations.let_go(&id, now);
            invocations.observe(&end, later);
            invocations.invoked(&id, later.mono);
            assert_eq!(invocations.end_of("r1").is_some(), is_next, "{end:?}");
        }
    }

    #[test]
    fn the_end_of_one_try_is_not_that_of_the_next_under_the_same_id() {
        let mut invocations = Invocations::default();
        let (id, now): (Arc<str>, Now) = ("r1".into(), now());
        // An end that comes before its own INVOKE is heard of, and one that comes after it was let
        // go.
        for ends_late in [false, true] {
            if ends_late {
                invocations.invoked(&id, now.mono);
                assert!(invocations.end_of("r1").is_none(), "that was the try before");
                invocations.let_go(&id, now);
                invocations.observe(&done("r1", 0), now);
            } else {
                invocations.observe(&done("r1", 0), now);
                invocations.invoked(&id, now.mono);
                assert!(invocations.end_of("r1").is_some());
                invocations.let_go(&id, now);
            }
            assert!(!is_running(&invocations, now.mono));
        }
        invocations.invoked(&id, now.mono);
        assert!(invocations.end_of("r1").is_none());
    }

    #[test]
    fn an_end_from_before_the_clock_jumped_is_one_of_now() {
        let now = now();
        assert_eq!(now.instant_of(Some(1)), now.mono);
        assert_eq!(now.instant_of(Some(now.wall + 5_000)), now.mono);
        assert_eq!(now.instant_of(None), now.mono);
    }

    /// A clock that is ahead of Lambda's by more than a flush may take left no time for any.
    #[test]
    fn an_end_before_the_invocation_began_is_one_of_now() {
        let (mut invocations, now) = (Invocations::default(), now());
        let later = |ms: u64| Now {
            mono: now.mono + Duration::from_millis(ms),
            wall: now.wall + 5000 + ms,
        };
        invocations.invoked(&"r1".into(), now.mono);
        invocations.observe(&done("r1", now.wall + 100), later(125));
        assert_eq!(invocations.end_of("r1").unwrap().at, later(125).mono);
        // By the same clock; and INVOKE was heard late.
        for (id, invoked) in [("r2", 200), ("r3", 800)] {
            invocations.invoked(&id.into(), later(invoked).mono);
            invocations.observe(&done(id, later(300).wall), later(825));
            assert_eq!(invocations.end_of(id).unwrap().at, later(300).mono);
        }
    }

    #[test]
    fn ends_that_are_late_and_ends_that_never_come() {
        let mut invocations = Invocations::default();
        let id: Arc<str> = "r1".into();
        invocations.missed(&id);
        assert!(invocations.is_end_late());
        assert!(!invocations.invoked(&"r2".into(), now().mono));
        invocations.observe(&done("r1", 0), now());
        assert!(!invocations.is_end_late(), "it was only late");
        invocations.missed(&id);
        assert!(invocations.observe(&Signal::Started("r2".into()), now()).ends_never_come);
        invocations.missed(&id);
        assert!(
            !invocations.invoked(&"r2".into(), now().mono)
                && invocations.invoked(&"r3".into(), now().mono)
        );
    }

    #[test]
    fn what_runs_and_what_is_reported() {
        let mut invocations = Invocations::default();
        assert!(!is_running(&invocations, now().mono) && !invocations.all_reported());
        invocations.observe(&Signal::InitReported, now());
        assert!(invocations.all_reported());
        invocations.observe(&Signal::Started("r1".into()), now());
        assert!(!is_running(&invocations, now().mono) && !invocations.all_reported());
        invocations.invoked(&"r1".into(), now().mono);
        assert!(is_running(&invocations, now().mono) && !invocations.all_reported());
        invocations.observe(&done("r1", 0), now());
        invocations.observe(&Signal::Reported("r0".into()), now());
        assert!(!is_running(&invocations, now().mono) && !invocations.all_reported());
        invocations.observe(&Signal::Reported("r1".into()), now());
        assert!(invocations.all_reported());
        // INVOKE has said what the last one is: the late start of one before it changes nothing.
        invocations.invoked(&"r3".into(), now().mono);
        invocations.observe(&Signal::Started("r2".into()), now());
        invocations.observe(&Signal::Reported("r2".into()), now());
        assert!(!invocations.all_reported());
        invocations.observe(&Signal::Reported("r3".into()), now());
        assert!(invocations.all_reported());
        // The report of the try before came in the next one: that one's own was not waited for.
        for _ in 0..2 {
            invocations.invoked(&"r4".into(), now().mono);
        }
        invocations.observe(&Signal::Reported("r4".into()), now());
        assert!(!invocations.all_reported());
        invocations.observe(&Signal::Reported("r4".into()), now());
        assert!(invocations.all_reported());
    }

    #[test]
    fn an_invocation_without_a_start_runs_after_a_while() {
        let (mut invocations, now) = (Invocations::default(), now());
        let later = |ms: u64| now.mono + Duration::from_millis(ms);
        invocations.invoked(&"r1".into(), now.mono);
        assert!(!is_running(&invocations, later(199)), "it may be over, and frozen soon");
        assert!(is_running(&invocations, later(200)));
        assert_eq!(invocations.runs_from(now.mono), Some(later(200)));
        invocations.observe(&done("r1", now.wall), now);
        assert!(!is_running(&invocations, later(9000)));
        assert_eq!(invocations.runs_from(now.mono), None);
    }

    /// The end of the one before came late: it counted as running after the next one was let go, and
    /// a request was on its way when the sandbox froze.
    #[test]
    fn what_has_started_is_over_once_the_next_has_ended() {
        let (mut invocations, now) = (Invocations::default(), now());
        invocations.invoked(&"r1".into(), now.mono);
        invocations.observe(&Signal::Started("r1".into()), now);
        assert!(is_running(&invocations, now.mono));
        invocations.invoked(&"r2".into(), now.mono);
        assert!(!is_running(&invocations, now.mono), "nor is it known of the next one");
        assert!(is_running(&invocations, now.mono + START_LATE));
        invocations.observe(&done("r2", now.wall), now);
        assert!(!is_running(&invocations, now.mono + START_LATE));
        // A start may come ahead of its INVOKE.
        invocations.observe(&Signal::Started("r3".into()), now);
        assert!(!is_running(&invocations, now.mono));
        invocations.invoked(&"r3".into(), now.mono);
        assert!(is_running(&invocations, now.mono));
    }

    /// `platform.start` of one that was over came behind that of the next: a request could be on its
    /// way when the sandbox froze, or wait although a function ran.
    #[test]
    fn a_start_that_comes_late_changes_nothing() {
        let now = now();
        let (first, second): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        for first_has_ended in [false, true] {
            let mut invocations = Invocations::default();
            for n in 0..2 * ENDS {
                invocations.invoked(&format!("x{n}").into(), now.mono);
                invocations.observe(&done(&format!("x{n}"), now.wall), now);
            }
            invocations.invoked(&first, now.mono);
            let _ = invocations.let_go(&first, now);
            if first_has_ended {
                invocations.observe(&done("a", now.wall), now);
            }
            invocations.invoked(&second, now.mono);
            invocations.observe(&Signal::Started(Arc::clone(&second)), now);
            // Also of one that is remembered no more, or that a process before this one has seen.
            for late in [&first, &"x0".into(), &"y".into()] {
                invocations.observe(&Signal::Started(Arc::clone(late)), now);
                assert!(is_running(&invocations, now.mono), "the second one");
            }
            invocations.observe(&done("b", now.wall), now);
            for late in [&first, &"x0".into(), &"y".into()] {
                invocations.observe(&Signal::Started(Arc::clone(late)), now);
                assert!(!is_running(&invocations, now.mono + START_LATE), "none");
            }
        }
    }

    #[test]
    fn an_invocation_that_was_let_go_settles_once_next_was_called() {
        let (mut invocations, now) = (Invocations::default(), now());
        let later = |ms: u64| now.mono + Duration::from_millis(ms);
        invocations.invoked(&"r1".into(), now.mono);
        assert_eq!(invocations.settled_at(), None);
        invocations.let_go(&"r1".into(), Now { mono: later(3), ..now });
        assert_eq!(invocations.settled_at(), Some(later(53)));
    }
}
