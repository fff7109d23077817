//! `Entry`: what the machine knows of one child.

use std::collections::VecDeque;
use std::panic::Location;
use std::time::Duration;

use tokio::time::Instant;

use super::status::{ChildFailure, ChildFailureKind, ChildState, ChildStatus};
use super::strategy::Restart;
use crate::group::Name;

/// Tells the children of a supervisor apart, in the order in which they were added, which is that of start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ChildId(pub(super) u64);

/// What is said of a child before it starts, as far as the machine has to know it.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) name: Name,
    pub(super) location: &'static Location<'static>,
    pub(super) restart: Restart,
    pub(super) is_significant: bool,
    pub(super) drain: Duration,
    pub(super) grace: Duration,
    /// `None` for a child that does not say when it is ready.
    pub(super) ready_within: Option<Duration>,
    pub(super) has_backoff: bool,
    pub(super) reset_after: Duration,
    pub(super) keep_failures: usize,
}

/// One child. An incarnation is one run of its function; there is at most one that has not ended.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) spec: Spec,
    /// Added while the supervisor runs. A temporary one is removed when it has ended.
    pub(super) is_dynamic: bool,
    pub(super) state: State,
    /// When `state` was set.
    pub(super) since: Instant,
    /// When the machine has to look at it again. Mirrored in the machine's `timers`.
    pub(super) timer: Option<Instant>,
    /// The number of the latest incarnation; 0 before the first.
    pub(super) generation: u64,
    /// When that was started.
    pub(super) started_at: Instant,
    /// The latest incarnation that ended without having been ready.
    pub(super) failed_start: u64,
    pub(super) restarts: u64,
    pub(super) failures: VecDeque<ChildFailure>,
}

/// In which of its states a child is. `Starting`, `Up` and `Stopping` have an incarnation, the others have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Down(Down),
    /// It is to be restarted; the driver was asked for the delay, and answers before any other event.
    Deciding,
    BackingOff {
        until: Instant,
    },
    /// Started, and not ready.
    Starting(Cause),
    Up,
    /// Unwanted. Not told so before its turn in an ordered stop comes.
    Doomed(Then),
    /// Told to stop.
    Stopping {
        then: Then,
        is_aborted: bool,
    },
}

/// Why a child has no incarnation, and is not about to have one of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Down {
    /// Never started, or stopped.
    Stopped,
    /// Ended by itself, without a failure.
    Ended,
    Failed,
    /// In the machine's `starts`, for this.
    Waiting(Cause),
}

/// What a start is for, which decides what a failure before readiness means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The supervisor starts: it fails with the child.
    Initial,
    /// The child was added: it is removed again.
    Added,
    /// A command: the child stays down.
    Command,
    /// A restart by the supervisor: it counts as any other failure.
    Restart,
    /// A restart by a command: as that, but it is not counted as one.
    Reload,
}

/// What follows when a child has been stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Stay,
    Remove,
    Start(Cause),
    /// Wait for its turn in `starts`, for this.
    Wait(Cause),
    /// It was stopped for not being ready: that is a failure.
    Fail(Cause, NotReady),
}

/// Why a start has failed although no error says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotReady {
    TimedOut,
    Dropped,
}

/// How an incarnation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// It returned `Ok`, or passed on the end of its context.
    Finished,
    Error(String),
    Panic(String),
    Aborted,
}

impl Entry {
    pub(super) fn new(spec: Spec, is_dynamic: bool, now: Instant) -> Self {
        Self {
            spec,
            is_dynamic,
            state: State::Down(Down::Stopped),
            since: now,
            timer: None,
            generation: 0,
            started_at: now,
            failed_start: 0,
            restarts: 0,
            failures: VecDeque::new(),
        }
    }

    /// Whether there is an incarnation that has not ended.
    pub(super) fn is_live(&self) -> bool {
        match self.state {
            State::Down(_) | State::Deciding | State::BackingOff { .. } => false,
            State::Starting(_) | State::Up | State::Doomed(_) | State::Stopping { .. } => true,
        }
    }

    /// Whether its grace was over before it had stopped.
    pub(super) fn is_aborted(&self) -> bool {
        matches!(self.state, State::Stopping { is_aborted, .. } if is_aborted)
    }

    /// Whether it is none that could still end by itself (OTP's "active" child is one that could).
    pub(super) fn is_active(&self) -> bool {
        !matches!(
            self.state,
            State::Down(Down::Stopped | Down::Ended | Down::Failed)
        )
    }

    pub(super) fn is_forgotten_when_down(&self) -> bool {
        self.is_dynamic && self.spec.restart == Restart::Temporary
    }

    /// Changes what follows when it has been stopped; nothing for one that is not being stopped.
    pub(super) fn set_then(&mut self, next: Then) {
        if let State::Doomed(then) | State::Stopping { then, .. } = &mut self.state {
            *then = next;
        }
    }

    /// What follows when it has been stopped and nobody wants it back.
    pub(super) fn then_stay(&self) -> Then {
        match self.is_forgotten_when_down() {
            true => Then::Remove,
            false => Then::Stay,
        }
    }

    /// Remembers a failure, and returns its text; `None` if `exit` is none.
    pub(super) fn record(
        &mut self,
        exit: Exit,
        not_ready: Option<NotReady>,
        now: Instant,
    ) -> Option<String> {
        let (kind, text) = match (exit, not_ready) {
            (Exit::Error(text), _) => (ChildFailureKind::Error, text),
            (Exit::Panic(text), _) => (ChildFailureKind::Panic, text),
            (Exit::Aborted, None) => (ChildFailureKind::Aborted, String::new()),
            (Exit::Finished | Exit::Aborted, Some(why)) => {
                (ChildFailureKind::NotReady, self.not_ready_text(why))
            }
            (Exit::Finished, None) => return None,
        };
        let after = now.saturating_duration_since(self.started_at);
        let failure = ChildFailure {
            kind,
            text,
            at: now,
            after,
        };
        let text = failure.to_string();
        self.remember(failure);
        Some(text)
    }

    fn remember(&mut self, failure: ChildFailure) {
        let limit = self.spec.keep_failures;
        while self.failures.len() >= limit.max(1) {
            self.failures.pop_front();
        }
        if limit > 0 {
            self.failures.push_back(failure);
        }
    }

    fn not_ready_text(&self, why: NotReady) -> String {
        match (why, self.spec.ready_within) {
            (NotReady::TimedOut, Some(limit)) => format!("it was not ready within {limit:?}"),
            _ => "it dropped its `Ready`, or ended, without being ready".to_owned(),
        }
    }

    pub(super) fn public_state(&self) -> ChildState {
        match self.state {
            State::Down(Down::Stopped | Down::Ended) => ChildState::Stopped,
            State::Down(Down::Failed) => ChildState::Failed,
            State::Down(Down::Waiting(_)) | State::Starting(_) | State::Deciding => {
                ChildState::Starting
            }
            State::BackingOff { until } => ChildState::BackingOff { until },
            State::Up if self.spec.ready_within.is_some() => ChildState::Ready,
            State::Up => ChildState::Running,
            State::Doomed(_) | State::Stopping { .. } => ChildState::Stopping,
        }
    }

    pub(super) fn status(&self) -> ChildStatus {
        ChildStatus {
            name: self.spec.name.to_string(),
            state: self.public_state(),
            since: self.since,
            restarts: self.restarts,
            failures: self.failures.iter().cloned().collect(),
            restart: self.spec.restart,
            location: self.spec.location,
        }
    }
}
