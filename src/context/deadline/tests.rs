use std::panic::Location;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Node;
use crate::context::Context;
use crate::context::kind::Owner;
use crate::error::{ContextError, Reason};

#[derive(Default)]
struct Told(AtomicUsize);

impl Owner for Told {
    fn enter_directory(&self) {}

    fn context_ended(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn id(&self) -> u64 {
        0
    }

    fn is_empty(&self) -> bool {
        true
    }

    fn report(&self, _now: tokio::time::Instant) -> Box<dyn std::any::Any> {
        Box::new(())
    }
}

/// A group's node below a deadline, and the group.
fn owned(timeout: Duration) -> (Arc<Told>, Arc<Node>) {
    let timed = Context::background().with_timeout(timeout);
    let told = Arc::new(Told::default());
    let weak: Weak<dyn Owner> = Arc::downgrade(&(told.clone() as Arc<dyn Owner>));
    let node = Node::derive_owned(timed.node(), weak, Location::caller());
    (told, node)
}

fn end_late(node: &Arc<Node>) {
    assert!(!node.end(|| ContextError::at(Reason::Cancelled, Location::caller(), None)));
}

#[tokio::test(start_paused = true)]
async fn deadline_passes_then_the_owner_is_told_once_by_the_timer() {
    let (told, node) = owned(Duration::from_millis(5));
    node.see_to_timer();
    tokio::time::advance(Duration::from_millis(5)).await;
    assert_eq!(told.0.load(Ordering::Relaxed), 1);
    assert!(node.tell_if_overdue());
    end_late(&node);
    assert_eq!(told.0.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn deadline_seen_passed_then_the_owner_is_told_by_who_tells() {
    let ways: [fn(&Arc<Node>); 3] = [
        |node| assert!(node.tell_if_overdue()),
        end_late,
        |node| assert!(!node.finish()),
    ];
    for tell in ways {
        let (told, node) = owned(Duration::from_millis(5));
        assert!(!node.tell_if_overdue());
        tokio::time::advance(Duration::from_millis(5)).await;
        assert!(node.is_done() && node.err().is_some());
        assert!(!node.has_ended(), "asking is pure");
        assert_eq!(told.0.load(Ordering::Relaxed), 0);
        tell(&node);
        assert!(node.has_ended());
        assert_eq!(told.0.load(Ordering::Relaxed), 1);
        let error = node.err().expect("ended");
        assert!(error.is_deadline_exceeded());
    }
}
