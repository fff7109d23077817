//! Where tasks come to their runtime. Under `--cfg tokio_unstable`, and with the feature `tracing`, it is told their names, which
//! tokio-console shows. Otherwise these are tokio's functions, and nothing else.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::entry::Name;

/// Whether a runtime wants to know the names.
pub(super) const IS_ON: bool = cfg!(all(tokio_unstable, feature = "tracing"));

#[cfg(not(all(tokio_unstable, feature = "tracing")))]
mod imp {
    use super::{Future, Handle, JoinHandle, Name};

    #[track_caller]
    #[inline]
    pub(in super::super) fn spawn<F>(
        runtime: &Handle,
        _name: Option<&Name>,
        future: F,
    ) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        runtime.spawn(future)
    }

    #[track_caller]
    #[inline]
    pub(in super::super) fn spawn_local<F>(_name: Option<&Name>, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: 'static> + 'static,
    {
        tokio::task::spawn_local(future)
    }

    #[track_caller]
    #[inline]
    pub(in super::super) fn spawn_blocking(
        runtime: &Handle,
        _name: Option<&Name>,
        f: impl FnOnce() + Send + 'static,
    ) {
        drop(runtime.spawn_blocking(f));
    }
}

#[cfg(all(tokio_unstable, feature = "tracing"))]
mod imp {
    use tokio::task::Builder;

    use super::{Future, Handle, JoinHandle, Name};

    fn builder(name: Option<&Name>) -> Builder<'_> {
        match name {
            Some(name) => Builder::new().name(name),
            None => Builder::new(),
        }
    }

    #[track_caller]
    pub(in super::super) fn spawn<F>(
        runtime: &Handle,
        name: Option<&Name>,
        future: F,
    ) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let spawned = builder(name).spawn_on(future, runtime);
        spawned.expect("errgroup: the runtime takes a task")
    }

    #[track_caller]
    pub(in super::super) fn spawn_local<F>(name: Option<&Name>, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: 'static> + 'static,
    {
        let spawned = builder(name).spawn_local(future);
        spawned.expect("errgroup: the set takes a task")
    }

    /// As tokio's own, this panics where the system has no thread, and drops the function where the runtime goes.
    #[track_caller]
    pub(in super::super) fn spawn_blocking(
        runtime: &Handle,
        name: Option<&Name>,
        f: impl FnOnce() + Send + 'static,
    ) {
        match builder(name).spawn_blocking_on(f, runtime) {
            Err(error) if error.raw_os_error().is_some() => {
                panic!("OS can't spawn worker thread: {error}")
            }
            _ => {}
        }
    }
}

pub(super) use self::imp::{spawn, spawn_blocking, spawn_local};
