//! Sources: streams that are slow, that wake too often, too early or once for many, and sizes that are not true.

use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;

use errgroup::{BoxError, Context, batch, batch_stream};
use futures::stream;
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use crate::batch_support::*;
use crate::group_support::*;
use crate::support::{advance_without_timers, ms};

/// A stream that is polled so often turns for ever.
const ENDLESS: usize = 100_000;

#[test]
fn items_come_one_by_one_then_each_is_run_as_it_comes() {
    for (way, limit) in WAYS
        .into_iter()
        .flat_map(|way| [1, 2, 64].map(|limit| (way, limit)))
    {
        on_current_thread(async move {
            let (feed, stream) = feed();
            let gates = Gates::new(50);
            gates.open_all();
            let run = tokio::spawn(way.run(batch_stream(stream, limit), pass(&gates)));
            for item in 0..50 {
                idle().await;
                assert_eq!(gates.done(), item, "{way:?}");
                feed.send(item);
            }
            idle().await;
            feed.close();
            run.await.unwrap().unwrap();
            assert_eq!(gates.done(), 50);
        });
    }
}

/// All workers wait, and the stream wakes only once.
#[test]
fn many_items_come_at_one_wake_then_all_workers_run() {
    for (way, items) in WAYS
        .into_iter()
        .flat_map(|way| [2, 7, 8].map(|items| (way, items)))
    {
        on_current_thread(async move {
            let (feed, stream) = feed();
            let gates = Gates::new(20);
            (0..8).for_each(|item| feed.put(item));
            let run = tokio::spawn(way.run(batch_stream(stream, 8), pass(&gates)));
            idle().await;
            assert_eq!(gates.started(), 8);
            (0..8).for_each(|gate| gates.open(gate));
            idle().await;
            (8..8 + items).for_each(|item| feed.put(item));
            feed.wake();
            idle().await;
            assert_eq!(gates.started(), 8 + items, "{way:?}");
            gates.open_all();
            feed.close();
            run.await.unwrap().unwrap();
        });
    }
}

/// The one who starts the workers waits, and the stream wakes only once.
#[test]
fn many_first_items_come_at_one_wake_then_all_start() {
    for way in WAYS {
        on_current_thread(async move {
            let (feed, stream) = feed();
            let gates = Gates::new(9);
            let run = tokio::spawn(way.run(batch_stream(stream, 8), pass(&gates)));
            idle().await;
            (0..9).for_each(|item| feed.put(item));
            feed.wake();
            idle().await;
            assert_eq!(gates.started(), 8, "{way:?}");
            gates.open_all();
            feed.close();
            run.await.unwrap().unwrap();
        });
    }
}

#[test]
fn stream_ends_while_all_workers_wait_then_all_end() {
    for way in WAYS {
        on_current_thread(async move {
            let (feed, stream) = feed();
            let gates = Gates::new(4);
            gates.open_all();
            (0..4).for_each(|item| feed.put(item));
            let mut run = Box::pin(way.run(batch_stream(stream, 4), pass(&gates)));
            assert!(poll(&mut run).is_pending());
            idle().await;
            assert_eq!(gates.done(), 4);
            // Makes room in the window of a stream.
            assert!(poll(&mut run).is_pending());
            idle().await;
            feed.close();
            idle().await;
            assert_eq!(
                poll(&mut run).map(Result::unwrap),
                Poll::Ready(()),
                "{way:?}"
            );
            assert_eq!(tasks(), 0);
        });
    }
}

#[test]
fn stream_wakes_for_nothing_then_it_is_polled_once_for_each() {
    for way in WAYS {
        on_current_thread(async move {
            let (feed, stream) = feed();
            let gates = Gates::new(4);
            (0..3).for_each(|item| feed.put(item));
            (0..4).for_each(|gate| gates.open(gate));
            let run = tokio::spawn(way.run(batch_stream(stream, 3), pass(&gates)));
            idle().await;
            let polls = feed.polls();
            for wakes in 1..=20 {
                feed.wake();
                idle().await;
                assert!(feed.polls() <= polls + wakes, "{way:?}");
            }
            feed.send(3);
            idle().await;
            assert_eq!(gates.done(), 4, "{way:?}");
            feed.close();
            run.await.unwrap().unwrap();
        });
    }
}

