//! A counting allocator, for a program that sets it as its own. It counts for all threads together.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

pub struct Counting;

/// What was allocated while something ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocated {
    /// Calls of the allocator that returned memory.
    pub allocations: u64,
    /// Bytes asked for, all together.
    pub bytes: u64,
    /// Bytes given back, or exchanged for others.
    pub freed: u64,
}

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static FREED: AtomicU64 = AtomicU64::new(0);

/// Counts what happens while `f` runs.
pub fn count(f: impl FnOnce()) -> Allocated {
    let before = [&ALLOCATIONS, &BYTES, &FREED].map(|counter| counter.load(Ordering::Relaxed));
    f();
    Allocated {
        allocations: ALLOCATIONS.load(Ordering::Relaxed) - before[0],
        bytes: BYTES.load(Ordering::Relaxed) - before[1],
        freed: FREED.load(Ordering::Relaxed) - before[2],
    }
}

fn allocated(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

fn freed(bytes: usize) {
    FREED.fetch_add(bytes as u64, Ordering::Relaxed);
}

// SAFETY: every call is passed on to `System` unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        allocated(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        allocated(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        allocated(new_size);
        freed(layout.size());
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        freed(layout.size());
        unsafe { System.dealloc(ptr, layout) }
    }
}
