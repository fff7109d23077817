use std::future::Future;
use std::panic::Location;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context as TaskContext, Wake, Waker};
use std::thread;

use crate::context::done::Done;
use crate::context::hook::OnDone;
use crate::context::node::Node;
use crate::error::{ContextError, Reason};

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn node() -> Arc<Node> {
    Node::derive(None, 0, Location::caller())
}

fn end(node: &Arc<Node>) {
    assert!(node.end(|| ContextError::at(Reason::Cancelled, Location::caller(), None)));
}

/// How many wakers are registered.
fn len(node: &Node) -> (usize, usize) {
    let crowd = node.listeners.crowd();
    let sharded = node.listeners.shards().map_or(0, |shards| shards.len());
    (crowd.members.lock().waiters.len(), sharded)
}

#[test]
fn shards_made_while_wakers_are_registered_then_each_is_told_once_wherever_it_is() {
    let node = node();
    let counts: [Arc<Count>; 4] = Default::default();
    let wakers = counts.clone().map(Waker::from);
    let mut dones = [(); 4].map(|()| Done::new(Some(&node)));
    let mut poll = |place: usize, waker: usize| {
        let mut cx = TaskContext::from_waker(&wakers[waker]);
        pin!(&mut dones[place]).poll(&mut cx).is_pending()
    };
    assert!(poll(0, 0) && poll(1, 1));
    node.listeners.make_shards();
    assert!(poll(2, 2) && poll(3, 2));
    assert_eq!(len(&node), (2, 2));
    // Replaced where they are.
    assert!(poll(1, 0) && poll(3, 3));
    assert_eq!(len(&node), (2, 2));
    end(&node);
    let told = counts
        .each_ref()
        .map(|count| count.0.load(Ordering::SeqCst));
    assert_eq!(told, [2, 0, 1, 1]);
    assert_eq!(len(&node), (0, 0));
    assert!(dones.iter().all(|done| done.ended().is_some()));
}

#[test]
fn dropped_from_a_shard_then_it_is_not_told() {
    let node = node();
    node.listeners.make_shards();
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut done = Done::new(Some(&node));
    assert!(
        pin!(&mut done)
            .poll(&mut TaskContext::from_waker(&waker))
            .is_pending()
    );
    drop(done);
    assert_eq!(len(&node), (0, 0));
    end(&node);
    assert_eq!(count.0.load(Ordering::SeqCst), 0);
    // An ended node refuses.
    let mut done = Done::new(Some(&node));
    assert!(
        pin!(&mut done)
            .poll(&mut TaskContext::from_waker(&waker))
            .is_ready()
    );
    assert_eq!(len(&node), (0, 0));
}

#[test]
fn node_with_shards_then_children_and_callbacks_are_told_in_order() {
    let node = node();
    node.listeners.make_shards();
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |name: usize| {
        let order = order.clone();
        Box::new(move |_: &ContextError| order.lock().unwrap().push(name))
    };
    let mine = OnDone::new(Some(&node), note(0));
    let children = [(); 3].map(|()| Node::derive(Some(&node), 0, Location::caller()));
    let theirs: Vec<_> = (1..)
        .zip(&children)
        .map(|(n, child)| OnDone::new(Some(child), note(n)))
        .collect();
    end(&node);
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3]);
    drop((mine, theirs));
}

#[test]
fn dropped_with_wakers_in_shards_then_they_are_dropped_and_not_woken() {
    let node = node();
    node.listeners.make_shards();
    let count = Arc::new(Count::default());
    assert!(
        node.listeners
            .insert_waker(&node.state, count.clone().into())
            .is_some()
    );
    assert_eq!(Arc::strong_count(&count), 2);
    drop(node);
    assert_eq!(Arc::strong_count(&count), 1);
    assert_eq!(count.0.load(Ordering::SeqCst), 0);
}

/// Threads that meet at one node make its shards, and whoever waits at the end is told.
#[test]
fn eight_threads_wait_for_one_node_until_it_ends() {
    let (node, start) = (node(), Barrier::new(9));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                let waker = Waker::from(Arc::new(Count::default()));
                let mut cx = TaskContext::from_waker(&waker);
                let mut kept = Done::new(Some(&node));
                while !is_over.load(Ordering::SeqCst) {
                    let is_ready = pin!(&mut kept).poll(&mut cx).is_ready();
                    let again = pin!(Done::new(Some(&node))).poll(&mut cx);
                    assert!(!is_ready || again.is_ready());
                }
                let polled = pin!(&mut kept).poll(&mut cx);
                assert!(polled.is_ready());
            });
        }
        start.wait();
        // Until they have met often enough; on one processor that takes a while.
        for _ in 0..2_000 {
            if node.listeners.shards().is_some() {
                break;
            }
            thread::yield_now();
        }
        end(&node);
        is_over.store(true, Ordering::SeqCst);
    });
    assert_eq!(len(&node), (0, 0));
}
