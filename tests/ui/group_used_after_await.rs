// Awaiting a group consumes it: nothing is spawned into a group that has ended.
// What has to spawn while somebody else waits takes `group.spawner()` first.

use errgroup::{BoxError, Group};

async fn run(group: Group) -> Result<(), BoxError> {
    let outcome = tokio::spawn(async move { group.await });
    group.spawn(async { Ok(()) });
    outcome.await?
}

fn main() {
    drop(run(Group::new()));
}
