//! `Node`: a member of the context tree. No async here, and no foreign code under a lock.
//!
//! Owned by the `Context`s, handles and futures that refer to it, and by its children. A parent knows its children
//! only weakly, so dropping the last of those owners frees the node, live or ended.
//!
//! Invariants:
//!
//! 1. `error` is set at most once, under the node's own `registrations` lock, and taking the registrations out is part
//!    of the same critical section. Hence whoever holds the lock either sees the end or has registered before it.
//! 2. A child is live, or its registration with the parent has been taken by the parent's end or by its own.
//! 3. After the end nothing registers again, so a key never comes to mean something else.
//! 4. `deadline` is the earliest of the node's own and its ancestors', fixed at derivation. A node with
//!    `Origin::Deadline` is the owner of its `deadline`: had an ancestor's been earlier, no node would have been made.
//! 5. A node whose own deadline has passed when an end reaches it ends by its deadline, although the timer has not run.
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

use std::panic::Location;
use std::sync::{Arc, Weak};
use std::task::Waker;

use tokio::time::Instant;

use super::deadline::Deadline;
use crate::error::{ContextError, Reason};
use crate::ordered_slab::OrderedSlab;
use crate::panic::{contain, discard};
use crate::sync::{AtomicU32, Mutex, OnceLock, Ordering};

/// "Not registered with a parent", in `Node::key`.
const UNLINKED: u32 = u32::MAX;

// `repr(C)` keeps what an end touches, besides the reference counts, on one cache line with them.
#[repr(C)]
pub(crate) struct Node {
    /// Why the node has ended. Set under `registrations`; `get` is the one atomic load of `is_done`.
    error: OnceLock<ContextError>,
    /// Children and waiters. `None` until the first, and again from the end on.
    registrations: Mutex<Option<Box<Registrations>>>,
    parent: Option<Arc<Node>>,
    /// The node's key among its parent's children. Written once when linked; swapped out by whoever unlinks.
    key: AtomicU32,
    /// `CancelHandle`s that have not been dropped.
    handles: AtomicU32,
    origin: Origin,
    location: &'static Location<'static>,
    deadline: Option<Instant>,
}

/// What else can end a node, besides its parent and its handles.
enum Origin {
    Derived,
    /// Its own deadline. Shared with the timer's waker.
    Deadline(Arc<Deadline>),
    /// A second parent.
    Merged(Box<Link>),
}

struct Link {
    other: Arc<Node>,
    /// As `Node::key`, among the children of `other`.
    key: AtomicU32,
}

#[derive(Default)]
struct Registrations {
    children: OrderedSlab<Weak<Node>>,
    waiters: OrderedSlab<Waiter>,
    /// The node itself, once a callback was detached: it stays for as long as it can end.
    kept: Option<Arc<Node>>,
}

/// Who is told of an end.
pub(crate) enum Waiter {
    Waker(Waker),
    Hook(Hook),
}

pub(crate) type Hook = Box<dyn FnOnce(&ContextError) + Send>;

/// What closing a node came to.
#[must_use]
enum Closed {
    /// It had ended before.
    Already,
    /// It has ended, and there was nobody to tell.
    Leaf,
    /// It has ended, and these are to be told.
    Subtree(Box<Registrations>),
}

/// What polling a registered waiter came to.
#[must_use]
pub(crate) enum Refreshed {
    Registered,
    Ended,
}

impl Node {
    fn new(
        parent: Option<Arc<Node>>,
        origin: Origin,
        deadline: Option<Instant>,
        location: &'static Location<'static>,
    ) -> Self {
        Self {
            error: OnceLock::new(),
            registrations: Mutex::new(None),
            parent,
            key: AtomicU32::new(UNLINKED),
            handles: AtomicU32::new(0),
            origin,
            location,
            deadline,
        }
    }

    /// Derives a child that nothing but its parent and its owner ends.
    pub(crate) fn derive(
        parent: Option<&Arc<Node>>,
        location: &'static Location<'static>,
    ) -> Arc<Node> {
        let deadline = parent.and_then(|parent| parent.deadline);
        if let Some(error) = parent.and_then(Node::err) {
            return Self::born_ended(error, deadline, location);
        }
        let node = Arc::new(Self::new(
            parent.cloned(),
            Origin::Derived,
            deadline,
            location,
        ));
        node.link();
        node
    }

