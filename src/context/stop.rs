//! `StopHandle`: the right to stop a context in two steps. `StopPoint`: the context's side of it.
//!
//! Stopping begins with the end of the context's step (`steps.rs`), and the context ends when the drain is over, by an
//! alarm. In this order, always: who ends the context for the drain has ended the step before.
//!
//! Invariants:
//!
//! 1. `has_begun` is set before a `stop` returns, and is final. A handle that is dropped looks at it after it has given up
//!    its share. So the last one, dropped after any `stop`, ends nothing.
//! 2. `alarm` is the earliest that was set. Any other is dropped by whoever comes second.

#[cfg(all(test, errgroup_loom))]
mod loom_models;

use std::fmt;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Context;
use super::alarm::Alarm;
use super::deadline::later;
use super::done::DoneOwned;
use super::node::Node;
use super::steps::{Step, Steps};
use super::timer::now;
use crate::error::{BoxError, ContextError, Reason};
use crate::sync::Mutex;

/// The right to stop one [`Context`] in two steps: the value of [`Context::with_stop`].
///
/// Held by the context's owner. Clones share the right. Dropping the last one ends the context, as with a
/// [`CancelHandle`](crate::CancelHandle), unless [`stop`](StopHandle::stop) was called: after that dropping handles
/// changes nothing.
#[must_use = "dropping the last handle ends the context at once, unless `stop` was called: keep it"]
pub struct StopHandle {
    node: Arc<Node>,
}

/// What a node knows of its stop.
#[derive(Default)]
pub(super) struct StopPoint {
    steps: Arc<Steps>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    has_begun: bool,
    /// When the drain is over, and the alarm's place in the node.
    alarm: Option<(Instant, u32)>,
}

/// Who stops.
#[derive(Clone, Debug)]
pub(crate) enum Stopper {
    Call(&'static Location<'static>),
    /// By what it would end a context without a drain.
    #[cfg(feature = "signal")]
    Signal(ContextError),
}

impl Context {
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
        let handle = StopHandle { node: node.clone() };
        (self.with_node(node), handle)
    }

    /// Returns a context that ends when stopping begins, of this context or of one above: no new work from then on.
    ///
    /// Stopping begins by [`StopHandle::stop`], by a signal with a drain (`Signals::drain`), or by
    /// [`Group::stop`](crate::Group::stop) with a [drain](crate::Stop::drain), with [`Reason::Stopping`]. If nothing above
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
        let Some(node) = self.node() else {
            return self.clone();
        };
        let step = match node.err() {
            // It had begun before.
            Some(end) if end.reason() == Reason::Stopped => Step::Stopping.of(node),
            Some(_) => None,
            None => Step::Stopping.of(node),
        };
        match step {
            None => self.clone(),
            Some(step) if node.has_ended() => self.with_node(step),
            Some(step) => self.with_node(Node::merge(node, &step, location)),
        }
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
}

impl StopHandle {
    /// Begins to stop: [`stopping`](Context::stopping) contexts end now, with [`Reason::Stopping`], and the context itself
    /// when `drain` is over, with [`Reason::Stopped`].
    ///
    /// A drain of zero ends both in this call; one that the clock cannot represent is thirty years. Called again, the earlier
    /// end holds. From now on dropping handles changes nothing; [`cancel`](StopHandle::cancel), a deadline or the parent can
    /// still end the context before the drain is over. [`deadline`](Context::deadline) does not show the drain.
    ///
    /// It can be called anywhere. The timer is the runtime's at hand, and works with tokio's paused clock; outside of any
    /// it is the process's. Wakers and callbacks run in this call.
    ///
    /// # Panics
    ///
    /// In a runtime without [`enable_time`](tokio::runtime::Builder::enable_time), with tokio's words. The stop has begun
    /// even so, and ends by the process's timer.
    #[track_caller]
    pub fn stop(&self, drain: Duration) {
        self.node.stop(drain, Stopper::Call(Location::caller()));
    }

    /// Ends the context now, whether stopping has begun or not. Otherwise as
    /// [`CancelHandle::cancel`](crate::CancelHandle::cancel).
    #[track_caller]
    pub fn cancel(&self) {
        let location = Location::caller();
        let error = || ContextError::at(Reason::Cancelled, location, None);
        self.node.end(error);
    }

    /// Ends the context with a cause. Otherwise as [`cancel`](StopHandle::cancel).
    #[track_caller]
    pub fn cancel_with(&self, cause: impl Into<BoxError>) {
        let location = Location::caller();
        let cause = cause.into();
        let error = || ContextError::at(Reason::Cancelled, location, Some(cause));
        self.node.end(error);
    }
}

