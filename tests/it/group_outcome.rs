//! `wait_outcome` and `keep_failures`: how many tasks ended in which way, and which failures are there to be looked at.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use errgroup::{Context, ContextError, Failure, Group, Outcome, Reason};
use futures::FutureExt;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::group_support::*;
use crate::support::no_leaks;

/// Completed, failed, panicked, cut short, aborted, never started.
fn counts<E>(outcome: &Outcome<E>) -> [usize; 6] {
    [
        outcome.completed(),
        outcome.failed(),
        outcome.panicked(),
        outcome.cut_short(),
        outcome.aborted(),
        outcome.never_started(),
    ]
}

fn lines<E: std::fmt::Display>(outcome: &Outcome<E>) -> Vec<String> {
    let line = |failure: &Failure<E>| failure.to_string().split(" (").next().unwrap().to_owned();
    outcome.failures().map(line).collect()
}

on_both_runtimes! {
    async fn outcome_of_each_way_to_end_then_each_is_counted_once() {
        let mut group: Group = Group::builder().limit(6).build();
        for n in 0..3 {
            group.spawn(async move { Ok(n) }).await.unwrap();
        }
        group.spawn(async { Ok("a value with a destructor".to_owned()) }).await.unwrap();
        group.spawn_blocking(|_| Ok(())).await.unwrap();
        let aborted = [group.spawn(pend()), group.spawn_with(ignore)];
        for task in aborted {
            task.abort();
            assert_eq!(own_end(task).await, Reason::TaskAborted);
        }
        // Six that run, and two that are queued behind them.
        let (stop, stopped) = oneshot::channel();
        let mut started = Vec::new();
        let mut waits = || {
            let (sender, receiver) = oneshot::channel();
            started.push(receiver);
            async { sender.send(()).unwrap(); pend().await }
        };
        group.spawn(waits());
        group.spawn(waits());
        let (start, has_started) = oneshot::channel();
        group.spawn_with(|ctx| async { start.send(()).unwrap(); pass_on(ctx).await });
        start_failing_at_the_end(&group).await;
        let (start, also_started) = oneshot::channel();
        group.spawn_with(async |ctx| {
            start.send(()).unwrap();
            ctx.done().await;
            panics("at the end").await
        });
        group.spawn(async { stopped.await?; fail("first").await });
        group.spawn(pend());
        group.spawn_blocking(|_| Ok(()));
        for start in started.into_iter().chain([has_started, also_started]) {
            start.await.unwrap();
        }
        stop.send(()).unwrap();
        group.context().done().await;
        group.spawn(pend());
        let outcome = group.wait_outcome().await;
        assert_eq!(counts(&outcome), [5, 2, 1, 3, 2, 3], "{outcome}");
        assert_eq!(outcome.suppressed(), 2);
        // The panic outranks the errors.
        assert!(outcome.failure().unwrap().panic().is_some());
        assert!(outcome.ended().is_none());
        assert_eq!(counts(&group.wait_outcome().await), [5, 2, 1, 3, 2, 3]);
    }

    async fn outcome_of_a_panic_then_it_is_resumed_by_into_result_alone() {
        let mut group: Group = Group::new();
        group.task("bad").spawn(panics("the payload"));
        let outcome = group.wait_outcome().await;
        let failure = outcome.failure().unwrap();
        assert_eq!(failure.name(), Some("bad"));
        assert_eq!(failure.panic().unwrap().downcast_ref(), Some(&"the payload"));
        assert_eq!(counts(&outcome), [0, 0, 1, 0, 0, 0]);
        assert_eq!(panic_of(async { outcome.into_result() }).await, "the payload");
        group.wait().await.unwrap();
    }

    async fn outcome_of_a_failure_then_it_is_what_wait_returns() {
        let mut group: Group<Trouble> = Group::new();
        let location = std::panic::Location::caller();
        group.task("db").spawn(async { Err::<(), _>(Trouble::Own("disk full")) });
        let outcome = group.wait_outcome().await;
        let failure = outcome.failure().unwrap();
        assert_eq!(failure.location().line(), location.line() + 1);
        assert!(matches!(failure.error(), Some(Trouble::Own("disk full"))));
        assert!(matches!(outcome.into_result(), Err(Trouble::Own("disk full"))));
    }

    async fn outcome_of_a_stop_then_the_shutdown_carries_it() {
        let group: Group = Group::new();
        group.spawn(async { Ok(()) }).await.unwrap();
        let (start, started) = oneshot::channel();
        group.spawn_with(async |ctx| { start.send(()).unwrap(); ignore(ctx).await });
        start_failing_at_the_end(&group).await;
        started.await.unwrap();
        let shutdown = group.stop().grace(Duration::from_millis(20)).await;
        assert_eq!(shutdown.stragglers.len(), 1);
        assert_eq!(counts(shutdown.outcome()), [1, 1, 0, 0, 1, 0]);
        assert_eq!(lines(shutdown.outcome()).len(), 1);
        let error = shutdown.into_outcome().into_result().unwrap_err();
        assert_eq!(error.to_string(), "could not flush");
    }

    async fn outcome_of_many_tasks_then_the_counts_add_up() {
        for delay in 0..12 {
            let mut group: Group = Group::builder().limit(3).build();
            let spawned = 24;
            for n in 0..spawned {
                let turns = n % 5;
                let task = match n % 6 {
                    0 => group.spawn(takes_turns(turns)),
                    1 => group.spawn_with(obey),
                    2 => group.spawn(pend()),
                    3 => group.spawn(async move { takes_turns(turns).await?; Ok(()) }),
                    4 => group.spawn_blocking(|_| Ok(())),
                    _ => group.spawn_with(move |_| takes_turns(turns)),
                };
                if n % 7 == 0 {
                    task.abort();
                }
            }
            turns(delay).await;
            group.cancel();
            let outcome = group.wait_outcome().await;
            assert_eq!(counts(&outcome).iter().sum::<usize>(), spawned, "{outcome}");
            assert!(outcome.failure().is_none() && outcome.ended().is_none());
            outcome.into_result().unwrap();
        }
    }
}

