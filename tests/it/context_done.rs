//! Waiting for the end: by futures (C9), by blocking, around other futures.

use std::future::{Future, pending, ready};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use errgroup::{Context, ContextError, Reason};
use futures::FutureExt;
use futures::executor::block_on;
use futures::future::FusedFuture;
use tokio::time::timeout;

use crate::support::{
    Counter, Log, OnDrop, advance, advance_without_timers, background, child, ms, poll, race,
};

const HOUR: Duration = Duration::from_secs(3_600);

/// Those who hold the waker besides the caller: registrations.
fn registrations(waker: &Arc<Counter>) -> usize {
    Arc::strong_count(waker) - 1
}

// ---- readiness

#[test]
fn pending_futures_become_ready_at_the_end() {
    let (ctx, handle) = background().with_cancel();
    let waker = Counter::new();
    let (mut borrowed, mut owned) = (ctx.done(), ctx.done_owned());
    assert!(poll(&mut borrowed, &waker).is_pending());
    assert!(poll(&mut owned, &waker).is_pending());
    handle.cancel();
    assert_eq!(waker.woken(), 2);
    assert!(poll(&mut borrowed, &waker).is_ready());
    assert!(poll(&mut owned, &waker).is_ready());
}

#[test]
fn only_polled_waiters_are_woken_and_once_each() {
    let (ctx, handle) = background().with_cancel();
    let wakers: Vec<_> = (0..100).map(|_| Counter::new()).collect();
    let mut waiting: Vec<_> = wakers.iter().map(|_| ctx.done()).collect();
    for (index, done) in waiting
        .iter_mut()
        .enumerate()
        .filter(|(index, _)| index % 2 == 0)
    {
        assert!(poll(done, &wakers[index]).is_pending());
    }
    handle.cancel();
    handle.cancel();
    let woken: Vec<_> = wakers.iter().map(|waker| waker.woken()).collect();
    assert_eq!(woken, [1, 0].repeat(50));
}

#[test]
fn end_is_level_triggered() {
    let (ctx, handle) = background().with_cancel();
    handle.cancel();
    for _ in 0..2 {
        assert_eq!(
            ctx.done().now_or_never().unwrap().reason(),
            Reason::Cancelled
        );
        assert_eq!(
            ctx.done_owned().now_or_never().unwrap().reason(),
            Reason::Cancelled
        );
    }
}

#[test]
fn done_is_fused_and_ready_again() {
    let (ctx, handle) = background().with_cancel();
    let waker = Counter::new();
    let (mut borrowed, mut owned) = (ctx.done(), ctx.done_owned());
    assert!(poll(&mut borrowed, &waker).is_pending());
    handle.cancel();
    assert!(!borrowed.is_terminated() && !owned.is_terminated());
    for _ in 0..3 {
        assert!(poll(&mut borrowed, &waker).is_ready());
        assert!(poll(&mut owned, &waker).is_ready());
        assert!(borrowed.is_terminated() && owned.is_terminated());
    }
}

#[test]
fn done_of_a_context_that_never_ends_is_pending_and_holds_no_waker() {
    let waker = Counter::new();
    for ctx in [background(), Context::todo()] {
        let (mut borrowed, mut owned) = (ctx.done(), ctx.done_owned());
        assert!(poll(&mut borrowed, &waker).is_pending());
        assert!(poll(&mut owned, &waker).is_pending());
        assert!(!borrowed.is_terminated() && !owned.is_terminated());
    }
    assert_eq!(registrations(&waker), 0);
}

#[test]
fn done_owned_outlives_its_context() {
    let (parent, handle) = background().with_cancel();
    let mut done = child(&parent).done_owned();
    let waker = Counter::new();
    assert!(poll(&mut done, &waker).is_pending());
    handle.cancel();
    assert_eq!(waker.woken(), 1);
    assert_eq!(block_on(done).reason(), Reason::Cancelled);
}

#[test]
fn error_set_implies_done_ready_from_any_thread() {
    for _ in 0..1_000 {
        let (ctx, handle) = background().with_cancel();
        race(
            || handle.cancel(),
            || {
                while ctx.err().is_none() {
                    std::hint::spin_loop();
                }
                assert!(ctx.is_done() && ctx.check().is_err() && ctx.cause().is_some());
                assert!(ctx.done().now_or_never().is_some());
            },
        );
    }
}

