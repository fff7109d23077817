//! `Listeners`: who is told of a node's end. Its children, and its waiters: wakers and callbacks.
//!
//! Guarded by the node's lock. An end takes it out whole, and nothing registers after that.
//!
//! Invariants:
//!
//! 1. `first` is older than the children in `crowd`: it is filled only while there are none. So a node with one child,
//!    or none, needs no memory for a list.
//! 2. A key means the same place until its owner gives it up, or the end has taken the place.

use std::sync::{Arc, Weak};
use std::task::Waker;

use super::node::Node;
use crate::error::ContextError;
use crate::ordered_slab::{FIRST, InlineSlab, OrderedSlab};

#[derive(Default)]
pub(super) struct Listeners {
    /// Its key is `FIRST`.
    first: Option<Weak<Node>>,
    /// `None` until the second child or the first waiter.
    crowd: Option<Box<Crowd>>,
}

#[derive(Default)]
struct Crowd {
    children: OrderedSlab<Weak<Node>>,
    waiters: Waiters,
}

pub(super) type Waiters = InlineSlab<Waiter>;

/// Who is told of an end.
pub(crate) enum Waiter {
    Waker(Waker),
    Hook(Hook),
    /// The node itself, which stays for as long as it can end: a callback on it was detached.
    Kept {
        _node: Arc<Node>,
    },
}

pub(crate) type Hook = Box<dyn FnOnce(&ContextError) + Send>;

impl Listeners {
    #[inline]
    pub(super) fn insert_child(&mut self, child: Weak<Node>) -> u32 {
        match &mut self.crowd {
            None if self.first.is_none() => {}
            Some(crowd) if self.first.is_none() && crowd.children.is_empty() => {}
            _ => return self.insert_into_crowd(child),
        }
        self.first = Some(child);
        FIRST
    }

    #[inline(never)]
    fn insert_into_crowd(&mut self, child: Weak<Node>) -> u32 {
        self.crowd().children.insert(child)
    }

    #[inline]
    fn crowd(&mut self) -> &mut Crowd {
        match self.crowd {
            Some(ref mut crowd) => crowd,
            None => Self::gather(&mut self.crowd),
        }
    }

    #[cold]
    fn gather(crowd: &mut Option<Box<Crowd>>) -> &mut Crowd {
        crowd.insert(Box::default())
    }

    #[inline]
    pub(super) fn remove_child(&mut self, key: u32) -> Option<Weak<Node>> {
        match key {
            FIRST => self.first.take(),
            key => self.crowd.as_mut()?.children.remove(key),
        }
    }

    /// Lists the children of a chunk, the first with that of the first; `false` beyond the last.
    pub(super) fn list_children(&mut self, chunk: usize, listed: &mut Vec<Weak<Node>>) -> bool {
        if chunk == 0 {
            listed.extend(self.first.clone());
        }
        let crowd = self.crowd.as_mut();
        let Some(children) = crowd.and_then(|crowd| crowd.children.chunk_mut(chunk)) else {
            return false;
        };
        listed.extend(children.map(|(_, child)| child.clone()));
        true
    }

    /// Whether nobody has been registered, or only a child that is gone.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.crowd.is_none()
    }

    /// Takes the waiters out; `None` if there are none.
    #[inline]
    pub(super) fn take_waiters(&mut self) -> Option<Waiters> {
        let waiters = &mut self.crowd.as_mut()?.waiters;
        (!waiters.is_empty()).then(|| std::mem::take(waiters))
    }

    /// Takes the oldest child out of listeners that are being consumed.
    #[inline]
    pub(super) fn next_child(&mut self) -> Option<Weak<Node>> {
        match self.first.take() {
            Some(first) => Some(first),
            None => self.crowd.as_mut()?.children.next(),
        }
    }

    fn waker_mut(&mut self, key: u32) -> Option<&mut Waker> {
        match self.crowd.as_mut()?.waiters.get_mut(key)? {
            Waiter::Waker(waker) => Some(waker),
            Waiter::Hook(_) | Waiter::Kept { .. } => None,
        }
    }

    #[cfg(all(test, errgroup_loom))]
    pub(super) fn children(&self) -> usize {
        let in_crowd = self.crowd.as_ref().map_or(0, |crowd| crowd.children.len());
        usize::from(self.first.is_some()) + in_crowd
    }
}

impl Node {
    /// Adds somebody to be told of the end, by a timer too; hands it back if the node has ended.
    pub(crate) fn register(&self, waiter: Waiter) -> Result<u32, Waiter> {
        // First: it panics in a runtime without a timer, and what it ends refuses the waiter.
        self.see_to_timer();
        self.add(waiter)
    }

    /// As `register`, without a timer.
    pub(super) fn add(&self, waiter: Waiter) -> Result<u32, Waiter> {
        let Ok(mut listeners) = self.listen() else {
            return Err(waiter);
        };
        Ok(listeners.crowd().waiters.insert(waiter))
    }

    /// As `add`, for a waker; it is dropped if the node has ended.
    #[inline]
    pub(super) fn register_waker(&self, waker: Waker) -> Option<u32> {
        let mut listeners = self.listen().ok()?;
        let waiters = &mut listeners.crowd().waiters;
        // Made in place: by far most waiters are wakers, and most contexts have one at most.
        Some(waiters.insert_with(|| Waiter::Waker(waker)))
    }

    /// Takes a waiter out again; `None` if the end was first.
    #[inline]
    pub(crate) fn deregister(&self, key: u32) -> Option<Waiter> {
        let mut listeners = self.listeners.lock();
        listeners.crowd.as_mut()?.waiters.remove(key)
    }

    /// Puts another waker in a registered one's place; `false`: the node has ended.
    pub(super) fn replace_waker(&self, key: u32, waker: Waker) -> bool {
        let mut listeners = self.listeners.lock();
        let replaced = match listeners.waker_mut(key) {
            None => Err(waker),
            Some(old) => Ok(std::mem::replace(old, waker)),
        };
        drop(listeners);
        // Foreign code, in either case.
        replaced.is_ok()
    }

    /// Makes the node keep itself until it ends.
    pub(crate) fn keep(self: &Arc<Self>) {
        // Refused by an ended node: then there is nothing to keep it for.
        let _ = self.add(Waiter::Kept {
            _node: self.clone(),
        });
    }
}