on_both_runtimes! {
    async fn stream_wakes_while_it_is_polled_then_it_is_polled_again() {
        for way in WAYS {
            let mut polls = 0;
            let stream = stream::poll_fn(move |cx| {
                polls += 1;
                if polls % 3 > 0 {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready((polls < 100).then_some(polls))
            });
            let seen = Tally::default();
            let tally = seen.clone();
            let run = way.run(batch_stream(stream, 3), move |_, _| {
                tally.add();
                async { turns(2).await; Ok::<_, BoxError>(()) }
            });
            run.await.unwrap();
            assert_eq!(seen.get(), 33, "{way:?}");
        }
    }

    async fn items_come_from_another_task_through_a_channel() {
        for way in WAYS {
            let (tell, mut told) = mpsc::channel(4);
            tokio::spawn(async move {
                for item in 0..1_000_usize {
                    tell.send(item).await.unwrap();
                }
            });
            let sum = Tally::default();
            let tally = sum.clone();
            let items = stream::poll_fn(move |cx| told.poll_recv(cx));
            let run = way.run(batch_stream(items, 5), move |_, item| {
                tally.add();
                async move { turns(item % 3).await; Ok::<_, BoxError>(()) }
            });
            run.await.unwrap();
            assert_eq!(sum.get(), 1_000, "{way:?}");
        }
    }

    async fn stream_that_cannot_be_moved() {
        let items = stream::unfold(0, |item| async move {
            turns(item % 3).await;
            (item < 50).then_some((item, item + 1))
        });
        let run = batch_stream(items, 4).map(|_, item| async move { Ok::<_, BoxError>(item) });
        assert!(run.await.unwrap().into_iter().eq(0..50));
    }
}

#[test]
fn items_come_from_a_thread_while_workers_park_then_none_is_missed() {
    // A paused clock would not wait for a thread.
    let here = Builder::new_current_thread().enable_all().build().unwrap();
    let there = multi_thread();
    for (way, runtime) in WAYS
        .into_iter()
        .flat_map(|way| [&here, &there].map(|runtime| (way, runtime)))
    {
        let (feed, items) = feed();
        let feeder = thread::spawn(move || {
            for item in 0..2_000 {
                // Sometimes several at one wake.
                feed.put(item);
                if item % 7 < 4 {
                    feed.wake();
                }
            }
            feed.close();
        });
        let seen = Tally::default();
        let tally = seen.clone();
        runtime.block_on(patiently(async {
            let run = way.run(batch_stream(items, 3), move |_, _| {
                tally.add();
                std::future::ready(Ok::<_, BoxError>(()))
            });
            run.await.unwrap();
        }));
        feeder.join().unwrap();
        assert_eq!(seen.get(), 2_000, "{way:?}");
    }
}

/// A stream that wakes itself until another task of the same thread has done its part.
#[test]
fn stream_wakes_itself_until_another_task_has_run_then_that_one_gets_its_turn() {
    for way in WAYS {
        on_current_thread(async move {
            let ready = Tally::default();
            let tally = ready.clone();
            let mut polls = 0;
            let stream = stream::poll_fn(move |cx| {
                polls += 1;
                assert!(polls < ENDLESS, "nobody else runs");
                if ready.get() == 0 {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready((ready.add() < 5).then_some(()))
            });
            let run = tokio::spawn(way.run(batch_stream(stream, 3), |_, ()| async {
                Ok::<_, BoxError>(())
            }));
            idle().await;
            tally.add();
            run.await.unwrap().unwrap();
        });
    }
}

/// Nor does it keep the end of the context away.
#[test]
fn stream_wakes_itself_for_ever_then_a_deadline_ends_the_batch() {
    for way in WAYS {
        on_current_thread(async move {
            let ctx = Context::background().with_timeout(ms(40));
            let mut polls = 0;
            let stream = stream::poll_fn(move |cx| {
                polls += 1;
                assert!(polls < ENDLESS, "nobody else runs");
                advance_without_timers(ms(1));
                cx.waker().wake_by_ref();
                Poll::<Option<()>>::Pending
            });
            let run = way.run(batch_stream(stream, 3).context(&ctx), |_, ()| pend());
            let end = run.await.unwrap_err();
            assert!(
                end.to_string().starts_with("deadline exceeded"),
                "{way:?}: {end}"
            );
        });
    }
}

/// A future that lets a stranger keep its waker, as a timer or a channel may, and ends.
async fn leave_waker(place: Arc<Mutex<Vec<Waker>>>) {
    std::future::poll_fn(|cx| {
        place.lock().unwrap().push(cx.waker().clone());
        Poll::Ready(())
    })
    .await;
}

/// Two workers wait, the first of them was woken by what its last item has left behind; then two items come at one wake.
#[test]
fn waker_left_by_an_item_is_woken_while_its_worker_waits_then_no_worker_is_forgotten() {
    for way in [Way::Map, Way::ForEach] {
        for woken in 0..2 {
            on_current_thread(async move {
                let (feed, stream) = feed();
                let gates = Gates::new(4);
                let wakers: [Arc<Mutex<Vec<Waker>>>; 2] = Default::default();
                let run = tokio::spawn(way.run(batch_stream(stream, 2), {
                    let (gates, wakers) = (gates.clone(), wakers.clone());
                    move |_, item| {
                        let (pass, wakers) = (gates.clone().pass(item), wakers.clone());
                        async move {
                            if item < 2 {
                                leave_waker(wakers[item].clone()).await;
                            }
                            pass.await
                        }
                    }
                }));
                (0..2).for_each(|item| feed.put(item));
                (0..2).for_each(|gate| gates.open(gate));
                idle().await;
                feed.wake();
                idle().await;
                assert_eq!(gates.done(), 2);

                for _ in 0..3 {
                    wakers[woken].lock().unwrap()[0].wake_by_ref();
                    idle().await;
                }
                (2..4).for_each(|item| feed.put(item));
                feed.wake();
                idle().await;
                assert_eq!(gates.started(), 4, "{way:?}, {woken}");
                gates.open_all();
                feed.close();
                run.await.unwrap().unwrap();
            });
        }
    }
}

/// How many items are left is a hint, and may be wrong.
struct Lying<I>(I, (usize, Option<usize>));

impl<I: Iterator> Iterator for Lying<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.1
    }
}

