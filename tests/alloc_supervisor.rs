//! What supervising costs in memory: two allocations for each child over spawning it, and nothing left behind by restarts.

#[path = "support/counting.rs"]
mod counting;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use errgroup::{Backoff, BoxError, Child, Context, Group, Restart, Supervisor};
use tokio::runtime::Builder;
use tokio::task::yield_now;

use counting::{ALLOCATIONS, LIVE_BYTES};

fn on_runtime<T>(body: impl Future<Output = T>) -> T {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(body)
}

/// Runs until it is aborted. It waits for nothing that would have to remember it: what is counted is the start.
async fn service(_ctx: Context) -> Result<(), BoxError> {
    std::future::pending().await
}

fn names(children: usize) -> Vec<String> {
    (0..children).map(|n| format!("child {n}")).collect()
}

/// Allocations of a supervisor of so many children, from its making to the last start.
fn supervised(children: usize, drain: Duration) -> usize {
    on_runtime(async {
        let names = names(children);
        let capture = Arc::new(());
        let (ctx, cancel) = Context::background().with_cancel();
        let before = ALLOCATIONS.get();
        let mut supervisor = Supervisor::builder().context(&ctx).build();
        for name in names {
            // A capture, so that the function is not free to keep.
            let capture = capture.clone();
            let child = Child::new(name, move |ctx| {
                let _capture = &capture;
                service(ctx)
            });
            supervisor = supervisor.child(child.drain(drain).grace(Duration::ZERO));
        }
        let handle = supervisor.handle();
        let run = tokio::spawn(supervisor.run());
        while !handle.is_all_up() {
            yield_now().await;
        }
        let after = ALLOCATIONS.get();
        assert_eq!(handle.children().len(), children);
        cancel.cancel();
        run.await.unwrap().unwrap();
        after - before
    })
}

/// Allocations of a group of so many tasks with names, and of a list of their handles.
fn spawned(children: usize) -> usize {
    on_runtime(async {
        let names = names(children);
        let before = ALLOCATIONS.get();
        let group: Group = Group::new();
        let mut handles = Vec::new();
        for name in names {
            handles.push(group.task(name).spawn_with(service));
        }
        let after = ALLOCATIONS.get();
        drop(group);
        after - before
    })
}

/// Allocations for each, all growth included, without what there is once: of a thousand beside a thousand.
fn each(count: impl Fn(usize) -> usize) -> f64 {
    (count(2_000) - count(1_000)) as f64 / 1_000.0
}

#[test]
fn supervised_child_costs_two_allocations_over_spawning_it() {
    let spawned = each(spawned);
    let supervised_each = each(|children| supervised(children, Duration::ZERO));
    let with_drain = each(|children| supervised(children, Duration::from_secs(1)));
    println!("spawned {spawned:.3}, supervised {supervised_each:.3}, with a drain {with_drain:.3}");
    // The function and the context; and, as for any context, a chunk in its parent's list for each 64.
    let over = supervised_each - spawned;
    assert!(over <= 2.0 + 1.1 / 64.0, "{supervised_each} over {spawned}");
    // The point at which it is stopped, and what tells of that.
    assert!(with_drain <= supervised_each + 2.0, "{with_drain}");
}

#[test]
fn supervisor_and_its_first_child_cost_a_few_allocations() {
    let once = supervised(1, Duration::ZERO);
    println!("a supervisor and its first child {once}");
    assert!(once <= 26, "{once}");
}

/// How much of a thread's count is added by restarts of a child: by the first half of them, and by the second.
fn added<N>(
    times: usize,
    child: impl Fn(Arc<AtomicUsize>) -> Child,
    count: impl Fn() -> N,
) -> [N; 2]
where
    N: Copy + std::ops::Sub<Output = N>,
{
    on_runtime(async {
        let n = Arc::new(AtomicUsize::new(0));
        let (ctx, cancel) = Context::background().with_cancel();
        let supervisor = Supervisor::builder()
            .context(&ctx)
            .intensity(usize::MAX, Duration::from_secs(1))
            .build()
            .child(child(n.clone()));
        let mut counts = [count(); 3];
        let run = tokio::spawn(supervisor.run());
        for (half, at) in counts.iter_mut().enumerate().skip(1) {
            while n.load(Ordering::Relaxed) < half * times / 2 {
                yield_now().await;
            }
            *at = count();
        }
        cancel.cancel();
        run.await.unwrap().unwrap();
        [counts[1] - counts[0], counts[2] - counts[1]]
    })
}

/// Restarts a child so often; returns how many bytes more are in use after the second half than after the first.
fn growth(times: usize, child: impl Fn(Arc<AtomicUsize>) -> Child) -> isize {
    added(times, child, || LIVE_BYTES.get())[1]
}

fn ends_at_once(n: Arc<AtomicUsize>) -> Child {
    Child::new("ends", move |_ctx| {
        n.fetch_add(1, Ordering::Relaxed);
        async { Ok(()) }
    })
}

#[test]
fn restart_costs_at_most_three_times_the_allocations_of_a_spawn() {
    const TIMES: usize = 20_000;
    let restarts = added(TIMES, ends_at_once, || ALLOCATIONS.get())[1];
    let restart = restarts as f64 / (TIMES / 2) as f64;
    let spawn = on_runtime(async {
        let mut group: Group = Group::new();
        group.spawn(async { Ok(()) }).await.unwrap();
        let before = ALLOCATIONS.get();
        for _ in 0..TIMES {
            group.spawn(async { Ok(()) }).await.unwrap();
        }
        let after = ALLOCATIONS.get();
        group.wait().await.unwrap();
        (after - before) as f64 / TIMES as f64
    });
    println!("spawn {spawn:.3}, restart {restart:.3}");
    // The task and its context.
    assert!(restart <= 3.0 * spawn, "{restart} to {spawn}");
}

#[test]
fn restarted_a_hundred_thousand_times_then_nothing_grows() {
    let fails = |n: Arc<AtomicUsize>| {
        Child::new("fails", move |_ctx| {
            let n = n.fetch_add(1, Ordering::Relaxed);
            async move { Err(format!("failure {n:9}").into()) }
        })
        .backoff(Backoff::fixed(Duration::ZERO))
    };
    for grown in [growth(100_000, ends_at_once), growth(100_000, fails)] {
        assert!(grown.abs() < 2_048, "{grown} bytes");
    }
}

#[test]
fn temporary_children_added_for_years_then_nothing_grows() {
    on_runtime(async {
        let (ctx, cancel) = Context::background().with_cancel();
        let supervisor = Supervisor::<BoxError>::builder().context(&ctx).build();
        let handle = supervisor.handle();
        let run = tokio::spawn(supervisor.run());
        let mut bytes = [0, 0];
        for bytes in &mut bytes {
            for n in 0..5_000 {
                let child = Child::new(format!("job {n}"), async |_ctx| Ok(()));
                handle.add(child.restart(Restart::Temporary)).await.unwrap();
                while !handle.children().is_empty() {
                    yield_now().await;
                }
            }
            *bytes = LIVE_BYTES.get();
        }
        cancel.cancel();
        run.await.unwrap().unwrap();
        let grown = bytes[1] - bytes[0];
        assert!(grown.abs() < 2_048, "{grown} bytes");
    });
}
