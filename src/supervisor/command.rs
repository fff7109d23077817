//! Commands to the machine, and what comes of them.

use std::task::Poll;

use tokio::time::Instant;

use super::entry::{Cause, ChildId, Down, Entry, State, Then};
use super::error::CommandError;
use super::machine::{Machine, Phase};

/// What somebody who gave a command waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// This incarnation, or a later one, is up.
    Up(u64),
    /// This incarnation has ended.
    Down(u64),
    Gone,
}

/// What came of it, if it has come.
pub(super) type Came = Poll<Result<(), CommandError>>;

/// A command on a child that there is.
pub(super) type Order = fn(&mut Machine, ChildId, Instant) -> Goal;

impl Machine {
    /// Whether what a command was for has come true.
    pub(super) fn came(&self, id: ChildId, name: &str, goal: Goal) -> Came {
        match (goal, self.entries.get(id)) {
            (Goal::Up(_), None) => Poll::Ready(Err(CommandError::Stopped(name.to_owned()))),
            (_, None) => Poll::Ready(Ok(())),
            (Goal::Gone, Some(_)) => Poll::Pending,
            (Goal::Down(generation), Some(_)) => match self.current(id, generation) {
                Some(_) => Poll::Pending,
                None => Poll::Ready(Ok(())),
            },
            (Goal::Up(_), Some(_)) if self.phase != Phase::Running => {
                Poll::Ready(Err(CommandError::SupervisorStopping))
            }
            (Goal::Up(generation), Some(entry)) => came_up(entry, name, generation),
        }
    }

    /// Starts a child that was just added.
    pub(super) fn start_added(&mut self, id: ChildId, now: Instant) -> Goal {
        self.start_now(id, Cause::Added, now);
        Goal::Up(1)
    }

    /// Starts a child that is down. One that waits out its backoff starts now.
    pub(super) fn start(&mut self, id: ChildId, now: Instant) -> Goal {
        let generation = self.entry(id).generation;
        match self.state(id) {
            State::Starting(_) | State::Up => return Goal::Up(generation),
            State::Doomed(Then::Stay)
            | State::Stopping {
                then: Then::Stay, ..
            } => self.entry(id).set_then(Then::Start(Cause::Command)),
            // The start that this would be is failing.
            State::Stopping {
                then: Then::Fail(Cause::Command | Cause::Added | Cause::Reload, _),
                ..
            } => return Goal::Up(generation),
            State::Stopping { .. }
            | State::Doomed(_)
            | State::Deciding
            | State::Down(Down::Waiting(_)) => {}
            State::BackingOff { .. } => {
                self.delay_over(id, now);
                self.advance(now);
            }
            State::Down(_) => self.start_now(id, Cause::Command, now),
        }
        Goal::Up(generation + 1)
    }

    /// Stops a child, and leaves it down.
    pub(super) fn stop(&mut self, id: ChildId, now: Instant) -> Goal {
        let then = self.entry(id).then_stay();
        self.take_down(id, then, now);
        self.advance(now);
        match self.entries.get(id) {
            Some(entry) => Goal::Down(entry.generation),
            None => Goal::Gone,
        }
    }

    /// Stops a child and removes it.
    pub(super) fn remove(&mut self, id: ChildId, now: Instant) -> Goal {
        self.take_down(id, Then::Remove, now);
        self.advance(now);
        Goal::Gone
    }

    /// Stops a child and starts it again; one that is down is started.
    pub(super) fn restart(&mut self, id: ChildId, now: Instant) -> Goal {
        let entry = self.entry(id);
        let generation = entry.generation;
        match entry.state {
            State::Starting(_) | State::Up => {
                let then = match self.starts.contains(&id) {
                    true => Then::Wait(Cause::Reload),
                    false => Then::Start(Cause::Reload),
                };
                self.stop_now(id, then, now);
                self.advance(now);
                Goal::Up(generation + 1)
            }
            State::Doomed(Then::Stay)
            | State::Stopping {
                then: Then::Stay, ..
            } => {
                entry.set_then(Then::Start(Cause::Reload));
                Goal::Up(generation + 1)
            }
            _ => self.start(id, now),
        }
    }

    fn take_down(&mut self, id: ChildId, then: Then, now: Instant) {
        self.starts.remove(&id);
        self.undelay(id);
        match self.state(id) {
            State::Down(_) | State::Deciding | State::BackingOff { .. } => match then {
                Then::Remove => self.forget(id),
                _ => {
                    if self.entry(id).is_active() {
                        self.set_down(id, Down::Stopped, now);
                    }
                }
            },
            State::Starting(_) | State::Up => self.stop_now(id, then, now),
            State::Doomed(Then::Remove)
            | State::Stopping {
                then: Then::Remove, ..
            } => {}
            State::Doomed(_) | State::Stopping { .. } => self.entry(id).set_then(then),
        }
    }
}

/// Whether a child has come up as whoever started it waits for.
fn came_up(entry: &Entry, name: &str, generation: u64) -> Came {
    let failed = || {
        let text = match entry.failures.back() {
            Some(failure) => failure.to_string(),
            None => "it ended before it was ready".to_owned(),
        };
        let child = name.to_owned();
        Poll::Ready(Err(CommandError::StartFailed { child, text }))
    };
    match entry.state {
        _ if entry.failed_start >= generation => failed(),
        State::Down(Down::Stopped) => Poll::Ready(Err(CommandError::Stopped(name.to_owned()))),
        // Final, whichever incarnation it was.
        State::Down(Down::Failed) => failed(),
        State::Down(Down::Ended) if entry.generation < generation => failed(),
        _ if entry.generation < generation => Poll::Pending,
        State::Up | State::Down(Down::Ended) | State::Deciding | State::BackingOff { .. } => {
            Poll::Ready(Ok(()))
        }
        State::Down(Down::Waiting(_))
        | State::Starting(_)
        | State::Doomed(_)
        | State::Stopping { .. } => Poll::Pending,
    }
}
