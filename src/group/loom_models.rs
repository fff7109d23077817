//! The races of the group: tasks are polled by hand on the model's threads, in place of tokio's.

use std::future::{Future, pending, poll_fn, ready};
use std::panic::Location;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use loom::thread;

use super::core::Core;
use super::entry::{Kind, SlotRequest, Stage};
use super::failure::{Election, Failure, FailureKind, FailureLog, Verdict, What};
use super::guard::TaskGuard;
use super::registry::Spec;
use super::room::{Room, SlotRequested};
use super::run::Run;
use super::spawn;
use super::{Group, Spawner};
use crate::context::Context;
use crate::error::{BoxError, ContextError, GroupId, Reason};
use crate::sync::model::{block_on, poll_once};
use crate::task::{Output, Owned, TaskId, Watch};

type Guard = TaskGuard<BoxError>;

fn spec(slot: SlotRequest) -> Spec {
    Spec {
        name: None,
        location: Location::caller(),
        slot,
    }
}

/// Admits a task as `spawn` does, without a runtime to run it.
pub(super) fn admit(core: &Arc<Core<BoxError>>, kind: Kind) -> Option<Guard> {
    spawn::admit(core, kind, spec(SlotRequest::Queue), || None).map(|(guard, ..)| guard)
}

pub(super) fn spawn<T: Send + 'static>(
    group: &Group,
    kind: Kind,
    future: impl Future<Output = Result<T, BoxError>> + Send + 'static,
) -> thread::JoinHandle<Result<T, ContextError>> {
    run(admit(&group.core, kind).expect("the group is open"), future)
}

pub(super) fn run<T: Send + 'static>(
    guard: Guard,
    future: impl Future<Output = Result<T, BoxError>> + Send + 'static,
) -> thread::JoinHandle<Result<T, ContextError>> {
    thread::spawn(move || block_on(Run::new(guard, future)).into_result())
}

pub(super) fn never() -> impl Future<Output = Result<(), BoxError>> + Send {
    pending()
}

/// Takes the only permit of a group, or finds it taken.
fn try_slot(group: &Group) -> bool {
    spawn::admit(&group.core, Kind::Dropped, spec(SlotRequest::Now), || None).is_some()
}

#[test]
fn last_task_ends_during_wait_wakes_it() {
    loom::model(|| {
        let mut group: Group = Group::new();
        let task = spawn(&group, Kind::Dropped, ready(Ok(())));
        block_on(group.wait()).unwrap();
        assert_eq!(group.len(), 0);
        assert!(task.join().unwrap().is_ok());
    });
}

#[test]
fn pending_task_during_cancel_is_stopped() {
    loom::model(|| {
        let mut group: Group = Group::new();
        let task = spawn(&group, Kind::Dropped, never());
        group.cancel();
        block_on(group.wait()).unwrap();
        assert!(task.join().unwrap().is_err());
    });
}

#[test]
fn self_stopping_task_during_drop_of_the_group_is_aborted() {
    loom::model(|| {
        let group: Group = Group::new();
        let task = spawn(&group, Kind::Cooperative, never());
        drop(group);
        // Aborted in its sleep, or not started.
        assert!(task.join().unwrap().is_err());
    });
}

#[test]
fn two_failures_at_once_one_is_returned_and_ends_the_context() {
    loom::model(|| {
        let mut group: Group = Group::new();
        // Both admitted before one can end the group, and started, so that both fail.
        let guards = ["a", "b"].map(|text| {
            let mut guard = admit(&group.core, Kind::Cooperative).expect("the group is open");
            guard.set_started();
            (guard, text)
        });
        let tasks = guards.map(|(guard, text)| {
            let error: BoxError = text.into();
            run::<()>(guard, ready(Err(error)))
        });
        let error = block_on(group.wait()).unwrap_err().to_string();
        let reason = group.context().err().expect("ended");
        assert_eq!(reason.reason(), Reason::TaskFailed);
        assert!(
            reason.to_string().contains(&format!("failed: {error}")),
            "{reason}"
        );
        for task in tasks {
            assert!(task.join().unwrap().is_err());
        }
    });
}

