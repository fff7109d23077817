// A group has one error type; `?` converts: `async { Ok(read().await?) }`.

use errgroup::Group;

async fn read() -> Result<String, std::io::Error> {
    Ok(String::new())
}

fn main() {
    let group: Group = Group::new();
    group.spawn(read());
}
