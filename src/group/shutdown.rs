//! `Shutdown`: stopping a group within a grace period, and naming who would not stop.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

use tokio::time::timeout;

use super::Group;
use super::registry::{Kind, Registry};
use crate::error::{ContextError, GroupError, Reason};
use crate::task::TaskId;
use crate::wait_group::WaitGroup;

/// What [`Group::shutdown`] came to.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "it carries the group's error and names the tasks that would not stop"]
pub struct Shutdown<E> {
    /// The first error of a task. Being cut short is none.
    pub result: Result<(), E>,
    /// The tasks that were still there when the grace was over, longest running first.
    pub stragglers: Vec<Straggler>,
}

/// A task that outlived a grace period.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Straggler {
    /// Its id.
    pub id: TaskId,
    /// Its name, if it was given one.
    pub name: Option<Cow<'static, str>>,
    /// Where it was spawned.
    pub location: &'static Location<'static>,
    /// How long it had been there when the grace was over: since it first waited, or, if it never came to an await, since
    /// the shutdown began.
    pub age: Duration,
    /// Whether it has been aborted. `false` for a blocking task, which nobody can abort, and for one that did not yield
    /// to be aborted: these may still be running.
    pub was_aborted: bool,
}

/// How long a task that was told to abort gets to come to its next await, if the grace was shorter.
const YIELD: Duration = Duration::from_secs(1);

pub(super) async fn shutdown<E: GroupError>(
    group: Group<E>,
    grace: Duration,
    location: &'static Location<'static>,
) -> Shutdown<E> {
    let core = &group.core;
    core.end(|| ContextError::at(Reason::Shutdown, location, None));
    let registry = &core.registry;
    // Tasks that have never waited are as old as this at least.
    registry.for_each(|_| {});
    let mut stragglers = Vec::new();
    if !ended_within(registry.everyone(), grace).await {
        stragglers = survey(registry);
        core.abort();
        ended_within(registry.abortable(), grace.max(YIELD)).await;
        let alive = alive(registry);
        for straggler in &mut stragglers {
            straggler.was_aborted &= !alive.contains(&straggler.id);
        }
    }
    Shutdown {
        result: core.settle_stopped(),
        stragglers,
    }
}

/// Needs no timer if there is nothing to wait for.
async fn ended_within(tasks: &WaitGroup, limit: Duration) -> bool {
    tasks.is_empty() || timeout(limit, tasks.wait()).await.is_ok()
}

/// Lists the live tasks. Whether they are aborted is left at whether they can be.
fn survey<O>(registry: &Registry<O>) -> Vec<Straggler> {
    let mut stragglers = Vec::new();
    registry.for_each(|entry| {
        stragglers.push(Straggler {
            id: entry.id,
            name: entry.name.map(|name| name.as_ref().clone()),
            location: entry.location,
            age: entry.age,
            was_aborted: entry.kind == Kind::Async,
        });
    });
    stragglers.sort_by_key(|straggler| std::cmp::Reverse(straggler.age));
    stragglers
}

fn alive<O>(registry: &Registry<O>) -> HashSet<TaskId> {
    let mut alive = HashSet::new();
    registry.for_each(|entry| {
        alive.insert(entry.id);
    });
    alive
}

impl fmt::Display for Straggler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task ")?;
        if let Some(name) = &self.name {
            write!(f, "{name:?} ")?;
        }
        let fate = if self.was_aborted {
            "aborted"
        } else {
            "still running"
        };
        write!(
            f,
            "{} {fate} after {:?} {}",
            self.id, self.age, self.location
        )
    }
}
