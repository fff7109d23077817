//! G13: a group that is dropped inside another one's task hands its live tasks over.

use std::future::IntoFuture;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use errgroup::{BoxError, Context, Group, Reason, Spawner, Task};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::group_support::*;
use crate::support::bomb;

const GRACE: Duration = Duration::from_secs(5);

/// A blocking task that goes on until it is let go.
struct Stubborn {
    finish: mpsc::Sender<()>,
    started: oneshot::Receiver<()>,
}

/// What runs in the inner group: it holds `used` until it is let go, whatever the group says.
fn stubborn(used: &Arc<()>) -> (Stubborn, impl FnOnce(Context) -> Unit + Send + use<>) {
    let (finish, busy) = mpsc::channel::<()>();
    let (tell, started) = oneshot::channel();
    let used = used.clone();
    let job = move |_: Context| {
        let _ = tell.send(());
        let _ = busy.recv();
        drop(used);
        Ok(())
    };
    (Stubborn { finish, started }, job)
}

/// Fills a group with tasks of all kinds that hold `used`, and do not end by themselves.
fn fill(group: &Group, used: &Arc<()>) {
    for _ in 0..4 {
        group.spawn(holding(used.clone(), pend()));
        group.spawn(holding(used.clone(), spin()));
        let held = used.clone();
        group.spawn_with(move |ctx| holding(held, ignore(ctx)));
        let held = used.clone();
        group.spawn_blocking(move |ctx| {
            ctx.done_blocking(None);
            drop(held);
            Ok(())
        });
    }
}

