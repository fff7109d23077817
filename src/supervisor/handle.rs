//! `SupervisorHandle`: commands and questions to a supervisor that runs.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::child::Child;
use super::error::CommandError;
use super::machine::Machine;
use super::shared::{Command, Message, Shared};
use super::status::ChildStatus;
use crate::error::BoxError;
use crate::group::Straggler;

/// Starts, stops, restarts and lists the children of a [`Supervisor`](crate::Supervisor) from anywhere: the value of
/// [`Supervisor::handle`](crate::Supervisor::handle).
///
/// Cheap to clone. It keeps no supervisor running, and cannot stop it: that is for its context.
///
/// Each command is a future, which gives the command when it is polled first and is ready when it has been carried out. While
/// a supervisor has not been started, its commands wait. Commands are no restarts that its
/// [intensity](crate::SupervisorBuilder::intensity) counts.
///
/// # Cancel safety
///
/// Dropping such a future does not take the command back.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), errgroup::BoxError> {
/// use errgroup::{Child, Context, Group, Supervisor};
///
/// let ctx = Context::background();
/// Group::run(&ctx, async |group| {
///     let supervisor: Supervisor = Supervisor::builder()
///         .context(&ctx)
///         .build()
///         .child(Child::new("poller", async |ctx| Ok(drop(ctx.done().await))));
///     let handle = supervisor.handle();
///     let running = group.spawn(async { Ok(supervisor.run().await?) });
///
///     handle.restart("poller").await?;
///     assert!(handle.child("poller").unwrap().state.is_up());
///     assert!(handle.stop("pollre").await.unwrap_err().to_string().contains("pollre"));
///     running.abort();
///     Ok(())
/// })
/// .await
/// # }
/// ```
pub struct SupervisorHandle<E = BoxError> {
    pub(super) shared: Arc<Shared<E>>,
}

impl<E: Send + 'static> SupervisorHandle<E> {
    /// Adds a child, the last in the order of start, and starts it.
    ///
    /// # Errors
    ///
    /// There is one of its name, or it failed before it was ready: then it is not kept.
    pub fn add(&self, child: Child<E>) -> impl Future<Output = Result<(), CommandError>> + use<E> {
        self.give(Command::Add(Box::new(child)))
    }

    /// Starts a child that has ended, failed or been stopped. One that waits for its restart is restarted now; one that
    /// runs is left alone.
    ///
    /// # Errors
    ///
    /// There is none of this name, or it failed before it was ready: then it stays down, as OTP's `restart_child` has it.
    pub fn start(&self, name: &str) -> impl Future<Output = Result<(), CommandError>> + use<E> {
        self.give(Command::Order(name.to_owned(), Machine::start))
    }

    /// Stops a child, with its drain and its grace, and waits for its end. It stays down until it is started by name, or with its
    /// siblings by a [strategy](crate::Strategy) of more than one.
    ///
    /// # Errors
    ///
    /// There is none of this name.
    pub fn stop(&self, name: &str) -> impl Future<Output = Result<(), CommandError>> + use<E> {
        self.give(Command::Order(name.to_owned(), Machine::stop))
    }

    /// Stops a child, with its drain and its grace, and starts it again; one that is down is started. Its siblings are not
    /// touched.
    ///
    /// # Errors
    ///
    /// There is none of this name, or it failed before it was ready: then it is restarted as its
    /// [`Restart`](crate::Restart) says.
    pub fn restart(&self, name: &str) -> impl Future<Output = Result<(), CommandError>> + use<E> {
        self.give(Command::Order(name.to_owned(), Machine::restart))
    }

    /// Stops a child as [`stop`](SupervisorHandle::stop) does, and forgets it.
    ///
    /// # Errors
    ///
    /// There is none of this name.
    pub fn remove(&self, name: &str) -> impl Future<Output = Result<(), CommandError>> + use<E> {
        self.give(Command::Order(name.to_owned(), Machine::remove))
    }

    /// Drops a child at the await it stands at, as if it had crashed: OTP's `exit(Pid, kill)`. Whether it is restarted is for
    /// its [`Restart`](crate::Restart).
    ///
    /// Does not wait for it. One that is down is left alone.
    ///
    /// # Errors
    ///
    /// There is none of this name.
    pub fn abort(&self, name: &str) -> impl Future<Output = Result<(), CommandError>> + use<E> {
        self.give(Command::Abort(name.to_owned()))
    }

    fn give(&self, command: Command<E>) -> impl Future<Output = Result<(), CommandError>> + use<E> {
        let shared = self.shared.clone();
        async move {
            let (reply, replied) = oneshot::channel();
            shared.send(Message::Command { command, reply });
            replied
                .await
                .unwrap_or(Err(CommandError::SupervisorStopping))
        }
    }
}

impl<E> SupervisorHandle<E> {
    /// Lists the children in the order of start, as they are, or, when the supervisor has ended, as they were.
    pub fn children(&self) -> Vec<ChildStatus> {
        let machine = self.shared.machine.lock();
        machine
            .entries
            .values()
            .map(|entry| entry.status())
            .collect()
    }

    /// Returns what a child is doing; `None` if there is none of this name.
    pub fn child(&self, name: &str) -> Option<ChildStatus> {
        let machine = self.shared.machine.lock();
        let id = machine.find(name)?;
        machine.entries.get(id).map(|entry| entry.status())
    }

    /// Returns `true` while every child is up and the supervisor is not stopping: what a health check asks.
    ///
    /// A child that has finished and is not restarted, a temporary or a transient one, is not up, and neither is one that was
    /// stopped by name: it is `false` until such a child is started or [removed](SupervisorHandle::remove). A temporary child that
    /// was [added](SupervisorHandle::add) is forgotten when it has ended, and counts no more.
    pub fn is_all_up(&self) -> bool {
        self.shared.machine.lock().is_all_up()
    }

    /// Lists the children that did not stop within their grace when the supervisor stopped.
    pub fn stragglers(&self) -> Vec<Straggler> {
        let stragglers = self.shared.stragglers.lock();
        stragglers
            .iter()
            .map(|(_, straggler)| straggler.clone())
            .collect()
    }
}

impl<E> Clone for SupervisorHandle<E> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

/// A line for each child.
impl<E> fmt::Display for SupervisorHandle<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for child in self.children() {
            writeln!(f, "{child}")?;
        }
        Ok(())
    }
}

impl<E> fmt::Debug for SupervisorHandle<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorHandle")
            .field("children", &self.children())
            .finish()
    }
}
