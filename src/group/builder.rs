//! `GroupBuilder` and `TaskBuilder`: what can be said of a group and of a task before it starts.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::panic::Location;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::Group;
use super::core::{Core, SlotRequest, Spec};
use super::mark::Policy;
use super::spawner::Slot;
use crate::context::Context;
use crate::error::GroupError;
use crate::task::Task;

/// Sets up a [`Group`]: the value of [`Group::builder`].
///
/// # Examples
///
/// ```
/// use std::num::NonZeroUsize;
/// use errgroup::{Context, Group};
///
/// let ctx = Context::background();
/// let limit = NonZeroUsize::new(64).expect("not zero");
/// let group: Group = Group::builder().context(&ctx).name("api").limit(limit).build();
/// # drop(group);
/// ```
#[must_use = "a builder does nothing until `build()`"]
pub struct GroupBuilder<E: GroupError> {
    parent: Context,
    name: Option<Cow<'static, str>>,
    limit: Option<NonZeroUsize>,
    runtime: Option<Handle>,
    error: PhantomData<fn() -> E>,
}

/// Names a task before it is spawned: the value of [`Group::task`], [`Spawner::task`](crate::Spawner::task) and
/// [`Slot::task`].
///
/// The name stands in the reason given to the siblings if the task fails, and in the list of stragglers. It costs one
/// allocation.
#[must_use = "a task builder does nothing until one of its spawn methods is called"]
pub struct TaskBuilder<'a, E: GroupError> {
    core: &'a Arc<Core<E>>,
    name: Cow<'static, str>,
    /// Room that the task was given before.
    slot: Option<Slot<'a, E>>,
}

impl<E: GroupError> GroupBuilder<E> {
    pub(super) fn new() -> Self {
        Self {
            parent: Context::background(),
            name: None,
            limit: None,
            runtime: None,
            error: PhantomData,
        }
    }

    /// Derives the group's context from `parent` instead of [`Context::background`].
    pub fn context(mut self, parent: &Context) -> Self {
        self.parent = parent.clone();
        self
    }

    /// Names the group.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Lets at most `limit` tasks run at once. Without it there is no limit.
    pub fn limit(mut self, limit: NonZeroUsize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Runs the tasks on this runtime, instead of the one that is current at the first spawn.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Builds the group.
    #[track_caller]
    pub fn build(self) -> Group<E> {
        let group = Group::at(Location::caller(), &self.parent, self.name, self.runtime);
        if self.limit.is_some() {
            group.set_limit(self.limit);
        }
        group
    }
}

impl<'a, E: GroupError> TaskBuilder<'a, E> {
    pub(super) fn new(
        core: &'a Arc<Core<E>>,
        name: Cow<'static, str>,
        slot: Option<Slot<'a, E>>,
    ) -> Self {
        Self { core, name, slot }
    }

    /// As [`Group::spawn`].
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
        core.or_refuse(core.spawn(self.spec(SlotRequest::Queue), Policy::Dropped, future))
    }

    /// As [`Group::spawn_with`].
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
        core.or_refuse(core.spawn_with(self.spec(SlotRequest::Queue), f))
    }

    /// As [`Group::spawn_blocking`].
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
        core.or_refuse(core.spawn_blocking(self.spec(SlotRequest::Queue), f))
    }

    /// As [`Group::try_spawn`].
    ///
    /// # Errors
    ///
    /// Gives the future back at the limit or after the end.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, unless the group was given one.
    #[track_caller]
    pub fn try_spawn<F, T>(self, future: F) -> Result<Task<T>, F>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        let core = self.core;
        core.spawn(self.spec(SlotRequest::Now), Policy::Dropped, future)
    }

    #[track_caller]
    fn spec(self, request: SlotRequest) -> Spec {
        Spec {
            name: Some(Box::new(self.name)),
            location: Location::caller(),
            slot: self.slot.map_or(request, Slot::into_request),
        }
    }
}

impl<E: GroupError> fmt::Debug for GroupBuilder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupBuilder")
            .field("parent", &self.parent)
            .field("name", &self.name)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl<E: GroupError> fmt::Debug for TaskBuilder<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskBuilder")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
