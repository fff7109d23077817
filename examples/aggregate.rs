//! One request that asks three backends at once, under one deadline. The first failure cancels the others.
//!
//! ```sh
//! cargo run --example aggregate
//! ```
//!
//! Arguments: `--fail NAME` and `--hang NAME` make a backend (`price`, `stock` or `reviews`) fail or never answer.
//! `--best-effort` takes what there is when the deadline comes. There a failure is part of the task's value, not its
//! error, and so cancels nobody.
//!
//! Both are one call of [`Group::run`]: it returns what its body makes of the three values, or the first error, when
//! everything that was spawned has ended.

use std::fmt::Debug;
use std::process::ExitCode;
use std::time::Duration;

use errgroup::{BoxError, Context, Group};
use tokio::time::sleep;

const DEADLINE: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> ExitCode {
    let ctx = Context::background();
    let page = match std::env::args().any(|arg| arg == "--best-effort") {
        true => best_effort(&ctx).await.map(show_parts),
        false => all_or_nothing(&ctx).await.map(show),
    };
    match page {
        Ok(text) => {
            println!("page: {text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("no page: {error}");
            ExitCode::FAILURE
        }
    }
}

type Page = (f64, u32, Vec<String>);

async fn all_or_nothing(ctx: &Context) -> Result<Page, BoxError> {
    Group::run(&ctx.with_timeout(DEADLINE), async |group| {
        let price = group.task("price").spawn_with(price);
        let stock = group.task("stock").spawn_with(stock);
        let reviews = group.task("reviews").spawn_with(reviews);
        Ok((price.await?, stock.await?, reviews.await?))
    })
    .await
}

type Part<T> = Result<T, BoxError>;

/// Here the deadline is the backends', not the group's: the body outlives it, and has what came before.
async fn best_effort(ctx: &Context) -> Result<(Part<f64>, Part<u32>, Part<Vec<String>>), BoxError> {
    let [for_price, for_stock, for_reviews] = [(); 3].map(|()| ctx.with_timeout(DEADLINE));
    Group::run(ctx, async |group| {
        let price = group.spawn_with(|_| async { Ok(price(for_price).await) });
        let stock = group.spawn_with(|_| async { Ok(stock(for_stock).await) });
        let reviews = group.spawn_with(|_| async { Ok(reviews(for_reviews).await) });
        Ok((price.await?, stock.await?, reviews.await?))
    })
    .await
}

async fn price(ctx: Context) -> Result<f64, BoxError> {
    query(ctx, "price", 50, 9.5).await
}

async fn stock(ctx: Context) -> Result<u32, BoxError> {
    query(ctx, "stock", 100, 3).await
}

async fn reviews(ctx: Context) -> Result<Vec<String>, BoxError> {
    query(ctx, "reviews", 150, vec!["good".to_owned()]).await
}

async fn query<T>(ctx: Context, name: &str, millis: u64, answer: T) -> Result<T, BoxError> {
    match ctx.run(backend(name, millis)).await {
        Ok(called) => called.map(|()| answer),
        Err(why) => {
            println!("{name} was told: {why}");
            Err(why.into()) // unchanged: the group takes it for being cut short, not for a failure
        }
    }
}

/// Stands for a call over the network.
async fn backend(name: &str, millis: u64) -> Result<(), BoxError> {
    let args: Vec<String> = std::env::args().collect();
    let is_told_to = |what: &str| args.windows(2).any(|pair| pair == [what, name]);
    if is_told_to("--hang") {
        std::future::pending::<()>().await;
    }
    sleep(Duration::from_millis(millis)).await;
    if is_told_to("--fail") {
        return Err(format!("{name}: connection refused").into());
    }
    Ok(())
}

fn show((price, stock, reviews): Page) -> String {
    format!("price {price}, stock {stock}, reviews {reviews:?}")
}

fn show_parts((price, stock, reviews): (Part<f64>, Part<u32>, Part<Vec<String>>)) -> String {
    fn part(name: &str, value: Part<impl Debug>) -> String {
        match value {
            Ok(value) => format!("{name} {value:?}"),
            Err(error) => format!("no {name} ({error})"),
        }
    }
    let parts = [
        part("price", price),
        part("stock", stock),
        part("reviews", reviews),
    ];
    parts.join(", ")
}
