//! One request that fans out to three backends under one deadline. The first failure cancels the others.
//!
//! ```sh
//! cargo run --example aggregate
//! ```
//!
//! Arguments: `--fail NAME` and `--hang NAME` make a backend (`prices`, `stock` or `reviews`) fail or never answer.
//! `--best-effort` takes what there is when the deadline comes. There a failure is part of the task's value, not its
//! error, and so cancels nobody.

use std::process::ExitCode;
use std::time::Duration;

use errgroup::{BoxError, Context, Group, Task};
use tokio::time::sleep;

const DEADLINE: Duration = Duration::from_secs(1);
const BACKENDS: [(&str, u64); 3] = [("prices", 50), ("stock", 100), ("reviews", 150)];

#[tokio::main]
async fn main() -> ExitCode {
    let ctx = Context::background().with_timeout(DEADLINE);
    let is_best_effort = std::env::args().any(|arg| arg == "--best-effort");
    let page = match is_best_effort {
        true => best_effort(&ctx).await,
        false => all_or_nothing(&ctx).await,
    };
    match page {
        Ok(parts) => {
            println!("page: {}", parts.join(", "));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("no page: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn all_or_nothing(ctx: &Context) -> Result<Vec<String>, BoxError> {
    let mut group: Group = Group::with_context(ctx);
    let spawn = |(name, millis)| {
        let task = group.task(name);
        task.spawn_with(move |ctx| query(ctx, name, millis))
    };
    let tasks = BACKENDS.map(spawn);
    group.wait().await?; // the first failure, or the deadline
    join(tasks).await
}

async fn best_effort(ctx: &Context) -> Result<Vec<String>, BoxError> {
    let mut group: Group = Group::with_context(ctx);
    let spawn = |(name, millis)| {
        let task = group.task(name);
        task.spawn_with(move |ctx| async move {
            let answer = query(ctx, name, millis).await;
            Ok(answer.unwrap_or_else(|error| format!("no {name} ({error})")))
        })
    };
    let tasks = BACKENDS.map(spawn);
    group.wait().await?;
    join(tasks).await
}

async fn join(tasks: [Task<String>; 3]) -> Result<Vec<String>, BoxError> {
    let mut parts = Vec::new();
    for task in tasks {
        parts.push(task.await?);
    }
    Ok(parts)
}

async fn query(ctx: Context, name: &str, millis: u64) -> Result<String, BoxError> {
    match ctx.run(backend(name, millis)).await {
        Ok(answer) => answer,
        Err(why) => {
            println!("{name} was told: {why}");
            Err(why.into()) // unchanged: the group takes it for being cut short, not for a failure
        }
    }
}

/// Stands for a call over the network.
async fn backend(name: &str, millis: u64) -> Result<String, BoxError> {
    let args: Vec<String> = std::env::args().collect();
    let is_told_to = |what: &str| args.windows(2).any(|pair| pair == [what, name]);
    if is_told_to("--hang") {
        std::future::pending::<()>().await;
    }
    sleep(Duration::from_millis(millis)).await;
    if is_told_to("--fail") {
        return Err(format!("{name}: connection refused").into());
    }
    Ok(format!("{name} after {millis}ms"))
}
