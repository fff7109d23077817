//! Batches: many items, one function, at most 64 at once unless the row says otherwise.

use super::{Row, name};
use crate::jobs::{AtOnce, TenthYields, Work, Yields};
use crate::results::Unit;
use crate::runtime::{BOTH, Rt, on};
use crate::{ours, peers};

/// More than elsewhere: an item is over in some nanoseconds.
const ITEMS: usize = 1_000_000;

pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![
        small::<1, 64>("batch of 1 item that waits once", 1.3),
        small::<3, 64>("batch of 3 items that wait once", 1.0),
        small::<10, 64>("batch of 10 items that wait once", 1.0),
        small::<10, 4>("batch of 10 items that wait once, limit 4", 1.0),
        streamed::<AtOnce>("end at once").ops(ITEMS),
        streamed::<Yields<1>>("wait once").in_readme(),
    ];
    for rt in BOTH {
        rows.extend([
            Row::timed(
                13,
                format!(
                    "batch below a deadline, items that end at once, {}",
                    rt.name()
                ),
            )
            .ours(on(rt, ours::batch_below_a_deadline::<AtOnce>))
            .rival(
                name::BUFFER_UNORDERED_TIMEOUT,
                0.6,
                on(rt, peers::buffer_unordered_below_a_deadline::<AtOnce>),
            )
            .ops(ITEMS),
            tenth::<64>(rt),
            tenth::<1>(rt),
            Row::timed(
                21,
                format!("batch of items that end at once, {}", rt.name()),
            )
            .ours(on(rt, ours::batch::<AtOnce, 64>))
            .rival(name::SEMAPHORE, 0.08, on(rt, peers::semaphore::<AtOnce>))
            .peer(
                name::BUFFER_UNORDERED,
                on(rt, peers::buffer_unordered::<AtOnce, 64>),
            )
            .ops(ITEMS)
            .go("batch", rt.threads()),
        ]);
    }
    rows
}

fn small<const ITEMS: usize, const LIMIT: usize>(work: &str, at_most: f64) -> Row {
    let one = Rt::CurrentThread;
    Row::new(14, Unit::Instructions, work)
        .ours(on(one, ours::small_batches::<Yields<1>, ITEMS, LIMIT>))
        .rival(
            name::JOIN_SET,
            at_most,
            on(one, peers::small_sets::<Yields<1>, ITEMS>),
        )
}

fn streamed<W: Work>(items: &str) -> Row {
    let two = Rt::Workers(2);
    Row::timed(
        15,
        format!("map_stream of items that {items}, {}", two.name()),
    )
    .ours(on(two, ours::batch_stream::<W>))
    .rival(name::BUFFERED, 1.0, on(two, peers::buffered::<W>))
    .rival(
        name::BUFFER_UNORDERED,
        1.0,
        on(two, peers::buffer_unordered::<W, 64>),
    )
}

fn tenth<const LIMIT: usize>(rt: Rt) -> Row {
    Row::timed(
        16,
        format!(
            "batch where each tenth item waits, limit {LIMIT}, {}",
            rt.name()
        ),
    )
    .ours(on(rt, ours::batch::<TenthYields, LIMIT>))
    .rival(
        name::BUFFER_UNORDERED,
        1.0,
        on(rt, peers::buffer_unordered::<TenthYields, LIMIT>),
    )
}
