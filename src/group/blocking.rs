//! `Job`: a blocking task. Its closure, and later its result, lie in a cell that the group and the handle can empty: a
//! thread that is not there yet can be told nothing, and is not waited for.
//!
//! Owned by the handle, by the registry (as the task's waker), and by the closure that the runtime's pool is given. The
//! state goes one way: `Waiting`, `Running`, `Leaving`, `Done`, or from `Waiting` to `Leaving` without a thread.
//!
//! Who looks at the cell (`look`): the call that spawns it, and whoever wakes the task: the permit's last holder, the end of
//! the context. In steps:
//!
//! 1. The context has ended: the closure is dropped, and the task is over.
//! 2. It has its permit, or needs none: the pool is asked for a thread, once.
//!
//! The cell's lock comes before the registry's. No foreign code runs under it: closure, value and wakers are dropped outside.

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};

use tokio::runtime::Handle;

use super::console;
use super::entry::Name;
use super::fate::Fate;
use super::guard::{Order, TaskGuard};
use crate::context::Context;
use crate::error::{ContextError, GroupError, Reason};
use crate::panic::{Payload, catch, contain, discard};
use crate::sync::Mutex;
use crate::task::{Abort, Cell};

pub(crate) struct Job<F, T, E> {
    state: Mutex<State<F, T, E>>,
}

struct State<F, T, E> {
    phase: Phase<F, T, E>,
    /// Where to ask for a thread. `None` once that was done.
    runtime: Option<Handle>,
    asking: Asking,
    /// The handle's.
    waker: Option<Waker>,
    is_detached: bool,
}

enum Phase<F, T, E> {
    Waiting(F, TaskGuard<E>),
    Running,
    /// The task has ended, and is about to leave the group. Its handle may drop this, and is given it once it is `Done`.
    Leaving(Result<T, ContextError>),
    Done(Result<T, ContextError>),
    Taken,
}

/// How far the call is that asks the pool for a thread. What becomes of its ticket meanwhile is the caller's to tell: it
/// alone learns whether tokio panicked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asking {
    No,
    Now,
    /// The ticket was dropped, and the caller does not know yet.
    Refused,
}

/// What `look` found to be done.
enum Step<F, E> {
    Nothing,
    Stop(Order, F, TaskGuard<E>),
    Ask(Handle),
}

impl<F, T, E> Job<F, T, E>
where
    F: FnOnce(Context) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: GroupError,
{
    pub(crate) fn start(f: F, guard: TaskGuard<E>, runtime: Handle) -> Arc<dyn Cell<T>> {
        let (core, key) = (guard.core().clone(), guard.key());
        let job = Arc::new(Self {
            state: Mutex::new(State {
                phase: Phase::Waiting(f, guard),
                runtime: Some(runtime),
                asking: Asking::No,
                waker: None,
                is_detached: false,
            }),
        });
        // An end that has come before this is seen when the job looks.
        core.registry.leave_waker(key, &Waker::from(job.clone()));
        core.see_to_timer();
        job.look();
        job
    }

    fn look(self: &Arc<Self>) {
        loop {
            match self.step() {
                Step::Nothing => return,
                Step::Stop(order, f, guard) => {
                    let dropped = catch(|| drop(f));
                    let (why, fate) = guard.stopped(order, dropped);
                    return self.finish(Err(why), guard, fate);
                }
                // The context may have ended meanwhile, before the waker was there again.
                Step::Ask(runtime) => self.ask(&runtime),
            }
        }
    }

    fn step(self: &Arc<Self>) -> Step<F, E> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Phase::Waiting(_, guard) = &mut state.phase else {
            return Step::Nothing;
        };
        let was_queued = guard.is_queued();
        // Under the lock, since asking whether the context has ended wakes nobody: not even this job.
        match guard.start() {
            Poll::Pending => Step::Nothing,
            Poll::Ready(Order::Go) => match state.runtime.take() {
                Some(runtime) => {
                    state.asking = Asking::Now;
                    if was_queued {
                        // Whoever granted the permit has taken the waker, and there may be no thread for long.
                        let (registry, waker) = (&guard.core().registry, self.clone().into());
                        registry.leave_waker(guard.key(), &waker);
                    }
                    Step::Ask(runtime)
                }
                None => Step::Nothing,
            },
            Poll::Ready(order) => match state.take_code() {
                Some((f, guard)) => Step::Stop(order, f, guard),
                None => Step::Nothing,
            },
        }
    }

    /// Asks the pool for a thread. Where the system has none, and the pool neither, tokio panics.
    fn ask(self: &Arc<Self>, runtime: &Handle) {
        let name = match console::IS_ON {
            true => self.name(),
            false => None,
        };
        let ticket = Ticket(self.clone());
        let asked = catch(|| console::spawn_blocking(runtime, name.as_ref(), || ticket.run()));
        let asking = std::mem::replace(&mut self.state.lock().asking, Asking::No);
        match asked {
            Err(payload) => self.give_up(|guard| guard.panicked(payload)),
            Ok(()) if asking == Asking::Refused => self.give_up(Self::lost),
            Ok(()) => {}
        }
    }

    fn name(&self) -> Option<Name> {
        match &self.state.lock().phase {
            Phase::Waiting(_, guard) => guard.who().name,
            _ => None,
        }
    }

    /// The runtime is being shut down.
    fn lost(guard: &TaskGuard<E>) -> (ContextError, Fate) {
        let who = guard.who();
        let why = ContextError::of_task(Reason::RuntimeGone, who.borrow(), String::new());
        (why, Fate::Lost)
    }

    /// Drops a task that has no thread, for a reason of its own.
    fn give_up(&self, why: impl FnOnce(&TaskGuard<E>) -> (ContextError, Fate)) {
        let taken = self.state.lock().take_code();
        let Some((f, guard)) = taken else { return };
        let (why, fate) = match catch(|| drop(f)) {
            Ok(()) => why(&guard),
            Err(payload) => guard.panicked(payload),
        };
        self.finish(Err(why), guard, fate);
    }

    fn run(&self) {
        let taken = self.state.lock().take_code();
        let Some((f, guard)) = taken else { return };
        let order = guard.order();
        if order != Order::Go {
            let dropped = catch(|| drop(f));
            let (why, fate) = guard.stopped(order, dropped);
            return self.finish(Err(why), guard, fate);
        }
        let ctx = guard.context().clone();
        guard.polls().step();
        // The call consumes the closure: what it captured is dropped with it, panic or not.
        match catch(|| f(ctx)) {
            Ok(Ok(value)) => self.finish(Ok(value), guard, Fate::Completed),
            Ok(Err(error)) => self.finish_failed(Ok(error), guard),
            Err(payload) => self.finish_failed(Err(payload), guard),
        }
    }

    fn finish_failed(&self, result: Result<E, Payload>, guard: TaskGuard<E>) {
        let (why, fate) = guard.fail(result.map(Some), Ok(()));
        self.finish(Err(why), guard, fate);
    }

    /// Leaves the result to the handle, or drops it if there is none, and lets the group go on after that.
    fn finish(&self, result: Result<T, ContextError>, guard: TaskGuard<E>, fate: Fate) {
        let mut state = self.state.lock();
        let unused = match state.is_detached {
            true => {
                state.phase = Phase::Taken;
                Some(result)
            }
            false => {
                state.phase = Phase::Leaving(result);
                None
            }
        };
        drop(state);
        discard(unused);
        // Before the handle is answered: who has the value finds the task gone, and its room free.
        guard.release(fate);
        let mut state = self.state.lock();
        state.set_done();
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            contain(|| waker.wake());
        }
    }
}

