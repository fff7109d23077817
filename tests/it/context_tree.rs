//! Who ends with whom: the first end wins (C1).

use errgroup::{CancelHandle, Context, Reason};

use crate::support::{
    Log, advance, background, cause_address, child, error, live, log_end, ms, reason,
};

#[test]
fn background_and_todo_never_end() {
    for root in [
        Context::background(),
        Context::todo(),
        Context::background().without_cancel(),
    ] {
        assert!(!root.is_done());
        assert!(root.err().is_none());
        assert!(root.check().is_ok());
        assert!(root.cause().is_none());
        assert_eq!(root.deadline(), None);
        assert_eq!(root.remaining(), None);
    }
}

#[test]
fn background_and_todo_print_as_themselves() {
    assert_eq!(
        format!("{:?}", Context::background()),
        "Context::background()"
    );
    assert_eq!(format!("{:?}", Context::todo()), "Context::todo()");
}

#[test]
fn derived_context_prints_where_it_was_derived_and_why_it_ended() {
    let (ctx, handle) = background().with_cancel();
    let place = format!("{}:{}", file!(), line!() - 1);
    let live = format!("{ctx:?} {handle:?}");
    assert_eq!(live.matches(&place).count(), 2, "{live}");
    handle.cancel_with("stop");
    let ended = format!("{ctx:?} {handle:?}");
    assert_eq!(ended.matches("cancelled: stop").count(), 2, "{ended}");
}

#[test]
fn c1_child_cancelled_leaves_parent_live() {
    let (parent, _parent_handle) = background().with_cancel();
    let (child, handle) = parent.with_cancel();
    let (sibling, _sibling_handle) = parent.with_cancel();
    handle.cancel();
    assert_eq!(reason(&child), Some(Reason::Cancelled));
    assert!(!parent.is_done());
    assert!(!sibling.is_done());
}

#[test]
fn c1_child_cancelled_then_parent_cancelled_keeps_its_own_reason() {
    let (parent, parent_handle) = background().with_cancel();
    let (child, handle) = parent.with_cancel();
    handle.cancel_with("child's");
    parent_handle.cancel_with("parent's");
    assert_eq!(child.cause().unwrap().to_string(), "child's");
    assert_eq!(parent.cause().unwrap().to_string(), "parent's");
}

#[test]
fn c1_parent_cancelled_gives_child_its_reason() {
    let (parent, handle) = background().with_cancel();
    let (child, child_handle) = parent.with_cancel();
    let (grandchild, _grandchild_handle) = child.with_value(1_u8).with_cancel();
    handle.cancel_with("parent's");
    child_handle.cancel_with("child's, too late");
    for ctx in [&child, &grandchild] {
        assert_eq!(reason(ctx), Some(Reason::Cancelled));
        assert_eq!(cause_address(ctx), cause_address(&parent), "the same event");
    }
}

#[tokio::test(start_paused = true)]
async fn c1_child_derived_from_ended_parent_is_born_ended_with_its_reason() {
    let (parent, handle) = background().with_cancel();
    handle.cancel_with("parent's");
    let live = background().with_timeout(ms(100));
    for child in [
        parent.clone(),
        parent.with_cancel().0,
        parent.with_timeout(ms(1)),
        parent.with_timeout_cause(ms(0), "own"),
        parent.with_deadline_cause(tokio::time::Instant::now(), "own"),
        parent.with_value(1),
        parent.with_cancel_on(std::future::ready(())),
        parent.with_cancel_on_cause(std::future::ready("own")),
        parent.merge(&live),
        live.merge(&parent),
        parent.with_cancel().0.with_cancel().0,
    ] {
        assert_eq!(reason(&child), Some(Reason::Cancelled));
        assert_eq!(cause_address(&child), cause_address(&parent));
    }
    assert!(!live.is_done());
}

#[test]
fn c1_cancel_then_cancel_changes_nothing() {
    let (ctx, handle) = background().with_cancel();
    let other = handle.clone();
    handle.cancel_with("first");
    handle.cancel_with("second");
    other.cancel();
    drop((handle, other));
    assert_eq!(ctx.cause().unwrap().to_string(), "first");
}

#[test]
fn c1_cancel_without_cause_then_cancel_with_cause_has_none() {
    let (ctx, handle) = background().with_cancel();
    handle.cancel();
    handle.cancel_with("late");
    assert!(ctx.cause().unwrap().is::<errgroup::ContextError>());
}

#[tokio::test(start_paused = true)]
async fn c1_timeout_cancelled_by_parent_is_cancelled_not_exceeded() {
    let (parent, handle) = background().with_cancel();
    let timeout = parent.with_timeout(ms(10));
    handle.cancel();
    advance(ms(20)).await;
    assert_eq!(reason(&timeout), Some(Reason::Cancelled));
}

#[test]
fn c1_end_is_seen_through_every_clone() {
    let (ctx, handle) = background().with_cancel();
    let clone = ctx.clone();
    handle.cancel_with("once");
    assert_eq!(cause_address(&ctx), cause_address(&clone));
    assert_eq!(error(&ctx).to_string(), error(&clone).to_string());
}

