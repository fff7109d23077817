//! The cause table: what a context says of its end, in every constellation of parent, child, deadline and merge.
//!
//! The rows are built with the clock paused at zero, and looked at at once. Where a row pushes the clock no timer runs,
//! so the clock alone decides what came first.

use std::time::Duration;

use errgroup::{CancelHandle, Context, ContextError, Reason};
use tokio::time::Instant;

use crate::support::{advance_without_timers, background, cause, ms, reason};

const CANCELLED: Option<Reason> = Some(Reason::Cancelled);
const DROPPED: Option<Reason> = Some(Reason::HandleDropped);
const EXCEEDED: Option<Reason> = Some(Reason::DeadlineExceeded);

/// How the context comes about; what it must say then: the reason, and the cause that was given.
type Row = (
    &'static str,
    fn() -> Context,
    Option<Reason>,
    Option<&'static str>,
);

/// A context whose handle has been used with a cause.
fn cancelled(cause: &'static str) -> Context {
    let (ctx, handle) = background().with_cancel();
    handle.cancel_with(cause);
    ctx
}

/// A parent and a child, both live.
fn pair() -> (Context, CancelHandle, Context, CancelHandle) {
    let (parent, parent_handle) = background().with_cancel();
    let (child, handle) = parent.with_cancel();
    (parent, parent_handle, child, handle)
}

/// A parent with a deadline in 10 ms, and its child with one in `child`, each with a cause; 50 ms later.
fn nested(child: Duration) -> Context {
    let parent = background().with_timeout_cause(ms(10), "parent's");
    let child = parent.with_timeout_cause(child, "child's");
    advance_without_timers(ms(50));
    child
}

const PLAIN: &[Row] = &[
    ("background", background, None, None),
    ("todo", Context::todo, None, None),
    (
        "live",
        || {
            let (ctx, handle) = background().with_cancel();
            handle.detach();
            ctx
        },
        None,
        None,
    ),
    (
        "cancelled without a cause",
        || {
            let (ctx, handle) = background().with_cancel();
            handle.cancel();
            ctx
        },
        CANCELLED,
        None,
    ),
    (
        "cancelled with a cause",
        || cancelled("own"),
        CANCELLED,
        Some("own"),
    ),
    (
        "handle dropped",
        || background().with_cancel().0,
        DROPPED,
        None,
    ),
    (
        "handle dropped below a live parent",
        || {
            let (parent, handle) = background().with_cancel();
            handle.detach();
            parent.with_cancel().0
        },
        DROPPED,
        None,
    ),
];

const FAMILY: &[Row] = &[
    (
        "parent first, child second: the child",
        || {
            let (_parent, parent_handle, child, handle) = pair();
            parent_handle.cancel_with("parent's");
            handle.cancel_with("child's");
            child
        },
        CANCELLED,
        Some("parent's"),
    ),
    (
        "child first, parent second: the child",
        || {
            let (_parent, parent_handle, child, handle) = pair();
            handle.cancel_with("child's");
            parent_handle.cancel_with("parent's");
            child
        },
        CANCELLED,
        Some("child's"),
    ),
    (
        "child first, parent second: the parent",
        || {
            let (parent, parent_handle, _child, handle) = pair();
            handle.cancel_with("child's");
            parent_handle.cancel_with("parent's");
            parent
        },
        CANCELLED,
        Some("parent's"),
    ),
    (
        "child first: the parent is live",
        || {
            let (parent, parent_handle, _child, handle) = pair();
            handle.cancel_with("child's");
            parent_handle.detach();
            parent
        },
        None,
        None,
    ),
    (
        "parent without a cause first, child with one second",
        || {
            let (_parent, parent_handle, child, handle) = pair();
            parent_handle.cancel();
            handle.cancel_with("child's");
            child
        },
        CANCELLED,
        None,
    ),
    (
        "child without a cause first, parent with one second",
        || {
            let (_parent, parent_handle, child, handle) = pair();
            handle.cancel();
            parent_handle.cancel_with("parent's");
            child
        },
        CANCELLED,
        None,
    ),
    (
        "values in between",
        || {
            let (parent, handle) = background().with_cancel();
            let (child, child_handle) = parent.with_value(1_u8).with_value(2_u16).with_cancel();
            child_handle.detach();
            let below = child.with_value(3_u32);
            handle.cancel_with("parent's");
            below
        },
        CANCELLED,
        Some("parent's"),
    ),
    (
        "derived from an ended parent",
        || cancelled("parent's").with_cancel().0,
        CANCELLED,
        Some("parent's"),
    ),
    (
        "without_cancel of an ended one",
        || cancelled("parent's").without_cancel(),
        None,
        None,
    ),
    (
        "below without_cancel of an ended one",
        || {
            let (ctx, handle) = cancelled("parent's").without_cancel().with_cancel();
            handle.cancel_with("own");
            ctx
        },
        CANCELLED,
        Some("own"),
    ),
    (
        "merge, self ended",
        || cancelled("left's").merge(&background().with_timeout(ms(10))),
        CANCELLED,
        Some("left's"),
    ),
    (
        "merge, other ended",
        || {
            background()
                .with_timeout(ms(10))
                .merge(&cancelled("right's"))
        },
        CANCELLED,
        Some("right's"),
    ),
    (
        "merge, other's handle dropped later",
        || {
            let (right, handle) = background().with_cancel();
            let merged = background().with_timeout(ms(10)).merge(&right);
            drop(handle);
            merged
        },
        DROPPED,
        None,
    ),
];

