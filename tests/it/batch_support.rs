//! Helpers of the tests of batches: the three ways to run one, sources that are counted or fed by hand, gates.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, Waker};

use errgroup::{Batch, BoxError, Context, GroupError};
use futures::{Stream, StreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::group_support::*;

/// How a batch is run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    Map,
    ForEach,
    Stream,
}

pub(crate) const WAYS: [Way; 3] = [Way::Map, Way::ForEach, Way::Stream];

impl Way {
    /// Runs a batch whose items have no value, to its end.
    pub(crate) async fn run<T, F, Fut, E>(self, batch: Batch<T>, f: F) -> Unit<E>
    where
        T: Send + 'static,
        F: Fn(Context, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Unit<E>> + Send + 'static,
        E: GroupError,
    {
        match self {
            Way::Map => batch.map(f).await.map(drop),
            Way::ForEach => batch.for_each(f).await,
            Way::Stream => exhaust(batch.map_stream(f)).await.1,
        }
    }
}

/// Everything that a stream yields: its values, and its error if it ends with one. It stays ended.
pub(crate) async fn exhaust<T, E>(results: impl Stream<Item = Result<T, E>>) -> (Vec<T>, Unit<E>) {
    let mut results = std::pin::pin!(results);
    let mut values = Vec::new();
    let mut end = Ok(());
    while let Some(result) = results.next().await {
        assert!(end.is_ok(), "the error is the last");
        match result {
            Ok(value) => values.push(value),
            Err(error) => end = Err(error),
        }
    }
    assert!(results.next().await.is_none(), "it stays ended");
    (values, end)
}

/// What a stream has to give now; `None` if it has to wait.
pub(crate) fn take<S: Stream + ?Sized>(stream: &mut Pin<Box<S>>) -> Option<Option<S::Item>> {
    take_with(stream, Waker::noop())
}

pub(crate) fn take_with<S: Stream + ?Sized>(
    stream: &mut Pin<Box<S>>,
    waker: &Waker,
) -> Option<Option<S::Item>> {
    match stream
        .as_mut()
        .poll_next(&mut TaskContext::from_waker(waker))
    {
        Poll::Ready(item) => Some(item),
        Poll::Pending => None,
    }
}

/// The value that a stream has to give now.
pub(crate) fn value<S, T>(stream: &mut Pin<Box<S>>) -> T
where
    S: Stream<Item = Result<T, BoxError>>,
{
    take(stream).expect("ready").expect("not over").unwrap()
}

/// A number that tests and batches share.
#[derive(Clone, Default)]
pub(crate) struct Tally(Arc<AtomicUsize>);

impl Tally {
    pub(crate) fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Numbers, and how many of them were pulled.
pub(crate) fn counted(n: usize) -> (impl Iterator<Item = usize> + Send + 'static, Tally) {
    let pulled = Tally::default();
    let tally = pulled.clone();
    let items = (0..n).inspect(move |_| {
        tally.add();
    });
    (items, pulled)
}

/// An iterator of which nobody knows how long it is.
pub(crate) fn unsized_hint<I: Iterator>(mut items: I) -> impl Iterator<Item = I::Item> {
    std::iter::from_fn(move || items.next())
}

/// Lets each item go when the test says so.
#[derive(Clone)]
pub(crate) struct Gates {
    gates: Arc<Vec<Notify>>,
    started: Tally,
    done: Tally,
}

impl Gates {
    pub(crate) fn new(n: usize) -> Self {
        Self {
            gates: Arc::new((0..n).map(|_| Notify::new()).collect()),
            started: Tally::default(),
            done: Tally::default(),
        }
    }

    pub(crate) fn open(&self, gate: usize) {
        self.gates[gate].notify_one();
    }

    pub(crate) fn open_all(&self) {
        (0..self.gates.len()).for_each(|gate| self.open(gate));
    }

    pub(crate) async fn pass(self, gate: usize) -> Unit {
        self.started.add();
        self.gates[gate].notified().await;
        self.done.add();
        Ok(())
    }

    pub(crate) fn started(&self) -> usize {
        self.started.get()
    }

    pub(crate) fn done(&self) -> usize {
        self.done.get()
    }
}

/// The function of a batch whose items wait at their gates.
pub(crate) fn pass(
    gates: &Gates,
) -> impl Fn(Context, usize) -> Pin<Box<dyn Future<Output = Unit> + Send>> + Send + Sync + use<> {
    let gates = gates.clone();
    move |_ctx, item| Box::pin(gates.clone().pass(item))
}

/// The test's end of a stream.
pub(crate) struct Feed<T>(Arc<Mutex<Fed<T>>>);

struct Fed<T> {
    items: VecDeque<T>,
    is_closed: bool,
    has_ended: bool,
    polls: usize,
    waker: Option<Waker>,
}

/// A stream that is fed by hand. It has one place for a waker, as most have, and must not be polled after its end.
pub(crate) fn feed<T: Send + 'static>() -> (Feed<T>, impl Stream<Item = T> + Send) {
    let fed = Arc::new(Mutex::new(Fed {
        items: VecDeque::new(),
        is_closed: false,
        has_ended: false,
        polls: 0,
        waker: None,
    }));
    let feed = Feed(fed.clone());
    let stream = stream::poll_fn(move |cx| fed.lock().unwrap().poll(cx));
    (feed, stream)
}

impl<T> Fed<T> {
    fn poll(&mut self, cx: &TaskContext<'_>) -> Poll<Option<T>> {
        assert!(!self.has_ended, "polled after its end");
        self.polls += 1;
        match self.items.pop_front() {
            Some(item) => Poll::Ready(Some(item)),
            None if self.is_closed => {
                self.has_ended = true;
                Poll::Ready(None)
            }
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> Feed<T> {
    /// Makes an item ready without waking anyone.
    pub(crate) fn put(&self, item: T) {
        self.0.lock().unwrap().items.push_back(item);
    }

    /// Wakes whom the stream was polled by last; the waker stays.
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker() {
            waker.wake();
        }
    }

    pub(crate) fn waker(&self) -> Option<Waker> {
        self.0.lock().unwrap().waker.clone()
    }

    pub(crate) fn send(&self, item: T) {
        self.put(item);
        self.wake();
    }

    pub(crate) fn close(&self) {
        self.0.lock().unwrap().is_closed = true;
        self.wake();
    }

    pub(crate) fn polls(&self) -> usize {
        self.0.lock().unwrap().polls
    }
}

/// How many tasks of this runtime have not ended.
pub(crate) fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}
