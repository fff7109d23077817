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

use super::alarm::Alarm;
use super::clock::{later, now};
use super::hook::OnDone;
use super::kind::Grace;
use super::listeners::Hook;
use super::node::Node;
use super::step::Step;
use super::tree::{Climb, climb};
use crate::error::ContextError;

/// How long without `with_cleanup`.
const DEFAULT: Duration = Duration::from_secs(5);

/// How long cleaning up may take: one of the context's values.
pub(super) struct Budget {
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

impl Budget {
    /// One that holds below this node.
    pub(super) fn below(node: Option<&Arc<Node>>, time: Duration) -> Self {
        let node = node.map(Arc::downgrade);
        Self { time, node }
    }
}

/// Derives the context in which to clean up after this one.
pub(super) fn after(
    of: &Arc<Node>,
    budget: Option<&Budget>,
    location: &'static Location<'static>,
) -> Arc<Node> {
    // That of a group above, or of the time to clean up that this is part of.
    let abort = Step::Abort.of(of);
    let cleanup = Node::derive_cleanup(abort.as_ref(), location);
    let plan = Plan {
        of: of.clone(),
        cleanup: Arc::downgrade(&cleanup),
        budget: budget.map_or(DEFAULT, |budget| budget.time),
        set_at: budget.and_then(|budget| budget.node.clone()),
        location,
    };
    plan.follow(&cleanup);
    cleanup
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
        match of.register(begin) {
            Ok(key) => {
                let registered = OnDone::registered(of, key);
                // Refused by one that has been aborted.
                let _ = cleanup.add(Box::new(move |_| drop(registered)));
            }
            // It ended meanwhile.
            Err(begin) => begin(of.end_error()),
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
