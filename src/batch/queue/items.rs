//! `Items`: the started items of a batch that no worker polls. They _wait_, or are _ready_: woken, in that order.
//!
//! Invariants:
//!
//! 1. An item that waits and is woken is ready; one that is woken while a worker polls it is ready as soon as it is put
//!    back. So no wake-up is lost.
//! 2. An entry is an item's memory and its waker, and is used again. A waker left over from an earlier item costs the
//!    present one a poll, and no more.
//! 3. Once closed no item is put back.

use std::pin::Pin;
use std::task::Waker;

/// A started item, or the memory for one.
pub(in super::super) struct Running<Fut> {
    pub(in super::super) future: Pin<Box<Option<Fut>>>,
    pub(in super::super) waker: Waker,
    pub(in super::super) index: usize,
    key: usize,
}

pub(super) struct Items<Fut> {
    /// By key.
    entries: Vec<Entry<Fut>>,
    /// How many are ready, and the first and the last of them. `Entry::next` links them: a list of its own would be an
    /// allocation more, for each batch.
    ready: usize,
    first_ready: usize,
    last_ready: usize,
    spare: Vec<Running<Fut>>,
    is_closed: bool,
}

struct Entry<Fut> {
    waiting: Option<Running<Fut>>,
    /// It was woken since it was taken last.
    is_woken: bool,
    /// The key of the item that was woken after this one.
    next: usize,
}

impl<Fut> Running<Fut> {
    pub(super) fn new(key: usize, waker: Waker) -> Self {
        Self {
            future: Box::pin(None),
            waker,
            index: 0,
            key,
        }
    }
}

impl<Fut> Items<Fut> {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::new(),
            ready: 0,
            first_ready: 0,
            last_ready: 0,
            spare: Vec::new(),
            is_closed: false,
        }
    }

    /// The memory for one more item, or the key of what is to be allocated without the lock.
    pub(super) fn add(&mut self) -> Result<Running<Fut>, usize> {
        self.spare.pop().ok_or_else(|| {
            self.entries.push(Entry {
                waiting: None,
                is_woken: false,
                next: 0,
            });
            self.entries.len() - 1
        })
    }

    /// Takes back an item, which waits, or only for its next poll (`is_ready`), and leaves memory for another if there is
    /// any. `false` if it is closed: then the item stays.
    pub(super) fn put_back(&mut self, current: &mut Option<Running<Fut>>, is_ready: bool) -> bool {
        let Some(running) = current.take_if(|_| !self.is_closed) else {
            return false;
        };
        let key = running.key;
        let entry = &mut self.entries[key];
        entry.waiting = Some(running);
        entry.is_woken |= is_ready;
        if entry.is_woken {
            self.push_ready(key);
        }
        *current = self.spare.pop();
        true
    }

    /// Returns whether one more item is ready now.
    pub(super) fn wake(&mut self, key: usize) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        let is_ready = !std::mem::replace(&mut entry.is_woken, true) && entry.waiting.is_some();
        if is_ready {
            self.push_ready(key);
        }
        is_ready
    }

    pub(super) fn ready(&self) -> usize {
        self.ready
    }

    /// Hands out the first that was woken, and takes the memory that was there instead.
    pub(super) fn take_ready(&mut self, current: &mut Option<Running<Fut>>) -> bool {
        if self.ready == 0 {
            return false;
        }
        let entry = &mut self.entries[self.first_ready];
        entry.is_woken = false;
        self.ready -= 1;
        self.first_ready = entry.next;
        let spare = std::mem::replace(current, entry.waiting.take());
        self.spare.extend(spare);
        true
    }

    fn push_ready(&mut self, key: usize) {
        match self.ready {
            0 => self.first_ready = key,
            _ => self.entries[self.last_ready].next = key,
        }
        self.last_ready = key;
        self.ready += 1;
    }

    /// Hands out all of them, and the memory.
    pub(super) fn close(&mut self) -> Vec<Running<Fut>> {
        self.is_closed = true;
        self.ready = 0;
        let mut items = std::mem::take(&mut self.spare);
        let entries = std::mem::take(&mut self.entries).into_iter();
        items.extend(entries.filter_map(|entry| entry.waiting));
        items
    }

    /// The indexes of the items of the entries from `first` on, of `most` of those; `None` if there are none.
    pub(super) fn indexes(&self, first: usize, most: usize) -> Option<impl Iterator<Item = usize>> {
        let entries = self.entries.get(first..).filter(|rest| !rest.is_empty())?;
        let items = entries.iter().take(most);
        let items = items.filter_map(|entry| entry.waiting.as_ref());
        Some(items.map(|item| item.index))
    }
}
