//! Starting and stopping, in order.

use std::time::Duration;

use tokio::time::Instant;

use super::decision::{Decision, GiveUp};
use super::entry::{Cause, ChildId, Down, State, Then};
use super::machine::{Machine, Phase};
use super::strategy::Restart;
use super::strategy::Strategy;
use crate::error::Reason;

/// How long a child that was told to abort gets to come to its next await, if its grace was shorter.
pub(super) const YIELD: Duration = Duration::from_secs(1);

impl Machine {
    pub(super) fn start_now(&mut self, id: ChildId, cause: Cause, now: Instant) {
        let entry = self.entry(id);
        entry.generation += 1;
        entry.started_at = now;
        entry.restarts += u64::from(cause == Cause::Restart);
        let generation = entry.generation;
        let ready_within = entry.spec.ready_within;
        self.decisions.push_back(Decision::Start { id, generation });
        match ready_within {
            None => self.set_up(id, now),
            Some(limit) => self.set(id, State::Starting(cause), now.checked_add(limit), now),
        }
    }

    pub(super) fn set_up(&mut self, id: ChildId, now: Instant) {
        self.set(id, State::Up, None, now);
        self.starts.remove(&id);
    }

    pub(super) fn stop_now(&mut self, id: ChildId, then: Then, now: Instant) {
        let is_cut = self.is_cut;
        let spec = &self.entry(id).spec;
        let drain = match is_cut || matches!(then, Then::Fail(..)) {
            true => Duration::ZERO,
            false => spec.drain,
        };
        let timer = now
            .checked_add(drain)
            .and_then(|end| end.checked_add(spec.grace));
        let state = State::Stopping {
            then,
            is_aborted: false,
        };
        self.set(id, state, timer, now);
        self.decisions.push_back(Decision::Stop { id, drain });
    }

    /// The siblings of a child that is restarted, as far as the strategy takes them along.
    pub(super) fn sweep_siblings(&mut self, id: ChildId, now: Instant) {
        let mut swept = self.entries.ids();
        match self.strategy {
            Strategy::OneForOne => return,
            Strategy::OneForAll => {}
            Strategy::RestForOne => swept.retain(|&sibling| sibling > id),
        }
        for sibling in swept.into_iter().filter(|&sibling| sibling != id) {
            self.sweep(sibling, now);
        }
    }

    /// Takes a child along in a restart: stops it, and starts it again unless it is temporary.
    pub(super) fn sweep(&mut self, id: ChildId, now: Instant) {
        let entry = self.entry(id);
        let is_temporary = entry.spec.restart == Restart::Temporary;
        let then = match is_temporary {
            true => entry.then_stay(),
            false => Then::Wait(Cause::Restart),
        };
        if !entry.is_live() {
            if !is_temporary {
                self.undelay(id);
                // One that waits for its first start goes on to.
                if !matches!(self.state(id), State::Down(Down::Waiting(_))) {
                    self.set_down(id, Down::Waiting(Cause::Restart), now);
                }
                self.starts.insert(id);
            } else if self.starts.remove(&id) {
                self.set_down(id, Down::Stopped, now);
            }
            return;
        }
        match self.doom(id, then, now) {
            Then::Wait(_) => self.starts.insert(id),
            _ => self.starts.remove(&id),
        };
    }

    /// Takes a live child into the ordered stop. Returns what follows that.
    fn doom(&mut self, id: ChildId, then: Then, now: Instant) -> Then {
        self.stops.insert(id);
        match self.state(id) {
            State::Doomed(Then::Remove)
            | State::Stopping {
                then: Then::Remove, ..
            } => Then::Remove,
            State::Stopping { .. } => {
                self.entry(id).set_then(then);
                then
            }
            _ => {
                self.set(id, State::Doomed(then), None, now);
                then
            }
        }
    }

    pub(super) fn give_up(&mut self, id: ChildId, why: GiveUp, now: Instant) {
        self.decisions.push_back(Decision::GiveUp(id, why));
        self.shut_down(now);
    }

    /// Stops all, in reverse order.
    pub(super) fn shut_down(&mut self, now: Instant) {
        if self.phase != Phase::Running {
            return;
        }
        self.phase = Phase::Stopping;
        self.decisions.push_back(Decision::ShutDown);
        self.starts.clear();
        self.delayed = None;
        let ids = self.entries.ids();
        for id in ids {
            self.shut_down_child(id, now);
        }
        self.advance(now);
    }

    fn shut_down_child(&mut self, id: ChildId, now: Instant) {
        let entry = self.entry(id);
        let then = entry.then_stay();
        // Aborted, and the time that it had to come to an await is over.
        let is_overdue = entry.timer.is_none() && entry.is_aborted();
        if !entry.is_live() {
            if entry.is_active() {
                self.set_down(id, Down::Stopped, now);
            }
        } else if is_overdue {
            self.abandon(id, now);
        } else {
            self.doom(id, then, now);
        }
    }

    /// The supervisor's own context has ended. If it is stopping already, or hears of its stop only when the drain of that is
    /// over, the time for drains is over.
    pub(super) fn end(&mut self, reason: Reason, now: Instant) {
        if self.phase == Phase::Stopping || reason == Reason::Stopped {
            self.cut(now);
        }
        self.shut_down(now);
    }

    /// Ends what drains, and gives no drain to whoever is told later.
    pub(super) fn cut(&mut self, now: Instant) {
        if std::mem::replace(&mut self.is_cut, true) {
            return;
        }
        let stopping: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| {
                matches!(entry.state, State::Stopping { .. }) && !entry.is_aborted()
            })
            .map(|(id, _)| id)
            .collect();
        for id in stopping {
            let entry = self.entry(id);
            let end = now.checked_add(entry.spec.grace);
            let timer = match (entry.timer, end) {
                (Some(timer), Some(end)) => Some(timer.min(end)),
                (timer, end) => timer.or(end),
            };
            self.set_timer(id, timer);
            let drain = Duration::ZERO;
            self.decisions.push_back(Decision::Stop { id, drain });
        }
    }

    /// Goes on with the ordered stop, then with the ordered start.
    pub(super) fn advance(&mut self, now: Instant) {
        if let Some(&last) = self.stops.last() {
            if let State::Doomed(then) = self.state(last) {
                self.stop_now(last, then, now);
            }
            return;
        }
        if self.phase == Phase::Stopping {
            self.phase = Phase::Over;
        }
        while let Some(&first) = self.starts.first() {
            match self.state(first) {
                State::Down(Down::Waiting(cause)) if self.delayed.is_none() => {
                    self.start_now(first, cause, now);
                }
                _ => return,
            }
        }
    }
}
