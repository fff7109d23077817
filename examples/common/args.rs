//! What the arguments of these programs have in common.

use std::num::NonZeroUsize;
use std::thread;

use clap::Parser;
use clap::error::{ContextKind, ContextValue};

/// Parses the arguments, or ends the program with the usage.
pub(crate) fn parse<A: Parser>() -> A {
    A::try_parse().unwrap_or_else(|mut error| {
        // clap itself leaves the usage out where only a value is wrong.
        let usage = A::command().render_usage();
        error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
        error.exit()
    })
}

pub(crate) fn processors() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
