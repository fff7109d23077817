//! `Lane`: a task that runs the function on one item after the other, and pulls the next when it is done.
//!
//! It is polled by its group's task, which checks the end of the context before each poll and catches panics. What a lane
//! has in hand is dropped with it; what it had pulled and not done then is lost, and the batch is told.
//!
//! Why no async block? One that panics drops what it holds while the panic unwinds: an item that panics in its drop, too,
//! would abort. Here it is dropped after the panic was caught.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context as TaskContext, Poll, ready};

use futures::Stream;
use pin_project_lite::pin_project;
use tokio::task::yield_now;

use super::Shared;
use super::items::Block;
use super::lanes::Seat;
use super::pace::{Lap, Pace};
use super::sink::Sink;
use super::source::{Order, Pulled, Staff};
use crate::context::{Context, Node};
use crate::error::GroupError;
use crate::group::Spawner;

/// After so many items that ended at once the others get their turn: some microseconds.
const TURN: usize = 224;

pin_project! {
    pub(super) struct Lane<S, F, Fut, T, E, K>
    where
        S: Stream,
        E: GroupError,
        K: Sink<T>,
    {
        // The item that runs. Dropped before the rest.
        #[pin]
        running: Option<Fut>,
        hand: Hand<S, F, T, E, K>,
    }

    impl<S, F, Fut, T, E, K> PinnedDrop for Lane<S, F, Fut, T, E, K>
    where
        S: Stream,
        E: GroupError,
        K: Sink<T>,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            this.hand.end_context();
            if this.running.is_some() || !this.hand.block.is_empty() {
                this.hand.work.lose_item();
            }
        }
    }
}

/// All that a lane has but the item that runs.
struct Hand<S, F, T, E, K>
where
    S: Stream,
    E: GroupError,
    K: Sink<T>,
{
    work: Shared<S, F, K>,
    spawner: Spawner<E>,
    /// What the items are given: below the group's and the lane's own, so that counting its clones is no business of
    /// other threads.
    ctx: Context,
    seat: Seat,
    /// Items that were pulled and not started.
    block: Block<S::Item>,
    pace: Pace,
    was_slow: bool,
    /// The clock is read for each item: then they are pulled one by one. To read it under the source's lock could end
    /// the context there, and run foreign code.
    has_deadline: bool,
    results: K::Lane,
}

impl<S, F, Fut, T, E, K> Lane<S, F, Fut, T, E, K>
where
    S: Stream<Item: Send + 'static> + Unpin + Send + 'static,
    F: Fn(Context, S::Item) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: GroupError,
    K: Sink<T>,
{
    /// Starts a lane, which the source has counted.
    pub(super) fn start(work: Shared<S, F, K>, spawner: &Spawner<E>) {
        let spec = work.spec();
        let group = spawner.context();
        let node = Node::derive(group.node(), 0, work.location);
        let hand = Hand {
            work,
            spawner: spawner.clone(),
            ctx: group.with_node(node),
            seat: Seat::new(),
            block: Block::default(),
            pace: Pace::new(),
            was_slow: false,
            has_deadline: group.deadline().is_some(),
            results: K::Lane::default(),
        };
        let lane = Lane::<S, F, Fut, T, E, K> {
            running: None,
            hand,
        };
        drop(spawner.launch(spec, lane));
    }

    /// The item has to wait.
    fn wait(hand: &mut Hand<S, F, T, E, K>) {
        if hand.hold_up() == Staff::OneMore {
            Self::start(hand.work.clone(), &hand.spawner);
        }
    }

    /// Pulls the next block, or gives a part of this one to others. Starts the lane that is missing.
    fn poll_refill(
        hand: &mut Hand<S, F, T, E, K>,
        ran: &mut usize,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Pulled> {
        let refilled = match hand.block.is_empty() {
            true => ready!(hand.poll_pull(*ran, cx)),
            false => Pulled::Items(hand.share()),
        };
        *ran += hand.block.len();
        if refilled != Pulled::Items(Staff::OneMore) {
            return Poll::Ready(refilled);
        }
        Self::start(hand.work.clone(), &hand.spawner);
        // This thread is about to run it next, and no other can: the others can have this lane.
        hand.give_way(cx)
    }
}

impl<S, F, Fut, T, E, K> Future for Lane<S, F, Fut, T, E, K>
where
    S: Stream<Item: Send + 'static> + Unpin + Send + 'static,
    F: Fn(Context, S::Item) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: GroupError,
    K: Sink<T>,
{
    type Output = Result<(), E>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let hand = this.hand;
        let mut ran = 0;
        loop {
            if let Some(future) = this.running.as_mut().as_pin_mut() {
                let Poll::Ready(result) = future.poll(cx) else {
                    Self::wait(hand);
                    return Poll::Pending;
                };
                this.running.set(None);
                hand.put(result)?;
            }
            if hand.block.is_empty() || hand.has_to_share() {
                match ready!(Self::poll_refill(hand, &mut ran, cx)) {
                    Pulled::Nothing => return Poll::Ready(Ok(())),
                    Pulled::Items(_) => {}
                }
            }
            let Some(item) = hand.take() else {
                return Poll::Ready(Ok(()));
            };
            let future = (hand.work.f)(hand.ctx.clone(), item);
            this.running.set(Some(future));
        }
    }
}

