//! G1, G2, G9, G14: who fails first, what the siblings are told, what no longer starts, and foreign code that misbehaves.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use errgroup::{Context, Group, Reason, Spawner, Task};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::group_support::*;
use crate::support::no_leaks;

// G1

on_both_runtimes! {
    async fn g1_three_fail_in_an_order_then_the_first_decides_and_the_others_are_counted() {
        let mut group: Group = Group::new();
        let mut gates = Vec::new();
        let mut tasks = Vec::new();
        for text in ["a", "b", "c"] {
            let (open, gate) = oneshot::channel::<()>();
            gates.push(Some(open));
            tasks.push(Some(group.spawn_with(async move |_| {
                let _ = gate.await;
                fail(text).await
            })));
        }
        for next in [2, 0, 1] {
            drop(gates[next].take());
            assert_eq!(own_end(tasks[next].take().unwrap()).await, Reason::TaskFailed);
        }
        assert_eq!(group.wait().await.unwrap_err().to_string(), "c");
        assert_eq!(group.suppressed(), 2);
    }

    /// The failing task is held inside the end that its failure causes, until a sibling has failed because of that end.
    async fn g1_sibling_fails_because_of_the_end_then_the_cause_of_the_end_is_returned() {
        let mut group: Group = Group::new();
        let (started, start) = oneshot::channel();
        let sibling = group.spawn_blocking(|ctx| {
            started.send(()).unwrap();
            while !ctx.is_done() {
                thread::yield_now();
            }
            Err::<(), _>("the sibling's".into())
        });
        let end = group.context().on_done(move |_| {
            while !sibling.is_finished() {
                thread::yield_now();
            }
        });
        end.detach();
        start.await.unwrap();
        group.spawn(fail("the first"));
        assert_eq!(group.wait().await.unwrap_err().to_string(), "the first");
        assert_eq!(group.suppressed(), 1);
    }

    async fn g1_every_way_to_spawn_then_its_error_is_returned() {
        for (way, spawn_failing) in WAYS.iter().enumerate() {
            let mut group: Group = Group::new();
            let (task, _) = spawn_failing(&group);
            assert_eq!(own_end(task).await, Reason::TaskFailed, "way {way}");
            assert_eq!(group.wait().await.unwrap_err().to_string(), "disk full", "way {way}");
            assert_eq!(group.suppressed(), 0, "way {way}");
        }
    }

    async fn g1_values_reach_the_handles() {
        let mut group: Group = Group::new();
        let one = group.spawn(async { Ok(1) });
        let two = group.spawn_with(async |_| Ok(2));
        let three = group.spawn_blocking(|_| Ok(3));
        let four = group.try_spawn(async { Ok(4) }).ok().unwrap();
        group.wait().await.unwrap();
        let values = (one.await, two.await, three.await, four.await);
        assert!(matches!(values, (Ok(1), Ok(2), Ok(3), Ok(4))));
    }
}

// G2

type Way = fn(&Group) -> (Task<()>, u32);

/// Every way to spawn a task: an unnamed one that fails, and the line where it was spawned.
#[rustfmt::skip]
const WAYS: [Way; 14] = [
    |group| (group.spawn(fail("disk full")), line!()),
    |group| (group.spawn_with(|_| fail("disk full")), line!()),
    |group| (group.spawn_blocking(disk_full), line!()),
    |group| (unwrap(group.try_spawn(fail("disk full"))), line!()),
    |group| (slot(group).spawn(fail("disk full")), line!()),
    |group| (slot(group).spawn_with(|_| fail("disk full")), line!()),
    |group| (slot(group).spawn_blocking(disk_full), line!()),
    |group| (group.spawner().spawn(fail("disk full")), line!()),
    |group| (group.spawner().spawn_with(|_| fail("disk full")), line!()),
    |group| (group.spawner().spawn_blocking(disk_full), line!()),
    |group| (unwrap(group.spawner().try_spawn(fail("disk full"))), line!()),
    |group| (one_at_a_time(group).spawn(fail("disk full")), line!()),
    |group| (one_at_a_time(group).spawn_blocking(disk_full), line!()),
    |group| (slot(one_at_a_time(group)).spawn_blocking(disk_full), line!()),
];

