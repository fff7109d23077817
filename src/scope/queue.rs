//! `Queue`: tasks on their way into a scope, from its body, its tasks, or whoever was given a handle: another thread.
//!
//! Owned by the scope and its handles.
//!
//! Invariants:
//!
//! 1. A scope that rests has left its waker here, and nothing is queued: `rest` looks for the one and leaves the other under one
//!    lock, and `push` takes the waker under the same lock.
//! 2. While the scope is polled nobody wakes it: it looks here before it rests. Who sees the flag too late wakes it for nothing.
//! 3. Nothing is taken into a closed queue.
//!
//! The lock is a leaf. Wakers and tasks are foreign, and are not touched under it.

use std::task::Waker;

use crate::panic::contain;
use crate::sync::{AtomicBool, Mutex, Ordering};

/// Room for so many is kept between two bursts.
pub(super) const KEPT: usize = 256;

pub(super) struct Queue<C> {
    /// Set without the lock, and cleared under it.
    is_polled: AtomicBool,
    state: Mutex<State<C>>,
}

struct State<C> {
    tasks: Vec<C>,
    /// The scope's.
    waker: Option<Waker>,
    is_closed: bool,
}

impl<C> Queue<C> {
    pub(super) fn new() -> Self {
        Self {
            is_polled: AtomicBool::new(false),
            state: Mutex::new(State {
                tasks: Vec::new(),
                waker: None,
                is_closed: false,
            }),
        }
    }

    /// Queues a task, or gives it back if the scope is over.
    pub(super) fn push(&self, task: C) -> Result<(), C> {
        let mut state = self.state.lock();
        if state.is_closed {
            drop(state);
            return Err(task);
        }
        state.tasks.push(task);
        // Relaxed: cleared under the lock, so that who reads that it is set comes before `rest` has looked.
        let waker = match self.is_polled.load(Ordering::Relaxed) {
            true => None,
            false => state.waker.take(),
        };
        drop(state);
        if let Some(waker) = waker {
            contain(|| waker.wake());
        }
        Ok(())
    }

    /// The scope is polled.
    pub(super) fn begin(&self) {
        self.is_polled.store(true, Ordering::Relaxed);
    }

    /// Moves what is queued into `tasks`, which is empty.
    pub(super) fn take(&self, tasks: &mut Vec<C>) {
        std::mem::swap(&mut self.state.lock().tasks, tasks);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().tasks.is_empty()
    }

    /// The scope rests, unless something is queued: then `false`.
    #[must_use]
    pub(super) fn rest(&self, waker: &Waker) -> bool {
        let mut kept = None;
        loop {
            let mut state = self.state.lock();
            if !state.tasks.is_empty() {
                return false;
            }
            let before = state.waker.as_ref();
            if before.is_some_and(|before| before.will_wake(waker)) {
                self.is_polled.store(false, Ordering::Relaxed);
                return true;
            }
            match kept.take() {
                Some(waker) => {
                    let before = state.waker.replace(waker);
                    self.is_polled.store(false, Ordering::Relaxed);
                    drop(state);
                    drop(before);
                    return true;
                }
                None => {
                    drop(state);
                    kept = Some(waker.clone());
                }
            }
        }
    }

    /// Takes nothing from now on, and hands out what came last.
    #[must_use]
    pub(super) fn close(&self) -> Vec<C> {
        let mut state = self.state.lock();
        state.is_closed = true;
        let waker = state.waker.take();
        let tasks = std::mem::take(&mut state.tasks);
        drop(state);
        contain(|| drop(waker));
        tasks
    }
}
