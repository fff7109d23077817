// Where every task is an inline block, and the call is not what the function returns, nothing tells the error type, since
// `?` converts: say `async |group: Spawner|`, which means `Spawner<BoxError>`, or `Group::<MyError>::run`.

use errgroup::{BoxError, Context, Group};

async fn sum(ctx: &Context) -> Result<u32, BoxError> {
    let sum = Group::run(ctx, async |group| {
        let (a, b) = (group.spawn(async { Ok(1) }), group.spawn(async { Ok(2) }));
        Ok(a.await? + b.await?)
    })
    .await?;
    Ok(sum)
}

fn main() {
    drop(sum(&Context::background()));
}
