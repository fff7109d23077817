//! `Moment`: when something happened in a group's life. Half as large as an `Instant`, of which each entry of the registry
//! would keep one.

use std::time::Duration;

use tokio::time::Instant;

/// Nanoseconds from the start of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(u64);

impl Moment {
    /// Not noted.
    pub(super) const NONE: Self = Self(u64::MAX);

    /// Clocks differ beside a paused one: nothing is before the start.
    #[inline]
    pub(super) fn new(start: Instant, now: Instant) -> Self {
        Self(now.saturating_duration_since(start).as_nanos() as u64)
    }

    pub(super) fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// The time from this moment to another; `None` if this was not noted.
    pub(super) fn until(self, now: Self) -> Option<Duration> {
        match self.is_none() {
            true => None,
            false => Some(Duration::from_nanos(now.0.saturating_sub(self.0))),
        }
    }
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests {
    use super::{Duration, Instant, Moment};

    #[test]
    fn time_passes_from_each_moment() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let at = |seconds| Moment::new(start, start + seconds * second);
        assert_eq!(at(1).until(at(3)), Some(2 * second));
        assert_eq!(at(3).until(at(1)), Some(Duration::ZERO));
        assert_eq!(Moment::NONE.until(at(1)), None);
        assert_eq!(Moment::new(start + second, start), at(0));
    }
}
