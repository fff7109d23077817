//! `Service`: a child's function, whatever its type. `Life`: one run of it, an incarnation of the child, the future of a task.
//!
//! The function is called in the task, so that its panic is the child's. When the incarnation is over, its future has been
//! dropped, then the supervisor is told: so the next one never runs beside what is left of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use pin_project_lite::pin_project;

use super::entry::{ChildId, Spec};
use super::ready::{Listen, Ready};
use super::shared::{Message, Shared};
use crate::context::Context;
use crate::error::{ContextError, GroupError};
use crate::group::{Group, Kind, Request, SlotRequest, Spec as TaskSpec, passes_on};
use crate::panic::{Payload, catch, contain, discard, message, poll_catching};
use crate::task::Task;

/// Starts incarnations.
pub(super) trait Service<E>: Send + Sync {
    fn start(self: Arc<Self>, group: &Group<ContextError>, spec: &Spec, post: Post<E>) -> Task<()>;
}

/// What an incarnation came to.
pub(super) enum Outcome<E> {
    /// It returned `Ok`, or passed on the end of its context.
    Finished,
    Error(E),
    Panic(String),
    Aborted,
}

/// How an incarnation tells its end.
pub(super) struct Post<E> {
    pub(super) shared: Arc<Shared<E>>,
    pub(super) id: ChildId,
    pub(super) generation: u64,
    pub(super) ctx: Context,
}

/// The function of a child.
pub(super) struct Function<F>(pub(super) F);

impl<E, F, Fut> Service<E> for Function<F>
where
    E: GroupError,
    F: Fn(&Post<E>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
{
    fn start(self: Arc<Self>, group: &Group<ContextError>, spec: &Spec, post: Post<E>) -> Task<()> {
        let task = TaskSpec {
            name: Some(spec.name.clone()),
            location: spec.location,
            slot: SlotRequest::Queue,
        };
        let life = Life {
            code: Code::New {
                function: Some(self),
            },
            post: Some(post),
        };
        Request::with_spec(group.core(), task).spawn_kind(Kind::Cooperative, life)
    }
}

pin_project! {
    struct Life<F, Fut, E>
    where
        E: GroupError,
    {
        #[pin]
        code: Code<F, Fut>,
        // `None` once the end has been told.
        post: Option<Post<E>>,
    }

    impl<F, Fut, E> PinnedDrop for Life<F, Fut, E>
    where
        E: GroupError,
    {
        // Aborted, or gone with its runtime.
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(post) = this.post.take() {
                contain(|| this.code.set(Code::Over));
                post.ended(Outcome::Aborted);
            }
        }
    }
}

pin_project! {
    #[project = CodeProjection]
    enum Code<F, Fut> {
        New { function: Option<Arc<Function<F>>> },
        Running { #[pin] future: Fut },
        Over,
    }
}

impl<F, Fut> Code<F, Fut> {
    fn poll<E>(
        mut self: Pin<&mut Self>,
        post: &Post<E>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<Fut::Output, Payload>>
    where
        F: Fn(&Post<E>) -> Fut,
        Fut: Future,
    {
        if let CodeProjection::New { function } = self.as_mut().project() {
            let function = function.take().expect("errgroup: called once");
            // It may be the last that keeps what the child captured: that is dropped in here, too.
            match catch(move || (function.0)(post)) {
                Ok(future) => self.set(Code::Running { future }),
                Err(payload) => return Poll::Ready(Err(payload)),
            }
        }
        let CodeProjection::Running { future } = self.project() else {
            panic!("errgroup: a child is not polled after its end");
        };
        poll_catching(future, cx)
    }
}

impl<F, Fut, E> Future for Life<F, Fut, E>
where
    F: Fn(&Post<E>) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: GroupError,
{
    type Output = Result<(), ContextError>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let post = this.post.as_ref().expect("errgroup: a child ends once");
        let result = ready!(this.code.as_mut().poll(post, cx));
        let dropped = catch(|| this.code.set(Code::Over));
        if let Some(post) = this.post.take() {
            let outcome = post.outcome(result, dropped);
            post.ended(outcome);
        }
        Poll::Ready(Ok(()))
    }
}

impl<E: Send + 'static> Post<E> {
    pub(super) fn ready(&self) -> Ready {
        Ready {
            listener: self.shared.clone() as Arc<dyn Listen>,
            id: self.id,
            generation: self.generation,
            is_told: false,
        }
    }
}

impl<E> Post<E> {
    fn ended(self, outcome: Outcome<E>) {
        let Self { id, generation, .. } = self;
        self.shared.send(Message::Ended {
            id,
            generation,
            outcome,
        });
    }
}

impl<E: GroupError> Post<E> {
    fn outcome(
        &self,
        result: Result<Result<(), E>, Payload>,
        dropped: Result<(), Payload>,
    ) -> Outcome<E> {
        match (result, dropped) {
            (Ok(Ok(())), Ok(())) => Outcome::Finished,
            (Ok(Err(error)), Ok(())) => match self.passes_on_end(&error) {
                true => {
                    discard(error);
                    Outcome::Finished
                }
                false => Outcome::Error(error),
            },
            (Err(payload), dropped) => {
                discard(dropped);
                panicked(payload)
            }
            (result, Err(payload)) => {
                discard(result);
                panicked(payload)
            }
        }
    }

    /// Whether the child says no more than that it was told to stop.
    fn passes_on_end(&self, error: &E) -> bool {
        let ends = [self.ctx.err(), self.ctx.stopping().err()];
        ends.iter().flatten().any(|end| passes_on(error, end))
    }
}

fn panicked<E>(payload: Payload) -> Outcome<E> {
    let text = message(&payload).to_owned();
    discard(payload);
    Outcome::Panic(text)
}
