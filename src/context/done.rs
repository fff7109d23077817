//! `Done` and `DoneOwned`: waiting for the end of a context.

use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, RawWakerVTable, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use futures::future::FusedFuture;

use super::clock::{self, now};
use super::listeners::Place;
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

/// A waker's place in a node. Registers once, however often it is polled.
#[derive(Clone, Copy)]
struct Registration {
    /// The key of the place, or one of the two that are none.
    key: u32,
    /// Which of the node's shards the place is in.
    shard: u32,
    /// Which waker was polled with. Its clone lies in the node, so another one is not mistaken for it, and who polls again
    /// with the same one need not lock the node to find that out.
    waker: WakerId,
}

/// What `Waker::will_wake` compares.
type WakerId = (usize, usize);

fn id(waker: &Waker) -> WakerId {
    let vtable: *const RawWakerVTable = waker.vtable();
    (waker.data().addr(), vtable.addr())
}

const IDLE: u32 = u32::MAX;
const ENDED: u32 = u32::MAX - 1;
const _: () = assert!(FIRST < ENDED);

impl Registration {
    const NONE: Self = Self {
        key: IDLE,
        shard: 0,
        waker: (0, 0),
    };
}

impl<'a> Done<'a> {
    #[inline]
    pub(super) fn new(node: Option<&'a Arc<Node>>) -> Self {
        Self {
            node,
            registration: Registration::NONE,
        }
    }
}

impl Done<'_> {
    /// The end, if it has come; tells a deadline that has passed, and registers nobody.
    pub(super) fn ended(&self) -> Option<ContextError> {
        let node = self.node.filter(|node| node.tell_if_overdue())?;
        node.err()
    }
}

impl DoneOwned {
    pub(super) fn new(node: Option<Arc<Node>>) -> Self {
        Self {
            node,
            registration: Registration::NONE,
        }
    }
}

impl Registration {
    #[inline]
    fn poll(&mut self, node: &Arc<Node>, cx: &mut TaskContext<'_>) -> Poll<ContextError> {
        self.poll_with(node, cx, |node| node.see_to_timer())
    }

    /// Polls for who may have a clock of its own: `see_to_timer` is called before a waker is registered, with no lock
    /// held.
    fn poll_with(
        &mut self,
        node: &Arc<Node>,
        cx: &mut TaskContext<'_>,
        see_to_timer: impl FnOnce(&Node),
    ) -> Poll<ContextError> {
        if !node.tell_if_overdue() && self.is_registered(node, cx.waker(), see_to_timer) {
            return Poll::Pending;
        }
        // The entry, if there was one, went with the end.
        self.key = ENDED;
        match node.err() {
            Some(error) => Poll::Ready(error),
            None => unreachable!("errgroup: a node that refuses waiters has ended"),
        }
    }

    /// Sees to it that the waker is; `false` if the node ended meanwhile.
    #[inline]
    fn is_registered(
        &mut self,
        node: &Node,
        waker: &Waker,
        see_to_timer: impl FnOnce(&Node),
    ) -> bool {
        if self.place().is_some() && self.waker == id(waker) {
            return true;
        }
        self.register(node, waker, see_to_timer)
    }

    /// Another task may be on another runtime, so it sees to its timer as the first one did.
    fn register(&mut self, node: &Node, waker: &Waker, see_to_timer: impl FnOnce(&Node)) -> bool {
        // First: it panics in a runtime without a timer, and what it ends refuses the waker.
        see_to_timer(node);
        let kept = waker.clone();
        // A clone may have a table of its own, at another address. One that has data of its own keeps no other alive.
        self.waker = match kept.data() == waker.data() {
            true => id(waker),
            false => id(&kept),
        };
        let registered = match self.place() {
            Some(place) => node.listeners.replace_waker(place, kept).then_some(place),
            None => node.listeners.insert_waker(&node.state, kept),
        };
        match registered {
            Some(Place { key, shard }) => (self.key, self.shard) = (key, shard),
            None => self.key = ENDED,
        }
        registered.is_some()
    }

    #[inline]
    fn place(self) -> Option<Place> {
        let Self { key, shard, .. } = self;
        (key <= FIRST).then_some(Place { key, shard })
    }

    #[inline]
    fn release(self, node: Option<&Arc<Node>>) {
        if let (Some(place), Some(node)) = (self.place(), node) {
            Self::deregister(node, place);
        }
    }

    /// The waker is dropped with no lock held.
    fn deregister(node: &Node, place: Place) {
        drop(node.listeners.remove(place));
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.key {
            IDLE => "Idle",
            ENDED => "Ended",
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
        self.registration.key == ENDED
    }
}

impl FusedFuture for DoneOwned {
    fn is_terminated(&self) -> bool {
        self.registration.key == ENDED
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

// Who is told has no part in whether a value is whole.
impl UnwindSafe for Done<'_> {}
impl RefUnwindSafe for Done<'_> {}
impl UnwindSafe for DoneOwned {}
impl RefUnwindSafe for DoneOwned {}

/// Blocks the thread until the node ends or the time is over.
///
/// The thread is its own timer: it parks until the deadline. So it needs no runtime, and none that stands still holds it
/// up. Only a paused clock has to tell it, since nobody knows how long its hour is.
pub(super) fn block_on(
    node: Option<&Arc<Node>>,
    timeout: Option<Duration>,
) -> Option<ContextError> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let see_to_timer = |node: &Node| {
        if node.deadline().is_some() && clock::is_paused() {
            node.see_to_timer();
        }
    };
    // A timeout that overflows the clock is none.
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = TaskContext::from_waker(&waker);
    let mut done = Done::new(node);
    loop {
        let polled = node.map_or(Poll::Pending, |node| {
            done.registration.poll_with(node, &mut cx, see_to_timer)
        });
        if let Poll::Ready(error) = polled {
            return Some(error);
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return None;
        }
        let deadline = node.and_then(|node| node.deadline());
        let remaining = deadline.map(|deadline| deadline.saturating_duration_since(now()));
        match left.into_iter().chain(remaining).min() {
            Some(left) => thread::park_timeout(left),
            None => thread::park(),
        }
    }
}
