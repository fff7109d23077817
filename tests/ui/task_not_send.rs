// A task may move between threads whenever it awaits.

use std::rc::Rc;
use std::time::Duration;

use errgroup::{BoxError, Group};

fn main() {
    let group: Group = Group::new();
    group.spawn(async {
        let shared = Rc::new(5);
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<_, BoxError>(*shared)
    });
}
