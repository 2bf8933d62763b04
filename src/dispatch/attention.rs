//! What the dispatcher's thread waits for while it sleeps: of what comes, only that wakes it. Pure;
//! [`super::doorbell`] does the waking.

use std::time::{Duration, Instant};

use super::message::{Now, Signal};

/// What the dispatcher waits for while it sleeps. The default is for one that is awake: it looks at
/// the channel before it sleeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attention {
    /// Every message.
    pub all: bool,
    /// The start of a function: only while one runs, something may become due.
    pub starts: bool,
    /// The end of a function, or a gap in which it may have been lost.
    pub ends: bool,
    /// So many bytes more in memory. `None`: any number may come.
    pub bytes: Option<usize>,
    /// An invocation needs no answer, as nothing is due in it.
    pub passes: Option<Passes>,
}

/// See [`Attention::passes`].
#[derive(Clone, Copy, Debug)]
pub struct Passes {
    /// When it was announced.
    pub since: Now,
    /// For so long, and until the next freeze: the dispatcher's own timer may stand still in that.
    pub time: Duration,
    /// While less than so many bytes more have come.
    pub bytes: usize,
}

/// No invocation passes so shortly before the dispatcher wakes by itself: `/next` is to be called
/// before it sends, or when that is over.
const WAKES_SOON: Duration = Duration::from_millis(5);

/// So many messages and signals wait unseen while the dispatcher sleeps: far fewer than there is
/// room for, so that none is lost before it looks.
const MAX_UNSEEN: usize = 256;

/// What a message brings.
#[derive(Clone, Copy, Debug, Default)]
pub struct News {
    starts: bool,
    ends: bool,
    signals: usize,
    bytes: usize,
}

impl News {
    /// Of telemetry that takes so many bytes in memory.
    #[must_use]
    pub fn new(signals: &[Signal], bytes: usize) -> News {
        News {
            starts: signals.iter().any(|signal| matches!(signal, Signal::Started(_))),
            ends: signals.iter().any(|signal| matches!(signal, Signal::Done { .. } | Signal::Gap)),
            signals: signals.len(),
            bytes,
        }
    }
}

/// What was announced last, and what came since.
#[derive(Clone, Copy, Debug, Default)]
pub struct Announced {
    attention: Attention,
    /// When the dispatcher wakes by itself.
    wakes_at: Option<Instant>,
    /// Bytes that came since it was announced.
    came: usize,
    /// Messages and signals that came.
    unseen: usize,
}

impl Announced {
    /// From now on.
    #[must_use]
    pub fn new(attention: Attention, wakes_at: Option<Instant>) -> Announced {
        Announced { attention, wakes_at, came: 0, unseen: 0 }
    }

    /// Whether telemetry that was sent is to wake the dispatcher.
    #[must_use]
    pub fn wakes(&mut self, news: News) -> bool {
        self.came = self.came.saturating_add(news.bytes);
        self.unseen = self.unseen.saturating_add(1 + news.signals);
        let Attention { all, starts, ends, bytes, .. } = self.attention;
        let many = news.bytes > 0 && bytes.is_some_and(|bytes| self.came >= bytes);
        let wakes = all
            || (starts && news.starts)
            || (ends && news.ends)
            || many
            || self.unseen >= MAX_UNSEEN;
        if wakes {
            self.rings();
        }
        wakes
    }

    /// The dispatcher is being woken: until it sleeps again no invocation passes.
    pub fn rings(&mut self) {
        self.attention.passes = None;
    }

