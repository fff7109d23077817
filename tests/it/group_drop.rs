//! G6: a group that is dropped ends its context and aborts its tasks, without waiting.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use errgroup::{BoxError, Context, Group, Reason};
use tokio::sync::oneshot;

use crate::group_support::*;
use crate::support::no_leaks;

on_both_runtimes! {
    async fn g6_dropped_then_the_context_has_ended_and_every_task_is_dropped() {
        let (group, line) = (Group::<BoxError>::new(), line!());
        group.set_limit(Some(3));
        let used = Arc::new(());
        let (held, kept) = (used.clone(), used.clone());
        let context = group.context().clone();
        let tasks = [
            group.spawn(holding(used.clone(), pend())),
            group.spawn(holding(used.clone(), spin())),
            group.spawn_with(move |ctx| holding(held, ignore(ctx))),
            group.spawn(holding(used.clone(), pend())),
            group.spawn_with(move |ctx| holding(kept, ignore(ctx))),
        ];
        drop(group);
        let end = context.err().unwrap();
        assert_eq!(end.reason(), Reason::GroupDropped);
        assert_eq!(end.location().map(|place| place.line()), Some(line));
        for task in tasks {
            stopped_by_drop(task).await;
        }
        assert_eq!(Arc::strong_count(&used), 1);
        no_leaks(&context);
    }

    async fn g6_dropped_then_a_task_that_stops_itself_and_runs_is_aborted() {
        let group: Group = Group::new();
        let (started, start) = oneshot::channel();
        let task = group.spawn_with(async |ctx| {
            started.send(()).unwrap();
            ignore(ctx).await
        });
        start.await.unwrap();
        drop(group);
        assert_eq!(own_end(task).await, Reason::TaskAborted);
    }

    async fn g6_dropped_then_a_blocking_task_is_told() {
        let group: Group = Group::new();
        let (started, start) = oneshot::channel();
        let task = group.spawn_blocking(|ctx| {
            started.send(()).unwrap();
            Ok(ctx.done_blocking(None).unwrap().reason())
        });
        start.await.unwrap();
        drop(group);
        assert_eq!(task.await.unwrap(), Reason::GroupDropped);
    }

    async fn g6_owner_returns_early_then_everything_is_stopped() {
        async fn owner(used: Arc<()>) -> Result<(), BoxError> {
            let group: Group = Group::new();
            group.spawn(holding(used.clone(), pend()));
            group.spawn_with(move |ctx| holding(used, ignore(ctx)));
            tokio::task::yield_now().await;
            fail("early").await?;
            group.await
        }
        let used = Arc::new(());
        assert!(owner(used.clone()).await.is_err());
        until(|| Arc::strong_count(&used) == 1).await;
    }

    async fn g6_dropped_after_its_outcome_then_the_end_stays() {
        let mut group: Group = Group::new();
        group.wait().await.unwrap();
        let context = group.context().clone();
        drop(group);
        assert_eq!(context.err().unwrap().reason(), Reason::GroupFinished);
        no_leaks(&context);
    }

    async fn g6_dropped_in_a_callback_of_its_own_end() {
        let holder = Arc::new(Mutex::new(None::<Group>));
        let group: Group = Group::new();
        let held = holder.clone();
        group.context().on_done(move |_| drop(held.lock().unwrap().take())).detach();
        let stubborn = group.spawn_with(ignore);
        let (fail_now, gate) = oneshot::channel::<()>();
        let failing = group.spawn(async {
            let _ = gate.await;
            fail("end").await
        });
        let context = group.context().clone();
        *holder.lock().unwrap() = Some(group);
        drop(fail_now);
        assert_eq!(own_end(failing).await, Reason::TaskFailed);
        let reason = why(stubborn).await.reason();
        assert!(matches!(reason, Reason::TaskAborted | Reason::TaskFailed), "{reason:?}");
        assert_eq!(context.err().unwrap().reason(), Reason::TaskFailed);
        assert!(holder.lock().unwrap().is_none());
        no_leaks(&context);
    }

    async fn g6_owned_by_a_task_of_another_group_then_dropped_with_it() {
        let mut outer: Group = Group::new();
        let inner: Group = Group::new();
        let context = inner.context().clone();
        let task = inner.spawn_with(ignore);
        let (started, start) = oneshot::channel();
        outer.spawn(async move {
            started.send(()).unwrap();
            inner.await
        });
        start.await.unwrap();
        outer.cancel();
        outer.wait().await.unwrap();
        assert_eq!(context.err().unwrap().reason(), Reason::GroupDropped);
        stopped_by_drop(task).await;
        no_leaks(&context);
    }

    async fn g6_owned_by_its_own_task_then_the_cycle_ends_with_the_parent() {
        let (parent, handle) = Context::background().with_cancel();
        let group: Group = Group::with_context(&parent);
        let spawner = group.spawner();
        let used = Arc::new(());
        let task = spawner.spawn(holding((group, used.clone()), pend()));
        handle.cancel();
        assert_eq!(cancelled(task).await.reason(), Reason::Cancelled);
        assert_eq!(Arc::strong_count(&used), 1);
        no_leaks(&parent);
    }
}

/// Nothing of the tasks has been dropped when the drop of the group returns.
#[tokio::test]
async fn g6_dropped_then_it_does_not_wait() {
    let used = Arc::new(());
    let group: Group = Group::new();
    let task = group.spawn(holding(used.clone(), pend()));
    idle().await;
    drop(group);
    assert!(!task.is_finished());
    assert_eq!(Arc::strong_count(&used), 2);
    assert!(task.await.is_err());
    assert_eq!(Arc::strong_count(&used), 1);
}

#[test]
fn g6_dropped_outside_a_runtime_then_the_tasks_are_aborted() {
    let runtime = multi_thread();
    let group: Group = Group::builder().runtime(runtime.handle().clone()).build();
    let task = group.spawn_with(ignore);
    drop(group);
    futures::executor::block_on(stopped_by_drop(task));
    let _ = Group::<BoxError>::new();
}

/// A parent forgets its groups.
#[tokio::test]
async fn g6_dropped_then_the_parent_lives_on() {
    let (parent, handle) = Context::background().with_cancel();
    let ran = Arc::new(AtomicBool::new(false));
    for _ in 0..100 {
        let group: Group = Group::with_context(&parent);
        let ran = ran.clone();
        group
            .context()
            .on_done(move |_| ran.store(true, Ordering::SeqCst))
            .detach();
        drop(group);
    }
    assert!(ran.load(Ordering::SeqCst));
    assert!(!parent.is_done());
    handle.cancel();
    no_leaks(&parent);
}

#[tokio::test]
async fn g13_dropped_below_ways_that_part_and_meet_then_each_context_above_is_asked_once() {
    let (mut ctx, _handle) = Context::background().with_cancel();
    for _ in 0..64 {
        let [(one, first), (other, second)] = [ctx.with_cancel(), ctx.with_cancel()];
        first.detach();
        second.detach();
        ctx = one.merge(&other);
    }
    let group: Group = Group::with_context(&ctx);
    let task = group.spawn(pend());
    drop(group);
    assert!(task.await.is_err());
}