#[test]
fn cancel_ends_children_through_values_before_it_returns() {
    let (ctx, handle) = background().with_cancel();
    let mut contexts = vec![ctx];
    for depth in 0..10_u32 {
        let above = contexts[contexts.len() - 1].with_value(depth);
        let below = child(&above);
        contexts.extend([above, below]);
    }
    assert_eq!(live(&contexts).len(), 21);
    handle.cancel();
    assert!(live(&contexts).is_empty());
}

#[tokio::test(start_paused = true)]
async fn parent_ended_has_ended_cancel_timer_callback_and_foreign_children_when_it_returns() {
    let (parent, handle) = background().with_cancel();
    let (cancel, _cancel_handle) = parent.with_cancel();
    let timer = parent.with_timeout(ms(10));
    let foreign = parent.with_cancel_on(std::future::pending::<()>());
    let merged = background().with_timeout(ms(10)).merge(&parent);
    let log = Log::new();
    log_end(&parent, &log, "callback");
    handle.cancel();
    assert!(live(&[cancel, timer, foreign, merged]).is_empty());
    assert_eq!(log.take(), ["callback"]);
}

#[test]
fn child_ended_then_parent_ends_the_rest() {
    let (parent, parent_handle) = background().with_cancel();
    let (first, first_handle) = parent.with_cancel();
    let (second, _second_handle) = parent.with_cancel();
    let (third, third_handle) = parent.with_cancel();
    first_handle.cancel_with("first's");
    drop((third, third_handle));
    parent_handle.cancel_with("parent's");
    assert_eq!(first.cause().unwrap().to_string(), "first's");
    assert_eq!(second.cause().unwrap().to_string(), "parent's");
}

#[test]
fn subtree_of_eight_cancelled_ends_exactly_its_six_descendants() {
    let (root, _root_handle) = background().with_cancel();
    let mut contexts = vec![root];
    let mut handles: Vec<CancelHandle> = Vec::new();
    // 1 is the top of the subtree, 2 and 3 are its children, 4 to 7 its grandchildren, 8 stands beside it.
    for parent in [0, 1, 1, 2, 2, 3, 3, 0] {
        let (child, handle) = contexts[parent].with_cancel();
        contexts.push(child);
        handles.push(handle);
    }
    handles[0].cancel();
    assert_eq!(live(&contexts), [0, 8]);
}

#[test]
fn middle_dropped_then_grandparent_cancelled_ends_grandchild() {
    for context_first in [false, true] {
        let (root, root_handle) = background().with_cancel();
        let (middle, middle_handle) = root.with_cancel();
        let (grandchild, _grandchild_handle) = middle.with_cancel();
        if context_first {
            drop(middle);
            middle_handle.detach();
        } else {
            middle_handle.detach();
            drop(middle);
        }
        drop(root);
        assert!(!grandchild.is_done());
        root_handle.cancel();
        assert_eq!(reason(&grandchild), Some(Reason::Cancelled));
    }
}

#[test]
fn grandchild_dropped_before_or_after_middle_leaves_root_whole() {
    for grandchild_first in [false, true] {
        let (root, root_handle) = background().with_cancel();
        let middle = root.with_cancel();
        let grandchild = middle.0.with_cancel();
        if grandchild_first {
            drop(grandchild);
            drop(middle);
        } else {
            drop(middle);
            drop(grandchild);
        }
        let (other, _other_handle) = root.with_cancel();
        root_handle.cancel();
        assert!(other.is_done());
    }
}

#[test]
fn many_children_dropped_forwards_or_backwards_leaves_the_rest_to_parent() {
    for backwards in [false, true] {
        let (parent, handle) = background().with_cancel();
        let mut children: Vec<_> = (0..1_000).map(|_| parent.with_cancel()).collect();
        if backwards {
            children.truncate(300);
        } else {
            children.drain(..700);
        }
        assert!(children.iter().all(|(child, _)| !child.is_done()));
        handle.cancel_with("parent's");
        let told =
            |(child, _): &(Context, CancelHandle)| cause_address(child) == cause_address(&parent);
        assert!(children.iter().all(told));
    }
}

#[tokio::test(start_paused = true)]
async fn thirty_random_layers_end_once_at_the_bottom_and_keep_their_values() {
    for seed in 0..50_u64 {
        let (root, root_handle) = background().with_cancel();
        let mut bottom = root.clone();
        let mut handles = Vec::new();
        let (mut state, mut newest) = (seed * 2 + 1, None);
        for layer in 0..30_u64 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            bottom = match (state >> 33) % 3 {
                0 => {
                    let (ctx, handle) = bottom.with_cancel();
                    handles.push(handle);
                    ctx
                }
                1 => bottom.with_timeout(ms(1_000 + (state >> 40) % 1_000)),
                _ => {
                    newest = Some(layer);
                    bottom.with_value(layer)
                }
            };
        }
        let log = Log::new();
        log_end(&bottom, &log, "ended");
        match handles.last() {
            Some(handle) if seed % 2 == 0 => handle.cancel(),
            _ => root_handle.cancel(),
        }
        advance(ms(3_000)).await;
        assert_eq!(log.take(), ["ended"]);
        assert_eq!(reason(&bottom), Some(Reason::Cancelled));
        assert_eq!(bottom.value::<u64>().copied(), newest);
    }
}
