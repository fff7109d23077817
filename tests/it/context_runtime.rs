//! A deadline belongs to no runtime (C8): runtimes that stand still, go away, or never were.
//!
//! Real time decides here, since two runtimes and plain threads force it. The deadlines are short, and `LIMIT` only turns
//! a wait that hangs into a failure.

use std::cell::RefCell;
use std::future::pending;
use std::process::Command;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use errgroup::{BoxError, CancelHandle, Context, Group, OnDone, Reason};
use futures::FutureExt;
use tokio::runtime::{Builder, Runtime};

use crate::support::{
    Counter, Log, OnDrop, advance_without_timers, background, cause, child, log_end, ms, poll,
    reports, watch_panics,
};

const HOUR: Duration = Duration::from_secs(3_600);

/// More than any of the deadlines takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Long enough for a test to be in the middle of it when the deadline passes, whatever the machine does.
const SOON: Duration = ms(50);

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn one_worker() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

const KINDS: [fn() -> Runtime; 2] = [one_thread, one_worker];

/// All pairs of kinds.
fn pairs() -> impl Iterator<Item = (Runtime, Runtime)> {
    let pair = |first: fn() -> Runtime| KINDS.map(|second| (first(), second()));
    KINDS.into_iter().flat_map(pair)
}

/// Waits on a runtime for a context whose deadline is soon, and not for ever.
fn assert_told_on(runtime: &Runtime, ctx: &Context) {
    let waiting = runtime.spawn(ctx.done_owned());
    let told = runtime.block_on(async { tokio::time::timeout(LIMIT, waiting).await });
    let error = told.expect("it is told in time").unwrap();
    assert_eq!(error.reason(), Reason::DeadlineExceeded);
}

/// Runs a function on a thread of its own, and not for ever.
fn within_limit<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> R {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || tell.send(f()));
    let result = told.recv_timeout(LIMIT).expect("it comes back in time");
    thread.join().unwrap().unwrap();
    result
}

/// A channel that tells of the end of a context.
fn end_told_by(ctx: &Context) -> mpsc::Receiver<thread::ThreadId> {
    let (tell, told) = mpsc::channel();
    ctx.on_done(move |_| tell.send(thread::current().id()).unwrap())
        .detach();
    told
}

// ---- F1: derived here, waited for there

#[test]
fn c8_derived_in_a_runtime_that_stands_still_then_told_on_another() {
    for (idle, other) in pairs() {
        let ctx = {
            let _in = idle.enter();
            background().with_timeout(SOON)
        };
        assert_told_on(&other, &child(&ctx));
    }
}

#[test]
fn c8_derived_in_a_runtime_that_was_dropped_then_told_on_another() {
    for (gone, other) in pairs() {
        let ctx = gone.block_on(async { background().with_timeout(SOON) });
        drop(gone);
        assert_told_on(&other, &child(&ctx));
    }
}

#[test]
fn c8_group_below_a_deadline_of_another_runtime_is_waited_for_in_time() {
    for (idle, other) in pairs() {
        let ctx = {
            let _in = idle.enter();
            background().with_timeout(SOON)
        };
        let waiting = other.spawn(async move {
            let mut group = Group::<BoxError>::with_context(&ctx);
            let _task = group.spawn(pending::<Result<(), BoxError>>());
            group.wait().await
        });
        let waited = other.block_on(async { tokio::time::timeout(LIMIT, waiting).await });
        let error = waited.expect("in time").unwrap().unwrap_err();
        assert!(error.to_string().contains("deadline exceeded"), "{error}");
    }
}

#[test]
fn c8_deadline_derived_and_waited_for_outside_of_any_runtime_is_told() {
    let ctx = child(&background().with_timeout(ms(5)));
    let told = end_told_by(&ctx);
    let teller = told
        .recv_timeout(LIMIT)
        .expect("by a thread of the process");
    assert_ne!(teller, thread::current().id());
    let ctx = background().with_timeout(ms(5));
    let error = within_limit(move || futures::executor::block_on(ctx.done_owned()));
    assert!(error.is_deadline_exceeded());
}

