//! Random trees of contexts against a plain model: who has ended, why, and who was told, after every operation.
//!
//! The model is declarative. It knows when each node was given an end of its own, and takes the earliest of these and
//! of its parents'; nothing is propagated, no order of calls matters, and there is no clock but a number.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use errgroup::{CancelHandle, Context, ContextError, DoneOwned, OnDone, Reason};
use proptest::prelude::*;
use proptest::test_runner::Config;
use tokio::runtime::Builder;
use tokio::time::Instant;

use crate::support::{
    Counter, Log, advance, advance_without_timers, background, cause_address, error, ms, poll,
};

// ---- the model

/// When something happens: the clock, then whether it is the clock itself or a call, then the number of the call.
///
/// A deadline comes before the calls that are made at its very moment.
type Moment = (u64, bool, usize);

#[derive(Clone, Debug, PartialEq)]
struct End {
    at: Moment,
    reason: Reason,
    /// The number of the cause, if one was given.
    cause: Option<usize>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    parents: Vec<usize>,
    /// Ends of its own, those included that came too late.
    own: Vec<End>,
    deadline: Option<u64>,
    value: Option<usize>,
    handles: usize,
}

/// Nodes in the order of derivation; number 0 is the root.
#[derive(Debug)]
struct Model {
    nodes: Vec<Node>,
    clock: u64,
    calls: usize,
}

impl Model {
    fn new() -> Self {
        Self {
            nodes: vec![Node::default()],
            clock: 0,
            calls: 0,
        }
    }

    fn now(&self) -> Moment {
        (self.clock, true, self.calls)
    }

    /// The possible ends of every node; several where two parents end it at the same moment.
    fn ends(&self) -> Vec<Vec<End>> {
        let mut ends: Vec<Vec<End>> = Vec::new();
        for node in &self.nodes {
            let own = node
                .own
                .iter()
                .filter(|end| end.at <= self.now())
                .min_by_key(|end| end.at);
            let inherited: Vec<&End> = node
                .parents
                .iter()
                .flat_map(|&parent| &ends[parent])
                .collect();
            let first = inherited.iter().map(|end| end.at).min();
            ends.push(match own {
                Some(own) if first.is_none_or(|first| own.at <= first) => vec![own.clone()],
                _ => inherited
                    .into_iter()
                    .filter(|end| Some(end.at) == first)
                    .cloned()
                    .collect(),
            });
        }
        ends
    }

    fn has_ended(&self, node: usize) -> bool {
        !self.ends()[node].is_empty()
    }

    fn derive(&mut self, parents: &[usize]) -> usize {
        let deadline = parents
            .iter()
            .filter_map(|&parent| self.nodes[parent].deadline)
            .min();
        self.nodes.push(Node {
            parents: parents.to_vec(),
            deadline,
            value: self.nodes[parents[0]].value,
            ..Node::default()
        });
        self.nodes.len() - 1
    }

    /// A deadline of its own, unless a parent's is earlier. One that is over already takes effect by this call.
    fn derive_timeout(&mut self, parent: usize, timeout: u64, cause: Option<usize>) -> usize {
        let at = self.clock + timeout;
        let node = self.derive(&[parent]);
        if self.nodes[node]
            .deadline
            .is_none_or(|earlier| at <= earlier)
        {
            self.nodes[node].deadline = Some(at);
            let at = if timeout == 0 {
                self.now()
            } else {
                (at, false, 0)
            };
            let reason = Reason::DeadlineExceeded;
            self.nodes[node].own.push(End { at, reason, cause });
        }
        node
    }

    /// Of two parents, one of which has ended before, only that one counts; the first, if both have.
    fn derive_merged(&mut self, first: usize, second: usize) -> usize {
        let node = self.derive(&[first, second]);
        if let Some(ended) = [first, second]
            .into_iter()
            .find(|&parent| self.has_ended(parent))
        {
            self.nodes[node].parents = vec![ended];
        }
        node
    }

    fn end(&mut self, node: usize, reason: Reason, cause: Option<usize>) {
        let at = self.now();
        self.nodes[node].own.push(End { at, reason, cause });
    }
}

// ---- the operations

/// Chooses among what there is at the time.
type Pick = usize;

