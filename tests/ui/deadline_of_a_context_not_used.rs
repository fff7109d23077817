// A context never changes: what ends at the deadline is the derived one, and nobody holds it.

#![deny(unused_must_use)]

use std::time::Duration;

use errgroup::Context;

fn main() {
    let ctx = Context::background();
    ctx.with_timeout(Duration::from_secs(1));
    ctx.with_timeout_cause(Duration::from_secs(1), "too slow");
    ctx.with_deadline(tokio::time::Instant::now());
    ctx.with_deadline_cause(tokio::time::Instant::now(), "too late");
    ctx.with_cancel_on(std::future::ready(()));
    ctx.with_cancel_on_cause(std::future::ready("over"));
}
