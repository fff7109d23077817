//! `Listeners`: who is told of a node's end. Its children, and its waiters: wakers and callbacks.
//!
//! A node with one child, or none, needs no memory for a list: the child lies in `alone`. With the second child or the first
//! waiter there is a crowd, for as long as there is the node, and the child moves there.
//!
//! Where threads meet at the crowd's lock again and again, because a thousand connections watch one context, wakers are
//! registered in shards from then on, a thread in one of them. Children and callbacks are not: they are told in the order in
//! which they came.
//!
//! Invariants:
//!
//! 1. The _gate_ of a node is the lock of `alone` until there is a crowd, then that of its members. A crowd is made under
//!    the first. So who has it, and finds no crowd then, has the gate; and nobody goes through it but under a lock that
//!    everybody else has to take.
//! 2. `Members::first` is older than `Members::children`: it is filled only while there are none.
//! 3. A key means the same place until its owner gives it up, or the end has taken the place.
//! 4. Shards are made under the gate of a live node. An end sets `ENDED` under the gate and empties them after that, one by
//!    one; who registers in a shard looks for `ENDED` under its lock. So whoever comes before that is told, and whoever comes
//!    after it is refused.
//!
//! Lock order: none. A shard is locked with no gate held.
//!
//! Why not shards from the beginning? A kilobyte, where most contexts have one waiter. Why not for children, too? They would
//! need a number each to be told in order, from a counter that all threads share.

use std::cell::Cell;
use std::sync::atomic::AtomicUsize as Counter;
use std::sync::{Arc, Weak};
use std::task::Waker;

use super::node::{ENDED, HasEnded, Node};
use crate::error::ContextError;
use crate::ordered_slab::{FIRST, InlineSlab, OrderedSlab};
use crate::sync::{AtomicU32, Mutex, MutexGuard, OnceBox, Ordering};

#[derive(Default)]
pub(super) struct Listeners {
    /// Its key is `FIRST`. Empty from the crowd on.
    alone: Mutex<Option<Weak<Node>>>,
    crowd: OnceBox<Crowd>,
}

#[derive(Default)]
struct Crowd {
    members: Mutex<Members>,
    shards: OnceBox<Shards>,
}

/// Empty from the end on.
#[derive(Default)]
pub(super) struct Members {
    /// Its key is `FIRST`.
    first: Option<Weak<Node>>,
    children: OrderedSlab<Weak<Node>>,
    waiters: Waiters,
    /// How often somebody who came for a waker found another thread here.
    collisions: u32,
}

struct Shards(Box<[Shard]>);

/// On cache lines of its own, with those that the processor fetches along.
#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<Waiters>);

pub(super) type Waiters = InlineSlab<Waiter>;

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

/// Where a waker is registered.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) key: u32,
    /// 0 for the members, else the number of the shard.
    pub(super) shard: u32,
}

