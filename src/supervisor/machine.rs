//! `Machine`: what a supervisor decides, as plain data: events in, decisions out. It knows neither clock nor runtime, runs no
//! foreign code, and so may lie under a lock.
//!
//! The driver (`run.rs`) tells it what happens, with the time, and carries out the decisions in their order.
//!
//! Two kinds of order are kept. `stops` holds the children of an ordered stop that have not ended: the last of them is told to
//! stop, and when it has ended the next. `starts` holds those that start in order, once `stops` is empty: the first is
//! started, and when it is up the next. A child that is started or stopped for its own sake is in neither.
//!
//! Invariants:
//!
//! 1. A child has at most one incarnation that has not ended; the next is started after the end of the one before.
//! 2. `stops` are live children, `Doomed` or `Stopping`; every `Doomed` child is in it. `starts` are children that are
//!    `Waiting`, `Deciding` or `BackingOff` for a restart of several, `Starting`, or not yet stopped and to wait after that.
//! 3. At most one child of `starts` is waited for before any starts, `delayed`: it whose failure the restart is for.
//! 4. `timers` holds exactly the entries' timers.
//! 5. Once stopping, nothing is started, and `starts` is empty.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::child::Restart;
use super::entry::{Cause, ChildId, Down, Entry, Exit, NotReady, Spec, State, Then};
use super::intensity::{Intensity, Verdict};
use super::names::NameKey;
use super::strategy::{AutoShutdown, Strategy};

/// How long a child that was told to abort gets to come to its next await, if its grace was shorter.
pub(super) const YIELD: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) strategy: Strategy,
    pub(super) auto_shutdown: AutoShutdown,
    pub(super) intensity: Intensity,
    pub(super) entries: BTreeMap<ChildId, Entry>,
    names: HashMap<NameKey, ChildId>,
    last_id: u64,
    pub(super) timers: BTreeSet<(Instant, ChildId)>,
    pub(super) stops: BTreeSet<ChildId>,
    pub(super) starts: BTreeSet<ChildId>,
    delayed: Option<ChildId>,
    pub(super) phase: Phase,
    /// No child is given its drain any more.
    is_cut: bool,
    decisions: VecDeque<Decision>,
    /// What the child failed of whose end was told last; `None` if it ended without a failure.
    pub(super) last_failure: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    Stopping,
    Over,
}

/// What the driver has to do, or to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Start {
        id: ChildId,
        generation: u64,
    },
    /// Begin to stop the child; its context ends when the drain is over.
    Stop {
        id: ChildId,
        drain: Duration,
    },
    /// The grace is over.
    Abort(ChildId),
    /// It has been aborted, and does not come to an await. Nobody waits for it any longer.
    Abandon(ChildId),
    /// Say how long to wait before the restart: `delay` is to be called.
    Delay {
        id: ChildId,
        is_reset: bool,
    },
    /// The supervisor fails.
    GiveUp(ChildId, GiveUp),
    /// A child was removed.
    Remove(ChildId),
    /// All children are being stopped.
    ShutDown,
    /// Nothing to do.
    Told(ChildId, Notice),
}

/// A change that is only told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    Ready,
    BackingOff(Duration),
    /// Ended by itself, with a failure or without.
    Failed,
    Finished,
    Stopped,
}

/// Why a supervisor fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GiveUp {
    /// So many restarts within the period.
    Intensity(usize),
    /// There is no further delay.
    Backoff,
    /// A child failed before it was ready when the supervisor started.
    Start,
    /// A significant child failed.
    Significant,
}

/// What somebody who gave a command waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// This incarnation, or a later one, is up.
    Up(u64),
    /// This incarnation has ended.
    Down(u64),
    Gone,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Came {
    NotYet,
    Done,
    Failed(String),
    Stopped,
    SupervisorStopping,
}

