//! `Done` and `DoneOwned`: waiting for the end of a context.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use futures::future::FusedFuture;

use super::listeners::{Refreshed, Waiter};
use super::node::Node;
use crate::error::ContextError;

/// Waits for the end of a [`Context`](crate::Context): the future of [`Context::done`](crate::Context::done).
///
/// It is fused and level-triggered: polled after it was ready, it is ready again.
///
/// # Cancel safety
///
/// Dropping it unregisters it, and loses nothing.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Done<'a> {
    node: Option<&'a Arc<Node>>,
    registration: Registration,
}

/// Waits for the end of a [`Context`](crate::Context) without borrowing it: the future of
/// [`Context::done_owned`](crate::Context::done_owned).
///
/// # Cancel safety
///
/// Dropping it unregisters it, and loses nothing.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct DoneOwned {
    node: Option<Arc<Node>>,
    registration: Registration,
}

/// A waker's place in a node. Registers once, however often it is polled.
#[derive(Debug)]
enum Registration {
    Idle,
    Registered(u32),
    Ended,
}

impl<'a> Done<'a> {
    pub(super) fn new(node: Option<&'a Arc<Node>>) -> Self {
        Self {
            node,
            registration: Registration::Idle,
        }
    }
}

impl DoneOwned {
    pub(super) fn new(node: Option<Arc<Node>>) -> Self {
        Self {
            node,
            registration: Registration::Idle,
        }
    }
}

impl Registration {
    fn poll(&mut self, node: &Arc<Node>, cx: &mut TaskContext<'_>) -> Poll<ContextError> {
        if !node.is_done() && self.register(node, cx) {
            return Poll::Pending;
        }
        // The entry, if there was one, went with the end.
        *self = Registration::Ended;
        match node.err() {
            Some(error) => Poll::Ready(error),
            None => unreachable!("errgroup: a node that refuses waiters has ended"),
        }
    }

    /// Returns `false` if the node ended meanwhile.
    fn register(&mut self, node: &Arc<Node>, cx: &mut TaskContext<'_>) -> bool {
        match *self {
            Registration::Registered(key) => {
                matches!(node.refresh(key, cx.waker()), Refreshed::Registered)
            }
            _ => match node.register(Waiter::Waker(cx.waker().clone())) {
                Ok(key) => {
                    *self = Registration::Registered(key);
                    true
                }
                Err(_) => false,
            },
        }
    }

    fn release(&mut self, node: Option<&Arc<Node>>) {
        if let (Registration::Registered(key), Some(node)) = (&*self, node) {
            // Dropped here, with no lock held.
            drop(node.deregister(*key));
        }
    }
}

impl Future for Done<'_> {
    type Output = ContextError;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<ContextError> {
        match self.node {
            Some(node) => self.registration.poll(node, cx),
            None => Poll::Pending,
        }
    }
}

impl Future for DoneOwned {
    type Output = ContextError;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<ContextError> {
        let this = self.get_mut();
        match &this.node {
            Some(node) => this.registration.poll(node, cx),
            None => Poll::Pending,
        }
    }
}

impl FusedFuture for Done<'_> {
    fn is_terminated(&self) -> bool {
        matches!(self.registration, Registration::Ended)
    }
}

impl FusedFuture for DoneOwned {
    fn is_terminated(&self) -> bool {
        matches!(self.registration, Registration::Ended)
    }
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.registration.release(self.node);
    }
}

impl Drop for DoneOwned {
    fn drop(&mut self) {
        self.registration.release(self.node.as_ref());
    }
}

impl fmt::Debug for Done<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Done").field(&self.registration).finish()
    }
}

impl fmt::Debug for DoneOwned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DoneOwned")
            .field(&self.registration)
            .finish()
    }
}

/// Blocks the thread until `done` is ready or the time is over. `remaining` says how long the context itself can last.
pub(super) fn block_on(
    mut done: Done<'_>,
    timeout: Option<Duration>,
    remaining: impl Fn() -> Option<Duration>,
) -> Option<ContextError> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    // A timeout that overflows the clock is none.
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = TaskContext::from_waker(&waker);
    loop {
        if let Poll::Ready(error) = Pin::new(&mut done).poll(&mut cx) {
            return Some(error);
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return None;
        }
        // The context's deadline holds although its runtime may be gone, and the timer with it.
        match left.into_iter().chain(remaining()).min() {
            Some(left) => thread::park_timeout(left),
            None => thread::park(),
        }
    }
}
