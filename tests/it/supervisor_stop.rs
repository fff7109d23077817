//! How children are started and stopped: S1, S5, S6, S8.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use errgroup::{
    AutoShutdown, BoxError, Child, ChildState, Context, Group, Ready, Reason, Restart, Strategy,
    Supervisor, SupervisorErrorKind, SupervisorEvent, SupervisorEventKind,
};
use tokio::time::Instant;

use crate::supervisor_support::{End, Stage, builder, idle, paused, run};
use crate::support::{Log, OnDrop, advance, ms, no_leaks, reason};

const SEC: Duration = Duration::from_secs(1);

/// A child that logs, and is ready when `log` says so after `after`.
fn slow(log: &Log<String>, name: &'static str, after: Duration) -> Child {
    let log = log.clone();
    Child::with_ready(name, move |ctx: Context, ready: Ready| {
        let log = log.clone();
        async move {
            log.push(format!("+{name}"));
            ctx.sleep(after).await?;
            log.push(format!("!{name}"));
            ready.notify();
            ctx.done().await;
            log.push(format!("-{name}"));
            Ok(())
        }
    })
}

#[test]
fn s1_readiness_holds_up_the_next() {
    paused(async {
        let stage = Stage::new();
        let children = [
            slow(&stage.log, "a", SEC),
            slow(&stage.log, "b", SEC),
            stage.child("c"),
        ];
        let running = run(builder(), children).await;
        assert_eq!(stage.took(), ["+a"]);
        let states = |names: [&str; 3]| names.map(|name| running.state(name));
        let names = ["a", "b", "c"];
        use ChildState::{Ready, Running, Starting};
        assert_eq!(states(names), [Starting, Starting, Starting]);
        assert!(!running.handle.is_all_up());
        advance(SEC).await;
        idle().await;
        assert_eq!(stage.took(), ["!a", "+b"]);
        assert_eq!(states(names), [Ready, Starting, Starting]);
        advance(SEC).await;
        idle().await;
        assert_eq!(stage.took(), ["!b", "+c"]);
        assert_eq!(states(names), [Ready, Ready, Running]);
        assert!(running.handle.is_all_up());
        running.end().await.unwrap();
        assert_eq!(stage.took(), ["-c", "-b", "-a"]);
    });
}

/// The ways to fail before readiness, and what the supervisor's error says of it.
fn unready() -> Vec<(&'static str, Child)> {
    let error = |_ctx, _ready: Ready| async { Err::<(), BoxError>("no port".into()) };
    let panics = |_ctx, _ready: Ready| async { panic!("no brain") };
    let ends = |_ctx, _ready: Ready| async { Ok(()) };
    let drops = |ctx: Context, ready: Ready| async move {
        drop(ready);
        ctx.done().await;
        Ok(())
    };
    let too_late = |ctx: Context, ready: Ready| async move {
        let _ready = ready;
        ctx.done().await;
        Ok(())
    };
    vec![
        ("no port", Child::with_ready("b", error)),
        ("panicked: no brain", Child::with_ready("b", panics)),
        ("without being ready", Child::with_ready("b", ends)),
        ("without being ready", Child::with_ready("b", drops)),
        (
            "not ready within 7s",
            Child::with_ready("b", too_late).ready_within(7 * SEC),
        ),
    ]
}

#[test]
fn s1_start_fails_then_what_had_started_is_stopped_and_the_rest_never_starts() {
    for (text, child) in unready() {
        paused(async {
            let stage = Stage::new();
            let children = [stage.child("a"), child, stage.child("c")];
            let running = run(builder(), children).await;
            let error = running.run.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), SupervisorErrorKind::StartFailed);
            assert_eq!(error.child(), "b");
            assert!(error.to_string().contains(text), "{error}");
            assert_eq!(stage.took(), ["+a", "-a"], "{text}");
            assert_eq!(running.handle.child("b").unwrap().state, ChildState::Failed);
        });
    }
}

