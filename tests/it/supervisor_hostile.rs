//! Destructors that panic: of what a child's function, its backoff and the callback have captured. Two may do so in a row,
//! and neither stops the supervisor, nor the process.

use std::time::Duration;

use errgroup::{
    BoxError, Child, ChildState, CommandError, Context, Supervisor, SupervisorErrorKind,
};
use futures::FutureExt;

use crate::supervisor_support::{End, Stage, builder, idle, paused, run};
use crate::support::{OnDrop, advance, child as below};

const SEC: Duration = Duration::from_secs(1);

/// Delays of a second, of which each copy panics when it is dropped, also during another panic: that would be the end.
#[derive(Clone)]
struct Mined;

impl Iterator for Mined {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(SEC)
    }
}

impl Drop for Mined {
    fn drop(&mut self) {
        panic!("a backoff with a mine");
    }
}

/// A child whose function and backoff panic when they are dropped.
fn mined(stage: &Stage, name: &'static str) -> Child {
    let (stage, mine) = (stage.clone(), OnDrop(|| panic!("a function with a mine")));
    let child = Child::new(name, move |ctx: Context| {
        let _mine = &mine;
        stage.clone().act(ctx, name.to_owned())
    });
    child.backoff(Mined)
}

#[test]
fn g19_added_one_is_refused_and_its_destructors_panic_then_the_supervisor_goes_on() {
    paused(async {
        let stage = Stage::new();
        let running = run(builder(), [stage.child("a")]).await;
        let handle = running.handle.clone();
        let refused = handle.add(mined(&stage, "a")).await;
        assert_eq!(refused, Err(CommandError::DuplicateName("a".to_owned())));
        let refused = handle.add(mined(&stage, "b").significant()).await;
        let significant = CommandError::SignificantPermanent("b".to_owned());
        assert_eq!(refused, Err(significant));
        assert_eq!(running.state("a"), ChildState::Running);
        running.end().await.unwrap();
        let refused = handle.add(mined(&stage, "b")).await;
        assert_eq!(refused, Err(CommandError::SupervisorStopping));
    });
}

#[test]
fn g19_child_removed_under_backoff_and_its_destructors_panic_then_the_supervisor_goes_on() {
    paused(async {
        let stage = Stage::new();
        let running = run(builder(), [stage.child("a"), mined(&stage, "b")]).await;
        stage.end("b", End::Fail);
        idle().await;
        advance(SEC).await;
        idle().await;
        assert_eq!(stage.took(), ["+a", "+b", "-b", "+b"]);
        running.handle.remove("b").await.unwrap();
        assert_eq!(running.state("a"), ChildState::Running);
        running.end().await.unwrap();
    });
}

#[test]
fn g19_backoff_begins_anew_and_its_destructor_panics_then_the_child_is_restarted() {
    paused(async {
        let stage = Stage::new();
        let child = mined(&stage, "a").reset_after(SEC);
        let running = run(builder(), [child]).await;
        for _ in 0..2 {
            advance(SEC).await;
            stage.end("a", End::Fail);
            idle().await;
            advance(SEC).await;
            idle().await;
        }
        assert_eq!(stage.took(), ["+a", "-a", "+a", "-a", "+a"]);
        running.end().await.unwrap();
    });
}

#[test]
fn g19_refused_at_the_start_and_destructors_of_all_panic_then_the_error_is_returned() {
    paused(async {
        let stage = Stage::new();
        let children = ["a", "a", "b"].map(|name| mined(&stage, name));
        let running = run(builder(), children).await;
        let error = running.run.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), SupervisorErrorKind::DuplicateName);
    });
}

#[test]
fn g19_never_run_and_all_destructors_panic_then_whoever_drops_it_goes_on() {
    let stage = Stage::new();
    let mine = OnDrop(|| panic!("a callback with a mine"));
    let supervisor: Supervisor<BoxError> = builder()
        .on_event(move |_| {
            let _mine = &mine;
        })
        .build()
        .child(mined(&stage, "a"))
        .child(mined(&stage, "b"));
    let handle = supervisor.handle();
    let mut added = Box::pin(handle.add(mined(&stage, "c")));
    assert!((&mut added).now_or_never().is_none());
    drop(handle.add(mined(&stage, "d")));
    drop(supervisor);
    let refused = added.now_or_never();
    assert_eq!(refused, Some(Err(CommandError::SupervisorStopping)));
}

#[test]
fn g19_ended_and_the_callbacks_destructor_panics_then_its_result_is_returned() {
    paused(async {
        let (ctx, stop) = below(&Context::background()).with_cancel();
        let mine = OnDrop(|| panic!("a callback with a mine"));
        let supervisor: Supervisor<BoxError> = builder()
            .context(&ctx)
            .on_event(move |_| {
                let _mine = &mine;
            })
            .build();
        let run = tokio::spawn(supervisor.run());
        idle().await;
        stop.cancel();
        run.await.expect("it does not panic").unwrap();
    });
}
