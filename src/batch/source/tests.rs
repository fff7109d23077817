use futures::stream;

use super::*;

type Numbers = stream::Iter<std::ops::Range<usize>>;

fn source(items: usize, lanes: usize, limit: usize, workers: usize) -> Source<Numbers> {
    let rules = Rules {
        limit: NonZeroUsize::new(limit).unwrap(),
        workers,
        room: Room::ComesFromLanes,
    };
    Source::new(stream::iter(0..items), lanes, rules)
}

struct Lane {
    seat: Seat,
    block: Block<usize>,
}

impl Lane {
    fn new() -> Self {
        Self {
            seat: Seat::new(),
            block: Block::default(),
        }
    }

    fn pull(&mut self, source: &Source<Numbers>, size: usize) -> Poll<Pulled> {
        self.pull_while(source, size, || true)
    }

    fn pull_while(
        &mut self,
        source: &Source<Numbers>,
        size: usize,
        is_live: impl Fn() -> bool,
    ) -> Poll<Pulled> {
        let order = Order {
            size,
            has_waited: false,
            was_slow: false,
        };
        let mut cx = TaskContext::from_waker(Waker::noop());
        source.poll_pull(&mut self.seat, &mut self.block, order, is_live, &mut cx)
    }

    fn items(&mut self) -> Vec<usize> {
        std::iter::from_fn(|| self.block.pop()).collect()
    }
}

const ENOUGH: Poll<Pulled> = Poll::Ready(Pulled::Items(Staff::Enough));
const ONE_MORE: Poll<Pulled> = Poll::Ready(Pulled::Items(Staff::OneMore));
const NOTHING: Poll<Pulled> = Poll::Ready(Pulled::Nothing);

#[test]
fn lane_asks_for_more_than_there_is_room_then_it_has_what_there_is_room_for() {
    let source = source(100, 1, 8, 1);
    let mut lane = Lane::new();
    assert_eq!(lane.pull(&source, 5), ENOUGH);
    assert_eq!(lane.items(), [0, 1, 2, 3, 4]);
    assert_eq!(lane.pull(&source, 64), ENOUGH);
    assert_eq!(lane.items().len(), 8);
}

/// What one lane takes leaves room for the other threads.
#[test]
fn two_threads_share_the_room() {
    let source = source(100, 2, 8, 2);
    let mut lanes = [Lane::new(), Lane::new()];
    for lane in &mut lanes {
        assert_eq!(lane.pull(&source, 64), ENOUGH);
        assert_eq!(lane.block.len(), 4);
    }
}

#[test]
fn there_is_no_room_then_a_lane_ends() {
    let source = source(100, 2, 8, 1);
    let (mut first, mut second) = (Lane::new(), Lane::new());
    assert_eq!(first.pull(&source, 8), ENOUGH);
    assert_eq!(second.pull(&source, 8), NOTHING);
    assert_eq!(first.items().len(), 8);
    assert_eq!(first.pull(&source, 8), ENOUGH);
}

#[test]
fn context_ends_while_a_block_is_pulled_then_no_more_are_pulled() {
    let source = source(100, 1, 8, 1);
    let mut lane = Lane::new();
    assert_eq!(lane.pull_while(&source, 8, || false), ENOUGH);
    assert_eq!(lane.items(), [0]);
}

#[test]
fn lanes_give_back_then_the_items_come_in_order_and_before_the_others() {
    let source = source(100, 2, 16, 1);
    let (mut first, mut second) = (Lane::new(), Lane::new());
    assert_eq!(first.pull(&source, 4), ENOUGH);
    assert_eq!(second.pull(&source, 4), ENOUGH);
    assert_eq!((first.block.pop(), second.block.pop()), (Some(0), Some(4)));
    assert_eq!(
        source.hold_up(&mut second.seat, &mut second.block),
        Staff::Enough
    );
    assert_eq!(
        source.hold_up(&mut first.seat, &mut first.block),
        Staff::OneMore
    );
    assert_eq!((first.block.popped(), second.block.popped()), (0, 4));
    let mut third = Lane::new();
    assert_eq!(third.pull(&source, 2), ENOUGH);
    assert_eq!(third.block.pop(), Some(1));
    assert_eq!(third.block.popped(), 1);
    assert_eq!(third.items(), [2]);
    // Consecutive ones only.
    assert_eq!(third.pull(&source, 9), ENOUGH);
    assert_eq!(third.items(), [3]);
    assert_eq!(third.pull(&source, 9), ENOUGH);
    assert_eq!(third.items(), [5, 6, 7]);
    assert_eq!(third.pull(&source, 2), ENOUGH);
    assert_eq!(third.items(), [8, 9]);
}

#[test]
fn lane_finds_the_source_dry_while_another_has_several_then_that_one_shares_them() {
    let source = source(4, 2, 16, 2);
    let (mut first, mut second) = (Lane::new(), Lane::new());
    assert_eq!(first.pull(&source, 4), ENOUGH);
    assert!(!source.is_wanting());
    assert_eq!(second.pull(&source, 4), NOTHING);
    assert!(source.is_wanting());
    assert_eq!(first.block.pop(), Some(0));
    assert_eq!(
        source.share(&mut first.seat, &mut first.block),
        Staff::OneMore
    );
    assert!(!source.is_wanting());
    assert_eq!(first.items(), [1]);
    let mut third = Lane::new();
    assert_eq!(third.pull(&source, 4), ENOUGH);
    assert_eq!(third.items(), [2, 3]);
    assert_eq!(first.pull(&source, 4), NOTHING);
    assert_eq!(third.pull(&source, 4), NOTHING);
    assert!(source.is_dry());
}

#[test]
fn lane_has_items_then_there_is_one_for_each_thread_and_no_more() {
    let source = source(100, 1, 16, 3);
    let mut lanes = [Lane::new(), Lane::new(), Lane::new()];
    let staff = lanes.each_mut().map(|lane| lane.pull(&source, 1));
    assert_eq!(staff, [ONE_MORE, ONE_MORE, ENOUGH]);
}

#[test]
fn item_took_long_then_there_may_be_a_lane_more_than_threads_but_not_on_one() {
    for (workers, expected) in [(1, ENOUGH), (2, ONE_MORE)] {
        let source = source(100, workers, 16, workers);
        let mut lanes: Vec<_> = (0..workers).map(|_| Lane::new()).collect();
        for lane in &mut lanes {
            assert_eq!(lane.pull(&source, 1), ENOUGH);
        }
        let Lane { seat, block } = &mut lanes[0];
        assert_eq!(block.pop(), Some(0));
        let order = Order {
            size: 1,
            has_waited: false,
            was_slow: true,
        };
        let mut cx = TaskContext::from_waker(Waker::noop());
        let pulled = source.poll_pull(seat, block, order, || true, &mut cx);
        assert_eq!(pulled, expected);
    }
}
