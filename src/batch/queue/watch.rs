//! `Report`: what a batch tells of itself to a snapshot. It costs an item nothing: all but the list of waiting items is counted
//! anyhow, and that is read a chunk at a time, so that no worker waits for long.
//!
//! The batch's node knows the queue, not the [`Work`](super::super::worker::Work): at the end nothing of the user's is left in
//! it, so a snapshot that happens to be its last owner drops nothing of theirs.

use std::any::Any;
use std::borrow::Cow;
use std::panic::{Location, RefUnwindSafe};
use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::{Permits, Place, Queue, State};
use crate::context::{Node, Owner};

/// So many entries are looked at under one lock.
const CHUNK: usize = 64;

pub(crate) struct Report {
    pub(crate) id: u64,
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) limit: usize,
    pub(crate) workers: usize,
    /// Those of the workers that have nothing to do.
    pub(crate) idle: usize,
    /// Items that were pulled and are not done.
    pub(crate) live: usize,
    /// Those of them that no worker has started.
    pub(crate) unstarted: usize,
    pub(crate) done: usize,
    /// Results that the consumer of a stream has not taken.
    pub(crate) unyielded: usize,
    pub(crate) source: SourceState,
    /// The indexes of those that no worker is polling, sorted.
    pub(crate) waiting: Vec<usize>,
}

/// What the source of a batch was doing when a snapshot came to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum SourceState {
    /// It may have a next item, and nobody has asked for that: there is no room for it, or a worker is about to.
    Ready,
    /// It was asked for the next item, and will wake when that is there.
    Waiting,
    /// A worker is asking it.
    Pulled,
    /// It has no more items.
    Over,
}

impl<T: Send + 'static, Fut: Send + 'static> Queue<T, Fut> {
    /// Derives the batch's context, from which snapshots find the queue.
    pub(in super::super) fn derive(
        self: &Arc<Self>,
        parent: Option<&Arc<Node>>,
        location: &'static Location<'static>,
    ) -> Arc<Node> {
        let owner: Weak<Self> = Arc::downgrade(self);
        let node = Node::derive_owned(parent, owner, location);
        if !node.is_found_from_above() {
            self.listing.enter(&node);
        }
        self.state.lock().node = Arc::downgrade(&node);
        node
    }
}

impl<T, Fut> Queue<T, Fut> {
    fn make_report(&self) -> Report {
        let (name, waiting) = (self.name.clone(), self.list_waiting());
        let state = self.state.lock();
        let shown = self.shown.lock().items.len();
        // A pull has permits for which no item has come.
        let are_results = self.rules.permits == Permits::WhenYielded && !state.is_pulling();
        Report {
            id: self.id.0,
            name,
            limit: self.rules.limit,
            workers: state.workers,
            idle: state.idle.len() + usize::from(state.idle_caller.is_some()),
            live: self.in_hand(&state),
            unstarted: state.unstarted.len() + shown,
            done: state.done,
            unyielded: match are_results {
                true => state.used.saturating_sub(state.live),
                false => 0,
            },
            source: state.source_state(),
            waiting,
        }
    }

    /// Items that were cut short are not done, and in nobody's hand once the workers have gone.
    fn in_hand(&self, state: &State<T, Fut>) -> usize {
        match state.is_finished {
            true => 0,
            false => state.live + self.shown.lock().items.len(),
        }
    }

    /// A source that is being asked may have given out an item that nobody has counted, or block its thread.
    fn is_at_work(&self, state: &State<T, Fut>) -> bool {
        self.in_hand(state) > 0 || (state.is_pulling() && !state.is_finished)
    }

    fn list_waiting(&self) -> Vec<usize> {
        let mut waiting = Vec::new();
        for chunk in 0.. {
            // Not under the lock.
            waiting.reserve(CHUNK);
            let state = self.state.lock();
            let entries = state.entries.iter().skip(chunk * CHUNK);
            if entries.len() == 0 {
                break;
            }
            let items = entries
                .take(CHUNK)
                .filter_map(|entry| entry.waiting.as_ref());
            waiting.extend(items.map(|item| item.index));
        }
        waiting.sort_unstable();
        waiting
    }
}

impl<T, Fut> State<T, Fut> {
    fn source_state(&self) -> SourceState {
        match self.source {
            Place::Here(_) => SourceState::Ready,
            Place::Waiting(_) => SourceState::Waiting,
            Place::Taken { .. } => SourceState::Pulled,
            Place::Over => SourceState::Over,
        }
    }
}

// What it shows of itself is read under its lock.
impl<T, Fut> RefUnwindSafe for Queue<T, Fut> {}

impl<T: Send + 'static, Fut: Send + 'static> Owner for Queue<T, Fut> {
    fn enter_directory(&self) {
        let state = self.state.lock();
        let node = self
            .is_at_work(&state)
            .then(|| state.node.upgrade())
            .flatten();
        drop(state);
        if let Some(node) = node {
            self.listing.enter(&node);
            node.take_time();
        }
    }

    fn id(&self) -> u64 {
        self.id.0
    }

    fn is_empty(&self) -> bool {
        !self.is_at_work(&self.state.lock())
    }

    fn report(&self, _now: Instant) -> Box<dyn Any> {
        Box::new(self.make_report())
    }
}
