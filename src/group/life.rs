//! `Life`: one task's place in its group, from its admission to its release.
//!
//! Owned by the task: by its future, or by its closure. Whatever the task's fate, its `Life` is released exactly once,
//! after the task's code and captures are dropped: by `settle`, `stop` or `panicked`, or by its drop if tokio dropped
//! the task.
//!
//! The release is in this order: record, end the context, leave the registry, give back the slot, let `wait` go on.

use std::panic::{Location, resume_unwind};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use tokio::time::Instant;

use super::core::{Core, passes_on};
use super::mark::{Mark, Policy};
use super::page::{Page, Taken};
use super::registry::{Name, Registered, Stage};
use super::slots::Hold;
use crate::context::Context;
use crate::error::GroupError;
use crate::panic::{Payload, discard};
use crate::task::{TaskError, TaskId};

// Small, so that a small task fits into tokio's smallest allocation with it: two words, of which `phase` leaves the values
// that `Run` and tokio need to tell their own states. Hence whatever else a task has is noted on its page, which is also
// what keeps the group's core.
pub(crate) struct Life<E: GroupError> {
    page: Arc<Page<Arc<Core<E>>>>,
    mark: Mark,
    phase: Phase,
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It may start once its slot is there.
    Admitted,
    /// It has been polled, and had to wait.
    Started,
    /// It has been released.
    Over,
}

/// A task's place in its group, before its life: two words that are handed over in registers.
#[must_use = "only a `Life` leaves it"]
pub(crate) struct Place<E: GroupError> {
    page: Arc<Page<Arc<Core<E>>>>,
    mark: Mark,
}

/// What the group has to say to a task before it is polled.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Go,
    /// The context has ended.
    Stop,
    /// The context has ended, and there is no more time.
    Abort,
}

impl<E: GroupError> Place<E> {
    pub(crate) fn new(registered: Registered<Arc<Core<E>>>, policy: Policy) -> Self {
        Self {
            page: registered.page,
            mark: Mark::new(registered.line, policy),
        }
    }

    pub(crate) fn set_name(&mut self, name: Name) {
        self.mark.set_has_notes();
        self.page.set_name(self.mark.line(), name);
    }

    /// The task is there from now on, and not only from its first wait.
    pub(crate) fn set_since(&mut self, now: Instant) {
        self.mark.set_has_notes();
        self.page.set_since(self.mark.line(), now);
    }

    pub(crate) fn set_hold(&mut self, hold: Hold) {
        self.mark.set_has_notes();
        self.page.set_hold(self.mark.line(), hold);
        if let Hold::Queued(_) = hold {
            self.mark.set_queued();
        }
    }
}

impl<E: GroupError> Life<E> {
    #[inline]
    pub(crate) fn new(place: Place<E>) -> Self {
        Self {
            page: place.page,
            mark: place.mark,
            phase: Phase::Admitted,
        }
    }

    fn core(&self) -> &Core<E> {
        &self.page.owner
    }

    pub(crate) fn id(&self) -> TaskId {
        self.page.id(self.mark.line())
    }

    pub(crate) fn context(&self) -> &Context {
        &self.core().context
    }

    pub(crate) fn is_queued(&self) -> bool {
        self.mark.is_queued()
    }

    pub(crate) fn start(&mut self) {
        self.phase = Phase::Started;
    }

    /// One atomic load while the context is live.
    pub(crate) fn order(&self) -> Order {
        if !self.core().context.is_done() {
            Order::Go
        } else if self.core().registry.stage() == Stage::Aborting {
            Order::Abort
        } else {
            Order::Stop
        }
    }

    /// Whether the order means that the task's code is dropped now.
    pub(crate) fn is_stopped_by(&self, order: Order) -> bool {
        match order {
            Order::Go => false,
            Order::Stop => self.mark.policy() == Policy::Dropped || self.phase != Phase::Started,
            Order::Abort => true,
        }
    }

    /// Waits for the task's slot; anything but `Go` if the context ends first.
    pub(crate) fn poll_start(&mut self, cx: &mut TaskContext<'_>) -> Poll<Order> {
        let order = self.order();
        if order != Order::Go || !self.mark.is_queued() {
            return Poll::Ready(order);
        }
        if self.poll_slot(cx).is_ready() {
            self.mark.clear_queued();
            return Poll::Ready(Order::Go);
        }
        match self.may_wait(cx) {
            true => Poll::Pending,
            false => Poll::Ready(self.order()),
        }
    }

