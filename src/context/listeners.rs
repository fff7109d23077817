//! `Listeners`: who is told of a node's end, its children and its waiters. Here is the one race of the tree, of whoever
//! registers with the end; the flags that decide it are the node's `State` (`state.rs`).
//!
//! A node with one child, or none, needs no memory for a list: the child lies in `alone`. With the second child or the first
//! waiter there is a crowd, for as long as there is the node, and the child moves there.
//!
//! Where threads meet at the crowd's lock again and again, because a thousand connections watch one context, wakers are
//! registered in shards from then on, a thread in one of them (`shards.rs`). Children and callbacks are not: they are told in
//! the order in which they came.
//!
//! Invariants:
//!
//! 1. The _gate_ of a node is the lock of `alone` until there is a crowd, then that of its members. A crowd is made under
//!    the first. So who has it, and finds no crowd then, has the gate; and nobody goes through it but under a lock that
//!    everybody else has to take.
//! 2. `ENDED` is set at most once, and that is the end. A node that nobody has listened to yet is ended by one
//!    compare-and-swap. Whoever listens first sets `GUARDED`, within the gate, and from then on the end needs that lock, too,
//!    and takes the listeners out in the same critical section. Hence whoever is within the gate and has seen to `GUARDED`
//!    either sees the end or has registered before it.
//! 3. After the end nothing registers again, and until it a key means the same place until its owner gives it up. So a key
//!    never comes to mean something else.
//! 4. Shards are made under the gate of a live node. An end sets `ENDED` under the gate and empties them after that, one by
//!    one; who registers in a shard looks for `ENDED` under its lock. So whoever comes before that is told, and whoever comes
//!    after it is refused.
//!
//! Lock order: none. A shard is locked with no gate held.
//!
//! Why not end every node under its lock? Most contexts are leaves: ending one is then a single atomic operation, and a
//! parent ends hundreds of thousands of them.

mod shards;

use std::task::Waker;

use self::shards::Shards;
use super::state::{By, HasEnded, Phase, State};
use crate::error::ContextError;
use crate::ordered_slab::{FIRST, InlineSlab};
use crate::sync::{AtomicU32, Mutex, MutexGuard, OnceBox, Ordering};

/// Of a node with children `C`.
#[derive(Default)]
pub(super) struct Listeners<C> {
    /// Its key is `FIRST`. Empty from the crowd on.
    alone: Mutex<Option<C>>,
    crowd: OnceBox<Crowd<C>>,
}

struct Crowd<C> {
    members: Mutex<Members<C>>,
    shards: OnceBox<Shards>,
}

/// Empty from the end on.
struct Members<C> {
    children: InlineSlab<C>,
    waiters: Waiters,
    /// How often somebody who came for a waker found another thread here.
    collisions: u32,
}

pub(super) type Waiters = InlineSlab<Waiter>;

/// Who is told of an end, beside the children.
pub(crate) enum Waiter {
    Waker(Waker),
    Hook(Hook),
}

pub(crate) type Hook = Box<dyn FnOnce(&ContextError) + Send>;

/// "Not registered", of a child's key.
pub(super) const UNLINKED: u32 = u32::MAX;

/// Where a waker is registered.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) key: u32,
    /// 0 for the members, else the number of the shard.
    pub(super) shard: u32,
}

