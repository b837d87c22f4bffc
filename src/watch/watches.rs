//! notify's watches, kept where a plan wants them.
//!
//! Each directory has a watch of its own and none is recursive: notify's recursive watches lose files that are made
//! together with their directory, and go on under the wrong path when a directory is replaced.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use notify::{ErrorKind, RecommendedWatcher, RecursiveMode, Watcher};
use rustix::io::Errno;

use super::backend::Lack;
use super::events::{Ear, Life, Shared};
use super::looks::Backoff;
use super::plan::{DirectoryId, Plan, directory_id};

/// What holds the system's watches.
pub(super) type Holder = Box<dyn Watcher + Send>;

/// What makes such a holder.
pub(super) type Make = Box<dyn Fn(Ear) -> notify::Result<Holder> + Send>;

/// The watches there are.
pub(super) struct Watches {
    shared: Arc<Shared>,
    /// Nothing, where nothing is to be watched.
    make: Option<Make>,
    holder: Option<Holder>,
    armed: HashMap<PathBuf, DirectoryId>,
    backoff: Backoff,
    /// When what lacks is tried again.
    retry: Option<Instant>,
    /// When a holder that was made after a failure will have proven itself.
    proven: Option<Instant>,
}

/// What became of the watches that a plan asked for.
#[derive(Debug, Default)]
pub(super) struct Armed {
    /// The directories that were not watched without a gap since the last plan.
    pub(super) fresh: HashSet<PathBuf>,
    /// Why some are not watched at all.
    pub(super) lack: Option<Lack>,
}

/// notify's own.
pub(super) fn inotify(ear: Ear) -> notify::Result<Holder> {
    let watcher = RecommendedWatcher::new(ear, notify::Config::default())?;
    Ok(Box::new(watcher))
}

impl Watches {
    pub(super) fn new(shared: &Arc<Shared>, make: Option<Make>) -> Self {
        Self {
            shared: Arc::clone(shared),
            make,
            holder: None,
            armed: HashMap::new(),
            backoff: Backoff::new(),
            retry: None,
            proven: None,
        }
    }

    /// Gives all watches back, so that the next plan arms every one anew.
    pub(super) fn forget(&mut self) {
        let armed: Vec<_> = self.armed.keys().cloned().collect();
        for path in armed {
            self.disarm(&path);
        }
    }

