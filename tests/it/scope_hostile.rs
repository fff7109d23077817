//! Panics in a scope, and errors, values and destructors that panic.
#![allow(clippy::unit_arg)] // `Ok(work().await)` is what users write

use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::thread;

use errgroup::{AbortHandle, Reason, Scope, scope};
use futures::executor::block_on;

use crate::group_support::*;
use crate::scope_support::*;
use crate::support::{Log, background};

// G5

#[test]
fn g5_task_panics_then_the_others_end_and_the_payload_is_the_original_one() {
    let drops = AtomicUsize::new(0);
    let mut sibling = None;
    let payload = block_on(payload_of(scope(&background(), async |scope: Scope| {
        sibling = Some(scope.spawn(holding(counted(&drops), pend())));
        scope
            .task("p")
            .spawn(async { std::panic::panic_any(7_u32) as Unit });
        pend().await
    })));
    assert_eq!(payload.downcast_ref(), Some(&7_u32));
    assert_eq!(drops.load(SeqCst), 1);
    let end = block_on(cancelled(sibling.unwrap()));
    assert_eq!(
        (end.reason(), end.task()),
        (Reason::TaskPanicked, Some("p"))
    );
}

#[test]
fn g5_error_first_then_the_panic_of_a_destructor_outranks_it() {
    let drops = AtomicUsize::new(0);
    let scoped = scope(&background(), async |scope: Scope| {
        scope.spawn(holding(counted(&drops), pend()));
        scope.spawn(pend_then_panic_in_drop("dropped"));
        scope.spawn(pend_then_panic_in_drop("dropped as well"));
        scope.spawn(holding(counted(&drops), pend()));
        scope.spawn(fail("bad"));
        pend().await
    });
    let text = block_on(panic_of(scoped));
    assert!(["dropped", "dropped as well"].contains(&text), "{text}");
    assert_eq!(drops.load(SeqCst), 2);
}

#[test]
fn g5_body_panics_then_it_is_resumed() {
    let drops = AtomicUsize::new(0);
    let scoped = scope(&background(), async |scope: Scope| {
        scope.spawn(holding(counted(&drops), pend()));
        turns(1).await;
        quiet_panic("body") as Unit
    });
    assert_eq!(block_on(panic_of(scoped)), "body");
    assert_eq!(drops.load(SeqCst), 1);

    let made = |_: Scope| -> std::future::Ready<Unit> { quiet_panic("not made") };
    assert_eq!(block_on(panic_of(scope(&background(), made))), "not made");
}

#[test]
fn g5_body_panics_in_its_drop_then_it_is_resumed() {
    let scoped = scope(&background(), async |scope: Scope| {
        let _bomb = OnDrop::new(|| quiet_panic("body's"));
        scope.spawn(fail("bad"));
        pend().await
    });
    assert_eq!(block_on(panic_of(scoped)), "body's");
}

// G19

#[test]
fn g19_error_that_cannot_be_printed_ends_the_scope_all_the_same() {
    let mut context = None;
    let result = block_on(scope(&background(), async |scope: Scope<'_, Trouble>| {
        context = Some(scope.context().clone());
        scope.spawn(async { Err::<(), _>(Trouble::Unprintable) });
        pending::<Result<(), _>>().await
    }));
    assert!(matches!(result, Err(Trouble::Unprintable)));
    let end = context.unwrap().err().unwrap().to_string();
    assert!(end.contains("an error whose text panics"), "{end}");
}

#[test]
fn g19_error_in_a_value_cannot_be_dropped_then_that_is_contained() {
    let value = block_on(scope(&background(), async |scope: Scope<'_, Trouble>| {
        let task = scope.spawn(async { Ok::<_, Trouble>(Err::<(), _>(Trouble::undroppable())) });
        while !task.is_finished() {
            turns(1).await;
        }
        drop(task);
        Ok::<_, Trouble>(7)
    }));
    assert_eq!(value.ok(), Some(7));
}

