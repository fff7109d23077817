// So does shutting it down.

use std::time::Duration;

use errgroup::Group;

async fn run(group: Group) {
    group.shutdown(Duration::from_secs(1)).await;
    group.spawn(async { Ok(()) });
}

fn main() {
    drop(run(Group::new()));
}
