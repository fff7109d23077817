//! `Steps`: what tells those below a context of the steps of a stop, other than its end. `StopPoint`: what a node knows of it.
//!
//! Each step is a node that belongs to nobody's context: one that ends when stopping begins, and one that ends when the tasks
//! of a group are aborted. A context that can be stopped in steps has the first, a group both, made by the first to ask.
//! It derives from those of the next such contexts above, and from nothing else. So `stopping()` is a context with two
//! parents, the one that was asked and the nearest such node; `cleanup()` derives from the nearest node of the other kind;
//! and all the rest is the tree's: purity, order, races, memory.
//!
//! Invariants:
//!
//! 1. A step's node knows no context, and is owned by whoever stands for it. So there are no cycles.
//! 2. A step's node is made once, and those above it before it. Hence what begins above has begun below.
//!
//! How one is found, and made, is in `step.rs`.
//!
//! Why not beside each context, at derivation? Most programs never ask.

use std::sync::Arc;

use tokio::time::Instant;

use super::node::Node;
use crate::error::ContextError;
use crate::sync::{Mutex, OnceLock};

/// The steps of one context that can be stopped in steps, or of a group.
pub(crate) struct Steps {
    pub(super) stopping: OnceLock<Arc<Node>>,
    pub(super) abort: OnceLock<Arc<Node>>,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            stopping: OnceLock::new(),
            abort: OnceLock::new(),
        }
    }
}

impl Steps {
    /// The group's tasks are aborted, or over: so is whoever cleans up.
    pub(crate) fn end_cleanup(&self, error: &ContextError) {
        if let Some(abort) = self.abort.get() {
            abort.end(|| error.clone());
        }
    }
}

/// What a node knows of its stop.
#[derive(Default)]
pub(super) struct StopPoint {
    steps: Arc<Steps>,
    state: Mutex<Stop>,
}

#[derive(Default)]
struct Stop {
    has_begun: bool,
    /// When the drain is over, and the alarm's place in the node.
    alarm: Option<(Instant, u32)>,
}

impl StopPoint {
    pub(super) fn steps(&self) -> &Arc<Steps> {
        &self.steps
    }

    /// Whether an alarm at this time would be the first.
    pub(super) fn begin(&self, at: Instant) -> bool {
        let mut state = self.state.lock();
        state.has_begun = true;
        state.is_first(at)
    }

    pub(super) fn has_begun(&self) -> bool {
        self.state.lock().has_begun
    }

    /// A probe of the models.
    #[cfg(all(test, errgroup_loom))]
    pub(super) fn alarm(&self) -> Option<Instant> {
        self.state.lock().alarm.map(|(at, _)| at)
    }

    /// Puts an alarm in the place of the one there is, and returns the key of the one that is not needed.
    pub(super) fn replace(&self, at: Instant, key: u32) -> Option<u32> {
        let mut state = self.state.lock();
        if !state.is_first(at) {
            return Some(key);
        }
        state.alarm.replace((at, key)).map(|(_, key)| key)
    }
}

impl Stop {
    fn is_first(&self, at: Instant) -> bool {
        self.alarm.is_none_or(|(earlier, _)| at < earlier)
    }
}
