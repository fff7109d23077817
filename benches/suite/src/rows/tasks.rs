//! Tasks of a group: what one more costs, under a limit, at an end.

use errgroup::BoxError;

use super::{Row, name, program};
use crate::jobs::{AtOnce, Work, Yields};
use crate::results::Unit;
use crate::runtime::{BOTH, Operation, Rt, on};
use crate::{ours, peers};

const ONE: Rt = Rt::CurrentThread;

pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![
        Row::new(5, Unit::Held, "live task when 1 in 63 stays")
            .ours(on(ONE, ours::survivors))
            .peer(name::JOIN_SET, on(ONE, peers::survivors))
            .at_most(400.0),
        Row::new(6, Unit::Instructions, "one more task that waits once")
            .ours(on(ONE, ours::tasks::<Yields<1>>))
            .rival(name::BARE, 1.15, on(ONE, peers::bare::<Yields<1>>))
            .peer(name::CHECKED, on(ONE, peers::join_set::<Yields<1>>)),
        cancelled("BoxError")
            .ours(on(ONE, ours::cooperative::<BoxError>))
            .rival(name::TRACKER, 1.2, on(ONE, peers::cooperative))
            .in_readme(),
        cancelled("an enum")
            .ours(on(ONE, ours::cooperative::<ours::Error>))
            .rival(name::TRACKER, 1.7, on(ONE, peers::cooperative)),
        Row::new(
            11,
            Unit::Instructions,
            "task that passes an end on, a sibling failed with 10 KiB of text",
        )
        .ours(on(ONE, ours::long_error))
        .rival(name::TRACKER, 1.3, on(ONE, peers::long_error)),
        Row::new(12, Unit::Instructions, "task queued at limit 64")
            .ours(on(ONE, ours::queued))
            .rival(name::SEMAPHORE_INSIDE, 1.0, on(ONE, peers::queued))
            .in_readme(),
        slots::<64>("slot() and spawn in a loop, limit 64"),
        slots::<1>("slot() and spawn in a loop, limit 1"),
        scoped(Unit::Instructions).ours(on(ONE, ours::scope)).rival(
            name::UNORDERED,
            1.15,
            on(ONE, peers::unordered),
        ),
        scoped(Unit::Allocations)
            .ours(on(ONE, ours::scope))
            .peer(name::UNORDERED, on(ONE, peers::unordered))
            .at_most(3.02),
        // The ceiling is for the growth: a hundred times the tasks cost no more.
        asked("len() of 20,000 tasks")
            .ours(on(ONE, ours::len::<20_000>))
            .rival(FEW, 1.1, on(ONE, ours::len::<200>))
            .peer(name::TRACKER, on(ONE, peers::len::<20_000>)),
        asked("is_empty() of 20,000 tasks")
            .ours(on(ONE, ours::is_empty::<20_000>))
            .rival(FEW, 1.1, on(ONE, ours::is_empty::<200>))
            .peer(name::TRACKER, on(ONE, peers::is_empty::<20_000>)),
        allocated("task that waits once", on(ONE, ours::tasks::<Yields<1>>)),
        allocated("task that ends at once", on(ONE, ours::tasks::<AtOnce>)),
        allocated(
            "task that ends at once, from five places in turn",
            on(ONE, ours::five_places),
        ),
        Row::new(19, Unit::Code, "distinct spawn")
            .ours(program())
            .rival("tokio::spawn", 1.3, program())
            .in_readme(),
    ];
    for rt in BOTH {
        rows.extend([
            spawned::<AtOnce>(rt, "ends at once", 1.25).go("at_once", rt.threads()),
            spawned::<Yields<1>>(rt, "waits once", 1.15)
                .go("yield", rt.threads())
                .in_readme_if(rt != ONE),
            spawned::<Yields<4>>(rt, "waits four times", 1.10).go("yield4", rt.threads()),
        ]);
    }
    rows.extend([
        // 200 ms for all of them.
        Row::timed(31, "dump of 100,000 tasks that run, per task, 2 workers")
            .ours(on(BOTH[1], ours::dump_while_running))
            .at_most(2_000.0),
        Row::timed(
            32,
            "spawn + wait of 100,000 tasks, each waits once, beside a loop of snapshots, current_thread",
        )
        .ours(on(ONE, ours::tasks_beside_snapshots::<Yields<1>>))
        .rival(UNWATCHED, 1.1, on(ONE, ours::tasks::<Yields<1>>)),
    ]);
    rows.extend(BOTH.map(|rt| first_error(rt).in_readme_if(rt != ONE)));
    rows
}

/// As another contender: a group of few tasks.
const FEW: &str = "errgroup, 200 tasks";

/// As another contender: ours, and nobody takes snapshots.
const UNWATCHED: &str = "errgroup, not looked at";

fn cancelled(error: &str) -> Row {
    let work = format!("cancelled task that passes the end on as {error}");
    Row::new(10, Unit::Instructions, work)
}

fn slots<const LIMIT: usize>(work: &str) -> Row {
    Row::new(12, Unit::Instructions, work)
        .ours(on(ONE, ours::slots::<LIMIT>))
        .rival(name::SEMAPHORE, 1.0, on(ONE, peers::permits::<LIMIT>))
}

fn asked(work: &str) -> Row {
    Row::new(17, Unit::Instructions, work)
}

fn scoped(unit: Unit) -> Row {
    Row::new(33, unit, "one more task of a scope that waits once")
}

fn allocated(work: &str, operation: Operation) -> Row {
    Row::new(18, Unit::Allocations, work)
        .ours(operation)
        .peer(name::BARE, on(ONE, peers::bare::<AtOnce>))
        .at_most(1.02)
}

fn spawned<W: Work>(rt: Rt, work: &str, at_most: f64) -> Row {
    Row::timed(
        20,
        format!("spawn + wait of 100,000 tasks, each {work}, {}", rt.name()),
    )
    .ours(on(rt, ours::tasks::<W>))
    .rival(name::BARE, at_most, on(rt, peers::bare::<W>))
    .peer(name::JOIN_SET, on(rt, peers::join_set::<W>))
    .peer(name::TRACKER, on(rt, peers::tracker::<W>))
}

fn first_error(rt: Rt) -> Row {
    Row::timed(
        22,
        format!(
            "first error to the last of 100,000 siblings gone, {}",
            rt.name()
        ),
    )
    .ours(on(rt, ours::first_error))
    .rival(name::TRACKER, 0.75, on(rt, peers::first_error))
    .peer(name::JOIN_SET, on(rt, peers::first_error_join_set))
    .go("fail", rt.threads())
}
