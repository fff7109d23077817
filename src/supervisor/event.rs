//! `SupervisorEvent`: a decision, as it is told.

use std::fmt;
use std::time::Duration;

use crate::group::Name;

/// What a supervisor decided, or was told: see [`SupervisorBuilder::on_event`](crate::SupervisorBuilder::on_event).
///
/// `Display` is one line, such as `supervisor "api": child "db" failed: connection refused`.
#[derive(Clone, Debug)]
pub struct SupervisorEvent {
    pub(super) supervisor: Option<Name>,
    pub(super) child: Option<Name>,
    pub(super) kind: SupervisorEventKind,
}

/// Names the kind of a [`SupervisorEvent`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SupervisorEventKind {
    /// The child is started.
    Starting,
    /// It has said that it is ready.
    Ready,
    /// It has ended by itself, without a failure.
    Finished,
    /// It has failed; of what.
    Failed(String),
    /// It is restarted after so long.
    BackingOff(Duration),
    /// It is told to stop. Its context ends after so long.
    Stopping(Duration),
    /// Its grace is over, and it is dropped at its await.
    Aborting,
    /// It does not come to an await, and nobody waits for it any longer.
    Abandoned,
    /// It was told to stop, and has.
    Stopped,
    /// It was removed.
    Removed,
    /// The supervisor fails for it.
    GaveUp,
    /// The supervisor stops all its children. No child is named.
    ShuttingDown,
}

impl SupervisorEvent {
    /// Returns the name of the supervisor, if it has one.
    pub fn supervisor(&self) -> Option<&str> {
        self.supervisor.as_ref().map(|name| name.as_ref().as_ref())
    }

    /// Returns the name of the child that it is about; `None` if it is about all.
    pub fn child(&self) -> Option<&str> {
        self.child.as_ref().map(|name| name.as_ref().as_ref())
    }

    /// Returns what happened.
    pub fn kind(&self) -> &SupervisorEventKind {
        &self.kind
    }
}

#[cfg(feature = "tracing")]
impl SupervisorEvent {
    /// As `trace.rs` does: in the span of the children's group, and a subscriber's panic is contained.
    pub(super) fn trace(&self, group: &tracing::Span) {
        use tracing::{Level, event};
        let (supervisor, child) = (self.supervisor(), self.child());
        crate::panic::contain(|| match self.kind {
            SupervisorEventKind::Failed(_)
            | SupervisorEventKind::Aborting
            | SupervisorEventKind::Abandoned
            | SupervisorEventKind::GaveUp => {
                event!(target: "errgroup", parent: group, Level::WARN, supervisor, child, "{self}");
            }
            _ => {
                event!(target: "errgroup", parent: group, Level::INFO, supervisor, child, "{self}")
            }
        });
    }
}

impl fmt::Display for SupervisorEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("supervisor")?;
        if let Some(name) = self.supervisor() {
            write!(f, " {name:?}")?;
        }
        f.write_str(": ")?;
        if let Some(name) = self.child() {
            write!(f, "child {name:?} ")?;
        }
        match &self.kind {
            SupervisorEventKind::Starting => f.write_str("starts"),
            SupervisorEventKind::Ready => f.write_str("is ready"),
            SupervisorEventKind::Finished => f.write_str("has ended"),
            SupervisorEventKind::Failed(text) => write!(f, "failed: {text}"),
            SupervisorEventKind::BackingOff(delay) => write!(f, "is restarted in {delay:?}"),
            SupervisorEventKind::Stopping(drain) if drain.is_zero() => f.write_str("is to stop"),
            SupervisorEventKind::Stopping(drain) => write!(f, "is to stop within {drain:?}"),
            SupervisorEventKind::Aborting => {
                f.write_str("did not stop within its grace, and is aborted")
            }
            SupervisorEventKind::Abandoned => f.write_str("cannot be aborted, and is left behind"),
            SupervisorEventKind::Stopped => f.write_str("has stopped"),
            SupervisorEventKind::Removed => f.write_str("was removed"),
            SupervisorEventKind::GaveUp => f.write_str("makes the supervisor give up"),
            SupervisorEventKind::ShuttingDown => f.write_str("stopping"),
        }
    }
}
