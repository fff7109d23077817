//! G3, G4, G7, G8: when `wait` returns, that it can be dropped and repeated, and what it returns when the context ended.

use std::future::IntoFuture;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use errgroup::{CancelHandle, Context, ContextError, Group, Reason, Task};
use futures::FutureExt;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::group_support::*;
use crate::support::{Counter, no_leaks};

// G3

on_both_runtimes! {
    async fn g3_wait_returned_then_every_future_closure_and_capture_is_dropped() {
        for _ in 0..20 {
            let used = Arc::new(());
            let mut group: Group = limited(8);
            let held = || used.clone();
            group.spawn(holding(held(), async { Ok(()) }));
            group.spawn(holding(held(), pend()));
            group.spawn(holding(held(), spin()));
            group.spawn_with({ let held = held(); move |ctx| holding(held, obey(ctx)) });
            group.spawn_with({ let held = held(); move |ctx| holding(held, pass_on(ctx)) });
            group.spawn_blocking({ let held = held(); move |ctx| {
                let _held = held;
                ctx.done_blocking(None);
                Ok(())
            } });
            let aborted = group.spawn(holding(held(), pend()));
            group.spawn(holding(held(), panics("last")));
            for _ in 0..8 {
                group.spawn(holding(held(), pend()));
            }
            aborted.abort();
            assert_eq!(panic_of(group.wait()).await, "last");
            assert_eq!(Arc::strong_count(&used), 1);
            assert_eq!(group.len(), 0);
        }
    }

    async fn g3_closure_still_runs_after_the_end_then_wait_waits_for_it() {
        let mut group: Group = Group::new();
        let (finish, until_then) = mpsc::channel::<()>();
        let (started, start) = oneshot::channel();
        let task = group.spawn_blocking(move |_| {
            started.send(()).unwrap();
            let _ = until_then.recv();
            Ok("finished")
        });
        start.await.unwrap();
        group.cancel();
        tokio::task::yield_now().await;
        assert!(poll(&mut group.wait()).is_pending());
        drop(finish);
        group.wait().await.unwrap();
        assert!(task.is_finished() || matches!(task.await, Ok("finished")));
    }
}

/// What a destructor finds: how often `wait` had been woken by then.
struct Found(Arc<AtomicUsize>, Arc<Counter>);

impl Drop for Found {
    fn drop(&mut self) {
        self.0.store(self.1.woken(), Ordering::SeqCst);
    }
}

/// What a task is stopped by.
struct Stop {
    finish: Option<oneshot::Sender<Unit>>,
    end: CancelHandle,
    task: Task<()>,
}

fn finish(stop: &mut Stop, outcome: Unit) {
    let finish = stop.finish.take().unwrap();
    assert!(finish.send(outcome).is_ok(), "the task is still there");
}

type Gate = oneshot::Receiver<Unit>;

async fn pass(gate: Gate) -> Unit {
    gate.await.unwrap_or_else(|_| quiet_panic("gate"))
}

/// However a task ends, its capture is dropped before `wait` is woken.
async fn capture_goes_first(
    spawn: impl FnOnce(&Group, Found, Gate) -> Task<()>,
    stop: impl FnOnce(&mut Stop),
) {
    let (parent, end) = Context::background().with_cancel();
    let (finish, gate) = oneshot::channel();
    let (wakes, waker) = counting();
    let found = Arc::new(AtomicUsize::new(usize::MAX));
    let mut group: Group = Group::with_context(&parent);
    let task = spawn(&group, Found(found.clone(), wakes.clone()), gate);
    idle().await;
    let mut wait = group.wait();
    assert!(poll_with(Pin::new(&mut wait), &waker).is_pending());
    let mut by = Stop {
        finish: Some(finish),
        end,
        task,
    };
    stop(&mut by);
    until(|| wakes.woken() > 0).await;
    assert_eq!(found.load(Ordering::SeqCst), 0, "woken before the drop");
    let outcome = AssertUnwindSafe(wait).catch_unwind().now_or_never();
    assert!(outcome.is_some(), "woken for nothing");
}

