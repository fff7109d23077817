//! `Wait`, `WaitOwned` and `WaitOutcome`: the end of all tasks, and the group's outcome.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use super::Group;
use super::core::Core;
use super::outcome::Outcome;
use crate::error::GroupError;

/// Waits for all tasks of a [`Group`]: the future of [`Group::wait`].
///
/// # Cancel safety
///
/// Dropping it loses nothing: the tasks go on, and a later wait has the outcome.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Wait<'a, E> {
    group: &'a mut Group<E>,
    /// Its waker is with the registry.
    is_waiting: bool,
}

/// Waits for all tasks of a [`Group`] that it owns: the future of `group.await`.
///
/// # Cancel safety
///
/// Dropping it drops the group: its context ends and its tasks are aborted.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct WaitOwned<E> {
    group: Group<E>,
}

/// Waits for all tasks of a [`Group`]: the future of [`Group::wait_outcome`].
///
/// # Cancel safety
///
/// Dropping it loses nothing: the tasks go on, and a later wait has the outcome.
#[derive(Debug)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct WaitOutcome<'a, E> {
    wait: Wait<'a, E>,
}

impl<E> Core<E> {
    /// Ready when the last task has ended and none can come.
    pub(crate) fn poll_finished(&self, cx: &TaskContext<'_>) -> Poll<()> {
        loop {
            if self.registry.poll_empty(cx).is_pending() {
                self.see_to_timer();
                self.lose_patience();
                return Poll::Pending;
            }
            if self.close() {
                return Poll::Ready(());
            }
        }
    }
}

impl<'a, E> Wait<'a, E> {
    pub(super) fn new(group: &'a mut Group<E>) -> Self {
        Self {
            group,
            is_waiting: false,
        }
    }
}

impl<E> WaitOwned<E> {
    pub(super) fn new(group: Group<E>) -> Self {
        Self { group }
    }
}

impl<E> Wait<'_, E> {
    fn poll_finished(&mut self, cx: &TaskContext<'_>) -> Poll<&Core<E>> {
        let finished = self.group.core.poll_finished(cx);
        self.is_waiting = finished.is_pending();
        finished.map(|()| &*self.group.core)
    }
}

impl<E: GroupError> Future for Wait<'_, E> {
    type Output = Result<(), E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        self.poll_finished(cx).map(Core::settle)
    }
}

impl<E: GroupError> WaitOwned<E> {
    /// Waits for tasks that know themselves whether the work was done when the context ended.
    pub(crate) fn poll_work(
        &mut self,
        is_complete: impl FnOnce() -> bool,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<(), E>> {
        let core = &self.group.core;
        ready!(core.poll_finished(cx));
        Poll::Ready(core.settle_work(is_complete))
    }
}

impl<E: GroupError> Future for WaitOwned<E> {
    type Output = Result<(), E>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let core = &self.group.core;
        core.poll_finished(cx).map(|()| core.settle())
    }
}

impl<'a, E> WaitOutcome<'a, E> {
    pub(super) fn new(group: &'a mut Group<E>) -> Self {
        Self {
            wait: Wait::new(group),
        }
    }
}

impl<E: GroupError> Future for WaitOutcome<'_, E> {
    type Output = Outcome<E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let finished = self.wait.poll_finished(cx);
        finished.map(|core| core.settle_outcome())
    }
}

impl<E> Drop for Wait<'_, E> {
    fn drop(&mut self) {
        if self.is_waiting {
            self.group.core.registry.forget_waiter();
        }
    }
}

// The waiter of a `WaitOwned` goes with its group.

impl<E> fmt::Debug for Wait<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Wait").field(&self.group).finish()
    }
}

impl<E> fmt::Debug for WaitOwned<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WaitOwned").field(&self.group).finish()
    }
}
