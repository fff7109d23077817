//! G1, G2, G3, G5 of batches: the first error or panic, of an item or of the source, ends it all and reaches the caller.

use std::future::Future;
use std::panic::{panic_any, resume_unwind};
use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;
use std::thread::{self, ThreadId};
use std::time::Duration;

use errgroup::{BoxError, Context, Reason, batch, batch_stream};
use futures::stream;

use crate::batch_support::*;
use crate::group_support::*;
use crate::support::Log;

/// The items before `failing` end well, those after it wait for ever; who is inside is counted.
fn fails_at(
    failing: usize,
    inside: &Arc<Gauge>,
) -> impl Fn(Context, usize) -> Pin<Box<dyn Future<Output = Unit> + Send>> + Send + Sync + use<> {
    let inside = inside.clone();
    move |_, item| {
        let inside = inside.clone();
        Box::pin(async move {
            let _inside = inside.enter();
            match item {
                _ if item < failing => Ok(()),
                _ if item == failing => fail("boom").await,
                _ => pend().await,
            }
        })
    }
}

on_both_runtimes! {
    async fn g1_item_fails_then_no_more_are_pulled_and_the_rest_is_cut_short() {
        for (way, at) in WAYS.into_iter().flat_map(|way| [0, 1, 10].map(|at| (way, at))) {
            let (items, pulled) = counted(1_000);
            let inside = Arc::default();
            let end = way.run(batch(items, 4), fails_at(at, &inside)).await;
            assert_eq!(inside.now(), 0, "{way:?} {at}");
            assert_eq!(end.unwrap_err().to_string(), "boom", "{way:?} {at}");
            assert!(pulled.get() <= at + 4, "{way:?} {at}: {} pulled", pulled.get());
        }
    }

    /// The items that are cut short, and the source with those that were never pulled, are gone before the caller goes on.
    async fn g3_item_fails_then_everything_is_dropped_before_the_caller_goes_on() {
        for way in WAYS {
            let alive = Arc::new(());
            let count = alive.clone();
            let items = (0..50).map(move |item| (item, count.clone()));
            let end = way.run(batch(items, 4), |_, (item, alive)| async move {
                turns(3).await;
                if item == 5 { fail("boom").await } else { holding(alive, pend_after(item)).await }
            });
            end.await.unwrap_err();
            assert_eq!(Arc::strong_count(&alive), 1, "{way:?}");
        }
    }

    async fn g3_last_item_ends_then_everything_is_dropped_before_the_caller_goes_on() {
        for way in WAYS {
            let alive = Arc::new(());
            let count = alive.clone();
            let items = (0..50).map(move |item| (item, count.clone()));
            let end = way.run(batch(items, 4), |_, item| async move {
                turns(item.0 % 3).await;
                Ok::<_, BoxError>(())
            });
            end.await.unwrap();
            assert_eq!(Arc::strong_count(&alive), 1, "{way:?}");
        }
    }

    async fn source_fails_then_the_batch_fails_with_its_error() {
        for way in WAYS {
            let pulled = Tally::default();
            let tally = pulled.clone();
            let rows = stream::iter((0..100).map(move |row| {
                tally.add();
                if row == 10 { Err("connection lost") } else { Ok(row) }
            }));
            let end = way.run(batch_stream(rows, 2), |_, row| async move {
                if row? > 10 { pend().await } else { Ok::<_, BoxError>(()) }
            });
            assert_eq!(end.await.unwrap_err().to_string(), "connection lost");
            assert!(pulled.get() <= 10 + 2, "{way:?}");
        }
    }

    async fn g5_code_of_the_batch_panics_then_the_caller_has_the_panic_and_all_is_over() {
        for (way, (name, run)) in WAYS.into_iter().flat_map(|way| PANICS.map(|case| (way, case))) {
            let inside = Arc::<Gauge>::default();
            assert_eq!(panic_of(run(way, inside.clone())).await, "boom", "{way:?} {name}");
            assert_eq!(inside.now(), 0, "{way:?} {name}");
        }
    }

    async fn g5_payload_is_the_original_one() {
        #[derive(PartialEq)]
        struct Custom(u32);
        fn panic_with_it() -> Unit {
            resume_unwind(Box::new(Custom(7)))
        }
        for way in WAYS {
            let run = way.run(batch(0..10, 2), |_, _| async {
                panic_with_it()
            });
            assert!(payload_of(run).await.downcast_ref() == Some(&Custom(7)), "{way:?}");
        }
    }

    /// The second worker stands at the source while the first panics in it.
    async fn source_panics_while_another_worker_waits_for_it_then_it_is_never_polled_again() {
        for _ in 0..20 {
            let polls = Tally::default();
            let tally = polls.clone();
            let is_near = Arc::new(AtomicBool::new(false));
            let near = is_near.clone();
            let items = std::iter::from_fn(move || match tally.add() {
                poll @ (0 | 1) => Some(poll),
                2 => {
                    // On one thread the other worker is not coming.
                    for _ in 0..10_000 {
                        if near.load(Ordering::SeqCst) {
                            break;
                        }
                        thread::yield_now();
                    }
                    (0..100).for_each(|_| thread::yield_now());
                    quiet_panic("boom")
                }
                _ => panic_any("polled again"),
            });
            let run = batch(items, 2).for_each(move |_, item| {
                let is_near = is_near.clone();
                async move {
                    is_near.store(item == 1, Ordering::SeqCst);
                    Ok::<_, BoxError>(())
                }
            });
            assert_eq!(panic_of(run).await, "boom");
            assert_eq!(polls.get(), 3);
        }
    }
}

