//! `OrderedSlab`: a slab that remembers the order of insertion and gives memory back.
//!
//! The children and waiters of a context, the waiters of a wait group and the live tasks of a group are kept in one.
//! Its owner guards it with a lock of its own.
//!
//! Entries lie in chunks of [`CHUNK`], so that growing moves nothing under the owner's lock, and a chunk whose last
//! entry goes is freed. A key is `chunk * CHUNK + place`.
//!
//! Invariants:
//!
//! 1. The occupied entries are linked by `prev` and `next`, oldest first, from `head` to `tail`.
//! 2. The vacant entries of a chunk are linked by `next`, from `Chunk::vacant`.
//! 3. Exactly the chunks that are not full are linked by `next_with_room`, from `with_room`. Only the first of them is
//!    inserted into, so only the first can become full, and a single link is enough.
//! 4. A chunk that loses its last entry gives its memory back, unless it is the next to be inserted into.
//!
//! Why not compact? Keys are held by children and futures elsewhere, and telling them would need their locks. The price
//! is that one survivor of a burst keeps its chunk.

/// Entries in a chunk.
const CHUNK: usize = 64;

/// The end of a list.
const NONE: u32 = u32::MAX;

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

impl<T> Default for OrderedSlab<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            head: NONE,
            tail: NONE,
            with_room: NONE,
            len: 0,
        }
    }
}

impl<T> OrderedSlab<T> {
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a value and returns its key, which stays valid until the value is removed.
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        let chunk_index = self.chunk_with_room();
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
        let key = key_of(chunk_index, place);
        match self.tail {
            NONE => self.head = key,
            tail => self.entry_mut(tail).next = key,
        }
        self.tail = key;
        self.len += 1;
        key
    }

    /// Takes a value out; `None` if the key is not occupied.
    pub(crate) fn remove(&mut self, key: u32) -> Option<T> {
        let (chunk_index, place) = place_of(key);
        let entry = self.chunks.get_mut(chunk_index)?.entries.get_mut(place)?;
        let value = entry.value.take()?;
        let (prev, next) = (entry.prev, entry.next);
        match prev {
            NONE => self.head = next,
            prev => self.entry_mut(prev).next = next,
        }
        match next {
            NONE => self.tail = prev,
            next => self.entry_mut(next).prev = prev,
        }
        self.len -= 1;
        self.vacate(chunk_index, place);
        Some(value)
    }

    pub(crate) fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        let (chunk_index, place) = place_of(key);
        self.chunks
            .get_mut(chunk_index)?
            .entries
            .get_mut(place)?
            .value
            .as_mut()
    }

    /// Calls `f` with every value, oldest first.
    pub(crate) fn for_each_mut(&mut self, mut f: impl FnMut(&mut T)) {
        let mut key = self.head;
        while key != NONE {
            let entry = self.entry_mut(key);
            key = entry.next;
            if let Some(value) = &mut entry.value {
                f(value);
            }
        }
    }

    fn chunk_with_room(&mut self) -> usize {
        if self.with_room == NONE {
            let capacity = if self.chunks.is_empty() { 0 } else { CHUNK };
            assert!(
                self.chunks.len() < NONE as usize / CHUNK,
                "errgroup: over four billion registrations at once"
            );
            self.with_room = self.chunks.len() as u32;
            self.chunks.push(Chunk::with_capacity(capacity));
        }
        self.with_room as usize
    }

    fn vacate(&mut self, chunk_index: usize, place: usize) {
        if self.len == 0 {
            return self.reset();
        }
        let is_next = self.with_room == chunk_index as u32;
        let chunk = &mut self.chunks[chunk_index];
        let was_full = chunk.is_full();
        chunk.clear(place);
        if was_full {
            chunk.next_with_room = self.with_room;
            self.with_room = chunk_index as u32;
        } else if chunk.occupied == 0 && !is_next {
            chunk.free();
            self.trim(chunk_index);
        }
    }

    /// The last value has gone: one chunk at most is kept, for the next.
    fn reset(&mut self) {
        let keep = self.chunks.len() == 1;
        let chunks = std::mem::take(self).chunks;
        if keep {
            self.chunks = chunks;
            self.chunks[0].empty();
            self.with_room = 0;
        }
    }

    /// Forgets the freed chunks at the end, once they are half of all: O(1) amortised over the insertions that made them.
    fn trim(&mut self, freed: usize) {
        if freed + 1 != self.chunks.len() {
            return;
        }
        let used = self
            .chunks
            .iter()
            .rposition(|chunk| chunk.occupied > 0)
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

    fn entry_mut(&mut self, key: u32) -> &mut Entry<T> {
        let (chunk_index, place) = place_of(key);
        &mut self.chunks[chunk_index].entries[place]
    }
}

impl<T> Chunk<T> {
    fn with_capacity(capacity: usize) -> Self {
        Self {
            entries: Vec::with_capacity(capacity),
            vacant: NONE,
            occupied: 0,
            next_with_room: NONE,
        }
    }

    fn is_full(&self) -> bool {
        self.occupied as usize == CHUNK
    }

    fn put(&mut self, entry: Entry<T>) -> usize {
        self.occupied += 1;
        if self.vacant == NONE {
            self.entries.push(entry);
            return self.entries.len() - 1;
        }
        let place = self.vacant as usize;
        let old = std::mem::replace(&mut self.entries[place], entry);
        self.vacant = old.next;
        place
    }

    fn clear(&mut self, place: usize) {
        self.entries[place].next = self.vacant;
        self.vacant = place as u32;
        self.occupied -= 1;
    }

    fn empty(&mut self) {
        self.entries.clear();
        self.vacant = NONE;
        self.occupied = 0;
        self.next_with_room = NONE;
    }

    fn free(&mut self) {
        self.entries = Vec::new();
        self.vacant = NONE;
    }
}

/// Takes the values out, oldest first.
impl<T> IntoIterator for OrderedSlab<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter(self)
    }
}

pub(crate) struct IntoIter<T>(OrderedSlab<T>);

impl<T> Iterator for IntoIter<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.0.head == NONE {
            return None;
        }
        let entry = self.0.entry_mut(self.0.head);
        let (value, next) = (entry.value.take(), entry.next);
        self.0.head = next;
        value
    }
}

fn key_of(chunk_index: usize, place: usize) -> u32 {
    (chunk_index * CHUNK + place) as u32
}

fn place_of(key: u32) -> (usize, usize) {
    (key as usize / CHUNK, key as usize % CHUNK)
}