/// The lock under which a node's flags change (invariant 1).
#[must_use]
pub(super) enum Gate<'a> {
    Alone(MutexGuard<'a, Option<Weak<Node>>>),
    Members(MutexGuard<'a, Members>),
}

/// Whom an end has taken out.
#[derive(Default)]
pub(super) enum Taken {
    #[default]
    Nobody,
    Child(Weak<Node>),
    Crowd(Box<Crowded>),
}

#[derive(Default)]
pub(super) struct Crowded {
    members: Members,
    shards: Vec<Waiters>,
}

impl Listeners {
    #[inline]
    pub(super) fn gate(&self) -> Gate<'_> {
        if self.crowd.get().is_none() {
            let alone = self.alone.lock();
            if self.crowd.get().is_none() {
                return Gate::Alone(alone);
            }
        }
        Gate::Members(self.crowd().members.lock())
    }

    #[inline]
    fn crowd(&self) -> &Crowd {
        match self.crowd.get() {
            Some(crowd) => crowd,
            None => self.gather(),
        }
    }

    #[cold]
    fn gather(&self) -> &Crowd {
        let mut alone = self.alone.lock();
        // Nobody else makes one meanwhile.
        self.crowd.get_or_init(|| {
            let mut crowd = Box::<Crowd>::default();
            crowd.members.get_mut().first = alone.take();
            crowd
        })
    }

    fn shards(&self) -> &[Shard] {
        let shards = self.crowd.get().and_then(|crowd| crowd.shards.get());
        shards.map_or(&[], |shards| &shards.0)
    }

    fn shard(&self, number: u32) -> Option<&Shard> {
        self.shards().get((number as usize).checked_sub(1)?)
    }

    /// Adds those of the shards to whom an end has taken out. It has set `ENDED` (invariant 4).
    pub(super) fn empty_shards(&self, taken: &mut Taken) {
        for shard in self.shards() {
            let waiters = std::mem::take(&mut *shard.0.lock());
            if !waiters.is_empty() {
                taken.crowd().shards.push(waiters);
            }
        }
    }

    /// Takes the waiters of a node that nobody has any more.
    pub(super) fn take_waiters(&self) -> impl Iterator<Item = Waiter> {
        let members = self.crowd.get().map(|crowd| &crowd.members);
        let shards = self.shards().iter().map(|shard| &shard.0);
        let waiters = members.map(|members| std::mem::take(&mut members.lock().waiters));
        let sharded = shards.map(|shard| std::mem::take(&mut *shard.lock()));
        waiters.into_iter().chain(sharded).flatten()
    }

    /// Lists the children of a chunk, the first with that of the first; `false` beyond the last.
    pub(super) fn list_children(&self, chunk: usize, listed: &mut Vec<Weak<Node>>) -> bool {
        match self.gate() {
            Gate::Alone(child) => {
                listed.extend(child.clone());
                false
            }
            Gate::Members(mut members) => {
                if chunk == 0 {
                    listed.extend(members.first.clone());
                }
                let Some(children) = members.children.chunk_mut(chunk) else {
                    return false;
                };
                listed.extend(children.map(|(_, child)| child.clone()));
                true
            }
        }
    }

    #[cfg(all(test, errgroup_loom))]
    pub(super) fn children(&self) -> usize {
        match self.gate() {
            Gate::Alone(alone) => usize::from(alone.is_some()),
            Gate::Members(members) => usize::from(members.first.is_some()) + members.children.len(),
        }
    }
}

impl Crowd {
    /// Takes the lock for a waker, and notes whether that had to wait.
    #[inline]
    fn lock(&self) -> MutexGuard<'_, Members> {
        match self.members.try_lock() {
            Some(members) => members,
            None => self.lock_contended(),
        }
    }

    #[cold]
    fn lock_contended(&self) -> MutexGuard<'_, Members> {
        let mut members = self.members.lock();
        members.collisions += 1;
        members
    }
}

impl Gate<'_> {
    /// `None` if it is no child any more.
    #[inline]
    pub(super) fn remove_child(&mut self, key: u32) -> Option<Weak<Node>> {
        match (self, key) {
            (Gate::Alone(alone), FIRST) => alone.take(),
            (Gate::Alone(_), _) => None,
            (Gate::Members(members), FIRST) => members.first.take(),
            (Gate::Members(members), key) => members.children.remove(key),
        }
    }

    /// Takes all out at the end, except for those in shards.
    #[inline]
    pub(super) fn take(&mut self) -> Taken {
        match self {
            Gate::Alone(alone) => alone.take().map_or(Taken::Nobody, Taken::Child),
            Gate::Members(members) if members.is_empty() => Taken::Nobody,
            Gate::Members(members) => Taken::Crowd(Box::new(Crowded {
                members: std::mem::take(&mut **members),
                shards: Vec::new(),
            })),
        }
    }
}

impl Members {
    fn is_empty(&self) -> bool {
        self.first.is_none() && self.children.is_empty() && self.waiters.is_empty()
    }

    #[inline]
    fn insert_child(&mut self, child: Weak<Node>) -> u32 {
        if self.first.is_none() && self.children.is_empty() {
            self.first = Some(child);
            return FIRST;
        }
        self.children.insert(child)
    }
}

