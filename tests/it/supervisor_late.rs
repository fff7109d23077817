//! What a supervisor hears late: several things at one poll, or a stop when its time is over.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use errgroup::{
    BoxError, Child, ChildState, Context, Ready, Reason, Supervisor, SupervisorEvent,
    SupervisorEventKind,
};
use tokio::time::Instant;

use crate::supervisor_support::{Ran, Stage, builder, idle, paused};
use crate::support::{Counter, Log, advance, poll};

const SEC: Duration = Duration::from_secs(1);

/// A supervisor's run, polled by hand: it hears of what has happened when the test says so.
type Run = Pin<Box<dyn Future<Output = Ran> + Send>>;

/// A child that works until its context ends, and logs when it was told to stop, and when it ended.
fn drains(log: &Log<(&'static str, u64)>, name: &'static str) -> Child {
    let (log, start) = (log.clone(), Instant::now());
    let child = Child::<BoxError>::new(name, move |ctx: Context| {
        let log = log.clone();
        async move {
            ctx.stopping_done().await;
            log.push((name, start.elapsed().as_secs()));
            assert_eq!(ctx.done().await.reason(), Reason::Stopped);
            log.push((name, start.elapsed().as_secs()));
            Ok(())
        }
    });
    child.drain(60 * SEC)
}

#[test]
fn s5_drain_is_over_before_the_inner_supervisor_is_told_then_its_children_have_none() {
    paused(async {
        let log = Log::new();
        let said = log.clone();
        let inner = Child::supervisor("inner", move |_ctx| {
            let supervisor = Supervisor::<BoxError>::builder().build();
            supervisor.child(drains(&said, "x"))
        });
        let (ctx, stop) = Context::background().with_stop();
        let supervisor = builder().context(&ctx).build().child(inner);
        let run = tokio::spawn(supervisor.child(drains(&log, "b")).run());
        idle().await;
        stop.stop(10 * SEC);
        run.await.unwrap().unwrap();
        assert_eq!(log.take(), [("b", 0), ("b", 10), ("x", 10), ("x", 10)]);
    });
}

#[test]
fn s5_stop_and_the_end_of_its_drain_at_one_poll_then_no_drain() {
    paused(async {
        let log = Log::new();
        let (ctx, stop) = Context::background().with_stop();
        let supervisor = builder().context(&ctx).build().child(drains(&log, "a"));
        let mut run: Run = Box::pin(supervisor.run());
        let waker = Counter::new();
        assert!(poll(&mut run, &waker).is_pending());
        idle().await;
        stop.stop(10 * SEC);
        advance(11 * SEC).await;
        idle().await;
        assert!(poll(&mut run, &waker).is_pending());
        run.await.unwrap();
        assert_eq!(log.take(), [("a", 11), ("a", 11)]);
    });
}

#[test]
fn s5_context_is_cancelled_then_drains_are_kept() {
    paused(async {
        let log = Log::new();
        let (ctx, cancel) = Context::background().with_cancel();
        let supervisor = builder().context(&ctx).build().child(drains(&log, "a"));
        let run = tokio::spawn(supervisor.run());
        idle().await;
        cancel.cancel();
        run.await.unwrap().unwrap();
        assert_eq!(log.take(), [("a", 0), ("a", 60)]);
    });
}

#[test]
fn s5_child_ends_within_its_grace_and_the_supervisor_hears_of_it_after_then_it_is_no_straggler() {
    paused(async {
        let events = Log::new();
        let told = events.clone();
        let builder = builder().on_event(move |event: &SupervisorEvent| {
            told.push(event.kind().clone());
        });
        let (ctx, cancel) = Context::background().with_cancel();
        let stage = Stage::new();
        let supervisor = builder.context(&ctx).build();
        let handle = supervisor.handle();
        let child = stage.child("a").grace(5 * SEC);
        let mut run: Run = Box::pin(supervisor.child(child).run());
        let waker = Counter::new();
        assert!(poll(&mut run, &waker).is_pending());
        idle().await;
        cancel.cancel();
        assert!(poll(&mut run, &waker).is_pending());
        idle().await;
        assert_eq!(stage.took(), ["+a", "-a"]);
        advance(6 * SEC).await;
        run.await.unwrap();
        assert!(handle.stragglers().is_empty());
        assert!(!events.take().contains(&SupervisorEventKind::Aborting));
    });
}

#[test]
fn s1_ready_in_time_and_the_supervisor_hears_of_it_after_then_it_is_ready() {
    paused(async {
        let child = Child::<BoxError>::with_ready("a", async |ctx: Context, ready: Ready| {
            ready.notify();
            ctx.done().await;
            Ok(())
        });
        let (ctx, cancel) = Context::background().with_cancel();
        let supervisor = builder().context(&ctx).build();
        let handle = supervisor.handle();
        let mut run: Run = Box::pin(supervisor.child(child.ready_within(SEC)).run());
        let waker = Counter::new();
        assert!(poll(&mut run, &waker).is_pending());
        idle().await;
        advance(2 * SEC).await;
        assert!(poll(&mut run, &waker).is_pending());
        assert_eq!(handle.child("a").unwrap().state, ChildState::Ready);
        cancel.cancel();
        run.await.unwrap();
    });
}
