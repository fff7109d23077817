//! The task behind `Context::with_cancel_on`: a foreign future that ends a context.
//!
//! The task knows the node only weakly; the node owns the task's abort handle, as a callback, until it ends or is dropped.
//! The handle holds the runtime, so the task takes it out again when it goes first: with its runtime, for one.

use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;

use tokio::runtime::Handle;

use super::node::Node;
use super::{Context, hook};
use crate::error::{BoxError, ContextError, Reason};
use crate::panic::{catch, message, poll_catching};
use crate::sync::{AtomicU32, Ordering};

/// Derives a context that the future ends, with its output as the cause.
#[track_caller]
pub(super) fn watch(
    parent: &Context,
    future: impl Future<Output = Option<BoxError>> + Send + 'static,
) -> Context {
    let Ok(runtime) = Handle::try_current() else {
        panic!(
            "errgroup: with_cancel_on runs its future on a tokio runtime, and this thread is in none: call it inside \
             `block_on` or a task, or call `Handle::enter` first"
        );
    };
    let location = Location::caller();
    let node = Node::derive(parent.node(), 0, location);
    let key = Arc::new(AtomicU32::new(Link::NONE));
    let link = Link {
        node: Arc::downgrade(&node),
        key: key.clone(),
    };
    let task = runtime.spawn(end_with(link, future, location));
    if let Some(registered) = hook::abort_with(&node, task.abort_handle()) {
        // The other end is `Link::drop`: whoever comes second takes the handle out. Relaxed: nothing else is handed over.
        if key.swap(registered, Ordering::Relaxed) == Link::GONE {
            drop(node.deregister(registered));
        }
    }
    parent.with_node(node)
}

async fn end_with(
    link: Link,
    future: impl Future<Output = Option<BoxError>>,
    location: &'static Location<'static>,
) {
    let mut future = pin!(future);
    let mut is_first = true;
    let output = poll_fn(|cx| {
        if std::mem::take(&mut is_first) {
            // At a deadline the future is dropped although nobody waits for it. Not in the caller: deriving tells nobody.
            let node = link.node.upgrade();
            if let Err(payload) = catch(|| node.iter().for_each(|node| node.see_to_timer())) {
                return Poll::Ready(Err(payload));
            }
        }
        poll_catching(future.as_mut(), cx)
    })
    .await;
    let Some(node) = link.node.upgrade() else {
        return;
    };
    node.end(|| match output {
        Ok(cause) => ContextError::at(Reason::Cancelled, location, cause),
        Err(payload) => ContextError::detailed(
            Reason::Cancelled,
            format!(
                "the future given to with_cancel_on at {location} panicked: {}",
                message(&payload)
            ),
        ),
    });
}

/// The task's side: the node, and the key of the abort handle there.
struct Link {
    node: Weak<Node>,
    key: Arc<AtomicU32>,
}

impl Link {
    /// No key yet.
    const NONE: u32 = u32::MAX;
    /// The task has gone, and needs no abort.
    const GONE: u32 = u32::MAX - 1;
}

impl Drop for Link {
    fn drop(&mut self) {
        let key = self.key.swap(Self::GONE, Ordering::Relaxed);
        if key == Self::NONE {
            return;
        }
        if let Some(node) = self.node.upgrade() {
            drop(node.deregister(key));
        }
    }
}
