//! `Ready`: how a child says that it is ready.

use std::fmt;
use std::sync::Arc;

use super::entry::ChildId;

/// Says that a child is ready: what [`Child::with_ready`](crate::Child::with_ready) gives to it.
///
/// Dropping it unused says that it will not be: the child is stopped, and has failed.
#[must_use = "dropping it says that the child has failed to become ready"]
pub struct Ready {
    pub(super) listener: Arc<dyn Listen>,
    pub(super) id: ChildId,
    pub(super) generation: u64,
    pub(super) is_told: bool,
}

/// A supervisor, as its children see it.
pub(super) trait Listen: Send + Sync {
    fn readiness(&self, id: ChildId, generation: u64, is_ready: bool);
}

impl Ready {
    /// Says that the child is ready.
    pub fn notify(mut self) {
        self.tell(true);
    }

    fn tell(&mut self, is_ready: bool) {
        if !std::mem::replace(&mut self.is_told, true) {
            self.listener.readiness(self.id, self.generation, is_ready);
        }
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.tell(false);
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").finish_non_exhaustive()
    }
}
