//! The invocations that the intake has seen, and the one in progress. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

/// Invocations whose ids are remembered.
pub(super) const MAX_INVOCATIONS: usize = 64;

/// The invocations that this sandbox has seen, the last ones of them.
#[derive(Debug, Default)]
pub(super) struct Invocations {
    pub(super) overlapping: bool,
    pub(super) first: Option<Arc<str>>,
    /// The one in progress; none where they overlap.
    pub(super) current: Option<Invocation>,
    seen: VecDeque<Invocation>,
}

#[derive(Clone, Debug)]
pub(super) struct Invocation {
    /// As in JSON, between the quotes.
    pub(super) request_id: Arc<str>,
    /// The same, where the platform says one.
    pub(super) tenant_id: Option<Arc<str>>,
}

impl Invocations {
    pub(super) fn new(overlapping: bool) -> Invocations {
        Invocations { overlapping, ..Invocations::default() }
    }

    pub(super) fn find(&self, request_id: &str) -> Option<&Invocation> {
        self.seen.iter().rev().find(|seen| *seen.request_id == *request_id)
    }

    pub(super) fn add(&mut self, request_id: &Arc<str>, tenant_id: Option<&str>) -> Invocation {
        let known = self
            .seen
            .iter()
            .position(|seen| seen.request_id == *request_id)
            .and_then(|at| self.seen.remove(at));
        if self.seen.len() >= MAX_INVOCATIONS {
            self.seen.pop_front();
        }
        let tenant_id = tenant_id.map(Arc::from).or(known.and_then(|known| known.tenant_id));
        let invocation = Invocation { request_id: Arc::clone(request_id), tenant_id };
        self.seen.push_back(invocation.clone());
        invocation
    }

    pub(super) fn start(&mut self, request_id: &Arc<str>, tenant_id: Option<&str>) {
        self.first.get_or_insert_with(|| Arc::clone(request_id));
        let invocation = self.add(request_id, tenant_id);
        self.current = Some(invocation).filter(|_| !self.overlapping);
    }

    pub(super) fn is_current(&self, request_id: &str) -> bool {
        self.current.as_ref().is_some_and(|current| *current.request_id == *request_id)
    }

    /// Whether an invocation is the sandbox's first. The report of one before this process is none
    /// of its.
    pub(super) fn is_cold_start(&self, request_id: &str) -> bool {
        match &self.first {
            Some(first) => **first == *request_id,
            None => self.overlapping || self.find(request_id).is_some(),
        }
    }
}
