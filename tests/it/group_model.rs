//! Random operations on a group against a plain model, on a runtime that is stepped by hand.
//!
//! The model is a scheduler of its own: a queue of tasks that are ready, in the order in which they became so, and one
//! step of a task's script at a time. It knows nothing of wakers, stages or shards. Nothing runs between two operations
//! but in `Op::Run`, so the model can say of every task what it comes to, and of the group.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use errgroup::{CancelHandle, Context, ContextError, Group, Reason, Task};
use futures::future::BoxFuture;
use proptest::prelude::*;
use proptest::test_runner::Config;
use tokio::task::yield_now;

use crate::group_support::*;

// ---- what is done

/// What a task does once it has yielded often enough.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Last {
    Complete,
    Fail,
    Panic,
    Pend,
}

/// What a task that stops itself does when the context has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum AtEnd {
    /// It is not asked: the group stops it.
    Dropped,
    Complete,
    PassOn,
    Fail,
    Panic,
    Ignore,
}

#[derive(Clone, Copy, Debug)]
struct Script {
    yields: usize,
    last: Last,
    at_end: AtEnd,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Spawn(Script),
    TrySpawn(Script),
    Abort(usize),
    DropHandle(usize),
    SetLimit(Option<usize>),
    Cancel,
    CancelParent,
    Wait,
    DropGroup,
    Run,
}

fn script() -> impl Strategy<Value = Script> {
    let last = prop_oneof![
        6 => Just(Last::Complete),
        1 => Just(Last::Fail),
        1 => Just(Last::Panic),
        4 => Just(Last::Pend),
    ];
    let at_end = prop_oneof![
        6 => Just(AtEnd::Dropped),
        2 => Just(AtEnd::Complete),
        2 => Just(AtEnd::PassOn),
        1 => Just(AtEnd::Fail),
        1 => Just(AtEnd::Panic),
        1 => Just(AtEnd::Ignore),
    ];
    (0..4_usize, last, at_end).prop_map(|(yields, last, at_end)| Script {
        yields,
        last,
        at_end,
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => script().prop_map(Op::Spawn),
        4 => script().prop_map(Op::TrySpawn),
        4 => (0..20_usize).prop_map(Op::Abort),
        2 => (0..20_usize).prop_map(Op::DropHandle),
        3 => proptest::option::weighted(0.8, 1..4_usize).prop_map(Op::SetLimit),
        1 => Just(Op::Cancel),
        1 => Just(Op::CancelParent),
        3 => Just(Op::Wait),
        1 => Just(Op::DropGroup),
        10 => Just(Op::Run),
    ]
}

// ---- the model

/// What a task came to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Completed,
    Failed,
    Panicked,
    Cancelled(Reason),
    Aborted,
}

/// What `wait` returns.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Ok,
    Ended(Reason),
    Failed(usize),
    Panicked(usize),
}

#[derive(Debug)]
struct Member {
    script: Script,
    /// Yields left.
    yields: usize,
    is_started: bool,
    has_slot: bool,
    is_ready: bool,
    is_aborted: bool,
    /// Its error is the context's, and cannot be seen to be.
    passed_on: bool,
    fate: Option<Fate>,
}

#[derive(Debug, Default)]
struct Model {
    /// The text of an error made from the context's end shows that end's own.
    shows_end: bool,
    members: Vec<Member>,
    /// Ready to take a step.
    ready: VecDeque<usize>,
    /// Waiting for a slot.
    queue: VecDeque<usize>,
    /// Waiting for the end of the context.
    listening: Vec<usize>,
    limit: Option<usize>,
    end: Option<Reason>,
    is_dropped: bool,
    was_cut: bool,
    /// Something was spawned after the end, and no `wait` has told of it yet.
    was_refused: bool,
    error: Option<usize>,
    panic: Option<usize>,
    failures: usize,
    is_settled: bool,
}

impl Model {
    fn running(&self) -> usize {
        let running = |member: &&Member| member.has_slot && member.fate.is_none();
        self.members.iter().filter(running).count()
    }

