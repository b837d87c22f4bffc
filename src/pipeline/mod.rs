//! What to do next: edits come in, at most one deploy a routine goes out, and every edit ends in exactly one way.
//!
//! [`queue`] knows what is out of date, [`schedule`] decides and counts, both without a clock of their own; [`daemon`]
//! is the loop around them, [`builds`] runs what makes entries, [`guests`] are routines that come while it runs, [`asked`]
//! answers those who ask how everything stands, and [`viewer`] shows that to those who look. What a deploy is, and where
//! edits come from, is handed in.

pub mod asked;
pub mod builds;
pub mod daemon;
pub mod guests;
pub mod queue;
pub mod schedule;
pub mod viewer;