#[derive(Clone, Debug)]
enum Op {
    WithCancel(Pick),
    WithValue(Pick),
    WithTimeout(Pick, u64),
    WithTimeoutCause(Pick, u64),
    Merge(Pick, Pick),
    WithoutCancel(Pick),
    Clone(Pick),
    Drop(Pick),
    CloneHandle(Pick),
    DropHandle(Pick),
    DetachHandle(Pick),
    Cancel(Pick),
    CancelWith(Pick),
    OnDone(Pick),
    Stop(Pick),
    Detach(Pick),
    Wait(Pick),
    Poll(Pick),
    StopWaiting(Pick),
    Advance(u64),
    AdvanceWithoutTimers(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let pick = || 0..1_000_usize;
    let time = || 0..10_u64;
    prop_oneof![
        6 => pick().prop_map(Op::WithCancel),
        1 => pick().prop_map(Op::WithValue),
        2 => (pick(), time()).prop_map(|(ctx, timeout)| Op::WithTimeout(ctx, timeout)),
        6 => (pick(), time()).prop_map(|(ctx, timeout)| Op::WithTimeoutCause(ctx, timeout)),
        6 => (pick(), pick()).prop_map(|(first, second)| Op::Merge(first, second)),
        1 => pick().prop_map(Op::WithoutCancel),
        1 => pick().prop_map(Op::Clone),
        3 => pick().prop_map(Op::Drop),
        1 => pick().prop_map(Op::CloneHandle),
        2 => pick().prop_map(Op::DropHandle),
        1 => pick().prop_map(Op::DetachHandle),
        1 => pick().prop_map(Op::Cancel),
        2 => pick().prop_map(Op::CancelWith),
        4 => pick().prop_map(Op::OnDone),
        2 => pick().prop_map(Op::Stop),
        2 => pick().prop_map(Op::Detach),
        2 => pick().prop_map(Op::Wait),
        4 => pick().prop_map(Op::Poll),
        1 => pick().prop_map(Op::StopWaiting),
        2 => time().prop_map(Op::Advance),
        3 => time().prop_map(Op::AdvanceWithoutTimers),
    ]
}

// ---- the real thing, beside the model

#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("cause {0}")]
struct Cause(usize);

struct Callback {
    node: usize,
    on_done: Option<OnDone>,
    calls: Log<ContextError>,
    seen: Vec<ContextError>,
    is_stopped: bool,
}

struct Waiter {
    node: usize,
    done: DoneOwned,
    waker: Arc<Counter>,
    /// It was pending when last polled.
    waits: bool,
}

struct World {
    model: Model,
    start: Instant,
    contexts: Vec<(usize, Context)>,
    handles: Vec<(usize, CancelHandle)>,
    callbacks: Vec<Callback>,
    waiters: Vec<Waiter>,
    /// Where each cause lies, once seen.
    causes: HashMap<usize, *const ()>,
    /// The clock was pushed and no timer has run since: who waits below a deadline may not have been told yet.
    timers_are_late: bool,
}

/// The chosen index, if there is anything to choose from.
fn choose<T>(from: &[T], pick: Pick) -> Option<usize> {
    (!from.is_empty()).then(|| pick % from.len())
}

impl World {
    fn new() -> Self {
        Self {
            model: Model::new(),
            start: Instant::now(),
            contexts: vec![(0, background())],
            handles: Vec::new(),
            callbacks: Vec::new(),
            waiters: Vec::new(),
            causes: HashMap::new(),
            timers_are_late: false,
        }
    }

    async fn apply(&mut self, op: &Op) {
        self.model.calls += 1;
        match *op {
            Op::Advance(by) => {
                self.model.clock += by;
                advance(ms(by)).await;
                self.timers_are_late = false;
            }
            Op::AdvanceWithoutTimers(by) => {
                self.model.clock += by;
                advance_without_timers(ms(by));
                self.timers_are_late = true;
            }
            Op::CloneHandle(pick)
            | Op::DropHandle(pick)
            | Op::DetachHandle(pick)
            | Op::Cancel(pick)
            | Op::CancelWith(pick) => self.use_handle(op, pick),
            Op::Stop(pick) | Op::Detach(pick) => self.use_callback(op, pick),
            Op::Poll(pick) | Op::StopWaiting(pick) => self.use_waiter(op, pick),
            Op::WithCancel(pick)
            | Op::WithValue(pick)
            | Op::WithTimeout(pick, _)
            | Op::WithTimeoutCause(pick, _)
            | Op::Merge(pick, _)
            | Op::WithoutCancel(pick)
            | Op::Clone(pick)
            | Op::Drop(pick)
            | Op::OnDone(pick)
            | Op::Wait(pick) => self.use_context(op, pick),
        }
    }

