//! Who is polled when: a scope's tasks by their own wake-ups, however many there are.
#![allow(clippy::unit_arg)] // `Ok(work().await)` is what users write

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Poll, Waker};

use errgroup::{Scope, Task, scope};

use crate::group_support::*;
use crate::scope_support::*;
use crate::support::background;

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
