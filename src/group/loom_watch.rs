//! The races of whoever looks at a group: a snapshot, while tasks are spawned and end, and while the context ends.

use std::future::ready;

use loom::thread;

use super::entry::Kind;
use super::loom_models::{admit, never, run, spawn};
use super::{Group, Spawner};
use crate::context::Context;
use crate::snapshot::{Snapshot, What};
use crate::sync::model::block_on;

/// What holds for every snapshot of a group, whatever goes on meanwhile.
fn check(tree: &Snapshot, group: &Context) {
    let Some(What::GroupSnapshot(root)) = tree.items().first().map(|item| item.what()) else {
        panic!("the group is there");
    };
    assert_eq!(root.live(), tree.tasks().count());
    for task in tree.tasks() {
        assert!(!task.is_straggler() || group.is_done());
        assert!(task.diagnosis().is_none() || task.is_straggler());
    }
}

#[test]
fn snapshot_during_end_and_finish_sees_whole_tasks_and_none_after_wait() {
    loom::model(|| {
        let mut group: Group = Group::new();
        let task = spawn(&group, Kind::Dropped, never());
        let spawner: Spawner = group.spawner();
        let looker = thread::spawn(move || check(&spawner.snapshot(), spawner.context()));
        group.cancel();
        block_on(group.wait()).unwrap();
        assert_eq!(group.snapshot().tasks().count(), 0);
        looker.join().unwrap();
        assert!(task.join().unwrap().is_err());
    });
}

#[test]
fn snapshot_during_spawn_and_finish_sees_whole_tasks() {
    loom::model(|| {
        let mut group: Group = Group::new();
        let spawner: Spawner = group.spawner();
        let adder = thread::spawn(move || {
            let guard = admit(&spawner.core, Kind::Dropped)?;
            Some(run(guard, ready(Ok(()))))
        });
        check(&group.snapshot(), group.context());
        let task = adder.join().unwrap();
        block_on(group.wait()).unwrap();
        check(&group.snapshot(), group.context());
        assert!(task.is_some_and(|task| task.join().unwrap().is_ok()));
    });
}

/// One task is spawned and ends, another ends, the context ends, and somebody looks.
#[test]
fn snapshot_during_spawn_finish_and_end_sees_whole_tasks() {
    loom::model(|| {
        let mut group: Group = Group::new();
        let first = admit(&group.core, Kind::Cooperative).expect("open");
        let (spawner, other): (Spawner, Spawner) = (group.spawner(), group.spawner());
        let adder = thread::spawn(move || admit(&spawner.core, Kind::Cooperative).is_some());
        let looker = thread::spawn(move || check(&other.snapshot(), other.context()));
        group.cancel();
        let ended = group.snapshot();
        assert!(ended.tasks().count() >= 1);
        assert!(ended.tasks().all(|task| task.is_straggler()));
        drop(first);
        block_on(group.wait()).unwrap();
        assert_eq!(group.snapshot().tasks().count(), 0);
        looker.join().unwrap();
        adder.join().unwrap();
        assert_eq!(group.snapshot().tasks().count(), 0);
    });
}

/// The end takes the group out of its parent's list: whoever has seen the end finds it all the same.
#[test]
fn snapshot_after_an_end_from_above_finds_the_straggler() {
    loom::model(|| {
        let (ctx, cancel) = Context::background().with_cancel();
        let group: Group = Group::with_context(&ctx);
        let guard = admit(&group.core, Kind::Cooperative).expect("open");
        let ender = thread::spawn(move || cancel.cancel());
        let during = ctx.tree();
        assert!(during.tasks().count() <= 1);
        ender.join().unwrap();
        let after = ctx.tree();
        assert_eq!(after.stragglers().count(), 1);
        drop(guard);
        assert_eq!(ctx.tree().tasks().count(), 0);
    });
}

/// Two at once keep apart what they have seen.
#[test]
fn two_snapshots_at_once_see_the_same_tasks() {
    loom::model(|| {
        let group: Group = Group::new();
        let guard = admit(&group.core, Kind::Cooperative).expect("open");
        let spawner: Spawner = group.spawner();
        let other = thread::spawn(move || spawner.snapshot().tasks().count());
        assert_eq!(group.snapshot().tasks().count(), 1);
        assert_eq!(other.join().unwrap(), 1);
        drop(guard);
    });
}
