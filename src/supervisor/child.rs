//! `Child`: what a supervisor has to know of a child. `Restart`: when it is restarted.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::Supervisor;
use super::backoff::Schedule;
use super::entry::Spec;
use super::error::SupervisorError;
use super::ready::Ready;
use super::service::{Function, Post, Service};
use super::strategy::Restart;
use crate::context::Context;
use crate::error::{BoxError, GroupError};
use crate::group::name;
use crate::panic::Contained;

/// A service that a [`Supervisor`] keeps running: a name, a function that makes it, and how it is restarted and stopped.
///
/// The function is called for each start, in the task that it starts, with a context of its own: the child of the
/// supervisor's context as far as values go, which the supervisor alone ends. A task of the kind of
/// [`Group::spawn_with`](crate::Group::spawn_with): it watches that context, and runs until it returns. It is
/// dropped only when its [grace](Child::grace) is over.
///
/// Comes with OTP's defaults: [`Restart::Permanent`], no backoff, no drain, a grace of five seconds.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use errgroup::{Backoff, BoxError, Child, Context, Restart};
///
/// async fn poll_upstream(ctx: Context) -> Result<(), BoxError> {
///     loop {
///         ctx.sleep(Duration::from_secs(10)).await?; // an error when it is told to stop, which is no failure
///         // …
///     }
/// }
///
/// let poller = Child::new("poller", poll_upstream)
///     .restart(Restart::Transient)
///     .backoff(Backoff::exponential(Duration::from_millis(100), Duration::from_secs(30)))
///     .grace(Duration::from_secs(2));
/// # drop(poller);
/// ```
#[must_use = "a child does nothing until a supervisor that it was given to runs"]
pub struct Child<E = BoxError> {
    pub(super) spec: Spec,
    pub(super) service: Contained<Arc<dyn Service<E>>>,
    pub(super) backoff: Option<Schedule>,
}

/// The grace of a child, as in OTP.
const DEFAULT_GRACE: Duration = Duration::from_secs(5);

/// How long a child has to become ready.
const DEFAULT_READY_WITHIN: Duration = Duration::from_secs(30);

/// After so long a time up, a child's backoff begins anew.
const DEFAULT_RESET_AFTER: Duration = Duration::from_secs(60);

/// How many failures are kept of a child.
const DEFAULT_FAILURES: usize = 4;

