//! The runtimes, one instance of each kind for all contenders, and operations that run on them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

/// Does something so many times; how long the measured part took.
pub type Operation = Box<dyn Fn(usize) -> Duration>;

/// What an operation returns: how long its measured part took, or nothing if it is measured as a whole.
pub trait Measured: Send + 'static {
    fn of(self, whole: Duration) -> Duration;
}

impl Measured for () {
    fn of(self, whole: Duration) -> Duration {
        whole
    }
}

impl Measured for Duration {
    fn of(self, _: Duration) -> Duration {
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rt {
    CurrentThread,
    Workers(usize),
}

/// What tables with one row for each kind of runtime show.
pub const BOTH: [Rt; 2] = [Rt::CurrentThread, Rt::Workers(2)];

impl Rt {
    pub fn name(self) -> String {
        match self {
            Rt::CurrentThread => "current_thread".to_owned(),
            Rt::Workers(workers) => format!("{workers} workers"),
        }
    }

    pub fn threads(self) -> usize {
        match self {
            Rt::CurrentThread => 1,
            Rt::Workers(workers) => workers,
        }
    }

    fn instance(self) -> &'static Runtime {
        static INSTANCES: Mutex<BTreeMap<Rt, &Runtime>> = Mutex::new(BTreeMap::new());
        let mut instances = INSTANCES.lock().unwrap_or_else(PoisonError::into_inner);
        instances.entry(self).or_insert_with(|| {
            let mut builder = match self {
                Rt::CurrentThread => Builder::new_current_thread(),
                Rt::Workers(_) => Builder::new_multi_thread(),
            };
            let runtime = builder.worker_threads(self.threads()).enable_all().build();
            Box::leak(Box::new(runtime.expect("a runtime can be built")))
        })
    }

    /// Runs a future where a server's code runs, on a worker if there are any.
    fn drive<F>(self, future: F) -> F::Output
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let runtime = self.instance();
        match self {
            Rt::CurrentThread => runtime.block_on(future),
            Rt::Workers(_) => {
                let future = runtime.spawn(future);
                runtime
                    .block_on(future)
                    .expect("an operation does not panic")
            }
        }
    }
}

/// An operation without a runtime.
pub fn plain<R: Measured>(operation: impl Fn(usize) -> R + 'static) -> Operation {
    Box::new(move |n| {
        let start = Instant::now();
        let measured = operation(n);
        measured.of(start.elapsed())
    })
}

/// An operation on a runtime.
pub fn on<F>(rt: Rt, operation: impl Fn(usize) -> F + 'static) -> Operation
where
    F: Future<Output: Measured> + Send + 'static,
{
    plain(move |n| {
        let start = Instant::now();
        let measured = rt.drive(operation(n));
        measured.of(start.elapsed())
    })
}

/// As `on`, but on this thread, beside the workers: what is allocated for each thread apart can be counted.
pub fn beside<F>(rt: Rt, operation: impl Fn(usize) -> F + 'static) -> Operation
where
    F: Future<Output: Measured>,
{
    plain(move |n| rt.instance().block_on(operation(n)))
}
