// The default of `E` holds where the type is written out: `let group: Group = …`.

use errgroup::Group;

fn main() {
    let group = Group::new();
    group.spawn(async { Ok(()) });
}
