//! Our own contender: every use of errgroup's interface in the rows that count, one function for each operation.

use std::mem::forget;

use errgroup::{BoxError, Context, ContextError, Group, GroupError};
use tokio::task::yield_now;

use crate::jobs::{self, Replies, Siblings};

/// An error type of a user's own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Context(#[from] ContextError),
}

fn limit(limit: usize) -> std::num::NonZeroUsize {
    limit.try_into().expect("not zero")
}

/// `n` groups below one parent, one after the other, each with `TASKS` tasks that wait once.
pub async fn requests<const TASKS: usize>(n: usize) {
    let (parent, _stop) = Context::background().with_cancel();
    for _ in 0..n {
        let mut group: Group = Group::with_context(&parent);
        for _ in 0..TASKS {
            drop(group.spawn(jobs::yields_once()));
        }
        group.wait().await.expect("no task fails");
    }
}

/// As `requests`, of tasks that wait for a reply.
pub async fn requests_with_replies<const TASKS: usize>(n: usize) {
    let (parent, _stop) = Context::background().with_cancel();
    for _ in 0..n {
        let mut group: Group = Group::with_context(&parent);
        let replies = Replies::<TASKS>::new(|reply| drop(group.spawn(jobs::waits_for(reply))));
        replies.send().await;
        group.wait().await.expect("no task fails");
    }
}

/// One group with `n` tasks that wait once.
pub async fn tasks(n: usize) {
    let (parent, _stop) = Context::background().with_cancel();
    let mut group: Group = Group::with_context(&parent);
    for _ in 0..n {
        drop(group.spawn(jobs::yields_once()));
    }
    group.wait().await.expect("no task fails");
}

/// One group with `n` tasks that end at once, spawned at one place.
pub async fn one_place(n: usize) {
    let mut group: Group = Group::new();
    for _ in 0..n {
        drop(group.spawn(async { Ok(()) }));
    }
    group.wait().await.expect("no task fails");
}

/// The same, spawned at five places in turn.
pub async fn five_places(n: usize) {
    let mut group: Group = Group::new();
    for _ in 0..n / 5 {
        drop(group.spawn(async { Ok(()) }));
        drop(group.spawn(async { Ok(()) }));
        drop(group.spawn(async { Ok(()) }));
        drop(group.spawn(async { Ok(()) }));
        drop(group.spawn(async { Ok(()) }));
    }
    group.wait().await.expect("no task fails");
}

/// Leaves `n` groups, each with five tasks that wait, from three places.
pub async fn live_groups(n: usize) {
    let (parent, stop) = Context::background().with_cancel();
    for _ in 0..n {
        let group: Group = Group::with_context(&parent);
        for _ in 0..2 {
            drop(group.spawn(jobs::waits()));
            drop(group.spawn(jobs::waits()));
        }
        drop(group.spawn(jobs::waits()));
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
            .spawn(jobs::yields_once())
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
            drop(group.spawn(jobs::waits_if(place == 31)));
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
    drop(group.spawn(async { Err::<(), _>(jobs::long_text().into()) }));
    group.wait().await.expect_err("one task fails");
}

async fn watchers<E: GroupError>(group: &Group<E>, n: usize) {
    let siblings = Siblings::new();
    for _ in 0..n {
        drop(group.spawn_with(|ctx| async move {
            Siblings::started();
            ctx.done().await;
            ctx.check()?;
            Ok(())
        }));
    }
    siblings.have_started(n).await;
}

/// `n` tasks at once, of which 64 run.
pub async fn queued(n: usize) {
    let mut group: Group = Group::builder().limit(limit(64)).build();
    for _ in 0..n {
        drop(group.spawn(async { Ok(()) }));
    }
    group.wait().await.expect("no task fails");
}

/// `n` tasks, each when there is room for it.
pub async fn slots<const LIMIT: usize>(n: usize) {
    let mut group: Group = Group::builder().limit(limit(LIMIT)).build();
    for _ in 0..n {
        drop(group.slot().await.spawn(async { Ok(()) }));
    }
    group.wait().await.expect("no task fails");
}
