//! What scopes cost in memory: three allocations for each task (its future, its turn, its handle's cell), and nothing left
//! behind while the scope lives.
//!
//! A test binary of its own, since a program has one global allocator. It counts for each thread apart.

#[path = "support/counting.rs"]
mod counting;

use std::future::poll_fn;
use std::task::Poll;

use errgroup::{BoxError, Context, Scope, scope};
use futures::executor::block_on;

use counting::{ALLOCATIONS, LIVE_BYTES, PEAK_BYTES};

async fn turn() {
    let mut has_yielded = false;
    poll_fn(|cx| match std::mem::replace(&mut has_yielded, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

/// Runs so many tasks, each with a kibibyte, until all have ended.
async fn burst(scope: &Scope<'_>, tasks: usize) {
    let tasks: Vec<_> = (0..tasks)
        .map(|n| {
            let data = [n as u8; 1024];
            scope.spawn(async move {
                turn().await;
                Ok(data[n % 1024])
            })
        })
        .collect();
    for (n, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap(), n as u8);
    }
}

#[test]
fn tasks_have_ended_then_their_memory_is_given_back_while_the_scope_lives() {
    let result: Result<(), BoxError> =
        block_on(scope(&Context::background(), async |scope: Scope| {
            burst(&scope, 100).await;
            let before = LIVE_BYTES.get();
            PEAK_BYTES.set(before);
            burst(&scope, 10_000).await;
            assert!(PEAK_BYTES.get() - before > 10_000 * 1024);
            let left = LIVE_BYTES.get() - before;
            assert!(left < 16 * 1024, "{left}");
            Ok(())
        }));
    result.unwrap();
}

#[test]
fn server_spawns_for_years_then_the_scope_does_not_grow() {
    let result: Result<(), BoxError> =
        block_on(scope(&Context::background(), async |scope: Scope| {
            burst(&scope, 10).await;
            let before = LIVE_BYTES.get();
            for _ in 0..1_000 {
                burst(&scope, 10).await;
                let handle = scope.spawn(async { Ok(()) }).abort_handle();
                while !handle.is_finished() {
                    turn().await;
                }
            }
            let left = LIVE_BYTES.get() - before;
            assert!(left < 4 * 1024, "{left}");
            Ok(())
        }));
    result.unwrap();
}

#[test]
fn scope_has_returned_then_nothing_is_left() {
    let round = || {
        let body = async |scope: Scope| {
            let inner = scope.clone();
            scope.spawn(async move {
                // A handle of the scope in a task of the scope is no ring.
                inner.spawn(std::future::pending::<Result<(), BoxError>>());
                Err::<(), _>("bad".into())
            });
            Ok(())
        };
        let result: Result<(), BoxError> = block_on(scope(&Context::background(), body));
        assert!(result.is_err());
    };
    // What the thread needs once.
    round();
    let before = LIVE_BYTES.get();
    round();
    assert_eq!(LIVE_BYTES.get(), before);
}

#[test]
fn task_is_three_allocations() {
    const N: usize = 1_000;
    let mut made = 0;
    let result: Result<(), BoxError> =
        block_on(scope(&Context::background(), async |scope: Scope| {
            // So that there is room in the queue.
            burst(&scope, 10).await;
            let before = ALLOCATIONS.get();
            for _ in 0..N {
                scope.spawn(async { Ok(7) }).await?;
            }
            made = ALLOCATIONS.get() - before;
            Ok(())
        }));
    result.unwrap();
    // And, at most, room in either half of the queue.
    assert!((3 * N..=3 * N + 2).contains(&made), "{made}");
}
