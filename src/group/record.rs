//! What becomes of a task's error or panic: unless it is [passed on](super::passed_on), it is elected, ends the context, is
//! told, and is stored.

use super::core::Core;
use super::failure::{Election, EndedBy, Failure, FailureKind, What};
use super::fate::Fate;
use crate::error::{ContextError, GroupError, Reason, text_of};
use crate::panic::{Payload, contain, discard, message};
use crate::task::Owned;

impl<E: GroupError> Core<E> {
    /// Records a task's error, unless it only passes on another's, and ends the context for it. Returns what the task's
    /// handle says, and the task's fate.
    pub(crate) fn failed(&self, error: E, who: impl FnOnce() -> Owned) -> (ContextError, Fate) {
        match self.passed_on(&error) {
            Some(why) => {
                discard(error);
                // In an isolated group, what is passed on of another's failure is no end.
                let is_end = self.context.err().is_some_and(|end| end.is(&why));
                let fate = if is_end {
                    Fate::CutShort
                } else {
                    Fate::PassedOn
                };
                (why, fate)
            }
            None => {
                let election = self.elect(FailureKind::Error);
                (self.failed_itself(error, who(), election), Fate::Failed)
            }
        }
    }

    /// As `failed`, for the body of `Group::run`: in an isolated group, too, its failure is the group's. Gives back an error
    /// that is no failure of its own although the context was live, and ends that.
    pub(crate) fn body_failed(&self, error: E, who: Owned) -> Option<E> {
        match self.passed_on(&error) {
            Some(_) if self.context.is_done() => {
                discard(error);
                self.registry.record(Fate::CutShort);
                None
            }
            Some(why) => {
                self.end(EndedBy::Failure, || why);
                Some(error)
            }
            None => {
                let election = self.failures.elect(FailureKind::Error);
                self.failed_itself(error, who, election);
                None
            }
        }
    }

    fn failed_itself(&self, error: E, who: Owned, election: Election) -> ContextError {
        let why = match election {
            Election::First => Some(self.end_by(Reason::TaskFailed, &who, text_of(&error))),
            Election::Kept => {
                let text = text_of(&error);
                Some(ContextError::of_task(
                    Reason::TaskFailed,
                    who.borrow(),
                    text,
                ))
            }
            Election::Later => None,
        };
        let failure = self.report(&who, What::Error(error));
        match (why, failure.what) {
            (Some(why), what) => {
                self.store(Failure { what, ..failure }, election);
                why
            }
            (None, What::Error(error)) => {
                let late = ContextError::late(who.borrow(), Box::new(error));
                self.failures.keep_late(late.clone());
                late
            }
            (None, What::Panic(_)) => unreachable!("errgroup: it is an error"),
        }
    }

    fn store(&self, failure: Failure<E>, election: Election) {
        match election {
            Election::First => self.failures.store(failure),
            Election::Kept => self.failures.keep(failure),
            Election::Later => discard(failure),
        }
    }

    /// As `failed`, for a panic of the task or of its destructors.
    pub(crate) fn panicked(&self, payload: Payload, who: Owned) -> ContextError {
        let election = self.elect(FailureKind::Panic);
        self.panicked_itself(payload, who, election)
    }

    pub(crate) fn body_panicked(&self, payload: Payload, who: Owned) {
        let election = self.failures.elect(FailureKind::Panic);
        self.panicked_itself(payload, who, election);
    }

    fn panicked_itself(&self, payload: Payload, who: Owned, election: Election) -> ContextError {
        let text = message(&payload).to_owned();
        let why = match election {
            Election::First => self.end_by(Reason::TaskPanicked, &who, text),
            Election::Kept | Election::Later => {
                ContextError::of_task(Reason::TaskPanicked, who.borrow(), text)
            }
        };
        let failure = self.report(&who, What::Panic(payload));
        self.store(failure, election);
        why
    }

    fn elect(&self, kind: FailureKind) -> Election {
        match self.is_isolated() {
            true => self.failures.suppress(),
            false => self.failures.elect(kind),
        }
    }

    /// Ends the context for a task's failure. Returns what the task's handle says: that end, if it was the first.
    fn end_by(&self, reason: Reason, who: &Owned, text: String) -> ContextError {
        if self.context.is_done() {
            return ContextError::of_task(reason, who.borrow(), text);
        }
        let end = ContextError::end_by_task(reason, who.borrow(), text);
        self.end(EndedBy::Failure, || end.clone());
        end
    }

    fn report(&self, who: &Owned, what: What<E>) -> Failure<E> {
        let failure = Failure {
            name: who.name.clone(),
            id: who.id,
            location: who.location,
            elapsed: self.registry.start.elapsed(),
            what,
        };
        #[cfg(feature = "tracing")]
        crate::trace::failed(&self.span, &failure);
        if let Some(on_failure) = self.on_failure() {
            contain(|| on_failure(&failure));
        }
        failure
    }

    /// What a refused spawn's handle says. What it was given has been dropped: `dropped` is how that went.
    #[cold]
    pub(crate) fn refused(&self, who: Owned, dropped: Result<(), Payload>) -> ContextError {
        match dropped {
            Ok(()) => {
                self.registry.record_refused(Fate::NeverStarted);
                self.end_error()
            }
            Err(payload) => {
                let why = self.panicked(payload, who);
                self.registry.record_refused(Fate::Panicked);
                why
            }
        }
    }
}