/// The lock under which a node's flags change (invariant 1).
enum Gate<'a, C> {
    Alone(MutexGuard<'a, Option<C>>),
    Members(MutexGuard<'a, Members<C>>),
}

/// Whom an end has taken out, the oldest first as far as they are not in shards.
#[derive(Default)]
pub(super) struct Taken<C> {
    pub(super) children: InlineSlab<C>,
    pub(super) waiters: Waiters,
    pub(super) sharded: Vec<Waiters>,
}

impl<C: Default> Listeners<C> {
    // Always: the compiler did or did not, as the rest of the crate happened to be.
    #[inline(always)]
    fn gate(&self) -> Gate<'_, C> {
        if self.crowd.get().is_none() {
            let alone = self.alone.lock();
            if self.crowd.get().is_none() {
                return Gate::Alone(alone);
            }
        }
        Gate::Members(self.crowd().members.lock())
    }

    #[inline]
    fn crowd(&self) -> &Crowd<C> {
        match self.crowd.get() {
            Some(crowd) => crowd,
            None => self.gather(),
        }
    }

    #[cold]
    fn gather(&self) -> &Crowd<C> {
        let mut alone = self.alone.lock();
        // Nobody else makes one meanwhile.
        self.crowd.get_or_init(|| {
            let members = Members {
                children: InlineSlab::from(alone.take()),
                waiters: Waiters::default(),
                collisions: 0,
            };
            Box::new(Crowd {
                members: Mutex::new(members),
                shards: OnceBox::default(),
            })
        })
    }

    fn shards(&self) -> Option<&Shards> {
        self.crowd.get()?.shards.get()
    }

    /// Registers a child, and stores its key under the gate. The other ends of this race are `State::close_unguarded` and
    /// `close`.
    #[inline]
    pub(super) fn insert_child(
        &self,
        state: &State,
        child: C,
        key: &AtomicU32,
    ) -> Result<(), HasEnded> {
        let mut gate = self.gate();
        state.guard_live()?;
        let place = match &mut gate {
            Gate::Alone(alone) if alone.is_none() => {
                **alone = Some(child);
                FIRST
            }
            Gate::Alone(_) => {
                drop(gate);
                return self.insert_into_crowd(state, child, key);
            }
            Gate::Members(members) => members.children.insert(child),
        };
        // Relaxed, as in `remove_child`: both go through the gate.
        key.store(place, Ordering::Relaxed);
        Ok(())
    }

    #[inline(never)]
    fn insert_into_crowd(&self, state: &State, child: C, key: &AtomicU32) -> Result<(), HasEnded> {
        let mut members = self.members(state)?;
        key.store(members.children.insert(child), Ordering::Relaxed);
        Ok(())
    }

    /// Takes a child out, unless the end has. A second call does nothing.
    #[inline]
    pub(super) fn remove_child(&self, key: &AtomicU32) {
        let mut gate = self.gate();
        let place = key.load(Ordering::Relaxed);
        key.store(UNLINKED, Ordering::Relaxed);
        let child = match (&mut gate, place) {
            (Gate::Alone(alone), FIRST) => alone.take(),
            (Gate::Alone(_), _) => None,
            (Gate::Members(members), key) => members.children.remove(key),
        };
        drop(gate);
        drop(child);
    }

    /// Goes through the gate to join the crowd, unless the node has ended.
    #[inline]
    fn members(&self, state: &State) -> Result<MutexGuard<'_, Members<C>>, HasEnded> {
        if state.has_ended() {
            return Err(HasEnded);
        }
        let members = self.crowd().members.lock();
        state.guard_live()?;
        Ok(members)
    }

    /// Adds a callback; hands it back if the node has ended.
    pub(super) fn insert_hook(&self, state: &State, hook: Hook) -> Result<u32, Hook> {
        match self.members(state) {
            Ok(mut members) => Ok(members.waiters.insert(Waiter::Hook(hook))),
            Err(HasEnded) => Err(hook),
        }
    }

    /// Adds a waker; it is dropped if the node has ended.
    #[inline]
    pub(super) fn insert_waker(&self, state: &State, waker: Waker) -> Option<Place> {
        let crowd = self.crowd();
        if let Some(shards) = crowd.shards.get() {
            return shards.insert(state, waker);
        }
        match crowd.members.try_lock() {
            Some(members) => insert_into(members, state, waker),
            None => crowd.insert_contended(state, waker),
        }
    }

    /// Takes a waiter out again; `None` if the end was first.
    #[inline]
    pub(super) fn remove(&self, place: Place) -> Option<Waiter> {
        let crowd = self.crowd.get()?;
        match place.shard {
            0 => crowd.lock().waiters.remove(place.key),
            _ => crowd.shards.get()?.remove(place),
        }
    }

    /// Puts another waker in a registered one's place; `false`: the node has ended.
    pub(super) fn replace_waker(&self, place: Place, mut waker: Waker) -> bool {
        let mut replace = |waiters: &mut Waiters| match waiters.get_mut(place.key) {
            Some(Waiter::Waker(old)) => {
                std::mem::swap(old, &mut waker);
                true
            }
            _ => false,
        };
        // What is dropped on return, with no lock held, is foreign in either case.
        self.crowd.get().is_some_and(|crowd| match place.shard {
            0 => replace(&mut crowd.members.lock().waiters),
            number => {
                let shards = crowd.shards.get();
                shards.is_some_and(|shards| replace(&mut shards.lock(number)))
            }
        })
    }

    /// Decides the end by a deadline that has passed, and tells nobody. `write` writes the error down; it is not called if the
    /// end is decided.
    pub(super) fn set_overdue(&self, state: &State, write: impl FnOnce()) {
        let _gate = self.gate();
        if let Phase::Live = state.guard() {
            write();
            state.set_overdue();
        }
    }

    /// Ends the node and takes out whoever is to be told; `None` if it had ended before. `write` writes the error down; it is not
    /// called if the error is there, and decided.
    ///
    /// The other ends of its race are those who register: they see to `GUARDED` within the gate, too (invariant 2).
    pub(super) fn close(&self, state: &State, by: By, write: impl FnOnce()) -> Option<Closed<C>> {
        let gate = self.gate();
        let phase = state.guard();
        match phase {
            Phase::Ended => return None,
            Phase::Overdue => state.close(By::Error),
            Phase::Live => {
                write();
                state.close(by);
            }
        }
        Some(Closed {
            listeners: self.take_from(gate),
            was_overdue: matches!(phase, Phase::Overdue),
        })
    }

    /// Takes out the crowd of a node that nobody has any more.
    pub(super) fn take(&self) -> Option<Taken<C>> {
        let crowd = self.crowd.get()?;
        self.take_from(Gate::Members(crowd.members.lock()))
    }

    /// `None` if there is nobody.
    #[inline]
    fn take_from(&self, mut gate: Gate<'_, C>) -> Option<Taken<C>> {
        let taken = gate.take();
        drop(gate);
        match self.shards() {
            None => taken,
            Some(shards) => {
                let mut taken = taken.unwrap_or_default();
                taken.sharded = shards.take();
                Some(taken)
            }
        }
    }
}