    /// Whether an invocation that begins now needs no answer. It counts as a message.
    #[must_use]
    pub fn passes(&mut self, now: Now) -> bool {
        self.unseen = self.unseen.saturating_add(1);
        let is_seen_in_time = self.unseen < MAX_UNSEEN;
        self.attention.passes.filter(|_| is_seen_in_time).is_some_and(|passes| {
            // After a freeze that time may have passed long ago.
            let sleeps = self.wakes_at.is_none_or(|at| now.mono + WAKES_SOON < at);
            let in_time = sleeps && now.since(&passes.since) < passes.time;
            // A clock that was set back would hide a freeze.
            let is_set_back = now.wall < passes.since.wall;
            let is_known = !is_set_back && !now.is_thawed_since(&passes.since);
            in_time && is_known && self.came < passes.bytes
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn done() -> Signal {
        Signal::Done { request_id: "r1".into(), at: None, failed: false }
    }

    #[test]
    fn only_what_is_waited_for_wakes() {
        let awake = Attention::default();
        let started = News::new(&[Signal::Started("r1".into())], 10);
        let ended = News::new(&[Signal::Reported("r0".into()), done()], 10);
        let gap = News::new(&[Signal::Gap], 0);
        let quiet = News::new(&[Signal::Reported("r1".into()), Signal::InitReported], 0);
        for (attention, news, expected) in [
            (awake, started, false),
            (awake, ended, false),
            (Attention { all: true, ..awake }, quiet, true),
            (Attention { starts: true, ..awake }, started, true),
            (Attention { starts: true, ..awake }, ended, false),
            (Attention { ends: true, ..awake }, started, false),
            (Attention { ends: true, ..awake }, ended, true),
            (Attention { ends: true, ..awake }, gap, true),
            (Attention { bytes: Some(0), ..awake }, quiet, false),
            (Attention { bytes: Some(0), ..awake }, started, true),
            (Attention { bytes: Some(11), ..awake }, started, false),
        ] {
            assert_eq!(
                Announced::new(attention, None).wakes(news),
                expected,
                "{attention:?} {news:?}"
            );
        }
    }

    #[test]
    fn signals_alone_and_invocations_that_pass_wake_before_there_is_no_room_for_them() {
        let since = Now { mono: Instant::now(), wall: 1_000 };
        let passes = Some(Passes { since, time: Duration::from_secs(10), bytes: 20 });
        let attention = Attention { passes, ..Attention::default() };
        let mut announced = Announced::new(attention, None);
        let signals = News::new(&[Signal::Started("r1".into()), done()], 0);
        let rounds = (0..1000).take_while(|_| announced.passes(since) && !announced.wakes(signals));
        assert_eq!(rounds.count(), MAX_UNSEEN / 4 - 1);
        assert!(!announced.passes(since), "until it has slept again");
        let mut announced = Announced::new(attention, None);
        assert!((0..MAX_UNSEEN).any(|_| announced.wakes(signals)), "without an invocation, too");
    }

    #[test]
    fn bytes_add_up_until_the_next_announcement() {
        let attention = Attention { bytes: Some(25), ..Attention::default() };
        let mut announced = Announced::new(attention, None);
        let news = News::new(&[], 10);
        assert_eq!(
            [announced.wakes(news), announced.wakes(news), announced.wakes(news)],
            [false, false, true]
        );
        assert!(!Announced::new(attention, None).wakes(news));
    }

    #[test]
    fn an_invocation_passes_in_time_and_while_little_has_come() {
        let since = Now { mono: Instant::now(), wall: 1_000 };
        let later = |mono: u64, wall: u64| Now {
            mono: since.mono + Duration::from_millis(mono),
            wall: since.wall + wall,
        };
        assert!(!Announced::default().passes(since), "the dispatcher is awake");
        let passes = Some(Passes { since, time: Duration::from_secs(10), bytes: 20 });
        let attention = Attention { passes, ..Attention::default() };
        let mut announced = Announced::new(attention, None);
        for (now, expected) in [
            (later(0, 0), true),
            (later(9_999, 9_999), true),
            (later(10_000, 10_000), false),
            (later(10_000, 0), false),
            (later(9_000, 10_000), true),
            (later(5_000, 6_001), false),
            (later(0, 3_600_000), false),
        ] {
            assert_eq!(announced.passes(now), expected, "{now:?}");
        }
        let until = |ms: u64| Announced::new(attention, Some(later(ms, 0).mono));
        assert!(until(100).passes(later(94, 94)), "the dispatcher sleeps on");
        assert!(!until(100).passes(later(95, 95)), "it wakes soon");
        assert!(!until(100).passes(later(500, 500)), "it should have woken");
        assert!(!announced.wakes(News::new(&[done()], 19)) && announced.passes(since));
        assert!(!announced.wakes(News::new(&[], 1)) && !announced.passes(since));
    }
}
