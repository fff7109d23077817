//! Two threads at once, many times. What may happen is decided by what each of them saw, never by who came first.

use std::sync::Arc;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use errgroup::{CancelHandle, Context, Reason};
use tokio::runtime::{Builder, Runtime};

use crate::support::{
    Carrier, Counter, Log, advance_without_timers, background, cause, child, log_end, ms,
    on_small_stack, poll, race, reason,
};

const ROUNDS: usize = 1_000;

fn rounds(mut round: impl FnMut(Context, CancelHandle)) {
    for _ in 0..ROUNDS {
        let (ctx, handle) = background().with_cancel();
        round(ctx, handle);
    }
}

fn paused() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

// ---- derive during end

/// Derives in one thread while the other ends the parent.
fn derive_during_end(derive: impl Fn(&Context) -> Context + Send + Sync) {
    rounds(|ctx, handle| {
        let derived = Log::new();
        race(
            || handle.cancel_with("parent's"),
            || {
                let below = derive(&ctx);
                derived.push((child(&below), below));
            },
        );
        for (below, derived) in derived.take() {
            assert_eq!(cause(&derived).as_deref(), Some("parent's"));
            assert_eq!(cause(&below).as_deref(), Some("parent's"));
        }
    });
}

#[test]
fn derive_during_end_then_child_is_ended() {
    derive_during_end(child);
}

#[test]
fn merge_during_end_of_either_then_child_is_ended() {
    let (other, _handle) = background().with_cancel();
    derive_during_end(|ctx| ctx.merge(&other));
    derive_during_end(|ctx| other.merge(ctx));
}

#[test]
fn timeout_during_end_then_child_is_ended() {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    derive_during_end(|ctx| {
        let _in = runtime.enter();
        ctx.with_timeout(Duration::from_secs(3_600))
    });
}

// ---- end during end

#[test]
fn cancel_during_cancel_then_one_cause_and_one_call() {
    rounds(|ctx, handle| {
        let (log, below) = (Log::new(), child(&ctx));
        log_end(&ctx, &log, "ctx");
        log_end(&below, &log, "below");
        race(|| handle.cancel_with("a"), || handle.cancel_with("b"));
        assert_eq!(cause(&ctx), cause(&below));
        assert_eq!(log.take(), ["ctx", "below"]);
    });
}

#[test]
fn child_ended_during_end_of_parent_then_all_below_it_agree_with_it() {
    rounds(|parent, parent_handle| {
        let (middle, handle) = parent.with_cancel();
        let (below, log) = (child(&middle), Log::new());
        for ctx in [&parent, &middle, &below] {
            log_end(ctx, &log, ());
        }
        race(
            || parent_handle.cancel_with("parent's"),
            || handle.cancel_with("middle's"),
        );
        assert_eq!(cause(&parent).as_deref(), Some("parent's"));
        assert_eq!(cause(&below), cause(&middle));
        assert_eq!(log.take().len(), 3);
    });
}

#[test]
fn both_parents_of_a_merge_ended_at_once_then_one_cause_and_one_call() {
    rounds(|left, left_handle| {
        let (right, right_handle) = background().with_cancel();
        let merged = [left.merge(&right), right.merge(&left)];
        let below = merged[0].merge(&merged[1]);
        let log = Log::new();
        for ctx in merged.iter().chain([&below]) {
            log_end(ctx, &log, ());
        }
        race(
            || left_handle.cancel_with("left's"),
            || right_handle.cancel_with("right's"),
        );
        let causes = merged.each_ref().map(cause);
        assert!(
            causes
                .iter()
                .all(|cause| matches!(cause.as_deref(), Some("left's" | "right's")))
        );
        assert!(causes.contains(&cause(&below)));
        assert_eq!(log.take().len(), 3);
    });
}

#[test]
fn last_two_handles_dropped_at_once_then_ended_once() {
    rounds(|ctx, handle| {
        let log = Log::new();
        log_end(&ctx, &log, "ended");
        let clone = handle.clone();
        race(|| drop(handle), || drop(clone));
        assert_eq!(reason(&ctx), Some(Reason::HandleDropped));
        assert_eq!(log.take(), ["ended"]);
    });
}

#[test]
fn handle_dropped_during_drop_of_the_context_then_child_is_ended() {
    rounds(|ctx, handle| {
        let below = child(&ctx);
        race(|| drop(handle), || drop(ctx));
        assert_eq!(reason(&below), Some(Reason::HandleDropped));
    });
}

#[test]
fn deadline_noticed_by_two_threads_during_cancel_then_it_has_won() {
    let runtime = paused();
    for _ in 0..200 {
        let log = Log::new();
        let (top, handle) = background().with_cancel();
        let timed = runtime.block_on(async {
            let timed = top.with_timeout_cause(ms(5), "deadline");
            advance_without_timers(ms(5));
            timed
        });
        let (left, right) = (child(&timed), child(&timed));
        log_end(&timed, &log, "told");
        let ask = |ctx: &Context| {
            let _in = runtime.enter();
            assert_eq!(cause(ctx).as_deref(), Some("deadline"));
        };
        let cancel = || {
            let _in = runtime.enter();
            handle.cancel_with("late");
        };
        race(|| race(|| ask(&left), || ask(&right)), cancel);
        assert_eq!(log.take(), ["told"]);
    }
}

/// A tree of a hundred, the parent of each node the one at half its number.
fn tree_of_a_hundred() -> Vec<(Context, CancelHandle)> {
    let mut nodes = vec![background().with_cancel()];
    for number in 1..100_usize {
        nodes.push(nodes[(number - 1) / 2].0.with_cancel());
    }
    nodes
}

