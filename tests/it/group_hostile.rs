//! What a group goes through when tasks, destructors and callbacks use it in the worst moment: G9, G14, G16, G17, G19.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak, mpsc};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use errgroup::{BoxError, Context, ContextError, Group, Reason, Spawner, Task};
use futures::FutureExt;
use futures::executor::block_on;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::group_support::*;
use crate::support::{Log, OnWake, bomb, log_end, race, reports, watch_panics};

/// Holds a value until it is told to let go of it.
type Shared<T> = Arc<Mutex<Option<T>>>;

fn shared<T>() -> Shared<T> {
    Arc::default()
}

fn put<T>(place: &Shared<T>, value: T) {
    *place.lock().unwrap() = Some(value);
}

/// Drops what is there, with no lock held.
fn clear<T>(place: &Shared<T>) {
    let taken = place.lock().unwrap().take();
    drop(taken);
}

/// A runtime whose only blocking thread is taken; the sender keeps it so.
fn without_a_free_thread() -> (tokio::runtime::Runtime, mpsc::Sender<()>) {
    let runtime = one_blocking_thread();
    let (free, busy) = mpsc::channel::<()>();
    let (started, start) = mpsc::channel();
    runtime.spawn_blocking(move || {
        started.send(()).unwrap();
        let _ = busy.recv();
    });
    start.recv().unwrap();
    (runtime, free)
}

fn never_called(used: &Arc<()>) -> impl FnOnce(Context) -> Unit + Send + 'static {
    let used = used.clone();
    move |_| unreachable!("started with {used:?}")
}

