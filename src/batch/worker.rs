//! `Worker`: pulls items, starts them, and polls those that were woken. `Work`: what the workers of a batch share.
//!
//! One worker is polled by the batch's caller; the others, one for each further thread, are tasks of a group. Whatever a
//! worker has in hand lies in its fields while foreign code runs, not on the stack. So a panic, caught in `poll`, unwinds
//! past nothing of the user's, and a destructor that panics, too, is another panic after the first.

use std::future::Future;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context as TaskContext, Poll};

use tokio::task::coop::has_budget_remaining;
use tokio::task::yield_now;

use super::block::BlockSize;
use super::queue::{CALLER, Call, Hand, Next, Pulled, Queue, Source};
use super::results::{Sink, Verdict};
use crate::context::{Context, Node};
use crate::error::{ContextError, GroupError, GroupId, Reason, Who, text_of};
use crate::group::{SlotRequest, Spawner, Spec};
use crate::panic::{Contained, Payload, catch, contain, discard};
use crate::sync::Mutex;
use crate::task::TaskId;

/// After so many polls of items and of the source the other tasks of the thread get their turn.
const TURN: usize = 224;

/// The user's code, and the types in it.
pub(super) trait Job: Send + Sync + 'static {
    type Item: Send + 'static;
    type Future: Future<Output = Result<Self::Value, Self::Error>> + Send + 'static;
    type Value: Send + 'static;
    type Error: GroupError;
    type Sink: Sink<Self::Value>;

    fn start(&self, ctx: Context, item: Self::Item) -> Self::Future;
}

pub(super) type ItemQueue<J> = Queue<<J as Job>::Item, <J as Job>::Future>;

pub(super) struct Work<J: Job> {
    pub(super) queue: Arc<ItemQueue<J>>,
    pub(super) job: Contained<J>,
    pub(super) sink: J::Sink,
    /// The batch's own. The batch ends it.
    pub(super) ctx: Context,
    /// There is a context above it.
    pub(super) is_child: bool,
    pub(super) location: &'static Location<'static>,
    /// Set when the first task is started.
    pub(super) spawner: OnceLock<Spawner<J::Error>>,
    /// The first error, unless there was a panic: then the first of those.
    failure: Mutex<Option<Failure<J::Error>>>,
    /// The queue has been emptied for good.
    pub(super) is_finished: AtomicBool,
}

pub(super) enum Failure<E> {
    Error(E),
    Panic(Payload),
}

pub(super) struct Worker<J: Job> {
    work: Arc<Work<J>>,
    /// What its items are given. Each worker but the caller has a context of its own: they count who holds one, and would
    /// meet there with each item.
    ctx: Context,
    hand: Hand<J::Item, J::Future>,
    /// The source that is being polled, and how many items it may give.
    source: Option<(Source<J::Item>, usize)>,
    results: Vec<(usize, J::Value)>,
    error: Option<J::Error>,
    size: BlockSize,
    /// Polls that are left of the worker's turn.
    turn: usize,
    is_in_block: bool,
    is_over: bool,
}

impl<J: Job> Work<J> {
    pub(super) fn new(
        queue: Arc<ItemQueue<J>>,
        job: J,
        sink: J::Sink,
        parent: &Context,
        location: &'static Location<'static>,
    ) -> Arc<Self> {
        let node = queue.derive(parent.node(), location);
        Arc::new(Self {
            queue,
            job: Contained::new(job),
            sink,
            ctx: parent.with_node(node),
            is_child: parent.node().is_some(),
            location,
            spawner: OnceLock::new(),
            failure: Mutex::default(),
            is_finished: AtomicBool::new(false),
        })
    }

    fn below(&self) -> Context {
        let node = Node::derive(Some(self.node()), 0, self.location);
        self.ctx.with_node(node)
    }

    pub(super) fn node(&self) -> &Arc<Node> {
        let node = self.ctx.node();
        node.expect("errgroup: a batch's context is derived, so it has a node")
    }

    /// Records an error, then ends the context for it.
    fn failed(&self, error: J::Error) {
        let text = text_of(&error);
        self.record(Failure::Error(error), Reason::TaskFailed, text);
    }

    /// Records a panic, then ends the context for it.
    pub(super) fn panicked(&self, payload: Payload) {
        let text = crate::panic::message(&payload).to_owned();
        self.record(Failure::Panic(payload), Reason::TaskPanicked, text);
    }

