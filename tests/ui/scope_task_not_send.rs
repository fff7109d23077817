// A task of a scope is `Send`; `scope_local` takes others.

use std::rc::Rc;

use errgroup::{BoxError, Context, Scope, scope};

async fn count(ctx: &Context) -> Result<(), BoxError> {
    let words = Rc::new(2);
    scope(ctx, async |scope: Scope| {
        scope.spawn(async { Ok(println!("{words}")) });
        Ok(())
    })
    .await
}

fn main() {
    drop(count(&Context::background()));
}
