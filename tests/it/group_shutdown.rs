//! G16: `shutdown` ends the context, grants a grace, aborts what is left, waits for what it can, and names the rest.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use errgroup::{Context, Group, Reason};
use futures::FutureExt;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::group_support::*;
use crate::support::{no_leaks, panic_text};

const GRACE: Duration = Duration::from_secs(5);

async fn stop_after(ctx: Context, seconds: u64) -> Unit {
    ctx.done().await;
    sleep(Duration::from_secs(seconds)).await;
    Ok(())
}

on_both_runtimes! {
    async fn g16_all_stop_then_ok_and_no_stragglers() {
        let group: Group = limited(2);
        let context = group.context().clone();
        let tasks = [group.spawn(pend()), group.spawn_with(pass_on), group.spawn(pend())];
        let (shutdown, line) = (group.shutdown(GRACE), line!());
        let shutdown = shutdown.await;
        assert!(shutdown.stragglers.is_empty());
        shutdown.result().unwrap();
        let end = context.err().unwrap();
        assert_eq!(end.reason(), Reason::Shutdown);
        assert_eq!(end.location().map(|place| place.line()), Some(line));
        for task in tasks {
            assert_eq!(cancelled(task).await.reason(), Reason::Shutdown);
        }
        no_leaks(&context);
    }

    async fn g16_task_failed_before_then_its_error_is_the_result() {
        let group: Group = Group::new();
        drop(group.spawn(fail("before")).await);
        let shutdown = group.shutdown(GRACE).await;
        assert_eq!(shutdown.result().unwrap_err().to_string(), "before");
    }

    async fn g16_task_fails_while_it_stops_then_its_error_is_the_result() {
        let group: Group = Group::new();
        start_failing_at_the_end(&group).await;
        let shutdown = group.shutdown(GRACE).await;
        assert_eq!(shutdown.result().unwrap_err().to_string(), "could not flush");
    }

    async fn g16_parent_ended_before_then_being_cut_short_is_no_error() {
        let (parent, handle) = Context::background().with_cancel();
        let group: Group = Group::with_context(&parent);
        group.spawn(pend());
        group.spawn_with(pass_on);
        handle.cancel();
        group.spawn(pend());
        let context = group.context().clone();
        group.shutdown(GRACE).await.result().unwrap();
        assert_eq!(context.err().unwrap().reason(), Reason::Cancelled);
        no_leaks(&parent);
    }

    async fn g16_dropped_then_the_group_is() {
        let group: Group = Group::new();
        let (started, is_started) = oneshot::channel();
        let task = group.spawn_with(async |_| {
            started.send(()).unwrap();
            pend().await
        });
        // One that has not begun is dropped at the end, and may be gone before the first poll.
        is_started.await.unwrap();
        let context = group.context().clone();
        let mut shutdown = Box::pin(group.shutdown(GRACE));
        assert!(poll(&mut shutdown).is_pending());
        drop(shutdown);
        assert_eq!(context.err().unwrap().reason(), Reason::Shutdown);
        let reason = why(task).await.reason();
        assert!(matches!(reason, Reason::TaskAborted | Reason::Shutdown), "{reason:?}");
        let group: Group = Group::new();
        let context = group.context().clone();
        drop(group.shutdown(GRACE));
        assert_eq!(context.err().unwrap().reason(), Reason::GroupDropped);
        no_leaks(&context);
    }
}

#[test]
fn g16_nothing_to_wait_for_then_no_runtime_is_needed() {
    let group: Group = Group::new();
    let shutdown = group.shutdown(GRACE).now_or_never().expect("at once");
    shutdown.result().unwrap();
}

