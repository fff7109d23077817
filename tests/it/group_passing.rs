//! G1: what is a failure of its own, and what only passes on the end or a sibling's failure, for error types of all kinds.

use std::fmt;
use std::io;

use errgroup::{BoxError, Context, ContextError, Group, GroupError, Reason, Task};
use tokio::sync::oneshot;

use crate::group_support::*;

/// The type shows it: a variant of its own.
#[derive(Debug, thiserror::Error)]
enum Typed {
    #[error("own")]
    Own,
    #[error(transparent)]
    Ended(#[from] ContextError),
}

/// Whatever happens, it says the same.
#[derive(Debug, thiserror::Error)]
#[error("something went wrong")]
struct Constant;

impl From<ContextError> for Constant {
    fn from(_: ContextError) -> Self {
        Self
    }
}

/// As `anyhow::Error`: the type says nothing, the text is that of what is inside.
struct Opaque(Box<dyn fmt::Display + Send + Sync>);

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Opaque {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Adds words of its own to the end's, which are still to be seen.
struct Worded(String);

impl From<ContextError> for Worded {
    fn from(end: ContextError) -> Self {
        Self(format!("sync: {end}"))
    }
}

impl fmt::Display for Worded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A task that stops itself at the end, with what `error` makes of it.
async fn at_the_end<E: GroupError>(
    group: &Group<E>,
    error: impl FnOnce(ContextError) -> E + Send + 'static,
) -> Task<()> {
    let (started, start) = oneshot::channel();
    let task = group.spawn_with(async |ctx: Context| {
        let _ = started.send(());
        Err(error(ctx.done().await))
    });
    start.await.unwrap();
    task
}

/// What `wait` says after `cancel`, and how many failures there were beside it.
async fn after_cancel<E: GroupError>(
    error: impl FnOnce(ContextError) -> E + Send + 'static,
) -> (Option<String>, Reason) {
    let mut group: Group<E> = Group::new();
    let task = at_the_end(&group, error).await;
    group.cancel();
    let outcome = group.wait().await.err().map(|error| error.to_string());
    assert_eq!(group.suppressed(), 0);
    (outcome, why(task).await.reason())
}

/// A task awaits the handle of another one, and passes on what that says.
async fn after_a_sibling<E: GroupError>(first: E) -> (String, usize) {
    let mut group: Group<E> = Group::new();
    let (open, gate) = oneshot::channel::<()>();
    let bad = group.spawn(async {
        let _ = gate.await;
        Err::<(), _>(first)
    });
    let passing = group.spawn_with(async |_| {
        // It has started, so that nobody drops it unpolled.
        drop(open);
        Ok(bad.await?)
    });
    drop(passing.await);
    let outcome = group.wait().await.err().map(|error| error.to_string());
    (outcome.expect("it failed"), group.suppressed())
}

const STOPPED: (Option<String>, Reason) = (None, Reason::GroupCancelled);

fn failed(text: &str) -> (Option<String>, Reason) {
    (Some(text.to_owned()), Reason::TaskFailed)
}

on_both_runtimes! {
    async fn g1_end_passed_on_after_cancel_is_no_failure_where_it_shows() {
        assert_eq!(after_cancel::<Typed>(Typed::from).await, STOPPED);
        assert_eq!(after_cancel::<Opaque>(Opaque::from).await, STOPPED);
        assert_eq!(after_cancel::<Worded>(Worded::from).await, STOPPED);
        assert_eq!(after_cancel::<BoxError>(BoxError::from).await, STOPPED);
        assert_eq!(after_cancel::<BoxError>(|end| io::Error::from(end).into()).await, STOPPED);
        assert_eq!(after_cancel::<io::Error>(io::Error::from).await, STOPPED);
        assert_eq!(after_cancel::<ContextError>(|end| end).await, STOPPED);
    }

    /// F9: a type whose text hides the end loses nothing.
    async fn g1_error_whose_text_hides_the_end_is_a_failure_after_cancel() {
        let constant = failed("something went wrong");
        assert_eq!(after_cancel::<Constant>(|_| Constant).await, constant);
        assert_eq!(after_cancel::<Constant>(Constant::from).await, constant);
    }

    async fn g1_own_error_after_cancel_is_a_failure() {
        assert_eq!(after_cancel::<Typed>(|_| Typed::Own).await, failed("own"));
        assert_eq!(after_cancel::<Opaque>(|_| io::Error::other("own").into()).await, failed("own"));
        assert_eq!(after_cancel::<Worded>(|_| Worded("own".into())).await, failed("own"));
        assert_eq!(after_cancel::<BoxError>(|_| "own".into()).await, failed("own"));
        assert_eq!(after_cancel::<io::Error>(|_| io::Error::other("own")).await, failed("own"));
    }

    /// More than the end's text, or less, is something else.
    async fn g1_end_with_words_of_the_tasks_own_is_a_failure() {
        let longer = after_cancel::<Worded>(|end| Worded(format!("sync: {end}!"))).await;
        assert_eq!(longer.1, Reason::TaskFailed);
        let shorter = after_cancel::<Worded>(|end| {
            let mut text = format!("sync: {end}");
            text.pop();
            Worded(text)
        });
        assert_eq!(shorter.await.1, Reason::TaskFailed);
        let empty = after_cancel::<Worded>(|_| Worded(String::new())).await;
        assert_eq!(empty.1, Reason::TaskFailed);
        let wrapped = after_cancel::<BoxError>(|end| format!("while syncing: {end}").into()).await;
        assert_eq!(wrapped.1, Reason::TaskFailed);
    }

    /// The end of a context derived within the task is that one's, and no other's.
    async fn g1_end_of_another_context_is_a_failure() {
        let other = |_| {
            let (ctx, handle) = Context::background().with_cancel();
            handle.cancel();
            ctx.err().unwrap()
        };
        let other_of = move |end| Typed::Ended(other(end));
        assert_eq!(after_cancel::<Typed>(other_of).await.1, Reason::TaskFailed);
        assert_eq!(after_cancel::<BoxError>(move |end| other(end).into()).await.1, Reason::TaskFailed);
        assert_eq!(after_cancel::<ContextError>(other).await.1, Reason::TaskFailed);
    }

    /// It ends with the group, by the group's end, and so does what it passes on.
    async fn g1_end_passed_on_by_a_context_derived_in_the_task_is_no_failure() {
        let mut group: Group = Group::new();
        let (started, start) = oneshot::channel();
        let task = group.spawn_with(async |ctx| {
            let (inner, _handle) = ctx.with_value(1).with_cancel();
            started.send(()).unwrap();
            inner.done().await;
            Ok(inner.check()?)
        });
        start.await.unwrap();
        group.cancel();
        group.wait().await.unwrap();
        assert_eq!(cancelled(task).await.reason(), Reason::GroupCancelled);
    }

    async fn g1_siblings_failure_passed_on_is_counted_once() {
        assert_eq!(after_a_sibling(Typed::Own).await, ("own".into(), 0));
        assert_eq!(after_a_sibling(Opaque::from(io::Error::other("own"))).await, ("own".into(), 0));
        assert_eq!(after_a_sibling::<BoxError>("own".into()).await, ("own".into(), 0));
        assert_eq!(after_a_sibling(io::Error::other("own")).await, ("own".into(), 0));
        // Hidden: told, and counted.
        assert_eq!(after_a_sibling(Constant).await, ("something went wrong".into(), 1));
    }

    /// A late failure has a text of its own, which an exact type recognises.
    async fn g1_late_failure_passed_on_is_no_third_failure() {
        let mut group: Group = Group::new();
        let (send, receive) = oneshot::channel::<Task<()>>();
        let late = at_the_end(&group, |_| "could not flush".into()).await;
        let (started, start) = oneshot::channel();
        let passing = group.spawn_with(async |_| {
            let _ = started.send(());
            Ok(receive.await?.await?)
        });
        start.await.unwrap();
        assert!(send.send(late).is_ok());
        group.spawn(fail("first"));
        let why = why(passing).await;
        assert!(why.to_string().contains("failed: could not flush"), "{why}");
        assert_eq!(group.wait().await.unwrap_err().to_string(), "first");
        assert_eq!(group.suppressed(), 1);
    }

    async fn g1_values_of_ok_results_carry_the_error_with_its_type() {
        let group: Group = Group::new();
        let task = group.spawn(async { Ok(Err::<(), _>(Typed::Own)) });
        assert!(matches!(task.await.unwrap(), Err(Typed::Own)));
        group.await.unwrap();
    }

    async fn g7_parent_ends_then_what_a_hidden_type_says_is_a_failure() {
        let (parent, handle) = Context::background().with_cancel();
        let mut group: Group<Constant> = Group::with_context(&parent);
        at_the_end(&group, Constant::from).await;
        at_the_end(&group, Constant::from).await;
        handle.cancel();
        assert!(group.wait().await.is_err());
        assert_eq!(group.suppressed(), 1);
    }
}
