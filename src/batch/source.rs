//! `Source`: a stream that many lanes pull from.
//!
//! Invariants:
//!
//! 1. The stream is polled under the `turn` lock, by one lane at a time, and with one waker: the `Parked` lanes'.
//! 2. `is_over` is set while the stream is polled, and stays so when it is dry or has panicked: then it is never polled
//!    again.
//! 3. A wake-up of the stream goes to one parked lane, or is remembered in `is_woken` for the next that would park. A
//!    lane that finds an item gives up its place and passes the wake-up on, since there may be another.
//! 4. From `is_closed` on nobody parks.
//!
//! Lock order: `turn` before `parked`, when a stream wakes while it is polled. Lanes are woken with neither held by us.
//!
//! Why poll foreign code under a lock? The lock is the lanes' turn and nothing else: nobody who is polled there can ask
//! for it. Taking the stream out for each item instead, and parking the others, costs a wake-up per item.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};

use futures::Stream;

use crate::panic::contain;
use crate::sync::Mutex;

pub(super) struct Source<S> {
    turn: Mutex<Turn<S>>,
    parked: Arc<Parked>,
    /// `parked`, as the stream sees it.
    waker: Waker,
}

struct Turn<S> {
    stream: S,
    next: usize,
    is_over: bool,
    /// The stream was not ready once: lanes may be parked.
    was_pending: bool,
}

#[derive(Default)]
struct Parked(Mutex<Lanes>);

#[derive(Default)]
struct Lanes {
    /// By ticket: a lane that is polled although nobody woke it keeps its place.
    wakers: BTreeMap<u64, Waker>,
    next_ticket: u64,
    is_woken: bool,
    is_closed: bool,
}

impl<S> Source<S> {
    pub(super) fn new(stream: S) -> Self {
        let parked = Arc::new(Parked::default());
        Self {
            turn: Mutex::new(Turn {
                stream,
                next: 0,
                is_over: false,
                was_pending: false,
            }),
            waker: Waker::from(parked.clone()),
            parked,
        }
    }
}

impl<S: Stream + Unpin> Source<S> {
    /// Waits for the next item and its index; `None` when the stream is dry, or has panicked.
    ///
    /// # Cancel safety
    ///
    /// A lane is dropped only when the batch is over, so a wake-up that it takes with it is missed by nobody.
    pub(super) async fn pull(&self) -> Option<(usize, S::Item)> {
        let mut ticket = None;
        poll_fn(|cx| self.poll_pull(&mut ticket, cx)).await
    }

    /// Whether the stream has ended, as far as a lane has seen.
    pub(super) fn is_over(&self) -> bool {
        self.turn.lock().is_over
    }

    /// Whether the stream has ended, or says that it has no other item.
    pub(super) fn is_dry(&self) -> bool {
        let turn = self.turn.lock();
        turn.is_over || turn.stream.size_hint().1 == Some(0)
    }

    fn poll_pull(
        &self,
        ticket: &mut Option<u64>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<(usize, S::Item)>> {
        let mut turn = self.turn.lock();
        let polled = turn.poll(&self.waker);
        let was_pending = turn.was_pending;
        drop(turn);
        match polled {
            Poll::Ready(Some(item)) => {
                self.parked.leave(ticket.take());
                if was_pending {
                    self.parked.wake_by_ref();
                }
                Poll::Ready(Some(item))
            }
            Poll::Ready(None) => {
                self.parked.close();
                Poll::Ready(None)
            }
            Poll::Pending => {
                if !self.parked.park(ticket, cx.waker()) {
                    // Through the runtime, not in a loop: a stream that wakes itself leaves the others their turn.
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}

impl<S: Stream + Unpin> Turn<S> {
    fn poll(&mut self, waker: &Waker) -> Poll<Option<(usize, S::Item)>> {
        if std::mem::replace(&mut self.is_over, true) {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.stream).poll_next(&mut TaskContext::from_waker(waker));
        self.is_over = matches!(polled, Poll::Ready(None));
        self.was_pending |= polled.is_pending();
        polled.map(|item| {
            let index = self.next;
            self.next += 1;
            item.map(|item| (index, item))
        })
    }
}

impl Parked {
    /// Leaves a lane's waker; `false` if the lane is to look again instead.
    fn park(&self, ticket: &mut Option<u64>, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut lanes = self.0.lock();
        let may_park = !std::mem::take(&mut lanes.is_woken) && !lanes.is_closed;
        let unused = if may_park {
            let ticket = *ticket.get_or_insert(lanes.next_ticket);
            lanes.next_ticket = lanes.next_ticket.max(ticket + 1);
            lanes.wakers.insert(ticket, waker)
        } else {
            Some(waker)
        };
        drop(lanes);
        drop(unused);
        may_park
    }

    /// Gives up a lane's place, which a wake-up may have taken already.
    fn leave(&self, ticket: Option<u64>) {
        if let Some(ticket) = ticket {
            let waker = self.0.lock().wakers.remove(&ticket);
            drop(waker);
        }
    }

    fn close(&self) {
        let mut lanes = self.0.lock();
        lanes.is_closed = true;
        let wakers = std::mem::take(&mut lanes.wakers);
        drop(lanes);
        for waker in wakers.into_values() {
            contain(|| waker.wake());
        }
    }
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut lanes = self.0.lock();
        let waker = lanes.wakers.pop_first().map(|(_, waker)| waker);
        lanes.is_woken |= waker.is_none();
        drop(lanes);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