    fn has_room(&self) -> bool {
        self.queue.is_empty() && self.limit.is_none_or(|limit| self.running() < limit)
    }

    fn live(&self) -> usize {
        self.members
            .iter()
            .filter(|member| member.fate.is_none())
            .count()
    }

    fn spawn(&mut self, script: Script) {
        let number = self.members.len();
        let has_slot = self.end.is_none() && self.has_room();
        self.members.push(Member {
            script,
            yields: script.yields,
            is_started: false,
            has_slot,
            is_ready: false,
            is_aborted: false,
            passed_on: false,
            fate: None,
        });
        match self.end {
            Some(reason) => {
                self.was_cut = true;
                self.was_refused = true;
                self.members[number].fate = Some(Fate::Cancelled(reason));
            }
            None => {
                if !has_slot {
                    self.queue.push_back(number);
                }
                self.wake(number);
            }
        }
    }

    fn wake(&mut self, number: usize) {
        let member = &mut self.members[number];
        if member.fate.is_none() && !std::mem::replace(&mut member.is_ready, true) {
            self.ready.push_back(number);
        }
    }

    fn grant(&mut self) {
        while self.limit.is_none_or(|limit| self.running() < limit) {
            let Some(first) = self.queue.pop_front() else {
                return;
            };
            self.members[first].has_slot = true;
            self.wake(first);
        }
    }

    fn finish(&mut self, number: usize, fate: Fate) {
        self.members[number].fate = Some(fate);
        self.queue.retain(|&queued| queued != number);
        match fate {
            Fate::Failed => {
                self.failures += 1;
                self.error.get_or_insert(number);
                self.end(Reason::TaskFailed);
            }
            Fate::Panicked => {
                self.failures += 1;
                self.panic.get_or_insert(number);
                self.end(Reason::TaskPanicked);
            }
            Fate::Cancelled(_) => self.was_cut = true,
            Fate::Completed | Fate::Aborted => {}
        }
        self.grant();
    }

    fn end(&mut self, reason: Reason) {
        if self.end.is_none() {
            self.end = Some(reason);
            // The group is told first; then those who wait for the context, in the order in which they came to that.
            let is_told_by_the_group = |member: &Member| {
                !member.has_slot || matches!(member.script.at_end, AtEnd::Dropped)
            };
            (0..self.members.len())
                .filter(|&number| is_told_by_the_group(&self.members[number]))
                .collect::<Vec<_>>()
                .into_iter()
                .chain(std::mem::take(&mut self.listening))
                .for_each(|number| self.wake(number));
        }
    }

    fn wake_all(&mut self) {
        (0..self.members.len()).for_each(|number| self.wake(number));
    }

    fn abort(&mut self, number: usize) {
        if self.members[number].fate.is_none() {
            self.members[number].is_aborted = true;
            self.wake(number);
        }
    }

    fn run(&mut self) {
        while let Some(number) = self.ready.pop_front() {
            self.members[number].is_ready = false;
            self.step(number);
        }
    }

    fn step(&mut self, number: usize) {
        let member = &mut self.members[number];
        if member.is_aborted {
            return self.finish(number, Fate::Aborted);
        }
        if let Some(reason) = self.end {
            if !member.is_started {
                return self.finish(number, Fate::Cancelled(reason));
            }
            // One that the group stops says why, all the same.
            if self.is_dropped && !matches!(member.script.at_end, AtEnd::Dropped) {
                return self.finish(number, Fate::Aborted);
            }
            match member.script.at_end {
                AtEnd::Dropped => return self.finish(number, Fate::Cancelled(reason)),
                AtEnd::PassOn if self.shows_end => {
                    return self.finish(number, Fate::Cancelled(reason));
                }
                AtEnd::Complete => return self.finish(number, Fate::Completed),
                AtEnd::Fail => return self.finish(number, Fate::Failed),
                AtEnd::PassOn => {
                    member.passed_on = true;
                    return self.finish(number, Fate::Failed);
                }
                AtEnd::Panic => return self.finish(number, Fate::Panicked),
                AtEnd::Ignore => {}
            }
        }
        if !member.has_slot {
            return;
        }
        member.is_started = true;
        if member.yields > 0 {
            member.yields -= 1;
            return self.wake(number);
        }
        match member.script.last {
            Last::Complete => self.finish(number, Fate::Completed),
            Last::Fail => self.finish(number, Fate::Failed),
            Last::Panic => self.finish(number, Fate::Panicked),
            Last::Pend => {
                if !self.listening.contains(&number) {
                    self.listening.push(number);
                }
            }
        }
    }