const DEADLINES: &[Row] = &[
    (
        "timeout passed",
        || {
            let ctx = background().with_timeout(ms(10));
            advance_without_timers(ms(10));
            ctx
        },
        EXCEEDED,
        None,
    ),
    (
        "timeout with a cause, passed",
        || nested(ms(10)),
        EXCEEDED,
        Some("child's"),
    ),
    (
        "timeout with a cause, parent's is later",
        || nested(ms(9)),
        EXCEEDED,
        Some("child's"),
    ),
    (
        "timeout with a cause, parent's is earlier",
        || nested(ms(11)),
        EXCEEDED,
        Some("parent's"),
    ),
    (
        "timeout with a cause, the parent's without one is earlier",
        || {
            let child = background()
                .with_timeout(ms(10))
                .with_timeout_cause(ms(11), "child's");
            advance_without_timers(ms(50));
            child
        },
        EXCEEDED,
        None,
    ),
    (
        "timeout without a cause, the parent's with one is equal",
        || {
            let child = background()
                .with_timeout_cause(ms(10), "parent's")
                .with_timeout(ms(10));
            advance_without_timers(ms(50));
            child
        },
        EXCEEDED,
        None,
    ),
    (
        "timeout of zero with a cause",
        || background().with_timeout_cause(Duration::ZERO, "own"),
        EXCEEDED,
        Some("own"),
    ),
    (
        "deadline with a cause, past",
        || background().with_deadline_cause(Instant::now() - ms(1), "own"),
        EXCEEDED,
        Some("own"),
    ),
    (
        "deadline with a cause, past, below an ended parent",
        || cancelled("parent's").with_deadline_cause(Instant::now() - ms(1), "own"),
        CANCELLED,
        Some("parent's"),
    ),
    (
        "deadline with a cause, parent cancelled before it",
        || {
            let (parent, handle) = background().with_cancel();
            let child = parent.with_deadline_cause(Instant::now() + ms(10), "own");
            handle.cancel_with("parent's");
            advance_without_timers(ms(50));
            child
        },
        CANCELLED,
        Some("parent's"),
    ),
    (
        "deadline with a cause, parent cancelled after it",
        || {
            let (parent, handle) = background().with_cancel();
            let child = parent.with_deadline_cause(Instant::now() + ms(10), "own");
            advance_without_timers(ms(50));
            handle.cancel_with("parent's");
            child
        },
        EXCEEDED,
        Some("own"),
    ),
    (
        "child of a deadline with a cause, child cancelled after it",
        || {
            let parent = background().with_timeout_cause(ms(10), "parent's");
            let (child, handle) = parent.with_value(1_u8).with_cancel();
            advance_without_timers(ms(50));
            handle.cancel_with("child's, late");
            child
        },
        EXCEEDED,
        Some("parent's"),
    ),
    (
        "merge of two deadlines, other's is earlier",
        || {
            let left = background().with_timeout_cause(ms(20), "left's");
            let right = background().with_timeout_cause(ms(10), "right's");
            let merged = left.merge(&right);
            advance_without_timers(ms(50));
            merged
        },
        EXCEEDED,
        Some("right's"),
    ),
];

#[tokio::test(start_paused = true)]
async fn cause_and_reason_are_those_of_the_table() {
    let mut wrong = Vec::new();
    for &(name, build, expected_reason, expected_cause) in
        [PLAIN, FAMILY, DEADLINES].concat().iter()
    {
        let ctx = build();
        let found = (reason(&ctx), cause(&ctx));
        if found != (expected_reason, expected_cause.map(str::to_owned)) {
            wrong.push(format!("{name}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn cause_without_one_given_is_the_error_itself() {
    let (ctx, handle) = background().with_cancel();
    handle.cancel();
    let cause = ctx.cause().unwrap().downcast_ref::<ContextError>().unwrap();
    assert_eq!(cause.to_string(), ctx.err().unwrap().to_string());
}

#[test]
fn cause_is_the_very_value_that_was_given() {
    #[derive(Debug, PartialEq, thiserror::Error)]
    #[error("quota of {0} used up")]
    struct Quota(u32);
    let (ctx, handle) = background().with_cancel();
    handle.cancel_with(Quota(7));
    assert_eq!(ctx.cause().unwrap().downcast_ref(), Some(&Quota(7)));
}
