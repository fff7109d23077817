//! `Shared`: what a supervisor, its children and its handles have in common. `Message`: what the others tell the supervisor.
//!
//! The locks are leaves, and no foreign code runs under them: the machine is plain data. Messages, which may carry a child's
//! error or function, are dropped outside.

use std::sync::Arc;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;

use super::child::Child;
use super::command::Order;
use super::entry::ChildId;
use super::machine::{Machine, Phase};
use super::ready::Listen;
use super::service::Outcome;
use crate::group::{Name, Straggler};
use crate::panic::discard;
use crate::sync::Mutex;

pub(super) struct Shared<E> {
    pub(super) name: Option<Name>,
    pub(super) machine: Mutex<Machine>,
    /// Those of the supervisor's own stop. `None`: of a group that a child left behind.
    pub(super) stragglers: Mutex<Vec<(Option<ChildId>, Straggler)>>,
    pub(super) outbox: UnboundedSender<Message<E>>,
}

pub(super) enum Message<E> {
    Readiness {
        id: ChildId,
        generation: u64,
        is_ready: bool,
    },
    Ended {
        id: ChildId,
        generation: u64,
        outcome: Outcome<E>,
    },
    Command {
        command: Command<E>,
        reply: Reply,
    },
}

pub(super) enum Command<E> {
    Add(Box<Child<E>>),
    Order(String, Order),
    Abort(String),
}

pub(super) type Reply = oneshot::Sender<Result<(), super::error::CommandError>>;

impl<E> Shared<E> {
    /// Sends a message; it is dropped if the supervisor is gone.
    pub(super) fn send(&self, message: Message<E>) {
        if let Err(refused) = self.outbox.send(message) {
            discard(refused);
        }
    }
}

impl<E: Send> Listen for Shared<E> {
    fn readiness(&self, id: ChildId, generation: u64, is_ready: bool) {
        self.send(Message::Readiness {
            id,
            generation,
            is_ready,
        });
    }
}

/// Says that the supervisor is gone, although nobody has stopped it: its future was dropped.
pub(super) struct Gone<E>(pub(super) Arc<Shared<E>>);

impl<E> Drop for Gone<E> {
    fn drop(&mut self) {
        self.0.machine.lock().phase = Phase::Over;
    }
}

/// The supervisor's end of the messages. What is left is dropped with each message's panic contained.
pub(super) struct Inbox<E>(pub(super) UnboundedReceiver<Message<E>>);

impl<E> Drop for Inbox<E> {
    fn drop(&mut self) {
        self.0.close();
        // One that is being sent at this moment is waited for: nobody else would answer it.
        loop {
            match self.0.try_recv() {
                Ok(message) => discard(message),
                Err(TryRecvError::Empty) => std::thread::yield_now(),
                Err(TryRecvError::Disconnected) => return,
            }
        }
    }
}
