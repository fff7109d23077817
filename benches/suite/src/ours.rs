//! Our own contender: every use of errgroup's interface, one function for each operation.
//!
//! Each does its operation `n` times. Those that say "leaves" leave what they make, to be weighed. What sets up and tears
//! down is part of what is measured, unless a function returns how long the measured part took.

use std::hint::black_box;
use std::mem::forget;
use std::pin::pin;
use std::thread;
use std::time::{Duration, Instant};

use errgroup::{BoxError, CancelHandle, Context, ContextError, Group, GroupError};
use futures::TryStreamExt;
use tokio::select;
use tokio::task::yield_now;

use crate::jobs::{
    AtOnce, HOUR, Replies, Siblings, Work, Yields, item, item_done, job, long_text, poll_and_drop,
    sibling, timed, waits, waits_for, waits_if,
};
use crate::text;
use crate::threads::contend;

/// An error type of a user's own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Context(#[from] ContextError),
}

/// `n` groups below one parent, one after the other, each with `TASKS` tasks that wait once.
pub async fn requests<const TASKS: usize>(n: usize) {
    let (parent, _stop) = Context::background().with_cancel();
    for _ in 0..n {
        let mut group: Group = Group::with_context(&parent);
        for _ in 0..TASKS {
            group.spawn(job::<Yields<1>>());
        }
        group.wait().await.expect("no task fails");
    }
}

/// As `requests`, of tasks that wait for a reply.
pub async fn requests_with_replies<const TASKS: usize>(n: usize) {
    let (parent, _stop) = Context::background().with_cancel();
    for _ in 0..n {
        let mut group: Group = Group::with_context(&parent);
        let replies = Replies::<TASKS>::new(|reply| {
            group.spawn(waits_for(reply));
        });
        replies.send().await;
        group.wait().await.expect("no task fails");
    }
}

/// One group with `n` tasks.
pub async fn tasks<W: Work>(n: usize) {
    let mut group: Group = Group::new();
    for _ in 0..n {
        group.spawn(job::<W>());
    }
    group.wait().await.expect("no task fails");
}

/// One scope of `n` tasks.
pub async fn scope(n: usize) {
    let scoped = errgroup::scope(&Context::background(), async |scope: errgroup::Scope| {
        for _ in 0..n {
            scope.spawn(job::<Yields<1>>());
        }
        Ok(())
    });
    scoped.await.expect("no task fails");
}

/// `n` tasks from five places in turn.
pub async fn five_places(n: usize) {
    let mut group: Group = Group::new();
    for _ in 0..n / 5 {
        group.spawn(job::<AtOnce>());
        group.spawn(job::<AtOnce>());
        group.spawn(job::<AtOnce>());
        group.spawn(job::<AtOnce>());
        group.spawn(job::<AtOnce>());
    }
    group.wait().await.expect("no task fails");
}

/// Leaves `n` groups, each with five tasks that wait, from three places.
pub async fn live_groups(n: usize) {
    let (parent, stop) = Context::background().with_cancel();
    for _ in 0..n {
        let group: Group = Group::with_context(&parent);
        for _ in 0..2 {
            group.spawn(waits());
            group.spawn(waits());
        }
        group.spawn(waits());
        yield_now().await;
        forget(group);
    }
    stop.detach();
}

/// Leaves `n` groups without tasks.
pub async fn idle_groups(n: usize) {
    let (parent, stop) = Context::background().with_cancel();
    for _ in 0..n {
        forget(Group::<BoxError>::with_context(&parent));
    }
    stop.detach();
}

/// Leaves `n` groups whose only task has ended.
pub async fn used_groups(n: usize) {
    let (parent, stop) = Context::background().with_cancel();
    for _ in 0..n {
        let group: Group = Group::with_context(&parent);
        group
            .spawn(job::<Yields<1>>())
            .await
            .expect("it does not fail");
        forget(group);
    }
    stop.detach();
}

/// Leaves one group with `n` tasks, each the last one of the 63 that were spawned together.
pub async fn survivors(n: usize) {
    let group: Group = Group::new();
    for staying in 1..=n {
        for place in 0..63 {
            group.spawn(waits_if(place == 31));
        }
        while group.len() > staying {
            yield_now().await;
        }
    }
    forget(group);
}

/// `n` tasks that watch their context pass its end on.
pub async fn cooperative<E: GroupError>(n: usize) {
    let mut group: Group<E> = Group::new();
    watchers(&group, n).await;
    group.cancel();
    group
        .wait()
        .await
        .ok()
        .expect("a stop on purpose is no error");
}