#[test]
fn g3_task_ends_then_its_capture_is_dropped_before_wait_is_woken() {
    on_current_thread(async {
        let plain = |group: &Group, found, gate| group.spawn(holding(found, pass(gate)));
        let cooperative = |group: &Group, found, gate| {
            group.spawn_with(move |ctx| holding((found, ctx), pass(gate)))
        };
        let blocking = |group: &Group, found, gate: Gate| {
            group.spawn_blocking(move |_| {
                let _found = found;
                gate.blocking_recv().unwrap_or_else(|_| quiet_panic("gate"))
            })
        };
        let returns = |stop: &mut Stop| finish(stop, Ok(()));
        let fails = |stop: &mut Stop| finish(stop, Err("gate".into()));
        let panics = |stop: &mut Stop| drop(stop.finish.take());
        let is_cut = |stop: &mut Stop| stop.end.cancel();
        let is_aborted = |stop: &mut Stop| stop.task.abort();

        capture_goes_first(plain, returns).await;
        capture_goes_first(plain, fails).await;
        capture_goes_first(plain, panics).await;
        capture_goes_first(plain, is_cut).await;
        capture_goes_first(plain, is_aborted).await;
        capture_goes_first(cooperative, returns).await;
        capture_goes_first(cooperative, fails).await;
        capture_goes_first(cooperative, panics).await;
        capture_goes_first(cooperative, is_aborted).await;
        capture_goes_first(blocking, returns).await;
        capture_goes_first(blocking, fails).await;
        capture_goes_first(blocking, panics).await;
    });
}

#[test]
fn g3_task_that_never_ran_ends_then_its_capture_is_dropped_before_wait_is_woken() {
    on_current_thread(async {
        let is_cut = |stop: &mut Stop| stop.end.cancel();
        let queued = |spawn: fn(&Group, Found) -> Task<()>| {
            move |group: &Group, found, _| {
                group.set_limit(Some(1));
                group.spawn(pend());
                spawn(group, found)
            }
        };
        capture_goes_first(
            queued(|group, found| group.spawn(holding(found, pend()))),
            is_cut,
        )
        .await;
        let cooperative = |group: &Group, found| group.spawn_with(move |_| holding(found, pend()));
        capture_goes_first(queued(cooperative), is_cut).await;
        let blocking = |group: &Group, found| group.spawn_blocking(move |_| drop_it(found));
        capture_goes_first(queued(blocking), is_cut).await;
    });
}

fn drop_it(found: Found) -> Unit {
    drop(found);
    Ok(())
}

// G4

#[tokio::test(start_paused = true)]
async fn g4_wait_times_out_twice_then_the_error_is_not_lost() {
    let mut group: Group = Group::new();
    group.spawn_with(async |ctx| {
        ctx.done().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok(())
    });
    group.spawn(async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        fail("late").await
    });
    for second in 1..=6 {
        let wait = tokio::time::timeout(Duration::from_secs(1), group.wait()).await;
        assert!(wait.is_err(), "second {second}");
    }
    assert_eq!(group.wait().await.unwrap_err().to_string(), "late");
}

#[tokio::test]
async fn g4_wait_dropped_then_unregistered() {
    let mut group: Group = Group::new();
    group.spawn(pend());
    let (wakes, waker) = counting();
    let handles = Arc::strong_count(&wakes);
    let mut wait = group.wait();
    assert!(poll_with(Pin::new(&mut wait), &waker).is_pending());
    assert!(poll_with(Pin::new(&mut wait), &waker).is_pending());
    assert_eq!(Arc::strong_count(&wakes), handles + 1, "registered once");
    drop(wait);
    assert_eq!(Arc::strong_count(&wakes), handles);
    drop(group);
    idle().await;
    assert_eq!(wakes.woken(), 0);
}

#[tokio::test]
async fn g4_wait_polled_with_another_waker_then_that_one_is_woken() {
    let (open, gate) = oneshot::channel();
    let mut group: Group = Group::new();
    group.spawn(pass(gate));
    let ((first, old), (second, new)) = (counting(), counting());
    let mut wait = group.wait();
    assert!(poll_with(Pin::new(&mut wait), &old).is_pending());
    assert!(poll_with(Pin::new(&mut wait), &new).is_pending());
    open.send(Ok(())).unwrap();
    idle().await;
    assert_eq!((first.woken(), second.woken()), (0, 1));
    assert!(matches!(poll(&mut wait), Poll::Ready(Ok(()))));
}

