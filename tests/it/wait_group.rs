//! `WaitGroup`: any number of waiters and rounds, nothing to misuse.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::thread;

use errgroup::{WaitGroup, WaitGroupToken};
use futures::FutureExt;

use crate::group_support::*;

on_both_runtimes! {
    async fn wg_last_token_dropped_then_every_waiter_is_woken() {
        let wg = WaitGroup::new();
        let tokens: Vec<WaitGroupToken> = (0..10).map(|_| wg.token()).collect();
        let waiters: Vec<_> = (0..10)
            .map(|_| {
                let wg = wg.clone();
                tokio::spawn(async move { wg.wait().await })
            })
            .collect();
        for token in tokens {
            tokio::task::yield_now().await;
            assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
            drop(token);
        }
        for waiter in waiters {
            waiter.await.unwrap();
        }
    }

    /// Every member arrives at the first barrier before any leaves the second, and so on.
    async fn wg_two_phase_barrier_reused_8_times() {
        const MEMBERS: usize = 16;
        for _ in 0..8 {
            let (arrivals, departures) = (WaitGroup::new(), WaitGroup::new());
            let arrived = Arc::new(AtomicUsize::new(0));
            let tokens: Vec<_> =
                (0..MEMBERS).map(|_| (arrivals.token(), departures.token())).collect();
            let members: Vec<_> = tokens
                .into_iter()
                .map(|(here, gone)| {
                    let (arrivals, departures) = (arrivals.clone(), departures.clone());
                    let arrived = arrived.clone();
                    tokio::spawn(async move {
                        arrived.fetch_add(1, Ordering::SeqCst);
                        drop(here);
                        arrivals.wait().await;
                        assert_eq!(arrived.load(Ordering::SeqCst), MEMBERS);
                        drop(gone);
                        departures.wait().await;
                    })
                })
                .collect();
            arrivals.wait().await;
            departures.wait().await;
            for member in members {
                member.await.unwrap();
            }
        }
    }

    /// Two groups passed to and fro: in each round both are used again at once.
    async fn wg_thousand_rounds_then_no_wake_too_early() {
        let wg = WaitGroup::new();
        let count = Arc::new(AtomicUsize::new(0));
        for round in 1..=1_000 {
            for _ in 0..3 {
                let (token, count) = (wg.token(), count.clone());
                tokio::spawn(async move {
                    count.fetch_add(1, Ordering::SeqCst);
                    drop(token);
                });
            }
            wg.wait().await;
            assert_eq!(count.load(Ordering::SeqCst), 3 * round);
        }
    }
}

#[test]
fn wg_no_token_then_done_at_once() {
    let wg = WaitGroup::new();
    assert!(wg.wait().now_or_never().is_some());
    assert!(wg.is_empty());
    drop(wg.token());
    assert!(wg.wait().now_or_never().is_some());
}

#[test]
fn wg_tokens_and_their_clones_are_counted() {
    let wg = WaitGroup::new();
    let token = wg.token();
    let clone = token.clone();
    assert_eq!((wg.len(), wg.clone().len()), (2, 2));
    drop(token);
    assert!(wg.wait().now_or_never().is_none());
    drop(clone);
    assert!(wg.is_empty());
    assert!(wg.wait().now_or_never().is_some());
}

#[test]
fn wg_woken_once_and_only_by_the_last_token() {
    let wg = WaitGroup::new();
    let (first, last) = (wg.token(), wg.token());
    let (wakes, waker) = counting();
    let mut wait = pin!(wg.wait());
    for _ in 0..3 {
        assert!(poll_with(wait.as_mut(), &waker).is_pending());
    }
    drop(first);
    drop((wg.token(), wg.token()));
    assert_eq!(wakes.woken(), 0);
    drop(last);
    assert_eq!(wakes.woken(), 1);
    assert!(poll_with(wait, &waker).is_ready());
}

/// The round that a waiter waits for is over, although the next has begun.
#[test]
fn wg_zero_then_new_tokens_before_the_waiter_looks_then_it_is_done_all_the_same() {
    let wg = WaitGroup::new();
    let token = wg.token();
    let (wakes, waker) = counting();
    let mut old = pin!(wg.wait());
    assert!(poll_with(old.as_mut(), &waker).is_pending());
    drop(token);
    let next = wg.token();
    let (new_wakes, new_waker) = counting();
    let mut new = pin!(wg.wait());
    assert!(poll_with(new.as_mut(), &new_waker).is_pending());
    assert!(poll_with(old, &waker).is_ready());
    assert_eq!((wakes.woken(), new_wakes.woken()), (1, 0));
    drop(next);
    assert_eq!((wakes.woken(), new_wakes.woken()), (1, 1));
    assert!(poll_with(new, &new_waker).is_ready());
}

