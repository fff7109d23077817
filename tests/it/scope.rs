//! Scopes: tasks that borrow, in the caller's task. A guarantee that they share with groups has the group's number.
#![allow(clippy::unit_arg)] // `Ok(work().await)` is what users write

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::mem;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;

use errgroup::{
    AbortHandle, BoxError, Context, ContextError, Group, LocalScope, Reason, Scope, Spawner, Task,
    scope, scope_local,
};
use futures::StreamExt;
use futures::executor::block_on;
use futures::future::join_all;
use tokio::sync::{Semaphore, oneshot};

use crate::group_support::*;
use crate::support::{Log, background, ms, reason};

type Locals = Rc<RefCell<Vec<&'static str>>>;

/// Runs its function in a scope, outside of any runtime.
macro_rules! in_scope {
    ($body:expr) => {
        block_on(scope(&background(), $body))
    };
}

fn add(counter: &AtomicUsize) {
    counter.fetch_add(1, SeqCst);
}

/// Counts its drop.
fn counted(counter: &AtomicUsize) -> OnDrop<impl FnOnce()> {
    OnDrop::new(|| add(counter))
}

fn text<T>(result: Result<T, BoxError>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(error) => error.to_string(),
    }
}

// What it is for.

#[test]
fn two_halves_of_a_slice_are_written_to_by_two_tasks() {
    let mut numbers = [4, 3, 2, 1, 9, 8, 7];
    let (left, right) = numbers.split_at_mut(4);
    let sums = in_scope!(async |scope: Scope| {
        let left = scope.spawn(async {
            left.sort_unstable();
            Ok(left.iter().sum::<i32>())
        });
        let right = scope.spawn(async {
            right.sort_unstable();
            Ok(right.iter().sum::<i32>())
        });
        Ok((left.await?, right.await?))
    });
    assert_eq!(sums.unwrap(), (10, 24));
    assert_eq!(numbers, [1, 2, 3, 4, 7, 8, 9]);
}

#[test]
fn values_borrow_from_outside_too() {
    let text = String::from("one three two");
    let longest = in_scope!(async |scope: Scope| {
        let tasks: Vec<Task<&str>> = text
            .split(' ')
            .map(|word| scope.spawn(async move { Ok(word) }))
            .collect();
        let words = join_all(tasks).await;
        let words = words.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(words.into_iter().max_by_key(|word| word.len()))
    });
    assert_eq!(longest.unwrap(), Some("three"));
}

#[test]
fn tasks_wait_for_each_other_then_they_are_concurrent() {
    let log = Log::new();
    let (there, back) = (Semaphore::new(0), Semaphore::new(0));
    in_scope!(async |scope: Scope| {
        scope.spawn(async {
            log.push("ping");
            there.add_permits(1);
            back.acquire().await?.forget();
            log.push("pong");
            Ok(())
        });
        scope.spawn(async {
            there.acquire().await?.forget();
            log.push("and");
            back.add_permits(1);
            Ok(())
        });
        Ok(())
    })
    .unwrap();
    assert_eq!(log.take(), ["ping", "and", "pong"]);
}

#[test]
fn local_scope_takes_what_is_not_send() {
    let log = Locals::default();
    let count = Cell::new(0);
    let value = block_on(scope_local(&background(), async |scope: LocalScope| {
        let task = scope.spawn({
            let (log, count) = (log.clone(), &count);
            async move {
                turns(1).await;
                log.borrow_mut().push("task");
                count.set(count.get() + 1);
                Ok(Rc::new(7))
            }
        });
        let inner = scope.clone();
        scope.task("inner").spawn(async move { Ok(drop(inner)) });
        log.borrow_mut().push("body");
        Ok(*task.await?)
    }));
    assert_eq!((value.unwrap(), count.get()), (7, 1));
    assert_eq!(*log.borrow(), ["body", "task"]);
}

#[test]
fn local_scope_fails_then_the_others_are_dropped() {
    let drops = AtomicUsize::new(0);
    let result = block_on(scope_local(&background(), async |scope: LocalScope| {
        let not_send = Rc::new(());
        scope.spawn(holding((not_send, counted(&drops)), pend()));
        scope.task("b").spawn(fail("bad"));
        pend().await
    }));
    assert_eq!(text(result), "bad");
    assert_eq!(drops.load(SeqCst), 1);
}

on_both_runtimes! {
    async fn scope_that_owns_what_it_borrows_is_spawned() {
        let words = ["one".to_owned(), "two".to_owned()];
        let task = tokio::spawn(async move {
            let lengths = scope(&background(), async |scope: Scope| {
                let tasks = words.iter().map(|word| scope.spawn(async {
                    tokio::time::sleep(ms(1)).await;
                    Ok(word.len())
                }));
                let mut sum = 0;
                for task in tasks.collect::<Vec<_>>() {
                    sum += task.await?;
                }
                Ok(sum)
            });
            lengths.await
        });
        assert_eq!(task.await.unwrap().unwrap(), 6);
    }

    async fn scope_that_borrows_nothing_is_spawned() {
        let scoped = scope(&background(), async |scope: Scope| {
            let task = scope.spawn(async { Ok(turns(3).await) });
            Ok(task.await?)
        });
        tokio::spawn(scoped).await.unwrap().unwrap();
    }
}

// G1

#[test]
fn g1_first_error_is_returned_with_its_type() {
    let result = block_on(scope(&background(), async |scope| {
        scope.spawn(async { Ok(turns(1).await) });
        scope.spawn(async {
            turns(1).await;
            Err::<(), _>(Trouble::Own("first"))
        });
        scope.spawn(async {
            turns(2).await;
            Err::<(), _>(Trouble::Own("second"))
        });
        Ok(pending::<()>().await)
    }));
    assert!(matches!(result, Err(Trouble::Own("first"))));
}

