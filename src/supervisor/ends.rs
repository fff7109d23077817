//! What follows of an end: the machine's answers to what happens to a child.

use std::time::Duration;

use tokio::time::Instant;

use super::decision::{Decision, GiveUp};
use super::entry::{Cause, ChildId, Down, Exit, NotReady, State, Then};
use super::event::SupervisorEventKind;
use super::intensity::Verdict;
use super::machine::{Machine, Phase};
use super::order::YIELD;
use super::strategy::Restart;
use super::strategy::{AutoShutdown, Strategy};

impl Machine {
    /// The supervisor starts: all that were added so far, in order.
    pub(super) fn begin(&mut self, now: Instant) {
        self.has_begun = true;
        for id in self.entries.ids() {
            // Those that wait for nobody need no place in line.
            if self.starts.is_empty() && self.known(id).spec.ready_within.is_none() {
                self.start_now(id, Cause::Initial, now);
            } else {
                self.set_down(id, Down::Waiting(Cause::Initial), now);
                self.starts.insert(id);
            }
        }
        self.advance(now);
    }

    /// The child has said that it is ready, or has dropped its `Ready`.
    pub(super) fn readiness(&mut self, id: ChildId, generation: u64, is_ready: bool, now: Instant) {
        let Some(State::Starting(cause)) = self.current(id, generation) else {
            return;
        };
        if is_ready {
            self.set_up(id, now);
            self.tell(id, SupervisorEventKind::Ready);
            self.advance(now);
        } else {
            self.stop_now(id, Then::Fail(cause, NotReady::Dropped), now);
        }
    }

    /// An incarnation has ended. Of how it ended, the machine keeps the text.
    pub(super) fn ended(&mut self, id: ChildId, generation: u64, exit: Exit, now: Instant) {
        let Some(state) = self.current(id, generation) else {
            return;
        };
        self.stops.remove(&id);
        match state {
            State::Starting(cause) => {
                self.record(id, exit, Some(NotReady::Dropped), now);
                self.start_failed(id, cause, now);
            }
            State::Up => {
                let is_failure = self.record(id, exit, None, now);
                self.ended_by_itself(id, is_failure, now);
            }
            State::Stopping {
                then: Then::Fail(cause, why),
                ..
            } => {
                self.record(id, exit, Some(why), now);
                self.start_failed(id, cause, now);
            }
            State::Doomed(then) | State::Stopping { then, .. } => {
                if exit != Exit::Aborted {
                    self.record(id, exit, None, now);
                }
                self.stopped(id, then, now);
            }
            State::Down(_) | State::Deciding | State::BackingOff { .. } => {}
        }
        self.advance(now);
    }

    fn tell_failure(&mut self, id: ChildId) {
        let text = self.last_failure.clone().unwrap_or_default();
        self.tell(id, SupervisorEventKind::Failed(text));
    }

    /// Returns whether it is a failure.
    pub(super) fn record(
        &mut self,
        id: ChildId,
        exit: Exit,
        why: Option<NotReady>,
        now: Instant,
    ) -> bool {
        let failure = self.entry(id).record(exit, why, now);
        let is_failure = failure.is_some();
        self.last_failure = failure;
        is_failure
    }

    /// The state of the child, if it is this incarnation that lives.
    pub(super) fn current(&self, id: ChildId, generation: u64) -> Option<State> {
        let entry = self.entries.get(id)?;
        (entry.is_live() && entry.generation == generation).then_some(entry.state)
    }

    /// A child that nobody told to stop has ended. OTP's `do_restart`.
    pub(super) fn ended_by_itself(&mut self, id: ChildId, is_failure: bool, now: Instant) {
        // It holds up nobody any longer.
        self.starts.remove(&id);
        match is_failure {
            true => self.tell_failure(id),
            false => self.tell(id, SupervisorEventKind::Finished),
        }
        let spec = &self.entry(id).spec;
        let is_restarted = match spec.restart {
            Restart::Permanent => true,
            Restart::Transient => is_failure,
            Restart::Temporary => false,
        };
        if is_restarted {
            return self.restart_after_end(id, now);
        }
        let is_significant = spec.is_significant;
        let down = match is_failure {
            true => Down::Failed,
            false => Down::Ended,
        };
        self.set_down(id, down, now);
        if is_significant && self.phase == Phase::Running && self.is_end_for_all() {
            match is_failure {
                true => self.give_up(id, GiveUp::Significant, now),
                false => self.shut_down(now),
            }
        }
        if self.entry(id).is_forgotten_when_down() {
            self.forget(id);
        }
    }

    /// A significant child has ended by itself: whether the supervisor stops for it.
    pub(super) fn is_end_for_all(&self) -> bool {
        match self.auto_shutdown {
            AutoShutdown::AnySignificant => true,
            AutoShutdown::AllSignificant => {
                let mut entries = self.entries.values();
                !entries.any(|entry| entry.spec.is_significant && entry.is_active())
            }
        }
    }