/// The node itself and its ancestors, as causes.
fn lineage(mut number: usize) -> Vec<String> {
    let mut lineage = vec![number.to_string()];
    while number > 0 {
        number = (number - 1) / 2;
        lineage.push(number.to_string());
    }
    lineage
}

#[test]
fn tree_of_a_hundred_ended_from_many_threads_in_any_order() {
    const THREADS: usize = 4;
    for round in 0..100 {
        let (nodes, log, start) = (tree_of_a_hundred(), Log::new(), Barrier::new(THREADS));
        for (number, (ctx, _)) in nodes.iter().enumerate() {
            log_end(ctx, &log, number);
        }
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (nodes, start) = (&nodes, &start);
                scope.spawn(move || {
                    start.wait();
                    // A stride without a common divisor with 100 visits every node, each thread in its own order.
                    let stride = [3, 7, 37, 99][(thread + round) % THREADS];
                    for step in 0..100 {
                        let number = (99 + step * stride) % 100;
                        nodes[number].1.cancel_with(number.to_string());
                    }
                });
            }
        });
        for (number, (ctx, _)) in nodes.iter().enumerate() {
            assert!(lineage(number).contains(&cause(ctx).expect("ended, with a cause")));
        }
        let mut told = log.take();
        told.sort_unstable();
        assert!(told.into_iter().eq(0..100), "each once");
    }
}

// ---- register during end

#[test]
fn poll_during_end_is_ready_or_woken() {
    rounds(|ctx, handle| {
        let waker = Counter::new();
        let mut done = ctx.done();
        let pending = Log::new();
        race(
            || handle.cancel(),
            || pending.push(poll(&mut done, &waker).is_pending()),
        );
        assert_eq!(waker.woken(), usize::from(pending.take() == [true]));
        assert!(poll(&mut done, &waker).is_ready());
    });
}

#[test]
fn poll_with_another_waker_during_end_is_ready_or_wakes_that_one() {
    rounds(|ctx, handle| {
        let (first, second, pending) = (Counter::new(), Counter::new(), Log::new());
        let mut done = ctx.done();
        assert!(poll(&mut done, &first).is_pending());
        race(
            || handle.cancel(),
            || pending.push(poll(&mut done, &second).is_pending()),
        );
        if pending.take() == [true] {
            assert_eq!(second.woken(), 1);
        }
        assert_eq!(first.woken() + second.woken(), 1);
        assert_eq!(
            (Arc::strong_count(&first), Arc::strong_count(&second)),
            (1, 1)
        );
    });
}

#[test]
fn done_dropped_during_end_leaves_no_registration() {
    rounds(|ctx, handle| {
        let waker = Counter::new();
        let mut done = ctx.done_owned();
        assert!(poll(&mut done, &waker).is_pending());
        race(|| handle.cancel(), || drop(done));
        assert!(waker.woken() <= 1);
        assert_eq!(Arc::strong_count(&waker), 1);
    });
}

#[test]
fn c7_registered_during_end_runs_once() {
    rounds(|ctx, handle| {
        let log = Log::new();
        race(|| handle.cancel(), || log_end(&ctx, &log, "ran"));
        assert_eq!(log.take(), ["ran"]);
    });
}

#[test]
fn c7_stopped_during_end_tells_whether_it_ran() {
    rounds(|ctx, handle| {
        let (log, stopped) = (Log::new(), Log::new());
        let on_done = ctx.on_done({
            let log = log.clone();
            move |_| log.push("ran")
        });
        race(|| handle.cancel(), || stopped.push(on_done.stop()));
        assert_eq!(stopped.take(), [log.take().is_empty()]);
    });
}

#[test]
fn c7_detached_during_end_runs_once() {
    rounds(|ctx, handle| {
        let log = Log::new();
        let on_done = ctx.on_done({
            let log = log.clone();
            move |_| log.push("ran")
        });
        drop(ctx);
        race(|| handle.cancel(), || on_done.detach());
        assert_eq!(log.take(), ["ran"]);
    });
}

// ---- drop during end

#[test]
fn child_dropped_during_end_of_parent_leaves_nothing_behind() {
    rounds(|parent, handle| {
        let held = Arc::new(());
        let below = child(&child(&parent)).with_value(held.clone());
        race(|| handle.cancel_with(Carrier(held.clone())), || drop(below));
        drop((parent, handle));
        assert_eq!(Arc::strong_count(&held), 1);
    });
}

#[test]
fn c4_two_ends_of_one_long_chain_dropped_at_once() {
    for _ in 0..20 {
        let mut fork = background().with_value(0);
        for value in 0..10_000 {
            fork = child(&fork).with_value(value);
        }
        let (left, right) = (child(&fork), child(&fork));
        drop(fork);
        on_small_stack(|| race(|| on_small_stack(|| drop(left)), || drop(right)));
    }
}

/// Children come and go on several threads while a parent lives, and then ends.
#[test]
fn children_derived_and_dropped_by_several_threads_during_end() {
    for _ in 0..100 {
        let (parent, handle) = background().with_cancel();
        let churn = || {
            let mut kept = Vec::new();
            while !parent.is_done() {
                kept.push(child(&parent));
                if kept.len() > 20 {
                    kept.drain(..10);
                }
            }
            assert!(kept.iter().all(|ctx| ctx.done_blocking(None).is_some()));
        };
        race(
            || race(churn, churn),
            || {
                for _ in 0..50 {
                    drop(child(&parent));
                }
                handle.cancel();
            },
        );
    }
}