#[test]
fn wg_wait_dropped_then_unregistered_in_its_round_and_after_it() {
    let wg = WaitGroup::new();
    let (wakes, waker) = counting();
    let handles = Arc::strong_count(&wakes);
    let token = wg.token();
    let mut wait = Box::pin(wg.wait());
    assert!(poll_with(wait.as_mut(), &waker).is_pending());
    assert_eq!(Arc::strong_count(&wakes), handles + 1);
    drop(wait);
    assert_eq!(Arc::strong_count(&wakes), handles);

    let mut stale = Box::pin(wg.wait());
    assert!(poll_with(stale.as_mut(), &waker).is_pending());
    drop(token);
    let token = wg.token();
    let (other, other_waker) = counting();
    let mut current = Box::pin(wg.wait());
    assert!(poll_with(current.as_mut(), &other_waker).is_pending());
    drop(stale);
    drop(token);
    assert_eq!(other.woken(), 1, "the stale one took nobody's place");
}

#[test]
fn wg_polled_with_another_waker_then_that_one_is_woken() {
    let wg = WaitGroup::new();
    let token = wg.token();
    let ((first, old), (second, new)) = (counting(), counting());
    let mut wait = pin!(wg.wait());
    assert!(poll_with(wait.as_mut(), &old).is_pending());
    assert!(poll_with(wait.as_mut(), &new).is_pending());
    drop(token);
    assert_eq!((first.woken(), second.woken()), (0, 1));
}

#[test]
fn wg_waker_panics_then_the_others_are_woken() {
    struct Panicking;
    impl Wake for Panicking {
        fn wake(self: Arc<Self>) {
            quiet_panic("wake")
        }
    }
    let wg = WaitGroup::new();
    let token = wg.token();
    let panicking = Waker::from(Arc::new(Panicking));
    let (wakes, waker) = counting();
    let mut waits: Vec<_> = (0..3).map(|_| Box::pin(wg.wait())).collect();
    for (wait, waker) in waits.iter_mut().zip([&waker, &panicking, &waker]) {
        assert!(poll_with(wait.as_mut(), waker).is_pending());
    }
    drop(token);
    assert_eq!(wakes.woken(), 2);
}

#[test]
fn wg_waker_uses_the_group_while_it_is_woken() {
    struct Using(WaitGroup, Mutex<usize>);
    impl Wake for Using {
        fn wake(self: Arc<Self>) {
            let token = self.0.token();
            assert!(self.0.wait().now_or_never().is_none());
            drop(token);
            *self.1.lock().unwrap() += 1;
        }
    }
    let wg = WaitGroup::new();
    let using = Arc::new(Using(wg.clone(), Mutex::new(0)));
    let token = wg.token();
    let mut wait = Box::pin(wg.wait());
    assert!(poll_with(Pin::new(&mut wait), &using.clone().into()).is_pending());
    drop(token);
    assert_eq!(*using.1.lock().unwrap(), 1);
}

#[test]
fn wg_token_dropped_by_a_panic_then_done() {
    let wg = WaitGroup::new();
    let token = wg.token();
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _token = token;
        quiet_panic("unwind")
    }));
    assert!(unwound.is_err());
    assert!(wg.wait().now_or_never().is_some());
}

#[test]
fn wg_tokens_dropped_by_threads_then_what_they_did_is_seen() {
    for _ in 0..200 {
        let wg = WaitGroup::new();
        let done = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (token, done) = (wg.token(), done.clone());
                thread::spawn(move || {
                    // Relaxed: the token carries it over.
                    done.fetch_add(1, Ordering::Relaxed);
                    drop(token);
                })
            })
            .collect();
        futures::executor::block_on(wg.wait());
        assert_eq!(done.load(Ordering::Relaxed), 4);
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn wg_group_dropped_then_tokens_are_harmless() {
    let wg = WaitGroup::new();
    let token = wg.token();
    drop(wg);
    drop((token.clone(), token));
}
