//! `Node`: a member of the context tree. No async here, and no foreign code under a lock.
//!
//! Owned by the `Context`s, handles and futures that refer to it, and by its children. A parent knows its children
//! only weakly, so dropping the last of those owners frees the node, live or ended.
//!
//! Invariants:
//!
//! 1. `state` gets `ENDED` at most once, and that is the end. A node that nobody has listened to yet is ended by one
//!    compare-and-swap. Whoever listens first sets `GUARDED`, within the node's gate (`listeners.rs`), and from then on the
//!    end needs that lock, too, and takes the listeners out in the same critical section. Hence whoever is within the gate
//!    and has seen to `GUARDED` either sees the end or has registered before it.
//! 2. `error` says why, and is empty before the end. Where it can be told later it is made by the first to ask: a node
//!    ended `BY_PARENT` has the parent's, one ended `BY_HANDLE` or `BY_FINISH` has its own location. Any other error is
//!    there before `ENDED` or `OVERDUE` is.
//! 3. A child is live, or its registration with the parent has been taken by the parent's end or by its own.
//! 4. After the end nothing registers again, so a key never comes to mean something else.
//! 5. `deadline` is the earliest of the node's own and its ancestors', fixed at derivation and shared with the node
//!    that set it: had an ancestor's been earlier, no node would have been made.
//! 6. A node whose deadline has passed when an end reaches it ends by its deadline, although the timer has not run.
//! 7. Asking is pure: who asks and sees the deadline passed sets `OVERDUE`, on the node that set the deadline and then on
//!    this one. With that the end is decided, and has its error; the waiters stay registered until somebody tells them,
//!    who sets `ENDED`. So whatever asks may stand under locks of its own, and nobody sees the node live again.
//!
//! Which flags there are together: `ENDED` alone has an error of its own; at most one of `OVERDUE`, `BY_PARENT`,
//! `BY_HANDLE` and `BY_FINISH` goes with it, the last three are set in the same step, `OVERDUE` before or never.
//! `OVERDUE` needs `TIMED` and `GUARDED`. `OWNS_DEADLINE` needs `TIMED` and `GUARDED`.
//!
//! Lock order: none. No thread holds two of these locks, and none is held while wakers, callbacks, destructors or timers
//! run.
//!
//! Why not end every node under its lock? Most contexts are leaves: ending one is then a single atomic operation, and a
//! parent ends hundreds of thousands of them. Why not hand the error down with the end? Few of them are ever asked.
//!
//! How an end goes through the tree is in `end.rs`.

use std::any::Any;
use std::panic::{Location, RefUnwindSafe};
use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::deadline::Deadline;
use super::directory;
use super::listeners::Listeners;
use super::steps::{Climb, Steps, climb};
use super::stop::StopPoint;
use crate::destructor::destroy;
use crate::error::ContextError;
use crate::sync::{AtomicU32, OnceLock, Ordering};

/// The node has ended. Final.
pub(super) const ENDED: u32 = 1;

/// The deadline has passed, and who saw it was not to tell: the node has ended for whoever asks, not for whoever waits.
/// Set within the gate.
pub(super) const OVERDUE: u32 = 1 << 7;

/// The node has a deadline, its own or an ancestor's: live is only who has asked the clock. Set at derivation.
pub(super) const TIMED: u32 = 1 << 1;

/// The flags change only within the gate. Set there by the first to listen or to end with an error that has to
/// be written down, and from the beginning where an end has more to do: with a timer or two parents. Final.
pub(super) const GUARDED: u32 = 1 << 2;

/// Set with `ENDED`: by the end of the only parent.
pub(super) const BY_PARENT: u32 = 1 << 3;

/// Set with `ENDED`: the last handle was dropped.
pub(super) const BY_HANDLE: u32 = 1 << 4;

/// Set with `ENDED`: the group that owns the node has finished.
pub(super) const BY_FINISH: u32 = 1 << 6;

/// `deadline` is the node's own: the node stops its timers. Set at derivation.
const OWNS_DEADLINE: u32 = 1 << 5;

