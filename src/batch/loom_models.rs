//! The races of `Queue` as its workers meet them: workers that become idle against wake-ups of items and of the source,
//! against permits, and against the end; and unstarted items against the pull that they came with.
//!
//! The models run the workers themselves. A lost wake-up leaves a thread waiting, which loom reports. They have no panics:
//! loom's mutex does not go on after one.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use futures::Stream;
use loom::thread::{self, JoinHandle};

use super::queue::{CALLER, Call, Hand, Next, Permits, Pulled, Queue, Rules};
use super::results::Discard;
use super::worker::{Job, Work, Worker};
use crate::context::Context;
use crate::error::BoxError;
use crate::sync::Mutex;
use crate::sync::model::block_on;

/// A place where items are put and waited for, by tasks and by threads.
#[derive(Clone, Default)]
struct Board(Arc<Mutex<Notes>>);

#[derive(Default)]
struct Notes {
    items: Vec<u32>,
    wakers: Vec<Waker>,
}

impl Board {
    fn note(&self, item: u32) {
        let mut notes = self.0.lock();
        notes.items.push(item);
        let wakers = std::mem::take(&mut notes.wakers);
        drop(notes);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn poll_noted(&self, item: u32, cx: &TaskContext<'_>) -> Poll<()> {
        let mut notes = self.0.lock();
        if notes.items.contains(&item) {
            return Poll::Ready(());
        }
        notes.wakers.push(cx.waker().clone());
        Poll::Pending
    }

    fn wait(&self, item: u32) {
        block_on(poll_fn(|cx| self.poll_noted(item, cx)));
    }
}

/// The items of a batch. Some wait until another was run or the model says so.
#[derive(Clone)]
struct Items {
    ran: Board,
    waits: &'static [(u32, u32)],
    failing: Option<u32>,
}

impl Job for Items {
    type Item = u32;
    type Future = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;
    type Value = ();
    type Error = BoxError;
    type Sink = Discard;

    fn start(&self, _ctx: Context, item: u32) -> Self::Future {
        let items = self.clone();
        Box::pin(poll_fn(move |cx| {
            let waits = items.waits.iter().find(|(waiting, _)| *waiting == item);
            if let Some((_, other)) = waits {
                std::task::ready!(items.ran.poll_noted(*other, cx));
            }
            items.ran.note(item);
            match items.failing == Some(item) {
                true => Poll::Ready(Err("failed".into())),
                false => Poll::Ready(Ok(())),
            }
        }))
    }
}

/// The model's end of a stream, with one place for a waker.
#[derive(Clone, Default)]
struct Feed(Arc<Mutex<Fed>>);

#[derive(Default)]
struct Fed {
    items: VecDeque<u32>,
    is_closed: bool,
    waker: Option<Waker>,
}

impl Stream for Feed {
    type Item = u32;

