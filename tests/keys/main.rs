//! Keys from where people keep them, keys that end, and keys that change while a watch runs.

#[path = "../common/mod.rs"]
mod common;

mod changes;
mod handed;
mod sources;
