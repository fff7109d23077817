//! `Driver`: the future of [`Supervisor::run`](super::Supervisor::run): tells the machine what happens, and carries out what
//! it decides.
//!
//! It owns the group of the children's tasks. That is cut off from the end of the supervisor's own context, for the children
//! are stopped one after the other; the tasks of a driver that is dropped go to the group above that context.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::OnEvent;
use super::child::Child;
use super::decision::{Decision, GiveUp};
use super::entry::{ChildId, Exit};
use super::error::{SupervisorError, SupervisorErrorKind};
use super::event::{SupervisorEvent, SupervisorEventKind};
use super::id_map::IdMap;
use super::machine::{Machine, Phase};
use super::service::{Outcome, Post};
use super::shared::{Gone, Inbox, Message, Shared};
use super::strategy::Restart;
use super::waiter::Waiter;
use super::wake::{Parent, Timer, Wake};
use super::worker::{Incarnation, Right, Worker};
use crate::context::Context;
use crate::error::{ContextError, GroupError, text_of};
use crate::group::{Group, Straggler};
use crate::panic::{catch, contain, discard};

pub(super) struct Driver<E> {
    pub(super) shared: Arc<Shared<E>>,
    inbox: Inbox<E>,
    // Before `children`: their tasks are aborted before their handles are dropped.
    group: Group<ContextError>,
    children: IdMap<Worker<E>>,
    pub(super) waiters: Vec<Waiter>,
    on_event: Option<OnEvent>,
    /// The error of the child whose end is being decided on.
    last: Option<E>,
    error: Option<SupervisorError<E>>,
    has_abandoned: bool,
    _gone: Gone<E>,
}

impl<E: GroupError> Driver<E> {
    pub(super) fn new(
        shared: Arc<Shared<E>>,
        inbox: Inbox<E>,
        group: Group<ContextError>,
        on_event: Option<OnEvent>,
    ) -> Self {
        Self {
            _gone: Gone(shared.clone()),
            shared,
            inbox,
            group,
            children: IdMap::new(),
            waiters: Vec::new(),
            on_event,
            last: None,
            error: None,
            has_abandoned: false,
        }
    }

    /// Runs the children until all are to stop and have.
    pub(super) async fn run(
        mut self,
        parent: Context,
        children: Vec<Child<E>>,
    ) -> Result<(), SupervisorError<E>> {
        let now = Instant::now();
        self.children.reserve(children.len());
        self.shared.machine.lock().reserve(children.len());
        for child in children {
            if let Err(error) = self.take(child, now) {
                self.shared.machine.lock().phase = Phase::Over;
                return Err(error);
            }
        }
        let stopping = parent.stopping();
        let mut parent = Parent::new(&parent, &stopping);
        let mut timer = Timer::default();
        match stopping.is_done() {
            true => self.step(Machine::shut_down),
            false => self.step(Machine::begin),
        }
        while !self.is_over() {
            match self.next(&mut parent, &mut timer).await {
                Wake::Message(message) => self.receive(message),
                Wake::Due => self.due(),
                Wake::Stopping => self.step(Machine::shut_down),
                Wake::Ended(reason) => self.step(|machine, now| machine.end(reason, now)),
            }
        }
        self.finish().await
    }

    /// Takes one of the children that are there from the beginning.
    fn take(&mut self, child: Child<E>, now: Instant) -> Result<(), SupervisorError<E>> {
        let spec = child.spec.clone();
        let added = self.add(child, false, now);
        added.map(drop).map_err(|refused| {
            SupervisorError::new(self.shared.name.clone(), &spec, refused, None, None)
        })
    }

    /// Takes a child; an error says why not.
    pub(super) fn add(
        &mut self,
        child: Child<E>,
        is_dynamic: bool,
        now: Instant,
    ) -> Result<ChildId, SupervisorErrorKind> {
        if child.spec.is_significant && child.spec.restart == Restart::Permanent {
            return Err(SupervisorErrorKind::SignificantPermanent);
        }
        let spec = child.spec.clone();
        let mut machine = self.shared.machine.lock();
        let added = machine.add(child.spec, is_dynamic, now);
        drop(machine);
        let id = added.map_err(|_| SupervisorErrorKind::DuplicateName)?;
        let worker = Worker {
            service: child.service,
            backoff: child.backoff,
            spec,
            incarnation: None,
        };
        self.children.push(id, worker);
        Ok(id)
    }

    pub(super) fn is_over(&self) -> bool {
        self.shared.machine.lock().phase == Phase::Over
    }

