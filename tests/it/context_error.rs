//! What an end says of itself: texts, places, sources, conversions.

use std::error::Error;
use std::io;
use std::panic::Location;

use errgroup::{Context, ContextError, Reason};
use tokio::time::Instant;

use crate::support::{advance, background, child, end_of, error, ms};

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("quota of {0} used up")]
struct Quota(u32);

/// The line above the caller's.
#[track_caller]
fn line_above() -> String {
    let here = Location::caller();
    format!("{}:{}:", here.file(), here.line() - 1)
}

/// Checks a text that ends in a place, given where that place must be.
#[track_caller]
fn assert_text(ctx: &Context, before: &str, line: &str, after: &str) {
    let text = error(ctx).to_string();
    let place = error(ctx).location().expect("a place").to_string();
    assert!(place.starts_with(line), "{place} is not in {line}");
    assert_eq!(text, format!("{before}{place}{after}"));
    assert!(!text.contains('\n'));
}

#[tokio::test(start_paused = true)]
async fn timeout_tells_how_long_and_where_it_was_set() {
    let ctx = background().with_timeout(ms(200));
    let line = line_above();
    advance(ms(200)).await;
    assert_text(&ctx, "deadline exceeded (200ms, set at ", &line, ")");
}

#[tokio::test(start_paused = true)]
async fn timeout_with_cause_tells_it() {
    let ctx = background().with_timeout_cause(ms(1_500), Quota(3));
    let line = line_above();
    advance(ms(1_500)).await;
    assert_text(
        &ctx,
        "deadline exceeded: quota of 3 used up (1.5s, set at ",
        &line,
        ")",
    );
}

#[tokio::test(start_paused = true)]
async fn deadline_tells_where_it_was_set() {
    let ctx = background().with_deadline(Instant::now());
    let line = line_above();
    assert_text(&ctx, "deadline exceeded (set at ", &line, ")");
    let ctx = background().with_deadline_cause(Instant::now(), "too late");
    let line = line_above();
    assert_text(&ctx, "deadline exceeded: too late (set at ", &line, ")");
}

#[test]
fn cancel_tells_where_it_was_called() {
    let (ctx, handle) = background().with_cancel();
    handle.cancel();
    let line = line_above();
    assert_text(&ctx, "cancelled (at ", &line, ")");
}

#[test]
fn cancel_with_tells_cause_and_where_it_was_called() {
    let (ctx, handle) = background().with_cancel();
    handle.cancel_with("the user pressed stop");
    let line = line_above();
    assert_text(&ctx, "cancelled: the user pressed stop (at ", &line, ")");
}

#[test]
fn handle_dropped_tells_where_it_was_derived_and_how_to_avoid_it() {
    let (ctx, _) = background().with_cancel();
    let line = line_above();
    let text = error(&ctx).to_string();
    assert!(
        text.starts_with("cancelled: the last CancelHandle was dropped"),
        "{text}"
    );
    assert!(text.contains(&line), "{text}");
    assert!(text.contains("`let (ctx, _)"), "{text}");
    assert!(text.contains("detach()"), "{text}");
    assert!(!text.contains('\n'));
}

#[tokio::test(start_paused = true)]
async fn foreign_future_completed_tells_where_it_was_given() {
    let ctx = background().with_cancel_on(std::future::ready(()));
    let line = line_above();
    end_of(&ctx).await;
    assert_text(&ctx, "cancelled (at ", &line, ")");
    let ctx = background().with_cancel_on_cause(std::future::ready("token used"));
    let line = line_above();
    end_of(&ctx).await;
    assert_text(&ctx, "cancelled: token used (at ", &line, ")");
}

#[tokio::test(start_paused = true)]
async fn foreign_future_panicked_tells_so() {
    let ctx = background().with_cancel_on(async { panic!("boom") });
    let line = line_above();
    let error = end_of(&ctx).await;
    let text = error.to_string();
    assert_eq!(error.reason(), Reason::Cancelled);
    assert!(text.contains("panicked: boom"), "{text}");
    assert!(text.contains(&line), "{text}");
}

