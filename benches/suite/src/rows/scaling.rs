//! Cost per operation while the work, the tree or the number of threads grows.

use std::time::Duration;

use super::{Bench, name};
use crate::harness::OURS;
use crate::results::{Point, Scaling, Series};
use crate::runtime::{Rt, multi_thread};
use crate::work::context::{self, Part};
use crate::work::spawn::{AtOnce, bare, group, tracker};
use crate::work::threads;

/// Operations that each point does at least, so that the clock sees them.
const LEAST: usize = 20_000;

const THREADS: [usize; 4] = [1, 2, 4, 8];

/// Nanoseconds per operation at a size.
type Cost<'a> = Box<dyn Fn(usize) -> f64 + 'a>;

/// One plot: contenders at growing sizes, in alternating rounds.
struct Plan<'a> {
    scaling: Scaling,
    sizes: Vec<usize>,
    costs: Vec<Cost<'a>>,
}

pub fn run(bench: &Bench<'_>) -> Vec<Scaling> {
    let mut plans = Vec::new();
    for rt in &bench.runtimes {
        plans.push(tasks(bench, rt));
    }
    for part in [Part::End, Part::Whole] {
        plans.push(children(bench, part));
        plans.push(depth(bench, part));
    }
    plans.extend([is_done(), done(), spawn_threads()]);
    plans.retain(|plan| bench.is_wanted("scaling", &plan.scaling.title));
    plans
        .into_iter()
        .map(|plan| plan.run(bench.effort.scaling_rounds))
        .collect()
}

fn sizes(bench: &Bench<'_>) -> Vec<usize> {
    let all = (2..=6).map(|exponent| 10_usize.pow(exponent));
    all.filter(|&size| size <= bench.effort.largest).collect()
}

fn tasks<'a>(bench: &Bench<'_>, rt: &'a Rt) -> Plan<'a> {
    let title = format!("spawn + wait, {}", rt.name());
    Plan::new(title, "tasks", "task", sizes(bench))
        .add(OURS, repeated(|n| rt.drive(group::<AtOnce, ()>(n))))
        .add(name::BARE, repeated(|n| rt.drive(bare::<AtOnce, ()>(n))))
        .add(
            name::TRACKER,
            repeated(|n| rt.drive(tracker::<AtOnce, ()>(n))),
        )
}

fn children<'a>(bench: &Bench<'_>, part: Part) -> Plan<'a> {
    let title = format!("children of one parent: {}", part_name(part));
    Plan::new(title, "children", "child", sizes(bench))
        .add(OURS, repeated(move |n| context::end_children(n, part)))
        .add(
            name::TOKEN,
            repeated(move |n| context::end_children_tokens(n, part)),
        )
}

fn depth<'a>(bench: &Bench<'_>, part: Part) -> Plan<'a> {
    let title = format!("a chain of contexts: {}", part_name(part));
    Plan::new(title, "depth", "context", sizes(bench))
        .add(OURS, repeated(move |n| context::end_chain(n, part)))
        .add(
            name::TOKEN,
            repeated(move |n| context::end_chain_tokens(n, part)),
        )
}

fn part_name(part: Part) -> &'static str {
    match part {
        Part::End => "end",
        Part::EndAndDrop => "end and drop",
        Part::Whole => "derive, end and drop",
    }
}

fn is_done<'a>() -> Plan<'a> {
    let (ctx, _handles) = context::live();
    let token = context::live_token();
    Plan::new(
        "is_done on one live context",
        "threads",
        "call",
        THREADS.into(),
    )
    .add(OURS, move |threads| {
        // Owned here, so that it stays live.
        let _ = &_handles;
        threads::contend(threads, 1_000_000, || {
            assert!(!ctx.is_done());
        })
    })
    .add(name::TOKEN, move |threads| {
        threads::contend(threads, 100_000, || {
            assert!(!token.is_cancelled());
        })
    })
}

fn done<'a>() -> Plan<'a> {
    let (ctx, _handles) = context::live();
    let token = context::live_token();
    let title = "done() on one context: poll once, drop";
    Plan::new(title, "threads", "waiter", THREADS.into())
        .add(OURS, move |threads| {
            let _ = &_handles;
            threads::contend(threads, 50_000, || context::poll_and_drop(ctx.done()))
        })
        .add(name::TOKEN, move |threads| {
            threads::contend(threads, 50_000, || {
                context::poll_and_drop(token.cancelled())
            })
        })
}

fn spawn_threads<'a>() -> Plan<'a> {
    const TASKS: usize = 100_000;
    let title = "spawn + wait from as many tasks as there are workers, one group";
    Plan::new(title, "threads", "task", THREADS.into())
        .add(
            OURS,
            on_workers(TASKS, |workers| threads::group(workers, TASKS)),
        )
        .add(
            name::BARE,
            on_workers(TASKS, |workers| threads::bare(workers, TASKS)),
        )
        .add(
            name::TRACKER,
            on_workers(TASKS, |workers| threads::tracker(workers, TASKS)),
        )
}

/// Runs `round` on a runtime with as many workers; processor time per operation.
fn on_workers<'a, F>(ops: usize, round: impl Fn(usize) -> F + 'a) -> impl Fn(usize) -> f64 + 'a
where
    F: Future<Output = Duration> + Send + 'static,
{
    move |workers| {
        let runtime = multi_thread(workers).expect("a runtime can be built");
        let elapsed = runtime.block_on(runtime.spawn(round(workers)));
        threads::processor_time(elapsed.expect("a round does not panic"), workers, ops)
    }
}

/// Repeats small work; time per operation.
fn repeated<'a>(round: impl Fn(usize) -> Duration + 'a) -> impl Fn(usize) -> f64 + 'a {
    move |n| {
        let times = LEAST.div_ceil(n);
        let elapsed: Duration = (0..times).map(|_| round(n)).sum();
        elapsed.as_nanos() as f64 / (times * n) as f64
    }
}

impl<'a> Plan<'a> {
    fn new(title: impl Into<String>, axis: &str, unit: &str, sizes: Vec<usize>) -> Self {
        let scaling = Scaling {
            title: title.into(),
            axis: axis.to_owned(),
            unit: unit.to_owned(),
            series: Vec::new(),
        };
        Self {
            scaling,
            sizes,
            costs: Vec::new(),
        }
    }

    fn add(mut self, name: &str, cost: impl Fn(usize) -> f64 + 'a) -> Self {
        self.scaling.series.push(Series {
            name: name.to_owned(),
            points: Vec::new(),
        });
        self.costs.push(Box::new(cost));
        self
    }

    fn run(mut self, rounds: u32) -> Scaling {
        for &size in &self.sizes {
            for (cost, series) in self.costs.iter().zip(&mut self.scaling.series) {
                cost(size);
                series.points.push(Point {
                    x: size as u64,
                    rounds: Vec::new(),
                });
            }
            for _ in 0..rounds {
                self.scaling.round(&self.costs, size);
            }
        }
        self.scaling
    }
}

impl Scaling {
    /// Does a round of each contender, at the last point.
    fn round(&mut self, costs: &[Cost<'_>], size: usize) {
        for (cost, series) in costs.iter().zip(&mut self.series) {
            let point = series.points.last_mut().expect("the point was added");
            point.rounds.push((cost(size) * 100.0).round() / 100.0);
        }
    }
}