// ---- C9: one registration, and none after the drop

#[test]
fn c9_polled_again_and_again_registers_once() {
    let (ctx, handle) = background().with_cancel();
    let waker = Counter::new();
    let mut done = ctx.done();
    for _ in 0..100 {
        assert!(poll(&mut done, &waker).is_pending());
        assert_eq!(registrations(&waker), 1);
    }
    handle.cancel();
    assert_eq!(waker.woken(), 1);
    assert_eq!(registrations(&waker), 0);
}

#[test]
fn c9_polled_again_with_another_waker_replaces_the_first() {
    let (ctx, handle) = background().with_cancel();
    let wakers = [Counter::new(), Counter::new()];
    let mut done = ctx.done_owned();
    for turn in 0..10 {
        assert!(poll(&mut done, &wakers[turn % 2]).is_pending());
        assert_eq!(registrations(&wakers[turn % 2]), 1);
        assert_eq!(registrations(&wakers[1 - turn % 2]), 0);
    }
    handle.cancel();
    assert_eq!(wakers.map(|waker| waker.woken()), [0, 1]);
}

#[test]
fn c9_dropped_unregisters() {
    let (ctx, handle) = background().with_cancel();
    let waker = Counter::new();
    for _ in 0..100 {
        let (mut borrowed, mut owned) = (ctx.done(), ctx.done_owned());
        assert!(poll(&mut borrowed, &waker).is_pending());
        assert!(poll(&mut owned, &waker).is_pending());
        assert_eq!(registrations(&waker), 2);
        drop(borrowed);
        assert_eq!(registrations(&waker), 1);
        drop(owned);
        assert_eq!(registrations(&waker), 0);
    }
    handle.cancel();
    assert_eq!(waker.woken(), 0);
}

#[test]
fn c9_dropped_in_the_middle_leaves_the_others_registered() {
    let (ctx, handle) = background().with_cancel();
    let wakers: Vec<_> = (0..200).map(|_| Counter::new()).collect();
    let mut waiting: Vec<_> = wakers.iter().map(|_| Some(ctx.done())).collect();
    for (done, waker) in waiting.iter_mut().zip(&wakers) {
        assert!(poll(done.as_mut().unwrap(), waker).is_pending());
    }
    waiting.iter_mut().step_by(3).for_each(|done| *done = None);
    // Takes places that have become free.
    let late = Counter::new();
    let mut late_done = ctx.done();
    assert!(poll(&mut late_done, &late).is_pending());
    handle.cancel();
    assert_eq!(late.woken(), 1);
    for (done, waker) in waiting.iter().zip(&wakers) {
        assert_eq!(waker.woken(), usize::from(done.is_some()));
    }
}

#[test]
fn c9_dropped_after_the_end_is_no_trouble() {
    let (ctx, handle) = background().with_cancel();
    let waker = Counter::new();
    let mut done = ctx.done();
    assert!(poll(&mut done, &waker).is_pending());
    handle.cancel();
    drop(done);
    assert_eq!((waker.woken(), registrations(&waker)), (1, 0));
}

#[test]
fn c9_end_releases_the_wakers() {
    let (ctx, handle) = background().with_cancel();
    let waker = Counter::new();
    let mut waiting: Vec<_> = (0..10).map(|_| ctx.done()).collect();
    for done in &mut waiting {
        assert!(poll(done, &waker).is_pending());
    }
    handle.cancel();
    assert_eq!((waker.woken(), registrations(&waker)), (10, 0));
}

#[test]
fn c9_polled_after_the_end_registers_nothing() {
    let (ctx, handle) = background().with_cancel();
    handle.cancel();
    let waker = Counter::new();
    assert!(poll(&mut ctx.done(), &waker).is_ready());
    assert_eq!(registrations(&waker), 0);
}

#[tokio::test(start_paused = true)]
async fn c9_registered_then_polled_after_an_unnoticed_deadline_is_ready() {
    let ctx = background().with_timeout(ms(10));
    let waker = Counter::new();
    let mut done = ctx.done();
    assert!(poll(&mut done, &waker).is_pending());
    advance_without_timers(ms(10));
    assert!(poll(&mut done, &waker).is_ready());
    assert_eq!(registrations(&waker), 0);
}

