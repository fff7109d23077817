//! The two runtimes, one instance of each for all contenders.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// Where the multi-threaded rows run.
pub const WORKERS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    CurrentThread,
    MultiThread,
}

/// The thread on which a round's own code runs, the one that spawns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// A task on a worker, as in a server that spawns for each request.
    Worker,
    /// The thread in `block_on`, as in `main`: one thread more than there are workers.
    Outside,
}

pub struct Rt {
    pub flavor: Flavor,
    runtime: Runtime,
}

impl Rt {
    pub fn new(flavor: Flavor) -> Self {
        let runtime = match flavor {
            Flavor::CurrentThread => Builder::new_current_thread().enable_all().build(),
            Flavor::MultiThread => multi_thread(WORKERS),
        };
        Self {
            flavor,
            runtime: runtime.expect("a runtime can be built"),
        }
    }

    pub fn name(&self) -> &'static str {
        match self.flavor {
            Flavor::CurrentThread => "current_thread",
            Flavor::MultiThread => "multi_thread",
        }
    }

    /// Runs a round as [`Driver::Worker`].
    pub fn drive<F>(&self, round: F) -> Duration
    where
        F: Future<Output = Duration> + Send + 'static,
    {
        self.drive_from(Driver::Worker, round)
    }

    /// Runs a round. On a `current_thread` runtime there is one thread to run it on.
    pub fn drive_from<F>(&self, driver: Driver, round: F) -> Duration
    where
        F: Future<Output = Duration> + Send + 'static,
    {
        if self.flavor == Flavor::CurrentThread || driver == Driver::Outside {
            return self.runtime.block_on(round);
        }
        let round = self.runtime.spawn(round);
        self.runtime
            .block_on(round)
            .expect("a round does not panic")
    }
}

pub fn multi_thread(workers: usize) -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
}
