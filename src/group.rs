//! `Group`: the public face.
//!
//! The way of a task: `spawn` asks the `registry` to take it, which makes an `entry` among its `tasks`, gives it a permit of the
//! `limiter` or a place in the queue, and hands it to the runtime as a `run` with a `guard`. When it ends, the guard has
//! the `core` `record` a failure, which ends the context, then tells the registry, which lets `wait` or `stop` go on; these
//! `settle` the `outcome`.
//!
//! Who knows whom, from the ground up: `entry`, `fate` and `limiter` know nobody; `tasks` and `registry` these, and what they do
//! for others is in `room` (those who wait for a permit) and `watch` (those who look); `core` knows the registry, the `failure`s
//! and the `patience`; `record`, `settle` and `guard` know the core; `run`, `local`, `blocking` and `body` the guard; `spawn`
//! these; the public types stand on top.

mod blocking;
mod body;
mod builder;
mod console;
mod core;
mod diagnosis;
mod entry;
mod failure;
mod fate;
mod guard;
mod guest;
mod limiter;
mod local;
#[cfg(all(test, errgroup_loom))]
mod loom_models;
#[cfg(all(test, errgroup_loom))]
mod loom_watch;
mod moment;
mod outcome;
mod passed_on;
mod patience;
mod polls;
mod record;
mod registry;
mod room;
mod run;
mod settle;
mod slot;
mod spawn;
mod spawner;
mod stop;
mod straggler;
mod tasks;
mod wait;
mod watch;

use std::borrow::Cow;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

pub use self::builder::GroupBuilder;
pub use self::diagnosis::Diagnosis;
pub use self::failure::Failure;
pub use self::outcome::Outcome;
pub use self::slot::Slot;
pub use self::spawner::{Spawner, TaskBuilder};
pub use self::stop::{Shutdown, Stop};
pub use self::straggler::Straggler;
pub use self::wait::{Wait, WaitOutcome, WaitOwned};

pub(crate) use self::body::Came;
pub(crate) use self::core::{Core, is_gone};
pub(crate) use self::entry::{Kind, Name, SlotRequest};
pub(crate) use self::failure::EndedBy;
pub(crate) use self::fate::{Counts, Fate};
pub(crate) use self::passed_on::passes_on;
pub(crate) use self::registry::Spec;
pub(crate) use self::spawn::{Request, name};
pub(crate) use self::watch::{Doing, Report, Watched};

use self::core::Config;
use self::guest::Guest;
use self::spawner::{ways_to_spawn, ways_to_try_spawn};
use crate::context::{Context, Node};
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
/// [`Group::run`] is the form for a function that needs values: it returns them, or the first error. A `Group` of one's own is
/// for owners that live longer than one function, or that cancel and stop.
///
/// The tasks run on one runtime: the one given to the [builder](Group::builder), else the one that is current at the
/// first spawn.
///
/// # Dropping a group
///
/// It ends the context and aborts the tasks, without waiting for them. So an early `?` in the owner stops everything,
/// but what the tasks had to say is lost: prefer to `wait`, or to `shutdown`. Dropped inside a task of another group, from
/// whose context it derives, it hands over the tasks that are still live: that group waits for them, too.
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
/// group.spawn(async { Err::<(), _>("disk full".into()) });
/// group.spawn(std::future::pending::<Result<(), _>>()); // stopped by the failure
///
/// assert_eq!(group.await.unwrap_err().to_string(), "disk full");
/// assert_eq!(answer.await.unwrap(), 42);
/// # }
/// ```
#[must_use = "dropping a group aborts its tasks; `wait` for it"]
pub struct Group<E = BoxError> {
    core: Arc<Core<E>>,
    location: &'static Location<'static>,
}

impl<E: GroupError> Group<E> {
    /// Creates a group whose context derives from [`Context::background`]: nothing but the group ends it.
    ///
    /// Where a task is the future of a function, that tells the error type, and so does returning the outcome of
    /// [`wait`](Group::wait). Where every task is an inline block, and a `?` or `match` follows, name it:
    /// `let group: Group = Group::new()` means `Group<BoxError>`.
    #[track_caller]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Creates a group whose context derives from `parent` and ends with it.
    #[track_caller]
    pub fn with_context(parent: &Context) -> Self {
        Self::at(Location::caller(), parent, None, None)
    }

