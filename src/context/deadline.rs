//! `Deadline`: the timer entry that ends a node, and the methods of `Context` that set one. No task is involved.
//!
//! Owned by its node, by the nodes below, which share it to know their own time, and by the waker that the timer holds.
//! That is a cycle, `Deadline → Sleep → waker → Deadline`, which `disarm` breaks: the node calls it when it ends and when
//! it is dropped.
//!
//! The timer is armed when the first waits for the node or for one below, after that has registered. Until then nobody
//! needs it: whoever asks is told by the clock. So a deadline that nobody waits for never bothers tokio's timer.
//!
//! An end disarms after it has set `ENDED`. Who waits below may arm the timer meanwhile: the end is on its way to him, and
//! the `Alarm` drops what comes too late.
//!
//! tokio's timer takes any waker. Ours is the `Deadline` itself: waking it ends the node, on the thread that drives
//! the timer, which holds no lock of tokio's while it wakes.
//!
//! Why not a waker that owns the node? Then an armed timer would keep the context alive, and dropping the context
//! would free nothing until the deadline.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context as TaskContext, Wake, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::coop::{Unconstrained, unconstrained};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Context;
use super::alarm::Alarm;
use super::node::Node;
use crate::error::{BoxError, ContextError};
use crate::panic::{catch, discard};

/// A sleep that does not count against the budget of the task that happens to be the first to wait: polled without
/// budget, it would not register with the timer.
type Timer = Pin<Box<Unconstrained<Sleep>>>;

pub(crate) struct Deadline {
    at: Instant,
    node: Weak<Node>,
    error: Prepared,
    /// Whose timer it is.
    runtime: Handle,
    alarm: Alarm<Timer>,
}

/// What the error is made of when the time comes; only a given cause is worth making it beforehand.
enum Prepared {
    Plain {
        timeout: Option<Duration>,
        location: &'static Location<'static>,
    },
    Caused(ContextError),
}

/// A deadline to be set: when, and what to say then.
struct Setting {
    now: Instant,
    at: Instant,
    timeout: Option<Duration>,
    cause: Option<BoxError>,
    location: &'static Location<'static>,
    runtime: Handle,
}

impl Context {
    /// Derives a context that ends when `timeout` has passed.
    ///
    /// No task waits for it. A timer of the runtime does, from the moment when somebody waits for the context or for one
    /// below, and until the context ends or is dropped. A timeout of zero is over at once; one that the clock cannot
    /// represent is thirty years. tokio's timer has a resolution of one millisecond; [`is_done`](Context::is_done) asks
    /// the clock itself, and needs no timer.
    ///
    /// If an ancestor's deadline is earlier, that one holds, and the result ends with the ancestor, by its reason.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, or in one without [`enable_time`](tokio::runtime::Builder::enable_time).
    #[track_caller]
    pub fn with_timeout(&self, timeout: Duration) -> Context {
        self.with_setting(Setting::after(timeout, None))
    }

    /// Derives a context that ends at `deadline`. A deadline in the past is over at once.
    ///
    /// Otherwise as [`with_timeout`](Context::with_timeout).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, or in one without [`enable_time`](tokio::runtime::Builder::enable_time).
    #[track_caller]
    pub fn with_deadline(&self, deadline: Instant) -> Context {
        self.with_setting(Setting::at(deadline, None))
    }

    /// Derives a context that ends when `timeout` has passed, with a cause of its own.
    ///
    /// The cause is kept unless an ancestor's strictly earlier deadline is what ends the context. Otherwise as
    /// [`with_timeout`](Context::with_timeout).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, or in one without [`enable_time`](tokio::runtime::Builder::enable_time).
    #[track_caller]
    pub fn with_timeout_cause(&self, timeout: Duration, cause: impl Into<BoxError>) -> Context {
        self.with_setting(Setting::after(timeout, Some(cause.into())))
    }

    /// Derives a context that ends at `deadline`, with a cause of its own.
    ///
    /// Otherwise as [`with_timeout_cause`](Context::with_timeout_cause).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, or in one without [`enable_time`](tokio::runtime::Builder::enable_time).
    #[track_caller]
    pub fn with_deadline_cause(&self, deadline: Instant, cause: impl Into<BoxError>) -> Context {
        self.with_setting(Setting::at(deadline, Some(cause.into())))
    }

    #[track_caller]
    fn with_setting(&self, setting: Setting) -> Context {
        if self.deadline().is_some_and(|earlier| earlier < setting.at) {
            return self.clone();
        }
        self.with_node(setting.derive(self.node()))
    }

