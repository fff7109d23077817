//! What wakes a supervisor: a message, its one timer, its own context.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

use super::shared::Message;
use crate::context::{Context, DoneOwned};
use crate::error::Reason;

pub(super) enum Wake<E> {
    Message(Message<E>),
    Due,
    Stopping,
    Ended(Reason),
}

/// What the supervisor's own context says.
pub(super) struct Parent {
    stopping: Option<DoneOwned>,
    done: Option<DoneOwned>,
}

impl Parent {
    /// `stopping` is that of `ctx`. Where nothing above can be stopped in steps, it is the same, and not waited for twice.
    pub(super) fn new(ctx: &Context, stopping: &Context) -> Self {
        let [node, step] = [ctx, stopping].map(|ctx| ctx.node().map(Arc::as_ptr));
        Self {
            stopping: (step != node).then(|| stopping.done_owned()),
            done: Some(ctx.done_owned()),
        }
    }

    /// Tells each of the two once; the end first, which is the beginning of the stop, too, where there is no other.
    pub(super) fn poll<E>(&mut self, cx: &mut TaskContext<'_>) -> Poll<Wake<E>> {
        if let Some(reason) = end(&mut self.done, cx) {
            self.stopping = None;
            return Poll::Ready(Wake::Ended(reason));
        }
        if end(&mut self.stopping, cx).is_some() {
            return Poll::Ready(Wake::Stopping);
        }
        Poll::Pending
    }
}

/// Of what the context has ended, once.
fn end(done: &mut Option<DoneOwned>, cx: &mut TaskContext<'_>) -> Option<Reason> {
    match Pin::new(done.as_mut()?).poll(cx) {
        Poll::Ready(end) => {
            *done = None;
            Some(end.reason())
        }
        Poll::Pending => None,
    }
}

/// The supervisor's one timer: for whatever is due first.
#[derive(Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    due: Option<Instant>,
}

impl Timer {
    pub(super) fn set(&mut self, due: Option<Instant>) {
        if self.due == due {
            return;
        }
        self.due = due;
        if let Some(due) = due {
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(due),
                None => self.sleep = Some(Box::pin(sleep_until(due))),
            }
        }
    }

    pub(super) fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        match (self.due, &mut self.sleep) {
            (Some(_), Some(sleep)) => {
                let polled = sleep.as_mut().poll(cx);
                if polled.is_ready() {
                    // It has to be set again before it is polled again.
                    self.due = None;
                }
                polled
            }
            _ => Poll::Pending,
        }
    }
}
