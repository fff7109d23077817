//! `Group::stop()` with a drain and reports.

use std::future::pending;
use std::time::Duration;

use errgroup::{Context, Group, Reason};
use tokio::time::{Instant, sleep};

use crate::support::{Log, no_leaks};

const SECOND: Duration = Duration::from_secs(1);

/// Finishes what it has, and takes on no more: what takes so long, again and again.
async fn work(ctx: Context, job: Duration) -> Result<u32, errgroup::BoxError> {
    let stopping = ctx.stopping();
    let mut done = 0;
    while !stopping.is_done() {
        sleep(job).await;
        done += 1;
    }
    Ok(done)
}

#[tokio::test(start_paused = true)]
async fn drain_then_tasks_finish_and_it_is_over_with_the_last() {
    let group: Group = Group::new();
    let ctx = group.context().clone();
    let stopping = ctx.stopping();
    let tasks = [2, 3].map(|n| group.spawn_with(move |ctx| work(ctx, n * SECOND)));
    sleep(SECOND).await;
    let (stop, line) = (group.stop().drain(60 * SECOND), line!());
    assert!(!stopping.is_done(), "it begins at the first poll");
    let start = Instant::now();
    let shutdown = stop.await;
    assert_eq!(
        start.elapsed(),
        2 * SECOND,
        "the second is done three seconds after the beginning"
    );
    assert!(shutdown.stragglers.is_empty());
    shutdown.result().unwrap();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 1);
    }
    let begun = stopping.err().unwrap();
    assert_eq!(begun.reason(), Reason::Stopping);
    assert_eq!(begun.location().map(|place| place.line()), Some(line));
    assert_eq!(ctx.err().unwrap().reason(), Reason::Shutdown);
    no_leaks(&ctx);
}

