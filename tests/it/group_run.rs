//! `Group::run`: the body's value when all tasks have ended, or the first error with its type.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use errgroup::{BoxError, Context, ContextError, Group, Reason, Spawner};
use futures::FutureExt;
use futures::executor::block_on;
use tokio::sync::oneshot;

use crate::group_support::*;
use crate::support::{bomb, no_leaks};

#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error("no user {0}")]
    NoUser(u32),
    #[error(transparent)]
    Context(#[from] ContextError),
}

async fn user(id: u32) -> Result<u32, SyncError> {
    match id {
        0 => Err(SyncError::NoUser(id)),
        _ => Ok(id),
    }
}

/// Inline blocks, in tail position: no type is named.
async fn sum_of_inline_blocks(ctx: &Context) -> Result<u32, BoxError> {
    Group::run(ctx, async |group| {
        let (a, b) = (
            group.spawn(async { Ok(1) }),
            group.spawn_with(async |_ctx| Ok(2)),
        );
        let c = group.spawn_blocking(|_ctx| Ok(3));
        Ok(a.await? + b.await? + c.await?)
    })
    .await
}

async fn sum_of_users(ctx: &Context, ids: [u32; 2]) -> Result<u32, SyncError> {
    Group::run(ctx, async |group| {
        let (a, b) = (group.spawn(user(ids[0])), group.spawn(user(ids[1])));
        Ok(a.await? + b.await?)
    })
    .await
}

/// An error that cannot be made of the end.
#[derive(Debug)]
struct Unmakable;

impl From<ContextError> for Unmakable {
    fn from(_: ContextError) -> Self {
        quiet_panic("unmakable")
    }
}

impl std::fmt::Display for Unmakable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("unmakable")
    }
}

/// The outcome of a body that came to an error.
fn failed<T>(outcome: Result<T, BoxError>) -> String {
    match outcome {
        Ok(_) => panic!("it has a value"),
        Err(error) => error.to_string(),
    }
}

fn end_of(error: &BoxError) -> Reason {
    let end: &ContextError = error.downcast_ref().expect("an end");
    end.reason()
}

