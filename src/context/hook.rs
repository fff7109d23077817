//! `OnDone`: a callback at the end of a context.

use std::fmt;
use std::sync::Arc;

use super::listeners::{Hook, Waiter};
use super::node::Node;
use crate::error::ContextError;
use crate::panic::{contain, discard};

/// Holds a callback that runs when a [`Context`](crate::Context) ends: the value of
/// [`Context::on_done`](crate::Context::on_done).
///
/// Dropping it stops the callback, as [`stop`](OnDone::stop) does. It keeps the context alive, so that the context's
/// ancestors and deadline can still end it.
///
/// Compared with Go's `context.AfterFunc`, the callback runs on the thread that ends the context instead of in a
/// goroutine of its own.
#[must_use = "dropping it stops the callback at once; keep it, or call `detach()`"]
pub struct OnDone {
    /// `None` once there is nothing to stop.
    registered: Option<(Arc<Node>, u32)>,
    /// The callback of a context that never ends.
    never: Option<Hook>,
}

impl OnDone {
    pub(super) fn new(node: Option<&Arc<Node>>, hook: Hook) -> Self {
        let mut on_done = Self {
            registered: None,
            never: None,
        };
        let Some(node) = node else {
            on_done.never = Some(hook);
            return on_done;
        };
        // `is_done` asks the clock too; `register` does not.
        node.is_done();
        match node.register(Waiter::Hook(hook)) {
            Ok(key) => on_done.registered = Some((node.clone(), key)),
            Err(Waiter::Hook(hook)) => {
                if let Some(error) = node.err() {
                    contain(|| hook(&error));
                }
            }
            Err(Waiter::Waker(_) | Waiter::Kept { .. }) => {}
        }
        on_done
    }

    /// Takes the callback back; returns `true` if this is what prevented it from running.
    ///
    /// `false` means that it has run, or is running on the thread that ends the context.
    pub fn stop(mut self) -> bool {
        self.take_back()
    }

    /// Lets the callback run without this value.
    ///
    /// The context is kept alive until it ends. A callback on a context that nothing can end any more is never run, and
    /// never freed.
    pub fn detach(mut self) {
        if let Some((node, _)) = self.registered.take() {
            node.keep();
        }
    }

    fn take_back(&mut self) -> bool {
        let hook = match self.registered.take() {
            Some((node, key)) => match node.deregister(key) {
                Some(Waiter::Hook(hook)) => Some(hook),
                _ => None,
            },
            None => self.never.take(),
        };
        let was_prevented = hook.is_some();
        discard(hook);
        was_prevented
    }
}

impl Drop for OnDone {
    fn drop(&mut self) {
        self.take_back();
    }
}

impl fmt::Debug for OnDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDone").finish_non_exhaustive()
    }
}

/// Tells a foreign future's task to stop when the context ends or is dropped; see `Context::with_cancel_on`.
pub(crate) fn abort_with(node: &Arc<Node>, task: tokio::task::AbortHandle) {
    struct AbortOnDrop(tokio::task::AbortHandle);
    impl Drop for AbortOnDrop {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
    let guard = AbortOnDrop(task);
    // Refused by an ended node, run by the end or freed with the node: each way the guard is dropped.
    let _ = node.register(Waiter::Hook(Box::new(move |_: &ContextError| drop(guard))));
}
