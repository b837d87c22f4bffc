//! Builds: the commands that make entries.
//!
//! | file | job |
//! |---|---|
//! | [`turns`] | pure: which build runs when, which run is ended, and what is a loop |
//! | [`run`] | one run: a process group, its output, its end |
//!
//! A build knows nothing of uploads. It is told that files it reads have changed, and says how its runs end; that the
//! entries it makes wait meanwhile is the matter of the schedule.

use std::path::PathBuf;
use std::time::Duration;

use crate::routine::RoutineName;

pub mod run;
pub mod turns;

/// A command that makes the entries of one or several routines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// What a shell is given.
    pub command: String,
    /// Where it runs, absolute.
    pub dir: PathBuf,
    /// How long a run may take.
    pub timeout: Duration,
    /// All of its environment.
    pub environment: Vec<(&'static str, String)>,
    /// The file that a run holds a lock on, so that no two er-dev run it at once.
    pub lock: PathBuf,
    /// The routines whose entries it makes.
    pub routines: Vec<RoutineName>,
    /// The numbers of patterns whose files are such entries, too.
    pub globs: Vec<usize>,
    /// The entries of those, absolute. They are what it writes and never what it reads.
    pub entries: Vec<PathBuf>,
}
