//! `Slot`: room for one task in a group with a limit, waited for before there is a task.

use std::fmt;
use std::future::poll_fn;
use std::panic::Location;
use std::sync::Arc;
use std::task::Poll;

use super::core::Core;
use super::entry::SlotRequest;
use super::registry::Registry;
use super::room::{Room, SlotRequested};
use crate::error::ContextError;

/// Room for one task of a [`Group`](crate::Group) with a limit: the value of [`Group::slot`](crate::Group::slot).
///
/// Dropping it gives the room back.
#[must_use = "dropping the slot gives the room back"]
pub struct Slot<'a, E> {
    pub(super) core: &'a Arc<Core<E>>,
    /// `false` if the group had no limit.
    holds_permit: bool,
}

impl<'a, E> Slot<'a, E> {
    /// Waits for room, or for the end of the context.
    pub(super) async fn wait(
        core: &'a Arc<Core<E>>,
        location: &'static Location<'static>,
    ) -> Result<Self, ContextError> {
        /// A place in the queue.
        struct Place<'a>(&'a Registry, Option<u32>);
        impl Drop for Place<'_> {
            fn drop(&mut self) {
                if let Some(key) = self.1 {
                    if self.0.leave_queue(key) {
                        self.0.release_slot();
                    }
                }
            }
        }

        core.context.check()?;
        let slot = |holds_permit| Self { core, holds_permit };
        let key = match core.registry.request_slot(location) {
            // Another thread has ended the context.
            None => return Err(core.end_error()),
            Some(SlotRequested::Unlimited) => return Ok(slot(false)),
            Some(SlotRequested::Granted) => return Ok(slot(true)),
            Some(SlotRequested::Queued(key)) => key,
        };
        let mut place = Place(&core.registry, Some(key));
        poll_fn(|cx| match core.registry.poll_room(key, Some(cx.waker())) {
            Room::NotYet => {
                core.see_to_timer();
                Poll::Pending
            }
            Room::Granted | Room::Ended => Poll::Ready(()),
        })
        .await;
        place.1 = None;
        match (core.registry.leave_queue(key), core.context.check()) {
            (true, Ok(())) => Ok(slot(true)),
            (true, Err(end)) => {
                core.registry.release_slot();
                Err(end)
            }
            (false, _) => Err(core.end_error()),
        }
    }

    /// Hands the room to a task that asks for it.
    pub(super) fn into_request(mut self, otherwise: SlotRequest) -> SlotRequest {
        match std::mem::take(&mut self.holds_permit) {
            true => SlotRequest::Held,
            false => otherwise,
        }
    }
}

impl<E> Drop for Slot<'_, E> {
    fn drop(&mut self) {
        if self.holds_permit {
            self.core.registry.release_slot();
        }
    }
}

impl<E> fmt::Debug for Slot<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("holds_permit", &self.holds_permit)
            .finish_non_exhaustive()
    }
}