#[test]
fn s1_not_ready_in_a_restart_is_a_failure_like_any_other() {
    paused(async {
        let stage = Stage::new();
        let tries = Arc::new(Mutex::new(0));
        let tried = tries.clone();
        let child = Child::with_ready("a", move |ctx: Context, ready: Ready| {
            let n = {
                let mut tried = tried.lock().unwrap();
                *tried += 1;
                *tried
            };
            async move {
                if n == 1 {
                    ready.notify();
                    return Err(BoxError::from("once"));
                }
                match n {
                    5 => ready.notify(),
                    _ => drop(ready),
                }
                ctx.done().await;
                Ok(())
            }
        });
        let builder = builder().strategy(Strategy::RestForOne);
        let running = run(builder, [child, stage.child("b")]).await;
        assert_eq!(*tries.lock().unwrap(), 5);
        assert_eq!(running.state("a"), ChildState::Ready);
        let status = running.handle.child("a").unwrap();
        assert_eq!((status.restarts, status.failures.len()), (4, 4));
        assert_eq!(stage.took().last().unwrap(), "+b");
        running.end().await.unwrap();
    });
}

/// A child that logs each step of its stop with the time since `start`.
fn steps(log: &Log<(String, Duration)>, name: &'static str, works: Duration) -> Child {
    let log = log.clone();
    let start = Instant::now();
    Child::new(name, move |ctx: Context| {
        let log = log.clone();
        async move {
            let say = |what: &str| log.push((format!("{name} {what}"), start.elapsed()));
            let _dropped = OnDrop(|| say("gone"));
            let why = ctx.stopping_done().await;
            say("stopping");
            assert!(matches!(why.reason(), Reason::Stopping | Reason::Stopped));
            assert_eq!(ctx.done().await.reason(), Reason::Stopped);
            say("ended");
            tokio::time::sleep(works).await;
            say("returns");
            Ok(())
        }
    })
}

#[test]
fn s5_stopped_in_reverse_order_one_after_the_other_with_drain_end_grace_and_abort() {
    paused(async {
        let log = Log::new();
        let children = [
            steps(&log, "a", SEC).grace(10 * SEC),
            steps(&log, "b", 100 * SEC).drain(SEC).grace(2 * SEC),
            steps(&log, "c", Duration::ZERO).drain(5 * SEC),
        ];
        let running = run(builder(), children).await;
        let handle = running.handle.clone();
        running.end().await.unwrap();
        let expected = [
            ("c stopping", 0),
            ("c ended", 5),
            ("c returns", 5),
            ("c gone", 5),
            ("b stopping", 5),
            ("b ended", 6),
            ("b gone", 8),
            ("a stopping", 8),
            ("a ended", 8),
            ("a returns", 9),
            ("a gone", 9),
        ];
        let log = log.take();
        assert_eq!(log.len(), expected.len(), "{log:?}");
        for ((what, at), (expected, seconds)) in log.iter().zip(expected) {
            assert_eq!(what, expected);
            // A timer of tokio's may be a millisecond late.
            assert!(at.abs_diff(seconds * SEC) < ms(20), "{what} at {at:?}");
        }
        let stragglers = handle.stragglers();
        assert_eq!(stragglers.len(), 1);
        assert_eq!(stragglers[0].name.as_deref(), Some("b"));
        assert!(stragglers[0].was_aborted && stragglers[0].age >= 8 * SEC);
    });
}

#[test]
fn s5_context_that_begins_to_stop_and_then_ends_cuts_the_drains() {
    paused(async {
        let log = Log::new();
        let (ctx, stop) = Context::background().with_stop();
        let supervisor = builder()
            .context(&ctx)
            .build()
            .child(steps(&log, "a", Duration::ZERO).drain(60 * SEC))
            .child(steps(&log, "b", Duration::ZERO).drain(60 * SEC));
        let run = tokio::spawn(supervisor.run());
        idle().await;
        stop.stop(10 * SEC);
        run.await.unwrap().unwrap();
        let log: Vec<_> = log.take();
        let at = |what: &str| {
            log.iter()
                .find(|(said, _)| said == what)
                .unwrap()
                .1
                .as_secs()
        };
        assert_eq!((at("b stopping"), at("b gone")), (0, 10));
        assert_eq!((at("a stopping"), at("a gone")), (10, 10));
    });
}

#[test]
fn s5_child_that_ignores_its_stop_is_aborted_and_one_that_cannot_be_is_left_behind() {
    paused(async {
        let stage = Stage::new();
        let ignores = Child::new("ignores", |_ctx| pending());
        let running = run(builder(), [stage.child("a"), ignores.grace(3 * SEC)]).await;
        let (handle, start) = (running.handle.clone(), Instant::now());
        running.end().await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 3);
        assert_eq!(handle.stragglers()[0].name.as_deref(), Some("ignores"));
        assert_eq!(stage.took(), ["+a", "-a"]);
    });
    // One that blocks its thread, on a runtime with another.
    two_workers().block_on(async {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (started, mut has_started) = tokio::sync::mpsc::unbounded_channel();
        let blocks = blocking(released, started);
        let running = run(builder(), [blocks()]).await;
        has_started.recv().await.unwrap();
        let handle = running.handle.clone();
        let ended = tokio::time::timeout(20 * SEC, running.end()).await;
        drop(release);
        ended.expect("it waits for nobody").unwrap();
        assert!(!handle.stragglers()[0].was_aborted);
    });
}