    fn use_context(&mut self, op: &Op, pick: Pick) {
        let Some(index) = choose(&self.contexts, pick) else {
            return;
        };
        let (node, ctx) = self.contexts[index].clone();
        let call = self.model.calls;
        match *op {
            Op::WithCancel(_) => {
                let (ctx, handle) = ctx.with_cancel();
                let derived = self.model.derive(&[node]);
                self.model.nodes[derived].handles = 1;
                self.handles.push((derived, handle));
                self.contexts.push((derived, ctx));
            }
            Op::WithValue(_) => {
                let derived = self.model.derive(&[node]);
                self.model.nodes[derived].value = Some(call);
                self.contexts.push((derived, ctx.with_value(call)));
            }
            Op::WithTimeout(_, timeout) => {
                let derived = self.model.derive_timeout(node, timeout, None);
                self.contexts.push((derived, ctx.with_timeout(ms(timeout))));
            }
            Op::WithTimeoutCause(_, timeout) => {
                let derived = self.model.derive_timeout(node, timeout, Some(call));
                self.contexts
                    .push((derived, ctx.with_timeout_cause(ms(timeout), Cause(call))));
            }
            Op::Merge(_, other) => {
                let (second, other) = &self.contexts[other % self.contexts.len()];
                let derived = self.model.derive_merged(node, *second);
                let merged = ctx.merge(other);
                self.contexts.push((derived, merged));
            }
            Op::WithoutCancel(_) => {
                let derived = self.model.derive(&[0]);
                self.model.nodes[derived].value = self.model.nodes[node].value;
                self.contexts.push((derived, ctx.without_cancel()));
            }
            Op::Clone(_) => self.contexts.push((node, ctx)),
            Op::OnDone(_) => self.register(node, &ctx),
            Op::Wait(_) => self.waiters.push(Waiter {
                node,
                done: ctx.done_owned(),
                waker: Counter::new(),
                waits: false,
            }),
            _ => drop(self.contexts.swap_remove(index)),
        }
    }

    fn register(&mut self, node: usize, ctx: &Context) {
        let calls = Log::new();
        let on_done = ctx.on_done({
            let calls = calls.clone();
            move |error| calls.push(error.clone())
        });
        self.callbacks.push(Callback {
            node,
            on_done: Some(on_done),
            calls,
            seen: Vec::new(),
            is_stopped: false,
        });
    }

    fn use_handle(&mut self, op: &Op, pick: Pick) {
        let Some(index) = choose(&self.handles, pick) else {
            return;
        };
        let (node, call) = (self.handles[index].0, self.model.calls);
        match op {
            Op::Cancel(_) => {
                self.handles[index].1.cancel();
                self.model.end(node, Reason::Cancelled, None);
            }
            Op::CancelWith(_) => {
                self.handles[index].1.cancel_with(Cause(call));
                self.model.end(node, Reason::Cancelled, Some(call));
            }
            Op::CloneHandle(_) => {
                self.handles.push(self.handles[index].clone());
                self.model.nodes[node].handles += 1;
            }
            _ => {
                let (_, handle) = self.handles.swap_remove(index);
                self.model.nodes[node].handles -= 1;
                if matches!(op, Op::DetachHandle(_)) {
                    handle.detach();
                } else {
                    drop(handle);
                    if self.model.nodes[node].handles == 0 {
                        self.model.end(node, Reason::HandleDropped, None);
                    }
                }
            }
        }
    }

    fn use_callback(&mut self, op: &Op, pick: Pick) {
        let Some(index) = choose(&self.callbacks, pick) else {
            return;
        };
        let callback = &mut self.callbacks[index];
        let Some(on_done) = callback.on_done.take() else {
            return;
        };
        if matches!(op, Op::Detach(_)) {
            on_done.detach();
            return;
        }
        callback.seen.extend(callback.calls.take());
        callback.is_stopped = callback.seen.is_empty();
        assert_eq!(
            on_done.stop(),
            callback.is_stopped,
            "true only if this prevented it"
        );
    }

