//! notify's events become hints, and notify's watches are kept where a plan wants them.
//!
//! notify calls from a thread of its own that must not be held up. So the callback only marks, under a short lock, what
//! its event is about: a pending change of a routine, a directory that came or went, or that something was missed. All
//! of that is bounded by the number of routines and of watched paths, whatever storm of events comes.
//!
//! Each directory has a watch of its own and none is recursive: notify's recursive watches lose files that are made
//! together with their directory, and go on under the wrong path when a directory is replaced.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{
    ErrorKind, Event, EventHandler, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
};

use super::WatchError;
use super::debounce::{Debounce, Hint};
use super::snapshot::{DirectoryId, Plan, directory_id};

/// What the watching thread shares with notify's callback and with the handle that stops it.
#[derive(Debug)]
pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
}

/// What has been heard and not yet been dealt with.
#[derive(Debug)]
pub(super) struct Inbox {
    /// The changes of entries.
    pub(super) debounce: Debounce,
    /// The routines with a hint since the thread last looked.
    pub(super) heard: HashSet<usize>,
    /// Where entries are, with the numbers of their routines.
    pub(super) entries: HashMap<PathBuf, Vec<usize>>,
    /// Where directories matter.
    pub(super) ways: HashSet<PathBuf>,
    /// Those of `ways` where a directory came or went.
    pub(super) moved: HashSet<PathBuf>,
    /// Events were lost, nobody knows which.
    pub(super) missed: bool,
    /// Syncs that were asked for and not begun.
    pub(super) syncs: Vec<u64>,
    /// The marker whose event is waited for.
    pub(super) awaited: Option<PathBuf>,
    /// Whether there is any more to come.
    pub(super) life: Life,
}

/// Whether watching goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It does.
    Running,
    /// A stop was asked for.
    Stopping,
    /// notify's thread is gone, and with it the events.
    Ended,
}

/// The watches that notify holds.
#[derive(Debug)]
pub(super) struct Watches {
    watcher: RecommendedWatcher,
    armed: HashMap<PathBuf, DirectoryId>,
    /// Directories that could not be watched and have been warned about.
    refused: HashSet<PathBuf>,
}

/// The callback. notify drops it when its thread ends, in whatever way.
struct Ear(Arc<Shared>);

impl Shared {
    pub(super) fn new(debounce: Debounce) -> Arc<Self> {
        Arc::new(Self {
            inbox: Mutex::new(Inbox {
                debounce,
                heard: HashSet::new(),
                entries: HashMap::new(),
                ways: HashSet::new(),
                moved: HashSet::new(),
                missed: false,
                syncs: Vec::new(),
                awaited: None,
                life: Life::Running,
            }),
            wake: Condvar::new(),
        })
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // Nothing in the inbox can be half done, so what a panicking thread left behind is good.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the inbox away until something is heard or the time has come.
    pub(super) fn wait<'a>(
        &self,
        inbox: MutexGuard<'a, Inbox>,
        until: Instant,
    ) -> MutexGuard<'a, Inbox> {
        let pause = until.saturating_duration_since(Instant::now());
        let waited = self.wake.wait_timeout(inbox, pause);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Lets the thread look at the inbox.
    pub(super) fn wake(&self) {
        self.wake.notify_all();
    }

    /// Asks the thread to tell of everything up to now.
    pub(super) fn sync(&self, number: u64) {
        self.inbox().syncs.push(number);
        self.wake();
    }

    /// Asks the thread to end.
    pub(super) fn stop(&self) {
        let mut inbox = self.inbox();
        if inbox.life == Life::Running {
            inbox.life = Life::Stopping;
        }
        self.wake();
    }
}

