//! Contexts with two parents, and with none.

use errgroup::Context;

use crate::support::{Log, advance, background, cause_address, live, log_end, ms};

#[tokio::test(start_paused = true)]
async fn without_cancel_keeps_values_and_neither_deadline_nor_end() {
    let (parent, handle) = background().with_value(7_u8).with_cancel();
    let timed = parent.with_timeout(ms(10));
    let apart = timed.without_cancel();
    handle.cancel_with("parent's");
    let apart_later = timed.without_cancel();
    advance(ms(20)).await;
    for apart in [apart, apart_later] {
        assert!(!apart.is_done());
        assert!(apart.cause().is_none());
        assert_eq!(apart.deadline(), None);
        assert_eq!(apart.value::<u8>(), Some(&7));
    }
}

#[test]
fn without_cancel_child_cancelled_ends() {
    let (parent, parent_handle) = background().with_cancel();
    parent_handle.cancel_with("parent's");
    let (child, handle) = parent.without_cancel().with_cancel();
    assert!(!child.is_done());
    handle.cancel_with("child's");
    assert_eq!(child.cause().unwrap().to_string(), "child's");
}

#[test]
fn merge_ends_with_either() {
    for ended in [0, 1] {
        let (left, left_handle) = background().with_cancel();
        let (right, right_handle) = background().with_cancel();
        let merged = left.merge(&right);
        let (below, _below_handle) = merged.with_cancel();
        assert!(!merged.is_done());
        [&left_handle, &right_handle][ended].cancel_with("first");
        [&right_handle, &left_handle][ended].cancel_with("second");
        for ctx in [&merged, &below] {
            assert_eq!(cause_address(ctx), cause_address([&left, &right][ended]));
        }
    }
}

#[test]
fn merge_ended_leaves_both_parents_live() {
    let (left, _left_handle) = background().with_cancel();
    let (right, _right_handle) = background().with_cancel();
    let (below, handle) = left.merge(&right).with_cancel();
    handle.cancel();
    assert!(below.is_done());
    assert!(!left.is_done() && !right.is_done());
}

#[test]
fn merge_keeps_both_parents_alive() {
    for ended in [0, 1] {
        let (left, left_handle) = background().with_cancel();
        let (right, right_handle) = background().with_cancel();
        let merged = left.merge(&right);
        drop((left, right));
        [&left_handle, &right_handle][ended].cancel();
        assert!(merged.is_done());
    }
}

#[test]
fn merge_takes_the_values_of_self() {
    let left = background().with_value(1_u8).with_cancel();
    let right = background()
        .with_value(2_u8)
        .with_value("right")
        .with_cancel();
    let merged = left.0.merge(&right.0);
    assert_eq!(merged.value::<u8>(), Some(&1));
    assert_eq!(merged.value::<&str>(), None);
}

#[test]
fn merge_with_background_ends_with_the_other_one() {
    let (ctx, handle) = background().with_value(1_u8).with_cancel();
    let merged = [
        ctx.merge(&background()),
        background().with_value(2_u8).merge(&ctx),
        ctx.merge(&ctx),
    ];
    let values: Vec<_> = merged
        .iter()
        .map(|ctx| *ctx.value::<u8>().unwrap())
        .collect();
    assert_eq!(values, [1, 2, 1]);
    assert_eq!(live(&merged), [0, 1, 2]);
    handle.cancel();
    assert!(live(&merged).is_empty());
    assert!(!background().merge(&Context::todo()).is_done());
}

#[test]
fn merge_of_relatives_ends_once() {
    let (top, top_handle) = background().with_cancel();
    let (left, _left_handle) = top.with_cancel();
    let (right, _right_handle) = top.with_cancel();
    let log = Log::new();
    for merged in [left.merge(&right), top.merge(&left), left.merge(&top)] {
        log_end(&merged, &log, "ended");
    }
    top_handle.cancel();
    assert_eq!(log.take(), ["ended"; 3]);
}

#[test]
fn merge_of_two_ended_contexts_takes_the_reason_of_self() {
    let (left, left_handle) = background().with_cancel();
    let (right, right_handle) = background().with_cancel();
    right_handle.cancel_with("right's");
    left_handle.cancel_with("left's");
    assert_eq!(cause_address(&left.merge(&right)), cause_address(&left));
    assert_eq!(cause_address(&right.merge(&left)), cause_address(&right));
}
