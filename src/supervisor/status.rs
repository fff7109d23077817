//! `ChildStatus`, `ChildState`, `ChildFailure`: what can be known of a child from outside.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use tokio::time::Instant;

use super::strategy::Restart;

/// What a child of a supervisor is doing, and what became of it before: see
/// [`SupervisorHandle::children`](crate::SupervisorHandle::children).
///
/// `Display` is a line for an operator.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChildStatus {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: ChildState,
    /// Since when it is in this state.
    pub since: Instant,
    /// How often the supervisor has restarted it, for its own end or for a sibling's. Commands are not counted.
    pub restarts: u64,
    /// Its last failures, the latest last; at most as many as [`Child::keep_failures`](crate::Child::keep_failures) says.
    pub failures: Vec<ChildFailure>,
    /// When it is restarted.
    pub restart: Restart,
    /// Where the [`Child`](crate::Child) was made.
    pub location: &'static Location<'static>,
}

/// The state of a child. It is in exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChildState {
    /// It is to start when its turn comes, or it has started and not said yet that it is ready.
    Starting,
    /// It has said that it is ready.
    Ready,
    /// It runs; it is of a kind that does not say when it is ready.
    Running,
    /// It has ended, and is restarted then.
    BackingOff {
        /// When.
        until: Instant,
    },
    /// It was told to stop, and has not ended yet.
    Stopping,
    /// It has not been started, has been stopped, or has ended by itself without a failure.
    Stopped,
    /// It has failed, and is not restarted.
    Failed,
}

/// How a child failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChildFailure {
    /// What it failed of.
    pub kind: ChildFailureKind,
    /// The text of its error, what the panic said, or what it did not do.
    pub text: String,
    /// When it ended.
    pub at: Instant,
    /// How long it had been running then.
    pub after: Duration,
}

/// What a child failed of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChildFailureKind {
    /// It returned an error.
    Error,
    /// It, or the function that makes it, panicked.
    Panic,
    /// It was dropped at an await: by [`SupervisorHandle::abort`](crate::SupervisorHandle::abort), or with its runtime.
    Aborted,
    /// It did not say in time that it was ready, or ended or dropped its [`Ready`](crate::Ready) without having said so.
    NotReady,
}

impl ChildState {
    /// Returns `true` if the child does its work: [`Ready`](ChildState::Ready) or [`Running`](ChildState::Running).
    pub fn is_up(&self) -> bool {
        matches!(self, ChildState::Ready | ChildState::Running)
    }
}

impl fmt::Display for ChildState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChildState::Starting => "starting",
            ChildState::Ready => "ready",
            ChildState::Running => "running",
            ChildState::BackingOff { .. } => "backing off",
            ChildState::Stopping => "stopping",
            ChildState::Stopped => "stopped",
            ChildState::Failed => "failed",
        })
    }
}

impl fmt::Display for ChildFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.text;
        match self.kind {
            ChildFailureKind::Error | ChildFailureKind::NotReady => f.write_str(text),
            ChildFailureKind::Panic => write!(f, "panicked: {text}"),
            ChildFailureKind::Aborted => f.write_str("aborted"),
        }
    }
}

impl fmt::Display for ChildStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = Instant::now();
        let ago = |at: Instant| Rounded(now.saturating_duration_since(at));
        write!(f, "{:?} {}", self.name, self.state)?;
        if let ChildState::BackingOff { until } = self.state {
            let left = until.saturating_duration_since(now);
            write!(f, " for {} more", Rounded(left))?;
        }
        write!(f, " since {}, {} restarts", ago(self.since), self.restarts)?;
        match self.failures.last() {
            Some(failure) => write!(f, ", {} ago: {failure}", ago(failure.at)),
            None => Ok(()),
        }
    }
}

/// A time for people: whole milliseconds below a second, else whole seconds.
struct Rounded(Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            0 => write!(f, "{}ms", self.0.as_millis()),
            seconds => write!(f, "{seconds}s"),
        }
    }
}