#[tokio::test(start_paused = true)]
async fn done_moved_between_tasks_wakes_the_last_that_polled_it() {
    let (ctx, handle) = background().with_cancel();
    let mut done = ctx.done_owned();
    let first = Counter::new();
    assert!(poll(&mut done, &first).is_pending());
    let task = tokio::spawn(done);
    tokio::task::yield_now().await;
    handle.cancel();
    let error = timeout(HOUR, task).await.expect("it is woken").unwrap();
    assert_eq!(error.reason(), Reason::Cancelled);
    assert_eq!(first.woken(), 0);
}

// ---- done_blocking

#[test]
fn blocked_thread_is_told_of_the_end() {
    let (ctx, handle) = background().with_cancel();
    thread::scope(|scope| {
        let blocked = scope.spawn(|| ctx.done_blocking(None));
        let limited = scope.spawn(|| ctx.done_blocking(Some(Duration::MAX)));
        handle.cancel();
        for thread in [blocked, limited] {
            assert_eq!(thread.join().unwrap().unwrap().reason(), Reason::Cancelled);
        }
    });
}

#[test]
fn blocked_thread_gives_up_when_its_time_is_over() {
    let (ctx, _handle) = background().with_cancel();
    for ctx in [ctx, background()] {
        for timeout in [0, 1, 2] {
            let start = std::time::Instant::now();
            assert!(ctx.done_blocking(Some(ms(timeout))).is_none());
            assert!(start.elapsed() >= ms(timeout));
        }
    }
}

#[test]
fn blocking_on_an_ended_context_returns_at_once() {
    let (ctx, handle) = background().with_cancel();
    handle.cancel();
    assert!(ctx.done_blocking(None).is_some());
    assert!(ctx.done_blocking(Some(Duration::ZERO)).is_some());
}

#[test]
fn blocked_thread_sees_a_deadline() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _in = runtime.enter();
    let ctx = background().with_timeout(ms(2));
    let start = std::time::Instant::now();
    let error = ctx.done_blocking(Some(HOUR / 60));
    assert!(
        start.elapsed() < HOUR / 60,
        "it slept until its own time was over"
    );
    assert!(
        error.unwrap().is_deadline_exceeded(),
        "nobody drives the timer"
    );
}

#[test]
fn blocked_thread_that_was_unparked_early_goes_on_waiting() {
    let (ctx, handle) = background().with_cancel();
    thread::scope(|scope| {
        let blocked = scope.spawn(|| {
            thread::current().unpark();
            ctx.done_blocking(None)
        });
        blocked.thread().unpark();
        handle.cancel();
        assert!(blocked.join().unwrap().is_some());
    });
}

// ---- run and sleep

