//! `Source`: a stream that many lanes pull from, and the count of those lanes.
//!
//! A lane is _new_ from its start to its first pull, _parked_ while it has no item and waits for one, _held up_ from the
//! moment that its item has to wait, or is expected to, to its next pull, and _running_ else. It pulls a block of items
//! at a time. What is left of the block when an item has to wait goes to the stash, from which lanes take before the
//! stream is polled again.
//!
//! Invariants:
//!
//! 1. The stream is polled under the `turn` lock, by one lane at a time, and with one waker: the `Parked` lanes'.
//! 2. `is_over` is set while the stream is polled, and stays so when it is dry or has panicked: then it is never polled
//!    again.
//! 3. A wake-up of the stream goes to one parked lane, or is remembered for the next that would park. A lane that finds
//!    an item gives up its place and passes the wake-up on, unless it has seen that the stream is not ready.
//! 4. Once the stream has ended nobody parks.
//! 5. `outstanding <= limit`. It counts the items that were pulled and whose room has not been given back: they wait in
//!    the stash, are in the hand of a lane, or are done and not yet told of.
//! 6. A lane that is held up has one item, and no other in hand.
//! 7. As long as there is work (the stash is not empty, or there is room and the stream has not ended) some lane is new,
//!    parked or running. Of the parked ones, one is on its way if the stash is not empty.
//!
//! 7 is what keeps a batch from standing still. A lane that is running comes back to pull, or is held up: that is the
//! moment to see to a successor, and so is every other at which work appears. `call` does it, under the same lock: it
//! wakes a parked lane or has the caller start one. There is always one to be had: if all lanes are held up while there
//! is work, they are fewer than `limit` (5, 6). So a lane that finds no work may end, whatever the others give back later.
//!
//! 3 holds although a parked lane that the stream has woken may find the stash first: whoever fills the stash, or leaves
//! some of it, wakes a parked lane, too, and that one then finds it empty and polls the stream; or there is no other, and
//! the stream is polled by the next who needs an item. Why `is_pending` may keep `call` from waking: since that poll no
//! item was pulled from the stream, so there has been room ever since (5), and no lane woken by the stream can have gone
//! without polling it.
//!
//! Lock order: `turn` before that of `Parked`, when a stream wakes while it is polled. Lanes are woken with neither held
//! by us.
//!
//! Why poll foreign code under a lock? The lock is the lanes' turn and nothing else: nobody who is polled there can ask
//! for it. Taking the stream out for each item instead, and parking the others, costs a wake-up per item.
//!
//! Why not let lanes without work steal from the blocks of others? Then each block needs a lock or an atomic operation
//! per item. They leave word instead, in `is_wanting`, which costs a load.

#[cfg(all(test, not(errgroup_loom)))]
mod tests;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll, Wake, Waker};

use futures::{Stream, StreamExt};

use super::items::{Block, Stash};
use super::lanes::{Doing, Lanes, Seat};
use super::parked::Parked;
use crate::sync::Mutex;

pub(super) struct Source<S: Stream> {
    turn: Mutex<Turn<S>>,
    parked: Arc<Parked>,
    /// `parked`, as the stream sees it.
    waker: Waker,
    /// A lane has ended for want of work while others may have some in hand. A hint: nothing but balance hangs on it.
    is_wanting: AtomicBool,
    rules: Rules,
}

struct Turn<S: Stream> {
    stream: S,
    /// The index of the next item of the stream.
    next: usize,
    is_over: bool,
    /// The stream has the waker, and no item was taken since: nobody needs to look.
    is_pending: bool,
    stash: Stash<S::Item>,
    outstanding: usize,
    lanes: Lanes,
    rules: Rules,
}

/// What never changes.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    /// The most items that are outstanding, and the most lanes.
    pub(super) limit: NonZeroUsize,
    /// How many lanes can run at once: the threads of the runtime.
    pub(super) workers: usize,
    /// Who gives room back. The lane, when an item is done: then one that finds no room ends. Or somebody else: then it
    /// parks.
    pub(super) room: Room,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    ComesFromLanes,
    ComesFromOutside,
}

/// Whether the caller has to start a lane, which is counted already.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Staff {
    Enough,
    OneMore,
}

/// What a pull came to.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulled {
    Items(Staff),
    /// There is no work for this lane: it ends.
    Nothing,
}

