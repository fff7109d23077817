//! G10: at most n tasks run, the rest start in order; slots; the limit raised, lowered and lifted while tasks run.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, mpsc};

use errgroup::{BoxError, Group, Reason, Task};
use futures::FutureExt;
use tokio::sync::{Semaphore, oneshot};

use crate::group_support::*;

/// Tasks that run until they are let go, one by one.
struct Crowd {
    gauge: Arc<Gauge>,
    gate: Arc<Semaphore>,
    order: Arc<Mutex<Vec<usize>>>,
}

impl Crowd {
    fn new() -> Self {
        Self {
            gauge: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            order: Arc::default(),
        }
    }

    /// A task that notes that it has started, and waits to be let go.
    fn member(&self, number: usize) -> impl Future<Output = Unit> + Send + use<> {
        let (gauge, gate, order) = (self.gauge.clone(), self.gate.clone(), self.order.clone());
        async move {
            order.lock().unwrap().push(number);
            let _inside = gauge.enter();
            gate.acquire().await?.forget();
            Ok(())
        }
    }

    fn spawn(&self, group: &Group, numbers: std::ops::Range<usize>) {
        for number in numbers {
            group.spawn(self.member(number));
        }
    }

    async fn let_go(&self, count: usize) {
        self.gate.add_permits(count);
        idle().await;
    }

    fn order(&self) -> Vec<usize> {
        self.order.lock().unwrap().clone()
    }
}

on_both_runtimes! {
    async fn g10_limit_of_ten_then_1025_tasks_never_exceed_it() {
        let mut group: Group = limited(10);
        let gauge = Arc::new(Gauge::default());
        for number in 0..1_025 {
            let inside = gauge.clone();
            match number % 3 {
                0 => { group.spawn_with(async move |_| {
                    let _inside = inside.enter();
                    turns(2).await;
                    Ok(())
                }); }
                1 if number % 5 == 0 => { group.spawn_blocking(move |_| {
                    let _inside = inside.enter();
                    std::thread::yield_now();
                    Ok(())
                }); }
                _ => { group.spawn(async move {
                    let _inside = inside.enter();
                    turns(number % 4).await;
                    Ok(())
                }); }
            }
        }
        group.wait().await.unwrap();
        assert!(gauge.peak() <= 10, "{}", gauge.peak());
    }

    async fn g10_try_spawn_fills_the_limit_then_fails_until_one_ends() {
        let mut group: Group = limited(3);
        let tasks: Vec<_> = (0..3).map(|_| group.try_spawn(pend()).ok().unwrap()).collect();
        let future = group.try_spawn(async { Ok("again") }).expect_err("no room");
        assert_eq!(group.len(), 3);
        tasks[1].abort();
        until(|| group.len() == 2).await;
        let task = group.try_spawn(future).ok().expect("room for one");
        assert_eq!(task.await.unwrap(), "again");
        group.cancel();
        group.wait().await.unwrap();
    }

    async fn g10_limit_changes_in_the_tasks_themselves_then_all_are_run() {
        let group: Arc<Group> = Arc::new(limited(1));
        for number in 0..200 {
            let inside = group.clone();
            group.spawn_with(async move |_| {
                inside.set_limit(if number % 5 == 0 { None } else { Some(1 + number % 4) });
                turns(number % 3).await;
                Ok(())
            });
        }
        let mut group = Arc::into_inner(group_alone(group).await).unwrap();
        group.wait().await.unwrap();
    }

    async fn g10_blocking_tasks_never_exceed_the_limit() {
        let mut group: Group = limited(2);
        let gauge = Arc::new(Gauge::default());
        for _ in 0..50 {
            let inside = gauge.clone();
            group.spawn_blocking(move |_| {
                let _inside = inside.enter();
                std::thread::yield_now();
                Ok(())
            });
        }
        group.wait().await.unwrap();
        assert!(gauge.peak() <= 2);
    }

    async fn g10_slot_is_pending_at_the_end_then_it_gives_up_and_starts_nothing() {
        let group: Group = limited(1);
        let (started, start) = oneshot::channel();
        let occupant = group.spawn_with(async |ctx| {
            started.send(()).unwrap();
            ignore(ctx).await
        });
        start.await.unwrap();
        let mut waiting = Box::pin(group.slot());
        assert!((&mut waiting).now_or_never().is_none());
        group.cancel();
        assert_eq!(waiting.await.unwrap_err().reason(), Reason::GroupCancelled);
        occupant.abort();
        group.await.unwrap();
    }
}

/// Waits until the tasks have let go of the group.
async fn group_alone(group: Arc<Group>) -> Arc<Group> {
    until(|| Arc::strong_count(&group) == 1).await;
    group
}

