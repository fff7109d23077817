//! How a snapshot is taken: down the tree of live contexts, then up from the groups whose ends have taken them out of it.
//!
//! In steps:
//!
//! 1. From the root down: each node, the tasks of its group, its live children. A node's children and a registry's tasks are
//!    copied a chunk at a time, and no lock is held in between.
//! 2. From each group of the directory that was not met, and still has tasks: up its parents until one was met. It is in the
//!    snapshot then, with the way between; a group whose way leads elsewhere is none of the root's.
//! 3. All in order: parents before children, depth first.
//!
//! Nothing recurses: a chain may be a million deep.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::data::Text;
use super::{
    BatchSnapshot, ContextSnapshot, EndSnapshot, EndedTasks, GroupSnapshot, Item, ScopeSnapshot,
    Snapshot, TaskKind, TaskSnapshot, TaskState, What,
};
use crate::batch;
use crate::context::{Node, Owner, listed, now};
use crate::error::Reason;
use crate::group::{Counts, Doing, Kind, Name, Report, Watched};
use crate::panic::discard;

/// What stands below a node, and that itself.
pub(super) fn below(root: &Arc<Node>) -> Snapshot {
    let mut collector = Collector::new();
    collector.walk_down(vec![(root.clone(), None)]);
    collector.add_listed(listed(), None);
    collector.finish()
}

/// The groups of the process.
pub(super) fn all() -> Snapshot {
    let mut collector = Collector::new();
    let root = collector.push(
        None,
        What::ContextSnapshot(ContextSnapshot {
            place: None,
            remaining: None,
            end: None,
        }),
    );
    let listed = listed();
    let is_top = |node: &&Arc<Node>| {
        node.parents().next().is_none() && host(node).is_none() && !node.has_ended()
    };
    let tops = listed.iter().filter(is_top);
    let tops = tops.map(|node| (node.clone(), Some(root))).collect();
    collector.walk_down(tops);
    // Asked anew: a group that ended meanwhile is no child any more, and has come to be listed before that.
    collector.add_listed(crate::context::listed(), Some(root));
    collector.finish()
}

struct Collector {
    now: Instant,
    drafts: Vec<Draft>,
    /// Where the nodes are in `drafts`.
    met: HashMap<*const Node, usize>,
    /// Nodes that lead up to none that was met.
    outside: HashSet<*const Node>,
    /// So that an address means one node for as long as the collector is at it.
    nodes: Vec<Arc<Node>>,
}

/// Where a node's group stands, if its context is cut off from that, as that of a supervisor's children is.
fn host(node: &Node) -> Option<Arc<Node>> {
    ask(node, |owner| owner.host())?
}

/// What a node's group says, if it has one.
fn ask<T>(node: &Node, question: impl FnOnce(&dyn Owner) -> T) -> Option<T> {
    let owner = node.owner()?;
    let answer = question(&*owner);
    // Perhaps the last to know it.
    discard(owner);
    Some(answer)
}

/// What the owner of a node has told.
enum Reported {
    Group(Box<Report>),
    Batch(Box<batch::Report>),
    /// It has none.
    Nothing,
}

struct Draft {
    parent: Option<usize>,
    what: What,
}

impl Collector {
    fn new() -> Self {
        Self {
            now: now(),
            drafts: Vec::new(),
            met: HashMap::new(),
            outside: HashSet::new(),
            nodes: Vec::new(),
        }
    }

    fn push(&mut self, parent: Option<usize>, what: What) -> usize {
        self.drafts.push(Draft { parent, what });
        self.drafts.len() - 1
    }

    /// Adds the nodes, and all that is live below them.
    fn walk_down(&mut self, mut to_visit: Vec<(Arc<Node>, Option<usize>)>) {
        to_visit.reverse();
        while let Some((node, parent)) = to_visit.pop() {
            // One with two parents is met twice.
            if self.met.contains_key(&Arc::as_ptr(&node)) {
                continue;
            }
            let place = self.add_node(&node, parent);
            let children = node.live_children();
            to_visit.extend(children.into_iter().rev().map(|child| (child, Some(place))));
            self.nodes.push(node);
        }
    }

    /// Adds a node, and the tasks of its group.
    fn add_node(&mut self, node: &Arc<Node>, parent: Option<usize>) -> usize {
        let place = match self.report(node) {
            Reported::Group(report) => self.add_group(node, *report, parent),
            Reported::Batch(report) => self.push(parent, self.batch(node, *report)),
            Reported::Nothing => match parent {
                Some(batch) if self.is_of_worker(node, batch) => batch,
                _ => self.push(parent, What::ContextSnapshot(self.context(node))),
            },
        };
        self.met.insert(Arc::as_ptr(node), place);
        place
    }