    /// Returns when the context will end at the latest: the earliest deadline of its own and its ancestors'.
    pub fn deadline(&self) -> Option<Instant> {
        self.node()?.deadline()
    }

    /// Returns the time left to the deadline, zero when it has passed; `None` without a deadline.
    pub fn remaining(&self) -> Option<Duration> {
        Some(self.deadline()?.saturating_duration_since(Instant::now()))
    }
}

impl Setting {
    #[track_caller]
    fn at(at: Instant, cause: Option<BoxError>) -> Self {
        Self::new(Instant::now(), at, None, cause)
    }

    #[track_caller]
    fn after(timeout: Duration, cause: Option<BoxError>) -> Self {
        /// A future so far that the clock overflows is thirty years away, as in tokio.
        const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
        let now = Instant::now();
        let at = now.checked_add(timeout).unwrap_or(now + FAR);
        Self::new(now, at, Some(timeout), cause)
    }

    #[track_caller]
    fn new(now: Instant, at: Instant, timeout: Option<Duration>, cause: Option<BoxError>) -> Self {
        Self {
            now,
            at,
            timeout,
            cause,
            location: Location::caller(),
            runtime: current_runtime(),
        }
    }

    /// Derives a node that ends at this deadline, which no ancestor's precedes.
    #[track_caller]
    fn derive(self, parent: Option<&Arc<Node>>) -> Arc<Node> {
        // First of all, since it panics in a runtime without a timer.
        drop(sleep_until(self.at));
        let Self {
            now, at, location, ..
        } = self;
        let mut deadline = self.into_deadline();
        let parents = parent.and_then(Node::err);
        if let Some(error) = parents.or_else(|| (now >= at).then(|| deadline.error())) {
            return Node::ended(error, 0, Some(Arc::new(deadline)), location);
        }
        Node::derive_deadline(parent, location, |node| {
            deadline.node = node;
            deadline
        })
    }

    fn into_deadline(self) -> Deadline {
        let Self {
            at,
            timeout,
            cause,
            location,
            runtime,
            ..
        } = self;
        Deadline {
            at,
            node: Weak::new(),
            error: match cause {
                None => Prepared::Plain { timeout, location },
                cause => Prepared::Caused(ContextError::deadline(timeout, location, cause)),
            },
            runtime,
            alarm: Alarm::new(),
        }
    }
}

/// Panics outside a runtime, whether or not a timer turns out to be needed: a mistake should show the first time.
#[track_caller]
fn current_runtime() -> Handle {
    Handle::try_current().unwrap_or_else(|_| {
        panic!(
            "errgroup: a context with a deadline needs the timer of a tokio runtime, and this thread is in none: derive \
             it inside `block_on` or a task, or call `Handle::enter` first"
        )
    })
}

impl Deadline {
    /// Somebody waits from now on, for the node or for one below. This may end them.
    #[inline]
    pub(super) fn arm(self: &Arc<Self>) {
        self.alarm.set(|| self.start());
    }

    /// Registers the timer.
    #[inline(never)]
    fn start(self: &Arc<Self>) -> Option<Timer> {
        let registered = catch(|| {
            let _entered = self.runtime.enter();
            let waker = Waker::from(self.clone());
            let mut timer = Box::pin(unconstrained(sleep_until(self.at)));
            let polled = timer.as_mut().poll(&mut TaskContext::from_waker(&waker));
            polled.is_pending().then_some(timer)
        });
        match registered {
            Ok(None) => self.wake_by_ref(),
            Ok(Some(timer)) => return Some(timer),
            // The runtime has been shut down: it has no timer, and whoever asks is still told by the clock.
            Err(payload) => discard(payload),
        }
        None
    }

    /// Whether there has been a timer.
    pub(super) fn is_armed(&self) -> bool {
        self.alarm.is_set()
    }

    /// Frees the timer, for good.
    pub(super) fn disarm(&self) {
        self.alarm.stop();
    }

    pub(super) fn at(&self) -> Instant {
        self.at
    }

    pub(super) fn owner(&self) -> Option<Arc<Node>> {
        self.node.upgrade()
    }

    /// The error of a context that this deadline ends.
    pub(super) fn error(&self) -> ContextError {
        match &self.error {
            Prepared::Plain { timeout, location } => {
                ContextError::deadline(*timeout, location, None)
            }
            Prepared::Caused(error) => error.clone(),
        }
    }
}

impl Wake for Deadline {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A runtime that shuts down wakes every timer, due or not: `is_done` asks the clock.
        if let Some(node) = self.owner() {
            node.is_done();
        }
    }
}
