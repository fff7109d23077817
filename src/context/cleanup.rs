//! `Context::cleanup`: the time to clean up after a context has ended.
//!
//! A context of its own, which ends `budget` after the other has, by an alarm, or when the tasks of a group above are
//! aborted, of whose step it is a child (`steps.rs`).
//!
//! Invariants:
//!
//! 1. The time counts from the instant that the end's error keeps. All that one event has ended share one error, and so
//!    one time to clean up.
//! 2. The context that ended knows this one weakly, by a callback; this one owns the callback, and by it that context. So
//!    asking again and again leaves nothing behind.
//! 3. An alarm that goes off during the grace of a group above comes to nothing: the abort, or the end of the stop, ends
//!    this context then. The group ends its grace first and its step after that; the alarm asks for the grace after the
//!    step was made. So one of the two ends it.

#[cfg(all(test, errgroup_loom))]
mod loom_models;

use std::panic::Location;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::Context;
use super::alarm::Alarm;
use super::deadline::later;
use super::hook::OnDone;
use super::listeners::{Hook, Waiter};
use super::node::{Grace, Node};
use super::steps::{Climb, Step, climb};
use super::timer::now;
use crate::error::ContextError;

/// How long without `with_cleanup`.
const DEFAULT: Duration = Duration::from_secs(5);

/// How long cleaning up may take: one of the context's values.
struct Budget {
    time: Duration,
    /// The node that it was set for; `None` for the root.
    node: Option<Weak<Node>>,
}

/// Which time to clean up a context has.
struct Plan {
    /// The context that ends, or has ended.
    of: Arc<Node>,
    cleanup: Weak<Node>,
    budget: Duration,
    /// Where the budget was set.
    set_at: Option<Weak<Node>>,
    location: &'static Location<'static>,
}

impl Context {
    /// Derives a context below which [`cleanup`](Context::cleanup) lasts for `budget` from the end. The default is five
    /// seconds.
    ///
    /// It ends when `self` does. A nearer budget hides one further out. While a group is being stopped, whoever cleans up
    /// below it has until the abort instead, unless the budget was set below the group: then whichever is earlier.
    #[must_use = "the budget holds below the returned context, not below this one"]
    pub fn with_cleanup(&self, budget: Duration) -> Context {
        let node = self.node().map(Arc::downgrade);
        self.with_value(Budget { time: budget, node })
    }

    /// Returns a context in which to clean up after this one: not ended by its end, but when the time to clean up is over.
    ///
    /// That time is one for all. It counts from the end, which ten tasks may be told of at once: ten tasks that roll back
    /// share the five seconds, or what [`with_cleanup`](Context::with_cleanup) or the
    /// [builder](crate::GroupBuilder::cleanup) says. The instant is taken when the end reaches a group, a waiter or a callback,
    /// otherwise at the first question. While a [`Group`](crate::Group) is being [stopped](crate::Group::stop) its tasks have
    /// until the abort instead: the whole [grace](crate::Stop::grace). When a group is dropped its time is over, too.
    ///
    /// Before the end it is a context that cannot end yet. It keeps the values and nothing else; it ends with
    /// [`Reason::DeadlineExceeded`](crate::Reason::DeadlineExceeded), or for the abort's reason. Its
    /// [`deadline`](Context::deadline) does not show when. What derives from it ends with it, and so does `cleanup` of that: it
    /// is no more time.
    ///
    /// For tasks given to [`spawn`](crate::Group::spawn) the end is the drop. It serves those of
    /// [`spawn_with`](crate::Group::spawn_with), and threads.
    ///
    /// # Panics
    ///
    /// In a runtime without [`enable_time`](tokio::runtime::Builder::enable_time), with tokio's words, if this context has
    /// ended, or has a deadline.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// use std::time::Duration;
    ///
    /// use errgroup::Group;
    /// use tokio::time::sleep;
    ///
    /// let group: Group = Group::builder().cleanup(Duration::from_secs(2)).build();
    /// let task = group.spawn_with(async |ctx| {
    ///     ctx.done().await;
    ///     // Roll back, but do not hang.
    ///     ctx.cleanup().run(sleep(Duration::from_secs(60))).await?;
    ///     Ok(())
    /// });
    /// tokio::task::yield_now().await;
    /// group.cancel();
    /// let error = task.await.unwrap_err().to_string();
    /// assert!(error.contains("deadline exceeded (2s, set at "), "{error}");
    /// # }
    /// ```
    #[track_caller]
    #[must_use = "it changes nothing about this context"]
    pub fn cleanup(&self) -> Context {
        let location = Location::caller();
        let Some(of) = self.node() else {
            return self.clone();
        };
        // That of a group above, or of the time to clean up that this is part of.
        let abort = Step::Abort.of(of);
        let cleanup = Node::derive_cleanup(abort.as_ref(), location);
        let budget = self.value::<Budget>();
        let plan = Plan {
            of: of.clone(),
            cleanup: Arc::downgrade(&cleanup),
            budget: budget.map_or(DEFAULT, |budget| budget.time),
            set_at: budget.and_then(|budget| budget.node.clone()),
            location,
        };
        plan.follow(&cleanup);
        self.with_node(cleanup)
    }
}

impl Plan {
    /// Sets the alarm, now or at the end.
    fn follow(self, cleanup: &Arc<Node>) {
        let of = self.of.clone();
        if let Some(end) = of.err() {
            return self.begin(end.time(now), Alarm::arm);
        }
        let begin: Hook = Box::new(|end: &ContextError| {
            self.begin(end.time(now), Alarm::arm_in_passing);
        });
        match of.register(Waiter::Hook(begin)) {
            Ok(key) => {
                let registered = OnDone::registered(of, key);
                // Refused by one that has been aborted.
                let _ = cleanup.add(Waiter::Hook(Box::new(move |_| drop(registered))));
            }
            // It ended meanwhile.
            Err(Waiter::Hook(begin)) => begin(of.end_error()),
            Err(Waiter::Waker(_) | Waiter::Kept { .. }) => {}
        }
    }

    fn begin(self, ended: Instant, arm: fn(Alarm)) {
        let Some(cleanup) = self.cleanup.upgrade() else {
            return;
        };
        let at = later(ended, self.budget);
        let location = self.location;
        match at <= now() {
            true => self.end(),
            false => {
                if let Some(alarm) = Alarm::set(&cleanup, at, location, move || self.end()) {
                    arm(alarm);
                }
            }
        }
    }

    /// The budget is used up.
    fn end(self) {
        if self.has_grace() {
            return;
        }
        if let Some(cleanup) = self.cleanup.upgrade() {
            cleanup.end(|| ContextError::deadline(Some(self.budget), self.location, None));
        }
    }

    /// Whether a group that is being stopped says how long it takes: one that is nearer than the budget.
    fn has_grace(&self) -> bool {
        let set_at = self.set_at.as_ref().map(Weak::as_ptr);
        let mut has_grace = false;
        climb(Some(&self.of), |node| {
            if set_at == Some(Arc::as_ptr(node)) {
                return Climb::Beside;
            }
            has_grace = node
                .owner()
                .is_some_and(|owner| owner.grace() == Grace::Running);
            match has_grace {
                true => Climb::Stop,
                false => Climb::On,
            }
        });
        has_grace
    }
}

impl Node {
    /// The end has reached somebody: its instant is this.
    pub(crate) fn take_time(&self) {
        self.end_error().time(now);
    }
}