    fn wait(&mut self) -> Option<Verdict> {
        if self.live() > 0 {
            return None;
        }
        self.end(Reason::GroupFinished);
        let was_refused = std::mem::take(&mut self.was_refused);
        if std::mem::replace(&mut self.is_settled, true) {
            return Some(match self.end {
                None | Some(Reason::GroupCancelled) => Verdict::Ok,
                Some(_) if !was_refused => Verdict::Ok,
                Some(reason) => Verdict::Ended(reason),
            });
        }
        Some(match (self.panic, self.error, self.end) {
            (Some(number), ..) => Verdict::Panicked(number),
            (None, Some(number), Some(end)) if self.members[number].passed_on => {
                Verdict::Ended(end)
            }
            (None, Some(number), _) => Verdict::Failed(number),
            (None, None, Some(Reason::Cancelled)) if self.was_cut => {
                Verdict::Ended(Reason::Cancelled)
            }
            _ => Verdict::Ok,
        })
    }

    fn suppressed(&self) -> usize {
        let told = usize::from(self.error.is_some() || self.panic.is_some());
        self.failures - told
    }

    fn drop_group(&mut self) {
        self.is_dropped = true;
        self.end(Reason::GroupDropped);
        self.wake_all();
    }
}

// ---- the group

/// What the tasks did, as they see it themselves.
#[derive(Default)]
struct Seen {
    polled: AtomicUsize,
    dropped: AtomicUsize,
}

/// An error that names its task, or is a context's end; its text shows that end, or hides it.
#[derive(Debug)]
struct Blame<const SHOWS_END: bool>(Result<usize, ContextError>);

impl<const SHOWS_END: bool> From<ContextError> for Blame<SHOWS_END> {
    fn from(error: ContextError) -> Self {
        Self(Err(error))
    }
}

impl<const SHOWS_END: bool> std::fmt::Display for Blame<SHOWS_END> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Ok(number) => write!(f, "task {number}"),
            Err(end) if SHOWS_END => write!(f, "{end}"),
            Err(_) => f.write_str("stopped"),
        }
    }
}

struct Real<const SHOWS_END: bool> {
    /// `None` once dropped.
    group: Option<Group<Blame<SHOWS_END>>>,
    context: Context,
    parent: CancelHandle,
    tasks: Vec<Option<Task<usize>>>,
    seen: Vec<Arc<Seen>>,
}

impl<const SHOWS_END: bool> Real<SHOWS_END> {
    fn new() -> Self {
        let (parent, handle) = Context::background().with_cancel();
        let group = Group::with_context(&parent);
        Self {
            context: group.context().clone(),
            group: Some(group),
            parent: handle,
            tasks: Vec::new(),
            seen: Vec::new(),
        }
    }

    fn spawn(&mut self, script: Script, must_run_now: bool) -> bool {
        let group = self.group.as_ref().unwrap();
        let number = self.tasks.len();
        let seen = Arc::new(Seen::default());
        let work = play(number, script, seen.clone());
        let task = match (must_run_now, script.at_end) {
            (false, AtEnd::Dropped) => Ok(group.spawn(work(None))),
            (false, _) => Ok(group.spawn_with(move |ctx| work(Some(ctx)))),
            (true, _) => group.try_spawn(work(None)).map_err(drop),
        };
        let is_taken = task.is_ok();
        if let Ok(task) = task {
            self.tasks.push(Some(task));
            self.seen.push(seen);
        }
        is_taken
    }

