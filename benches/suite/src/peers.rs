//! The peers in the rows that count, written as their users would.

use std::mem::forget;
use std::sync::Arc;

use errgroup::BoxError;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, yield_now};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::jobs::{self, Replies, Siblings};
use crate::work::Latch;

/// What a task says that a token has stopped.
#[derive(Debug, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

/// A job below a token: nothing if the token has stopped it.
async fn below(
    token: CancellationToken,
    job: impl Future<Output = Result<(), BoxError>>,
) -> Result<(), BoxError> {
    token.run_until_cancelled(job).await.ok_or(Cancelled)?
}

type Set = JoinSet<Result<(), BoxError>>;

/// The first error. The set's drop aborts the others.
async fn join(mut set: Set) -> Result<(), BoxError> {
    while let Some(joined) = set.join_next().await {
        joined??;
    }
    Ok(())
}

/// A set for each request; its tasks look at the parent's token between their awaits. The least that one can do.
pub async fn requests<const TASKS: usize>(n: usize) {
    let parent = CancellationToken::new();
    for _ in 0..n {
        let token = parent.clone();
        let mut set = JoinSet::new();
        for _ in 0..TASKS {
            set.spawn(checked(token.clone(), jobs::yields_once()));
        }
        join(set).await.expect("no task fails");
    }
}

async fn checked(
    token: CancellationToken,
    job: impl Future<Output = Result<(), BoxError>>,
) -> Result<(), BoxError> {
    job.await?;
    if token.is_cancelled() {
        Err(Cancelled.into())
    } else {
        Ok(())
    }
}

/// A set for each request, whose owner watches the parent's token for all of its tasks.
pub async fn requests_watched<const TASKS: usize>(n: usize) {
    let parent = CancellationToken::new();
    for _ in 0..n {
        let mut set = JoinSet::new();
        for _ in 0..TASKS {
            set.spawn(jobs::yields_once());
        }
        below(parent.clone(), join(set))
            .await
            .expect("no task fails");
    }
}

/// A set and a child token for each request, as a group has a context of its own; each task watches the token.
pub async fn requests_with_child<const TASKS: usize>(n: usize) {
    let parent = CancellationToken::new();
    for _ in 0..n {
        let token = parent.child_token();
        let _guard = token.drop_guard_ref();
        let mut set = JoinSet::new();
        for _ in 0..TASKS {
            set.spawn(below(token.clone(), jobs::yields_once()));
        }
        join(set).await.expect("no task fails");
    }
}

pub async fn requests_with_replies<const TASKS: usize>(n: usize) {
    let parent = CancellationToken::new();
    for _ in 0..n {
        let mut set = JoinSet::new();
        let replies = Replies::<TASKS>::new(|reply| {
            drop(set.spawn(checked(parent.clone(), jobs::waits_for(reply))))
        });
        replies.send().await;
        join(set).await.expect("no task fails");
    }
}

pub async fn join_set(n: usize) {
    let token = CancellationToken::new();
    let mut set = JoinSet::new();
    for _ in 0..n {
        set.spawn(checked(token.clone(), jobs::yields_once()));
    }
    join(set).await.expect("no task fails");
}

/// Tasks without an owner, and a counter.
pub async fn bare(n: usize) {
    spawn_counted(n, jobs::yields_once).await;
}

pub async fn bare_at_once(n: usize) {
    spawn_counted(n, || async { Ok::<(), BoxError>(()) }).await;
}

async fn spawn_counted<F>(n: usize, job: fn() -> F)
where
    F: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    let latch = Latch::new(n);
    for _ in 0..n {
        let latch = latch.clone();
        drop(tokio::spawn(async move {
            let result = job().await;
            latch.count_down();
            result
        }));
    }
    latch.wait().await;
}

pub async fn live_join_sets(n: usize) {
    for _ in 0..n {
        let mut set = JoinSet::new();
        for _ in 0..5 {
            set.spawn(jobs::waits());
        }
        yield_now().await;
        forget(set);
    }
}

pub async fn idle_trackers(n: usize) {
    let parent = CancellationToken::new();
    for _ in 0..n {
        forget((TaskTracker::new(), parent.child_token()));
    }
    forget(parent);
}

pub async fn survivors(n: usize) {
    let mut set = JoinSet::new();
    for _ in 0..n {
        for place in 0..63 {
            set.spawn(jobs::waits_if(place == 31));
        }
        for _ in 1..63 {
            set.join_next().await;
        }
    }
    forget(set);
}

pub async fn cooperative(n: usize) {
    let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
    watchers(&tracker, &token, n).await;
    token.cancel();
    tracker.close();
    tracker.wait().await;
}

pub async fn long_error(n: usize) {
    let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
    watchers(&tracker, &token, n).await;
    drop(tracker.spawn(async move {
        token.cancel();
        Err::<(), BoxError>(jobs::long_text().into())
    }));
    tracker.close();
    tracker.wait().await;
}

async fn watchers(tracker: &TaskTracker, token: &CancellationToken, n: usize) {
    let siblings = Siblings::new();
    for _ in 0..n {
        let token = token.clone();
        drop(tracker.spawn(async move {
            Siblings::started();
            token.cancelled().await;
            Err::<(), BoxError>(Cancelled.into())
        }));
    }
    siblings.have_started(n).await;
}

/// Each task acquires its permit itself.
pub async fn queued(n: usize) {
    let permits = Arc::new(Semaphore::new(64));
    let latch = Latch::new(n);
    for _ in 0..n {
        let (permits, latch) = (permits.clone(), latch.clone());
        drop(tokio::spawn(async move {
            let permit = permits.acquire().await?;
            latch.count_down();
            drop(permit);
            Ok::<(), BoxError>(())
        }));
    }
    latch.wait().await;
}

/// A permit before each task.
pub async fn permits<const LIMIT: usize>(n: usize) {
    let permits = Arc::new(Semaphore::new(LIMIT));
    for _ in 0..n {
        let permit = permits
            .clone()
            .acquire_owned()
            .await
            .expect("it is not closed");
        drop(tokio::spawn(async move {
            drop(permit);
            Ok::<(), BoxError>(())
        }));
    }
    drop(permits.acquire_many(LIMIT as u32).await);
}
