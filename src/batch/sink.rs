//! `Sink`: where the results of a batch go.

use std::collections::VecDeque;
use std::task::{Context as TaskContext, Poll, Waker};

use super::source::Room;
use crate::sync::Mutex;

pub(super) trait Sink<T>: Send + Sync + 'static {
    /// What a lane keeps to itself.
    type Lane: Default + Send;

    /// Whether an item needs no room once it is done, or when its result is yielded.
    const ROOM: Room = Room::ComesFromLanes;

    fn put(&self, lane: &mut Self::Lane, index: usize, result: T);

    /// A lane's block is done, or held up.
    fn flush(&self, _lane: &mut Self::Lane) {}

    /// A lane ends.
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
/// Its items keep their room until their results are yielded. So at most `limit` items are pulled and not yielded.
pub(super) struct Window<T>(Mutex<Results<T>>);

struct Results<T> {
    /// From `first` on; `None` where the result is still out.
    waiting: VecDeque<Option<T>>,
    first: usize,
    consumer: Option<Waker>,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self(Mutex::new(Results {
            waiting: VecDeque::new(),
            first: 0,
            consumer: None,
        }))
    }
}

impl<T> Window<T> {
    /// Takes the next result in order, if it is there.
    pub(super) fn take(&self) -> Option<T> {
        self.0.lock().take()
    }

    /// Takes the next result in order, or has the consumer woken when it comes.
    pub(super) fn poll_take(&self, cx: &TaskContext<'_>) -> Poll<T> {
        if let Some(result) = self.take() {
            return Poll::Ready(result);
        }
        let waker = cx.waker().clone();
        let replaced = self.0.lock().consumer.replace(waker);
        drop(replaced);
        // It may have come before the waker: `flush` takes the waker under the lock that we held after it.
        self.take().map_or(Poll::Pending, Poll::Ready)
    }

    /// Drops what nobody will take.
    pub(super) fn clear(&self) {
        let waiting = std::mem::take(&mut self.0.lock().waiting);
        drop(waiting);
    }
}

impl<T> Results<T> {
    fn take(&mut self) -> Option<T> {
        let result = self.waiting.front_mut()?.take()?;
        self.waiting.pop_front();
        self.first += 1;
        Some(result)
    }

    fn put(&mut self, index: usize, result: T) {
        let place = index - self.first;
        if self.waiting.len() <= place {
            self.waiting.resize_with(place + 1, || None);
        }
        self.waiting[place] = Some(result);
    }

    /// The consumer, if there is something for it.
    fn consumer(&mut self) -> Option<Waker> {
        match self.waiting.front() {
            Some(Some(_)) => self.consumer.take(),
            _ => None,
        }
    }
}

impl<T: Send + 'static> Sink<T> for Window<T> {
    type Lane = Vec<(usize, T)>;

    const ROOM: Room = Room::ComesFromOutside;

    fn put(&self, lane: &mut Self::Lane, index: usize, result: T) {
        lane.push((index, result));
    }

    fn flush(&self, lane: &mut Self::Lane) {
        if lane.is_empty() {
            return;
        }
        let mut results = self.0.lock();
        for (index, result) in lane.drain(..) {
            results.put(index, result);
        }
        let consumer = results.consumer();
        drop(results);
        if let Some(consumer) = consumer {
            consumer.wake();
        }
    }

    fn finish(&self, mut lane: Self::Lane) {
        self.flush(&mut lane);
    }
}
