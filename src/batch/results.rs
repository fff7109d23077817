//! `Sink`: where the results of a batch go. `Ordered`: a buffer that gives them out in the order of the items.

use std::collections::VecDeque;
use std::task::{Context as TaskContext, Poll, Waker};

use crate::panic::{contain, discard};
use crate::sync::Mutex;

pub(super) trait Sink<R>: Send + Sync + 'static {
    /// Takes a worker's results, with the indexes of their items: some, and leaves none.
    fn put(&self, results: &mut Vec<(usize, R)>);
}

/// `for_each`: there are no results.
pub(super) struct Discard;

impl Sink<()> for Discard {
    fn put(&self, results: &mut Vec<(usize, ())>) {
        results.clear();
    }
}

/// `map` and `map_stream`: results wait here until all before them are there.
pub(super) struct Ordered<R>(Mutex<Buffer<R>>);

struct Buffer<R> {
    /// From the index `first` on; `None` where the result is still out.
    results: VecDeque<Option<R>>,
    first: usize,
    consumer: Option<Waker>,
}

impl<R> Default for Ordered<R> {
    fn default() -> Self {
        Self(Mutex::new(Buffer {
            results: VecDeque::new(),
            first: 0,
            consumer: None,
        }))
    }
}

impl<R> Ordered<R> {
    /// Moves the results that are next, in order.
    pub(super) fn take(&self, into: &mut VecDeque<R>) {
        self.0.lock().take(into);
    }

    /// As `take`; if there is none, the consumer is woken when it comes.
    pub(super) fn poll_take(&self, into: &mut VecDeque<R>, cx: &TaskContext<'_>) -> Poll<()> {
        let mut buffer = self.0.lock();
        buffer.take(into);
        if !into.is_empty() {
            return Poll::Ready(());
        }
        drop(buffer);
        let waker = cx.waker().clone();
        let mut buffer = self.0.lock();
        // `put` may have come in between. From now on it finds the waker, under the same lock.
        buffer.take(into);
        let unused = match into.is_empty() {
            true => buffer.consumer.replace(waker),
            false => Some(waker),
        };
        drop(buffer);
        drop(unused);
        match into.is_empty() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }

    /// Drops what nobody will take.
    pub(super) fn clear(&self) {
        let results = std::mem::take(&mut self.0.lock().results);
        results.into_iter().for_each(discard);
    }

    /// All results. There is one for each item.
    pub(super) fn take_all(&self) -> Vec<R> {
        let results = std::mem::take(&mut self.0.lock().results);
        let results: Option<Vec<R>> = results.into_iter().collect();
        results.expect("errgroup: a batch that succeeded has a result for each item")
    }
}

impl<R> Buffer<R> {
    fn take(&mut self, into: &mut VecDeque<R>) {
        while let Some(result) = self.results.front_mut().and_then(Option::take) {
            self.results.pop_front();
            self.first += 1;
            into.push_back(result);
        }
    }

    fn put(&mut self, index: usize, result: R) {
        let place = index - self.first;
        while self.results.len() < place {
            self.results.push_back(None);
        }
        match self.results.get_mut(place) {
            Some(empty) => *empty = Some(result),
            None => self.results.push_back(Some(result)),
        }
    }
}

impl<R: Send + 'static> Sink<R> for Ordered<R> {
    fn put(&self, results: &mut Vec<(usize, R)>) {
        let mut buffer = self.0.lock();
        for (index, result) in results.drain(..) {
            buffer.put(index, result);
        }
        let consumer = match buffer.results.front() {
            Some(Some(_)) => buffer.consumer.take(),
            _ => None,
        };
        drop(buffer);
        if let Some(consumer) = consumer {
            contain(|| consumer.wake());
        }
    }
}

impl<R> Drop for Ordered<R> {
    fn drop(&mut self) {
        self.clear();
    }
}
