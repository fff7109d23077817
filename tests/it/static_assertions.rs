//! What the types are, checked by the compiler.

use std::error::Error;
use std::future::Future;
use std::hash::Hash;
use std::panic::{RefUnwindSafe, UnwindSafe};

use errgroup::{
    BoxError, CancelHandle, Context, ContextError, Diagnosis, Done, DoneOwned, Failed, Failures,
    OnDone, Reason, Snapshot, Stop, StopHandle,
};
use futures::future::FusedFuture;
use static_assertions::{assert_eq_size, assert_impl_all, assert_not_impl_any};

assert_impl_all!(Context: Clone, Send, Sync, Unpin, UnwindSafe, RefUnwindSafe, std::fmt::Debug);
assert_impl_all!(CancelHandle: Clone, Send, Sync, Unpin, UnwindSafe, RefUnwindSafe, std::fmt::Debug);
assert_impl_all!(StopHandle: Clone, Send, Sync, Unpin, UnwindSafe, RefUnwindSafe, std::fmt::Debug);
assert_impl_all!(Stop<BoxError>: Future, Send, Unpin, UnwindSafe, RefUnwindSafe, std::fmt::Debug);
assert_impl_all!(Done<'static>: Future<Output = ContextError>, FusedFuture, Send, Sync, Unpin);
assert_impl_all!(DoneOwned: Future<Output = ContextError>, FusedFuture, Send, Sync, Unpin);
assert_impl_all!(Done<'static>: UnwindSafe, RefUnwindSafe, std::fmt::Debug);
assert_impl_all!(DoneOwned: UnwindSafe, RefUnwindSafe, std::fmt::Debug);
assert_impl_all!(OnDone: Send, Sync, Unpin, UnwindSafe, RefUnwindSafe, std::fmt::Debug);
assert_impl_all!(ContextError: Error, Clone, Eq, Send, Sync, Unpin, UnwindSafe, RefUnwindSafe);
assert_impl_all!(Reason: Copy, Eq, Hash, Send, Sync, Unpin, UnwindSafe, std::fmt::Display);

// As their errors are; `BoxError` itself is no `Error`.
assert_impl_all!(Failures<BoxError>: Error, Send, Sync, Unpin, std::fmt::Display);
assert_impl_all!(Failed<BoxError>: Send, Sync, Unpin, std::fmt::Debug, std::fmt::Display);
assert_not_impl_any!(Failures<std::cell::Cell<u8>>: Sync);
assert_not_impl_any!(Failures<std::rc::Rc<u8>>: Send, Sync);
assert_impl_all!(BoxError: From<Failures<std::io::Error>>, From<Failures<BoxError>>);
assert_impl_all!(Snapshot: Clone, Send, Sync, Unpin, std::fmt::Debug, std::fmt::Display);
assert_impl_all!(Diagnosis: Copy, Eq, Send, Sync, Unpin, std::fmt::Debug, std::fmt::Display);

// It travels by `?` into the errors that programs use.
assert_impl_all!(BoxError: From<ContextError>);
assert_impl_all!(std::io::Error: From<ContextError>);

// A context does not carry the right to end it, a callback cannot be registered twice by copying.
assert_not_impl_any!(OnDone: Clone);
assert_not_impl_any!(CancelHandle: Copy);

assert_eq_size!(Result<(), ContextError>, usize);
assert_eq_size!(Option<ContextError>, usize);

/// The futures of `run` and `sleep` can be spawned.
#[test]
fn futures_of_a_context_are_send_and_static_where_they_own_it() {
    fn spawnable(_: impl Future + Send + 'static) {}
    let ctx = Context::background();
    spawnable(ctx.done_owned());
    let sleeper = ctx.clone();
    spawnable(async move { sleeper.sleep(std::time::Duration::ZERO).await });
    spawnable(async move { ctx.run(std::future::ready(())).await });
}

// A supervisor moves into its task; its handle goes anywhere, although its error cannot.
type SendOnly = std::cell::Cell<u8>;
assert_impl_all!(errgroup::Supervisor<BoxError>: Send, std::fmt::Debug);
assert_impl_all!(errgroup::SupervisorBuilder<BoxError>: Send, std::fmt::Debug);
assert_impl_all!(errgroup::Child<BoxError>: Send, std::fmt::Debug);
assert_impl_all!(errgroup::SupervisorHandle<SendOnly>: Clone, Send, Sync, std::fmt::Debug, std::fmt::Display);
assert_impl_all!(errgroup::SupervisorError<BoxError>: Error, Send, Sync);
assert_impl_all!(BoxError: From<errgroup::SupervisorError<BoxError>>);
assert_impl_all!(errgroup::Ready: Send, Sync, std::fmt::Debug);
assert_not_impl_any!(errgroup::Ready: Clone);
assert_impl_all!(errgroup::ChildStatus: Clone, Send, Sync, std::fmt::Display);
assert_impl_all!(errgroup::SupervisorEvent: Clone, Send, Sync, std::fmt::Display);
assert_impl_all!(errgroup::CommandError: Error, Clone, Eq, Send, Sync);
assert_impl_all!(errgroup::Backoff: Clone, Send, Sync, IntoIterator<Item = std::time::Duration>);
