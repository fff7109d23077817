//! `Polls`: how often each task of a group was polled, and whether it is being polled now. For whoever looks at the group
//! from outside; the group itself does not rely on it.
//!
//! Owned by the group's [`Registry`](super::registry::Registry). A task counts in the place of its key, twice for each
//! poll: when it begins and when it has to wait. So an odd count is that of a task inside a poll, and whoever reads the
//! same odd count twice knows how long this one poll lasts at least, although no poll reads a clock. A blocking task
//! counts once, when it has its thread.
//!
//! Invariants:
//!
//! 1. A place is counted in by one thread at a time: by whoever polls the task that has the key. So a load and a store do,
//!    and no atomic addition is needed.
//! 2. The place of a key is there, and zero, before the task is.
//! 3. Places stay where they are until the group goes: a task counts without a lock.
//!
//! All accesses are Relaxed: nothing is published through a count. A reader may see it late by what a processor takes to
//! write a store back.
//!
//! Why not a slot for each worker thread that names the task which it polls? It would take a thread-local, two words to be
//! written together, and a list of threads; and the counts would be needed beside it.
//!
//! Why not in the task's entry in the registry? That lies under a lock, and moves. Why not in the task? Nobody but its
//! runtime finds it there.
//!
//! Not from `crate::sync`: these are hints that no decision of the group hangs on, and would only blow up its models.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use once_cell::race::OnceBox;

/// Places within the group itself: most groups have no more tasks at once.
const INLINE: usize = 8;

/// Blocks beyond. Each has three times the places of all before it, so that these are all there can be.
const BLOCKS: usize = ((u32::BITS - INLINE.ilog2()) as usize).div_ceil(2);

#[derive(Default)]
pub(super) struct Polls {
    inline: [Count; INLINE],
    blocks: OnceBox<[Block; BLOCKS]>,
}

type Block = OnceLock<Box<[Count]>>;

/// The polls of one task.
#[derive(Default)]
pub(super) struct Count(AtomicU32);

impl Count {
    /// A poll begins, or has come to where the task has to wait.
    #[inline]
    pub(super) fn step(&self) {
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(before.wrapping_add(1), Ordering::Relaxed);
    }
}

impl Polls {
    /// A task is about to have this key.
    #[inline]
    pub(super) fn begin(&self, key: u32) {
        let count = match self.inline.get(key as usize) {
            Some(count) => count,
            None => self.make(key),
        };
        count.0.store(0, Ordering::Relaxed);
    }

    #[inline(never)]
    fn make(&self, key: u32) -> &Count {
        let blocks = self
            .blocks
            .get_or_init(|| Box::new([const { Block::new() }; BLOCKS]));
        let (block, place) = place_of(key);
        let counts = || (0..3 * first_of(block)).map(|_| Count::default()).collect();
        &blocks[block].get_or_init(counts)[place]
    }

    /// Where a task counts that has this key.
    #[inline]
    pub(super) fn of(&self, key: u32) -> &Count {
        match self.inline.get(key as usize) {
            Some(count) => count,
            None => self.of_beyond(key),
        }
    }

    /// Out of line with its panic: it stands in every task's poll.
    #[inline(never)]
    fn of_beyond(&self, key: u32) -> &Count {
        let count = self.find(key);
        count.expect("errgroup: a task has a place to count in")
    }

    #[inline]
    fn find(&self, key: u32) -> Option<&Count> {
        let (block, place) = place_of(key);
        self.blocks.get()?[block].get()?.get(place)
    }

    /// The count of a key; zero if no task has had it.
    pub(super) fn get(&self, key: u32) -> u32 {
        let count = self.inline.get(key as usize).or_else(|| self.find(key));
        count.map_or(0, |count| count.0.load(Ordering::Relaxed))
    }
}

/// The block of a key that has no place inline, and the place in it.
#[inline]
fn place_of(key: u32) -> (usize, usize) {
    let block = (key.ilog2() - INLINE.ilog2()) as usize / 2;
    (block, key as usize - first_of(block))
}

/// The first key of a block.
#[inline]
fn first_of(block: usize) -> usize {
    INLINE << (2 * block)
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests {
    use super::{BLOCKS, INLINE, Polls, first_of, place_of};

    #[test]
    fn every_key_has_a_place_of_its_own() {
        let polls = Polls::default();
        let keys = 0..1_000;
        keys.clone().for_each(|key| polls.begin(key));
        for key in keys.clone() {
            (0..=key).for_each(|_| polls.of(key).step());
        }
        keys.for_each(|key| assert_eq!(polls.get(key), key + 1));
    }

    #[test]
    fn key_used_again_counts_from_zero() {
        let polls = Polls::default();
        for key in [0, INLINE as u32, 31, 32, 500] {
            polls.begin(key);
            polls.of(key).step();
            polls.begin(key);
            assert_eq!(polls.get(key), 0);
        }
    }

    #[test]
    fn largest_key_has_a_place() {
        let (block, place) = place_of(u32::MAX);
        assert!(block < BLOCKS && place < 3 * first_of(block));
        assert_eq!(place_of(INLINE as u32), (0, 0));
        assert_eq!(place_of(4 * INLINE as u32 - 1), (0, 3 * INLINE - 1));
        assert_eq!(place_of(4 * INLINE as u32), (1, 0));
    }
}