#[tokio::test]
async fn more_failures_than_are_kept_then_the_first_so_many_with_their_types() {
    let mut group: Group<Trouble> = Group::builder().keep_failures(2).build();
    let texts = ["b", "c", "d", "e", "a"];
    let failing = |text| {
        move |ctx: Context| async move {
            if text != "a" {
                ctx.done().await;
            }
            Err::<(), _>(Trouble::Own(text))
        }
    };
    // The last is the first to fail.
    let tasks = texts.map(|text| group.task(text).spawn_with(failing(text)));
    let outcome = group.wait_outcome().await;
    let expected = ["a", "b", "c"].map(|text| format!("task {text:?} failed: {text}"));
    assert_eq!(lines(&outcome), expected);
    assert_eq!((outcome.failed(), outcome.suppressed()), (5, 4));
    // Kept or not, the handle has the text.
    for (text, task) in texts.into_iter().zip(tasks) {
        let end = why(task).await.to_string();
        assert!(
            end.contains(&format!("task {text:?} failed: {text} (")),
            "{end}"
        );
    }
}

#[tokio::test]
async fn panic_after_an_error_then_the_error_is_kept_beside_it() {
    let mut group: Group = Group::builder().keep_failures(1).build();
    group.task("bad").spawn_with(async |ctx| {
        ctx.done().await;
        panics("worse").await
    });
    idle().await;
    group.task("disk").spawn(fail("full"));
    let outcome = group.wait_outcome().await;
    let expected = [
        r#"task "bad" panicked: worse"#,
        r#"task "disk" failed: full"#,
    ];
    assert_eq!(lines(&outcome), expected);
    assert_eq!(outcome.suppressed(), 1);
}

#[tokio::test]
async fn failures_of_an_isolated_group_then_the_first_is_in_the_outcome_and_none_is_returned() {
    for (keep, lines_expected) in [(0, 1), (1, 2), (9, 3)] {
        let builder = Group::builder().isolated().keep_failures(keep);
        let mut group: Group = builder.build();
        for name in ["a", "b", "c"] {
            group.task(name).spawn(fail("reset"));
        }
        group.spawn(async { Ok(()) });
        let outcome = group.wait_outcome().await;
        assert_eq!(lines(&outcome).len(), lines_expected);
        assert_eq!(outcome.failure().unwrap().name(), Some("a"));
        assert_eq!(counts(&outcome), [1, 3, 0, 0, 0, 0]);
        assert_eq!(outcome.suppressed(), 3);
        outcome.into_result().unwrap();
    }
}

#[tokio::test]
async fn failure_passed_on_in_an_isolated_group_then_it_counts_as_cut_short() {
    let mut group: Group = Group::builder().isolated().build();
    let bad = group.spawn(fail("reset"));
    group.spawn(async { Ok(bad.await?) });
    let outcome = group.wait_outcome().await;
    assert_eq!(counts(&outcome), [0, 1, 0, 1, 0, 0]);
    outcome.into_result().unwrap();
}

