//! G18: isolated groups, where a failure is its task's alone; and `on_failure`, which is told of every one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use errgroup::{BoxError, Context, Failure, Group, GroupBuilder, Reason, Spawner};
use tokio::sync::oneshot;

use crate::group_support::*;
use crate::support::{Log, no_leaks};

fn isolated() -> GroupBuilder<BoxError> {
    Group::builder().isolated()
}

/// Logs a failure as a line without what differs from run to run.
fn line(failure: &Failure<BoxError>) -> String {
    let name = failure.name().unwrap_or("-");
    match (failure.error(), failure.panic()) {
        (Some(error), None) => format!("{name} error {error}"),
        (None, Some(payload)) => {
            let text = payload.downcast_ref::<&str>().unwrap_or(&"?");
            format!("{name} panic {text}")
        }
        _ => panic!("one of the two"),
    }
}

/// A group that logs its failures.
fn logging(builder: GroupBuilder<BoxError>) -> (Group, Log<String>) {
    let log = Log::new();
    let told = log.clone();
    let group = builder.on_failure(move |failure| told.push(line(failure)));
    (group.build(), log)
}

on_both_runtimes! {
    async fn g18_tasks_fail_and_panic_then_that_is_theirs_alone() {
        let (mut group, log) = logging(isolated());
        let (open, gate) = oneshot::channel();
        let sibling = group.spawn(async { Ok(gate.await?) });
        let (started, start) = oneshot::channel();
        let obedient = group.spawn_with(async |ctx| {
            started.send(()).unwrap();
            obey(ctx).await
        });
        start.await.unwrap();
        for (task, reason) in [
            (group.task("a").spawn(fail("one")), Reason::TaskFailed),
            (group.task("b").spawn(panics("two")), Reason::TaskPanicked),
            (group.task("c").spawn_with(async |_| fail("three").await), Reason::TaskFailed),
            (group.task("d").spawn_blocking(|_| Err("four".into())), Reason::TaskFailed),
            (group.task("e").spawn_blocking(|_| quiet_panic("five")), Reason::TaskPanicked),
        ] {
            let why = why(task).await;
            assert_eq!(why.reason(), reason);
            assert!(!why.to_string().contains("cancelled"), "it ended nothing: {why}");
        }
        let mut lines = log.take();
        lines.sort();
        assert_eq!(lines, ["a error one", "b panic two", "c error three", "d error four", "e panic five"]);
        assert_eq!(group.suppressed(), 5);
        assert!(!group.context().is_done());
        open.send("served").unwrap();
        assert_eq!(sibling.await.unwrap(), "served");
        assert!(!obedient.is_finished());
        group.spawn(async { Ok(()) }).await.unwrap();
        group.cancel();
        group.wait().await.unwrap();
        obedient.await.unwrap();
        assert!(log.take().is_empty());
    }

    async fn g18_all_failed_then_wait_is_ok_and_the_context_has_finished() {
        let mut group: Group = isolated().build();
        for _ in 0..10 {
            group.spawn(fail("alone"));
        }
        group.wait().await.unwrap();
        assert_eq!(group.suppressed(), 10);
        assert_eq!(group.context().err().unwrap().reason(), Reason::GroupFinished);
    }

    async fn g18_stopped_then_no_failure_is_its_result() {
        let group: Group = isolated().build();
        drop(group.spawn(panics("alone")).await);
        let shutdown = group.shutdown(std::time::Duration::from_secs(1)).await;
        assert!(shutdown.failure().is_none());
        shutdown.result().unwrap();
    }

    /// What a task passes on of another's failure is no failure of its own, and the task was not cut short.
    async fn g18_failure_passed_on_by_a_sibling_is_told_once_and_no_error_after_the_parents_end() {
        let (parent, handle) = Context::background().with_cancel();
        let (mut group, log) = logging(isolated().context(&parent));
        let bad = group.task("bad").spawn(fail("alone"));
        let passing = group.spawn(async { Ok(bad.await?) });
        let why = why(passing).await;
        assert_eq!((why.reason(), why.task()), (Reason::TaskFailed, Some("bad")));
        assert_eq!(log.take(), ["bad error alone"]);
        assert_eq!(group.suppressed(), 1);
        handle.cancel();
        group.wait().await.unwrap();
        no_leaks(&parent);
    }

    async fn g18_parent_ends_then_a_task_cut_short_makes_it_an_error() {
        let (parent, handle) = Context::background().with_cancel();
        let (mut group, log) = logging(isolated().context(&parent));
        group.spawn(pend());
        group.spawn_with(pass_on);
        handle.cancel();
        assert!(group.wait().await.is_err());
        assert!(log.take().is_empty());
        no_leaks(&parent);
    }

    async fn on_failure_is_told_of_the_first_after_the_context_has_ended_for_it() {
        let parent = Context::background();
        let seen = Arc::new(OnceLock::new());
        let ctx = Arc::new(OnceLock::<Context>::new());
        let (tell, known) = (seen.clone(), ctx.clone());
        let mut group: Group = Group::builder()
            .context(&parent)
            .on_failure(move |failure: &Failure<BoxError>| {
                let end = known.get().and_then(Context::err).expect("ended");
                tell.set((line(failure), failure.id(), failure.location(), end)).expect("once");
            })
            .build();
        ctx.set(group.context().clone()).unwrap();
        let task = group.task("db").spawn(fail("refused"));
        let place = line!() - 1;
        assert!(group.wait().await.is_err());
        let (text, id, location, end) = seen.get().expect("before wait returned");
        assert_eq!((text.as_str(), *id), ("db error refused", task.id()));
        assert_eq!((location.file(), location.line()), (file!(), place));
        assert_eq!((end.reason(), end.task()), (Reason::TaskFailed, Some("db")));
    }

    async fn on_failure_is_told_of_later_ones_but_of_nobody_who_was_stopped() {
        let (mut group, log) = logging(Group::builder());
        start_failing_at_the_end(&group).await;
        group.spawn_with(pass_on);
        group.spawn(pend());
        let aborted = group.spawn(pend());
        aborted.abort();
        drop(aborted.await);
        let bad = group.spawn_with(async |_| fail("first").await);
        group.spawn_with(async |_| Ok(bad.await?));
        assert_eq!(group.wait().await.unwrap_err().to_string(), "first");
        group.spawn(async { Ok(()) });
        let mut lines = log.take();
        lines.sort();
        assert_eq!(lines, ["- error could not flush", "- error first"]);
    }

    async fn on_failure_is_told_of_a_refused_spawn_whose_destructor_panics() {
        let (mut group, log) = logging(Group::builder());
        group.cancel();
        group.task("late").spawn(pend_then_panic_in_drop("dropped"));
        assert_eq!(log.take(), ["late panic dropped"]);
        assert_eq!(panic_of(group.wait()).await, "dropped");
    }

    async fn on_failure_panics_then_it_is_contained() {
        for builder in [isolated(), Group::builder()] {
            let count = Arc::new(AtomicUsize::new(0));
            let counting = count.clone();
            let mut group = builder
                .on_failure(move |_| {
                    counting.fetch_add(1, Ordering::SeqCst);
                    std::panic::resume_unwind(Box::new(OnDrop::new(|| quiet_panic("payload"))))
                })
                .build();
            let task = group.spawn(fail("told"));
            assert_eq!(own_end(task).await, Reason::TaskFailed);
            assert_eq!(group.suppressed(), usize::from(group.wait().await.is_ok()));
            assert_eq!(count.load(Ordering::SeqCst), 1);
        }
    }

    async fn on_failure_spawns_then_wait_covers_it_or_it_is_refused() {
        for is_isolated in [true, false] {
            let spawner = Arc::new(OnceLock::<Spawner>::new());
            let (known, done) = (spawner.clone(), Arc::new(AtomicUsize::new(0)));
            let count = done.clone();
            let builder = if is_isolated { isolated() } else { Group::builder() };
            let mut group = builder
                .on_failure(move |_| {
                    let count = count.clone();
                    known.get().unwrap().spawn(async move {
                        turns(5).await;
                        count.fetch_add(1, Ordering::SeqCst);
                        Ok(())
                    });
                })
                .build();
            assert!(spawner.set(group.spawner()).is_ok());
            group.spawn(fail("told"));
            assert_eq!(group.wait().await.is_ok(), is_isolated);
            assert_eq!(done.load(Ordering::SeqCst), usize::from(is_isolated));
        }
    }

    async fn on_failure_uses_everything_of_the_group() {
        for is_isolated in [true, false] {
            let known = Arc::new(OnceLock::<Weak<Group>>::new());
            let owner = known.clone();
            let builder = if is_isolated { isolated() } else { Group::builder() };
            let builder = builder.limit(1).on_failure(move |_| {
                let Some(group) = owner.get().and_then(Weak::upgrade) else { return };
                group.set_limit(Some(3));
                group.set_limit(None);
                group.set_limit(Some(1));
                let _ = (group.len(), group.suppressed(), format!("{group:?}"));
                group.spawn(async { Ok(()) }).abort();
                let _ = group.try_spawn(async { Ok(()) });
                group.cancel();
                group.spawn_blocking(|_| Ok(()));
                group.cancel_with("again");
            });
            let group = Arc::new(builder.build());
            known.set(Arc::downgrade(&group)).unwrap();
            let queued: Vec<_> = (0..5).map(|_| group.spawn_with(pass_on)).collect();
            let bad = group.try_spawn(fail("too many"));
            assert!(bad.is_err());
            group.set_limit(None);
            let bad = group.spawn(fail("told"));
            assert_eq!(own_end(bad).await, Reason::TaskFailed);
            for task in queued {
                let reason = cancelled(task).await.reason();
                let want = if is_isolated { Reason::GroupCancelled } else { Reason::TaskFailed };
                assert_eq!(reason, want);
            }
            until(|| Arc::strong_count(&group) == 1).await;
            let outcome = Arc::into_inner(group).unwrap().await;
            assert_eq!(outcome.is_ok(), is_isolated);
        }
    }

    async fn on_failure_drops_the_group() {
        for is_isolated in [true, false] {
            let owner = Arc::new(Mutex::new(None::<Group>));
            let held = owner.clone();
            let builder = if is_isolated { isolated() } else { Group::builder() };
            let group = builder
                .on_failure(move |_| {
                    let taken = held.lock().unwrap().take();
                    drop(taken);
                })
                .build();
            let ctx = group.context().clone();
            let stubborn = group.spawn_with(ignore);
            let (open, gate) = oneshot::channel::<()>();
            let bad = group.spawn(async {
                let _ = gate.await;
                fail("told").await
            });
            *owner.lock().unwrap() = Some(group);
            drop(open);
            assert_eq!(own_end(bad).await, Reason::TaskFailed);
            let want = if is_isolated { Reason::GroupDropped } else { Reason::TaskFailed };
            assert_eq!(ctx.err().unwrap().reason(), want);
            let reason = why(stubborn).await.reason();
            assert!(matches!(reason, Reason::TaskAborted | Reason::GroupDropped | Reason::TaskFailed), "{reason:?}");
            assert!(owner.lock().unwrap().is_none());
        }
    }

    async fn on_failure_ends_the_parent() {
        let (parent, handle) = Context::background().with_cancel();
        let mut group: Group = isolated().context(&parent).on_failure(move |_| handle.cancel()).build();
        let sibling = group.spawn(pend());
        group.spawn(fail("told"));
        assert_eq!(cancelled(sibling).await.reason(), Reason::Cancelled);
        assert!(group.wait().await.is_err());
        no_leaks(&parent);
    }
}