#[test]
fn s5_stop_during_a_start_during_a_backoff_and_during_a_restart_of_all() {
    paused(async {
        let stage = Stage::new();
        let children = [
            stage.child("a"),
            slow(&stage.log, "b", 60 * SEC),
            stage.child("c"),
        ];
        let running = run(builder(), children).await;
        running.end().await.unwrap();
        assert_eq!(stage.took(), ["+a", "+b", "-a"], "c never starts");
    });
    paused(async {
        let stage = Stage::new();
        let children = [stage.child("a").backoff([60 * SEC]), stage.child("b")];
        let running = run(builder(), children).await;
        stage.end("a", End::Fail);
        idle().await;
        let start = Instant::now();
        running.end().await.unwrap();
        assert!(start.elapsed() < SEC, "it does not wait for the backoff");
        assert_eq!(stage.took(), ["+a", "+b", "-a", "-b"]);
    });
    paused(async {
        let log = Log::new();
        let stage = Stage::new();
        let children = [
            stage.child("a"),
            steps(&log, "b", Duration::ZERO).drain(10 * SEC),
            stage.child("c"),
        ];
        let running = run(builder().strategy(Strategy::OneForAll), children).await;
        stage.end("c", End::Fail);
        idle().await;
        assert_eq!(running.state("b"), ChildState::Stopping);
        assert_eq!(running.state("a"), ChildState::Stopping);
        assert_eq!(running.state("c"), ChildState::Starting);
        running.end().await.unwrap();
        assert_eq!(stage.took(), ["+a", "+c", "-c", "-a"], "none starts again");
    });
}

#[test]
fn s5_contexts_of_children_have_the_values_and_not_the_end_of_the_supervisors() {
    paused(async {
        let (parent, cancel) = Context::background().with_cancel();
        let ctx = parent.with_value(17_u32);
        let log = Log::new();
        let seen = log.clone();
        let child = Child::<BoxError>::new("a", move |ctx: Context| {
            let seen = seen.clone();
            async move {
                seen.push(ctx.value::<u32>().copied());
                ctx.stopping_done().await;
                assert!(!ctx.is_done(), "it has a drain");
                ctx.done().await;
                Ok(())
            }
        });
        let supervisor = builder().context(&ctx).build().child(child.drain(SEC));
        let run = tokio::spawn(supervisor.run());
        idle().await;
        cancel.cancel();
        run.await.unwrap().unwrap();
        assert_eq!(log.take(), [Some(17)]);
        no_leaks(&parent);
    });
}

#[test]
fn s5_run_dropped_below_a_group_then_the_group_waits_for_the_children() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let released = Mutex::new(Some(released));
        let (started, mut has_started) = tokio::sync::mpsc::unbounded_channel();
        let log = Log::new();
        let said = log.clone();
        // It does not come to an await before it is released, so that it cannot be dropped either.
        let blocks = Child::<BoxError>::new("a", move |_ctx| {
            let (released, started) = (released.lock().unwrap().take().unwrap(), started.clone());
            let said = said.clone();
            async move {
                let _dropped = OnDrop(|| said.push("gone"));
                started.send(()).unwrap();
                released.recv().unwrap();
                pending().await
            }
        });
        let mut group: Group = Group::new();
        let supervisor = builder().context(group.context()).build().child(blocks);
        // Here, and not in a task, which might wait for the thread that is blocked.
        tokio::select! {
            ran = supervisor.run() => ran.unwrap(),
            _ = has_started.recv() => {}
        }
        assert_eq!(group.len(), 1, "the child has become the group's");
        release.send(()).unwrap();
        group.wait().await.unwrap();
        assert_eq!(log.take(), ["gone"]);
    });
}

