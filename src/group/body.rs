//! `Body`: the future of [`Group::run`](super::Group::run): a group whose owner is a function, in the caller's task.
//!
//! The body is listed as a task, and ends as one: checked before each poll, dropped at its await when the context ends, its
//! panic caught and resumed when all have ended. It may be polled by one task now and by another later, outside of any
//! runtime, too, so it leaves its waker anew when that changes.

use std::future::Future;
use std::panic::{Location, resume_unwind};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use pin_project_lite::pin_project;

use super::Group;
use super::core::Core;
use super::entry::{Kind, SlotRequest};
use super::fate::Fate;
use super::guard::TaskGuard;
use super::registry::Spec;
use super::spawn::admit;
use super::spawner::Spawner;
use crate::error::GroupError;
use crate::panic::{Payload, catch, contain, discard, poll_catching};
use crate::task::Owned;

pin_project! {
    pub(super) struct Body<F, Fut, T, E> {
        #[pin]
        code: Code<F, Fut>,
        // `None` before the first poll, and once the body has ended.
        guard: Option<TaskGuard<E>>,
        result: Came<T, E>,
        group: Group<E>,
        location: &'static Location<'static>,
    }

    impl<F, Fut, T, E> PinnedDrop for Body<F, Fut, T, E> {
        // The body goes before its group, which hands over what is live to the group around it.
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            contain(|| this.code.set(Code::Over));
            if let Some(guard) = this.guard.take() {
                guard.release(Fate::Uncounted);
            }
        }
    }
}

pin_project! {
    #[project = CodeProjection]
    enum Code<F, Fut> {
        New { f: Option<F> },
        Running { #[pin] future: Fut },
        Over,
    }
}

/// What the body came to.
pub(crate) enum Came<T, E> {
    NotYet,
    To(T),
    /// Cut short, or to a failure, which the group knows.
    ToNothing,
    /// To an error that is no failure of its own, in a group that goes on: an isolated task's, passed on.
    ToError(E),
}

impl<F, Fut, T, E> Body<F, Fut, T, E> {
    pub(super) fn new(group: Group<E>, f: F, location: &'static Location<'static>) -> Self {
        Self {
            code: Code::New { f: Some(f) },
            guard: None,
            result: Came::NotYet,
            group,
            location,
        }
    }
}

impl<F, Fut, T, E> Body<F, Fut, T, E>
where
    F: FnOnce(Spawner<E>) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: GroupError,
{
    /// Runs the body to its end.
    fn poll_body(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Came<T, E>> {
        let mut this = self.as_mut().project();
        let core = &this.group.core;
        if let CodeProjection::New { f } = this.code.as_mut().project() {
            let f = f.take();
            let spec = Spec {
                name: None,
                location: this.location,
                slot: SlotRequest::None,
            };
            let Some((guard, ..)) = admit(core, Kind::Dropped, spec, || None) else {
                // The context has ended.
                let dropped = catch(|| drop(f));
                this.code.set(Code::Over);
                core.refused(core.anonymous(this.location), dropped);
                return Poll::Ready(Came::ToNothing);
            };
            *this.guard = Some(guard);
            let spawner = Spawner::new(core.clone());
            match catch(|| f.map(|f| f(spawner))) {
                Ok(future) => this
                    .code
                    .set(future.map_or(Code::Over, |future| Code::Running { future })),
                Err(payload) => {
                    this.code.set(Code::Over);
                    return Poll::Ready(end(this.guard, Err(payload), Ok(())));
                }
            }
        }
        loop {
            let CodeProjection::Running { future } = this.code.as_mut().project() else {
                panic!("errgroup: the future of Group::run is not polled after it was ready");
            };
            let guard = this.guard.as_mut().expect("errgroup: the body ends once");
            let order = guard.order();
            if guard.is_stopped_by(order) {
                let dropped = catch(|| this.code.set(Code::Over));
                if let Some(guard) = this.guard.take() {
                    let _ = guard.stop(order, dropped);
                }
                return Poll::Ready(Came::ToNothing);
            }
            let polls = guard.polls();
            polls.step();
            if let Poll::Ready(result) = poll_catching(future, cx) {
                let dropped = catch(|| this.code.set(Code::Over));
                return Poll::Ready(end(this.guard, result, dropped));
            }
            polls.step();
            guard.set_started();
            if guard.may_wait_anywhere(cx) {
                return Poll::Pending;
            }
        }
    }
}

/// Records how the body ended, and lets the group's wait go on.
fn end<T, E: GroupError>(
    guard: &mut Option<TaskGuard<E>>,
    result: Result<Result<T, E>, Payload>,
    dropped: Result<(), Payload>,
) -> Came<T, E> {
    let guard = guard.take().expect("errgroup: the body ends once");
    let came = guard.core().body_ended(result, dropped, guard.who());
    guard.release(Fate::Uncounted);
    came
}

impl<E: GroupError> Core<E> {
    /// Records how a body ended.
    pub(crate) fn body_ended<T>(
        &self,
        result: Result<Result<T, E>, Payload>,
        dropped: Result<(), Payload>,
        who: Owned,
    ) -> Came<T, E> {
        match (result, dropped) {
            (Ok(Ok(value)), Ok(())) => Came::To(value),
            (Ok(Err(error)), Ok(())) => self
                .body_failed(error, who)
                .map_or(Came::ToNothing, Came::ToError),
            (Err(payload), Ok(())) => {
                self.body_panicked(payload, who);
                Came::ToNothing
            }
            (result, Err(payload)) => {
                discard(result);
                self.body_panicked(payload, who);
                Came::ToNothing
            }
        }
    }

    /// What becomes of it all once all tasks have ended. Resumes a panic.
    pub(crate) fn settle_body<T>(&self, came: Came<T, E>) -> Result<T, E> {
        match catch(|| self.settle()) {
            Ok(Ok(())) => match came {
                Came::To(value) => Ok(value),
                Came::ToError(error) => Err(error),
                Came::NotYet | Came::ToNothing => Err(E::from(self.end_error())),
            },
            Ok(Err(error)) => {
                discard(came);
                Err(error)
            }
            Err(payload) => {
                // Not while the panic unwinds.
                discard(came);
                resume_unwind(payload)
            }
        }
    }
}

impl<F, Fut, T, E> Future for Body<F, Fut, T, E>
where
    F: FnOnce(Spawner<E>) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: GroupError,
{
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        if let Came::NotYet = self.result {
            let came = ready!(self.as_mut().poll_body(cx));
            *self.as_mut().project().result = came;
        }
        let this = self.project();
        let core = &this.group.core;
        ready!(core.poll_finished(cx));
        let came = std::mem::replace(this.result, Came::ToNothing);
        Poll::Ready(core.settle_body(came))
    }
}
