//! `Driver`: the future of [`Supervisor::run`](super::Supervisor::run): tells the machine what happens, and carries out what
//! it decides.
//!
//! It owns the group of the children's tasks. That is cut off from the end of the supervisor's own context, for the children
//! are stopped one after the other; the tasks of a driver that is dropped go to the group above that context.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::backoff::Schedule;
use super::child::{Child, Restart};
use super::entry::{ChildId, Exit};
use super::error::{LastFailure, SupervisorError, SupervisorErrorKind};
use super::event::{SupervisorEvent, SupervisorEventKind};
use super::handle::CommandError;
use super::machine::{Came, Decision, GiveUp, Goal, Machine, Notice, Phase};
use super::service::{Outcome, Post, Service, task_spec};
use super::shared::{Command, Inbox, Message, Reply, Shared};
use super::{OnEvent, entry};
use crate::context::{CancelHandle, Context, DoneOwned, StopHandle};
use crate::error::{ContextError, GroupError, Reason, text_of};
use crate::group::{Group, Straggler};
use crate::panic::{catch, contain, discard};
use crate::task::Task;

pub(super) struct Driver<E> {
    shared: Arc<Shared<E>>,
    inbox: Inbox<E>,
    // Before `children`: their tasks are aborted before their handles are dropped.
    group: Group<ContextError>,
    children: BTreeMap<ChildId, Worker<E>>,
    waiters: Vec<Waiter>,
    on_event: Option<Box<OnEvent>>,
    /// The error of the child whose end is being decided on.
    last: Option<E>,
    error: Option<SupervisorError<E>>,
    has_abandoned: bool,
}

/// A child, as far as the machine does not know it.
struct Worker<E> {
    /// `None` while it is dropped.
    service: Option<Arc<dyn Service<E>>>,
    backoff: Option<Box<dyn Schedule>>,
    spec: entry::Spec,
    incarnation: Option<Incarnation>,
}

struct Incarnation {
    task: Task<()>,
    ctx: Context,
    right: Right,
    started_at: Instant,
}

/// The right to stop an incarnation. Its drop ends the context.
enum Right {
    /// Without a drain: a context that ends in one step costs less.
    Cancel {
        _handle: CancelHandle,
    },
    Stop(StopHandle),
}

/// Somebody who gave a command.
struct Waiter {
    id: ChildId,
    goal: Goal,
    name: String,
    /// The child was added: it is removed if it does not come up.
    is_add: bool,
    reply: Option<Reply>,
}

enum Wake<E> {
    Message(Message<E>),
    Due,
    Stopping,
    Ended,
}

/// What the supervisor's own context says.
struct Parent {
    stopping: Option<DoneOwned>,
    done: Option<DoneOwned>,
}

