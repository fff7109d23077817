//! `TaskGuard`: one task's place in its group, from its admission to its end.
//!
//! Owned by the task: by its future, or by its closure. Whatever becomes of the task, it is removed from the registry exactly
//! once, after its code and captures are dropped: by one of the methods that consume the guard, or by the guard's
//! drop if the runtime dropped the task.
//!
//! The order is: drop the code, record the failure, end the context, give back the permit and leave the registry, let
//! `wait` go on.

use std::mem::needs_drop;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use super::core::Core;
use super::entry::{Kind, Stage};
use super::fate::Fate;
use super::polls::Count;
use super::room::Room;
use crate::context::Context;
use crate::error::{ContextError, GroupError, Reason};
use crate::panic::{Payload, discard};
use crate::task::{Output, Owned, Receipt};

// Small, so that a small task fits into tokio's smallest allocation with it: two words, of which `phase` leaves the values
// that `Run` and tokio need to tell their own states. The flags are not fields of their own, since the guard moves several
// times before the task runs: fields that are stored one by one and moved together make the processor wait.
pub(crate) struct TaskGuard<E> {
    core: Arc<Core<E>>,
    key: u32,
    flags: u16,
    phase: Phase,
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It may start once its permit is there.
    Admitted,
    /// It has been polled, and had to wait.
    Started,
    /// It has been removed from the registry, or its receipt will do that.
    Over,
}

/// In `flags`: the task stops itself.
const STOPS_ITSELF: u16 = 1;

/// In `flags`: it waits for a permit.
const QUEUED: u16 = 1 << 1;

/// In `flags`, with `QUEUED`: it has left its waker.
const LEFT_WAKER_IN_QUEUE: u16 = 1 << 2;

/// Where the stage lies in `flags` at which the task left its waker, plus one.
const WAKER_STAGE: u16 = 8;

/// What the group has to say to a task before it is polled.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Go,
    /// The context has ended.
    Stop,
    /// The context has ended, and there is no more time.
    Abort,
}

impl<E> TaskGuard<E> {
    #[inline]
    pub(crate) fn new(core: Arc<Core<E>>, key: u32, kind: Kind, is_queued: bool) -> Self {
        let stops_itself = match kind {
            Kind::Dropped | Kind::Local => 0,
            Kind::Cooperative | Kind::Blocking | Kind::Slot => STOPS_ITSELF,
        };
        let queued = if is_queued { QUEUED } else { 0 };
        Self {
            core,
            key,
            flags: stops_itself | queued,
            phase: Phase::Admitted,
        }
    }

    #[inline]
    pub(crate) fn key(&self) -> u32 {
        self.key
    }

    pub(crate) fn core(&self) -> &Arc<Core<E>> {
        &self.core
    }

    pub(crate) fn context(&self) -> &Context {
        &self.core.context
    }

    #[inline]
    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    #[inline]
    pub(crate) fn is_queued(&self) -> bool {
        self.has(QUEUED)
    }

    #[inline]
    pub(crate) fn set_started(&mut self) {
        self.phase = Phase::Started;
    }

    /// Where the polls of the task's code are counted; for a blocking task, that it has its thread.
    #[inline]
    pub(super) fn polls(&self) -> &Count {
        self.core.registry.polls.of(self.key)
    }

    /// One atomic load while the context is live.
    #[inline]
    pub(crate) fn order(&self) -> Order {
        match self.core.context.is_done() {
            false => Order::Go,
            true => self.order_after_end(),
        }
    }

    #[cold]
    fn order_after_end(&self) -> Order {
        match self.core.registry.stage() {
            Stage::Aborting => Order::Abort,
            Stage::Open | Stage::Ended => Order::Stop,
        }
    }

    /// Whether the order means that the task's code is dropped now.
    #[inline]
    pub(crate) fn is_stopped_by(&self, order: Order) -> bool {
        match order {
            Order::Go => false,
            Order::Stop => !self.has_to_stop_itself(),
            Order::Abort => true,
        }
    }

    #[inline]
    fn has_to_stop_itself(&self) -> bool {
        self.has(STOPS_ITSELF) && self.phase == Phase::Started
    }

    /// Waits for the task's permit; anything but `Go` if the context ends first.
    pub(crate) fn poll_start(&mut self, cx: &TaskContext<'_>) -> Poll<Order> {
        let order = self.order();
        if order != Order::Go || !self.is_queued() {
            return Poll::Ready(order);
        }
        // tokio gives a task one waker for life.
        let waker = (!self.has(LEFT_WAKER_IN_QUEUE)).then(|| cx.waker());
        match self.core.registry.poll_room(self.key, waker) {
            Room::NotYet => {
                self.flags |= LEFT_WAKER_IN_QUEUE;
                self.core.see_to_timer();
                Poll::Pending
            }
            Room::Granted => {
                self.flags &= !QUEUED;
                Poll::Ready(Order::Go)
            }
            Room::Ended => Poll::Ready(self.order()),
        }
    }

    /// As `poll_start`, of one who is woken through the registry in any case.
    pub(crate) fn start(&mut self) -> Poll<Order> {
        let order = self.order();
        if order != Order::Go || !self.is_queued() {
            return Poll::Ready(order);
        }
        match self.core.registry.poll_room(self.key, None) {
            Room::NotYet => Poll::Pending,
            Room::Granted => {
                self.flags &= !QUEUED;
                Poll::Ready(Order::Go)
            }
            Room::Ended => Poll::Ready(self.order()),
        }
    }

    /// Makes sure that the task is woken when the stage rises; `false` if it is to be stopped instead of waiting.
    #[inline]
    pub(crate) fn may_wait(&mut self, cx: &TaskContext<'_>) -> bool {
        let stage = self.core.registry.stage();
        if self.flags >> WAKER_STAGE == stage as u16 + 1 {
            return true;
        }
        self.leave_waker(cx)
    }

