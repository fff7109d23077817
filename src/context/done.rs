//! `Done` and `DoneOwned`: waiting for the end of a context.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use futures::future::FusedFuture;

use super::listeners::Refreshed;
use super::node::Node;
use crate::error::ContextError;
use crate::ordered_slab::FIRST;

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

/// A waker's place in a node: its key, or one of the two that are none. Registers once, however often it is polled.
///
/// Why not an enum? Then a `Done` would be three scalars, and moving it would go through memory.
#[derive(Clone, Copy, PartialEq)]
struct Registration(u32);

impl Registration {
    const IDLE: Self = Self(u32::MAX);
    const ENDED: Self = Self(u32::MAX - 1);
}

const _: () = assert!(FIRST < Registration::ENDED.0);

impl<'a> Done<'a> {
    #[inline]
    pub(super) fn new(node: Option<&'a Arc<Node>>) -> Self {
        Self {
            node,
            registration: Registration::IDLE,
        }
    }
}

impl DoneOwned {
    pub(super) fn new(node: Option<Arc<Node>>) -> Self {
        Self {
            node,
            registration: Registration::IDLE,
        }
    }
}

impl Registration {
    fn poll(&mut self, node: &Arc<Node>, cx: &mut TaskContext<'_>) -> Poll<ContextError> {
        if !node.is_done() && self.is_registered(node, cx.waker()) {
            return Poll::Pending;
        }
        // The entry, if there was one, went with the end.
        *self = Registration::ENDED;
        match node.err() {
            Some(error) => Poll::Ready(error),
            None => unreachable!("errgroup: a node that refuses waiters has ended"),
        }
    }

    /// Sees to it that the waker is; `false` if the node ended meanwhile.
    #[inline]
    fn is_registered(&mut self, node: &Node, waker: &Waker) -> bool {
        if let Some(key) = self.key() {
            return matches!(node.refresh(key, waker), Refreshed::Registered);
        }
        let key = node.register_waker(waker.clone());
        *self = key.map_or(Registration::ENDED, Registration);
        key.is_some()
    }

    #[inline]
    fn key(self) -> Option<u32> {
        (self.0 <= FIRST).then_some(self.0)
    }

    #[inline]
    fn release(self, node: Option<&Arc<Node>>) {
        if let (Some(key), Some(node)) = (self.key(), node) {
            Self::deregister(node, key);
        }
    }

    /// The waker is dropped with no lock held.
    fn deregister(node: &Node, key: u32) {
        drop(node.deregister(key));
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Registration::IDLE => "Idle",
            Registration::ENDED => "Ended",
            _ => "Registered",
        })
    }
}

impl Future for Done<'_> {
    type Output = ContextError;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<ContextError> {
        match self.node {
            Some(node) => self.registration.poll(node, cx),
            None => Poll::Pending,
        }
    }
}

impl Future for DoneOwned {
    type Output = ContextError;

    #[inline]
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
        self.registration == Registration::ENDED
    }
}

impl FusedFuture for DoneOwned {
    fn is_terminated(&self) -> bool {
        self.registration == Registration::ENDED
    }
}

impl Drop for Done<'_> {
    #[inline]
    fn drop(&mut self) {
        self.registration.release(self.node);
    }
}

impl Drop for DoneOwned {
    #[inline]
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
