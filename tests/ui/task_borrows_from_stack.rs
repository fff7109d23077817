// A task may outlive the function that spawned it: it owns what it uses.

use errgroup::{BoxError, Group};

async fn count(words: &[String]) -> Result<usize, BoxError> {
    Ok(words.len())
}

async fn run() -> Result<(), BoxError> {
    let words = vec![String::from("one"), String::from("two")];
    let group: Group = Group::new();
    group.spawn(count(&words));
    group.await
}

fn main() {
    drop(run());
}