on_both_runtimes! {
    async fn g14_destructor_of_a_task_drops_its_own_group_handle_and_spawner() {
        for round in 0..4 {
            let (owner, handle) = (shared::<Group>(), shared::<Task<()>>());
            let group: Group = Group::new();
            let (ctx, spawner) = (group.context().clone(), group.spawner());
            let (drop_owner, drop_handle) = (owner.clone(), handle.clone());
            let last = OnDrop::new(move || {
                spawner.spawn(async { Ok(()) });
                clear(&drop_handle);
                clear(&drop_owner);
                drop(spawner);
            });
            let (open, gate) = oneshot::channel::<()>();
            put(&handle, group.spawn(holding(last, async move {
                let _ = gate.await;
                match round % 2 {
                    0 => Ok(()),
                    _ => fail("last").await,
                }
            })));
            let sibling = group.spawn_with(ignore);
            put(&owner, group);
            tokio::task::yield_now().await;
            drop(open);
            ctx.done().await;
            assert_eq!(ctx.err().unwrap().reason(), Reason::GroupDropped);
            stopped_by_drop(sibling).await;
            until(|| owner.lock().unwrap().is_none() && handle.lock().unwrap().is_none()).await;
        }
    }

    async fn g12_destructor_of_a_task_spawns_one_whose_destructor_spawns_then_wait_covers_all() {
        fn chain(spawner: Spawner, left: usize, count: Arc<AtomicUsize>) -> impl Drop + Send {
            OnDrop::new(move || {
                count.fetch_add(1, Ordering::SeqCst);
                if left > 0 {
                    let next: Box<dyn std::any::Any + Send> = Box::new(chain(spawner.clone(), left - 1, count));
                    spawner.spawn(holding(next, async { Ok(()) }));
                }
            })
        }
        let mut group: Group = limited(1);
        let count = Arc::new(AtomicUsize::new(0));
        group.spawn(holding(chain(group.spawner(), 50, count.clone()), async { Ok(()) }));
        group.wait().await.unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 51);
    }

    /// Refused ones are dropped in the call, one in the other.
    async fn g9_destructor_of_a_refused_task_spawns_another() {
        let mut group: Group = Group::new();
        group.cancel();
        let count = Arc::new(AtomicUsize::new(0));
        let (spawner, counting) = (group.spawner(), count.clone());
        let inner = spawner.clone();
        let held = OnDrop::new(move || {
            let held = OnDrop::new(move || {
                counting.fetch_add(1, Ordering::SeqCst);
            });
            let why = inner.spawn(holding(held, pend())).now_or_never().unwrap().unwrap_err();
            assert_eq!(why.reason(), Reason::GroupCancelled);
        });
        let task = spawner.spawn(holding(held, pend()));
        assert_eq!(cancelled(task).await.reason(), Reason::GroupCancelled);
        assert_eq!(count.load(Ordering::SeqCst), 1);
        group.wait().await.unwrap();
    }

    async fn g1_handle_of_one_group_awaited_in_a_task_of_another_then_that_one_fails_by_itself() {
        let mut one: Group = Group::new();
        let mut other: Group = Group::new();
        let bad = one.task("bad").spawn(fail("disk full"));
        let task = other.task("reader").spawn(async { Ok(bad.await?) });
        let why = why(task).await;
        assert_eq!((why.reason(), why.task()), (Reason::TaskFailed, Some("reader")));
        let error = other.wait().await.unwrap_err();
        assert!(error.to_string().contains("\"bad\" failed: disk full"), "{error}");
        assert_eq!(one.wait().await.unwrap_err().to_string(), "disk full");
        assert_eq!((one.suppressed(), other.suppressed()), (0, 0));
    }

    async fn g1_handles_of_two_groups_wait_for_each_other_then_one_end_frees_both() {
        let (mut one, mut other): (Group, Group) = (Group::new(), Group::new());
        let (send, receive) = oneshot::channel::<Task<()>>();
        let a = one.spawn(async { Ok(receive.await?.await?) });
        let b = other.spawn(async { Ok(a.await?) });
        send.send(b).unwrap();
        one.cancel();
        one.wait().await.unwrap();
        let error = other.wait().await.unwrap_err();
        let end: &ContextError = error.downcast_ref().unwrap();
        assert_eq!(end.reason(), Reason::GroupCancelled);
    }

    async fn g10_limit_changes_inside_callbacks_of_the_end_then_nothing_starts() {
        let group = Arc::new(limited::<BoxError>(1));
        let weak = Arc::downgrade(&group);
        group.context().on_done(move |_| {
            let Some(group) = weak.upgrade() else { return };
            group.set_limit(None);
            group.set_limit(Some(7));
            group.set_limit(Some(1));
        }).detach();
        let tasks: Vec<_> = (0..5).map(|_| group.spawn_with(pass_on)).collect();
        let slot_waits = group.slot().now_or_never().is_none();
        assert!(slot_waits);
        tokio::task::yield_now().await;
        group.cancel();
        for task in tasks {
            assert_eq!(cancelled(task).await.reason(), Reason::GroupCancelled);
        }
        until(|| Arc::strong_count(&group) == 1).await;
        Arc::into_inner(group).unwrap().await.unwrap();
    }

    /// What a waker of the group's own does is foreign.
    async fn g14_waker_of_wait_uses_the_group_in_its_wake() {
        let mut group: Group = limited(1);
        let (spawner, handle) = (group.spawner(), shared::<Task<()>>());
        let refused = Arc::new(AtomicUsize::new(0));
        let count = refused.clone();
        let kept = handle.clone();
        let waker = Arc::new(OnWake(move || {
            clear(&kept);
            let _ = (spawner.len(), format!("{spawner:?}"));
            if spawner.try_spawn(async { Ok(()) }).is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }));
        let (open, gate) = oneshot::channel::<()>();
        put(&handle, group.spawn(async {
            let _ = gate.await;
            Ok(())
        }));
        let mut wait = group.wait();
        assert!(crate::support::poll(&mut wait, &waker).is_pending());
        drop(open);
        until(|| refused.load(Ordering::SeqCst) == 1).await;
        // What was spawned then is waited for.
        wait.await.unwrap();
    }

    async fn g16_parent_ends_spawner_spawns_and_owner_shuts_down_at_once_then_nothing_is_admitted_after() {
        for _ in 0..200 {
            let (parent, handle) = Context::background().with_cancel();
            let here = tokio::runtime::Handle::current();
            let group: Group = Group::builder().context(&parent).runtime(here).build();
            let spawner = group.spawner();
            let admitted = thread::scope(|scope| {
                let canceller = scope.spawn(|| handle.cancel());
                let spawning = scope.spawn(|| {
                    let mut admitted = Vec::new();
                    while let Ok(task) = spawner.try_spawn(std::future::ready(Ok(()))) {
                        admitted.push(task);
                    }
                    admitted
                });
                canceller.join().unwrap();
                spawning.join().unwrap()
            });
            group.shutdown(Duration::from_secs(60)).await.result().unwrap();
            assert!(spawner.is_empty());
            assert!(spawner.try_spawn(async { Ok(()) }).is_err());
            for task in admitted {
                drop(task.await);
            }
        }
    }

    /// The callback runs while `wait` ends the context.
    async fn g5_refused_in_a_callback_of_the_finish_with_a_destructor_that_panics_then_wait_resumes_it() {
        let mut group: Group = Group::new();
        let spawner = group.spawner();
        group.context().on_done(move |_| drop(spawner.spawn(pend_then_panic_in_drop("late")))).detach();
        group.spawn(async { Ok(()) });
        assert_eq!(panic_of(group.wait()).await, "late");
        assert_eq!(group.context().err().unwrap().reason(), Reason::GroupFinished);
        // Something was refused, and told of by the panic.
        group.wait().await.unwrap();
    }

    /// A slot that somebody else waits for while the owner waits for the tasks.
    async fn g10_slot_waited_for_through_a_spawner_then_it_is_granted_or_told_of_the_end() {
        for _ in 0..50 {
            let mut group: Group = limited(1);
            let spawner = group.spawner();
            group.spawn(takes_turns(3));
            let waiting = tokio::spawn(async move {
                match spawner.slot().await {
                    Ok(slot) => slot.spawn(async { Ok(()) }).await.map_err(|why| why.reason()),
                    Err(end) => Err(end.reason()),
                }
            });
            let outcome = group.wait().await;
            match waiting.await.unwrap() {
                Ok(()) => outcome.unwrap(),
                Err(reason) => assert_eq!(reason, Reason::GroupFinished),
            }
        }
    }

    /// The error type makes trouble wherever it can.
    async fn g19_errors_that_panic_in_display_drop_and_from_then_wait_says_so_once() {
        for _ in 0..5 {
            let mut group: Group<Trouble> = Group::new();
            let make: [fn() -> Trouble; 2] = [|| Trouble::Unprintable, Trouble::undroppable];
            for error in make {
                group.spawn_with(async move |ctx| -> Unit<Trouble> {
                    ctx.done().await;
                    Err(error())
                });
                group.spawn(async move { Unit::Err(error()) });
                group.spawn_blocking(move |_| Unit::Err(error()));
            }
            if let Err(error) = group.wait().await {
                drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(error))));
            }
            group.wait().await.unwrap();
            assert_eq!(group.len(), 0);
        }
    }
}