#[test]
fn s6_innermost_of_three_exceeds_its_intensity_then_its_parent_restarts_it_until_that_fails_too() {
    paused(async {
        let log = Log::new();
        let said = log.clone();
        let told = log.clone();
        let leaf = move |name: &'static str| {
            let said = said.clone();
            Child::<BoxError>::new(name, move |_ctx| {
                said.push(name.to_owned());
                async move { Err(format!("{name} is broken").into()) }
            })
        };
        let inner = Child::supervisor("inner", move |_ctx| {
            Supervisor::builder()
                .name("inner")
                .intensity(1, SEC)
                .build()
                .child(leaf("leaf"))
        });
        let inner = Mutex::new(Some(inner));
        let middle = Child::supervisor("middle", move |_ctx| {
            let inner = inner.lock().unwrap().take().expect("it is started once");
            Supervisor::builder()
                .name("middle")
                .intensity(2, SEC)
                .build()
                .child(inner)
        })
        .restart(Restart::Temporary)
        .significant();
        let supervisor = Supervisor::<BoxError>::builder()
            .name("outer")
            .on_event(move |event: &SupervisorEvent| told.push(event.to_string()))
            .build()
            .child(middle);
        let error = supervisor.run().await.unwrap_err();
        let text = error.to_string();
        let parts = [
            r#"supervisor "outer" stopped: child "middle""#,
            r#"supervisor "middle" gave up: child "inner""#,
            r#"supervisor "inner" gave up: child "leaf""#,
            "leaf is broken",
        ];
        let places = parts.map(|part| text.find(part).expect(&text));
        assert!(places.is_sorted(), "{text}");
        let log = log.take();
        let starts = log.iter().filter(|line| *line == "leaf").count();
        assert_eq!(starts, 2 * 3, "two starts in each of three runs of inner");
        assert_eq!(log.last().unwrap(), r#"supervisor "outer": stopping"#);
    });
}

#[test]
fn s6_nested_supervisors_stop_in_order_within_the_order_and_keep_their_drains() {
    paused(async {
        let stage = Stage::new();
        let inner = stage.clone();
        let tree = Child::supervisor("tree", move |_ctx| {
            builder()
                .build()
                .child(inner.child("b"))
                .child(slow(&inner.log, "c", Duration::ZERO).drain(10 * SEC))
        });
        let running = run(builder(), [stage.child("a"), tree, stage.child("d")]).await;
        stage.took();
        let start = Instant::now();
        running.end().await.unwrap();
        assert_eq!(stage.took(), ["-d", "-c", "-b", "-a"]);
        assert_eq!(start.elapsed().as_secs(), 10);
    });
}

#[test]
fn s8_significant_child_ends_by_itself_then_all_are_stopped_in_order() {
    for (restart, end, is_error) in [
        (Restart::Transient, End::Finish, false),
        (Restart::Temporary, End::Finish, false),
        (Restart::Temporary, End::Fail, true),
    ] {
        paused(async {
            let stage = Stage::new();
            let children = [
                stage.child("a"),
                stage.child("b").restart(restart).significant(),
                stage.child("c"),
            ];
            let running = run(builder(), children).await;
            stage.took();
            stage.end("b", end);
            let ran = running.run.await.unwrap();
            assert_eq!(stage.took(), ["-b", "-c", "-a"]);
            assert_eq!(ran.is_err(), is_error);
            if let Err(error) = ran {
                assert_eq!(error.kind(), SupervisorErrorKind::SignificantFailed);
                assert_eq!(error.child(), "b");
            }
        });
    }
}

#[test]
fn s8_significant_child_stopped_by_name_or_with_siblings_stops_nothing() {
    paused(async {
        let stage = Stage::new();
        let significant = stage.child("b").restart(Restart::Transient).significant();
        let builder = builder().strategy(Strategy::OneForAll);
        let running = run(builder, [stage.child("a"), significant]).await;
        running.handle.stop("b").await.unwrap();
        running.handle.start("b").await.unwrap();
        stage.end("a", End::Fail);
        idle().await;
        stage.end("b", End::Fail); // restarted
        idle().await;
        assert!(!running.run.is_finished());
        assert_eq!(running.state("b"), ChildState::Running);
        running.end().await.unwrap();
    });
}

#[test]
fn s8_all_significant_then_the_last_one_stops_the_supervisor() {
    paused(async {
        let stage = Stage::new();
        let significant = |name| stage.child(name).restart(Restart::Transient).significant();
        let children = [significant("a"), significant("b"), stage.child("c")];
        let builder = builder().auto_shutdown(AutoShutdown::AllSignificant);
        let running = run(builder, children).await;
        stage.end("b", End::Finish);
        idle().await;
        assert!(!running.run.is_finished());
        stage.took();
        stage.end("a", End::Finish);
        running.run.await.unwrap().unwrap();
        assert_eq!(stage.took(), ["-a", "-c"]);
    });
}

