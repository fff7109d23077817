//! The process's timers: they are driven by a thread, started when the first needs it.

use std::sync::Arc;
use std::thread::{self, Thread};

use super::{Set, Timers};

/// `None` until it is started, and if that failed.
pub(super) struct Driver(Option<Thread>);

#[cfg(not(all(test, errgroup_loom)))]
static PROCESS: std::sync::OnceLock<Arc<Timers>> = std::sync::OnceLock::new();

#[cfg(all(test, errgroup_loom))]
loom::lazy_static! {
    static ref PROCESS: Arc<Timers> = Timers::of_nobody();
}

impl Timers {
    /// The timers of whoever waits outside of any runtime.
    pub(in super::super) fn of_process() -> &'static Arc<Timers> {
        #[cfg(not(all(test, errgroup_loom)))]
        return PROCESS.get_or_init(|| Timers::new(None, super::Driver::Process(Driver(None))));
        #[cfg(all(test, errgroup_loom))]
        return &PROCESS;
    }
}

impl Driver {
    /// The thread looks for itself when it has to ring.
    pub(super) fn set(&mut self, timers: &Arc<Timers>) -> Set {
        match &self.0 {
            Some(thread) if thread.id() == thread::current().id() => {}
            Some(thread) => thread.unpark(),
            None => match start(timers.clone()) {
                Ok(started) => self.0 = Some(started),
                // Tried again by the next who waits.
                Err(_) => return Set::Failed,
            },
        }
        Set::WillRing
    }
}

fn start(timers: Arc<Timers>) -> std::io::Result<Thread> {
    let thread = thread::Builder::new().name("errgroup-timer".to_owned());
    let handle = thread.spawn(move || {
        loop {
            match timers.ring() {
                Some(at) => {
                    let now = std::time::Instant::now();
                    thread::park_timeout(at.into_std().saturating_duration_since(now));
                }
                None => thread::park(),
            }
        }
    })?;
    Ok(handle.thread().clone())
}
