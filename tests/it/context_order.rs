//! The order of an end, and no recursion in it (C4).

use errgroup::Context;

use crate::support::{Log, background, cause_address, child, live, log_end, on_small_stack};

const MILLION: usize = 1_000_000;

/// Deep enough that a recursion, however small its frames, leaves a small stack.
const DEEP: usize = 100_000;

#[test]
fn c4_end_runs_parent_before_children_in_order_of_derivation() {
    let (root, handle) = background().with_cancel();
    let log = Log::new();
    let (b, _b) = root.with_cancel();
    let (c, _c) = root.with_cancel();
    let (bb, _bb) = b.with_cancel();
    let (bc, _bc) = b.with_cancel();
    let (ca, _ca) = c.with_cancel();
    // Told apart from the order of registration, which is the reverse.
    for (ctx, name) in [
        (&ca, "ca"),
        (&bc, "bc"),
        (&bb, "bb"),
        (&c, "c"),
        (&b, "b"),
        (&root, "root"),
    ] {
        log_end(ctx, &log, name);
    }
    handle.cancel();
    assert_eq!(log.take(), ["root", "b", "c", "bb", "bc", "ca"]);
}

#[test]
fn c4_children_dropped_then_others_derived_end_in_order_of_derivation() {
    let (root, handle) = background().with_cancel();
    let log = Log::new();
    let mut children: Vec<_> = (0..300)
        .map(|number| (number, root.with_cancel()))
        .collect();
    children.retain(|(number, _)| number % 3 == 0);
    children.extend((300..400).map(|number| (number, root.with_cancel())));
    for (number, (child, _)) in &children {
        log_end(child, &log, *number);
    }
    handle.cancel();
    let derived: Vec<_> = children.iter().map(|(number, _)| *number).collect();
    assert_eq!(log.take(), derived);
}

#[test]
fn c4_first_child_dropped_then_another_derived_ends_after_those_before_it() {
    let (root, handle) = background().with_cancel();
    let log = Log::new();
    let (first, second) = (child(&root), child(&root));
    drop(first);
    let third = child(&root);
    log_end(&second, &log, "second");
    log_end(&third, &log, "third");
    handle.cancel();
    assert_eq!(log.take(), ["second", "third"]);
}

#[test]
fn c4_waiters_of_one_context_are_told_in_order_of_registration() {
    let (ctx, handle) = background().with_cancel();
    let log = Log::new();
    for name in ["first", "second", "third"] {
        log_end(&ctx, &log, name);
    }
    handle.cancel();
    assert_eq!(log.take(), ["first", "second", "third"]);
}

#[test]
fn c4_callback_finds_everything_below_ended() {
    let (top, handle) = background().with_cancel();
    let (middle, _middle_handle) = top.with_cancel();
    let (bottom, _bottom_handle) = middle.with_cancel();
    let (seen, all) = (Log::new(), [top.clone(), middle, bottom]);
    top.on_done({
        let seen = seen.clone();
        move |_| seen.push(live(&all))
    })
    .detach();
    handle.cancel();
    assert_eq!(seen.take(), [[0_usize; 0]]);
}

/// Derives a chain, ends it from the top, looks at the bottom and drops it, on a small stack.
fn chain(depth: usize, derive: impl Fn(&Context) -> Context + Send) {
    on_small_stack(move || {
        let (top, handle) = background().with_cancel();
        let mut bottom = top.clone();
        for _ in 0..depth {
            bottom = derive(&bottom);
        }
        handle.cancel_with("top's");
        assert_eq!(cause_address(&bottom), cause_address(&top));
        drop((top, handle));
        drop(bottom);
    });
}

#[test]
fn c4_chain_of_a_million_ended_then_dropped() {
    chain(MILLION, child);
}

#[test]
fn c4_chain_of_a_million_dropped_live() {
    on_small_stack(|| {
        let (top, _handle) = background().with_cancel();
        let mut bottom = top.clone();
        for _ in 0..MILLION {
            let below = child(&bottom);
            bottom = below;
        }
        drop(bottom);
        assert!(!top.is_done());
    });
}

#[test]
fn c4_chain_of_a_million_values_dropped() {
    on_small_stack(|| {
        let top = background().with_value("top");
        let mut bottom = top.clone();
        for number in 0..MILLION {
            bottom = bottom.with_value(number);
        }
        assert_eq!(bottom.value::<&str>(), Some(&"top"));
        drop(bottom);
        assert_eq!(top.value::<&str>(), Some(&"top"));
    });
}

#[test]
fn c4_chain_of_merges_ended_then_dropped() {
    let (beside, _handle) = background().with_cancel();
    chain(DEEP, |above| above.merge(&beside));
    chain(DEEP, |above| beside.merge(above));
    assert!(!beside.is_done());
}

/// Nobody is told the reason before somebody asks; the way up is long once, not for each.
#[test]
fn c4_long_chain_ended_then_asked_from_the_bottom() {
    on_small_stack(|| {
        let (top, handle) = background().with_cancel();
        let mut chain = vec![top];
        for _ in 0..10 * DEEP {
            chain.push(child(&chain[chain.len() - 1]));
        }
        handle.cancel_with("cause");
        let cause = cause_address(&chain[0]);
        assert!(chain.iter().rev().all(|ctx| cause_address(ctx) == cause));
    });
}

#[test]
fn c4_chain_with_a_callback_at_every_level_runs_them_from_the_top() {
    on_small_stack(|| {
        let (mut bottom, handle) = background().with_cancel();
        let log = Log::new();
        for level in 0..DEEP {
            let below = child(&bottom);
            log_end(&below, &log, level);
            bottom = below;
        }
        handle.cancel();
        assert!(log.take().into_iter().eq(0..DEEP));
    });
}

#[test]
fn c4_million_children_of_one_parent_ended_then_dropped() {
    let (parent, handle) = background().with_cancel();
    let children: Vec<_> = (0..MILLION).map(|_| parent.with_cancel()).collect();
    handle.cancel();
    assert!(children.iter().all(|(child, _)| child.is_done()));
}
