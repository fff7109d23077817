//! The races of `WaitGroup`: the last exit against waiters.

use std::task::Poll;

use loom::thread;

use super::{WaitGroup, Waiting};
use crate::sync::model::block_on;

#[test]
fn last_token_dropped_during_wait_wakes_the_waiter() {
    loom::model(|| {
        let wg = WaitGroup::new();
        let token = wg.token();
        let dropper = thread::spawn(move || drop(token));
        block_on(wg.wait());
        assert!(wg.is_empty());
        dropper.join().unwrap();
    });
}

#[test]
fn two_last_tokens_dropped_at_once_wake_the_waiter() {
    loom::model(|| {
        let wg = WaitGroup::new();
        let droppers = [wg.token(), wg.token()].map(|token| thread::spawn(move || drop(token)));
        block_on(wg.wait());
        for dropper in droppers {
            dropper.join().unwrap();
        }
    });
}

/// With the decrement outside the lock, the zero of the first round would end the wait of the second.
#[test]
fn next_round_begun_during_last_exit_is_not_ended_by_it() {
    loom::model(|| {
        let wg = WaitGroup::new();
        let first = wg.token();
        let dropper = thread::spawn(move || drop(first));

        let second = wg.token();
        let mut waiting = Waiting::default();
        let mut poll = || {
            waiting.poll(
                &wg,
                &mut std::task::Context::from_waker(std::task::Waker::noop()),
            )
        };
        assert_eq!(poll(), Poll::Pending);
        dropper.join().unwrap();
        assert_eq!(poll(), Poll::Pending);
        drop(second);
        assert_eq!(poll(), Poll::Ready(()));
    });
}

#[test]
fn waiter_released_during_last_exit_leaves_nothing() {
    loom::model(|| {
        let wg = WaitGroup::new();
        let token = wg.token();
        let dropper = thread::spawn(move || drop(token));
        let mut waiting = Waiting::default();
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = waiting.poll(&wg, &mut cx);
        waiting.release(&wg);
        dropper.join().unwrap();
        assert!(wg.0.waiters.lock().wakers.is_empty());
    });
}
