//! `Wait` and `WaitOwned`: the end of all tasks, and the group's outcome.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use super::Group;
use super::core::Core;
use crate::error::GroupError;
use crate::wait_group::Waiting;

/// Waits for all tasks of a [`Group`]: the future of [`Group::wait`].
///
/// # Cancel safety
///
/// Dropping it loses nothing: the tasks go on, and a later wait has the outcome.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Wait<'a, E: GroupError> {
    group: &'a mut Group<E>,
    ending: Ending,
}

/// Waits for all tasks of a [`Group`] that it owns: the future of `group.await`.
///
/// # Cancel safety
///
/// Dropping it drops the group: its context ends and its tasks are aborted.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct WaitOwned<E: GroupError> {
    group: Group<E>,
    ending: Ending,
}

/// The end of all tasks.
struct Ending {
    waiting: Waiting,
    location: &'static Location<'static>,
}

impl Ending {
    fn new(location: &'static Location<'static>) -> Self {
        Self {
            waiting: Waiting::default(),
            location,
        }
    }

    /// Ready when the last task has ended and none can come.
    fn poll<E: GroupError>(&mut self, core: &Core<E>, cx: &mut TaskContext<'_>) -> Poll<()> {
        loop {
            ready!(self.waiting.poll(core.registry.everyone(), cx));
            if core.close(self.location) {
                return Poll::Ready(());
            }
        }
    }
}

impl<'a, E: GroupError> Wait<'a, E> {
    pub(super) fn new(group: &'a mut Group<E>, location: &'static Location<'static>) -> Self {
        Self {
            group,
            ending: Ending::new(location),
        }
    }
}

impl<E: GroupError> WaitOwned<E> {
    pub(super) fn new(group: Group<E>, location: &'static Location<'static>) -> Self {
        Self {
            group,
            ending: Ending::new(location),
        }
    }
}

impl<E: GroupError> Future for Wait<'_, E> {
    type Output = Result<(), E>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let core = &this.group.core;
        this.ending.poll(core, cx).map(|()| core.settle())
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
        self.ending
            .poll(core, cx)
            .map(|()| core.settle_work(is_complete))
    }
}

impl<E: GroupError> Future for WaitOwned<E> {
    type Output = Result<(), E>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let core = &this.group.core;
        this.ending.poll(core, cx).map(|()| core.settle())
    }
}

impl<E: GroupError> Drop for Wait<'_, E> {
    fn drop(&mut self) {
        let everyone = self.group.core.registry.everyone();
        self.ending.waiting.release(everyone);
    }
}

impl<E: GroupError> Drop for WaitOwned<E> {
    fn drop(&mut self) {
        let everyone = self.group.core.registry.everyone();
        self.ending.waiting.release(everyone);
    }
}

impl<E: GroupError> fmt::Debug for Wait<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Wait").field(&self.group).finish()
    }
}

impl<E: GroupError> fmt::Debug for WaitOwned<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WaitOwned").field(&self.group).finish()
    }
}