    /// Waits for what happens next.
    pub(super) async fn next(&mut self, parent: &mut Parent, timer: &mut Timer) -> Wake<E> {
        timer.set(self.shared.machine.lock().next_due());
        let inbox = &mut self.inbox.0;
        poll_fn(|cx| {
            if let Poll::Ready(wake) = parent.poll(cx) {
                return Poll::Ready(wake);
            }
            if timer.poll(cx).is_ready() {
                return Poll::Ready(Wake::Due);
            }
            match inbox.poll_recv(cx) {
                Poll::Ready(Some(message)) => Poll::Ready(Wake::Message(message)),
                // It never closes: we have a sender ourselves.
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Tells the machine of an event, and carries out what it decides.
    pub(super) fn step<R>(&mut self, event: impl FnOnce(&mut Machine, Instant) -> R) -> R {
        let now = Instant::now();
        let result = event(&mut self.shared.machine.lock(), now);
        self.carry_out_all(now);
        self.reply();
        result
    }

    pub(super) fn carry_out_all(&mut self, now: Instant) {
        loop {
            // A statement of its own, so that the lock is not held while it is carried out.
            let decision = self.shared.machine.lock().decide();
            match decision {
                Some(decision) => self.carry_out(decision, now),
                None => return,
            }
        }
    }

    /// A timer is due. What others said before is heard first: a child that has ended, or is ready, was in time.
    fn due(&mut self) {
        for _ in 0..self.inbox.0.len() {
            match self.inbox.0.try_recv() {
                Ok(message) => self.receive(message),
                Err(_) => break,
            }
        }
        self.step(Machine::tick);
    }

    pub(super) fn receive(&mut self, message: Message<E>) {
        match message {
            Message::Readiness {
                id,
                generation,
                is_ready,
            } => self.step(|machine, now| machine.readiness(id, generation, is_ready, now)),
            Message::Ended {
                id,
                generation,
                outcome,
            } => self.ended(id, generation, outcome),
            Message::Command { command, reply } => self.command(command, reply),
        }
    }

    pub(super) fn ended(&mut self, id: ChildId, generation: u64, outcome: Outcome<E>) {
        if let Some(worker) = self.children.get_mut(id) {
            worker.incarnation = None;
        }
        let exit = match outcome {
            Outcome::Finished => Exit::Finished,
            Outcome::Error(error) => {
                let text = text_of(&error);
                self.last = Some(error);
                Exit::Error(text)
            }
            Outcome::Panic(text) => Exit::Panic(text),
            Outcome::Aborted => Exit::Aborted,
        };
        self.step(|machine, now| machine.ended(id, generation, exit, now));
        if let Some(error) = self.last.take() {
            discard(error);
        }
    }

    pub(super) fn carry_out(&mut self, decision: Decision, now: Instant) {
        match decision {
            Decision::Start { id, generation } => self.start(id, generation, now),
            Decision::Stop { id, drain } => {
                self.tell(Some(id), || SupervisorEventKind::Stopping(drain));
                if let Some(incarnation) = self.incarnation(id) {
                    incarnation.stop(drain);
                }
            }
            Decision::Abort(id) => {
                self.tell(Some(id), || SupervisorEventKind::Aborting);
                self.abort(id, now);
            }
            Decision::Abandon(id) => {
                self.has_abandoned = true;
                self.tell(Some(id), || SupervisorEventKind::Abandoned);
                let left = self.straggler(id, now).map(|mut left| {
                    left.was_aborted = false;
                    (Some(id), left)
                });
                let mut stragglers = self.shared.stragglers.lock();
                stragglers.retain(|(child, _)| *child != Some(id));
                stragglers.extend(left);
            }
            Decision::Delay { id, is_reset } => {
                let delay = self.delay(id, is_reset);
                self.shared.machine.lock().delay(id, delay, now);
            }
            Decision::GiveUp(id, why) => self.give_up(id, why),
            Decision::Remove(id) => {
                self.tell(Some(id), || SupervisorEventKind::Removed);
                self.children.remove(id);
            }
            Decision::ShutDown => self.tell(None, || SupervisorEventKind::ShuttingDown),
            Decision::Tell(id, what) => self.tell(Some(id), || what),
        }
    }

    pub(super) fn incarnation(&self, id: ChildId) -> Option<&Incarnation> {
        self.children.get(id)?.incarnation.as_ref()
    }

    pub(super) fn start(&mut self, id: ChildId, generation: u64, now: Instant) {
        self.tell(Some(id), || SupervisorEventKind::Starting);
        let Some(worker) = self.children.get_mut(id) else {
            return;
        };
        let service = Arc::clone(&worker.service);
        let parent = self.group.context();
        let (ctx, right) = Right::derive(parent, &worker.spec);
        let post = Post {
            shared: self.shared.clone(),
            id,
            generation,
            ctx: ctx.clone(),
        };
        let task = service.start(&self.group, &worker.spec, post);
        worker.incarnation = Some(Incarnation {
            task,
            ctx,
            right,
            started_at: now,
        });
    }

    pub(super) fn abort(&mut self, id: ChildId, now: Instant) {
        let is_stopping = self.shared.machine.lock().phase != Phase::Running;
        if is_stopping {
            let straggler = self.straggler(id, now);
            let straggler = straggler.map(|straggler| (Some(id), straggler));
            self.shared.stragglers.lock().extend(straggler);
        }
        if let Some(incarnation) = self.incarnation(id) {
            incarnation.task.abort();
        }
    }

    fn straggler(&self, id: ChildId, now: Instant) -> Option<Straggler> {
        let worker = self.children.get(id)?;
        let incarnation = worker.incarnation.as_ref()?;
        Some(Straggler::aborted(
            incarnation.task.id(),
            worker.spec.name.as_ref().clone(),
            worker.spec.location,
            now.saturating_duration_since(incarnation.started_at),
        ))
    }

    /// Asks the child's backoff, which is foreign code. One that panics has no further delay.
    pub(super) fn delay(&mut self, id: ChildId, is_reset: bool) -> Option<Duration> {
        let backoff = self.children.get_mut(id)?.backoff.as_mut()?;
        let asked = catch(|| {
            if is_reset {
                backoff.reset();
            }
            backoff.next()
        });
        asked.unwrap_or_else(|payload| {
            discard(payload);
            None
        })
    }

    pub(super) fn give_up(&mut self, id: ChildId, why: GiveUp) {
        self.tell(Some(id), || SupervisorEventKind::GaveUp);
        let Some(worker) = self.children.get(id) else {
            return;
        };
        let machine = self.shared.machine.lock();
        let kind = match why {
            GiveUp::Intensity(restarts) => SupervisorErrorKind::IntensityExceeded {
                restarts,
                limit: machine.intensity.limit(),
                period: machine.intensity.period(),
            },
            GiveUp::Backoff => SupervisorErrorKind::BackoffExhausted,
            GiveUp::Start => SupervisorErrorKind::StartFailed,
            GiveUp::Significant => SupervisorErrorKind::SignificantFailed,
        };
        let text = machine.last_failure.clone();
        drop(machine);
        let supervisor = self.shared.name.clone();
        let error = SupervisorError::new(supervisor, &worker.spec, kind, self.last.take(), text);
        match self.error {
            None => self.error = Some(error),
            // Only the first is what `run` fails with.
            Some(_) => discard(error),
        }
    }

    pub(super) fn tell(&self, id: Option<ChildId>, kind: impl FnOnce() -> SupervisorEventKind) {
        if self.on_event.is_none() && cfg!(not(feature = "tracing")) {
            return;
        }
        let child = id.and_then(|id| self.children.get(id));
        let event = SupervisorEvent {
            supervisor: self.shared.name.clone(),
            child: child.map(|worker| worker.spec.name.clone()),
            kind: kind(),
        };
        #[cfg(feature = "tracing")]
        event.trace(&self.group.core().span);
        if let Some(on_event) = &self.on_event {
            contain(|| on_event(&event));
        }
    }

    /// All have ended, but for those that were left behind, and for what was left of groups of their own. That has a moment to
    /// come to its drop; what nobody can abort is not waited for.
    async fn finish(self) -> Result<(), SupervisorError<E>> {
        const MOMENT: Duration = Duration::from_secs(1);
        let Self {
            shared,
            group,
            error,
            has_abandoned,
            ..
        } = self;
        let mut left = Vec::new();
        if !has_abandoned {
            left = group.stop().grace(MOMENT).await.stragglers;
        }
        let mut stragglers = shared.stragglers.lock();
        stragglers.extend(left.into_iter().map(|one| (None, one)));
        let stragglers = stragglers.iter().map(|(_, one)| one.clone()).collect();
        match error {
            Some(error) => Err(error.with_stragglers(stragglers)),
            None => Ok(()),
        }
    }
}
