//! Scopes that end before their tasks have: dropped, cancelled, past their deadline; and nobody starves meanwhile.
#![allow(clippy::unit_arg)] // `Ok(work().await)` is what users write

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::mem;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;

use errgroup::{ContextError, Reason, Scope, scope};
use futures::executor::block_on;

use crate::group_support::*;
use crate::scope_support::*;
use crate::support::{background, ms, reason};

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