async fn pend_after(item: usize) -> Unit {
    if item < 5 { Ok(()) } else { pend().await }
}

type Run = fn(Way, Arc<Gauge>) -> Pin<Box<dyn Future<Output = Unit> + Send>>;

/// Every place where foreign code can panic with `"boom"`.
const PANICS: [(&str, Run); 8] = [
    ("in the call of the function", |way, inside| {
        Box::pin(way.run(batch(0..100, 4), move |_, item| {
            if item == 10 {
                quiet_panic("boom")
            }
            wait_from_11(item, &inside)
        }))
    }),
    ("in its future", |way, inside| {
        Box::pin(way.run(batch(0..100, 4), move |_, item| {
            let rest = wait_from_11(item, &inside);
            async move {
                match item {
                    10 => panics("boom").await,
                    _ => rest.await,
                }
            }
        }))
    }),
    ("in the first item of all", |way, inside| {
        Box::pin(way.run(batch(0..100, 4), move |_, item| {
            if item == 0 {
                quiet_panic("boom")
            }
            wait_from_11(item, &inside)
        }))
    }),
    ("in the drop of an item that has ended", |way, inside| {
        let items = (0..100).map(|item| (item, (item == 10).then(bomb)));
        Box::pin(way.run(batch(items, 4), move |_, (item, bomb)| {
            holding(bomb, wait_from_11(item, &inside))
        }))
    }),
    ("in the drop of an item that is cut short", |way, inside| {
        let items = (0..100).map(|item| (item, (item == 9).then(bomb)));
        Box::pin(way.run(batch(items, 4), move |_, (item, bomb)| {
            let rest = wait_from_11(item, &inside);
            holding(bomb, async move {
                match item {
                    9 => pend().await,
                    // Outranked by the panic.
                    10 => fail("not this").await,
                    _ => rest.await,
                }
            })
        }))
    }),
    ("in the iterator", |way, inside| {
        let items = (0..100).inspect(|&item| {
            if item == 12 {
                quiet_panic("boom")
            }
        });
        Box::pin(way.run(batch(items, 4), move |_, item| wait_from_11(item, &inside)))
    }),
    ("in the stream, before its first item", |way, inside| {
        let stream = stream::poll_fn(|_| -> Poll<Option<usize>> { quiet_panic("boom") });
        Box::pin(way.run(batch_stream(stream, 4), move |_, item| {
            wait_from_11(item, &inside)
        }))
    }),
    ("in the stream, when it is woken", |way, inside| {
        let mut polls = 0;
        let stream = stream::poll_fn(move |cx| {
            polls += 1;
            match polls {
                ..4 => Poll::Ready(Some(polls + 11)),
                4..8 => {
                    let waker = cx.waker().clone();
                    tokio::spawn(async move { waker.wake() });
                    Poll::Pending
                }
                _ => quiet_panic("boom"),
            }
        });
        Box::pin(way.run(batch_stream(stream, 4), move |_, item| {
            wait_from_11(item, &inside)
        }))
    }),
];