    /// Derives a child that ends at `deadline`, too.
    ///
    /// The caller has made sure that no ancestor's deadline is earlier (invariant 4). The timer is not armed yet.
    pub(super) fn derive_deadline(
        parent: Option<&Arc<Node>>,
        at: Instant,
        location: &'static Location<'static>,
        deadline: impl FnOnce(Weak<Node>) -> Arc<Deadline>,
    ) -> Arc<Node> {
        let node = Arc::new_cyclic(|node| {
            let origin = Origin::Deadline(deadline(node.clone()));
            Self::new(parent.cloned(), origin, Some(at), location)
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
        let deadline = match (first.deadline, second.deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if let Some(error) = first.err().or_else(|| second.err()) {
            return Self::born_ended(error, deadline, location);
        }
        let link = Box::new(Link {
            other: second.clone(),
            key: AtomicU32::new(UNLINKED),
        });
        let node = Arc::new(Self::new(
            Some(first.clone()),
            Origin::Merged(link),
            deadline,
            location,
        ));
        node.link();
        node
    }

    pub(super) fn born_ended(
        error: ContextError,
        deadline: Option<Instant>,
        location: &'static Location<'static>,
    ) -> Arc<Node> {
        let node = Self::new(None, Origin::Derived, deadline, location);
        let _ = node.error.set(error);
        Arc::new(node)
    }

    /// Registers a new node with its parents, or ends it with the one that has ended meanwhile.
    fn link(self: &Arc<Self>) {
        let second = match &self.origin {
            Origin::Merged(link) => Some((&link.other, &link.key)),
            _ => None,
        };
        let first = self.parent.as_ref().map(|parent| (parent, &self.key));
        for (parent, key) in first.into_iter().chain(second) {
            if let Err(error) = parent.adopt(self, key) {
                self.close_subtree(&error);
            }
        }
        if second.is_some() && self.error.get().is_some() {
            // The first parent ended while the second was being told.
            self.unlink();
        }
    }

    /// The other end of this race is `close`: it sets `error` under the same lock (invariant 1).
    fn adopt(&self, child: &Arc<Node>, key: &AtomicU32) -> Result<(), ContextError> {
        let mut registrations = self.registrations.lock();
        if let Some(error) = self.error.get() {
            return Err(error.clone());
        }
        let children = &mut registrations.get_or_insert_default().children;
        // Relaxed: read only by `unlink`, after the end or the drop of a node that was linked before.
        key.store(children.insert(Arc::downgrade(child)), Ordering::Relaxed);
        Ok(())
    }

    fn disown(&self, key: &AtomicU32) {
        let key = key.swap(UNLINKED, Ordering::Relaxed);
        if key == UNLINKED {
            return;
        }
        let mut registrations = self.registrations.lock();
        let child = registrations
            .as_mut()
            .and_then(|registrations| registrations.children.remove(key));
        drop(registrations);
        drop(child);
    }

    /// Takes the node out of its parents' lists. A second call does nothing.
    fn unlink(&self) {
        if let Some(parent) = &self.parent {
            parent.disown(&self.key);
        }
        if let Origin::Merged(link) = &self.origin {
            link.other.disown(&link.key);
        }
    }

    /// Returns `true` from the end on, a deadline included that has passed without its timer having run.
    pub(crate) fn is_done(self: &Arc<Self>) -> bool {
        self.error.get().is_some() || self.is_overdue()
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
        self.deadline
    }

    pub(crate) fn location(&self) -> &'static Location<'static> {
        self.location
    }

    fn is_overdue(self: &Arc<Self>) -> bool {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => {
                self.expire();
                true
            }
            _ => false,
        }
    }

    /// Ends the owner of the deadline that has passed, and with it this node.
    #[cold]
    pub(super) fn expire(self: &Arc<Self>) {
        let (owner, deadline) = self.deadline_owner();
        let error = deadline.error(owner.location);
        owner.close_subtree(&error);
        // Another thread may be on its way down from the owner, or from above it.
        if let (None, Some(error)) = (self.error.get(), owner.error.get()) {
            self.close_subtree(error);
        }
    }

    /// The nearest node, upwards, that set the deadline which holds here (invariant 4).
    fn deadline_owner(self: &Arc<Self>) -> (&Arc<Self>, &Arc<Deadline>) {
        let mut node = self;
        loop {
            node = match &node.origin {
                Origin::Deadline(deadline) => return (node, deadline),
                Origin::Merged(link) if link.other.deadline == node.deadline => &link.other,
                _ => node
                    .parent
                    .as_ref()
                    .expect("a live node with a deadline has an ancestor that set it"),
            };
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
        let registrations = match self.close(error) {
            Closed::Already => return false,
            Closed::Leaf => None,
            Closed::Subtree(registrations) => Some(registrations),
        };
        self.unlink();
        if let Some(registrations) = registrations {
            let ended = close_descendants(registrations, error.clone());
            for (registrations, error) in ended {
                registrations.tell(&error);
            }
        }
        true
    }

    /// Ends this node alone. The other ends of its races are `adopt` and `register`.
    fn close(&self, error: &ContextError) -> Closed {
        let mut registrations = self.registrations.lock();
        // The clone that `set` hands back is not the last: the caller has another.
        if self.error.set(error.clone()).is_err() {
            return Closed::Already;
        }
        let taken = registrations.take();
        drop(registrations);
        match &self.origin {
            Origin::Derived => {}
            Origin::Deadline(deadline) => deadline.disarm(),
            Origin::Merged(_) => self.unlink(),
        }
        taken.map_or(Closed::Leaf, Closed::Subtree)
    }

    /// The error with which an end from above reaches this node: its own deadline's, if that has passed (invariant 5).
    fn own_error(&self) -> Option<ContextError> {
        match (&self.origin, self.deadline) {
            (Origin::Deadline(deadline), Some(at)) if Instant::now() >= at => {
                Some(deadline.error(self.location))
            }
            _ => None,
        }
    }

    /// Adds somebody to be told of the end; hands it back if the node has ended.
    pub(crate) fn register(&self, waiter: Waiter) -> Result<u32, Waiter> {
        let mut registrations = self.registrations.lock();
        if self.error.get().is_some() {
            return Err(waiter);
        }
        Ok(registrations.get_or_insert_default().waiters.insert(waiter))
    }

    /// Takes a waiter out again; `None` if the end was first.
    pub(crate) fn deregister(&self, key: u32) -> Option<Waiter> {
        self.registrations.lock().as_mut()?.waiters.remove(key)
    }

    /// Makes sure that a registered waker wakes the given task.
    pub(crate) fn refresh(&self, key: u32, waker: &Waker) -> Refreshed {
        match self.registrations.lock().as_mut() {
            None => return Refreshed::Ended,
            Some(registrations) => match registrations.waiters.get_mut(key) {
                Some(Waiter::Waker(old)) if !old.will_wake(waker) => {}
                _ => return Refreshed::Registered,
            },
        }
        let mut replaced = Waiter::Waker(waker.clone());
        let mut registrations = self.registrations.lock();
        let refreshed = match registrations.as_mut() {
            None => Refreshed::Ended,
            Some(registrations) => {
                if let Some(waiter) = registrations.waiters.get_mut(key) {
                    std::mem::swap(waiter, &mut replaced);
                }
                Refreshed::Registered
            }
        };
        drop(registrations);
        drop(replaced);
        refreshed
    }

    /// Makes the node keep itself until it ends.
    pub(crate) fn keep(self: &Arc<Self>) {
        if let Some(registrations) = self.registrations.lock().as_mut() {
            // The node is not freed by replacing an older clone: `self` is another.
            registrations.kept = Some(self.clone());
        }
    }

    /// Counts one more handle.
    pub(crate) fn add_handle(&self) {
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives up a handle; `true` if it was the last.
    pub(crate) fn remove_handle(&self) -> bool {
        // AcqRel: what the owners of the other handles did happens before the end that this one causes.
        self.handles.fetch_sub(1, Ordering::AcqRel) == 1
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
///
/// The vector is the queue of a breadth-first walk and its result at once.
fn close_descendants(
    first: Box<Registrations>,
    error: ContextError,
) -> Vec<(Box<Registrations>, ContextError)> {
    let mut ended = vec![(first, error)];
    let mut next = 0;
    while let Some((registrations, error)) = ended.get_mut(next) {
        let error = error.clone();
        for child in std::mem::take(&mut registrations.children) {
            let Some(child) = child.upgrade() else {
                continue;
            };
            let own = child.own_error();
            let error = own.as_ref().unwrap_or(&error);
            if let Closed::Subtree(registrations) = child.close(error) {
                ended.push((registrations, error.clone()));
            }
        }
        next += 1;
    }
    ended
}

impl Registrations {
    fn tell(self, error: &ContextError) {
        for waiter in self.waiters {
            match waiter {
                Waiter::Waker(waker) => contain(|| waker.wake()),
                Waiter::Hook(hook) => contain(|| hook(error)),
            }
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
        self.unlink();
        match std::mem::replace(&mut self.origin, Origin::Derived) {
            Origin::Derived => {}
            Origin::Deadline(deadline) => {
                // The timer holds the other reference, in its waker.
                deadline.disarm();
                discard(deadline);
            }
            Origin::Merged(link) => owners.push(link.other),
        }
        if let Some(registrations) = self.registrations.get_mut().take() {
            for waiter in registrations.waiters {
                discard(waiter);
            }
        }
        self.parent.take()
    }
}

#[cfg(test)]
impl Node {
    /// Children registered with this node: the probe of tests.
    pub(crate) fn children(&self) -> usize {
        self.registrations
            .lock()
            .as_ref()
            .map_or(0, |registrations| registrations.children.len())
    }
}
