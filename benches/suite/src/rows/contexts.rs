//! Contexts: derive, ask, wait, end; on one thread, and on several that share one context.

use super::{Row, name};
use crate::results::Unit;
use crate::runtime::{BOTH, Operation, Rt, on, plain};
use crate::threads::{self, processor_time};
use crate::{ours, peers};

/// More than elsewhere: one is over in a nanosecond.
const LOADS: usize = 1_000_000;

/// Ours and the peer's on so many threads.
type Shared = fn(usize) -> [Operation; 2];

const CONNECTIONS: Shared = |threads| {
    let rt = Rt::Workers(threads);
    [on(rt, ours::connections), on(rt, peers::connections)]
};
const DERIVE: Shared = |threads| {
    let ours = plain(move |n| ours::derive(threads, n));
    [ours, plain(move |n| peers::derive(threads, n))]
};
const DONE: Shared = |threads| {
    let ours = plain(move |n| ours::done(threads, n));
    [ours, plain(move |n| peers::done(threads, n))]
};
const IS_DONE: Shared = |threads| {
    let ours = plain(move |n| ours::is_done(threads, n));
    [ours, plain(move |n| peers::is_done(threads, n))]
};

pub(super) fn rows() -> Vec<Row> {
    let connection = "select! of one of 1,000 connections with done() of their one context";
    let is_done = "is_done on a live context";
    let mut rows = Vec::new();
    for threads in threads::numbers() {
        rows.extend([
            shared(8, connection, CONNECTIONS, threads, 0.8).in_readme_if(threads == 2),
            shared(
                9,
                "derive and drop a child below one root",
                DERIVE,
                threads,
                0.6,
            ),
            shared(
                26,
                "done() on one context: poll once, drop",
                DONE,
                threads,
                if threads == 1 { 0.55 } else { 0.8 },
            ),
            shared(25, is_done, IS_DONE, threads, 0.1).ops(LOADS),
        ]);
    }
    rows.extend([
        growth(8, connection, CONNECTIONS, 2.0),
        growth(25, is_done, IS_DONE, 1.5).ops(LOADS),
        Row::timed(23, "derive and drop a child")
            .with(DERIVE(1), 0.65)
            .go("derive", 1),
        Row::timed(
            24,
            "derive a child, end it by dropping its handle (DropGuard), drop it",
        )
        .with(
            [plain(ours::derive_scoped), plain(peers::derive_scoped)],
            0.6,
        ),
        Row::timed(27, "end 500,000 children of one parent")
            .with([plain(ours::end_children), plain(peers::end_children)], 0.8)
            .ops(500_000)
            .go("end_children", 1),
        Row::timed(28, "end a chain of 100,000")
            .with([plain(ours::end_chain), plain(peers::end_chain)], 0.6)
            .go("end_chain", 1),
        held(
            "context, child of one parent",
            [plain(ours::live_children), plain(peers::live_children)],
        ),
        held(
            "context, of a chain",
            [plain(ours::live_chain), plain(peers::live_chain)],
        ),
    ]);
    for rt in BOTH {
        rows.extend([
            timeout(
                "with_timeout and drop, nobody waits",
                rt,
                on(rt, ours::timeout),
                1.5,
            ),
            timeout(
                "with_timeout, poll done() once, drop both",
                rt,
                on(rt, ours::timeout_waited),
                2.5,
            ),
        ]);
    }
    rows
}

fn shared(number: u32, work: &str, operations: Shared, threads: usize, at_most: f64) -> Row {
    let threads_of = if threads == 1 { "thread" } else { "threads" };
    Row::timed(number, format!("{work}, {threads} {threads_of}")).with(
        operations(threads).map(|operation| processor_time(threads, operation)),
        at_most,
    )
}

/// What eight threads cost over one.
fn growth(number: u32, work: &str, operations: Shared, at_most: f64) -> Row {
    let [eight, one] = [8, 1].map(|threads| {
        let [ours, _] = operations(threads);
        processor_time(threads, ours)
    });
    Row::timed(number, format!("{work}, 8 threads over 1"))
        .ours(eight)
        .rival("errgroup, 1 thread", at_most, one)
}

fn held(work: &str, [ours, theirs]: [Operation; 2]) -> Row {
    Row::new(30, Unit::Held, work)
        .ours(ours)
        .peer(name::TOKEN, theirs)
        .at_most(128.0)
}

fn timeout(work: &str, rt: Rt, operation: Operation, at_most: f64) -> Row {
    Row::timed(29, format!("{work}, {}", rt.name()))
        .ours(operation)
        .rival(name::SLEEP, at_most, on(rt, peers::timeout))
}

impl Row {
    /// Adds ours and the token.
    fn with(self, [ours, theirs]: [Operation; 2], at_most: f64) -> Self {
        self.ours(ours).rival(name::TOKEN, at_most, theirs)
    }
}