impl Taken {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Taken::Nobody)
    }

    fn crowd(&mut self) -> &mut Crowded {
        if let Taken::Nobody | Taken::Child(_) = self {
            let mut crowd = Box::<Crowded>::default();
            crowd.members.first = match std::mem::take(self) {
                Taken::Child(child) => Some(child),
                Taken::Nobody | Taken::Crowd(_) => None,
            };
            *self = Taken::Crowd(crowd);
        }
        match self {
            Taken::Crowd(crowd) => crowd,
            Taken::Nobody | Taken::Child(_) => unreachable!("errgroup: it was made above"),
        }
    }

    /// Takes the waiters out, the oldest first as far as they are not in shards.
    #[inline]
    pub(super) fn take_waiters(&mut self) -> impl Iterator<Item = Waiters> + use<> {
        let (members, shards) = match self {
            Taken::Nobody | Taken::Child(_) => (None, Vec::new()),
            Taken::Crowd(crowd) => (
                Some(std::mem::take(&mut crowd.members.waiters)),
                std::mem::take(&mut crowd.shards),
            ),
        };
        let waiters = members.into_iter().chain(shards);
        waiters.filter(|waiters| !waiters.is_empty())
    }

    /// Takes the oldest child out.
    #[inline]
    pub(super) fn next_child(&mut self) -> Option<Weak<Node>> {
        match self {
            Taken::Nobody => None,
            Taken::Child(_) => match std::mem::take(self) {
                Taken::Child(child) => Some(child),
                Taken::Nobody | Taken::Crowd(_) => None,
            },
            Taken::Crowd(crowd) => {
                let members = &mut crowd.members;
                members.first.take().or_else(|| members.children.next())
            }
        }
    }
}

impl Shards {
    /// Twice as many as threads that run at once: few of them share one.
    fn new() -> Box<Self> {
        let count = (2 * processors()).max(8);
        Box::new(Self((0..count).map(|_| Shard::default()).collect()))
    }

    /// The shard of this thread, and its number.
    #[inline]
    fn own(&self) -> (&Shard, u32) {
        let index = thread_number() % self.0.len();
        (&self.0[index], index as u32 + 1)
    }
}

fn processors() -> usize {
    // Asking takes a while.
    static PROCESSORS: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Numbers the threads in the order in which they first come here.
#[inline]
fn thread_number() -> usize {
    static NEXT: Counter = Counter::new(0);
    const NONE: usize = usize::MAX;
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(NONE) };
    }
    if cfg!(all(test, errgroup_loom)) {
        // Its runs have to be alike.
        return 0;
    }
    let number = NUMBER.get();
    if number != NONE {
        return number;
    }
    // Relaxed: the numbers only have to differ.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    NUMBER.set(number);
    number
}