#[test]
fn reasons_read_as_words() {
    for (reason, text) in [
        (Reason::Cancelled, "cancelled"),
        (
            Reason::HandleDropped,
            "cancelled: the last CancelHandle was dropped",
        ),
        (Reason::DeadlineExceeded, "deadline exceeded"),
        (Reason::TaskFailed, "cancelled: a task failed"),
        (Reason::TaskPanicked, "cancelled: a task panicked"),
        (Reason::GroupCancelled, "cancelled: the group was cancelled"),
        (Reason::GroupFinished, "the group has finished"),
        (Reason::GroupDropped, "cancelled: the group was dropped"),
        (Reason::Shutdown, "cancelled: the group was shut down"),
        (Reason::Signal, "cancelled: a signal was received"),
    ] {
        assert_eq!(reason.to_string(), text);
    }
}

#[test]
fn source_and_downcast_are_the_cause_that_was_given() {
    let (ctx, handle) = background().with_cancel();
    handle.cancel_with(Quota(7));
    let error = error(&ctx);
    assert_eq!(error.source().unwrap().downcast_ref(), Some(&Quota(7)));
    assert_eq!(error.downcast_ref(), Some(&Quota(7)));
    assert!(error.downcast_ref::<io::Error>().is_none());
}

#[test]
fn source_and_downcast_are_none_without_a_cause() {
    let (ctx, handle) = background().with_cancel();
    handle.cancel();
    assert!(error(&ctx).source().is_none());
    assert!(error(&ctx).downcast_ref::<ContextError>().is_none());
}

#[test]
fn no_task_is_named_where_none_failed() {
    let (ctx, handle) = background().with_cancel();
    handle.cancel();
    assert_eq!(error(&ctx).task(), None);
}

#[test]
fn only_a_deadline_is_exceeded() {
    let (cancelled, handle) = background().with_cancel();
    handle.cancel();
    assert!(!error(&cancelled).is_deadline_exceeded());
}

#[tokio::test(start_paused = true)]
async fn deadline_becomes_a_timed_out_io_error() {
    let ctx = background().with_timeout(ms(0));
    assert!(error(&ctx).is_deadline_exceeded());
    let io = io::Error::from(error(&ctx));
    assert_eq!(io.kind(), io::ErrorKind::TimedOut);
    assert_eq!(io.to_string(), error(&ctx).to_string());
}

#[test]
fn other_reasons_become_other_io_errors_that_keep_them() {
    let (ctx, handle) = background().with_cancel();
    handle.cancel_with(Quota(7));
    let io = io::Error::from(error(&ctx));
    assert_eq!(io.kind(), io::ErrorKind::Other);
    let inner = io
        .get_ref()
        .unwrap()
        .downcast_ref::<ContextError>()
        .unwrap();
    assert_eq!(inner.downcast_ref(), Some(&Quota(7)));
}

#[test]
fn check_passes_by_question_mark_into_the_errors_of_programs() {
    fn step(ctx: &Context) -> Result<(), Box<dyn Error + Send + Sync>> {
        ctx.check()?;
        Ok(())
    }
    fn io_step(ctx: &Context) -> io::Result<()> {
        Ok(ctx.check()?)
    }
    let (ctx, handle) = background().with_cancel();
    assert!(step(&ctx).is_ok() && io_step(&ctx).is_ok());
    handle.cancel();
    let error = step(&ctx).unwrap_err().downcast::<ContextError>().unwrap();
    assert_eq!(error.reason(), Reason::Cancelled);
    assert!(io_step(&ctx).is_err());
}

#[test]
fn clones_of_an_error_share_its_cause() {
    let (ctx, handle) = background().with_cancel();
    handle.cancel_with(Quota(7));
    let (error, clone) = (error(&ctx), error(&ctx).clone());
    drop((ctx, handle));
    let address = |error: &ContextError| std::ptr::from_ref(error.downcast_ref::<Quota>().unwrap());
    assert_eq!(address(&error), address(&clone));
}

#[test]
fn error_in_debug_names_reason_and_text() {
    let (ctx, handle) = background().with_cancel();
    handle.cancel_with(Quota(7));
    let debug = format!("{:?}", error(&ctx));
    assert!(
        debug.contains("Cancelled") && debug.contains("quota of 7 used up"),
        "{debug}"
    );
}

#[test]
fn errors_are_equal_if_they_tell_of_the_same_end() {
    let (ctx, handle) = background().with_cancel();
    let (other, other_handle) = background().with_cancel();
    let below = child(&ctx);
    for handle in [handle, other_handle] {
        handle.cancel();
    }
    assert_eq!(error(&ctx), error(&below));
    assert_ne!(error(&ctx), error(&other), "alike, and two events");
}
