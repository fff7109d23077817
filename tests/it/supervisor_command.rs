//! Commands and questions while a supervisor runs: S7.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use errgroup::{
    BoxError, Child, ChildState, CommandError, Context, Ready, Restart, Strategy, Supervisor,
    SupervisorEvent, SupervisorEventKind,
};
use futures::FutureExt;
use tokio::time::Instant;

use crate::supervisor_support::{End, Stage, builder, idle, paused, run};
use crate::support::{Log, OnDrop, advance, ms, no_leaks};

const SEC: Duration = Duration::from_secs(1);

#[test]
fn s7_stop_start_restart_by_name_touch_no_sibling_and_count_as_no_restart() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll] {
        paused(async {
            let stage = Stage::new();
            let builder = Supervisor::builder().intensity(0, SEC).strategy(strategy);
            let children = [stage.child("a"), stage.child("b"), stage.child("c")];
            let running = run(builder, children).await;
            stage.took();
            let handle = &running.handle;
            for _ in 0..5 {
                handle.stop("b").await.unwrap();
                assert_eq!(running.state("b"), ChildState::Stopped);
                assert_eq!(stage.took(), ["-b"]);
                handle.stop("b").await.unwrap();
                handle.start("b").await.unwrap();
                assert_eq!(running.state("b"), ChildState::Running);
                handle.start("b").await.unwrap();
                handle.restart("b").await.unwrap();
                idle().await;
                assert_eq!(stage.took(), ["+b", "-b", "+b"]);
            }
            assert_eq!(handle.child("b").unwrap().restarts, 0);
            running.end().await.unwrap();
        });
    }
}

