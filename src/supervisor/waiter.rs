//! `Waiter`: somebody who gave a command, and waits for what comes of it.

use tokio::time::Instant;

use super::child::Child;
use super::command::{Came, Goal};
use super::entry::ChildId;
use super::handle::CommandError;
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
    reply: Option<Reply>,
}

/// Why a child is not taken.
pub(super) enum Refused {
    DuplicateName,
    SignificantPermanent,
}

impl Refused {
    fn into_error(self, name: String) -> CommandError {
        match self {
            Refused::DuplicateName => CommandError::DuplicateName(name),
            Refused::SignificantPermanent => CommandError::SignificantPermanent(name),
        }
    }
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
            Command::Start(name) => self.command_on(name, reply, Machine::start),
            Command::Stop(name) => self.command_on(name, reply, Machine::stop),
            Command::Restart(name) => self.command_on(name, reply, Machine::restart),
            Command::Remove(name) => self.command_on(name, reply, Machine::remove),
            Command::Abort(name) => {
                let found = self.shared.machine.lock().find(&name);
                if let Some(incarnation) = found.and_then(|id| self.incarnation(id)) {
                    incarnation.task.abort();
                }
                let _ = reply.send(match found {
                    Some(_) => Ok(()),
                    None => Err(CommandError::UnknownChild(name)),
                });
            }
        }
    }

    pub(super) fn command_add(&mut self, child: Child<E>, reply: Reply) {
        let name = child.spec.name.to_string();
        match self.add(child, true, Instant::now()) {
            Ok(id) => self.command_at(id, name, true, reply, Machine::start_added),
            Err(refused) => {
                let _ = reply.send(Err(refused.into_error(name)));
            }
        }
    }

    pub(super) fn command_on(
        &mut self,
        name: String,
        reply: Reply,
        order: fn(&mut Machine, ChildId, Instant) -> Goal,
    ) {
        let found = self.shared.machine.lock().find(&name);
        match found {
            Some(id) => self.command_at(id, name, false, reply, order),
            None => {
                let _ = reply.send(Err(CommandError::UnknownChild(name)));
            }
        }
    }

    pub(super) fn command_at(
        &mut self,
        id: ChildId,
        name: String,
        is_add: bool,
        reply: Reply,
        order: fn(&mut Machine, ChildId, Instant) -> Goal,
    ) {
        let goal = self.step(|machine, now| order(machine, id, now));
        self.waiters.push(Waiter {
            id,
            goal,
            name,
            is_add,
            reply: Some(reply),
        });
        self.reply();
    }

    /// Replies to whoever waits for what has come true.
    pub(super) fn reply(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let mut waiters = std::mem::take(&mut self.waiters);
        waiters.retain_mut(|waiter| {
            let came = self.shared.machine.lock().came(waiter.id, waiter.goal);
            let name = || waiter.name.clone();
            let result = match came {
                Came::NotYet => return true,
                Came::Done => Ok(()),
                Came::Failed(text) => Err(CommandError::StartFailed {
                    child: name(),
                    text,
                }),
                Came::Stopped => Err(CommandError::Stopped(name())),
                Came::SupervisorStopping => Err(CommandError::SupervisorStopping),
            };
            let is_to_withdraw =
                waiter.is_add && matches!(result, Err(CommandError::StartFailed { .. }));
            if let Some(reply) = waiter.reply.take() {
                let _ = reply.send(result);
            }
            if is_to_withdraw {
                self.withdraw(waiter.id);
            }
            false
        });
        self.waiters.append(&mut waiters);
    }

    /// Removes a child that was added and failed to start.
    pub(super) fn withdraw(&mut self, id: ChildId) {
        self.shared.machine.lock().withdraw(id);
        self.carry_out_all(Instant::now());
    }
}
