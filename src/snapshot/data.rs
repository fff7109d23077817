//! What a snapshot is made of: contexts, groups, tasks. Owned data, which keeps nothing of what it shows alive but the
//! causes of ends.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

use crate::error::{ContextError, Reason, text_of};
use crate::group::Diagnosis;
use crate::task::TaskId;

/// A place in a source file. Displays as `src/main.rs:40`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Place {
    file: Cow<'static, str>,
    line: u32,
    column: u32,
}

/// How a context ended.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct EndSnapshot {
    pub(super) reason: Reason,
    pub(super) ago: Option<Duration>,
    pub(super) text: Text,
}

/// A text that is made when it is first needed: that of a cause is foreign code.
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(from = "String", into = "String"))]
pub(super) enum Text {
    Of(ContextError),
    #[cfg(feature = "serde")]
    Read(String),
}

/// A context in a [`Snapshot`](crate::Snapshot), other than that of a group.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ContextSnapshot {
    pub(super) place: Option<Place>,
    pub(super) remaining: Option<Duration>,
    pub(super) end: Option<EndSnapshot>,
}

/// A group in a [`Snapshot`](crate::Snapshot), with its context.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GroupSnapshot {
    pub(super) id: u64,
    pub(super) name: Option<Cow<'static, str>>,
    pub(super) place: Place,
    pub(super) age: Duration,
    pub(super) remaining: Option<Duration>,
    pub(super) end: Option<EndSnapshot>,
    pub(super) is_isolated: bool,
    pub(super) limit: Option<usize>,
    pub(super) live: usize,
    pub(super) ended: EndedTasks,
    pub(super) queued: usize,
    pub(super) slots_held: usize,
    pub(super) waits_for_slots: Vec<Place>,
    pub(super) stalled: Option<Duration>,
}

/// How many tasks of a group have ended, and how, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct EndedTasks {
    /// They returned a value.
    pub completed: usize,
    /// They returned an error of their own.
    pub failed: usize,
    /// They panicked.
    pub panicked: usize,
    /// The end of the context, another's failure or their runtime's end cut them short.
    pub cut_short: usize,
    /// They were aborted.
    pub aborted: usize,
    /// The context had ended before they were polled.
    pub never_started: usize,
}

/// A task in a [`Snapshot`](crate::Snapshot).
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TaskSnapshot {
    pub(super) id: u64,
    pub(super) name: Option<Cow<'static, str>>,
    pub(super) place: Place,
    pub(super) age: Duration,
    pub(super) kind: TaskKind,
    pub(super) state: TaskState,
    pub(super) polls: u32,
    pub(super) holds_slot: bool,
    pub(super) ended_ago: Option<Duration>,
    pub(super) diagnosis: Option<Diagnosis>,
}

/// Who stops a task when its context has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum TaskKind {
    /// The group: spawned with [`spawn`](crate::Group::spawn). The body of [`Group::run`](crate::Group::run) is one, too.
    Dropped,
    /// The same, on the thread where it was spawned: with [`spawn_local`](crate::Group::spawn_local).
    Local,
    /// The task itself, until it is aborted: spawned with [`spawn_with`](crate::Group::spawn_with).
    Cooperative,
    /// The task itself, on a thread: spawned with [`spawn_blocking`](crate::Group::spawn_blocking).
    Blocking,
}

/// What a task was doing when the snapshot came to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum TaskState {
    /// It waits for a slot of its group's limit.
    Queued,
    /// It may run, and has not been polled yet.
    NotPolled,
    /// It may run, and the runtime has no thread for it yet: a blocking task.
    WaitsForThread,
    /// It is inside a poll, or on its thread, and has been there for at least so long.
    Running(Duration),
    /// It waits between two polls. For at least so long, if that is known: of a task that was polled once, or whose polls were
    /// as many in an earlier snapshot.
    Waiting(Option<Duration>),
}

impl Place {
    /// Returns the path of the file, as the compiler was given it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Returns the line, from 1.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// Returns the column, from 1.
    pub fn column(&self) -> u32 {
        self.column
    }
}

