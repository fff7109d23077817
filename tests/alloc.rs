//! What contexts cost in memory: ceilings of allocations, and nothing left behind (C5, C8, C9).
//!
//! A test binary of its own, since a program has one global allocator. It counts for each thread apart, so the tests
//! run in parallel without disturbing each other; nothing here leaves its thread.

#[path = "support/counting.rs"]
mod counting;

use std::future::pending;
use std::sync::Arc;
use std::sync::Weak;
use std::task::{Context as TaskContext, Wake, Waker};
use std::time::Duration;

use errgroup::{CancelHandle, Context, ContextError};
use futures::FutureExt;
use tokio::runtime::Builder;

use counting::{ALLOCATIONS, LIVE_BYTES};

/// How many allocations a function makes, freed again or not.
fn allocations<R>(f: impl FnOnce() -> R) -> usize {
    let before = ALLOCATIONS.get();
    let result = f();
    let made = ALLOCATIONS.get() - before;
    drop(result);
    made
}

/// How many more bytes are in use after a function than before.
fn growth(f: impl FnOnce()) -> isize {
    let before = LIVE_BYTES.get();
    f();
    LIVE_BYTES.get() - before
}

/// Runs on a current-thread runtime with a paused clock: timers and tasks are counted, too.
fn on_runtime<R>(f: impl Future<Output = R>) -> R {
    let builder = &mut Builder::new_current_thread();
    builder
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(f)
}

const HOUR: Duration = Duration::from_secs(3_600);

fn parent() -> (Context, CancelHandle) {
    let (parent, handle) = Context::background().with_cancel();
    // A few children and waiters, so that what is made once for the first of them has been made.
    let children: Vec<_> = (0..3).map(|_| child(&parent)).collect();
    let callbacks: Vec<_> = (0..3).map(|_| parent.on_done(|_| ())).collect();
    drop((children, callbacks));
    (parent, handle)
}

fn child(parent: &Context) -> Context {
    let (ctx, handle) = parent.with_cancel();
    handle.detach();
    ctx
}

/// A child with a deadline, and with a timer: somebody has begun to wait for it.
fn timed(parent: &Context) -> Context {
    let ctx = parent.with_timeout(HOUR);
    drop(ctx.on_done(|_| ()));
    ctx
}

/// Waits for an end that must come: on a paused clock the patience is over as soon as nothing can go on.
async fn end_of(ctx: &Context) {
    let end = tokio::time::timeout(100 * HOUR, ctx.done()).await;
    assert!(end.is_ok(), "the context ends");
}

fn noop() -> Waker {
    struct Noop;
    impl Wake for Noop {
        fn wake(self: Arc<Self>) {}
    }
    Waker::from(Arc::new(Noop))
}

// ---- ceilings

#[test]
fn root_allocates_nothing() {
    assert_eq!(allocations(|| (Context::background(), Context::todo())), 0);
    assert_eq!(
        allocations(|| Context::background().without_cancel().clone()),
        0
    );
    assert_eq!(
        allocations(|| Context::background().merge(&Context::todo())),
        0
    );
}

#[test]
fn asking_a_live_context_allocates_nothing() {
    on_runtime(async {
        let (parent, _handle) = parent();
        let ctx = parent.with_value(7_u64).with_timeout(HOUR);
        let asked = allocations(|| {
            assert!(!ctx.is_done() && ctx.check().is_ok());
            assert!(ctx.err().is_none() && ctx.cause().is_none());
            assert!(ctx.deadline().is_some() && ctx.remaining().is_some());
            assert_eq!(ctx.value(), Some(&7_u64));
            (
                ctx.clone(),
                ctx.without_cancel(),
                ctx.merge(&ctx),
                ctx.done_owned(),
            )
        });
        assert_eq!(asked, 0);
    });
}

#[test]
fn asking_an_ended_context_allocates_nothing() {
    let (parent, handle) = parent();
    let below = child(&parent);
    handle.cancel_with("cause");
    for ctx in [parent, below] {
        assert_eq!(
            allocations(|| assert!(ctx.is_done() && ctx.check().is_err())),
            0
        );
        assert_eq!(
            allocations(|| (ctx.err(), ctx.cause().is_some(), ctx.done().now_or_never())),
            0
        );
    }
}

#[test]
fn derivations_stay_below_their_ceilings() {
    on_runtime(async {
        let (parent, _handle) = parent();
        let (other, _other_handle) = self::parent();
        // What a runtime pays once for its timers, and has while anybody waits.
        let _waited_for = timed(&parent);
        let _waits = _waited_for.on_done(|_| ());
        assert!(allocations(|| parent.with_value(7_u64)) <= 1, "a value");
        assert!(allocations(|| parent.with_cancel()) <= 2, "a cancel");
        assert!(allocations(|| parent.with_timeout(HOUR)) <= 2, "a timeout");
        assert!(
            allocations(|| parent.with_timeout(HOUR).on_done(|_| ())) <= 4,
            "a timeout and the first who waits for it"
        );
        assert!(allocations(|| parent.merge(&other)) <= 2, "a merge");
    });
}

