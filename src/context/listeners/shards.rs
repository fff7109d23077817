//! `Shards`: the wakers of a node at whose lock threads have met. Each thread has its place in one of them.
//!
//! Why not shards from the beginning? A kilobyte, where most contexts have one waiter. Why not for children, too? They would
//! need a number each to be told in order, from a counter that all threads share.

use std::cell::Cell;
use std::sync::atomic::AtomicUsize as Counter;
use std::task::Waker;

use super::super::state::State;
use super::{Place, Waiter, Waiters};
use crate::sync::{Mutex, MutexGuard, Ordering};

/// They are numbered from 1 on.
pub(super) struct Shards(Box<[Shard]>);

/// On cache lines of its own, with those that the processor fetches along.
#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<Waiters>);

impl Shards {
    /// Twice as many as threads that run at once: few of them share one.
    pub(super) fn new() -> Box<Self> {
        let count = (2 * processors()).max(8);
        Box::new(Self((0..count).map(|_| Shard::default()).collect()))
    }

    /// Registers a waker with the shard of this thread; drops it if the node has ended.
    pub(super) fn insert(&self, state: &State, waker: Waker) -> Option<Place> {
        let index = thread_number() % self.0.len();
        let mut waiters = self.0[index].0.lock();
        // Under the lock: the end sets this before it empties the shards.
        if state.has_ended() {
            drop(waiters);
            return None;
        }
        let key = waiters.insert_with(|| Waiter::Waker(waker));
        let shard = index as u32 + 1;
        Some(Place { key, shard })
    }

    pub(super) fn remove(&self, place: Place) -> Option<Waiter> {
        self.lock(place.shard).remove(place.key)
    }

    #[inline]
    pub(super) fn lock(&self, number: u32) -> MutexGuard<'_, Waiters> {
        self.0[number as usize - 1].0.lock()
    }

    /// Takes the waiters out of each that has any.
    pub(super) fn take(&self) -> Vec<Waiters> {
        let all = self.0.iter();
        let all = all.map(|shard| std::mem::take(&mut *shard.0.lock()));
        all.filter(|waiters| !waiters.is_empty()).collect()
    }

    #[cfg(all(test, not(errgroup_loom)))]
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|shard| shard.0.lock().len()).sum()
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