#[test]
fn g1_two_fail_in_one_poll_then_the_first_is_returned_and_the_second_is_dropped() {
    let polled = AtomicUsize::new(0);
    let result = in_scope!(async |scope: Scope| {
        scope.spawn(fail("first"));
        scope.spawn(async {
            add(&polled);
            fail("second").await
        });
        Ok(())
    });
    assert_eq!(text(result), "first");
    assert_eq!(polled.load(SeqCst), 0);
}

#[test]
fn g1_task_of_the_failed_is_awaited_then_passing_it_on_is_no_failure() {
    let result = block_on(scope(&background(), async |scope| {
        let task = scope.spawn(async {
            turns(2).await;
            Err::<(), _>(Trouble::Own("its own"))
        });
        task.await?;
        Ok(())
    }));
    assert!(matches!(result, Err(Trouble::Own("its own"))));
}

#[test]
fn g1_end_is_passed_on_then_it_is_no_failure() {
    let (parent, handle) = background().with_cancel();
    let result = block_on(scope(&parent, async |scope| {
        let ctx = scope.context().clone();
        scope.spawn(async move {
            handle.cancel();
            ctx.check()?;
            Ok::<(), BoxError>(())
        });
        pend().await
    }));
    let end = result.unwrap_err().downcast::<ContextError>().unwrap();
    assert_eq!(end.reason(), Reason::Cancelled);
}

#[test]
fn g1_body_fails_then_its_error_is_the_scopes() {
    let drops = AtomicUsize::new(0);
    let result: Result<(), _> = block_on(scope(&background(), async |scope| {
        scope.spawn(holding(counted(&drops), pending::<Result<(), _>>()));
        Err(Trouble::Own("body"))
    }));
    assert!(matches!(result, Err(Trouble::Own("body"))));
    assert_eq!(drops.load(SeqCst), 1);
}

// G2

