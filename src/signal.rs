//! `Signals`, `Context::with_signals` and `Context::with_signal`: contexts that a signal of the system ends.
//!
//! Owned by whoever holds such a context. What the process does about signals is in `signal/unix.rs` and
//! `signal/windows.rs`; this is the public face.

#[cfg(unix)]
#[path = "signal/unix.rs"]
mod platform;
#[cfg(windows)]
#[path = "signal/windows.rs"]
mod platform;

use std::io;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

#[cfg(unix)]
use tokio::signal::unix::SignalKind;

use crate::context::{Context, Node, Stopper};
use crate::error::{ContextError, Reason};
#[cfg(doc)]
use crate::group::Group;

/// Sets up a context that a signal ends, as [`Context::with_signals`] does, with other signals or other manners.
///
/// Requires the feature `signal`.
///
/// # Which signal does what
///
/// A context takes one signal: the first that arrives while the context exists. It ends the context, or has it
/// [drain](Signals::drain), unless that has ended otherwise; then nothing comes of it, for the program is on its way already. Several contexts take one signal
/// together.
///
/// A signal that no context takes is none of ours. It does what it would have done without us:
///
/// - where its default action stood, it takes that, which for most is the death of the process: a second Ctrl-C gets rid
///   of a program that does not stop, even if all threads of its runtime are stuck. So does the first after the last
///   such context was dropped. A context exists as long as a clone of it, or anything that derives from it. The process
///   dies by the signal; where the system does not let it, or we have no means to, it exits with 128 plus the signal's
///   number, as a shell would report it. The former is process 1 of a container, for which the system takes no default
///   action, the latter realtime signals and on Linux SIGIO, SIGPWR and SIGSTKFLT.
/// - where the program had a handler before the first such context, or where the signal was ignored (`nohup`), nothing
///   is added to that. Linux alone can tell; elsewhere the default action is assumed.
///
/// Two signals of one kind that arrive before the first was looked at may count as one.
///
/// A handler that is installed later, by `tokio::signal` for example, is called for every signal; that it is there cannot
/// be seen, and the default action is still taken after it. To leave the signal to it for good, install it first, or keep
/// a context with [`second_kills(false)`](Signals::second_kills) as long as it is needed.
///
/// # A group below
///
/// For a [`Group`] whose context derives from this one, the signal is its parent's end, as any other: if it cuts a task
/// short, or keeps one from starting, [`wait`](Group::wait) returns the [`ContextError`], and a `main` that passes that
/// on exits with a failure although all it did was to stop when it was told to. A stop is a success
///
/// - by [`shutdown`](Group::shutdown), once the context has ended: being cut short is no error there;
/// - by a [drain](Signals::drain), if all is done before it is over: nothing is cut short then;
/// - if all tasks have started, and come to `Ok` by themselves: spawn with [`spawn_with`](Group::spawn_with), and return
///   when `ctx` ends;
/// - if the signal is not above the group but beside it: wait for this context's [`done`](Context::done) or for the
///   group, whichever is first, and [`cancel`](Group::cancel) the group, which is on purpose and therefore no error;
/// - if you say so: the error's [`reason`](ContextError::reason) is [`Reason::Signal`].
///
/// A task's own failure is an error in all of them.
///
/// # Comparison to `tokio::signal` and Go's `signal.NotifyContext`
///
/// tokio never gives a signal back: after the first `ctrl_c()` it has no default action for the rest of the process. Go
/// gives it back with `stop()`, which people forget, so that a second Ctrl-C is lost. On unix a thread of its own ends the
/// context, not a task, so that a loop which looks at its context but never yields sees the signal, too, on any runtime
/// or none.
///
/// # Examples
///
/// A service for which each SIGHUP means new settings:
///
/// ```no_run
/// # #[cfg(unix)] mod unix {
/// use errgroup::{BoxError, Context, Signals};
/// use tokio::signal::unix::SignalKind;
///
/// # struct Settings; fn read_settings() -> Result<Settings, BoxError> { Ok(Settings) }
/// # async fn serve(ctx: Context, settings: Settings) -> Result<(), BoxError> { Ok(()) }
/// # async fn run() -> Result<(), BoxError> {
/// let stop = Context::background().with_signals()?;
/// let hangup = Signals::of([SignalKind::hangup()]).second_kills(false);
/// let _keep = hangup.derive(&stop)?; // from here on no SIGHUP kills
/// while !stop.is_done() {
///     let ctx = hangup.derive(&stop)?; // first this, then the settings: no change of them is missed
///     serve(ctx, read_settings()?).await?; // until the next SIGHUP, or for good
/// }
/// # Ok(()) }
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "it catches no signal before `derive`"]
pub struct Signals {
    #[cfg(unix)]
    kinds: Vec<SignalKind>,
    second_kills: bool,
    drain: Option<Duration>,
}

impl Signals {
    /// Chooses SIGINT and SIGTERM, on Windows Ctrl-C.
    pub fn new() -> Self {
        Self {
            #[cfg(unix)]
            kinds: vec![SignalKind::interrupt(), SignalKind::terminate()],
            second_kills: true,
            drain: None,
        }
    }

    /// Chooses signals. Unix only.
    #[cfg(unix)]
    pub fn of(kinds: impl IntoIterator<Item = SignalKind>) -> Self {
        Self {
            kinds: kinds.into_iter().collect(),
            ..Self::new()
        }
    }

