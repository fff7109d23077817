//! `Step`: finds the node that ends with a step of a stop (`steps.rs`), for a context: at the nearest points above where the
//! step can begin. Looking for them is a loop, however long the chain of contexts, groups or merges is.

use std::sync::Arc;

use super::kind::Grace;
use super::node::Node;
use super::steps::Steps;
use super::tree::{Climb, climb};
use crate::sync::OnceLock;

#[derive(Clone, Copy)]
pub(super) enum Step {
    Stopping,
    Abort,
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
            Self::Abort => Node::derive_cleanup(above.as_ref(), at.location()),
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
