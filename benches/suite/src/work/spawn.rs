//! Spawn `n` tasks, wait for all of them.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use errgroup::Group;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Latch;

/// What a task does.
pub trait Work: Send + 'static {
    fn run() -> impl Future<Output = ()> + Send + 'static;
}

/// Ends at once.
pub struct AtOnce;

/// Gives the thread back `N` times.
pub struct Yields<const N: usize>;

/// Waits for a timer of a millisecond.
pub struct Timer;

/// What a task has of its caller.
pub trait Captured: Clone + Send + Sync + 'static {
    fn new(n: usize) -> Self;
    fn touch(&self);
    /// The state is the latch already, so that bare `tokio::spawn` needs no other.
    fn latch(&self) -> Option<&Arc<Latch>>;
}

impl Work for AtOnce {
    async fn run() {}
}

impl<const N: usize> Work for Yields<N> {
    async fn run() {
        for _ in 0..N {
            tokio::task::yield_now().await;
        }
    }
}

impl Work for Timer {
    async fn run() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Nothing.
impl Captured for () {
    fn new(_: usize) {}

    fn touch(&self) {}

    fn latch(&self) -> Option<&Arc<Latch>> {
        None
    }
}

/// One `Arc`, written to by every task.
impl Captured for Arc<Latch> {
    fn new(n: usize) -> Self {
        Latch::new(n)
    }

    fn touch(&self) {
        self.count_down();
    }

    fn latch(&self) -> Option<&Arc<Latch>> {
        Some(self)
    }
}

/// The user's code: the same future for all.
async fn job<W: Work, C: Captured>(captured: C) {
    W::run().await;
    captured.touch();
}

/// The same in a group, which wants to know whether it failed.
async fn fallible<W: Work, C: Captured>(captured: C) -> Result<(), errgroup::BoxError> {
    job::<W, C>(captured).await;
    Ok(())
}

pub async fn group<W: Work, C: Captured>(n: usize) -> Duration {
    let captured = C::new(n);
    let start = Instant::now();
    let mut group: Group = Group::new();
    for _ in 0..n {
        drop(group.spawn(fallible::<W, C>(captured.clone())));
    }
    group.wait().await.expect("no task fails");
    drop(group);
    start.elapsed()
}

/// As `group`, with a name for each task.
pub async fn named<W: Work, C: Captured>(n: usize) -> Duration {
    let captured = C::new(n);
    let start = Instant::now();
    let mut group: Group = Group::new();
    for _ in 0..n {
        drop(group.task("job").spawn(fallible::<W, C>(captured.clone())));
    }
    group.wait().await.expect("no task fails");
    drop(group);
    start.elapsed()
}

pub async fn bare<W: Work, C: Captured>(n: usize) -> Duration {
    let captured = C::new(n);
    let start = Instant::now();
    match captured.latch() {
        Some(latch) => {
            for _ in 0..n {
                drop(tokio::spawn(job::<W, C>(captured.clone())));
            }
            latch.wait().await;
        }
        None => counted::<W, C>(n, captured).await,
    }
    start.elapsed()
}

/// Spawns with a latch beside the captured state.
async fn counted<W: Work, C: Captured>(n: usize, captured: C) {
    let latch = Latch::new(n);
    for _ in 0..n {
        let (captured, latch) = (captured.clone(), latch.clone());
        drop(tokio::spawn(async move {
            job::<W, C>(captured).await;
            latch.count_down();
        }));
    }
    latch.wait().await;
}

pub async fn join_set<W: Work, C: Captured>(n: usize) -> Duration {
    let captured = C::new(n);
    let start = Instant::now();
    let mut set = JoinSet::new();
    for _ in 0..n {
        set.spawn(job::<W, C>(captured.clone()));
    }
    while let Some(joined) = set.join_next().await {
        joined.expect("no task panics");
    }
    drop(set);
    start.elapsed()
}

/// What gives the same promise as a group: counted, and stopped from outside.
pub async fn tracker<W: Work, C: Captured>(n: usize) -> Duration {
    let captured = C::new(n);
    let start = Instant::now();
    let tracker = TaskTracker::new();
    let token = CancellationToken::new();
    for _ in 0..n {
        let (captured, token) = (captured.clone(), token.clone());
        drop(tracker.spawn(async move { token.run_until_cancelled(job::<W, C>(captured)).await }));
    }
    tracker.close();
    tracker.wait().await;
    drop((tracker, token));
    start.elapsed()
}

/// No tasks: all futures on the thread that waits.
pub async fn unordered<W: Work, C: Captured>(n: usize) -> Duration {
    let captured = C::new(n);
    let start = Instant::now();
    let mut set = FuturesUnordered::new();
    for _ in 0..n {
        set.push(job::<W, C>(captured.clone()));
    }
    while set.next().await.is_some() {}
    drop(set);
    start.elapsed()
}
