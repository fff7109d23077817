//! `Diagnosis`: why a task is still there although its context has ended, as far as the data allow. `Sighting`: these data.

use std::fmt;
use std::time::Duration;

use super::entry::Kind;

/// Says why a task is still there although its context has ended: what is known, and no more.
///
/// `Display` is a few words: `not polled since`, `polled 4 times since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Diagnosis {
    /// No poll of it has begun since the end. One that stops itself was woken by nothing: it does not listen to its
    /// context. One that the group stops was woken, and its runtime has not come to it.
    NotPolledSince,
    /// So many polls have begun since the end, and it goes on: it cleans up slowly, or does not look at its context.
    PolledStillRunning(u32),
    /// It is inside one poll, and has been for at least so long: it blocks its thread.
    BlockingPoll(Duration),
    /// It runs on a thread for blocking tasks, which nobody can stop.
    BlockingThread,
    /// It has no such thread yet. The end drops it: this is seen for a moment only.
    WaitsForThread,
}

/// From so long on a poll is said to block. Anything shorter may be a busy machine.
const BLOCKING: Duration = Duration::from_millis(10);

/// What was seen of a task at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) kind: Kind,
    /// As in [`Polls`](super::polls::Polls).
    pub(crate) count: u32,
    /// The count at the end of the context.
    pub(crate) count_at_end: u32,
    /// How long ago the context ended, if it has.
    pub(crate) ended_ago: Option<Duration>,
    /// For how long at least the count has been the same.
    pub(crate) unchanged: Duration,
}

impl Sighting {
    pub(super) fn nothing() -> Self {
        Self {
            kind: Kind::Cooperative,
            count: 0,
            count_at_end: 0,
            ended_ago: None,
            unchanged: Duration::ZERO,
        }
    }

    pub(crate) fn is_in_poll(&self) -> bool {
        self.count % 2 == 1
    }

    /// How many polls have begun.
    pub(crate) fn polls(&self) -> u32 {
        begun(self.count)
    }

    /// `None` in a live context, and where it is too early to say.
    pub(crate) fn diagnosis(&self) -> Option<Diagnosis> {
        let ended_ago = self.ended_ago?;
        if self.kind == Kind::Blocking {
            return Some(match self.count {
                0 => Diagnosis::WaitsForThread,
                _ => Diagnosis::BlockingThread,
            });
        }
        let since = begun(self.count).wrapping_sub(begun(self.count_at_end)) % MODULUS;
        if !self.is_in_poll() {
            return Some(match since {
                0 => Diagnosis::NotPolledSince,
                polls => Diagnosis::PolledStillRunning(polls),
            });
        }
        let in_poll = match since {
            // The poll that it was in at the end.
            0 => self.unchanged.max(ended_ago),
            _ => self.unchanged,
        };
        match since {
            _ if in_poll >= BLOCKING => Some(Diagnosis::BlockingPoll(in_poll)),
            0 => None,
            polls => Some(Diagnosis::PolledStillRunning(polls)),
        }
    }
}

/// The polls of a task are counted up to here, and then anew.
const MODULUS: u32 = 1 << 31;

/// How many polls have begun by a count.
fn begun(count: u32) -> u32 {
    count / 2 + count % 2
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Diagnosis::NotPolledSince => f.write_str("not polled since"),
            Diagnosis::PolledStillRunning(1) => f.write_str("polled once since"),
            Diagnosis::PolledStillRunning(polls) => write!(f, "polled {polls} times since"),
            Diagnosis::BlockingPoll(time) => write!(f, "in one poll for at least {time:?}"),
            Diagnosis::BlockingThread => f.write_str("on a blocking thread"),
            Diagnosis::WaitsForThread => f.write_str("waits for a thread"),
        }
    }
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn seen(count_at_end: u32, count: u32) -> Sighting {
        Sighting {
            kind: Kind::Cooperative,
            count,
            count_at_end,
            ended_ago: Some(SECOND),
            unchanged: Duration::ZERO,
        }
    }

    #[test]
    fn live_context_has_no_diagnosis() {
        let live = Sighting {
            ended_ago: None,
            ..seen(0, 4)
        };
        assert_eq!(live.diagnosis(), None);
    }

    #[test]
    fn waiting_then_polls_that_began_since_the_end_decide() {
        use Diagnosis::{NotPolledSince, PolledStillRunning};
        assert_eq!(seen(4, 4).diagnosis(), Some(NotPolledSince));
        // The poll that it was in at the end is none since.
        assert_eq!(seen(3, 4).diagnosis(), Some(NotPolledSince));
        assert_eq!(seen(3, 6).diagnosis(), Some(PolledStillRunning(1)));
        assert_eq!(seen(4, 6).diagnosis(), Some(PolledStillRunning(1)));
        assert_eq!(seen(4, 12).diagnosis(), Some(PolledStillRunning(4)));
        // Beyond the largest count it begins anew.
        assert_eq!(
            seen(u32::MAX - 1, 2).diagnosis(),
            Some(PolledStillRunning(2))
        );
    }

    #[test]
    fn inside_a_poll_then_it_blocks_if_it_lasts() {
        assert_eq!(
            seen(3, 3).diagnosis(),
            Some(Diagnosis::BlockingPoll(SECOND))
        );
        let early = Sighting {
            ended_ago: Some(Duration::ZERO),
            ..seen(3, 3)
        };
        assert_eq!(early.diagnosis(), None);
        // Begun since the end, and seen once: it may be a short one.
        assert_eq!(
            seen(2, 3).diagnosis(),
            Some(Diagnosis::PolledStillRunning(1))
        );
        let twice = Sighting {
            unchanged: SECOND,
            ..seen(2, 3)
        };
        assert_eq!(twice.diagnosis(), Some(Diagnosis::BlockingPoll(SECOND)));
    }

    #[test]
    fn blocking_task_then_its_thread_decides() {
        let blocking = |count| Sighting {
            kind: Kind::Blocking,
            ..seen(0, count)
        };
        assert_eq!(blocking(0).diagnosis(), Some(Diagnosis::WaitsForThread));
        assert_eq!(blocking(1).diagnosis(), Some(Diagnosis::BlockingThread));
    }
}
