//! The configuration: `er-dev.toml` becomes one checked [`Config`], or an error that points at the place.
//!
//! Everything behind this module may rely on the checks made here: limits that add up, paths that are absolute,
//! names that are names.

use std::path::PathBuf;
use std::time::Duration;

use crate::routine::RoutineName;

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from, absolute.
    pub file: PathBuf,
    /// Which service, and where.
    pub service: Service,
    /// How many requests may be made.
    pub limits: Limits,
    /// How files are watched.
    pub watch: Watch,
    /// How versions are kept and rotated.
    pub revisions: Revisions,
    /// How the daemon runs.
    pub daemon: Daemon,
    /// The routines, in the order of the file; names and entries are unique, and there is at least one.
    pub routines: Vec<Routine>,
}

/// Which service, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Where its API is.
    pub endpoint: Endpoint,
}

/// The base address of the API: a `dcdn` or `esa` host of aliyuncs.com over https, or a loopback address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Scheme, host and port, without a path and without a trailing slash.
    pub url: String,
    /// Host and, where it is not the scheme's own, port: what people read and what locks are named by.
    pub host: String,
    /// Whether the host is an address of this machine, where plain http is allowed.
    pub loopback: bool,
}

/// How many requests may be made. `requests_per_second + burst + max_in_flight` is at most 99.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests a second in the long run, at least 1.
    pub requests_per_second: u32,
    /// Requests that may come at once after a rest, at least 1.
    pub burst: u32,
    /// Requests on their way at the same time, at least 1.
    pub max_in_flight: u32,
}

/// How files are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// Quiet time after the last change before an edit is taken.
    pub debounce: Duration,
    /// The longest an edit waits for changes to rest.
    pub max_wait: Duration,
    /// The pause between two full looks for changes no event told of.
    pub rescan: Duration,
    /// Patterns in gitignore's syntax, after `.gitignore` and `.erignore`.
    pub ignore: Vec<String>,
}

/// How versions are kept and rotated. `keep_newest < cap - reserve`.
#[derive(Debug, Clone)]
pub struct Revisions {
    /// Versions a routine may hold, at most 10.
    pub cap: usize,
    /// Slots kept free at rest.
    pub reserve: usize,
    /// The newest versions, which rotation never takes.
    pub keep_newest: usize,
    /// Whose versions rotation may take.
    pub rotate: Rotate,
    /// Glob patterns over descriptions; a version that matches one is pinned.
    pub pin: Vec<String>,
    /// When the code of an upload is read back.
    pub verify: Verify,
}

/// Whose versions rotation may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotate {
    /// Anybody's.
    Any,
    /// Only those that carry an er-dev mark.
    Own,
    /// Nobody's: er-dev deletes nothing.
    Never,
}

/// When the code of an upload is read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// When its outcome is in doubt.
    Doubt,
    /// After every upload.
    Always,
}

/// How the daemon runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Daemon {
    /// How long a stop waits for running uploads.
    pub drain: Duration,
}

/// One routine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routine {
    /// Its name on the service.
    pub name: RoutineName,
    /// The file that is its code, absolute.
    pub entry: PathBuf,
    /// The entry as the file wrote it, for descriptions and messages.
    pub shown: String,
    /// The directory the entry may not leave, absolute.
    pub root: PathBuf,
    /// The template of the description, before the content mark.
    pub description: String,
    /// Whether JavaScript that does not parse is refused.
    pub check: bool,
    /// Whether the routine is made remotely when it is missing.
    pub create: bool,
}