    /// Lets everything run until it has to wait: until no task has moved for a few turns.
    async fn run(&self) {
        let moves = || -> usize {
            let moves = |seen: &Arc<Seen>| {
                seen.polled.load(Ordering::SeqCst) + seen.dropped.load(Ordering::SeqCst)
            };
            self.seen.iter().map(moves).sum()
        };
        let mut before = usize::MAX;
        while before != moves() {
            before = moves();
            for _ in 0..4 {
                yield_now().await;
            }
        }
    }

    fn wait(&mut self) -> Option<Verdict> {
        let mut wait = self.group.as_mut().unwrap().wait();
        let polled = std::panic::AssertUnwindSafe(|| poll(&mut wait));
        match std::panic::catch_unwind(polled) {
            Ok(Poll::Pending) => None,
            Ok(Poll::Ready(Ok(()))) => Some(Verdict::Ok),
            Ok(Poll::Ready(Err(Blame(Ok(number))))) => Some(Verdict::Failed(number)),
            Ok(Poll::Ready(Err(Blame(Err(end))))) => Some(Verdict::Ended(end.reason())),
            Err(payload) => Some(Verdict::Panicked(*payload.downcast().unwrap())),
        }
    }
}

/// The code of a task.
fn play<const SHOWS_END: bool>(
    number: usize,
    script: Script,
    seen: Arc<Seen>,
) -> impl FnOnce(Option<Context>) -> BoxFuture<'static, Result<usize, Blame<SHOWS_END>>> {
    let fail = move || Err(Blame(Ok(number)));
    let panic = move || -> Poll<_> { std::panic::resume_unwind(Box::new(number)) };
    let dropped = seen.clone();
    let count = OnDrop::new(move || {
        dropped.dropped.fetch_add(1, Ordering::SeqCst);
    });
    move |ctx| {
        let mut yields = script.yields;
        let mut done = ctx.as_ref().map(Context::done_owned);
        Box::pin(holding(
            count,
            poll_fn(move |cx| {
                seen.polled.fetch_add(1, Ordering::SeqCst);
                let end = ctx.as_ref().and_then(Context::err);
                match (end, script.at_end) {
                    (None, _) | (_, AtEnd::Dropped | AtEnd::Ignore) => {}
                    (Some(_), AtEnd::Complete) => return Poll::Ready(Ok(number)),
                    (Some(end), AtEnd::PassOn) => return Poll::Ready(Err(end.into())),
                    (Some(_), AtEnd::Fail) => return Poll::Ready(fail()),
                    (Some(_), AtEnd::Panic) => return panic(),
                }
                if yields > 0 {
                    yields -= 1;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                match script.last {
                    Last::Complete => Poll::Ready(Ok(number)),
                    Last::Fail => Poll::Ready(fail()),
                    Last::Panic => panic(),
                    Last::Pend => {
                        if let Some(done) = &mut done {
                            let _ = std::pin::Pin::new(done).poll(cx);
                        }
                        Poll::Pending
                    }
                }
            }),
        ))
    }
}