// Threads that are not there

/// F11: neither the handle nor `wait` waits for a thread to tell them.
#[test]
fn g9_end_without_a_free_thread_then_wait_and_handle_return() {
    let (runtime, free) = without_a_free_thread();
    runtime.block_on(patiently(async {
        let used = Arc::new(());
        let mut group: Group = Group::new();
        let task = group.spawn_blocking(never_called(&used));
        assert!(poll(&mut group.wait()).is_pending());
        group.cancel();
        assert_eq!(Arc::strong_count(&used), 1, "in the call");
        group.wait().await.unwrap();
        assert_eq!(cancelled(task).await.reason(), Reason::GroupCancelled);
    }));
    drop(free);
}

/// As above, of one that has waited for its permit.
#[test]
fn g9_end_without_a_free_thread_for_one_that_was_queued_then_wait_and_handle_return() {
    let (runtime, free) = without_a_free_thread();
    runtime.block_on(patiently(async {
        for by_limit in [false, true] {
            let used = Arc::new(());
            let mut group: Group = limited(1);
            let occupant = group.spawn(pend());
            let task = group.spawn_blocking(never_called(&used));
            idle().await;
            match by_limit {
                true => group.set_limit(Some(2)),
                false => occupant.abort(),
            }
            idle().await;
            group.cancel();
            assert_eq!(Arc::strong_count(&used), 1, "in the call");
            group.wait().await.unwrap();
            assert_eq!(cancelled(task).await.reason(), Reason::GroupCancelled);
        }
    }));
    drop(free);
}

