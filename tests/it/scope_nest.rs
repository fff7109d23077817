//! Scopes in tasks, tasks in scopes: spawned from inside, from other threads, and with groups on either side.
#![allow(clippy::unit_arg)] // `Ok(work().await)` is what users write

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

use errgroup::{BoxError, Context, Group, Reason, Scope, Spawner, scope};
use futures::executor::block_on;
use tokio::sync::oneshot;

use crate::group_support::*;
use crate::scope_support::*;
use crate::support::{background, ms};

// G12

fn nest<'env>(
    scope: Scope<'env>,
    depth: usize,
    count: &'env AtomicUsize,
) -> impl Future<Output = Unit> + Send + 'env {
    let future: std::pin::Pin<Box<dyn Future<Output = Unit> + Send + 'env>> =
        Box::pin(async move {
            add(count);
            if depth > 0 {
                scope.spawn(nest(scope.clone(), depth - 1, count));
            }
            Ok(())
        });
    future
}

#[test]
fn g12_tasks_spawn_tasks_to_depth_1000_then_all_are_waited_for() {
    let count = AtomicUsize::new(0);
    in_scope!(async |scope: Scope| Ok(drop(scope.spawn(nest(scope.clone(), 1000, &count)))))
        .unwrap();
    assert_eq!(count.load(SeqCst), 1001);
}

#[test]
fn g12_task_spawns_10_000_then_all_are_waited_for() {
    let count = AtomicUsize::new(0);
    in_scope!(async |scope: Scope| {
        let inner = scope.clone();
        let count = &count;
        scope.spawn(async move {
            for _ in 0..10_000 {
                inner.spawn(async move { Ok(add(count)) });
            }
            Ok(())
        });
        Ok(())
    })
    .unwrap();
    assert_eq!(count.load(SeqCst), 10_000);
}

#[test]
fn g12_spawned_from_another_thread_then_the_scope_is_woken() {
    let count = AtomicUsize::new(0);
    let (send, receive) = std::sync::mpsc::channel::<Scope<'_>>();
    thread::scope(|threads| {
        let count = &count;
        threads.spawn(move || {
            let scope = receive.recv().unwrap();
            for _ in 0..100 {
                scope.spawn(async move { Ok(add(count)) });
                thread::yield_now();
            }
            scope.spawn(fail("done"));
        });
        let result = in_scope!(async |scope: Scope<'_>| {
            send.send(scope.clone()).unwrap();
            pend().await
        });
        assert_eq!(text(result), "done");
    });
    assert_eq!(count.load(SeqCst), 100);
}

// G13

on_both_runtimes! {
    async fn g13_group_is_dropped_in_a_scopes_task_then_the_scope_waits_for_its_tasks() {
        let gauge = Arc::new(Gauge::default());
        let busy = gauge.clone();
        scope(&background(), async |scope: Scope| {
            let ctx = scope.context().clone();
            scope.spawn(async move {
                let group: Group = Group::with_context(&ctx);
                let (start, started) = oneshot::channel();
                let (finish, wait) = std::sync::mpsc::channel::<()>();
                group.spawn_blocking(move |_| {
                    let _busy = busy.enter();
                    start.send(()).unwrap();
                    let _ = wait.recv();
                    thread::sleep(ms(10));
                    Ok(())
                });
                started.await?;
                drop(group);
                drop(finish);
                Ok(())
            });
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!((gauge.now(), gauge.peak()), (0, 1));
    }

    async fn g13_group_is_dropped_in_a_scope_that_is_dropped_then_the_group_around_waits_for_its_tasks() {
        let gauge = Arc::new(Gauge::default());
        let busy = gauge.clone();
        let (finish, wait) = std::sync::mpsc::channel::<()>();
        let mut outer: Group = Group::new();
        let (start, started) = oneshot::channel();
        let ctx = outer.context().clone();
        outer.spawn(async move {
            scope(&ctx, async |scope: Scope| {
                let ctx = scope.context().clone();
                scope.spawn(async move {
                    let group: Group = Group::with_context(&ctx);
                    group.spawn_blocking(move |_| {
                        let _busy = busy.enter();
                        start.send(()).unwrap();
                        let _ = wait.recv();
                        thread::sleep(ms(10));
                        Ok(())
                    });
                    pend().await
                });
                pend().await
            })
            .await
        });
        started.await.unwrap();
        outer.cancel();
        until(|| true).await;
        drop(finish);
        outer.wait().await.unwrap();
        assert_eq!((gauge.now(), gauge.peak()), (0, 1));
    }

    async fn g13_scope_in_a_groups_task_fails_then_it_is_that_tasks_error() {
        let words = ["one", "two"];
        let result = Group::run(&background(), async |group: Spawner| {
            let ctx = group.context().clone();
            let count = group.task("counts").spawn(async move {
                scope(&ctx, async |scope: Scope| {
                    scope.task("inner").spawn(async {
                        match words.len() {
                            2 => fail("two are too many").await,
                            _ => Ok(()),
                        }
                    });
                    pend().await
                })
                .await
            });
            Ok(count.await?)
        });
        assert_eq!(text(result.await), "two are too many");
    }
}

#[test]
fn g13_outer_scope_ends_then_the_inner_one_does_with_its_reason() {
    let ends = Mutex::new(Vec::new());
    let drops = AtomicUsize::new(0);
    let result = in_scope!(async |outer: Scope| {
        let ctx = outer.context().clone();
        let (ends, drops) = (&ends, &drops);
        outer.spawn(async move {
            scope(&ctx, async |inner: Scope| {
                let ctx = inner.context().clone();
                let tell =
                    OnDrop::new(move || ends.lock().unwrap().push(ctx.err().unwrap().reason()));
                inner.spawn(holding(tell, pend()));
                inner.spawn(holding(counted(drops), pend()));
                pend().await
            })
            .await
        });
        turns(3).await;
        outer.spawn(fail("outer"));
        pend().await
    });
    assert_eq!(text(result), "outer");
    assert_eq!(ends.into_inner().unwrap(), [Reason::TaskFailed]);
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn g13_scopes_ten_deep_then_the_innermost_value_comes_out() {
    fn deep(
        ctx: Context,
        n: usize,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<usize, BoxError>> + Send>> {
        Box::pin(async move {
            if n == 0 {
                return Ok(0);
            }
            scope(&ctx, async |scope: Scope| {
                let task = scope.spawn(deep(scope.context().clone(), n - 1));
                Ok(task.await? + 1)
            })
            .await
        })
    }
    assert_eq!(block_on(deep(background(), 10)).unwrap(), 10);
}