#[test]
fn c8_deadlines_outside_of_any_runtime_are_told_in_their_order() {
    let log = Log::new();
    let now = tokio::time::Instant::now();
    let contexts: Vec<_> = [40, 10, 30, 20]
        .map(|after| (after, background().with_deadline(now + ms(after))))
        .into();
    for (after, ctx) in &contexts {
        log_end(ctx, &log, *after);
    }
    for (_, ctx) in &contexts {
        assert!(ctx.done_blocking(Some(LIMIT)).is_some());
    }
    let last = background().with_timeout(ms(1));
    end_told_by(&last).recv_timeout(LIMIT).unwrap();
    let mut told = log.take();
    // Whoever asks may be ahead of the timer thread, in the order of the list.
    told.sort_unstable();
    assert_eq!(told, [10, 20, 30, 40]);
}

#[test]
fn c8_callback_that_panics_on_the_timer_thread_then_the_next_is_told() {
    for _ in 0..3 {
        let bad = background().with_timeout(ms(1));
        let told = end_told_by(&bad);
        bad.on_done(|_| panic!("a callback on the timer thread"))
            .detach();
        told.recv_timeout(LIMIT).unwrap();
        let good = background().with_timeout(ms(1));
        assert!(end_told_by(&good).recv_timeout(LIMIT).is_ok());
    }
}

// ---- F2: who waited first goes away, or stands still

#[test]
fn c8_first_waiters_runtime_dropped_then_second_is_told_on_another() {
    for (first, second) in pairs() {
        let ctx = background().with_timeout(SOON);
        let mut done = ctx.done();
        first.block_on(async { assert!(poll(&mut done, &Counter::new()).is_pending()) });
        let waiting = second.spawn(ctx.done_owned());
        drop(first);
        let told = second.block_on(async { tokio::time::timeout(LIMIT, waiting).await });
        assert!(told.expect("in time").unwrap().is_deadline_exceeded());
    }
}

#[test]
fn c8_first_waiters_runtime_stands_still_then_second_is_told_on_another() {
    for (first, second) in pairs() {
        let ctx = background().with_timeout(SOON);
        let mut done = ctx.done();
        // A worker that blocks cannot run timers, and a runtime of one thread that nobody blocks on neither.
        let (release, released) = mpsc::channel::<()>();
        let waits_first = async { assert!(poll(&mut done, &Counter::new()).is_pending()) };
        first.block_on(waits_first);
        first.spawn(async move { released.recv() });
        assert_told_on(&second, &child(&ctx));
        drop(release);
    }
}

#[test]
fn c8_done_polled_on_one_runtime_and_then_on_another_is_told_there() {
    for (first, second) in pairs() {
        let ctx = background().with_timeout(SOON);
        let mut done = ctx.done_owned();
        first.block_on(async { assert!(poll(&mut done, &Counter::new()).is_pending()) });
        // The first stands still from here on. In a task: a time limit of the future itself would poll it once more.
        let waiting = second.spawn(done);
        let told = second.block_on(async { tokio::time::timeout(LIMIT, waiting).await });
        assert!(told.expect("in time").unwrap().is_deadline_exceeded());
    }
}

// ---- F3, F4: the runtime goes while somebody waits on it, or after

#[test]
fn c8_thread_that_blocks_on_a_handle_of_a_runtime_that_is_dropped_is_told() {
    for kind in KINDS {
        let runtime = kind();
        let handle = runtime.handle().clone();
        let ctx = background().with_timeout(SOON);
        let waits = Arc::new(Barrier::new(2));
        let thread = {
            let (ctx, waits) = (ctx.clone(), waits.clone());
            thread::spawn(move || {
                let mut done = ctx.done();
                handle.block_on(std::future::poll_fn(|cx| {
                    let polled = done.poll_unpin(cx);
                    if polled.is_pending() {
                        waits.wait();
                    }
                    polled
                }))
            })
        };
        waits.wait();
        drop(runtime);
        let error = within_limit(move || thread.join().unwrap());
        assert!(error.is_deadline_exceeded());
    }
}

#[test]
fn c8_callback_registered_on_a_runtime_that_is_dropped_is_told() {
    for kind in KINDS {
        let runtime = kind();
        let ctx = background().with_timeout_cause(SOON, "deadline");
        let told = runtime.block_on(async { end_told_by(&child(&ctx)) });
        drop(runtime);
        assert!(told.recv_timeout(LIMIT).is_ok());
        assert_eq!(cause(&ctx).as_deref(), Some("deadline"));
    }
}