#[tokio::test]
async fn parent_ended_then_the_outcome_has_its_end() {
    let (parent, handle) = Context::background().with_cancel();
    let mut group: Group = Group::with_context(&parent);
    group.spawn(pend());
    idle().await;
    handle.cancel();
    let outcome = group.wait_outcome().await;
    assert_eq!(
        outcome.ended().map(ContextError::reason),
        Some(Reason::Cancelled)
    );
    assert_eq!(counts(&outcome), [0, 0, 0, 1, 0, 0]);
    let text = outcome.to_string();
    assert!(
        text.starts_with("0 completed, 1 cut short: cancelled ("),
        "{text}"
    );
    let error = outcome.into_result().unwrap_err();
    assert!(error.downcast_ref::<ContextError>().is_some());
    // Told once.
    assert!(group.wait_outcome().await.ended().is_none());
    no_leaks(&parent);
}

#[tokio::test]
async fn spawned_after_the_outcome_then_the_next_tells_it_once() {
    let mut group: Group = Group::new();
    group.wait_outcome().await.into_result().unwrap();
    group.spawn(pend());
    let outcome = group.wait_outcome().await;
    assert_eq!(outcome.never_started(), 1);
    assert_eq!(outcome.ended().unwrap().reason(), Reason::GroupFinished);
    assert!(outcome.into_result().is_err());
    group.wait_outcome().await.into_result().unwrap();
}

#[tokio::test]
async fn wait_dropped_half_way_then_the_next_has_the_outcome() {
    let mut group: Group = Group::new();
    let (open, gate) = oneshot::channel();
    group.spawn(async {
        gate.await?;
        fail("late").await
    });
    assert!(group.wait_outcome().now_or_never().is_none());
    open.send(()).unwrap();
    assert_eq!(group.wait_outcome().await.failed(), 1);
}

#[tokio::test(start_paused = true)]
async fn failed_after_a_while_then_the_failure_says_how_long() {
    let mut group: Group = Group::builder().keep_failures(1).build();
    group.spawn(async {
        sleep(Duration::from_millis(250)).await;
        fail("first").await
    });
    group.spawn_with(async |ctx| {
        ctx.done().await;
        sleep(Duration::from_millis(50)).await;
        fail("second").await
    });
    let outcome = group.wait_outcome().await;
    let elapsed: Vec<_> = outcome
        .failures()
        .map(|failure| failure.elapsed().as_millis())
        .collect();
    assert_eq!(elapsed, [250, 300]);
}

#[test]
fn runtime_gone_then_its_tasks_are_cut_short() {
    let mut group: Group = Group::new();
    let runtime = current_thread();
    runtime.block_on(async {
        group.spawn(pend());
        idle().await;
    });
    drop(runtime);
    let outcome = futures::executor::block_on(group.wait_outcome());
    assert_eq!(counts(&outcome), [0, 0, 0, 1, 0, 0]);
    assert_eq!(outcome.ended().unwrap().reason(), Reason::RuntimeGone);
}

#[tokio::test]
async fn g19_kept_error_panics_in_its_drop_then_wait_contains_it() {
    let mut group: Group<Trouble> = Group::builder().keep_failures(3).isolated().build();
    for _ in 0..3 {
        group.spawn(async { Err::<(), _>(Trouble::undroppable()) });
    }
    let waited = AssertUnwindSafe(group.wait()).catch_unwind().await;
    assert!(matches!(waited, Ok(Ok(()))));
}

#[tokio::test]
async fn errors_taken_out_then_panics_and_what_was_not_kept_are_a_number() {
    let builder = Group::builder().isolated().keep_failures(2);
    let mut group: Group<Trouble> = builder.build();
    for text in ["a", "b"] {
        let failing = async move { Err::<(), _>(Trouble::Own(text)) };
        group.task(text).spawn(failing);
    }
    group.spawn(async { quiet_panic("c") as Result<(), _> });
    group.spawn(async { Err::<(), _>(Trouble::Own("d")) });
    let failures = group.wait_outcome().await.into_failures();
    let text = failures.to_string();
    let lines: Vec<_> = text
        .lines()
        .map(|line| line.split(" (").next().unwrap())
        .collect();
    let expected = [
        r#"task "a" failed: a"#,
        r#"task "b" failed: b"#,
        "and 2 more",
    ];
    assert_eq!(lines, expected);
    assert!(matches!(
        failures.into_errors()[..],
        [Trouble::Own("a"), Trouble::Own("b")]
    ));
}

#[tokio::test]
async fn outcome_is_a_line() {
    let mut group: Group = Group::new();
    group.spawn(async { Ok(()) });
    group.spawn(pend());
    idle().await;
    group.task("db").spawn(fail("refused"));
    let text = group.wait_outcome().await.to_string();
    let expected = r#"1 completed, 1 failed, 1 cut short: task "db" failed: refused (spawned at "#;
    assert!(text.starts_with(expected), "{text}");
}