impl StopPoint {
    pub(super) fn steps(&self) -> &Arc<Steps> {
        &self.steps
    }

    /// Whether an alarm at this time would be the first.
    fn begin(&self, at: Instant) -> bool {
        let mut state = self.state.lock();
        state.has_begun = true;
        state.is_first(at)
    }

    fn has_begun(&self) -> bool {
        self.state.lock().has_begun
    }

    /// Puts an alarm in the place of the one there is, and returns the key of the one that is not needed.
    fn replace(&self, at: Instant, key: u32) -> Option<u32> {
        let mut state = self.state.lock();
        if !state.is_first(at) {
            return Some(key);
        }
        state.alarm.replace((at, key)).map(|(_, key)| key)
    }
}

impl State {
    fn is_first(&self, at: Instant) -> bool {
        self.alarm.is_none_or(|(earlier, _)| at < earlier)
    }
}

impl Node {
    /// Begins to stop a node that was derived for it.
    pub(crate) fn stop(self: &Arc<Self>, drain: Duration, stopper: Stopper) {
        let Some(point) = self.stop_point() else {
            // It was born ended.
            return;
        };
        let (now, location) = (now(), stopper.location().unwrap_or(self.location()));
        let at = later(now, drain);
        let is_first = point.begin(at);
        if self.tell_if_overdue() {
            return;
        }
        let Some(step) = Step::Stopping.of(self) else {
            return;
        };
        if !is_first {
            // Whoever set the earlier end may still be on his way to this.
            step.end(|| stopper.stopping());
            return;
        }
        let begin = Begin {
            step,
            error: stopper.stopping(),
        };
        let (node, alarms) = (Arc::downgrade(self), begin.clone());
        let end = move || {
            drop(alarms);
            if let Some(node) = node.upgrade() {
                node.end(|| stopper.stopped(drain));
            }
        };
        if at <= now {
            return end();
        }
        // First the alarm: a callback that blocks does not hold up the end.
        if let Some(alarm) = Alarm::set(self, at, location, end) {
            let key = alarm.key;
            let unused = point.replace(at, key);
            if unused != Some(key) {
                alarm.arm();
            }
            drop(unused.and_then(|key| self.deregister(key)));
        }
        drop(begin);
    }
}

impl Node {
    /// Begins to stop a group, whose owner ends it when it is time.
    pub(crate) fn begin_stopping(self: &Arc<Self>, stopper: &Stopper) {
        if let Some(step) = Step::Stopping.of(self) {
            step.end(|| stopper.stopping());
        }
    }
}

/// Ends the step when it is dropped: by whoever comes first, and although arming the alarm panics.
#[derive(Clone)]
struct Begin {
    step: Arc<Node>,
    error: ContextError,
}

impl Drop for Begin {
    fn drop(&mut self) {
        self.step.end(|| self.error.clone());
    }
}

impl Stopper {
    fn location(&self) -> Option<&'static Location<'static>> {
        match self {
            Self::Call(location) => Some(location),
            #[cfg(feature = "signal")]
            Self::Signal(_) => None,
        }
    }

    fn cause(&self) -> Option<BoxError> {
        match self {
            Self::Call(_) => None,
            #[cfg(feature = "signal")]
            Self::Signal(signal) => Some(signal.clone().into()),
        }
    }

    /// Why the stopping context ends.
    pub(crate) fn stopping(&self) -> ContextError {
        ContextError::stop(Reason::Stopping, None, self.location(), self.cause())
    }

    /// Why the context ends when the drain is over.
    pub(crate) fn stopped(&self, drain: Duration) -> ContextError {
        ContextError::stop(Reason::Stopped, Some(drain), self.location(), self.cause())
    }
}

impl Clone for StopHandle {
    fn clone(&self) -> Self {
        self.node.add_handle();
        Self {
            node: self.node.clone(),
        }
    }
}

impl Drop for StopHandle {
    fn drop(&mut self) {
        let point = self.node.stop_point();
        // In this order (invariant 1).
        if self.node.remove_handle() && !point.is_some_and(StopPoint::has_begun) {
            self.node
                .end(|| ContextError::unstopped(self.node.location()));
        }
    }
}

impl UnwindSafe for StopHandle {}
impl RefUnwindSafe for StopHandle {}

impl fmt::Debug for StopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopHandle")
            .field("derived_at", &format_args!("{}", self.node.location()))
            .field(
                "has_begun",
                &self.node.stop_point().is_some_and(StopPoint::has_begun),
            )
            .field("ended", &self.node.error_ref())
            .finish()
    }
}
