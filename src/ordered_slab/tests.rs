//! The slab against a plain list of keys and values.

use proptest::prelude::*;

use super::InlineSlab;
use crate::slab::CHUNK;

#[derive(Clone, Debug)]
enum Op {
    Insert,
    /// Removes the n-th of the values that are left.
    Remove(prop::sample::Index),
    /// Removes all but the n-th.
    RemoveAllBut(prop::sample::Index),
    /// Inserts a burst.
    Burst(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => Just(Op::Insert),
        8 => any::<prop::sample::Index>().prop_map(Op::Remove),
        1 => any::<prop::sample::Index>().prop_map(Op::RemoveAllBut),
        1 => (1..5 * CHUNK).prop_map(Op::Burst),
    ]
}

#[derive(Default)]
struct Pair {
    slab: InlineSlab<usize>,
    model: Vec<(u32, usize)>,
    next: usize,
}

impl Pair {
    fn insert(&mut self) {
        let key = self.slab.insert(self.next);
        assert!(self.model.iter().all(|(taken, _)| *taken != key));
        self.model.push((key, self.next));
        self.next += 1;
    }

    fn remove(&mut self, index: usize) {
        let (key, value) = self.model.remove(index);
        assert_eq!(self.slab.get_mut(key), Some(&mut { value }));
        assert_eq!(self.slab.remove(key), Some(value));
        assert_eq!(self.slab.remove(key), None);
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Insert => self.insert(),
            Op::Burst(count) => (0..count).for_each(|_| self.insert()),
            Op::Remove(index) if !self.model.is_empty() => {
                self.remove(index.index(self.model.len()));
            }
            Op::RemoveAllBut(index) if !self.model.is_empty() => {
                let keep = self.model[index.index(self.model.len())].0;
                while let Some(other) = self.model.iter().position(|(key, _)| *key != keep) {
                    self.remove(other);
                }
            }
            Op::Remove(_) | Op::RemoveAllBut(_) => {}
        }
    }

    fn check(&mut self) {
        assert_eq!(self.slab.len(), self.model.len());
        assert_eq!(self.slab.is_empty(), self.model.is_empty());
        let mut values: Vec<_> = self.slab.first.into_iter().collect();
        if let Some(rest) = &mut self.slab.rest {
            rest.for_each_mut(|value| values.push(*value));
        }
        assert!(values.iter().eq(self.model.iter().map(|(_, value)| value)));
        // The chunks hold the same, in an order of their own.
        let mut chunked = Vec::new();
        for index in 0.. {
            let Some(chunk) = self.slab.chunk_mut(index) else {
                break;
            };
            chunked.extend(chunk.map(|value| *value));
        }
        chunked.sort_unstable();
        assert_eq!(chunked, values);
    }
}

proptest! {
    #[test]
    fn any_operations_keep_order_and_keys(ops in prop::collection::vec(op(), 1..60)) {
        let mut pair = Pair::default();
        for op in ops {
            pair.apply(op);
            pair.check();
        }
        let values: Vec<_> = pair.slab.into_iter().collect();
        prop_assert!(values.iter().eq(pair.model.iter().map(|(_, value)| value)));
    }
}
