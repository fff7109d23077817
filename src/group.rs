//! `Group`: the public face.
//!
//! Who knows what: the [`Core`](core::Core) is shared by the group, its tasks and its spawners. It holds the context,
//! the registry of live tasks, the slots and the outcome, each with a lock of its own and its invariants in its head. A
//! task's `Life` is the only thing that touches all four, in one order: outcome, context, registry, slots.

mod builder;
mod core;
mod life;
#[cfg(all(test, errgroup_loom))]
mod loom_models;
mod mark;
mod notes;
mod outcome;
mod page;
mod registry;
mod run;
mod shutdown;
mod slots;
mod spawner;
mod wait;

use std::borrow::Cow;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::num::NonZeroUsize;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

pub use self::builder::{GroupBuilder, TaskBuilder};
pub use self::shutdown::{Shutdown, Straggler};
pub use self::spawner::{Slot, Spawner};
pub use self::wait::{Wait, WaitOwned};

pub(crate) use self::core::{SlotRequest, Spec};
pub(crate) use self::mark::Policy;

use self::core::Core;
use crate::context::Context;
use crate::error::{BoxError, ContextError, GroupError, Reason};
use crate::task::Task;

/// Owns a derived context and the tasks spawned into it: the first error ends the context and with it the siblings, and
/// [`wait`](Group::wait) returns that error when all have ended.
///
/// There are two ways for a task to be stopped, told apart by the signature:
///
/// - [`spawn(future)`](Group::spawn): the group stops it. When the context ends, the future is dropped at the await it
///   stands at, and its destructors run. There is nothing to remember.
/// - [`spawn_with(|ctx| …)`](Group::spawn_with): it stops itself. The task runs until it returns; it is dropped only on
///   [`Task::abort`], when the grace of [`shutdown`](Group::shutdown) is over, or when the group is dropped.
///
/// [`spawn_blocking(|ctx| …)`](Group::spawn_blocking) is of the second kind, on a thread that nobody can stop.
///
/// What a task owns is dropped at its end, before its error is recorded. A sibling that sees that first, a channel that
/// closes say, may be the first to fail.
///
/// The tasks run on one runtime: the one given to the [builder](Group::builder), else the one that is current at the
/// first spawn.
///
/// # Dropping a group
///
/// It ends the context and aborts the tasks, without waiting for them. So an early `?` in the owner stops everything,
/// but what the tasks had to say is lost: prefer to `wait`, or to `shutdown`.
///
/// # Comparison to its peers
///
/// tokio's `JoinSet` hands out every result and cancels nobody; here the first error cancels the siblings and values come
/// back through the [`Task`]s. tokio-util's `TaskTracker` only counts. Go's `errgroup` cannot stop a goroutine that does
/// not look at its context, leaks it if nobody waits, and `SetLimit` panics while goroutines run.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use errgroup::Group;
///
/// let group: Group = Group::new();
/// let answer = group.spawn(async { Ok(6 * 7) });
/// drop(group.spawn(async { Err::<(), _>("disk full".into()) }));
/// drop(group.spawn(std::future::pending::<Result<(), _>>())); // stopped by the failure
///
/// assert_eq!(group.await.unwrap_err().to_string(), "disk full");
/// assert_eq!(answer.await.unwrap(), 42);
/// # }
/// ```
#[must_use = "dropping a group aborts its tasks; `wait` for it"]
pub struct Group<E: GroupError = BoxError> {
    core: Arc<Core<E>>,
    location: &'static Location<'static>,
}

impl<E: GroupError> Group<E> {
    /// Creates a group whose context derives from [`Context::background`]: nothing but the group ends it.
    ///
    /// Write `let group: Group = Group::new()`, or name an error type, `Group<E>`: the tasks alone do not tell it.
    #[track_caller]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Creates a group whose context derives from `parent` and ends with it.
    #[track_caller]
    pub fn with_context(parent: &Context) -> Self {
        Self::builder().context(parent).build()
    }

    /// Sets up a group with a name, a limit or a runtime.
    pub fn builder() -> GroupBuilder<E> {
        GroupBuilder::new()
    }

