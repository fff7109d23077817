//! `State`: whether a node is live, and why it is not.

use crate::sync::{AtomicU32, Ordering};

/// Whether a node is live, and why it is not, in one word with the count of its handles: there is no room for a word more.
///
/// Which flags there are together, and what that means:
///
/// | `ENDED` | `OVERDUE` | `By` | `GUARDED` | |
/// |:-:|:-:|:-:|:-:|:--|
/// | | | `Error` | | live, and nobody has listened |
/// | | | `Error` | x | live |
/// | | x | `Error` | x | over for whoever asks, not for whoever waits: the deadline was seen passed by who may not tell |
/// | x | x | `Error` | x | ended, after it was overdue |
/// | x | | `Error` | x | ended, with an error of its own |
/// | x | | another | | ended; nobody had listened |
/// | x | | another | x | ended |
///
/// No flag is ever taken back. `By` is set in the same step as `ENDED`, and so is the error before `OVERDUE`, or before
/// `ENDED` by `Error`.
pub(super) struct State(AtomicU32);

/// The node has ended.
const ENDED: u32 = 1;

/// The end is decided: the deadline has passed, and the error says so.
const OVERDUE: u32 = 1 << 1;

/// The flags change only within the gate. Set there by the first to listen or to end with an error that has to be written
/// down, and from the beginning where an end has more to do: with a timer or two parents.
const GUARDED: u32 = 1 << 2;

/// Where `By` lies.
const BY: u32 = 0b11 << 3;

/// One handle. Those that have not been dropped are counted above the flags.
const HANDLE: u32 = 1 << 5;

/// More handles than anybody has; the count holds more, so that threads which pass the bound at once do no harm.
const MAX_HANDLES: u32 = 1 << 23;

/// What ended a node: who can say why.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// Its error says it.
    Error = 0,
    /// The end of its only parent, whose error it has.
    Parent = 1 << 3,
    /// The last handle was dropped.
    Handle = 2 << 3,
    /// The group that owns the node has finished.
    Finish = 3 << 3,
}

/// How far a node is, for whoever is within its gate.
pub(super) enum Phase {
    Live,
    Overdue,
    Ended,
}

/// Refuses whoever would listen to a node that has ended.
pub(super) struct HasEnded;

impl State {
    pub(super) fn live(handles: u32) -> Self {
        Self(AtomicU32::new(handles * HANDLE))
    }

    /// Of a node whose end has more to do than to say so.
    pub(super) fn guarded() -> Self {
        Self(AtomicU32::new(GUARDED))
    }

    /// Of a node that has an error before anybody sees it.
    pub(super) fn ended(handles: u32) -> Self {
        Self(AtomicU32::new(ENDED | GUARDED | (handles * HANDLE)))
    }

    /// With what came before the end, the error among it, or the parent's.
    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        // Acquire: pairs with the Release of `close_unguarded` and `close`. Otherwise the error might not be there
        // yet, the node's own or the parent's.
        self.0.load(Ordering::Acquire) & ENDED != 0
    }

    #[inline]
    pub(super) fn is_overdue(&self) -> bool {
        // Acquire: pairs with the Release of `set_overdue`, for the error.
        self.0.load(Ordering::Acquire) & OVERDUE != 0
    }

    /// What ended a node that has.
    pub(super) fn by(&self) -> By {
        // Relaxed: whoever asks has seen the end of this node or of one below, which came later.
        match self.0.load(Ordering::Relaxed) & BY {
            by if by == By::Parent as u32 => By::Parent,
            by if by == By::Handle as u32 => By::Handle,
            by if by == By::Finish as u32 => By::Finish,
            _ => By::Error,
        }
    }

    /// Whether somebody has listened, or an end has more to do.
    pub(super) fn is_guarded(&self) -> bool {
        // Relaxed: for who has the node alone.
        self.0.load(Ordering::Relaxed) & GUARDED != 0
    }

    /// Ends a node that nobody has listened to yet, if the reason need not be written down.
    #[inline]
    pub(super) fn close_unguarded(&self, by: By) -> bool {
        if by == By::Error {
            return false;
        }
        let state = self.0.load(Ordering::Relaxed);
        // Release: pairs with the Acquire of `has_ended` and `guard`; what comes before, the parent's end among it, is seen
        // by whoever sees this one.
        let ended = state | ENDED | by as u32;
        state & (ENDED | GUARDED) == 0
            && self
                .0
                .compare_exchange(state, ended, Ordering::Release, Ordering::Relaxed)
                .is_ok()
    }

    /// Makes sure, within the gate, that nobody ends the node without it.
    #[inline]
    pub(super) fn guard(&self) -> Phase {
        // Acquire: pairs with the Release of the end, as in `has_ended`. Once the flag is there this is no race: both hold
        // the lock.
        let mut state = self.0.load(Ordering::Acquire);
        if state & GUARDED == 0 {
            // Acquire: pairs with the Release of `close_unguarded`, which has come before, or fails from now on.
            state = self.0.fetch_or(GUARDED, Ordering::Acquire);
        }
        match state & (ENDED | OVERDUE) {
            0 => Phase::Live,
            OVERDUE => Phase::Overdue,
            _ => Phase::Ended,
        }
    }

    /// As `guard`, for who would listen.
    #[inline]
    pub(super) fn guard_live(&self) -> Result<(), HasEnded> {
        match self.guard() {
            Phase::Live | Phase::Overdue => Ok(()),
            Phase::Ended => Err(HasEnded),
        }
    }

    /// Within the gate, on a live node that is guarded, once the error is there.
    pub(super) fn set_overdue(&self) {
        // Release: pairs with the Acquire of `is_overdue`.
        self.0.fetch_or(OVERDUE, Ordering::Release);
    }

    /// Ends a guarded node, within the gate.
    pub(super) fn close(&self, by: By) {
        // Release: pairs with the Acquire of `has_ended`. With `GUARDED` nobody else sets flags outside of the gate; handles
        // come and go.
        self.0.fetch_or(ENDED | by as u32, Ordering::Release);
    }

    /// Counts one more handle.
    pub(super) fn add_handle(&self) {
        let before = self.0.fetch_add(HANDLE, Ordering::Relaxed);
        assert!(
            before / HANDLE < MAX_HANDLES,
            "errgroup: over eight million handles of one context"
        );
    }

    /// Gives up a handle; `true` if it was the last.
    #[inline]
    pub(super) fn remove_handle(&self) -> bool {
        // AcqRel, Acquire: what the owners of the other handles did happens before the end that this one causes. The
        // only handle cannot be cloned meanwhile, and one load is cheaper.
        self.0.load(Ordering::Acquire) / HANDLE == 1
            || self.0.fetch_sub(HANDLE, Ordering::AcqRel) / HANDLE == 1
    }
}