/// The handles that have not been dropped are counted in `state`, above the flags: one of them.
const HANDLE: u32 = 1 << 8;

/// More handles than anybody has; the count holds twice as many, so that threads which pass the bound at once do no harm.
const MAX_HANDLES: u32 = 1 << 23;

/// "Not registered with a parent", in `Node::key`.
const UNLINKED: u32 = u32::MAX;

// `repr(C)` keeps what an end touches on one cache line with the reference counts.
#[repr(C)]
pub(crate) struct Node {
    /// The flags above. None: live, without a deadline, and nobody has ever listened. Above them the handles: there is no
    /// room for a word more.
    pub(super) state: AtomicU32,
    /// The node's key among its parent's children, guarded by the parent's gate; without a parent, its key in the directory.
    key: AtomicU32,
    pub(super) parent: Option<Arc<Node>>,
    /// Who is told of the end. Empty from the end on.
    pub(super) listeners: Listeners,
    /// Why the node has ended (invariant 2).
    pub(super) error: OnceLock<ContextError>,
    /// Its own, or the ancestor's that holds here.
    pub(super) deadline: Option<Arc<Deadline>>,
    kind: Kind,
    location: &'static Location<'static>,
}

// With the reference counts, and its place in its parent's list, a derived context takes 128 bytes.
#[cfg(all(not(all(test, errgroup_loom)), target_pointer_width = "64"))]
const _: () = assert!(size_of::<Node>() < 128 - 16 - 16);

/// What a node is beyond a child of its parent. Never both, so that they share their place.
enum Kind {
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

pub(super) struct Link {
    pub(super) other: Arc<Node>,
    /// As `Node::key`, among the children of `other`.
    key: AtomicU32,
}

/// Refuses whoever would listen to a node that has ended.
pub(super) struct HasEnded;

impl Node {
    #[inline]
    fn new(
        state: u32,
        parent: Option<&Arc<Node>>,
        handles: u32,
        deadline: Option<Arc<Deadline>>,
        location: &'static Location<'static>,
    ) -> Self {
        let timed = if deadline.is_some() { TIMED } else { 0 };
        Self {
            state: AtomicU32::new(state | timed | (handles * HANDLE)),
            key: AtomicU32::new(UNLINKED),
            parent: parent.cloned(),
            listeners: Listeners::default(),
            error: OnceLock::new(),
            deadline,
            kind: Kind::Context(None),
            location,
        }
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
        let deadline = match parent {
            Some(parent) if parent.is_done() => return Self::born_ended(parent, 0, location),
            Some(parent) => parent.deadline.clone(),
            None => None,
        };
        Self::linked(parent, |_| {
            let mut node = Self::new(0, parent, 0, deadline, location);
            node.kind = Kind::Owned(owner);
            node
        })
    }

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

    /// Offers the groups and batches above, whose contexts this one derives from, from the nearest on, until one is taken.
    pub(crate) fn find_owner_above(self: &Arc<Self>, is_taken: impl Fn(&Arc<dyn Owner>) -> bool) {
        climb(Some(self), |node| {
            let is_above = !Arc::ptr_eq(node, self);
            match is_above && node.owner().is_some_and(|owner| is_taken(&owner)) {
                true => Climb::Stop,
                false => Climb::On,
            }
        });
    }

