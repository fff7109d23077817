//! G12, G13: spawning from inside tasks, and groups inside groups.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use errgroup::{BoxError, Context, Group, Reason, Spawner};
use tokio::sync::oneshot;

use crate::group_support::*;
use crate::support::no_leaks;

/// A task that spawns the next before it ends, and so on down.
fn descend(
    depth: usize,
    spawner: Spawner,
    reached: Arc<AtomicUsize>,
) -> Pin<Box<dyn Future<Output = Unit> + Send>> {
    Box::pin(async move {
        turns(depth % 3).await;
        reached.fetch_add(1, Ordering::SeqCst);
        if depth > 0 {
            let next = descend(depth - 1, spawner.clone(), reached);
            spawner.spawn(next);
        }
        Ok(())
    })
}

on_both_runtimes! {
    async fn g12_tasks_spawn_tasks_to_depth_100_then_wait_covers_them() {
        let reached = Arc::new(AtomicUsize::new(0));
        let mut group: Group = Group::new();
        group.spawn(descend(100, group.spawner(), reached.clone()));
        group.wait().await.unwrap();
        assert_eq!(reached.load(Ordering::SeqCst), 101);
    }

    async fn g12_task_spawns_10_000_then_wait_covers_them() {
        let reached = Arc::new(AtomicUsize::new(0));
        let mut group: Group = Group::new();
        let (spawner, count) = (group.spawner(), reached.clone());
        group.spawn(async move {
            for number in 0..10_000 {
                let count = count.clone();
                let task = async move |_| {
                    turns(number % 3).await;
                    count.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                };
                spawner.spawn_with(task);
            }
            Ok(())
        });
        group.wait().await.unwrap();
        assert_eq!(reached.load(Ordering::SeqCst), 10_000);
    }

    async fn g12_blocking_task_spawns_then_wait_covers_it() {
        let mut group: Group = Group::new();
        let spawner = group.spawner();
        let (tell, told) = mpsc::channel();
        group.spawn_blocking(move |_| {
            let inner = spawner.clone();
            spawner.spawn_blocking(move |_| {
                inner.spawn(async move { Ok(tell.send("told")?) });
                Ok(())
            });
            Ok(())
        });
        group.wait().await.unwrap();
        assert_eq!(told.try_recv().unwrap(), "told");
    }

    /// The last moment at which a task can spawn.
    async fn g12_destructor_of_a_task_spawns_then_wait_covers_it() {
        let mut group: Group = Group::new();
        let (tell, told) = mpsc::channel();
        let spawner = group.spawner();
        let last_will = OnDrop::new(move || {
            let told = async move {
                turns(5).await;
                Ok(tell.send("told")?)
            };
            spawner.spawn(told);
        });
        group.spawn(holding(last_will, async { Ok(()) }));
        group.wait().await.unwrap();
        assert_eq!(told.try_recv().unwrap(), "told");
    }

    async fn g12_spawned_inside_fails_then_the_group_fails() {
        let mut group: Group = Group::new();
        let spawner = group.spawner();
        group.spawn(async move {
            spawner.spawn(fail("inner"));
            Ok(())
        });
        assert_eq!(group.wait().await.unwrap_err().to_string(), "inner");
    }

    async fn g12_group_has_ended_then_refused_as_the_groups_and_try_spawn_gives_the_future_back() {
        for is_waited_for in [false, true] {
            let mut group: Group = Group::new();
            let spawner = group.spawner().clone();
            match is_waited_for {
                true => group.wait().await.unwrap(),
                false => group.cancel(),
            }
            let end = group.context().err().unwrap().reason();
            let future = spawner.try_spawn(async { Ok(1) }).err().unwrap();
            assert_eq!(future.await.unwrap(), 1);
            let future = spawner.task("named").try_spawn(async { Ok(2) }).err().unwrap();
            assert_eq!(future.await.unwrap(), 2);
            let used = Arc::new(());
            let (one, two, three, four) = (used.clone(), used.clone(), used.clone(), used.clone());
            let never = |_| -> Unit { unreachable!("it was started") };
            let refused = [
                spawner.spawn(async move { never(one) }),
                spawner.spawn_with(async move |_| never(two)),
                spawner.spawn_blocking(move |_| never(three)),
                spawner.task("named").spawn(async move { never(four) }),
            ];
            assert_eq!(Arc::strong_count(&used), 1, "dropped in the call");
            for task in refused {
                assert!(task.is_finished());
                assert_eq!(cancelled(task).await.reason(), end);
            }
            assert_eq!(spawner.slot().await.unwrap_err().reason(), end);
            assert_eq!(group.len(), 0);
            // After `cancel` it is no error; after an outcome it is told.
            assert_eq!(group.wait().await.is_err(), is_waited_for);
            group.wait().await.unwrap();
        }
    }

    async fn g12_spawner_and_its_task_outlive_the_group() {
        let group: Group = Group::new();
        let (spawner, kept) = (group.spawner(), group.spawner());
        let (finish, busy) = mpsc::channel::<()>();
        let (started, start) = oneshot::channel();
        let task = group.spawn_blocking(move |_| {
            started.send(()).unwrap();
            let _ = busy.recv();
            Ok(spawner.spawn(pend()).is_finished())
        });
        start.await.unwrap();
        drop(group);
        drop(finish);
        assert!(task.await.unwrap(), "refused");
        assert_eq!(kept.context().err().unwrap().reason(), Reason::GroupDropped);
        cancelled(kept.spawn(pend())).await;
    }

    /// Each spawn beside the end is refused, or counted and waited for: nothing is left when `wait` returns.
    async fn g12_spawned_from_other_threads_while_waited_for_then_refused_or_covered() {
        for _ in 0..50 {
            let mut group: Group = Group::new();
            let ran = Arc::new(AtomicUsize::new(0));
            let (spawner, count) = (group.spawner(), ran.clone());
            let runtime = tokio::runtime::Handle::current();
            group.spawn(async { Ok(()) });
            let thread = thread::spawn(move || {
                let _inside = runtime.enter();
                let spawn = || {
                    let count = OnDrop::new({ let count = count.clone(); move || drop(count) });
                    spawner.try_spawn(holding(count, async { Ok(()) })).is_ok()
                };
                (0..200).all(|_| spawn());
            });
            let mut wait = group.wait();
            until(|| poll(&mut wait).is_ready()).await;
            drop(wait);
            assert_eq!(group.len(), 0);
            until(|| thread.is_finished()).await;
            thread.join().unwrap();
            assert_eq!(Arc::strong_count(&ran), 1);
        }
    }
}

