//! `WaitGroup`: waiting for a number of things to be done, without stopping them.
//!
//! Invariants:
//!
//! 1. `count` is the number of tokens. It falls to zero only under the lock of `waiters`.
//! 2. A waiter registers only while `count` is above zero, under that lock, and remembers the `round`.
//! 3. Each fall to zero ends the round: it takes all waiters out and wakes them once the lock is released.
//!
//! So a waiter is woken exactly when the count has been zero since it registered, although tokens may have come again
//! since: the group can be used for the next phase at once.
//!
//! Why not `fetch_sub` first and lock when it says one? Between the two a token and a waiter of the next round could
//! come, and that waiter would be woken by the zero of the round before.

#[cfg(all(test, errgroup_loom))]
mod loom_models;

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use crate::ordered_slab::InlineSlab;
use crate::panic::contain;
use crate::sync::{AtomicUsize, Mutex, Ordering};

/// Waits for a number of things to be done, without stopping them.
///
/// Each thing holds a [`WaitGroupToken`]; [`wait`](WaitGroup::wait) returns when the last token is dropped. There may be any
/// number of waiters, and the group can be used again and again.
///
/// # Comparison to Go's `sync.WaitGroup` and tokio-util's `TaskTracker`
///
/// Go's has a counter that can be misused: below zero it panics, and an `Add` that runs beside a `Wait` is a race.
/// Tokens cannot be dropped twice. `TaskTracker` must be closed before `wait` can return; this type is done whenever no
/// token is out.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use errgroup::WaitGroup;
///
/// let wg = WaitGroup::new();
/// for shard in 0..3 {
///     let token = wg.token();
///     tokio::spawn(async move {
///         println!("flushed {shard}");
///         drop(token);
///     });
/// }
/// wg.wait().await;
/// # }
/// ```
#[derive(Clone, Default)]
pub struct WaitGroup(Arc<State>);

/// Stands for one thing that a [`WaitGroup`] waits for: drop it when that is done.
///
/// A clone stands for one more.
#[must_use = "dropped at once, it makes nobody wait"]
pub struct WaitGroupToken(Arc<State>);

#[derive(Default)]
struct State {
    count: AtomicUsize,
    waiters: Mutex<Waiters>,
}

#[derive(Default)]
struct Waiters {
    wakers: InlineSlab<Waker>,
    round: u64,
}

/// One waiter's place: its key, and the round in which it registered.
#[derive(Default)]
struct Waiting(Option<(u32, u64)>);

impl WaitGroup {
    /// Creates a group that waits for nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one thing to wait for.
    pub fn token(&self) -> WaitGroupToken {
        WaitGroupToken::new(&self.0)
    }

    /// Returns how many tokens are out.
    pub fn len(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    /// Returns `true` if no token is out.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until no token is out. Returns at once if there is none.
    ///
    /// What was done before a token was dropped is visible after the wait that it ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future unregisters it and loses nothing.
    pub async fn wait(&self) {
        struct Guard<'a>(&'a WaitGroup, Waiting);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                self.1.release(self.0);
            }
        }
        let mut guard = Guard(self, Waiting::default());
        poll_fn(|cx| guard.1.poll(self, cx)).await;
    }
}

impl Waiting {
    fn poll(&mut self, group: &WaitGroup, cx: &mut TaskContext<'_>) -> Poll<()> {
        let is_zero = match self.0 {
            None => group.is_empty() || !self.register(&group.0, cx.waker()),
            Some((key, round)) => !group.0.refresh(key, round, cx.waker()),
        };
        if is_zero {
            self.0 = None;
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Returns `false` if there is nothing to wait for. The other end of the race is `State::done`.
    fn register(&mut self, state: &State, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut waiters = state.waiters.lock();
        // Acquire: pairs with the release of every token's drop.
        if state.count.load(Ordering::Acquire) == 0 {
            drop(waiters);
            drop(waker);
            return false;
        }
        let round = waiters.round;
        self.0 = Some((waiters.wakers.insert(waker), round));
        true
    }

    fn release(&mut self, group: &WaitGroup) {
        let Some((key, round)) = self.0.take() else {
            return;
        };
        let mut waiters = group.0.waiters.lock();
        let waker = match waiters.round == round {
            true => waiters.wakers.remove(key),
            false => None,
        };
        drop(waiters);
        drop(waker);
    }
}

impl State {
    /// Makes sure that a waiter of this round wakes the given task; `false` if the round is over.
    fn refresh(&self, key: u32, round: u64, waker: &Waker) -> bool {
        {
            let mut waiters = self.waiters.lock();
            if waiters.round != round {
                return false;
            }
            if waiters
                .wakers
                .get_mut(key)
                .is_none_or(|old| old.will_wake(waker))
            {
                return true;
            }
        }
        let mut replaced = waker.clone();
        let mut waiters = self.waiters.lock();
        let is_current = waiters.round == round;
        if is_current {
            if let Some(old) = waiters.wakers.get_mut(key) {
                std::mem::swap(old, &mut replaced);
            }
        }
        drop(waiters);
        drop(replaced);
        is_current
    }

    fn add(&self) {
        // Relaxed: only a fall is waited for.
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn done(&self) {
        let mut count = self.count.load(Ordering::Relaxed);
        while count > 1 {
            // Release: pairs with the Acquire of whoever brings the count to zero, or finds it there.
            match self.count.compare_exchange_weak(
                count,
                count - 1,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => count = now,
            }
        }
        self.end_round();
    }

    fn end_round(&self) {
        let mut waiters = self.waiters.lock();
        // AcqRel: everything done under the tokens dropped before happens before what the waiters do next.
        if self.count.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        waiters.round += 1;
        let wakers = std::mem::take(&mut waiters.wakers);
        drop(waiters);
        for waker in wakers {
            contain(|| waker.wake());
        }
    }
}

impl WaitGroupToken {
    fn new(state: &Arc<State>) -> Self {
        state.add();
        Self(state.clone())
    }
}

impl Clone for WaitGroupToken {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Drop for WaitGroupToken {
    fn drop(&mut self) {
        self.0.done();
    }
}

impl fmt::Debug for WaitGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitGroup")
            .field("tokens", &self.len())
            .finish()
    }
}

impl fmt::Debug for WaitGroupToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitGroupToken").finish_non_exhaustive()
    }
}
