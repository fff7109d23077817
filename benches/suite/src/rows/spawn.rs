//! Spawn and wait.
//!
//! The budget rows are those with 100,000 tasks that capture nothing: bare `tokio::spawn` then needs a latch of its own
//! to be waited for, as the group needs its core. In the row with one `Arc` each task captures one, and bare
//! `tokio::spawn` waits for that very `Arc`. A ratio to bare `tokio::spawn` is asked of every kind of task; those to
//! peers that do more are asked of tasks that end at once, since yields and timers cost all the same and dilute them.

use std::sync::Arc;
use std::time::Duration;

use super::{Bench, OPS, name, on};
use crate::harness::Contest;
use crate::results::Comparison;
use crate::runtime::{Driver, Flavor, Rt};
use crate::work::Latch;
use crate::work::spawn::{
    AtOnce, Captured, Timer, Work, Yields, bare, group, join_set, named, tracker, unordered,
};

const SECTION: &str = "spawn + wait";
const BARE_BUDGET: f64 = 1.15;

/// A kind of task.
struct Kind {
    title: &'static str,
    go: &'static str,
    go_small: &'static str,
    /// Groups of 100 tasks in a round.
    small: usize,
    ends_at_once: bool,
}

const AT_ONCE: Kind = Kind {
    title: "ends at once",
    go: "at_once",
    go_small: "at_once_100",
    small: 1000,
    ends_at_once: true,
};
const YIELD: Kind = Kind {
    title: "yields once",
    go: "yield",
    go_small: "yield_100",
    small: 1000,
    ends_at_once: false,
};
const YIELD4: Kind = Kind {
    title: "yields four times",
    go: "yield4",
    go_small: "yield4_100",
    small: 1000,
    ends_at_once: false,
};
/// A group of 100 mostly waits for the timer.
const TIMER: Kind = Kind {
    title: "waits for a timer",
    go: "timer",
    go_small: "timer_100",
    small: 10,
    ends_at_once: false,
};

pub fn run(bench: &Bench<'_>, comparisons: &mut Vec<Comparison>) {
    for rt in &bench.runtimes {
        kind::<AtOnce>(bench, rt, &AT_ONCE, comparisons);
        kind::<Yields<1>>(bench, rt, &YIELD, comparisons);
        kind::<Yields<4>>(bench, rt, &YIELD4, comparisons);
        kind::<Timer>(bench, rt, &TIMER, comparisons);
        bench.run(capturing_arc(rt), comparisons);
    }
    bench.run(from_outside(&bench.runtimes[1]), comparisons);
}

fn kind<W: Work>(bench: &Bench<'_>, rt: &Rt, kind: &Kind, comparisons: &mut Vec<Comparison>) {
    let contest = Contest::new(
        SECTION,
        format!("100,000 tasks, each {}", kind.title),
        "task",
        OPS,
    )
    .ours(on(rt, || group::<W, ()>(OPS)))
    .rival(name::BARE, BARE_BUDGET, on(rt, || bare::<W, ()>(OPS)))
    .with(|contest| rivals::<W>(contest, rt, kind))
    .peer(name::UNORDERED, on(rt, || unordered::<W, ()>(OPS)));
    let contest = bench.join_go(contest, rt.flavor, kind.go);
    bench.run(contest.on(rt.name()), comparisons);
    bench.run(small::<W>(bench, rt, kind), comparisons);
}

/// The peers that do more than spawn, with their budgets where they are asked for.
fn rivals<'a, W: Work>(contest: Contest<'a>, rt: &'a Rt, kind: &Kind) -> Contest<'a> {
    let join_set = on(rt, || join_set::<W, ()>(OPS));
    let tracker = on(rt, || tracker::<W, ()>(OPS));
    if !kind.ends_at_once {
        return contest
            .peer(name::JOIN_SET, join_set)
            .peer(name::TRACKER, tracker);
    }
    let at_most = match rt.flavor {
        Flavor::CurrentThread => 0.65,
        Flavor::MultiThread => 0.85,
    };
    contest
        .rival(name::JOIN_SET, at_most, join_set)
        .rival(name::TRACKER, 0.65, tracker)
        .peer(name::NAMED, on(rt, || named::<W, ()>(OPS)))
}

/// Many small groups, one after the other: what a group itself costs is in it.
fn small<'a, W: Work>(bench: &'a Bench<'_>, rt: &'a Rt, kind: &Kind) -> Contest<'a> {
    let groups = kind.small;
    let contest = Contest::new(
        SECTION,
        format!("groups of 100 tasks, each {}", kind.title),
        "task",
        groups * 100,
    )
    .ours(on(rt, move || repeat(groups, || group::<W, ()>(100))))
    .peer(
        name::BARE,
        on(rt, move || repeat(groups, || bare::<W, ()>(100))),
    )
    .peer(
        name::JOIN_SET,
        on(rt, move || repeat(groups, || join_set::<W, ()>(100))),
    )
    .peer(
        name::TRACKER,
        on(rt, move || repeat(groups, || tracker::<W, ()>(100))),
    )
    .peer(
        name::UNORDERED,
        on(rt, move || repeat(groups, || unordered::<W, ()>(100))),
    );
    bench
        .join_go(contest, rt.flavor, kind.go_small)
        .on(rt.name())
}

async fn repeat<F: Future<Output = Duration>>(times: usize, round: impl Fn() -> F) -> Duration {
    let mut sum = Duration::ZERO;
    for _ in 0..times {
        sum += round().await;
    }
    sum
}

fn capturing_arc(rt: &Rt) -> Contest<'_> {
    type Shared = Arc<Latch>;
    let title = "100,000 tasks, each ends at once, capturing an Arc";
    everyone::<Shared>(title, rt, Driver::Worker).on(rt.name())
}

/// The code that spawns runs in `block_on`, beside the workers instead of on one.
fn from_outside(rt: &Rt) -> Contest<'_> {
    let title = "100,000 tasks, each ends at once, spawned from outside of the workers";
    everyone::<()>(title, rt, Driver::Outside).on(rt.name())
}

fn everyone<'a, C: Captured>(title: &str, rt: &'a Rt, driver: Driver) -> Contest<'a> {
    Contest::new(SECTION, title, "task", OPS)
        .ours(move || rt.drive_from(driver, group::<AtOnce, C>(OPS)))
        .peer(name::BARE, move || {
            rt.drive_from(driver, bare::<AtOnce, C>(OPS))
        })
        .peer(name::JOIN_SET, move || {
            rt.drive_from(driver, join_set::<AtOnce, C>(OPS))
        })
        .peer(name::TRACKER, move || {
            rt.drive_from(driver, tracker::<AtOnce, C>(OPS))
        })
}
