//! The races of deadlines and timers.

use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use loom::thread;
use tokio::time::Instant;

use super::Setting;
use crate::context::hook::OnDone;
use crate::context::node::Node;
use crate::context::timers::Timers;
use crate::error::{ContextError, Reason};
use crate::sync::Ordering;

fn timed(after: Duration) -> Arc<Node> {
    let setting = Setting::at(Instant::now() + after, Location::caller());
    Node::derive_deadline(None, setting)
}

const HOUR: Duration = Duration::from_secs(3_600);

/// Registers with timers that stand for those of a runtime.
fn register(node: &Node, timers: &Arc<Timers>) {
    let deadline = node.own_deadline().expect("timed");
    if !deadline.register(timers.clone()) {
        deadline.register_with_process();
    }
}

fn set_passed(node: &Node) {
    node.own_deadline().expect("timed").set_passed();
}

fn end(node: &Arc<Node>) -> bool {
    node.end(|| ContextError::at(Reason::Cancelled, Location::caller(), None))
}

/// Its callback counts, by std's atomic: the count is read after the threads are joined.
fn count_told(node: &Arc<Node>) -> (Arc<AtomicUsize>, OnDone) {
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    let hook = move |_: &ContextError| {
        count.fetch_add(1, Ordering::Relaxed);
    };
    let on_done = OnDone::new(Some(node), Box::new(hook));
    (told, on_done)
}

#[test]
fn armed_by_two_at_once_is_registered_once() {
    loom::model(|| {
        let (node, timers) = (timed(HOUR), Timers::of_nobody());
        let other = {
            let (node, timers) = (node.clone(), timers.clone());
            thread::spawn(move || register(&node, &timers))
        };
        register(&node, &timers);
        other.join().unwrap();
        assert_eq!(timers.len(), 1);
        drop(node);
        assert_eq!(timers.len(), 0);
    });
}

#[test]
fn armed_during_the_end_leaves_no_entry() {
    loom::model(|| {
        let (node, timers) = (timed(HOUR), Timers::of_nobody());
        let armer = {
            let (node, timers) = (node.clone(), timers.clone());
            thread::spawn(move || register(&node, &timers))
        };
        assert!(end(&node));
        armer.join().unwrap();
        assert_eq!(timers.len(), 0);
    });
}

#[test]
fn armed_while_the_runtime_goes_is_registered_with_the_process() {
    loom::model(|| {
        let (node, timers) = (timed(HOUR), Timers::of_nobody());
        let closer = {
            let timers = timers.clone();
            thread::spawn(move || timers.close())
        };
        register(&node, &timers);
        closer.join().unwrap();
        assert_eq!((timers.len(), Timers::of_process().len()), (0, 1));
        drop(node);
        assert_eq!(Timers::of_process().len(), 0);
    });
}

#[test]
fn ended_while_the_runtime_goes_leaves_no_entry() {
    loom::model(|| {
        let (node, timers) = (timed(HOUR), Timers::of_nobody());
        register(&node, &timers);
        let closer = {
            let timers = timers.clone();
            thread::spawn(move || timers.close())
        };
        assert!(end(&node));
        closer.join().unwrap();
        assert_eq!((timers.len(), Timers::of_process().len()), (0, 0));
    });
}

#[test]
fn ended_while_the_first_of_two_runtimes_goes_leaves_no_entry() {
    loom::model(|| {
        let node = timed(HOUR);
        let [first, second] = [(); 2].map(|()| Timers::of_nobody());
        register(&node, &first);
        register(&node, &second);
        let closer = {
            let first = first.clone();
            thread::spawn(move || first.close())
        };
        assert!(end(&node));
        closer.join().unwrap();
        let process = Timers::of_process();
        assert_eq!((first.len(), second.len(), process.len()), (0, 0, 0));
    });
}

#[test]
fn rung_while_the_runtime_goes_is_told_once_or_moved() {
    loom::model(|| {
        let (node, timers) = (timed(HOUR), Timers::of_nobody());
        let (told, _on_done) = count_told(&node);
        register(&node, &timers);
        set_passed(&node);
        let closer = {
            let timers = timers.clone();
            thread::spawn(move || timers.close())
        };
        node.expire();
        closer.join().unwrap();
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert_eq!((timers.len(), Timers::of_process().len()), (0, 0));
    });
}

#[test]
fn seen_passed_during_a_cancel_then_one_reason_told_once() {
    loom::model(|| {
        let node = timed(HOUR);
        let (told, _on_done) = count_told(&node);
        let asker = {
            let node = node.clone();
            thread::spawn(move || {
                set_passed(&node);
                assert!(node.is_done());
                node.err().expect("it is done")
            })
        };
        let is_first = end(&node);
        let seen = asker.join().unwrap();
        let expected = match is_first {
            true => Reason::Cancelled,
            false => Reason::DeadlineExceeded,
        };
        assert_eq!(seen.reason(), expected);
        assert!(node.err().expect("ended") == seen);
        // Who ended it has told, or the deadline was seen too late for that: then it is still to be told.
        node.tell_if_overdue();
        assert_eq!(told.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn seen_passed_from_below_during_a_cancel_then_one_reason() {
    loom::model(|| {
        let node = timed(HOUR);
        let below = Node::derive(Some(&node), 0, Location::caller());
        let asker = {
            let below = below.clone();
            thread::spawn(move || {
                set_passed(below.parent.as_ref().expect("derived"));
                assert!(below.is_done());
                below.err().expect("it is done")
            })
        };
        let is_first = end(&node);
        let seen = asker.join().unwrap();
        assert_eq!(is_first, seen.reason() == Reason::Cancelled);
        assert!(below.err().expect("ended") == seen);
        assert!(node.err().expect("ended") == seen);
    });
}

#[test]
fn seen_passed_by_two_at_once_then_one_error() {
    loom::model(|| {
        let node = timed(HOUR);
        let below = Node::derive(Some(&node), 0, Location::caller());
        set_passed(&node);
        let asker = {
            let below = below.clone();
            thread::spawn(move || below.err().expect("it has passed"))
        };
        let mine = node.err().expect("it has passed");
        assert!(asker.join().unwrap() == mine);
        node.tell_if_overdue();
        assert!(below.has_ended());
    });
}
