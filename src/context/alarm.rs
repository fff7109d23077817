//! `Alarm`: what is to be done at a time, unless a node has ended before that. It ends drains and times to clean up.
//!
//! A node of its own, which derives from none, with a deadline and a callback. The node that it concerns owns it, by a
//! callback that does nothing but drop it: so it goes when that node ends or is dropped, and its timers with it. What it
//! does knows that node only weakly.
//!
//! Why not a deadline of the node itself? That is fixed at derivation, so that whatever derives from it can share it.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::clock::enter;
use super::deadline::Setting;
use super::node::Node;

#[must_use = "it is armed by `arm`"]
pub(super) struct Alarm {
    node: Arc<Node>,
    /// Its place in the node that owns it.
    pub(super) key: u32,
}

impl Alarm {
    /// Has `f` called at this time, once it is armed. If the time is over, `f` is called now; `None` then, and if `owner`
    /// has ended, which drops `f`.
    pub(super) fn set(
        owner: &Arc<Node>,
        at: Instant,
        location: &'static Location<'static>,
        f: impl FnOnce() + Send + 'static,
    ) -> Option<Self> {
        let node = calling(Setting::at(at, location), f)?;
        let owned = node.clone();
        let key = owner.add(Box::new(move |_| drop(owned))).ok()?;
        Some(Self { node, key })
    }

    /// Sets the timer, on the runtime at hand, else the process's. It may go off in this call.
    ///
    /// # Panics
    ///
    /// In a runtime without a timer, by tokio; the process's tells then.
    pub(super) fn arm(self) {
        if let Some(deadline) = self.node.own_deadline() {
            deadline.arm_for_certain();
        }
    }

    /// As `arm`, during an end: it panics only where the clock is paused.
    pub(super) fn arm_in_passing(self) {
        if let Some(deadline) = self.node.own_deadline() {
            deadline.arm_in_passing();
        }
    }
}

/// An alarm that concerns no node: whoever keeps it owns it, and drops it to call it off.
pub(crate) struct Reminder {
    _node: Arc<Node>,
}

impl Reminder {
    /// Has `f` called after this time by the clock of `runtime`: on the thread that drives its time if that clock is paused, else
    /// on the process's timer thread, so that the runtime needs no timer. `None` if that was now.
    ///
    /// # Panics
    ///
    /// In a runtime whose clock is paused, and which has no timer, by tokio.
    pub(crate) fn set(
        time: Duration,
        runtime: &Handle,
        location: &'static Location<'static>,
        f: impl FnOnce() + Send + 'static,
    ) -> Option<Self> {
        let _entered = enter(runtime);
        let node = calling(Setting::after(time, location), f)?;
        if let Some(deadline) = node.own_deadline() {
            deadline.arm_in_passing();
        }
        Some(Self { _node: node })
    }
}

/// A node that calls `f` when it ends, by its deadline. If that is over, `f` is called now; `None` then.
fn calling(setting: Setting, f: impl FnOnce() + Send + 'static) -> Option<Arc<Node>> {
    let node = Node::derive_deadline(None, setting);
    match node.add(Box::new(move |_| f())) {
        Ok(_) => Some(node),
        Err(call) => {
            call(node.end_error());
            None
        }
    }
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests {
    use std::panic::Location;
    use std::time::Duration;

    use super::Alarm;
    use crate::context::clock::now;
    use crate::context::node::Node;

    #[test]
    fn set_in_passing_in_a_runtime_without_a_timer_then_no_panic() {
        let location = Location::caller();
        let node = Node::derive(None, 0, location);
        let at = now() + Duration::from_secs(3_600);
        let alarm = Alarm::set(&node, at, location, || ()).expect("the node is live");
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(async { alarm.arm_in_passing() });
    }
}
