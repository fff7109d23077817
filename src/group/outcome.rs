//! `Outcome`: all there is to know of a group whose tasks have ended.

use std::fmt;

use super::failure::Failure;
use super::fate::Counts;
use crate::error::{ContextError, GroupError};
use crate::failures::Failures;

/// What a [`Group`](crate::Group) came to: the value of [`Group::wait_outcome`](crate::Group::wait_outcome), and part of a [`Shutdown`](crate::Shutdown).
///
/// The counts are exact, and those of [`completed`](Outcome::completed), [`failed`](Outcome::failed),
/// [`panicked`](Outcome::panicked), [`cut_short`](Outcome::cut_short), [`aborted`](Outcome::aborted) and
/// [`never_started`](Outcome::never_started) tasks add up to the tasks that were spawned into the group, from its start on.
///
/// `Display` is one line of them, and of the first failure.
#[must_use = "it carries the group's failure: ask for its `into_result()`"]
pub struct Outcome<E> {
    pub(super) conclusion: Conclusion<E>,
    pub(super) kept: Vec<Failure<E>>,
    pub(super) suppressed: usize,
    pub(super) counts: Counts,
}

/// What `wait` makes of it.
pub(super) enum Conclusion<E> {
    Failed(Box<Failure<E>>),
    Ended(ContextError),
    Clean,
}

impl<E> Conclusion<E> {
    pub(super) fn into_result(self) -> Result<(), E>
    where
        E: GroupError,
    {
        match self {
            Conclusion::Failed(failure) => failure.into_result(),
            Conclusion::Ended(why) => Err(E::from(why)),
            Conclusion::Clean => Ok(()),
        }
    }
}

impl<E> Outcome<E> {
    /// Returns the first failure: the one that ended the context, or a panic that came after it.
    ///
    /// In an [isolated](crate::GroupBuilder::isolated) group, where no failure is the group's, it is the first that there
    /// was.
    pub fn failure(&self) -> Option<&Failure<E>> {
        self.group_failure().or_else(|| self.kept.first())
    }

    /// The failure that `into_result` returns.
    pub(super) fn group_failure(&self) -> Option<&Failure<E>> {
        match &self.conclusion {
            Conclusion::Failed(failure) => Some(failure),
            Conclusion::Ended(_) | Conclusion::Clean => None,
        }
    }

    /// Returns all failures that were kept, the first included: as many more as
    /// [`keep_failures`](crate::GroupBuilder::keep_failures) says.
    pub fn failures(&self) -> impl Iterator<Item = &Failure<E>> {
        self.group_failure().into_iter().chain(&self.kept)
    }

    /// Returns the end, if that is what [`into_result`](Outcome::into_result) makes an error of: it cut tasks short, or
    /// kept them from starting, and none failed.
    pub fn ended(&self) -> Option<&ContextError> {
        match &self.conclusion {
            Conclusion::Ended(why) => Some(why),
            Conclusion::Failed(_) | Conclusion::Clean => None,
        }
    }

    /// Returns how many tasks returned a value.
    pub fn completed(&self) -> usize {
        self.counts.completed
    }

    /// Returns how many tasks returned an error of their own.
    pub fn failed(&self) -> usize {
        self.counts.failed
    }

    /// Returns how many tasks panicked, their destructors included.
    pub fn panicked(&self) -> usize {
        self.counts.panicked
    }

    /// Returns how many tasks were cut short by the end of the context, or passed that or another task's failure on, or
    /// went away with their runtime.
    pub fn cut_short(&self) -> usize {
        self.counts.cut_short()
    }

    /// Returns how many tasks were aborted: by their handles, or because their grace was over.
    pub fn aborted(&self) -> usize {
        self.counts.aborted
    }

    /// Returns how many tasks the end of the context kept from starting.
    pub fn never_started(&self) -> usize {
        self.counts.never_started
    }

    /// Returns how many failures there were beside the one that [`into_result`](Outcome::into_result) returns, kept or not.
    pub fn suppressed(&self) -> usize {
        self.suppressed
    }

    /// Takes the errors out: those of the failures that were [kept](Outcome::failures). Panics, and what was not kept, are
    /// in the number of the others that its `Display` ends with.
    pub fn into_failures(self) -> Failures<E> {
        let count = self.failed() + self.panicked();
        let ended = self.ended().cloned();
        let first = match self.conclusion {
            Conclusion::Failed(failure) => Some(*failure),
            Conclusion::Ended(_) | Conclusion::Clean => None,
        };
        let failures = first.into_iter().chain(self.kept);
        let errors: Vec<_> = failures.filter_map(Failure::into_failed).collect();
        let forgotten = count.saturating_sub(errors.len());
        Failures::new(errors).forgotten(forgotten).ended_by(ended)
    }

    /// Makes of it what [`Group::wait`](crate::Group::wait) would have returned.
    ///
    /// # Errors
    ///
    /// The error of the first task that failed, else the [end](Outcome::ended) that cut tasks short.
    ///
    /// # Panics
    ///
    /// If a task panicked: resumes the first panic, with its original payload.
    pub fn into_result(self) -> Result<(), E>
    where
        E: GroupError,
    {
        self.conclusion.into_result()
    }
}

impl<E: fmt::Display> fmt::Display for Outcome<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} completed", self.completed())?;
        let others = [
            (self.failed(), "failed"),
            (self.panicked(), "panicked"),
            (self.cut_short(), "cut short"),
            (self.aborted(), "aborted"),
            (self.never_started(), "never started"),
        ];
        for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        match (self.failure(), self.ended()) {
            (Some(failure), _) => write!(f, ": {failure}"),
            (None, Some(why)) => write!(f, ": {why}"),
            (None, None) => Ok(()),
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for Outcome<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcome")
            .field("failure", &self.failure())
            .field("ended", &self.ended())
            .field("counts", &self.counts)
            .field("suppressed", &self.suppressed)
            .finish_non_exhaustive()
    }
}
