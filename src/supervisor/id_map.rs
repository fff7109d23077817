//! `IdMap`: a map from ids in their order, in one allocation. New ids are larger than all before.
//!
//! What is removed leaves its place empty; when more places are empty than not, they are cleared away. So removing costs O(log n),
//! and the memory of a burst is given back.
//!
//! Why not a `BTreeMap`? Filled in order, its nodes are half full: a sixth of an allocation for each child and map.
//!
//! Invariants:
//!
//! 1. `places` is in the order of ids.
//! 2. `live` of them hold a value: at least half, but for the last sixteen.

use super::entry::ChildId;

#[derive(Debug)]
pub(super) struct IdMap<T> {
    places: Vec<(ChildId, Option<T>)>,
    live: usize,
}

/// So many places are not worth clearing away.
const FEW: usize = 16;

impl<T> IdMap<T> {
    pub(super) fn new() -> Self {
        Self {
            places: Vec::new(),
            live: 0,
        }
    }

    /// Makes room for so many more, in one allocation.
    pub(super) fn reserve(&mut self, more: usize) {
        self.places.reserve(more);
    }

    /// Adds the value of an id that is larger than all before.
    pub(super) fn push(&mut self, id: ChildId, value: T) {
        debug_assert!(self.places.last().is_none_or(|&(last, _)| last < id));
        self.places.push((id, Some(value)));
        self.live += 1;
    }

    pub(super) fn get(&self, id: ChildId) -> Option<&T> {
        let place = self.place(id)?;
        self.places[place].1.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: ChildId) -> Option<&mut T> {
        let place = self.place(id)?;
        self.places[place].1.as_mut()
    }

    pub(super) fn remove(&mut self, id: ChildId) -> Option<T> {
        let place = self.place(id)?;
        let removed = self.places[place].1.take()?;
        self.live -= 1;
        if self.places.len() > 2 * self.live + FEW {
            self.places.retain(|(_, value)| value.is_some());
            self.places.shrink_to(2 * self.live + FEW);
        }
        Some(removed)
    }

    fn place(&self, id: ChildId) -> Option<usize> {
        self.places.binary_search_by_key(&id, |&(id, _)| id).ok()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ChildId, &T)> {
        let places = self.places.iter();
        places.filter_map(|(id, value)| Some((*id, value.as_ref()?)))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.iter().map(|(_, value)| value)
    }

    pub(super) fn ids(&self) -> Vec<ChildId> {
        let mut ids = Vec::with_capacity(self.live);
        ids.extend(self.iter().map(|(id, _)| id));
        ids
    }
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests {
    use super::{ChildId, IdMap};

    #[test]
    fn removed_in_any_order_then_the_others_stay_in_order_and_the_memory_goes() {
        let mut map = IdMap::new();
        for n in 0..1_000 {
            map.push(ChildId(n), n);
        }
        for n in (0..1_000).filter(|n| n % 100 != 7) {
            assert_eq!(map.remove(ChildId(n)), Some(n));
            assert_eq!(map.remove(ChildId(n)), None);
        }
        assert!(map.places.capacity() < 64, "{}", map.places.capacity());
        let ids: Vec<_> = map.ids().into_iter().map(|id| id.0).collect();
        assert_eq!(ids, [7, 107, 207, 307, 407, 507, 607, 707, 807, 907]);
        map.push(ChildId(1_000), 1_000);
        assert_eq!(map.get(ChildId(907)), Some(&907));
        *map.get_mut(ChildId(1_000)).unwrap() += 1;
        assert_eq!(map.values().last(), Some(&1_001));
        assert_eq!(map.get(ChildId(8)), None);
    }
}
