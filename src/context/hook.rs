//! `OnDone`: a callback at the end of a context.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, Mutex};

use super::listeners::{Hook, Waiter};
use super::node::Node;
use crate::destructor::destroy;
use crate::panic::contain;

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
    /// The callback of a context that never ends. The lock, never contended, is what makes a `Send` value `Sync`.
    never: Mutex<Option<Hook>>,
}

impl OnDone {
    pub(super) fn new(node: Option<&Arc<Node>>, hook: Hook) -> Self {
        let mut on_done = Self {
            registered: None,
            never: Mutex::default(),
        };
        let Some(node) = node else {
            on_done.never = Mutex::new(Some(hook));
            return on_done;
        };
        // As a poll does: a deadline that has passed is told now.
        node.tell_if_overdue();
        match node.register(hook) {
            Ok(key) => on_done.registered = Some((node.clone(), key)),
            Err(hook) => contain(|| hook(node.end_error())),
        }
        on_done
    }

    /// One that was registered under this key.
    pub(super) fn registered(node: Arc<Node>, key: u32) -> Self {
        Self {
            registered: Some((node, key)),
            never: Mutex::default(),
        }
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
            let kept = node.clone();
            // Refused by an ended node: then there is nothing to keep it for.
            let _ = node.add(Box::new(move |_| drop(kept)));
        }
    }

    fn take_back(&mut self) -> bool {
        let hook = match self.registered.take() {
            Some((node, key)) => node.deregister(key),
            None => match self.never.get_mut() {
                Ok(never) => never.take(),
                Err(poisoned) => poisoned.into_inner().take(),
            }
            .map(Waiter::Hook),
        };
        let was_prevented = hook.is_some();
        destroy(hook);
        was_prevented
    }
}

impl Drop for OnDone {
    fn drop(&mut self) {
        self.take_back();
    }
}

// No callback runs through it, and none is seen half-made.
impl UnwindSafe for OnDone {}
impl RefUnwindSafe for OnDone {}

impl fmt::Debug for OnDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDone").finish_non_exhaustive()
    }
}

/// Tells a foreign future's task to stop when the context ends or is dropped; see `Context::with_cancel_on`.
///
/// The node's key is handed out, `None` if it has ended: who takes the task out again gives up the handle, and with it the
/// runtime.
pub(crate) fn abort_with(node: &Arc<Node>, task: tokio::task::AbortHandle) -> Option<u32> {
    struct AbortOnDrop(tokio::task::AbortHandle);
    impl Drop for AbortOnDrop {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
    let guard = AbortOnDrop(task);
    // Refused by an ended node, run by the end or freed with the node: each way the guard is dropped.
    node.add(Box::new(move |_| drop(guard))).ok()
}