on_both_runtimes! {
    async fn g4_waited_again_then_ok() {
        let mut group: Group = Group::new();
        group.spawn(fail("once"));
        let mut wait = group.wait();
        assert_eq!((&mut wait).await.unwrap_err().to_string(), "once");
        wait.await.unwrap();
        group.wait().await.unwrap();
        group.await.unwrap();
    }

    async fn g4_waited_after_a_panic_then_ok() {
        let mut group: Group = Group::new();
        group.spawn(panics("once"));
        assert_eq!(panic_of(group.wait()).await, "once");
        group.wait().await.unwrap();
    }

    async fn g4_all_completed_then_the_context_has_finished() {
        let (mut group, line) = (Group::<errgroup::BoxError>::new(), line!());
        group.spawn(async { Ok(()) });
        group.wait().await.unwrap();
        let end = group.context().err().unwrap();
        assert_eq!(end.reason(), Reason::GroupFinished);
        assert_eq!(end.location().map(|place| place.line()), Some(line));
        let late = group.spawn(pend());
        assert_eq!(cancelled(late).await.reason(), Reason::GroupFinished);
        assert!(group.wait().await.is_err(), "it is told");
        group.wait().await.unwrap();
    }

    /// Refused while the wait itself ended the context: that wait is `Ok`, so the next one tells of it, once.
    async fn g4_spawned_while_wait_ends_the_context_then_the_next_wait_tells_once() {
        let mut group: Group = Group::new();
        let spawner = group.spawner();
        let (tell, told) = mpsc::channel();
        group.context().on_done(move |_| {
            tell.send(spawner.spawn(pend())).unwrap();
        }).detach();
        group.spawn(async { Ok(()) });
        group.wait().await.unwrap();
        assert_eq!(cancelled(told.recv().unwrap()).await.reason(), Reason::GroupFinished);
        let error = group.wait().await.unwrap_err();
        let end: &ContextError = error.downcast_ref().unwrap();
        assert_eq!(end.reason(), Reason::GroupFinished);
        group.wait().await.unwrap();
    }

    async fn g4_spawned_after_the_outcome_then_the_next_wait_tells_once() {
        // How the context ended, and whether what is spawned later is told of.
        type Case = (fn(&Group), bool, bool);
        let cases: [Case; 4] = [
            (|_| {}, false, true),
            (|group| drop(group.spawn(fail("first"))), true, true),
            (|group| group.cancel(), false, false),
            (|group| drop(group.spawn(async { Ok(()) })), false, true),
        ];
        for (end, is_error, is_told) in cases {
            let mut group: Group = Group::new();
            end(&group);
            assert_eq!(group.wait().await.is_err(), is_error);
            group.wait().await.unwrap();
            for spawn in [
                (|group| group.spawn(pend())) as fn(&Group) -> Task<()>,
                |group| group.spawn_with(ignore),
                |group| group.spawn_blocking(|_| Ok(())),
                |group| group.task("late").spawn(pend()),
                |group| group.spawner().spawn(pend()),
            ] {
                let reason = group.context().err().unwrap().reason();
                assert_eq!(cancelled(spawn(&group)).await.reason(), reason);
                drop(spawn(&group));
                assert_eq!(group.wait().await.is_err(), is_told, "{reason:?}");
                group.wait().await.unwrap();
            }
            // The code came back: nobody has to be told.
            assert!(group.try_spawn(pend()).is_err());
            group.wait().await.unwrap();
        }
    }

    async fn g4_spawned_after_the_parents_end_was_told_then_the_next_wait_tells_once() {
        let (parent, handle) = Context::background().with_cancel();
        let mut group: Group = Group::with_context(&parent);
        group.spawn(async { Ok(()) }).await.unwrap();
        handle.cancel();
        group.wait().await.unwrap();
        group.spawn(pend());
        let error = group.wait().await.unwrap_err();
        let end: &ContextError = error.downcast_ref().unwrap();
        assert_eq!(end.reason(), Reason::Cancelled);
        group.wait().await.unwrap();
        no_leaks(&parent);
    }

    async fn g4_no_task_then_wait_returns_at_once() {
        let mut group: Group = Group::new();
        assert!(matches!(poll(&mut group.wait()), Poll::Ready(Ok(()))));
        assert_eq!(group.context().err().unwrap().reason(), Reason::GroupFinished);
    }

    async fn g4_owned_wait_is_wait() {
        let group: Group = Group::new();
        group.spawn(fail("owned"));
        assert_eq!(group.await.unwrap_err().to_string(), "owned");
        let group: Group = Group::new();
        let task = group.spawn(async { Ok(1) });
        group.await.unwrap();
        assert_eq!(task.await.unwrap(), 1);
    }

    async fn g4_owned_wait_dropped_then_the_group_is() {
        let group: Group = Group::new();
        let context = group.context().clone();
        let task = group.spawn_with(ignore);
        let mut wait = group.into_future();
        assert!(poll(&mut wait).is_pending());
        drop(wait);
        assert_eq!(context.err().unwrap().reason(), Reason::GroupDropped);
        stopped_by_drop(task).await;
        no_leaks(&context);
    }

    async fn g4_wait_polled_on_a_foreign_executor_then_it_returns() {
        let mut group: Group =
            Group::builder().runtime(tokio::runtime::Handle::current()).build();
        let foreign = thread::spawn(move || {
            group.spawn(fail("from afar"));
            group.spawn(pend());
            futures::executor::block_on(group.wait())
        });
        until(|| foreign.is_finished()).await;
        let outcome = foreign.join().unwrap();
        assert_eq!(outcome.unwrap_err().to_string(), "from afar");
    }
}

