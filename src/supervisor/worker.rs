//! `Worker`: a child, as far as the machine does not know it. `Incarnation`: its task, and the right to stop it.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Schedule;
use super::entry::Spec;
use super::service::Service;
use crate::context::{CancelHandle, Context, StopHandle};
use crate::error::{ContextError, Reason};
use crate::panic::Contained;
use crate::task::Task;

/// A child, as far as the machine does not know it.
pub(super) struct Worker<E> {
    pub(super) service: Contained<Arc<dyn Service<E>>>,
    pub(super) backoff: Option<Schedule>,
    pub(super) spec: Spec,
    pub(super) incarnation: Option<Incarnation>,
}

pub(super) struct Incarnation {
    pub(super) task: Task<()>,
    pub(super) ctx: Context,
    pub(super) right: Right,
    pub(super) started_at: Instant,
}

/// The right to stop an incarnation. Its drop ends the context.
pub(super) enum Right {
    /// Without a drain: a context that ends in one step costs less.
    Cancel {
        _handle: CancelHandle,
    },
    Stop(StopHandle),
}

impl Right {
    pub(super) fn derive(parent: &Context, spec: &Spec) -> (Context, Self) {
        match spec.drain.is_zero() {
            true => {
                let (ctx, handle) = parent.with_cancel();
                (ctx, Right::Cancel { _handle: handle })
            }
            false => {
                let (ctx, handle) = parent.with_stop();
                (ctx, Right::Stop(handle))
            }
        }
    }
}

impl Incarnation {
    pub(super) fn stop(&self, drain: Duration) {
        match &self.right {
            Right::Stop(handle) => handle.stop(drain),
            Right::Cancel { .. } => {
                if let Some(node) = self.ctx.node() {
                    node.end(|| ContextError::at(Reason::Stopped, Location::caller(), None));
                }
            }
        }
    }
}
