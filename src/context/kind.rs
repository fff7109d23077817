//! `Kind`: what a node is beyond a child of its parent; and `Owner`, a group or a batch as its node knows it.

use std::any::Any;
use std::panic::RefUnwindSafe;
use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::node::Node;
use super::steps::{Steps, StopPoint};
use crate::sync::AtomicU32;

/// Never both, so that they share their place.
pub(super) enum Kind {
    /// A context, most often a plain one.
    Context(Option<Box<Extra>>),
    /// The context of a group, a scope or a batch. That is told of the end before any waiter of the node.
    Owned(Weak<dyn Owner>),
}

/// What makes a context more than a child of one parent.
pub(super) enum Extra {
    /// It has a second parent.
    Merged(Link),
    /// It can be stopped in steps.
    Stop(StopPoint),
    /// It is for cleaning up after another has ended.
    Cleanup,
}

pub(super) struct Link {
    pub(super) other: Arc<Node>,
    /// As `Node::key`, among the children of `other`.
    pub(super) key: AtomicU32,
}

impl Link {
    /// Takes the child out of the second parent's list. A second call does nothing.
    pub(super) fn leave(&self) {
        self.other.listeners.remove_child(&self.key);
    }
}

impl Kind {
    pub(super) const PLAIN: Self = Self::Context(None);

    pub(super) fn extra(extra: Extra) -> Self {
        Self::Context(Some(Box::new(extra)))
    }

    /// Takes the second parent of a node that nobody has any more.
    pub(super) fn take_link(&mut self) -> Option<Link> {
        let Self::Context(extra) = self else {
            return None;
        };
        match *extra.take()? {
            Extra::Merged(link) => Some(link),
            Extra::Stop(_) | Extra::Cleanup => None,
        }
    }
}

impl Node {
    /// Returns the group or the batch whose context this is.
    pub(crate) fn owner(&self) -> Option<Arc<dyn Owner>> {
        self.weak_owner()?.upgrade()
    }

    pub(crate) fn weak_owner(&self) -> Option<&Weak<dyn Owner>> {
        match &self.kind {
            Kind::Owned(owner) => Some(owner),
            Kind::Context(_) => None,
        }
    }

    fn extra(&self) -> Option<&Extra> {
        match &self.kind {
            Kind::Context(extra) => extra.as_deref(),
            Kind::Owned(_) => None,
        }
    }

    pub(super) fn merged(&self) -> Option<&Link> {
        match self.extra()? {
            Extra::Merged(link) => Some(link),
            Extra::Stop(_) | Extra::Cleanup => None,
        }
    }

    pub(super) fn stop_point(&self) -> Option<&StopPoint> {
        match self.extra()? {
            Extra::Stop(point) => Some(point),
            Extra::Merged(_) | Extra::Cleanup => None,
        }
    }

    pub(super) fn is_cleanup(&self) -> bool {
        matches!(self.extra(), Some(Extra::Cleanup))
    }
}

/// How far a group is with its tasks' time to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grace {
    /// Nobody has set one.
    Open,
    /// It runs: whoever cleans up has until the abort.
    Running,
    /// The tasks are aborted.
    Over,
}

/// A group, as its node knows it; or a batch, which is none, and is only looked at.
pub(crate) trait Owner: Send + Sync + RefUnwindSafe {
    /// The node has ended, and so is in no list of its parent's: from here on the directory has it, if anybody would miss
    /// it. Called before anybody is told of the end.
    fn enter_directory(&self);

    /// The node has ended, and everything below it. Called with no lock held, by the thread that ends it.
    fn context_ended(&self) {}

    /// The time is over that the group was to be [reminded](super::Reminder) of.
    fn remind(&self) {}

    /// What those below it look to while the group is stopped in steps; made by the first to ask. `None` once nobody
    /// stops the group any more.
    fn steps(&self) -> Option<Arc<Steps>> {
        None
    }

    /// How far the group is with that.
    fn grace(&self) -> Grace {
        Grace::Open
    }

    /// Where the group stands, if its context is cut off from that.
    fn host(&self) -> Option<Arc<Node>> {
        None
    }

    /// Those made later have higher ones.
    fn id(&self) -> u64;

    /// Whether no task is live, or no item is in hand.
    fn is_empty(&self) -> bool;

    /// What the group makes of it; opaque here. `None`: it is no group.
    fn members(&self) -> Option<&dyn Any> {
        None
    }

    /// What it tells of itself at this time; opaque here.
    fn report(&self, now: Instant) -> Box<dyn Any>;
}
