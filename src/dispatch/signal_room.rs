//! Room for signals that wait without an event: they pass in any case, and memory is bounded all
//! the same. Where too many wait for a dispatcher that is busy, all that come then are one gap, but
//! for the end that is waited for.
//!
//! Used by the listener's threads. Each message has a charge, which is given back when the
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
    /// Taken while an end does that came when there was no room.
    end: Arc<Gauge>,
}

impl Default for SignalRoom {
    fn default() -> Self {
        SignalRoom::new(ROOM)
    }
}

impl SignalRoom {
    /// Of so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> SignalRoom {
        SignalRoom { signals: Gauge::new(bytes), gap: Gauge::new(1), end: Gauge::new(1) }
    }

    /// What is to wait of these signals, with its charge; `None` where a gap waits already.
    /// `is_awaited`: the function's end of that request is waited for.
    #[must_use]
    pub fn take(
        &self,
        mut signals: Vec<Signal>,
        is_awaited: impl Fn(&str) -> bool,
    ) -> Option<(Vec<Signal>, Charge)> {
        if let Some(charge) = self.signals.try_charge(size_of::<Message>() + weight(&signals)) {
            return Some((signals, charge));
        }
        let is_end = |signal: &Signal| {
            matches!(
                signal,
                Signal::Done { request_id, .. } if is_awaited(request_id)
            )
        };
        let end = signals.iter().position(is_end).map(|at| signals.swap_remove(at));
        let end = end.and_then(|end| Some((vec![Signal::Gap, end], self.end.try_charge(1)?)));
        end.or_else(|| Some((vec![Signal::Gap], self.gap.try_charge(1)?)))
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
        let mut waiting: Vec<_> =
            (0..100_000).map_while(|_| room.take(signals(), |_| false)).collect();
        let (last, _) = waiting.pop().unwrap();
        assert_eq!(last, [Signal::Gap], "and a second one only when it was read");
        assert!(waiting.iter().all(|(passed, _)| *passed == signals()));
        assert!(waiting.len() * size_of::<Message>() <= ROOM && waiting.len() > 500);
        assert!(
            room.take(vec![Signal::Gap], |_| false)
                .is_some_and(|(passed, _)| passed == [Signal::Gap])
        );
        waiting.clear();
        assert!(room.take(signals(), |_| false).is_some_and(|(passed, _)| passed == signals()));
        let many = vec![Signal::Started("r".into()); 100_000];
        assert!(room.take(many, |_| false).is_some_and(|(passed, _)| passed == [Signal::Gap]));
    }

    #[test]
    fn the_end_that_is_waited_for_passes_once_in_any_case() {
        let room = SignalRoom::new(0);
        let done = |id: &str| Signal::Done { request_id: id.into(), at: Some(7), failed: true };
        let take = |signals| room.take(signals, |id| id == "r2");
        let gap = take(vec![Signal::Gap]);
        assert!(gap.is_some() && take(vec![done("r1"), done("r3")]).is_none());
        let (passed, charge) = take(vec![done("r1"), done("r2")]).unwrap();
        assert_eq!(passed, [Signal::Gap, done("r2")]);
        assert!(take(vec![done("r2")]).is_none(), "it is known by then");
        drop((gap, charge));
        assert_eq!(take(vec![done("r2")]).unwrap().0, [Signal::Gap, done("r2")]);
    }
}
