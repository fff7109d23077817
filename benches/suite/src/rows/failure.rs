//! The first error, until the last sibling is gone.

use super::{Bench, OPS, name, on};
use crate::harness::Contest;
use crate::results::Comparison;
use crate::work::failure::{group, join_set, tracker};

pub fn run(bench: &Bench<'_>, comparisons: &mut Vec<Comparison>) {
    for rt in &bench.runtimes {
        let title = "first error to the last of 100,000 siblings gone";
        let contest = Contest::new("failure", title, "sibling", OPS)
            .ours(on(rt, || group(OPS)))
            .rival(name::TRACKER, 0.65, on(rt, || tracker(OPS)))
            .peer(name::JOIN_SET, on(rt, || join_set(OPS)));
        let contest = bench.join_go(contest, rt.flavor, "fail");
        bench.run(contest.on(rt.name()), comparisons);
    }
}