#[test]
fn g9_deadline_passes_without_a_free_thread_then_wait_returns() {
    let (runtime, free) = without_a_free_thread();
    runtime.block_on(patiently(async {
        let used = Arc::new(());
        let ctx = Context::background().with_timeout(Duration::from_millis(5));
        let mut group: Group = Group::with_context(&ctx);
        let task = group.spawn_blocking(never_called(&used));
        let error = group.wait().await.unwrap_err();
        assert!(
            error
                .downcast_ref::<ContextError>()
                .unwrap()
                .is_deadline_exceeded()
        );
        assert_eq!(cancelled(task).await.reason(), Reason::DeadlineExceeded);
        assert_eq!(Arc::strong_count(&used), 1);
    }));
    drop(free);
}

#[test]
fn g11_aborted_without_a_free_thread_then_wait_and_handle_return() {
    let (runtime, free) = without_a_free_thread();
    runtime.block_on(patiently(async {
        for is_by_abort_handle in [false, true] {
            let used = Arc::new(());
            let mut group: Group = Group::new();
            let task = group.spawn_blocking(never_called(&used));
            match is_by_abort_handle {
                true => task.abort_handle().abort(),
                false => task.abort(),
            }
            assert!(task.is_finished());
            assert_eq!(Arc::strong_count(&used), 1, "in the call");
            assert!(!group.context().is_done());
            group.wait().await.unwrap();
            assert_eq!(own_end(task).await, Reason::TaskAborted);
        }
    }));
    drop(free);
}

#[test]
fn g6_group_dropped_and_g16_stopped_without_a_free_thread() {
    let (runtime, free) = without_a_free_thread();
    runtime.block_on(patiently(async {
        let used = Arc::new(());
        let group: Group = Group::new();
        let task = group.spawn_blocking(never_called(&used));
        drop(group);
        assert_eq!(cancelled(task).await.reason(), Reason::GroupDropped);
        let group: Group = Group::new();
        group.spawn_blocking(never_called(&used));
        let shutdown = group.shutdown(Duration::from_secs(60)).await;
        assert!(shutdown.stragglers.is_empty());
        assert_eq!(Arc::strong_count(&used), 1);
        // A group in a task that is aborted.
        let mut outer: Group = Group::new();
        let (filled, full) = oneshot::channel();
        let (ctx, held) = (outer.context().clone(), used.clone());
        let task = outer.spawn_with(async move |_| {
            let inner: Group = Group::with_context(&ctx);
            inner.spawn_blocking(never_called(&held));
            drop(held);
            filled.send(()).unwrap();
            inner.await
        });
        full.await.unwrap();
        task.abort();
        outer.wait().await.unwrap();
        assert_eq!(Arc::strong_count(&used), 1);
    }));
    drop(free);
}

#[test]
fn g17_runtime_dropped_without_a_free_thread_then_wait_and_handles_return() {
    let (runtime, free) = without_a_free_thread();
    let used = Arc::new(());
    let mut group: Group = Group::builder().runtime(runtime.handle().clone()).build();
    let held = used.clone();
    let task = group.spawn_blocking(move |_| {
        drop(held);
        Ok(())
    });
    runtime.shutdown_background();
    // The thread that is busy runs what waited for it, or drops it, as tokio likes.
    drop(free);
    let outcome = block_on(group.wait());
    assert_eq!(Arc::strong_count(&used), 1);
    match block_on(task) {
        Ok(()) => outcome.unwrap(),
        Err(why) => {
            assert_eq!(why.reason(), Reason::RuntimeGone);
            assert!(outcome.is_err());
        }
    }
}