on_both_runtimes! {
    async fn run_yields_the_bodys_value() {
        let ctx = Context::background();
        assert_eq!(sum_of_inline_blocks(&ctx).await.unwrap(), 6);
        assert_eq!(sum_of_users(&ctx, [1, 2]).await.unwrap(), 3);
        assert!(!ctx.is_done());
    }

    async fn run_yields_the_first_error_with_its_type() {
        let ctx = Context::background();
        for ids in [[0, 2], [2, 0]] {
            let error = sum_of_users(&ctx, ids).await.unwrap_err();
            assert!(matches!(error, SyncError::NoUser(0)), "{error}");
        }
    }

    async fn run_returns_when_the_tasks_that_the_body_left_have_ended() {
        let used = Arc::new(());
        let (open, gate) = oneshot::channel::<()>();
        let mut run = pin!(Group::run(&Context::background(), async |group: Spawner| {
            group.spawn(holding(used.clone(), async { Ok(gate.await?) }));
            Ok("left")
        }));
        for _ in 0..3 {
            assert!(poll_with(run.as_mut(), std::task::Waker::noop()).is_pending());
            idle().await;
        }
        open.send(()).unwrap();
        assert_eq!(run.await.unwrap(), "left");
        assert_eq!(Arc::strong_count(&used), 1);
    }

    async fn run_yields_the_error_of_a_task_that_fails_after_the_body() {
        let outcome = Group::run(&Context::background(), async |group: Spawner| {
            group.spawn(async {
                turns(5).await;
                fail("late").await
            });
            Ok(1)
        });
        assert_eq!(failed(outcome.await), "late");
    }

    async fn g2_body_fails_then_the_tasks_are_cancelled_and_its_error_is_returned() {
        let (tell, told) = oneshot::channel();
        let run = |tell: oneshot::Sender<ContextError>| Group::run(&Context::background(), async |group: Spawner| {
            let (started, start) = oneshot::channel();
            group.spawn_with(async |ctx| {
                started.send(()).unwrap();
                let _ = tell.send(ctx.done().await);
                Ok(())
            });
            start.await?;
            fail("body").await
        });
        assert_eq!(failed(run(tell).await), "body");
        let end = told.await.unwrap();
        assert_eq!(end.reason(), Reason::TaskFailed);
        assert!(end.to_string().contains("failed: body"), "{end}");
        assert_eq!(end.location().map(|place| place.file()), Some(file!()));
    }

    async fn g5_body_panics_then_it_is_resumed_when_all_have_ended() {
        for is_early in [true, false] {
            let used = Arc::new(());
            let run = Group::run(&Context::background(), |group: Spawner| {
                group.spawn(holding(used.clone(), pend()));
                let held = used.clone();
                group.spawn_with(move |ctx| holding(held, obey(ctx)));
                if is_early {
                    quiet_panic("body");
                }
                async {
                    tokio::task::yield_now().await;
                    panics("body").await
                }
            });
            assert_eq!(panic_of(run).await, "body");
            assert_eq!(Arc::strong_count(&used), 1);
        }
    }

    async fn g5_task_of_a_body_panics_then_it_outranks_the_bodys_error() {
        let run = Group::run(&Context::background(), async |group: Spawner| -> Unit {
            let task = group.spawn(panics("task"));
            let why = task.await.unwrap_err();
            Err(format!("seen: {why}").into())
        });
        assert_eq!(panic_of(run).await, "task");
    }

    async fn g2_task_fails_then_the_body_is_dropped_at_its_await() {
        let used = Arc::new(());
        let run = Group::run(&Context::background(), async |group: Spawner| {
            group.spawn(fail("task"));
            holding(used.clone(), pend()).await
        });
        assert_eq!(failed(run.await), "task");
        assert_eq!(Arc::strong_count(&used), 1);
    }

    async fn g7_parent_ends_then_the_body_is_dropped_at_its_await() {
        let (parent, handle) = Context::background().with_cancel();
        let used = Arc::new(());
        let mut run = pin!(Group::run(&parent, async |group: Spawner| {
            group.spawn_with(obey);
            holding(used.clone(), pend()).await
        }));
        assert!(poll_with(run.as_mut(), std::task::Waker::noop()).is_pending());
        handle.cancel();
        assert_eq!(end_of(&run.await.unwrap_err()), Reason::Cancelled);
        assert_eq!(Arc::strong_count(&used), 1);
        no_leaks(&parent);
    }

    async fn g9_parent_had_ended_then_the_body_is_not_called() {
        let (parent, handle) = Context::background().with_cancel();
        handle.cancel();
        let used = Arc::new(());
        let held = used.clone();
        let run = Group::run(&parent, |_: Spawner| async move { unreachable!("it was called: {held:?}") });
        let error = Result::<(), _>::unwrap_err(run.await);
        assert_eq!(end_of(&error), Reason::Cancelled);
        assert_eq!(Arc::strong_count(&used), 1);
        no_leaks(&parent);
    }

    async fn run_borrows_from_the_caller() {
        let mut seen = Vec::new();
        let names = [String::from("a"), String::from("b")];
        let count = Group::run(&Context::background(), async |group: Spawner| {
            for name in &names {
                let name = name.clone();
                seen.push(group.spawn(async move { Ok(name + "!") }).await?);
            }
            Ok(seen.len())
        });
        assert_eq!(count.await.unwrap(), 2);
        assert_eq!(seen, ["a!", "b!"]);
    }

    async fn g6_dropped_half_way_then_body_and_tasks_are_dropped() {
        let used = Arc::new(());
        let (tell, told) = oneshot::channel();
        let mut run = Box::pin(Group::run(&Context::background(), async |group: Spawner| {
            group.spawn(holding(used.clone(), pend()));
            let held = used.clone();
            group.spawn_with(move |ctx| holding(held, ignore(ctx)));
            let _ = tell.send(group.context().clone());
            // Live: the body goes before its group.
            let ctx = group.context().clone();
            holding(OnDrop::new(move || assert!(!ctx.is_done())), holding(used.clone(), pend())).await
        }));
        assert!(poll_with(run.as_mut(), std::task::Waker::noop()).is_pending());
        let ctx = told.await.unwrap();
        drop(run);
        assert_eq!(ctx.err().unwrap().reason(), Reason::GroupDropped);
        until(|| Arc::strong_count(&used) == 1).await;
    }

    async fn g6_dropped_unpolled_then_the_body_is_not_called() {
        let used = Arc::new(());
        let held = used.clone();
        let body = move |_: Spawner| async move { unreachable!("it was called: {held:?}") };
        drop(Group::<BoxError>::run::<(), _, _>(&Context::background(), body));
        assert_eq!(Arc::strong_count(&used), 1);
    }

    async fn g10_body_takes_no_room_and_waits_for_slots() {
        for limit in 1..4 {
            let gauge = Arc::new(Gauge::default());
            let run = Group::builder().limit(limit).run(async |group: Spawner| {
                for _ in 0..20 {
                    let gauge = gauge.clone();
                    group.slot().await?.spawn(async move {
                        let _here = gauge.enter();
                        takes_turns(3).await
                    });
                }
                Ok(())
            });
            run.await.unwrap();
            assert!((1..=limit).contains(&gauge.peak()), "{}", gauge.peak());
        }
    }

    /// A pool whose jobs fail comes to an end, with the error of the first.
    async fn g10_job_fails_then_the_loop_over_slots_ends() {
        let run = Group::builder().limit(2).run(async |group: Spawner| {
            loop {
                group.slot().await?.spawn(fail("job"));
            }
            #[expect(unreachable_code, reason = "it tells the type")]
            Ok(())
        });
        assert_eq!(failed(run.await), "job");
    }

    async fn g18_body_in_an_isolated_group_lives_on_when_tasks_fail() {
        let run = Group::builder().isolated().run(async |group: Spawner| {
            let bad = group.spawn(fail("alone"));
            let odd = group.spawn(panics("alone"));
            assert_eq!(own_end(bad).await, Reason::TaskFailed);
            assert_eq!(own_end(odd).await, Reason::TaskPanicked);
            group.spawn(async { Ok("served") }).await.map_err(BoxError::from)
        });
        assert_eq!(run.await.unwrap(), "served");
    }

    async fn g18_body_of_an_isolated_group_passes_on_a_failure_then_that_is_the_error() {
        let used = Arc::new(());
        let run = Group::builder().isolated().run(async |group: Spawner| {
            group.spawn(holding(used.clone(), pend()));
            let bad = group.task("bad").spawn(fail("alone"));
            Ok(bad.await?)
        });
        let error = run.await.unwrap_err();
        assert_eq!(end_of(&error), Reason::TaskFailed);
        assert!(error.to_string().contains("\"bad\" failed: alone"), "{error}");
        assert_eq!(Arc::strong_count(&used), 1);
    }

    async fn g18_body_of_an_isolated_group_fails_or_panics_then_that_ends_it() {
        let run = |is_panic| Group::builder().isolated().run(async move |group: Spawner| {
            group.spawn(pend());
            match is_panic {
                true => panics("body").await,
                false => fail("body").await,
            }
        });
        assert_eq!(failed(run(false).await), "body");
        assert_eq!(panic_of(run(true)).await, "body");
    }

    async fn g19_body_has_a_value_that_panics_when_dropped_and_a_task_fails_then_its_error_is_returned() {
        let run = Group::run(&Context::background(), async |group: Spawner| {
            group.spawn(async {
                turns(3).await;
                fail("task").await
            });
            Ok(bomb("value"))
        });
        assert_eq!(failed(run.await), "task");
    }

    async fn g19_body_panics_when_it_is_dropped_then_that_is_resumed() {
        let run = Group::run(&Context::background(), async |group: Spawner| {
            group.spawn(fail("task"));
            pend_then_panic_in_drop("dropped").await
        });
        assert_eq!(panic_of(run).await, "dropped");
        let (parent, handle) = Context::background().with_cancel();
        handle.cancel();
        let held = OnDrop::new(|| quiet_panic("uncalled"));
        let run = Group::run(&parent, move |_: Spawner| {
            let _held = held;
            pend()
        });
        assert_eq!(panic_of(run).await, "uncalled");
        no_leaks(&parent);
    }

    async fn g19_dropped_half_way_and_the_body_panics_then_it_goes_no_further() {
        let used = Arc::new(());
        let mut run = Box::pin(Group::run(&Context::background(), async |group: Spawner| {
            let held = used.clone();
            group.spawn_with(move |ctx| holding(held, ignore(ctx)));
            pend_then_panic_in_drop("dropped").await
        }));
        assert!(poll_with(run.as_mut(), std::task::Waker::noop()).is_pending());
        drop(run);
        until(|| Arc::strong_count(&used) == 1).await;
    }

    async fn g19_error_cannot_be_made_of_the_end_then_run_panics_when_all_have_ended() {
        let (parent, handle) = Context::background().with_cancel();
        let used = Arc::new(());
        let mut run = Box::pin(Group::run(&parent, async |group: Spawner<Unmakable>| {
            let held = used.clone();
            group.spawn_with(move |ctx| {
                holding(held, async move {
                    ctx.done().await;
                    turns(3).await;
                    Ok(())
                })
            });
            std::future::pending::<Result<(), Unmakable>>().await
        }));
        assert!(poll_with(run.as_mut(), std::task::Waker::noop()).is_pending());
        handle.cancel();
        assert_eq!(panic_of(run).await, "unmakable");
        assert_eq!(Arc::strong_count(&used), 1);
        no_leaks(&parent);
    }

    async fn g11_body_aborts_what_it_need_not_wait_for() {
        let run = Group::run(&Context::background(), async |group: Spawner| {
            let slow = group.spawn_with(ignore);
            let fast = group.spawn(async { Ok("first") });
            let value = fast.await?;
            slow.abort();
            Ok(value)
        });
        assert_eq!(run.await.unwrap(), "first");
    }

    async fn g13_run_inside_a_task_fails_then_the_outer_run_has_its_error() {
        let run = Group::run(&Context::background(), async |outer: Spawner| {
            outer.spawn_with(async |ctx| {
                Group::run(&ctx, async |inner: Spawner| Ok(inner.spawn(fail("inner")).await?)).await
            });
            pend().await
        });
        assert_eq!(failed(run.await), "inner");
    }

    async fn run_can_be_spawned() {
        let value = tokio::spawn(async {
            let name = String::from("sent");
            Group::run(&Context::background(), async |group: Spawner| {
                let length = name.len();
                Ok(group.spawn(async move { Ok(length) }).await?)
            })
            .await
        });
        assert_eq!(value.await.unwrap().unwrap(), 4);
        fn spawnable<F: Send + 'static>(_: F) {}
        spawnable(Group::run(&Context::background(), |group: Spawner| async move {
            Ok(group.spawn(async { Ok(()) }).await?)
        }));
    }
}

