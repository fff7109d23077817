//! The directory: the nodes of the process from which whoever looks from outside begins. It knows them weakly.
//!
//! 1. The top of each tree that a group or a batch is in, from the making of its first on: all that is live is found from there.
//!    A tree without a group has no place here, so a context costs nothing.
//! 2. Groups and batches whose context has ended while they had tasks or items, from then on: an end takes them out of their parents' lists, and
//!    they are the ones that a dump is read for. They know their parents themselves. Groups far below a top, which nobody
//!    looks for when a group is made, are here from the beginning.
//!
//! A top keeps its key in the place of the one that it would have among its parent's children; a group has a [`Listing`]. Each
//! leaves when it is dropped.
//!
//! Lock order: innermost. Nothing foreign runs under the lock: what it holds is weak.
//!
//! The lock is not from `crate::sync`: what is in a static outlives a model, and nothing is decided under it.

use std::sync::{Arc, Weak};

use super::listeners::UNLINKED;
use super::node::Node;
use crate::slab::Slab;
use crate::sync::{AtomicU32, Ordering};

type Nodes = Slab<Weak<Node>>;

#[cfg(not(all(test, errgroup_loom)))]
fn with<R>(f: impl FnOnce(&mut Nodes) -> R) -> R {
    use std::sync::{Mutex, PoisonError};
    static DIRECTORY: Mutex<Nodes> = Mutex::new(Nodes::new());
    f(&mut DIRECTORY.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A model has all its threads on one of the system's, and must not see the nodes of others.
#[cfg(all(test, errgroup_loom))]
fn with<R>(f: impl FnOnce(&mut Nodes) -> R) -> R {
    use std::cell::RefCell;
    thread_local! {
        static DIRECTORY: RefCell<Nodes> = const { RefCell::new(Nodes::new()) };
    }
    DIRECTORY.with_borrow_mut(f)
}

/// Enters a node, and keeps its key in `place`. A second call does nothing.
pub(super) fn enter(node: &Arc<Node>, place: &AtomicU32) {
    // Relaxed, here and below: the key is used by who leaves, who has synchronised.
    if place.load(Ordering::Relaxed) != UNLINKED {
        return;
    }
    let node = Arc::downgrade(node);
    let key = with(|nodes| nodes.insert(node));
    let set = place.compare_exchange(UNLINKED, key, Ordering::Relaxed, Ordering::Relaxed);
    if set.is_err() {
        // Another thread was first.
        leave(key);
    }
}

pub(super) fn leave(key: u32) {
    let node = with(|nodes| nodes.remove(key));
    drop(node);
}

/// The nodes that are listed, a chunk at a time: they come and go meanwhile.
pub(crate) fn listed() -> Vec<Arc<Node>> {
    let mut found = Vec::new();
    let mut chunk: Vec<Weak<Node>> = Vec::new();
    for number in 0.. {
        let is_there = with(|nodes| {
            let entries = nodes.chunk_mut(number)?;
            chunk.extend(entries.map(|(_, node)| node.clone()));
            Some(())
        });
        if is_there.is_none() {
            break;
        }
        found.extend(chunk.drain(..).filter_map(|node| node.upgrade()));
    }
    found
}

/// A group's or a batch's own place in the directory, if it has one.
pub(crate) struct Listing(AtomicU32);

impl Default for Listing {
    fn default() -> Self {
        Self(AtomicU32::new(UNLINKED))
    }
}

impl Listing {
    /// Enters the group or batch whose context this is. A second call does nothing.
    pub(crate) fn enter(&self, node: &Arc<Node>) {
        enter(node, &self.0);
    }

    /// Leaves: there is nothing left to be seen. Who enters it at the same moment stays until the drop.
    pub(crate) fn leave(&self) {
        match self.0.swap(UNLINKED, Ordering::Relaxed) {
            UNLINKED => {}
            key => leave(key),
        }
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        self.leave();
    }
}
