//! `StopHandle`: the right to stop a context in two steps. `Stopper`: who does.
//!
//! Stopping begins with the end of the context's step (`steps.rs`), and the context ends when the drain is over, by an
//! alarm. In this order, always: who ends the context for the drain has ended the step before. What the node knows of it is
//! in its `StopPoint`.
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

use super::alarm::Alarm;
use super::clock::{later, now};
use super::node::Node;
use super::step::Step;
use super::steps::StopPoint;
use crate::error::{BoxError, ContextError, Reason};

/// The right to stop one [`Context`](crate::Context) in two steps: the value of
/// [`Context::with_stop`](crate::Context::with_stop).
///
/// Held by the context's owner. Clones share the right. Dropping the last one ends the context, as with a
/// [`CancelHandle`](crate::CancelHandle), unless [`stop`](StopHandle::stop) was called: after that dropping handles
/// changes nothing.
#[must_use = "dropping the last handle ends the context at once, unless `stop` was called: keep it"]
pub struct StopHandle {
    node: Arc<Node>,
}

/// Who stops.
#[derive(Clone, Debug)]
pub(crate) enum Stopper {
    Call(&'static Location<'static>),
    /// By what it would end a context without a drain.
    #[cfg(feature = "signal")]
    Signal(ContextError),
}

impl StopHandle {
    /// The handle that the node was derived with.
    pub(super) fn first(node: Arc<Node>) -> Self {
        Self { node }
    }

    /// Begins to stop: [`stopping`](crate::Context::stopping) contexts end now, with [`Reason::Stopping`], and the context itself
    /// when `drain` is over, with [`Reason::Stopped`].
    ///
    /// A drain of zero ends both in this call; one that the clock cannot represent is thirty years. Called again, the earlier
    /// end holds. From now on dropping handles changes nothing; [`cancel`](StopHandle::cancel), a deadline or the parent can
    /// still end the context before the drain is over. [`deadline`](crate::Context::deadline) does not show the drain.
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
        Stopper::Call(Location::caller()).stop(&self.node, drain);
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

/// The node that ends when stopping begins, of this one or of one above; `None` if it is the node itself.
pub(super) fn stopping(
    node: &Arc<Node>,
    location: &'static Location<'static>,
) -> Option<Arc<Node>> {
    let step = Step::Stopping.of(node)?;
    // Asked once: a node that ends after this ends the merged one.
    match node.err() {
        None => Some(Node::merge(node, &step, location)),
        // It had begun before.
        Some(end) if end.reason() == Reason::Stopped => Some(step),
        Some(_) => None,
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
    /// Begins to stop a node that was derived for it.
    pub(crate) fn stop(self, node: &Arc<Node>, drain: Duration) {
        let Some(point) = node.stop_point() else {
            // It was born ended.
            return;
        };
        let (now, location) = (now(), self.location().unwrap_or(node.location()));
        let at = later(now, drain);
        let is_first = point.begin(at);
        if node.tell_if_overdue() {
            return;
        }
        let Some(step) = Step::Stopping.of(node) else {
            return;
        };
        if !is_first {
            // Whoever set the earlier end may still be on his way to this.
            step.end(|| self.stopping());
            return;
        }
        let begin = Begin {
            step,
            error: self.stopping(),
        };
        let (weak, alarms) = (Arc::downgrade(node), begin.clone());
        let end = move || {
            drop(alarms);
            if let Some(node) = weak.upgrade() {
                node.end(|| self.stopped(drain));
            }
        };
        if at <= now {
            return end();
        }
        // First the alarm: a callback that blocks does not hold up the end.
        if let Some(alarm) = Alarm::set(node, at, location, end) {
            let key = alarm.key;
            let unused = point.replace(at, key);
            if unused != Some(key) {
                alarm.arm();
            }
            drop(unused.and_then(|key| node.deregister(key)));
        }
        drop(begin);
    }

    /// Begins to stop a group, whose owner ends it when it is time.
    pub(crate) fn begin(&self, node: &Arc<Node>) {
        if let Some(step) = Step::Stopping.of(node) {
            step.end(|| self.stopping());
        }
    }

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
        self.node.state.add_handle();
        Self {
            node: self.node.clone(),
        }
    }
}

impl Drop for StopHandle {
    fn drop(&mut self) {
        let point = self.node.stop_point();
        // In this order (invariant 1).
        if self.node.state.remove_handle() && !point.is_some_and(StopPoint::has_begun) {
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