/// The error is recorded before the context ends: a sibling's "cancelled" cannot mask it.
#[test]
fn sibling_failing_because_of_the_end_does_not_mask_the_first_error() {
    loom::model(|| {
        let mut group: Group = Group::new();
        let ctx = group.context().clone();
        let sibling = spawn(&group, Kind::Cooperative, async move {
            ctx.done().await;
            Err::<(), BoxError>("because of the end".into())
        });
        let failed = spawn::<()>(&group, Kind::Cooperative, ready(Err("first".into())));
        assert_eq!(block_on(group.wait()).unwrap_err().to_string(), "first");
        assert!(failed.join().unwrap().is_err());
        assert!(sibling.join().unwrap().is_err());
    });
}

#[test]
fn election_of_two_has_one_winner() {
    fn fail(outcome: &FailureLog<u32>, error: u32) -> Election {
        let election = outcome.elect(FailureKind::Error);
        if election == Election::First {
            outcome.store(Failure {
                name: None,
                id: TaskId::next(),
                location: Location::caller(),
                elapsed: Duration::ZERO,
                what: What::Error(error),
            });
        }
        election
    }
    loom::model(|| {
        let outcome = Arc::new(FailureLog::<u32>::new(0));
        let other = {
            let outcome = outcome.clone();
            thread::spawn(move || fail(&outcome, 1))
        };
        let mine = fail(&outcome, 2);
        let theirs = other.join().unwrap();
        assert_ne!(mine, theirs);
        assert_eq!(outcome.suppressed(), 1);
        let winner = if mine == Election::First { 2 } else { 1 };
        match outcome.settle().verdict {
            Verdict::Failed(failure) => assert_eq!(failure.error(), Some(&winner)),
            _ => panic!("a failure was recorded"),
        }
    });
}

#[test]
fn task_removed_during_stop_leaves_an_empty_registry() {
    loom::model(|| {
        let group: Group = Group::new();
        let guard = admit(&group.core, Kind::Dropped).expect("open");
        let mut run = Run::new(guard, never());
        assert!(poll_once(&mut run).is_pending());
        let dropper = thread::spawn(move || drop(run));
        group.cancel();
        dropper.join().unwrap();
        assert_eq!(group.len(), 0);
        assert!(group.is_empty());
    });
}

/// A spawner on another thread: what it adds is waited for, or it is refused.
#[test]
fn spawn_through_a_spawner_during_end_is_covered_or_refused() {
    loom::model(|| {
        let mut group: Group = Group::new();
        let spawner: Spawner = group.spawner();
        let adder = thread::spawn(move || {
            let guard = admit(&spawner.core, Kind::Dropped);
            guard.map(|guard| block_on(Run::new(guard, ready(Ok(())))))
        });
        block_on(group.wait()).unwrap();
        // From here on nothing is added, and what was added has ended.
        assert_eq!(group.len(), 0);
        assert!(admit(&group.core, Kind::Dropped).is_none());
        adder.join().unwrap();
        assert_eq!(group.len(), 0);
    });
}

/// The parent ends on one thread, and the owner stops the group on another, while a spawner has looked at the context
/// before: after the stop nothing is added.
#[test]
fn parent_ended_elsewhere_then_the_owners_end_closes_the_group() {
    loom::model(|| {
        let (ctx, handle) = Context::background().with_cancel();
        let group: Group = Group::with_context(&ctx);
        let ender = thread::spawn(move || handle.cancel());
        group.cancel();
        // Whoever has looked at the context before comes here now.
        let added = group
            .core
            .registry
            .add(Kind::Dropped, spec(SlotRequest::Queue), || None);
        assert!(added.is_none(), "the stage is raised when `cancel` returns");
        ender.join().unwrap();
    });
}

