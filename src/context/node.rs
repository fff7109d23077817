//! `Node`: a member of the context tree: what it knows, its birth, its place with its parent, and what is asked of it. No
//! async here, and no foreign code under a lock.
//!
//! Owned by the `Context`s, handles and futures that refer to it, and by its children. A parent knows its children
//! only weakly, so dropping the last of those owners frees the node, live or ended.
//!
//! Invariants, beside those of who is told (`listeners.rs`) and of the deadline (`deadline.rs`):
//!
//! 1. `error` says why the node has ended, and is empty before the end is decided. Where it can be told later it is made by
//!    the first to ask (`By`): from the parent's, or from the node's location. Any other error is there before the end is.
//! 2. A child is live, or its registration with the parent has been taken by the parent's end or by its own.
//! 3. `deadline` is the earliest of the node's own and its ancestors', fixed at derivation and shared with the node
//!    that set it: had an ancestor's been earlier, no node would have been made.
//! 4. A node whose deadline has passed when an end reaches it ends by its deadline, although the timer has not run.
//!
//! Lock order: none. No thread holds two of these locks, and none is held while wakers, callbacks, destructors or timers
//! run.
//!
//! How an end goes through the tree is in `end.rs`, the ways through it in `tree.rs`.

use std::panic::Location;
use std::sync::{Arc, Weak};

use super::deadline::Deadline;
use super::directory;
use super::kind::{Extra, Kind, Link, Owner};
use super::listeners::{Hook, Listeners, Place, UNLINKED, Waiter};
use super::state::{By, HasEnded, State};
use super::steps::StopPoint;
use crate::destructor::destroy;
use crate::error::ContextError;
use crate::sync::{AtomicU32, OnceLock, Ordering};

// `repr(C)` keeps what an end touches on one cache line with the reference counts.
#[repr(C)]
pub(crate) struct Node {
    pub(super) state: State,
    /// The node's key among its parent's children, guarded by the parent's gate; without a parent, its key in the directory.
    pub(super) key: AtomicU32,
    pub(super) parent: Option<Arc<Node>>,
    /// Who is told of the end. Empty from the end on.
    pub(super) listeners: Listeners<Weak<Node>>,
    /// Why the node has ended (invariant 1).
    pub(super) error: OnceLock<ContextError>,
    /// Its own, or the ancestor's that holds here.
    pub(super) deadline: Option<Arc<Deadline>>,
    pub(super) kind: Kind,
    location: &'static Location<'static>,
}

// With the reference counts, and its place in its parent's list, a derived context takes 128 bytes.
#[cfg(all(not(all(test, errgroup_loom)), target_pointer_width = "64"))]
const _: () = assert!(size_of::<Node>() < 128 - 16 - 16);

/// Birth.
impl Node {
    #[inline]
    pub(super) fn new(
        state: State,
        parent: Option<&Arc<Node>>,
        deadline: Option<Arc<Deadline>>,
        kind: Kind,
        location: &'static Location<'static>,
    ) -> Self {
        Self {
            state,
            key: AtomicU32::new(UNLINKED),
            parent: parent.cloned(),
            listeners: Listeners::default(),
            error: OnceLock::new(),
            deadline,
            kind,
            location,
        }
    }

    /// Derives a child that nothing but its parent and the owners of its `handles` end.
    pub(crate) fn derive(
        parent: Option<&Arc<Node>>,
        handles: u32,
        location: &'static Location<'static>,
    ) -> Arc<Node> {
        Self::derive_as(parent, handles, || Kind::PLAIN, location)
    }

    /// Derives the context of a group, or of a batch.
    ///
    /// The owner is told of the end as soon as `owner` can be upgraded. Whoever makes the two of them together asks
    /// `has_ended` afterwards: an end that came before told nobody.
    pub(crate) fn derive_owned(
        parent: Option<&Arc<Node>>,
        owner: Weak<dyn Owner>,
        location: &'static Location<'static>,
    ) -> Arc<Node> {
        Self::derive_as(parent, 0, || Kind::Owned(owner), location)
    }

    /// As `derive`, of one that can be stopped in steps.
    pub(crate) fn derive_stop(
        parent: Option<&Arc<Node>>,
        handles: u32,
        location: &'static Location<'static>,
    ) -> Arc<Node> {
        let kind = || Kind::extra(Extra::Stop(StopPoint::default()));
        Self::derive_as(parent, handles, kind, location)
    }

