//! `Supervisor`: keeps services running.
//!
//! The way of an event: a child's task ends, or says that it is ready, or a handle gives a command: a `Message` for the
//! `Driver` (`run`), which tells the `Machine` and carries out what it decides: starts, stops and aborts tasks of its group.
//!
//! Who knows whom: `machine` knows `entry`, `intensity` and the words of `event` and `handle`, plain data; `service` and `handle`
//! reach the machine through `shared`; `run` knows all; nobody outside knows any.

mod backoff;
mod child;
mod command;
mod decision;
mod ends;
mod entry;
mod error;
mod event;
mod handle;
mod id_map;
mod intensity;
mod machine;
#[cfg(all(test, not(errgroup_loom)))]
mod model;
mod names;
mod order;
mod ready;
mod run;
mod service;
mod shared;
mod status;
mod strategy;
mod waiter;
mod wake;
mod worker;

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::unbounded_channel;

pub use self::backoff::{Backoff, BackoffDelays};
pub use self::child::Child;
pub use self::error::{CommandError, SupervisorError, SupervisorErrorKind};
pub use self::event::{SupervisorEvent, SupervisorEventKind};
pub use self::handle::SupervisorHandle;
pub use self::ready::Ready;
pub use self::status::{ChildFailure, ChildFailureKind, ChildState, ChildStatus};
pub use self::strategy::{AutoShutdown, Restart, Strategy};

use self::intensity::Intensity;
use self::machine::Machine;
use self::run::Driver;
use self::shared::{Inbox, Shared};
use crate::context::Context;
use crate::error::{BoxError, GroupError};
use crate::group::{Group, Name, name};
use crate::panic::Contained;
use crate::sync::Mutex;

