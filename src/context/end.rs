//! The end of a node, and of everything below it.
//!
//! An end has two phases. First every node of the subtree is closed, parents before children, siblings in the order of
//! derivation. Then the waiters are told, in the same order. So whoever is woken or called back finds all of the
//! subtree ended. Neither phase recurses.
//!
//! Why not hold the parent's lock while ending the children, as Go does? Then a waker that touches an ancestor would
//! deadlock, and one slow callback would block every derivation beside it. The price: another thread can see the parent
//! ended a moment before the child. The thread that ends, and whoever it wakes, never can.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::clock::now;
use super::kind::Owner;
use super::listeners::{self, Waiter, Waiters};
use super::node::Node;
use super::state::By;
use crate::destructor::nested;
use crate::error::{ContextError, Reason};
use crate::panic::{contain, discard};

/// Why a node ends.
enum Cause<'a> {
    /// The parent has ended.
    Parent(&'a Node),
    /// The last handle was dropped.
    Handle,
    /// The group that owns the node has finished.
    Finish,
    Error(&'a ContextError),
}

impl Cause<'_> {
    #[inline]
    fn by(&self) -> By {
        match self {
            Self::Parent(_) => By::Parent,
            Self::Handle => By::Handle,
            Self::Finish => By::Finish,
            Self::Error(_) => By::Error,
        }
    }
}

type Taken = listeners::Taken<Weak<Node>>;
type Closed = listeners::Closed<Weak<Node>>;

impl Node {
    /// Ends the node and everything below it; `false` if it had ended before.
    ///
    /// Returns when every node below is ended and every waiter is told.
    pub(crate) fn end(self: &Arc<Self>, error: impl FnOnce() -> ContextError) -> bool {
        // A deadline wins that has passed.
        !self.tell_if_overdue() && self.end_by(Cause::Error(&error()))
    }

    /// Ends the context of a group whose tasks have all ended; `false` if it had ended before.
    pub(crate) fn finish(self: &Arc<Self>) -> bool {
        !self.tell_if_overdue() && self.end_by(Cause::Finish)
    }

    /// Ends a node whose last handle was dropped.
    pub(super) fn end_by_handle(self: &Arc<Self>) {
        if !self.tell_if_overdue() {
            self.end_by(Cause::Handle);
        }
    }

    /// Ends a node by its deadline, which has passed.
    pub(super) fn end_late(self: &Arc<Self>, error: &ContextError) {
        self.close_subtree(Cause::Error(error));
    }

    /// Ends a node that was just derived with the parent that ended meanwhile.
    #[cold]
    pub(super) fn end_new(self: &Arc<Self>, parent: &Node) {
        self.close_subtree(Cause::Parent(parent));
    }

    /// Ends the subtree for this reason; `false` if another was first.
    fn end_by(self: &Arc<Self>, cause: Cause<'_>) -> bool {
        match self.close_subtree(cause) {
            Closing::Done => true,
            Closing::HadEnded => false,
            Closing::WasOverdue => {
                // Somebody saw the deadline passed after we had asked: the others below it are to be told, too.
                self.expire();
                false
            }
        }
    }

    fn close_subtree(self: &Arc<Self>, cause: Cause<'_>) -> Closing {
        let by_handle = matches!(cause, Cause::Handle);
        let by_finish = matches!(cause, Cause::Finish);
        let Some(closed) = self.close(cause) else {
            return Closing::HadEnded;
        };
        self.unlink();
        match closed.listeners {
            None => {
                let owner = self.owner();
                // One that has finished has nothing that would be missed.
                if let Some(owner) = owner.as_ref().filter(|_| !by_finish) {
                    owner.enter_directory();
                }
                tell_owner(owner);
            }
            Some(listeners) => {
                let walk = Walk::below(self, listeners);
                match by_handle {
                    // A callback may own the handle of the next, and so on.
                    true => nested(|| walk.tell()),
                    false => walk.tell(),
                }
            }
        }
        match closed.was_overdue {
            true => Closing::WasOverdue,
            false => Closing::Done,
        }
    }

    /// Ends this node alone and hands out who is to be told; `None` if it had ended before.
    #[inline]
    fn close(&self, cause: Cause<'_>) -> Option<Closed> {
        match self.state.close_unguarded(cause.by()) {
            true => Some(Closed {
                listeners: None,
                was_overdue: false,
            }),
            false => self.close_guarded(cause),
        }
    }

    fn close_guarded(&self, cause: Cause<'_>) -> Option<Closed> {
        let own = match cause {
            Cause::Parent(parent) => self.own_error(parent),
            Cause::Handle | Cause::Finish => None,
            Cause::Error(error) => Some(error.clone()),
        };
        let by = match own {
            Some(_) => By::Error,
            None => cause.by(),
        };
        let closed = self.listeners.close(&self.state, by, || {
            if let Some(error) = own {
                // Empty, since it is filled with the end.
                let _ = self.error.set(error);
            }
        })?;
        if let Some(deadline) = self.own_deadline() {
            deadline.stop();
        }
        if self.merged().is_some() {
            self.unlink();
        }
        Some(closed)
    }

