//! `Spawner`: spawning into a group from inside its tasks. `TaskBuilder`: what can be said of a task before it starts.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;

use super::core::Core;
use super::entry::Name;
use super::registry::Spec;
use super::slot::Slot;
use super::spawn::{Request, name};
use crate::context::Context;
use crate::error::{ContextError, GroupError};
use crate::task::Task;

/// Spawns into a [`Group`](crate::Group) without owning it: the value of [`Group::spawner`](crate::Group::spawner), and what
/// [`Group::run`](crate::Group::run) gives its body.
///
/// Cheap to clone and `'static`, so that tasks can take it along. A task that it spawns inside another is counted before
/// that one ends: [`Group::wait`](crate::Group::wait) covers it. It carries no right to cancel.
///
/// It spawns in the same ways as the group itself. Once the group has ended, what it is given is dropped unpolled, and the
/// handle says why; [`try_spawn`](Spawner::try_spawn) gives it back.
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
///         spawner.spawn_with(move |_ctx| walk_boxed(depth - 1, inner));
///     }
///     Ok(())
/// }
/// # fn walk_boxed(depth: u32, spawner: Spawner) -> std::pin::Pin<Box<dyn Future<Output = Result<(), errgroup::BoxError>> + Send>> {
/// #     Box::pin(walk(depth, spawner))
/// # }
///
/// let group: Group = Group::new();
/// group.spawn(walk(3, group.spawner()));
/// group.await
/// # }
/// ```
pub struct Spawner<E = crate::BoxError> {
    pub(super) core: Arc<Core<E>>,
}

/// Names a task before it is spawned: the value of [`Group::task`](crate::Group::task), [`Spawner::task`] and
/// [`Slot::task`].
///
/// The name stands in the reason given to the siblings if the task fails, and in the list of stragglers. It costs one
/// allocation and a lookup.
#[must_use = "a task builder does nothing until one of its spawn methods is called"]
pub struct TaskBuilder<'a, E> {
    core: &'a Arc<Core<E>>,
    name: Option<Name>,
    /// Room that the task was given before.
    slot: Option<Slot<'a, E>>,
}

/// The ways to spawn, with one contract for whoever offers them. `request` makes a [`Request`] of the receiver.
macro_rules! ways_to_spawn {
    (& $this:ident, $request:expr) => {
        ways_to_spawn! { @ [&$this] $request }
    };
    ($this:ident, $request:expr) => {
        ways_to_spawn! { @ [$this] $request }
    };
    (@ [$($receiver:tt)+] $request:expr) => {
        /// Spawns a future that the group stops: when the context ends it is dropped at the await it stands at.
        ///
        /// The context is checked before each poll, so a future that is always ready cannot starve its cancellation.
        /// With a limit, the task is queued until there is room; the call never blocks. In a group that has ended, the
        /// future is dropped unpolled, and the handle says why the group has ended.
        ///
        /// A task that has a group of its own, and is dropped with it, hands its tasks over to this group, which waits
        /// for them, too.
        ///
        /// # Panics
        ///
        /// Outside a tokio runtime, unless the group was given one or has one already.
        #[track_caller]
        pub fn spawn<F, T>($($receiver)+, future: F) -> Task<T>
        where
            F: Future<Output = Result<T, E>> + Send + 'static,
            T: Send + 'static,
        {
            $request.spawn(future)
        }

        /// Spawns a task that stops itself: it is given the context and runs until it returns.
        ///
        /// For work that has to come to an orderly end: finish the batch, tell the peer. It is dropped only on
        /// [`Task::abort`], when a grace period is over, or when the group is dropped. Otherwise as [`spawn`](Self::spawn).
        ///
        /// An error that only passes on the context's end (`ctx.check()?`), or the failure of a task of this group
        /// (`task.await?`), counts as being cut short, not as a failure. It is recognised by its type, if that is
        /// [`BoxError`](crate::BoxError), [`ContextError`] or `std::io::Error`, else by its text after the end, which has to
        /// be that of `E::from` the end and to show the end's own. With text added to it, or passed on from a context
        /// derived within the task that ended by itself, it is a failure like any other.
        ///
        /// # Panics
        ///
        /// Outside a tokio runtime, unless the group was given one or has one already.
        #[track_caller]
        pub fn spawn_with<F, Fut, T>($($receiver)+, f: F) -> Task<T>
        where
            F: FnOnce(Context) -> Fut + Send + 'static,
            Fut: Future<Output = Result<T, E>> + Send + 'static,
            T: Send + 'static,
        {
            $request.spawn_with(f)
        }

        /// Spawns a future that need not be `Send`, on the thread that this is called on. Otherwise as
        /// [`spawn`](Self::spawn): the group stops it.
        ///
        /// It runs on the current [`LocalSet`](tokio::task::LocalSet) or [`LocalRuntime`](tokio::runtime::LocalRuntime),
        /// whatever runtime the group has. If that goes away the task goes with it, and says
        /// [`Reason::RuntimeGone`](crate::Reason::RuntimeGone).
        ///
        /// # Panics
        ///
        /// Outside of both, with tokio's words: call it in `LocalSet::run_until`, in a task of the set, or in a `LocalRuntime`.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::rc::Rc;
        /// use errgroup::Group;
        ///
        /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), errgroup::BoxError> {
        /// let names = Rc::new(vec!["ada", "grace"]);
        /// let set = tokio::task::LocalSet::new();
        /// let count = set.run_until(async {
        ///     let group: Group = Group::new();
        ///     let count = group.spawn_local(async move { Ok(names.len()) });
        ///     group.await?;
        ///     Ok::<_, errgroup::BoxError>(count.await?)
        /// });
        /// assert_eq!(count.await?, 2);
        /// # Ok(()) }
        /// ```
        #[track_caller]
        pub fn spawn_local<F, T>($($receiver)+, future: F) -> Task<T>
        where
            F: Future<Output = Result<T, E>> + 'static,
            T: 'static,
        {
            $request.spawn_local(future)
        }

        /// Spawns a closure on a thread where it may block. It stops itself: `ctx.check()?` in its loop.
        ///
        /// Nothing can stop it once it runs, not even dropping the group. Until it has a thread it is dropped by the end
        /// of the context, and by [`Task::abort`], as any task that has not started. With a limit it takes a slot, and
        /// while it is queued no thread. Where no thread is to be had at all, the task has panicked, with tokio's words.
        /// Otherwise as [`spawn_with`](Self::spawn_with).
        ///
        /// The runtime's own drop waits for blocking threads, also for those that a shutdown gave up on; tokio's
        /// `Runtime::shutdown_timeout` does not.
        ///
        /// # Panics
        ///
        /// Outside a tokio runtime, unless the group was given one or has one already.
        #[track_caller]
        pub fn spawn_blocking<F, T>($($receiver)+, f: F) -> Task<T>
        where
            F: FnOnce(Context) -> Result<T, E> + Send + 'static,
            T: Send + 'static,
        {
            $request.spawn_blocking(f)
        }
    };
}

