//! `Context`: the public face of the tree. Here is what a context is asked, and how it is waited for; how others are derived
//! from it is in `derive.rs`.

mod alarm;
mod cleanup;
mod clock;
mod deadline;
mod derive;
mod directory;
mod done;
mod end;
mod foreign;
mod handle;
mod hook;
mod kind;
mod listeners;
#[cfg(all(test, errgroup_loom))]
mod loom_models;
mod node;
mod run;
mod state;
mod step;
mod steps;
mod stop;
mod timers;
mod tree;
mod values;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::alarm::Reminder;
pub(crate) use self::clock::{later, now};
pub(crate) use self::directory::{Listing, listed};
pub use self::done::{Done, DoneOwned};
pub use self::handle::CancelHandle;
pub use self::hook::OnDone;
#[cfg(all(feature = "signal", windows))]
pub(crate) use self::hook::abort_with;
pub(crate) use self::kind::{Grace, Owner};
pub(crate) use self::node::Node;
pub(crate) use self::steps::Steps;
pub use self::stop::StopHandle;
pub(crate) use self::stop::Stopper;

use self::run::Run;
use self::values::Values;
use crate::error::ContextError;

/// Says who may still work, until when, and with which values.
///
/// A context is read only and cheap to clone. It ends exactly once: because its [`CancelHandle`] cancelled it, its
/// deadline passed, its parent ended, its [`Group`](crate::Group) did, or a stop came to its end. It stays ended, and whoever asks later sees it
/// too, with the same [`ContextError`]. Ending a context ends everything derived from it, before the call that ends it
/// returns; it never touches the parent.
///
/// Handing out a `Context` never hands out the right to cancel it: that is the [`CancelHandle`].
///
/// # Comparison to `CancellationToken` and Go's `context`
///
/// tokio-util's `CancellationToken` can be cancelled by whoever holds a clone, says neither why nor where, and knows no
/// deadline. Go's `context.Context` leaves a forgotten child registered with its parent until somebody cancels it; here
/// dropping it is enough.
///
/// # Examples
///
/// ```
/// use errgroup::{Context, Reason};
///
/// # async fn work(ctx: Context) {
/// loop {
///     tokio::select! {
///         error = ctx.done() => {
///             println!("stopping: {error}");
///             break;
///         }
///         () = next_job() => {}
///     }
/// }
/// # }
/// # async fn next_job() { std::future::pending().await }
/// # let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # let (ctx, handle) = Context::background().with_cancel();
/// # handle.cancel();
/// # rt.block_on(work(ctx));
/// ```
#[derive(Clone)]
pub struct Context {
    tree: Tree,
    values: Values,
}

#[derive(Clone)]
enum Tree {
    Background,
    Todo,
    Node(Arc<Node>),
}

impl Context {
    /// Returns the root: it never ends, has no deadline and no values. Allocates nothing.
    ///
    /// It belongs into `main`, tests and the like. In the middle of a flow derive from the caller's context: a group
    /// that starts from the root there is out of reach of every cancellation above it.
    pub const fn background() -> Context {
        Self {
            tree: Tree::Background,
            values: Values::NONE,
        }
    }

    /// Returns a root for places that should be given a context and are not yet.
    ///
    /// It behaves as [`background`](Context::background), and says `todo` in `Debug`.
    pub const fn todo() -> Context {
        Self {
            tree: Tree::Todo,
            values: Values::NONE,
        }
    }

