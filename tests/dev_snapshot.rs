//! While it is developed.
#[path = "it/snapshot.rs"]
mod snapshot;
#[path = "it/snapshot_stragglers.rs"]
mod snapshot_stragglers;
#[path = "it/snapshot_testing.rs"]
mod snapshot_testing;
#[path = "it/snapshot_tracing.rs"]
mod snapshot_tracing;
