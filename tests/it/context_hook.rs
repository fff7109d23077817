//! Callbacks at the end of a context: once or never (C7).

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::thread;

use errgroup::{Context, ContextError, OnDone};

use crate::support::{
    Log, OnDrop, advance, advance_without_timers, background, bomb, cause_address, child, log_end,
    ms, reports, watch_panics,
};

/// Registers a callback that logs `name`.
fn on_done(ctx: &Context, log: &Log<&'static str>, name: &'static str) -> OnDone {
    let log = log.clone();
    ctx.on_done(move |_| log.push(name))
}

/// Where the cause of an error lies.
fn source_address(error: &ContextError) -> usize {
    std::ptr::from_ref(error.source().unwrap()).cast::<()>() as usize
}

const NOTHING: [&str; 0] = [];

// ---- once

#[test]
fn c7_cancelled_runs_callback_once_before_cancel_returns() {
    let (ctx, handle) = background().with_cancel();
    let log = Log::new();
    let _on_done = on_done(&ctx, &log, "ran");
    assert_eq!(log.take(), NOTHING);
    handle.cancel();
    assert_eq!(log.take(), ["ran"]);
    handle.cancel();
    drop(handle);
    assert_eq!(log.take(), NOTHING);
}

#[tokio::test(start_paused = true)]
async fn c7_deadline_passed_runs_callback_once() {
    let (parent, handle) = background().with_cancel();
    let ctx = parent.with_timeout(ms(10));
    let log = Log::new();
    let _on_done = on_done(&ctx, &log, "ran");
    advance(ms(10)).await;
    assert_eq!(log.take(), ["ran"]);
    handle.cancel();
    assert_eq!(log.take(), NOTHING);
}

#[test]
fn c7_parent_ended_runs_callback_once() {
    let (parent, parent_handle) = background().with_cancel();
    let (ctx, handle) = parent.with_cancel();
    let log = Log::new();
    let _on_done = on_done(&ctx, &log, "ran");
    parent_handle.cancel();
    handle.cancel();
    assert_eq!(log.take(), ["ran"]);
}

#[test]
fn c7_registered_on_an_ended_context_runs_at_once_on_this_thread() {
    let (ctx, handle) = background().with_cancel();
    handle.cancel();
    let log = Log::new();
    let on_done = ctx.on_done({
        let log = log.clone();
        move |_| log.push(thread::current().id())
    });
    assert_eq!(log.take(), [thread::current().id()]);
    assert!(!on_done.stop(), "it has run");
    assert_eq!(log.take(), []);
}

#[tokio::test(start_paused = true)]
async fn c7_registered_after_the_deadline_and_before_its_timer_ran_runs_at_once() {
    let ctx = background().with_timeout(ms(10));
    advance_without_timers(ms(10));
    let log = Log::new();
    let on_done = on_done(&ctx, &log, "ran");
    assert_eq!(log.take(), ["ran"]);
    assert!(!on_done.stop());
}

#[test]
fn c7_registered_on_a_context_that_was_born_ended_with_a_deadline_needs_no_timer() {
    let (parent, cancel) = background().with_cancel();
    cancel.cancel();
    let late = parent.with_timeout(ms(3_600_000));
    let log = Log::new();
    let without_timer = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    without_timer.block_on(async {
        let _on_done = on_done(&late, &log, "at once");
        assert_eq!(log.take(), ["at once"]);
    });
}

#[test]
fn c7_callback_is_given_the_error_of_the_context() {
    let (parent, handle) = background().with_cancel();
    let ctx = child(&parent);
    let causes = Log::new();
    let register = || {
        let causes = causes.clone();
        ctx.on_done(move |error| causes.push(source_address(error)))
            .detach();
    };
    register();
    handle.cancel_with("parent's");
    register();
    assert_eq!(causes.take(), [cause_address(&parent) as usize; 2]);
}

#[test]
fn c7_callback_runs_on_the_thread_that_ends_the_context() {
    let (ctx, handle) = background().with_cancel();
    let log = Log::new();
    let _on_done = ctx.on_done({
        let log = log.clone();
        move |_| log.push(thread::current().id())
    });
    let ending = thread::spawn(move || {
        handle.cancel();
        thread::current().id()
    });
    assert_eq!([ending.join().unwrap()], *log.take());
}

