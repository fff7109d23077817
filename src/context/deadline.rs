//! `Deadline`: the timer entry that ends a node. No task is involved.
//!
//! Owned by its node, and by the waker that the timer holds. The two make a cycle, `timer → Sleep → waker → Deadline`,
//! which `disarm` breaks: the node calls it when it ends and when it is dropped.
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
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::coop::{Unconstrained, unconstrained};
use tokio::time::{Instant, Sleep, sleep_until};

use super::node::Node;
use crate::error::{BoxError, ContextError};
use crate::sync::Mutex;

/// A sleep that does not count against the budget of the task which happens to derive the context: polled without
/// budget, it would not register with the timer.
type Timer = Pin<Box<Unconstrained<Sleep>>>;

pub(crate) struct Deadline {
    node: Weak<Node>,
    /// As given to `with_timeout`; for the text only.
    timeout: Option<Duration>,
    /// Made beforehand if there is a cause to keep.
    error: Option<ContextError>,
    /// `None` until armed, and again from `disarm` on.
    timer: Mutex<Option<Timer>>,
}

/// A deadline to be set: when, and what to say then.
pub(super) struct Setting {
    pub(super) at: Instant,
    pub(super) timeout: Option<Duration>,
    pub(super) cause: Option<BoxError>,
    pub(super) location: &'static Location<'static>,
}

impl Setting {
    /// Derives a node that ends at this deadline, which no ancestor's precedes.
    #[track_caller]
    pub(super) fn derive(self, parent: Option<&Arc<Node>>) -> Arc<Node> {
        // First of all, since it panics in a runtime without a timer.
        let timer = Box::pin(unconstrained(sleep_until(self.at)));
        let Self {
            at,
            timeout,
            cause,
            location,
        } = self;
        if let Some(error) = parent.and_then(Node::err) {
            return Node::born_ended(error, Some(at), location);
        }
        if Instant::now() >= at {
            let error = ContextError::deadline(timeout, location, cause);
            return Node::born_ended(error, Some(at), location);
        }
        let error = cause.map(|cause| ContextError::deadline(timeout, location, Some(cause)));
        let mut armed = None;
        let node = Node::derive_deadline(parent, at, location, |node| {
            let deadline = Arc::new(Deadline {
                node,
                timeout,
                error,
                timer: Mutex::new(None),
            });
            armed = Some(deadline.clone());
            deadline
        });
        if let Some(deadline) = armed {
            deadline.arm(timer, &node);
        }
        node
    }
}

/// A far future that the timer can represent, for timeouts that overflow the clock: thirty years, as in tokio.
pub(super) fn after(timeout: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or(now + FAR)
}

/// Panics outside a runtime, whether or not a timer turns out to be needed: a mistake should show the first time.
#[track_caller]
pub(super) fn require_timer() {
    assert!(
        Handle::try_current().is_ok(),
        "errgroup: a context with a deadline needs the timer of a tokio runtime, and this thread is in none: derive it \
         inside `block_on` or a task, or call `Handle::enter` first"
    );
}

impl Deadline {
    /// Registers the timer.
    fn arm(self: &Arc<Self>, mut timer: Timer, node: &Arc<Node>) {
        let waker = Waker::from(self.clone());
        let mut cx = TaskContext::from_waker(&waker);
        match timer.as_mut().poll(&mut cx) {
            Poll::Ready(()) => node.expire(),
            Poll::Pending => {
                *self.timer.lock() = Some(timer);
                if node.is_done() {
                    // It ended while the timer was not yet there to be taken.
                    self.disarm();
                }
            }
        }
    }

    /// Frees the timer.
    pub(super) fn disarm(&self) {
        let timer = self.timer.lock().take();
        drop(timer);
    }

    /// The error of a context that this deadline ends.
    pub(super) fn error(&self, location: &'static Location<'static>) -> ContextError {
        match &self.error {
            Some(error) => error.clone(),
            None => ContextError::deadline(self.timeout, location, None),
        }
    }
}

impl Wake for Deadline {
    fn wake(self: Arc<Self>) {
        // A runtime that shuts down wakes every timer, due or not: `is_done` asks the clock.
        if let Some(node) = self.node.upgrade() {
            node.is_done();
        }
    }
}