#[tokio::test(start_paused = true)]
async fn run_completes_with_the_output() {
    let (ctx, _handle) = background().with_cancel();
    assert_eq!(ctx.run(ready(7)).await.unwrap(), 7);
    assert_eq!(
        ctx.run(async { tokio::time::sleep(ms(5)).await })
            .await
            .unwrap(),
        ()
    );
    assert_eq!(background().run(ready(7)).await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn run_interrupted_by_the_end_drops_the_future_where_it_stands() {
    let ctx = background().with_timeout(ms(10));
    let log = Log::new();
    let guard = OnDrop({
        let log = log.clone();
        move || log.push("dropped")
    });
    let run = ctx.run(async move {
        let _guard = guard;
        pending::<()>().await;
    });
    let output = timeout(HOUR, run).await.expect("it is interrupted");
    assert!(output.unwrap_err().is_deadline_exceeded());
    assert_eq!(log.take(), ["dropped"]);
}

#[test]
fn run_in_an_ended_context_never_polls() {
    let (ctx, handle) = background().with_cancel();
    handle.cancel();
    let run = ctx.run(async { unreachable!("polled") });
    let result: Result<(), ContextError> = block_on(run);
    assert_eq!(result.unwrap_err().reason(), Reason::Cancelled);
}

#[test]
fn run_checks_before_each_poll_of_a_future_that_is_always_woken() {
    let (ctx, handle) = background().with_cancel();
    let log = Log::new();
    let mut run = Box::pin(ctx.run(std::future::poll_fn({
        let log = log.clone();
        move |_| {
            log.push("polled");
            std::task::Poll::<()>::Pending
        }
    })));
    let waker = Counter::new();
    assert!(poll(&mut run, &waker).is_pending());
    handle.cancel();
    assert_eq!(waker.woken(), 1);
    assert!(poll(&mut run, &waker).is_ready());
    assert_eq!(log.take(), ["polled"], "not again after the end");
}

#[test]
fn run_of_a_future_that_ends_its_own_context_has_its_output_if_it_is_ready() {
    let (ctx, handle) = background().with_cancel();
    let output = block_on(ctx.run(async {
        handle.cancel();
        7
    }));
    assert_eq!(output.unwrap(), 7);
    assert!(ctx.is_done());
}

#[test]
fn run_of_a_future_that_ends_its_own_context_and_waits_is_interrupted() {
    let (ctx, handle) = background().with_cancel();
    let output = block_on(ctx.run(async {
        handle.cancel();
        pending::<()>().await;
    }));
    assert_eq!(output.unwrap_err().reason(), Reason::Cancelled);
}

#[test]
fn run_dropped_drops_the_future_and_unregisters() {
    let (ctx, _handle) = background().with_cancel();
    let (waker, log) = (Counter::new(), Log::new());
    let guard = OnDrop({
        let log = log.clone();
        move || log.push("dropped")
    });
    let mut run = Box::pin(ctx.run(async move {
        let _guard = guard;
        pending::<()>().await;
    }));
    assert!(poll(&mut run, &waker).is_pending());
    assert_eq!(registrations(&waker), 1);
    drop(run);
    assert_eq!(registrations(&waker), 0);
    assert_eq!(log.take(), ["dropped"]);
}

#[tokio::test(start_paused = true)]
async fn sleep_lasts_as_long_as_asked_unless_the_context_ends() {
    let start = tokio::time::Instant::now();
    let (ctx, handle) = background().with_cancel();
    assert!(ctx.sleep(ms(30)).await.is_ok());
    assert_eq!(start.elapsed(), ms(30));
    let timed = ctx.with_timeout(ms(20));
    assert!(
        timed
            .sleep(ms(21))
            .await
            .unwrap_err()
            .is_deadline_exceeded()
    );
    assert_eq!(start.elapsed(), ms(50));
    handle.cancel();
    assert_eq!(
        ctx.sleep(ms(10)).await.unwrap_err().reason(),
        Reason::Cancelled
    );
    assert_eq!(start.elapsed(), ms(50));
}

#[tokio::test(start_paused = true)]
async fn sleeping_task_wakes_at_the_end() {
    let (ctx, handle) = background().with_cancel();
    let sleeper = tokio::spawn({
        let ctx = ctx.clone();
        async move { ctx.sleep(HOUR).await }
    });
    advance(ms(1)).await;
    handle.cancel();
    let start = tokio::time::Instant::now();
    assert_eq!(
        sleeper.await.unwrap().unwrap_err().reason(),
        Reason::Cancelled
    );
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// A future given to `run` need not be `Unpin`, `Send` or `'static`.
#[tokio::test]
async fn c10_run_adds_as_many_bytes_for_each_layer() {
    let ctx = background();
    let inner = || async {
        let bytes = vec![[0_u8; 1_024]; 1][0];
        pending::<()>().await;
        std::hint::black_box(&bytes);
    };
    let none = size_of_val(&inner());
    let one = size_of_val(&ctx.run(inner()));
    let two = size_of_val(&ctx.run(ctx.run(inner())));
    let eight = size_of_val(
        &ctx.run(ctx.run(ctx.run(ctx.run(ctx.run(ctx.run(ctx.run(ctx.run(inner())))))))),
    );
    let layer = one - none;
    assert!(layer <= 64, "{layer}");
    assert!(two - none <= 2 * layer, "{none} {one} {two}");
    assert!(eight - none <= 8 * layer, "{none} {one} {eight}");
    // No captured sleep beside the one that is awaited.
    let sleep = size_of_val(&tokio::time::sleep(ms(1)));
    let sleeps = size_of_val(&ctx.sleep(ms(1)));
    assert!(sleeps <= sleep + layer + 64, "{sleep} {sleeps}");
}

#[test]
fn run_takes_any_future() {
    async fn borrows(text: &str) -> usize {
        std::rc::Rc::new(text).len()
    }
    let text = String::from("four");
    let future: std::pin::Pin<Box<dyn Future<Output = usize> + '_>> = Box::pin(borrows(&text));
    assert_eq!(block_on(background().run(future)).unwrap(), 4);
}
