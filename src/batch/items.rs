//! `Block` and `Stash`: items that were pulled and not started.
//!
//! Their items are dropped one by one: a destructor that panics keeps no other from running, and two of them do not
//! abort.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::thread::panicking;

use crate::panic::{catch, discard};

/// What a lane has in hand: items with consecutive indexes.
pub(super) struct Block<T> {
    /// The next is the last, since that is the cheapest to take.
    items: Vec<T>,
    /// The index after that of the first here.
    end: usize,
}

/// What lanes have given back, in the order of the indexes.
pub(super) struct Stash<T>(VecDeque<(usize, T)>);

impl<T> Default for Block<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            end: 0,
        }
    }
}

impl<T> Default for Stash<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Block<T> {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        self.items.pop()
    }

    /// The index of the item that was popped last.
    #[inline]
    pub(super) fn popped(&self) -> usize {
        self.end - self.items.len() - 1
    }

    /// Fills the empty block with items from index `first` on, until there is none. `more` is told how many there are.
    #[inline]
    pub(super) fn fill(&mut self, first: usize, mut more: impl FnMut(usize) -> Option<T>) {
        while let Some(item) = more(self.items.len()) {
            self.items.push(item);
        }
        self.items.reverse();
        self.end = first + self.items.len();
    }
}

impl<T> Stash<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fills an empty block with the first items, `size` at most.
    pub(super) fn move_to(&mut self, block: &mut Block<T>, size: usize) {
        let Some(&(first, _)) = self.0.front() else {
            return;
        };
        block.fill(first, |len| {
            let &(index, _) = self.0.front().filter(|_| len < size)?;
            if index != first + len {
                return None;
            }
            self.0.pop_front().map(|(_, item)| item)
        });
    }

    /// Takes all but the next `kept` items of a block.
    pub(super) fn take_back(&mut self, block: &mut Block<T>, kept: usize) {
        let first = block.end - block.len() + kept;
        let place = self.0.partition_point(|(index, _)| *index < first);
        let count = block.len() - kept;
        block.end -= count;
        for (rest, item) in block.items.drain(..count).enumerate() {
            // The last of them first, all at the same place.
            self.0.insert(place, (first + count - 1 - rest, item));
        }
    }
}

impl<T> Drop for Block<T> {
    fn drop(&mut self) {
        drop_each(std::iter::from_fn(|| self.items.pop()));
    }
}

impl<T> Drop for Stash<T> {
    fn drop(&mut self) {
        drop_each(std::iter::from_fn(|| self.0.pop_front()));
    }
}

fn drop_each(items: impl Iterator) {
    let mut first = None;
    for item in items {
        if let Err(payload) = catch(|| drop(item)) {
            match first {
                None => first = Some(payload),
                Some(_) => discard(payload),
            }
        }
    }
    match first {
        Some(payload) if !panicking() => resume_unwind(payload),
        payload => discard(payload),
    }
}
