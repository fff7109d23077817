//! `n` tasks that have been polled once and wait forever. Each captures one `Arc`.

use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use errgroup::{BoxError, Group};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

type Started = Arc<AtomicUsize>;

/// Says that it has been polled, and waits forever.
async fn sibling(started: Started) -> Result<(), BoxError> {
    started.fetch_add(1, Ordering::Relaxed);
    pending().await
}

/// Spawns `n` siblings and returns when all have been polled.
async fn start(n: usize, mut spawn: impl FnMut(Started)) {
    let started = Started::default();
    for _ in 0..n {
        spawn(started.clone());
    }
    while started.load(Ordering::Relaxed) < n {
        tokio::task::yield_now().await;
    }
    // The last ones are on their way from the counter to their wait.
    tokio::time::sleep(Duration::from_millis(1)).await;
}

pub async fn group(n: usize) -> Group {
    let group = Group::new();
    start(n, |started| drop(group.spawn(sibling(started)))).await;
    group
}

/// They live until their runtime goes.
pub async fn bare(n: usize) {
    start(n, |started| drop(tokio::spawn(sibling(started)))).await;
}

pub async fn tracker(n: usize) -> (TaskTracker, CancellationToken) {
    let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
    start(n, |started| {
        drop(tracker.spawn(cancellable(token.clone(), sibling(started))))
    })
    .await;
    (tracker, token)
}

async fn cancellable<F: Future>(token: CancellationToken, future: F) -> Option<F::Output> {
    token.run_until_cancelled(future).await
}

pub async fn join_set(n: usize) -> JoinSet<Result<(), BoxError>> {
    let mut set = JoinSet::new();
    start(n, |started| drop(set.spawn(sibling(started)))).await;
    set
}