#[tokio::test(start_paused = true)]
async fn g16_last_one_stops_in_time_then_it_returns_at_once() {
    let group: Group = Group::new();
    let start = Instant::now();
    let task = group.spawn_with(|ctx| stop_after(ctx, 2));
    idle().await;
    let shutdown = group.shutdown(GRACE).await;
    assert!(shutdown.stragglers.is_empty());
    assert_eq!(start.elapsed().as_secs(), 2);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn g16_stubborn_tasks_are_aborted_listed_and_waited_for() {
    let used = Arc::new(());
    let group: Group = Group::new();
    let start = Instant::now();
    let (held, kept) = (used.clone(), used.clone());
    let name = group.task("older");
    let (older, line) = (name.spawn_with(|ctx| holding(held, ignore(ctx))), line!());
    sleep(Duration::from_secs(10)).await;
    let younger = group.spawn_with(move |ctx| holding(kept, ignore(ctx)));
    let in_time = group.spawn_with(|ctx| stop_after(ctx, 1));
    idle().await;
    let (ids, shutdown) = ([older.id(), younger.id()], group.shutdown(GRACE).await);
    assert_eq!(start.elapsed(), Duration::from_secs(10) + GRACE);
    assert_eq!(Arc::strong_count(&used), 1, "waited for");
    assert!(shutdown.failure().is_none());

    let [first, second] = &shutdown.stragglers[..] else {
        panic!("{:?}", shutdown.stragglers);
    };
    assert_eq!([first.id, second.id], ids, "the longest running first");
    assert_eq!(first.name.as_deref(), Some("older"));
    assert_eq!(second.name, None);
    assert_eq!(
        (first.location.file(), first.location.line()),
        (file!(), line)
    );
    assert_eq!([first.age.as_secs(), second.age.as_secs()], [15, 5]);
    assert!(first.was_aborted && second.was_aborted);
    let text = format!(
        "task \"older\" {} aborted after 15s {} (not polled since)",
        first.id, first.location
    );
    assert_eq!(first.to_string(), text);
    for task in [older, younger] {
        assert_eq!(why(task).await.reason(), Reason::TaskAborted);
    }
    in_time.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn g16_no_grace_then_what_stops_itself_is_aborted_at_once() {
    let group: Group = Group::new();
    let start = Instant::now();
    let task = group.spawn_with(ignore);
    idle().await;
    let shutdown = group.shutdown(Duration::ZERO).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(shutdown.stragglers.len(), 1);
    assert!(shutdown.stragglers[0].was_aborted);
    assert_eq!(own_end(task).await, Reason::TaskAborted);
}

#[tokio::test(start_paused = true)]
async fn g16_stubborn_task_panics_when_it_is_dropped_then_that_is_the_result() {
    let group: Group = Group::new();
    group.spawn_with(|_| pend_then_panic_in_drop("drop"));
    idle().await;
    let shutdown = group.shutdown(GRACE).await;
    assert_eq!(shutdown.stragglers.len(), 1);
    assert_eq!(panic_text(|| shutdown.result()), "drop");
}

/// A blocking task cannot be aborted: it is listed, and nobody waits for it.
#[test]
fn g16_blocking_straggler_is_listed_as_running_and_not_waited_for() {
    let tasks = multi_thread();
    current_thread().block_on(async {
        let group: Group = Group::builder().runtime(tasks.handle().clone()).build();
        let (finish, busy) = mpsc::channel::<()>();
        let (started, start) = mpsc::channel();
        let blocking = group.task("blocking").spawn_blocking(move |_| {
            started.send(()).unwrap();
            let _ = busy.recv();
            Ok("finished")
        });
        let stubborn = group.spawn_with(ignore);
        start.recv().unwrap();
        until(|| group.len() == 2).await;
        let shutdown = group.shutdown(GRACE).await;
        assert!(!blocking.is_finished());
        let aborted: Vec<_> = shutdown
            .stragglers
            .iter()
            .map(|s| (s.id, s.was_aborted))
            .collect();
        assert!(aborted.contains(&(blocking.id(), false)), "{aborted:?}");
        let text = shutdown
            .stragglers
            .iter()
            .find(|s| !s.was_aborted)
            .unwrap()
            .to_string();
        assert!(text.contains("still running after "), "{text}");
        shutdown.result().unwrap();
        drop(finish);
        assert_eq!(blocking.await.unwrap(), "finished");
        drop(stubborn);
    });
}

/// Nor can one that does not come to an await. The clock of the shutdown is not the one of the task's runtime.
#[test]
fn g16_task_that_does_not_yield_is_listed_as_running_and_given_up() {
    let tasks = multi_thread();
    current_thread().block_on(async {
        let group: Group = Group::builder().runtime(tasks.handle().clone()).build();
        let (finish, busy) = mpsc::channel::<()>();
        let (started, start) = mpsc::channel();
        let task = group.spawn(async move {
            started.send(()).unwrap();
            let _ = busy.recv();
            pend().await
        });
        start.recv().unwrap();
        let begin = Instant::now();
        let shutdown = group.shutdown(GRACE).await;
        assert_eq!(
            begin.elapsed(),
            2 * GRACE,
            "as long again to come to an await"
        );
        assert_eq!(shutdown.stragglers.len(), 1);
        assert!(!shutdown.stragglers[0].was_aborted);
        assert!(!task.is_finished());
        drop(finish);
        assert!(task.await.is_err(), "stopped at the await it came to");
    });
}
