//! `CancelHandle`: the right to end a context.

use std::fmt;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use super::node::Node;
use crate::error::{BoxError, ContextError, Reason};

/// The right to end one [`Context`](crate::Context).
///
/// Held by the context's owner. Clones share the right; the context ends when the last of them is dropped, with
/// [`Reason::HandleDropped`], as with Go's `defer cancel()`. Hence `let (ctx, _) = …` ends the context at once, while
/// `let (ctx, _handle) = …` keeps it live to the end of the scope.
#[must_use = "dropping the last handle ends the context at once; keep it, or call `detach()`"]
pub struct CancelHandle {
    node: Arc<Node>,
    /// Cleared by `detach`.
    ends: bool,
}

impl CancelHandle {
    /// The handle that the node was derived with.
    pub(super) fn first(node: Arc<Node>) -> Self {
        Self { node, ends: true }
    }

    /// Ends the context, unless it has ended already: the first end wins.
    ///
    /// When this returns, every context derived below has ended and every waiter has been woken. Wakers and
    /// [`on_done`](crate::Context::on_done) callbacks run in this call.
    #[track_caller]
    pub fn cancel(&self) {
        let location = Location::caller();
        self.node
            .end(|| ContextError::at(Reason::Cancelled, location, None));
    }

    /// Ends the context with a cause, which [`Context::cause`](crate::Context::cause) and the error's text then give. Otherwise as
    /// [`cancel`](CancelHandle::cancel).
    #[track_caller]
    pub fn cancel_with(&self, cause: impl Into<BoxError>) {
        let location = Location::caller();
        let cause = cause.into();
        self.node
            .end(|| ContextError::at(Reason::Cancelled, location, Some(cause)));
    }

    /// Gives up the right without using it: the context then ends with its parent or deadline, or by another clone.
    pub fn detach(mut self) {
        self.ends = false;
    }
}

impl Clone for CancelHandle {
    fn clone(&self) -> Self {
        self.node.add_handle();
        Self {
            node: self.node.clone(),
            ends: true,
        }
    }
}

impl Drop for CancelHandle {
    fn drop(&mut self) {
        if self.node.remove_handle() && self.ends {
            self.node.end_unhandled();
        }
    }
}

impl UnwindSafe for CancelHandle {}
impl RefUnwindSafe for CancelHandle {}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelHandle")
            .field("derived_at", &format_args!("{}", self.node.location()))
            .field("ended", &self.node.error_ref())
            .finish()
    }
}