/// What a lane asks for.
#[derive(Clone, Copy)]
pub(super) struct Order {
    /// The most items that it takes.
    pub(super) size: usize,
    /// Its last item had to wait. So the next is likely to, and the lane counts as held up from the start: that spares
    /// it to come and tell.
    pub(super) has_waited: bool,
    /// Its last item kept a thread busy for long: so another thread may have come in its place.
    pub(super) was_slow: bool,
}

enum Found {
    Items,
    NotYet,
    NoRoom,
    Dry,
}

/// Whom to see to, when there is work.
enum Call {
    Nobody,
    Parked,
    New,
}

impl<S: Stream> Source<S> {
    /// A source with so many new lanes.
    pub(super) fn new(stream: S, lanes: usize, rules: Rules) -> Self {
        let parked = Arc::new(Parked::default());
        Self {
            turn: Mutex::new(Turn {
                stream,
                next: 0,
                is_over: false,
                is_pending: false,
                stash: Stash::default(),
                outstanding: 0,
                lanes: Lanes {
                    new: lanes,
                    ..Lanes::default()
                },
                rules,
            }),
            waker: Waker::from(parked.clone()),
            parked,
            is_wanting: AtomicBool::new(false),
            rules,
        }
    }

    /// Whether a lane with several items in hand should share them.
    #[inline]
    pub(super) fn is_wanting(&self) -> bool {
        self.is_wanting.load(Ordering::Relaxed)
    }

    /// Whether lanes can only run one after the other.
    pub(super) fn has_one_thread(&self) -> bool {
        self.rules.workers == 1
    }

    /// A lane's item has to wait: the rest of its block is for others.
    pub(super) fn hold_up(&self, seat: &mut Seat, block: &mut Block<S::Item>) -> Staff {
        if seat.doing == Doing::HeldUp {
            return Staff::Enough;
        }
        self.see_to(|turn| {
            turn.settle(seat, 1 + block.len());
            turn.stash.take_back(block, 0);
            turn.lanes.note(seat, Doing::HeldUp);
        })
    }

    /// A lane gives back all of its block but the next item.
    pub(super) fn share(&self, seat: &mut Seat, block: &mut Block<S::Item>) -> Staff {
        self.see_to(|turn| {
            turn.settle(seat, block.len());
            turn.stash.take_back(block, 1);
            self.is_wanting.store(false, Ordering::Relaxed);
        })
    }

    /// Gives back the room of one item.
    pub(super) fn give_room(&self) -> Staff {
        self.see_to(|turn| turn.outstanding -= 1)
    }

    /// Drops the items that nobody will start.
    pub(super) fn clear(&self) {
        let stash = std::mem::take(&mut self.turn.lock().stash);
        crate::panic::discard(stash);
    }

    /// Whether the stream has ended, or says that it has no other item, and none was given back.
    pub(super) fn is_dry(&self) -> bool {
        let turn = self.turn.lock();
        turn.stash.is_empty() && (turn.is_over || turn.stream.size_hint().1 == Some(0))
    }

    fn see_to(&self, change: impl FnOnce(&mut Turn<S>)) -> Staff {
        let mut turn = self.turn.lock();
        change(&mut turn);
        let call = turn.call(false);
        drop(turn);
        self.answer(&call)
    }

    fn answer(&self, call: &Call) -> Staff {
        match call {
            Call::Nobody => Staff::Enough,
            Call::Parked => {
                self.parked.wake_by_ref();
                Staff::Enough
            }
            Call::New => Staff::OneMore,
        }
    }
}