#[test]
fn size_hint_lies_then_all_items_are_run_all_the_same() {
    let hints = [
        (0, None),
        (usize::MAX, None),
        (usize::MAX, Some(usize::MAX)),
        (5, Some(1)),
    ];
    for (way, hint) in WAYS
        .into_iter()
        .flat_map(|way| hints.map(|hint| (way, hint)))
    {
        on_current_thread(async move {
            let seen = Tally::default();
            let tally = seen.clone();
            let run = way.run(batch(Lying(0..20, hint), 3), move |_, _| {
                tally.add();
                std::future::ready(Ok::<_, BoxError>(()))
            });
            run.await.unwrap();
            assert_eq!(seen.get(), 20, "{way:?} {hint:?}");
        });
    }
}

#[test]
fn stream_is_woken_after_the_batch_is_over_then_nothing_happens() {
    for way in WAYS {
        on_current_thread(async move {
            let (feed, stream) = feed();
            feed.put(0);
            let run = tokio::spawn(way.run(batch_stream(stream, 3), |_, _| async {
                turns(5).await;
                fail("boom").await
            }));
            assert_eq!(run.await.unwrap().unwrap_err().to_string(), "boom");
            let polls = feed.polls();
            feed.send(1);
            idle().await;
            assert_eq!((feed.polls(), tasks()), (polls, 0), "{way:?}");
        });
    }
}

/// `Some(0)` is believed where it spares a worker; what is left then is nobody's, but nothing hangs.
#[test]
fn size_hint_denies_items_then_the_batch_ends_well() {
    for way in WAYS {
        on_current_thread(async move {
            let seen = Tally::default();
            let tally = seen.clone();
            let items = Lying(0..20, (0, Some(0)));
            let run = way.run(batch(items, 3), move |_, _| {
                tally.add();
                std::future::ready(Ok::<_, BoxError>(()))
            });
            run.await.unwrap();
            assert!(seen.get() <= 20, "{way:?}");
            assert_eq!(tasks(), 0);
        });
    }
}
