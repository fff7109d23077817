//! What the feature `testing` offers to tests.

use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

use errgroup::testing::{Watchdog, assert_no_leaks};
use errgroup::{BoxError, Context, Group};
use tokio::task::yield_now;

type Unit = Result<(), BoxError>;

/// More than any of these tests takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn task_left_behind_then_the_assertion_fails_with_the_tree() {
    let _watchdog = Watchdog::new(PATIENCE);
    let (ctx, cancel) = Context::background().with_cancel();
    let (beside, _other) = Context::background().with_cancel();
    let group: Group = Group::builder().context(&ctx).name("leaky").build();
    assert_no_leaks(&ctx);
    group
        .task("left")
        .spawn_with(async |_| pending::<Unit>().await);
    yield_now().await;
    for end in [false, true] {
        if end {
            cancel.cancel();
        }
        let panic = catch_unwind(AssertUnwindSafe(|| assert_no_leaks(&ctx))).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(
            text.contains("1 tasks and 0 items were left behind"),
            "{text}"
        );
        assert!(
            text.contains("group \"leaky\"") && text.contains("task \"left\""),
            "{text}"
        );
    }
    // A test beside this one does not see it.
    assert_no_leaks(&beside);
    assert!(group.stop().grace(Duration::ZERO).await.stragglers[0].was_aborted);
    assert_no_leaks(&ctx);
}

#[tokio::test(start_paused = true)]
async fn test_takes_too_long_then_the_watchdog_dumps_the_tree() {
    let _alone = crate::snapshot::alone().await;
    let group: Group = Group::builder().name("watched over").build();
    group.task("hangs").spawn(pending::<Unit>());
    yield_now().await;
    let (tell, told) = mpsc::channel();
    let _watchdog = Watchdog::with(Duration::ZERO, move |tree| {
        tell.send(tree.to_string()).unwrap();
        panic!("contained");
    });
    let tree = told.recv_timeout(PATIENCE).unwrap();
    assert!(
        tree.contains("group \"watched over\"") && tree.contains("task \"hangs\""),
        "{tree}"
    );
}

#[test]
fn test_ends_in_time_then_the_watchdog_says_nothing() {
    let (tell, told) = mpsc::channel::<()>();
    drop(Watchdog::with(PATIENCE, move |_| tell.send(()).unwrap()));
    // Its thread drops what it was given.
    assert_eq!(
        told.recv_timeout(PATIENCE),
        Err(mpsc::RecvTimeoutError::Disconnected)
    );
}
