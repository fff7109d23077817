//! The peers, written as their users would. Each function is the same work as the one of its name in [`ours`](crate::ours).

use std::hint::black_box;
use std::mem::forget;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use errgroup::BoxError;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio::select;
use tokio::sync::{Notify, Semaphore};
use tokio::task::coop::unconstrained;
use tokio::task::{JoinSet, yield_now};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::jobs::{
    AtOnce, HOUR, Replies, Siblings, Work, Yields, item, item_done, job, long_text, poll_and_drop,
    sibling, timed, waits, waits_for, waits_if,
};
use crate::threads::contend;

/// Counts down to zero and then lets one waiter go: what bare `tokio::spawn` needs in order to be waited for.
struct Latch {
    left: AtomicUsize,
    zero: Notify,
}

impl Latch {
    fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicUsize::new(count),
            zero: Notify::new(),
        })
    }

    fn count_down(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.zero.notify_one();
        }
    }

    async fn wait(&self) {
        if self.left.load(Ordering::Acquire) > 0 {
            self.zero.notified().await;
        }
    }
}

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
            set.spawn(checked(token.clone(), job::<Yields<1>>()));
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
            set.spawn(job::<Yields<1>>());
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
            set.spawn(below(token.clone(), job::<Yields<1>>()));
        }
        join(set).await.expect("no task fails");
    }
}

pub async fn requests_with_replies<const TASKS: usize>(n: usize) {
    let parent = CancellationToken::new();
    for _ in 0..n {
        let mut set = JoinSet::new();
        let replies = Replies::<TASKS>::new(|reply| {
            drop(set.spawn(checked(parent.clone(), waits_for(reply))))
        });
        replies.send().await;
        join(set).await.expect("no task fails");
    }
}

pub async fn join_set<W: Work>(n: usize) {
    let token = CancellationToken::new();
    let mut set = JoinSet::new();
    for _ in 0..n {
        set.spawn(checked(token.clone(), job::<W>()));
    }
    join(set).await.expect("no task fails");
}

/// What gives the same promise as a group: counted, and stopped from outside.
pub async fn tracker<W: Work>(n: usize) {
    let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
    for _ in 0..n {
        drop(tracker.spawn(below(token.clone(), job::<W>())));
    }
    tracker.close();
    tracker.wait().await;
}

/// Tasks without an owner, and a counter.
pub async fn bare<W: Work>(n: usize) {
    let latch = Latch::new(n);
    for _ in 0..n {
        let latch = latch.clone();
        drop(tokio::spawn(async move {
            let result = job::<W>().await;
            latch.count_down();
            result
        }));
    }
    latch.wait().await;
}

/// What a scope is without handles, an end, and panics.
pub async fn unordered(n: usize) {
    let futures = (0..n).map(|_| job::<Yields<1>>().boxed());
    let mut futures: FuturesUnordered<_> = futures.collect();
    while futures.try_next().await.expect("no future fails").is_some() {}
}

pub async fn live_join_sets(n: usize) {
    for _ in 0..n {
        let mut set = JoinSet::new();
        for _ in 0..5 {
            set.spawn(waits());
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
            set.spawn(waits_if(place == 31));
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
        Err::<(), BoxError>(long_text().into())
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
            let result = job::<AtOnce>().await;
            latch.count_down();
            drop(permit);
            result
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
            let result = job::<AtOnce>().await;
            drop(permit);
            result
        }));
    }
    drop(permits.acquire_many(LIMIT as u32).await);
}

pub async fn first_error(n: usize) -> Duration {
    let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
    let siblings = Siblings::new();
    for _ in 0..n {
        drop(tracker.spawn(below(token.clone(), sibling())));
    }
    siblings.have_started(n).await;
    let start = Instant::now();
    let failing = token.clone();
    drop(tracker.spawn(async move { failing.cancel() }));
    tracker.close();
    tracker.wait().await;
    drop((tracker, token));
    start.elapsed()
}

/// The failing task's result is seen first, the rest is aborted.
pub async fn first_error_join_set(n: usize) -> Duration {
    let mut set = JoinSet::new();
    let siblings = Siblings::new();
    for _ in 0..n {
        set.spawn(sibling());
    }
    siblings.have_started(n).await;
    let start = Instant::now();
    set.spawn(async { Err("failed".into()) });
    let first = set.join_next().await.expect("there are tasks");
    first.expect("no task panics").expect_err("the others wait");
    set.shutdown().await;
    drop(set);
    start.elapsed()
}

pub async fn len<const TASKS: usize>(n: usize) {
    let tracker = crowd(TASKS).await;
    for _ in 0..n {
        assert_eq!(black_box(&tracker).len(), TASKS);
    }
}

pub async fn is_empty<const TASKS: usize>(n: usize) {
    let tracker = crowd(TASKS).await;
    for _ in 0..n {
        assert!(!black_box(&tracker).is_empty());
    }
}

