//! Whether a task's error only passes on what the group knows already: the end of the context, or the failure of another
//! task. It is no failure of its own then.

use std::any::Any;
use std::fmt;

use super::core::Core;
use crate::error::{BoxError, ContextError, GroupError, Reason};
use crate::panic::{catch, discard};

impl<E: GroupError> Core<E> {
    /// Returns what `error` passes on, if it is no failure of its own: the end of the context (`ctx.check()?`), or the
    /// failure of a task of this group (`task.await?`).
    ///
    /// Where the type shows it, it is the very same end or failure. Where it does not, the texts have to agree, and that of
    /// the end has to be visible in its conversion: a type that hides it says the same of other things.
    pub(super) fn passed_on(&self, error: &E) -> Option<ContextError> {
        if let Some(inner) = context_error_in(error) {
            let end = self.node().error_ref();
            let is_end = end.is_some_and(|end| end.is(inner));
            // Stopping, too, is a step of the end: who passes it on has nothing left to do.
            let is_stopping = inner.reason() == Reason::Stopping;
            let is_passed_on = is_end || is_stopping || inner.is_failure_in(self.id);
            return is_passed_on.then(|| inner.clone());
        }
        let end = self.context.err()?;
        let text = self.end_text.get();
        let text = match text {
            Some(text) => text,
            None => {
                // Not within the cell: it is foreign code, and may come here again.
                let text = text_of_end::<E>(&end);
                self.end_text.get_or_init(|| Box::new(text))
            }
        };
        is_text_of(text.as_deref()?, error).then_some(end)
    }
}

/// The `ContextError` that an error is, or holds, where that can be told by the type.
fn context_error_in<E: 'static>(error: &E) -> Option<&ContextError> {
    let error: &dyn Any = error;
    if let Some(error) = error.downcast_ref::<ContextError>() {
        return Some(error);
    }
    if let Some(error) = error.downcast_ref::<std::io::Error>() {
        return error.get_ref()?.downcast_ref();
    }
    let error = error.downcast_ref::<BoxError>()?;
    if let Some(error) = error.downcast_ref::<ContextError>() {
        return Some(error);
    }
    error
        .downcast_ref::<std::io::Error>()?
        .get_ref()?
        .downcast_ref()
}

/// Whether an error says no more than that this end came.
pub(crate) fn passes_on<E: GroupError>(error: &E, end: &ContextError) -> bool {
    match context_error_in(error) {
        Some(inner) => inner.is(end),
        None => text_of_end::<E>(end).is_some_and(|text| is_text_of(&text, error)),
    }
}

/// The text of an error made from the end; `None` if it does not show that of the end.
fn text_of_end<E: GroupError>(end: &ContextError) -> Option<Box<str>> {
    let text = catch(|| E::from(end.clone()).to_string())
        .map_err(discard)
        .ok()?;
    text.contains(&end.to_string())
        .then(|| text.into_boxed_str())
}

/// Compares an error's text as it is written, and stops at the first difference.
fn is_text_of<E: fmt::Display>(text: &str, error: &E) -> bool {
    struct Rest<'a>(&'a str);
    impl fmt::Write for Rest<'_> {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
            Ok(())
        }
    }
    let mut rest = Rest(text);
    let written = catch(|| fmt::write(&mut rest, format_args!("{error}")));
    matches!(written, Ok(Ok(()))) && rest.0.is_empty()
}