fn one_at_a_time(group: &Group) -> &Group {
    group.set_limit(Some(1));
    group
}

fn disk_full(_ctx: Context) -> Unit {
    Err("disk full".into())
}

fn unwrap<T, F>(spawned: Result<Task<T>, F>) -> Task<T> {
    spawned.ok().expect("not refused")
}

on_both_runtimes! {
    async fn g2_unnamed_task_fails_then_the_end_tells_its_id_place_and_text() {
        for (way, spawn_failing) in WAYS.iter().enumerate() {
            let group: Group = Group::new();
            let (task, line) = spawn_failing(&group);
            let end = group.context().done().await;
            let place = end.location().unwrap();
            assert_eq!(end.reason(), Reason::TaskFailed, "way {way}");
            assert_eq!(end.task(), Some(&*task.id().to_string()), "way {way}");
            assert_eq!((place.file(), place.line()), (file!(), line), "way {way}");
            let text = format!("cancelled: task {} failed: disk full (spawned at {place})", task.id());
            assert_eq!(end.to_string(), text);
        }
    }
}

#[tokio::test]
async fn g2_named_task_fails_then_the_end_tells_its_name() {
    #[rustfmt::skip]
    let ways: [Way; 6] = [
        |group| (group.task("db").spawn(fail("disk full")), line!()),
        |group| (group.task("db").spawn_with(|_| fail("disk full")), line!()),
        |group| (group.task("db").spawn_blocking(disk_full), line!()),
        |group| (unwrap(group.task("db").try_spawn(fail("disk full"))), line!()),
        |group| (slot(group).task("db").spawn(fail("disk full")), line!()),
        |group| (group.spawner().task("db").spawn(fail("disk full")), line!()),
    ];
    for spawn_failing in ways {
        let group: Group = Group::new();
        let (_, line) = spawn_failing(&group);
        let end = group.context().done().await;
        let place = end.location().unwrap();
        assert_eq!(end.task(), Some("db"));
        assert_eq!((place.file(), place.line()), (file!(), line));
        let text = format!("cancelled: task \"db\" failed: disk full (spawned at {place})");
        assert_eq!(end.to_string(), text);
    }
}

// G9

on_both_runtimes! {
    async fn g9_spawned_after_the_end_then_dropped_unpolled_and_cancelled() {
        let group: Group = limited(1);
        let early = slot(&group);
        group.cancel();
        let used = Arc::new(());
        let polled = Arc::new(AtomicBool::new(false));
        let body = || {
            let (used, polled) = (used.clone(), polled.clone());
            move || {
                let _used = used;
                polled.store(true, Ordering::SeqCst);
                Ok(())
            }
        };
        let (a, b, c, d, e) = (body(), body(), body(), body(), body());
        let tasks = [
            group.spawn(async move { a() }),
            group.spawn_with(async move |_| b()),
            group.spawn_blocking(move |_| c()),
            early.spawn(async move { d() }),
            group.task("named").spawn(async move { e() }),
        ];
        assert_eq!(Arc::strong_count(&used), 1, "dropped in the call");
        assert_eq!(group.len(), 0);
        for task in tasks {
            assert!(task.is_finished());
            assert_eq!(cancelled(task).await.reason(), Reason::GroupCancelled);
        }
        assert!(!polled.load(Ordering::SeqCst));
    }

    async fn g9_try_spawn_after_the_end_gives_the_future_back() {
        let group: Group = Group::new();
        group.cancel();
        let future = group.try_spawn(async { Ok(7) }).err().unwrap();
        assert_eq!(future.await.unwrap(), 7, "unpolled and whole");
    }

    async fn g9_cleanup_group_runs_after_the_end() {
        let group: Group = Group::new();
        group.cancel();
        let mut cleanup: Group = Group::with_context(&group.context().without_cancel());
        let task = cleanup.spawn(async { Ok("cleaned up") });
        cleanup.wait().await.unwrap();
        assert_eq!(task.await.unwrap(), "cleaned up");
    }
}

