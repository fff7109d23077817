//! Who is restarted, and when: S2, S3, S4.

use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use errgroup::{
    Backoff, BoxError, Child, ChildFailureKind, ChildState, Restart, Strategy, Supervisor,
    SupervisorErrorKind,
};
use tokio::time::Instant;

use crate::supervisor_support::{End, Running, Stage, builder, idle, paused, run};
use crate::support::{advance, ms};

const STRATEGIES: [Strategy; 3] = [
    Strategy::OneForOne,
    Strategy::OneForAll,
    Strategy::RestForOne,
];
const RESTARTS: [Restart; 3] = [Restart::Permanent, Restart::Transient, Restart::Temporary];

/// How the child in the middle ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Ok,
    Error,
    Panic,
    Aborted,
    EndedByTheContext,
}

const HOWS: [How; 5] = [
    How::Ok,
    How::Error,
    How::Panic,
    How::Aborted,
    How::EndedByTheContext,
];

async fn end(how: How, stage: &Stage, running: &Running) {
    match how {
        How::Ok => stage.end("b", End::Finish),
        How::Error => stage.end("b", End::Fail),
        How::Panic => stage.end("b", End::Panic),
        How::Aborted => running.handle.abort("b").await.unwrap(),
        How::EndedByTheContext => running.handle.stop("b").await.unwrap(),
    }
    idle().await;
}

/// What is logged when `b` of `a`, `b`, `c` ends, in OTP's terms.
fn expected(strategy: Strategy, restart: Restart, how: How) -> Vec<&'static str> {
    let is_restarted = match restart {
        Restart::Permanent => how != How::EndedByTheContext,
        Restart::Transient => !matches!(how, How::Ok | How::EndedByTheContext),
        _ => false,
    };
    match strategy {
        _ if !is_restarted => vec!["-b"],
        Strategy::OneForOne => vec!["-b", "+b"],
        Strategy::OneForAll => vec!["-b", "-c", "-a", "+a", "+b", "+c"],
        Strategy::RestForOne => vec!["-b", "-c", "+b", "+c"],
        _ => unreachable!(),
    }
}

#[test]
fn s2_every_strategy_with_every_restart_and_every_end() {
    for strategy in STRATEGIES {
        for restart in RESTARTS {
            for how in HOWS {
                let cell = format!("{strategy:?} {restart:?} {how:?}");
                paused(async {
                    let stage = Stage::new();
                    let children = [
                        stage.child("a"),
                        stage.child("b").restart(restart),
                        stage.child("c"),
                    ];
                    let running = run(builder().strategy(strategy), children).await;
                    assert_eq!(stage.took(), ["+a", "+b", "+c"], "{cell}");
                    end(how, &stage, &running).await;
                    let log = expected(strategy, restart, how);
                    assert_eq!(stage.took(), log, "{cell}");

                    let status = running.handle.child("b").unwrap();
                    let is_restarted = log.contains(&"+b");
                    let state = match how {
                        _ if is_restarted => ChildState::Running,
                        How::Ok | How::EndedByTheContext => ChildState::Stopped,
                        _ => ChildState::Failed,
                    };
                    assert_eq!(status.state, state, "{cell}");
                    assert_eq!(status.restarts, u64::from(is_restarted), "{cell}");
                    let failure = status.failures.last();
                    let kind = match how {
                        How::Ok | How::EndedByTheContext => None,
                        How::Error => Some(ChildFailureKind::Error),
                        How::Panic => Some(ChildFailureKind::Panic),
                        How::Aborted => Some(ChildFailureKind::Aborted),
                    };
                    assert_eq!(failure.map(|failure| failure.kind), kind, "{cell}");
                    running.end().await.unwrap();
                });
            }
        }
    }
}

#[test]
fn s2_temporary_siblings_are_stopped_by_a_restart_of_all_and_not_started_again() {
    for (strategy, expected) in [
        (
            Strategy::OneForAll,
            vec!["-b", "-d", "-c", "-a", "+a", "+b", "+d"],
        ),
        (Strategy::RestForOne, vec!["-b", "-d", "-c", "+b", "+d"]),
    ] {
        paused(async {
            let stage = Stage::new();
            let children = [
                stage.child("a"),
                stage.child("b"),
                stage.child("c").restart(Restart::Temporary),
                stage.child("d").restart(Restart::Transient),
            ];
            let running = run(builder().strategy(strategy), children).await;
            stage.took();
            stage.end("b", End::Fail);
            idle().await;
            assert_eq!(stage.took(), expected);
            assert_eq!(running.state("c"), ChildState::Stopped);
            running.end().await.unwrap();
        });
    }
}