#[test]
fn thousand_children_stay_below_two_allocations_and_128_bytes_each() {
    let (parent, _handle) = parent();
    let mut children = Vec::with_capacity(1_000);
    let bytes = growth(|| {
        let made = allocations(|| children.extend((0..1_000).map(|_| parent.with_cancel())));
        assert!(made <= 2_000, "{made}");
    });
    assert!(bytes <= 128 * 1_000, "{bytes}");
}

#[test]
fn ended_parent_costs_its_thousand_children_no_allocation_each() {
    let (parent, handle) = parent();
    let children: Vec<_> = (0..1_000).map(|_| child(&parent)).collect();
    let made = allocations(|| handle.cancel());
    assert!(children.iter().all(Context::is_done));
    assert!(made <= 20, "{made}");
}

// ---- C5: a long-lived parent keeps nothing of its dead children

const MILLION: usize = 1_000_000;
const BURST: usize = 100_000;

/// What a parent may keep of a million that are gone: one chunk of its list, and no more.
const LITTLE: isize = 4_096;

#[test]
fn c5_million_children_derived_and_dropped_leave_nothing() {
    let (parent, handle) = parent();
    let grown = growth(|| (0..MILLION).for_each(|_| drop(parent.with_cancel())));
    assert!(grown <= LITTLE, "{grown}");
    handle.cancel();
}

#[test]
fn c5_million_children_come_and_go_around_a_survivor_and_leave_nothing() {
    let (parent, handle) = parent();
    let mut survivor = child(&parent);
    let grown = growth(|| {
        for number in 0..MILLION {
            let next = child(&parent);
            if number % 1_000 == 0 {
                survivor = next;
            }
        }
    });
    assert!(grown <= LITTLE, "{grown}");
    handle.cancel();
    assert!(survivor.is_done());
}

#[test]
fn c5_million_children_cancelled_and_dropped_leave_nothing() {
    let (parent, _handle) = parent();
    let grown = growth(|| (0..MILLION).for_each(|_| parent.with_cancel().1.cancel()));
    assert!(grown <= LITTLE, "{grown}");
}

/// Derives a burst of children and drops them again but for one; says what is left, and what there was.
fn burst(survivor: usize, order: impl Fn(usize) -> usize) -> (isize, isize) {
    let (parent, handle) = parent();
    let mut children: Vec<Option<Context>> = vec![None; BURST];
    let mut peak = 0;
    let left = growth(|| {
        peak = growth(|| children.fill_with(|| Some(child(&parent))));
        for step in 0..BURST {
            let index = order(step);
            if index != survivor {
                children[index] = None;
            }
        }
    });
    handle.cancel();
    assert!(children.into_iter().flatten().all(|child| child.is_done()));
    (left, peak)
}

#[test]
fn c5_burst_of_children_dropped_in_any_order_gives_its_memory_back() {
    for order in [
        |step| step,
        |step| BURST - 1 - step,
        |step| step * 7_919 % BURST,
    ] {
        for survivor in [usize::MAX, 0, BURST / 2, BURST - 1] {
            let (left, peak) = burst(survivor, order);
            assert!(left <= peak / 100, "{left} of {peak}, survivor {survivor}");
        }
    }
}

#[test]
fn c5_merged_children_leave_nothing_with_either_parent() {
    let (left, _left_handle) = parent();
    let (right, _right_handle) = parent();
    let grown = growth(|| (0..BURST).for_each(|_| drop(left.merge(&right))));
    assert!(grown <= LITTLE, "{grown}");
}

/// What ending a context frees. An entry for a child that has ended before would be part of it.
fn freed_by(handle: &CancelHandle) -> isize {
    -growth(|| handle.cancel())
}

#[test]
fn c5_children_that_have_ended_are_forgotten_although_somebody_holds_them() {
    let (parent, handle) = parent();
    let cancelled = |_| {
        let (ctx, handle) = parent.with_cancel();
        handle.cancel();
        ctx
    };
    let children: Vec<_> = (0..BURST).map(cancelled).collect();
    assert!(freed_by(&handle) <= LITTLE);
    drop(children);
}

#[test]
fn c5_merged_children_ended_by_one_parent_are_forgotten_by_the_other() {
    let (long_lived, handle) = parent();
    let ended_by_the_other = |number| {
        let (short_lived, handle) = Context::background().with_cancel();
        let merged = match number % 2 {
            0 => long_lived.merge(&short_lived),
            _ => short_lived.merge(&long_lived),
        };
        handle.cancel();
        merged
    };
    let children: Vec<_> = (0..BURST).map(ended_by_the_other).collect();
    assert!(freed_by(&handle) <= LITTLE);
    drop(children);
}

