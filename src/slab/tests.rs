//! The slab gives memory back. That keys and values are right is tested through the ordered one, which stands on it.

use super::{CHUNK, Slab};

/// As large as what a group keeps of a task.
#[derive(Clone, Copy, Default)]
struct Value(#[expect(dead_code)] [usize; 6]);

/// A slab with many values, and their keys.
fn burst() -> (Slab<Value>, Vec<u32>) {
    let mut slab = Slab::default();
    let keys = (0..100_000)
        .map(|_| slab.insert(Value::default()))
        .collect();
    (slab, keys)
}

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
    let (mut slab, keys) = burst();
    let peak = owned_bytes(&slab);
    for key in keys {
        slab.remove(key);
    }
    assert!(peak > 100_000 * size_of::<Value>());
    assert_eq!(owned_bytes(&slab), 0);
}

#[test]
fn burst_removed_around_an_early_survivor_gives_memory_back() {
    let (mut slab, keys) = burst();
    for key in keys.iter().skip(2) {
        slab.remove(*key);
    }
    assert_eq!(slab.len(), 2);
    assert!(owned_bytes(&slab) < 10_000, "{}", owned_bytes(&slab));
}

#[test]
fn burst_removed_around_a_late_survivor_gives_the_chunks_back() {
    let (mut slab, keys) = burst();
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

#[test]
fn chunk_to_be_inserted_into_is_empty_when_the_last_are_forgotten_then_it_is_freed() {
    let mut slab = Slab::default();
    let chunks: Vec<Vec<u32>> = (0..8)
        .map(|_| (0..CHUNK).map(|_| slab.insert(Value::default())).collect())
        .collect();
    // Each has room from now on, the third first of all.
    for chunk in [0, 4, 5, 6, 7, 2] {
        slab.remove(chunks[chunk][0]);
    }
    for chunk in [2, 4, 5, 6, 7] {
        for key in &chunks[chunk][1..] {
            slab.remove(*key);
        }
    }
    assert_eq!(slab.chunks.len(), 4);
    assert_eq!(slab.chunks[2].places.capacity(), 0);
    // The first has room for one, and then the third is used anew.
    let keys: Vec<u32> = (0..2).map(|_| slab.insert(Value::default())).collect();
    assert_eq!(keys, [0, 2 * CHUNK as u32]);
}
