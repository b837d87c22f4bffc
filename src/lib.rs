//! er-dev keeps Alibaba Cloud EdgeRoutine code in step with the files on a developer's disk.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

pub mod cloud;
pub mod config;
pub mod emulator;
pub mod pipeline;
pub mod report;
pub mod revision;
pub mod routine;
pub mod state;
pub mod watch;