#[test]
fn g2_task_fails_then_the_end_names_it_and_its_place_and_the_siblings_are_dropped_at_their_await() {
    let drops = AtomicUsize::new(0);
    let (mut sibling, mut context) = (None, None);
    let mut line = 0;
    let result = in_scope!(async |scope: Scope| {
        context = Some(scope.context().clone());
        sibling = Some(scope.spawn(holding(counted(&drops), pend())));
        line = line!() + 1;
        scope.task("port").spawn(fail("not a number"));
        pend().await
    });
    assert_eq!(text(result), "not a number");
    assert_eq!(drops.load(SeqCst), 1);
    let end = context.unwrap().err().unwrap();
    assert_eq!(end.reason(), Reason::TaskFailed);
    let place = format!("tests/it/scope.rs:{line}:");
    let text = format!(r#"cancelled: task "port" failed: not a number (spawned at {place}"#);
    assert!(end.to_string().starts_with(&text), "{end}");
    assert_eq!(block_on(cancelled(sibling.unwrap())), end);
}

#[test]
fn g2_task_without_a_name_fails_then_its_id_is_named() {
    let mut failed = None;
    let result = in_scope!(async |scope: Scope| {
        failed = Some(scope.spawn(fail("bad")));
        Ok(())
    });
    assert_eq!(text(result), "bad");
    assert_eq!(block_on(own_end(failed.unwrap())), Reason::TaskFailed);
}

// G3

#[test]
fn g3_body_is_ready_first_then_all_are_waited_for() {
    let drops = AtomicUsize::new(0);
    let value = in_scope!(async |scope: Scope| {
        for n in 0..10 {
            scope.spawn(holding(counted(&drops), takes_turns(n)));
        }
        Ok("body")
    });
    assert_eq!((value.unwrap(), drops.load(SeqCst)), ("body", 10));
}

#[test]
fn g3_value_that_nobody_fetches_is_dropped_before_it_returns() {
    let drops = AtomicUsize::new(0);
    let kept = in_scope!(async |scope: Scope| {
        scope.spawn(async { Ok(counted(&drops)) });
        let task = scope.spawn(async { Ok(counted(&drops)) });
        while !task.is_finished() {
            turns(1).await;
        }
        drop(task);
        assert_eq!(drops.load(SeqCst), 2);
        Ok(scope.spawn(async { Ok(counted(&drops)) }))
    });
    assert_eq!(drops.load(SeqCst), 2);
    drop(kept);
    assert_eq!(drops.load(SeqCst), 3);
}

#[test]
fn g3_context_has_ended_when_it_returns() {
    let context = in_scope!(async |scope: Scope| Ok(scope.context().clone()));
    assert_eq!(reason(&context.unwrap()), Some(Reason::GroupFinished));
}

// G5

#[test]
fn g5_task_panics_then_the_others_end_and_the_payload_is_the_original_one() {
    let drops = AtomicUsize::new(0);
    let mut sibling = None;
    let payload = block_on(payload_of(scope(&background(), async |scope: Scope| {
        sibling = Some(scope.spawn(holding(counted(&drops), pend())));
        scope
            .task("p")
            .spawn(async { std::panic::panic_any(7_u32) as Unit });
        pend().await
    })));
    assert_eq!(payload.downcast_ref(), Some(&7_u32));
    assert_eq!(drops.load(SeqCst), 1);
    let end = block_on(cancelled(sibling.unwrap()));
    assert_eq!(
        (end.reason(), end.task()),
        (Reason::TaskPanicked, Some("p"))
    );
}

#[test]
fn g5_error_first_then_the_panic_of_a_destructor_outranks_it() {
    let drops = AtomicUsize::new(0);
    let scoped = scope(&background(), async |scope: Scope| {
        scope.spawn(holding(counted(&drops), pend()));
        scope.spawn(pend_then_panic_in_drop("dropped"));
        scope.spawn(pend_then_panic_in_drop("dropped as well"));
        scope.spawn(holding(counted(&drops), pend()));
        scope.spawn(fail("bad"));
        pend().await
    });
    let text = block_on(panic_of(scoped));
    assert!(["dropped", "dropped as well"].contains(&text), "{text}");
    assert_eq!(drops.load(SeqCst), 2);
}

#[test]
fn g5_body_panics_then_it_is_resumed() {
    let drops = AtomicUsize::new(0);
    let scoped = scope(&background(), async |scope: Scope| {
        scope.spawn(holding(counted(&drops), pend()));
        turns(1).await;
        quiet_panic("body") as Unit
    });
    assert_eq!(block_on(panic_of(scoped)), "body");
    assert_eq!(drops.load(SeqCst), 1);

    let made = |_: Scope| -> std::future::Ready<Unit> { quiet_panic("not made") };
    assert_eq!(block_on(panic_of(scope(&background(), made))), "not made");
}

#[test]
fn g5_body_panics_in_its_drop_then_it_is_resumed() {
    let scoped = scope(&background(), async |scope: Scope| {
        let _bomb = OnDrop::new(|| quiet_panic("body's"));
        scope.spawn(fail("bad"));
        pend().await
    });
    assert_eq!(block_on(panic_of(scoped)), "body's");
}

// G6

#[test]
fn g6_dropped_half_way_then_all_are_dropped_and_told_why() {
    let drops = AtomicUsize::new(0);
    let kept = Mutex::new(Vec::new());
    let context = Mutex::new(None);
    let mut scoped = Box::pin(scope(&background(), async |scope: Scope| {
        let _body = counted(&drops);
        *context.lock().unwrap() = Some(scope.context().clone());
        let polled = scope.spawn(holding(counted(&drops), pend()));
        turns(1).await;
        let queued = scope.spawn(holding(counted(&drops), pend()));
        kept.lock().unwrap().extend([polled, queued]);
        pend().await
    }));
    assert!(poll(&mut scoped).is_pending());
    assert!(poll(&mut scoped).is_pending());
    assert_eq!(drops.load(SeqCst), 0);
    drop(scoped);
    assert_eq!(drops.load(SeqCst), 3);
    let context = context.into_inner().unwrap().unwrap();
    assert_eq!(reason(&context), Some(Reason::GroupDropped));
    for task in kept.into_inner().unwrap() {
        assert_eq!(block_on(cancelled(task)).reason(), Reason::GroupDropped);
    }
}

#[test]
fn g6_dropped_with_destructors_that_panic_then_each_is_dropped_and_nothing_comes_out() {
    let drops = AtomicUsize::new(0);
    let mut scoped = Box::pin(scope(&background(), async |scope: Scope| {
        let _body = OnDrop::new(|| quiet_panic("body's"));
        for _ in 0..3 {
            scope.spawn(holding(counted(&drops), pend()));
            scope.spawn(pend_then_panic_in_drop("dropped"));
        }
        pend().await
    }));
    assert!(poll(&mut scoped).is_pending());
    drop(scoped);
    assert_eq!(drops.load(SeqCst), 3);
}

#[test]
fn g6_dropped_unpolled_then_the_body_never_ran() {
    let ran = Cell::new(false);
    drop(scope(&background(), async |_: Scope| Ok(ran.set(true))));
    assert!(!ran.get());
}

#[test]
fn forgotten_then_nothing_runs_and_what_it_borrows_is_whole() {
    let words = ["one".to_owned()];
    let (parent, handle) = background().with_cancel();
    let drops = AtomicUsize::new(0);
    let kept = Mutex::new(None);
    let mut scoped = Box::pin(scope(&parent, async |scope: Scope| {
        let task = scope.spawn(holding(counted(&drops), async {
            pend().await?;
            Ok(words.len())
        }));
        *kept.lock().unwrap() = Some((task, scope.clone()));
        pend().await
    }));
    assert!(poll(&mut scoped).is_pending());
    mem::forget(scoped);
    let (mut task, scope) = kept.lock().unwrap().take().unwrap();
    task.abort();
    assert!(poll(&mut task).is_pending());
    handle.cancel();
    assert!(poll(&mut task).is_pending());
    let late = scope.spawn(async { Ok(()) });
    assert_eq!(block_on(cancelled(late)).reason(), Reason::Cancelled);
    assert_eq!((drops.load(SeqCst), &*words[0]), (0, "one"));
}

// G7

#[test]
fn g7_parent_ends_then_all_are_dropped_and_that_is_the_error() {
    let drops = AtomicUsize::new(0);
    let (parent, handle) = background().with_cancel();
    let mut scoped = Box::pin(scope(&parent, async |scope: Scope| {
        scope.spawn(holding(counted(&drops), pend()));
        scope.spawn(holding(counted(&drops), pend()));
        pend().await
    }));
    let (wakes, waker) = counting();
    assert!(poll_with(scoped.as_mut(), &waker).is_pending());
    handle.cancel_with("enough");
    assert!(wakes.woken() > 0);
    let Poll::Ready(Err(error)) = poll_with(scoped.as_mut(), &waker) else {
        panic!("it has ended");
    };
    let end = error.downcast_ref::<ContextError>().unwrap();
    assert_eq!(end, &parent.err().unwrap());
    assert_eq!(drops.load(SeqCst), 2);
}

#[test]
fn g7_parent_ends_when_all_have_completed_then_it_is_ok() {
    let (parent, handle) = background().with_cancel();
    let value = block_on(scope(&parent, async |scope: Scope| {
        let task = scope.spawn(async { Ok(7) });
        let value = task.await?;
        handle.cancel();
        Ok(value)
    }));
    assert_eq!(value.unwrap(), 7);
}

on_both_runtimes! {
    async fn g7_deadline_passes_then_all_are_dropped() {
        let drops = AtomicUsize::new(0);
        let ctx = background().with_timeout(ms(20));
        let result = scope(&ctx, async |scope: Scope| {
            scope.spawn(holding(counted(&drops), pend()));
            pend().await
        });
        let end = result.await.unwrap_err().downcast::<ContextError>().unwrap();
        assert!(end.is_deadline_exceeded());
        assert_eq!(drops.load(SeqCst), 1);
    }
}

#[test]
fn g7_deadline_passes_without_a_runtime() {
    let ctx = background().with_timeout(ms(20));
    let result = block_on(scope(&ctx, async |scope: Scope| {
        scope.spawn(pend());
        pend().await
    }));
    let end = result.unwrap_err().downcast::<ContextError>().unwrap();
    assert!(end.is_deadline_exceeded());
}

#[test]
fn g7_deadline_passes_under_a_task_that_is_always_ready_then_it_is_stopped() {
    let ctx = background().with_timeout(ms(20));
    let result = block_on(scope(&ctx, async |scope: Scope| {
        scope.spawn(spin());
        Ok(())
    }));
    let end = result.unwrap_err().downcast::<ContextError>().unwrap();
    assert!(end.is_deadline_exceeded());
}

// G9

#[test]
fn g9_parent_has_ended_then_the_body_never_runs() {
    let (parent, handle) = background().with_cancel();
    handle.cancel();
    let ran = Cell::new(false);
    let result = block_on(scope(&parent, async |_: Scope| Ok(ran.set(true))));
    let end = result.unwrap_err().downcast::<ContextError>().unwrap();
    assert_eq!(end.reason(), Reason::Cancelled);
    assert!(!ran.get());
}

#[test]
fn g9_parent_ends_before_the_first_poll_then_a_queued_task_never_runs() {
    let ran = AtomicUsize::new(0);
    let (parent, handle) = background().with_cancel();
    let mut queued = None;
    let result = block_on(scope(&parent, async |scope: Scope| {
        queued = Some(scope.spawn(async { Ok(add(&ran)) }));
        handle.cancel();
        pend().await
    }));
    assert!(result.is_err());
    let end = block_on(cancelled(queued.unwrap()));
    assert_eq!(end.reason(), Reason::Cancelled);
    assert_eq!(ran.load(SeqCst), 0);
}

#[test]
fn g9_spawned_after_a_failure_then_dropped_unpolled_and_told() {
    let drops = AtomicUsize::new(0);
    let ran = AtomicUsize::new(0);
    let late = Mutex::new(None);
    let result = in_scope!(async |scope: Scope| {
        let inner = scope.clone();
        let (drops, ran, late) = (&drops, &ran, &late);
        let at_the_end = OnDrop::new(move || {
            let value = counted(drops);
            let task = inner.spawn(async move {
                add(ran);
                Ok(drop(value))
            });
            assert!(task.is_finished());
            *late.lock().unwrap() = Some(task);
        });
        scope.spawn(holding(at_the_end, pend()));
        scope.spawn(fail("bad"));
        pend().await
    });
    assert_eq!(text(result), "bad");
    assert_eq!((drops.load(SeqCst), ran.load(SeqCst)), (1, 0));
    let late = late.into_inner().unwrap().unwrap();
    assert_eq!(block_on(cancelled(late)).reason(), Reason::TaskFailed);
}

#[test]
fn g9_handle_is_kept_past_the_scope_then_it_refuses() {
    let kept = in_scope!(async |scope: Scope| Ok(scope.clone())).unwrap();
    let late = kept.spawn(async { Ok(()) });
    assert_eq!(block_on(cancelled(late)).reason(), Reason::GroupFinished);
}

// G11

#[test]
fn g11_aborted_at_its_await_then_dropped_and_no_error() {
    let drops = AtomicUsize::new(0);
    let value = in_scope!(async |scope: Scope| {
        let task = scope.spawn(holding(counted(&drops), pend()));
        let other = scope.spawn(async {
            turns(5).await;
            Ok(7)
        });
        turns(2).await;
        assert!(!task.is_finished());
        task.abort();
        assert_eq!(own_end(task).await, Reason::TaskAborted);
        assert_eq!(drops.load(SeqCst), 1);
        Ok(other.await?)
    });
    assert_eq!(value.unwrap(), 7);
}

#[test]
fn g11_aborted_before_its_first_poll_then_dropped_unpolled() {
    let (ran, drops) = (AtomicUsize::new(0), AtomicUsize::new(0));
    in_scope!(async |scope: Scope| {
        let value = counted(&drops);
        let task = scope.spawn(async {
            add(&ran);
            Ok(drop(value))
        });
        task.abort();
        task.abort();
        assert_eq!(own_end(task).await, Reason::TaskAborted);
        Ok(())
    })
    .unwrap();
    assert_eq!((ran.load(SeqCst), drops.load(SeqCst)), (0, 1));
}

#[test]
fn g11_finished_task_aborted_then_it_keeps_its_result() {
    in_scope!(async |scope: Scope| {
        let task = scope.spawn(async { Ok(7) });
        let handle = task.abort_handle();
        while !task.is_finished() {
            turns(1).await;
        }
        assert!(handle.is_finished());
        handle.abort();
        task.abort();
        assert_eq!(task.await?, 7);
        Ok(())
    })
    .unwrap();
}

#[test]
fn g11_abort_handle_is_made_early_or_late_and_kept() {
    let drops = AtomicUsize::new(0);
    let handles: Vec<AbortHandle> = in_scope!(async |scope: Scope| {
        let early = scope.spawn(holding(counted(&drops), pend()));
        let handle = early.abort_handle();
        assert_eq!(handle.id(), early.id());
        turns(2).await;
        let late = scope.spawn(holding(counted(&drops), pend()));
        turns(2).await;
        let handles = vec![handle, late.abort_handle(), late.abort_handle()];
        for handle in &handles {
            assert!(!handle.is_finished());
            handle.abort();
        }
        assert_eq!(own_end(early).await, Reason::TaskAborted);
        assert_eq!(own_end(late).await, Reason::TaskAborted);
        Ok(handles)
    })
    .unwrap();
    assert_eq!(drops.load(SeqCst), 2);
    assert!(handles.iter().all(AbortHandle::is_finished));
}

#[test]
fn g11_task_aborts_itself_then_it_ends_at_its_await() {
    let after = AtomicUsize::new(0);
    in_scope!(async |scope: Scope| {
        let (send, receive) = oneshot::channel::<AbortHandle>();
        let task = scope.spawn(async {
            receive.await?.abort();
            pending::<()>().await;
            Ok(add(&after))
        });
        send.send(task.abort_handle()).unwrap();
        assert_eq!(own_end(task).await, Reason::TaskAborted);
        Ok(())
    })
    .unwrap();
    assert_eq!(after.load(SeqCst), 0);
}

#[test]
fn g11_aborted_from_another_thread_then_the_scope_is_woken() {
    let (send, receive) = std::sync::mpsc::channel::<AbortHandle>();
    thread::scope(|threads| {
        threads.spawn(move || receive.recv().unwrap().abort());
        in_scope!(async |scope: Scope| {
            let task = scope.spawn(pend());
            turns(2).await;
            send.send(task.abort_handle()).unwrap();
            assert_eq!(own_end(task).await, Reason::TaskAborted);
            Ok(())
        })
        .unwrap();
    });
}

#[test]
fn g11_aborted_then_the_parent_ends_then_nothing_was_cut_short() {
    let (parent, handle) = background().with_cancel();
    let mut aborted = None;
    let value = block_on(scope(&parent, async |scope: Scope| {
        let task = scope.spawn(pend());
        turns(2).await;
        task.abort();
        aborted = Some(task);
        handle.cancel();
        Ok(7)
    }));
    assert_eq!(value.unwrap(), 7);
    assert_eq!(block_on(own_end(aborted.unwrap())), Reason::TaskAborted);
}

#[test]
fn g11_aborted_then_its_destructor_panics_and_that_is_the_tasks() {
    let scoped = scope(&background(), async |scope: Scope| {
        let task = scope.spawn(pend_then_panic_in_drop("dropped"));
        turns(2).await;
        task.abort();
        pend().await
    });
    assert_eq!(block_on(panic_of(scoped)), "dropped");
}

#[test]
fn task_is_polled_after_its_output_then_it_panics() {
    in_scope!(async |scope: Scope| {
        let mut task = scope.spawn(async { Ok(()) });
        (&mut task).await?;
        let text = crate::support::panic_text(|| poll(&mut task));
        assert_eq!(
            text,
            "errgroup: Task polled after it had yielded its output"
        );
        Ok(())
    })
    .unwrap();
}

// G12

fn nest<'env>(
    scope: Scope<'env>,
    depth: usize,
    count: &'env AtomicUsize,
) -> impl Future<Output = Unit> + Send + 'env {
    let future: std::pin::Pin<Box<dyn Future<Output = Unit> + Send + 'env>> =
        Box::pin(async move {
            add(count);
            if depth > 0 {
                scope.spawn(nest(scope.clone(), depth - 1, count));
            }
            Ok(())
        });
    future
}

