//! Whole-program tests, one file a promise; they share the test bed of `common`.
//!
//! They are one program, because building and linking thirty takes longer than running them, and because tests that wait
//! for a program, a clock or a socket wait at the same time then. `cargo test kills::` runs one file.

mod common;

mod builds;
mod canaries;
mod changes;
mod cli;
mod company;
mod completions;
mod control;
mod doctor;
mod errors;
mod explain;
mod forms;
mod globs;
mod init;
mod keys;
mod kills;
mod limits;
mod line;
mod live;
mod main_job;
mod manager;
mod missing;
mod model;
mod names;
mod network;
mod pages;
mod permissions;
mod pruning;
mod restore;
mod robust;
mod roots;
mod rotation;
mod saves;
mod service;
mod shapes;
mod shown;
mod soak;
mod sources;
mod staging;
mod state;
mod storms;
mod terminal;
mod tidy;
mod tls;
mod torn;
mod trust;
