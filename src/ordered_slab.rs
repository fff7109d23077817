//! `OrderedSlab`: a slab that remembers the order of insertion. `InlineSlab`: the same, with room for one value without an
//! allocation.
//!
//! The children and the waiters of a context, and the waiters of a wait group, mostly one at most, are kept in the other.
//!
//! Invariants:
//!
//! 1. The values are linked by `prev` and `next`, oldest first, from `head` to `tail`.
//! 2. `InlineSlab::first` is older than everything in `rest`: it is filled only while `rest` is empty.

use crate::slab::{NONE, Slab};

/// The key of a single place beside an `OrderedSlab`, which gives out smaller ones.
pub(crate) const FIRST: u32 = u32::MAX - 2;

pub(crate) struct OrderedSlab<T> {
    values: Slab<Linked<T>>,
    head: u32,
    tail: u32,
}

struct Linked<T> {
    value: T,
    prev: u32,
    next: u32,
}

pub(crate) struct InlineSlab<T> {
    /// Its key is `FIRST`.
    first: Option<T>,
    rest: Option<Box<OrderedSlab<T>>>,
}

impl<T> Default for OrderedSlab<T> {
    fn default() -> Self {
        Self {
            values: Slab::new(),
            head: NONE,
            tail: NONE,
        }
    }
}

impl<T> OrderedSlab<T> {
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Appends a value and returns its key, which stays valid until the value is removed.
    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        let key = self.values.insert(Linked {
            value,
            prev: self.tail,
            next: NONE,
        });
        match self.values.get_mut(self.tail) {
            None => self.head = key,
            Some(tail) => tail.next = key,
        }
        self.tail = key;
        key
    }

    /// Takes a value out; `None` if there is none of this key.
    pub(crate) fn remove(&mut self, key: u32) -> Option<T> {
        let Linked { value, prev, next } = self.values.remove(key)?;
        match self.values.get_mut(prev) {
            None => self.head = next,
            Some(prev) => prev.next = next,
        }
        match self.values.get_mut(next) {
            None => self.tail = prev,
            Some(next) => next.prev = prev,
        }
        Some(value)
    }

    pub(crate) fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        self.values.get_mut(key).map(|linked| &mut linked.value)
    }

    /// As [`Slab::chunk_mut`].
    pub(crate) fn chunk_mut(
        &mut self,
        index: usize,
    ) -> Option<impl Iterator<Item = (u32, &mut T)>> {
        let values = self.values.chunk_mut(index)?;
        Some(values.map(|(key, linked)| (key, &mut linked.value)))
    }

    /// Takes the oldest value out of a slab that is being consumed.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<T> {
        let Linked { value, next, .. } = self.values.consume(self.head)?;
        self.head = next;
        Some(value)
    }

    #[cfg(all(test, not(errgroup_loom)))]
    fn for_each_mut(&mut self, mut f: impl FnMut(&mut T)) {
        let mut key = self.head;
        while let Some(linked) = self.values.get_mut(key) {
            key = linked.next;
            f(&mut linked.value);
        }
    }
}

impl<T> Default for InlineSlab<T> {
    fn default() -> Self {
        Self {
            first: None,
            rest: None,
        }
    }
}

impl<T> InlineSlab<T> {
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, |rest| rest.len());
        usize::from(self.first.is_some()) + rest
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none() && self.rest.as_ref().is_none_or(|rest| rest.is_empty())
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.insert_with(|| value)
    }

    /// Inserts a value that is made in its place.
    #[inline]
    pub(crate) fn insert_with(&mut self, value: impl FnOnce() -> T) -> u32 {
        if self.is_empty() {
            self.first = Some(value());
            return FIRST;
        }
        self.insert_into_rest(value())
    }

    #[inline(never)]
    fn insert_into_rest(&mut self, value: T) -> u32 {
        self.rest.get_or_insert_default().insert(value)
    }

    #[inline]
    pub(crate) fn remove(&mut self, key: u32) -> Option<T> {
        match key {
            FIRST => self.first.take(),
            key => self.rest.as_mut()?.remove(key),
        }
    }

    pub(crate) fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        match key {
            FIRST => self.first.as_mut(),
            key => self.rest.as_mut()?.get_mut(key),
        }
    }

    /// The values of one chunk, the first with that in place; `None` beyond the last chunk. As `OrderedSlab::chunk_mut`.
    pub(crate) fn chunk_mut(&mut self, index: usize) -> Option<impl Iterator<Item = &mut T>> {
        let first = self.first.as_mut().filter(|_| index == 0);
        let rest = self.rest.as_mut().and_then(|rest| rest.chunk_mut(index));
        if index > 0 && rest.is_none() {
            return None;
        }
        let rest = rest.into_iter().flatten().map(|(_, value)| value);
        Some(first.into_iter().chain(rest))
    }
}

impl<T> From<Option<T>> for InlineSlab<T> {
    fn from(first: Option<T>) -> Self {
        Self { first, rest: None }
    }
}

/// Takes the values out, oldest first.
impl<T> IntoIterator for InlineSlab<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter(self)
    }
}

pub(crate) struct IntoIter<T>(InlineSlab<T>);

impl<T> Iterator for IntoIter<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match self.0.first.take() {
            Some(first) => Some(first),
            None => self.0.rest.as_mut()?.next(),
        }
    }
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests;