    fn record(&self, failure: Failure<J::Error>, reason: Reason, text: String) {
        let mut first = self.failure.lock();
        let is_first = matches!(
            (&*first, &failure),
            (None, _) | (Some(Failure::Error(_)), Failure::Panic(_))
        );
        let unused = match is_first {
            true => first.replace(failure),
            false => Some(failure),
        };
        drop(first);
        if let Some(unused) = unused {
            discard(unused);
        }
        // No sibling sees the end before the failure is there, so none can come before it.
        let id = TaskId::next();
        let who = Who {
            name: self.queue.name.as_deref(),
            id,
            location: self.location,
            // Nobody passes it on within a group of this id: there are no handles.
            group: GroupId(id.0),
        };
        self.node()
            .end(|| ContextError::end_by_task(reason, who, text));
    }

    /// The batch has its result: cuts the rest short.
    fn decide(&self, verdict: Verdict) {
        if verdict == Verdict::Decided {
            self.node().end(|| {
                let cause = "the batch has its result".into();
                ContextError::at(Reason::GroupCancelled, self.location, Some(cause))
            });
        }
    }

    /// Tells the sink how many items there are at most: those that were pulled, and the rest if anybody knows.
    #[inline]
    fn count_items(&self, pulled: usize, rest: Option<usize>) {
        if let Some(most) = rest.and_then(|rest| pulled.checked_add(rest)) {
            self.decide(self.sink.count_items(most));
        }
    }

    pub(super) fn take_failure(&self) -> Option<Failure<J::Error>> {
        self.failure.lock().take()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.lock().is_some()
    }

    /// Drops what was cut short. A destructor that panics is as good as an item that does.
    fn drop_each<V>(&self, values: impl IntoIterator<Item = V>) {
        for value in values {
            if let Err(payload) = catch(|| drop(value)) {
                self.panicked(payload);
            }
        }
    }

    /// Ends the work, done or not, and drops the items that no worker has in hand.
    pub(super) fn close(&self) {
        let (unstarted, started) = self.queue.close();
        self.drop_each(unstarted);
        self.drop_each(started);
    }
}