impl Inbox {
    /// Notes what an event is about; false if it is about nothing that matters.
    fn hear(&mut self, event: notify::Result<Event>, now: Instant) -> bool {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::debug!("file events: {error}");
                self.missed = true;
                return true;
            }
        };
        // An overflow of the system's queue comes without a path.
        if event.need_rescan() {
            self.missed = true;
            return true;
        }
        let Some(hint) = hint(event.kind) else {
            return false;
        };
        let mut matters = false;
        for path in &event.paths {
            if self.awaited.as_ref() == Some(path) {
                self.awaited = None;
                matters = true;
            }
            for &routine in self.entries.get(path).into_iter().flatten() {
                if self.debounce.hint(routine, hint, now) {
                    self.heard.insert(routine);
                    matters = true;
                }
            }
            let comes_or_goes = matches!(hint, Hint::Created | Hint::Arrived | Hint::Removed);
            if comes_or_goes && self.ways.contains(path) {
                self.moved.insert(path.clone());
                matters = true;
            }
        }
        matters
    }
}

impl EventHandler for Ear {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        let matters = self.0.inbox().hear(event, Instant::now());
        if matters {
            self.0.wake();
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.0.inbox().life = Life::Ended;
        self.0.wake();
    }
}

impl Watches {
    pub(super) fn new(shared: &Arc<Shared>) -> Result<Self, WatchError> {
        let ear = Ear(Arc::clone(shared));
        let watcher = RecommendedWatcher::new(ear, notify::Config::default());
        let watcher = watcher.map_err(|error| match &error.kind {
            ErrorKind::Io(io) if is_limit(io) => WatchError::Instances,
            _ => WatchError::Notify(error),
        })?;
        Ok(Self {
            watcher,
            armed: HashMap::new(),
            refused: HashSet::new(),
        })
    }

    /// Gives all watches back, so that the next plan arms every one anew.
    pub(super) fn forget(&mut self) {
        let armed: Vec<_> = self.armed.keys().cloned().collect();
        for path in armed {
            self.disarm(&path);
        }
    }

    /// Watches exactly the directories of a plan, anew those that `moved` or lie in one that did, and returns the ones
    /// that were not watched without a gap since the last plan.
    ///
    /// A directory that cannot be watched is warned about once and left to the periodic looks; running out of watches
    /// is an error, and the rest of the plan is not armed then.
    pub(super) fn arm(
        &mut self,
        plan: &Plan,
        moved: &HashSet<PathBuf>,
    ) -> Result<HashSet<PathBuf>, WatchError> {
        // notify keeps watches by path and loses the newer of two, so an old one goes before a new one comes. And when
        // a directory goes, notify drops by itself what it watches at that path and below, even if it is newer.
        let old = |path: &Path, id| {
            plan.directories.get(path) != Some(&id) || moved.iter().any(|it| path.starts_with(it))
        };
        let armed = self.armed.iter().filter(|&(path, &id)| old(path, id));
        let old: Vec<_> = armed.map(|(path, _)| path.clone()).collect();
        for path in old {
            self.disarm(&path);
        }
        let mut fresh = HashSet::new();
        for (path, &id) in &plan.directories {
            if !self.armed.contains_key(path) && self.arm_one(path, id)? {
                fresh.insert(path.clone());
            }
        }
        Ok(fresh)
    }

    fn arm_one(&mut self, path: &Path, id: DirectoryId) -> Result<bool, WatchError> {
        let watched = self.watcher.watch(path, RecursiveMode::NonRecursive);
        match watched {
            Ok(()) => {
                self.refused.remove(path);
                self.armed.insert(path.to_path_buf(), id);
                // Another directory may have taken the name meanwhile; the next plan sees that and arms it anew.
                if directory_id(path) != Some(id) {
                    self.disarm(path);
                }
                Ok(true)
            }
            Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => {
                Err(WatchError::Watches {
                    path: path.to_path_buf(),
                })
            }
            // It is gone since the plan was made, so that another plan is needed.
            Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => Ok(true),
            Err(error) => {
                if self.refused.insert(path.to_path_buf()) {
                    tracing::warn!(
                        "`{}` cannot be watched, so changes there are only seen by looking: {error}",
                        path.display()
                    );
                }
                Ok(false)
            }
        }
    }

