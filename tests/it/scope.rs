//! Scopes: tasks that borrow, in the caller's task. A guarantee that they share with groups has the group's number.
#![allow(clippy::unit_arg)] // `Ok(work().await)` is what users write

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use errgroup::{BoxError, ContextError, LocalScope, Reason, Scope, Task, scope, scope_local};
use futures::StreamExt;
use futures::executor::block_on;
use futures::future::join_all;
use tokio::sync::Semaphore;

use crate::group_support::*;
use crate::scope_support::*;
use crate::support::{Log, background, ms, reason};

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
