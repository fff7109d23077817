//! Deadlines: the earliest holds (C2), the clock decides (C3), no task is needed (C8).

use std::sync::Arc;
use std::time::Duration;

use errgroup::{Context, DoneOwned, Reason};
use futures::FutureExt;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::{Instant, timeout};

use crate::support::{
    Carrier, Counter, Log, advance, advance_without_timers, background, cause, cause_address,
    child, end_of, log_end, ms, on_small_stack, panic_text, poll, reason,
};

const HOUR: Duration = Duration::from_secs(3_600);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

/// A context whose deadline is an hour away, and its runtime.
fn in_an_hour() -> (Context, Runtime) {
    let runtime = runtime();
    let _in = runtime.enter();
    (background().with_timeout(HOUR), runtime)
}

/// Somebody begins to wait, which is what a timer is armed for, and gives up.
fn begin_to_wait(ctx: &Context) {
    drop(ctx.on_done(|_| ()));
}

// ---- C2: nested deadlines are the minimum

#[tokio::test(start_paused = true)]
async fn timeout_passes_then_context_ends_not_a_moment_earlier() {
    let ctx = background().with_timeout(ms(50));
    advance(ms(49)).await;
    assert!(!ctx.is_done());
    assert_eq!(ctx.remaining(), Some(ms(1)));
    advance(ms(1)).await;
    assert_eq!(reason(&ctx), Some(Reason::DeadlineExceeded));
    assert_eq!(ctx.remaining(), Some(Duration::ZERO));
    advance(ms(1)).await;
    assert_eq!(ctx.remaining(), Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn deadline_is_the_one_that_was_set() {
    let at = Instant::now() + ms(50);
    assert_eq!(background().with_deadline(at).deadline(), Some(at));
    assert_eq!(background().with_timeout(ms(50)).deadline(), Some(at));
}

#[tokio::test(start_paused = true)]
async fn c2_nested_deadline_is_the_earlier() {
    let now = Instant::now();
    for (outer, inner) in [(20, 10), (10, 20), (10, 10)] {
        let parent = background().with_timeout(ms(outer));
        let child = parent
            .with_value(1_u8)
            .with_timeout(ms(inner))
            .with_value(2_u8);
        let (below, _handle) = child.with_cancel();
        let earlier = Some(now + ms(outer.min(inner)));
        assert_eq!(parent.deadline(), Some(now + ms(outer)));
        assert_eq!((child.deadline(), below.deadline()), (earlier, earlier));
    }
}

#[tokio::test(start_paused = true)]
async fn c2_nested_sooner_ends_alone() {
    let parent = background().with_timeout_cause(ms(20), "parent's");
    let child = parent.with_timeout_cause(ms(10), "child's");
    advance(ms(10)).await;
    assert_eq!(cause(&child).as_deref(), Some("child's"));
    assert!(!parent.is_done());
}

#[tokio::test(start_paused = true)]
async fn c2_nested_later_ends_with_parent_by_its_cause() {
    let parent = background().with_timeout_cause(ms(10), "parent's");
    let child = parent.with_timeout_cause(ms(20), "child's");
    advance(ms(10)).await;
    assert_eq!(cause(&child).as_deref(), Some("parent's"));
}

#[tokio::test(start_paused = true)]
async fn c2_nested_equal_keeps_its_own_cause_whoever_is_asked_first() {
    for child_first in [false, true] {
        let parent = background().with_timeout_cause(ms(10), "parent's");
        let child = parent.with_timeout_cause(ms(10), "child's");
        advance_without_timers(ms(10));
        let _ = if child_first {
            child.err()
        } else {
            parent.err()
        };
        assert_eq!(cause(&child).as_deref(), Some("child's"));
        assert_eq!(cause(&parent).as_deref(), Some("parent's"));
    }
}

#[tokio::test(start_paused = true)]
async fn c2_nested_equal_keeps_its_own_cause_when_timers_run() {
    let parent = background().with_timeout_cause(ms(10), "parent's");
    let child = parent.with_timeout_cause(ms(10), "child's");
    let (below, _handle) = child.with_cancel();
    let seen = Log::new();
    for ctx in [&parent, &child, &below] {
        let seen = seen.clone();
        ctx.on_done(move |error| seen.push(error.to_string()))
            .detach();
    }
    advance(ms(10)).await;
    let seen = seen.take();
    assert_eq!(seen.len(), 3);
    assert!(seen[0].contains("parent's"), "{seen:?}");
    assert!(
        seen[1..].iter().all(|text| text.contains("child's")),
        "{seen:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn c2_deadlines_in_one_tick_of_the_timer_are_still_told_apart() {
    let now = Instant::now();
    let us = |us| now + Duration::from_micros(us);
    let parent = background().with_deadline_cause(us(900), "parent's");
    let sooner = parent.with_deadline_cause(us(899), "sooner");
    let later = parent.with_deadline_cause(us(901), "later");
    begin_to_wait(&sooner);
    begin_to_wait(&later);
    advance(ms(1)).await;
    assert_eq!(cause(&sooner).as_deref(), Some("sooner"));
    assert_eq!(cause(&later).as_deref(), Some("parent's"));
}

#[tokio::test(start_paused = true)]
async fn c2_deadline_in_the_past_is_born_ended() {
    advance(ms(100)).await;
    let now = Instant::now();
    for ctx in [
        background().with_deadline(now),
        background().with_deadline(now - ms(100)),
        background().with_timeout(Duration::ZERO),
        background()
            .with_timeout(ms(100))
            .with_deadline(now - ms(1)),
    ] {
        assert_eq!(reason(&ctx), Some(Reason::DeadlineExceeded));
    }
}

#[tokio::test(start_paused = true)]
async fn c2_deadline_in_the_past_below_an_ended_parent_has_the_parents_reason() {
    let (parent, handle) = background().with_cancel();
    handle.cancel_with("parent's");
    let child = parent.with_deadline_cause(Instant::now() - ms(1), "child's");
    assert_eq!(cause_address(&child), cause_address(&parent));
}

#[tokio::test(start_paused = true)]
async fn c2_deadline_in_the_past_below_a_parent_that_is_overdue_has_the_parents_reason() {
    let parent = background().with_timeout_cause(ms(10), "parent's");
    advance_without_timers(ms(20));
    let child = parent.with_deadline_cause(Instant::now() - ms(5), "child's");
    assert_eq!(cause(&child).as_deref(), Some("parent's"));
}

#[tokio::test(start_paused = true)]
async fn c2_timeout_of_ages_stays_live_and_can_be_nested() {
    let ctx = background().with_timeout(Duration::MAX);
    let nested = ctx.with_timeout(Duration::MAX).with_timeout(HOUR);
    assert!(ctx.remaining().unwrap() > Duration::from_secs(86_400 * 365));
    assert_eq!(nested.remaining(), Some(HOUR));
    let hundred_years = background().with_timeout(Duration::from_secs(86_400 * 365 * 100));
    for ctx in [&ctx, &nested, &hundred_years] {
        begin_to_wait(ctx);
    }
    advance(HOUR).await;
    assert!(nested.is_done());
    advance(Duration::from_secs(86_400 * 365 * 10)).await;
    assert!(!ctx.is_done() && !hundred_years.is_done());
}

#[tokio::test(start_paused = true)]
async fn c2_deadline_passed_then_cancelled_before_its_timer_ran_is_exceeded() {
    let timed = background().with_timeout_cause(ms(10), "deadline");
    let (child, handle) = timed.with_cancel();
    advance_without_timers(ms(10));
    handle.cancel_with("late");
    assert_eq!(cause(&child).as_deref(), Some("deadline"));
    assert_eq!(reason(&child), Some(Reason::DeadlineExceeded));
}

#[tokio::test(start_paused = true)]
async fn c2_deadline_passed_then_handle_dropped_before_its_timer_ran_is_exceeded() {
    let (child, handle) = background().with_timeout(ms(10)).with_cancel();
    advance_without_timers(ms(10));
    drop(handle);
    assert_eq!(reason(&child), Some(Reason::DeadlineExceeded));
}

#[tokio::test(start_paused = true)]
async fn c2_deadline_passed_then_grandparent_cancelled_before_its_timer_ran_is_exceeded() {
    let (top, handle) = background().with_cancel();
    let (middle, _middle_handle) = top.with_cancel();
    let timed = middle.with_timeout_cause(ms(10), "deadline");
    let (below, _below_handle) = timed.with_cancel();
    advance_without_timers(ms(10));
    handle.cancel_with("late");
    assert_eq!(cause(&middle).as_deref(), Some("late"));
    assert_eq!(cause(&timed).as_deref(), Some("deadline"));
    assert_eq!(
        cause(&below).as_deref(),
        Some("deadline"),
        "it ended with its parent"
    );
}

#[tokio::test(start_paused = true)]
async fn c2_deadline_passed_then_other_side_of_merge_cancelled_is_exceeded() {
    for timed_first in [false, true] {
        let timed = background().with_timeout_cause(ms(10), "deadline");
        let (other, handle) = background().with_cancel();
        let merged = if timed_first {
            timed.merge(&other)
        } else {
            other.merge(&timed)
        };
        let (below, _below_handle) = merged.with_cancel();
        advance_without_timers(ms(10));
        handle.cancel_with("late");
        assert_eq!(cause(&merged).as_deref(), Some("deadline"));
        assert_eq!(cause(&below).as_deref(), Some("deadline"));
    }
}

#[tokio::test(start_paused = true)]
async fn c2_both_deadlines_of_a_merge_passed_then_later_one_asked_is_ended_by_the_earlier() {
    for earlier_first in [false, true] {
        let earlier = background().with_timeout_cause(ms(10), "earlier");
        let later = background().with_timeout_cause(ms(20), "later");
        let merged = if earlier_first {
            earlier.merge(&later)
        } else {
            later.merge(&earlier)
        };
        advance_without_timers(ms(30));
        assert!(later.is_done());
        assert_eq!(cause(&merged).as_deref(), Some("earlier"));
    }
}

#[tokio::test(start_paused = true)]
async fn c2_cancelled_then_deadline_passed_changes_nothing() {
    let (parent, handle) = background().with_cancel();
    let timed = parent.with_timeout_cause(ms(10), "deadline");
    let log = Log::new();
    log_end(&timed, &log, "told");
    handle.cancel_with("first");
    advance(ms(20)).await;
    assert_eq!(cause(&timed).as_deref(), Some("first"));
    assert_eq!(log.take(), ["told"]);
}

#[tokio::test(start_paused = true)]
async fn c2_merge_has_the_earlier_deadline() {
    let early = background().with_timeout_cause(ms(10), "early");
    let late = background().with_timeout_cause(ms(20), "late");
    let (none, _handle) = background().with_cancel();
    let in_ms = |after| Some(Instant::now() + ms(after));
    assert_eq!(early.merge(&late).deadline(), in_ms(10));
    assert_eq!(late.merge(&early).deadline(), in_ms(10));
    assert_eq!(late.merge(&none).deadline(), in_ms(20));
    assert_eq!(none.merge(&late).deadline(), in_ms(20));
    let below = late.merge(&early).with_timeout_cause(ms(15), "below");
    advance(ms(10)).await;
    assert_eq!(cause(&below).as_deref(), Some("early"));
}

// ---- C3: the clock decides, although no timer could run

/// Asks in a loop that never yields, one millisecond of the clock per turn.
fn turns_until(mut is_done: impl FnMut() -> bool) -> u64 {
    let mut turns = 0;
    while !is_done() {
        advance_without_timers(ms(1));
        turns += 1;
        assert!(turns < 1_000, "the loop never saw its deadline");
    }
    turns
}

#[tokio::test(start_paused = true)]
async fn c3_loop_without_await_sees_its_deadline() {
    let timed = || background().with_timeout(ms(5));
    let ctx = timed();
    assert_eq!(turns_until(|| ctx.is_done()), 5);
    let ctx = timed();
    assert_eq!(turns_until(|| ctx.err().is_some()), 5);
    let ctx = timed();
    assert_eq!(turns_until(|| ctx.check().is_err()), 5);
    let ctx = timed();
    assert_eq!(turns_until(|| ctx.cause().is_some()), 5);
    let ctx = timed();
    assert_eq!(turns_until(|| ctx.done().now_or_never().is_some()), 5);
}

#[tokio::test(start_paused = true)]
async fn c3_loop_without_await_sees_the_deadline_of_an_ancestor() {
    for derive in [
        |ctx: &Context| ctx.with_cancel_on(std::future::pending::<()>()),
        |ctx: &Context| ctx.with_value(1_u8).with_timeout(HOUR),
        |ctx: &Context| ctx.merge(&Context::background().with_timeout(HOUR)),
        |ctx: &Context| Context::background().with_timeout(HOUR).merge(ctx),
    ] {
        let ctx = derive(&derive(&background().with_timeout(ms(5))));
        assert_eq!(turns_until(|| ctx.is_done()), 5);
    }
}

#[test]
fn c3_loop_without_await_sees_its_deadline_on_the_real_clock() {
    runtime().block_on(async {
        let ctx = background().with_timeout(ms(3));
        let start = std::time::Instant::now();
        while ctx.check().is_ok() {
            assert!(
                start.elapsed() < HOUR / 60,
                "the loop never saw its deadline"
            );
        }
        assert!(Instant::now() >= ctx.deadline().unwrap());
    });
}

/// A context below a deadline that has just passed, with all who wait for it, above it and beside it; no timer has run.
struct JustPassed {
    timed: Context,
    asked: Context,
    beside: Context,
    log: Log<&'static str>,
    waker: Arc<Counter>,
    _done: DoneOwned,
}

impl JustPassed {
    fn new() -> Self {
        let timed = background().with_timeout_cause(ms(5), "deadline");
        let (asked, beside) = (child(&timed), child(&timed));
        let (log, waker) = (Log::new(), Counter::new());
        log_end(&timed, &log, "timed");
        log_end(&asked, &log, "asked");
        log_end(&beside, &log, "beside");
        let mut done = beside.done_owned();
        assert!(poll(&mut done, &waker).is_pending());
        advance_without_timers(ms(5));
        Self {
            timed,
            asked,
            beside,
            log,
            waker,
            _done: done,
        }
    }

    fn assert_nobody_is_told(&self) {
        assert_eq!((self.waker.woken(), self.log.take()), (0, vec![]));
    }

    fn assert_all_are_told(&self) {
        assert_eq!(self.waker.woken(), 1);
        assert_eq!(self.log.take(), ["timed", "asked", "beside"]);
    }
}

#[tokio::test(start_paused = true)]
async fn c3_asking_when_the_deadline_has_just_passed_tells_nobody() {
    type Ask = fn(&Context);
    let ways: [Ask; 12] = [
        |ctx| assert!(ctx.is_done()),
        |ctx| assert!(ctx.err().is_some()),
        |ctx| assert!(ctx.check().is_err()),
        |ctx| assert!(ctx.cause().is_some()),
        |ctx| assert_eq!(ctx.remaining(), Some(Duration::ZERO)),
        |ctx| assert!(format!("{ctx:?}").contains("deadline")),
        |ctx| assert!(child(ctx).is_done()),
        |ctx| assert!(ctx.with_timeout(HOUR).is_done()),
        |ctx| assert!(ctx.with_deadline(Instant::now()).is_done()),
        |ctx| assert!(ctx.merge(&child(&background())).is_done()),
        |ctx| assert!(child(&background()).merge(ctx).is_done()),
        |ctx| assert!(ctx.with_value(1_u8).is_done()),
    ];
    for ask in ways {
        let just = JustPassed::new();
        ask(&just.asked);
        ask(&just.timed);
        just.assert_nobody_is_told();
        advance(ms(1)).await;
        just.assert_all_are_told();
        for ctx in [&just.asked, &just.timed, &just.beside] {
            assert_eq!(cause(ctx).as_deref(), Some("deadline"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn c3_handle_asked_when_the_deadline_has_just_passed_tells_nobody() {
    let log = Log::new();
    let (ctx, handle) = background().with_timeout(ms(5)).with_cancel();
    log_end(&ctx, &log, "told");
    assert!(!handle.is_done() && handle.err().is_none());
    advance_without_timers(ms(5));
    assert!(handle.is_done());
    assert_eq!(handle.err(), ctx.err());
    assert!(format!("{handle:?}").contains("deadline exceeded"));
    assert_eq!(log.take(), [""; 0]);
    handle.cancel();
    assert_eq!(log.take(), ["told"]);
    assert_eq!(reason(&ctx), Some(Reason::DeadlineExceeded));
}

#[tokio::test(start_paused = true)]
async fn c3_polled_waited_ended_or_called_back_when_the_deadline_has_passed_tells_all() {
    type Tell = fn(&Context);
    let ways: [Tell; 6] = [
        |ctx| assert!(ctx.done().now_or_never().is_some()),
        |ctx| assert!(ctx.done_owned().now_or_never().is_some()),
        |ctx| assert!(ctx.done_blocking(None).is_some()),
        |ctx| {
            assert!(
                ctx.run(std::future::pending::<()>())
                    .now_or_never()
                    .is_some()
            )
        },
        |ctx| ctx.on_done(|_| ()).detach(),
        |ctx| assert!(ctx.sleep(HOUR).now_or_never().is_some()),
    ];
    for tell in ways {
        for asked_before in [false, true] {
            let just = JustPassed::new();
            if asked_before {
                assert!(just.timed.is_done() && just.asked.is_done());
            }
            tell(&just.asked);
            just.assert_all_are_told();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn c3_ended_by_other_hands_when_the_deadline_was_seen_passed_then_all_are_told_of_the_deadline()
 {
    for drops in [false, true] {
        let (top, top_handle) = background().with_cancel();
        let timed = top.with_timeout_cause(ms(5), "deadline");
        let (below, below_handle) = timed.with_cancel();
        let (log, waker) = (Log::new(), Counter::new());
        log_end(&timed, &log, "timed");
        log_end(&below, &log, "below");
        let mut done = below.done();
        assert!(poll(&mut done, &waker).is_pending());
        advance_without_timers(ms(5));
        assert!(below.is_done());
        assert_eq!((waker.woken(), log.take().len()), (0, 0));
        match drops {
            true => drop(below_handle),
            false => top_handle.cancel_with("late"),
        }
        assert_eq!(waker.woken(), 1);
        assert_eq!(log.take(), ["timed", "below"]);
        assert_eq!(cause(&below).as_deref(), Some("deadline"));
        assert_eq!(cause(&timed).as_deref(), Some("deadline"));
        assert_eq!(top.is_done(), !drops);
    }
}

/// Beside a paused clock there is another: what one of them has seen holds for all, and the error is one.
#[test]
fn c3_seen_passed_by_one_clock_then_live_by_none() {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let timed = background().with_timeout(HOUR);
    let (below, beside) = (child(&timed), child(&timed));
    let seen = runtime.block_on(async {
        advance_without_timers(2 * HOUR);
        below.err().expect("by this clock it has passed")
    });
    // By the system's clock there is an hour left.
    for ctx in [&timed, &below, &beside, &child(&below), &child(&timed)] {
        assert!(ctx.is_done());
        assert_eq!(ctx.err().as_ref(), Some(&seen));
        assert_eq!(ctx.done_blocking(None).as_ref(), Some(&seen));
    }
}

#[tokio::test(start_paused = true)]
async fn c3_stopped_after_the_deadline_was_seen_passed_prevents_the_callback() {
    let log = Log::new();
    let ctx = background().with_timeout(ms(5));
    let on_done = ctx.on_done({
        let log = log.clone();
        move |_| log.push("told")
    });
    advance_without_timers(ms(5));
    assert!(ctx.is_done());
    assert!(on_done.stop());
    advance(ms(5)).await;
    assert_eq!(log.take(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn c3_deadline_is_seen_from_the_bottom_of_a_deep_chain() {
    let mut ctx = background().with_timeout(ms(5));
    for _ in 0..10_000 {
        ctx = child(&ctx);
    }
    advance_without_timers(ms(5));
    let runtime = Handle::current();
    on_small_stack(move || {
        let _in = runtime.enter();
        assert!(ctx.is_done());
        drop(ctx);
    });
}

// ---- C8: a timer entry wakes the node

#[tokio::test(start_paused = true)]
async fn c8_deadline_passed_tells_waiters_without_a_task_that_polls() {
    let ctx = background().with_timeout(ms(10));
    let (waker, log) = (Counter::new(), Log::new());
    let mut done = ctx.done();
    assert!(poll(&mut done, &waker).is_pending());
    log_end(&ctx, &log, "callback");
    advance(ms(9)).await;
    assert_eq!((waker.woken(), log.take().len()), (0, 0));
    advance(ms(1)).await;
    assert_eq!(waker.woken(), 1);
    assert_eq!(log.take(), ["callback"]);
}

/// Who is told of a deadline waits at the node itself, far below, or below another parent.
#[tokio::test(start_paused = true)]
async fn c8_deadline_passed_tells_whoever_waits_first_wherever_it_is() {
    type Place = fn(&Context) -> Context;
    let places: [Place; 5] = [
        Context::clone,
        |ctx| child(&child(&child(ctx))),
        |ctx| ctx.with_timeout(HOUR),
        |ctx| ctx.merge(&background().with_timeout(HOUR)),
        |ctx| background().with_timeout(HOUR).merge(&child(ctx)),
    ];
    for place in places {
        let ctx = background().with_timeout(ms(10));
        let waits_at = place(&ctx);
        let waker = Counter::new();
        let mut done = waits_at.done();
        assert!(poll(&mut done, &waker).is_pending());
        advance(ms(9)).await;
        assert_eq!(waker.woken(), 0);
        advance(ms(1)).await;
        assert_eq!(waker.woken(), 1);
        assert_eq!(reason(&waits_at), Some(Reason::DeadlineExceeded));
    }
}

/// The first who waits arms the timer; it is not disarmed when that one gives up.
#[tokio::test(start_paused = true)]
async fn c8_deadline_passed_tells_who_came_after_one_that_gave_up() {
    let ctx = background().with_timeout(ms(10));
    begin_to_wait(&ctx);
    let (waker, below) = (Counter::new(), child(&ctx));
    let mut done = below.done();
    assert!(poll(&mut done, &waker).is_pending());
    advance(ms(10)).await;
    assert_eq!(waker.woken(), 1);
}

#[test]
fn c8_waits_first_on_a_thread_outside_any_runtime_and_is_told() {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    let ctx = {
        let _in = runtime.enter();
        background().with_timeout(ms(20))
    };
    let waiting = std::thread::spawn(move || futures::executor::block_on(ctx.done_owned()));
    assert!(waiting.join().unwrap().is_deadline_exceeded());
}

#[tokio::test(start_paused = true)]
async fn c8_idle_runtime_jumps_to_the_deadline() {
    let start = Instant::now();
    let ctx = background().with_timeout(HOUR);
    assert_eq!(end_of(&ctx).await.reason(), Reason::DeadlineExceeded);
    assert_eq!(start.elapsed(), HOUR);
}

#[tokio::test(start_paused = true)]
async fn c8_timeouts_of_many_lengths_each_end_in_time() {
    let log = Log::new();
    // 37 and 100 have no common divisor: all of 0 to 99, in disorder.
    let contexts: Vec<_> = (0..100)
        .map(|i| background().with_timeout(ms(i * 37 % 100 + 1)))
        .collect();
    for (index, ctx) in contexts.iter().enumerate() {
        log_end(ctx, &log, index as u64 * 37 % 100 + 1);
    }
    for now in 1..=100 {
        advance(ms(1)).await;
        assert_eq!(log.take(), [now]);
    }
}

#[test]
fn c8_deadline_on_several_workers_and_the_real_clock_wakes_its_waiters() {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let ctx = background().with_timeout(ms(2));
        let tasks: Vec<_> = (0..10).map(|_| tokio::spawn(ctx.done_owned())).collect();
        for task in tasks {
            let error = timeout(HOUR / 60, task)
                .await
                .expect("it is woken")
                .unwrap();
            assert!(error.is_deadline_exceeded());
        }
    });
}

/// All the ways to derive a deadline.
const DERIVE: [fn() -> Context; 4] = [
    || background().with_timeout(HOUR),
    || background().with_timeout_cause(HOUR, "cause"),
    || background().with_deadline(Instant::now() + HOUR),
    || background().with_deadline_cause(Instant::now(), "past"),
];

#[test]
fn c8_deadline_is_derived_outside_a_runtime_and_in_one_without_time() {
    let without_time = Builder::new_current_thread().build().unwrap();
    for entered in [false, true] {
        let _in = entered.then(|| without_time.enter());
        for derive in DERIVE {
            let ctx = derive();
            assert_eq!(ctx.deadline().unwrap() > Instant::now(), !ctx.is_done());
            let below = child(&ctx).with_timeout(2 * HOUR);
            assert_eq!(below.deadline(), ctx.deadline());
            assert_eq!(below.err(), ctx.err());
        }
    }
}

#[test]
fn c8_waited_for_with_time_disabled_panics_and_says_so_and_leaves_nothing_behind() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let (held, cause) = held_by_waiter();
    let ctx = background().with_timeout(HOUR);
    {
        let _in = runtime.enter();
        for _ in 0..2 {
            let mut done = ctx.done();
            let text = panic_text(|| poll(&mut done, &Counter::new()));
            assert!(text.contains("timers are disabled"), "{text}");
            assert!(text.contains("enable_time"), "what to do about it: {text}");
        }
        let text = panic_text(|| ctx.on_done(move |_| drop(cause)));
        assert!(text.contains("timers are disabled"), "{text}");
        assert_eq!(Arc::strong_count(&held), 1, "the callback is gone");
        // Who needs no timer needs no time.
        assert!(!ctx.is_done());
        assert!(ctx.done_blocking(Some(Duration::ZERO)).is_none());
    }
    // Elsewhere it is as good as new.
    let elsewhere = self::runtime();
    let waker = Counter::new();
    let mut done = ctx.done();
    elsewhere.block_on(async { assert!(poll(&mut done, &waker).is_pending()) });
    assert!(
        background()
            .with_timeout(ms(1))
            .done_blocking(None)
            .is_some()
    );
}

fn held_by_waiter() -> (Arc<()>, Arc<()>) {
    let held = Arc::new(());
    (held.clone(), held)
}

#[test]
fn c8_runtime_entered_is_enough() {
    let (ctx, _runtime) = in_an_hour();
    assert!(!ctx.is_done());
}

#[test]
fn c8_runtime_shut_down_ends_nothing_early() {
    let (ctx, runtime) = in_an_hour();
    let (waker, log) = (Counter::new(), Log::new());
    let mut done = ctx.done();
    assert!(poll(&mut done, &waker).is_pending());
    log_end(&ctx, &log, "callback");
    drop(runtime);
    assert!(!ctx.is_done());
    assert!(poll(&mut done, &waker).is_pending());
    assert_eq!(log.take(), [""; 0]);
}

#[test]
fn c8_runtime_shut_down_while_running_ends_nothing_early() {
    let (ctx, runtime) = in_an_hour();
    let waiting = runtime.spawn(ctx.done_owned());
    runtime.block_on(tokio::task::yield_now());
    runtime.shutdown_background();
    let waited = futures::executor::block_on(waiting);
    assert!(
        waited.unwrap_err().is_cancelled(),
        "the waiting task was dropped, not told"
    );
    assert!(!ctx.is_done());
}

#[test]
fn c8_runtime_shut_down_then_deadline_passes_is_still_seen() {
    let runtime = runtime();
    let ctx = {
        let _in = runtime.enter();
        background().with_timeout_cause(ms(2), "deadline")
    };
    begin_to_wait(&ctx);
    drop(runtime);
    let start = std::time::Instant::now();
    let error = ctx.done_blocking(Some(HOUR / 60)).expect("it has ended");
    assert!(error.is_deadline_exceeded());
    assert!(
        start.elapsed() < HOUR / 60,
        "it slept until its own time was over"
    );
    assert_eq!(cause(&ctx).as_deref(), Some("deadline"));
}

#[test]
fn c8_runtime_shut_down_then_waited_for_ends_nothing_early_and_tells_of_a_cancel() {
    let (parent, handle) = background().with_cancel();
    let runtime = runtime();
    let ctx = {
        let _in = runtime.enter();
        parent.with_timeout(HOUR)
    };
    drop(runtime);
    let waker = Counter::new();
    let mut done = ctx.done();
    assert!(poll(&mut done, &waker).is_pending());
    assert!(!ctx.is_done());
    handle.cancel();
    assert_eq!(waker.woken(), 1);
    assert_eq!(reason(&ctx), Some(Reason::Cancelled));
}

#[test]
fn c8_runtime_shut_down_then_cancelled_or_dropped_is_no_trouble() {
    let runtime = runtime();
    let (ctx, handle) = background().with_cancel();
    let (cancelled, dropped) = {
        let _in = runtime.enter();
        (ctx.with_timeout(HOUR), ctx.with_timeout(HOUR))
    };
    begin_to_wait(&cancelled);
    begin_to_wait(&dropped);
    drop(runtime);
    drop(dropped);
    handle.cancel();
    assert_eq!(reason(&cancelled), Some(Reason::Cancelled));
}

/// Uses up what tokio lets one poll of a task do: from here on its resources are never ready.
fn exhaust_budget() {
    let ready = tokio::sync::Semaphore::new(1);
    let mut turns = 0;
    while ready.acquire().now_or_never().is_some() {
        turns += 1;
        assert!(turns < 10_000, "there is no budget to exhaust");
    }
}

#[tokio::test(start_paused = true)]
async fn c8_deadline_derived_with_exhausted_budget_still_fires() {
    let derived = tokio::spawn(async {
        exhaust_budget();
        let contexts: Vec<_> = (1..=300)
            .map(|i| background().with_timeout(ms(i)))
            .collect();
        let log = Log::new();
        for (index, ctx) in contexts.iter().enumerate() {
            log_end(ctx, &log, index);
        }
        (contexts, log)
    });
    let (contexts, log) = derived.await.unwrap();
    advance(ms(300)).await;
    assert_eq!(
        log.take().len(),
        contexts.len(),
        "told by their timers, not asked"
    );
}

/// A cause that tells, by its count, whether anybody still holds it: the timer does while it is armed.
fn held_by_timer() -> (Arc<()>, Carrier<Arc<()>>) {
    let held = Arc::new(());
    (held.clone(), Carrier(held))
}

#[tokio::test(start_paused = true)]
async fn c8_context_dropped_frees_its_timer() {
    let (held, cause) = held_by_timer();
    let ctx = background().with_timeout_cause(HOUR, cause);
    let (below, handle) = ctx.with_cancel();
    begin_to_wait(&below);
    drop(ctx);
    assert_eq!(
        Arc::strong_count(&held),
        2,
        "a child needs its parent's deadline"
    );
    drop((below, handle));
    assert_eq!(Arc::strong_count(&held), 1);
}

#[tokio::test(start_paused = true)]
async fn c8_context_ended_then_dropped_frees_its_timer() {
    for passes in [false, true] {
        let (held, cause) = held_by_timer();
        let (parent, handle) = background().with_cancel();
        let ctx = parent.with_timeout_cause(ms(10), cause);
        begin_to_wait(&ctx);
        if passes {
            advance(ms(10)).await;
        } else {
            handle.cancel();
        }
        assert!(ctx.is_done());
        drop(ctx);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}

#[test]
fn c8_context_dropped_on_another_thread_frees_its_timer() {
    let runtime = runtime();
    let (held, cause) = held_by_timer();
    let ctx = {
        let _in = runtime.enter();
        background().with_timeout_cause(HOUR, cause)
    };
    begin_to_wait(&ctx);
    std::thread::spawn(move || drop(ctx)).join().unwrap();
    assert_eq!(Arc::strong_count(&held), 1);
}

#[tokio::test(start_paused = true)]
async fn c8_context_dropped_then_deadline_passes_runs_nothing() {
    let log = Log::new();
    let ctx = background().with_timeout(ms(10));
    let on_done = ctx.on_done({
        let log = log.clone();
        move |_| log.push("callback")
    });
    drop((on_done, ctx));
    advance(ms(20)).await;
    assert_eq!(log.take(), [""; 0]);
}
