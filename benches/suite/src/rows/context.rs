//! Contexts: derive, ask, wait, end. Go with one thread: these rows have one.

use super::{Bench, OPS, name, on};
use crate::harness::Contest;
use crate::results::Comparison;
use crate::runtime::{Flavor, Rt};
use crate::work::context::{self as work, Part};

const SECTION: &str = "context";
const CHILDREN: usize = 500_000;
const CHAIN: usize = 100_000;

/// More than elsewhere: one is over in a nanosecond.
const LOADS: usize = 1_000_000;

pub fn run(bench: &Bench<'_>, comparisons: &mut Vec<Comparison>) {
    let rt = &bench.runtimes[0];
    let contests = [
        derive(bench),
        derive_scoped(),
        is_done(bench),
        is_done_deadline(rt),
        done(bench),
        end_children(bench, Part::End),
        end_children(bench, Part::EndAndDrop),
        end_chain(bench, Part::End),
        end_chain(bench, Part::EndAndDrop),
    ];
    let timeouts = bench.runtimes.iter();
    let timeouts = timeouts.flat_map(|rt| [timeout(bench, rt), timeout_waited(rt)]);
    for contest in contests.into_iter().chain(timeouts) {
        bench.run(contest, comparisons);
    }
}

fn derive<'a>(bench: &'a Bench<'_>) -> Contest<'a> {
    let contest = Contest::new(SECTION, "derive and drop a child", "child", OPS)
        .ours(|| work::derive(OPS))
        .rival(name::TOKEN, 0.6, || work::derive_token(OPS));
    bench.join_go(contest, Flavor::CurrentThread, "derive")
}

fn derive_scoped<'a>() -> Contest<'a> {
    let title = "derive a child, end it by dropping its handle (DropGuard), drop it";
    Contest::new(SECTION, title, "child", OPS)
        .ours(|| work::derive_scoped(OPS))
        .rival(name::TOKEN, 0.6, || work::derive_scoped_token(OPS))
}

fn is_done<'a>(bench: &'a Bench<'_>) -> Contest<'a> {
    let contest = Contest::new(SECTION, "is_done on a live context", "call", LOADS)
        .ours(|| work::is_done(LOADS))
        .rival(name::TOKEN, 0.05, || work::is_done_token(LOADS));
    bench.join_go(contest, Flavor::CurrentThread, "is_done")
}

fn is_done_deadline(rt: &Rt) -> Contest<'_> {
    let title = "is_done on a live context with a deadline";
    Contest::new(SECTION, title, "call", LOADS)
        .ours(on(rt, || work::is_done_deadline(LOADS)))
        .peer(name::CLOCK, on(rt, || work::clock(LOADS)))
}

fn done<'a>(bench: &'a Bench<'_>) -> Contest<'a> {
    let contest = Contest::new(SECTION, "done(): poll once, drop", "waiter", OPS)
        .ours(|| work::done(OPS))
        .rival(name::TOKEN, 0.5, || work::done_token(OPS));
    bench.join_go(contest, Flavor::CurrentThread, "done")
}

/// The budget is for the end; the row with the drop is beside it.
fn end_children<'a>(bench: &'a Bench<'_>, part: Part) -> Contest<'a> {
    let title = format!("end 500,000 children of one parent{}", and_drop(part));
    let contest = Contest::new(SECTION, title, "child", CHILDREN)
        .ours(move || work::end_children(CHILDREN, part));
    let theirs = move || work::end_children_tokens(CHILDREN, part);
    if part == Part::EndAndDrop {
        return contest.peer(name::TOKEN, theirs);
    }
    let contest = contest.rival(name::TOKEN, 0.8, theirs);
    bench.join_go(contest, Flavor::CurrentThread, "end_children")
}

fn end_chain<'a>(bench: &'a Bench<'_>, part: Part) -> Contest<'a> {
    let title = format!("end a chain of 100,000{}", and_drop(part));
    let contest =
        Contest::new(SECTION, title, "context", CHAIN).ours(move || work::end_chain(CHAIN, part));
    let theirs = move || work::end_chain_tokens(CHAIN, part);
    if part == Part::EndAndDrop {
        return contest.peer(name::TOKEN, theirs);
    }
    let contest = contest.rival(name::TOKEN, 0.6, theirs);
    bench.join_go(contest, Flavor::CurrentThread, "end_chain")
}

fn and_drop(part: Part) -> &'static str {
    match part {
        Part::EndAndDrop => ", and drop them",
        Part::End | Part::Whole => "",
    }
}

fn timeout<'a>(bench: &'a Bench<'_>, rt: &'a Rt) -> Contest<'a> {
    let title = "with_timeout and drop, nobody waits";
    let contest = Contest::new(SECTION, title, "timeout", OPS)
        .ours(on(rt, || work::timeout(OPS)))
        .rival(name::SLEEP, 1.5, on(rt, || work::timeout_sleep(OPS)));
    bench.join_go(contest, rt.flavor, "timeout").on(rt.name())
}

/// Without somebody who waits there is no timer. This is with one.
fn timeout_waited(rt: &Rt) -> Contest<'_> {
    let title = "with_timeout, poll done() once, drop both";
    Contest::new(SECTION, title, "timeout", OPS)
        .ours(on(rt, || work::timeout_waited(OPS)))
        .peer(name::SLEEP, on(rt, || work::timeout_sleep(OPS)))
        .on(rt.name())
}