on_both_runtimes! {
    /// The inner group's tasks are told of the end, and the outer group waits until they have followed.
    async fn g13_outer_ends_then_nothing_of_the_inner_group_is_left() {
        for round in 0..40 {
            let used = Arc::new(());
            let mut outer: Group = Group::new();
            let (filled, full) = oneshot::channel();
            let held = used.clone();
            outer.spawn({
                let ctx = outer.context().clone();
                async move {
                    let inner: Group = Group::with_context(&ctx);
                    fill(&inner, &held);
                    filled.send(()).unwrap();
                    match round % 4 {
                        0 => inner.await,
                        1 => inner.shutdown(Duration::from_secs(9_999)).await.result(),
                        2 => holding(inner, pend()).await,
                        _ => holding(inner.spawner(), holding(inner, pend())).await,
                    }
                }
            });
            full.await.unwrap();
            outer.cancel();
            outer.wait().await.unwrap();
            assert_eq!(Arc::strong_count(&used), 1, "round {round}");
            assert_eq!(outer.len(), 0);
        }
    }

    async fn g13_run_inside_a_task_is_cut_short_then_nothing_of_it_is_left() {
        for _ in 0..20 {
            let used = Arc::new(());
            let held = used.clone();
            let run = Group::run(&Context::background(), async |outer: Spawner| {
                let (filled, full) = oneshot::channel();
                outer.spawn({
                    let ctx = outer.context().clone();
                    async move {
                        Group::run(&ctx, async |inner: Spawner| -> Unit {
                            for _ in 0..4 {
                                let held = held.clone();
                                inner.spawn(holding(held.clone(), pend()));
                                inner.spawn_with(move |ctx| holding(held, ignore(ctx)));
                            }
                            filled.send(()).unwrap();
                            pend().await
                        })
                        .await
                    }
                });
                full.await?;
                fail("outer").await
            });
            assert_eq!(run.await.unwrap_err().to_string(), "outer");
            assert_eq!(Arc::strong_count(&used), 1);
        }
    }

    async fn g13_inner_blocking_task_runs_on_then_the_outer_wait_waits_for_it() {
        let used = Arc::new(());
        let mut outer: Group = Group::new();
        let (Stubborn { finish, started }, job) = stubborn(&used);
        let ctx = outer.context().clone();
        let owner = outer.spawn(async move {
            let inner: Group = Group::with_context(&ctx);
            inner.spawn_blocking(job);
            inner.await
        });
        started.await.unwrap();
        outer.cancel();
        cancelled(owner).await;
        assert_eq!(outer.len(), 1, "the one of the inner group");
        assert!(!outer.is_empty());
        for _ in 0..3 {
            assert!(poll(&mut outer.wait()).is_pending());
            idle().await;
        }
        drop(finish);
        outer.wait().await.unwrap();
        assert_eq!(Arc::strong_count(&used), 1);
    }

    /// Each of three groups is dropped inside the one above.
    async fn g13_three_deep_then_the_outermost_waits() {
        let used = Arc::new(());
        let mut outer: Group = Group::new();
        let (Stubborn { finish, started }, job) = stubborn(&used);
        let ctx = outer.context().clone();
        outer.spawn(async move {
            let middle: Group<std::io::Error> = Group::with_context(&ctx);
            let ctx = middle.context().clone();
            middle.spawn(async move {
                let inner: Group = Group::builder().context(&ctx.with_value(1)).isolated().build();
                let limited: Group = Group::builder().context(inner.context()).limit(1).build();
                limited.spawn_blocking(job);
                limited.spawn_blocking(|_| Ok(()));
                let _ = limited.await;
                drop(inner);
                Ok(())
            });
            middle.await?;
            Ok(())
        });
        started.await.unwrap();
        outer.cancel();
        until(|| outer.len() == 1).await;
        assert!(poll(&mut outer.wait()).is_pending());
        drop(finish);
        outer.wait().await.unwrap();
        assert_eq!(Arc::strong_count(&used), 1);
    }

    /// The group between is gone and has no task, but a handle of it is still there.
    async fn g13_group_between_was_dropped_first_then_the_outermost_waits() {
        let used = Arc::new(());
        let mut outer: Group = Group::new();
        let (Stubborn { finish, started }, job) = stubborn(&used);
        let ctx = outer.context().clone();
        outer.spawn(async move {
            let middle: Group = Group::with_context(&ctx);
            let handle: Task<String> = middle.spawn(async { Ok(String::new()) });
            let spawner = middle.spawner();
            let inner: Group = Group::with_context(middle.context());
            inner.spawn_blocking(job);
            // In this order.
            holding(((middle, inner), (handle, spawner)), pend()).await
        });
        started.await.unwrap();
        outer.cancel();
        until(|| outer.len() == 1).await;
        assert!(poll(&mut outer.wait()).is_pending());
        idle().await;
        assert!(poll(&mut outer.wait()).is_pending(), "the job runs");
        drop(finish);
        outer.wait().await.unwrap();
        assert_eq!(Arc::strong_count(&used), 1);
    }

    /// Its owner waited with a waker that panics when it is dropped.
    async fn g13_waker_of_the_inner_wait_panics_in_its_destructor_then_the_outer_waits_all_the_same() {
        let used = Arc::new(());
        let mut outer: Group = Group::new();
        let inner: Group = Group::with_context(outer.context());
        let (Stubborn { finish, started }, job) = stubborn(&used);
        inner.spawn_blocking(job);
        started.await.unwrap();
        let mut wait = inner.into_future();
        let waker = Arc::new(bomb("waker"));
        assert!(crate::support::poll(&mut wait, &waker).is_pending());
        drop(waker);
        assert!(catch_unwind(AssertUnwindSafe(|| drop(wait))).is_ok());
        assert!(poll(&mut outer.wait()).is_pending());
        drop(finish);
        outer.wait().await.unwrap();
        assert_eq!(Arc::strong_count(&used), 1);
    }

    async fn g13_inner_group_dropped_outside_of_any_task_then_the_outer_wait_waits_too() {
        let used = Arc::new(());
        let mut outer: Group = Group::new();
        let inner: Group = Group::with_context(&outer.context().with_value("between"));
        let (Stubborn { finish, started }, job) = stubborn(&used);
        inner.spawn_blocking(job);
        started.await.unwrap();
        drop(inner);
        assert!(!outer.context().is_done());
        let sibling = outer.spawn(async { Ok("open") });
        assert_eq!(sibling.await.unwrap(), "open");
        assert!(poll(&mut outer.wait()).is_pending());
        drop(finish);
        outer.wait().await.unwrap();
        assert_eq!(Arc::strong_count(&used), 1);
    }

    /// The owner of an outcome, and nobody else, is asked for it: what is handed over is waited for and no more.
    async fn g13_task_that_was_handed_over_fails_then_the_outer_group_does_not() {
        let mut outer: Group = Group::new();
        let ctx = outer.context().clone();
        let (started, start) = oneshot::channel();
        outer.spawn(async move {
            let inner: Group = Group::with_context(&ctx);
            inner.spawn_with(async |ctx| {
                started.send(()).unwrap();
                ctx.done().await;
                fail("could not flush").await
            });
            inner.await
        });
        start.await.unwrap();
        outer.cancel();
        outer.wait().await.unwrap();
        assert_eq!(outer.suppressed(), 0);
    }
}

/// The tasks are on a runtime of their own: a paused clock stands while there are blocking tasks beside it.
#[test]
fn g13_outer_stopped_then_the_tasks_of_the_inner_group_are_aborted_and_not_waited_for_beyond_that()
{
    let tasks = multi_thread();
    on_current_thread_unwatched(async {
        let used = Arc::new(());
        let outer: Group = Group::builder().runtime(tasks.handle().clone()).build();
        let ctx = outer.context().clone();
        let (Stubborn { finish, started }, job) = stubborn(&Arc::new(()));
        let held = used.clone();
        let owner = outer.spawn_with(async move |_| {
            let inner: Group = Group::with_context(&ctx);
            inner.spawn_with(move |ctx| holding(held, ignore(ctx)));
            inner.spawn_blocking(job);
            inner.await
        });
        started.await.unwrap();
        let shutdown = outer.shutdown(GRACE).await;
        // The owner is what the outer group sees when the grace is over; it is aborted, and its group with it.
        let [straggler] = &shutdown.stragglers[..] else {
            panic!("{:?}", shutdown.stragglers);
        };
        assert_eq!(straggler.id, owner.id());
        until(|| Arc::strong_count(&used) == 1).await;
        assert_eq!(own_end(owner).await, Reason::TaskAborted);
        shutdown.result().unwrap();
        drop(finish);
    });
}