    /// Sets whether a signal after the one that the context has taken does what it would have done without us. The
    /// default is `true`.
    ///
    /// With `false` such signals come to nothing, for as long as the context exists.
    pub fn second_kills(mut self, yes: bool) -> Self {
        self.second_kills = yes;
        self
    }

    /// Has the first signal begin a [stop](crate::StopHandle::stop) instead of ending the context: from then on it is
    /// [`stopping`](Context::stopping), and it ends when `drain` is over, with [`Reason::Stopped`]. The
    /// [cause](Context::cause) of both is the [`ContextError`] of [`Reason::Signal`] that names the signal.
    ///
    /// The time counts from when the signal is looked at, by the system's clock, and needs no runtime. A second signal is
    /// as [`second_kills`](Signals::second_kills) says, during the drain as after it.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn accept() {}
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), errgroup::BoxError> {
    /// use std::time::Duration;
    ///
    /// use errgroup::{Context, Group, Signals};
    ///
    /// // Kubernetes kills thirty seconds after SIGTERM: 20 s to finish, 5 s to give up, 5 s to spare.
    /// let ctx = Signals::new().drain(Duration::from_secs(20)).derive(&Context::background())?;
    /// let group: Group = Group::with_context(&ctx);
    /// group.task("server").spawn_with(async |ctx| {
    ///     let stopping = ctx.stopping();
    ///     while stopping.run(accept()).await.is_ok() {}
    ///     Ok(()) // the requests have `ctx` to finish
    /// });
    /// # Ok(()) }
    /// ```
    pub fn drain(mut self, drain: Duration) -> Self {
        self.drain = Some(drain);
        self
    }

    /// Derives a context that the first of these signals ends, with [`Reason::Signal`] and the signal's name, or has it
    /// [drain](Signals::drain).
    ///
    /// The signals are caught from here on: none is lost between this call and the first time that somebody looks. A
    /// context derived from an ended one takes no signal.
    ///
    /// # Errors
    ///
    /// The system's, if a signal cannot be caught, such as SIGKILL, or if there is no thread to be had for it.
    ///
    /// # Panics
    ///
    /// On Windows, outside a tokio runtime. On unix it needs none.
    #[track_caller]
    pub fn derive(&self, parent: &Context) -> io::Result<Context> {
        platform::derive(self, parent, Location::caller())
    }
}

impl Default for Signals {
    fn default() -> Self {
        Self::new()
    }
}

impl Context {
    /// Derives a context that the first SIGINT or SIGTERM ends, on Windows Ctrl-C, with [`Reason::Signal`] and a text that
    /// names the signal.
    ///
    /// Requires the feature `signal`. A second signal does what it would have done without us: it kills the process. So
    /// does the first after the context was dropped with all that derives from it. [`Signals`] says who gets which signal,
    /// and has other manners to choose.
    ///
    /// A group below it that the signal cuts short has [`wait`](Group::wait) return an error, by which a clean stop looks
    /// like a failure. [`shutdown`](Group::shutdown), as in the example, does not; [`Signals`](Signals#a-group-below) has
    /// the other ways.
    ///
    /// # Errors
    ///
    /// The system's, if a signal cannot be caught.
    ///
    /// # Panics
    ///
    /// On Windows, outside a tokio runtime. On unix it needs none.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use errgroup::{BoxError, Context, Group};
    ///
    /// # async fn serve(ctx: Context) -> Result<(), BoxError> { Err("the port is in use".into()) }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let ctx = Context::background().with_signals()?;
    /// let group: Group = Group::with_context(&ctx);
    /// group.task("server").spawn_with(serve);
    ///
    /// println!("stopping: {}", group.context().done().await); // the signal, or a failure
    /// let shutdown = group.stop().grace(Duration::from_secs(5)).await;
    /// assert_eq!(shutdown.result().unwrap_err().to_string(), "the port is in use");
    /// # Ok(()) }
    /// ```
    #[track_caller]
    pub fn with_signals(&self) -> io::Result<Context> {
        Signals::new().derive(self)
    }

    /// Derives a context that the first signal of one kind ends. Unix only.
    ///
    /// Requires the feature `signal`. Otherwise as [`with_signals`](Context::with_signals).
    ///
    /// # Errors
    ///
    /// The system's, if the signal cannot be caught, such as SIGKILL.
    #[cfg(unix)]
    #[track_caller]
    pub fn with_signal(&self, kind: SignalKind) -> io::Result<Context> {
        Signals::of([kind]).derive(self)
    }
}

/// Derives the node of a context that signals end or stop.
fn derive_node(
    signals: &Signals,
    parent: &Context,
    location: &'static Location<'static>,
) -> Arc<Node> {
    match signals.drain {
        Some(_) => Node::derive_stop(parent.node(), 0, location),
        None => Node::derive(parent.node(), 0, location),
    }
}

/// Tells a context of the first signal, by its name.
fn end(node: &Arc<Node>, drain: Option<Duration>, name: &str) {
    let error = || ContextError::detailed(Reason::Signal, name.to_owned());
    match drain {
        Some(drain) => Stopper::Signal(error()).stop(node, drain),
        None => {
            node.end(error);
        }
    }
}
