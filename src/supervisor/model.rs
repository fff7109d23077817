//! The machine against any order of events: after each of them its invariants hold, and what it decided is in order.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::Location;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use tokio::time::Instant;

use super::command::{Goal, Order};
use super::decision::Decision;
use super::entry::{ChildId, Down, Exit, Spec, State, Then};
use super::error::CommandError;
use super::event::SupervisorEventKind;
use super::intensity::Intensity;
use super::machine::{Machine, Phase};
use super::strategy::Restart;
use super::strategy::{AutoShutdown, Strategy};
use crate::error::Reason;

/// What happens. An `Index` picks among the children, or those that live.
#[derive(Clone, Debug)]
enum Step {
    End(Index, Exit),
    Readiness(Index, bool),
    /// So many milliseconds pass.
    Pass(u64),
    /// Time passes until something is due.
    PassToDue,
    Order(Index, (&'static str, Order)),
    Add(Kind),
    ShutDown,
    EndContext(Reason),
}

#[derive(Clone, Debug)]
struct Kind {
    restart: Restart,
    is_significant: bool,
    drain: u64,
    grace: u64,
    ready_within: Option<u64>,
    has_backoff: bool,
    /// Cannot be aborted.
    is_stubborn: bool,
}

/// A driver without clock, runtime and children.
struct Driver {
    machine: Machine,
    now: Instant,
    /// The incarnations that have not ended, and whether they were told to stop.
    live: BTreeMap<ChildId, Incarnation>,
    stubborn: BTreeSet<ChildId>,
    /// Given up by the machine, and still alive.
    abandoned: usize,
    /// Commands have been given: the order of start is theirs.
    is_commanded: bool,
    /// The delays of backoffs, one after the other.
    delays: Vec<Option<u64>>,
    names: u64,
    /// What those wait for who gave a command; of what was added, `true`.
    waiters: Vec<(ChildId, Goal, bool)>,
}

#[derive(Clone, Copy, Debug)]
struct Incarnation {
    generation: u64,
    is_told: bool,
    is_aborted: bool,
}

impl Driver {
    fn new(
        strategy: Strategy,
        auto_shutdown: AutoShutdown,
        limit: usize,
        delays: Vec<Option<u64>>,
    ) -> Self {
        let intensity = Intensity::new(limit, Duration::from_millis(500));
        Self {
            machine: Machine::new(strategy, auto_shutdown, intensity),
            now: Instant::now(),
            live: BTreeMap::new(),
            stubborn: BTreeSet::new(),
            abandoned: 0,
            is_commanded: false,
            delays,
            names: 0,
            waiters: Vec::new(),
        }
    }

    fn add(&mut self, kind: &Kind, is_dynamic: bool) -> ChildId {
        self.names += 1;
        let spec = Spec {
            name: Arc::new(Cow::Owned(format!("child {}", self.names))),
            location: Location::caller(),
            restart: kind.restart,
            is_significant: kind.is_significant && kind.restart != Restart::Permanent,
            drain: Duration::from_millis(kind.drain),
            grace: Duration::from_millis(kind.grace),
            ready_within: kind.ready_within.map(Duration::from_millis),
            has_backoff: kind.has_backoff,
            reset_after: Duration::from_millis(100),
            keep_failures: 2,
        };
        let id = self.machine.add(spec, is_dynamic, self.now).unwrap();
        if kind.is_stubborn {
            self.stubborn.insert(id);
        }
        id
    }

    fn run(&mut self, step: &Step) {
        let before = self.machine.starts.clone();
        self.apply(step);
        self.carry_out(&before);
        self.reply();
        self.check();
    }

    fn apply(&mut self, step: &Step) {
        let (machine, now) = (&mut self.machine, self.now);
        let live: Vec<_> = self.live.iter().map(|(&id, &one)| (id, one)).collect();
        let ids: Vec<_> = machine.entries.ids();
        let is_running = machine.phase == Phase::Running;
        match step {
            Step::End(index, exit) if !live.is_empty() => {
                let (id, one) = live[index.index(live.len())];
                self.live.remove(&id);
                machine.ended(id, one.generation, exit.clone(), now);
            }
            Step::Readiness(index, is_ready) if !live.is_empty() => {
                let (id, one) = live[index.index(live.len())];
                machine.readiness(id, one.generation, *is_ready, now);
            }
            Step::Pass(millis) => {
                self.now += Duration::from_millis(*millis);
                machine.tick(self.now);
            }
            Step::PassToDue => {
                self.now = machine.next_due().unwrap_or(now).max(now);
                machine.tick(self.now);
            }
            Step::Order(index, (_, order)) if is_running && !ids.is_empty() => {
                self.is_commanded = true;
                let id = ids[index.index(ids.len())];
                let goal = order(machine, id, now);
                self.waiters.push((id, goal, false));
            }
            Step::Add(kind) if is_running => {
                let id = self.add(kind, true);
                let goal = self.machine.start_added(id, now);
                self.waiters.push((id, goal, true));
            }
            Step::ShutDown => machine.shut_down(now),
            Step::EndContext(reason) => machine.end(*reason, now),
            _ => {}
        }
    }

    /// As in `waiter.rs`.
    fn reply(&mut self) {
        let mut withdrawn = Vec::new();
        for (id, goal, is_add) in std::mem::take(&mut self.waiters) {
            match self.machine.came(id, "", goal) {
                Poll::Pending => self.waiters.push((id, goal, is_add)),
                Poll::Ready(Err(CommandError::StartFailed { .. })) if is_add => withdrawn.push(id),
                Poll::Ready(_) => {}
            }
        }
        for id in withdrawn {
            self.is_commanded = true;
            let before = self.machine.starts.clone();
            self.machine.withdraw(id, self.now);
            self.carry_out(&before);
            let kept = self.machine.entries.get(id).map(|entry| entry.state);
            let is_to_go = |state| {
                let removal = Then::Remove;
                matches!(state, State::Doomed(then) | State::Stopping { then, .. } if then == removal)
            };
            assert!(kept.is_none_or(is_to_go), "{kept:?}");
            self.reply();
        }
    }

    fn carry_out(&mut self, before: &BTreeSet<ChildId>) {
        while let Some(decision) = self.machine.decide() {
            match decision {
                Decision::Start { id, generation } => self.started(id, generation, before),
                Decision::Stop { id, drain } => self.told(id, drain),
                Decision::Abort(id) => self.aborted(id),
                Decision::Abandon(id) => {
                    assert!(self.live.remove(&id).unwrap().is_aborted);
                    self.abandoned += 1;
                }
                Decision::Delay { id, .. } => {
                    let delay = self.delays.pop().flatten().map(Duration::from_millis);
                    self.machine.delay(id, delay, self.now);
                }
                Decision::Remove(id) => {
                    assert!(!self.live.contains_key(&id));
                    assert!(self.machine.entries.get(id).is_none());
                }
                Decision::Tell(id, SupervisorEventKind::Ready) => {
                    assert!(self.live.contains_key(&id));
                }
                Decision::GiveUp(..) | Decision::ShutDown => {
                    assert_ne!(self.machine.phase, Phase::Running);
                }
                Decision::Tell(..) => {}
            }
        }
        self.end_aborted();
    }

    fn started(&mut self, id: ChildId, generation: u64, before: &BTreeSet<ChildId>) {
        assert!(
            !self.live.contains_key(&id),
            "two incarnations of one child"
        );
        // What starts in order waits for those before it.
        if before.contains(&id) && !self.is_commanded {
            let earlier = self.machine.starts.range(..id).next();
            assert_eq!(earlier, None, "{id:?} starts before it is up");
        }
        self.live.insert(
            id,
            Incarnation {
                generation,
                is_told: false,
                is_aborted: false,
            },
        );
    }

    fn told(&mut self, id: ChildId, drain: Duration) {
        let is_told = std::mem::replace(&mut self.live.get_mut(&id).unwrap().is_told, true);
        // A second time only to cut the drain.
        assert!(drain.is_zero() || !is_told && !self.machine.is_cut);
        if self.machine.phase != Phase::Running && !is_told {
            let later = self.live.range(id..).filter(|&(&later, _)| later != id);
            assert_eq!(
                later.count(),
                0,
                "{id:?} is stopped before those after it have ended"
            );
        }
    }

    fn aborted(&mut self, id: ChildId) {
        let one = self.live.get_mut(&id).unwrap();
        assert!(one.is_told, "aborted without having been told to stop");
        one.is_aborted = true;
    }

    /// The runtime drops what was aborted, but for those that do not come to an await.
    fn end_aborted(&mut self) {
        let mut live = self.live.iter();
        let aborted = live.find(|(id, one)| one.is_aborted && !self.stubborn.contains(id));
        if let Some((&id, &one)) = aborted {
            self.live.remove(&id);
            let before = self.machine.starts.clone();
            self.machine
                .ended(id, one.generation, Exit::Aborted, self.now);
            self.carry_out(&before);
        }
    }

    /// The invariants of `machine.rs`.
    fn check(&self) {
        let machine = &self.machine;
        let mut timers = BTreeSet::new();
        for (id, entry) in machine.entries.iter() {
            assert_eq!(
                entry.is_live(),
                self.live.contains_key(&id),
                "{id:?} {entry:?}"
            );
            timers.extend(entry.timer.map(|at| (at, id)));
            assert!(entry.failures.len() <= 2);
            let (in_stops, in_starts) = (machine.stops.contains(&id), machine.starts.contains(&id));
            match entry.state {
                State::Down(Down::Waiting(_)) | State::Deciding => {
                    assert!(in_starts && !in_stops, "{id:?} {entry:?}");
                }
                State::Down(_) | State::Up => assert!(!in_starts && !in_stops, "{id:?} {entry:?}"),
                State::BackingOff { .. } => {
                    assert!(!in_stops);
                    assert_eq!(in_starts, machine.strategy != Strategy::OneForOne);
                    let is_delayed = in_starts && machine.strategy == Strategy::OneForAll;
                    assert_eq!(is_delayed, machine.delayed == Some(id));
                }
                State::Starting(_) => assert!(!in_stops),
                State::Doomed(then) => {
                    assert!(in_stops && in_starts == matches!(then, Then::Wait(_)));
                    assert!(!self.live[&id].is_told);
                }
                State::Stopping { then, .. } => {
                    assert!(self.live[&id].is_told);
                    let waits = matches!(then, Then::Wait(_));
                    let may_wait = waits || matches!(then, Then::Fail(..));
                    assert!(!in_starts || may_wait, "{id:?} {entry:?}");
                    assert!(!waits || in_starts || machine.phase != Phase::Running);
                }
            }
        }
        for &(id, goal, _) in &self.waiters {
            let entry = machine.entries.get(id);
            let waits = entry.is_some_and(|entry| entry.is_active());
            let is_gone = goal == Goal::Gone && machine.phase != Phase::Running;
            assert!(waits || is_gone, "{goal:?} of {entry:?} is not answered");
        }
        assert_eq!(machine.timers, timers);
        let known = |id: &ChildId| machine.entries.get(*id).is_some();
        assert!(machine.stops.iter().all(known) && machine.starts.iter().all(known));
        match machine.phase {
            Phase::Running => self.check_progress(),
            Phase::Stopping => {
                assert!(machine.starts.is_empty() && machine.delayed.is_none());
                assert_eq!(machine.stops.len(), self.live.len());
            }
            Phase::Over => assert_eq!(self.live.len(), 0, "something lives on"),
        }
    }

    /// Whoever waits in line waits for something.
    fn check_progress(&self) {
        let machine = &self.machine;
        if let Some(&last) = machine.stops.last() {
            assert!(matches!(machine.known(last).state, State::Stopping { .. }));
        } else if let Some(&first) = machine.starts.first() {
            let waits = matches!(machine.known(first).state, State::Down(Down::Waiting(_)));
            assert!(
                !waits || machine.delayed.is_some(),
                "{first:?} waits for nothing"
            );
        }
        if let Some(delayed) = machine.delayed {
            assert!(machine.starts.contains(&delayed));
            assert!(matches!(
                machine.known(delayed).state,
                State::BackingOff { .. }
            ));
        }
    }

    /// Whatever has happened, a stop comes to its end, by the children's own doing or by the clock's.
    fn finish(&mut self, is_obedient: bool) {
        self.run(&Step::ShutDown);
        for _ in 0..10_000 {
            if self.machine.phase == Phase::Over {
                return;
            }
            let told = self.live.iter().find(|(_, one)| one.is_told);
            match told {
                Some((&id, &one)) if is_obedient => {
                    self.live.remove(&id);
                    self.machine
                        .ended(id, one.generation, Exit::Finished, self.now);
                    self.carry_out(&BTreeSet::new());
                    self.reply();
                    self.check();
                }
                _ => {
                    assert!(self.machine.next_due().is_some(), "it would wait forever");
                    self.run(&Step::PassToDue);
                }
            }
        }
        panic!("no end");
    }
}

fn any_exit() -> impl Strategy_<Value = Exit> {
    prop_oneof![
        Just(Exit::Finished),
        Just(Exit::Error("error".to_owned())),
        Just(Exit::Panic("panic".to_owned())),
        Just(Exit::Aborted),
    ]
}

fn any_kind() -> impl Strategy_<Value = Kind> {
    let restart = prop_oneof![
        3 => Just(Restart::Permanent),
        2 => Just(Restart::Transient),
        1 => Just(Restart::Temporary)
    ];
    let ready_within = prop::option::of(0..50_u64);
    let times = (0..30_u64, 0..30_u64, ready_within);
    let flags = (
        prop::bool::weighted(0.1),
        any::<bool>(),
        prop::bool::weighted(0.1),
    );
    (restart, times, flags).prop_map(|(restart, times, flags)| Kind {
        restart,
        is_significant: flags.0,
        drain: times.0,
        grace: times.1,
        ready_within: times.2,
        has_backoff: flags.1,
        is_stubborn: flags.2,
    })
}

fn any_reason() -> impl Strategy_<Value = Reason> {
    prop::sample::select(vec![Reason::Cancelled, Reason::Stopped])
}

fn any_step() -> impl Strategy_<Value = Step> {
    let index = any::<Index>;
    let orders: Vec<(_, Order)> = vec![
        ("start", Machine::start),
        ("stop", Machine::stop),
        ("restart", Machine::restart),
        ("remove", Machine::remove),
    ];
    prop_oneof![
        8 => (index(), any_exit()).prop_map(|(index, exit)| Step::End(index, exit)),
        6 => index().prop_map(|index| Step::Readiness(index, true)),
        1 => index().prop_map(|index| Step::Readiness(index, false)),
        3 => (0..60_u64).prop_map(Step::Pass),
        6 => Just(Step::PassToDue),
        4 => (index(), prop::sample::select(orders)).prop_map(|(index, order)| Step::Order(index, order)),
        1 => any_kind().prop_map(Step::Add),
        1 => prop_oneof![9 => Just(Step::PassToDue), 1 => Just(Step::ShutDown), 1 => any_reason().prop_map(Step::EndContext)],
    ]
}

use proptest::strategy::Strategy as Strategy_;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_events_then_invariants_hold_and_a_stop_ends(
        strategy in prop::sample::select(vec![Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne]),
        auto_shutdown in prop::sample::select(vec![AutoShutdown::AnySignificant, AutoShutdown::AllSignificant]),
        limit in prop_oneof![0..5_usize, Just(usize::MAX)],
        delays in prop::collection::vec(prop::option::weighted(0.95, 0..40_u64), 0..60),
        kinds in prop::collection::vec(any_kind(), 0..7),
        steps in prop::collection::vec(any_step(), 0..80),
        is_obedient in any::<bool>(),
    ) {
        let mut driver = Driver::new(strategy, auto_shutdown, limit, delays);
        for kind in &kinds {
            driver.add(kind, false);
        }
        driver.machine.begin(driver.now);
        let all = driver.machine.entries.ids().into_iter().collect();
        driver.carry_out(&all);
        driver.check();
        for step in &steps {
            driver.run(step);
        }
        driver.finish(is_obedient);
    }
}
