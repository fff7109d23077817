//! What the waits for a group return, once all its tasks have ended.

use super::core::Core;
use super::failure::{EndedBy, Failure, Verdict};
use super::outcome::{Conclusion, Outcome};
use crate::error::{ContextError, GroupError, Reason};

impl<E: GroupError> Core<E> {
    /// What `wait` returns, once all tasks have ended. Resumes a panic.
    pub(crate) fn settle(&self) -> Result<(), E> {
        let verdict = self.failures.settle().into_verdict();
        self.conclude(verdict).into_result()
    }

    /// As `settle`, all there is to know.
    pub(crate) fn settle_outcome(&self) -> Outcome<E> {
        let (verdict, kept) = self.failures.settle().into_parts();
        self.outcome(self.conclude(verdict), kept)
    }

    fn outcome(&self, conclusion: Conclusion<E>, kept: Vec<Failure<E>>) -> Outcome<E> {
        Outcome {
            conclusion,
            kept,
            suppressed: self.failures.suppressed(),
            counts: self.registry.counts(),
        }
    }

    /// As `settle_outcome`, of an owner who has stopped the tasks: being cut short is no error.
    pub(crate) fn settle_stopped(&self) -> Outcome<E> {
        let (verdict, kept) = self.failures.settle().into_parts();
        let conclusion = match verdict {
            Verdict::Failed(failure) => Conclusion::Failed(failure),
            Verdict::Unfailed(_) | Verdict::Again(_) => Conclusion::Clean,
        };
        self.outcome(conclusion, kept)
    }

    /// That something was refused is told once: by this, or by the next if this one is clean.
    fn conclude(&self, verdict: Verdict<E>) -> Conclusion<E> {
        let lacks = self.registry.lacks();
        let conclusion = match verdict {
            Verdict::Failed(failure) => Conclusion::Failed(failure),
            Verdict::Unfailed(None) if lacks.was_cut => Conclusion::Ended(self.end_error()),
            Verdict::Unfailed(None | Some(EndedBy::Finish)) if lacks.was_lost => {
                Conclusion::Ended(lost_runtime())
            }
            Verdict::Again(None | Some(EndedBy::Failure | EndedBy::Finish))
                if lacks.has_refused =>
            {
                Conclusion::Ended(self.end_error())
            }
            Verdict::Unfailed(_) | Verdict::Again(_) => return Conclusion::Clean,
        };
        self.registry.forget_refused();
        conclusion
    }

    /// As `settle`, where the tasks tell whether all was done.
    pub(crate) fn settle_work(&self, is_complete: impl FnOnce() -> bool) -> Result<(), E> {
        match self.failures.settle().into_verdict() {
            Verdict::Failed(failure) => failure.into_result(),
            Verdict::Again(_) => Ok(()),
            Verdict::Unfailed(_) if is_complete() => Ok(()),
            Verdict::Unfailed(_) if self.registry.lacks().was_lost => Err(E::from(lost_runtime())),
            Verdict::Unfailed(_) => Err(E::from(self.end_error())),
        }
    }
}

fn lost_runtime() -> ContextError {
    ContextError::detailed(
        Reason::RuntimeGone,
        "before the tasks of the group had ended",
    )
}
