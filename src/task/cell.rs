//! `ResultCell`: where a task that is in no runtime's hands leaves its result for its handle, and its handle its wish that it
//! be aborted.
//!
//! Owned by the task and by its handle. Whoever only aborts, an `AbortHandle`, has the [`Switch`], which is made for it when
//! first needed: it knows nothing of the value, which may borrow from who knows where.
//!
//! Invariants:
//!
//! 1. `phase` goes one way: `Live`, `Done`, `Taken`; or from `Live` to `Taken` if there is no handle any more.
//! 2. The task's own waker lies in the cell as long as there is no switch, then in the switch; neither has it once the task is
//!    over.
//! 3. Whoever sets the switch takes the waker that is there, under its lock; the task, which leaves its waker under the same
//!    lock, learns that it has been set. So an abort is seen by the task before it waits, or wakes it.
//!
//! Lock order: none. No thread holds both locks, and no foreign code runs under either: wakers and values are cloned, woken and
//! dropped outside.

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use super::Abort;
use crate::error::ContextError;
use crate::panic::{contain, discard};
use crate::sync::{Mutex, OnceLock};

pub(crate) struct ResultCell<T> {
    /// Made under the lock of `state`.
    switch: OnceLock<Arc<Switch>>,
    state: Mutex<State<T>>,
}

struct State<T> {
    phase: Phase<T>,
    is_detached: bool,
    /// The handle's.
    waker: Option<Waker>,
    /// The task's (invariant 2).
    task: Option<Waker>,
}

enum Phase<T> {
    Live,
    Done(Result<T, ContextError>),
    Taken,
}

/// Aborts one task.
struct Switch {
    state: Mutex<SwitchState>,
}

struct SwitchState {
    is_set: bool,
    is_over: bool,
    task: Option<Waker>,
}

impl<T> ResultCell<T> {
    pub(crate) fn new() -> Self {
        Self {
            switch: OnceLock::new(),
            state: Mutex::new(State {
                phase: Phase::Live,
                is_detached: false,
                waker: None,
                task: None,
            }),
        }
    }

    // What the task does.

    /// Whether nobody will ask for the result, or abort the task: its handle has gone, and no `AbortHandle` was made of it.
    #[inline]
    pub(crate) fn is_abandoned(cell: &mut Arc<Self>) -> bool {
        Arc::get_mut(cell).is_some_and(|cell| cell.switch.get().is_none())
    }

    #[inline]
    pub(crate) fn is_aborted(&self) -> bool {
        self.switch.get().is_some_and(|switch| switch.is_set())
    }

    /// Leaves the task's waker for an abort; `false` if one has come.
    pub(crate) fn may_wait(&self, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut state = self.state.lock();
        match self.switch.get() {
            // There is none in its place: a task leaves it once.
            None => {
                state.task = Some(waker);
                true
            }
            Some(switch) => {
                drop(state);
                switch.leave_waker(waker)
            }
        }
    }

    /// The task is over. Its result is left to the handle, or dropped if there is none.
    pub(crate) fn finish(&self, result: Result<T, ContextError>) {
        let mut state = self.state.lock();
        let (waker, task) = (state.waker.take(), state.task.take());
        let unused = match state.is_detached {
            true => {
                state.phase = Phase::Taken;
                Some(result)
            }
            false => {
                state.phase = Phase::Done(result);
                None
            }
        };
        drop(state);
        // One that is made after this is over from the beginning.
        if let Some(switch) = self.switch.get() {
            switch.finish();
        }
        if unused.is_some() || task.is_some() {
            discard((unused, task));
        }
        if let Some(waker) = waker {
            contain(|| waker.wake());
        }
    }

    // What the handle does.

    pub(crate) fn poll(&self, cx: &TaskContext<'_>) -> Poll<Result<T, ContextError>> {
        let mut kept = None;
        loop {
            let mut state = self.state.lock();
            match std::mem::replace(&mut state.phase, Phase::Taken) {
                Phase::Done(result) => return Poll::Ready(result),
                Phase::Live => state.phase = Phase::Live,
                Phase::Taken => {
                    drop(state);
                    panic!("errgroup: Task polled after it had yielded its output");
                }
            }
            let waker = state.waker.as_ref();
            if waker.is_some_and(|waker| waker.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            match kept.take() {
                Some(waker) => {
                    let before = state.waker.replace(waker);
                    drop(state);
                    drop(before);
                    return Poll::Pending;
                }
                None => {
                    drop(state);
                    kept = Some(cx.waker().clone());
                }
            }
        }
    }

    /// Nobody will fetch the value.
    pub(crate) fn detach(&self) {
        let mut state = self.state.lock();
        state.is_detached = true;
        let waker = state.waker.take();
        let result = match state.phase {
            Phase::Done(_) => Some(std::mem::replace(&mut state.phase, Phase::Taken)),
            Phase::Live | Phase::Taken => None,
        };
        drop(state);
        if waker.is_some() || result.is_some() {
            discard((waker, result));
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        !matches!(self.state.lock().phase, Phase::Live)
    }

    pub(crate) fn abort(&self) {
        self.switch().abort();
    }

    pub(crate) fn abort_switch(&self) -> Arc<dyn Abort> {
        self.switch()
    }

    fn switch(&self) -> Arc<Switch> {
        let mut state = self.state.lock();
        if self.switch.get().is_none() {
            let switch = Switch::new(!matches!(state.phase, Phase::Live), state.task.take());
            let _ = self.switch.set(Arc::new(switch));
        }
        drop(state);
        let switch = self.switch.get();
        switch.expect("errgroup: it was made above").clone()
    }
}

impl Switch {
    fn new(is_over: bool, task: Option<Waker>) -> Self {
        Self {
            state: Mutex::new(SwitchState {
                is_set: false,
                is_over,
                task,
            }),
        }
    }

    fn is_set(&self) -> bool {
        self.state.lock().is_set
    }

    /// `false` if it has been set.
    fn leave_waker(&self, waker: Waker) -> bool {
        let mut state = self.state.lock();
        if state.is_set {
            drop(state);
            return false;
        }
        state.task = Some(waker);
        true
    }

    fn finish(&self) {
        let mut state = self.state.lock();
        state.is_over = true;
        let task = state.task.take();
        drop(state);
        drop(task);
    }
}

impl Abort for Switch {
    fn abort(&self) {
        let mut state = self.state.lock();
        state.is_set = true;
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            contain(|| task.wake());
        }
    }

    fn is_finished(&self) -> bool {
        self.state.lock().is_over
    }
}
