//! The races of `Source`: lanes that park against wake-ups of the stream and its end, against items that are given back,
//! and against room; and lanes that are started while others end.
//!
//! The model's threads may be polled without having been woken, as lanes may. A panic of the stream is not among the
//! models: loom's mutex does not go on after one.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use futures::Stream;
use loom::thread::{self, JoinHandle};

use super::items::Block;
use super::lanes::Seat;
use super::source::{Order, Pulled, Room, Rules, Source, Staff};
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

fn rules(limit: usize, workers: usize) -> Rules {
    Rules {
        limit: NonZeroUsize::new(limit).unwrap(),
        workers,
        room: Room::ComesFromLanes,
    }
}

/// A source with two lanes, and no more to come.
fn source() -> (Feed, Arc<Source<Feed>>) {
    let feed = Feed::default();
    let source = Source::new(feed.clone(), 2, rules(2, 1));
    (feed, Arc::new(source))
}

/// A lane that pulls once.
fn lane(source: &Arc<Source<Feed>>) -> JoinHandle<Option<u32>> {
    let source = source.clone();
    thread::spawn(move || pull(&source))
}

fn pull<S: Stream<Item = u32> + Unpin>(source: &Source<S>) -> Option<u32> {
    let mut block = Block::default();
    let _ = pull_block(source, &mut Seat::new(), &mut block, 1, false);
    block.pop()
}

fn pull_block<S: Stream + Unpin>(
    source: &Source<S>,
    seat: &mut Seat,
    block: &mut Block<S::Item>,
    size: usize,
    has_waited: bool,
) -> Pulled {
    let order = Order {
        size,
        has_waited,
        was_slow: false,
    };
    block_on(poll_fn(|cx| {
        source.poll_pull(seat, block, order, || true, cx)
    }))
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
        let source = Arc::new(Source::new(Hasty::default(), 2, rules(2, 1)));
        let shared = source.clone();
        let other = thread::spawn(move || pull(&shared));
        let mut pulled = [pull(&source), other.join().unwrap()].map(Option::unwrap);
        pulled.sort_unstable();
        assert_eq!(pulled, [2, 4]);
    });
}

/// A batch whose items wait for others to have run. It stands still if nobody is there to run those.
struct Batch {
    source: Source<Feed>,
    feed: Feed,
    /// An item and what it waits for.
    waits: &'static [(u32, u32)],
    /// Whether lanes expect their first item to wait.
    has_waited: bool,
    ran: Mutex<Ran>,
    lanes: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Ran {
    items: Vec<u32>,
    wakers: Vec<Waker>,
}

impl Batch {
    fn new(rules: Rules, lanes: usize, items: &[u32], waits: &'static [(u32, u32)]) -> Self {
        let feed = Feed::default();
        feed.send(items.iter().copied());
        Self {
            source: Source::new(feed.clone(), lanes, rules),
            feed,
            waits,
            has_waited: false,
            ran: Mutex::default(),
            lanes: Mutex::default(),
        }
    }

    /// Runs it with so many lanes, and with `beside` at the same time.
    fn run(self, lanes: usize, beside: impl FnOnce(&Arc<Self>)) {
        let batch = Arc::new(self);
        (0..lanes).for_each(|_| batch.staff(Staff::OneMore));
        beside(&batch);
        loop {
            let lane = batch.lanes.lock().pop();
            let Some(lane) = lane else { break };
            lane.join().unwrap();
        }
        assert!(batch.source.is_dry());
    }

    fn staff(self: &Arc<Self>, staff: Staff) {
        if staff == Staff::OneMore {
            let batch = self.clone();
            let lane = thread::spawn(move || batch.lane());
            self.lanes.lock().push(lane);
        }
    }

    /// Pulls two items at most, and goes on until there are no more.
    fn lane(self: Arc<Self>) {
        let (mut seat, mut block) = (Seat::new(), Block::default());
        let mut has_waited = self.has_waited;
        while let Pulled::Items(staff) =
            pull_block(&self.source, &mut seat, &mut block, 2, has_waited)
        {
            self.staff(staff);
            has_waited = false;
            while let Some(item) = block.pop() {
                let waits = self.waits.iter().find(|(waiting, _)| *waiting == item);
                if let Some((_, other)) = waits {
                    has_waited = true;
                    self.staff(self.source.hold_up(&mut seat, &mut block));
                    self.has_run(*other);
                }
                self.run_item(item);
            }
        }
    }