/// A group handed over before the stop is listed by its tasks.
#[test]
fn g13_stopped_after_a_group_was_handed_over_then_its_task_is_listed() {
    let tasks = multi_thread();
    on_current_thread_unwatched(async {
        let builder = || Group::builder().runtime(tasks.handle().clone());
        let outer: Group = builder().build();
        let inner: Group = builder().context(outer.context()).build();
        let (Stubborn { finish, started }, job) = stubborn(&Arc::new(()));
        let task = inner.task("blocking").spawn_blocking(job);
        started.await.unwrap();
        drop(inner);
        let shutdown = outer.shutdown(GRACE).await;
        let [straggler] = &shutdown.stragglers[..] else {
            panic!("{:?}", shutdown.stragglers);
        };
        assert_eq!(straggler.name.as_deref(), Some("blocking"));
        assert!(!straggler.was_aborted);
        shutdown.result().unwrap();
        drop(finish);
        task.await.unwrap();
    });
}

/// With a paused clock, which runs while other runtimes are at work, so that nobody's patience can be measured.
fn on_current_thread_unwatched(body: impl Future<Output = ()>) {
    current_thread().block_on(body);
}

/// The last task of many groups, each inside the one above, ends on a thread with a small stack.
#[test]
fn g13_chain_of_5000_groups_is_handed_over_without_recursion() {
    let mut builder = Builder::new_current_thread();
    let runtime = builder
        .enable_all()
        .thread_stack_size(256 * 1024)
        .build()
        .unwrap();
    runtime.block_on(patiently(async {
        let used = Arc::new(());
        let mut outer: Group = Group::new();
        let mut groups: Vec<Group<BoxError>> = vec![Group::with_context(outer.context())];
        for _ in 0..5_000 {
            let next = Group::with_context(groups[groups.len() - 1].context());
            groups.push(next);
        }
        let (Stubborn { finish, started }, job) = stubborn(&used);
        groups[groups.len() - 1].spawn_blocking(job);
        started.await.unwrap();
        while let Some(group) = groups.pop() {
            drop(group);
        }
        assert!(poll(&mut outer.wait()).is_pending());
        drop(finish);
        outer.wait().await.unwrap();
        assert_eq!(Arc::strong_count(&used), 1);
    }));
}

#[test]
fn g13_tasks_of_the_inner_group_run_on_another_runtime() {
    let other = multi_thread();
    on_multi_thread(async {
        let used = Arc::new(());
        let mut outer: Group = Group::new();
        let (ctx, handle) = (outer.context().clone(), other.handle().clone());
        let (held, (filled, full)) = (used.clone(), oneshot::channel());
        outer.spawn(async move {
            let inner: Group = Group::builder().context(&ctx).runtime(handle).build();
            fill(&inner, &held);
            drop(held);
            filled.send(()).unwrap();
            inner.await
        });
        full.await.unwrap();
        outer.cancel();
        outer.wait().await.unwrap();
        assert_eq!(Arc::strong_count(&used), 1);
    });
}

/// A batch between the two is no host: its items do not wait for what they leave behind, the group does.
#[tokio::test]
async fn g13_dropped_in_an_item_of_a_batch_then_the_group_above_waits() {
    let used = Arc::new(());
    let (Stubborn { finish, started }, job) = stubborn(&used);
    let mut outer: Group = Group::new();
    let job = std::sync::Mutex::new(Some((job, started)));
    let (tell, told) = oneshot::channel();
    let tell = std::sync::Mutex::new(Some(tell));
    outer.spawn_with(async move |ctx| {
        let batch = errgroup::batch([()], 1).context(&ctx);
        batch
            .for_each(move |ctx, ()| {
                let (job, started) = job.lock().unwrap().take().unwrap();
                let tell = tell.lock().unwrap().take().unwrap();
                async move {
                    let inner: Group = Group::with_context(&ctx);
                    inner.spawn_blocking(job);
                    started.await.unwrap();
                    drop(inner);
                    tell.send(()).unwrap();
                    Ok::<_, BoxError>(())
                }
            })
            .await
    });
    told.await.unwrap();
    assert!(poll(&mut outer.wait()).is_pending());
    finish.send(()).unwrap();
    outer.wait().await.unwrap();
    assert_eq!(Arc::strong_count(&used), 1);
}
