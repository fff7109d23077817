//! `SupervisorError`: why a supervisor has failed. `CommandError`: why it did not carry out a command.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

use super::entry::Spec;
use crate::error::{BoxError, ContextError};
use crate::group::{Name, Straggler};

/// Explains why a [`Supervisor`](crate::Supervisor) has failed: which child, how often, and of what.
///
/// One pointer; an error type of one's own may have it in a variant, although it holds that type:
///
/// ```
/// #[derive(Debug, thiserror::Error)]
/// enum MyError {
///     #[error(transparent)]
///     Context(#[from] errgroup::ContextError),
///     #[error(transparent)]
///     Supervisor(#[from] errgroup::SupervisorError<MyError>),
/// }
/// ```
///
/// `Display` is one line:
///
/// ```text
/// supervisor "api" gave up: child "db" ended, restart 6 within 60s where 5 are allowed: connection refused (src/main.rs:12:8)
/// ```
pub struct SupervisorError<E = BoxError>(Box<Inner<E>>);

struct Inner<E> {
    supervisor: Option<Name>,
    child: Name,
    location: &'static Location<'static>,
    kind: SupervisorErrorKind,
    /// What the child returned last, if it did.
    error: Option<E>,
    /// What it failed of: the text of its error, a panic, what it did not do.
    text: Option<String>,
    stragglers: Vec<Straggler>,
}

/// Names the kind of a [`SupervisorError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SupervisorErrorKind {
    /// There were more restarts within the period than [`intensity`](crate::SupervisorBuilder::intensity) allows.
    #[non_exhaustive]
    IntensityExceeded {
        /// How many restarts there would have been within the period, of all children.
        restarts: usize,
        /// How many are allowed.
        limit: usize,
        /// The period.
        period: Duration,
    },
    /// The child's [`backoff`](crate::Child::backoff) has no further delay.
    BackoffExhausted,
    /// The child failed before it was ready, when the supervisor started.
    StartFailed,
    /// A [significant](crate::Child::significant) child failed, and is not restarted.
    SignificantFailed,
    /// Two children have this name. None was started.
    DuplicateName,
    /// A [significant](crate::Child::significant) child is [`Permanent`](crate::Restart::Permanent). None was started.
    SignificantPermanent,
}

impl<E> SupervisorError<E> {
    pub(super) fn new(
        supervisor: Option<Name>,
        child: &Spec,
        kind: SupervisorErrorKind,
        error: Option<E>,
        text: Option<String>,
    ) -> Self {
        Self(Box::new(Inner {
            supervisor,
            child: child.name.clone(),
            location: child.location,
            kind,
            error,
            text,
            stragglers: Vec::new(),
        }))
    }

    pub(super) fn with_stragglers(mut self, stragglers: Vec<Straggler>) -> Self {
        self.0.stragglers = stragglers;
        self
    }

    /// Returns the name of the child that it failed for.
    pub fn child(&self) -> &str {
        self.0.child.as_ref().as_ref()
    }

    /// Returns the name of the supervisor, if it has one.
    pub fn supervisor(&self) -> Option<&str> {
        self.0
            .supervisor
            .as_ref()
            .map(|name| name.as_ref().as_ref())
    }

    /// Returns what kind of failure it is.
    pub fn kind(&self) -> SupervisorErrorKind {
        self.0.kind
    }

    /// Returns where the child was made.
    pub fn location(&self) -> &'static Location<'static> {
        self.0.location
    }

    /// Returns the error that the child returned last; `None` if it panicked, or did not fail.
    pub fn error(&self) -> Option<&E> {
        self.0.error.as_ref()
    }

    /// Returns the error that the child returned last, for keeps.
    pub fn into_error(self) -> Option<E> {
        self.0.error
    }

    /// Returns the children that did not stop within their grace when the supervisor gave up.
    pub fn stragglers(&self) -> &[Straggler] {
        &self.0.stragglers
    }
}

impl<E: fmt::Display> fmt::Display for SupervisorError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let child = self.child();
        f.write_str("supervisor ")?;
        if let Some(name) = self.supervisor() {
            write!(f, "{name:?} ")?;
        }
        let what = match self.0.kind {
            SupervisorErrorKind::IntensityExceeded {
                restarts,
                limit,
                period,
            } => format!(
                "gave up: child {child:?} ended, restart {restarts} within {period:?} where {limit} are allowed"
            ),
            SupervisorErrorKind::BackoffExhausted => {
                format!("gave up: child {child:?} ended, and its backoff has no further delay")
            }
            SupervisorErrorKind::StartFailed => {
                format!("did not start: child {child:?} failed before it was ready")
            }
            SupervisorErrorKind::SignificantFailed => {
                format!("stopped: child {child:?}, which is significant, failed")
            }
            SupervisorErrorKind::DuplicateName => {
                format!("did not start: two children have the name {child:?}")
            }
            SupervisorErrorKind::SignificantPermanent => format!(
                "did not start: child {child:?} is significant and permanent, but a permanent child never ends by itself"
            ),
        };
        f.write_str(&what)?;
        if let Some(text) = &self.0.text {
            write!(f, ": {text}")?;
        }
        write!(f, " ({})", self.0.location)
    }
}

impl<E: fmt::Debug> fmt::Debug for SupervisorError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorError")
            .field("child", &self.child())
            .field("kind", &self.0.kind)
            .field("error", &self.0.error)
            .field("text", &self.0.text)
            .finish_non_exhaustive()
    }
}

impl<E: fmt::Debug + fmt::Display + 'static> Error for SupervisorError<E> {
    /// The child's error, where it can be told by its type that it is one: if `E` is [`BoxError`], [`ContextError`] or
    /// [`std::io::Error`]. For any other type it is `None`: [`error`](SupervisorError::error) has the child's error.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let error: &dyn Any = self.error()?;
        if let Some(error) = error.downcast_ref::<BoxError>() {
            return Some(&**error);
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return Some(error);
        }
        error.downcast_ref::<ContextError>().map(|error| error as _)
    }
}

/// Says why a supervisor did not carry out a command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommandError {
    /// It has no child of this name.
    UnknownChild(String),
    /// It has a child of this name already.
    DuplicateName(String),
    /// The child to be added is significant and permanent.
    SignificantPermanent(String),
    /// The child failed before it was ready.
    #[non_exhaustive]
    StartFailed {
        /// Its name.
        child: String,
        /// What it failed of.
        text: String,
    },
    /// The child was stopped, or removed, before it was up.
    Stopped(String),
    /// The supervisor is stopping, has ended, or was dropped.
    SupervisorStopping,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::UnknownChild(name) => write!(f, "the supervisor has no child {name:?}"),
            CommandError::DuplicateName(name) => {
                write!(f, "the supervisor has a child {name:?} already")
            }
            CommandError::SignificantPermanent(name) => write!(
                f,
                "child {name:?} is significant and permanent, but a permanent child never ends by itself"
            ),
            CommandError::StartFailed { child, text } => {
                write!(f, "child {child:?} failed before it was ready: {text}")
            }
            CommandError::Stopped(name) => {
                write!(f, "child {name:?} was stopped before it was up")
            }
            CommandError::SupervisorStopping => {
                f.write_str("the supervisor is stopping, or has ended")
            }
        }
    }
}

impl Error for CommandError {}