/// F12: a stack that no system grants.
fn without_threads() -> tokio::runtime::Runtime {
    let mut builder = Builder::new_current_thread();
    builder
        .enable_all()
        .thread_stack_size(1 << 60)
        .build()
        .unwrap()
}

#[test]
fn g5_no_thread_is_to_be_had_then_wait_resumes_tokios_panic() {
    without_threads().block_on(patiently(async {
        let used = Arc::new(());
        let mut group: Group = Group::new();
        let sibling = group.spawn(pend());
        let task = group.spawn_blocking(never_called(&used));
        assert_eq!(own_end(task).await, Reason::TaskPanicked);
        assert_eq!(cancelled(sibling).await.reason(), Reason::TaskPanicked);
        let payload = payload_of(group.wait()).await;
        assert!(payload.is::<String>(), "a text of tokio's");
        assert_eq!(Arc::strong_count(&used), 1);
    }));
}

#[test]
fn g5_no_thread_is_to_be_had_for_one_that_was_queued_then_wait_resumes_tokios_panic() {
    without_threads().block_on(patiently(async {
        let used = Arc::new(());
        let mut group: Group = limited(1);
        let (open, gate) = oneshot::channel::<()>();
        group.spawn(async { Ok(gate.await?) });
        let task = group.spawn_blocking(never_called(&used));
        let behind = group.spawn(pend());
        idle().await;
        open.send(()).unwrap();
        assert_eq!(own_end(task).await, Reason::TaskPanicked);
        assert_eq!(
            group.context().err().unwrap().reason(),
            Reason::TaskPanicked
        );
        assert_eq!(cancelled(behind).await.reason(), Reason::TaskPanicked);
        assert!(payload_of(group.wait()).await.is::<String>());
        assert_eq!(Arc::strong_count(&used), 1);
    }));
}

/// A blocking task that is refused a thread gives its permit back, in a group that goes on.
#[test]
fn g18_no_thread_is_to_be_had_then_the_others_of_an_isolated_group_go_on() {
    without_threads().block_on(patiently(async {
        let mut group: Group = Group::builder().limit(1).isolated().build();
        for _ in 0..3 {
            let task = group.spawn_blocking(|_| Ok(()));
            assert_eq!(own_end(task).await, Reason::TaskPanicked);
        }
        assert_eq!(group.spawn(async { Ok("served") }).await.unwrap(), "served");
        group.wait().await.unwrap();
        assert_eq!(group.suppressed(), 3);
    }));
}

// Runtimes

/// Tasks are on one runtime, their owner on another, which has a clock of its own.
#[test]
fn two_runtimes_with_one_group() {
    for tasks in [current_thread, multi_thread] {
        let (tasks, owner) = (tasks(), multi_thread());
        let (stop, stopped) = oneshot::channel::<()>();
        let handle = tasks.handle().clone();
        let driver = thread::spawn(move || tasks.block_on(stopped));
        owner.block_on(patiently(async {
            let mut group: Group = Group::builder().runtime(handle.clone()).limit(2).build();
            let here = thread::current().id();
            let elsewhere = group.spawn(async { Ok(thread::current().id()) });
            assert_ne!(elsewhere.await.unwrap(), here);
            let mut slots = Vec::new();
            for _ in 0..20 {
                slots.push(group.slot().await.unwrap().spawn(takes_turns(3)));
            }
            // A task of this runtime spawns into the group, and waits for a task of the other.
            let spawner = group.spawner();
            let mixed = tokio::spawn(async move { spawner.spawn(async { Ok("there") }).await });
            assert_eq!(mixed.await.unwrap().unwrap(), "there");
            for slot in slots {
                slot.await.unwrap();
            }
            group.set_limit(None);
            group.spawn(pend());
            group.spawn(fail("there"));
            assert_eq!(group.wait().await.unwrap_err().to_string(), "there");
        }));
        drop(stop);
        let _ = driver.join().unwrap();
    }
}

