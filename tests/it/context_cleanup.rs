//! The time to clean up: `cleanup`, `with_cleanup`, `GroupBuilder::cleanup`, and the grace of a group that is being stopped.

use std::any::Any;
use std::future::pending;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::thread;
use std::time::Duration;

use errgroup::{BoxError, CancelHandle, Context, Group, Reason};
use tokio::time::{Instant, advance, sleep};

const SECOND: Duration = Duration::from_secs(1);

fn cancelled() -> (Context, CancelHandle) {
    Context::background().with_cancel()
}

/// How long it takes from now until the context has ended.
async fn until_done(ctx: &Context) -> Duration {
    let start = Instant::now();
    ctx.done().await;
    start.elapsed()
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut TaskContext::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn ended_then_cleanup_lasts_five_seconds_or_the_nearest_budget() {
    let (plain, handle) = cancelled();
    let two = plain.with_cleanup(2 * SECOND);
    let nearer = two.with_cancel().0.without_cancel().with_cleanup(SECOND);
    let (nearer, other) = nearer.with_cancel();
    let all = [(&plain, 5), (&two, 2), (&nearer, 1)];
    handle.cancel();
    other.cancel();
    for (ctx, _) in all {
        ctx.done().await;
        let cleanup = ctx.with_value(7_u8).cleanup();
        assert!(!cleanup.is_done());
        assert_eq!(cleanup.value(), Some(&7_u8));
        assert_eq!((cleanup.deadline(), cleanup.remaining()), (None, None));
    }
    let cleanups = all.map(|(ctx, seconds)| (ctx.cleanup(), line!(), Duration::from_secs(seconds)));
    let start = Instant::now();
    for (cleanup, line, budget) in cleanups.iter().rev() {
        let end = cleanup.done().await;
        assert_eq!(start.elapsed(), *budget);
        assert!(end.is_deadline_exceeded());
        assert_eq!(end.location().map(|place| place.line()), Some(*line));
        assert!(
            end.to_string()
                .starts_with(&format!("deadline exceeded ({budget:?}, set at ")),
            "{end}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn asked_at_different_times_then_one_budget_from_one_instant() {
    let (ctx, handle) = cancelled();
    let children: Vec<_> = (0..10).map(|_| ctx.with_cancel()).collect();
    let mut told = ctx.done_owned();
    assert!(poll_once(&mut told).is_pending());
    handle.cancel();
    let start = Instant::now();
    let mut cleanups = Vec::new();
    for (child, _) in &children {
        cleanups.push(child.cleanup());
        advance(SECOND / 10).await;
    }
    for cleanup in &cleanups {
        cleanup.done().await;
        assert_eq!(start.elapsed(), 5 * SECOND);
    }
    let late = children[0].0.cleanup();
    assert!(late.is_done(), "the time is over");
    assert!(late.err().unwrap().is_deadline_exceeded());
}

/// Has somebody hear of the end, for as long as the value lives.
type Listen = fn(&Context) -> Box<dyn Any>;

#[tokio::test(start_paused = true)]
async fn instant_is_taken_when_a_waiter_a_callback_or_a_group_is_told_else_at_the_first_question() {
    let ways: [(Listen, u64); 4] = [
        (|_| Box::new(()), 5),
        (
            |ctx| {
                let mut done = Box::pin(ctx.done_owned());
                assert!(poll_once(&mut done).is_pending());
                Box::new(done)
            },
            2,
        ),
        (|ctx| Box::new(ctx.on_done(|_| {})), 2),
        (
            |ctx| {
                let group: Group = Group::with_context(ctx);
                group.spawn_with(|_| pending::<Result<(), BoxError>>());
                Box::new(group)
            },
            2,
        ),
    ];
    for (listen, seconds) in ways {
        let (ctx, handle) = cancelled();
        let child = ctx.with_timeout(100 * SECOND);
        let kept = listen(&child);
        // Ended by the drop of the handle: nobody has made the error before.
        drop(handle);
        advance(3 * SECOND).await;
        assert_eq!(
            until_done(&child.cleanup()).await,
            Duration::from_secs(seconds)
        );
        drop(kept);
    }
}

#[tokio::test(start_paused = true)]
async fn asked_before_the_end_then_it_cannot_end_yet_and_does_so_after_the_end() {
    let (ctx, handle) = cancelled();
    let cleanup = ctx.with_cleanup(2 * SECOND).cleanup();
    advance(100 * SECOND).await;
    assert!(!cleanup.is_done());
    handle.cancel();
    assert!(!cleanup.is_done());
    assert_eq!(until_done(&cleanup).await, 2 * SECOND);

    let timed = Context::background().with_timeout(3 * SECOND);
    let cleanup = timed.cleanup();
    assert_eq!(cleanup.deadline(), None);
    assert_eq!(
        until_done(&cleanup).await,
        8 * SECOND,
        "nobody else waits for the deadline"
    );

    let forever = Context::background().cleanup();
    let mut done = forever.done_owned();
    advance(100 * SECOND).await;
    assert!(poll_once(&mut done).is_pending());
}

#[tokio::test(start_paused = true)]
async fn asked_inside_a_cleanup_then_no_more_time() {
    let (ctx, handle) = cancelled();
    handle.cancel();
    let cleanup = ctx.cleanup();
    let below = cleanup.with_cleanup(100 * SECOND).with_timeout(SECOND);
    assert!(below.done().await.is_deadline_exceeded());
    let inside = below.cleanup();
    assert!(!inside.is_done());
    assert_eq!(until_done(&inside).await, 4 * SECOND);
    assert_eq!(inside.err(), cleanup.err());
    let after = below.cleanup();
    assert!(after.is_done() && below.with_cancel().0.cleanup().is_done());
    assert!(cleanup.cleanup().cleanup().is_done());

    // A group that cleans up, and is stopped itself.
    let (ctx, handle) = cancelled();
    handle.cancel();
    let group: Group = Group::with_context(&ctx.cleanup());
    let task = group.spawn_with(async |ctx| {
        ctx.done().await;
        let cleanup = ctx.cleanup();
        Ok((
            until_done(&cleanup).await,
            until_done(&cleanup.cleanup()).await,
        ))
    });
    tokio::task::yield_now().await;
    group.cancel();
    assert_eq!(task.await.unwrap(), (5 * SECOND, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn ten_roll_back_within_two_seconds_in_all_and_one_that_does_not_is_named() {
    let group: Group = Group::new();
    for n in 1..=10 {
        let rollback = sleep_for(n * SECOND / 5);
        group.task(format!("{n}")).spawn_with(async move |ctx| {
            ctx.done().await;
            ctx.cleanup().run(rollback).await?;
            Ok(())
        });
    }
    group.task("slow").spawn_with(async |ctx| {
        ctx.done().await;
        ctx.cleanup().run(pending::<()>()).await?;
        Ok(())
    });
    tokio::task::yield_now().await;
    let start = Instant::now();
    let shutdown = group.stop().grace(2 * SECOND + SECOND / 2).await;
    assert_eq!(start.elapsed(), 2 * SECOND + SECOND / 2);
    let names: Vec<_> = shutdown
        .stragglers
        .iter()
        .filter_map(|task| task.name.as_deref())
        .collect();
    assert_eq!(names, ["slow"]);
    shutdown.result().unwrap();
}

/// Begins to sleep when it is polled.
async fn sleep_for(time: Duration) {
    sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn budget_is_used_up_then_the_task_fails_and_is_named() {
    let mut group: Group = Group::builder().cleanup(2 * SECOND).build();
    let quick = group.task("quick").spawn_with(async |ctx| {
        ctx.done().await;
        Ok(ctx.cleanup().run(sleep(2 * SECOND - SECOND / 10)).await?)
    });
    let slow = group.task("slow").spawn_with(async |ctx| {
        ctx.done().await;
        Ok(ctx.cleanup().run(sleep(3 * SECOND)).await?)
    });
    tokio::task::yield_now().await;
    let start = Instant::now();
    group.cancel();
    let error = group.wait().await.unwrap_err();
    assert_eq!(start.elapsed(), 2 * SECOND);
    assert!(
        error
            .to_string()
            .starts_with("deadline exceeded (2s, set at "),
        "{error}"
    );
    quick.await.unwrap();
    assert_eq!(slow.await.unwrap_err().task(), Some("slow"));
}

#[tokio::test(start_paused = true)]
async fn group_is_being_stopped_then_until_the_abort_be_it_later_or_earlier_than_the_budget() {
    for grace in [SECOND, 5 * SECOND, 60 * SECOND] {
        let group: Group = Group::builder().cleanup(3 * SECOND).build();
        let (tell, told) = mpsc::channel();
        group.task("never").spawn_with(async move |ctx| {
            // Asked before the end, at the end, and below.
            let before = ctx.cleanup();
            ctx.done().await;
            let child = ctx.with_timeout(SECOND);
            tell.send([before, ctx.cleanup(), child.cleanup()]).unwrap();
            pending::<Result<(), BoxError>>().await
        });
        tokio::task::yield_now().await;
        let start = Instant::now();
        let stop = tokio::spawn(group.stop().grace(grace));
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        for cleanup in told.try_recv().expect("the task was told") {
            let end = cleanup.done().await;
            assert_eq!(start.elapsed(), grace);
            assert!(end.is_deadline_exceeded());
        }
        assert_eq!(stop.await.unwrap().stragglers.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn stop_begins_after_the_end_then_who_cleans_up_already_has_until_the_abort() {
    let (parent, handle) = cancelled();
    let group: Group = Group::with_context(&parent);
    let task = group.spawn_with(async |ctx| {
        ctx.done().await;
        ctx.cleanup().run(sleep(20 * SECOND)).await?;
        Ok(())
    });
    tokio::task::yield_now().await;
    handle.cancel();
    tokio::task::yield_now().await;
    advance(SECOND).await;
    let shutdown = group.stop().grace(30 * SECOND).await;
    assert!(shutdown.stragglers.is_empty());
    shutdown.result().unwrap();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn budget_set_below_a_group_that_is_being_stopped_then_whichever_is_earlier() {
    for (budget, grace, expected) in [(1, 10, 1), (10, 1, 1)] {
        let [budget, grace, expected] = [budget, grace, expected].map(Duration::from_secs);
        let group: Group = Group::new();
        let (tell, told) = mpsc::channel();
        group.spawn_with(async move |ctx| {
            let ctx = ctx.with_cleanup(budget);
            ctx.done().await;
            tell.send(ctx.cleanup()).unwrap();
            pending::<Result<(), BoxError>>().await
        });
        tokio::task::yield_now().await;
        let stop = tokio::spawn(group.stop().grace(grace));
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        let cleanup = told.try_recv().unwrap();
        assert_eq!(until_done(&cleanup).await, expected);
        drop(stop.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn nested_group_under_one_that_is_being_stopped_then_until_the_outer_abort_or_its_own_budget()
{
    for (budget, expected) in [(None, 20), (Some(3 * SECOND), 3)] {
        let outer: Group = Group::new();
        let (tell, told) = mpsc::channel();
        outer.spawn_with(async move |ctx| {
            let inner = Group::builder().context(&ctx);
            let inner = match budget {
                Some(budget) => inner.cleanup(budget),
                None => inner,
            };
            let inner: Group = inner.build();
            inner.spawn_with(async move |ctx| {
                ctx.done().await;
                tell.send(ctx.cleanup()).unwrap();
                pending::<Result<(), BoxError>>().await
            });
            inner.await
        });
        sleep(SECOND).await;
        let stop = tokio::spawn(outer.stop().grace(20 * SECOND));
        sleep(SECOND).await;
        let cleanup = told.try_recv().unwrap();
        let expected = Duration::from_secs(expected);
        assert_eq!(until_done(&cleanup).await, expected - SECOND);
        drop(stop.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn group_dropped_then_its_time_is_over() {
    let group: Group = Group::new();
    let (tell, told) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let thread = group.spawn_blocking(move |ctx| {
        tell.send(ctx.cleanup()).unwrap();
        let _ = wait.recv();
        tell.send(ctx.cleanup()).unwrap();
        Ok(())
    });
    let before = told.recv_timeout(60 * SECOND).unwrap();
    assert!(!before.is_done());
    drop(group);
    assert_eq!(before.err().unwrap().reason(), Reason::GroupDropped);
    go.send(()).unwrap();
    let after = told.recv_timeout(60 * SECOND).unwrap();
    assert_eq!(after.err().unwrap().reason(), Reason::GroupDropped);
    drop(thread);
}

#[tokio::test(start_paused = true)]
async fn stop_is_over_before_the_abort_then_who_asks_afterwards_has_the_budget() {
    let group: Group = Group::new();
    let (ctx, spawner) = (group.context().clone(), group.spawner());
    let before = ctx.cleanup();
    group.stop().grace(60 * SECOND).await.result().unwrap();
    assert!(before.is_done(), "asked of a group, which is over");
    assert_eq!(until_done(&ctx.cleanup()).await, 5 * SECOND);
    drop(spawner);
}

#[test]
fn on_threads_without_a_runtime_then_the_process_tells() {
    let (ctx, handle) = cancelled();
    let ctx = ctx.with_cleanup(Duration::from_millis(30));
    let before = ctx.cleanup();
    let thread = thread::spawn(move || {
        let end = ctx.done_blocking(Some(60 * SECOND));
        assert_eq!(end.unwrap().reason(), Reason::Cancelled);
        ctx.cleanup().done_blocking(Some(60 * SECOND))
    });
    handle.cancel();
    assert!(
        thread
            .join()
            .unwrap()
            .expect("it ends")
            .is_deadline_exceeded()
    );
    let end = before.done_blocking(Some(60 * SECOND)).expect("it ends");
    assert!(end.is_deadline_exceeded());
}

#[test]
fn ended_in_a_runtime_without_a_timer_then_no_panic_and_the_process_tells() {
    let (ctx, handle) = cancelled();
    let cleanup = ctx.with_cleanup(Duration::from_millis(30)).cleanup();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async { handle.cancel() });
    let end = cleanup.done_blocking(Some(60 * SECOND)).expect("it ends");
    assert!(end.is_deadline_exceeded());
}

#[tokio::test(start_paused = true)]
async fn zero_budget_then_born_ended_and_thirty_years_beyond_the_clock() {
    let (ctx, handle) = cancelled();
    handle.cancel();
    assert!(ctx.with_cleanup(Duration::ZERO).cleanup().is_done());
    let long = ctx.with_cleanup(Duration::MAX).cleanup();
    advance(Duration::from_secs(10 * 365 * 24 * 60 * 60)).await;
    assert!(!long.is_done());
}
