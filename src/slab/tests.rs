//! The slab gives memory back. That keys and values are right is tested through the ordered one, which stands on it.

use super::Slab;

/// As large as what a group keeps of a task.
#[derive(Clone, Copy, Default)]
struct Value(#[expect(dead_code)] [usize; 6]);

fn owned_bytes<T>(slab: &Slab<T>) -> usize {
    let chunks = slab.chunks.capacity() * size_of::<super::Chunk<T>>();
    let places: usize = slab
        .chunks
        .iter()
        .map(|chunk| chunk.places.capacity())
        .sum();
    chunks + places * size_of::<super::Place<T>>()
}

#[test]
fn burst_removed_gives_memory_back() {
    let mut slab = Slab::default();
    let keys: Vec<_> = (0..100_000)
        .map(|_| slab.insert(Value::default()))
        .collect();
    let peak = owned_bytes(&slab);
    for key in keys {
        slab.remove(key);
    }
    assert!(peak > 100_000 * size_of::<Value>());
    assert_eq!(owned_bytes(&slab), 0);
}

#[test]
fn burst_removed_around_an_early_survivor_gives_memory_back() {
    let mut slab = Slab::default();
    let keys: Vec<_> = (0..100_000)
        .map(|_| slab.insert(Value::default()))
        .collect();
    for key in keys.iter().skip(2) {
        slab.remove(*key);
    }
    assert_eq!(slab.len(), 2);
    assert!(owned_bytes(&slab) < 10_000, "{}", owned_bytes(&slab));
}

#[test]
fn burst_removed_around_a_late_survivor_gives_the_chunks_back() {
    let mut slab = Slab::default();
    let keys: Vec<_> = (0..100_000)
        .map(|_| slab.insert(Value::default()))
        .collect();
    let peak = owned_bytes(&slab);
    for key in &keys[..keys.len() - 1] {
        slab.remove(*key);
    }
    assert_eq!(slab.len(), 1);
    // One chunk, and the heads of the freed ones.
    assert!(
        owned_bytes(&slab) < peak / 20,
        "{} of {peak}",
        owned_bytes(&slab)
    );
}
