//! A user with an error enum: `run`, handles and `wait`, and nothing but `?`.

use std::num::ParseIntError;
use std::time::Duration;

use errgroup::{Context, ContextError, Group};
use tokio::time::sleep;

#[derive(Debug, thiserror::Error)]
enum ShopError {
    #[error("no user {0}")]
    NoUser(u64),
    #[error(transparent)]
    Number(#[from] ParseIntError),
    #[error(transparent)]
    Context(#[from] ContextError),
}

async fn user(id: u64) -> Result<String, ShopError> {
    sleep(Duration::from_millis(5)).await;
    match id {
        0 => Err(ShopError::NoUser(id)),
        _ => Ok(format!("user {id}")),
    }
}

async fn orders(answer: &'static str) -> Result<u32, ShopError> {
    Ok(answer.parse()?)
}

type Page = (String, u32);

async fn by_run(ctx: &Context, id: u64, answer: &'static str) -> Result<Page, ShopError> {
    Group::run(ctx, async |group| {
        let (user, orders) = (group.spawn(user(id)), group.spawn(orders(answer)));
        Ok((user.await?, orders.await?))
    })
    .await
}

async fn by_wait(ctx: &Context, id: u64, answer: &'static str) -> Result<Page, ShopError> {
    let mut group = Group::with_context(ctx);
    let (user, orders) = (group.spawn(user(id)), group.spawn(orders(answer)));
    group.wait().await?;
    Ok((user.await?, orders.await?))
}

async fn by_handles(ctx: &Context, id: u64, answer: &'static str) -> Result<Page, ShopError> {
    let group = Group::with_context(ctx);
    let (user, orders) = (group.spawn(user(id)), group.spawn(orders(answer)));
    Ok((user.await?, orders.await?))
}

async fn inline(ctx: &Context) -> Result<u32, ShopError> {
    let sum = Group::<ShopError>::run(ctx, async |group| {
        let one = group.spawn(async { Ok("1".parse::<u32>()?) });
        let two = group.spawn(async { Ok(2) });
        Ok(one.await? + two.await?)
    })
    .await?;
    Ok(2 * sum)
}

async fn pool(ctx: &Context) -> Result<(), ShopError> {
    let pool = Group::builder().context(ctx).limit(2);
    pool.run(async |group| {
        for id in 1..10 {
            group.slot().await?.spawn(user(id));
        }
        Ok(())
    })
    .await
}

#[tokio::main]
async fn main() -> Result<(), ShopError> {
    let ctx = Context::background();
    let page = ("user 7".to_owned(), 3);
    assert_eq!(by_run(&ctx, 7, "3").await?, page);
    assert_eq!(by_wait(&ctx, 7, "3").await?, page);
    assert_eq!(by_handles(&ctx, 7, "3").await?, page);
    assert_eq!(inline(&ctx).await?, 6);
    pool(&ctx).await?;

    // The type, from `run` and `wait`; from a handle its words.
    let (run, wait) = (by_run(&ctx, 0, "3").await, by_wait(&ctx, 7, "x").await);
    assert!(matches!(run, Err(ShopError::NoUser(0))), "{run:?}");
    assert!(matches!(wait, Err(ShopError::Number(_))), "{wait:?}");
    let told = by_handles(&ctx, 0, "3").await.unwrap_err().to_string();
    assert!(told.contains("failed: no user 0 (spawned at "), "{told}");

    let short = ctx.with_timeout(Duration::from_millis(1));
    let late = by_run(&short, 7, "3").await;
    assert!(
        matches!(&late, Err(ShopError::Context(end)) if end.is_deadline_exceeded()),
        "{late:?}"
    );
    Ok(())
}
