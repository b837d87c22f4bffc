//! Watching: from files on a disk to "the bytes of this routine changed".
//!
//! | file | job |
//! |---|---|
//! | `select` | pure: which paths count, and why |
//! | `debounce` | pure: hints become settled changes |
//! | `wanted` | pure: which files of a tree patterns name |
//! | `claims` | pure: which file has which routine's name |
//! | `looks` | pure: when to look where no event asks for it |
//! | `events` | notify's events become hints |
//! | `plan` | which directories have to be watched, and what to listen for there |
//! | `watches` | notify's watches, kept where a plan wants them |
//! | `backend` | by events, by looking, or in both ways; what is said where events run out |
//! | `marker` | how to know that every event of the past has been heard |
//! | `roots` | whether the places of entries still stand, and if not, what became of them |
//! | `snapshot` | what the disk holds: stat keys, digests |
//! | `tree` | what is known of the files of one tree, and how they differ from it |
//! | `trees` | all trees: the inputs of builds, and the files that fit patterns |
//! | [`globs`] | the files that fit patterns at one moment |
//! | `known` | what is known of one entry, and whether it can be taken as it is |
//! | `outbox` | what is to be said, handed over in order |
//! | [`explain`] | what a path is: entry, ignored by which rule, or nothing |
//! | [`survey`] | whether this machine lets er-dev watch what it has to |
//! | `thread` | the loop that ties them together, and what a look does |
//! | [`source`] | one entry becomes [`crate::routine::Code`], or the reason why not |
//! | [`syntax`] | whether JavaScript parses, and where it does not |
//! | `runtime` | pure: what the service may take otherwise than the code expects |
//! | [`secrets`] | pure: keys that stand in code |
//!
//! Events are hints and never the truth. A hint starts a quiet time, and what the file holds after it decides. So an
//! event that is lost, doubled or without a path costs one more look at a file and never an edit.
//!
//! The room knows nothing of uploads: it hands [`Edit`]s over and leaves every decision about them to the other side.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::config::{Backend, Glob, Pattern, Routine};
use crate::routine::{Edit, RoutineName, Sighting};

mod backend;
mod claims;
mod debounce;
mod events;
pub mod explain;
pub mod globs;
mod known;
mod looks;
mod marker;
mod outbox;
mod plan;
mod roots;
#[cfg(feature = "syntax-check")]
mod runtime;
pub mod secrets;
pub mod select;
mod snapshot;
pub mod source;
pub mod survey;
pub mod syntax;
mod thread;
mod tree;
mod trees;
mod wanted;
mod watches;

/// A routine as the watch room sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub routine: RoutineName,
    /// The file that is its code, absolute.
    pub entry: PathBuf,
    /// The directory the entry may not leave, absolute.
    pub root: PathBuf,
    /// Whether JavaScript that does not parse is refused.
    pub check: bool,
    /// Whether symbolic links may lead the entry out of its root.
    pub follow: bool,
    /// The number of the pattern that gives it, if one does.
    pub glob: Option<usize>,
}

impl Target {
    /// What watching needs to know of a routine.
    pub fn of(routine: &Routine) -> Self {
        Self {
            routine: routine.name.clone(),
            entry: routine.entry.clone(),
            root: routine.root.clone(),
            check: routine.check,
            follow: routine.follow,
            glob: routine.glob,
        }
    }
}

/// The files that one build reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    /// The number of the build.
    pub build: usize,
    /// The directory that relative patterns begin at, absolute.
    pub dir: PathBuf,
    /// Paths and patterns: `src`, `src/**/*.ts`, `!src/generated`.
    pub patterns: Vec<Pattern>,
}

/// How files are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Quiet time after the last change before an edit is taken.
    pub debounce: Duration,
    /// The longest an edit waits for changes to rest. A file that is being written is waited for even then.
    pub max_wait: Duration,
    /// The pause between two full looks for changes no event told of; entries are looked at ten times as often.
    pub rescan: Duration,
    /// How changes are noticed.
    pub backend: Backend,
    /// The pause between two looks at what is polled.
    pub poll_interval: Duration,
    /// Patterns in gitignore's syntax, after `.gitignore` and `.erignore`.
    pub ignore: Vec<Pattern>,
    /// A directory of er-dev's own, outside of every project, on a file system that has events. Markers are made and
    /// removed there to learn that all earlier events have arrived.
    pub private: PathBuf,
}