/// Nobody drives the runtime of the tasks: a stop gives up, and the runtime's drop ends the wait.
#[test]
fn g16_runtime_is_not_driven_then_stop_gives_up_in_time() {
    let still = current_thread();
    let used = Arc::new(());
    let group: Group = Group::builder().runtime(still.handle().clone()).build();
    let tasks = [
        group.spawn(holding(used.clone(), pend())),
        group.spawn(holding(used.clone(), async { Ok(()) })),
    ];
    on_current_thread(async {
        let begin = Instant::now();
        let shutdown = group.shutdown(Duration::from_secs(3)).await;
        assert_eq!(
            begin.elapsed().as_secs(),
            6,
            "the grace, and as long to come to an await"
        );
        let aborted: Vec<_> = shutdown
            .stragglers
            .iter()
            .map(|task| task.was_aborted)
            .collect();
        assert_eq!(aborted, [false, false]);
        shutdown.result().unwrap();
    });
    assert_eq!(Arc::strong_count(&used), 3);
    drop(still);
    assert_eq!(Arc::strong_count(&used), 1);
    for task in tasks {
        assert_eq!(block_on(own_end(task)), Reason::RuntimeGone);
    }
}

#[test]
fn g17_runtime_is_not_driven_and_goes_then_run_and_wait_return() {
    let still = current_thread();
    let builder = Group::builder().runtime(still.handle().clone());
    let mut run = Box::pin(builder.run(async |group: Spawner| {
        let task = group.spawn(async { Ok(1) });
        group.spawn_with(ignore);
        Ok(task.await?)
    }));
    assert!(run.as_mut().now_or_never().is_none());
    let mut group: Group = Group::builder().runtime(still.handle().clone()).build();
    group.spawn(pend());
    let queued = group.slot().now_or_never().expect("no limit");
    drop(queued);
    drop(still);
    let error = block_on(run).unwrap_err();
    assert_eq!(
        error.downcast_ref::<ContextError>().unwrap().reason(),
        Reason::RuntimeGone
    );
    assert!(block_on(group.wait()).is_err());
}

/// F16: whether a runtime was lost is decided when the task is dropped.
#[test]
fn g17_task_aborted_then_the_runtime_dropped_then_wait_is_ok() {
    for runtime in [current_thread, multi_thread] {
        let runtime = runtime();
        let mut group: Group = Group::builder().runtime(runtime.handle().clone()).build();
        let tasks = [group.spawn(pend()), group.spawn_with(ignore)];
        let last = group.spawn(async { Ok(()) });
        runtime.block_on(async {
            for task in &tasks {
                task.abort();
            }
            last.await.unwrap();
            until(|| group.is_empty()).await;
        });
        drop(runtime);
        block_on(group.wait()).unwrap();
        for task in tasks {
            assert_eq!(block_on(own_end(task)), Reason::TaskAborted);
        }
    }
}

/// F14: the slot is free again.
#[test]
fn g10_spawn_through_a_slot_panics_outside_a_runtime_then_the_slot_is_free_again() {
    let group: Group = limited(1);
    let spawns: [fn(&Group); 4] = [
        |group| drop(slot(group).spawn(pend())),
        |group| drop(slot(group).spawn_with(ignore)),
        |group| drop(slot(group).spawn_blocking(|_| Ok(()))),
        |group| drop(slot(group).task("named").spawn(pend())),
    ];
    for spawn in spawns {
        let text = crate::support::panic_text(|| spawn(&group));
        assert!(text.contains("Group::builder().runtime(handle)"), "{text}");
        assert_eq!(group.len(), 0);
    }
    let held = slot(&group);
    assert!(group.slot().now_or_never().is_none());
    drop(held);
    drop(slot(&group));
}

