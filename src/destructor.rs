//! Foreign destructors: their panics are contained, and a chain of them is not run one inside the other.
//!
//! A cause may hold an error that holds a cause, a value a context that holds a value, a callback a context with a
//! callback. Dropping the first drops the second from within its destructor, through code that is not ours, and fifty
//! thousand of those overflow the stack. So what is dropped deeper than [`MAX_DEPTH`] is put aside, and the outermost of
//! the calls on this thread drops it when it has come back to itself.
//!
//! Invariants:
//!
//! 1. `DEPTH` is the number of calls of `nested` on the thread's stack.
//! 2. `LATER` is empty whenever `DEPTH` is zero.

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;

use crate::panic::contain;

/// How deep destructors may nest. Far more than programs nest, and far less than a stack holds.
const MAX_DEPTH: usize = 16;

type Later = RefCell<Vec<Box<dyn FnOnce()>>>;

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };

    /// Never dropped, and so usable in the destructors of other thread-locals; by invariant 2 there is nothing to drop.
    static LATER: ManuallyDrop<Later> = const { ManuallyDrop::new(RefCell::new(Vec::new())) };
}

/// Drops a foreign value now, or soon if it is dropped deep inside of another. A panic of its destructor is contained.
pub(crate) fn destroy<T: 'static>(value: T) {
    nested(move || drop(value));
}

/// Runs foreign code that may come back here from within: now, or soon if it has come back often. Its panic is contained.
pub(crate) fn nested(f: impl FnOnce() + 'static) {
    let depth = DEPTH.get();
    if depth == MAX_DEPTH {
        return LATER.with(|later| later.borrow_mut().push(Box::new(f)));
    }
    DEPTH.set(depth + 1);
    contain(f);
    if depth == 0 {
        run_later();
    }
    DEPTH.set(depth);
}

/// Runs what was put aside, in the order in which it was.
fn run_later() {
    loop {
        let later = LATER.with(|later| later.take());
        if later.is_empty() {
            return;
        }
        later.into_iter().for_each(contain);
    }
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::{MAX_DEPTH, destroy, nested};

    /// Runs itself again from within, so often.
    fn nest(left: usize, log: &Rc<RefCell<Vec<usize>>>) {
        let log = log.clone();
        nested(move || {
            if left > 0 {
                nest(left - 1, &log);
            }
            log.borrow_mut().push(left);
        });
    }

    #[test]
    fn nested_a_little_then_run_at_once() {
        let log = Rc::new(RefCell::new(Vec::new()));
        nest(MAX_DEPTH - 1, &log);
        assert_eq!(*log.borrow(), (0..MAX_DEPTH).collect::<Vec<_>>());
    }

    #[test]
    fn nested_a_hundred_thousand_times_then_all_run_before_the_outermost_returns() {
        let log = Rc::new(RefCell::new(Vec::new()));
        nest(100_000, &log);
        let mut log = log.take();
        log.sort_unstable();
        assert_eq!(log, (0..=100_000).collect::<Vec<_>>());
    }

    #[test]
    fn one_that_panics_deep_inside_then_the_others_run() {
        struct Bomb(Option<Box<Bomb>>, Rc<RefCell<usize>>);
        impl Drop for Bomb {
            fn drop(&mut self) {
                *self.1.borrow_mut() += 1;
                if let Some(next) = self.0.take() {
                    destroy(next);
                }
                panic!("a destructor that panics");
            }
        }
        let count = Rc::new(RefCell::new(0));
        let mut bomb = Bomb(None, count.clone());
        for _ in 0..3 * MAX_DEPTH {
            bomb = Bomb(Some(Box::new(bomb)), count.clone());
        }
        destroy(bomb);
        assert_eq!(*count.borrow(), 3 * MAX_DEPTH + 1);
    }
}
