// A task of a scope may borrow from what stands outside of the call, not from the body, which may be over before it.

use errgroup::{BoxError, Context, Scope, scope};

async fn count(ctx: &Context) -> Result<(), BoxError> {
    scope(ctx, async |scope: Scope| {
        let words = vec![String::from("one"), String::from("two")];
        scope.spawn(async { Ok(println!("{}", words.len())) });
        Ok(())
    })
    .await
}

fn main() {
    drop(count(&Context::background()));
}