#[tokio::test(start_paused = true)]
async fn g7_deadline_passes_then_the_body_is_dropped_at_its_await() {
    let ctx = Context::background().with_timeout(Duration::from_secs(5));
    let start = tokio::time::Instant::now();
    let error = Group::run(&ctx, async |_: Spawner| pend().await)
        .await
        .unwrap_err();
    assert_eq!(end_of(&error), Reason::DeadlineExceeded);
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[test]
fn run_needs_no_runtime_where_the_body_spawns_nothing() {
    let (parent, handle) = Context::background().with_cancel();
    let run = Group::run(&parent, async |_: Spawner| {
        turns(3).await;
        Ok("alone")
    });
    assert_eq!(block_on(run).unwrap(), "alone");
    let mut cut = Box::pin(Group::run(&parent, async |_: Spawner| pend().await));
    let (wakes, waker) = counting();
    assert!(poll_with(cut.as_mut(), &waker).is_pending());
    handle.cancel();
    assert_eq!(wakes.woken(), 1);
    let error = block_on(cut).unwrap_err();
    assert_eq!(end_of(&error), Reason::Cancelled);
    // Below a deadline, the timer is nobody's.
    let ctx = Context::background().with_timeout(Duration::from_millis(1));
    let error = block_on(Group::run(&ctx, async |_: Spawner| pend().await)).unwrap_err();
    assert_eq!(end_of(&error), Reason::DeadlineExceeded);
    no_leaks(&parent);
}

#[test]
fn body_polled_with_another_waker_then_that_one_is_woken() {
    let (parent, handle) = Context::background().with_cancel();
    let mut run = Box::pin(Group::run(&parent, async |_: Spawner| pend().await));
    let ((first, one), (second, other)) = (counting(), counting());
    assert!(poll_with(run.as_mut(), &one).is_pending());
    assert!(poll_with(run.as_mut(), &other).is_pending());
    assert!(poll_with(run.as_mut(), &other).is_pending());
    handle.cancel();
    assert_eq!((first.woken(), second.woken()), (0, 1));
    assert!(block_on(run).is_err());
    no_leaks(&parent);
}

#[test]
fn body_spawns_outside_a_runtime_then_the_panic_is_the_bodys() {
    let run = Group::run(&Context::background(), async |group: Spawner| {
        group.spawn(pend());
        Ok(())
    });
    let payload = catch_unwind(AssertUnwindSafe(|| block_on(run))).unwrap_err();
    let text = payload.downcast_ref::<&str>().expect("a text");
    assert!(text.contains("Group::builder().runtime(handle)"), "{text}");
}

/// The body on one executor, its tasks on a runtime, and the runtime goes.
#[test]
fn g17_runtime_dropped_under_a_body_then_run_returns() {
    let runtime = multi_thread();
    let builder = Group::builder().runtime(runtime.handle().clone());
    let (started, start) = mpsc::channel();
    let mut run = Box::pin(builder.run(async |group: Spawner| {
        let task = group.spawn(async move {
            started.send(()).unwrap();
            pend().await
        });
        task.await.map_err(BoxError::from)
    }));
    assert!(run.as_mut().now_or_never().is_none());
    start.recv().unwrap();
    drop(runtime);
    let error = block_on(run).unwrap_err();
    assert_eq!(end_of(&error), Reason::RuntimeGone);
}