    /// The error with which a parent's end reaches this node if it is not simply the parent's: its deadline's, if that
    /// has passed (invariant 4 of `node.rs`), and what has to be written down since the node has two parents. A deadline that it has
    /// from the parent which ends has ended that one already.
    fn own_error(&self, parent: &Node) -> Option<ContextError> {
        let deadline = match self.merged() {
            None => self.own_deadline(),
            Some(_) => self.deadline.as_ref(),
        };
        match deadline {
            Some(deadline) if deadline.has_passed() => Some(deadline.error().clone()),
            _ => self.merged().map(|_| parent.end_error().clone()),
        }
    }

    /// Why the node, which has ended, did so.
    #[inline]
    pub(super) fn end_error(&self) -> &ContextError {
        match self.error.get() {
            Some(error) => error,
            None => self.find_error(),
        }
    }

    /// Writes down the error that nobody has asked for yet, in the nodes it passed through as well: so however deep the
    /// tree is, the way is gone once.
    #[cold]
    fn find_error(&self) -> &ContextError {
        let error = self.error_above();
        let mut node = self;
        while let Some(parent) = node.ended_by_parent() {
            if node.error.set(error.clone()).is_err() {
                // Somebody else is ahead of us, with the same error.
                break;
            }
            node = parent;
        }
        self.error.get_or_init(|| error)
    }

    fn error_above(&self) -> ContextError {
        let mut node = self;
        loop {
            if let Some(error) = node.error.get() {
                return error.clone();
            }
            node = match node.ended_by_parent() {
                Some(parent) => parent,
                None => {
                    // Outside of the cell: a model may switch threads at every load.
                    let reason = match node.state.by() {
                        By::Finish => Reason::GroupFinished,
                        _ => Reason::HandleDropped,
                    };
                    let error = || ContextError::at(reason, node.location(), None);
                    return node.error.get_or_init(error).clone();
                }
            };
        }
    }

    fn ended_by_parent(&self) -> Option<&Arc<Node>> {
        self.parent
            .as_ref()
            .filter(|_| self.state.by() == By::Parent)
    }

    /// The end has reached somebody: its instant is this.
    pub(crate) fn take_time(&self) {
        self.end_error().time(now);
    }
}

/// What ending a subtree came to.
enum Closing {
    Done,
    HadEnded,
    /// It has ended now, and not for this reason: somebody had recorded that the deadline has passed.
    WasOverdue,
}

/// Who is told of an end.
enum Told {
    Owner(Weak<dyn Owner>),
    Waiters(Waiters, ContextError),
}

/// An end on its way down.
#[derive(Default)]
struct Walk {
    /// Closed nodes whose children are still to be closed: the walk is breadth-first.
    queue: VecDeque<(Arc<Node>, Option<Taken>)>,
    /// No nodes here: foreign code runs while they are told, and must not find a node alive that has been dropped.
    to_tell: Vec<Told>,
}

impl Walk {
    /// Closes all that is below a node which has been closed.
    fn below(node: &Node, listeners: Taken) -> Self {
        let mut walk = Self::default();
        walk.visit(node, Some(listeners));
        while let Some((node, listeners)) = walk.queue.pop_front() {
            walk.visit(&node, listeners);
        }
        walk
    }

    fn tell(self) {
        // Who is told may look at the tree.
        for told in &self.to_tell {
            if let Told::Owner(owner) = told {
                list(owner.upgrade());
            }
        }
        for told in self.to_tell {
            match told {
                Told::Owner(owner) => tell_owner(owner.upgrade()),
                Told::Waiters(waiters, error) => {
                    // The time to clean up counts from here.
                    error.time(now);
                    tell(waiters, &error);
                }
            }
        }
    }

    /// Notes whom a closed node is to tell, and closes its children.
    fn visit(&mut self, node: &Node, listeners: Option<Taken>) {
        self.to_tell
            .extend(node.weak_owner().cloned().map(Told::Owner));
        let Some(listeners) = listeners else {
            return;
        };
        let waiters = std::iter::once(listeners.waiters).chain(listeners.sharded);
        let waiters = waiters.filter(|waiters| !waiters.is_empty());
        let told = waiters.map(|waiters| Told::Waiters(waiters, node.end_error().clone()));
        self.to_tell.extend(told);
        for child in listeners.children {
            let Some(child) = child.upgrade() else {
                continue;
            };
            if let Some(closed) = child.close(Cause::Parent(node)) {
                if closed.listeners.is_some() || child.weak_owner().is_some() {
                    self.queue.push_back((child, closed.listeners));
                }
            }
        }
    }
}

fn list(owner: Option<Arc<dyn Owner>>) {
    if let Some(owner) = owner {
        owner.enter_directory();
        // Perhaps the last to know it.
        discard(owner);
    }
}

fn tell_owner(owner: Option<Arc<dyn Owner>>) {
    if let Some(owner) = owner {
        owner.context_ended();
        discard(owner);
    }
}

fn tell(waiters: Waiters, error: &ContextError) {
    for waiter in waiters {
        match waiter {
            Waiter::Waker(waker) => contain(|| waker.wake()),
            Waiter::Hook(hook) => contain(|| hook(error)),
        }
    }
}
