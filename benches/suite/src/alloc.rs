//! A counting allocator, for the programs that set it as theirs. It counts for each thread apart, so what is counted has
//! to stay on one thread: a `current_thread` runtime.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use serde::{Deserialize, Serialize};

pub struct Counting;

/// What was allocated while something ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocated {
    /// Calls of the allocator that returned memory.
    pub allocations: u64,
    /// Bytes asked for, all together.
    pub bytes: u64,
    /// Bytes still held at the end, less those held at the beginning.
    pub live: i64,
    /// The most bytes held at any moment, less those held at the beginning.
    pub peak: i64,
}

thread_local! {
    static COUNTED: Cell<Allocated> = const { Cell::new(Allocated { allocations: 0, bytes: 0, live: 0, peak: 0 }) };
}

/// Counts what `f` allocates on this thread.
pub fn count<R>(f: impl FnOnce() -> R) -> (R, Allocated) {
    let outer = COUNTED.replace(Allocated::default());
    let result = f();
    let counted = COUNTED.replace(outer);
    (result, counted)
}

fn record(allocated: usize, freed: usize) {
    let mut counted = COUNTED.get();
    if allocated > 0 {
        counted.allocations += 1;
        counted.bytes += allocated as u64;
    }
    counted.live += allocated as i64 - freed as i64;
    counted.peak = counted.peak.max(counted.live);
    COUNTED.set(counted);
}

// SAFETY: every call is passed on to `System` unchanged. The counters are `const`-initialised and have no destructor, so
// reaching them allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        record(layout.size(), 0);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        record(layout.size(), 0);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        record(new_size, layout.size());
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        record(0, layout.size());
        unsafe { System.dealloc(ptr, layout) }
    }
}
