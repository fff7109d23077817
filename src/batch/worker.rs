//! `Worker`: pulls items, starts them, and polls those that were woken.
//!
//! One worker is polled by the batch's caller; the others, one for each further thread, are tasks of a group. Whatever a
//! worker has in hand lies in its fields while foreign code runs, not on the stack. So a panic, caught in `poll_work`, unwinds
//! past nothing of the user's, and a destructor that panics, too, is another panic after the first.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use tokio::task::coop::has_budget_remaining;
use tokio::task::yield_now;

use super::block::BlockSize;
use super::queue::{CALLER, Call, Hand, Next};
use super::results::Sink;
use super::work::{Job, Work};
use crate::context::Context;
use crate::group::{SlotRequest, Spawner, Spec};
use crate::panic::{catch, contain, discard};

/// After so many polls of items and of the source the other tasks of the thread get their turn.
const TURN: usize = 224;

pub(super) struct Worker<J: Job> {
    work: Arc<Work<J>>,
    /// What its items are given. Each worker but the caller has a context of its own: they count who holds one, and would
    /// meet there with each item.
    ctx: Context,
    hand: Hand<J::Item, J::Future>,
    results: Vec<(usize, J::Value)>,
    error: Option<J::Error>,
    size: BlockSize,
    /// Polls that are left of the worker's turn.
    turn: usize,
    is_over: bool,
    /// The id of a worker that whoever polls this one is to start.
    pub(super) helper: Option<usize>,
}

impl<J: Job> Worker<J> {
    pub(super) fn new(work: Arc<Work<J>>, id: usize) -> Self {
        let rules = work.queue.rules;
        let ctx = match id {
            CALLER => work.ctx.clone(),
            _ => work.below(),
        };
        Self {
            work,
            ctx,
            hand: Hand::new(id),
            results: Vec::new(),
            error: None,
            size: BlockSize::new(rules.limit, rules.workers),
            turn: 0,
            is_over: false,
            helper: None,
        }
    }

    /// Starts a worker, which the queue has counted, as a task.
    pub(super) fn spawn(work: &Arc<Work<J>>, id: usize, spawner: &Spawner<J::Error>) {
        let spec = Spec {
            name: work.queue.name.clone().map(Arc::new),
            location: work.location,
            slot: SlotRequest::Queue,
        };
        spawner.launch(spec, Self::new(work.clone(), id));
    }

    /// Ready when there is nothing left to do for any worker, or the batch has ended otherwise.
    pub(super) fn poll_work(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        match catch(|| self.run(cx)) {
            Ok(polled) => polled,
            Err(payload) => {
                if let Some(pull) = &mut self.hand.pull {
                    // It was the source's: that is not polled again.
                    discard(pull.source.take());
                }
                self.work.panicked(payload);
                Poll::Ready(())
            }
        }
    }

    fn run(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        self.turn = TURN;
        self.hand.waker = None;
        let mut is_live = !self.ctx.is_done();
        while is_live && !has_ended(&self.ctx) {
            if self.turn == 0 {
                return self.give_way(cx);
            }
            match self.next() {
                Next::Poll => self.poll_item(),
                Next::Start => self.start_block(),
                Next::Pull => {
                    self.pull();
                    // The clock, if there is a deadline: once a block.
                    is_live = !self.ctx.is_done();
                }
                Next::Call(other) => call(other, &mut self.helper, &mut self.turn),
                Next::GiveWay => self.turn = 0,
                Next::Watch => return self.end_turn(cx),
                Next::Idle if self.hand.is_idle => return Poll::Pending,
                Next::Idle => self.hand.waker = Some(cx.waker().clone()),
                Next::Over => {
                    self.is_over = true;
                    return Poll::Ready(());
                }
            }
        }
        Poll::Ready(())
    }

    /// Whether there was nothing to do when it was last polled.
    pub(super) fn is_idle(&self) -> bool {
        self.turn == TURN
    }

    /// Starts the items of the block, as far as the turn goes.
    fn start_block(&mut self) {
        self.size.begin();
        while self.turn > 0 && !has_ended(&self.ctx) {
            let Some((index, item)) = self.hand.block.pop_front() else {
                let queue = &self.work.queue;
                queue.set_release_size(self.size.release_size());
                return self.size.end();
            };
            self.start_item(index, item);
        }
    }

    #[inline]
    fn start_item(&mut self, index: usize, item: J::Item) {
        let running = match &mut self.hand.current {
            Some(running) => running,
            none => none.insert(self.work.queue.memory()),
        };
        running.index = index;
        let future = self.work.job.start(self.ctx.clone(), item);
        running.future.set(Some(future));
        self.poll_item();
    }

    /// Polls the current item. It stays where it is meanwhile, for a panic not to drop it.
    #[inline]
    fn poll_item(&mut self) {
        self.turn = self.turn.saturating_sub(1);
        let running = self.hand.current.as_mut();
        let running = running.expect("errgroup: there is an item to be polled");
        let future = running.future.as_mut().as_pin_mut();
        let future = future.expect("errgroup: an item that runs has a future");
        match future.poll(&mut TaskContext::from_waker(&running.waker)) {
            Poll::Pending => return self.wait(),
            Poll::Ready(Ok(value)) => self.results.push((running.index, value)),
            Poll::Ready(Err(error)) => self.error = Some(error),
        }
        running.future.set(None);
        match self.error.take() {
            None => {
                self.hand.done += 1;
                if J::Sink::IS_RACE {
                    self.flush();
                }
            }
            Some(error) => {
                // What came before the error is not lost by it.
                self.flush();
                self.work.failed(error);
            }
        }
    }

