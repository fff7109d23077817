//! `Spawner`: spawning into a group from inside its tasks. `Slot`: room for one task, waited for.

use std::borrow::Cow;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use super::builder::TaskBuilder;
use super::core::{Core, SlotRequest, Spec};
use super::mark::Policy;
use super::slots::Hold;
use crate::context::Context;
use crate::error::GroupError;
use crate::task::Task;

/// Spawns into a [`Group`](crate::Group) without owning it: the value of [`Group::spawner`](crate::Group::spawner).
///
/// Cheap to clone and `'static`, so that tasks can take it along. A task that it spawns inside another is counted before
/// that one ends: [`Group::wait`](crate::Group::wait) covers it. It carries no right to cancel.
///
/// Once the group has ended, spawning is refused and gives the code back.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), errgroup::BoxError> {
/// use errgroup::{Group, Spawner};
///
/// async fn walk(depth: u32, spawner: Spawner) -> Result<(), errgroup::BoxError> {
///     if depth > 0 {
///         let inner = spawner.clone();
///         // Refused only if a sibling has failed meanwhile.
///         let _ = spawner.spawn_with(move |_ctx| walk_boxed(depth - 1, inner));
///     }
///     Ok(())
/// }
/// # fn walk_boxed(depth: u32, spawner: Spawner) -> std::pin::Pin<Box<dyn Future<Output = Result<(), errgroup::BoxError>> + Send>> {
/// #     Box::pin(walk(depth, spawner))
/// # }
///
/// let group: Group = Group::new();
/// drop(group.spawn(walk(3, group.spawner())));
/// group.await
/// # }
/// ```
pub struct Spawner<E: GroupError = crate::BoxError> {
    pub(super) core: Arc<Core<E>>,
}

/// Room for one task of a [`Group`](crate::Group) with a limit: the value of [`Group::slot`](crate::Group::slot).
///
/// Dropping it gives the room back.
#[must_use = "dropping the slot gives the room back"]
pub struct Slot<'a, E: GroupError> {
    core: &'a Arc<Core<E>>,
    hold: Hold,
}

impl<E: GroupError> Spawner<E> {
    pub(super) fn new(core: Arc<Core<E>>) -> Self {
        Self { core }
    }

    /// Returns the group's context.
    pub fn context(&self) -> &Context {
        &self.core.context
    }

    /// Spawns a future that the group stops, as [`Group::spawn`](crate::Group::spawn).
    ///
    /// # Errors
    ///
    /// Gives the future back if the group has ended.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, unless the group has one already.
    #[track_caller]
    pub fn spawn<F, T>(&self, future: F) -> Result<Task<T>, F>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        self.core.spawn(Spec::unnamed(), Policy::Dropped, future)
    }

    /// Spawns a task that stops itself, as [`Group::spawn_with`](crate::Group::spawn_with).
    ///
    /// # Errors
    ///
    /// Gives the closure back if the group has ended.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, unless the group has one already.
    #[track_caller]
    pub fn spawn_with<F, Fut, T>(&self, f: F) -> Result<Task<T>, F>
    where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        self.core.spawn_with(Spec::unnamed(), f)
    }

    /// Spawns a blocking task, as [`Group::spawn_blocking`](crate::Group::spawn_blocking).
    ///
    /// # Errors
    ///
    /// Gives the closure back if the group has ended.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, unless the group has one already.
    #[track_caller]
    pub fn spawn_blocking<F, T>(&self, f: F) -> Result<Task<T>, F>
    where
        F: FnOnce(Context) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        self.core.spawn_blocking(Spec::unnamed(), f)
    }

    /// Spawns a part of something larger, which `spec` stands for. A refused one is ended as cut short.
    #[track_caller]
    pub(crate) fn launch<F, T>(&self, spec: Spec, policy: Policy, future: F) -> Task<T>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        self.core.or_refuse(self.core.spawn(spec, policy, future))
    }

    /// Returns how many tasks of the group have not ended, queued ones included.
    pub fn len(&self) -> usize {
        self.core.registry.len()
    }

    /// Returns `true` if every task of the group has ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names a task that is then spawned through the builder. After the group has ended, its handle says
    /// [`Cancelled`](crate::TaskError::Cancelled).
    pub fn task(&self, name: impl Into<Cow<'static, str>>) -> TaskBuilder<'_, E> {
        TaskBuilder::new(&self.core, name.into(), None)
    }
}

impl<E: GroupError> Clone for Spawner<E> {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
        }
    }
}

impl Spec {
    #[track_caller]
    pub(super) fn unnamed() -> Self {
        Self {
            name: None,
            location: Location::caller(),
            slot: SlotRequest::Queue,
        }
    }
}

impl<'a, E: GroupError> Slot<'a, E> {
    /// Waits for room, or for the end of the context.
    pub(super) async fn wait(core: &'a Arc<Core<E>>) -> Self {
        let mut slot = Self {
            core,
            hold: core.slots.hold(),
        };
        let mut done = core.context.done();
        poll_fn(|cx| {
            let Hold::Queued(ticket) = slot.hold else {
                return Poll::Ready(());
            };
            if core.slots.poll_granted(ticket, cx.waker()).is_ready() {
                slot.hold = Hold::Slot;
                return Poll::Ready(());
            }
            Pin::new(&mut done).poll(cx).map(drop)
        })
        .await;
        slot
    }

    /// Spawns a future that the group stops, as [`Group::spawn`](crate::Group::spawn), in this room.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, unless the group was given one.
    #[track_caller]
    pub fn spawn<F, T>(self, future: F) -> Task<T>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        let core = self.core;
        core.or_refuse(core.spawn(self.into_spec(), Policy::Dropped, future))
    }

    /// Spawns a task that stops itself, as [`Group::spawn_with`](crate::Group::spawn_with), in this room.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, unless the group was given one.
    #[track_caller]
    pub fn spawn_with<F, Fut, T>(self, f: F) -> Task<T>
    where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        let core = self.core;
        core.or_refuse(core.spawn_with(self.into_spec(), f))
    }

    /// Spawns a blocking task, as [`Group::spawn_blocking`](crate::Group::spawn_blocking), in this room.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, unless the group was given one.
    #[track_caller]
    pub fn spawn_blocking<F, T>(self, f: F) -> Task<T>
    where
        F: FnOnce(Context) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        let core = self.core;
        core.or_refuse(core.spawn_blocking(self.into_spec(), f))
    }

    /// Names the task that is to have this room.
    pub fn task(self, name: impl Into<Cow<'static, str>>) -> TaskBuilder<'a, E> {
        TaskBuilder::new(self.core, name.into(), Some(self))
    }

    #[track_caller]
    fn into_spec(self) -> Spec {
        Spec {
            slot: self.into_request(),
            ..Spec::unnamed()
        }
    }

    pub(super) fn into_request(mut self) -> SlotRequest {
        SlotRequest::Held(std::mem::replace(&mut self.hold, Hold::Free))
    }
}

impl<E: GroupError> Drop for Slot<'_, E> {
    fn drop(&mut self) {
        let hold = std::mem::replace(&mut self.hold, Hold::Free);
        if hold != Hold::Free {
            self.core.slots.release(hold);
        }
    }
}

impl<E: GroupError> fmt::Debug for Spawner<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner")
            .field("context", &self.core.context)
            .finish_non_exhaustive()
    }
}

impl<E: GroupError> fmt::Debug for Slot<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("hold", &self.hold)
            .finish_non_exhaustive()
    }
}