#[test]
fn s8_significant_and_permanent_is_refused_before_anything_starts() {
    paused(async {
        let stage = Stage::new();
        let running = run(
            builder(),
            [stage.child("a"), stage.child("b").significant()],
        )
        .await;
        let error = running.run.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), SupervisorErrorKind::SignificantPermanent);
        assert!(error.to_string().contains(r#""b""#));
        assert_eq!(stage.took(), [""; 0]);
    });
}

#[test]
fn two_of_one_name_are_refused_before_anything_starts() {
    paused(async {
        let stage = Stage::new();
        let children = [stage.child("a"), stage.child("b"), stage.child("a")];
        let running = run(builder(), children).await;
        let error = running.run.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), SupervisorErrorKind::DuplicateName);
        assert!(
            error
                .to_string()
                .contains(r#"two children have the name "a""#)
        );
        assert_eq!(stage.took(), [""; 0]);
    });
}

#[test]
fn all_ended_then_it_goes_on_as_in_otp() {
    paused(async {
        let stage = Stage::new();
        let running = run(builder(), [stage.child("a").restart(Restart::Transient)]).await;
        stage.end("a", End::Finish);
        idle().await;
        assert!(!running.run.is_finished());
        running.end().await.unwrap();
    });
}

#[test]
fn context_of_a_child_that_has_ended_ends_too() {
    paused(async {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = kept.clone();
        let child = Child::<BoxError>::new("a", move |ctx: Context| {
            keep.lock().unwrap().push(ctx);
            async { Ok(()) }
        });
        let running = run(builder(), [child.restart(Restart::Transient)]).await;
        assert_eq!(
            reason(&kept.lock().unwrap()[0]),
            Some(Reason::HandleDropped)
        );
        running.end().await.unwrap();
    });
}