async fn crowd(tasks: usize) -> TaskTracker {
    let tracker = TaskTracker::new();
    for _ in 0..tasks {
        drop(tracker.spawn(waits()));
    }
    yield_now().await;
    tracker
}

fn live() -> CancellationToken {
    CancellationToken::new().child_token()
}

/// A child token, a timeout around the request, a value in an `Arc`.
pub async fn request_contexts<W: Work>(n: usize) {
    let requests = tokio::spawn(request_contexts_here::<W>(n));
    requests.await.expect("no task panics");
}

async fn request_contexts_here<W: Work>(n: usize) {
    let parent = CancellationToken::new();
    for id in 0..n {
        let token = parent.child_token();
        let value = Arc::new(id);
        let request = async {
            for _ in 0..10 {
                select! {
                    biased;
                    () = token.cancelled() => unreachable!("it is live"),
                    () = W::run(id) => {}
                }
            }
        };
        tokio::time::timeout(HOUR, request)
            .await
            .expect("it is not over");
        drop(black_box(value));
    }
}

pub async fn connections(n: usize) {
    let token = live();
    let connections: Vec<_> = (0..1_000)
        .map(|_| tokio::spawn(connection(token.clone(), n / 1_000)))
        .collect();
    for connection in connections {
        connection.await.expect("no task panics");
    }
}

async fn connection(token: CancellationToken, rounds: usize) {
    for _ in 0..rounds {
        select! {
            biased;
            () = token.cancelled() => return,
            () = yield_now() => {}
        }
    }
}

pub fn derive(threads: usize, n: usize) -> Duration {
    let parent = live();
    contend(threads, n, || drop(black_box(parent.child_token())))
}

pub fn derive_scoped(n: usize) -> Duration {
    let parent = live();
    contend(1, n, || {
        let token = parent.child_token();
        let _guard = token.clone().drop_guard();
        black_box(&token);
    })
}

pub fn is_done(threads: usize, n: usize) -> Duration {
    let token = live();
    contend(threads, n, || assert!(!token.is_cancelled()))
}

pub fn done(threads: usize, n: usize) -> Duration {
    let token = live();
    contend(threads, n, || poll_and_drop(token.cancelled()))
}

fn children(n: usize) -> (CancellationToken, Vec<CancellationToken>) {
    let parent = CancellationToken::new();
    let children = (0..n).map(|_| parent.child_token()).collect();
    (parent, children)
}

fn chain(n: usize) -> (CancellationToken, Vec<CancellationToken>) {
    let root = CancellationToken::new();
    let mut chain: Vec<CancellationToken> = Vec::with_capacity(n);
    for _ in 0..n {
        let next = chain.last().unwrap_or(&root).child_token();
        chain.push(next);
    }
    (root, chain)
}

pub fn end_children(n: usize) -> Duration {
    let (parent, _children) = children(n);
    timed(|| parent.cancel())
}

pub fn end_chain(n: usize) -> Duration {
    let (root, _chain) = chain(n);
    timed(|| root.cancel())
}

pub fn live_children(n: usize) {
    let (parent, children) = children(n);
    children.into_iter().for_each(forget);
    forget(parent);
}

pub fn live_chain(n: usize) {
    let (root, chain) = chain(n);
    chain.into_iter().for_each(forget);
    forget(root);
}

/// The least that a timer costs which somebody waits for.
pub async fn timeout(n: usize) {
    // Outside tokio's budget for a task: beyond that a poll would register nothing.
    unconstrained(async {
        for _ in 0..n {
            poll_and_drop(Box::pin(tokio::time::sleep(HOUR)));
        }
    })
    .await;
}

/// A task for each item, and a permit for each task.
pub async fn semaphore<W: Work>(n: usize) {
    let permits = Arc::new(Semaphore::new(64));
    for index in 0..n {
        let permit = permits
            .clone()
            .acquire_owned()
            .await
            .expect("it is not closed");
        drop(tokio::spawn(async move {
            let result = item_done::<W>(index).await;
            drop(permit);
            result
        }));
    }
    drop(permits.acquire_many(64).await);
}

pub async fn buffer_unordered<W: Work, const LIMIT: usize>(n: usize) {
    let items = stream::iter(0..n).map(item::<W>);
    let mut results = pin!(items.buffer_unordered(LIMIT));
    while results.try_next().await.expect("no item fails").is_some() {}
}

pub async fn buffer_unordered_below_a_deadline<W: Work>(n: usize) {
    let batch = buffer_unordered::<W, 64>(n);
    tokio::time::timeout(HOUR, batch)
        .await
        .expect("it is not over");
}

pub async fn buffered<W: Work>(n: usize) {
    let items = stream::iter(0..n).map(item::<W>);
    let mut results = pin!(items.buffered(64));
    while results.try_next().await.expect("no item fails").is_some() {}
}

pub async fn small_sets<W: Work, const ITEMS: usize>(n: usize) {
    for _ in 0..n {
        let mut set = JoinSet::new();
        for index in 0..ITEMS {
            set.spawn(item_done::<W>(index));
        }
        join(set).await.expect("no item fails");
    }
}
