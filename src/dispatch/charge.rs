//! What waits in memory, counted in bytes of capacity. Shared by the listener's threads, which may
//! be refused, and the dispatcher's.
//!
//! A [`Charge`] travels with each buffer that waits, and gives its bytes back when it is dropped:
//! so the sum is right whatever becomes of the buffer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The sum of all charges, and its bound: `QUEUE_BYTES`.
#[derive(Debug)]
pub struct Gauge {
    held: AtomicUsize,
    most: AtomicUsize,
    bound: usize,
    /// What of the bound is a [`Share`]'s, beyond what that holds.
    left_free: AtomicUsize,
}

impl Gauge {
    /// Nothing is held at first.
    #[must_use]
    pub fn new(bound: usize) -> Arc<Gauge> {
        let (held, most, left_free) = Default::default();
        Arc::new(Gauge { held, most, bound, left_free })
    }

    /// A charge of so many bytes, if the bound allows it beside all shares.
    #[must_use]
    pub fn try_charge(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        let limit = self.limit();
        let fits = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= limit);
        let before = self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok()?;
        self.most.fetch_max(before + bytes, Ordering::Relaxed);
        Some(Charge { gauge: Arc::clone(self), bytes })
    }

    /// A charge of so many bytes, whatever the bound says: for what is on its way already.
    #[must_use]
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        let before = self.held.fetch_add(bytes, Ordering::AcqRel);
        self.most.fetch_max(before + bytes, Ordering::Relaxed);
        Charge { gauge: Arc::clone(self), bytes }
    }

    /// A share of the bound, of which nothing is held yet.
    #[must_use]
    pub fn share(self: &Arc<Self>, bytes: usize) -> Share {
        self.left_free.fetch_add(bytes, Ordering::AcqRel);
        Share { charge: self.charge(0), bytes }
    }

    /// The sum now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    /// The largest sum there ever was.
    #[must_use]
    pub fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// The bound.
    #[must_use]
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// Up to this sum there is room for what has no share.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.bound.saturating_sub(self.left_free.load(Ordering::Acquire))
    }
}

/// Bytes that one buffer takes, until it is dropped.
#[derive(Debug)]
pub struct Charge {
    gauge: Arc<Gauge>,
    bytes: usize,
}

impl Charge {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The buffer has another size now.
    pub fn resize(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.absorb(self.gauge.charge(more)),
            None => {
                self.gauge.held.fetch_sub(self.bytes - bytes, Ordering::AcqRel);
                self.bytes = bytes;
            }
        }
    }

    /// The buffer is to be larger, if the bound allows it. Says whether it does.
    #[must_use]
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        let more = self.gauge.try_charge(bytes.saturating_sub(self.bytes));
        more.map(|more| self.absorb(more)).is_some()
    }

    fn absorb(&mut self, mut other: Charge) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.gauge.held.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// A part of the memory that is left free for one purpose: whatever else waits, there is room.
#[derive(Debug)]
pub struct Share {
    charge: Charge,
    bytes: usize,
}

impl Share {
    /// So many of its bytes are held now. It may be more than there are for a moment.
    pub fn hold(&mut self, held: usize) {
        let free = |held: usize| self.bytes.saturating_sub(held);
        let (gauge, before) = (&self.charge.gauge, self.charge.bytes);
        // Nobody else is to take in between what is given back to the share.
        if held < before {
            gauge.left_free.fetch_add(free(held) - free(before), Ordering::AcqRel);
            gauge.held.fetch_sub(before - held, Ordering::AcqRel);
        } else {
            let sum = gauge.held.fetch_add(held - before, Ordering::AcqRel) + (held - before);
            gauge.most.fetch_max(sum, Ordering::Relaxed);
            gauge.left_free.fetch_sub(free(before) - free(held), Ordering::AcqRel);
        }
        self.charge.bytes = held;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.hold(0);
        self.charge.gauge.left_free.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_left_free_for_its_purpose() {
        let gauge = Gauge::new(100);
        let mut share = gauge.share(25);
        assert_eq!((gauge.held(), gauge.limit()), (0, 75));
        let others = gauge.try_charge(75).unwrap();
        assert!(gauge.try_charge(1).is_none());
        for (held, limit) in [(10, 85), (25, 100), (30, 100), (5, 80)] {
            share.hold(held);
            assert_eq!((gauge.held(), gauge.limit()), (75 + held, limit));
            assert!(gauge.try_charge(1).is_none());
        }
        assert_eq!(gauge.most(), 105);
        drop(share);
        assert_eq!((gauge.held(), gauge.limit()), (75, 100));
        drop(others);
    }

    #[test]
    fn what_is_dropped_is_given_back_and_the_bound_holds() {
        let gauge = Gauge::new(100);
        let mut first = gauge.try_charge(60).unwrap();
        assert!(gauge.try_charge(41).is_none());
        let second = gauge.try_charge(40).unwrap();
        first.resize(10);
        assert_eq!((gauge.held(), gauge.most()), (50, 100));
        assert!(!first.try_grow(61) && first.try_grow(60) && first.bytes() == 60);
        assert_eq!((gauge.held(), gauge.most()), (100, 100));
        first.resize(70);
        assert_eq!((gauge.held(), gauge.most()), (110, 110));
        drop((first, second));
        assert_eq!(gauge.held(), 0);
        assert!(gauge.try_charge(usize::MAX).is_none());
        assert_eq!(gauge.charge(500).bytes(), 500);
    }
}
