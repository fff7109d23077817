//! What Go's `x/sync/errgroup` and `sync.WaitGroup` pin, and no test of a guarantee does. The table is in `main.rs`.

use std::sync::Arc;
use std::time::Duration;

use errgroup::{Context, ContextError, Group, Reason};

use crate::group_support::*;

on_both_runtimes! {
    /// `TestWithContext`: whatever the outcome, the context is over after wait, and says why.
    async fn go_context_is_over_after_wait_whatever_the_outcome() {
        let cases: [(&[Option<&'static str>], Option<&str>); 5] = [
            (&[], None),
            (&[None], None),
            (&[Some("one")], Some("one")),
            (&[Some("one"), None], Some("one")),
            (&[None, Some("two"), None], Some("two")),
        ];
        for (errors, want) in cases {
            let mut group: Group = Group::new();
            for error in errors {
                let task = group.spawn_with(async move |_| match error {
                    Some(text) => fail(text).await,
                    None => Ok(()),
                });
                drop(task.await);
            }
            let outcome = group.wait().await.err().map(|error| error.to_string());
            assert_eq!(outcome.as_deref(), want);
            let end = group.context().err().unwrap();
            match want {
                Some(text) => assert!(end.to_string().contains(&format!(" failed: {text} "))),
                None => assert_eq!(end.reason(), Reason::GroupFinished),
            }
            assert!(group.context().done().await.to_string() == end.to_string());
        }
    }

    /// `TestZeroGroup`: success is no error, in any mixture, and the first failure stays.
    async fn go_ok_is_no_error_and_the_first_error_stays() {
        for failing in 0..4 {
            let mut group: Group = Group::new();
            for number in 0..4 {
                let text = ["0", "1", "2", "3"][number];
                let task = async move |_| match number >= failing {
                    true => fail(text).await,
                    false => Ok(()),
                };
                drop(group.spawn_with(task).await);
            }
            let first = group.wait().await.unwrap_err();
            assert_eq!(first.to_string(), failing.to_string());
        }
    }

    /// What a sibling learns of a failure: who, where and the text. The error itself is for `wait`.
    async fn go_sibling_learns_who_failed_where_and_why() {
        let mut group: Group = Group::new();
        let (started, start) = tokio::sync::oneshot::channel();
        let sibling = group.spawn_with(async |ctx| {
            started.send(()).unwrap();
            let end = ctx.done().await;
            let cause = ctx.cause().expect("ended").to_string();
            Ok((end, cause))
        });
        start.await.unwrap();
        let (bad, line) = (group.task("db"), line!());
        let bad = bad.spawn(fail("refused"));
        let (end, cause) = sibling.await.unwrap();
        assert_eq!((end.reason(), end.task()), (Reason::TaskFailed, Some("db")));
        let place = end.location().unwrap();
        assert_eq!((place.file(), place.line()), (file!(), line + 1));
        assert_eq!(end.to_string(), format!("cancelled: task \"db\" failed: refused (spawned at {place})"));
        assert_eq!(cause, end.to_string());
        assert_eq!(why(bad).await, end);
        assert_eq!(group.wait().await.unwrap_err().to_string(), "refused");
    }
}

/// `TestTryGo` and `TestSetLimit` in one: filled, refused, one ends, filled again; then without a limit.
#[tokio::test]
async fn go_try_spawn_under_a_limit_that_is_raised_lowered_and_lifted() {
    let mut group: Group = limited(42);
    let mut tasks = Vec::new();
    let mut fill = |group: &Group, room: usize| {
        for _ in 0..room {
            tasks.push(group.try_spawn(pend()).ok().unwrap());
        }
        assert!(group.try_spawn(pend()).is_err());
    };
    fill(&group, 42);
    group.set_limit(Some(50));
    fill(&group, 8);
    group.set_limit(Some(10));
    fill(&group, 0);
    tasks.drain(..45).for_each(|task| task.abort());
    idle().await;
    let mut fill = |group: &Group, room: usize| {
        for _ in 0..room {
            tasks.push(group.try_spawn(pend()).ok().unwrap());
        }
        assert!(group.try_spawn(pend()).is_err());
    };
    fill(&group, 5);
    group.set_limit(None);
    for _ in 0..100 {
        assert!(group.try_spawn(pend()).is_ok());
    }
    assert_eq!(group.len(), 110);
    group.cancel();
    group.wait().await.unwrap();
}

/// `context.Cause` of a group's context: the given cause, or the end itself.
#[tokio::test(start_paused = true)]
async fn go_cause_of_a_groups_context() {
    let group: Group = Group::new();
    group.cancel_with("maintenance");
    assert_eq!(group.context().cause().unwrap().to_string(), "maintenance");

    let group: Group = Group::new();
    assert!(group.context().cause().is_none());
    group.cancel();
    assert!(group.context().cause().unwrap().is::<ContextError>());

    let parent = Context::background().with_timeout_cause(Duration::from_secs(1), "too slow");
    let mut group: Group = Group::with_context(&parent);
    group.spawn(pend());
    assert!(
        group
            .wait()
            .await
            .unwrap_err()
            .to_string()
            .contains("too slow")
    );
    assert_eq!(group.context().cause().unwrap().to_string(), "too slow");
}

/// Values pass through to the tasks.
#[tokio::test]
async fn go_values_of_the_parent_are_seen_by_the_tasks() {
    struct Request(Arc<str>);
    let parent = Context::background().with_value(Request("42".into()));
    let group: Group = Group::with_context(&parent);
    let seen = group.spawn_with(async |ctx| Ok(ctx.value::<Request>().map(|it| it.0.clone())));
    assert_eq!(seen.await.unwrap().as_deref(), Some("42"));
}
