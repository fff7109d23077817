// A handle of a scope may be kept, but not longer than what its tasks borrow.

use errgroup::{BoxError, Context, Scope, scope};

async fn count(ctx: &Context) -> Result<(), BoxError> {
    let mut stolen = None;
    {
        let words = vec![String::from("one"), String::from("two")];
        scope(ctx, async |scope: Scope| {
            scope.spawn(async { Ok(println!("{}", words.len())) });
            stolen = Some(scope.clone());
            Ok(())
        })
        .await?;
    }
    drop(stolen);
    Ok(())
}

fn main() {
    drop(count(&Context::background()));
}
