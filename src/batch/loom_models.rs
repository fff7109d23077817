//! The races of `Source`: lanes that park against wake-ups of the stream and its end.
//!
//! The model's threads may be polled without having been woken, as lanes may. A panic of the stream is not among the
//! models: loom's mutex does not go on after one.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use futures::Stream;
use loom::thread::{self, JoinHandle};

use super::source::Source;
use crate::sync::Mutex;
use crate::sync::model::block_on;

/// The model's end of a stream, with one place for a waker.
#[derive(Clone, Default)]
struct Feed(Arc<Mutex<Fed>>);

#[derive(Default)]
struct Fed {
    items: VecDeque<u32>,
    is_closed: bool,
    waker: Option<Waker>,
    polls: usize,
}

impl Stream for Feed {
    type Item = u32;

    fn poll_next(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<u32>> {
        let mut fed = self.0.lock();
        fed.polls += 1;
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
    /// Makes items ready, and wakes once.
    fn send(&self, items: impl IntoIterator<Item = u32>) {
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

fn source() -> (Feed, Arc<Source<Feed>>) {
    let feed = Feed::default();
    (feed.clone(), Arc::new(Source::new(feed)))
}

/// A lane that pulls once.
fn lane(source: &Arc<Source<Feed>>) -> JoinHandle<Option<u32>> {
    let source = source.clone();
    thread::spawn(move || pull(&source))
}

fn pull(source: &Source<Feed>) -> Option<u32> {
    block_on(source.pull()).map(|(_index, item)| item)
}

#[test]
fn item_comes_while_the_lane_parks_then_the_lane_has_it() {
    loom::model(|| {
        let (feed, source) = source();
        let lane = lane(&source);
        feed.send([7]);
        assert_eq!(lane.join().unwrap(), Some(7));
    });
}

/// The one who is woken has to wake the other.
#[test]
fn two_items_come_at_one_wake_while_two_lanes_park_then_each_has_one() {
    loom::model(|| {
        let (feed, source) = source();
        let other = lane(&source);
        let feeder = thread::spawn(move || feed.send([1, 2]));
        let mut pulled = [pull(&source), other.join().unwrap()];
        feeder.join().unwrap();
        pulled.sort_unstable();
        assert_eq!(pulled, [Some(1), Some(2)]);
    });
}

#[test]
fn two_items_come_one_after_the_other_while_two_lanes_park_then_each_has_one() {
    loom::model(|| {
        let (feed, source) = source();
        let other = lane(&source);
        let feeder = thread::spawn(move || {
            feed.send([1]);
            feed.send([2]);
        });
        let mut pulled = [pull(&source), other.join().unwrap()];
        feeder.join().unwrap();
        pulled.sort_unstable();
        assert_eq!(pulled, [Some(1), Some(2)]);
    });
}

#[test]
fn stream_ends_while_two_lanes_park_then_both_end() {
    loom::model(|| {
        let (feed, source) = source();
        let other = lane(&source);
        let feeder = thread::spawn(move || feed.close());
        assert_eq!(pull(&source), None);
        assert_eq!(other.join().unwrap(), None);
        feeder.join().unwrap();
        assert!(source.is_dry());
    });
}

#[test]
fn item_and_the_end_come_while_two_lanes_park_then_one_has_it_and_the_other_ends() {
    loom::model(|| {
        let (feed, source) = source();
        let other = lane(&source);
        let feeder = thread::spawn(move || {
            feed.send([7]);
            feed.close();
        });
        let mut pulled = [pull(&source), other.join().unwrap()];
        feeder.join().unwrap();
        pulled.sort_unstable();
        assert_eq!(pulled, [None, Some(7)]);
    });
}

/// A wake-up for nothing, a lane that has its item and goes, and one that comes: the next item is missed by nobody.
#[test]
fn stream_wakes_for_nothing_while_a_lane_parks_then_the_item_after_it_is_not_missed() {
    loom::model(|| {
        let (feed, source) = source();
        let lane = lane(&source);
        feed.change(|_| ());
        feed.send([7]);
        assert_eq!(lane.join().unwrap(), Some(7));
    });
}

/// A stream that wakes whoever polls it, and is ready the next time.
#[derive(Default)]
struct Hasty {
    polls: u32,
}

impl Stream for Hasty {
    type Item = u32;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<u32>> {
        self.polls += 1;
        if self.polls % 2 == 1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(self.polls))
    }
}

#[test]
fn stream_wakes_while_it_is_polled_by_two_lanes_then_each_has_an_item() {
    loom::model(|| {
        let source = Arc::new(Source::new(Hasty::default()));
        let shared = source.clone();
        let other = thread::spawn(move || block_on(shared.pull()));
        let mut pulled = [block_on(source.pull()), other.join().unwrap()].map(Option::unwrap);
        pulled.sort_unstable();
        assert_eq!(pulled, [(0, 2), (1, 4)]);
    });
}