    /// Derives a child that nothing but its parent and the owners of its `handles` end.
    pub(crate) fn derive(
        parent: Option<&Arc<Node>>,
        handles: u32,
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
            Self::new(0, parent, handles, deadline, location)
        })
    }

    /// As `derive`, of one that can be stopped in steps.
    pub(crate) fn derive_stop(
        parent: Option<&Arc<Node>>,
        handles: u32,
        location: &'static Location<'static>,
    ) -> Arc<Node> {
        Self::derive_extra(parent, handles, Extra::Stop(StopPoint::default()), location)
    }

    /// Derives a context in which to clean up.
    pub(super) fn derive_cleanup(
        parent: Option<&Arc<Node>>,
        location: &'static Location<'static>,
    ) -> Arc<Node> {
        Self::derive_extra(parent, 0, Extra::Cleanup, location)
    }

    fn derive_extra(
        parent: Option<&Arc<Node>>,
        handles: u32,
        extra: Extra,
        location: &'static Location<'static>,
    ) -> Arc<Node> {
        if let Some(parent) = parent.filter(|parent| parent.is_done()) {
            return Self::born_ended(parent, handles, location);
        }
        let deadline = parent.and_then(|parent| parent.deadline.clone());
        Self::linked(parent, |_| {
            let mut node = Self::new(0, parent, handles, deadline, location);
            node.kind = Kind::Context(Some(Box::new(extra)));
            node
        })
    }

    /// Derives a child that ends at a deadline, too, which no ancestor's precedes (invariant 5).
    pub(super) fn derive_deadline(
        parent: Option<&Arc<Node>>,
        location: &'static Location<'static>,
        deadline: impl FnOnce(Weak<Node>) -> Deadline,
    ) -> Arc<Node> {
        Self::linked(parent, |node| {
            let deadline = Arc::new(deadline(node.clone()));
            Self::new(GUARDED | OWNS_DEADLINE, parent, 0, Some(deadline), location)
        })
    }

    /// Makes a node and registers it with its only parent. It is made where it stays: one that is moved there waits
    /// until all of it has been written first.
    #[inline(always)]
    fn linked(parent: Option<&Arc<Node>>, node: impl FnOnce(&Weak<Node>) -> Self) -> Arc<Node> {
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
        let mut node = Self::new(GUARDED, Some(first), 0, deadline, location);
        node.kind = Kind::Context(Some(Box::new(Extra::Merged(Link {
            other: second.clone(),
            key: AtomicU32::new(UNLINKED),
        }))));
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
        let mut node = Self::new(ENDED | GUARDED, parent, handles, deadline, location);
        node.error = OnceLock::from(error);
        Arc::new(node)
    }

    /// Registers a new node with one of its parents, or ends it with that if it has ended meanwhile.
    #[inline(always)]
    fn link_to(self: &Arc<Self>, parent: &Arc<Node>, key: &AtomicU32, child: Weak<Node>) {
        if let Err(HasEnded) = parent.insert_child(child, key) {
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
            parent.disown(&self.key);
        }
        if let Some(link) = self.merged() {
            link.other.disown(&link.key);
        }
    }

    #[inline]
    fn disown(&self, key: &AtomicU32) {
        let mut gate = self.gate();
        // Relaxed, as in `insert_child`: both go through the parent's gate.
        let place = key.load(Ordering::Relaxed);
        key.store(UNLINKED, Ordering::Relaxed);
        let child = gate.remove_child(place);
        drop(gate);
        drop(child);
    }

    /// Makes sure, within the gate, that nobody ends the node without it. Returns the state.
    #[inline]
    pub(super) fn guard(&self) -> u32 {
        // Acquire: pairs with the Release of the end, as in `is_done`. Once the flag is there this is no race: both hold
        // the lock.
        let state = self.state.load(Ordering::Acquire);
        if state & GUARDED != 0 {
            return state;
        }
        // Acquire: pairs with the Release of `close_unguarded`, which has come before, or fails from now on.
        self.state.fetch_or(GUARDED, Ordering::Acquire) | GUARDED
    }

    /// Returns `true` from the end on, a deadline included that has passed without its timer having run.
    ///
    /// Pure: it tells nobody and runs no foreign code (invariant 7).
    #[inline]
    pub(crate) fn is_done(self: &Arc<Self>) -> bool {
        // Acquire: pairs with the Release of `close_unguarded`, `close_guarded` and `set_overdue`. Without it the error
        // might not be there yet, the node's own or the parent's.
        match self.state.load(Ordering::Acquire) & (ENDED | TIMED) {
            0 => false,
            TIMED => self.is_overdue(),
            _ => true,
        }
    }

    /// As `is_done`, and whoever waits has been told, or is being told by another thread: polling, ending and
    /// registering call this, asking does not.
    #[inline]
    pub(crate) fn tell_if_overdue(self: &Arc<Self>) -> bool {
        // Acquire: as in `is_done`.
        match self.state.load(Ordering::Acquire) & (ENDED | TIMED) {
            0 => false,
            TIMED => self.expire_if_overdue(),
            _ => true,
        }
    }

    /// Somebody waits for the node from now on: on this thread's runtime, or outside of any. Without a deadline there is
    /// nothing to do; otherwise a timer is armed, which may end the node at once.
    ///
    /// # Panics
    ///
    /// Below a deadline, in a runtime without a timer, by tokio; then nothing has been registered.
    #[inline]
    pub(crate) fn see_to_timer(&self) {
        if let Some(deadline) = &self.deadline {
            deadline.arm();
        }
    }

    /// As `is_done`, without asking the clock, and only once whoever waits is being told.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.state.load(Ordering::Acquire) & ENDED != 0
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

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline.as_ref().map(|deadline| deadline.at())
    }

    pub(super) fn own_deadline(&self) -> Option<&Arc<Deadline>> {
        // Relaxed: the flag never changes.
        match self.state.load(Ordering::Relaxed) & OWNS_DEADLINE {
            0 => None,
            _ => self.deadline.as_ref(),
        }
    }

    pub(crate) fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// Counts one more handle.
    pub(crate) fn add_handle(&self) {
        let before = self.state.fetch_add(HANDLE, Ordering::Relaxed);
        assert!(
            before / HANDLE < MAX_HANDLES,
            "errgroup: over eight million handles of one context"
        );
    }

    /// Gives up a handle; `true` if it was the last.
    #[inline]
    pub(crate) fn remove_handle(&self) -> bool {
        // AcqRel, Acquire: what the owners of the other handles did happens before the end that this one causes. The
        // only handle cannot be cloned meanwhile, and one load is cheaper.
        self.state.load(Ordering::Acquire) / HANDLE == 1
            || self.state.fetch_sub(HANDLE, Ordering::AcqRel) / HANDLE == 1
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Relaxed, here and below: nobody else has the node any more, and its last owner's drop has synchronised.
        if self.state.load(Ordering::Relaxed) & GUARDED != 0 {
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
        if let Some(deadline) = self.own_deadline() {
            deadline.stop();
        }
        if let Kind::Context(extra) = &mut self.kind {
            if let Some(Extra::Merged(link)) = extra.take().map(|extra| *extra) {
                link.leave();
                others.push(link.other);
            }
        }
        self.listeners.take_waiters().for_each(destroy);
        self.leave()
    }

    /// Gives up the node's place with its parent, or in the directory. A second call does nothing.
    #[inline]
    fn leave(&mut self) -> Option<Arc<Node>> {
        let key = self.key.load(Ordering::Relaxed);
        let Some(parent) = self.parent.take() else {
            if key != UNLINKED {
                self.key.store(UNLINKED, Ordering::Relaxed);
                directory::leave(key);
            }
            return None;
        };
        let was_taken = self.state.load(Ordering::Relaxed) & BY_PARENT != 0;
        if !was_taken && key != UNLINKED {
            parent.disown(&self.key);
        }
        // What it was with the parent is no key of the directory.
        self.key.store(UNLINKED, Ordering::Relaxed);
        Some(parent)
    }

    /// Enters the directory: the node has no parent. A second call does nothing.
    pub(super) fn enter_directory(self: &Arc<Self>) {
        // Relaxed, here and below: the key is used by the drop only, which has synchronised.
        if self.key.load(Ordering::Relaxed) != UNLINKED {
            return;
        }
        let key = directory::enter(self);
        let set = self
            .key
            .compare_exchange(UNLINKED, key, Ordering::Relaxed, Ordering::Relaxed);
        if set.is_err() {
            // Another thread was first.
            directory::leave(key);
        }
    }
}

impl Link {
    /// As `Node::leave`.
    fn leave(&self) {
        if self.key.load(Ordering::Relaxed) != UNLINKED {
            self.other.disown(&self.key);
        }
    }
}

#[cfg(all(test, errgroup_loom))]
impl Node {
    /// Children registered with this node: a probe of the models.
    pub(crate) fn children(&self) -> usize {
        self.listeners.children()
    }
}
