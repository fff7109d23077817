//! `Node`: a member of the context tree. No async here, and no foreign code under a lock.
//!
//! Owned by the `Context`s, handles and futures that refer to it, and by its children. A parent knows its children
//! only weakly, so dropping the last of those owners frees the node, live or ended.
//!
//! Invariants:
//!
//! 1. `error` is set at most once, under the node's own `listeners` lock, and taking the listeners out is part of the
//!    same critical section. Hence whoever holds the lock either sees the end or has registered before it.
//! 2. A child is live, or its registration with the parent has been taken by the parent's end or by its own.
//! 3. After the end nothing registers again, so a key never comes to mean something else.
//! 4. `deadline` is the earliest of the node's own and its ancestors', fixed at derivation and shared with the node
//!    that set it: had an ancestor's been earlier, no node would have been made.
//! 5. A node whose deadline has passed when an end reaches it ends by its deadline, although the timer has not run.
//!
//! Lock order: none. No thread holds two of these locks, and none is held while wakers, callbacks, destructors or
//! tokio's timer run.
//!
//! An end has two phases. First every node of the subtree is closed, parents before children, siblings in the order of
//! derivation. Then the waiters are told, in the same order. So whoever is woken or called back finds all of the
//! subtree ended. Neither phase recurses; nor does `drop`.
//!
//! Why not hold the parent's lock while ending the children, as Go does? Then a waker that touches an ancestor would
//! deadlock, and one slow callback would block every derivation beside it. The price: another thread can see the parent
//! ended a moment before the child. The thread that ends, and whoever it wakes, never can.

use std::collections::VecDeque;
use std::panic::Location;
use std::sync::{Arc, Weak};
use std::task::Waker;

use tokio::time::Instant;

use super::deadline::Deadline;
use crate::error::{ContextError, Reason};
use crate::ordered_slab::InlineSlab;
use crate::panic::{contain, discard};
use crate::sync::{AtomicU32, Mutex, OnceLock, Ordering};

/// "Not registered with a parent", in `Node::key`.
const UNLINKED: u32 = u32::MAX;

// `repr(C)` keeps what an end touches on one cache line with the reference counts.
#[repr(C)]
pub(crate) struct Node {
    /// Why the node has ended. Set under `listeners`; `get` is the one atomic load of `is_done`.
    error: OnceLock<ContextError>,
    /// Who is told of the end. Empty from the end on.
    listeners: Mutex<Listeners>,
    parent: Option<Arc<Node>>,
    /// The node's key among its parent's children. Guarded by the parent's lock.
    key: AtomicU32,
    /// `CancelHandle`s that have not been dropped.
    handles: AtomicU32,
    /// Its own, or the ancestor's that holds here.
    deadline: Option<Arc<Deadline>>,
    /// A second parent.
    merged: Option<Box<Link>>,
    location: &'static Location<'static>,
}

struct Link {
    other: Arc<Node>,
    /// As `Node::key`, among the children of `other`.
    key: AtomicU32,
}

#[derive(Default)]
struct Listeners {
    children: Children,
    /// `None` until the first.
    waiters: Option<Box<Waiters>>,
}

type Children = InlineSlab<Weak<Node>>;
type Waiters = InlineSlab<Waiter>;

/// Who is told of an end.
pub(crate) enum Waiter {
    Waker(Waker),
    Hook(Hook),
    /// The node itself, which stays for as long as it can end: a callback on it was detached.
    Kept {
        _node: Arc<Node>,
    },
}

pub(crate) type Hook = Box<dyn FnOnce(&ContextError) + Send>;

/// What polling a registered waiter came to.
#[must_use]
pub(crate) enum Refreshed {
    Registered,
    Ended,
}

impl Node {
    fn new(
        parent: Option<&Arc<Node>>,
        deadline: Option<Arc<Deadline>>,
        location: &'static Location<'static>,
    ) -> Self {
        Self {
            error: OnceLock::new(),
            listeners: Mutex::default(),
            parent: parent.cloned(),
            key: AtomicU32::new(UNLINKED),
            handles: AtomicU32::new(0),
            deadline,
            merged: None,
            location,
        }
    }

