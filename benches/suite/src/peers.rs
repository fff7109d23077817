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

/// A task's result, nothing if its token has stopped it.
type Stopped = Option<Result<(), BoxError>>;

fn spawn_below<F>(set: &mut JoinSet<Stopped>, token: &CancellationToken, job: F)
where
    F: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    let token = token.clone();
    set.spawn(async move { token.run_until_cancelled(job).await });
}

/// The first error. The set's drop aborts the others.
async fn join(mut set: JoinSet<Stopped>) -> Result<(), BoxError> {
    while let Some(joined) = set.join_next().await {
        joined?.ok_or(Cancelled)??;
    }
    Ok(())
}

/// A set for each request; its tasks stop with the parent's token, and with the set.
pub async fn requests<const TASKS: usize>(n: usize) {
    let parent = CancellationToken::new();
    for _ in 0..n {
        let mut set = JoinSet::new();
        for _ in 0..TASKS {
            spawn_below(&mut set, &parent, jobs::yields_once());
        }
        join(set).await.expect("no task fails");
    }
}

/// A set and a child token for each request, as a group has a context of its own.
pub async fn requests_with_child<const TASKS: usize>(n: usize) {
    let parent = CancellationToken::new();
    for _ in 0..n {
        let token = parent.child_token();
        let mut set = JoinSet::new();
        for _ in 0..TASKS {
            spawn_below(&mut set, &token, jobs::yields_once());
        }
        let result = join(set).await;
        token.cancel();
        result.expect("no task fails");
    }
}

pub async fn requests_with_replies<const TASKS: usize>(n: usize) {
    let parent = CancellationToken::new();
    for _ in 0..n {
        let mut set = JoinSet::new();
        let replies =
            Replies::<TASKS>::new(|reply| spawn_below(&mut set, &parent, jobs::waits_for(reply)));
        replies.send().await;
        join(set).await.expect("no task fails");
    }
}

pub async fn join_set(n: usize) {
    let token = CancellationToken::new();
    let mut set = JoinSet::new();
    for _ in 0..n {
        spawn_below(&mut set, &token, jobs::yields_once());
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
    let token = CancellationToken::new();
    for _ in 0..n {
        let mut set = JoinSet::new();
        for _ in 0..5 {
            spawn_below(&mut set, &token, jobs::waits());
        }
        yield_now().await;
        forget(set);
    }
}

pub async fn live_join_sets_without_token(n: usize) {
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
    let token = CancellationToken::new();
    let mut set = JoinSet::new();
    for _ in 0..n {
        spawn_below(&mut set, &token, jobs::waits());
        for _ in 1..63 {
            spawn_below(&mut set, &token, jobs::yields_once());
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
