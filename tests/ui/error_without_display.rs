// The reason of a context that a failure ended quotes the error.

use errgroup::{ContextError, Group};

#[derive(Debug)]
struct FetchError;

impl From<ContextError> for FetchError {
    fn from(_: ContextError) -> Self {
        FetchError
    }
}

struct Fetcher {
    _group: Group<FetchError>,
}

fn main() {}
