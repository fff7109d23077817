//! `Work`: what the workers of a batch share: the queue, the user's function, the results, and the first failure.

use std::future::Future;
use std::panic::Location;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use super::queue::Queue;
use super::results::{Sink, Verdict};
use crate::context::{Context, Node};
use crate::error::{ContextError, GroupError, GroupId, Reason, Who, text_of};
use crate::group::Spawner;
use crate::panic::{Contained, Payload, catch, discard};
use crate::sync::Mutex;
use crate::task::TaskId;

/// The user's code, and the types in it.
pub(super) trait Job: Send + Sync + 'static {
    type Item: Send + 'static;
    type Future: Future<Output = Result<Self::Value, Self::Error>> + Send + 'static;
    type Value: Send + 'static;
    type Error: GroupError;
    type Sink: Sink<Self::Value>;

    fn start(&self, ctx: Context, item: Self::Item) -> Self::Future;
}

pub(super) type ItemQueue<J> = Queue<<J as Job>::Item, <J as Job>::Future>;

pub(super) struct Work<J: Job> {
    pub(super) queue: Arc<ItemQueue<J>>,
    pub(super) job: Contained<J>,
    pub(super) sink: J::Sink,
    /// The batch's own. The batch ends it.
    pub(super) ctx: Context,
    /// There is a context above it.
    pub(super) is_child: bool,
    pub(super) location: &'static Location<'static>,
    /// Set when the first task is started.
    pub(super) spawner: OnceLock<Spawner<J::Error>>,
    /// The first error, unless there was a panic: then the first of those.
    failure: Mutex<Option<Failure<J::Error>>>,
    /// The queue has been emptied for good.
    pub(super) is_finished: AtomicBool,
}

pub(super) enum Failure<E> {
    Error(E),
    Panic(Payload),
}

impl<J: Job> Work<J> {
    pub(super) fn new(
        queue: Arc<ItemQueue<J>>,
        job: J,
        sink: J::Sink,
        parent: &Context,
        location: &'static Location<'static>,
    ) -> Arc<Self> {
        let node = queue.derive(parent.node(), location);
        Arc::new(Self {
            queue,
            job: Contained::new(job),
            sink,
            ctx: parent.with_node(node),
            is_child: parent.node().is_some(),
            location,
            spawner: OnceLock::new(),
            failure: Mutex::default(),
            is_finished: AtomicBool::new(false),
        })
    }

    pub(super) fn below(&self) -> Context {
        let node = Node::derive(Some(self.node()), 0, self.location);
        self.ctx.with_node(node)
    }

    pub(super) fn node(&self) -> &Arc<Node> {
        let node = self.ctx.node();
        node.expect("errgroup: a batch's context is derived, so it has a node")
    }

    /// Records an error, then ends the context for it.
    pub(super) fn failed(&self, error: J::Error) {
        let text = text_of(&error);
        self.record(Failure::Error(error), Reason::TaskFailed, text);
    }

    /// Records a panic, then ends the context for it.
    pub(super) fn panicked(&self, payload: Payload) {
        let text = crate::panic::message(&payload).to_owned();
        self.record(Failure::Panic(payload), Reason::TaskPanicked, text);
    }

    fn record(&self, failure: Failure<J::Error>, reason: Reason, text: String) {
        let mut first = self.failure.lock();
        let is_first = matches!(
            (&*first, &failure),
            (None, _) | (Some(Failure::Error(_)), Failure::Panic(_))
        );
        let unused = match is_first {
            true => first.replace(failure),
            false => Some(failure),
        };
        drop(first);
        if let Some(unused) = unused {
            discard(unused);
        }
        // No sibling sees the end before the failure is there, so none can come before it.
        let id = TaskId::next();
        let who = Who {
            name: self.queue.name.as_deref(),
            id,
            location: self.location,
            // Nobody passes it on within a group of this id: there are no handles.
            group: GroupId(id.0),
        };
        self.node()
            .end(|| ContextError::end_by_task(reason, who, text));
    }

    /// The batch has its result: cuts the rest short.
    pub(super) fn decide(&self, verdict: Verdict) {
        if verdict == Verdict::Decided {
            self.node().end(|| {
                let cause = "the batch has its result".into();
                ContextError::at(Reason::GroupCancelled, self.location, Some(cause))
            });
        }
    }

    /// Tells the sink how many items there are at most: those that were pulled, and the rest if anybody knows.
    #[inline]
    pub(super) fn count_items(&self, pulled: usize, rest: Option<usize>) {
        if let Some(most) = rest.and_then(|rest| pulled.checked_add(rest)) {
            self.decide(self.sink.count_items(most));
        }
    }

    pub(super) fn take_failure(&self) -> Option<Failure<J::Error>> {
        self.failure.lock().take()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.lock().is_some()
    }

    /// Drops what was cut short. A destructor that panics is as good as an item that does.
    pub(super) fn drop_each<V>(&self, values: impl IntoIterator<Item = V>) {
        for value in values {
            if let Err(payload) = catch(|| drop(value)) {
                self.panicked(payload);
            }
        }
    }

    /// Ends the work, done or not, and drops the items that no worker has in hand.
    pub(super) fn close(&self) {
        let (unstarted, started) = self.queue.close();
        self.drop_each(unstarted);
        self.drop_each(started);
    }
}

impl<J: Job> Drop for Work<J> {
    fn drop(&mut self) {
        if !*self.is_finished.get_mut() {
            self.close();
            discard(self.queue.take_source());
            discard(self.take_failure());
        }
    }
}
