//! Ceilings for what does not depend on the machine: allocations and bytes per task, waiter and batch, beside tokio's.
//!
//! Those of the table of budgets are all here. Those of contexts and groups alone are in the crate's own tests, too.

use std::future::pending;
use std::pin::Pin;
use std::task::{Context as TaskContext, Waker};

use errgroup::{Context, Group};
use errgroup_bench::alloc::{Allocated, Counting, count};
use errgroup_bench::count::Programs;
use errgroup_bench::jobs::{AtOnce, Yields, job};
use errgroup_bench::results::Unit;
use errgroup_bench::{ours, rows};
use tokio::runtime::Builder;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PROGRAMS: Programs = Programs {
    op: env!("CARGO_BIN_EXE_op"),
    allocated: env!("CARGO_BIN_EXE_allocated"),
    text: [["", ""], ["", ""]],
};

/// Rows whose budget is not met yet. One that comes to be met has to leave this list.
const MISSED: [&str; 7] = [
    "request: a group below a parent, 3 tasks that wait once: bytes in all",
    "group with 5 waiting tasks from 3 places: bytes held",
    "idle group: bytes held",
    "idle group, of 2 workers: bytes held",
    "idle group, of 16 workers: bytes held",
    "idle group, its only task has ended: bytes held",
    "request's context: cancel, timeout, value, ten waits in a select!: allocations",
];

#[test]
fn allocations_and_bytes_are_within_their_budgets() {
    let counted = [Unit::Allocations, Unit::Bytes, Unit::Held];
    let mut missed = Vec::new();
    for row in rows::all() {
        if counted.contains(&row.plan.unit) {
            let row = row.count(&PROGRAMS).expect("the program counts");
            let is_missed = row.budgets.iter().any(|budget| !row.is_met(budget));
            missed.extend(is_missed.then(|| row.title()));
        }
    }
    assert_eq!(missed, MISSED);
}

const TASKS: usize = 6_400;

/// Counts an async operation, what it returns still held.
fn on_runtime<R>(operation: impl Future<Output = R>) -> Allocated {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be built");
    let (held, counted) = count(|| runtime.block_on(operation));
    let _guard = runtime.enter();
    drop(held);
    counted
}

/// Counts what one of the operations in between allocates.
fn each<F: Future>(operation: impl Fn(usize) -> F) -> f64 {
    let [few, many] = [TASKS, 2 * TASKS].map(|n| on_runtime(operation(n)).allocations);
    (many - few) as f64 / TASKS as f64
}

/// Once for the task, once for its name; the names stand in a tree, which has a node for some six of them.
#[test]
fn named_task_allocates_little_more_than_twice() {
    let named = each(|n| async move {
        let mut group: Group = Group::new();
        for _ in 0..n {
            group.task("job").spawn(job::<AtOnce>());
        }
        group.wait().await.expect("no task fails");
    });
    assert!(named <= 2.2, "{named} allocations");
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
    // tokio's 256 for the task, 64 for its entry, and the chunks' heads.
    const BYTES: i64 = 336;
    let group = on_runtime(async {
        let group: Group = Group::new();
        for _ in 0..TASKS {
            group.spawn(async { pending::<Result<(), _>>().await });
        }
        tokio::task::yield_now().await;
        group
    });
    let held = group.live / TASKS as i64;
    assert!(held <= BYTES, "{held} bytes, not {BYTES}");
}

#[test]
fn ended_group_holds_nothing() {
    let group = on_runtime(async {
        let mut group: Group = Group::new();
        for _ in 0..TASKS {
            group.spawn(async { pending::<Result<(), _>>().await });
        }
        tokio::task::yield_now().await;
        group.cancel();
        group.wait().await.expect("a stop on purpose is no error");
    });
    let nothing = on_runtime(async { tokio::task::yield_now().await });
    let held = group.live - nothing.live;
    assert!(held < 64 * 1024, "{held} bytes");
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
    assert!(
        done.allocations <= TASKS as u64 / 50,
        "{} allocations",
        done.allocations
    );
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
    batch_allocates_nothing_per(ours::batch::<AtOnce, 64>);
    batch_allocates_nothing_per(ours::batch::<Yields<1>, 64>);
}

fn batch_allocates_nothing_per<F: Future>(batch: impl Fn(usize) -> F) {
    // The first batch finds the thread new.
    on_runtime(batch(10));
    let (few, many) = (on_runtime(batch(10_000)), on_runtime(batch(100_000)));
    // The clock decides how many are pulled in one go, and so how often the room for these grows: up to 64 of two words.
    assert!(many.allocations <= few.allocations + 6, "{few:?} {many:?}");
    assert!(many.peak <= few.peak + 2 * 64 * 16, "{few:?} {many:?}");
}

#[test]
fn batch_with_a_large_limit_starts_no_idle_workers() {
    let few = on_runtime(ours::batch::<AtOnce, 4>(4));
    let many = on_runtime(ours::batch::<AtOnce, 1_000_000>(4));
    assert_eq!(few.allocations, many.allocations);
}