    /// Derives a context in which to clean up.
    pub(super) fn derive_cleanup(
        parent: Option<&Arc<Node>>,
        location: &'static Location<'static>,
    ) -> Arc<Node> {
        Self::derive_as(parent, 0, || Kind::extra(Extra::Cleanup), location)
    }

    #[inline(always)]
    fn derive_as(
        parent: Option<&Arc<Node>>,
        handles: u32,
        kind: impl FnOnce() -> Kind,
        location: &'static Location<'static>,
    ) -> Arc<Node> {
        let deadline = match parent {
            Some(parent) if parent.is_done() => {
                return Self::born_ended(parent, handles, location);
            }
            Some(parent) => parent.deadline.clone(),
            None => None,
        };
        Self::linked(parent, |_| {
            Self::new(State::live(handles), parent, deadline, kind(), location)
        })
    }

    /// Makes a node and registers it with its only parent. It is made where it stays: one that is moved there waits
    /// until all of it has been written first.
    #[inline(always)]
    pub(super) fn linked(
        parent: Option<&Arc<Node>>,
        node: impl FnOnce(&Weak<Node>) -> Self,
    ) -> Arc<Node> {
        let mut child = Weak::new();
        let node = Arc::new_cyclic(|weak| {
            child = weak.clone();
            node(weak)
        });
        if let Some(parent) = parent {
            node.link_to(parent, &node.key, child);
        }
        node
    }

    /// Derives a child of two parents.
    pub(crate) fn merge(
        first: &Arc<Node>,
        second: &Arc<Node>,
        location: &'static Location<'static>,
    ) -> Arc<Node> {
        let deadlines = [&first.deadline, &second.deadline].into_iter().flatten();
        let deadline = deadlines.min_by_key(|deadline| deadline.at()).cloned();
        if let Some(error) = first.err().or_else(|| second.err()) {
            return Self::ended(error, Some(first), 0, deadline, location);
        }
        let kind = Kind::extra(Extra::Merged(Link {
            other: second.clone(),
            key: AtomicU32::new(UNLINKED),
        }));
        let node = Self::new(State::guarded(), Some(first), deadline, kind, location);
        let node = Arc::new(node);
        node.link_both();
        node
    }

    #[cold]
    fn born_ended(
        parent: &Arc<Node>,
        handles: u32,
        location: &'static Location<'static>,
    ) -> Arc<Node> {
        let deadline = parent.deadline.clone();
        let error = parent.end_error().clone();
        Self::ended(error, Some(parent), handles, deadline, location)
    }

    /// A node that has ended before anybody saw it. Its parent does not know it; it knows the parent, and so the group
    /// whose time to clean up it shares.
    pub(super) fn ended(
        error: ContextError,
        parent: Option<&Arc<Node>>,
        handles: u32,
        deadline: Option<Arc<Deadline>>,
        location: &'static Location<'static>,
    ) -> Arc<Node> {
        let state = State::ended(handles);
        let mut node = Self::new(state, parent, deadline, Kind::PLAIN, location);
        node.error = OnceLock::from(error);
        Arc::new(node)
    }
}

/// Its place with its parents.
impl Node {
    /// Registers a new node with one of its parents, or ends it with that if it has ended meanwhile.
    #[inline(always)]
    fn link_to(self: &Arc<Self>, parent: &Arc<Node>, key: &AtomicU32, child: Weak<Node>) {
        if let Err(HasEnded) = parent.listeners.insert_child(&parent.state, child, key) {
            self.end_new(parent);
        }
    }

    fn link_both(self: &Arc<Self>) {
        if let Some(parent) = &self.parent {
            self.link_to(parent, &self.key, Arc::downgrade(self));
        }
        if let Some(link) = self.merged() {
            self.link_to(&link.other, &link.key, Arc::downgrade(self));
            if self.has_ended() {
                // The first parent ended while the second was being told. Either the unlinking of that end has seen the
                // key, within the second's gate, or it came there before us and we see the end.
                self.unlink();
            }
        }
    }

