// The same, where the error type is known only from the task.

use errgroup::Group;

async fn read() -> Result<String, std::fmt::Error> {
    Ok(String::new())
}

fn main() {
    let group = Group::new();
    group.spawn(read());
}
