//! What tokio's `JoinSet` and tokio-util's `TaskTracker` pin, and no test of a guarantee does; and the grid. The table is
//! in `main.rs`.

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use errgroup::{
    AbortHandle, BoxError, Context, ContextError, Group, GroupBuilder, Reason, Shutdown, Slot,
    Spawner, Straggler, Task, TaskBuilder, TaskId, Wait, WaitGroup, WaitGroupToken, WaitOwned,
};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use static_assertions::{assert_impl_all, assert_not_impl_any};
use tokio::task::yield_now;

use crate::group_support::*;

assert_impl_all!(Group: Send, Sync, Unpin);
assert_impl_all!(GroupBuilder<BoxError>: Send, Sync, Unpin);
assert_impl_all!(Spawner: Send, Sync, Unpin, Clone);
assert_impl_all!(Slot<'static, BoxError>: Send, Sync, Unpin);
assert_impl_all!(TaskBuilder<'static, BoxError>: Send, Sync, Unpin);
assert_impl_all!(Task<()>: Send, Sync, Unpin);
assert_impl_all!(Task<std::cell::Cell<()>>: Send, Sync, Unpin);
assert_impl_all!(Wait<'static, BoxError>: Send, Sync, Unpin);
assert_impl_all!(WaitOwned<BoxError>: Send, Sync, Unpin);
// It may carry the payload of a panic, which is `Send` only.
assert_impl_all!(Shutdown<BoxError>: Send, Unpin);
assert_impl_all!(Straggler: Send, Sync, Unpin, Clone, UnwindSafe, RefUnwindSafe);
assert_impl_all!(AbortHandle: Send, Sync, Unpin, Clone, UnwindSafe, RefUnwindSafe);
assert_impl_all!(TaskId: Send, Sync, Copy, Ord, std::hash::Hash, UnwindSafe, RefUnwindSafe);
assert_impl_all!(WaitGroup: Send, Sync, Unpin, Clone);
assert_impl_all!(WaitGroupToken: Send, Sync, Unpin, Clone);
// One owner, one outcome.
assert_not_impl_any!(Group: Clone);
assert_not_impl_any!(Task<()>: Clone);
// An error type need not be `Sync`.
assert_impl_all!(Group<NotSync>: Send, Sync);

struct NotSync(std::cell::Cell<()>);

impl From<ContextError> for NotSync {
    fn from(_: ContextError) -> Self {
        Self(std::cell::Cell::new(()))
    }
}

impl std::fmt::Display for NotSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not sync")
    }
}

on_both_runtimes! {
    /// `TaskTracker`: the last task's exit wakes whoever waits, also one who waited before the first spawn.
    async fn tracker_waited_for_before_the_first_spawn() {
        let mut group: Group = Group::new();
        let spawner = group.spawner();
        let (open, gate) = tokio::sync::oneshot::channel::<()>();
        group.spawn(async move {
            gate.await?;
            for _ in 0..10 {
                spawner.spawn(takes_turns(3));
            }
            Ok(())
        });
        let waiting = tokio::spawn(async move { group.wait().await });
        yield_now().await;
        assert!(!waiting.is_finished());
        open.send(()).unwrap();
        waiting.await.unwrap().unwrap();
    }

    /// `TaskTracker`: a task that exits while the group is being ended.
    async fn tracker_exit_during_the_end() {
        for _ in 0..100 {
            let mut group: Group = Group::new();
            for turn in 0..4 {
                group.spawn(takes_turns(turn));
            }
            yield_now().await;
            group.cancel();
            group.wait().await.unwrap();
            assert!(group.is_empty());
        }
    }

    /// `JoinSet::len`: what has not ended, queued ones included.
    async fn join_set_len_counts_what_has_not_ended() {
        let mut group: Group = limited(2);
        assert!(group.is_empty());
        let tasks: Vec<_> = (0..5).map(|_| group.spawn(pend())).collect();
        assert_eq!(group.len(), 5);
        for (number, task) in tasks.into_iter().enumerate() {
            task.abort();
            assert!(task.await.is_err());
            assert_eq!(group.len(), 4 - number);
        }
        group.wait().await.unwrap();
    }

    /// `JoinSet::join_next`: results in order of completion.
    async fn join_set_join_next_yields_in_order_of_completion() {
        let group: Group = Group::new();
        let mut gates = Vec::new();
        let mut tasks: FuturesUnordered<Task<usize>> = (0..5)
            .map(|number| {
                let (open, gate) = tokio::sync::oneshot::channel::<()>();
                gates.push(Some(open));
                group.spawn(async move {
                    gate.await?;
                    Ok(number)
                })
            })
            .collect();
        for number in [3, 0, 4, 1, 2] {
            assert!(gates[number].take().unwrap().send(()).is_ok());
            assert_eq!(tasks.next().await.unwrap().unwrap(), number);
        }
        assert!(tasks.next().await.is_none());
        group.await.unwrap();
    }

    /// `JoinSet::abort_all`: those that have ended keep their results, and `wait` is no error.
    async fn join_set_abort_all() {
        let mut group: Group = Group::new();
        let ended = group.spawn(async { Ok("kept") });
        until(|| ended.is_finished()).await;
        let tasks = [group.spawn(pend()), group.spawn_with(ignore), group.spawn(spin())];
        tasks.iter().for_each(Task::abort);
        for task in tasks {
            assert_eq!(own_end(task).await, Reason::TaskAborted);
        }
        assert_eq!(ended.await.unwrap(), "kept");
        assert!(!group.context().is_done());
        group.wait().await.unwrap();
    }

    /// `TaskTracker`: a closed one takes tasks all the same; a group that has been waited for tells.
    async fn join_set_used_after_it_was_empty() {
        let mut group: Group = Group::new();
        group.spawn(async { Ok(()) });
        group.wait().await.unwrap();
        let future = group
            .try_spawn(async { Ok("back") })
            .expect_err("it has ended");
        assert_eq!(future.await.unwrap(), "back");
        group.wait().await.unwrap();
        let task = group.spawn(async { Ok("lost") });
        assert_eq!(cancelled(task).await.reason(), Reason::GroupFinished);
        assert!(group.wait().await.is_err());
        group.wait().await.unwrap();
    }

    /// `JoinSet::spawn_on`: the tasks run where the builder said.
    async fn join_set_spawned_from_another_runtime() {
        let group: Group = Group::builder().runtime(tokio::runtime::Handle::current()).build();
        let here = tokio::runtime::Handle::current().id();
        let thread = std::thread::spawn(move || {
            crate::group_support::current_thread().block_on(async {
                let task = group.spawn(async { Ok(tokio::runtime::Handle::current().id()) });
                (group, task)
            })
        });
        until(|| thread.is_finished()).await;
        let (group, task) = thread.join().unwrap();
        assert_eq!(task.await.unwrap(), here);
        group.await.unwrap();
    }
}

/// What the tasks of a cell of the grid came to.
#[derive(Default)]
struct Tally {
    dropped: AtomicUsize,
    completed: AtomicUsize,
}

async fn cell(tasks: usize, delay: usize) {
    let mut group: Group = Group::new();
    let tally = Arc::new(Tally::default());
    let handles: Vec<Task<()>> = (0..tasks)
        .map(|number| {
            let (count, tally) = (tally.clone(), tally.clone());
            let dropped = OnDrop::new(move || {
                count.dropped.fetch_add(1, Ordering::SeqCst);
            });
            let work = holding(dropped, async move {
                turns(number % 7).await;
                tally.completed.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
            match number % 3 {
                0 => group.spawn_with(|_| work),
                _ => group.spawn(work),
            }
        })
        .collect();
    for _ in 0..delay {
        yield_now().await;
    }
    group.cancel();
    group.wait().await.unwrap();
    let at = format!("{tasks} tasks, cancelled after {delay}");
    assert_eq!(group.len(), 0, "{at}");
    assert_eq!(tally.dropped.load(Ordering::SeqCst), tasks, "{at}");
    let mut completed = 0;
    for handle in handles {
        assert!(handle.is_finished() || tasks > 0, "{at}");
        match handle.await {
            Ok(()) => completed += 1,
            Err(why) => assert_eq!(why.reason(), Reason::GroupCancelled, "{at}"),
        }
    }
    // One that passes its last turn just before the end has completed; one that was stopped has not.
    assert_eq!(tally.completed.load(Ordering::SeqCst), completed, "{at}");
}

on_both_runtimes! {
    async fn grid_of_spawn_counts_and_cancel_delays() {
        for tasks in [0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 33, 63, 64, 65, 129] {
            for delay in 0..16 {
                cell(tasks, delay).await;
            }
        }
    }
}

/// A child context of a group's, made by a task, ends with the group and not before.
#[tokio::test]
async fn token_child_of_a_groups_context_ends_with_it() {
    let group: Group = Group::new();
    let (child, handle): (Context, _) = group.context().with_cancel();
    let (other, _kept) = group.context().with_cancel();
    handle.cancel();
    assert!(child.is_done() && !group.context().is_done() && !other.is_done());
    drop(group);
    assert!(other.is_done());
}

/// `#[track_caller]`: a spawn outside a runtime panics where the caller stands, and so does a limit of 0.
#[test]
fn spawn_outside_a_runtime_panics_at_the_callers_place() {
    let group: Group = Group::new();
    let spawner = group.spawner();
    let slot_group: Group = limited(1);
    let calls: [(&dyn Fn(), u32); 10] = [
        (&|| drop(group.spawn(pend())), line!()),
        (&|| drop(group.spawn_with(ignore)), line!()),
        (&|| drop(group.spawn_blocking(|_| Ok(()))), line!()),
        (&|| drop(group.try_spawn(pend())), line!()),
        (&|| drop(group.task("named").spawn(pend())), line!()),
        (&|| drop(spawner.spawn(pend())), line!()),
        (&|| drop(slot(&slot_group).spawn(pend())), line!()),
        (&|| drop(Group::<BoxError>::builder().limit(0)), line!()),
        (&|| group.set_limit(Some(0)), line!()),
        (&|| drop(group.task("named").try_spawn(pend())), line!()),
    ];
    for (call, line) in calls {
        assert_eq!(place_of_panic(call), (file!().to_owned(), line));
    }
    assert_eq!(group.len(), 0);
}

/// Where the panic hook is told that this thread panics.
fn place_of_panic(call: &dyn Fn()) -> (String, u32) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    thread_local! {
        static PLACE: std::cell::RefCell<Option<(String, u32)>> = const { std::cell::RefCell::new(None) };
        static IS_WATCHED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_WATCHED.get() {
                return before(info);
            }
            let place = info
                .location()
                .map(|place| (place.file().to_owned(), place.line()));
            PLACE.with(|told| *told.borrow_mut() = place);
        }));
    });
    IS_WATCHED.set(true);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
    IS_WATCHED.set(false);
    assert!(outcome.is_err());
    PLACE.with(|told| told.borrow_mut().take()).expect("told")
}