impl Machine {
    pub(super) fn new(
        strategy: Strategy,
        auto_shutdown: AutoShutdown,
        intensity: Intensity,
    ) -> Self {
        Self {
            strategy,
            auto_shutdown,
            intensity,
            entries: BTreeMap::new(),
            names: HashMap::new(),
            last_id: 0,
            timers: BTreeSet::new(),
            stops: BTreeSet::new(),
            starts: BTreeSet::new(),
            delayed: None,
            phase: Phase::Running,
            is_cut: false,
            decisions: VecDeque::new(),
            last_failure: None,
        }
    }

    // What is asked of it.

    pub(super) fn decide(&mut self) -> Option<Decision> {
        self.decisions.pop_front()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    pub(super) fn find(&self, name: &str) -> Option<ChildId> {
        self.names.get(name).copied()
    }

    pub(super) fn is_all_up(&self) -> bool {
        self.phase == Phase::Running
            && self
                .entries
                .values()
                .all(|entry| entry.public_state().is_up())
    }

    /// Whether what a command was for has come true.
    pub(super) fn came(&self, id: ChildId, goal: Goal) -> Came {
        let Some(entry) = self.entries.get(&id) else {
            return match goal {
                Goal::Up(_) => Came::Stopped,
                Goal::Down(_) | Goal::Gone => Came::Done,
            };
        };
        match goal {
            Goal::Gone => Came::NotYet,
            Goal::Down(generation) => match entry.is_live() && entry.generation == generation {
                true => Came::NotYet,
                false => Came::Done,
            },
            Goal::Up(_) if self.phase != Phase::Running => Came::SupervisorStopping,
            Goal::Up(generation) => came_up(entry, generation),
        }
    }

    // Children.

    /// Takes a child; gives the spec back if there is one of its name.
    pub(super) fn add(
        &mut self,
        spec: Spec,
        is_dynamic: bool,
        now: Instant,
    ) -> Result<ChildId, Spec> {
        let key = NameKey(spec.name.clone());
        if self.names.contains_key(&key) {
            return Err(spec);
        }
        self.last_id += 1;
        let id = ChildId(self.last_id);
        self.names.insert(key, id);
        self.entries.insert(id, Entry::new(spec, is_dynamic, now));
        Ok(id)
    }

    fn forget(&mut self, id: ChildId) {
        self.set_timer(id, None);
        self.starts.remove(&id);
        self.stops.remove(&id);
        self.undelay(id);
        if let Some(entry) = self.entries.remove(&id) {
            self.names.remove(&NameKey(entry.spec.name));
            self.decisions.push_back(Decision::Remove(id));
        }
    }

    pub(super) fn entry(&mut self, id: ChildId) -> &mut Entry {
        let entry = self.entries.get_mut(&id);
        entry.expect("errgroup: whoever names a child has found it")
    }

    fn state(&self, id: ChildId) -> State {
        self.entries[&id].state
    }

    fn set(&mut self, id: ChildId, state: State, timer: Option<Instant>, now: Instant) {
        let entry = self.entry(id);
        entry.state = state;
        entry.since = now;
        self.set_timer(id, timer);
    }

    fn set_timer(&mut self, id: ChildId, timer: Option<Instant>) {
        let before = std::mem::replace(&mut self.entry(id).timer, timer);
        if before == timer {
            return;
        }
        if let Some(at) = before {
            self.timers.remove(&(at, id));
        }
        if let Some(at) = timer {
            self.timers.insert((at, id));
        }
    }

    pub(super) fn set_down(&mut self, id: ChildId, down: Down, now: Instant) {
        self.set(id, State::Down(down), None, now);
    }

    pub(super) fn undelay(&mut self, id: ChildId) {
        if self.delayed == Some(id) {
            self.delayed = None;
        }
    }

    fn tell(&mut self, id: ChildId, notice: Notice) {
        self.decisions.push_back(Decision::Told(id, notice));
    }

    // Events.

    /// The supervisor starts: all that were added so far, in order.
    pub(super) fn begin(&mut self, now: Instant) {
        let ids: Vec<_> = self.entries.keys().copied().collect();
        for id in ids {
            self.set_down(id, Down::Waiting, now);
            self.starts.insert(id);
        }
        self.advance(now);
    }

    /// The child has said that it is ready.
    pub(super) fn ready(&mut self, id: ChildId, generation: u64, now: Instant) {
        if let Some(State::Starting(_)) = self.current(id, generation) {
            self.set_up(id, now);
            self.tell(id, Notice::Ready);
            self.advance(now);
        }
    }

    /// The child has dropped its `Ready`.
    pub(super) fn not_ready(&mut self, id: ChildId, generation: u64, now: Instant) {
        if let Some(State::Starting(cause)) = self.current(id, generation) {
            self.stop_unready(id, Then::Fail(cause, NotReady::Dropped), now);
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

    /// Returns whether it is a failure.
    fn record(&mut self, id: ChildId, exit: Exit, why: Option<NotReady>, now: Instant) -> bool {
        let failure = self.entry(id).record(exit, why, now);
        let is_failure = failure.is_some();
        self.last_failure = failure;
        is_failure
    }

    /// The state of the child, if it is this incarnation that lives.
    fn current(&self, id: ChildId, generation: u64) -> Option<State> {
        let entry = self.entries.get(&id)?;
        (entry.is_live() && entry.generation == generation).then_some(entry.state)
    }

    /// A child that nobody told to stop has ended. OTP's `do_restart`.
    fn ended_by_itself(&mut self, id: ChildId, is_failure: bool, now: Instant) {
        self.tell(
            id,
            match is_failure {
                true => Notice::Failed,
                false => Notice::Finished,
            },
        );
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
        self.settle(id, is_failure, now);
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

    fn settle(&mut self, id: ChildId, is_failure: bool, now: Instant) {
        let down = match is_failure {
            true => Down::Failed,
            false => Down::Ended,
        };
        self.set_down(id, down, now);
    }

    /// A significant child has ended by itself: whether the supervisor stops for it.
    fn is_end_for_all(&self) -> bool {
        match self.auto_shutdown {
            AutoShutdown::AnySignificant => true,
            AutoShutdown::AllSignificant => {
                let mut entries = self.entries.values();
                !entries.any(|entry| entry.spec.is_significant && entry.is_active())
            }
        }
    }

    /// A child is to be restarted for its own end, and others with it.
    fn restart_after_end(&mut self, id: ChildId, now: Instant) {
        if let Verdict::Exceeded(count) = self.intensity.count(now) {
            self.set_down(id, Down::Failed, now);
            return self.give_up(id, GiveUp::Intensity(count), now);
        }
        self.set(id, State::Deciding, None, now);
        if self.strategy != Strategy::OneForOne {
            self.sweep_siblings(id, now);
            self.starts.insert(id);
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
        if !matches!(self.entries.get(&id), Some(entry) if entry.state == State::Deciding) {
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
                self.tell(id, Notice::BackingOff(delay));
            }
        }
        self.advance(now);
    }

    fn delay_over(&mut self, id: ChildId, now: Instant) {
        self.undelay(id);
        match self.starts.contains(&id) {
            true => self.set_down(id, Down::Waiting, now),
            false => self.start_now(id, Cause::Restart, now),
        }
    }

    /// A child that was to become ready did not.
    fn start_failed(&mut self, id: ChildId, cause: Cause, now: Instant) {
        let entry = self.entry(id);
        entry.failed_start = entry.generation;
        match cause {
            Cause::Restart | Cause::Reload => self.ended_by_itself(id, true, now),
            Cause::Initial => {
                self.tell(id, Notice::Failed);
                self.set_down(id, Down::Failed, now);
                self.give_up(id, GiveUp::Start, now);
            }
            Cause::Command | Cause::Added => {
                self.tell(id, Notice::Failed);
                self.starts.remove(&id);
                self.set_down(id, Down::Failed, now);
            }
        }
    }

    /// Removes a child whose first start failed, after that was told to whoever added it.
    pub(super) fn withdraw(&mut self, id: ChildId) {
        if self.entries.contains_key(&id) && !self.entries[&id].is_live() {
            self.forget(id);
        }
    }

    /// A child that was told to stop has ended.
    fn stopped(&mut self, id: ChildId, then: Then, now: Instant) {
        self.tell(id, Notice::Stopped);
        match then {
            Then::Start(cause) if self.phase == Phase::Running => self.start_now(id, cause, now),
            Then::Wait if self.phase == Phase::Running => self.set_down(id, Down::Waiting, now),
            Then::Remove => self.forget(id),
            Then::Stay | Then::Start(_) | Then::Wait | Then::Fail(..) => {
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

    fn time_over(&mut self, id: ChildId, now: Instant) {
        match self.state(id) {
            State::BackingOff { .. } => self.delay_over(id, now),
            State::Starting(cause) => {
                self.stop_unready(id, Then::Fail(cause, NotReady::TimedOut), now);
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
    fn abandon(&mut self, id: ChildId, now: Instant) {
        self.stops.remove(&id);
        self.decisions.push_back(Decision::Abandon(id));
        self.set_down(id, Down::Stopped, now);
    }

    // Starting and stopping.

    fn start_now(&mut self, id: ChildId, cause: Cause, now: Instant) {
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

    fn set_up(&mut self, id: ChildId, now: Instant) {
        self.set(id, State::Up, None, now);
        self.starts.remove(&id);
    }

    fn stop_now(&mut self, id: ChildId, then: Then, now: Instant) {
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

    /// A child that is not ready, and will not be. It keeps its place in `starts`: the next waits until it has failed.
    fn stop_unready(&mut self, id: ChildId, then: Then, now: Instant) {
        self.stop_now(id, then, now);
    }

    /// The siblings of a child that is restarted, as far as the strategy takes them along.
    fn sweep_siblings(&mut self, id: ChildId, now: Instant) {
        let swept: Vec<_> = match self.strategy {
            Strategy::OneForOne => return,
            Strategy::OneForAll => self.entries.keys().copied().collect(),
            Strategy::RestForOne => self.entries.range(id..).map(|(&id, _)| id).collect(),
        };
        for sibling in swept.into_iter().filter(|&sibling| sibling != id) {
            self.sweep(sibling, now);
        }
    }

    /// Takes a child along in a restart: stops it, and starts it again unless it is temporary.
    fn sweep(&mut self, id: ChildId, now: Instant) {
        let entry = self.entry(id);
        let is_temporary = entry.spec.restart == Restart::Temporary;
        let then = match is_temporary {
            true => entry.then_stay(),
            false => Then::Wait,
        };
        match entry.state {
            State::Deciding | State::BackingOff { .. } | State::Down(_) => {
                if !is_temporary {
                    self.undelay(id);
                    self.set_down(id, Down::Waiting, now);
                    self.starts.insert(id);
                } else if self.starts.remove(&id) {
                    self.set_down(id, Down::Stopped, now);
                }
                return;
            }
            State::Starting(_) | State::Up | State::Doomed(_) => {
                self.set(id, State::Doomed(then), None, now);
            }
            State::Stopping {
                then: Then::Remove, ..
            } => {}
            State::Stopping { is_aborted, .. } => {
                entry.state = State::Stopping { then, is_aborted };
            }
        }
        self.stops.insert(id);
        match self.then(id) {
            Some(Then::Wait) => self.starts.insert(id),
            _ => self.starts.remove(&id),
        };
    }

    /// What follows the stop that is due or under way.
    fn then(&self, id: ChildId) -> Option<Then> {
        match self.state(id) {
            State::Doomed(then) | State::Stopping { then, .. } => Some(then),
            _ => None,
        }
    }

    fn give_up(&mut self, id: ChildId, why: GiveUp, now: Instant) {
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
        let ids: Vec<_> = self.entries.keys().copied().collect();
        for id in ids {
            self.doom(id, now);
        }
        self.advance(now);
    }

    fn doom(&mut self, id: ChildId, now: Instant) {
        let entry = self.entry(id);
        let then = entry.then_stay();
        match entry.state {
            State::Down(Down::Waiting) | State::Deciding | State::BackingOff { .. } => {
                return self.set_down(id, Down::Stopped, now);
            }
            State::Down(_) => return,
            State::Starting(_) | State::Up | State::Doomed(_) => {
                self.set(id, State::Doomed(then), None, now);
            }
            State::Stopping { is_aborted, .. } => {
                let is_overdue = is_aborted && entry.timer.is_none();
                entry.state = State::Stopping { then, is_aborted };
                if is_overdue {
                    return self.abandon(id, now);
                }
            }
        }
        self.stops.insert(id);
    }

    /// The supervisor's own context has ended. If it is stopping already, the time for that is over.
    pub(super) fn end(&mut self, now: Instant) {
        match self.phase {
            Phase::Running => self.shut_down(now),
            Phase::Stopping => self.cut(now),
            Phase::Over => {}
        }
    }

    /// Ends what drains, and gives no drain to whoever is told later.
    fn cut(&mut self, now: Instant) {
        if std::mem::replace(&mut self.is_cut, true) {
            return;
        }
        let stopping: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| {
                matches!(
                    entry.state,
                    State::Stopping {
                        is_aborted: false,
                        ..
                    }
                )
            })
            .map(|(&id, _)| id)
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
    fn advance(&mut self, now: Instant) {
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
            if self.delayed.is_some() || self.state(first) != State::Down(Down::Waiting) {
                return;
            }
            let cause = match self.entries[&first].generation {
                0 => Cause::Initial,
                _ => Cause::Restart,
            };
            self.start_now(first, cause, now);
        }
    }

    // Commands.

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
            State::Stopping {
                then: Then::Stay,
                is_aborted,
            } => {
                let then = Then::Start(Cause::Command);
                self.entry(id).state = State::Stopping { then, is_aborted };
            }
            State::Stopping { .. }
            | State::Doomed(_)
            | State::Deciding
            | State::Down(Down::Waiting) => {}
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
        match self.entries.get(&id) {
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
                    true => Then::Wait,
                    false => Then::Start(Cause::Reload),
                };
                self.stop_now(id, then, now);
                self.advance(now);
                Goal::Up(generation + 1)
            }
            State::Stopping {
                then: Then::Stay,
                is_aborted,
            } => {
                let then = Then::Start(Cause::Reload);
                entry.state = State::Stopping { then, is_aborted };
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
            State::Doomed(_) => self.entry(id).state = State::Doomed(then),
            State::Stopping {
                then: Then::Remove, ..
            } => {}
            State::Stopping { is_aborted, .. } => {
                self.entry(id).state = State::Stopping { then, is_aborted };
            }
        }
    }
}

/// Whether a child has come up as whoever started it waits for.
fn came_up(entry: &Entry, generation: u64) -> Came {
    let failed = || match entry.failures.back() {
        Some(failure) => Came::Failed(failure.to_string()),
        None => Came::Failed("it ended before it was ready".to_owned()),
    };
    match entry.state {
        _ if entry.failed_start >= generation => failed(),
        State::Down(Down::Stopped) => Came::Stopped,
        _ if entry.generation < generation => Came::NotYet,
        State::Up | State::Down(Down::Ended) | State::Deciding | State::BackingOff { .. } => {
            Came::Done
        }
        State::Down(Down::Failed) => failed(),
        State::Down(Down::Waiting)
        | State::Starting(_)
        | State::Doomed(_)
        | State::Stopping { .. } => Came::NotYet,
    }
}
