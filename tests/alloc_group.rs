//! What groups cost in memory: one allocation for each task, and nothing left behind (G15).
//!
//! A test binary of its own, since a program has one global allocator. It counts for each thread apart, and the groups
//! run on current-thread runtimes, so the tests do not disturb each other.

#[path = "support/counting.rs"]
mod counting;

use std::future::{Future, pending};
use std::time::Duration;

use errgroup::{BoxError, Context, Group, WaitGroup};
use futures::FutureExt;
use tokio::runtime::Builder;
use tokio::task::yield_now;

use counting::{ALLOCATIONS, LIVE_BYTES};

type Unit = Result<(), BoxError>;

const HOUR: Duration = Duration::from_secs(3_600);

fn on_runtime(body: impl Future<Output = ()>) {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(body);
}

fn one_at_a_time() -> Group {
    Group::builder().limit(1).build()
}

/// How many allocations a function makes, freed again or not.
fn allocations(f: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

/// How many more bytes are in use after some work than before.
async fn growth(work: impl Future<Output = ()>) -> isize {
    let before = LIVE_BYTES.get();
    work.await;
    LIVE_BYTES.get() - before
}

async fn turns(n: usize) {
    for _ in 0..n {
        yield_now().await;
    }
}

async fn until_left(group: &Group, tasks: usize) {
    while group.len() > tasks {
        yield_now().await;
    }
}

/// What a server does: a few tasks at a time, for years, into one group.
async fn serve(group: &Group, tasks: usize) {
    for turn in 0..tasks / 50 {
        for number in 0..50 {
            let work = async move {
                turns(number % 3).await;
                Unit::Ok(())
            };
            match (turn + number) % 10 {
                0 => {
                    group.task("named").spawn(work);
                }
                1 => {
                    group.spawn_with(|_| work);
                }
                2 => {
                    group.spawner().spawn(work);
                }
                3 => group.spawn(pending::<Unit>()).abort(),
                4 => {
                    group.slot().await.unwrap().spawn(work);
                }
                5 => drop(group.try_spawn(work).ok()),
                _ => {
                    group.spawn(work);
                }
            }
        }
        until_left(group, 0).await;
    }
}

#[test]
fn g15_million_tasks_through_one_group_leave_nothing() {
    on_runtime(async {
        let group: Group = Group::new();
        serve(&group, 1_000).await;
        assert_eq!(growth(serve(&group, 1_000_000)).await, 0);
    });
}

#[test]
fn g15_tasks_under_a_limit_leave_nothing() {
    on_runtime(async {
        let group = one_at_a_time();
        group.set_limit(Some(7));
        serve(&group, 1_000).await;
        assert_eq!(growth(serve(&group, 50_000)).await, 0);
    });
}

/// Also around a task that stays.
#[test]
fn g15_burst_of_tasks_gives_its_memory_back() {
    on_runtime(async {
        let group: Group = Group::new();
        let survivor = group.spawn(pending::<Unit>());
        let burst = async || {
            for _ in 0..20_000 {
                group.spawn(async {
                    turns(1).await;
                    Unit::Ok(())
                });
            }
            until_left(&group, 1).await;
        };
        // The runtime's queue keeps the room for its largest crowd.
        burst().await;
        let kept = growth(burst()).await;
        assert!(kept <= 0, "{kept} bytes");
        survivor.abort();
    });
}

/// A handle keeps its task's value, and nothing of the group's.
#[test]
fn g15_handles_held_then_dropped_leave_nothing() {
    on_runtime(async {
        let group: Group = Group::new();
        let hold = async || {
            let tasks: Vec<_> = (0..1_000)
                .map(|number| group.spawn(async move { Ok(vec![number; 100]) }))
                .collect();
            until_left(&group, 0).await;
            for (number, task) in tasks.into_iter().enumerate() {
                assert_eq!(task.await.unwrap()[99], number);
            }
        };
        hold().await;
        assert_eq!(growth(hold()).await, 0);
    });
}

#[test]
fn g15_groups_of_one_parent_leave_nothing() {
    on_runtime(async {
        let (parent, _handle) = Context::background().with_cancel();
        let serve = async |groups: usize| {
            for number in 0..groups {
                let mut group: Group = Group::with_context(&parent);
                group.spawn(pending::<Unit>());
                group.spawn_with(async |_| Err::<(), _>("failed".into()));
                match number % 3 {
                    0 => drop(group.wait().await),
                    1 => drop(group.shutdown(HOUR).await),
                    _ => drop(group),
                }
                turns(4).await;
            }
        };
        serve(100).await;
        assert_eq!(growth(serve(2_000)).await, 0);
    });
}

#[test]
fn g15_waits_and_slots_given_up_leave_nothing() {
    on_runtime(async {
        let mut group = one_at_a_time();
        group.spawn(pending::<Unit>());
        turns(4).await;
        let mut give_up = async |times: usize| {
            for _ in 0..times {
                assert!(group.wait().now_or_never().is_none());
                assert!(group.slot().now_or_never().is_none());
            }
        };
        give_up(100).await;
        assert_eq!(growth(give_up(10_000)).await, 0);
    });
}

/// A task's own allocation is tokio's; the registry's chunks are shared by many.
#[test]
fn task_costs_one_allocation() {
    const TASKS: usize = 10_000;
    on_runtime(async {
        let group: Group = Group::new();
        let spawn = || {
            for _ in 0..TASKS {
                group.spawn(async { Ok(()) });
            }
        };
        // The runtime's queue grows now, and not while it is counted.
        spawn();
        until_left(&group, 0).await;
        // A runtime looks after the one that waits between a few dozen tasks.
        let bare = allocations(|| (0..TASKS).for_each(|_| drop(tokio::spawn(async {}))));
        turns(TASKS / 10).await;
        let ours = allocations(spawn);
        until_left(&group, 0).await;
        assert!(bare >= TASKS, "{bare}");
        assert!(ours <= bare + TASKS / 20, "{ours} instead of {bare}");
    });
}

#[test]
fn name_costs_one_allocation_more() {
    on_runtime(async {
        let group: Group = Group::new();
        // The group makes room for names with the first.
        group.task("first").spawn(pending::<Unit>());
        let unnamed = allocations(|| {
            group.spawn(pending::<Unit>());
        });
        let named = allocations(|| {
            group.task("named").spawn(pending::<Unit>());
        });
        assert_eq!(named, unnamed + 1);
    });
}

#[test]
fn wait_groups_leave_nothing() {
    on_runtime(async {
        let serve = async |rounds: usize| {
            let wg = WaitGroup::new();
            for _ in 0..rounds {
                let tokens = [wg.token(), wg.token()];
                assert!(wg.wait().now_or_never().is_none());
                drop(tokens);
                assert!(wg.wait().now_or_never().is_some());
            }
        };
        assert_eq!(growth(serve(10_000)).await, 0);
    });
}
