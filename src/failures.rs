//! `Failures`: errors where no single one decides, with where each came from. `Failed`: one of them.
//!
//! Made by a race of a batch ([`first_ok`](crate::Batch::first_ok), [`quorum`](crate::Batch::quorum)), and by a group from
//! what it has kept.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Write};
use std::panic::Location;
use std::sync::Arc;

use crate::error::ContextError;
use crate::panic::discard;
use crate::task::TaskId;

/// So many are listed; of the others there is a number.
const MAX_LINES: usize = 10;

/// The errors of several items or tasks, and why there are not more of them.
///
/// [`Display`](fmt::Display) has a line for each of the first ten, and says how many more there are. Above them stands
/// what is to be known beside them: the end of the context that cut the rest short, or how many successes were missing.
///
/// As an [`Error`] it has no [`source`](Error::source), since it has many: [`iter`](Failures::iter) shows them,
/// [`into_errors`](Failures::into_errors) takes them out.
///
/// Python's `ExceptionGroup` and Java's suppressed exceptions are its peers: they hold the errors, this also tells which
/// item or task each is of, and where that stands in the source.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let result = errgroup::batch(["8o", "9o"], 2)
///     .first_ok(|_ctx, port: &str| async move { port.parse::<u16>() })
///     .await;
/// let failures = result.unwrap_err();
/// assert_eq!(failures.len(), 2);
/// let text = failures.to_string();
/// assert!(text.starts_with("item 0 failed: invalid digit found in string (batch at "));
/// assert_eq!(failures.into_errors().len(), 2);
/// # }
/// ```
pub struct Failures<E> {
    failures: Vec<Failed<E>>,
    /// How many were not kept.
    forgotten: usize,
    ended: Option<ContextError>,
    shortage: Option<Shortage>,
}

/// One of the errors of [`Failures`], and which item or task failed with it.
///
/// It differs from a [`Failure`](crate::Failure) in that it is never a panic, and may be an item's.
///
/// `Display` is a line.
pub struct Failed<E> {
    origin: Origin,
    /// The task's, or the batch's.
    name: Option<Arc<Cow<'static, str>>>,
    location: &'static Location<'static>,
    error: E,
}

enum Origin {
    Item(usize),
    Task(TaskId),
}

/// How many successes a race has needed, and what it could get.
pub(crate) struct Shortage {
    pub(crate) needed: usize,
    pub(crate) succeeded: usize,
    /// The most items that there could be, if anybody knows.
    pub(crate) items: Option<usize>,
}

impl<E> Failed<E> {
    /// The failure of an item of a batch: which, counted from 0, the batch's name, and where that was made.
    pub(crate) fn item(
        index: usize,
        name: Option<Arc<Cow<'static, str>>>,
        location: &'static Location<'static>,
        error: E,
    ) -> Self {
        Self {
            origin: Origin::Item(index),
            name,
            location,
            error,
        }
    }

    /// The failure of a task of a group: its name and id, and where it was spawned.
    pub(crate) fn task(
        name: Option<Arc<Cow<'static, str>>>,
        id: TaskId,
        location: &'static Location<'static>,
        error: E,
    ) -> Self {
        Self {
            origin: Origin::Task(id),
            name,
            location,
            error,
        }
    }

    /// Returns which item of the batch it was, counted from 0; `None` for a task.
    pub fn index(&self) -> Option<usize> {
        match self.origin {
            Origin::Item(index) => Some(index),
            Origin::Task(_) => None,
        }
    }

    /// Returns the task's id; `None` for an item of a batch.
    pub fn id(&self) -> Option<TaskId> {
        match self.origin {
            Origin::Item(_) => None,
            Origin::Task(id) => Some(id),
        }
    }

    /// Returns the name of the task, or of the item's batch, if it was given one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|name| name.as_ref().as_ref())
    }

    /// Returns where the task was spawned, or the item's batch made.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// Returns the error.
    pub fn error(&self) -> &E {
        &self.error
    }
}

impl<E> Failures<E> {
    pub(crate) fn new(failures: Vec<Failed<E>>) -> Self {
        Self {
            failures,
            forgotten: 0,
            ended: None,
            shortage: None,
        }
    }

    /// Adds the number of those that were not kept.
    pub(crate) fn forgotten(mut self, forgotten: usize) -> Self {
        self.forgotten = forgotten;
        self
    }

    /// Adds the context's end, if that is why there are not more.
    pub(crate) fn ended_by(mut self, end: Option<ContextError>) -> Self {
        self.ended = end;
        self
    }

    /// Adds what a race has missed.
    pub(crate) fn short_of(mut self, shortage: Shortage) -> Self {
        self.shortage = Some(shortage);
        self
    }

    /// Returns how many errors there are.
    pub fn len(&self) -> usize {
        self.failures.len()
    }

    /// Returns `true` if there is no error: there were no items, too few, or the context ended before one had failed.
    pub fn is_empty(&self) -> bool {
        self.failures.is_empty()
    }

    /// Returns the errors with their origins, in the order in which they came.
    pub fn iter(&self) -> std::slice::Iter<'_, Failed<E>> {
        self.failures.iter()
    }

    /// Returns the errors themselves, in the order in which they came.
    pub fn into_errors(mut self) -> Vec<E> {
        let failures = std::mem::take(&mut self.failures);
        failures.into_iter().map(|failed| failed.error).collect()
    }

    /// Returns the end of the context, if that is why there are not more errors, and no success.
    pub fn ended(&self) -> Option<&ContextError> {
        self.ended.as_ref()
    }
}

