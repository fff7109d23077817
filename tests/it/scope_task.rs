//! The handles of a scope's tasks: abort, and what they keep.
#![allow(clippy::unit_arg)] // `Ok(work().await)` is what users write

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use errgroup::{AbortHandle, Reason, Scope, scope};
use futures::executor::block_on;
use tokio::sync::oneshot;

use crate::group_support::*;
use crate::scope_support::*;
use crate::support::background;

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
