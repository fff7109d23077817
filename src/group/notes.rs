//! `Notes`: what some of a page's tasks have and others have not, by the line on which a task stands.
//!
//! Owned by a `Page`, under its lock.
//!
//! Invariants:
//!
//! 1. `used` is how many lines have a note. When it falls to zero, `rest` has no memory.
//! 2. The note of line `base + i` is `first` for `i == 0`, else `rest[i - 1]`; `base` is kept while there are notes.
//! 3. `rest` has room for all lines above `base`, or none: a page with many notes allocates for them once.

pub(super) struct Notes<T> {
    lines: u8,
    base: u8,
    used: u8,
    first: Option<T>,
    rest: Vec<Option<T>>,
}

impl<T> Notes<T> {
    /// For a page of so many lines.
    pub(super) const fn new(lines: u8) -> Self {
        Self {
            lines,
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
                if self.rest.is_empty() {
                    self.make_room();
                }
                &mut self.rest[usize::from(above) - 1]
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
            self.rest = Vec::new();
        }
        Some(note)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.first.iter_mut().chain(self.rest.iter_mut().flatten())
    }

    #[cold]
    fn make_room(&mut self) {
        let above = usize::from(self.lines - self.base) - 1;
        self.rest = std::iter::repeat_with(|| None).take(above).collect();
    }

    /// Makes a lower line the base.
    #[cold]
    fn lower(&mut self, line: u8) {
        let by = usize::from(self.base - line);
        self.base = line;
        let first = self.first.take();
        let rest = std::mem::take(&mut self.rest);
        self.make_room();
        let places = self.rest.iter_mut().skip(by - 1);
        for (place, note) in places.zip(std::iter::once(first).chain(rest)) {
            *place = note;
        }
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
            let (mut notes, mut map) = (Notes::<u8>::new(63), BTreeMap::new());
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
    fn last_note_taken_then_no_memory_is_kept() {
        let mut notes = Notes::<u64>::new(63);
        (0..63).for_each(|line| *notes.at(line) = 1);
        assert_eq!((0..63).filter_map(|line| notes.take(line)).count(), 63);
        assert_eq!(notes.rest.capacity(), 0);
    }
}
