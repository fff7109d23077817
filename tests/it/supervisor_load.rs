//! A child that fails again and again: others run in between, nothing grows, and who waits is not polled.
//!
//! That no byte is kept is counted in `alloc_supervisor`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use errgroup::{BoxError, Child, Context, Ready, Supervisor};

use crate::supervisor_support::{Stage, builder, idle, paused};
use crate::support::{advance, child};

const SEC: Duration = Duration::from_secs(1);

/// Counts how often the future is polled.
struct Counted<F> {
    future: Pin<Box<F>>,
    polls: Arc<AtomicUsize>,
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<F::Output> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        self.future.as_mut().poll(cx)
    }
}

/// A child that fails so often, each time at once.
fn fails(times: usize, count: &Arc<AtomicUsize>) -> Child {
    let count = count.clone();
    Child::<BoxError>::new("fails", move |ctx| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        async move {
            if n < times {
                return Err("at once".into());
            }
            ctx.done().await;
            Ok(())
        }
    })
}

#[test]
fn fails_at_once_a_million_times_then_others_run_in_between_and_nothing_grows() {
    // Without optimisation a million take half a minute.
    const TIMES: usize = if cfg!(debug_assertions) {
        20_000
    } else {
        1_000_000
    };
    paused(async {
        let count = Arc::new(AtomicUsize::new(0));
        let (ctx, cancel) = child(&Context::background()).with_cancel();
        let supervisor = Supervisor::builder()
            .context(&ctx)
            .intensity(usize::MAX, SEC)
            .build()
            .child(fails(TIMES, &count));
        let handle = supervisor.handle();
        let polls = Arc::new(AtomicUsize::new(0));
        let run = tokio::spawn(Counted {
            future: Box::pin(supervisor.run()),
            polls: polls.clone(),
        });
        let (mut turns, mut most) = (0, 0);
        while count.load(Ordering::Relaxed) <= TIMES {
            tokio::task::yield_now().await;
            turns += 1;
            if turns % 100 == 0 {
                most = most.max(ctx.tree().items().len());
            }
        }
        assert!(turns > TIMES / 100, "only {turns} turns for others");
        let polled = polls.load(Ordering::Relaxed);
        assert!(polled <= TIMES + 10, "{polled} polls for {TIMES} restarts");
        // The context, the supervisor's group, the task, its context.
        assert!(most <= 4, "{most} things in the tree at once");
        idle().await;
        let status = handle.child("fails").unwrap();
        assert_eq!((status.restarts, status.failures.len()), (TIMES as u64, 4));
        cancel.cancel();
        run.await.unwrap().unwrap();
    });
}

/// How often a supervisor is polled while a minute passes in which nothing is due.
async fn polls_in_a_minute(children: Vec<Child>) -> usize {
    let (ctx, cancel) = child(&Context::background()).with_cancel();
    let supervisor = builder().context(&ctx).build();
    let supervisor = children.into_iter().fold(supervisor, Supervisor::child);
    let polls = Arc::new(AtomicUsize::new(0));
    let run = tokio::spawn(Counted {
        future: Box::pin(supervisor.run()),
        polls: polls.clone(),
    });
    idle().await;
    let before = polls.load(Ordering::Relaxed);
    for _ in 0..60 {
        advance(SEC).await;
        idle().await;
    }
    let polled = polls.load(Ordering::Relaxed) - before;
    cancel.cancel();
    run.await.unwrap().unwrap();
    polled
}

#[test]
fn nothing_is_due_then_the_supervisor_is_not_polled() {
    paused(async {
        let stage = Stage::new();
        let never = Arc::new(AtomicUsize::new(0));
        let backs_off = fails(usize::MAX, &never).backoff([3600 * SEC]);
        let unready = Child::with_ready("late", async |ctx: Context, ready: Ready| {
            ctx.done().await;
            drop(ready);
            Ok(())
        });
        let children = vec![
            backs_off,
            stage.child("runs"),
            unready.ready_within(3600 * SEC),
        ];
        assert_eq!(polls_in_a_minute(children).await, 0);
    });
}