    fn poll_next(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<u32>> {
        let mut fed = self.0.lock();
        match fed.items.pop_front() {
            Some(item) => Poll::Ready(Some(item)),
            None if fed.is_closed => Poll::Ready(None),
            None => {
                fed.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Feed {
    fn of(items: &[u32]) -> Self {
        let feed = Self::default();
        feed.0.lock().items.extend(items);
        feed
    }

    /// Makes items ready, and wakes once.
    fn send(&self, items: &[u32]) {
        self.change(|fed| fed.items.extend(items));
    }

    fn close(&self) {
        self.change(|fed| fed.is_closed = true);
    }

    fn change(&self, f: impl FnOnce(&mut Fed)) {
        let mut fed = self.0.lock();
        f(&mut fed);
        let waker = fed.waker.take();
        drop(fed);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn rules(limit: usize, workers: usize) -> Rules {
    Rules {
        limit,
        workers,
        is_single_threaded: false,
        permits: Permits::WhenDone,
    }
}

/// A batch whose workers are threads.
#[derive(Clone)]
struct Batch {
    work: Arc<Work<Items>>,
    ran: Board,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Batch {
    fn new<S>(source: S, limit: usize, workers: usize, waits: &'static [(u32, u32)]) -> Self
    where
        S: Stream<Item = u32> + Send + 'static,
    {
        Self::with(|_| source, rules(limit, workers), waits, None)
    }

    fn with<S>(
        source: impl FnOnce(&Board) -> S,
        rules: Rules,
        waits: &'static [(u32, u32)],
        failing: Option<u32>,
    ) -> Self
    where
        S: Stream<Item = u32> + Send + 'static,
    {
        let ran = Board::default();
        let items = Items {
            ran: ran.clone(),
            waits,
            failing,
        };
        let queue = Queue::new(Box::pin(source(&ran)), rules, None);
        let parent = Context::background();
        let location = Location::caller();
        Self {
            work: Work::new(queue, items, Discard, &parent, location),
            ran,
            threads: Arc::default(),
        }
    }

    /// Runs the caller's worker on this thread, and `beside` on another, until all workers have ended.
    fn run(self, beside: impl FnOnce(&Self) + 'static) {
        let batch = self.clone();
        let beside = thread::spawn(move || beside(&batch));
        self.work(CALLER);
        loop {
            let thread = self.threads.lock().pop();
            let Some(thread) = thread else { break };
            thread.join().unwrap();
        }
        beside.join().unwrap();
        assert!(self.work.has_failed() || self.work.queue.is_done());
    }

    fn work(&self, id: usize) {
        let mut worker = Worker::new(self.work.clone(), id);
        let mut start = |_: &Arc<Work<Items>>, id: usize| {
            let batch = self.clone();
            let thread = thread::spawn(move || batch.work(id));
            self.threads.lock().push(thread);
        };
        block_on(poll_fn(|cx| worker.poll_work(&mut start, cx)));
    }
}

#[test]
fn item_comes_while_the_worker_becomes_idle_then_it_is_run() {
    loom::model(|| {
        let feed = Feed::default();
        let batch = Batch::new(feed.clone(), 1, 1, &[]);
        let ran = batch.ran.clone();
        batch.run(move |_| {
            feed.send(&[1]);
            ran.wait(1);
            feed.close();
        });
    });
}

#[test]
fn source_ends_while_two_workers_become_idle_then_both_end() {
    loom::model(|| {
        let feed = Feed::of(&[1]);
        Batch::new(feed.clone(), 2, 2, &[]).run(move |_| feed.close());
    });
}

/// The worker that is woken wakes the other.
#[test]
fn items_come_at_one_wake_while_workers_become_idle_then_both_are_run() {
    loom::model(|| {
        let feed = Feed::default();
        let batch = Batch::new(feed.clone(), 2, 2, &[(1, 2)]);
        let ran = batch.ran.clone();
        batch.run(move |_| {
            feed.send(&[1, 2]);
            ran.wait(1);
            feed.close();
        });
    });
}

/// A stream that wakes whoever polls it, and is ready the next time.
struct Hasty(u32);

impl Stream for Hasty {
    type Item = u32;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<u32>> {
        self.0 += 1;
        if self.0 % 2 == 1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready((self.0 < 4).then_some(self.0))
    }
}

#[test]
fn stream_wakes_while_it_is_polled_then_it_is_polled_again() {
    loom::model(|| {
        let batch = Batch::new(Hasty(0), 2, 2, &[]);
        let ran = batch.ran.clone();
        batch.run(|_| ());
        assert_eq!(ran.0.lock().items, [2]);
    });
}

/// Between its poll and its return to the queue, or later.
#[test]
fn item_is_woken_while_it_is_put_back_then_it_is_polled_again() {
    loom::model(|| {
        let feed = Feed::of(&[1]);
        feed.close();
        Batch::new(feed, 1, 1, &[(1, 7)]).run(|batch| batch.ran.note(7));
    });
}

#[test]
fn two_items_are_woken_while_their_worker_becomes_idle_then_both_are_run() {
    loom::model(|| {
        let feed = Feed::of(&[1, 2]);
        feed.close();
        Batch::new(feed, 2, 1, &[(1, 7), (2, 7)]).run(|batch| batch.ran.note(7));
    });
}

#[test]
fn items_wait_for_each_other_on_two_workers_then_all_are_run() {
    loom::model(|| {
        let feed = Feed::of(&[1, 2]);
        feed.close();
        Batch::new(feed, 2, 2, &[(1, 2)]).run(|_| ());
    });
}

/// The second item needs the permit of the first, which is woken meanwhile.
#[test]
fn permit_is_given_back_by_an_item_that_waited_then_the_next_is_pulled() {
    loom::model(|| {
        let feed = Feed::of(&[1, 2]);
        feed.close();
        Batch::new(feed, 1, 2, &[(1, 7)]).run(|batch| batch.ran.note(7));
    });
}

#[test]
fn permit_is_released_while_the_worker_becomes_idle_then_the_next_is_pulled() {
    loom::model(|| {
        let feed = Feed::of(&[1, 2]);
        feed.close();
        let rules = Rules {
            permits: Permits::WhenYielded,
            ..rules(1, 1)
        };
        Batch::with(|_| feed, rules, &[], None).run(|batch| {
            for item in [1, 2] {
                batch.ran.wait(item);
                batch.work.queue.release(1);
            }
        });
    });
}

/// A source that gives out its third item when the second was run.
struct Blocking(Board, u32);

impl Stream for Blocking {
    type Item = u32;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<u32>> {
        self.1 += 1;
        if self.1 == 4 {
            self.0.wait(3);
        }
        Poll::Ready((self.1 < 5).then_some(self.1))
    }
}

/// By then the blocks are of two: the second item was pulled together with what blocks.
#[test]
fn source_blocks_until_an_item_of_the_same_pull_has_run_then_another_worker_runs_it() {
    loom::model(|| {
        let source = |ran: &Board| Blocking(ran.clone(), 0);
        let batch = Batch::with(source, rules(4, 2), &[], None);
        let ran = batch.ran.clone();
        batch.run(|_| ());
        assert_eq!(ran.0.lock().items.len(), 4);
    });
}

/// What a worker other than the puller does, with the queue alone.
fn help(queue: &Queue<u32, ()>, ran: &Board) {
    let mut hand = Hand::new(CALLER + 1);
    block_on(poll_fn(|cx| {
        loop {
            match queue.next(&mut hand, 4) {
                Next::Start => {
                    hand.done = hand.block.len();
                    hand.block.drain(..).for_each(|(_, item)| ran.note(item));
                }
                Next::Idle if !queue.idle(&mut hand, cx.waker().clone()) => {}
                Next::Idle => return Poll::Pending,
                Next::Watch => thread::yield_now(),
                Next::Over => return Poll::Ready(()),
                Next::Poll | Next::Pull(..) | Next::Call(_) => unreachable!(),
            }
        }
    }));
}

/// The source blocks after each item that it gives out, until that has run.
#[test]
fn pull_shows_item_after_item_while_the_other_worker_becomes_idle_then_that_one_runs_each() {
    loom::model(|| {
        let queue: Arc<Queue<u32, ()>> = Queue::new(Box::pin(Feed::default()), rules(8, 2), None);
        let ran = Board::default();
        let mut hand = Hand::new(CALLER);
        let Next::Pull(source, permits) = queue.next(&mut hand, 4) else {
            panic!("there is a source to be polled");
        };
        let mut helper = None;
        for item in 0..3 {
            match queue.show((item, item as u32)) {
                Some(Call::Start(_)) => {
                    let (queue, ran) = (queue.clone(), ran.clone());
                    helper = Some(thread::spawn(move || help(&queue, &ran)));
                }
                Some(Call::Wake(waker)) => waker.wake(),
                None => {}
            }
            ran.wait(item as u32);
        }
        drop(source);
        assert!(
            queue
                .put_source(Pulled::Dry, permits - 3, &mut hand)
                .1
                .is_none()
        );
        assert!(hand.block.is_empty());
        while !matches!(queue.next(&mut hand, 4), Next::Over) {
            thread::yield_now();
        }
        helper.expect("it was called").join().unwrap();
    });
}

#[test]
fn item_fails_while_the_other_worker_becomes_idle_then_both_end() {
    loom::model(|| {
        let feed = Feed::of(&[1, 2]);
        let batch = Batch::with(|_| feed, rules(2, 2), &[(1, 7)], Some(2));
        batch.run(|_| ());
    });
}
