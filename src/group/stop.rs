//! `Stop`: stopping a group within a grace period, and naming who would not stop. `Shutdown`: what it came to.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures::FutureExt;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};

use super::Group;
use super::core::Core;
use super::failure::{EndedBy, Failure};
use super::outcome::Outcome;
use super::registry::Registry;
use super::straggler::{Straggler, still_there, survey};
use super::watch::Listed;
use crate::context::Stopper;
use crate::context::later;
use crate::error::{ContextError, GroupError, Reason};
use crate::panic::contain;
use crate::task::TaskId;

/// Stops a group that it owns, in up to three steps: the future of [`Group::stop`] and [`Group::shutdown`].
///
/// It begins at its first poll.
///
/// 1. With a [drain](Stop::drain), the context is [`stopping`](crate::Context::stopping): the tasks take on nothing new, and
///    finish what they have. This is over with the drain, when the last task is, or when the context ends for another reason.
/// 2. The context ends: with [`Reason::Stopped`] if the drain was over, else with [`Reason::Shutdown`]. The tasks have the
///    [grace](Stop::grace) to stop.
/// 3. What is left is aborted, and named.
///
/// It is ready as soon as every task has ended, except for those that cannot be aborted: blocking ones, and any that does not
/// come to an await within another grace, or a second if that is longer.
///
/// # Panics
///
/// Outside a runtime with a timer, if there is a task to wait for.
///
/// # Cancel safety
///
/// Dropping it drops the group, which aborts the tasks without waiting for them.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), errgroup::BoxError> {
/// use std::time::Duration;
///
/// use errgroup::Group;
///
/// let group: Group = Group::new();
/// group.task("worker").spawn_with(async |ctx| {
///     let stopping = ctx.stopping();
///     while stopping.sleep(Duration::from_secs(1)).await.is_ok() {
///         // one job after the other
///     }
///     Ok(())
/// });
/// let stop = group
///     .stop()
///     .drain(Duration::from_secs(20))
///     .grace(Duration::from_secs(5))
///     .report_every(Duration::from_secs(1), |tasks| eprintln!("waiting for {} tasks", tasks.len()));
/// let shutdown = stop.await;
/// assert!(shutdown.stragglers.is_empty());
/// shutdown.result()
/// # }
/// ```
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Stop<E>(State<E>);

enum State<E> {
    New(Group<E>, Options),
    Running(Pin<Box<dyn Future<Output = Shutdown<E>> + Send>>),
    Over,
}

/// How to stop.
struct Options {
    /// `None`: without one.
    drain: Option<Duration>,
    grace: Duration,
    report: Option<(Duration, Box<Report>)>,
    location: &'static Location<'static>,
}

type Report = dyn FnMut(&[Straggler]) + Send;

/// What [`Group::stop`] and [`Group::shutdown`] came to.
#[non_exhaustive]
#[must_use = "it carries the group's failure and names the tasks that would not stop: ask for its `result()`"]
pub struct Shutdown<E> {
    /// The tasks that were still there when the grace was over, longest running first.
    pub stragglers: Vec<Straggler>,
    outcome: Outcome<E>,
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
        let options = Options {
            drain: None,
            grace,
            report: None,
            location,
        };
        Self(State::New(group, options))
    }

    /// Sets how long the tasks have from the beginning of the stop until the context ends. Without it that is at once.
    ///
    /// Meanwhile the group is open: tasks can be spawned, and are waited for. Who takes on work asks
    /// [`ctx.stopping()`](crate::Context::stopping). A failure ends the context as ever.
    ///
    /// # Panics
    ///
    /// After the first poll: it has begun.
    #[track_caller]
    pub fn drain(mut self, time: Duration) -> Self {
        self.options("drain").drain = Some(time);
        self
    }

    /// Sets how long the tasks have from the end of the context until they are aborted. The default is five seconds.
    ///
    /// # Panics
    ///
    /// After the first poll: it has begun.
    #[track_caller]
    pub fn grace(mut self, time: Duration) -> Self {
        self.options("grace").grace = time;
        self
    }

    /// Calls `f` with the tasks that are still there, longest running first, once in every `period` from the beginning of
    /// the stop until it is ready.
    ///
    /// It runs where the stop is polled. A panic in it is contained: the panic hook has reported it.
    ///
    /// # Panics
    ///
    /// If the period is zero. After the first poll: it has begun.
    #[track_caller]
    pub fn report_every(
        mut self,
        period: Duration,
        f: impl FnMut(&[Straggler]) + Send + 'static,
    ) -> Self {
        assert!(
            !period.is_zero(),
            "errgroup: a report every zero seconds is no end of them: the period has to be longer"
        );
        self.options("report").report = Some((period, Box::new(f)));
        self
    }

    #[track_caller]
    fn options(&mut self, what: &str) -> &mut Options {
        match &mut self.0 {
            State::New(_, options) => options,
            State::Running(_) | State::Over => {
                panic!("errgroup: the stop has begun: set its {what} before it is polled")
            }
        }
    }
}

