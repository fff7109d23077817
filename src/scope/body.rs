//! `Body`: what makes the tasks of a scope, and is one of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use pin_project_lite::pin_project;

use super::child::Spec;
use crate::error::GroupError;
use crate::group::{Came, Core, Fate};
use crate::panic::{Payload, catch, poll_catching};

pin_project! {
    pub(super) struct Body<F, S, Fut, E>
    where
        E: GroupError,
    {
        #[pin]
        code: Code<F, S, Fut>,
        core: Arc<Core<E>>,
        spec: Spec,
    }

    impl<F, S, Fut, E> PinnedDrop for Body<F, S, Fut, E>
    where
        E: GroupError,
    {
        fn drop(this: Pin<&mut Self>) {
            if !matches!(this.code, Code::Over) {
                this.stop();
            }
        }
    }
}

pin_project! {
    #[project = CodeProjection]
    enum Code<F, S, Fut> {
        // The function, and the handle of the scope that it is to be given.
        New { f: Option<(F, S)> },
        Running { #[pin] future: Fut },
        Over,
    }
}

impl<F, S, Fut, E: GroupError> Body<F, S, Fut, E> {
    pub(super) fn new(f: F, scope: S, core: Arc<Core<E>>, spec: Spec) -> Self {
        Self {
            code: Code::New {
                f: Some((f, scope)),
            },
            core,
            spec,
        }
    }

    /// Cut short by the end of the context.
    fn stop(self: Pin<&mut Self>) {
        let mut this = self.project();
        match catch(|| this.code.set(Code::Over)) {
            Ok(()) => this.core.registry.record(Fate::CutShort),
            Err(payload) => this.core.body_panicked(payload, this.spec.who(this.core)),
        }
    }

    fn end<T>(self: Pin<&mut Self>, result: Result<Result<T, E>, Payload>) -> Came<T, E> {
        let mut this = self.project();
        let dropped = catch(|| this.code.set(Code::Over));
        let who = this.spec.who(this.core);
        this.core.body_ended(result, dropped, who)
    }
}

impl<F, S, Fut, T, E> Future for Body<F, S, Fut, E>
where
    F: FnOnce(S) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: GroupError,
{
    type Output = Came<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Came<T, E>> {
        if self.core.context.is_done() {
            self.stop();
            return Poll::Ready(Came::ToNothing);
        }
        let mut this = self.as_mut().project();
        if let CodeProjection::New { f } = this.code.as_mut().project() {
            let (f, scope) = f.take().expect("errgroup: the body starts once");
            match catch(|| f(scope)) {
                Ok(future) => this.code.set(Code::Running { future }),
                Err(payload) => return Poll::Ready(self.end(Err(payload))),
            }
        }
        let this = self.as_mut().project();
        let CodeProjection::Running { future } = this.code.project() else {
            panic!("errgroup: the body is not polled after its end");
        };
        match poll_catching(future, cx) {
            Poll::Ready(result) => Poll::Ready(self.end(result)),
            Poll::Pending => Poll::Pending,
        }
    }
}
