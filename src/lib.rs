//! er-dev keeps Alibaba Cloud EdgeRoutine code in step with the files on a developer's disk.
//!
//! # The line
//!
//! ```text
//!  disk            watch                     pipeline              revision                  cloud                     report
//!  a save  -->  hint -> settled -> edit --> queue --> one deploy a routine --> gate -> sign -> send -> decode  --> one line
//!               events  debounce            (newest    store: list, find, make room, upload     |                  an edit
//!                                            wins)     trim: list, save, delete                 |
//!                                              ^                   |                            |
//!                                              +-- stored | try again | failed <----------------+
//! ```
//!
//! Events of the file system are hints; the bytes of the entry decide. The queue holds that a routine is out of date,
//! not what happened to it. The remote's own listing is the journal: a mark in each version's description says what it
//! was meant to hold, and reading it back proves it.
//!
//! # The rooms, in reading order
//!
//! A room on the line may be entered only from its left; `commands` does the wiring.
//!
//! * [`cli`] argv becomes a command.
//! * [`config`] the file becomes a checked configuration.
//! * [`routine`] the words every room shares.
//! * [`nearest`] what somebody may have meant who wrote something else.
//! * [`environment`] what a program that er-dev starts gets to know of its environment.
//! * [`clock`] the time since boot, which survives suspends and is the same for all processes.
//! * [`secrets`] what no text may go out with.
//! * [`process`] what is done for them before anything else.
//! * [`traffic`] what is asked of the service, counted.
//! * [`watch`] disk to "this routine's entry came to rest".
//! * [`build`] the commands that make entries: which runs when, and how it is ended.
//! * [`pipeline`] what to deploy next, and how every edit ends.
//! * [`revision`] makes a version of some bytes, and room for it.
//! * [`cloud`] the remote service: signed requests behind one gate.
//! * [`report`] events become lines.
//! * [`control`] the socket and the page of a running watch: how it stands, for those who ask.
//! * [`state`] the directory of what is kept between runs.
//! * [`commands`] one file a subcommand.
//! * [`emulator`] the remote, for the first run and the tests.
//!
//! # What always holds
//!
//! 1. Pure files touch nothing: no file, socket, clock or random number.
//! 2. Every request of the API takes a permit of the gate.
//! 3. An edit is never lost: it ends in exactly one way, and the last one ends on the service or in an error.
//! 4. A live version is never deleted.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

pub mod cli;
pub mod config;
pub mod routine;

pub mod nearest;

pub mod environment;

pub mod clock;

pub mod secrets;

pub mod process;

pub mod traffic;

pub mod watch;

pub mod build;

pub mod pipeline;

pub mod revision;

pub mod cloud;

pub mod report;

pub mod control;

pub mod state;

pub mod commands;

pub mod emulator;
