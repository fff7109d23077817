// A group may end because its context did: it needs a way to say so in `E`.

use errgroup::Group;

#[derive(Debug)]
struct FetchError;

impl std::fmt::Display for FetchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("fetch failed")
    }
}

struct Fetcher {
    _group: Group<FetchError>,
}

fn main() {}
