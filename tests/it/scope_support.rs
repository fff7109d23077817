//! What the tests of scopes share.
#![allow(clippy::unit_arg)] // `Ok(work().await)` is what users write

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use errgroup::BoxError;

use crate::group_support::*;

pub(crate) type Locals = Rc<RefCell<Vec<&'static str>>>;

/// Runs its function in a scope, outside of any runtime.
macro_rules! in_scope {
    ($body:expr) => {
        futures::executor::block_on(errgroup::scope(&$crate::support::background(), $body))
    };
}

pub(crate) fn add(counter: &AtomicUsize) {
    counter.fetch_add(1, SeqCst);
}

/// Counts its drop.
pub(crate) fn counted(counter: &AtomicUsize) -> OnDrop<impl FnOnce()> {
    OnDrop::new(|| add(counter))
}

pub(crate) fn text<T>(result: Result<T, BoxError>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(error) => error.to_string(),
    }
}