    fn has_run(&self, item: u32) {
        block_on(poll_fn(|cx| {
            let mut ran = self.ran.lock();
            if ran.items.contains(&item) {
                return Poll::Ready(());
            }
            ran.wakers.push(cx.waker().clone());
            Poll::Pending
        }));
    }

    /// That the last has run ends the stream.
    fn run_item(&self, item: u32) {
        if item == LAST {
            self.feed.close();
        }
        let mut ran = self.ran.lock();
        ran.items.push(item);
        let wakers = std::mem::take(&mut ran.wakers);
        drop(ran);
        wakers.into_iter().for_each(Waker::wake);
    }
}

const LAST: u32 = 9;

/// The other lane parks, finds no room, or comes first: whoever gives an item back sees to it that it is run.
#[test]
fn item_is_given_back_while_another_lane_finds_no_room_then_it_is_run() {
    loom::model(|| {
        Batch::new(rules(2, 1), 2, &[1, LAST], &[(1, LAST)]).run(2, |_| ());
    });
}

#[test]
fn item_is_given_back_while_another_lane_parks_then_it_is_run() {
    loom::model(|| {
        Batch::new(rules(3, 1), 2, &[1, LAST], &[(1, LAST)]).run(2, |_| ());
    });
}

#[test]
fn item_is_given_back_while_another_lane_finds_the_stream_dry_then_it_is_run() {
    loom::model(|| {
        let batch = Batch::new(rules(3, 1), 2, &[1, LAST], &[(1, LAST)]);
        batch.feed.close();
        batch.run(2, |_| ());
    });
}

#[test]
fn only_lane_is_held_up_then_another_is_started_for_what_it_gives_back() {
    loom::model(|| {
        Batch::new(rules(2, 1), 1, &[1, LAST], &[(1, LAST)]).run(1, |_| ());
    });
}

/// What it waits for is still to come: somebody has to wait for the stream.
#[test]
fn only_lane_is_held_up_while_the_next_item_comes_then_another_is_started_for_that() {
    loom::model(|| {
        let batch = Batch::new(rules(2, 1), 1, &[1], &[(1, LAST)]);
        batch.run(1, |batch| batch.feed.send([LAST]));
    });
}

/// The lane that the stream wakes may find what was given back instead, and have to wait, too.
#[test]
fn item_is_given_back_while_the_stream_wakes_a_parked_lane_then_both_items_are_run() {
    loom::model(|| {
        let batch = Batch::new(rules(3, 1), 2, &[1, 2], &[(1, LAST), (2, LAST)]);
        batch.run(2, |batch| batch.feed.send([LAST]));
    });
}

/// Two threads: a lane that has items has a second one started.
#[test]
fn lane_is_started_as_items_are_found_while_the_stream_ends_then_all_end() {
    loom::model(|| {
        Batch::new(rules(4, 2), 1, &[1, LAST], &[]).run(1, |_| ());
    });
}

/// A lane whose item had to wait counts as held up from its next pull on.
#[test]
fn item_waits_as_expected_then_there_is_a_lane_for_the_next() {
    loom::model(|| {
        let mut batch = Batch::new(rules(2, 1), 1, &[1], &[(1, LAST)]);
        batch.has_waited = true;
        batch.run(1, |batch| batch.feed.send([LAST]));
    });
}

/// The room of `map_stream`.
fn rules_of_window(limit: usize) -> Rules {
    Rules {
        room: Room::ComesFromOutside,
        ..rules(limit, 1)
    }
}

#[test]
fn room_is_given_back_while_the_lane_parks_for_it_then_it_goes_on() {
    loom::model(|| {
        let batch = Batch::new(rules_of_window(1), 1, &[1, LAST], &[]);
        batch.run(1, |batch| {
            for item in [1, LAST] {
                batch.has_run(item);
                batch.staff(batch.source.give_room());
            }
        });
    });
}

/// There was no room for another lane when the last one was held up.
#[test]
fn room_is_given_back_while_all_lanes_are_held_up_then_another_is_started() {
    loom::model(|| {
        let batch = Batch::new(rules_of_window(2), 1, &[1, 2, LAST], &[(2, LAST)]);
        batch.run(1, |batch| {
            for item in [1, LAST] {
                batch.has_run(item);
                batch.staff(batch.source.give_room());
            }
        });
    });
}
