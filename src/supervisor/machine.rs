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
//! 3. In a restart of all, none starts before the delay of the child that it is for, `delayed`, is over. In a restart of the
//!    rest that child is the first of `starts`.
//! 4. `timers` holds exactly the entries' timers.
//! 5. Once stopping, nothing is started, and `starts` is empty.

use std::collections::{BTreeSet, HashMap, VecDeque};

use tokio::time::Instant;

use super::decision::Decision;
use super::entry::{ChildId, Down, Entry, Spec, State};
use super::event::SupervisorEventKind;
use super::id_map::IdMap;
use super::intensity::Intensity;
use super::names::NameKey;
use super::strategy::{AutoShutdown, Strategy};

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) strategy: Strategy,
    pub(super) auto_shutdown: AutoShutdown,
    pub(super) intensity: Intensity,
    pub(super) entries: IdMap<Entry>,
    names: HashMap<NameKey, ChildId>,
    last_id: u64,
    pub(super) timers: BTreeSet<(Instant, ChildId)>,
    pub(super) stops: BTreeSet<ChildId>,
    pub(super) starts: BTreeSet<ChildId>,
    /// `None` but for a restart of all.
    pub(super) delayed: Option<ChildId>,
    pub(super) phase: Phase,
    pub(super) has_begun: bool,
    /// No child is given its drain any more.
    pub(super) is_cut: bool,
    pub(super) decisions: VecDeque<Decision>,
    /// What the child failed of whose end was told last; `None` if it ended without a failure.
    pub(super) last_failure: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    Stopping,
    Over,
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
            entries: IdMap::new(),
            names: HashMap::new(),
            last_id: 0,
            timers: BTreeSet::new(),
            stops: BTreeSet::new(),
            starts: BTreeSet::new(),
            delayed: None,
            phase: Phase::Running,
            has_begun: false,
            is_cut: false,
            decisions: VecDeque::new(),
            last_failure: None,
        }
    }

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
        self.has_begun
            && self.phase == Phase::Running
            && self
                .entries
                .values()
                .all(|entry| entry.public_state().is_up())
    }

    /// Makes room for so many more children.
    pub(super) fn reserve(&mut self, more: usize) {
        self.entries.reserve(more);
        self.names.reserve(more);
        // Each is started, or told to stop.
        self.decisions.reserve(more);
    }

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
        self.entries.push(id, Entry::new(spec, is_dynamic, now));
        Ok(id)
    }

    pub(super) fn forget(&mut self, id: ChildId) {
        self.set_timer(id, None);
        self.starts.remove(&id);
        self.stops.remove(&id);
        self.undelay(id);
        if let Some(entry) = self.entries.remove(id) {
            self.names.remove(&NameKey(entry.spec.name));
            self.decisions.push_back(Decision::Remove(id));
        }
    }

    pub(super) fn entry(&mut self, id: ChildId) -> &mut Entry {
        let entry = self.entries.get_mut(id);
        entry.expect("errgroup: whoever names a child has found it")
    }

    pub(super) fn known(&self, id: ChildId) -> &Entry {
        let entry = self.entries.get(id);
        entry.expect("errgroup: whoever names a child has found it")
    }

    pub(super) fn state(&self, id: ChildId) -> State {
        self.known(id).state
    }

    pub(super) fn set(&mut self, id: ChildId, state: State, timer: Option<Instant>, now: Instant) {
        let entry = self.entry(id);
        entry.state = state;
        entry.since = now;
        self.set_timer(id, timer);
    }

    pub(super) fn set_timer(&mut self, id: ChildId, timer: Option<Instant>) {
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

    pub(super) fn tell(&mut self, id: ChildId, what: SupervisorEventKind) {
        self.decisions.push_back(Decision::Tell(id, what));
    }
}
