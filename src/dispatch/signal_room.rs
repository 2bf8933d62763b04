//! Room for signals that wait without an event: they pass in any case, and memory is bounded all
//! the same. Where too many wait for a dispatcher that is busy, all that come then are one gap, which
//! says as much: an end that is waited for may have been among them.
//!
//! Used by the listener's threads. A charge goes with each message, and comes back when the
//! dispatcher has read it.

use std::sync::Arc;

use super::charge::{Charge, Gauge};
use super::message::{Message, Signal};

/// Lambda says three for each invocation, and the dispatcher is busy for seconds.
const ROOM: usize = 256 * 1024;
/// What an allocation takes beside its bytes.
const ALLOCATION: usize = 32;

/// See the module's page.
#[derive(Debug)]
pub struct SignalRoom {
    signals: Arc<Gauge>,
    /// Taken while a gap waits.
    gap: Arc<Gauge>,
}

impl Default for SignalRoom {
    fn default() -> Self {
        SignalRoom { signals: Gauge::new(ROOM), gap: Gauge::new(1) }
    }
}

impl SignalRoom {
    /// What is to wait of these signals, with its charge; `None` where a gap waits already.
    #[must_use]
    pub fn take(&self, signals: Vec<Signal>) -> Option<(Vec<Signal>, Charge)> {
        match self.signals.try_charge(size_of::<Message>() + weight(&signals)) {
            Some(charge) => Some((signals, charge)),
            None => Some((vec![Signal::Gap], self.gap.try_charge(1)?)),
        }
    }
}

/// What signals take in memory.
#[must_use]
pub(super) fn weight(signals: &[Signal]) -> usize {
    let of = |signal: &Signal| {
        let id = match signal {
            Signal::Started(id) | Signal::Reported(id) => Some(id),
            Signal::Done { request_id, .. } => Some(request_id),
            Signal::InitReported | Signal::Gap => None,
        };
        size_of::<Signal>() + id.map_or(0, |id| id.len() + ALLOCATION)
    };
    signals.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_pass_and_too_many_of_them_are_one_gap() {
        let room = SignalRoom::default();
        let signals = || vec![Signal::Started("r".into()), Signal::Reported("r".into())];
        let mut waiting: Vec<_> = (0..100_000).map_while(|_| room.take(signals())).collect();
        let (last, _) = waiting.pop().unwrap();
        assert_eq!(last, [Signal::Gap], "and a second one only when it was read");
        assert!(waiting.iter().all(|(passed, _)| *passed == signals()));
        assert!(waiting.len() * size_of::<Message>() <= ROOM && waiting.len() > 500);
        assert!(room.take(vec![Signal::Gap]).is_some_and(|(passed, _)| passed == [Signal::Gap]));
        waiting.clear();
        assert!(room.take(signals()).is_some_and(|(passed, _)| passed == signals()));
        let many = vec![Signal::Started("r".into()); 100_000];
        assert!(room.take(many).is_some_and(|(passed, _)| passed == [Signal::Gap]));
    }
}