#[tokio::test(start_paused = true)]
async fn drain_over_then_ended_as_stopped_and_after_the_grace_aborted_and_named() {
    let group: Group = Group::new();
    let dropped = group.spawn(pending::<Result<(), _>>());
    let polite = group.spawn_with(async |ctx| Ok(ctx.done().await.reason()));
    group
        .task("deaf")
        .spawn_with(|_| pending::<Result<(), _>>());
    let start = Instant::now();
    let shutdown = group.stop().drain(10 * SECOND).grace(3 * SECOND).await;
    assert_eq!(start.elapsed(), 13 * SECOND);
    assert_eq!(dropped.await.unwrap_err().reason(), Reason::Stopped);
    assert_eq!(polite.await.unwrap(), Reason::Stopped);
    let names: Vec<_> = shutdown
        .stragglers
        .iter()
        .map(|task| task.name.as_deref())
        .collect();
    assert_eq!(names, [Some("deaf")]);
    assert!(shutdown.stragglers[0].was_aborted);
    shutdown.result().unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_a_drain_then_stopping_begins_with_the_end() {
    let group: Group = Group::new();
    let task = group.spawn_with(async |ctx| Ok(ctx.stopping_done().await.reason()));
    tokio::task::yield_now().await;
    group.stop().await.result().unwrap();
    assert_eq!(task.await.unwrap(), Reason::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn task_fails_during_the_drain_then_ended_for_it() {
    let group: Group = Group::new();
    group.spawn_with(async |ctx| {
        ctx.stopping_done().await;
        sleep(SECOND).await;
        Err::<(), _>("disk full".into())
    });
    let other = group.spawn(pending::<Result<(), _>>());
    let start = Instant::now();
    let shutdown = group.stop().drain(60 * SECOND).await;
    assert_eq!(start.elapsed(), SECOND);
    assert_eq!(shutdown.result().unwrap_err().to_string(), "disk full");
    assert_eq!(other.await.unwrap_err().reason(), Reason::TaskFailed);
}

#[tokio::test(start_paused = true)]
async fn parent_ends_during_the_drain_then_the_grace_begins() {
    let (parent, handle) = Context::background().with_cancel();
    let group: Group = Group::with_context(&parent);
    group
        .task("deaf")
        .spawn_with(|_| pending::<Result<(), _>>());
    let start = Instant::now();
    let stop = tokio::spawn(group.stop().drain(60 * SECOND).grace(2 * SECOND));
    sleep(SECOND).await;
    handle.cancel();
    let shutdown = stop.await.unwrap();
    assert_eq!(start.elapsed(), 3 * SECOND);
    assert_eq!(shutdown.stragglers.len(), 1);
    no_leaks(&parent);
}

#[tokio::test(start_paused = true)]
async fn outer_group_drains_then_groups_inside_are_stopping_and_an_inner_drain_leaves_the_outer() {
    let outer: Group = Group::new();
    let told = outer.spawn_with(async |ctx| {
        let inner: Group = Group::with_context(&ctx);
        let task = inner.spawn_with(async |ctx| Ok(ctx.stopping_done().await.reason()));
        let alone: Group = Group::with_context(inner.context());
        let inner_ctx = inner.context().clone();
        drop(alone.stop().drain(60 * SECOND).await);
        assert!(!ctx.stopping().is_done() && !inner_ctx.stopping().is_done());
        inner.await?;
        Ok(task.await?)
    });
    sleep(SECOND).await;
    outer.stop().drain(60 * SECOND).await.result().unwrap();
    assert_eq!(told.await.unwrap(), Reason::Stopping);
}

async fn work_once() -> Result<(), errgroup::BoxError> {
    sleep(5 * SECOND).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn reports_then_every_period_from_the_beginning_with_who_is_there() {
    let group: Group = Group::new();
    group.task("first").spawn_with(|_| work_once());
    group
        .task("deaf")
        .spawn_with(|_| pending::<Result<(), _>>());
    let log = Log::new();
    let (tell, start) = (log.clone(), Instant::now());
    let stop = group.stop().drain(4 * SECOND).grace(3 * SECOND);
    let stop = stop.report_every(2 * SECOND, move |tasks| {
        let names: Vec<_> = tasks
            .iter()
            .map(|task| task.name.as_deref().unwrap().to_owned())
            .collect();
        tell.push((
            start.elapsed().as_secs(),
            names,
            tasks[0].to_string().contains("still running"),
        ));
        panic!("a report that panics");
    });
    let shutdown = stop.await;
    assert_eq!(shutdown.stragglers.len(), 1);
    let expected = [
        (2, vec!["first", "deaf"]),
        (4, vec!["first", "deaf"]),
        (6, vec!["deaf"]),
    ];
    let expected =
        expected.map(|(at, names)| (at, names.into_iter().map(str::to_owned).collect(), true));
    assert_eq!(log.take(), expected);
}

#[tokio::test(start_paused = true)]
async fn all_are_over_then_no_report_and_no_timer() {
    let group: Group = Group::new();
    group.spawn(async { Ok(()) }).await.unwrap();
    let stop = group
        .stop()
        .drain(SECOND)
        .report_every(SECOND, |_| panic!("nobody is there"));
    let start = Instant::now();
    assert!(stop.await.stragglers.is_empty());
    assert_eq!(start.elapsed(), Duration::ZERO);
    let group: Group = Group::new();
    let stop = group
        .stop()
        .drain(SECOND)
        .report_every(SECOND, |_| panic!("nobody is there"));
    assert!(futures::executor::block_on(stop).stragglers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn options_after_the_first_poll_then_a_panic_that_says_so() {
    use crate::support::panic_text;
    fn begun() -> errgroup::Stop<errgroup::BoxError> {
        let group: Group = Group::new();
        group.spawn_with(|_| pending::<Result<(), _>>());
        let mut stop = group.stop().drain(SECOND);
        assert!(futures::FutureExt::now_or_never(&mut stop).is_none());
        stop
    }
    assert!(
        panic_text(|| drop(begun().drain(SECOND))).contains("the stop has begun: set its drain")
    );
    assert!(
        panic_text(|| drop(begun().grace(SECOND))).contains("the stop has begun: set its grace")
    );
    let report = || drop(begun().report_every(SECOND, |_| {}));
    assert!(panic_text(report).contains("the stop has begun: set its report"));
    let none = || {
        drop(
            Group::<errgroup::BoxError>::new()
                .stop()
                .report_every(Duration::ZERO, |_| {}),
        )
    };
    assert!(panic_text(none).contains("every zero seconds"));
}

#[tokio::test(start_paused = true)]
async fn stop_dropped_during_the_drain_then_the_group_is() {
    let group: Group = Group::new();
    let ctx = group.context().clone();
    let task = group.spawn_with(|_| pending::<Result<(), _>>());
    let mut stop = group.stop().drain(60 * SECOND);
    assert!(futures::FutureExt::now_or_never(&mut stop).is_none());
    assert!(ctx.stopping().is_done() && !ctx.is_done());
    drop(stop);
    assert_eq!(ctx.err().unwrap().reason(), Reason::GroupDropped);
    assert!(task.await.is_err());
    no_leaks(&ctx);
}

#[tokio::test(start_paused = true)]
async fn worker_passes_the_stopping_on_then_the_others_have_their_drain() {
    let group: Group = Group::new();
    group.spawn_with(async |ctx| {
        ctx.stopping().sleep(Duration::MAX).await?;
        Ok(())
    });
    let other = group.spawn_with(async |ctx| {
        ctx.sleep(5 * SECOND).await?;
        Ok("drained")
    });
    tokio::task::yield_now().await;
    let shutdown = group.stop().drain(20 * SECOND).await;
    assert!(shutdown.failure().is_none());
    assert_eq!(other.await.unwrap(), "drained");
}

#[tokio::test(start_paused = true)]
async fn cleanup_asked_for_before_the_end_of_a_stop_has_the_grace_whatever_its_budget() {
    let group: Group = Group::builder().cleanup(Duration::ZERO).build();
    let task = group.spawn_with(async |ctx| {
        let cleanup = ctx.cleanup();
        ctx.done().await;
        sleep(SECOND).await;
        Ok(cleanup.is_done())
    });
    tokio::task::yield_now().await;
    group.stop().grace(5 * SECOND).await.result().unwrap();
    assert!(!task.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn reports_for_ever_are_none() {
    let group: Group = Group::new();
    group.spawn_with(async |ctx| {
        ctx.done().await;
        sleep(SECOND).await;
        Ok(())
    });
    tokio::task::yield_now().await;
    let stop = group.stop().report_every(Duration::MAX, |_| unreachable!());
    assert!(stop.await.stragglers.is_empty());
}
