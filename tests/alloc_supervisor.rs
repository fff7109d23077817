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

const CHILDREN: usize = 1_000;

fn on_runtime<T>(body: impl Future<Output = T>) -> T {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(body)
}

async fn service(ctx: Context) -> Result<(), BoxError> {
    // A capture, so that the function is not free to keep.
    ctx.done().await;
    Ok(())
}

/// Allocations for each child that is started, up to the last start.
fn per_supervised(drain: Duration) -> f64 {
    on_runtime(async {
        let names: Vec<_> = (0..CHILDREN).map(|n| format!("child {n}")).collect();
        let capture = Arc::new(());
        let (ctx, cancel) = Context::background().with_cancel();
        let before = ALLOCATIONS.get();
        let mut supervisor = Supervisor::builder().context(&ctx).build();
        for name in names {
            let capture = capture.clone();
            let child = Child::new(name, move |ctx| {
                let _capture = &capture;
                service(ctx)
            });
            supervisor = supervisor.child(child.drain(drain));
        }
        let handle = supervisor.handle();
        let run = tokio::spawn(supervisor.run());
        while !handle.is_all_up() || handle.children().is_empty() {
            yield_now().await;
        }
        // Listing them, above and below, is not what is counted.
        let listing = ALLOCATIONS.get();
        drop(handle.children());
        let listing = ALLOCATIONS.get() - listing;
        let after = ALLOCATIONS.get();
        cancel.cancel();
        run.await.unwrap().unwrap();
        (after - before - 2 * listing) as f64 / CHILDREN as f64
    })
}

/// Allocations for each task with a name that is spawned, and for its entry in a list of handles.
fn per_spawned() -> f64 {
    on_runtime(async {
        let names: Vec<_> = (0..CHILDREN).map(|n| format!("child {n}")).collect();
        let group: Group = Group::new();
        let before = ALLOCATIONS.get();
        for name in names {
            group.task(name).spawn_with(service);
        }
        let after = ALLOCATIONS.get();
        group.cancel();
        group.await.unwrap();
        (after - before) as f64 / CHILDREN as f64
    })
}

#[test]
fn supervised_child_costs_at_most_two_allocations_over_spawning_it() {
    let spawned = per_spawned();
    let supervised = per_supervised(Duration::ZERO);
    println!("spawned {spawned:.3}, supervised {supervised:.3}");
    println!("with a drain {:.3}", per_supervised(Duration::from_secs(1)));
    // The function, and the context, which has a place in the list of its parent: a tenth of an allocation.
    assert!(supervised <= spawned + 2.2, "{supervised} over {spawned}");
}

/// Restarts a child so often; returns how many bytes more are in use after the second half than after the first.
fn growth(times: usize, child: impl Fn(Arc<AtomicUsize>) -> Child) -> isize {
    on_runtime(async {
        let n = Arc::new(AtomicUsize::new(0));
        let (ctx, cancel) = Context::background().with_cancel();
        let supervisor = Supervisor::builder()
            .context(&ctx)
            .intensity(usize::MAX, Duration::from_secs(1))
            .build()
            .child(child(n.clone()));
        let run = tokio::spawn(supervisor.run());
        let mut bytes = [0, 0];
        for (half, bytes) in bytes.iter_mut().enumerate() {
            while n.load(Ordering::Relaxed) < (half + 1) * times / 2 {
                yield_now().await;
            }
            *bytes = LIVE_BYTES.get();
        }
        cancel.cancel();
        run.await.unwrap().unwrap();
        bytes[1] - bytes[0]
    })
}

#[test]
fn restarted_a_hundred_thousand_times_then_nothing_grows() {
    let ends = |n: Arc<AtomicUsize>| {
        Child::new("ends", move |_ctx| {
            n.fetch_add(1, Ordering::Relaxed);
            async { Ok(()) }
        })
    };
    let fails = |n: Arc<AtomicUsize>| {
        Child::new("fails", move |_ctx| {
            let n = n.fetch_add(1, Ordering::Relaxed);
            async move { Err(format!("failure {n:9}").into()) }
        })
        .backoff(Backoff::fixed(Duration::ZERO))
    };
    for grown in [growth(100_000, ends), growth(100_000, fails)] {
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
