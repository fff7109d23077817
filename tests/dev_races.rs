#![allow(dead_code, unused_imports)]
#[path = "it/support.rs"]
mod support;
#[macro_use]
#[path = "it/group_support.rs"]
mod group_support;
#[path = "it/batch_race.rs"]
mod batch_race;
#[path = "it/batch_race_model.rs"]
mod batch_race_model;
#[path = "it/batch_settle.rs"]
mod batch_settle;
#[path = "it/batch_stagger.rs"]
mod batch_stagger;
#[path = "it/batch_support.rs"]
mod batch_support;
