//! G17: a runtime that goes away under a group, or was never there.

use std::future::IntoFuture;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use errgroup::{Context, ContextError, Group, Reason};
use futures::FutureExt;
use futures::executor::block_on;
use tokio::runtime::Runtime;

use crate::group_support::*;

const RUNTIMES: [fn() -> Runtime; 2] = [current_thread, multi_thread];

fn on(runtime: &Runtime) -> Group {
    Group::builder().runtime(runtime.handle().clone()).build()
}

#[test]
fn g17_runtime_dropped_then_wait_and_handles_say_so() {
    for runtime in RUNTIMES {
        let runtime = runtime();
        let used = Arc::new(());
        let mut group = on(&runtime);
        let held = used.clone();
        let tasks = [
            group.spawn(holding(used.clone(), pend())),
            group.spawn_with(move |ctx| holding(held, ignore(ctx))),
        ];
        drop(runtime);
        let error = block_on(group.wait()).unwrap_err();
        assert!(error.is::<ContextError>());
        assert!(
            error.to_string().contains("runtime was shut down"),
            "{error}"
        );
        for task in tasks {
            assert_eq!(block_on(own_end(task)), Reason::RuntimeGone);
        }
        assert_eq!(Arc::strong_count(&used), 1);
        assert_eq!(group.len(), 0);
        block_on(group.wait()).unwrap();
    }
}

#[test]
fn g17_runtime_dropped_then_queued_tasks_end_too() {
    for runtime in RUNTIMES {
        let runtime = runtime();
        let mut group = on(&runtime);
        group.set_limit(Some(1));
        let tasks = [group.spawn(pend()), group.spawn(pend())];
        let blocking = group.spawn_blocking(|_| Ok(()));
        drop(runtime);
        assert!(block_on(group.wait()).is_err());
        for task in tasks {
            assert_eq!(block_on(own_end(task)), Reason::RuntimeGone);
        }
        // Its turn comes when the others are dropped, and there may be a thread for it yet.
        if let Err(why) = block_on(blocking) {
            assert_eq!(why.reason(), Reason::RuntimeGone);
        }
        // The context has ended with the wait.
        let slot = group.slot().now_or_never().expect("at once");
        assert_eq!(slot.unwrap_err().reason(), Reason::GroupFinished);
    }
}

#[test]
fn g17_runtime_was_gone_at_the_spawn_then_refused() {
    for runtime in RUNTIMES {
        let runtime = runtime();
        let mut group = on(&runtime);
        drop(runtime);
        let tasks = [
            group.spawn(pend()),
            group.spawn_with(ignore),
            group.spawn_blocking(|_| Ok(())),
        ];
        assert_eq!(group.len(), 0);
        for task in tasks {
            assert!(task.is_finished());
            assert_eq!(block_on(own_end(task)), Reason::RuntimeGone);
        }
        assert!(block_on(group.wait()).is_err());
    }
}

#[test]
fn g17_runtime_dropped_on_another_thread_then_whoever_waits_is_woken() {
    for runtime in RUNTIMES {
        let runtime = runtime();
        let mut group = on(&runtime);
        let task = group.spawn(pend());
        let (wakes, waker) = counting();
        let mut wait = group.wait();
        assert!(poll_with(std::pin::Pin::new(&mut wait), &waker).is_pending());
        thread::spawn(move || drop(runtime)).join().unwrap();
        assert_eq!(wakes.woken(), 1);
        assert!(block_on(wait).is_err());
        assert!(block_on(task).is_err());
    }
}

#[test]
fn g17_group_cancelled_and_the_runtime_dropped_then_ok() {
    for runtime in RUNTIMES {
        let runtime = runtime();
        let mut group = on(&runtime);
        group.spawn_with(ignore);
        group.cancel();
        drop(runtime);
        block_on(group.wait()).unwrap();
    }
}

#[test]
fn g17_runtime_dropped_then_shutdown_returns() {
    for runtime in RUNTIMES {
        let runtime = runtime();
        let group = on(&runtime);
        group.spawn_with(ignore);
        drop(runtime);
        let shutdown = block_on(group.shutdown(Duration::from_secs(1)));
        assert!(shutdown.stragglers.is_empty());
        shutdown.result().unwrap();
    }
}

#[test]
fn g17_task_failed_and_the_runtime_dropped_then_the_error_is_returned() {
    for runtime in RUNTIMES {
        let runtime = runtime();
        let mut group = on(&runtime);
        let failed = group.spawn(fail("before"));
        assert!(runtime.block_on(failed).is_err());
        drop(runtime);
        assert_eq!(block_on(group.wait()).unwrap_err().to_string(), "before");
    }
}

#[test]
fn g17_all_completed_and_the_runtime_dropped_then_ok() {
    for runtime in RUNTIMES {
        let runtime = runtime();
        let mut group = on(&runtime);
        let task = group.spawn(async { Ok(1) });
        assert!(matches!(runtime.block_on(task), Ok(1)));
        drop(runtime);
        block_on(group.wait()).unwrap();
    }
}

/// The clean end of a task is no loss of its runtime, and an abort is none either.
#[test]
fn g17_task_aborted_on_a_live_runtime_then_wait_is_ok() {
    for runtime in RUNTIMES {
        let runtime = runtime();
        let mut group = on(&runtime);
        let task = group.spawn(pend());
        task.abort();
        runtime.block_on(async { assert!(task.await.is_err()) });
        block_on(group.wait()).unwrap();
    }
}

#[test]
fn g17_blocking_task_outlives_the_runtime_then_wait_waits_for_it() {
    let runtime = multi_thread();
    let mut group = on(&runtime);
    let (finish, busy) = mpsc::channel::<()>();
    let (started, start) = mpsc::channel();
    let task = group.spawn_blocking(move |_| {
        started.send(()).unwrap();
        let _ = busy.recv();
        Ok(())
    });
    start.recv().unwrap();
    runtime.shutdown_background();
    assert!(poll(&mut group.wait()).is_pending());
    drop(finish);
    block_on(group.wait()).unwrap();
    block_on(task).unwrap();
}

#[test]
fn group_dropped_after_its_runtime() {
    for runtime in RUNTIMES {
        let runtime = runtime();
        let group = on(&runtime);
        let task = group.spawn(pend());
        drop(runtime);
        drop(group);
        assert_eq!(block_on(own_end(task)), Reason::RuntimeGone);
    }
}

#[test]
fn spawned_outside_a_runtime_then_the_panic_says_what_to_do() {
    let group: Group = Group::new();
    let outcome = catch_unwind(AssertUnwindSafe(|| drop(group.spawn(pend()))));
    let payload = outcome.unwrap_err();
    let text = payload.downcast_ref::<&str>().copied().map(str::to_owned);
    let text = text
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap();
    assert!(text.contains("Group::builder().runtime(handle)"), "{text}");
    assert_eq!(group.len(), 0);
    assert!(!group.context().is_done());
}

#[test]
fn group_made_outside_a_runtime_then_it_runs_on_that_of_its_first_spawn() {
    let group: Group = Group::with_context(&Context::background());
    let runtime = current_thread();
    let entered = runtime.enter();
    let task = group.spawn(async { Ok(thread::current().id()) });
    drop(entered);
    let later = group.spawn(async { Ok(thread::current().id()) });
    let here = thread::current().id();
    assert_eq!(runtime.block_on(task).unwrap(), here);
    assert_eq!(runtime.block_on(later).unwrap(), here);
    block_on(group.into_future()).unwrap();
}