impl<S: Stream + Unpin> Source<S> {
    /// Fills a lane's empty block, or ends the lane. Pulls no more when the batch is not live.
    ///
    /// # Cancel safety
    ///
    /// A lane is dropped only when the batch is over, so a wake-up that it takes with it is missed by nobody.
    pub(super) fn poll_pull(
        &self,
        seat: &mut Seat,
        block: &mut Block<S::Item>,
        order: Order,
        is_live: impl Fn() -> bool,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Pulled> {
        let mut turn = self.turn.lock();
        turn.settle(seat, 0);
        let was_over = turn.is_over;
        let found = turn.fill(block, order.size, is_live, &self.waker);
        let has_ended = turn.is_over && !was_over;
        let doing = turn.doing(&found, order.has_waited && block.len() == 1);
        turn.lanes.note(seat, doing);
        seat.pulled = block.len();
        let call = match doing {
            Doing::Running | Doing::HeldUp => turn.call(order.was_slow),
            _ => Call::Nobody,
        };
        let is_wanting = turn.is_wanting(doing);
        drop(turn);
        if self.is_wanting() != is_wanting {
            self.is_wanting.store(is_wanting, Ordering::Relaxed);
        }
        if has_ended {
            self.parked.close();
        }
        self.conclude(seat, &call, cx)
    }

    fn conclude(&self, seat: &mut Seat, call: &Call, cx: &mut TaskContext<'_>) -> Poll<Pulled> {
        if seat.doing == Doing::Parked {
            if !self.parked.park(&mut seat.ticket, cx.waker()) {
                // Through the runtime, not in a loop: a stream that wakes itself leaves the others their turn.
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        self.parked.leave(seat.ticket.take());
        match seat.doing {
            Doing::Ended => Poll::Ready(Pulled::Nothing),
            _ => Poll::Ready(Pulled::Items(self.answer(call))),
        }
    }
}

impl<S: Stream> Turn<S> {
    /// Takes note of what a lane has done: all that it had pulled but the last `left`.
    fn settle(&mut self, seat: &mut Seat, left: usize) {
        let done = seat.pulled - left;
        seat.pulled = left.min(1);
        if self.rules.room == Room::ComesFromLanes {
            self.outstanding -= done;
        }
    }

    fn room(&self) -> usize {
        self.rules.limit.get() - self.outstanding
    }

    /// Sees to invariant 7: who is to look for the work that there is.
    fn call(&mut self, was_slow: bool) -> Call {
        let may_poll = !self.is_over && self.room() > 0;
        if self.stash.is_empty() && !may_poll {
            return Call::Nobody;
        }
        if self.lanes.parked > 0 {
            return match self.stash.is_empty() && self.is_pending {
                true => Call::Nobody,
                false => Call::Parked,
            };
        }
        let is_staffed =
            self.lanes.running >= self.rules.workers && !(was_slow && self.rules.workers > 1);
        if is_staffed || self.lanes.new > 0 || self.lanes.all() >= self.rules.limit.get() {
            return Call::Nobody;
        }
        self.lanes.new += 1;
        Call::New
    }

    /// What a lane does after it has found that.
    fn doing(&self, found: &Found, will_wait: bool) -> Doing {
        match (found, self.rules.room) {
            (Found::Items, _) if will_wait => Doing::HeldUp,
            (Found::Items, _) => Doing::Running,
            (Found::NotYet, _) | (Found::NoRoom, Room::ComesFromOutside) => Doing::Parked,
            (Found::Dry, _) | (Found::NoRoom, Room::ComesFromLanes) => Doing::Ended,
        }
    }

    /// Whether others have what this lane goes without.
    fn is_wanting(&self, doing: Doing) -> bool {
        doing == Doing::Ended && self.lanes.running > 0 && self.rules.workers > 1
    }
}

impl<S: Stream + Unpin> Turn<S> {
    fn fill(
        &mut self,
        block: &mut Block<S::Item>,
        size: usize,
        is_live: impl Fn() -> bool,
        waker: &Waker,
    ) -> Found {
        // What is taken beyond a lane's share leaves no room for the lanes that could run beside it.
        let share = (self.rules.limit.get() / self.rules.workers).max(1);
        let size = size.min(share);
        if !self.stash.is_empty() {
            self.stash.move_to(block, size);
            return Found::Items;
        }
        if self.is_over {
            return Found::Dry;
        }
        match self.room().min(size) {
            0 => Found::NoRoom,
            size => self.poll(block, size, is_live, waker),
        }
    }

    fn poll(
        &mut self,
        block: &mut Block<S::Item>,
        size: usize,
        is_live: impl Fn() -> bool,
        waker: &Waker,
    ) -> Found {
        let mut cx = TaskContext::from_waker(waker);
        self.is_over = true;
        let mut none = Found::Items;
        let stream = &mut self.stream;
        block.fill(self.next, |len| {
            if len == size || (len > 0 && !is_live()) {
                return None;
            }
            match stream.poll_next_unpin(&mut cx) {
                Poll::Ready(Some(item)) => return Some(item),
                Poll::Ready(None) => none = Found::Dry,
                Poll::Pending => none = Found::NotYet,
            }
            None
        });
        self.is_over = matches!(none, Found::Dry);
        self.is_pending = matches!(none, Found::NotYet);
        self.next += block.len();
        self.outstanding += block.len();
        match block.is_empty() {
            true => none,
            false => Found::Items,
        }
    }
}