impl<S, F, T, E, K> Hand<S, F, T, E, K>
where
    S: Stream + Unpin,
    E: GroupError,
    K: Sink<T>,
{
    /// The next item of the block, if the context is live.
    #[inline]
    fn take(&mut self) -> Option<S::Item> {
        match self.ctx.is_done() {
            true => None,
            false => self.block.pop(),
        }
    }

    #[inline]
    fn put(&mut self, result: Result<T, E>) -> Result<(), E> {
        // An error may be the end of the context, passed on: then the item was not done.
        let result = result.inspect_err(|_| self.work.lose_item())?;
        let index = self.block.popped();
        self.work.sink.put(&mut self.results, index, result);
        Ok(())
    }

    /// Another lane had nothing to do, and this one has more than the next item.
    #[inline]
    fn has_to_share(&mut self) -> bool {
        self.work.source.is_wanting() && self.block.len() > 1 && self.pace.is_worth_sharing()
    }

    fn hold_up(&mut self) -> Staff {
        self.pace.wait();
        self.work.sink.flush(&mut self.results);
        self.work.source.hold_up(&mut self.seat, &mut self.block)
    }

    fn share(&mut self) -> Staff {
        self.work.source.share(&mut self.seat, &mut self.block)
    }

    /// Pulls the next block, or tells that there is none. The last one is done.
    fn poll_pull(&mut self, ran: usize, cx: &mut TaskContext<'_>) -> Poll<Pulled> {
        self.work.sink.flush(&mut self.results);
        if self.ctx.is_done() {
            return Poll::Ready(Pulled::Nothing);
        }
        let has_waited = self.pace.has_waited();
        self.was_slow |= self.pace.lap() == Lap::Slow;
        if ran >= TURN || (ran > 0 && self.was_slow) {
            return self.give_way(cx);
        }
        let order = Order {
            size: if self.has_deadline {
                1
            } else {
                self.pace.size()
            },
            has_waited,
            was_slow: std::mem::take(&mut self.was_slow),
        };
        let (seat, block, ctx) = (&mut self.seat, &mut self.block, &self.ctx);
        let is_live = || !ctx.is_done();
        let polled = self.work.source.poll_pull(seat, block, order, is_live, cx);
        if polled.is_pending() {
            self.pace.pause();
        }
        polled
    }

    /// Lets the other tasks have their turn.
    fn give_way(&mut self, cx: &mut TaskContext<'_>) -> Poll<Pulled> {
        self.pace.pause();
        if self.work.source.has_one_thread() {
            // Behind all that are ready or yield. Its first poll is the one that counts.
            let _ = pin!(yield_now()).poll(cx);
        } else {
            // What yields stays with its thread, and a long item may run there next: others must be able to take it.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl<S, F, T, E, K> Hand<S, F, T, E, K>
where
    S: Stream,
    E: GroupError,
    K: Sink<T>,
{
    /// Ends the items' context if the group's has ended: another thread may be on its way to it, and the items are
    /// dropped only then.
    fn end_context(&self) {
        if let (Some(error), Some(node)) = (self.spawner.context().err(), self.ctx.node()) {
            node.end(|| error);
        }
    }
}

impl<S, F, T, E, K> Drop for Hand<S, F, T, E, K>
where
    S: Stream,
    E: GroupError,
    K: Sink<T>,
{
    fn drop(&mut self) {
        self.work.sink.finish(std::mem::take(&mut self.results));
    }
}
