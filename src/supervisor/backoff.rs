//! `Backoff`: how long a supervisor waits before it restarts a child.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use crate::panic::Contained;

/// The delays before a child's first, second, third … restart in a row.
///
/// It is what [`Child::backoff`](crate::Child::backoff) takes, among other things: any cloneable [`IntoIterator`] of durations
/// will do, such as an array. For what cannot be cloned, the iterators of some crates made for backoff, there is
/// [`Backoff::from_fn`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use errgroup::Backoff;
///
/// let backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_secs(30));
/// let delays: Vec<_> = backoff.without_jitter().into_iter().take(3).collect();
/// assert_eq!(delays, [100, 200, 400].map(Duration::from_millis));
/// ```
#[derive(Clone)]
pub struct Backoff(Kind);

#[derive(Clone)]
enum Kind {
    Exponential(Exponential),
    Made(Arc<dyn Fn() -> BoxedDelays + Send + Sync>),
}

type BoxedDelays = Box<dyn Iterator<Item = Duration> + Send>;

#[derive(Clone, Debug)]
struct Exponential {
    /// Of the next delay, before jitter.
    next: Duration,
    min: Duration,
    max: Duration,
    has_jitter: bool,
}

impl Backoff {
    /// Doubles the delay with each restart, from `min` up to `max`, with jitter: a delay lies between half of that and all of
    /// it, but is never less than `min`. It never ends.
    pub fn exponential(min: Duration, max: Duration) -> Self {
        let min = min.min(max);
        Self(Kind::Exponential(Exponential {
            next: min,
            min,
            max,
            has_jitter: true,
        }))
    }

    /// Waits as long each time. It never ends.
    pub fn fixed(delay: Duration) -> Self {
        Self::exponential(delay, delay)
    }

    /// Makes the delays by calling `f`, anew after each [reset](crate::Child::reset_after).
    ///
    /// ```
    /// use std::time::Duration;
    /// use errgroup::Backoff;
    ///
    /// let tens = Backoff::from_fn(|| (1..).map(|n| n * Duration::from_secs(10)));
    /// assert_eq!(tens.into_iter().nth(2), Some(Duration::from_secs(30)));
    /// ```
    pub fn from_fn<F, I>(f: F) -> Self
    where
        F: Fn() -> I + Send + Sync + 'static,
        I: IntoIterator<Item = Duration>,
        I::IntoIter: Send + 'static,
    {
        Self(Kind::Made(Arc::new(move || Box::new(f().into_iter()))))
    }

    /// Takes the jitter away, so that the delays are the same each time.
    #[must_use = "it returns the backoff without jitter"]
    pub fn without_jitter(mut self) -> Self {
        if let Kind::Exponential(exponential) = &mut self.0 {
            exponential.has_jitter = false;
        }
        self
    }
}

impl IntoIterator for Backoff {
    type Item = Duration;
    type IntoIter = BackoffDelays;

    fn into_iter(self) -> BackoffDelays {
        BackoffDelays(match self.0 {
            Kind::Exponential(exponential) => Source::Exponential(exponential, Random::new()),
            Kind::Made(f) => Source::Made(f()),
        })
    }
}

impl fmt::Debug for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Exponential(Exponential { min, max, .. }) if min == max => {
                write!(f, "Backoff::fixed({min:?})")
            }
            Kind::Exponential(Exponential { min, max, .. }) => {
                write!(f, "Backoff::exponential({min:?}, {max:?})")
            }
            Kind::Made(_) => f.write_str("Backoff::from_fn(..)"),
        }
    }
}

/// The iterator of a [`Backoff`].
pub struct BackoffDelays(Source);

enum Source {
    Exponential(Exponential, Random),
    Made(BoxedDelays),
}

impl Iterator for BackoffDelays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        match &mut self.0 {
            Source::Exponential(exponential, random) => Some(exponential.step(random)),
            Source::Made(delays) => delays.next(),
        }
    }
}

impl Exponential {
    fn step(&mut self, random: &mut Random) -> Duration {
        let delay = self.next;
        self.next = delay.saturating_mul(2).min(self.max);
        match self.has_jitter {
            true => (delay / 2 + (delay / 2).mul_f64(random.fraction())).max(self.min),
            false => delay,
        }
    }
}

impl fmt::Debug for BackoffDelays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackoffDelays").finish_non_exhaustive()
    }
}

/// SplitMix64. Jitter has to differ from one process to the next, and need not be secret.
struct Random(u64);

impl Random {
    fn new() -> Self {
        // std's hash maps have a seed from the operating system, and another for each map.
        Self(RandomState::new().hash_one(0))
    }

    /// In `0.0..1.0`.
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The delays of one child.
pub(super) struct Schedule {
    make: Contained<Box<dyn Fn() -> BoxedDelays + Send>>,
    delays: Option<Contained<BoxedDelays>>,
}

impl Schedule {
    pub(super) fn new(make: impl Fn() -> BoxedDelays + Send + 'static) -> Self {
        Self {
            make: Contained::new(Box::new(make)),
            delays: None,
        }
    }

    /// Returns the next delay; `None` if there is none left.
    pub(super) fn next(&mut self) -> Option<Duration> {
        let make = || Contained::new((self.make)());
        self.delays.get_or_insert_with(make).next()
    }

    /// Begins anew.
    pub(super) fn reset(&mut self) {
        self.delays = None;
    }
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests {
    use std::time::Duration;

    use super::Backoff;

    const MIN: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(30);

    #[test]
    fn exponential_with_jitter_then_first_is_min_and_all_lie_within_their_half() {
        let mut differing = 0;
        for _ in 0..200 {
            let jittered: Vec<_> = Backoff::exponential(MIN, MAX)
                .into_iter()
                .take(20)
                .collect();
            let plain: Vec<_> = Backoff::exponential(MIN, MAX)
                .without_jitter()
                .into_iter()
                .take(20)
                .collect();
            assert_eq!(jittered[0], MIN);
            for (jittered, plain) in jittered.iter().zip(&plain) {
                assert!(*jittered >= (*plain / 2).max(MIN) && jittered <= plain);
                differing += usize::from(jittered != plain);
            }
            assert_eq!(plain[19], MAX);
        }
        assert!(differing > 3000, "{differing} of 3800 differ");
    }

    #[test]
    fn exponential_up_to_the_longest_duration_does_not_overflow() {
        let mut delays = Backoff::exponential(Duration::from_secs(1), Duration::MAX).into_iter();
        assert!(delays.nth(200).unwrap() >= Duration::MAX / 2);
    }

    #[test]
    fn min_above_max_then_max_holds() {
        let mut delays = Backoff::exponential(MAX, MIN).into_iter();
        assert_eq!(delays.next(), Some(MIN));
        assert_eq!(delays.next(), Some(MIN));
    }
}
