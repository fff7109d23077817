//! G3 and G19 for what tasks return: a value that nobody fetches is gone when `wait` returns, and so is an error; whatever
//! their destructors and their `Display` do.

use std::fmt;
use std::future::IntoFuture;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;

use errgroup::{BoxError, ContextError, Group, Reason, Task};
use futures::FutureExt;
use futures::executor::block_on;

use crate::group_support::*;
use crate::support::{Counter, no_leaks};

/// How the handle of a task with a value goes, while the task runs, ends, or has ended.
const HANDLES: [fn(Task<Arc<()>>); 6] = [
    drop,
    |mut task| assert!(poll(&mut task).is_pending() || task.is_finished()),
    |task| {
        while !task.is_finished() {
            thread::yield_now();
        }
        drop(task);
    },
    |task| drop(thread::spawn(move || drop(task)).join()),
    |task| {
        task.abort();
        drop(task);
    },
    |task| drop((task.abort_handle(), task)),
];

type Spawn = fn(&Group, Arc<()>) -> Task<Arc<()>>;

/// Spawns one task that returns a value, in each way.
const WAYS: [Spawn; 5] = [
    |group, value| group.spawn(async { Ok(value) }),
    |group, value| {
        group.spawn(async {
            turns(2).await;
            Ok(value)
        })
    },
    |group, value| group.spawn_with(async |_| Ok(value)),
    |group, value| group.spawn_blocking(|_| Ok(value)),
    |group, value| group.task("named").spawn(async { Ok(value) }),
];

/// Seen by `probe` when it is dropped: how often `wait` had been woken by then.
struct Found(Arc<AtomicUsize>, Arc<Counter>);

impl Drop for Found {
    fn drop(&mut self) {
        self.0.store(self.1.woken(), Ordering::SeqCst);
    }
}

type OnDisplay = Box<dyn FnMut() + Send>;

/// A text that counts how often it is asked for, and says what it is told to. The end does not show in it, so that nobody
/// compares it.
#[derive(Clone)]
struct Counted {
    asked: Arc<AtomicUsize>,
    /// Alive as long as the error.
    held: Arc<()>,
    on_display: Arc<Mutex<Option<OnDisplay>>>,
}

