//! What the feature `tracing` tells: a span for each group and each task, an event for each failure, for each end of a group's
//! context, and a warning that names stragglers.
//!
//! A subscriber is foreign code: it is called with no lock held, and its panics are contained, except where it is called by
//! a task's own poll, whose panic is the task's.

use std::future::Future;
use std::panic::Location;

use tracing::instrument::Instrumented;
use tracing::{Instrument, Level, Span, event, span};

use crate::error::{ContextError, text_of};
use crate::group::{Failure, Straggler};
use crate::panic::contain;
use crate::task::Owned;

/// A group's span. Its parent is the one where the group was made.
pub(crate) fn group(name: Option<&str>, id: u64, location: &'static Location<'static>) -> Span {
    span!(target: "errgroup", Level::INFO, "group", id, name, %location)
}

/// A task's span. Its parent is the one where the task was spawned; it follows from the group's.
fn task(group: &Span, who: &Owned) -> Span {
    let name = who.name.as_ref().map(|name| name.as_ref().as_ref());
    let (name, id, location): (Option<&str>, u64, _) = (name, who.id.0, who.location);
    let span = span!(target: "errgroup", Level::INFO, "task", id, name, %location);
    span.follows_from(group);
    span
}

/// Polls and drops a task's future in its span.
pub(crate) fn future<F: Future>(group: &Span, who: &Owned, future: F) -> Instrumented<F> {
    future.instrument(task(group, who))
}

/// Calls a task's closure in its span.
pub(crate) fn closure<F, I, O>(
    group: &Span,
    who: &Owned,
    f: F,
) -> impl FnOnce(I) -> O + use<F, I, O>
where
    F: FnOnce(I) -> O,
{
    let span = task(group, who);
    move |input| span.in_scope(|| f(input))
}

/// A task has failed or panicked.
pub(crate) fn failed<E: std::fmt::Display>(group: &Span, failure: &Failure<E>) {
    contain(|| {
        let (id, name, location) = (failure.id().0, failure.name(), failure.location());
        event!(
            target: "errgroup", parent: group, Level::ERROR,
            id, name, %location, "{}", text_of(failure)
        );
    });
}

/// The context of a group has ended.
pub(crate) fn ended(group: &Span, error: &ContextError) {
    contain(|| {
        let reason = error.reason();
        event!(
            target: "errgroup", parent: group, Level::INFO,
            ?reason, "the context has ended: {}", text_of(error)
        );
    });
}

/// Tasks are still there when they should not be.
pub(crate) fn stragglers(group: &Span, stragglers: &[Straggler]) {
    contain(|| {
        for straggler in stragglers {
            let (id, name) = (straggler.id.0, straggler.name.as_deref());
            let was_aborted = straggler.was_aborted;
            let diagnosis = straggler.diagnosis.map(tracing::field::debug);
            event!(
                target: "errgroup", parent: group, Level::WARN,
                id, name, was_aborted, diagnosis, "{straggler}"
            );
        }
    });
}
