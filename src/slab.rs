//! `Slab`: values by keys that stay theirs, and memory that is given back. Its owner guards it with a lock of its own.
//!
//! Places lie in chunks of [`CHUNK`], so that growing moves nothing under the owner's lock, and a chunk whose last value goes
//! is freed. A key is `chunk * CHUNK + place`.
//!
//! Invariants:
//!
//! 1. The vacant places of a chunk are linked, from `Chunk::vacant`.
//! 2. Exactly the chunks that are not full are linked by `next_with_room`, from `with_room`. Only the first of them is
//!    inserted into, so only the first can become full, and a single link is enough.
//! 3. A chunk with nothing in it has no memory, unless it is the next to be inserted into. An empty slab has one chunk at
//!    most.
//!
//! Why not compact? Keys are held by children, tasks and futures elsewhere, and telling them would need their locks. The price
//! is that one survivor of a burst keeps its chunk. Why not the crate `slab`? It is one piece of memory, which moves as it
//! grows, and stays as large as it ever was.

use std::mem::replace;

/// Places in a chunk. In models one: whoever takes a chunk at a time lets others in between any two values.
pub(crate) const CHUNK: usize = if cfg!(all(test, errgroup_loom)) {
    1
} else {
    64
};

/// The end of a list. No key, as are those above `LARGEST`.
pub(crate) const NONE: u32 = u32::MAX;

/// What is above is never a key.
const LARGEST: u32 = u32::MAX - 3;

pub(crate) struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    with_room: u32,
    len: u32,
}

struct Chunk<T> {
    places: Vec<Place<T>>,
    vacant: u32,
    occupied: u32,
    next_with_room: u32,
}

enum Place<T> {
    Occupied(T),
    /// With the next vacant one.
    Vacant(u32),
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self {
            chunks: Vec::new(),
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

    /// Adds a value and returns its key, which stays valid until the value is removed.
    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if self.with_room == NONE {
            self.add_chunk();
        }
        let index = self.with_room as usize;
        let chunk = &mut self.chunks[index];
        let place = chunk.put(value);
        if chunk.is_full() {
            self.with_room = chunk.next_with_room;
        }
        self.len += 1;
        (index * CHUNK + place) as u32
    }

    /// Takes a value out; `None` if there is none of this key.
    pub(crate) fn remove(&mut self, key: u32) -> Option<T> {
        let (index, place) = (key as usize / CHUNK, key as usize % CHUNK);
        let chunk = self.chunks.get_mut(index)?;
        let value = chunk.take(place)?;
        chunk.vacant = place as u32;
        let was_full = chunk.is_full();
        chunk.occupied -= 1;
        let is_empty = chunk.occupied == 0;
        self.len -= 1;
        if was_full || is_empty {
            self.vacated(index, was_full);
        }
        Some(value)
    }

    #[inline]
    pub(crate) fn get(&self, key: u32) -> Option<&T> {
        let chunk = self.chunks.get(key as usize / CHUNK)?;
        chunk.places.get(key as usize % CHUNK)?.value()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        let chunk = self.chunks.get_mut(key as usize / CHUNK)?;
        chunk.places.get_mut(key as usize % CHUNK)?.value_mut()
    }

    /// The values of one chunk, with their keys; `None` beyond the last chunk. For those who cannot keep the slab to
    /// themselves until they have seen all of it.
    pub(crate) fn chunk_mut(
        &mut self,
        index: usize,
    ) -> Option<impl Iterator<Item = (u32, &mut T)>> {
        let places = self.chunks.get_mut(index)?.places.iter_mut();
        let first = (index * CHUNK) as u32;
        let places = (first..).zip(places);
        Some(places.filter_map(|(key, place)| Some((key, place.value_mut()?))))
    }

    /// All values, by their keys.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let places = self.chunks.iter_mut().flat_map(|chunk| &mut chunk.places);
        places.filter_map(Place::value_mut)
    }

    /// Takes a value out of a slab that is being consumed, and is not used in any other way from then on.
    #[inline]
    pub(crate) fn consume(&mut self, key: u32) -> Option<T> {
        let chunk = self.chunks.get_mut(key as usize / CHUNK)?;
        chunk.take(key as usize % CHUNK)
    }

    /// Sees to a chunk that was full, or is empty, now that a value has gone.
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
    fn free_if_empty(&mut self, index: usize) {
        let Some(chunk) = self.chunks.get_mut(index) else {
            return;
        };
        if chunk.occupied == 0 {
            chunk.free();
            if index + 1 == self.chunks.len() {
                self.trim();
            }
        }
    }

    /// Forgets the freed chunks at the end, once they are half of all: O(1) amortised over the insertions that made them.
    #[cold]
    fn trim(&mut self) {
        let is_used = |chunk: &Chunk<T>| chunk.occupied > 0;
        let last = self.chunks.iter().rposition(is_used);
        let used = last.map_or(0, |last| last + 1);
        if used * 2 > self.chunks.len() {
            return;
        }
        self.chunks.truncate(used);
        self.chunks.shrink_to_fit();
        self.with_room = NONE;
        for index in (0..used).rev() {
            let chunk = &mut self.chunks[index];
            if chunk.occupied == 0 {
                // It was the next to be inserted into, and may not be any more.
                chunk.free();
            }
            if !chunk.is_full() {
                chunk.next_with_room = self.with_room;
                self.with_room = index as u32;
            }
        }
    }

    #[cold]
    fn add_chunk(&mut self) {
        assert!(
            self.chunks.len() < LARGEST as usize / CHUNK,
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
            places: Vec::with_capacity(capacity),
            vacant: NONE,
            occupied: 0,
            next_with_room: NONE,
        });
    }
}

impl<T> Chunk<T> {
    #[inline]
    fn is_full(&self) -> bool {
        self.occupied as usize == CHUNK
    }

    #[inline]
    fn put(&mut self, value: T) -> usize {
        self.occupied += 1;
        let place = self.vacant as usize;
        let Some(vacant) = self.places.get_mut(place) else {
            self.places.push(Place::Occupied(value));
            return self.places.len() - 1;
        };
        if let Place::Vacant(next) = replace(vacant, Place::Occupied(value)) {
            self.vacant = next;
        }
        place
    }

    /// Takes a value out of its place, which is to be the first of the vacant ones.
    #[inline]
    fn take(&mut self, place: usize) -> Option<T> {
        let place = self.places.get_mut(place)?;
        match replace(place, Place::Vacant(self.vacant)) {
            Place::Occupied(value) => Some(value),
            vacant => {
                *place = vacant;
                None
            }
        }
    }

    fn free(&mut self) {
        self.places = Vec::new();
        self.vacant = NONE;
    }
}

impl<T> Place<T> {
    #[inline]
    fn value(&self) -> Option<&T> {
        match self {
            Self::Occupied(value) => Some(value),
            Self::Vacant(_) => None,
        }
    }

    #[inline]
    fn value_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Occupied(value) => Some(value),
            Self::Vacant(_) => None,
        }
    }
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests;