impl From<&'static Location<'static>> for Place {
    fn from(location: &'static Location<'static>) -> Self {
        Self {
            file: Cow::Borrowed(location.file()),
            line: location.line(),
            column: location.column(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl EndSnapshot {
    /// Returns the kind of event that ended the context.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Returns how long ago it ended; `None` where nobody took the time: there was no task, and no deadline.
    pub fn ago(&self) -> Option<Duration> {
        self.ago
    }

    /// Returns why it ended, on one line, as [`ContextError`] tells it. The text of a cause is made in this call.
    pub fn text(&self) -> String {
        self.text.to_string()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Text::Of(error) => f.write_str(&text_of(error)),
            #[cfg(feature = "serde")]
            Text::Read(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(feature = "serde")]
impl From<String> for Text {
    fn from(text: String) -> Self {
        Text::Read(text)
    }
}

#[cfg(feature = "serde")]
impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.to_string()
    }
}

impl ContextSnapshot {
    /// Returns where it was derived; `None` for the root.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Returns the time left to its deadline, if it has one.
    pub fn remaining(&self) -> Option<Duration> {
        self.remaining
    }

    /// Returns how it ended; `None` while it is live.
    pub fn end(&self) -> Option<&EndSnapshot> {
        self.end.as_ref()
    }
}

impl GroupSnapshot {
    /// Returns its number. Groups, batches, scopes and tasks of the process are numbered together.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns its name, if it was given one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns where it was made.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Returns how old it is.
    pub fn age(&self) -> Duration {
        self.age
    }

    /// Returns the time left to its deadline, if it has one.
    pub fn remaining(&self) -> Option<Duration> {
        self.remaining
    }

    /// Returns how its context ended; `None` while it is live.
    pub fn end(&self) -> Option<&EndSnapshot> {
        self.end.as_ref()
    }

    /// Returns `true` if the failure of a task is its task's alone.
    pub fn is_isolated(&self) -> bool {
        self.is_isolated
    }

    /// Returns how many tasks may run at once; `None` without a limit.
    pub fn limit(&self) -> Option<usize> {
        self.limit
    }

    /// Returns how many tasks have not ended, those that are queued included.
    pub fn live(&self) -> usize {
        self.live
    }

    /// Returns how many tasks have ended, and how.
    pub fn ended(&self) -> EndedTasks {
        self.ended
    }

    /// Returns how many tasks wait for a slot of the limit.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Returns how many slots of the limit are taken: by the tasks that [hold one](TaskSnapshot::holds_slot), and by
    /// [`Slot`](crate::Slot)s that nothing was spawned through yet.
    pub fn slots_held(&self) -> usize {
        self.slots_held
    }

    /// Returns where [`slot`](crate::Group::slot) is being waited for.
    pub fn waits_for_slots(&self) -> &[Place] {
        &self.waits_for_slots
    }

    /// Returns for how long at least nobody has gone on: every slot of the limit is held by a task that waits, somebody is
    /// queued, and not one of the holders has been polled. `None` where that is not known to be so.
    ///
    /// Tasks that wait for the network look like this, too, for a while. If it lasts, the holders may wait for tasks that are
    /// queued behind them: then nobody ever goes on.
    pub fn stalled(&self) -> Option<Duration> {
        self.stalled
    }
}

impl TaskSnapshot {
    /// Returns its id.
    pub fn id(&self) -> TaskId {
        TaskId(self.id)
    }

    /// Returns its name, if it was given one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns where it was spawned.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Returns how old it is at least: since it first had to wait, or a snapshot first found it.
    pub fn age(&self) -> Duration {
        self.age
    }

    /// Returns who stops it.
    pub fn kind(&self) -> TaskKind {
        self.kind
    }

    /// Returns what it was doing.
    pub fn state(&self) -> TaskState {
        self.state
    }

    /// Returns how often it was polled, the poll that it is in included; modulo 2³¹.
    pub fn polls(&self) -> u32 {
        self.polls
    }

    /// Returns `true` if it has a slot of its group's limit.
    pub fn holds_slot(&self) -> bool {
        self.holds_slot
    }

    /// Returns how long it has outlived the end of its context; `None` while that is live.
    pub fn ended_ago(&self) -> Option<Duration> {
        self.ended_ago
    }

    /// Returns why it has outlived the end of its context; `None` while that is live, and where it is too early to say.
    pub fn diagnosis(&self) -> Option<Diagnosis> {
        self.diagnosis
    }

    /// Returns `true` if it has outlived the end of its context.
    pub fn is_straggler(&self) -> bool {
        self.ended_ago.is_some()
    }
}
