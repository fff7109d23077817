//! Ends that come from elsewhere: `with_cancel_on`.

use std::future::{pending, ready};
use std::sync::Arc;

use errgroup::Reason;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::support::{
    Carrier, Log, OnDrop, advance, background, cause, end_of, ms, panic_text, reason,
};

/// A future that never completes, and the count of those who hold it.
fn held() -> (Arc<()>, impl Future<Output = ()> + Send + 'static) {
    let held = Arc::new(());
    let inside = held.clone();
    (held, async move {
        pending::<()>().await;
        drop(inside);
    })
}

#[tokio::test(start_paused = true)]
async fn foreign_token_cancelled_ends_the_context() {
    let token = CancellationToken::new();
    let ctx = background().with_cancel_on(token.clone().cancelled_owned());
    let (below, _handle) = ctx.with_cancel();
    tokio::task::yield_now().await;
    assert!(!ctx.is_done());
    token.cancel();
    assert_eq!(end_of(&below).await.reason(), Reason::Cancelled);
    assert!(cause(&ctx).is_none());
}

#[tokio::test(start_paused = true)]
async fn foreign_future_completed_gives_its_output_as_the_cause() {
    let (tell, told) = oneshot::channel::<&str>();
    let ctx = background().with_cancel_on_cause(async move { told.await.unwrap() });
    tell.send("told").unwrap();
    end_of(&ctx).await;
    assert_eq!(cause(&ctx).as_deref(), Some("told"));
    assert_eq!(reason(&ctx), Some(Reason::Cancelled));
}

#[tokio::test(start_paused = true)]
async fn foreign_future_completed_leaves_the_parent_live() {
    let (parent, _handle) = background().with_cancel();
    end_of(&parent.with_cancel_on(ready(()))).await;
    assert!(!parent.is_done());
}

#[tokio::test(start_paused = true)]
async fn context_dropped_drops_the_foreign_future() {
    let (held, future) = held();
    let ctx = background().with_cancel_on(future);
    tokio::task::yield_now().await;
    assert_eq!(Arc::strong_count(&held), 2);
    drop(ctx);
    tokio::task::yield_now().await;
    assert_eq!(Arc::strong_count(&held), 1);
}

#[tokio::test(start_paused = true)]
async fn parent_ended_ends_the_context_and_drops_the_foreign_future() {
    let (parent, handle) = background().with_cancel();
    let (held, future) = held();
    let ctx = parent.with_cancel_on(future);
    tokio::task::yield_now().await;
    handle.cancel_with("parent's");
    assert_eq!(cause(&ctx).as_deref(), Some("parent's"));
    tokio::task::yield_now().await;
    assert_eq!(Arc::strong_count(&held), 1);
}

#[tokio::test(start_paused = true)]
async fn derived_from_an_ended_parent_drops_the_foreign_future() {
    let (parent, handle) = background().with_cancel();
    handle.cancel();
    let (held, future) = held();
    let ctx = parent.with_cancel_on(future);
    assert!(ctx.is_done());
    tokio::task::yield_now().await;
    assert_eq!(Arc::strong_count(&held), 1);
}

#[tokio::test(start_paused = true)]
async fn parent_ended_then_foreign_future_completed_changes_nothing() {
    let (tell, told) = oneshot::channel::<&str>();
    let (parent, handle) = background().with_cancel();
    let ctx = parent.with_cancel_on_cause(async move { told.await.unwrap_or("closed") });
    handle.cancel_with("parent's");
    let _ = tell.send("told");
    tokio::task::yield_now().await;
    assert_eq!(cause(&ctx).as_deref(), Some("parent's"));
}

#[tokio::test(start_paused = true)]
async fn foreign_future_completed_after_an_earlier_deadline_changes_nothing() {
    let ctx = background()
        .with_timeout(ms(10))
        .with_cancel_on(tokio::time::sleep(ms(20)));
    advance(ms(30)).await;
    assert_eq!(reason(&ctx), Some(Reason::DeadlineExceeded));
}

#[tokio::test(start_paused = true)]
async fn foreign_future_panics_and_ends_the_context() {
    let (tell, told) = oneshot::channel::<()>();
    let ctx = background().with_cancel_on(async move {
        told.await.unwrap();
        panic!("boom");
    });
    tell.send(()).unwrap();
    assert!(end_of(&ctx).await.to_string().contains("boom"));
}

#[test]
fn runtime_shut_down_drops_the_foreign_future_and_ends_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (held, future) = held();
    let ctx = {
        let _in = runtime.enter();
        background().with_cancel_on(future)
    };
    runtime.block_on(tokio::task::yield_now());
    drop(runtime);
    assert_eq!(Arc::strong_count(&held), 1);
    assert!(!ctx.is_done());
}

#[test]
fn outside_a_runtime_panics_and_says_so() {
    let plain = panic_text(|| background().with_cancel_on(ready(())));
    let with_cause = panic_text(|| background().with_cancel_on_cause(ready("cause")));
    for text in [plain, with_cause] {
        assert!(
            text.contains("with_cancel_on runs its future on a tokio runtime"),
            "{text}"
        );
        assert!(
            text.contains("Handle::enter"),
            "what to do about it: {text}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn cause_of_a_foreign_future_is_dropped_with_the_context() {
    let log = Log::new();
    let carrier = Carrier(OnDrop({
        let log = log.clone();
        move || log.push("dropped")
    }));
    let ctx = background().with_cancel_on_cause(ready(carrier));
    end_of(&ctx).await;
    tokio::task::yield_now().await;
    assert_eq!(log.take(), [""; 0]);
    drop(ctx);
    assert_eq!(log.take(), ["dropped"]);
}