/// F23: the list is in hand, whatever the tasks came to.
#[tokio::test(start_paused = true)]
async fn g5_task_panicked_then_shutdown_lists_the_stragglers_and_its_result_resumes() {
    let group: Group = Group::new();
    let stubborn = group.task("stubborn").spawn_with(ignore);
    idle().await;
    group.spawn(panics("boom"));
    idle().await;
    let shutdown = group.shutdown(Duration::from_secs(1)).await;
    let [straggler] = &shutdown.stragglers[..] else {
        panic!("{:?}", shutdown.stragglers);
    };
    assert_eq!(
        (straggler.id, straggler.name.as_deref()),
        (stubborn.id(), Some("stubborn"))
    );
    let failure = shutdown.failure().unwrap();
    assert_eq!(failure.panic().unwrap().downcast_ref(), Some(&"boom"));
    assert_eq!(crate::support::panic_text(|| shutdown.result()), "boom");
}

#[tokio::test(start_paused = true)]
async fn g5_stop_is_set_after_its_first_poll_then_that_is_a_panic() {
    let group: Group = Group::new();
    group.spawn_with(ignore);
    idle().await;
    let mut stop = group.stop();
    assert!(poll(&mut stop).is_pending());
    let text = crate::support::panic_text(|| drop(stop.grace(Duration::ZERO)));
    assert!(text.contains("before it is polled"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn g16_stop_without_a_word_has_a_grace_of_five_seconds() {
    let group: Group = Group::new();
    let (ctx, begin) = (group.context().clone(), Instant::now());
    group.spawn_with(ignore);
    idle().await;
    let stop = group.stop();
    assert!(!ctx.is_done(), "it begins at its first poll");
    let shutdown = stop.await;
    assert_eq!(begin.elapsed().as_secs(), 5);
    assert_eq!(shutdown.stragglers.len(), 1);
    shutdown.result().unwrap();
    // Its grace can be set.
    let group: Group = Group::new();
    group.spawn_with(ignore);
    idle().await;
    let begin = Instant::now();
    assert_eq!(
        group
            .stop()
            .grace(Duration::from_secs(2))
            .await
            .stragglers
            .len(),
        1
    );
    assert_eq!(begin.elapsed().as_secs(), 2);
}

/// The only one who could wake the body is a task of its group.
#[test]
fn g6_run_dropped_while_its_task_has_the_only_waker_of_the_body() {
    on_both(async {
        let (give, given) = oneshot::channel::<oneshot::Sender<()>>();
        let used = Arc::new(());
        let mut run = Box::pin(Group::run(
            &Context::background(),
            async |group: Spawner| {
                let (wake, woken) = oneshot::channel::<()>();
                let _ = give.send(wake);
                group.spawn(holding(used.clone(), async {
                    let _wake = given.await;
                    pend().await
                }));
                woken.await?;
                Ok(())
            },
        ));
        let (_, waker) = counting();
        assert!(poll_with(run.as_mut(), &waker).is_pending());
        idle().await;
        drop(run);
        until(|| Arc::strong_count(&used) == 1).await;
    });
}

fn on_both<F: Future<Output = ()>>(body: F) {
    on_multi_thread(body);
}

/// A task waits in its poll for what only the end of the group gives: the end does not wait for the task.
#[test]
fn g14_cancel_while_a_task_is_inside_its_poll_then_it_is_dropped_at_its_await() {
    on_multi_thread(async {
        let mut group: Group = Group::new();
        let (entered, inside) = oneshot::channel();
        let ctx = group.context().clone();
        let task = group.spawn(async move {
            entered.send(()).unwrap();
            ctx.done_blocking(None);
            pend().await
        });
        inside.await.unwrap();
        group.cancel();
        group.wait().await.unwrap();
        cancelled(task).await;
    });
}

#[test]
fn g14_handle_aborted_polled_and_dropped_on_three_threads_while_the_group_ends() {
    let runtime = multi_thread();
    for round in 0..200 {
        let used = Arc::new(());
        let mut group: Group = Group::builder().runtime(runtime.handle().clone()).build();
        let held = used.clone();
        let mut task = match round % 3 {
            0 => group.spawn(holding(held, pend())),
            1 => group.spawn_with(move |ctx| holding(held, pass_on(ctx))),
            _ => group.spawn_blocking(move |ctx| {
                ctx.done_blocking(None);
                drop(held);
                Ok(())
            }),
        };
        let (first, second) = (task.abort_handle(), task.abort_handle());
        let (_, waker) = counting();
        thread::scope(|scope| {
            scope.spawn(|| race(|| first.abort(), || second.abort()));
            scope.spawn(|| {
                let _ = poll_with(Pin::new(&mut task), &waker);
                drop(task);
            });
            group.cancel();
        });
        block_on(group.wait()).unwrap();
        assert_eq!(Arc::strong_count(&used), 1, "round {round}");
        assert!(first.is_finished() || round % 3 != 2);
    }
}

/// The group is dropped by the last one who holds it, wherever that is.
#[test]
fn g6_group_in_an_arc_dropped_by_a_task_a_callback_and_a_thread_at_once() {
    let runtime = multi_thread();
    for _ in 0..100 {
        let used = Arc::new(());
        let (parent, handle) = Context::background().with_cancel();
        let group: Arc<Group> = Arc::new(
            Group::builder()
                .context(&parent)
                .runtime(runtime.handle().clone())
                .build(),
        );
        let once = Arc::new(OnceLock::<Weak<Group>>::new());
        let _ = once.set(Arc::downgrade(&group));
        let held = group.clone();
        group.context().on_done(move |_| drop(held)).detach();
        let held = group.clone();
        group.spawn(holding((held, used.clone()), pend()));
        group.spawn(holding(used.clone(), spin()));
        race(|| handle.cancel(), || drop(group));
        block_on(until(|| Arc::strong_count(&used) == 1));
        block_on(until(|| once.get().unwrap().upgrade().is_none()));
    }
}

#[test]
fn g6_task_holds_the_group_that_holds_its_handle_then_the_parents_end_breaks_the_cycle() {
    on_multi_thread(async {
        for _ in 0..50 {
            let (parent, handle) = Context::background().with_cancel();
            let group: Group = Group::with_context(&parent);
            let (place, used) = (shared::<(Group, Task<()>)>(), Arc::new(()));
            let task = group.spawn(holding((place.clone(), used.clone()), pend()));
            put(&place, (group, task));
            drop(place);
            handle.cancel();
            until(|| Arc::strong_count(&used) == 1).await;
        }
    });
}

/// A task that spawns for ever stops at the end, and `wait` with it.
#[test]
fn g12_tasks_that_spawn_each_other_for_ever_stop_at_the_end() {
    fn next(spawner: Spawner) -> Pin<Box<dyn Future<Output = Unit> + Send>> {
        Box::pin(async move {
            spawner.spawn(next(spawner.clone()));
            spawner.spawn(async { Ok(()) });
            Ok(())
        })
    }
    on_multi_thread(async {
        let mut group: Group = Group::new();
        group.spawn(next(group.spawner()));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        group.cancel();
        group.wait().await.unwrap();
        assert!(group.is_empty());
    });
}

/// The waker of a body drops the body's future, and with it the last of its group but for the end that is on its way: what
/// the group's callback has captured goes there, and panics.
#[test]
fn g14_last_of_a_group_goes_during_its_end_and_panics_then_all_others_are_told() {
    watch_panics();
    let (ctx, cancel) = Context::background().with_cancel();
    let body = shared::<Pin<Box<dyn Future<Output = Unit> + Send>>>();
    let captured = bomb("captured by a callback");
    let run = Group::builder()
        .context(&ctx)
        .on_failure(move |_| {
            let _ = &captured;
        })
        .run(|_: Spawner| pend());
    put(&body, Box::pin(run) as _);
    let dropped = body.clone();
    let waker = Arc::new(OnWake(move || clear(&dropped)));
    let mut future = body.lock().unwrap().take().unwrap();
    assert!(poll_with(future.as_mut(), &Waker::from(waker)).is_pending());
    put(&body, future);
    let sibling: Group = Group::with_context(&ctx);
    let told = Log::new();
    log_end(sibling.context(), &told, "the sibling");
    log_end(&ctx, &told, "the parent");
    cancel.cancel();
    assert!(body.lock().unwrap().is_none());
    assert_eq!(reports("captured by a callback"), 1);
    assert_eq!(told.take().len(), 2);
}
