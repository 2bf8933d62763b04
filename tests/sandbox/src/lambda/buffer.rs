//! A subscriber's buffer: when a batch is due, and what happens when there is no room. Pure, the clock is passed in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Events waiting to be posted, by their place in the list of all events.
#[derive(Debug)]
pub(crate) struct Buffer {
    waiting: VecDeque<Item>,
    bytes: usize,
    room: usize,
    urgent: bool,
    dropped: Dropped,
}

#[derive(Debug)]
struct Item {
    index: usize,
    bytes: usize,
    since: Instant,
}

/// What did not fit, until it is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
}

/// When a batch is sent: at whichever comes first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Triggers {
    pub(crate) items: usize,
    pub(crate) bytes: usize,
    pub(crate) timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Now,
    At(Instant),
    Never,
}

impl Buffer {
    pub(crate) fn new(room: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
            room,
            urgent: false,
            dropped: Dropped::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Keeps an event, or counts it as dropped when there is no room; says which.
    pub(crate) fn push(&mut self, index: usize, bytes: usize, now: Instant) -> bool {
        if self.bytes + bytes > self.room {
            self.dropped.records += 1;
            self.dropped.bytes += bytes;
            return false;
        }
        self.bytes += bytes;
        self.waiting.push_back(Item { index, bytes, since: now });
        true
    }

    /// What was dropped since this was last asked, once there is room to report it.
    pub(crate) fn take_dropped(&mut self, report_bytes: usize) -> Option<Dropped> {
        let fits = self.dropped.records > 0 && self.bytes + report_bytes <= self.room;
        fits.then(|| std::mem::take(&mut self.dropped))
    }

    /// An input stream closed: what is here goes at once.
    pub(crate) fn flush(&mut self) {
        self.urgent = !self.waiting.is_empty();
    }

    pub(crate) fn due(&self, triggers: Triggers, now: Instant) -> Due {
        let Some(first) = self.waiting.front() else { return Due::Never };
        if self.urgent || self.waiting.len() >= triggers.items || self.bytes >= triggers.bytes {
            return Due::Now;
        }
        let at = first.since + triggers.timeout;
        if at <= now { Due::Now } else { Due::At(at) }
    }

    /// The next batch: as many as fit one.
    pub(crate) fn take(&mut self, triggers: Triggers) -> Vec<usize> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < triggers.items && bytes < triggers.bytes {
            let Some(item) = self.waiting.pop_front() else { break };
            bytes += item.bytes;
            batch.push(item.index);
        }
        self.bytes -= bytes;
        self.urgent = self.urgent && !self.waiting.is_empty();
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIGGERS: Triggers =
        Triggers { items: 3, bytes: 100, timeout: Duration::from_millis(25) };

    fn filled(sizes: &[usize], now: Instant) -> Buffer {
        let mut buffer = Buffer::new(1000);
        for (index, size) in sizes.iter().enumerate() {
            assert!(buffer.push(index, *size, now));
        }
        buffer
    }

    #[test]
    fn the_timer_starts_with_the_first_event() {
        let now = Instant::now();
        let mut buffer = filled(&[10], now);
        buffer.push(1, 10, now + Duration::from_millis(20));
        assert_eq!(buffer.due(TRIGGERS, now), Due::At(now + TRIGGERS.timeout));
        assert_eq!(buffer.due(TRIGGERS, now + TRIGGERS.timeout), Due::Now);
        assert_eq!(buffer.take(TRIGGERS), [0, 1]);
        assert_eq!(buffer.due(TRIGGERS, now), Due::Never);
    }

    #[test]
    fn items_and_bytes_send_at_once() {
        let now = Instant::now();
        let mut many = filled(&[1, 1, 1, 1], now);
        assert_eq!(many.due(TRIGGERS, now), Due::Now);
        assert_eq!(many.take(TRIGGERS), [0, 1, 2]);
        assert!(matches!(many.due(TRIGGERS, now), Due::At(_)));
        let mut large = filled(&[60, 60, 60], now);
        assert_eq!(large.due(TRIGGERS, now), Due::Now);
        assert_eq!(large.take(TRIGGERS), [0, 1], "a batch may go over by its last event");
    }

    #[test]
    fn a_full_buffer_drops_and_says_so_later() {
        let now = Instant::now();
        let mut buffer = Buffer::new(100);
        assert!(buffer.push(0, 90, now));
        assert!(!buffer.push(1, 20, now));
        assert_eq!(buffer.take_dropped(50), None);
        buffer.take(TRIGGERS);
        assert_eq!(buffer.take_dropped(50), Some(Dropped { records: 1, bytes: 20 }));
        assert_eq!(buffer.take_dropped(50), None);
    }

    #[test]
    fn a_flush_does_not_wait() {
        let now = Instant::now();
        let mut buffer = filled(&[1], now);
        buffer.flush();
        assert_eq!(buffer.due(TRIGGERS, now), Due::Now);
    }
}
