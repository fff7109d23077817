//! What a context carries, keyed by type.

use errgroup::Context;

use crate::support::{background, ms, reason};

#[derive(Debug, PartialEq)]
struct User(&'static str);

#[derive(Debug, PartialEq)]
struct Trace(u64);

#[test]
fn value_absent_is_none() {
    assert_eq!(background().value::<User>(), None);
    assert_eq!(background().with_value(Trace(1)).value::<User>(), None);
}

#[test]
fn two_types_side_by_side_are_both_found() {
    let ctx = background().with_value(User("ada")).with_value(Trace(1));
    assert_eq!(ctx.value(), Some(&User("ada")));
    assert_eq!(ctx.value(), Some(&Trace(1)));
}

#[test]
fn nearer_value_shadows_the_outer_one_below_it_only() {
    let outer = background().with_value(User("ada")).with_value(Trace(1));
    let inner = outer.with_value(User("grace"));
    assert_eq!(inner.value(), Some(&User("grace")));
    assert_eq!(outer.value(), Some(&User("ada")));
    assert_eq!(inner.value(), Some(&Trace(1)), "what is not shadowed");
}

#[test]
fn types_with_one_representation_are_told_apart() {
    let ctx = background().with_value(1_u32).with_value(2_i32);
    assert_eq!(
        (ctx.value::<u32>(), ctx.value::<i32>()),
        (Some(&1), Some(&2))
    );
    assert_eq!(ctx.value::<Box<u32>>(), None);
}

#[tokio::test(start_paused = true)]
async fn value_is_found_through_many_layers_of_every_kind() {
    let (other, _other_handle) = background().with_value(User("other")).with_cancel();
    let mut ctx = background().with_value(User("ada"));
    let mut handles = Vec::new();
    for layer in 0..50 {
        let (below, handle) = ctx.with_cancel();
        handles.push(handle);
        ctx = below
            .with_value(Trace(layer))
            .with_timeout(ms(1_000))
            .with_cancel_on(std::future::pending::<()>())
            .merge(&other)
            .without_cancel()
            .clone();
    }
    assert_eq!(ctx.value(), Some(&User("ada")));
    assert_eq!(ctx.value(), Some(&Trace(49)));
}

#[test]
fn value_stays_after_the_end() {
    let (ctx, handle) = background().with_value(User("ada")).with_cancel();
    handle.cancel();
    assert_eq!(ctx.value(), Some(&User("ada")));
    assert_eq!(ctx.with_value(Trace(1)).value(), Some(&Trace(1)));
}

#[test]
fn value_added_below_ends_with_its_context_and_is_unknown_to_it() {
    let (ctx, handle) = background().with_cancel();
    let below = ctx.with_value(User("ada"));
    assert_eq!(ctx.value::<User>(), None);
    handle.cancel();
    assert_eq!(reason(&below), reason(&ctx));
    assert!(below.is_done());
}

#[test]
fn value_is_dropped_with_the_last_context_that_carries_it() {
    let value = std::sync::Arc::new(());
    let ctx = background().with_value(value.clone());
    let below: Context = ctx.with_value(Trace(1));
    drop(ctx);
    assert_eq!(std::sync::Arc::strong_count(&value), 2);
    drop(below);
    assert_eq!(std::sync::Arc::strong_count(&value), 1);
}