impl Counted {
    fn new() -> Self {
        Self {
            asked: Arc::default(),
            held: Arc::default(),
            on_display: Arc::default(),
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Whether every error made of it is gone.
    fn is_gone(&self) -> bool {
        Arc::strong_count(&self.held) == 1
    }

    fn on_display(&self, f: impl FnMut() + Send + 'static) {
        *self.on_display.lock().unwrap() = Some(Box::new(f));
    }
}

impl From<ContextError> for Counted {
    fn from(_: ContextError) -> Self {
        Self::new()
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let on_display = self.on_display.lock().unwrap().take();
        if let Some(mut on_display) = on_display {
            on_display();
        }
        f.write_str("counted")
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

/// A group with a task that fails when others have failed.
async fn with_late(error: &Counted) -> (Group<Counted>, Task<()>) {
    let group: Group<Counted> = Group::new();
    let late = error.clone();
    let (started, start) = tokio::sync::oneshot::channel();
    let task = group.spawn_with(async |ctx| {
        let _ = started.send(());
        ctx.done().await;
        Err(late)
    });
    start.await.unwrap();
    drop(group.spawn(async { Err::<(), _>(Counted::new()) }).await);
    (group, task)
}

on_both_runtimes! {
    async fn g3_handle_goes_at_any_time_then_the_value_is_gone_when_wait_returns() {
        for way in WAYS {
            for (number, handle) in HANDLES.iter().enumerate() {
                for _ in 0..8 {
                    let value = Arc::new(());
                    let mut group: Group = Group::new();
                    let task = way(&group, value.clone());
                    // A current-thread runtime cannot end it meanwhile.
                    if number == 2 {
                        until(|| task.is_finished()).await;
                    }
                    handle(task);
                    let _ = group.wait().await;
                    assert_eq!(Arc::strong_count(&value), 1, "handle {number}");
                }
            }
        }
    }

    async fn g3_port_is_free_when_wait_returns() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        for round in 0..200 {
            let mut group: Group = Group::new();
            let task = group.spawn(async move { Ok(TcpListener::bind(address)?) });
            let watched = task.abort_handle();
            if round % 2 == 1 {
                tokio::task::yield_now().await;
            }
            drop(task);
            group.wait().await.unwrap();
            assert!(watched.is_finished() || round % 2 == 0);
            assert!(TcpListener::bind(address).is_ok(), "round {round}");
        }
    }

    async fn g3_run_and_stop_return_then_values_are_gone_too() {
        for _ in 0..50 {
            let value = Arc::new(());
            let run = Group::run(&errgroup::Context::background(), async |group: errgroup::Spawner| {
                for way in [0, 1] {
                    let value = value.clone();
                    group.spawn(async move {
                        turns(way).await;
                        Ok(value)
                    });
                }
                Ok(())
            });
            run.await.unwrap();
            assert_eq!(Arc::strong_count(&value), 1);
            let group: Group = Group::new();
            for way in WAYS {
                way(&group, value.clone());
            }
            drop(group.shutdown(std::time::Duration::from_secs(60)).await);
            assert_eq!(Arc::strong_count(&value), 1);
        }
    }

    async fn g3_handle_is_held_then_the_value_is_kept_for_it() {
        let value = Arc::new(());
        let mut group: Group = Group::new();
        let tasks = WAYS.map(|way| way(&group, value.clone()));
        group.wait().await.unwrap();
        assert_eq!(group.len(), 0);
        for task in tasks {
            drop(task.await.unwrap());
        }
        assert_eq!(Arc::strong_count(&value), 1);
    }

    async fn g3_handle_dropped_after_wait_then_the_value_is_dropped_in_that_call_and_nothing_is_left() {
        let value = Arc::new(());
        let mut group: Group = Group::new();
        let tasks = WAYS.map(|way| way(&group, value.clone()));
        for task in &tasks {
            until(|| task.is_finished()).await;
        }
        group.wait().await.unwrap();
        drop(tasks);
        assert_eq!(Arc::strong_count(&value), 1);
        assert_eq!(group.len(), 0);
        group.wait().await.unwrap();
    }

    /// The handle is gone: the destructor is part of the task.
    async fn g3_destructor_of_a_value_spawns_then_wait_covers_it() {
        let mut group: Group = Group::new();
        let done = Arc::new(AtomicUsize::new(0));
        for is_blocking in [false, true] {
            let (spawner, count) = (group.spawner(), done.clone());
            let value = OnDrop::new(move || {
                spawner.spawn(async move {
                    turns(5).await;
                    count.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                });
            });
            match is_blocking {
                false => drop(group.spawn(async { Ok(value) })),
                true => drop(group.spawn_blocking(|_| Ok(value))),
            }
        }
        group.wait().await.unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 2);
    }

    async fn g19_destructor_of_a_value_panics_then_nobody_is_hurt() {
        for when in 0..3 {
            let mut group: Group = limited(2);
            let tasks = [
                group.spawn(async { Ok(Trouble::undroppable()) }),
                group.spawn_blocking(|_| Ok(Trouble::undroppable())),
            ];
            if when == 1 {
                for task in &tasks {
                    until(|| task.is_finished()).await;
                }
            }
            let sibling = group.spawn(async { Ok("served") });
            if when < 2 {
                // tokio contains the one, the group the other.
                assert!(catch_unwind(AssertUnwindSafe(|| drop(tasks))).is_ok());
                group.wait().await.unwrap();
            } else {
                group.wait().await.unwrap();
                assert!(catch_unwind(AssertUnwindSafe(|| drop(tasks))).is_ok());
            }
            assert_eq!(sibling.await.unwrap(), "served");
            assert_eq!(group.len(), 0);
        }
    }

    async fn g19_destructor_of_a_value_ends_the_parent() {
        let (parent, handle) = errgroup::Context::background().with_cancel();
        let mut group: Group = Group::with_context(&parent);
        let sibling = group.spawn(pend());
        drop(group.spawn(async move { Ok(OnDrop::new(move || handle.cancel())) }));
        assert_eq!(cancelled(sibling).await.reason(), Reason::Cancelled);
        assert!(group.wait().await.is_err());
    }

    async fn g19_destructor_of_a_value_drops_its_own_group() {
        let owner = Arc::new(Mutex::new(None::<Group>));
        let held = owner.clone();
        let group: Group = Group::new();
        let ctx = group.context().clone();
        let stubborn = group.spawn_with(ignore);
        let (open, gate) = tokio::sync::oneshot::channel::<()>();
        let task = group.spawn(async move {
            let _ = gate.await;
            Ok(OnDrop::new(move || {
                let taken = held.lock().unwrap().take();
                drop(taken);
            }))
        });
        drop(task);
        *owner.lock().unwrap() = Some(group);
        drop(open);
        ctx.done().await;
        assert_eq!(ctx.err().unwrap().reason(), Reason::GroupDropped);
        stopped_by_drop(stubborn).await;
        no_leaks(&ctx);
    }

    // Late errors

    async fn late_error_is_told_once_however_often_its_handle_is_asked_and_cloned() {
        let error = Counted::new();
        let (mut group, late) = with_late(&error).await;
        let why = why(late).await;
        assert_eq!(error.asked(), 1);
        assert!(error.is_gone(), "it was told");
        assert!(why.to_string().contains("failed: counted (spawned at"), "{why}");
        let _ = (why.clone().to_string(), format!("{why:?}"));
        assert!(group.wait().await.is_err());
        assert_eq!(error.asked(), 1);
        assert_eq!(group.suppressed(), 1);
    }

    async fn late_error_whose_handle_is_held_is_gone_when_wait_returns_and_can_be_asked_for_after() {
        for round in 0..20 {
            let error = Counted::new();
            let (mut group, late) = with_late(&error).await;
            assert!(group.wait().await.is_err());
            assert!(error.is_gone(), "round {round}");
            assert_eq!(error.asked(), 1);
            let why = why(late).await;
            assert!(why.to_string().contains("failed: counted"), "{why}");
            assert_eq!(error.asked(), 1);
        }
    }

    async fn late_error_whose_handle_is_dropped_is_gone_when_wait_returns() {
        for round in 0..20 {
            let error = Counted::new();
            let (mut group, late) = with_late(&error).await;
            if round % 2 == 0 {
                until(|| late.is_finished()).await;
            }
            drop(late);
            assert!(group.wait().await.is_err());
            assert!(error.is_gone(), "round {round}");
            assert!(error.asked() <= 1);
        }
    }

    async fn late_error_whose_text_panics_or_whose_destructor_does_hurts_nobody() {
        for is_asked in [true, false] {
            let mut group: Group<Trouble> = Group::new();
            let late = [Trouble::Unprintable, Trouble::undroppable()];
            let (started, mut start) = tokio::sync::mpsc::channel(2);
            let tasks = late.map(|error| {
                let started = started.clone();
                group.spawn_with(async move |ctx| -> Unit<Trouble> {
                    let _ = started.try_send(());
                    ctx.done().await;
                    Err(error)
                })
            });
            start.recv().await.unwrap();
            start.recv().await.unwrap();
            let first = group.spawn_with(async |_| Unit::Err(Trouble::Own("first")));
            assert_eq!(own_end(first).await, Reason::TaskFailed);
            if is_asked {
                for task in tasks {
                    assert_eq!(why(task).await.reason(), Reason::TaskFailed);
                }
            } else {
                drop(tasks);
            }
            assert_eq!(group.wait().await.unwrap_err().to_string(), "first");
        }
    }

    async fn display_of_a_late_error_polls_its_own_handle() {
        let error = Counted::new();
        let (mut group, late) = with_late(&error).await;
        until(|| late.is_finished()).await;
        let late = Arc::new(Mutex::new(Some(late)));
        let (tell, told) = mpsc::channel();
        error.on_display({
            let late = late.clone();
            move || {
                let mut late = late.lock().unwrap();
                let task = late.as_mut().unwrap();
                tell.send(poll(task).is_pending()).unwrap();
            }
        });
        assert!(group.wait().await.is_err());
        assert!(told.try_recv().unwrap(), "its text is being made");
        assert!(error.is_gone());
        let late = late.lock().unwrap().take().unwrap();
        assert!(late.is_finished());
        let why = why(late).await;
        assert!(why.to_string().contains("failed: counted"), "{why}");
    }

    async fn display_of_a_late_error_drops_its_group() {
        let error = Counted::new();
        let (group, late) = with_late(&error).await;
        let ctx = group.context().clone();
        let owner = Arc::new(Mutex::new(Some(group)));
        error.on_display(move || {
            let taken = owner.lock().unwrap().take();
            drop(taken);
        });
        let why = why(late).await;
        assert!(why.to_string().contains("failed: counted"), "{why}");
        assert!(error.is_gone());
        assert_eq!(ctx.err().unwrap().reason(), Reason::TaskFailed);
        no_leaks(&ctx);
    }

    async fn display_of_the_first_error_uses_its_group() {
        let group: Group<Counted> = Group::new();
        let (spawner, error) = (group.spawner(), Counted::new());
        error.on_display(move || {
            drop(spawner.try_spawn(async { Err::<(), _>(Counted::new()) }));
            spawner.spawn(async { Ok(()) });
            let _ = (spawner.len(), format!("{spawner:?}"));
        });
        let thrown = error.clone();
        group.spawn(async { Err::<(), _>(thrown) });
        let first = group.await.unwrap_err();
        assert_eq!(error.asked(), 1);
        drop(first);
    }

    /// An isolated server does not keep the errors of handles that are gone.
    async fn late_errors_of_an_isolated_group_do_not_pile_up() {
        let error = Counted::new();
        let group: Group<Counted> = Group::builder().isolated().build();
        for _ in 0..500 {
            let thrown = error.clone();
            let task = group.spawn(async { Err::<(), _>(thrown) });
            until(|| task.is_finished()).await;
        }
        until(|| group.is_empty()).await;
        let left = Arc::strong_count(&error.held);
        assert!(left < 100, "{left}");
        assert_eq!(group.suppressed(), 500);
        drop(group);
        until(|| error.is_gone()).await;
    }
}

/// Nobody can ask for it any more, on a runtime where nothing is on its way.
#[tokio::test]
async fn late_error_that_nobody_asks_for_has_no_text() {
    let error = Counted::new();
    let (mut group, late) = with_late(&error).await;
    drop(late);
    assert!(group.wait().await.is_err());
    assert!(error.is_gone());
    assert_eq!(error.asked(), 0);
    // Nor where the handle goes after the task's end.
    let (mut group, late) = with_late(&error).await;
    until(|| late.is_finished()).await;
    drop(late);
    assert!(group.wait().await.is_err());
    assert!(error.is_gone());
    assert_eq!(error.asked(), 0);
}

/// The handle is dropped while the task ends, on another thread.
#[test]
fn g3_handle_dropped_during_the_end_then_the_value_is_gone_when_wait_returns() {
    let runtime = multi_thread();
    let rounds = 1_500;
    let (hand, handles) = mpsc::channel::<(Task<Arc<()>>, Arc<Barrier>)>();
    let dropper = thread::spawn(move || {
        for (task, both) in handles {
            both.wait();
            drop(task);
        }
    });
    runtime.block_on(async {
        for round in 0..rounds {
            let (value, both) = (Arc::new(()), Arc::new(Barrier::new(2)));
            let mut group: Group = Group::new();
            let (held, meet) = (value.clone(), both.clone());
            let task = match round % 3 {
                0 => group.spawn_blocking(move |_| {
                    meet.wait();
                    Ok(held)
                }),
                _ => group.spawn(async move {
                    meet.wait();
                    Ok(held)
                }),
            };
            hand.send((task, both)).unwrap();
            group.wait().await.unwrap();
            // The handle may still be on its way into its drop, and then it has the value.
            if Arc::strong_count(&value) > 1 {
                until(|| Arc::strong_count(&value) == 1).await;
            }
        }
    });
    drop(hand);
    dropper.join().unwrap();
}

/// The destructor of a value that nobody fetches comes before `wait` is woken.
#[test]
fn g3_value_is_dropped_before_wait_is_woken() {
    for is_blocking in [false, true] {
        on_multi_thread(async move {
            let (wakes, waker) = counting();
            let found = Arc::new(AtomicUsize::new(usize::MAX));
            let value = Found(found.clone(), wakes.clone());
            let (open, gate) = mpsc::channel::<()>();
            let mut group: Group = Group::new();
            match is_blocking {
                true => drop(group.spawn_blocking(move |_| {
                    let _ = gate.recv();
                    Ok(value)
                })),
                false => drop(group.spawn(async move {
                    let _ = gate.recv();
                    Ok(value)
                })),
            }
            let mut wait = group.wait();
            assert!(poll_with(Pin::new(&mut wait), &waker).is_pending());
            drop(open);
            until(|| wakes.woken() > 0).await;
            assert_eq!(found.load(Ordering::SeqCst), 0, "woken before the drop");
            assert!(wait.now_or_never().expect("woken for good").is_ok());
        });
    }
}

/// A task's value has gone to its handle: then the task has left the group, and given its room back.
#[test]
fn handle_yields_then_the_task_has_left_the_group() {
    let runtime = multi_thread();
    crate::support::without_deadlock(move || {
        for round in 0..3_000 {
            let group: Group = Group::builder()
                .runtime(runtime.handle().clone())
                .limit(1)
                .build();
            let mut task = match round % 2 {
                0 => group.spawn_blocking(|_| Ok(String::new())),
                _ => group.spawn(async { Ok(String::new()) }),
            };
            // Polled all the time, so that nothing is between the end and the answer.
            while poll(&mut task).is_pending() {
                std::hint::spin_loop();
            }
            assert_eq!(group.len(), 0, "round {round}");
            assert!(group.try_spawn(async { Ok(()) }).is_ok());
            let outcome: Result<(), BoxError> = block_on(group.into_future());
            outcome.unwrap();
        }
    });
}