#[test]
fn g19_value_that_nobody_fetches_panics_in_its_drop_then_it_is_contained() {
    let value = in_scope!(async |scope: Scope| {
        scope.spawn(async { Ok(OnDrop::new(|| quiet_panic("value"))) });
        Ok(7)
    });
    assert_eq!(value.unwrap(), 7);
}

#[test]
fn g19_bodys_value_panics_in_its_drop_then_the_error_is_returned() {
    let result = in_scope!(async |scope: Scope| {
        scope.spawn(async {
            turns(3).await;
            fail("bad").await
        });
        Ok(OnDrop::new(|| quiet_panic("value")))
    });
    assert_eq!(text(result), "bad");
}

#[test]
fn g19_future_panics_when_polled_and_again_when_dropped_then_it_is_one_panic() {
    struct Twice;
    impl Future for Twice {
        type Output = Unit;
        fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<Unit> {
            quiet_panic("polled")
        }
    }
    impl Drop for Twice {
        fn drop(&mut self) {
            quiet_panic("dropped")
        }
    }
    let scoped = scope(&background(), async |scope: Scope| {
        scope.spawn(Twice);
        pend().await
    });
    let text = block_on(panic_of(scoped));
    assert!(["polled", "dropped"].contains(&text));
}

#[test]
fn g19_destructors_use_the_scope_while_it_ends() {
    let log = Log::new();
    let result = in_scope!(async |scope: Scope| {
        let other = Arc::new(scope.spawn(pend()));
        for _ in 0..3 {
            let (inner, log, other) = (scope.clone(), log.clone(), other.clone());
            let at_the_end = OnDrop::new(move || {
                other.abort();
                log.push((inner.context().is_done(), inner.spawn(pend()).is_finished()));
            });
            scope.spawn(holding(at_the_end, pend()));
        }
        scope.spawn(fail("bad"));
        pend().await
    });
    assert_eq!(text(result), "bad");
    assert_eq!(log.take(), [(true, true); 3]);
}

/// A hundred times, since the moment matters.
#[test]
fn abort_spawn_and_end_from_three_threads_then_the_scope_returns() {
    for _ in 0..100 {
        let (parent, handle) = background().with_cancel();
        let drops = AtomicUsize::new(0);
        let (to_abort, aborts) = std::sync::mpsc::channel::<AbortHandle>();
        let (to_spawn, spawns) = std::sync::mpsc::channel::<Scope<'_>>();
        thread::scope(|threads| {
            let drops = &drops;
            threads.spawn(move || aborts.recv().unwrap().abort());
            threads.spawn(move || {
                let scope = spawns.recv().unwrap();
                for _ in 0..10 {
                    scope.spawn(holding(counted(drops), pend()));
                }
            });
            let result = block_on(scope(&parent, async |scope: Scope<'_>| {
                to_spawn.send(scope.clone()).unwrap();
                let task = scope.spawn(holding(counted(drops), pend()));
                to_abort.send(task.abort_handle()).unwrap();
                threads.spawn(move || handle.cancel());
                let _ = task.await;
                pend().await
            }));
            assert!(result.is_err());
        });
        assert_eq!(drops.load(SeqCst), 11);
    }
}

#[test]
fn types_are_as_threads_need_them() {
    fn is_send<T: Send>(_: &T) {}
    fn is_sync<T: Sync>(_: &T) {}
    let words = ["one"];
    let scoped = scope(&background(), async |scope: Scope| {
        is_send(&scope);
        is_sync(&scope);
        let task = scope.spawn(async { Ok(words.len()) });
        is_send(&task);
        Ok(task.await?)
    });
    is_send(&scoped);
    assert!(
        format!(
            "{:?}",
            in_scope!(async |scope: Scope| Ok(format!("{scope:?}")))
        )
        .contains("Scope")
    );
    assert_eq!(block_on(scoped).unwrap(), 1);
}
