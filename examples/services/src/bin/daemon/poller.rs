//! The poller of an upstream, which may be away: then it fails, and its supervisor restarts it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use errgroup::{BoxError, Context};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::Daemon;

pub async fn run(ctx: Context, daemon: Arc<Daemon>) -> Result<(), BoxError> {
    let interval = interval(daemon.args.settings.as_deref())?;
    println!("polling every {interval:?}");
    loop {
        if let Some(upstream) = &daemon.args.upstream {
            let answer = ctx.run(ask(upstream)).await??;
            println!("polled {answer}");
        }
        ctx.sleep(interval).await?;
    }
}

fn interval(settings: Option<&Path>) -> Result<Duration, BoxError> {
    match settings {
        Some(path) => {
            let text = std::fs::read_to_string(path)?;
            Ok(Duration::from_millis(text.trim().parse()?))
        }
        None => Ok(Duration::from_secs(1)),
    }
}

/// The upstream says what it has to say, and closes.
async fn ask(upstream: &str) -> Result<String, std::io::Error> {
    let mut stream = TcpStream::connect(upstream).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