/// Why watching cannot begin, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The user's inotify watches are used up.
    #[error(
        "cannot watch `{}`: no inotify watch is left for this user (fs.inotify.max_user_watches); raise the limit with `sudo sysctl fs.inotify.max_user_watches=524288`",
        path.display()
    )]
    Watches {
        /// The directory that could not be watched.
        path: PathBuf,
    },
    /// The user's inotify instances, or the files this process may open, are used up.
    #[error(
        "cannot start watching: no inotify instance is left for this user (fs.inotify.max_user_instances) or no file descriptor for this process; raise the limits with `sudo sysctl fs.inotify.max_user_instances=1024` and `ulimit -n 1024`"
    )]
    Instances,
    /// A pattern is none.
    #[error(transparent)]
    Pattern(#[from] select::PatternError),
    /// The system refuses file events.
    #[error("cannot start watching: {0}")]
    Notify(notify::Error),
    /// The system refuses a thread.
    #[error("cannot start the thread that watches: {0}")]
    Thread(std::io::Error),
    /// The source of file events went away while watching began.
    #[error("file events ended unexpectedly; start er-dev again")]
    Ended,
    /// The watching thread panicked; its message is on standard error.
    #[error("the thread that watches panicked; start er-dev again")]
    Panicked,
}

/// Running watches. Dropping it ends them.
///
/// If the thread behind it fails, the channel of sightings closes and [`Watching::stop`] says why.
#[derive(Debug)]
pub struct Watching {
    /// Files seen in the directories of entries, ignored ones left out; at most 10,000 are counted.
    pub files: usize,
    /// Directories that entries are in.
    pub directories: usize,
    /// How changes are noticed: by `inotify`, by `poll`, or by `inotify and poll`.
    pub backend: &'static str,
    shared: Arc<events::Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watching {
    /// What asks these watches for everything that has been changed so far.
    pub fn sync(&self) -> Sync {
        Sync(Arc::clone(&self.shared))
    }

    /// Ends the watches and waits until their thread is done, a fraction of a second at most.
    ///
    /// The error is what had ended the thread before, if anything had. Edits that were not yet taken out of the
    /// channel stay in it.
    pub fn stop(mut self) -> Result<(), WatchError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), WatchError> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        self.shared.stop();
        thread.join().map_err(|_| WatchError::Panicked)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!("{error}");
        }
    }
}

/// Asks running watches to tell of everything that has been changed so far, and how they notice it.
#[derive(Debug, Clone)]
pub struct Sync(Arc<events::Shared>);

/// How changes of a routine's entry are noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noticing {
    /// By `inotify`, `poll`, `inotify and poll`, or `rare looks`.
    pub by: &'static str,
    /// Why not by events alone: a lower-case fragment.
    pub why: Option<String>,
}

impl Sync {
    /// How changes of each routine are noticed at present.
    pub fn noticing(&self) -> BTreeMap<RoutineName, Noticing> {
        self.0.inbox().noticing.clone()
    }

    /// Lets [`Sighting::Synced`] with this number follow the edits of all changes made before this call. It takes until
    /// all of them have come to rest; a writer that never closes its file holds it up.
    pub fn ask(&self, number: u64) {
        self.0.sync(number);
    }
}

/// Arms the watches, looks at every entry and starts the thread that says what changes later.
///
/// The first edit of every routine is returned, in the order of `targets`, with 0 saves; a routine whose root is away
/// has none, and [`Sighting::Halted`] is the first thing said of it. From then on, whenever an entry comes to rest with
/// bytes other than those of the last edit of its routine, another edit follows. A save that leaves the bytes as they
/// were is an edit too; a change of permissions alone is none.
///
/// No edit after the first one has the digest of a half-written file, provided its writer closes it.
///
/// Files that fit one of `globs` are routines as long as they are there. Those of `targets` are known from the start;
/// of any other, [`Sighting::Came`] comes before its first edit. Of targets with one name none is watched for edits until
/// it is the only one; that there are several is among the first things said.
///
/// Of `inputs` what there is at the start is taken as it is; what changes later is told by [`Sighting::Inputs`].
pub fn start(
    targets: Vec<Target>,
    inputs: Vec<Inputs>,
    globs: Vec<Glob>,
    settings: Settings,
    sightings: mpsc::Sender<Sighting>,
) -> Result<(Watching, Vec<Edit>), WatchError> {
    start_with(
        targets,
        &inputs,
        globs,
        &settings,
        sightings,
        Box::new(watches::inotify),
    )
}

/// The same with another source of events.
fn start_with(
    targets: Vec<Target>,
    inputs: &[Inputs],
    globs: Vec<Glob>,
    settings: &Settings,
    sightings: mpsc::Sender<Sighting>,
    make: watches::Make,
) -> Result<(Watching, Vec<Edit>), WatchError> {
    let homes = snapshot::homes(&targets);
    let select = snapshot::select(&targets, &homes, &settings.ignore)?;
    let (mut lookout, shared) =
        thread::Lookout::new(targets, inputs, globs, settings, sightings, make)?;
    let first = lookout.first_scan()?;
    let files = snapshot::count(lookout.targets(), &select);
    let directories = lookout.directories();
    let backend = lookout.means().name();
    let thread = std::thread::Builder::new()
        .name("watch".into())
        .spawn(move || lookout.run())
        .map_err(WatchError::Thread)?;
    let watching = Watching {
        files,
        directories,
        backend,
        shared,
        thread: Some(thread),
    };
    Ok((watching, first))
}

#[cfg(test)]
mod tests;
