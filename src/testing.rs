//! What a test can ask about tasks that it left behind, or that hold it up. The feature `testing`.
//!
//! - [`assert_no_leaks`] fails, with the tree, if a task is alive below a context.
//! - [`Watchdog`] dumps the tree of the process when a test takes longer than it should.
//!
//! # Examples
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! use errgroup::testing::{Watchdog, assert_no_leaks};
//! use errgroup::{Context, Group};
//! use std::time::Duration;
//!
//! let _watchdog = Watchdog::new(Duration::from_secs(30));
//! let (ctx, _handle) = Context::background().with_cancel();
//! let group: Group = Group::with_context(&ctx);
//! group.spawn(async { Ok(()) });
//! group.await.unwrap();
//! assert_no_leaks(&ctx);
//! # }
//! ```

use std::fmt;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use crate::context::Context;
use crate::panic::contain;
use crate::snapshot::{Snapshot, dump_all};

/// Panics, with the [tree](Context::tree) of what is there, if a task of a group or a scope below `ctx` has not ended, or a
/// batch has items in hand.
///
/// Tests that run side by side, each below a context of its own, do not see each other. A task that was just aborted may
/// not have ended yet: wait for its group first.
///
/// # Panics
///
/// If a task or an item is alive.
#[track_caller]
pub fn assert_no_leaks(ctx: &Context) {
    let tree = ctx.tree();
    let of_scopes: usize = tree.scopes().map(|scope| scope.live()).sum();
    let tasks = tree.tasks().count() + of_scopes;
    let items: usize = tree.batches().map(|batch| batch.live()).sum();
    assert!(
        tasks + items == 0,
        "errgroup: {tasks} tasks and {items} items were left behind:\n{tree}"
    );
}

/// Dumps the tree of the process if it is not dropped in time: a guard for a test that may hang.
///
/// It takes a thread, which sleeps by the system's clock, whatever a runtime's paused clock says.
#[must_use = "dropping the watchdog ends the watch"]
pub struct Watchdog {
    /// Hangs up at the drop.
    _alive: Sender<()>,
}

impl Watchdog {
    /// Writes [`dump_all`] to standard error once `time` has passed.
    ///
    /// # Panics
    ///
    /// If the system has no thread for it.
    pub fn new(time: Duration) -> Self {
        let name = thread::current().name().unwrap_or("unnamed").to_owned();
        Self::with(time, move |tree| {
            eprintln!("errgroup: {name} is still at it after {time:?}:\n{tree}");
        })
    }

    /// Calls `f` with [`dump_all`] once `time` has passed, on a thread of its own. A panic in it is contained.
    ///
    /// # Panics
    ///
    /// If the system has no thread for it.
    pub fn with(time: Duration, f: impl FnOnce(&Snapshot) + Send + 'static) -> Self {
        let (alive, hung_up) = mpsc::channel::<()>();
        let watch = move || {
            if hung_up.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
                contain(|| f(&dump_all()));
            }
        };
        let thread = thread::Builder::new().name("errgroup-watchdog".to_owned());
        thread
            .spawn(watch)
            .expect("errgroup: the system has no thread for a watchdog");
        Self { _alive: alive }
    }
}

impl fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchdog").finish_non_exhaustive()
    }
}
