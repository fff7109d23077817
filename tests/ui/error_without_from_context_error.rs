// A group may end because its context did: it needs a way to say so in `E`.

use errgroup::Group;

#[derive(Debug)]
struct FetchError;

impl std::fmt::Display for FetchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("fetch failed")
    }
}

// A field asks for nothing: the bounds stand on functions.
struct Fetcher {
    group: Group<FetchError>,
}

fn main() {
    let fetcher = Fetcher {
        group: Group::new(),
    };
    drop(fetcher.group);
}
