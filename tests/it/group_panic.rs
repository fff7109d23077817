//! G5: a panic ends the context at once and is resumed by whoever waits, with its payload; nothing aborts the process.

use std::future::{Future, IntoFuture};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use errgroup::{Group, Reason, Task};
use tokio::sync::oneshot;

use crate::group_support::*;
use crate::support::{no_leaks, panic_text};

/// Every way in which the code of a task can panic with `"boom"`.
const WAYS: [fn(&Group) -> Task<()>; 10] = [
    |group| group.spawn(panics("boom")),
    |group| group.spawn_with(|_| panics("boom")),
    |group| group.spawn_with(|_| -> std::future::Ready<Unit> { quiet_panic("boom") }),
    |group| group.spawn_blocking(|_| quiet_panic("boom")),
    // In the destructor of what completed.
    |group| group.spawn(holding(bomb("boom"), async { Ok(()) })),
    |group| group.spawn(holding(bomb("boom"), fail("not this"))),
    |group| group.spawn_with(|_| holding(bomb("boom"), async { Ok(()) })),
    // In the destructor of what panicked: the first is the task's panic, or the second; nothing aborts.
    |group| group.spawn(TwoPanics),
    // Queued first.
    |group| {
        group.set_limit(Some(2));
        group.spawn(turns_then_ok());
        group.spawn(panics("boom"))
    },
    |group| {
        group.set_limit(Some(2));
        group.spawn(turns_then_ok());
        group.spawn_blocking(|_| quiet_panic("boom"))
    },
];

async fn turns_then_ok() -> Unit {
    turns(3).await;
    Ok(())
}

fn bomb(text: &'static str) -> OnDrop<impl FnOnce() + Send> {
    OnDrop::new(move || quiet_panic(text))
}

/// Panics when polled, and once more when dropped after that.
struct TwoPanics;

impl Future for TwoPanics {
    type Output = Unit;

