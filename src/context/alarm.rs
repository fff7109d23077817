//! `Alarm`: a timer that the first who needs it sets, and that is stopped for good.
//!
//! Invariants:
//!
//! 1. Whoever sets `is_set` starts the timer; the others rely on it.
//! 2. After `stop` there is no timer, and none comes: one that was being started meanwhile is dropped by who started it.
//!
//! The timer is started and dropped with no lock held: both may wake.

use crate::sync::{AtomicBool, Mutex, Ordering};

pub(super) struct Alarm<T> {
    is_set: AtomicBool,
    state: Mutex<State<T>>,
}

struct State<T> {
    timer: Option<T>,
    is_stopped: bool,
}

impl<T> Alarm<T> {
    pub(super) fn new() -> Self {
        Self {
            is_set: AtomicBool::new(false),
            state: Mutex::new(State {
                timer: None,
                is_stopped: false,
            }),
        }
    }

    /// Starts the timer, unless somebody has seen to it. `start` has nothing to hand out if the time is over.
    #[inline]
    pub(super) fn set(&self, start: impl FnOnce() -> Option<T>) {
        // Relaxed: the flag says who does it, and nothing of what was done.
        if !self.is_set() && !self.is_set.swap(true, Ordering::Relaxed) {
            self.keep(start());
        }
    }

    fn keep(&self, timer: Option<T>) {
        let mut state = self.state.lock();
        let late = match state.is_stopped {
            false => std::mem::replace(&mut state.timer, timer),
            true => timer,
        };
        drop(state);
        drop(late);
    }

    /// Whether there has been a timer to stop.
    pub(super) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        let mut state = self.state.lock();
        state.is_stopped = true;
        let timer = state.timer.take();
        drop(state);
        drop(timer);
    }
}

#[cfg(all(test, errgroup_loom))]
mod loom_models {
    use std::sync::Arc;

    use loom::thread;

    use super::Alarm;

    #[test]
    fn alarm_set_during_its_stop_leaves_no_timer() {
        loom::model(|| {
            let alarm = Arc::new(Alarm::new());
            let timer = Arc::new(());
            let setter = {
                let (alarm, timer) = (alarm.clone(), timer.clone());
                thread::spawn(move || alarm.set(|| Some(timer)))
            };
            alarm.stop();
            setter.join().unwrap();
            assert_eq!(Arc::strong_count(&timer), 1);
        });
    }

    #[test]
    fn alarm_set_by_two_at_once_is_started_by_one() {
        loom::model(|| {
            let alarm = Arc::new(Alarm::new());
            let timer = Arc::new(());
            let setters = [(); 2].map(|()| {
                let (alarm, timer) = (alarm.clone(), timer.clone());
                thread::spawn(move || {
                    let mut has_started = false;
                    alarm.set(|| {
                        has_started = true;
                        Some(timer)
                    });
                    has_started
                })
            });
            let started = setters.map(|setter| setter.join().unwrap());
            assert_ne!(started[0], started[1]);
            assert_eq!(Arc::strong_count(&timer), 2);
        });
    }
}