#[test]
fn s7_unknown_name_says_so() {
    paused(async {
        let stage = Stage::new();
        let running = run(builder(), [stage.child("a")]).await;
        let handle = &running.handle;
        let unknown = CommandError::UnknownChild("b".to_owned());
        assert_eq!(handle.start("b").await, Err(unknown.clone()));
        assert_eq!(handle.stop("b").await, Err(unknown.clone()));
        assert_eq!(handle.restart("b").await, Err(unknown.clone()));
        assert_eq!(handle.remove("b").await, Err(unknown.clone()));
        assert_eq!(handle.abort("b").await, Err(unknown.clone()));
        assert!(handle.child("b").is_none());
        let text = unknown.to_string();
        assert_eq!(text, r#"the supervisor has no child "b""#);
        running.end().await.unwrap();
    });
}

#[test]
fn s7_added_while_it_runs_then_last_in_order_and_one_of_a_known_name_is_refused() {
    paused(async {
        let stage = Stage::new();
        let running = run(builder(), [stage.child("a")]).await;
        let handle = &running.handle;
        handle.add(stage.child("b")).await.unwrap();
        let refused = handle.add(stage.child("a")).await.unwrap_err();
        assert_eq!(refused, CommandError::DuplicateName("a".to_owned()));
        let refused = handle
            .add(stage.child("s").significant())
            .await
            .unwrap_err();
        assert_eq!(refused, CommandError::SignificantPermanent("s".to_owned()));
        stage.end("b", End::Fail);
        idle().await;
        running.end().await.unwrap();
        assert_eq!(stage.took(), ["+a", "+b", "-b", "+b", "-b", "-a"]);
    });
}

#[test]
fn s7_removed_then_forgotten_and_its_name_is_free() {
    paused(async {
        let stage = Stage::new();
        let running = run(builder(), [stage.child("a"), stage.child("b")]).await;
        let handle = &running.handle;
        handle.remove("a").await.unwrap();
        assert!(handle.child("a").is_none());
        handle.stop("b").await.unwrap();
        handle.remove("b").await.unwrap();
        assert_eq!(handle.children().len(), 0);
        handle.add(stage.child("a")).await.unwrap();
        running.end().await.unwrap();
        assert_eq!(stage.took(), ["+a", "+b", "-a", "-b", "+a", "-a"]);
    });
}

#[test]
fn s7_temporary_ones_that_were_added_are_forgotten_when_they_have_ended() {
    paused(async {
        let stage = Stage::new();
        let running = run(builder(), []).await;
        for end in [End::Finish, End::Fail, End::Panic] {
            let child = stage.child("job").restart(Restart::Temporary);
            running.handle.add(child).await.unwrap();
            idle().await;
            stage.end("job", end);
            idle().await;
            assert_eq!(running.handle.children().len(), 0, "{end:?}");
        }
        let child = stage.child("job").restart(Restart::Temporary);
        running.handle.add(child).await.unwrap();
        running.handle.stop("job").await.unwrap();
        assert_eq!(running.handle.children().len(), 0);
        running.end().await.unwrap();
    });
}

/// A child that is ready if the flag says so, and fails otherwise.
fn flaky(name: &'static str, is_good: &Arc<AtomicUsize>) -> Child {
    let is_good = is_good.clone();
    Child::with_ready(name, move |ctx: Context, ready: Ready| {
        let is_good = is_good.load(Ordering::SeqCst);
        async move {
            if is_good == 0 {
                return Err("no upstream".into());
            }
            ready.notify();
            ctx.done().await;
            Ok(())
        }
    })
}

#[test]
fn s7_start_fails_then_the_command_says_of_what() {
    paused(async {
        let is_good = Arc::new(AtomicUsize::new(1));
        let running = run(builder(), [flaky("a", &is_good)]).await;
        let handle = &running.handle;
        is_good.store(0, Ordering::SeqCst);
        let is_said = |failed: Result<(), CommandError>, name: &str| {
            let Err(CommandError::StartFailed { child, text, .. }) = failed else {
                panic!("{failed:?}");
            };
            assert_eq!((&*child, &*text), (name, "no upstream"));
        };
        is_said(handle.add(flaky("b", &is_good)).await, "b");
        assert!(handle.child("b").is_none(), "it is not kept");
        handle.stop("a").await.unwrap();
        is_said(handle.start("a").await, "a");
        assert_eq!(running.state("a"), ChildState::Failed);
        is_good.store(1, Ordering::SeqCst);
        handle.start("a").await.unwrap();
        assert_eq!(running.state("a"), ChildState::Ready);
        running.end().await.unwrap();
    });
}

#[test]
fn s7_restart_fails_then_the_child_is_restarted_as_ever() {
    paused(async {
        let is_good = Arc::new(AtomicUsize::new(1));
        let child = flaky("a", &is_good).backoff([SEC; 9]);
        let running = run(builder(), [child]).await;
        is_good.store(0, Ordering::SeqCst);
        let error = running.handle.restart("a").await.unwrap_err();
        assert!(error.to_string().contains("no upstream"));
        assert!(matches!(running.state("a"), ChildState::BackingOff { .. }));
        is_good.store(1, Ordering::SeqCst);
        advance(SEC).await;
        idle().await;
        assert_eq!(running.state("a"), ChildState::Ready);
        running.end().await.unwrap();
    });
}

#[test]
fn s7_start_during_a_backoff_cuts_it_and_stop_during_it_leaves_the_child_down() {
    paused(async {
        let stage = Stage::new();
        let child = stage.child("a").backoff([60 * SEC, 60 * SEC]);
        let running = run(builder(), [child]).await;
        let start = Instant::now();
        stage.end("a", End::Fail);
        idle().await;
        running.handle.start("a").await.unwrap();
        idle().await;
        stage.end("a", End::Fail);
        idle().await;
        running.handle.stop("a").await.unwrap();
        assert_eq!(running.state("a"), ChildState::Stopped);
        assert!(start.elapsed() < SEC);
        advance(120 * SEC).await;
        idle().await;
        assert_eq!(stage.took(), ["+a", "-a", "+a", "-a"]);
        running.end().await.unwrap();
    });
}

#[test]
fn s7_commands_during_a_slow_stop() {
    paused(async {
        let log = Log::new();
        let said = log.clone();
        let slow = Child::<BoxError>::new("a", move |ctx: Context| {
            let said = said.clone();
            async move {
                said.push("+");
                let _dropped = OnDrop(|| said.push("-"));
                ctx.done().await;
                tokio::time::sleep(3 * SEC).await;
                Ok(())
            }
        });
        let running = run(builder(), [slow]).await;
        let handle = running.handle.clone();
        let start = Instant::now();
        let (stopped, started) = tokio::join!(handle.stop("a"), handle.start("a"));
        assert_eq!((stopped, started), (Ok(()), Ok(())));
        assert_eq!(start.elapsed().as_secs(), 3);
        idle().await;
        assert_eq!(log.take(), ["+", "-", "+"], "never two at once");

        let (restarted, stopped) = tokio::join!(handle.restart("a"), handle.stop("a"));
        assert_eq!(restarted, Err(CommandError::Stopped("a".to_owned())));
        assert_eq!(stopped, Ok(()));
        assert_eq!(log.take(), ["-"]);

        handle.start("a").await.unwrap();
        let (restarted, removed) = tokio::join!(handle.restart("a"), handle.remove("a"));
        assert_eq!((restarted.is_err(), removed), (true, Ok(())));
        running.end().await.unwrap();
    });
}

#[test]
fn s7_removal_under_way_when_the_supervisor_stops_is_carried_out() {
    paused(async {
        let slow = Child::<BoxError>::new("a", async |ctx: Context| {
            ctx.done().await;
            tokio::time::sleep(3 * SEC).await;
            Ok(())
        });
        let running = run(builder(), [slow]).await;
        let handle = running.handle.clone();
        let removed = tokio::spawn(handle.remove("a"));
        idle().await;
        running.end().await.unwrap();
        assert_eq!(removed.await.unwrap(), Ok(()));
        assert!(handle.children().is_empty());
    });
}

#[test]
fn s7_restart_of_a_child_that_cannot_be_aborted_waits_for_its_end() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let released = Mutex::new(Some(released));
        let log = Log::new();
        let said = log.clone();
        let child = Child::<BoxError>::new("a", move |ctx: Context| {
            let (blocks, said) = (released.lock().unwrap().take(), said.clone());
            async move {
                said.push("+");
                let _dropped = OnDrop(|| said.push("-"));
                match blocks {
                    Some(released) => released.recv().unwrap(),
                    None => drop(ctx.done().await),
                }
                Ok(())
            }
        });
        let running = run(builder(), [child.grace(Duration::ZERO)]).await;
        while log.take().is_empty() {
            tokio::task::yield_now().await;
        }
        let mut restart = Box::pin(running.handle.restart("a"));
        assert!((&mut restart).now_or_never().is_none());
        // It is aborted, which it does not notice. No second one is started beside it.
        tokio::time::sleep(ms(1200)).await;
        assert!((&mut restart).now_or_never().is_none());
        assert_eq!(log.take(), [""; 0]);
        release.send(()).unwrap();
        restart.await.unwrap();
        let mut said = Vec::new();
        while said.len() < 2 {
            said.extend(log.take());
            tokio::task::yield_now().await;
        }
        assert_eq!(said, ["-", "+"]);
        running.end().await.unwrap();
    });
}

