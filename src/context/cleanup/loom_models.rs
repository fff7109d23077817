//! The races of the time to clean up: with the end that begins it, and with the group that ends it.

use std::panic::Location;
use std::sync::Arc;

use loom::thread;

use super::Plan;
use crate::context::Context;
use crate::context::node::Node;
use crate::context::step::Step;
use crate::context::timers::Timers;
use crate::error::{ContextError, Reason};
use crate::group::Group;

/// How many alarms are set. No model has a runtime.
fn alarms() -> usize {
    Timers::of_process().len()
}

fn error(reason: Reason) -> ContextError {
    ContextError::at(reason, Location::caller(), None)
}

#[test]
fn asked_during_the_end_then_its_alarm_is_set_once() {
    loom::model(|| {
        let (ctx, handle) = Context::background().with_cancel();
        let ender = thread::spawn(move || handle.cancel());
        let cleanup = ctx.cleanup();
        ender.join().unwrap();
        assert!(!cleanup.is_done());
        assert_eq!(alarms(), 1);
        drop(cleanup);
        assert_eq!(alarms(), 0);
    });
}

#[test]
fn dropped_during_the_end_then_no_alarm_left() {
    loom::model(|| {
        let (ctx, handle) = Context::background().with_cancel();
        let cleanup = ctx.cleanup();
        let ender = thread::spawn(move || handle.cancel());
        drop(cleanup);
        ender.join().unwrap();
        assert_eq!(alarms(), 0);
    });
}

#[test]
fn asked_during_the_abort_then_ended() {
    loom::model(|| {
        let group: Group = Group::new();
        group.cancel();
        let core = group.core().clone();
        let aborter = thread::spawn(move || core.abort(|| error(Reason::Shutdown)));
        let cleanup = group.context().cleanup();
        aborter.join().unwrap();
        assert!(cleanup.is_done());
        assert_eq!(alarms(), 0);
    });
}

#[test]
fn two_ask_during_the_abort_then_both_ended() {
    loom::model(|| {
        let group: Group = Group::new();
        group.cancel();
        let asker = {
            let ctx = group.context().clone();
            thread::spawn(move || ctx.cleanup())
        };
        let core = group.core().clone();
        let aborter = thread::spawn(move || core.abort(|| error(Reason::Shutdown)));
        aborter.join().unwrap();
        assert!(asker.join().unwrap().is_done());
    });
}

/// A context to clean up in after a group's has ended, and what its alarm does.
fn cleaning_up(group: &Group) -> (Arc<Node>, Plan) {
    let of = group.context().node().expect("derived");
    let abort = Step::Abort.of(of).expect("a group");
    let cleanup = Node::derive_cleanup(Some(&abort), Location::caller());
    let plan = Plan {
        of: of.clone(),
        cleanup: Arc::downgrade(&cleanup),
        budget: super::DEFAULT,
        set_at: None,
        location: Location::caller(),
    };
    (cleanup, plan)
}

#[test]
fn alarm_goes_off_while_the_stop_is_over_then_one_of_them_ends_it() {
    loom::model(|| {
        let group: Group = Group::new();
        group.cancel();
        group.core().begin_grace();
        let core = group.core().clone();
        let over = thread::spawn(move || core.end_grace(|| error(Reason::Shutdown)));
        let (cleanup, plan) = cleaning_up(&group);
        plan.end();
        over.join().unwrap();
        assert!(cleanup.has_ended());
    });
}

#[test]
fn alarm_goes_off_during_the_abort_then_one_of_them_ends_it() {
    loom::model(|| {
        let group: Group = Group::new();
        group.cancel();
        group.core().begin_grace();
        let core = group.core().clone();
        let aborter = thread::spawn(move || core.abort(|| error(Reason::Shutdown)));
        let (cleanup, plan) = cleaning_up(&group);
        plan.end();
        aborter.join().unwrap();
        assert!(cleanup.has_ended());
    });
}
