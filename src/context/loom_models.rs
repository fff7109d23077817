//! The races of the tree.

use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use loom::thread;

use super::done::Done;
use super::hook::OnDone;
use super::node::Node;
use crate::error::{ContextError, Reason};
use crate::sync::model::block_on;

fn derive(parent: Option<&Arc<Node>>) -> Arc<Node> {
    Node::derive(parent, 0, Location::caller())
}

fn end(node: &Arc<Node>, reason: Reason) -> bool {
    node.end(|| ContextError::at(reason, Location::caller(), None))
}

fn reason(node: &Arc<Node>) -> Option<Reason> {
    node.err().map(|error| error.reason())
}

/// Counts the calls of a callback. std's atomic: the count is read after the threads are joined.
fn counter() -> (
    Arc<AtomicUsize>,
    impl FnOnce(&ContextError) + Send + 'static,
) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    (count, move |_: &ContextError| {
        counted.fetch_add(1, Ordering::Relaxed);
    })
}

#[test]
fn child_derived_during_end_is_ended_and_sibling_dropped_during_end_is_gone() {
    loom::model(|| {
        let parent = derive(None);
        let sibling = derive(Some(&parent));
        let ender = {
            let parent = parent.clone();
            thread::spawn(move || end(&parent, Reason::Cancelled))
        };
        let dropper = thread::spawn(move || drop(sibling));
        let child = derive(Some(&parent));
        assert!(ender.join().unwrap());
        dropper.join().unwrap();
        assert_eq!(reason(&child), Some(Reason::Cancelled));
        assert_eq!(parent.children(), 0);
    });
}