/// Keeps a few services running, and stops them in order.
///
/// It starts its [children](Child) in order, restarts those that end, each as its [`Restart`] says, alone or with its siblings as
/// the [`Strategy`] says, and fails itself if that happens too often. When its context begins to
/// [stop](Context::stopping), or ends, it stops them in the reverse order, one after the other: each is told to stop, has its
/// [drain](Child::drain), then the end of its context and its [grace](Child::grace), and is dropped at its await if it has not
/// returned by then.
///
/// These are the semantics of OTP's [`supervisor`] behaviour, whose [principles] are worth reading. What its users build by hand
/// is there, too: [backoff](Child::backoff), [readiness](Child::with_ready), the drain, and the last failures of each child.
///
/// `run` is one future, which owns its children. Dropping it aborts them; inside a task of a group, or of another supervisor,
/// that group waits for them to be gone.
///
/// [`supervisor`]: https://www.erlang.org/doc/apps/stdlib/supervisor.html
/// [principles]: https://www.erlang.org/doc/system/sup_princ.html
///
/// # Comparison to its peers
///
/// | | here | Elixir's [`Supervisor`] | [`tokio-graceful-shutdown`] | [`ractor`], with [`ractor-supervisor`] | systemd |
/// |---|---|---|---|---|---|
/// | restarts | permanent, transient, temporary | the same | by hand | by hand, in the supervisor's handler; the same | `Restart=` |
/// | with siblings | one, all, the rest | the same | | by hand; the same | `PartOf=`, `BindsTo=` |
/// | too often | a sliding period, then it fails | the same | | by hand; the same | `StartLimitBurst=`, `StartLimitIntervalSec=` |
/// | delay before a restart | any iterator of durations, jitter, reset | none | | by hand; a function, reset | `RestartSec=`, `RestartSteps=`, without jitter |
/// | readiness holds up the next | yes, with a time limit | yes, `init` has returned | none | yes, `pre_start` has returned | `Type=notify`, `TimeoutStartSec=` |
/// | stop | in reverse order; drain, end, grace, abort | in reverse order; `shutdown`, kill | all at once, or in order by hand; one timeout for all | children are killed when their supervisor ends; told, all at once, by hand | in reverse order of `After=`; `SIGTERM`, `SIGKILL` |
/// | who would not stop is named | yes | in the log | in the log | no | in the journal |
/// | the last failures of each child | kept | in the log | all, returned at the end | in the event; the number | in the journal |
/// | its failure has a type | `E`, with its source | any term | yes | a boxed error | an exit status |
///
/// In OTP and Elixir a supervisor is one process that does one thing after the other: while a child takes its time to start or to
/// stop, nobody else is restarted, and no command is answered. `ractor-supervisor` is one actor, and waits for `pre_start` in the
/// same way. Here only those wait whom the order concerns.
///
/// What none of them has, and the test that shows it:
///
/// | | in `tests/it` |
/// |---|---|
/// | a stop in three steps, each of which the child's context tells | `supervisor_stop::s5_stopped_in_reverse_order_one_after_the_other_with_drain_end_grace_and_abort` |
/// | a stop that is cut from above: drains end, graces hold | `supervisor_stop::s5_context_that_begins_to_stop_and_then_ends_cuts_the_drains` |
/// | who would not stop, as a value | `supervisor_stop::s5_child_that_ignores_its_stop_is_aborted_and_one_that_cannot_be_is_left_behind` |
/// | the last failures of each child, to be asked for at any time | `supervisor_restart::failures_are_kept_up_to_the_limit_the_latest_last` |
/// | a backoff for several: the others stop at once, and start with the one that failed | `supervisor_restart::s4_backoff_with_a_restart_of_all_then_others_stop_at_once_and_start_with_it` |
/// | a supervisor that is dropped leaves nobody behind | `supervisor_stop::s5_run_dropped_below_a_group_then_the_group_waits_for_the_children` |
/// | in one process, others are restarted while one takes its time to start or to stop | `supervisor_peers::one_takes_its_time_to_start_and_one_to_stop_then_others_are_restarted_and_commands_answered` |
///
/// [`Supervisor`]: https://hexdocs.pm/elixir/Supervisor.html
/// [`tokio-graceful-shutdown`]: https://docs.rs/tokio-graceful-shutdown
/// [`ractor`]: https://docs.rs/ractor
/// [`ractor-supervisor`]: https://docs.rs/ractor-supervisor
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), errgroup::BoxError> {
/// use std::time::Duration;
/// use errgroup::{Backoff, BoxError, Child, Context, Ready, Strategy, Supervisor};
///
/// async fn pool(ctx: Context, ready: Ready) -> Result<(), BoxError> {
///     // … connect
///     ready.notify();
///     Ok(drop(ctx.done().await))
/// }
/// async fn serve(ctx: Context) -> Result<(), BoxError> {
///     let stopping = ctx.stopping();
///     while stopping.sleep(Duration::from_secs(1)).await.is_ok() {
///         // … serve a request
///     }
///     Ok(())
/// }
///
/// let ctx = Context::background().with_timeout(Duration::from_secs(3600)); // such as `with_signals()?`
/// Supervisor::builder()
///     .context(&ctx)
///     .name("api")
///     .strategy(Strategy::RestForOne)
///     .intensity(5, Duration::from_secs(60))
///     .build()
///     .child(
///         Child::with_ready("db", pool)
///             .backoff(Backoff::exponential(Duration::from_millis(100), Duration::from_secs(30))),
///     )
///     .child(Child::new("http", serve).drain(Duration::from_secs(10)))
///     .run()
///     .await?; // it has stopped "http", then "db"
/// # Ok(()) }
/// ```
#[must_use = "a supervisor does nothing until it is `run()`"]
pub struct Supervisor<E = BoxError> {
    config: Config,
    location: &'static Location<'static>,
    children: Vec<Child<E>>,
    shared: Arc<Shared<E>>,
    inbox: Inbox<E>,
}

/// Sets up a [`Supervisor`]: the value of [`Supervisor::builder`].
#[must_use = "a builder does nothing until `build()`"]
pub struct SupervisorBuilder<E = BoxError> {
    config: Config,
    name: Option<Name>,
    strategy: Strategy,
    auto_shutdown: AutoShutdown,
    limit: usize,
    period: Duration,
    error: std::marker::PhantomData<fn() -> E>,
}

struct Config {
    /// `None` for the background, or the context of the child that it is.
    parent: Option<Context>,
    on_event: Option<OnEvent>,
}

type OnEvent = Contained<Box<dyn Fn(&SupervisorEvent) + Send + Sync>>;

impl<E: GroupError> Supervisor<E> {
    /// Sets up a supervisor.
    pub fn builder() -> SupervisorBuilder<E> {
        SupervisorBuilder {
            config: Config {
                parent: None,
                on_event: None,
            },
            name: None,
            strategy: Strategy::default(),
            auto_shutdown: AutoShutdown::default(),
            limit: 3,
            period: Duration::from_secs(5),
            error: std::marker::PhantomData,
        }
    }

    /// Adds a child, the last in the order of start.
    pub fn child(mut self, child: Child<E>) -> Self {
        self.children.push(child);
        self
    }

    /// Returns a handle to command and to ask it with, while it runs.
    pub fn handle(&self) -> SupervisorHandle<E> {
        SupervisorHandle {
            shared: self.shared.clone(),
        }
    }

    /// Runs the children until the supervisor's context begins to stop, or ends, or until a
    /// [significant](Child::significant) one has ended; then it stops them in the reverse order and returns when all have ended.
    ///
    /// Without children, or when all have ended, it goes on, as in OTP: others may be [added](SupervisorHandle::add).
    ///
    /// A context that ends because its drain is over ([`Reason::Stopped`](crate::Reason::Stopped)), or while the supervisor is
    /// stopping already, cuts the drains of the children that have not ended, also of those that are told only then; each still
    /// has its grace. The stop itself has no limit but the sum of theirs.
    ///
    /// # Errors
    ///
    /// It gave up, for a child that it names: more restarts than the [intensity](SupervisorBuilder::intensity), a backoff without a
    /// further delay, a failure before readiness when the supervisor started, a significant child that failed; by then all have
    /// been stopped in order. Or it did not start: two children of one name, a significant one that is permanent.
    ///
    /// Being stopped is none, nor are children that did not stop in time:
    /// [`stragglers`](SupervisorHandle::stragglers) lists them.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with a timer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts the children without waiting for them. If the supervisor's context derives from a group's,
    /// that group waits for them.
    pub fn run(self) -> impl Future<Output = Result<(), SupervisorError<E>>> + Send + use<E> {
        self.run_below(&Context::background())
    }

    /// Runs below `parent`, unless it was given another context.
    fn run_below(
        self,
        parent: &Context,
    ) -> impl Future<Output = Result<(), SupervisorError<E>>> + Send + use<E> {
        let parent = self.config.parent.unwrap_or_else(|| parent.clone());
        let group = Group::hosted(&parent, self.shared.name.clone(), self.location);
        let driver = Driver::new(self.shared, self.inbox, group, self.config.on_event);
        driver.run(parent, self.children)
    }
}

impl<E> SupervisorBuilder<E> {
    /// Stops the supervisor when `ctx` begins to [stop](Context::stopping), or ends. Without it nothing does. The children
    /// find its values in their contexts, but not its end: they are stopped in order.
    pub fn context(mut self, ctx: &Context) -> Self {
        self.config.parent = Some(ctx.clone());
        self
    }

    /// Names the supervisor, for its errors and events.
    pub fn name(mut self, supervisor: impl Into<Cow<'static, str>>) -> Self {
        self.name = name(supervisor);
        self
    }

    /// Sets who is restarted with a child. The default is [`Strategy::OneForOne`].
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Lets the supervisor fail at more than `restarts` restarts within the `period`, which slides: exactly one period ago still
    /// counts. A restart of several children is one. The default is Elixir's, three restarts in five seconds;
    /// [`usize::MAX`] is without limit.
    pub fn intensity(mut self, restarts: usize, period: Duration) -> Self {
        (self.limit, self.period) = (restarts, period);
        self
    }

    /// Sets when the end of [significant](Child::significant) children stops the supervisor.
    pub fn auto_shutdown(mut self, auto_shutdown: AutoShutdown) -> Self {
        self.auto_shutdown = auto_shutdown;
        self
    }

    /// Calls `f` for every decision, in the supervisor's task. A panic in it is contained.
    pub fn on_event(mut self, f: impl Fn(&SupervisorEvent) + Send + Sync + 'static) -> Self {
        self.config.on_event = Some(Contained::new(Box::new(f)));
        self
    }

    /// Builds the supervisor. Its children are added to it then.
    #[track_caller]
    pub fn build(self) -> Supervisor<E> {
        let (outbox, inbox) = unbounded_channel();
        let intensity = Intensity::new(self.limit, self.period);
        let machine = Machine::new(self.strategy, self.auto_shutdown, intensity);
        Supervisor {
            config: self.config,
            location: Location::caller(),
            children: Vec::new(),
            shared: Arc::new(Shared {
                name: self.name,
                machine: Mutex::new(machine),
                stragglers: Mutex::new(Vec::new()),
                outbox,
            }),
            inbox: Inbox(inbox),
        }
    }
}

impl<E> fmt::Debug for Supervisor<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("name", &self.shared.name)
            .field("children", &self.children)
            .finish_non_exhaustive()
    }
}

impl<E> fmt::Debug for SupervisorBuilder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorBuilder")
            .field("name", &self.name)
            .field("strategy", &self.strategy)
            .field("auto_shutdown", &self.auto_shutdown)
            .field("intensity", &(self.limit, self.period))
            .finish_non_exhaustive()
    }
}