/// As `ways_to_spawn`, for those who do not have their room already.
macro_rules! ways_to_try_spawn {
    ([$($receiver:tt)+] $request:expr) => {
        /// Spawns a future as [`spawn`](Self::spawn) does, if it can run now.
        ///
        /// # Errors
        ///
        /// Gives the future back at the limit, and after the end.
        ///
        /// # Panics
        ///
        /// Outside a tokio runtime, unless the group was given one or has one already.
        #[track_caller]
        pub fn try_spawn<F, T>($($receiver)+, future: F) -> Result<Task<T>, F>
        where
            F: Future<Output = Result<T, E>> + Send + 'static,
            T: Send + 'static,
        {
            $request.try_spawn(future)
        }
    };
}

pub(super) use {ways_to_spawn, ways_to_try_spawn};

impl<E> Spawner<E> {
    pub(super) fn new(core: Arc<Core<E>>) -> Self {
        Self { core }
    }

    /// Returns the group's context.
    pub fn context(&self) -> &Context {
        &self.core.context
    }

    /// Names a task before it is spawned: `spawner.task("db").spawn(…)`.
    pub fn task(&self, name: impl Into<Cow<'static, str>>) -> TaskBuilder<'_, E> {
        TaskBuilder::new(&self.core, name, None)
    }

    /// Waits for room under the limit, as [`Group::slot`](crate::Group::slot).
    ///
    /// # Errors
    ///
    /// The end of the context.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue; room that was granted goes to the next.
    #[track_caller]
    pub fn slot(&self) -> impl Future<Output = Result<Slot<'_, E>, ContextError>> {
        Slot::wait(&self.core, Location::caller())
    }

    /// Returns how many tasks of the group have not ended, queued ones included. The body of
    /// [`Group::run`](crate::Group::run) counts as one.
    pub fn len(&self) -> usize {
        self.core.registry.len()
    }

    /// Returns `true` if every task of the group has ended.
    pub fn is_empty(&self) -> bool {
        self.core.registry.is_empty()
    }
}

impl<E: GroupError> Spawner<E> {
    ways_to_spawn!(&self, Request::new(&self.core, None));
    ways_to_try_spawn!([&self] Request::new(&self.core, None));

    /// Spawns a part of something larger, which `spec` stands for. A refused one is ended as cut short.
    pub(crate) fn launch<F, T>(&self, spec: Spec, future: F) -> Task<T>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        Request::with_spec(&self.core, spec).spawn(future)
    }
}

impl<E> Clone for Spawner<E> {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
        }
    }
}

impl<'a, E> Slot<'a, E> {
    /// Names the task that is to have this room.
    pub fn task(self, name: impl Into<Cow<'static, str>>) -> TaskBuilder<'a, E> {
        TaskBuilder::new(self.core, name, Some(self))
    }

    #[track_caller]
    fn request(self) -> Request<'a, E> {
        Request::new(self.core, None).with_slot(Some(self))
    }
}

impl<E: GroupError> Slot<'_, E> {
    ways_to_spawn!(self, self.request());
}

impl<'a, E> TaskBuilder<'a, E> {
    pub(super) fn new(
        core: &'a Arc<Core<E>>,
        task_name: impl Into<Cow<'static, str>>,
        slot: Option<Slot<'a, E>>,
    ) -> Self {
        Self {
            core,
            name: name(task_name),
            slot,
        }
    }

    #[track_caller]
    fn request(self) -> Request<'a, E> {
        Request::new(self.core, self.name).with_slot(self.slot)
    }
}

impl<E: GroupError> TaskBuilder<'_, E> {
    ways_to_spawn!(self, self.request());
    ways_to_try_spawn!([self] self.request());
}

impl<E> fmt::Debug for Spawner<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner")
            .field("context", &self.core.context)
            .finish_non_exhaustive()
    }
}

impl<E> fmt::Debug for TaskBuilder<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskBuilder")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
