//! What every thread of the simulator shares: the registry, the telemetry on its way, and what was seen.
//!
//! One lock, one condition variable: whoever changes something says so, and whoever waits looks again.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::buffer::{Buffer, Due, Triggers};
use super::events;
use super::registry::Registry;
use super::setup::Setup;
use super::subscription::Subscription;
use super::{ApiCall, Delivery, Exit, Expected, NextCall, OutputLine, Post, SentEvent};
use crate::clock::iso_millis;
use crate::wait::lock;

const LOGS_DROPPED: &str = "platform.logsDropped";

pub(crate) struct World {
    /// Counts the processes of the extension, from 1.
    pub(crate) generation: u32,
    pub(crate) started: Instant,
    pub(crate) registry: Registry,
    pub(crate) window_open: bool,
    /// The event that the next call to `next`, or the one that is parked, is answered with.
    pub(crate) outbox: Option<(&'static str, String)>,
    pub(crate) exit: Option<Exit>,
    /// `Extension.InitError` or `Extension.ExitError`, and the type that the extension gave.
    pub(crate) failure: Option<(&'static str, String)>,
    pub(crate) alive: bool,
    pub(crate) frozen: bool,
    pub(crate) stopped: bool,
    /// The invocation in progress.
    pub(crate) current: Option<String>,
    pub(crate) telemetry: Telemetry,
    pub(crate) delivery: Delivery,
    pub(crate) nexts: Vec<NextCall>,
    pub(crate) calls: Vec<ApiCall>,
    pub(crate) posts: Vec<Post>,
    pub(crate) output: Vec<OutputLine>,
    /// Lines of floods so far.
    pub(crate) flooded: usize,
}

pub(crate) struct Shared {
    pub(crate) setup: Setup,
    world: Mutex<World>,
    changed: Condvar,
}

impl Shared {
    pub(crate) fn new(setup: Setup) -> Arc<Self> {
        let world = World {
            generation: 0,
            started: Instant::now(),
            registry: Registry::new(&setup.name, setup.identity.managed),
            window_open: false,
            outbox: None,
            exit: None,
            failure: None,
            alive: false,
            frozen: false,
            stopped: false,
            current: None,
            telemetry: Telemetry::new(setup.telemetry_room),
            delivery: setup.delivery.clone(),
            nexts: Vec::new(),
            calls: Vec::new(),
            posts: Vec::new(),
            output: Vec::new(),
            flooded: 0,
        };
        Arc::new(Self { setup, world: Mutex::new(world), changed: Condvar::new() })
    }

    /// Looks, without changing anything that others wait for.
    pub(crate) fn look(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    /// Changes something, and lets everybody look again.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let result = change(&mut lock(&self.world));
        self.changed.notify_all();
        result
    }

    /// Waits until `seek` finds something, or the limit is over, or the simulator stops.
    pub(crate) fn wait<T>(
        &self,
        until: Option<Instant>,
        mut seek: impl FnMut(&mut World) -> Option<T>,
    ) -> Option<T> {
        let mut world = lock(&self.world);
        loop {
            if let Some(found) = seek(&mut world) {
                return Some(found);
            }
            if world.stopped {
                return None;
            }
            world = match until {
                None => self.changed.wait(world).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    self.changed.wait_timeout(world, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Generates an event; returns its time.
    pub(crate) fn emit(
        &self,
        kind: &str,
        record: impl Into<Vec<u8>>,
        request_id: Expected,
    ) -> String {
        let time = iso_millis(SystemTime::now());
        let record = record.into();
        self.change(|world| world.emit(kind, record, request_id, time.clone()));
        time
    }

    /// The next batch to post, as the events' places; waits for it. `None` when the simulator stops.
    pub(crate) fn batch(&self) -> Option<Vec<usize>> {
        let mut world = lock(&self.world);
        loop {
            if world.stopped {
                return None;
            }
            let now = Instant::now();
            let moving = world.alive && !world.frozen;
            let due = if moving { world.telemetry.due(now) } else { Due::Never };
            world = match due {
                Due::Now => return Some(world.telemetry.take()),
                Due::At(at) => {
                    self.changed
                        .wait_timeout(world, at - now)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                Due::Never => self.changed.wait(world).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl World {
    /// Everything of the last process is forgotten, but not what was seen, nor the telemetry.
    pub(crate) fn begin(&mut self, registry: Registry) {
        self.generation += 1;
        self.started = Instant::now();
        self.registry = registry;
        self.window_open = true;
        self.outbox = None;
        self.exit = None;
        self.failure = None;
        self.alive = true;
        self.frozen = false;
        self.current = None;
    }

    pub(crate) fn emit(&mut self, kind: &str, record: Vec<u8>, request_id: Expected, time: String) {
        self.telemetry.push(SentEvent::new(kind.to_owned(), record, request_id, time));
    }
}

/// Events from generation to delivery.
pub(crate) struct Telemetry {
    /// Every event meant for the subscriber, in order; those dropped are marked by never being offered.
    pub(crate) events: Vec<SentEvent>,
    /// Events from before the first subscription.
    early: Vec<SentEvent>,
    pub(crate) subscription: Option<Subscription>,
    buffer: Buffer,
    /// A batch has been taken and is not settled.
    pub(crate) posting: bool,
    pub(crate) dropped: usize,
}

impl Telemetry {
    fn new(room: usize) -> Self {
        Self {
            events: Vec::new(),
            early: Vec::new(),
            subscription: None,
            buffer: Buffer::new(room),
            posting: false,
            dropped: 0,
        }
    }

    fn triggers(&self) -> Triggers {
        let subscription = self.subscription.as_ref();
        Triggers {
            items: subscription.map_or(usize::MAX, |subscription| subscription.max_items),
            bytes: subscription.map_or(usize::MAX, |subscription| subscription.max_bytes),
            timeout: subscription
                .map_or(Duration::from_secs(1), |subscription| subscription.timeout),
        }
    }

    fn due(&self, now: Instant) -> Due {
        if self.subscription.is_none() || self.posting {
            Due::Never
        } else {
            self.buffer.due(self.triggers(), now)
        }
    }

    fn take(&mut self) -> Vec<usize> {
        let batch = self.buffer.take(self.triggers());
        self.posting = !batch.is_empty();
        batch
    }

    /// Nothing waits and nothing is being posted.
    pub(crate) fn idle(&self) -> bool {
        self.buffer.is_empty() && !self.posting
    }

    pub(crate) fn flush(&mut self) {
        self.buffer.flush();
    }

    /// Takes a subscription; the first one is given what happened before it, and stays if `keep_first` says so. Says whether there was one already.
    pub(crate) fn subscribe(&mut self, subscription: Subscription, keep_first: bool) -> bool {
        let again = self.subscription.is_some();
        if !(again && keep_first) {
            self.subscription = Some(subscription);
        }
        for event in std::mem::take(&mut self.early) {
            self.push(event);
        }
        again
    }

    fn push(&mut self, mut event: SentEvent) {
        let Some(subscription) = &self.subscription else {
            self.early.push(event);
            return;
        };
        let category = event.kind.split('.').next().unwrap_or_default();
        let known = matches!(category, "platform" | "function" | "extension");
        if known && !subscription.types.iter().any(|name| name == category) {
            return;
        }
        if subscription.schema == "2022-07-01"
            && category != "platform"
            && event.record.first() != Some(&b'"')
        {
            event.record = events::quoted(&String::from_utf8_lossy(&event.record)).into_bytes();
            event.request_id = Expected::Any;
        }
        self.keep(event);
        if let Some(dropped) = self.buffer.take_dropped(256) {
            let record = events::logs_dropped(dropped.records, dropped.bytes).into_bytes();
            let time = iso_millis(SystemTime::now());
            self.keep(SentEvent::new(LOGS_DROPPED.to_owned(), record, Expected::Any, time));
        }
    }

    /// A batch could not be posted and is not tried again.
    pub(crate) fn drop_batch(&mut self, batch: &[usize]) {
        let bytes = batch.iter().map(|index| self.events[*index].record.len()).sum();
        self.dropped += batch.len();
        if self
            .events
            .last()
            .is_some_and(|last| last.kind == LOGS_DROPPED && batch.contains(&last.number))
        {
            // Nothing else is new: one report of it is enough.
            return;
        }
        let record = events::logs_dropped(batch.len(), bytes).into_bytes();
        self.keep(SentEvent::new(
            LOGS_DROPPED.to_owned(),
            record,
            Expected::Any,
            iso_millis(SystemTime::now()),
        ));
    }

    /// Lists an event that goes another way than through the buffer.
    pub(crate) fn note(&mut self, mut event: SentEvent) {
        event.number = self.events.len();
        self.events.push(event);
    }

    fn keep(&mut self, mut event: SentEvent) {
        event.number = self.events.len();
        let bytes = event.record.len() + event.kind.len() + 64;
        if self.buffer.push(event.number, bytes, Instant::now()) {
            self.events.push(event);
        } else {
            self.dropped += 1;
        }
    }
}
