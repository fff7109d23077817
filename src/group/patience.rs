//! `Patience`: reports, once, who keeps a wait from ending although the context ended long ago.
//!
//! Owned by the config of a group that was asked to do this; other groups have none. When the context ends under tasks, a
//! timer is set, and a task on the group's runtime looks when the time has passed; a wait that begins later looks itself.
//!
//! Why not a sleep of tokio's? It panics on a runtime without time. Why does the timer not look itself? It would run the user's
//! callback on the thread that all deadlines of the process wait for.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::registry::Registry;
use super::straggler::{Straggler, still_there};
use crate::context::{Node, Reminder};
use crate::panic::contain;

pub(crate) type OnStragglers = dyn Fn(&[Straggler]) + Send + Sync;

pub(crate) struct Patience {
    time: Duration,
    report: Box<OnStragglers>,
    /// Set from the end of the context on; `None` in it if the time was over at once.
    reminder: OnceLock<Option<Reminder>>,
    has_reported: AtomicBool,
}

pub(super) const DEFAULT_PATIENCE: Duration = Duration::from_secs(10);

impl Patience {
    pub(super) fn new(time: Duration, report: Box<OnStragglers>) -> Self {
        Self {
            time,
            report,
            reminder: OnceLock::new(),
            has_reported: AtomicBool::new(false),
        }
    }

    /// The context has ended, and there are tasks: has their group look, when the time has passed.
    pub(super) fn begin(&self, node: &Node, runtime: Option<Handle>) {
        if self.reminder.get().is_some() {
            return;
        }
        // The group's, if it has tasks there; else, since it may wait for those of guests, this thread's.
        let runtime = runtime.or_else(|| Handle::try_current().ok());
        let (Some(runtime), Some(group)) = (runtime, node.weak_owner().cloned()) else {
            return;
        };
        let home = runtime.clone();
        let reminder = Reminder::set(self.time, &runtime, node.location(), move || {
            if let Some(group) = group.upgrade() {
                home.spawn(async move { group.remind() });
            }
        });
        // Unset before, or by another thread a moment ago.
        let _ = self.reminder.set(reminder);
    }

    /// The tasks, if somebody waits for them, and the context ended long enough ago; once. Who was reminded does not ask for
    /// how long: clocks differ beside a paused one.
    pub(super) fn overdue(&self, registry: &Registry, is_reminded: bool) -> Option<Vec<Straggler>> {
        let ended_ago = if is_reminded {
            Duration::ZERO
        } else {
            self.time
        };
        let is_over = registry.is_waited_for_since_end(Instant::now(), ended_ago);
        // Relaxed: it only has to be one of them.
        let is_first = is_over && !self.has_reported.swap(true, Ordering::Relaxed);
        is_first.then(|| still_there(registry))
    }

    pub(super) fn report(&self, stragglers: &[Straggler]) {
        contain(|| (self.report)(stragglers));
    }
}
