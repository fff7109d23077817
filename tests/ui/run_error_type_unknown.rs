// Where every task is an inline block, and the call is not what the function returns, nothing tells the error type: say
// `async |group: Spawner|`, which means `Spawner<BoxError>`, or `Group::<MyError>::run`.

use errgroup::{Context, Group};

async fn sum(ctx: &Context) -> Option<u32> {
    let sum = Group::run(ctx, async |group| {
        let (a, b) = (group.spawn(async { Ok(1) }), group.spawn(async { Ok(2) }));
        Ok(a.await? + b.await?)
    });
    sum.await.ok()
}

fn main() {
    drop(sum(&Context::background()));
}
