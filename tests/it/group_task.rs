//! G11 and the handles: `abort` stops one task and is no error of the group; dropping a handle detaches nothing.

use std::collections::HashSet;
use std::sync::{Arc, mpsc};

use errgroup::{Context, Group, Reason, Task};
use tokio::sync::oneshot;

use crate::group_support::*;
use crate::support::no_leaks;

on_both_runtimes! {
    async fn g11_half_aborted_then_the_others_complete() {
        let mut group: Group = Group::new();
        let (open, gate) = tokio::sync::watch::channel(());
        let tasks: Vec<_> = (0..100)
            .map(|number| {
                let mut gate = gate.clone();
                let work = async move {
                    gate.changed().await?;
                    Ok(number)
                };
                match number % 4 {
                    0 | 1 => group.spawn(work),
                    _ => group.spawn_with(|_| work),
                }
            })
            .collect();
        drop(gate);
        tasks.iter().step_by(2).for_each(Task::abort);
        open.send(()).unwrap();
        group.wait().await.unwrap();
        for (number, task) in tasks.into_iter().enumerate() {
            match task.await {
                Ok(value) => assert_eq!((value, number % 2), (number, 1)),
                Err(why) => assert_eq!((why.reason(), number % 2), (Reason::TaskAborted, 0)),
            }
        }
        assert_eq!(group.suppressed(), 0);
    }

    async fn g11_aborted_then_the_context_lives_on() {
        let mut group: Group = Group::new();
        let aborted = group.spawn_with(ignore);
        let other = group.spawn(takes_turns(20));
        aborted.abort();
        aborted.abort();
        assert_eq!(own_end(aborted).await, Reason::TaskAborted);
        assert!(!group.context().is_done());
        other.await.unwrap();
        group.wait().await.unwrap();
    }

    async fn g11_finished_task_aborted_then_it_keeps_its_result() {
        let mut group: Group = Group::new();
        let task = group.spawn(async { Ok(5) });
        until(|| task.is_finished()).await;
        task.abort();
        assert_eq!(task.await.unwrap(), 5);
        group.wait().await.unwrap();
    }

    async fn g11_task_aborts_itself_then_it_is_dropped_at_its_next_await() {
        for passes_an_await in [false, true] {
            let mut group: Group = Group::new();
            let (give, handle) = oneshot::channel::<Arc<Task<()>>>();
            let reached = Arc::new(());
            let witness = reached.clone();
            let task = Arc::new(group.spawn(async move {
                let _witness = witness;
                handle.await.unwrap().abort();
                if passes_an_await {
                    pend().await?;
                }
                Ok(())
            }));
            give.send(task.clone()).ok().unwrap();
            group.wait().await.unwrap();
            assert_eq!(Arc::strong_count(&reached), 1);
            match Arc::into_inner(task).unwrap().await {
                Err(why) => assert_eq!((why.reason(), passes_an_await), (Reason::TaskAborted, true)),
                Ok(()) => assert!(!passes_an_await),
            }
        }
    }

    async fn g11_blocking_task_aborted_while_it_runs_then_it_goes_on_and_is_waited_for() {
        let mut group: Group = Group::new();
        let (finish, busy) = mpsc::channel::<()>();
        let (started, start) = oneshot::channel();
        let task = group.spawn_blocking(move |_| {
            started.send(()).unwrap();
            let _ = busy.recv();
            Ok("finished")
        });
        start.await.unwrap();
        task.abort();
        assert!(poll(&mut group.wait()).is_pending());
        drop(finish);
        group.wait().await.unwrap();
        assert_eq!(task.await.unwrap(), "finished");
    }

    async fn g11_queued_blocking_task_aborted_while_it_runs_then_it_keeps_its_value() {
        let mut group: Group = limited(1);
        let (open, gate) = oneshot::channel::<()>();
        group.spawn(async { Ok(gate.await?) });
        let (finish, busy) = mpsc::channel::<()>();
        let (started, start) = oneshot::channel();
        let task = group.spawn_blocking(move |_| {
            started.send(()).unwrap();
            let _ = busy.recv();
            Ok("finished")
        });
        open.send(()).unwrap();
        start.await.unwrap();
        task.abort();
        assert!(!task.is_finished());
        assert!(poll(&mut group.wait()).is_pending());
        drop(finish);
        group.wait().await.unwrap();
        assert_eq!(task.await.unwrap(), "finished");
    }

    async fn g11_handle_dropped_then_the_group_still_owns_the_task() {
        let mut group: Group = Group::new();
        let (open, gate) = oneshot::channel::<()>();
        group.spawn(async {
            gate.await?;
            fail("seen").await
        });
        tokio::task::yield_now().await;
        assert_eq!(group.len(), 1);
        assert!(poll(&mut group.wait()).is_pending());
        open.send(()).unwrap();
        assert_eq!(group.wait().await.unwrap_err().to_string(), "seen");
    }

    async fn g11_aborted_by_a_handle_then_the_task_is_waited_for_and_says_so() {
        let mut group: Group = Group::new();
        let used = Arc::new(());
        let held = used.clone();
        let tasks = [group.spawn(holding(used.clone(), pend())), group.spawn_with(move |ctx| holding(held, ignore(ctx)))];
        let sibling = group.spawn(takes_turns(9));
        for task in tasks {
            let abort = task.abort_handle();
            assert_eq!(abort.id(), task.id());
            assert!(!abort.is_finished());
            abort.clone().abort();
            assert_eq!(own_end(task).await, Reason::TaskAborted);
            assert!(abort.is_finished());
            abort.abort();
        }
        assert!(!group.context().is_done());
        group.wait().await.unwrap();
        sibling.await.unwrap();
        assert_eq!(Arc::strong_count(&used), 1);
    }

    async fn g11_abort_handle_keeps_neither_the_value_nor_the_task_of_a_dropped_handle() {
        let mut group: Group = Group::new();
        let used = Arc::new(());
        let (one, other) = (used.clone(), used.clone());
        let handles = [
            group.spawn(async { Ok(one) }).abort_handle(),
            group.spawn_blocking(|_| Ok(other)).abort_handle(),
        ];
        group.wait().await.unwrap();
        assert_eq!(Arc::strong_count(&used), 1);
        for handle in handles {
            until(|| handle.is_finished()).await;
            handle.abort();
        }
    }

    async fn g11_finished_task_aborted_by_a_handle_then_it_keeps_its_result() {
        let group: Group = Group::new();
        let tasks = [group.spawn(async { Ok(String::new()) }), group.spawn_blocking(|_| Ok(String::new()))];
        for task in tasks {
            let abort = task.abort_handle();
            until(|| abort.is_finished()).await;
            abort.abort();
            task.await.unwrap();
        }
    }

    async fn g11_refused_task_has_an_abort_handle_that_does_nothing() {
        let mut group: Group = Group::new();
        group.cancel();
        let task = group.spawn(pend());
        let abort = task.abort_handle();
        assert_eq!(abort.id(), task.id());
        assert!(abort.is_finished());
        abort.abort();
        assert_eq!(cancelled(task).await.reason(), Reason::GroupCancelled);
        assert!(format!("{abort:?}").contains("is_finished: true"));
        group.wait().await.unwrap();
    }

    async fn g11_aborted_and_then_the_parent_ends_then_ok() {
        let (parent, handle) = Context::background().with_cancel();
        let mut group: Group = Group::with_context(&parent);
        let task = group.spawn(pend());
        task.abort();
        assert_eq!(own_end(task).await, Reason::TaskAborted);
        handle.cancel();
        group.wait().await.unwrap();
        no_leaks(&parent);
    }
}

