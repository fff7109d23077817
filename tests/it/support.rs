//! What the tests share: wakers and values that tell what happens to them, a log, a clock pushed by hand, threads that
//! race.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, Once, mpsc};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use errgroup::{Context, ContextError, Reason};
use futures::FutureExt;

/// A waker that counts.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicUsize);

impl Counter {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn woken(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A waker that runs a function whenever it is woken.
pub(crate) struct OnWake<F>(pub(crate) F);

impl<F: Fn() + Send + Sync> Wake for OnWake<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

/// Runs a function when dropped. As a waker it does nothing else; it also serves as a value, and as a cause's content.
pub(crate) struct OnDrop<F: Fn()>(pub(crate) F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl<F: Fn() + Send + Sync> Wake for OnDrop<F> {
    fn wake(self: Arc<Self>) {}
}

/// Panics when dropped, but not during another panic: that would abort the process instead of failing a test.
pub(crate) fn bomb(text: &'static str) -> OnDrop<impl Fn() + Send + Sync> {
    OnDrop(move || {
        if !thread::panicking() {
            panic!("{text}");
        }
    })
}

/// An error that carries anything: a value with a destructor, a reference count to look at.
pub(crate) struct Carrier<T>(
    #[allow(dead_code, reason = "held, and looked at from outside")] pub(crate) T,
);

impl<T> fmt::Debug for Carrier<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Carrier")
    }
}

impl<T> fmt::Display for Carrier<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("carrier")
    }
}

impl<T> Error for Carrier<T> {}

/// What happened, in order.
pub(crate) struct Log<T>(Arc<Mutex<Vec<T>>>);

impl<T> Log<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    pub(crate) fn push(&self, event: T) {
        self.0.lock().unwrap().push(event);
    }

    /// Takes out what was logged so far.
    pub(crate) fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Polls once, with a waker of one's own.
pub(crate) fn poll<F, W>(future: &mut F, waker: &Arc<W>) -> Poll<F::Output>
where
    F: Future + Unpin,
    W: Wake + Send + Sync + 'static,
{
    let waker = Waker::from(waker.clone());
    Pin::new(future).poll(&mut TaskContext::from_waker(&waker))
}

/// Why the context has ended.
pub(crate) fn reason(ctx: &Context) -> Option<Reason> {
    ctx.err().map(|error| error.reason())
}

/// The error of a context that has ended.
pub(crate) fn error(ctx: &Context) -> ContextError {
    ctx.err().expect("the context has ended")
}

/// The text of the cause, `None` if there is none but the error itself.
pub(crate) fn cause(ctx: &Context) -> Option<String> {
    let cause = ctx.cause()?;
    (!cause.is::<ContextError>()).then(|| cause.to_string())
}

/// Where the cause lies: the same address is the same event.
pub(crate) fn cause_address(ctx: &Context) -> *const () {
    std::ptr::from_ref(ctx.cause().expect("the context has ended")).cast()
}

/// The text of a panic.
pub(crate) fn panic_text<R>(f: impl FnOnce() -> R) -> String {
    let payload = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => return "no panic".to_owned(),
        Err(payload) => payload,
    };
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload
            .downcast_ref::<&str>()
            .map_or_else(|| "no text".to_owned(), |text| (*text).to_owned()),
    }
}

static REPORTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Writes down, from here on, what the panic hook is told of, in all tests.
pub(crate) fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let payload = info.payload();
            let text = payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned());
            REPORTS.lock().unwrap().extend(text);
            before(info);
        }));
    });
}

/// How often a panic with this text was reported.
pub(crate) fn reports(text: &str) -> usize {
    let reports = REPORTS.lock().unwrap();
    reports.iter().filter(|report| *report == text).count()
}

/// Waits for an end that must come. On a paused clock the patience is over as soon as nothing can go on.
pub(crate) async fn end_of(ctx: &Context) -> ContextError {
    let patience = Duration::from_secs(86_400);
    let end = tokio::time::timeout(patience, ctx.done());
    end.await.expect("the context ends")
}

/// Pushes a paused clock, and lets the timers run.
pub(crate) async fn advance(by: Duration) {
    tokio::time::advance(by).await;
    tokio::task::yield_now().await;
}

/// Pushes a paused clock within one poll of the calling task, so that no timer can run.
pub(crate) fn advance_without_timers(by: Duration) {
    // `advance` moves the clock when it is polled first, and yields for the timers after that.
    assert!(tokio::time::advance(by).now_or_never().is_none());
}

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Runs two functions at once, each on a thread of its own.
pub(crate) fn race(a: impl FnOnce() + Send, b: impl FnOnce() + Send) {
    let start = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            start.wait();
            a();
        });
        start.wait();
        b();
    });
}

/// Runs a function on a thread with a stack of 256 KiB: what recurses over a long chain does not come back from it.
pub(crate) fn on_small_stack(f: impl FnOnce() + Send) {
    thread::scope(|scope| {
        thread::Builder::new()
            .stack_size(256 * 1024)
            .spawn_scoped(scope, f)
            .unwrap();
    });
}

/// Runs a function that might deadlock. The time limit is for the deadlock only; nothing else depends on it.
pub(crate) fn without_deadlock(f: impl FnOnce() + Send + 'static) {
    let (tell, told) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        f();
        drop(tell);
    });
    if told.recv_timeout(Duration::from_secs(60)) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("deadlock");
    }
    if let Err(payload) = thread.join() {
        std::panic::resume_unwind(payload);
    }
}

/// Logs `name` at the end of `ctx`.
pub(crate) fn log_end<T: Send + 'static>(ctx: &Context, log: &Log<T>, name: T) {
    let log = log.clone();
    ctx.on_done(move |_| log.push(name)).detach();
}

/// The indexes of the contexts that have not ended.
pub(crate) fn live(contexts: &[Context]) -> Vec<usize> {
    (0..contexts.len())
        .filter(|&index| !contexts[index].is_done())
        .collect()
}

/// The root, short.
pub(crate) fn background() -> Context {
    Context::background()
}

/// A child that only its parent can end.
pub(crate) fn child(parent: &Context) -> Context {
    let (ctx, handle) = parent.with_cancel();
    handle.detach();
    ctx
}

/// Fails, with the tree, if anything is left below a context. Without the feature `testing` there is nobody to look.
pub(crate) fn no_leaks(ctx: &Context) {
    #[cfg(feature = "testing")]
    errgroup::testing::assert_no_leaks(ctx);
    #[cfg(not(feature = "testing"))]
    drop(ctx.clone());
}
