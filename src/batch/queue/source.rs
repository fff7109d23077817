//! `Place`: where the source of a batch is. `Pull`: the source in the hand of the worker that polls it.
//!
//! Invariants:
//!
//! 1. One worker at most has the source. Nobody holds a lock while it polls.
//! 2. A wake-up is never lost: it is noted even while the source is taken. Each leads to one poll.
//! 3. After its end, or a panic, the source is not polled again: a pull that has no source to put back leaves none.

use std::pin::Pin;
use std::task::Waker;

use futures::Stream;

pub(in super::super) struct Source<T> {
    pub(in super::super) stream: Pin<Box<dyn Stream<Item = T> + Send>>,
    pub(in super::super) waker: Waker,
    /// The index of the next item.
    pub(in super::super) next: usize,
}

pub(super) enum Place<T> {
    Here(Source<T>),
    /// It is not ready, and will wake.
    Waiting(Source<T>),
    /// A worker polls it.
    Taken {
        is_woken: bool,
    },
    Over,
}

pub(in super::super) struct Pull<T> {
    /// `None` once it has ended.
    pub(in super::super) source: Option<Source<T>>,
    /// How many items it may still give.
    pub(in super::super) permits: usize,
    pub(in super::super) is_ready: bool,
}

impl<T> Place<T> {
    pub(super) fn is_here(&self) -> bool {
        matches!(self, Self::Here(_))
    }

    pub(super) fn is_taken(&self) -> bool {
        matches!(self, Self::Taken { .. })
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Over)
    }

    /// Begins a pull, if it may have an item.
    pub(super) fn take(&mut self, permits: usize) -> Option<Pull<T>> {
        match std::mem::replace(self, Self::Taken { is_woken: false }) {
            Self::Here(source) => Some(Pull {
                source: Some(source),
                permits,
                is_ready: true,
            }),
            place => {
                *self = place;
                None
            }
        }
    }

    /// Ends a pull. Returns `true` if the source was woken although it had said that it is not ready.
    pub(super) fn put_back(&mut self, pull: Pull<T>) -> bool {
        let was_woken = matches!(self, Self::Taken { is_woken: true });
        *self = match pull.source {
            Some(source) if pull.is_ready || was_woken => Self::Here(source),
            Some(source) => Self::Waiting(source),
            None => Self::Over,
        };
        was_woken && !pull.is_ready
    }

    pub(super) fn wake(&mut self) {
        *self = match std::mem::replace(self, Self::Over) {
            Self::Waiting(source) => Self::Here(source),
            Self::Taken { .. } => Self::Taken { is_woken: true },
            place => place,
        };
    }

    /// Hands out the source if nobody has it.
    pub(super) fn end(&mut self) -> Option<Source<T>> {
        match std::mem::replace(self, Self::Over) {
            Self::Here(source) | Self::Waiting(source) => Some(source),
            Self::Taken { .. } | Self::Over => None,
        }
    }
}