impl<E: GroupError> Driver<E> {
    pub(super) fn new(
        shared: Arc<Shared<E>>,
        inbox: Inbox<E>,
        group: Group<ContextError>,
        on_event: Option<Box<OnEvent>>,
    ) -> Self {
        Self {
            shared,
            inbox,
            group,
            children: BTreeMap::new(),
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
        for child in children {
            if let Err(error) = self.take(child, now) {
                self.shared.machine.lock().phase = Phase::Over;
                return Err(error);
            }
        }
        let mut parent = Parent::new(&parent);
        let mut timer = Timer::default();
        self.step(|machine, now| machine.begin(now));
        while !self.is_over() {
            match self.next(&mut parent, &mut timer).await {
                Wake::Message(message) => self.receive(message),
                Wake::Due => self.step(Machine::tick),
                Wake::Stopping => self.step(Machine::shut_down),
                Wake::Ended => self.step(Machine::end),
            }
        }
        self.finish().await
    }

    /// Takes one of the children that are there from the beginning.
    fn take(&mut self, child: Child<E>, now: Instant) -> Result<(), SupervisorError<E>> {
        let (name, location) = (child.spec.name.clone(), child.spec.location);
        let refused = match self.add(child, false, now) {
            Ok(_) => return Ok(()),
            Err(Refused::DuplicateName) => SupervisorErrorKind::DuplicateName,
            Err(Refused::SignificantPermanent) => SupervisorErrorKind::SignificantPermanent,
        };
        let last = LastFailure::None;
        let supervisor = self.shared.name.clone();
        Err(SupervisorError::new(
            supervisor,
            (name, location),
            refused,
            last,
        ))
    }

    fn add(&mut self, child: Child<E>, is_dynamic: bool, now: Instant) -> Result<ChildId, Refused> {
        if child.spec.is_significant && child.spec.restart == Restart::Permanent {
            return Err(Refused::SignificantPermanent);
        }
        let spec = child.spec.clone();
        let mut machine = self.shared.machine.lock();
        let added = machine.add(child.spec, is_dynamic, now);
        drop(machine);
        let id = added.map_err(|_| Refused::DuplicateName)?;
        let worker = Worker {
            service: Some(child.service),
            backoff: child.backoff,
            spec,
            incarnation: None,
        };
        self.children.insert(id, worker);
        Ok(id)
    }

    fn is_over(&self) -> bool {
        self.shared.machine.lock().phase == Phase::Over
    }

    /// Waits for what happens next.
    async fn next(&mut self, parent: &mut Parent, timer: &mut Timer) -> Wake<E> {
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
    fn step<R>(&mut self, event: impl FnOnce(&mut Machine, Instant) -> R) -> R {
        let now = Instant::now();
        let result = event(&mut self.shared.machine.lock(), now);
        self.carry_out_all(now);
        self.reply();
        result
    }

    fn carry_out_all(&mut self, now: Instant) {
        loop {
            // A statement of its own, so that the lock is not held while it is carried out.
            let decision = self.shared.machine.lock().decide();
            match decision {
                Some(decision) => self.carry_out(decision, now),
                None => return,
            }
        }
    }

    fn receive(&mut self, message: Message<E>) {
        match message {
            Message::Readiness {
                id,
                generation,
                is_ready,
            } => self.step(|machine, now| match is_ready {
                true => machine.ready(id, generation, now),
                false => machine.not_ready(id, generation, now),
            }),
            Message::Ended {
                id,
                generation,
                outcome,
            } => self.ended(id, generation, outcome),
            Message::Command { command, reply } => self.command(command, reply),
        }
    }

    fn ended(&mut self, id: ChildId, generation: u64, outcome: Outcome<E>) {
        if let Some(worker) = self.children.get_mut(&id) {
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

    fn carry_out(&mut self, decision: Decision, now: Instant) {
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
                let mut stragglers = self.shared.stragglers.lock();
                for (_, straggler) in stragglers.iter_mut().filter(|(child, _)| *child == id) {
                    straggler.was_aborted = false;
                }
            }
            Decision::Delay { id, is_reset } => {
                let delay = self.delay(id, is_reset);
                self.shared.machine.lock().delay(id, delay, now);
            }
            Decision::GiveUp(id, why) => self.give_up(id, why),
            Decision::Remove(id) => {
                self.tell(Some(id), || SupervisorEventKind::Removed);
                self.children.remove(&id);
            }
            Decision::ShutDown => self.tell(None, || SupervisorEventKind::ShuttingDown),
            Decision::Told(id, notice) => self.notice(id, notice),
        }
    }

    fn incarnation(&self, id: ChildId) -> Option<&Incarnation> {
        self.children.get(&id)?.incarnation.as_ref()
    }

    fn start(&mut self, id: ChildId, generation: u64, now: Instant) {
        self.tell(Some(id), || SupervisorEventKind::Starting);
        let Some(worker) = self.children.get_mut(&id) else {
            return;
        };
        let service = worker.service.clone();
        let service = service.expect("errgroup: it is dropped with the child");
        let parent = self.group.context();
        let (ctx, right) = Right::derive(parent, &worker.spec);
        let post = Post {
            shared: self.shared.clone(),
            id,
            generation,
            ctx: ctx.clone(),
        };
        let task = service.start(&self.group, task_spec(&worker.spec), post);
        worker.incarnation = Some(Incarnation {
            task,
            ctx,
            right,
            started_at: now,
        });
    }

    fn abort(&mut self, id: ChildId, now: Instant) {
        let is_stopping = self.shared.machine.lock().phase != Phase::Running;
        let Some(worker) = self.children.get(&id) else {
            return;
        };
        let Some(incarnation) = &worker.incarnation else {
            return;
        };
        if is_stopping {
            let straggler = Straggler {
                id: incarnation.task.id(),
                name: Some(worker.spec.name.as_ref().clone()),
                location: worker.spec.location,
                age: now.saturating_duration_since(incarnation.started_at),
                was_aborted: true,
            };
            self.shared.stragglers.lock().push((id, straggler));
        }
        incarnation.task.abort();
    }

    /// Asks the child's backoff, which is foreign code. One that panics has no further delay.
    fn delay(&mut self, id: ChildId, is_reset: bool) -> Option<Duration> {
        let backoff = self.children.get_mut(&id)?.backoff.as_mut()?;
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

    fn give_up(&mut self, id: ChildId, why: GiveUp) {
        self.tell(Some(id), || SupervisorEventKind::GaveUp);
        let Some(worker) = self.children.get(&id) else {
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
        let last = match (self.last.take(), text) {
            (Some(error), _) => LastFailure::Error(error),
            (None, Some(text)) => LastFailure::Text(text),
            (None, None) => LastFailure::None,
        };
        let error = SupervisorError::new(
            self.shared.name.clone(),
            (worker.spec.name.clone(), worker.spec.location),
            kind,
            last,
        );
        self.error.get_or_insert(error);
    }

    // Telling.

    fn notice(&self, id: ChildId, notice: Notice) {
        if self.on_event.is_none() {
            return;
        }
        self.tell(Some(id), || match notice {
            Notice::Ready => SupervisorEventKind::Ready,
            Notice::BackingOff(delay) => SupervisorEventKind::BackingOff(delay),
            Notice::Finished => SupervisorEventKind::Finished,
            Notice::Stopped => SupervisorEventKind::Stopped,
            Notice::Failed => {
                let text = self.shared.machine.lock().last_failure.clone();
                SupervisorEventKind::Failed(text.unwrap_or_default())
            }
        });
    }

    fn tell(&self, id: Option<ChildId>, kind: impl FnOnce() -> SupervisorEventKind) {
        let Some(on_event) = &self.on_event else {
            return;
        };
        let child = id.and_then(|id| self.children.get(&id));
        let event = SupervisorEvent {
            supervisor: self.shared.name.clone(),
            child: child.map(|worker| worker.spec.name.clone()),
            kind: kind(),
        };
        contain(|| on_event(&event));
    }

    // Commands.

    fn command(&mut self, command: Command<E>, reply: Reply) {
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

    fn command_add(&mut self, child: Child<E>, reply: Reply) {
        let name = child.spec.name.to_string();
        match self.add(child, true, Instant::now()) {
            Ok(id) => self.command_at(id, name, true, reply, Machine::start_added),
            Err(refused) => {
                let _ = reply.send(Err(refused.into_error(name)));
            }
        }
    }

    fn command_on(
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

    fn command_at(
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
    fn reply(&mut self) {
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
    fn withdraw(&mut self, id: ChildId) {
        self.shared.machine.lock().withdraw(id);
        self.carry_out_all(Instant::now());
    }

    /// All have ended, but for those that were left behind.
    async fn finish(mut self) -> Result<(), SupervisorError<E>> {
        if !self.has_abandoned {
            // What it says of a task cut short is not for us: they ended as they were told to.
            let _ = self.group.wait().await;
        }
        let stragglers = self.shared.stragglers.lock();
        let stragglers = stragglers.iter().map(|(_, one)| one.clone()).collect();
        match self.error.take() {
            Some(error) => Err(error.with_stragglers(stragglers)),
            None => Ok(()),
        }
    }
}

impl<E> Drop for Worker<E> {
    fn drop(&mut self) {
        discard((self.service.take(), self.backoff.take()));
    }
}

/// Why a child is not taken.
enum Refused {
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

impl Right {
    fn derive(parent: &Context, spec: &entry::Spec) -> (Context, Self) {
        match spec.drain.is_zero() {
            true => {
                let (ctx, handle) = parent.with_cancel();
                (ctx, Right::Cancel { _handle: handle })
            }
            false => {
                let (ctx, handle) = parent.with_stop();
                (ctx, Right::Stop(handle))
            }
        }
    }
}

impl Incarnation {
    fn stop(&self, drain: Duration) {
        match &self.right {
            Right::Stop(handle) => handle.stop(drain),
            Right::Cancel { .. } => {
                if let Some(node) = self.ctx.node() {
                    node.end(|| ContextError::at(Reason::Stopped, Location::caller(), None));
                }
            }
        }
    }
}

impl Parent {
    fn new(ctx: &Context) -> Self {
        Self {
            stopping: Some(ctx.stopping_done()),
            done: Some(ctx.done_owned()),
        }
    }

    /// Tells each of the two once; the end first, which is the beginning of the stop, too, where there is no other.
    fn poll<E>(&mut self, cx: &mut TaskContext<'_>) -> Poll<Wake<E>> {
        if is_over(&mut self.done, cx) {
            self.stopping = None;
            return Poll::Ready(Wake::Ended);
        }
        if is_over(&mut self.stopping, cx) {
            return Poll::Ready(Wake::Stopping);
        }
        Poll::Pending
    }
}

fn is_over(done: &mut Option<DoneOwned>, cx: &mut TaskContext<'_>) -> bool {
    let is_over = done
        .as_mut()
        .is_some_and(|done| Pin::new(done).poll(cx).is_ready());
    if is_over {
        *done = None;
    }
    is_over
}

/// The supervisor's one timer: for whatever is due first.
#[derive(Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    due: Option<Instant>,
}

impl Timer {
    fn set(&mut self, due: Option<Instant>) {
        if self.due == due {
            return;
        }
        self.due = due;
        if let Some(due) = due {
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(due),
                None => self.sleep = Some(Box::pin(sleep_until(due))),
            }
        }
    }

    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        match (self.due, &mut self.sleep) {
            (Some(_), Some(sleep)) => {
                let polled = sleep.as_mut().poll(cx);
                if polled.is_ready() {
                    // It has to be set again before it is polled again.
                    self.due = None;
                }
                polled
            }
            _ => Poll::Pending,
        }
    }
}
