//! What the machine decides, for the driver to carry out.

use std::time::Duration;

use super::entry::ChildId;
use super::event::SupervisorEventKind;

/// What the driver has to do, or to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Start {
        id: ChildId,
        generation: u64,
    },
    /// Begin to stop the child; its context ends when the drain is over.
    Stop {
        id: ChildId,
        drain: Duration,
    },
    /// The grace is over.
    Abort(ChildId),
    /// It has been aborted, and does not come to an await. Nobody waits for it any longer.
    Abandon(ChildId),
    /// Say how long to wait before the restart: `delay` is to be called.
    Delay {
        id: ChildId,
        is_reset: bool,
    },
    /// The supervisor fails.
    GiveUp(ChildId, GiveUp),
    /// A child was removed.
    Remove(ChildId),
    /// All children are being stopped.
    ShutDown,
    /// A change that is only told.
    Tell(ChildId, SupervisorEventKind),
}

/// Why a supervisor fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GiveUp {
    /// So many restarts within the period.
    Intensity(usize),
    /// There is no further delay.
    Backoff,
    /// A child failed before it was ready when the supervisor started.
    Start,
    /// A significant child failed.
    Significant,
}