impl<'a, E> IntoIterator for &'a Failures<E> {
    type Item = &'a Failed<E>;
    type IntoIter = std::slice::Iter<'a, Failed<E>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<E> Drop for Failures<E> {
    /// An error whose destructor panics keeps none of the others from being dropped, nor what unwinds from unwinding.
    fn drop(&mut self) {
        self.failures.drain(..).for_each(discard);
    }
}

impl<E: fmt::Display> fmt::Display for Failures<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Lines { f, is_first: true };
        match (&self.ended, &self.shortage) {
            (Some(end), _) => lines.push(end)?,
            (None, Some(shortage)) if shortage.says_more(self.is_empty()) => {
                lines.push(shortage)?
            }
            _ => {}
        }
        for failed in self.failures.iter().take(MAX_LINES) {
            lines.push(failed)?;
        }
        match self.failures.len().saturating_sub(MAX_LINES) + self.forgotten {
            0 => Ok(()),
            more => lines.push(format_args!("and {more} more")),
        }
    }
}

impl Shortage {
    /// Whether it says more than the errors do. When there are some, and one success would have been enough, it does not.
    fn says_more(&self, is_empty: bool) -> bool {
        self.needed > 1 || is_empty
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (needed, succeeded) = (self.needed, self.succeeded);
        match self.items {
            Some(0) => f.write_str("there were no items"),
            Some(1) if needed > 1 => write!(f, "{needed} successes needed, of 1 item"),
            Some(items) if items < needed => {
                write!(f, "{needed} successes needed, of {items} items")
            }
            _ => write!(f, "{succeeded} of the {needed} successes needed"),
        }
    }
}

impl<E: fmt::Display> fmt::Display for Failed<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (error, location) = (&self.error, self.location);
        match (&self.origin, self.name()) {
            (Origin::Item(index), None) => {
                write!(f, "item {index} failed: {error} (batch at {location})")
            }
            (Origin::Item(index), Some(name)) => {
                write!(
                    f,
                    "item {index} of {name:?} failed: {error} (batch at {location})"
                )
            }
            (Origin::Task(id), None) => {
                write!(f, "task {id} failed: {error} (spawned at {location})")
            }
            (Origin::Task(_), Some(name)) => {
                write!(f, "task {name:?} failed: {error} (spawned at {location})")
            }
        }
    }
}

/// Writes values on a line each, whatever line breaks their texts have.
struct Lines<'a, 'f> {
    f: &'a mut fmt::Formatter<'f>,
    is_first: bool,
}

impl Lines<'_, '_> {
    fn push(&mut self, line: impl fmt::Display) -> fmt::Result {
        if !std::mem::take(&mut self.is_first) {
            self.f.write_char('\n')?;
        }
        write!(self, "{line}")
    }
}

impl Write for Lines<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (n, part) in text.split('\n').enumerate() {
            if n > 0 {
                self.f.write_str("; ")?;
            }
            self.f.write_str(part)?;
        }
        Ok(())
    }
}

impl<E: fmt::Debug> fmt::Debug for Failures<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failures")
            .field("failures", &self.failures)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl<E: fmt::Debug> fmt::Debug for Failed<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Failed");
        match self.origin {
            Origin::Item(index) => debug.field("index", &index),
            Origin::Task(id) => debug.field("id", &id),
        };
        debug
            .field("name", &self.name())
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl<E: fmt::Debug + fmt::Display> Error for Failures<E> {}

#[cfg(all(test, not(errgroup_loom)))]
mod tests {
    use super::*;
    use crate::error::{BoxError, Reason};

    fn task(name: Option<&'static str>, error: &str) -> Failed<BoxError> {
        let name = name.map(|name| Arc::new(Cow::Borrowed(name)));
        Failed::task(name, TaskId::next(), Location::caller(), error.into())
    }

    #[test]
    fn tasks_failed_then_a_line_names_each_and_its_place() {
        let failures = Failures::new(vec![task(Some("db"), "refused"), task(None, "no route")]);
        let text = failures.to_string();
        let lines: Vec<_> = text.lines().collect();
        let id = failures.failures[1].id().unwrap();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("task \"db\" failed: refused (spawned at src/failures.rs:"));
        assert!(lines[1].starts_with(&format!("task {id} failed: no route (spawned at src/")));
        let failed = &failures.failures[0];
        assert_eq!((failed.name(), failed.index()), (Some("db"), None));
        assert_eq!(failed.location().file(), file!());
    }

    #[test]
    fn some_were_forgotten_then_their_number_is_the_last_line() {
        let failures = Failures::new(vec![task(None, "refused")]).forgotten(7);
        assert!(failures.to_string().ends_with("\nand 7 more"));
        let many = (0..12).map(|_| task(None, "refused")).collect();
        let text = Failures::new(many).forgotten(7).to_string();
        assert_eq!(text.lines().count(), 11);
        assert!(text.ends_with("\nand 9 more"));
    }

    #[test]
    fn context_ended_then_its_end_is_the_first_line() {
        let end = ContextError::at(Reason::Shutdown, Location::caller(), None);
        let failures = Failures::new(vec![task(None, "refused")]).ended_by(Some(end.clone()));
        assert_eq!(failures.ended(), Some(&end));
        assert_eq!(failures.to_string().lines().next(), Some(&*end.to_string()));
    }

    #[test]
    fn texts_have_several_lines_then_each_failure_has_one() {
        let inner = Failures::new(vec![task(None, "one"), task(None, "two\nthree")]);
        let outer = Failures::new(vec![task(None, &inner.to_string()), task(None, "four")]);
        let text = outer.to_string();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("); task #"), "{text}");
        assert!(text.contains("two; three"), "{text}");
    }
}
