// A task that cannot fail still says so: `async { Ok(5) }`.

use errgroup::Group;

fn main() {
    let group: Group = Group::new();
    let _task = group.spawn(async { 5 });
}