impl<E: GroupError> Child<E> {
    /// Makes a child of a function from a context to a future. It counts as up as soon as it has been started.
    #[track_caller]
    pub fn new<F, Fut>(name: impl Into<Cow<'static, str>>, f: F) -> Self
    where
        F: Fn(Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
    {
        let call = move |post: &Post<E>| f(post.ctx.clone());
        Self::of(name, Arc::new(Function(call)), None)
    }

    /// Makes a child that says when it is ready: until then the next one is not started.
    ///
    /// It has [30 seconds](Child::ready_within) for it. If it ends before, drops its [`Ready`], or takes longer, then it has
    /// failed. When the supervisor starts, that is its failure; in a restart it is the child's, like any other.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::{BoxError, Child, Context, Ready};
    ///
    /// async fn serve(ctx: Context, ready: Ready) -> Result<(), BoxError> {
    ///     let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    ///     ready.notify();
    ///     // … accept
    /// #   drop(listener);
    ///     ctx.done().await;
    ///     Ok(())
    /// }
    ///
    /// let http = Child::with_ready("http", serve);
    /// # drop(http);
    /// ```
    #[track_caller]
    pub fn with_ready<F, Fut>(name: impl Into<Cow<'static, str>>, f: F) -> Self
    where
        F: Fn(Context, Ready) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
    {
        let call = move |post: &Post<E>| f(post.ctx.clone(), post.ready());
        Self::of(name, Arc::new(Function(call)), Some(DEFAULT_READY_WITHIN))
    }

    /// Makes a child that is a supervisor itself. Its context is the child's, unless the builder was given another.
    ///
    /// It takes as long to stop as its children do: drain and grace have no limit, as OTP asks for. (One that is run inside a child
    /// of another kind has that child's drain, which is none unless it was set, and its children have no longer one.)
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::{BoxError, Child, Supervisor};
    ///
    /// let caches = Child::supervisor("caches", |_ctx| {
    ///     Supervisor::<BoxError>::builder()
    ///         .build()
    ///         .child(Child::new("users", async |ctx| Ok(drop(ctx.done().await))))
    ///         .child(Child::new("orders", async |ctx| Ok(drop(ctx.done().await))))
    /// });
    /// # drop(caches);
    /// ```
    #[track_caller]
    pub fn supervisor<F>(name: impl Into<Cow<'static, str>>, f: F) -> Self
    where
        F: Fn(Context) -> Supervisor<E> + Send + Sync + 'static,
        E: From<SupervisorError<E>>,
    {
        let run = move |ctx: Context| {
            let run = f(ctx.clone()).run_below(&ctx);
            async move { run.await.map_err(E::from) }
        };
        Self::new(name, run)
            .drain(Duration::MAX)
            .grace(Duration::MAX)
    }

    #[track_caller]
    fn of(
        child: impl Into<Cow<'static, str>>,
        service: Arc<dyn Service<E>>,
        ready_within: Option<Duration>,
    ) -> Self {
        Self {
            spec: Spec {
                name: name(child).expect("errgroup: it was given one"),
                location: Location::caller(),
                restart: Restart::default(),
                is_significant: false,
                drain: Duration::ZERO,
                grace: DEFAULT_GRACE,
                ready_within,
                has_backoff: false,
                reset_after: DEFAULT_RESET_AFTER,
                keep_failures: DEFAULT_FAILURES,
            },
            service: Contained::new(service),
            backoff: None,
        }
    }
}

impl<E> Child<E> {
    /// Sets when the child is restarted after it has ended by itself. The default is [`Restart::Permanent`].
    pub fn restart(mut self, restart: Restart) -> Self {
        self.spec.restart = restart;
        self
    }

    /// Waits before each restart for its own end: for the first duration before the first, and so on. Without it a child is
    /// restarted at once.
    ///
    /// Takes any cloneable [`IntoIterator`]: a [`Backoff`](crate::Backoff), an array, the strategies of `tokio-retry`; with
    /// `backon`, [`Backoff::from_fn(move || builder.build())`](crate::Backoff::from_fn). Where the durations end, patience does: the
    /// child is not restarted, and the supervisor fails. To repeat the last one, `chain` it. They begin anew when the child was
    /// [up for a while](Child::reset_after).
    ///
    /// A stop does not wait for a delay, and a command to start or restart the child cuts it.
    pub fn backoff<B>(mut self, backoff: B) -> Self
    where
        B: IntoIterator<Item = Duration> + Clone + Send + 'static,
        B::IntoIter: Send + 'static,
    {
        self.spec.has_backoff = true;
        self.backoff = Some(Schedule::new(move || Box::new(backoff.clone().into_iter())));
        self
    }

    /// Lets the backoff begin anew when the child has run for so long before it ended. The default is one minute.
    pub fn reset_after(mut self, up: Duration) -> Self {
        self.spec.reset_after = up;
        self
    }

    /// Sets how long the child may go on when it is stopped: until then its context is
    /// [stopping](Context::stopping), and ends after it. The default is no time at all.
    pub fn drain(mut self, drain: Duration) -> Self {
        self.spec.drain = drain;
        self
    }

    /// Sets how long the child has from the end of its context until it is dropped at the await it stands at. The default is
    /// five seconds; [`Duration::MAX`] is without limit.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.spec.grace = grace;
        self
    }

    /// Sets how long a child that says when it is ready has for it. The default is 30 seconds; [`Duration::MAX`] is without
    /// limit. One made by [`Child::new`] has nothing to say.
    pub fn ready_within(mut self, limit: Duration) -> Self {
        if self.spec.ready_within.is_some() {
            self.spec.ready_within = Some(limit);
        }
        self
    }

    /// Lets the supervisor stop when the child has ended by itself and is not restarted.
    ///
    /// Its failure is the supervisor's then; that is only possible for a [`Temporary`](Restart::Temporary) one. (In OTP the
    /// supervisor ends as if nothing had happened.) A [`Permanent`](Restart::Permanent) child never ends in this sense, and a
    /// supervisor refuses it, as in OTP.
    pub fn significant(mut self) -> Self {
        self.spec.is_significant = true;
        self
    }

    /// Sets how many failures are kept to be shown: the last ones. The default is four.
    pub fn keep_failures(mut self, n: usize) -> Self {
        self.spec.keep_failures = n;
        self
    }
}

impl<E> fmt::Debug for Child<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("name", &self.spec.name)
            .field("restart", &self.spec.restart)
            .field("location", &format_args!("{}", self.spec.location))
            .finish_non_exhaustive()
    }
}
