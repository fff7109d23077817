// Two tasks do not write to the same: split it.

use errgroup::{BoxError, Context, Scope, scope};

async fn count(ctx: &Context) -> Result<(), BoxError> {
    let mut sum = 0;
    scope(ctx, async |scope: Scope| {
        scope.spawn(async { Ok(sum += 1) });
        scope.spawn(async { Ok(sum += 2) });
        Ok(())
    })
    .await
}

fn main() {
    drop(count(&Context::background()));
}