#[test]
fn task_spawned_by_a_task_is_waited_for() {
    loom::model(|| {
        let mut group: Group = Group::new();
        let spawner = group.spawner();
        let outer = spawn(&group, Kind::Cooperative, async move {
            let guard = admit(&spawner.core, Kind::Cooperative).expect("its own task is live");
            let inner =
                thread::spawn(move || block_on(Run::new(guard, ready(Ok(())))).into_result());
            drop(inner);
            Ok(())
        });
        block_on(group.wait()).unwrap();
        assert_eq!(group.len(), 0);
        assert!(outer.join().unwrap().is_ok());
    });
}

#[test]
fn parent_ended_during_new_group_reaches_it() {
    loom::model(|| {
        let (ctx, handle) = Context::background().with_cancel();
        let ender = thread::spawn(move || handle.cancel());
        let group: Group = Group::with_context(&ctx);
        ender.join().unwrap();
        assert!(group.context().is_done());
        assert_eq!(group.core.registry.stage(), Stage::Ended);
    });
}

/// A value that has a destructor.
struct Value(Arc<()>);

/// The handle is dropped while the task ends, and the runtime puts the value away after that: when the group is empty and
/// the handle is gone, the value is, too.
#[test]
fn handle_dropped_while_its_task_ends_then_the_value_is_gone_before_the_group_is_empty() {
    loom::model(|| {
        let mut group: Group = Group::new();
        let probe = Arc::new(());
        let guard = admit(&group.core, Kind::Dropped).expect("open");
        let watch = Watch {
            home: Some(group.core.clone()),
            key: guard.key(),
            id: guard.who().id,
        };
        // In place of the runtime's memory, which drops an output that nobody waits for.
        let place: Arc<loom::sync::Mutex<Option<Output<Value>>>> = Arc::default();
        let has_handle = Arc::new(loom::sync::Mutex::new(true));
        let task = {
            let (value, place, has_handle) =
                (Value(probe.clone()), place.clone(), has_handle.clone());
            thread::spawn(move || {
                let output = block_on(Run::new(guard, ready(Ok(value))));
                let is_wanted = has_handle.lock().unwrap();
                match *is_wanted {
                    true => *place.lock().unwrap() = Some(output),
                    false => drop(output),
                }
            })
        };
        let handle = thread::spawn(move || {
            drop(watch);
            let output = {
                let mut is_wanted = has_handle.lock().unwrap();
                *is_wanted = false;
                place.lock().unwrap().take()
            };
            drop(output);
        });
        handle.join().unwrap();
        block_on(group.wait()).unwrap();
        assert_eq!(Arc::strong_count(&probe), 1, "the value is gone");
        task.join().unwrap();
        assert!(group.is_empty());
    });
}

/// A group is dropped with a live task inside another one, which waits for it.
#[test]
fn group_handed_over_while_its_task_ends_then_the_host_waits_for_it() {
    loom::model(|| {
        let mut host: Group = Group::new();
        let inner: Group = Group::with_context(host.context());
        let probe = Arc::new(());
        let held = probe.clone();
        let task = spawn(&inner, Kind::Cooperative, async move {
            drop(held);
            Ok(())
        });
        drop(inner);
        let _ = block_on(host.wait());
        assert_eq!(Arc::strong_count(&probe), 1);
        let _ = task.join().unwrap();
        assert!(host.is_empty());
    });
}

#[test]
fn permit_granted_during_withdrawal_is_not_lost() {
    loom::model(|| {
        let group: Group = Group::new();
        group.set_limit(Some(1));
        let running = admit(&group.core, Kind::Dropped).expect("open");
        let queued = admit(&group.core, Kind::Dropped).expect("open");
        assert!(queued.is_queued());
        let releaser = thread::spawn(move || drop(running));
        drop(queued);
        releaser.join().unwrap();
        assert!(try_slot(&group), "the permit is free again");
    });
}