#[test]
fn c7_callback_registered_in_a_callback_runs_at_once() {
    let (ctx, handle) = background().with_cancel();
    let log = Log::new();
    ctx.on_done({
        let (ctx, log) = (ctx.clone(), log.clone());
        move |_| {
            log_end(&ctx, &log, "inner");
            log.push("outer");
        }
    })
    .detach();
    handle.cancel();
    assert_eq!(log.take(), ["inner", "outer"]);
}

// ---- or never

#[test]
fn c7_stopped_then_cancelled_never_runs() {
    let (ctx, handle) = background().with_cancel();
    let log = Log::new();
    assert!(on_done(&ctx, &log, "ran").stop(), "this prevented it");
    handle.cancel();
    assert_eq!(log.take(), NOTHING);
}

#[test]
fn c7_cancelled_then_stopped_says_that_it_ran() {
    let (ctx, handle) = background().with_cancel();
    let log = Log::new();
    let on_done = on_done(&ctx, &log, "ran");
    handle.cancel();
    assert!(!on_done.stop());
    assert_eq!(log.take(), ["ran"]);
}

#[test]
fn c7_dropped_then_cancelled_never_runs() {
    let (ctx, handle) = background().with_cancel();
    let log = Log::new();
    drop(on_done(&ctx, &log, "ran"));
    handle.cancel();
    assert_eq!(log.take(), NOTHING);
}

