//! A group of 100,000 tasks that run, dumped: how long that takes, and what it costs who spawns beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use errgroup::{BoxError, Group};

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let group: Group = Group::new();
        for _ in 0..100_000 {
            group.spawn(async {
                loop {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                #[allow(unreachable_code)]
                Ok::<(), BoxError>(())
            });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        for _ in 0..5 {
            let start = Instant::now();
            let tree = group.snapshot();
            let taken = start.elapsed();
            let text = tree.to_string().len();
            let drawn = start.elapsed();
            println!("{} items taken in {taken:?}, drawn in {:?}, {text} bytes", tree.items().len(), drawn - taken);
        }
        drop(group);

        // Spawners beside a loop of snapshots of a group with 10,000 tasks.
        for round in 0..6 {
            let group: Group = Group::new();
            for _ in 0..10_000 {
                group.spawn(std::future::pending::<Result<(), BoxError>>());
            }
            let stop = Arc::new(AtomicBool::new(false));
            let looker = (round % 2 == 1).then(|| {
                let (spawner, stop) = (group.spawner(), stop.clone());
                std::thread::spawn(move || {
                    let mut n = 0;
                    while !stop.load(Ordering::Relaxed) {
                        drop(spawner.snapshot());
                        n += 1;
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    n
                })
            });
            let start = Instant::now();
            let spawner = group.spawner();
            std::thread::scope(|_| {
                for _ in 0..300_000 {
                    spawner.spawn(async { Ok(()) });
                }
            });
            let took = start.elapsed();
            stop.store(true, Ordering::Relaxed);
            let n = looker.map(|looker| looker.join().unwrap());
            println!("300,000 spawned in {took:?}, snapshots {n:?}");
        }
    });
}
