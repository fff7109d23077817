//! `Parked`: the lanes that wait until there may be an item, and whom the stream wakes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Wake, Waker};

use crate::panic::contain;
use crate::sync::Mutex;

#[derive(Default)]
pub(super) struct Parked(Mutex<Lot>);

#[derive(Default)]
struct Lot {
    /// By ticket: a lane that is polled although nobody woke it keeps its place.
    wakers: BTreeMap<u64, Waker>,
    next_ticket: u64,
    /// A wake-up found nobody.
    is_woken: bool,
    is_closed: bool,
}

impl Parked {
    /// Leaves a lane's waker; `false` if the lane is to look again instead.
    pub(super) fn park(&self, ticket: &mut Option<u64>, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut lot = self.0.lock();
        let may_park = !std::mem::take(&mut lot.is_woken) && !lot.is_closed;
        let unused = if may_park {
            let ticket = *ticket.get_or_insert(lot.next_ticket);
            lot.next_ticket = lot.next_ticket.max(ticket + 1);
            lot.wakers.insert(ticket, waker)
        } else {
            Some(waker)
        };
        drop(lot);
        drop(unused);
        may_park
    }

    /// Gives up a lane's place, which a wake-up may have taken already.
    pub(super) fn leave(&self, ticket: Option<u64>) {
        if let Some(ticket) = ticket {
            let waker = self.0.lock().wakers.remove(&ticket);
            drop(waker);
        }
    }

    /// Wakes all: from now on nobody parks.
    pub(super) fn close(&self) {
        let mut lot = self.0.lock();
        lot.is_closed = true;
        let wakers = std::mem::take(&mut lot.wakers);
        drop(lot);
        for waker in wakers.into_values() {
            contain(|| waker.wake());
        }
    }
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut lot = self.0.lock();
        let waker = lot.wakers.pop_first().map(|(_, waker)| waker);
        lot.is_woken |= waker.is_none();
        drop(lot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