impl<F, T, E> State<F, T, E> {
    /// Takes the closure of a task that has not started.
    fn take_code(&mut self) -> Option<(F, TaskGuard<E>)> {
        if !matches!(self.phase, Phase::Waiting(..)) {
            return None;
        }
        match std::mem::replace(&mut self.phase, Phase::Running) {
            Phase::Waiting(f, guard) => Some((f, guard)),
            _ => None,
        }
    }

    fn set_done(&mut self) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Taken) {
            Phase::Leaving(result) => Phase::Done(result),
            // The handle was dropped.
            phase => phase,
        };
    }
}

/// What the pool is given.
struct Ticket<F, T, E>(Arc<Job<F, T, E>>)
where
    F: FnOnce(Context) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: GroupError;

impl<F, T, E> Ticket<F, T, E>
where
    F: FnOnce(Context) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: GroupError,
{
    fn run(self) {
        self.0.run();
    }
}

impl<F, T, E> Drop for Ticket<F, T, E>
where
    F: FnOnce(Context) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: GroupError,
{
    fn drop(&mut self) {
        {
            let mut state = self.0.state.lock();
            if state.asking == Asking::Now {
                state.asking = Asking::Refused;
                return;
            }
        }
        // After `run` there is nothing left to give up.
        self.0.give_up(Job::<F, T, E>::lost);
    }
}

impl<F, T, E> Wake for Job<F, T, E>
where
    F: FnOnce(Context) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: GroupError,
{
    fn wake(self: Arc<Self>) {
        self.look();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.look();
    }
}

impl<F, T, E> Abort for Job<F, T, E>
where
    F: FnOnce(Context) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: GroupError,
{
    fn abort(&self) {
        self.give_up(|guard| (guard.aborted(), Fate::Aborted));
    }

    fn is_finished(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Done(_) | Phase::Taken)
    }
}

impl<F, T, E> Cell<T> for Job<F, T, E>
where
    F: FnOnce(Context) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: GroupError,
{
    fn poll(&self, cx: &TaskContext<'_>) -> Poll<Result<T, ContextError>> {
        let mut waker = Some(cx.waker().clone());
        let mut state = self.state.lock();
        let polled = match std::mem::replace(&mut state.phase, Phase::Taken) {
            Phase::Done(result) => Poll::Ready(result),
            Phase::Taken => {
                drop(state);
                panic!("errgroup: Task polled after it had yielded its output");
            }
            phase => {
                state.phase = phase;
                std::mem::swap(&mut state.waker, &mut waker);
                Poll::Pending
            }
        };
        drop(state);
        drop(waker);
        polled
    }

    fn detach(&self) {
        let mut state = self.state.lock();
        state.is_detached = true;
        let waker = state.waker.take();
        let result = match &state.phase {
            Phase::Leaving(_) | Phase::Done(_) => {
                Some(std::mem::replace(&mut state.phase, Phase::Taken))
            }
            _ => None,
        };
        drop(state);
        discard((waker, result));
    }

    fn as_abort(self: Arc<Self>) -> Arc<dyn Abort> {
        self
    }
}
