//! `Pace`: how many items a lane takes at a time.
//!
//! Blocks spare the lanes the lock of the source, and their items wait for each other. So they grow as long as whole
//! blocks end at once and quickly, and are of one item after one that had to wait or took long.

use std::time::{Duration, Instant};

/// The most items that a lane takes at a time.
const LARGEST: usize = 64;

/// What a block may take until its items should have been somebody else's.
const LONG: Duration = Duration::from_micros(50);

/// What it takes to start a lane for them.
const START: Duration = Duration::from_micros(5);

/// One lane's. It reads the clock once a block, and never while each item has to wait.
pub(super) struct Pace {
    size: usize,
    /// When the block began, if it is timed: what comes after a pause was not the items' fault.
    since: Option<Instant>,
    has_waited: bool,
}

/// How the last block went.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lap {
    Quick,
    /// A single item kept its thread busy for long.
    Slow,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            size: 1,
            since: None,
            has_waited: false,
        }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Whether an item of the last block had to wait.
    pub(super) fn has_waited(&self) -> bool {
        self.has_waited
    }

    /// An item has to wait.
    pub(super) fn wait(&mut self) {
        self.size = 1;
        self.pause();
        self.has_waited = true;
    }

    /// The lane does something else.
    pub(super) fn pause(&mut self) {
        self.since = None;
    }

    /// Whether the block takes so long that it is worth while to share it.
    #[cold]
    pub(super) fn is_worth_sharing(&mut self) -> bool {
        let now = Instant::now();
        now - *self.since.get_or_insert(now) >= START
    }

    /// A block is done, and the next begins.
    pub(super) fn lap(&mut self) -> Lap {
        if std::mem::take(&mut self.has_waited) {
            return Lap::Quick;
        }
        self.lap_at(Instant::now())
    }

    fn lap_at(&mut self, now: Instant) -> Lap {
        let Some(since) = self.since.replace(now) else {
            return Lap::Quick;
        };
        let elapsed = now - since;
        if elapsed > LONG {
            let was_single = self.size == 1;
            self.size = 1;
            return if was_single { Lap::Slow } else { Lap::Quick };
        }
        if elapsed <= LONG / 2 {
            self.size = LARGEST.min(self.size * 2);
        }
        Lap::Quick
    }
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests {
    use super::*;

    /// The sizes after blocks that take so many microseconds.
    fn sizes(blocks: &[u64]) -> Vec<(usize, Lap)> {
        let mut pace = Pace::new();
        let mut now = Instant::now();
        assert_eq!(pace.lap_at(now), Lap::Quick);
        let laps = blocks.iter().map(|&block| {
            now += Duration::from_micros(block);
            let lap = pace.lap_at(now);
            (pace.size(), lap)
        });
        laps.collect()
    }

    #[test]
    fn blocks_are_quick_then_the_next_are_larger_up_to_the_largest() {
        let sizes = sizes(&[0, 1, 2, 3, 4, 5, 6]);
        let sizes: Vec<_> = sizes.into_iter().map(|(size, _)| size).collect();
        assert_eq!(sizes, [2, 4, 8, 16, 32, 64, 64]);
    }

    #[test]
    fn block_takes_its_time_then_the_next_is_as_large() {
        assert_eq!(sizes(&[0, 0, 40])[2], (4, Lap::Quick));
    }

    #[test]
    fn block_takes_long_then_the_next_is_of_one_and_that_is_slow_if_it_takes_long_too() {
        assert_eq!(
            sizes(&[0, 0, 60, 60])[2..],
            [(1, Lap::Quick), (1, Lap::Slow)]
        );
    }

    #[test]
    fn item_waits_then_the_next_block_is_of_one_and_not_timed() {
        let mut pace = Pace::new();
        let now = Instant::now();
        for _ in 0..3 {
            let _ = pace.lap_at(now);
        }
        assert_eq!(pace.size(), 4);
        pace.wait();
        assert_eq!((pace.lap(), pace.size()), (Lap::Quick, 1));
        assert_eq!(pace.lap_at(now + LONG * 9), Lap::Quick);
    }

    #[test]
    fn lane_pauses_then_that_time_does_not_count() {
        let mut pace = Pace::new();
        let now = Instant::now();
        for _ in 0..3 {
            let _ = pace.lap_at(now);
        }
        pace.pause();
        assert_eq!(pace.lap_at(now + LONG * 9), Lap::Quick);
        assert_eq!(pace.size(), 4);
    }
}
