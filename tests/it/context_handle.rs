//! The right to end a context: used, dropped, shared and given up.

use errgroup::Reason;

use crate::support::{Counter, background, poll, reason};

#[test]
fn last_handle_dropped_ends_with_handle_dropped() {
    let (ctx, handle) = background().with_cancel();
    let clone = handle.clone();
    drop(handle);
    assert!(!ctx.is_done(), "a clone is left");
    drop(clone);
    assert_eq!(reason(&ctx), Some(Reason::HandleDropped));
}

#[test]
fn handle_ignored_ends_at_once() {
    let (ctx, _) = background().with_cancel();
    assert_eq!(reason(&ctx), Some(Reason::HandleDropped));
}

#[test]
fn handle_dropped_ends_what_is_below_too() {
    let (ctx, handle) = background().with_cancel();
    let (child, _child_handle) = ctx.with_cancel();
    drop(ctx);
    drop(handle);
    assert_eq!(reason(&child), Some(Reason::HandleDropped));
}

#[test]
fn handle_dropped_wakes_who_waits_without_the_context() {
    let (ctx, handle) = background().with_cancel();
    let (mut done, waker) = (ctx.done_owned(), Counter::new());
    assert!(poll(&mut done, &waker).is_pending());
    drop(ctx);
    drop(handle);
    assert_eq!(waker.woken(), 1);
    assert!(poll(&mut done, &waker).is_ready());
}

#[test]
fn handle_detached_leaves_context_live_until_parent_ends() {
    let (parent, parent_handle) = background().with_cancel();
    let (ctx, handle) = parent.with_cancel();
    handle.detach();
    assert!(!ctx.is_done());
    parent_handle.cancel();
    assert_eq!(reason(&ctx), Some(Reason::Cancelled));
}

#[test]
fn handle_detached_leaves_the_right_to_its_clones() {
    let (ctx, handle) = background().with_cancel();
    let clone = handle.clone();
    handle.detach();
    clone.cancel();
    assert_eq!(reason(&ctx), Some(Reason::Cancelled));

    let (ctx, handle) = background().with_cancel();
    let clone = handle.clone();
    handle.detach();
    drop(clone);
    assert_eq!(reason(&ctx), Some(Reason::HandleDropped));

    let (ctx, handle) = background().with_cancel();
    drop(handle.clone());
    handle.detach();
    assert!(!ctx.is_done(), "the last one gave up its right");
}

#[test]
fn context_dropped_then_handle_cancelled_ends_what_is_below() {
    let (ctx, handle) = background().with_cancel();
    let (child, _child_handle) = ctx.with_cancel();
    drop(ctx);
    handle.cancel();
    assert_eq!(reason(&child), Some(Reason::Cancelled));
}
