//! Stopping in two steps: `with_stop`, `StopHandle`, `stopping`, `stopping_done`.

use std::future::pending;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::thread;
use std::time::Duration;

use errgroup::{Context, Group, Reason, batch};
use futures::FutureExt;
use tokio::time::{Instant, advance};

use crate::support::{Counter, OnWake, on_small_stack, poll, without_deadlock};

const SECOND: Duration = Duration::from_secs(1);
const DRAIN: Duration = Duration::from_secs(30);
const THIRTY_YEARS: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

fn reason(ctx: &Context) -> Option<Reason> {
    ctx.err().map(|error| error.reason())
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut TaskContext::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn stopped_then_stopping_now_and_ended_after_the_drain() {
    let (ctx, handle) = Context::background().with_stop();
    let stopping = ctx.stopping();
    let mut done = ctx.stopping_done();
    assert!(poll_once(&mut done).is_pending());
    assert!(!stopping.is_done() && !ctx.is_done());
    let (_, line) = (handle.stop(DRAIN), line!());
    assert_eq!(reason(&stopping), Some(Reason::Stopping));
    assert_eq!(done.now_or_never().unwrap().reason(), Reason::Stopping);
    let place = stopping.err().unwrap().location();
    assert_eq!(place.map(|place| place.line()), Some(line));
    assert_eq!(
        reason(&ctx.stopping()),
        Some(Reason::Stopping),
        "asked afterwards"
    );
    assert!(!ctx.is_done());
    assert_eq!((ctx.deadline(), ctx.remaining()), (None, None), "not shown");

    let start = Instant::now();
    let end = ctx.done().await;
    assert_eq!(start.elapsed(), DRAIN);
    assert_eq!(end.reason(), Reason::Stopped);
    assert_eq!(end.location().map(|place| place.line()), Some(line));
    let text = end.to_string();
    assert!(
        text.starts_with("stopped: the drain of 30s is over (at "),
        "{text}"
    );
    assert_eq!(
        reason(&stopping),
        Some(Reason::Stopping),
        "the first end wins"
    );
    assert_eq!(
        reason(&ctx.stopping()),
        Some(Reason::Stopping),
        "asked after the end"
    );
}

#[test]
fn drain_of_zero_then_both_have_ended_when_it_returns() {
    let (ctx, handle) = Context::background().with_stop();
    let child = ctx.with_cancel();
    let stopping = child.0.stopping();
    handle.stop(Duration::ZERO);
    assert_eq!(reason(&stopping), Some(Reason::Stopping));
    assert_eq!(reason(&child.0), Some(Reason::Stopped));
    assert_eq!(reason(&ctx.stopping()), Some(Reason::Stopping));
}

#[tokio::test(start_paused = true)]
async fn drain_of_thirty_years_or_beyond_the_clock_then_it_is_that_long() {
    for drain in [THIRTY_YEARS, Duration::MAX] {
        let (ctx, handle) = Context::background().with_stop();
        handle.stop(drain);
        drop(handle);
        assert!(ctx.stopping().is_done());
        advance(THIRTY_YEARS - SECOND).await;
        tokio::task::yield_now().await;
        assert!(!ctx.is_done());
        let start = Instant::now();
        assert_eq!(ctx.done().await.reason(), Reason::Stopped);
        assert!(start.elapsed() <= 2 * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn stopped_then_dropping_handles_changes_nothing() {
    let (ctx, handle) = Context::background().with_stop();
    let other = handle.clone();
    handle.stop(DRAIN);
    drop(handle);
    drop(other);
    assert!(!ctx.is_done());
    assert_eq!(ctx.done().await.reason(), Reason::Stopped);
}

#[test]
fn last_handle_dropped_before_any_stop_then_ended() {
    let (ctx, handle) = Context::background().with_stop();
    let (stopping, other) = (ctx.stopping(), handle.clone());
    drop(handle);
    assert!(!ctx.is_done());
    drop(other);
    assert_eq!(reason(&ctx), Some(Reason::HandleDropped));
    assert_eq!(reason(&stopping), Some(Reason::HandleDropped));
    let text = ctx.err().unwrap().to_string();
    assert!(
        text.starts_with(
            "cancelled: the last StopHandle was dropped before it was used (context derived at "
        ),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn stopped_twice_then_the_earlier_end_holds() {
    for (first, second) in [(DRAIN, 5 * SECOND), (5 * SECOND, DRAIN)] {
        let (ctx, handle) = Context::background().with_stop();
        let start = Instant::now();
        handle.stop(first);
        advance(SECOND).await;
        handle.stop(second);
        assert_eq!(ctx.done().await.reason(), Reason::Stopped);
        let expected = first.min(SECOND + second);
        assert_eq!(start.elapsed(), expected);
    }
}

#[test]
fn stopped_after_the_end_then_nothing_changes() {
    let (ctx, handle) = Context::background().with_stop();
    let stopping = ctx.stopping();
    handle.cancel_with("enough");
    handle.stop(DRAIN);
    handle.cancel();
    for ctx in [&ctx, &stopping, &ctx.stopping()] {
        assert_eq!(reason(ctx), Some(Reason::Cancelled));
        assert_eq!(ctx.cause().unwrap().to_string(), "enough");
    }
    let (parent, cancel) = Context::background().with_cancel();
    cancel.cancel();
    let (ctx, handle) = parent.with_stop();
    handle.stop(DRAIN);
    assert_eq!(reason(&ctx), Some(Reason::Cancelled), "born ended");
}

#[tokio::test(start_paused = true)]
async fn cancelled_during_the_drain_then_ended_now() {
    let (ctx, handle) = Context::background().with_stop();
    handle.stop(DRAIN);
    handle.cancel();
    assert_eq!(reason(&ctx), Some(Reason::Cancelled));
    advance(2 * DRAIN).await;
    assert_eq!(reason(&ctx), Some(Reason::Cancelled));
}

#[test]
fn stopped_outside_of_any_runtime_then_the_process_tells() {
    let (ctx, handle) = Context::background().with_stop();
    let (tell, told) = mpsc::channel();
    ctx.on_done(move |error| tell.send(error.reason()).unwrap())
        .detach();
    thread::spawn(move || handle.stop(Duration::from_millis(20)))
        .join()
        .unwrap();
    let end = told.recv_timeout(60 * SECOND).expect("told by a thread");
    assert_eq!(end, Reason::Stopped);
}

#[test]
fn stopped_in_a_runtime_that_goes_then_the_process_tells() {
    let (ctx, handle) = Context::background().with_stop();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { handle.stop(Duration::from_millis(200)) });
    drop(runtime);
    let end = ctx
        .done_blocking(Some(60 * SECOND))
        .expect("told by a thread");
    assert_eq!(end.reason(), Reason::Stopped);
}

#[test]
fn stopped_in_a_runtime_without_a_timer_then_tokios_words_and_stopped_all_the_same() {
    let (ctx, handle) = Context::background().with_stop();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let panicked = std::panic::catch_unwind(|| {
        runtime.block_on(async { handle.stop(Duration::from_millis(20)) });
    });
    let text = *panicked.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("timers are disabled"), "{text}");
    assert!(ctx.stopping().is_done());
    drop(handle);
    let end = ctx
        .done_blocking(Some(60 * SECOND))
        .expect("told by a thread");
    assert_eq!(end.reason(), Reason::Stopped);
}

#[test]
fn nothing_above_can_be_stopped_then_stopping_is_the_context_itself() {
    assert!(!Context::background().stopping().is_done());
    assert_eq!(
        format!("{:?}", Context::todo().stopping()),
        "Context::todo()"
    );
    let (ctx, handle) = Context::background().with_value(7_u8).with_cancel();
    let stopping = ctx.stopping();
    assert_eq!(stopping.value(), Some(&7_u8));
    handle.cancel_with("over");
    assert_eq!(stopping.err(), ctx.err());
}

#[tokio::test(start_paused = true)]
async fn derived_below_then_stopping_reaches_through_values_deadlines_groups_and_merges() {
    let (root, handle) = Context::background().with_stop();
    let (other, other_handle) = Context::background().with_stop();
    let group: Group = Group::with_context(&root.with_value(1_u8));
    let inner: Group = Group::with_context(&group.context().with_timeout(2 * DRAIN));
    let below = inner.context().with_cancel();
    let merged = other.merge(&below.0);
    let apart = below.0.without_cancel();
    let all = [&below.0, inner.context(), &merged].map(Context::stopping);
    assert_eq!(all[0].deadline(), below.0.deadline());
    assert!(all.iter().all(|ctx| !ctx.is_done()));
    handle.stop(DRAIN);
    assert!(all.iter().all(|ctx| reason(ctx) == Some(Reason::Stopping)));
    assert!(!apart.stopping().is_done(), "keeps values alone");
    assert!(!other.stopping().is_done() && !merged.is_done());
    other_handle.stop(SECOND);
    assert_eq!(merged.done().await.reason(), Reason::Stopped);
    drop((group, inner));
}

#[tokio::test(start_paused = true)]
async fn stopped_below_then_nothing_above_or_beside_stops() {
    let (root, _root_handle) = Context::background().with_stop();
    let (left, handle) = root.with_stop();
    let right = root.with_cancel();
    handle.stop(DRAIN);
    assert!(left.stopping().is_done());
    assert!(!root.stopping().is_done() && !right.0.stopping().is_done());
}

#[tokio::test(start_paused = true)]
async fn context_ends_by_itself_then_so_does_its_stopping_with_the_same_end() {
    let (root, _handle) = Context::background().with_stop();
    let (ctx, cancel) = root.with_cancel();
    let stopping = ctx.stopping();
    cancel.cancel_with("alone");
    assert_eq!(stopping.err(), ctx.err());
    let timed = root.with_timeout(SECOND);
    let stopping = timed.stopping();
    assert!(stopping.done().await.is_deadline_exceeded());
    assert_eq!(stopping.err(), timed.err());
}

#[tokio::test(start_paused = true)]
async fn tasks_and_batches_below_take_on_nothing_new_and_finish_what_they_have() {
    let (root, handle) = Context::background().with_stop();
    let mut group: Group = Group::with_context(&root);
    let worker = group.spawn_with(|ctx| async move {
        let stopping = ctx.stopping();
        let mut finished = 0;
        while !stopping.is_done() {
            ctx.sleep(2 * SECOND).await?;
            finished += 1;
        }
        Ok(finished)
    });
    let items = group.spawn_with(|ctx| async move {
        let work = |ctx: Context, n: u64| async move {
            let is_late = ctx.stopping().is_done();
            tokio::time::sleep(Duration::from_secs(n)).await;
            Ok::<_, errgroup::BoxError>(!is_late)
        };
        batch([1, 2, 3, 4, 5], 2).context(&ctx).map(work).await
    });
    tokio::time::sleep(3 * SECOND + SECOND / 2).await;
    handle.stop(DRAIN);
    group.wait().await.unwrap();
    assert_eq!(worker.await.unwrap(), 2);
    assert_eq!(items.await.unwrap(), [true, true, true, true, false]);
    assert!(!root.is_done());
}

#[tokio::test(start_paused = true)]
async fn futures_that_are_spawned_go_on_until_the_end() {
    let (root, handle) = Context::background().with_stop();
    let mut group: Group = Group::with_context(&root);
    let task = group.spawn(pending::<Result<(), _>>());
    let start = Instant::now();
    handle.stop(DRAIN);
    let late = group.spawn(async { Ok(1) });
    assert_eq!(late.await.unwrap(), 1, "stopping closes nothing");
    assert_eq!(task.await.unwrap_err().reason(), Reason::Stopped);
    assert_eq!(start.elapsed(), DRAIN);
    group.wait().await.unwrap_err();
}

// ---- the guarantees of every context hold for these, too

#[test]
fn c3_asking_for_the_steps_is_pure_whatever_the_clock_says() {
    let (ctx, _handle) = Context::background().with_stop();
    let timed = ctx.with_timeout(Duration::from_millis(5));
    let waker = Counter::new();
    let mut done = timed.done_owned();
    // Who waits has a timer on a runtime that stands still afterwards.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async { assert!(poll(&mut done, &waker).is_pending()) });
    while !timed.is_done() {
        // `cleanup` would have the process's timer tell.
        drop((timed.stopping(), timed.stopping_done()));
    }
    drop((timed.stopping(), timed.cleanup(), timed.stopping_done()));
    assert_eq!(waker.woken(), 0);
    assert!(poll(&mut done, &waker).is_ready());
}

#[test]
fn c6_wakers_and_callbacks_of_a_stop_use_every_method_and_may_panic() {
    without_deadlock(|| {
        let (ctx, handle) = Context::background().with_stop();
        let (inner, inner_handle) = ctx.with_stop();
        let stopping = inner.stopping();
        let use_all = {
            let (ctx, inner, stopping) = (ctx.clone(), inner.clone(), stopping.clone());
            let handle = handle.clone();
            move || {
                assert!(stopping.is_done() && stopping.stopping().is_done());
                assert!(ctx.stopping().is_done() && inner.stopping_done().now_or_never().is_some());
                drop((
                    inner.with_stop(),
                    inner.cleanup(),
                    stopping.cleanup(),
                    ctx.with_cancel(),
                ));
                handle.stop(DRAIN);
                inner_handle.stop(Duration::ZERO);
                drop(handle.clone());
            }
        };
        let waker = std::sync::Arc::new(OnWake(use_all.clone()));
        let mut done = inner.stopping_done();
        assert!(poll(&mut done, &waker).is_pending());
        stopping
            .on_done(|_| panic!("a callback that panics"))
            .detach();
        let (tell, told) = mpsc::channel();
        stopping
            .on_done(move |_| {
                use_all();
                tell.send(()).unwrap();
            })
            .detach();
        handle.stop(2 * DRAIN);
        told.try_recv().expect("it was called, and did not panic");
        assert_eq!(reason(&inner), Some(Reason::Stopped));
        assert_eq!(reason(&ctx), None);
    });
}

#[test]
fn c11_long_chains_are_stopped_and_dropped_without_recursion() {
    on_small_stack(|| {
        let (root, handle) = Context::background().with_stop();
        let mut chain = vec![root.clone()];
        let mut ctx = root.clone();
        let mut handles = Vec::new();
        for n in 0..50_000 {
            let (next, handle) = ctx.with_stop();
            handles.push(handle);
            // Each second one is merged, too.
            ctx = match n % 2 {
                0 => next.merge(&root),
                _ => next,
            };
        }
        let (stopping, cleanup) = (ctx.stopping(), ctx.cleanup());
        chain.push(ctx);
        handle.stop(Duration::ZERO);
        assert_eq!(reason(&stopping), Some(Reason::Stopping));
        assert_eq!(reason(&chain[1]), Some(Reason::Stopped));
        assert!(!cleanup.is_done());
        drop(handles);
        drop(chain);
        drop(cleanup);
        drop(stopping);
    });
}

#[test]
fn c11_merges_that_meet_again_and_again_are_climbed_once() {
    let (root, handle) = Context::background().with_stop();
    let mut ctx = root.clone();
    // 2^60 ways up.
    for _ in 0..60 {
        let (left, right) = (ctx.with_cancel(), ctx.with_cancel());
        left.1.detach();
        right.1.detach();
        ctx = left.0.merge(&right.0);
    }
    let (stopping, cleanup) = (ctx.stopping(), ctx.cleanup());
    handle.stop(DRAIN);
    assert!(stopping.is_done() && !cleanup.is_done());
}

#[test]
fn stopped_from_many_threads_while_others_ask_then_all_agree() {
    for _ in 0..200 {
        let (ctx, handle) = Context::background().with_stop();
        let asked = thread::scope(|scope| {
            let askers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (ctx.stopping(), ctx.with_cancel().0.stopping())))
                .collect();
            for _ in 0..2 {
                let handle = handle.clone();
                scope.spawn(move || handle.stop(DRAIN));
            }
            askers
                .into_iter()
                .map(|asker| asker.join().unwrap())
                .collect::<Vec<_>>()
        });
        for (own, below) in asked {
            assert_eq!(reason(&own), Some(Reason::Stopping));
            // The handle of the child is gone.
            assert!(below.is_done());
        }
        assert!(!ctx.is_done());
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_has_begun_then_the_deadline_is_still_shown() {
    let timed = Context::background().with_timeout(60 * SECOND);
    let (ctx, handle) = timed.with_stop();
    assert_eq!(ctx.stopping().deadline(), ctx.deadline());
    handle.stop(DRAIN);
    assert_eq!(ctx.stopping().deadline(), ctx.deadline());
    assert_eq!(reason(&ctx.stopping()), Some(Reason::Stopping));
}