/// Spawned, but not polled yet.
#[tokio::test]
async fn g9_end_before_the_first_poll_then_dropped_unpolled_and_cancelled() {
    let group: Group = Group::new();
    let used = Arc::new(());
    let (one, two) = (used.clone(), used.clone());
    let never = |_| -> Unit { unreachable!("it was started") };
    let dropped = group.spawn(async move { never(one) });
    let cooperative = group.spawn_with(async move |_| never(two));
    group.cancel();
    assert_eq!(cancelled(dropped).await.reason(), Reason::GroupCancelled);
    assert_eq!(
        cancelled(cooperative).await.reason(),
        Reason::GroupCancelled
    );
    assert_eq!(Arc::strong_count(&used), 1);
}

#[test]
fn g9_end_before_a_thread_was_free_then_the_closure_is_dropped_uncalled() {
    one_blocking_thread().block_on(patiently(async {
        let (free, busy) = mpsc::channel::<()>();
        let occupied = tokio::task::spawn_blocking(move || busy.recv());
        let mut group: Group = Group::new();
        let used = Arc::new(());
        let one = used.clone();
        let task = group.spawn_blocking(move |_| -> Unit { unreachable!("started with {one:?}") });
        group.cancel();
        drop(free);
        let _ = occupied.await;
        assert_eq!(cancelled(task).await.reason(), Reason::GroupCancelled);
        assert_eq!(Arc::strong_count(&used), 1);
        group.wait().await.unwrap();
    }));
}

#[tokio::test]
async fn g9_queued_at_the_end_then_dropped_unpolled_and_cancelled() {
    let mut group: Group = limited(1);
    let used = Arc::new(());
    group.spawn(pend());
    let never = |_| -> Unit { unreachable!("it was started") };
    let (one, two, three) = (used.clone(), used.clone(), used.clone());
    let queued = [
        group.spawn(async move { never(one) }),
        group.spawn_with(async move |_| never(two)),
        group.spawn_blocking(move |_| never(three)),
    ];
    idle().await;
    group.cancel();
    for task in queued {
        assert_eq!(cancelled(task).await.reason(), Reason::GroupCancelled);
    }
    assert_eq!(Arc::strong_count(&used), 1);
    group.wait().await.unwrap();
}

// G14: cancellation is checked before each poll

on_both_runtimes! {
    async fn g14_self_waking_task_then_cancelled_all_the_same() {
        let mut group: Group = Group::new();
        let task = group.spawn(spin());
        tokio::task::yield_now().await;
        group.cancel();
        assert_eq!(cancelled(task).await.reason(), Reason::GroupCancelled);
        group.wait().await.unwrap();
    }

    async fn g14_thousand_self_waking_tasks_leave_room_for_others() {
        let mut group: Group = Group::new();
        for _ in 0..1_000 {
            group.spawn(spin());
        }
        let other = group.spawn(async {
            turns(20).await;
            Ok("through")
        });
        assert_eq!(other.await.unwrap(), "through");
        assert!(matches!(tokio::spawn(turns(20)).await, Ok(())));
        group.cancel();
        group.wait().await.unwrap();
    }
}

/// No timer can run while a task is always ready.
#[tokio::test(start_paused = true)]
async fn g14_self_waking_task_sees_the_deadline_of_the_parent() {
    let parent = Context::background().with_timeout(Duration::from_secs(1));
    let deadline = parent.deadline().unwrap();
    let mut group: Group = Group::with_context(&parent);
    group.spawn(std::future::poll_fn(move |cx| -> Poll<Unit> {
        assert!(Instant::now() < deadline, "polled after the deadline");
        cx.waker().wake_by_ref();
        Poll::Pending
    }));
    idle().await;
    tokio::time::advance(Duration::from_secs(1)).await;
    let error = group.wait().await.unwrap_err();
    assert!(
        error.to_string().starts_with("deadline exceeded (1s"),
        "{error}"
    );
}

