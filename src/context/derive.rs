//! The ways to derive a `Context`. Each makes a node, or finds one, and puts the values beside it.

use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cleanup::{self, Budget};
use super::deadline::Setting;
use super::done::DoneOwned;
use super::handle::CancelHandle;
use super::node::Node;
use super::stop::{self, StopHandle};
use super::{Context, Tree, foreign};
use crate::error::BoxError;

impl Context {
    /// Derives a context with the right to cancel it.
    #[inline]
    #[track_caller]
    pub fn with_cancel(&self) -> (Context, CancelHandle) {
        let node = Node::derive(self.node(), 1, Location::caller());
        let handle = CancelHandle::first(node.clone());
        (self.with_node(node), handle)
    }

    /// Derives a context that carries `value`, found again by its type.
    ///
    /// A nearer value hides one of the same type further out. It ends when `self` does. For what belongs to a request
    /// and crosses interfaces, such as a trace id; wrap common types in one of your own.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::Context;
    ///
    /// struct RequestId(u64);
    ///
    /// let ctx = Context::background().with_value(RequestId(7));
    /// assert_eq!(ctx.value::<RequestId>().map(|id| id.0), Some(7));
    /// ```
    #[must_use = "the value is in the returned context, not in this one"]
    pub fn with_value<T: Send + Sync + 'static>(&self, value: T) -> Context {
        Self {
            tree: self.tree.clone(),
            values: self.values.with(value),
        }
    }

    /// Derives a context that keeps the values and nothing else: no deadline, no parent's end, no cause.
    ///
    /// For work that has to be done whatever becomes of the context: telling the audit log. To clean up after its end there is
    /// [`cleanup`](Context::cleanup), which has an end itself.
    #[must_use = "it changes nothing about this context"]
    pub fn without_cancel(&self) -> Context {
        Self {
            tree: Tree::Background,
            values: self.values.clone(),
        }
    }

    /// Derives a context that ends with `self` or with `other`, whichever is first, by its reason.
    ///
    /// The earlier deadline holds. The values are those of `self`.
    #[track_caller]
    #[must_use = "it changes nothing about these contexts"]
    pub fn merge(&self, other: &Context) -> Context {
        match (self.node(), other.node()) {
            (_, None) => self.clone(),
            (None, Some(node)) => self.with_node(node.clone()),
            (Some(first), Some(second)) if Arc::ptr_eq(first, second) => self.clone(),
            (Some(first), Some(second)) => {
                self.with_node(Node::merge(first, second, Location::caller()))
            }
        }
    }

    /// Derives a context that ends when `future` completes: a foreign token, a closed channel.
    ///
    /// The future runs in a task of its own on the current runtime, and is dropped when the context ends otherwise or is
    /// dropped. One that panics ends the context, too; one that a runtime's shutdown drops does not: then only the rest
    /// can end the context, its parent and its deadline.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use errgroup::Context;
    /// use tokio_util::sync::CancellationToken;
    ///
    /// let token = CancellationToken::new();
    /// let ctx = Context::background().with_cancel_on(token.clone().cancelled_owned());
    /// token.cancel();
    /// ctx.done().await;
    /// # }
    /// ```
    #[track_caller]
    #[must_use = "the future ends the returned context, not this one; dropping that drops the future"]
    pub fn with_cancel_on<F>(&self, future: F) -> Context
    where
        F: Future + Send + 'static,
    {
        foreign::watch(self, async move {
            future.await;
            None
        })
    }

    /// Derives a context that ends when `future` completes, with its output as the cause.
    ///
    /// Otherwise as [`with_cancel_on`](Context::with_cancel_on).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[track_caller]
    #[must_use = "the future ends the returned context, not this one; dropping that drops the future"]
    pub fn with_cancel_on_cause<F>(&self, future: F) -> Context
    where
        F: Future + Send + 'static,
        F::Output: Into<BoxError>,
    {
        foreign::watch(self, async move { Some(future.await.into()) })
    }

    /// Derives a context that ends when `timeout` has passed.
    ///
    /// It belongs to no runtime and needs none: it can be derived, asked and waited for anywhere. No task waits for it.
    /// Who waits on a runtime has a timer there, whichever runtime that is, and whether or not others go away; tokio's
    /// paused clock works. Who waits outside of any, such as a callback registered in plain code, is told by a thread of
    /// the process, started when it is first needed. [`is_done`](Context::is_done) asks the clock itself, and needs no
    /// timer. tokio's timers have a resolution of one millisecond.
    ///
    /// A timeout of zero is over at once; one that the clock cannot represent is thirty years. If an ancestor's deadline
    /// is earlier, that one holds, and the result ends with the ancestor, by its reason.
    ///
    /// # Panics
    ///
    /// Never itself. Waiting for it in a runtime without [`enable_time`](tokio::runtime::Builder::enable_time) does, at the
    /// first poll, as everything that waits for a time.
    #[track_caller]
    #[must_use = "only the returned context ends at the deadline, this one does not"]
    pub fn with_timeout(&self, timeout: Duration) -> Context {
        self.with_setting(Setting::after(timeout, Location::caller()))
    }

    /// Derives a context that ends at `deadline`. A deadline in the past is over at once.
    ///
    /// Otherwise as [`with_timeout`](Context::with_timeout).
    #[track_caller]
    #[must_use = "only the returned context ends at the deadline, this one does not"]
    pub fn with_deadline(&self, deadline: Instant) -> Context {
        self.with_setting(Setting::at(deadline, Location::caller()))
    }

    /// Derives a context that ends when `timeout` has passed, with a cause of its own.
    ///
    /// The cause is kept unless an ancestor's strictly earlier deadline is what ends the context. Otherwise as
    /// [`with_timeout`](Context::with_timeout).
    #[track_caller]
    #[must_use = "only the returned context ends at the deadline, this one does not"]
    pub fn with_timeout_cause(&self, timeout: Duration, cause: impl Into<BoxError>) -> Context {
        let setting = Setting::after(timeout, Location::caller());
        self.with_setting(setting.because(cause))
    }

    /// Derives a context that ends at `deadline`, with a cause of its own.
    ///
    /// Otherwise as [`with_timeout_cause`](Context::with_timeout_cause).
    #[track_caller]
    #[must_use = "only the returned context ends at the deadline, this one does not"]
    pub fn with_deadline_cause(&self, deadline: Instant, cause: impl Into<BoxError>) -> Context {
        let setting = Setting::at(deadline, Location::caller());
        self.with_setting(setting.because(cause))
    }

    #[inline]
    fn with_setting(&self, setting: Setting) -> Context {
        if self.deadline().is_some_and(|earlier| earlier < setting.at) {
            return self.clone();
        }
        self.with_node(Node::derive_deadline(self.node(), setting))
    }

    /// Derives a context with the right to stop it in two steps: first it is [`stopping`](Context::stopping), which is to
    /// take on nothing new and to finish what one has, then it ends.
    ///
    /// Stopping closes nothing by itself: whatever derives from the context goes on until the end, and whoever takes on new
    /// work asks.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// use std::time::Duration;
    ///
    /// use errgroup::{Context, Reason};
    ///
    /// let (ctx, handle) = Context::background().with_stop();
    /// handle.stop(Duration::from_secs(30));
    /// assert_eq!(ctx.stopping().err().unwrap().reason(), Reason::Stopping);
    /// assert!(!ctx.is_done(), "thirty seconds to finish");
    /// assert_eq!(ctx.done().await.reason(), Reason::Stopped);
    /// # }
    /// ```
    #[track_caller]
    pub fn with_stop(&self) -> (Context, StopHandle) {
        let node = Node::derive_stop(self.node(), 1, Location::caller());
        let handle = StopHandle::first(node.clone());
        (self.with_node(node), handle)
    }

    /// Returns a context that ends when stopping begins, of this context or of one above: no new work from then on.
    ///
    /// Stopping begins by [`StopHandle::stop`], by a signal with a drain (`Signals::drain`), or by
    /// [`Group::stop`](crate::Group::stop) with a [drain](crate::Stop::drain), with
    /// [`Reason::Stopping`](crate::Reason::Stopping). If nothing above
    /// can be stopped in steps this is the context itself. It never ends later than the context, keeps the values, and shows
    /// the same deadline.
    ///
    /// Who takes on work asks it, and works under the context itself:
    /// `while let Ok(job) = ctx.stopping().run(jobs.recv()).await { work(&ctx, job).await }`.
    ///
    /// Costs O(contexts above) where there is no group, and is meant to be kept: ask once, outside of the loop.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// use std::time::Duration;
    ///
    /// use errgroup::Context;
    ///
    /// let (ctx, handle) = Context::background().with_stop();
    /// let (send, mut jobs) = tokio::sync::mpsc::unbounded_channel();
    /// send.send("first").unwrap();
    /// let mut done = Vec::new();
    /// let stopping = ctx.stopping();
    /// while let Ok(Some(job)) = stopping.run(jobs.recv()).await {
    ///     done.push(job);
    ///     handle.stop(Duration::from_secs(30)); // while it works
    ///     send.send("second").unwrap();
    /// }
    /// assert_eq!(done, ["first"]);
    /// assert!(!ctx.is_done());
    /// # }
    /// ```
    #[track_caller]
    #[must_use = "it changes nothing about this context"]
    pub fn stopping(&self) -> Context {
        let location = Location::caller();
        let step = self.node().and_then(|node| stop::stopping(node, location));
        step.map_or_else(|| self.clone(), |step| self.with_node(step))
    }

    /// Waits until stopping begins: the [`done_owned`](Context::done_owned) of [`stopping`](Context::stopping), for `select!`
    /// and for structs.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future unregisters it and loses nothing.
    #[track_caller]
    pub fn stopping_done(&self) -> DoneOwned {
        self.stopping().done_owned()
    }

    /// Derives a context below which [`cleanup`](Context::cleanup) lasts for `budget` from the end. The default is five
    /// seconds.
    ///
    /// It ends when `self` does. A nearer budget hides one further out. While a group is being stopped, whoever cleans up
    /// below it has until the abort instead, unless the budget was set below the group: then whichever is earlier.
    #[must_use = "the budget holds below the returned context, not below this one"]
    pub fn with_cleanup(&self, budget: Duration) -> Context {
        self.with_value(Budget::below(self.node(), budget))
    }

    /// Returns a context in which to clean up after this one: not ended by its end, but when the time to clean up is over.
    ///
    /// That time is one for all. It counts from the end, which ten tasks may be told of at once: ten tasks that roll back
    /// share the five seconds, or what [`with_cleanup`](Context::with_cleanup) or the
    /// [builder](crate::GroupBuilder::cleanup) says. The instant is taken when the end reaches a group, a waiter or a callback,
    /// otherwise at the first question. While a [`Group`](crate::Group) is being [stopped](crate::Group::stop) its tasks have
    /// until the abort instead: the whole [grace](crate::Stop::grace). When a group is dropped its time is over, too.
    ///
    /// Before the end it is a context that cannot end yet. It keeps the values and nothing else; it ends with
    /// [`Reason::DeadlineExceeded`](crate::Reason::DeadlineExceeded), or for the abort's reason. Its
    /// [`deadline`](Context::deadline) does not show when. What derives from it ends with it, and so does `cleanup` of that: it
    /// is no more time.
    ///
    /// For tasks given to [`spawn`](crate::Group::spawn) the end is the drop. It serves those of
    /// [`spawn_with`](crate::Group::spawn_with), and threads.
    ///
    /// # Panics
    ///
    /// In a runtime without [`enable_time`](tokio::runtime::Builder::enable_time), with tokio's words, if this context has
    /// ended, or has a deadline.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// use std::time::Duration;
    ///
    /// use errgroup::Group;
    /// use tokio::time::sleep;
    ///
    /// let group: Group = Group::builder().cleanup(Duration::from_secs(2)).build();
    /// let task = group.spawn_with(async |ctx| {
    ///     ctx.done().await;
    ///     // Roll back, but do not hang.
    ///     ctx.cleanup().run(sleep(Duration::from_secs(60))).await?;
    ///     Ok(())
    /// });
    /// tokio::task::yield_now().await;
    /// group.cancel();
    /// let error = task.await.unwrap_err().to_string();
    /// assert!(error.contains("deadline exceeded (2s, set at "), "{error}");
    /// # }
    /// ```
    #[track_caller]
    #[must_use = "it changes nothing about this context"]
    pub fn cleanup(&self) -> Context {
        let location = Location::caller();
        match self.node() {
            Some(node) => self.with_node(cleanup::after(node, self.value(), location)),
            None => self.clone(),
        }
    }
}