#[tokio::test]
async fn g10_spawn_never_blocks_and_the_rest_start_in_order() {
    let group: Group = limited(3);
    let crowd = Crowd::new();
    crowd.spawn(&group, 0..10);
    assert_eq!(group.len(), 10);
    idle().await;
    for gone in 0..7 {
        assert_eq!(crowd.order(), Vec::from_iter(0..3 + gone));
        assert_eq!(crowd.gauge.now(), 3);
        crowd.let_go(1).await;
    }
    crowd.let_go(3).await;
    assert_eq!(crowd.gauge.peak(), 3);
    group.await.unwrap();
}

/// Async, blocking, and whoever waits for a slot: one queue.
#[test]
fn g10_one_queue_for_all_kinds() {
    on_current_thread(async {
        let group: Group = limited(1);
        let crowd = Crowd::new();
        crowd.spawn(&group, 0..2);
        let order = crowd.order.clone();
        let blocking = group.spawn_blocking(move |_| {
            order.lock().unwrap().push(2);
            Ok(())
        });
        let mut slot = Box::pin(group.slot());
        assert!((&mut slot).now_or_never().is_none());
        let member = crowd.member(4);
        group.spawn_with(|_| member);
        idle().await;
        crowd.let_go(1).await;
        assert_eq!(crowd.order(), [0, 1]);
        crowd.let_go(1).await;
        blocking.await.unwrap();
        let slot = slot.await.unwrap();
        idle().await;
        assert_eq!(crowd.order(), [0, 1, 2], "the slot is held");
        slot.spawn(crowd.member(3));
        crowd.let_go(2).await;
        assert_eq!(crowd.order(), [0, 1, 2, 3, 4]);
        group.await.unwrap();
    });
}

/// A queued blocking task occupies no thread: with one thread only, another's blocking call goes through.
#[test]
fn g10_blocking_task_queued_then_it_takes_no_thread() {
    one_blocking_thread().block_on(patiently(async {
        let group: Group = limited(1);
        let occupant = group.spawn(pend());
        let queued = group.spawn_blocking(|_| Ok("ran"));
        assert_eq!(
            tokio::task::spawn_blocking(|| "through").await.unwrap(),
            "through"
        );
        occupant.abort();
        assert_eq!(queued.await.unwrap(), "ran");
        group.await.unwrap();
    }));
}

#[tokio::test]
async fn g10_raised_then_waiting_tasks_start_at_once() {
    let group: Group = limited(1);
    let crowd = Crowd::new();
    crowd.spawn(&group, 0..6);
    idle().await;
    assert_eq!(crowd.gauge.now(), 1);
    group.set_limit(Some(4));
    idle().await;
    assert_eq!(crowd.gauge.now(), 4);
    group.set_limit(None);
    idle().await;
    assert_eq!(crowd.gauge.now(), 6);
    crowd.let_go(6).await;
    group.await.unwrap();
}

#[tokio::test]
async fn g10_lowered_while_tasks_run_then_none_starts_until_there_is_room() {
    let group: Group = limited(4);
    let crowd = Crowd::new();
    crowd.spawn(&group, 0..8);
    idle().await;
    group.set_limit(Some(2));
    for still in [3, 2, 2, 2] {
        crowd.let_go(1).await;
        assert_eq!(crowd.gauge.now(), still);
    }
    crowd.let_go(4).await;
    assert_eq!(crowd.order(), Vec::from_iter(0..8));
    group.await.unwrap();
}

#[tokio::test]
async fn g10_first_limit_set_while_tasks_run_then_they_count() {
    let group: Group = Group::new();
    let crowd = Crowd::new();
    crowd.spawn(&group, 0..3);
    idle().await;
    group.set_limit(Some(2));
    crowd.spawn(&group, 3..5);
    assert!(group.try_spawn(pend()).is_err());
    for still in [2, 2, 2] {
        crowd.let_go(1).await;
        assert_eq!(crowd.gauge.now(), still, "{:?}", crowd.order());
    }
    crowd.let_go(2).await;
    group.await.unwrap();
}

/// What ran while there was no limit counts under the next one.
#[tokio::test]
async fn g10_lifted_and_set_again_then_every_running_task_counts() {
    let group: Group = limited(1);
    let crowd = Crowd::new();
    crowd.spawn(&group, 0..2);
    group.set_limit(None);
    crowd.spawn(&group, 2..4);
    idle().await;
    assert_eq!(crowd.gauge.now(), 4);
    group.set_limit(Some(3));
    crowd.spawn(&group, 4..6);
    for still in [3, 3, 3] {
        crowd.let_go(1).await;
        assert_eq!(crowd.gauge.now(), still);
    }
    crowd.let_go(3).await;
    group.await.unwrap();
}

#[tokio::test]
async fn g10_try_spawn_does_not_jump_the_queue() {
    let group: Group = limited(1);
    let first = group.spawn(pend());
    let second = group.spawn(pend());
    idle().await;
    first.abort();
    idle().await;
    assert!(
        group.try_spawn(pend()).is_err(),
        "the queued one has the slot"
    );
    second.abort();
    idle().await;
    assert!(group.try_spawn(pend()).is_ok());
}

