//! The races of a stop: with itself, with an end, with who asks, and with the drop of the handles.

use std::time::Duration;

use loom::thread;

use super::StopHandle;
use crate::context::Context;
use crate::context::timers::Timers;
use crate::error::Reason;

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);

fn stoppable() -> (Context, StopHandle) {
    Context::background().with_stop()
}

fn reason(ctx: &Context) -> Option<Reason> {
    ctx.err().map(|error| error.reason())
}

/// How many alarms are set. No model has a runtime.
fn alarms() -> usize {
    Timers::of_process().len()
}

#[test]
fn asked_for_stopping_during_stop_then_it_is() {
    loom::model(|| {
        let (ctx, handle) = stoppable();
        let stopper = thread::spawn(move || {
            handle.stop(HOUR);
            handle
        });
        let stopping = ctx.stopping();
        let _handle = stopper.join().unwrap();
        assert_eq!(reason(&stopping), Some(Reason::Stopping));
        assert_eq!(reason(&ctx), None);
        assert_eq!(alarms(), 1);
    });
}

#[test]
fn two_ask_for_stopping_at_once_then_both_are_told() {
    loom::model(|| {
        let (ctx, handle) = stoppable();
        let asker = {
            let ctx = ctx.clone();
            thread::spawn(move || ctx.stopping())
        };
        let mine = ctx.stopping();
        let other = asker.join().unwrap();
        handle.stop(HOUR);
        assert_eq!(reason(&mine), Some(Reason::Stopping));
        assert_eq!(reason(&other), Some(Reason::Stopping));
    });
}

#[test]
fn asked_for_stopping_below_while_above_it_is_asked_and_stopped() {
    loom::model(|| {
        let (outer, handle) = stoppable();
        let (inner, _inner_handle) = outer.with_stop();
        let stopper = thread::spawn(move || {
            handle.stop(HOUR);
            handle
        });
        let stopping = inner.stopping();
        let _handle = stopper.join().unwrap();
        assert_eq!(reason(&stopping), Some(Reason::Stopping));
        assert_eq!(reason(&inner), None);
    });
}

#[test]
fn cancelled_during_stop_then_one_reason_and_no_alarm_left() {
    loom::model(|| {
        let (ctx, handle) = stoppable();
        let stopping = ctx.stopping();
        let stopper = {
            let handle = handle.clone();
            thread::spawn(move || handle.stop(HOUR))
        };
        handle.cancel();
        stopper.join().unwrap();
        assert_eq!(reason(&ctx), Some(Reason::Cancelled));
        let why = reason(&stopping);
        assert!(
            matches!(why, Some(Reason::Cancelled | Reason::Stopping)),
            "{why:?}"
        );
        assert_eq!(alarms(), 0);
    });
}

#[test]
fn cancelled_while_asked_for_stopping_then_that_ends_too() {
    loom::model(|| {
        let (ctx, handle) = stoppable();
        let canceller = thread::spawn(move || {
            handle.cancel();
            handle
        });
        let stopping = ctx.stopping();
        let _handle = canceller.join().unwrap();
        assert_eq!(reason(&stopping), Some(Reason::Cancelled));
    });
}

#[test]
fn stopped_by_two_at_once_then_the_earlier_end_holds() {
    loom::model(|| {
        let (ctx, handle) = stoppable();
        let stopper = {
            let handle = handle.clone();
            thread::spawn(move || handle.stop(HOUR))
        };
        handle.stop(MINUTE);
        stopper.join().unwrap();
        let node = ctx.node().expect("derived");
        let point = node.stop_point().expect("it can be stopped");
        let at = point.alarm().expect("it is set");
        assert!(at < super::now() + HOUR / 2);
        assert_eq!(alarms(), 1);
        drop((ctx, handle));
        assert_eq!(alarms(), 0);
    });
}

#[test]
fn handle_dropped_during_stop_by_another_then_it_does_not_end() {
    loom::model(|| {
        let (ctx, handle) = stoppable();
        let other = handle.clone();
        let stopper = thread::spawn(move || {
            other.stop(HOUR);
            drop(other);
        });
        drop(handle);
        stopper.join().unwrap();
        assert_eq!(reason(&ctx), None);
        assert_eq!(reason(&ctx.stopping()), Some(Reason::Stopping));
    });
}

#[test]
fn last_handles_dropped_at_once_then_ended() {
    loom::model(|| {
        let (ctx, handle) = stoppable();
        let other = handle.clone();
        let dropper = thread::spawn(move || drop(other));
        drop(handle);
        dropper.join().unwrap();
        assert_eq!(reason(&ctx), Some(Reason::HandleDropped));
    });
}

#[test]
fn child_derived_during_the_end_of_the_drain_then_ended_with_it() {
    loom::model(|| {
        let (ctx, handle) = stoppable();
        let stopper = thread::spawn(move || handle.stop(Duration::ZERO));
        let child = ctx.with_cancel();
        stopper.join().unwrap();
        assert_eq!(reason(&child.0), Some(Reason::Stopped));
        assert_eq!(reason(&child.0.stopping()), Some(Reason::Stopping));
    });
}

#[test]
fn context_dropped_during_stop_then_no_alarm_left() {
    loom::model(|| {
        let (ctx, handle) = stoppable();
        let stopper = thread::spawn(move || handle.stop(HOUR));
        drop(ctx);
        stopper.join().unwrap();
        assert_eq!(alarms(), 0);
    });
}
