//! `Steps`: what tells those below a context of the steps of a stop, other than its end.
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
//! 3. Looking for one is a loop, however long the chain of contexts, groups or merges is.
//!
//! Why not beside each context, at derivation? Most programs never ask.

use std::panic::Location;
use std::sync::Arc;

use tokio::time::Instant;

use super::kind::{Extra, Grace, Kind};
use super::node::Node;
use super::tree::{Climb, climb};
use crate::error::ContextError;
use crate::sync::{Mutex, OnceLock};

/// The steps of one context that can be stopped in steps, or of a group.
pub(crate) struct Steps {
    stopping: OnceLock<Arc<Node>>,
    abort: OnceLock<Arc<Node>>,
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

#[derive(Clone, Copy)]
pub(super) enum Step {
    Stopping,
    Abort,
}

/// Derives a context in which to clean up.
pub(super) fn derive_cleanup(
    parent: Option<&Arc<Node>>,
    location: &'static Location<'static>,
) -> Arc<Node> {
    Node::derive_as(parent, 0, || Kind::extra(Extra::Cleanup), location)
}

/// Where a step of a stop can begin.
enum Point<'a> {
    /// With these of a context or a group.
    Of(&'a Arc<Node>, Arc<Steps>),
    /// It is the step's node itself: what is cleaned up here ends with it.
    Itself(&'a Arc<Node>),
}

impl Step {
    /// Finds what the step is for a context: the node that ends with it. `None` if nobody can stop it in steps.
    pub(super) fn of(self, node: &Arc<Node>) -> Option<Arc<Node>> {
        self.join(&self.nearest(Some(node)))
    }

    /// One node for all of these, with theirs made where there were none.
    fn join(self, points: &[Point<'_>]) -> Option<Arc<Node>> {
        let mut missing = self.missing(points);
        while let Some(Point::Of(at, steps)) = missing.last() {
            let above = self.nearest(at.parent.as_ref());
            let missing_above = self.missing(&above);
            if missing_above.is_empty() {
                self.make(at, steps, &above);
                missing.pop();
            } else {
                missing.extend(missing_above);
            }
        }
        self.join_made(points)
    }

    fn join_made(self, points: &[Point<'_>]) -> Option<Arc<Node>> {
        let nodes = points.iter().filter_map(|point| self.made(point).cloned());
        nodes.reduce(|first, second| match Arc::ptr_eq(&first, &second) {
            true => first,
            false => Node::merge(&first, &second, first.location()),
        })
    }

    fn make(self, at: &Arc<Node>, steps: &Steps, above: &[Point<'_>]) {
        let above = self.join_made(above);
        let node = match self {
            Self::Stopping => Node::derive(above.as_ref(), 0, at.location()),
            Self::Abort => derive_cleanup(above.as_ref(), at.location()),
        };
        // Made outside of the cell: two may make it, and one is dropped.
        let node = self.cell(steps).get_or_init(|| node);
        if let Self::Abort = self {
            // The other end is `Core::abort`, which sets this first and then looks for the node.
            if at.owner().is_some_and(|owner| owner.grace() == Grace::Over) {
                node.end(|| at.end_error().clone());
            }
        }
    }

    fn made<'a>(self, point: &'a Point<'_>) -> Option<&'a Arc<Node>> {
        match point {
            Point::Of(_, steps) => self.cell(steps).get(),
            Point::Itself(node) => Some(node),
        }
    }

    fn missing<'a>(self, points: &[Point<'a>]) -> Vec<Point<'a>> {
        let is_missing = |point: &&Point<'a>| self.made(point).is_none();
        points.iter().filter(is_missing).cloned().collect()
    }

    fn cell(self, steps: &Steps) -> &OnceLock<Arc<Node>> {
        match self {
            Self::Stopping => &steps.stopping,
            Self::Abort => &steps.abort,
        }
    }

    /// The nearest points, at this node or above: one, unless contexts were merged on the way.
    fn nearest(self, from: Option<&Arc<Node>>) -> Vec<Point<'_>> {
        let mut points = Vec::new();
        climb(from, |node| match self.point_at(node) {
            Some(point) => {
                points.push(point);
                Climb::Beside
            }
            None => Climb::On,
        });
        points
    }

    fn point_at(self, node: &Arc<Node>) -> Option<Point<'_>> {
        match self {
            Self::Stopping => {
                if let Some(point) = node.stop_point() {
                    return Some(Point::Of(node, point.steps().clone()));
                }
            }
            Self::Abort if node.is_cleanup() => return Some(Point::Itself(node)),
            Self::Abort => {}
        }
        Some(Point::Of(node, node.owner()?.steps()?))
    }
}

impl Clone for Point<'_> {
    fn clone(&self) -> Self {
        match self {
            Self::Of(node, steps) => Self::Of(node, steps.clone()),
            Self::Itself(node) => Self::Itself(node),
        }
    }
}
