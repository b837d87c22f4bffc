//! The configuration: `er-dev.toml` becomes one checked [`Config`], or an error that points at the place.
//!
//! Everything behind this module may rely on the checks made here: limits that add up, paths that are absolute,
//! names that are names.
//!
//! The way through it: `raw` reads the text into types, `forbidden` looks for what no file may hold, `check`, `routine`
//! and `endpoint` decide, and `error` shows what is wrong. Flags and the environment that stand above the file are the
//! command line's: what they change here comes in as an argument.

mod check;
pub mod draft;
mod endpoint;
mod error;
mod forbidden;
mod glob;
mod origin;
mod raw;
mod routine;

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

pub use self::error::{ConfigError, Invalid, Place};
pub use self::glob::{Glob, split};
pub use self::origin::Setting;
pub use self::routine::PLACEHOLDERS;
use crate::routine::RoutineName;

/// The name of the file that is looked for where none is given.
pub const FILE_NAME: &str = "er-dev.toml";

/// The largest file that is read, in bytes; a larger one is [`ConfigError::TooLarge`].
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The routines, in the order of the file; names are unique. Two routines may have the same entry.
    /// Those that patterns give at a moment are put behind them by whoever looks at the disk.
    pub routines: Vec<Routine>,
    /// The routines that have a pattern as their entry; together with `routines` at least one.
    pub globs: Vec<Glob>,
    /// Routines of which two or more have one name, by what is on the disk at a moment.
    pub contested: Vec<Routine>,
    /// Files that fit a pattern and cannot be routines at a moment, and names that several claim: what and what to do.
    pub refused: Vec<(String, String)>,
}

/// Which service, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Which one it is.
    pub kind: Kind,
    /// Where its API is.
    pub endpoint: Endpoint,
    /// How requests to it are signed.
    pub signature: Signature,
    /// The profile of the vendor's own credential files to take; by default their own current one.
    pub profile: Option<String>,
}

/// Which service is spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// DCDN EdgeRoutine.
    #[default]
    Dcdn,
    /// ESA Functions.
    Esa,
}

/// How requests are signed. The service takes either scheme for every operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
pub enum Signature {
    /// HMAC-SHA1 over the parameters of a request (the service's older scheme).
    #[default]
    #[serde(rename = "hmac-sha1")]
    HmacSha1,
    /// ACS3-HMAC-SHA256 over a request with its headers and body (the scheme that the service recommends).
    #[serde(rename = "acs3-hmac-sha256")]
    Acs3HmacSha256,
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
    /// How changes are noticed.
    pub backend: Backend,
    /// The pause between two looks at what is polled.
    pub poll_interval: Duration,
    /// Patterns in gitignore's syntax, after `.gitignore` and `.erignore`.
    pub ignore: Vec<Pattern>,
}

/// A pattern and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The pattern.
    pub text: String,
    /// The line of the file, counted from 1.
    pub line: usize,
}

/// How changes are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// By events of the system, and by looking where they do not tell of everything.
    Auto,
    /// By events of the system only.
    Native,
    /// By looking only.
    Poll,
}

/// How versions are kept and rotated. `keep_newest < cap - reserve`.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rotate {
    /// Anybody's.
    Any,
    /// Only those that carry an er-dev mark.
    Own,
    /// Nobody's: er-dev deletes nothing.
    Never,
}

/// When the code of an upload is read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// When its outcome is in doubt.
    Doubt,
    /// After every upload.
    Always,
}

/// What an upload makes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Upload {
    /// A version.
    #[default]
    Revision,
    /// What runs on staging, in place of what ran there: one slot, and no version.
    Staging,
}

/// How the daemon runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Daemon {
    /// The address of the status page, if there is one; on this machine only.
    pub listen: Option<SocketAddr>,
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
    /// The line of the file that names the entry, counted from 1.
    pub line: usize,
    /// The directory the entry may not leave, absolute.
    pub root: PathBuf,
    /// The template of the description, before the content mark.
    pub description: String,
    /// Whether JavaScript that does not parse is refused.
    pub check: bool,
    /// Whether the entry may lie behind a symbolic link that leaves its root.
    pub follow: bool,
    /// Whether the routine is made remotely when it is missing.
    pub create: bool,
    /// What an upload makes.
    pub upload: Upload,
    /// Where each upload is put live at once; nowhere where uploads go to staging.
    pub publish_to: Vec<String>,
    /// The command that makes the entry.
    pub build: Option<Build>,
    /// The number of the pattern in [`Config::globs`] that gives it, if one does.
    pub glob: Option<usize>,
}

/// A command that makes entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// What a shell is given, in the directory of the file.
    pub command: String,
    /// What it reads: paths and patterns as the watch room knows them, relative to the directory of the file; at least
    /// one.
    pub watch: Vec<Pattern>,
    /// How long a run may take.
    pub timeout: Duration,
}