    fn poll(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Unit> {
        quiet_panic("boom")
    }
}

impl Drop for TwoPanics {
    fn drop(&mut self) {
        quiet_panic("boom")
    }
}

on_both_runtimes! {
    async fn g5_task_panics_then_the_siblings_are_cancelled_and_wait_resumes_it() {
        for (way, spawn) in WAYS.iter().enumerate() {
            let mut group: Group = Group::new();
            let sibling = group.spawn_with(pass_on);
            let task = spawn(&group);
            let id = task.id().to_string();
            assert_eq!(own_end(task).await, Reason::TaskPanicked, "way {way}");
            assert_eq!(panic_of(group.wait()).await, "boom", "way {way}");
            let end = cancelled(sibling).await;
            assert_eq!(end.reason(), Reason::TaskPanicked, "way {way}");
            assert_eq!(end.task(), Some(&*id), "way {way}");
            assert!(end.to_string().contains("panicked: boom (spawned at "), "{end}");
            assert_eq!(group.suppressed(), 0, "way {way}");
            assert_eq!(group.len(), 0, "way {way}");
            assert!(tokio::spawn(async {}).await.is_ok());
        }
    }

    async fn g5_payload_is_the_original_one() {
        #[derive(PartialEq)]
        struct Custom(u32);
        let mut group: Group = Group::new();
        group.spawn(async { panics_with(Custom(7)) });
        assert!(payload_of(group.wait()).await.downcast_ref() == Some(&Custom(7)));
        assert!(group.context().err().unwrap().to_string().contains("no text"));

        let group: Group = Group::new();
        group.spawn_blocking(|_| -> Unit { resume_unwind(Box::new(String::from("owned"))) });
        let context = group.context().clone();
        assert!(payload_of(group.into_future()).await.downcast_ref() == Some(&"owned".to_owned()));
        assert!(context.err().unwrap().to_string().contains("panicked: owned"));
        no_leaks(&context);
    }

    async fn g5_others_are_blocked_then_the_end_comes_at_once_and_the_panic_last() {
        let mut group: Group = Group::new();
        let (finish, busy) = mpsc::channel::<()>();
        let (started, start) = oneshot::channel();
        group.spawn_blocking(move |_| {
            started.send(()).unwrap();
            let _ = busy.recv();
            Ok(())
        });
        start.await.unwrap();
        group.spawn(panics("boom"));
        assert_eq!(group.context().done().await.reason(), Reason::TaskPanicked);
        assert!(poll(&mut group.wait()).is_pending());
        drop(finish);
        assert_eq!(panic_of(group.wait()).await, "boom");
    }

    async fn g5_error_first_then_the_panic_outranks_it() {
        let mut group: Group = Group::new();
        let panicking = group.spawn_with(async |ctx| -> Unit {
            ctx.done().await;
            quiet_panic("later")
        });
        until(|| group.len() == 1).await;
        idle().await;
        group.spawn(fail("first"));
        assert_eq!(own_end(panicking).await, Reason::TaskPanicked);
        let reason = group.context().err().unwrap().reason();
        assert_eq!(reason, Reason::TaskFailed, "the first end stays");
        assert_eq!(panic_of(group.wait()).await, "later");
        assert_eq!(group.suppressed(), 1);
    }

    async fn g5_panic_first_then_it_outranks_a_later_error_and_a_later_panic() {
        let mut group: Group = Group::new();
        let (started, start) = oneshot::channel();
        let (started_too, start_too) = oneshot::channel();
        group.spawn_with(async |ctx| -> Unit {
            started.send(()).unwrap();
            ctx.done().await;
            fail("later").await
        });
        group.spawn_with(async |ctx| -> Unit {
            started_too.send(()).unwrap();
            ctx.done().await;
            quiet_panic("later")
        });
        start.await.unwrap();
        start_too.await.unwrap();
        group.spawn(panics("first"));
        assert_eq!(panic_of(group.wait()).await, "first");
        assert_eq!(group.suppressed(), 2);
    }

    async fn g5_second_payload_panics_in_its_destructor_then_nobody_is_hurt() {
        let mut group: Group = Group::new();
        let (started, start) = oneshot::channel();
        let second = group.spawn_with(async |ctx| -> Unit {
            started.send(()).unwrap();
            ctx.done().await;
            resume_unwind(Box::new(bomb("payload")))
        });
        start.await.unwrap();
        group.spawn(panics("first"));
        assert_eq!(own_end(second).await, Reason::TaskPanicked);
        assert_eq!(panic_of(group.wait()).await, "first");
        assert_eq!(group.suppressed(), 1);
    }

    async fn g5_shutdown_hands_it_over_and_its_result_resumes_it() {
        let group: Group = Group::new();
        drop(group.spawn(panics("boom")).await);
        let shutdown = group.shutdown(Duration::from_secs(1)).await;
        let failure = shutdown.failure().unwrap();
        assert_eq!(failure.panic().unwrap().downcast_ref(), Some(&"boom"));
        assert!(failure.error().is_none());
        assert_eq!(panic_text(|| shutdown.result()), "boom");
    }

    async fn g5_cancelled_by_the_owner_then_a_panic_is_resumed_all_the_same() {
        let mut group: Group = Group::new();
        let (started, start) = oneshot::channel();
        group.spawn_with(async |ctx| -> Unit {
            started.send(()).unwrap();
            ctx.done().await;
            quiet_panic("boom")
        });
        start.await.unwrap();
        group.cancel();
        assert_eq!(panic_of(group.wait()).await, "boom");
    }

    async fn g5_cut_short_then_a_panic_in_the_destructor_is_the_tasks() {
        let mut group: Group = Group::new();
        let plain = group.spawn(pend_then_panic_in_drop("plain"));
        group.cancel();
        assert_eq!(own_end(plain).await, Reason::TaskPanicked);
        assert_eq!(panic_of(group.wait()).await, "plain");
    }

    async fn g5_aborted_then_a_panic_in_the_destructor_is_the_tasks() {
        for is_started in [false, true] {
            let mut group: Group = Group::new();
            let task = group.spawn(pend_then_panic_in_drop("drop"));
            if is_started {
                idle().await;
            }
            task.abort();
            let sibling = group.spawn_with(pass_on);
            assert_eq!(panic_of(group.wait()).await, "drop");
            assert_eq!(group.context().err().unwrap().reason(), Reason::TaskPanicked);
            cancelled(sibling).await;
            assert!(task.await.is_err());
        }
    }

    async fn g5_dropped_unpolled_then_a_panic_in_the_destructor_is_the_tasks() {
        let mut group: Group = limited(1);
        group.spawn(pend());
        let capture = bomb("closure");
        let queued = [
            group.spawn(pend_then_panic_in_drop("future")),
            group.spawn_with(move |_| holding(capture, pend())),
        ];
        let capture = bomb("blocking");
        let blocking = group.spawn_blocking(move |_| {
            drop(capture);
            Ok(())
        });
        group.cancel();
        for task in queued.into_iter().chain([blocking]) {
            assert_eq!(own_end(task).await, Reason::TaskPanicked);
        }
        let _ = payload_of(group.wait()).await;
        assert_eq!(group.suppressed(), 2);
    }

    async fn g5_spawned_after_the_end_then_a_panic_in_the_destructor_is_the_groups() {
        let mut group: Group = Group::new();
        group.cancel();
        let task = group.spawn(pend_then_panic_in_drop("late"));
        assert!(task.await.is_err());
        assert_eq!(panic_of(group.wait()).await, "late");
    }

    async fn g5_group_dropped_then_a_panic_in_a_destructor_stops_at_the_task() {
        let group: Group = Group::new();
        let task = group.spawn(pend_then_panic_in_drop("drop"));
        let sibling = group.spawn_with(ignore);
        tokio::task::yield_now().await;
        drop(group);
        assert_eq!(own_end(task).await, Reason::TaskPanicked);
        stopped_by_drop(sibling).await;
    }

    async fn g5_group_dropped_with_a_panic_then_it_goes_no_further() {
        let group: Group = Group::new();
        drop(group.spawn(panics("unseen")).await);
        drop(group);
        assert!(tokio::spawn(async {}).await.is_ok());
    }
}

/// A queued blocking task is waiting in an async one.
#[test]
fn g5_queued_blocking_task_aborted_then_a_panic_in_the_destructor_is_the_tasks() {
    on_current_thread(async {
        let mut group: Group = limited(1);
        let occupant = group.spawn(pend());
        let task = group.spawn_blocking(move_in(bomb("capture")));
        idle().await;
        task.abort();
        assert_eq!(own_end(task).await, Reason::TaskPanicked);
        occupant.abort();
        assert_eq!(panic_of(group.wait()).await, "capture");
    });
}

#[test]
fn g5_blocking_task_aborted_before_a_thread_was_free_then_a_panic_in_the_destructor_is_the_tasks() {
    one_blocking_thread().block_on(patiently(async {
        let (free, busy) = mpsc::channel::<()>();
        let occupied = tokio::task::spawn_blocking(move || busy.recv());
        let mut group: Group = Group::new();
        let task = group.spawn_blocking(move_in(bomb("capture")));
        // tokio drops the closure in this very call.
        let aborted = catch_unwind(AssertUnwindSafe(|| task.abort()));
        drop(free);
        let _ = occupied.await;
        assert!(aborted.is_ok());
        assert_eq!(own_end(task).await, Reason::TaskPanicked);
        assert_eq!(panic_of(group.wait()).await, "capture");
    }));
}

fn move_in<C: Send + 'static>(
    capture: C,
) -> impl FnOnce(errgroup::Context) -> Unit + Send + 'static {
    move |_| {
        drop(capture);
        Ok(())
    }
}

fn panics_with(payload: impl std::any::Any + Send) -> Unit {
    resume_unwind(Box::new(payload))
}

fn really_panics() -> Unit {
    panic_any(3_u8)
}

/// The one test that raises a panic as users do, hook and all.
#[tokio::test]
async fn g5_panic_with_any_payload_is_resumed() {
    let mut group: Group = Group::new();
    group.spawn(async { really_panics() });
    assert_eq!(payload_of(group.wait()).await.downcast_ref(), Some(&3_u8));
}

/// Destructors of a runtime that goes away panic in the thread that drops it.
#[test]
fn g5_runtime_dropped_then_a_panic_in_a_destructor_is_the_tasks() {
    let runtime = current_thread();
    let mut group: Group = Group::builder().runtime(runtime.handle().clone()).build();
    let told = Arc::new(Mutex::new(()));
    let task = group.spawn(holding(told.clone(), pend_then_panic_in_drop("drop")));
    drop(runtime);
    assert_eq!(futures::executor::block_on(panic_of(group.wait())), "drop");
    assert!(futures::executor::block_on(task).is_err());
    assert_eq!(Arc::strong_count(&told), 1);
}