#[test]
fn error_goes_into_a_box_and_into_an_enum_with_question_mark() {
    #[derive(Debug, thiserror::Error)]
    enum MyError {
        #[error(transparent)]
        Context(#[from] errgroup::ContextError),
        #[error(transparent)]
        Supervisor(#[from] errgroup::SupervisorError<MyError>),
        #[error("mine")]
        Mine,
    }
    async fn broken(_ctx: Context) -> Result<(), MyError> {
        Err(MyError::Mine)
    }
    paused(async {
        let mut group: Group<MyError> = Group::new();
        group.spawn_with(async |ctx| {
            let supervisor = Supervisor::builder().context(&ctx).intensity(1, SEC);
            supervisor
                .build()
                .child(Child::new("a", broken))
                .run()
                .await?;
            Ok(())
        });
        let error = group.wait().await.unwrap_err();
        let MyError::Supervisor(error) = error else {
            panic!("{error}");
        };
        assert!(matches!(error.error(), Some(MyError::Mine)));

        let mut group: Group = Group::new();
        group.spawn_with(async |ctx| {
            let supervisor = Supervisor::<BoxError>::builder()
                .context(&ctx)
                .intensity(1, SEC);
            let child = Child::new("a", async |_ctx| Err(std::io::Error::other("disk").into()));
            supervisor.build().child(child).run().await?;
            Ok(())
        });
        let error = group.wait().await.unwrap_err();
        assert_eq!(error.source().unwrap().to_string(), "disk");
    });
}

#[test]
fn context_that_is_stopping_or_over_at_the_start_then_nothing_starts() {
    paused(async {
        let (over, cancel) = Context::background().with_cancel();
        cancel.cancel();
        let (stopping, stop) = Context::background().with_stop();
        stop.stop(SEC);
        for ctx in [over, stopping] {
            let stage = Stage::new();
            let supervisor = builder().context(&ctx).build().child(stage.child("a"));
            supervisor.run().await.unwrap();
            assert_eq!(stage.took(), [""; 0]);
        }
    });
}

/// A child that blocks its thread until it is released.
fn blocking(
    released: std::sync::mpsc::Receiver<()>,
    started: tokio::sync::mpsc::UnboundedSender<()>,
) -> impl Fn() -> Child + Send + Sync + 'static {
    let released = Arc::new(Mutex::new(Some(released)));
    move || {
        let (released, started) = (released.clone(), started.clone());
        Child::new("blocks", move |_ctx| {
            let (released, started) = (released.lock().unwrap().take(), started.clone());
            async move {
                started.send(()).unwrap();
                released.expect("it starts once").recv().unwrap_err();
                Ok(())
            }
        })
        .grace(ms(10))
    }
}

fn two_workers() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn s5_inner_supervisor_leaves_a_child_behind_then_the_outer_returns_too() {
    two_workers().block_on(async {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (started, mut has_started) = tokio::sync::mpsc::unbounded_channel();
        let blocks = blocking(released, started);
        let tree = Child::supervisor("tree", move |_ctx| {
            Supervisor::<BoxError>::builder().build().child(blocks())
        });
        let running = run(builder(), [tree]).await;
        has_started.recv().await.unwrap();
        let ended = tokio::time::timeout(20 * SEC, running.end()).await;
        drop(release);
        ended.expect("it waits for nobody").unwrap();
    });
}

#[test]
fn s5_child_that_was_aborted_before_the_stop_and_goes_on_is_listed() {
    two_workers().block_on(async {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (started, mut has_started) = tokio::sync::mpsc::unbounded_channel();
        let blocks = blocking(released, started);
        let (events, mut told) = tokio::sync::mpsc::unbounded_channel();
        let builder = builder().on_event(move |event: &SupervisorEvent| {
            events.send(event.kind().clone()).unwrap();
        });
        let running = run(builder, [blocks()]).await;
        has_started.recv().await.unwrap();
        let handle = running.handle.clone();
        let stopping = tokio::spawn(handle.stop("blocks"));
        while told.recv().await.expect("it is aborted") != SupervisorEventKind::Aborting {}
        assert!(!stopping.is_finished());
        running.end().await.unwrap();
        let stragglers = handle.stragglers();
        drop(release);
        assert_eq!(stragglers.len(), 1);
        assert!(!stragglers[0].was_aborted);
    });
}

#[test]
fn handle_asked_before_the_run_and_after_it_was_dropped_then_not_all_are_up() {
    paused(async {
        let stage = Stage::new();
        let supervisor = Supervisor::builder().build().child(stage.child("a"));
        let handle = supervisor.handle();
        assert!(!handle.is_all_up());
        let run = tokio::spawn(supervisor.run());
        idle().await;
        assert!(handle.is_all_up());
        run.abort();
        idle().await;
        assert!(!handle.is_all_up());
    });
}

#[test]
fn handle_asked_when_a_child_has_finished_then_not_all_are_up_until_it_is_started_or_removed() {
    for restart in [Restart::Transient, Restart::Temporary] {
        paused(async {
            let stage = Stage::new();
            let children = [stage.child("a"), stage.child("job").restart(restart)];
            let running = run(builder(), children).await;
            for is_removed in [false, true] {
                assert!(running.handle.is_all_up());
                stage.end("job", End::Finish);
                idle().await;
                assert!(!running.handle.is_all_up());
                match is_removed {
                    true => running.handle.remove("job").await.unwrap(),
                    false => running.handle.start("job").await.unwrap(),
                }
                idle().await;
            }
            assert!(running.handle.is_all_up());
            running.end().await.unwrap();
        });
    }
}

#[test]
fn supervisors_below_a_context_are_in_its_tree_one_below_the_other() {
    paused(async {
        let _alone = crate::snapshot::alone().await;
        let (ctx, stop) = Context::background().with_cancel();
        let leaf = || Child::new("twig", |_ctx| pending());
        let inner = move || {
            Supervisor::<BoxError>::builder()
                .name("inner supervisor")
                .build()
        };
        let tree = Child::supervisor("branch", move |_ctx| inner().child(leaf()));
        let builder = Supervisor::<BoxError>::builder().context(&ctx);
        let outer = builder.name("outer supervisor").build().child(tree);
        let run = tokio::spawn(outer.run());
        idle().await;
        for (drawn, is_all) in [(ctx.tree(), false), (errgroup::dump_all(), true)] {
            let text = drawn.to_string();
            let lines = text
                .lines()
                .map(|line| line.trim_start_matches([' ', '│', '├', '└', '─']));
            let ours = [
                "group \"outer",
                "task \"branch\"",
                "group \"inner",
                "task \"twig\"",
            ];
            let mut found = lines.filter(|line| ours.iter().any(|start| line.starts_with(start)));
            for start in ours {
                assert!(
                    found.next().is_some_and(|line| line.starts_with(start)),
                    "{text}"
                );
            }
            assert!(is_all || found.next().is_none(), "{text}");
        }
        stop.cancel();
        run.await.unwrap().unwrap();
        assert_eq!(ctx.tree().tasks().count(), 0);
        no_leaks(&ctx);
    });
}
