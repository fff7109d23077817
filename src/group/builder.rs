//! `GroupBuilder`: what can be said of a group before it starts.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::time::Duration;

use tokio::runtime::Handle;

use super::body::Body;
use super::core::{Config, Core};
use super::failure::Failure;
use super::patience::{DEFAULT_PATIENCE, OnStragglers, Patience};
use super::spawn::name;
use super::spawner::Spawner;
use super::straggler::Straggler;
use super::{Group, checked_limit};
use crate::context::Context;
use crate::error::GroupError;

/// Sets up a [`Group`]: the value of [`Group::builder`].
///
/// # Examples
///
/// ```
/// use errgroup::{Context, Group};
///
/// let ctx = Context::background();
/// let group: Group = Group::builder().context(&ctx).name("api").limit(64).build();
/// ```
#[must_use = "a builder does nothing until `build()` or `run()`"]
pub struct GroupBuilder<E> {
    parent: Context,
    config: Config<E>,
    limit: Option<usize>,
    runtime: Option<Handle>,
    patience: Duration,
    on_stragglers: Option<Box<OnStragglers>>,
    cleanup: Option<Duration>,
}

impl<E> GroupBuilder<E> {
    pub(super) fn new() -> Self {
        Self {
            parent: Context::background(),
            config: Config::default(),
            limit: None,
            runtime: None,
            patience: DEFAULT_PATIENCE,
            on_stragglers: None,
            cleanup: None,
        }
    }

    /// Derives the group's context from `parent` instead of [`Context::background`].
    pub fn context(mut self, parent: &Context) -> Self {
        self.parent = parent.clone();
        self
    }

    /// Names the group.
    pub fn name(mut self, group: impl Into<Cow<'static, str>>) -> Self {
        self.config.name = name(group);
        self
    }

    /// Lets at most `limit` tasks run at once. Without it there is no limit.
    ///
    /// # Panics
    ///
    /// If `limit` is 0: no task would ever run.
    #[track_caller]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(checked_limit(limit));
        self
    }

    /// Runs the tasks on this runtime, instead of the one that is current at the first spawn.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Sets how long the tasks have to clean up after the end, as [`Context::with_cleanup`] does. The default is five seconds.
    ///
    /// While the group is being [stopped](Group::stop) they have until the abort instead.
    pub fn cleanup(mut self, budget: Duration) -> Self {
        self.cleanup = Some(budget);
        self
    }

    /// Makes a failure or panic its task's alone: it ends neither the context nor a sibling, and
    /// [`wait`](Group::wait) does not return it.
    ///
    /// For servers, where one bad connection is one bad connection. The task's handle tells of it, and
    /// [`on_failure`](GroupBuilder::on_failure), and [`Group::suppressed`] counts it. The body of
    /// [`run`](GroupBuilder::run) is no task of this kind: its failure ends the group.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), errgroup::BoxError> {
    /// use errgroup::Group;
    ///
    /// let mut group: Group = Group::builder()
    ///     .isolated()
    ///     .on_failure(|failure| eprintln!("{failure}"))
    ///     .build();
    /// group.spawn(async { Err::<(), _>("connection reset".into()) });
    /// let good = group.spawn(async { Ok("served") });
    /// assert_eq!(good.await?, "served");
    /// group.wait().await
    /// # }
    /// ```
    pub fn isolated(mut self) -> Self {
        self.config.is_isolated = true;
        self
    }

    /// Calls `f` for every failure and panic of a task, once each, before [`wait`](Group::wait) can return.
    ///
    /// It runs where the task ended, on any group, isolated or not; for the first failure after the context has ended for
    /// it. An error that only passes on the end, or another task's failure, is none. A panic in `f` is contained: the panic
    /// hook has reported it.
    pub fn on_failure(mut self, f: impl Fn(&Failure<E>) + Send + Sync + 'static) -> Self {
        self.config.on_failure = Some(Box::new(f));
        self
    }
}

impl<E> GroupBuilder<E> {
    /// Keeps up to `count` failures beside the first, for [`Group::wait_outcome`]: error and payload, as they came. Without it
    /// none is kept.
    ///
    /// An error that is not kept lives as long as a handle may ask for its text.
    pub fn keep_failures(mut self, count: usize) -> Self {
        self.config.keep_failures = u32::try_from(count).unwrap_or(u32::MAX);
        self
    }
}

impl<E> GroupBuilder<E> {
    /// Calls `f`, once, with the tasks that keep a [`wait`](Group::wait) from ending although the context ended long ago: the
    /// [patience](GroupBuilder::patience), by default ten seconds.
    ///
    /// Nothing is aborted, and the wait goes on. It takes a timer, from the end of the context on, if there are tasks then, and a
    /// task on the group's runtime to call `f`; the runtime needs no [`enable_time`](tokio::runtime::Builder::enable_time). A
    /// panic in `f` is contained: the panic hook has reported it.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// use errgroup::Group;
    /// use std::time::Duration;
    ///
    /// let (tell, told) = std::sync::mpsc::channel();
    /// let mut group: Group = Group::builder()
    ///     .on_stragglers(move |tasks| tasks.iter().for_each(|task| tell.send(task.to_string()).unwrap()))
    ///     .patience(Duration::from_secs(3))
    ///     .build();
    /// group.task("deaf").spawn_with(async |_ctx| Ok(tokio::time::sleep(Duration::from_secs(60)).await));
    /// tokio::task::yield_now().await;
    /// group.cancel();
    /// group.wait().await.unwrap();
    /// assert!(told.recv().unwrap().contains("\"deaf\""));
    /// # }
    /// ```
    pub fn on_stragglers(mut self, f: impl Fn(&[Straggler]) + Send + Sync + 'static) -> Self {
        self.on_stragglers = Some(Box::new(f));
        self
    }

    /// Sets how long after the end of the context a wait may go on before [`on_stragglers`](GroupBuilder::on_stragglers) is
    /// called. The default is ten seconds.
    pub fn patience(mut self, time: Duration) -> Self {
        self.patience = time;
        self
    }
}

impl<E: GroupError> GroupBuilder<E> {
    /// Builds the group.
    #[track_caller]
    pub fn build(mut self) -> Group<E> {
        let location = Location::caller();
        let on_stragglers = self.on_stragglers.take();
        self.config.patience = on_stragglers.map(|f| Box::new(Patience::new(self.patience, f)));
        let parent = match self.cleanup {
            Some(budget) => self.parent.with_cleanup(budget),
            None => self.parent,
        };
        let core = Core::new(&parent, location, self.config, self.runtime);
        if self.limit.is_some() {
            core.registry.set_limit(self.limit);
        }
        Group { core, location }
    }

    /// Runs `body` with the group, as [`Group::run`].
    ///
    /// With a limit, the body itself needs no room.
    #[track_caller]
    pub fn run<T, F, Fut>(self, body: F) -> impl Future<Output = Result<T, E>> + use<T, F, Fut, E>
    where
        F: FnOnce(Spawner<E>) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        Body::new(self.build(), body, Location::caller())
    }
}

impl<E> fmt::Debug for GroupBuilder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupBuilder")
            .field("parent", &self.parent)
            .field("name", &self.config.name)
            .field("limit", &self.limit)
            .field("cleanup", &self.cleanup)
            .field("is_isolated", &self.config.is_isolated)
            .finish_non_exhaustive()
    }
}