#[tokio::test]
async fn g10_queued_task_aborted_then_it_leaves_the_queue() {
    let group: Group = limited(1);
    let running = group.spawn(pend());
    let queued: Vec<Task<()>> = (0..3).map(|_| group.spawn(pend())).collect();
    let last = group.spawn(async { Ok("through") });
    idle().await;
    for task in queued {
        task.abort();
        assert_eq!(own_end(task).await, Reason::TaskAborted);
    }
    assert_eq!(group.len(), 2);
    running.abort();
    assert_eq!(last.await.unwrap(), "through");
    group.await.unwrap();
}

/// Granted, and then gone before it could start.
#[tokio::test]
async fn g10_granted_task_aborted_before_it_starts_then_the_next_has_the_slot() {
    let group: Group = limited(1);
    let running = group.spawn(pend());
    let granted = group.spawn_with(async |_| -> Unit { unreachable!("it was started") });
    let next = group.spawn(async { Ok("through") });
    idle().await;
    group.set_limit(Some(2));
    granted.abort();
    assert_eq!(next.await.unwrap(), "through");
    running.abort();
    group.await.unwrap();
}

#[tokio::test]
async fn g10_slot_dropped_at_each_stage_then_the_next_is_served() {
    let group: Group = limited(1);
    // Never polled.
    drop(group.slot());
    // Granted at once, unused.
    let held = slot(&group);
    assert!(
        group.slot().now_or_never().is_none(),
        "queued, and dropped in the queue"
    );
    assert!(group.try_spawn(pend()).is_err());
    // Granted while pending, and dropped without being polled again.
    let mut granted = Box::pin(group.slot());
    assert!((&mut granted).now_or_never().is_none());
    let next = group.spawn(async { Ok("through") });
    idle().await;
    drop(held);
    idle().await;
    assert!(!next.is_finished(), "the pending slot was first");
    drop(granted);
    assert_eq!(next.await.unwrap(), "through");
    // Spawned through: the room goes with the task.
    let task = slot(&group).spawn(pend());
    assert!(group.slot().now_or_never().is_none());
    task.abort();
    drop(group.slot().await.unwrap());
    group.await.unwrap();
}

#[tokio::test]
async fn g10_slot_pending_then_woken_once_there_is_room() {
    let group: Group = limited(1);
    let running = group.spawn(pend());
    idle().await;
    let (wakes, waker) = counting();
    let mut waiting = pin!(group.slot());
    assert!(poll_with(waiting.as_mut(), &waker).is_pending());
    assert_eq!(wakes.woken(), 0);
    running.abort();
    idle().await;
    assert_eq!(wakes.woken(), 1);
    let std::task::Poll::Ready(Ok(slot)) = poll_with(waiting, &waker) else {
        panic!("no room");
    };
    assert!(matches!(slot.spawn(async { Ok(1) }).await, Ok(1)));
}

#[tokio::test]
async fn g10_slot_taken_without_a_limit_then_its_task_counts_under_one() {
    let group: Group = Group::new();
    let early = slot(&group);
    group.set_limit(Some(1));
    let task = early.spawn(pend());
    idle().await;
    assert!(group.try_spawn(pend()).is_err());
    task.abort();
    idle().await;
    assert!(group.try_spawn(pend()).is_ok());
}

#[test]
fn g10_every_end_of_a_task_gives_its_slot_back() {
    on_current_thread(async {
        let (leave, left) = mpsc::channel();
        let ends: [fn(&Group) -> Task<()>; 6] = [
            |group| group.spawn(async { Ok(()) }),
            |group| group.spawn_with(async |_| Ok(())),
            |group| group.spawn_blocking(|_| Ok(())),
            |group| {
                let task = group.spawn(pend());
                task.abort();
                task
            },
            |group| {
                let task = group.spawn_with(ignore);
                let abort = Arc::new(task);
                let aborting = abort.clone();
                drop(tokio::spawn(async move { aborting.abort() }));
                drop(abort);
                group.spawn(async { Ok(()) })
            },
            |group| slot(group).spawn(async { Ok(()) }),
        ];
        for end in ends {
            let group: Group<BoxError> = limited(1);
            drop(end(&group).await);
            let leave = leave.clone();
            let next = group.spawn(async move { Ok(leave.send(())?) });
            next.await.unwrap();
            left.try_recv().unwrap();
            group.await.unwrap();
        }
    });
}

/// The one that queues is no slot's holder, although it stands where the one did that was counted.
#[test]
fn g10_limit_set_then_one_of_the_same_place_queues_and_withdraws() {
    on_current_thread(async {
        let group: Group = Group::new();
        let spawn = || group.spawn(std::future::pending::<Unit>());
        let running = spawn();
        group.set_limit(Some(1));
        let queued = spawn();
        queued.abort();
        assert!(queued.await.is_err());
        assert!(group.try_spawn(std::future::pending::<Unit>()).is_err());
        running.abort();
        assert!(running.await.is_err());
        assert!(group.try_spawn(std::future::pending::<Unit>()).is_ok());
    });
}
