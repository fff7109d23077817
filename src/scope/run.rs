//! `Run`: the future of [`scope`](super::scope()): its body and its tasks, polled in turns in the caller's task.
//!
//! In steps, as one poll:
//!
//! 1. If the context has ended, all that is left is dropped; each task sees to its own panic.
//! 2. Those that were woken are polled, until one ends; then from 1.
//! 3. If nobody can go on, what was spawned goes to the others; then from 1.
//! 4. If nothing was spawned, the wakers are left: with the context, and with the queue.
//!
//! Nothing else than this polls or drops a task: a body that borrows, and tasks that do, need no other guarantee than that this
//! future does. Forgotten, it takes them along, and all that they borrow stays borrowed.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use futures::stream::{FuturesUnordered, Stream};

use super::Shared;
use super::body::Body;
use super::child::Spec;
use super::queue::{KEPT, Queue};
use crate::context::{Context, DoneOwned};
use crate::error::{ContextError, GroupError, Reason};
use crate::group::{Came, EndedBy, Group};
use crate::panic::discard;
use crate::task::TaskId;

/// So often in one poll a task ends, or new ones are taken; then others of the executor have their turn. (Between two of these,
/// `FuturesUnordered` itself sees to that.)
const TURNS_PER_POLL: usize = 64;

pub(super) struct Run<F, S, Fut, C, T, E: GroupError> {
    members: FuturesUnordered<Member<Body<F, S, Fut, E>, C>>,
    shared: Arc<Shared<C, E>>,
    /// Empty between two polls; room to move what was spawned.
    spawned: Vec<C>,
    /// `None` once it has been told.
    came: Option<Came<T, E>>,
    /// Wakes the scope's task at the end.
    done: DoneOwned,
    location: &'static Location<'static>,
    // The last: dropped when no task is left, it hands the groups over whose owners were dropped in a task.
    group: Group<E>,
}

/// The body is moved to where it stays, and the tasks are as small as they can be.
enum Member<B, C> {
    Body(Pin<Box<B>>),
    Child(C),
}

impl<B, C> Future for Member<B, C>
where
    B: Future,
    C: Future<Output = ()> + Unpin,
{
    /// What the body came to.
    type Output = Option<B::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Member::Body(body) => body.as_mut().poll(cx).map(Some),
            Member::Child(child) => Pin::new(child).poll(cx).map(|()| None),
        }
    }
}

// Nothing in it is pinned in its place.
impl<F, S, Fut, C, T, E: GroupError> Unpin for Run<F, S, Fut, C, T, E> {}

impl<F, S, Fut, C, T, E: GroupError> Run<F, S, Fut, C, T, E> {
    pub(super) fn new(
        parent: &Context,
        body: F,
        scope: impl FnOnce(Arc<Shared<C, E>>) -> S,
        location: &'static Location<'static>,
    ) -> Self {
        let group = Group::at(location, parent, None, None);
        let shared = Arc::new(Shared::new(group.core().clone()));
        let spec = Spec {
            name: None,
            id: TaskId::next(),
            location,
        };
        let body = Body::new(body, scope(shared.clone()), group.core().clone(), spec);
        let members = FuturesUnordered::new();
        members.push(Member::Body(Box::pin(body)));
        group.core().scope.add(1);
        group.core().scope.set_live(1);
        Self {
            members,
            spawned: Vec::new(),
            came: Some(Came::NotYet),
            done: group.context().done_owned(),
            location,
            shared,
            group,
        }
    }

    /// Runs the members; ready when all have ended, and those of groups that were dropped in one of them.
    fn poll_members(&mut self, cx: &mut TaskContext<'_>) -> Poll<()>
    where
        F: FnOnce(S) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Future<Output = ()> + Unpin,
    {
        let (core, queue) = (self.group.core(), &self.shared.queue);
        queue.begin();
        for _ in 0..TURNS_PER_POLL {
            let has_ended = core.context.is_done();
            if has_ended {
                clear(&mut self.members, queue);
            }
            let polled = Pin::new(&mut self.members).poll_next(cx);
            if let Poll::Ready(Some(ended)) = polled {
                if let Some(came) = ended {
                    self.came = Some(came);
                }
                continue;
            }
            core.scope.set_live(self.members.len());
            // Without a member it may have to wait for the tasks of groups that were dropped in one.
            let is_over = polled.is_ready() && queue.is_empty();
            if is_over && core.poll_finished(cx).is_ready() {
                return Poll::Ready(());
            }
            let ends = !has_ended && Pin::new(&mut self.done).poll(cx).is_ready();
            if !ends && queue.rest(cx.waker()) {
                return Poll::Pending;
            }
            queue.take(&mut self.spawned);
            core.scope.add(self.spawned.len());
            let spawned = self.spawned.drain(..);
            self.members.extend(spawned.map(Member::Child));
            core.scope.set_live(self.members.len());
            if self.spawned.capacity() > KEPT {
                self.spawned = Vec::new();
            }
        }
        core.scope.set_live(self.members.len());
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Drops all that is left. The context has ended.
fn clear<M, C>(members: &mut FuturesUnordered<M>, queue: &Queue<C>) {
    if !members.is_empty() {
        drop(std::mem::take(members));
    }
    // What another thread has spawned a moment before the end.
    let mut spawned = Vec::new();
    queue.take(&mut spawned);
    drop(spawned);
}

impl<F, S, Fut, C, T, E> Future for Run<F, S, Fut, C, T, E>
where
    F: FnOnce(S) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    C: Future<Output = ()> + Unpin,
    E: GroupError,
{
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        assert!(
            this.came.is_some(),
            "errgroup: the future of a scope is not polled after it was ready"
        );
        ready!(this.poll_members(cx));
        let core = this.group.core();
        drop(this.shared.queue.close());
        let came = this.came.take().unwrap_or(Came::ToNothing);
        Poll::Ready(core.settle_body(came))
    }
}

impl<F, S, Fut, C, T, E: GroupError> Drop for Run<F, S, Fut, C, T, E> {
    fn drop(&mut self) {
        let location = self.location;
        self.group.core().end(EndedBy::Owner, || {
            ContextError::at(Reason::GroupDropped, location, None)
        });
        drop(std::mem::take(&mut self.members));
        self.group.core().scope.set_live(0);
        drop(self.shared.queue.close());
        discard(self.came.take());
    }
}
