//! `Outcome`: the election of the first error or panic, and what `wait` makes of it.
//!
//! Owned by the group's `Core`.
//!
//! Invariants:
//!
//! 1. The first failure is recorded before the context is ended for it: whoever sees the context ended by a task's
//!    failure finds that failure here, so a sibling that fails because of the end can only come later.
//! 2. A panic displaces an error, never the other way round, and the first of its kind stays.
//! 3. Whatever is not returned is counted in `suppressed`.
//!
//! The lock is a leaf, and errors and payloads, whose destructors are foreign, are dropped outside it.

use crate::panic::{Payload, discard};
use crate::sync::{AtomicU8, Mutex, Ordering};

pub(crate) struct Outcome<E> {
    state: Mutex<State<E>>,
    /// [`CUT`] and [`DROPPED`]. Relaxed throughout: `settle` comes when the tasks have ended, and that orders it.
    fates: AtomicU8,
}

/// In `fates`: a task was cut short, or not started, because the context had ended.
const CUT: u8 = 1;

/// In `fates`: a task was dropped by tokio: aborted through its handle, or gone with its runtime.
const DROPPED: u8 = 2;

struct State<E> {
    failure: Option<Failure<E>>,
    suppressed: usize,
    /// The group ended its context, not an ancestor.
    ended_by: Option<EndedBy>,
    /// The outcome has been handed out.
    is_settled: bool,
}

pub(crate) enum Failure<E> {
    Error(E),
    Panic(Payload),
}

/// How a group came to end its own context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndedBy {
    /// On purpose, or for a failure.
    Stop,
    /// All its tasks had ended.
    Finish,
}

/// Whether a failure is the group's.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Election {
    First,
    Later,
}

/// What a group came to, once all its tasks have ended.
#[must_use]
pub(crate) enum Settled<E> {
    Failed(Failure<E>),
    /// An ancestor's end cut tasks short.
    Cut,
    /// Tasks were dropped by tokio: aborted, unless their runtime has gone.
    Dropped,
    /// All tasks completed, or were stopped by the group's owner.
    Complete,
    /// Told before.
    Again,
}

impl<E> Outcome<E> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                failure: None,
                suppressed: 0,
                ended_by: None,
                is_settled: false,
            }),
            fates: AtomicU8::new(0),
        }
    }

    pub(crate) fn record(&self, failure: Failure<E>) -> Election {
        let mut state = self.state.lock();
        let (election, displaced) = state.elect(failure);
        state.suppressed += usize::from(displaced.is_some());
        drop(state);
        discard(displaced);
        election
    }

    pub(crate) fn record_cut(&self) {
        self.record_fate(CUT);
    }

    pub(crate) fn record_dropped(&self) {
        self.record_fate(DROPPED);
    }

    /// Of many tasks that are cut short at once, only the first writes.
    fn record_fate(&self, fate: u8) {
        if !self.has_seen(fate) {
            self.fates.fetch_or(fate, Ordering::Relaxed);
        }
    }

    fn has_seen(&self, fate: u8) -> bool {
        self.fates.load(Ordering::Relaxed) & fate != 0
    }

    pub(crate) fn record_end(&self, by: EndedBy) {
        self.state.lock().ended_by = Some(by);
    }

    pub(crate) fn suppressed(&self) -> usize {
        self.state.lock().suppressed
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.state.lock().is_settled
    }

    /// Takes the outcome. Once.
    pub(crate) fn settle(&self) -> Settled<E> {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.is_settled, true) {
            return Settled::Again;
        }
        match state.failure.take() {
            Some(failure) => Settled::Failed(failure),
            None if self.has_seen(CUT) && state.ended_by.is_none() => Settled::Cut,
            None if self.has_seen(DROPPED) && state.ended_by != Some(EndedBy::Stop) => {
                Settled::Dropped
            }
            None => Settled::Complete,
        }
    }
}

impl<E> Drop for Outcome<E> {
    /// The last to know an error that nobody asked for may be a task of the group.
    fn drop(&mut self) {
        discard(self.state.get_mut().failure.take());
    }
}

impl<E> Failure<E> {
    /// Resumes a panic.
    pub(crate) fn into_result(self) -> Result<(), E> {
        match self {
            Failure::Error(error) => Err(error),
            Failure::Panic(payload) => std::panic::resume_unwind(payload),
        }
    }
}

impl<E> State<E> {
    fn elect(&mut self, failure: Failure<E>) -> (Election, Option<Failure<E>>) {
        let outranks = match (&self.failure, &failure) {
            _ if self.is_settled => false,
            (None, _) | (Some(Failure::Error(_)), Failure::Panic(_)) => true,
            (Some(_), _) => false,
        };
        if outranks {
            (Election::First, self.failure.replace(failure))
        } else {
            (Election::Later, Some(failure))
        }
    }
}