impl<J: Job> Drop for Work<J> {
    fn drop(&mut self) {
        if !*self.is_finished.get_mut() {
            self.close();
            discard(self.queue.take_source());
            discard(self.take_failure());
        }
    }
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
            source: None,
            results: Vec::new(),
            error: None,
            size: BlockSize::new(rules.limit, rules.workers),
            turn: 0,
            is_in_block: false,
            is_over: false,
        }
    }

    /// Starts a worker, which the queue has counted, as a task.
    pub(super) fn spawn(work: &Arc<Work<J>>, id: usize, spawner: &Spawner<J::Error>) {
        let spec = Spec {
            name: work.queue.name.clone().map(Arc::new),
            location: work.location,
            slot: SlotRequest::Queue,
        };
        let worker = Self::new(work.clone(), id);
        spawner.launch(spec, worker);
    }

    /// Ready when there is nothing left to do for any worker, or the batch has ended otherwise.
    pub(super) fn poll_work(
        &mut self,
        start: &mut impl FnMut(&Arc<Work<J>>, usize),
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        match catch(|| self.run(start, cx)) {
            Ok(polled) => polled,
            Err(payload) => {
                self.work.panicked(payload);
                Poll::Ready(())
            }
        }
    }

    fn run(
        &mut self,
        start: &mut impl FnMut(&Arc<Work<J>>, usize),
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        self.turn = TURN;
        let mut is_live = !self.ctx.is_done();
        while is_live && !has_ended(&self.ctx) {
            if self.turn == 0 {
                return self.give_way(cx);
            }
            if let Some((index, item)) = self.hand.block.pop_front() {
                self.start_item(index, item);
                continue;
            }
            match self.next() {
                Next::Poll => self.poll_item(),
                Next::Start => self.begin_block(),
                Next::Pull(source, permits) => {
                    self.source = Some((source, permits));
                    self.pull(start);
                    // The clock, if there is a deadline: once a block.
                    is_live = !self.ctx.is_done();
                }
                Next::Call(other) => call(other, &self.work, start, &mut self.turn),
                Next::Watch if self.work.queue.spin() => self.turn -= 1,
                Next::Watch => self.turn = 0,
                Next::Idle => {
                    let waker = cx.waker().clone();
                    if self.work.queue.idle(&mut self.hand, waker) {
                        return Poll::Pending;
                    }
                }
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

    /// What to do next. The block is done.
    fn next(&mut self) -> Next<J::Item> {
        self.flush();
        if std::mem::take(&mut self.is_in_block) {
            self.size.end();
        }
        let next = self.work.queue.next(&mut self.hand, self.size.get());
        if !matches!(next, Next::Start | Next::Pull(..)) {
            self.size.pause();
        }
        next
    }

    fn begin_block(&mut self) {
        self.is_in_block = true;
        let release_size = self.size.release_size();
        let queue = &self.work.queue;
        queue.release_size.store(release_size, Ordering::Relaxed);
        self.size.begin();
    }

    /// Pulls a block. The source stays with the worker meanwhile, for a panic not to drop it.
    fn pull(&mut self, start: &mut impl FnMut(&Arc<Work<J>>, usize)) {
        self.turn = self.turn.saturating_sub(1);
        let work = &self.work;
        let (source, permits) = self.source.as_mut().expect("errgroup: it was taken");
        let mut cx = TaskContext::from_waker(&source.waker);
        let mut called = None;
        let (mut is_dry, mut is_ready) = (false, true);
        if J::Sink::IS_RACE && source.next == 0 {
            work.count_items(0, source.stream.size_hint().1);
        }
        while *permits > 0 && called.is_none() && !has_ended(&self.ctx) {
            let item = match source.stream.as_mut().poll_next(&mut cx) {
                Poll::Ready(Some(item)) => (source.next, item),
                Poll::Ready(None) => {
                    is_dry = true;
                    break;
                }
                Poll::Pending => {
                    is_ready = false;
                    break;
                }
            };
            source.next += 1;
            *permits -= 1;
            if *permits == 0 || work.queue.rules.workers == 1 {
                self.hand.block.push_back(item);
            } else {
                called = work.queue.show(item);
            }
        }
        // Before foreign code that may panic, or block its thread.
        if let Some(other) = called {
            call(other, work, start, &mut self.turn);
        }
        let rest = match is_dry {
            true => Some(0),
            false if is_ready || J::Sink::IS_RACE => source.stream.size_hint().1,
            false => None,
        };
        // It is not asked again only to say so, and nobody is called for that.
        is_dry |= is_ready && rest == Some(0);
        if J::Sink::IS_RACE {
            work.count_items(source.next, rest);
        }
        let called = self.put_source(is_dry, is_ready);
        self.begin_block();
        if let Some(other) = called {
            call(other, &self.work, start, &mut self.turn);
        }
    }

    fn put_source(&mut self, is_dry: bool, is_ready: bool) -> Option<Call> {
        let (source, permits) = self.source.take().expect("errgroup: it was there");
        let pulled = match (is_dry, is_ready) {
            (true, _) => {
                discard(source);
                Pulled::Dry
            }
            (false, true) => Pulled::Enough(source),
            (false, false) => Pulled::NotReady(source),
        };
        let queue = &self.work.queue;
        let (is_hasty, call) = queue.put_source(pulled, permits, &mut self.hand);
        if is_hasty {
            // A source that wakes itself leaves the others their turn.
            self.turn = 0;
        }
        call
    }

    /// Lets the other tasks have their turn.
    fn give_way(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        self.flush();
        self.size.pause();
        self.work.queue.put_back(&mut self.hand);
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
fn call<J: Job>(
    other: Call,
    work: &Arc<Work<J>>,
    start: &mut impl FnMut(&Arc<Work<J>>, usize),
    turn: &mut usize,
) {
    match other {
        Call::Wake(waker) => contain(|| waker.wake()),
        Call::Start(id) => start(work, id),
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
        let mut start = |work: &Arc<Work<J>>, id| {
            let spawner = work
                .spawner
                .get()
                .expect("errgroup: this worker was spawned");
            Self::spawn(work, id, spawner);
        };
        self.poll_work(&mut start, cx).map(Ok)
    }
}

impl<J: Job> Drop for Worker<J> {
    fn drop(&mut self) {
        let work = &self.work;
        work.drop_each(self.hand.current.take());
        work.drop_each(self.hand.block.drain(..));
        discard((self.source.take(), self.error.take()));
        if !self.results.is_empty() {
            let verdict = work.sink.put(&mut self.results);
            work.decide(verdict);
        }
        if !self.is_over {
            // It was stopped: items are lost, and the others cannot end the batch.
            work.queue.put_back(&mut self.hand);
            work.close();
        }
    }
}
