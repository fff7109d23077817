// The reason of a context that a failure ended quotes the error.

use errgroup::{ContextError, Group};

#[derive(Debug)]
struct FetchError;

impl From<ContextError> for FetchError {
    fn from(_: ContextError) -> Self {
        FetchError
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
