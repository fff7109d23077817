//! Helpers of the tests of supervisors: children that log and do as they are told.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use errgroup::{
    BoxError, Child, ChildState, Context, Supervisor, SupervisorBuilder, SupervisorError,
    SupervisorHandle,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::support::{Log, child};

/// What a supervisor's run comes to.
pub(crate) type Ran = Result<(), SupervisorError>;

/// What a child is told to come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Finish,
    Fail,
    Panic,
}

/// Children that log `+name` when they start, `-name` when they end, and end as they are told.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) log: Log<String>,
    orders: Arc<Mutex<HashMap<String, mpsc::UnboundedSender<End>>>>,
}

/// Logs when dropped.
struct Logs(Log<String>, String);

impl Drop for Logs {
    fn drop(&mut self) {
        self.0.push(format!("-{}", self.1));
    }
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self {
            log: Log::new(),
            orders: Arc::default(),
        }
    }

    /// A child that runs until it is told to end, or its context ends.
    pub(crate) fn child(&self, name: &str) -> Child {
        let (stage, name) = (self.clone(), name.to_owned());
        Child::new(name.clone(), move |ctx| {
            stage.clone().act(ctx, name.clone())
        })
    }

    pub(crate) async fn act(self, ctx: Context, name: String) -> Result<(), BoxError> {
        self.log.push(format!("+{name}"));
        let _logs = Logs(self.log.clone(), name.clone());
        let (send, mut orders) = mpsc::unbounded_channel();
        self.orders.lock().unwrap().insert(name.clone(), send);
        match ctx.run(orders.recv()).await?.expect("the sender is kept") {
            End::Finish => Ok(()),
            End::Fail => Err(format!("{name} failed").into()),
            End::Panic => panic!("{name} panicked"),
        }
    }

    /// Tells a child to end.
    pub(crate) fn end(&self, name: &str, end: End) {
        assert!(self.try_end(name, end), "it does not run");
    }

    /// Tells a child to end; `false` if it does not run.
    pub(crate) fn try_end(&self, name: &str, end: End) -> bool {
        let orders = self.orders.lock().unwrap();
        orders
            .get(name)
            .is_some_and(|orders| orders.send(end).is_ok())
    }

    pub(crate) fn took(&self) -> Vec<String> {
        self.log.take()
    }
}

/// A supervisor that runs in a task.
pub(crate) struct Running {
    pub(crate) handle: SupervisorHandle,
    pub(crate) run: JoinHandle<Ran>,
    /// Ends the supervisor's context.
    pub(crate) stop: errgroup::CancelHandle,
}

impl Running {
    pub(crate) async fn end(self) -> Ran {
        self.stop.cancel();
        self.run.await.unwrap()
    }

    pub(crate) fn state(&self, name: &str) -> ChildState {
        self.handle.child(name).expect("it is known").state
    }
}

/// Runs a supervisor, and lets it start.
pub(crate) async fn run(
    builder: SupervisorBuilder,
    children: impl IntoIterator<Item = Child>,
) -> Running {
    let (ctx, stop) = child(&Context::background()).with_cancel();
    let supervisor = builder.context(&ctx).build();
    let supervisor = children.into_iter().fold(supervisor, Supervisor::child);
    let handle = supervisor.handle();
    let run = tokio::spawn(supervisor.run());
    idle().await;
    Running { handle, run, stop }
}

pub(crate) fn builder() -> SupervisorBuilder {
    Supervisor::builder().intensity(1000, Duration::from_secs(60))
}

/// Lets every task of a current-thread runtime run until it has to wait.
pub(crate) async fn idle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// Runs on a current-thread runtime with a paused clock; a test that hangs fails.
pub(crate) fn paused<T>(body: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let patience = Duration::from_secs(86_400 * 365);
        let in_time = tokio::time::timeout(patience, body).await;
        in_time.expect("the test hangs")
    })
}
