//! Contexts: derive, ask, wait, end. No runtime, but for the timers.

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context as TaskContext, Waker};
use std::time::{Duration, Instant};

use errgroup::{CancelHandle, Context};
use tokio::task::coop::unconstrained;
use tokio_util::sync::CancellationToken;

use super::timed;

/// A long time off: no timer of these runs out.
const HOUR: Duration = Duration::from_secs(3600);

/// A live context below another, as a request's is below the server's.
pub fn live() -> (Context, [CancelHandle; 2]) {
    let (server, stop) = Context::background().with_cancel();
    let (request, cancel) = server.with_cancel();
    (request, [stop, cancel])
}

/// The same as a token.
pub fn live_token() -> CancellationToken {
    CancellationToken::new().child_token()
}

pub fn derive(n: usize) -> Duration {
    let (parent, _handles) = live();
    timed(|| {
        for _ in 0..n {
            let (ctx, handle) = parent.with_cancel();
            drop(black_box(ctx));
            drop(handle);
        }
    })
}

pub fn derive_token(n: usize) -> Duration {
    let parent = live_token();
    timed(|| {
        for _ in 0..n {
            drop(black_box(parent.child_token()));
        }
    })
}

/// The handle goes first and ends the context, as at the end of a scope.
pub fn derive_scoped(n: usize) -> Duration {
    let (parent, _handles) = live();
    timed(|| {
        for _ in 0..n {
            let (ctx, _handle) = parent.with_cancel();
            black_box(&ctx);
        }
    })
}

pub fn derive_scoped_token(n: usize) -> Duration {
    let parent = live_token();
    timed(|| {
        for _ in 0..n {
            let token = parent.child_token();
            let _guard = token.clone().drop_guard();
            black_box(&token);
        }
    })
}

pub fn is_done(n: usize) -> Duration {
    let (ctx, _handles) = live();
    timed(|| {
        for _ in 0..n {
            assert!(!ctx.is_done());
        }
    })
}

pub fn is_done_token(n: usize) -> Duration {
    let token = live_token();
    timed(|| {
        for _ in 0..n {
            assert!(!token.is_cancelled());
        }
    })
}

/// With a deadline, the clock is read.
pub async fn is_done_deadline(n: usize) -> Duration {
    let ctx = Context::background().with_timeout(HOUR);
    timed(|| {
        for _ in 0..n {
            assert!(!ctx.is_done());
        }
    })
}

/// The least that looking at a deadline costs.
pub async fn clock(n: usize) -> Duration {
    let deadline = Instant::now() + HOUR;
    timed(|| {
        for _ in 0..n {
            assert!(Instant::now() < deadline);
        }
    })
}

pub fn done(n: usize) -> Duration {
    let (ctx, _handles) = live();
    timed(|| (0..n).for_each(|_| poll_and_drop(ctx.done())))
}

pub fn done_token(n: usize) -> Duration {
    let token = live_token();
    timed(|| (0..n).for_each(|_| poll_and_drop(token.cancelled())))
}

/// The first poll registers, the drop unregisters.
pub fn poll_and_drop(future: impl Future) {
    let mut cx = TaskContext::from_waker(Waker::noop());
    assert!(pin!(future).poll(&mut cx).is_pending());
}

/// A parent with `n` children, all of them held.
pub fn children(n: usize) -> (CancelHandle, Vec<(Context, CancelHandle)>) {
    let (parent, handle) = Context::background().with_cancel();
    (handle, (0..n).map(|_| parent.with_cancel()).collect())
}

pub fn children_tokens(n: usize) -> (CancellationToken, Vec<CancellationToken>) {
    let parent = CancellationToken::new();
    let children = (0..n).map(|_| parent.child_token()).collect();
    (parent, children)
}

/// A root and `n` contexts, each below the one before, all of them held.
pub fn chain(n: usize) -> (CancelHandle, Vec<(Context, CancelHandle)>) {
    let (mut last, handle) = Context::background().with_cancel();
    let mut chain = Vec::with_capacity(n);
    for _ in 0..n {
        let next = last.with_cancel();
        last = next.0.clone();
        chain.push(next);
    }
    (handle, chain)
}

pub fn chain_tokens(n: usize) -> (CancellationToken, Vec<CancellationToken>) {
    let root = CancellationToken::new();
    let mut chain: Vec<CancellationToken> = Vec::with_capacity(n);
    for _ in 0..n {
        let next = chain.last().unwrap_or(&root).child_token();
        chain.push(next);
    }
    (root, chain)
}

/// What lies inside the measured part of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The call that ends; the contexts are dropped afterwards.
    End,
    /// The call and the drop of all contexts.
    EndAndDrop,
    /// Deriving all, the call, the drop.
    Whole,
}

/// Measures `part` of the life of what `derive` makes.
fn ended<H, T>(part: Part, derive: impl FnOnce() -> (H, T), end: impl FnOnce(&H)) -> Duration {
    let derived_from = Instant::now();
    let (handle, contexts) = derive();
    let ended_from = Instant::now();
    end(&handle);
    let end = ended_from.elapsed();
    drop((contexts, handle));
    match part {
        Part::End => end,
        Part::EndAndDrop => ended_from.elapsed(),
        Part::Whole => derived_from.elapsed(),
    }
}

pub fn end_children(n: usize, part: Part) -> Duration {
    ended(part, || children(n), CancelHandle::cancel)
}

pub fn end_children_tokens(n: usize, part: Part) -> Duration {
    ended(part, || children_tokens(n), CancellationToken::cancel)
}

pub fn end_chain(n: usize, part: Part) -> Duration {
    ended(part, || chain(n), CancelHandle::cancel)
}

pub fn end_chain_tokens(n: usize, part: Part) -> Duration {
    ended(part, || chain_tokens(n), CancellationToken::cancel)
}

pub async fn timeout(n: usize) -> Duration {
    let (parent, _handles) = live();
    timed(|| {
        for _ in 0..n {
            drop(black_box(parent.with_timeout(HOUR)));
        }
    })
}

/// A timeout that somebody waits for, as a request does.
pub async fn timeout_waited(n: usize) -> Duration {
    let (parent, _handles) = live();
    timed(|| (0..n).for_each(|_| poll_and_drop(parent.with_timeout(HOUR).done())))
}

/// The least that a timer costs which somebody waits for.
pub async fn timeout_sleep(n: usize) -> Duration {
    // Outside tokio's budget for a task: beyond that a poll would register nothing.
    unconstrained(async {
        timed(|| (0..n).for_each(|_| poll_and_drop(Box::pin(tokio::time::sleep(HOUR)))))
    })
    .await
}
