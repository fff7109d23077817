//! The clock at hand: the runtime's, which may be paused, else the system's. It knows nobody.

use std::time::Duration;

use tokio::runtime::{EnterGuard, Handle};
use tokio::time::Instant;

/// The time by the clock at hand.
#[inline]
pub(crate) fn now() -> Instant {
    if tokio::task::try_id().is_none() && has_lost_its_locals() {
        // tokio would look for the clock there, and panic.
        return Instant::from_std(std::time::Instant::now());
    }
    Instant::now()
}

/// So long after. A future so far that the clock overflows is thirty years away, as in tokio.
pub(crate) fn later(now: Instant, time: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    now.checked_add(time).unwrap_or(now + FAR)
}

/// Enters a runtime, unless there is no place to note that.
pub(super) fn enter(runtime: &Handle) -> Option<EnterGuard<'_>> {
    (!has_lost_its_locals()).then(|| runtime.enter())
}

/// Whether this is the destructor of a thread-local, after that of tokio's own.
fn has_lost_its_locals() -> bool {
    matches!(Handle::try_current(), Err(error) if error.is_thread_local_destroyed())
}

/// Whether the clock at hand is another than the system's: a paused one.
pub(super) fn is_paused() -> bool {
    let before = std::time::Instant::now();
    let here = now().into_std();
    let after = std::time::Instant::now();
    here < before || here > after
}
