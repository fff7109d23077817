//! `Directory`: the groups of the process that a look down the tree would not find. It knows them weakly.
//!
//! 1. Groups with no group close above them, from their making: they are where a dump of the process begins.
//! 2. Groups whose context has ended while they had tasks, from then on: an end takes them out of their parents' lists, and
//!    they are the ones that a dump is read for. They know their parents themselves.
//!
//! A group leaves it when its core is dropped: with its owner, its spawners and its last task.
//!
//! Lock order: innermost. Nothing foreign runs under the lock: what it holds is weak.
//!
//! Not from `crate::sync`: a lock in a static outlives a model, and nothing is decided under it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::context::Node;
use crate::ordered_slab::OrderedSlab;

static DIRECTORY: Mutex<OrderedSlab<Weak<Node>>> = Mutex::new(OrderedSlab::new());

/// A group's place in the directory.
pub(crate) struct Listing(u32);

fn lock() -> MutexGuard<'static, OrderedSlab<Weak<Node>>> {
    DIRECTORY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listing {
    pub(super) fn new(node: &Arc<Node>) -> Self {
        let node = Arc::downgrade(node);
        Self(lock().insert(node))
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        let node = lock().remove(self.0);
        drop(node);
    }
}

/// The groups that are listed, a chunk at a time: they come and go meanwhile.
pub(crate) fn groups() -> Vec<Arc<Node>> {
    let mut found = Vec::new();
    let mut nodes: Vec<Weak<Node>> = Vec::new();
    for chunk in 0.. {
        let mut listed = lock();
        let Some(entries) = listed.chunk_mut(chunk) else {
            break;
        };
        nodes.extend(entries.map(|(_, node)| node.clone()));
        drop(listed);
        found.extend(nodes.drain(..).filter_map(|node| node.upgrade()));
    }
    found
}
