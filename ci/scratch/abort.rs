//! Built with `panic = "abort"`: a panic that the library provoked and caught would end the process here.

use std::future::pending;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use errgroup::{Context, Group};
use tokio::runtime::{Builder, Runtime};

fn runtime(is_single: bool) -> Runtime {
    let mut builder = match is_single {
        true => Builder::new_current_thread(),
        false => Builder::new_multi_thread(),
    };
    builder
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime")
}

/// Deadlines and groups outlive their runtime, and are waited for on it, after it, and beside it.
fn round(is_single: bool) {
    let runtime = runtime(is_single);
    let handle = runtime.handle().clone();
    let ctx = Context::background().with_timeout(Duration::from_millis(3));
    let waiters = [(); 3].map(|()| {
        let (handle, ctx) = (handle.clone(), ctx.clone());
        thread::spawn(move || handle.block_on(ctx.done()))
    });
    let (tell, told) = mpsc::channel();
    let watched = ctx.clone();
    handle.spawn(async move {
        watched
            .on_done(move |_| tell.send(()).expect("it is waited for"))
            .detach();
        pending::<()>().await
    });
    let mut group: Group = Group::builder()
        .context(&ctx)
        .runtime(handle.clone())
        .build();
    group.spawn(pending::<Result<(), _>>());
    group.spawn_blocking(|ctx| {
        ctx.done_blocking(None);
        Ok(())
    });
    if is_single {
        runtime.block_on(tokio::task::yield_now());
    }
    runtime.shutdown_background();
    for waiter in waiters {
        let why = waiter.join().expect("it has not panicked");
        assert!(why.is_deadline_exceeded());
    }
    // `Err` if the runtime was gone before the callback was registered.
    let _ = told.recv();
    let waited = futures_executor::block_on(group.wait());
    assert!(waited.is_err(), "its tasks were cut short");
    let late = Context::background().with_timeout(Duration::from_millis(1));
    assert!(handle.block_on(late.done()).is_deadline_exceeded());
}

fn main() {
    for _ in 0..50 {
        round(true);
        round(false);
    }
    println!("ran through");
}
