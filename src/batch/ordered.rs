//! `Ordered`: the stream of `map_stream`.

use std::future::Future;
use std::marker::PhantomData;
use std::task::{Context as TaskContext, Poll};

use futures::Stream;

use super::Shared;
use super::lane::Lane;
use super::sink::Window;
use super::source::Staff;
use crate::context::Context;
use crate::error::GroupError;
use crate::group::{Spawner, WaitOwned};

pub(super) struct Ordered<S: Stream, F, Fut, T, E: GroupError> {
    work: Shared<S, F, Window<T>>,
    spawner: Spawner<E>,
    progress: Progress<E>,
    f: PhantomData<fn() -> Fut>,
}

enum Progress<E: GroupError> {
    Running(WaitOwned<E>),
    /// The lanes have ended. What they left in order comes before their error.
    Ended(Option<E>),
}

impl<S, F, Fut, T, E> Ordered<S, F, Fut, T, E>
where
    S: Stream<Item: Send + 'static> + Unpin + Send + 'static,
    F: Fn(Context, S::Item) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: GroupError,
{
    pub(super) fn new(
        work: Shared<S, F, Window<T>>,
        spawner: Spawner<E>,
        wait: WaitOwned<E>,
    ) -> Self {
        Self {
            work,
            spawner,
            progress: Progress::Running(wait),
            f: PhantomData,
        }
    }

    pub(super) fn poll_next(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Result<T, E>>> {
        if let Progress::Running(wait) = &mut self.progress {
            if let Poll::Ready(value) = self.work.sink.poll_take(cx) {
                self.give_room();
                return Poll::Ready(Some(Ok(value)));
            }
            let Poll::Ready(result) = wait.poll_work(|| self.work.is_complete(), cx) else {
                return Poll::Pending;
            };
            self.progress = Progress::Ended(result.err());
            self.work.source.clear();
        }
        let value = self.work.sink.take();
        Poll::Ready(value.map(Ok).or_else(|| self.take_error()))
    }

    fn give_room(&self) {
        if self.work.source.give_room() == Staff::OneMore {
            Lane::start(self.work.clone(), &self.spawner);
        }
    }

    fn take_error(&mut self) -> Option<Result<T, E>> {
        match &mut self.progress {
            Progress::Running(_) => None,
            Progress::Ended(error) => {
                let error = error.take()?;
                // What is not in order has nobody to take it.
                self.work.sink.clear();
                Some(Err(error))
            }
        }
    }
}
