//! `BlockSize`: how many items a worker takes at a time.
//!
//! Blocks spare the workers the lock of the queue, and their items wait for each other. So they grow as long as whole
//! blocks are started quickly, and are of one item after one that took long.

use std::time::{Duration, Instant};

/// The most items of a block.
const LARGEST: usize = 64;

/// Items that come in blocks of that size end at once.
const LARGE: usize = 16;

/// After that time the items of a block should have been somebody else's.
const LONG: Duration = Duration::from_micros(50);

/// One worker's. It reads the clock once a block, and never for the first or a lone one.
pub(super) struct BlockSize {
    size: usize,
    most: usize,
    /// When the block before was done, if nothing has come between.
    since: Option<Instant>,
    is_steady: bool,
    /// An item of the block has had to wait.
    has_waited: bool,
}

impl BlockSize {
    /// With more than a worker's share in its hand there would be no permits left for the others.
    pub(super) fn new(limit: usize, workers: usize) -> Self {
        Self {
            size: 1,
            most: (limit / workers).clamp(1, LARGEST),
            since: None,
            is_steady: false,
            has_waited: false,
        }
    }

    pub(super) fn get(&self) -> usize {
        self.size
    }

    /// How many permits the consumer of a stream had better gather before it gives them back.
    ///
    /// Where items end at once a worker has filled the room before the consumer comes back, and half a block at a time
    /// spares both of them wake-ups. Else each permit starts an item, and none is kept back.
    pub(super) fn release_size(&self) -> usize {
        match self.size < LARGE || self.has_waited {
            true => 1,
            false => self.size / 2,
        }
    }

    pub(super) fn begin(&mut self) {
        self.has_waited = false;
    }

    /// An item of the block has to wait.
    pub(super) fn wait(&mut self) {
        self.has_waited = true;
    }

    /// The block is done.
    pub(super) fn end(&mut self) {
        if self.most > 1 && std::mem::replace(&mut self.is_steady, true) {
            self.end_at(now());
        }
    }

    /// The worker does something else between two blocks.
    pub(super) fn pause(&mut self) {
        self.is_steady = false;
        self.since = None;
    }

    fn end_at(&mut self, now: Instant) {
        let Some(since) = self.since.replace(now) else {
            return;
        };
        let elapsed = now - since;
        if elapsed > LONG {
            self.size = 1;
        } else if elapsed <= LONG / 2 {
            self.size = self.most.min(self.size * 2);
        }
    }
}

/// For models no time passes: else no two runs would be the same.
fn now() -> Instant {
    #[cfg(errgroup_loom)]
    {
        static NOW: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        *NOW
    }
    #[cfg(not(errgroup_loom))]
    Instant::now()
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests {
    use super::*;

    /// The sizes after blocks that take so many microseconds.
    fn sizes(limit: usize, workers: usize, blocks: &[u64]) -> Vec<usize> {
        let mut size = BlockSize::new(limit, workers);
        let mut now = Instant::now();
        size.since = Some(now);
        let sizes = blocks.iter().map(|&block| {
            now += Duration::from_micros(block);
            size.end_at(now);
            size.size
        });
        sizes.collect()
    }

    #[test]
    fn blocks_are_quick_then_the_next_are_larger_up_to_the_largest() {
        let quick = [0, 1, 2, 3, 4, 5, 6];
        assert_eq!(sizes(1_000, 1, &quick), [2, 4, 8, 16, 32, 64, 64]);
    }

    #[test]
    fn blocks_are_quick_then_they_grow_to_a_workers_share_of_the_limit() {
        assert_eq!(sizes(20, 3, &[0, 0, 0, 0]), [2, 4, 6, 6]);
        assert_eq!(sizes(2, 3, &[0, 0]), [1, 1]);
    }

    #[test]
    fn block_takes_its_time_then_the_next_is_as_large() {
        assert_eq!(sizes(1_000, 1, &[0, 0, 40])[2], 4);
    }

    #[test]
    fn block_takes_long_then_the_next_is_of_one() {
        assert_eq!(sizes(1_000, 1, &[0, 0, 60])[2], 1);
    }

    #[test]
    fn worker_pauses_then_that_time_does_not_count() {
        let mut size = BlockSize::new(1_000, 1);
        let now = Instant::now();
        size.since = Some(now);
        size.end_at(now);
        size.pause();
        size.end_at(now + LONG * 9);
        assert_eq!(size.size, 2);
    }

    #[test]
    fn blocks_are_lone_then_no_clock_is_read() {
        let mut size = BlockSize::new(1_000, 1);
        for _ in 0..3 {
            size.end();
            assert_eq!((size.size, size.since), (1, None));
            size.pause();
        }
    }

    #[test]
    fn items_of_large_blocks_wait_then_permits_are_given_back_one_by_one() {
        let mut size = BlockSize::new(1_000, 1);
        size.size = 32;
        assert_eq!(size.release_size(), 16);
        size.wait();
        assert_eq!(size.release_size(), 1);
    }
}
