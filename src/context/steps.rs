//! `Steps`: what tells those below a context of the steps of a stop, other than its end.
//!
//! Each step is a node that belongs to nobody's context: one that ends when stopping begins. A context that can be
//! stopped in steps, and each group, has one such node, made by the first to ask. It derives from those of the next such
//! contexts above, and from nothing else. So `stopping()` is a context with two parents, the one that was asked and the
//! nearest such node, and all the rest is the tree's: purity, order, races, memory.
//!
//! Invariants:
//!
//! 1. A step's node knows no context, and is owned by whoever stands for it. So there are no cycles.
//! 2. A step's node is made once, and those above it before it. Hence what begins above has begun below.
//! 3. Looking for one is a loop, however long the chain of contexts, groups or merges is.
//!
//! Why not beside each context, at derivation? Most programs never ask.

use std::collections::HashSet;
use std::sync::Arc;

use super::node::Node;
use crate::sync::OnceLock;

/// The steps of one context that can be stopped in steps, or of a group.
pub(crate) struct Steps {
    stopping: OnceLock<Arc<Node>>,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            stopping: OnceLock::new(),
        }
    }
}

#[derive(Clone, Copy)]
pub(super) enum Step {
    Stopping,
}

/// Where a step of a stop can begin.
struct Point<'a> {
    at: &'a Arc<Node>,
    steps: Arc<Steps>,
}

impl Step {
    /// Finds what the step is for a context: the node that ends with it. `None` if nobody can stop it in steps.
    pub(super) fn of(self, node: &Arc<Node>) -> Option<Arc<Node>> {
        self.join(&self.nearest(Some(node)))
    }

    /// One node for all of these, with theirs made where there were none.
    fn join(self, points: &[Point<'_>]) -> Option<Arc<Node>> {
        let mut missing = self.missing(points);
        while let Some(point) = missing.last() {
            let above = self.nearest(point.at.parent.as_ref());
            let missing_above = self.missing(&above);
            if missing_above.is_empty() {
                self.make(point, &above);
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

    /// Outside of the cell: two may make it, and one is dropped.
    fn make(self, point: &Point<'_>, above: &[Point<'_>]) {
        let above = self.join_made(above);
        let node = Node::derive(above.as_ref(), 0, point.at.location());
        self.cell(&point.steps).get_or_init(|| node);
    }

    fn made<'a>(self, point: &'a Point<'_>) -> Option<&'a Arc<Node>> {
        self.cell(&point.steps).get()
    }

    fn missing<'a>(self, points: &[Point<'a>]) -> Vec<Point<'a>> {
        let is_missing = |point: &&Point<'a>| self.made(point).is_none();
        points.iter().filter(is_missing).map(Point::again).collect()
    }

    fn cell(self, steps: &Steps) -> &OnceLock<Arc<Node>> {
        match self {
            Self::Stopping => &steps.stopping,
        }
    }

    /// The nearest points, at this node or above: one, unless contexts were merged on the way.
    fn nearest(self, from: Option<&Arc<Node>>) -> Vec<Point<'_>> {
        let mut seen = HashSet::new();
        let mut points = Vec::new();
        let mut next = Vec::from_iter(from);
        while let Some(node) = next.pop() {
            if let Some(steps) = self.steps_at(node) {
                points.push(Point { at: node, steps });
                continue;
            }
            if let Some(link) = node.merged() {
                // The ways may meet again further up.
                if !seen.insert(Arc::as_ptr(node)) {
                    continue;
                }
                next.push(&link.other);
            }
            next.extend(&node.parent);
        }
        points
    }

    fn steps_at(self, node: &Node) -> Option<Arc<Steps>> {
        match node.stop_point() {
            Some(point) => Some(point.steps().clone()),
            None => node.owner()?.steps(),
        }
    }
}

impl Point<'_> {
    fn again(&self) -> Self {
        Self {
            at: self.at,
            steps: self.steps.clone(),
        }
    }
}
