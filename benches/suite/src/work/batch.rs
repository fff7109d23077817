//! Many items, one function, at most [`LIMIT`] at once.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use errgroup::BoxError;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;

use super::spawn::Work;

pub const LIMIT: usize = 64;

/// The user's code for one item: the same future for all.
async fn item<W: Work>(index: usize) -> Result<usize, BoxError> {
    W::run().await;
    Ok(black_box(index))
}

async fn item_done<W: Work>(index: usize) -> Result<(), BoxError> {
    item::<W>(index).await.map(drop)
}

/// Runs a batch to its end, the drop of its results included.
async fn timed<R>(batch: impl Future<Output = Result<R, BoxError>>) -> Duration {
    let start = Instant::now();
    drop(batch.await.expect("no item fails"));
    start.elapsed()
}

pub async fn for_each<W: Work>(n: usize) -> Duration {
    timed(errgroup::batch(0..n, LIMIT).for_each(|_ctx, index| item_done::<W>(index))).await
}

pub async fn map<W: Work>(n: usize) -> Duration {
    timed(errgroup::batch(0..n, LIMIT).map(|_ctx, index| item::<W>(index))).await
}

pub async fn map_stream<W: Work>(n: usize) -> Duration {
    timed(async {
        let batch = errgroup::batch(0..n, LIMIT);
        let mut results = pin!(batch.map_stream(|_ctx, index| item::<W>(index)));
        while results.try_next().await?.is_some() {}
        Ok(())
    })
    .await
}

/// A task for each item, and a permit for each task.
pub async fn semaphore<W: Work>(n: usize) -> Duration {
    timed(async {
        let permits = Arc::new(Semaphore::new(LIMIT));
        for index in 0..n {
            let permit = permits.clone().acquire_owned().await?;
            drop(tokio::spawn(async move {
                let result = item_done::<W>(index).await;
                drop(permit);
                result
            }));
        }
        drop(permits.acquire_many(LIMIT as u32).await?);
        Ok(())
    })
    .await
}

pub async fn buffer_unordered<W: Work>(n: usize) -> Duration {
    timed(async {
        let items = stream::iter(0..n).map(item_done::<W>);
        let mut results = pin!(items.buffer_unordered(LIMIT));
        while results.try_next().await?.is_some() {}
        Ok(())
    })
    .await
}

/// Results in the order of the items, one by one.
pub async fn buffered<W: Work>(n: usize) -> Duration {
    timed(async {
        let items = stream::iter(0..n).map(item::<W>);
        let mut results = pin!(items.buffered(LIMIT));
        while results.try_next().await?.is_some() {}
        Ok(())
    })
    .await
}

/// Results in the order of the items, all together.
pub async fn buffered_collect<W: Work>(n: usize) -> Duration {
    timed(async {
        let items = stream::iter(0..n).map(item::<W>);
        items.buffered(LIMIT).try_collect::<Vec<_>>().await
    })
    .await
}
