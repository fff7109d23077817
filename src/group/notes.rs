//! `Notes`: what some of a page's tasks have and others have not, by the line on which a task stands.
//!
//! Owned by a `Page`, under its lock.
//!
//! Invariants:
//!
//! 1. `used` is how many lines have a note. When it falls to zero only a little memory is kept.
//! 2. The note of line `base + i` is `first` for `i == 0`, else `rest[i - 1]`; `base` is kept while there are notes.

pub(super) struct Notes<T> {
    base: u8,
    used: u8,
    first: Option<T>,
    rest: Vec<Option<T>>,
}

/// Room that is kept while there are no notes.
const KEPT: usize = 4;

impl<T> Notes<T> {
    pub(super) const fn new() -> Self {
        Self {
            base: 0,
            used: 0,
            first: None,
            rest: Vec::new(),
        }
    }

    /// The note of a line, made if there is none.
    pub(super) fn at(&mut self, line: u8) -> &mut T
    where
        T: Default,
    {
        if self.used == 0 {
            self.base = line;
        } else if line < self.base {
            self.lower(line);
        }
        let place = match line - self.base {
            0 => &mut self.first,
            above => {
                let index = usize::from(above) - 1;
                if self.rest.len() <= index {
                    self.grow(index);
                }
                &mut self.rest[index]
            }
        };
        self.used += u8::from(place.is_none());
        place.get_or_insert_default()
    }

    pub(super) fn get(&self, line: u8) -> Option<&T> {
        match line.checked_sub(self.base)? {
            0 => self.first.as_ref(),
            above => self.rest.get(usize::from(above) - 1)?.as_ref(),
        }
    }

    pub(super) fn take(&mut self, line: u8) -> Option<T> {
        let note = match line.checked_sub(self.base)? {
            0 => self.first.take(),
            above => self.rest.get_mut(usize::from(above) - 1)?.take(),
        }?;
        self.used -= 1;
        if self.used == 0 {
            self.rest.clear();
            self.rest.shrink_to(KEPT);
        }
        Some(note)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.first.iter_mut().chain(self.rest.iter_mut().flatten())
    }

    /// Makes room: a few times as much as there was, so that reallocations are few.
    fn grow(&mut self, index: usize) {
        let len = (index + 1).max(KEPT * self.rest.len());
        self.rest.reserve_exact(len - self.rest.len());
        self.rest.resize_with(len, || None);
    }

    /// Makes a lower line the base.
    #[cold]
    fn lower(&mut self, line: u8) {
        let by = usize::from(self.base - line);
        let between = std::iter::repeat_with(|| None).take(by - 1);
        self.rest.splice(0..0, between.chain([self.first.take()]));
        self.base = line;
    }
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::Notes;

    proptest! {
        /// Against a map: the notes of any lines, in any order.
        #[test]
        fn random_notes_are_those_of_a_map(steps in prop::collection::vec((0..63_u8, any::<bool>()), 0..200)) {
            let (mut notes, mut map) = (Notes::<u8>::new(), BTreeMap::new());
            for (step, (line, is_set)) in steps.into_iter().enumerate() {
                if is_set {
                    *notes.at(line) = step as u8;
                    map.insert(line, step as u8);
                } else {
                    prop_assert_eq!(notes.take(line), map.remove(&line));
                }
                prop_assert!((0..63).all(|line| notes.get(line) == map.get(&line)));
                let listed: Vec<u8> = notes.iter_mut().map(|note| *note).collect();
                prop_assert_eq!(listed, map.values().copied().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn last_note_taken_then_little_memory_is_kept() {
        let mut notes = Notes::<u64>::new();
        (0..63).for_each(|line| *notes.at(line) = 1);
        assert_eq!((0..63).filter_map(|line| notes.take(line)).count(), 63);
        assert!(notes.rest.capacity() <= super::KEPT);
    }
}