// G7

on_both_runtimes! {
    async fn g7_parent_ends_then_a_task_cut_short_makes_it_an_error() {
        let (parent, handle) = Context::background().with_cancel();
        let mut group: Group<Trouble> = Group::with_context(&parent);
        let task = group.spawn(std::future::pending::<Result<(), _>>());
        handle.cancel_with("enough");
        let Err(Trouble::Ended(error)) = group.wait().await else {
            panic!("not the context's error");
        };
        assert_eq!(error.to_string(), parent.err().unwrap().to_string());
        assert_eq!(cancelled(task).await.to_string(), error.to_string());
        no_leaks(&parent);
    }

    async fn g7_parent_ends_then_a_task_that_passes_it_on_makes_it_an_error() {
        for blocking in [false, true] {
            let (parent, handle) = Context::background().with_cancel();
            let mut group: Group = Group::with_context(&parent);
            let task = match blocking {
                true => group.spawn_blocking(|ctx| {
                    ctx.done_blocking(None);
                    Ok(ctx.check()?)
                }),
                false => group.spawn_with(pass_on),
            };
            handle.cancel();
            let error = group.wait().await.unwrap_err();
            assert_eq!(error.downcast_ref::<ContextError>().unwrap().reason(), Reason::Cancelled);
            assert_eq!(cancelled(task).await.reason(), Reason::Cancelled);
            assert_eq!(group.suppressed(), 0);
        }
    }

    async fn g7_task_not_started_makes_it_an_error() {
        let (parent, handle) = Context::background().with_cancel();
        let mut group: Group = Group::builder().context(&parent).limit(1).build();
        let (started, start) = oneshot::channel();
        let running = group.spawn_with(async |ctx| {
            started.send(()).unwrap();
            obey(ctx).await
        });
        let queued = group.spawn(async { Ok(()) });
        start.await.unwrap();
        handle.cancel();
        assert!(group.wait().await.is_err());
        assert!(running.await.is_ok());
        cancelled(queued).await;
        no_leaks(&parent);
    }

    async fn g7_task_refused_after_the_end_makes_it_an_error() {
        let (parent, handle) = Context::background().with_cancel();
        handle.cancel();
        let mut group: Group = Group::with_context(&parent);
        group.spawn(async { Ok(()) });
        assert!(group.wait().await.is_err());
        let mut none: Group = Group::with_context(&parent);
        none.wait().await.unwrap();
        no_leaks(&parent);
    }

    async fn g7_all_completed_before_the_end_then_ok() {
        let (parent, handle) = Context::background().with_cancel();
        let mut group: Group = Group::with_context(&parent);
        group.spawn(async { Ok(()) }).await.unwrap();
        handle.cancel();
        group.wait().await.unwrap();
        assert_eq!(group.context().err().unwrap().reason(), Reason::Cancelled);
        no_leaks(&parent);
    }

    async fn g7_all_completed_in_spite_of_the_end_then_ok() {
        let (parent, handle) = Context::background().with_cancel();
        let mut group: Group = Group::with_context(&parent);
        let (started, start) = oneshot::channel();
        group.spawn_with(async |ctx| {
            started.send(()).unwrap();
            obey(ctx).await
        });
        start.await.unwrap();
        handle.cancel();
        group.wait().await.unwrap();
        no_leaks(&parent);
    }

    async fn g7_a_failure_outranks_the_end() {
        let (parent, handle) = Context::background().with_cancel();
        let mut group: Group = Group::with_context(&parent);
        let (started, start) = oneshot::channel();
        group.spawn_with(async |ctx| {
            started.send(()).unwrap();
            ctx.done().await;
            fail("its own").await
        });
        group.spawn(pend());
        start.await.unwrap();
        handle.cancel();
        assert_eq!(group.wait().await.unwrap_err().to_string(), "its own");
        assert_eq!(group.context().err().unwrap().reason(), Reason::Cancelled, "the first end");
        no_leaks(&parent);
    }
}