    /// A child is to be restarted for its own end, and others with it.
    pub(super) fn restart_after_end(&mut self, id: ChildId, now: Instant) {
        if let Verdict::Exceeded(count) = self.intensity.count(now) {
            self.set_down(id, Down::Failed, now);
            return self.give_up(id, GiveUp::Intensity(count), now);
        }
        self.set(id, State::Deciding, None, now);
        if self.strategy != Strategy::OneForOne {
            self.sweep_siblings(id, now);
            self.starts.insert(id);
        }
        if self.strategy == Strategy::OneForAll {
            self.delayed = Some(id);
        }
        let entry = self.entry(id);
        if entry.spec.has_backoff {
            let up = now.saturating_duration_since(entry.started_at);
            let is_reset = up >= entry.spec.reset_after;
            self.decisions.push_back(Decision::Delay { id, is_reset });
        } else {
            self.delay_over(id, now);
        }
    }

    /// The answer to `Decision::Delay`.
    pub(super) fn delay(&mut self, id: ChildId, delay: Option<Duration>, now: Instant) {
        if !matches!(self.entries.get(id), Some(entry) if entry.state == State::Deciding) {
            return;
        }
        match delay {
            None => {
                self.set_down(id, Down::Failed, now);
                self.give_up(id, GiveUp::Backoff, now);
            }
            Some(delay) if delay.is_zero() => self.delay_over(id, now),
            Some(delay) => {
                // Further than the clock can tell is never, as in tokio's timers.
                let until = now
                    .checked_add(delay)
                    .unwrap_or_else(|| now + Duration::from_secs(86_400 * 365 * 30));
                self.set(id, State::BackingOff { until }, Some(until), now);
                self.tell(id, SupervisorEventKind::BackingOff(delay));
            }
        }
        self.advance(now);
    }

    pub(super) fn delay_over(&mut self, id: ChildId, now: Instant) {
        self.undelay(id);
        match self.starts.contains(&id) {
            true => self.set_down(id, Down::Waiting(Cause::Restart), now),
            false => self.start_now(id, Cause::Restart, now),
        }
    }

    /// A child that was to become ready did not.
    pub(super) fn start_failed(&mut self, id: ChildId, cause: Cause, now: Instant) {
        let entry = self.entry(id);
        entry.failed_start = entry.generation;
        match cause {
            Cause::Restart | Cause::Reload => self.ended_by_itself(id, true, now),
            Cause::Initial => {
                self.tell_failure(id);
                self.set_down(id, Down::Failed, now);
                self.give_up(id, GiveUp::Start, now);
            }
            Cause::Command | Cause::Added => {
                self.tell_failure(id);
                self.starts.remove(&id);
                self.set_down(id, Down::Failed, now);
            }
        }
    }

    /// Removes a child whose first start failed, after that was told to whoever added it. A restart of several may have
    /// started it again by then.
    pub(super) fn withdraw(&mut self, id: ChildId, now: Instant) {
        if self.entries.get(id).is_some() {
            self.remove(id, now);
        }
    }

    /// A child that was told to stop has ended.
    pub(super) fn stopped(&mut self, id: ChildId, then: Then, now: Instant) {
        self.tell(id, SupervisorEventKind::Stopped);
        match then {
            Then::Start(cause) if self.phase == Phase::Running => self.start_now(id, cause, now),
            Then::Wait(cause) if self.phase == Phase::Running => {
                self.set_down(id, Down::Waiting(cause), now);
            }
            Then::Remove => self.forget(id),
            Then::Stay | Then::Start(_) | Then::Wait(_) | Then::Fail(..) => {
                self.set_down(id, Down::Stopped, now);
            }
        }
    }

    /// A timer is due.
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.timers.first() {
            if at > now {
                break;
            }
            self.set_timer(id, None);
            self.time_over(id, now);
        }
        self.advance(now);
    }

    pub(super) fn time_over(&mut self, id: ChildId, now: Instant) {
        match self.state(id) {
            State::BackingOff { .. } => self.delay_over(id, now),
            State::Starting(cause) => {
                self.stop_now(id, Then::Fail(cause, NotReady::TimedOut), now);
            }
            State::Stopping {
                then,
                is_aborted: false,
            } => {
                self.decisions.push_back(Decision::Abort(id));
                let entry = self.entry(id);
                entry.state = State::Stopping {
                    then,
                    is_aborted: true,
                };
                let timer = now.checked_add(entry.spec.grace.max(YIELD));
                self.set_timer(id, timer);
            }
            State::Stopping {
                is_aborted: true, ..
            } if self.phase == Phase::Stopping => self.abandon(id, now),
            _ => {}
        }
    }

    /// Whoever waits for the end of the supervisor does not wait for this one. A restart does: two incarnations of a child
    /// never run side by side.
    pub(super) fn abandon(&mut self, id: ChildId, now: Instant) {
        self.stops.remove(&id);
        self.decisions.push_back(Decision::Abandon(id));
        self.set_down(id, Down::Stopped, now);
    }
}