#[tokio::test]
async fn g11_aborted_before_the_first_poll_then_dropped_unpolled() {
    let mut group: Group = Group::new();
    let used = Arc::new(());
    let (one, two) = (used.clone(), used.clone());
    let never = |_| -> Unit { unreachable!("it was started") };
    let tasks = [
        group.spawn(async move { never(one) }),
        group.spawn_with(async move |_| never(two)),
    ];
    tasks.iter().for_each(Task::abort);
    for task in tasks {
        assert_eq!(own_end(task).await, Reason::TaskAborted);
    }
    assert_eq!(Arc::strong_count(&used), 1);
    group.wait().await.unwrap();
}

#[test]
fn g11_blocking_task_aborted_before_a_thread_was_free_then_it_never_runs() {
    one_blocking_thread().block_on(patiently(async {
        let (free, busy) = mpsc::channel::<()>();
        let occupied = tokio::task::spawn_blocking(move || busy.recv());
        let mut group: Group = Group::new();
        let task = group.spawn_blocking(|_| -> Unit { unreachable!("it was started") });
        task.abort();
        drop(free);
        let _ = occupied.await;
        assert_eq!(own_end(task).await, Reason::TaskAborted);
        group.wait().await.unwrap();
    }));
}

/// Its slot has been granted, and a thread is what it waits for now.
#[test]
fn g11_queued_blocking_task_aborted_before_a_thread_was_free_then_it_never_runs() {
    one_blocking_thread().block_on(patiently(async {
        let (free, busy) = mpsc::channel::<()>();
        let occupied = tokio::task::spawn_blocking(move || busy.recv());
        let mut group: Group = limited(1);
        let occupant = group.spawn(pend());
        let task = group.spawn_blocking(|_| -> Unit { unreachable!("it was started") });
        idle().await;
        occupant.abort();
        idle().await;
        task.abort();
        assert_eq!(own_end(task).await, Reason::TaskAborted);
        drop(free);
        let _ = occupied.await;
        group.wait().await.unwrap();
    }));
}