#[test]
fn c7_stopped_or_dropped_frees_what_the_callback_holds() {
    let (ctx, _handle) = background().with_cancel();
    for give_up in [|on_done: OnDone| assert!(on_done.stop()), drop::<OnDone>] {
        let held = Arc::new(());
        let on_done = ctx.on_done({
            let held = held.clone();
            move |_| drop(held)
        });
        assert_eq!(Arc::strong_count(&held), 2);
        give_up(on_done);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}

#[test]
fn c7_one_of_several_stopped_leaves_the_others() {
    let (ctx, handle) = background().with_cancel();
    let log = Log::new();
    let callbacks = ["first", "second", "third"].map(|name| on_done(&ctx, &log, name));
    let [first, second, third] = callbacks;
    assert!(second.stop());
    handle.cancel();
    assert_eq!(log.take(), ["first", "third"]);
    assert!(!first.stop() && !third.stop());
}

#[test]
fn c7_stopped_in_its_own_callback_says_that_it_ran() {
    let (ctx, handle) = background().with_cancel();
    let (log, own) = (Log::new(), Arc::new(Mutex::new(None::<OnDone>)));
    let on_done = ctx.on_done({
        let (log, own) = (log.clone(), own.clone());
        move |_| log.push(own.lock().unwrap().take().unwrap().stop())
    });
    *own.lock().unwrap() = Some(on_done);
    handle.cancel();
    assert_eq!(log.take(), [false]);
}

#[test]
fn c7_stopped_by_a_callback_before_it_runs_either_way_and_tells_which() {
    let (ctx, handle) = background().with_cancel();
    let (log, later) = (Log::new(), Arc::new(Mutex::new(None::<OnDone>)));
    let stopped = Log::new();
    ctx.on_done({
        let (stopped, later) = (stopped.clone(), later.clone());
        move |_| stopped.push(later.lock().unwrap().take().unwrap().stop())
    })
    .detach();
    *later.lock().unwrap() = Some(on_done(&ctx, &log, "ran"));
    handle.cancel();
    let (stopped, ran) = (stopped.take(), log.take());
    assert_eq!(stopped.len(), 1);
    assert_eq!(stopped[0], ran.is_empty(), "true only if it was prevented");
}

#[test]
fn c7_context_that_never_ends_never_runs_it() {
    let log = Log::new();
    let held = Arc::new(());
    for ctx in [background(), Context::todo(), background().with_value(1)] {
        assert!(on_done(&ctx, &log, "stopped").stop());
        drop(on_done(&ctx, &log, "dropped"));
        on_done(&ctx, &log, "detached").detach();
        drop(ctx.on_done({
            let held = held.clone();
            move |_| drop(held)
        }));
    }
    assert_eq!(log.take(), NOTHING);
    assert_eq!(Arc::strong_count(&held), 1);
}

// ---- detached, and kept alive

#[test]
fn c7_detached_runs_although_nobody_holds_it() {
    let (ctx, handle) = background().with_cancel();
    let log = Log::new();
    on_done(&ctx, &log, "ran").detach();
    handle.cancel();
    assert_eq!(log.take(), ["ran"]);
}

#[test]
fn c7_detached_runs_although_the_context_is_dropped() {
    let (parent, parent_handle) = background().with_cancel();
    let (ctx, handle) = parent.with_cancel();
    let log = Log::new();
    on_done(&ctx, &log, "first").detach();
    on_done(&ctx, &log, "second").detach();
    handle.detach();
    drop((ctx, parent));
    assert_eq!(log.take(), NOTHING);
    parent_handle.cancel();
    assert_eq!(log.take(), ["first", "second"]);
}

#[test]
fn c7_detached_then_last_handle_dropped_runs() {
    let (ctx, handle) = background().with_cancel();
    let log = Log::new();
    on_done(&ctx, &log, "ran").detach();
    drop(ctx);
    drop(handle);
    assert_eq!(log.take(), ["ran"]);
}

#[test]
fn c7_detached_then_ended_frees_the_context_and_the_callback() {
    let held = Arc::new(());
    let (parent, parent_handle) = background().with_value(OnDrop(|| ())).with_cancel();
    let (ctx, handle) = parent.with_cancel();
    let (cause, kept) = (crate::support::Carrier(held.clone()), held.clone());
    ctx.on_done(move |_| drop(kept)).detach();
    handle.cancel_with(cause);
    assert_eq!(Arc::strong_count(&held), 2, "the cause, in the context");
    drop((ctx, handle));
    assert_eq!(Arc::strong_count(&held), 1);
    assert!(!parent.is_done());
    drop(parent_handle);
}

#[tokio::test(start_paused = true)]
async fn c7_held_keeps_the_context_alive_for_its_deadline_and_its_parent() {
    let (parent, handle) = background().with_cancel();
    let log = Log::new();
    let timed = parent.with_timeout(ms(10));
    let by_deadline = on_done(&timed, &log, "deadline");
    let plain = child(&parent);
    let by_parent = on_done(&plain, &log, "parent");
    drop((timed, plain));
    advance(ms(10)).await;
    assert_eq!(log.take(), ["deadline"]);
    handle.cancel();
    assert_eq!(log.take(), ["parent"]);
    drop((by_deadline, by_parent));
}

// ---- panics

#[test]
fn c7_callback_panics_and_the_end_goes_on() {
    let (ctx, handle) = background().with_cancel();
    let (child, _child_handle) = ctx.with_cancel();
    let log = Log::new();
    log_end(&ctx, &log, "before");
    ctx.on_done(|_| panic!("boom")).detach();
    log_end(&ctx, &log, "after");
    log_end(&child, &log, "below");
    handle.cancel();
    assert_eq!(log.take(), ["before", "after", "below"]);
}

#[test]
fn c7_callback_panics_at_once_on_an_ended_context_and_is_contained() {
    let (ctx, handle) = background().with_cancel();
    handle.cancel();
    assert!(!ctx.on_done(|_| panic!("boom")).stop());
}

#[tokio::test(start_paused = true)]
async fn c7_callback_panics_in_the_timer_and_the_runtime_goes_on() {
    let log = Log::new();
    let ctx = background().with_timeout(ms(10));
    ctx.on_done(|_| panic!("boom")).detach();
    log_end(&ctx, &log, "same context");
    let other = background().with_timeout(ms(10));
    log_end(&other, &log, "other context");
    advance(ms(10)).await;
    assert_eq!(log.take(), ["same context", "other context"]);
    assert_eq!(tokio::spawn(async { 1 }).await.unwrap(), 1);
}

#[test]
fn c7_callback_panics_with_a_payload_that_panics_when_dropped_and_the_end_goes_on() {
    let (ctx, handle) = background().with_cancel();
    let log = Log::new();
    ctx.on_done(|_| std::panic::panic_any(bomb("payload")))
        .detach();
    log_end(&ctx, &log, "after");
    handle.cancel();
    assert_eq!(log.take(), ["after"]);
}

#[test]
fn c7_panic_of_a_callback_is_reported() {
    watch_panics();
    let (ctx, handle) = background().with_cancel();
    ctx.on_done(|_| panic!("a callback to report")).detach();
    handle.cancel();
    assert_eq!(reports("a callback to report"), 1);
}

#[test]
fn c7_stopped_callback_panics_when_dropped_and_is_contained() {
    let (ctx, handle) = background().with_cancel();
    let content = bomb("dropped");
    let on_done = ctx.on_done(move |_| drop(content));
    assert!(on_done.stop());
    assert!(!ctx.is_done());
    drop(handle);
    assert!(ctx.is_done());
}