/// `n` tasks that watch their context pass on its end, for which a task with an error of 10 KiB is to blame.
pub async fn long_error(n: usize) {
    let mut group: Group = Group::new();
    watchers(&group, n).await;
    group.spawn(async { Err::<(), _>(long_text().into()) });
    group.wait().await.expect_err("one task fails");
}

async fn watchers<E: GroupError>(group: &Group<E>, n: usize) {
    let siblings = Siblings::new();
    for _ in 0..n {
        group.spawn_with(|ctx| async move {
            Siblings::started();
            ctx.done().await;
            ctx.check()?;
            Ok(())
        });
    }
    siblings.have_started(n).await;
}

/// `n` tasks at once, of which 64 run.
pub async fn queued(n: usize) {
    let mut group: Group = Group::builder().limit(64).build();
    for _ in 0..n {
        group.spawn(job::<AtOnce>());
    }
    group.wait().await.expect("no task fails");
}

/// `n` tasks, each when there is room for it.
pub async fn slots<const LIMIT: usize>(n: usize) {
    let mut group: Group = Group::builder().limit(LIMIT).build();
    for _ in 0..n {
        let slot = group.slot().await.expect("the context is live");
        slot.spawn(job::<AtOnce>());
    }
    group.wait().await.expect("no task fails");
}

/// One task fails beside `n` that wait: how long until the last one is gone.
pub async fn first_error(n: usize) -> Duration {
    let mut group: Group = Group::new();
    let siblings = Siblings::new();
    for _ in 0..n {
        group.spawn(sibling());
    }
    siblings.have_started(n).await;
    let start = Instant::now();
    group.spawn(async { Err::<(), _>("failed".into()) });
    group.wait().await.expect_err("one task fails");
    drop(group);
    start.elapsed()
}

/// Asks a group of `TASKS` tasks `n` times how many they are.
pub async fn len<const TASKS: usize>(n: usize) {
    let group = crowd(TASKS).await;
    for _ in 0..n {
        assert_eq!(black_box(&group).len(), TASKS);
    }
}

pub async fn is_empty<const TASKS: usize>(n: usize) {
    let group = crowd(TASKS).await;
    for _ in 0..n {
        assert!(!black_box(&group).is_empty());
    }
}

async fn crowd(tasks: usize) -> Group {
    let group = Group::new();
    for _ in 0..tasks {
        group.spawn(waits());
    }
    yield_now().await;
    group
}

/// A live context below another, as a request's is below the server's.
fn live() -> (Context, [CancelHandle; 2]) {
    let (server, stop) = Context::background().with_cancel();
    let (request, cancel) = server.with_cancel();
    (request, [stop, cancel])
}

/// What a request has beside its tasks: a right to cancel it, a deadline, a value; ten times it waits for something else.
/// Requests are tasks.
pub async fn request_contexts<W: Work>(n: usize) {
    let requests = tokio::spawn(request_contexts_here::<W>(n));
    requests.await.expect("no task panics");
}

async fn request_contexts_here<W: Work>(n: usize) {
    let (parent, _stop) = Context::background().with_cancel();
    for id in 0..n {
        let (ctx, _cancel) = parent.with_cancel();
        let ctx = ctx.with_timeout(HOUR).with_value(id);
        for _ in 0..10 {
            select! {
                biased;
                _ = ctx.done() => unreachable!("it is live"),
                () = W::run(id) => {}
            }
        }
    }
}

/// `n` rounds of a thousand connections that all watch one context.
pub async fn connections(n: usize) {
    let (ctx, _handles) = live();
    let connections: Vec<_> = (0..1_000)
        .map(|_| tokio::spawn(connection(ctx.clone(), n / 1_000)))
        .collect();
    for connection in connections {
        connection.await.expect("no task panics");
    }
}

async fn connection(ctx: Context, rounds: usize) {
    for _ in 0..rounds {
        select! {
            biased;
            _ = ctx.done() => return,
            () = yield_now() => {}
        }
    }
}

pub fn derive(threads: usize, n: usize) -> Duration {
    let (parent, _handles) = live();
    contend(threads, n, || drop(black_box(parent.with_cancel())))
}

/// The handle goes first and ends the context, as at the end of a scope.
pub fn derive_scoped(n: usize) -> Duration {
    let (parent, _handles) = live();
    contend(1, n, || {
        let (ctx, _handle) = parent.with_cancel();
        black_box(&ctx);
    })
}

pub fn is_done(threads: usize, n: usize) -> Duration {
    let (ctx, _handles) = live();
    contend(threads, n, || assert!(!ctx.is_done()))
}