#[test]
fn two_ends_at_once_one_wins_and_is_told_once() {
    loom::model(|| {
        let node = derive(None);
        let child = derive(Some(&node));
        let (told, hook) = counter();
        assert!(child.register(Box::new(hook)).is_ok());
        let other = {
            let node = node.clone();
            thread::spawn(move || end(&node, Reason::Cancelled))
        };
        let mine = end(&node, Reason::Shutdown);
        let theirs = other.join().unwrap();
        assert!(mine ^ theirs);
        let winner = if mine {
            Reason::Shutdown
        } else {
            Reason::Cancelled
        };
        assert_eq!(reason(&node), Some(winner));
        assert_eq!(reason(&child), Some(winner));
        assert_eq!(told.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn child_ended_during_end_of_parent_keeps_the_first_reason() {
    loom::model(|| {
        let parent = derive(None);
        let child = derive(Some(&parent));
        let ender = {
            let child = child.clone();
            thread::spawn(move || end(&child, Reason::Cancelled))
        };
        assert!(end(&parent, Reason::Shutdown));
        let own = ender.join().unwrap();
        let expected = if own {
            Reason::Cancelled
        } else {
            Reason::Shutdown
        };
        assert_eq!(reason(&child), Some(expected));
        assert_eq!(parent.children(), 0);
    });
}

#[test]
fn hook_registered_during_end_runs_once() {
    loom::model(|| {
        let node = derive(None);
        let ended = node.clone();
        assert_hook_runs_once(&node, move || assert!(end(&ended, Reason::Cancelled)));
    });
}

/// A hook is registered while another thread ends the node.
fn assert_hook_runs_once(node: &Arc<Node>, end: impl FnOnce() + Send + 'static) {
    let ender = thread::spawn(end);
    let (told, hook) = counter();
    let on_done = OnDone::new(Some(node), Box::new(hook));
    ender.join().unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 1);
    assert!(!on_done.stop());
}

#[test]
fn hook_stopped_during_end_runs_or_is_prevented() {
    loom::model(|| {
        let node = derive(None);
        let (told, hook) = counter();
        let on_done = OnDone::new(Some(&node), Box::new(hook));
        let ender = {
            let node = node.clone();
            thread::spawn(move || end(&node, Reason::Cancelled))
        };
        let prevented = on_done.stop();
        ender.join().unwrap();
        assert_eq!(told.load(Ordering::Relaxed), usize::from(!prevented));
    });
}

#[test]
fn done_polled_during_end_is_woken() {
    loom::model(|| {
        let node = derive(None);
        let ender = {
            let node = node.clone();
            thread::spawn(move || end(&node, Reason::Cancelled))
        };
        let error = block_on(Done::new(Some(&node)));
        assert_eq!(error.reason(), Reason::Cancelled);
        ender.join().unwrap();
    });
}

#[test]
fn middle_dropped_during_end_still_passes_it_on() {
    loom::model(|| {
        let root = derive(None);
        let middle = derive(Some(&root));
        let leaf = derive(Some(&middle));
        let dropper = thread::spawn(move || drop(middle));
        assert!(end(&root, Reason::Cancelled));
        dropper.join().unwrap();
        assert_eq!(reason(&leaf), Some(Reason::Cancelled));
    });
}

#[test]
fn last_owner_dropped_during_end_frees_the_node() {
    loom::model(|| {
        let parent = derive(None);
        let middle = derive(Some(&parent));
        let leaf = derive(Some(&middle));
        drop(middle);
        let dropper = thread::spawn(move || drop(leaf));
        assert!(end(&parent, Reason::Cancelled));
        dropper.join().unwrap();
        assert_eq!(Arc::strong_count(&parent), 1);
        assert_eq!(Arc::weak_count(&parent), 0);
    });
}

#[test]
fn merged_with_both_parents_ending_ends_once() {
    loom::model(|| {
        let (first, second) = (derive(None), derive(None));
        let merged = Node::merge(&first, &second, Location::caller());
        let ender = {
            let second = second.clone();
            thread::spawn(move || end(&second, Reason::Shutdown))
        };
        end(&first, Reason::Cancelled);
        ender.join().unwrap();
        assert!(reason(&merged).is_some());
        assert_eq!((first.children(), second.children()), (0, 0));
    });
}

#[test]
fn merged_during_end_of_a_parent_is_ended_and_unlinked() {
    loom::model(|| {
        let (first, second) = (derive(None), derive(None));
        let ender = {
            let first = first.clone();
            thread::spawn(move || end(&first, Reason::Cancelled))
        };
        let merged = Node::merge(&first, &second, Location::caller());
        ender.join().unwrap();
        assert_eq!(reason(&merged), Some(Reason::Cancelled));
        assert_eq!((first.children(), second.children()), (0, 0));
    });
}

#[test]
fn two_last_handles_dropped_at_once_end_the_context() {
    loom::model(|| {
        let (ctx, handle) = crate::Context::background().with_cancel();
        let other = handle.clone();
        let dropper = thread::spawn(move || drop(other));
        drop(handle);
        dropper.join().unwrap();
        let error = ctx.err().expect("ended");
        assert_eq!(error.reason(), Reason::HandleDropped);
    });
}

/// A node with one handle, and the handle.
fn handled() -> (Arc<Node>, crate::CancelHandle) {
    let (ctx, handle) = crate::Context::background().with_cancel();
    (ctx.node().expect("derived").clone(), handle)
}

#[test]
fn child_derived_during_drop_of_the_handle_is_ended() {
    loom::model(|| {
        let (parent, handle) = handled();
        let dropper = thread::spawn(move || drop(handle));
        let child = derive(Some(&parent));
        dropper.join().unwrap();
        assert_eq!(reason(&child), Some(Reason::HandleDropped));
        assert_eq!(parent.children(), 0);
    });
}

#[test]
fn hook_registered_during_drop_of_the_handle_runs_once() {
    loom::model(|| {
        let (node, handle) = handled();
        assert_hook_runs_once(&node, move || drop(handle));
    });
}

#[test]
fn handle_dropped_during_cancel_then_one_of_them_wins() {
    loom::model(|| {
        let (node, handle) = handled();
        let dropper = {
            let node = node.clone();
            thread::spawn(move || {
                drop(handle);
                reason(&node)
            })
        };
        let expected = match end(&node, Reason::Shutdown) {
            true => Reason::Shutdown,
            false => Reason::HandleDropped,
        };
        assert_eq!(reason(&node), Some(expected));
        assert_eq!(dropper.join().unwrap(), Some(expected));
    });
}

#[test]
fn handle_dropped_during_end_of_parent_then_one_reason_and_no_entry() {
    loom::model(|| {
        let parent = derive(None);
        let (ctx, handle) = crate::Context::background()
            .with_node(parent.clone())
            .with_cancel();
        let dropper = thread::spawn(move || drop(handle));
        assert!(end(&parent, Reason::Shutdown));
        let error = ctx.err().expect("ended");
        dropper.join().unwrap();
        let reasons = [Reason::Shutdown, Reason::HandleDropped];
        assert!(reasons.contains(&error.reason()));
        assert_eq!(ctx.err().expect("ended").reason(), error.reason());
        assert_eq!(parent.children(), 0);
    });
}

#[test]
fn asked_during_end_until_ended_then_with_the_reason_of_the_root() {
    loom::model(|| {
        let parent = derive(None);
        let child = derive(Some(&parent));
        let leaf = derive(Some(&child));
        let ender = {
            let parent = parent.clone();
            thread::spawn(move || end(&parent, Reason::Shutdown))
        };
        // Whoever sees a node ended sees why, and those above it ended, too.
        let seen = loop {
            match reason(&leaf) {
                Some(seen) => break seen,
                None => thread::yield_now(),
            }
        };
        assert_eq!(seen, Reason::Shutdown);
        assert_eq!(reason(&child), Some(Reason::Shutdown));
        ender.join().unwrap();
    });
}

#[test]
fn asked_by_two_at_once_then_one_error() {
    loom::model(|| {
        let (parent, handle) = handled();
        let child = derive(Some(&parent));
        drop(handle);
        let other = {
            let parent = parent.clone();
            thread::spawn(move || parent.err().expect("ended"))
        };
        let mine = child.err().expect("ended");
        let theirs = other.join().unwrap();
        assert!(mine == theirs);
    });
}

#[test]
fn leaf_and_middle_ended_during_end_of_root_then_each_says_why() {
    loom::model(|| {
        let root = derive(None);
        let middle = derive(Some(&root));
        let leaf = derive(Some(&middle));
        let ender = {
            let middle = middle.clone();
            thread::spawn(move || end(&middle, Reason::Cancelled))
        };
        assert!(end(&root, Reason::Shutdown));
        let own = ender.join().unwrap();
        let expected = match own {
            true => Reason::Cancelled,
            false => Reason::Shutdown,
        };
        assert_eq!(reason(&leaf), Some(expected));
        assert_eq!(reason(&middle), Some(expected));
    });
}

#[test]
fn waker_registered_in_a_shard_during_the_end_is_told_or_refused() {
    loom::model(|| {
        let node = derive(None);
        node.listeners.make_shards();
        let waiter = {
            let node = node.clone();
            thread::spawn(move || block_on(Done::new(Some(&node))).reason())
        };
        assert!(end(&node, Reason::Cancelled));
        assert_eq!(waiter.join().unwrap(), Reason::Cancelled);
    });
}

#[test]
fn wakers_meet_and_make_shards_during_the_end() {
    loom::model(|| {
        let node = derive(None);
        let waiters = [(); 2].map(|()| {
            let node = node.clone();
            thread::spawn(move || block_on(Done::new(Some(&node))).reason())
        });
        assert!(end(&node, Reason::Cancelled));
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Reason::Cancelled);
        }
    });
}

#[test]
fn shards_made_during_the_end_keep_no_waker() {
    loom::model(|| {
        let node = derive(None);
        let meeting = {
            let node = node.clone();
            thread::spawn(move || {
                let places = [
                    node.listeners.meet(&node.state, Waker::noop().clone()),
                    node.listeners
                        .insert_waker(&node.state, Waker::noop().clone()),
                ];
                places.into_iter().flatten().collect::<Vec<_>>()
            })
        };
        assert!(end(&node, Reason::Cancelled));
        for place in meeting.join().unwrap() {
            assert!(node.listeners.remove(place).is_none());
        }
    });
}

#[test]
fn crowd_made_during_the_end_by_a_child_and_a_waiter() {
    loom::model(|| {
        let node = derive(None);
        let first = derive(Some(&node));
        let waiter = {
            let node = node.clone();
            thread::spawn(move || block_on(Done::new(Some(&node))).reason())
        };
        let deriver = {
            let node = node.clone();
            thread::spawn(move || {
                let child = derive(Some(&node));
                drop(first);
                child
            })
        };
        assert!(end(&node, Reason::Cancelled));
        assert_eq!(waiter.join().unwrap(), Reason::Cancelled);
        assert_eq!(reason(&deriver.join().unwrap()), Some(Reason::Cancelled));
        assert_eq!(node.children(), 0);
    });
}