impl<E: GroupError> Future for Stop<E> {
    type Output = Shutdown<E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        if let State::New(..) = self.0 {
            if let State::New(group, options) = std::mem::replace(&mut self.0, State::Over) {
                self.0 = State::Running(Box::pin(stop(group, options)));
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

async fn stop<E: GroupError>(group: Group<E>, options: Options) -> Shutdown<E> {
    let core = &group.core;
    let registry = &core.registry;
    let stopper = Stopper::Call(options.location);
    let mut waiting = Waiting::new(registry, options.report);
    // Tasks that have never waited are as old as this at least.
    drop(registry.list());
    let drained = drain(core, options.drain, &stopper, &mut waiting).await;
    // First: whoever cleans up may ask for it while he is told of the end.
    core.begin_grace();
    core.end(EndedBy::Owner, || match drained {
        Ok(()) => ContextError::at(Reason::Shutdown, options.location, None),
        Err(drain) => stopper.stopped(drain),
    });
    let mut stragglers = Vec::new();
    let is_over = waiting.at_most(options.grace, |cx| registry.poll_empty(cx));
    if !is_over.await {
        stragglers = survey(registry);
        let surveyed = Instant::now();
        core.abort(|| ContextError::deadline(Some(options.grace), options.location, None));
        let time = options.grace.max(YIELD);
        waiting.at_most(time, |cx| registry.poll_aborted(cx)).await;
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
    core.end_grace(|| ContextError::at(Reason::Shutdown, options.location, None));
    Shutdown {
        stragglers,
        outcome: core.settle_stopped(),
    }
}

/// Has the tasks finish what they have. An error if the drain is over before.
async fn drain<E>(
    core: &Core<E>,
    time: Option<Duration>,
    stopper: &Stopper,
    waiting: &mut Waiting<'_>,
) -> Result<(), Duration> {
    let Some(time) = time else {
        return Ok(());
    };
    stopper.begin(core.node());
    let mut done = core.context.done();
    let is_over = waiting.at_most(time, |cx| {
        match core.registry.poll_empty(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            // A failure, or the parent's end.
            Poll::Pending => done.poll_unpin(cx).map(drop),
        }
    });
    is_over.await.then_some(()).ok_or(time)
}

/// Waits for the tasks, and reports meanwhile.
struct Waiting<'a> {
    registry: &'a Registry,
    reports: Option<Reports>,
}

struct Reports {
    period: Duration,
    f: Box<Report>,
    begun: Instant,
    /// When the next is due. Set at the first wait.
    ticks: Option<Interval>,
}

impl<'a> Waiting<'a> {
    fn new(registry: &'a Registry, report: Option<(Duration, Box<Report>)>) -> Self {
        let reports = report.map(|(period, f)| Reports {
            period,
            f,
            begun: Instant::now(),
            ticks: None,
        });
        Self { registry, reports }
    }

    /// Waits until something is over, or for so long: `false`. Needs no timer if it is over already.
    async fn at_most(
        &mut self,
        limit: Duration,
        mut poll: impl FnMut(&mut TaskContext<'_>) -> Poll<()>,
    ) -> bool {
        let is_over = poll_fn(|cx| Poll::Ready(poll(cx).is_ready())).await;
        if is_over {
            return true;
        }
        let waiting = poll_fn(|cx| {
            let polled = poll(cx);
            if let (Poll::Pending, Some(reports)) = (polled, &mut self.reports) {
                reports.poll(self.registry, cx);
            }
            polled
        });
        timeout(limit, waiting).await.is_ok()
    }
}

impl Reports {
    fn poll(&mut self, registry: &Registry, cx: &mut TaskContext<'_>) {
        let Self { period, begun, .. } = *self;
        let ticks = self.ticks.get_or_insert_with(|| {
            let mut ticks = interval_at(later(begun, period), period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            ticks
        });
        while ticks.poll_tick(cx).is_ready() {
            contain(|| (self.f)(&still_there(registry)));
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

    /// Returns the failure that [`result`](Shutdown::result) tells of, with the task's name and place, without resuming a panic.
    pub fn failure(&self) -> Option<&Failure<E>> {
        self.outcome.group_failure()
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
        if let State::New(group, options) = &self.0 {
            debug
                .field("group", group)
                .field("drain", &options.drain)
                .field("grace", &options.grace);
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
