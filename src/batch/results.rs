//! `Sink`: where the results of a batch go. `Collected`: a buffer that gives them out in the order of the items, or in that
//! in which they came.

use std::collections::VecDeque;
use std::task::{Context as TaskContext, Poll, Waker};

use crate::panic::{contain, discard};
use crate::sync::Mutex;

pub(super) trait Sink<R>: Send + Sync + 'static {
    /// A result may decide the batch. So it takes each at once, not when its block is done, and wants to know how many items
    /// there are.
    const IS_RACE: bool = false;

    /// Takes a worker's results, with the indexes of their items: some, and leaves none.
    fn put(&self, results: &mut Vec<(usize, R)>) -> Verdict;

    /// Takes note that there are so many items at most.
    #[inline]
    fn count_items(&self, _most: usize) -> Verdict {
        Verdict::GoOn
    }
}

/// Whether a batch has come to its result before its items are done.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    GoOn,
    Decided,
}

/// `for_each`: there are no results.
pub(super) struct Discard;

impl Sink<()> for Discard {
    fn put(&self, results: &mut Vec<(usize, ())>) -> Verdict {
        results.clear();
        Verdict::GoOn
    }
}

/// `map` and `map_stream`: results wait here until all before them are there, unless their order is that of completion.
pub(super) struct Collected<R>(Mutex<Buffer<R>>);

/// The order in which results are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    OfItems,
    OfCompletion,
}

struct Buffer<R> {
    order: Order,
    /// From the index `first` on; `None` where the result is still out.
    results: VecDeque<Option<R>>,
    first: usize,
    consumer: Option<Waker>,
}

impl<R> Collected<R> {
    pub(super) fn new(order: Order) -> Self {
        Self(Mutex::new(Buffer {
            order,
            results: VecDeque::new(),
            first: 0,
            consumer: None,
        }))
    }

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
        let place = match self.order {
            Order::OfItems => index - self.first,
            Order::OfCompletion => self.results.len(),
        };
        while self.results.len() < place {
            self.results.push_back(None);
        }
        match self.results.get_mut(place) {
            Some(empty) => *empty = Some(result),
            None => self.results.push_back(Some(result)),
        }
    }
}

impl<R: Send + 'static> Sink<R> for Collected<R> {
    fn put(&self, results: &mut Vec<(usize, R)>) -> Verdict {
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
        Verdict::GoOn
    }
}

impl<R> Drop for Collected<R> {
    fn drop(&mut self) {
        self.clear();
    }
}
