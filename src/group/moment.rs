//! `Moment`: when something happened in a group's life. Half as large as an `Instant`, of which each entry of the registry
//! would keep one.

use std::time::Duration;

use tokio::time::Instant;

/// Nanoseconds from the first moment that was noted in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(u64);

impl Moment {
    pub(super) const NONE: Self = Self(u64::MAX);

    pub(super) fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// The first moment of a group that was noted: when a task first waited, or somebody looked.
#[derive(Default)]
pub(super) struct Beginning(Option<Instant>);

impl Beginning {
    #[inline]
    pub(super) fn note(&mut self, now: Instant) -> Moment {
        let beginning = *self.0.get_or_insert(now);
        Moment(now.saturating_duration_since(beginning).as_nanos() as u64)
    }

    /// The time from a moment, which has been noted, to `now`.
    pub(super) fn until(&self, now: Instant, from: Moment) -> Option<Duration> {
        let from = self.0?.checked_add(Duration::from_nanos(from.0))?;
        Some(now.saturating_duration_since(from))
    }

    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        self.0.map(|beginning| now.saturating_duration_since(beginning))
    }
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests {
    use super::{Beginning, Duration, Instant, Moment};

    #[test]
    fn time_passes_from_each_moment() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut beginning = Beginning::default();
        assert_eq!(beginning.age(start), None);
        let first = beginning.note(start);
        let later = beginning.note(start + second);
        let now = start + 3 * second;
        assert_eq!(beginning.until(now, first), Some(3 * second));
        assert_eq!(beginning.until(now, later), Some(2 * second));
        assert_eq!(beginning.age(now), Some(3 * second));
        // Clocks differ beside a paused one.
        assert_eq!(beginning.note(start - second), first);
        assert!(Moment::NONE.is_none() && !later.is_none());
    }
}