// ---- C8: a timer is freed with its context

#[test]
fn c8_timeouts_dropped_leave_nothing() {
    on_runtime(async {
        let (parent, _handle) = parent();
        let grown = growth(|| {
            for _ in 0..BURST {
                drop(parent.with_timeout(HOUR));
                drop(timed(&parent));
                drop(child(&parent.with_timeout_cause(HOUR, "cause")));
            }
        });
        assert!(grown <= LITTLE, "{grown}");
    });
}

#[test]
fn c8_timeouts_ended_before_their_time_leave_nothing() {
    on_runtime(async {
        let grown = growth(|| {
            for _ in 0..BURST {
                let (parent, handle) = Context::background().with_cancel();
                let _timed = [parent.with_timeout(HOUR), timed(&parent)];
                handle.cancel();
            }
        });
        assert!(grown <= LITTLE, "{grown}");
    });
}

#[test]
fn c8_timeouts_ended_before_their_time_free_their_timers_although_somebody_holds_them() {
    on_runtime(async {
        let (parent, handle) = parent();
        let children: Vec<_> = (0..1_000).map(|_| timed(&parent)).collect();
        // When, which of those, and whose it is. The parent's list alone, which goes too, is half as large.
        let timers = 1_000 * size_of::<(tokio::time::Instant, u64, Weak<()>)>() as isize;
        assert!(freed_by(&handle) >= timers);
        drop(children);
    });
}

// ---- C9: who no longer waits leaves nothing

#[test]
fn c9_done_polled_again_and_again_allocates_once() {
    let (ctx, _handle) = parent();
    let (waker, mut done) = (noop(), ctx.done());
    let mut poll = || {
        assert!(
            done.poll_unpin(&mut TaskContext::from_waker(&waker))
                .is_pending()
        )
    };
    poll();
    assert_eq!(allocations(|| (0..1_000).for_each(|_| poll())), 0);
}

#[test]
fn c9_million_waits_given_up_leave_nothing() {
    let (ctx, _handle) = parent();
    let waker = noop();
    let grown = growth(|| {
        for _ in 0..MILLION {
            assert!(
                ctx.done()
                    .poll_unpin(&mut TaskContext::from_waker(&waker))
                    .is_pending()
            );
        }
    });
    assert!(grown <= LITTLE, "{grown}");
}

#[test]
fn c9_burst_of_waits_given_up_gives_its_memory_back() {
    let (ctx, _handle) = parent();
    let waker = noop();
    let mut peak = 0;
    let left = growth(|| {
        let mut waiting: Vec<_> = (0..BURST).map(|_| ctx.done()).collect();
        let mut register = || waiting.iter_mut().all(|done| poll(done, &waker));
        peak = growth(|| assert!(register()));
        drop(waiting);
    });
    assert!(left <= peak / 100, "{left} of {peak}");
}

fn poll(done: &mut errgroup::Done<'_>, waker: &Waker) -> bool {
    done.poll_unpin(&mut TaskContext::from_waker(waker))
        .is_pending()
}

#[test]
fn callbacks_stopped_leave_nothing() {
    let (ctx, _handle) = parent();
    let grown = growth(|| {
        for number in 0..BURST {
            let callback = move |_: &ContextError| assert!(number < BURST);
            assert!(ctx.on_done(callback).stop());
        }
    });
    assert!(grown <= LITTLE, "{grown}");
}

// ---- no cycles: what is dropped is freed, to the last byte

/// Checks that a second run leaves not one byte more in use than there was. The first one may make what stays.
fn leaves_nothing(mut f: impl FnMut()) {
    f();
    assert_eq!(growth(f), 0);
}

#[test]
fn trees_are_freed_whole() {
    leaves_nothing(|| {
        let (root, handle) = parent();
        let mut contexts = vec![root];
        for number in 0..200_usize {
            let above = contexts[number / 2].with_value(number);
            contexts.push(child(&above).merge(&contexts[number / 3]));
        }
        handle.cancel_with("cause");
    });
}

#[test]
fn live_trees_are_freed_whole() {
    leaves_nothing(|| {
        let (root, handle) = parent();
        handle.detach();
        let mut contexts = vec![root];
        for number in 0..200_usize {
            contexts.push(child(&contexts[number / 2]).merge(&contexts[number / 3]));
        }
    });
}

#[test]
fn detached_callbacks_are_freed_by_the_end() {
    leaves_nothing(|| {
        let (ctx, handle) = parent();
        let below = child(&ctx);
        for ctx in [&ctx, &below] {
            let content = ctx.clone();
            ctx.on_done(move |_| drop(content)).detach();
        }
        drop((ctx, below));
        handle.cancel();
    });
}