    fn disarm(&mut self, path: &Path) {
        self.armed.remove(path);
        // notify has dropped it by itself if the directory is gone.
        let _ = self.watcher.unwatch(path);
    }
}

fn is_limit(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

/// What an event says about the file it names; `None` for what changes nothing.
fn hint(kind: EventKind) -> Option<Hint> {
    match kind {
        EventKind::Create(_) => Some(Hint::Created),
        EventKind::Remove(_) => Some(Hint::Removed),
        // Both ends of a rename have had an event of their own before this one.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => None,
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) => Some(Hint::Removed),
        EventKind::Modify(ModifyKind::Name(_)) => Some(Hint::Arrived),
        EventKind::Modify(ModifyKind::Metadata(_)) => Some(Hint::Touched),
        EventKind::Modify(_) => Some(Hint::Written),
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Hint::Closed),
        EventKind::Access(AccessKind::Open(_)) => Some(Hint::Opened),
        EventKind::Access(_) | EventKind::Any | EventKind::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use notify::event::{CreateKind, DataChange, Flag, MetadataKind, RemoveKind};

    use super::*;

    fn inbox() -> Inbox {
        let debounce = Debounce::new(1, Duration::from_millis(100), Duration::from_secs(2));
        let shared = Shared::new(debounce);
        let mut inbox = Arc::into_inner(shared).unwrap().inbox.into_inner().unwrap();
        inbox.entries.insert("/p/index.js".into(), vec![0]);
        inbox.ways.insert("/p".into());
        inbox
    }

    fn event(kind: EventKind, path: &str) -> notify::Result<Event> {
        Ok(Event::new(kind).add_path(path.into()))
    }

    #[test]
    fn events_of_other_files_and_mere_reading_start_nothing() {
        let mut inbox = inbox();
        let now = Instant::now();
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        inbox.hear(event(written, "/p/other.js"), now);
        for access in [
            AccessKind::Open(AccessMode::Any),
            AccessKind::Close(AccessMode::Read),
            AccessKind::Read,
        ] {
            inbox.hear(event(EventKind::Access(access), "/p/index.js"), now);
        }
        assert_eq!(inbox.debounce.next_deadline(), None);
        inbox.hear(event(written, "/p/index.js"), now);
        assert!(inbox.debounce.next_deadline().is_some());
    }

    #[test]
    fn an_overflow_or_an_error_means_that_everything_may_have_changed() {
        let mut overflown = inbox();
        let event = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        overflown.hear(Ok(event), Instant::now());
        assert!(overflown.missed);

        let mut failed = inbox();
        failed.hear(Err(notify::Error::generic("lost")), Instant::now());
        assert!(failed.missed);
    }

    #[test]
    fn a_directory_that_comes_or_goes_is_noted_and_one_that_is_touched_is_not() {
        let mut inbox = inbox();
        let now = Instant::now();
        let touched = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
        inbox.hear(event(touched, "/p"), now);
        assert!(inbox.moved.is_empty());
        for kind in [
            EventKind::Create(CreateKind::Folder),
            EventKind::Remove(RemoveKind::Folder),
            EventKind::Modify(ModifyKind::Name(RenameMode::From)),
            EventKind::Modify(ModifyKind::Name(RenameMode::To)),
        ] {
            inbox.hear(event(kind, "/p"), now);
            assert_eq!(inbox.moved.drain().count(), 1, "{kind:?}");
        }
    }

    #[test]
    fn one_rename_is_one_save() {
        let mut inbox = inbox();
        let now = Instant::now();
        let name = |mode| EventKind::Modify(ModifyKind::Name(mode));
        inbox.hear(event(name(RenameMode::From), "/p/new"), now);
        inbox.hear(event(name(RenameMode::To), "/p/index.js"), now);
        let both = Event::new(name(RenameMode::Both)).add_path("/p/new".into());
        inbox.hear(Ok(both.add_path("/p/index.js".into())), now);
        let due = inbox.debounce.due(now + Duration::from_millis(100));
        assert_eq!(inbox.debounce.settle(0, due[0].ticket), Some(1));
    }
}
