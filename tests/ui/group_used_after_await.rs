// Awaiting a group consumes it: nothing is spawned into a group that has ended.

use errgroup::{BoxError, Group};

async fn run(group: Group) -> Result<(), BoxError> {
    group.spawn(async { Ok(()) });
    group.await?;
    group.spawn(async { Ok(()) });
    Ok(())
}

fn main() {
    drop(run(Group::new()));
}