#[test]
fn timers_and_their_contexts_are_freed() {
    on_runtime(async {
        leaves_nothing(|| {
            let (parent, handle) = parent();
            let timed = parent.with_timeout_cause(HOUR, "cause");
            let below = child(&timed).with_timeout(HOUR / 2).merge(&child(&parent));
            let _waiting = below.done_owned().now_or_never();
            drop((timed, below));
            let _ended = [
                parent.with_timeout(HOUR),
                parent.with_timeout(Duration::ZERO),
            ];
            handle.cancel();
        });
    });
}

#[test]
fn timers_that_have_fired_are_freed() {
    on_runtime(async {
        let turn = async || {
            let ctx = Context::background().with_timeout_cause(HOUR, "cause");
            let below = child(&ctx);
            ctx.on_done(|_| ()).detach();
            drop(ctx);
            end_of(&below).await;
        };
        turn().await;
        let before = LIVE_BYTES.get();
        turn().await;
        assert_eq!(LIVE_BYTES.get() - before, 0);
    });
}

#[test]
fn foreign_futures_are_freed() {
    on_runtime(async {
        let turn = async || {
            let (parent, handle) = parent();
            drop(parent.with_cancel_on(pending::<()>()));
            let ended = parent.with_cancel_on(pending::<()>());
            let completed = parent.with_cancel_on_cause(std::future::ready("cause"));
            end_of(&completed).await;
            handle.cancel();
            drop(ended);
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
        };
        turn().await;
        let before = LIVE_BYTES.get();
        turn().await;
        assert_eq!(LIVE_BYTES.get() - before, 0);
    });
}

// ---- stopping in steps, and cleaning up

#[test]
fn steps_stay_below_their_ceilings() {
    on_runtime(async {
        let (parent, _handle) = parent();
        assert_eq!(
            allocations(|| parent.stopping()),
            1,
            "a list of what is above"
        );
        assert_eq!(allocations(|| parent.with_cleanup(HOUR)), 1);
        assert_eq!(allocations(|| parent.with_stop()), 3);
        let (ctx, _handle) = parent.with_stop();
        // With the first two the lists are made.
        let kept = [ctx.stopping(), ctx.stopping()];
        assert!(
            allocations(|| ctx.stopping()) <= 4,
            "a node, its second parent, two lists"
        );
        drop(kept);
    });
}

#[test]
fn c5_steps_asked_for_again_and_again_leave_nothing() {
    on_runtime(async {
        let (root, handle) = Context::background().with_stop();
        let ctx = child(&root).with_timeout(HOUR);
        drop((ctx.stopping(), ctx.cleanup(), ctx.stopping_done()));
        let asked = growth(|| {
            for _ in 0..BURST {
                drop((ctx.stopping(), ctx.cleanup(), ctx.stopping_done()));
            }
        });
        assert!(asked <= LITTLE, "{asked}");
        handle.cancel();
        let asked = growth(|| {
            for _ in 0..BURST {
                drop((ctx.stopping(), ctx.cleanup(), ctx.stopping_done()));
            }
        });
        assert!(asked <= LITTLE, "{asked}");
    });
}

#[test]
fn c5_stopped_again_and_again_earlier_each_time_leaves_nothing() {
    on_runtime(async {
        let (ctx, handle) = Context::background().with_stop();
        let mut drain = 1_000 * HOUR;
        let mut stop = || {
            drain -= Duration::from_secs(1);
            handle.stop(drain);
        };
        stop();
        let grown = growth(|| (0..BURST.min(100_000)).for_each(|_| stop()));
        assert!(grown <= LITTLE, "{grown}");
        assert!(!ctx.is_done());
    });
}

#[test]
fn steps_and_their_alarms_are_freed() {
    on_runtime(async {
        leaves_nothing(|| {
            let (root, handle) = parent();
            let (ctx, stop) = root.with_stop();
            let below = child(&ctx).with_cleanup(HOUR).merge(&child(&root));
            let asked = (ctx.stopping(), below.stopping(), below.cleanup());
            let _waiting = asked.1.done_owned().now_or_never();
            stop.stop(HOUR);
            drop((ctx, stop));
            let (other, stop) = below.with_stop();
            stop.stop(HOUR);
            drop((other, below));
            handle.cancel();
            drop(asked);
        });
    });
}

#[test]
fn drains_and_cleanups_that_are_over_are_freed() {
    on_runtime(async {
        let turn = async || {
            let (ctx, stop) = Context::background().with_stop();
            let cleanup = ctx.with_cleanup(HOUR).cleanup();
            stop.stop(HOUR);
            end_of(&ctx).await;
            end_of(&cleanup).await;
        };
        turn().await;
        let before = LIVE_BYTES.get();
        turn().await;
        assert_eq!(LIVE_BYTES.get() - before, 0);
    });
}
