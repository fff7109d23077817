//! `spawn_local`: tasks that are not `Send`, on a `LocalSet` and on a `LocalRuntime`.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use errgroup::{BoxError, Context, Group, Reason};
use tokio::runtime::LocalRuntime;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::group_support::*;

/// Runs the body on a `LocalSet` of a current-thread runtime, on one of a multi-thread runtime, and on a `LocalRuntime`.
macro_rules! on_local {
    ($(async fn $name:ident() $body:block)+) => {$(
        mod $name {
            use super::*;
            async fn body() $body
            #[test]
            fn local_set() {
                LocalSet::new().block_on(&current_thread(), patiently(body()));
            }
            #[test]
            fn local_set_of_many_threads() {
                LocalSet::new().block_on(&multi_thread(), patiently(body()));
            }
            #[test]
            fn local_runtime() {
                let mut builder = tokio::runtime::Builder::new_current_thread();
                let runtime = builder.enable_all().start_paused(true).build_local(Default::default());
                runtime.unwrap().block_on(patiently(body()));
            }
        }
    )+};
}

/// Counts itself as long as it lives, and stays on its thread.
struct Local(Rc<Cell<usize>>);

impl Local {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(count.clone())
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn pend_with(_local: Local) -> Unit {
    pend().await
}

on_local! {
    async fn local_tasks_run_on_this_thread_then_their_values_need_not_be_send() {
        let mut group: Group = Group::new();
        let here = thread::current().id();
        let shared = Rc::new(Cell::new(0));
        let tasks: Vec<_> = (0..100).map(|n| {
            let shared = shared.clone();
            group.spawn_local(async move {
                turns(n % 3).await;
                shared.set(shared.get() + 1);
                assert_eq!(thread::current().id(), here);
                Ok(Rc::new(n))
            })
        }).collect();
        group.wait().await.unwrap();
        assert_eq!(shared.get(), 100);
        for (n, task) in tasks.into_iter().enumerate() {
            assert_eq!(*task.await.unwrap(), n);
        }
        // Those that were not `Send` are gone with the tasks.
        assert_eq!(Rc::strong_count(&shared), 1);
    }

    async fn local_and_other_tasks_in_one_group_then_a_failure_stops_both() {
        let mut group: Group = Group::new();
        let count = Rc::new(Cell::new(0));
        let local = group.spawn_local(pend_with(Local::new(&count)));
        let other = group.spawn(pend());
        group.task("db").spawn(fail("refused"));
        assert_eq!(group.wait().await.unwrap_err().to_string(), "refused");
        assert_eq!(count.get(), 0);
        assert_eq!(cancelled(local).await.task(), Some("db"));
        assert_eq!(cancelled(other).await.task(), Some("db"));
    }

    async fn local_task_fails_then_the_reason_names_it_and_its_place() {
        let mut group: Group = Group::new();
        let sibling = group.spawn(pend());
        let line = line!() + 1;
        group.task("parser").spawn_local(fail("no digit"));
        assert_eq!(group.wait().await.unwrap_err().to_string(), "no digit");
        let end = cancelled(sibling).await;
        assert_eq!((end.reason(), end.task()), (Reason::TaskFailed, Some("parser")));
        assert_eq!(end.location().unwrap().line(), line);
    }

    async fn local_task_panics_then_wait_resumes_it() {
        let mut group: Group = Group::new();
        group.spawn_local(panics("local"));
        assert_eq!(panic_of(group.wait()).await, "local");
    }

    async fn g11_local_task_aborted_then_it_is_no_error_of_the_group() {
        let mut group: Group = Group::new();
        let count = Rc::new(Cell::new(0));
        let unpolled = group.spawn_local(pend_with(Local::new(&count)));
        unpolled.abort();
        let polled = group.spawn_local(pend_with(Local::new(&count)));
        idle().await;
        polled.abort();
        for task in [unpolled, polled] {
            assert_eq!(own_end(task).await, Reason::TaskAborted);
        }
        assert_eq!(count.get(), 0);
        assert_eq!(group.wait_outcome().await.aborted(), 2);
    }

    async fn g11_local_task_aborted_from_another_thread_then_dropped_on_its_own() {
        let mut group: Group = Group::new();
        let count = Rc::new(Cell::new(0));
        let task = group.spawn_local(pend_with(Local::new(&count)));
        idle().await;
        let handle = task.abort_handle();
        thread::spawn(move || handle.abort()).join().unwrap();
        assert_eq!(own_end(task).await, Reason::TaskAborted);
        assert_eq!(count.get(), 0);
        group.wait().await.unwrap();
    }

    async fn g9_context_ended_then_a_local_task_is_dropped_unpolled() {
        let mut group: Group = Group::new();
        group.cancel();
        let count = Rc::new(Cell::new(0));
        let task = group.spawn_local(pend_with(Local::new(&count)));
        assert_eq!(count.get(), 0);
        assert_eq!(cancelled(task).await.reason(), Reason::GroupCancelled);
        assert_eq!(group.wait_outcome().await.never_started(), 1);
    }

    async fn g10_limit_then_local_tasks_are_queued_and_take_slots() {
        let mut group: Group = limited(2);
        let running = Rc::new(Cell::new(0));
        let peak = Rc::new(Cell::new(0));
        for _ in 0..8 {
            let (running, peak) = (running.clone(), peak.clone());
            group.spawn_local(async move {
                let _one = Local::new(&running);
                peak.set(peak.get().max(running.get()));
                turns(2).await;
                Ok(())
            });
        }
        let slot = group.slot().await.unwrap();
        assert!(running.get() <= 1);
        let mine = slot.spawn_local(async { Ok(Rc::new(1)) });
        group.wait().await.unwrap();
        assert_eq!((peak.get(), *mine.await.unwrap()), (2, 1));
    }

    async fn g12_spawner_inside_a_local_task_then_wait_covers_what_it_spawned() {
        fn nest(depth: usize, spawner: errgroup::Spawner, seen: Rc<Cell<usize>>) -> Pin<Box<dyn Future<Output = Unit>>> {
            Box::pin(async move {
                turns(1).await;
                seen.set(seen.get() + 1);
                if depth > 0 {
                    spawner.spawn_local(nest(depth - 1, spawner.clone(), seen));
                }
                Ok(())
            })
        }
        let mut group: Group = Group::new();
        let seen = Rc::new(Cell::new(0));
        group.spawn_local(nest(99, group.spawner(), seen.clone()));
        group.wait().await.unwrap();
        assert_eq!(seen.get(), 100);
    }

    async fn g6_group_dropped_then_local_tasks_are_dropped() {
        let group: Group = Group::new();
        let count = Rc::new(Cell::new(0));
        let task = group.spawn_local(pend_with(Local::new(&count)));
        idle().await;
        drop(group);
        stopped_by_drop(task).await;
        assert_eq!(count.get(), 0);
    }

    async fn g16_local_task_outlives_the_grace_then_a_straggler_that_was_aborted() {
        let group: Group = Group::new();
        let count = Rc::new(Cell::new(0));
        let local = Local::new(&count);
        let (stop, stopped) = oneshot::channel::<()>();
        // Busy on its thread, so that it hears of the end late: no end reaches it between two polls.
        group.task("deaf").spawn_local(async move {
            let _local = local;
            let without = Context::background();
            without.run(stopped).await.unwrap().ok();
            pend().await
        });
        idle().await;
        let shutdown = group.stop().grace(Duration::ZERO).await;
        drop(stop);
        assert!(shutdown.stragglers.iter().all(|straggler| straggler.was_aborted));
        shutdown.result().unwrap();
        assert_eq!(count.get(), 0);
    }

    async fn local_value_with_a_destructor_then_gone_before_wait_returns() {
        let mut group: Group = Group::new();
        let count = Rc::new(Cell::new(0));
        let local = Local::new(&count);
        group.spawn_local(async move { turns(1).await; Ok(local) });
        group.wait().await.unwrap();
        assert_eq!(count.get(), 0);
    }
}

#[test]
fn g17_local_set_dropped_then_its_tasks_are_gone_with_it_and_wait_says_so() {
    let runtime = current_thread();
    let (set, mut group) = (LocalSet::new(), Group::<BoxError>::new());
    let count = Rc::new(Cell::new(0));
    let mut tasks = Vec::new();
    set.block_on(&runtime, async {
        tasks.push(group.spawn_local(pend_with(Local::new(&count))));
        idle().await;
        // Not polled any more.
        tasks.push(group.spawn_local(pend_with(Local::new(&count))));
    });
    drop(set);
    assert_eq!(count.get(), 0);
    runtime.block_on(patiently(async {
        for task in tasks {
            assert_eq!(own_end(task).await, Reason::RuntimeGone);
        }
        let error = group.wait().await.unwrap_err();
        let why = error.downcast_ref::<errgroup::ContextError>().unwrap();
        assert_eq!(why.reason(), Reason::RuntimeGone);
    }));
}

#[test]
fn local_task_aborted_then_its_set_dropped_is_no_error() {
    let runtime = current_thread();
    let (set, mut group) = (LocalSet::new(), Group::<BoxError>::new());
    let [task] = set.block_on(&runtime, async { [group.spawn_local(pend())] });
    task.abort();
    drop(set);
    runtime.block_on(patiently(async {
        assert_eq!(own_end(task).await, Reason::TaskAborted);
        group.wait().await.unwrap();
    }));
}

#[test]
fn spawned_on_a_local_set_that_is_gone_then_the_handle_says_so() {
    // A destructor in the set spawns while the set goes.
    let runtime = current_thread();
    let (set, group) = (LocalSet::new(), Group::<BoxError>::new());
    let spawner = group.spawner();
    let (send, receive) = std::sync::mpsc::channel();
    set.block_on(&runtime, async {
        tokio::task::spawn_local(async move {
            let _late = OnDrop::new(move || {
                let spawned = std::panic::catch_unwind(|| spawner.spawn_local(pend()));
                send.send(spawned).unwrap();
            });
            std::future::pending::<()>().await
        });
        idle().await;
    });
    drop(set);
    let mut group = group;
    runtime.block_on(patiently(async {
        // A panic of tokio's, outside of a set, or a refusal: in either case the group hangs on nothing.
        if let Ok(task) = receive.recv().unwrap() {
            assert_eq!(own_end(task).await, Reason::RuntimeGone);
            assert!(group.wait().await.is_err());
        } else {
            group.wait().await.unwrap();
        }
    }));
}

#[test]
fn spawn_local_outside_of_a_local_set_then_a_panic_that_says_where_to_call_it() {
    let runtime = multi_thread();
    let mut group: Group = limited(1);
    let panic = runtime.block_on(payload_of(async { drop(group.spawn_local(pend())) }));
    let text = panic.downcast_ref::<&str>().unwrap();
    assert!(
        text.contains("LocalSet") && text.contains("LocalRuntime"),
        "{text}"
    );
    // The group is as it was, and its only slot is free.
    assert!(group.is_empty());
    runtime.block_on(patiently(async {
        group.spawn(async { Ok(()) }).await.unwrap();
        let outcome = group.wait_outcome().await;
        assert_eq!(
            (outcome.completed(), outcome.cut_short(), outcome.aborted()),
            (1, 0, 0)
        );
        outcome.into_result().unwrap();
    }));
}

#[test]
fn local_set_entered_outside_of_a_runtime_then_tasks_wait_until_it_runs() {
    let (set, mut group) = (LocalSet::new(), Group::<BoxError>::new());
    let task = {
        let _entered = set.enter();
        group.spawn_local(async { Ok(Rc::new(3)) })
    };
    assert_eq!(group.len(), 1);
    set.block_on(&current_thread(), async {
        assert_eq!(*task.await.unwrap(), 3);
        group.wait().await.unwrap();
    });
}

#[test]
fn handle_of_a_local_task_awaited_outside_of_the_set() {
    let runtime = current_thread();
    let (set, group) = (LocalSet::new(), Group::<BoxError>::new());
    let [task] = set.block_on(&runtime, async {
        let task = group.spawn_local(async { Ok(Rc::new(3)) });
        idle().await;
        [task]
    });
    assert!(task.is_finished());
    assert_eq!(*futures::executor::block_on(task).unwrap(), 3);
}

#[test]
fn two_local_sets_in_one_group_then_a_failure_on_one_stops_the_other() {
    let mut group: Group = Group::new();
    let spawner = group.spawner();
    let (failed, fail_now) = oneshot::channel();
    let elsewhere = thread::spawn(move || {
        LocalSet::new().block_on(&current_thread(), async {
            let task = spawner.spawn_local(async {
                fail_now.await?;
                fail("there").await
            });
            own_end(task).await
        })
    });
    let runtime = LocalRuntime::new().unwrap();
    runtime.block_on(patiently(async {
        let count = Rc::new(Cell::new(0));
        group.spawn_local(pend_with(Local::new(&count)));
        idle().await;
        failed.send(()).unwrap();
        assert_eq!(group.wait().await.unwrap_err().to_string(), "there");
        assert_eq!(count.get(), 0);
    }));
    assert_eq!(elsewhere.join().unwrap(), Reason::TaskFailed);
}
