//! The same operation on several threads at once.

use std::sync::Barrier;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use errgroup::{Group, Spawner};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Latch;

/// Runs `f` on `threads` threads at once, `n` times on each; returns the processor time of one operation: the time from
/// the first thread's start to the last one's end, times the threads that can run at once, by the operations done.
pub fn contend(threads: usize, n: usize, f: impl Fn() + Sync) -> f64 {
    let barrier = Barrier::new(threads);
    let run = || {
        barrier.wait();
        let start = Instant::now();
        (0..n).for_each(|_| f());
        (start, Instant::now())
    };
    let spans: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let ended = running.into_iter().map(|thread| thread.join());
        ended.map(|span| span.expect("no thread panics")).collect()
    });
    let first = spans.iter().map(|(start, _)| *start).min();
    let last = spans.iter().map(|(_, end)| *end).max();
    let elapsed = last
        .zip(first)
        .map_or(Duration::ZERO, |(last, first)| last - first);
    processor_time(elapsed, threads, threads * n)
}

/// Nanoseconds of processor time for one of `ops` operations.
pub fn processor_time(elapsed: Duration, threads: usize, ops: usize) -> f64 {
    let cores = available_parallelism().map_or(1, usize::from);
    elapsed.as_nanos() as f64 * threads.min(cores) as f64 / ops as f64
}

/// Spawns `n` tasks from `workers` tasks at once into one group.
pub async fn group(workers: usize, n: usize) -> Duration {
    let start = Instant::now();
    let mut group: Group = Group::new();
    for _ in 0..workers {
        drop(group.spawn(spawn_many(group.spawner(), n / workers)));
    }
    group.wait().await.expect("no task fails");
    drop(group);
    start.elapsed()
}

async fn spawn_many(spawner: Spawner, n: usize) -> Result<(), errgroup::BoxError> {
    for _ in 0..n {
        drop(spawner.spawn(async { Ok(()) }));
    }
    Ok(())
}

pub async fn bare(workers: usize, n: usize) -> Duration {
    let start = Instant::now();
    let latch = Latch::new(n / workers * workers);
    let drivers = (0..workers).map(|_| {
        let latch = latch.clone();
        tokio::spawn(async move {
            for _ in 0..n / workers {
                let latch = latch.clone();
                drop(tokio::spawn(async move { latch.count_down() }));
            }
        })
    });
    join(drivers.collect()).await;
    latch.wait().await;
    start.elapsed()
}

pub async fn tracker(workers: usize, n: usize) -> Duration {
    let start = Instant::now();
    let tracker = TaskTracker::new();
    let token = CancellationToken::new();
    let drivers = (0..workers).map(|_| {
        let (tracker, token) = (tracker.clone(), token.clone());
        tokio::spawn(async move {
            for _ in 0..n / workers {
                let token = token.clone();
                drop(tracker.spawn(async move { token.run_until_cancelled(async {}).await }));
            }
        })
    });
    join(drivers.collect()).await;
    tracker.close();
    tracker.wait().await;
    drop((tracker, token));
    start.elapsed()
}

async fn join(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        task.await.expect("no task panics");
    }
}
