//! C6 and G19 of batches: foreign code that comes back, blocks, or panics where it is dropped.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use errgroup::{BoxError, Context, batch, batch_stream};
use futures::{FutureExt, Stream, stream};
use tokio::sync::Semaphore;

use crate::batch_support::*;
use crate::group_support::*;
use crate::support::{Log, panic_text};

type Shared<T> = Arc<Mutex<Pin<Box<dyn Stream<Item = Result<T, BoxError>> + Send>>>>;

on_both_runtimes! {
    /// The callback runs inside the source, which nobody else may be locked out of meanwhile.
    async fn source_ends_the_context_and_a_callback_polls_the_results_then_nothing_hangs() {
        for at in [0, 1, 5] {
            let (parent, handle) = Context::background().with_cancel();
            let items = (0..20).inspect(move |&item| {
                if item == at {
                    handle.cancel_with("enough");
                }
            });
            let batch = batch(items, 2).context(&parent);
            let results = batch.map_stream(|_, item| async move { Ok::<_, BoxError>(item) });
            let results: Shared<usize> = Arc::new(Mutex::new(Box::pin(results)));
            let (shared, polled) = (results.clone(), Tally::default());
            let tally = polled.clone();
            parent.on_done(move |_| {
                let mut cx = TaskContext::from_waker(Waker::noop());
                let _ = shared.lock().unwrap().as_mut().poll_next(&mut cx);
                tally.add();
            }).detach();
            // The callback leaves a waker of its own.
            let mut end = None;
            loop {
                let polled = take(&mut results.lock().unwrap());
                match polled {
                    Some(Some(result)) => end = result.err(),
                    Some(None) => break,
                    None => tokio::task::yield_now().await,
                }
            }
            // Else the callback was given it.
            if let Some(end) = end {
                assert!(end.to_string().contains("enough"), "{end}");
            }
            assert_eq!(polled.get(), 1);
        }
    }

    async fn source_ends_the_context_of_a_batch_then_the_error_says_why() {
        for way in WAYS {
            let (parent, handle) = Context::background().with_cancel();
            let items = (0..20).inspect(move |&item| {
                if item == 7 {
                    handle.cancel_with("enough");
                }
            });
            let run = way.run(batch(items, 4).context(&parent), |_, _| async { Ok::<_, BoxError>(()) });
            assert!(run.await.unwrap_err().to_string().contains("enough"), "{way:?}");
        }
    }

    /// Each of them finds permits: that tokio makes it wait now and then is no reason to start others.
    async fn items_use_up_the_budget_of_tokio_then_few_are_started_at_once() {
        for way in WAYS {
            let permits = Arc::new(Semaphore::new(1_000_000));
            let (inside, most) = (Arc::<Gauge>::default(), Log::new());
            let (gauge, log) = (inside.clone(), most.clone());
            let run = way.run(batch(0..20_000, 1_024), move |_, _| {
                log.push(tasks());
                let (gauge, permits) = (gauge.clone(), permits.clone());
                async move {
                    let _inside = gauge.enter();
                    for _ in 0..3 {
                        drop(permits.acquire().await?);
                    }
                    Ok::<_, BoxError>(())
                }
            });
            tokio::spawn(run).await.unwrap().unwrap();
            assert!(inside.peak() <= 4, "{way:?}: {} at once", inside.peak());
            // The last way's may not be gone.
            assert!(most.take().into_iter().all(|tasks| tasks <= 6), "{way:?}");
        }
    }
}

/// The source gives out an item when all before it have run: on one thread nobody could run them.
#[test]
fn source_blocks_until_the_items_it_gave_out_have_run_then_another_thread_runs_them() {
    for (way, step) in WAYS
        .into_iter()
        .flat_map(|way| [1, 10, 37].map(|step| (way, step)))
    {
        on_multi_thread(async move {
            let done = Tally::default();
            let seen = done.clone();
            let items = (0..400_usize).inspect(move |item| {
                let start = Instant::now();
                while item % step == step - 1 && seen.get() < *item {
                    assert!(
                        start.elapsed() < Duration::from_secs(20),
                        "nobody runs them"
                    );
                    thread::yield_now();
                }
            });
            let run = way.run(batch(items, 64), move |_, item| {
                let done = done.clone();
                async move {
                    turns(item % 2).await;
                    done.add();
                    Ok::<_, BoxError>(())
                }
            });
            run.await.unwrap();
        });
    }
}