    /// Takes the node out of its parents' lists. A second call does nothing.
    pub(super) fn unlink(&self) {
        if let Some(parent) = &self.parent {
            parent.listeners.remove_child(&self.key);
        }
        if let Some(link) = self.merged() {
            link.leave();
        }
    }
}

/// What is asked of it.
impl Node {
    /// Returns `true` from the end on, a deadline included that has passed without its timer having run.
    ///
    /// Pure: it tells nobody and runs no foreign code.
    #[inline]
    pub(crate) fn is_done(self: &Arc<Self>) -> bool {
        self.state.has_ended() || (self.deadline.is_some() && self.is_overdue())
    }

    /// As `is_done`, and whoever waits has been told, or is being told by another thread: polling, ending and
    /// registering call this, asking does not.
    #[inline]
    pub(crate) fn tell_if_overdue(self: &Arc<Self>) -> bool {
        self.state.has_ended() || (self.deadline.is_some() && self.expire_if_overdue())
    }

    /// As `is_done`, without asking the clock, and only once whoever waits is being told.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.state.has_ended()
    }

    #[inline]
    pub(crate) fn err(self: &Arc<Self>) -> Option<ContextError> {
        self.error_ref().cloned()
    }

    #[inline]
    pub(crate) fn error_ref(self: &Arc<Self>) -> Option<&ContextError> {
        match self.is_done() {
            true => Some(self.end_error()),
            false => None,
        }
    }

    pub(crate) fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// Adds a callback at the end, by a timer too; hands it back if the node has ended.
    pub(super) fn register(&self, hook: Hook) -> Result<u32, Hook> {
        if self.has_ended() {
            return Err(hook);
        }
        // First: it panics in a runtime without a timer, and what it ends refuses the callback.
        self.see_to_timer();
        self.add(hook)
    }

    /// As `register`, without a timer.
    pub(super) fn add(&self, hook: Hook) -> Result<u32, Hook> {
        self.listeners.insert_hook(&self.state, hook)
    }

    /// Takes a waiter out again; `None` if the end was first.
    pub(crate) fn deregister(&self, key: u32) -> Option<Waiter> {
        self.listeners.remove(Place { key, shard: 0 })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.state.is_guarded() {
            return self.free();
        }
        // Nobody has listened, so there is no more to it than its place with the parent.
        let parent = self.leave();
        if let Some(mut parent) = parent.and_then(Arc::into_inner) {
            parent.free();
        }
    }
}

impl Node {
    /// Dismantles the node and the ancestors that only it kept, one after the other instead of one inside the other.
    #[inline(never)]
    fn free(&mut self) {
        let mut others = Vec::new();
        let mut next = self.dismantle(&mut others);
        while let Some(node) = next.take().or_else(|| others.pop()) {
            // Of several threads that drop the last owners at once, `into_inner` gives the node to exactly one.
            if let Some(mut node) = Arc::into_inner(node) {
                next = node.dismantle(&mut others);
            }
        }
    }

    /// Takes the node out of the tree and hands out what it owned of it.
    fn dismantle(&mut self, others: &mut Vec<Arc<Node>>) -> Option<Arc<Node>> {
        if let Some(deadline) = &self.deadline {
            deadline.stop_without_node();
        }
        if let Some(link) = self.kind.take_link() {
            link.leave();
            others.push(link.other);
        }
        if let Some(taken) = self.listeners.take() {
            taken.into_waiters().for_each(destroy);
        }
        self.leave()
    }

    /// Gives up the node's place with its parent, or in the directory. A second call does nothing.
    #[inline]
    fn leave(&mut self) -> Option<Arc<Node>> {
        // Relaxed: nobody else has the node any more, and its last owner's drop has synchronised.
        let key = self.key.load(Ordering::Relaxed);
        let parent = self.parent.take();
        if key != UNLINKED {
            match &parent {
                Some(_) if self.state.by() == By::Parent => {}
                Some(parent) => parent.listeners.remove_child(&self.key),
                None => directory::leave(key),
            }
            // A second call finds no parent, and what it was there is no key of the directory.
            self.key.store(UNLINKED, Ordering::Relaxed);
        }
        parent
    }
}

#[cfg(all(test, errgroup_loom))]
impl Node {
    /// Children registered with this node: a probe of the models.
    pub(crate) fn children(&self) -> usize {
        self.listeners.children()
    }
}