    /// Runs `body` with a group of its own, and returns its value when all tasks have ended, or the first error.
    ///
    /// The body is given a [`Spawner`]. It runs in the caller's task and may borrow from it; what it spawns may not. It
    /// counts as a task: its error or panic ends the context and stops the tasks, and it is itself dropped at its await
    /// when the context ends, for whatever reason. After its `Ok` the tasks are waited for; those that nobody should wait
    /// for are aborted by their handles.
    ///
    /// `task.await?` in the body needs no thought: the error that it passes on is another task's, and `run` returns that
    /// one, with its type.
    ///
    /// Use it in tail position. Where every task is an inline block and a `?` or `match` follows instead, the compiler does
    /// not know the error type (E0283): say `async |group: Spawner|`, which means `Spawner<BoxError>`, or
    /// `Group::<MyError>::run`.
    ///
    /// # Errors
    ///
    /// The first error of a task or of the body, as [`wait`](Group::wait).
    ///
    /// # Panics
    ///
    /// Resumes the first panic of a task or of the body when all have ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the body, ends the context and aborts the tasks, as dropping a group.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), errgroup::BoxError> {
    /// use errgroup::{BoxError, Context, Group};
    ///
    /// async fn user(id: u64) -> Result<String, BoxError> {
    ///     Ok(format!("user {id}"))
    /// }
    /// async fn orders(_id: u64) -> Result<Vec<u64>, BoxError> {
    ///     Ok(vec![1, 2, 3])
    /// }
    ///
    /// async fn page(ctx: &Context, id: u64) -> Result<(String, Vec<u64>), BoxError> {
    ///     Group::run(ctx, async |group| {
    ///         let (user, orders) = (group.spawn(user(id)), group.spawn(orders(id)));
    ///         Ok((user.await?, orders.await?))
    ///     })
    ///     .await
    /// }
    ///
    /// assert_eq!(page(&Context::background(), 7).await?.1.len(), 3);
    /// # Ok(()) }
    /// ```
    #[track_caller]
    pub fn run<T, F, Fut>(
        parent: &Context,
        body: F,
    ) -> impl Future<Output = Result<T, E>> + use<T, F, Fut, E>
    where
        F: FnOnce(Spawner<E>) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        Self::builder().context(parent).run(body)
    }

    /// Sets up a group with a name, a limit or a runtime, or an isolated one.
    pub fn builder() -> GroupBuilder<E> {
        GroupBuilder::new()
    }

    /// A group that stands for a call at `location`.
    pub(crate) fn at(
        location: &'static Location<'static>,
        parent: &Context,
        name: Option<Name>,
        runtime: Option<Handle>,
    ) -> Self {
        let config = Config {
            name,
            ..Config::default()
        };
        Self {
            core: Core::new(parent, location, config, runtime),
            location,
        }
    }

    /// A group with the values of `host`, but not its end. Dropped with live tasks, it hands them over to the group whose
    /// context `host` is, or derives from.
    pub(crate) fn hosted(
        host: &Context,
        name: Option<Name>,
        location: &'static Location<'static>,
    ) -> Self {
        let config = Config {
            name,
            host: host
                .node()
                .map(|node| Node::derive(Some(node), 0, location)),
            ..Config::default()
        };
        Self {
            core: Core::new(&host.without_cancel(), location, config, None),
            location,
        }
    }

    pub(crate) fn core(&self) -> &Arc<Core<E>> {
        &self.core
    }

    ways_to_spawn!(&self, Request::new(&self.core, None));
    ways_to_try_spawn!([&self] Request::new(&self.core, None));

    /// Waits until every task has ended: its future and captures dropped, its closure returned, and its value, if nobody
    /// holds the handle.
    ///
    /// The context is ended by then, with [`Reason::GroupFinished`] if nothing else did. Once the outcome has been
    /// returned, waiting again returns `Ok(())`, unless something was spawned since: nothing started of it, so that wait is
    /// an error, once. (After [`cancel`](Group::cancel) it is none.)
    ///
    /// A task of a group with a limit that awaits the handle of another one, which is queued behind it, waits forever, and so
    /// does this. Spawn what is waited for first, or give it a group of its own.
    ///
    /// # Errors
    ///
    /// The error of the first task that failed. Without one, the [`ContextError`] if the parent's end or a deadline cut a
    /// task short or kept one from starting, or if the runtime was shut down under the tasks. Tasks that were stopped by
    /// [`cancel`](Group::cancel) or [`Task::abort`] are no error.
    ///
    /// # Panics
    ///
    /// If a task panicked: resumes the first panic, with its original payload. It outranks an error. Go's `errgroup`
    /// decided against that, because there it would reach the owner only if that waits; here the owner is told by its
    /// context at once, and a panic that nobody resumes is a bug that nobody sees.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: the tasks go on, and a later wait has the outcome.
    pub fn wait(&mut self) -> Wait<'_, E> {
        Wait::new(self)
    }

    /// Waits as [`wait`](Group::wait) does, and returns all there is to know: how many tasks ended in which way, and the
    /// failures that were [kept](GroupBuilder::keep_failures), with their types.
    ///
    /// It does not resume a panic: [`Outcome::into_result`] does.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: the tasks go on, and a later wait has the outcome.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use errgroup::Group;
    ///
    /// let mut group: Group = Group::builder().keep_failures(9).isolated().build();
    /// for port in ["80", "443", "8o", "8OOO"] {
    ///     group.task(port).spawn(async move { Ok(port.parse::<u16>()?) });
    /// }
    /// let outcome = group.wait_outcome().await;
    /// assert_eq!((outcome.completed(), outcome.failed()), (2, 2));
    /// for failure in outcome.failures() {
    ///     eprintln!("{failure}"); // task "8o" failed: invalid digit found in string (spawned at …)
    /// }
    /// # assert_eq!(outcome.failures().count(), 2);
    /// # }
    /// ```
    pub fn wait_outcome(&mut self) -> WaitOutcome<'_, E> {
        WaitOutcome::new(self)
    }

    /// Stops the group: ends the context, gives the tasks five seconds to stop, aborts what is left and names it.
    ///
    /// The grace can be set on the future that it returns, and a drain before the end, in which the tasks finish what they
    /// have: see [`Stop`].
    #[track_caller]
    pub fn stop(self) -> Stop<E> {
        Stop::new(self, stop::DEFAULT_GRACE, Location::caller())
    }

    /// Stops the group as [`stop`](Group::stop) does, with a grace of its own: `group.stop().grace(grace)`.
    #[track_caller]
    pub fn shutdown(self, grace: Duration) -> Stop<E> {
        Stop::new(self, grace, Location::caller())
    }
}

