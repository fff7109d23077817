//! `Straggler`: a task that is still there, and why, as far as that is known.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

use super::diagnosis::{Diagnosis, Sighting};
use super::entry::Kind;
use super::registry::Registry;
use super::watch::Listed;
use crate::task::TaskId;

/// A task that outlived a grace period, or is still there while its group is being stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Straggler {
    /// Its id.
    pub id: TaskId,
    /// Its name, if it was given one.
    pub name: Option<Cow<'static, str>>,
    /// Where it was spawned.
    pub location: &'static Location<'static>,
    /// How long it had been there when it was listed: since it first waited, or, if it never came to an await, since
    /// the stop began.
    pub age: Duration,
    /// Whether it has been aborted. `false` for a blocking task, which nobody can abort, and for one that did not yield
    /// to be aborted: these may still be running.
    pub was_aborted: bool,
    /// Why it was still there, as far as that is known. `None` while its context is live, and where it is too early to say.
    pub diagnosis: Option<Diagnosis>,
    /// What was seen of it.
    sighting: Sighting,
}

/// Lists the live tasks, of which none has been aborted.
pub(super) fn still_there(registry: &Registry) -> Vec<Straggler> {
    let mut tasks = survey(registry);
    tasks.iter_mut().for_each(|task| task.was_aborted = false);
    tasks
}

/// Lists the live tasks. Whether they are aborted is left at whether they can be.
pub(super) fn survey(registry: &Registry) -> Vec<Straggler> {
    let mut stragglers: Vec<Straggler> = registry.list().into_iter().map(Straggler::new).collect();
    stragglers.sort_by_key(|straggler| (std::cmp::Reverse(straggler.age), straggler.id));
    stragglers
}

impl Straggler {
    /// One that is aborted in a group that goes on, of which nothing was seen.
    pub(crate) fn aborted(
        id: TaskId,
        name: Cow<'static, str>,
        location: &'static Location<'static>,
        age: Duration,
    ) -> Self {
        Self {
            id,
            name: Some(name),
            location,
            age,
            was_aborted: true,
            diagnosis: None,
            sighting: Sighting::nothing(),
        }
    }

    fn new(task: Listed) -> Self {
        Self {
            id: task.id,
            name: task.name.map(|name| name.as_ref().clone()),
            location: task.location,
            age: task.age,
            was_aborted: task.kind != Kind::Blocking,
            diagnosis: task.sighting.diagnosis(),
            sighting: task.sighting,
        }
    }

    /// It has had the time to be aborted. One that is still there, in the same poll, blocks its thread.
    pub(super) fn look_again(&mut self, now: Option<&Listed>, later: Duration) {
        let Some(now) = now else { return };
        self.was_aborted = false;
        if now.sighting.count == self.sighting.count {
            self.sighting.unchanged = later;
            self.diagnosis = self.sighting.diagnosis();
        }
    }
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
        let (id, age) = (self.id, self.age);
        write!(f, "{id} {fate} after {age:?} {}", self.location)?;
        match self.diagnosis {
            Some(diagnosis) => write!(f, " ({diagnosis})"),
            None => Ok(()),
        }
    }
}