    /// Returns `true` from the context's end on.
    ///
    /// One atomic load; with a deadline, one clock read more, so that a loop which never yields sees its deadline
    /// although no timer could run. Asking is pure: it wakes nobody and calls nobody back, so it may be done under locks
    /// of one's own. Who sees a deadline passed before its timer has run leaves it to the timer, to whoever waits or
    /// to the next end to tell the others; but nobody who asks sees the context live any more.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.node().is_some_and(Node::is_done)
    }

    /// Returns why the context has ended, or `None` while it is live. Costs as [`is_done`](Context::is_done).
    pub fn err(&self) -> Option<ContextError> {
        self.node().and_then(Node::err)
    }

    /// Returns an error if the context has ended: `ctx.check()?` in a loop. Costs as [`is_done`](Context::is_done).
    ///
    /// # Errors
    ///
    /// The reason of the end.
    pub fn check(&self) -> Result<(), ContextError> {
        match self.err() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Returns the cause that was given to the end, else the [`ContextError`] itself; `None` while the context is live.
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.node()?.error_ref().map(ContextError::cause)
    }

    /// Returns when the context will end at the latest: the earliest deadline of its own and its ancestors'.
    pub fn deadline(&self) -> Option<Instant> {
        self.node()?.deadline()
    }

    /// Returns the time left to the deadline, zero when it has passed; `None` without a deadline.
    ///
    /// By the clock of the runtime at hand, which may be paused, else by the system's. It wakes nobody.
    pub fn remaining(&self) -> Option<Duration> {
        Some(self.deadline()?.saturating_duration_since(now()))
    }

    /// Returns the nearest value of type `T`. Costs O(number of nearer values).
    pub fn value<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.values.get()
    }

    /// Waits for the end. On a context that never ends, this waits forever.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future unregisters it and loses nothing.
    #[inline]
    pub fn done(&self) -> Done<'_> {
        Done::new(self.node())
    }

    /// Waits for the end, without borrowing the context: for `take_until`, for structs.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future unregisters it and loses nothing.
    pub fn done_owned(&self) -> DoneOwned {
        DoneOwned::new(self.node().cloned())
    }

    /// Blocks the thread until the end, or until `timeout` has passed (by the system's clock): then `None`.
    ///
    /// `None` as the timeout waits without limit. A deadline is kept to by parking until then: no runtime is needed. Not
    /// for async code: it blocks the runtime's thread.
    pub fn done_blocking(&self, timeout: Option<Duration>) -> Option<ContextError> {
        done::block_on(self.node(), timeout)
    }

    /// Runs a future until it completes or the context ends; in the latter case the future is dropped at the await it
    /// stands at.
    ///
    /// The context is checked before each poll: in an ended one the future is never polled. It adds a few words to the
    /// future, so that layers of it may lie on each other.
    ///
    /// # Errors
    ///
    /// The reason of the end, if it came first.
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future drops the inner one.
    pub fn run<F: Future>(
        &self,
        future: F,
    ) -> impl Future<Output = Result<F::Output, ContextError>> {
        Run::new(self, future)
    }

    /// Sleeps for `duration`, or until the end if that is earlier.
    ///
    /// # Errors
    ///
    /// The reason of the end, if it came first.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, or in one without a timer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the sleep and nothing else.
    pub async fn sleep(&self, duration: Duration) -> Result<(), ContextError> {
        self.run(tokio::time::sleep(duration)).await
    }

    /// Registers a callback for the end.
    ///
    /// It runs exactly once or never, on the thread that ends the context, after everything below the context has
    /// ended; on an ended context it runs at once, in this call. Keep it short: it holds up that thread. No lock is held
    /// meanwhile, so it may call anything. A panic in it is contained (the panic hook has reported it) and the end goes
    /// on.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::Context;
    ///
    /// let (ctx, handle) = Context::background().with_cancel();
    /// let (tell, told) = std::sync::mpsc::channel();
    /// let on_done = ctx.on_done(move |error| tell.send(error.to_string()).unwrap());
    /// handle.cancel();
    /// assert!(told.try_recv().is_ok());
    /// assert!(!on_done.stop(), "it has run");
    /// ```
    pub fn on_done(&self, f: impl FnOnce(&ContextError) + Send + 'static) -> OnDone {
        OnDone::new(self.node(), Box::new(f))
    }

    #[inline]
    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        match &self.tree {
            Tree::Node(node) => Some(node),
            Tree::Background | Tree::Todo => None,
        }
    }

    /// The same values on another node.
    #[inline]
    pub(crate) fn with_node(&self, node: Arc<Node>) -> Context {
        Self {
            tree: Tree::Node(node),
            values: self.values.clone(),
        }
    }
}

// What a context shows of itself never changes but from live to ended, in one step.
impl UnwindSafe for Context {}
impl RefUnwindSafe for Context {}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = match &self.tree {
            Tree::Background => return f.write_str("Context::background()"),
            Tree::Todo => return f.write_str("Context::todo()"),
            Tree::Node(node) => node,
        };
        let mut debug = f.debug_struct("Context");
        debug.field("derived_at", &format_args!("{}", node.location()));
        if let Some(remaining) = self.remaining() {
            debug.field("remaining", &remaining);
        }
        debug.field("ended", &node.error_ref()).finish()
    }
}
