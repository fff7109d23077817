// The body of `run` may borrow from the caller, what it spawns may not.

use errgroup::{BoxError, Context, Group, Spawner};

async fn count(words: &[String]) -> Result<usize, BoxError> {
    Ok(words.len())
}

async fn page(ctx: &Context) -> Result<usize, BoxError> {
    let words = vec![String::from("one"), String::from("two")];
    Group::run(ctx, async |group: Spawner| Ok(group.spawn(count(&words)).await?)).await
}

fn main() {
    drop(page(&Context::background()));
}