#[test]
fn g12_tasks_spawn_tasks_to_depth_1000_then_all_are_waited_for() {
    let count = AtomicUsize::new(0);
    in_scope!(async |scope: Scope| Ok(drop(scope.spawn(nest(scope.clone(), 1000, &count)))))
        .unwrap();
    assert_eq!(count.load(SeqCst), 1001);
}

#[test]
fn g12_task_spawns_10_000_then_all_are_waited_for() {
    let count = AtomicUsize::new(0);
    in_scope!(async |scope: Scope| {
        let inner = scope.clone();
        let count = &count;
        scope.spawn(async move {
            for _ in 0..10_000 {
                inner.spawn(async move { Ok(add(count)) });
            }
            Ok(())
        });
        Ok(())
    })
    .unwrap();
    assert_eq!(count.load(SeqCst), 10_000);
}

#[test]
fn g12_spawned_from_another_thread_then_the_scope_is_woken() {
    let count = AtomicUsize::new(0);
    let (send, receive) = std::sync::mpsc::channel::<Scope<'_>>();
    thread::scope(|threads| {
        let count = &count;
        threads.spawn(move || {
            let scope = receive.recv().unwrap();
            for _ in 0..100 {
                scope.spawn(async move { Ok(add(count)) });
                thread::yield_now();
            }
            scope.spawn(fail("done"));
        });
        let result = in_scope!(async |scope: Scope<'_>| {
            send.send(scope.clone()).unwrap();
            pend().await
        });
        assert_eq!(text(result), "done");
    });
    assert_eq!(count.load(SeqCst), 100);
}