/// Whoever holds the future polls it once, and then does something else.
#[test]
fn caller_does_not_poll_then_another_thread_runs_the_items() {
    for way in WAYS {
        on_multi_thread(async move {
            let gates = Gates::new(50);
            gates.open_all();
            let mut run = Box::pin(way.run(batch(0..50, 8), pass(&gates)));
            let _ = poll(&mut run);
            // Of the stream at least: what that poll has yielded makes room for more.
            let done = if way == Way::Stream { 8 } else { 50 };
            until(|| gates.done() >= done).await;
            run.await.unwrap();
        });
    }
}

/// Wakes an item of the batch when it is dropped.
struct WakesInDrop(Arc<Mutex<Option<Waker>>>);

impl Wake for WakesInDrop {
    fn wake(self: Arc<Self>) {}
}

impl Drop for WakesInDrop {
    fn drop(&mut self) {
        let waker = self.0.lock().unwrap().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[test]
fn waker_that_an_idle_caller_has_left_wakes_an_item_in_its_drop_then_nothing_hangs() {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let runtime = current_thread();
        let _entered = runtime.enter();
        let left = Arc::new(Mutex::new(None));
        let leave = left.clone();
        let mut job = Box::pin(batch(0..1, 1).for_each(move |_, _| {
            let leave = leave.clone();
            poll_fn(move |cx| {
                *leave.lock().unwrap() = Some(cx.waker().clone());
                Poll::<Unit>::Pending
            })
        }));
        let first = Waker::from(Arc::new(WakesInDrop(left)));
        let mut poll = |waker: &Waker| job.as_mut().poll(&mut TaskContext::from_waker(waker));
        assert!(poll(&first).is_pending());
        drop(first);
        // The batch has the last, and drops it now.
        assert!(poll(Waker::noop()).is_pending());
        tell.send(()).unwrap();
    });
    assert_eq!(
        told.recv_timeout(Duration::from_secs(60)),
        Ok(()),
        "it hangs"
    );
}

#[test]
fn source_says_that_it_has_one_item_then_no_task_is_started_to_help() {
    for way in WAYS {
        on_multi_thread(async move {
            let most = Log::new();
            let log = most.clone();
            let run = way.run(batch([()], 64), move |_, ()| {
                let log = log.clone();
                async move {
                    turns(100).await;
                    log.push(tasks());
                    Ok::<_, BoxError>(())
                }
            });
            run.await.unwrap();
            let own = usize::from(way == Way::Stream);
            assert_eq!(most.take(), [own], "{way:?}");
        });
    }
}

#[test]
fn limit_of_zero_panics_and_says_what_to_do() {
    for text in [
        panic_text(|| drop(batch(0..3, 0))),
        panic_text(|| drop(batch_stream(stream::empty::<()>(), 0))),
    ] {
        assert!(
            text.contains("limit of 0") && text.contains("1 or more"),
            "{text}"
        );
    }
}

/// A value whose destructor panics.
type Bomb = OnDrop<fn()>;

fn bomb() -> Bomb {
    OnDrop::new(|| quiet_panic("bomb"))
}