    /// The current item has to wait.
    fn wait(&mut self) {
        // Without budget it waits for the next turn and for nothing else, as far as anybody knows, and so would any other.
        // tokio wakes it later than that.
        let is_exhausted = !has_budget_remaining();
        if is_exhausted {
            self.turn = 0;
        }
        self.size.wait();
        if !self.work.queue.wait(&mut self.hand, is_exhausted) {
            self.work.drop_each(self.hand.current.take());
        }
    }

    #[inline]
    fn flush(&mut self) {
        if !self.results.is_empty() {
            let verdict = self.work.sink.put(&mut self.results);
            self.work.decide(verdict);
        }
    }

    /// Tells what was done, and what to do next.
    fn next(&mut self) -> Next {
        self.flush();
        let next = self.work.queue.next(&mut self.hand, self.size.get());
        if !matches!(next, Next::Start | Next::Pull) {
            self.size.pause();
        }
        next
    }

    /// Pulls a block. The source stays in hand meanwhile, for a panic not to drop it.
    fn pull(&mut self) {
        self.turn = self.turn.saturating_sub(1);
        let work = &self.work;
        let pull = self.hand.pull.as_mut().expect("errgroup: it was taken");
        let source = pull.source.as_mut().expect("errgroup: it has not ended");
        let mut cx = TaskContext::from_waker(&source.waker);
        let (mut other, mut is_dry) = (None, false);
        if J::Sink::IS_RACE && source.next == 0 {
            work.count_items(0, source.stream.size_hint().1);
        }
        while pull.permits > 0 && other.is_none() && !has_ended(&self.ctx) {
            let item = match source.stream.as_mut().poll_next(&mut cx) {
                Poll::Ready(Some(item)) => (source.next, item),
                Poll::Ready(None) => {
                    is_dry = true;
                    break;
                }
                Poll::Pending => {
                    pull.is_ready = false;
                    break;
                }
            };
            source.next += 1;
            pull.permits -= 1;
            if pull.permits == 0 || work.queue.rules.workers == 1 {
                self.hand.block.push_back(item);
            } else {
                other = work.queue.show(item);
            }
        }
        // Before foreign code that may panic, or block its thread.
        if let Some(other) = other {
            call(other, &mut self.helper, &mut self.turn);
        }
        let rest = match is_dry {
            true => Some(0),
            false if pull.is_ready || J::Sink::IS_RACE => source.stream.size_hint().1,
            false => None,
        };
        if J::Sink::IS_RACE {
            work.count_items(source.next, rest);
        }
        // It is not asked again only to say so, and nobody is called for that.
        if is_dry || (pull.is_ready && rest == Some(0)) {
            discard(pull.source.take());
        }
    }

    /// Lets the other tasks have their turn.
    fn give_way(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        self.flush();
        self.size.pause();
        self.work.queue.put_back(&mut self.hand);
        self.end_turn(cx)
    }

    fn end_turn(&self, cx: &mut TaskContext<'_>) -> Poll<()> {
        if self.work.queue.rules.is_single_threaded {
            // Behind all that are ready or yield. Its first poll is the one that counts.
            let _ = pin!(yield_now()).poll(cx);
        } else {
            // What yields stays with its thread, and a long item may run there next: others must be able to take it.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// Calls another worker. On this thread that would wait for the end of this poll, out of the reach of other threads; they can
/// have this one instead, whose turn is over.
fn call(other: Call, helper: &mut Option<usize>, turn: &mut usize) {
    match other {
        Call::Wake(waker) => contain(|| waker.wake()),
        Call::Start(id) => *helper = Some(id),
    }
    *turn = 0;
}

/// Without a look at the clock.
#[inline]
fn has_ended(ctx: &Context) -> bool {
    ctx.node().is_some_and(|node| node.has_ended())
}

impl<J: Job> Unpin for Worker<J> {}

/// A worker that is a task. What goes wrong is recorded with the work: the task itself never fails.
impl<J: Job> Future for Worker<J> {
    type Output = Result<(), J::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let polled = self.poll_work(cx);
        if let Some(id) = self.helper.take() {
            let spawner = self.work.spawner.get();
            let spawner = spawner.expect("errgroup: this worker was spawned");
            Self::spawn(&self.work, id, spawner);
        }
        polled.map(Ok)
    }
}

impl<J: Job> Drop for Worker<J> {
    fn drop(&mut self) {
        let work = &self.work;
        work.drop_each(self.hand.current.take());
        discard(self.error.take());
        if !self.results.is_empty() {
            let verdict = work.sink.put(&mut self.results);
            work.decide(verdict);
        }
        if !self.is_over {
            // It was stopped: items are lost, and the others cannot end the batch.
            work.queue.put_back(&mut self.hand);
            work.close();
        }
        work.drop_each(self.hand.block.drain(..));
    }
}