    /// Takes over that the holder has ended, and all watches with it.
    pub(super) fn ended(&mut self) {
        // notify panics when a watcher is dropped whose thread is gone already, and gives back what it holds
        // nevertheless.
        let holder = self.holder.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(holder)));
        self.armed.clear();
        let mut inbox = self.shared.inbox();
        if matches!(inbox.life, Life::Ended | Life::Failing) {
            inbox.life = Life::Running;
        }
        drop(inbox);
        self.shared.wake();
        self.retry = Some(self.backoff.failed(Instant::now()));
    }

    /// When what lacks is to be tried again.
    pub(super) fn retry(&self) -> Option<Instant> {
        self.retry
    }

    /// Whether a directory is watched.
    pub(super) fn holds(&self, path: &Path) -> bool {
        self.armed.contains_key(path)
    }

    /// Whether any is.
    pub(super) fn any(&self) -> bool {
        !self.armed.is_empty()
    }

    /// Watches exactly the directories of a plan, anew those that `moved` or lie in one that did.
    ///
    /// One directory that cannot be watched keeps no other from it. When watches run out, the rest of the plan is left
    /// unwatched until they are tried again.
    pub(super) fn arm(&mut self, plan: &Plan, moved: &HashSet<PathBuf>) -> Armed {
        let mut armed = Armed::default();
        // notify keeps watches by path and loses the newer of two, so an old one goes before a new one comes. And when
        // a directory goes, notify drops by itself what it watches at that path and below, even if it is newer.
        let old = |path: &Path, id| {
            plan.directories.get(path) != Some(&id) || moved.iter().any(|it| path.starts_with(it))
        };
        let gone = self.armed.iter().filter(|&(path, &id)| old(path, id));
        let gone: Vec<_> = gone.map(|(path, _)| path.clone()).collect();
        for path in gone {
            self.disarm(&path);
        }
        let Some(make) = &self.make else {
            return armed;
        };
        let now = Instant::now();
        let waits = self.retry.is_some_and(|retry| now < retry);
        if self.holder.is_none() && waits {
            armed.lack = Some(Lack::Failing);
            return armed;
        }
        if self.holder.is_none() {
            match make(Ear::new(&self.shared)) {
                Ok(holder) => {
                    self.holder = Some(holder);
                    self.proven = self.retry.map(|_| now + self.backoff.pause());
                }
                Err(error) => {
                    armed.lack = Some(lack(error));
                    // The callback was dropped, which says the same as the end of a holder.
                    self.ended();
                    return armed;
                }
            }
        }
        for (path, &id) in &plan.directories {
            if self.armed.contains_key(path) {
                continue;
            }
            match self.arm_one(path, id) {
                Ok(true) => {
                    armed.fresh.insert(path.clone());
                }
                Ok(false) => {}
                Err(lack @ Lack::Directory(..)) => {
                    armed.lack.get_or_insert(lack);
                }
                Err(lack) => {
                    armed.lack = Some(lack);
                    break;
                }
            }
        }
        self.proven = self.proven.filter(|&proven| now < proven);
        match (&armed.lack, self.proven) {
            (None, None) => self.retry = None,
            (None, Some(proven)) => {
                armed.lack = Some(Lack::Failing);
                self.retry = Some(proven);
            }
            (Some(_), _) if waits => {}
            (Some(_), _) => self.retry = Some(self.backoff.failed(now)),
        }
        armed
    }

    /// Watches one directory of a tree, if there are watches at all.
    pub(super) fn hold(&mut self, path: &Path, id: DirectoryId) -> Result<(), Lack> {
        match self.armed.get(path) {
            Some(&known) if known == id => return Ok(()),
            Some(_) => self.disarm(path),
            None => {}
        }
        let now = Instant::now();
        if self.holder.is_none() || self.retry.is_some_and(|retry| now < retry) {
            return Ok(());
        }
        let held = self.arm_one(path, id);
        if held.is_err() {
            self.retry = Some(self.backoff.failed(now));
        }
        held.map(|_| ())
    }

    /// Watches one directory; whether another plan is needed to see what happened there meanwhile.
    fn arm_one(&mut self, path: &Path, id: DirectoryId) -> Result<bool, Lack> {
        let watched = self.ask(|holder| holder.watch(path, RecursiveMode::NonRecursive));
        match watched {
            Some(Ok(())) => {
                self.armed.insert(path.to_path_buf(), id);
                // Another directory may have taken the name meanwhile; the next plan sees that and arms it anew.
                if directory_id(path) != Some(id) {
                    self.disarm(path);
                }
                Ok(true)
            }
            Some(Err(error)) if matches!(error.kind, ErrorKind::MaxFilesWatch) => {
                Err(Lack::Watches(path.to_path_buf()))
            }
            // It is gone since the plan was made, so that another plan is needed.
            Some(Err(error)) if matches!(error.kind, ErrorKind::PathNotFound) => Ok(true),
            // So it is, or another one has its name.
            Some(Err(_)) if directory_id(path) != Some(id) => Ok(true),
            Some(Err(error)) => Err(Lack::Directory(path.to_path_buf(), error)),
            None => Err(Lack::Failing),
        }
    }

    fn disarm(&mut self, path: &Path) {
        self.armed.remove(path);
        // notify has dropped it by itself if the directory is gone.
        let _ = self.ask(|holder| holder.unwatch(path));
    }

    /// Asks the holder for something. It answers from its thread, and if that ends meanwhile, notify panics here.
    fn ask<T>(&mut self, what: impl FnOnce(&mut Holder) -> T) -> Option<T> {
        if self.shared.inbox().life != Life::Running {
            return None;
        }
        let holder = self.holder.as_mut()?;
        catch_unwind(AssertUnwindSafe(|| what(holder))).ok()
    }
}

fn lack(error: notify::Error) -> Lack {
    match &error.kind {
        ErrorKind::Io(io) => match Errno::from_io_error(io) {
            Some(Errno::MFILE | Errno::NFILE) => Lack::Instances,
            _ => Lack::Refused(error),
        },
        _ => Lack::Refused(error),
    }
}