type Case = (&'static str, fn(Way));

/// What is dropped although it must not be, several at a time.
const BOMBS: [Case; 8] = [
    ("results of a batch that fails", |way| {
        let run = async move {
            match way {
                Way::Stream => {
                    let results = batch(0..9, 9).map_stream(bombs_then_fail);
                    exhaust_bombs(results).await
                }
                _ => batch(0..9, 9).map(bombs_then_fail).await.map(|_| ()),
            }
        };
        assert_eq!(on_current_thread(run).unwrap_err().to_string(), "boom");
    }),
    ("items that wait, of a batch that fails", |way| {
        let run = way.run(batch(0..9, 9), |_, item| async move {
            turns(2).await;
            match item {
                8 => fail("boom").await,
                _ => holding(bomb(), pend()).await,
            }
        });
        assert_eq!(on_current_thread(panic_of(run)), "bomb");
    }),
    ("items that were pulled, of a batch that fails", |way| {
        let items = (0..200).map(|item| (item, (item > 150).then(bomb)));
        let run = way.run(batch(items, 64), |_, (item, bomb)| async move {
            std::mem::forget(bomb);
            match item {
                149 => fail("boom").await,
                _ => Ok(()),
            }
        });
        let end = on_current_thread(AssertUnwindSafe(run).catch_unwind());
        assert!(!matches!(end, Ok(Ok(()))));
    }),
    (
        "the source and the function of a batch that succeeds",
        |way| {
            let (source, function) = (bomb(), bomb());
            let items = (0..9).inspect(move |_| {
                let _ = &source;
            });
            let run = way.run(batch(items, 4), move |_, _| {
                let _ = &function;
                std::future::ready(Ok::<_, BoxError>(()))
            });
            on_current_thread(run).unwrap();
        },
    ),
    ("everything, of a batch that panics", |way| {
        let run = everything(way, || quiet_panic("boom"));
        assert_eq!(on_current_thread(panic_of(run)), "boom");
    }),
    ("everything, of a batch whose future is dropped", |way| {
        on_current_thread(async move {
            let mut run = Box::pin(everything(way, || ()));
            assert!(poll(&mut run).is_pending());
            idle().await;
            drop(run);
            idle().await;
            assert_eq!(tasks(), 0);
        });
    }),
    ("everything, while another panic unwinds", |way| {
        let payload = on_current_thread(async move {
            let mut run = Box::pin(everything(way, || ()));
            assert!(poll(&mut run).is_pending());
            idle().await;
            let unwound = catch_unwind(AssertUnwindSafe(move || {
                let _run = run;
                quiet_panic("the first")
            }));
            idle().await;
            unwound.unwrap_err()
        });
        assert_eq!(payload.downcast_ref(), Some(&"the first"));
    }),
    ("everything, on two threads", |way| {
        for _ in 0..20 {
            let run = everything(way, || quiet_panic("boom"));
            let text = on_multi_thread(panic_of(run));
            assert!(["boom", "bomb"].contains(&text));
        }
    }),
];

async fn bombs_then_fail(_ctx: Context, item: usize) -> Result<Bomb, BoxError> {
    match item {
        0 => {
            turns(5).await;
            Err("boom".into())
        }
        _ => Ok(bomb()),
    }
}

async fn exhaust_bombs(results: impl Stream<Item = Result<Bomb, BoxError>>) -> Unit {
    let mut results = std::pin::pin!(results);
    while let Some(result) = futures::StreamExt::next(&mut results).await {
        std::mem::forget(result?);
    }
    Ok(())
}

/// A batch whose items, results, source and function are bombs. One of the last calls `last`.
async fn everything(way: Way, last: fn()) -> Unit {
    let (source, function) = (bomb(), bomb());
    let items = (0..40_usize).map(move |item| {
        let _ = &source;
        (item, bomb())
    });
    let f = move |_: Context, (item, item_bomb)| {
        let _ = &function;
        async move {
            turns(item % 3).await;
            match item {
                0..20 => {
                    std::mem::forget(item_bomb);
                    Ok::<_, BoxError>(bomb())
                }
                39 => {
                    std::mem::forget(item_bomb);
                    last();
                    pend().await.map(|()| bomb())
                }
                _ => holding(item_bomb, pend()).await.map(|()| bomb()),
            }
        }
    };
    match way {
        Way::Stream => exhaust_bombs(batch(items, 40).map_stream(f)).await,
        _ => batch(items, 40).map(f).await.map(|_| ()),
    }
}

/// Each in a process of its own, which an abort ends.
#[test]
fn g19_destructors_panic_then_nothing_hangs_and_nothing_aborts() {
    const CHILD: &str = "ERRGROUP_TEST_BATCH_BOMBS";
    let cases: Vec<_> = WAYS
        .into_iter()
        .flat_map(|way| BOMBS.map(|(name, run)| (way, name, run)))
        .collect();
    if let Ok(case) = std::env::var(CHILD) {
        let (way, _, run) = cases[case.parse::<usize>().unwrap()];
        return run(way);
    }
    let name = thread::current().name().unwrap().to_owned();
    for (case, (way, what, _)) in cases.into_iter().enumerate() {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", &name]).env(CHILD, case.to_string());
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{way:?}, {what}: {}\n{text}",
            output.status
        );
    }
}
