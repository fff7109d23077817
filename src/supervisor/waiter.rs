//! `Waiter`: somebody who gave a command, and waits for what comes of it.

use std::task::Poll;

use tokio::time::Instant;

use super::child::Child;
use super::command::{Goal, Order};
use super::entry::ChildId;
use super::error::CommandError;
use super::error::SupervisorErrorKind;
use super::machine::{Machine, Phase};
use super::run::Driver;
use super::shared::{Command, Reply};
use crate::error::GroupError;
use crate::panic::discard;

/// Somebody who gave a command.
pub(super) struct Waiter {
    id: ChildId,
    goal: Goal,
    name: String,
    /// The child was added: it is removed if it does not come up.
    is_add: bool,
    reply: Reply,
}

impl<E: GroupError> Driver<E> {
    pub(super) fn command(&mut self, command: Command<E>, reply: Reply) {
        if self.shared.machine.lock().phase != Phase::Running {
            discard(command);
            let _ = reply.send(Err(CommandError::SupervisorStopping));
            return;
        }
        match command {
            Command::Add(child) => self.command_add(*child, reply),
            Command::Order(name, order) => match self.find(&name) {
                Ok(id) => self.order(id, order, name, false, reply),
                Err(unknown) => drop(reply.send(Err(unknown))),
            },
            Command::Abort(name) => {
                let found = self.find(&name);
                if let Some(incarnation) = found.as_ref().ok().and_then(|&id| self.incarnation(id))
                {
                    incarnation.task.abort();
                }
                let _ = reply.send(found.map(drop));
            }
        }
    }

    fn find(&self, name: &str) -> Result<ChildId, CommandError> {
        let found = self.shared.machine.lock().find(name);
        found.ok_or_else(|| CommandError::UnknownChild(name.to_owned()))
    }

    fn command_add(&mut self, child: Child<E>, reply: Reply) {
        let name = child.spec.name.to_string();
        match self.add(child, true, Instant::now()) {
            Ok(id) => self.order(id, Machine::start_added, name, true, reply),
            Err(refused) => {
                let _ = reply.send(Err(match refused {
                    SupervisorErrorKind::SignificantPermanent => {
                        CommandError::SignificantPermanent(name)
                    }
                    _ => CommandError::DuplicateName(name),
                }));
            }
        }
    }

    fn order(&mut self, id: ChildId, order: Order, name: String, is_add: bool, reply: Reply) {
        let goal = self.step(|machine, now| order(machine, id, now));
        self.waiters.push(Waiter {
            id,
            goal,
            name,
            is_add,
            reply,
        });
        self.reply();
    }

    /// Replies to whoever waits for what has come true. Forgets who waits no longer, but for what was added: if that does not
    /// come up, it is not kept.
    pub(super) fn reply(&mut self) {
        let mut withdrawn = Vec::new();
        for waiter in std::mem::take(&mut self.waiters) {
            if waiter.reply.is_closed() && !waiter.is_add {
                continue;
            }
            let (id, name) = (waiter.id, &waiter.name);
            // A statement of its own, for the lock.
            let came = self.shared.machine.lock().came(id, name, waiter.goal);
            let Poll::Ready(result) = came else {
                self.waiters.push(waiter);
                continue;
            };
            if waiter.is_add && matches!(result, Err(CommandError::StartFailed { .. })) {
                withdrawn.push(id);
            }
            let _ = waiter.reply.send(result);
        }
        // Others may wait for what comes of that.
        for id in withdrawn {
            self.step(|machine, now| machine.withdraw(id, now));
        }
    }
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests {
    use std::panic::Location;

    use tokio::sync::oneshot;
    use tokio::time::Instant;

    use crate::context::Context;
    use crate::group::Group;
    use crate::supervisor::machine::Machine;
    use crate::supervisor::run::Driver;
    use crate::supervisor::shared::Command;
    use crate::{Child, Ready, Supervisor};

    #[tokio::test]
    async fn commands_given_up_a_thousand_times_then_none_is_kept() {
        let supervisor: Supervisor = Supervisor::builder().build();
        let group = Group::hosted(&Context::background(), None, Location::caller());
        let mut driver = Driver::new(supervisor.shared, supervisor.inbox, group, None);
        let slow = async |_ctx, ready: Ready| {
            let _ready = ready;
            std::future::pending().await
        };
        let now = Instant::now();
        driver
            .add(Child::with_ready("slow", slow), false, now)
            .unwrap();
        driver.step(Machine::begin);
        for _ in 0..1000 {
            let (reply, replied) = oneshot::channel();
            driver.command(Command::Order("slow".to_owned(), Machine::start), reply);
            assert_eq!(driver.waiters.len(), 1, "whoever waits is kept");
            drop(replied);
        }
        driver.reply();
        assert!(driver.waiters.is_empty());
    }
}
