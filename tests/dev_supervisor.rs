#![allow(dead_code)]
#[path = "it/support.rs"]
mod support;
#[path = "it/supervisor_support.rs"]
mod supervisor_support;
#[path = "it/supervisor_restart.rs"]
mod supervisor_restart;
