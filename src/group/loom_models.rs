//! The races of the group: tasks are polled by hand on the model's threads, in place of tokio's.

use std::future::{Future, pending, poll_fn, ready};
use std::num::NonZeroUsize;
use std::sync::Arc;

use loom::thread;

use super::core::{Core, SlotRequest, Spec};
use super::life::Life;
use super::mark::Policy;
use super::outcome::{Election, Failure, Outcome};
use super::registry::{Kind, Stage};
use super::run::Run;
use super::slots::{Hold, Slots};
use super::{Group, Spawner};
use crate::context::Context;
use crate::error::{BoxError, Reason};
use crate::sync::model::{block_on, poll_once};
use crate::task::TaskError;

/// Admits a task as `spawn` does, without a runtime to run it.
fn admit(core: &Arc<Core<BoxError>>, policy: Policy) -> Option<Life<BoxError>> {
    let spec = Spec::unnamed();
    core.admit(spec, Kind::Async, policy).map(Life::new)
}

fn spawn<T: Send + 'static>(
    group: &Group,
    policy: Policy,
    future: impl Future<Output = Result<T, BoxError>> + Send + 'static,
) -> thread::JoinHandle<Result<T, TaskError>> {
    run(
        admit(&group.core, policy).expect("the group is open"),
        future,
    )
}

fn run<T: Send + 'static>(
    life: Life<BoxError>,
    future: impl Future<Output = Result<T, BoxError>> + Send + 'static,
) -> thread::JoinHandle<Result<T, TaskError>> {
    thread::spawn(move || block_on(Run::new(life, future)))
}

fn never() -> impl Future<Output = Result<(), BoxError>> + Send {
    pending()
}

#[test]
fn last_task_ends_during_wait_wakes_it() {
    loom::model(|| {
        let mut group: Group = Group::new();
        let task = spawn(&group, Policy::Dropped, ready(Ok(())));
        block_on(group.wait()).unwrap();
        assert_eq!(group.len(), 0);
        task.join().unwrap().unwrap();
    });
}

#[test]
fn pending_task_during_cancel_is_stopped() {
    loom::model(|| {
        let mut group: Group = Group::new();
        let task = spawn(&group, Policy::Dropped, never());
        group.cancel();
        block_on(group.wait()).unwrap();
        assert!(matches!(task.join().unwrap(), Err(TaskError::Cancelled(_))));
    });
}

