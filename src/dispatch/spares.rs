//! Buffers that were used and serve again, so that their pages need not be fetched anew: the bodies
//! of POSTs with their events, and the bodies of requests. Shared by the threads that fill them and
//! the one that empties them.
//!
//! They are charged like all else that stays in memory, and are the first to go: where there is no
//! room for them, or what comes now is much smaller.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::charge::{Charge, Gauge};
use crate::event::{Batch, Event};

/// How many of each kind are kept.
const KEPT: usize = 3;
/// The largest that are kept.
const LARGEST_BATCH: usize = 1024 * 1024;
const LARGEST_BODY: usize = 2 * 1024 * 1024;

#[derive(Debug, Default)]
struct Kept {
    batches: Vec<(Vec<u8>, Vec<Event>, Charge)>,
    bodies: Vec<(Vec<u8>, Charge)>,
}

/// See the module's page.
#[derive(Debug)]
pub struct Spares {
    gauge: Arc<Gauge>,
    kept: Mutex<Kept>,
}

impl Spares {
    /// None yet.
    #[must_use]
    pub fn new(gauge: Arc<Gauge>) -> Spares {
        Spares { gauge, kept: Mutex::default() }
    }

    /// Buffers for a POST of so many bytes and its events, used or new. What is in them does not
    /// matter any more. Used ones have pages, and stay charged for as long as it takes to fill
    /// them.
    #[must_use]
    pub fn batch(&self, bytes: usize) -> (Vec<u8>, Vec<Event>, Option<Charge>) {
        let kept = &mut self.lock().batches;
        // Not much too large ones: they count as a whole while they wait.
        let fitting = kept.iter().position(|(body, _, charge)| {
            body.capacity() >= bytes && charge.bytes() <= bytes.saturating_mul(4)
        });
        match fitting {
            Some(index) => {
                let (body, events, charge) = kept.swap_remove(index);
                (body, events, Some(charge))
            }
            None => {
                // Perhaps they are of no use to what comes now.
                if kept.first().is_some_and(|(body, _, _)| body.capacity() > bytes) {
                    kept.remove(0);
                }
                Default::default()
            }
        }
    }

    /// A batch is done with.
    pub fn keep_batch(&self, batch: Batch) {
        let cost = batch.cost();
        // One without buffers would take the place of another one.
        let is_kept = (1..=LARGEST_BATCH).contains(&cost);
        let Some(charge) = self.gauge.try_charge(cost).filter(|_| is_kept) else {
            return;
        };
        let (body, events) = batch.into_buffers();
        let kept = &mut self.lock().batches;
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push((body, events, charge));
    }

    /// A buffer for a request of so many bytes, used or new. One that grows is moved, and its pages
    /// are fetched anew each time; pages that stay unused cost nothing.
    #[must_use]
    pub fn body(&self, bytes: usize) -> Vec<u8> {
        let kept = &mut self.lock().bodies;
        let fitting = kept
            .iter()
            .position(|(body, _)| (bytes..=bytes.saturating_mul(2)).contains(&body.capacity()));
        match fitting {
            Some(index) => kept.swap_remove(index).0,
            None => {
                if kept.first().is_some_and(|(body, _)| body.capacity() > bytes) {
                    kept.remove(0);
                }
                Vec::with_capacity(bytes)
            }
        }
    }

    /// A request is done with.
    pub fn keep_body(&self, body: Vec<u8>) {
        let cost = body.capacity();
        let Some(charge) = self.gauge.try_charge(cost).filter(|_| cost <= LARGEST_BODY) else {
            return;
        };
        let kept = &mut self.lock().bodies;
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push((body, charge));
    }

    /// Gives all of them up.
    pub fn clear(&self) {
        *self.lock() = Kept::default();
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_buffers_serve_again_and_large_ones_go_when_small_ones_are_wanted() {
        let gauge = Gauge::new(10_000_000);
        let spares = Spares::new(Arc::clone(&gauge));
        for _ in 0..5 {
            spares.keep_batch(Batch::new(Vec::with_capacity(100_000), Vec::new()));
            spares.keep_batch(Batch::default());
            spares.keep_body(Vec::with_capacity(200_000));
        }
        assert_eq!(gauge.held(), 900_000);
        let (body, _, charge) = spares.batch(50_000);
        assert!(body.capacity() >= 100_000);
        assert_eq!(gauge.held(), 900_000, "it is charged while it is filled");
        drop(charge);
        assert!(spares.body(150_000).capacity() >= 200_000);
        for _ in 0..3 {
            assert_eq!(spares.batch(100).0.capacity(), 0);
            assert!(spares.body(100).capacity() < 200_000);
        }
        assert_eq!(gauge.held(), 0);
    }

    #[test]
    fn buffers_for_many_more_events_serve_no_small_body() {
        let gauge = Gauge::new(10_000_000);
        let spares = Spares::new(Arc::clone(&gauge));
        let events = |count| Vec::<Event>::with_capacity(count);
        for (count, serves) in [(1000, true), (10_000, false)] {
            spares.keep_batch(Batch::new(Vec::with_capacity(100_000), events(count)));
            assert_eq!(spares.batch(80_000).1.capacity() >= count, serves, "{count}");
        }
        assert_eq!(gauge.held(), 0);
    }

    #[test]
    fn nothing_is_kept_where_there_is_no_room_or_it_is_too_large() {
        let gauge = Gauge::new(4_000_000);
        let spares = Spares::new(Arc::clone(&gauge));
        spares.keep_body(Vec::with_capacity(3_000_000));
        assert_eq!(gauge.held(), 0);
        spares.keep_body(Vec::with_capacity(1_500_000));
        let taken = gauge.charge(2_000_000);
        spares.keep_body(Vec::with_capacity(1_500_000));
        assert_eq!(gauge.held(), 3_500_000);
        drop(taken);
        spares.clear();
        assert_eq!(gauge.held(), 0);
    }
}