#[test]
fn s7_commands_before_the_run_wait_and_after_it_are_refused() {
    paused(async {
        let stage = Stage::new();
        let (ctx, cancel) = Context::background().with_cancel();
        let supervisor = builder().context(&ctx).build().child(stage.child("a"));
        let handle = supervisor.handle();
        let mut stop = Box::pin(handle.stop("a"));
        assert!((&mut stop).now_or_never().is_none());
        let run = tokio::spawn(supervisor.run());
        stop.await.unwrap();
        cancel.cancel();
        run.await.unwrap().unwrap();
        let refused = handle.start("a").await.unwrap_err();
        assert_eq!(refused, CommandError::SupervisorStopping);
        assert_eq!(handle.child("a").unwrap().state, ChildState::Stopped);

        let supervisor: Supervisor = Supervisor::builder().build();
        let handle = supervisor.handle();
        let mut start = Box::pin(handle.start("a"));
        assert!((&mut start).now_or_never().is_none());
        drop(supervisor);
        assert_eq!(start.await, Err(CommandError::SupervisorStopping));
        no_leaks(&ctx);
    });
}

#[test]
fn s7_stopping_supervisor_refuses_to_start_and_answers_who_waits_for_a_stop() {
    paused(async {
        let stage = Stage::new();
        let ignores = Child::new("b", |_ctx| pending()).grace(5 * SEC);
        let running = run(builder(), [stage.child("a"), ignores]).await;
        let handle = running.handle.clone();
        let mut stopping = Box::pin(handle.stop("b"));
        assert!((&mut stopping).now_or_never().is_none());
        idle().await;
        running.stop.cancel();
        idle().await;
        for refused in [
            handle.start("a").await,
            handle.restart("a").await,
            handle.add(stage.child("c")).await,
        ] {
            assert_eq!(refused, Err(CommandError::SupervisorStopping));
        }
        stopping.await.unwrap();
        running.run.await.unwrap().unwrap();
    });
}

