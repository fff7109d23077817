//! `Snapshot`: what stands below a context or a group at one moment, and its drawings.
//!
//! On top of everything else: nobody in the crate knows it. `collect` walks the tree and asks the groups, `data` is what it
//! brings home, `plan` chooses what people are shown of it, `label` puts each line into words, `text`, `dot` and `mermaid`
//! draw.

mod batch;
mod collect;
mod data;
mod dot;
#[cfg(feature = "serde")]
mod format;
mod label;
mod mermaid;
mod plan;
mod scope;
mod text;

use std::fmt;

pub use self::batch::BatchSnapshot;
pub use self::data::{
    ContextSnapshot, EndSnapshot, EndedTasks, GroupSnapshot, Place, TaskKind, TaskSnapshot,
    TaskState,
};

pub use self::scope::ScopeSnapshot;
use crate::context::Context;
use crate::group::{Group, Spawner};

/// Shows what stands below a context or a group: contexts, groups, tasks, batches, scopes, and what each of them is doing.
/// The value of [`Context::tree`], [`Group::snapshot`] and [`dump_all`].
///
/// It is owned data, taken piece by piece while everything goes on: what came or went meanwhile may be in it or not, and two
/// counts in it may be of different moments. Taking it stops nobody, waits for no poll and runs no code of yours, except
/// for the destructor of what happens to be dropped by its last other owner meanwhile.
///
/// `Display` draws a tree for people: with lines of Unicode, with `{:#}` in ASCII. Of many siblings it shows twenty,
/// stragglers first, then the oldest, and counts the rest. [`items`](Snapshot::items) has all of them, and so has what the
/// feature `serde` writes: a `format_version` (1) and the list of items.
///
/// # What it shows
///
/// - Contexts that are live, with their deadlines. One that has ended is shown if a task below it is still there.
/// - Groups, with their limits and the reason of their end. A group that has ended is shown while it has tasks.
/// - Batches, with how many items they have in hand, which of them wait, and what their source is doing. The workers beside the
///   caller's task are tasks of a group below.
/// - Scopes, with how many tasks they have.
/// - Tasks, with what they are doing, and, once their context has ended, [why they are still there](crate::Diagnosis).
///
/// # What it costs
///
/// A task's count of polls takes four bytes for each task that is live at once; the first eight are part of the group.
/// Counting takes a load and a store where a poll begins, and again where it has to wait. No poll reads a clock. The
/// items of a batch and the tasks of a scope cost nothing for this: they are counted where the batch and the scope rest.
///
/// # Comparison to its peers
///
/// tokio-console shows the tasks of a runtime built with `tokio_unstable`, and knows no contexts. Go's
/// `/debug/pprof/goroutine` shows stacks, and not what was cancelled.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// use errgroup::{BoxError, Diagnosis, Group};
/// use std::time::Duration;
///
/// let group: Group = Group::builder().name("api").build();
/// group.task("deaf").spawn_with(async |_ctx| {
///     std::future::pending::<()>().await;
///     Ok(())
/// });
/// tokio::time::sleep(Duration::from_secs(1)).await;
/// group.cancel();
/// tokio::time::sleep(Duration::from_secs(1)).await;
///
/// let snapshot = group.snapshot();
/// let deaf = snapshot.stragglers().next().expect("it does not listen");
/// assert_eq!(deaf.name(), Some("deaf"));
/// assert_eq!(deaf.diagnosis(), Some(Diagnosis::NotPolledSince));
/// assert!(snapshot.to_string().contains("IGNORES CANCEL (not polled since)"));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Parents before children, depth first.
    items: Vec<Item>,
}

/// One line of a [`Snapshot`]: a context, a group, a task, a batch or a scope, and where it belongs.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Item {
    parent: Option<usize>,
    what: What,
}

