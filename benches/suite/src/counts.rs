//! Allocations and bytes per task, context, waiter and batch. For programs with [`Counting`](crate::alloc::Counting) as
//! their allocator; elsewhere all is zero.

use std::pin::Pin;
use std::task::{Context as TaskContext, Waker};

use tokio::runtime::{Builder, Runtime};

use crate::alloc::{Allocated, count};
use crate::harness::OURS;
use crate::results::{Count, Value};
use crate::rows::name;
use crate::work::spawn::AtOnce;
use crate::work::{batch, context, siblings, spawn};

/// Live at once, where memory is measured.
const MANY: usize = 1_000_000;
const TASKS: usize = 100_000;

/// A count for each contender.
type Counted = (&'static str, Allocated);

pub fn all() -> Vec<Count> {
    let mut counts = spawned();
    counts.extend(live_tasks());
    counts.extend(contexts());
    counts.extend(waiters());
    counts.extend(batches());
    counts
}

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be built")
}

/// Counts an async operation, what it returns still held.
pub fn on_runtime<R>(f: impl Future<Output = R>) -> Allocated {
    let runtime = runtime();
    let (held, counted) = count(|| runtime.block_on(f));
    let _guard = runtime.enter();
    drop(held);
    counted
}

/// Counts an operation, what it returns still held.
fn holding<R>(f: impl FnOnce() -> R) -> Allocated {
    let (held, counted) = count(f);
    drop(held);
    counted
}

fn row(title: &str, unit: &str, counted: &[Counted], of: impl Fn(&Allocated) -> f64) -> Count {
    let values = counted.iter().map(|(name, counted)| Value {
        name: (*name).to_owned(),
        value: of(counted),
    });
    Count {
        title: title.to_owned(),
        unit: unit.to_owned(),
        values: values.collect(),
        at_most: None,
    }
}

impl Count {
    fn at_most(mut self, at_most: f64) -> Self {
        self.at_most = Some(at_most);
        self
    }
}

fn allocations(n: usize) -> impl Fn(&Allocated) -> f64 {
    move |counted| counted.allocations as f64 / n as f64
}

fn bytes(n: usize) -> impl Fn(&Allocated) -> f64 {
    move |counted| counted.bytes as f64 / n as f64
}

fn live(n: usize) -> impl Fn(&Allocated) -> f64 {
    move |counted| counted.live as f64 / n as f64
}

fn peak(counted: &Allocated) -> f64 {
    counted.peak as f64
}

/// The design allows the group an allocation per task and what the registry costs spread over the tasks.
fn spawned() -> Vec<Count> {
    const REGISTRY: f64 = 0.02;
    let counted = [
        (OURS, on_runtime(spawn::group::<AtOnce, ()>(TASKS))),
        (name::BARE, on_runtime(spawn::bare::<AtOnce, ()>(TASKS))),
        (
            name::JOIN_SET,
            on_runtime(spawn::join_set::<AtOnce, ()>(TASKS)),
        ),
        (
            name::TRACKER,
            on_runtime(spawn::tracker::<AtOnce, ()>(TASKS)),
        ),
        (name::NAMED, on_runtime(spawn::named::<AtOnce, ()>(TASKS))),
    ];
    vec![
        row("spawned task", "allocations", &counted, allocations(TASKS)).at_most(1.0 + REGISTRY),
        row(
            "spawned task, all together",
            "bytes",
            &counted,
            bytes(TASKS),
        ),
    ]
}

fn live_tasks() -> Vec<Count> {
    let counted = [
        (OURS, on_runtime(siblings::group(MANY))),
        (name::BARE, on_runtime(siblings::bare(MANY))),
        (name::JOIN_SET, on_runtime(siblings::join_set(MANY))),
        (name::TRACKER, on_runtime(siblings::tracker(MANY))),
    ];
    vec![row(
        "live task, of 1,000,000",
        "bytes",
        &counted,
        live(MANY),
    )]
}

fn contexts() -> Vec<Count> {
    // The handles lie in a vector, which is not what a context costs.
    let ours =
        |held: fn(usize) -> _| less_vector::<(errgroup::Context, errgroup::CancelHandle), _>(held);
    let token = |held: fn(usize) -> _| less_vector::<tokio_util::sync::CancellationToken, _>(held);
    let children = [
        (OURS, ours(context::children)),
        (name::TOKEN, token(context::children_tokens)),
    ];
    let chain = [
        (OURS, ours(context::chain)),
        (name::TOKEN, token(context::chain_tokens)),
    ];
    vec![
        row(
            "context, of 1,000,000 children",
            "allocations",
            &children,
            allocations(MANY),
        ),
        row(
            "context, of 1,000,000 children",
            "bytes",
            &children,
            live(MANY),
        )
        .at_most(128.0),
        row(
            "context, of a chain of 1,000,000",
            "bytes",
            &chain,
            live(MANY),
        )
        .at_most(128.0),
    ]
}

/// Counts what `held` holds, without the vector of `T` in it.
fn less_vector<T, H>(held: fn(usize) -> (H, Vec<T>)) -> Allocated {
    let mut counted = holding(|| held(MANY));
    counted.live -= (MANY * size_of::<T>()) as i64;
    counted
}

fn waiters() -> Vec<Count> {
    let (ctx, _handles) = context::live();
    let token = context::live_token();
    let many = [
        (OURS, polled((0..TASKS).map(|_| ctx.done()))),
        (name::TOKEN, polled((0..TASKS).map(|_| token.cancelled()))),
    ];
    let one = [
        (OURS, polled([ctx.done()])),
        (name::TOKEN, polled([token.cancelled()])),
    ];
    vec![
        row(
            "waiter, of 100,000 on one context",
            "allocations",
            &many,
            allocations(TASKS),
        ),
        row(
            "waiter, of 100,000 on one context, with its future",
            "bytes",
            &many,
            live(TASKS),
        ),
        row(
            "the only waiter on a context",
            "allocations",
            &one,
            allocations(1),
        ),
        row(
            "the only waiter on a context, with its future",
            "bytes",
            &one,
            live(1),
        ),
    ]
}

/// Counts what polling futures holds, and the futures themselves.
fn polled<F: Future>(futures: impl IntoIterator<Item = F>) -> Allocated {
    let mut futures: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut cx = TaskContext::from_waker(Waker::noop());
    let mut counted = count(|| {
        for future in &mut futures {
            assert!(future.as_mut().poll(&mut cx).is_pending());
        }
    })
    .1;
    counted.live += (futures.len() * size_of::<F>()) as i64;
    counted
}

/// The peak does not grow with the items.
fn batches() -> Vec<Count> {
    let of = |n| {
        [
            (OURS, on_runtime(batch::for_each::<AtOnce>(n))),
            (name::SEMAPHORE, on_runtime(batch::semaphore::<AtOnce>(n))),
            (
                name::BUFFER_UNORDERED,
                on_runtime(batch::buffer_unordered::<AtOnce>(n)),
            ),
        ]
    };
    let (few, many) = (of(10_000), of(1_000_000));
    vec![
        row(
            "peak of a batch of 10,000 items, limit 64",
            "bytes",
            &few,
            peak,
        ),
        row(
            "peak of a batch of 1,000,000 items, limit 64",
            "bytes",
            &many,
            peak,
        ),
        row(
            "item of a batch",
            "allocations",
            &many,
            allocations(1_000_000),
        ),
    ]
}
