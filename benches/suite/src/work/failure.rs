//! One of `n + 1` tasks fails; how long until the last sibling is gone.
//!
//! The siblings have been polled once and wait forever. Spawning them is not part of what is measured; dropping them is.

use std::time::{Duration, Instant};

use super::siblings;

pub async fn group(n: usize) -> Duration {
    let mut group = siblings::group(n).await;
    let start = Instant::now();
    drop(group.spawn(async { Err::<(), _>("failed".into()) }));
    group.wait().await.expect_err("one task fails");
    drop(group);
    start.elapsed()
}

pub async fn tracker(n: usize) -> Duration {
    let (tracker, token) = siblings::tracker(n).await;
    let start = Instant::now();
    let failing = token.clone();
    drop(tracker.spawn(async move { failing.cancel() }));
    tracker.close();
    tracker.wait().await;
    drop((tracker, token));
    start.elapsed()
}

/// The failing task's result is seen first, the rest is aborted.
pub async fn join_set(n: usize) -> Duration {
    let mut set = siblings::join_set(n).await;
    let start = Instant::now();
    set.spawn(async { Err("failed".into()) });
    let first = set.join_next().await.expect("there are tasks");
    first.expect("no task panics").expect_err("the others wait");
    set.shutdown().await;
    drop(set);
    start.elapsed()
}
