//! Batches. The budget rows are those of a million items that end at once, under a limit of 64.

use super::{Bench, OPS, name, on};
use crate::harness::Contest;
use crate::results::Comparison;
use crate::runtime::{Flavor, Rt};
use crate::work::batch::{
    buffer_unordered, buffered, buffered_collect, for_each, map, map_stream, semaphore,
};
use crate::work::spawn::{AtOnce, Yields};

const SECTION: &str = "batch";
const ITEMS: usize = 1_000_000;

pub fn run(bench: &Bench<'_>, comparisons: &mut Vec<Comparison>) {
    for rt in &bench.runtimes {
        let contests = [
            at_once(bench, rt),
            yielding(bench, rt),
            collected(rt),
            streamed(rt),
        ];
        for contest in contests {
            bench.run(contest.on(rt.name()), comparisons);
        }
    }
}

fn at_once<'a>(bench: &'a Bench<'_>, rt: &'a Rt) -> Contest<'a> {
    let (semaphore_budget, unordered_budget) = match rt.flavor {
        Flavor::CurrentThread => (0.05, 0.25),
        Flavor::MultiThread => (0.08, 0.9),
    };
    let title = "batch of 1,000,000 items that end at once, limit 64";
    let contest = Contest::new(SECTION, title, "item", ITEMS)
        .ours(on(rt, || for_each::<AtOnce>(ITEMS)))
        .rival(
            name::SEMAPHORE,
            semaphore_budget,
            on(rt, || semaphore::<AtOnce>(ITEMS)),
        )
        .rival(
            name::BUFFER_UNORDERED,
            unordered_budget,
            on(rt, || buffer_unordered::<AtOnce>(ITEMS)),
        );
    bench.join_go(contest, rt.flavor, "batch")
}

fn yielding<'a>(bench: &'a Bench<'_>, rt: &'a Rt) -> Contest<'a> {
    let title = "batch of 100,000 items that yield once, limit 64";
    let contest = Contest::new(SECTION, title, "item", OPS)
        .ours(on(rt, || for_each::<Yields<1>>(OPS)))
        .peer(name::SEMAPHORE, on(rt, || semaphore::<Yields<1>>(OPS)))
        .peer(
            name::BUFFER_UNORDERED,
            on(rt, || buffer_unordered::<Yields<1>>(OPS)),
        );
    bench.join_go(contest, rt.flavor, "batch_yield")
}

fn collected(rt: &Rt) -> Contest<'_> {
    let title = "batch of 1,000,000 items, results collected in order, limit 64";
    Contest::new(SECTION, title, "item", ITEMS)
        .ours(on(rt, || map::<AtOnce>(ITEMS)))
        .peer(name::BUFFERED, on(rt, || buffered_collect::<AtOnce>(ITEMS)))
}

fn streamed(rt: &Rt) -> Contest<'_> {
    let title = "batch of 1,000,000 items, stream of results in order, limit 64";
    Contest::new(SECTION, title, "item", ITEMS)
        .ours(on(rt, || map_stream::<AtOnce>(ITEMS)))
        .peer(name::BUFFERED, on(rt, || buffered::<AtOnce>(ITEMS)))
}
