//! Ceilings for what does not depend on the machine: allocations and bytes per task, waiter and batch, beside tokio's.
//!
//! Those of contexts and groups alone are in the crate's own tests.

use std::future::pending;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context as TaskContext, Waker};

use errgroup::{BoxError, Context, Group};
use errgroup_bench::alloc::{Allocated, Counting, count};
use errgroup_bench::counts::on_runtime;
use errgroup_bench::work::spawn::{self, AtOnce, Work, Yields};
use errgroup_bench::work::{batch, siblings};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TASKS: usize = 6_400;

/// The registry allocates a page for so many tasks that are live at the same time, and once more if they wait or have
/// names.
const PAGE: u64 = 63;

/// A group's core, its context, its registry's tables as they grow, a first, smaller page, and the wait.
const GROUP: u64 = 20;

/// What a group of `TASKS` may allocate beside the tasks themselves.
const BESIDE: u64 = TASKS as u64 / PAGE + GROUP;

/// As `BESIDE`, for tasks with notes on their pages, the first and the last page among them.
const NOTED: u64 = BESIDE + TASKS as u64 / PAGE + 2;

fn assert_at_most(allocated: Allocated, allocations: u64) {
    let made = allocated.allocations;
    assert!(made <= allocations, "{made} allocations, not {allocations}");
}

/// Bare tasks allocate once each; what the runtime allocates is in that, too.
fn bare<W: Work>() -> u64 {
    let bare = on_runtime(spawn::bare::<W, ()>(TASKS)).allocations;
    assert!(bare < TASKS as u64 + 20, "{bare} allocations");
    bare
}

#[test]
fn spawned_task_allocates_once() {
    let group = on_runtime(spawn::group::<AtOnce, ()>(TASKS));
    assert_at_most(group, bare::<AtOnce>() + BESIDE);
}

#[test]
fn spawned_task_that_waits_allocates_once() {
    let group = on_runtime(spawn::group::<Yields<4>, ()>(TASKS));
    assert_at_most(group, bare::<Yields<4>>() + NOTED);
}

#[test]
fn named_task_allocates_twice() {
    let group = on_runtime(spawn::named::<AtOnce, ()>(TASKS));
    assert_at_most(group, bare::<AtOnce>() + TASKS as u64 + NOTED);
}

/// One after the other: the registry has a place for each already.
#[test]
fn task_of_a_long_lived_group_allocates_exactly_once() {
    let few = one_after_the_other(1_000);
    let many = one_after_the_other(11_000);
    assert_eq!(many.allocations - few.allocations, 10_000);
    assert_eq!(many.live, few.live);
}

fn one_after_the_other(n: usize) -> Allocated {
    on_runtime(async move {
        let mut group: Group = Group::new();
        for _ in 0..n {
            let task = group.spawn(async { Ok(()) });
            task.await.expect("it does not fail");
        }
        group.wait().await.expect("no task failed");
    })
}

#[test]
fn live_task_holds_at_most_so_many_bytes() {
    const BYTES: i64 = 304;
    let held = on_runtime(siblings::group(TASKS)).live / TASKS as i64;
    assert!(held <= BYTES, "{held} bytes, not {BYTES}");
}

#[test]
fn only_waiter_on_a_context_allocates_nothing_twice() {
    let (ctx, _handle) = Context::background().with_cancel();
    // What the first waiter ever makes is kept for the next.
    poll_all(vec![Box::pin(ctx.done())]);
    assert_eq!(poll_all(vec![Box::pin(ctx.done())]).allocations, 0);
}

#[test]
fn waiter_among_many_holds_at_most_forty_bytes() {
    let (ctx, _handle) = Context::background().with_cancel();
    let done = poll_all((0..TASKS).map(|_| Box::pin(ctx.done())).collect());
    assert_at_most(done, BESIDE);
    assert!(done.live <= 40 * TASKS as i64, "{} bytes", done.live);
}

/// Counts what polling futures, which stay pending, allocates and holds.
fn poll_all<F: Future>(mut futures: Vec<Pin<Box<F>>>) -> Allocated {
    let mut cx = TaskContext::from_waker(Waker::noop());
    let poll = |future: &mut Pin<Box<F>>| assert!(future.as_mut().poll(&mut cx).is_pending());
    count(|| futures.iter_mut().for_each(poll)).1
}

#[test]
fn batch_allocates_nothing_per_item() {
    for batch in [
        on_runtime_of(batch::for_each::<AtOnce>),
        on_runtime_of(batch::for_each::<Yields<1>>),
    ] {
        let (few, many) = (batch(10_000), batch(100_000));
        assert_eq!(few.allocations, many.allocations);
        assert_eq!(few.peak, many.peak);
    }
}

type Batch<F> = fn(usize) -> F;

fn on_runtime_of<F: Future + 'static>(batch: Batch<F>) -> Box<dyn Fn(usize) -> Allocated> {
    Box::new(move |n| on_runtime(batch(n)))
}

#[test]
fn batch_with_a_large_limit_starts_no_idle_lanes() {
    let of = |limit: usize| {
        let limit = NonZeroUsize::new(limit).expect("not zero");
        on_runtime(async move {
            let batch = errgroup::batch(0..4, limit);
            batch
                .for_each(|_ctx, _| async { Ok::<_, BoxError>(()) })
                .await
        })
    };
    assert_eq!(of(4).allocations, of(1_000_000).allocations);
}

#[test]
fn ended_group_holds_nothing() {
    let group = on_runtime(async {
        let mut group: Group = Group::new();
        for _ in 0..TASKS {
            drop(group.spawn(async { pending::<Result<(), _>>().await }));
        }
        tokio::task::yield_now().await;
        group.cancel();
        group.wait().await.expect("a stop on purpose is no error");
    });
    let nothing = on_runtime(async { tokio::task::yield_now().await });
    assert!(
        group.live - nothing.live < 64 * 1024,
        "{} bytes",
        group.live
    );
}