impl Build {
    /// Whether another routine names the same build: the same command with the same `watch`, letter for letter. Then it
    /// has the same time, too, and runs once for both.
    pub fn is_same(&self, other: &Self) -> bool {
        let (own, others) = (self.watch.iter(), other.watch.iter());
        self.command == other.command && own.map(|it| &it.text).eq(others.map(|it| &it.text))
    }
}

impl Config {
    /// The directory of the file: where builds run, and where relative paths begin.
    pub fn dir(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("/"))
    }

    /// Each build once, with what it makes.
    pub fn builds(&self) -> Vec<Made<'_>> {
        let mut builds: Vec<Made<'_>> = Vec::new();
        let fixed = self.routines.iter().chain(&self.contested);
        let fixed = fixed.map(|routine| (routine.build.as_ref(), Some(routine), None));
        let globs = self.globs.iter().enumerate();
        let globs = globs.map(|(number, glob)| (glob.build(), None, Some(number)));
        for (build, routine, glob) in fixed.chain(globs) {
            let Some(build) = build else {
                continue;
            };
            let known = builds.iter().position(|known| known.build.is_same(build));
            let known = known.unwrap_or(builds.len());
            if known == builds.len() {
                builds.push(Made {
                    build,
                    routines: Vec::new(),
                    globs: Vec::new(),
                });
            }
            if let Some(made) = builds.get_mut(known) {
                made.routines.extend(routine);
                made.globs.extend(glob);
            }
        }
        builds
    }
}

/// What a build makes.
#[derive(Debug)]
pub struct Made<'a> {
    /// The build.
    pub build: &'a Build,
    /// The routines whose entries it makes.
    pub routines: Vec<&'a Routine>,
    /// The numbers of patterns of [`Config::globs`] whose files it makes.
    pub globs: Vec<usize>,
}

/// Finds the file: the given one, else [`FILE_NAME`] in `cwd` or the nearest directory above it.
///
/// A given file is taken unseen; [`load`] says what is wrong with it.
///
/// # Errors
///
/// [`ConfigError::NotFound`] if none is given and none is there.
pub fn find(given: Option<&Path>, cwd: &Path) -> Result<PathBuf, ConfigError> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    cwd.ancestors()
        .map(|dir| dir.join(FILE_NAME))
        .find(|file| file.is_file())
        .ok_or_else(|| ConfigError::NotFound(cwd.to_owned()))
}

/// Reads and checks the file at `path`. `allow_endpoint` are hosts, with or without a port, that may be an endpoint
/// though they are neither the service nor this machine.
///
/// # Errors
///
/// Any [`ConfigError`] but [`ConfigError::NotFound`].
pub fn load(path: &Path, allow_endpoint: &[String]) -> Result<Config, ConfigError> {
    let unreadable = |source| ConfigError::Read {
        file: path.to_owned(),
        source,
    };
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    parse(&text(path)?, &absolute, &shown(path), allow_endpoint)
}

/// Every key that is in force with the file at `path`, its value, and where that is from. The file was checked before.
///
/// # Errors
///
/// Any [`ConfigError`] about reading the file.
pub fn settings(path: &Path) -> Result<Vec<Setting>, ConfigError> {
    let text = text(path)?;
    Ok(origin::settings(
        text.strip_prefix('\u{feff}').unwrap_or(&text),
    ))
}

fn text(path: &Path) -> Result<String, ConfigError> {
    let bytes = read(path)?;
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..place]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
            + 1;
        ConfigError::Read {
            file: path.to_owned(),
            source: io::Error::other(format!("line {line} is not UTF-8")),
        }
    })
}

/// A path in the form that the paths of a configuration have: absolute, and without `.` and `..`, which are taken from
/// the text and not from the disk. A relative one begins at `dir`.
pub fn absolute(path: &Path, dir: &Path) -> PathBuf {
    routine::plain(&dir.join(path))
}

/// Checks the text of a file. `file` is where it stands, absolute; `shown` is what errors call it.
fn parse(
    text: &str,
    file: &Path,
    shown: &str,
    allow_endpoint: &[String],
) -> Result<Config, ConfigError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    raw::read(text)
        .and_then(|raw| check::check(raw, text, &routine::plain(file), allow_endpoint))
        .map_err(|fault| fault.in_file(shown, text).into())
}

/// The bytes of the file. Opening does not wait, so that a pipe in its place is refused like a directory is.
fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let unreadable = |source| ConfigError::Read {
        file: path.to_owned(),
        source,
    };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| unreadable(e.into()))?;
    let file = std::fs::File::from(file);
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(ConfigError::NotAFile(path.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

/// What people call the file: seen from the working directory where it lies below it.
fn shown(path: &Path) -> String {
    let cwd = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(cwd).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests;
