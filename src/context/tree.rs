//! The ways through the tree: to the children, to the parents, to whatever is above. Nothing here ends anything.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use super::directory;
use super::kind::Owner;
use super::node::Node;

/// Where to go on.
pub(super) enum Climb {
    /// Above this node.
    On,
    /// On the other ways only.
    Beside,
    /// Nowhere.
    Stop,
}

/// Visits a node and those above it, from the nearest on; after a merged one first the way of the context that was asked.
pub(super) fn climb<'a>(
    from: Option<&'a Arc<Node>>,
    mut visit: impl FnMut(&'a Arc<Node>) -> Climb,
) {
    let mut seen = HashSet::new();
    let mut next = Vec::from_iter(from);
    while let Some(node) = next.pop() {
        match visit(node) {
            Climb::On => {}
            Climb::Beside => continue,
            Climb::Stop => return,
        }
        if let Some(link) = node.merged() {
            // The ways may meet again further up.
            if !seen.insert(Arc::as_ptr(node)) {
                continue;
            }
            next.push(&link.other);
        }
        next.extend(&node.parent);
    }
}

impl Node {
    /// The children that are live, a chunk at a time: they come and go meanwhile. An ended node has none.
    pub(crate) fn live_children(&self) -> Vec<Arc<Node>> {
        let mut found = Vec::new();
        let mut children: Vec<Weak<Node>> = Vec::new();
        for chunk in 0.. {
            let is_there = self.listeners.list_children(chunk, &mut children);
            found.extend(children.drain(..).filter_map(|child| child.upgrade()));
            if !is_there {
                break;
            }
        }
        found
    }

    /// The parents: none, one, or the two of a merged context.
    pub(crate) fn parents(&self) -> impl Iterator<Item = &Arc<Node>> {
        let merged = self.merged().map(|link| &link.other);
        self.parent.iter().chain(merged)
    }

    /// Sees to it that whoever looks from outside finds a new group or batch, whose context this is: from one above, which
    /// has seen to it for itself, or from the top of the tree. `false` if neither is near.
    #[must_use]
    pub(crate) fn is_found_from_above(self: &Arc<Self>) -> bool {
        /// More than contexts nest between one group and the next.
        const LEVELS: usize = 16;
        let mut node = self;
        for _ in 0..LEVELS {
            match &node.parent {
                None => {
                    directory::enter(node, &node.key);
                    return true;
                }
                Some(parent) if parent.is_owned() => return true,
                Some(parent) => node = parent,
            }
        }
        false
    }

    /// Whether this is the context of a group or a batch that is there.
    fn is_owned(&self) -> bool {
        self.weak_owner()
            .is_some_and(|owner| owner.strong_count() > 0)
    }

    /// Offers the groups and batches above, whose contexts this one derives from, from the nearest on, until one is taken.
    pub(crate) fn find_owner_above(self: &Arc<Self>, is_taken: impl Fn(&Arc<dyn Owner>) -> bool) {
        climb(Some(self), |node| {
            let is_above = !Arc::ptr_eq(node, self);
            match is_above && node.owner().is_some_and(|owner| is_taken(&owner)) {
                true => Climb::Stop,
                false => Climb::On,
            }
        });
    }
}