    fn use_waiter(&mut self, op: &Op, pick: Pick) {
        let Some(index) = choose(&self.waiters, pick) else {
            return;
        };
        if matches!(op, Op::StopWaiting(_)) {
            self.waiters.swap_remove(index);
            return;
        }
        let waiter = &mut self.waiters[index];
        let is_ready = poll(&mut waiter.done, &waiter.waker).is_ready();
        assert_eq!(is_ready, self.model.has_ended(waiter.node));
        waiter.waits |= !is_ready;
    }

    fn check(&mut self) {
        let ends = self.model.ends();
        let told = self.told();
        for (node, ctx) in self.contexts.clone() {
            assert_eq!(ctx.is_done(), !ends[node].is_empty(), "node {node}");
            assert_eq!(ctx.value::<usize>().copied(), self.model.nodes[node].value);
            let deadline = self.model.nodes[node].deadline;
            assert_eq!(
                ctx.deadline(),
                deadline.map(|at| self.start + Duration::from_millis(at))
            );
            if ctx.is_done() {
                self.check_end(&ctx, &ends[node]);
            }
        }
        assert_eq!(self.told(), told, "asking tells nobody");
        for index in 0..self.callbacks.len() {
            self.check_callback(index, &ends);
        }
        for waiter in &self.waiters {
            let is_told = waiter.waits && !ends[waiter.node].is_empty();
            if self.is_certain(waiter.node) || waiter.waker.woken() > 0 {
                assert_eq!(
                    waiter.waker.woken(),
                    usize::from(is_told),
                    "node {}",
                    waiter.node
                );
            }
        }
    }

    /// Reason and cause are those of a possible end, and the cause is the one value that was given.
    fn check_end(&mut self, ctx: &Context, possible: &[End]) {
        assert!(
            is_possible(&error(ctx), possible),
            "{:?} is none of {possible:?}",
            ctx.err()
        );
        if let Some(Cause(cause)) = error(ctx).downcast_ref() {
            let address = cause_address(ctx);
            assert_eq!(*self.causes.entry(*cause).or_insert(address), address);
        }
    }

    /// Once if the node has ended, else never.
    fn check_callback(&mut self, index: usize, ends: &[Vec<End>]) {
        let is_certain = self.is_certain(self.callbacks[index].node);
        let callback = &mut self.callbacks[index];
        callback.seen.extend(callback.calls.take());
        let possible = &ends[callback.node];
        let is_told = !callback.is_stopped && !possible.is_empty();
        if is_certain || !callback.seen.is_empty() {
            assert_eq!(
                callback.seen.len(),
                usize::from(is_told),
                "node {}",
                callback.node
            );
        }
        assert!(
            callback
                .seen
                .iter()
                .all(|error| is_possible(error, possible))
        );
    }

    /// Whoever waits for the node has been told of its end: its timers have run, or it has none.
    fn is_certain(&self, node: usize) -> bool {
        !self.timers_are_late || self.model.nodes[node].deadline.is_none()
    }

    /// How often anybody was told of anything.
    fn told(&mut self) -> usize {
        let mut told = 0;
        for callback in &mut self.callbacks {
            callback.seen.extend(callback.calls.take());
            told += callback.seen.len();
        }
        let woken = self.waiters.iter().map(|waiter| waiter.waker.woken());
        told + woken.sum::<usize>()
    }
}

fn is_possible(error: &ContextError, ends: &[End]) -> bool {
    let cause = error.downcast_ref().map(|&Cause(cause)| cause);
    ends.iter()
        .any(|end| (end.reason, end.cause) == (error.reason(), cause))
}

proptest! {
    #![proptest_config(Config { cases: 1_000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn random_trees_behave_as_the_model(ops in prop::collection::vec(op(), 1..100)) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for op in &ops {
                world.apply(op).await;
                // To check is to ask, and who asks records that a deadline has passed: let the next operation be first at
                // times.
                if !matches!(op, Op::AdvanceWithoutTimers(_)) {
                    world.check();
                }
            }
        });
    }
}
