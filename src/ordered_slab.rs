//! `OrderedSlab`: a slab that remembers the order of insertion and gives memory back. `InlineSlab`: the same, with room
//! for one value without an allocation.
//!
//! The children of a context and the pages of a group are kept in the one; the waiters of a context and of a wait group,
//! mostly one at most, in the other. The owner guards it with a lock of its own.
//!
//! Entries lie in chunks of [`CHUNK`], so that growing moves nothing under the owner's lock, and a chunk whose last entry
//! goes is freed. A key is `chunk * CHUNK + place`.
//!
//! Invariants:
//!
//! 1. The occupied entries are linked by `prev` and `next`, oldest first, from `head` to `tail`.
//! 2. The vacant entries of a chunk are linked by `next`, from `Chunk::vacant`.
//! 3. Exactly the chunks that are not full are linked by `next_with_room`, from `with_room`. Only the first of them is
//!    inserted into, so only the first can become full, and a single link is enough.
//! 4. A chunk with nothing in it has no memory, unless it is the next to be inserted into. An empty slab has one chunk at
//!    most.
//! 5. `InlineSlab::first` is older than everything in `rest`: it is filled only while `rest` is empty.
//!
//! Why not compact? Keys are held by children and futures elsewhere, and telling them would need their locks. The price
//! is that one survivor of a burst keeps its chunk.

/// Entries in a chunk. In models of one: whoever takes a chunk at a time lets others in between any two entries.
pub(crate) const CHUNK: usize = if cfg!(all(test, errgroup_loom)) {
    1
} else {
    64
};

/// The end of a list.
const NONE: u32 = u32::MAX;

/// The key of a single place beside an `OrderedSlab`, which gives out smaller ones. Those above are nobody's.
pub(crate) const FIRST: u32 = u32::MAX - 2;

pub(crate) struct OrderedSlab<T> {
    chunks: Vec<Chunk<T>>,
    head: u32,
    tail: u32,
    with_room: u32,
    len: u32,
}

struct Chunk<T> {
    entries: Vec<Entry<T>>,
    vacant: u32,
    occupied: u32,
    next_with_room: u32,
}

struct Entry<T> {
    value: Option<T>,
    prev: u32,
    next: u32,
}

pub(crate) struct InlineSlab<T> {
    /// Its key is `FIRST`.
    first: Option<T>,
    rest: Option<Box<OrderedSlab<T>>>,
}

