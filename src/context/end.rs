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

use super::deadline::Deadline;
use super::listeners::{Taken, Waiter, Waiters};
use super::node::{BY_FINISH, BY_HANDLE, BY_PARENT, ENDED, GUARDED, Node, OVERDUE, Owner};
use super::timer::{Timers, now};
use crate::destructor::nested;
use crate::error::{ContextError, Reason};
use crate::panic::{contain, discard};
use crate::sync::Ordering;

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

    /// Gives up a handle, which ends the node if it was the last.
    pub(super) fn drop_handle(self: &Arc<Self>) {
        // With no other owner there is nobody to ask: a child, a waiter, a context would own the node, too.
        if self.remove_handle() && Arc::strong_count(self) > 1 && !self.tell_if_overdue() {
            self.end_by(Cause::Handle);
        }
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
        match closed.listeners.is_empty() {
            true => {
                let owner = self.owner();
                // One that has finished has nothing that would be missed.
                if let Some(owner) = owner.as_ref().filter(|_| !by_finish) {
                    owner.enter_directory();
                }
                tell_owner(owner);
            }
            false => {
                let walk = Walk::below(self, closed.listeners);
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
        let at_once = match cause {
            Cause::Parent(_) => self.close_unguarded(BY_PARENT),
            Cause::Handle => self.close_unguarded(BY_HANDLE),
            Cause::Finish => self.close_unguarded(BY_FINISH),
            Cause::Error(_) => false,
        };
        match at_once {
            true => Some(Closed::default()),
            false => self.close_guarded(cause),
        }
    }

    /// Ends a node that nobody has listened to yet, if the reason need not be written down.
    #[inline]
    fn close_unguarded(&self, by: u32) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        // Release: pairs with the Acquire of `is_done` and `guard`; what comes before, the parent's end among it, is seen
        // by whoever sees this one.
        let ended = state | ENDED | by;
        state & (ENDED | GUARDED) == 0
            && self
                .state
                .compare_exchange(state, ended, Ordering::Release, Ordering::Relaxed)
                .is_ok()
    }

    /// The other ends of its race are those who register: they see to `GUARDED` within the gate, too (invariant 1).
    fn close_guarded(&self, cause: Cause<'_>) -> Option<Closed> {
        let mut own = match cause {
            Cause::Parent(parent) => self.own_error(parent),
            Cause::Handle | Cause::Finish => None,
            Cause::Error(error) => Some(error.clone()),
        };
        let by = match (&own, cause) {
            (Some(_), _) | (None, Cause::Error(_)) => 0,
            (None, Cause::Parent(_)) => BY_PARENT,
            (None, Cause::Handle) => BY_HANDLE,
            (None, Cause::Finish) => BY_FINISH,
        };
        let mut gate = self.gate();
        let state = self.guard();
        if state & ENDED != 0 {
            // Before `own`, which may be the last to know a foreign cause.
            drop(gate);
            return None;
        }
        let was_overdue = state & OVERDUE != 0;
        let by = match was_overdue {
            // The error is there, and decided.
            true => 0,
            false => by,
        };
        if let Some(error) = own.take_if(|_| !was_overdue) {
            // Empty, since it is filled with the end.
            let _ = self.error.set(error);
        }
        // Release: pairs with the Acquire of `is_done`. With `GUARDED` nobody else sets flags outside of the gate; handles
        // come and go.
        self.state.fetch_or(ENDED | by, Ordering::Release);
        let mut taken = gate.take();
        drop(gate);
        self.listeners.empty_shards(&mut taken);
        if let Some(deadline) = self.own_deadline() {
            deadline.stop();
        }
        if self.merged().is_some() {
            self.unlink();
        }
        Some(Closed {
            listeners: taken,
            was_overdue,
        })
    }

    /// The error with which a parent's end reaches this node if it is not simply the parent's: its deadline's, if that
    /// has passed (invariant 6), and what has to be written down since the node has two parents. A deadline that it has
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

    /// Whether the deadline of a node that has not ended has passed. Records it, and tells nobody (invariant 7).
    #[inline(never)]
    pub(super) fn is_overdue(self: &Arc<Self>) -> bool {
        // Acquire: as in `is_done`.
        if self.state.load(Ordering::Acquire) & OVERDUE != 0 {
            return true;
        }
        match &self.deadline {
            Some(deadline) if deadline.has_passed() => {
                self.record(deadline);
                true
            }
            _ => false,
        }
    }

    /// Decides the end: first that of the node which set the deadline, then this one's, whose reason is that one's.
    #[cold]
    fn record(self: &Arc<Self>, deadline: &Deadline) {
        let error = match deadline.node() {
            Some(owner) => {
                owner.set_overdue(deadline.error().clone());
                owner.end_error().clone()
            }
            None => deadline.error().clone(),
        };
        self.set_overdue(error);
    }

    /// Does nothing to a node whose end is decided.
    fn set_overdue(&self, error: ContextError) {
        let gate = self.gate();
        let state = self.guard();
        if state & (ENDED | OVERDUE) == 0 {
            // Empty, since it is filled with the end.
            let _ = self.error.set(error);
            // Release: pairs with the Acquire of `is_done`.
            self.state.fetch_or(OVERDUE, Ordering::Release);
        }
        drop(gate);
    }

    #[inline(never)]
    pub(super) fn expire_if_overdue(self: &Arc<Self>) -> bool {
        let is_overdue = self.is_overdue();
        if is_overdue {
            self.expire();
        }
        is_overdue
    }

    /// Ends the node that set the deadline, which has passed, and with it this one; tells whoever waits.
    #[cold]
    pub(super) fn expire(self: &Arc<Self>) {
        let Some(deadline) = &self.deadline else {
            return;
        };
        deadline.set_passed();
        let error = match deadline.node() {
            Some(owner) => {
                owner.close_subtree(Cause::Error(deadline.error()));
                owner.end_error().clone()
            }
            None => deadline.error().clone(),
        };
        // Another thread may be on its way down from the owner, or from above it.
        if !self.has_ended() {
            self.close_subtree(Cause::Error(&error));
        }
    }

    /// A runtime goes, on which somebody waits for the node or for one below.
    pub(super) fn move_timer(&self, closed: &Timers) {
        if let Some(deadline) = self.own_deadline() {
            deadline.move_from(closed);
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
                    let reason = node.own_reason();
                    let error = || ContextError::at(reason, node.location(), None);
                    return node.error.get_or_init(error).clone();
                }
            };
        }
    }

    fn ended_by_parent(&self) -> Option<&Arc<Node>> {
        // Relaxed: whoever asks has seen the end of this node or of one below, which came later.
        match self.state.load(Ordering::Relaxed) & BY_PARENT {
            0 => None,
            _ => self.parent.as_ref(),
        }
    }

    /// Why a node has ended that its last handle or its group has ended.
    fn own_reason(&self) -> Reason {
        // Relaxed, as above.
        match self.state.load(Ordering::Relaxed) & BY_FINISH {
            0 => Reason::HandleDropped,
            _ => Reason::GroupFinished,
        }
    }
}

