//! The services, run as processes, with real sockets, signals and databases.
//!
//! Nothing here depends on time: conditions are polled for, and `PATIENCE` only turns a process that hangs into a
//! failure.

#![cfg(unix)]

mod daemon;
mod mirrors;
mod postgres;
mod relay;
mod search_server;
mod slow_query;
mod support;
