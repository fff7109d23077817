//! `Stop`: stopping a group within a grace period, and naming who would not stop. `Shutdown`: what it came to.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Group;
use super::diagnosis::{Diagnosis, Sighting};
use super::failure::{EndedBy, Failure};
use super::outcome::Outcome;
use super::registry::{Kind, Listed, Registry};
use crate::error::{ContextError, GroupError, Reason};
use crate::task::TaskId;

/// Stops a group that it owns: the future of [`Group::stop`] and [`Group::shutdown`].
///
/// It begins at its first poll: ends the context, gives the tasks the [grace](Stop::grace) to stop, aborts what is left and
/// names it. It is ready when every task has ended, except for those that cannot be aborted: blocking ones, and any that
/// does not come to an await within another grace, or a second if that is longer.
///
/// # Panics
///
/// Outside a runtime with a timer, if there is a task to wait for.
///
/// # Cancel safety
///
/// Dropping it drops the group, which aborts the tasks without waiting for them.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Stop<E>(State<E>);

enum State<E> {
    New {
        group: Group<E>,
        grace: Duration,
        location: &'static Location<'static>,
    },
    Running(Pin<Box<dyn Future<Output = Shutdown<E>> + Send>>),
    Over,
}

/// What [`Group::stop`] and [`Group::shutdown`] came to.
#[non_exhaustive]
#[must_use = "it carries the group's failure and names the tasks that would not stop: ask for its `result()`"]
pub struct Shutdown<E> {
    /// The tasks that were still there when the grace was over, longest running first.
    pub stragglers: Vec<Straggler>,
    outcome: Outcome<E>,
}

/// A task that outlived a grace period.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Straggler {
    /// Its id.
    pub id: TaskId,
    /// Its name, if it was given one.
    pub name: Option<Cow<'static, str>>,
    /// Where it was spawned.
    pub location: &'static Location<'static>,
    /// How long it had been there when the grace was over: since it first waited, or, if it never came to an await, since
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

/// How long a task that was told to abort gets to come to its next await, if the grace was shorter.
const YIELD: Duration = Duration::from_secs(1);

/// The grace of `Group::stop()`.
pub(super) const DEFAULT_GRACE: Duration = Duration::from_secs(5);

impl<E> Stop<E> {
    pub(super) fn new(
        group: Group<E>,
        grace: Duration,
        location: &'static Location<'static>,
    ) -> Self {
        Self(State::New {
            group,
            grace,
            location,
        })
    }

    /// Sets how long the tasks have from the end of the context until they are aborted. The default is five seconds.
    ///
    /// # Panics
    ///
    /// After the first poll: it has begun.
    #[track_caller]
    pub fn grace(mut self, time: Duration) -> Self {
        match &mut self.0 {
            State::New { grace, .. } => *grace = time,
            State::Running(_) | State::Over => {
                panic!("errgroup: the stop has begun: set its grace before it is polled")
            }
        }
        self
    }
}

impl<E: GroupError> Future for Stop<E> {
    type Output = Shutdown<E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        if let State::New { .. } = self.0 {
            if let State::New {
                group,
                grace,
                location,
            } = std::mem::replace(&mut self.0, State::Over)
            {
                self.0 = State::Running(Box::pin(stop(group, grace, location)));
            }
        }
        let State::Running(running) = &mut self.0 else {
            panic!("errgroup: a Stop is not polled after it was ready");
        };
        let polled = running.as_mut().poll(cx);
        if polled.is_ready() {
            self.0 = State::Over;
        }
        polled
    }
}

async fn stop<E: GroupError>(
    group: Group<E>,
    grace: Duration,
    location: &'static Location<'static>,
) -> Shutdown<E> {
    let core = &group.core;
    core.end(EndedBy::Owner, || {
        ContextError::at(Reason::Shutdown, location, None)
    });
    let registry = &core.registry;
    // Tasks that have never waited are as old as this at least.
    drop(registry.list());
    let mut stragglers = Vec::new();
    if !within(grace, registry, Registry::poll_empty).await {
        stragglers = survey(registry);
        let surveyed = Instant::now();
        core.abort();
        within(grace.max(YIELD), registry, Registry::poll_aborted).await;
        let later = surveyed.elapsed();
        let alive: HashMap<TaskId, Listed> = registry
            .list()
            .into_iter()
            .map(|task| (task.id, task))
            .collect();
        for straggler in &mut stragglers {
            straggler.look_again(alive.get(&straggler.id), later);
        }
        #[cfg(feature = "tracing")]
        crate::trace::stragglers(&core.span, &stragglers);
    }
    Shutdown {
        stragglers,
        outcome: core.settle_stopped(),
    }
}

/// Waits until something is over, or for so long. Needs no timer if it is over already.
async fn within(
    limit: Duration,
    registry: &Registry,
    poll: fn(&Registry, &TaskContext<'_>) -> Poll<()>,
) -> bool {
    let is_over = poll_fn(|cx| Poll::Ready(poll(registry, cx).is_ready())).await;
    is_over
        || timeout(limit, poll_fn(|cx| poll(registry, cx)))
            .await
            .is_ok()
}

/// Lists the live tasks. Whether they are aborted is left at whether they can be.
pub(super) fn survey(registry: &Registry) -> Vec<Straggler> {
    let mut stragglers: Vec<Straggler> = registry.list().into_iter().map(Straggler::new).collect();
    stragglers.sort_by_key(|straggler| (std::cmp::Reverse(straggler.age), straggler.id));
    stragglers
}

impl Straggler {
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
    fn look_again(&mut self, now: Option<&Listed>, later: Duration) {
        let Some(now) = now else { return };
        self.was_aborted = false;
        if now.sighting.count == self.sighting.count {
            self.sighting.unchanged = later;
            self.diagnosis = self.sighting.diagnosis();
        }
    }
}

impl<E> Shutdown<E> {
    /// Returns the first failure of the group. Being cut short is none.
    ///
    /// Look at the [`stragglers`](Shutdown::stragglers) first.
    ///
    /// # Errors
    ///
    /// The error of the first task that failed.
    ///
    /// # Panics
    ///
    /// If a task panicked: resumes the first panic, with its original payload.
    pub fn result(self) -> Result<(), E>
    where
        E: GroupError,
    {
        self.outcome.into_result()
    }

    /// Returns the first failure with the task's name and place, without resuming a panic.
    pub fn failure(&self) -> Option<&Failure<E>> {
        self.outcome.failure()
    }

    /// Returns all there is to know of the group: the failures, and how many tasks ended in which way.
    pub fn outcome(&self) -> &Outcome<E> {
        &self.outcome
    }

    /// Returns the [outcome](Shutdown::outcome) to be kept.
    pub fn into_outcome(self) -> Outcome<E> {
        self.outcome
    }
}

// What runs in it owns the group, which is.
impl<E> UnwindSafe for Stop<E> {}
impl<E> RefUnwindSafe for Stop<E> {}

impl<E> fmt::Debug for Stop<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Stop");
        if let State::New { group, grace, .. } = &self.0 {
            debug.field("group", group).field("grace", grace);
        }
        debug.finish_non_exhaustive()
    }
}

impl<E: fmt::Debug> fmt::Debug for Shutdown<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown")
            .field("stragglers", &self.stragglers)
            .field("outcome", &self.outcome)
            .finish()
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