    fn leave_waker(&mut self, cx: &TaskContext<'_>) -> bool {
        let stage = self.core.registry.leave_waker(self.key, cx.waker());
        self.flags = self.flags & ((1 << WAKER_STAGE) - 1) | (stage as u16 + 1) << WAKER_STAGE;
        if stage == Stage::Open {
            self.core.see_to_timer();
            return true;
        }
        !self.is_stopped_by(self.order())
    }

    /// As `may_wait`, of a future that may be polled with one waker now and with another later.
    pub(crate) fn may_wait_anywhere(&self, cx: &TaskContext<'_>) -> bool {
        let stage = self.core.registry.refresh_waker(self.key, cx.waker());
        self.core.see_to_timer();
        stage == Stage::Open || !self.is_stopped_by(self.order())
    }

    /// Leaves the registry.
    #[inline]
    fn leave(&mut self, fate: Fate) {
        self.phase = Phase::Over;
        self.core.registry.remove(self.key, fate);
    }

    /// The task is over, and its failure recorded, if it failed.
    pub(crate) fn release(mut self, fate: Fate) {
        self.leave(fate);
    }

    /// It never came to be a task.
    pub(crate) fn withdraw(mut self) {
        self.leave(Fate::Uncounted);
    }

    /// What is known of the task. It costs a lock.
    pub(crate) fn who(&self) -> Owned {
        let described = self.core.registry.describe(self.key);
        let (name, id, location) = described.expect("errgroup: a task is listed until its end");
        Owned {
            name,
            id,
            location,
            group: self.core.id,
        }
    }
}

impl<E: GroupError> TaskGuard<E> {
    /// The task has returned. `dropped` is how the drop of its code went.
    #[inline]
    pub(crate) fn complete<T>(
        self,
        result: Result<Result<T, E>, Payload>,
        dropped: Result<(), Payload>,
    ) -> Output<T> {
        match (result, dropped) {
            (Ok(Ok(value)), Ok(())) => self.deliver(value),
            (result, dropped) => {
                let (why, fate) = self.fail(result.map(drop_value), dropped);
                self.release(fate);
                Output::NoValue(why)
            }
        }
    }

    #[inline]
    fn deliver<T>(mut self, value: T) -> Output<T> {
        if !needs_drop::<T>() {
            self.leave(Fate::Completed);
            return Output::Value(value);
        }
        self.phase = Phase::Over;
        let receipt = Receipt {
            home: self.core.clone(),
            key: self.key,
        };
        self.core.registry.deliver(self.key);
        Output::Delivered {
            value,
            _receipt: receipt,
        }
    }

    /// Records why the task has no value.
    #[cold]
    pub(crate) fn fail(
        &self,
        result: Result<Option<E>, Payload>,
        dropped: Result<(), Payload>,
    ) -> (ContextError, Fate) {
        match (result, dropped) {
            (Ok(Some(error)), Ok(())) => self.core.failed(error, || self.who()),
            (Err(payload), Ok(())) => self.panicked(payload),
            (result, Err(payload)) => {
                discard(result);
                self.panicked(payload)
            }
            (Ok(None), Ok(())) => {
                unreachable!("errgroup: a task that returned a value has not failed")
            }
        }
    }

    #[cold]
    pub(crate) fn panicked(&self, payload: Payload) -> (ContextError, Fate) {
        let why = self.core.panicked(payload, self.who());
        (why, Fate::Panicked)
    }

    /// The task was stopped by the group.
    #[cold]
    pub(crate) fn stop(self, order: Order, dropped: Result<(), Payload>) -> ContextError {
        let (why, fate) = self.stopped(order, dropped);
        self.release(fate);
        why
    }

    pub(crate) fn stopped(
        &self,
        order: Order,
        dropped: Result<(), Payload>,
    ) -> (ContextError, Fate) {
        if let Err(payload) = dropped {
            return self.panicked(payload);
        }
        // A task that the group stops says why its context ended, however far the group is by the time it is polled.
        if order == Order::Abort && self.has_to_stop_itself() {
            return (self.aborted(), Fate::Aborted);
        }
        let fate = match self.phase {
            Phase::Started => Fate::CutShort,
            Phase::Admitted | Phase::Over => Fate::NeverStarted,
        };
        (self.core.end_error(), fate)
    }

    /// Why a task that was aborted has no value.
    pub(crate) fn aborted(&self) -> ContextError {
        ContextError::of_task(Reason::TaskAborted, self.who().borrow(), String::new())
    }

    /// The runtime has dropped the task, and this is what its destructor said.
    #[cold]
    pub(crate) fn dropped_by_runtime(self, dropped: Result<(), Payload>, fate: Option<Fate>) {
        let Err(payload) = dropped else {
            let fate = fate.unwrap_or_else(|| self.core.fate_of_dropped());
            return self.release(fate);
        };
        let (_, fate) = self.panicked(payload);
        self.release(fate);
        if !std::thread::panicking() {
            // For the handle.
            resume_unwind(Box::new(
                "errgroup: a task's destructor panicked, and its group has the payload",
            ));
        }
    }
}

fn drop_value<T, E>(result: Result<T, E>) -> Option<E> {
    match result {
        Ok(value) => {
            discard(value);
            None
        }
        Err(error) => Some(error),
    }
}

impl<E> Drop for TaskGuard<E> {
    #[inline]
    fn drop(&mut self) {
        if self.phase != Phase::Over {
            let fate = self.core.fate_of_dropped();
            self.leave(fate);
        }
    }
}
