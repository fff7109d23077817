//! Chains of anything are dropped without recursion (C11), and printed.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use errgroup::{CancelHandle, Context, ContextError};

use crate::support::{Carrier, OnDrop, background, child, error, on_small_stack};

const LONG: usize = 50_000;

/// Counts its drops.
#[derive(Clone, Default)]
struct Drops(Arc<AtomicUsize>);

impl Drops {
    fn one(&self) -> impl Send + Sync + use<> {
        let count = self.0.clone();
        OnDrop(move || {
            count.fetch_add(1, Ordering::SeqCst);
        })
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Somebody's error that wraps an end. Its source is that end's, and its text contains the end's.
#[derive(Debug)]
struct Wrapped(ContextError);

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wrapped: {}", self.0)
    }
}

impl Error for Wrapped {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// Ends of contexts, each with the one before as its cause.
fn chain_of_causes(next: impl Fn(&CancelHandle, ContextError)) -> ContextError {
    let end_with = |cancel: &dyn Fn(&CancelHandle)| {
        let (ctx, handle) = background().with_cancel();
        cancel(&handle);
        error(&ctx)
    };
    let mut last = end_with(&|handle| handle.cancel_with("the first of all"));
    for _ in 0..LONG {
        last = end_with(&|handle| next(handle, last.clone()));
    }
    last
}

fn chains_of_causes() -> [ContextError; 2] {
    [
        chain_of_causes(|handle, last| handle.cancel_with(last)),
        chain_of_causes(|handle, last| handle.cancel_with(Wrapped(last))),
    ]
}

#[test]
fn c11_long_chain_of_causes_is_dropped() {
    for chain in chains_of_causes() {
        on_small_stack(move || drop(chain));
    }
}

#[test]
fn c11_long_chain_of_causes_is_printed_and_walked() {
    for chain in chains_of_causes() {
        on_small_stack(move || {
            for text in [chain.to_string(), format!("{chain:?}")] {
                assert!(text.contains("cancelled: "), "{text}");
                assert!(text.contains('…'), "{text}");
                assert!(text.len() < 4_096, "{}", text.len());
            }
            let mut deepest: &(dyn Error + 'static) = &chain;
            let mut steps = 0;
            while let Some(source) = deepest.source() {
                deepest = source;
                steps += 1;
            }
            assert!(steps >= LONG);
            assert_eq!(deepest.to_string(), "the first of all");
            drop(chain);
        });
    }
}

#[test]
fn c11_short_chain_of_causes_is_printed_whole() {
    let mut last = None::<ContextError>;
    for number in 0..10 {
        let (ctx, handle) = background().with_cancel();
        match last {
            None => handle.cancel_with("the first of all"),
            Some(last) if number % 2 == 0 => handle.cancel_with(last),
            Some(last) => handle.cancel_with(Wrapped(last)),
        }
        last = Some(error(&ctx));
    }
    let text = last.unwrap().to_string();
    assert!(text.contains("the first of all"), "{text}");
    assert_eq!(text.matches("cancelled").count(), 10, "{text}");
    assert!(!text.contains('…'), "{text}");
}

/// A cause's `Display` that panics leaves the count of the depth as it was.
#[test]
fn c11_display_panics_then_others_are_printed_whole() {
    struct Bad;
    impl fmt::Debug for Bad {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Bad")
        }
    }
    impl fmt::Display for Bad {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("a display that panics");
        }
    }
    impl Error for Bad {}
    for _ in 0..40 {
        let (ctx, handle) = background().with_cancel();
        handle.cancel_with(Bad);
        crate::support::panic_text(|| error(&ctx).to_string());
    }
    let (ctx, handle) = background().with_cancel();
    handle.cancel_with("whole");
    assert!(error(&ctx).to_string().contains("whole"));
}

#[test]
fn c11_long_chain_of_values_that_hold_contexts_is_dropped() {
    struct Outer<T>(#[expect(dead_code, reason = "held")] Context, T);
    let drops = Drops::default();
    let mut ctx = background();
    for _ in 0..LONG {
        ctx = background().with_value(Outer(ctx, drops.one()));
    }
    let below = child(&ctx);
    drop(ctx);
    assert_eq!(drops.count(), 0);
    on_small_stack(move || drop(below));
    assert_eq!(drops.count(), LONG);
}

#[test]
fn c11_long_chain_of_causes_that_hold_contexts_is_dropped() {
    let drops = Drops::default();
    let mut ctx = background();
    for _ in 0..LONG {
        let (next, handle) = background().with_cancel();
        handle.cancel_with(Carrier((ctx, drops.one())));
        ctx = next;
    }
    on_small_stack(move || drop(ctx));
    assert_eq!(drops.count(), LONG);
}

#[test]
fn c11_long_chain_of_deadlines_causes_that_hold_contexts_is_dropped() {
    let drops = Drops::default();
    let mut ctx = background();
    for _ in 0..LONG {
        let cause = Carrier((ctx, drops.one()));
        ctx = background().with_timeout_cause(std::time::Duration::from_secs(3_600), cause);
    }
    on_small_stack(move || drop(ctx));
    assert_eq!(drops.count(), LONG);
}

#[test]
fn c11_long_chain_of_callbacks_that_own_contexts_is_dropped() {
    let drops = Drops::default();
    let top = background().with_cancel().0;
    let (parent, parent_handle) = background().with_cancel();
    for parent in [top, parent] {
        let before = drops.count();
        let first = child(&parent);
        let mut last = (first.on_done(|_| ()), first);
        for _ in 0..LONG {
            let ctx = child(&parent);
            let one = drops.one();
            last = (ctx.on_done(move |_| drop((last, one))), ctx);
        }
        on_small_stack(move || drop(last));
        assert_eq!(drops.count() - before, LONG);
    }
    drop(parent_handle);
}

/// Each callback owns the handle of the next context, so dropping the first ends them all, one by the other.
#[test]
fn c11_long_chain_of_callbacks_that_own_handles_is_ended() {
    let drops = Drops::default();
    let mut last = background().with_cancel().1;
    for _ in 0..LONG {
        let (ctx, handle) = background().with_cancel();
        let one = drops.one();
        ctx.on_done(move |_| drop((last, one))).detach();
        last = handle;
    }
    on_small_stack(move || drop(last));
    assert_eq!(drops.count(), LONG);
}