fn wait_from_11(item: usize, inside: &Arc<Gauge>) -> impl Future<Output = Unit> + Send + use<> {
    let inside = inside.clone();
    async move {
        let _inside = inside.enter();
        if item < 11 { Ok(()) } else { pend().await }
    }
}

fn bomb() -> OnDrop<impl FnOnce() + Send> {
    OnDrop::new(|| quiet_panic("boom"))
}

/// An iterator whose `size_hint` panics.
struct BadHint(usize);

impl Iterator for BadHint {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.0 += 1;
        Some(self.0)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self.0 {
            0 => (0, None),
            _ => quiet_panic("boom"),
        }
    }
}

#[test]
fn g5_size_hint_panics_then_the_caller_has_the_panic() {
    for way in WAYS {
        on_current_thread(async move {
            let (parent, handle) = Context::background().with_cancel();
            let handle = Arc::new(handle);
            // No item was lost, and the context has ended: then the batch asks whether there is more.
            let run = way.run(batch(BadHint(0), 1).context(&parent), move |_, _| {
                let handle = handle.clone();
                async move {
                    handle.cancel();
                    Ok::<_, BoxError>(())
                }
            });
            assert_eq!(panic_of(run).await, "boom", "{way:?}");
        });
    }
}

/// A source that gives out items until, on another thread than the caller's and with the caller idle, its `size_hint` panics.
struct PanicsBesideTheCaller {
    caller: ThreadId,
    /// Lets go of the caller, which an item keeps.
    free: mpsc::Sender<()>,
    until_then: usize,
    panics: bool,
}

impl Iterator for PanicsBesideTheCaller {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.until_then > 0 {
            self.until_then -= usize::from(thread::current().id() != self.caller);
        } else {
            self.panics = thread::current().id() != self.caller;
            let _ = self.free.send(());
            // Not needed for the test to pass: time for the caller to become idle.
            thread::sleep(Duration::from_millis(10));
        }
        Some(0)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self.panics {
            false => (0, None),
            true => quiet_panic("boom"),
        }
    }
}

/// Whoever was called for an item that the pull had shown is called, although the pull ends in a panic.
#[test]
fn g5_size_hint_panics_when_the_idle_caller_was_called_then_it_has_the_panic() {
    // In some of the rounds the last item is not the last of its pull.
    for until_then in 40..46 {
        let runtime = multi_thread();
        let caller = thread::current().id();
        let (free, kept) = mpsc::channel();
        let kept = Arc::new(Mutex::new(Some(kept)));
        let items = PanicsBesideTheCaller {
            caller,
            free,
            until_then,
            panics: false,
        };
        let run = batch(items, 16).for_each(move |_, _| {
            let here = thread::current().id() == caller;
            let kept = here.then(|| kept.lock().unwrap().take()).flatten();
            async move {
                if let Some(kept) = kept {
                    kept.recv().unwrap();
                }
                Ok::<_, BoxError>(())
            }
        });
        let told = runtime.block_on(patiently(panic_of(run)));
        assert_eq!(told, "boom", "{until_then}");
    }
}

#[test]
fn g1_two_items_fail_then_the_first_in_time_is_returned() {
    for way in WAYS {
        on_current_thread(async move {
            let gates = Gates::new(3);
            let run = tokio::spawn(way.run(batch(0..3, 3), {
                let gates = gates.clone();
                move |_, item| {
                    let pass = gates.clone().pass(item);
                    async move {
                        pass.await?;
                        Err(BoxError::from(format!("item {item}")))
                    }
                }
            }));
            idle().await;
            gates.open(2);
            gates.open(0);
            assert_eq!(
                run.await.unwrap().unwrap_err().to_string(),
                "item 2",
                "{way:?}"
            );
        });
    }
}