impl<T> Default for OrderedSlab<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> OrderedSlab<T> {
    pub(crate) const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            head: NONE,
            tail: NONE,
            with_room: NONE,
            len: 0,
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a value and returns its key, which stays valid until the value is removed.
    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if self.with_room == NONE {
            self.add_chunk();
        }
        let chunk_index = self.with_room as usize;
        let entry = Entry {
            value: Some(value),
            prev: self.tail,
            next: NONE,
        };
        let chunk = &mut self.chunks[chunk_index];
        let place = chunk.put(entry);
        if chunk.is_full() {
            self.with_room = chunk.next_with_room;
        }
        let key = (chunk_index * CHUNK + place) as u32;
        match self.entry(self.tail) {
            None => self.head = key,
            Some(tail) => tail.next = key,
        }
        self.tail = key;
        self.len += 1;
        key
    }

    /// Takes a value out; `None` if the key is not occupied.
    pub(crate) fn remove(&mut self, key: u32) -> Option<T> {
        let (index, place) = (key as usize / CHUNK, key as usize % CHUNK);
        let chunk = self.chunks.get_mut(index)?;
        let entry = chunk.entries.get_mut(place)?;
        let value = entry.value.take()?;
        let (prev, next) = (entry.prev, entry.next);
        entry.next = chunk.vacant;
        chunk.vacant = place as u32;
        let was_full = chunk.is_full();
        chunk.occupied -= 1;
        let is_empty = chunk.occupied == 0;
        self.len -= 1;
        match self.entry(prev) {
            None => self.head = next,
            Some(prev) => prev.next = next,
        }
        match self.entry(next) {
            None => self.tail = prev,
            Some(next) => next.prev = prev,
        }
        if was_full || is_empty {
            self.vacated(index, was_full);
        }
        Some(value)
    }

    pub(crate) fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        self.entry(key)?.value.as_mut()
    }

    pub(crate) fn get(&self, key: u32) -> Option<&T> {
        let chunk = self.chunks.get(key as usize / CHUNK)?;
        chunk.entries.get(key as usize % CHUNK)?.value.as_ref()
    }

    /// The values of one chunk, with their keys; `None` beyond the last chunk. For those who cannot keep the slab to
    /// themselves until they have seen all of it.
    pub(crate) fn chunk_mut(
        &mut self,
        index: usize,
    ) -> Option<impl Iterator<Item = (u32, &mut T)>> {
        let entries = self.chunks.get_mut(index)?.entries.iter_mut();
        let first = (index * CHUNK) as u32;
        let entries = (first..).zip(entries);
        Some(entries.filter_map(|(key, entry)| Some((key, entry.value.as_mut()?))))
    }

    /// Calls `f` with every value, oldest first.
    pub(crate) fn for_each_mut(&mut self, mut f: impl FnMut(&mut T)) {
        let mut key = self.head;
        while let Some(entry) = self.entry(key) {
            key = entry.next;
            if let Some(value) = &mut entry.value {
                f(value);
            }
        }
    }

    /// Takes the oldest value out of a slab that is being consumed.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<T> {
        let entry = self.entry(self.head)?;
        let (value, next) = (entry.value.take(), entry.next);
        self.head = next;
        value
    }

    /// Sees to a chunk that was full, or is empty, now that an entry has gone.
    fn vacated(&mut self, index: usize, was_full: bool) {
        if self.len == 0 && self.chunks.len() > 1 {
            *self = Self::default();
            return;
        }
        let next = self.with_room;
        if was_full {
            self.chunks[index].next_with_room = next;
            self.with_room = index as u32;
            self.free_if_empty(next as usize);
        } else if index != next as usize {
            self.free_if_empty(index);
        }
    }

    /// Gives a chunk's memory back if nothing is in it. It is not the next to be inserted into.
    fn free_if_empty(&mut self, chunk_index: usize) {
        let Some(chunk) = self.chunks.get_mut(chunk_index) else {
            return;
        };
        if chunk.occupied == 0 {
            chunk.free();
            if chunk_index + 1 == self.chunks.len() {
                self.trim();
            }
        }
    }

    /// Forgets the freed chunks at the end, once they are half of all: O(1) amortised over the insertions that made them.
    #[cold]
    fn trim(&mut self) {
        let is_used = |chunk: &Chunk<T>| chunk.occupied > 0;
        let used = self
            .chunks
            .iter()
            .rposition(is_used)
            .map_or(0, |last| last + 1);
        if used * 2 > self.chunks.len() {
            return;
        }
        self.chunks.truncate(used);
        self.chunks.shrink_to_fit();
        self.with_room = NONE;
        for index in (0..used).rev() {
            if !self.chunks[index].is_full() {
                self.chunks[index].next_with_room = self.with_room;
                self.with_room = index as u32;
            }
        }
    }

    #[cold]
    fn add_chunk(&mut self) {
        assert!(
            self.chunks.len() < FIRST as usize / CHUNK,
            "errgroup: over four billion registrations at once"
        );
        // The first chunk starts small, and is most often the only one.
        let (capacity, chunks) = if self.chunks.is_empty() {
            (4, 1)
        } else {
            (CHUNK, 0)
        };
        self.chunks.reserve_exact(chunks);
        self.with_room = self.chunks.len() as u32;
        self.chunks.push(Chunk {
            entries: Vec::with_capacity(capacity),
            vacant: NONE,
            occupied: 0,
            next_with_room: NONE,
        });
    }

    /// The entry of a key; `None` for `NONE`, which is in no chunk.
    #[inline]
    fn entry(&mut self, key: u32) -> Option<&mut Entry<T>> {
        let chunk = self.chunks.get_mut(key as usize / CHUNK)?;
        chunk.entries.get_mut(key as usize % CHUNK)
    }
}

impl<T> Chunk<T> {
    #[inline]
    fn is_full(&self) -> bool {
        self.occupied as usize == CHUNK
    }

    #[inline]
    fn put(&mut self, entry: Entry<T>) -> usize {
        self.occupied += 1;
        if self.vacant == NONE {
            self.entries.push(entry);
            return self.entries.len() - 1;
        }
        let place = self.vacant as usize;
        self.vacant = self.entries[place].next;
        self.entries[place] = entry;
        place
    }

    fn free(&mut self) {
        self.entries = Vec::new();
        self.vacant = NONE;
    }
}

impl<T> Default for InlineSlab<T> {
    fn default() -> Self {
        Self {
            first: None,
            rest: None,
        }
    }
}

impl<T> InlineSlab<T> {
    #[cfg(all(test, not(errgroup_loom)))]
    pub(crate) fn len(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, |rest| rest.len());
        usize::from(self.first.is_some()) + rest
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none() && self.rest.as_ref().is_none_or(|rest| rest.is_empty())
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.insert_with(|| value)
    }

    /// Inserts a value that is made in its place.
    #[inline]
    pub(crate) fn insert_with(&mut self, value: impl FnOnce() -> T) -> u32 {
        if self.is_empty() {
            self.first = Some(value());
            return FIRST;
        }
        self.insert_into_rest(value())
    }

    #[inline(never)]
    fn insert_into_rest(&mut self, value: T) -> u32 {
        self.rest.get_or_insert_default().insert(value)
    }

    #[inline]
    pub(crate) fn remove(&mut self, key: u32) -> Option<T> {
        match key {
            FIRST => self.first.take(),
            key => self.rest.as_mut()?.remove(key),
        }
    }

    pub(crate) fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        match key {
            FIRST => self.first.as_mut(),
            key => self.rest.as_mut()?.get_mut(key),
        }
    }
}

/// Takes the values out, oldest first.
impl<T> IntoIterator for InlineSlab<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter(self)
    }
}

pub(crate) struct IntoIter<T>(InlineSlab<T>);

impl<T> Iterator for IntoIter<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match self.0.first.take() {
            Some(first) => Some(first),
            None => self.0.rest.as_mut()?.next(),
        }
    }
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests;
