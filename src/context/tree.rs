//! The tree as somebody sees it who looks from outside: children, parents, groups above. Nothing here changes it.

use std::sync::{Arc, Weak};

use super::node::Node;

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
                    node.enter_directory();
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
}