/// The end comes between the look at the context and the leaving of the waker, and nobody else wakes the task.
#[tokio::test(start_paused = true)]
async fn g14_end_during_the_poll_then_the_task_is_stopped() {
    patiently(async {
        let (parent, handle) = Context::background().with_cancel();
        let mut group: Group = Group::with_context(&parent);
        let task = group.spawn(std::future::poll_fn(move |_| -> Poll<Unit> {
            handle.cancel();
            Poll::Pending
        }));
        assert_eq!(cancelled(task).await.reason(), Reason::Cancelled);
        assert!(group.wait().await.is_err());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn g14_group_dropped_during_the_poll_of_a_task_that_stops_itself_then_it_is_aborted() {
    patiently(async {
        let owner = Arc::new(Mutex::new(None));
        let group: Group = Group::new();
        let owned = owner.clone();
        let task = group.spawn_with(async move |_| {
            drop(owned.lock().unwrap().take());
            pend().await
        });
        *owner.lock().unwrap() = Some(group);
        assert_eq!(own_end(task).await, Reason::TaskAborted);
    })
    .await;
}

#[test]
fn g14_woken_from_other_threads_during_the_end_then_each_task_ends_once() {
    for _ in 0..20 {
        on_multi_thread(async {
            let mut group: Group = Group::new();
            let ended = Arc::new(AtomicUsize::new(0));
            let (leave, wakers) = mpsc::channel::<std::task::Waker>();
            for _ in 0..100 {
                let (ended, leave) = (ended.clone(), leave.clone());
                let count = OnDrop::new(move || {
                    ended.fetch_add(1, Ordering::SeqCst);
                });
                let left = std::future::poll_fn(move |cx| -> Poll<Unit> {
                    let _ = leave.send(cx.waker().clone());
                    Poll::Pending
                });
                group.spawn(holding(count, left));
            }
            drop(leave);
            let wakers: Vec<_> = wakers.iter().take(100).collect();
            let start = Arc::new(std::sync::Barrier::new(2));
            let other = start.clone();
            let waking = thread::spawn(move || {
                other.wait();
                for _ in 0..20 {
                    wakers.iter().for_each(std::task::Waker::wake_by_ref);
                }
            });
            start.wait();
            group.cancel();
            group.wait().await.unwrap();
            assert_eq!(ended.load(Ordering::SeqCst), 100);
            waking.join().unwrap();
        });
    }
}

// G14: foreign code meets no lock, and its panics stop nobody

on_both_runtimes! {
    async fn g14_callback_of_the_end_re_enters_everything() {
        let group: Arc<Group> = Arc::new(limited(2));
        let task = group.spawn(pend());
        let queued = [group.spawn(pend()), group.spawn(pend())];
        let (tell, told) = mpsc::channel();
        let inner = group.clone();
        let end = group.context().on_done(move |_| {
            inner.cancel();
            inner.set_limit(Some(1));
            inner.set_limit(None);
            task.abort();
            inner.spawn(pend());
            let refused = inner.spawner().spawn(pend()).is_finished() && inner.try_spawn(pend()).is_err();
            tell.send((refused, inner.suppressed(), inner.len() <= 3)).unwrap();
        });
        drop(group.spawner());
        group.cancel();
        drop(end);
        let told = told.try_recv().unwrap();
        assert!(matches!(told, (_, 0, true)), "{told:?}");
        for task in queued {
            cancelled(task).await;
        }
        Arc::into_inner(group).unwrap().await.unwrap();
    }

    async fn g14_callback_of_the_end_panics_then_the_end_goes_on() {
        let mut group: Group = Group::new();
        let end = group.context().on_done(|_| quiet_panic("callback"));
        let task = group.spawn(pend());
        group.cancel();
        cancelled(task).await;
        group.wait().await.unwrap();
        drop(end);
    }

    async fn g14_destructor_of_a_task_uses_the_group() {
        let group: Arc<Mutex<Option<Group>>> = Arc::default();
        let inside = group.clone();
        let spawner = Arc::new(Mutex::new(None::<Spawner>));
        let used = spawner.clone();
        let (tell, told) = oneshot::channel();
        let last = OnDrop::new(move || {
            let spawner = used.lock().unwrap().take().unwrap();
            let is_refused = spawner.try_spawn(pend()).is_err();
            let group = inside.lock().unwrap().take().unwrap();
            group.set_limit(Some(1));
            group.cancel();
            drop(group);
            let _ = tell.send(is_refused);
        });
        let owned: Group = Group::new();
        *spawner.lock().unwrap() = Some(owned.spawner());
        let task = owned.spawn(holding(last, pend()));
        let context = owned.context().clone();
        *group.lock().unwrap() = Some(owned);
        tokio::task::yield_now().await;
        task.abort();
        assert!(!told.await.unwrap(), "aborting a task does not end the group");
        assert_eq!(context.err().unwrap().reason(), Reason::GroupCancelled);
    }

    async fn g14_destructor_drops_the_last_context() {
        let (parent, handle) = Context::background().with_cancel();
        let group: Group = Group::with_context(&parent);
        let task = group.spawn(holding((group.context().clone(), group.spawner()), pend()));
        drop((group, parent));
        stopped_by_drop(task).await;
        handle.cancel();
    }

    async fn g14_error_whose_text_panics_then_returned_and_the_siblings_are_cancelled() {
        let mut group: Group<Trouble> = Group::new();
        let sibling = group.spawn(std::future::pending::<Result<(), _>>());
        group.spawn(async { Err::<(), _>(Trouble::Unprintable) });
        let end = cancelled(sibling).await;
        assert_eq!(end.reason(), Reason::TaskFailed);
        assert!(matches!(group.wait().await, Err(Trouble::Unprintable)));
    }

    async fn g14_second_error_whose_destructor_panics_then_counted_and_nobody_else_hurt() {
        let mut group: Group<Trouble> = Group::new();
        let second = group.spawn_with(async |ctx| {
            ctx.done().await;
            Err::<(), _>(Trouble::undroppable())
        });
        group.spawn(async { Err::<(), _>(Trouble::Own("first")) });
        assert_eq!(own_end(second).await, Reason::TaskFailed);
        assert!(matches!(group.wait().await, Err(Trouble::Own("first"))));
        assert_eq!(group.suppressed(), 1);
    }

    async fn g14_error_that_cannot_be_made_of_the_end_then_a_task_fails_with_its_own() {
        let mut group: Group<NoConversion> = Group::new();
        let task = group.spawn_with(async |ctx| {
            ctx.done().await;
            Err::<(), _>(NoConversion)
        });
        tokio::task::yield_now().await;
        until(|| group.len() == 1).await;
        group.cancel();
        match why(task).await.reason() {
            Reason::TaskFailed => assert!(group.wait().await.is_err()),
            // It was not polled before the end.
            other => assert_eq!(other, Reason::GroupCancelled),
        }
    }

    async fn g14_error_that_cannot_be_made_of_the_end_then_wait_panics_once() {
        let (parent, handle) = Context::background().with_cancel();
        let mut group: Group<NoConversion> = Group::with_context(&parent);
        group.spawn(std::future::pending::<Result<(), _>>());
        handle.cancel();
        assert_eq!(panic_of(group.wait()).await, "no conversion");
        assert_eq!(group.len(), 0);
        assert!(group.wait().await.is_ok());
        no_leaks(&parent);
    }
}

/// Cannot be made of a context's end.
#[derive(Debug)]
struct NoConversion;

impl From<errgroup::ContextError> for NoConversion {
    fn from(_: errgroup::ContextError) -> Self {
        quiet_panic("no conversion")
    }
}

impl std::fmt::Display for NoConversion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a trouble of its own")
    }
}

/// An error nobody asks for is dropped with its group, on whatever thread that is: the runtime lives.
#[test]
fn g14_group_dropped_with_an_error_whose_destructor_panics_then_the_siblings_end() {
    on_current_thread(async {
        let group: Group<Trouble> = Group::new();
        let sibling = group.spawn_with(async |_| std::future::pending::<Result<(), _>>().await);
        let failed = group.spawn(async { Err::<(), _>(Trouble::undroppable()) });
        assert_eq!(own_end(failed).await, Reason::TaskFailed);
        let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(group)));
        assert!(
            dropped.is_ok(),
            "the task still shares what the group owned"
        );
        assert_eq!(own_end(sibling).await, Reason::TaskAborted);
        assert!(tokio::spawn(async {}).await.is_ok());
    });
}
