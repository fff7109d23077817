//! While it is developed.
#[path = "it/snapshot.rs"]
mod snapshot;