#[test]
fn permit_released_during_queueing_wakes_the_queued() {
    loom::model(|| {
        let group: Group = Group::new();
        group.set_limit(Some(1));
        let running = admit(&group.core, Kind::Dropped).expect("open");
        let releaser = thread::spawn(move || drop(running));
        let queued = admit(&group.core, Kind::Dropped).expect("open");
        assert!(
            block_on(Run::new(queued, ready(Ok(()))))
                .into_result()
                .is_ok()
        );
        releaser.join().unwrap();
        assert!(try_slot(&group));
    });
}

#[test]
fn slot_waited_for_during_the_end_is_granted_or_given_back() {
    loom::model(|| {
        let group: Group = Group::new();
        group.set_limit(Some(1));
        let running = admit(&group.core, Kind::Dropped).expect("open");
        let spawner = group.spawner();
        let waiter = thread::spawn(move || {
            let registry = &spawner.core.registry;
            match registry.request_slot(Location::caller()) {
                Some(SlotRequested::Queued(key)) => {
                    block_on(poll_fn(|cx| {
                        match registry.poll_room(key, Some(cx.waker())) {
                            Room::NotYet => Poll::Pending,
                            Room::Granted | Room::Ended => Poll::Ready(()),
                        }
                    }));
                    if registry.leave_queue(key) {
                        registry.release_slot();
                    }
                }
                Some(SlotRequested::Granted) => registry.release_slot(),
                Some(SlotRequested::Unlimited) => panic!("there is a limit"),
                None => {}
            }
        });
        drop(running);
        group.cancel();
        waiter.join().unwrap();
    });
}

/// The permit of a task that ends goes to the queued one, while the context ends: it starts or is cut short, and either
/// way gives the permit back.
#[test]
fn permit_handed_over_during_cancel_is_given_back() {
    loom::model(|| {
        let mut group: Group = Group::new();
        group.set_limit(Some(1));
        let running = admit(&group.core, Kind::Dropped).expect("open");
        let queued = admit(&group.core, Kind::Dropped).expect("open");
        assert!(queued.is_queued());
        let queued = run(queued, ready(Ok(())));
        let running = run(running, ready(Ok(())));
        group.cancel();
        block_on(group.wait()).unwrap();
        let _ = (queued.join().unwrap(), running.join().unwrap());
        assert!(group.is_empty());
    });
}

#[test]
fn limit_set_during_spawn_counts_the_task() {
    loom::model(|| {
        let group: Group = Group::new();
        let spawner = group.spawner();
        let adder = thread::spawn(move || admit(&spawner.core, Kind::Dropped));
        group.set_limit(Some(1));
        let guard = adder.join().unwrap().expect("open");
        assert!(!try_slot(&group), "the only permit is taken");
        drop(guard);
        assert!(try_slot(&group));
    });
}

#[test]
fn limit_set_during_the_end_of_a_task_leaves_its_permit_free() {
    loom::model(|| {
        let group: Group = Group::new();
        let task = spawn(&group, Kind::Dropped, ready(Ok(())));
        group.set_limit(Some(1));
        assert!(task.join().unwrap().is_ok());
        assert!(try_slot(&group));
    });
}

/// Two ask for an error's text at once: one makes it, and the other does not wait under a lock.
#[test]
fn late_error_told_by_two_at_once_is_told_once() {
    loom::model(|| {
        let who = Owned {
            name: None,
            id: TaskId::next(),
            location: Location::caller(),
            group: GroupId(0),
        };
        let late = ContextError::late(who.borrow(), Box::new("disk full"));
        let other = {
            let late = late.clone();
            thread::spawn(move || late.tell())
        };
        let told = [late.tell(), other.join().unwrap()];
        assert!(told.contains(&true));
        assert!(late.tell());
        assert!(late.to_string().contains("failed: disk full"));
    });
}