/// What an [`Item`] is.
// Each is named as what it holds: a `What::Group` would have the compiler write `errgroup::Group` in all that it says of groups.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum What {
    /// A context that is not a group's, a batch's or a scope's.
    #[cfg_attr(feature = "serde", serde(rename = "context"))]
    ContextSnapshot(ContextSnapshot),
    /// A group, and its context.
    #[cfg_attr(feature = "serde", serde(rename = "group"))]
    GroupSnapshot(Box<GroupSnapshot>),
    /// A task of the group that is its parent.
    #[cfg_attr(feature = "serde", serde(rename = "task"))]
    TaskSnapshot(TaskSnapshot),
    /// A batch, and its context.
    #[cfg_attr(feature = "serde", serde(rename = "batch"))]
    BatchSnapshot(Box<BatchSnapshot>),
    /// A scope, and its context.
    #[cfg_attr(feature = "serde", serde(rename = "scope"))]
    ScopeSnapshot(Box<ScopeSnapshot>),
}

impl Snapshot {
    /// Returns all there is: parents before their children, depth first; below a group first its tasks, oldest first, then
    /// groups, batches and scopes, then contexts.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Returns the contexts that are not groups', batches' or scopes'.
    pub fn contexts(&self) -> impl Iterator<Item = &ContextSnapshot> {
        self.items.iter().filter_map(|item| match &item.what {
            What::ContextSnapshot(context) => Some(context),
            _ => None,
        })
    }

    /// Returns the groups.
    pub fn groups(&self) -> impl Iterator<Item = &GroupSnapshot> {
        self.items.iter().filter_map(|item| match &item.what {
            What::GroupSnapshot(group) => Some(&**group),
            _ => None,
        })
    }

    /// Returns the tasks.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskSnapshot> {
        self.items.iter().filter_map(|item| match &item.what {
            What::TaskSnapshot(task) => Some(task),
            _ => None,
        })
    }

    /// Returns the batches.
    pub fn batches(&self) -> impl Iterator<Item = &BatchSnapshot> {
        self.items.iter().filter_map(|item| match &item.what {
            What::BatchSnapshot(batch) => Some(&**batch),
            _ => None,
        })
    }

    /// Returns the scopes.
    pub fn scopes(&self) -> impl Iterator<Item = &ScopeSnapshot> {
        self.items.iter().filter_map(|item| match &item.what {
            What::ScopeSnapshot(scope) => Some(&**scope),
            _ => None,
        })
    }

    /// Returns the tasks that have outlived the end of their context.
    pub fn stragglers(&self) -> impl Iterator<Item = &TaskSnapshot> {
        self.tasks().filter(|task| task.is_straggler())
    }

    /// Draws the snapshot for Graphviz: `dot -Tsvg`. Cut for people, as `Display` is.
    pub fn to_dot(&self) -> String {
        dot::draw(self)
    }

    /// Draws the snapshot as a Mermaid flowchart. Cut for people, as `Display` is.
    pub fn to_mermaid(&self) -> String {
        mermaid::draw(self)
    }
}

impl Item {
    /// Returns the place of its parent in [`Snapshot::items`]; `None` for the first.
    pub fn parent(&self) -> Option<usize> {
        self.parent
    }

    /// Returns what it is.
    pub fn what(&self) -> &What {
        &self.what
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::draw(self, f)
    }
}

impl Context {
    /// Returns a [`Snapshot`] of what stands below this context. Of a root, such as [`background`](Context::background), it
    /// is [`dump_all`].
    pub fn tree(&self) -> Snapshot {
        match self.node() {
            Some(node) => collect::below(node),
            None => dump_all(),
        }
    }
}

impl<E> Group<E> {
    /// Returns a [`Snapshot`] of the group, its tasks, and what stands below its context.
    pub fn snapshot(&self) -> Snapshot {
        self.context().tree()
    }
}

impl<E> Spawner<E> {
    /// Returns a [`Snapshot`] of the group, as [`Group::snapshot`].
    pub fn snapshot(&self) -> Snapshot {
        self.context().tree()
    }
}

/// Returns a [`Snapshot`] of all groups, batches and scopes of the process, and of the contexts below them.
///
/// A context is found from a group above it, so a request's context takes part in no list of the process. A group with no group
/// above does. One whose context is being ended by another thread at this very moment may be missing; from the first waker and
/// the first callback of that end on it is there.
pub fn dump_all() -> Snapshot {
    collect::all()
}
