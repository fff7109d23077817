//! `FailureLog`: the election of the first error or panic, and the others that are kept. `Failure`: one of them.
//!
//! Owned by the group's `Core`.
//!
//! Invariants:
//!
//! 1. The first failure is elected before the context is ended for it: whoever sees the context ended by a task's
//!    failure comes later, so a sibling that fails because of the end cannot mask it. What was elected is stored before
//!    its task is removed from the registry, so before `wait` can ask.
//! 2. A panic displaces an error, never the other way round, and the first of its kind stays.
//! 3. Whatever is not returned is counted in `suppressed`. As many of these are kept as the group was told to; in an
//!    isolated group, where none is returned, one more.
//! 4. An error that was not elected has no text until its handle asks for one. Until then it is kept by the task's output,
//!    and here, so that it is gone when the outcome has been handed out.
//!
//! The lock is a leaf, and errors and payloads, whose destructors are foreign, are dropped outside it.

use std::any::Any;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

use super::entry::Name;
use crate::error::ContextError;
use crate::failures::Failed;
use crate::panic::{Payload, discard, message};
use crate::sync::Mutex;
use crate::task::TaskId;

pub(crate) struct FailureLog<E> {
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
    /// How many more are to be kept.
    room: u32,
    suppressed: usize,
    rest: Option<Box<Rest<E>>>,
}

/// What most groups have not: failures beside the first.
struct Rest<E> {
    kept: Vec<Failure<E>>,
    /// Errors whose handles may still ask for their text.
    late: Vec<ContextError>,
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
    pub(super) elapsed: Duration,
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

/// What becomes of a failure. Whoever asked has to see to it.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Election {
    /// It is the group's, and is stored.
    First,
    /// It is stored beside the first.
    Kept,
    /// It is counted.
    Later,
}

/// What a group's failures came to, once all its tasks have ended.
#[must_use]
pub(crate) struct Settled<E> {
    pub(crate) verdict: Verdict<E>,
    rest: Option<Box<Rest<E>>>,
}

pub(crate) enum Verdict<E> {
    Failed(Box<Failure<E>>),
    /// None failed; how the context ended, `None` for an ancestor's end.
    Unfailed(Option<EndedBy>),
    /// Told before.
    Again(Option<EndedBy>),
}

impl<E> FailureLog<E> {
    /// Keeps so many beside the first.
    pub(crate) fn new(keep: u32) -> Self {
        Self {
            state: Mutex::new(State {
                first: None,
                elected: None,
                ended_by: None,
                is_settled: false,
                room: keep,
                suppressed: 0,
                rest: None,
            }),
        }
    }

    /// Decides what becomes of a failure.
    pub(crate) fn elect(&self, kind: FailureKind) -> Election {
        let mut state = self.state.lock();
        let outranks = match state.elected {
            _ if state.is_settled => false,
            None => true,
            Some(FailureKind::Error) => kind == FailureKind::Panic,
            Some(FailureKind::Panic) => false,
        };
        if !outranks {
            return state.suppress();
        }
        if state.elected.replace(kind).is_some() {
            state.suppressed += 1;
        }
        Election::First
    }

    /// As `elect`, of one that is its task's alone.
    pub(crate) fn suppress(&self) -> Election {
        self.state.lock().suppress()
    }

    /// Stores the failure that was elected.
    pub(crate) fn store(&self, failure: Failure<E>) {
        let failure = Box::new(failure);
        let mut state = self.state.lock();
        // A panic was elected meanwhile.
        let is_outranked = state.elected != Some(failure.kind());
        let displaced = match is_outranked || state.is_settled {
            true => Some(failure),
            false => state.first.replace(failure),
        };
        let unused = displaced.and_then(|failure| match state.take_room() {
            true => state.keep(*failure),
            false => Some(*failure),
        });
        drop(state);
        discard(unused);
    }

    /// Stores a failure beside the first.
    pub(crate) fn keep(&self, failure: Failure<E>) {
        let unused = self.state.lock().keep(failure);
        discard(unused);
    }

    /// Keeps an error that its handle may ask for (invariant 4).
    pub(crate) fn keep_late(&self, error: ContextError) {
        let forgotten = self.state.lock().rest().push_late(error);
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
        let was_settled = std::mem::replace(&mut state.is_settled, true);
        let verdict = match state.first.take() {
            Some(failure) => Verdict::Failed(failure),
            None if was_settled => Verdict::Again(state.ended_by),
            None => Verdict::Unfailed(state.ended_by),
        };
        let rest = state.rest.take();
        drop(state);
        Settled { verdict, rest }
    }
}

impl<E> Settled<E> {
    /// Separates the verdict from the failures that were kept beside it.
    pub(crate) fn into_parts(mut self) -> (Verdict<E>, Vec<Failure<E>>) {
        let kept = self.rest.take().map(|rest| rest.tell());
        (self.verdict, kept.unwrap_or_default())
    }

    /// As `into_parts`, without those.
    pub(crate) fn into_verdict(mut self) -> Verdict<E> {
        if let Some(rest) = self.rest.take() {
            rest.tell().into_iter().for_each(discard);
        }
        self.verdict
    }
}

impl<E> Drop for FailureLog<E> {
    /// The last to know an error that nobody asked for may be a task of the group.
    fn drop(&mut self) {
        let state = self.state.get_mut();
        discard(state.first.take());
        if let Some(rest) = state.rest.take() {
            rest.kept.into_iter().for_each(discard);
            discard(rest.late);
        }
    }
}

impl<E> State<E> {
    fn suppress(&mut self) -> Election {
        self.suppressed += 1;
        match self.take_room() {
            true => Election::Kept,
            false => Election::Later,
        }
    }

    fn take_room(&mut self) -> bool {
        let has_room = self.room > 0 && !self.is_settled;
        self.room -= u32::from(has_room);
        has_room
    }

    /// Gives back one that comes too late.
    fn keep(&mut self, failure: Failure<E>) -> Option<Failure<E>> {
        if self.is_settled {
            return Some(failure);
        }
        self.rest().kept.push(failure);
        None
    }

    fn rest(&mut self) -> &mut Rest<E> {
        self.rest.get_or_insert_with(|| {
            Box::new(Rest {
                kept: Vec::new(),
                late: Vec::new(),
                tidy_at: 16,
            })
        })
    }
}

impl<E> Rest<E> {
    /// Has the late errors make their texts, as long as somebody can ask for them. Returns what was kept.
    #[cold]
    fn tell(self) -> Vec<Failure<E>> {
        for error in self.late {
            // Nobody else can ask for it: then it is dropped without having been told.
            if !error.is_unshared() {
                // `false`: its handle is at it.
                let _ = error.tell();
            }
        }
        self.kept
    }

    /// Returns those that nobody can ask for any more.
    fn push_late(&mut self, error: ContextError) -> Vec<ContextError> {
        let mut forgotten = Vec::new();
        if self.late.len() >= self.tidy_at {
            let (asked, unasked) = self.late.drain(..).partition(|error| !error.is_unshared());
            self.late = asked;
            forgotten = unasked;
            self.tidy_at = 2 * self.late.len() + 16;
        }
        self.late.push(error);
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

    /// Returns how long after the group's start it came.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
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

    /// `None` for a panic.
    pub(super) fn into_failed(self) -> Option<Failed<E>> {
        match self.what {
            What::Error(error) => Some(Failed::task(self.name, self.id, self.location, error)),
            What::Panic(payload) => {
                discard(payload);
                None
            }
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