    /// A group that stands for a call at `location`.
    pub(crate) fn at(
        location: &'static Location<'static>,
        parent: &Context,
        name: Option<Cow<'static, str>>,
        runtime: Option<Handle>,
    ) -> Self {
        Self {
            core: Core::new(parent, location, name.map(Box::new), runtime),
            location,
        }
    }

    /// Returns the group's context, which ends with the first failure, with the group's parent, or when the group is
    /// cancelled, waited for or dropped.
    pub fn context(&self) -> &Context {
        &self.core.context
    }

    /// Returns the group's name, if the builder gave it one.
    pub fn name(&self) -> Option<&str> {
        self.core.name.as_ref().map(|name| name.as_ref().as_ref())
    }

    /// Spawns a future that the group stops: when the context ends it is dropped at the await it stands at.
    ///
    /// The context is checked before each poll, so a future that is always ready cannot starve its cancellation. With a
    /// limit, the task is queued until there is room; the call never blocks. In a group that has ended, the future is
    /// dropped unpolled and the handle says [`Cancelled`](crate::TaskError::Cancelled).
    ///
    /// A task that has a group of its own is better spawned with [`spawn_with`](Group::spawn_with): dropped, it drops its
    /// group, and that does not wait for its tasks.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, unless the group was given one.
    #[track_caller]
    pub fn spawn<F, T>(&self, future: F) -> Task<T>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        self.core
            .or_refuse(self.core.spawn(Spec::unnamed(), Policy::Dropped, future))
    }

    /// Spawns a task that stops itself: it is given the context and runs until it returns.
    ///
    /// For work that has to come to an orderly end: finish the batch, tell the peer. It is dropped only on
    /// [`Task::abort`], when a grace period is over, or when the group is dropped. Otherwise as [`spawn`](Group::spawn).
    ///
    /// An error that only passes on the context's end (`ctx.check()?`) counts as being cut short, not as a failure. It is
    /// recognised by its text, which has to be that of `E::from` the [`ContextError`]: with text added to it, or passed
    /// on from a context derived within the task that ended by itself, it is a failure like any other.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, unless the group was given one.
    #[track_caller]
    pub fn spawn_with<F, Fut, T>(&self, f: F) -> Task<T>
    where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        self.core
            .or_refuse(self.core.spawn_with(Spec::unnamed(), f))
    }

    /// Spawns a closure on a thread where it may block. It stops itself: `ctx.check()?` in its loop.
    ///
    /// Nothing can stop it once it runs, not even dropping the group. With a limit it takes a slot, and while it is
    /// queued no thread. Otherwise as [`spawn_with`](Group::spawn_with).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, unless the group was given one.
    #[track_caller]
    pub fn spawn_blocking<F, T>(&self, f: F) -> Task<T>
    where
        F: FnOnce(Context) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        self.core
            .or_refuse(self.core.spawn_blocking(Spec::unnamed(), f))
    }

    /// Spawns a future as [`spawn`](Group::spawn) does, if it can run now.
    ///
    /// # Errors
    ///
    /// Gives the future back at the limit, and after the end.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, unless the group was given one.
    #[track_caller]
    pub fn try_spawn<F, T>(&self, future: F) -> Result<Task<T>, F>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        let spec = Spec {
            slot: SlotRequest::Now,
            ..Spec::unnamed()
        };
        self.core.spawn(spec, Policy::Dropped, future)
    }

    /// Waits for room under the limit, in the same queue as spawned tasks. Without a limit there always is.
    ///
    /// This is the backpressure that [`spawn`](Group::spawn), which queues without bound, does not give. It gives up when
    /// the context ends: then it returns at once, and what is spawned through the slot is not started. A loop over many
    /// items should therefore look at the [context](Group::context).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue; room that was granted goes to the next.
    pub async fn slot(&self) -> Slot<'_, E> {
        Slot::wait(&self.core).await
    }

    /// Names a task before it is spawned: `group.task("db").spawn(…)`.
    pub fn task(&self, name: impl Into<Cow<'static, str>>) -> TaskBuilder<'_, E> {
        TaskBuilder::new(&self.core, name.into(), None)
    }

    /// Returns a handle to spawn with from inside tasks.
    pub fn spawner(&self) -> Spawner<E> {
        Spawner::new(self.core.clone())
    }

    /// Lets at most `limit` tasks run at once from now on; `None` lifts the limit.
    ///
    /// Tasks that run already count, and go on if the limit is below their number. Waiting tasks start at once as far as
    /// there is room now.
    pub fn set_limit(&self, limit: Option<NonZeroUsize>) {
        self.core
            .slots
            .set_limit(limit, || self.core.registry.limit());
    }

    /// Ends the context on purpose: tasks that this cuts short are no error, which includes cooperative ones that pass the
    /// [`ContextError`] on unchanged.
    ///
    /// Idempotent; the first end wins. Wakers and [`on_done`](Context::on_done) callbacks run in this call.
    #[track_caller]
    pub fn cancel(&self) {
        let location = Location::caller();
        self.core
            .end(|| ContextError::at(Reason::GroupCancelled, location, None));
    }

    /// Ends the context on purpose, with a cause. Otherwise as [`cancel`](Group::cancel).
    #[track_caller]
    pub fn cancel_with(&self, cause: impl Into<BoxError>) {
        let location = Location::caller();
        let cause = cause.into();
        self.core
            .end(|| ContextError::at(Reason::GroupCancelled, location, Some(cause)));
    }

    /// Waits until every task has ended: its future and captures dropped, its closure returned.
    ///
    /// The context is ended by then, with [`Reason::GroupFinished`] if nothing else did. Once the outcome has been
    /// returned, waiting again returns `Ok(())`.
    ///
    /// # Errors
    ///
    /// The error of the first task that failed. Without one, the [`ContextError`] if the parent's end or a deadline cut a
    /// task short or kept one from starting, or if the runtime was shut down under the tasks. Tasks that were stopped by
    /// [`cancel`](Group::cancel) or [`Task::abort`] are no error.
    ///
    /// # Panics
    ///
    /// If a task panicked: resumes the first panic, with its original payload. It outranks an error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: the tasks go on, and a later wait has the outcome.
    #[track_caller]
    pub fn wait(&mut self) -> Wait<'_, E> {
        Wait::new(self, Location::caller())
    }

    /// Ends the context, gives the tasks `grace` to stop, aborts what is left and names it.
    ///
    /// Returns when every task has ended, except for those that cannot be aborted: blocking ones, and any that does not
    /// come to an await within another grace, or a second if that is longer.
    ///
    /// # Panics
    ///
    /// Resumes the first panic of a task. Outside a runtime with a timer, if there is a task to wait for.
    ///
    /// # Cancel safety
    ///
    /// The future owns the group: dropping it drops the group, which aborts the tasks.
    #[track_caller]
    pub fn shutdown(self, grace: Duration) -> impl Future<Output = Shutdown<E>> + Send {
        // Not an `async fn`: that could not know its caller.
        shutdown::shutdown(self, grace, Location::caller())
    }

    /// Returns how many tasks have not ended, queued ones included.
    pub fn len(&self) -> usize {
        self.core.registry.len()
    }

    /// Returns `true` if every task has ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many failures there were that [`wait`](Group::wait) does not return: errors and panics after the
    /// first, and an error that a panic outranked.
    pub fn suppressed(&self) -> usize {
        self.core.outcome.suppressed()
    }
}

impl<E: GroupError> Default for Group<E> {
    fn default() -> Self {
        Self::new()
    }
}

/// `group.await` is [`wait`](Group::wait) on the owned group.
impl<E: GroupError> IntoFuture for Group<E> {
    type Output = Result<(), E>;
    type IntoFuture = WaitOwned<E>;

    fn into_future(self) -> WaitOwned<E> {
        let location = self.location;
        WaitOwned::new(self, location)
    }
}

impl<E: GroupError> Drop for Group<E> {
    fn drop(&mut self) {
        if !self.core.outcome.is_settled() {
            self.core
                .end(|| ContextError::at(Reason::GroupDropped, self.location, None));
            self.core.abort();
        }
    }
}

impl<E: GroupError> fmt::Debug for Group<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("name", &self.name())
            .field("tasks", &self.len())
            .field("context", &self.core.context)
            .finish_non_exhaustive()
    }
}
