//! `Queue`: tasks on their way into a scope.
//!
//! Owned by the scope and its handles. A task may be spawned while the scope is being polled, by its body or its tasks, or by
//! anybody else who was given a handle: another thread.
//!
//! Invariants:
//!
//! 1. A scope that waits, and is not woken, has left its waker here and nothing is queued: it looks for the one and leaves the
//!    other under one lock (`rest`), and who queues something takes the waker under the same lock (`push`).
//! 2. Nothing is taken into a closed queue.
//!
//! The lock is a leaf, and wakers and tasks, which are foreign, are not touched under it.

use std::task::Waker;

use crate::panic::contain;
use crate::sync::Mutex;

/// Room for so many is kept between two bursts.
const KEPT: usize = 64;

pub(super) struct Queue<C> {
    state: Mutex<State<C>>,
}

struct State<C> {
    tasks: Vec<C>,
    /// The scope's.
    waker: Option<Waker>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Resting,
    /// The scope is being polled, and looks here before it rests.
    Polled,
    Closed,
}

impl<C> Queue<C> {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                tasks: Vec::new(),
                waker: None,
                phase: Phase::Resting,
            }),
        }
    }

    /// Queues a task, or gives it back if the scope is over.
    pub(super) fn push(&self, task: C) -> Result<(), C> {
        let mut state = self.state.lock();
        if state.phase == Phase::Closed {
            drop(state);
            return Err(task);
        }
        state.tasks.push(task);
        let waker = match state.phase {
            Phase::Resting => state.waker.take(),
            Phase::Polled | Phase::Closed => None,
        };
        drop(state);
        if let Some(waker) = waker {
            contain(|| waker.wake());
        }
        Ok(())
    }

    /// The scope is being polled.
    pub(super) fn begin(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Resting {
            state.phase = Phase::Polled;
        }
    }

    /// Moves what is queued into `tasks`, which is empty.
    pub(super) fn take(&self, tasks: &mut Vec<C>) {
        if tasks.capacity() > KEPT {
            *tasks = Vec::new();
        }
        std::mem::swap(&mut self.state.lock().tasks, tasks);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().tasks.is_empty()
    }

    /// The scope has nothing to do; `false` if something is queued.
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
                state.phase = Phase::Resting;
                return true;
            }
            match kept.take() {
                Some(waker) => {
                    let before = state.waker.replace(waker);
                    state.phase = Phase::Resting;
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
        state.phase = Phase::Closed;
        let waker = state.waker.take();
        let tasks = std::mem::take(&mut state.tasks);
        drop(state);
        contain(|| drop(waker));
        tasks
    }
}