impl<C: Clone + Default> Listeners<C> {
    /// Lists the children of a chunk; `false` beyond the last.
    pub(super) fn list_children(&self, chunk: usize, listed: &mut Vec<C>) -> bool {
        match self.gate() {
            Gate::Alone(child) => {
                listed.extend(child.clone());
                false
            }
            Gate::Members(mut members) => match members.children.chunk_mut(chunk) {
                Some(children) => {
                    listed.extend(children.map(|child| child.clone()));
                    true
                }
                None => false,
            },
        }
    }
}

impl<C> Crowd<C> {
    /// Takes the lock for a waker, and notes whether that had to wait.
    #[inline]
    fn lock(&self) -> MutexGuard<'_, Members<C>> {
        match self.members.try_lock() {
            Some(members) => members,
            None => self.lock_contended(),
        }
    }

    #[cold]
    fn lock_contended(&self) -> MutexGuard<'_, Members<C>> {
        let mut members = self.members.lock();
        members.collisions += 1;
        members
    }

    /// The last to come here again and again makes the shards.
    #[cold]
    fn insert_contended(&self, state: &State, waker: Waker) -> Option<Place> {
        /// A few may be chance.
        const MANY: u32 = if cfg!(all(test, errgroup_loom)) {
            0
        } else {
            64
        };
        let members = self.lock_contended();
        if members.collisions > MANY && state.guard_live().is_ok() {
            self.shards.get_or_init(Shards::new);
        }
        insert_into(members, state, waker)
    }
}

#[inline]
fn insert_into<C>(
    mut members: MutexGuard<'_, Members<C>>,
    state: &State,
    waker: Waker,
) -> Option<Place> {
    if let Err(HasEnded) = state.guard_live() {
        // Before the waker, which is foreign.
        drop(members);
        return None;
    }
    // Made in place: by far most waiters are wakers, and most contexts have one at most.
    let key = members.waiters.insert_with(|| Waiter::Waker(waker));
    Some(Place { key, shard: 0 })
}

impl<C> Members<C> {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.waiters.is_empty()
    }
}

impl<C: Default> Gate<'_, C> {
    #[inline]
    fn take(&mut self) -> Option<Taken<C>> {
        let (children, waiters) = match self {
            Gate::Alone(alone) => (InlineSlab::from(Some(alone.take()?)), Waiters::default()),
            Gate::Members(members) if members.is_empty() => return None,
            Gate::Members(members) => (
                std::mem::take(&mut members.children),
                std::mem::take(&mut members.waiters),
            ),
        };
        Some(Taken {
            children,
            waiters,
            sharded: Vec::new(),
        })
    }
}

/// A node that has been ended, and who is to be told, if anybody.
pub(super) struct Closed<C> {
    pub(super) listeners: Option<Taken<C>>,
    pub(super) was_overdue: bool,
}

impl<C> Taken<C> {
    pub(super) fn into_waiters(self) -> impl Iterator<Item = Waiter> {
        let sharded = self.sharded.into_iter().flatten();
        self.waiters.into_iter().chain(sharded)
    }
}

/// Probes of the tests and models.
#[cfg(test)]
impl<C: Default> Listeners<C> {
    #[cfg(errgroup_loom)]
    pub(super) fn children(&self) -> usize {
        match self.gate() {
            Gate::Alone(alone) => usize::from(alone.is_some()),
            Gate::Members(members) => members.children.len(),
        }
    }

    /// Registers as one who has found another thread here.
    #[cfg(errgroup_loom)]
    pub(super) fn meet(&self, state: &State, waker: Waker) -> Option<Place> {
        self.crowd().insert_contended(state, waker)
    }

    /// As if threads had met here again and again.
    pub(super) fn make_shards(&self) {
        self.crowd().shards.get_or_init(Shards::new);
    }
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests;
