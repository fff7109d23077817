//! `Intensity`: how many restarts a supervisor allows within a sliding period.
//!
//! As OTP counts them: a restart that lies exactly one period back still counts.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How many restarts are remembered one by one. Beyond this, those that lie close together share an entry.
const MAX_EXACT: usize = 1024;

/// The restarts of the last period.
///
/// Invariant: `total` is the sum of the counts in `restarts`, which are in order of time.
#[derive(Debug)]
pub(super) struct Intensity {
    limit: usize,
    period: Duration,
    restarts: VecDeque<(Instant, usize)>,
    total: usize,
}

/// Whether a restart is allowed.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    /// There were so many within the period, this one included.
    Exceeded(usize),
}

impl Intensity {
    pub(super) fn new(limit: usize, period: Duration) -> Self {
        Self {
            limit,
            period,
            restarts: VecDeque::new(),
            total: 0,
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn period(&self) -> Duration {
        self.period
    }

    /// Counts a restart.
    pub(super) fn count(&mut self, now: Instant) -> Verdict {
        if self.limit == usize::MAX {
            return Verdict::Allowed;
        }
        self.forget(now);
        self.remember(now);
        match self.total > self.limit {
            true => Verdict::Exceeded(self.total),
            false => Verdict::Allowed,
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some(&(at, count)) = self.restarts.front() {
            if now.saturating_duration_since(at) <= self.period {
                return;
            }
            self.restarts.pop_front();
            self.total -= count;
        }
    }

    /// Restarts of one instant share an entry, and beyond `MAX_EXACT` those within a thousandth of the period: so a limit of
    /// millions keeps no more than twice that many entries.
    fn remember(&mut self, now: Instant) {
        self.total += 1;
        let width = match self.restarts.len() < MAX_EXACT {
            true => Duration::ZERO,
            false => self.period / MAX_EXACT as u32,
        };
        match self.restarts.back_mut() {
            Some((at, count)) if now.saturating_duration_since(*at) <= width => *count += 1,
            _ => self.restarts.push_back((now, 1)),
        }
    }
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Intensity, MAX_EXACT, Verdict};

    const PERIOD: Duration = Duration::from_secs(60);
    const NANO: Duration = Duration::from_nanos(1);

    #[test]
    fn at_the_limit_allowed_and_above_it_exceeded() {
        let mut intensity = Intensity::new(3, PERIOD);
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(intensity.count(now), Verdict::Allowed);
        }
        assert_eq!(intensity.count(now), Verdict::Exceeded(4));
    }

    #[test]
    fn exactly_one_period_later_still_counts_and_a_nanosecond_later_not() {
        let start = Instant::now();
        for (after, expected) in [
            (PERIOD - NANO, Verdict::Exceeded(2)),
            (PERIOD, Verdict::Exceeded(2)),
            (PERIOD + NANO, Verdict::Allowed),
        ] {
            let mut intensity = Intensity::new(1, PERIOD);
            assert_eq!(intensity.count(start), Verdict::Allowed);
            assert_eq!(intensity.count(start + after), expected, "{after:?}");
        }
    }

    #[test]
    fn a_limit_of_zero_allows_none() {
        let mut intensity = Intensity::new(0, PERIOD);
        assert_eq!(intensity.count(Instant::now()), Verdict::Exceeded(1));
    }

    #[test]
    fn millions_within_the_period_then_memory_stays_bounded_and_the_count_is_right() {
        let mut intensity = Intensity::new(1_000_000, PERIOD);
        let start = Instant::now();
        for n in 0..1_000_000_u32 {
            let at = start + PERIOD / 2_000_000 * n;
            assert_eq!(intensity.count(at), Verdict::Allowed);
        }
        assert!(intensity.restarts.len() <= 2 * MAX_EXACT + 2);
        let at = start + PERIOD / 2;
        assert_eq!(intensity.count(at), Verdict::Exceeded(1_000_001));
        assert_eq!(intensity.count(at + 2 * PERIOD), Verdict::Allowed);
        assert_eq!(intensity.total, 1);
    }
}
