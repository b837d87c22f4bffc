//! The revision manager: makes a version of some bytes, and room for it.
//!
//! [`rotation`] says which versions may go, [`protocol`] what to do next, [`mark`] how a version tells what it holds;
//! these are pure. [`deploy`] carries the steps out, under the locks of [`lock`]; [`intent`] keeps what was sent and is
//! not known yet, [`vault`] the code of what was deleted, and [`pins`] what a person wants to keep. [`naming`] tells which
//! version a person means.

pub mod deploy;
pub mod git;
pub mod intent;
pub mod lock;
pub mod mark;
pub mod naming;
pub mod pins;
pub mod protocol;
pub mod rotation;
pub mod template;
pub mod vault;
