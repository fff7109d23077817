//! Which contenders meet, on what, with which budget.
//!
//! The budgets are those of the design; a row without one is for the reader.

mod batch;
mod context;
mod failure;
mod scaling;
mod spawn;

use std::time::Duration;

use crate::go::{self, Go};
use crate::harness::{Contest, Effort};
use crate::results::{Comparison, Scaling};
use crate::runtime::{Flavor, Rt};

/// Operations in a round, unless the row says otherwise.
pub const OPS: usize = 100_000;

/// Peers, as they are named in tables and plots.
pub mod name {
    pub const NAMED: &str = "errgroup, named tasks";
    pub const BARE: &str = "tokio::spawn + counter";
    pub const JOIN_SET: &str = "JoinSet";
    pub const TRACKER: &str = "TaskTracker + CancellationToken";
    pub const UNORDERED: &str = "FuturesUnordered";
    pub const TOKEN: &str = "CancellationToken";
    pub const SLEEP: &str = "boxed Sleep";
    pub const CLOCK: &str = "Instant::now";
    pub const SEMAPHORE: &str = "Semaphore + tokio::spawn";
    pub const BUFFER_UNORDERED: &str = "buffer_unordered";
    pub const BUFFERED: &str = "buffered";
}

/// What all rows share: one instance of each runtime, Go if there is one, how long to measure.
pub struct Bench<'a> {
    pub runtimes: [Rt; 2],
    pub go: Option<Go>,
    pub effort: Effort,
    /// Only rows whose full title or section contains it.
    pub only: String,
    /// Told of each comparison when it is done.
    pub report: &'a dyn Fn(&Comparison),
}

impl Bench<'_> {
    pub fn new(effort: Effort, go: Option<Go>, only: String) -> Self {
        Bench {
            runtimes: [Rt::new(Flavor::CurrentThread), Rt::new(Flavor::MultiThread)],
            go,
            effort,
            only,
            report: &|_| {},
        }
    }

    /// Every comparison.
    pub fn compare(&self) -> Vec<Comparison> {
        let sections = [spawn::run, failure::run, context::run, batch::run];
        let mut comparisons = Vec::new();
        for run in sections {
            run(self, &mut comparisons);
        }
        comparisons
    }

    /// Every scaling run.
    pub fn scale(&self) -> Vec<Scaling> {
        scaling::run(self)
    }

    fn is_wanted(&self, section: &str, title: &str) -> bool {
        title.contains(&self.only) || section.contains(&self.only)
    }

    /// Runs a contest if it is wanted.
    fn run(&self, contest: Contest<'_>, comparisons: &mut Vec<Comparison>) {
        let plan = contest.comparison();
        if self.is_wanted(&plan.section, &plan.full_title()) {
            let comparison = contest.run(&self.effort);
            (self.report)(&comparison);
            comparisons.push(comparison);
        }
    }

    fn join_go<'a>(
        &'a self,
        contest: Contest<'a>,
        flavor: Flavor,
        operation: &'a str,
    ) -> Contest<'a> {
        go::join(contest, self.go.as_ref(), flavor, operation)
    }
}

/// Runs an async round on a runtime, as a closure that does it again and again.
fn on<'a, F>(rt: &'a Rt, round: impl Fn() -> F + 'a) -> impl FnMut() -> Duration + 'a
where
    F: Future<Output = Duration> + Send + 'static,
{
    move || rt.drive(round())
}