/// What ending a subtree came to.
enum Closing {
    Done,
    HadEnded,
    /// It has ended now, and not for this reason: somebody had recorded that the deadline has passed.
    WasOverdue,
}

/// A node that has been ended, and who is to be told.
#[derive(Default)]
struct Closed {
    listeners: Taken,
    was_overdue: bool,
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
    queue: VecDeque<(Arc<Node>, Taken)>,
    /// No nodes here: foreign code runs while they are told, and must not find a node alive that has been dropped.
    to_tell: Vec<Told>,
}

impl Walk {
    /// Closes all that is below a node which has been closed.
    fn below(node: &Node, listeners: Taken) -> Self {
        let mut walk = Self::default();
        walk.close_children(node, listeners);
        while let Some((node, listeners)) = walk.queue.pop_front() {
            walk.close_children(&node, listeners);
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

    fn close_children(&mut self, node: &Node, mut listeners: Taken) {
        self.to_tell
            .extend(node.weak_owner().cloned().map(Told::Owner));
        let waiters = listeners.take_waiters();
        let told = waiters.map(|waiters| Told::Waiters(waiters, node.end_error().clone()));
        self.to_tell.extend(told);
        while let Some(child) = listeners.next_child() {
            let Some(child) = child.upgrade() else {
                continue;
            };
            match child.close(Cause::Parent(node)) {
                Some(closed) if !closed.listeners.is_empty() || child.weak_owner().is_some() => {
                    self.queue.push_back((child, closed.listeners));
                }
                _ => {}
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
            Waiter::Kept { .. } => {}
        }
    }
}