/// The first poll registers, the drop unregisters.
pub fn done(threads: usize, n: usize) -> Duration {
    let (ctx, _handles) = live();
    contend(threads, n, || poll_and_drop(ctx.done()))
}

/// A parent with `n` children, all of them held.
fn children(n: usize) -> (CancelHandle, Vec<(Context, CancelHandle)>) {
    let (parent, handle) = Context::background().with_cancel();
    (handle, (0..n).map(|_| parent.with_cancel()).collect())
}

/// A root and `n` contexts, each below the one before, all of them held.
fn chain(n: usize) -> (CancelHandle, Vec<(Context, CancelHandle)>) {
    let (mut last, handle) = Context::background().with_cancel();
    let mut chain = Vec::with_capacity(n);
    for _ in 0..n {
        let next = last.with_cancel();
        last = next.0.clone();
        chain.push(next);
    }
    (handle, chain)
}

pub fn end_children(n: usize) -> Duration {
    let (handle, _children) = children(n);
    timed(|| handle.cancel())
}

pub fn end_chain(n: usize) -> Duration {
    let (handle, _chain) = chain(n);
    timed(|| handle.cancel())
}

/// Leaves a parent with `n` children.
pub fn live_children(n: usize) {
    let (handle, children) = children(n);
    children.into_iter().for_each(forget);
    handle.detach();
}

/// Leaves a chain of `n` contexts.
pub fn live_chain(n: usize) {
    let (handle, chain) = chain(n);
    chain.into_iter().for_each(forget);
    handle.detach();
}

pub async fn timeout(n: usize) {
    let (parent, _handles) = live();
    for _ in 0..n {
        drop(black_box(parent.with_timeout(HOUR)));
    }
}

/// A timeout that somebody waits for.
pub async fn timeout_waited(n: usize) {
    let (parent, _handles) = live();
    for _ in 0..n {
        poll_and_drop(parent.with_timeout(HOUR).done());
    }
}

pub async fn batch<W: Work, const LIMIT: usize>(n: usize) {
    let batch = errgroup::batch(0..n, LIMIT);
    batch
        .for_each(|_ctx, index| item_done::<W>(index))
        .await
        .expect("no item fails");
}

pub async fn batch_below_a_deadline<W: Work>(n: usize) {
    let ctx = Context::background().with_timeout(HOUR);
    let batch = errgroup::batch(0..n, 64).context(&ctx);
    batch
        .for_each(|_ctx, index| item_done::<W>(index))
        .await
        .expect("no item fails");
}

/// `n` batches of `ITEMS` items each.
pub async fn small_batches<W: Work, const ITEMS: usize, const LIMIT: usize>(n: usize) {
    for _ in 0..n {
        batch::<W, LIMIT>(ITEMS).await;
    }
}

pub async fn batch_stream<W: Work>(n: usize) {
    let batch = errgroup::batch(0..n, 64);
    let mut results = pin!(batch.map_stream(|_ctx, index| item::<W>(index)));
    while results.try_next().await.expect("no item fails").is_some() {}
}

/// A spawn that is distinct for each `N`.
pub fn distinct<const N: usize>(group: &Group) {
    group.spawn(text::job::<N>());
}

/// Takes a snapshot of a group with `n` tasks, which run meanwhile: how long the snapshot took.
pub async fn dump_while_running(n: usize) -> Duration {
    let mut group: Group = Group::new();
    for _ in 0..n {
        group.spawn(spins());
    }
    // So that the tasks run, each of them.
    for _ in 0..2 {
        group
            .spawn(job::<Yields<1>>())
            .await
            .expect("it does not fail");
    }
    let start = Instant::now();
    let snapshot = group.snapshot();
    let took = start.elapsed();
    assert_eq!(snapshot.tasks().count(), n);
    group.cancel();
    group.wait().await.expect("it was cancelled");
    took
}

/// Wakes itself for ever.
async fn spins() -> Result<(), BoxError> {
    loop {
        yield_now().await;
    }
}

/// As `tasks`, while another thread takes one snapshot of the group after the other. The time until the group has gone: what
/// that thread has under way then is nobody's to wait for.
pub async fn tasks_beside_snapshots<W: Work>(n: usize) -> Duration {
    let start = Instant::now();
    let mut group: Group = Group::new();
    let spawner = group.spawner();
    let watcher = thread::spawn(move || {
        while !spawner.context().is_done() {
            black_box(spawner.snapshot());
        }
    });
    for _ in 0..n {
        group.spawn(job::<W>());
    }
    group.wait().await.expect("no task fails");
    drop(group);
    let took = start.elapsed();
    watcher.join().expect("it does not panic");
    took
}