#[test]
fn s2_siblings_that_had_ended_or_were_stopped_are_started_by_a_restart_of_all_as_in_otp() {
    paused(async {
        let stage = Stage::new();
        let children = [
            stage.child("a").restart(Restart::Transient),
            stage.child("b"),
            stage.child("c"),
        ];
        let running = run(builder().strategy(Strategy::OneForAll), children).await;
        stage.end("a", End::Finish);
        running.handle.stop("c").await.unwrap();
        stage.took();
        stage.end("b", End::Fail);
        idle().await;
        assert_eq!(stage.took(), ["-b", "+a", "+b", "+c"]);
        running.end().await.unwrap();
    });
}

/// Fails the child so often, this long after each other.
async fn fail(stage: &Stage, times: usize, apart: Duration) {
    for _ in 0..times {
        stage.end("a", End::Fail);
        idle().await;
        advance(apart).await;
    }
}

#[test]
fn s3_below_and_at_the_limit_it_goes_on_and_above_it_fails_with_child_count_and_error() {
    paused(async {
        let stage = Stage::new();
        let builder = || {
            Supervisor::builder()
                .name("api")
                .intensity(3, Duration::from_secs(60))
        };
        let running = run(builder(), [stage.child("z"), stage.child("a")]).await;
        fail(&stage, 3, Duration::from_secs(1)).await;
        assert_eq!(running.state("a"), ChildState::Running);
        assert_eq!(running.handle.child("a").unwrap().restarts, 3);
        stage.took();

        fail(&stage, 1, Duration::ZERO).await;
        let place = Location::caller().file();
        let error = running.run.await.unwrap().unwrap_err();
        assert_eq!(stage.took(), ["-a", "-z"], "all are stopped in order");
        assert_eq!(error.child(), "a");
        assert_eq!(error.error().unwrap().to_string(), "a failed");
        let SupervisorErrorKind::IntensityExceeded {
            restarts,
            limit,
            period,
            ..
        } = error.kind()
        else {
            panic!("{error:?}");
        };
        assert_eq!((restarts, limit, period), (4, 3, Duration::from_secs(60)));
        let text = error.to_string();
        assert!(
            text.starts_with(r#"supervisor "api" gave up: child "a" "#),
            "{text}"
        );
        assert!(
            text.contains("4 within 60s") && text.contains("a failed"),
            "{text}"
        );
        assert!(
            !place.is_empty() && text.contains("supervisor_support.rs:"),
            "{text}"
        );
        assert_eq!(running.handle.child("a").unwrap().state, ChildState::Failed);
        assert_eq!(
            running.handle.child("z").unwrap().state,
            ChildState::Stopped
        );
    });
}

#[test]
fn s3_restarts_across_the_edge_of_the_period() {
    let period = Duration::from_secs(60);
    // The clock has milliseconds. The third restart is so long after the first.
    for (after, is_too_often) in [
        (period - ms(1), true),
        (period, true),
        (period + ms(1), false),
    ] {
        paused(async {
            let stage = Stage::new();
            let running = run(
                Supervisor::builder().intensity(2, period),
                [stage.child("a")],
            )
            .await;
            stage.end("a", End::Fail);
            idle().await;
            advance(ms(10)).await;
            stage.end("a", End::Fail);
            idle().await;
            advance(after - ms(10)).await;
            stage.end("a", End::Fail);
            idle().await;
            assert_eq!(running.run.is_finished(), is_too_often, "{after:?}");
        });
    }
}

#[test]
fn s3_limit_of_zero_then_the_first_restart_is_too_many() {
    paused(async {
        let stage = Stage::new();
        let running = run(
            Supervisor::builder().intensity(0, Duration::from_secs(1)),
            [stage.child("a")],
        )
        .await;
        stage.end("a", End::Panic);
        let error = running.run.await.unwrap().unwrap_err();
        assert!(error.error().is_none());
        assert!(
            error.to_string().contains("panicked: a panicked"),
            "{error}"
        );
    });
}

#[test]
fn s3_restart_of_all_counts_once_and_temporary_ends_do_not_count() {
    paused(async {
        let stage = Stage::new();
        let builder = Supervisor::builder()
            .intensity(1, Duration::from_secs(60))
            .strategy(Strategy::OneForAll);
        let children = [
            stage.child("a"),
            stage.child("b"),
            stage.child("t").restart(Restart::Temporary),
        ];
        let running = run(builder, children).await;
        stage.end("t", End::Fail);
        idle().await;
        stage.end("b", End::Fail);
        idle().await;
        assert!(!running.run.is_finished());
        stage.end("a", End::Fail);
        assert!(running.run.await.unwrap().is_err());
    });
}

#[test]
fn s4_backoff_delays_each_restart_and_begins_anew_after_a_time_up() {
    paused(async {
        let stage = Stage::new();
        let child = stage
            .child("a")
            .backoff([ms(100), ms(300), ms(900)])
            .reset_after(Duration::from_secs(10));
        let running = run(builder(), [child]).await;
        stage.took();
        for delay in [100, 300] {
            stage.end("a", End::Fail);
            idle().await;
            let until = Instant::now() + ms(delay);
            assert_eq!(running.state("a"), ChildState::BackingOff { until });
            advance(ms(delay - 1)).await;
            idle().await;
            assert_eq!(stage.took(), ["-a"]);
            advance(ms(1)).await;
            idle().await;
            assert_eq!(stage.took(), ["+a"]);
        }
        advance(Duration::from_secs(10)).await;
        stage.end("a", End::Fail);
        idle().await;
        let until = Instant::now() + ms(100);
        assert_eq!(running.state("a"), ChildState::BackingOff { until });
        running.end().await.unwrap();
    });
}

#[test]
fn s4_backoff_ends_then_the_supervisor_fails() {
    paused(async {
        let stage = Stage::new();
        let running = run(builder(), [stage.child("a").backoff([ms(1), ms(1)])]).await;
        fail(&stage, 2, ms(1)).await;
        idle().await;
        assert!(!running.run.is_finished());
        fail(&stage, 1, ms(1)).await;
        let error = running.run.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), SupervisorErrorKind::BackoffExhausted);
        assert_eq!(error.into_error().unwrap().to_string(), "a failed");
    });
}

