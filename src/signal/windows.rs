//! Ctrl-C on Windows: a task for each context, on tokio's listener.
//!
//! Tokio's handler takes Ctrl-C while there is a listener, and leaves it to the next handler, in the end to the system's,
//! while there is none. So giving up the listener gives back the default, and what other listeners there are is
//! respected.
//!
//! The task owns the listener and knows the node only weakly. The node owns the task (`abort_with`), until it ends. A
//! listener that outlives the end, for `second_kills(false)`, looks after the node with each Ctrl-C; so the first one
//! after the context was dropped comes to nothing, too.

use std::io;
use std::panic::Location;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::signal::windows::{CtrlC, ctrl_c};

use super::Signals;
use crate::context::{Context, abort_with};

pub(super) fn derive(
    signals: &Signals,
    parent: &Context,
    location: &'static Location<'static>,
) -> io::Result<Context> {
    let mut first = ctrl_c()?;
    let node = super::derive_node(signals, parent, location);
    if !node.is_done() {
        let runtime = Handle::current();
        let weak = Arc::downgrade(&node);
        let drain = signals.drain;
        let second = if signals.second_kills {
            None
        } else {
            Some(ctrl_c()?)
        };
        let task = runtime.spawn(async move {
            first.recv().await;
            drop(first);
            if let Some(node) = weak.upgrade() {
                super::end(&node, drain, "Ctrl-C");
            }
        });
        abort_with(&node, task.abort_handle());
        if let Some(listener) = second {
            let weak = Arc::downgrade(&node);
            runtime.spawn(listen(listener, move || weak.strong_count() > 0));
        }
    }
    Ok(parent.with_node(node))
}

/// Keeps Ctrl-C from its default.
async fn listen(mut listener: CtrlC, is_needed: impl Fn() -> bool) {
    while is_needed() {
        listener.recv().await;
    }
}
