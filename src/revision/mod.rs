//! The revision manager: makes a version of some bytes, and room for it.
//!
//! [`rotation`] says which versions may go, [`protocol`] what to do next, [`mark`] how a version tells what it holds;
//! these are pure. [`deploy`] carries the steps out, under the locks of [`lock`]; [`intent`] keeps what was sent and is
//! not known yet, and [`vault`] the code of what was deleted.

pub mod deploy;
pub mod intent;
pub mod lock;
pub mod mark;
pub mod protocol;
pub mod rotation;
pub mod vault;