#[test]
fn s4_backoff_whose_iterator_panics_then_the_supervisor_fails() {
    paused(async {
        let stage = Stage::new();
        let backoff = Backoff::from_fn(|| std::iter::from_fn(|| panic!("a broken backoff")));
        let running = run(builder(), [stage.child("a").backoff(backoff)]).await;
        stage.end("a", End::Fail);
        let error = running.run.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), SupervisorErrorKind::BackoffExhausted);
    });
}

#[test]
fn s4_backoff_with_a_restart_of_all_then_others_stop_at_once_and_start_with_it() {
    paused(async {
        let stage = Stage::new();
        let children = [
            stage.child("a"),
            stage.child("b").backoff([ms(100), ms(100)]),
            stage.child("c"),
        ];
        let running = run(builder().strategy(Strategy::OneForAll), children).await;
        stage.took();
        stage.end("b", End::Fail);
        idle().await;
        assert_eq!(stage.took(), ["-b", "-c", "-a"]);
        advance(ms(99)).await;
        idle().await;
        assert_eq!(stage.took(), [""; 0]);
        advance(ms(1)).await;
        idle().await;
        assert_eq!(stage.took(), ["+a", "+b", "+c"]);
        running.end().await.unwrap();
    });
}

#[test]
fn function_panics_before_it_returns_a_future_then_that_is_the_childs_failure() {
    paused(async {
        let calls = Arc::new(AtomicUsize::new(0));
        let called = calls.clone();
        let child = Child::<BoxError>::new("a", move |ctx| {
            assert!(called.fetch_add(1, Ordering::SeqCst) > 2, "too early");
            async move {
                ctx.done().await;
                Ok(())
            }
        });
        let running = run(builder(), [child]).await;
        let status = running.handle.child("a").unwrap();
        assert_eq!((status.state, status.restarts), (ChildState::Running, 3));
        assert_eq!(status.failures[2].kind, ChildFailureKind::Panic);
        assert_eq!(status.failures[2].text, "too early");
        running.end().await.unwrap();
    });
}

#[test]
fn failures_are_kept_up_to_the_limit_the_latest_last() {
    paused(async {
        let n = Arc::new(AtomicUsize::new(0));
        let child = Child::<BoxError>::new("a", move |ctx| {
            let n = n.fetch_add(1, Ordering::SeqCst);
            async move {
                if n < 10 {
                    return Err(format!("failure {n}").into());
                }
                ctx.done().await;
                Ok(())
            }
        });
        let running = run(builder(), [child.keep_failures(3)]).await;
        let status = running.handle.child("a").unwrap();
        let texts: Vec<_> = status.failures.iter().map(|one| &*one.text).collect();
        assert_eq!(texts, ["failure 7", "failure 8", "failure 9"]);
        running.end().await.unwrap();
    });
}