/// Uses what waits, in a runtime that is going: in the destructor of one of its tasks, and with its handle afterwards.
#[test]
fn c8_waited_for_while_the_runtime_goes_and_after_then_no_panic_and_told() {
    const TOKIOS: &str = "A Tokio 1.x context was found, but it is being shutdown.";
    watch_panics();
    for kind in KINDS {
        let runtime = kind();
        let handle = runtime.handle().clone();
        let (tell, told) = mpsc::channel();
        let begin_to_wait = move || {
            let ctx = background().with_timeout(ms(5));
            tell.send(end_told_by(&ctx)).unwrap();
            let mut done = ctx.done();
            assert!(poll(&mut done, &Counter::new()).is_pending());
        };
        let in_destructor = OnDrop({
            let begin_to_wait = begin_to_wait.clone();
            move || begin_to_wait()
        });
        // One before the timers of this runtime are first needed, and one after.
        let first = OnDrop(begin_to_wait.clone());
        runtime.spawn(async move {
            let _first = first;
            pending::<()>().await;
        });
        runtime.block_on(async { begin_to_wait() });
        runtime.spawn(async move {
            let _in_destructor = in_destructor;
            pending::<()>().await;
        });
        drop(runtime);
        let _in = handle.enter();
        begin_to_wait();
        drop(begin_to_wait);
        assert_eq!(count_told(told.iter()), 4);
    }
    assert_eq!(reports(TOKIOS), 0);
}

fn count_told(all: impl IntoIterator<Item = mpsc::Receiver<thread::ThreadId>>) -> usize {
    let told = |told: mpsc::Receiver<_>| told.recv_timeout(LIMIT).expect("in time");
    all.into_iter().map(told).collect::<Vec<_>>().len()
}

#[test]
fn c8_runtimes_come_and_go_while_others_wait_then_all_are_told() {
    let ctx = background().with_timeout(SOON);
    let waiters: Vec<_> = (0..4)
        .map(|index| {
            let ctx = ctx.clone();
            thread::spawn(move || {
                let mut told = Vec::new();
                while !ctx.is_done() {
                    let runtime = KINDS[index % 2]();
                    told.push(runtime.block_on(async { end_told_by(&child(&ctx)) }));
                }
                count_told(told)
            })
        })
        .collect();
    for waiter in waiters {
        assert!(within_limit(move || waiter.join().unwrap()) > 0);
    }
}

#[test]
fn c8_deadlines_waited_for_cost_no_task_each() {
    let runtime = one_thread();
    runtime.block_on(async {
        let contexts: Vec<_> = (0..1_000)
            .map(|_| background().with_timeout(HOUR))
            .collect();
        let waker = Counter::new();
        let mut done: Vec<_> = contexts.iter().map(Context::done).collect();
        for done in &mut done {
            assert!(poll(done, &waker).is_pending());
        }
        assert!(runtime.metrics().num_alive_tasks() <= 1);
    });
}

// ---- F5: what has ended holds no runtime

/// The open file descriptors of this process.
#[cfg(target_os = "linux")]
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[cfg(target_os = "linux")]
#[test]
fn c8_deadlines_and_ended_contexts_keep_no_file_descriptor_of_their_runtimes() {
    // In a process of its own: beside other tests the count would mean nothing.
    const INNER: &str = "ERRGROUP_COUNTS_DESCRIPTORS";
    const NAME: &str = "c8_deadlines_and_ended_contexts_keep_no_file_descriptor_of_their_runtimes";
    if std::env::var_os(INNER).is_none() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([&format!("context_runtime::{NAME}"), "--exact"]);
        let output = command.env(INNER, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        assert!(text.contains("1 passed"), "{text}");
        return;
    }
    let before = descriptors();
    let kept: Vec<_> = (0..25)
        .flat_map(|_| KINDS.map(|kind| kept_from(&kind())))
        .collect();
    let after = descriptors();
    assert!(after < before + 10, "{before} before, {after} after");
    drop(kept);
}

