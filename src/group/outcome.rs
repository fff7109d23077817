//! `Outcome`: the election of the first error or panic, and what `wait` makes of it. `Failure`: one of them.
//!
//! Owned by the group's `Core`.
//!
//! Invariants:
//!
//! 1. The first failure is elected before the context is ended for it: whoever sees the context ended by a task's
//!    failure comes later, so a sibling that fails because of the end cannot mask it. What was elected is stored before
//!    its task is removed from the registry, so before `wait` can ask.
//! 2. A panic displaces an error, never the other way round, and the first of its kind stays.
//! 3. Whatever is not returned is counted in `suppressed`.
//! 4. An error that was not elected has no text until its handle asks for one. Until then it is kept by the task's output,
//!    and here, so that it is gone when the outcome has been handed out.
//!
//! The lock is a leaf, and errors and payloads, whose destructors are foreign, are dropped outside it.

use std::any::Any;
use std::fmt;
use std::panic::Location;

use super::registry::Name;
use crate::error::ContextError;
use crate::panic::{Payload, discard, message};
use crate::sync::Mutex;
use crate::task::TaskId;

pub(crate) struct Outcome<E> {
    state: Mutex<State<E>>,
}

struct State<E> {
    first: Option<Box<Failure<E>>>,
    /// What the first failure is, from its election on.
    elected: Option<FailureKind>,
    /// The group ended its context, not an ancestor.
    ended_by: Option<EndedBy>,
    /// The outcome has been handed out.
    is_settled: bool,
    suppressed: usize,
    late: Option<Box<LateErrors>>,
}

/// Errors whose handles may still ask for their text.
struct LateErrors {
    errors: Vec<ContextError>,
    /// Those that nobody can ask for any more are looked for when there are so many.
    tidy_at: usize,
}

/// A task's error or panic: what [`GroupBuilder::on_failure`](crate::GroupBuilder::on_failure) is told.
///
/// `Display` is a line that names the task, what it came to, and where it was spawned.
pub struct Failure<E> {
    pub(super) name: Option<Name>,
    pub(super) id: TaskId,
    pub(super) location: &'static Location<'static>,
    pub(super) what: What<E>,
}

pub(super) enum What<E> {
    Error(E),
    Panic(Payload),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    Error,
    Panic,
}

/// How a group came to end its own context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndedBy {
    /// On purpose: it was cancelled, stopped or dropped.
    Owner,
    /// A task's failure.
    Failure,
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
    Failed(Box<Failure<E>>),
    /// None failed; how the context ended, `None` for an ancestor's end.
    Unfailed(Option<EndedBy>),
    /// Told before.
    Again(Option<EndedBy>),
}

impl<E> Outcome<E> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                first: None,
                elected: None,
                ended_by: None,
                is_settled: false,
                suppressed: 0,
                late: None,
            }),
        }
    }

    /// Decides whether a failure is the group's; the caller stores it then. Otherwise it is counted, and the caller has to
    /// see to it.
    pub(crate) fn elect(&self, kind: FailureKind) -> Election {
        let mut state = self.state.lock();
        let outranks = match state.elected {
            _ if state.is_settled => false,
            None => true,
            Some(FailureKind::Error) => kind == FailureKind::Panic,
            Some(FailureKind::Panic) => false,
        };
        if !outranks {
            state.suppressed += 1;
            return Election::Later;
        }
        if state.elected.replace(kind).is_some() {
            state.suppressed += 1;
        }
        Election::First
    }

    /// Counts a failure that is its task's alone.
    pub(crate) fn suppress(&self) -> Election {
        self.state.lock().suppressed += 1;
        Election::Later
    }

    /// Keeps the failure that was elected.
    pub(crate) fn store(&self, failure: Failure<E>) {
        let failure = Box::new(failure);
        let mut state = self.state.lock();
        // A panic was elected meanwhile.
        let is_outranked = state.elected != Some(failure.kind());
        let unused = match is_outranked || state.is_settled {
            true => Some(failure),
            false => state.first.replace(failure),
        };
        drop(state);
        discard(unused);
    }

    /// Keeps an error that its handle may ask for (invariant 4).
    pub(crate) fn keep_late(&self, error: ContextError) {
        let mut state = self.state.lock();
        let late = state.late.get_or_insert_with(|| {
            Box::new(LateErrors {
                errors: Vec::new(),
                tidy_at: 16,
            })
        });
        let forgotten = late.push(error);
        drop(state);
        discard(forgotten);
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
            return Settled::Again(state.ended_by);
        }
        let settled = match state.first.take() {
            Some(failure) => Settled::Failed(failure),
            None => Settled::Unfailed(state.ended_by),
        };
        let late = state.late.take();
        drop(state);
        if let Some(late) = late {
            for error in late.errors {
                // Nobody else can ask for it: then it is dropped without having been told.
                if !error.is_unshared() {
                    // `false`: its handle is at it.
                    let _ = error.tell();
                }
            }
        }
        settled
    }
}

impl<E> Drop for Outcome<E> {
    /// The last to know an error that nobody asked for may be a task of the group.
    fn drop(&mut self) {
        let state = self.state.get_mut();
        discard(state.first.take());
        discard(state.late.take());
    }
}

impl LateErrors {
    /// Returns those that nobody can ask for any more.
    fn push(&mut self, error: ContextError) -> Vec<ContextError> {
        let mut forgotten = Vec::new();
        if self.errors.len() >= self.tidy_at {
            let (asked, unasked) = self
                .errors
                .drain(..)
                .partition(|error| !error.is_unshared());
            self.errors = asked;
            forgotten = unasked;
            self.tidy_at = 2 * self.errors.len() + 16;
        }
        self.errors.push(error);
        forgotten
    }
}

impl<E> Failure<E> {
    /// Returns the task's name, if it was given one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|name| name.as_ref().as_ref())
    }

    /// Returns the task's id.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Returns where the task was spawned.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// Returns the task's error; `None` if it panicked.
    pub fn error(&self) -> Option<&E> {
        match &self.what {
            What::Error(error) => Some(error),
            What::Panic(_) => None,
        }
    }

    /// Returns what the panic carried; `None` if the task returned an error.
    pub fn panic(&self) -> Option<&(dyn Any + Send + 'static)> {
        match &self.what {
            What::Error(_) => None,
            What::Panic(payload) => Some(&**payload),
        }
    }

    pub(crate) fn kind(&self) -> FailureKind {
        match &self.what {
            What::Error(_) => FailureKind::Error,
            What::Panic(_) => FailureKind::Panic,
        }
    }

    /// Resumes a panic.
    pub(crate) fn into_result(self) -> Result<(), E> {
        match self.what {
            What::Error(error) => Err(error),
            What::Panic(payload) => std::panic::resume_unwind(payload),
        }
    }
}

impl<E: fmt::Display> fmt::Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "task {name:?} ")?,
            None => write!(f, "task {} ", self.id)?,
        }
        match &self.what {
            What::Error(error) => write!(f, "failed: {error}")?,
            What::Panic(payload) => write!(f, "panicked: {}", message(payload))?,
        }
        write!(f, " (spawned at {})", self.location)
    }
}

impl<E: fmt::Debug> fmt::Debug for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Failure");
        debug.field("name", &self.name()).field("id", &self.id);
        match &self.what {
            What::Error(error) => debug.field("error", error),
            What::Panic(payload) => debug.field("panic", &message(payload)),
        };
        debug.finish_non_exhaustive()
    }
}
