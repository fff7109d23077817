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
    /// `None` only after `detach`.
    node: Option<Arc<Node>>,
}

impl CancelHandle {
    /// The handle that the node was derived with.
    #[inline]
    pub(super) fn first(node: Arc<Node>) -> Self {
        Self { node: Some(node) }
    }

    /// Ends the context, unless it has ended already: the first end wins.
    ///
    /// When this returns, every context derived below has ended and every waiter has been woken. Wakers and
    /// [`on_done`](crate::Context::on_done) callbacks run in this call.
    #[track_caller]
    pub fn cancel(&self) {
        let location = Location::caller();
        self.end(|| ContextError::at(Reason::Cancelled, location, None));
    }

    /// Ends the context with a cause, which [`Context::cause`](crate::Context::cause) and the error's text then give. Otherwise as
    /// [`cancel`](CancelHandle::cancel).
    #[track_caller]
    pub fn cancel_with(&self, cause: impl Into<BoxError>) {
        let location = Location::caller();
        let cause = cause.into();
        self.end(|| ContextError::at(Reason::Cancelled, location, Some(cause)));
    }

    /// Gives up the right without using it: the context then ends with its parent or deadline, or by another clone.
    pub fn detach(mut self) {
        if let Some(node) = self.node.take() {
            node.state.remove_handle();
        }
    }

    /// Returns `true` from the context's end on, as [`Context::is_done`](crate::Context::is_done) does.
    pub fn is_done(&self) -> bool {
        self.node.as_ref().is_some_and(Node::is_done)
    }

    /// Returns why the context has ended, or `None` while it is live, as [`Context::err`](crate::Context::err) does.
    pub fn err(&self) -> Option<ContextError> {
        self.node.as_ref().and_then(Node::err)
    }

    fn end(&self, error: impl FnOnce() -> ContextError) {
        if let Some(node) = &self.node {
            node.end(error);
        }
    }
}

impl Clone for CancelHandle {
    fn clone(&self) -> Self {
        let node = self.node.clone();
        if let Some(node) = &node {
            node.state.add_handle();
        }
        Self { node }
    }
}

impl Drop for CancelHandle {
    #[inline]
    fn drop(&mut self) {
        if let Some(node) = &self.node {
            // With no other owner there is nobody to ask: a child, a waiter, a context would own the node, too.
            if node.state.remove_handle() && Arc::strong_count(node) > 1 {
                node.end_by_handle();
            }
        }
    }
}

impl UnwindSafe for CancelHandle {}
impl RefUnwindSafe for CancelHandle {}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("CancelHandle");
        if let Some(node) = &self.node {
            debug.field("derived_at", &format_args!("{}", node.location()));
            debug.field("ended", &node.error_ref());
        }
        debug.finish()
    }
}
