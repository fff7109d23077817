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

/// Places within the group itself: most groups have no more tasks at once.
const INLINE: usize = 4;

/// Places in the first block beyond. Each further one has as many as all before it together, itself included.
const BLOCK: usize = 64;

const BLOCKS: usize = (u32::BITS - BLOCK.ilog2()) as usize;

#[derive(Default)]
pub(super) struct Polls {
    inline: [AtomicU32; INLINE],
    more: OnceLock<Box<More>>,
}

struct More {
    first: [AtomicU32; BLOCK - INLINE],
    /// Block `n` has the keys from `BLOCK << n` on, as many again.
    blocks: [OnceLock<Box<[AtomicU32]>>; BLOCKS],
}

impl Default for More {
    fn default() -> Self {
        Self {
            first: [const { AtomicU32::new(0) }; BLOCK - INLINE],
            blocks: [const { OnceLock::new() }; BLOCKS],
        }
    }
}

impl Polls {
    /// A task is about to have this key.
    #[inline]
    pub(super) fn begin(&self, key: u32) {
        match self.inline.get(key as usize) {
            Some(count) => count.store(0, Ordering::Relaxed),
            None => self.begin_beyond(key),
        }
    }

    #[inline(never)]
    fn begin_beyond(&self, key: u32) {
        let more = self.more.get_or_init(Box::default);
        let count = match more.first.get(key as usize - INLINE) {
            Some(count) => count,
            None => {
                let (block, place) = block_of(key);
                let size = BLOCK << block;
                let block = more.blocks[block]
                    .get_or_init(|| (0..size).map(|_| AtomicU32::new(0)).collect());
                &block[place]
            }
        };
        count.store(0, Ordering::Relaxed);
    }

    /// A poll of the task begins, or has come to where it has to wait.
    #[inline]
    pub(super) fn count(&self, key: u32) {
        if let Some(count) = self.place(key) {
            let before = count.load(Ordering::Relaxed);
            count.store(before.wrapping_add(1), Ordering::Relaxed);
        }
    }

    #[inline]
    pub(super) fn get(&self, key: u32) -> u32 {
        self.place(key)
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    #[inline]
    fn place(&self, key: u32) -> Option<&AtomicU32> {
        match self.inline.get(key as usize) {
            Some(count) => Some(count),
            None => self.place_beyond(key),
        }
    }

    fn place_beyond(&self, key: u32) -> Option<&AtomicU32> {
        let more = self.more.get()?;
        if let Some(count) = more.first.get(key as usize - INLINE) {
            return Some(count);
        }
        let (block, place) = block_of(key);
        more.blocks.get(block)?.get()?.get(place)
    }
}

/// The block of a key from `BLOCK` on, and the place in it.
fn block_of(key: u32) -> (usize, usize) {
    let block = (key.ilog2() - BLOCK.ilog2()) as usize;
    (block, key as usize - (BLOCK << block))
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests {
    use super::{BLOCK, INLINE, Polls};

    #[test]
    fn every_key_has_a_place_of_its_own() {
        let polls = Polls::default();
        let keys = 0..20 * BLOCK as u32;
        keys.clone().for_each(|key| polls.begin(key));
        for key in keys.clone() {
            (0..=key).for_each(|_| polls.count(key));
        }
        keys.for_each(|key| assert_eq!(polls.get(key), key + 1));
    }

    #[test]
    fn key_used_again_counts_from_zero() {
        let polls = Polls::default();
        for key in [0, INLINE as u32, BLOCK as u32, 5 * BLOCK as u32] {
            polls.begin(key);
            polls.count(key);
            polls.begin(key);
            assert_eq!(polls.get(key), 0);
        }
    }

    #[test]
    fn key_that_no_task_had_is_not_counted() {
        let polls = Polls::default();
        polls.count(1 << 20);
        assert_eq!(polls.get(1 << 20), 0);
        polls.begin(INLINE as u32);
        assert_eq!(polls.get(1 << 20), 0);
    }
}