    fn poll_slot(&self, cx: &mut TaskContext<'_>) -> Poll<()> {
        match self.page.hold(self.mark.line()) {
            Hold::Queued(ticket) => self.core().slots.poll_granted(ticket, cx.waker()),
            Hold::Free | Hold::Slot => Poll::Ready(()),
        }
    }

    /// Makes sure that the task is woken when the stage rises; `false` if it is to be stopped instead of waiting.
    pub(crate) fn may_wait(&mut self, cx: &mut TaskContext<'_>) -> bool {
        if self.mark.has_left_waker(self.core().registry.stage()) {
            return true;
        }
        let stage = self.page.leave_waker(self.mark.line(), cx.waker());
        self.mark.set_has_notes();
        self.mark.set_left_waker(stage);
        stage == Stage::Open || !self.is_stopped_by(self.order())
    }

    /// Records what the task came to, and releases it. `dropped` is how the drop of its code went.
    #[inline]
    pub(crate) fn settle<T>(
        &mut self,
        result: Result<Result<T, E>, Payload>,
        dropped: Result<(), Payload>,
    ) -> Result<T, TaskError> {
        match (result, dropped) {
            (Ok(Ok(value)), Ok(())) => {
                self.release();
                Ok(value)
            }
            (Ok(Err(error)), Ok(())) => {
                let failed = self.failed(error);
                self.release();
                Err(failed)
            }
            (Err(payload), Ok(())) => Err(self.panicked(payload)),
            (result, Err(payload)) => {
                discard(result);
                Err(self.panicked(payload))
            }
        }
    }

    /// Records that the task was stopped, and releases it.
    pub(crate) fn stop(&mut self, order: Order, dropped: Result<(), Payload>) -> TaskError {
        if let Err(payload) = dropped {
            return self.panicked(payload);
        }
        // A task that the group stops says why its context ended, however far the group is by the time it is polled.
        let was_aborted = order == Order::Abort
            && self.phase == Phase::Started
            && self.mark.policy() == Policy::StopsItself;
        self.core().outcome.record_cut();
        self.release();
        if was_aborted {
            TaskError::Aborted
        } else {
            TaskError::Cancelled(self.core().end_error())
        }
    }

    /// Records that the task, or the drop of its code, panicked, and releases it.
    #[cold]
    pub(crate) fn panicked(&mut self, payload: Payload) -> TaskError {
        self.described(|core, name, id, location| core.panicked(payload, name, id, location));
        self.release();
        TaskError::Panicked
    }

    /// As `panicked`, where tokio drops the task: it says so in the handle if the drop panics.
    pub(crate) fn panicked_in_drop(&mut self, payload: Payload) {
        self.panicked(payload);
        if !std::thread::panicking() {
            resume_unwind(Box::new(
                "errgroup: a task's destructor panicked, and its group has the payload",
            ));
        }
    }

    #[cold]
    fn failed(&self, error: E) -> TaskError {
        // An error that only passes on the end of the context is the task's way of being cut short (G7, G8).
        let end = self.core().context.err();
        if let Some(end) = end.filter(|end| passes_on(&error, end)) {
            discard(error);
            self.core().outcome.record_cut();
            return TaskError::Cancelled(end);
        }
        self.described(|core, name, id, location| core.failed(error, name, id, location));
        TaskError::Failed
    }

    /// Calls `f` with what the registry knows of the task, outside its locks.
    fn described(
        &self,
        f: impl FnOnce(&Core<E>, Option<&str>, TaskId, &'static Location<'static>),
    ) {
        let name = match self.mark.has_notes() {
            true => self.page.name(self.mark.line()),
            false => None,
        };
        let name = name.as_ref().map(|name| name.as_ref().as_ref());
        f(self.core(), name, self.id(), self.page.location());
    }

    /// Leaves the group, which records nothing of it.
    #[inline]
    pub(crate) fn release(&mut self) {
        self.phase = Phase::Over;
        let notes = match self.mark.has_notes() {
            true => self.page.take_notes(self.mark.line()),
            false => Taken::default(),
        };
        let left = self.page.leave(self.mark.line());
        let hold = match left.was_counted {
            true => Hold::Slot,
            false => notes.hold,
        };
        if hold != Hold::Free {
            self.core().slots.release(hold);
        }
        drop(notes);
        if left.was_last {
            // Only now may `wait` go on.
            self.core().registry.end(self.page.kind);
        }
    }
}

impl<E: GroupError> Drop for Life<E> {
    fn drop(&mut self) {
        if self.phase != Phase::Over {
            self.core().outcome.record_dropped();
            self.release();
        }
    }
}