#[tokio::test(start_paused = true)]
async fn g7_deadline_passes_then_the_error_is_a_timeout() {
    let parent = Context::background().with_timeout(Duration::from_secs(3));
    let start = Instant::now();
    let mut group: Group<std::io::Error> = Group::with_context(&parent);
    let task = group.spawn(std::future::pending::<Result<(), _>>());
    let error = group.wait().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(start.elapsed().as_secs(), 3);
    assert!(cancelled(task).await.is_deadline_exceeded());
}

#[tokio::test(start_paused = true)]
async fn g7_all_completed_before_the_deadline_then_ok_after_it() {
    let parent = Context::background().with_timeout(Duration::from_secs(3));
    let mut group: Group = Group::with_context(&parent);
    group.spawn(async { Ok(()) });
    tokio::time::sleep(Duration::from_secs(5)).await;
    group.wait().await.unwrap();
}

// G8

on_both_runtimes! {
    async fn g8_cancelled_by_the_owner_then_being_cut_short_is_no_error() {
        let mut group: Group = limited(3);
        let (leave, left) = mpsc::channel();
        let second = leave.clone();
        let tasks = [
            group.spawn(pend()),
            group.spawn_with(move |ctx| holding(leave, pass_on(ctx))),
            group.spawn_blocking(move |ctx| {
                second.send(()).unwrap();
                ctx.done_blocking(None);
                Ok(ctx.check()?)
            }),
            group.spawn(async { Ok(()) }),
        ];
        until(|| left.try_recv().is_ok()).await;
        let line = line!() + 1;
        group.cancel();
        group.cancel_with("too late to be the cause");
        group.wait().await.unwrap();
        for task in tasks {
            let end = cancelled(task).await;
            assert_eq!(end.reason(), Reason::GroupCancelled);
            assert_eq!(end.location().unwrap().line(), line);
        }
        assert_eq!(group.suppressed(), 0);
    }

    async fn g8_cancelled_with_a_cause_then_the_tasks_see_it() {
        let mut group: Group = Group::new();
        let task = group.spawn(pend());
        group.cancel_with("config reloaded");
        assert!(cancelled(task).await.to_string().contains("config reloaded"));
        assert_eq!(group.context().cause().unwrap().to_string(), "config reloaded");
        group.wait().await.unwrap();
    }

    async fn g8_task_fails_with_its_own_error_after_cancel_then_that_is_returned() {
        let mut group: Group = Group::new();
        start_failing_at_the_end(&group).await;
        group.cancel();
        assert_eq!(group.wait().await.unwrap_err().to_string(), "could not flush");
        assert_eq!(group.context().err().unwrap().reason(), Reason::GroupCancelled);
    }

    async fn g8_failed_before_cancel_then_the_error_is_returned() {
        let mut group: Group = Group::new();
        let failed = group.spawn(fail("before")).await;
        assert!(failed.is_err());
        group.cancel();
        assert_eq!(group.wait().await.unwrap_err().to_string(), "before");
    }

    async fn g8_cancelled_after_the_parents_end_then_that_end_decides() {
        let (parent, handle) = Context::background().with_cancel();
        let mut group: Group = Group::with_context(&parent);
        group.spawn(pend());
        handle.cancel();
        group.cancel();
        assert!(group.wait().await.is_err());
        no_leaks(&parent);
    }

    async fn g8_parent_ends_after_cancel_then_ok() {
        let (parent, handle) = Context::background().with_cancel();
        let mut group: Group = Group::with_context(&parent);
        group.spawn(pend());
        group.cancel();
        handle.cancel();
        group.wait().await.unwrap();
        no_leaks(&parent);
    }

    async fn g8_cancelled_then_a_late_spawn_is_no_error() {
        let mut group: Group = Group::new();
        group.cancel();
        cancelled(group.spawn(pend())).await;
        group.wait().await.unwrap();
    }
}