/// Contexts of all kinds, live and ended, that have been waited for on a runtime which is about to go.
#[cfg(target_os = "linux")]
fn kept_from(runtime: &Runtime) -> impl Sized + use<> {
    runtime.block_on(async {
        let ended = background().with_timeout(ms(1));
        let live = background().with_timeout(HOUR);
        let (below, handle) = live.with_cancel();
        let foreign = below.with_cancel_on(pending::<()>());
        let waits = [&ended, &live, &below, &foreign].map(|ctx| ctx.on_done(|_| ()));
        assert!(ended.done().await.is_deadline_exceeded());
        handle.cancel();
        let live_foreign = live.with_cancel_on(pending::<()>());
        tokio::task::yield_now().await;
        (ended, live, below, foreign, live_foreign, waits)
    })
}

// ---- done_blocking

#[test]
fn c8_blocked_thread_in_a_runtime_that_stands_still_or_has_no_time_sees_its_deadline() {
    for runtime in [one_thread(), Builder::new_current_thread().build().unwrap()] {
        let _in = runtime.enter();
        let ctx = child(&background().with_timeout(ms(5)));
        let error = ctx.done_blocking(Some(LIMIT)).expect("in time");
        assert!(error.is_deadline_exceeded());
    }
}

#[test]
fn c8_blocked_thread_of_a_paused_clock_sees_it_pushed() {
    for _ in 0..20 {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let error = within_limit(move || {
            runtime.block_on(async {
                let ctx = background().with_timeout(HOUR);
                let blocked = tokio::task::spawn_blocking(move || ctx.done_blocking(None));
                // Told whether or not it has parked by now. Mostly it has.
                thread::sleep(ms(2));
                tokio::time::advance(HOUR).await;
                blocked.await.unwrap().expect("no time limit")
            })
        });
        assert!(error.is_deadline_exceeded());
    }
}

// ---- F22: the destructors of thread-locals

/// Uses everything when dropped.
struct Held {
    ctx: Context,
    handle: CancelHandle,
    on_done: Option<OnDone>,
    log: Log<&'static str>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let (ctx, handle) = (&self.ctx, &self.handle);
        assert_eq!(ctx.is_done(), handle.err().is_some());
        assert_eq!(ctx.remaining().is_some(), ctx.deadline().is_some());
        assert!(!format!("{ctx:?} {handle:?}").is_empty());
        let below = ctx.with_timeout(HOUR).with_value(1_u8);
        let _ = poll(&mut below.done(), &Counter::new());
        log_end(&below, &self.log, "told");
        assert!(
            background()
                .with_timeout(ms(1))
                .done_blocking(None)
                .is_some()
        );
        self.handle.cancel();
        assert!(ctx.is_done());
        drop(self.on_done.take());
        self.log.push("used");
    }
}

thread_local! {
    static HELD: RefCell<Vec<Held>> = const { RefCell::new(Vec::new()) };
}

#[test]
fn handle_with_a_deadline_used_in_a_thread_local_after_a_paused_clock_is_no_trouble() {
    let log = Log::new();
    for (timeout, push) in [(HOUR, ms(0)), (ms(5), HOUR)] {
        let log = log.clone();
        let thread = thread::spawn(move || {
            // Registered before tokio's own, so destroyed after those.
            HELD.with(|_| ());
            let runtime = Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                let (ctx, handle) = background().with_timeout(timeout).with_cancel();
                let on_done = Some(ctx.on_done(|_| ()));
                advance_without_timers(push);
                HELD.with_borrow_mut(|held| {
                    held.push(Held {
                        ctx,
                        handle,
                        on_done,
                        log,
                    });
                });
            });
        });
        thread.join().unwrap();
    }
    assert_eq!(log.take(), ["told", "used", "told", "used"]);
}

/// A task keeps its id within a runtime that it enters, or blocks on.
#[test]
fn c8_task_has_waited_on_a_runtime_that_it_entered_then_it_is_told_on_its_own() {
    let (own, undriven) = (one_thread(), one_thread());
    let ctx = background().with_timeout(SOON);
    let entered = undriven.handle().clone();
    let told = own.block_on(async {
        let task = tokio::spawn(async move {
            let _kept = [(); 2].map(|()| {
                let _in_it = entered.enter();
                ctx.on_done(|_| {})
            });
            tokio::select! {
                biased;
                () = tokio::time::sleep(LIMIT) => false,
                _ = ctx.done() => true,
            }
        });
        task.await.unwrap()
    });
    assert!(told);
}