async fn check<const SHOWS_END: bool>(ops: Vec<Op>) -> Result<(), TestCaseError> {
    let mut model = Model {
        shows_end: SHOWS_END,
        ..Model::default()
    };
    let mut real = Real::<SHOWS_END>::new();
    for op in ops {
        if real.group.is_none() && !matches!(op, Op::Run | Op::Abort(_) | Op::DropHandle(_)) {
            continue;
        }
        match op {
            Op::Spawn(script) => {
                real.spawn(script, false);
                model.spawn(script);
            }
            Op::TrySpawn(mut script) => {
                script.at_end = AtEnd::Dropped;
                let is_taken = model.end.is_none() && model.has_room();
                prop_assert_eq!(real.spawn(script, true), is_taken);
                if is_taken {
                    model.spawn(script);
                }
            }
            Op::Abort(number) => {
                if let Some(Some(task)) = real.tasks.get(number) {
                    task.abort();
                    model.abort(number);
                }
            }
            Op::DropHandle(number) => {
                if let Some(task) = real.tasks.get_mut(number) {
                    drop(task.take());
                }
            }
            Op::SetLimit(limit) => {
                real.group.as_ref().unwrap().set_limit(limit);
                model.limit = limit;
                model.grant();
            }
            Op::Cancel => {
                real.group.as_ref().unwrap().cancel();
                model.end(Reason::GroupCancelled);
            }
            Op::CancelParent => {
                real.parent.cancel();
                model.end(Reason::Cancelled);
            }
            Op::Wait => prop_assert_eq!(real.wait(), model.wait()),
            Op::DropGroup => {
                drop(real.group.take());
                model.drop_group();
            }
            Op::Run => {
                real.run().await;
                model.run();
            }
        }
        if let Some(group) = &real.group {
            prop_assert_eq!(group.len(), model.live());
            prop_assert_eq!(group.suppressed(), model.suppressed());
        }
        prop_assert_eq!(real.context.err().map(|end| end.reason()), model.end);
    }
    close(&mut model, &mut real).await?;
    let Real { tasks, seen, .. } = real;
    for (number, ((task, seen), member)) in
        tasks.into_iter().zip(seen).zip(&model.members).enumerate()
    {
        prop_assert_eq!(seen.dropped.load(Ordering::SeqCst), 1, "task {}", number);
        let is_polled = seen.polled.load(Ordering::SeqCst) > 0;
        prop_assert_eq!(is_polled, member.is_started, "task {}", number);
        let Some(task) = task else { continue };
        prop_assert!(task.is_finished(), "task {}", number);
        let id = task.id().to_string();
        let fate = match task.await {
            Ok(value) => {
                prop_assert_eq!(value, number);
                Fate::Completed
            }
            Err(why) => match (why.task() == Some(&*id), why.reason()) {
                (true, Reason::TaskFailed) => Fate::Failed,
                (true, Reason::TaskPanicked) => Fate::Panicked,
                (true, Reason::TaskAborted) => Fate::Aborted,
                (false, reason) => Fate::Cancelled(reason),
                (true, reason) => panic!("{reason:?}"),
            },
        };
        prop_assert_eq!(Some(fate), member.fate, "task {}", number);
    }
    Ok(())
}

/// Brings the group to its end, whatever the operations have left of it, and asks for its outcome.
async fn close<const SHOWS_END: bool>(
    model: &mut Model,
    real: &mut Real<SHOWS_END>,
) -> Result<(), TestCaseError> {
    real.run().await;
    model.run();
    if real.group.is_some() {
        if model.live() > 0 {
            real.parent.cancel();
            model.end(Reason::Cancelled);
            real.run().await;
            model.run();
        }
        // Those that ignore the end.
        for (number, task) in real.tasks.iter().enumerate() {
            if let Some(task) = task {
                task.abort();
                model.abort(number);
            }
        }
        real.run().await;
        model.run();
        prop_assert_eq!(real.wait(), model.wait());
        drop(real.group.take());
        if !model.is_settled {
            model.drop_group();
        }
        real.run().await;
        model.run();
    }
    prop_assert_eq!(model.live(), 0);
    Ok(())
}

proptest! {
    #![proptest_config(Config { cases: 1_500, failure_persistence: None, ..Config::default() })]

    #[test]
    fn model_and_group_agree(ops in proptest::collection::vec(op(), 1..40)) {
        current_thread().block_on(check::<true>(ops))?;
    }

    /// Its tasks cannot be seen to pass on the end: what they do after it is a failure (G1).
    #[test]
    fn model_and_group_agree_where_the_errors_text_hides_the_end(
        ops in proptest::collection::vec(op(), 1..40),
    ) {
        current_thread().block_on(check::<false>(ops))?;
    }
}
