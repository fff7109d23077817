//! `Sink`: where the results of a batch go.

use std::collections::VecDeque;
use std::future::Future;
use std::num::NonZeroUsize;
use std::task::{Context as TaskContext, Poll, Waker};

use tokio::sync::Semaphore;

use crate::sync::Mutex;

pub(super) trait Sink<T>: Send + Sync + 'static {
    /// What a lane keeps to itself until its end.
    type Lane: Default + Send;

    /// Whether `room` may have to wait.
    const IS_BOUNDED: bool = false;

    /// Waits until one more item may be pulled.
    fn room(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    fn put(&self, lane: &mut Self::Lane, index: usize, result: T);

    fn finish(&self, lane: Self::Lane);
}

/// `for_each`: there are no results.
pub(super) struct Discard;

impl Sink<()> for Discard {
    type Lane = ();

    fn put(&self, (): &mut (), _index: usize, (): ()) {}

    fn finish(&self, (): ()) {}
}

/// `map`: each lane's results with their indexes, merged at the end. So the lanes do not meet on a lock for each item.
pub(super) struct Collect<T>(Mutex<Vec<Vec<(usize, T)>>>);

impl<T> Default for Collect<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Send + 'static> Sink<T> for Collect<T> {
    type Lane = Vec<(usize, T)>;

    fn put(&self, lane: &mut Self::Lane, index: usize, result: T) {
        lane.push((index, result));
    }

    fn finish(&self, lane: Self::Lane) {
        self.0.lock().push(lane);
    }
}

impl<T> Collect<T> {
    /// All results in the order of the items. The lanes have ended.
    pub(super) fn collect(&self) -> Vec<T> {
        let lanes = std::mem::take(&mut *self.0.lock());
        let mut results: Vec<Option<T>> = Vec::new();
        results.resize_with(lanes.iter().map(Vec::len).sum(), || None);
        for (index, result) in lanes.into_iter().flatten() {
            results[index] = Some(result);
        }
        let results: Option<Vec<T>> = results.into_iter().collect();
        results.expect("errgroup: a batch that succeeded has a result for each item")
    }
}

/// `map_stream`: results wait here until their turn.
///
/// A permit is a place in the window: taken before an item is pulled, given back when its result is yielded. So at most
/// `limit` items are pulled and not yielded.
pub(super) struct Window<T> {
    permits: Semaphore,
    results: Mutex<Results<T>>,
}

struct Results<T> {
    /// From `first` on; `None` where the result is still out.
    waiting: VecDeque<Option<T>>,
    first: usize,
    consumer: Option<Waker>,
}

impl<T> Window<T> {
    pub(super) fn new(limit: NonZeroUsize) -> Self {
        Self {
            permits: Semaphore::new(limit.get().min(Semaphore::MAX_PERMITS)),
            results: Mutex::new(Results {
                waiting: VecDeque::new(),
                first: 0,
                consumer: None,
            }),
        }
    }

    /// Takes the next result in order, if it is there.
    pub(super) fn take(&self) -> Option<T> {
        let mut results = self.results.lock();
        let result = results.waiting.front_mut()?.take()?;
        results.waiting.pop_front();
        results.first += 1;
        drop(results);
        self.permits.add_permits(1);
        Some(result)
    }

    /// Takes the next result in order, or has the consumer woken when it comes.
    pub(super) fn poll_take(&self, cx: &TaskContext<'_>) -> Poll<T> {
        if let Some(result) = self.take() {
            return Poll::Ready(result);
        }
        let waker = cx.waker().clone();
        let replaced = self.results.lock().consumer.replace(waker);
        drop(replaced);
        // It may have come before the waker: `put` takes the waker under the lock that we held after it.
        self.take().map_or(Poll::Pending, Poll::Ready)
    }

    /// Drops what nobody will take.
    pub(super) fn clear(&self) {
        let waiting = std::mem::take(&mut self.results.lock().waiting);
        drop(waiting);
    }
}

impl<T: Send + 'static> Sink<T> for Window<T> {
    type Lane = ();

    const IS_BOUNDED: bool = true;

    async fn room(&self) {
        if let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
    }

    fn put(&self, (): &mut (), index: usize, result: T) {
        let mut results = self.results.lock();
        let place = index - results.first;
        if results.waiting.len() <= place {
            results.waiting.resize_with(place + 1, || None);
        }
        results.waiting[place] = Some(result);
        let consumer = if place == 0 {
            results.consumer.take()
        } else {
            None
        };
        drop(results);
        if let Some(consumer) = consumer {
            consumer.wake();
        }
    }

    fn finish(&self, (): ()) {}
}