/// The reason that a sibling of the failing item sees.
async fn reason_of(way: Way, name: Option<&'static str>) -> (errgroup::ContextError, u32) {
    let seen = Log::new();
    let log = seen.clone();
    let (line, mut items) = (line!(), batch(0..3, 3));
    if let Some(name) = name {
        items = items.name(name);
    }
    let run = way.run(items, move |ctx: Context, item| {
        let log = log.clone();
        let tell = OnDrop::new(move || log.push(ctx.err()));
        async move {
            turns(3).await;
            match item {
                1 => fail("disk full").await,
                _ => holding(tell, pend()).await,
            }
        }
    });
    run.await.unwrap_err();
    let mut seen = seen.take();
    // That of the failing item is dropped before its error is looked at.
    seen.retain(Option::is_some);
    assert_eq!(seen.len(), 2);
    (seen.pop().flatten().unwrap(), line)
}

#[test]
fn g2_item_fails_then_the_reason_has_name_location_and_text() {
    for way in WAYS {
        on_current_thread(async move {
            let (end, line) = reason_of(way, Some("thumbnails")).await;
            assert_eq!(end.reason(), Reason::TaskFailed);
            assert_eq!(end.task(), Some("thumbnails"));
            let place = end.location().unwrap();
            assert_eq!((place.file(), place.line()), (file!(), line));
            let text = format!(
                "cancelled: task \"thumbnails\" failed: disk full (spawned at {}:{line}:",
                file!()
            );
            assert!(end.to_string().starts_with(&text), "{end}");

            let (end, line) = reason_of(way, None).await;
            assert_eq!(end.location().unwrap().line(), line);
            assert!(end.to_string().starts_with("cancelled: task #"), "{end}");
        });
    }
}

#[test]
fn g5_item_panics_then_its_siblings_see_why() {
    on_current_thread(async {
        let seen = Log::new();
        let log = seen.clone();
        let run = batch(0..3, 3)
            .name("thumbnails")
            .for_each(move |ctx: Context, item| {
                let log = log.clone();
                let tell = OnDrop::new(move || log.push(ctx.err().map(|end| end.to_string())));
                async move {
                    match item {
                        2 => panics("boom").await,
                        _ => holding(tell, pend()).await,
                    }
                }
            });
        assert_eq!(panic_of(run).await, "boom");
        for end in seen.take().into_iter().flatten() {
            assert!(
                end.starts_with("cancelled: task \"thumbnails\" panicked: boom"),
                "{end}"
            );
        }
    });
}

#[test]
fn stream_has_panicked_and_is_polled_again_then_it_ends() {
    on_current_thread(async {
        let mut results = Box::pin(batch(0..9, 3).map_stream(|_, item| async move {
            match item {
                0 => panics("boom").await,
                _ => Ok::<_, BoxError>(()),
            }
        }));
        assert_eq!(
            panic_of(futures::StreamExt::next(&mut results)).await,
            "boom"
        );
        let (values, end) = exhaust(results).await;
        assert!(values.len() <= 3 && end.is_ok());
    });
}

/// The items that were never pulled are dropped while the panic of another is on its way to the caller.
#[test]
fn g5_item_panics_and_an_unpulled_one_panics_in_its_drop_then_nothing_aborts() {
    const CHILD: &str = "ERRGROUP_TEST_TWO_PANICS";
    let cases = WAYS.into_iter().flat_map(|way| [(way, 1), (way, 2)]);
    if let Ok(case) = std::env::var(CHILD) {
        let mut cases = cases;
        let (way, limit) = cases.nth(case.parse().unwrap()).unwrap();
        return two_panics(way, limit);
    }
    let name = thread::current().name().unwrap().to_owned();
    let aborted = cases.enumerate().filter(|(case, _)| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", &name]).env(CHILD, case.to_string());
        !child.output().unwrap().status.success()
    });
    let aborted: Vec<_> = aborted.map(|(_, case)| case).collect();
    assert!(aborted.is_empty(), "{aborted:?}");
}

fn two_panics(way: Way, limit: usize) {
    on_current_thread(async move {
        let items: Vec<_> = (0..9).map(|item| (item, (item == 8).then(bomb))).collect();
        let run = way.run(batch(items, limit), |_, (item, bomb)| async move {
            match item {
                0 => quiet_panic("boom"),
                _ => holding(bomb, pend()).await,
            }
        });
        assert_eq!(panic_of(run).await, "boom");
    });
}