/// Whoever sees the context ended is refused, even in a callback of an ancestor's end, which runs before the group's own.
#[tokio::test]
async fn g12_spawned_in_a_callback_of_the_parents_end_then_refused() {
    let (parent, handle) = Context::background().with_cancel();
    let told = Arc::new(Mutex::new(None));
    let group = Arc::new(Mutex::new(None::<Group>));
    let (tell, inside) = (told.clone(), group.clone());
    let end = parent.on_done(move |_| {
        let group = inside.lock().unwrap();
        let group = group.as_ref().unwrap();
        assert!(group.context().is_done());
        let is_refused = group.spawner().spawn(pend()).is_finished();
        let is_refused_at_once = group.try_spawn(pend()).is_err();
        *tell.lock().unwrap() = Some((
            is_refused,
            is_refused_at_once,
            group.spawn(pend()).is_finished(),
        ));
    });
    *group.lock().unwrap() = Some(Group::with_context(&parent));
    handle.cancel();
    drop(end);
    assert_eq!(*told.lock().unwrap(), Some((true, true, true)));
    no_leaks(&parent);
}

// G13

on_both_runtimes! {
    async fn g13_outer_group_ends_then_the_inner_one_does() {
        let outer: Group = Group::new();
        let mut inner: Group = Group::with_context(outer.context());
        let task = inner.spawn(pend());
        outer.cancel();
        assert_eq!(cancelled(task).await.reason(), Reason::GroupCancelled);
        assert!(inner.wait().await.is_err(), "the inner group was not cancelled by its owner");
        outer.await.unwrap();
    }

    async fn g13_outer_task_fails_then_the_inner_tasks_are_told_of_it() {
        let outer: Group = Group::new();
        let inner: Group = Group::with_context(outer.context());
        let task = inner.spawn(pend());
        outer.task("db").spawn(fail("connection refused"));
        let end = cancelled(task).await;
        assert_eq!((end.reason(), end.task()), (Reason::TaskFailed, Some("db")));
        assert_eq!(outer.await.unwrap_err().to_string(), "connection refused");
    }

    async fn g13_inner_group_fails_then_the_outer_one_hears_of_it_by_its_task_only() {
        let mut outer: Group = Group::new();
        let mut swallowed: Group = Group::with_context(outer.context());
        swallowed.spawn(fail("swallowed"));
        assert!(swallowed.wait().await.is_err());
        assert!(!outer.context().is_done());

        let parent = outer.context().clone();
        let task = outer.spawn(async move {
            let inner: Group = Group::with_context(&parent);
            inner.spawn(fail("passed on"));
            inner.await
        });
        let id = task.id().to_string();
        assert_eq!(own_end(task).await, Reason::TaskFailed);
        assert_eq!(outer.wait().await.unwrap_err().to_string(), "passed on");
        let end = outer.context().err().unwrap();
        assert_eq!((end.reason(), end.task()), (Reason::TaskFailed, Some(&*id)));
    }

    /// By the inner group's own text, the outer task was cut short and has not failed.
    async fn g13_outer_cancelled_then_a_task_that_passes_on_its_inner_group_is_no_error() {
        let mut outer: Group = Group::new();
        let (started, start) = oneshot::channel();
        let task = outer.spawn_with(async |ctx| {
            let inner: Group = Group::with_context(&ctx);
            inner.spawn(async {
                let _ = started.send(());
                pend().await
            });
            inner.await
        });
        start.await.unwrap();
        outer.cancel();
        outer.wait().await.unwrap();
        assert_eq!(cancelled(task).await.reason(), Reason::GroupCancelled);
    }

    async fn g13_chain_of_groups_ends_from_the_top() {
        let top: Group = Group::new();
        let mut groups: Vec<Group<BoxError>> = vec![Group::with_context(top.context())];
        for _ in 0..50 {
            let next = Group::with_context(groups.last().unwrap().context());
            next.spawn(pend());
            groups.push(next);
        }
        top.cancel();
        for group in groups.iter_mut().rev().take(50) {
            assert!(group.wait().await.is_err());
            assert_eq!(group.context().err().unwrap().reason(), Reason::GroupCancelled);
        }
    }
}