    /// Derives a child that nothing but its parent and the owners of its `handles` end.
    pub(crate) fn derive(
        parent: Option<&Arc<Node>>,
        handles: u32,
        location: &'static Location<'static>,
    ) -> Arc<Node> {
        let deadline = parent.and_then(|parent| parent.deadline.clone());
        let mut node = match parent.and_then(Node::err) {
            Some(error) => Self::born_ended(error, deadline, location),
            None => Self::new(parent, deadline, location),
        };
        node.handles = AtomicU32::new(handles);
        let node = Arc::new(node);
        node.link();
        node
    }

    /// Derives a child that ends at a deadline, too, which no ancestor's precedes (invariant 4). It is not armed yet.
    pub(super) fn derive_deadline(
        parent: Option<&Arc<Node>>,
        location: &'static Location<'static>,
        deadline: impl FnOnce(Weak<Node>) -> Deadline,
    ) -> Arc<Node> {
        let node = Arc::new_cyclic(|node| {
            let deadline = Arc::new(deadline(node.clone()));
            Self::new(parent, Some(deadline), location)
        });
        node.link();
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
            return Arc::new(Self::born_ended(error, deadline, location));
        }
        let mut node = Self::new(Some(first), deadline, location);
        node.merged = Some(Box::new(Link {
            other: second.clone(),
            key: AtomicU32::new(UNLINKED),
        }));
        let node = Arc::new(node);
        node.link();
        node
    }

    pub(super) fn born_ended(
        error: ContextError,
        deadline: Option<Arc<Deadline>>,
        location: &'static Location<'static>,
    ) -> Node {
        let node = Self::new(None, deadline, location);
        let _ = node.error.set(error);
        node
    }

    /// Registers a new node with its parents, or ends it with the one that has ended meanwhile.
    fn link(self: &Arc<Self>) {
        if let Some(parent) = &self.parent {
            self.link_to(parent, &self.key);
        }
        if let Some(link) = &self.merged {
            self.link_to(&link.other, &link.key);
            if self.has_ended() {
                // The first parent ended while the second was being told. Either the unlinking of that end has seen the
                // key, under the second's lock, or its lock came before ours and we see the end.
                self.unlink();
            }
        }
    }

    fn link_to(self: &Arc<Self>, parent: &Arc<Node>, key: &AtomicU32) {
        if let Err(error) = parent.adopt(self, key) {
            self.close_subtree(&error);
        }
    }

    /// The other end of this race is `close`: it sets `error` under the same lock (invariant 1).
    fn adopt(&self, child: &Arc<Node>, key: &AtomicU32) -> Result<(), ContextError> {
        let mut listeners = self.listeners.lock();
        if let Some(error) = self.error.get() {
            return Err(error.clone());
        }
        let place = listeners.children.insert(Arc::downgrade(child));
        // Relaxed, here and in `disown`: both hold the lock.
        key.store(place, Ordering::Relaxed);
        Ok(())
    }

    fn disown(&self, key: &AtomicU32) {
        let mut listeners = self.listeners.lock();
        let place = key.load(Ordering::Relaxed);
        key.store(UNLINKED, Ordering::Relaxed);
        let child = listeners.children.remove(place);
        drop(listeners);
        drop(child);
    }

    /// Takes the node out of its parents' lists. A second call does nothing.
    fn unlink(&self) {
        if let Some(parent) = &self.parent {
            parent.disown(&self.key);
        }
        if let Some(link) = &self.merged {
            link.other.disown(&link.key);
        }
    }

    /// Returns `true` from the end on, a deadline included that has passed without its timer having run.
    #[inline]
    pub(crate) fn is_done(self: &Arc<Self>) -> bool {
        self.has_ended() || self.is_overdue()
    }

    /// As `is_done`, without asking the clock.
    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        self.error.get().is_some()
    }

    pub(crate) fn err(self: &Arc<Self>) -> Option<ContextError> {
        self.error_ref().cloned()
    }

    pub(crate) fn error_ref(self: &Arc<Self>) -> Option<&ContextError> {
        if self.is_done() {
            self.error.get()
        } else {
            None
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline.as_ref().map(|deadline| deadline.at())
    }

    pub(crate) fn location(&self) -> &'static Location<'static> {
        self.location
    }

    #[inline]
    fn is_overdue(self: &Arc<Self>) -> bool {
        match &self.deadline {
            Some(deadline) if Instant::now() >= deadline.at() => {
                self.expire(deadline);
                true
            }
            _ => false,
        }
    }

    /// Ends the owner of the deadline that has passed, and with it this node.
    #[cold]
    fn expire(self: &Arc<Self>, deadline: &Deadline) {
        let error = match deadline.owner() {
            Some(owner) => {
                owner.close_subtree(&deadline.error());
                owner.error.get().cloned()
            }
            None => None,
        };
        // Another thread may be on its way down from the owner, or from above it.
        if self.error.get().is_none() {
            self.close_subtree(&error.unwrap_or_else(|| deadline.error()));
        }
    }

    /// Ends the node and everything below it; `false` if it had ended before.
    ///
    /// Returns when every node below is ended and every waiter is told.
    pub(crate) fn end(self: &Arc<Self>, error: impl FnOnce() -> ContextError) -> bool {
        // `is_done` lets a deadline win that has passed.
        !self.is_done() && self.close_subtree(&error())
    }

    fn close_subtree(self: &Arc<Self>, error: &ContextError) -> bool {
        let Some(listeners) = self.close(error) else {
            return false;
        };
        self.unlink();
        for (waiters, error) in close_descendants(listeners, error) {
            tell(*waiters, &error);
        }
        true
    }

    /// Ends this node alone and hands out who is to be told; `None` if it had ended before.
    ///
    /// The other ends of its races are `adopt` and `register`.
    fn close(&self, error: &ContextError) -> Option<Listeners> {
        let mut listeners = self.listeners.lock();
        // The clone that `set` hands back is not the last: the caller has another.
        self.error.set(error.clone()).ok()?;
        let taken = std::mem::take(&mut *listeners);
        drop(listeners);
        if let Some(deadline) = self.own_deadline() {
            deadline.disarm();
        }
        if self.merged.is_some() {
            self.unlink();
        }
        Some(taken)
    }

    pub(super) fn own_deadline(&self) -> Option<&Arc<Deadline>> {
        self.deadline
            .as_ref()
            .filter(|deadline| deadline.is_of(self))
    }

    /// The error with which an end from above reaches this node instead: its deadline's, if that has passed
    /// (invariant 5). A deadline that it has from the parent which ends has ended that one already.
    fn own_error(&self) -> Option<ContextError> {
        let deadline = match self.merged {
            None => self.own_deadline()?,
            Some(_) => self.deadline.as_ref()?,
        };
        (Instant::now() >= deadline.at()).then(|| deadline.error())
    }

    /// Adds somebody to be told of the end; hands it back if the node has ended.
    pub(crate) fn register(&self, waiter: Waiter) -> Result<u32, Waiter> {
        let mut listeners = self.listeners.lock();
        if self.error.get().is_some() {
            return Err(waiter);
        }
        Ok(listeners.waiters.get_or_insert_default().insert(waiter))
    }

    /// Takes a waiter out again; `None` if the end was first.
    pub(crate) fn deregister(&self, key: u32) -> Option<Waiter> {
        self.listeners.lock().waiters.as_mut()?.remove(key)
    }

    /// Makes sure that a registered waker wakes the given task.
    pub(crate) fn refresh(&self, key: u32, waker: &Waker) -> Refreshed {
        match self.listeners.lock().waker_mut(key) {
            None => return Refreshed::Ended,
            Some(old) if old.will_wake(waker) => return Refreshed::Registered,
            Some(_) => {}
        }
        let mut replaced = waker.clone();
        let mut listeners = self.listeners.lock();
        let refreshed = match listeners.waker_mut(key) {
            None => Refreshed::Ended,
            Some(old) => {
                std::mem::swap(old, &mut replaced);
                Refreshed::Registered
            }
        };
        drop(listeners);
        drop(replaced);
        refreshed
    }

    /// Makes the node keep itself until it ends.
    pub(crate) fn keep(self: &Arc<Self>) {
        // Refused by an ended node: then there is nothing to keep it for.
        let _ = self.register(Waiter::Kept {
            _node: self.clone(),
        });
    }

    /// Counts one more handle.
    pub(crate) fn add_handle(&self) {
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives up a handle; `true` if it was the last.
    pub(crate) fn remove_handle(&self) -> bool {
        // AcqRel, Acquire: what the owners of the other handles did happens before the end that this one causes. The
        // only handle cannot be cloned meanwhile, and one load is cheaper.
        self.handles.load(Ordering::Acquire) == 1
            || self.handles.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// The last handle has gone.
    pub(crate) fn end_unhandled(self: &Arc<Self>) {
        // Nobody else can ask: a child, a waiter, a context would own the node too.
        if Arc::strong_count(self) > 1 {
            self.end(|| ContextError::at(Reason::HandleDropped, self.location, None));
        }
    }
}

/// Closes what is below a closed node; hands out all waiters, parents' before children's.
fn close_descendants(
    listeners: Listeners,
    error: &ContextError,
) -> Vec<(Box<Waiters>, ContextError)> {
    let mut to_tell = Vec::new();
    // Closed nodes' children: a breadth-first walk.
    let mut queue = VecDeque::new();
    let mut next = Some((listeners, error.clone()));
    while let Some((listeners, error)) = next.take().or_else(|| queue.pop_front()) {
        if let Some(waiters) = listeners.waiters {
            to_tell.push((waiters, error.clone()));
        }
        for child in listeners.children {
            let Some(child) = child.upgrade() else {
                continue;
            };
            let own = child.own_error();
            let error = own.as_ref().unwrap_or(&error);
            match child.close(error) {
                Some(listeners) if !listeners.is_empty() => {
                    queue.push_back((listeners, error.clone()));
                }
                _ => {}
            }
        }
    }
    to_tell
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

impl Listeners {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.waiters.is_none()
    }

    fn waker_mut(&mut self, key: u32) -> Option<&mut Waker> {
        match self.waiters.as_mut()?.get_mut(key)? {
            Waiter::Waker(waker) => Some(waker),
            Waiter::Hook(_) | Waiter::Kept { .. } => None,
        }
    }
}

impl Drop for Node {
    /// Frees the ancestors that only this node kept, one after the other instead of one inside the other.
    fn drop(&mut self) {
        let mut owners = Vec::new();
        let mut next = self.dismantle(&mut owners);
        while let Some(node) = next.take().or_else(|| owners.pop()) {
            // Of several threads that drop the last owners at once, `into_inner` gives the node to exactly one.
            if let Some(mut node) = Arc::into_inner(node) {
                next = node.dismantle(&mut owners);
            }
        }
    }
}

impl Node {
    /// Takes the node out of the tree and hands out what it owned of it.
    fn dismantle(&mut self, owners: &mut Vec<Arc<Node>>) -> Option<Arc<Node>> {
        // Nobody else has the node any more, so its keys are final: after an end there is nothing left to unlink.
        let is_linked = |key: &AtomicU32| key.load(Ordering::Relaxed) != UNLINKED;
        if is_linked(&self.key)
            || self
                .merged
                .as_ref()
                .is_some_and(|link| is_linked(&link.key))
        {
            self.unlink();
        }
        if let Some(deadline) = self.deadline.take() {
            // The timer holds another reference, in its waker. Not `own_deadline`: the node may have moved.
            if deadline.has_lost_owner() {
                deadline.disarm();
            }
        }
        owners.extend(self.merged.take().map(|link| link.other));
        if let Some(waiters) = self.listeners.get_mut().waiters.take() {
            waiters.into_iter().for_each(discard);
        }
        self.parent.take()
    }
}

#[cfg(all(test, errgroup_loom))]
impl Node {
    /// Children registered with this node: a probe of the models.
    pub(crate) fn children(&self) -> usize {
        self.listeners.lock().children.len()
    }
}