impl<E> Group<E> {
    /// Returns the group's context, which ends with the first failure, with the group's parent, or when the group is
    /// cancelled, waited for or dropped.
    pub fn context(&self) -> &Context {
        &self.core.context
    }

    /// Returns the group's name, if the builder gave it one.
    pub fn name(&self) -> Option<&str> {
        self.core.name().map(|name| name.as_ref().as_ref())
    }

    /// Waits for room under the limit, in the same queue as spawned tasks. Without a limit there always is.
    ///
    /// This is the backpressure that [`spawn`](Group::spawn), which queues without bound, does not give. For a pool of
    /// workers take `Group::builder().limit(n).run(…)`, where `group.slot().await?` returns from the body and `run` has the
    /// first error. In an owner outside of `run`, `?` would drop the group, with its error and its tasks: leave the loop
    /// instead, then [`wait`](Group::wait).
    ///
    /// # Errors
    ///
    /// The end of the context.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue; room that was granted goes to the next.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), errgroup::BoxError> {
    /// use errgroup::{Context, Group, Spawner};
    ///
    /// let ctx = Context::background();
    /// Group::builder().context(&ctx).limit(8).run(async |group: Spawner| {
    ///     for page in 0..100 {
    ///         group.slot().await?.spawn(async move { Ok(println!("{page}")) });
    ///     }
    ///     Ok(())
    /// })
    /// .await
    /// # }
    /// ```
    #[track_caller]
    pub fn slot(&self) -> impl Future<Output = Result<Slot<'_, E>, ContextError>> {
        Slot::wait(&self.core, Location::caller())
    }

    /// Names a task before it is spawned: `group.task("db").spawn(…)`.
    pub fn task(&self, name: impl Into<Cow<'static, str>>) -> TaskBuilder<'_, E> {
        TaskBuilder::new(&self.core, name, None)
    }

    /// Returns a handle to spawn with from inside tasks.
    pub fn spawner(&self) -> Spawner<E> {
        Spawner::new(self.core.clone())
    }

    /// Lets at most `limit` tasks run at once from now on; `None` lifts the limit.
    ///
    /// Tasks that run already count, and go on if the limit is below their number. Waiting tasks start at once as far as
    /// there is room now.
    ///
    /// # Panics
    ///
    /// If `limit` is 0: no task would ever run.
    #[track_caller]
    pub fn set_limit(&self, limit: Option<usize>) {
        if let Some(limit) = limit {
            // Not in `map`, whose call would be the place of the panic.
            checked_limit(limit);
        }
        self.core.registry.set_limit(limit);
    }

    /// Ends the context on purpose: tasks that this cuts short are no error, which includes cooperative ones that pass the
    /// [`ContextError`] on unchanged.
    ///
    /// Idempotent; the first end wins. Wakers and [`on_done`](Context::on_done) callbacks run in this call.
    #[track_caller]
    pub fn cancel(&self) {
        let location = Location::caller();
        self.core.end(EndedBy::Owner, || {
            ContextError::at(Reason::GroupCancelled, location, None)
        });
    }

    /// Ends the context on purpose, with a cause. Otherwise as [`cancel`](Group::cancel).
    #[track_caller]
    pub fn cancel_with(&self, cause: impl Into<BoxError>) {
        let location = Location::caller();
        let cause = cause.into();
        self.core.end(EndedBy::Owner, || {
            ContextError::at(Reason::GroupCancelled, location, Some(cause))
        });
    }

    /// Returns how many tasks have not ended, queued ones included. O(1), and nobody waits for it.
    pub fn len(&self) -> usize {
        self.core.registry.len()
    }

    /// Returns `true` if every task has ended.
    pub fn is_empty(&self) -> bool {
        self.core.registry.is_empty()
    }

    /// Returns how many failures there were that [`wait`](Group::wait) does not return: errors and panics after the
    /// first, an error that a panic outranked, and all those of an isolated group.
    pub fn suppressed(&self) -> usize {
        self.core.failures.suppressed()
    }
}

