//! What people do most: a request with a few tasks, below a parent, and the context that it has.
//!
//! Three peers, since people write it in three ways. The cheapest stops least: its tasks look at the parent's token
//! between their awaits, and one that waits forever is never stopped. An owner that watches the token drops the set. With
//! a child token that each task watches, it is what a group does. Budgets hold against the cheapest.

use super::{Row, name};
use crate::jobs::{AtOnce, Work, Yields};
use crate::results::Unit;
use crate::runtime::{Rt, beside, on};
use crate::{ours, peers};

const ONE: Rt = Rt::CurrentThread;

pub(super) fn rows() -> Vec<Row> {
    let three = "request: a group below a parent, 3 tasks that wait once";
    vec![
        request::<0>(
            1,
            Unit::Instructions,
            "request: a group below a parent, no tasks",
        )
        .over_cheapest(2.5),
        request::<1>(
            1,
            Unit::Instructions,
            "request: a group below a parent, 1 task that waits once",
        )
        .over_cheapest(1.10),
        request::<3>(1, Unit::Instructions, three)
            .over_cheapest(1.00)
            .in_readme(),
        request::<10>(
            1,
            Unit::Instructions,
            "request: a group below a parent, 10 tasks that wait once",
        )
        .over_cheapest(0.95),
        Row::new(
            1,
            Unit::Instructions,
            "request: a group below a parent, 3 tasks that wait for a oneshot",
        )
        .ours(on(ONE, ours::requests_with_replies::<3>))
        .rival(
            name::CHECKED,
            1.00,
            on(ONE, peers::requests_with_replies::<3>),
        ),
        request::<3>(2, Unit::Allocations, three).at_most(8.0),
        request::<3>(2, Unit::Bytes, three).at_most(1_200.0),
        Row::new(3, Unit::Held, "group with 5 waiting tasks from 3 places")
            .ours(on(ONE, ours::live_groups))
            .peer(name::JOIN_SET, on(ONE, peers::live_join_sets))
            .at_most(1_400.0),
        idle("idle group", ONE).in_readme(),
        idle("idle group, of 2 workers", Rt::Workers(2)),
        idle("idle group, of 16 workers", Rt::Workers(16)),
        Row::new(4, Unit::Held, "idle group, its only task has ended")
            .ours(on(ONE, ours::used_groups))
            .peer(name::TRACKER, on(ONE, peers::idle_trackers))
            .at_most(350.0),
        context::<Yields<1>>(Unit::Instructions, TEN_WAITS)
            .over_cheapest(1.00)
            .in_readme(),
        context::<AtOnce>(Unit::Instructions, TEN_LOOKS).over_cheapest(1.00),
        context::<Yields<1>>(Unit::Allocations, TEN_WAITS).at_most(4.0),
    ]
}

fn request<const TASKS: usize>(number: u32, unit: Unit, work: &str) -> Row {
    Row::new(number, unit, work)
        .ours(on(ONE, ours::requests::<TASKS>))
        .peer(name::CHECKED, on(ONE, peers::requests::<TASKS>))
        .peer(name::WATCHED, on(ONE, peers::requests_watched::<TASKS>))
        .peer(name::CHILD, on(ONE, peers::requests_with_child::<TASKS>))
}

fn idle(work: &str, rt: Rt) -> Row {
    Row::new(4, Unit::Held, work)
        .ours(beside(rt, ours::idle_groups))
        .peer(name::TRACKER, beside(rt, peers::idle_trackers))
        .at_most(350.0)
}

const TEN_WAITS: &str = "request's context: cancel, timeout, value, ten waits in a select!";

/// The other branch is ready at once: the peer's timer is never set.
const TEN_LOOKS: &str = "request's context: cancel, timeout, value, ten looks in a select!";

fn context<W: Work>(unit: Unit, work: &str) -> Row {
    Row::new(7, unit, work)
        .ours(on(ONE, ours::request_contexts::<W>))
        .peer(name::TIMEOUT, on(ONE, peers::request_contexts::<W>))
}
