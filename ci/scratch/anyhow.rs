//! A user with `anyhow`: `run`, handles and `wait`, and nothing but `?`.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use errgroup::{Context, ContextError, Group};
use tokio::time::sleep;

async fn user(id: u64) -> Result<String> {
    sleep(Duration::from_millis(5)).await;
    if id == 0 {
        bail!("no user {id}");
    }
    Ok(format!("user {id}"))
}

async fn orders(answer: &'static str) -> Result<u32> {
    answer
        .parse()
        .with_context(|| format!("orders: {answer:?}"))
}

type Page = (String, u32);

async fn by_run(ctx: &Context, id: u64, answer: &'static str) -> Result<Page> {
    Group::run(ctx, async |group| {
        let (user, orders) = (group.spawn(user(id)), group.spawn(orders(answer)));
        Ok((user.await?, orders.await?))
    })
    .await
    .context("no page")
}

async fn by_wait(ctx: &Context, id: u64, answer: &'static str) -> Result<Page> {
    let mut group = Group::with_context(ctx);
    let (user, orders) = (group.spawn(user(id)), group.spawn(orders(answer)));
    group.wait().await?;
    Ok((user.await?, orders.await?))
}

async fn by_handles(ctx: &Context, id: u64, answer: &'static str) -> Result<Page> {
    let group = Group::with_context(ctx);
    let (user, orders) = (group.spawn(user(id)), group.spawn(orders(answer)));
    Ok((user.await?, orders.await?))
}

async fn inline(ctx: &Context) -> Result<u32> {
    let sum = Group::<anyhow::Error>::run(ctx, async |group| {
        let one = group.spawn(async { Ok("1".parse::<u32>()?) });
        let two = group.spawn(async { Ok(2) });
        Ok(one.await? + two.await?)
    })
    .await?;
    Ok(2 * sum)
}

async fn pool(ctx: &Context) -> Result<()> {
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
async fn main() -> Result<()> {
    let ctx = Context::background();
    let page = ("user 7".to_owned(), 3);
    assert_eq!(by_run(&ctx, 7, "3").await?, page);
    assert_eq!(by_wait(&ctx, 7, "3").await?, page);
    assert_eq!(by_handles(&ctx, 7, "3").await?, page);
    assert_eq!(inline(&ctx).await?, 6);
    pool(&ctx).await?;

    // The chain of errors, from `run` and `wait`; from a handle its words.
    let (run, wait) = (by_run(&ctx, 0, "3").await, by_wait(&ctx, 7, "x").await);
    assert_eq!(format!("{:#}", run.unwrap_err()), "no page: no user 0");
    let parsed = r#"orders: "x": invalid digit found in string"#;
    assert_eq!(format!("{:#}", wait.unwrap_err()), parsed);
    let told = by_handles(&ctx, 0, "3").await.unwrap_err().to_string();
    assert!(told.contains("failed: no user 0 (spawned at "), "{told}");

    let short = ctx.with_timeout(Duration::from_millis(1));
    let late = by_run(&short, 7, "3").await.unwrap_err();
    let end = late.downcast_ref::<ContextError>();
    assert!(
        end.is_some_and(ContextError::is_deadline_exceeded),
        "{late:?}"
    );
    Ok(())
}
