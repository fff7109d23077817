//! `Guest`: a group that was dropped with live tasks inside another group, its host, which waits for them.
//!
//! Owned by the host's registry until the guest's last task has ended, and by the waker that it leaves with the guest's
//! registry in the place of an owner who waits. That is a cycle, guest → waker → guest, which the last task breaks: it takes
//! the waker out.

use std::sync::Arc;
use std::task::{Context as TaskContext, Wake, Waker};

use super::registry::Registry;
use crate::context::Owner;
use crate::destructor::nested;

pub(crate) struct Guest {
    group: Arc<dyn Owner>,
    host: Arc<dyn Owner>,
}

impl Guest {
    /// Lets the host wait for the group, whose owner is gone; `false` if nobody waits for the host itself any more.
    pub(super) fn hand_over(group: &Arc<dyn Owner>, host: &Arc<dyn Owner>) -> bool {
        let Some(registry) = find_registry(&**host) else {
            // A batch.
            return false;
        };
        let guest = Arc::new(Self {
            group: group.clone(),
            host: host.clone(),
        });
        let is_taken = registry.add_guest(&guest);
        if is_taken {
            guest.look();
        }
        is_taken
    }

    pub(super) fn registry(&self) -> &Registry {
        registry(&*self.group)
    }

    /// Leaves the host if all tasks have ended.
    fn look(self: &Arc<Self>) {
        let waker = Waker::from(self.clone());
        let cx = TaskContext::from_waker(&waker);
        if self.registry().poll_empty(&cx).is_pending() {
            // The host may wait for less than the last task.
            registry(&*self.host).nudge();
            return;
        }
        registry(&*self.host).remove_guest(self);
    }
}

impl Wake for Guest {
    /// In a chain of groups, each the guest of the next, the last task of the first ends all of them.
    fn wake(self: Arc<Self>) {
        nested(move || self.look());
    }
}

fn registry(group: &dyn Owner) -> &Registry {
    find_registry(group).expect("errgroup: only groups are hosts and guests")
}

fn find_registry(owner: &dyn Owner) -> Option<&Registry> {
    owner.members()?.downcast_ref()
}