#[test]
fn self_stopping_task_during_drop_of_the_group_is_aborted() {
    loom::model(|| {
        let group: Group = Group::new();
        let task = spawn(&group, Policy::StopsItself, never());
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
        let lives = ["a", "b"].map(|text| {
            let mut life = admit(&group.core, Policy::StopsItself).expect("the group is open");
            life.start();
            (life, text)
        });
        let tasks = lives.map(|(life, text)| {
            let error: BoxError = text.into();
            run::<()>(life, ready(Err(error)))
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
        let sibling = spawn(&group, Policy::StopsItself, async move {
            ctx.done().await;
            Err::<(), BoxError>("because of the end".into())
        });
        let failed = spawn::<()>(&group, Policy::StopsItself, ready(Err("first".into())));
        assert_eq!(block_on(group.wait()).unwrap_err().to_string(), "first");
        assert!(failed.join().unwrap().is_err());
        assert!(sibling.join().unwrap().is_err());
    });
}

#[test]
fn election_of_two_has_one_winner() {
    loom::model(|| {
        let outcome = Arc::new(Outcome::<u32>::new());
        let other = {
            let outcome = outcome.clone();
            thread::spawn(move || outcome.record(Failure::Error(1)))
        };
        let mine = outcome.record(Failure::Error(2));
        let theirs = other.join().unwrap();
        assert_ne!(mine, theirs);
        assert_eq!(outcome.suppressed(), 1);
        let winner = if mine == Election::First { 2 } else { 1 };
        match outcome.settle() {
            super::outcome::Settled::Failed(Failure::Error(error)) => assert_eq!(error, winner),
            _ => panic!("a failure was recorded"),
        }
    });
}

#[test]
fn task_removed_during_stop_leaves_an_empty_registry() {
    loom::model(|| {
        let group: Group = Group::new();
        let life = admit(&group.core, Policy::Dropped).expect("open");
        let mut run = Run::new(life, never());
        assert!(poll_once(&mut run).is_pending());
        let dropper = thread::spawn(move || drop(run));
        group.cancel();
        dropper.join().unwrap();
        assert_eq!(group.len(), 0);
        assert!(group.core.registry.everyone().is_empty());
    });
}

/// A spawner on another thread: what it adds is waited for, or it is refused.
#[test]
fn spawn_through_a_spawner_during_end_is_covered_or_refused() {
    loom::model(|| {
        let mut group: Group = Group::new();
        let spawner: Spawner = group.spawner();
        let adder = thread::spawn(move || {
            let life = admit(&spawner.core, Policy::Dropped);
            life.map(|life| block_on(Run::new(life, ready(Ok(())))))
        });
        block_on(group.wait()).unwrap();
        // From here on nothing is added, and what was added has ended.
        assert_eq!(group.len(), 0);
        assert!(admit(&group.core, Policy::Dropped).is_none());
        adder.join().unwrap();
        assert_eq!(group.len(), 0);
    });
}

/// The page may empty before, while or after the second task enters it: it counts for as long as one is live.
#[test]
fn task_ends_while_another_enters_its_page_then_that_one_is_waited_for() {
    loom::model(|| {
        let mut group: Group = Group::new();
        let first = spawn(&group, Policy::Dropped, ready(Ok(())));
        let second = admit(&group.core, Policy::StopsItself).expect("the group is open");
        assert!(!group.core.registry.everyone().is_empty());
        let second = run(second, ready(Ok(())));
        block_on(group.wait()).unwrap();
        assert_eq!(group.len(), 0);
        assert!(group.core.registry.everyone().is_empty());
        assert!(group.core.registry.abortable().is_empty());
        first.join().unwrap().unwrap();
        second.join().unwrap().unwrap();
    });
}

#[test]
fn task_spawned_by_a_task_is_waited_for() {
    loom::model(|| {
        let mut group: Group = Group::new();
        let spawner = group.spawner();
        let outer = spawn(&group, Policy::StopsItself, async move {
            let life = admit(&spawner.core, Policy::StopsItself).expect("its own task is live");
            Ok(Some(life))
        });
        let inner = thread::spawn(move || {
            let life = outer.join().unwrap().unwrap();
            life.map(|life| block_on(Run::new(life, ready(Ok(())))))
        });
        block_on(group.wait()).unwrap();
        assert_eq!(group.len(), 0);
        inner.join().unwrap().unwrap().unwrap();
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

#[test]
fn slot_handed_over_during_withdrawal_is_not_lost() {
    loom::model(|| {
        let slots = Arc::new(Slots::new());
        slots.set_limit(NonZeroUsize::new(1), || 0);
        assert_eq!(slots.hold(), Hold::Slot);
        let queued = slots.hold();
        let releaser = {
            let slots = slots.clone();
            thread::spawn(move || slots.release(Hold::Slot))
        };
        slots.release(queued);
        releaser.join().unwrap();
        assert_eq!(slots.try_hold(), Some(Hold::Slot), "the slot is free again");
        assert_eq!(slots.try_hold(), None);
    });
}

#[test]
fn slot_released_during_queueing_wakes_the_queued() {
    loom::model(|| {
        let slots = Arc::new(Slots::new());
        slots.set_limit(NonZeroUsize::new(1), || 0);
        assert_eq!(slots.hold(), Hold::Slot);
        let releaser = {
            let slots = slots.clone();
            thread::spawn(move || slots.release(Hold::Slot))
        };
        if let Hold::Queued(ticket) = slots.hold() {
            block_on(poll_fn(|cx| slots.poll_granted(ticket, cx.waker())));
        }
        releaser.join().unwrap();
        assert_eq!(slots.try_hold(), None);
    });
}

/// The slot of a task that ends goes to the queued one, while the context ends: it starts or is cut short, and either
/// way gives the slot back.
#[test]
fn slot_handed_over_during_cancel_is_given_back() {
    loom::model(|| {
        let mut group: Group = Group::new();
        group.set_limit(NonZeroUsize::new(1));
        let running = admit(&group.core, Policy::Dropped).expect("open");
        let queued = admit(&group.core, Policy::Dropped).expect("open");
        assert!(queued.is_queued());
        let queued = thread::spawn(move || block_on(Run::new(queued, ready(Ok(())))));
        let running = thread::spawn(move || block_on(Run::new(running, ready(Ok(())))));
        group.cancel();
        block_on(group.wait()).unwrap();
        let _ = (queued.join().unwrap(), running.join().unwrap());
        assert_eq!(group.core.slots.try_hold(), Some(Hold::Slot));
    });
}

#[test]
fn limit_set_during_spawn_counts_the_task() {
    loom::model(|| {
        let group: Group = Group::new();
        let spawner = group.spawner();
        let adder = thread::spawn(move || admit(&spawner.core, Policy::Dropped));
        group.set_limit(NonZeroUsize::new(1));
        let life = adder.join().unwrap().expect("open");
        let refused = Spec {
            slot: SlotRequest::Now,
            ..Spec::unnamed()
        };
        let refused = group.core.admit(refused, Kind::Async, Policy::Dropped);
        assert!(refused.is_none(), "the only slot is taken");
        drop(life);
        assert_eq!(group.core.slots.try_hold(), Some(Hold::Slot));
    });
}

#[test]
fn limit_set_during_the_end_of_a_task_leaves_its_slot_free() {
    loom::model(|| {
        let group: Group = Group::new();
        let task = spawn(&group, Policy::Dropped, ready(Ok(())));
        group.set_limit(NonZeroUsize::new(1));
        task.join().unwrap().unwrap();
        assert_eq!(group.core.slots.try_hold(), Some(Hold::Slot));
        assert_eq!(group.core.slots.try_hold(), None);
    });
}