impl Node {
    #[inline]
    pub(super) fn gate(&self) -> Gate<'_> {
        self.listeners.gate()
    }

    /// Registers a child, and stores its key under the gate. The other ends of this race are `close_unguarded` and
    /// `close_guarded`.
    #[inline]
    pub(super) fn insert_child(&self, child: Weak<Node>, key: &AtomicU32) -> Result<(), HasEnded> {
        let mut gate = self.gate();
        if self.guard() & ENDED != 0 {
            return Err(HasEnded);
        }
        if let Gate::Alone(alone) = &mut gate {
            if alone.is_none() {
                **alone = Some(child);
                // Relaxed, as in `disown`: both go through the gate.
                key.store(FIRST, Ordering::Relaxed);
                return Ok(());
            }
        }
        drop(gate);
        self.insert_into_crowd(child, key)
    }

    #[inline(never)]
    fn insert_into_crowd(&self, child: Weak<Node>, key: &AtomicU32) -> Result<(), HasEnded> {
        let mut members = self.members()?;
        key.store(members.insert_child(child), Ordering::Relaxed);
        Ok(())
    }

    /// Goes through the gate to join the crowd, unless the node has ended.
    #[inline]
    fn members(&self) -> Result<MutexGuard<'_, Members>, HasEnded> {
        if self.has_ended() {
            return Err(HasEnded);
        }
        let members = self.listeners.crowd().members.lock();
        self.live(members)
    }

    #[inline]
    fn live<'a>(
        &self,
        members: MutexGuard<'a, Members>,
    ) -> Result<MutexGuard<'a, Members>, HasEnded> {
        match self.guard() & ENDED {
            0 => Ok(members),
            _ => Err(HasEnded),
        }
    }

    /// Adds somebody to be told of the end, by a timer too; hands it back if the node has ended.
    pub(crate) fn register(&self, waiter: Waiter) -> Result<u32, Waiter> {
        // First: it panics in a runtime without a timer, and what it ends refuses the waiter.
        self.see_to_timer();
        self.add(waiter)
    }

    /// As `register`, without a timer.
    pub(super) fn add(&self, waiter: Waiter) -> Result<u32, Waiter> {
        match self.members() {
            Ok(mut members) => Ok(members.waiters.insert(waiter)),
            Err(HasEnded) => Err(waiter),
        }
    }

    /// As `add`, for a waker; it is dropped if the node has ended.
    #[inline]
    pub(super) fn register_waker(&self, waker: Waker) -> Option<Place> {
        let crowd = self.listeners.crowd();
        if let Some(shards) = crowd.shards.get() {
            return self.register_in_shard(shards, waker);
        }
        match crowd.members.try_lock() {
            Some(members) => self.register_in(members, waker),
            None => self.register_contended(crowd, waker),
        }
    }

    #[inline]
    fn register_in(&self, members: MutexGuard<'_, Members>, waker: Waker) -> Option<Place> {
        let mut members = self.live(members).ok()?;
        // Made in place: by far most waiters are wakers, and most contexts have one at most.
        let key = members.waiters.insert_with(|| Waiter::Waker(waker));
        Some(Place { key, shard: 0 })
    }

    /// The last to come here again and again makes the shards.
    #[cold]
    fn register_contended(&self, crowd: &Crowd, waker: Waker) -> Option<Place> {
        /// A few may be chance.
        const MANY: u32 = if cfg!(all(test, errgroup_loom)) {
            0
        } else {
            64
        };
        let members = self.live(crowd.lock_contended()).ok()?;
        if members.collisions > MANY {
            crowd.shards.get_or_init(Shards::new);
        }
        self.register_in(members, waker)
    }

    fn register_in_shard(&self, shards: &Shards, waker: Waker) -> Option<Place> {
        let (shard, number) = shards.own();
        let mut waiters = shard.0.lock();
        // Under the lock (invariant 4).
        if self.has_ended() {
            drop(waiters);
            return None;
        }
        let key = waiters.insert_with(|| Waiter::Waker(waker));
        Some(Place { key, shard: number })
    }

    /// Takes a waiter out again; `None` if the end was first.
    pub(crate) fn deregister(&self, key: u32) -> Option<Waiter> {
        self.deregister_waker(Place { key, shard: 0 })
    }

    /// As `deregister`, for a waker.
    #[inline]
    pub(super) fn deregister_waker(&self, place: Place) -> Option<Waiter> {
        match place.shard {
            0 => self.listeners.crowd.get()?.lock().waiters.remove(place.key),
            number => self.listeners.shard(number)?.0.lock().remove(place.key),
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
        match (place.shard, self.listeners.crowd.get()) {
            (0, Some(crowd)) => replace(&mut crowd.members.lock().waiters),
            (number, _) => match self.listeners.shard(number) {
                Some(shard) => replace(&mut shard.0.lock()),
                None => false,
            },
        }
    }

    /// Makes the node keep itself until it ends.
    pub(crate) fn keep(self: &Arc<Self>) {
        // Refused by an ended node: then there is nothing to keep it for.
        let _ = self.add(Waiter::Kept {
            _node: self.clone(),
        });
    }
}

#[cfg(test)]
impl Node {
    /// Registers as one who has found another thread here.
    #[cfg(errgroup_loom)]
    pub(super) fn meet(&self) -> Option<Place> {
        self.register_contended(self.listeners.crowd(), Waker::noop().clone())
    }

    /// As if threads had met here again and again.
    pub(super) fn make_shards(&self) {
        self.listeners.crowd().shards.get_or_init(Shards::new);
    }
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests;