#[tokio::test]
async fn g11_stopped_task_aborted_once_more_then_it_stays_cancelled() {
    let mut group: Group = Group::new();
    let task = group.spawn(pend());
    group.cancel();
    group.wait().await.unwrap();
    task.abort();
    cancelled(task).await;
}

#[tokio::test]
async fn ids_differ_and_are_printed_with_a_hash() {
    let (one, other): (Group, Group) = (Group::new(), Group::new());
    let mut ids = HashSet::new();
    for number in 0..300 {
        let group = if number % 2 == 0 { &one } else { &other };
        let task = group.spawn(async { Ok(()) });
        assert!(ids.insert(task.id()));
        assert!(task.id().to_string().starts_with('#'));
    }
    one.cancel();
    assert!(
        ids.insert(one.spawn(pend()).id()),
        "one that never was has an id too"
    );
}

#[tokio::test]
async fn handle_polled_in_parts_then_nothing_is_lost() {
    let group: Group = Group::new();
    let (open, gate) = oneshot::channel();
    let mut task = group.spawn(async { Ok(gate.await?) });
    for _ in 0..3 {
        assert!(poll(&mut task).is_pending());
        assert!(!task.is_finished());
    }
    open.send("kept").unwrap();
    assert_eq!(task.await.unwrap(), "kept");
}

/// One line for each, with the task and its place; `?` passes it on into every error type that a group takes.
#[tokio::test]
async fn handle_errors_name_the_task_its_place_and_what_it_came_to() {
    let group: Group = limited(9);
    let end = |task: Task<()>| async move { (task.id().to_string(), why(task).await) };
    let (bad, line) = (group.spawn(fail("disk full")), line!());
    let (id, failed) = end(bad).await;
    let place = failed.location().unwrap();
    assert_eq!((place.file(), place.line()), (file!(), line));
    let text = format!("cancelled: task {id} failed: disk full (spawned at {place})");
    assert_eq!(failed.to_string(), text);
    assert_eq!(failed.task(), Some(&*id));
    let _passed_on: std::io::Error = failed.into();

    let group: Group = Group::new();
    let (gone, line) = (group.task("gone").spawn(pend()), line!());
    gone.abort();
    let (_, aborted) = end(gone).await;
    let place = aborted.location().unwrap();
    assert_eq!((place.file(), place.line()), (file!(), line));
    let text = format!("task \"gone\" was aborted (spawned at {place})");
    assert_eq!(aborted.to_string(), text);
    assert_eq!(
        (aborted.reason(), aborted.task()),
        (Reason::TaskAborted, Some("gone"))
    );
    assert!(!group.context().is_done());

    let (_, panicked) = end(group.task("odd").spawn(panics("boom"))).await;
    let text = "cancelled: task \"odd\" panicked: boom (spawned at ";
    assert!(panicked.to_string().starts_with(text), "{panicked}");
}

/// So many that their places in the registry are used again: nothing of one is left to the next.
#[test]
fn tasks_one_after_the_other_then_ids_rise_and_names_are_their_own() {
    on_current_thread(async {
        let group: Group = Group::new();
        let mut ids = HashSet::new();
        let mut last = [None; 2];
        for number in 0..300 {
            let is_named = number % 7 == 0;
            let task = match is_named {
                false => group.spawn(async { Unit::Ok(()) }),
                true => group.task("named").spawn(async { Unit::Ok(()) }),
            };
            let last = last[usize::from(is_named)].replace(task.id());
            assert!(last < Some(task.id()), "{} after {last:?}", task.id());
            assert!(ids.insert(task.id()));
            task.await.unwrap();
        }
        assert_eq!(group.len(), 0);
        group.spawn(async { Err::<(), _>("boom".into()) });
        let ctx = group.context().clone();
        group.await.unwrap_err();
        let task = ctx.err().unwrap().task().unwrap().to_owned();
        assert!(task.starts_with('#'), "{task}");
        no_leaks(&ctx);
    });
}
