//! `Child`: one task's life: check, poll, catch, record, leave the result.
//!
//! Polled by the scope's `FuturesUnordered` alone, which gives a future one waker for life. Dropped by it when the context has
//! ended, the scope's drop included: whoever drops a child that has not ended has ended the context before.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use pin_project_lite::pin_project;

use crate::error::{ContextError, GroupError, Reason};
use crate::group::{Core, Fate, Name};
use crate::panic::{Payload, catch, discard, poll_catching};
use crate::task::{Owned, ResultCell, TaskId};

pin_project! {
    pub(super) struct Child<F, T, E>
    where
        E: GroupError,
    {
        // `None` once it is over.
        #[pin]
        future: Option<F>,
        cell: Arc<ResultCell<T>>,
        core: Arc<Core<E>>,
        spec: Spec,
        // So that an abort wakes it.
        has_left_waker: bool,
    }

    impl<F, T, E> PinnedDrop for Child<F, T, E>
    where
        E: GroupError,
    {
        fn drop(this: Pin<&mut Self>) {
            if this.future.is_some() {
                this.stop();
            }
        }
    }
}

/// What is said of a task before it starts.
pub(super) struct Spec {
    pub(super) name: Option<Name>,
    pub(super) id: TaskId,
    pub(super) location: &'static Location<'static>,
}

impl Spec {
    pub(super) fn who<E>(&self, core: &Core<E>) -> Owned {
        Owned {
            name: self.name.clone(),
            id: self.id,
            location: self.location,
            group: core.id,
        }
    }
}

impl<F, T, E: GroupError> Child<F, T, E> {
    #[inline]
    pub(super) fn new(future: F, cell: Arc<ResultCell<T>>, core: Arc<Core<E>>, spec: Spec) -> Self {
        Self {
            future: Some(future),
            cell,
            core,
            spec,
            has_left_waker: false,
        }
    }

    /// Aborted, or cut short by the end of the context.
    #[cold]
    fn stop(self: Pin<&mut Self>) {
        let mut this = self.project();
        let dropped = catch(|| this.future.set(None));
        let why = stopped(this.core, this.spec, this.cell.is_aborted(), dropped);
        this.cell.finish(Err(why));
    }

    /// The future has returned, or panicked.
    #[inline]
    fn end(self: Pin<&mut Self>, result: Result<Result<T, E>, Payload>) {
        let mut this = self.project();
        let dropped = catch(|| this.future.set(None));
        let result = match (result, dropped) {
            (Ok(Ok(value)), Ok(())) => Ok(value),
            (Ok(Err(error)), Ok(())) => Err(failed(this.core, this.spec, error)),
            (Err(payload), Ok(())) => Err(panicked(this.core, this.spec, payload)),
            (result, Err(payload)) => {
                discard(result);
                Err(panicked(this.core, this.spec, payload))
            }
        };
        match ResultCell::is_abandoned(this.cell) {
            true => discard(result),
            false => this.cell.finish(result),
        }
    }
}

impl<F, T, E> Future for Child<F, T, E>
where
    F: Future<Output = Result<T, E>>,
    E: GroupError,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        loop {
            let this = self.as_mut().project();
            if this.core.context.is_done() || this.cell.is_aborted() {
                self.stop();
                return Poll::Ready(());
            }
            let Some(future) = this.future.as_pin_mut() else {
                panic!("errgroup: a task is not polled after its end");
            };
            if let Poll::Ready(result) = poll_catching(future, cx) {
                self.end(result);
                return Poll::Ready(());
            }
            if *this.has_left_waker || ResultCell::is_abandoned(this.cell) {
                return Poll::Pending;
            }
            if this.cell.may_wait(cx.waker()) {
                *this.has_left_waker = true;
                return Poll::Pending;
            }
        }
    }
}

// Not generic over the future.

#[cold]
fn stopped<E: GroupError>(
    core: &Core<E>,
    spec: &Spec,
    was_aborted: bool,
    dropped: Result<(), Payload>,
) -> ContextError {
    match dropped {
        Err(payload) => panicked(core, spec, payload),
        Ok(()) if was_aborted => {
            let who = spec.who(core);
            ContextError::of_task(Reason::TaskAborted, who.borrow(), String::new())
        }
        Ok(()) => {
            core.registry.record(Fate::CutShort);
            core.end_error()
        }
    }
}

#[cold]
fn failed<E: GroupError>(core: &Core<E>, spec: &Spec, error: E) -> ContextError {
    let (why, fate) = core.failed(error, || spec.who(core));
    core.registry.record(fate);
    why
}

#[cold]
fn panicked<E: GroupError>(core: &Core<E>, spec: &Spec, payload: Payload) -> ContextError {
    core.panicked(payload, spec.who(core))
}