    /// Whether it is what a batch's worker gives its items: that is the batch's context, as far as anybody can tell.
    fn is_of_worker(&self, node: &Node, parent: usize) -> bool {
        match &self.drafts[parent].what {
            What::BatchSnapshot(batch) => batch.place == node.location().into(),
            _ => false,
        }
    }

    fn report(&self, node: &Node) -> Reported {
        let Some(report) = ask(node, |owner| owner.report(self.now)) else {
            return Reported::Nothing;
        };
        match report.downcast().map(Reported::Group) {
            Ok(group) => group,
            Err(report) => report.downcast().map_or(Reported::Nothing, Reported::Batch),
        }
    }

    /// Adds the groups that were not met and have tasks, and the way down to them from what was; from `root`, if nothing
    /// above them was. Of the others nothing is taken: they may be many and large, and what they remember of snapshots is
    /// their own.
    fn add_listed(&mut self, listed: Vec<Arc<Node>>, root: Option<usize>) {
        let ids = listed.into_iter().filter_map(|node| {
            let (id, is_empty) = ask(&node, |owner| (owner.id(), owner.is_empty()))?;
            (!is_empty || !node.has_ended()).then_some((id, node))
        });
        let mut listed: Vec<_> = ids.collect();
        // A host is older than who stands below it.
        listed.sort_by_key(|(id, _)| *id);
        for (_, node) in listed {
            // It may have been met on the way to another.
            if self.met.contains_key(&Arc::as_ptr(&node)) {
                continue;
            }
            let Some((mut parent, way)) = self.way_up(&node, root) else {
                continue;
            };
            for node in way.into_iter().rev() {
                parent = self.add_node(&node, Some(parent));
                self.nodes.push(node);
            }
            // A live one is here since it has a host.
            self.walk_down(vec![(node, Some(parent))]);
        }
    }

    /// The nearest node above that was met, and the nodes between, from below.
    fn way_up(&mut self, node: &Arc<Node>, root: Option<usize>) -> Option<(usize, Vec<Arc<Node>>)> {
        let mut below: HashMap<*const Node, Option<Arc<Node>>> = HashMap::new();
        let mut to_visit: Vec<(Arc<Node>, Option<Arc<Node>>)> = vec![(node.clone(), None)];
        while let Some((above, from)) = to_visit.pop() {
            let address = Arc::as_ptr(&above);
            if let Some(&place) = self.met.get(&address) {
                return Some((place, way_down(from, &below)));
            }
            if self.outside.contains(&address) || below.insert(address, from).is_some() {
                continue;
            }
            let parents = above.parents().cloned().chain(host(&above));
            to_visit.extend(parents.map(|parent| (parent, Some(above.clone()))));
        }
        self.outside.extend(below.keys());
        // Held, so that no other node comes to have its address.
        self.nodes.push(node.clone());
        root.map(|root| (root, Vec::new()))
    }