#[test]
fn events_tell_every_decision_and_a_callback_that_panics_stops_nothing() {
    paused(async {
        let log = Log::new();
        let told = log.clone();
        let stage = Stage::new();
        let builder = builder()
            .name("api")
            .on_event(move |event: &SupervisorEvent| {
                assert_eq!(event.supervisor(), Some("api"));
                told.push((event.child().map(str::to_owned), event.kind().clone()));
                panic!("a callback that panics");
            });
        let child = stage.child("a").backoff([SEC]);
        let running = run(builder, [child]).await;
        stage.end("a", End::Fail);
        idle().await;
        advance(SEC).await;
        idle().await;
        running
            .handle
            .add(Child::new("b", |_ctx| pending()))
            .await
            .unwrap();
        running.handle.remove("b").await.unwrap();
        running.end().await.unwrap();
        use SupervisorEventKind::*;
        let (a, b) = (|| Some("a".to_owned()), || Some("b".to_owned()));
        let expected = [
            (a(), Starting),
            (a(), Failed("a failed".to_owned())),
            (a(), BackingOff(SEC)),
            (a(), Starting),
            (b(), Starting),
            (b(), Stopping(Duration::ZERO)),
            (b(), Aborting),
            (b(), Stopped),
            (b(), Removed),
            (None, ShuttingDown),
            (a(), Stopping(Duration::ZERO)),
            (a(), Stopped),
        ];
        assert_eq!(log.take(), expected);
    });
}

#[test]
fn status_is_a_line_for_an_operator() {
    paused(async {
        let stage = Stage::new();
        let child = stage.child("a").backoff([90 * SEC]);
        let running = run(builder(), [child, stage.child("b")]).await;
        advance(5 * SEC).await;
        stage.end("a", End::Fail);
        idle().await;
        advance(2 * SEC).await;
        let text = running.handle.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            r#""a" backing off for 88s more since 2s, 0 restarts, 2s ago: a failed"#
        );
        assert_eq!(lines[1], r#""b" running since 7s, 0 restarts"#);
        running.end().await.unwrap();
    });
}

#[test]
fn s7_start_of_a_child_whose_start_is_failing_is_answered() {
    paused(async {
        let incarnations = Arc::new(AtomicUsize::new(0));
        let child = Child::with_ready("a", move |ctx: Context, ready: Ready| {
            let incarnation = incarnations.fetch_add(1, Ordering::SeqCst);
            async move {
                match incarnation {
                    1 => drop(ready),
                    _ => ready.notify(),
                }
                ctx.done().await;
                tokio::time::sleep(SEC).await;
                Ok(())
            }
        });
        let running = run(builder(), [child]).await;
        running.handle.stop("a").await.unwrap();
        let handle = running.handle.clone();
        let first = tokio::spawn(async move { handle.start("a").await });
        idle().await;
        let second = tokio::time::timeout(60 * SEC, running.handle.start("a")).await;
        assert!(first.await.unwrap().is_err());
        assert!(second.expect("it is answered").is_err());
        running.end().await.unwrap();
    });
}
