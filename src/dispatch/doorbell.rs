//! What wakes the dispatcher's thread. Messages wait in the channel until it looks there; waking it for each of them would cost more than
//! most of them do. So before it sleeps it says what it waits for, and whoever sends a message wakes it for that alone.
//!
//! The dispatcher announces before it looks at the channel for the last time, and a sender asks after it has sent: one of them sees the other.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Instant;

use super::message::{Now, Signal};

/// What the dispatcher waits for while it sleeps. The default is for one that is awake: it looks at the channel before it sleeps.
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
    /// By both clocks: the monotonic one may stand still in a freeze.
    pub until: Now,
    /// While less than so many bytes more have come.
    pub bytes: usize,
}

/// What a message brings.
#[derive(Clone, Copy, Debug, Default)]
pub struct News {
    starts: bool,
    ends: bool,
    bytes: usize,
}

impl News {
    /// Of telemetry that takes so many bytes in memory.
    #[must_use]
    pub fn new(signals: &[Signal], bytes: usize) -> News {
        News {
            starts: signals.iter().any(|signal| matches!(signal, Signal::Started(_))),
            ends: signals.iter().any(|signal| matches!(signal, Signal::Done { .. } | Signal::Gap)),
            bytes,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    attention: Attention,
    /// Bytes that came since it was announced.
    came: usize,
}

impl State {
    fn wakes(&mut self, news: News) -> bool {
        self.came = self.came.saturating_add(news.bytes);
        let Attention { all, starts, ends, bytes, .. } = self.attention;
        let many = news.bytes > 0 && bytes.is_some_and(|bytes| self.came >= bytes);
        all || (starts && news.starts) || (ends && news.ends) || many
    }
}

/// See the module's page.
#[derive(Debug, Default)]
pub struct Doorbell {
    state: Mutex<State>,
    sleeper: OnceLock<Thread>,
}

impl Doorbell {
    /// Says what the dispatcher waits for from now on.
    pub fn announce(&self, attention: Attention) {
        *self.lock() = State { attention, came: 0 };
    }

    /// Whether telemetry that was sent is to wake the dispatcher.
    #[must_use]
    pub fn wakes(&self, news: News) -> bool {
        self.lock().wakes(news)
    }

    /// Whether an invocation that begins now needs no answer.
    #[must_use]
    pub fn passes(&self, now: Now) -> bool {
        let state = self.lock();
        state.attention.passes.is_some_and(|passes| {
            state.came < passes.bytes
                && now.mono < passes.until.mono
                && now.wall < passes.until.wall
        })
    }

    /// Wakes the dispatcher, now or as soon as it falls asleep.
    pub fn ring(&self) {
        if let Some(sleeper) = self.sleeper.get() {
            sleeper.unpark();
        }
    }

    /// Sleeps until then, or until the bell rings, or for no reason. On the dispatcher's thread alone.
    pub fn sleep(&self, until: Option<Instant>) {
        match until {
            Some(until) => thread::park_timeout(until.saturating_duration_since(Instant::now())),
            None => thread::park(),
        }
    }

    /// This is the dispatcher's thread.
    pub fn belongs_here(&self) {
        self.sleeper.get_or_init(thread::current);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
            let bell = Doorbell::default();
            bell.announce(attention);
            assert_eq!(bell.wakes(news), expected, "{attention:?} {news:?}");
        }
    }

    #[test]
    fn bytes_add_up_until_the_next_announcement() {
        let bell = Doorbell::default();
        let attention = Attention { bytes: Some(25), ..Attention::default() };
        bell.announce(attention);
        let news = News::new(&[], 10);
        assert_eq!([bell.wakes(news), bell.wakes(news), bell.wakes(news)], [false, false, true]);
        bell.announce(attention);
        assert!(!bell.wakes(news));
    }

    #[test]
    fn an_invocation_passes_in_time_and_while_little_has_come() {
        let now = Now { mono: Instant::now(), wall: 1_000 };
        let later =
            |ms: u64| Now { mono: now.mono + Duration::from_millis(ms), wall: now.wall + ms };
        let bell = Doorbell::default();
        assert!(!bell.passes(now), "the dispatcher is awake");
        let passes = Some(Passes { until: later(100), bytes: 20 });
        bell.announce(Attention { passes, ..Attention::default() });
        assert!(bell.passes(later(99)) && !bell.passes(later(100)));
        let frozen = Now { mono: now.mono, wall: later(100).wall };
        assert!(!bell.passes(frozen), "the sandbox was frozen");
        assert!(!bell.wakes(News::new(&[done()], 19)) && bell.passes(now));
        assert!(!bell.wakes(News::new(&[], 1)) && !bell.passes(now));
    }

    #[test]
    fn a_ring_before_the_sleep_is_not_lost() {
        let bell = Doorbell::default();
        bell.ring();
        bell.belongs_here();
        bell.ring();
        bell.sleep(None);
        bell.sleep(Some(Instant::now()));
    }
}
