#![allow(dead_code)]
#[path = "it/supervisor_command.rs"]
mod supervisor_command;
#[path = "it/supervisor_restart.rs"]
mod supervisor_restart;
#[path = "it/supervisor_stop.rs"]
mod supervisor_stop;
#[path = "it/supervisor_support.rs"]
mod supervisor_support;
#[path = "it/support.rs"]
mod support;
