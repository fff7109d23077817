//! What batches cost in memory: nothing for each item, and nothing that grows with their number.
//!
//! A test binary of its own, since a program has one global allocator. It counts for each thread apart, and the batches
//! run on a current-thread runtime: what others do does not disturb it.

#[path = "support/counting.rs"]
mod counting;

use std::future::{Future, ready};

use errgroup::{BoxError, Context, batch, batch_stream};
use futures::{StreamExt, stream};
use tokio::runtime::Builder;

use counting::{ALLOCATIONS, LIVE_BYTES, PEAK_BYTES};

#[derive(Debug, PartialEq)]
struct Cost {
    allocations: usize,
    /// The most that was in use at once, in bytes.
    peak: isize,
    left: isize,
}

/// What a batch costs on a runtime that has run one before.
fn cost<F: Future>(run: impl Fn(usize) -> F, items: usize) -> Cost {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(1_000));
    let (allocations, live) = (ALLOCATIONS.get(), LIVE_BYTES.get());
    PEAK_BYTES.set(live);
    runtime.block_on(run(items));
    Cost {
        allocations: ALLOCATIONS.get() - allocations,
        peak: PEAK_BYTES.get() - live,
        left: LIVE_BYTES.get() - live,
    }
}

const LIMIT: usize = 64;

/// Debug builds are slow.
const MANY: usize = if cfg!(debug_assertions) {
    100_000
} else {
    1_000_000
};

async fn no_op(_ctx: Context, _item: usize) -> Result<(), BoxError> {
    Ok(())
}

/// Items that are not ready at once, so that the workers take turns.
async fn yielding(_ctx: Context, _item: usize) -> Result<(), BoxError> {
    tokio::task::yield_now().await;
    Ok(())
}

async fn for_each(items: usize) {
    batch(0..items, LIMIT).for_each(no_op).await.unwrap();
}

async fn for_each_yielding(items: usize) {
    batch(0..items, LIMIT).for_each(yielding).await.unwrap();
}

/// A stream that is pending every third time, so that the workers park.
async fn for_each_of_stream(items: usize) {
    let (mut left, mut polls) = (items, 0_usize);
    let stream = stream::poll_fn(move |cx| {
        polls += 1;
        if polls % 3 == 0 {
            cx.waker().wake_by_ref();
            return std::task::Poll::Pending;
        }
        left = left.saturating_sub(1);
        std::task::Poll::Ready((left > 0).then_some(left))
    });
    batch_stream(stream, LIMIT)
        .for_each(yielding)
        .await
        .unwrap();
}

async fn map_stream(items: usize) {
    let results = batch(0..items, LIMIT).map_stream(no_op);
    assert_eq!(
        results
            .filter_map(|result| ready(result.ok()))
            .count()
            .await,
        items
    );
}

#[test]
fn a_hundred_times_the_items_cost_not_one_allocation_nor_a_byte_more() {
    fn check<F: Future>(name: &str, run: fn(usize) -> F) {
        let (few, many) = (cost(run, MANY / 100), cost(run, MANY));
        // Buffers may have to grow once more.
        assert!(
            many.allocations <= few.allocations + 8,
            "{name}: {few:?}, {many:?}"
        );
        assert!(many.peak <= few.peak + 4_096, "{name}: {few:?}, {many:?}");
        assert!(many.left <= 0, "{name}: {many:?}");
    }
    check("for_each", for_each);
    check("for_each, yielding", for_each_yielding);
    check("for_each of a stream", for_each_of_stream);
    check("map_stream", map_stream);
}

/// A worker costs a task and what the group keeps of it.
#[test]
fn workers_cost_little_and_only_as_many_as_there_are_items() {
    let all = cost(for_each, 64);
    assert!(all.allocations <= 64 + 30, "{all:?}");
    assert!(all.peak <= 64 * 640, "{all:?}");
    let few = cost(for_each, 2);
    assert!(few.allocations <= 2 + 20, "{few:?}");
}

/// The results of `map` are collected in vectors: they grow, but no item allocates.
#[test]
fn map_allocates_for_its_results_only_as_vectors_grow() {
    let map = |items| async move {
        let results = batch(0..items, LIMIT).map(|_, item| ready(Ok::<_, BoxError>(item)));
        assert_eq!(results.await.unwrap().len(), items);
    };
    let many = cost(map, MANY);
    assert!(many.allocations <= 64 * 25 + 50, "{many:?}");
    assert!(many.left <= 0, "{many:?}");
}