// G13

on_both_runtimes! {
    async fn g13_group_is_dropped_in_a_scopes_task_then_the_scope_waits_for_its_tasks() {
        let gauge = Arc::new(Gauge::default());
        let busy = gauge.clone();
        scope(&background(), async |scope: Scope| {
            let ctx = scope.context().clone();
            scope.spawn(async move {
                let group: Group = Group::with_context(&ctx);
                let (start, started) = oneshot::channel();
                let (finish, wait) = std::sync::mpsc::channel::<()>();
                group.spawn_blocking(move |_| {
                    let _busy = busy.enter();
                    start.send(()).unwrap();
                    let _ = wait.recv();
                    thread::sleep(ms(10));
                    Ok(())
                });
                started.await?;
                drop(group);
                drop(finish);
                Ok(())
            });
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!((gauge.now(), gauge.peak()), (0, 1));
    }

    async fn g13_group_is_dropped_in_a_scope_that_is_dropped_then_the_group_around_waits_for_its_tasks() {
        let gauge = Arc::new(Gauge::default());
        let busy = gauge.clone();
        let (finish, wait) = std::sync::mpsc::channel::<()>();
        let mut outer: Group = Group::new();
        let (start, started) = oneshot::channel();
        let ctx = outer.context().clone();
        outer.spawn(async move {
            scope(&ctx, async |scope: Scope| {
                let ctx = scope.context().clone();
                scope.spawn(async move {
                    let group: Group = Group::with_context(&ctx);
                    group.spawn_blocking(move |_| {
                        let _busy = busy.enter();
                        start.send(()).unwrap();
                        let _ = wait.recv();
                        thread::sleep(ms(10));
                        Ok(())
                    });
                    pend().await
                });
                pend().await
            })
            .await
        });
        started.await.unwrap();
        outer.cancel();
        until(|| true).await;
        drop(finish);
        outer.wait().await.unwrap();
        assert_eq!((gauge.now(), gauge.peak()), (0, 1));
    }

    async fn g13_scope_in_a_groups_task_fails_then_it_is_that_tasks_error() {
        let words = ["one", "two"];
        let result = Group::run(&background(), async |group: Spawner| {
            let ctx = group.context().clone();
            let count = group.task("counts").spawn(async move {
                scope(&ctx, async |scope: Scope| {
                    scope.task("inner").spawn(async {
                        match words.len() {
                            2 => fail("two are too many").await,
                            _ => Ok(()),
                        }
                    });
                    pend().await
                })
                .await
            });
            Ok(count.await?)
        });
        assert_eq!(text(result.await), "two are too many");
    }
}

#[test]
fn g13_outer_scope_ends_then_the_inner_one_does_with_its_reason() {
    let ends = Mutex::new(Vec::new());
    let drops = AtomicUsize::new(0);
    let result = in_scope!(async |outer: Scope| {
        let ctx = outer.context().clone();
        let (ends, drops) = (&ends, &drops);
        outer.spawn(async move {
            scope(&ctx, async |inner: Scope| {
                let ctx = inner.context().clone();
                let tell =
                    OnDrop::new(move || ends.lock().unwrap().push(ctx.err().unwrap().reason()));
                inner.spawn(holding(tell, pend()));
                inner.spawn(holding(counted(drops), pend()));
                pend().await
            })
            .await
        });
        turns(3).await;
        outer.spawn(fail("outer"));
        pend().await
    });
    assert_eq!(text(result), "outer");
    assert_eq!(ends.into_inner().unwrap(), [Reason::TaskFailed]);
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn g13_scopes_ten_deep_then_the_innermost_value_comes_out() {
    fn deep(
        ctx: Context,
        n: usize,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<usize, BoxError>> + Send>> {
        Box::pin(async move {
            if n == 0 {
                return Ok(0);
            }
            scope(&ctx, async |scope: Scope| {
                let task = scope.spawn(deep(scope.context().clone(), n - 1));
                Ok(task.await? + 1)
            })
            .await
        })
    }
    assert_eq!(block_on(deep(background(), 10)).unwrap(), 10);
}

// G14

#[test]
fn g14_tasks_that_are_always_ready_starve_neither_siblings_nor_the_end() {
    let result = in_scope!(async |scope: Scope| {
        for _ in 0..3 {
            scope.spawn(spin());
        }
        scope.spawn(async {
            turns(10).await;
            fail("after ten turns").await
        });
        pend().await
    });
    assert_eq!(text(result), "after ten turns");
}

#[test]
fn g14_scope_is_always_ready_then_others_of_the_runtime_have_their_turn() {
    on_current_thread(async {
        let endless = tokio::spawn(scope(&background(), async |scope: Scope| {
            scope.spawn(spin());
            // Each ends at once, and spawns the next.
            fn again(
                scope: Scope<'static>,
            ) -> std::pin::Pin<Box<dyn Future<Output = Unit> + Send>> {
                Box::pin(async move {
                    scope.spawn(again(scope.clone()));
                    Ok(())
                })
            }
            scope.spawn(again(scope.clone()));
            pend().await
        }));
        idle().await;
        endless.abort();
        assert!(endless.await.unwrap_err().is_cancelled());
    });
}

#[test]
fn g14_task_spawns_and_yields_for_ever_then_others_of_the_runtime_have_their_turn() {
    on_current_thread(async {
        let endless = tokio::spawn(scope(&background(), async |scope: Scope| {
            loop {
                scope.spawn(pend());
                turns(1).await;
            }
            #[expect(unreachable_code, reason = "it says the type")]
            Ok(())
        }));
        idle().await;
        endless.abort();
        assert!(endless.await.unwrap_err().is_cancelled());
    });
}

#[test]
fn g14_end_comes_between_two_polls_then_nothing_is_polled_again() {
    let polls = AtomicUsize::new(0);
    let (parent, handle) = background().with_cancel();
    let mut scoped = Box::pin(scope(&parent, async |scope: Scope| {
        for _ in 0..3 {
            scope.spawn(poll_fn(|cx| {
                add(&polls);
                cx.waker().wake_by_ref();
                Poll::<Unit>::Pending
            }));
        }
        pend().await
    }));
    while polls.load(SeqCst) < 9 {
        assert!(poll(&mut scoped).is_pending());
    }
    let before = polls.load(SeqCst);
    handle.cancel();
    assert!(poll(&mut scoped).is_ready());
    assert_eq!(polls.load(SeqCst), before);
}

#[test]
fn g14_task_ends_the_context_in_its_poll_then_those_after_it_are_not_polled() {
    let polls = AtomicUsize::new(0);
    let (parent, handle) = background().with_cancel();
    let result = block_on(scope(&parent, async |scope: Scope| {
        scope.spawn(poll_fn(|_| {
            handle.cancel();
            Poll::<Unit>::Pending
        }));
        scope.spawn(poll_fn(|_| {
            add(&polls);
            Poll::<Unit>::Pending
        }));
        Ok(())
    }));
    assert!(result.is_err());
    assert_eq!(polls.load(SeqCst), 0);
}

// Wakers

/// Waits for ever, and leaves its waker with the test.
fn leaves_waker(wakers: &Mutex<Vec<Waker>>, polls: &AtomicUsize) -> impl Future<Output = Unit> {
    poll_fn(|cx| {
        add(polls);
        wakers.lock().unwrap().push(cx.waker().clone());
        Poll::Pending
    })
}

#[test]
fn task_wakes_another_then_only_that_is_polled() {
    let wakers = Mutex::new(Vec::new());
    let polls = [const { AtomicUsize::new(0) }; 3];
    let wake = AtomicUsize::new(9);
    let mut scoped = Box::pin(scope(&background(), async |scope: Scope| {
        for polls in &polls {
            scope.spawn(leaves_waker(&wakers, polls));
        }
        poll_fn(|cx| {
            if let Some(waker) = wakers.lock().unwrap().get(wake.load(SeqCst)) {
                waker.wake_by_ref();
            }
            wakers.lock().unwrap().push(cx.waker().clone());
            Poll::<Unit>::Pending
        })
        .await
    }));
    let count = || polls.each_ref().map(|polls| polls.load(SeqCst));
    let (wakes, waker) = counting();
    assert!(poll_with(scoped.as_mut(), &waker).is_pending());
    assert_eq!(count(), [1, 1, 1]);
    // The body's, which wakes the second task.
    wake.store(2, SeqCst);
    let body = wakers.lock().unwrap()[0].clone();
    let before = wakes.woken();
    body.wake_by_ref();
    assert_eq!(wakes.woken(), before + 1);
    assert!(poll_with(scoped.as_mut(), &waker).is_pending());
    assert_eq!(count(), [1, 2, 1]);
    // Nobody's.
    wake.store(9, SeqCst);
    assert!(poll_with(scoped.as_mut(), &waker).is_pending());
    assert_eq!(count(), [1, 2, 1]);
}

#[test]
fn task_that_has_ended_is_woken_then_nothing_happens() {
    let wakers = Mutex::new(Vec::<Waker>::new());
    let polls = AtomicUsize::new(0);
    in_scope!(async |scope: Scope| {
        let task = scope.spawn(poll_fn(|cx| {
            add(&polls);
            wakers.lock().unwrap().push(cx.waker().clone());
            match polls.load(SeqCst) {
                1 => Poll::Pending,
                _ => Poll::Ready(Ok(())),
            }
        }));
        turns(2).await;
        wakers.lock().unwrap()[0].wake_by_ref();
        task.await?;
        for _ in 0..3 {
            wakers.lock().unwrap().iter().for_each(Waker::wake_by_ref);
            turns(2).await;
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(polls.load(SeqCst), 2);
    // Nor when the scope is gone.
    wakers
        .into_inner()
        .unwrap()
        .into_iter()
        .for_each(Waker::wake);
}

#[test]
fn scope_is_polled_by_another_task_then_the_last_waker_counts() {
    let (parent, handle) = background().with_cancel();
    let mut scoped = Box::pin(scope(&parent, async |scope: Scope| {
        scope.spawn(pend());
        pend().await
    }));
    let ((before, first), (after, second)) = (counting(), counting());
    assert!(poll_with(scoped.as_mut(), &first).is_pending());
    let woken = before.woken();
    assert!(poll_with(scoped.as_mut(), &second).is_pending());
    handle.cancel();
    assert_eq!((before.woken(), after.woken() > 0), (woken, true));
}

#[test]
fn scope_is_polled_after_it_was_ready_then_it_panics_and_says_so() {
    let mut scoped = Box::pin(scope(&background(), async |_: Scope| Ok(())));
    assert!(poll(&mut scoped).is_ready());
    assert_eq!(
        crate::support::panic_text(|| poll(&mut scoped)),
        "errgroup: the future of a scope is not polled after it was ready"
    );
}

// Many

#[test]
fn hundred_thousand_tasks_then_each_is_polled_as_often_as_it_was_woken() {
    const N: usize = 100_000;
    let polls = AtomicUsize::new(0);
    let body_polls = AtomicUsize::new(0);
    let sum = in_scope!(async |scope: Scope| {
        let tasks: Vec<Task<usize>> = (0..N)
            .map(|n| {
                let mut turns = pin_boxed(turns(1));
                let polls = &polls;
                scope.spawn(poll_fn(move |cx| {
                    add(polls);
                    turns.as_mut().poll(cx).map(|()| Ok(n))
                }))
            })
            .collect();
        let mut values = pin!(async {
            let mut sum = 0;
            for task in tasks {
                sum += task.await?;
            }
            Ok(sum)
        });
        poll_fn(|cx| {
            add(&body_polls);
            values.as_mut().poll(cx)
        })
        .await
    });
    assert_eq!(sum.unwrap(), N * (N - 1) / 2);
    assert_eq!(polls.load(SeqCst), 2 * N);
    assert!(body_polls.load(SeqCst) <= N + 1);
}

fn pin_boxed<F: Future>(future: F) -> std::pin::Pin<Box<F>> {
    Box::pin(future)
}

#[test]
fn hundred_thousand_wait_then_the_first_error_stops_them_all() {
    const N: usize = 100_000;
    let drops = AtomicUsize::new(0);
    let result = in_scope!(async |scope: Scope| {
        for _ in 0..N {
            scope.spawn(holding(counted(&drops), pend()));
        }
        turns(1).await;
        fail("bad").await
    });
    assert_eq!(text(result), "bad");
    assert_eq!(drops.load(SeqCst), N);
}

// In order of completion, by the tools of futures.

#[test]
fn handles_are_a_stream_in_order_of_completion() {
    let order = in_scope!(async |scope: Scope| {
        let tasks = [30, 10, 20].map(|n| {
            scope.spawn(async move {
                turns(n).await;
                Ok(n)
            })
        });
        let mut tasks: futures::stream::FuturesUnordered<_> = tasks.into_iter().collect();
        let mut order = Vec::new();
        while let Some(n) = tasks.next().await {
            order.push(n?);
        }
        Ok(order)
    });
    assert_eq!(order.unwrap(), [10, 20, 30]);
}

// G19

#[test]
fn g19_error_that_cannot_be_printed_ends_the_scope_all_the_same() {
    let mut context = None;
    let result = block_on(scope(&background(), async |scope: Scope<'_, Trouble>| {
        context = Some(scope.context().clone());
        scope.spawn(async { Err::<(), _>(Trouble::Unprintable) });
        pending::<Result<(), _>>().await
    }));
    assert!(matches!(result, Err(Trouble::Unprintable)));
    let end = context.unwrap().err().unwrap().to_string();
    assert!(end.contains("an error whose text panics"), "{end}");
}

#[test]
fn g19_error_in_a_value_cannot_be_dropped_then_that_is_contained() {
    let value = block_on(scope(&background(), async |scope: Scope<'_, Trouble>| {
        let task = scope.spawn(async { Ok::<_, Trouble>(Err::<(), _>(Trouble::undroppable())) });
        while !task.is_finished() {
            turns(1).await;
        }
        drop(task);
        Ok::<_, Trouble>(7)
    }));
    assert_eq!(value.ok(), Some(7));
}

#[test]
fn g19_value_that_nobody_fetches_panics_in_its_drop_then_it_is_contained() {
    let value = in_scope!(async |scope: Scope| {
        scope.spawn(async { Ok(OnDrop::new(|| quiet_panic("value"))) });
        Ok(7)
    });
    assert_eq!(value.unwrap(), 7);
}

#[test]
fn g19_bodys_value_panics_in_its_drop_then_the_error_is_returned() {
    let result = in_scope!(async |scope: Scope| {
        scope.spawn(async {
            turns(3).await;
            fail("bad").await
        });
        Ok(OnDrop::new(|| quiet_panic("value")))
    });
    assert_eq!(text(result), "bad");
}

#[test]
fn g19_future_panics_when_polled_and_again_when_dropped_then_it_is_one_panic() {
    struct Twice;
    impl Future for Twice {
        type Output = Unit;
        fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<Unit> {
            quiet_panic("polled")
        }
    }
    impl Drop for Twice {
        fn drop(&mut self) {
            quiet_panic("dropped")
        }
    }
    let scoped = scope(&background(), async |scope: Scope| {
        scope.spawn(Twice);
        pend().await
    });
    let text = block_on(panic_of(scoped));
    assert!(["polled", "dropped"].contains(&text));
}

#[test]
fn g19_destructors_use_the_scope_while_it_ends() {
    let log = Log::new();
    let result = in_scope!(async |scope: Scope| {
        let other = Arc::new(scope.spawn(pend()));
        for _ in 0..3 {
            let (inner, log, other) = (scope.clone(), log.clone(), other.clone());
            let at_the_end = OnDrop::new(move || {
                other.abort();
                log.push((inner.context().is_done(), inner.spawn(pend()).is_finished()));
            });
            scope.spawn(holding(at_the_end, pend()));
        }
        scope.spawn(fail("bad"));
        pend().await
    });
    assert_eq!(text(result), "bad");
    assert_eq!(log.take(), [(true, true); 3]);
}

/// A hundred times, since the moment matters.
#[test]
fn abort_spawn_and_end_from_three_threads_then_the_scope_returns() {
    for _ in 0..100 {
        let (parent, handle) = background().with_cancel();
        let drops = AtomicUsize::new(0);
        let (to_abort, aborts) = std::sync::mpsc::channel::<AbortHandle>();
        let (to_spawn, spawns) = std::sync::mpsc::channel::<Scope<'_>>();
        thread::scope(|threads| {
            let drops = &drops;
            threads.spawn(move || aborts.recv().unwrap().abort());
            threads.spawn(move || {
                let scope = spawns.recv().unwrap();
                for _ in 0..10 {
                    scope.spawn(holding(counted(drops), pend()));
                }
            });
            let result = block_on(scope(&parent, async |scope: Scope<'_>| {
                to_spawn.send(scope.clone()).unwrap();
                let task = scope.spawn(holding(counted(drops), pend()));
                to_abort.send(task.abort_handle()).unwrap();
                threads.spawn(move || handle.cancel());
                let _ = task.await;
                pend().await
            }));
            assert!(result.is_err());
        });
        assert_eq!(drops.load(SeqCst), 11);
    }
}

#[test]
fn types_are_as_threads_need_them() {
    fn is_send<T: Send>(_: &T) {}
    fn is_sync<T: Sync>(_: &T) {}
    let words = ["one"];
    let scoped = scope(&background(), async |scope: Scope| {
        is_send(&scope);
        is_sync(&scope);
        let task = scope.spawn(async { Ok(words.len()) });
        is_send(&task);
        Ok(task.await?)
    });
    is_send(&scoped);
    assert!(
        format!(
            "{:?}",
            in_scope!(async |scope: Scope| Ok(format!("{scope:?}")))
        )
        .contains("Scope")
    );
    assert_eq!(block_on(scoped).unwrap(), 1);
}