/// Refuses a limit that lets nothing run.
#[track_caller]
pub(crate) fn checked_limit(limit: usize) -> usize {
    assert!(
        limit > 0,
        "errgroup: with a limit of 0 nothing would ever run: the least is 1, and without a limit everything runs at once"
    );
    limit
}

impl<E: GroupError> Default for Group<E> {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

/// `group.await` is [`wait`](Group::wait) on the owned group.
impl<E: GroupError> IntoFuture for Group<E> {
    type Output = Result<(), E>;
    type IntoFuture = WaitOwned<E>;

    fn into_future(self) -> WaitOwned<E> {
        WaitOwned::new(self)
    }
}

impl<E> Drop for Group<E> {
    fn drop(&mut self) {
        let registry = &self.core.registry;
        if !self.core.failures.is_settled() {
            self.core.end(EndedBy::Owner, || {
                ContextError::at(Reason::GroupDropped, self.location, None)
            });
            self.core.abort(|| self.core.end_error());
        }
        if !registry.abandon() {
            return;
        }
        registry.forget_waiter();
        let node = self.core.node();
        if let Some(group) = node.owner() {
            let place = self.core.host().unwrap_or(node);
            place.find_owner_above(|host| Guest::hand_over(&group, host));
        }
    }
}

// What a group shows of itself changes in one step, and foreign code runs with no lock held.
impl<E> UnwindSafe for Group<E> {}
impl<E> RefUnwindSafe for Group<E> {}

impl<E> fmt::Debug for Group<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("name", &self.name())
            .field("tasks", &self.len())
            .field("context", &self.core.context)
            .finish_non_exhaustive()
    }
}
