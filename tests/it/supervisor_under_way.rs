//! Commands on children that are on their way up or down, and the restarts of several that come in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use errgroup::{Child, ChildState, CommandError, Context, Ready, Restart, Strategy};

use crate::supervisor_support::{End, Stage, builder, idle, paused, run};
use crate::support::advance;

const SEC: Duration = Duration::from_secs(1);

/// A child that takes a second to stop.
fn slow_to_stop(stage: &Stage, name: &'static str) -> Child {
    let stage = stage.clone();
    Child::new(name, move |ctx: Context| {
        let stage = stage.clone();
        async move {
            let acted = stage.act(ctx, name.to_owned()).await;
            tokio::time::sleep(SEC).await;
            acted
        }
    })
}

/// A child whose incarnations are ready after a second, but for those of these numbers: they drop their `Ready`. All take a
/// second to stop.
fn unready_at(failing: &'static [usize], name: &'static str) -> Child {
    let starts = Arc::new(AtomicUsize::new(0));
    Child::with_ready(name, move |ctx: Context, ready: Ready| {
        let start = 1 + starts.fetch_add(1, Ordering::SeqCst);
        async move {
            match failing.contains(&start) {
                true => drop(ready),
                false => {
                    ctx.sleep(SEC).await?;
                    ready.notify();
                }
            }
            ctx.done().await;
            tokio::time::sleep(SEC).await;
            Ok(())
        }
    })
}

#[test]
fn s7_wanted_again_while_it_waits_for_its_turn_to_be_stopped_then_it_runs_again() {
    for is_restart in [false, true] {
        paused(async {
            let stage = Stage::new();
            let children = [
                stage.child("a"),
                stage.child("job").restart(Restart::Temporary),
                slow_to_stop(&stage, "z"),
            ];
            let running = run(builder().strategy(Strategy::OneForAll), children).await;
            stage.end("a", End::Fail);
            idle().await;
            assert_eq!(stage.took(), ["+a", "+job", "+z", "-a", "-z"]);
            assert_eq!(running.state("job"), ChildState::Stopping);
            let wanted = match is_restart {
                true => tokio::spawn(running.handle.restart("job")),
                false => tokio::spawn(running.handle.start("job")),
            };
            idle().await;
            assert!(!wanted.is_finished());
            assert_eq!(wanted.await.unwrap(), Ok(()));
            idle().await;
            assert!(running.handle.is_all_up());
            assert_eq!(running.handle.child("job").unwrap().restarts, 0);
            running.end().await.unwrap();
        });
    }
}

#[test]
fn s7_removed_while_it_waits_for_its_turn_to_be_stopped_and_swept_or_stopped_then_it_is_gone() {
    paused(async {
        let stage = Stage::new();
        let children = [
            stage.child("a"),
            stage.child("b"),
            slow_to_stop(&stage, "z"),
        ];
        let running = run(builder().strategy(Strategy::OneForAll), children).await;
        stage.end("a", End::Fail);
        idle().await;
        let removed = tokio::spawn(running.handle.remove("b"));
        let stopped = tokio::spawn(running.handle.stop("b"));
        idle().await;
        assert_eq!(running.state("b"), ChildState::Stopping);
        assert_eq!(removed.await.unwrap(), Ok(()));
        assert_eq!(stopped.await.unwrap(), Ok(()));
        assert!(running.handle.child("b").is_none());
        running.end().await.unwrap();
    });
}

#[test]
fn s7_added_then_swept_before_its_start_has_failed_then_it_is_not_kept_and_holds_up_nobody() {
    for backoff in [vec![Duration::ZERO; 9], vec![60 * SEC; 9]] {
        paused(async {
            let stage = Stage::new();
            let strategy = builder().strategy(Strategy::RestForOne);
            let running = run(strategy, [stage.child("a")]).await;
            let unready = unready_at(&[1, 2], "b").backoff(backoff);
            let added = tokio::spawn(running.handle.add(unready));
            idle().await;
            running.handle.add(stage.child("c")).await.unwrap();
            // It is being stopped for its failure, and then for that of the first.
            stage.end("a", End::Fail);
            advance(SEC).await;
            idle().await;
            advance(SEC).await;
            idle().await;
            let added = added.await.unwrap();
            assert!(matches!(added, Err(CommandError::StartFailed { .. })));
            advance(2 * SEC).await;
            idle().await;
            assert!(running.handle.child("b").is_none(), "it is not kept");
            assert_eq!(running.state("c"), ChildState::Running);
            running.end().await.unwrap();
        });
    }
}

#[test]
fn s7_stopped_before_its_first_start_and_swept_then_its_failure_is_like_any_other() {
    paused(async {
        let stage = Stage::new();
        let children = [
            stage.child("a"),
            unready_at(&[], "b"),
            unready_at(&[1], "c"),
        ];
        let running = run(builder().strategy(Strategy::OneForAll), children).await;
        running.handle.stop("c").await.unwrap();
        advance(SEC).await;
        idle().await;
        assert_eq!(running.state("b"), ChildState::Ready);
        assert_eq!(running.state("c"), ChildState::Stopped);
        stage.end("a", End::Fail);
        tokio::time::sleep(20 * SEC).await;
        assert!(!running.run.is_finished());
        assert!(running.handle.is_all_up());
        assert_eq!(running.handle.child("c").unwrap().failures.len(), 1);
        running.end().await.unwrap();
    });
}

#[test]
fn s7_restarted_by_name_while_it_starts_in_line_then_that_is_not_counted_as_a_restart() {
    paused(async {
        let stage = Stage::new();
        let children = [unready_at(&[], "a"), stage.child("b")];
        let running = run(builder(), children).await;
        running.handle.restart("a").await.unwrap();
        idle().await;
        assert!(running.handle.is_all_up());
        assert_eq!(running.handle.child("a").unwrap().restarts, 0);
        running.end().await.unwrap();
    });
}

#[test]
fn s7_started_while_a_temporary_one_fails_to_come_up_again_then_it_is_answered() {
    paused(async {
        let stage = Stage::new();
        let job = unready_at(&[2], "job").restart(Restart::Temporary);
        let running = run(builder(), [job, stage.child("b")]).await;
        let restarted = tokio::spawn(running.handle.restart("job"));
        idle().await;
        // The second is being stopped for its failure.
        assert_eq!(running.state("job"), ChildState::Stopping);
        let started = tokio::time::timeout(60 * SEC, running.handle.start("job")).await;
        let is_failure = |result| matches!(result, Err(CommandError::StartFailed { .. }));
        assert!(is_failure(started.expect("it is answered")));
        assert!(is_failure(restarted.await.unwrap()));
        assert_eq!(running.state("job"), ChildState::Failed);
        assert_eq!(running.state("b"), ChildState::Running);
        running.end().await.unwrap();
    });
}