    /// Puts all in order.
    fn finish(self) -> Snapshot {
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); self.drafts.len()];
        let mut to_visit = Vec::new();
        for (place, draft) in self.drafts.iter().enumerate() {
            match draft.parent {
                Some(parent) => children[parent].push(place),
                None => to_visit.push((place, None)),
            }
        }
        let order = |place: &usize| match &self.drafts[*place].what {
            What::TaskSnapshot(task) => (0, task.id),
            What::GroupSnapshot(group) => (1, group.id),
            What::BatchSnapshot(batch) => (1, batch.id),
            What::ScopeSnapshot(scope) => (1, scope.id),
            What::ContextSnapshot(_) => (2, *place as u64),
        };
        for children in &mut children {
            children.sort_unstable_by_key(order);
        }
        let mut whats: Vec<Option<What>> = self
            .drafts
            .into_iter()
            .map(|draft| Some(draft.what))
            .collect();
        let mut items = Vec::with_capacity(whats.len());
        while let Some((place, parent)) = to_visit.pop() {
            let below = children[place].iter().rev();
            to_visit.extend(below.map(|&child| (child, Some(items.len()))));
            if let Some(what) = whats[place].take() {
                items.push(Item { parent, what });
            }
        }
        Snapshot { items }
    }

    fn context(&self, node: &Arc<Node>) -> ContextSnapshot {
        ContextSnapshot {
            place: Some(node.location().into()),
            remaining: self.remaining(node),
            end: self.end(node, None),
        }
    }

    fn batch(&self, node: &Arc<Node>, report: batch::Report) -> What {
        What::BatchSnapshot(Box::new(BatchSnapshot {
            id: report.id,
            name: report.name,
            place: node.location().into(),
            remaining: self.remaining(node),
            end: self.end(node, None),
            limit: report.limit,
            workers: report.workers,
            idle: report.idle,
            live: report.live,
            unstarted: report.unstarted,
            done: report.done,
            unyielded: report.unyielded,
            source: report.source,
            waiting: report.waiting,
        }))
    }

    /// Adds a group or a scope, and its tasks.
    fn add_group(&mut self, node: &Arc<Node>, report: Report, parent: Option<usize>) -> usize {
        let what = match report.scope {
            Some(counts) => self.scope(node, &report, counts),
            None => self.group(node, &report),
        };
        let place = self.push(parent, what);
        let tasks = report.members.tasks;
        self.drafts.reserve(tasks.len());
        for task in tasks {
            self.push(Some(place), What::TaskSnapshot(task.into()));
        }
        place
    }

    fn scope(&self, node: &Arc<Node>, report: &Report, (live, started): (u32, u32)) -> What {
        What::ScopeSnapshot(Box::new(ScopeSnapshot {
            id: report.id,
            place: node.location().into(),
            age: report.members.age,
            remaining: self.remaining(node),
            end: self.end(node, report.members.ended_ago),
            live: live as usize,
            started: started as usize,
        }))
    }

    fn group(&self, node: &Arc<Node>, report: &Report) -> What {
        let members = &report.members;
        let group = GroupSnapshot {
            id: report.id,
            name: report.name.as_ref().map(text),
            place: node.location().into(),
            age: members.age,
            remaining: self.remaining(node),
            end: self.end(node, members.ended_ago),
            is_isolated: report.is_isolated,
            limit: members.limit,
            live: members.tasks.len(),
            ended: ended(&members.counts),
            queued: members.queued(),
            slots_held: members.slots_held,
            waits_for_slots: members
                .waits_for_slots
                .iter()
                .map(|&at| at.into())
                .collect(),
            stalled: members.stalled(),
        };
        What::GroupSnapshot(Box::new(group))
    }

    fn remaining(&self, node: &Arc<Node>) -> Option<Duration> {
        let deadline = node.deadline().filter(|_| !node.is_done())?;
        Some(deadline.saturating_duration_since(self.now))
    }

    fn end(&self, node: &Arc<Node>, ago: Option<Duration>) -> Option<EndSnapshot> {
        let error = node.err()?;
        let by_deadline = || match error.reason() {
            Reason::DeadlineExceeded => node.deadline(),
            _ => None,
        };
        let at = error.time_taken().or_else(by_deadline);
        let ago = ago.or_else(|| Some(self.now.saturating_duration_since(at?)));
        Some(EndSnapshot {
            reason: error.reason(),
            ago,
            text: Text::Of(error),
        })
    }
}

/// The nodes from one down to where the way up began, that one left out; from below.
fn way_down(
    mut from: Option<Arc<Node>>,
    below: &HashMap<*const Node, Option<Arc<Node>>>,
) -> Vec<Arc<Node>> {
    let mut way = Vec::new();
    while let Some(node) = from {
        from = below.get(&Arc::as_ptr(&node)).cloned().flatten();
        way.push(node);
    }
    way.reverse();
    // The group itself.
    if !way.is_empty() {
        way.remove(0);
    }
    way
}

fn ended(counts: &Counts) -> EndedTasks {
    EndedTasks {
        completed: counts.completed,
        failed: counts.failed,
        panicked: counts.panicked,
        cut_short: counts.cut_short(),
        aborted: counts.aborted,
        never_started: counts.never_started,
    }
}

fn text(name: &Name) -> std::borrow::Cow<'static, str> {
    name.as_ref().clone()
}

impl From<Watched> for TaskSnapshot {
    fn from(watched: Watched) -> Self {
        let Watched {
            task,
            sighting,
            doing,
            holds_slot,
        } = watched;
        let is_blocking = task.kind == Kind::Blocking;
        Self {
            id: task.id.0,
            name: task.name.as_ref().map(text),
            place: task.location.into(),
            age: task.age,
            kind: match task.kind {
                Kind::Dropped | Kind::Slot => TaskKind::Dropped,
                Kind::Local => TaskKind::Local,
                Kind::Cooperative => TaskKind::Cooperative,
                Kind::Blocking => TaskKind::Blocking,
            },
            state: match doing {
                Doing::Queued => TaskState::Queued,
                Doing::NotStarted if is_blocking => TaskState::WaitsForThread,
                Doing::NotStarted => TaskState::NotPolled,
                Doing::Running(time) => TaskState::Running(time),
                Doing::Waiting(time) => TaskState::Waiting(time),
            },
            polls: sighting.polls(),
            holds_slot,
            ended_ago: sighting.ended_ago,
            diagnosis: sighting.diagnosis(),
        }
    }
}
