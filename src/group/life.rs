//! `Life`: one task's place in its group, from its admission to its release.
//!
//! Owned by the task: by its future, or by its closure. Whatever the task's fate, its `Life` is released exactly once,
//! after the task's code and captures are dropped: by `settle` or `cut`, or by its drop if tokio dropped the task.
//!
//! The release is in this order: record, end the context, give back the slot, leave the registry, let `wait` go on.

use std::panic::Location;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use super::core::{Core, passes_on};
use super::registry::{Key, Stage};
use super::slots::Hold;
use crate::context::Context;
use crate::error::GroupError;
use crate::panic::{Payload, discard};
use crate::task::{TaskError, TaskId};

pub(crate) struct Life<E: GroupError> {
    core: Arc<Core<E>>,
    key: Key,
    hold: Hold,
    is_over: bool,
}

/// A task that the group has taken.
pub(crate) struct Admitted<E: GroupError> {
    pub(crate) life: Life<E>,
    pub(crate) id: TaskId,
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

impl<E: GroupError> Life<E> {
    pub(crate) fn new(core: Arc<Core<E>>, key: Key, hold: Hold) -> Self {
        Self {
            core,
            key,
            hold,
            is_over: false,
        }
    }

    pub(crate) fn context(&self) -> &Context {
        &self.core.context
    }

    /// One atomic load while the context is live.
    pub(crate) fn order(&self) -> Order {
        if !self.core.context.is_done() {
            Order::Go
        } else if self.core.registry.stage() == Stage::Aborting {
            Order::Abort
        } else {
            Order::Stop
        }
    }

    pub(crate) fn is_queued(&self) -> bool {
        matches!(self.hold, Hold::Queued(_))
    }

    /// Waits for the task's slot; anything but `Go` if the context ends first.
    pub(crate) fn poll_start(&mut self, cx: &mut TaskContext<'_>) -> Poll<Order> {
        let order = self.order();
        let Hold::Queued(ticket) = self.hold else {
            return Poll::Ready(order);
        };
        if order != Order::Go {
            return Poll::Ready(order);
        }
        if self.core.slots.poll_granted(ticket, cx.waker()).is_ready() {
            self.hold = Hold::Slot;
            return Poll::Ready(Order::Go);
        }
        match self.leave_waker(cx) {
            Stage::Open => Poll::Pending,
            Stage::Ended | Stage::Aborting => Poll::Ready(self.order()),
        }
    }

    /// Has the task woken when the stage rises above the one returned.
    pub(crate) fn leave_waker(&self, cx: &TaskContext<'_>) -> Stage {
        self.core.registry.leave_waker(self.key, cx.waker())
    }

    pub(crate) fn stage(&self) -> Stage {
        self.core.registry.stage()
    }

    /// Records what the task came to, and releases it. `dropped` is how the drop of its code went.
    pub(crate) fn settle<T>(
        &mut self,
        result: Result<Result<T, E>, Payload>,
        dropped: Result<(), Payload>,
    ) -> Result<T, TaskError> {
        let result = match dropped {
            Ok(()) => result,
            Err(payload) => {
                discard(result);
                Err(payload)
            }
        };
        let settled = match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.failed(error)),
            Err(payload) => return Err(self.panicked(payload)),
        };
        self.release();
        settled
    }

    /// Records that the task was stopped, and releases it.
    pub(crate) fn stop(
        &mut self,
        order: Order,
        was_started: bool,
        dropped: Result<(), Payload>,
    ) -> TaskError {
        if let Err(payload) = dropped {
            return self.panicked(payload);
        }
        self.core.outcome.record_cut();
        self.release();
        match order {
            Order::Abort if was_started => TaskError::Aborted,
            _ => TaskError::Cancelled(self.core.end_error()),
        }
    }

    /// Records that the task, or the drop of its code, panicked, and releases it.
    pub(crate) fn panicked(&mut self, payload: Payload) -> TaskError {
        self.described(|core, name, id, location| core.panicked(payload, name, id, location));
        self.release();
        TaskError::Panicked
    }

    fn failed(&self, error: E) -> TaskError {
        // An error that only passes on the end of the context is the task's way of being cut short (G7, G8).
        if let Some(end) = self.core.context.err()
            && passes_on(&error, &end)
        {
            discard(error);
            self.core.outcome.record_cut();
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
        let described = self.core.registry.with(self.key, |entry| {
            (entry.name.clone(), entry.id, entry.location)
        });
        if let Some((name, id, location)) = described {
            f(
                &self.core,
                name.as_ref().map(|name| name.as_ref().as_ref()),
                id,
                location,
            );
        }
    }

    fn release(&mut self) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let removed = self.core.registry.remove(self.key);
        match std::mem::replace(&mut self.hold, Hold::Free) {
            // It may have been running when the group got its limit.
            Hold::Free => {
                if removed.entry.as_ref().is_some_and(|entry| entry.holds_slot) {
                    self.core.slots.release(Hold::Slot);
                }
            }
            hold => self.core.slots.release(hold),
        }
        // Only now may `wait` go on.
        drop(removed);
    }
}

impl<E: GroupError> Drop for Life<E> {
    fn drop(&mut self) {
        if !self.is_over {
            self.core.outcome.record_dropped();
            self.release();
        }
    }
}
