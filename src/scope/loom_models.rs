//! The races of a scope: who spawns against a scope that rests, who aborts against a task that is about to wait or to end.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use loom::thread;

use super::queue::Queue;
use crate::error::{ContextError, Reason};
use crate::sync::model::{block_on, poll_once};
use crate::task::{ResultCell, Task, TaskId};

/// What a scope does with its queue.
async fn receive(queue: &Queue<u32>, n: usize) -> Vec<u32> {
    let (mut received, mut taken) = (Vec::new(), Vec::new());
    poll_fn(move |cx| {
        queue.begin();
        loop {
            queue.take(&mut taken);
            received.append(&mut taken);
            if received.len() == n {
                return Poll::Ready(std::mem::take(&mut received));
            }
            if queue.rest(cx.waker()) {
                return Poll::Pending;
            }
        }
    })
    .await
}

#[test]
fn spawned_during_rest_then_the_scope_is_woken() {
    loom::model(|| {
        let queue = Arc::new(Queue::new());
        let spawner = queue.clone();
        let spawner = thread::spawn(move || {
            spawner.push(1).unwrap();
            spawner.push(2).unwrap();
        });
        assert_eq!(block_on(receive(&queue, 2)), [1, 2]);
        spawner.join().unwrap();
    });
}

#[test]
fn spawned_by_two_threads_then_all_is_received() {
    loom::model(|| {
        let queue = Arc::new(Queue::new());
        let spawners = [1, 2].map(|n| {
            let queue = queue.clone();
            thread::spawn(move || queue.push(n).unwrap())
        });
        let mut received = block_on(receive(&queue, 2));
        received.sort_unstable();
        assert_eq!(received, [1, 2]);
        for spawner in spawners {
            spawner.join().unwrap();
        }
    });
}

#[test]
fn spawned_during_close_then_handed_out_or_given_back() {
    loom::model(|| {
        let queue = Arc::new(Queue::new());
        let spawner = queue.clone();
        let spawner = thread::spawn(move || spawner.push(1));
        let late = queue.close();
        let pushed = spawner.join().unwrap();
        assert_eq!(late.is_empty(), pushed.is_err());
        assert!(queue.push(2).is_err());
    });
}

/// A task that waits for ever, and its abort.
async fn wait_for_abort(cell: &ResultCell<u32>) {
    let mut has_left_waker = false;
    poll_fn(move |cx| {
        loop {
            if cell.is_aborted() {
                return Poll::Ready(());
            }
            if has_left_waker || cell.may_wait(cx.waker()) {
                has_left_waker = true;
                return Poll::Pending;
            }
        }
    })
    .await;
}

#[test]
fn aborted_while_the_task_leaves_its_waker_then_it_sees_that() {
    loom::model(|| {
        let cell = Arc::new(ResultCell::<u32>::new());
        let task = Task::scoped(TaskId(1), cell.clone());
        let owner = thread::spawn(move || task.abort());
        block_on(wait_for_abort(&cell));
        owner.join().unwrap();
    });
}

#[test]
fn aborted_by_handle_and_task_at_once_then_the_task_sees_that() {
    loom::model(|| {
        let cell = Arc::new(ResultCell::<u32>::new());
        let task = Task::scoped(TaskId(1), cell.clone());
        let handle = task.abort_handle();
        let owner = thread::spawn(move || task.abort());
        let other = thread::spawn(move || handle.abort());
        block_on(wait_for_abort(&cell));
        owner.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn abort_handle_is_made_during_the_end_then_it_knows() {
    loom::model(|| {
        let cell = Arc::new(ResultCell::new());
        let task = Task::scoped(TaskId(1), cell.clone());
        let owner = thread::spawn(move || {
            let handle = task.abort_handle();
            handle.abort();
            (task, handle)
        });
        cell.finish(Ok(7));
        let (task, handle) = owner.join().unwrap();
        assert!(handle.is_finished());
        assert_eq!(block_on(task).unwrap(), 7);
    });
}

#[test]
fn finished_during_the_handles_poll_then_it_is_woken() {
    loom::model(|| {
        let cell = Arc::new(ResultCell::new());
        let task = Task::scoped(TaskId(1), cell.clone());
        let runner = thread::spawn(move || cell.finish(Ok(7)));
        assert_eq!(block_on(task).unwrap(), 7);
        runner.join().unwrap();
    });
}

/// Told so that each value that is dropped is counted once.
#[test]
fn handle_dropped_during_the_end_then_the_value_is_dropped_once() {
    loom::model(|| {
        let value = Arc::new(());
        let cell = Arc::new(ResultCell::new());
        let task = Task::scoped(TaskId(1), cell.clone());
        let kept = value.clone();
        let runner = thread::spawn(move || {
            cell.finish(Ok(kept));
            cell
        });
        drop(task);
        let cell = runner.join().unwrap();
        assert_eq!(Arc::strong_count(&value), 1);
        drop(cell);
    });
}

#[test]
fn polled_before_its_end_then_pending() {
    loom::model(|| {
        let cell = Arc::new(ResultCell::<u32>::new());
        let mut task = Task::scoped(TaskId(1), cell.clone());
        assert!(poll_once(&mut task).is_pending());
        let end = ContextError::detailed(Reason::RuntimeGone, "");
        cell.finish(Err(end.clone()));
        assert_eq!(block_on(task).unwrap_err(), end);
    });
}
